/*
 * evict.h - which session's frames go first: a pure decision over a few candidates.
 *
 * LRU among sessions, and within a session tail blocks first (reclaim.c walks rows from the end):
 * on recorded session workloads that beats frequency-based policies, because dead sessions leave
 * popular blocks behind. What the host said of a session corrects it: ENDED goes at once, KEEP is
 * passed over while it lasts, an expected next use far away goes before one that is near.
 */
#ifndef AB_KV_EVICT_H
#define AB_KV_EVICT_H

#include <stdbool.h>
#include <stdint.h>

struct ab_evict_candidate {
    bool ended;
    uint64_t keep_until_ns; /* 0: not kept */
    uint64_t next_use_ns;   /* expected; 0: unknown */
};
/* Candidates come coldest first. Returns the index of the one to evict; count: none (all kept and
 * `must` is not set). must: memory is needed now, KEEP gives way. */
uint32_t ab_evict_pick(const struct ab_evict_candidate *candidates, uint32_t count, uint64_t now_ns,
                       bool must);

#endif
