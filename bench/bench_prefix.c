/*
 * bench_prefix.c - finding blocks: what a look-up costs, and what is kept in memory to find them.
 *
 * WHAT IT MODELS. A scheduler asks, one key at a time and in random order, what is there: 65,536
 * items of 4 KiB in memory, half of the keys are absent in the other case. No byte of payload moves;
 * the bound is a few cache misses. Percentiles are of single calls, the clock's 20-40 ns included.
 *
 *   P10.pin          p99, key -> fingerprint -> block -> pin (and unpin), lock KV taken and dropped
 *   P10.probe-hit    p99 of abode_cache_probe, one key that is resident (information)
 *   P10.probe-miss   p99 of abode_cache_probe, one key that is absent
 *   P19.resident     metadata bytes per block in memory, tables of frames included
 *   P19.stored       metadata bytes per block in the store only
 *   P19.session      metadata bytes per idle session of 100,000 tokens, its blocks not counted
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cache_host.h"
#include "front/front.h"
#include "session_host.h"

#define ITEM_BYTES 4096u
#define ITEMS 65536u
#define CALLS 100000u /* of each kind and round: p99 has 1,000 behind it */
#define SESSION_TOKENS 100000u
#define SESSIONS 64u

enum call { CALL_PIN = 0, CALL_HIT, CALL_MISS, CALL_COUNT };

static int pin_once(struct cache_host *host, const struct abode_key *key)
{
    struct ab_kv *kv = host->runtime->kv;
    uint64_t fingerprint[2];
    const uint8_t component = AB_COMPONENT_ID(host->model, 0);
    ab_block_fingerprint(component, 0, key, fingerprint);
    ab_lock_take(&kv->lock);
    const uint32_t block = ab_block_find(kv, component, fingerprint);
    const bool found = block != AB_INDEX_NONE && kv->blocks[block].frame != AB_INDEX_NONE;
    if (found) {
        ab_frame_pin(kv, &kv->blocks[block]);
        ab_frame_unpin(kv, &kv->blocks[block]);
    }
    ab_lock_drop(&kv->lock);
    return found ? 0 : -ENOENT;
}

static int call_once(struct cache_host *host, enum call call, const struct abode_key *key)
{
    if (call == CALL_PIN) {
        return pin_once(host, key);
    }
    const int hits = abode_cache_probe(host->runtime, host->model, key, 1, NULL);
    return hits == (call == CALL_HIT) ? 0 : -EPROTO;
}

static int calls_round(struct cache_host *host, enum call call, uint64_t *ns, uint64_t *random)
{
    for (uint32_t i = 0; i < CALLS; i++) {
        const uint32_t number = (uint32_t)(bench_random(random) % ITEMS);
        const struct abode_key key = cache_host_key(call == CALL_MISS ? ITEMS + number : number);
        const uint64_t start = bench_now_ns();
        const int code = call_once(host, call, &key);
        ns[i] = bench_now_ns() - start;
        if (code < 0) {
            return code;
        }
    }
    return 0;
}

static int calls_report(struct bench_run *run, struct cache_host *host)
{
    static const struct bench_card cards[CALL_COUNT] = {
        {"P10.pin", "p99, lookup + pin of a resident block", "us", 2, BENCH_AT_MOST},
        {"P10.probe-hit", "p99, probe of a key that is there", "us", 0, BENCH_INFORMATION},
        {"P10.probe-miss", "p99, probe of a key that is absent", "us", 1, BENCH_AT_MOST},
    };
    struct bench_series series[CALL_COUNT] = {{0}};
    uint64_t *ns = calloc(CALLS, sizeof(*ns)), random = 1;
    int code = ns == NULL ? -ENOMEM : 0;
    for (uint32_t round = 0; round < run->warmup + run->rounds && code == 0; round++) {
        for (uint32_t call = 0; call < CALL_COUNT && code == 0; call++) {
            code = calls_round(host, call, ns, &random);
            if (code == 0 && round >= run->warmup) {
                bench_series_add(&series[call], (double)bench_percentile(ns, CALLS, 990) / 1e3);
            }
        }
    }
    free(ns);
    for (uint32_t call = 0; call < CALL_COUNT && code == 0; call++) {
        if (bench_wanted(run, cards[call].id)) {
            code = bench_report(run, &cards[call], &series[call],
                                "65,536 items in memory, clock included");
        }
    }
    return code;
}

/* Metadata over that of a runtime that holds one batch, per block more. */
static int metadata_report(struct bench_run *run, struct cache_host *host, uint64_t base_bytes,
                           const struct bench_card *card, bool stored)
{
    struct abode_stats stats;
    int code = cache_host_stats(host, &stats);
    if (code < 0 || !bench_wanted(run, card->id)) {
        return code;
    }
    const uint64_t blocks = stored ? stats.blocks_stored : stats.blocks_resident;
    struct bench_series series = {0};
    char note[96];
    bench_series_add(&series, (double)(stats.metadata_bytes - base_bytes) / (double)blocks);
    (void)snprintf(note, sizeof(note), "%llu KiB for %llu blocks",
                   (unsigned long long)((stats.metadata_bytes - base_bytes) >> 10),
                   (unsigned long long)blocks);
    return bench_report(run, card, &series, note);
}

static int bench_memory(struct bench_run *run)
{
    static struct cache_host host;
    const struct bench_card card = {"P19.resident", "metadata bytes per block in memory", "bytes",
                                    64, BENCH_AT_MOST};
    const struct cache_plan plan = {.item_bytes = ITEM_BYTES,
                                    .item_count = ITEMS,
                                    .memory_bytes = (uint64_t)ITEMS * ITEM_BYTES * 9 / 8};
    int code = cache_host_open(&plan, &host);
    if (code < 0) {
        return code;
    }
    code = cache_host_put(&host, 0, ITEMS);
    code = code < 0 ? code : calls_report(run, &host);
    code = code < 0 ? code : metadata_report(run, &host, 0, &card, false);
    const int closed = cache_host_close(&host);
    return code < 0 ? code : closed;
}

static int bench_store(struct bench_run *run)
{
    static struct cache_host host;
    char dir[BENCH_PATH_MAX];
    const struct bench_card card = {"P19.stored", "metadata bytes per block in the store only",
                                    "bytes", 48, BENCH_AT_MOST};
    struct abode_stats before;
    int code = bench_directory_make(run, "prefix", dir);
    if (code < 0) {
        return code;
    }
    const struct cache_plan plan = {.dir = dir,
                                    .item_bytes = ITEM_BYTES,
                                    .item_count = ITEMS,
                                    .memory_bytes = (uint64_t)16 << 20};
    code = cache_host_open(&plan, &host);
    if (code == 0) {
        code = cache_host_stats(&host, &before);
        code = code < 0 ? code : cache_host_put(&host, 0, ITEMS);
        code = code < 0 ? code : metadata_report(run, &host, before.metadata_bytes, &card, true);
        const int closed = cache_host_close(&host);
        code = code < 0 ? code : closed;
    }
    const int removed = bench_directory_remove(dir);
    return code < 0 ? code : removed;
}

static int session_report(struct bench_run *run, struct host *host)
{
    const struct bench_card card = {"P19.session", "metadata bytes per idle session of 100k tokens",
                                    "bytes", 16384, BENCH_AT_MOST};
    struct abode_stats before, after;
    int code = host_stats(host, &before);
    code = code < 0 ? code : host_sessions_fill(host, 1);
    code = code < 0 ? code : host_detach(host, ABODE_DETACH_SPILL_NOW);
    code = code < 0 ? code : host_stats(host, &after);
    if (code < 0) {
        return code;
    }
    const uint64_t blocks = after.blocks_stored - before.blocks_stored;
    const uint64_t bytes =
        after.metadata_bytes - before.metadata_bytes - blocks * sizeof(struct ab_block);
    struct bench_series series = {0};
    bench_series_add(&series, (double)bytes / host->plan.session_count);
    return bench_report(run, &card, &series, "one component, 64 tokens a block");
}

static int bench_session(struct bench_run *run)
{
    static struct host host;
    const struct host_plan plan = {.block_bytes = 4096,
                                   .block_tokens = HOST_BLOCK_TOKENS,
                                   .session_count = SESSIONS,
                                   .row_count = SESSION_TOKENS / HOST_BLOCK_TOKENS,
                                   .has_store = true,
                                   .durability = ABODE_WRITTEN};
    int code = host_open(run, &plan, &host);
    if (code < 0) {
        return code;
    }
    code = session_report(run, &host);
    const int closed = host_close(&host);
    return code < 0 ? code : closed;
}

int main(int argc, char **argv)
{
    static const struct bench_case cases[] = {
        {"P10.pin P10.probe-hit P10.probe-miss P19.resident", bench_memory},
        {"P19.stored", bench_store},
        {"P19.session", bench_session},
    };
    static const struct bench_suite suite = {"bench_prefix", cases,
                                             sizeof(cases) / sizeof(cases[0]), NULL};
    return bench_main(argc, argv, &suite);
}
