/*
 * placement.c - state is where abode says it is: the kernel asked by this program itself.
 *
 * Goal: a session with a home node has its frames there, page by page; attach on another node moves
 * them there; what spills lies on the drive that abode names, and that drive hangs on the node
 * that abode names. Method: nothing of abode's is trusted: pages are looked up with this file's own
 * move_pages syscall, nodes and drives in /sys. Then pages are moved behind abode's back, and its
 * report must say so: a check that cannot fail proves nothing.
 *
 * placement DIR ... : one directory per drive, empty, removed at the end. In the guest the drive's
 * serial ends in the number of its node. On a machine with one node it is skipped.
 */
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "live.h"

#define PAGE_BYTES 4096u
#define NODES_MAX 64
#define PATHS_MAX 4
#define SESSIONS_PER_NODE 3u
#define MEMORY_PER_NODE (24u << 20)
#define MOVE_FLAG 2 /* MPOL_MF_MOVE */
#define PAGES_BATCH 512u

static uint32_t passed, failed, skipped;
static const char *part = "";

static bool check(bool good, const char *format, ...) __attribute__((format(printf, 2, 3)));
static bool check(bool good, const char *format, ...)
{
    if (good) {
        passed++;
        return true;
    }
    va_list arguments;

    failed++;
    printf("FAIL %s: ", part);
    va_start(arguments, format);
    (void)vprintf(format, arguments);
    va_end(arguments);
    printf("\n");
    return false;
}

/* ---- what the kernel says ------------------------------------------------------------------------ */

/* Pages of a range by operating system node; false where the kernel does not say for some page. */
static bool pages_count(const void *base, uint64_t bytes, uint64_t ret_pages[NODES_MAX])
{
    const unsigned char *page = base;
    uint64_t left = (bytes + PAGE_BYTES - 1) / PAGE_BYTES;

    while (left > 0) {
        unsigned long count = left < PAGES_BATCH ? left : PAGES_BATCH;
        void *addresses[PAGES_BATCH];
        int nodes[PAGES_BATCH];

        for (unsigned long index = 0; index < count; index++) {
            addresses[index] = (void *)(uintptr_t)(page + index * PAGE_BYTES);
            nodes[index] = -1;
        }
        if (syscall(SYS_move_pages, 0, count, addresses, NULL, nodes, 0) != 0) {
            return false;
        }
        for (unsigned long index = 0; index < count; index++) {
            if (nodes[index] < 0 || nodes[index] >= NODES_MAX) {
                return false;
            }
            ret_pages[nodes[index]]++;
        }
        page += count * PAGE_BYTES;
        left -= count;
    }
    return true;
}

/* Every page of the range on this node, none elsewhere. */
static bool range_is_on(const void *base, uint64_t bytes, uint32_t os_node)
{
    uint64_t pages[NODES_MAX] = {0};

    return pages_count(base, bytes, pages) &&
           pages[os_node] == (bytes + PAGE_BYTES - 1) / PAGE_BYTES;
}

static bool file_line(const char *path, char *ret, int capacity)
{
    FILE *file = fopen(path, "re");
    bool good = file != NULL && fgets(ret, capacity, file) != NULL;

    if (file != NULL) {
        (void)fclose(file);
    }
    if (good) {
        ret[strcspn(ret, " \n")] = '\0';
    }
    return good;
}

/* The node of the drive below a directory, by its controller's PCI function; -1: not said. name and
 * serial are the drive's. */
static int drive_node(const char *directory, char name[64], char serial[64])
{
    char path[512], link[512], text[64];
    struct stat info;
    ssize_t size;

    if (stat(directory, &info) != 0) {
        return -1;
    }
    (void)snprintf(path, sizeof(path), "/sys/dev/block/%u:%u", major(info.st_dev),
                   minor(info.st_dev));
    size = readlink(path, link, sizeof(link) - 1);
    if (size < 0) {
        return -1;
    }
    link[size] = '\0';
    (void)snprintf(name, 64, "%.63s", strrchr(link, '/') + 1);
    (void)snprintf(path, sizeof(path), "/sys/block/%s/device/serial", name);
    if (!file_line(path, serial, 64)) {
        serial[0] = '\0';
    }
    (void)snprintf(path, sizeof(path), "/sys/block/%s/device/device/numa_node", name);
    return file_line(path, text, sizeof(text)) ? (int)strtol(text, NULL, 10) : -1;
}

static uint32_t memory_nodes(void)
{
    uint32_t count = 0;

    for (uint32_t node = 0; node < NODES_MAX; node++) {
        char path[64];

        (void)snprintf(path, sizeof(path), "/sys/devices/system/node/node%u", node);
        count += access(path, F_OK) == 0;
    }
    return count;
}

/* ---- what abode says ------------------------------------------------------------------------------- */

struct bench_of_nodes { /* one opened runtime, and what it says of the machine */
    struct live_host host;
    uint32_t node_count;
    uint32_t os_nodes[NODES_MAX];
    uint32_t device_count;
    int device_os_nodes[PATHS_MAX];
    char **paths;
    uint32_t path_count;
};

static void nodes_check(struct bench_of_nodes *bench)
{
    part = "nodes";
    for (;; bench->node_count++) {
        struct abode_node_info info = {.struct_size = sizeof(info)};
        char path[80];

        if (bench->node_count >= NODES_MAX ||
            abode_machine_node_get(bench->host.runtime, bench->node_count, &info) < 0) {
            break;
        }
        bench->os_nodes[bench->node_count] = info.os_index;
        (void)snprintf(path, sizeof(path), "/sys/devices/system/node/node%u", info.os_index);
        check(access(path, F_OK) == 0, "node %u is the system's %u, which does not exist",
              bench->node_count, info.os_index);
        check(info.frame_bytes > 0, "node %u (system's %u) has no frames", bench->node_count,
              info.os_index);
    }
    check(bench->node_count == memory_nodes(), "%u nodes, the kernel has %u", bench->node_count,
          memory_nodes());
}

static void devices_check(struct bench_of_nodes *bench)
{
    part = "drives";
    for (uint32_t path = 0; path < bench->path_count; path++) {
        struct abode_device_info info = {.struct_size = sizeof(info)};
        char name[64] = "", serial[64] = "";
        int os_node = drive_node(bench->paths[path], name, serial);
        int rc = abode_machine_device_get(bench->host.runtime, path, &info);
        int said;

        bench->device_os_nodes[path] = os_node;
        if (!check(rc >= 0, "device %u: %s", path, abode_strerror(rc))) {
            continue;
        }
        said = info.node >= 0 ? (int)bench->os_nodes[info.node] : -1;
        check(strcmp(info.path, bench->paths[path]) == 0, "device %u is %s, not %s", path,
              info.path, bench->paths[path]);
        check(strcmp(info.name, name) == 0, "drive of %s is %s, abode says %s", info.path, name,
              info.name);
        check(said == os_node, "drive %s hangs on node %d, abode says %d", name, os_node, said);
        if (strncmp(serial, "ABODE", 5) == 0) {
            check(os_node == strtol(serial + 5, NULL, 10), "drive %s with serial %s is on node %d",
                  name, serial, os_node);
        }
        bench->device_count++;
    }
}

/* Sum of the bytes in one tier on one node; elsewhere and unverified are counted over all. */
struct places_sum {
    uint64_t bytes, bytes_other, pages_elsewhere;
    uint32_t unverified;
    bool got;
};

static struct places_sum places_get(struct bench_of_nodes *bench, struct abode_session session,
                                    uint32_t tier, int node)
{
    struct abode_placement placement = {.struct_size = sizeof(placement)};
    struct places_sum sum = {0};
    int rc = abode_session_placement(bench->host.runtime, session, &placement);

    if (!check(rc >= 0, "abode_session_placement: %s", abode_strerror(rc))) {
        return sum;
    }
    sum.got = true;
    for (uint32_t index = 0; index < placement.place_count; index++) {
        const struct abode_place *place = &placement.places[index];

        if (place->tier != tier) {
            continue;
        }
        if (place->node == node) {
            sum.bytes += place->bytes;
        } else {
            sum.bytes_other += place->bytes;
        }
        sum.pages_elsewhere += place->pages_elsewhere;
        sum.unverified += place->verified != 1;
    }
    return sum;
}

static void memory_check(struct bench_of_nodes *bench, struct abode_session session, uint32_t node)
{
    struct abode_session_info info = {.struct_size = sizeof(info)};
    struct places_sum sum = places_get(bench, session, ABODE_TIER_MEMORY, (int)node);
    int rc = abode_session_stat(bench->host.runtime, session, &info);

    if (!sum.got || !check(rc >= 0, "abode_session_stat: %s", abode_strerror(rc))) {
        return;
    }
    check(sum.bytes > 0 && sum.bytes == info.bytes_resident && sum.bytes_other == 0,
          "node %u: placement has %llu bytes here and %llu elsewhere, stat %llu resident", node,
          (unsigned long long)sum.bytes, (unsigned long long)sum.bytes_other,
          (unsigned long long)info.bytes_resident);
    check(sum.unverified == 0, "node %u: %u places are not verified", node, sum.unverified);
    check(sum.pages_elsewhere == 0, "node %u: %llu pages elsewhere", node,
          (unsigned long long)sum.pages_elsewhere);
}

/* Each frame of an attached session, and its snapshot and bytes, page by page. */
static void frames_check(struct bench_of_nodes *bench, struct abode_session session, uint32_t node)
{
    uint32_t os_node = bench->os_nodes[node];

    for (uint32_t component = LIVE_PAGED; component <= LIVE_WINDOW; component++) {
        struct abode_view view = {.struct_size = sizeof(view)};
        int rc = abode_session_view(bench->host.runtime, session, component, &view);

        if (!check(rc >= 0, "abode_session_view: %s", abode_strerror(rc))) {
            return;
        }
        for (uint32_t row = 0; row < view.row_count; row++) {
            if (view.frames[row] == ABODE_FRAME_NONE) {
                continue;
            }
            check(view.frames[row] / view.frames_per_node == node &&
                      range_is_on(view.base + view.frames[row] * view.frame_stride,
                                  view.frame_stride, os_node),
                  "component %u row %u: frame %u is not wholly on node %u", component, row,
                  view.frames[row], node);
        }
    }
    for (uint32_t component = LIVE_SNAPSHOT; component <= LIVE_BYTES; component++) {
        const void *bytes = NULL;
        size_t size = 0;
        uint64_t tokens = 0;
        int rc =
            abode_snapshot_get(bench->host.runtime, session, component, &bytes, &size, &tokens);

        if (check(rc >= 0, "abode_snapshot_get: %s", abode_strerror(rc))) {
            check(range_is_on((const void *)((uintptr_t)bytes & ~(uintptr_t)(PAGE_BYTES - 1)),
                              size + (uintptr_t)bytes % PAGE_BYTES, os_node),
                  "component %u: %zu bytes are not wholly on node %u", component, size, node);
        }
    }
}

/* ---- the walk -------------------------------------------------------------------------------------- */

struct walker { /* one session on its way through memory and store */
    struct abode_session session;
    struct live_state state;
    uint32_t home;
};

static void spans_check(struct bench_of_nodes *bench, const struct walker *walker)
{
    struct abode_span spans[2u * (LIVE_ROWS_MAX + 1)];
    int count = abode_append_reserve(bench->host.runtime, walker->session, 40, spans,
                                     2u * (LIVE_ROWS_MAX + 1));

    if (!check(count > 0, "abode_append_reserve: %s", abode_strerror(count))) {
        return;
    }
    for (int index = 0; index < count; index++) {
        const struct abode_span *span = &spans[index];

        check(span->node == walker->home, "span of a session of node %u is on node %u",
              walker->home, span->node);
        check(range_is_on(span->base, PAGE_BYTES, bench->os_nodes[span->node]),
              "span says node %u, its first page is not there", span->node);
    }
}

static bool walker_start(struct bench_of_nodes *bench, struct walker *walker, uint32_t number)
{
    struct abode_key name;
    struct abode_session_opts opts = {.struct_size = sizeof(opts),
                                      .model = bench->host.model,
                                      .home_node = (int32_t)walker->home,
                                      .durability = ABODE_WRITTEN,
                                      .name = &name};
    int rc;

    live_key(number, &name);
    rc = abode_session_create(bench->host.runtime, &opts, &walker->session);
    if (!check(rc >= 0, "abode_session_create: %s", abode_strerror(rc))) {
        return false;
    }
    spans_check(bench, walker);
    rc = live_append(&bench->host, walker->session, &walker->state, 100, number + 1);
    if (rc >= 0) {
        rc = live_snapshot(&bench->host, walker->session, &walker->state, number + 1);
    }
    return check(rc >= 0, "append: %s", abode_strerror(rc));
}

static void content_check(struct bench_of_nodes *bench, const struct walker *walker)
{
    char why[LIVE_WHY_MAX];
    int rc = live_compare(&bench->host, walker->session, &walker->state, why, NULL);

    check(rc == 0, "content: %s %s", abode_strerror(rc), why);
}

/* Detached with nothing in memory: all of it on one drive, near the home where one is. */
static void stored_check(struct bench_of_nodes *bench, const struct walker *walker)
{
    struct abode_placement placement = {.struct_size = sizeof(placement)};
    int rc = abode_session_placement(bench->host.runtime, walker->session, &placement);
    bool near = false;
    uint64_t bytes = 0;

    if (!check(rc >= 0, "abode_session_placement: %s", abode_strerror(rc))) {
        return;
    }
    for (uint32_t path = 0; path < bench->path_count; path++) {
        near = near || bench->device_os_nodes[path] == (int)bench->os_nodes[walker->home];
    }
    for (uint32_t index = 0; index < placement.place_count; index++) {
        const struct abode_place *place = &placement.places[index];
        int said = place->node >= 0 ? (int)bench->os_nodes[place->node] : -1;

        if (!check(place->tier == ABODE_TIER_STORE, "%llu bytes are still in memory",
                   (unsigned long long)place->bytes) ||
            !check(place->device < bench->path_count, "device %u", place->device)) {
            continue;
        }
        check(place->verified == 1, "place on device %u is not verified", place->device);
        check(said == bench->device_os_nodes[place->device],
              "device %u is on node %d, place says %d", place->device,
              bench->device_os_nodes[place->device], said);
        check(!near || said == (int)bench->os_nodes[walker->home],
              "session of node %u has %llu bytes on the drive of node %d", walker->home,
              (unsigned long long)place->bytes, said);
        bytes += place->bytes;
    }
    check(bytes > 0, "the store has nothing of the session");
}

static void walker_walk(struct bench_of_nodes *bench, struct walker *walker)
{
    uint32_t other = (walker->home + 1) % bench->node_count;
    int rc;

    part = "append";
    frames_check(bench, walker->session, walker->home);
    memory_check(bench, walker->session, walker->home);
    part = "spill";
    rc = live_detach(&bench->host, walker->session, ABODE_DETACH_SPILL_NOW);
    if (!check(rc >= 0, "detach: %s", abode_strerror(rc))) {
        return;
    }
    stored_check(bench, walker);
    part = "attach on another node";
    rc = live_attach(&bench->host, walker->session, (int32_t)other, 0);
    if (!check(rc >= 0, "attach: %s", abode_strerror(rc))) {
        return;
    }
    frames_check(bench, walker->session, other);
    memory_check(bench, walker->session, other);
    content_check(bench, walker);
    rc = live_detach(&bench->host, walker->session, ABODE_DETACH_SPILL_NOW);
    check(rc >= 0, "detach: %s", abode_strerror(rc));
    part = "attach at home";
    rc = live_attach(&bench->host, walker->session, -1, 0);
    if (check(rc >= 0, "attach: %s", abode_strerror(rc))) {
        frames_check(bench, walker->session, walker->home);
        memory_check(bench, walker->session, walker->home);
        content_check(bench, walker);
    }
}

/* Move a frame's pages to another node behind abode's back: the report must find each of them. */
static void moved_check(struct bench_of_nodes *bench, const struct walker *walker)
{
    struct abode_view view = {.struct_size = sizeof(view)};
    uint32_t other = (walker->home + 1) % bench->node_count;
    uint64_t pages[NODES_MAX] = {0};
    unsigned char *frame;
    struct places_sum sum;
    int rc = abode_session_view(bench->host.runtime, walker->session, LIVE_PAGED, &view);

    part = "moved behind its back";
    if (!check(rc >= 0 && view.row_count > 0, "abode_session_view: %s", abode_strerror(rc))) {
        return;
    }
    frame = view.base + view.frames[0] * view.frame_stride;
    for (uint64_t offset = 0; offset < 4 * PAGE_BYTES; offset += PAGE_BYTES) {
        void *address = frame + offset;
        int target = (int)bench->os_nodes[other], status = -1;

        (void)syscall(SYS_move_pages, 0, 1UL, &address, &target, &status, MOVE_FLAG);
    }
    if (!check(pages_count(frame, view.frame_stride, pages) && pages[bench->os_nodes[other]] == 4,
               "the kernel moved %llu of 4 pages",
               (unsigned long long)pages[bench->os_nodes[other]])) {
        return;
    }
    sum = places_get(bench, walker->session, ABODE_TIER_MEMORY, (int)walker->home);
    check(sum.pages_elsewhere == 4, "4 pages are elsewhere, abode says %llu",
          (unsigned long long)sum.pages_elsewhere);
    content_check(bench, walker);
}

static bool bench_open(struct bench_of_nodes *bench, const char *name, uint32_t io, uint32_t huge)
{
    struct abode_config config;
    struct abode *runtime = NULL;
    struct abode_support support = {.struct_size = sizeof(support)};
    int rc;

    abode_config_init(&config);
    config.log = live_log;
    config.flags = ABODE_CREATE;
    config.memory_bytes_max = (uint64_t)MEMORY_PER_NODE * memory_nodes();
    config.store_bytes_max = 256u << 20;
    config.segment_bytes = 16u << 20;
    config.store_paths = (const char *const *)bench->paths;
    config.store_path_count = bench->path_count;
    config.io = io;
    config.huge = huge;
    part = name;
    rc = abode_open(&config, &runtime);
    if (!check(rc >= 0, "abode_open: %s", abode_strerror(rc))) {
        return false;
    }
    rc = live_host_open(runtime, 0, &bench->host);
    if (!check(rc >= 0, "model and queue: %s", abode_strerror(rc))) {
        check(abode_close(runtime) >= 0, "close");
        return false;
    }
    rc = abode_support_get(runtime, &support);
    check(rc >= 0 && support.node_binding == 2, "nodes are not bound by mbind: %s",
          support.node_binding_text);
    check(support.io_engine == (int32_t)io, "engine %d wanted, got %d: %s", (int)io,
          support.io_engine, support.io_engine_text);
    return true;
}

static void round_run(char **paths, uint32_t path_count, const char *name, uint32_t io,
                      uint32_t huge, uint32_t round)
{
    static struct bench_of_nodes bench;
    static struct walker walkers[NODES_MAX * SESSIONS_PER_NODE];
    uint32_t count;
    int rc;

    bench = (struct bench_of_nodes){.paths = paths, .path_count = path_count};
    memset(walkers, 0, sizeof(walkers));
    if (!bench_open(&bench, name, io, huge)) {
        return;
    }
    nodes_check(&bench);
    devices_check(&bench);
    count = bench.node_count * SESSIONS_PER_NODE;
    part = "append";
    for (uint32_t index = 0; index < count; index++) {
        walkers[index].home = index % bench.node_count;
        if (!walker_start(&bench, &walkers[index], round * 1000 + index)) {
            return;
        }
    }
    for (uint32_t index = 0; index < count; index++) {
        walker_walk(&bench, &walkers[index]);
    }
    if (io == ABODE_IO_SYNC) { /* registered buffers are pinned: those pages do not move */
        moved_check(&bench, &walkers[0]);
    }
    part = "close";
    rc = live_host_close(&bench.host);
    check(rc >= 0, "%s", abode_strerror(rc));
}

int main(int argc, char **argv)
{
    uint32_t nodes = memory_nodes();

    if (argc < 2 || argc > 1 + PATHS_MAX) {
        fprintf(stderr, "usage: placement DIR ...   (one directory per drive)\n");
        return 2;
    }
    if (nodes < 2) {
        printf("SKIP: this machine has one NUMA node\n0 passed, 0 failed, 1 skipped\n");
        return 77;
    }
    for (int index = 1; index < argc; index++) {
        if (mkdir(argv[index], 0700) != 0 && errno != EEXIST) {
            fprintf(stderr, "%s: %s\n", argv[index], strerror(errno));
            return 1;
        }
    }
    round_run(argv + 1, (uint32_t)argc - 1, "io_uring", ABODE_IO_URING, ABODE_HUGE_AUTO, 1);
    round_run(argv + 1, (uint32_t)argc - 1, "threads", ABODE_IO_THREADS, ABODE_HUGE_AUTO, 2);
    round_run(argv + 1, (uint32_t)argc - 1, "sync", ABODE_IO_SYNC, ABODE_HUGE_NONE, 3);
    for (int index = 1; index < argc; index++) {
        live_directory_remove(argv[index]);
    }
    printf("%u passed, %u failed, %u skipped\n", passed, failed, skipped);
    return failed == 0 ? 0 : 1;
}
