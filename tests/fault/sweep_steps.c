/*
 * sweep_steps.c - see sweep_steps.h. Each step is judged where it is made, and what it could not do
 * is left out of the steps after it.
 */
#include "fault/sweep_steps.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "front/front.h"

#define ITEMS 4u
#define SEGMENT_BYTES (1u << 20)

#define LEFT_TRIES 1000u /* of 2 ms: the kernel's own io_uring workers end when they like */

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
void sweep_step(struct sweep *sweep, const char *what)
{
    (void)snprintf(sweep->result->step, sizeof(sweep->result->step), "life %u: %s",
                   sweep->result->life, what);
}

bool sweep_judge(struct sweep *sweep, int rc)
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

uint32_t sweep_descriptors(void)
{
    return entries_in("/proc/self/fd");
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

    sweep_step(sweep, "after close");
    if (threads > 0) {
        wrong(sweep, "life %u: %u threads are left", sweep->result->life, threads);
    }
    if (sweep_descriptors() != sweep->fds_before) {
        wrong(sweep, "life %u: %u descriptors before, %u after", sweep->result->life,
              sweep->fds_before, sweep_descriptors());
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
        sweep_step(sweep, "events");
        count = abode_cache_events(sweep->host.runtime, sweep->host.model, left, ITEMS, &lost);
        (void)sweep_judge(sweep, count);
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

void sweep_close(struct sweep *sweep)
{
    struct live_host *host = &sweep->host;

    items_that_left(sweep);
    if (sweep->has_region) {
        (void)SWEEP_STEP(sweep, "region remove", abode_region_remove(host->runtime, sweep->region));
    }
    if (host->queue != NULL) {
        (void)SWEEP_STEP(sweep, "queue close", abode_queue_close(host->queue));
    }
    if (host->runtime != NULL && SWEEP_STEP(sweep, "close", abode_close(host->runtime))) {
        nothing_left(sweep);
    } else if (host->runtime != NULL) {
        wrong(sweep, "life %u does not close", sweep->result->life);
    }
    *host = (struct live_host){0};
    sweep->has_region = false;
    memset(sweep->actors, 0, sizeof(sweep->actors));
}

/* Is there a runtime with a model? */
bool sweep_open(struct sweep *sweep)
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
    config.memory_bytes_max = sweep->memory_bytes;
    config.store_bytes_max = sweep->store_bytes;
    config.segment_bytes = SEGMENT_BYTES;
    config.store_paths = paths;
    config.store_path_count = 1;
    config.session_count_max = 64;
    config.block_count_max = 4096;
    config.io = sweep->plan->engine;
    config.huge = ABODE_HUGE_NONE;
    sweep_step(sweep, "open");
    rc = ab_open_with_os(&config, &sweep->fault.os, &runtime);
    /* flock says that another process has the store by this code: it cannot be told from the fault */
    if (rc == -ABODE_ELOCKED && sweep->plan->fault.call == AB_OS_FLOCK && !sweep->nothing_fails) {
        rc = -EAGAIN;
    }
    if (!sweep_judge(sweep, rc)) {
        nothing_left(sweep);
        return false;
    }
    sweep->host.runtime = runtime;
    if (!SWEEP_STEP(sweep, "model and queue", live_host_open(runtime, 0, &sweep->host))) {
        sweep_close(sweep);
        return false;
    }
    sweep->has_region =
        SWEEP_STEP(sweep, "region", abode_region_add(runtime, &region, &sweep->region));
    return true;
}

/* ---- sessions ---------------------------------------------------------------------------------------- */

void sweep_create(struct sweep *sweep, uint32_t name, uint32_t durability)
{
    struct sweep_actor *actor = &sweep->actors[name];
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
    actor->exists = actor->attached = SWEEP_STEP(
        sweep, "create", abode_session_create(sweep->host.runtime, &opts, &actor->session));
}

/* Tokens and a restore point behind them. */
void sweep_turn(struct sweep *sweep, uint32_t name, uint32_t tokens)
{
    struct sweep_actor *actor = &sweep->actors[name];
    uint32_t stamp = ++sweep->oracle->stamp_last;
    struct live_state next;

    if (!actor->attached || actor->state.token_count + tokens > LIVE_TOKENS_MAX ||
        !SWEEP_STEP(sweep, "append",
                    live_append(&sweep->host, actor->session, &actor->state, tokens, stamp))) {
        return;
    }
    next = actor->state;
    live_state_snapshot(&next, stamp);
    (void)oracle_push(&sweep->oracle->names[name], &next);
    (void)SWEEP_STEP(sweep, "snapshot",
                     live_snapshot(&sweep->host, actor->session, &actor->state, stamp));
}

static void compare(struct sweep *sweep, uint32_t name)
{
    const struct sweep_actor *actor = &sweep->actors[name];
    char why[LIVE_WHY_MAX] = "";
    int rc;

    sweep_step(sweep, "compare");
    rc = live_compare(&sweep->host, actor->session, &actor->state, why,
                      &sweep->result->bytes_compared);
    if (rc < 0) {
        wrong(sweep, "life %u, name %u: %s %.150s", sweep->result->life, name, abode_strerror(rc),
              why);
    }
}

void sweep_attach(struct sweep *sweep, uint32_t name)
{
    struct sweep_actor *actor = &sweep->actors[name];

    if (actor->exists && !actor->attached &&
        SWEEP_STEP(sweep, "attach", live_attach(&sweep->host, actor->session, -1, 0))) {
        actor->attached = true;
        compare(sweep, name);
    }
}

/* Success is a promise. A failed detach is made good by the next. */
void sweep_detach(struct sweep *sweep, uint32_t name, uint32_t flags)
{
    struct sweep_actor *actor = &sweep->actors[name];
    struct oracle_name *known = &sweep->oracle->names[name];
    struct abode_op op = {0};
    uint64_t tick = ++sweep->oracle->tick;
    uint32_t version = atomic_load(&known->count) - 1;

    if (!actor->attached ||
        !SWEEP_STEP(sweep, "detach", abode_detach(sweep->host.queue, actor->session, flags, &op))) {
        return;
    }
    if ((flags & ABODE_DETACH_KEEP) == 0) {
        actor->attached = false;
        live_state_drop_tail(&actor->state);
    }
    if (!SWEEP_STEP(sweep, flags & ABODE_DETACH_KEEP ? "checkpoint ends" : "detach ends",
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

void sweep_fork(struct sweep *sweep, uint32_t parent, uint32_t child)
{
    const struct sweep_actor *from = &sweep->actors[parent];
    struct sweep_actor *to = &sweep->actors[child];
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
    if (SWEEP_STEP(sweep, "fork",
                   abode_session_fork(sweep->host.runtime, from->session, state.token_count, &key,
                                      &to->session))) {
        to->exists = to->attached = true;
        to->state = state;
    }
}

/* Back to an older restore point. */
void sweep_cut(struct sweep *sweep, uint32_t name, const struct live_state *older)
{
    struct sweep_actor *actor = &sweep->actors[name];
    struct live_state state = *older;

    if (!actor->attached || state.restore_point == 0 ||
        state.restore_point >= actor->state.restore_point) {
        return;
    }
    (void)oracle_push(&sweep->oracle->names[name], &state);
    if (SWEEP_STEP(
            sweep, "truncate",
            abode_session_truncate(sweep->host.runtime, actor->session, state.token_count))) {
        actor->state = state;
    }
}

void sweep_delete(struct sweep *sweep, uint32_t name)
{
    struct sweep_actor *actor = &sweep->actors[name];
    struct oracle_name *known = &sweep->oracle->names[name];
    struct abode_session_info info = {.struct_size = sizeof(info)};
    uint32_t version;

    if (!actor->exists) {
        return;
    }
    version = oracle_push(known, NULL);
    if (!SWEEP_STEP(sweep, "delete", abode_session_delete(sweep->host.runtime, actor->session))) {
        return;
    }
    known->versions[version].delete_tick = ++sweep->oracle->tick;
    if (abode_session_stat(sweep->host.runtime, actor->session, &info) != -ABODE_ESTALE) {
        wrong(sweep, "%s: the handle is not stale", sweep->result->step);
    }
    *actor = (struct sweep_actor){0};
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

    if (!sweep_judge(sweep, started)) {
        return false;
    }
    rc = live_wait(&sweep->host, op);
    return rc == -ABODE_EPARTIAL || sweep_judge(sweep, rc); /* partial: the items are judged */
}

void sweep_put(struct sweep *sweep)
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
    sweep_step(sweep, "put");
    if (!op_ended(sweep, &op,
                  abode_cache_put(sweep->host.queue, sweep->host.model, items, ITEMS, ABODE_WRITTEN,
                                  &op))) {
        return;
    }
    for (uint32_t index = 0; index < ITEMS; index++) {
        if (SWEEP_STEP(sweep, "item of put", items[index].status)) {
            atomic_store(&sweep->oracle->items[index], ORACLE_PRESENT);
        }
    }
}

static void item_got(struct sweep *sweep, const struct abode_item *item, uint32_t index)
{
    uint32_t possible = atomic_load(&sweep->oracle->items[index]);

    sweep_step(sweep, "item of get");
    if (item->status == -ENOENT) {
        if ((possible & ORACLE_ABSENT) == 0) {
            wrong(sweep, "life %u: item %u is lost", sweep->result->life, index);
        }
    } else if (sweep_judge(sweep, item->status)) {
        if ((possible & ORACLE_PRESENT) == 0) {
            wrong(sweep, "life %u: item %u came back", sweep->result->life, index);
        } else if (!live_item_is(index, region_bytes + item->offset, item->bytes)) {
            wrong(sweep, "life %u: item %u has wrong bytes", sweep->result->life, index);
        }
        sweep->result->bytes_compared += item->bytes;
    }
}

void sweep_get(struct sweep *sweep)
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
    (void)SWEEP_STEP(
        sweep, "probe",
        abode_cache_probe(sweep->host.runtime, sweep->host.model, keys, ITEMS, presence));
    abode_cache_touch(sweep->host.runtime, sweep->host.model, keys, ITEMS);
    sweep_step(sweep, "get");
    if (op_ended(sweep, &op,
                 abode_cache_get(sweep->host.queue, sweep->host.model, items, ITEMS, &op))) {
        items_that_left(sweep);
        for (uint32_t index = 0; index < ITEMS; index++) {
            item_got(sweep, &items[index], index);
        }
    }
}

void sweep_item_delete(struct sweep *sweep, uint32_t index)
{
    struct abode_key key;
    struct abode_op op = {0};

    live_key(1000 + index, &key);
    (void)atomic_fetch_or(&sweep->oracle->items[index], ORACLE_ABSENT);
    sweep_step(sweep, "cache delete");
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

void sweep_reports(struct sweep *sweep)
{
    struct abode *runtime = sweep->host.runtime;
    struct abode_stats stats = {.struct_size = sizeof(stats)};
    struct abode_support support = {.struct_size = sizeof(support)};
    struct abode_node_info node = {.struct_size = sizeof(node)};
    struct abode_device_info device = {.struct_size = sizeof(device)};
    struct abode_verify_report report = {.struct_size = sizeof(report)};
    struct abode_placement placement = {.struct_size = sizeof(placement)};
    size_t text_bytes = 0;

    (void)SWEEP_STEP(sweep, "stats", abode_stats_get(runtime, &stats));
    (void)SWEEP_STEP(sweep, "support", abode_support_get(runtime, &support));
    (void)SWEEP_STEP(sweep, "node", abode_machine_node_get(runtime, 0, &node));
    (void)SWEEP_STEP(sweep, "device", abode_machine_device_get(runtime, 0, &device));
    if (sweep->actors[0].exists) {
        (void)SWEEP_STEP(sweep, "placement",
                         abode_session_placement(runtime, sweep->actors[0].session, &placement));
    }
    (void)SWEEP_STEP(sweep, "inspect", abode_inspect(runtime, line_take, &text_bytes));
    (void)SWEEP_STEP(sweep, "verify", abode_verify(runtime, NULL, damage_take, sweep, &report));
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
    struct sweep_actor *actor = &sweep->actors[name];
    struct abode_session_info info = {.struct_size = sizeof(info)};
    uint32_t first = atomic_load(&known->first);

    if (!SWEEP_STEP(sweep, "stat",
                    abode_session_stat(sweep->host.runtime, actor->session, &info))) {
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

void sweep_verify(struct sweep *sweep, uint32_t name)
{
    struct oracle_name *known = &sweep->oracle->names[name];
    struct sweep_actor *actor = &sweep->actors[name];
    const struct oracle_version *version, gone = {.gone = true};
    struct abode_key key;
    char why[LIVE_WHY_MAX] = "";
    int rc;

    live_key(name, &key);
    sweep_step(sweep, "find");
    rc = abode_session_find(sweep->host.runtime, &key, &actor->session);
    if (rc == -ENOENT) {
        if (!oracle_may_be_gone(known)) {
            wrong(sweep, "life %u: name %u is lost", sweep->result->life, name);
        }
        oracle_settle(known, &gone);
        return;
    }
    actor->unread = true;
    if (!sweep_judge(sweep, rc)) {
        return;
    }
    /* in the life that a fault strikes, try once more: its state must not be worse for it */
    for (uint32_t attempt = 0; attempt < 2 && !actor->attached; attempt++) {
        actor->attached =
            SWEEP_STEP(sweep, "attach", live_attach(&sweep->host, actor->session, -1, 0));
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
