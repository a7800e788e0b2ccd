/*
 * evict.c - see evict.h. Pure.
 */
#include "kv/evict.h"

/* An expected use later than this counts as far: evict before plain LRU. Guess: a person's pause. */
#define NEXT_USE_FAR_NS (30ull * 1000 * 1000 * 1000)

static uint32_t rank(const struct ab_evict_candidate *candidate, uint64_t now_ns)
{
    if (candidate->ended) {
        return 0;
    }
    if (candidate->keep_until_ns > now_ns) {
        return 4;
    }
    if (candidate->next_use_ns == 0) {
        return 2;
    }
    /* overdue: the expectation failed, plain LRU; soon: keep it a little */
    if (candidate->next_use_ns <= now_ns) {
        return 2;
    }
    return candidate->next_use_ns - now_ns > NEXT_USE_FAR_NS ? 1 : 3;
}

uint32_t ab_evict_pick(const struct ab_evict_candidate *candidates, uint32_t count, uint64_t now_ns,
                       bool must)
{
    uint32_t best = count, best_rank = must ? 5 : 4;
    for (uint32_t i = 0; i < count; i++) {
        uint32_t r = rank(&candidates[i], now_ns);
        if (r < best_rank) { /* ties go to the colder one, which came first */
            best_rank = r;
            best = i;
        }
    }
    return best;
}
