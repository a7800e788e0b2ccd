/*
 * sysfs.c - reads and parses the small files of /sys and /proc. See sysfs.h.
 *
 * Sequential pread is what seq_file likes best: at the offset where the last read ended the kernel
 * goes on instead of generating the file again from its start.
 */
#include "machine/sysfs.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>

#include "base/num.h"

#define CPULIST_RANGES_MAX 4096u /* more ranges than a cpu_set_t has CPUs is no list of CPUs */

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static bool is_space(char c)
{
    return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

int ab_sys_read(const struct ab_os *os, const char *path, char *ret_text, size_t capacity)
{
    const int fd = os->openat(os, AT_FDCWD, path, O_RDONLY, 0);
    if (fd < 0) {
        return fd;
    }
    int64_t count = ab_os_read_all(os, fd, ret_text, capacity, 0);
    (void)os->close(os, fd); /* nothing was written: its result changes nothing */
    if (count < 0) {
        return (int)count;
    }
    if ((size_t)count == capacity) {
        return -EFBIG;
    }
    while (count > 0 && is_space(ret_text[count - 1])) {
        count--;
    }
    ret_text[count] = '\0';
    return 0;
}

int ab_sys_read_i64(const struct ab_os *os, const char *path, int64_t *ret)
{
    char text[32];
    const int result = ab_sys_read(os, path, text, sizeof(text));
    if (result < 0) {
        return result;
    }
    const bool negative = text[0] == '-';
    const char *cursor = text + (negative ? 1 : 0);
    uint64_t value;
    if (!ab_sys_parse_u64(&cursor, &value) || *cursor != '\0' || value > INT64_MAX) {
        return -EINVAL;
    }
    *ret = negative ? -(int64_t)value : (int64_t)value;
    return 0;
}

int ab_sys_lines_open(struct ab_sys_lines *lines, const struct ab_os *os, const char *path,
                      uint64_t bytes_max)
{
    const int fd = os->openat(os, AT_FDCWD, path, O_RDONLY, 0);
    if (fd < 0) {
        return fd;
    }
    lines->os = os;
    lines->fd = fd;
    lines->offset = 0;
    lines->offset_max = bytes_max;
    lines->start = 0;
    lines->end = 0;
    lines->at_end = false;
    return 0;
}

void ab_sys_lines_close(struct ab_sys_lines *lines)
{
    (void)lines->os->close(lines->os, lines->fd);
    lines->fd = -1;
}

/* moves the unread part to the front and fills up behind it */
static int lines_fill(struct ab_sys_lines *lines)
{
    if (lines->offset >= lines->offset_max) {
        return -EFBIG;
    }
    memmove(lines->bytes, lines->bytes + lines->start, lines->end - lines->start);
    lines->end -= lines->start;
    lines->start = 0;
    const size_t room = sizeof(lines->bytes) - 1 - lines->end;
    const int64_t count =
        ab_os_read_all(lines->os, lines->fd, lines->bytes + lines->end, room, lines->offset);
    if (count < 0) {
        return (int)count;
    }
    lines->at_end = (size_t)count < room;
    lines->offset += (uint64_t)count;
    lines->end += (size_t)count;
    return 0;
}

int ab_sys_lines_next(struct ab_sys_lines *lines, const char **ret_line)
{
    char *first = lines->bytes + lines->start;
    char *newline = memchr(first, '\n', lines->end - lines->start);
    if (newline == NULL && !lines->at_end) {
        const int result = lines_fill(lines);
        if (result < 0) {
            return result;
        }
        first = lines->bytes;
        newline = memchr(first, '\n', lines->end);
    }
    if (newline == NULL) { /* the last line without newline, or a piece of an endless one */
        if (lines->start == lines->end) {
            return 0;
        }
        newline = lines->bytes + lines->end;
        lines->start = lines->end;
    } else {
        lines->start = (size_t)(newline + 1 - lines->bytes);
    }
    *newline = '\0';
    *ret_line = first;
    return 1;
}

bool ab_sys_parse_u64(const char **text, uint64_t *ret)
{
    const char *cursor = *text;
    uint64_t value = 0;
    if (!is_digit(*cursor)) {
        return false;
    }
    for (; is_digit(*cursor); cursor++) {
        if (!ab_mul_u64(value, 10, &value) ||
            !ab_add_u64(value, (uint64_t)(*cursor - '0'), &value)) {
            return false;
        }
    }
    *text = cursor;
    *ret = value;
    return true;
}

static int hex_digit(char c)
{
    if (is_digit(c)) {
        return c - '0';
    }
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

bool ab_sys_parse_hex(const char **text, uint64_t *ret)
{
    const char *cursor = *text;
    uint64_t value = 0;
    if (hex_digit(*cursor) < 0) {
        return false;
    }
    for (; hex_digit(*cursor) >= 0; cursor++) {
        if (value >> 60 != 0) {
            return false;
        }
        value = value << 4 | (uint64_t)hex_digit(*cursor);
    }
    *text = cursor;
    *ret = value;
    return true;
}

bool ab_sys_parse_kb(const char *line, const char *label, uint64_t *ret_bytes)
{
    const char *cursor = strstr(line, label);
    if (cursor == NULL || (cursor != line && !is_space(cursor[-1]))) {
        return false;
    }
    cursor += strlen(label);
    while (is_space(*cursor)) {
        cursor++;
    }
    uint64_t kilobytes;
    return ab_sys_parse_u64(&cursor, &kilobytes) && strcmp(cursor, " kB") == 0 &&
           ab_mul_u64(kilobytes, 1024, ret_bytes);
}

bool ab_sys_parse_cpulist(const char *text, cpu_set_t *ret)
{
    cpu_set_t set;
    CPU_ZERO(&set);
    const char *cursor = text;
    for (uint32_t range = 0; *cursor != '\0'; range++) {
        uint64_t first;
        if (range == CPULIST_RANGES_MAX || !ab_sys_parse_u64(&cursor, &first)) {
            return false;
        }
        uint64_t last = first;
        if (*cursor == '-') {
            cursor++;
            if (!ab_sys_parse_u64(&cursor, &last) || last < first) {
                return false;
            }
        }
        for (uint64_t cpu = first; cpu <= last && cpu < CPU_SETSIZE; cpu++) {
            CPU_SET((size_t)cpu, &set);
        }
        if (*cursor == ',' && cursor[1] != '\0') {
            cursor++;
        } else if (*cursor != '\0') {
            return false;
        }
    }
    *ret = set;
    return true;
}
