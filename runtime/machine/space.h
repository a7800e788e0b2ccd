/*
 * space.h - one address range, split by node, whose pages are where we say.
 *
 *   base                     base + span              base + 2 * span
 *   |==== node 0 ====|.......|===== node 1 =====|.....|--- ...
 *      node_bytes[0]   not      node_bytes[1]
 *      resident       touched
 *
 * A part starts on a 2 MiB boundary and is a multiple of 2 MiB. With node_span_bytes = 0 the parts
 * lie back to back. A span lets the node of an address be computed by one division although nodes
 * hold different amounts: the holes are address space only, never touched, and cost no memory.
 *
 * Order of work: ask whether there is room -> map (reserve) -> mbind, by raw syscall -> huge pages
 * -> prefault in parallel by threads bound to the node's CPUs (memory-only nodes: those of the
 * nearest node) -> verify with move_pages. Where mbind is refused (containers without CAP_SYS_NICE)
 * the binding is by first touch from a thread pinned to the node, and says so in facts. The policy
 * of the host's threads is never changed. The range is not inherited by fork(2) (a child of the
 * host would copy pinned pages) and not part of core dumps (it is other people's state).
 * Registration with rings is the I/O engines' part: chunks of at most 1 GiB.
 *
 * Threads: open and close by the owner, everything else by anyone.
 */
#ifndef AB_MACHINE_SPACE_H
#define AB_MACHINE_SPACE_H

#include "machine/topology.h"

enum ab_binding { AB_BINDING_NONE = 0, AB_BINDING_TOUCH, AB_BINDING_MBIND };
enum ab_huge { AB_HUGE_AUTO = 0, AB_HUGE_THP, AB_HUGE_TLB, AB_HUGE_NONE }; /* = enum abode_huge */

struct ab_space_desc {
    const struct ab_os *os;
    const struct ab_log *log; /* must live as long as the space; so must topology */
    const struct ab_topology *topology;
    uint64_t node_bytes[AB_NODES_MAX]; /* per dense node, multiple of 2 MiB; 0: none there */
    uint64_t node_span_bytes;          /* from part to part, multiple of 2 MiB; 0: back to back */
    enum ab_huge huge;                 /* what is wanted; AUTO = THP */
    uint32_t prefault_threads;         /* per node; 0: one per CPU of the node */
};
struct ab_space_facts {      /* what was got, and why not more */
    enum ab_binding binding; /* of the weakest part */
    int binding_reason;      /* -errno of mbind; -EXDEV: the topology is not this machine's; 0 */
    enum ab_huge huge;       /* THP also where only a part got huge pages: see huge_bytes */
    int huge_reason;         /* 0, or why less than wanted: -errno of the call that was refused;
                               -ENOMEM no free huge page, -EOPNOTSUPP the kernel gives none */
    uint64_t huge_bytes;     /* really backed by huge pages after prefault (smaps) */
    uint64_t pages_checked, pages_elsewhere; /* 4 KiB pages at verification */
    bool verified;                           /* the kernel answered for every page */
};
struct ab_space_check {
    uint64_t pages_here[AB_NODES_MAX]; /* by dense node where the kernel saw them */
    uint64_t pages_absent;             /* not mapped yet */
    uint64_t pages_unknown;            /* on a node that the topology does not have, or refused */
};

struct ab_space;
/* Everything is resident when it returns. -ENOMEM also when a node, this process or its cgroup has
 * too little free memory (asked beforehand: a bound prefault would otherwise invite the OOM
 * killer; the log says how much was missing where). -EINVAL: sizes, a node that the topology does
 * not have, or one that this process may not use. -EAGAIN: no thread could be started. */
int ab_space_open(const struct ab_space_desc *desc, struct ab_space **ret) AB_MUST_CHECK;
void ab_space_close(struct ab_space *space); /* NULL is fine */
unsigned char *ab_space_base(const struct ab_space *space);
uint64_t ab_space_bytes(const struct ab_space *space); /* of the address range, with its holes */
/* start of a node's part, and its size */
unsigned char *ab_space_node_base(const struct ab_space *space, uint32_t node);
uint64_t ab_space_node_bytes(const struct ab_space *space, uint32_t node);
const struct ab_space_facts *ab_space_facts(const struct ab_space *space);

/* Where the kernel has the pages of any range of this process, at 4 KiB grain; adds to *sum.
 * Bounded batches. Where move_pages is refused, numa_maps is read: a mapping that is wholly on one
 * node proves it for its parts, all else is unknown; so is every page by a topology of elsewhere. */
int ab_space_check_range(const struct ab_os *os, const struct ab_topology *topology,
                         const void *base, uint64_t bytes,
                         struct ab_space_check *sum) AB_MUST_CHECK;

#endif
