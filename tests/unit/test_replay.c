/*
 * test_replay.c - goal: the figures of `abode replay` mean what they say, and the host's memory of
 * its sessions is right, since every check of bytes rests on it. Method: histograms against sorted
 * values; branches grown, cut and compared by hand; sizes chosen for the samples; the device reader
 * on files made here.
 */
#include "cli/replay.h"
#include "cli/replay_branch.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#define VALUES 5000

static int numbers_compare(const void *left, const void *right)
{
    const uint64_t l = *(const uint64_t *)left, r = *(const uint64_t *)right;
    return (l > r) - (l < r);
}

static void test_percentiles(void **state)
{
    static const double shares[] = {0.001, 0.1, 0.5, 0.9, 0.99, 0.999, 1};
    struct replay_histogram *const histogram = calloc(1, sizeof(*histogram));
    uint64_t values[VALUES];

    (void)state;
    assert_int_equal(replay_histogram_at(histogram, 0.5), 0);
    srand(5);
    for (size_t i = 0; i < VALUES; i++) {
        values[i] = (uint64_t)rand() >> (rand() % 31);
        replay_histogram_add(histogram, values[i]);
    }
    qsort(values, VALUES, sizeof(values[0]), numbers_compare);
    for (size_t i = 0; i < sizeof(shares) / sizeof(shares[0]); i++) {
        const size_t rank = (size_t)(shares[i] * VALUES + 0.999999) - 1;
        const uint64_t exact = values[rank], told = replay_histogram_at(histogram, shares[i]);
        assert_true(told >= exact && told <= exact + exact / 32 + 1);
    }
    assert_int_equal(replay_histogram_at(histogram, 1), values[VALUES - 1]);
    replay_histogram_add(histogram, UINT64_MAX); /* the last bucket there is */
    assert_true(replay_histogram_at(histogram, 1) == UINT64_MAX);
    free(histogram);
}

static struct replay *replay_small(void)
{
    struct replay *const replay = calloc(1, sizeof(*replay));
    replay->trace.block_tokens = 64;
    replay->geometry.block_tokens = 16;
    return replay;
}

static void test_branch_grows_and_is_cut(void **state)
{
    const uint64_t wanted[] = {10, 11, 12, 13}, other[] = {10, 11, 99, 13};
    struct replay *const replay = replay_small();
    struct replay_branch branch = {0};

    (void)state;
    assert_int_equal(replay_branch_common(replay, &branch, wanted, 256), 0);
    assert_int_equal(replay_branch_grow(replay, &branch, wanted, 100), 0);
    assert_int_equal(branch.identity_count, 2);
    assert_int_equal(replay_branch_grow(replay, &branch, wanted, 250), 0);
    assert_int_equal(branch.identity_count, 4);
    assert_int_equal(branch.tokens, 250);
    assert_int_equal(replay_branch_common(replay, &branch, wanted, 256), 250);
    assert_int_equal(replay_branch_common(replay, &branch, wanted, 200), 200);
    assert_int_equal(replay_branch_common(replay, &branch, other, 256), 128);
    assert_int_equal(replay_branch_point_below(replay, &branch, 250), 250);
    assert_int_equal(replay_branch_point_below(replay, &branch, 249), 240);
    assert_int_equal(replay_branch_point_below(replay, &branch, 15), 0);

    assert_int_equal(replay_branch_keys(replay, &branch, wanted, 15), 0);
    const struct abode_key second = branch.row_keys[1], last = branch.row_keys[14];
    replay_branch_cut(replay, &branch, 32);
    assert_int_equal(branch.row_count, 2);
    assert_int_equal(branch.identity_count, 1);
    assert_int_equal(replay_branch_keys(replay, &branch, other, 15), 0);
    assert_memory_equal(&second, &branch.row_keys[1], sizeof(second));
    assert_memory_not_equal(&last, &branch.row_keys[14], sizeof(last)); /* chains over block 2 */
    replay_branch_free(&branch);
    free(replay);
}

/* Rows longer than a block of the trace: a row's key depends on every block in it. */
static void test_row_keys_of_long_rows(void **state)
{
    const uint64_t wanted[] = {1, 2, 3, 4}, other[] = {1, 2, 3, 5};
    struct replay *const replay = replay_small();
    struct replay_branch left = {0}, right = {0};

    (void)state;
    replay->geometry.block_tokens = 128;
    assert_int_equal(replay_branch_keys(replay, &left, wanted, 2), 0);
    assert_int_equal(replay_branch_keys(replay, &right, other, 2), 0);
    assert_memory_equal(&left.row_keys[0], &right.row_keys[0], sizeof(left.row_keys[0]));
    assert_memory_not_equal(&left.row_keys[1], &right.row_keys[1], sizeof(left.row_keys[1]));
    replay_branch_free(&left);
    replay_branch_free(&right);
    free(replay);
}

static void test_restore_points(void **state)
{
    struct replay *const replay = replay_small();
    struct replay_branch branch = {.tokens = 1000};

    (void)state;
    replay->geometry.fixed_bytes = 1;
    assert_int_equal(replay_branch_point_below(replay, &branch, 1000), 0);
    for (uint64_t at = 100; at <= 600; at += 100) {
        replay_branch_point_add(&branch, at);
        replay_branch_point_add(&branch, at); /* twice is once */
    }
    assert_int_equal(branch.point_count, PRESET_SNAPSHOTS_KEPT);
    assert_int_equal(replay_branch_point_below(replay, &branch, 599), 500);
    assert_int_equal(replay_branch_point_below(replay, &branch, 600), 600);
    assert_int_equal(replay_branch_point_below(replay, &branch, 299), 0); /* the older are gone */
    replay_branch_cut(replay, &branch, 450);
    assert_int_equal(replay_branch_point_below(replay, &branch, 1000), 400);
    free(replay);
}

static void plan(struct replay *replay, const char *model, const struct replay_face_ops *face)
{
    char why[128];

    replay->face = face;
    replay->request_count = replay->trace.request_count;
    assert_int_equal(preset_find(model, &replay->preset, why, sizeof(why)), 0);
    replay->plan = (struct replay_plan){0};
    replay->options.scale = 0;
    replay->options.memory_bytes = 0;
    replay_plan_make(replay);
    assert_int_equal(replay_plan_sizes(replay), CLI_OK);
}

/* The samples: sizes that a machine of 2 GiB has, for every model. */
static void test_sizes_for_the_samples(void **state)
{
    static const char *const files[] = {"agentic_sessions.jsonl", "conversation.jsonl"};
    const char *const tree = getenv("ABODE_TREE");
    uint32_t count = 0;
    const struct preset *const list = preset_list(&count);

    (void)state;
    for (size_t i = 0; i < 2; i++) {
        struct replay *const replay = calloc(1, sizeof(*replay));
        struct trace_error error;
        char path[512];

        (void)snprintf(path, sizeof(path), "%.300s/bench/traces/%s", tree == NULL ? "." : tree,
                       files[i]);
        if (access(path, R_OK) != 0) {
            print_message("SKIP: %s is not there: run from the source tree or set ABODE_TREE\n",
                          path);
            free(replay);
            skip();
        }
        assert_int_equal(trace_load(path, &replay->trace, &error), 0);
        replay->options.block_tokens = 64;
        replay->options.store_bytes = 3ull << 30;
        for (uint32_t m = 0; m < count; m++) {
            const bool fixed = list[m].parts[list[m].part_count - 1].kind == ABODE_SNAPSHOT;
            plan(replay, list[m].name,
                 i == 1 && !fixed ? &replay_cache_face : &replay_session_face);
            print_message("%s %s: scale %.3g, %s a token, %s of memory\n", files[i], list[m].name,
                          replay->options.scale,
                          cli_bytes_text(preset_token_bytes(&list[m], replay->options.scale)).text,
                          cli_bytes_text(replay->options.memory_bytes).text);
            assert_in_range(replay->options.memory_bytes, 64u << 20, 768u << 20);
            assert_true(replay->options.scale > 0 && replay->options.scale <= 1);
            assert_true(preset_token_bytes(&list[m], replay->options.scale) *
                            replay->plan.largest_tokens <=
                        replay->options.memory_bytes);
        }
        trace_free(&replay->trace);
        free(replay);
    }
}

static void test_device_reader(void **state)
{
    struct replay_figures *const figures = calloc(1, sizeof(*figures));
    const char *const base = getenv("TMPDIR");
    char folder[256], path[300], command[300];
    char *const bytes = calloc(1, 1u << 20);

    (void)state;
    (void)snprintf(folder, sizeof(folder), "%.200s/abode-device-XXXXXX",
                   base == NULL ? "/tmp" : base);
    assert_non_null(mkdtemp(folder));
    assert_int_equal(replay_device_measure(folder, figures), -ENOENT);
    (void)snprintf(path, sizeof(path), "%s/segment", folder);
    const int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    for (int i = 0; i < 20; i++) {
        assert_int_equal(write(fd, bytes, 1u << 20), 1 << 20);
    }
    assert_int_equal(fsync(fd), 0);
    assert_int_equal(close(fd), 0);
    assert_int_equal(replay_device_measure(folder, figures), 0);
    assert_true(figures->device_gbps > 0);
    assert_true(figures->device_gbps_min <= figures->device_gbps &&
                figures->device_gbps <= figures->device_gbps_max);
    (void)snprintf(command, sizeof(command), "rm -rf '%s'", folder);
    assert_int_equal(system(command), 0);
    free(bytes);
    free(figures);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_percentiles),
        cmocka_unit_test(test_branch_grows_and_is_cut),
        cmocka_unit_test(test_row_keys_of_long_rows),
        cmocka_unit_test(test_restore_points),
        cmocka_unit_test(test_sizes_for_the_samples),
        cmocka_unit_test(test_device_reader),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
