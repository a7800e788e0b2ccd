/*
 * io_sync.c - the engine without concurrency: wait() moves one piece in the caller's thread. Started
 * pieces are moved in the order in which they were started, so that tests and a person in a
 * debugger see the same sequence every time. With nothing to move it sleeps on a condition
 * variable until ab_io_wake() or the timeout.
 *
 * Thread rule: the owner's; sync_wake() from any thread.
 */
#include "base/num.h"
#include "io/io_engine.h"

#include <errno.h>

#include "base/lock.h"

struct sync {
    struct ab_list started; /* pieces */
    struct ab_lock lock;
    struct ab_cond wakeup;
};

int64_t ab_io_piece_move(const struct ab_os *os, const struct ab_io_piece *piece)
{
    return piece->request->kind == AB_IO_WRITE
               ? os->pwrite(os, piece->fd, piece->address, piece->bytes, piece->offset)
               : os->pread(os, piece->fd, piece->address, piece->bytes, piece->offset);
}

static int sync_open(struct ab_io *io, const struct ab_io_config *config)
{
    (void)config;
    struct sync *sync = io->os->alloc(io->os, sizeof(*sync), _Alignof(struct sync));
    if (sync == NULL) {
        return -ENOMEM;
    }
    ab_list_init(&sync->started);
    int rc = ab_lock_init(&sync->lock, AB_RANK_IO, "io sync");
    if (rc < 0) {
        goto free_sync;
    }
    rc = ab_cond_init(&sync->wakeup);
    if (rc < 0) {
        goto destroy_lock;
    }
    io->engine = sync;
    io->facts.fixed_buffers_reason = -EOPNOTSUPP;
    return 0;

destroy_lock:
    ab_lock_destroy(&sync->lock);
free_sync:
    io->os->free(io->os, sync);
    return rc;
}

static void sync_close(struct ab_io *io)
{
    struct sync *sync = io->engine;
    ab_cond_destroy(&sync->wakeup);
    ab_lock_destroy(&sync->lock);
    io->os->free(io->os, sync);
}

static void sync_start(struct ab_io *io, struct ab_io_piece *piece)
{
    struct sync *sync = io->engine;
    ab_list_push_back(&sync->started, &piece->link);
}

static void sync_cancel(struct ab_io *io, struct ab_io_piece *piece)
{
    ab_list_remove(&piece->link);
    ab_io_piece_end(io, piece, -ECANCELED);
}

static void sync_sleep(struct ab_io *io, int64_t timeout_ns)
{
    struct sync *sync = io->engine;
    ab_lock_take(&sync->lock);
    if (ab_io_sleep_begin(io)) {
        if (atomic_load(&io->sleep_state) ==
            AB_IO_SLEEPING) { /* woken early: ab_io_poll comes again */
            (void)ab_cond_wait(&sync->wakeup, &sync->lock, AB_MAX(timeout_ns, 0));
        }
        ab_io_sleep_end(io);
    }
    ab_lock_drop(&sync->lock);
}

static void sync_wait(struct ab_io *io, int64_t timeout_ns)
{
    struct sync *sync = io->engine;
    struct ab_list *node = ab_list_pop_front(&sync->started);
    if (node != NULL) {
        struct ab_io_piece *piece = ab_list_entry(node, struct ab_io_piece, link);
        io->counters.submits++;
        ab_io_piece_end(io, piece, ab_io_piece_move(io->os, piece));
    } else if (timeout_ns != 0) {
        sync_sleep(io, timeout_ns);
    }
}

static void sync_wake(struct ab_io *io)
{
    struct sync *sync = io->engine;
    ab_lock_take(&sync->lock);
    ab_cond_signal(&sync->wakeup);
    ab_lock_drop(&sync->lock);
}

const struct ab_io_ops ab_io_sync_ops = {
    .open = sync_open,
    .close = sync_close,
    .start = sync_start,
    .cancel = sync_cancel,
    .wait = sync_wait,
    .wake = sync_wake,
};
