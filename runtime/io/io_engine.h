/*
 * io_engine.h - what io.c and the three engines know of each other; nobody else includes it.
 *
 * io.c decides (which piece starts, whether it is tried again, when a request is finished), an
 * engine only moves: start() takes one piece, later it calls ab_io_piece_end() exactly once for it.
 *
 *            ab_io_submit                    start()                 ab_io_piece_end()
 *   request -------------> queue[priority] ----------> STARTED ---------------------------+
 *                              |                          ^                               |
 *                              | cut <= 1 MiB             | go on, resubmit               |
 *                              +-----------------------> WAITING <------------------------+
 *                                                                                         |
 *                          FREE <--------------- all moved, failed or stopped ------------+
 *
 * Threads: everything here belongs to the owner; `sleep_state` is shared with ab_io_wake().
 */
#ifndef AB_IO_IO_ENGINE_H
#define AB_IO_IO_ENGINE_H

#include <stdatomic.h>

#include "io/io.h"

#define AB_IO_RETRIES_PLAIN 4 /* EINTR, EAGAIN in a row before a resubmit may block (IOSQE_ASYNC) */
#define AB_IO_RETRIES_MAX 8   /* ... before the error is the request's */
#define AB_IO_BUFFERS_MAX 2048 /* registered buffers an io: 2 TiB in chunks of 1 GiB */

enum ab_io_piece_state {
    AB_IO_PIECE_FREE = 0, /* in io->free; io.c moves it on */
    AB_IO_PIECE_WAITING,  /* in io->again, to be handed to the engine (again); io.c moves it on */
    AB_IO_PIECE_STARTED,  /* the engine has it and moves it on */
};

struct ab_io_piece {
    struct ab_list link;           /* FREE, WAITING: io.c's lists; STARTED: the engine's own */
    struct ab_io_request *request; /* NULL: FREE */
    unsigned char *address;        /* what is still to be moved ... */
    uint64_t offset;
    uint32_t bytes;
    int fd;
    uint32_t file;
    uint32_t retries; /* in a row, without a byte of progress */
    enum ab_io_piece_state state;
    bool cancel_asked; /* io_uring: a cancel is on its way to the kernel */
    int32_t result;    /* threads: carried from the pool to the owner */
};

struct ab_io_ops {
    int (*open)(struct ab_io *io, const struct ab_io_config *config);
    void (*close)(struct ab_io *io);
    /* registration; NULL: the engine has none. A refusal only shows in the facts. */
    void (*file_set)(struct ab_io *io, uint32_t file, int fd); /* fd -1: removed */
    int (*buffer_add)(struct ab_io *io, void *base, uint64_t bytes);
    void (*buffer_remove)(struct ab_io *io, void *base);
    void (*start)(struct ab_io *io, struct ab_io_piece *piece);
    /* try to end a STARTED piece early; it ends through ab_io_piece_end() now or later */
    void (*cancel)(struct ab_io *io, struct ab_io_piece *piece);
    /* Push out what was started; return when a piece has ended, at a wake, or after timeout_ns
     * (0: look only, negative: no end). May return early with nothing. */
    void (*wait)(struct ab_io *io, int64_t timeout_ns);
    /* before poll returns: see that the device stays busy meanwhile; NULL: it does anyway */
    void (*kick)(struct ab_io *io);
    void (*wake)(struct ab_io *io); /* any thread; only called while the owner sleeps */
};

struct ab_io {
    const struct ab_io_ops *ops;
    void *engine; /* the engine's own state */
    const struct ab_os *os;
    const struct ab_log *log;
    const struct ab_topology *topology;
    int32_t node;
    uint32_t depth, thread_count, file_max;
    uint64_t bytes_max;
    struct ab_io_facts facts;
    struct ab_io_counters counters;

    struct ab_list queue[AB_IO_PRIORITY_COUNT]; /* requests with bytes not yet issued */
    struct ab_list done;                        /* requests finished and not yet polled */
    struct ab_list free, again;                 /* pieces */
    struct ab_io_piece *pieces;                 /* depth of them */
    uint32_t requests_in_flight;                /* submitted and not yet polled */
    uint32_t pieces_started;
    uint32_t restores_started; /* of them: pieces of AB_IO_RESTORE */
    uint64_t bytes_started;
    uint64_t deadline_next_ns; /* not later than the nearest deadline; UINT64_MAX: none */

    int *files; /* fd, or -1; file_max of them */
    uint32_t *files_free;
    uint32_t files_free_count;

    bool woken;              /* a wake was seen during this poll */
    atomic_uint sleep_state; /* enum ab_io_sleep; owner and wakers */
};

/* The one word between the owner and its wakers. Sequentially consistent exchanges order it with
 * what the waker put into its inbox before and what the owner reads from there after. */
enum ab_io_sleep { AB_IO_AWAKE = 0, AB_IO_SLEEPING, AB_IO_WOKEN };

extern const struct ab_io_ops ab_io_uring_ops, ab_io_threads_ops, ab_io_sync_ops;

/* Could a piece of the largest size not be started now? */
static inline bool ab_io_is_full(const struct ab_io *io)
{
    return ab_list_is_empty(&io->free) || io->bytes_started + AB_IO_PIECE > io->bytes_max;
}
/* A STARTED piece is no longer touched by the engine: result is bytes moved or -errno. */
void ab_io_piece_end(struct ab_io *io, struct ab_io_piece *piece, int64_t result);
/* Around anything that blocks. begin: false, there was a wake: do not block. */
bool ab_io_sleep_begin(struct ab_io *io);
void ab_io_sleep_end(struct ab_io *io);
/* One blocking pread or pwrite: what the sync and the threads engine do with a piece. */
int64_t ab_io_piece_move(const struct ab_os *os, const struct ab_io_piece *piece);

#endif
