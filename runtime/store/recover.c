/*
 * recover.c - from the bytes of a closed (or crashed) store to the state of an open one.
 *
 *   names of segment files -> table -> active journal, front to end -> client.replay
 *                                                      |               calls ab_store_slot_restore
 *                                                      v
 *                                            generations, live pages -> states of segments
 *
 * No payload and no segment is read: a million entries are some 72 MB of one file. A reader does the
 * same beside a living writer: what it reads belongs to one file that only grows, even after the
 * writer has gone on to the other one.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>

#include "abode/abode.h"
#include "store/store_state.h"
#include "store/superblock.h"

#define JOURNAL_OPENS_MAX 8 /* the writer may switch between superblock and journal */
#define HINTS_MAX (AB_STORE_DEVICES_MAX * AB_STREAM_COUNT * AB_OPEN_PER_STREAM)

struct recovery {
    struct ab_store *store;
    uint32_t dir;                               /* being scanned for names */
    uint32_t place_count[AB_STORE_DEVICES_MAX]; /* highest file's place + 1 */
    uint32_t file_count[AB_STORE_DEVICES_MAX];
    bool marking;            /* second scan: the table is there */
    uint32_t generation_max; /* of all segments that the journal names, with a file or not */
    uint32_t missing;        /* segments that the journal names and that have no file */
    uint64_t entries;
    struct ab_disk_segment_entry hints[HINTS_MAX]; /* of the last record, if that is a close */
    uint32_t hint_count;
};

/* ---- segment files ---- */

/* exactly eight lower-case hex digits */
static bool name_parse(const char *name, uint32_t *ret)
{
    uint32_t value = 0;
    for (uint32_t i = 0; i < 8; i++) {
        const char c = name[i];
        if (!((c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'))) {
            return false;
        }
        value = value << 4 | (uint32_t)(c <= '9' ? c - '0' : c - 'a' + 10);
    }
    *ret = value;
    return name[8] == '\0';
}

static int file_seen(void *context, const char *name)
{
    struct recovery *recovery = context;
    struct ab_store *store = recovery->store;
    uint32_t segment = 0;
    if (!name_parse(name, &segment) || segment >= AB_STORE_SEGMENTS_MAX ||
        segment % store->dir_count != recovery->dir) {
        return 0; /* somebody else's file */
    }
    if (recovery->marking) {
        if (segment < store->segment_max) { /* else it was made since the first scan */
            store->segments[segment].present = true;
        }
        return 0;
    }
    uint32_t *count = &recovery->place_count[recovery->dir];
    *count = AB_MAX(*count, segment / store->dir_count + 1);
    recovery->file_count[recovery->dir]++;
    return 0;
}

static int files_scan(struct recovery *recovery, bool marking)
{
    struct ab_store *store = recovery->store;
    const struct ab_dir_scan scan = {.name = file_seen, .context = recovery};
    recovery->marking = marking;
    for (recovery->dir = 0; recovery->dir < store->dir_count; recovery->dir++) {
        const int result = ab_dir_scan(store->os, store->dirs[recovery->dir].segments_fd, &scan);
        if (result < 0) {
            ab_log(store->log, AB_LOG_ERROR, "store: %s/segments: cannot be read (%s)",
                   store->dirs[recovery->dir].path, abode_strerror(result));
            return result;
        }
    }
    return 0;
}

/* ---- limits ---- */

/* Segments that each directory could hold: the files it has, and its share of what is free. */
static int rooms_find(const struct recovery *recovery, uint64_t *ret_rooms)
{
    struct ab_store *store = recovery->store;
    for (uint32_t i = 0; i < store->dir_count; i++) {
        uint32_t sharers = 0;
        for (uint32_t k = 0; k < store->dir_count; k++) {
            sharers += store->dirs[k].dev == store->dirs[i].dev ? 1 : 0;
        }
        uint64_t free_bytes = 0, total_bytes = 0;
        const int result = ab_dir_room(store->os, store->dirs[i].path, &free_bytes, &total_bytes);
        if (result < 0) {
            return result;
        }
        ret_rooms[i] = recovery->file_count[i] + free_bytes / sharers / store->segment_bytes;
    }
    return 0;
}

/* Share `total` segments out evenly, but to nobody more than its room while others have some. */
static void limits_share(struct ab_store *store, const uint64_t *rooms, uint64_t total)
{
    uint64_t limits[AB_STORE_DEVICES_MAX] = {0};
    for (uint32_t round = 0; round < store->dir_count && total > 0; round++) {
        uint32_t open = 0;
        for (uint32_t i = 0; i < store->dir_count; i++) {
            open += limits[i] < rooms[i] ? 1 : 0;
        }
        const uint64_t share = open == 0 ? 0 : ab_div_up(total, open);
        for (uint32_t i = 0; i < store->dir_count; i++) {
            const uint64_t room = rooms[i] > limits[i] ? rooms[i] - limits[i] : 0;
            const uint64_t more = AB_MIN(AB_MIN(share, room), total);
            limits[i] += more;
            total -= more;
        }
    }
    for (uint32_t i = 0; i < store->dir_count; i++) { /* no room now: there may be some later */
        const uint64_t more = ab_div_up(total, store->dir_count - i);
        limits[i] += more;
        total -= more;
        store->dirs[i].existing_max =
            (uint32_t)AB_MIN(limits[i], (uint64_t)AB_STORE_SEGMENTS_MAX / store->dir_count);
    }
}

static int limits_find(const struct recovery *recovery, uint64_t bytes_max)
{
    struct ab_store *store = recovery->store;
    uint64_t rooms[AB_STORE_DEVICES_MAX] = {0};
    const int result = rooms_find(recovery, rooms);
    if (result < 0) {
        return result;
    }
    uint64_t total = bytes_max / store->segment_bytes;
    if (bytes_max == 0) {
        for (uint32_t i = 0; i < store->dir_count; i++) {
            total += AB_MAX(rooms[i] / 2, 1u);
        }
    } else if (total == 0) {
        ab_log(store->log, AB_LOG_ERROR,
               "store: %s: a limit of %llu bytes is less than one segment (%u bytes): raise it",
               store->dirs[0].path, (unsigned long long)bytes_max, store->segment_bytes);
        return -EINVAL;
    }
    limits_share(store, rooms, total);
    return 0;
}

static int table_make(struct recovery *recovery)
{
    struct ab_store *store = recovery->store;
    uint64_t places = 1;
    for (uint32_t i = 0; i < store->dir_count; i++) {
        /* one more than the limit, see ab_segment_grow */
        places = AB_MAX(places, AB_MAX(recovery->place_count[i], store->dirs[i].existing_max + 1));
        store->dirs[i].ready_first = AB_INDEX_NONE;
        store->dirs[i].plain_first = AB_INDEX_NONE;
        memset(store->dirs[i].open, 0xff, sizeof(store->dirs[i].open)); /* AB_INDEX_NONE */
    }
    store->empty_first = AB_INDEX_NONE;
    store->empty_last = AB_INDEX_NONE;
    store->segment_max =
        (uint32_t)AB_MIN(places * store->dir_count, (uint64_t)AB_STORE_SEGMENTS_MAX);
    store->state_counts[AB_SEGMENT_NONE] = store->segment_max;
    void *table = NULL;
    const int result =
        ab_os_map_lazy(store->os, (size_t)store->segment_max * sizeof(*store->segments), &table);
    if (result < 0) {
        return result;
    }
    store->segments = table;
    return files_scan(recovery, true);
}

/* ---- journal ---- */

static int segment_entry_apply(struct recovery *recovery, const struct ab_disk_segment_entry *entry)
{
    struct ab_store *store = recovery->store;
    if (entry->entry.size != sizeof(*entry) || entry->segment >= AB_STORE_SEGMENTS_MAX) {
        return -ABODE_ECORRUPT;
    }
    recovery->generation_max = AB_MAX(recovery->generation_max, entry->generation);
    if (entry->segment >= store->segment_max) {
        recovery->missing++;
        return 0;
    }
    struct ab_segment *segment = &store->segments[entry->segment];
    const uint32_t last = atomic_load_explicit(&segment->generation, memory_order_relaxed);
    if (entry->generation < last || (entry->generation > last && segment->live > 0)) {
        ab_log(store->log, AB_LOG_ERROR,
               "store: segment %08x: generation %u after %u with %u live pages: the journal "
               "contradicts itself",
               entry->segment, entry->generation, last, segment->live);
        return -ABODE_ECORRUPT;
    }
    atomic_store_explicit(&segment->generation, entry->generation, memory_order_relaxed);
    segment->announced = true;
    store->segment_count = AB_MAX(store->segment_count, entry->segment + 1);
    return 0;
}

static int entry_apply(struct recovery *recovery, const struct ab_entry *entry, bool is_close)
{
    struct ab_store *store = recovery->store;
    if (entry->type != AB_ENTRY_SEGMENT) {
        recovery->entries++;
        return store->client.replay(store->client.context, store, entry);
    }
    const struct ab_disk_segment_entry *own = (const void *)entry;
    const int result = segment_entry_apply(recovery, own);
    if (result == 0 && is_close && recovery->hint_count < HINTS_MAX) {
        recovery->hints[recovery->hint_count++] = *own;
    }
    return result;
}

static int record_apply(void *context, const struct ab_disk_record *record, const uint8_t *payload)
{
    struct recovery *recovery = context;
    if (!ab_entries_are_valid(payload, record->size, true)) {
        return -ABODE_ECORRUPT;
    }
    recovery->hint_count = 0; /* a close counts only if nothing follows it */
    recovery->store->replays_commits = record->kind == AB_RECORD_COMMIT;
    if (record->kind == AB_RECORD_CLOSE) {
        ab_unsynced_clear(recovery->store); /* all that is named has been synced */
    }
    for (uint32_t at = 0; at < record->size;) {
        const struct ab_entry *entry = ab_entry_at(payload + at);
        const int result = entry_apply(recovery, entry, record->kind == AB_RECORD_CLOSE);
        if (result < 0) {
            return result;
        }
        at += entry->size;
    }
    return 0;
}

static int journal_find(struct ab_store *store)
{
    struct ab_store_dir *dir = &store->dirs[0];
    int result = -ESTALE;
    for (uint32_t i = 0; i < JOURNAL_OPENS_MAX; i++) {
        const struct ab_disk_superblock *superblock = &dir->superblock;
        result = ab_journal_open(&store->journal, store->os, dir->fd, superblock->journal_name,
                                 store->id, superblock->journal_generation, !store->read_only);
        if (result == 0 || !store->read_only || (result != -ENOENT && result != -ESTALE)) {
            break;
        }
        uint32_t agreeing = 0;
        const int read =
            ab_superblock_read(store->os, dir->superblock_fd, &dir->superblock, &agreeing);
        if (read < 0 && read != -ABODE_ECORRUPT) {
            return read;
        }
    }
    if (result < 0) {
        const char *mend = result == -ABODE_EFORMAT
                               ? "another version made it: use that version"
                               : "bring the file back from a backup; without it nothing in the "
                                 "store can be found";
        ab_log(store->log, AB_LOG_ERROR,
               "store: %s/%s: the journal that the superblock names cannot be used (%s): %s",
               dir->path, ab_journal_file(dir->superblock.journal_name), abode_strerror(result),
               mend);
    }
    return result == -ENOENT || result == -ESTALE ? -ABODE_ESTORE : result;
}

/* A writer believes the disk, not the page cache: what a sync of an earlier process has failed to
 * save is in the cache still, clean, and no later sync will ever write it. */
static int journal_scan(struct recovery *recovery, uint8_t *window)
{
    struct ab_store *store = recovery->store;
    const struct ab_store_dir *dir = &store->dirs[0];
    struct ab_journal_reader reader = {
        .record = record_apply, .context = recovery, .window = window};
    int result, fd = store->journal.fd;
    if (dir->direct_io && !store->read_only) {
        fd = store->os->openat(store->os, dir->fd, ab_journal_file(store->journal.name),
                               O_RDONLY | O_DIRECT, 0);
        if (fd < 0) {
            return fd;
        }
    }
    store->journal.synced = dir->superblock.journal_synced;
    result = ab_journal_scan(&store->journal, fd, &reader);
    if (fd != store->journal.fd) {
        (void)store->os->close(store->os, fd); /* only read */
    }
    return result;
}

static int journal_replay(struct recovery *recovery)
{
    struct ab_store *store = recovery->store;
    void *window = NULL;
    int result = ab_os_map_lazy(store->os, AB_JOURNAL_WINDOW, &window);
    if (result < 0) {
        return result;
    }
    result = journal_scan(recovery, window);
    (void)store->os->munmap(store->os, window, AB_JOURNAL_WINDOW); /* nothing could be done */
    if (result == -ABODE_ECORRUPT) {
        ab_log(store->log, AB_LOG_ERROR,
               "store: %s/%s: damaged at byte %llu: entries that had been durable are lost. %s",
               store->dirs[0].path, ab_journal_file(store->journal.name),
               (unsigned long long)store->journal.offset,
               store->read_only
                   ? "This is the state before them"
                   : "Open it read-only to save what came before, or bring the file back");
        result = store->read_only ? 0 : result;
    } else if (result < 0) {
        ab_log(store->log, AB_LOG_ERROR, "store: %s/%s: cannot be replayed (%s)",
               store->dirs[0].path, ab_journal_file(store->journal.name), abode_strerror(result));
    }
    return result;
}

/* ---- states ---- */

static void segment_judge(struct recovery *recovery, uint32_t index)
{
    struct ab_store *store = recovery->store;
    struct ab_segment *segment = &store->segments[index];
    struct ab_store_dir *dir = ab_store_dir_of(store, index);
    const bool is_known = atomic_load_explicit(&segment->generation, memory_order_relaxed) != 0;
    if (!is_known || !segment->present) {
        recovery->missing += is_known ? 1 : 0;
        return; /* NONE: its number is free, its generation is remembered */
    }
    dir->existing++;
    segment->used = store->segment_pages;
    if (segment->live > 0) {
        ab_segment_state_set(store, index, AB_SEGMENT_SEALED);
    } else if (atomic_load_explicit(&segment->generation, memory_order_relaxed) == UINT32_MAX) {
        ab_segment_state_set(store, index, AB_SEGMENT_BAD); /* worn: it has had all its lives */
    } else {
        segment->prepared = true; /* it has been in use */
        ab_segment_free_push(store, index);
    }
}

/* After a clean close the open segments go on where they were: nothing lies beyond. */
static void hint_apply(struct ab_store *store, const struct ab_disk_segment_entry *hint)
{
    if (hint->segment >= store->segment_max || hint->stream >= AB_STREAM_COUNT ||
        hint->used_pages < 1 || hint->used_pages >= store->segment_pages) {
        return;
    }
    struct ab_segment *segment = &store->segments[hint->segment];
    if (segment->state != AB_SEGMENT_SEALED ||
        atomic_load_explicit(&segment->generation, memory_order_relaxed) != hint->generation) {
        return;
    }
    uint32_t *open = ab_store_dir_of(store, hint->segment)->open[hint->stream];
    for (uint32_t i = 0; i < AB_OPEN_PER_STREAM; i++) {
        if (open[i] == AB_INDEX_NONE) {
            open[i] = hint->segment;
            segment->used = hint->used_pages;
            segment->stream = (uint8_t)hint->stream;
            ab_segment_state_set(store, hint->segment, AB_SEGMENT_OPEN);
            return;
        }
    }
}

/* The journal as it was found must last before anything that it says is dead is overwritten. */
static int writer_begin(struct recovery *recovery)
{
    struct ab_store *store = recovery->store;
    struct stat status;
    int result = store->os->fstat(store->os, store->journal.fd, &status);
    if (result < 0) {
        return result;
    }
    result = ab_journal_sync(&store->journal);
    if (result < 0) {
        ab_log(store->log, AB_LOG_ERROR, "store: %s/%s: sync failed (%s): look at the disk",
               store->dirs[0].path, ab_journal_file(store->journal.name), abode_strerror(result));
        return result;
    }
    store->journal.capacity = ab_align_down((uint64_t)status.st_size, AB_PAGE);
    store->epoch++;
    store->journal.epoch = store->epoch;
    const uint32_t used = AB_MAX(recovery->generation_max, store->generation_floor);
    /* A generation that was handed out and whose announcement a crash has eaten is at most one
     * above what is known: two above is new. */
    store->generation_floor = used > UINT32_MAX - 2 ? UINT32_MAX : used + 2;
    return ab_dirs_enter_epoch(store);
}

static int recover(struct recovery *recovery, uint64_t bytes_max)
{
    struct ab_store *store = recovery->store;
    int result = files_scan(recovery, false);
    if (result == 0 && !store->read_only) {
        result = limits_find(recovery, bytes_max);
    }
    result = result < 0 ? result : table_make(recovery);
    result = result < 0 ? result : journal_find(store);
    result = result < 0 ? result : journal_replay(recovery);
    store->replays_commits = false;
    if (result < 0) {
        return result;
    }
    for (uint32_t i = store->segment_count; i > 0; i--) { /* downwards: low numbers come first */
        segment_judge(recovery, i - 1);
    }
    for (uint32_t i = 0; i < recovery->hint_count && !store->read_only; i++) {
        hint_apply(store, &recovery->hints[i]);
    }
    if (recovery->missing > 0) {
        ab_log(store->log, AB_LOG_WARNING,
               "store: %s: %u segment files are missing: what was in them is lost",
               store->dirs[0].path, recovery->missing);
    }
    return store->read_only ? 0 : writer_begin(recovery);
}

int ab_store_recover(struct ab_store *store, const struct ab_store_config *config)
{
    const uint64_t start_ns = store->os->clock_ns(store->os);
    struct recovery *recovery = store->os->alloc(store->os, sizeof(*recovery), 8);
    if (recovery == NULL) {
        return -ENOMEM;
    }
    recovery->store = store;
    const int result = recover(recovery, config->bytes_max);
    store->entries_replayed = recovery->entries;
    store->recover_ns = store->os->clock_ns(store->os) - start_ns;
    store->os->free(store->os, recovery);
    return result;
}
