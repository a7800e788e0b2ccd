/*
 * bench_recover.c - a store is opened again: after kill -9, and after a clean close.
 *
 * WHAT IT MODELS. A million blocks are in the store when the process dies. Opening reads superblocks,
 * the newest checkpoint and the journal's tail, no payload: its cost goes with the number of blocks,
 * so a small payload (4 KiB) stands for a large one, and blocks of 2 MiB are taken to scale to
 * terabytes. Files are in the page cache, as they are when a process dies and comes back.
 *
 *   P12.open-1m   seconds of abode_open with 1,000,000 stored blocks, after a crash
 *   P12.tb        the same, seconds per TB of state at 2 MiB a block
 *   P12.clean     crash / clean open
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cache_host.h"

#define ITEM_BYTES 4096u
#define ITEMS 1000000u
#define ITEMS_A_CRASH 2048u /* put by each process that dies */
#define ROUNDS_MAX 50u
#define TB 1e12
#define SCALED_BLOCK_BYTES ((double)(2u << 20))

struct recover {
    struct cache_plan plan;
    uint32_t next; /* item */
};

/* In a child, which a runtime must not outlive: put, then die at once or close. */
static int child_run(struct recover *recover, uint32_t count, bool crash)
{
    (void)fflush(NULL);
    const pid_t child = fork();
    if (child < 0) {
        return -errno;
    }
    if (child == 0) {
        static struct cache_host host;
        int code = cache_host_open(&recover->plan, &host);
        code = code < 0 ? code : cache_host_put(&host, recover->next, count);
        if (code == 0 && crash) {
            (void)kill(getpid(), SIGKILL);
        }
        code = code < 0 ? code : cache_host_close(&host);
        if (code < 0) {
            bench_say("bench_recover: %s", abode_strerror(code));
        }
        _exit(code < 0);
    }
    recover->next += count;
    int status = 0;
    const bool ended = waitpid(child, &status, 0) == child;
    const bool as_meant = crash ? WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL
                                : WIFEXITED(status) && WEXITSTATUS(status) == 0;
    return ended && as_meant ? 0 : -ECHILD;
}

static int open_timed(const struct recover *recover, double *ret_seconds)
{
    struct abode_config config;
    struct abode_stats stats = {.struct_size = sizeof(stats)};
    struct abode *runtime;
    abode_config_init(&config);
    config.store_paths = &recover->plan.dir;
    config.store_path_count = 1;
    config.block_count_max = recover->plan.item_count + recover->plan.item_count / 8;
    config.store_bytes_max = 16ull << 30;
    const uint64_t start = bench_now_ns();
    int code = abode_open(&config, &runtime);
    *ret_seconds = (double)(bench_now_ns() - start) / 1e9;
    if (code < 0) {
        return code;
    }
    code = abode_stats_get(runtime, &stats);
    const int closed = abode_close(runtime);
    code = code < 0 ? code : closed;
    return code == 0 && stats.blocks_stored != recover->next ? -EPROTO : code; /* all of them */
}

static int rounds_run(struct bench_run *run, struct recover *recover,
                      struct bench_series *ret_crash, struct bench_series *ret_ratio)
{
    const uint32_t rounds = run->rounds < ROUNDS_MAX ? run->rounds : ROUNDS_MAX;
    int code = child_run(recover, ITEMS - rounds * ITEMS_A_CRASH, false);
    for (uint32_t round = 0; round < rounds && code == 0; round++) {
        double crash = 0, clean = 0;
        code = child_run(recover, ITEMS_A_CRASH, true);
        code = code < 0 ? code : open_timed(recover, &crash);
        code = code < 0 ? code : open_timed(recover, &clean);
        bench_series_add(ret_crash, crash);
        bench_series_add(ret_ratio, crash / clean);
    }
    return code;
}

static int bench_open(struct bench_run *run)
{
    static const struct bench_card cards[] = {
        {"P12.open-1m", "open after a crash, 1,000,000 blocks", "s", 0.5, BENCH_AT_MOST},
        {"P12.tb", "open after a crash, per TB at 2 MiB a block", "s/TB", 0.5, BENCH_AT_MOST},
        {"P12.clean", "open after a crash / after a clean close", "ratio", 1.2, BENCH_AT_MOST},
    };
    char dir[BENCH_PATH_MAX];
    struct bench_series crash = {0}, scaled = {0}, ratio = {0};
    int code = bench_directory_make(run, "recover", dir);
    if (code < 0) {
        return code;
    }
    struct recover recover = {.plan = {.dir = dir,
                                       .item_bytes = ITEM_BYTES,
                                       .item_count = ITEMS,
                                       .memory_bytes = (uint64_t)64 << 20}};
    code = rounds_run(run, &recover, &crash, &ratio);
    for (uint32_t i = 0; i < crash.count && code == 0; i++) {
        bench_series_add(&scaled, crash.values[i] * TB / ITEMS / SCALED_BLOCK_BYTES);
    }
    const struct bench_series *series[] = {&crash, &scaled, &ratio};
    for (size_t i = 0; i < sizeof(cards) / sizeof(cards[0]) && code == 0; i++) {
        if (bench_wanted(run, cards[i].id)) {
            code = bench_report(run, &cards[i], series[i], "journal in the page cache");
        }
    }
    const int removed = bench_directory_remove(dir);
    return code < 0 ? code : removed;
}

int main(int argc, char **argv)
{
    static const struct bench_case cases[] = {{"P12.open-1m P12.tb P12.clean", bench_open}};
    static const struct bench_suite suite = {"bench_recover", cases, 1, NULL};
    return bench_main(argc, argv, &suite);
}
