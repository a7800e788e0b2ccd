/*
 * sysfs.h - small text files of /sys and /proc, read through the os table and parsed with bounds.
 *
 * Two ways in: ab_sys_read for files of one short value, struct ab_sys_lines for files of many
 * lines (meminfo, smaps), which are never held in memory whole. Both treat what they read as
 * hostile: a container's /proc may be anything. Leaves; a reader belongs to one thread.
 */
#ifndef AB_MACHINE_SYSFS_H
#define AB_MACHINE_SYSFS_H

#include <sched.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/os.h"

#define AB_SYS_PATH_MAX 512
#define AB_SYS_LINE_MAX 1024

/* The whole file as text, without trailing white space. -EFBIG: it does not fit. */
int ab_sys_read(const struct ab_os *os, const char *path, char *ret_text,
                size_t capacity) AB_MUST_CHECK;
/* One decimal number, maybe negative. -EINVAL: the file holds something else. */
int ab_sys_read_i64(const struct ab_os *os, const char *path, int64_t *ret) AB_MUST_CHECK;

struct ab_sys_lines {
    const struct ab_os *os;
    uint64_t offset, offset_max;
    size_t start, end; /* unread part of bytes */
    int fd;
    bool at_end;
    char bytes[4 * AB_SYS_LINE_MAX];
};
/* bytes_max bounds the work: a reader that comes to it answers -EFBIG. */
int ab_sys_lines_open(struct ab_sys_lines *lines, const struct ab_os *os, const char *path,
                      uint64_t bytes_max) AB_MUST_CHECK;
void ab_sys_lines_close(struct ab_sys_lines *lines);
/* 1: a line, valid until the next call, without its newline; 0: no more; else -errno. A line that
 * is longer than the buffer comes in pieces. */
int ab_sys_lines_next(struct ab_sys_lines *lines, const char **ret_line) AB_MUST_CHECK;

/* Numbers at *text, which moves behind them. false: none there, or too large. */
bool ab_sys_parse_u64(const char **text, uint64_t *ret);
bool ab_sys_parse_hex(const char **text, uint64_t *ret);
/* "Node 0 MemFree:   12 kB" with label "MemFree:" -> 12,288. The label begins a word. */
bool ab_sys_parse_kb(const char *line, const char *label, uint64_t *ret_bytes);
/* "0-3,8" -> CPUs 0 1 2 3 8. CPUs that cpu_set_t cannot hold are left out. */
bool ab_sys_parse_cpulist(const char *text, cpu_set_t *ret);

#endif
