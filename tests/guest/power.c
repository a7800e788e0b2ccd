/*
 * power.c - both ends of the power-cut rig: the host that works in the guest, and the one that looks
 * at what a cut at some point of the disk's write log has left.
 *
 *   power host DIR DEVICE OFFSET BYTES SECONDS SEED [nosync]
 *       The worker of tests/crash on a store in DIR. Whatever its oracle learns goes, as it does, to
 *       DEVICE at OFFSET and on (a ring of BYTES; O_DIRECT, a page each): so acknowledgements lie in
 *       the same log as the writes they are about, in their order. nosync: fsync and fdatasync are
 *       left out, which must be found out.
 *   power check DIR EVENTS
 *       EVENTS: the pages of that ring that the log has before the cut. Opens the store that the cut
 *       has left in DIR: what was promised as DURABLE is there, the rest whole or absent, nothing
 *       is wrong. Exit status 0, 1 a violation (said), 2 trouble.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "crash/worker.h"

#define PAGE 4096u
#define EVENT_MAGIC 0x54564557504541ull
#define MEMORY_BYTES (14u << 20)
#define STORE_BYTES (64u << 20)
#define TEXT_MAX 512

struct page {
    uint64_t magic, sequence;
    struct oracle_event event;
};
_Static_assert(sizeof(struct page) <= PAGE, "an event is one write");

/* ---- host ------------------------------------------------------------------------------------------ */

struct ring {
    int fd;
    uint64_t offset, bytes, sequence;
    unsigned char *page;
};

static void event_write(void *context, const struct oracle_event *event)
{
    struct ring *ring = context;
    struct page page = {.magic = EVENT_MAGIC, .sequence = ++ring->sequence, .event = *event};
    uint64_t at = ring->offset + ring->sequence * PAGE % ring->bytes;

    memset(ring->page, 0, PAGE);
    memcpy(ring->page, &page, sizeof(page));
    if (pwrite(ring->fd, ring->page, PAGE, (off_t)at) != (ssize_t)PAGE) {
        perror("power: event");
        _exit(2);
    }
}

static int sync_none(const struct ab_os *os, int fd)
{
    (void)os;
    (void)fd;
    return 0;
}

static int host_run(char **argv, bool no_sync)
{
    struct worker_shared *shared = calloc(1, sizeof(*shared));
    struct ab_os os = *ab_os_default();
    struct ring ring = {.fd = open(argv[1], O_RDWR | O_DIRECT | O_CLOEXEC),
                        .offset = strtoull(argv[2], NULL, 0),
                        .bytes = strtoull(argv[3], NULL, 0),
                        .page = aligned_alloc(PAGE, PAGE)};
    struct worker_plan plan = {.path = argv[0],
                               .seed = strtoull(argv[5], NULL, 0),
                               .memory_bytes = MEMORY_BYTES,
                               .store_bytes = STORE_BYTES,
                               .is_told = true,
                               .os = &os};

    if (shared == NULL || ring.fd < 0 || ring.page == NULL || ring.bytes == 0) {
        perror("power: host");
        return 2;
    }
    if (no_sync) {
        os.fdatasync = sync_none;
        os.fsync = sync_none;
    }
    worker_reset(shared);
    oracle_listen(&shared->parts[0].oracle, event_write, &ring);
    (void)alarm((unsigned)strtoul(argv[4], NULL, 0)); /* ends by SIGALRM, like by any other */
    (void)worker_run(shared, &plan);
    fprintf(stderr, "power: the host ended: %s\n", shared->parts[0].why);
    return 1;
}

/* ---- check ----------------------------------------------------------------------------------------- */

struct known { /* what may be of one name: versions[first .. count) */
    struct oracle_version *versions;
    uint32_t first, count, capacity;
};
struct past {
    struct known names[ORACLE_NAMES];
    uint32_t items[ORACLE_ITEMS]; /* enum oracle_item */
    uint64_t events, durable;     /* promises among them */
};
struct found {
    uint32_t sessions, gone, items, violations;
    uint64_t bytes;
};

static void version_add(struct known *known, const struct oracle_version *version)
{
    if (known->count == known->capacity) {
        known->capacity = known->capacity * 2 + 64;
        known->versions = realloc(known->versions, known->capacity * sizeof(known->versions[0]));
        if (known->versions == NULL) {
            exit(2);
        }
    }
    known->versions[known->count++] = *version;
}

static struct oracle_version *version_of(struct known *known, uint64_t serial, uint32_t *ret_index)
{
    for (uint32_t index = known->count; index-- > 0;) {
        if (known->versions[index].serial == serial) {
            *ret_index = index;
            return &known->versions[index];
        }
    }
    return NULL;
}

static void promise(struct known *known, uint32_t index)
{
    known->first = index > known->first ? index : known->first;
}

static void deletes_promise(struct past *past, uint64_t tick)
{
    for (uint32_t name = 0; name < ORACLE_NAMES; name++) {
        struct known *known = &past->names[name];

        for (uint32_t index = known->first; index < known->count; index++) {
            if (known->versions[index].gone && known->versions[index].delete_tick < tick) {
                promise(known, index);
            }
        }
    }
}

static void event_apply(struct past *past, const struct oracle_event *event)
{
    struct known *known = &past->names[event->name % ORACLE_NAMES];
    uint32_t *item = &past->items[event->name % ORACLE_ITEMS];
    struct oracle_version *version;
    uint32_t index = 0;

    past->events++;
    switch (event->kind) {
    case ORACLE_PUSHED:
        version_add(known, &event->version);
        break;
    case ORACLE_POPPED:
        known->count -= known->count > known->first + 1 ? 1 : 0;
        break;
    case ORACLE_PROMISED: /* what is only WRITTEN promises nothing here */
        version = version_of(known, event->version.serial, &index);
        if (version != NULL && event->durability == ABODE_DURABLE) {
            promise(known, index);
            past->durable++;
        }
        break;
    case ORACLE_DELETED:
        version = version_of(known, event->version.serial, &index);
        if (version != NULL) {
            version->delete_tick = event->tick;
        }
        break;
    case ORACLE_DELETES:
        deletes_promise(past, event->tick);
        break;
    case ORACLE_ITEM_MAYBE:
        *item |= event->bits;
        break;
    case ORACLE_ITEM_DURABLE:
        *item = ORACLE_PRESENT;
        past->durable++;
        break;
    default:
        exit(2);
    }
}

static void past_read(struct past *past, const char *path)
{
    FILE *file = fopen(path, "re");
    struct page page;
    char bytes[PAGE];
    uint64_t sequence = 0;

    if (file == NULL) {
        exit(2);
    }
    for (uint32_t name = 0; name < ORACLE_NAMES;
         name++) { /* as oracle_reset does, before it is told */
        version_add(&past->names[name],
                    &(struct oracle_version){.gone = true, .delete_tick = ORACLE_NOT_DELETED});
    }
    for (uint32_t item = 0; item < ORACLE_ITEMS; item++) {
        past->items[item] = ORACLE_ABSENT;
    }
    while (fread(bytes, PAGE, 1, file) == 1) {
        memcpy(&page, bytes, sizeof(page));
        if (page.magic != EVENT_MAGIC || page.sequence != ++sequence) {
            fprintf(stderr, "power: event %llu is missing\n", (unsigned long long)sequence);
            exit(2);
        }
        event_apply(past, &page.event);
    }
    (void)fclose(file);
}

static void wrong(struct found *found, const struct known *known, uint32_t name, const char *what)
{
    found->violations++;
    printf("name %u: %s; possible:", name, what);
    for (uint32_t index = known->first; index < known->count; index++) {
        const struct oracle_version *version = &known->versions[index];

        if (version->gone) {
            printf(" gone");
        } else {
            printf(" %u(durability %u)", version->state.token_count, version->durability);
        }
    }
    printf("\n");
}

/* Gone is allowed, or (is_corrupt) what no power cut was to leave whole. */
static bool may_be_missing(const struct known *known, bool is_corrupt)
{
    for (uint32_t index = known->first; index < known->count; index++) {
        const struct oracle_version *version = &known->versions[index];

        if (version->gone || (is_corrupt && version->durability != ABODE_DURABLE)) {
            return true;
        }
    }
    return false;
}

static void name_check(struct live_host *host, const struct past *past, uint32_t name,
                       struct found *found)
{
    const struct known *known = &past->names[name];
    struct abode_session_info info = {.struct_size = sizeof(info)};
    struct abode_session session;
    char why[LIVE_WHY_MAX] = "no version has as many tokens";
    struct abode_key key;
    int rc;

    live_key(name, &key);
    rc = abode_session_find(host->runtime, &key, &session);
    if (rc == -ENOENT) {
        found->gone++;
        if (!may_be_missing(known, false)) {
            wrong(found, known, name, "lost");
        }
        return;
    }
    rc = rc < 0 ? rc : live_attach(host, session, -1, 0);
    if (rc < 0) {
        if (rc != -ABODE_ECORRUPT || !may_be_missing(known, true)) {
            wrong(found, known, name, abode_strerror(rc));
        }
        return;
    }
    if (abode_session_stat(host->runtime, session, &info) < 0) {
        exit(2);
    }
    for (uint32_t index = known->count; index-- > known->first;) {
        const struct oracle_version *version = &known->versions[index];

        if (!version->gone && version->state.token_count == info.token_count &&
            live_compare(host, session, &version->state, why, &found->bytes) == 0) {
            found->sessions++;
            if (live_detach(host, session, 0) < 0) {
                wrong(found, known, name, "cannot be detached");
            }
            return;
        }
    }
    printf("%llu tokens: ", (unsigned long long)info.token_count);
    wrong(found, known, name, why);
}

static void items_check(struct live_host *host, const struct past *past, struct found *found)
{
    static _Alignas(4096) unsigned char memory[LIVE_BYTES_MAX];
    struct abode_region region = {
        .struct_size = sizeof(region), .node = -1, .base = memory, .bytes = sizeof(memory)};
    uint32_t number;

    if (abode_region_add(host->runtime, &region, &number) < 0) {
        exit(2);
    }
    for (uint32_t index = 0; index < ORACLE_ITEMS; index++) {
        struct abode_item item = {.bytes = sizeof(memory), .region = number};
        struct abode_op op = {0};
        bool is_there, is_good;
        int rc;

        live_key(WORKER_ITEM_FIRST + index, &item.key);
        rc = abode_cache_get(host->queue, host->model, &item, 1, &op);
        rc = rc < 0 ? rc : live_wait(host, &op);
        is_there = rc == 0 && item.status == 0;
        is_good = is_there ? (past->items[index] & ORACLE_PRESENT) != 0 &&
                                 live_item_is(WORKER_ITEM_FIRST + index, memory, item.bytes)
                           : (past->items[index] & ORACLE_ABSENT) != 0 &&
                                 (item.status == -ENOENT || item.status == -ABODE_ECORRUPT);
        found->items += is_there;
        if (!is_good) {
            found->violations++;
            printf("item %u: %s, possible %u\n", index,
                   is_there ? "there" : abode_strerror(item.status), past->items[index]);
        }
    }
    if (abode_region_remove(host->runtime, number) < 0) {
        exit(2);
    }
}

static int check_run(const char *directory, const char *events)
{
    static struct past past;
    const char *paths[] = {directory};
    struct found found = {0};
    struct abode_config config;
    struct live_host host;
    struct abode *runtime = NULL;
    int rc;

    past_read(&past, events);
    abode_config_init(&config);
    config.log = live_log;
    config.flags = ABODE_CREATE;
    config.memory_bytes_max = 4ull * MEMORY_BYTES;
    config.store_bytes_max = STORE_BYTES;
    config.store_paths = paths;
    config.store_path_count = 1;
    config.huge = ABODE_HUGE_NONE;
    rc = abode_open(&config, &runtime);
    rc = rc < 0 ? rc : live_host_open(runtime, 0, &host);
    if (rc < 0) {
        printf("abode_open: %s\n", abode_strerror(rc));
        return 1;
    }
    for (uint32_t name = 0; name < ORACLE_NAMES; name++) {
        name_check(&host, &past, name, &found);
    }
    items_check(&host, &past, &found);
    rc = found.violations == 0 ? live_host_close(&host) : 0;
    if (rc < 0) {
        found.violations++;
        printf("abode_close: %s\n", abode_strerror(rc));
    }
    printf("events %llu, durable promises %llu; sessions %u, gone %u, items %u, bytes %llu; "
           "violations %u\n",
           (unsigned long long)past.events, (unsigned long long)past.durable, found.sessions,
           found.gone, found.items, (unsigned long long)found.bytes, found.violations);
    return found.violations > 0;
}

int main(int argc, char **argv)
{
    if ((argc == 8 || argc == 9) && strcmp(argv[1], "host") == 0) {
        return host_run(argv + 2, argc == 9 && strcmp(argv[8], "nosync") == 0);
    }
    if (argc == 4 && strcmp(argv[1], "check") == 0) {
        return check_run(argv[2], argv[3]);
    }
    fprintf(stderr,
            "usage: power host DIR DEVICE OFFSET BYTES SECONDS SEED [nosync] | power check DIR "
            "EVENTS\n");
    return 2;
}
