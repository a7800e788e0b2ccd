/*
 * session_host.c - see session_host.h.
 */
#include "session_host.h"

#include <errno.h>
#include <string.h>

#define STORE_SPARE_BYTES ((uint64_t)512 << 20) /* segments half filled, journal */
#define MEMORY_SPARE_BYTES ((uint64_t)64 << 20)
#define FLUSH_NS (60ll * 1000 * 1000 * 1000)
#define RESERVE_ATTEMPTS_MAX 1000

static void host_log(void *context, int level, const char *line)
{
    (void)context;
    if (level <= ABODE_LOG_WARNING) {
        bench_say("abode: %s", line);
    }
}

uint64_t host_bytes(const struct host_plan *plan)
{
    return (uint64_t)plan->block_bytes * plan->row_count * plan->session_count;
}

static int runtime_open(struct host *host)
{
    struct abode_config config;
    abode_config_init(&config);
    const char *const paths[] = {host->dir};
    const uint64_t bytes = host_bytes(&host->plan);
    config.memory_bytes_max = bytes + bytes / 8 + MEMORY_SPARE_BYTES;
    if (host->plan.has_store) {
        config.flags = ABODE_CREATE;
        config.store_bytes_max = bytes * 3 + STORE_SPARE_BYTES;
        config.store_paths = paths;
        config.store_path_count = 1;
    }
    config.durability = host->plan.durability;
    config.log = host_log;
    return abode_open(&config, &host->runtime);
}

static int model_add(struct host *host)
{
    const struct abode_plane plane = {.bytes_per_block = host->plan.block_bytes};
    const struct abode_component component = {
        .kind = ABODE_PAGED, .plane_count = 1, .planes = &plane};
    const struct abode_model_desc model = {.struct_size = sizeof(model),
                                           .component_count = 1,
                                           .components = &component,
                                           .block_tokens = host->plan.block_tokens,
                                           .tag = "bench_host"};
    return abode_model_add(host->runtime, &model, &host->model);
}

int host_open(const struct bench_run *run, const struct host_plan *plan, struct host *ret)
{
    memset(ret, 0, sizeof(*ret));
    ret->plan = *plan;
    int code = plan->session_count > HOST_SESSIONS_MAX ? -EINVAL : 0;
    if (code == 0 && plan->has_store) {
        code = bench_directory_make(run, "host", ret->dir);
    }
    code = code < 0 ? code : runtime_open(ret);
    code = code < 0 ? code : model_add(ret);
    code = code < 0 ? code : abode_queue_open(ret->runtime, HOST_SESSIONS_MAX, &ret->queue);
    if (code < 0) {
        (void)host_close(ret);
    }
    return code;
}

int host_close(struct host *host)
{
    int code = host->queue == NULL ? 0 : abode_queue_close(host->queue);
    if (host->runtime != NULL) {
        const int closed = abode_close(host->runtime);
        code = code < 0 ? code : closed;
    }
    if (host->dir[0] != '\0') {
        const int removed = bench_directory_remove(host->dir);
        code = code < 0 ? code : removed;
    }
    return code;
}

static int row_fill(struct host *host, struct abode_session session, uint64_t seed)
{
    struct abode_span span;
    int code = -EAGAIN;
    for (uint32_t attempt = 0; attempt < RESERVE_ATTEMPTS_MAX && code == -EAGAIN; attempt++) {
        code = abode_append_reserve(host->runtime, session, host->plan.block_tokens, &span, 1);
        if (code == -EAGAIN) {
            struct abode_op *none;
            (void)!abode_poll(host->queue, &none, 1, 1000 * 1000);
        }
    }
    if (code < 0) {
        return code;
    }
    bench_fill(span.base, host->plan.block_bytes, seed);
    return abode_append_commit(host->runtime, session, host->plan.block_tokens, NULL, 0);
}

int host_sessions_fill(struct host *host, uint64_t seed)
{
    const struct abode_session_opts opts = {
        .struct_size = sizeof(opts), .model = host->model, .home_node = -1};
    for (uint32_t i = 0; i < host->plan.session_count; i++) {
        int code = abode_session_create(host->runtime, &opts, &host->sessions[i]);
        for (uint32_t row = 0; row < host->plan.row_count && code == 0; row++) {
            code = row_fill(host, host->sessions[i], (seed << 40) + ((uint64_t)i << 20) + row);
        }
        if (code < 0) {
            return code;
        }
    }
    return 0;
}

/* Take back what is in flight; 0, or the first failure. */
static int ops_finish(struct host *host, int code)
{
    while (abode_queue_pending(host->queue) > 0) {
        struct abode_op *done[HOST_SESSIONS_MAX];
        const int count = abode_poll(host->queue, done, HOST_SESSIONS_MAX, -1);
        if (count < 0) {
            return count;
        }
        for (int i = 0; i < count; i++) {
            code = code == 0 ? done[i]->status : code;
        }
    }
    return code;
}

int host_detach(struct host *host, uint32_t flags)
{
    int code = 0;
    memset(host->ops, 0, sizeof(host->ops));
    for (uint32_t i = 0; i < host->plan.session_count && code == 0; i++) {
        code = abode_detach(host->queue, host->sessions[i], flags, &host->ops[i]);
    }
    return ops_finish(host, code);
}

int host_attach(struct host *host)
{
    int code = 0;
    memset(host->ops, 0, sizeof(host->ops));
    for (uint32_t i = 0; i < host->plan.session_count && code == 0; i++) {
        code = abode_attach(host->queue, host->sessions[i], -1, 0, &host->ops[i]);
    }
    return ops_finish(host, code);
}

int host_sessions_delete(struct host *host)
{
    int code = 0;
    for (uint32_t i = 0; i < host->plan.session_count && code == 0; i++) {
        code = abode_session_delete(host->runtime, host->sessions[i]);
    }
    return code < 0 || !host->plan.has_store ? code : abode_flush(host->runtime, FLUSH_NS);
}

int host_stats(const struct host *host, struct abode_stats *ret)
{
    memset(ret, 0, sizeof(*ret));
    ret->struct_size = sizeof(*ret);
    return abode_stats_get(host->runtime, ret);
}
