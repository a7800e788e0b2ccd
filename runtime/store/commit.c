/*
 * commit.c - the committer: groups of commits, and the order in which their promises come true.
 *
 *   inbox -> group -> check -> sync the data (DURABLE) -> append -> sync the journal -> done
 *                                  law 1: bytes before the record that points at them
 *
 * The data is that of the group and that of all WRITTEN commits since it was last synced: a record
 * that is DURABLE may name blocks that were spilled with less.
 *
 * A group is what is queued when the committer looks. It waits for more only where more is to be
 * expected: the last group was larger than what is queued now, and commits keep arriving. A lone
 * commit never waits; a sync in progress gathers the next group by itself.
 *
 * FAILURES. A data sync that fails makes the segment suspect and fails the commits that name it. No
 * room for the journal fails the commits of that record; nothing was written. Anything else that
 * goes wrong with the journal fails the whole group: the file's state is unknown, so it is left for
 * a new one (checkpoint.c) that has only what was acknowledged, before anybody hears of it. If that
 * fails too, the store commits nothing any more.
 */
#include <errno.h>
#include <string.h>

#include "abode/abode.h"
#include "store/store_state.h"

#define GATHER_SLICES 8u /* of group_wait_ns; a slice without a new commit ends the wait */

/* ---- inbox ---- */

void ab_store_commit(struct ab_store *store, struct ab_commit *commit)
{
    if (store->read_only) { /* there is no committer: the caller hears it at once */
        commit->done(commit, -EROFS);
        return;
    }
    ab_lock_take(&store->inbox_lock);
    ab_list_push_back(&store->inbox, &commit->link);
    store->inbox_count++;
    store->inbox_bytes += commit->payload_bytes;
    store->inbox_durable += commit->promise == AB_PROMISE_DURABLE ? 1 : 0;
    ab_cond_signal(&store->inbox_cond);
    ab_lock_drop(&store->inbox_lock);
}

void ab_committer_kick(struct ab_store *store)
{
    ab_lock_take(&store->inbox_lock);
    store->sync_wanted = true;
    ab_cond_signal(&store->inbox_cond);
    ab_lock_drop(&store->inbox_lock);
}

void ab_store_renew(struct ab_store *store)
{
    if (store->read_only) {
        return;
    }
    ab_lock_take(&store->inbox_lock);
    store->renew_wanted = true;
    ab_cond_signal(&store->inbox_cond);
    ab_lock_drop(&store->inbox_lock);
}

/* inbox_lock held */
static void gather(struct ab_store *store)
{
    uint64_t now = store->os->clock_ns(store->os);
    const uint64_t deadline = now + store->group_wait_ns;
    while (!store->stop && now < deadline && store->inbox_count < store->group_count_last &&
           store->inbox_bytes < store->group_bytes) {
        const uint32_t before = store->inbox_count;
        (void)ab_cond_wait(&store->inbox_cond, &store->inbox_lock,
                           (int64_t)(store->group_wait_ns / GATHER_SLICES + 1));
        if (store->inbox_count == before) {
            return;
        }
        now = store->os->clock_ns(store->os);
    }
}

/* inbox_lock held */
static void group_take(struct ab_store *store)
{
    uint64_t bytes = 0;
    store->group_count = 0;
    while (store->group_count < AB_GROUP_COMMITS_MAX &&
           (store->group_count == 0 || bytes < store->group_bytes)) {
        struct ab_list *link = ab_list_pop_front(&store->inbox);
        if (link == NULL) {
            break;
        }
        struct ab_commit *commit = ab_list_entry(link, struct ab_commit, link);
        store->group[store->group_count] = commit;
        store->group_status[store->group_count++] = 0;
        store->inbox_count--;
        store->inbox_bytes -= commit->payload_bytes;
        store->inbox_durable -= commit->promise == AB_PROMISE_DURABLE ? 1 : 0;
        bytes += commit->payload_bytes;
    }
}

/* ---- checks and data syncs ---- */

static bool segment_may_be_named(const struct ab_segment *entry)
{
    return entry->state == AB_SEGMENT_OPEN || entry->state == AB_SEGMENT_SEALED ||
           entry->state == AB_SEGMENT_EMPTY || entry->state == AB_SEGMENT_BAD;
}

static int segments_check(struct ab_store *store, const struct ab_commit *commit)
{
    int result = 0;
    ab_lock_take(&store->lock);
    for (uint32_t i = 0; i < commit->segment_count && result == 0; i++) {
        const uint32_t segment = commit->segments[i];
        if (segment >= store->segment_max || !segment_may_be_named(&store->segments[segment])) {
            result = -EINVAL;
        } else if (store->segments[segment].suspect) {
            result = -EIO;
        }
    }
    ab_lock_drop(&store->lock);
    return result;
}

static int commit_check(struct ab_store *store, const struct ab_commit *commit)
{
    if (atomic_load_explicit(&store->failed, memory_order_relaxed) != 0) {
        return -EROFS;
    }
    const bool promise_is_legal =
        commit->promise == AB_PROMISE_WRITTEN || commit->promise == AB_PROMISE_DURABLE;
    if (!promise_is_legal || commit->segment_count > AB_COMMIT_SEGMENTS_MAX) {
        return -EINVAL;
    }
    if (commit->entries_size > AB_COMMIT_BYTES_MAX) {
        return -EFBIG;
    }
    if (!ab_entries_are_valid(commit->entries, commit->entries_size, false)) {
        return -EINVAL;
    }
    return segments_check(store, commit);
}

/* New files of the directory get durable names. A failure is final for the device. */
static int names_sync(struct ab_store *store, struct ab_store_dir *dir)
{
    if (atomic_load_explicit(&dir->read_only, memory_order_relaxed)) {
        return -EIO;
    }
    /* acquire: pairs with the release in ab_segment_make, before which the file got its name */
    if (!atomic_exchange_explicit(&dir->segments_dirty, false, memory_order_acquire)) {
        return 0;
    }
    const int result = store->os->fsync(store->os, dir->segments_fd);
    if (result < 0) {
        ab_count(&store->counters.sync_failures, 1);
        ab_lock_take(&store->lock);
        atomic_store_explicit(&dir->read_only, true, memory_order_relaxed);
        ab_lock_drop(&store->lock);
        ab_log(store->log, AB_LOG_ERROR,
               "store: %s/segments: sync of the directory failed (%d): the device is read-only "
               "from now on: replace the disk",
               dir->path, result);
    }
    return result;
}

/* The segment could not be opened to be synced, for now: nothing is lost by that. */
static bool is_untried(int result)
{
    return result == -EMFILE || result == -ENFILE || result == -ENOMEM;
}

static int segment_fdatasync(struct ab_store *store, uint32_t segment)
{
    const int fd = ab_store_segment_fd(store, segment);
    if (is_untried(fd)) {
        ab_log(store->log, AB_LOG_WARNING,
               "store: segment %08x cannot be opened to be synced (%s): what waits for it fails, "
               "and can be tried again",
               segment, abode_strerror(fd));
        return fd;
    }
    const int result = fd < 0 ? fd : store->os->fdatasync(store->os, fd);
    ab_count(&store->counters.data_syncs, 1);
    if (result < 0) {
        ab_count(&store->counters.sync_failures, 1);
        ab_segment_suspect(store, segment, result);
        return -EIO;
    }
    return 0;
}

static bool holds_anything(struct ab_store *store, uint32_t segment)
{
    ab_lock_take(&store->lock);
    const bool holds = store->segments[segment].live > 0 || store->segments[segment].pending > 0;
    ab_lock_drop(&store->lock);
    return holds;
}

static int segment_sync(struct ab_store *store, uint32_t segment)
{
    struct ab_segment *entry = &store->segments[segment];
    if (entry->sync_group == store->group_number) {
        return entry->sync_status;
    }
    int result = names_sync(store, ab_store_dir_of(store, segment)) < 0 ? -EIO : 0;
    result = result < 0 ? result : segment_fdatasync(store, segment);
    if (result == -EIO && entry->unsynced && holds_anything(store, segment)) {
        store->unsynced_lost = true;
    }
    entry->sync_group = store->group_number;
    entry->sync_status = result;
    return result;
}

void ab_unsynced_add(struct ab_store *store, uint32_t segment)
{
    struct ab_segment *entry = &store->segments[segment];
    if (!entry->unsynced) {
        entry->unsynced = true;
        entry->unsynced_next = store->unsynced_first;
        store->unsynced_first = segment;
    }
}

void ab_unsynced_clear(struct ab_store *store)
{
    while (store->unsynced_first != AB_INDEX_NONE) { /* ends: each round takes one off */
        struct ab_segment *entry = &store->segments[store->unsynced_first];
        store->unsynced_first = entry->unsynced_next;
        entry->unsynced = false;
    }
}

/* What is promised DURABLE may rest on blocks that were spilled WRITTEN before, for want of memory,
 * and which ones only the client knows. So all of them are synced. One that fails has lost bytes, and
 * nobody can tell any more which promise is safe. */
int ab_unsynced_sync(struct ab_store *store)
{
    const bool was_lost = store->unsynced_lost;
    uint32_t kept = AB_INDEX_NONE;
    int untried = 0;
    while (store->unsynced_first != AB_INDEX_NONE) { /* ends: each round takes one off */
        const uint32_t segment = store->unsynced_first;
        struct ab_segment *entry = &store->segments[segment];
        const int result = segment_sync(store, segment); /* unsynced_lost notes a failure */
        store->unsynced_first = entry->unsynced_next;
        entry->unsynced = is_untried(result);
        if (entry->unsynced) {
            entry->unsynced_next = kept;
            kept = segment;
            untried = result;
        }
    }
    store->unsynced_first = kept;
    if (store->unsynced_lost && !was_lost) {
        ab_log(store->log, AB_LOG_ERROR,
               "store: %s: bytes that were written before a failed sync may be lost: nothing is "
               "promised to survive a power loss any more. Look at the disk, then open again",
               store->dirs[0].path);
    }
    return store->unsynced_lost ? -EIO : untried;
}

static bool group_wants_sync(const struct ab_store *store)
{
    for (uint32_t i = 0; i < store->group_count; i++) {
        if (store->group_status[i] == 0 && store->group[i]->promise == AB_PROMISE_DURABLE) {
            return true;
        }
    }
    return false;
}

static void group_sync_data(struct ab_store *store)
{
    bool has_failed = false;
    for (uint32_t i = 0; i < store->group_count; i++) {
        const struct ab_commit *commit = store->group[i];
        for (uint32_t k = 0; commit->promise == AB_PROMISE_DURABLE && k < commit->segment_count &&
                             store->group_status[i] == 0;
             k++) {
            store->group_status[i] = segment_sync(store, commit->segments[k]);
            has_failed |= store->group_status[i] < 0;
        }
    }
    const int synced = group_wants_sync(store) ? ab_unsynced_sync(store) : 0;
    for (uint32_t i = 0; synced < 0 && i < store->group_count; i++) {
        if (store->group_status[i] == 0 && store->group[i]->promise == AB_PROMISE_DURABLE) {
            store->group_status[i] = synced;
        }
    }
    has_failed |= synced < 0;
    /* A sync that failed may have lost what a WRITTEN commit of this group named as well. */
    for (uint32_t i = 0; has_failed && i < store->group_count; i++) {
        if (store->group_status[i] == 0) {
            store->group_status[i] = segments_check(store, store->group[i]);
        }
    }
}

/* ---- appending ---- */

static bool commit_has_entries(const struct ab_store *store, uint32_t index)
{
    return store->group_status[index] == 0 && store->group[index]->entries_size > 0;
}

static size_t commit_size_max(const struct ab_commit *commit)
{
    return commit->entries_size +
           (size_t)commit->segment_count * sizeof(struct ab_disk_segment_entry);
}

/* Generations that the journal does not know yet come before the entries that rely on them. */
static size_t put_announcements(struct ab_store *store, const struct ab_commit *commit,
                                uint8_t *bytes)
{
    struct ab_disk_segment_entry *entries = (void *)bytes;
    size_t count = 0;
    ab_lock_take(&store->lock);
    for (uint32_t i = 0; i < commit->segment_count; i++) {
        const struct ab_segment *entry = &store->segments[commit->segments[i]];
        if (!entry->announced) {
            entries[count++] = (struct ab_disk_segment_entry){
                .entry = {.type = AB_ENTRY_SEGMENT, .size = sizeof(*entries)},
                .segment = commit->segments[i],
                .generation = atomic_load_explicit(&entry->generation, memory_order_relaxed),
            };
        }
    }
    ab_lock_drop(&store->lock);
    return count * sizeof(*entries);
}

static void mark_named(struct ab_store *store, uint32_t first, uint32_t end)
{
    ab_lock_take(&store->lock);
    for (uint32_t i = first; i < end; i++) {
        const struct ab_commit *commit = store->group[i];
        for (uint32_t k = 0; commit_has_entries(store, i) && k < commit->segment_count; k++) {
            struct ab_segment *entry = &store->segments[commit->segments[k]];
            entry->announced = true;
            /* WRITTEN, and not synced by others */
            if (entry->sync_group != store->group_number || entry->sync_status < 0) {
                ab_unsynced_add(store, commit->segments[k]);
            }
        }
    }
    ab_lock_drop(&store->lock);
}

/* Commits first .. end - 1 as one record. No room: nothing happened. */
static int append_range(struct ab_store *store, uint32_t first, uint32_t end)
{
    uint8_t *payload = ab_store_payload(store);
    size_t size = 0;
    uint32_t spare = 0;
    for (uint32_t i = first; i < end; i++) {
        const struct ab_commit *commit = store->group[i];
        if (commit_has_entries(store, i)) {
            size += put_announcements(store, commit, payload + size);
            memcpy(payload + size, commit->entries, commit->entries_size);
            size += commit->entries_size;
            spare = commit->segment_count > 0 ? AB_JOURNAL_SPARE : spare;
        }
    }
    if (size == 0) {
        return 0;
    }
    int result = ab_journal_reserve(&store->journal, size, spare, store->zeroes);
    if (result == 0) {
        result = ab_journal_append(&store->journal, AB_RECORD_COMMIT, store->record, size);
        result = ab_journal_no_room(result) ? -EIO : result; /* room was made: it is broken */
    }
    if (result == 0) {
        ab_checkpoint_mirror(store, AB_RECORD_COMMIT, size);
        mark_named(store, first, end);
    }
    return result;
}

/* Nothing may come behind one that has failed and that others rely on: a replay would find entries
 * that name what was never said, or not find what a later DURABLE has promised (a delete). */
static void followers_fail(struct ab_store *store, uint32_t index)
{
    const int status = store->group_status[index];
    if (status == 0 || !store->group[index]->relied_on) {
        return;
    }
    for (uint32_t i = index + 1; i < store->group_count; i++) {
        if (store->group_status[i] == 0) { /* also one without entries: it promises for others */
            store->group_status[i] = status;
        }
    }
}

/* A range that has no room: the small ones of it may have. Negative: the journal is broken. */
static int append_singly(struct ab_store *store, uint32_t first, uint32_t end)
{
    for (uint32_t i = first; i < end; i++) {
        if (!commit_has_entries(store, i)) {
            continue;
        }
        const int result = append_range(store, i, i + 1);
        if (ab_journal_no_room(result)) {
            store->group_status[i] = -ENOSPC;
            followers_fail(store, i);
        } else if (result < 0) {
            return result;
        }
    }
    return 0;
}

static int group_append(struct ab_store *store)
{
    uint32_t first = 0;
    for (uint32_t i = 0; i < store->group_count; i++) {
        followers_fail(store, i);
    }
    while (first < store->group_count) {
        uint32_t end = first;
        size_t size = 0;
        for (; end < store->group_count; end++) {
            const size_t more =
                commit_has_entries(store, end) ? commit_size_max(store->group[end]) : 0;
            if (size + more > AB_RECORD_PAYLOAD_MAX) {
                break;
            }
            size += more;
        }
        int result = append_range(store, first, end);
        if (ab_journal_no_room(result)) {
            result = append_singly(store, first, end);
        }
        if (result < 0) {
            return result;
        }
        first = end;
    }
    return 0;
}

static int journal_sync(struct ab_store *store)
{
    if (store->journal.synced < store->journal.sequence) {
        ab_count(&store->counters.journal_syncs, 1);
        const int result = ab_journal_sync(&store->journal);
        if (result < 0) {
            ab_count(&store->counters.sync_failures, 1);
            return result;
        }
    }
    /* release: reserve may use segments again whose drops this sync has made durable */
    atomic_store_explicit(&store->tick_durable,
                          atomic_load_explicit(&store->tick_appended, memory_order_relaxed),
                          memory_order_release);
    return 0;
}

/* Nobody may hear of this group, and nobody may find it later. */
static void journal_broke(struct ab_store *store, int status, uint64_t group_offset)
{
    for (uint32_t i = 0; i < store->group_count; i++) {
        store->group_status[i] = store->group_status[i] == 0 ? -EIO : store->group_status[i];
    }
    ab_log(store->log, AB_LOG_ERROR,
           "store: %s/%s: write or sync failed (%d): going on in a new journal",
           store->dirs[0].path, ab_journal_file(store->journal.name), status);
    if (ab_checkpoint_run(store) < 0) {
        ab_store_fail(store, -EIO, "neither the journal nor a new one can be written");
        /* Take the group back out of the file, as well as this disk still can. */
        (void)store->os->ftruncate(store->os, store->journal.fd, group_offset);
    }
}

/* 0, or why nothing may be committed now. */
static int journal_renew(struct ab_store *store)
{
    if (!store->is_behind || atomic_load_explicit(&store->failed, memory_order_relaxed) != 0) {
        return 0;
    }
    const int result = ab_checkpoint_run(store);
    store->is_behind = result < 0;
    return result >= 0 ? 0 : ab_journal_no_room(result) ? -ENOSPC : -EIO;
}

static void group_run(struct ab_store *store, bool sync_wanted)
{
    const int behind = journal_renew(store);
    const uint64_t offset = store->journal.offset;
    store->group_number++;
    for (uint32_t i = 0; i < store->group_count; i++) {
        store->group_status[i] = behind != 0 ? behind : commit_check(store, store->group[i]);
    }
    group_sync_data(store);
    const bool has_failed = atomic_load_explicit(&store->failed, memory_order_relaxed) != 0;
    int result = has_failed ? 0 : group_append(store);
    if (result == 0 && !has_failed) {
        /* release: whoever drops after `done` sees it, and waits for the sync that covers it */
        atomic_fetch_add_explicit(&store->tick_appended, 1, memory_order_release);
        if (sync_wanted || group_wants_sync(store)) {
            result = journal_sync(store);
        }
    }
    if (result < 0) {
        journal_broke(store, result, offset);
    }
    if (store->group_count > 0) {
        ab_count(&store->counters.groups, 1);
        ab_count(&store->counters.commits, store->group_count);
        store->group_count_last = store->group_count;
    }
    atomic_store_explicit(&store->counters.journal_bytes,
                          store->journal_bytes_before + store->journal.bytes_written,
                          memory_order_relaxed);
    atomic_store_explicit(&store->counters.journal_size, store->journal.offset,
                          memory_order_relaxed);
    AB_ASSERT_DEBUG(ab_lock_none_held());
    for (uint32_t i = 0; i < store->group_count; i++) {
        store->group[i]->done(store->group[i], store->group_status[i]);
    }
}

void ab_committer_run(void *argument)
{
    struct ab_store *store = argument;
    for (;;) {
        const bool idle = store->switching.phase == AB_SWITCH_NONE && !ab_checkpoint_is_due(store);
        ab_lock_take(&store->inbox_lock);
        while (idle && store->inbox_count == 0 && !store->sync_wanted && !store->renew_wanted &&
               !store->stop) {
            (void)ab_cond_wait(&store->inbox_cond, &store->inbox_lock, 0);
        }
        if (store->inbox_durable > 0) { /* the others have no sync to share */
            gather(store);
        }
        group_take(store);
        const bool sync_wanted = store->sync_wanted;
        store->sync_wanted = false;
        const bool renew_wanted = store->renew_wanted;
        store->is_behind |= renew_wanted;
        store->renew_wanted = false;
        const bool stop = store->stop && store->inbox_count == 0;
        ab_lock_drop(&store->inbox_lock);
        if (store->group_count > 0 || sync_wanted || renew_wanted) {
            group_run(store, sync_wanted);
        }
        if (store->switching.phase != AB_SWITCH_NONE || ab_checkpoint_is_due(store)) {
            ab_checkpoint_step(store); /* a failure is logged, and the old journal goes on */
        } else if (stop) {
            return;
        }
    }
}
