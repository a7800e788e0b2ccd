/*
 * space_impl.h - what space.c (the order of work), space_fill.c (prefault) and space_check.c (what
 * the kernel says) share. Nobody else includes it.
 */
#ifndef AB_MACHINE_SPACE_IMPL_H
#define AB_MACHINE_SPACE_IMPL_H

#include "machine/space.h"

struct ab_space {
    const struct ab_os *os;
    const struct ab_log *log;
    const struct ab_topology *topology;
    void *map; /* what to unmap: the range and up to 2 MiB of slack at its ends */
    size_t map_bytes;
    unsigned char *base;
    uint64_t bytes; /* the range, with its holes */
    uint64_t resident_bytes;
    uint64_t node_offset[AB_NODES_MAX];
    uint64_t node_bytes[AB_NODES_MAX];
    struct ab_space_facts facts;
};

/* Makes every page of every part resident, by threads on the part's node. ret_bound: whether each
 * page was touched by a thread that ran on the CPUs of the page's own node. */
int ab_space_fill(const struct ab_space *space, uint32_t threads_per_node, bool is_hugetlb,
                  bool *ret_bound) AB_MUST_CHECK;

/* As ab_space_check_range, asking for one page in every step_bytes and counting it for all of
 * them: the truth where the range is made of pages of that size. */
int ab_space_check_step(const struct ab_os *os, const struct ab_topology *topology,
                        const void *base, uint64_t bytes, uint64_t step_bytes,
                        struct ab_space_check *sum) AB_MUST_CHECK;
/* Bytes of the range that smaps says are on huge pages, transparent or of hugetlb. */
int ab_space_huge_bytes(const struct ab_os *os, const void *base, uint64_t bytes,
                        uint64_t *ret) AB_MUST_CHECK;
/* whether transparent huge pages are switched off for everyone */
bool ab_space_thp_is_off(const struct ab_os *os);

#endif
