/*
 * os.c - the real table, and the few helpers that work over any table.
 *
 * Each entry is one libc or liburing call whose errno becomes the result: nothing is retried and
 * nothing is decided here, so that a test's table stands in for exactly one call at a time.
 */
#include "base/os.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <liburing.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "base/num.h"

#define NS_PER_S 1000000000u
#define INTERRUPTS_MAX 100 /* EINTR in a row before a transfer is given up; a guess */
#define RANDOM_CALLS_MAX 100

static const char *const call_names[AB_OS_CALL_COUNT] = {
    [AB_OS_OPENAT] = "openat",
    [AB_OS_CLOSE] = "close",
    [AB_OS_PREAD] = "pread",
    [AB_OS_PWRITE] = "pwrite",
    [AB_OS_FDATASYNC] = "fdatasync",
    [AB_OS_FSYNC] = "fsync",
    [AB_OS_FTRUNCATE] = "ftruncate",
    [AB_OS_FALLOCATE] = "fallocate",
    [AB_OS_FSTAT] = "fstat",
    [AB_OS_STATX] = "statx",
    [AB_OS_STATVFS] = "statvfs",
    [AB_OS_RENAMEAT] = "renameat",
    [AB_OS_UNLINKAT] = "unlinkat",
    [AB_OS_MKDIRAT] = "mkdirat",
    [AB_OS_GETDENTS] = "getdents",
    [AB_OS_FLOCK] = "flock",
    [AB_OS_IOCTL] = "ioctl",
    [AB_OS_MMAP] = "mmap",
    [AB_OS_MUNMAP] = "munmap",
    [AB_OS_MADVISE] = "madvise",
    [AB_OS_MBIND] = "mbind",
    [AB_OS_MOVE_PAGES] = "move_pages",
    [AB_OS_SETAFFINITY] = "setaffinity",
    [AB_OS_EVENTFD] = "eventfd",
    [AB_OS_FD_READ] = "fd_read",
    [AB_OS_FD_WRITE] = "fd_write",
    [AB_OS_POLL] = "poll",
    [AB_OS_RING_INIT] = "ring_init",
    [AB_OS_RING_ENTER] = "ring_enter",
    [AB_OS_RING_REGISTER] = "ring_register",
    [AB_OS_RING_RESULT] = "ring_result",
    [AB_OS_THREAD] = "thread_start",
    [AB_OS_CLOCK] = "clock",
    [AB_OS_RANDOM] = "random",
    [AB_OS_ALLOC] = "alloc",
};

const char *ab_os_call_name(enum ab_os_call call)
{
    return (unsigned)call < AB_OS_CALL_COUNT ? call_names[call] : "unknown";
}

static int64_t result_of(int64_t result)
{
    return result < 0 ? -(int64_t)errno : result;
}

static struct timespec timespec_of(int64_t ns)
{
    return (struct timespec){.tv_sec = (time_t)(ns / NS_PER_S), .tv_nsec = (long)(ns % NS_PER_S)};
}

/* ---- files ---- */

static int os_openat(const struct ab_os *os, int dir, const char *path, int flags, uint32_t mode)
{
    (void)os;
    return (int)result_of(openat(dir, path, flags | O_CLOEXEC, mode));
}

static int os_close(const struct ab_os *os, int fd)
{
    (void)os;
    return (int)result_of(close(fd));
}

static int64_t os_pread(const struct ab_os *os, int fd, void *bytes, size_t count, uint64_t offset)
{
    (void)os;
    return result_of(pread(fd, bytes, count, (off_t)offset));
}

static int64_t os_pwrite(const struct ab_os *os, int fd, const void *bytes, size_t count,
                         uint64_t offset)
{
    (void)os;
    return result_of(pwrite(fd, bytes, count, (off_t)offset));
}

static int os_fdatasync(const struct ab_os *os, int fd)
{
    (void)os;
    return (int)result_of(fdatasync(fd));
}

static int os_fsync(const struct ab_os *os, int fd)
{
    (void)os;
    return (int)result_of(fsync(fd));
}

static int os_ftruncate(const struct ab_os *os, int fd, uint64_t size)
{
    (void)os;
    return (int)result_of(ftruncate(fd, (off_t)size));
}

static int os_fallocate(const struct ab_os *os, int fd, int mode, uint64_t offset, uint64_t count)
{
    (void)os;
    return (int)result_of(fallocate(fd, mode, (off_t)offset, (off_t)count));
}

static int os_fstat(const struct ab_os *os, int fd, struct stat *ret)
{
    (void)os;
    return (int)result_of(fstat(fd, ret));
}

static int os_statx(const struct ab_os *os, int dir, const char *path, int flags, uint32_t mask,
                    struct statx *ret)
{
    (void)os;
    return (int)result_of(statx(dir, path, flags, mask, ret));
}

static int os_statvfs(const struct ab_os *os, const char *path, struct statvfs *ret)
{
    (void)os;
    return (int)result_of(statvfs(path, ret));
}

static int os_renameat(const struct ab_os *os, int dir, const char *from, const char *to)
{
    (void)os;
    return (int)result_of(renameat(dir, from, dir, to));
}

static int os_unlinkat(const struct ab_os *os, int dir, const char *path, int flags)
{
    (void)os;
    return (int)result_of(unlinkat(dir, path, flags));
}

static int os_mkdirat(const struct ab_os *os, int dir, const char *path, uint32_t mode)
{
    (void)os;
    return (int)result_of(mkdirat(dir, path, mode));
}

static int64_t os_getdents(const struct ab_os *os, int fd, void *bytes, size_t count)
{
    (void)os;
    return result_of(getdents64(fd, bytes, count));
}

static int os_flock(const struct ab_os *os, int fd, int operation)
{
    (void)os;
    return (int)result_of(flock(fd, operation));
}

static int os_ioctl(const struct ab_os *os, int fd, unsigned long request, void *argument)
{
    (void)os;
    return (int)result_of(ioctl(fd, request, argument));
}

/* ---- memory ---- */

static int os_mmap(const struct ab_os *os, size_t bytes, int protection, int flags, int fd,
                   uint64_t offset, void **ret)
{
    (void)os;
    void *base = mmap(NULL, bytes, protection, flags, fd, (off_t)offset);
    if (base == MAP_FAILED) {
        return -errno;
    }
    *ret = base;
    return 0;
}

static int os_munmap(const struct ab_os *os, void *base, size_t bytes)
{
    (void)os;
    return (int)result_of(munmap(base, bytes));
}

static int os_madvise(const struct ab_os *os, void *base, size_t bytes, int advice)
{
    (void)os;
    return (int)result_of(madvise(base, bytes, advice));
}

static int os_mbind(const struct ab_os *os, void *base, size_t bytes, int mode,
                    const unsigned long *node_mask, unsigned long node_max, uint32_t flags)
{
    (void)os;
    return (int)result_of(syscall(SYS_mbind, base, bytes, mode, node_mask, node_max, flags));
}

static int os_move_pages(const struct ab_os *os, size_t count, void *const *pages, int *ret_status)
{
    (void)os;
    return (int)result_of(syscall(SYS_move_pages, 0, count, pages, NULL, ret_status, 0));
}

static void *os_alloc(const struct ab_os *os, size_t bytes, size_t alignment)
{
    (void)os;
    if (alignment <= _Alignof(max_align_t)) {
        return calloc(1, bytes);
    }
    void *pointer = NULL;
    if (posix_memalign(&pointer, alignment, bytes) != 0) {
        return NULL;
    }
    memset(pointer, 0, bytes);
    return pointer;
}

static void os_free(const struct ab_os *os, void *pointer)
{
    (void)os;
    free(pointer);
}

/* ---- threads, time, small files ---- */

static int os_setaffinity(const struct ab_os *os, size_t set_bytes, const cpu_set_t *set)
{
    (void)os;
    return (int)result_of(sched_setaffinity(0, set_bytes, set));
}

static int os_thread_start(const struct ab_os *os, void *(*run)(void *), void *argument,
                           unsigned long *ret_thread)
{
    (void)os;
    pthread_t thread;
    const int error = pthread_create(&thread, NULL, run, argument);
    if (error == 0) {
        *ret_thread = (unsigned long)thread;
    }
    return -error;
}

static uint64_t clock_read_ns(clockid_t clock)
{
    struct timespec now = {0};
    (void)clock_gettime(clock, &now); /* cannot fail for the two clocks that we name */
    return (uint64_t)now.tv_sec * NS_PER_S + (uint64_t)now.tv_nsec;
}

static uint64_t os_clock_ns(const struct ab_os *os)
{
    (void)os;
    return clock_read_ns(CLOCK_MONOTONIC);
}

static uint64_t os_wall_clock_ns(const struct ab_os *os)
{
    (void)os;
    return clock_read_ns(CLOCK_REALTIME);
}

static int os_random(const struct ab_os *os, void *bytes, size_t count)
{
    (void)os;
    size_t done = 0;
    for (uint32_t calls = 0; done < count; calls++) {
        const ssize_t got = getrandom((char *)bytes + done, count - done, 0);
        if (got < 0 && errno != EINTR) {
            return -errno;
        }
        if (calls == RANDOM_CALLS_MAX) {
            return -EAGAIN;
        }
        done += got > 0 ? (size_t)got : 0;
    }
    return 0;
}

static int os_eventfd(const struct ab_os *os, uint32_t initial, int flags)
{
    (void)os;
    return (int)result_of(eventfd(initial, flags));
}

static int64_t os_fd_read(const struct ab_os *os, int fd, void *bytes, size_t count)
{
    (void)os;
    return result_of(read(fd, bytes, count));
}

static int64_t os_fd_write(const struct ab_os *os, int fd, const void *bytes, size_t count)
{
    (void)os;
    return result_of(write(fd, bytes, count));
}

static int os_poll(const struct ab_os *os, int fd, short events, int64_t timeout_ns)
{
    (void)os;
    struct pollfd entry = {.fd = fd, .events = events};
    const struct timespec timeout = timespec_of(timeout_ns);
    const int ready = ppoll(&entry, 1, timeout_ns < 0 ? NULL : &timeout, NULL);
    if (ready < 0) {
        return -errno;
    }
    return ready == 0 ? 0 : entry.revents;
}

/* ---- io_uring ---- */

static int os_ring_init(const struct ab_os *os, uint32_t entries, struct io_uring *ring,
                        struct io_uring_params *params)
{
    (void)os;
    const int result = io_uring_queue_init_params(entries, ring, params);
    if (result < 0) {
        return result;
    }
    /* Without it (before 5.11) a timed wait costs an SQE whose completion the engine would see. */
    if ((params->features & IORING_FEAT_EXT_ARG) == 0) {
        io_uring_queue_exit(ring);
        return -EOPNOTSUPP;
    }
    return 0;
}

static void os_ring_exit(const struct ab_os *os, struct io_uring *ring)
{
    (void)os;
    io_uring_queue_exit(ring);
}

static int os_ring_enter(const struct ab_os *os, struct io_uring *ring, uint32_t wait,
                         int64_t timeout_ns)
{
    (void)os;
    if (wait == 0 || timeout_ns == 0) {
        return io_uring_submit_and_get_events(ring);
    }
    if (timeout_ns < 0) {
        return io_uring_submit_and_wait(ring, wait);
    }
    struct io_uring_cqe *first = NULL;
    struct __kernel_timespec timeout = {.tv_sec = timeout_ns / NS_PER_S,
                                        .tv_nsec = timeout_ns % NS_PER_S};
    return io_uring_submit_and_wait_timeout(ring, &first, wait, &timeout, NULL);
}

static int os_ring_register(const struct ab_os *os, struct io_uring *ring, uint32_t opcode,
                            const void *argument, uint32_t count)
{
    (void)os;
    /* liburing 2.3 declares io_uring_register() but its shared library does not export it */
    return (int)result_of(syscall(__NR_io_uring_register, ring->ring_fd, opcode, argument, count));
}

static int32_t os_ring_result(const struct ab_os *os, int is_write, uint32_t bytes, int32_t result)
{
    (void)os;
    (void)is_write;
    (void)bytes;
    return result;
}

const struct ab_os *ab_os_default(void)
{
    static const struct ab_os table = {
        .openat = os_openat,
        .close = os_close,
        .pread = os_pread,
        .pwrite = os_pwrite,
        .fdatasync = os_fdatasync,
        .fsync = os_fsync,
        .ftruncate = os_ftruncate,
        .fallocate = os_fallocate,
        .fstat = os_fstat,
        .statx = os_statx,
        .statvfs = os_statvfs,
        .renameat = os_renameat,
        .unlinkat = os_unlinkat,
        .mkdirat = os_mkdirat,
        .getdents = os_getdents,
        .flock = os_flock,
        .ioctl = os_ioctl,
        .mmap = os_mmap,
        .munmap = os_munmap,
        .madvise = os_madvise,
        .mbind = os_mbind,
        .move_pages = os_move_pages,
        .setaffinity = os_setaffinity,
        .eventfd = os_eventfd,
        .fd_read = os_fd_read,
        .fd_write = os_fd_write,
        .poll = os_poll,
        .ring_init = os_ring_init,
        .ring_exit = os_ring_exit,
        .ring_enter = os_ring_enter,
        .ring_register = os_ring_register,
        .ring_result = os_ring_result,
        .thread_start = os_thread_start,
        .clock_ns = os_clock_ns,
        .wall_clock_ns = os_wall_clock_ns,
        .random = os_random,
        .alloc = os_alloc,
        .free = os_free,
    };
    return &table;
}

/* ---- over any table ---- */

int64_t ab_os_read_all(const struct ab_os *os, int fd, void *bytes, size_t count, uint64_t offset)
{
    size_t done = 0;
    uint32_t interrupts = 0;
    while (done < count) {
        const int64_t got =
            os->pread(os, fd, (unsigned char *)bytes + done, count - done, offset + done);
        if (got == -EINTR) {
            if (++interrupts > INTERRUPTS_MAX) {
                return -EIO;
            }
            continue;
        }
        if (got < 0) {
            return got;
        }
        if (got == 0) {
            break; /* end of file */
        }
        done += (size_t)got;
        interrupts = 0;
    }
    return (int64_t)done;
}

/* A read that ended inside a page goes on from the start of that page: O_DIRECT cannot start inside.
 * The same end twice is the end of the file. */
int64_t ab_os_read_pages(const struct ab_os *os, int fd, void *bytes, size_t count, uint64_t offset)
{
    size_t from = 0, end = 0;
    uint32_t interrupts = 0;
    while (end < count) {
        const int64_t got =
            os->pread(os, fd, (unsigned char *)bytes + from, count - from, offset + from);
        if (got == -EINTR && ++interrupts <= INTERRUPTS_MAX) {
            continue;
        }
        if (got < 0) {
            return got == -EINTR ? -EIO : got;
        }
        if (from + (size_t)got <= end) {
            break;
        }
        end = from + (size_t)got;
        from = ab_align_down(end, AB_PAGE);
        interrupts = 0;
    }
    return (int64_t)end;
}

int ab_os_write_all(const struct ab_os *os, int fd, const void *bytes, size_t count,
                    uint64_t offset)
{
    size_t done = 0;
    uint32_t interrupts = 0;
    while (done < count) {
        const int64_t put =
            os->pwrite(os, fd, (const unsigned char *)bytes + done, count - done, offset + done);
        if (put == -EINTR) {
            if (++interrupts > INTERRUPTS_MAX) {
                return -EIO;
            }
            continue;
        }
        if (put < 0) {
            return (int)put;
        }
        if (put == 0) {
            return -EIO; /* a file that takes nothing and says nothing would hold us for ever */
        }
        done += (size_t)put;
        interrupts = 0;
    }
    return 0;
}

void *ab_os_alloc_array(const struct ab_os *os, uint64_t count, size_t element_bytes)
{
    uint64_t bytes;
    if (!ab_mul_u64(count, element_bytes, &bytes) || bytes > PTRDIFF_MAX) {
        return NULL;
    }
    return os->alloc(os, AB_MAX(bytes, 1u), _Alignof(max_align_t));
}

int ab_os_map_lazy(const struct ab_os *os, size_t bytes, void **ret)
{
    if (bytes == 0 || bytes > PTRDIFF_MAX) {
        return -EINVAL;
    }
    return os->mmap(os, ab_align_up(bytes, AB_PAGE), PROT_READ | PROT_WRITE,
                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0, ret);
}
