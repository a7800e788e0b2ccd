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
#include <sched.h>
#include <stdio.h>

#include "sim/lanes.h"
#include "sim/power_world.h"

#define CRASHES_DEFAULT 15000u
#define CRASHES_LONG 100000u
#define CRASHES_SANITIZED 1000u
#define CRASHES_FOR_COVERAGE 10000u /* some of what is aimed at comes four times in 1,000 */
#define COMPOUND_PER_10 1u          /* of crashes: fewer, and the plans miss what they aim at */
#define LANES_DEFAULT 4u /* two a CPU of the smallest machine: half of a life is waiting */

static uint64_t worlds_max;

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

/* Every count-th seed from `lane` on. */
static int lane_run(const struct lanes *lanes, uint32_t lane, void *result_in)
{
    struct power_result *result = result_in;

    cpu_take(lane);
    for (uint64_t world = lane; world < worlds_max; world += lanes->count) {
        if (result->counts.crashes >= lanes->amount / lanes->count) {
            return 0;
        }
        if (power_world_run(lanes->seed + world, result) != 0) {
            return 1;
        }
    }
    return 0;
}

#define N(value) (unsigned long long)(value)
static void lane_tell(const void *result_in, int status)
{
    const struct power_result *result = result_in;

    printf("FAIL life %u, %s: %s (status %x)\n    repeat: test_power_loss --seed %llu --worlds 1\n",
           result->life, result->doing, result->why, (unsigned)status, N(result->seed));
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

int main(int argc, char **argv)
{
    const struct lanes_options options = {.amount_name = "--crashes",
                                          .amount = CRASHES_DEFAULT,
                                          .amount_long = CRASHES_LONG,
                                          .amount_sanitized = CRASHES_SANITIZED,
                                          .count = LANES_DEFAULT,
                                          .result_bytes = sizeof(struct power_result)};
    struct lanes lanes;
    struct power_result sum = {0};
    uint64_t start_ns = live_clock_ns();
    uint32_t failed;
    int rc = lanes_init(&lanes, &options, argc, argv);

    if (rc != 0) {
        return rc;
    }
    worlds_max = live_option(argc, argv, "--worlds", UINT32_MAX);
    failed = lanes_run(&lanes, lane_run, lane_tell);
    for (uint32_t lane = 0; lane < lanes.count; lane++) {
        counts_add(&sum, lanes_result(&lanes, lane));
    }
    report(&sum, lanes.seed, (double)(live_clock_ns() - start_ns) / 1e9, failed);
    failed += failed == 0 ? coverage_check(&sum.counts) : 0;
    return lanes_end(&lanes, failed);
}
