/*
 * worker.c - see worker.h. Open, compare all that the store has with what it may have, go to work.
 */
#include "crash/worker.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "crash/steps.h"
#include "front/front.h"

#define SEGMENT_BYTES (2u << 20)

static void versions_tell(const struct oracle_name *known, char *text, size_t size)
{
    size_t used = 0;

    for (uint32_t version = atomic_load(&known->first); version < atomic_load(&known->count);
         version++) {
        const struct oracle_version *candidate = &known->versions[version];
        int count = candidate->gone
                        ? snprintf(text + used, size - used, " gone")
                        : snprintf(text + used, size - used, " %u", candidate->state.token_count);

        if (count < 0 || used + (size_t)count >= size) {
            return;
        }
        used += (size_t)count;
    }
}

static int name_verify(struct worker *worker, uint32_t index)
{
    struct worker_name *name = &worker->names[index];
    struct oracle_name *known = &worker->oracle->names[index];
    struct abode_session_info info = {.struct_size = sizeof(info)};
    const struct oracle_version *version;
    struct oracle_version gone = {.gone = true};
    char why[LIVE_WHY_MAX], possible[160] = "";
    struct abode_key key;
    int rc;

    versions_tell(known, possible, sizeof(possible));
    worker_name_key(index, &key);
    rc = abode_session_find(worker->host.runtime, &key, &name->session);
    if (rc == -ENOENT) {
        worker->counts->sessions_gone++;
        oracle_note(worker->oracle, index, "not found; possible:%.30s", possible);
        if (!oracle_may_be_gone(known)) {
            worker->shared->name_wrong = index;
            return worker_wrong(worker, "name %u is lost; possible:%s", index, possible);
        }
        oracle_settle(known, &gone);
        return 0;
    }
    rc = rc < 0 ? rc : live_attach(&worker->host, name->session, -1, 0);
    rc = rc < 0 ? rc : abode_session_stat(worker->host.runtime, name->session, &info);
    if (rc < 0) {
        return worker_wrong(worker, "name %u is there but: %s; possible:%s", index,
                            abode_strerror(rc), possible);
    }
    version = worker_version_find(worker, index, info.token_count, atomic_load(&known->first), why);
    oracle_note(worker->oracle, index, "found %llx with %llu tokens",
                (unsigned long long)name->session.raw, (unsigned long long)info.token_count);
    if (version == NULL) {
        worker->shared->name_wrong = index;
        return worker_wrong(worker, "name %u: %s; possible:%s", index, why, possible);
    }
    worker->counts->sessions_verified++;
    name->exists = true;
    name->state = version->state;
    oracle_settle(known, version);
    rc = live_detach(&worker->host, name->session, 0);
    return rc < 0 ? worker_wrong(worker, "detach after recovery: %s", abode_strerror(rc)) : 0;
}

static int verify(struct worker *worker)
{
    int rc = 0;

    worker->verifying = true;
    for (uint32_t index = 0; index < ORACLE_NAMES && rc == 0; index++) {
        rc = name_verify(worker, index);
    }
    for (uint32_t first = 0; first < ORACLE_ITEMS && rc == 0; first += WORKER_ITEMS_A_CALL) {
        rc = worker_items_start(worker, OP_GET, first, WORKER_ITEMS_A_CALL);
        rc = rc < 0 ? rc : worker_ops_poll(worker, WORKER_POLL_NS);
    }
    worker->verifying = false;
    return rc < 0 ? rc : worker_stats_check(worker);
}

static int worker_open(struct worker *worker, const struct worker_plan *plan)
{
    const char *paths[] = {plan->path};
    struct abode_config config;
    struct abode_region region = {.struct_size = sizeof(region), .node = -1};
    struct abode *runtime = NULL;
    int rc;

    abode_config_init(&config);
    config.log = live_log;
    config.flags = ABODE_CREATE;
    config.memory_bytes_max = plan->memory_bytes;
    config.store_bytes_max = plan->store_bytes;
    config.segment_bytes = SEGMENT_BYTES;
    config.store_paths = paths;
    config.store_path_count = 1;
    config.session_count_max = 256;
    config.io = plan->engine;
    config.huge = ABODE_HUGE_NONE;
    rc = ab_open_with_os(&config, &worker->fault.os, &runtime);
    if (rc < 0) {
        return worker_wrong(worker, "abode_open: %s", abode_strerror(rc));
    }
    rc = live_host_open(runtime, 0, &worker->host);
    if (rc < 0) {
        return worker_wrong(worker, "model and queue: %s", abode_strerror(rc));
    }
    region.base = worker->region_base;
    region.bytes = (uint64_t)WORKER_ITEMS_A_CALL * LIVE_BYTES_MAX;
    rc = abode_region_add(runtime, &region, &worker->region);
    return rc < 0 ? worker_wrong(worker, "region: %s", abode_strerror(rc)) : 0;
}

static int worker_close(struct worker *worker)
{
    int rc = abode_region_remove(worker->host.runtime, worker->region);

    rc = rc < 0 ? rc : live_host_close(&worker->host);
    memset(worker->names, 0, sizeof(worker->names));
    memset(&worker->stats_last, 0, sizeof(worker->stats_last));
    return rc < 0 ? worker_wrong(worker, "close: %s", abode_strerror(rc)) : 0;
}

/* No kill any more: whole, scrubbed, closed, opened, whole. */
static int last_words(struct worker *worker, const struct worker_plan *plan)
{
    struct abode_verify_report scrub = {.struct_size = sizeof(scrub)};
    int rc = abode_verify(worker->host.runtime, NULL, NULL, NULL, &scrub);

    if (rc < 0 || scrub.blocks_bad != 0) {
        return worker_wrong(worker, "abode_verify: %s, %llu of %llu blocks are bad",
                            abode_strerror(rc), (unsigned long long)scrub.blocks_bad,
                            (unsigned long long)scrub.blocks_checked);
    }
    rc = worker_close(worker);
    rc = rc < 0 ? rc : worker_open(worker, plan);
    rc = rc < 0 ? rc : verify(worker);
    return rc < 0 ? rc : worker_close(worker);
}

static int worker_live(struct worker *worker, const struct worker_plan *plan)
{
    int rc = worker_open(worker, plan);

    rc = rc < 0 ? rc : verify(worker);
    if (rc < 0 || plan->last) {
        return rc < 0 ? rc : last_words(worker, plan);
    }
    if (plan->strike && !plan->early) {
        fault_os_plan(&worker->fault, plan->fault);
    }
    atomic_store(&worker->shared->phase, WORKER_WORKING);
    return worker_work(worker);
}

int worker_run(struct worker_shared *shared, const struct worker_plan *plan)
{
    static _Alignas(4096) unsigned char region[WORKER_ITEMS_A_CALL * LIVE_BYTES_MAX];
    static struct worker worker; /* too large for a stack */
    int rc;

    worker = (struct worker){.shared = shared,
                             .oracle = &shared->oracle,
                             .counts = &shared->counts,
                             .names_max = ORACLE_NAMES,
                             .items_max = ORACLE_ITEMS,
                             .random = plan->seed,
                             .region_base = region};
    shared->why[0] = '\0';
    fault_os_init(&worker.fault, NULL);
    if (plan->strike && plan->early) {
        fault_os_plan(&worker.fault, plan->fault);
    }
    shared->oracle.life++;
    shared->name_wrong = ORACLE_NAMES;
    atomic_store(&shared->phase, WORKER_STARTED);
    rc = worker_live(&worker, plan);
    if (rc == 0 && fault_os_allocations(&worker.fault) != 0) {
        rc = worker_wrong(&worker, "%lld allocations are left after close",
                          (long long)fault_os_allocations(&worker.fault));
    }
    fault_os_free(&worker.fault);
    return rc < 0;
}
