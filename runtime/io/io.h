/*
 * io.h - moving bytes between memory and files: one contract, three engines.
 *
 * An `ab_io` belongs to one service thread: every call is that thread's, ab_io_open() included (the
 * kernel ties the ring to the thread that made it), but ab_io_wake(). Requests are the caller's
 * memory and stay put until ab_io_poll() returns them. A request of any size is cut into pieces of
 * at most 1 MiB; at most `depth` pieces, and `bytes_max`, are in flight. Requests of a lower priority number start
 * first (restores before spills); among equals first come, first served.
 *
 * Every completion: short -> the rest is asked for; EINTR, EAGAIN -> bounded resubmits (io_uring:
 * then with IOSQE_ASYNC); other errors -> that request fails, the others go on. A read past the end
 * of file is -ABODE_ECORRUPT: it lacks what was put there, and will the next time too. A request past
 * its deadline is -ETIMEDOUT, a cancelled one -ECANCELED: reported only once the kernel no longer
 * touches its memory.
 *
 *   io_uring   registered files and buffers; set-up ladder; the engine of choice
 *   threads    pread/pwrite pool: where io_uring is refused
 *   sync       in the caller's thread, inside ab_io_poll(): tests, debuggers
 */
#ifndef AB_IO_IO_H
#define AB_IO_IO_H

#include <stdbool.h>
#include <stdint.h>

#include "base/list.h"
#include "base/log.h"
#include "base/os.h"
#include "machine/topology.h"

#define AB_IO_PIECE (1u << 20)
#define AB_IO_DEPTH_MAX 64
#define AB_IO_FILE_NONE UINT32_MAX
#define AB_IO_BUFFER_MAX (1u << 30) /* the kernel takes no larger registered buffer */

enum ab_io_engine { AB_IO_AUTO = 0, AB_IO_URING, AB_IO_THREADS, AB_IO_SYNC }; /* = enum abode_io */
enum ab_io_kind { AB_IO_READ = 1, AB_IO_WRITE };
enum ab_io_priority { AB_IO_RESTORE = 0, AB_IO_SPILL, AB_IO_SCRUB, AB_IO_PRIORITY_COUNT };

struct ab_io_request {
    enum ab_io_kind kind;
    enum ab_io_priority priority;
    uint32_t file;  /* from ab_io_file_add */
    int32_t status; /* 0 or -errno, valid when polled */
    void *address;  /* aligned as the file needs (O_DIRECT: 4 KiB) */
    uint64_t bytes; /* > 0 */
    uint64_t offset;
    uint64_t deadline_ns; /* CLOCK_MONOTONIC; 0: none */
    void *user_data;
    /* the engine's own: */
    struct ab_list link;
    uint64_t bytes_issued, bytes_done; /* pieces started / finished */
    uint32_t pieces_in_flight;
    uint32_t cancelled;
};

struct ab_io_config {
    const struct ab_os *os;
    const struct ab_log *log;
    const struct ab_topology *topology; /* may be NULL */
    int32_t node;                       /* of the owner; pool threads are bound to it; -1 none */
    enum ab_io_engine engine;           /* AUTO: io_uring, else threads; others: that or an error */
    uint32_t depth;                     /* pieces in flight; 0 = 8 */
    uint64_t bytes_max;                 /* ... and bytes of them; 0: depth * 1 MiB */
    uint32_t threads;                   /* of the threads engine; 0 = depth */
    uint32_t file_max;                  /* registered file table; 0 = 4,096 */
    int probe_fd;                       /* a real 4 KiB read is tried on it; -1: on /dev/zero */
};
struct ab_io_facts {
    enum ab_io_engine engine;
    int engine_reason;        /* why not io_uring: -errno, 0 */
    bool fixed_buffers;       /* all added so far are registered */
    int fixed_buffers_reason; /* -errno of the first refused registration, 0 */
    /* bytes of RLIMIT_MEMLOCK that this one would have needed; 0: it was not short. The limit is
     * per user: add those of all rings */
    uint64_t memlock_needed;
    bool fixed_files;
    uint32_t setup_flags; /* IORING_SETUP_* that the ladder ended with */
};
struct ab_io_counters { /* the owner's, since open */
    uint64_t submits;   /* io_uring_enter calls, or pread/pwrite calls */
    uint64_t pieces, bytes_read, bytes_written, retries, shorts, errors;
};

struct ab_io;
int ab_io_open(const struct ab_io_config *config, struct ab_io **ret) AB_MUST_CHECK;
void ab_io_close(struct ab_io *io); /* nothing may be in flight; NULL is fine */
const struct ab_io_facts *ab_io_facts(const struct ab_io *io);
struct ab_io_counters ab_io_counters(const struct ab_io *io);

/* fd stays the caller's and open until removed. -ENOSPC: file_max reached. */
int ab_io_file_add(struct ab_io *io, int fd, uint32_t *ret_file) AB_MUST_CHECK;
void ab_io_file_remove(struct ab_io *io, uint32_t file);
/* Memory that requests will lie in; at most 1 GiB a call. Refusal (memlock) is not an error: such
 * requests go unregistered, facts say so. Requests find their buffer by address. */
int ab_io_buffer_add(struct ab_io *io, void *base, uint64_t bytes) AB_MUST_CHECK;
void ab_io_buffer_remove(struct ab_io *io, void *base);

/* Queue requests; they start now or at the next poll. Never fails: errors are in status. */
void ab_io_submit(struct ab_io *io, struct ab_io_request *const *requests, uint32_t count);
/* Start what can start, as long as the device has little to do: between computations that take as
 * long as some of its work. */
void ab_io_push(struct ab_io *io);
/* Start what can start, wait for at least one finished request, a wake or the timeout (0: none,
 * negative: no end); returns how many were written to ret. 0 is a wake or a timeout. What takes the
 * place of finished requests may stay unsubmitted until the next call, as long as the device has as
 * much again to do: call again within about a millisecond while requests are in flight. */
uint32_t ab_io_poll(struct ab_io *io, struct ab_io_request **ret, uint32_t capacity,
                    int64_t timeout_ns);
void ab_io_cancel(struct ab_io *io, struct ab_io_request *request);
uint32_t ab_io_in_flight(const struct ab_io *io); /* requests submitted and not yet polled */
void ab_io_wake(struct ab_io *io);                /* any thread: the present or next poll returns */

#endif
