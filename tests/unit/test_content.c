/*
 * test_content.c - goal: content that is checked cannot pass when it is wrong. Method: any range
 * filled in pieces equals the range filled at once; each changed byte is counted and found; streams
 * of other identities, components, planes and offsets differ. The speed is printed, not judged.
 */
#include "cli/content.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include <cmocka.h>

#define STREAM_BYTES 4096

static void test_pieces_make_the_whole(void **state)
{
    unsigned char whole[STREAM_BYTES], pieces[STREAM_BYTES];
    const uint64_t seed = content_seed(7, 1, 2);

    (void)state;
    content_fill(whole, seed, 0, sizeof(whole));
    for (size_t step = 1; step < 40; step++) {
        memset(pieces, 0, sizeof(pieces));
        for (size_t at = 0; at < sizeof(pieces); at += step) {
            const size_t left = sizeof(pieces) - at;
            content_fill(pieces + at, seed, at, left < step ? left : step);
        }
        assert_memory_equal(whole, pieces, sizeof(whole));
        assert_int_equal(content_check(whole + step, seed, step, 1000, NULL), 0);
    }
}

static void test_each_wrong_byte_is_found(void **state)
{
    unsigned char bytes[256];
    const uint64_t seed = content_seed(99, 0, 0);

    (void)state;
    for (size_t offset = 0; offset < 9; offset++) {
        content_fill(bytes, seed, offset, sizeof(bytes));
        for (size_t i = 0; i < sizeof(bytes); i++) {
            size_t first = 1000;
            bytes[i] ^= 1;
            assert_int_equal(content_check(bytes, seed, offset, sizeof(bytes), &first), 1);
            assert_int_equal(first, i);
            bytes[i] ^= 1;
        }
        bytes[3] ^= 0x80;
        bytes[200] ^= 0x80;
        assert_int_equal(content_check(bytes, seed, offset, sizeof(bytes), NULL), 2);
        bytes[3] ^= 0x80;
        bytes[200] ^= 0x80;
    }
    assert_int_equal(content_check(bytes, seed, 0, 0, NULL), 0);
}

/* About 1 byte in 256 agrees by chance; a stream that is shifted, or of another place, is no nearer. */
static void differs(uint64_t left, uint64_t left_offset, uint64_t right, uint64_t right_offset)
{
    unsigned char bytes[STREAM_BYTES];

    content_fill(bytes, left, left_offset, sizeof(bytes));
    const size_t wrong = content_check(bytes, right, right_offset, sizeof(bytes), NULL);
    assert_in_range(wrong, STREAM_BYTES * 97 / 100, STREAM_BYTES);
}

static void test_streams_differ(void **state)
{
    const uint64_t base = content_seed(5, 1, 1);

    (void)state;
    differs(base, 0, content_seed(6, 1, 1), 0);
    differs(base, 0, content_seed(5, 2, 1), 0);
    differs(base, 0, content_seed(5, 1, 2), 0);
    differs(base, 0, content_seed(0, 1, 1), 0);
    differs(content_seed(5, 0, 1), 0, content_seed(5, 1, 0), 0);
    for (uint64_t shift = 1; shift < 4096; shift = shift * 2 + 1) {
        differs(base, 0, base, shift);
    }
    assert_int_not_equal(content_join(1, 2), content_join(2, 1));
}

static void test_speed_is_printed(void **state)
{
    const size_t size = 8u << 20;
    unsigned char *const bytes = malloc(size);
    struct timespec begin, middle, end;
    size_t wrong = 0;

    (void)state;
    assert_non_null(bytes);
    content_fill(bytes, 1, 0, size);
    (void)clock_gettime(CLOCK_MONOTONIC, &begin);
    content_fill(bytes, 2, 0, size);
    (void)clock_gettime(CLOCK_MONOTONIC, &middle);
    wrong = content_check(bytes, 2, 0, size, NULL);
    (void)clock_gettime(CLOCK_MONOTONIC, &end);
    assert_int_equal(wrong, 0);
    const double fill_s =
        (double)(middle.tv_sec - begin.tv_sec) + (double)(middle.tv_nsec - begin.tv_nsec) / 1e9;
    const double check_s =
        (double)(end.tv_sec - middle.tv_sec) + (double)(end.tv_nsec - middle.tv_nsec) / 1e9;
    print_message("content: fill %.1f GB/s, check %.1f GB/s\n", (double)size / fill_s / 1e9,
                  (double)size / check_s / 1e9);
    free(bytes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pieces_make_the_whole),
        cmocka_unit_test(test_each_wrong_byte_is_found),
        cmocka_unit_test(test_streams_differ),
        cmocka_unit_test(test_speed_is_printed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
