/*
 * topology.c - NUMA nodes: from this machine, an hwloc XML file, or a synthetic description.
 *
 * hwloc finds; we number and copy. Three things are not taken from hwloc as they stand:
 *
 *   - CPUs of a node. hwloc widens the cpuset of a CPU-less node to that of its initiators, so that
 *     locality questions have an answer. We need the other meaning (which CPUs belong to it), which
 *     on this machine is in sysfs. Elsewhere each CPU is given to the first node, in the order of
 *     the operating system, that hwloc says it is local to: kernels number DRAM before HBM and CXL.
 *   - Drivers. hwloc's CUDA, NVML, OpenCL, ROCm, Level Zero and X11 parts start their drivers inside
 *     the host process, which costs up to seconds and memory on each GPU. They are switched off;
 *     GPUs are found as PCI devices.
 *   - Disallowed parts (cgroup cpusets). They stay in the topology, so that a page on a node that
 *     we may not use is still seen where it is; `allowed` and the CPU sets leave them out.
 *
 * Thread rule: open and close by the owner, the rest by anyone.
 */
#include "machine/topology.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

#include "abode/abode.h"
#include "base/num.h"
#include "machine/sysfs.h"
#include "machine/topology_impl.h"

#define SYNTHETIC_PREFIX "synthetic:"
#define XML_BYTES_MAX (64u << 20) /* hwloc's XML of a 1,000-CPU machine has 1 MB */
#define DISTANCE_LOCAL 10u        /* ACPI SLIT */

/* ---- the three sources ---- */

static int read_file(const struct ab_os *os, const char *path, char **ret_text, size_t *ret_count)
{
    const int fd = os->openat(os, AT_FDCWD, path, O_RDONLY | O_NONBLOCK, 0); /* a pipe waits */
    if (fd < 0) {
        return fd;
    }
    struct stat status;
    char *text = NULL;
    int result = os->fstat(os, fd, &status);
    if (result < 0) {
        goto close_file;
    }
    if (!S_ISREG(status.st_mode) || status.st_size <= 0 || status.st_size > XML_BYTES_MAX) {
        result = -EINVAL;
        goto close_file;
    }
    const size_t count = (size_t)status.st_size;
    text = os->alloc(os, count + 1, 1); /* zeroed: ends the text */
    if (text == NULL) {
        result = -ENOMEM;
        goto close_file;
    }
    const int64_t got = ab_os_read_all(os, fd, text, count, 0);
    if (got < 0) {
        result = (int)got;
        os->free(os, text);
        goto close_file;
    }
    *ret_text = text;
    *ret_count = (size_t)got;
close_file:
    (void)os->close(os, fd);
    return result;
}

static int source_set_xml(const struct ab_os *os, const struct ab_log *log, const char *path,
                          hwloc_topology_t hwloc)
{
    char *text = NULL;
    size_t count = 0;
    const int result = read_file(os, path, &text, &count);
    if (result == -ENOENT || result == -ENOMEM) {
        ab_log(log, AB_LOG_ERROR, "topology: %s: %s", path,
               result == -ENOENT ? "no such file" : "out of memory");
        return result;
    }
    if (result < 0) {
        ab_log(log, AB_LOG_ERROR,
               "topology: %s: cannot be read as an hwloc XML file of 1 byte to 64 MiB (%s)", path,
               abode_strerror(-result));
        return -EINVAL;
    }
    /* hwloc counts the terminating zero and copies or parses the buffer now */
    const int set = hwloc_topology_set_xmlbuffer(hwloc, text, (int)(count + 1));
    const int error = set < 0 ? -EINVAL : 0;
    if (error < 0) {
        ab_log(log, AB_LOG_ERROR, "topology: %s: not an hwloc XML file (lstopo --of xml FILE)",
               path);
    }
    os->free(os, text);
    return error;
}

static int source_set(const struct ab_os *os, const struct ab_log *log, const char *source,
                      hwloc_topology_t hwloc)
{
    const size_t prefix = sizeof(SYNTHETIC_PREFIX) - 1;
    if (source == NULL) {
        return 0;
    }
    if (strncmp(source, SYNTHETIC_PREFIX, prefix) != 0) {
        return source_set_xml(os, log, source, hwloc);
    }
    if (hwloc_topology_set_synthetic(hwloc, source + prefix) < 0) {
        ab_log(
            log, AB_LOG_ERROR,
            "topology: '%s': not a synthetic topology (as in hwloc(7): \"pack:2 [numa] core:4\")",
            source);
        return -EINVAL;
    }
    return 0;
}

static int hwloc_load(const struct ab_os *os, const struct ab_log *log, const char *source,
                      hwloc_topology_t *ret)
{
    static const char *const drivers[] = {"cuda", "nvml", "opencl", "rsmi", "levelzero", "gl"};
    hwloc_topology_t hwloc;
    if (hwloc_topology_init(&hwloc) < 0) {
        return -ENOMEM;
    }
    for (size_t i = 0; i < AB_COUNT(drivers); i++) { /* fails where hwloc was built without it */
        (void)hwloc_topology_set_components(hwloc, HWLOC_TOPOLOGY_COMPONENTS_FLAG_BLACKLIST,
                                            drivers[i]);
    }
    int result = -EINVAL;
    if (hwloc_topology_set_flags(hwloc, HWLOC_TOPOLOGY_FLAG_INCLUDE_DISALLOWED) < 0 ||
        hwloc_topology_set_io_types_filter(hwloc, HWLOC_TYPE_FILTER_KEEP_IMPORTANT) < 0) {
        goto destroy;
    }
    result = source_set(os, log, source, hwloc);
    if (result < 0) {
        goto destroy;
    }
    if (hwloc_topology_load(hwloc) < 0) {
        ab_log(log, AB_LOG_ERROR, "topology: %s: hwloc cannot load it: not a topology",
               source != NULL ? source : "this machine");
        result = -EINVAL;
        goto destroy;
    }
    *ret = hwloc;
    return 0;
destroy:
    hwloc_topology_destroy(hwloc);
    return result;
}

/* ---- nodes ---- */

static void cpus_from_hwloc(hwloc_const_bitmap_t set, cpu_set_t *ret)
{
    CPU_ZERO(ret);
    for (int cpu = hwloc_bitmap_first(set); cpu >= 0 && cpu < CPU_SETSIZE;
         cpu = hwloc_bitmap_next(set, cpu)) {
        CPU_SET((size_t)cpu, ret);
    }
}

/* the node's own CPUs as the kernel has them; false: it does not say */
static bool cpus_from_kernel(const struct ab_os *os, uint32_t os_index, cpu_set_t *ret)
{
    char path[AB_SYS_PATH_MAX];
    char text[4096];
    (void)snprintf(path, sizeof(path), "/sys/devices/system/node/node%u/cpulist", os_index);
    return ab_sys_read(os, path, text, sizeof(text)) == 0 && ab_sys_parse_cpulist(text, ret);
}

static void node_attributes(hwloc_topology_t hwloc, hwloc_obj_t object, struct ab_node *node)
{
    struct hwloc_location near = {.type = HWLOC_LOCATION_TYPE_CPUSET};
    near.location.cpuset = object->cpuset; /* hwloc's wide meaning: its initiators */
    hwloc_uint64_t value;
    if (hwloc_memattr_get_value(hwloc, HWLOC_MEMATTR_ID_BANDWIDTH, object, &near, 0, &value) == 0 &&
        value <= UINT32_MAX) {
        node->bandwidth_mbs = (uint32_t)value;
    }
    if (hwloc_memattr_get_value(hwloc, HWLOC_MEMATTR_ID_LATENCY, object, &near, 0, &value) == 0 &&
        value <= UINT32_MAX) {
        node->latency_ns = (uint32_t)value;
    }
}

/* insertion by os_index: hwloc's logical order is by locality, ours is the operating system's */
static void objects_sort(hwloc_obj_t *objects, uint32_t count)
{
    for (uint32_t i = 1; i < count; i++) {
        hwloc_obj_t object = objects[i];
        uint32_t place = i;
        for (; place > 0 && objects[place - 1]->os_index > object->os_index; place--) {
            objects[place] = objects[place - 1];
        }
        objects[place] = object;
    }
}

/* Which CPUs are whose (see the top of the file), without those that this process may not use. */
static void nodes_give_cpus(struct ab_topology *topology, hwloc_topology_t hwloc,
                            hwloc_obj_t const *objects)
{
    cpu_set_t usable, taken;
    cpus_from_hwloc(hwloc_topology_get_allowed_cpuset(hwloc), &usable);
    CPU_ZERO(&taken);
    for (uint32_t n = 0; n < topology->node_count; n++) {
        struct ab_node *node = &topology->nodes[n];
        if (!topology->is_machine || !cpus_from_kernel(topology->os, node->os_index, &node->cpus)) {
            cpus_from_hwloc(objects[n]->cpuset, &node->cpus);
        }
        cpu_set_t twice;
        CPU_AND(&node->cpus, &node->cpus, &usable);
        CPU_AND(&twice, &node->cpus, &taken);
        CPU_XOR(&node->cpus, &node->cpus, &twice);
        CPU_OR(&taken, &taken, &node->cpus);
        node->cpu_count = (uint32_t)CPU_COUNT(&node->cpus);
    }
}

static int nodes_fill(struct ab_topology *topology, const struct ab_log *log,
                      hwloc_topology_t hwloc, hwloc_obj_t *objects)
{
    const int found = hwloc_get_nbobjs_by_type(hwloc, HWLOC_OBJ_NUMANODE);
    if (found <= 0) {
        ab_log(log, AB_LOG_ERROR, "topology: it has no memory node");
        return -EINVAL;
    }
    const uint32_t count = AB_MIN((uint32_t)found, (uint32_t)AB_NODES_MAX);
    if (count < (uint32_t)found) {
        ab_log(log, AB_LOG_WARNING, "topology: %d memory nodes, %u are used", found, count);
    }
    for (uint32_t n = 0; n < count; n++) {
        objects[n] = hwloc_get_obj_by_type(hwloc, HWLOC_OBJ_NUMANODE, n);
    }
    objects_sort(objects, count);
    topology->node_count = count;
    hwloc_const_nodeset_t allowed = hwloc_topology_get_allowed_nodeset(hwloc);
    for (uint32_t n = 0; n < count; n++) {
        struct ab_node *node = &topology->nodes[n];
        node->os_index = objects[n]->os_index;
        node->bytes = objects[n]->attr->numanode.local_memory;
        node_attributes(hwloc, objects[n], node);
        if (hwloc_bitmap_isset(allowed, node->os_index)) {
            topology->allowed |= (uint64_t)1 << n;
        }
    }
    nodes_give_cpus(topology, hwloc, objects);
    return 0;
}

/* ---- distances ---- */

static void distance_set(struct ab_topology *topology, int32_t from, int32_t to, uint64_t value)
{
    if (from >= 0 && to >= 0 && value <= UINT32_MAX) {
        topology->distances[(uint32_t)from * AB_NODES_MAX + (uint32_t)to] = (uint32_t)value;
    }
}

static bool distances_from_hwloc(struct ab_topology *topology, hwloc_topology_t hwloc)
{
    struct hwloc_distances_s *matrix = NULL;
    unsigned count = 1;
    if (hwloc_distances_get_by_name(hwloc, "NUMALatency", &count, &matrix, 0) < 0 || count == 0) {
        return false;
    }
    for (unsigned i = 0; i < matrix->nbobjs * matrix->nbobjs; i++) {
        hwloc_obj_t from = matrix->objs[i / matrix->nbobjs];
        hwloc_obj_t to = matrix->objs[i % matrix->nbobjs];
        if (from != NULL && to != NULL) {
            distance_set(topology, ab_topology_node_by_os(topology, from->os_index),
                         ab_topology_node_by_os(topology, to->os_index), matrix->values[i]);
        }
    }
    hwloc_distances_release(hwloc, matrix);
    return true;
}

/* nodeN/distance has one number for each online node, in the order of their indexes */
static void distances_from_kernel(struct ab_topology *topology, uint32_t from)
{
    char path[AB_SYS_PATH_MAX];
    char text[4096];
    (void)snprintf(path, sizeof(path), "/sys/devices/system/node/node%u/distance",
                   topology->nodes[from].os_index);
    if (ab_sys_read(topology->os, path, text, sizeof(text)) < 0) {
        return;
    }
    const char *cursor = text;
    for (uint32_t to = 0; to < topology->node_count; to++) {
        uint64_t value;
        if (!ab_sys_parse_u64(&cursor, &value)) {
            return;
        }
        distance_set(topology, (int32_t)from, (int32_t)to, value);
        while (*cursor == ' ') {
            cursor++;
        }
    }
}

static void distances_fill(struct ab_topology *topology, hwloc_topology_t hwloc)
{
    const bool from_hwloc = distances_from_hwloc(topology, hwloc);
    for (uint32_t n = 0; n < topology->node_count; n++) {
        if (!from_hwloc && topology->is_machine) {
            distances_from_kernel(topology, n);
        }
        if (ab_topology_distance(topology, n, n) == 0) {
            distance_set(topology, (int32_t)n, (int32_t)n, DISTANCE_LOCAL);
        }
    }
}

/* Nearest node with CPUs: by distance, then by hwloc's locality, then the first. */
static int32_t nearest_with_cpus(const struct ab_topology *topology, uint32_t node,
                                 hwloc_const_cpuset_t local)
{
    int32_t best = -1;
    uint64_t best_rank = UINT64_MAX;
    cpu_set_t near;
    cpus_from_hwloc(local, &near);
    for (uint32_t n = 0; n < topology->node_count; n++) {
        if (topology->nodes[n].cpu_count == 0) {
            continue;
        }
        const uint32_t distance = ab_topology_distance(topology, node, n);
        cpu_set_t common;
        CPU_AND(&common, &near, &topology->nodes[n].cpus);
        const uint64_t rank = (uint64_t)(distance != 0 ? distance : UINT32_MAX) * 2 +
                              (CPU_COUNT(&common) > 0 ? 0 : 1);
        if (rank < best_rank) {
            best_rank = rank;
            best = (int32_t)n;
        }
    }
    return best;
}

/* ---- open, close, ask ---- */

static int topology_fill(struct ab_topology *topology, const struct ab_log *log, const char *source)
{
    hwloc_topology_t hwloc;
    hwloc_obj_t objects[AB_NODES_MAX];
    int result = hwloc_load(topology->os, log, source, &hwloc);
    if (result < 0) {
        return result;
    }
    topology->is_machine = source == NULL && hwloc_topology_is_thissystem(hwloc) != 0;
    result = nodes_fill(topology, log, hwloc, objects);
    if (result < 0) {
        goto destroy;
    }
    distances_fill(topology, hwloc);
    for (uint32_t n = 0; n < topology->node_count; n++) {
        struct ab_node *node = &topology->nodes[n];
        node->cpu_node =
            node->cpu_count > 0 ? (int32_t)n : nearest_with_cpus(topology, n, objects[n]->cpuset);
    }
    result = ab_topology_devices_fill(topology, log, hwloc);
destroy:
    hwloc_topology_destroy(hwloc);
    return result;
}

int ab_topology_open(const struct ab_os *os, const struct ab_log *log, const char *source,
                     struct ab_topology **ret)
{
    struct ab_topology *topology = os->alloc(os, sizeof(*topology), _Alignof(struct ab_topology));
    if (topology == NULL) {
        return -ENOMEM;
    }
    topology->os = os;
    const int result = topology_fill(topology, log, source);
    if (result < 0) {
        ab_topology_close(topology);
        return result;
    }
    *ret = topology;
    return 0;
}

void ab_topology_close(struct ab_topology *topology)
{
    if (topology == NULL) {
        return;
    }
    ab_topology_devices_free(topology);
    topology->os->free(topology->os, topology);
}

bool ab_topology_is_machine(const struct ab_topology *topology)
{
    return topology->is_machine;
}

uint32_t ab_topology_node_count(const struct ab_topology *topology)
{
    return topology->node_count;
}

const struct ab_node *ab_topology_node(const struct ab_topology *topology, uint32_t node)
{
    AB_ASSERT(node < topology->node_count);
    return &topology->nodes[node];
}

int32_t ab_topology_node_by_os(const struct ab_topology *topology, uint32_t os_index)
{
    for (uint32_t n = 0; n < topology->node_count; n++) {
        if (topology->nodes[n].os_index == os_index) {
            return (int32_t)n;
        }
    }
    return -1;
}

uint32_t ab_topology_distance(const struct ab_topology *topology, uint32_t from, uint32_t to)
{
    AB_ASSERT(from < topology->node_count && to < topology->node_count);
    return topology->distances[from * AB_NODES_MAX + to];
}

uint64_t ab_topology_allowed(const struct ab_topology *topology)
{
    return topology->allowed;
}
