/*
 * space_check.c - what the kernel says about pages: on which node (move_pages, else numa_maps), and
 * on huge ones or not (smaps). Leaves, any thread.
 */
#include <errno.h>
#include <stdint.h>
#include <string.h>

#include "base/num.h"
#include "machine/space_impl.h"
#include "machine/sysfs.h"

#define BATCH_PAGES 1024u          /* pages asked for by one call: 12 KiB of stack */
#define MAPS_BYTES_MAX (16u << 20) /* of text: a process with about 20,000 mappings */

/* ---- move_pages ---- */

static void count_status(const struct ab_topology *topology, int status, uint64_t pages,
                         struct ab_space_check *sum)
{
    const int32_t node = status >= 0 ? ab_topology_node_by_os(topology, (uint32_t)status) : -1;
    if (node >= 0) {
        sum->pages_here[node] += pages;
    } else if (status == -ENOENT || status == -EFAULT) { /* EFAULT: the shared page of zeroes */
        sum->pages_absent += pages;
    } else {
        sum->pages_unknown += pages;
    }
}

static bool is_refusal(int result)
{
    return result == -EPERM || result == -ENOSYS || result == -EACCES;
}

static int check_by_move_pages(const struct ab_os *os, const struct ab_topology *topology,
                               uintptr_t begin, uintptr_t end, uint64_t step,
                               struct ab_space_check *sum)
{
    void *pages[BATCH_PAGES];
    int status[BATCH_PAGES];
    uintptr_t next = begin;
    while (next < end) {
        uint32_t count = 0;
        const uintptr_t first = next;
        for (; count < BATCH_PAGES && next < end; count++, next += step) {
            pages[count] = (void *)next;
            status[count] = -ENOENT;
        }
        const int result = os->move_pages(os, count, pages, status);
        if (result < 0) {
            return result;
        }
        for (uint32_t i = 0; i < count; i++) {
            const uint64_t left = (end - (first + i * step)) / AB_PAGE;
            count_status(topology, status[i], AB_MIN(step / AB_PAGE, left), sum);
        }
    }
    return 0;
}

/* ---- numa_maps, where move_pages is refused ----
 *
 *   maps        7f00-7f40 rw-p ...                    which addresses a mapping has
 *   numa_maps   7f00 default anon=64 ... N0=64 kernelpagesize_kB=4    where its pages are
 *
 * Both list the same mappings in the same order; they are joined by start address. Only a mapping
 * whose every page is there and on one node says something about each of its pages.
 */

struct mapping {
    uintptr_t start, end;
};

static int next_mapping(struct ab_sys_lines *maps, uintptr_t start, struct mapping *ret)
{
    const char *line;
    int result;
    while ((result = ab_sys_lines_next(maps, &line)) > 0) {
        uint64_t first, last;
        if (ab_sys_parse_hex(&line, &first) && *line == '-') {
            line++;
            if (ab_sys_parse_hex(&line, &last) && first >= start) {
                *ret = (struct mapping){.start = (uintptr_t)first, .end = (uintptr_t)last};
                return 1;
            }
        }
    }
    return result;
}

/* The OS index of the one node that has all `pages` pages of the mapping; -1: no such node. */
static int64_t only_node(const char *line, uint64_t pages)
{
    int64_t node = -1;
    uint64_t count = 0, page_kb = 0;
    for (const char *word = strchr(line, ' '); word != NULL; word = strchr(word, ' ')) {
        uint64_t index, value;
        word++;
        const char *cursor = word + 1;
        if (*word == 'N' && ab_sys_parse_u64(&cursor, &index) && *cursor == '=') {
            cursor++;
            if (node >= 0 || index > UINT32_MAX || !ab_sys_parse_u64(&cursor, &value)) {
                return -1;
            }
            node = (int64_t)index;
            count = value;
        }
        cursor = word + strlen("kernelpagesize_kB=");
        if (strncmp(word, "kernelpagesize_kB=", strlen("kernelpagesize_kB=")) == 0 &&
            ab_sys_parse_u64(&cursor, &value)) {
            page_kb = value;
        }
    }
    uint64_t bytes;
    return ab_mul_u64(count, page_kb * 1024, &bytes) && bytes == pages * AB_PAGE ? node : -1;
}

static int join_maps(const struct ab_topology *topology, struct ab_sys_lines *numa,
                     struct ab_sys_lines *maps, const struct mapping *range,
                     struct ab_space_check *sum)
{
    uint64_t unknown = (range->end - range->start) / AB_PAGE;
    struct mapping mapping = {0};
    const char *line;
    int result;
    while ((result = ab_sys_lines_next(numa, &line)) > 0) {
        uint64_t start;
        if (!ab_sys_parse_hex(&line, &start)) {
            continue;
        }
        if (start >= range->end) {
            break;
        }
        if (mapping.start < start) {
            result = next_mapping(maps, (uintptr_t)start, &mapping);
        }
        if (result <= 0) {
            break;
        }
        const uintptr_t first = AB_MAX(mapping.start, range->start);
        const uintptr_t last = AB_MIN(mapping.end, range->end);
        if (mapping.start != start || first >= last) {
            continue;
        }
        const int64_t node = only_node(line, (mapping.end - mapping.start) / AB_PAGE);
        if (node >= 0) {
            count_status(topology, (int)node, (last - first) / AB_PAGE, sum);
            unknown -= (last - first) / AB_PAGE;
        }
    }
    sum->pages_unknown += unknown;
    return result < 0 ? result : 0;
}

static int check_by_maps(const struct ab_os *os, const struct ab_topology *topology,
                         const struct mapping *range, struct ab_space_check *sum)
{
    struct ab_sys_lines numa, maps;
    int result = ab_sys_lines_open(&numa, os, "/proc/self/numa_maps", MAPS_BYTES_MAX);
    if (result < 0) {
        return result;
    }
    result = ab_sys_lines_open(&maps, os, "/proc/self/maps", MAPS_BYTES_MAX);
    if (result == 0) {
        struct ab_space_check found = *sum;
        result = join_maps(topology, &numa, &maps, range, &found);
        if (result == 0) {
            *sum = found;
        }
        ab_sys_lines_close(&maps);
    }
    ab_sys_lines_close(&numa);
    return result;
}

/* ---- either ---- */

int ab_space_check_step(const struct ab_os *os, const struct ab_topology *topology,
                        const void *base, uint64_t bytes, uint64_t step_bytes,
                        struct ab_space_check *sum)
{
    const struct mapping range = {
        .start = (uintptr_t)ab_align_down((uintptr_t)base, AB_PAGE),
        .end = (uintptr_t)ab_align_up((uintptr_t)base + bytes, AB_PAGE),
    };
    if (bytes == 0) {
        return 0;
    }
    if (range.end <= range.start || step_bytes == 0 || step_bytes % AB_PAGE != 0) {
        return -EINVAL;
    }
    const uint64_t pages = (range.end - range.start) / AB_PAGE;
    if (!ab_topology_is_machine(topology)) {
        sum->pages_unknown += pages; /* its node numbers mean another machine's nodes */
        return 0;
    }
    struct ab_space_check found = *sum;
    int result = check_by_move_pages(os, topology, range.start, range.end, step_bytes, &found);
    if (result == 0) {
        *sum = found;
        return 0;
    }
    if (!is_refusal(result)) {
        return result;
    }
    result = check_by_maps(os, topology, &range, sum);
    if (result < 0) {
        sum->pages_unknown += pages;
    }
    return 0;
}

int ab_space_check_range(const struct ab_os *os, const struct ab_topology *topology,
                         const void *base, uint64_t bytes, struct ab_space_check *sum)
{
    return ab_space_check_step(os, topology, base, bytes, AB_PAGE, sum);
}

/* ---- smaps ---- */

int ab_space_huge_bytes(const struct ab_os *os, const void *base, uint64_t bytes, uint64_t *ret)
{
    static const char *const labels[] = {"AnonHugePages:", "Private_Hugetlb:"};
    const uintptr_t begin = (uintptr_t)base, end = begin + bytes;
    struct ab_sys_lines lines;
    int result = ab_sys_lines_open(&lines, os, "/proc/self/smaps", MAPS_BYTES_MAX);
    if (result < 0) {
        return result;
    }
    uint64_t sum = 0, overlap = 0; /* of the mapping that the lines are about, with the range */
    const char *line;
    while ((result = ab_sys_lines_next(&lines, &line)) > 0) {
        uint64_t first, last, value;
        const char *cursor = line;
        if (ab_sys_parse_hex(&cursor, &first) && *cursor == '-') {
            cursor++;
            if (first >= end) {
                break;
            }
            overlap = ab_sys_parse_hex(&cursor, &last) && last > begin
                          ? AB_MIN(last, end) - AB_MAX(first, begin)
                          : 0;
        }
        for (size_t i = 0; overlap > 0 && i < AB_COUNT(labels); i++) {
            if (ab_sys_parse_kb(line, labels[i], &value)) {
                sum += AB_MIN(value, overlap); /* never more than is ours of a merged mapping */
            }
        }
    }
    ab_sys_lines_close(&lines);
    if (result < 0) {
        return result;
    }
    *ret = AB_MIN(sum, bytes);
    return 0;
}

bool ab_space_thp_is_off(const struct ab_os *os)
{
    char text[64];
    return ab_sys_read(os, "/sys/kernel/mm/transparent_hugepage/enabled", text, sizeof(text)) < 0 ||
           strstr(text, "[never]") != NULL;
}
