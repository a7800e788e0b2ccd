/*
 * place.c - see place.h. Pure functions, tested by table.
 */
#include "kv/place.h"

#include "base/num.h"

static uint32_t lowest_node(const struct ab_topology *topology, uint64_t mask)
{
    uint32_t first = AB_INDEX_NONE;
    for (uint32_t i = 0; i < ab_topology_node_count(topology); i++) {
        if ((mask >> i & 1) == 0) {
            continue;
        }
        if (ab_topology_node(topology, i)->cpu_count > 0) {
            return i;
        }
        first = first == AB_INDEX_NONE ? i : first;
    }
    return first == AB_INDEX_NONE ? 0 : first;
}

void ab_place_nodes(const struct ab_topology *topology, uint64_t mask, int32_t wanted,
                    struct ab_place_order *ret)
{
    uint32_t node_count = ab_topology_node_count(topology);
    uint32_t from = wanted >= 0 && (uint32_t)wanted < node_count && (mask >> wanted & 1)
                        ? (uint32_t)wanted
                        : lowest_node(topology, mask);
    uint32_t distances[AB_NODES_MAX];
    ret->count = 0;
    for (uint32_t i = 0; i < node_count && i < AB_NODES_MAX; i++) {
        if ((mask >> i & 1) == 0) {
            continue;
        }
        uint32_t distance = i == from ? 0 : ab_topology_distance(topology, from, i);
        distance = i != from && distance == 0 ? UINT32_MAX : distance; /* unknown: last */
        uint32_t at = ret->count++;
        for (; at > 0 && distances[at - 1] > distance; at--) { /* insertion keeps number order */
            distances[at] = distances[at - 1];
            ret->nodes[at] = ret->nodes[at - 1];
        }
        distances[at] = distance;
        ret->nodes[at] = i;
    }
}

int32_t ab_place_home(uint64_t mask, int32_t wanted, const uint64_t *free_bytes,
                      const uint64_t *total_bytes, uint32_t node_count)
{
    if (wanted >= 0 && (uint32_t)wanted < node_count && (mask >> wanted & 1)) {
        return wanted;
    }
    int32_t best = -1;
    double best_share = -1;
    for (uint32_t i = 0; i < node_count; i++) {
        if ((mask >> i & 1) == 0) {
            continue;
        }
        double share = total_bytes[i] == 0 ? 0 : (double)free_bytes[i] / (double)total_bytes[i];
        if (share > best_share) {
            best_share = share;
            best = (int32_t)i;
        }
    }
    return best;
}

bool ab_place_share(uint64_t budget, const uint64_t *wishes, const uint64_t *weights,
                    uint32_t count, uint64_t *ret_bytes)
{
    uint64_t wished = 0;
    double weight_sum = 0;
    for (uint32_t i = 0; i < count; i++) {
        if (!ab_add_u64(wished, wishes[i], &wished)) {
            return false;
        }
        weight_sum += wishes[i] == 0 ? (double)weights[i] : 0;
    }
    if (wished > budget) {
        return false;
    }
    uint64_t left = budget - wished; /* doubles round up, the sum must not */
    for (uint32_t i = 0; i < count; i++) {
        double share = weight_sum > 0 ? (double)weights[i] / weight_sum : 0;
        double bytes = (double)(budget - wished) * share;
        uint64_t weighed = bytes < (double)left ? (uint64_t)bytes : left;
        ret_bytes[i] = wishes[i] != 0 ? wishes[i] : AB_MIN(weighed, left);
        left -= wishes[i] != 0 ? 0 : ret_bytes[i];
    }
    return true;
}
