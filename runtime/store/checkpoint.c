/*
 * checkpoint.c - moving from one journal file to the other.
 *
 *   journal.a  |ckpt|--- commits ---------------------------->|         active until the flip
 *   journal.b                 |seg|cl|C|cl|C|C|cl|END|-zeroes-| sync    active from the flip on
 *                             start                             flip: superblock of directory 0
 *
 * While the new file is being written, commits go on: each record C is appended to the active file,
 * and then to the new one as well. Entries are idempotent, and what the client says between two
 * records is the state after the first of them; so replaying the new file from its start ends in
 * the same state as the old one, at every moment of the flip. A crash before the flip leaves the old
 * file whole, one after it the new one; if the superblock's write fails, either may be found, and
 * nothing more is committed by this process.
 *
 * The work is cut into steps of at most AB_STEP_BYTES between groups, synced every
 * AB_STEP_SYNC_BYTES, so that a commit never waits for more than one step or the last sync.
 *
 * The same machine, run to its end at once, is what follows when the active journal breaks: a file
 * whose write or sync failed is never appended to again.
 */
#include <errno.h>
#include <string.h>

#include "abode/abode.h"
#include "store/store_state.h"

#define AB_STEP_BYTES (1u << 20)
#define AB_STEP_SYNC_BYTES (4u << 20)
#define AB_STEP_SEGMENTS 4096u
#define AB_RETRY_BYTES \
    (4u << 20) /* tail that must come before a failed checkpoint is tried again */
#define AB_STEPS_MAX (UINT64_C(1) << 32)

_Static_assert(AB_STEP_BYTES >= AB_ENTRY_SIZE_MAX, "any entry fits a step");
_Static_assert(AB_STEP_SEGMENTS * sizeof(struct ab_disk_segment_entry) <= AB_STEP_BYTES, "fits");

static uint64_t tail_bytes(const struct ab_journal *journal)
{
    return journal->offset - AB_MAX(journal->checkpoint_bytes, AB_JOURNAL_START);
}

bool ab_checkpoint_is_due(const struct ab_store *store)
{
    const uint64_t limit = AB_MAX(store->journal_tail_min, 2 * store->journal.checkpoint_bytes);
    return atomic_load_explicit(&store->failed, memory_order_relaxed) == 0 &&
           tail_bytes(&store->journal) > AB_MAX(limit, store->switching.tail_next);
}

void ab_store_fail(struct ab_store *store, int status, const char *why)
{
    int none = 0;
    if (atomic_compare_exchange_strong_explicit(&store->failed, &none, status, memory_order_relaxed,
                                                memory_order_relaxed)) {
        ab_log(store->log, AB_LOG_ERROR,
               "store: %s: %s (%s): nothing is written any more; what was acknowledged is there "
               "at the next open. Look at the disk, then open again",
               store->dirs[0].path, why, abode_strerror(status));
    }
}

void ab_checkpoint_abort(struct ab_store *store)
{
    struct ab_switch *switching = &store->switching;
    if (switching->phase == AB_SWITCH_NONE) {
        return;
    }
    store->journal_bytes_before += switching->journal.bytes_written;
    ab_journal_close(&switching->journal);
    /* If this fails the file stays until the next checkpoint: no superblock names it. */
    (void)store->os->unlinkat(store->os, store->dirs[0].fd,
                              ab_journal_file(switching->journal.name), 0);
    switching->phase = AB_SWITCH_NONE;
    switching->tail_next = tail_bytes(&store->journal) + AB_RETRY_BYTES;
}

/* Append what is in the payload buffer to the new journal. */
static int switch_append(struct ab_store *store, enum ab_record_kind kind, size_t size)
{
    struct ab_switch *switching = &store->switching;
    int result = ab_journal_append(&switching->journal, kind, store->record, size);
    if (result < 0) {
        return result;
    }
    switching->unsynced += size;
    if (switching->unsynced >= AB_STEP_SYNC_BYTES) {
        result = ab_journal_sync(&switching->journal);
        switching->unsynced = 0;
    }
    return result;
}

/* The highest generation of each segment so far, used or not: none may ever come again. */
static int step_segments(struct ab_store *store)
{
    struct ab_switch *switching = &store->switching;
    struct ab_disk_segment_entry *entries = (void *)ab_store_payload(store);
    uint32_t count = 0;
    ab_lock_take(&store->lock);
    for (; switching->segment < store->segment_count && count < AB_STEP_SEGMENTS;
         switching->segment++) {
        const uint32_t generation = atomic_load_explicit(
            &store->segments[switching->segment].generation, memory_order_relaxed);
        if (generation != 0) {
            entries[count++] = (struct ab_disk_segment_entry){
                .entry = {.type = AB_ENTRY_SEGMENT, .size = sizeof(*entries)},
                .segment = switching->segment,
                .generation = generation,
            };
        }
    }
    const bool is_last = switching->segment >= store->segment_count;
    ab_lock_drop(&store->lock);
    switching->phase = is_last ? AB_SWITCH_CLIENT : AB_SWITCH_SEGMENTS;
    return count == 0 ? 0 : switch_append(store, AB_RECORD_CHECKPOINT, count * sizeof(*entries));
}

static int step_client(struct ab_store *store)
{
    struct ab_switch *switching = &store->switching;
    const struct ab_store_client *client = &store->client;
    const uint64_t before = switching->cursor;
    if (before == UINT64_MAX) { /* all was said at the start */
        switching->phase = AB_SWITCH_FINISH;
        return 0;
    }
    const int64_t size = client->checkpoint(client->context, &switching->cursor,
                                            ab_store_payload(store), AB_STEP_BYTES);
    if (size < 0) {
        return (int)size;
    }
    const bool is_stuck = size == 0 && switching->cursor == before;
    const bool is_legal = size <= (int64_t)AB_STEP_BYTES &&
                          ab_entries_are_valid(ab_store_payload(store), (size_t)size, false);
    AB_ASSERT(!is_stuck && is_legal);
    if (is_stuck || !is_legal) {
        return -EINVAL;
    }
    if (switching->cursor == UINT64_MAX) {
        switching->phase = AB_SWITCH_FINISH;
    }
    return size == 0 ? 0 : switch_append(store, AB_RECORD_CHECKPOINT, (size_t)size);
}

static int switch_start(struct ab_store *store)
{
    struct ab_switch *switching = &store->switching;
    const int result = ab_journal_create(&switching->journal, store->os, store->dirs[0].fd,
                                         1 - store->journal.name, store->id,
                                         store->journal.generation + 1, store->epoch);
    if (result < 0) {
        return result;
    }
    switching->phase = AB_SWITCH_SEGMENTS;
    switching->segment = 0;
    switching->cursor = 0;
    switching->unsynced = 0;
    /* Generations and the client's first part come before anything is mirrored: entries that are
     * committed from now on may rely on what they say (segments, models). */
    int said = 0;
    while (said == 0 && switching->phase == AB_SWITCH_SEGMENTS) { /* ends: each step moves on */
        said = step_segments(store);
    }
    return said == 0 ? step_client(store) : said;
}

/* From here on the new journal is the one. */
static void switch_adopt(struct ab_store *store)
{
    struct ab_switch *switching = &store->switching;
    const uint32_t old_name = store->journal.name;
    ab_count(&store->counters.checkpoint_bytes, switching->journal.checkpoint_bytes);
    store->journal_bytes_before += store->journal.bytes_written;
    ab_journal_close(&store->journal);
    store->journal = switching->journal;
    switching->journal.fd = -1;
    switching->phase = AB_SWITCH_NONE;
    switching->tail_next = 0;
    /* Only for its room; if this fails, the next checkpoint removes it. */
    (void)store->os->unlinkat(store->os, store->dirs[0].fd, ab_journal_file(old_name), 0);
    atomic_store_explicit(&store->tick_durable,
                          atomic_load_explicit(&store->tick_appended, memory_order_relaxed),
                          memory_order_release);
}

static int step_finish(struct ab_store *store)
{
    struct ab_switch *switching = &store->switching;
    struct ab_journal *journal = &switching->journal;
    int result = ab_journal_append(journal, AB_RECORD_CHECKPOINT_END, store->record, 0);
    if (result < 0) {
        return result;
    }
    journal->checkpoint_bytes = journal->offset;
    result = ab_journal_reserve(journal, 0, AB_JOURNAL_SPARE, store->zeroes);
    if (result < 0) {
        return result;
    }
    /* the next open looks behind the checkpoint only; one that fails is told, and remembered */
    result = ab_unsynced_sync(store);
    if (result < 0 && !store->unsynced_lost) {
        return result; /* it could not be tried: the old journal goes on */
    }
    result = ab_journal_sync(journal);
    if (result < 0) {
        return result;
    }
    result = store->os->fsync(store->os, store->dirs[0].fd); /* the file's name */
    if (result < 0) {
        return result;
    }
    result = ab_dirs_set_journal(store, journal);
    if (result < 0) {
        ab_store_fail(store, result, "the superblock could not be written");
        return result;
    }
    switch_adopt(store);
    return 0;
}

int ab_checkpoint_step(struct ab_store *store)
{
    struct ab_switch *switching = &store->switching;
    int result = 0;
    switch (switching->phase) {
    case AB_SWITCH_NONE:
        result = switch_start(store);
        break;
    case AB_SWITCH_SEGMENTS:
        result = step_segments(store);
        break;
    case AB_SWITCH_CLIENT:
        result = step_client(store);
        break;
    case AB_SWITCH_FINISH:
        result = step_finish(store);
        break;
    default:
        AB_ASSERT(false);
        return -EINVAL;
    }
    if (result >= 0) {
        return 0;
    }
    if (atomic_load_explicit(&store->failed, memory_order_relaxed) != 0) {
        ab_journal_close(&switching->journal); /* the superblock may name either: both files stay */
        switching->phase = AB_SWITCH_NONE;
        return result;
    }
    ab_checkpoint_abort(store);
    switching->tail_next = tail_bytes(&store->journal) + AB_RETRY_BYTES;
    ab_log(store->log, AB_LOG_WARNING,
           "store: %s: a checkpoint could not be written (%s): the journal goes on and gets longer",
           store->dirs[0].path, abode_strerror(result));
    return result;
}

int ab_checkpoint_run(struct ab_store *store)
{
    ab_checkpoint_abort(store);
    for (uint64_t i = 0; i < AB_STEPS_MAX; i++) {
        const int result = ab_checkpoint_step(store);
        if (result < 0) {
            return result;
        }
        if (store->switching.phase == AB_SWITCH_NONE) {
            return 0;
        }
    }
    return -EOVERFLOW;
}

void ab_checkpoint_mirror(struct ab_store *store, enum ab_record_kind kind, size_t size)
{
    if (store->switching.phase == AB_SWITCH_NONE) {
        return;
    }
    const int result = switch_append(store, kind, size);
    if (result < 0) {
        ab_checkpoint_abort(store); /* the active journal has the record: nothing is lost */
        ab_log(store->log, AB_LOG_WARNING,
               "store: %s: a checkpoint could not be written (%s): the journal goes on and gets "
               "longer",
               store->dirs[0].path, abode_strerror(result));
    }
}
