/*
 * llama_save.c - a sequence into its session: what is new of it.
 *
 *   blob of the sequence -> order of cells -> which leading tokens are there already (under this
 *   name; for a new name, rows with the same bytes under any) -> rows after them -> state at the
 *   end -> order -> detach
 */
#include "llama_bridge.h"

#include <errno.h>
#include <string.h>

struct save {
    struct abode_llama *bridge;
    const llama_token *tokens;
    uint32_t token_count;
    uint32_t kept; /* tokens that the session has */
    bool is_new;   /* it may have shared rows already, but no order of its own */
    size_t blob_size;
    struct ab_blob blob;
    struct abode_session session;
    uint64_t bytes_added;
    uint32_t points[ABODE_LLAMA_POINTS]; /* restore points of the session, oldest first */
    uint32_t point_count;
};

/* ---- what the context holds --------------------------------------------------------------------- */

static int order_read(struct save *save)
{
    struct abode_llama *bridge = save->bridge;
    struct ab_llama_order *order = bridge->order;
    uint32_t room = (uint32_t)AB_LLAMA_RUNS_MAX;
    memset(order, 0, sizeof(*order));
    order->magic = AB_LLAMA_ORDER_MAGIC;
    order->token_count = save->token_count;
    for (uint32_t s = 0; s < ab_llama_attentions(bridge); s++) {
        const struct ab_blob_section *section = &save->blob.sections[s];
        struct ab_blob_run *runs = ab_llama_runs(bridge, s);
        int count = ab_blob_runs(bridge->blob, section, runs, room);
        if (count < 0) {
            return ab_llama_because(bridge, -ENOTSUP, "the cells are in too many pieces");
        }
        order->run_counts[s] = (uint32_t)count;
        order->stream = section->stream;
        room -= (uint32_t)count;
        int cells = ab_blob_map(runs, (uint32_t)count, save->token_count, bridge->cell_of[s]);
        if (cells < 0 || (s == 0 && (uint32_t)cells != save->token_count)) {
            return ab_llama_because(bridge, -EINVAL,
                                    "the sequence's %u cells are not one for each of %u tokens",
                                    section->cell_count, save->token_count);
        }
    }
    return 0;
}

static int recurrent_check(struct save *save)
{
    struct abode_llama *bridge = save->bridge;
    uint32_t last = bridge->layout.section_count - 1, position;
    if (bridge->layout.shapes[last].kind != AB_BLOB_RECURRENT) {
        return 0;
    }
    memcpy(&position, bridge->blob + save->blob.sections[last].cells, sizeof(position));
    return position == save->token_count - 1
               ? 0
               : ab_llama_because(bridge, -EINVAL, "the state is that after %u tokens, not %u",
                                  position + 1, save->token_count);
}

static int blob_take(struct save *save, llama_seq_id sequence)
{
    struct abode_llama *bridge = save->bridge;
    size_t size = llama_state_seq_get_size(bridge->context, sequence);
    int status = ab_llama_blob_room(bridge, size);
    if (status < 0) {
        return status;
    }
    save->blob_size = llama_state_seq_get_data(bridge->context, bridge->blob, size, sequence);
    if (save->blob_size == 0) {
        return ab_llama_because(bridge, -EIO, "llama.cpp gave no state");
    }
    if (bridge->whole) {
        llama_pos last = llama_memory_seq_pos_max(llama_get_memory(bridge->context), sequence);
        return last + 1 == (llama_pos)save->token_count
                   ? 0
                   : ab_llama_because(bridge, -EINVAL, "the sequence has %d tokens, not %u",
                                      (int)last + 1, save->token_count);
    }
    if (ab_blob_parse(bridge->blob, save->blob_size, &bridge->layout, &save->blob) < 0) {
        return ab_llama_because(bridge, -ENOTSUP, "sequence %d is empty or not as at open",
                                (int)sequence);
    }
    status = order_read(save);
    return status < 0 ? status : recurrent_check(save);
}

/* ---- what the session has ----------------------------------------------------------------------- */

static int common_tokens(struct save *save, uint32_t token_count, uint32_t *ret_common)
{
    struct abode_llama *bridge = save->bridge;
    struct abode_view view = {.struct_size = sizeof(view)};
    int status = abode_session_view(bridge->runtime, save->session, 0, &view);
    if (status < 0) {
        return status;
    }
    uint32_t most = token_count < save->token_count ? token_count : save->token_count;
    uint32_t common = 0;
    while (common < most) {
        const unsigned char *ids = abode_view_plane(&view, common / bridge->block_tokens, 0);
        size_t at = common % bridge->block_tokens * sizeof(llama_token);
        if (memcmp(ids + at, save->tokens + common, sizeof(llama_token)) != 0) {
            break;
        }
        common++;
    }
    *ret_common = common;
    return 0;
}

/* The newest restore point among the first `common` tokens; 0: none. Reads the session's order,
 * which takes the place of that of the blob: order_read() comes again. */
static uint32_t point_before(struct save *save, uint32_t common, uint32_t token_count)
{
    struct abode_llama *bridge = save->bridge;
    if (bridge->order_place == AB_LLAMA_ORDER_NOTE) {
        return common;
    }
    if (bridge->order_place == AB_LLAMA_ORDER_NONE) {
        return common == token_count ? common : 0;
    }
    uint32_t best = 0;
    if (ab_llama_order_get(bridge, save->session, token_count) == 0) {
        for (uint32_t i = 0; i < bridge->order->point_count; i++) {
            uint32_t point = bridge->order->points[i];
            if (point <= common) {
                best = point > best ? point : best;
                save->points[save->point_count++] = point;
            }
        }
    }
    return best;
}

static int session_new(struct save *save, const struct abode_key *name)
{
    struct abode_llama *bridge = save->bridge;
    uint32_t full_rows = bridge->share ? save->token_count / bridge->block_tokens : 0;
    struct abode_session_opts opts = {.struct_size = sizeof(opts),
                                      .model = bridge->model,
                                      .home_node = -1,
                                      .name = name,
                                      .prefix_key_count = full_rows,
                                      .prefix_keys = full_rows > 0 ? bridge->keys : NULL};
    save->kept = save->point_count = 0;
    save->is_new = true;
    ab_llama_keys_make(bridge, &save->blob, save->tokens, 0, full_rows);
    int status = abode_session_create(bridge->runtime, &opts, &save->session);
    struct abode_session_info info = {.struct_size = sizeof(info)};
    status = status < 0 ? status : abode_session_stat(bridge->runtime, save->session, &info);
    if (status < 0 || info.attached != 0) {
        return status;
    }
    status = ab_llama_session_attach(bridge, save->session, &save->kept);
    if (status < 0) { /* what is shared cannot be had: without it */
        opts.prefix_key_count = 0;
        opts.prefix_keys = NULL;
        save->kept = 0;
        status = abode_session_delete(bridge->runtime, save->session);
        status = status < 0 ? status : abode_session_create(bridge->runtime, &opts, &save->session);
    }
    return status;
}

/* A row that is half kept goes on only if what it holds is what the context holds: its key will say
 * so. The same tokens in other batches are other bits. */
static int half_row_check(struct save *save)
{
    struct abode_llama *bridge = save->bridge;
    struct abode_view view = {.struct_size = sizeof(view)};
    const uint32_t row = save->kept / bridge->block_tokens;
    struct ab_llama_piece piece = {.position = row * bridge->block_tokens,
                                   .count = save->kept % bridge->block_tokens};
    if (!bridge->share || piece.count == 0) {
        return 0;
    }
    int status = abode_session_view(bridge->runtime, save->session, 0, &view);
    if (status < 0) {
        return status;
    }
    piece.base = view.base + (uint64_t)view.frames[row] * view.frame_stride;
    piece.plane_offsets = view.plane_offsets;
    if (ab_llama_row_is_same(bridge, &save->blob, &piece)) {
        return 0;
    }
    save->kept = piece.position;
    return save->kept == 0 ? 0 : ab_llama_session_cut(bridge, save->session, save->kept);
}

/* Attached, with the longest prefix of the tokens that can be gone on from. */
static int session_open(struct save *save, struct abode_llama_name name)
{
    struct abode_llama *bridge = save->bridge;
    struct abode_key key;
    uint32_t token_count = 0, common = 0;
    ab_llama_session_key(bridge->tag, name, &key);
    int status = abode_session_find(bridge->runtime, &key, &save->session);
    if (status == -ENOENT) {
        return session_new(save, &key);
    }
    status = status < 0 ? status : ab_llama_session_attach(bridge, save->session, &token_count);
    if (status < 0 && status != -ABODE_ECORRUPT) {
        return status;
    }
    bridge->reason[0] = 0; /* damage of what is written over now */
    status = status < 0 ? status : common_tokens(save, token_count, &common);
    save->kept = status < 0 ? 0 : point_before(save, common, token_count);
    status = 0;
    if (save->kept > 0 && save->kept < token_count) {
        status = ab_llama_session_cut(bridge, save->session, save->kept);
        if (status == -ABODE_ECORRUPT || status == -EINVAL) { /* else it can be had later */
            save->kept = 0;
            status = 0;
        }
    }
    status = bridge->whole || status < 0 ? status : order_read(save);
    status = status < 0 ? status : half_row_check(save);
    if (status < 0) {
        (void)ab_llama_session_detach(bridge, save->session);
        return status;
    }
    if (save->kept > 0) {
        return 0;
    }
    status = abode_session_delete(bridge->runtime, save->session); /* another conversation */
    return status < 0 ? status : session_new(save, &key);
}

/* ---- what is new -------------------------------------------------------------------------------- */

static void ids_put(struct save *save, const struct ab_llama_piece *piece)
{
    memcpy(piece->base + piece->plane_offsets[0] + piece->token_first * sizeof(llama_token),
           save->tokens + piece->position, piece->count * sizeof(llama_token));
}

static int span_fill(struct save *save, const struct abode_span *span)
{
    struct abode_llama *bridge = save->bridge;
    struct abode_view view = {.struct_size = sizeof(view)};
    int status = abode_session_view(bridge->runtime, save->session, span->component, &view);
    if (status < 0) {
        return status;
    }
    struct ab_llama_piece piece = {.section = span->component == 0 ? 0 : 1,
                                   .position = span->row * bridge->block_tokens + span->token_first,
                                   .count = span->token_count,
                                   .token_first = span->token_first,
                                   .base = span->base,
                                   .plane_offsets = view.plane_offsets};
    if (span->component == 0) {
        ids_put(save, &piece);
    }
    if (piece.section < ab_llama_attentions(bridge)) {
        ab_llama_piece_keep(bridge, &save->blob, &piece);
    }
    return 0;
}

static int rows_append(struct save *save, uint32_t first, uint32_t count)
{
    struct abode_llama *bridge = save->bridge;
    uint32_t tries = 0;
    int spans;
    do {
        spans = abode_append_reserve(bridge->runtime, save->session, count, bridge->spans,
                                     AB_LLAMA_SPANS_MAX);
    } while (spans == -EAGAIN && ab_llama_pause(&tries));
    if (spans < 0) {
        return spans;
    }
    for (int i = 0; i < spans; i++) {
        int status = span_fill(save, &bridge->spans[i]);
        if (status < 0) {
            return status;
        }
    }
    uint32_t row = first / bridge->block_tokens;
    uint32_t full = bridge->share ? (first + count) / bridge->block_tokens - row : 0;
    ab_llama_keys_make(bridge, &save->blob, save->tokens, row, row + full);
    return abode_append_commit(bridge->runtime, save->session, count,
                               full > 0 ? bridge->keys + row : NULL, full);
}

static int state_put(struct save *save, uint32_t component, const unsigned char *bytes, size_t size)
{
    void *target;
    int status = ab_llama_state_reserve(save->bridge, save->session, component, size, &target);
    if (status < 0) {
        return status;
    }
    memcpy(target, bytes, size);
    save->bytes_added += size;
    return abode_snapshot_commit(save->bridge->runtime, save->session, component);
}

static void points_set(struct save *save)
{
    struct ab_llama_order *order = save->bridge->order;
    uint32_t from = save->point_count < ABODE_LLAMA_POINTS ? 0 : 1;
    order->point_count = 0;
    for (uint32_t i = from; i < save->point_count; i++) {
        order->points[order->point_count++] = save->points[i];
    }
    order->points[order->point_count++] = save->token_count;
}

static int state_write(struct save *save)
{
    struct abode_llama *bridge = save->bridge;
    uint32_t last = bridge->layout.section_count - 1;
    if (bridge->whole) {
        return state_put(save, bridge->whole_component, bridge->blob, save->blob_size);
    }
    int status = 0;
    if (bridge->layout.shapes[last].kind == AB_BLOB_RECURRENT) {
        const struct ab_blob_section *section = &save->blob.sections[last];
        status = state_put(save, bridge->component_of[last], bridge->blob + section->begin,
                           section->end - section->begin);
    }
    points_set(save);
    return status < 0 ? status : ab_llama_order_set(bridge, save->session);
}

static int session_write(struct save *save)
{
    const uint32_t step = AB_LLAMA_ROWS_AT_ONCE * save->bridge->block_tokens;
    if (save->kept == save->token_count && !save->is_new) {
        return 0; /* rows, state and an order of these very tokens are there */
    }
    for (uint32_t at = save->kept; at < save->token_count;) {
        uint32_t left = save->token_count - at;
        uint32_t count = left < step ? left : step;
        int status = rows_append(save, at, count);
        if (status < 0) {
            return status;
        }
        at += count;
    }
    save->bytes_added += (uint64_t)(save->token_count - save->kept) *
                         (save->bridge->token_bytes + sizeof(llama_token));
    return state_write(save);
}

/* ---- the end ------------------------------------------------------------------------------------ */

int ab_llama_leaving_end(struct abode_llama *bridge)
{
    struct ab_llama_leaving *leaving = &bridge->leaving;
    struct abode_op *done;
    if (!leaving->under_way) {
        return 0;
    }
    leaving->under_way = false;
    int status = abode_poll(leaving->queue, &done, 1, -1);
    status = status < 0 ? status : leaving->op.status;
    if (status < 0 && leaving->is_new) {
        (void)!abode_session_delete(bridge->runtime, leaving->session);
    }
    return status;
}

void ab_llama_leaving_settle(struct abode_llama *bridge)
{
    const int status = ab_llama_leaving_end(bridge);
    bridge->leaving.failed = bridge->leaving.failed < 0 ? bridge->leaving.failed : status;
}

bool ab_llama_leaving_made_room(struct abode_llama *bridge, int status)
{
    const bool is_short = status == -ENOSPC || status == -ABODE_EFULL;
    if (!is_short || !bridge->leaving.under_way) {
        return false;
    }
    ab_llama_leaving_settle(bridge);
    return true;
}
/* Detach, by `status` so far. What could not be kept does not stay half kept: of a name that was there
 * before, what is new is cut off again; a new one goes, since memory that cannot be written anywhere
 * cannot be given to others. Other layouts drop what is after their restore point by themselves. */
static int session_leave(struct save *save, int status)
{
    struct abode_llama *bridge = save->bridge;
    struct ab_llama_leaving *leaving = &bridge->leaving;
    if (status < 0 && !save->is_new && bridge->order_place == AB_LLAMA_ORDER_NOTE) {
        (void)ab_llama_session_cut(bridge, save->session, save->kept);
    }
    leaving->session = save->session;
    leaving->is_new = save->is_new;
    leaving->op = (struct abode_op){0};
    const int left = abode_detach(leaving->queue, save->session, 0, &leaving->op);
    leaving->under_way = left == 0;
    if (status < 0) {
        (void)ab_llama_leaving_end(bridge);
    }
    if (save->is_new && (status < 0 || left < 0)) {
        (void)!abode_session_delete(bridge->runtime, save->session); /* -ABODE_ESTALE: it went */
    }
    return status < 0 ? status : left;
}

int abode_llama_save_begin(struct abode_llama *bridge, llama_seq_id sequence,
                           struct abode_llama_name name, const llama_token *tokens,
                           uint32_t token_count, struct abode_llama_saved *ret_saved)
{
    struct save save = {.bridge = bridge, .tokens = tokens, .token_count = token_count};
    ab_llama_leaving_settle(bridge);
    bridge->reason[0] = 0;
    if (token_count == 0 || token_count > bridge->tokens_max) {
        return ab_llama_because(bridge, -EINVAL, "%u tokens; 1 to %u can be kept", token_count,
                                bridge->tokens_max);
    }
    ab_llama_keys_begin(bridge);
    int status = blob_take(&save, sequence);
    if (status < 0) {
        return status;
    }
    status = session_open(&save, name);
    if (status == 0) {
        status = session_leave(&save, session_write(&save));
    }
    if (status < 0) {
        return bridge->reason[0] != 0
                   ? status
                   : ab_llama_because(bridge, status, "%s", abode_strerror(status));
    }
    if (ret_saved != NULL) {
        ret_saved->tokens_kept = save.kept;
        ret_saved->tokens_added = token_count - save.kept;
        ret_saved->bytes_added = save.bytes_added;
    }
    return 0;
}

int abode_llama_save_end(struct abode_llama *bridge)
{
    bridge->reason[0] = 0;
    ab_llama_leaving_settle(bridge);
    const int status = bridge->leaving.failed;
    bridge->leaving.failed = 0;
    return status < 0 ? ab_llama_because(bridge, status, "%s", abode_strerror(status)) : 0;
}

int abode_llama_save(struct abode_llama *bridge, llama_seq_id sequence,
                     struct abode_llama_name name, const llama_token *tokens, uint32_t token_count,
                     struct abode_llama_saved *ret_saved)
{
    struct abode_llama_saved saved;
    int status = abode_llama_save_begin(bridge, sequence, name, tokens, token_count, &saved);
    if (status < 0) {
        return status;
    }
    status = ab_llama_leaving_end(bridge);
    if (status < 0) {
        return ab_llama_because(bridge, status, "%s", abode_strerror(status));
    }
    if (ret_saved != NULL) {
        *ret_saved = saved;
    }
    return 0;
}
