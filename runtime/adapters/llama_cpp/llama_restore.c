/*
 * llama_restore.c - a session into a sequence: one blob, its cells in the order they had.
 *
 * Where all of the state is rows, they are copied into the blob while later ones are being read from
 * disk (abode_attach_ready): what is left after the last read is a few rows, and llama.cpp's own copy.
 * If the attach ends with anything but success, all of it is done again from what is there then.
 */
#include "llama_bridge.h"

#include <errno.h>
#include <string.h>

struct restore {
    struct abode_llama *bridge;
    struct abode_session session;
    uint32_t token_count;
    size_t blob_size;
    struct ab_blob blob;
    bool begun;         /* the blob has all but rows */
    uint32_t rows_done; /* of section 0, in the blob already */
};
#define READY_POLL_NS 200000 /* between two looks at what has been read */

static int damaged(struct abode_llama *bridge, const char *what)
{
    return ab_llama_because(bridge, -ENOENT, "the stored state cannot be used: %s", what);
}

/* Rows [row_first, row_end) of section s; past the session's end: nothing. */
static int rows_restore(struct restore *restore, uint32_t s, uint32_t row_first, uint32_t row_end)
{
    struct abode_llama *bridge = restore->bridge;
    struct abode_view view = {.struct_size = sizeof(view)};
    int status =
        abode_session_view(bridge->runtime, restore->session, bridge->component_of[s], &view);
    if (status < 0) {
        return status;
    }
    row_end = row_end < view.row_count ? row_end : view.row_count;
    for (uint32_t row = row_first; row < row_end; row++) {
        uint32_t first = row * bridge->block_tokens;
        uint32_t left = first < restore->token_count ? restore->token_count - first : 0;
        struct ab_llama_piece piece = {.section = s,
                                       .position = first,
                                       .count = left < bridge->block_tokens ? left
                                                                            : bridge->block_tokens,
                                       .plane_offsets = view.plane_offsets};
        /* loaded once: an attach that fails takes it back */
        const uint32_t frame = __atomic_load_n(&view.frames[row], __ATOMIC_RELAXED);
        if (frame != ABODE_FRAME_NONE) {
            piece.base = view.base + (uint64_t)frame * view.frame_stride;
            ab_llama_piece_restore(bridge, &restore->blob, &piece);
            continue;
        }
        for (uint32_t i = 0; i < piece.count; i++) {
            if (bridge->cell_of[s][first + i] != AB_BLOB_CELL_NONE) {
                return damaged(bridge, "a token that its window needs is not there");
            }
        }
    }
    return 0;
}

static int recurrent_restore(struct restore *restore, uint32_t s)
{
    struct abode_llama *bridge = restore->bridge;
    const struct ab_blob_section *section = &restore->blob.sections[s];
    const void *bytes;
    size_t size;
    uint64_t at;
    int status = abode_snapshot_get(bridge->runtime, restore->session, bridge->component_of[s],
                                    &bytes, &size, &at);
    if (status < 0) {
        return status;
    }
    if (at != restore->token_count || size != section->end - section->begin) {
        return damaged(bridge, "its recurrent state is of another place");
    }
    memcpy(bridge->blob + section->begin, bytes, size);
    return 0;
}

/* Cells of each section, and a blob with all but their rows. */
static int blob_begin(struct restore *restore)
{
    struct abode_llama *bridge = restore->bridge;
    uint32_t counts[AB_BLOB_SECTIONS_MAX] = {0};
    int status = ab_llama_order_get(bridge, restore->session, restore->token_count);
    if (status < 0) {
        return damaged(bridge, "its order of cells is not there");
    }
    for (uint32_t s = 0; s < ab_llama_attentions(bridge); s++) {
        int cells = ab_blob_map(ab_llama_runs(bridge, s), bridge->order->run_counts[s],
                                restore->token_count, bridge->cell_of[s]);
        if (cells < 0 || (s == 0 && (uint32_t)cells != restore->token_count)) {
            return damaged(bridge, "its order of cells is not of these tokens");
        }
        counts[s] = restore->blob.sections[s].cell_count = (uint32_t)cells;
        restore->blob.sections[s].stream = bridge->order->stream;
        if (bridge->order->stream >= bridge->layout.shapes[s].stream_count) {
            return damaged(bridge, "its stream is not there");
        }
    }
    restore->blob_size = ab_blob_size(&bridge->layout, counts);
    status = restore->blob_size == 0 ? damaged(bridge, "a section without cells")
                                     : ab_llama_blob_room(bridge, restore->blob_size);
    if (status < 0) {
        return status;
    }
    ab_blob_begin(&bridge->layout, bridge->blob, &restore->blob);
    for (uint32_t s = 0; s < ab_llama_attentions(bridge); s++) {
        ab_blob_cells_put(bridge->blob, &restore->blob.sections[s], ab_llama_runs(bridge, s),
                          bridge->order->run_counts[s]);
    }
    return 0;
}

static int whole_restore(struct restore *restore)
{
    struct abode_llama *bridge = restore->bridge;
    const void *bytes;
    uint64_t at;
    int status = abode_snapshot_get(bridge->runtime, restore->session, bridge->whole_component,
                                    &bytes, &restore->blob_size, &at);
    status = status < 0 ? status : ab_llama_blob_room(bridge, restore->blob_size);
    if (status == 0) {
        memcpy(bridge->blob, bytes, restore->blob_size);
    }
    return status;
}

static int blob_build(struct restore *restore)
{
    struct abode_llama *bridge = restore->bridge;
    if (bridge->whole) {
        return whole_restore(restore);
    }
    int status = restore->begun ? 0 : blob_begin(restore);
    for (uint32_t s = 0; s < bridge->layout.section_count && status == 0; s++) {
        status = bridge->layout.shapes[s].kind == AB_BLOB_RECURRENT
                     ? recurrent_restore(restore, s)
                     : rows_restore(restore, s, s == 0 ? restore->rows_done : 0, UINT32_MAX);
    }
    struct ab_blob again;
    if (status == 0 &&
        ab_blob_parse(bridge->blob, restore->blob_size, &bridge->layout, &again) < 0) {
        status = damaged(bridge, "it makes no blob");
    }
    return status;
}

static int room_check(const struct restore *restore, uint32_t capacity)
{
    struct abode_llama *bridge = restore->bridge;
    if (restore->token_count > bridge->tokens_max) {
        return ab_llama_because(bridge, -ENOENT, "%u tokens are kept, the context has room for %u",
                                restore->token_count, bridge->tokens_max);
    }
    if (restore->token_count > capacity) {
        return ab_llama_because(bridge, -ENOBUFS, "%u tokens are kept, the caller has room for %u",
                                restore->token_count, capacity);
    }
    return 0;
}

/* Rows into the blob as they arrive. Nothing that goes wrong here matters: it is found again, and
 * told, when the attach has ended. */
static void rows_follow(struct restore *restore, const struct abode_op *op)
{
    uint32_t ready = abode_attach_ready(op);
    if (restore->begun && ready > restore->rows_done) {
        restore->begun = rows_restore(restore, 0, restore->rows_done, ready) == 0;
        restore->rows_done = ready;
    }
}

static int attach_and_follow(struct restore *restore, uint32_t capacity)
{
    struct abode_llama *bridge = restore->bridge;
    struct abode_op op = {0}, *done = &op;
    int status = ab_llama_session_tokens(bridge, restore->session, &restore->token_count);
    status = status < 0 ? status : room_check(restore, capacity);
    status = status < 0
                 ? status
                 : abode_attach(bridge->queue, restore->session, -1, ABODE_ATTACH_PREFIX_OK, &op);
    if (status < 0) {
        return status;
    }
    uint32_t expected = restore->token_count;
    restore->begun = expected > 0 && blob_begin(restore) == 0;
    while ((status = abode_poll(bridge->queue, &done, 1, READY_POLL_NS)) == 0) {
        rows_follow(restore, &op);
    }
    bridge->reason[0] = 0; /* of what was tried while it was in flight */
    status = status < 0 ? status
                        : ab_llama_session_attached(bridge, restore->session, op.status,
                                                    &restore->token_count);
    if (op.status != 0 || restore->token_count != expected || !restore->begun) {
        restore->begun = false;
        restore->rows_done = 0;
    }
    return status;
}

static int attach(struct restore *restore, uint32_t capacity)
{
    if (restore->bridge->order_place == AB_LLAMA_ORDER_NOTE) {
        return attach_and_follow(restore, capacity);
    }
    return ab_llama_session_attach(restore->bridge, restore->session, &restore->token_count);
}

static int tokens_get(struct restore *restore, llama_token *ret_tokens)
{
    struct abode_llama *bridge = restore->bridge;
    struct abode_view view = {.struct_size = sizeof(view)};
    int status = abode_session_view(bridge->runtime, restore->session, 0, &view);
    for (uint32_t token = 0; status == 0 && token < restore->token_count; token++) {
        const unsigned char *ids = abode_view_plane(&view, token / bridge->block_tokens, 0);
        memcpy(&ret_tokens[token], ids + token % bridge->block_tokens * sizeof(llama_token),
               sizeof(llama_token));
    }
    return status;
}

int abode_llama_restore(struct abode_llama *bridge, llama_seq_id sequence,
                        struct abode_llama_name name, llama_token *ret_tokens, uint32_t capacity)
{
    struct restore restore = {.bridge = bridge};
    bridge->reason[0] = 0;
    (void)llama_memory_seq_rm(llama_get_memory(bridge->context), sequence, -1, -1);
    int status = ab_llama_session_find(bridge, name, &restore.session);
    if (status == -ENOENT) {
        ab_llama_miss_reason(bridge, name);
        return status;
    }
    status = status < 0 ? status : attach(&restore, capacity);
    if (ab_llama_leaving_made_room(bridge, status)) {
        status = attach(&restore, capacity);
    }
    if (status == -ABODE_ECORRUPT) {
        return damaged(bridge, "it failed its checksum");
    }
    if (status == 0) {
        status = restore.token_count == 0 ? damaged(bridge, "it failed its checksum")
                                          : room_check(&restore, capacity);
        status = status < 0 ? status : tokens_get(&restore, ret_tokens);
        status = status < 0 ? status : blob_build(&restore);
        /* it was here to be read: what a full store keeps from being written is not lost by it */
        (void)ab_llama_session_detach(bridge, restore.session);
    }
    if (status < 0) {
        return bridge->reason[0] != 0
                   ? status
                   : ab_llama_because(bridge, status, "%s", abode_strerror(status));
    }
    if (llama_state_seq_set_data(bridge->context, bridge->blob, restore.blob_size, sequence) == 0) {
        (void)llama_memory_seq_rm(llama_get_memory(bridge->context), sequence, -1, -1);
        return damaged(bridge, "llama.cpp refused the blob (is there room in the context?)");
    }
    return (int)restore.token_count;
}
