/*
 * test_kill9.c - a host is killed with -9 at random moments; what it was promised must be there.
 *
 * Goal: nothing acknowledged as WRITTEN or DURABLE is lost, no byte is wrong, the deleted stays
 * deleted, and what was in flight is there whole or not at all. Method: a child opens the store,
 * compares every session and cache item with the oracle (oracle.h, in shared memory), then works:
 * sessions with all four kinds of state, cache items, several ops in flight, memory and store so
 * small that eviction, segment recycling and journal checkpoints go on all the time. The parent
 * kills it: by the clock, or, in half of the rounds, at the n-th call of some syscall (before it,
 * or in the middle of a write), and starts the next child on what is left. Some children die while
 * they still recover. Two such parents ("lanes") run side by side, each with a store of its own:
 * most of a life is waiting. A third one kills a host of 32 threads, each with sessions, items, a
 * queue and an oracle of its own.
 *
 * test_kill9 [--kills N] [--seed N] [--lanes N] [--threads N]; ABODE_LONG=1: 20,000 kills instead of
 * 2,000. A lane that fails prints what repeats its choices. test timeout: 3000 s
 */
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "crash/parent.h"

#define KILLS_DEFAULT 2000u
#define KILLS_LONG 20000u
#define KILLS_SANITIZED 200u
#define KILLS_FOR_COVERAGE 150u /* fewer may not get round the store */
#define LANES_DEFAULT 2u
#define LANES_MAX 16u
#define LANE_SEED_SHIFT 32u      /* lanes of neighbouring seeds must not meet */
#define MEMORY_BYTES (14u << 20) /* less than the sessions' state: eviction */
#define STORE_BYTES (96u << 20)  /* a few times their state: recycled within seconds */
#define MEMORY_MANY (28u << 20)  /* of a host of many threads */
#define STORE_MANY (96u << 20)
#define MANY_WORK 5u     /* its lives are so much longer */
#define MANY_SHARE 20u   /* of the kills of the other lanes: one in so many */
#define STORE_KILLS 100u /* then a fresh store */
#define WORK_MS_MAX 60u
#define STRIKE_LIMIT_MS 120u /* for rounds that die at a syscall */
#define EARLY_PERCENT 12u    /* of rounds: death during recovery */

struct lane { /* in memory shared with its process */
    uint64_t seed;
    uint32_t kills_max, threads;
    uint32_t kills; /* done */
    bool is_good;
};

static void plan_choose(uint64_t *random, struct worker_plan *plan)
{
    static const enum ab_os_call calls[] = {AB_OS_PWRITE,      AB_OS_PWRITE,     AB_OS_FDATASYNC,
                                            AB_OS_RING_RESULT, AB_OS_RING_ENTER, AB_OS_FTRUNCATE,
                                            AB_OS_RENAMEAT,    FAULT_ANY_CALL};
    uint32_t magnitude = live_random_below(random, 9);

    plan->engine = live_random_below(random, 4) == 0 ? ABODE_IO_THREADS : ABODE_IO_AUTO;
    plan->strike = live_random_below(random, 2) == 0;
    plan->early = live_random_below(random, 100) < EARLY_PERCENT;
    plan->fault = (struct fault_plan){
        .call = calls[live_random_below(random, sizeof(calls) / sizeof(calls[0]))],
        .kind = FAULT_KILL,
        .nth = 1 + live_random_below(random, 1u << magnitude)};
    if (plan->fault.call == AB_OS_PWRITE && live_random_below(random, 2) == 0) {
        plan->fault.kind = FAULT_TEAR;
    }
    plan->seed = live_random(random);
}

/* One child from start to death. 0; 1: it found something wrong, or hung (said). */
static int round_run(struct worker_shared *shared, const struct worker_plan *plan, uint64_t *random)
{
    uint32_t phase = plan->early ? WORKER_STARTED : WORKER_WORKING;
    uint32_t longer = plan->threads > 1 ? MANY_WORK : 1;
    uint32_t work_us = live_random_below(random, plan->early ? 15000 : WORK_MS_MAX * 1000 * longer);
    struct life life;

    if (!life_start(shared, plan, &life) || !life_wait(shared, &life, phase)) {
        return 1;
    }
    if (!life.ended && plan->strike) {
        (void)life_reaches(shared, &life, WORKER_ENDED, STRIKE_LIMIT_MS * longer);
    } else if (!life.ended) {
        parent_sleep_us(work_us);
    }
    if (life_kill(shared, &life) != 0) {
        return 1;
    }
    shared->killed_early += atomic_load(&shared->phase) < WORKER_WORKING;
    return 0;
}

static void report(const struct worker_shared *shared, uint32_t kills, uint64_t started_ms)
{
    const struct worker_counts sum = parent_counts(shared), *counts = &sum;

    printf("kills %u (%u before the store was open), seconds %.1f\n", kills, shared->killed_early,
           (double)(parent_ms() - started_ms) / 1000);
    printf("acknowledged: detaches %llu (promised %llu), attaches %llu, puts %llu, deletes %llu, "
           "forks %llu, truncates %llu\n",
           (unsigned long long)counts->detaches, (unsigned long long)counts->promises,
           (unsigned long long)counts->attaches, (unsigned long long)counts->items_put,
           (unsigned long long)counts->deletes, (unsigned long long)counts->forks,
           (unsigned long long)counts->truncates);
    printf("verified after kills: sessions %llu, gone %llu, newer than promised %llu, items %llu, "
           "bytes %llu\n",
           (unsigned long long)counts->sessions_verified, (unsigned long long)counts->sessions_gone,
           (unsigned long long)counts->sessions_newer, (unsigned long long)counts->items_verified,
           (unsigned long long)counts->bytes_verified);
    printf("memory was short: refusals %llu, blocks evicted %llu; store: bytes written %llu, "
           "most live %llu of %llu\n",
           (unsigned long long)counts->refusals, (unsigned long long)counts->blocks_evicted,
           (unsigned long long)counts->bytes_written, (unsigned long long)counts->live_max,
           (unsigned long long)counts->store_bytes);
}

/* A workload that never evicts or never goes round the store proves less than it says. */
static int coverage_check(const struct worker_shared *shared, uint32_t kills)
{
    const struct worker_counts sum = parent_counts(shared), *counts = &sum;

    if (kills < KILLS_FOR_COVERAGE) {
        return 0;
    }
    if (counts->promises == 0 || counts->blocks_evicted == 0 || counts->items_put == 0 ||
        counts->bytes_written < counts->store_bytes) {
        printf("FAIL the workload no longer reaches eviction and segment recycling\n");
        return 1;
    }
    return 0;
}

/* One parent: kill after kill, on one store at a time. */
static void lane_run(struct lane *lane)
{
    uint64_t started_ms = parent_ms(), random = lane->seed;
    struct worker_plan store = {.threads = lane->threads,
                                .memory_bytes = lane->threads > 1 ? MEMORY_MANY : MEMORY_BYTES,
                                .store_bytes = lane->threads > 1 ? STORE_MANY : STORE_BYTES};
    struct worker_shared *shared = parent_shared_new();
    char path[256];
    int failed = 0;

    printf("seed %llu, kills %u, host threads %u\n", (unsigned long long)lane->seed,
           lane->kills_max, lane->threads);
    if (shared == NULL || live_directory_make(path, sizeof(path)) < 0) {
        printf("FAIL no memory or directory\n");
        return;
    }
    store.path = path;
    for (; lane->kills < lane->kills_max && failed == 0; lane->kills++) {
        struct worker_plan plan = store;

        if (lane->kills > 0 && lane->kills % STORE_KILLS == 0) {
            failed += life_last(shared, &store);
            live_directory_remove(path);
            failed += live_directory_make(path, sizeof(path)) < 0;
            worker_reset(shared);
        }
        plan_choose(&random, &plan);
        if (failed == 0 && round_run(shared, &plan, &random) != 0) {
            printf("at kill %u; engine %u, %s\nrepeat: test_kill9 --lanes %u --threads %u --kills "
                   "%u --seed %llu\n",
                   lane->kills, plan.engine,
                   plan.strike ? ab_os_call_name(plan.fault.call) : "by the clock",
                   lane->threads > 1 ? 0 : 1, lane->threads > 1 ? lane->threads : 0,
                   lane->kills + 1, (unsigned long long)lane->seed);
            failed++;
        }
    }
    failed += failed == 0 ? life_last(shared, &store) : 0;
    failed += failed == 0 ? coverage_check(shared, lane->kills) : 0;
    report(shared, lane->kills, started_ms);
    if (failed == 0 || getenv("ABODE_KEEP") == NULL) {
        live_directory_remove(path);
    } else {
        printf("store kept: %s\n", path);
    }
    lane->is_good = failed == 0;
}

/* Lanes side by side, a process each. */
static void lanes_run(struct lane *lanes, uint32_t count)
{
    pid_t children[LANES_MAX + 1];

    for (uint32_t index = 0; index < count; index++) {
        (void)fflush(NULL);
        children[index] = fork();
        if (children[index] == 0) {
            parent_die_with();
            lane_run(&lanes[index]);
            (void)fflush(NULL);
            _exit(0);
        }
    }
    for (uint32_t index = 0; index < count; index++) {
        if (children[index] > 0) {
            (void)waitpid(children[index], NULL, 0);
        }
    }
}

/* The last line but one: what was really done. */
static uint32_t lanes_report(const struct lane *lanes, uint32_t count, uint64_t seed)
{
    uint32_t kills = 0, many = 0, failed = 0;

    for (uint32_t index = 0; index < count; index++) {
        kills += lanes[index].kills;
        many += lanes[index].threads > 1 ? lanes[index].kills : 0;
        failed += !lanes[index].is_good;
    }
    printf("reliability: R1 %u kills with SIGKILL (%u of a host with many threads); seed %llu, %u "
           "lanes; %u violations\n",
           kills, many, (unsigned long long)seed, count, failed);
    printf("%u passed, %u failed, 0 skipped\n", count - failed, failed);
    return failed;
}

int main(int argc, char **argv)
{
    const char *sanitizer = getenv("ABODE_SANITIZE");
    bool is_slow = sanitizer != NULL && sanitizer[0] != '\0';
    uint32_t kills_max = getenv("ABODE_LONG") != NULL ? KILLS_LONG
                         : is_slow                    ? KILLS_SANITIZED
                                                      : KILLS_DEFAULT;
    uint64_t seed = live_seed(argc, argv);
    uint32_t kills = (uint32_t)live_option(argc, argv, "--kills", kills_max);
    uint32_t count = (uint32_t)live_option(argc, argv, "--lanes", LANES_DEFAULT);
    uint32_t threads = (uint32_t)live_option(argc, argv, "--threads", WORKER_THREADS_MAX);
    struct lane *lanes = mmap(NULL, (LANES_MAX + 1) * sizeof(*lanes), PROT_READ | PROT_WRITE,
                              MAP_SHARED | MAP_ANONYMOUS, -1, 0);

    if (count > LANES_MAX || threads > WORKER_THREADS_MAX || count + threads == 0 ||
        lanes == MAP_FAILED) {
        fprintf(stderr, "--lanes takes 0 to %u, --threads 0 to %u\n", LANES_MAX,
                WORKER_THREADS_MAX);
        return 2;
    }
    for (uint32_t lane = 0; lane < count; lane++) {
        lanes[lane] = (struct lane){.seed = seed + ((uint64_t)lane << LANE_SEED_SHIFT),
                                    .kills_max = kills / count + (lane < kills % count),
                                    .threads = 1};
    }
    if (threads > 1) { /* one more lane: a host of many threads, dearer by the kill */
        lanes[count] = (struct lane){
            .seed = seed, .kills_max = count > 0 ? kills / MANY_SHARE : kills, .threads = threads};
        count++;
    }
    lanes_run(lanes, count);
    return lanes_report(lanes, count, seed) == 0 ? 0 : 1;
}
