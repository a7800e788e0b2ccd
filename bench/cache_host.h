/*
 * cache_host.h - a host of the cache face through the public header: one runtime, items of one size,
 * named by numbers, for benches that need very many blocks.
 *
 * All int results: 0, or a negative code of abode. One thread.
 */
#ifndef BENCH_CACHE_HOST_H
#define BENCH_CACHE_HOST_H

#include "abode/abode.h"
#include "bench_common.h"

#define CACHE_HOST_BATCH 1024 /* items of one op */
#define CACHE_HOST_OPS 4      /* in flight */

struct cache_plan {
    const char *dir; /* of the store; NULL: memory only */
    uint32_t item_bytes;
    uint32_t item_count; /* most that it will hold */
    uint64_t memory_bytes;
};
struct cache_host {
    struct cache_plan plan;
    struct abode *runtime;
    struct abode_queue *queue;
    uint32_t model, region;
    void *source; /* what all items are copied from: CACHE_HOST_OPS batches */
    struct abode_item *items;
    struct abode_op ops[CACHE_HOST_OPS];
};
BENCH_MUST_CHECK int cache_host_open(const struct cache_plan *plan, struct cache_host *ret);
int cache_host_close(struct cache_host *host); /* the store's directory stays */
struct abode_key cache_host_key(uint32_t number);
/* Items first .. first + count - 1. With a store: WRITTEN, else MEM. */
BENCH_MUST_CHECK int cache_host_put(struct cache_host *host, uint32_t first, uint32_t count);
BENCH_MUST_CHECK int cache_host_stats(const struct cache_host *host, struct abode_stats *ret);

#endif
