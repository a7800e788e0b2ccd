/*
 * store.c - opening and closing, and the questions that need no other file.
 */
#include "store/store.h"

#include <errno.h>
#include <string.h>

#include "abode/abode.h"
#include "store/store_state.h"

#define GROUP_BYTES_DEFAULT (16u << 20)
#define GROUP_WAIT_NS_DEFAULT 2000000u
#define RECORD_BYTES (sizeof(struct ab_disk_record) + AB_RECORD_PAYLOAD_MAX)

static int config_check(const struct ab_store_config *config)
{
    const bool segment_is_legal =
        config->segment_bytes == 0 || (config->segment_bytes % AB_SEGMENT_STEP == 0 &&
                                       config->segment_bytes <= AB_SEGMENT_BYTES_MAX);
    const bool paths_are_legal = config->paths != NULL && config->path_count >= 1 &&
                                 config->path_count <= AB_STORE_DEVICES_MAX;
    if (!segment_is_legal || !paths_are_legal || config->client.replay == NULL ||
        (!config->read_only && config->client.checkpoint == NULL)) {
        return -EINVAL;
    }
    for (uint32_t i = 0; i < config->path_count; i++) {
        if (config->paths[i] == NULL || config->paths[i][0] == '\0') {
            return -EINVAL;
        }
    }
    return 0;
}

static int locks_make(struct ab_store *store)
{
    int result = ab_lock_init(&store->lock, AB_RANK_STORE, "store");
    if (result < 0) {
        return result;
    }
    result = ab_lock_init(&store->inbox_lock, AB_RANK_COMMIT, "commit inbox");
    if (result < 0) {
        goto lock;
    }
    result = ab_cond_init(&store->prepare_cond);
    if (result < 0) {
        goto inbox_lock;
    }
    result = ab_cond_init(&store->inbox_cond);
    if (result < 0) {
        goto prepare_cond;
    }
    return 0;
prepare_cond:
    ab_cond_destroy(&store->prepare_cond);
inbox_lock:
    ab_lock_destroy(&store->inbox_lock);
lock:
    ab_lock_destroy(&store->lock);
    return result;
}

static int threads_start(struct ab_store *store)
{
    const int result = ab_thread_start(store->os, store->topology, -1, "abode-commit", NULL,
                                       ab_committer_run, store, &store->committer);
    if (result < 0) {
        return result;
    }
    return ab_thread_start(store->os, store->topology, -1, "abode-prepare", NULL, ab_preparer_run,
                           store, &store->preparer);
}

static void threads_stop(struct ab_store *store)
{
    if (store->preparer != NULL) {
        ab_lock_take(&store->lock);
        store->prepare_stop = true;
        ab_cond_signal(&store->prepare_cond);
        ab_lock_drop(&store->lock);
        ab_thread_join(store->preparer);
        store->preparer = NULL;
    }
    if (store->committer != NULL) {
        ab_lock_take(&store->inbox_lock);
        store->stop = true;
        ab_cond_signal(&store->inbox_cond);
        ab_lock_drop(&store->inbox_lock);
        ab_thread_join(store->committer);
        store->committer = NULL;
    }
}

/* Lazily: the zeroes are never written, so they never become memory. */
static int buffers_make(struct ab_store *store)
{
    void *memory = NULL;
    int result = ab_os_map_lazy(store->os, RECORD_BYTES, &memory);
    if (result < 0) {
        return result;
    }
    store->record = memory;
    result = ab_os_map_lazy(store->os, AB_JOURNAL_GROW, &memory);
    if (result < 0) {
        return result;
    }
    store->zeroes = memory;
    return 0;
}

static void map_free(const struct ab_os *os, void *memory, size_t bytes)
{
    if (memory != NULL) {
        (void)os->munmap(os, memory, ab_align_up(bytes, AB_PAGE)); /* nothing could be done */
    }
}

static void segments_free(struct ab_store *store)
{
    if (store->segments == NULL) {
        return;
    }
    for (uint32_t i = 0; i < store->segment_count; i++) {
        const int32_t fd = atomic_load_explicit(&store->segments[i].fd, memory_order_relaxed);
        if (fd != 0) {
            (void)store->os->close(store->os, fd - 1); /* what matters was synced */
        }
    }
    map_free(store->os, store->segments, store->segment_max * sizeof(*store->segments));
}

/* What the client committed when it had recovered, and no committer came to it. */
static void inbox_refuse(struct ab_store *store)
{
    for (struct ab_list *link = ab_list_pop_front(&store->inbox); link != NULL;
         link = ab_list_pop_front(&store->inbox)) {
        struct ab_commit *commit = ab_list_entry(link, struct ab_commit, link);
        commit->done(commit, -EIO);
    }
}

static void store_free(struct ab_store *store)
{
    const struct ab_os *os = store->os;
    threads_stop(store);
    inbox_refuse(store);
    ab_journal_close(&store->journal);
    ab_journal_close(&store->switching.journal);
    segments_free(store);
    ab_dirs_close(store);
    map_free(os, store->record, RECORD_BYTES);
    map_free(os, store->zeroes, AB_JOURNAL_GROW);
    ab_cond_destroy(&store->inbox_cond);
    ab_cond_destroy(&store->prepare_cond);
    ab_lock_destroy(&store->inbox_lock);
    ab_lock_destroy(&store->lock);
    os->free(os, store);
}

static int store_begin(struct ab_store *store, const struct ab_store_config *config)
{
    int result = ab_dirs_open(store, config);
    result = result < 0 ? result : ab_store_recover(store, config);
    if (result >= 0 && store->client.recovered != NULL) {
        result = store->client.recovered(store->client.context, store);
    }
    if (result < 0 || store->read_only) {
        return result;
    }
    result = buffers_make(store);
    return result < 0 ? result : threads_start(store);
}

int ab_store_open(const struct ab_store_config *config, struct ab_store **ret)
{
    int result = config_check(config);
    if (result < 0) {
        return result;
    }
    const struct ab_os *os = config->os;
    struct ab_store *store = os->alloc(os, sizeof(*store), _Alignof(struct ab_store));
    if (store == NULL) {
        return -ENOMEM;
    }
    store->os = os;
    store->log = config->log;
    store->topology = config->topology;
    store->client = config->client;
    store->read_only = config->read_only;
    store->group_bytes = config->group_bytes == 0 ? GROUP_BYTES_DEFAULT : config->group_bytes;
    store->group_wait_ns =
        config->group_wait_ns == 0 ? GROUP_WAIT_NS_DEFAULT : config->group_wait_ns;
    store->journal_tail_min =
        config->journal_tail_min == 0 ? AB_JOURNAL_TAIL_MIN : config->journal_tail_min;
    store->journal.fd = -1;
    store->switching.journal.fd = -1;
    store->unsynced_first = AB_INDEX_NONE;
    store->group_number = 1; /* no segment has been synced for it */
    ab_list_init(&store->inbox);
    result = locks_make(store);
    if (result < 0) {
        os->free(os, store);
        return result;
    }
    result = store_begin(store, config);
    if (result < 0) {
        store_free(store);
        return result;
    }
    *ret = store;
    return 0;
}

/* How far the open segments are filled: the next open goes on there. Only a service to it. */
static int close_record(struct ab_store *store)
{
    struct ab_disk_segment_entry *entries = (void *)ab_store_payload(store);
    size_t count = 0;
    for (uint32_t i = 0; i < store->dir_count; i++) {
        for (uint32_t k = 0; k < AB_STREAM_COUNT * AB_OPEN_PER_STREAM; k++) {
            const uint32_t stream = k / AB_OPEN_PER_STREAM;
            const uint32_t segment = store->dirs[i].open[stream][k % AB_OPEN_PER_STREAM];
            if (segment == AB_INDEX_NONE) {
                continue;
            }
            const struct ab_segment *entry = &store->segments[segment];
            entries[count++] = (struct ab_disk_segment_entry){
                .entry = {.type = AB_ENTRY_SEGMENT, .size = sizeof(*entries)},
                .segment = segment,
                .generation = atomic_load_explicit(&entry->generation, memory_order_relaxed),
                .used_pages = entry->used,
                .stream = stream,
            };
        }
    }
    const size_t size = count * sizeof(*entries);
    int result = ab_journal_reserve(&store->journal, size, 0, store->zeroes);
    result = result < 0 ? result
                        : ab_journal_append(&store->journal, AB_RECORD_CLOSE, store->record, size);
    result = result < 0 ? result : ab_journal_sync(&store->journal);
    return result < 0 ? result : ab_dirs_set_journal(store, &store->journal);
}

void ab_store_close(struct ab_store *store)
{
    if (store == NULL) {
        return;
    }
    threads_stop(store);
    if (!store->read_only && atomic_load_explicit(&store->failed, memory_order_relaxed) == 0) {
        store->group_number++; /* what this group has synced is synced */
        int result = ab_unsynced_sync(store);
        result = result < 0 ? result : close_record(store);
        if (result < 0) {
            ab_log(store->log, AB_LOG_WARNING,
                   "store: %s: not closed cleanly (%s): the next open is as after a crash; what "
                   "was acknowledged is there",
                   store->dirs[0].path, abode_strerror(result));
        }
    }
    store_free(store);
}

/* ---- questions ---- */

uint32_t ab_store_device_count(const struct ab_store *store)
{
    return store->dir_count;
}

struct ab_store_device ab_store_device(struct ab_store *store, uint32_t device)
{
    AB_ASSERT(device < store->dir_count);
    const struct ab_store_dir *dir = &store->dirs[AB_MIN(device, store->dir_count - 1)];
    ab_lock_take(&store->lock);
    const uint64_t existing = AB_MAX(dir->existing, dir->existing_max);
    const uint64_t kept = ab_segments_kept(dir);
    const uint64_t all_free =
        dir->ready_count + dir->plain_count + dir->empty_count + (existing - dir->existing);
    const uint64_t free_count = all_free - AB_MIN(all_free, kept); /* the rest is compaction's */
    const struct ab_store_device facts = {
        .path = dir->path,
        .device = dir->device,
        .node = dir->node,
        .direct_io = dir->direct_io,
        .direct_io_reason = dir->direct_io_reason,
        .io_align = dir->io_align,
        .read_only = store->read_only || dir->read_only,
        .bytes_total = existing * store->segment_bytes,
        .bytes_live = dir->pages_live * AB_PAGE,
        .bytes_free = free_count * store->segment_bytes,
    };
    ab_lock_drop(&store->lock);
    return facts;
}

int ab_store_probe_fd(const struct ab_store *store, uint32_t device)
{
    return device < store->dir_count ? store->dirs[device].probe_fd : -EINVAL;
}

uint32_t ab_store_segment_count(const struct ab_store *store)
{
    struct ab_store *mutable = (struct ab_store *)(uintptr_t)store; /* for the lock only */
    ab_lock_take(&mutable->lock);
    const uint32_t count = store->segment_count;
    ab_lock_drop(&mutable->lock);
    return count;
}

uint32_t ab_store_segment_bytes(const struct ab_store *store)
{
    return store->segment_bytes;
}

uint32_t ab_store_slot_device(const struct ab_store *store, uint32_t segment)
{
    return segment % store->dir_count;
}

uint32_t ab_store_generation(const struct ab_store *store, uint32_t segment)
{
    if (segment >= store->segment_max) {
        return 0;
    }
    return atomic_load_explicit(&store->segments[segment].generation, memory_order_relaxed);
}

uint64_t ab_store_seed(const struct ab_store *store, struct ab_slot slot, uint32_t generation)
{
    struct {
        uint8_t store_id[AB_STORE_ID_BYTES];
        uint32_t segment, page, generation, zero;
    } place = {.segment = slot.segment, .page = slot.page, .generation = generation};
    _Static_assert(sizeof(place) == 32, "no padding: every byte is hashed");
    memcpy(place.store_id, store->id, sizeof(place.store_id));
    return ab_hash64(&place, sizeof(place), 0);
}

void ab_store_header_fill(const struct ab_store *store, const struct ab_extent *extent,
                          const struct ab_extent_item *items, uint32_t count, void *page)
{
    AB_ASSERT(count <= AB_EXTENT_ITEMS_MAX);
    struct ab_disk_extent header = {
        .magic = AB_EXTENT_MAGIC,
        .version = AB_DISK_VERSION,
        .segment = extent->header.segment,
        .generation = extent->generation,
        .page = extent->header.page,
        .page_count = extent->page_count,
        .item_count = AB_MIN(count, AB_EXTENT_ITEMS_MAX),
    };
    memcpy(header.store_id, store->id, sizeof(header.store_id));
    memcpy(header.items, items, header.item_count * sizeof(*items));
    header.hash = ab_hash64((const uint8_t *)&header + sizeof(header.hash),
                            sizeof(header) - sizeof(header.hash),
                            ab_store_seed(store, extent->header, extent->generation));
    memcpy(page, &header, sizeof(header));
}

static uint64_t counter_get(_Atomic uint64_t *counter)
{
    return atomic_load_explicit(counter, memory_order_relaxed);
}

struct ab_store_stats ab_store_stats(struct ab_store *store)
{
    struct ab_store_counters *counters = &store->counters;
    struct ab_store_stats stats = {
        .journal_bytes = counter_get(&counters->journal_bytes),
        .checkpoint_bytes = counter_get(&counters->checkpoint_bytes),
        .prepared_bytes = counter_get(&counters->prepared_bytes),
        .commits = counter_get(&counters->commits),
        .groups = counter_get(&counters->groups),
        .data_syncs = counter_get(&counters->data_syncs),
        .journal_syncs = counter_get(&counters->journal_syncs),
        .sync_failures = counter_get(&counters->sync_failures),
        .journal_size = counter_get(&counters->journal_size),
        .entries_replayed = store->entries_replayed,
        .recover_ns = store->recover_ns,
        .epoch = store->epoch,
    };
    ab_lock_take(&store->lock);
    stats.segments_free =
        store->state_counts[AB_SEGMENT_FREE] + store->state_counts[AB_SEGMENT_EMPTY];
    stats.segments_open = store->state_counts[AB_SEGMENT_OPEN];
    stats.segments_sealed = store->state_counts[AB_SEGMENT_SEALED];
    stats.segments_suspect = store->state_counts[AB_SEGMENT_BAD];
    for (uint32_t i = 0; i < store->dir_count; i++) {
        const struct ab_store_dir *dir = &store->dirs[i];
        stats.pages_live += dir->pages_live;
        stats.pages_total +=
            (uint64_t)AB_MAX(dir->existing, dir->existing_max) * store->segment_pages;
    }
    stats.metadata_bytes = sizeof(*store) +
                           (uint64_t)store->segment_count * sizeof(*store->segments) +
                           (store->read_only ? 0 : RECORD_BYTES);
    ab_lock_drop(&store->lock);
    return stats;
}
