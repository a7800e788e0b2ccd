/*
 * cache.h - the block cache face: put, get, probe, delete, touch, events. See abode.h.
 */
#ifndef AB_KV_CACHE_H
#define AB_KV_CACHE_H

#include "kv/transfer.h"

int ab_region_add(struct ab_kv *kv, const struct abode_region *region,
                  uint32_t *ret_region) AB_MUST_CHECK;
int ab_region_remove(struct ab_kv *kv, uint32_t region) AB_MUST_CHECK;
struct ab_region *ab_region_get(struct ab_kv *kv, uint32_t region); /* NULL: no such; KV held */
void ab_regions_close(struct ab_kv *kv);

int ab_cache_probe(struct ab_kv *kv, uint32_t model, const struct abode_key *keys,
                   uint32_t key_count, uint8_t *ret_presence) AB_MUST_CHECK;
int ab_cache_put(struct abode_queue *queue, uint32_t model, struct abode_item *items,
                 uint32_t item_count, uint32_t durability, struct abode_op *op) AB_MUST_CHECK;
int ab_cache_get(struct abode_queue *queue, uint32_t model, struct abode_item *items,
                 uint32_t item_count, struct abode_op *op) AB_MUST_CHECK;
int ab_cache_delete(struct abode_queue *queue, uint32_t model, const struct abode_key *keys,
                    uint32_t key_count, struct abode_op *op) AB_MUST_CHECK;
void ab_cache_touch(struct ab_kv *kv, uint32_t model, const struct abode_key *keys,
                    uint32_t key_count);
int ab_cache_events(struct ab_kv *kv, uint32_t model, struct abode_key *ret_keys, uint32_t capacity,
                    uint64_t *ret_lost) AB_MUST_CHECK;

#endif
