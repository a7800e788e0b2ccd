/*
 * io.c - what the three engines share: cutting requests into pieces, their order, resubmits,
 * deadlines, cancelling, and the sleep and wake of the owner. io_engine.h draws the states.
 *
 * Order. One queue a priority; the first request of the most urgent queue gives the next piece as
 * long as a piece is free, so that several pieces of one request, or of several, fly together.
 * Pieces to be asked for again go first: their request has waited longest.
 *
 * A request is finished when it has no piece in flight and either all bytes moved or a status. The
 * first error is its status; no more of its pieces start, those in flight are awaited, since the
 * kernel still writes to their memory.
 *
 * Thread rule: the owner's, all of it, but ab_io_wake().
 */
#include "io/io_engine.h"

#include <errno.h>

#include "abode/abode.h"

#define DEPTH_DEFAULT 8
#define FILES_DEFAULT 4096
#define FILES_LIMIT 32768 /* the kernel's own bound on a registered table */
#define NEVER_NS UINT64_MAX

/* ---- open and close ---- */

static int engine_open(struct ab_io *io, const struct ab_io_config *config,
                       enum ab_io_engine engine)
{
    static const struct ab_io_ops *const ops[] = {
        [AB_IO_URING] = &ab_io_uring_ops,
        [AB_IO_THREADS] = &ab_io_threads_ops,
        [AB_IO_SYNC] = &ab_io_sync_ops,
    };
    io->ops = ops[engine];
    const int rc = io->ops->open(io, config);
    if (rc == 0) {
        io->facts.engine = engine;
    }
    return rc;
}

static const char *uring_mend(int reason)
{
    switch (reason) {
    case -EPERM:
        return "allow io_uring in the seccomp profile, set sysctl kernel.io_uring_disabled=0";
    case -ENOSYS:
        return "a kernel of 5.11 or later with io_uring is needed";
    case -ENOMEM:
        return "raise RLIMIT_MEMLOCK (ulimit -l)";
    default:
        return "see the code";
    }
}

static int engine_choose(struct ab_io *io, const struct ab_io_config *config)
{
    if (config->engine == AB_IO_THREADS || config->engine == AB_IO_SYNC) {
        return engine_open(io, config, config->engine);
    }
    const int reason = engine_open(io, config, AB_IO_URING);
    if (reason == 0) {
        return 0;
    }
    ab_log(io->log, AB_LOG_WARNING, "io: io_uring refused (%s): %s", abode_strerror(reason),
           uring_mend(reason));
    if (config->engine == AB_IO_URING) {
        return reason;
    }
    io->facts = (struct ab_io_facts){.engine_reason = reason};
    return engine_open(io, config, AB_IO_THREADS);
}

static int tables_alloc(struct ab_io *io)
{
    io->pieces = ab_os_alloc_array(io->os, io->depth, sizeof(*io->pieces));
    io->files = ab_os_alloc_array(io->os, io->file_max, sizeof(*io->files));
    io->files_free = ab_os_alloc_array(io->os, io->file_max, sizeof(*io->files_free));
    if (io->pieces == NULL || io->files == NULL || io->files_free == NULL) {
        return -ENOMEM;
    }
    for (uint32_t i = 0; i < io->depth; i++) {
        ab_list_push_back(&io->free, &io->pieces[i].link);
    }
    for (uint32_t i = 0; i < io->file_max; i++) {
        io->files[i] = -1;
        io->files_free[i] = io->file_max - 1 - i; /* a stack: low numbers first */
    }
    io->files_free_count = io->file_max;
    return 0;
}

static void tables_free(struct ab_io *io)
{
    const struct ab_os *os = io->os;
    os->free(os, io->files_free);
    os->free(os, io->files);
    os->free(os, io->pieces);
    os->free(os, io);
}

int ab_io_open(const struct ab_io_config *config, struct ab_io **ret)
{
    const uint32_t depth = config->depth == 0 ? DEPTH_DEFAULT : config->depth;
    const uint32_t file_max = config->file_max == 0 ? FILES_DEFAULT : config->file_max;
    if (depth > AB_IO_DEPTH_MAX || config->threads > AB_IO_DEPTH_MAX || file_max > FILES_LIMIT ||
        (unsigned)config->engine > AB_IO_SYNC) {
        return -EINVAL;
    }
    struct ab_io *io = config->os->alloc(config->os, sizeof(*io), _Alignof(struct ab_io));
    if (io == NULL) {
        return -ENOMEM;
    }
    io->os = config->os;
    io->log = config->log;
    io->topology = config->topology;
    io->node = config->topology == NULL ? -1 : config->node;
    io->depth = depth;
    io->bytes_max = config->bytes_max == 0 ? (uint64_t)depth * AB_IO_PIECE : config->bytes_max;
    io->thread_count = config->threads == 0 ? depth : config->threads;
    io->file_max = file_max;
    io->deadline_next_ns = NEVER_NS;
    for (uint32_t i = 0; i < AB_IO_PRIORITY_COUNT; i++) {
        ab_list_init(&io->queue[i]);
    }
    ab_list_init(&io->done);
    ab_list_init(&io->free);
    ab_list_init(&io->again);
    int rc = tables_alloc(io);
    if (rc == 0) {
        rc = engine_choose(io, config);
    }
    if (rc < 0) {
        tables_free(io);
        return rc;
    }
    *ret = io;
    return 0;
}

void ab_io_close(struct ab_io *io)
{
    if (io == NULL) {
        return;
    }
    AB_ASSERT(io->requests_in_flight == 0);
    io->ops->close(io);
    tables_free(io);
}

const struct ab_io_facts *ab_io_facts(const struct ab_io *io)
{
    return &io->facts;
}

struct ab_io_counters ab_io_counters(const struct ab_io *io)
{
    return io->counters;
}

uint32_t ab_io_in_flight(const struct ab_io *io)
{
    return io->requests_in_flight;
}

/* ---- files and buffers ---- */

int ab_io_file_add(struct ab_io *io, int fd, uint32_t *ret_file)
{
    if (fd < 0) {
        return -EBADF;
    }
    if (io->files_free_count == 0) {
        return -ENOSPC;
    }
    const uint32_t file = io->files_free[--io->files_free_count];
    io->files[file] = fd;
    if (io->ops->file_set != NULL) {
        io->ops->file_set(io, file, fd);
    }
    *ret_file = file;
    return 0;
}

void ab_io_file_remove(struct ab_io *io, uint32_t file)
{
    if (file >= io->file_max || io->files[file] < 0) {
        return;
    }
    if (io->ops->file_set != NULL) {
        io->ops->file_set(io, file, -1);
    }
    io->files[file] = -1;
    io->files_free[io->files_free_count++] = file;
}

int ab_io_buffer_add(struct ab_io *io, void *base, uint64_t bytes)
{
    if (base == NULL || bytes == 0 || bytes > AB_IO_BUFFER_MAX) {
        return -EINVAL;
    }
    return io->ops->buffer_add == NULL ? 0 : io->ops->buffer_add(io, base, bytes);
}

void ab_io_buffer_remove(struct ab_io *io, void *base)
{
    if (io->ops->buffer_remove != NULL) {
        io->ops->buffer_remove(io, base);
    }
}

/* ---- requests ---- */

static bool request_is_live(const struct ab_io_request *request)
{
    return request->status == 0 && request->bytes_done < request->bytes;
}

static void request_finish_if_idle(struct ab_io *io, struct ab_io_request *request)
{
    if (request->pieces_in_flight > 0 || request_is_live(request)) {
        return;
    }
    if (request->status < 0 && request->status != -ECANCELED) {
        io->counters.errors++;
    }
    ab_list_push_back(&io->done, &request->link);
}

static void piece_release(struct ab_io *io, struct ab_io_piece *piece)
{
    struct ab_io_request *request = piece->request;
    AB_ASSERT(piece->state != AB_IO_PIECE_FREE);
    ab_list_remove(&piece->link);
    piece->state = AB_IO_PIECE_FREE;
    piece->request = NULL;
    ab_list_push_front(&io->free, &piece->link);
    request->pieces_in_flight--;
    request_finish_if_idle(io, request);
}

/* End a live request early: nothing more of it starts, what is in flight is asked to stop. */
static void request_stop(struct ab_io *io, struct ab_io_request *request, int status)
{
    request->status = status;
    ab_list_remove(&request->link);
    request->pieces_in_flight++; /* held: ending its pieces must not finish it under our feet */
    for (uint32_t i = 0; i < io->depth; i++) {
        struct ab_io_piece *piece = &io->pieces[i];
        if (piece->request != request) {
            continue;
        }
        if (piece->state == AB_IO_PIECE_WAITING) {
            piece_release(io, piece);
        } else {
            io->ops->cancel(io, piece);
        }
    }
    request->pieces_in_flight--;
    request_finish_if_idle(io, request);
}

static int request_check(const struct ab_io *io, const struct ab_io_request *request)
{
    uint64_t end;
    if (request->file >= io->file_max || io->files[request->file] < 0) {
        return -EBADF;
    }
    if ((request->kind != AB_IO_READ && request->kind != AB_IO_WRITE) || request->bytes == 0 ||
        request->address == NULL || (unsigned)request->priority >= AB_IO_PRIORITY_COUNT ||
        !ab_add_u64(request->offset, request->bytes, &end) || end > INT64_MAX) {
        return -EINVAL;
    }
    return 0;
}

void ab_io_submit(struct ab_io *io, struct ab_io_request *const *requests, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        struct ab_io_request *request = requests[i];
        request->bytes_issued = 0;
        request->bytes_done = 0;
        request->pieces_in_flight = 0;
        request->cancelled = 0;
        ab_list_init(&request->link);
        io->requests_in_flight++;
        request->status = request_check(io, request);
        if (request->status < 0) {
            request_finish_if_idle(io, request);
            continue;
        }
        ab_list_push_back(&io->queue[request->priority], &request->link);
        if (request->deadline_ns != 0) {
            io->deadline_next_ns = AB_MIN(io->deadline_next_ns, request->deadline_ns);
        }
    }
}

void ab_io_cancel(struct ab_io *io, struct ab_io_request *request)
{
    if (!request_is_live(request)) {
        return;
    }
    request->cancelled = 1;
    request_stop(io, request, -ECANCELED);
}

/* Stops the request if its time is over, else lowers *next_ns to its deadline. */
static void deadline_visit(struct ab_io *io, struct ab_io_request *request, uint64_t now_ns,
                           uint64_t *next_ns)
{
    if (request->deadline_ns == 0 || !request_is_live(request)) {
        return;
    }
    if (request->deadline_ns <= now_ns) {
        request_stop(io, request, -ETIMEDOUT);
    } else {
        *next_ns = AB_MIN(*next_ns, request->deadline_ns);
    }
}

/* Walks all requests, but only when the nearest deadline has passed. */
static void deadlines_expire(struct ab_io *io)
{
    if (io->deadline_next_ns == NEVER_NS) {
        return;
    }
    const uint64_t now_ns = io->os->clock_ns(io->os);
    if (now_ns < io->deadline_next_ns) {
        return;
    }
    uint64_t next_ns = NEVER_NS;
    for (uint32_t p = 0; p < AB_IO_PRIORITY_COUNT; p++) {
        struct ab_list *node = io->queue[p].next;
        while (node != &io->queue[p]) {
            struct ab_list *next = node->next; /* stopping takes only this one off the queue */
            deadline_visit(io, ab_list_entry(node, struct ab_io_request, link), now_ns, &next_ns);
            node = next;
        }
    }
    for (uint32_t i = 0; i < io->depth; i++) {
        if (io->pieces[i].request != NULL) {
            deadline_visit(io, io->pieces[i].request, now_ns, &next_ns);
        }
    }
    io->deadline_next_ns = next_ns;
}

/* ---- pieces ---- */

static void piece_start(struct ab_io *io, struct ab_io_piece *piece)
{
    piece->state = AB_IO_PIECE_STARTED;
    piece->cancel_asked = false;
    io->pieces_started++;
    io->restores_started += piece->request->priority == AB_IO_RESTORE;
    io->bytes_started += piece->bytes;
    io->counters.pieces++;
    io->ops->start(io, piece);
}

static struct ab_io_request *request_next(struct ab_io *io)
{
    for (uint32_t p = 0; p < AB_IO_PRIORITY_COUNT; p++) {
        if (!ab_list_is_empty(&io->queue[p])) {
            return ab_list_entry(io->queue[p].next, struct ab_io_request, link);
        }
    }
    return NULL;
}

static uint64_t piece_bytes(const struct ab_io_request *request)
{
    return AB_MIN(request->bytes - request->bytes_issued, AB_IO_PIECE);
}

static void piece_cut(struct ab_io *io, struct ab_io_piece *piece, struct ab_io_request *request)
{
    piece->request = request;
    piece->address = (unsigned char *)request->address + request->bytes_issued;
    piece->offset = request->offset + request->bytes_issued;
    piece->bytes = (uint32_t)piece_bytes(request);
    piece->file = request->file;
    piece->fd = io->files[request->file];
    piece->retries = 0;
    request->bytes_issued += piece->bytes;
    request->pieces_in_flight++;
    if (request->bytes_issued == request->bytes) {
        ab_list_remove(&request->link);
    }
}

/* Many small pieces or a few large ones: past some MiB in flight only their latency grows. */
static bool has_room(const struct ab_io *io, const struct ab_io_request *request)
{
    return io->pieces_started == 0 || io->bytes_started + piece_bytes(request) <= io->bytes_max;
}

/* Hand the engine as much as there is room for. Bounded: an engine does not end pieces in start()
 * but by an error, which removes work. */
static void pieces_start(struct ab_io *io)
{
    struct ab_list again;
    ab_list_init(&again);
    ab_list_splice_back(&again, &io->again); /* one resubmit of each a round */
    struct ab_list *node;
    while ((node = ab_list_pop_front(&again)) != NULL) {
        piece_start(io, ab_list_entry(node, struct ab_io_piece, link));
    }
    while (!ab_list_is_empty(&io->free)) {
        struct ab_io_request *request = request_next(io);
        if (request == NULL || !has_room(io, request)) {
            return;
        }
        struct ab_io_piece *piece =
            ab_list_entry(ab_list_pop_front(&io->free), struct ab_io_piece, link);
        piece_cut(io, piece, request);
        piece_start(io, piece);
    }
}

/* A read that gets no further: does the file lack the bytes, or does the device not give them? */
static int no_more_to_read(struct ab_io *io, const struct ab_io_piece *piece)
{
    struct stat status;
    const bool is_short = io->os->fstat(io->os, piece->fd, &status) == 0 && status.st_size >= 0 &&
                          (uint64_t)status.st_size < piece->offset + piece->bytes;
    return is_short ? -ABODE_ECORRUPT : -EIO;
}

/* Takes what a call moved off the piece. 0: all is moved; 1: ask for the rest; -errno. */
static int piece_absorb(struct ab_io *io, struct ab_io_piece *piece, int64_t result)
{
    if (result == -EINTR || result == -EAGAIN) {
        io->counters.retries++;
        if (++piece->retries <= AB_IO_RETRIES_MAX) {
            return 1;
        }
        return result == -EINTR ? -EIO : -EAGAIN;
    }
    if (result < 0) {
        return (int)result;
    }
    const bool is_read = piece->request->kind == AB_IO_READ;
    if (result == 0 || result > piece->bytes) { /* more than asked: nonsense */
        return result == 0 && is_read ? no_more_to_read(io, piece) : -EIO;
    }
    uint32_t moved = (uint32_t)result;
    if (moved < piece->bytes) {
        /* the rest must start where O_DIRECT can: redo the part of a page */
        io->counters.shorts++;
        moved = (uint32_t)ab_align_down(moved, AB_PAGE);
        if (moved == 0 && ++piece->retries > AB_IO_RETRIES_MAX) {
            return is_read ? no_more_to_read(io, piece) : -EIO;
        }
    }
    if (moved > 0) {
        piece->retries = 0;
    }
    struct ab_io_request *request = piece->request;
    *(request->kind == AB_IO_WRITE ? &io->counters.bytes_written : &io->counters.bytes_read) +=
        moved;
    request->bytes_done += moved;
    piece->address += moved;
    piece->offset += moved;
    piece->bytes -= moved;
    return piece->bytes > 0;
}

void ab_io_piece_end(struct ab_io *io, struct ab_io_piece *piece, int64_t result)
{
    struct ab_io_request *request = piece->request;
    AB_ASSERT(piece->state == AB_IO_PIECE_STARTED);
    io->pieces_started--;
    io->restores_started -= request->priority == AB_IO_RESTORE;
    io->bytes_started -= piece->bytes;
    piece->state = AB_IO_PIECE_WAITING;
    ab_list_init(&piece->link);
    if (request->status < 0) {
        piece_release(io, piece); /* stopped or failed meanwhile */
        return;
    }
    const int rc = piece_absorb(io, piece, result);
    if (rc > 0) {
        ab_list_push_back(&io->again, &piece->link);
        return;
    }
    if (rc < 0) {
        request_stop(io, request, rc); /* releases this piece too: it is WAITING */
        return;
    }
    piece_release(io, piece);
}

/* ---- poll ---- */

bool ab_io_sleep_begin(struct ab_io *io)
{
    unsigned awake = AB_IO_AWAKE;
    if (atomic_compare_exchange_strong(&io->sleep_state, &awake, AB_IO_SLEEPING)) {
        return true;
    }
    io->woken = true; /* consumed at the end of this poll, with the state */
    return false;
}

void ab_io_sleep_end(struct ab_io *io)
{
    unsigned sleeping = AB_IO_SLEEPING;
    if (!atomic_compare_exchange_strong(&io->sleep_state, &sleeping, AB_IO_AWAKE)) {
        io->woken = true;
    }
}

void ab_io_wake(struct ab_io *io)
{
    /* pairs with ab_io_sleep_begin: whoever comes second sees the other; only a sleeper costs a
     * syscall, and only its first waker pays it */
    if (atomic_exchange(&io->sleep_state, AB_IO_WOKEN) == AB_IO_SLEEPING) {
        io->ops->wake(io);
    }
}

static uint64_t time_end_ns(const struct ab_io *io, int64_t timeout_ns)
{
    uint64_t end_ns;
    if (timeout_ns <= 0 || !ab_add_u64(io->os->clock_ns(io->os), (uint64_t)timeout_ns, &end_ns)) {
        return NEVER_NS;
    }
    return end_ns;
}

/* How long the engine may wait; negative: without end. Sets *ret_over when it is time to go. */
static int64_t wait_ns(const struct ab_io *io, uint64_t end_ns, bool *ret_over)
{
    const uint64_t until_ns = AB_MIN(end_ns, io->deadline_next_ns);
    if (until_ns == NEVER_NS) {
        return -1;
    }
    const uint64_t now_ns = io->os->clock_ns(io->os);
    *ret_over = now_ns >= end_ns;
    return now_ns >= until_ns ? 0 : (int64_t)AB_MIN(until_ns - now_ns, (uint64_t)INT64_MAX);
}

void ab_io_push(struct ab_io *io)
{
    pieces_start(io);
    if (io->ops->kick != NULL) {
        io->ops->kick(io);
    }
}

uint32_t ab_io_poll(struct ab_io *io, struct ab_io_request **ret, uint32_t capacity,
                    int64_t timeout_ns)
{
    const uint64_t end_ns = time_end_ns(io, timeout_ns);
    bool over = false;
    for (;;) { /* ends by a finished request, a wake or the time; the caller chose how long */
        deadlines_expire(io);
        pieces_start(io);
        if (!ab_list_is_empty(&io->done) || io->woken || over) {
            break;
        }
        over = timeout_ns == 0;
        const int64_t ns = over ? 0 : wait_ns(io, end_ns, &over);
        io->ops->wait(io, ns);
    }
    if (io->ops->kick != NULL) {
        io->ops->kick(io);
    }
    /* a wake until here is answered by this return: the caller looks at its inbox after it */
    (void)atomic_exchange(&io->sleep_state, AB_IO_AWAKE);
    io->woken = false;
    uint32_t count = 0;
    while (count < capacity && !ab_list_is_empty(&io->done)) {
        ret[count++] = ab_list_entry(ab_list_pop_front(&io->done), struct ab_io_request, link);
    }
    io->requests_in_flight -= count;
    return count;
}
