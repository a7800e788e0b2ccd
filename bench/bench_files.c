/*
 * bench_files.c - directories that a bench makes and removes, and making files cold.
 *
 * A file is cold when its pages are written back and then dropped with POSIX_FADV_DONTNEED; mincore
 * on a mapping that touches nothing tells how many pages stayed. That needs no privilege and leaves
 * the rest of the machine's page cache alone.
 */
#include "bench_common.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define PAGE_BYTES 4096u
#define TREE_FDS_MAX 16                  /* directories that nftw keeps open */
#define WINDOW_BYTES ((uint64_t)1 << 30) /* of a file that is asked about at a time */

int bench_directory_make(const struct bench_run *run, const char *name,
                         char ret_path[BENCH_PATH_MAX])
{
    char path[BENCH_PATH_MAX];
    const int length = snprintf(path, sizeof(path), "%s/bench-%s-XXXXXX", run->dir, name);
    if (length < 0 || (size_t)length >= sizeof(path)) {
        return -ENAMETOOLONG;
    }
    if (mkdtemp(path) == NULL) {
        return -errno;
    }
    memcpy(ret_path, path, (size_t)length + 1);
    return 0;
}

static int entry_remove(const char *path, const struct stat *status, int type, struct FTW *where)
{
    (void)status;
    (void)type;
    (void)where;
    return remove(path) == 0 ? 0 : errno;
}

int bench_directory_remove(const char *path)
{
    const int code = nftw(path, entry_remove, TREE_FDS_MAX, FTW_DEPTH | FTW_PHYS);
    return code < 0 ? -errno : -code;
}

int bench_cache_drop_fd(int fd)
{
    if (fdatasync(fd) != 0) {
        return -errno;
    }
    return -posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
}

/* pages of [offset, offset + bytes) that are in the page cache; bytes <= WINDOW_BYTES */
static int64_t window_pages_cached(int fd, uint64_t offset, size_t bytes)
{
    static unsigned char resident[WINDOW_BYTES / PAGE_BYTES]; /* the bench is single-threaded */
    void *mapped = mmap(NULL, bytes, PROT_READ, MAP_SHARED, fd, (off_t)offset);
    if (mapped == MAP_FAILED) {
        return -errno;
    }
    int64_t count = 0;
    if (mincore(mapped, bytes, resident) != 0) {
        count = -errno;
    } else {
        for (size_t page = 0; page < (bytes + PAGE_BYTES - 1) / PAGE_BYTES; page++) {
            count += resident[page] & 1;
        }
    }
    (void)munmap(mapped, bytes);
    return count;
}

static int64_t file_pages_cached(int fd, uint64_t size)
{
    int64_t total = 0;
    for (uint64_t offset = 0; offset < size; offset += WINDOW_BYTES) {
        const uint64_t left = size - offset;
        const int64_t count =
            window_pages_cached(fd, offset, left < WINDOW_BYTES ? left : WINDOW_BYTES);
        if (count < 0) {
            return count;
        }
        total += count;
    }
    return total;
}

static int64_t tree_pages_cached; /* of the walk in progress: nftw passes no context */

static int entry_drop(const char *path, const struct stat *status, int type, struct FTW *where)
{
    (void)where;
    if (type != FTW_F || !S_ISREG(status->st_mode)) {
        return 0;
    }
    const int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        return errno;
    }
    int code = -bench_cache_drop_fd(fd);
    if (code == 0) {
        const int64_t cached = file_pages_cached(fd, (uint64_t)status->st_size);
        code = cached < 0 ? (int)-cached : 0;
        tree_pages_cached += cached < 0 ? 0 : cached;
    }
    (void)close(fd);
    return code;
}

int64_t bench_cache_drop_tree(const char *path)
{
    tree_pages_cached = 0;
    const int code = nftw(path, entry_drop, TREE_FDS_MAX, FTW_PHYS);
    if (code != 0) {
        return code < 0 ? -errno : -code;
    }
    return tree_pages_cached;
}

int bench_cache_drop_all(void)
{
    sync();
    const int fd = open("/proc/sys/vm/drop_caches", O_WRONLY | O_CLOEXEC);
    if (fd < 0) {
        return -errno;
    }
    const int code = write(fd, "3", 1) == 1 ? 0 : -errno;
    (void)close(fd);
    return code;
}
