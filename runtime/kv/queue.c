/*
 * queue.c - the host's side of ops: tasks for them, finished ones, the eventfd.
 *
 * The op is the host's memory; what is going on is kept in a task of the queue's, so that nothing is
 * allocated per op. The eventfd is readable while finished ops wait: it is written when the first one
 * arrives and read when the last one is taken.
 */
#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/eventfd.h>

#include "base/num.h"
#include "kv/transfer.h"

#define QUEUE_DEPTH_MAX 65536
#define SIGNAL_TRIES 8           /* an eventfd refuses nothing for long; a guess */
#define SIGNAL_LOST_NS 250000000 /* a poll looks again after so long: it might refuse all */

struct abode_queue {
    struct ab_kv *kv;
    uint32_t depth;
    struct ab_task *tasks;
    struct ab_list free; /* of tasks; lock KV */
    int event;
    struct ab_lock lock;    /* what follows */
    struct abode_op **done; /* ring of finished ops */
    uint32_t done_first, done_count;
    bool signalled;
    _Atomic uint32_t pending; /* submitted, not yet given back */
};

int ab_queue_open(struct ab_kv *kv, uint32_t depth, struct abode_queue **ret)
{
    const struct ab_os *os = kv->os;
    if (depth == 0 || depth > QUEUE_DEPTH_MAX) {
        return -EINVAL;
    }
    struct abode_queue *queue = os->alloc(os, sizeof(*queue), 64);
    if (queue == NULL) {
        return -ENOMEM;
    }
    queue->kv = kv;
    queue->depth = depth;
    ab_list_init(&queue->free);
    queue->tasks = ab_os_alloc_array(os, depth, sizeof(*queue->tasks));
    queue->done = ab_os_alloc_array(os, depth, sizeof(*queue->done));
    int status = queue->tasks == NULL || queue->done == NULL ? -ENOMEM : 0;
    if (status == 0) {
        status = ab_lock_init(&queue->lock, AB_RANK_QUEUE, "queue");
    }
    if (status == 0) {
        queue->event = os->eventfd(os, 0, EFD_CLOEXEC | EFD_NONBLOCK);
        status = queue->event < 0 ? queue->event : 0;
        if (status != 0) {
            ab_lock_destroy(&queue->lock);
        }
    }
    if (status != 0) {
        os->free(os, queue->done);
        os->free(os, queue->tasks);
        os->free(os, queue);
        return status;
    }
    for (uint32_t i = 0; i < depth; i++) {
        ab_list_push_back(&queue->free, &queue->tasks[i].link);
    }
    ab_lock_take(&kv->lock);
    kv->queue_count++;
    ab_lock_drop(&kv->lock);
    *ret = queue;
    return 0;
}

int ab_queue_close(struct abode_queue *queue)
{
    struct ab_kv *kv = queue->kv;
    if (atomic_load(&queue->pending) > 0) {
        return -EBUSY;
    }
    ab_lock_take(&kv->lock);
    kv->queue_count--;
    ab_lock_drop(&kv->lock);
    (void)kv->os->close(kv->os, queue->event);
    ab_lock_destroy(&queue->lock);
    kv->os->free(kv->os, queue->done);
    kv->os->free(kv->os, queue->tasks);
    kv->os->free(kv->os, queue);
    return 0;
}

struct ab_kv *ab_queue_kv(const struct abode_queue *queue)
{
    return queue->kv;
}

int ab_queue_fd(const struct abode_queue *queue)
{
    return queue->event;
}

uint32_t ab_queue_pending(const struct abode_queue *queue)
{
    return atomic_load(&queue->pending);
}

struct ab_task *ab_queue_task(struct abode_queue *queue, struct abode_op *op,
                              enum ab_task_kind kind)
{
    if (atomic_load(&queue->pending) >= queue->depth) {
        return NULL;
    }
    struct ab_list *node = ab_list_pop_front(&queue->free);
    if (node == NULL) {
        return NULL;
    }
    struct ab_task *task = ab_list_entry(node, struct ab_task, link);
    memset(task, 0, sizeof(*task));
    task->kv = queue->kv;
    task->kind = kind;
    task->op = op;
    task->queue = queue;
    task->node = -1;
    if (op->timeout_ns > 0) {
        task->deadline_ns = queue->kv->os->clock_ns(queue->kv->os) + op->timeout_ns;
    }
    ab_list_init(&task->link);
    ab_list_init(&task->active);
    op->status = -EINPROGRESS;
    op->item_count = 0;
    op->item_good = 0;
    memset(op->opaque, 0, sizeof(op->opaque));
    op->opaque[0] = (uintptr_t)task;
    atomic_fetch_add(&queue->pending, 1);
    return task;
}

void ab_queue_task_undo(struct ab_task *task)
{
    struct abode_queue *queue = task->queue;
    task->op->opaque[0] = 0;
    atomic_fetch_sub(&queue->pending, 1);
    ab_list_push_back(&queue->free, &task->link);
}

struct ab_task *ab_queue_find(struct abode_queue *queue, const struct abode_op *op)
{
    /* the op's own word for its task is only a hint: it is believed if the task agrees */
    for (uint32_t i = 0; i < queue->depth; i++) {
        struct ab_task *task = &queue->tasks[i];
        if (task->op == op && op != NULL) {
            return task;
        }
    }
    return NULL;
}

/* Lock QUEUE held. The eventfd is readable, or the next op tries again. */
static void signal_raise(struct abode_queue *queue)
{
    const struct ab_os *os = queue->kv->os;
    const uint64_t one = 1;
    for (uint32_t tries = 0; !queue->signalled && tries < SIGNAL_TRIES; tries++) {
        queue->signalled = os->fd_write(os, queue->event, &one, sizeof(one)) == sizeof(one);
    }
}

/* Lock QUEUE held. Not readable any more (-EAGAIN: the host has read it), or the next take tries
 * again. */
static void signal_lower(struct abode_queue *queue)
{
    const struct ab_os *os = queue->kv->os;
    uint64_t value;
    for (uint32_t tries = 0; queue->signalled && tries < SIGNAL_TRIES; tries++) {
        const int64_t got = os->fd_read(os, queue->event, &value, sizeof(value));
        queue->signalled = got != sizeof(value) && got != -EAGAIN;
    }
}

void ab_queue_complete(struct ab_task *task, int status)
{
    struct abode_queue *queue = task->queue;
    struct abode_op *op = task->op;
    task->op = NULL;
    ab_list_push_back(&queue->free, &task->link);
    op->opaque[0] = 0;
    op->status = status;
    ab_lock_take(&queue->lock);
    queue->done[(queue->done_first + queue->done_count++) % queue->depth] = op;
    signal_raise(queue);
    ab_lock_drop(&queue->lock);
}

static uint32_t take(struct abode_queue *queue, struct abode_op **ret_ops, uint32_t capacity)
{
    ab_lock_take(&queue->lock);
    uint32_t count = AB_MIN(capacity, queue->done_count);
    for (uint32_t i = 0; i < count; i++) {
        ret_ops[i] = queue->done[queue->done_first];
        queue->done_first = (queue->done_first + 1) % queue->depth;
    }
    queue->done_count -= count;
    if (queue->done_count == 0) {
        signal_lower(queue);
    }
    ab_lock_drop(&queue->lock);
    atomic_fetch_sub(&queue->pending, count);
    return count;
}

int ab_queue_poll(struct abode_queue *queue, struct abode_op **ret_ops, uint32_t capacity,
                  int64_t timeout_ns)
{
    const struct ab_os *os = queue->kv->os;
    if (ret_ops == NULL || capacity == 0) {
        return -EINVAL;
    }
    uint64_t end = timeout_ns > 0 ? os->clock_ns(os) + (uint64_t)timeout_ns : 0;
    for (;;) { /* ends by the timeout, which is the caller's */
        uint32_t count = take(queue, ret_ops, capacity);
        if (count > 0 || timeout_ns == 0) {
            return (int)count;
        }
        int64_t left = SIGNAL_LOST_NS;
        if (timeout_ns > 0) {
            uint64_t now = os->clock_ns(os);
            if (now >= end) {
                return 0;
            }
            left = AB_MIN(left, (int64_t)(end - now));
        }
        if (atomic_load(&queue->pending) == 0 && timeout_ns < 0) {
            return 0; /* nothing can come */
        }
        int status = os->poll(os, queue->event, POLLIN, left);
        if (status < 0 && status != -EINTR) {
            return status;
        }
    }
}
