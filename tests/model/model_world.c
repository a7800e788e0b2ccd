/*
 * model_world.c - the world of the model test: random numbers, content, opening and closing.
 */
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "world.h"

struct world world;

void model_failed(void)
{
    printf("\n0 passed, 1 failed, 0 skipped\n");
    exit(1);
}

uint64_t model_random(void)
{
    uint64_t z = world.random += 0x9e3779b97f4a7c15ull;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return z ^ (z >> 31);
}

uint32_t model_below(uint32_t limit)
{
    return (uint32_t)(model_random() % limit);
}

/* ---- content: a function of what it stands for ---- */

void model_fill(unsigned char *target, size_t bytes, uint64_t salt)
{
    for (size_t i = 0; i < bytes; i++) {
        target[i] = (unsigned char)((salt + i) * 0x9e3779b97f4a7c15ull >> 56);
    }
}

void model_expect_bytes(const unsigned char *bytes, size_t count, uint64_t salt, const char *what)
{
    for (size_t i = 0; i < count; i++) {
        if (bytes[i] != (unsigned char)((salt + i) * 0x9e3779b97f4a7c15ull >> 56)) {
            FAIL("wrong byte %zu of %s", i, what);
        }
    }
    world.checked_bytes += count;
}

uint64_t model_number_from(const char *environment, uint64_t otherwise)
{
    const char *text = getenv(environment);
    return text != NULL ? strtoull(text, NULL, 10) : otherwise;
}

void model_nap(void)
{
    struct timespec time = {.tv_nsec = 100000};
    (void)nanosleep(&time, NULL);
}

int model_finish(struct abode_op *op)
{
    struct abode_op *done;
    int count = abode_poll(world.queue, &done, 1, 300ll * 1000 * 1000 * 1000);
    if (count != 1 || done != op) {
        FAIL("an op did not come back (%d)", count);
    }
    return op->status;
}

/* ---- open and close ---- */

static void log_line(void *context, int level, const char *line)
{
    (void)context;
    if (level == ABODE_LOG_ERROR) {
        printf("log: %s\n", line);
    }
}

static void models_add(void)
{
    const struct abode_plane paged[2] = {{BLOCK_TOKENS * PAGED_BYTES / 2, 0},
                                         {BLOCK_TOKENS * PAGED_BYTES / 2, 0}};
    const struct abode_plane window[1] = {{BLOCK_TOKENS * WINDOW_BYTES, 0}};
    const struct abode_plane state[1] = {{STATE_BYTES, 0}};
    const struct abode_component hybrid[4] = {
        {.kind = ABODE_PAGED, .plane_count = 2, .planes = paged},
        {.kind = ABODE_WINDOW, .window_tokens = WINDOW_TOKENS, .plane_count = 1, .planes = window},
        {.kind = ABODE_SNAPSHOT, .snapshots_kept = 2, .plane_count = 1, .planes = state},
        {.kind = ABODE_BYTES, .bytes_max = 8192}};
    const struct abode_component cache[1] = {{.kind = ABODE_BYTES, .bytes_max = ITEM_ROOM}};
    struct abode_model_desc desc = {.struct_size = sizeof(desc),
                                    .component_count = 4,
                                    .components = hybrid,
                                    .block_tokens = BLOCK_TOKENS,
                                    .session_tokens_max = 4096,
                                    .session_tokens_typical = 200,
                                    .memory_bytes = 6u << 20};
    desc.tag[0] = 1;
    EXPECT_STATUS(abode_model_add(world.runtime, &desc, &world.models[0]), 0);
    desc.tag[0] = 2;
    desc.component_count = 1;
    desc.memory_bytes = 3u << 20;
    EXPECT_STATUS(abode_model_add(world.runtime, &desc, &world.models[1]), 0);
    desc.tag[0] = 3;
    desc.components = cache;
    desc.memory_bytes = 1u << 20;
    EXPECT_STATUS(abode_model_add(world.runtime, &desc, &world.cache_model), 0);
    EXPECT_STATUS(abode_model_add(world.runtime, &desc, &world.cache_model), -EEXIST);
}

uint32_t model_plane_bytes(uint32_t plane)
{
    static const uint32_t bytes[PLANES] = {3000, 5000, 100};
    return bytes[plane];
}

static void regions_add(void)
{
    struct abode_region region = {
        .struct_size = sizeof(region), .node = -1, .base = world.memory, .bytes = 5 * 65536};
    EXPECT_STATUS(abode_region_add(world.runtime, &region, &world.region), 0);
    void *planes[PLANES];
    uint64_t strides[PLANES];
    uint32_t bytes[PLANES];
    unsigned char *at = world.planes;
    for (uint32_t p = 0; p < PLANES; p++) {
        planes[p] = at;
        bytes[p] = model_plane_bytes(p);
        strides[p] = bytes[p] + 24; /* not packed */
        at += PLANAR_FRAMES * strides[p];
    }
    struct abode_region planar = {.struct_size = sizeof(planar),
                                  .node = -1,
                                  .planes = planes,
                                  .plane_strides = strides,
                                  .plane_bytes = bytes,
                                  .plane_count = PLANES,
                                  .frame_count = PLANAR_FRAMES};
    EXPECT_STATUS(abode_region_add(world.runtime, &planar, &world.planar), 0);
}

void model_open(void)
{
    const char *paths[1] = {world.directory};
    struct abode_config config;
    abode_config_init(&config);
    world.keeps_keys = model_below(2) == 0;
    config.flags = ABODE_CREATE | (world.keeps_keys ? ABODE_KEEP_KEYS : 0);
    config.memory_bytes_max = 16u << 20;
    config.store_paths = paths;
    config.store_path_count = 1;
    config.store_bytes_max = 160u << 20;
    config.segment_bytes = 4u << 20;
    config.io = (uint32_t)model_number_from("ABODE_TEST_IO", ABODE_IO_AUTO);
    config.log = log_line;
    EXPECT_STATUS(abode_open(&config, &world.runtime), 0);
    models_add();
    regions_add();
    EXPECT_STATUS(abode_queue_open(world.runtime, OPS_MAX, &world.queue), 0);
}

void model_close(void)
{
    struct abode_stats stats;
    EXPECT_STATUS(abode_stats_get(world.runtime, &stats), 0);
    EXPECT(stats.checksum_failures == 0);
    EXPECT(stats.io_errors == 0);
    world.evicted += stats.blocks_evicted;
    world.restored += stats.bytes_restored;
    EXPECT_STATUS(abode_queue_close(world.queue), 0);
    EXPECT_STATUS(abode_close(world.runtime), 0);
}
