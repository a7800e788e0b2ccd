/*
 * calls.c - public calls that go straight to kv: arguments checked, the runtime entered and left.
 * What each does stands in abode.h.
 */
#include <string.h>

#include "base/num.h"
#include "front/front.h"

int abode_model_add(struct abode *runtime, const struct abode_model_desc *desc, uint32_t *ret_model)
{
    struct ab_poison *before;
    int status = ab_enter(runtime, &before);
    if (status != 0) {
        return status;
    }
    status = -EINVAL;
    if (desc != NULL && ret_model != NULL && desc->struct_size == sizeof(*desc) &&
        desc->reserved == 0) {
        ab_turn_take(runtime);
        status = (runtime->config.flags & ABODE_READ_ONLY) != 0
                     ? -EROFS
                     : ab_model_declare(runtime->kv, desc, ret_model);
        ab_turn_give(runtime);
    }
    return ab_leave(runtime, before, status);
}

int abode_queue_open(struct abode *runtime, uint32_t depth, struct abode_queue **ret)
{
    struct ab_poison *before;
    int status = ab_enter(runtime, &before);
    if (status != 0) {
        return status;
    }
    status = ret == NULL                     ? -EINVAL
             : runtime->kv->transfer == NULL ? -EROFS
                                             : ab_queue_open(runtime->kv, depth, ret);
    return ab_leave(runtime, before, status);
}

static bool queue_is_forked(const struct abode_queue *queue)
{
    return ab_forked(ab_queue_kv(queue)->poison);
}

int abode_queue_close(struct abode_queue *queue)
{
    return queue == NULL            ? -EINVAL
           : queue_is_forked(queue) ? -ENOTRECOVERABLE
                                    : ab_queue_close(queue);
}

int abode_queue_fd(const struct abode_queue *queue)
{
    return queue == NULL ? -EINVAL : ab_queue_fd(queue);
}

uint32_t abode_queue_pending(const struct abode_queue *queue)
{
    return queue == NULL ? 0 : ab_queue_pending(queue);
}

int abode_poll(struct abode_queue *queue, struct abode_op **ret_ops, uint32_t capacity,
               int64_t timeout_ns)
{
    return queue == NULL            ? -EINVAL
           : queue_is_forked(queue) ? -ENOTRECOVERABLE
                                    : ab_queue_poll(queue, ret_ops, capacity, timeout_ns);
}

int abode_cancel(struct abode_queue *queue, struct abode_op *op)
{
    if (queue == NULL || op == NULL) {
        return -EINVAL;
    }
    struct ab_kv *kv = ab_queue_kv(queue);
    if (ab_forked(kv->poison)) {
        return -ENOTRECOVERABLE;
    }
    ab_lock_take(&kv->lock);
    struct ab_task *task = ab_queue_find(queue, op);
    if (task != NULL && !task->cancelled) {
        task->cancelled = true;
        if (task->phase != AB_PHASE_COMMIT) {
            ab_task_runnable(task);
            ab_io_wake(kv->transfer->services[0].io);
        }
    }
    ab_lock_drop(&kv->lock);
    return task == NULL ? -ENOENT : 0;
}

/* ---- sessions ---- */

/* negative: placement chooses */
static bool node_is_usable(const struct ab_kv *kv, int32_t node)
{
    return node < 0 || (node < AB_NODES_MAX && (kv->node_mask >> node & 1) != 0);
}

int abode_session_create(struct abode *runtime, const struct abode_session_opts *opts,
                         struct abode_session *ret)
{
    struct ab_poison *before;
    int status = ab_enter(runtime, &before);
    if (status != 0) {
        return status;
    }
    if (opts == NULL || ret == NULL || opts->struct_size != sizeof(*opts) ||
        opts->durability > ABODE_DURABLE || opts->tenant == AB_TENANT_NEVER ||
        (opts->prefix_key_count > 0 && opts->prefix_keys == NULL) ||
        !node_is_usable(runtime->kv, opts->home_node) ||
        (runtime->store == NULL && opts->durability > ABODE_MEM)) {
        return ab_leave(runtime, before, -EINVAL);
    }
    status = runtime->kv->read_only ? -EROFS : ab_session_create(runtime->kv, opts, ret);
    return ab_leave(runtime, before, status);
}

int abode_session_find(struct abode *runtime, const struct abode_key *name,
                       struct abode_session *ret)
{
    struct ab_poison *before;
    int status = ab_enter(runtime, &before);
    if (status != 0) {
        return status;
    }
    status = name == NULL || ret == NULL ? -EINVAL : ab_session_find(runtime->kv, name, ret);
    return ab_leave(runtime, before, status);
}

int abode_session_fork(struct abode *runtime, struct abode_session parent, uint64_t token_count,
                       const struct abode_key *name, struct abode_session *ret_child)
{
    struct ab_poison *before;
    int status = ab_enter(runtime, &before);
    if (status != 0) {
        return status;
    }
    status = ret_child == NULL ? -EINVAL
                               : ab_session_fork(runtime->kv, parent, token_count, name, ret_child);
    return ab_leave(runtime, before, status);
}

int abode_session_truncate(struct abode *runtime, struct abode_session session,
                           uint64_t token_count)
{
    struct ab_poison *before;
    int status = ab_enter(runtime, &before);
    return status != 0
               ? status
               : ab_leave(runtime, before, ab_session_truncate(runtime->kv, session, token_count));
}

int abode_session_delete(struct abode *runtime, struct abode_session session)
{
    struct ab_poison *before;
    int status = ab_enter(runtime, &before);
    if (status != 0) {
        return status;
    }
    status = runtime->kv->read_only ? -EROFS : ab_session_delete(runtime->kv, session);
    return ab_leave(runtime, before, status);
}

int abode_session_stat(struct abode *runtime, struct abode_session session,
                       struct abode_session_info *ret)
{
    struct ab_poison *before;
    int status = ab_enter(runtime, &before);
    if (status != 0) {
        return status;
    }
    status = ret == NULL ? -EINVAL : ab_session_stat(runtime->kv, session, ret);
    return ab_leave(runtime, before, status);
}

int abode_session_note_set(struct abode *runtime, struct abode_session session, const void *bytes,
                           size_t size)
{
    struct ab_poison *before;
    int status = ab_enter(runtime, &before);
    if (status != 0) {
        return status;
    }
    status = bytes == NULL && size > 0 ? -EINVAL
             : runtime->kv->read_only  ? -EROFS
                                       : ab_session_note_set(runtime->kv, session, bytes, size);
    return ab_leave(runtime, before, status);
}

int abode_session_note_get(struct abode *runtime, struct abode_session session, void *ret_bytes,
                           size_t capacity)
{
    struct ab_poison *before;
    int status = ab_enter(runtime, &before);
    if (status != 0) {
        return status;
    }
    status = ret_bytes == NULL && capacity > 0
                 ? -EINVAL
                 : ab_session_note_get(runtime->kv, session, ret_bytes, capacity);
    return ab_leave(runtime, before, status);
}

void abode_advise(struct abode *runtime, struct abode_session session, enum abode_advice advice,
                  int64_t value)
{
    struct ab_poison *before;
    if (ab_enter(runtime, &before) == 0) {
        ab_session_advise(runtime->kv, session, advice, value);
        (void)ab_leave(runtime, before, 0);
    }
}

/* ---- append, snapshots, views ---- */

int abode_append_reserve(struct abode *runtime, struct abode_session session, uint32_t token_count,
                         struct abode_span *ret_spans, uint32_t span_capacity)
{
    struct ab_poison *before;
    int status = ab_enter(runtime, &before);
    if (status != 0) {
        return status;
    }
    status = ret_spans == NULL
                 ? -EINVAL
                 : ab_append_reserve(runtime->kv, session, token_count, ret_spans, span_capacity);
    return ab_leave(runtime, before, status);
}

int abode_append_commit(struct abode *runtime, struct abode_session session, uint32_t token_count,
                        const struct abode_key *sealed_keys, uint32_t sealed_key_count)
{
    struct ab_poison *before;
    int status = ab_enter(runtime, &before);
    if (status != 0) {
        return status;
    }
    status =
        sealed_keys == NULL && sealed_key_count > 0
            ? -EINVAL
            : ab_append_commit(runtime->kv, session, token_count, sealed_keys, sealed_key_count);
    return ab_leave(runtime, before, status);
}

int abode_snapshot_reserve(struct abode *runtime, struct abode_session session, uint32_t component,
                           size_t size, void **ret_bytes)
{
    struct ab_poison *before;
    int status = ab_enter(runtime, &before);
    if (status != 0) {
        return status;
    }
    status = ret_bytes == NULL
                 ? -EINVAL
                 : ab_snapshot_reserve(runtime->kv, session, component, size, ret_bytes);
    return ab_leave(runtime, before, status);
}

int abode_snapshot_commit(struct abode *runtime, struct abode_session session, uint32_t component)
{
    struct ab_poison *before;
    int status = ab_enter(runtime, &before);
    return status != 0
               ? status
               : ab_leave(runtime, before, ab_snapshot_commit(runtime->kv, session, component));
}

int abode_snapshot_get(struct abode *runtime, struct abode_session session, uint32_t component,
                       const void **ret_bytes, size_t *ret_size, uint64_t *ret_token_count)
{
    struct ab_poison *before;
    int status = ab_enter(runtime, &before);
    if (status != 0) {
        return status;
    }
    status = ret_bytes == NULL || ret_size == NULL || ret_token_count == NULL
                 ? -EINVAL
                 : ab_snapshot_get(runtime->kv, session, component, ret_bytes, ret_size,
                                   ret_token_count);
    return ab_leave(runtime, before, status);
}

int abode_session_view(struct abode *runtime, struct abode_session session, uint32_t component,
                       struct abode_view *ret)
{
    struct ab_poison *before;
    int status = ab_enter(runtime, &before);
    if (status != 0) {
        return status;
    }
    status = ret == NULL ? -EINVAL : ab_session_view(runtime->kv, session, component, ret);
    return ab_leave(runtime, before, status);
}

/* ---- attach, detach ---- */

static int session_op(struct abode_queue *queue, struct abode_session handle,
                      enum ab_task_kind kind, int32_t node, uint32_t flags, struct abode_op *op)
{
    struct ab_kv *kv = ab_queue_kv(queue);
    bool attach = kind == AB_TASK_ATTACH;
    if (ab_forked(kv->poison)) {
        return -ENOTRECOVERABLE;
    }
    ab_lock_take(&kv->lock);
    struct ab_session *session = ab_session_get(kv, handle);
    int status = 0;
    if (session == NULL) {
        status = -ABODE_ESTALE;
    } else if (session->task != NULL) {
        status = -EBUSY;
    } else if (attach ? session->state != AB_SESSION_DETACHED
                      : session->state != AB_SESSION_ATTACHED) {
        status = attach ? -EBUSY : -ENOTCONN;
    } else if (!kv->models[session->model].declared) {
        status = -ABODE_EMODEL;
    }
    struct ab_task *task = status == 0 ? ab_queue_task(queue, op, kind) : NULL;
    if (status == 0 && task == NULL) {
        status = -EAGAIN;
    }
    if (status == 0) {
        task->session = ab_session_index(kv, session);
        task->generation = session->generation;
        task->model = session->model;
        task->node = node >= 0 ? node : session->home_node;
        task->flags = flags;
        task->promise = (enum ab_promise)session->durability;
        if (!attach && (flags & ABODE_DETACH_SPILL_NOW) != 0) {
            task->promise = AB_MAX(task->promise, AB_PROMISE_WRITTEN);
        }
        session->task = task;
        __atomic_store_n(&session->state, attach ? AB_SESSION_ATTACHING : AB_SESSION_DETACHING,
                         __ATOMIC_RELEASE);
        ab_task_start(task);
    }
    ab_lock_drop(&kv->lock);
    return status;
}

int abode_attach(struct abode_queue *queue, struct abode_session session, int32_t node,
                 uint32_t flags, struct abode_op *op)
{
    if (queue == NULL || op == NULL || (flags & ~(uint32_t)ABODE_ATTACH_PREFIX_OK) != 0 ||
        !node_is_usable(ab_queue_kv(queue), node)) {
        return -EINVAL;
    }
    return session_op(queue, session, AB_TASK_ATTACH, node, flags, op);
}

int abode_detach(struct abode_queue *queue, struct abode_session session, uint32_t flags,
                 struct abode_op *op)
{
    if (queue == NULL || op == NULL ||
        (flags & ~(uint32_t)(ABODE_DETACH_SPILL_NOW | ABODE_DETACH_KEEP)) != 0) {
        return -EINVAL;
    }
    return session_op(queue, session, AB_TASK_DETACH, -1, flags, op);
}

uint32_t abode_attach_ready(const struct abode_op *op)
{
    return op == NULL ? 0 : __atomic_load_n(&op->item_good, __ATOMIC_ACQUIRE);
}

/* ---- block cache ---- */

int abode_region_add(struct abode *runtime, const struct abode_region *region, uint32_t *ret_region)
{
    struct ab_poison *before;
    int status = ab_enter(runtime, &before);
    if (status != 0) {
        return status;
    }
    status = -EINVAL;
    if (region != NULL && ret_region != NULL && region->struct_size == sizeof(*region)) {
        ab_turn_take(runtime);
        status =
            runtime->kv->transfer == NULL ? -EROFS : ab_region_add(runtime->kv, region, ret_region);
        ab_turn_give(runtime);
    }
    return ab_leave(runtime, before, status);
}

int abode_region_remove(struct abode *runtime, uint32_t region)
{
    struct ab_poison *before;
    int status = ab_enter(runtime, &before);
    if (status != 0) {
        return status;
    }
    ab_turn_take(runtime);
    status = ab_region_remove(runtime->kv, region);
    ab_turn_give(runtime);
    return ab_leave(runtime, before, status);
}

int abode_cache_probe(struct abode *runtime, uint32_t model, const struct abode_key *keys,
                      uint32_t key_count, uint8_t *ret_presence)
{
    struct ab_poison *before;
    int status = ab_enter(runtime, &before);
    if (status != 0) {
        return status;
    }
    status = keys == NULL && key_count > 0
                 ? -EINVAL
                 : ab_cache_probe(runtime->kv, model, keys, key_count, ret_presence);
    return ab_leave(runtime, before, status);
}

int abode_cache_put(struct abode_queue *queue, uint32_t model, struct abode_item *items,
                    uint32_t item_count, uint32_t durability, struct abode_op *op)
{
    return queue == NULL || op == NULL ? -EINVAL
           : queue_is_forked(queue)    ? -ENOTRECOVERABLE
                                    : ab_cache_put(queue, model, items, item_count, durability, op);
}

int abode_cache_get(struct abode_queue *queue, uint32_t model, struct abode_item *items,
                    uint32_t item_count, struct abode_op *op)
{
    return queue == NULL || op == NULL ? -EINVAL
           : queue_is_forked(queue)    ? -ENOTRECOVERABLE
                                       : ab_cache_get(queue, model, items, item_count, op);
}

int abode_cache_delete(struct abode_queue *queue, uint32_t model, const struct abode_key *keys,
                       uint32_t key_count, struct abode_op *op)
{
    return queue == NULL || op == NULL ? -EINVAL
           : queue_is_forked(queue)    ? -ENOTRECOVERABLE
                                       : ab_cache_delete(queue, model, keys, key_count, op);
}

void abode_cache_touch(struct abode *runtime, uint32_t model, const struct abode_key *keys,
                       uint32_t key_count)
{
    struct ab_poison *before;
    if (keys != NULL && ab_enter(runtime, &before) == 0) {
        ab_cache_touch(runtime->kv, model, keys, key_count);
        (void)ab_leave(runtime, before, 0);
    }
}

int abode_cache_events(struct abode *runtime, uint32_t model, struct abode_key *ret_keys,
                       uint32_t capacity, uint64_t *ret_lost)
{
    struct ab_poison *before;
    int status = ab_enter(runtime, &before);
    if (status != 0) {
        return status;
    }
    status = ret_keys == NULL || ret_lost == NULL
                 ? -EINVAL
                 : ab_cache_events(runtime->kv, model, ret_keys, capacity, ret_lost);
    return ab_leave(runtime, before, status);
}
