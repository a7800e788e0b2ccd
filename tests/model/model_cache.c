/*
 * model_cache.c - the cache face against the reference: items of any size in the flat region, and
 * items of one size that go in and out through the planar one too.
 */
#include <string.h>

#include "world.h"

#define ROOM 65536u /* of the flat region, an item */

static void item_key(uint32_t number, struct abode_key *ret)
{
    char name[16];
    int size = snprintf(name, sizeof(name), "item %u", number);
    abode_key_from_bytes(name, (size_t)size, ret);
}

static uint32_t planar_item_bytes(void)
{
    uint32_t bytes = 0;
    for (uint32_t p = 0; p < PLANES; p++) {
        bytes += model_plane_bytes(p);
    }
    return bytes;
}

/* a piece of an item that lies in one plane of a frame */
static unsigned char *piece(uint32_t frame, uint32_t plane)
{
    unsigned char *at = world.planes;
    for (uint32_t p = 0; p < plane; p++) {
        at += PLANAR_FRAMES * (model_plane_bytes(p) + 24ull);
    }
    return at + frame * (model_plane_bytes(plane) + 24ull);
}

/* Where the item will lie: in the flat region, or in frame `slot` of the planar one. */
static struct abode_item place(uint32_t number, uint32_t slot, uint32_t bytes)
{
    struct abode_item item = {.bytes = bytes, .region = world.region};
    item_key(number, &item.key);
    item.offset = (uint64_t)slot * ROOM + (model_below(2) == 0 ? 0 : model_below(4000));
    if (number >= ITEMS && model_below(2) == 0) {
        item.region = world.planar;
        item.offset = slot;
        item.bytes = planar_item_bytes();
    }
    return item;
}

static void bytes_write(const struct abode_item *item, uint32_t bytes, uint32_t salt)
{
    if (item->region == world.region) {
        model_fill(world.memory + item->offset, bytes, salt);
        return;
    }
    uint64_t at = salt;
    for (uint32_t p = 0; p < PLANES; p++) {
        model_fill(piece((uint32_t)item->offset, p), model_plane_bytes(p), at);
        at += model_plane_bytes(p);
    }
}

static void bytes_expect(const struct abode_item *item, uint32_t bytes, uint32_t salt)
{
    if (item->region == world.region) {
        model_expect_bytes(world.memory + item->offset, bytes, salt, "an item");
        return;
    }
    uint64_t at = salt;
    for (uint32_t p = 0; p < PLANES; p++) {
        model_expect_bytes(piece((uint32_t)item->offset, p), model_plane_bytes(p), at,
                           "a planar item");
        at += model_plane_bytes(p);
    }
}

/* the first of a few numbers, all flat or all planar */
static uint32_t numbers_pick(uint32_t count)
{
    return model_below(4) == 0 ? ITEMS + model_below(PLANAR_ITEMS - count + 1)
                               : model_below(ITEMS - count + 1);
}

void model_put(void)
{
    struct abode_item items[4];
    uint32_t count = 1 + model_below(4), first = numbers_pick(count);
    uint32_t durability = 1 + model_below(3);
    for (uint32_t i = 0; i < count; i++) {
        struct item *item = &world.items[first + i];
        if (!item->exists) {
            item->salt = (uint32_t)(model_random() >> 32);
            item->bytes = first >= ITEMS        ? planar_item_bytes()
                          : model_below(2) == 0 ? 4096 * (1 + model_below(9))
                                                : 1 + model_below(ITEM_BYTES_MAX);
        }
        items[i] = place(first + i, i, item->bytes);
        bytes_write(&items[i], item->bytes, item->salt);
    }
    struct abode_op op = {.user_data = NULL};
    EXPECT_STATUS(abode_cache_put(world.queue, world.cache_model, items, count, durability, &op),
                  0);
    int status = model_finish(&op);
    for (uint32_t i = 0; i < count; i++) {
        struct item *item = &world.items[first + i];
        if (items[i].status == 0) {
            item->exists = true;
            item->named = true;
            item->left = false;
            item->stored |= durability > ABODE_MEM;
        } else if (items[i].status != -ENOSPC && items[i].status != -ABODE_EFULL) {
            FAIL("put: %s / %s", abode_strerror(status), abode_strerror(items[i].status));
        }
    }
}

/* Items may leave by themselves; where keys are kept, an event says so. */
static void item_is_gone(struct item *item)
{
    if (item->exists && world.keeps_keys) {
        model_events();
        EXPECT(item->left);
    }
    item->exists = false;
    item->stored = false;
}

void model_get(void)
{
    struct abode_item items[4];
    struct abode_key keys[4];
    uint32_t count = 1 + model_below(4), first = numbers_pick(count);
    for (uint32_t i = 0; i < count; i++) {
        items[i] = place(first + i, i, ITEM_ROOM);
        keys[i] = items[i].key;
    }
    uint8_t presence[4];
    int leading = abode_cache_probe(world.runtime, world.cache_model, keys, count, presence);
    EXPECT(leading >= 0 && leading <= (int)count);
    for (uint32_t i = 0; i < count; i++) {
        EXPECT(presence[i] == ABODE_MISS || world.items[first + i].exists);
        EXPECT((int)i >= leading || presence[i] >= ABODE_STORED);
    }
    struct abode_op op = {.user_data = NULL};
    EXPECT_STATUS(abode_cache_get(world.queue, world.cache_model, items, count, &op), 0);
    (void)model_finish(&op);
    for (uint32_t i = 0; i < count; i++) {
        struct item *item = &world.items[first + i];
        if (items[i].status == 0) {
            EXPECT(item->exists);
            EXPECT(items[i].bytes == item->bytes);
            item->named = true;
            bytes_expect(&items[i], item->bytes, item->salt);
        } else if (items[i].status == -ENOENT) {
            item_is_gone(item);
        } else if (items[i].status != -ABODE_EFULL) {
            FAIL("get: %s", abode_strerror(items[i].status));
        }
    }
}

void model_cache_delete(void)
{
    uint32_t number = model_below(ITEMS + PLANAR_ITEMS);
    struct abode_key key;
    item_key(number, &key);
    struct abode_op op = {.user_data = NULL};
    EXPECT_STATUS(abode_cache_delete(world.queue, world.cache_model, &key, 1, &op), 0);
    EXPECT_STATUS(model_finish(&op), 0);
    uint8_t presence;
    EXPECT_STATUS(abode_cache_probe(world.runtime, world.cache_model, &key, 1, &presence), 0);
    EXPECT(presence == ABODE_MISS);
    world.items[number].exists = false;
    world.items[number].stored = false;
}

void model_touch(void)
{
    struct abode_key keys[4];
    for (uint32_t i = 0; i < 4; i++) {
        item_key(model_below(ITEMS + PLANAR_ITEMS + 8), &keys[i]); /* some were never there */
    }
    abode_cache_touch(world.runtime, world.cache_model, keys, 4);
}

static void event_take(const struct abode_key *event)
{
    uint32_t number = 0;
    struct abode_key key;
    item_key(0, &key);
    while (memcmp(&key, event, sizeof(key)) != 0) {
        EXPECT(++number < ITEMS + PLANAR_ITEMS);
        item_key(number, &key);
    }
    world.items[number].left = true;
}

void model_events(void)
{
    struct abode_key keys[16];
    uint64_t lost;
    int count = abode_cache_events(world.runtime, world.cache_model, keys, 16, &lost);
    if (!world.keeps_keys) {
        EXPECT_STATUS(count, -ENOTSUP);
        return;
    }
    for (; count > 0 || lost > 0;
         count = abode_cache_events(world.runtime, world.cache_model, keys, 16, &lost)) {
        for (int i = 0; i < count; i++) {
            event_take(&keys[i]);
        }
        for (uint32_t i = 0; i < ITEMS + PLANAR_ITEMS && lost > 0; i++) {
            world.items[i].left |= !world.items[i].named; /* it may have been this one */
        }
    }
    EXPECT_STATUS(count, 0);
}

/* After a restart: what was evicted meanwhile, or was in memory only, is gone, and no event tells. */
void model_items_refind(void)
{
    for (uint32_t i = 0; i < ITEMS + PLANAR_ITEMS; i++) {
        struct abode_key key;
        uint8_t presence;
        item_key(i, &key);
        EXPECT(abode_cache_probe(world.runtime, world.cache_model, &key, 1, &presence) >= 0);
        EXPECT(presence == ABODE_MISS || world.items[i].exists);
        world.items[i].exists = presence != ABODE_MISS;
        world.items[i].stored = world.items[i].exists;
        world.items[i].named = false;
        world.items[i].left = false;
    }
}
