/*
 * test_num.c - goal: arithmetic on sizes from disk and config cannot wrap. Method: both sides of every
 * boundary, and random values against 128-bit arithmetic (ABODE_TEST_SEED takes a seed back).
 */
#include "base/num.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <time.h>

#include <cmocka.h>

#define ROUNDS 100000

static void sums_at_the_edge(void **state)
{
    (void)state;
    uint64_t sum = 77;
    assert_true(ab_add_u64(UINT64_MAX - 1, 1, &sum));
    assert_true(sum == UINT64_MAX);
    sum = 77;
    assert_false(ab_add_u64(UINT64_MAX, 1, &sum));
    assert_false(ab_add_u64(1ull << 63, 1ull << 63, &sum));
    assert_int_equal(sum, 77); /* written on success only */
    assert_true(ab_add_u64(0, 0, &sum));
    assert_int_equal(sum, 0);
}

static void products_at_the_edge(void **state)
{
    (void)state;
    uint64_t product = 77;
    assert_false(ab_mul_u64(1ull << 32, 1ull << 32, &product));
    assert_false(ab_mul_u64(UINT64_MAX, 2, &product));
    assert_int_equal(product, 77);
    assert_true(ab_mul_u64(1ull << 32, (1ull << 32) - 1, &product));
    assert_true(product == 0xffffffff00000000ull);
    assert_true(ab_mul_u64(UINT64_MAX, 0, &product));
    assert_int_equal(product, 0);
}

static uint64_t random_next(uint64_t *random)
{
    *random ^= *random << 13;
    *random ^= *random >> 7;
    *random ^= *random << 17;
    return *random >> (*random & 63); /* all magnitudes */
}

static void random_values_agree_with_wide_arithmetic(void **state)
{
    (void)state;
    const char *text = getenv("ABODE_TEST_SEED");
    uint64_t random = text != NULL ? strtoull(text, NULL, 0) : (uint64_t)time(NULL);
    print_message("seed %llu\n", (unsigned long long)random);
    random |= 1;
    for (int i = 0; i < ROUNDS; i++) {
        const uint64_t a = random_next(&random);
        const uint64_t b = random_next(&random);
        uint64_t result = 0;
        const unsigned __int128 sum = (unsigned __int128)a + b;
        const unsigned __int128 product = (unsigned __int128)a * b;
        assert_int_equal(ab_add_u64(a, b, &result), sum <= UINT64_MAX);
        assert_true(sum > UINT64_MAX || result == (uint64_t)sum);
        assert_int_equal(ab_mul_u64(a, b, &result), product <= UINT64_MAX);
        assert_true(product > UINT64_MAX || result == (uint64_t)product);
        if (b != 0) {
            const unsigned __int128 up = ((unsigned __int128)a + b - 1) / b;
            assert_true(ab_div_up(a, b) == (uint64_t)up);
        }
    }
}

static void powers_of_two(void **state)
{
    (void)state;
    assert_false(ab_is_pow2(0));
    for (int bit = 0; bit < 64; bit++) {
        const uint64_t value = 1ull << bit;
        assert_true(ab_is_pow2(value));
        assert_false(bit > 1 && ab_is_pow2(value - 1));
        assert_false(bit > 0 && ab_is_pow2(value + 1));
    }
    assert_false(ab_is_pow2(UINT64_MAX));
}

static void alignment_and_division(void **state)
{
    (void)state;
    assert_int_equal(ab_align_up(0, 4096), 0);
    assert_int_equal(ab_align_up(1, 4096), 4096);
    assert_int_equal(ab_align_up(4096, 4096), 4096);
    assert_int_equal(ab_align_up(4097, 4096), 8192);
    assert_int_equal(ab_align_up(13, 1), 13);
    assert_int_equal(ab_align_down(4095, 4096), 0);
    assert_int_equal(ab_align_down(8191, 4096), 4096);
    assert_true(ab_align_down(UINT64_MAX, 1ull << 63) == 1ull << 63);
    assert_int_equal(ab_div_up(0, 7), 0);
    assert_int_equal(ab_div_up(7, 7), 1);
    assert_int_equal(ab_div_up(8, 7), 2);
    assert_true(ab_div_up(UINT64_MAX, 2) == 1ull << 63); /* (a + b - 1) / b would wrap */
    assert_true(ab_div_up(UINT64_MAX, UINT64_MAX) == 1);
}

struct outer {
    char before[13];
    uint32_t member;
};

static void containers_and_counts(void **state)
{
    (void)state;
    struct outer outer = {.member = 5};
    assert_ptr_equal(ab_container_of(&outer.member, struct outer, member), &outer);
    const uint16_t five[5] = {0};
    assert_int_equal(AB_COUNT(five), 5);
    assert_int_equal(AB_MIN(-1, 2), -1);
    assert_int_equal(AB_MAX(-1, 2), 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sums_at_the_edge),
        cmocka_unit_test(products_at_the_edge),
        cmocka_unit_test(random_values_agree_with_wide_arithmetic),
        cmocka_unit_test(powers_of_two),
        cmocka_unit_test(alignment_and_division),
        cmocka_unit_test(containers_and_counts),
    };
    return cmocka_run_group_tests_name("num", tests, NULL, NULL);
}
