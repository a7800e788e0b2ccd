/*
 * test_engines.c - io_uring, the thread pool, sync, and io_uring refused: the same answers.
 *
 * Goal: which engine moves the bytes shows in no status, count or byte. Method: the same seeded
 * random operations (differential.h), seed after seed, in a process for each engine, on stores of
 * their own; one of the processes has a seccomp filter that refuses io_uring, and is told to use
 * what it can. The digests of each seed must agree. After many short runs comes a long one.
 * Where io_uring is refused on this machine, its runs are skipped, and said.
 *
 * test_engines [--seed N] [--seeds N] [--steps N]; ABODE_LONG=1: more of all
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "fault/differential.h"
#include "fault/refuse.h"

#define SEEDS_DEFAULT 1000u
#define SEEDS_SANITIZED 60u
#define SEEDS_LONG 5000u
#define SEEDS_MAX 100000u
#define STEPS_DEFAULT 64u
#define STEPS_LAST 1500u /* of the last seed */
#define STEPS_LAST_LONG 60000u
#define FAILURES_TOLD 20u
#define LANES (sizeof(lanes) / sizeof(lanes[0]))

struct lane {
    const char *name;
    uint32_t io;     /* as configured */
    uint32_t engine; /* that it must come to */
    bool is_refused; /* io_uring, by a seccomp filter */
};
static const struct lane lanes[] = {
    {"sync", ABODE_IO_SYNC, ABODE_IO_SYNC, false}, /* the others are compared with it */
    {"threads", ABODE_IO_THREADS, ABODE_IO_THREADS, false},
    {"io_uring", ABODE_IO_URING, ABODE_IO_URING, false},
    {"io_uring refused by seccomp", ABODE_IO_AUTO, ABODE_IO_THREADS, true},
};

struct outcome {   /* of a lane; shared with its process */
    uint32_t done; /* seeds */
    int32_t engine;
    int32_t failed; /* the code of the seed that `done` is at; 0: none */
    uint64_t bytes_compared;
    char why[LIVE_WHY_MAX * 2];
    uint64_t digests[SEEDS_MAX + 1];
    uint32_t parts[64]; /* of the long run: where two runs parted */
};
struct test {
    const char *memory, *disk; /* where the stores of the short runs lie, and of the long one */
    uint64_t seed;
    uint32_t seeds, steps, steps_last;
    struct outcome *outcomes[4];
};

static uint32_t steps_of(const struct test *test, uint32_t index)
{
    return index < test->seeds ? test->steps : test->steps_last;
}

/* Seed after seed, the long run last. */
static int lane_run(const struct test *test, const struct lane *lane, struct outcome *outcome)
{
    static struct differential_result result;
    static const struct refuse_rule rules[] = {{SYS_io_uring_setup, 0, EPERM}};
    int rc = lane->is_refused ? refuse(rules, 1) : 0;

    for (uint32_t index = 0; index <= test->seeds && rc >= 0; index++) {
        char path[256];
        struct differential_plan plan = {.path = path,
                                         .io = lane->io,
                                         .seed = test->seed + index,
                                         .step_count = steps_of(test, index)};

        const char *base = index < test->seeds ? test->memory : test->disk;
        rc = setenv("TMPDIR", base, 1) == 0 ? 0 : -errno;
        rc = rc < 0 ? rc : live_directory_make(path, sizeof(path));
        rc = rc < 0 ? rc : differential_run(&plan, &result);
        live_directory_remove(path);
        outcome->done = index + (rc >= 0);
        outcome->engine = result.engine;
        outcome->bytes_compared += result.bytes_compared;
        outcome->digests[index] = result.digest;
        (void)snprintf(outcome->why, sizeof(outcome->why), "%s",
                       rc < 0 ? result.why : result.engine_text);
        if (result.engine != (int32_t)lane->engine) {
            break; /* the machine refuses this one */
        }
    }
    memcpy(outcome->parts, result.digests, sizeof(outcome->parts));
    outcome->failed = rc;
    return rc < 0;
}

static void repeat_tell(const struct test *test, uint32_t index)
{
    printf("    again: test_engines --seed %llu --seeds %d --steps %u\n",
           (unsigned long long)(test->seed + index), index < test->seeds, steps_of(test, index));
}

/* Seeds whose answers are those of sync. */
static uint32_t lane_compare(const struct test *test, const struct lane *lane, uint32_t *told)
{
    const struct outcome *outcome = test->outcomes[lane - lanes], *sync = test->outcomes[0];
    uint32_t agreed = 0;

    for (uint32_t index = 0; index < outcome->done && index < sync->done; index++) {
        uint32_t part = 0;

        if (outcome->digests[index] == sync->digests[index]) {
            agreed++;
            continue;
        }
        while (part < 63 && outcome->parts[part] == sync->parts[part]) {
            part++;
        }
        if ((*told)++ < FAILURES_TOLD) {
            printf("FAIL %s: other answers than sync%s\n", lane->name,
                   index == test->seeds ? " in the long run" : "");
            if (index == test->seeds) {
                printf("    first in steps %u to %u\n", part * test->steps_last / 64,
                       (part + 1) * test->steps_last / 64);
            }
            repeat_tell(test, index);
        }
    }
    return agreed;
}

/* 0 passed, 1 failed, 77 skipped */
static int lane_judge(const struct test *test, const struct lane *lane, int status)
{
    const struct outcome *outcome = test->outcomes[lane - lanes];
    uint32_t told = 0;

    if (outcome->failed == 0 && status == 0 && outcome->engine != (int32_t)lane->engine) {
        printf("SKIP: %s is refused here: %s\n", lane->name, outcome->why);
        return 77;
    }
    if (status != 0) {
        printf("FAIL %s: %s (status %x)\n", lane->name, outcome->why, (unsigned)status);
        repeat_tell(test, outcome->done);
        return 1;
    }
    const uint32_t agreed = lane_compare(test, lane, &told);
    printf("%s: %u runs, %llu bytes compared\n", lane->name, agreed,
           (unsigned long long)outcome->bytes_compared);
    return told > 0;
}

static int lanes_run(const struct test *test)
{
    int counts[2] = {0}, skipped = 0;
    pid_t pids[LANES];

    (void)fflush(NULL);
    for (uint32_t lane = 0; lane < LANES; lane++) {
        pids[lane] = fork();
        if (pids[lane] == 0) {
            exit(lane_run(test, &lanes[lane], test->outcomes[lane]));
        }
    }
    for (uint32_t lane = 0; lane < LANES; lane++) {
        int status = -1;
        (void)waitpid(pids[lane], &status, 0);
        const int verdict = lane_judge(test, &lanes[lane], status);
        skipped += verdict == 77;
        counts[verdict != 0] += verdict != 77;
    }
    printf("reliability: R12 %u seeds on %zu engines; seeds %llu-%llu; %d violations\n",
           test->seeds + 1, LANES - (size_t)skipped, (unsigned long long)test->seed,
           (unsigned long long)test->seed + test->seeds, counts[1]);
    printf("%d passed, %d failed, %d skipped\n", counts[0], counts[1], skipped);
    return counts[1] == 0 ? 0 : 1;
}

int main(int argc, char **argv)
{
    const char *base = getenv("ABODE_TEST_STORE"), *sanitizer = getenv("ABODE_SANITIZE");
    const char *disk = getenv("TMPDIR");
    const bool is_long = getenv("ABODE_LONG") != NULL;
    const uint32_t seeds = is_long                                  ? SEEDS_LONG
                           : sanitizer != NULL && sanitizer[0] != 0 ? SEEDS_SANITIZED
                                                                    : SEEDS_DEFAULT;
    struct test test = {.seed = live_seed(argc, argv)};

    test.seeds = (uint32_t)live_option(argc, argv, "--seeds", seeds);
    test.steps = (uint32_t)live_option(argc, argv, "--steps", STEPS_DEFAULT);
    test.steps_last =
        (uint32_t)live_option(argc, argv, "--steps", is_long ? STEPS_LAST_LONG : STEPS_LAST);
    test.disk = base != NULL ? base : disk != NULL ? disk : "/tmp";
    test.memory = base != NULL || access("/dev/shm", W_OK) != 0 ? test.disk : "/dev/shm";
    if (test.seeds > SEEDS_MAX ||
        setenv("HWLOC_COMPONENTS", "-pci,-linuxio", 0) != 0) { /* slow, and of no use here */
        return 2;
    }
    for (uint32_t lane = 0; lane < LANES; lane++) {
        test.outcomes[lane] = mmap(NULL, sizeof(struct outcome), PROT_READ | PROT_WRITE,
                                   MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        if (test.outcomes[lane] == MAP_FAILED) {
            return 1;
        }
    }
    printf("seed %llu, %u seeds of %u steps, one of %u\n", (unsigned long long)test.seed,
           test.seeds, test.steps, test.steps_last);
    return lanes_run(&test);
}
