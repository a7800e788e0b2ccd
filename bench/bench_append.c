/*
 * bench_append.c - the calls that a host makes while it serves: what they add to the bytes, and
 * their tails.
 *
 * WHAT IT MODELS. A host appends one block of 1 MiB at a time: reserve, copy the K/V in, commit.
 * The bound is the copy alone, into memory of the same size. Tails are taken a call at a time, over
 * a session of many rows in memory; what the scheduler takes away on a busy machine is in them.
 *
 *   P9.1m             seconds, reserve + memcpy + commit / memcpy
 *   P11.reserve .commit .view .stat .advise .poll     p99.9 of each call
 *   P11.detach .attach                                       p99.9 of submitting (MEM sessions)
 */
#include "session_host.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BLOCK_BYTES (1u << 20)
#define BYTES_DEFAULT (128ull << 20)
#define CALLS 5000 /* of each kind and round: p99.9 has 5 calls behind it */
#define TOKENS_A_BLOCK HOST_BLOCK_TOKENS

/* ---- P9 ---- */

struct append {
    struct host host;
    unsigned char *source, *target; /* source: one block; target: as much as a session holds */
    uint64_t bytes;
};

static int plain_side(void *context, struct bench_sample *ret_sample)
{
    struct append *append = context;
    bench_sample_begin(ret_sample);
    for (uint64_t at = 0; at < append->bytes; at += BLOCK_BYTES) {
        memcpy(append->target + at, append->source, BLOCK_BYTES);
    }
    bench_sample_end(ret_sample, append->bytes);
    return 0;
}

static int append_side(void *context, struct bench_sample *ret_sample)
{
    struct append *append = context;
    struct abode *runtime = append->host.runtime;
    const struct abode_session_opts opts = {
        .struct_size = sizeof(opts), .model = append->host.model, .home_node = -1};
    struct abode_session session;
    int code = abode_session_create(runtime, &opts, &session);
    if (code < 0) {
        return code;
    }
    bench_sample_begin(ret_sample);
    for (uint64_t at = 0; at < append->bytes && code >= 0; at += BLOCK_BYTES) {
        struct abode_span span;
        code = abode_append_reserve(runtime, session, TOKENS_A_BLOCK, &span, 1);
        if (code > 0) {
            memcpy(span.base, append->source, BLOCK_BYTES);
            code = abode_append_commit(runtime, session, TOKENS_A_BLOCK, NULL, 0);
        }
    }
    bench_sample_end(ret_sample, append->bytes);
    const int deleted = abode_session_delete(runtime, session);
    return code < 0 ? code : deleted;
}

static int append_run(struct bench_run *run, struct append *append)
{
    static struct bench_table table; /* too large for a stack */
    const struct bench_side sides[] = {{"memcpy", plain_side, append},
                                       {"abode", append_side, append}};
    const struct bench_card card = {"P9.1m", "reserve + memcpy + commit / memcpy, 1 MiB a block",
                                    "ratio", 1.02, BENCH_AT_MOST};
    void *source = NULL, *target = NULL;
    int code = bench_memory_get(BLOCK_BYTES, &source);
    code = code < 0 ? code : bench_memory_get(append->bytes, &target);
    append->source = source;
    append->target = target;
    if (code == 0) {
        bench_fill(source, BLOCK_BYTES, 1);
        code = bench_rounds(run, sides, 2, &table);
    }
    if (code == 0) {
        const struct bench_series ratio = bench_ratio_of_seconds(&table, 1, 0);
        bench_table_print(run, "append", sides, &table);
        code = bench_report(run, &card, &ratio, NULL);
    }
    if (target != NULL) {
        bench_memory_put(target, append->bytes);
    }
    if (source != NULL) {
        bench_memory_put(source, BLOCK_BYTES);
    }
    return code;
}

static int bench_cost(struct bench_run *run)
{
    static struct append append;
    append.bytes = bench_bytes(run, BYTES_DEFAULT) / BLOCK_BYTES * BLOCK_BYTES;
    const struct host_plan plan = {.block_bytes = BLOCK_BYTES,
                                   .block_tokens = TOKENS_A_BLOCK,
                                   .session_count = 2,
                                   .row_count = (uint32_t)(append.bytes / BLOCK_BYTES),
                                   .durability = ABODE_MEM};
    int code = host_open(run, &plan, &append.host);
    if (code < 0) {
        return code;
    }
    code = append_run(run, &append);
    const int closed = host_close(&append.host);
    return code < 0 ? code : closed;
}

/* ---- P11 ---- */

enum call {
    CALL_RESERVE = 0,
    CALL_COMMIT,
    CALL_VIEW,
    CALL_STAT,
    CALL_ADVISE,
    CALL_POLL,
    CALL_DETACH,
    CALL_ATTACH,
    CALL_COUNT,
};
static const char *const call_ids[CALL_COUNT] = {"P11.reserve", "P11.commit", "P11.view",
                                                 "P11.stat",    "P11.advise", "P11.poll",
                                                 "P11.detach",  "P11.attach"};
struct tails {
    struct host host;
    uint64_t *ns[CALL_COUNT];
    struct bench_series series[CALL_COUNT];
};

/* A token appended, and every call that needs no op. */
static int calls_once(struct tails *tails, uint32_t i)
{
    struct host *host = &tails->host;
    const struct abode_session session = host->sessions[0];
    struct abode_span span;
    struct abode_view view = {.struct_size = sizeof(view)};
    struct abode_session_info info = {.struct_size = sizeof(info)};
    struct abode_op *none;
    uint64_t at[CALL_POLL + 2];
    int codes[CALL_POLL + 1] = {0};
    at[CALL_RESERVE] = bench_now_ns();
    codes[CALL_RESERVE] = abode_append_reserve(host->runtime, session, 1, &span, 1);
    at[CALL_COMMIT] = bench_now_ns();
    codes[CALL_COMMIT] = abode_append_commit(host->runtime, session, 1, NULL, 0);
    at[CALL_VIEW] = bench_now_ns();
    codes[CALL_VIEW] = abode_session_view(host->runtime, session, 0, &view);
    at[CALL_STAT] = bench_now_ns();
    codes[CALL_STAT] = abode_session_stat(host->runtime, session, &info);
    at[CALL_ADVISE] = bench_now_ns();
    abode_advise(host->runtime, session, ABODE_IDLE_TOOL, 1000000);
    at[CALL_POLL] = bench_now_ns();
    codes[CALL_POLL] = abode_poll(host->queue, &none, 1, 0);
    at[CALL_POLL + 1] = bench_now_ns();
    for (uint32_t call = 0; call <= CALL_POLL; call++) {
        if (codes[call] < 0) {
            bench_say("%s: %s", call_ids[call], abode_strerror(codes[call]));
            return codes[call];
        }
        tails->ns[call][i] = at[call + 1] - at[call];
    }
    return 0;
}

static int submits_once(struct tails *tails, uint32_t i)
{
    struct host *host = &tails->host;
    struct abode_op *op = &host->ops[0], *done;
    for (uint32_t call = CALL_DETACH; call <= CALL_ATTACH; call++) {
        memset(op, 0, sizeof(*op));
        const uint64_t start_ns = bench_now_ns();
        int code = call == CALL_DETACH ? abode_detach(host->queue, host->sessions[0], 0, op)
                                       : abode_attach(host->queue, host->sessions[0], -1, 0, op);
        tails->ns[call][i] = bench_now_ns() - start_ns;
        if (code == 0) {
            code = abode_poll(host->queue, &done, 1, -1);
            code = code < 0 ? code : op->status;
        }
        if (code < 0) {
            return code;
        }
    }
    return 0;
}

static int tails_round(struct tails *tails, bool is_counted)
{
    int code = host_sessions_fill(&tails->host, 1);
    for (uint32_t i = 0; i < CALLS && code == 0; i++) {
        code = calls_once(tails, i);
    }
    for (uint32_t i = 0; i < CALLS && code == 0; i++) {
        code = submits_once(tails, i);
    }
    for (uint32_t call = 0; call < CALL_COUNT && is_counted && code == 0; call++) {
        bench_series_add(&tails->series[call],
                         (double)bench_percentile(tails->ns[call], CALLS, 999) / 1e3);
    }
    return code < 0 ? code : host_sessions_delete(&tails->host);
}

static int tails_report(const struct bench_run *run, const struct tails *tails)
{
    int code = 0;
    for (uint32_t call = 0; call < CALL_COUNT && code == 0; call++) {
        const struct bench_card card = {call_ids[call], "p99.9 of one call", "us", 10,
                                        BENCH_AT_MOST};
        char note[64];
        (void)snprintf(note, sizeof(note), "%d calls a round, clock included", CALLS);
        if (bench_wanted(run, call_ids[call])) {
            code = bench_report(run, &card, &tails->series[call], note);
        }
    }
    return code;
}

static int bench_tails(struct bench_run *run)
{
    static struct tails tails;
    const struct host_plan plan = {.block_bytes = 16384,
                                   .block_tokens = TOKENS_A_BLOCK,
                                   .session_count = 2,
                                   .row_count = 1000,
                                   .durability = ABODE_MEM};
    int code = host_open(run, &plan, &tails.host);
    if (code < 0) {
        return code;
    }
    uint64_t *ns = calloc((size_t)CALL_COUNT * CALLS, sizeof(*ns));
    code = ns == NULL ? -ENOMEM : 0;
    for (uint32_t call = 0; call < CALL_COUNT && ns != NULL; call++) {
        tails.ns[call] = ns + (size_t)call * CALLS;
    }
    for (uint32_t round = 0; round < run->rounds + run->warmup && code == 0; round++) {
        code = tails_round(&tails, round >= run->warmup);
    }
    code = code < 0 ? code : tails_report(run, &tails);
    free(ns);
    const int closed = host_close(&tails.host);
    return code < 0 ? code : closed;
}

int main(int argc, char **argv)
{
    static const struct bench_case cases[] = {
        {"P9.1m", bench_cost},
        {"P11.reserve P11.commit P11.view P11.stat P11.advise P11.poll P11.detach "
         "P11.attach",
         bench_tails},
    };
    static const struct bench_suite suite = {"bench_append", cases,
                                             sizeof(cases) / sizeof(cases[0]), NULL};
    return bench_main(argc, argv, &suite);
}
