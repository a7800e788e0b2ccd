/*
 * test_power_loss.c - the power goes at any write, sync or change of a name; DURABLE must survive.
 *
 * Goal: whatever of the unsynced writes a disk keeps, drops, tears or reorders, the store opens, what
 * was promised DURABLE is there, and the rest is there whole or not at all; also when the cut comes
 * inside recovery, a checkpoint, a compaction, after an I/O error in one of these, or twice in a row.
 * Method: power_world.h: a store on a simulated disk, 16 lives a world, a world for each seed.
 *
 * test_power_loss [--seed N] [--worlds N] [--crashes N] [--lanes N]; a lane is a process on one CPU.
 * Worlds are run until so many crashes have been counted. test timeout: 600 s
 */
#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "sim/power_world.h"

#define CRASHES_DEFAULT 15000u
#define CRASHES_LONG 100000u
#define CRASHES_SANITIZED 1000u
#define CRASHES_FOR_COVERAGE 1000u
#define COMPOUND_PER_10 1u /* of crashes: fewer, and the plans miss what they aim at */
#define LANES_DEFAULT 4u   /* two a CPU of the smallest machine: half of a life is waiting */
#define LANES_MAX 16u
#define SEEDS_OF_THE_CLOCK 1000000u

/* All threads of a lane on one CPU: fewer ways to interleave, and quicker too. */
static void cpu_take(uint32_t lane)
{
    cpu_set_t allowed, one;
    uint32_t wanted;

    if (sched_getaffinity(0, sizeof(allowed), &allowed) != 0) {
        return;
    }
    wanted = lane % (uint32_t)CPU_COUNT(&allowed);
    CPU_ZERO(&one);
    for (int cpu = 0; cpu < CPU_SETSIZE; cpu++) {
        if (CPU_ISSET(cpu, &allowed) && wanted-- == 0) {
            CPU_SET(cpu, &one);
            (void)sched_setaffinity(0, sizeof(one), &one);
            return;
        }
    }
}

struct run {
    uint64_t seed, worlds, crashes;
    uint32_t lanes;
};

/* Every lanes-th seed from `lane` on. */
static int lane_run(const struct run *run, uint32_t lane, struct power_result *result)
{
    cpu_take(lane);
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
    for (uint64_t world = lane; world < run->worlds; world += run->lanes) {
        if (result->counts.crashes >= run->crashes / run->lanes) {
            return 0;
        }
        if (power_world_run(run->seed + world, result) != 0) {
            return 1;
        }
    }
    return 0;
}

static void counts_add(struct power_result *sum, const struct power_result *more)
{
    const uint64_t *from = (const uint64_t *)&more->counts;
    uint64_t *to = (uint64_t *)&sum->counts;

    for (size_t index = 0; index < sizeof(sum->counts) / sizeof(*to); index++) {
        to[index] += from[index];
    }
    from = (const uint64_t *)&more->work;
    to = (uint64_t *)&sum->work;
    for (size_t index = 0; index < sizeof(sum->work) / sizeof(*to); index++) {
        to[index] += from[index];
    }
    sum->seed = more->seed > sum->seed ? more->seed : sum->seed;
}

#define N(value) (unsigned long long)(value)
static void report(const struct power_result *sum, uint64_t seed, double seconds, uint32_t failed)
{
    const struct power_counts *counts = &sum->counts;
    const struct worker_counts *work = &sum->work;

    printf(
        "power cuts %llu in %.1f s: in recovery %llu (twice in a row %llu), in a checkpoint %llu, "
        "in a compaction %llu, in close %llu; clean closes %llu, kills %llu\n",
        N(counts->crashes), seconds, N(counts->in_recovery), N(counts->twice),
        N(counts->in_checkpoint), N(counts->in_compaction), N(counts->in_close), N(counts->clean),
        N(counts->killed));
    printf("cuts after an I/O error or a full disk: in recovery %llu, in a checkpoint %llu, in a "
           "compaction %llu\n",
           N(counts->errors_recovery), N(counts->errors_checkpoint), N(counts->errors_compaction));
    printf("unsynced writes: kept %llu, dropped %llu, torn %llu\n", N(counts->writes_kept),
           N(counts->writes_dropped), N(counts->writes_torn));
    printf("acknowledged: detaches %llu (promised DURABLE %llu), puts %llu, deletes %llu, forks "
           "%llu, truncates %llu; blocks evicted %llu\n",
           N(work->detaches), N(work->promises), N(work->items_put), N(work->deletes),
           N(work->forks), N(work->truncates), N(work->blocks_evicted));
    printf(
        "after cuts: sessions whole %llu (newer than promised %llu), gone %llu, damaged and not "
        "promised %llu; items whole %llu, damaged and not promised %llu, left unheard %llu; bytes "
        "compared %llu\n",
        N(work->sessions_verified), N(work->sessions_newer), N(work->sessions_gone),
        N(work->sessions_damaged), N(work->items_verified), N(work->items_damaged),
        N(work->items_left), N(work->bytes_verified));
    printf("disks that lied about a sync: %llu, damage met and reported in %llu, wrong bytes 0\n",
           N(counts->beyond), N(counts->beyond_detected));
    printf("reliability: R3 %llu simulated crashes; seeds %llu-%llu; %u violations\n",
           N(counts->crashes), N(seed), N(sum->seed), failed);
    printf("reliability: R9 %llu compound crashes; seeds %llu-%llu; %u violations\n",
           N(counts->compound), N(seed), N(sum->seed), failed);
    printf("reliability: R6 %llu crashes after a sync had failed; seeds %llu-%llu; %u violations\n",
           N(counts->errors_sync), N(seed), N(sum->seed), failed);
}

/* A workload that no longer gets where it should proves less than it says. */
static uint32_t coverage_check(const struct power_counts *counts)
{
    if (counts->crashes < CRASHES_FOR_COVERAGE) {
        return 0;
    }
    if (counts->in_recovery == 0 || counts->in_checkpoint == 0 || counts->in_compaction == 0 ||
        counts->errors_recovery == 0 || counts->errors_checkpoint == 0 ||
        counts->errors_compaction == 0 || counts->errors_sync == 0 || counts->twice == 0 ||
        counts->beyond_detected == 0 || counts->compound < counts->crashes / 10 * COMPOUND_PER_10) {
        printf("FAIL the plans no longer reach what they aim at\n");
        return 1;
    }
    return 0;
}

static uint32_t lanes_run(const struct run *run, struct power_result *results)
{
    pid_t children[LANES_MAX];
    uint32_t failed = 0;

    for (uint32_t lane = 0; lane < run->lanes; lane++) {
        (void)fflush(NULL);
        children[lane] = fork();
        if (children[lane] == 0) {
            int status = lane_run(run, lane, &results[lane]);

            (void)fflush(NULL);
            _exit(status);
        }
    }
    for (uint32_t lane = 0; lane < run->lanes; lane++) {
        const struct power_result *result = &results[lane];
        int status = 0;

        if (children[lane] > 0 && waitpid(children[lane], &status, 0) == children[lane] &&
            status == 0) {
            continue;
        }
        failed++;
        printf("FAIL life %u, %s: %s (status %x)\n    repeat: test_power_loss --seed %llu --worlds "
               "1\n",
               result->life, result->doing, result->why, (unsigned)status, N(result->seed));
    }
    return failed;
}

int main(int argc, char **argv)
{
    const char *sanitizer = getenv("ABODE_SANITIZE");
    bool is_slow = sanitizer != NULL && sanitizer[0] != '\0';
    uint32_t crashes = getenv("ABODE_LONG") != NULL ? CRASHES_LONG
                       : is_slow                    ? CRASHES_SANITIZED
                                                    : CRASHES_DEFAULT;
    struct run run = {.seed = live_seed(argc, argv),
                      .worlds = live_option(argc, argv, "--worlds", UINT32_MAX),
                      .crashes = live_option(argc, argv, "--crashes", crashes),
                      .lanes = (uint32_t)live_option(argc, argv, "--lanes", LANES_DEFAULT)};
    struct power_result *results, sum = {0};
    struct timespec start, end;
    uint32_t failed;

    if (run.lanes == 0 || run.lanes > LANES_MAX) {
        fprintf(stderr, "--lanes takes 1 to %u\n", LANES_MAX);
        return 2;
    }
    if (live_option(argc, argv, "--seed", UINT64_MAX) == UINT64_MAX) {
        run.seed = run.seed % SEEDS_OF_THE_CLOCK; /* short enough to type */
    }
    results = mmap(NULL, run.lanes * sizeof(*results), PROT_READ | PROT_WRITE,
                   MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (results == MAP_FAILED) {
        printf("FAIL no memory\n");
        return 1;
    }
    (void)clock_gettime(CLOCK_MONOTONIC, &start);
    failed = lanes_run(&run, results);
    (void)clock_gettime(CLOCK_MONOTONIC, &end);
    for (uint32_t lane = 0; lane < run.lanes; lane++) {
        counts_add(&sum, &results[lane]);
    }
    report(&sum, run.seed,
           (double)(end.tv_sec - start.tv_sec) + (double)(end.tv_nsec - start.tv_nsec) / 1e9,
           failed);
    failed += failed == 0 ? coverage_check(&sum.counts) : 0;
    printf("%u passed, %u failed, 0 skipped\n", run.lanes - (failed > 0), failed);
    return failed == 0 ? 0 : 1;
}
