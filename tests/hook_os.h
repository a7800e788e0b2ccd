/*
 * hook_os.h - the real table of syscalls with a few calls looked at, changed or held up by a test.
 *
 * Each hook may be NULL. It gets what the call would, and `real` to make it; what it returns is the
 * call's result. For faults by number use fault_os.h; this is for answers that only a strange kernel,
 * or another process at that moment, would give.
 */
#ifndef AB_TESTS_HOOK_OS_H
#define AB_TESTS_HOOK_OS_H

#include "base/os.h"

struct hook_os {
    struct ab_os os; /* give its address to the code under test */
    const struct ab_os *real;
    void *context; /* the test's */
    int (*openat)(struct hook_os *, int dir, const char *path, int flags, uint32_t mode);
    int64_t (*pread)(struct hook_os *, int fd, void *bytes, size_t count, uint64_t offset);
    int64_t (*pwrite)(struct hook_os *, int fd, const void *bytes, size_t count, uint64_t offset);
    int (*fdatasync)(struct hook_os *, int fd);
    int (*fallocate)(struct hook_os *, int fd, int mode, uint64_t offset, uint64_t count);
    int (*fstat)(struct hook_os *, int fd, struct stat *ret);
    int (*statx)(struct hook_os *, int dir, const char *path, int flags, uint32_t mask,
                 struct statx *ret);
    int (*statvfs)(struct hook_os *, const char *path, struct statvfs *ret);
    int64_t (*getdents)(struct hook_os *, int fd, void *bytes, size_t count);
    int (*mmap)(struct hook_os *, size_t bytes, int protection, int flags, int fd, uint64_t offset,
                void **ret);
};
void hook_os_init(struct hook_os *hook, void *context);

#endif
