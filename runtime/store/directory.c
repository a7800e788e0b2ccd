/*
 * directory.c - the directories of a store: what is in them, which go together, making new ones.
 *
 *   DIR/creating     only while a store is being made
 *   DIR/superblock   4 copies (superblock.c)         DIR/journal.a|b   first directory only
 *   DIR/lock         flock of the writer             DIR/segments/     segment files
 *
 * NOTHING IS TOUCHED before every directory has been looked at and found to be a part of one store,
 * or empty. A new store is made in this order: the marker `creating` in every directory, folders and
 * journal, superblocks from the last directory to the first (each under another name, synced, then
 * renamed), markers away. It exists from the moment when the first directory's superblock does; if
 * there is a marker and no such superblock, nothing was ever committed and making starts over.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/file.h>

#include "abode/abode.h"
#include "store/dir_look.h"
#include "store/store_state.h"
#include "store/superblock.h"

#define SEGMENT_BYTES_DEFAULT (64u << 20)
#define SEGMENT_BYTES_SMALL (8u << 20) /* not less by itself: a block lies in one segment */
#define SEGMENTS_GOOD 16               /* a directory; then one of them is a small part */

static int dir_open(struct ab_store *store, struct ab_store_dir *dir, bool create)
{
    const struct ab_os *os = store->os;
    int fd = os->openat(os, AT_FDCWD, dir->path, O_RDONLY | O_DIRECTORY, 0);
    if (fd == -ENOENT && create) {
        const int made = os->mkdirat(os, AT_FDCWD, dir->path, 0700);
        fd = made < 0 && made != -EEXIST
                 ? made
                 : os->openat(os, AT_FDCWD, dir->path, O_RDONLY | O_DIRECTORY, 0);
    }
    if (fd < 0) {
        ab_log(store->log, AB_LOG_ERROR,
               "store: %s: cannot be opened (%s): make the directory, or mount its disk, or give "
               "the directories that the store was made with",
               dir->path, abode_strerror(fd));
        return fd;
    }
    dir->fd = fd;
    struct stat status;
    const int result = os->fstat(os, fd, &status);
    if (result == 0) {
        dir->dev = status.st_dev;
        dir->ino = status.st_ino;
    }
    return result;
}

static int dirs_are_distinct(const struct ab_store *store)
{
    for (uint32_t i = 1; i < store->dir_count; i++) {
        for (uint32_t k = 0; k < i; k++) {
            if (store->dirs[i].dev == store->dirs[k].dev &&
                store->dirs[i].ino == store->dirs[k].ino) {
                ab_log(store->log, AB_LOG_ERROR,
                       "store: %s and %s are the same directory: give each one once",
                       store->dirs[k].path, store->dirs[i].path);
                return -ABODE_ESTORE;
            }
        }
    }
    return 0;
}

static int dirs_open_all(struct ab_store *store, const struct ab_store_config *config)
{
    for (uint32_t i = 0; i < store->dir_count; i++) {
        const size_t length = strlen(config->paths[i]) + 1;
        store->dirs[i].path = store->os->alloc(store->os, length, 1);
        if (store->dirs[i].path == NULL) {
            return -ENOMEM;
        }
        memcpy(store->dirs[i].path, config->paths[i], length);
        const int result = dir_open(store, &store->dirs[i], config->create && !config->read_only);
        if (result < 0) {
            return result;
        }
    }
    return dirs_are_distinct(store);
}

static int dir_lock(struct ab_store *store, struct ab_store_dir *dir)
{
    const struct ab_os *os = store->os;
    const int fd = os->openat(os, dir->fd, "lock", O_RDWR | O_CREAT, 0600);
    if (fd < 0) {
        ab_log(store->log, AB_LOG_ERROR,
               "store: %s: cannot be written (%s): give this user the right to write, mount the "
               "file system writable, or open the store read-only",
               dir->path, abode_strerror(fd));
        return fd;
    }
    dir->lock_fd = fd;
    const int result = os->flock(os, fd, LOCK_EX | LOCK_NB);
    if (result == -EWOULDBLOCK) {
        ab_log(store->log, AB_LOG_ERROR,
               "store: %s: in use by another process: stop it, or open the store read-only",
               dir->path);
        return -ABODE_ELOCKED;
    }
    return result;
}

/* ---- making a store ---- */

static int file_touch(const struct ab_os *os, int dir, const char *name)
{
    const int fd = os->openat(os, dir, name, O_WRONLY | O_CREAT, 0600);
    return fd < 0 ? fd : os->close(os, fd);
}

static int file_remove(const struct ab_os *os, int dir, const char *name)
{
    const int result = os->unlinkat(os, dir, name, 0);
    return result == -ENOENT ? 0 : result;
}

/* The directory's own name must last as well; its parent may be closed to us, then it is old. */
static int parent_sync(const struct ab_os *os, int dir)
{
    const int parent = os->openat(os, dir, "..", O_RDONLY | O_DIRECTORY, 0);
    if (parent < 0) {
        return parent == -EACCES ? 0 : parent;
    }
    const int result = os->fsync(os, parent);
    const int closed = os->close(os, parent);
    return result < 0 ? result : closed;
}

static int make_begin(struct ab_store *store, struct ab_store_dir *dir)
{
    static const char *const leftovers[] = {"superblock", "superblock.new", "journal.a",
                                            "journal.b"};
    const struct ab_os *os = store->os;
    int result = file_touch(os, dir->fd, "creating");
    result = result < 0 ? result : os->fsync(os, dir->fd);
    result = result < 0 ? result : parent_sync(os, dir->fd);
    for (uint32_t i = 0; i < AB_COUNT(leftovers) && result >= 0; i++) {
        result = file_remove(os, dir->fd, leftovers[i]);
    }
    if (result < 0) {
        return result;
    }
    result = os->mkdirat(os, dir->fd, "segments", 0700);
    return result == -EEXIST ? 0 : result;
}

static int make_journal(struct ab_store *store)
{
    struct ab_journal journal;
    int result = ab_journal_create(&journal, store->os, store->dirs[0].fd, 0, store->id, 1, 0);
    if (result < 0) {
        return result;
    }
    struct ab_disk_record record;
    result = ab_journal_append(&journal, AB_RECORD_CHECKPOINT_END, &record, 0);
    result = result < 0 ? result : ab_journal_sync(&journal);
    ab_journal_close(&journal);
    return result;
}

static int make_superblock(struct ab_store *store, struct ab_store_dir *dir)
{
    const struct ab_os *os = store->os;
    struct ab_disk_superblock superblock = {
        .magic = AB_SUPERBLOCK_MAGIC,
        .version = AB_DISK_VERSION,
        .page_bytes = AB_PAGE,
        .directory_index = (uint32_t)(dir - store->dirs),
        .directory_count = store->dir_count,
        .segment_bytes = store->segment_bytes,
        .generation_floor = 1,
        .sequence = 1,
        .created_ns = os->wall_clock_ns(os),
        .journal_generation = 1,
        .journal_synced = 1,
    };
    memcpy(superblock.store_id, store->id, sizeof(superblock.store_id));
    const int fd = os->openat(os, dir->fd, "superblock.new", O_RDWR | O_CREAT | O_TRUNC, 0600);
    if (fd < 0) {
        return fd;
    }
    int result = ab_superblock_write(os, fd, &superblock);
    const int closed = os->close(os, fd);
    result = result < 0 ? result : closed;
    result = result < 0 ? result : os->fsync(os, dir->fd);
    result = result < 0 ? result : os->renameat(os, dir->fd, "superblock.new", "superblock");
    return result < 0 ? result : os->fsync(os, dir->fd);
}

static int markers_remove(struct ab_store *store)
{
    for (uint32_t i = 0; i < store->dir_count; i++) {
        const int result = file_remove(store->os, store->dirs[i].fd, "creating");
        if (result < 0) {
            return result;
        }
    }
    return 0;
}

/* One segment of each directory is kept back for compaction: a small store has smaller ones. */
static uint32_t segment_bytes_default(const struct ab_store_config *config)
{
    const uint64_t share = config->bytes_max / config->path_count;
    uint32_t bytes = SEGMENT_BYTES_DEFAULT;
    while (share > 0 && bytes > SEGMENT_BYTES_SMALL && share / bytes < SEGMENTS_GOOD) {
        bytes /= 2;
    }
    return bytes;
}

static int store_make(struct ab_store *store, const struct ab_store_config *config)
{
    store->segment_bytes =
        config->segment_bytes == 0 ? segment_bytes_default(config) : config->segment_bytes;
    int result = store->os->random(store->os, store->id, sizeof(store->id));
    for (uint32_t i = 0; i < store->dir_count && result >= 0; i++) {
        result = make_begin(store, &store->dirs[i]);
    }
    result = result < 0 ? result : make_journal(store);
    for (uint32_t i = store->dir_count; i > 0 && result >= 0; i--) {
        result = make_superblock(store, &store->dirs[i - 1]);
    }
    result = result < 0 ? result : markers_remove(store);
    if (result < 0) {
        ab_log(store->log, AB_LOG_ERROR,
               "store: %s: the store could not be made (%s): make room or mend the disk, then "
               "open it again; nothing was in it yet",
               store->dirs[0].path, abode_strerror(result));
    }
    return result;
}

/* ---- opening one ---- */

static int superblock_open(struct ab_store *store, struct ab_store_dir *dir)
{
    const struct ab_os *os = store->os;
    const int fd = os->openat(os, dir->fd, "superblock", store->read_only ? O_RDONLY : O_RDWR, 0);
    if (fd < 0) {
        return fd;
    }
    dir->superblock_fd = fd;
    uint32_t agreeing = 0;
    const int result = ab_superblock_read(os, fd, &dir->superblock, &agreeing);
    if (result < 0 || store->read_only) {
        return result;
    }
    return ab_superblock_heal(os, fd, &dir->superblock, agreeing);
}

/* Whatever order they were given in: dirs[i] is the directory of index i. */
static void dirs_sort(struct ab_store *store)
{
    for (uint32_t i = 0; i < store->dir_count; i++) {
        for (uint32_t k = i + 1; k < store->dir_count; k++) {
            if (store->dirs[k].superblock.directory_index == i) {
                struct ab_store_dir other = store->dirs[i];
                store->dirs[i] = store->dirs[k];
                store->dirs[k] = other;
            }
        }
    }
}

/* O_DIRECT where the file system has it; the superblock's file stands for all of them. */
static int dir_find_alignment(struct ab_store *store, struct ab_store_dir *dir)
{
    const struct ab_os *os = store->os;
    dir->io_align = AB_PAGE;
    dir->direct_io_reason = 0;
#ifdef STATX_DIOALIGN
    struct statx facts = {0};
    if (os->statx(os, dir->fd, "superblock", 0, STATX_DIOALIGN, &facts) == 0 &&
        (facts.stx_mask & STATX_DIOALIGN) != 0) {
        dir->io_align = AB_MAX(facts.stx_dio_mem_align, facts.stx_dio_offset_align);
        dir->direct_io_reason = dir->io_align == 0 || dir->io_align > AB_PAGE ? -EOPNOTSUPP : 0;
    }
#endif
    int fd = dir->direct_io_reason != 0
                 ? dir->direct_io_reason
                 : os->openat(os, dir->fd, "superblock", O_RDONLY | O_DIRECT, 0);
    dir->direct_io = fd >= 0;
    if (fd < 0) {
        dir->direct_io_reason = fd;
        dir->io_align = 1;
        ab_log(store->log, AB_LOG_WARNING,
               "store: %s: no O_DIRECT on this file system (%s): data goes through the page cache",
               dir->path, abode_strerror(fd));
        fd = os->openat(os, dir->fd, "superblock", O_RDONLY, 0);
    }
    dir->probe_fd = fd;
    return AB_MIN(fd, 0);
}

static int dir_enter(struct ab_store *store, struct ab_store_dir *dir)
{
    const struct ab_os *os = store->os;
    dir->segments_fd = os->openat(os, dir->fd, "segments", O_RDONLY | O_DIRECTORY, 0);
    if (dir->segments_fd < 0) {
        ab_log(store->log, AB_LOG_ERROR,
               "store: %s/segments: cannot be opened (%s): bring it back, it holds the state",
               dir->path, abode_strerror(dir->segments_fd));
        return dir->segments_fd == -ENOENT ? -ABODE_ESTORE : dir->segments_fd;
    }
    atomic_store_explicit(&dir->segments_dirty, true, memory_order_relaxed); /* of a past crash */
    dir->device = -1;
    dir->node = -1;
    if (store->topology != NULL) {
        dir->device = ab_topology_block_device(store->topology, (dev_t)dir->dev);
        dir->node =
            dir->device < 0 ? -1 : ab_topology_device(store->topology, (uint32_t)dir->device)->node;
    }
    return dir_find_alignment(store, dir);
}

static int store_enter(struct ab_store *store)
{
    for (uint32_t i = 0; i < store->dir_count; i++) {
        const int result = superblock_open(store, &store->dirs[i]);
        if (result < 0) {
            ab_log(store->log, AB_LOG_ERROR, "store: %s/superblock: cannot be used (%s)",
                   store->dirs[i].path, abode_strerror(result));
            return result;
        }
        if (!store->read_only && ab_superblock_read_only(&store->dirs[i].superblock)) {
            ab_log(store->log, AB_LOG_ERROR,
                   "store: %s: a newer version made it; this one may only read it: open it "
                   "read-only, or install the newer version",
                   store->dirs[i].path);
            return -ABODE_EFORMAT;
        }
    }
    dirs_sort(store);
    const struct ab_disk_superblock *first = &store->dirs[0].superblock;
    memcpy(store->id, first->store_id, sizeof(store->id));
    store->segment_bytes = first->segment_bytes;
    store->segment_pages = first->segment_bytes / AB_PAGE;
    store->generation_floor = first->generation_floor;
    for (uint32_t i = 0; i < store->dir_count; i++) {
        store->epoch = AB_MAX(store->epoch, store->dirs[i].superblock.epoch);
        const int result = dir_enter(store, &store->dirs[i]);
        if (result < 0) {
            return result;
        }
    }
    return store->read_only ? 0 : markers_remove(store);
}

int ab_dirs_open(struct ab_store *store, const struct ab_store_config *config)
{
    store->dir_count = config->path_count;
    for (uint32_t i = 0; i < AB_STORE_DEVICES_MAX; i++) {
        struct ab_store_dir *dir = &store->dirs[i];
        dir->fd = dir->lock_fd = dir->segments_fd = dir->superblock_fd = dir->probe_fd = -1;
    }
    int result = dirs_open_all(store, config);
    if (result < 0) {
        return result;
    }
    bool make = false;
    result = ab_dirs_look(store, config->create, &make);
    for (uint32_t i = 0; i < store->dir_count && result >= 0 && !store->read_only; i++) {
        result = dir_lock(store, &store->dirs[i]);
    }
    if (result >= 0 && !store->read_only) { /* another process may have been here since */
        result = ab_dirs_look(store, config->create, &make);
    }
    if (result >= 0 && make) {
        result = store_make(store, config);
    }
    return result < 0 ? result : store_enter(store);
}

static void fd_close(const struct ab_os *os, int *fd)
{
    if (*fd >= 0) {
        (void)os->close(os, *fd); /* all that matters was synced before */
    }
    *fd = -1;
}

void ab_dirs_close(struct ab_store *store)
{
    for (uint32_t i = 0; i < store->dir_count; i++) {
        struct ab_store_dir *dir = &store->dirs[i];
        fd_close(store->os, &dir->probe_fd);
        fd_close(store->os, &dir->superblock_fd);
        fd_close(store->os, &dir->segments_fd);
        fd_close(store->os, &dir->fd);
        fd_close(store->os, &dir->lock_fd); /* last: the lock goes with it */
        if (dir->path != NULL) {
            store->os->free(store->os, dir->path);
        }
        dir->path = NULL;
    }
}

int ab_dirs_enter_epoch(struct ab_store *store)
{
    for (uint32_t i = store->dir_count; i > 0; i--) {
        struct ab_store_dir *dir = &store->dirs[i - 1];
        dir->superblock.epoch = store->epoch;
        dir->superblock.generation_floor = store->generation_floor;
        dir->superblock.sequence++;
        if (i == 1) {
            dir->superblock.journal_synced = store->journal.synced;
        }
        const int result = ab_superblock_write(store->os, dir->superblock_fd, &dir->superblock);
        if (result < 0) {
            ab_log(store->log, AB_LOG_ERROR,
                   "store: %s/superblock: cannot be written (%s): look at the disk; nothing was "
                   "changed",
                   dir->path, abode_strerror(result));
            return result;
        }
    }
    return 0;
}

int ab_dirs_set_journal(struct ab_store *store, const struct ab_journal *journal)
{
    struct ab_store_dir *dir = &store->dirs[0];
    struct ab_disk_superblock superblock = dir->superblock;
    superblock.sequence++;
    superblock.journal_name = journal->name;
    superblock.journal_generation = journal->generation;
    superblock.journal_synced = journal->synced;
    const int result = ab_superblock_write(store->os, dir->superblock_fd, &superblock);
    if (result == 0) {
        dir->superblock = superblock;
    }
    return result;
}
