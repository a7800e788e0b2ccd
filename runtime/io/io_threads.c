/*
 * io_threads.c - the engine where io_uring is refused: some threads bound to the owner's node,
 * each moving one piece at a time with a blocking pread or pwrite.
 *
 *   owner: start() -> todo -> a pool thread moves it -> ended -> wait() -> ab_io_piece_end()
 *
 * A piece on either list is touched by no pool thread, so both can be cancelled on the spot; one
 * that a thread is moving is in no list and is awaited.
 *
 * Thread rule: `lock` guards both lists, `stopping` and `owner_waits`. A pool thread reads a piece
 * that it took off the list and writes only its `result`; all else is the owner's.
 */
#include "base/num.h"
#include "io/io_engine.h"

#include <errno.h>

#include "base/lock.h"
#include "machine/threads.h"

struct pool {
    struct ab_lock lock;
    struct ab_cond work;     /* todo or stopping changed */
    struct ab_cond finished; /* ended changed, or a wake */
    struct ab_list todo, ended;
    bool stopping, owner_waits;
    const struct ab_os *os;
    uint32_t thread_count;
    struct ab_thread *threads[AB_IO_DEPTH_MAX];
};

static void pool_run(void *argument)
{
    struct pool *pool = argument;
    ab_lock_take(&pool->lock);
    while (!pool->stopping) {
        struct ab_list *node = ab_list_pop_front(&pool->todo);
        if (node == NULL) {
            (void)ab_cond_wait(&pool->work, &pool->lock, 0);
            continue;
        }
        ab_lock_drop(&pool->lock);
        struct ab_io_piece *piece = ab_list_entry(node, struct ab_io_piece, link);
        piece->result = (int32_t)ab_io_piece_move(pool->os, piece);
        ab_lock_take(&pool->lock);
        ab_list_push_back(&pool->ended, &piece->link);
        if (pool->owner_waits) {
            ab_cond_signal(&pool->finished);
        }
    }
    ab_lock_drop(&pool->lock);
}

static void pool_stop(struct pool *pool)
{
    ab_lock_take(&pool->lock);
    pool->stopping = true;
    ab_cond_broadcast(&pool->work);
    ab_lock_drop(&pool->lock);
    for (uint32_t i = 0; i < pool->thread_count; i++) {
        ab_thread_join(pool->threads[i]);
    }
}

static int pool_start(struct pool *pool, const struct ab_io *io)
{
    for (uint32_t i = 0; i < io->thread_count; i++) {
        const int rc = ab_thread_start(io->os, io->topology, io->node, "abode-io", NULL, pool_run,
                                       pool, &pool->threads[i]);
        if (rc < 0) {
            pool_stop(pool);
            return rc;
        }
        pool->thread_count++;
    }
    return 0;
}

static int threads_open(struct ab_io *io, const struct ab_io_config *config)
{
    (void)config;
    struct pool *pool = io->os->alloc(io->os, sizeof(*pool), _Alignof(struct pool));
    if (pool == NULL) {
        return -ENOMEM;
    }
    pool->os = io->os;
    ab_list_init(&pool->todo);
    ab_list_init(&pool->ended);
    int rc = ab_lock_init(&pool->lock, AB_RANK_IO, "io threads");
    if (rc < 0) {
        goto free_pool;
    }
    rc = ab_cond_init(&pool->work);
    if (rc < 0) {
        goto destroy_lock;
    }
    rc = ab_cond_init(&pool->finished);
    if (rc < 0) {
        goto destroy_work;
    }
    rc = pool_start(pool, io);
    if (rc < 0) {
        goto destroy_finished;
    }
    io->engine = pool;
    io->facts.fixed_buffers_reason = -EOPNOTSUPP;
    return 0;

destroy_finished:
    ab_cond_destroy(&pool->finished);
destroy_work:
    ab_cond_destroy(&pool->work);
destroy_lock:
    ab_lock_destroy(&pool->lock);
free_pool:
    io->os->free(io->os, pool);
    return rc;
}

static void threads_close(struct ab_io *io)
{
    struct pool *pool = io->engine;
    pool_stop(pool);
    ab_cond_destroy(&pool->finished);
    ab_cond_destroy(&pool->work);
    ab_lock_destroy(&pool->lock);
    io->os->free(io->os, pool);
}

static void threads_start(struct ab_io *io, struct ab_io_piece *piece)
{
    struct pool *pool = io->engine;
    ab_lock_take(&pool->lock);
    ab_list_push_back(&pool->todo, &piece->link);
    ab_cond_signal(&pool->work);
    ab_lock_drop(&pool->lock);
}

static void threads_cancel(struct ab_io *io, struct ab_io_piece *piece)
{
    struct pool *pool = io->engine;
    ab_lock_take(&pool->lock);
    const bool untouched = ab_list_is_linked(&piece->link);
    ab_list_remove(&piece->link);
    ab_lock_drop(&pool->lock);
    if (untouched) {
        ab_io_piece_end(io, piece, -ECANCELED);
    }
}

/* With the lock held: until a piece has ended, a wake, or the timeout. */
static void owner_sleep(struct ab_io *io, struct pool *pool, int64_t timeout_ns)
{
    if (!ab_io_sleep_begin(io)) {
        return;
    }
    pool->owner_waits = true;
    if (ab_list_is_empty(&pool->ended) && atomic_load(&io->sleep_state) == AB_IO_SLEEPING) {
        /* woken early: ab_io_poll comes again */
        (void)ab_cond_wait(&pool->finished, &pool->lock, AB_MAX(timeout_ns, 0));
    }
    pool->owner_waits = false;
    ab_io_sleep_end(io);
}

static void threads_wait(struct ab_io *io, int64_t timeout_ns)
{
    struct pool *pool = io->engine;
    struct ab_list ended;
    ab_list_init(&ended);
    ab_lock_take(&pool->lock);
    if (ab_list_is_empty(&pool->ended) && timeout_ns != 0) {
        owner_sleep(io, pool, timeout_ns);
    }
    ab_list_splice_back(&ended, &pool->ended);
    ab_lock_drop(&pool->lock);
    /* ending one may cancel others of this list: take them off one by one */
    struct ab_list *node;
    while ((node = ab_list_pop_front(&ended)) != NULL) {
        struct ab_io_piece *piece = ab_list_entry(node, struct ab_io_piece, link);
        io->counters.submits++;
        ab_io_piece_end(io, piece, piece->result);
    }
}

static void threads_wake(struct ab_io *io)
{
    struct pool *pool = io->engine;
    ab_lock_take(&pool->lock);
    ab_cond_signal(&pool->finished);
    ab_lock_drop(&pool->lock);
}

const struct ab_io_ops ab_io_threads_ops = {
    .open = threads_open,
    .close = threads_close,
    .start = threads_start,
    .cancel = threads_cancel,
    .wait = threads_wait,
    .wake = threads_wake,
};
