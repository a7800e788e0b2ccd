/*
 * runtime.c - abode_open and abode_close: layers in order, and back.
 */
#include <string.h>
#include <sys/mman.h>

#include "base/num.h"
#include "front/front.h"

static int store_open(struct abode *runtime, const struct abode_config *config)
{
    struct ab_store_config store = {.os = runtime->os,
                                    .log = &runtime->log,
                                    .topology = runtime->topology,
                                    .paths = config->store_paths,
                                    .path_count = config->store_path_count,
                                    .segment_bytes = config->segment_bytes,
                                    .bytes_max = config->store_bytes_max,
                                    .create = (config->flags & ABODE_CREATE) != 0,
                                    .read_only = (config->flags & ABODE_READ_ONLY) != 0,
                                    .journal_tail_min = runtime->journal_tail_min,
                                    .client = {.context = runtime->kv,
                                               .replay = ab_persist_replay,
                                               .recovered = ab_persist_recovered,
                                               .checkpoint = ab_persist_checkpoint}};
    int status = ab_store_open(&store, &runtime->store);
    if (status != 0) {
        runtime->kv->store = NULL; /* replay has set it */
    }
    return status;
}

static int paths_copy(struct abode *runtime)
{
    for (uint32_t i = 0; i < runtime->config.store_path_count; i++) {
        const char *path = runtime->config.store_paths[i];
        size_t size = strlen(path) + 1;
        runtime->paths[i] = runtime->os->alloc(runtime->os, size, 8);
        if (runtime->paths[i] == NULL) {
            return -ENOMEM;
        }
        memcpy(runtime->paths[i], path, size);
    }
    runtime->config.store_paths = (const char *const *)runtime->paths;
    return 0;
}

/* A page that a child of fork() sees zeroed: by it each call knows, for one load, that it is in one. */
static int home_open(struct abode *runtime)
{
    const struct ab_os *os = runtime->os;
    void *page = NULL;
    int status =
        os->mmap(os, AB_PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0, &page);
    if (status != 0) {
        return status;
    }
    *(uint32_t *)page = 1;
    runtime->poison.home = page;
    status = os->madvise(os, page, AB_PAGE, MADV_WIPEONFORK);
    if (status != 0) {
        ab_log(&runtime->log, AB_LOG_WARNING,
               "a child of fork() that uses this runtime will not be refused (MADV_WIPEONFORK: %s)",
               abode_strerror(status));
    }
    return 0;
}

static void runtime_free(struct abode *runtime)
{
    if (runtime->poison.home != NULL) {
        (void)runtime->os->munmap(runtime->os, (void *)(uintptr_t)runtime->poison.home, AB_PAGE);
    }
    for (uint32_t i = 0; i < AB_STORE_DEVICES_MAX; i++) {
        runtime->os->free(runtime->os, runtime->paths[i]);
    }
    ab_cond_destroy(&runtime->turn_over);
    ab_lock_destroy(&runtime->lock);
    runtime->os->free(runtime->os, runtime);
}

void ab_turn_take(struct abode *runtime)
{
    ab_lock_take(&runtime->lock);
    while (runtime->in_turn) {
        (void)ab_cond_wait(&runtime->turn_over, &runtime->lock, 0);
    }
    runtime->in_turn = true;
    ab_lock_drop(&runtime->lock);
}

void ab_turn_give(struct abode *runtime)
{
    ab_lock_take(&runtime->lock);
    runtime->in_turn = false;
    ab_cond_signal(&runtime->turn_over);
    ab_lock_drop(&runtime->lock);
}

static int kv_open(struct abode *runtime)
{
    struct ab_kv_config kv = {.os = runtime->os,
                              .log = &runtime->log,
                              .topology = runtime->topology,
                              .poison = &runtime->poison,
                              .config = &runtime->config,
                              .block_max = runtime->config.block_count_max};
    return ab_kv_open(&kv, &runtime->kv);
}

static int layers_open(struct abode *runtime)
{
    const struct abode_config *config = &runtime->config;
    int status = ab_topology_open(runtime->os, &runtime->log, config->topology, &runtime->topology);
    if (status == 0) {
        status = ab_config_fit(runtime->topology, &runtime->log, &runtime->config);
    }
    if (status == 0) {
        status = kv_open(runtime);
    }
    if (status == 0 && config->store_path_count > 0) {
        status = store_open(runtime, config);
    }
    if (status == 0 && (config->flags & ABODE_READ_ONLY) == 0) {
        status = ab_transfer_open(runtime->kv, config);
    }
    return status;
}

/* The store first: its committer calls back into kv. Services end before, so that nothing new comes. */
static void layers_close(struct abode *runtime)
{
    if (runtime->kv != NULL) {
        ab_models_close(runtime->kv); /* rings forget the frames */
        if (runtime->kv->transfer != NULL) {
            ab_transfer_close(runtime->kv->transfer);
        }
    }
    ab_store_close(runtime->store);
    ab_kv_close(runtime->kv);
    ab_topology_close(runtime->topology);
}

int ab_open_with_tail(const struct abode_config *config, const struct ab_os *os,
                      uint64_t journal_tail_min, struct abode **ret)
{
    if (ret == NULL) {
        return -EINVAL;
    }
    struct abode *runtime = os->alloc(os, sizeof(*runtime), 64);
    if (runtime == NULL) {
        return -ENOMEM;
    }
    ab_os_patient_init(&runtime->patient, os);
    runtime->os = &runtime->patient.os;
    runtime->journal_tail_min = journal_tail_min;
    int status = ab_config_take(config, &runtime->config);
    if (status != 0) {
        os->free(os, runtime);
        return status;
    }
    runtime->log = (struct ab_log){runtime->config.log, runtime->config.log_context};
    status = ab_lock_init(&runtime->lock, AB_RANK_RUNTIME, "runtime");
    if (status != 0) {
        os->free(os, runtime);
        return status;
    }
    status = ab_cond_init(&runtime->turn_over);
    if (status != 0) {
        ab_lock_destroy(&runtime->lock);
        os->free(os, runtime);
        return status;
    }
    struct ab_poison *before = ab_poison_enter(&runtime->poison);
    status = home_open(runtime);
    if (status == 0) {
        status = paths_copy(runtime);
    }
    if (status == 0) {
        status = layers_open(runtime);
    }
    if (status == 0 && ab_poisoned(&runtime->poison)) {
        status = -ENOTRECOVERABLE;
    }
    if (status != 0) {
        layers_close(runtime);
    }
    (void)ab_poison_enter(before);
    if (status != 0) {
        runtime_free(runtime);
        return status;
    }
    *ret = runtime;
    return 0;
}

int ab_open_with_os(const struct abode_config *config, const struct ab_os *os, struct abode **ret)
{
    return ab_open_with_tail(config, os, 0, ret);
}

int abode_open(const struct abode_config *config, struct abode **ret)
{
    return ab_open_with_os(config, ab_os_default(), ret);
}

#define CLOSE_WAIT_NS \
    (10ll * 1000 * 1000 * 1000) /* own spills end in milliseconds; a dead disk not */

static bool has_work(struct ab_kv *kv)
{
    ab_lock_take(&kv->lock);
    bool busy = kv->transfer != NULL &&
                (!ab_list_is_empty(&kv->transfer->active) || kv->transfer->in_flight > 0);
    /* from the first look on: memory that stays short would have one spill follow another for ever,
     * and no op of a host waits for them any more */
    kv->closing = true;
    ab_lock_drop(&kv->lock);
    return busy;
}

int abode_close(struct abode *runtime)
{
    struct ab_poison *before;
    if (runtime == NULL) {
        return -EINVAL;
    }
    if (ab_forked(&runtime->poison)) {
        return -ENOTRECOVERABLE;
    }
    ab_lock_take(&runtime->kv->lock);
    bool queues = runtime->kv->queue_count > 0;
    ab_lock_drop(&runtime->kv->lock);
    if (queues) {
        return -EBUSY;
    }
    before = ab_poison_enter(&runtime->poison);
    uint64_t end = runtime->os->clock_ns(runtime->os) + CLOSE_WAIT_NS;
    while (has_work(runtime->kv) && !ab_poisoned(&runtime->poison)) {
        if (runtime->os->clock_ns(runtime->os) > end) {
            (void)ab_poison_enter(before);
            ab_lock_take(&runtime->kv->lock);
            runtime->kv->closing = false;
            ab_lock_drop(&runtime->kv->lock);
            return -EBUSY; /* a device does not answer: ask again, nothing is lost */
        }
        (void)runtime->os->poll(runtime->os, -1, 0, 1000 * 1000);
    }
    layers_close(runtime);
    (void)ab_poison_enter(before);
    runtime_free(runtime);
    return 0;
}
