/*
 * rival_abode.c - the cache face, through the public header only: puts that promise DURABLE, gets
 * straight into the host's region, one thread with RIVAL_THREADS ops in flight.
 *
 * The runtime has memory for a sixteenth of the objects only, and is opened anew before the gets.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "abode/abode.h"
#include "rivals.h"

#define STORE_SPARE_BYTES ((uint64_t)512 << 20) /* headers, journal, segments half filled */
#define MEMORY_BYTES_MIN ((uint64_t)64 << 20)

struct host {
    struct abode *runtime;
    struct abode_queue *queue;
    uint32_t model, region;
    struct abode_item *items; /* all objects, in the order of the job */
    struct abode_op ops[RIVAL_THREADS];
};

static void host_log(void *context, int level, const char *line)
{
    (void)context;
    if (level <= ABODE_LOG_WARNING) {
        bench_say("abode: %s", line);
    }
}

static int runtime_open(const struct rival_job *job, struct abode **ret)
{
    struct abode_config config;
    abode_config_init(&config);
    const char *const paths[] = {job->dir};
    const uint64_t memory = rival_bytes(job) / 16;
    config.flags = ABODE_CREATE;
    config.memory_bytes_max = memory < MEMORY_BYTES_MIN ? MEMORY_BYTES_MIN : memory;
    config.store_bytes_max = rival_bytes(job) * 5 / 4 + STORE_SPARE_BYTES;
    config.store_paths = paths;
    config.store_path_count = 1;
    config.log = host_log;
    return abode_open(&config, ret);
}

static int model_add(struct abode *runtime, const struct rival_job *job, uint32_t *ret_model)
{
    const struct abode_component component = {.kind = ABODE_BYTES, .bytes_max = job->object_bytes};
    const struct abode_model_desc model = {.struct_size = sizeof(model),
                                           .component_count = 1,
                                           .components = &component,
                                           .block_tokens = 16,
                                           .tag = "bench_rivals"};
    return abode_model_add(runtime, &model, ret_model);
}

static int host_close(struct host *host, int code)
{
    free(host->items);
    if (host->queue != NULL) {
        const int closed = abode_queue_close(host->queue);
        code = code < 0 ? code : closed;
    }
    const int closed = abode_close(host->runtime);
    return code < 0 ? code : closed;
}

/* The region is what the host's bytes lie in: source for puts, target for gets. */
static int host_open(const struct rival_job *job, void *base, struct host *ret)
{
    struct host host = {0};
    int code = runtime_open(job, &host.runtime);
    if (code < 0) {
        return code;
    }
    const struct abode_region region = {.struct_size = sizeof(region),
                                        .memory = ABODE_HOST,
                                        .node = -1,
                                        .base = base,
                                        .bytes = rival_bytes(job)};
    host.items = calloc(job->object_count, sizeof(host.items[0]));
    code = host.items == NULL ? -ENOMEM : model_add(host.runtime, job, &host.model);
    code = code < 0 ? code : abode_region_add(host.runtime, &region, &host.region);
    code = code < 0 ? code : abode_queue_open(host.runtime, RIVAL_THREADS, &host.queue);
    if (code < 0) {
        return host_close(&host, code);
    }
    *ret = host;
    return 0;
}

static void items_fill(struct host *host, const struct rival_job *job, bool ordered)
{
    for (uint32_t i = 0; i < job->object_count; i++) {
        const uint32_t object = ordered ? job->order[i] : i;
        struct abode_item *item = &host->items[i];
        memcpy(item->key.bytes, rival_key(job, object), sizeof(item->key.bytes));
        item->offset = object * job->object_bytes;
        item->bytes = job->object_bytes;
        item->region = host->region;
    }
}

static int batch_start(struct host *host, const struct rival_job *job, bool is_put, uint32_t first,
                       struct abode_op *op)
{
    const uint32_t left = job->object_count - first;
    const uint32_t count = left < job->batch_count ? left : job->batch_count;
    memset(op, 0, sizeof(*op));
    if (is_put) {
        return abode_cache_put(host->queue, host->model, host->items + first, count, ABODE_DURABLE,
                               op);
    }
    return abode_cache_get(host->queue, host->model, host->items + first, count, op);
}

/* Takes finished ops back; 0, or the first of them that failed. */
static int batches_finish(struct host *host, struct abode_op **idle, uint32_t *idle_count)
{
    struct abode_op *done[RIVAL_THREADS];
    const int count = abode_poll(host->queue, done, RIVAL_THREADS, -1);
    int code = count < 0 ? count : 0;
    for (int i = 0; i < count; i++) {
        idle[(*idle_count)++] = done[i];
        code = code == 0 ? done[i]->status : code;
    }
    return code;
}

/* All batches, RIVAL_THREADS of them in flight; -EAGAIN means: finish some first. */
static int batches_run(struct host *host, const struct rival_job *job, bool is_put)
{
    struct abode_op *idle[RIVAL_THREADS];
    uint32_t idle_count = RIVAL_THREADS, next = 0;
    int code = 0;
    for (uint32_t i = 0; i < RIVAL_THREADS; i++) {
        idle[i] = &host->ops[i];
    }
    while (code == 0 && next < job->object_count) {
        int started = -EAGAIN;
        if (idle_count > 0) {
            started = batch_start(host, job, is_put, next, idle[idle_count - 1]);
        }
        if (started == 0) {
            idle_count--;
            next += job->batch_count;
        } else if (started == -EAGAIN && idle_count < RIVAL_THREADS) {
            code = batches_finish(host, idle, &idle_count);
        } else {
            code = started;
        }
    }
    while (idle_count < RIVAL_THREADS) {
        const int finished = batches_finish(host, idle, &idle_count);
        code = code == 0 ? finished : code;
        if (finished < 0 && abode_queue_pending(host->queue) == 0) {
            break;
        }
    }
    return code;
}

static int abode_run(const struct rival_job *job, bool is_put, struct bench_sample *ret_sample)
{
    struct host host;
    unsigned char *base = is_put ? (unsigned char *)(uintptr_t)job->source : job->target;
    int code = host_open(job, base, &host);
    if (code < 0) {
        return code;
    }
    items_fill(&host, job, !is_put);
    bench_sample_begin(ret_sample);
    code = batches_run(&host, job, is_put);
    bench_sample_end(ret_sample, rival_bytes(job));
    return host_close(&host, code);
}

static int abode_side_put(const struct rival_job *job, struct bench_sample *ret_sample)
{
    return abode_run(job, true, ret_sample);
}

static int abode_side_get(const struct rival_job *job, struct bench_sample *ret_sample)
{
    return abode_run(job, false, ret_sample);
}

const struct rival rival_abode = {.name = "abode", .put = abode_side_put, .get = abode_side_get};
