/*
 * reclaim.h - frames back from cold state. Decisions are evict.c's; this walks and frees.
 * Lock KV held.
 */
#ifndef AB_KV_RECLAIM_H
#define AB_KV_RECLAIM_H

#include "kv/kv.h"

struct ab_record;

#define AB_RECLAIM_INLINE 8 /* frames that one call inside a host's call may free */
#define AB_RECLAIM_BATCH 64

/* Free up to `wanted` clean frames of a component on a node. Returns how many. */
uint32_t ab_reclaim_clean(struct ab_kv *kv, struct ab_component *component, uint32_t node,
                          uint32_t wanted);
/* Clean frames of one session's component on a node, last rows first; returns how many. */
uint32_t ab_reclaim_session(struct ab_kv *kv, struct ab_session *session, uint32_t component,
                            uint32_t node, uint32_t wanted);
/* Delete sessions that their host called ended until about `pages` pages of the store came free (64 of
 * them at most); returns pages. */
uint64_t ab_reclaim_ended(struct ab_kv *kv, struct ab_record *record, uint64_t pages);
/* The coldest detached session that has dirty frames of the component and no spill in flight;
 * AB_INDEX_NONE: none. must: sessions under KEEP too. */
uint32_t ab_reclaim_spill_pick(struct ab_kv *kv, const struct ab_component *component, bool must);
/* An unowned dirty block (cache item in memory only) of the component, old; AB_INDEX_NONE. */
uint32_t ab_reclaim_item_pick(struct ab_kv *kv, const struct ab_component *component);
/* Is there a frame of the component that is not pinned, so that waiting can help? */
bool ab_reclaim_can(struct ab_kv *kv, const struct ab_component *component);
/* A stored block that no session owns, the oldest of a sample; AB_INDEX_NONE. */
uint32_t ab_reclaim_stored_pick(struct ab_kv *kv);

/* The store is full and the task waits for room: sync; then compact, one segment a try; then (ended)
 * delete sessions that ended. The task is stepped again when that is durable: only then are slots
 * free. false: all has been tried. */
bool ab_reclaim_room(struct ab_task *task, bool ended);

#endif
