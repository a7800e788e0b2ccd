/*
 * fault_os.c - see fault_os.h. Every entry asks fault_next() first, which counts the call and says
 * what is to happen to it; the mutex is never held over the call itself.
 */
#include "fault_os.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "base/num.h"

#define SECTOR 512u

static struct fault_os *fault_of(const struct ab_os *os)
{
    return os->context;
}

static const struct ab_os *inner_of(const struct ab_os *os)
{
    return fault_of(os)->inner;
}

static bool call_can_be_short(enum ab_os_call call)
{
    return call == AB_OS_PREAD || call == AB_OS_PWRITE || call == AB_OS_RING_RESULT;
}

static bool plan_concerns(const struct fault_plan *plan, enum ab_os_call call)
{
    if (plan->call != FAULT_ANY_CALL && plan->call != call) {
        return false;
    }
    switch (plan->kind) {
    case FAULT_SHORT:
        return call_can_be_short(call);
    case FAULT_TEAR:
        return call == AB_OS_PWRITE;
    case FAULT_ERROR:
        return call != AB_OS_CLOCK;
    case FAULT_DELAY:
    case FAULT_KILL:
        return plan->call == call || call != AB_OS_CLOCK;
    default:
        return false;
    }
}

static bool plan_strikes(const struct fault_plan *plan, uint64_t seen)
{
    return seen == plan->nth || (plan->sticky && seen > plan->nth);
}

static void die(void)
{
    (void)kill(getpid(), SIGKILL);
    for (;;) { /* the signal is on its way; nothing more may happen meanwhile */
        (void)pause();
    }
}

/* Count a call; the plan that strikes it, or one of kind 0. Delays and kills happen in here. */
static struct fault_plan fault_next(struct fault_os *fault, enum ab_os_call call)
{
    struct fault_plan struck = {0};
    (void)pthread_mutex_lock(&fault->mutex);
    fault->counts[call]++;
    for (uint32_t i = 0; i < fault->plan_count; i++) {
        if (plan_concerns(&fault->plans[i].plan, call) &&
            plan_strikes(&fault->plans[i].plan, ++fault->plans[i].seen) && struck.kind == 0) {
            struck = fault->plans[i].plan;
            fault->strikes++;
            fault->struck_last = call;
        }
    }
    (void)pthread_mutex_unlock(&fault->mutex);
    if (struck.kind == FAULT_KILL) {
        die();
    }
    if (struck.kind == FAULT_DELAY) {
        const struct timespec delay = {.tv_sec = (time_t)(struck.delay_ns / 1000000000u),
                                       .tv_nsec = (long)(struck.delay_ns % 1000000000u)};
        (void)nanosleep(&delay, NULL);
    }
    return struck;
}

/* -errno if the call must fail, else 0 */
static int fault_error(const struct ab_os *os, enum ab_os_call call)
{
    const struct fault_plan struck = fault_next(fault_of(os), call);
    return struck.kind == FAULT_ERROR ? -struck.error : 0;
}

/* Half, in whole blocks where count has any: an unaligned rest could not be asked for again with
 * O_DIRECT, and the kernel cuts at blocks as well. */
static size_t half_of(size_t count)
{
    const size_t step = count > AB_PAGE ? AB_PAGE : count > SECTOR ? SECTOR : 1;
    const size_t half = count / 2 / step * step;
    return AB_MIN(count, AB_MAX(half, step));
}

static int64_t fault_pread(const struct ab_os *os, int fd, void *bytes, size_t count,
                           uint64_t offset)
{
    const struct fault_plan struck = fault_next(fault_of(os), AB_OS_PREAD);
    if (struck.kind == FAULT_ERROR) {
        return -struck.error;
    }
    const size_t asked = struck.kind == FAULT_SHORT ? half_of(count) : count;
    return inner_of(os)->pread(inner_of(os), fd, bytes, asked, offset);
}

static int64_t fault_pwrite(const struct ab_os *os, int fd, const void *bytes, size_t count,
                            uint64_t offset)
{
    const struct fault_plan struck = fault_next(fault_of(os), AB_OS_PWRITE);
    if (struck.kind == FAULT_ERROR) {
        return -struck.error;
    }
    const bool is_cut = struck.kind == FAULT_SHORT || struck.kind == FAULT_TEAR;
    const size_t asked = is_cut ? half_of(count) : count;
    const int64_t result = inner_of(os)->pwrite(inner_of(os), fd, bytes, asked, offset);
    if (struck.kind == FAULT_TEAR) {
        die();
    }
    return result;
}

static int32_t fault_ring_result(const struct ab_os *os, int is_write, uint32_t bytes,
                                 int32_t result)
{
    const struct fault_plan struck = fault_next(fault_of(os), AB_OS_RING_RESULT);
    result = inner_of(os)->ring_result(inner_of(os), is_write, bytes, result);
    if (struck.kind == FAULT_ERROR) {
        return -struck.error;
    }
    if (struck.kind == FAULT_SHORT && result > 0) {
        return (int32_t)half_of((size_t)result);
    }
    return result;
}

static int fault_close(const struct ab_os *os, int fd)
{
    const int error = fault_error(os, AB_OS_CLOSE);
    const int result = inner_of(os)->close(inner_of(os), fd);
    return error != 0 ? error : result;
}

static void *fault_alloc(const struct ab_os *os, size_t bytes, size_t alignment)
{
    struct fault_os *fault = fault_of(os);
    if (fault_error(os, AB_OS_ALLOC) != 0) {
        return NULL;
    }
    void *pointer = fault->inner->alloc(fault->inner, bytes, alignment);
    (void)pthread_mutex_lock(&fault->mutex);
    fault->allocations_live += pointer != NULL;
    (void)pthread_mutex_unlock(&fault->mutex);
    return pointer;
}

static void fault_free(const struct ab_os *os, void *pointer)
{
    struct fault_os *fault = fault_of(os);
    (void)pthread_mutex_lock(&fault->mutex);
    fault->allocations_live -= pointer != NULL;
    (void)pthread_mutex_unlock(&fault->mutex);
    fault->inner->free(fault->inner, pointer);
}

static void mapped_add(struct fault_os *fault, size_t bytes, int sign)
{
    const int64_t rounded = (int64_t)((bytes + AB_PAGE - 1) / AB_PAGE * AB_PAGE);
    (void)pthread_mutex_lock(&fault->mutex);
    fault->bytes_mapped += sign * rounded;
    (void)pthread_mutex_unlock(&fault->mutex);
}

static int fault_mmap(const struct ab_os *os, size_t bytes, int protection, int flags, int fd,
                      uint64_t offset, void **ret)
{
    int result = fault_error(os, AB_OS_MMAP);
    if (result == 0) {
        result = inner_of(os)->mmap(inner_of(os), bytes, protection, flags, fd, offset, ret);
    }
    if (result == 0) {
        mapped_add(fault_of(os), bytes, 1);
    }
    return result;
}

static int fault_munmap(const struct ab_os *os, void *base, size_t bytes)
{
    const int error = fault_error(os, AB_OS_MUNMAP);
    mapped_add(fault_of(os), bytes, -1);
    return error != 0 ? error : inner_of(os)->munmap(inner_of(os), base, bytes);
}

static uint64_t fault_clock_ns(const struct ab_os *os)
{
    (void)fault_next(fault_of(os), AB_OS_CLOCK);
    return inner_of(os)->clock_ns(inner_of(os));
}

static uint64_t fault_wall_clock_ns(const struct ab_os *os)
{
    (void)fault_next(fault_of(os), AB_OS_CLOCK);
    return inner_of(os)->wall_clock_ns(inner_of(os));
}

static void fault_ring_exit(const struct ab_os *os, struct io_uring *ring)
{
    inner_of(os)->ring_exit(inner_of(os), ring);
}

/* The other entries differ in their arguments only: fail with the plan's error, or pass on. */
#define PASS_ON(result, name, call, parameters, arguments)        \
    static result fault_##name parameters                         \
    {                                                             \
        const int error = fault_error(os, call);                  \
        return error != 0 ? error : inner_of(os)->name arguments; \
    }
#define OS const struct ab_os *os
#define IN inner_of(os)
PASS_ON(int, openat, AB_OS_OPENAT, (OS, int dir, const char *path, int flags, uint32_t mode),
        (IN, dir, path, flags, mode))
PASS_ON(int, fdatasync, AB_OS_FDATASYNC, (OS, int fd), (IN, fd))
PASS_ON(int, fsync, AB_OS_FSYNC, (OS, int fd), (IN, fd))
PASS_ON(int, ftruncate, AB_OS_FTRUNCATE, (OS, int fd, uint64_t size), (IN, fd, size))
PASS_ON(int, fallocate, AB_OS_FALLOCATE, (OS, int fd, int mode, uint64_t offset, uint64_t count),
        (IN, fd, mode, offset, count))
PASS_ON(int, fstat, AB_OS_FSTAT, (OS, int fd, struct stat *ret), (IN, fd, ret))
PASS_ON(int, statx, AB_OS_STATX,
        (OS, int dir, const char *path, int flags, uint32_t mask, struct statx *ret),
        (IN, dir, path, flags, mask, ret))
PASS_ON(int, statvfs, AB_OS_STATVFS, (OS, const char *path, struct statvfs *ret), (IN, path, ret))
PASS_ON(int, renameat, AB_OS_RENAMEAT, (OS, int dir, const char *from, const char *to),
        (IN, dir, from, to))
PASS_ON(int, unlinkat, AB_OS_UNLINKAT, (OS, int dir, const char *path, int flags),
        (IN, dir, path, flags))
PASS_ON(int, mkdirat, AB_OS_MKDIRAT, (OS, int dir, const char *path, uint32_t mode),
        (IN, dir, path, mode))
PASS_ON(int64_t, getdents, AB_OS_GETDENTS, (OS, int fd, void *bytes, size_t count),
        (IN, fd, bytes, count))
PASS_ON(int, flock, AB_OS_FLOCK, (OS, int fd, int operation), (IN, fd, operation))
PASS_ON(int, ioctl, AB_OS_IOCTL, (OS, int fd, unsigned long request, void *argument),
        (IN, fd, request, argument))
PASS_ON(int, madvise, AB_OS_MADVISE, (OS, void *base, size_t bytes, int advice),
        (IN, base, bytes, advice))
PASS_ON(int, mbind, AB_OS_MBIND,
        (OS, void *base, size_t bytes, int mode, const unsigned long *node_mask,
         unsigned long node_max, uint32_t flags),
        (IN, base, bytes, mode, node_mask, node_max, flags))
PASS_ON(int, move_pages, AB_OS_MOVE_PAGES, (OS, size_t count, void *const *pages, int *ret_status),
        (IN, count, pages, ret_status))
PASS_ON(int, setaffinity, AB_OS_SETAFFINITY, (OS, size_t set_bytes, const cpu_set_t *set),
        (IN, set_bytes, set))
PASS_ON(int, eventfd, AB_OS_EVENTFD, (OS, uint32_t initial, int flags), (IN, initial, flags))
PASS_ON(int64_t, fd_read, AB_OS_FD_READ, (OS, int fd, void *bytes, size_t count),
        (IN, fd, bytes, count))
PASS_ON(int64_t, fd_write, AB_OS_FD_WRITE, (OS, int fd, const void *bytes, size_t count),
        (IN, fd, bytes, count))
PASS_ON(int, poll, AB_OS_POLL, (OS, int fd, short events, int64_t timeout_ns),
        (IN, fd, events, timeout_ns))
PASS_ON(int, ring_init, AB_OS_RING_INIT,
        (OS, uint32_t entries, struct io_uring *ring, struct io_uring_params *params),
        (IN, entries, ring, params))
PASS_ON(int, ring_enter, AB_OS_RING_ENTER,
        (OS, struct io_uring *ring, uint32_t wait, int64_t timeout_ns),
        (IN, ring, wait, timeout_ns))
PASS_ON(int, ring_register, AB_OS_RING_REGISTER,
        (OS, struct io_uring *ring, uint32_t opcode, const void *argument, uint32_t count),
        (IN, ring, opcode, argument, count))
PASS_ON(int, thread_start, AB_OS_THREAD,
        (OS, void *(*run)(void *), void *argument, unsigned long *ret_thread),
        (IN, run, argument, ret_thread))
PASS_ON(int, random, AB_OS_RANDOM, (OS, void *bytes, size_t count), (IN, bytes, count))

static const struct ab_os fault_table = {
    .openat = fault_openat,
    .close = fault_close,
    .pread = fault_pread,
    .pwrite = fault_pwrite,
    .fdatasync = fault_fdatasync,
    .fsync = fault_fsync,
    .ftruncate = fault_ftruncate,
    .fallocate = fault_fallocate,
    .fstat = fault_fstat,
    .statx = fault_statx,
    .statvfs = fault_statvfs,
    .renameat = fault_renameat,
    .unlinkat = fault_unlinkat,
    .mkdirat = fault_mkdirat,
    .getdents = fault_getdents,
    .flock = fault_flock,
    .ioctl = fault_ioctl,
    .mmap = fault_mmap,
    .munmap = fault_munmap,
    .madvise = fault_madvise,
    .mbind = fault_mbind,
    .move_pages = fault_move_pages,
    .setaffinity = fault_setaffinity,
    .eventfd = fault_eventfd,
    .fd_read = fault_fd_read,
    .fd_write = fault_fd_write,
    .poll = fault_poll,
    .ring_init = fault_ring_init,
    .ring_exit = fault_ring_exit,
    .ring_enter = fault_ring_enter,
    .ring_register = fault_ring_register,
    .ring_result = fault_ring_result,
    .thread_start = fault_thread_start,
    .clock_ns = fault_clock_ns,
    .wall_clock_ns = fault_wall_clock_ns,
    .random = fault_random,
    .alloc = fault_alloc,
    .free = fault_free,
};

void fault_os_init(struct fault_os *fault, const struct ab_os *inner)
{
    *fault = (struct fault_os){
        .os = fault_table,
        .inner = inner != NULL ? inner : ab_os_default(),
        .struck_last = AB_OS_CALL_COUNT,
    };
    fault->os.context = fault;
    if (pthread_mutex_init(&fault->mutex, NULL) != 0) {
        abort();
    }
}

void fault_os_free(struct fault_os *fault)
{
    (void)pthread_mutex_destroy(&fault->mutex);
}

void fault_os_plan(struct fault_os *fault, struct fault_plan plan)
{
    bool can_strike = false;
    for (uint32_t call = 0; call < AB_OS_CALL_COUNT; call++) {
        can_strike |= plan_concerns(&plan, (enum ab_os_call)call);
    }
    plan.nth = AB_MAX(plan.nth, 1u);
    (void)pthread_mutex_lock(&fault->mutex);
    if (!can_strike || fault->plan_count == FAULT_PLANS_MAX ||
        (plan.kind == FAULT_ERROR && plan.error <= 0)) {
        (void)fprintf(stderr, "fault_os_plan: too many plans, or one that cannot strike\n");
        abort();
    }
    fault->plans[fault->plan_count].plan = plan;
    fault->plans[fault->plan_count].seen = 0;
    fault->plan_count++;
    (void)pthread_mutex_unlock(&fault->mutex);
}

void fault_os_clear(struct fault_os *fault)
{
    (void)pthread_mutex_lock(&fault->mutex);
    fault->plan_count = 0;
    fault->strikes = 0;
    (void)pthread_mutex_unlock(&fault->mutex);
}

uint64_t fault_os_count(struct fault_os *fault, enum ab_os_call call)
{
    uint64_t count = 0;
    (void)pthread_mutex_lock(&fault->mutex);
    for (uint32_t i = 0; i < AB_OS_CALL_COUNT; i++) {
        count += call == FAULT_ANY_CALL || (uint32_t)call == i ? fault->counts[i] : 0;
    }
    (void)pthread_mutex_unlock(&fault->mutex);
    return count;
}

uint64_t fault_os_strikes(struct fault_os *fault)
{
    (void)pthread_mutex_lock(&fault->mutex);
    const uint64_t strikes = fault->strikes;
    (void)pthread_mutex_unlock(&fault->mutex);
    return strikes;
}

enum ab_os_call fault_os_struck(struct fault_os *fault)
{
    (void)pthread_mutex_lock(&fault->mutex);
    const enum ab_os_call call = fault->struck_last;
    (void)pthread_mutex_unlock(&fault->mutex);
    return call;
}

int64_t fault_os_allocations(struct fault_os *fault)
{
    (void)pthread_mutex_lock(&fault->mutex);
    const int64_t live = fault->allocations_live;
    (void)pthread_mutex_unlock(&fault->mutex);
    return live;
}

int64_t fault_os_mapped(struct fault_os *fault)
{
    (void)pthread_mutex_lock(&fault->mutex);
    const int64_t bytes = fault->bytes_mapped;
    (void)pthread_mutex_unlock(&fault->mutex);
    return bytes;
}
