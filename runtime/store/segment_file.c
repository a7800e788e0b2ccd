/*
 * segment_file.c - the files of segments: names, making, filling, opening.
 *
 * A file is made in steps that can be done again after a crash at any point: open or create,
 * allocate to full size, write the header page. Only then does the journal hear of the segment.
 * Filling it with zeroes (written extents are overwritten with no metadata to sync) comes later, in
 * the preparer, or never.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

#include "store/store_state.h"

#define SEGMENT_NAME_BYTES 9
#define FILL_BYTES (1u << 20) /* one write of the preparer: stops quickly, costs no more calls */

_Static_assert(FILL_BYTES <= AB_JOURNAL_GROW, "zeroes are shared");

static void segment_name(uint32_t segment, char ret[SEGMENT_NAME_BYTES])
{
    (void)snprintf(ret, SEGMENT_NAME_BYTES, "%08x", segment);
}

int ab_store_segment_path(const struct ab_store *store, uint32_t segment, char *ret,
                          size_t capacity)
{
    if (segment >= store->segment_max) {
        return -EINVAL;
    }
    const int length = snprintf(ret, capacity, "%s/segments/%08x",
                                store->dirs[segment % store->dir_count].path, segment);
    return length < 0 || (size_t)length >= capacity ? -ENAMETOOLONG : length;
}

/* Keep the fd in the table, unless another thread was quicker. Returns the one that counts. */
static int fd_keep(struct ab_store *store, uint32_t segment, int fd)
{
    int32_t expected = 0;
    /* release: whoever sees the number may use the fd; pairs with the acquire in segment_fd */
    if (atomic_compare_exchange_strong_explicit(&store->segments[segment].fd, &expected, fd + 1,
                                                memory_order_release, memory_order_acquire)) {
        return fd;
    }
    (void)store->os->close(store->os, fd);
    return expected - 1;
}

static int segment_open(struct ab_store *store, uint32_t segment, bool make)
{
    const struct ab_store_dir *dir = ab_store_dir_of(store, segment);
    char name[SEGMENT_NAME_BYTES];
    segment_name(segment, name);
    const int flags = (store->read_only ? O_RDONLY : O_RDWR) | (make ? O_CREAT : 0) |
                      (dir->direct_io ? O_DIRECT : 0);
    const int fd = store->os->openat(store->os, dir->segments_fd, name, flags, 0600);
    return fd < 0 ? fd : fd_keep(store, segment, fd);
}

int ab_store_segment_fd(const struct ab_store *store, uint32_t segment)
{
    if (segment >= store->segment_max) {
        return -EINVAL;
    }
    /* acquire: pairs with the release in fd_keep */
    const int32_t fd = atomic_load_explicit(&store->segments[segment].fd, memory_order_acquire);
    if (fd != 0) {
        return fd - 1;
    }
    /* The only thing that asking changes: the first question opens the file. */
    return segment_open((struct ab_store *)(uintptr_t)store, segment, false);
}

static uint64_t header_hash(const struct ab_disk_segment *header)
{
    return ab_hash64((const uint8_t *)header + sizeof(header->hash),
                     sizeof(*header) - sizeof(header->hash), header->segment);
}

static int header_write(struct ab_store *store, uint32_t segment, int fd)
{
    _Alignas(AB_PAGE) struct ab_disk_segment header = {
        .magic = AB_SEGMENT_MAGIC,
        .version = AB_DISK_VERSION,
        .segment = segment,
        .segment_bytes = store->segment_bytes,
    };
    memcpy(header.store_id, store->id, sizeof(header.store_id));
    header.hash = header_hash(&header);
    return ab_os_write_all(store->os, fd, &header, sizeof(header), 0);
}

static int zeroes_write(struct ab_store *store, int fd)
{
    for (uint64_t at = AB_PAGE; at < store->segment_bytes;) {
        const uint64_t count = AB_MIN(FILL_BYTES, store->segment_bytes - at);
        const int result = ab_os_write_all(store->os, fd, store->zeroes, count, at);
        if (result < 0) {
            return result;
        }
        ab_count(&store->counters.prepared_bytes, count);
        at += count;
        ab_lock_take(&store->lock);
        const bool stop = store->prepare_stop;
        ab_lock_drop(&store->lock);
        if (stop) {
            return -ECANCELED;
        }
    }
    return 0;
}

int ab_segment_fill(struct ab_store *store, uint32_t segment)
{
    const int fd = ab_store_segment_fd(store, segment);
    if (fd < 0) {
        return fd;
    }
    const int result = zeroes_write(store, fd);
    return result < 0 ? result : store->os->fdatasync(store->os, fd);
}

int ab_segment_make(struct ab_store *store, uint32_t segment)
{
    struct ab_store_dir *dir = ab_store_dir_of(store, segment);
    const int fd = segment_open(store, segment, true);
    if (fd < 0) {
        return fd;
    }
    /* release: the committer that sees it syncs the directory after the file has its name */
    atomic_store_explicit(&dir->segments_dirty, true, memory_order_release);
    int result = store->os->fallocate(store->os, fd, 0, 0, store->segment_bytes);
    if (result == -EOPNOTSUPP) { /* the file system cannot: only written bytes are a promise */
        result = zeroes_write(store, fd);
    }
    return result < 0 ? result : header_write(store, segment, fd);
}

/* What a failed file means for the directory: room is asked for again after a while. */
static void make_failed(struct ab_store *store, struct ab_store_dir *dir, uint32_t segment,
                        int status)
{
    ab_segment_state_set(store, segment, AB_SEGMENT_NONE);
    dir->existing--;
    dir->place_next = AB_MIN(dir->place_next, segment / store->dir_count);
    if (ab_journal_no_room(status)) {
        dir->retry_ns = store->os->clock_ns(store->os) + AB_FULL_RETRY_NS;
    }
}

/* The first file system must keep some room for the journal. */
static int room_check(struct ab_store *store, const struct ab_store_dir *dir)
{
    if (dir != &store->dirs[0]) {
        return 0;
    }
    uint64_t free_bytes = 0, total_bytes = 0;
    const int result = ab_dir_room(store->os, dir->path, &free_bytes, &total_bytes);
    if (result < 0) {
        return result;
    }
    const uint64_t margin = AB_MIN((uint64_t)AB_DISK_MARGIN, total_bytes / 32);
    return free_bytes < store->segment_bytes + margin ? -ENOSPC : 0;
}

int ab_segment_grow(struct ab_store *store, struct ab_store_dir *dir, bool over)
{
    if (store->os->clock_ns(store->os) < dir->retry_ns) {
        return -ENOSPC;
    }
    const uint32_t segment = ab_segment_claim(store, dir, over);
    if (segment == AB_INDEX_NONE) {
        return -ENOSPC;
    }
    ab_lock_drop(&store->lock);
    int result = room_check(store, dir);
    if (result == 0) {
        result = ab_segment_make(store, segment);
    }
    ab_lock_take(&store->lock);
    if (result < 0) {
        if (result != -ECANCELED) { /* the caller may hold locks: not here */
            dir->make_status = result;
            dir->make_segment = segment;
            store->prepare_wanted = true;
            ab_cond_signal(&store->prepare_cond);
        }
        make_failed(store, dir, segment, result);
        return result;
    }
    store->segments[segment].present = true;
    ab_segment_free_push(store, segment);
    return 0;
}
