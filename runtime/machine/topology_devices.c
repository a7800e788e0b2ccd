/*
 * topology_devices.c - disks, GPUs and network cards with the node that they hang on.
 *
 *   st_dev of a file system          8:1
 *     | /sys/dev/block/8:1/partition exists: its disk is ../dev
 *   whole disk                       8:0       found by hwloc (PCI) or in /sys/block (dm, md, loop)
 *     | /sys/block/dm-0/slaves has exactly one disk: that one carries it
 *   device                           index for ab_topology_device()
 *
 * The node of a device: what the first numa_node >= 0 on the way up its sysfs path says; else, where
 * hwloc places the device under a part of the machine, the node of that part; else -1, also on a
 * machine of one node: "the kernel does not say" is an answer, node 0 would be a guess.
 * A kernel with multipath NVMe shows the disk under a virtual subsystem: its node stays -1.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/sysmacros.h>

#include "base/num.h"
#include "machine/sysfs.h"
#include "machine/topology_impl.h"

#define PARENTS_MAX 8u          /* levels of a device path that are looked at for numa_node */
#define DIRECTORY_BYTES 4096    /* about 150 names */
#define DIRECTORY_CALLS_MAX 64u /* of /sys/block, and of the slaves of one device */
#define CARRIERS_MAX 8u         /* dm on md on dm ... */
#define PCI_CLASS_DISPLAY 0x03u

/* ---- node of a device ---- */

static int32_t node_from_kernel(const struct ab_topology *topology, dev_t dev)
{
    char path[AB_SYS_PATH_MAX];
    for (uint32_t level = 0; level < PARENTS_MAX; level++) {
        int length =
            snprintf(path, sizeof(path), "/sys/dev/block/%u:%u/device/", major(dev), minor(dev));
        for (uint32_t up = 0; up < level; up++) {
            length += snprintf(path + length, sizeof(path) - (size_t)length, "../");
        }
        (void)snprintf(path + length, sizeof(path) - (size_t)length, "numa_node");
        int64_t node;
        if (ab_sys_read_i64(topology->os, path, &node) == 0 && node >= 0 && node <= UINT32_MAX) {
            return ab_topology_node_by_os(topology, (uint32_t)node);
        }
    }
    return -1;
}

/* Where hwloc has it: only a real part of the machine counts, and in it the node with CPUs. */
static int32_t node_from_hwloc(const struct ab_topology *topology, hwloc_topology_t hwloc,
                               hwloc_obj_t object)
{
    hwloc_obj_t place = hwloc_get_non_io_ancestor_obj(hwloc, object);
    if (place == NULL || place->nodeset == NULL ||
        hwloc_bitmap_isequal(place->nodeset, hwloc_get_root_obj(hwloc)->nodeset)) {
        return -1;
    }
    int32_t found = -1;
    for (int os_index = hwloc_bitmap_first(place->nodeset); os_index >= 0;
         os_index = hwloc_bitmap_next(place->nodeset, os_index)) {
        const int32_t node = ab_topology_node_by_os(topology, (uint32_t)os_index);
        if (node < 0) {
            continue;
        }
        const bool has_cpus = topology->nodes[node].cpu_count > 0;
        if (has_cpus && found >= 0 && topology->nodes[found].cpu_count > 0) {
            return -1; /* a part with two nodes: which one is not known */
        }
        if (has_cpus || found < 0) {
            found = node;
        }
    }
    return found;
}

/* ---- the list ---- */

static struct ab_device *device_add(struct ab_topology *topology, const struct ab_log *log,
                                    enum ab_device_kind kind, const char *name)
{
    if (topology->device_count == AB_DEVICES_MAX) {
        ab_log(log, AB_LOG_WARNING, "topology: more than %u devices, '%s' is left out",
               AB_DEVICES_MAX, name);
        return NULL;
    }
    struct ab_device *device = &topology->devices[topology->device_count];
    topology->below[topology->device_count] = (int32_t)topology->device_count;
    topology->device_count++;
    device->kind = kind;
    device->node = -1;
    (void)snprintf(device->name, sizeof(device->name), "%s", name);
    return device;
}

static int32_t device_by_name(const struct ab_topology *topology, const char *name)
{
    for (uint32_t i = 0; i < topology->device_count; i++) {
        if (topology->devices[i].kind == AB_DEVICE_BLOCK &&
            strcmp(topology->devices[i].name, name) == 0) {
            return (int32_t)i;
        }
    }
    return -1;
}

static int32_t device_by_dev(const struct ab_topology *topology, dev_t dev)
{
    for (uint32_t i = 0; i < topology->device_count; i++) {
        if (topology->devices[i].kind == AB_DEVICE_BLOCK && topology->devices[i].dev == dev) {
            return (int32_t)i;
        }
    }
    return -1;
}

/* "254:0", as sysfs and hwloc write it */
static bool parse_dev(const char *text, dev_t *ret)
{
    uint64_t high, low;
    if (text == NULL || !ab_sys_parse_u64(&text, &high) || *text != ':') {
        return false;
    }
    text++;
    if (!ab_sys_parse_u64(&text, &low) || *text != '\0' || high > UINT32_MAX || low > UINT32_MAX) {
        return false;
    }
    *ret = makedev((unsigned)high, (unsigned)low);
    return true;
}

static void pci_name(hwloc_obj_t object, char *ret, size_t capacity)
{
    hwloc_obj_t parent = object;
    while (parent != NULL && parent->type != HWLOC_OBJ_PCI_DEVICE) {
        parent = parent->parent; /* ends at the root */
    }
    if (parent != NULL) {
        const struct hwloc_pcidev_attr_s *pci = &parent->attr->pcidev;
        (void)snprintf(ret, capacity, "%04x:%02x:%02x.%x", pci->domain, pci->bus, pci->dev,
                       pci->func);
    }
}

static bool gpu_is_listed(const struct ab_topology *topology, const char *pci)
{
    for (uint32_t i = 0; i < topology->device_count; i++) {
        if (topology->devices[i].kind == AB_DEVICE_GPU && pci[0] != '\0' &&
            strcmp(topology->devices[i].pci, pci) == 0) {
            return true;
        }
    }
    return false;
}

static void add_osdev(struct ab_topology *topology, const struct ab_log *log,
                      hwloc_topology_t hwloc, hwloc_obj_t object)
{
    enum ab_device_kind kind;
    char pci[sizeof(((struct ab_device *)NULL)->pci)] = "";
    const hwloc_obj_osdev_type_t type = object->attr->osdev.type;
    if (type == HWLOC_OBJ_OSDEV_BLOCK) {
        kind = AB_DEVICE_BLOCK;
    } else if (type == HWLOC_OBJ_OSDEV_GPU || type == HWLOC_OBJ_OSDEV_COPROC) {
        kind = AB_DEVICE_GPU;
    } else if (type == HWLOC_OBJ_OSDEV_NETWORK) {
        kind = AB_DEVICE_NET;
    } else {
        return;
    }
    pci_name(object, pci, sizeof(pci));
    if (kind == AB_DEVICE_GPU && gpu_is_listed(topology, pci)) {
        return; /* card0, renderD128, ...: one GPU */
    }
    struct ab_device *device =
        device_add(topology, log, kind, object->name != NULL ? object->name : pci);
    if (device == NULL) {
        return;
    }
    (void)snprintf(device->pci, sizeof(device->pci), "%s", pci);
    dev_t dev;
    if (kind == AB_DEVICE_BLOCK && topology->is_machine &&
        parse_dev(hwloc_obj_get_info_by_name(object, "LinuxDeviceID"), &dev)) {
        device->dev = dev;
        device->node = node_from_kernel(topology, dev);
    }
    if (device->node < 0) {
        device->node = node_from_hwloc(topology, hwloc, object);
    }
}

/* GPUs whose driver shows no operating-system object (NVIDIA's, without its hwloc plugin) */
static void add_pci_gpu(struct ab_topology *topology, const struct ab_log *log,
                        hwloc_topology_t hwloc, hwloc_obj_t object)
{
    char pci[sizeof(((struct ab_device *)NULL)->pci)] = "";
    pci_name(object, pci, sizeof(pci));
    if (object->attr->pcidev.class_id >> 8 != PCI_CLASS_DISPLAY || gpu_is_listed(topology, pci)) {
        return;
    }
    struct ab_device *device = device_add(topology, log, AB_DEVICE_GPU, pci);
    if (device == NULL) {
        return;
    }
    (void)snprintf(device->pci, sizeof(device->pci), "%s", pci);
    if (topology->is_machine) {
        char path[AB_SYS_PATH_MAX];
        int64_t node;
        (void)snprintf(path, sizeof(path), "/sys/bus/pci/devices/%s/numa_node", pci);
        if (ab_sys_read_i64(topology->os, path, &node) == 0 && node >= 0 && node <= UINT32_MAX) {
            device->node = ab_topology_node_by_os(topology, (uint32_t)node);
        }
    }
    if (device->node < 0) {
        device->node = node_from_hwloc(topology, hwloc, object);
    }
}

/* ---- disks that hwloc leaves out: device mapper, md, loop, zram ---- */

static void add_virtual_disk(struct ab_topology *topology, const struct ab_log *log,
                             const char *name)
{
    char path[AB_SYS_PATH_MAX];
    char text[32];
    int64_t value;
    dev_t dev;
    (void)snprintf(path, sizeof(path), "/sys/block/%.64s/size", name);
    if (ab_sys_read_i64(topology->os, path, &value) < 0 || value <= 0) {
        return; /* a loop device without a file */
    }
    (void)snprintf(path, sizeof(path), "/sys/block/%.64s/hidden", name);
    if (ab_sys_read_i64(topology->os, path, &value) == 0 && value != 0) {
        return; /* one path of a multipath disk */
    }
    (void)snprintf(path, sizeof(path), "/sys/block/%.64s/dev", name);
    if (ab_sys_read(topology->os, path, text, sizeof(text)) < 0 || !parse_dev(text, &dev) ||
        device_by_dev(topology, dev) >= 0) {
        return;
    }
    struct ab_device *device = device_add(topology, log, AB_DEVICE_BLOCK, name);
    if (device != NULL) {
        device->dev = dev;
        device->node = node_from_kernel(topology, dev);
    }
}

/* Calls visit for each name in a directory; none where it cannot be read: nothing is known then. */
static void each_name(const struct ab_os *os, const char *path,
                      void (*visit)(void *context, const char *name), void *context)
{
    _Alignas(struct dirent64) char bytes[DIRECTORY_BYTES];
    const int fd = os->openat(os, AT_FDCWD, path, O_RDONLY | O_DIRECTORY, 0);
    if (fd < 0) {
        return;
    }
    for (uint32_t call = 0; call < DIRECTORY_CALLS_MAX; call++) {
        const int64_t count = os->getdents(os, fd, bytes, sizeof(bytes));
        if (count <= 0) {
            break;
        }
        for (int64_t at = 0; at < count;) {
            const struct dirent64 *entry = (const void *)(bytes + at);
            if (entry->d_name[0] != '.') {
                visit(context, entry->d_name);
            }
            at += entry->d_reclen;
        }
    }
    (void)os->close(os, fd);
}

struct disk_visit {
    struct ab_topology *topology;
    const struct ab_log *log;
};

static void visit_disk(void *context, const char *name)
{
    const struct disk_visit *visit = context;
    add_virtual_disk(visit->topology, visit->log, name);
}

struct slave_visit {
    struct ab_topology *topology;
    uint32_t count;
    int32_t disk; /* device that all slaves so far are on; -1: several, or an unknown one */
    int32_t node; /* the same for their node */
};

static void visit_slave(void *context, const char *name)
{
    struct slave_visit *visit = context;
    char path[AB_SYS_PATH_MAX];
    char text[32];
    int32_t disk = device_by_name(visit->topology, name);
    (void)snprintf(path, sizeof(path), "/sys/class/block/%.64s/../dev", name);
    dev_t dev;
    if (disk < 0 && ab_sys_read(visit->topology->os, path, text, sizeof(text)) == 0 &&
        parse_dev(text, &dev)) {
        disk = device_by_dev(visit->topology, dev); /* a partition's disk */
    }
    const int32_t node = disk < 0 ? -1 : visit->topology->devices[disk].node;
    visit->disk = visit->count == 0 || visit->disk == disk ? disk : -1;
    visit->node = visit->count == 0 || visit->node == node ? node : -1;
    visit->count++;
}

/* One level: a device with slaves points to the one that carries it. Repeated for stacks. */
static void find_carriers(struct ab_topology *topology)
{
    for (uint32_t i = 0; i < topology->device_count; i++) {
        struct ab_device *device = &topology->devices[i];
        if (device->kind != AB_DEVICE_BLOCK || device->pci[0] != '\0') {
            continue;
        }
        char path[AB_SYS_PATH_MAX];
        struct slave_visit visit = {.topology = topology, .disk = -1, .node = -1};
        (void)snprintf(path, sizeof(path), "/sys/block/%s/slaves", device->name);
        each_name(topology->os, path, visit_slave, &visit);
        if (visit.count > 0) {
            device->node = visit.node;
            topology->below[i] = visit.disk >= 0 ? visit.disk : (int32_t)i;
        }
    }
}

int ab_topology_devices_fill(struct ab_topology *topology, const struct ab_log *log,
                             hwloc_topology_t hwloc)
{
    const struct ab_os *os = topology->os;
    topology->devices = ab_os_alloc_array(os, AB_DEVICES_MAX, sizeof(*topology->devices));
    topology->below = ab_os_alloc_array(os, AB_DEVICES_MAX, sizeof(*topology->below));
    if (topology->devices == NULL || topology->below == NULL) {
        return -ENOMEM;
    }
    for (hwloc_obj_t object = hwloc_get_next_osdev(hwloc, NULL); object != NULL;
         object = hwloc_get_next_osdev(hwloc, object)) {
        add_osdev(topology, log, hwloc, object);
    }
    for (hwloc_obj_t object = hwloc_get_next_pcidev(hwloc, NULL); object != NULL;
         object = hwloc_get_next_pcidev(hwloc, object)) {
        add_pci_gpu(topology, log, hwloc, object);
    }
    if (topology->is_machine) {
        struct disk_visit visit = {.topology = topology, .log = log};
        each_name(os, "/sys/block", visit_disk, &visit);
        for (uint32_t level = 0; level < CARRIERS_MAX; level++) {
            find_carriers(topology); /* nodes climb one level of a stack each time */
        }
    }
    return 0;
}

void ab_topology_devices_free(struct ab_topology *topology)
{
    topology->os->free(topology->os, topology->devices);
    topology->os->free(topology->os, topology->below);
}

/* ---- ask ---- */

uint32_t ab_topology_device_count(const struct ab_topology *topology)
{
    return topology->device_count;
}

const struct ab_device *ab_topology_device(const struct ab_topology *topology, uint32_t device)
{
    AB_ASSERT(device < topology->device_count);
    return &topology->devices[device];
}

int32_t ab_topology_block_device(const struct ab_topology *topology, dev_t dev)
{
    char path[AB_SYS_PATH_MAX];
    char text[32];
    if (!topology->is_machine || major(dev) == 0) { /* major 0: overlay, tmpfs, btrfs, NFS */
        return -1;
    }
    int32_t device = device_by_dev(topology, dev);
    if (device < 0) {
        int64_t partition;
        dev_t disk;
        (void)snprintf(path, sizeof(path), "/sys/dev/block/%u:%u/partition", major(dev),
                       minor(dev));
        if (ab_sys_read_i64(topology->os, path, &partition) < 0) {
            return -1;
        }
        (void)snprintf(path, sizeof(path), "/sys/dev/block/%u:%u/../dev", major(dev), minor(dev));
        if (ab_sys_read(topology->os, path, text, sizeof(text)) < 0 || !parse_dev(text, &disk)) {
            return -1;
        }
        device = device_by_dev(topology, disk);
    }
    for (uint32_t level = 0; device >= 0 && level < CARRIERS_MAX; level++) {
        device = topology->below[device];
    }
    return device;
}
