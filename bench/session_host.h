/*
 * session_host.h - a host made of the public header only: one runtime, one PAGED component of one plane,
 * and a number of equal sessions, for benches that fill, detach and attach.
 *
 * All int results: 0, or a negative code of abode. One thread.
 */
#ifndef BENCH_HOST_H
#define BENCH_HOST_H

#include "abode/abode.h"
#include "bench_common.h"

#define HOST_SESSIONS_MAX 64
#define HOST_BLOCK_TOKENS 64

struct host_plan {
    uint32_t block_bytes, block_tokens;
    uint32_t session_count;
    uint32_t row_count; /* of each session */
    bool has_store;     /* false: memory only */
    uint32_t durability;
};
struct host {
    struct host_plan plan;
    char dir[BENCH_PATH_MAX]; /* of the store; empty: none */
    struct abode *runtime;
    struct abode_queue *queue;
    uint32_t model;
    struct abode_session sessions[HOST_SESSIONS_MAX];
    struct abode_op ops[HOST_SESSIONS_MAX];
};
uint64_t host_bytes(const struct host_plan *plan); /* state of all sessions */
/* Memory for all sessions and a little more, a store of three times that. */
BENCH_MUST_CHECK int host_open(const struct bench_run *run, const struct host_plan *plan,
                               struct host *ret);
int host_close(struct host *host); /* removes the store */
/* New sessions, all rows filled with bytes that differ by seed, attached. */
BENCH_MUST_CHECK int host_sessions_fill(struct host *host, uint64_t seed);
/* All sessions at once; returns when the last has finished. */
BENCH_MUST_CHECK int host_detach(struct host *host, uint32_t flags);
BENCH_MUST_CHECK int host_attach(struct host *host);
/* Deletes all sessions and waits until the store has forgotten them. */
BENCH_MUST_CHECK int host_sessions_delete(struct host *host);
BENCH_MUST_CHECK int host_stats(const struct host *host, struct abode_stats *ret);

#endif
