/*
 * test_topology.c - goal: nodes, CPUs, distances and disks are those of the machine, of the file or
 * of the description, and nothing that is not a topology gets through. Method: this machine against
 * sysfs read here, by other means; other machines made with hwloc's own builder and exported; disks
 * that this machine lacks (partitions, device mapper) in a faked /sys; every call made to fail once.
 */
#include "machine/topology.h"

#include <dirent.h>
#include <errno.h>
#include <hwloc.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/num.h"
#include "fake_root.h"
#include "fault_os.h"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/lsan_interface.h>
#else
#define __lsan_disable() ((void)0)
#define __lsan_enable() ((void)0)
#endif

#define PATH_BYTES 512
#define WALK_MAX 1000u /* more calls than one open makes */

/* ---- what the tests share -------------------------------------------------------------------- */

static char last_line[1024];

static void keep_line(void *context, int level, const char *line)
{
    (void)context;
    (void)level;
    (void)snprintf(last_line, sizeof(last_line), "%s", line);
}

static const struct ab_log log_kept = {.write = keep_line};

static struct ab_topology *open_good(const char *source)
{
    struct ab_topology *topology = NULL;
    assert_int_equal(ab_topology_open(ab_os_default(), &log_kept, source, &topology), 0);
    assert_non_null(topology);
    return topology;
}

static void open_bad(const char *source, int expected)
{
    struct ab_topology *topology = NULL;
    last_line[0] = '\0';
    assert_int_equal(ab_topology_open(ab_os_default(), &log_kept, source, &topology), expected);
    assert_null(topology);
    assert_non_null(strstr(last_line, source)); /* the error names the thing */
}

static bool read_line(const char *path, char *ret, size_t capacity)
{
    FILE *file = fopen(path, "re");
    if (file == NULL) {
        return false;
    }
    const bool good = fgets(ret, (int)capacity, file) != NULL;
    ret[good ? strcspn(ret, "\n") : 0] = '\0';
    assert_int_equal(fclose(file), 0);
    return good;
}

static char xml_path[] = "/tmp/abode-test-topology-XXXXXX";

static int set_up(void **state)
{
    (void)state;
    const int fd = mkstemp(xml_path);
    assert_true(fd >= 0);
    return close(fd);
}

static int tear_down(void **state)
{
    (void)state;
    return unlink(xml_path);
}

static void write_file(const char *bytes, size_t count)
{
    FILE *file = fopen(xml_path, "we");
    assert_non_null(file);
    assert_int_equal(fwrite(bytes, 1, count, file), count);
    assert_int_equal(fclose(file), 0);
}

/* ---- this machine ---------------------------------------------------------------------------- */

static void nodes_are_those_of_the_kernel(void **state)
{
    (void)state;
    struct ab_topology *topology = open_good(NULL);
    assert_true(ab_topology_is_machine(topology));
    uint32_t in_kernel = 0;
    DIR *nodes = opendir("/sys/devices/system/node");
    if (nodes == NULL) {
        ab_topology_close(topology);
        print_message("SKIP: this kernel has no /sys/devices/system/node\n");
        skip();
    }
    for (const struct dirent *entry = readdir(nodes); entry != NULL; entry = readdir(nodes)) {
        unsigned os_index;
        if (sscanf(entry->d_name, "node%u", &os_index) == 1) {
            assert_true(ab_topology_node_by_os(topology, os_index) >= 0);
            in_kernel++;
        }
    }
    assert_int_equal(closedir(nodes), 0);
    assert_int_equal(ab_topology_node_count(topology), in_kernel);
    for (uint32_t n = 1; n < in_kernel; n++) {
        assert_true(ab_topology_node(topology, n - 1)->os_index <
                    ab_topology_node(topology, n)->os_index);
    }
    assert_true(ab_topology_allowed(topology) != 0);
    assert_true(in_kernel == 64 || ab_topology_allowed(topology) >> in_kernel == 0);
    ab_topology_close(topology);
}

/* a CPU's node by the links in the CPU's directory, not by the lists that topology.c reads */
static void cpus_are_with_their_node(void **state)
{
    (void)state;
    struct ab_topology *topology = open_good(NULL);
    cpu_set_t seen;
    uint32_t cpus = 0;
    CPU_ZERO(&seen);
    for (uint32_t n = 0; n < ab_topology_node_count(topology); n++) {
        const struct ab_node *node = ab_topology_node(topology, n);
        assert_int_equal(node->cpu_count, CPU_COUNT(&node->cpus));
        assert_int_equal(ab_topology_distance(topology, n, n), 10);
        assert_true(node->cpu_node >= 0);
        assert_true(ab_topology_node(topology, (uint32_t)node->cpu_node)->cpu_count > 0);
        assert_true(node->cpu_count == 0 || node->cpu_node == (int32_t)n);
        cpus += node->cpu_count;
        CPU_OR(&seen, &seen, &node->cpus);
        for (uint32_t cpu = 0; cpu < CPU_SETSIZE; cpu++) {
            char path[PATH_BYTES];
            (void)snprintf(path, sizeof(path), "/sys/devices/system/cpu/cpu%u/node%u", cpu,
                           node->os_index);
            if (CPU_ISSET(cpu, &node->cpus) && access("/sys/devices/system/node", F_OK) == 0) {
                assert_int_equal(access(path, F_OK), 0);
            }
        }
    }
    assert_int_equal(CPU_COUNT(&seen), cpus); /* no CPU twice */
    assert_true(cpus > 0);
    ab_topology_close(topology);
}

static void distances_are_those_of_the_kernel(void **state)
{
    (void)state;
    struct ab_topology *topology = open_good(NULL);
    const uint32_t count = ab_topology_node_count(topology);
    for (uint32_t from = 0; from < count; from++) {
        char path[PATH_BYTES], line[4096];
        (void)snprintf(path, sizeof(path), "/sys/devices/system/node/node%u/distance",
                       ab_topology_node(topology, from)->os_index);
        if (!read_line(path, line, sizeof(line))) {
            ab_topology_close(topology);
            print_message("SKIP: this kernel has no %s\n", path);
            skip();
        }
        const char *cursor = line;
        for (uint32_t to = 0; to < count; to++) {
            char *end;
            assert_int_equal(ab_topology_distance(topology, from, to), strtoul(cursor, &end, 10));
            cursor = end;
        }
    }
    ab_topology_close(topology);
}

/* A file system's disk by realpath: the directory above a partition's, or the disk's own. */
static void disk_of_a_file_system_is_found(void **state)
{
    (void)state;
    static const char *const places[] = {"/", "/tmp", "/mnt/drive0"};
    struct ab_topology *topology = open_good(NULL);
    uint32_t checked = 0;
    for (size_t i = 0; i < AB_COUNT(places); i++) {
        struct stat status;
        char path[PATH_BYTES], real[PATH_MAX], text[64];
        if (stat(places[i], &status) < 0 || major(status.st_dev) == 0) {
            continue;
        }
        (void)snprintf(path, sizeof(path), "/sys/dev/block/%u:%u", major(status.st_dev),
                       minor(status.st_dev));
        if (realpath(path, real) == NULL || strstr(real, "/virtual/") != NULL) {
            continue; /* in a container without this sysfs; or on device mapper */
        }
        const int32_t found = ab_topology_block_device(topology, status.st_dev);
        assert_in_range(found, 0, ab_topology_device_count(topology) - 1);
        const struct ab_device *device = ab_topology_device(topology, (uint32_t)found);
        assert_int_equal(device->kind, AB_DEVICE_BLOCK);
        char part[PATH_MAX + 32];
        (void)snprintf(part, sizeof(part), "%s/partition", real);
        if (access(part, F_OK) == 0) {
            *strrchr(real, '/') = '\0';
        }
        assert_string_equal(device->name, strrchr(real, '/') + 1);
        int node = -1;
        while (node < 0 && strcmp(real, "/sys/devices") != 0) {
            (void)snprintf(part, sizeof(part), "%s/numa_node", real);
            node = read_line(part, text, sizeof(text)) ? (int)strtol(text, NULL, 10) : -1;
            *strrchr(real, '/') = '\0';
        }
        assert_int_equal(device->node, node < 0 ? device->node
                                                : ab_topology_node_by_os(topology, (uint32_t)node));
        assert_true(node >= 0 || ab_topology_node_count(topology) > 1 || device->node == -1);
        checked++;
    }
    assert_int_equal(ab_topology_block_device(topology, makedev(0, 5)), -1);
    assert_int_equal(ab_topology_block_device(topology, makedev(4095, 77)), -1);
    ab_topology_close(topology);
    if (checked == 0) {
        print_message("SKIP: no file system here is on a disk that sysfs shows\n");
        skip();
    }
}

/* ---- disks in a faked sysfs ------------------------------------------------------------------- */

/* /sys/dev/block/9999:m -> the disk's directory, as the kernel has it */
static void fake_disk(struct fake_root *fake, const char *name, const char *dev, const char *size)
{
    char path[FAKE_PATH_MAX], target[FAKE_PATH_MAX];
    (void)snprintf(path, sizeof(path), "/sys/devices/fake/%s/size", name);
    fake_root_file(fake, path, size);
    (void)snprintf(path, sizeof(path), "/sys/devices/fake/%s/dev", name);
    fake_root_file(fake, path, dev);
    (void)snprintf(path, sizeof(path), "/sys/devices/fake/%s/slaves", name);
    fake_root_directory(fake, path);
    (void)snprintf(path, sizeof(path), "/sys/block/%s", name);
    (void)snprintf(target, sizeof(target), "../devices/fake/%s", name);
    fake_root_link(fake, path, target);
    (void)snprintf(path, sizeof(path), "/sys/class/block/%s", name);
    (void)snprintf(target, sizeof(target), "../../devices/fake/%s", name);
    fake_root_link(fake, path, target);
    (void)snprintf(path, sizeof(path), "/sys/dev/block/%.*s", (int)strcspn(dev, "\n"), dev);
    fake_root_link(fake, path, target);
}

static void fake_partition(struct fake_root *fake, const char *disk, const char *name,
                           const char *dev)
{
    char path[FAKE_PATH_MAX], target[FAKE_PATH_MAX];
    (void)snprintf(path, sizeof(path), "/sys/devices/fake/%s/%s/partition", disk, name);
    fake_root_file(fake, path, "1\n");
    (void)snprintf(path, sizeof(path), "/sys/devices/fake/%s/%s/dev", disk, name);
    fake_root_file(fake, path, dev);
    (void)snprintf(target, sizeof(target), "../../devices/fake/%s/%s", disk, name);
    (void)snprintf(path, sizeof(path), "/sys/class/block/%s", name);
    fake_root_link(fake, path, target);
    (void)snprintf(path, sizeof(path), "/sys/dev/block/%.*s", (int)strcspn(dev, "\n"), dev);
    fake_root_link(fake, path, target);
}

static void fake_disks(struct fake_root *fake)
{
    fake_root_init(fake, NULL);
    fake_root_cover(fake, "/sys/block");
    fake_root_cover(fake, "/sys/class/block");
    fake_root_cover(fake, "/sys/dev/block");
    fake_disk(fake, "sdx", "900:0\n", "4096\n");
    fake_disk(fake, "sdy", "900:16\n", "4096\n");
    fake_disk(fake, "loop7", "901:7\n", "0\n");
    fake_disk(fake, "nvme9c0n1", "902:0\n", "4096\n");
    fake_disk(fake, "dm-0", "903:0\n", "4096\n"); /* on a partition of sdx */
    fake_disk(fake, "dm-1", "903:1\n", "4096\n"); /* on dm-0 */
    fake_disk(fake, "md9", "904:9\n", "4096\n");  /* on both disks */
    fake_root_file(fake, "/sys/devices/fake/nvme9c0n1/hidden", "1\n");
    fake_partition(fake, "sdx", "sdx1", "900:1\n");
    fake_root_directory(fake, "/sys/devices/fake/dm-0/slaves/sdx1");
    fake_root_directory(fake, "/sys/devices/fake/dm-1/slaves/dm-0");
    fake_root_directory(fake, "/sys/devices/fake/md9/slaves/sdx");
    fake_root_directory(fake, "/sys/devices/fake/md9/slaves/sdy");
    /* sdx: the function two levels up has the node; sdy: its kernel says -1 */
    fake_root_file(fake, "/sys/devices/bus/host/target/here", "");
    fake_root_file(fake, "/sys/devices/bus/numa_node", "0\n");
    fake_root_link(fake, "/sys/devices/fake/sdx/device", "../../bus/host/target");
    fake_root_file(fake, "/sys/devices/other/numa_node", "-1\n");
    fake_root_link(fake, "/sys/devices/fake/sdy/device", "../../other");
}

static const char *name_of(const struct ab_topology *topology, unsigned high, unsigned low)
{
    const int32_t found = ab_topology_block_device(topology, makedev(high, low));
    return found < 0 ? "" : ab_topology_device(topology, (uint32_t)found)->name;
}

static int32_t node_of(const struct ab_topology *topology, const char *name)
{
    for (uint32_t i = 0; i < ab_topology_device_count(topology); i++) {
        if (strcmp(ab_topology_device(topology, i)->name, name) == 0) {
            return ab_topology_device(topology, i)->node;
        }
    }
    fail_msg("no device %s", name);
    return -1;
}

static void partitions_and_stacked_disks_find_their_disk(void **state)
{
    (void)state;
    struct fake_root fake;
    struct ab_topology *topology;
    fake_disks(&fake);
    assert_int_equal(ab_topology_open(&fake.os, &log_kept, NULL, &topology), 0);
    const int32_t first = ab_topology_node_by_os(topology, 0);
    assert_string_equal(name_of(topology, 900, 0), "sdx");
    assert_string_equal(name_of(topology, 900, 1), "sdx");
    assert_string_equal(name_of(topology, 903, 0), "sdx");
    assert_string_equal(name_of(topology, 903, 1), "sdx");
    assert_string_equal(name_of(topology, 904, 9), "md9"); /* two disks: itself */
    assert_string_equal(name_of(topology, 901, 7), "");    /* a loop device without a file */
    assert_string_equal(name_of(topology, 902, 0), "");    /* one path of a multipath disk */
    assert_int_equal(node_of(topology, "sdx"), first);
    assert_int_equal(node_of(topology, "sdy"), -1);
    assert_int_equal(node_of(topology, "dm-1"), first);
    assert_int_equal(node_of(topology, "md9"), -1); /* its disks disagree */
    ab_topology_close(topology);
    fake_root_free(&fake);
}

/* what a broken or hostile sysfs may say must not become a node, a CPU or an endless loop */
static void nonsense_in_sysfs_is_not_believed(void **state)
{
    (void)state;
    struct fake_root fake;
    struct ab_topology *topology;
    fake_disks(&fake);
    fake_root_file(&fake, "/sys/devices/bus/numa_node", "77777\n");
    fake_root_file(&fake, "/sys/devices/fake/sdy/dev", "900:99999999999999999999\n");
    fake_root_directory(&fake, "/sys/devices/fake/dm-0/slaves/dm-1"); /* a circle */
    fake_root_cover(&fake, "/sys/devices/system/node");
    fake_root_file(&fake, "/sys/devices/system/node/node0/cpulist", "0-99999999999,,-3");
    assert_int_equal(ab_topology_open(&fake.os, &log_kept, NULL, &topology), 0);
    assert_int_equal(node_of(topology, "sdx"), -1);
    assert_string_equal(name_of(topology, 900, 16), "");
    assert_true(ab_topology_block_device(topology, makedev(903, 0)) >= 0);
    assert_true(ab_topology_node(topology, 0)->cpu_count <= CPU_SETSIZE);
    ab_topology_close(topology);
    fake_root_free(&fake);
}

/* ---- other machines --------------------------------------------------------------------------- */

static void synthetic_nodes(void **state)
{
    (void)state;
    struct ab_topology *topology =
        open_good("synthetic:pack:2 [numa(memory=1073741824)] core:2 pu:1");
    assert_false(ab_topology_is_machine(topology));
    assert_int_equal(ab_topology_node_count(topology), 2);
    for (uint32_t n = 0; n < 2; n++) {
        const struct ab_node *node = ab_topology_node(topology, n);
        assert_int_equal(node->os_index, n);
        assert_int_equal(node->cpu_count, 2);
        assert_int_equal(node->cpu_node, (int32_t)n);
        assert_int_equal(node->bytes, 1u << 30);
        assert_true(CPU_ISSET(2 * n, &node->cpus) && CPU_ISSET(2 * n + 1, &node->cpus));
        assert_int_equal(ab_topology_distance(topology, n, n), 10);
    }
    assert_int_equal(ab_topology_allowed(topology), 3);
    assert_int_equal(ab_topology_node_by_os(topology, 2), -1);
    struct stat status;
    assert_int_equal(stat("/", &status), 0);
    assert_int_equal(ab_topology_block_device(topology, status.st_dev), -1);
    ab_topology_close(topology);
}

/* hwloc says of the second node of a package that all the package's CPUs are local to it */
static void second_memory_of_a_package_has_no_cpus(void **state)
{
    (void)state;
    struct ab_topology *topology = open_good("synthetic:pack:2 [numa] [numa] core:2 pu:1");
    assert_int_equal(ab_topology_node_count(topology), 4);
    uint32_t cpus = 0, without = 0;
    for (uint32_t n = 0; n < 4; n++) {
        const struct ab_node *node = ab_topology_node(topology, n);
        cpus += node->cpu_count;
        without += node->cpu_count == 0;
        assert_true(node->cpu_node >= 0);
        if (node->cpu_count == 0) { /* served by its own package: without distances, by locality */
            assert_int_equal(node->cpu_node, (int32_t)n - 1);
        }
    }
    assert_int_equal(cpus, 4);
    assert_int_equal(without, 2);
    ab_topology_close(topology);
}

/* A machine that no description can make: sparse node numbers in an order that is not hwloc's,
 * distances by which the memory-only node is nearer to the far package, memory attributes. */
static void make_xml_of_elsewhere(void)
{
    hwloc_topology_t hwloc;
    assert_int_equal(hwloc_topology_init(&hwloc), 0);
    assert_int_equal(
        hwloc_topology_set_synthetic(hwloc, "pack:2 [numa(indexes=7,9,2,4)] [numa] core:2 pu:1"),
        0);
    assert_int_equal(hwloc_topology_load(hwloc), 0);
    hwloc_obj_t nodes[4];
    hwloc_uint64_t values[16];
    static const unsigned order[4] = {2, 4, 7, 9};
    for (unsigned i = 0; i < 4; i++) {
        nodes[i] = hwloc_get_numanode_obj_by_os_index(hwloc, order[i]);
        assert_non_null(nodes[i]);
        for (unsigned j = 0; j < 4; j++) {
            values[i * 4 + j] = i == j ? 10 : 20 + i + j;
        }
    }
    values[3 * 4 + 0] = 15; /* 9 is nearer to 2 than to 7 */
    const hwloc_distances_add_handle_t distances = hwloc_distances_add_create(
        hwloc, "NUMALatency", HWLOC_DISTANCES_KIND_MEANS_LATENCY | HWLOC_DISTANCES_KIND_FROM_USER,
        0);
    assert_non_null(distances);
    assert_int_equal(hwloc_distances_add_values(hwloc, distances, 4, nodes, values, 0), 0);
    assert_int_equal(hwloc_distances_add_commit(hwloc, distances, 0), 0);
    struct hwloc_location near = {.type = HWLOC_LOCATION_TYPE_CPUSET};
    near.location.cpuset = nodes[0]->cpuset;
    assert_int_equal(
        hwloc_memattr_set_value(hwloc, HWLOC_MEMATTR_ID_BANDWIDTH, nodes[0], &near, 0, 123456), 0);
    assert_int_equal(
        hwloc_memattr_set_value(hwloc, HWLOC_MEMATTR_ID_LATENCY, nodes[0], &near, 0, 89), 0);
    assert_int_equal(hwloc_topology_export_xml(hwloc, xml_path, 0), 0);
    hwloc_topology_destroy(hwloc);
}

static void xml_of_elsewhere(void **state)
{
    (void)state;
    make_xml_of_elsewhere();
    struct ab_topology *topology = open_good(xml_path);
    static const uint32_t order[4] = {2, 4, 7, 9};
    assert_false(ab_topology_is_machine(topology));
    assert_int_equal(ab_topology_node_count(topology), 4);
    for (uint32_t n = 0; n < 4; n++) {
        assert_int_equal(ab_topology_node(topology, n)->os_index, order[n]);
        assert_int_equal(ab_topology_node_by_os(topology, order[n]), (int32_t)n);
    }
    assert_int_equal(ab_topology_node_by_os(topology, 3), -1);
    assert_int_equal(ab_topology_distance(topology, 0, 1), 21);
    assert_int_equal(ab_topology_distance(topology, 1, 0), 21);
    assert_int_equal(ab_topology_distance(topology, 3, 0), 15);
    assert_int_equal(ab_topology_distance(topology, 0, 3), 23);
    assert_int_equal(ab_topology_node(topology, 0)->cpu_count, 2);
    assert_int_equal(ab_topology_node(topology, 2)->cpu_count, 2);
    assert_int_equal(ab_topology_node(topology, 3)->cpu_count, 0);
    assert_int_equal(ab_topology_node(topology, 3)->cpu_node, 0); /* by distance, not by package */
    assert_int_equal(ab_topology_node(topology, 0)->bandwidth_mbs, 123456);
    assert_int_equal(ab_topology_node(topology, 0)->latency_ns, 89);
    assert_int_equal(ab_topology_node(topology, 2)->bandwidth_mbs, 0);
    ab_topology_close(topology);
}

/* the same machine, through a file: all the same but that it is not this machine any more */
static void xml_of_this_machine(void **state)
{
    (void)state;
    hwloc_topology_t hwloc;
    assert_int_equal(hwloc_topology_init(&hwloc), 0);
    assert_int_equal(hwloc_topology_set_io_types_filter(hwloc, HWLOC_TYPE_FILTER_KEEP_IMPORTANT),
                     0);
    assert_int_equal(hwloc_topology_load(hwloc), 0);
    assert_int_equal(hwloc_topology_export_xml(hwloc, xml_path, 0), 0);
    hwloc_topology_destroy(hwloc);
    struct ab_topology *here = open_good(NULL);
    struct ab_topology *there = open_good(xml_path);
    assert_false(ab_topology_is_machine(there));
    assert_int_equal(ab_topology_node_count(there), ab_topology_node_count(here));
    for (uint32_t n = 0; n < ab_topology_node_count(here); n++) {
        const struct ab_node *ours = ab_topology_node(here, n);
        const struct ab_node *theirs = ab_topology_node(there, n);
        assert_int_equal(theirs->os_index, ours->os_index);
        assert_int_equal(theirs->bytes, ours->bytes);
        assert_true(CPU_EQUAL(&theirs->cpus, &ours->cpus));
        for (uint32_t to = 0; to < ab_topology_node_count(here); to++) {
            assert_int_equal(ab_topology_distance(there, n, to), ab_topology_distance(here, n, to));
        }
    }
    for (uint32_t i = 0; i < ab_topology_device_count(there); i++) {
        assert_int_equal(ab_topology_device(there, i)->dev, 0); /* never mixed up with ours */
    }
    struct stat status;
    assert_int_equal(stat("/", &status), 0);
    assert_int_equal(ab_topology_block_device(there, status.st_dev), -1);
    ab_topology_close(here);
    ab_topology_close(there);
}

/* ---- what is not a topology ------------------------------------------------------------------- */

static void garbage_is_refused(void **state)
{
    (void)state;
    static const char no_machine[] =
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<!DOCTYPE topology SYSTEM \"hwloc2.dtd\">\n"
        "<topology version=\"2.0\">\n</topology>\n";
    static const char *const texts[] = {"x",
                                        "\n\n\n",
                                        "<?xml version=\"1.0\"?>",
                                        "<topology></topology>",
                                        no_machine,
                                        "<?xml version=\"1.0\"?><html><body>a page</body></html>"};
    open_bad("synthetic:", -EINVAL);
    open_bad("synthetic:nonsense", -EINVAL);
    open_bad("synthetic:pack:0", -EINVAL);
    open_bad("/nonexistent/machine.xml", -ENOENT);
    open_bad("/tmp", -EINVAL);      /* a directory */
    open_bad("/dev/null", -EINVAL); /* never ends, or never begins */
    open_bad("/dev/zero", -EINVAL);
    char pipe_path[PATH_BYTES];
    (void)snprintf(pipe_path, sizeof(pipe_path), "%s.pipe", xml_path);
    assert_int_equal(mkfifo(pipe_path, 0600), 0);
    open_bad(pipe_path, -EINVAL); /* and does not wait for a writer */
    assert_int_equal(unlink(pipe_path), 0);
    write_file("", 0);
    open_bad(xml_path, -EINVAL);
    for (size_t i = 0; i < AB_COUNT(texts); i++) {
        write_file(texts[i], strlen(texts[i]));
        open_bad(xml_path, -EINVAL);
    }
}

/* cut at many places: refused, or (past the last object) a topology; never a crash */
static void cut_xml_is_refused(void **state)
{
    (void)state;
    make_xml_of_elsewhere();
    static char bytes[64 << 10];
    FILE *file = fopen(xml_path, "re");
    assert_non_null(file);
    const size_t count = fread(bytes, 1, sizeof(bytes), file);
    assert_int_equal(fclose(file), 0);
    assert_in_range(count, 1000, sizeof(bytes) - 1);
    __lsan_disable(); /* hwloc 2.9 loses the object that it was reading when its XML ends */
    for (size_t cut = 1; cut < count - 20; cut += 211) {
        struct ab_topology *topology = NULL;
        write_file(bytes, cut);
        const int result = ab_topology_open(ab_os_default(), &log_kept, xml_path, &topology);
        assert_int_equal(result, -EINVAL);
        assert_null(topology);
    }
    __lsan_enable();
}

static void more_nodes_than_we_number(void **state)
{
    (void)state;
    struct ab_topology *topology = open_good("synthetic:numa:100 pu:1");
    assert_int_equal(ab_topology_node_count(topology), AB_NODES_MAX);
    assert_non_null(strstr(last_line, "100")); /* said, not silent */
    assert_int_equal(ab_topology_allowed(topology), UINT64_MAX);
    ab_topology_close(topology);
}

/* ---- faults ----------------------------------------------------------------------------------- */

/* Each call fails once. Memory and the file itself are needed; everything else only makes the
 * answer poorer, and a topology that opened must be whole enough to ask. */
static void every_call_fails_once(void **state)
{
    (void)state;
    make_xml_of_elsewhere();
    const char *const sources[] = {NULL, xml_path};
    for (size_t s = 0; s < AB_COUNT(sources); s++) {
        struct fault_os fault;
        fault_os_init(&fault, NULL);
        uint64_t strikes = 1;
        for (uint64_t nth = 1; strikes > 0 && nth < WALK_MAX; nth++) {
            struct ab_topology *topology = NULL;
            fault_os_clear(&fault);
            fault_os_plan(
                &fault, (struct fault_plan){
                            .call = FAULT_ANY_CALL, .nth = nth, .kind = FAULT_ERROR, .error = EIO});
            const int result = ab_topology_open(&fault.os, &log_kept, sources[s], &topology);
            strikes = fault_os_strikes(&fault);
            if (result == 0) {
                assert_true(ab_topology_node_count(topology) > 0);
                assert_true(ab_topology_node(topology, 0)->cpu_count > 0);
                ab_topology_close(topology);
            } else {
                assert_true(result == -ENOMEM || result == -EINVAL);
                assert_int_equal(strikes, 1);
                assert_null(topology);
            }
            assert_int_equal(fault_os_allocations(&fault), 0);
        }
        assert_int_equal(strikes, 0);
        fault_os_free(&fault);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nodes_are_those_of_the_kernel),
        cmocka_unit_test(cpus_are_with_their_node),
        cmocka_unit_test(distances_are_those_of_the_kernel),
        cmocka_unit_test(disk_of_a_file_system_is_found),
        cmocka_unit_test(partitions_and_stacked_disks_find_their_disk),
        cmocka_unit_test(nonsense_in_sysfs_is_not_believed),
        cmocka_unit_test(synthetic_nodes),
        cmocka_unit_test(second_memory_of_a_package_has_no_cpus),
        cmocka_unit_test(xml_of_elsewhere),
        cmocka_unit_test(xml_of_this_machine),
        cmocka_unit_test(garbage_is_refused),
        cmocka_unit_test(cut_xml_is_refused),
        cmocka_unit_test(more_nodes_than_we_number),
        cmocka_unit_test(every_call_fails_once),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
