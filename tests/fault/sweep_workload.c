/*
 * sweep_workload.c - see sweep_workload.h. The workloads are straight scripts.
 */
#include "fault/sweep_steps.h"

#include <string.h>

#define AMPLE_MEMORY_BYTES (12u << 20)
#define MEMORY_BYTES (4u << 20)
#define STORE_BYTES (8u << 20)
#define CROWD_MEMORY_BYTES (3u << 20) /* about four sessions of the script */
#define CROWD_TOKENS 200u

enum { KEPT = 0, SPILLED, FORKED, DELETED, IN_MEMORY }; /* the names, by what happens to them */
enum { CROWD = 5, CROWD_END = SWEEP_NAMES };

/* ---- scripts ------------------------------------------------------------------------------------- */

/* A session of two restore points, its prefix in a fork, items: the state that others begin with. */
static void populate(struct sweep *sweep)
{
    sweep_create(sweep, KEPT, ABODE_DURABLE);
    sweep_turn(sweep, KEPT, 40);
    sweep_turn(sweep, KEPT, 30);
    sweep_fork(sweep, KEPT, FORKED);
    sweep_turn(sweep, FORKED, 20);
    sweep_detach(sweep, FORKED, ABODE_DETACH_SPILL_NOW);
    sweep_detach(sweep, KEPT, 0);
    sweep_put(sweep);
}

static void opening(struct sweep *sweep)
{
    for (uint32_t name = KEPT; name <= DELETED; name++) {
        sweep_verify(sweep, name);
    }
    sweep_get(sweep);
    sweep_create(sweep, KEPT, ABODE_DURABLE);
    sweep_turn(sweep, KEPT, 25);
    sweep_detach(sweep, KEPT, 0);
    sweep_delete(sweep, FORKED);
}

static void sessions(struct sweep *sweep)
{
    static const char note[] = "the host's own words";

    sweep_create(sweep, KEPT, ABODE_DURABLE);
    sweep_turn(sweep, KEPT, 40);
    if (sweep->actors[KEPT].exists) {
        (void)SWEEP_STEP(sweep, "note",
                         abode_session_note_set(sweep->host.runtime, sweep->actors[KEPT].session,
                                                note, sizeof(note)));
    }
    sweep_detach(sweep, KEPT, ABODE_DETACH_KEEP);
    sweep_turn(sweep, KEPT, 30);
    sweep_detach(sweep, KEPT, ABODE_DETACH_SPILL_NOW);
    sweep_create(sweep, SPILLED, ABODE_WRITTEN);
    sweep_turn(sweep, SPILLED, 100);
    sweep_detach(sweep, SPILLED, ABODE_DETACH_SPILL_NOW);
    sweep_attach(sweep, SPILLED);
    sweep_create(sweep, DELETED, ABODE_WRITTEN);
    sweep_turn(sweep, DELETED, 17);
    sweep_detach(sweep, DELETED, 0);
    sweep_create(sweep, IN_MEMORY, ABODE_MEM);
    sweep_turn(sweep, IN_MEMORY, 33);
    sweep_detach(sweep, IN_MEMORY, 0);
    sweep_delete(sweep, DELETED);
    sweep_attach(sweep, KEPT);
    sweep_turn(sweep, KEPT, 10);
    sweep_detach(sweep, KEPT, 0);
    sweep_detach(sweep, SPILLED, 0);
}

static void branches(struct sweep *sweep)
{
    struct live_state older;

    sweep_create(sweep, KEPT, ABODE_DURABLE);
    sweep_turn(sweep, KEPT, 40);
    older = sweep->actors[KEPT].state;
    sweep_turn(sweep, KEPT, 30);
    sweep_detach(sweep, KEPT, ABODE_DETACH_KEEP);
    sweep_fork(sweep, KEPT, FORKED);
    sweep_turn(sweep, FORKED, 20);
    sweep_detach(sweep, FORKED, ABODE_DETACH_SPILL_NOW);
    sweep_cut(sweep, KEPT, &older);
    sweep_turn(sweep, KEPT, 7);
    sweep_detach(sweep, KEPT, ABODE_DETACH_SPILL_NOW);
    sweep_attach(sweep, FORKED);
    sweep_attach(sweep, KEPT);
    sweep_fork(sweep, KEPT, DELETED);
    sweep_delete(sweep, DELETED);
    sweep_detach(sweep, FORKED, 0);
    sweep_detach(sweep, KEPT, 0);
}

static void cache(struct sweep *sweep)
{
    sweep_put(sweep);
    sweep_get(sweep);
    sweep_item_delete(sweep, 1);
    sweep_get(sweep);
    sweep_put(sweep);
    sweep_item_delete(sweep, 2);
    sweep_get(sweep);
}

/* Seven sessions where memory has room for four, half of them promised nothing; then others in
 * place of those that are deleted, in a store that has to be tidied up for them. */
static void crowd(struct sweep *sweep)
{
    for (uint32_t round = 0; round < 2; round++) {
        for (uint32_t name = CROWD; name < CROWD_END; name++) {
            sweep_create(sweep, name, name % 2 == 0 ? ABODE_WRITTEN : ABODE_MEM);
            sweep_turn(sweep, name, CROWD_TOKENS);
            sweep_detach(sweep, name, 0);
        }
        for (uint32_t name = CROWD; name < CROWD_END; name += 3) {
            sweep_attach(sweep, name);
            sweep_detach(sweep, name, 0);
        }
        for (uint32_t name = CROWD; name < CROWD_END && round == 0; name += 2) {
            sweep_delete(sweep, name);
        }
    }
}

static void reports(struct sweep *sweep)
{
    sweep_reports(sweep);
    (void)SWEEP_STEP(sweep, "flush", abode_flush(sweep->host.runtime, SWEEP_FLUSH_NS));
    sweep_attach(sweep, FORKED);
    sweep_reports(sweep);
}

/* ---- workloads ------------------------------------------------------------------------------------- */

static const struct workload {
    const char *name;
    void (*before)(struct sweep *sweep); /* not watched; NULL: nothing */
    void (*watched)(struct sweep *sweep);
    bool in_new_life; /* with the open before it watched, too */
    uint64_t memory_bytes;
} workloads[SWEEP_WORKLOADS] = {
    [SWEEP_OPENING] = {"opening", populate, opening, true, MEMORY_BYTES},
    [SWEEP_SESSIONS] = {"sessions", NULL, sessions, false, MEMORY_BYTES},
    [SWEEP_BRANCHES] = {"branches", NULL, branches, false, MEMORY_BYTES},
    [SWEEP_CACHE] = {"cache", NULL, cache, false, MEMORY_BYTES},
    [SWEEP_CROWD] = {"crowd", NULL, crowd, false, CROWD_MEMORY_BYTES},
    [SWEEP_REPORTS] = {"reports", populate, reports, false, MEMORY_BYTES},
};

const char *sweep_workload_name(enum sweep_workload workload)
{
    return workloads[workload].name;
}

static void watch_begin(struct sweep *sweep)
{
    for (uint32_t call = 0; call < AB_OS_CALL_COUNT; call++) {
        sweep->result->counts[call] = fault_os_count(&sweep->fault, (enum ab_os_call)call);
    }
    if (sweep->plan->strike) {
        fault_os_plan(&sweep->fault, sweep->plan->fault);
    }
    sweep->nothing_fails = false;
}

static void watch_end(struct sweep *sweep)
{
    struct sweep_result *result = sweep->result;

    result->strikes = fault_os_strikes(&sweep->fault);
    for (uint32_t call = 0; call < AB_OS_CALL_COUNT; call++) {
        const uint64_t before = result->counts[call];
        result->counts[call] = fault_os_count(&sweep->fault, (enum ab_os_call)call) - before;
    }
    fault_os_clear(&sweep->fault);
    sweep->nothing_fails = true;
}

static void lives_watched(struct sweep *sweep, const struct workload *workload)
{
    sweep->memory_bytes = workload->memory_bytes;
    sweep->result->life++;
    bool is_open = sweep_open(sweep);
    if (is_open && workload->before != NULL) {
        workload->before(sweep);
    }
    if (is_open && workload->in_new_life) {
        sweep_close(sweep);
        sweep->result->life++;
        watch_begin(sweep);
        is_open = sweep_open(sweep);
    } else {
        watch_begin(sweep);
    }
    if (is_open) {
        workload->watched(sweep);
        sweep_close(sweep);
    }
    watch_end(sweep);
}

/* What is there is right, and one can go on with it. */
static void life_last(struct sweep *sweep)
{
    sweep->memory_bytes = AMPLE_MEMORY_BYTES;
    sweep->result->life++;
    if (!sweep_open(sweep)) {
        return;
    }
    for (uint32_t name = 0; name < SWEEP_NAMES; name++) {
        sweep_verify(sweep, name);
    }
    sweep_get(sweep);
    sweep_create(sweep, SPILLED, ABODE_DURABLE);
    sweep_turn(sweep, SPILLED, 3);
    for (uint32_t name = 0; name < SWEEP_NAMES; name++) {
        sweep_detach(sweep, name, 0);
    }
    sweep_put(sweep);
    sweep_reports(sweep);
    sweep_close(sweep);
}

int sweep_run(const struct sweep_plan *plan, struct sweep_result *ret)
{
    static struct sweep sweep; /* too large for a stack */
    /* what says -EAGAIN for good, since all fails, shall not cost two seconds each time */
    static const struct live_tuning tuning = {.pause_ns = 100000};

    live_tune(&tuning);
    if (!plan->only_verify) {
        memset(ret, 0, sizeof(*ret));
        oracle_reset(&ret->oracle);
    }
    sweep = (struct sweep){.plan = plan,
                           .result = ret,
                           .oracle = &ret->oracle,
                           .store_bytes = STORE_BYTES,
                           .nothing_fails = true,
                           .fds_before = sweep_descriptors()};
    fault_os_init(&sweep.fault, NULL);
    if (!plan->only_verify) {
        lives_watched(&sweep, &workloads[plan->workload]);
    }
    life_last(&sweep);
    fault_os_free(&sweep.fault);
    return ret->why[0] != '\0';
}
