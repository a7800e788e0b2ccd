/*
 * cache_host.c - see cache_host.h.
 */
#include "cache_host.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define STORE_SPARE_BYTES ((uint64_t)512 << 20) /* headers, journal, segments half filled */

static void host_log(void *context, int level, const char *line)
{
    (void)context;
    if (level <= ABODE_LOG_WARNING) {
        bench_say("abode: %s", line);
    }
}

static int runtime_open(const struct cache_plan *plan, struct abode **ret)
{
    struct abode_config config;
    abode_config_init(&config);
    const uint64_t bytes = (uint64_t)plan->item_bytes * plan->item_count;
    config.memory_bytes_max = plan->memory_bytes;
    config.block_count_max = plan->item_count + plan->item_count / 8 + CACHE_HOST_BATCH;
    if (plan->dir != NULL) {
        config.flags = ABODE_CREATE;
        config.store_bytes_max = bytes + bytes / 4 + STORE_SPARE_BYTES;
        config.store_paths = &plan->dir;
        config.store_path_count = 1;
    }
    config.log = host_log;
    return abode_open(&config, ret);
}

static int model_add(struct cache_host *host)
{
    const struct abode_component component = {.kind = ABODE_BYTES,
                                              .bytes_max = host->plan.item_bytes};
    const struct abode_model_desc model = {.struct_size = sizeof(model),
                                           .component_count = 1,
                                           .components = &component,
                                           .block_tokens = 16,
                                           .tag = "bench_cache"};
    return abode_model_add(host->runtime, &model, &host->model);
}

static size_t source_bytes(const struct cache_plan *plan)
{
    return (size_t)plan->item_bytes * CACHE_HOST_BATCH * CACHE_HOST_OPS;
}

int cache_host_open(const struct cache_plan *plan, struct cache_host *ret)
{
    memset(ret, 0, sizeof(*ret));
    ret->plan = *plan;
    int code = bench_memory_get(source_bytes(plan), &ret->source);
    code = code < 0 ? code : runtime_open(plan, &ret->runtime);
    if (code == 0) {
        const struct abode_region region = {.struct_size = sizeof(region),
                                            .memory = ABODE_HOST,
                                            .node = -1,
                                            .base = ret->source,
                                            .bytes = source_bytes(plan)};
        bench_fill(ret->source, source_bytes(plan), 1);
        ret->items = calloc((size_t)CACHE_HOST_BATCH * CACHE_HOST_OPS, sizeof(*ret->items));
        code = ret->items == NULL ? -ENOMEM : model_add(ret);
        code = code < 0 ? code : abode_region_add(ret->runtime, &region, &ret->region);
        code = code < 0 ? code : abode_queue_open(ret->runtime, CACHE_HOST_OPS, &ret->queue);
    }
    if (code < 0) {
        (void)cache_host_close(ret);
    }
    return code;
}

int cache_host_close(struct cache_host *host)
{
    int code = host->queue == NULL ? 0 : abode_queue_close(host->queue);
    if (host->runtime != NULL) {
        const int closed = abode_close(host->runtime);
        code = code < 0 ? code : closed;
    }
    free(host->items);
    if (host->source != NULL) {
        bench_memory_put(host->source, source_bytes(&host->plan));
    }
    return code;
}

struct abode_key cache_host_key(uint32_t number)
{
    struct abode_key key = {{0}};
    uint64_t state = number;
    for (size_t i = 0; i < sizeof(key.bytes); i += sizeof(uint64_t)) {
        const uint64_t word = bench_random(&state);
        memcpy(&key.bytes[i], &word, sizeof(word));
    }
    return key;
}

static int batch_start(struct cache_host *host, uint32_t place, uint32_t first, uint32_t count)
{
    struct abode_item *items = host->items + (size_t)place * CACHE_HOST_BATCH;
    for (uint32_t i = 0; i < count; i++) {
        items[i] = (struct abode_item){.key = cache_host_key(first + i),
                                       .offset = ((uint64_t)place * CACHE_HOST_BATCH + i) *
                                                 host->plan.item_bytes,
                                       .bytes = host->plan.item_bytes,
                                       .region = host->region};
    }
    memset(&host->ops[place], 0, sizeof(host->ops[place]));
    return abode_cache_put(host->queue, host->model, items, count, 0, &host->ops[place]);
}

int cache_host_put(struct cache_host *host, uint32_t first, uint32_t count)
{
    uint32_t idle[CACHE_HOST_OPS], idle_count = CACHE_HOST_OPS, at = 0;
    int code = 0;
    for (uint32_t i = 0; i < CACHE_HOST_OPS; i++) {
        idle[i] = i;
    }
    while ((at < count && code == 0) || idle_count < CACHE_HOST_OPS) {
        if (at < count && code == 0 && idle_count > 0) {
            const uint32_t some = count - at < CACHE_HOST_BATCH ? count - at : CACHE_HOST_BATCH;
            code = batch_start(host, idle[idle_count - 1], first + at, some);
            at += some;
            idle_count -= code == 0;
            continue;
        }
        struct abode_op *done[CACHE_HOST_OPS];
        const int finished = abode_poll(host->queue, done, CACHE_HOST_OPS, -1);
        if (finished < 0) {
            return finished;
        }
        for (int i = 0; i < finished; i++) {
            idle[idle_count++] = (uint32_t)(done[i] - host->ops);
            code = code == 0 ? done[i]->status : code;
        }
    }
    return code;
}

int cache_host_stats(const struct cache_host *host, struct abode_stats *ret)
{
    memset(ret, 0, sizeof(*ret));
    ret->struct_size = sizeof(*ret);
    return abode_stats_get(host->runtime, ret);
}
