/*
 * snapshot.c - SNAPSHOT and BYTES components: state that is valid at one position, and the restore
 * points that it makes. Lock KV taken inside.
 */
#include "base/num.h"
#include "kv/persist.h"
#include "kv/session.h"
#include "kv/transfer.h"

static int snapshot_session(struct ab_kv *kv, struct abode_session handle, uint32_t c,
                            struct ab_session **ret)
{
    struct ab_session *session = ab_session_get(kv, handle);
    if (session == NULL) {
        return -ABODE_ESTALE;
    }
    if (session->state != AB_SESSION_ATTACHED) {
        return session->state == AB_SESSION_DETACHED ? -ENOTCONN : -EBUSY;
    }
    const struct ab_model *model = &kv->models[session->model];
    if (c >= model->component_count || ab_component_has_rows(&model->components[c])) {
        return -EINVAL;
    }
    *ret = session;
    return 0;
}

static void reserved_drop(struct ab_kv *kv, struct ab_session *session, uint32_t c)
{
    uint32_t index = session->reserved_blocks[c];
    if (index != AB_INDEX_NONE) {
        ab_block_frame_info(kv, &kv->blocks[index])->pins = 0;
        ab_block_unref(kv, index, NULL);
        session->reserved_blocks[c] = AB_INDEX_NONE;
    }
}

static int reserve_locked(struct ab_kv *kv, struct ab_session *session, uint32_t c, size_t size,
                          void **ret_bytes)
{
    struct ab_component *component = &kv->models[session->model].components[c];
    if (component->kind == ABODE_SNAPSHOT ? size != 0 && size != component->block_bytes
                                          : size == 0 || size > component->block_bytes) {
        return -EINVAL;
    }
    reserved_drop(kv, session, c); /* a second reserve replaces the first */
    uint32_t index = ab_block_new(kv, AB_COMPONENT_ID(session->model, c));
    if (index == AB_INDEX_NONE) {
        return -ABODE_EFULL;
    }
    struct ab_block *block = &kv->blocks[index];
    block->bytes = (uint32_t)(size == 0 ? component->block_bytes : size);
    if (ab_frame_obtain(kv, index, session->home_node, session->tenant) == AB_INDEX_NONE) {
        ab_block_free(kv, index);
        return ab_frames_shortage(kv, component);
    }
    ab_block_mark(block, AB_BLOCK_DIRTY);
    ab_block_ref(kv, index);
    ab_block_frame_info(kv, block)->pins = 1;
    session->reserved_blocks[c] = index;
    *ret_bytes = ab_block_address(kv, block);
    return 0;
}

int ab_snapshot_reserve(struct ab_kv *kv, struct abode_session handle, uint32_t component,
                        size_t size, void **ret_bytes)
{
    ab_lock_take(&kv->lock);
    struct ab_session *session;
    int status = snapshot_session(kv, handle, component, &session);
    if (status == 0) {
        status = reserve_locked(kv, session, component, size, ret_bytes);
    }
    ab_lock_drop(&kv->lock);
    return status;
}

uint32_t ab_points_kept(const struct ab_model *model)
{
    uint32_t kept = 1;
    for (uint32_t c = 0; c < model->component_count; c++) {
        if (!ab_component_has_rows(&model->components[c])) {
            kept = AB_MAX(kept, model->components[c].kept);
        }
    }
    return kept;
}

static uint32_t positions_after(const struct ab_session *session, uint32_t at)
{
    uint32_t count = 0;
    for (uint32_t i = at + 1; i < session->point_count; i++) {
        count += session->points[i].token_count != session->points[i - 1].token_count;
    }
    return count;
}

void ab_session_points_prune(struct ab_kv *kv, struct ab_session *session, bool all,
                             struct ab_record *record)
{
    uint32_t kept = ab_points_kept(&kv->models[session->model]);
    uint32_t at = 0;
    while (at < session->point_count) {
        const struct ab_restore_point *point = &session->points[at];
        bool superseded =
            at + 1 < session->point_count && point[1].token_count == point->token_count;
        bool older = all ? point->token_count <= session->stored_tokens
                         : positions_after(session, at) >= kept;
        if ((superseded || older) && !point->stored) {
            ab_session_point_remove(kv, session, at, record);
        } else {
            at++; /* the committed record names it, or it is one of the newest */
        }
    }
}

/* Points behind the present position that lack a component: they cannot become whole any more. */
static void halves_drop(struct ab_kv *kv, struct ab_session *session)
{
    for (uint32_t at = session->point_count; at-- > 0;) {
        const struct ab_restore_point *point = &session->points[at];
        if (point->token_count < session->token_count && !point->stored &&
            !ab_point_is_whole(kv, session, point)) {
            ab_session_point_remove(kv, session, at, NULL);
        }
    }
}

/* The point at the present position. One that the committed record names is not changed but
 * superseded by a second one at the same position, which starts with the same blocks. */
static struct ab_restore_point *point_make(struct ab_kv *kv, struct ab_session *session)
{
    struct ab_restore_point *old = ab_session_point(session, session->token_count);
    if (old != NULL && !old->stored) {
        return old;
    }
    halves_drop(kv, session);
    old = ab_session_point(session, session->token_count); /* those behind it have moved */
    while (old == NULL && session->point_count > 0) { /* one that was never finished gives way */
        const struct ab_restore_point *last = &session->points[session->point_count - 1];
        if (last->stored || ab_point_is_whole(kv, session, last)) {
            break;
        }
        ab_session_point_remove(kv, session, session->point_count - 1, NULL);
    }
    if (session->point_count == AB_RESTORE_POINTS_MAX ||
        (old != NULL && !ab_point_is_pinned(&kv->models[session->model], old))) {
        return NULL;
    }
    struct ab_restore_point *point = &session->points[session->point_count++];
    *point = (struct ab_restore_point){.token_count = session->token_count};
    for (uint32_t c = 0; c < ABODE_COMPONENTS_MAX; c++) {
        point->blocks[c] = old == NULL ? AB_INDEX_NONE : old->blocks[c];
        if (point->blocks[c] != AB_INDEX_NONE) {
            ab_block_ref(kv, point->blocks[c]);
            ab_frame_pin(kv, &kv->blocks[point->blocks[c]]);
            point->pinned |= (uint8_t)(1u << c);
        }
    }
    return point;
}

int ab_snapshot_commit(struct ab_kv *kv, struct abode_session handle, uint32_t component)
{
    ab_lock_take(&kv->lock);
    struct ab_session *session;
    int status = snapshot_session(kv, handle, component, &session);
    if (status == 0 && session->reserved_blocks[component] == AB_INDEX_NONE) {
        status = -EINVAL;
    }
    struct ab_restore_point *point = status == 0 ? point_make(kv, session) : NULL;
    if (status == 0 && point == NULL) {
        status = -EAGAIN;
    }
    if (status == 0) {
        uint32_t old = point->blocks[component];
        if (old != AB_INDEX_NONE) {
            ab_frame_unpin(kv, &kv->blocks[old]);
            ab_block_unref(kv, old, NULL);
        }
        point->blocks[component] = session->reserved_blocks[component];
        point->pinned |= (uint8_t)(1u << component); /* the pin of the reserve */
        session->reserved_blocks[component] = AB_INDEX_NONE;
        session->changed = true;
        atomic_fetch_add_explicit(&kv->counters.bytes_accepted,
                                  kv->blocks[point->blocks[component]].bytes, memory_order_relaxed);
        if (ab_session_restore_point(kv, session, session->token_count) == session->token_count) {
            ab_session_points_prune(kv, session, false, NULL);
        }
        ab_session_slide(kv, session, false, NULL);
    }
    ab_lock_drop(&kv->lock);
    return status;
}

int ab_snapshot_get(struct ab_kv *kv, struct abode_session handle, uint32_t component,
                    const void **ret_bytes, size_t *ret_size, uint64_t *ret_token_count)
{
    ab_lock_take(&kv->lock);
    struct ab_session *session;
    int status = snapshot_session(kv, handle, component, &session);
    if (status == 0) {
        uint64_t at = ab_session_restore_point(kv, session, session->token_count);
        const struct ab_restore_point *point = at == 0 ? NULL : ab_session_point(session, at);
        if (point == NULL || (point->pinned >> component & 1) == 0) {
            status = -ENOENT;
        } else {
            const struct ab_block *block = &kv->blocks[point->blocks[component]];
            *ret_bytes = ab_block_address(kv, block);
            *ret_size = block->bytes;
            *ret_token_count = at;
        }
    }
    ab_lock_drop(&kv->lock);
    return status;
}
