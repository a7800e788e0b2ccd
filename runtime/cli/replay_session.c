/*
 * replay_session.c - a request on the session face, as a server with state would serve it.
 *
 *   START   the branch's session, or a new one (with prefix keys); attach where it has tokens
 *   CHECK   every row and snapshot that came back, against what the branch holds
 *   CUT     compare with the request: what differs is forgotten, back to a restore point; models
 *           with snapshots attach again there
 *   PROMPT  append the rest of the prompt    POINT_1  restore point at its end
 *   HOLD    the model works (only in trace time)
 *   REPLY   append the reply                 POINT_2  restore point at its end
 *   LEAVE   advice, then detach, or delete after the last request of the branch
 *
 * A session that abode dropped, or gave back shorter, is no failure: its tokens are appended again
 * and counted as lost.
 */
#include "replay.h"
#include "replay_branch.h"

#include "content.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum phase {
    PHASE_START = 0,
    PHASE_ATTACHING,
    PHASE_CHECK,
    PHASE_CUT,
    PHASE_DETACHING_TO_CUT,
    PHASE_PROMPT,
    PHASE_POINT_1,
    PHASE_HOLD,
    PHASE_REPLY,
    PHASE_POINT_2,
    PHASE_LEAVE,
    PHASE_DETACHING,
};

static const struct trace_request *request_of(const struct replay *replay,
                                              const struct replay_slot *slot)
{
    return &replay->trace.requests[slot->request];
}

static struct replay_branch *branch_of(const struct replay *replay, const struct replay_slot *slot)
{
    return &replay->branches[request_of(replay, slot)->branch];
}

/* ---- START ----------------------------------------------------------------------------------- */

static int stat_get(struct replay *replay, const struct replay_branch *branch,
                    struct abode_session_info *ret)
{
    *ret = (struct abode_session_info){.struct_size = sizeof(*ret)};
    const uint64_t begin = cli_now_ns();
    const int rc = abode_session_stat(replay->runtime, branch->session, ret);
    replay_called(replay, begin);
    return rc;
}

/* Keys of the rows that are whole in the request's own blocks: what another may have made. */
static int prefix_keys_make(struct replay *replay, struct replay_branch *branch,
                            const struct replay_slot *slot, struct abode_session_opts *opts)
{
    const struct trace_request *const request = request_of(replay, slot);
    const uint64_t tokens = (uint64_t)request->whole_count * replay->trace.block_tokens;
    const uint32_t rows = (uint32_t)(tokens / replay->geometry.block_tokens);

    if (!replay->geometry.shares_prefixes || rows == 0) {
        return 0;
    }
    const int rc = replay_branch_keys(replay, branch, slot->wanted, rows);
    if (rc == 0) {
        opts->prefix_keys = branch->row_keys;
        opts->prefix_key_count = rows;
    }
    return rc;
}

/* A new session; what it already has by its prefix is written into the branch. */
static int session_create(struct replay *replay, struct replay_slot *slot)
{
    struct replay_branch *const branch = branch_of(replay, slot);
    struct abode_session_opts opts = {.struct_size = sizeof(opts),
                                      .model = replay->model,
                                      .home_node = -1,
                                      .durability = (uint32_t)replay->options.durability};
    struct abode_session_info info;

    replay_branch_cut(replay, branch, 0);
    int rc = prefix_keys_make(replay, branch, slot, &opts);
    if (rc < 0) {
        return rc;
    }
    const uint64_t begin = cli_now_ns();
    rc = abode_session_create(replay->runtime, &opts, &branch->session);
    replay_called(replay, begin);
    if (rc < 0) {
        return replay_slot_block(replay, slot, rc);
    }
    branch->held = true;
    rc = stat_get(replay, branch, &info);
    if (rc < 0) {
        return rc;
    }
    replay->figures.prefixes_found += info.token_count > 0;
    rc = replay_branch_grow(replay, branch, slot->wanted, info.token_count);
    if (rc < 0) {
        return rc;
    }
    replay_branch_cut(replay, branch, info.token_count); /* keys of rows that nobody had */
    slot->phase = info.attached ? PHASE_PROMPT : PHASE_START;
    slot->had = 0;
    slot->position = 0;
    slot->target = request_of(replay, slot)->tokens_in;
    if (info.attached) {
        replay_reuse_count(replay, slot, 0);
    }
    return rc;
}

/* The session is gone: begin with a new one. */
static void session_lost(struct replay *replay, struct replay_slot *slot)
{
    struct replay_branch *const branch = branch_of(replay, slot);

    replay->figures.sessions_lost++;
    branch->held = false;
    slot->had = 0;
    slot->store_share = 0;
    slot->phase = PHASE_START;
}

static bool code_is_loss(int code)
{
    return code == -ABODE_ESTALE || code == -ENOENT || code == -ABODE_ECORRUPT;
}

static int session_attach(struct replay *replay, struct replay_slot *slot)
{
    struct replay_branch *const branch = branch_of(replay, slot);
    struct abode_session_info info;

    int rc = stat_get(replay, branch, &info);
    if (code_is_loss(rc)) {
        session_lost(replay, slot);
        return 0;
    }
    if (rc < 0) {
        return rc;
    }
    const uint64_t missing =
        info.bytes_state > info.bytes_resident ? info.bytes_state - info.bytes_resident : 0;
    slot->resident_bytes = info.bytes_resident;
    slot->op = (struct abode_op){.user_data = slot};
    slot->submitted_ns = cli_now_ns();
    rc = abode_attach(replay->queue, branch->session, -1, ABODE_ATTACH_PREFIX_OK, &slot->op);
    replay_called(replay, slot->submitted_ns);
    if (code_is_loss(rc)) {
        session_lost(replay, slot);
        return 0;
    }
    if (rc < 0) {
        return replay_slot_block(replay, slot, rc);
    }
    slot->phase = PHASE_ATTACHING;
    replay_slot_submitted(replay, slot, true, missing > 0);
    return 0;
}

static int start_step(struct replay *replay, struct replay_slot *slot)
{
    return branch_of(replay, slot)->held ? session_attach(replay, slot)
                                         : session_create(replay, slot);
}

/* ---- attached -------------------------------------------------------------------------------- */

static int views_get(struct replay *replay, struct replay_slot *slot)
{
    const struct replay_branch *const branch = branch_of(replay, slot);

    for (uint32_t i = 0; i < replay->geometry.part_count; i++) {
        const uint32_t kind = replay->geometry.parts[i].kind;
        if (kind != ABODE_PAGED && kind != ABODE_WINDOW) {
            continue;
        }
        slot->views[i] = (struct abode_view){.struct_size = sizeof(slot->views[i])};
        const uint64_t begin = cli_now_ns();
        const int rc = abode_session_view(replay->runtime, branch->session, i, &slot->views[i]);
        replay_called(replay, begin);
        if (rc < 0) {
            return rc;
        }
    }
    return 0;
}

static int attached_step(struct replay *replay, struct replay_slot *slot)
{
    struct replay_branch *const branch = branch_of(replay, slot);
    struct abode_session_info info;
    const int status = slot->op.status;

    if (code_is_loss(status)) {
        const int deleted = abode_session_delete(replay->runtime, branch->session);
        session_lost(replay, slot);
        return deleted < 0 && !code_is_loss(deleted) ? deleted : 0;
    }
    if (status == -ABODE_EFULL || status == -EAGAIN || status == -ENOSPC) {
        slot->phase = PHASE_START;
        return replay_slot_block(replay, slot, status);
    }
    if (status < 0 && status != -ABODE_EPARTIAL) {
        return status;
    }
    int rc = stat_get(replay, branch, &info);
    if (rc < 0) {
        return rc;
    }
    replay->figures.attaches++;
    replay->figures.attaches_partial += info.token_count < branch->tokens;
    if (info.token_count > branch->tokens) {
        return replay_fail(replay, slot, -EIO, "attach gave more tokens than were appended");
    }
    const uint64_t read =
        info.bytes_resident > slot->resident_bytes ? info.bytes_resident - slot->resident_bytes : 0;
    replay_read_count(replay, slot, read);
    slot->store_share = info.bytes_resident == 0 ? 0 : (double)read / (double)info.bytes_resident;
    slot->had = info.token_count;
    replay_branch_cut(replay, branch, info.token_count);
    slot->position = 0;
    slot->phase = PHASE_CHECK;
    return views_get(replay, slot);
}

/* ---- CHECK ----------------------------------------------------------------------------------- */

/* Must this row be there? All of PAGED, of WINDOW those that the next token looks at. */
static bool row_is_needed(const struct replay *replay, const struct replay_slot *slot,
                          uint32_t component, uint64_t row)
{
    const struct preset_part *const part = &replay->geometry.parts[component];
    const uint64_t end = (row + 1) * replay->geometry.block_tokens;
    return part->kind == ABODE_PAGED || end + part->window_tokens > slot->had;
}

static int row_check(struct replay *replay, struct replay_slot *slot, uint64_t row)
{
    const struct replay_branch *const branch = branch_of(replay, slot);
    const uint32_t length = replay->geometry.block_tokens;
    const uint64_t first = row * length, left = slot->had - first;
    const struct replay_tokens tokens = {.identities = branch->identities,
                                         .row_token = first,
                                         .count = left < length ? (uint32_t)left : length};

    for (uint32_t i = 0; i < replay->geometry.part_count; i++) {
        const struct abode_view *const view = &slot->views[i];
        const uint32_t kind = replay->geometry.parts[i].kind;
        if (kind != ABODE_PAGED && kind != ABODE_WINDOW) {
            continue;
        }
        if (row >= view->row_count || view->frames[row] == ABODE_FRAME_NONE) {
            if (row_is_needed(replay, slot, i, row)) {
                return replay_fail(replay, slot, -EIO, "a row of an attached session has no frame");
            }
            continue;
        }
        (void)replay_row_check(replay, i, view->base + view->frames[row] * view->frame_stride,
                               &tokens);
    }
    return 0;
}

/* Snapshots and bytes that came back belong to exactly this position. */
static int points_check(struct replay *replay, struct replay_slot *slot, uint64_t token_count)
{
    const struct replay_branch *const branch = branch_of(replay, slot);

    for (uint32_t i = 0; i < replay->geometry.part_count && token_count > 0; i++) {
        const uint32_t kind = replay->geometry.parts[i].kind;
        const void *bytes = NULL;
        uint64_t at = 0;
        size_t size = 0;

        if (kind != ABODE_SNAPSHOT && kind != ABODE_BYTES) {
            continue;
        }
        const uint64_t begin = cli_now_ns();
        const int rc = abode_snapshot_get(replay->runtime, branch->session, i, &bytes, &size, &at);
        replay_called(replay, begin);
        if (rc < 0) {
            return rc;
        }
        if (at != token_count || size < replay_point_bytes(replay, i, at)) {
            return replay_fail(replay, slot, -EIO, "a snapshot is of another position");
        }
        const uint64_t identity = replay_point_identity(replay, branch->identities, at);
        (void)replay_bytes_check(replay, bytes, content_seed(identity, i, 0),
                                 replay_point_bytes(replay, i, at), "snapshot");
    }
    return 0;
}

static int check_step(struct replay *replay, struct replay_slot *slot)
{
    const uint32_t length = replay->geometry.block_tokens;
    const uint64_t rows = (slot->had + length - 1) / length;
    const uint64_t row_bytes = length * replay->geometry.token_bytes;
    const uint64_t before = replay->figures.bytes_verified;
    const uint64_t begin = replay_thread_cpu_ns();
    int rc = 0;

    if (replay->options.verify == REPLAY_VERIFY_NONE) {
        slot->position = rows;
    }
    while (rc == 0 && slot->position < rows &&
           replay->figures.bytes_verified - before + row_bytes <= REPLAY_SLICE_BYTES + row_bytes) {
        if (replay->options.verify == REPLAY_VERIFY_ALL ||
            (slot->position + slot->request) % REPLAY_SAMPLE_EVERY == 0) {
            rc = row_check(replay, slot, slot->position);
        }
        slot->position++;
    }
    if (rc == 0 && slot->position == rows) {
        rc = replay->options.verify == REPLAY_VERIFY_NONE ? 0
                                                          : points_check(replay, slot, slot->had);
        slot->phase = PHASE_CUT;
    }
    replay->figures.content_ns += replay_thread_cpu_ns() - begin;
    return rc;
}

/* ---- CUT ------------------------------------------------------------------------------------- */

/* The session cannot go back to where the request leaves it: begin anew. */
static int session_renew(struct replay *replay, struct replay_slot *slot)
{
    struct replay_branch *const branch = branch_of(replay, slot);
    const uint64_t begin = cli_now_ns();
    const int rc = abode_session_delete(replay->runtime, branch->session);

    replay_called(replay, begin);
    branch->held = false;
    slot->had = 0;
    slot->phase = PHASE_START;
    return rc;
}

static int truncate_call(struct replay *replay, const struct replay_branch *branch, uint64_t point)
{
    const uint64_t begin = cli_now_ns();
    const int rc = abode_session_truncate(replay->runtime, branch->session, point);
    replay_called(replay, begin);
    return rc;
}

static int detach_submit(struct replay *replay, struct replay_slot *slot, enum phase phase)
{
    slot->op = (struct abode_op){.user_data = slot};
    slot->submitted_ns = cli_now_ns();
    const int rc = abode_detach(replay->queue, branch_of(replay, slot)->session, 0, &slot->op);
    replay_called(replay, slot->submitted_ns);
    if (rc < 0) {
        return replay_slot_block(replay, slot, rc);
    }
    slot->phase = phase;
    replay_slot_submitted(replay, slot, false, false);
    return 0;
}

/* Back to `point`, a restore point. 1: done, the request goes on here; 0: the phase has changed, or
 * the slot is blocked and asks again. An attach brings only the newest one's snapshots: those of an
 * older one come with another attach, after which the request finds nothing to cut. */
static int session_cut(struct replay *replay, struct replay_slot *slot, uint64_t point)
{
    struct replay_branch *const branch = branch_of(replay, slot);

    if (point == 0) {
        return session_renew(replay, slot);
    }
    const int rc = truncate_call(replay, branch, point);
    if (rc == -EINVAL) { /* rows or snapshots before the point are gone already */
        replay->figures.truncations_refused++;
        return session_renew(replay, slot);
    }
    if (rc < 0) {
        return replay_slot_block(replay, slot, rc);
    }
    replay->figures.truncations += branch->tokens > point;
    replay_branch_cut(replay, branch, point);
    if (replay->geometry.fixed_bytes > 0) {
        return detach_submit(replay, slot, PHASE_DETACHING_TO_CUT);
    }
    return 1;
}

static int cut_step(struct replay *replay, struct replay_slot *slot)
{
    struct replay_branch *const branch = branch_of(replay, slot);
    const uint64_t tokens_in = request_of(replay, slot)->tokens_in;
    const uint64_t common = replay_branch_common(replay, branch, slot->wanted, tokens_in);
    const uint64_t point = replay_branch_point_below(replay, branch, common);

    if (point < slot->had) {
        const int rc = session_cut(replay, slot, point);
        if (rc <= 0) {
            return rc;
        }
    }
    slot->phase = PHASE_PROMPT;
    slot->position = point;
    slot->target = tokens_in;
    replay_reuse_count(replay, slot, point);
    return 0;
}

static int cut_detached_step(struct replay *replay, struct replay_slot *slot)
{
    if (slot->op.status < 0) {
        replay->figures.writes_failed++;
        replay->figures.last_write_error = slot->op.status;
    }
    slot->phase = PHASE_START;
    return 0;
}

/* ---- append ---------------------------------------------------------------------------------- */

/* How many tokens to append at once: a slice of work, a whole number of rows from where we are. */
static uint32_t append_count(const struct replay *replay, const struct replay_slot *slot)
{
    const uint64_t length = replay->geometry.block_tokens;
    const uint64_t rows_by_spans = REPLAY_SPANS_MAX / replay->geometry.part_count - 1;
    const uint64_t rows_by_bytes =
        REPLAY_SLICE_BYTES / (length * (replay->geometry.token_bytes + 1)) + 1;
    const uint64_t rows_by_work = rows_by_bytes < rows_by_spans ? rows_by_bytes : rows_by_spans;
    const uint64_t rows_by_memory = replay_append_rows_max(replay);
    const uint64_t rows = rows_by_work < rows_by_memory ? rows_by_work : rows_by_memory;
    const uint64_t stop = (slot->position / length + rows) * length;

    return (uint32_t)((stop < slot->target ? stop : slot->target) - slot->position);
}

static void spans_fill(struct replay *replay, const struct replay_slot *slot, int span_count)
{
    const uint64_t begin = replay_thread_cpu_ns();

    for (int i = 0; i < span_count; i++) {
        const struct abode_span *const span = &replay->spans[i];
        const struct replay_tokens tokens = {.identities = slot->wanted,
                                             .row_token = (uint64_t)span->row *
                                                          replay->geometry.block_tokens,
                                             .first = span->token_first,
                                             .count = span->token_count};
        replay_row_fill(replay, span->component, span->base, &tokens);
    }
    replay->figures.content_ns += replay_thread_cpu_ns() - begin;
}

static int append_commit(struct replay *replay, struct replay_slot *slot, uint32_t count)
{
    struct replay_branch *const branch = branch_of(replay, slot);
    const uint64_t length = replay->geometry.block_tokens;
    const uint32_t row_first = (uint32_t)(slot->position / length);
    const uint32_t row_end = (uint32_t)((slot->position + count) / length);
    const struct abode_key *keys = NULL;
    int rc = 0;

    if (replay->geometry.shares_prefixes && row_end > row_first) {
        rc = replay_branch_keys(replay, branch, slot->wanted, row_end);
        keys = rc < 0 ? NULL : branch->row_keys + row_first;
    }
    if (rc < 0) {
        return rc;
    }
    const uint64_t begin = cli_now_ns();
    rc = abode_append_commit(replay->runtime, branch->session, count, keys,
                             keys == NULL ? 0 : row_end - row_first);
    replay_called(replay, begin);
    return rc < 0 ? rc : replay_branch_grow(replay, branch, slot->wanted, slot->position + count);
}

static int append_step(struct replay *replay, struct replay_slot *slot)
{
    const struct replay_branch *const branch = branch_of(replay, slot);
    const uint32_t count = append_count(replay, slot);

    if (count == 0) {
        slot->phase++;
        slot->part = 0;
        return 0;
    }
    const uint64_t begin = cli_now_ns();
    const int spans = abode_append_reserve(replay->runtime, branch->session, count, replay->spans,
                                           REPLAY_SPANS_MAX);
    replay_called(replay, begin);
    if (spans < 0) {
        return replay_slot_block(replay, slot, spans);
    }
    spans_fill(replay, slot, spans);
    const int rc = append_commit(replay, slot, count);
    slot->position += rc < 0 ? 0 : count;
    return rc;
}

/* ---- restore points -------------------------------------------------------------------------- */

static int point_write(struct replay *replay, struct replay_slot *slot, uint32_t component)
{
    const struct replay_branch *const branch = branch_of(replay, slot);
    const size_t size = replay_point_bytes(replay, component, slot->position);
    const bool sized = replay->geometry.parts[component].kind == ABODE_BYTES;
    void *bytes = NULL;

    uint64_t begin = cli_now_ns();
    int rc = abode_snapshot_reserve(replay->runtime, branch->session, component, sized ? size : 0,
                                    &bytes);
    replay_called(replay, begin);
    if (rc < 0) {
        return replay_slot_block(replay, slot, rc);
    }
    const uint64_t identity = replay_point_identity(replay, slot->wanted, slot->position);
    begin = replay_thread_cpu_ns();
    replay_bytes_fill(replay, bytes, content_seed(identity, component, 0), size);
    replay->figures.content_ns += replay_thread_cpu_ns() - begin;
    begin = cli_now_ns();
    rc = abode_snapshot_commit(replay->runtime, branch->session, component);
    replay_called(replay, begin);
    if (rc < 0) {
        return replay_slot_block(replay, slot, rc);
    }
    slot->part++;
    return 0;
}

/* One component a step; a model without fixed state has nothing to do here. */
static int point_step(struct replay *replay, struct replay_slot *slot)
{
    const struct replay_branch *const held = branch_of(replay, slot);

    if (held->point_count > 0 && held->points[held->point_count - 1] == slot->position) {
        slot->part = replay->geometry.part_count; /* a turn without a reply: it is there */
    }
    while (slot->part < replay->geometry.part_count) {
        const uint32_t kind = replay->geometry.parts[slot->part].kind;
        if (kind == ABODE_SNAPSHOT || kind == ABODE_BYTES) {
            return point_write(replay, slot, slot->part);
        }
        slot->part++;
    }
    if (replay->geometry.fixed_bytes > 0) {
        replay_branch_point_add(branch_of(replay, slot), slot->position);
    }
    slot->phase++;
    return 0;
}

/* ---- HOLD and LEAVE -------------------------------------------------------------------------- */

static int hold_step(struct replay *replay, struct replay_slot *slot)
{
    const struct trace_request *const request = request_of(replay, slot);
    const uint64_t now = cli_now_ns();

    if (slot->state != REPLAY_HOLDING && replay->options.speed > 0 && request->busy_s > 0) {
        slot->due_ns = now + (uint64_t)(request->busy_s / replay->options.speed * 1e9);
        slot->state = REPLAY_HOLDING;
        return 0;
    }
    slot->state = REPLAY_READY;
    slot->phase = PHASE_REPLY;
    slot->target = (uint64_t)request->tokens_in + request->tokens_out;
    return 0;
}

static void advise(struct replay *replay, const struct replay_branch *branch,
                   const struct trace_request *request, bool last)
{
    const enum abode_advice advice = last                               ? ABODE_ENDED
                                     : request->stop == TRACE_STOP_TOOL ? ABODE_IDLE_TOOL
                                                                        : ABODE_IDLE_PERSON;
    const uint64_t begin = cli_now_ns();
    abode_advise(replay->runtime, branch->session, advice, 0);
    replay_called(replay, begin);
}

static void request_finish(struct replay *replay, struct replay_slot *slot)
{
    branch_of(replay, slot)->busy = false;
    branch_of(replay, slot)->turn = ++replay->turn;
    replay_slot_finished(replay, slot);
}

static int leave_step(struct replay *replay, struct replay_slot *slot)
{
    struct replay_branch *const branch = branch_of(replay, slot);
    const struct trace_request *const request = request_of(replay, slot);
    const bool last = request->next == TRACE_NONE;

    advise(replay, branch, request, last);
    if (last) {
        const uint64_t begin = cli_now_ns();
        const int rc = abode_session_delete(replay->runtime, branch->session);
        replay_called(replay, begin);
        request_finish(replay, slot);
        replay_branch_free(branch);
        return rc;
    }
    return detach_submit(replay, slot, PHASE_DETACHING);
}

/* A server whose store is full forgets the conversation that was quiet for longest. What its tokens
 * were stays with the branch, so that its next request counts them as lost. */
static bool session_drop(struct replay *replay)
{
    struct replay_branch *coldest = NULL;

    for (uint32_t i = 0; i < replay->trace.branch_count; i++) {
        struct replay_branch *const branch = &replay->branches[i];
        if (branch->held && !branch->busy && (coldest == NULL || branch->turn < coldest->turn)) {
            coldest = branch;
        }
    }
    if (coldest == NULL) {
        return false;
    }
    const uint64_t begin = cli_now_ns();
    const int rc = abode_session_delete(replay->runtime, coldest->session);
    replay_called(replay, begin);
    coldest->held = false;
    replay->figures.sessions_dropped += rc == 0;
    return true;
}

static int detached_step(struct replay *replay, struct replay_slot *slot)
{
    if (slot->op.status < 0) {
        replay->figures.writes_failed++;
        replay->figures.last_write_error = slot->op.status;
        if (slot->op.status == -ENOSPC) {
            (void)session_drop(replay); /* none: this one stays in memory, which is no failure */
        }
    }
    request_finish(replay, slot);
    return 0;
}

/* ---- the face -------------------------------------------------------------------------------- */

static int session_start(struct replay *replay, struct replay_slot *slot)
{
    struct replay_branch *const branch = branch_of(replay, slot);

    branch->busy = true;
    branch->started = true;
    slot->phase = PHASE_START;
    slot->had = 0;
    slot->store_share = 0;
    const int rc = replay_wanted_make(replay, slot);
    if (rc == 0) {
        slot->expected =
            replay_branch_common(replay, branch, slot->wanted, request_of(replay, slot)->tokens_in);
    }
    return rc;
}

static int session_step(struct replay *replay, struct replay_slot *slot)
{
    static int (*const steps[])(struct replay *, struct replay_slot *) = {
        [PHASE_START] = start_step,
        [PHASE_ATTACHING] = attached_step,
        [PHASE_CHECK] = check_step,
        [PHASE_CUT] = cut_step,
        [PHASE_DETACHING_TO_CUT] = cut_detached_step,
        [PHASE_PROMPT] = append_step,
        [PHASE_POINT_1] = point_step,
        [PHASE_HOLD] = hold_step,
        [PHASE_REPLY] = append_step,
        [PHASE_POINT_2] = point_step,
        [PHASE_LEAVE] = leave_step,
        [PHASE_DETACHING] = detached_step,
    };
    return steps[slot->phase](replay, slot);
}

/* Where planes lie in a frame and how many rows fit: told by the view of an empty session. */
static int layout_learn(struct replay *replay, struct abode_session session)
{
    for (uint32_t i = 0; i < replay->geometry.part_count; i++) {
        struct abode_view view = {.struct_size = sizeof(view)};
        const uint32_t kind = replay->geometry.parts[i].kind;
        if (kind != ABODE_PAGED && kind != ABODE_WINDOW) {
            continue;
        }
        const int rc = abode_session_view(replay->runtime, session, i, &view);
        if (rc < 0) {
            return rc;
        }
        memcpy(replay->plane_offsets[i], view.plane_offsets,
               view.plane_count * sizeof(view.plane_offsets[0]));
        const uint64_t rows = (uint64_t)view.frames_per_node * replay->stats_before.node_count;
        if (kind == ABODE_PAGED && (replay->rows_max == 0 || rows < replay->rows_max)) {
            replay->rows_max = rows;
        }
    }
    return 0;
}

static int session_open(struct replay *replay)
{
    struct abode_session_opts opts = {
        .struct_size = sizeof(opts), .model = replay->model, .home_node = -1};
    struct abode_session session;

    replay->branches = cli_alloc(replay->trace.branch_count, sizeof(*replay->branches));
    replay->spans = cli_alloc(REPLAY_SPANS_MAX, sizeof(*replay->spans));
    int rc = abode_session_create(replay->runtime, &opts, &session);
    if (rc < 0) {
        return rc;
    }
    rc = layout_learn(replay, session);
    const int deleted = abode_session_delete(replay->runtime, session);
    return rc < 0 ? rc : deleted;
}

static void session_close(struct replay *replay)
{
    for (uint32_t i = 0; replay->branches != NULL && i < replay->trace.branch_count; i++) {
        replay_branch_free(&replay->branches[i]);
    }
    free(replay->branches);
    free(replay->spans);
    replay->branches = NULL;
    replay->spans = NULL;
}

const struct replay_face_ops replay_session_face = {
    .name = "session",
    .open = session_open,
    .close = session_close,
    .start = session_start,
    .step = session_step,
    .drop = session_drop,
};
