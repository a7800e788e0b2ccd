/*
 * io_uring.c - the engine of choice: one ring, owned by the thread that opened the ab_io.
 *
 * SINGLE_ISSUER binds the ring to that thread: open, file and buffer registration, submit, poll and
 * close must all be called there (the kernel answers -EEXIST to others).
 *
 *   start()   one SQE (fixed file, fixed buffer where registered), not yet shown to the kernel
 *   wait()    one io_uring_enter: submits all of them and waits; then reaps all completions
 *   kick()    an enter of its own, only where the device would run dry before the next wait()
 *
 * How many to wait for. With restores in all places nothing that comes could start anyway, so wait()
 * asks for several completions at once and leaves BUSY_BYTES (or BUSY_PIECES) with the device: 4
 * pieces of 1 MiB an enter at depth 8, 240 enters a GB instead of 950, at the same speed (bench_io). BATCH_WAIT_NS bounds what
 * that may cost a slow device's caller. With a place free, or held by something less urgent, it
 * asks for one: a wake or a lone restore is not held up.
 *
 * Wake. An eventfd is read by an SQE that stays armed: one enter waits for I/O and for wakes. It
 * re-arms with the SQEs of the next enter, without a syscall of its own.
 *
 * CQ overflow cannot happen: at most depth pieces, depth cancels, one wake and its cancel are
 * unseen at a time, 2 * depth + 2 entries; the CQ is at least twice that, which leaves room for
 * SQEs that were turned into NOPs (fail_unsubmitted).
 *
 * Flags newer than liburing 2.3 are never passed: with NO_SQARRAY set-up succeeds and every
 * user_data is then 0.
 */
#include "io/io_engine.h"

#include <errno.h>
#include <fcntl.h>
#include <liburing.h>
#include <linux/ioprio.h>
#include <poll.h>
#include <string.h>
#include <sys/eventfd.h>

#ifndef IORING_SETUP_SINGLE_ISSUER
#define IORING_SETUP_SINGLE_ISSUER (1u << 12)
#endif
#ifndef IORING_SETUP_DEFER_TASKRUN
#define IORING_SETUP_DEFER_TASKRUN (1u << 13)
#endif

#define BUSY_BYTES (4u << 20)  /* left in flight when waiting for several; more only adds p99 */
#define BUSY_PIECES 32         /* ... or so many small ones */
#define LOW_BYTES (2u << 20)   /* with less than this left, poll submits before it returns */
#define BATCH_WAIT_NS 10000000 /* what 4 MiB take at 0.4 GB/s */
#define ENTER_TRIES 8          /* refused enters in a row before what is unsubmitted fails */
#define BACKOFF_NS 1000000     /* sleep when the kernel refuses to wait */
#define CLOSE_ENTERS 16        /* enters that closing spends on taking the wake read back */
#define CLOSE_WAIT_NS 100000000
#define PROBE_WAIT_NS 1000000000 /* a try; a file that hangs this long is no place for io_uring */
#define FILES_TABLE_MIN 64       /* a registered table smaller than this is not worth having */
#define TAG_WAKE UINT64_MAX      /* user_data of everything that is not a piece's index */
#define TAG_CANCEL (UINT64_MAX - 1)
#define TAG_NONE (UINT64_MAX - 2)
#define TAG_PROBE (UINT64_MAX - 3)
#define BUFFER_NONE UINT32_MAX

struct uring_buffer {
    unsigned char *base;
    uint64_t bytes;
    uint32_t slot; /* in the ring's table; BUFFER_NONE: the kernel refused it */
};

struct uring {
    struct io_uring ring;
    int wake_fd;
    uint64_t wake_count; /* what the armed read writes to */
    bool wake_armed;
    bool one_is_enough;     /* waiting for several timed out empty: wait for one */
    uint32_t cancels;       /* cancels whose completion was not seen yet; at most depth */
    uint32_t enters_failed; /* in a row */
    uint32_t files_max;     /* size of the registered table; 0: none */
    bool *file_fixed;       /* io->file_max of them */
    uint32_t buffer_count;
    struct uring_buffer *buffers; /* sorted by base; AB_IO_BUFFERS_MAX */
    uint32_t slot_free_count;
    uint32_t *slots_free;
    uint64_t buffer_bytes; /* of all buffers, refused ones too */
};

/* ---- set-up ---- */

static int ring_open(struct ab_io *io, struct uring *uring)
{
    static const uint32_t ladder[] = {
        IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_COOP_TASKRUN |
            IORING_SETUP_SUBMIT_ALL,
        IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_COOP_TASKRUN | IORING_SETUP_SUBMIT_ALL,
        IORING_SETUP_COOP_TASKRUN | IORING_SETUP_SUBMIT_ALL,
        IORING_SETUP_SUBMIT_ALL,
        0,
    };
    const uint32_t entries = 2 * io->depth + 2;
    int rc = -EINVAL;
    for (uint32_t i = 0; i < AB_COUNT(ladder) && rc == -EINVAL; i++) {
        struct io_uring_params params = {.flags = ladder[i]};
        rc = io->os->ring_init(io->os, entries, &uring->ring, &params);
        if (rc == 0) {
            io->facts.setup_flags = ladder[i];
        }
    }
    return rc;
}

static int ring_enter(struct ab_io *io, uint32_t wait, int64_t timeout_ns)
{
    struct uring *uring = io->engine;
    io->counters.submits++;
    return io->os->ring_enter(io->os, &uring->ring, wait, timeout_ns);
}

/* Submits the one queued SQE and waits for its completion. */
static int probe_complete(struct ab_io *io, struct uring *uring)
{
    int rc = 0;
    for (uint32_t i = 0; i < ENTER_TRIES && io_uring_cq_ready(&uring->ring) == 0; i++) {
        rc = ring_enter(io, 1, PROBE_WAIT_NS);
    }
    struct io_uring_cqe *cqe = NULL;
    if (io_uring_peek_cqe(&uring->ring, &cqe) != 0 || cqe == NULL) {
        return rc < 0 ? rc : -ETIMEDOUT;
    }
    const uint64_t tag = cqe->user_data;
    const int32_t result = io->os->ring_result(io->os, 0, AB_PAGE, cqe->res);
    io_uring_cqe_seen(&uring->ring, cqe);
    if (tag != TAG_PROBE || result > (int32_t)AB_PAGE) {
        return -EIO; /* completions are not what was asked for */
    }
    return AB_MIN(result, 0);
}

/* A real read decides, not a version: a ring may open and then not work. Interrupted without end is
 * an error of the device to whoever asked for it. */
static int probe_read(struct ab_io *io, struct uring *uring, int fd)
{
    void *bytes = io->os->alloc(io->os, AB_PAGE, AB_PAGE);
    if (bytes == NULL) {
        return -ENOMEM;
    }
    struct io_uring_sqe *sqe = io_uring_get_sqe(&uring->ring);
    io_uring_prep_read(sqe, fd, bytes, AB_PAGE, 0); /* the ring is empty: there is an SQE */
    sqe->user_data = TAG_PROBE;
    const int rc = probe_complete(io, uring);
    if (rc != -ETIMEDOUT) {
        io->os->free(io->os, bytes);
    } /* else the kernel may still write to it: it is not given back */
    return rc == -EINTR ? -EIO : rc;
}

static int ring_probe(struct ab_io *io, struct uring *uring, int probe_fd)
{
    if (probe_fd >= 0) {
        return probe_read(io, uring, probe_fd);
    }
    const int fd = io->os->openat(io->os, AT_FDCWD, "/dev/zero", O_RDONLY, 0);
    if (fd < 0) {
        return fd;
    }
    const int rc = probe_read(io, uring, fd);
    const int close_rc = io->os->close(io->os, fd);
    return rc < 0 ? rc : close_rc;
}

static int ring_register(struct ab_io *io, uint32_t opcode, const void *argument, uint32_t count)
{
    struct uring *uring = io->engine;
    return io->os->ring_register(io->os, &uring->ring, opcode, argument, count);
}

/* Empty tables, filled by the add calls. RLIMIT_NOFILE bounds the file table: take less then. */
static void tables_register(struct ab_io *io, struct uring *uring)
{
    int rc = -EMFILE;
    for (uint32_t n = io->file_max; n >= AB_MIN(FILES_TABLE_MIN, io->file_max) && rc == -EMFILE;
         n /= 2) {
        const struct io_uring_rsrc_register files = {.nr = n, .flags = IORING_RSRC_REGISTER_SPARSE};
        rc = ring_register(io, IORING_REGISTER_FILES2, &files, sizeof(files));
        uring->files_max = rc < 0 ? 0 : n;
    }
    io->facts.fixed_files = rc >= 0;
    if (rc < 0) {
        ab_log(io->log, AB_LOG_INFO, "io: no registered files (%d)", rc);
    }
    const struct io_uring_rsrc_register buffers = {.nr = AB_IO_BUFFERS_MAX,
                                                   .flags = IORING_RSRC_REGISTER_SPARSE};
    rc = ring_register(io, IORING_REGISTER_BUFFERS2, &buffers, sizeof(buffers));
    io->facts.fixed_buffers = rc >= 0;
    io->facts.fixed_buffers_reason = AB_MIN(rc, 0);
    if (rc < 0) {
        ab_log(io->log, AB_LOG_INFO, "io: no registered buffers (%d)", rc);
        return;
    }
    for (uint32_t i = 0; i < AB_IO_BUFFERS_MAX; i++) {
        uring->slots_free[i] = AB_IO_BUFFERS_MAX - 1 - i;
    }
    uring->slot_free_count = AB_IO_BUFFERS_MAX;
}

static void uring_free(struct ab_io *io, struct uring *uring)
{
    io->os->free(io->os, uring->slots_free);
    io->os->free(io->os, uring->buffers);
    io->os->free(io->os, uring->file_fixed);
    io->os->free(io->os, uring);
    io->engine = NULL;
}

static struct uring *uring_alloc(const struct ab_io *io)
{
    const struct ab_os *os = io->os;
    struct uring *uring = os->alloc(os, sizeof(*uring), _Alignof(struct uring));
    if (uring == NULL) {
        return NULL;
    }
    uring->file_fixed = ab_os_alloc_array(os, io->file_max, sizeof(*uring->file_fixed));
    uring->buffers = ab_os_alloc_array(os, AB_IO_BUFFERS_MAX, sizeof(*uring->buffers));
    uring->slots_free = ab_os_alloc_array(os, AB_IO_BUFFERS_MAX, sizeof(*uring->slots_free));
    return uring;
}

static int uring_open(struct ab_io *io, const struct ab_io_config *config)
{
    struct uring *uring = uring_alloc(io);
    if (uring == NULL) {
        return -ENOMEM;
    }
    io->engine = uring;
    int rc = -ENOMEM;
    if (uring->file_fixed == NULL || uring->buffers == NULL || uring->slots_free == NULL) {
        goto free_uring;
    }
    rc = ring_open(io, uring);
    if (rc < 0) {
        goto free_uring;
    }
    rc = ring_probe(io, uring, config->probe_fd);
    if (rc < 0) {
        goto exit_ring;
    }
    /* blocking: a read of a non-blocking one would end at once instead of staying armed */
    uring->wake_fd = io->os->eventfd(io->os, 0, EFD_CLOEXEC);
    if (uring->wake_fd < 0) {
        rc = uring->wake_fd;
        goto exit_ring;
    }
    tables_register(io, uring);
    io->counters = (struct ab_io_counters){0}; /* the probe does not count */
    return 0;

exit_ring:
    io->os->ring_exit(io->os, &uring->ring);
free_uring:
    uring_free(io, uring);
    return rc;
}

/* ---- SQEs and CQEs ---- */

static uint32_t unsubmitted(const struct uring *uring)
{
    return io_uring_sq_ready(&uring->ring);
}

/* The kernel keeps refusing: what it never saw fails, so that the owner gets its requests back.
 * Two passes, since ending a piece may queue cancels, and even enter. */
static void fail_unsubmitted(struct ab_io *io, int error)
{
    struct uring *uring = io->engine;
    struct io_uring_sq *sq = &uring->ring.sq;
    struct ab_io_piece *pieces[AB_IO_DEPTH_MAX];
    uint32_t count = 0;
    for (uint32_t left = unsubmitted(uring); left > 0; left--) {
        struct io_uring_sqe *sqe = &sq->sqes[(sq->sqe_tail - left) & sq->ring_mask];
        const uint64_t tag = sqe->user_data;
        if (tag == TAG_WAKE) {
            uring->wake_armed = false;
        } else if (tag == TAG_CANCEL) {
            uring->cancels--;
        } else if (tag != TAG_NONE) {
            pieces[count++] = &io->pieces[tag];
        }
        io_uring_prep_nop(sqe); /* should a later enter take it, it does nothing */
        sqe->user_data = TAG_NONE;
    }
    for (uint32_t i = 0; i < count; i++) {
        ab_io_piece_end(io, pieces[i], error);
    }
}

static void reap(struct ab_io *io)
{
    struct uring *uring = io->engine;
    struct io_uring_cqe *cqe = NULL;
    while (io_uring_peek_cqe(&uring->ring, &cqe) == 0 && cqe != NULL) {
        const uint64_t tag = cqe->user_data;
        const int32_t result = cqe->res;
        io_uring_cqe_seen(&uring->ring, cqe);
        if (tag == TAG_WAKE) {
            uring->wake_armed = false;
        } else if (tag == TAG_CANCEL) {
            uring->cancels--;
        } else if (tag != TAG_NONE) {
            AB_ASSERT(tag < io->depth);
            struct ab_io_piece *piece = &io->pieces[tag];
            const int is_write = piece->request->kind == AB_IO_WRITE;
            ab_io_piece_end(io, piece, io->os->ring_result(io->os, is_write, piece->bytes, result));
        }
    }
}

/* Where the queue is full of what the kernel did not take, one enter to make room. */
static int sqe_get(struct ab_io *io, struct io_uring_sqe **ret)
{
    struct uring *uring = io->engine;
    struct io_uring_sqe *sqe = io_uring_get_sqe(&uring->ring);
    if (sqe == NULL) {
        const int rc = ring_enter(io, 0, 0);
        sqe = io_uring_get_sqe(&uring->ring);
        if (sqe == NULL) {
            return rc < 0 ? rc : -EBUSY;
        }
    }
    *ret = sqe;
    return 0;
}

static uint32_t buffer_slot(const struct uring *uring, const unsigned char *address, uint32_t bytes)
{
    uint32_t low = 0, high = uring->buffer_count; /* first buffer that starts after address */
    while (low < high) {
        const uint32_t middle = low + (high - low) / 2;
        if (uring->buffers[middle].base <= address) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    if (low == 0) {
        return BUFFER_NONE;
    }
    const struct uring_buffer *buffer = &uring->buffers[low - 1];
    const uint64_t into = (uint64_t)(address - buffer->base);
    return into < buffer->bytes && bytes <= buffer->bytes - into ? buffer->slot : BUFFER_NONE;
}

static uint16_t priority_of(const struct ab_io_request *request)
{
    switch (request->priority) {
    case AB_IO_SPILL:
        return IOPRIO_PRIO_VALUE(IOPRIO_CLASS_BE, 7);
    case AB_IO_SCRUB:
        return IOPRIO_PRIO_VALUE(IOPRIO_CLASS_IDLE, 0);
    case AB_IO_RESTORE:
    case AB_IO_PRIORITY_COUNT:
        break;
    }
    return 0; /* the thread's own */
}

static void uring_start(struct ab_io *io, struct ab_io_piece *piece)
{
    struct uring *uring = io->engine;
    struct io_uring_sqe *sqe = NULL;
    const int rc = sqe_get(io, &sqe);
    if (rc < 0) {
        ab_io_piece_end(io, piece, rc);
        return;
    }
    const bool is_write = piece->request->kind == AB_IO_WRITE;
    const uint32_t slot = buffer_slot(uring, piece->address, piece->bytes);
    const bool fixed_file = uring->file_fixed[piece->file];
    uint8_t opcode = is_write ? IORING_OP_WRITE : IORING_OP_READ;
    if (slot != BUFFER_NONE) {
        opcode = is_write ? IORING_OP_WRITE_FIXED : IORING_OP_READ_FIXED;
    }
    io_uring_prep_rw(opcode, sqe, fixed_file ? (int)piece->file : piece->fd, piece->address,
                     piece->bytes, piece->offset);
    sqe->buf_index = slot == BUFFER_NONE ? 0 : (uint16_t)slot;
    sqe->flags = (uint8_t)((fixed_file ? IOSQE_FIXED_FILE : 0) |
                           (piece->retries > AB_IO_RETRIES_PLAIN ? IOSQE_ASYNC : 0));
    sqe->ioprio = priority_of(piece->request);
    sqe->user_data = (uint64_t)(piece - io->pieces);
}

static void uring_cancel(struct ab_io *io, struct ab_io_piece *piece)
{
    struct uring *uring = io->engine;
    if (piece->cancel_asked || uring->cancels >= io->depth) {
        return; /* more than one on its way for each place in flight: cannot be */
    }
    struct io_uring_sqe *sqe = NULL;
    if (sqe_get(io, &sqe) < 0) {
        return; /* no room to ask: the piece ends by itself */
    }
    io_uring_prep_cancel64(sqe, (uint64_t)(piece - io->pieces), 0);
    sqe->user_data = TAG_CANCEL;
    piece->cancel_asked = true;
    uring->cancels++;
}

/* ---- wait, kick, wake ---- */

static void wake_arm(struct ab_io *io, struct uring *uring)
{
    struct io_uring_sqe *sqe = NULL;
    if (!uring->wake_armed && sqe_get(io, &sqe) == 0) {
        io_uring_prep_read(sqe, uring->wake_fd, &uring->wake_count, sizeof(uring->wake_count), 0);
        sqe->user_data = TAG_WAKE;
        uring->wake_armed = true;
    }
}

/* See "How many to wait for" above. */
static uint32_t wait_count(const struct ab_io *io, const struct uring *uring)
{
    if (uring->one_is_enough || io->restores_started < io->pieces_started || !ab_io_is_full(io)) {
        return 1;
    }
    const uint64_t mean = io->bytes_started / io->pieces_started;
    const uint64_t busy = AB_MIN((uint64_t)BUSY_BYTES, BUSY_PIECES * mean);
    return io->bytes_started <= busy ? 1u
                                     : AB_MAX(1u, (uint32_t)((io->bytes_started - busy) / mean));
}

/* Keeps count of enters that did nothing. Out of time is not a refusal; interrupted is, if it does
 * not end: this thread has no signals to take. */
static void enter_result(struct ab_io *io, struct uring *uring, int rc)
{
    if (rc >= 0 || rc == -ETIME) {
        uring->enters_failed = 0;
        return;
    }
    if (++uring->enters_failed < ENTER_TRIES) {
        return;
    }
    uring->enters_failed = 0;
    ab_log(io->log, AB_LOG_ERROR, "io: io_uring_enter: %d, %u requests fail", rc,
           unsubmitted(uring));
    fail_unsubmitted(io, rc == -EINTR ? -EIO : rc);
    (void)io->os->poll(io->os, uring->wake_fd, POLLIN, BACKOFF_NS);
}

static void uring_wait(struct ab_io *io, int64_t timeout_ns)
{
    struct uring *uring = io->engine;
    int rc;
    if (timeout_ns == 0 || !ab_io_sleep_begin(io)) {
        rc = ring_enter(io, 0, 0);
        reap(io);
        enter_result(io, uring, rc);
        return;
    }
    wake_arm(io, uring);
    const uint32_t wait = wait_count(io, uring);
    if (wait > 1 && (timeout_ns < 0 || timeout_ns > BATCH_WAIT_NS)) {
        timeout_ns = BATCH_WAIT_NS;
    }
    if (!uring->wake_armed && (timeout_ns < 0 || timeout_ns > BACKOFF_NS)) {
        timeout_ns = BACKOFF_NS; /* no SQE left for it: look again soon */
    }
    const uint64_t bytes_before = io->bytes_started;
    rc = ring_enter(io, wait, timeout_ns);
    ab_io_sleep_end(io);
    reap(io);
    uring->one_is_enough = wait > 1 && io->bytes_started == bytes_before;
    enter_result(io, uring, rc);
}

/* Is so little with the device that it could run dry before the owner polls again? */
static bool device_is_low(const struct ab_io *io, uint32_t held)
{
    const uint64_t pieces_there = io->pieces_started > held ? io->pieces_started - held : 0;
    return pieces_there < held &&
           pieces_there * io->bytes_started < (uint64_t)LOW_BYTES * io->pieces_started;
}

static void uring_kick(struct ab_io *io)
{
    const struct uring *uring = io->engine;
    const uint32_t held = unsubmitted(uring);
    if (held > 0 && device_is_low(io, held)) {
        (void)ring_enter(io, 0, 0); /* refused: the next wait tries again */
    }
}

static void uring_wake(struct ab_io *io)
{
    const struct uring *uring = io->engine;
    const uint64_t one = 1;
    /* cannot fail but by a full counter, which is a wake as well */
    (void)io->os->fd_write(io->os, uring->wake_fd, &one, sizeof(one));
}

/* ---- registration ---- */

static void uring_file_set(struct ab_io *io, uint32_t file, int fd)
{
    struct uring *uring = io->engine;
    if (file >= uring->files_max || (fd < 0 && !uring->file_fixed[file])) {
        return;
    }
    const struct io_uring_files_update update = {.offset = file, .fds = (uint64_t)(uintptr_t)&fd};
    const int rc = ring_register(io, IORING_REGISTER_FILES_UPDATE, &update, 1);
    uring->file_fixed[file] = rc == 1 && fd >= 0;
    if (rc != 1 && fd >= 0) {
        io->facts.fixed_files = false;
        ab_log(io->log, AB_LOG_WARNING, "io: a file was refused registration (%d)", rc);
    }
}

static int slot_set(struct ab_io *io, uint32_t slot, void *base, uint64_t bytes)
{
    struct iovec place = {.iov_base = base, .iov_len = bytes};
    const uint64_t tag = 0;
    const struct io_uring_rsrc_update2 update = {
        .offset = slot,
        .data = (uint64_t)(uintptr_t)&place,
        .tags = (uint64_t)(uintptr_t)&tag,
        .nr = 1,
    };
    const int rc = ring_register(io, IORING_REGISTER_BUFFERS_UPDATE, &update, sizeof(update));
    return rc < 0 ? rc : 0;
}

static void buffer_refused(struct ab_io *io, const struct uring *uring, int reason)
{
    io->facts.fixed_buffers = false;
    if (reason == -ENOMEM) {
        io->facts.memlock_needed = uring->buffer_bytes;
    }
    if (io->facts.fixed_buffers_reason == 0) {
        io->facts.fixed_buffers_reason = reason;
        ab_log(io->log, AB_LOG_WARNING,
               "io: a buffer was refused registration (%d): RLIMIT_MEMLOCK of %llu bytes needed",
               reason, (unsigned long long)uring->buffer_bytes);
    }
}

static int uring_buffer_add(struct ab_io *io, void *base, uint64_t bytes)
{
    struct uring *uring = io->engine;
    uint32_t at = 0;
    while (at < uring->buffer_count && uring->buffers[at].base < (unsigned char *)base) {
        at++;
    }
    const unsigned char *end = (unsigned char *)base + bytes;
    if ((at < uring->buffer_count && uring->buffers[at].base < end) ||
        (at > 0 &&
         uring->buffers[at - 1].base + uring->buffers[at - 1].bytes > (unsigned char *)base)) {
        return -EEXIST;
    }
    if (uring->buffer_count == AB_IO_BUFFERS_MAX) {
        buffer_refused(io, uring, -ENOSPC);
        return 0;
    }
    uring->buffer_bytes += ab_align_up(bytes, AB_PAGE);
    struct uring_buffer buffer = {.base = base, .bytes = bytes, .slot = BUFFER_NONE};
    if (uring->slot_free_count > 0) {
        const uint32_t slot = uring->slots_free[uring->slot_free_count - 1];
        const int rc = slot_set(io, slot, base, bytes);
        if (rc == 0) {
            buffer.slot = slot;
            uring->slot_free_count--;
        } else {
            buffer_refused(io, uring, rc);
        }
    }
    memmove(&uring->buffers[at + 1], &uring->buffers[at],
            (uring->buffer_count - at) * sizeof(buffer));
    uring->buffers[at] = buffer;
    uring->buffer_count++;
    return 0;
}

static void uring_buffer_remove(struct ab_io *io, void *base)
{
    struct uring *uring = io->engine;
    uint32_t at = 0;
    while (at < uring->buffer_count && uring->buffers[at].base != base) {
        at++;
    }
    if (at == uring->buffer_count) {
        return;
    }
    const struct uring_buffer buffer = uring->buffers[at];
    uring->buffer_bytes -= ab_align_up(buffer.bytes, AB_PAGE);
    uring->buffer_count--;
    memmove(&uring->buffers[at], &uring->buffers[at + 1],
            (uring->buffer_count - at) * sizeof(buffer));
    if (buffer.slot != BUFFER_NONE && slot_set(io, buffer.slot, NULL, 0) == 0) {
        uring->slots_free[uring->slot_free_count++] = buffer.slot;
    }
}

/* ---- close ---- */

/* The armed read writes to our memory: take it back before that is freed. */
static void wake_disarm(struct ab_io *io, struct uring *uring)
{
    struct io_uring_sqe *sqe = NULL;
    if (uring->wake_armed && sqe_get(io, &sqe) == 0) {
        io_uring_prep_cancel64(sqe, TAG_WAKE, 0);
        sqe->user_data = TAG_NONE;
    }
    for (uint32_t i = 0; i < CLOSE_ENTERS && (uring->wake_armed || uring->cancels > 0); i++) {
        (void)ring_enter(io, 1, CLOSE_WAIT_NS);
        reap(io);
    }
}

static void uring_close(struct ab_io *io)
{
    struct uring *uring = io->engine;
    wake_disarm(io, uring);
    io->os->ring_exit(io->os, &uring->ring);
    (void)io->os->close(io->os, uring->wake_fd);
    uring_free(io, uring);
}

const struct ab_io_ops ab_io_uring_ops = {
    .open = uring_open,
    .close = uring_close,
    .file_set = uring_file_set,
    .buffer_add = uring_buffer_add,
    .buffer_remove = uring_buffer_remove,
    .start = uring_start,
    .cancel = uring_cancel,
    .wait = uring_wait,
    .kick = uring_kick,
    .wake = uring_wake,
};
