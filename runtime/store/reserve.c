/*
 * reserve.c - places for extents.
 *
 * Each directory has, for each stream, up to two open segments: an extent goes into the fullest one
 * that it fits. Where none fits, a free segment is opened, and the one with the least room left is
 * sealed if both places are taken: what is lost at the end of a segment is then less than the
 * smallest extent that comes along, not half of the largest. Directories take turns extent by
 * extent (striping); those near the wanted node come first.
 *
 * Nothing here waits: a free segment is taken, or a file is made and allocated (one or two system
 * calls, with the lock dropped), or another stream's open segment lends its room, or the store is
 * full.
 *
 * The last free segment of a directory is compaction's: it can then always move what is live out of
 * a half-dead one, and so give back more than it took. README.md says why that is enough.
 */
#include <errno.h>

#include "store/store_state.h"

#define GROW_ATTEMPTS_MAX 3 /* one is kept back, another thread may take what we made */

struct request {
    enum ab_stream stream;
    int32_t node;
    uint32_t pages; /* header included */
};

static uint32_t room_of(const struct ab_store *store, uint32_t segment)
{
    return segment == AB_INDEX_NONE ? 0 : store->segment_pages - store->segments[segment].used;
}

/* the fullest open segment of the stream that the extent fits */
static uint32_t open_pick(const struct ab_store *store, const struct ab_store_dir *dir,
                          uint32_t stream, uint32_t pages)
{
    uint32_t best = AB_INDEX_NONE;
    for (uint32_t i = 0; i < AB_OPEN_PER_STREAM; i++) {
        const uint32_t segment = dir->open[stream][i];
        const uint32_t room = room_of(store, segment);
        if (room >= pages && (best == AB_INDEX_NONE || room < room_of(store, best))) {
            best = segment;
        }
    }
    return best;
}

/* a free segment begins its next life */
static void open_begin(struct ab_store *store, struct ab_store_dir *dir, uint32_t stream,
                       uint32_t segment)
{
    uint32_t *slot = &dir->open[stream][0];
    for (uint32_t i = 1; i < AB_OPEN_PER_STREAM; i++) {
        if (room_of(store, dir->open[stream][i]) < room_of(store, *slot)) {
            slot = &dir->open[stream][i];
        }
    }
    if (*slot != AB_INDEX_NONE) {
        ab_segment_seal(store, *slot); /* clears the slot */
    }
    struct ab_segment *entry = &store->segments[segment];
    const uint32_t last = atomic_load_explicit(&entry->generation, memory_order_relaxed);
    atomic_store_explicit(&entry->generation, AB_MAX(last + 1, store->generation_floor),
                          memory_order_relaxed);
    AB_ASSERT(entry->live == 0 && entry->pending == 0);
    entry->used = 1; /* after the header page */
    entry->left = 0;
    entry->stream = (uint8_t)stream;
    entry->announced = false;
    entry->prepared = true; /* when it is free again, its pages will have been written */
    ab_segment_state_set(store, segment, AB_SEGMENT_OPEN);
    *slot = segment;
}

static bool may_take_free(const struct ab_store_dir *dir, enum ab_stream stream)
{
    const uint32_t kept = stream == AB_STREAM_COMPACT ? 0 : ab_segments_kept(dir);
    return dir->ready_count + dir->plain_count > kept;
}

/* In one directory, without making a file. */
static int take_here(struct ab_store *store, struct ab_store_dir *dir,
                     const struct request *request, uint32_t *ret_segment)
{
    uint32_t segment = open_pick(store, dir, request->stream, request->pages);
    if (segment == AB_INDEX_NONE) {
        if (!may_take_free(dir, request->stream)) {
            return -ENOSPC;
        }
        segment = ab_segment_free_pop(store, dir, false);
        if (segment == AB_INDEX_NONE) {
            return -ENOSPC;
        }
        open_begin(store, dir, request->stream, segment);
        dir->busy = true;
        store->prepare_wanted = true;
        ab_cond_signal(&store->prepare_cond);
    }
    *ret_segment = segment;
    return 0;
}

static int take_or_grow(struct ab_store *store, struct ab_store_dir *dir,
                        const struct request *request, uint32_t *ret_segment)
{
    int result = take_here(store, dir, request, ret_segment);
    for (uint32_t i = 0; result == -ENOSPC && i < GROW_ATTEMPTS_MAX; i++) {
        result = ab_segment_grow(store, dir, false);
        if (result == 0) {
            result = take_here(store, dir, request, ret_segment);
        }
    }
    return result;
}

/* Compaction's open segments lend their room only while a free one is there for it: what it has
 * begun to move must find a place. */
static bool lends(const struct ab_store_dir *dir, uint32_t stream)
{
    return stream != AB_STREAM_COMPACT || dir->ready_count + dir->plain_count > 0;
}

/* Any open segment with room, whatever its stream: better mixed than full. */
static uint32_t borrow(const struct ab_store *store, uint32_t pages)
{
    for (uint32_t i = 0; i < store->dir_count; i++) {
        const struct ab_store_dir *dir = &store->dirs[i];
        for (uint32_t stream = 0; !dir->read_only && stream < AB_STREAM_COUNT; stream++) {
            const uint32_t segment =
                lends(dir, stream) ? open_pick(store, dir, stream, pages) : AB_INDEX_NONE;
            if (segment != AB_INDEX_NONE) {
                return segment;
            }
        }
    }
    return AB_INDEX_NONE;
}

/* Compaction fills what it has begun before it opens another, in whichever directory. */
static uint32_t compaction_open_pick(const struct ab_store *store, uint32_t pages)
{
    uint32_t best = AB_INDEX_NONE;
    for (uint32_t i = 0; i < store->dir_count; i++) {
        const struct ab_store_dir *dir = &store->dirs[i];
        const uint32_t segment =
            dir->read_only ? AB_INDEX_NONE : open_pick(store, dir, AB_STREAM_COMPACT, pages);
        if (segment != AB_INDEX_NONE &&
            (best == AB_INDEX_NONE || room_of(store, segment) < room_of(store, best))) {
            best = segment;
        }
    }
    return best;
}

/* A crash in the middle of a compaction seals the segment that it had taken, and then none may be
 * left: one more file than the limit gets it going again. */
static int take_over_limit(struct ab_store *store, const struct request *request,
                           uint32_t *ret_segment)
{
    int result = -ENOSPC;
    for (uint32_t i = 0; i < store->dir_count && result != 0; i++) {
        struct ab_store_dir *dir = &store->dirs[i];
        if (!dir->read_only && ab_segment_grow(store, dir, true) == 0) {
            result = take_here(store, dir, request, ret_segment);
        }
    }
    return result;
}

uint32_t ab_store_compaction_room(struct ab_store *store)
{
    uint32_t room = 0;
    ab_lock_take(&store->lock);
    for (uint32_t i = 0; i < store->dir_count; i++) {
        const struct ab_store_dir *dir = &store->dirs[i];
        for (uint32_t k = 0; k < AB_OPEN_PER_STREAM && !dir->read_only; k++) {
            room = AB_MAX(room, room_of(store, dir->open[AB_STREAM_COMPACT][k]));
        }
    }
    ab_lock_drop(&store->lock);
    return room > 0 ? room - 1 : 0; /* its header page */
}

static int take_anywhere(struct ab_store *store, const struct request *request,
                         uint32_t *ret_segment)
{
    const bool compacts = request->stream == AB_STREAM_COMPACT;
    const uint32_t begun = compacts ? compaction_open_pick(store, request->pages) : AB_INDEX_NONE;
    if (begun != AB_INDEX_NONE) {
        *ret_segment = begun;
        return 0;
    }
    const uint32_t turn = store->turn[request->stream]++;
    uint32_t usable = 0;
    int failure = -ENOSPC; /* or a file could not be made, and not for want of room */
    for (uint32_t i = 0; i < 2 * store->dir_count; i++) {
        struct ab_store_dir *dir = &store->dirs[(turn + i) % store->dir_count];
        const bool is_near = request->node < 0 || dir->node == request->node;
        const bool is_first_pass = i < store->dir_count;
        if (atomic_load_explicit(&dir->read_only, memory_order_relaxed) ||
            is_near != is_first_pass) {
            continue;
        }
        usable++;
        const int result = take_or_grow(store, dir, request, ret_segment);
        if (result == 0) {
            return 0;
        }
        failure = ab_journal_no_room(result) ? failure : -EIO;
    }
    const uint32_t borrowed = borrow(store, request->pages);
    if (borrowed != AB_INDEX_NONE) {
        *ret_segment = borrowed;
        return 0;
    }
    if (compacts && usable > 0 && store->empty_first == AB_INDEX_NONE) {
        return take_over_limit(store, request, ret_segment);
    }
    return usable == 0 ? -EROFS : failure;
}

uint32_t ab_store_extent_pages_max(const struct ab_store *store)
{
    return store->segment_pages - 2; /* the segment's header page and the extent's */
}

int ab_store_reserve(struct ab_store *store, enum ab_stream stream, int32_t node, uint32_t pages,
                     struct ab_extent *ret)
{
    if ((uint32_t)stream >= AB_STREAM_COUNT || pages == 0) {
        return -EINVAL;
    }
    if (pages > ab_store_extent_pages_max(store)) {
        return -EFBIG;
    }
    if (store->read_only || atomic_load_explicit(&store->failed, memory_order_relaxed) != 0) {
        return -EROFS;
    }
    const struct request request = {.stream = stream, .node = node, .pages = pages + 1};
    uint32_t segment = AB_INDEX_NONE;
    ab_lock_take(&store->lock);
    ab_segments_reclaim(store);
    const int result = take_anywhere(store, &request, &segment);
    if (result == 0) {
        struct ab_segment *entry = &store->segments[segment];
        *ret = (struct ab_extent){
            .header = {.segment = segment, .page = entry->used},
            .generation = atomic_load_explicit(&entry->generation, memory_order_relaxed),
            .device = segment % store->dir_count,
            .page_count = request.pages,
        };
        entry->used += request.pages;
        entry->pending += request.pages;
    } else if (result == -ENOSPC && store->empty_first != AB_INDEX_NONE) {
        ab_committer_kick(store); /* there will be room when the journal has been synced */
    }
    ab_lock_drop(&store->lock);
    return result;
}
