/*
 * test_kernels.c - goal: every table of kernels does what the scalar one does, to the byte, touches
 * nothing else, and is only given out where this CPU can run it. Method: tests/kernels_check.c against
 * each table that this CPU runs; checksums also against the shared libxxhash. tests/emulated runs the
 * same checks for NEON (QEMU) and AVX-512 (Bochs) on CPUs without them.
 */
#include "kernels/kernels.h"

#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <xxhash.h>

#include "base/num.h"
#include "kernels_check.h"

#define SEED_DEFAULT 20240229u

#if defined(__SANITIZE_THREAD__)
#define HAS_TSAN 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define HAS_TSAN 1
#endif
#endif
#ifndef HAS_TSAN
#define HAS_TSAN 0
#endif

static uint64_t test_seed(void)
{
    const char *given = getenv("ABODE_TEST_SEED");
    return given == NULL ? SEED_DEFAULT : strtoull(given, NULL, 0);
}

/* ---- each table against the scalar one -------------------------------------------------------------- */
static void table_is_checked(const char *name)
{
    const struct ab_kernels *kernels = ab_kernels_by_name(name);
    if (kernels == NULL) {
        print_message("SKIP: %s: not on this CPU or not in this build; compiled only\n", name);
        skip();
    }
    assert_string_equal(kernels->name, name);
    const uint64_t seed = test_seed();
    print_message("%s: ABODE_TEST_SEED=%" PRIu64 "\n", name, seed);
    for (uint32_t i = 0; i < kernels_check_count; i++) {
        const char *failed = kernels_checks[i].run(kernels, seed);
        if (failed != NULL) {
            fail_msg("%s: %s: %s", name, kernels_checks[i].name, failed);
        }
    }
}

static void scalar_agrees_with_itself(void **state)
{
    (void)state;
    table_is_checked("scalar"); /* its known hashes, its fences, and the checks themselves */
}

#if defined(__x86_64__)
static void avx2_agrees_with_scalar(void **state)
{
    (void)state;
    table_is_checked("avx2");
}

static void avx512_agrees_with_scalar(void **state)
{
    (void)state;
    table_is_checked("avx512");
}
#elif defined(__aarch64__)
static void neon_agrees_with_scalar(void **state)
{
    (void)state;
    table_is_checked("neon");
}
#endif

/* ---- the values on disk are the library's --------------------------------------------------------------- */
static void checksums_are_those_of_the_shared_library(void **state)
{
    (void)state;
    static const char *const names[] = {"scalar", "avx2", "avx512", "neon"};
    static unsigned char bytes[70000];
    for (size_t i = 0; i < sizeof(bytes); i++) {
        bytes[i] = (unsigned char)(i * 31 + i / 253);
    }
    for (size_t n = 0; n < AB_COUNT(names); n++) {
        const struct ab_kernels *kernels = ab_kernels_by_name(names[n]);
        for (size_t count = 0; kernels != NULL && count <= sizeof(bytes);
             count += count < 1100 ? 1 : 997) {
            const uint64_t seed = count % 2 == 0 ? 0 : count * 0x9e3779b97f4a7c15u;
            const XXH128_hash_t want = XXH3_128bits_withSeed(bytes, count, seed);
            uint64_t got[2];
            kernels->checksum(bytes, count, seed, got);
            assert_int_equal(got[0], want.low64);
            assert_int_equal(got[1], want.high64);
        }
    }
}

/* ---- dispatch ---------------------------------------------------------------------------------------------- */
static void best_is_one_that_this_cpu_runs(void **state)
{
    (void)state;
    const struct ab_kernels *best = ab_kernels_best();
    assert_ptr_equal(best, ab_kernels_by_name(best->name));
    assert_ptr_equal(ab_kernels_scalar(), ab_kernels_by_name("scalar"));
    assert_null(ab_kernels_by_name(""));
    assert_null(ab_kernels_by_name("avx"));
    assert_null(ab_kernels_by_name("avx2 "));
#if defined(__x86_64__)
    /* the compiler's own detection is the witness */
    assert_int_equal(ab_kernels_by_name("avx2") != NULL,
                     __builtin_cpu_supports("avx2") && __builtin_cpu_supports("bmi2"));
    assert_int_equal(ab_kernels_by_name("avx512") != NULL,
                     __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                         __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq"));
    assert_null(ab_kernels_by_name("neon"));
    if (ab_kernels_by_name("avx2") != NULL) {
        assert_string_not_equal(best->name, "scalar");
    }
#endif
}

/* ---- parallel.c ----------------------------------------------------------------------------------------------- */
static void tsan_is_absent(void)
{
    if (HAS_TSAN) {
        print_message("SKIP: ThreadSanitizer does not see the barriers inside libgomp\n");
        skip();
    }
}

static void parallel_copies_every_byte_once(void **state)
{
    (void)state;
    tsan_is_absent();
    static const size_t sizes[] = {
        0, 1, 4095, (1u << 20) - 1, 1u << 20, (1u << 20) + 1, (5u << 20) + 3, 7000001};
    static const int threads[] = {0, 1, 2, 3, 16, -1};
    const size_t area = (8u << 20) + 128;
    unsigned char *source = test_malloc(area), *target = test_malloc(area);
    for (size_t i = 0; i < area; i++) {
        source[i] = (unsigned char)(i * 11 + i / 4093);
    }
    for (size_t s = 0; s < AB_COUNT(sizes); s++) {
        for (size_t t = 0; t < AB_COUNT(threads); t++) {
            memset(target, 0xa5, area);
            ab_parallel_copy(ab_kernels_best(), target + 64, source + 5, sizes[s], threads[t]);
            assert_memory_equal(target + 64, source + 5, sizes[s]);
            for (size_t i = 0; i < 64; i++) {
                assert_int_equal(target[i], 0xa5);
                assert_int_equal(target[64 + sizes[s] + i], 0xa5);
            }
        }
    }
    test_free(source);
    test_free(target);
}

static void parallel_checksums_are_in_order(void **state)
{
    (void)state;
    tsan_is_absent();
    static unsigned char bytes[100000];
    const void *blocks[101];
    size_t sizes[101];
    for (size_t i = 0; i < sizeof(bytes); i++) {
        bytes[i] = (unsigned char)(i * 5 + i / 251);
    }
    for (size_t i = 0; i < AB_COUNT(sizes); i++) {
        blocks[i] = bytes + i * 7;
        sizes[i] = i * i * 9;
    }
    uint64_t hashes[101][2];
    for (int threads = 0; threads <= 5; threads++) {
        memset(hashes, 0, sizeof(hashes));
        ab_parallel_checksum(ab_kernels_best(), blocks, sizes, AB_COUNT(sizes), 42, hashes,
                             threads);
        for (size_t i = 0; i < AB_COUNT(sizes); i++) {
            uint64_t want[2];
            ab_kernels_scalar()->checksum(blocks[i], sizes[i], 42, want);
            assert_memory_equal(hashes[i], want, sizeof(want));
        }
    }
    ab_parallel_checksum(ab_kernels_best(), NULL, NULL, 0, 42, NULL, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(scalar_agrees_with_itself),
#if defined(__x86_64__)
        cmocka_unit_test(avx2_agrees_with_scalar),
        cmocka_unit_test(avx512_agrees_with_scalar),
#elif defined(__aarch64__)
        cmocka_unit_test(neon_agrees_with_scalar),
#endif
        cmocka_unit_test(checksums_are_those_of_the_shared_library),
        cmocka_unit_test(best_is_one_that_this_cpu_runs),
        cmocka_unit_test(parallel_copies_every_byte_once),
        cmocka_unit_test(parallel_checksums_are_in_order),
    };
    return cmocka_run_group_tests_name("kernels", tests, NULL, NULL);
}
