/*
 * test_log.c - goal: a line reaches the host whole, or cut at its end, never more; no sink, no work.
 * Method: a sink that copies; lines around the limit.
 */
#include "base/log.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#define LINE_MAX_BYTES 1023u

struct sink {
    char line[2048];
    int level;
    int count;
};

static void keep_line(void *context, int level, const char *line)
{
    struct sink *sink = context;
    assert_true(strlen(line) < sizeof(sink->line));
    memcpy(sink->line, line, strlen(line) + 1);
    sink->level = level;
    sink->count++;
}

static void a_line_arrives_as_written(void **state)
{
    (void)state;
    struct sink sink = {0};
    const struct ab_log log = {.write = keep_line, .context = &sink};
    ab_log(&log, AB_LOG_WARNING, "%s: %d of %llu", "store", -5, 18446744073709551615ull);
    assert_string_equal(sink.line, "store: -5 of 18446744073709551615");
    assert_int_equal(sink.level, AB_LOG_WARNING);
    ab_log(&log, AB_LOG_ERROR, "%s", "");
    assert_string_equal(sink.line, "");
    assert_int_equal(sink.count, 2);
}

static void long_lines_are_cut(void **state)
{
    (void)state;
    struct sink sink = {0};
    const struct ab_log log = {.write = keep_line, .context = &sink};
    char text[1200];
    for (uint32_t length = LINE_MAX_BYTES - 1; length <= LINE_MAX_BYTES + 1; length++) {
        memset(text, 'a', length);
        text[length] = '\0';
        ab_log(&log, AB_LOG_INFO, "%s", text);
        const size_t wanted = length < LINE_MAX_BYTES ? length : LINE_MAX_BYTES;
        assert_int_equal(strlen(sink.line), wanted);
        assert_memory_equal(sink.line, text, wanted);
    }
}

static void no_sink_drops_the_line(void **state)
{
    (void)state;
    const struct ab_log none = {0};
    ab_log(&none, AB_LOG_ERROR, "%s", "nobody reads this");
    ab_log(NULL, AB_LOG_ERROR, "%s", "nor this");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_line_arrives_as_written),
        cmocka_unit_test(long_lines_are_cut),
        cmocka_unit_test(no_sink_drops_the_line),
    };
    return cmocka_run_group_tests_name("log", tests, NULL, NULL);
}
