/*
 * sweep_workload.c - see sweep_workload.h. The lives are straight scripts: each step is judged where
 * it is made, and what it could not do is left out of the steps after it.
 */
#include "fault/sweep_workload.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "front/front.h"

#define NAMES 5u /* of the oracle's */
#define ITEMS 4u
#define MEMORY_BYTES (6u << 20)
#define STORE_BYTES (16u << 20)
#define SEGMENT_BYTES (1u << 20)
#define FLUSH_NS 10000000000LL
#define LEFT_TRIES 1000u /* of 2 ms: the kernel's own io_uring workers end when they like */

enum { KEPT = 0, SPILLED, FORKED, DELETED, IN_MEMORY }; /* the names, by what happens to them */

struct actor {
    bool exists, attached;
    bool unread; /* the store has it, but what it holds could not be read */
    struct abode_session session;
    struct live_state state;
};

struct sweep {
    const struct sweep_plan *plan;
    struct sweep_result *result;
    struct oracle *oracle;
    struct fault_os fault;
    struct live_host host; /* runtime NULL: closed; queue NULL: no model */
    bool nothing_fails;    /* the last life: a refusal is wrong as well */
    bool has_region;
    uint32_t region;
    struct actor actors[NAMES];
    uint32_t fds_before;
};

static _Alignas(4096) unsigned char region_bytes[ITEMS * LIVE_BYTES_MAX];

/* ---- judging ----------------------------------------------------------------------------------- */

static void wrong(struct sweep *sweep, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
static void wrong(struct sweep *sweep, const char *format, ...)
{
    va_list arguments;

    if (sweep->result->why[0] != '\0') {
        return; /* the first one is the cause */
    }
    va_start(arguments, format);
    (void)vsnprintf(sweep->result->why, sizeof(sweep->result->why), format, arguments);
    va_end(arguments);
}

/* Codes of abode.h that a failed call of the kernel may end in, when the host did nothing wrong.
 * A read that failed is not damage, and what the store holds does not change its format. */
static bool is_refusal(int rc)
{
    switch (-rc) {
    case EIO:
    case ENOSPC:
    case EROFS:
    case ENOMEM:
    case EAGAIN:
    case ABODE_EFULL:
        return true;
    default:
        return false;
    }
}

/* The parent sees it after a crash. */
static void step_to(struct sweep *sweep, const char *what)
{
    (void)snprintf(sweep->result->step, sizeof(sweep->result->step), "life %u: %s",
                   sweep->result->life, what);
}

static bool judged(struct sweep *sweep, int rc)
{
    const char *step = sweep->result->step;

    if (rc >= 0) {
        return true;
    }
    if (sweep->nothing_fails || !is_refusal(rc)) {
        wrong(sweep, "%s: %s (%d)", step, abode_strerror(rc), rc);
    }
    if (sweep->result->refusals++ == 0) {
        (void)snprintf(sweep->result->refusal_first, sizeof(sweep->result->refusal_first),
                       "%.150s: %s", step, abode_strerror(rc));
    }
    return false;
}

/* Did the call succeed? Its place is known before it is made. */
#define STEP(sweep, what, call) (step_to(sweep, what), judged(sweep, call))

/* ---- what must not be left over ------------------------------------------------------------------ */

static uint32_t entries_in(const char *path)
{
    DIR *directory = opendir(path);
    uint32_t count = 0;

    if (directory == NULL) {
        return 0;
    }
    for (const struct dirent *entry = readdir(directory); entry != NULL;
         entry = readdir(directory)) {
        count += entry->d_name[0] != '.';
    }
    (void)closedir(directory);
    return count;
}

/* A thread that was joined is in the list for a moment still. */
static uint32_t threads_left(void)
{
    const struct timespec pause = {.tv_nsec = 2000000};
    const char *sanitizer = getenv("ABODE_SANITIZE");
    if (sanitizer != NULL && strcmp(sanitizer, "thread") == 0) {
        return 0; /* it has threads of its own */
    }
    uint32_t threads = entries_in("/proc/self/task");
    for (uint32_t attempt = 0; threads > 1 && attempt < LEFT_TRIES; attempt++) {
        (void)nanosleep(&pause, NULL);
        threads = entries_in("/proc/self/task");
    }
    return threads - 1;
}

static void nothing_left(struct sweep *sweep)
{
    const uint32_t threads = threads_left();

    step_to(sweep, "after close");
    if (threads > 0) {
        wrong(sweep, "life %u: %u threads are left", sweep->result->life, threads);
    }
    if (entries_in("/proc/self/fd") != sweep->fds_before) {
        wrong(sweep, "life %u: %u descriptors before, %u after", sweep->result->life,
              sweep->fds_before, entries_in("/proc/self/fd"));
    }
    if (fault_os_allocations(&sweep->fault) != 0) {
        wrong(sweep, "life %u: %lld allocations are left", sweep->result->life,
              (long long)fault_os_allocations(&sweep->fault));
    }
    if (fault_os_mapped(&sweep->fault) != 0) {
        wrong(sweep, "life %u: %lld bytes are left mapped", sweep->result->life,
              (long long)fault_os_mapped(&sweep->fault));
    }
}

/* A store that seems full, if only once, lets go of items to make room, and says so. */
static void items_that_left(struct sweep *sweep)
{
    struct abode_key left[ITEMS], key;
    uint64_t lost = 0;
    int count = 0;

    if (sweep->host.queue != NULL) {
        step_to(sweep, "events");
        count = abode_cache_events(sweep->host.runtime, sweep->host.model, left, ITEMS, &lost);
        (void)judged(sweep, count);
    }
    for (int event = 0; event < count; event++) {
        for (uint32_t index = 0; index < ITEMS; index++) {
            live_key(1000 + index, &key);
            if (memcmp(key.bytes, left[event].bytes, sizeof(key.bytes)) == 0) {
                (void)atomic_fetch_or(&sweep->oracle->items[index], ORACLE_ABSENT);
            }
        }
    }
}

/* ---- open and close ------------------------------------------------------------------------------ */

static void host_close(struct sweep *sweep)
{
    struct live_host *host = &sweep->host;

    items_that_left(sweep);
    if (sweep->has_region) {
        (void)STEP(sweep, "region remove", abode_region_remove(host->runtime, sweep->region));
    }
    if (host->queue != NULL) {
        (void)STEP(sweep, "queue close", abode_queue_close(host->queue));
    }
    if (host->runtime != NULL && STEP(sweep, "close", abode_close(host->runtime))) {
        nothing_left(sweep);
    } else if (host->runtime != NULL) {
        wrong(sweep, "life %u does not close", sweep->result->life);
    }
    *host = (struct live_host){0};
    sweep->has_region = false;
    memset(sweep->actors, 0, sizeof(sweep->actors));
}

/* Is there a runtime with a model? */
static bool host_open(struct sweep *sweep)
{
    const char *paths[] = {sweep->plan->path};
    struct abode_region region = {.struct_size = sizeof(region),
                                  .node = -1,
                                  .base = region_bytes,
                                  .bytes = sizeof(region_bytes)};
    struct abode_config config;
    struct abode *runtime = NULL;
    int rc;

    abode_config_init(&config);
    config.log = live_log;
    config.flags = ABODE_CREATE | ABODE_KEEP_KEYS;
    config.memory_bytes_max = MEMORY_BYTES;
    config.store_bytes_max = STORE_BYTES;
    config.segment_bytes = SEGMENT_BYTES;
    config.store_paths = paths;
    config.store_path_count = 1;
    config.session_count_max = 64;
    config.block_count_max = 4096;
    config.io = sweep->plan->engine;
    config.huge = ABODE_HUGE_NONE;
    step_to(sweep, "open");
    rc = ab_open_with_os(&config, &sweep->fault.os, &runtime);
    /* flock says that another process has the store by this code: it cannot be told from the fault */
    if (rc == -ABODE_ELOCKED && sweep->plan->fault.call == AB_OS_FLOCK && !sweep->nothing_fails) {
        rc = -EAGAIN;
    }
    if (!judged(sweep, rc)) {
        nothing_left(sweep);
        return false;
    }
    sweep->host.runtime = runtime;
    if (!STEP(sweep, "model and queue", live_host_open(runtime, 0, &sweep->host))) {
        host_close(sweep);
        return false;
    }
    sweep->has_region = STEP(sweep, "region", abode_region_add(runtime, &region, &sweep->region));
    return true;
}

/* ---- sessions ---------------------------------------------------------------------------------------- */

static void create(struct sweep *sweep, uint32_t name, uint32_t durability)
{
    struct actor *actor = &sweep->actors[name];
    struct oracle_name *known = &sweep->oracle->names[name];
    struct abode_key key;
    struct abode_session_opts opts = {.struct_size = sizeof(opts),
                                      .model = sweep->host.model,
                                      .home_node = -1,
                                      .durability = durability,
                                      .name = &key};

    if (actor->exists || actor->unread) {
        return;
    }
    live_key(name, &key);
    known->durability = durability;
    (void)oracle_push(known, &actor->state);
    actor->exists = actor->attached =
        STEP(sweep, "create", abode_session_create(sweep->host.runtime, &opts, &actor->session));
}

/* Tokens and a restore point behind them. */
static void turn(struct sweep *sweep, uint32_t name, uint32_t tokens)
{
    struct actor *actor = &sweep->actors[name];
    uint32_t stamp = ++sweep->oracle->stamp_last;
    struct live_state next;

    if (!actor->attached || actor->state.token_count + tokens > LIVE_TOKENS_MAX ||
        !STEP(sweep, "append",
              live_append(&sweep->host, actor->session, &actor->state, tokens, stamp))) {
        return;
    }
    next = actor->state;
    live_state_snapshot(&next, stamp);
    (void)oracle_push(&sweep->oracle->names[name], &next);
    (void)STEP(sweep, "snapshot",
               live_snapshot(&sweep->host, actor->session, &actor->state, stamp));
}

static void compare(struct sweep *sweep, uint32_t name)
{
    const struct actor *actor = &sweep->actors[name];
    char why[LIVE_WHY_MAX] = "";
    int rc;

    step_to(sweep, "compare");
    rc = live_compare(&sweep->host, actor->session, &actor->state, why,
                      &sweep->result->bytes_compared);
    if (rc < 0) {
        wrong(sweep, "life %u, name %u: %s %.150s", sweep->result->life, name, abode_strerror(rc),
              why);
    }
}

static void attach(struct sweep *sweep, uint32_t name)
{
    struct actor *actor = &sweep->actors[name];

    if (actor->exists && !actor->attached &&
        STEP(sweep, "attach", live_attach(&sweep->host, actor->session, -1, 0))) {
        actor->attached = true;
        compare(sweep, name);
    }
}

/* Success is a promise. A failed detach is made good by the next. */
static void detach(struct sweep *sweep, uint32_t name, uint32_t flags)
{
    struct actor *actor = &sweep->actors[name];
    struct oracle_name *known = &sweep->oracle->names[name];
    struct abode_op op = {0};
    uint64_t tick = ++sweep->oracle->tick;
    uint32_t version = atomic_load(&known->count) - 1;

    if (!actor->attached ||
        !STEP(sweep, "detach", abode_detach(sweep->host.queue, actor->session, flags, &op))) {
        return;
    }
    if ((flags & ABODE_DETACH_KEEP) == 0) {
        actor->attached = false;
        live_state_drop_tail(&actor->state);
    }
    if (!STEP(sweep, flags & ABODE_DETACH_KEEP ? "checkpoint ends" : "detach ends",
              live_wait(&sweep->host, &op))) {
        return;
    }
    if (known->durability >= ABODE_WRITTEN) {
        oracle_promise(known, version);
    }
    if (known->durability == ABODE_DURABLE) {
        oracle_promise_deletes(sweep->oracle, tick);
    }
}

static void fork_off(struct sweep *sweep, uint32_t parent, uint32_t child)
{
    const struct actor *from = &sweep->actors[parent];
    struct actor *to = &sweep->actors[child];
    struct oracle_name *known = &sweep->oracle->names[child];
    struct live_state state = from->state;
    struct abode_key key;

    live_state_drop_tail(&state);
    if (!from->attached || to->exists || state.restore_point == 0) {
        return;
    }
    live_key(child, &key);
    known->durability = sweep->oracle->names[parent].durability;
    (void)oracle_push(known, &state);
    if (STEP(sweep, "fork",
             abode_session_fork(sweep->host.runtime, from->session, state.token_count, &key,
                                &to->session))) {
        to->exists = to->attached = true;
        to->state = state;
    }
}

/* Back to an older restore point. */
static void cut(struct sweep *sweep, uint32_t name, const struct live_state *older)
{
    struct actor *actor = &sweep->actors[name];
    struct live_state state = *older;

    if (!actor->attached || state.restore_point == 0 ||
        state.restore_point >= actor->state.restore_point) {
        return;
    }
    (void)oracle_push(&sweep->oracle->names[name], &state);
    if (STEP(sweep, "truncate",
             abode_session_truncate(sweep->host.runtime, actor->session, state.token_count))) {
        actor->state = state;
    }
}

static void forget(struct sweep *sweep, uint32_t name)
{
    struct actor *actor = &sweep->actors[name];
    struct oracle_name *known = &sweep->oracle->names[name];
    struct abode_session_info info = {.struct_size = sizeof(info)};
    uint32_t version;

    if (!actor->exists) {
        return;
    }
    version = oracle_push(known, NULL);
    if (!STEP(sweep, "delete", abode_session_delete(sweep->host.runtime, actor->session))) {
        return;
    }
    known->versions[version].delete_tick = ++sweep->oracle->tick;
    if (abode_session_stat(sweep->host.runtime, actor->session, &info) != -ABODE_ESTALE) {
        wrong(sweep, "%s: the handle is not stale", sweep->result->step);
    }
    *actor = (struct actor){0};
}

/* ---- cache items --------------------------------------------------------------------------------------- */

static void items_prepare(struct sweep *sweep, struct abode_item items[ITEMS], bool is_put)
{
    memset(region_bytes, 0x5a, sizeof(region_bytes));
    for (uint32_t index = 0; index < ITEMS; index++) {
        items[index] = (struct abode_item){.region = sweep->region,
                                           .offset = (uint64_t)index * LIVE_BYTES_MAX,
                                           .bytes = LIVE_BYTES_MAX};
        live_key(1000 + index, &items[index].key);
        if (is_put) {
            items[index].bytes = live_item_size(index);
            live_item_fill(index, region_bytes + items[index].offset);
        }
    }
}

static bool op_ended(struct sweep *sweep, struct abode_op *op, int started)
{
    int rc;

    if (!judged(sweep, started)) {
        return false;
    }
    rc = live_wait(&sweep->host, op);
    return rc == -ABODE_EPARTIAL || judged(sweep, rc); /* partial: the items are judged */
}

static void items_put(struct sweep *sweep)
{
    struct abode_item items[ITEMS];
    struct abode_op op = {0};

    if (!sweep->has_region) {
        return;
    }
    items_prepare(sweep, items, true);
    for (uint32_t index = 0; index < ITEMS; index++) {
        (void)atomic_fetch_or(&sweep->oracle->items[index], ORACLE_PRESENT);
    }
    step_to(sweep, "put");
    if (!op_ended(sweep, &op,
                  abode_cache_put(sweep->host.queue, sweep->host.model, items, ITEMS, ABODE_WRITTEN,
                                  &op))) {
        return;
    }
    for (uint32_t index = 0; index < ITEMS; index++) {
        if (STEP(sweep, "item of put", items[index].status)) {
            atomic_store(&sweep->oracle->items[index], ORACLE_PRESENT);
        }
    }
}

static void item_got(struct sweep *sweep, const struct abode_item *item, uint32_t index)
{
    uint32_t possible = atomic_load(&sweep->oracle->items[index]);

    step_to(sweep, "item of get");
    if (item->status == -ENOENT) {
        if ((possible & ORACLE_ABSENT) == 0) {
            wrong(sweep, "life %u: item %u is lost", sweep->result->life, index);
        }
    } else if (judged(sweep, item->status)) {
        if ((possible & ORACLE_PRESENT) == 0) {
            wrong(sweep, "life %u: item %u came back", sweep->result->life, index);
        } else if (!live_item_is(index, region_bytes + item->offset, item->bytes)) {
            wrong(sweep, "life %u: item %u has wrong bytes", sweep->result->life, index);
        }
        sweep->result->bytes_compared += item->bytes;
    }
}

static void items_get(struct sweep *sweep)
{
    struct abode_item items[ITEMS];
    struct abode_key keys[ITEMS];
    struct abode_op op = {0};
    uint8_t presence[ITEMS];

    if (!sweep->has_region) {
        return;
    }
    items_prepare(sweep, items, false);
    for (uint32_t index = 0; index < ITEMS; index++) {
        keys[index] = items[index].key;
    }
    (void)STEP(sweep, "probe",
               abode_cache_probe(sweep->host.runtime, sweep->host.model, keys, ITEMS, presence));
    abode_cache_touch(sweep->host.runtime, sweep->host.model, keys, ITEMS);
    step_to(sweep, "get");
    if (op_ended(sweep, &op,
                 abode_cache_get(sweep->host.queue, sweep->host.model, items, ITEMS, &op))) {
        items_that_left(sweep);
        for (uint32_t index = 0; index < ITEMS; index++) {
            item_got(sweep, &items[index], index);
        }
    }
}

static void item_delete(struct sweep *sweep, uint32_t index)
{
    struct abode_key key;
    struct abode_op op = {0};

    live_key(1000 + index, &key);
    (void)atomic_fetch_or(&sweep->oracle->items[index], ORACLE_ABSENT);
    step_to(sweep, "cache delete");
    if (op_ended(sweep, &op,
                 abode_cache_delete(sweep->host.queue, sweep->host.model, &key, 1, &op))) {
        atomic_store(&sweep->oracle->items[index], ORACLE_ABSENT);
    }
}

/* ---- reports ------------------------------------------------------------------------------------------------ */

static int line_take(void *context, const char *text, size_t size)
{
    (void)text;
    *(size_t *)context += size;
    return 0;
}

static void damage_take(void *context, const struct abode_damage *damage)
{
    struct sweep *sweep = context;

    if (sweep->nothing_fails || !is_refusal(damage->status)) {
        wrong(sweep, "life %u: verify: %s", sweep->result->life, abode_strerror(damage->status));
    }
}

static void reports(struct sweep *sweep)
{
    struct abode *runtime = sweep->host.runtime;
    struct abode_stats stats = {.struct_size = sizeof(stats)};
    struct abode_support support = {.struct_size = sizeof(support)};
    struct abode_node_info node = {.struct_size = sizeof(node)};
    struct abode_device_info device = {.struct_size = sizeof(device)};
    struct abode_verify_report report = {.struct_size = sizeof(report)};
    struct abode_placement placement = {.struct_size = sizeof(placement)};
    size_t text_bytes = 0;

    (void)STEP(sweep, "stats", abode_stats_get(runtime, &stats));
    (void)STEP(sweep, "support", abode_support_get(runtime, &support));
    (void)STEP(sweep, "node", abode_machine_node_get(runtime, 0, &node));
    (void)STEP(sweep, "device", abode_machine_device_get(runtime, 0, &device));
    if (sweep->actors[KEPT].exists) {
        (void)STEP(sweep, "placement",
                   abode_session_placement(runtime, sweep->actors[KEPT].session, &placement));
    }
    (void)STEP(sweep, "inspect", abode_inspect(runtime, line_take, &text_bytes));
    (void)STEP(sweep, "verify", abode_verify(runtime, NULL, damage_take, sweep, &report));
    if (stats.checksum_failures != 0 || stats.sessions_dropped != 0) {
        wrong(sweep, "life %u: %llu checksum failures, %llu sessions dropped", sweep->result->life,
              (unsigned long long)stats.checksum_failures,
              (unsigned long long)stats.sessions_dropped);
    }
}

/* ---- what the store holds, against the oracle --------------------------------------------------------------- */

static const struct oracle_version *version_find(struct sweep *sweep, uint32_t name,
                                                 char why[LIVE_WHY_MAX])
{
    struct oracle_name *known = &sweep->oracle->names[name];
    struct actor *actor = &sweep->actors[name];
    struct abode_session_info info = {.struct_size = sizeof(info)};
    uint32_t first = atomic_load(&known->first);

    if (!STEP(sweep, "stat", abode_session_stat(sweep->host.runtime, actor->session, &info))) {
        return NULL;
    }
    (void)snprintf(why, LIVE_WHY_MAX, "it has %llu tokens, as no version that is possible",
                   (unsigned long long)info.token_count);
    for (uint32_t version = atomic_load(&known->count); version-- > first;) {
        const struct oracle_version *candidate = &known->versions[version];

        if (!candidate->gone && candidate->state.token_count == info.token_count &&
            live_compare(&sweep->host, actor->session, &candidate->state, why,
                         &sweep->result->bytes_compared) == 0) {
            return candidate;
        }
    }
    return NULL;
}

static void name_verify(struct sweep *sweep, uint32_t name)
{
    struct oracle_name *known = &sweep->oracle->names[name];
    struct actor *actor = &sweep->actors[name];
    const struct oracle_version *version, gone = {.gone = true};
    struct abode_key key;
    char why[LIVE_WHY_MAX] = "";
    int rc;

    live_key(name, &key);
    step_to(sweep, "find");
    rc = abode_session_find(sweep->host.runtime, &key, &actor->session);
    if (rc == -ENOENT) {
        if (!oracle_may_be_gone(known)) {
            wrong(sweep, "life %u: name %u is lost", sweep->result->life, name);
        }
        oracle_settle(known, &gone);
        return;
    }
    actor->unread = true;
    if (!judged(sweep, rc)) {
        return;
    }
    /* in the life that a fault strikes, try once more: its state must not be worse for it */
    for (uint32_t attempt = 0; attempt < 2 && !actor->attached; attempt++) {
        actor->attached = STEP(sweep, "attach", live_attach(&sweep->host, actor->session, -1, 0));
    }
    if (!actor->attached) {
        return;
    }
    version = version_find(sweep, name, why);
    if (version == NULL) {
        wrong(sweep, "life %u, name %u: %.200s", sweep->result->life, name, why);
        return;
    }
    actor->exists = true;
    actor->unread = false;
    actor->state = version->state;
    oracle_settle(known, version);
}

/* ---- the lives --------------------------------------------------------------------------------------------------- */

static void life_first(struct sweep *sweep)
{
    static const char note[] = "the host's own words";
    struct live_state older;

    create(sweep, KEPT, ABODE_DURABLE);
    turn(sweep, KEPT, 40);
    older = sweep->actors[KEPT].state;
    if (sweep->actors[KEPT].exists) {
        (void)STEP(sweep, "note",
                   abode_session_note_set(sweep->host.runtime, sweep->actors[KEPT].session, note,
                                          sizeof(note)));
    }
    detach(sweep, KEPT, 0);
    attach(sweep, KEPT);
    turn(sweep, KEPT, 30);
    detach(sweep, KEPT, ABODE_DETACH_KEEP);
    fork_off(sweep, KEPT, FORKED);
    turn(sweep, FORKED, 20);
    detach(sweep, FORKED, ABODE_DETACH_SPILL_NOW);
    cut(sweep, KEPT, &older);
    detach(sweep, KEPT, ABODE_DETACH_SPILL_NOW);
    create(sweep, SPILLED, ABODE_WRITTEN);
    turn(sweep, SPILLED, 100);
    detach(sweep, SPILLED, ABODE_DETACH_SPILL_NOW);
    attach(sweep, SPILLED);
    attach(sweep, FORKED);
    create(sweep, DELETED, ABODE_WRITTEN);
    turn(sweep, DELETED, 17);
    detach(sweep, DELETED, 0);
    create(sweep, IN_MEMORY, ABODE_MEM);
    turn(sweep, IN_MEMORY, 33);
    detach(sweep, IN_MEMORY, 0);
    items_put(sweep);
    forget(sweep, DELETED);
    items_get(sweep);
    item_delete(sweep, 1);
    attach(sweep, KEPT);
    turn(sweep, KEPT, 10);
    detach(sweep, KEPT, 0);
    detach(sweep, SPILLED, 0);
    (void)STEP(sweep, "flush", abode_flush(sweep->host.runtime, FLUSH_NS));
    reports(sweep);
}

/* What is there is right; and one can go on with it. */
static void life_next(struct sweep *sweep)
{
    for (uint32_t name = 0; name < NAMES; name++) {
        name_verify(sweep, name);
    }
    items_get(sweep);
    create(sweep, KEPT, ABODE_DURABLE);
    turn(sweep, KEPT, 25);
    detach(sweep, KEPT, 0);
    turn(sweep, SPILLED, 3);
    detach(sweep, SPILLED, ABODE_DETACH_SPILL_NOW);
    attach(sweep, SPILLED);
    forget(sweep, FORKED);
    items_put(sweep);
    items_get(sweep);
    item_delete(sweep, 2);
    (void)STEP(sweep, "flush", abode_flush(sweep->host.runtime, FLUSH_NS));
    reports(sweep);
}

static void live(struct sweep *sweep, void (*script)(struct sweep *))
{
    sweep->result->life++;
    for (uint32_t name = 0; name < NAMES; name++) {
        sweep->actors[name] = (struct actor){0};
    }
    if (host_open(sweep)) {
        script(sweep);
        host_close(sweep);
    }
}

int sweep_run(const struct sweep_plan *plan, struct sweep_result *ret)
{
    static struct sweep sweep; /* too large for a stack */

    memset(ret, 0, sizeof(*ret));
    sweep = (struct sweep){.plan = plan,
                           .result = ret,
                           .oracle = &ret->oracle,
                           .fds_before = entries_in("/proc/self/fd")};
    oracle_reset(sweep.oracle);
    fault_os_init(&sweep.fault, NULL);
    if (plan->strike) {
        fault_os_plan(&sweep.fault, plan->fault);
    }
    live(&sweep, life_first);
    live(&sweep, life_next);
    ret->strikes = fault_os_strikes(&sweep.fault);
    for (uint32_t call = 0; call < AB_OS_CALL_COUNT; call++) {
        ret->counts[call] = fault_os_count(&sweep.fault, (enum ab_os_call)call);
    }
    fault_os_clear(&sweep.fault);
    sweep.nothing_fails = true;
    live(&sweep, life_next);
    fault_os_free(&sweep.fault);
    return ret->why[0] != '\0';
}
