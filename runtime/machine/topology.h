/*
 * topology.h - what machine this is: NUMA nodes, distances, disks and GPUs with their node.
 *
 * The only user of hwloc. Nodes get dense numbers 0..node_count-1 in the order of their operating
 * system index; memory-only nodes (CXL) are nodes without CPUs. Immutable after open: any thread.
 */
#ifndef AB_MACHINE_TOPOLOGY_H
#define AB_MACHINE_TOPOLOGY_H

#include <sched.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/log.h"
#include "base/os.h"

#define AB_NODES_MAX 64

struct ab_node {
    uint32_t os_index;
    uint32_t cpu_count;     /* that this process may use; 0: memory only, or none allowed */
    int32_t cpu_node;       /* dense node whose CPUs serve it: itself, the nearest with CPUs, or
                               -1 where no node has any */
    uint64_t bytes;         /* local memory, 0: unknown */
    uint32_t bandwidth_mbs; /* from memory attributes, 0: unknown */
    uint32_t latency_ns;
    cpu_set_t cpus; /* those cpu_count CPUs; never of two nodes */
};

enum ab_device_kind { AB_DEVICE_BLOCK = 1, AB_DEVICE_GPU, AB_DEVICE_NET };
struct ab_device {
    enum ab_device_kind kind;
    int32_t node;  /* dense; -1: the kernel does not say */
    dev_t dev;     /* BLOCK: the whole disk; 0 on a topology of elsewhere */
    char name[64]; /* nvme0n1, vda, dm-0, card0, eth0; a GPU without a name: its PCI address */
    char pci[32];  /* 0000:21:00.0; empty: none */
};

struct ab_topology;
/* source: NULL this machine; "synthetic:STRING"; else path of an hwloc XML file. Errors: -EINVAL
 * the source is not a topology, -ENOENT no such file; the log names it. */
int ab_topology_open(const struct ab_os *os, const struct ab_log *log, const char *source,
                     struct ab_topology **ret) AB_MUST_CHECK;
void ab_topology_close(struct ab_topology *topology); /* NULL is fine */

/* false: XML or synthetic. Nothing is bound, checked or mapped to a disk by such a topology. */
bool ab_topology_is_machine(const struct ab_topology *topology);
uint32_t ab_topology_node_count(const struct ab_topology *topology);
const struct ab_node *ab_topology_node(const struct ab_topology *topology, uint32_t node);
int32_t ab_topology_node_by_os(const struct ab_topology *topology, uint32_t os_index); /* or -1 */
/* SLIT-like, 10 = local; 0 = unknown */
uint32_t ab_topology_distance(const struct ab_topology *topology, uint32_t from, uint32_t to);
uint32_t ab_topology_device_count(const struct ab_topology *topology);
const struct ab_device *ab_topology_device(const struct ab_topology *topology, uint32_t device);
/* The disk below a file system's st_dev: a partition finds its disk, device mapper and md the one
 * disk that they lie on, or themselves where there are several. -1: overlay, tmpfs, a disk that came
 * after open, a topology of elsewhere. Reads sysfs for partitions. */
int32_t ab_topology_block_device(const struct ab_topology *topology, dev_t dev);
/* Dense nodes that this process may use, as a mask. */
uint64_t ab_topology_allowed(const struct ab_topology *topology);

#endif
