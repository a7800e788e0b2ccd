/*
 * headroom.h - how much memory can still be had without the OOM killer.
 *
 * A prefault that is bound to a full node does not fail: the kernel kills a process for it. So a
 * space asks first. The answers are estimates of an instant: other processes allocate too.
 * Leaves, any thread.
 */
#ifndef AB_MACHINE_HEADROOM_H
#define AB_MACHINE_HEADROOM_H

#include <stdint.h>

#include "base/os.h"

/* Bytes that this process can still get: MemAvailable and the limits of its memory cgroup and of
 * those above it. UINT64_MAX: the kernel does not say. */
uint64_t ab_headroom_process(const struct ab_os *os);
/* Bytes free, or in clean page cache, on a node, less what the kernel keeps for itself there. */
uint64_t ab_headroom_node(const struct ab_os *os, uint32_t os_index);
/* Bytes in free 2 MiB pages of a node's hugetlb pool. 0: no pool. */
uint64_t ab_headroom_huge(const struct ab_os *os, uint32_t os_index);

#endif
