/*
 * append.c - the hot path: spans to write new tokens into, commit, views.
 *
 * While a session is attached, its counters and tables are its host thread's. Inside a row whose
 * blocks are dirty already and not being written, reserve and commit touch nothing else, so they
 * take no lock. A row's start takes the lock once, for blocks and frames.
 */
#include <string.h>

#include "base/num.h"
#include "kv/persist.h"
#include "kv/session.h"
#include "kv/transfer.h"

static int attached_get(struct ab_kv *kv, struct abode_session handle, struct ab_session **ret)
{
    struct ab_session *session = ab_session_get(kv, handle);
    if (session == NULL) {
        return -ABODE_ESTALE;
    }
    uint8_t state = __atomic_load_n(&session->state, __ATOMIC_ACQUIRE);
    if (state != AB_SESSION_ATTACHED) {
        return state == AB_SESSION_DETACHED ? -ENOTCONN : -EBUSY;
    }
    *ret = session;
    return 0;
}

/* Ours alone and dirty: may be written without telling anybody. */
static bool block_is_open(const struct ab_block *block)
{
    uint8_t flags = __atomic_load_n(&block->flags, __ATOMIC_RELAXED);
    /* a fork may share it although nobody has stored or keyed it yet */
    return flags == (AB_BLOCK_USED | AB_BLOCK_OWNED | AB_BLOCK_DIRTY) &&
           __atomic_load_n(&block->refs, __ATOMIC_RELAXED) == 1;
}

/* One block and frame for a component at a row's start; lock held. */
static int row_block_make(struct ab_kv *kv, struct ab_session *session, uint32_t c, uint32_t row)
{
    struct ab_component *component = &kv->models[session->model].components[c];
    uint32_t index = ab_block_new(kv, AB_COMPONENT_ID(session->model, c));
    if (index == AB_INDEX_NONE) {
        return -ABODE_EFULL;
    }
    kv->blocks[index].bytes = (uint32_t)component->block_bytes;
    if (ab_frame_obtain(kv, index, session->home_node, session->tenant) == AB_INDEX_NONE) {
        ab_block_free(kv, index);
        return ab_frames_shortage(kv, component);
    }
    ab_block_mark(&kv->blocks[index], AB_BLOCK_DIRTY);
    ab_block_ref(kv, index);
    ab_block_frame_info(kv, &kv->blocks[index])->pins = 1;
    ab_session_rows(kv, session, c)[row] = index;
    ab_session_frames(kv, session, c)[row] = kv->blocks[index].frame;
    return 0;
}

static int row_make(struct ab_kv *kv, struct ab_session *session)
{
    const struct ab_model *model = &kv->models[session->model];
    uint32_t row = session->row_count;
    for (uint32_t c = 0; c < model->component_count; c++) {
        if (!ab_component_has_rows(&model->components[c])) {
            continue;
        }
        int status = row_block_make(kv, session, c, row);
        if (status == 0) {
            continue;
        }
        for (uint32_t undo = 0; undo < c; undo++) {
            if (ab_component_has_rows(&model->components[undo])) {
                uint32_t index = ab_session_rows(kv, session, undo)[row];
                ab_block_frame_info(kv, &kv->blocks[index])->pins = 0;
                ab_block_unref(kv, index, NULL);
            }
        }
        return status;
    }
    session->row_count++;
    return 0;
}

/* The partly filled row was stored by the last detach: it becomes dirty again. Lock held. */
static int tail_open(struct ab_kv *kv, struct ab_session *session, uint32_t row)
{
    const struct ab_model *model = &kv->models[session->model];
    for (uint32_t c = 0; c < model->component_count; c++) {
        if (!ab_component_has_rows(&model->components[c])) {
            continue;
        }
        const uint32_t *rows = ab_session_rows(kv, session, c);
        if ((kv->blocks[rows[row]].flags & AB_BLOCK_MOVING) != 0) {
            return -EAGAIN;
        }
        int status = ab_session_tail_own(kv, session, c, row);
        if (status != 0) {
            return status;
        }
        struct ab_block *block = &kv->blocks[rows[row]];
        AB_ASSERT(block->refs == 1 && (block->flags & AB_BLOCK_KEYED) == 0);
        ab_block_mark(block, AB_BLOCK_DIRTY);
    }
    session->dirty_row = AB_MIN(session->dirty_row, row);
    return 0;
}

static bool tail_is_open(struct ab_kv *kv, const struct ab_session *session, uint32_t row)
{
    const struct ab_model *model = &kv->models[session->model];
    for (uint32_t c = 0; c < model->component_count; c++) {
        if (ab_component_has_rows(&model->components[c]) &&
            !block_is_open(&kv->blocks[ab_session_rows(kv, session, c)[row]])) {
            return false;
        }
    }
    return true;
}

static int rows_ready(struct ab_kv *kv, struct ab_session *session, uint32_t token_count)
{
    const struct ab_model *model = &kv->models[session->model];
    uint32_t first = (uint32_t)(session->token_count / model->block_tokens);
    uint32_t wanted = ab_rows_of(model, session->token_count + token_count);
    bool partial = session->token_count % model->block_tokens != 0;
    if (wanted <= session->row_count && (!partial || tail_is_open(kv, session, first))) {
        return 0;
    }
    int status = 0;
    ab_lock_take(&kv->lock);
    if (partial) {
        status = tail_open(kv, session, first);
    }
    while (status == 0 && session->row_count < wanted) {
        status = row_make(kv, session);
    }
    ab_lock_drop(&kv->lock);
    return status;
}

static uint32_t spans_fill(struct ab_kv *kv, struct ab_session *session, uint32_t token_count,
                           struct abode_span *spans)
{
    const struct ab_model *model = &kv->models[session->model];
    uint32_t used = 0;
    uint64_t at = session->token_count, end = at + token_count;
    while (at < end) {
        uint32_t row = (uint32_t)(at / model->block_tokens);
        uint32_t first = (uint32_t)(at % model->block_tokens);
        uint32_t count = (uint32_t)AB_MIN(end - at, model->block_tokens - first);
        for (uint32_t c = 0; c < model->component_count; c++) {
            const struct ab_component *component = &model->components[c];
            if (!ab_component_has_rows(component)) {
                continue;
            }
            uint32_t frame = ab_session_frames(kv, session, c)[row];
            spans[used++] = (struct abode_span){
                .component = c,
                .row = row,
                .token_first = first,
                .token_count = count,
                .node = ab_frame_node(frame, ab_frames_per_node(component->frames)),
                .base = ab_frames_base(component->frames) +
                        (uint64_t)frame * ab_frames_stride(component->frames)};
        }
        at += count;
    }
    return used;
}

int ab_append_reserve(struct ab_kv *kv, struct abode_session handle, uint32_t token_count,
                      struct abode_span *ret_spans, uint32_t span_capacity)
{
    struct ab_session *session;
    int status = attached_get(kv, handle, &session);
    if (status != 0) {
        return status;
    }
    const struct ab_model *model = &kv->models[session->model];
    if (token_count == 0) {
        return -EINVAL;
    }
    if (token_count > model->tokens_max || session->token_count > model->tokens_max - token_count) {
        return -EFBIG;
    }
    uint64_t rows = ab_rows_of(model, session->token_count + token_count) -
                    session->token_count / model->block_tokens;
    if (rows * model->row_component_count > span_capacity) {
        return -ENOBUFS;
    }
    status = rows_ready(kv, session, token_count);
    if (status != 0) {
        return status;
    }
    session->reserved_tokens = token_count;
    return (int)spans_fill(kv, session, token_count, ret_spans);
}

/* ---- commit ---- */

/* Another block has this key: name that one instead of ours, if that needs no waiting. */
static void row_share(struct ab_kv *kv, struct ab_session *session, uint32_t c, uint32_t row,
                      uint32_t other)
{
    struct ab_component *component = &kv->models[session->model].components[c];
    uint32_t *rows = ab_session_rows(kv, session, c);
    uint32_t *frames = ab_session_frames(kv, session, c);
    uint32_t own = rows[row];
    struct ab_block *shared = &kv->blocks[other], *mine = &kv->blocks[own];
    if (((shared->flags | mine->flags) & (AB_BLOCK_BAD | AB_BLOCK_MOVING | AB_BLOCK_PENDING)) !=
            0 ||
        ab_block_is_stored(mine) || row < session->stored_rows) {
        return;
    }
    if (shared->frame == AB_INDEX_NONE) { /* stored only: our bytes bring it back */
        shared->frame = mine->frame;
        component->infos[mine->frame].block = other;
        mine->frame = AB_INDEX_NONE;
    } else if (component->infos[shared->frame].state != AB_FRAME_READY) {
        return;
    } else {
        component->infos[shared->frame].pins++;
        component->infos[mine->frame].pins = 0;
    }
    ab_block_ref(kv, other);
    rows[row] = other;
    frames[row] = shared->frame;
    ab_block_unref(kv, own, NULL);
}

static void row_seal(struct ab_kv *kv, struct ab_session *session, uint32_t row,
                     const struct abode_key *key)
{
    const struct ab_model *model = &kv->models[session->model];
    for (uint32_t c = 0; c < model->component_count; c++) {
        if (!ab_component_has_rows(&model->components[c]) || row < session->row_first[c]) {
            continue;
        }
        uint8_t id = AB_COMPONENT_ID(session->model, c);
        uint64_t fingerprint[2];
        ab_block_fingerprint(id, session->tenant, key, fingerprint);
        uint32_t own = ab_session_rows(kv, session, c)[row];
        uint32_t other = ab_block_find(kv, id, fingerprint);
        if (other == own || (kv->blocks[own].flags & AB_BLOCK_KEYED) != 0) {
            continue;
        }
        if (other == AB_INDEX_NONE) {
            ab_block_key_add(kv, own, fingerprint);
            if (kv->keys != NULL) {
                kv->keys[own] = *key;
            }
        } else {
            row_share(kv, session, c, row, other);
        }
    }
}

int ab_append_commit(struct ab_kv *kv, struct abode_session handle, uint32_t token_count,
                     const struct abode_key *keys, uint32_t key_count)
{
    struct ab_session *session;
    int status = attached_get(kv, handle, &session);
    if (status != 0) {
        return status;
    }
    const struct ab_model *model = &kv->models[session->model];
    uint32_t row_before = (uint32_t)(session->token_count / model->block_tokens);
    uint32_t row_after = (uint32_t)((session->token_count + token_count) / model->block_tokens);
    if (token_count > session->reserved_tokens ||
        (key_count != 0 && key_count != row_after - row_before)) {
        return -EINVAL;
    }
    session->reserved_tokens = 0;
    __atomic_store_n(&session->token_count, session->token_count + token_count, __ATOMIC_RELAXED);
    atomic_fetch_add_explicit(&kv->counters.bytes_accepted, token_count * model->token_bytes,
                              memory_order_relaxed);
    if (row_after == row_before || (key_count == 0 && !model->has_windows)) {
        return 0;
    }
    ab_lock_take(&kv->lock);
    for (uint32_t i = 0; i < key_count; i++) {
        row_seal(kv, session, row_before + i, &keys[i]);
    }
    ab_session_slide(kv, session, false, NULL);
    ab_lock_drop(&kv->lock);
    return 0;
}

static int view_fill(struct ab_kv *kv, const struct ab_session *session, uint32_t c,
                     struct abode_view *ret)
{
    const struct ab_model *model = &kv->models[session->model];
    if (c >= model->component_count || !ab_component_has_rows(&model->components[c])) {
        return -EINVAL;
    }
    const struct ab_component *component = &model->components[c];
    *ret = (struct abode_view){.struct_size = sizeof(*ret),
                               .row_count = ab_rows_of(model, session->token_count),
                               .token_count = session->token_count,
                               .frames = ab_session_frames(kv, session, c),
                               .base = ab_frames_base(component->frames),
                               .frame_stride = ab_frames_stride(component->frames),
                               .plane_offsets = component->plane_offsets,
                               .plane_count = component->plane_count,
                               .frames_per_node = ab_frames_per_node(component->frames)};
    return 0;
}

int ab_session_view(struct ab_kv *kv, struct abode_session handle, uint32_t c,
                    struct abode_view *ret)
{
    struct ab_session *session;
    int status = attached_get(kv, handle, &session);
    if (status != -EBUSY) {
        return status != 0 ? status : view_fill(kv, session, c, ret);
    }
    ab_lock_take(&kv->lock); /* attaching: its end may change the number of tokens */
    session = ab_session_get(kv, handle);
    if (session == NULL) {
        status = -ABODE_ESTALE;
    } else if (session->state == AB_SESSION_ATTACHING || session->state == AB_SESSION_ATTACHED) {
        status = view_fill(kv, session, c, ret);
    }
    ab_lock_drop(&kv->lock);
    return status;
}
