/*
 * report_placement.c - where a session's bytes are, the kernel asked.
 *
 * A placement is called verified only when the kernel confirmed it in this call: move_pages for
 * every 4 KiB page of memory, FIEMAP for the store's files. Blocks that lie side by side are asked
 * for together, and each file once.
 */
#include <linux/fiemap.h>
#include <linux/fs.h>
#include <stdlib.h>
#include <string.h>

#include "base/num.h"
#include "front/front.h"

struct range {      /* blocks side by side in memory, or blocks in one segment */
    uintptr_t base; /* 0: in the store */
    uint64_t pages; /* of memory from base on */
    uint64_t bytes; /* of blocks in it */
    uint32_t node;  /* memory */
    uint32_t segment;
};

struct ranges {
    struct range *items;
    uint32_t count, capacity;
};

static void range_add(struct ab_kv *kv, struct ranges *ranges, uint32_t index)
{
    if (index == AB_INDEX_NONE) {
        return;
    }
    const struct ab_block *block = &kv->blocks[index];
    const struct ab_component *component = ab_component_of(kv, block);
    if (block->frame != AB_INDEX_NONE && ranges->count < ranges->capacity) {
        ranges->items[ranges->count++] = (struct range){
            .base = (uintptr_t)ab_block_address(kv, block),
            .pages = ab_pages(block->bytes),
            .bytes = block->bytes,
            .node = ab_frame_node(block->frame, ab_frames_per_node(component->frames))};
    }
    if (ab_block_is_stored(block) && ranges->count < ranges->capacity) {
        ranges->items[ranges->count++] =
            (struct range){.bytes = block->bytes, .segment = block->segment};
    }
}

static int range_compare(const void *left, const void *right)
{
    const struct range *a = left, *b = right;
    if (a->base != b->base) {
        return a->base < b->base ? -1 : 1;
    }
    return a->segment < b->segment ? -1 : a->segment > b->segment;
}

static bool range_continues(const struct range *range, const struct range *next)
{
    if (range->base == 0 || next->base == 0) {
        return range->base == next->base && range->segment == next->segment;
    }
    return range->base + range->pages * AB_PAGE == next->base && range->node == next->node;
}

/* In order of address or segment, what lies together as one. */
static void ranges_join(struct ranges *ranges)
{
    uint32_t kept = 0;
    qsort(ranges->items, ranges->count, sizeof(*ranges->items), range_compare);
    for (uint32_t i = 1; i < ranges->count; i++) {
        struct range *last = &ranges->items[kept];
        const struct range *next = &ranges->items[i];
        if (range_continues(last, next)) {
            last->pages += next->pages;
            last->bytes += next->bytes;
        } else {
            ranges->items[++kept] = *next;
        }
    }
    ranges->count = AB_MIN(ranges->count, kept + 1);
}

static uint32_t session_blocks(const struct ab_kv *kv, const struct ab_session *session)
{
    const struct ab_model *model = &kv->models[session->model];
    return session->row_count * model->row_component_count +
           session->point_count * model->component_count;
}

static void session_ranges(struct ab_kv *kv, const struct ab_session *session,
                           struct ranges *ranges)
{
    const struct ab_model *model = &kv->models[session->model];
    for (uint32_t c = 0; c < model->component_count; c++) {
        if (!ab_component_has_rows(&model->components[c])) {
            for (uint32_t i = 0; i < session->point_count; i++) {
                range_add(kv, ranges, session->points[i].blocks[c]);
            }
            continue;
        }
        const uint32_t *rows = ab_session_rows(kv, session, c);
        for (uint32_t row = session->row_first[c]; row < session->row_count; row++) {
            range_add(kv, ranges, rows[row]);
        }
    }
}

static struct abode_place *place_of(struct abode_placement *ret, uint32_t tier, int32_t node,
                                    uint32_t device)
{
    for (uint32_t i = 0; i < ret->place_count; i++) {
        struct abode_place *place = &ret->places[i];
        if (place->tier == tier && place->node == node && place->device == device) {
            return place;
        }
    }
    if (ret->place_count == ABODE_PLACES_MAX) {
        return NULL;
    }
    struct abode_place *place = &ret->places[ret->place_count++];
    *place = (struct abode_place){.tier = tier, .node = node, .device = device, .verified = 1};
    return place;
}

static void place_memory(struct abode *runtime, struct abode_placement *ret,
                         const struct range *range)
{
    struct abode_place *place = place_of(ret, ABODE_TIER_MEMORY, (int32_t)range->node, 0);
    if (place == NULL) {
        return;
    }
    struct ab_space_check check = {.pages_absent = 0};
    int status = ab_space_check_range(runtime->os, runtime->topology, (const void *)range->base,
                                      range->pages * AB_PAGE, &check);
    uint64_t pages = range->pages;
    uint64_t here = status == 0 ? check.pages_here[range->node] : 0;
    place->bytes += range->bytes;
    place->pages_elsewhere += status == 0 ? pages - AB_MIN(here, pages) - check.pages_unknown : 0;
    place->verified &= status == 0 && here >= pages;
}

/* Does the kernel map all of this file to extents of the device? */
static bool file_is_mapped(struct abode *runtime, uint32_t segment)
{
    enum { EXTENTS = 64, ROUNDS = 256 };
    union {
        struct fiemap map;
        uint8_t bytes[sizeof(struct fiemap) + EXTENTS * sizeof(struct fiemap_extent)];
    } query;
    int fd = ab_store_segment_fd(runtime->store, segment);
    uint64_t size = ab_store_segment_bytes(runtime->store), at = 0;
    for (uint32_t round = 0; fd >= 0 && round < ROUNDS && at < size; round++) {
        memset(&query, 0, sizeof(query));
        query.map.fm_start = at;
        query.map.fm_length = size - at;
        query.map.fm_extent_count = EXTENTS;
        if (runtime->os->ioctl(runtime->os, fd, FS_IOC_FIEMAP, &query.map) < 0 ||
            query.map.fm_mapped_extents == 0) {
            return false;
        }
        for (uint32_t i = 0; i < query.map.fm_mapped_extents; i++) {
            const struct fiemap_extent *extent = &query.map.fm_extents[i];
            if (extent->fe_logical > at ||
                (extent->fe_flags & (FIEMAP_EXTENT_UNKNOWN | FIEMAP_EXTENT_DELALLOC)) != 0) {
                return false;
            }
            at = extent->fe_logical + extent->fe_length;
        }
    }
    return at >= size;
}

static void place_store(struct abode *runtime, struct abode_placement *ret,
                        const struct range *range)
{
    uint32_t index = ab_store_slot_device(runtime->store, range->segment);
    struct ab_store_device device = ab_store_device(runtime->store, index);
    struct abode_place *place = place_of(ret, ABODE_TIER_STORE, device.node, index);
    if (place == NULL) {
        return;
    }
    place->bytes += range->bytes;
    place->verified &= file_is_mapped(runtime, range->segment);
}

int abode_session_placement(struct abode *runtime, struct abode_session handle,
                            struct abode_placement *ret)
{
    if (runtime == NULL || ret == NULL) {
        return -EINVAL;
    }
    if (ab_forked(&runtime->poison)) {
        return -ENOTRECOVERABLE;
    }
    struct ab_kv *kv = runtime->kv;
    ab_lock_take(&kv->lock);
    const struct ab_session *session = ab_session_get(kv, handle);
    uint32_t capacity = session == NULL ? 0 : 2 * session_blocks(kv, session) + 1;
    ab_lock_drop(&kv->lock);
    if (capacity == 0) {
        return -ABODE_ESTALE;
    }
    struct ranges ranges = {.capacity = capacity};
    ranges.items = ab_os_alloc_array(runtime->os, capacity, sizeof(*ranges.items));
    if (ranges.items == NULL) {
        return -ENOMEM;
    }
    *ret = (struct abode_placement){.struct_size = sizeof(*ret)};
    ab_lock_take(&kv->lock);
    session = ab_session_get(kv, handle);
    if (session != NULL) {
        ret->home_node = session->home_node;
        session_ranges(kv, session, &ranges);
    }
    ab_lock_drop(&kv->lock);
    ranges_join(&ranges);
    for (uint32_t i = 0; i < ranges.count; i++) {
        if (ranges.items[i].base != 0) {
            place_memory(runtime, ret, &ranges.items[i]);
        } else {
            place_store(runtime, ret, &ranges.items[i]);
        }
    }
    runtime->os->free(runtime->os, ranges.items);
    return session == NULL ? -ABODE_ESTALE : 0;
}
