/*
 * test_place.c - which node: the tables of place.c.
 *
 * Goal: a wanted node is taken when it may be, everything else goes by distance, share of free
 * memory, then number; no input makes a decision outside the mask. Method: tables over synthetic
 * topologies; the edges are a mask without the wanted node, nodes without memory, a sum that
 * overflows.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
// clang-format off
#include <cmocka.h>
// clang-format on

#include "base/num.h"
#include "kv/place.h"

static struct ab_topology *topology_of(const char *source)
{
    const struct ab_log log = {0};
    struct ab_topology *topology = NULL;
    assert_int_equal(ab_topology_open(ab_os_default(), &log, source, &topology), 0);
    return topology;
}

static void nodes_are_ordered(void **state)
{
    (void)state;
    struct ab_topology *topology = topology_of("synthetic:pack:4 [numa] core:2 pu:1");
    assert_int_equal(ab_topology_node_count(topology), 4);
    static const struct {
        uint64_t mask;
        int32_t wanted;
        uint32_t count, first;
    } rows[] = {
        {0xf, 0, 4, 0},         {0xf, 3, 4, 3},         {0xf, -1, 4, 0}, {0xe, -1, 3, 1},
        {0xc, 0, 2, 2},         {0x8, 3, 1, 3},         {0xf, 4, 4, 0},  {0xf, INT32_MAX, 4, 0},
        {0xf, INT32_MIN, 4, 0}, {UINT64_MAX, 63, 4, 0}, {0x5, 1, 2, 0},  {0, 0, 0, 0},
        {0x30, -1, 0, 0}, /* only nodes that are not there */
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
        struct ab_place_order order;
        ab_place_nodes(topology, rows[i].mask, rows[i].wanted, &order);
        assert_int_equal(order.count, rows[i].count);
        uint64_t seen = 0;
        for (uint32_t n = 0; n < order.count; n++) {
            assert_true((rows[i].mask >> order.nodes[n] & 1) != 0 && order.nodes[n] < 4);
            seen |= 1ull << order.nodes[n];
        }
        assert_int_equal(__builtin_popcountll(seen), order.count); /* each once */
        assert_true(order.count == 0 || order.nodes[0] == rows[i].first);
        for (uint32_t n = 2; n < order.count; n++) { /* all are as far: then by number */
            assert_true(order.nodes[n - 1] < order.nodes[n]);
        }
    }
    ab_topology_close(topology);
}

static void home_is_where_most_is_free(void **state)
{
    (void)state;
    static const struct {
        uint64_t mask;
        int32_t wanted;
        uint64_t free_bytes[4], total_bytes[4];
        int32_t home;
    } rows[] = {
        {0xf, 2, {9, 9, 0, 9}, {10, 10, 10, 10}, 2},    /* a full wanted node is still wanted */
        {0xb, 2, {5, 5, 9, 6}, {10, 10, 10, 10}, 3},    /* not in the mask: the emptiest */
        {0xf, -1, {5, 5, 5, 5}, {10, 10, 10, 10}, 0},   /* ties: the lower number */
        {0xe, -1, {9, 5, 5, 5}, {10, 10, 10, 10}, 1},   /* ... of the mask */
        {0xf, -1, {9, 80, 5, 5}, {10, 100, 10, 10}, 0}, /* shares, not bytes */
        {0xf, -1, {0, 0, 0, 0}, {0, 0, 10, 10}, 0},     /* no memory at all: still a node */
        {0xf, -1, {0, 1, 0, 0}, {0, 10, 10, 10}, 1},    /* a node without frames never wins */
        {0xf, 4, {1, 2, 3, 4}, {10, 10, 10, 10}, 3},    /* a node that is not there */
        {0xf, INT32_MAX, {4, 3, 2, 1}, {10, 10, 10, 10}, 0},
        {0, 0, {1, 1, 1, 1}, {1, 1, 1, 1}, -1}, /* nothing allowed */
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
        assert_int_equal(
            ab_place_home(rows[i].mask, rows[i].wanted, rows[i].free_bytes, rows[i].total_bytes, 4),
            rows[i].home);
    }
}

static void memory_is_shared_by_wish_then_weight(void **state)
{
    (void)state;
    static const struct {
        uint64_t budget, wishes[3], weights[3], shares[3];
        bool fits;
    } rows[] = {
        {100, {0, 0, 0}, {1, 1, 2}, {25, 25, 50}, true},
        {100, {40, 0, 0}, {9, 1, 2}, {40, 20, 40}, true}, /* a wish does not weigh */
        {100, {40, 60, 0}, {1, 1, 1}, {40, 60, 0}, true}, /* all is wished away */
        {100, {40, 60, 1}, {1, 1, 1}, {0}, false},
        {100, {100, 0, 0}, {1, 0, 0}, {100, 0, 0}, true},
        {100, {0, 0, 0}, {0, 0, 0}, {0, 0, 0}, true},
        {0, {0, 0, 0}, {1, 1, 1}, {0, 0, 0}, true},
        {UINT64_MAX, {UINT64_MAX, 1, 0}, {1, 1, 1}, {0}, false}, /* the sum overflows */
        {1ull << 46, {0, 0, 0}, {1ull << 62, 1ull << 62, 1ull << 62}, {0}, true},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
        uint64_t shares[3] = {0};
        assert_int_equal(ab_place_share(rows[i].budget, rows[i].wishes, rows[i].weights, 3, shares),
                         rows[i].fits);
        assert_true(!rows[i].fits || shares[0] + shares[1] + shares[2] <= rows[i].budget);
        for (uint32_t c = 0; c < 3 && i + 1 < sizeof(rows) / sizeof(*rows); c++) {
            assert_int_equal(shares[c], rows[i].shares[c]);
        }
    }
}

static void shares_never_exceed_the_budget(void **state)
{
    (void)state;
    /* budgets past 2^53, where doubles round: the sum of shares may not round up over the budget */
    for (uint64_t budget = (1ull << 53) - 3; budget < (1ull << 53) + 70; budget++) {
        const uint64_t wishes[2] = {0, 0}, weights[2] = {1, 0};
        uint64_t shares[2];
        assert_true(ab_place_share(budget, wishes, weights, 2, shares));
        assert_true(shares[0] <= budget && shares[1] <= budget - shares[0]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nodes_are_ordered),
        cmocka_unit_test(home_is_where_most_is_free),
        cmocka_unit_test(memory_is_shared_by_wish_then_weight),
        cmocka_unit_test(shares_never_exceed_the_budget),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
