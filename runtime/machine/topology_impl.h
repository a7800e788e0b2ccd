/*
 * topology_impl.h - what topology.c (nodes) and topology_devices.c (devices) share. Nobody else
 * includes it.
 *
 * Everything that abode wants to know is copied out of hwloc when a topology is opened; hwloc's own
 * structure lives no longer than ab_topology_open. So the answers are immutable, and readers need
 * no lock and no rule of hwloc's.
 */
#ifndef AB_MACHINE_TOPOLOGY_IMPL_H
#define AB_MACHINE_TOPOLOGY_IMPL_H

#include <hwloc.h>

#include "machine/topology.h"

#define AB_DEVICES_MAX 1024u /* more are left out, and the log says so */

struct ab_topology {
    const struct ab_os *os;
    bool is_machine;
    uint32_t node_count;
    uint32_t device_count;
    uint64_t allowed;                                /* mask of dense nodes */
    struct ab_device *devices;                       /* AB_DEVICES_MAX */
    int32_t *below;                                  /* device that carries this one: itself */
    uint32_t distances[AB_NODES_MAX * AB_NODES_MAX]; /* [from * AB_NODES_MAX + to], 0: unknown */
    struct ab_node nodes[AB_NODES_MAX];
};

/* Fills devices from hwloc and, on this machine, from sysfs; nodes must be there. -ENOMEM. */
int ab_topology_devices_fill(struct ab_topology *topology, const struct ab_log *log,
                             hwloc_topology_t hwloc) AB_MUST_CHECK;
void ab_topology_devices_free(struct ab_topology *topology);

#endif
