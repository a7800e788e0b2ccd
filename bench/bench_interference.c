/*
 * bench_interference.c - a session comes back from disk while others are being spilled.
 *
 * WHAT IT MODELS. A server's store at work: one thread fills sessions, detaches them durably, with their
 * frames given up, and deletes them, at half the rate that it reaches alone (its budget); another one
 * brings a session of 64 MiB back, again and again. Restores go before spills (runtime/io): the p99 of a
 * restore must not be more than twice that of a quiet store. Both in turn, RESTORES of each a round.
 *
 *   P8   p99 of restores beside spills / p99 of restores alone
 */
#include "session_host.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <time.h>

#define SESSION_BYTES (64u << 20)
#define BLOCK_BYTES (1u << 20)
#define SPILLERS 2u /* sessions written together */
#define SESSIONS (1 + SPILLERS)
#define RESTORES 100u
#define ALONE_CYCLES 4u
#define BUDGET_SHARE 0.5

struct spiller {
    struct host host; /* of the same runtime, with a queue and sessions of its own */
    pthread_t thread;
    uint64_t seed;
    double bytes_per_second; /* 0: as fast as it can */
    atomic_bool stop;
    atomic_uint_fast64_t bytes;
    int code;
};

static int spill_once(struct spiller *spiller)
{
    int code = host_sessions_fill(&spiller->host, ++spiller->seed);
    code = code < 0 ? code : host_detach(&spiller->host, ABODE_DETACH_SPILL_NOW);
    code = code < 0 ? code : host_sessions_delete(&spiller->host);
    atomic_fetch_add(&spiller->bytes, host_bytes(&spiller->host.plan));
    return code;
}

static void *spiller_run(void *context)
{
    struct spiller *spiller = context;
    const uint64_t bytes = host_bytes(&spiller->host.plan);
    const double ns = (double)bytes / spiller->bytes_per_second * 1e9;
    for (double due = (double)bench_now_ns(); !atomic_load(&spiller->stop) && spiller->code == 0;
         due += ns) {
        const double early = due - (double)bench_now_ns();
        if (early > 0) {
            const struct timespec pause = {(time_t)(early / 1e9), (long)early % 1000000000};
            (void)nanosleep(&pause, NULL);
        }
        spiller->code = spill_once(spiller);
    }
    return NULL;
}

/* How long each of RESTORES restores took. */
static int restores_run(struct host *host, uint64_t *ret_ns)
{
    int code = 0;
    for (uint32_t i = 0; i < RESTORES && code == 0; i++) {
        const uint64_t begin = bench_now_ns();
        code = host_attach(host);
        ret_ns[i] = bench_now_ns() - begin;
        code = code < 0 ? code : host_detach(host, ABODE_DETACH_SPILL_NOW);
    }
    return code;
}

static int alone_side(void *context, struct bench_sample *ret_sample)
{
    uint64_t ns[RESTORES];
    struct host *const *hosts = context;
    bench_sample_begin(ret_sample);
    const int code = restores_run(hosts[0], ns);
    bench_sample_end(ret_sample, (uint64_t)SESSION_BYTES * RESTORES);
    ret_sample->extra = (double)bench_percentile(ns, RESTORES, 990);
    return code;
}

struct beside {
    struct host *host;
    struct spiller *spiller;
};

static int beside_side(void *context, struct bench_sample *ret_sample)
{
    uint64_t ns[RESTORES];
    struct beside *beside = context;
    struct spiller *spiller = beside->spiller;
    atomic_store(&spiller->stop, false);
    if (pthread_create(&spiller->thread, NULL, spiller_run, spiller) != 0) {
        return -EAGAIN;
    }
    bench_sample_begin(ret_sample);
    int code = restores_run(beside->host, ns);
    bench_sample_end(ret_sample, (uint64_t)SESSION_BYTES * RESTORES);
    ret_sample->extra = (double)bench_percentile(ns, RESTORES, 990);
    atomic_store(&spiller->stop, true);
    (void)pthread_join(spiller->thread, NULL);
    return code < 0 ? code : spiller->code;
}

/* The rate that the spiller reaches alone, in bytes a second. */
static int budget_find(struct spiller *spiller)
{
    const uint64_t begin = bench_now_ns();
    int code = 0;
    for (uint32_t i = 0; i < ALONE_CYCLES && code == 0; i++) {
        code = spill_once(spiller);
    }
    const double seconds = (double)(bench_now_ns() - begin) / 1e9;
    spiller->bytes_per_second = (double)atomic_load(&spiller->bytes) / seconds * BUDGET_SHARE;
    return code;
}

static int p8_report(const struct bench_run *run, const struct bench_table *table,
                     const struct spiller *spiller)
{
    const struct bench_card card = {"P8", "p99 restore of 64 MiB while spilling / idle p99",
                                    "ratio", 2, BENCH_AT_MOST};
    struct bench_series ratio = {0}, alone = {0}, beside = {0};
    for (uint32_t round = 0; round < table->rounds; round++) {
        const double quiet = table->samples[0][round].extra, busy = table->samples[1][round].extra;
        bench_series_add(&alone, quiet / 1e6);
        bench_series_add(&beside, busy / 1e6);
        bench_series_add(&ratio, busy / quiet);
    }
    char note[160];
    (void)snprintf(note, sizeof(note),
                   "%u restores a round: p99 alone %.1f ms, beside spills at %.2f GB/s %.1f ms",
                   RESTORES, bench_series_median(&alone), spiller->bytes_per_second / 1e9,
                   bench_series_median(&beside));
    return bench_report(run, &card, &ratio, note);
}

static int bench_p8(struct bench_run *run)
{
    static struct host host;
    static struct spiller spiller;
    static struct bench_table table;
    const struct host_plan plan = {.block_bytes = BLOCK_BYTES,
                                   .block_tokens = HOST_BLOCK_TOKENS,
                                   .session_count = SESSIONS,
                                   .row_count = SESSION_BYTES / BLOCK_BYTES,
                                   .has_store = true,
                                   .durability = ABODE_DURABLE};
    int code = host_open(run, &plan, &host);
    if (code < 0) {
        return code;
    }
    host.plan.session_count = 1;
    spiller = (struct spiller){.host = host};
    spiller.host.plan.session_count = SPILLERS;
    spiller.host.queue = NULL;
    code = abode_queue_open(host.runtime, SPILLERS, &spiller.host.queue);
    code = code < 0 ? code : host_sessions_fill(&host, 1);
    code = code < 0 ? code : host_detach(&host, ABODE_DETACH_SPILL_NOW);
    code = code < 0 ? code : budget_find(&spiller);
    struct host *alone[] = {&host};
    struct beside beside = {&host, &spiller};
    const struct bench_side sides[] = {{"alone", alone_side, alone},
                                       {"beside spills", beside_side, &beside}};
    code = code < 0 ? code : bench_rounds(run, sides, 2, &table);
    code = code < 0 ? code : p8_report(run, &table, &spiller);
    if (spiller.host.queue != NULL) {
        const int closed = abode_queue_close(spiller.host.queue);
        code = code < 0 ? code : closed;
    }
    const int closed = host_close(&host);
    return code < 0 ? code : closed;
}

int main(int argc, char **argv)
{
    static const struct bench_case cases[] = {{"P8", bench_p8}};
    static const struct bench_suite suite = {"bench_interference", cases, 1, NULL};
    return bench_main(argc, argv, &suite);
}
