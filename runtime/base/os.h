/*
 * os.h - every syscall and allocation that abode makes, as one table.
 *
 * ab_os_default() is the real one. Tests build their own around it: fail the n-th call, cut it
 * short, delay it, kill the process there. All calls return a result >= 0 or -errno; none uses
 * errno. A table is immutable while in use, shared by all threads; `context` is the table maker's.
 *
 * io_uring passes data by shared memory, not by syscall: `ring_result` sees each completion before
 * the engine does and may change it, so that a fault reaches io_uring as it does pread.
 *
 * The pointers are called as os->pread(os, ...).
 */
#ifndef AB_BASE_OS_H
#define AB_BASE_OS_H

#include <sched.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/types.h>

#include "base/check.h"

struct statx;
struct statvfs;
struct io_uring;
struct io_uring_params;
struct iovec;

enum ab_os_call { /* one name a table entry, for counters and fault plans */
                  AB_OS_OPENAT,
                  AB_OS_CLOSE,
                  AB_OS_PREAD,
                  AB_OS_PWRITE,
                  AB_OS_FDATASYNC,
                  AB_OS_FSYNC,
                  AB_OS_FTRUNCATE,
                  AB_OS_FALLOCATE,
                  AB_OS_FSTAT,
                  AB_OS_STATX,
                  AB_OS_STATVFS,
                  AB_OS_RENAMEAT,
                  AB_OS_UNLINKAT,
                  AB_OS_MKDIRAT,
                  AB_OS_GETDENTS,
                  AB_OS_FLOCK,
                  AB_OS_IOCTL,
                  AB_OS_MMAP,
                  AB_OS_MUNMAP,
                  AB_OS_MADVISE,
                  AB_OS_MBIND,
                  AB_OS_MOVE_PAGES,
                  AB_OS_SETAFFINITY,
                  AB_OS_EVENTFD,
                  AB_OS_FD_READ,
                  AB_OS_FD_WRITE,
                  AB_OS_POLL,
                  AB_OS_RING_INIT,
                  AB_OS_RING_ENTER,
                  AB_OS_RING_REGISTER,
                  AB_OS_RING_RESULT,
                  AB_OS_THREAD,
                  AB_OS_CLOCK,
                  AB_OS_RANDOM,
                  AB_OS_ALLOC,
                  AB_OS_CALL_COUNT,
};
const char *ab_os_call_name(enum ab_os_call call);

struct ab_os {
    void *context;
    /* O_CLOEXEC is added */
    int (*openat)(const struct ab_os *, int dir, const char *path, int flags, uint32_t mode);
    int (*close)(const struct ab_os *, int fd);
    int64_t (*pread)(const struct ab_os *, int fd, void *bytes, size_t count, uint64_t offset);
    int64_t (*pwrite)(const struct ab_os *, int fd, const void *bytes, size_t count,
                      uint64_t offset);
    int (*fdatasync)(const struct ab_os *, int fd);
    int (*fsync)(const struct ab_os *, int fd);
    int (*ftruncate)(const struct ab_os *, int fd, uint64_t size);
    int (*fallocate)(const struct ab_os *, int fd, int mode, uint64_t offset, uint64_t count);
    int (*fstat)(const struct ab_os *, int fd, struct stat *ret);
    int (*statx)(const struct ab_os *, int dir, const char *path, int flags, uint32_t mask,
                 struct statx *ret);
    int (*statvfs)(const struct ab_os *, const char *path, struct statvfs *ret);
    int (*renameat)(const struct ab_os *, int dir, const char *from, const char *to);
    int (*unlinkat)(const struct ab_os *, int dir, const char *path, int flags);
    int (*mkdirat)(const struct ab_os *, int dir, const char *path, uint32_t mode);
    /* struct dirent64's into bytes, from where the last call on this fd ended; 0: no more */
    int64_t (*getdents)(const struct ab_os *, int fd, void *bytes, size_t count);
    int (*flock)(const struct ab_os *, int fd, int operation);
    int (*ioctl)(const struct ab_os *, int fd, unsigned long request, void *argument);
    int (*mmap)(const struct ab_os *, size_t bytes, int protection, int flags, int fd,
                uint64_t offset, void **ret);
    int (*munmap)(const struct ab_os *, void *base, size_t bytes);
    int (*madvise)(const struct ab_os *, void *base, size_t bytes, int advice);
    int (*mbind)(const struct ab_os *, void *base, size_t bytes, int mode,
                 const unsigned long *node_mask, unsigned long node_max, uint32_t flags);
    /* query only: status[i] = os node of pages[i], or -errno */
    int (*move_pages)(const struct ab_os *, size_t count, void *const *pages, int *ret_status);
    int (*setaffinity)(const struct ab_os *, size_t set_bytes, const cpu_set_t *set); /* self */
    int (*eventfd)(const struct ab_os *, uint32_t initial, int flags);
    int64_t (*fd_read)(const struct ab_os *, int fd, void *bytes, size_t count);
    int64_t (*fd_write)(const struct ab_os *, int fd, const void *bytes, size_t count);
    /* one fd; returns its revents, 0: the timeout passed (negative: no end) */
    int (*poll)(const struct ab_os *, int fd, short events, int64_t timeout_ns);
    /* -EOPNOTSUPP: io_uring without timed waits (kernels before 5.11) */
    int (*ring_init)(const struct ab_os *, uint32_t entries, struct io_uring *ring,
                     struct io_uring_params *params);
    void (*ring_exit)(const struct ab_os *, struct io_uring *ring);
    /* submit what is queued, wait for `wait` completions, at most timeout_ns (negative: no end);
     * -ETIME: it passed. What was queued is submitted in either case. */
    int (*ring_enter)(const struct ab_os *, struct io_uring *ring, uint32_t wait,
                      int64_t timeout_ns);
    int (*ring_register)(const struct ab_os *, struct io_uring *ring, uint32_t opcode,
                         const void *argument, uint32_t count);
    int32_t (*ring_result)(const struct ab_os *, int is_write, uint32_t bytes, int32_t result);
    int (*thread_start)(const struct ab_os *, void *(*run)(void *), void *argument,
                        unsigned long *ret_thread);
    uint64_t (*clock_ns)(const struct ab_os *);      /* CLOCK_MONOTONIC */
    uint64_t (*wall_clock_ns)(const struct ab_os *); /* CLOCK_REALTIME */
    int (*random)(const struct ab_os *, void *bytes, size_t count);
    void *(*alloc)(const struct ab_os *, size_t bytes, size_t alignment); /* zeroed, or NULL */
    void (*free)(const struct ab_os *, void *pointer);
};

const struct ab_os *ab_os_default(void);

/* A table around another one: what a signal of the host's interrupted is called again, at most 100
 * times; then it has failed: -EIO. But close has closed then, and is good; poll and ring_enter are
 * not called again (their callers look at the clock), nor are pread, pwrite and ring_result (their
 * callers count). Not moved once in use. */
struct ab_os_patient {
    struct ab_os os; /* its address is the table */
    const struct ab_os *inner;
};
void ab_os_patient_init(struct ab_os_patient *patient, const struct ab_os *inner);

/* Whole transfers over pread/pwrite: go on after short ones, EINTR is retried (100 times, then
 * -EIO). read_all: the number of bytes before end of file; write_all: 0. */
int64_t ab_os_read_all(const struct ab_os *os, int fd, void *bytes, size_t count,
                       uint64_t offset) AB_MUST_CHECK;
int ab_os_write_all(const struct ab_os *os, int fd, const void *bytes, size_t count,
                    uint64_t offset) AB_MUST_CHECK;
/* read_all for a descriptor with O_DIRECT too: bytes, count and offset are multiples of AB_PAGE. */
int64_t ab_os_read_pages(const struct ab_os *os, int fd, void *bytes, size_t count,
                         uint64_t offset) AB_MUST_CHECK;

/* array of count zeroed elements; NULL on overflow or lack of memory */
void *ab_os_alloc_array(const struct ab_os *os, uint64_t count, size_t element_bytes);
/* Zeroed, page-aligned, untouched until used (mmap, NORESERVE): for tables sized for the worst
 * case. bytes is rounded up to pages. */
int ab_os_map_lazy(const struct ab_os *os, size_t bytes, void **ret) AB_MUST_CHECK;

#endif
