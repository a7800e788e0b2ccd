/*
 * space.h - one address range, split by node, whose pages are where we say.
 *
 *   base                                             node_bytes each, a multiple of 2 MiB
 *   |-------- node 0 --------|-------- node 1 --------|--- ...
 *
 * Order of work: map (reserve) -> mbind, by raw syscall -> huge pages -> prefault in parallel by
 * threads bound to the node's CPUs (memory-only nodes: those of the nearest node) -> verify with
 * move_pages. Where mbind is refused (containers without CAP_SYS_NICE) the binding is by first
 * touch from a thread pinned to the node, and says so in facts. The policy of the host's threads is never changed.
 * Registration with rings is the I/O engines' part: chunks of at most 1 GiB.
 */
#ifndef AB_MACHINE_SPACE_H
#define AB_MACHINE_SPACE_H

#include "machine/topology.h"

enum ab_binding { AB_BINDING_NONE = 0, AB_BINDING_TOUCH, AB_BINDING_MBIND };
enum ab_huge { AB_HUGE_AUTO = 0, AB_HUGE_THP, AB_HUGE_TLB, AB_HUGE_NONE }; /* = enum abode_huge */

struct ab_space_desc {
    const struct ab_os *os;
    const struct ab_log *log;
    const struct ab_topology *topology;
    uint64_t node_bytes[AB_NODES_MAX]; /* per dense node, multiple of 2 MiB; 0: none there */
    enum ab_huge huge;                 /* what is wanted; AUTO = THP */
    uint32_t prefault_threads;         /* per node; 0: one per CPU of the node */
};
struct ab_space_facts { /* what was got, and why not more */
    enum ab_binding binding;
    int binding_reason;     /* -errno of mbind, 0 */
    enum ab_huge huge;
    int huge_reason;        /* -errno, 0 */
    uint64_t huge_bytes;    /* really backed by huge pages after prefault (smaps or /proc) */
    uint64_t pages_checked, pages_elsewhere; /* 4 KiB pages at verification */
    bool verified;          /* the kernel answered for every page */
};
struct ab_space_check {
    uint64_t pages_here[AB_NODES_MAX]; /* by dense node where the kernel saw them */
    uint64_t pages_absent;             /* not mapped yet */
    uint64_t pages_unknown;            /* on a node that the topology does not have, or refused */
};

struct ab_space;
/* Everything is resident when it returns. -ENOMEM also when a node has too little free memory to
 * hold its part (asked beforehand: a bound prefault would otherwise invite the OOM killer). */
int ab_space_open(const struct ab_space_desc *desc, struct ab_space **ret) AB_MUST_CHECK;
void ab_space_close(struct ab_space *space); /* NULL is fine */
unsigned char *ab_space_base(const struct ab_space *space);
uint64_t ab_space_bytes(const struct ab_space *space);
/* start of a node's part, and its size */
unsigned char *ab_space_node_base(const struct ab_space *space, uint32_t node);
uint64_t ab_space_node_bytes(const struct ab_space *space, uint32_t node);
const struct ab_space_facts *ab_space_facts(const struct ab_space *space);

/* Where the kernel has the pages of any range of this process; adds to *sum. Bounded batches. */
int ab_space_check_range(const struct ab_os *os, const struct ab_topology *topology,
                         const void *base, uint64_t bytes, struct ab_space_check *sum) AB_MUST_CHECK;

#endif
