/* power_world.c - see power_world.h. */
#include "sim/power_world.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "front/front.h"
#include "sim/sim_host.h"

#define LIVES 16u
#define NAMES 10u
#define ITEMS 16u
#define HISTORY 130u
#define NAPS_MAX 10000u

struct life_plan {
    uint32_t steps; /* at most */
    bool early;     /* the disk's plans count from before open */
    bool may_close; /* a life whose steps are over is closed, not cut */
    enum sim_when error_when;
    uint32_t plan_count;
    struct sim_plan plans[2];
};
struct world {
    struct power_result *result;
    struct sim_disk disk;
    struct worker worker;
    struct worker_part part;
    struct worker_plan plan; /* nothing of it: the disk has the plans */
    struct fault_os fault;   /* counts allocations and mappings */
    struct worker_power power;
    uint64_t random;
    uint64_t journal_tail_min;
    uint32_t steps_left;
    bool is_beyond;  /* the disk has lied */
    bool is_noticed; /* and it was seen */
    bool is_opening;
    bool after_kill;            /* the last life's unsynced writes are in limbo still */
    bool last_was_early;        /* the last cut came inside recovery */
    _Atomic(struct ab_kv *) kv; /* of the open runtime: for the watch */
};

static struct world *the_world; /* one a process: live_tuning has no context */
static _Alignas(4096) unsigned char region_bytes[WORKER_ITEMS_A_CALL * LIVE_BYTES_MAX];

static uint32_t below(struct world *world, uint32_t bound)
{
    return live_random_below(&world->random, bound);
}

static void doing(struct world *world, const char *what)
{
    (void)snprintf(world->result->doing, sizeof(world->result->doing), "%s", what);
}

/* ---- what the worker asks ------------------------------------------------------------------------ */

static bool excuses(void *context, int rc)
{
    struct world *world = context;

    switch (-rc) {
    case EIO:
    case EROFS:
        return sim_disk_is_off(&world->disk) || world->disk.errors > 0;
    case ENOSPC:
        return true;
    case ABODE_ECORRUPT:
        world->is_noticed |= world->is_beyond;
        return world->is_beyond;
    default:
        return false;
    }
}

static bool is_over(void *context)
{
    struct world *world = context;

    return sim_disk_is_off(&world->disk) || world->part.why[0] != '\0' || world->steps_left-- == 0;
}

static bool gives_up(void)
{
    return sim_disk_is_off(&the_world->disk);
}

/* A look without the lock, which the disk's caller may hold: a guess where to cut, nothing else. */
__attribute__((no_sanitize("thread"))) static bool compaction_runs(void *context)
{
    struct world *world = context;
    const struct ab_kv *kv = atomic_load(&world->kv);

    return kv != NULL && kv->transfer != NULL && kv->transfer->compaction.running;
}

/* ---- open and close -------------------------------------------------------------------------------- */

static int host_open(struct world *world)
{
    struct worker *worker = &world->worker;
    struct abode_region region = {.struct_size = sizeof(region), .node = -1};
    struct abode_config config;
    struct abode *runtime = NULL;
    int rc;

    doing(world, "open");
    sim_config_init(&config);
    rc = ab_open_with_tail(&config, &world->fault.os, world->journal_tail_min, &runtime);
    if (rc < 0) {
        return rc;
    }
    atomic_store(&world->kv, runtime->kv);
    rc = live_host_open(runtime, 0, &worker->host);
    region.base = region_bytes;
    region.bytes = sizeof(region_bytes);
    rc = rc < 0 ? rc : abode_region_add(runtime, &region, &worker->region);
    if (rc < 0) {
        atomic_store(&world->kv, NULL);
        const int closed =
            worker->host.queue != NULL ? live_host_close(&worker->host) : abode_close(runtime);

        worker->host = (struct live_host){0};
        if (closed < 0) {
            return worker_wrong(worker, "close after an open in part: %s", abode_strerror(closed));
        }
    }
    return rc;
}

/* Everything must be given back, power or not. */
static int nothing_left(struct world *world)
{
    struct worker *worker = &world->worker;

    if (sim_disk_fds_open(&world->disk) != 0 || fault_os_allocations(&world->fault) != 0 ||
        fault_os_mapped(&world->fault) != 0) {
        return worker_wrong(
            worker, "left over: %u descriptors, %lld allocations, %lld bytes mapped",
            sim_disk_fds_open(&world->disk), (long long)fault_os_allocations(&world->fault),
            (long long)fault_os_mapped(&world->fault));
    }
    return 0;
}

static int host_close(struct world *world)
{
    struct worker *worker = &world->worker;
    int rc = 0;

    doing(world, "ops in flight");
    while (rc == 0 && abode_queue_pending(worker->host.queue) > 0) {
        rc = worker_ops_poll(worker, WORKER_POLL_NS);
    }
    for (uint32_t nap = 0; nap < NAPS_MAX && compaction_runs(world); nap++) {
        (void)world->disk.os.poll(&world->disk.os, -1, 0, 1000000); /* it drops items too */
    }
    worker_events_take(worker);
    doing(world, "close");
    atomic_store(&world->kv, NULL);
    if (rc == 0) {
        rc = abode_region_remove(worker->host.runtime, worker->region);
        rc = rc < 0 ? rc : live_host_close(&worker->host);
        rc = rc < 0 ? worker_wrong(worker, "close: %s", abode_strerror(rc)) : nothing_left(world);
    }
    worker->host = (struct live_host){0};
    memset(worker->names, 0, sizeof(worker->names));
    memset(worker->ops, 0, sizeof(worker->ops));
    worker->items_busy = false;
    worker->attached_count = 0;
    return rc;
}

/* ---- what was found against what may be -------------------------------------------------------------- */

/* Is some version possible that never had a DURABLE promise? */
static bool may_be_damaged(const struct world *world, const struct oracle_name *known)
{
    for (uint32_t version = atomic_load(&known->first); version < atomic_load(&known->count);
         version++) {
        if (!known->versions[version].gone && known->versions[version].durability < ABODE_DURABLE) {
            return true;
        }
    }
    return world->is_beyond;
}

static int name_wrong(struct world *world, uint32_t index, const char *what, int rc)
{
    const struct oracle_name *known = &world->worker.oracle->names[index];

    world->part.name_wrong = index;
    return worker_wrong(&world->worker, "name %u %s: %s; %u versions are possible", index, what,
                        abode_strerror(rc),
                        atomic_load(&known->count) - atomic_load(&known->first));
}

static int name_delete(struct world *world, uint32_t index)
{
    struct worker *worker = &world->worker;
    struct oracle_name *known = &worker->oracle->names[index];
    uint32_t version = oracle_push(known, NULL);
    int rc = abode_session_delete(worker->host.runtime, worker->names[index].session);

    known->versions[version].delete_tick = ++worker->oracle->tick;
    memset(&worker->names[index], 0, sizeof(worker->names[index]));
    return rc < 0 ? name_wrong(world, index, "is not deleted", rc) : 0;
}

/* Attach has said that bytes are lost: what is left of it must be a state that was, or nothing. The
 * journal hears that it is shorter now, and then that it is deleted: either may be what is found next. */
static int damaged_take(struct world *world, uint32_t index)
{
    struct worker *worker = &world->worker;
    struct oracle_name *known = &worker->oracle->names[index];
    struct abode_session session = worker->names[index].session;
    struct abode_session_info info = {.struct_size = sizeof(info)};
    const struct oracle_version *version = NULL;
    struct live_state shorter = {0};
    char why[LIVE_WHY_MAX];
    int rc = live_attach(&worker->host, session, -1, ABODE_ATTACH_PREFIX_OK);

    worker->counts->sessions_damaged++;
    world->is_noticed |= world->is_beyond;
    if (rc < 0 && rc != -ABODE_EPARTIAL) {
        return excuses(world, rc) ? rc : name_wrong(world, index, "gives no prefix", rc);
    }
    rc = abode_session_stat(worker->host.runtime, session, &info);
    if (rc < 0) {
        return name_wrong(world, index, "has no facts", rc);
    }
    if (info.token_count > 0) {
        version = worker_version_find(worker, index, info.token_count, 0, why);
        if (version == NULL) {
            return name_wrong(world, index, why, -EBADMSG);
        }
        shorter = version->state;
        known->durability = version->durability;
    }
    (void)oracle_push(known, &shorter);
    return name_delete(world, index);
}

/* What was found is what there is, or, after a kill, one of the things that a cut may leave. */
static void name_settle(struct world *world, uint32_t index, const struct oracle_version *found)
{
    struct oracle_name *known = &world->worker.oracle->names[index];

    if (world->worker.unsettled) {
        (void)oracle_found(known, found);
    } else {
        oracle_settle(known, found);
    }
}

static int name_compare(struct world *world, uint32_t index)
{
    struct worker *worker = &world->worker;
    struct oracle_name *known = &worker->oracle->names[index];
    struct abode_session_info info = {.struct_size = sizeof(info)};
    const struct oracle_version *version;
    uint32_t first = atomic_load(&known->first);
    char why[LIVE_WHY_MAX];
    int rc = abode_session_stat(worker->host.runtime, worker->names[index].session, &info);

    if (rc < 0) {
        return name_wrong(world, index, "has no facts", rc);
    }
    version = worker_version_find(worker, index, info.token_count, first, why);
    if (version == NULL && world->is_beyond) {
        world->is_noticed = true; /* an older one: whole, but lost */
        version = worker_version_find(worker, index, info.token_count, 0, why);
    }
    if (version == NULL) {
        return name_wrong(world, index, why, -EBADMSG);
    }
    worker->counts->sessions_verified++;
    worker->names[index].exists = true;
    worker->names[index].state = version->state;
    name_settle(world, index, version);
    rc = live_detach(&worker->host, worker->names[index].session, 0);
    return rc < 0 && !excuses(world, rc) ? name_wrong(world, index, "does not detach", rc) : rc;
}

/* 0; negative: why is set, or the disk went off meanwhile. */
static int name_verify(struct world *world, uint32_t index)
{
    struct worker *worker = &world->worker;
    struct worker_name *name = &worker->names[index];
    struct oracle_name *known = &worker->oracle->names[index];
    const struct oracle_version gone = {.gone = true};
    struct abode_key key;
    int rc;

    worker_name_key(worker, index, &key);
    rc = abode_session_find(worker->host.runtime, &key, &name->session);
    if (rc == -ENOENT) {
        worker->counts->sessions_gone++;
        if (!oracle_may_be_gone(known) && !may_be_damaged(world, known)) {
            return name_wrong(world, index, "is lost", rc);
        }
        world->is_noticed |= world->is_beyond && !oracle_may_be_gone(known);
        if (may_be_damaged(world, known)) { /* given up: until the journal says so it may be back */
            (void)oracle_found(known, &gone);
        } else {
            name_settle(world, index, &gone);
        }
        return 0;
    }
    rc = rc < 0 ? rc : live_attach(&worker->host, name->session, -1, 0);
    if (rc == -ABODE_ECORRUPT && may_be_damaged(world, known)) {
        return damaged_take(world, index);
    }
    if (rc < 0) {
        return rc != -ENOSPC && excuses(world, rc) ? rc
                                                   : name_wrong(world, index, "is there but", rc);
    }
    return name_compare(world, index);
}

static int all_verify(struct world *world)
{
    struct worker *worker = &world->worker;
    int rc = 0;

    doing(world, "verify");
    worker->verifying = true;
    worker->unsettled = world->after_kill;
    for (uint32_t index = 0; index < NAMES && rc == 0; index++) {
        rc = name_verify(world, index);
    }
    for (uint32_t first = 0; first < ITEMS && rc == 0; first += WORKER_ITEMS_A_CALL) {
        if (world->is_beyond) {
            for (uint32_t item = first; item < first + WORKER_ITEMS_A_CALL; item++) {
                (void)atomic_fetch_or(&worker->oracle->items[item], ORACLE_ABSENT | ORACLE_PRESENT);
            }
        }
        rc = worker_items_start(worker, OP_GET, first, WORKER_ITEMS_A_CALL);
        rc = rc < 0 ? rc : worker_ops_poll(worker, WORKER_POLL_NS);
    }
    worker->verifying = false;
    return rc;
}

/* ---- lives --------------------------------------------------------------------------------------------- */

static void cut_add(struct world *world, struct life_plan *plan, enum sim_when when, uint32_t nth)
{
    plan->plans[plan->plan_count++] = (struct sim_plan){
        .effect = SIM_CUT, .when = when, .nth = nth, .seed = live_random(&world->random)};
}

static void error_add(struct world *world, struct life_plan *plan, enum sim_when when, uint32_t nth)
{
    plan->error_when = when;
    plan->plans[plan->plan_count++] =
        (struct sim_plan){.effect = SIM_ERROR,
                          .when = when,
                          .nth = nth,
                          .error = when == SIM_SYNC || below(world, 2) == 0 ? EIO : ENOSPC,
                          .times = 1 + below(world, 4),
                          .seed = live_random(&world->random)};
}

static void plan_choose(struct world *world, struct life_plan *plan)
{
    uint32_t dice = below(world, 100), far = 120 + below(world, 200);
    enum sim_when place = dice % 2 == 0 ? SIM_CHECKPOINT : SIM_WATCHED;

    *plan = (struct life_plan){.steps = 10 + below(world, 110), .may_close = below(world, 8) == 0};
    if (dice < 30) {
        cut_add(world, plan, SIM_ANY, 1 + below(world, 4u << below(world, 7)));
    } else if (dice < 50) {
        plan->early = true;
        cut_add(world, plan, SIM_ANY, 1 + below(world, 14));
    } else if (dice < 72) {
        cut_add(world, plan, place, 1 + below(world, place == SIM_WATCHED ? 8 : 20));
        cut_add(world, plan, SIM_ANY, far);
    } else if (dice < 86) {
        error_add(world, plan, place, 1 + below(world, place == SIM_WATCHED ? 4 : 16));
        cut_add(world, plan, SIM_ANY, far);
    } else if (dice < 94) {
        plan->early = true;
        error_add(world, plan, SIM_ANY, 1 + below(world, 12));
    } else if (dice < 98) {
        error_add(world, plan, SIM_SYNC, 1 + below(world, 24));
        cut_add(world, plan, SIM_ANY, far);
    }
}

static void plan_tell(const struct world *world, const struct life_plan *plan)
{
    printf("life %u: %u steps%s%s\n", world->result->life, plan->steps,
           plan->early ? ", plans from before open" : "", plan->may_close ? ", may close" : "");
    for (uint32_t index = 0; index < plan->plan_count; index++) {
        const struct sim_plan *own = &plan->plans[index];

        printf("    %s at call %llu%s, errno %d, %u times\n",
               own->effect == SIM_CUT ? "cut" : "fault", (unsigned long long)own->nth,
               own->when == SIM_CHECKPOINT ? " of a checkpoint"
               : own->when == SIM_WATCHED  ? " of a compaction"
               : own->when == SIM_SYNC     ? " that is a sync"
                                           : "",
               own->error, own->times);
    }
}

static void plan_set(struct world *world, const struct life_plan *plan)
{
    for (uint32_t index = 0; index < plan->plan_count; index++) {
        sim_disk_plan(&world->disk, plan->plans[index]);
    }
}

/* The cut that ended this life, by what it hit. */
static void cut_count(struct world *world, const struct life_plan *plan, bool in_close)
{
    struct power_counts *counts = &world->result->counts;
    const struct sim_disk *disk = &world->disk;
    const bool has_error = disk->errors > 0;
    const bool of_checkpoint = has_error && plan->error_when == SIM_CHECKPOINT;
    const bool of_compaction = has_error && plan->error_when == SIM_WATCHED;
    const bool of_recovery = has_error && plan->early;

    counts->crashes++;
    counts->in_recovery += world->is_opening;
    counts->twice += world->is_opening && world->last_was_early;
    counts->in_checkpoint += disk->cut_in_checkpoint;
    counts->in_compaction += disk->cut_in_watch;
    counts->in_close += in_close;
    counts->errors_recovery += of_recovery;
    counts->errors_checkpoint += of_checkpoint;
    counts->errors_compaction += of_compaction;
    counts->errors_sync += has_error && plan->error_when == SIM_SYNC;
    counts->compound += world->is_opening || disk->cut_in_checkpoint || disk->cut_in_watch ||
                        of_recovery || of_checkpoint || of_compaction;
    world->last_was_early = world->is_opening;
}

/* Another process, and the power stays on? README, "What it is not": not after a sync that failed, where
 * the page cache cannot be read around. */
static bool may_go_on(const struct world *world)
{
    return world->disk.errors == 0 || !world->disk.no_direct;
}

/* Power off if it is not, and on again: the next open sees what is left. */
static int power_cycle(struct world *world, const struct life_plan *plan, bool in_close)
{
    if (!sim_disk_is_off(&world->disk) && !(plan->may_close && may_go_on(world))) {
        sim_disk_power_cut(&world->disk, live_random(&world->random));
    }
    const bool is_killed = sim_disk_is_off(&world->disk) && !world->is_beyond && may_go_on(world) &&
                           below(world, 8) == 0;
    world->after_kill = is_killed || (!sim_disk_is_off(&world->disk) && world->disk.errors > 0);
    if (is_killed) { /* the next process rests on what this one has not synced */
        sim_disk_process_died(&world->disk);
        world->result->counts.killed++;
    } else if (!sim_disk_is_off(&world->disk)) {
        world->result->counts.clean++;
    } else if (!world->is_beyond) {
        cut_count(world, plan, in_close);
    } else {
        world->result->counts.beyond++;
    }
    if (sim_disk_fds_open(&world->disk) != 0) {
        return worker_wrong(&world->worker, "descriptors are left open");
    }
    sim_disk_power_on(&world->disk);
    return 0;
}

/* An open that failed: because of the cut, of an error that was planned, or (beyond) of damage. */
static int open_failed(struct world *world, int rc, bool *ret_again)
{
    *ret_again = false;
    if (world->part.why[0] != '\0') {
        return -EBADMSG;
    }
    if (nothing_left(world) < 0) {
        return -EBADMSG;
    }
    if (sim_disk_is_off(&world->disk)) {
        return 0;
    }
    if (world->is_beyond && (rc == -ABODE_ECORRUPT || rc == -ABODE_ESTORE)) {
        world->is_noticed = true;
        return 0;
    }
    if (world->disk.errors > 0 && (rc == -EIO || rc == -ENOSPC || rc == -EROFS)) {
        sim_disk_plans_clear(&world->disk); /* the disk is well again: so must be the store */
        if (!may_go_on(world)) {
            sim_disk_power_cut(&world->disk, live_random(&world->random));
            sim_disk_power_on(&world->disk);
        }
        *ret_again = true;
        return 0;
    }
    return worker_wrong(&world->worker, "open: %s", abode_strerror(rc));
}

/* 1: open; 0: it failed as it may */
static int life_begin(struct world *world)
{
    bool again = false;
    int rc = host_open(world);

    if (rc < 0) {
        const int failed = open_failed(world, rc, &again);

        if (failed < 0 || !again) {
            return failed;
        }
        rc = host_open(world);
    }
    return rc < 0 ? worker_wrong(&world->worker, "open: %s", abode_strerror(rc)) : 1;
}

static int life_run(struct world *world, const struct life_plan *plan, bool works)
{
    struct worker *worker = &world->worker;
    bool was_off;
    int rc;

    oracle_compact(worker->oracle, HISTORY);
    worker->oracle->life++;
    world->steps_left = plan->steps;
    if (plan->early) {
        plan_set(world, plan);
    }
    world->is_opening = true;
    rc = life_begin(world);
    if (rc <= 0) {
        return rc < 0 ? rc : power_cycle(world, plan, false);
    }
    world->is_opening = sim_disk_is_off(&world->disk);
    rc = all_verify(world);
    if (rc == 0 && works && !sim_disk_is_off(&world->disk)) {
        if (!plan->early) {
            plan_set(world, plan);
        }
        doing(world, "work");
        rc = worker_work(worker);
    }
    if (!plan->may_close && !sim_disk_is_off(&world->disk)) {
        sim_disk_power_cut(&world->disk, live_random(&world->random));
    }
    was_off = sim_disk_is_off(&world->disk);
    if (worker->part->why[0] == '\0') {
        rc = host_close(world);
    }
    if (worker->part->why[0] != '\0') {
        return -EBADMSG;
    }
    return power_cycle(world, plan, !was_off);
}

/* After the last cut: whole; closed, opened, whole again. */
static int last_lives(struct world *world)
{
    const struct life_plan calm = {.steps = 0, .may_close = true};
    int rc = life_run(world, &calm, false);

    return rc < 0 ? rc : life_run(world, &calm, false);
}

/* The disk says that it has synced what it has not. No promise can hold; no byte may be wrong. */
static int beyond_lives(struct world *world)
{
    const struct life_plan calm = {.steps = 0, .may_close = true};
    struct life_plan plan = {.steps = 60};
    struct sim_plan lie = {.effect = below(world, 2) == 0 ? SIM_LOSE_WRITE : SIM_MISDIRECT,
                           .nth = 1 + below(world, 20),
                           .seed = live_random(&world->random)};
    uint64_t told = world->disk.lost + world->disk.misdirected;
    int rc;

    plan.plans[plan.plan_count++] = lie;
    cut_add(world, &plan, SIM_ANY, 40 + below(world, 60));
    world->is_beyond = true;
    rc = life_run(world, &plan, true);
    if (rc == 0) {
        world->is_noticed = false;
        rc = life_run(world, &calm, false);
        world->result->counts.beyond_detected +=
            world->is_noticed && world->disk.lost + world->disk.misdirected > told;
    }
    return rc;
}

static int lives_run(struct world *world)
{
    int rc = 0;

    for (uint32_t life = 0; life < LIVES && rc == 0; life++) {
        struct life_plan plan;

        world->result->life = life;
        plan_choose(world, &plan);
        if (getenv("ABODE_TEST_LOG") != NULL) {
            plan_tell(world, &plan);
        }
        rc = life_run(world, &plan, true);
    }
    if (rc == 0) {
        world->result->life = LIVES;
        rc = last_lives(world);
    }
    if (rc == 0) {
        world->result->life = LIVES + 2;
        rc = beyond_lives(world);
    }
    return rc;
}

static void work_add(struct worker_counts *sum, const struct worker_counts *more)
{
    uint64_t *to = (uint64_t *)sum;
    const uint64_t *from = (const uint64_t *)more;

    for (size_t index = 0; index < sizeof(*sum) / sizeof(*to); index++) {
        to[index] += from[index];
    }
}

int power_world_run(uint64_t seed, struct power_result *result)
{
    const struct live_tuning tuning = {.is_small = true, .pause_ns = 50000, .gives_up = gives_up};
    struct world *world = calloc(1, sizeof(*world));
    char kept[128];
    int rc;

    if (world == NULL) {
        return 1;
    }
    the_world = world;
    live_tune(&tuning);
    result->seed = seed;
    *world = (struct world){.result = result, .random = seed};
    world->journal_tail_min = (4u << 10) << below(world, 5);
    world->power = (struct worker_power){.excuses = excuses, .is_over = is_over, .context = world};
    world->worker = (struct worker){.power = &world->power,
                                    .name_count = NAMES,
                                    .item_count = ITEMS,
                                    .attached_max = 7,
                                    .part = &world->part,
                                    .plan = &world->plan,
                                    .oracle = &world->part.oracle,
                                    .counts = &world->part.counts,
                                    .random = live_random(&world->random),
                                    .region_base = region_bytes};
    oracle_reset(&world->part.oracle);
    sim_disk_init(&world->disk);
    world->disk.watch = compaction_runs;
    world->disk.watch_context = world;
    world->disk.no_direct = below(world, 3) == 0;
    fault_os_init(&world->fault, &world->disk.os);
    rc = sim_store_mount(&world->disk);
    rc = rc < 0 ? worker_wrong(&world->worker, "mount: %s", abode_strerror(rc)) : lives_run(world);
    if (rc < 0) {
        (void)snprintf(result->why, sizeof(result->why), "%s", world->part.why);
        if (world->part.name_wrong < ORACLE_NAMES) {
            oracle_tell(&world->part.oracle, world->part.name_wrong);
        }
        if (getenv("ABODE_KEEP") != NULL && live_directory_make(kept, sizeof(kept)) == 0 &&
            sim_disk_export(&world->disk, kept) == 0) {
            printf("disk kept: %s\n", kept);
        }
        return 1; /* the process ends: what is open stays so */
    }
    work_add(&result->work, &world->part.counts);
    result->counts.writes_kept += world->disk.image.kept;
    result->counts.writes_dropped += world->disk.image.dropped;
    result->counts.writes_torn += world->disk.image.torn;
    fault_os_free(&world->fault);
    sim_disk_free(&world->disk);
    free(world);
    return 0;
}
