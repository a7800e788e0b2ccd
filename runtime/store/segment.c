/*
 * segment.c - states of segments, their lists, and the counts of pages that decide them.
 *
 *   NONE -> MAKING -> FREE -> OPEN -> SEALED -> EMPTY -> FREE (generation + 1) ...
 *                                        \
 *                                         BAD (a sync failed, the file is missing)
 *
 * A page that was handed out is pending until it is published (live) or abandoned, live until it is
 * dropped. A sealed segment without either is EMPTY; it may be written again only when the journal
 * has been synced after the last drop (law 2): else a crash could bring back entries that name bytes
 * which are no longer there. Ticks count groups: a drop follows the `done` of the commit that said
 * so, hence the number of groups appended so far covers it.
 *
 * Everything here runs under store->lock, but for ab_segment_suspect and the public calls, which
 * take it.
 */
#include <errno.h>

#include "abode/abode.h"
#include "store/store_state.h"

void ab_segment_state_set(struct ab_store *store, uint32_t segment, enum ab_segment_state state)
{
    struct ab_segment *entry = &store->segments[segment];
    store->state_counts[entry->state]--;
    store->state_counts[state]++;
    entry->state = (uint8_t)state;
}

/* ---- free and empty lists ---- */

void ab_segment_free_push(struct ab_store *store, uint32_t segment)
{
    struct ab_segment *entry = &store->segments[segment];
    struct ab_store_dir *dir = ab_store_dir_of(store, segment);
    uint32_t *first = entry->prepared ? &dir->ready_first : &dir->plain_first;
    uint32_t *count = entry->prepared ? &dir->ready_count : &dir->plain_count;
    ab_segment_state_set(store, segment, AB_SEGMENT_FREE);
    entry->next = *first;
    *first = segment;
    (*count)++;
}

uint32_t ab_segment_free_pop(struct ab_store *store, struct ab_store_dir *dir, bool plain_only)
{
    for (;;) { /* ends: each round takes one off */
        const bool ready = !plain_only && dir->ready_count > 0;
        uint32_t *first = ready ? &dir->ready_first : &dir->plain_first;
        uint32_t *count = ready ? &dir->ready_count : &dir->plain_count;
        const uint32_t segment = *first;
        if (segment == AB_INDEX_NONE) {
            return segment;
        }
        *first = store->segments[segment].next;
        (*count)--;
        if (!store->segments[segment].suspect) {
            return segment;
        }
        ab_segment_state_set(store, segment, AB_SEGMENT_BAD); /* its sync failed when it was free */
    }
}

static void empty_push(struct ab_store *store, uint32_t segment)
{
    struct ab_segment *entry = &store->segments[segment];
    struct ab_store_dir *dir = ab_store_dir_of(store, segment);
    ab_segment_state_set(store, segment, AB_SEGMENT_EMPTY);
    entry->empty_tick = atomic_load_explicit(&store->tick_appended, memory_order_acquire);
    entry->next = AB_INDEX_NONE;
    if (store->empty_last == AB_INDEX_NONE) {
        store->empty_first = segment;
    } else {
        store->segments[store->empty_last].next = segment;
    }
    store->empty_last = segment;
    dir->empty_count++;
    if (dir->ready_count + dir->plain_count < AB_FREE_LOW) {
        ab_committer_kick(store);
    }
}

void ab_segments_reclaim(struct ab_store *store)
{
    const uint64_t durable = atomic_load_explicit(&store->tick_durable, memory_order_acquire);
    while (store->empty_first != AB_INDEX_NONE) { /* ticks never fall along the list */
        const uint32_t segment = store->empty_first;
        struct ab_segment *entry = &store->segments[segment];
        if (entry->empty_tick > durable) {
            return;
        }
        store->empty_first = entry->next;
        if (store->empty_first == AB_INDEX_NONE) {
            store->empty_last = AB_INDEX_NONE;
        }
        ab_store_dir_of(store, segment)->empty_count--;
        const bool is_worn = /* 4 billion lives */
            atomic_load_explicit(&entry->generation, memory_order_relaxed) == UINT32_MAX;
        if (is_worn || entry->suspect) {
            ab_segment_state_set(store, segment, AB_SEGMENT_BAD);
        } else {
            ab_segment_free_push(store, segment);
        }
    }
}

uint32_t ab_segments_kept(const struct ab_store_dir *dir)
{
    const uint32_t kept = dir->existing_max > 1 ? AB_FREE_KEPT : 0;
    return kept + (dir->existing > dir->existing_max ? 1 : 0); /* one was lent, it is owed */
}

uint32_t ab_segment_claim(struct ab_store *store, struct ab_store_dir *dir, bool over)
{
    const uint32_t index = (uint32_t)(dir - store->dirs);
    if (dir->existing >= dir->existing_max + (over ? 1 : 0)) {
        return AB_INDEX_NONE;
    }
    for (;; dir->place_next++) { /* ends at segment_max */
        const uint64_t segment = (uint64_t)dir->place_next * store->dir_count + index;
        if (segment >= store->segment_max) {
            return AB_INDEX_NONE;
        }
        if (store->segments[segment].state == AB_SEGMENT_NONE) {
            ab_segment_state_set(store, (uint32_t)segment, AB_SEGMENT_MAKING);
            store->segment_count = AB_MAX(store->segment_count, (uint32_t)segment + 1);
            dir->existing++;
            return (uint32_t)segment;
        }
    }
}

/* ---- pages ---- */

static bool segment_is_idle(const struct ab_segment *entry)
{
    return entry->live == 0 && entry->pending == 0;
}

static void open_forget(struct ab_store *store, uint32_t segment)
{
    struct ab_store_dir *dir = ab_store_dir_of(store, segment);
    uint32_t *open = dir->open[store->segments[segment].stream];
    for (uint32_t i = 0; i < AB_OPEN_PER_STREAM; i++) {
        if (open[i] == segment) {
            open[i] = AB_INDEX_NONE;
        }
    }
}

void ab_segment_seal(struct ab_store *store, uint32_t segment)
{
    open_forget(store, segment);
    ab_segment_state_set(store, segment, AB_SEGMENT_SEALED);
    if (segment_is_idle(&store->segments[segment])) {
        empty_push(store, segment);
    }
}

/* pages of it went away: is it the end of this life? */
static void segment_settle(struct ab_store *store, uint32_t segment)
{
    struct ab_segment *entry = &store->segments[segment];
    if (!segment_is_idle(entry)) {
        return;
    }
    if (entry->state == AB_SEGMENT_SEALED) {
        empty_push(store, segment);
    } else if (entry->state == AB_SEGMENT_OPEN && entry->used > store->segment_pages / 2) {
        ab_segment_seal(store, segment); /* more is dead in it than is left */
    }
}

static bool slot_is_inside(const struct ab_store *store, struct ab_slot slot, uint32_t pages)
{
    return slot.segment < store->segment_max && slot.page >= 1 && pages >= 1 &&
           slot.page < store->segment_pages && pages <= store->segment_pages - slot.page;
}

/* Taking pages that are not there would free bytes that are live: the segment is left alone. */
static bool pages_take(uint32_t *count, uint32_t pages)
{
    AB_ASSERT(*count >= pages);
    if (*count < pages) {
        return false;
    }
    *count -= pages;
    return true;
}

static bool slot_check(const struct ab_store *store, struct ab_slot slot, uint32_t pages)
{
    const bool is_inside = slot_is_inside(store, slot, pages);
    AB_ASSERT(is_inside);
    return is_inside;
}

void ab_store_publish(struct ab_store *store, struct ab_slot slot, uint32_t pages)
{
    if (!slot_check(store, slot, pages)) {
        return;
    }
    ab_lock_take(&store->lock);
    struct ab_segment *entry = &store->segments[slot.segment];
    if (pages_take(&entry->pending, pages)) {
        entry->live += pages;
        ab_store_dir_of(store, slot.segment)->pages_live += pages;
    }
    ab_lock_drop(&store->lock);
}

void ab_store_abandon(struct ab_store *store, struct ab_slot slot, uint32_t pages)
{
    if (!slot_check(store, slot, pages)) {
        return;
    }
    ab_lock_take(&store->lock);
    if (pages_take(&store->segments[slot.segment].pending, pages)) {
        segment_settle(store, slot.segment);
    }
    ab_lock_drop(&store->lock);
}

void ab_store_drop(struct ab_store *store, struct ab_slot slot, uint32_t pages)
{
    if (!slot_check(store, slot, pages)) {
        return;
    }
    ab_lock_take(&store->lock);
    if (pages_take(&store->segments[slot.segment].live, pages)) {
        ab_store_dir_of(store, slot.segment)->pages_live -= pages;
        segment_settle(store, slot.segment);
    }
    ab_lock_drop(&store->lock);
}

int ab_store_slot_restore(struct ab_store *store, struct ab_slot slot, uint32_t pages,
                          uint32_t generation)
{
    if (slot.segment >= store->segment_max && slot.segment < AB_STORE_SEGMENTS_MAX) {
        return -ENOENT;
    }
    if (!slot_is_inside(store, slot, pages)) {
        return -ABODE_ECORRUPT;
    }
    ab_lock_take(&store->lock);
    struct ab_segment *entry = &store->segments[slot.segment];
    int result = entry->present ? -ABODE_ECORRUPT : -ENOENT;
    if (entry->present && generation != 0 &&
        atomic_load_explicit(&entry->generation, memory_order_relaxed) == generation &&
        pages <= store->segment_pages - entry->live) {
        entry->live += pages;
        ab_store_dir_of(store, slot.segment)->pages_live += pages;
        if (store->replays_commits) { /* a process that was killed may not have come to it */
            ab_unsynced_add(store, slot.segment);
        }
        result = 0;
    }
    ab_lock_drop(&store->lock);
    return result;
}

/* ---- trouble ---- */

void ab_segment_suspect(struct ab_store *store, uint32_t segment, int status)
{
    struct ab_store_dir *dir = ab_store_dir_of(store, segment);
    ab_lock_take(&store->lock);
    struct ab_segment *entry = &store->segments[segment];
    if (entry->state == AB_SEGMENT_OPEN) {
        open_forget(store, segment);
    }
    if (entry->state == AB_SEGMENT_OPEN || entry->state == AB_SEGMENT_SEALED) {
        ab_segment_state_set(store, segment, AB_SEGMENT_BAD);
    } /* an empty or free one becomes bad where it leaves its list */
    dir->bad_count += entry->suspect ? 0 : 1;
    entry->suspect = true;
    const bool device_is_bad = dir->bad_count >= 2;
    if (device_is_bad) {
        atomic_store_explicit(&dir->read_only, true, memory_order_relaxed);
    }
    ab_lock_drop(&store->lock);
    ab_log(store->log, AB_LOG_ERROR,
           "store: %s/segments/%08x: sync failed (%s): no more is written to it%s", dir->path,
           segment, abode_strerror(status),
           device_is_bad ? "; it is the second on this device, which is read-only from now on: "
                           "replace the disk"
                         : "");
}

/* ---- compaction ---- */

/* Free segments, and those that will be, beyond what is kept back. */
static bool room_is_short(struct ab_store *store)
{
    const uint64_t now = store->os->clock_ns(store->os);
    uint64_t possible = 0, at_hand = 0, kept = 0;
    for (uint32_t i = 0; i < store->dir_count; i++) {
        const struct ab_store_dir *dir = &store->dirs[i];
        possible += dir->existing_max;
        kept += ab_segments_kept(dir);
        at_hand += dir->ready_count + dir->plain_count + dir->empty_count;
        at_hand += now < dir->retry_ns /* the disk has no room for them */
                       ? 0
                       : dir->existing_max - AB_MIN(dir->existing, dir->existing_max);
    }
    return at_hand <= kept + AB_MAX(possible / 16, (uint64_t)store->dir_count * 2);
}

static bool can_be_emptied(const struct ab_segment *entry, bool must)
{
    const bool is_open = entry->state == AB_SEGMENT_OPEN && entry->stream != AB_STREAM_COMPACT;
    return entry->pending == 0 && entry->live > 0 &&
           (entry->state == AB_SEGMENT_SEALED || (must && is_open));
}

uint32_t ab_store_compaction_pick(struct ab_store *store, uint32_t percent, bool must)
{
    uint32_t best = AB_INDEX_NONE;
    ab_lock_take(&store->lock);
    const bool wanted = !store->read_only && (must || room_is_short(store));
    uint64_t best_dead = (uint64_t)store->segment_pages * (100 - AB_MIN(percent, 100u)) / 100;
    for (uint32_t i = 0; wanted && i < store->segment_count; i++) {
        const struct ab_segment *entry = &store->segments[i];
        const uint32_t reach =
            entry->state == AB_SEGMENT_SEALED ? store->segment_pages : entry->used;
        if (can_be_emptied(entry, must) && entry->live != entry->left &&
            reach - entry->live > best_dead) {
            best = i;
            best_dead = reach - entry->live;
        }
    }
    if (best != AB_INDEX_NONE && store->segments[best].state == AB_SEGMENT_OPEN) {
        ab_segment_seal(store, best);
    }
    for (uint32_t i = 0; best == AB_INDEX_NONE && must && i < store->segment_count; i++) {
        store->segments[i].left = 0; /* all has been tried: whoever asks next may try again */
    }
    ab_lock_drop(&store->lock);
    return best;
}

bool ab_store_compaction_take(struct ab_store *store, uint32_t segment)
{
    ab_lock_take(&store->lock);
    const struct ab_segment *entry = &store->segments[segment];
    const bool can = can_be_emptied(entry, true) && entry->live != entry->left;
    if (can && entry->state == AB_SEGMENT_OPEN) {
        ab_segment_seal(store, segment);
    }
    ab_lock_drop(&store->lock);
    return can;
}

void ab_store_compaction_end(struct ab_store *store, uint32_t segment)
{
    ab_lock_take(&store->lock);
    store->segments[segment].left = store->segments[segment].live;
    ab_lock_drop(&store->lock);
}
