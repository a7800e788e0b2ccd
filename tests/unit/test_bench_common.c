/*
 * test_bench_common.c - goal: the numbers of the scorecard are what its header says: order of rounds,
 * median, ratio inside a round, goals on both sides of their edge, lines that JSON readers accept; and
 * a file is only called cold when it is. Method: sides with made-up times; lines read back by jansson.
 */
#include "bench/bench_common.c" // the functions behind it are static
#include "bench/bench_files.c"

#include <linux/magic.h>
#include <setjmp.h>
#include <stdarg.h>
#include <sys/statfs.h>

#include <cmocka.h>
#include <jansson.h>

static struct bench_run run_make(const char *json_path)
{
    return (struct bench_run){.name = "test",
                              .dir = "/tmp",
                              .rounds = 3,
                              .warmup = 1,
                              .json_path = json_path,
                              .machine = "a \"machine\"\\\t1",
                              .commit = "abc"};
}

/* ---- rounds -------------------------------------------------------------------------------------- */
struct script { /* what a side answers, turn by turn */
    const double *seconds;
    uint32_t turn;
    char *log; /* shared: the order of turns */
    char letter;
    int fail_at;
};

static int script_run(void *context, struct bench_sample *ret_sample)
{
    struct script *script = context;
    script->log[strlen(script->log)] = script->letter;
    if (script->fail_at != 0 && (int)script->turn + 1 == script->fail_at) {
        return -EIO;
    }
    ret_sample->seconds = script->seconds[script->turn++];
    ret_sample->bytes = 1000;
    ret_sample->cpu_s = 2;
    return 0;
}

static void rounds_alternate_and_warmup_is_dropped(void **state)
{
    (void)state;
    static const double a_seconds[] = {100, 1, 2, 4}, b_seconds[] = {100, 2, 2, 2};
    char log[16] = "";
    struct script a = {a_seconds, 0, log, 'a', 0}, b = {b_seconds, 0, log, 'b', 0};
    const struct bench_side sides[] = {{"a", script_run, &a}, {"b", script_run, &b}};
    const struct bench_run run = run_make(NULL);
    static struct bench_table table;
    assert_int_equal(bench_rounds(&run, sides, 2, &table), 0);
    assert_string_equal(log, "abababab");
    const struct bench_series rates = bench_ratio_of_rates(&table, 0, 1);
    assert_int_equal(rates.count, 3);
    assert_float_equal(rates.values[0], 2.0, 1e-9);
    assert_float_equal(rates.values[1], 1.0, 1e-9);
    assert_float_equal(rates.values[2], 0.5, 1e-9);
    const struct bench_series seconds = bench_ratio_of_seconds(&table, 0, 1);
    assert_float_equal(seconds.values[0], 0.5, 1e-9);
    assert_float_equal(seconds.values[2], 2.0, 1e-9);
    const struct bench_series cpu = bench_cpu_per_gib(&table, 0);
    assert_float_equal(cpu.values[0], 2.0 / (1000.0 / GIB), 1e-3);
}

static void a_failing_side_ends_the_rounds(void **state)
{
    (void)state;
    static const double seconds[] = {1, 1, 1, 1};
    char log[16] = "";
    struct script a = {seconds, 0, log, 'a', 0}, b = {seconds, 0, log, 'b', 2};
    const struct bench_side sides[] = {{"a", script_run, &a}, {"b", script_run, &b}};
    struct bench_run run = run_make(NULL);
    static struct bench_table table;
    assert_int_equal(bench_rounds(&run, sides, 2, &table), -EIO);
    assert_string_equal(log, "abab");
    assert_int_equal(bench_rounds(&run, sides, 0, &table), -EINVAL);
    assert_int_equal(bench_rounds(&run, sides, BENCH_SIDES_MAX + 1, &table), -EINVAL);
    run.rounds = BENCH_ROUNDS_MAX + 1;
    assert_int_equal(bench_rounds(&run, sides, 2, &table), -EINVAL);
}

/* ---- numbers --------------------------------------------------------------------------------------- */
static void medians_of_odd_even_one_and_none(void **state)
{
    (void)state;
    struct bench_series series = {0};
    assert_float_equal(bench_series_median(&series), 0, 0);
    assert_float_equal(bench_series_min(&series), 0, 0);
    assert_float_equal(bench_series_max(&series), 0, 0);
    bench_series_add(&series, 5);
    assert_float_equal(bench_series_median(&series), 5, 0);
    bench_series_add(&series, 1);
    assert_float_equal(bench_series_median(&series), 3, 0);
    bench_series_add(&series, 4);
    assert_float_equal(bench_series_median(&series), 4, 0);
    assert_float_equal(bench_series_min(&series), 1, 0);
    assert_float_equal(bench_series_max(&series), 5, 0);
    assert_float_equal(series.values[0], 5, 0); /* kept in order of rounds */
    for (int i = 0; i < 2 * BENCH_ROUNDS_MAX; i++) {
        bench_series_add(&series, 9);
    }
    assert_int_equal(series.count, BENCH_ROUNDS_MAX);
}

static void percentiles_at_the_edges(void **state)
{
    (void)state;
    uint64_t values[1000];
    for (uint32_t i = 0; i < 1000; i++) {
        values[i] = 999 - i;
    }
    assert_int_equal(bench_percentile(values, 0, 500), 0);
    assert_int_equal(bench_percentile(values, 1000, 0), 0);
    assert_int_equal(bench_percentile(values, 1000, 500), 500);
    assert_int_equal(bench_percentile(values, 1000, 990), 990);
    assert_int_equal(bench_percentile(values, 1000, 999), 999);
    assert_int_equal(bench_percentile(values, 1000, 1000), 999);
    assert_int_equal(bench_percentile(values, 1, 999), 0);
}

/* ---- lines ------------------------------------------------------------------------------------------- */
static json_t *line_of(const struct bench_card *card, double value, const char *reason)
{
    char path[] = "/tmp/abode-test-bench-XXXXXX";
    const int fd = mkstemp(path);
    assert_true(fd >= 0);
    (void)close(fd);
    const struct bench_run run = run_make(path);
    struct bench_series series = {0};
    bench_series_add(&series, value);
    bench_series_add(&series, value);
    const int code = reason != NULL ? bench_report_missing(&run, card, reason)
                                    : bench_report(&run, card, &series, "a \"note\"\n\001");
    assert_int_equal(code, 0);
    json_error_t error;
    json_t *line = json_load_file(path, 0, &error);
    assert_non_null(line);
    assert_int_equal(unlink(path), 0);
    return line;
}

static bool line_reached(enum bench_goal kind, double goal, double value)
{
    const struct bench_card card = {"P1.64k", "what \"this\" is", "ratio", goal, kind};
    json_t *line = line_of(&card, value, NULL);
    const bool reached = json_is_true(json_object_get(line, "reached"));
    assert_string_equal(json_string_value(json_object_get(line, "id")), "P1.64k");
    assert_string_equal(json_string_value(json_object_get(line, "what")), "what \"this\" is");
    assert_string_equal(json_string_value(json_object_get(line, "note")), "a \"note\"\n\001");
    assert_string_equal(json_string_value(json_object_get(line, "machine")), "a \"machine\"\\\t1");
    assert_string_equal(json_string_value(json_object_get(line, "command")),
                        "make scorecard ONLY=P1");
    assert_int_equal(json_integer_value(json_object_get(line, "rounds")), 2);
    json_decref(line);
    return reached;
}

static void goals_on_both_sides_of_their_edge(void **state)
{
    (void)state;
    assert_true(line_reached(BENCH_AT_LEAST, 0.97, 0.97));
    assert_false(line_reached(BENCH_AT_LEAST, 0.97, 0.9699));
    assert_true(line_reached(BENCH_AT_MOST, 2, 2));
    assert_false(line_reached(BENCH_AT_MOST, 2, 2.0001));
    assert_true(line_reached(BENCH_INFORMATION, 0, 1));
}

static void what_is_missing_has_a_reason_and_no_value(void **state)
{
    (void)state;
    const struct bench_card card = {"P18", "GPU", "ratio", 0.9, BENCH_AT_LEAST};
    char reason[3000];
    memset(reason, '"', sizeof(reason) - 1); /* too long, and every byte needs an escape */
    reason[sizeof(reason) - 1] = '\0';
    json_t *line = line_of(&card, 0, reason);
    assert_true(json_is_null(json_object_get(line, "value")));
    assert_true(json_is_false(json_object_get(line, "reached")));
    assert_true(json_string_length(json_object_get(line, "reason")) > 100);
    json_decref(line);
}

/* ---- memory, files ----------------------------------------------------------------------------------- */
static void memory_is_aligned_and_filled_the_same_way(void **state)
{
    (void)state;
    void *memory;
    assert_int_equal(bench_memory_get(3000000, &memory), 0);
    assert_int_equal((uintptr_t)memory % HUGE_BYTES, 0);
    unsigned char *bytes = memory;
    bench_fill(bytes, 1000, 5);
    bench_fill(bytes + 1000, 1003, 5);
    assert_memory_equal(bytes, bytes + 1000, 1000);
    bench_fill(bytes + 1000, 1000, 6);
    assert_memory_not_equal(bytes, bytes + 1000, 1000);
    bench_memory_put(memory, 3000000);
    bench_memory_put(NULL, 1);
}

static void dropped_trees_are_cold_and_mapped_ones_are_not(void **state)
{
    (void)state;
    struct statfs system_of_tmp;
    assert_int_equal(statfs("/tmp", &system_of_tmp), 0);
    if (system_of_tmp.f_type == TMPFS_MAGIC) {
        print_message("SKIP: /tmp is a tmpfs, whose pages are the file\n");
        skip();
    }
    static unsigned char bytes[3 * PAGE_BYTES];
    const struct bench_run run = run_make(NULL);
    char dir[BENCH_PATH_MAX], path[BENCH_PATH_MAX + 16];
    assert_int_equal(bench_directory_make(&run, "test", dir), 0);
    (void)snprintf(path, sizeof(path), "%s/sub", dir);
    assert_int_equal(mkdir(path, 0700), 0);
    (void)snprintf(path, sizeof(path), "%s/sub/file", dir);
    const int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, bytes, sizeof(bytes)), sizeof(bytes));
    assert_int_equal(file_pages_cached(fd, sizeof(bytes)), 3);
    assert_int_equal(bench_cache_drop_tree(dir), 0);
    volatile unsigned char *mapped = mmap(NULL, PAGE_BYTES, PROT_READ, MAP_SHARED, fd, 0);
    assert_true(mapped != MAP_FAILED);
    (void)mapped[0];
    assert_true(bench_cache_drop_tree(dir) > 0);
    assert_int_equal(munmap((void *)(uintptr_t)mapped, PAGE_BYTES), 0);
    (void)close(fd);
    assert_int_equal(bench_directory_remove(dir), 0);
    assert_int_equal(access(dir, F_OK), -1);
    assert_int_equal(bench_directory_remove(dir), -ENOENT);
    assert_int_equal(bench_cache_drop_tree(dir), -ENOENT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rounds_alternate_and_warmup_is_dropped),
        cmocka_unit_test(a_failing_side_ends_the_rounds),
        cmocka_unit_test(medians_of_odd_even_one_and_none),
        cmocka_unit_test(percentiles_at_the_edges),
        cmocka_unit_test(goals_on_both_sides_of_their_edge),
        cmocka_unit_test(what_is_missing_has_a_reason_and_no_value),
        cmocka_unit_test(memory_is_aligned_and_filled_the_same_way),
        cmocka_unit_test(dropped_trees_are_cold_and_mapped_ones_are_not),
    };
    return cmocka_run_group_tests_name("bench_common", tests, NULL, NULL);
}
