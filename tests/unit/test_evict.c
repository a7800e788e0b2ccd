/*
 * test_evict.c - which session's frames go first: the table of evict.c.
 *
 * Goal: LRU, corrected by what the host said; no candidate is chosen that KEEP protects unless
 * memory is needed now. Method: a table; times stand on both sides of each bound.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
// clang-format off
#include <cmocka.h>
// clang-format on

#include "base/num.h"
#include "kv/evict.h"

#define NOW 1000000000000ull
#define FAR (30ull * 1000000000)

#define PLAIN       \
    {               \
        false, 0, 0 \
    }
#define ENDED      \
    {              \
        true, 0, 0 \
    }
#define KEPT              \
    {                     \
        false, NOW + 1, 0 \
    }
#define USED_AT(time)    \
    {                    \
        false, 0, (time) \
    }

static void table(void **state)
{
    (void)state;
    static const struct {
        struct ab_evict_candidate candidates[4];
        uint32_t count, pick, pick_must;
    } rows[] = {
        {{PLAIN}, 0, 0, 0}, /* nobody */
        {{PLAIN, PLAIN, PLAIN}, 3, 0, 0},
        {{PLAIN, ENDED, PLAIN}, 3, 1, 1},
        {{ENDED, ENDED}, 2, 0, 0},
        {{KEPT, PLAIN}, 2, 1, 1},
        {{KEPT, KEPT}, 2, 2, 0},                    /* only a must evicts what is kept */
        {{{false, NOW, 0}, PLAIN}, 2, 0, 0},        /* kept until now: no more */
        {{{true, NOW + 1, 0}, PLAIN}, 2, 0, 0},     /* ended beats kept */
        {{PLAIN, USED_AT(NOW + FAR + 1)}, 2, 1, 1}, /* far: before plain LRU */
        {{PLAIN, USED_AT(NOW + FAR)}, 2, 0, 0},     /* on the bound: near */
        {{USED_AT(NOW + 1), PLAIN}, 2, 1, 1},       /* soon: after plain LRU */
        {{USED_AT(NOW), PLAIN}, 2, 0, 0},           /* due: the expectation failed */
        {{USED_AT(1), PLAIN}, 2, 0, 0},
        {{USED_AT(UINT64_MAX), PLAIN}, 2, 0, 0},
        {{USED_AT(NOW + 1), KEPT, USED_AT(NOW + 2)}, 3, 0, 0},
        {{KEPT, USED_AT(NOW + 1), PLAIN, USED_AT(NOW + FAR + 9)}, 4, 3, 3},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
        const struct ab_evict_candidate *candidates = rows[i].candidates;
        assert_int_equal(ab_evict_pick(candidates, rows[i].count, NOW, false), rows[i].pick);
        assert_int_equal(ab_evict_pick(candidates, rows[i].count, NOW, true), rows[i].pick_must);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(table)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
