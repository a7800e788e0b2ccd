/*
 * test_every_syscall.c - each call of the table of syscalls fails once, along one workload.
 *
 * Goal: whatever the kernel refuses, once and anywhere, no call of abode.h crashes, hangs, answers
 * with a code that is not in its manual or gives a wrong byte; what was acknowledged is found by a
 * later open without faults; nothing is left over after a close. Method: sweep_workload.h, run once
 * for each (engine, call, index of the call, EIO | ENOSPC | EAGAIN | EINTR | short), each in a child.
 * A first run counts the calls. Threads take turns as they like, so the n-th call is not the same
 * one in every run, and the last indexes may not be reached: they are counted as such.
 *
 * Where there are more cases than a run may take, each (engine, call, fault) gets the same number of
 * indexes (alloc: four times as many), evenly spread from a seeded start. ABODE_LONG=1: all of them.
 *
 * test_every_syscall [--seed N] [--cases N] [--call pwrite]
 * test_every_syscall --engine uring --call pwrite --nth 12 --fault EIO    one case; ABODE_TEST_LOG=1
 * ABODE_TEST_STORE: where the stores lie; else /dev/shm, where a sync costs nothing.
 *
 * test timeout: 600 s
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/num.h"
#include "fault/sweep_workload.h"

#define CASES_DEFAULT 800u
#define CASES_SANITIZED 300u /* each takes several times as long there */
#define CHILDREN 2u
#define CHILD_LIMIT_S 20u /* a run takes some 30 ms; flush, the slowest that may wait, 10 s */
#define FAILURES_TOLD 40u
#define PATH_BYTES 256

struct fault_name {
    const char *name;
    enum fault_kind kind;
    int error;
};
static const struct fault_name faults[] = {{"EIO", FAULT_ERROR, EIO},
                                           {"ENOSPC", FAULT_ERROR, ENOSPC},
                                           {"EAGAIN", FAULT_ERROR, EAGAIN},
                                           {"EINTR", FAULT_ERROR, EINTR},
                                           {"short", FAULT_SHORT, 0}};
struct engine_name {
    const char *name;
    uint32_t engine;
    bool only_set_up; /* as another one, but for what falls back */
};
static const struct engine_name engines[] = {{"uring", ABODE_IO_URING, false},
                                             {"threads", ABODE_IO_THREADS, false},
                                             {"sync", ABODE_IO_SYNC, false},
                                             {"auto", ABODE_IO_AUTO, true}};
#define ENGINES (sizeof(engines) / sizeof(engines[0]))
#define FAULTS (sizeof(faults) / sizeof(faults[0]))

struct one {                      /* a case */
    uint32_t engine, call, fault; /* indexes */
    uint64_t nth;
};
struct child {
    pid_t pid; /* 0: none */
    struct one one;
    char path[PATH_BYTES];
    struct sweep_result *result; /* shared with it */
};
struct test {
    struct child children[CHILDREN];
    uint64_t counts[ENGINES][AB_OS_CALL_COUNT];
    uint64_t spread; /* indexes of each (engine, call, fault), at most */
    uint64_t random;
    const char *only; /* this call; NULL: all */
    uint32_t passed, failed, skipped, struck, refused;
};

/* ---- which cases there are ------------------------------------------------------------------------ */

static bool case_is_possible(const struct test *test, uint32_t engine, uint32_t call,
                             uint32_t fault)
{
    const bool is_set_up =
        call == AB_OS_RING_INIT || call == AB_OS_RING_REGISTER || call == AB_OS_EVENTFD;

    if (test->only != NULL && strcmp(test->only, ab_os_call_name((enum ab_os_call)call)) != 0) {
        return false;
    }
    if (call == AB_OS_CLOCK || (engines[engine].only_set_up && !is_set_up)) {
        return false;
    }
    if (faults[fault].kind == FAULT_SHORT) {
        return call == AB_OS_PREAD || call == AB_OS_PWRITE || call == AB_OS_RING_RESULT;
    }
    return call != AB_OS_ALLOC || fault == 0; /* alloc has no error but NULL */
}

/* How many indexes of this group: alloc has one fault where others have four, and most to lose. */
static uint64_t indexes_of(const struct test *test, uint64_t spread, uint32_t engine, uint32_t call)
{
    const uint64_t wanted = spread > UINT32_MAX || call != AB_OS_ALLOC ? spread : 4 * spread;

    return AB_MIN(wanted, test->counts[engine][call]);
}

static uint64_t cases_with(const struct test *test, uint64_t spread)
{
    uint64_t count = 0;

    for (uint32_t engine = 0; engine < ENGINES; engine++) {
        for (uint32_t call = 0; call < AB_OS_CALL_COUNT; call++) {
            for (uint32_t fault = 0; fault < FAULTS; fault++) {
                count += case_is_possible(test, engine, call, fault)
                             ? indexes_of(test, spread, engine, call)
                             : 0;
            }
        }
    }
    return count;
}

/* ---- children ---------------------------------------------------------------------------------------- */

static void case_tell(const struct one *one, char ret[128])
{
    (void)snprintf(ret, 128, "--engine %s --call %s --nth %llu --fault %s",
                   engines[one->engine].name, ab_os_call_name((enum ab_os_call)one->call),
                   (unsigned long long)one->nth, faults[one->fault].name);
}

static void child_run(const struct child *child)
{
    const struct sweep_plan plan = {.path = child->path,
                                    .engine = engines[child->one.engine].engine,
                                    .strike = child->one.nth > 0,
                                    .fault = {.call = (enum ab_os_call)child->one.call,
                                              .kind = faults[child->one.fault].kind,
                                              .nth = child->one.nth,
                                              .error = faults[child->one.fault].error}};

    (void)alarm(CHILD_LIMIT_S);
    exit(sweep_run(&plan, child->result));
}

static int child_start(struct child *child, const struct one *one)
{
    if (live_directory_make(child->path, sizeof(child->path)) < 0) {
        return -1;
    }
    child->one = *one;
    (void)fflush(NULL);
    child->pid = fork();
    if (child->pid == 0) {
        child_run(child);
    }
    return child->pid > 0 ? 0 : -1;
}

/* Wait for one child; NULL: there is none. */
static struct child *child_end(struct test *test, int *ret_status)
{
    const pid_t pid = wait(ret_status);

    for (uint32_t index = 0; pid > 0 && index < CHILDREN; index++) {
        struct child *child = &test->children[index];

        if (child->pid == pid) {
            child->pid = 0;
            if (*ret_status == 0 || getenv("ABODE_KEEP") == NULL) {
                live_directory_remove(child->path);
            }
            return child;
        }
    }
    return NULL;
}

static bool case_passed(const struct child *child, int status)
{
    const struct sweep_result *result = child->result;
    char text[128];

    case_tell(&child->one, text);
    if (status == 0 && result->why[0] == '\0') {
        return true;
    }
    if (WIFSIGNALED(status)) {
        printf("FAIL %s: %s (signal %d) in %s\n", text,
               WTERMSIG(status) == SIGALRM ? "hangs" : "dies", WTERMSIG(status), result->step);
    } else {
        printf("FAIL %s: exit %d: %s; first refusal: %s\n", text, WEXITSTATUS(status), result->why,
               result->refusal_first);
    }
    return false;
}

static void child_reap(struct test *test)
{
    int status = 0;
    const struct child *child = child_end(test, &status);

    if (child == NULL) {
        return;
    }
    if (case_passed(child, status)) {
        test->passed++;
    } else {
        test->failed++;
    }
    test->struck += child->result->strikes > 0;
    test->refused += child->result->refusals > 0;
}

static void case_run(struct test *test, const struct one *one)
{
    struct child *free_one = NULL;

    while (free_one == NULL) {
        for (uint32_t index = 0; index < CHILDREN && free_one == NULL; index++) {
            free_one = test->children[index].pid == 0 ? &test->children[index] : NULL;
        }
        if (free_one == NULL) {
            child_reap(test);
        }
    }
    if (child_start(free_one, one) < 0) {
        printf("FAIL a process or a directory could not be made: %s\n", strerror(errno));
        test->failed++;
    }
}

static void children_end(struct test *test)
{
    for (uint32_t index = 0; index < CHILDREN; index++) {
        while (test->children[index].pid != 0) {
            child_reap(test);
        }
    }
}

/* ---- the sweep ----------------------------------------------------------------------------------------- */

/* A run without a fault; fills the counts. An engine that this machine refuses is skipped. */
static void engine_count(struct test *test, uint32_t engine)
{
    const struct one one = {.engine = engine};
    struct child *child = &test->children[0];
    uint64_t all = 0;
    int status = 0;

    if (child_start(child, &one) < 0 || child_end(test, &status) == NULL) {
        printf("FAIL %s: no process\n", engines[engine].name);
        test->failed++;
        return;
    }
    if (engines[engine].engine == ABODE_IO_URING && child->result->life == 3 &&
        child->result->counts[AB_OS_RING_ENTER] == 0) {
        printf("SKIP: io_uring is refused on this machine: %s\n", child->result->refusal_first);
        test->skipped++;
        return;
    }
    if (status != 0 || child->result->refusals > 0) {
        printf("FAIL %s without any fault: %s (status %x, in %s; %u refusals: %s)\n",
               engines[engine].name, child->result->why, (unsigned)status, child->result->step,
               child->result->refusals, child->result->refusal_first);
        test->failed++;
        return;
    }
    test->passed++;
    for (uint32_t call = 0; call < AB_OS_CALL_COUNT; call++) {
        test->counts[engine][call] = child->result->counts[call];
        all += call != AB_OS_CLOCK ? child->result->counts[call] : 0;
    }
    printf("%-8s %llu calls, %llu KiB compared\n", engines[engine].name, (unsigned long long)all,
           (unsigned long long)(child->result->bytes_compared >> 10));
}

static void group_run(struct test *test, uint32_t engine, uint32_t call, uint32_t fault)
{
    const uint64_t count = test->counts[engine][call];
    const uint64_t taken = indexes_of(test, test->spread, engine, call);
    const uint64_t start = live_random(&test->random);

    if (!case_is_possible(test, engine, call, fault)) {
        return;
    }
    for (uint64_t index = 0; index < taken; index++) {
        const struct one one = {.engine = engine,
                                .call = call,
                                .fault = fault,
                                .nth = (start + index * count / taken) % count + 1};
        case_run(test, &one);
    }
}

static void sweep(struct test *test, uint64_t cases_max)
{
    const uint32_t before = test->passed; /* the runs that counted */

    test->spread = 1;
    while (cases_with(test, test->spread + 1) > cases_with(test, test->spread) &&
           cases_with(test, test->spread + 1) <= cases_max) {
        test->spread++;
    }
    printf("%llu of %llu cases\n", (unsigned long long)cases_with(test, test->spread),
           (unsigned long long)cases_with(test, UINT64_MAX));
    for (uint32_t call = 0; call < AB_OS_CALL_COUNT; call++) {
        const uint32_t failed = test->failed;

        for (uint32_t engine = 0; engine < ENGINES && test->failed < FAILURES_TOLD; engine++) {
            for (uint32_t fault = 0; fault < FAULTS && test->failed < FAILURES_TOLD; fault++) {
                group_run(test, engine, call, fault);
            }
        }
        children_end(test);
        if (test->failed > failed) {
            printf("%s: %u failed\n", ab_os_call_name((enum ab_os_call)call),
                   test->failed - failed);
        }
    }
    if (test->failed >= FAILURES_TOLD) {
        printf("the rest is not run\n");
    }
    printf("%u faults struck, %u runs had calls that failed\n", test->struck, test->refused);
    if (test->struck < (test->passed - before) / 2) {
        printf("FAIL most faults did not strike: the workload is not what was counted\n");
        test->failed++;
    }
}

/* ---- options --------------------------------------------------------------------------------------------- */

static const char *text_option(int argc, char **argv, const char *name)
{
    for (int index = 1; index + 1 < argc; index++) {
        if (strcmp(argv[index], name) == 0) {
            return argv[index + 1];
        }
    }
    return NULL;
}

static int one_parse(int argc, char **argv, struct one *ret)
{
    const char *engine = text_option(argc, argv, "--engine");
    const char *call = text_option(argc, argv, "--call");
    const char *fault = text_option(argc, argv, "--fault");
    bool is_known[3] = {false};

    ret->nth = live_option(argc, argv, "--nth", 1);
    for (uint32_t index = 0; engine != NULL && index < ENGINES; index++) {
        if (strcmp(engine, engines[index].name) == 0) {
            ret->engine = index;
            is_known[0] = true;
        }
    }
    for (uint32_t index = 0; call != NULL && index < AB_OS_CALL_COUNT; index++) {
        if (strcmp(call, ab_os_call_name((enum ab_os_call)index)) == 0) {
            ret->call = index;
            is_known[1] = true;
        }
    }
    for (uint32_t index = 0; fault != NULL && index < FAULTS; index++) {
        if (strcmp(fault, faults[index].name) == 0) {
            ret->fault = index;
            is_known[2] = true;
        }
    }
    return is_known[0] && is_known[1] && is_known[2] ? 0 : -1;
}

static int one_run(struct test *test, int argc, char **argv)
{
    struct one one = {0};

    if (one_parse(argc, argv, &one) < 0 ||
        !case_is_possible(test, one.engine, one.call, one.fault)) {
        fprintf(stderr, "usage: --engine uring|threads|sync|auto --call NAME --nth N "
                        "--fault EIO|ENOSPC|EAGAIN|EINTR|short\n");
        return 2;
    }
    case_run(test, &one);
    children_end(test);
    printf("%llu strikes; first refusal: %s\n",
           (unsigned long long)test->children[0].result->strikes,
           test->children[0].result->refusal_first);
    printf("%u passed, %u failed, 0 skipped\n", test->passed, test->failed);
    return test->failed != 0;
}

int main(int argc, char **argv)
{
    static struct test test;
    const char *base = getenv("ABODE_TEST_STORE"), *sanitizer = getenv("ABODE_SANITIZE");
    const bool is_sanitized = sanitizer != NULL && sanitizer[0] != '\0';
    uint64_t cases = getenv("ABODE_LONG") != NULL ? UINT64_MAX
                     : is_sanitized               ? CASES_SANITIZED
                                                  : CASES_DEFAULT;

    base = base != NULL ? base : access("/dev/shm", W_OK) == 0 ? "/dev/shm" : NULL;
    if (base != NULL && setenv("TMPDIR", base, 1) != 0) {
        return 1;
    }
    for (uint32_t index = 0; index < CHILDREN; index++) {
        test.children[index].result =
            mmap(NULL, sizeof(struct sweep_result), PROT_READ | PROT_WRITE,
                 MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        if (test.children[index].result == MAP_FAILED) {
            return 1;
        }
    }
    test.only = text_option(argc, argv, "--call");
    if (text_option(argc, argv, "--nth") != NULL) {
        return one_run(&test, argc, argv);
    }
    test.random = live_seed(argc, argv);
    printf("seed %llu\n", (unsigned long long)test.random);
    if (is_sanitized && strcmp(sanitizer, "thread") == 0) {
        printf("threads left over are not counted: ThreadSanitizer has its own\n");
    }
    for (uint32_t engine = 0; engine < ENGINES; engine++) {
        engine_count(&test, engine);
    }
    if (test.failed == 0) {
        sweep(&test, live_option(argc, argv, "--cases", cases));
    }
    printf("%u passed, %u failed, %u skipped\n", test.passed, test.failed, test.skipped);
    return test.failed == 0 ? 0 : 1;
}
