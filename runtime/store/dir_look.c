/*
 * dir_look.c - see dir_look.h. Looking comes before touching: whatever is not clearly ours, or
 * clearly empty, is left alone, and the log says what it is and what to do.
 */
#include "store/dir_look.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/statvfs.h>

#include "abode/abode.h"
#include "store/superblock.h"

#define DIRENT_BYTES (32u << 10)

enum content { /* bits */
               CONTENT_SUPERBLOCK = 1u << 0,
               CONTENT_MARKER = 1u << 1,
               CONTENT_PARTS = 1u << 2, /* journals, segments, a superblock that was not renamed */
               CONTENT_FOREIGN = 1u << 3,
};

struct look {
    uint32_t content;
    struct ab_disk_superblock superblock; /* if CONTENT_SUPERBLOCK */
};

int ab_dir_room(const struct ab_os *os, const char *path, uint64_t *ret_free, uint64_t *ret_total)
{
    struct statvfs facts;
    const int result = os->statvfs(os, path, &facts);
    if (result < 0) {
        return result;
    }
    if (!ab_mul_u64(facts.f_bavail, facts.f_frsize, ret_free) ||
        !ab_mul_u64(facts.f_blocks, facts.f_frsize, ret_total)) {
        return -EOVERFLOW;
    }
    return 0;
}

static int names_of(const uint8_t *bytes, size_t count, const struct ab_dir_scan *scan)
{
    for (size_t at = 0; at < count;) {
        const struct dirent64 *entry = (const void *)(bytes + at);
        const bool is_dots = strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0;
        const int result = is_dots ? 0 : scan->name(scan->context, entry->d_name);
        if (result < 0 || entry->d_reclen == 0) {
            return AB_MIN(result, 0);
        }
        at += entry->d_reclen;
    }
    return 0;
}

int ab_dir_scan(const struct ab_os *os, int fd, const struct ab_dir_scan *scan)
{
    /* A descriptor of its own: the position in a directory belongs to the open file. */
    const int own = os->openat(os, fd, ".", O_RDONLY | O_DIRECTORY, 0);
    if (own < 0) {
        return own;
    }
    uint8_t *bytes = os->alloc(os, DIRENT_BYTES, _Alignof(struct dirent64));
    int64_t result = bytes == NULL ? -ENOMEM : 1;
    while (result > 0) { /* ends with the directory */
        result = os->getdents(os, own, bytes, DIRENT_BYTES);
        if (result > 0) {
            const int stopped = names_of(bytes, (size_t)result, scan);
            result = stopped < 0 ? stopped : result;
        }
    }
    os->free(os, bytes);
    (void)os->close(os, own); /* only read */
    return (int)result;
}

static int note_name(void *context, const char *name)
{
    static const char *const ignored[] = {"lock", "lost+found"};
    static const char *const parts[] = {"journal.a", "journal.b", "segments", "superblock.new"};
    struct look *look = context;
    for (uint32_t i = 0; i < AB_COUNT(ignored); i++) {
        if (strcmp(name, ignored[i]) == 0) {
            return 0;
        }
    }
    for (uint32_t i = 0; i < AB_COUNT(parts); i++) {
        if (strcmp(name, parts[i]) == 0) {
            look->content |= CONTENT_PARTS;
            return 0;
        }
    }
    if (strcmp(name, "superblock") == 0) {
        look->content |= CONTENT_SUPERBLOCK;
    } else if (strcmp(name, "creating") == 0) {
        look->content |= CONTENT_MARKER;
    } else {
        look->content |= CONTENT_FOREIGN;
    }
    return 0;
}

static int superblock_look(struct ab_store *store, const struct ab_store_dir *dir,
                           struct look *look)
{
    const struct ab_os *os = store->os;
    const int fd = os->openat(os, dir->fd, "superblock", O_RDONLY, 0);
    if (fd < 0) {
        return fd;
    }
    uint32_t agreeing = 0;
    const int result = ab_superblock_read(os, fd, &look->superblock, &agreeing);
    (void)os->close(os, fd); /* only read */
    return result;
}

static const char *superblock_mend(int status)
{
    switch (status) {
    case -ABODE_ESTORE:
        return "it is not a superblock: give another directory";
    case -ABODE_EFORMAT:
        return "another version made it: use that version";
    case -ABODE_ECORRUPT:
        return "no two of its four copies agree: bring the file back from a backup";
    default:
        return "it cannot be read: look at the disk and at the rights of the file";
    }
}

static int dir_look(struct ab_store *store, const struct ab_store_dir *dir, struct look *look)
{
    const struct ab_dir_scan scan = {.name = note_name, .context = look};
    int result = ab_dir_scan(store->os, dir->fd, &scan);
    if (result < 0) {
        ab_log(store->log, AB_LOG_ERROR, "store: %s: cannot be read (%s)", dir->path,
               abode_strerror(result));
        return result;
    }
    if ((look->content & CONTENT_SUPERBLOCK) == 0) {
        return 0;
    }
    result = superblock_look(store, dir, look);
    /* A store in the making: the file is whole, for it was renamed when it was. */
    if (result < 0) {
        ab_log(store->log, AB_LOG_ERROR, "store: %s/superblock: %s (%s)", dir->path,
               superblock_mend(result), abode_strerror(result));
    }
    return result;
}

static int refuse(const struct ab_store *store, uint32_t index, const char *why)
{
    ab_log(store->log, AB_LOG_ERROR, "store: %s: %s", store->dirs[index].path, why);
    return -ABODE_ESTORE;
}

static bool all_have(const struct look *looks, uint32_t count, uint32_t content)
{
    for (uint32_t i = 0; i < count; i++) {
        if ((looks[i].content & content) == 0) {
            return false;
        }
    }
    return true;
}

static bool is_first_of_store(const struct look *look)
{
    return (look->content & CONTENT_SUPERBLOCK) != 0 && look->superblock.directory_index == 0;
}

/* Was the store never finished? Then each directory is empty or marked, and none is the first. */
static bool is_half_made(const struct look *looks, uint32_t count)
{
    bool any_marker = false;
    for (uint32_t i = 0; i < count; i++) {
        const bool is_marked = (looks[i].content & CONTENT_MARKER) != 0;
        any_marker |= is_marked;
        if (is_first_of_store(&looks[i]) || (looks[i].content & CONTENT_FOREIGN) != 0 ||
            (!is_marked && looks[i].content != 0)) {
            return false;
        }
    }
    return any_marker;
}

static int one_store(const struct ab_store *store, const struct look *looks)
{
    const struct ab_disk_superblock *first = &looks[0].superblock;
    uint32_t seen = 0;
    for (uint32_t i = 0; i < store->dir_count; i++) {
        const struct ab_disk_superblock *superblock = &looks[i].superblock;
        if (memcmp(superblock->store_id, first->store_id, AB_STORE_ID_BYTES) != 0 ||
            superblock->segment_bytes != first->segment_bytes) {
            return refuse(store, i,
                          "belongs to another store than the directory given first: "
                          "give the directories of one store");
        }
        if (superblock->directory_count != store->dir_count) {
            ab_log(store->log, AB_LOG_ERROR,
                   "store: %s: the store has %u directories, %u were given: give all of them",
                   store->dirs[i].path, superblock->directory_count, store->dir_count);
            return -ABODE_ESTORE;
        }
        if ((seen & (1u << superblock->directory_index)) != 0) {
            return refuse(store, i,
                          "is a copy of another directory that was given: give each "
                          "directory of the store once");
        }
        seen |= 1u << superblock->directory_index;
    }
    return 0;
}

static int not_a_store(const struct ab_store *store, const struct look *looks)
{
    for (uint32_t i = 0; i < store->dir_count; i++) {
        const uint32_t content = looks[i].content;
        if ((content & CONTENT_SUPERBLOCK) != 0) {
            continue;
        }
        if ((content & CONTENT_PARTS) != 0) {
            return refuse(store, i,
                          "holds segments or a journal, but its superblock is missing: "
                          "bring the file back; nothing was touched");
        }
        if ((content & CONTENT_FOREIGN) != 0) {
            return refuse(store, i,
                          "is not a store and not empty: give an empty directory; "
                          "nothing was touched");
        }
    }
    for (uint32_t i = 0; i < store->dir_count; i++) {
        if ((looks[i].content & CONTENT_SUPERBLOCK) == 0) {
            return refuse(store, i,
                          "is empty, but other directories given belong to a store: "
                          "mount its disk, or give the right directory");
        }
    }
    return -ABODE_ESTORE; /* not reached: some directory has no superblock */
}

static int looks_judge(const struct ab_store *store, const struct look *looks, bool create,
                       bool *ret_make)
{
    const uint32_t count = store->dir_count;
    bool all_empty = true;
    for (uint32_t i = 0; i < count; i++) {
        all_empty &= looks[i].content == 0;
    }
    const bool is_half = is_half_made(looks, count);
    if (all_empty || is_half) {
        if (!create || store->read_only) {
            return refuse(store, 0,
                          is_half ? "a store was being made here and never finished; nothing was "
                                    "in it: allow to create it"
                                  : "is empty: there is no store here: allow to create one, or "
                                    "give the right directory");
        }
        *ret_make = true;
        return 0;
    }
    if (!all_have(looks, count, CONTENT_SUPERBLOCK)) {
        return not_a_store(store, looks);
    }
    *ret_make = false;
    return one_store(store, looks);
}

int ab_dirs_look(struct ab_store *store, bool create, bool *ret_make)
{
    struct look *looks = ab_os_alloc_array(store->os, store->dir_count, sizeof(*looks));
    if (looks == NULL) {
        return -ENOMEM;
    }
    int result = 0;
    for (uint32_t i = 0; i < store->dir_count && result >= 0; i++) {
        result = dir_look(store, &store->dirs[i], &looks[i]);
    }
    if (result >= 0) {
        result = looks_judge(store, looks, create, ret_make);
    }
    store->os->free(store->os, looks);
    return result;
}
