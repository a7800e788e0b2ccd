/*
 * headroom.c - reads meminfo and the memory cgroup. See headroom.h.
 *
 * Page cache counts as free: it is dropped on demand. Dirty pages and shared memory are not told
 * apart from it in nodeN/meminfo other than by the LRU lists, so the two file lists are what counts.
 */
#include "machine/headroom.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/num.h"
#include "machine/sysfs.h"

#define MEMINFO_BYTES_MAX (64u << 10)
#define CGROUP_BYTES_MAX (64u << 10)
#define CGROUP_LEVELS_MAX 32u
#define NODE_RESERVE_SHIFT 7 /* 1/128 of a node stays free: the kernel's high watermark; a guess */

/* Values behind labels; a label that is not there leaves its value. -errno where no file is. */
static int read_labels(const struct ab_os *os, const char *path, const char *const *labels,
                       uint64_t *values, uint32_t count)
{
    struct ab_sys_lines lines;
    int result = ab_sys_lines_open(&lines, os, path, MEMINFO_BYTES_MAX);
    if (result < 0) {
        return result;
    }
    const char *line;
    while ((result = ab_sys_lines_next(&lines, &line)) > 0) {
        for (uint32_t i = 0; i < count; i++) {
            (void)ab_sys_parse_kb(line, labels[i], &values[i]);
        }
    }
    ab_sys_lines_close(&lines);
    return result;
}

uint64_t ab_headroom_node(const struct ab_os *os, uint32_t os_index)
{
    static const char *const labels[] = {
        "MemTotal:", "MemFree:", "Active(file):", "Inactive(file):"};
    uint64_t values[AB_COUNT(labels)] = {0};
    char path[AB_SYS_PATH_MAX];
    (void)snprintf(path, sizeof(path), "/sys/devices/system/node/node%u/meminfo", os_index);
    if (read_labels(os, path, labels, values, AB_COUNT(labels)) < 0) {
        return UINT64_MAX;
    }
    uint64_t sum = 0;
    for (uint32_t i = 1; i < AB_COUNT(labels); i++) {
        if (!ab_add_u64(sum, values[i], &sum)) {
            return UINT64_MAX;
        }
    }
    const uint64_t reserve = values[0] >> NODE_RESERVE_SHIFT;
    return sum > reserve ? sum - reserve : 0;
}

uint64_t ab_headroom_huge(const struct ab_os *os, uint32_t os_index)
{
    char path[AB_SYS_PATH_MAX];
    int64_t pages;
    uint64_t bytes;
    (void)snprintf(path, sizeof(path),
                   "/sys/devices/system/node/node%u/hugepages/hugepages-2048kB/free_hugepages",
                   os_index);
    if (ab_sys_read_i64(os, path, &pages) < 0 || pages <= 0 ||
        !ab_mul_u64((uint64_t)pages, AB_HUGE, &bytes)) {
        return 0;
    }
    return bytes;
}

/* ---- memory cgroups, versions 1 and 2 ---- */

struct cgroup_files {
    const char *mount, *limit, *usage, *active, *inactive;
};
static const struct cgroup_files cgroup_v1 = {"/sys/fs/cgroup/memory", "memory.limit_in_bytes",
                                              "memory.usage_in_bytes", "total_active_file ",
                                              "total_inactive_file "};
static const struct cgroup_files cgroup_v2 = {"/sys/fs/cgroup", "memory.max", "memory.current",
                                              "active_file ", "inactive_file "};

/* page cache of one cgroup: its limit is enforced by dropping that first */
static uint64_t cgroup_cache(const struct ab_os *os, const struct cgroup_files *files,
                             const char *directory)
{
    char path[AB_SYS_PATH_MAX + 32];
    struct ab_sys_lines lines;
    uint64_t sum = 0;
    (void)snprintf(path, sizeof(path), "%s/memory.stat", directory);
    if (ab_sys_lines_open(&lines, os, path, MEMINFO_BYTES_MAX) < 0) {
        return 0;
    }
    const char *line;
    while (ab_sys_lines_next(&lines, &line) > 0) {
        const char *const labels[] = {files->active, files->inactive};
        for (size_t i = 0; i < AB_COUNT(labels); i++) {
            const size_t length = strlen(labels[i]);
            const char *cursor = line + length;
            uint64_t value;
            if (strncmp(line, labels[i], length) == 0 && ab_sys_parse_u64(&cursor, &value)) {
                (void)ab_add_u64(sum, value, &sum);
            }
        }
    }
    ab_sys_lines_close(&lines);
    return sum;
}

static uint64_t cgroup_headroom(const struct ab_os *os, const struct cgroup_files *files,
                                const char *directory)
{
    char path[AB_SYS_PATH_MAX + 32];
    int64_t limit, usage;
    (void)snprintf(path, sizeof(path), "%s/%s", directory, files->limit);
    if (ab_sys_read_i64(os, path, &limit) < 0 || limit < 0) {
        return UINT64_MAX; /* "max", or no such file: no limit here */
    }
    (void)snprintf(path, sizeof(path), "%s/%s", directory, files->usage);
    if (ab_sys_read_i64(os, path, &usage) < 0 || usage < 0) {
        return UINT64_MAX;
    }
    uint64_t room = limit > usage ? (uint64_t)(limit - usage) : 0;
    return ab_add_u64(room, cgroup_cache(os, files, directory), &room) ? room : UINT64_MAX;
}

/* the cgroup and all above it: each may have a limit. In a cgroup namespace the path may lead
 * nowhere; the mount itself is then our own group, and is asked last. */
static uint64_t cgroup_walk(const struct ab_os *os, const struct cgroup_files *files,
                            const char *group)
{
    char directory[AB_SYS_PATH_MAX];
    const int length = snprintf(directory, sizeof(directory), "%s%s", files->mount, group);
    if (length < 0 || (size_t)length >= sizeof(directory)) {
        return UINT64_MAX;
    }
    const size_t mount_length = strlen(files->mount);
    uint64_t room = UINT64_MAX;
    for (uint32_t level = 0; level < CGROUP_LEVELS_MAX; level++) {
        const uint64_t here = cgroup_headroom(os, files, directory);
        room = AB_MIN(room, here);
        char *slash = strrchr(directory, '/');
        if (slash == NULL || (size_t)(slash - directory) < mount_length) {
            break;
        }
        *slash = '\0';
    }
    return room;
}

/* lines of /proc/self/cgroup: "4:memory:/path" (version 1), "0::/path" (version 2) */
static uint64_t cgroup_line(const struct ab_os *os, const char *line)
{
    const char *controllers = strchr(line, ':');
    const char *group = controllers != NULL ? strchr(controllers + 1, ':') : NULL;
    if (group == NULL) {
        return UINT64_MAX;
    }
    const size_t length = (size_t)(group - controllers - 1);
    if (length == 0) {
        return cgroup_walk(os, &cgroup_v2, group + 1);
    }
    if (length == strlen("memory") && strncmp(controllers + 1, "memory", length) == 0) {
        return cgroup_walk(os, &cgroup_v1, group + 1);
    }
    return UINT64_MAX;
}

uint64_t ab_headroom_process(const struct ab_os *os)
{
    static const char *const labels[] = {"MemAvailable:"};
    uint64_t room = UINT64_MAX;
    (void)read_labels(os, "/proc/meminfo", labels, &room, 1); /* not there: not known */
    struct ab_sys_lines lines;
    if (ab_sys_lines_open(&lines, os, "/proc/self/cgroup", CGROUP_BYTES_MAX) < 0) {
        return room;
    }
    const char *line;
    while (ab_sys_lines_next(&lines, &line) > 0) {
        const uint64_t here = cgroup_line(os, line);
        room = AB_MIN(room, here);
    }
    ab_sys_lines_close(&lines);
    return room;
}
