/*
 * probe.c - `abode probe`: what this machine allows, by trying it.
 *
 * A small store and a small model are opened for real: the engine is chosen by a probe read, memory
 * is bound and backed by huge pages, buffers are registered. What was refused comes with its reason
 * and the mend, in the library's own words. Nothing is left behind.
 */
#include "cli.h"

#include <errno.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/utsname.h>

#define STORE_BYTES (64u << 20)
#define SEGMENT_BYTES (4u << 20)
#define MEMORY_BYTES (64u << 20) /* 32 huge pages: enough to see whether they are given */
#define BLOCK_BYTES (1u << 20)
#define NODES_MAX 1024
#define DEVICES_MAX 64

struct probe_options {
    uint64_t io, huge;
    bool json, verbose;
};

/* A model of one plane, only there to make the library set up memory. */
static int model_add(struct abode *runtime)
{
    const struct abode_plane plane = {.bytes_per_block = BLOCK_BYTES};
    const struct abode_component component = {
        .kind = ABODE_PAGED, .plane_count = 1, .planes = &plane};
    const struct abode_model_desc desc = {
        .struct_size = sizeof(desc),
        .component_count = 1,
        .components = &component,
        .block_tokens = 16,
        .session_tokens_max = 1024,
        .tag = "abode probe",
    };
    uint32_t model = 0;
    return abode_model_add(runtime, &desc, &model);
}

static void memlock_text(char *ret_text, size_t capacity)
{
    struct rlimit limit = {0};
    if (getrlimit(RLIMIT_MEMLOCK, &limit) != 0) {
        (void)snprintf(ret_text, capacity, "unknown");
    } else if (limit.rlim_cur == RLIM_INFINITY) {
        (void)snprintf(ret_text, capacity, "unlimited");
    } else {
        (void)snprintf(ret_text, capacity, "%s", cli_bytes_text(limit.rlim_cur).text);
    }
}

/* ---- text ------------------------------------------------------------------------------------ */

static int nodes_print(struct abode *runtime)
{
    static const char *const header[] = {">node", ">CPUs", ">memory", ">frames here", ""};
    struct cli_table table;
    cli_table_init(&table, 5, header);
    int result = 0;
    for (uint32_t i = 0; i < NODES_MAX && result >= 0; i++) {
        struct abode_node_info node = {.struct_size = sizeof(node)};
        result = abode_machine_node_get(runtime, i, &node);
        if (result >= 0) {
            cli_table_row(
                &table, cli_number_text(node.os_index, 0).text,
                cli_number_text(node.cpu_count, 0).text, cli_bytes_text(node.bytes_total).text,
                cli_bytes_text(node.frame_bytes).text, node.cpu_count == 0 ? "memory only" : "");
        }
    }
    printf("\nnodes\n");
    cli_table_print(&table, stdout, 2);
    return result == -ENOENT || result >= 0 ? 0 : result;
}

static int devices_print(struct abode *runtime)
{
    static const char *const header[] = {"device", "node", "PCI", "directory"};
    struct cli_table table;
    cli_table_init(&table, 4, header);
    int result = 0;
    for (uint32_t i = 0; i < DEVICES_MAX && result >= 0; i++) {
        struct abode_device_info device = {.struct_size = sizeof(device)};
        result = abode_machine_device_get(runtime, i, &device);
        if (result >= 0) {
            cli_table_row(&table, device.name[0] != 0 ? device.name : "(no name)",
                          device.node < 0 ? "not told by the kernel"
                                          : cli_number_text(device.node, 0).text,
                          device.pci[0] != 0 ? device.pci : "-", device.path);
        }
    }
    printf("\ndevice of the store\n");
    cli_table_print(&table, stdout, 2);
    return result == -ENOENT || result >= 0 ? 0 : result;
}

static int text_print(struct abode *runtime)
{
    struct cli_support_line lines[CLI_SUPPORT_LINES];
    struct utsname kernel = {0};
    char memlock[CLI_TEXT_SIZE];
    int result = cli_support_lines(runtime, lines);
    if (result < 0) {
        return result;
    }
    (void)uname(&kernel);
    memlock_text(memlock, sizeof(memlock));
    printf("abode probe: %s %s, %s\n", kernel.sysname, kernel.release, kernel.machine);
    result = nodes_print(runtime);
    if (result >= 0) {
        result = devices_print(runtime);
    }
    if (result < 0) {
        return result;
    }
    uint32_t degraded = 0;
    for (uint32_t i = 0; i < CLI_SUPPORT_LINES; i++) {
        degraded += lines[i].reason != 0;
    }
    printf("\nwhat was asked for and what was got\n");
    cli_support_print(lines, false, stdout);
    printf("  %-18s  %s\n", "locked memory", memlock);
    if (degraded == 0) {
        printf("\nNothing is missing here.\n");
    } else {
        printf("\n%u of %d could be better; it works without.\n", degraded, CLI_SUPPORT_LINES);
    }
    return 0;
}

/* ---- JSON ------------------------------------------------------------------------------------ */

static json_t *nodes_json(struct abode *runtime)
{
    json_t *nodes = cli_json(json_array());
    for (uint32_t i = 0; i < NODES_MAX; i++) {
        struct abode_node_info node = {.struct_size = sizeof(node)};
        if (abode_machine_node_get(runtime, i, &node) < 0) {
            break;
        }
        json_t *object =
            json_pack("{s:i, s:i, s:i, s:I, s:I}", "node", (int)i, "os_index", (int)node.os_index,
                      "cpus", (int)node.cpu_count, "bytes", (json_int_t)node.bytes_total,
                      "frame_bytes", (json_int_t)node.frame_bytes);
        (void)json_array_append_new(nodes, cli_json(object));
    }
    return nodes;
}

static json_t *devices_json(struct abode *runtime)
{
    json_t *devices = cli_json(json_array());
    for (uint32_t i = 0; i < DEVICES_MAX; i++) {
        struct abode_device_info device = {.struct_size = sizeof(device)};
        if (abode_machine_device_get(runtime, i, &device) < 0) {
            break;
        }
        json_t *object =
            json_pack("{s:i, s:s, s:s, s:i, s:s}", "device", (int)i, "name", device.name, "pci",
                      device.pci, "node", (int)device.node, "path", device.path);
        (void)json_array_append_new(devices, cli_json(object));
    }
    return devices;
}

static int json_result_print(struct abode *runtime)
{
    struct cli_support_line lines[CLI_SUPPORT_LINES];
    struct utsname kernel = {0};
    char memlock[CLI_TEXT_SIZE];
    const int result = cli_support_lines(runtime, lines);
    if (result < 0) {
        return result;
    }
    (void)uname(&kernel);
    memlock_text(memlock, sizeof(memlock));
    json_t *object = cli_json(json_pack("{s:s, s:s, s:s}", "kernel", kernel.release, "machine",
                                        kernel.machine, "locked_memory", memlock));
    (void)json_object_set_new(object, "nodes", nodes_json(runtime));
    (void)json_object_set_new(object, "devices", devices_json(runtime));
    (void)json_object_set_new(object, "support", cli_support_json(lines));
    return cli_json_print(object) == CLI_OK ? 0 : -EIO;
}

/* ---- the command ----------------------------------------------------------------------------- */

static int probe_run(const struct probe_options *options, const char *path)
{
    struct cli_log log = {.level = options->verbose ? ABODE_LOG_INFO : ABODE_LOG_ERROR};
    struct abode_config config;
    struct abode *runtime = NULL;
    abode_config_init(&config);
    config.flags = ABODE_CREATE;
    config.memory_bytes_max = MEMORY_BYTES;
    config.store_bytes_max = STORE_BYTES;
    config.segment_bytes = SEGMENT_BYTES;
    config.store_paths = &path;
    config.store_path_count = 1;
    config.session_count_max = 16;
    config.io = (uint32_t)options->io;
    config.huge = (uint32_t)options->huge;
    config.log = cli_log_line;
    config.log_context = &log;
    int result = abode_open(&config, &runtime);
    if (result < 0) {
        return cli_fail(result, NULL, "probe: opening a store in '%s'", path);
    }
    result = model_add(runtime);
    if (result < 0) {
        (void)cli_fail(result, NULL, "probe: %s of memory", cli_bytes_text(MEMORY_BYTES).text);
    } else {
        result = options->json ? json_result_print(runtime) : text_print(runtime);
        if (result < 0) {
            (void)cli_fail(result, NULL, "probe: asking the library");
        }
    }
    const int closed = abode_close(runtime);
    if (closed < 0) {
        return cli_fail(closed, NULL, "probe: closing");
    }
    return result < 0 ? CLI_FAILED : CLI_OK;
}

int cli_probe(int argc, char **argv)
{
    struct probe_options options = {0};
    const struct cli_option table[] = {
        {"io", 0, CLI_CHOICE, &options.io, cli_io_choices, "try this engine", 0, 0},
        {"huge", 0, CLI_CHOICE, &options.huge, cli_huge_choices, "try these pages", 0, 0},
        {"json", 'j', CLI_FLAG, &options.json, NULL, "one JSON object on the last line", 0, 0},
        {"verbose", 'v', CLI_FLAG, &options.verbose, NULL, "what the library logs, too", 0, 0},
    };
    const struct cli_syntax syntax = {
        .command = "probe",
        .arguments = "[DIR]",
        .summary = "What this machine allows: NUMA nodes, the device under DIR, io_uring, direct "
                   "I/O,\nregistered buffers, binding, huge pages; with reason and mend where "
                   "not.",
        .notes = "DIR: where a store would go (default: TMPDIR or /var/tmp). A small store is made "
                 "in a\ndirectory of its own below it, and removed.",
        .rest_max = 1,
        .options = table,
        .option_count = CLI_OPTION_COUNT(table),
    };
    int rest = 0;
    const int parsed = cli_options_parse(&syntax, argc, argv, &rest);
    if (parsed != 0) {
        return parsed > 0 ? CLI_OK : CLI_USAGE;
    }
    struct cli_scratch scratch;
    cli_signals_catch();
    int code = rest < argc ? cli_scratch_open_in(&scratch, argv[rest], 2 * STORE_BYTES)
                           : cli_scratch_open(&scratch, NULL, 2 * STORE_BYTES);
    if (code == CLI_OK) {
        code = probe_run(&options, scratch.path);
    }
    cli_scratch_close(&scratch, false);
    return code;
}
