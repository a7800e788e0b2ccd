/*
 * test_sysfs.c - goal: numbers, lists and lines come out as the kernel wrote them, and nothing that
 * is not one does. Method: texts on both sides of each boundary; files with lines around the size
 * of the reader's buffer; a file that never ends.
 */
#include "machine/sysfs.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/num.h"

static char path[] = "/tmp/abode-test-sysfs-XXXXXX";

static int set_up(void **state)
{
    (void)state;
    const int fd = mkstemp(path);
    assert_true(fd >= 0);
    return close(fd);
}

static int tear_down(void **state)
{
    (void)state;
    return unlink(path);
}

static void write_bytes(const char *bytes, size_t count)
{
    FILE *file = fopen(path, "we");
    assert_non_null(file);
    assert_int_equal(fwrite(bytes, 1, count, file), count);
    assert_int_equal(fclose(file), 0);
}

static void whole_files(void **state)
{
    (void)state;
    char text[8];
    write_bytes("1234567", 7);
    assert_int_equal(ab_sys_read(ab_os_default(), path, text, sizeof(text)), 0);
    assert_string_equal(text, "1234567");
    write_bytes("12345678", 8);
    assert_int_equal(ab_sys_read(ab_os_default(), path, text, sizeof(text)), -EFBIG);
    write_bytes("ab \n\t\n", 6);
    assert_int_equal(ab_sys_read(ab_os_default(), path, text, sizeof(text)), 0);
    assert_string_equal(text, "ab");
    write_bytes("", 0);
    assert_int_equal(ab_sys_read(ab_os_default(), path, text, sizeof(text)), 0);
    assert_string_equal(text, "");
    assert_int_equal(ab_sys_read(ab_os_default(), "/nonexistent", text, sizeof(text)), -ENOENT);
    assert_int_equal(ab_sys_read(ab_os_default(), "/tmp", text, sizeof(text)), -EISDIR);
}

static void signed_numbers(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        int result;
        int64_t value;
    } cases[] = {
        {"0\n", 0, 0},
        {"-1\n", 0, -1},
        {"9223372036854775807\n", 0, INT64_MAX},
        {"-9223372036854775807\n", 0, -INT64_MAX},
        {"9223372036854775808\n", -EINVAL, 0},
        {"18446744073709551616\n", -EINVAL, 0},
        {"", -EINVAL, 0},
        {"-", -EINVAL, 0},
        {"--1", -EINVAL, 0},
        {"12x", -EINVAL, 0},
        {" 12", -EINVAL, 0},
        {"max\n", -EINVAL, 0},
        {"11111111111111111111111111111111111111\n", -EFBIG, 0},
    };
    for (size_t i = 0; i < AB_COUNT(cases); i++) {
        int64_t value = 42;
        write_bytes(cases[i].text, strlen(cases[i].text));
        assert_int_equal(ab_sys_read_i64(ab_os_default(), path, &value), cases[i].result);
        assert_true(value == (cases[i].result == 0 ? cases[i].value : 42));
    }
}

static void hexadecimal(void **state)
{
    (void)state;
    uint64_t value = 42;
    const char *cursor = "7f00ffff1000-";
    assert_true(ab_sys_parse_hex(&cursor, &value));
    assert_true(value == 0x7f00ffff1000u && *cursor == '-');
    cursor = "ffffffffffffffff";
    assert_true(ab_sys_parse_hex(&cursor, &value));
    assert_true(value == UINT64_MAX);
    cursor = "10000000000000000";
    assert_false(ab_sys_parse_hex(&cursor, &value));
    cursor = "-1";
    assert_false(ab_sys_parse_hex(&cursor, &value));
}

static void lists_of_cpus(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        int count; /* -1: not a list */
    } cases[] = {{"", 0},
                 {"0", 1},
                 {"0-3,8", 5},
                 {"0-1023", 1024},
                 {"1020-99999999999", 4}, /* as many as the set holds */
                 {"5-5", 1},
                 {"3-1", -1},
                 {"0,", -1},
                 {",0", -1},
                 {"0-", -1},
                 {"0--3", -1},
                 {"0 3", -1},
                 {"99999999999999999999", -1}};
    for (size_t i = 0; i < AB_COUNT(cases); i++) {
        cpu_set_t set;
        CPU_ZERO(&set);
        assert_int_equal(ab_sys_parse_cpulist(cases[i].text, &set), cases[i].count >= 0);
        assert_int_equal(CPU_COUNT(&set), cases[i].count >= 0 ? cases[i].count : 0);
    }
}

static void kilobytes_behind_labels(void **state)
{
    (void)state;
    uint64_t bytes = 42;
    assert_true(ab_sys_parse_kb("Node 0 MemFree:   12 kB", "MemFree:", &bytes));
    assert_int_equal(bytes, 12288);
    assert_true(ab_sys_parse_kb("MemFree: 1 kB", "MemFree:", &bytes));
    assert_int_equal(bytes, 1024);
    bytes = 42;
    assert_false(ab_sys_parse_kb("HighMemFree: 1 kB", "MemFree:", &bytes));
    assert_false(ab_sys_parse_kb("MemFree: 1", "MemFree:", &bytes));
    assert_false(ab_sys_parse_kb("MemFree: 1 kB extra", "MemFree:", &bytes));
    assert_int_equal(bytes, 42);
}

/* lines of every length around the buffer's, and a last one without its end */
static void lines_around_the_buffer(void **state)
{
    (void)state;
    const size_t room = sizeof(((struct ab_sys_lines *)NULL)->bytes) - 1;
    static char bytes[20000];
    for (size_t length = room - 3; length <= room; length++) {
        memset(bytes, 'a', length);
        memcpy(bytes + length, "\nshort\n\nlast", 12);
        write_bytes(bytes, length + 12);
        struct ab_sys_lines lines;
        const char *line;
        assert_int_equal(ab_sys_lines_open(&lines, ab_os_default(), path, 1 << 20), 0);
        size_t longest = 0;
        do { /* one that is too long comes in pieces */
            assert_int_equal(ab_sys_lines_next(&lines, &line), 1);
            longest += strlen(line);
        } while (longest < length);
        assert_int_equal(longest, length);
        int result = ab_sys_lines_next(&lines, &line);
        if (result == 1 && line[0] == '\0') { /* the end of a line that filled the buffer */
            result = ab_sys_lines_next(&lines, &line);
        }
        assert_int_equal(result, 1);
        assert_string_equal(line, "short");
        assert_int_equal(ab_sys_lines_next(&lines, &line), 1);
        assert_string_equal(line, "");
        assert_int_equal(ab_sys_lines_next(&lines, &line), 1);
        assert_string_equal(line, "last");
        assert_int_equal(ab_sys_lines_next(&lines, &line), 0);
        assert_int_equal(ab_sys_lines_next(&lines, &line), 0);
        ab_sys_lines_close(&lines);
    }
}

static void a_file_without_end_is_left(void **state)
{
    (void)state;
    struct ab_sys_lines lines;
    const char *line;
    int result;
    uint32_t pieces = 0;
    assert_int_equal(ab_sys_lines_open(&lines, ab_os_default(), "/dev/zero", 1 << 20), 0);
    while ((result = ab_sys_lines_next(&lines, &line)) > 0) {
        pieces++;
    }
    assert_int_equal(result, -EFBIG);
    assert_true(pieces < 1000);
    ab_sys_lines_close(&lines);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(whole_files),
        cmocka_unit_test(signed_numbers),
        cmocka_unit_test(hexadecimal),
        cmocka_unit_test(lists_of_cpus),
        cmocka_unit_test(kilobytes_behind_labels),
        cmocka_unit_test(lines_around_the_buffer),
        cmocka_unit_test(a_file_without_end_is_left),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
