/* hook_os.c - see hook_os.h. The table's own address is the hook's: os is its first field. */
#include "hook_os.h"

#include <string.h>

static struct hook_os *hook_of(const struct ab_os *os)
{
    return (struct hook_os *)(uintptr_t)os;
}

/* name: of the call; the rest: what it takes and what it is given */
#define HOOK(result, name, takes, gives)                                             \
    static result hook_##name takes                                                  \
    {                                                                                \
        struct hook_os *hook = hook_of(os);                                          \
        const struct ab_os *const real = hook->real;                                 \
        return hook->name == NULL ? real->name gives(real) : hook->name gives(hook); \
    }

#define OPENAT(self) (self, dir, path, flags, mode)
HOOK(int, openat, (const struct ab_os *os, int dir, const char *path, int flags, uint32_t mode),
     OPENAT)
#define PREAD(self) (self, fd, bytes, count, offset)
HOOK(int64_t, pread, (const struct ab_os *os, int fd, void *bytes, size_t count, uint64_t offset),
     PREAD)
HOOK(int64_t, pwrite,
     (const struct ab_os *os, int fd, const void *bytes, size_t count, uint64_t offset), PREAD)
#define FDATASYNC(self) (self, fd)
HOOK(int, fdatasync, (const struct ab_os *os, int fd), FDATASYNC)
#define FALLOCATE(self) (self, fd, mode, offset, count)
HOOK(int, fallocate, (const struct ab_os *os, int fd, int mode, uint64_t offset, uint64_t count),
     FALLOCATE)
#define FSTAT(self) (self, fd, ret)
HOOK(int, fstat, (const struct ab_os *os, int fd, struct stat *ret), FSTAT)
#define STATX(self) (self, dir, path, flags, mask, ret)
HOOK(int, statx,
     (const struct ab_os *os, int dir, const char *path, int flags, uint32_t mask,
      struct statx *ret),
     STATX)
#define STATVFS(self) (self, path, ret)
HOOK(int, statvfs, (const struct ab_os *os, const char *path, struct statvfs *ret), STATVFS)
#define GETDENTS(self) (self, fd, bytes, count)
HOOK(int64_t, getdents, (const struct ab_os *os, int fd, void *bytes, size_t count), GETDENTS)
#define MMAP(self) (self, bytes, protection, flags, fd, offset, ret)
HOOK(int, mmap,
     (const struct ab_os *os, size_t bytes, int protection, int flags, int fd, uint64_t offset,
      void **ret),
     MMAP)

void hook_os_init(struct hook_os *hook, void *context)
{
    memset(hook, 0, sizeof(*hook));
    hook->real = ab_os_default();
    hook->context = context;
    hook->os = *hook->real;
    hook->os.openat = hook_openat;
    hook->os.pread = hook_pread;
    hook->os.pwrite = hook_pwrite;
    hook->os.fdatasync = hook_fdatasync;
    hook->os.fallocate = hook_fallocate;
    hook->os.fstat = hook_fstat;
    hook->os.statx = hook_statx;
    hook->os.statvfs = hook_statvfs;
    hook->os.getdents = hook_getdents;
    hook->os.mmap = hook_mmap;
}
