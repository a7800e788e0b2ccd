/*
 * fuzz_topology.c - where config.topology points to: the words of a synthetic topology, or an hwloc
 * XML file. An input that begins with '<' is a list of values, ended by '|', that are put into the
 * attributes of a whole XML file. Law: a status, or a topology whose every answer is within its own
 * bounds.
 *
 * The XML's structure is not fuzzed: hwloc reads it, and hwloc 2.9.0 itself crashes where, for
 * instance, an object has no complete_cpuset. Whoever writes that file is trusted as a user's own
 * configuration is.
 */
#include "fuzz/fuzz.h"
#include "machine/topology.h"

#include <stdio.h>
#include <string.h>

#define TEXT_MAX 4096u

/* hwloc leaks objects of XML that it then refuses: not ours to mend */
const char *__lsan_default_suppressions(void);
const char *__lsan_default_suppressions(void)
{
    return "leak:libhwloc\n";
}

static void answers_check(const struct ab_topology *topology)
{
    const uint32_t nodes = ab_topology_node_count(topology);
    fuzz_expect(nodes >= 1 && nodes <= AB_NODES_MAX && !ab_topology_is_machine(topology));
    for (uint32_t n = 0; n < nodes; n++) {
        const struct ab_node *node = ab_topology_node(topology, n);
        fuzz_expect(node->cpu_node < (int32_t)nodes);
        fuzz_expect(ab_topology_node_by_os(topology, node->os_index) >= 0);
        fuzz_expect(ab_topology_distance(topology, n, n) != 0);
    }
    for (uint32_t d = 0; d < ab_topology_device_count(topology); d++) {
        const struct ab_device *device = ab_topology_device(topology, d);
        fuzz_expect(device->node < (int32_t)nodes);
        fuzz_expect(memchr(device->name, 0, sizeof(device->name)) != NULL);
        fuzz_expect(memchr(device->pci, 0, sizeof(device->pci)) != NULL);
    }
}

/* '@': a value of the input, else what stands between it and the next '@' */
static const char xml_text[] =
    "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<!DOCTYPE topology SYSTEM \"hwloc2.dtd\">\n"
    "<topology version=\"2.0\">\n<object type=\"Machine\" os_index=\"0\" cpuset=\"0x3\" "
    "complete_cpuset=\"0x3\" allowed_cpuset=\"0x3\" nodeset=\"0x3\" complete_nodeset=\"0x3\" "
    "allowed_nodeset=\"0x3\" gp_index=\"1\">\n<info name=\"@Backend@\" value=\"@Linux@\"/>"
    "<object type=\"NUMANode\" os_index=\"0\" "
    "cpuset=\"0x3\" complete_cpuset=\"0x3\" nodeset=\"0x1\" complete_nodeset=\"0x1\" "
    "gp_index=\"2\" local_memory=\"@4096@\"><page_type size=\"@4096@\" count=\"@1@\"/></object>\n"
    "<object type=\"NUMANode\" os_index=\"1\" "
    "cpuset=\"0x3\" complete_cpuset=\"0x3\" nodeset=\"0x2\" complete_nodeset=\"0x2\" "
    "gp_index=\"7\" local_memory=\"@4096@\"/>\n"
    "<object type=\"PU\" os_index=\"0\" cpuset=\"0x1\" complete_cpuset=\"0x1\" nodeset=\"0x3\" "
    "complete_nodeset=\"0x3\" gp_index=\"3\"/>\n"
    "<object type=\"PU\" os_index=\"1\" cpuset=\"0x2\" complete_cpuset=\"0x2\" nodeset=\"0x3\" "
    "complete_nodeset=\"0x3\" gp_index=\"8\"/>\n<object type=\"Bridge\" gp_index=\"4\" "
    "bridge_type=\"0-1\" depth=\"0\" bridge_pci=\"0000:[00-01]\"><object type=\"PCIDev\" "
    "gp_index=\"5\" pci_busid=\"@0000:00:01.0@\" pci_type=\"@0108 [1af4:1001] [1af4:0002] 00@\" "
    "pci_link_speed=\"@0.0@\"><object type=\"OSDev\" gp_index=\"6\" name=\"@nvme0n1@\" "
    "subtype=\"@Disk@\" osdev_type=\"@0@\"><info name=\"@SectorSize@\" value=\"@512@\"/></object>"
    "</object></object>\n</object>\n<distances2 type=\"NUMANode\" nbobjs=\"2\" kind=\"5\" "
    "name=\"@NUMALatency@\" indexing=\"os\"><indexes length=\"4\">0 1 </indexes><u64values "
    "length=\"12\">10 @20@ @20@ 10 </u64values></distances2>\n"
    "<support name=\"discovery.pu\"/>\n</topology>\n";

static size_t xml_make(const uint8_t *bytes, size_t size, char *ret, size_t capacity)
{
    size_t used = 0, at = 0;
    bool inside = false, given = false;
    for (const char *c = xml_text; *c != '\0' && used + 1 < capacity; c++) {
        if (*c != '@') {
            ret[used] = *c;
            used += !(inside && given);
            continue;
        }
        inside = !inside;
        given = inside && at < size;
        while (given && at < size && bytes[at] != '|' && used + 1 < capacity) {
            const bool is_plain = bytes[at] >= ' ' && strchr("<>&\"", bytes[at]) == NULL;
            ret[used++] = is_plain ? (char)bytes[at] : '_';
            at++;
        }
        at += given && at < size;
    }
    return used;
}

static void topology_run(const uint8_t *bytes, size_t size)
{
    static char text[2 * TEXT_MAX + sizeof(xml_text)];
    const char *source = text;
    if (size == 0) {
        return;
    }
    if (bytes[0] == '<') {
        source = fuzz_memory_file(text, xml_make(bytes + 1, size - 1, text, sizeof(text)));
    } else {
        (void)snprintf(text, sizeof(text), "synthetic:%.*s", (int)size, (const char *)bytes);
        if (fuzz_synthetic_is_large(text)) {
            return;
        }
    }
    struct ab_topology *topology = NULL;
    if (ab_topology_open(ab_os_default(), NULL, source, &topology) == 0) {
        answers_check(topology);
        ab_topology_close(topology);
    }
}

static const char *const seeds[] = {
    "numa:2 pu:1",
    "pack:2 [numa] core:2 pu:2",
    "group:2 [numa(memory=1GB)] l3:1 core:2 pu:1",
    "<",
    "<B|L|4096|4096|1|8192|0001:02:03.4|0302 [10de:2330] [10de:16c1] a1|1|card0|GPU|1",
};

static size_t topology_seed(uint32_t index, uint8_t *bytes, size_t capacity)
{
    if (index >= sizeof(seeds) / sizeof(seeds[0]) || strlen(seeds[index]) > capacity) {
        return 0;
    }
    memcpy(bytes, seeds[index], strlen(seeds[index]));
    return strlen(seeds[index]);
}

extern const struct fuzz_target fuzz_topology;
const struct fuzz_target fuzz_topology = {
    .name = "topology", .size_max = TEXT_MAX, .run = topology_run, .seed = topology_seed};
