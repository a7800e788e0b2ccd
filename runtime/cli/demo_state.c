/*
 * demo_state.c - write and check the bytes of one attached session of the demo.
 *
 * Every byte is content.h's function of (seed, component, plane, token). Rows hold tokens, so a
 * plane of a row is checked token by token; a snapshot is one run whose position is the token
 * count at which it is valid; host bytes are the token ids, then one such run.
 */
#include "content.h"
#include "demo.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define PREFILL_CHUNK_TOKENS 512 /* tokens of a prompt that a host computes at once */
#define SPANS_MAX 64
#define ROWS_SEALED_MAX 8        /* by one append of PREFILL_CHUNK_TOKENS */
#define BREATHE_BYTES (2u << 20) /* work between two looks at the queue: about a millisecond */
#define COMPLAINTS_MAX 10        /* lines about wrong bytes; all are counted */
#define RESERVE_WAIT_NS 2000000  /* between two tries */
#define RESERVE_LIMIT_NS (60ull * 1000000000) /* a device that is busy may keep us waiting */
#define NOTE_MAGIC 0x6e6f7465u

_Static_assert(PREFILL_CHUNK_TOKENS / MODEL_BLOCK_TOKENS + 1 <= ROWS_SEALED_MAX, "rows of a chunk");

struct note { /* the session's note: what the host would need besides the state */
    uint32_t magic;
    uint32_t conversation;
    uint32_t turns;
    uint32_t reserved;
    uint64_t token_count;
};

struct work { /* bytes since the last look at the queue */
    struct host *host;
    uint64_t bytes;
};

static int work_done(struct work *work, uint64_t bytes)
{
    work->bytes += bytes;
    if (work->bytes < BREATHE_BYTES) {
        return 0;
    }
    work->bytes = 0;
    return host_breathe(work->host, 0);
}

static void wrong_report(struct host *host, uint32_t conversation, uint64_t wrong,
                         const char *where, uint64_t at)
{
    const struct conversation *it = &host->workload.conversations[conversation];
    host->totals.bytes_wrong += wrong;
    if (host->complaint_count++ < COMPLAINTS_MAX) {
        (void)fprintf(stderr, "abode: demo: %s %u: %" PRIu64 " wrong bytes in %s %" PRIu64 "\n",
                      conversation_kind_name(it->kind), conversation, wrong, where, at);
    }
}

static uint32_t component_count(enum workload_model model)
{
    return model == MODEL_HYBRID ? MODEL_COMPONENTS : 1;
}

static uint64_t tokens_after(const struct host *host, uint32_t conversation, uint32_t turns)
{
    const struct conversation *it = &host->workload.conversations[conversation];
    return turns == 0 ? it->prefix_tokens
                      : host->workload.turns[it->turn_first + turns - 1].token_count;
}

/* ---- checking -------------------------------------------------------------------------------- */

struct row_check {
    uint32_t conversation;
    uint32_t component;
    uint64_t token_count;
};

static int row_check(struct work *work, const struct row_check *check,
                     const struct abode_view *view, uint32_t row)
{
    struct host *host = work->host;
    const uint64_t first = (uint64_t)row * MODEL_BLOCK_TOKENS;
    const uint64_t rest = check->token_count - first;
    const uint32_t tokens = rest < MODEL_BLOCK_TOKENS ? (uint32_t)rest : MODEL_BLOCK_TOKENS;
    const uint32_t width = host->workload.plane_token_bytes;
    uint64_t wrong = 0;
    for (uint32_t plane = 0; plane < view->plane_count; plane++) {
        const unsigned char *bytes = abode_view_plane(view, row, plane);
        for (uint32_t t = 0; t < tokens; t++) {
            const uint64_t seed =
                conversation_seed_at(&host->workload, check->conversation, first + t);
            const uint64_t stream =
                content_seed(content_join(seed, first + t), check->component, plane);
            wrong += content_check(bytes + (uint64_t)t * width, stream, 0, width, NULL);
        }
    }
    const uint64_t bytes_checked = (uint64_t)tokens * width * view->plane_count;
    host->totals.bytes_verified += bytes_checked;
    if (wrong > 0) {
        wrong_report(host, check->conversation, wrong,
                     check->component == HYBRID_WINDOW ? "window, row" : "attention, row", row);
    }
    return work_done(work, bytes_checked);
}

static int rows_check(struct work *work, const struct row_check *check)
{
    struct host *host = work->host;
    struct abode_view view = {.struct_size = sizeof(view)};
    int result = abode_session_view(host->runtime, host->sessions[check->conversation].handle,
                                    check->component, &view);
    if (result < 0) {
        return result;
    }
    const uint32_t rows =
        (uint32_t)((check->token_count + MODEL_BLOCK_TOKENS - 1) / MODEL_BLOCK_TOKENS);
    const bool window = check->component == HYBRID_WINDOW;
    const uint64_t needed_from = window && check->token_count > MODEL_WINDOW_TOKENS
                                     ? check->token_count - MODEL_WINDOW_TOKENS
                                     : 0;
    const uint64_t row_bytes =
        (uint64_t)MODEL_BLOCK_TOKENS * host->workload.plane_token_bytes * view.plane_count;
    if (view.token_count != check->token_count || view.row_count < rows) {
        wrong_report(host, check->conversation, row_bytes * rows, "a view of another length,",
                     view.token_count);
        return 0;
    }
    for (uint32_t row = 0; row < rows && result >= 0; row++) {
        const bool needed = ((uint64_t)row + 1) * MODEL_BLOCK_TOKENS > needed_from;
        if (view.frames[row] != ABODE_FRAME_NONE) {
            result = row_check(work, check, &view, row);
        } else if (needed) {
            wrong_report(host, check->conversation, row_bytes, "a row that is missing,", row);
        }
    }
    return result;
}

static uint64_t tokens_wrong(const struct host *host, uint32_t conversation, const void *bytes,
                             uint64_t token_count)
{
    const unsigned char *in = bytes;
    uint64_t wrong = 0;
    for (uint64_t i = 0; i < token_count; i++) {
        const uint32_t expected = conversation_token(&host->workload, conversation, i);
        wrong += memcmp(in + 4 * i, &expected, 4) != 0 ? 4 : 0;
    }
    return wrong;
}

static uint64_t snapshot_seed(const struct host *host, uint32_t conversation, uint32_t component,
                              uint64_t token_count)
{
    /* the state after token_count tokens was computed by whoever wrote the last of them */
    const uint64_t seed = conversation_seed_at(&host->workload, conversation, token_count - 1);
    return content_seed(content_join(seed, token_count), component, 0);
}

static int snapshot_check(struct work *work, const struct row_check *check, size_t size_expected)
{
    struct host *host = work->host;
    const void *bytes = NULL;
    size_t size = 0;
    uint64_t token_count = 0;
    const int result = abode_snapshot_get(host->runtime, host->sessions[check->conversation].handle,
                                          check->component, &bytes, &size, &token_count);
    if (result < 0) {
        return result;
    }
    if (token_count != check->token_count || size != size_expected) {
        wrong_report(host, check->conversation, size_expected, "a snapshot of another token,",
                     token_count);
        return 0;
    }
    const unsigned char *rest = bytes;
    uint64_t wrong = 0;
    if (check->component == HYBRID_BYTES) {
        wrong = tokens_wrong(host, check->conversation, bytes, token_count);
        rest += 4 * token_count;
        size -= 4 * token_count;
    }
    const uint64_t stream = snapshot_seed(host, check->conversation, check->component, token_count);
    wrong += content_check(rest, stream, 0, size, NULL);
    host->totals.bytes_verified += size_expected;
    if (wrong > 0) {
        wrong_report(host, check->conversation, wrong, "a snapshot at token", token_count);
    }
    return work_done(work, size_expected);
}

static size_t snapshot_bytes(const struct host *host, uint32_t component, uint64_t token_count)
{
    if (component == HYBRID_BYTES) {
        return 4 * token_count + HYBRID_BYTES_EXTRA;
    }
    struct model_shape shape;
    model_shape_make(&host->workload, MODEL_HYBRID, NULL, &shape);
    size_t size = 0;
    for (uint32_t i = 0; i < shape.components[component].plane_count; i++) {
        size += shape.snapshot_planes[i].bytes_per_block;
    }
    return size;
}

static int note_check(struct host *host, uint32_t conversation, uint32_t turns,
                      uint64_t token_count)
{
    const struct note expected = {NOTE_MAGIC, conversation, turns, 0, token_count};
    struct note note = {0};
    const int size = abode_session_note_get(host->runtime, host->sessions[conversation].handle,
                                            &note, sizeof(note));
    if (size < 0) {
        return size;
    }
    host->totals.bytes_verified += sizeof(note);
    if (size != (int)sizeof(note) || memcmp(&note, &expected, sizeof(note)) != 0) {
        wrong_report(host, conversation, sizeof(note), "the note of turn", note.turns);
    }
    return 0;
}

int state_check(struct host *host, uint32_t conversation, uint32_t turns)
{
    const struct conversation *it = &host->workload.conversations[conversation];
    struct work work = {.host = host};
    struct row_check check = {.conversation = conversation,
                              .token_count = tokens_after(host, conversation, turns)};
    int result = 0;
    if (turns == 0) { /* new: it has as much of its prefix as was there to share */
        struct abode_session_info info = {.struct_size = sizeof(info)};
        result = abode_session_stat(host->runtime, host->sessions[conversation].handle, &info);
        check.token_count = info.token_count;
    }
    if (result < 0 || check.token_count == 0) {
        return result;
    }
    for (uint32_t i = 0; i < component_count(it->model) && result >= 0; i++) {
        check.component = i;
        const bool rows = it->model == MODEL_ATTENTION || i < HYBRID_SNAPSHOT;
        result = rows ? rows_check(&work, &check)
                      : snapshot_check(&work, &check, snapshot_bytes(host, i, check.token_count));
    }
    if (result < 0 || turns == 0) {
        return result; /* before its first turn a session has no note of its own */
    }
    return note_check(host, conversation, turns, check.token_count);
}

/* ---- writing --------------------------------------------------------------------------------- */

void state_row_keys(const struct host *host, uint32_t conversation, uint32_t row_count,
                    struct abode_key *ret_keys)
{
    static const char tenant[] = "demo";
    struct model_shape shape;
    uint32_t tokens[MODEL_BLOCK_TOKENS];
    struct abode_key key;
    model_shape_make(&host->workload, MODEL_ATTENTION, NULL, &shape);
    abode_key_root(shape.desc.tag, tenant, sizeof(tenant) - 1, NULL, 0, &key);
    for (uint32_t row = 0; row < row_count; row++) {
        for (uint32_t t = 0; t < MODEL_BLOCK_TOKENS; t++) {
            tokens[t] = conversation_token(&host->workload, conversation,
                                           (uint64_t)row * MODEL_BLOCK_TOKENS + t);
        }
        abode_key_next(&key, tokens, MODEL_BLOCK_TOKENS, &ret_keys[row]);
        key = ret_keys[row];
    }
}

/* Plane offsets are the model's and never change: they are asked for once. */
static int plane_offsets_learn(struct host *host, uint32_t conversation)
{
    const enum workload_model model = host->workload.conversations[conversation].model;
    if (host->plane_offsets_known[model]) {
        return 0;
    }
    for (uint32_t i = 0; i < component_count(model); i++) {
        if (model == MODEL_HYBRID && i >= HYBRID_SNAPSHOT) {
            continue;
        }
        struct abode_view view = {.struct_size = sizeof(view)};
        const int result =
            abode_session_view(host->runtime, host->sessions[conversation].handle, i, &view);
        if (result < 0) {
            return result;
        }
        for (uint32_t p = 0; p < view.plane_count && p < HOST_PLANES_MAX; p++) {
            host->plane_offsets[model][i][p] = view.plane_offsets[p];
        }
    }
    host->plane_offsets_known[model] = true;
    return 0;
}

static void span_fill(struct host *host, uint32_t conversation, const struct abode_span *span)
{
    const enum workload_model model = host->workload.conversations[conversation].model;
    const uint64_t *offsets = host->plane_offsets[model][span->component];
    const uint32_t planes = model_row_planes(model);
    const uint32_t width = host->workload.plane_token_bytes;
    const uint64_t first = (uint64_t)span->row * MODEL_BLOCK_TOKENS + span->token_first;
    for (uint32_t plane = 0; plane < planes; plane++) {
        unsigned char *bytes = span->base + offsets[plane] + (uint64_t)span->token_first * width;
        for (uint32_t t = 0; t < span->token_count; t++) {
            const uint64_t seed = conversation_seed_at(&host->workload, conversation, first + t);
            const uint64_t stream =
                content_seed(content_join(seed, first + t), span->component, plane);
            content_fill(bytes + (uint64_t)t * width, stream, 0, width);
        }
    }
    host->totals.bytes_filled += (uint64_t)span->token_count * width * planes;
}

/* Memory may be full of sessions whose frames are about to be freed: true, after a breath, when a
 * reserve that said `result` is to be tried again. *ret_error: the breath failed. */
static bool wait_for_frames(struct host *host, int result, uint64_t limit_ns, int *ret_error)
{
    const bool again = result == -EAGAIN || (result == -ABODE_EFULL && host->in_flight > 1);
    *ret_error = 0;
    if (!again || cli_now_ns() > limit_ns) {
        return false;
    }
    *ret_error = host_breathe(host, RESERVE_WAIT_NS);
    return *ret_error >= 0;
}

static int reserve(struct host *host, uint32_t conversation, uint32_t tokens,
                   struct abode_span *ret_spans)
{
    const struct abode_session session = host->sessions[conversation].handle;
    const uint64_t limit_ns = cli_now_ns() + RESERVE_LIMIT_NS;
    int result = 0, error = 0;
    do {
        result = abode_append_reserve(host->runtime, session, tokens, ret_spans, SPANS_MAX);
    } while (wait_for_frames(host, result, limit_ns, &error));
    return error < 0 ? error : result;
}

static int run_append(struct work *work, uint32_t conversation, uint64_t position, uint32_t tokens)
{
    struct host *host = work->host;
    struct abode_span spans[SPANS_MAX];
    struct abode_key keys[ROWS_SEALED_MAX];
    const int span_count = reserve(host, conversation, tokens, spans);
    if (span_count < 0) {
        return span_count;
    }
    const uint64_t filled_before = host->totals.bytes_filled;
    for (int i = 0; i < span_count; i++) {
        span_fill(host, conversation, &spans[i]);
    }
    struct host_session *session = &host->sessions[conversation];
    const uint32_t row_first = (uint32_t)(position / MODEL_BLOCK_TOKENS);
    uint32_t sealed = (uint32_t)((position + tokens) / MODEL_BLOCK_TOKENS) - row_first;
    if (host->workload.conversations[conversation].model == MODEL_HYBRID) {
        sealed = 0; /* rows of a model with snapshots are shared by fork, not by key */
    }
    for (uint32_t i = 0; i < sealed; i++) {
        uint32_t ids[MODEL_BLOCK_TOKENS];
        for (uint32_t t = 0; t < MODEL_BLOCK_TOKENS; t++) {
            const uint64_t at = (uint64_t)(row_first + i) * MODEL_BLOCK_TOKENS + t;
            ids[t] = conversation_token(&host->workload, conversation, at);
        }
        abode_key_next(&session->row_key, ids, MODEL_BLOCK_TOKENS, &keys[i]);
        session->row_key = keys[i];
    }
    const int result = abode_append_commit(host->runtime, session->handle, tokens,
                                           sealed > 0 ? keys : NULL, sealed);
    return result < 0 ? result : work_done(work, host->totals.bytes_filled - filled_before);
}

static int tokens_append(struct work *work, uint32_t conversation, uint64_t position, uint64_t end,
                         uint32_t chunk)
{
    int result = 0;
    while (position < end && result >= 0) {
        const uint64_t rest = end - position;
        const uint32_t tokens = rest < chunk ? (uint32_t)rest : chunk;
        result = run_append(work, conversation, position, tokens);
        position += tokens;
    }
    return result;
}

static int snapshot_write(struct work *work, uint32_t conversation, uint32_t component,
                          uint64_t token_count)
{
    struct host *host = work->host;
    const struct abode_session session = host->sessions[conversation].handle;
    const size_t size = snapshot_bytes(host, component, token_count);
    const bool host_bytes = component == HYBRID_BYTES;
    void *bytes = NULL;
    int result = 0, error = 0;
    const uint64_t limit_ns = cli_now_ns() + RESERVE_LIMIT_NS;
    do {
        result = abode_snapshot_reserve(host->runtime, session, component, host_bytes ? size : 0,
                                        &bytes);
    } while (wait_for_frames(host, result, limit_ns, &error));
    result = error < 0 ? error : result;
    if (result < 0) {
        return result;
    }
    unsigned char *rest = bytes;
    size_t rest_size = size;
    for (uint64_t i = 0; host_bytes && i < token_count; i++) {
        const uint32_t token = conversation_token(&host->workload, conversation, i);
        memcpy(rest, &token, sizeof(token));
        rest += sizeof(token);
        rest_size -= sizeof(token);
    }
    content_fill(rest, snapshot_seed(host, conversation, component, token_count), 0, rest_size);
    host->totals.bytes_filled += size;
    result = abode_snapshot_commit(host->runtime, session, component);
    return result < 0 ? result : work_done(work, size);
}

static void row_key_restore(struct host *host, uint32_t conversation, uint64_t token_count)
{
    struct host_session *session = &host->sessions[conversation];
    const uint32_t rows = (uint32_t)(token_count / MODEL_BLOCK_TOKENS);
    struct abode_key *keys = cli_alloc((size_t)rows + 1, sizeof(*keys));
    state_row_keys(host, conversation, rows, keys);
    if (rows > 0) {
        session->row_key = keys[rows - 1];
    } else {
        struct model_shape shape;
        model_shape_make(&host->workload, MODEL_ATTENTION, NULL, &shape);
        abode_key_root(shape.desc.tag, "demo", 4, NULL, 0, &session->row_key);
    }
    free(keys);
}

static int snapshots_write(struct work *work, uint32_t conversation, uint64_t token_count)
{
    const enum workload_model model = work->host->workload.conversations[conversation].model;
    int result = 0;
    for (uint32_t i = HYBRID_SNAPSHOT; i < component_count(model) && result >= 0; i++) {
        result = snapshot_write(work, conversation, i, token_count);
    }
    return result;
}

static int prompt_append(struct work *work, uint32_t conversation, uint64_t position, uint64_t end)
{
    int result = 0;
    while (position < end && result >= 0) {
        const uint64_t rest = end - position;
        const uint64_t tokens =
            rest < MODEL_SNAPSHOT_STEP_TOKENS ? rest : MODEL_SNAPSHOT_STEP_TOKENS;
        result =
            tokens_append(work, conversation, position, position + tokens, PREFILL_CHUNK_TOKENS);
        position += tokens;
        if (result >= 0 && position < end) {
            result = snapshots_write(work, conversation, position);
        }
    }
    return result;
}

int state_append(struct host *host, uint32_t conversation, uint32_t turn)
{
    const struct conversation *it = &host->workload.conversations[conversation];
    const struct turn *plan = &host->workload.turns[it->turn_first + turn];
    struct host_session *session = &host->sessions[conversation];
    struct abode_session_info info = {.struct_size = sizeof(info)};
    struct work work = {.host = host};
    int result = abode_session_stat(host->runtime, session->handle, &info);
    if (result >= 0) {
        result = plane_offsets_learn(host, conversation);
    }
    if (result >= 0 && it->model == MODEL_ATTENTION) {
        row_key_restore(host, conversation, info.token_count);
    }
    if (result < 0) {
        return result;
    }
    /* A prompt is computed in chunks, an answer comes token by token. */
    const uint64_t prompt_end = plan->token_count - plan->answer_tokens;
    result = prompt_append(&work, conversation, info.token_count, prompt_end);
    if (result >= 0) {
        result = tokens_append(&work, conversation, prompt_end, plan->token_count, 1);
    }
    if (result >= 0) {
        result = snapshots_write(&work, conversation, plan->token_count);
    }
    if (result < 0) {
        return result;
    }
    host->totals.prompt_tokens += prompt_end - info.token_count;
    host->totals.answer_tokens += plan->answer_tokens;
    const struct note note = {NOTE_MAGIC, conversation, turn + 1, 0, plan->token_count};
    return abode_session_note_set(host->runtime, session->handle, &note, sizeof(note));
}
