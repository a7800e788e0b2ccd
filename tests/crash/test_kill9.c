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
 * most of a life is waiting.
 *
 * test_kill9 [--kills N] [--seed N] [--lanes N]; ABODE_LONG=1: 10,000 kills instead of 2,000. A lane
 * prints its seed: that with --lanes 1 repeats its choices. test timeout: 1500 s
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "crash/worker.h"

#define KILLS_DEFAULT 2000u
#define KILLS_LONG 10000u
#define KILLS_SANITIZED 200u
#define KILLS_FOR_COVERAGE 150u /* fewer may not get round the store */
#define LANES_DEFAULT 2u
#define LANES_MAX 16u
#define LANE_SEED_SHIFT 32u      /* lanes of neighbouring seeds must not meet */
#define MEMORY_BYTES (14u << 20) /* less than the sessions' state: eviction */
#define STORE_BYTES (96u << 20)  /* a few times their state: recycled within seconds */
#define STORE_KILLS 100u         /* then a fresh store */
#define VERIFY_LIMIT_MS 60000u   /* open and verify; seconds at most, even under a sanitizer */
#define WORK_MS_MAX 60u
#define STRIKE_LIMIT_MS 120u /* for rounds that die at a syscall */
#define EARLY_PERCENT 12u    /* of rounds: death during recovery */

static uint64_t milliseconds_now(void)
{
    struct timespec now;

    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

static void microseconds_sleep(uint32_t microseconds)
{
    const struct timespec pause = {.tv_sec = microseconds / 1000000,
                                   .tv_nsec = (long)(microseconds % 1000000) * 1000};

    (void)nanosleep(&pause, NULL);
}

/* A killed test leaves nobody behind who works on for ever. */
static void die_with_parent(void)
{
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
}

/* Wait for the child to reach a phase, or to end; false: it did neither in time. */
static bool phase_wait(const struct worker_shared *shared, pid_t child, uint32_t phase,
                       uint32_t limit_ms, int *ret_status, bool *ret_ended)
{
    uint64_t end = milliseconds_now() + limit_ms;

    while (milliseconds_now() < end) {
        if (waitpid(child, ret_status, WNOHANG) == child) {
            *ret_ended = true;
            return true;
        }
        if (atomic_load(&shared->phase) >= phase) {
            return true;
        }
        microseconds_sleep(300);
    }
    return false;
}

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
    uint32_t work_us = live_random_below(random, plan->early ? 15000 : WORK_MS_MAX * 1000);
    bool ended = false;
    int status = 0;
    pid_t child;

    atomic_store(&shared->phase, 0);
    (void)fflush(NULL);
    child = fork();
    if (child == 0) {
        die_with_parent();
        _exit(worker_run(shared, plan));
    }
    if (child < 0) {
        printf("FAIL fork: %s\n", strerror(errno));
        return 1;
    }
    if (!phase_wait(shared, child, phase, VERIFY_LIMIT_MS, &status, &ended)) {
        printf("FAIL hung in phase %u\n", atomic_load(&shared->phase));
        (void)kill(child, SIGABRT);
        (void)waitpid(child, &status, 0);
        return 1;
    }
    if (!ended && plan->strike) {
        (void)phase_wait(shared, child, WORKER_ENDED, STRIKE_LIMIT_MS, &status, &ended);
    } else if (!ended) {
        microseconds_sleep(work_us);
    }
    if (!ended) {
        (void)kill(child, SIGKILL);
        (void)waitpid(child, &status, 0);
    }
    if (WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL && shared->why[0] == '\0') {
        shared->killed_early += atomic_load(&shared->phase) < WORKER_WORKING;
        return 0;
    }
    printf("FAIL child %s %d: %s\n", WIFSIGNALED(status) ? "died of signal" : "ended with",
           WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status), shared->why);
    if (shared->name_wrong < ORACLE_NAMES) {
        oracle_tell(&shared->oracle, shared->name_wrong);
    }
    return 1;
}

/* The last child is not killed: it verifies, closes, and opens once more what it closed. */
static int last_run(struct worker_shared *shared, const char *path)
{
    struct worker_plan plan = {.path = path,
                               .last = true,
                               .seed = 1,
                               .memory_bytes = MEMORY_BYTES,
                               .store_bytes = STORE_BYTES};
    int status = 0;
    pid_t child;

    (void)fflush(NULL);
    child = fork();
    if (child == 0) {
        die_with_parent();
        _exit(worker_run(shared, &plan));
    }
    if (child < 0 || waitpid(child, &status, 0) != child || status != 0) {
        printf("FAIL last child: status %x: %s\n", (unsigned)status, shared->why);
        return 1;
    }
    return 0;
}

static void report(const struct worker_shared *shared, uint32_t kills, uint64_t started_ms)
{
    const struct worker_counts *counts = &shared->counts;

    printf("kills %u (%u before the store was open), seconds %.1f\n", kills, shared->killed_early,
           (double)(milliseconds_now() - started_ms) / 1000);
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
    const struct worker_counts *counts = &shared->counts;

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

/* One parent: kill after kill, on one store at a time. 0, or the number of failures. */
static int lane_run(uint64_t seed, uint32_t kills_max)
{
    uint64_t started_ms = milliseconds_now(), random = seed;
    struct worker_shared *shared =
        mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    char path[256];
    uint32_t kills = 0;
    int failed = 0;

    printf("seed %llu, kills %u\n", (unsigned long long)seed, kills_max);
    if (shared == MAP_FAILED || live_directory_make(path, sizeof(path)) < 0) {
        printf("FAIL no memory or directory\n");
        return 1;
    }
    oracle_reset(&shared->oracle);
    for (; kills < kills_max && failed == 0; kills++) {
        struct worker_plan plan = {
            .path = path, .memory_bytes = MEMORY_BYTES, .store_bytes = STORE_BYTES};

        if (kills > 0 && kills % STORE_KILLS == 0) {
            failed += last_run(shared, path);
            live_directory_remove(path);
            if (live_directory_make(path, sizeof(path)) < 0) {
                failed++;
            }
            oracle_reset(&shared->oracle);
        }
        oracle_compact(&shared->oracle, 0);
        plan_choose(&random, &plan);
        if (failed == 0 && round_run(shared, &plan, &random) != 0) {
            printf("at kill %u, seed %llu; engine %u, %s\n", kills, (unsigned long long)seed,
                   plan.engine, plan.strike ? ab_os_call_name(plan.fault.call) : "by the clock");
            failed++;
        }
    }
    if (failed == 0) {
        oracle_compact(&shared->oracle, 0);
        failed += last_run(shared, path);
    }
    failed += failed == 0 ? coverage_check(shared, kills) : 0;
    report(shared, kills, started_ms);
    if (failed == 0 || getenv("ABODE_KEEP") == NULL) {
        live_directory_remove(path);
    } else {
        printf("store kept: %s\n", path);
    }
    return failed;
}

/* Lanes side by side, the kills in equal shares; how many of them failed. */
static uint32_t lanes_run(uint64_t seed, uint32_t kills, uint32_t lanes)
{
    pid_t children[LANES_MAX];
    uint32_t failed = 0;

    for (uint32_t lane = 0; lane < lanes; lane++) {
        uint32_t share = kills / lanes + (lane < kills % lanes);
        uint64_t lane_seed = seed + ((uint64_t)lane << LANE_SEED_SHIFT);

        (void)fflush(NULL);
        children[lane] = fork();
        if (children[lane] == 0) {
            int status;

            die_with_parent();
            status = lane_run(lane_seed, share) == 0 ? 0 : 1;
            (void)fflush(NULL);
            _exit(status);
        }
    }
    for (uint32_t lane = 0; lane < lanes; lane++) {
        int status = 0;
        bool ended = children[lane] > 0 && waitpid(children[lane], &status, 0) == children[lane];

        failed += !ended || status != 0;
    }
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
    uint32_t lanes = (uint32_t)live_option(argc, argv, "--lanes", LANES_DEFAULT);
    uint32_t failed;

    if (lanes == 0 || lanes > LANES_MAX) {
        fprintf(stderr, "--lanes takes 1 to %u\n", LANES_MAX);
        return 2;
    }
    failed = lanes_run(seed, kills, lanes);
    printf("%u passed, %u failed, 0 skipped\n", lanes - failed, failed);
    return failed == 0 ? 0 : 1;
}
