/*
 * block.c - the table of blocks, the index from key to block, and frames for blocks.
 *
 * A block's number is its place in the table and is what the journal calls it: it stays the same
 * over restarts, so that no map from names to places is needed. The index is a chained hash on
 * 128-bit fingerprints. Lock KV held throughout.
 */
#include <string.h>

#include "base/hash.h"
#include "base/num.h"
#include "kv/kv.h"
#include "kv/place.h"
#include "kv/reclaim.h"
#include "kv/session.h"

void ab_block_fingerprint(uint8_t component, uint32_t tenant, const struct abode_key *key,
                          uint64_t ret_key[2])
{
    /* component and tenant are part of it: equal keys of two tenants, or of K and window blocks of
     * one row, are different blocks */
    uint64_t seed = ((uint64_t)tenant << 16) ^ ((uint64_t)component + 1);
    struct ab_hash128 hash = ab_hash128(key->bytes, sizeof(key->bytes), seed);
    ret_key[0] = hash.low;
    ret_key[1] = hash.high;
}

static void block_init(struct ab_kv *kv, uint32_t index, uint8_t component)
{
    struct ab_block *block = &kv->blocks[index];
    memset(block, 0, sizeof(*block));
    block->flags = AB_BLOCK_USED;
    block->component = component;
    block->segment = AB_INDEX_NONE;
    block->frame = AB_INDEX_NONE;
    block->hash_next = AB_INDEX_NONE;
    kv->block_used++;
}

uint32_t ab_block_new(struct ab_kv *kv, uint8_t component)
{
    uint32_t index = kv->block_free;
    if (index != AB_INDEX_NONE) {
        kv->block_free = kv->blocks[index].hash_next;
    } else if (kv->block_high < kv->block_max) {
        index = kv->block_high++;
    } else {
        return AB_INDEX_NONE;
    }
    block_init(kv, index, component);
    return index;
}

int ab_block_restore(struct ab_kv *kv, uint32_t index)
{
    if (index >= kv->block_capacity) {
        return -ABODE_ECORRUPT;
    }
    if (index >= kv->block_high) {
        kv->block_high = index + 1; /* the gap is zero: not USED; the sweep makes it free */
    }
    if ((kv->blocks[index].flags & AB_BLOCK_USED) == 0) {
        block_init(kv, index, 0);
    }
    return 0;
}

void ab_block_free(struct ab_kv *kv, uint32_t index)
{
    struct ab_block *block = &kv->blocks[index];
    AB_ASSERT((block->flags & AB_BLOCK_USED) != 0);
    AB_ASSERT((block->flags & AB_BLOCK_KEYED) == 0);
    AB_ASSERT(block->frame == AB_INDEX_NONE);
    block->flags = 0;
    block->hash_next = kv->block_free;
    kv->block_free = index;
    kv->block_used--;
}

void ab_blocks_sweep(struct ab_kv *kv)
{
    kv->block_free = AB_INDEX_NONE;
    for (uint32_t i = kv->block_high; i-- > 0;) {
        if ((kv->blocks[i].flags & AB_BLOCK_USED) == 0) {
            kv->blocks[i].hash_next = kv->block_free;
            kv->block_free = i;
        }
    }
}

uint32_t ab_block_find(struct ab_kv *kv, uint8_t component, const uint64_t key[2])
{
    /* 0 in a bucket is none, so that a fresh map is an empty index */
    uint32_t index = kv->buckets[key[0] & kv->bucket_mask] - 1;
    while (index != AB_INDEX_NONE) {
        const struct ab_block *block = &kv->blocks[index];
        if (block->key[0] == key[0] && block->key[1] == key[1] && block->component == component) {
            return index;
        }
        index = block->hash_next;
    }
    return AB_INDEX_NONE;
}

void ab_block_key_add(struct ab_kv *kv, uint32_t index, const uint64_t key[2])
{
    struct ab_block *block = &kv->blocks[index];
    AB_ASSERT((block->flags & AB_BLOCK_KEYED) == 0);
    uint32_t *bucket = &kv->buckets[key[0] & kv->bucket_mask];
    block->key[0] = key[0];
    block->key[1] = key[1];
    ab_block_mark(block, AB_BLOCK_KEYED);
    block->hash_next = *bucket - 1;
    *bucket = index + 1;
    kv->block_keyed++;
}

void ab_block_key_remove(struct ab_kv *kv, uint32_t index)
{
    struct ab_block *block = &kv->blocks[index];
    if ((block->flags & AB_BLOCK_KEYED) == 0) {
        return;
    }
    uint32_t *bucket = &kv->buckets[block->key[0] & kv->bucket_mask];
    uint32_t before = AB_INDEX_NONE, at = *bucket - 1;
    while (at != index) {
        AB_ASSERT_DEBUG(at != AB_INDEX_NONE);
        before = at;
        at = kv->blocks[at].hash_next;
    }
    if (before == AB_INDEX_NONE) {
        *bucket = block->hash_next + 1;
    } else {
        kv->blocks[before].hash_next = block->hash_next;
    }
    block->hash_next = AB_INDEX_NONE;
    ab_block_unmark(block, AB_BLOCK_KEYED);
    kv->block_keyed--;
    block->key[0] = 0;
    block->key[1] = 0;
}

unsigned char *ab_block_address(struct ab_kv *kv, const struct ab_block *block)
{
    struct ab_frames *frames = ab_component_of(kv, block)->frames;
    return ab_frames_base(frames) + (uint64_t)block->frame * ab_frames_stride(frames);
}

uint32_t ab_frame_obtain(struct ab_kv *kv, uint32_t index, int32_t node, uint32_t tenant)
{
    struct ab_block *block = &kv->blocks[index];
    struct ab_component *component = ab_component_of(kv, block);
    uint32_t frame = AB_INDEX_NONE;
    struct ab_place_order order;
    ab_place_nodes(kv->topology, kv->node_mask, node, &order);
    for (uint32_t i = 0; i < order.count && frame == AB_INDEX_NONE; i++) {
        frame = ab_frame_take(component->frames, order.nodes[i]);
    }
    for (uint32_t i = 0; i < order.count && frame == AB_INDEX_NONE; i++) {
        if (ab_reclaim_clean(kv, component, order.nodes[i], AB_RECLAIM_INLINE) > 0) {
            frame = ab_frame_take(component->frames, order.nodes[i]);
        }
    }
    if (frame == AB_INDEX_NONE) {
        return frame;
    }
    struct ab_frame_info *info = &component->infos[frame];
    block->frame = frame;
    if (info->tenant != tenant && info->tenant != AB_TENANT_NEVER) {
        kv->kernels->zero_stream(ab_block_address(kv, block), ab_frames_stride(component->frames));
    }
    *info = (struct ab_frame_info){
        .block = index, .stamp = kv->tick, .tenant = tenant, .state = AB_FRAME_READY};
    return frame;
}

void ab_frame_release(struct ab_kv *kv, uint32_t index)
{
    struct ab_block *block = &kv->blocks[index];
    struct ab_component *component = ab_component_of(kv, block);
    struct ab_frame_info *info = &component->infos[block->frame];
    AB_ASSERT(info->pins == 0);
    info->state = AB_FRAME_FREE;
    info->block = AB_INDEX_NONE;
    ab_frame_give(component->frames, block->frame);
    block->frame = AB_INDEX_NONE;
}

void ab_frame_pin(struct ab_kv *kv, const struct ab_block *block)
{
    struct ab_frame_info *info = ab_block_frame_info(kv, block);
    info->pins++;
}

void ab_frame_unpin(struct ab_kv *kv, const struct ab_block *block)
{
    struct ab_frame_info *info = ab_block_frame_info(kv, block);
    AB_ASSERT(info->pins > 0);
    info->pins--;
    info->stamp = kv->tick;
    const uint8_t held = AB_BLOCK_OWNED | AB_BLOCK_KEYED | AB_BLOCK_PENDING | AB_BLOCK_MOVING;
    if (info->pins == 0 && (block->flags & held) == 0) {
        ab_block_forsake(kv, info->block);
    } else if (info->pins == 0 && info->state == AB_FRAME_FAILED) {
        ab_frame_release(kv, info->block);
    }
}
