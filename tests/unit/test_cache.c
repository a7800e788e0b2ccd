/*
 * test_cache.c - the block cache face: put, get, probe, delete, events, regions.
 *
 * Goal: an item comes back as it was put or not at all; each item says for itself what became of it;
 * an item of the host's that cannot be (outside its region, too large, no such region) harms no
 * other in the same op. Method: items of all sizes in a flat region (aligned: straight to the disk;
 * else through frames) and a planar one.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
// clang-format off
#include <cmocka.h>
// clang-format on

#include "api_fixture.h"
#include "front/front.h"

enum { REGION_BYTES = 1u << 20, SLOT = 32768, ITEMS = 16 };

struct host {
    struct api *api;
    uint32_t model, region;
    unsigned char *memory;
};

static void fill(unsigned char *bytes, size_t size, uint32_t salt)
{
    api_state_bytes(salt, 0, API_BYTES, bytes, size);
}

static void host_open(struct host *host)
{
    struct api *api = host->api;
    static const struct abode_component component = {.kind = ABODE_BYTES, .bytes_max = SLOT};
    struct abode_model_desc desc = {.struct_size = sizeof(desc),
                                    .component_count = 1,
                                    .components = &component,
                                    .block_tokens = 1,
                                    .session_tokens_max = 1024,
                                    .memory_bytes = 1u << 20,
                                    .tag = "cache"};
    api_open(api);
    assert_int_equal(abode_model_add(api->runtime, &desc, &host->model), 0);
    struct abode_region region = {
        .struct_size = sizeof(region), .node = -1, .base = host->memory, .bytes = REGION_BYTES};
    assert_int_equal(abode_region_add(api->runtime, &region, &host->region), 0);
}

static struct host host_make(void **state)
{
    struct host host = {.api = *state};
    host.memory = aligned_alloc(4096, REGION_BYTES);
    assert_non_null(host.memory);
    memset(host.memory, 0, REGION_BYTES); /* some of it is put without being filled */
    host_open(&host);
    return host;
}

static void host_free(struct host *host)
{
    api_close(host->api);
    free(host->memory);
}

static struct abode_item item_of(const struct host *host, uint32_t number, uint64_t bytes)
{
    struct abode_item item = {.key = api_name(number),
                              .offset = (uint64_t)(number % (REGION_BYTES / SLOT)) * SLOT,
                              .bytes = bytes,
                              .region = host->region,
                              .status = 77};
    return item;
}

static int put(const struct host *host, struct abode_item *items, uint32_t count,
               uint32_t durability)
{
    struct abode_op op = {.timeout_ns = 0};
    return api_wait(host->api, &op,
                    abode_cache_put(host->api->queue, host->model, items, count, durability, &op));
}

static int get(const struct host *host, struct abode_item *items, uint32_t count,
               uint32_t *ret_good)
{
    struct abode_op op = {.timeout_ns = 0};
    int status =
        api_wait(host->api, &op, abode_cache_get(host->api->queue, host->model, items, count, &op));
    *ret_good = op.item_good;
    return status;
}

static void item_expect(const struct host *host, const struct abode_item *item, uint32_t salt)
{
    static unsigned char expected[SLOT];
    assert_int_equal(item->status, 0);
    fill(expected, item->bytes, salt);
    assert_memory_equal(host->memory + item->offset, expected, item->bytes);
}

static const uint64_t sizes[ITEMS] = {1,     100,   4095,  4096,  4097,  8192,  12288, 20000,
                                      32767, 32768, 16384, 16383, 28672, 28673, 7,     4096};

static void items_come_back(void **state)
{
    struct host host = host_make(state);
    for (uint32_t durability = 0; durability <= ABODE_DURABLE; durability++) {
        struct abode_item items[ITEMS];
        uint32_t base = durability * 100, good;
        for (uint32_t i = 0; i < ITEMS; i++) {
            items[i] = item_of(&host, base + i, sizes[i]);
            fill(host.memory + items[i].offset, sizes[i], base + i);
        }
        assert_int_equal(put(&host, items, ITEMS, durability), 0);
        for (uint32_t round = 0; round < 2; round++) {
            memset(host.memory, 0x5a, REGION_BYTES);
            for (uint32_t i = 0; i < ITEMS; i++) {
                assert_int_equal(items[i].status, 0);
                items[i] = item_of(&host, base + i, SLOT); /* capacity */
            }
            assert_int_equal(get(&host, items, ITEMS, &good), 0);
            assert_int_equal(good, ITEMS);
            for (uint32_t i = 0; i < ITEMS; i++) {
                assert_int_equal(items[i].bytes, sizes[i]);
                item_expect(&host, &items[i], base + i);
                uint64_t end = (sizes[i] + 4095) & ~4095ull; /* not a page more is written */
                assert_true(end == SLOT || host.memory[items[i].offset + end] == 0x5a);
            }
            if (durability == ABODE_MEM) {
                break;
            }
            api_close(host.api);
            host_open(&host);
        }
    }
    host_free(&host);
}

static void bad_items_harm_no_good_ones(void **state)
{
    struct host host = host_make(state);
    struct abode_item items[10];
    struct abode_op op = {.timeout_ns = 0};
    for (uint32_t i = 0; i < 10; i++) {
        items[i] = item_of(&host, i, 5000);
        fill(host.memory + items[i].offset, 5000, i);
    }
    items[1].region = 63;
    items[2].region = UINT32_MAX;
    items[3].offset = REGION_BYTES;
    items[4].offset = UINT64_MAX - 10;
    items[5].bytes = 0;
    items[6].bytes = SLOT + 1;
    items[7].bytes = UINT64_MAX;
    items[8].offset = REGION_BYTES - 4999;
    assert_int_equal(put(&host, items, 10, 0), -ABODE_EPARTIAL);
    for (uint32_t i = 0; i < 10; i++) {
        assert_int_equal(items[i].status, i == 0 || i == 9 ? 0 : -EINVAL);
    }
    struct abode *runtime = host.api->runtime;
    struct abode_queue *queue = host.api->queue;
    assert_int_equal(abode_cache_put(queue, host.model, items, 0, 0, &op), -EINVAL);
    assert_int_equal(abode_cache_put(queue, host.model, NULL, 1, 0, &op), -EINVAL);
    assert_int_equal(abode_cache_put(queue, host.model, items, 1, 4, &op), -EINVAL);
    assert_int_equal(abode_cache_put(queue, 31, items, 1, 0, &op), -EINVAL);
    assert_int_equal(abode_cache_put(queue, UINT32_MAX, items, 1, 0, &op), -EINVAL);
    assert_int_equal(abode_cache_put(queue, host.api->paged, items, 1, 0, &op), -EINVAL);
    assert_int_equal(abode_cache_get(queue, host.model, items, 0, &op), -EINVAL);
    assert_int_equal(abode_cache_delete(queue, host.model, NULL, 1, &op), -EINVAL);
    assert_int_equal(abode_cache_probe(runtime, 31, &items[0].key, 1, NULL), -EINVAL);
    assert_int_equal(abode_cache_probe(runtime, host.model, NULL, 1, NULL), -EINVAL);
    assert_int_equal(abode_queue_pending(queue), 0);
    uint8_t presence[10];
    struct abode_key keys[10];
    for (uint32_t i = 0; i < 10; i++) {
        keys[i] = api_name(i);
    }
    assert_int_equal(abode_cache_probe(runtime, host.model, keys, 10, presence), 1);
    assert_true(presence[0] >= ABODE_STORED && presence[9] >= ABODE_STORED);
    for (uint32_t i = 1; i < 9; i++) {
        assert_int_equal(presence[i], ABODE_MISS);
    }
    host_free(&host);
}

static void misses_and_small_rooms(void **state)
{
    struct host host = host_make(state);
    struct abode_item items[4];
    uint32_t good;
    for (uint32_t i = 0; i < 4; i++) {
        items[i] = item_of(&host, i, 5000);
        fill(host.memory + items[i].offset, 5000, i);
    }
    assert_int_equal(put(&host, items, 3, 0), 0);
    items[1].bytes = 4999; /* too small a room: told how much it would need */
    assert_int_equal(get(&host, items, 4, &good), -ABODE_EPARTIAL);
    assert_int_equal(good, 1);
    assert_int_equal(items[0].status, 0);
    assert_int_equal(items[1].status, -ENOBUFS);
    assert_int_equal(items[1].bytes, 5000);
    assert_int_equal(items[2].status, 0);
    assert_int_equal(items[3].status, -ENOENT);
    items[0] = item_of(&host, 0, 4000); /* the same name, another size */
    assert_int_equal(put(&host, items, 1, 0), -ABODE_EPARTIAL);
    assert_int_equal(items[0].status, -EEXIST);
    items[0] = items[1] = item_of(&host, 9, 4000); /* twice in one op */
    int status = put(&host, items, 2, 0);
    assert_true(status == 0 || status == -ABODE_EPARTIAL);
    assert_int_equal(items[0].status, 0);
    assert_true(items[1].status == 0 || items[1].status == -EAGAIN);
    host_free(&host);
}

static void deleted_is_gone_for_good(void **state)
{
    struct host host = host_make(state);
    struct abode_item items[3];
    struct abode_key keys[4];
    struct abode_op op = {.timeout_ns = 0};
    uint8_t presence[4];
    uint32_t good;
    for (uint32_t i = 0; i < 4; i++) {
        keys[i] = api_name(i);
    }
    for (uint32_t i = 0; i < 3; i++) {
        items[i] = item_of(&host, i, 9000);
        fill(host.memory + items[i].offset, 9000, i);
    }
    assert_int_equal(put(&host, items, 3, ABODE_DURABLE), 0);
    for (uint32_t again = 0; again < 2; again++) { /* keys that are not there count as deleted */
        assert_int_equal(
            api_wait(host.api, &op,
                     abode_cache_delete(host.api->queue, host.model, &keys[1], 3, &op)),
            0);
    }
    for (uint32_t round = 0; round < 2; round++) {
        assert_int_equal(abode_cache_probe(host.api->runtime, host.model, keys, 4, presence), 1);
        assert_int_equal(presence[1], ABODE_MISS);
        assert_int_equal(presence[2], ABODE_MISS);
        api_close(host.api);
        host_open(&host);
    }
    items[0] = item_of(&host, 0, SLOT);
    assert_int_equal(get(&host, items, 1, &good), 0);
    item_expect(&host, &items[0], 0);
    host_free(&host);
}

/* The first delete fails with the journal; the item is out of memory, and the journal still has it:
 * to say 0 to the second one would be to promise what the next open takes back. */
static void delete_that_failed_is_not_acknowledged_when_tried_again(void **state)
{
    struct host host = host_make(state);
    struct abode_item item = item_of(&host, 1, 9000);
    struct abode_key key = api_name(1);
    struct abode_op op = {.timeout_ns = 0};
    fill(host.memory + item.offset, 9000, 1);
    assert_int_equal(put(&host, &item, 1, ABODE_DURABLE), 0);
    fault_os_plan(
        &host.api->fault,
        (struct fault_plan){
            .call = AB_OS_PWRITE, .nth = 1, .kind = FAULT_ERROR, .error = EIO, .sticky = true});
    int status = 0;
    for (uint32_t again = 0; again < 3; again++) {
        status =
            api_wait(host.api, &op, abode_cache_delete(host.api->queue, host.model, &key, 1, &op));
        assert_true(status == -EIO || status == -EROFS);
    }
    assert_true(fault_os_strikes(&host.api->fault) > 0);
    fault_os_clear(&host.api->fault);
    host_free(&host);
}

static void corrupt_item_is_refused_and_replaced(void **state)
{
    struct host host = host_make(state);
    unsigned char sample[64];
    uint32_t good;
    host.api->config.flags |= ABODE_KEEP_KEYS;
    api_close(host.api);
    host_open(&host);
    struct abode_item items[2] = {item_of(&host, 1, 8192), item_of(&host, 2, 8192)};
    fill(host.memory + items[0].offset, 8192, 1);
    fill(host.memory + items[1].offset, 8192, 2);
    assert_int_equal(put(&host, items, 2, ABODE_DURABLE), 0);
    api_close(host.api);
    fill(sample, sizeof(sample), 1);
    api_corrupt(host.api, sample, sizeof(sample));
    host_open(&host);
    items[0].bytes = items[1].bytes = SLOT;
    assert_int_equal(get(&host, items, 2, &good), -ABODE_EPARTIAL);
    assert_int_equal(items[0].status, -ABODE_ECORRUPT);
    assert_int_equal(good, 0);
    item_expect(&host, &items[1], 2);
    uint8_t presence;
    struct abode_key key = api_name(1);
    assert_int_equal(abode_cache_probe(host.api->runtime, host.model, &key, 1, &presence), 0);
    assert_int_equal(presence, ABODE_MISS);
    items[0] = item_of(&host, 1, 8192); /* the host has it again: put replaces it */
    fill(host.memory + items[0].offset, 8192, 1);
    assert_int_equal(put(&host, items, 1, ABODE_DURABLE), 0);
    api_close(host.api);
    host_open(&host);
    assert_int_equal(get(&host, items, 1, &good), 0);
    item_expect(&host, &items[0], 1);
    host_free(&host);
}

static int stop_at_once(void *context, uint64_t bytes_done, uint64_t bytes_total)
{
    (void)context;
    return bytes_done > 0 && bytes_total > 0 ? -ECANCELED : 0;
}

/* Who found it does not matter: whoever looks for a key that is not there any more hears of it; also of
 * what a walk had found before the host ended it. */
static void damage_that_verify_finds_is_an_event(void **state)
{
    struct api *api = *state;
    unsigned char sample[64];
    struct abode_key keys[4], named = api_name(1);
    struct abode_verify_report report = {.struct_size = sizeof(report)};
    uint64_t lost;
    api->config.flags |= ABODE_KEEP_KEYS;
    struct host host = host_make(state);
    struct abode_item item = item_of(&host, 1, 8192);
    fill(host.memory + item.offset, 8192, 1);
    memcpy(sample, host.memory + item.offset + 4096, sizeof(sample));
    assert_int_equal(put(&host, &item, 1, ABODE_DURABLE), 0);
    api_corrupt(api, sample, sizeof(sample));
    assert_int_equal(abode_verify(api->runtime, stop_at_once, NULL, NULL, &report), -ECANCELED);
    for (uint32_t time = 0; time < 2; time++) {
        const int count = abode_cache_events(api->runtime, host.model, keys, 4, &lost);
        assert_int_equal(count, time == 0 ? 1 : 0);
        assert_int_equal(lost, 0);
        assert_memory_equal(&keys[0], &named, sizeof(named));
        assert_int_equal(abode_verify(api->runtime, NULL, NULL, NULL, &report), 0);
    }
    host_free(&host);
}

/* Far more than memory and store hold: old items go, what is there is right, events tell the rest. */
static void more_than_there_is_room_for(void **state)
{
    struct api *api = *state;
    api->config.flags |= ABODE_KEEP_KEYS;
    api->config.store_bytes_max = 8u << 20;
    struct host host = host_make(state);
    static bool told[1024];
    memset(told, 0, sizeof(told));
    for (uint32_t i = 0; i < 1024; i++) { /* 32 MiB */
        struct abode_item item = item_of(&host, i, SLOT);
        fill(host.memory + item.offset, SLOT, i);
        assert_int_equal(put(&host, &item, 1, 0), 0);
    }
    uint32_t here = 0, gone = 0;
    struct abode_key keys[64];
    uint64_t lost;
    for (int count = 1; count > 0;) {
        count = abode_cache_events(api->runtime, host.model, keys, 64, &lost);
        assert_in_range(count, 0, 64);
        assert_int_equal(lost, 0);
        for (int k = 0; k < count; k++) {
            for (uint32_t i = 0; i < 1024; i++) {
                struct abode_key name = api_name(i);
                told[i] |= memcmp(name.bytes, keys[k].bytes, 32) == 0;
            }
        }
    }
    for (uint32_t i = 0; i < 1024; i++) {
        struct abode_item item = item_of(&host, i, SLOT);
        uint32_t good;
        int status = get(&host, &item, 1, &good);
        if (status == 0) {
            item_expect(&host, &item, i);
            assert_false(told[i]);
            here++;
        } else {
            assert_int_equal(item.status, -ENOENT);
            assert_true(told[i]);
            gone++;
        }
    }
    assert_true(here > 64 && gone > 512);
    host_free(&host);
}

/* No room, and nothing in the cache that could give way: a put that waited for room never ended. */
static void no_room_and_nothing_to_give_way(void **state)
{
    struct host host = host_make(state);
    fault_os_plan(&host.api->fault, (struct fault_plan){.call = AB_OS_FALLOCATE,
                                                        .kind = FAULT_ERROR,
                                                        .error = ENOSPC,
                                                        .sticky = true});
    struct abode_item items[2] = {item_of(&host, 1, SLOT), item_of(&host, 2, 100)};
    fill(host.memory + items[0].offset, SLOT, 1);
    assert_int_equal(put(&host, items, 2, 0), -ABODE_EPARTIAL);
    assert_int_equal(items[0].status, -ENOSPC);
    assert_int_equal(items[1].status, -ENOSPC);
    assert_int_equal(put(&host, items, 1, ABODE_MEM), 0);
    fault_os_clear(&host.api->fault);
    host_free(&host);
}

/* Memory pressure writes items that are in memory only, by itself: no put of the host's is in flight,
 * so no put hears of it. */
static void put_of_what_is_being_spilled(void **state)
{
    struct api *api = *state;
    enum { FRAMES = 32 };
    api->config.io = ABODE_IO_SYNC;
    struct host host = host_make(state);
    for (uint32_t i = 0; i < FRAMES; i++) {
        struct abode_item item = item_of(&host, i, 5000);
        fill(host.memory + item.offset, item.bytes, i);
        assert_int_equal(put(&host, &item, 1, ABODE_MEM), 0);
    }
    fault_os_plan(&api->fault, (struct fault_plan){.call = AB_OS_PWRITE,
                                                   .kind = FAULT_DELAY,
                                                   .sticky = true,
                                                   .delay_ns = 10ull * 1000 * 1000});
    struct abode_item waits = item_of(&host, FRAMES + 1, 5000), again[4];
    struct abode_op op = {.timeout_ns = 0}, *done;
    assert_int_equal(abode_cache_put(api->queue, host.model, &waits, 1, ABODE_MEM, &op), 0);
    for (int i = 0; i < 20000 && fault_os_strikes(&api->fault) == 0; i++) {
        (void)usleep(500);
    }
    struct abode_queue *queue = api->queue; /* one that this op alone comes back through */
    assert_int_equal(abode_queue_open(api->runtime, 4, &api->queue), 0);
    for (uint32_t i = 0; i < 4; i++) {
        again[i] = item_of(&host, i * 8, 5000);
    }
    assert_int_equal(put(&host, again, 2, ABODE_MEM), 0);
    assert_int_equal(put(&host, again + 2, 2, ABODE_WRITTEN), 0);
    fault_os_clear(&api->fault);
    assert_int_equal(abode_queue_close(api->queue), 0);
    api->queue = queue;
    assert_int_equal(abode_poll(queue, &done, 1, 60ll * 1000 * 1000 * 1000), 1);
    assert_ptr_equal(done, &op);
    assert_int_equal(op.status, 0);
    host_free(&host);
}

static void durable_put_of_what_was_only_written(void **state)
{
    struct api *api = *state;
    struct host host = host_make(state);
    struct abode_item item = item_of(&host, 1, 4096);
    fill(host.memory + item.offset, item.bytes, 1);
    assert_int_equal(put(&host, &item, 1, ABODE_WRITTEN), 0);
    uint64_t syncs = ab_store_stats(api->runtime->store).journal_syncs;
    assert_int_equal(put(&host, &item, 1, ABODE_DURABLE), 0);
    assert_true(ab_store_stats(api->runtime->store).journal_syncs > syncs);
    host_free(&host);
}

/* sessions: they do not give way */
/* With sessions, large ones first: then no room is left for an item either. */
static void store_fill(struct api *api)
{
    uint32_t name = 1;
    for (uint32_t tokens = 64; tokens > 0; tokens /= 8) {
        int status = 0;
        for (uint32_t i = 0; i < 64 && status == 0; i++) {
            struct abode_session session = api_create(api, api->paged, name++);
            assert_int_equal(api_append(api, session, i, tokens), 0);
            status = api_detach(api, session, 0);
        }
        assert_int_equal(status, -ENOSPC);
    }
}

static void failed_put_leaves_what_was_there(void **state)
{
    struct api *api = *state;
    uint32_t good;
    api->config.store_bytes_max = 4u << 20;
    struct host host = host_make(state);
    store_fill(api);
    struct abode_item item = item_of(&host, 1, 5000);
    fill(host.memory + item.offset, item.bytes, 1);
    assert_int_equal(put(&host, &item, 1, ABODE_MEM), 0);
    assert_int_equal(put(&host, &item, 1, ABODE_WRITTEN), -ABODE_EPARTIAL);
    assert_int_equal(item.status, -ENOSPC);
    memset(host.memory + item.offset, 0, item.bytes);
    assert_int_equal(get(&host, &item, 1, &good), 0);
    item_expect(&host, &item, 1);
    host_free(&host);
}

static void events_of_keys_from_before_the_open(void **state)
{
    struct api *api = *state;
    struct abode_key keys[8], named = api_name(2);
    uint64_t lost = 0;
    api->config.store_bytes_max = 4u << 20;
    api->config.flags |= ABODE_KEEP_KEYS;
    struct host host = host_make(state);
    struct abode_item items[16];
    for (uint32_t i = 0; i < 16; i++) {
        items[i] = item_of(&host, i, 5000);
        fill(host.memory + items[i].offset, items[i].bytes, i);
    }
    assert_int_equal(put(&host, items, 16, ABODE_WRITTEN), 0);
    api_close(api);
    host_open(&host);
    assert_int_equal(put(&host, &items[2], 1, ABODE_WRITTEN), 0);
    store_fill(api); /* items of a sample give way, not surely all */
    int count = abode_cache_events(api->runtime, host.model, keys, 8, &lost);
    assert_in_range(count, 0, 1);
    if (count == 1) {
        assert_memory_equal(&keys[0], &named, sizeof(named));
    }
    assert_in_range(lost, 1, 15);
    host_free(&host);
}

/* Items that nobody promised give way where there is no room to write them either. */
static void memory_comes_back_in_a_full_store(void **state)
{
    struct api *api = *state;
    api->config.store_bytes_max = 4u << 20;
    struct host host = host_make(state);
    store_fill(api);
    for (uint32_t i = 0; i < 100; i++) { /* of 32 frames */
        struct abode_item item = item_of(&host, i, 5000);
        fill(host.memory + item.offset, item.bytes, i);
        int status = put(&host, &item, 1, ABODE_MEM);
        if (status != 0) {
            print_error("item %u: %d\n", i, item.status);
        }
        assert_int_equal(status, 0);
    }
    host_free(&host);
}

/* Events of one model do not wait for those of another to be taken. */
static void events_are_by_model(void **state)
{
    struct api *api = *state;
    struct abode_key keys[64], name;
    uint64_t lost;
    uint32_t seen = 0;
    api->config.flags |= ABODE_KEEP_KEYS;
    api->config.store_bytes_max = 8u << 20;
    struct host host = host_make(state);
    struct abode_item item = {.bytes = 0};
    static const struct abode_component component = {.kind = ABODE_BYTES, .bytes_max = SLOT};
    struct abode_model_desc desc = {.struct_size = sizeof(desc),
                                    .component_count = 1,
                                    .components = &component,
                                    .block_tokens = 1,
                                    .memory_bytes = 1u << 20,
                                    .session_tokens_max = 1024,
                                    .tag = "second"};
    struct host second = host;
    assert_int_equal(abode_model_add(api->runtime, &desc, &second.model), 0);
    for (uint32_t i = 0; i < 1024; i++) { /* both push out both: nobody asks for the second's */
        item = item_of(&host, i, SLOT);
        assert_int_equal(put(i % 2 == 0 ? &host : &second, &item, 1, 0), 0);
    }
    for (int count = 1; count > 0; seen += (uint32_t)count) {
        count = abode_cache_events(api->runtime, host.model, keys, 64, &lost);
        assert_in_range(count, 0, 64);
    }
    uint32_t gone = 0;
    for (uint32_t i = 0; i < 1024; i += 2) {
        name = api_name(i);
        gone += abode_cache_probe(api->runtime, host.model, &name, 1, NULL) == 0;
    }
    assert_true(gone > 0);
    assert_int_equal(seen, gone);
    host_free(&host);
}

static void regions(void **state)
{
    struct host host = host_make(state);
    struct abode *runtime = host.api->runtime;
    uint32_t region = 77;
    const struct abode_region good = {
        .struct_size = sizeof(good), .node = -1, .base = host.memory, .bytes = 4096};
    struct abode_region bad[] = {good, good, good, good, good, good};
    void *planes[2] = {host.memory, host.memory + 65536};
    uint64_t strides[2] = {1024, 1024};
    uint32_t bytes[2] = {1000, 600};
    bad[0].struct_size = 1;
    bad[1].bytes = 0;
    bad[2].base = NULL;
    bad[3].memory = 2;
    bad[4].plane_count = 2; /* without planes */
    bad[5].plane_count = ABODE_PLANES_MAX + 1;
    for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
        int status = abode_region_add(runtime, &bad[i], &region);
        if (status != -EINVAL) {
            print_error("row %zu: %d\n", i, status);
        }
        assert_int_equal(status, -EINVAL);
    }
    struct abode_region cuda = good;
    cuda.memory = ABODE_CUDA;
    assert_int_equal(abode_region_add(runtime, &cuda, &region), -ENOTSUP);
    assert_int_equal(region, 77);
    assert_true(abode_region_remove(runtime, 63) < 0);
    assert_true(abode_region_remove(runtime, UINT32_MAX) < 0);
    struct abode_region planar = {.struct_size = sizeof(planar),
                                  .node = -1,
                                  .planes = planes,
                                  .plane_strides = strides,
                                  .plane_bytes = bytes,
                                  .plane_count = 2,
                                  .frame_count = 40};
    assert_int_equal(abode_region_add(runtime, &planar, &region), 0);
    for (uint32_t i = 0; i < 3; i++) { /* of the last frame, and of those that are not there */
        struct abode_item item = {
            .key = api_name(500 + i), .offset = 39 + i, .bytes = 1600, .region = region};
        fill(host.memory + 39 * 1024, 1000, 1);
        fill(host.memory + 65536 + 39 * 1024, 600, 2);
        assert_int_equal(put(&host, &item, 1, 0), i == 0 ? 0 : -ABODE_EPARTIAL);
        assert_int_equal(item.status, i == 0 ? 0 : -EINVAL);
    }
    struct abode_item item = {.key = api_name(500), .offset = 3, .bytes = 1600, .region = region};
    uint32_t count;
    assert_int_equal(get(&host, &item, 1, &count), 0);
    assert_memory_equal(host.memory + 3 * 1024, host.memory + 39 * 1024, 1000);
    assert_memory_equal(host.memory + 65536 + 3 * 1024, host.memory + 65536 + 39 * 1024, 600);
    assert_int_equal(abode_region_remove(runtime, region), 0);
    assert_true(abode_region_remove(runtime, region) < 0); /* twice */
    assert_int_equal(get(&host, &item, 1, &count), -ABODE_EPARTIAL);
    assert_int_equal(item.status, -EINVAL);
    host_free(&host);
}

/* A drop may wait in its task's record while others commit: who had the number meanwhile would be in
 * the journal before the drop, and be dropped by it in a replay. */
static void a_number_is_free_when_its_drop_is_said(void **state)
{
    struct host host = host_make(state);
    struct abode_item item = item_of(&host, 1, 5000);
    fill(host.memory + item.offset, 5000, 1);
    assert_int_equal(put(&host, &item, 1, ABODE_DURABLE), 0);
    struct ab_kv *kv = host.api->runtime->kv;
    ab_lock_take(&kv->lock);
    uint32_t index = 0;
    while ((kv->blocks[index].flags & AB_BLOCK_USED) == 0 ||
           !ab_block_is_stored(&kv->blocks[index])) {
        index++;
    }
    const uint8_t component = kv->blocks[index].component;
    struct ab_record *record = ab_record_new(kv);
    ab_record_block_drop(record, index);
    const uint32_t early = ab_block_new(kv, component);
    ab_block_free(kv, early);
    ab_record_submit(record, AB_PROMISE_WRITTEN);
    const uint32_t later = ab_block_new(kv, component);
    ab_block_free(kv, later);
    ab_lock_drop(&kv->lock);
    assert_int_not_equal(early, index);
    assert_int_equal(later, index);
    host_free(&host);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, api_up, api_down)
    const struct CMUnitTest tests[] = {
        TEST(items_come_back),
        TEST(bad_items_harm_no_good_ones),
        TEST(misses_and_small_rooms),
        TEST(deleted_is_gone_for_good),
        TEST(delete_that_failed_is_not_acknowledged_when_tried_again),
        TEST(corrupt_item_is_refused_and_replaced),
        TEST(damage_that_verify_finds_is_an_event),
        TEST(more_than_there_is_room_for),
        TEST(put_of_what_is_being_spilled),
        TEST(memory_comes_back_in_a_full_store),
        TEST(durable_put_of_what_was_only_written),
        TEST(no_room_and_nothing_to_give_way),
        TEST(failed_put_leaves_what_was_there),
        TEST(events_of_keys_from_before_the_open),
        TEST(events_are_by_model),
        TEST(a_number_is_free_when_its_drop_is_said),
        TEST(regions),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
