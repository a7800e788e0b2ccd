/*
 * place.h - which node: pure decisions, no state, no effects.
 */
#ifndef AB_KV_PLACE_H
#define AB_KV_PLACE_H

#include "machine/topology.h"

struct ab_place_order {
    uint32_t count;
    uint32_t nodes[AB_NODES_MAX];
};
/* Nodes of the mask, the wanted one first, the others by distance from it, then by number.
 * wanted -1 (or outside the mask): the lowest node of the mask that has CPUs counts as wanted. */
void ab_place_nodes(const struct ab_topology *topology, uint64_t mask, int32_t wanted,
                    struct ab_place_order *ret);

/* Home of a new session: the wanted node if the mask has it, else the node of the mask with the largest
 * share of free frames; ties go to the lower number. */
int32_t ab_place_home(uint64_t mask, int32_t wanted, const uint64_t *free_bytes,
                      const uint64_t *total_bytes, uint32_t node_count);

/* Share `budget` among components: those with a wish get it, the rest goes by weight (bytes of a
 * typical session). ret_bytes[i] <= what is left; false: the wishes exceed the budget. */
bool ab_place_share(uint64_t budget, const uint64_t *wishes, const uint64_t *weights,
                    uint32_t count, uint64_t *ret_bytes);

#endif
