/*
 * os_patient.c - a table that calls again what a signal interrupted. See os.h.
 *
 * abode's own threads block all signals, but open, close, model_add and the reports make their calls
 * on the host's thread, whose handlers may lack SA_RESTART. In one place, so that no caller can forget.
 */
#include <errno.h>

#include "base/os.h"

#define INTERRUPTS_MAX 100 /* in a row, before a call has failed (-EIO); a guess */

static const struct ab_os *inner_of(const struct ab_os *os)
{
    return ((const struct ab_os_patient *)os->context)->inner;
}

#define OS const struct ab_os *os
#define IN inner_of(os)
#define AGAIN(type, name, parameters, arguments)                            \
    static type patient_##name parameters                                   \
    {                                                                       \
        type result = -EINTR;                                               \
        for (uint32_t i = 0; result == -EINTR && i < INTERRUPTS_MAX; i++) { \
            result = IN->name arguments;                                    \
        }                                                                   \
        return result == -EINTR ? -EIO : result;                            \
    }
#define ONCE(type, name, parameters, arguments) \
    static type patient_##name parameters       \
    {                                           \
        return IN->name arguments;              \
    }
AGAIN(int, openat, (OS, int dir, const char *path, int flags, uint32_t mode),
      (IN, dir, path, flags, mode))
/* It has closed, interrupted or not: a second call could close another thread's file. */
static int patient_close(OS, int fd)
{
    const int result = IN->close(IN, fd);
    return result == -EINTR ? 0 : result;
}
ONCE(int64_t, pread, (OS, int fd, void *bytes, size_t count, uint64_t offset),
     (IN, fd, bytes, count, offset))
ONCE(int64_t, pwrite, (OS, int fd, const void *bytes, size_t count, uint64_t offset),
     (IN, fd, bytes, count, offset))
AGAIN(int, fdatasync, (OS, int fd), (IN, fd))
AGAIN(int, fsync, (OS, int fd), (IN, fd))
AGAIN(int, ftruncate, (OS, int fd, uint64_t size), (IN, fd, size))
AGAIN(int, fallocate, (OS, int fd, int mode, uint64_t offset, uint64_t count),
      (IN, fd, mode, offset, count))
AGAIN(int, fstat, (OS, int fd, struct stat *ret), (IN, fd, ret))
AGAIN(int, statx, (OS, int dir, const char *path, int flags, uint32_t mask, struct statx *ret),
      (IN, dir, path, flags, mask, ret))
AGAIN(int, statvfs, (OS, const char *path, struct statvfs *ret), (IN, path, ret))
AGAIN(int, renameat, (OS, int dir, const char *from, const char *to), (IN, dir, from, to))
AGAIN(int, unlinkat, (OS, int dir, const char *path, int flags), (IN, dir, path, flags))
AGAIN(int, mkdirat, (OS, int dir, const char *path, uint32_t mode), (IN, dir, path, mode))
AGAIN(int64_t, getdents, (OS, int fd, void *bytes, size_t count), (IN, fd, bytes, count))
AGAIN(int, flock, (OS, int fd, int operation), (IN, fd, operation))
AGAIN(int, ioctl, (OS, int fd, unsigned long request, void *argument), (IN, fd, request, argument))
AGAIN(int, mmap, (OS, size_t bytes, int protection, int flags, int fd, uint64_t offset, void **ret),
      (IN, bytes, protection, flags, fd, offset, ret))
ONCE(int, munmap, (OS, void *base, size_t bytes), (IN, base, bytes))
AGAIN(int, madvise, (OS, void *base, size_t bytes, int advice), (IN, base, bytes, advice))
AGAIN(int, mbind,
      (OS, void *base, size_t bytes, int mode, const unsigned long *node_mask,
       unsigned long node_max, uint32_t flags),
      (IN, base, bytes, mode, node_mask, node_max, flags))
AGAIN(int, move_pages, (OS, size_t count, void *const *pages, int *ret_status),
      (IN, count, pages, ret_status))
AGAIN(int, setaffinity, (OS, size_t set_bytes, const cpu_set_t *set), (IN, set_bytes, set))
AGAIN(int, eventfd, (OS, uint32_t initial, int flags), (IN, initial, flags))
AGAIN(int64_t, fd_read, (OS, int fd, void *bytes, size_t count), (IN, fd, bytes, count))
AGAIN(int64_t, fd_write, (OS, int fd, const void *bytes, size_t count), (IN, fd, bytes, count))
ONCE(int, poll, (OS, int fd, short events, int64_t timeout_ns), (IN, fd, events, timeout_ns))
AGAIN(int, ring_init, (OS, uint32_t entries, struct io_uring *ring, struct io_uring_params *params),
      (IN, entries, ring, params))
static void patient_ring_exit(OS, struct io_uring *ring)
{
    IN->ring_exit(IN, ring);
}
ONCE(int, ring_enter, (OS, struct io_uring *ring, uint32_t wait, int64_t timeout_ns),
     (IN, ring, wait, timeout_ns))
AGAIN(int, ring_register,
      (OS, struct io_uring *ring, uint32_t opcode, const void *argument, uint32_t count),
      (IN, ring, opcode, argument, count))
ONCE(int32_t, ring_result, (OS, int is_write, uint32_t bytes, int32_t result),
     (IN, is_write, bytes, result))
AGAIN(int, thread_start, (OS, void *(*run)(void *), void *argument, unsigned long *ret_thread),
      (IN, run, argument, ret_thread))
ONCE(uint64_t, clock_ns, (OS), (IN))
ONCE(uint64_t, wall_clock_ns, (OS), (IN))
AGAIN(int, random, (OS, void *bytes, size_t count), (IN, bytes, count))
ONCE(void *, alloc, (OS, size_t bytes, size_t alignment), (IN, bytes, alignment))
static void patient_free(OS, void *pointer)
{
    IN->free(IN, pointer);
}

void ab_os_patient_init(struct ab_os_patient *patient, const struct ab_os *inner)
{
    *patient = (struct ab_os_patient){.inner = inner};
    patient->os = (struct ab_os){
        .context = patient,
        .openat = patient_openat,
        .close = patient_close,
        .pread = patient_pread,
        .pwrite = patient_pwrite,
        .fdatasync = patient_fdatasync,
        .fsync = patient_fsync,
        .ftruncate = patient_ftruncate,
        .fallocate = patient_fallocate,
        .fstat = patient_fstat,
        .statx = patient_statx,
        .statvfs = patient_statvfs,
        .renameat = patient_renameat,
        .unlinkat = patient_unlinkat,
        .mkdirat = patient_mkdirat,
        .getdents = patient_getdents,
        .flock = patient_flock,
        .ioctl = patient_ioctl,
        .mmap = patient_mmap,
        .munmap = patient_munmap,
        .madvise = patient_madvise,
        .mbind = patient_mbind,
        .move_pages = patient_move_pages,
        .setaffinity = patient_setaffinity,
        .eventfd = patient_eventfd,
        .fd_read = patient_fd_read,
        .fd_write = patient_fd_write,
        .poll = patient_poll,
        .ring_init = patient_ring_init,
        .ring_exit = patient_ring_exit,
        .ring_enter = patient_ring_enter,
        .ring_register = patient_ring_register,
        .ring_result = patient_ring_result,
        .thread_start = patient_thread_start,
        .clock_ns = patient_clock_ns,
        .wall_clock_ns = patient_wall_clock_ns,
        .random = patient_random,
        .alloc = patient_alloc,
        .free = patient_free,
    };
}
