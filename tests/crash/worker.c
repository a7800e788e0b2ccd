/*
 * worker.c - see worker.h. Open, compare all that the store has with what it may have, go to work.
 */
#include "crash/worker.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "crash/steps.h"
#include "front/front.h"

#define SEGMENT_BYTES (2u << 20)
#define ATTACHED_MAX 7u
#define MANY_NAMES 3u /* of each thread of many: together about what one alone has */
#define MANY_ITEMS 8u

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
    worker_name_key(worker, index, &key);
    rc = abode_session_find(worker->host.runtime, &key, &name->session);
    if (rc == -ENOENT) {
        worker->counts->sessions_gone++;
        oracle_note(worker->oracle, index, "not found; possible:%.30s", possible);
        if (!oracle_may_be_gone(known)) {
            worker->part->name_wrong = index;
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
        worker->part->name_wrong = index;
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
    for (uint32_t index = 0; index < worker->name_count && rc == 0; index++) {
        rc = name_verify(worker, index);
    }
    for (uint32_t first = 0; first < worker->item_count && rc == 0; first += WORKER_ITEMS_A_CALL) {
        rc = worker_items_start(worker, OP_GET, first, WORKER_ITEMS_A_CALL);
        rc = rc < 0 ? rc : worker_ops_poll(worker, WORKER_POLL_NS);
    }
    worker->verifying = false;
    return rc < 0 ? rc : worker_stats_check(worker);
}

/* ---- the crew: the threads of one host, each with names, items, queue and region of its own ------ */

struct crew {
    const struct worker_plan *plan;
    struct worker_shared *shared;
    struct ab_os clock;
    struct fault_os fault;
    uint32_t count;
    struct worker workers[WORKER_THREADS_MAX];
};

static int region_open(struct worker *worker)
{
    struct abode_region region = {.struct_size = sizeof(region),
                                  .node = -1,
                                  .base = worker->region_base,
                                  .bytes = (uint64_t)WORKER_ITEMS_A_CALL * LIVE_BYTES_MAX};
    int rc = abode_region_add(worker->host.runtime, &region, &worker->region);

    return rc < 0 ? worker_wrong(worker, "region: %s", abode_strerror(rc)) : 0;
}

static int crew_open(struct crew *crew)
{
    const char *paths[] = {crew->plan->path};
    struct worker *first = &crew->workers[0];
    struct abode_config config;
    struct abode *runtime = NULL;
    int rc;

    abode_config_init(&config);
    config.log = live_log;
    config.flags = ABODE_CREATE;
    config.memory_bytes_max = crew->plan->memory_bytes;
    config.store_bytes_max = crew->plan->store_bytes;
    config.segment_bytes = SEGMENT_BYTES;
    config.store_paths = paths;
    config.store_path_count = 1;
    config.session_count_max = 256;
    config.io = crew->plan->engine;
    config.huge = ABODE_HUGE_NONE;
    rc = ab_open_with_os(&config, &crew->fault.os, &runtime);
    if (rc < 0) {
        return worker_wrong(first, "abode_open: %s", abode_strerror(rc));
    }
    rc = live_host_open(runtime, 0, &first->host);
    if (rc < 0) {
        return worker_wrong(first, "model and queue: %s", abode_strerror(rc));
    }
    rc = region_open(first);
    for (uint32_t index = 1; index < crew->count && rc == 0; index++) {
        struct worker *worker = &crew->workers[index];

        worker->host = first->host;
        rc = abode_queue_open(runtime, 64, &worker->host.queue);
        rc = rc < 0 ? worker_wrong(worker, "queue: %s", abode_strerror(rc)) : region_open(worker);
    }
    return rc;
}

static int crew_close(struct crew *crew)
{
    struct worker *first = &crew->workers[0];
    int rc = 0;

    for (uint32_t index = crew->count; index-- > 0 && rc == 0;) {
        struct worker *worker = &crew->workers[index];

        rc = abode_region_remove(worker->host.runtime, worker->region);
        if (rc == 0) {
            rc = index > 0 ? abode_queue_close(worker->host.queue) : live_host_close(&worker->host);
        }
        memset(worker->names, 0, sizeof(worker->names));
        memset(&worker->stats_last, 0, sizeof(worker->stats_last));
    }
    return rc < 0 ? worker_wrong(first, "close: %s", abode_strerror(rc)) : 0;
}

static void *verify_run(void *argument)
{
    if (verify(argument) < 0) {
        _exit(1); /* why is said */
    }
    return NULL;
}

static void *work_run(void *argument)
{
    (void)worker_work(argument);
    _exit(1);
}

/* One thread for each worker but the first, which is this one. Ends the process on failure. */
static void crew_run(struct crew *crew, void *(*run)(void *))
{
    pthread_t threads[WORKER_THREADS_MAX];

    for (uint32_t index = 1; index < crew->count; index++) {
        if (pthread_create(&threads[index], NULL, run, &crew->workers[index]) != 0) {
            (void)worker_wrong(&crew->workers[index], "no thread");
            _exit(1);
        }
    }
    (void)run(&crew->workers[0]);
    for (uint32_t index = 1; index < crew->count; index++) {
        (void)pthread_join(threads[index], NULL);
    }
}

/* No kill any more: whole, scrubbed, closed, opened, whole. */
static int last_words(struct crew *crew)
{
    struct worker *worker = &crew->workers[0];
    struct abode_verify_report scrub = {.struct_size = sizeof(scrub)};
    int rc = abode_verify(worker->host.runtime, NULL, NULL, NULL, &scrub);

    if (rc < 0 || scrub.blocks_bad != 0) {
        return worker_wrong(worker, "abode_verify: %s, %llu of %llu blocks are bad",
                            abode_strerror(rc), (unsigned long long)scrub.blocks_bad,
                            (unsigned long long)scrub.blocks_checked);
    }
    rc = crew_close(crew);
    rc = rc < 0 ? rc : crew_open(crew);
    if (rc == 0) {
        crew_run(crew, verify_run);
    }
    return rc < 0 ? rc : crew_close(crew);
}

static int crew_live(struct crew *crew)
{
    const struct worker_plan *plan = crew->plan;
    int rc = crew_open(crew);

    if (rc == 0) {
        crew_run(crew, verify_run);
    }
    if (rc < 0 || plan->last) {
        return rc < 0 ? rc : last_words(crew);
    }
    if (plan->strike && !plan->early) {
        fault_os_plan(&crew->fault, plan->fault);
    }
    atomic_store(&crew->shared->phase, WORKER_WORKING);
    crew_run(crew, work_run);
    return -EPROTO; /* work has no end */
}

static void crew_init(struct crew *crew, struct worker_shared *shared,
                      const struct worker_plan *plan)
{
    static _Alignas(
        4096) unsigned char regions[WORKER_THREADS_MAX][WORKER_ITEMS_A_CALL * LIVE_BYTES_MAX];
    bool is_many = plan->threads > 1;

    crew->plan = plan;
    crew->shared = shared;
    crew->count = is_many ? plan->threads : 1;
    clock_jump_os(&shared->clock, &crew->clock);
    fault_os_init(&crew->fault, plan->jumpy ? &crew->clock : plan->os);
    for (uint32_t index = 0; index < crew->count; index++) {
        struct worker_part *part = &shared->parts[index];

        crew->workers[index] = (struct worker){.part = part,
                                               .plan = plan,
                                               .shared = shared,
                                               .oracle = &part->oracle,
                                               .counts = &part->counts,
                                               .random = plan->seed + index,
                                               .number = index,
                                               .name_count = is_many ? MANY_NAMES : ORACLE_NAMES,
                                               .item_count = is_many ? MANY_ITEMS : ORACLE_ITEMS,
                                               .attached_max = is_many ? 2 : ATTACHED_MAX,
                                               .region_base = regions[index]};
        part->why[0] = '\0';
        part->oracle.life++;
        part->name_wrong = ORACLE_NAMES;
    }
}

void worker_reset(struct worker_shared *shared)
{
    for (uint32_t index = 0; index < WORKER_THREADS_MAX; index++) {
        oracle_reset(&shared->parts[index].oracle);
    }
}

int worker_run(struct worker_shared *shared, const struct worker_plan *plan)
{
    static struct crew crew; /* too large for a stack */
    int rc;

    crew_init(&crew, shared, plan);
    if (plan->strike && plan->early) {
        fault_os_plan(&crew.fault, plan->fault);
    }
    atomic_store(&shared->phase, WORKER_STARTED);
    rc = crew_live(&crew);
    if (rc == 0 && fault_os_allocations(&crew.fault) != 0) {
        rc = worker_wrong(&crew.workers[0], "%lld allocations are left after close",
                          (long long)fault_os_allocations(&crew.fault));
    }
    fault_os_free(&crew.fault);
    return rc < 0;
}
