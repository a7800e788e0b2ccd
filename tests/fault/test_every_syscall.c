/*
 * test_every_syscall.c - each call of the table of syscalls fails, or is the last, along six workloads.
 *
 * Goal: whatever the kernel refuses, once or from then on, no call of abode.h crashes, hangs,
 * answers with a code that is not in its manual or gives a wrong byte; what was acknowledged is
 * found by a later open without faults, also by that of another process after a kill; nothing is
 * left over after a close. Method: sweep_workload.h, run for each (workload, engine, call, fault,
 * index of the call), in a child each. A first run counts the calls. Threads take turns as they like, so
 * the n-th call is not the same one in every run, and the last indexes may not be reached: they are
 * counted as such.
 *
 * Where there are more cases than a run may take, each group gets the same number of indexes
 * (alloc: four times as many), evenly spread from a seeded start. ABODE_LONG=1: all of them.
 *
 * test_every_syscall [--seed N] [--cases N] [--workload crowd] [--call pwrite]
 * one case, told by a failure, with ABODE_TEST_LOG=1 for the library's log:
 * test_every_syscall --workload crowd --engine uring --call pwrite --fault EIO-sticky --nth 12
 * ABODE_TEST_STORE: where the stores lie; else /dev/shm, where a sync costs nothing.
 *
 * test timeout: 1800 s
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

#define CASES_DEFAULT 3000u
#define CASES_SANITIZED 400u /* each takes several times as long there */
#define CHILDREN 2u
#define CHILD_LIMIT_S \
    240u /* a run takes some 30 ms, flush 10 s; README.md, "Machines that stall" */
#define FAILURES_TOLD 40u
#define PATH_BYTES 256

struct fault_name {
    const char *name;
    enum fault_kind kind;
    int error;
    bool sticky;
};
static const struct fault_name faults[] = {{"EIO", FAULT_ERROR, EIO, false},
                                           {"ENOSPC", FAULT_ERROR, ENOSPC, false},
                                           {"EAGAIN", FAULT_ERROR, EAGAIN, false},
                                           {"EINTR", FAULT_ERROR, EINTR, false},
                                           {"EFAULT", FAULT_ERROR, EFAULT, false},
                                           {"short", FAULT_SHORT, 0, false},
                                           {"EIO-sticky", FAULT_ERROR, EIO, true},
                                           {"ENOSPC-sticky", FAULT_ERROR, ENOSPC, true},
                                           {"EAGAIN-sticky", FAULT_ERROR, EAGAIN, true},
                                           {"EINTR-sticky", FAULT_ERROR, EINTR, true},
                                           {"EFAULT-sticky", FAULT_ERROR, EFAULT, true},
                                           {"short-sticky", FAULT_SHORT, 0, true},
                                           {"kill", FAULT_KILL, 0, false},
                                           {"tear", FAULT_TEAR, 0, false}};
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

struct one { /* a case, or what many have in common: indexes */
    uint32_t workload, engine, call, fault;
    uint64_t nth;
};
struct child {
    pid_t pid;    /* 0: none */
    bool is_heir; /* looks at what a killed one has left */
    struct one one;
    char path[PATH_BYTES];
    struct sweep_result *result; /* shared with it */
};
struct test {
    struct child children[CHILDREN];
    uint64_t counts[SWEEP_WORKLOADS][ENGINES][AB_OS_CALL_COUNT];
    uint64_t spread; /* indexes of each group, at most */
    uint64_t one_of; /* groups, if there are more than cases: one of so many, by chance */
    uint64_t random;
    const char *only_call, *only_workload; /* NULL: all */
    uint32_t rows[3];                      /* cases of R2, R5 and R6, R7 */
    uint32_t passed, failed, skipped, struck, refused;
};

/* ---- which cases there are ------------------------------------------------------------------------ */

static bool is_set_up(uint32_t call)
{
    return call == AB_OS_RING_INIT || call == AB_OS_RING_REGISTER || call == AB_OS_EVENTFD;
}

static bool fault_fits(uint32_t call, uint32_t fault)
{
    const enum fault_kind kind = faults[fault].kind;

    if (kind == FAULT_SHORT) {
        return call == AB_OS_PREAD || call == AB_OS_PWRITE || call == AB_OS_RING_RESULT;
    }
    if (kind != FAULT_ERROR) {
        return kind == FAULT_KILL || call == AB_OS_PWRITE;
    }
    /* alloc has no error but NULL; memory is what can be at fault in a registration */
    return (call != AB_OS_ALLOC || faults[fault].error == EIO) &&
           (call == AB_OS_RING_REGISTER || faults[fault].error != EFAULT) &&
           (call != AB_OS_RING_ENTER || !faults[fault].sticky); /* README: not survived */
}

/* How many indexes of this group: alloc has one fault where others have four, and most to lose. */
static uint64_t indexes_of(const struct test *test, const struct one *group, uint64_t spread)
{
    const char *workload = sweep_workload_name((enum sweep_workload)group->workload);
    const char *call = ab_os_call_name((enum ab_os_call)group->call);
    const uint64_t wanted = spread > UINT32_MAX || group->call != AB_OS_ALLOC ? spread : 4 * spread;

    if (group->call == AB_OS_CLOCK || !fault_fits(group->call, group->fault) ||
        (engines[group->engine].only_set_up && !is_set_up(group->call)) ||
        (test->only_call != NULL && strcmp(test->only_call, call) != 0) ||
        (test->only_workload != NULL && strcmp(test->only_workload, workload) != 0)) {
        return 0;
    }
    return AB_MIN(wanted, test->counts[group->workload][group->engine][group->call]);
}

/* The next (workload, engine, call, fault); false: that was the last. Workloads and engines change
 * fastest, so that a failure of one call is told whole. */
static bool group_next(struct one *group)
{
    if (++group->fault < FAULTS) {
        return true;
    }
    group->fault = 0;
    if (++group->engine < ENGINES) {
        return true;
    }
    group->engine = 0;
    if (++group->workload < SWEEP_WORKLOADS) {
        return true;
    }
    group->workload = 0;
    return ++group->call < AB_OS_CALL_COUNT;
}

static uint64_t cases_with(const struct test *test, uint64_t spread)
{
    struct one group = {0};
    uint64_t count = 0;

    do {
        count += indexes_of(test, &group, spread);
    } while (group_next(&group));
    return count;
}

/* ---- children ---------------------------------------------------------------------------------------- */

static void case_tell(const struct one *one, char ret[160])
{
    (void)snprintf(ret, 160, "--workload %s --engine %s --call %s --fault %s --nth %llu",
                   sweep_workload_name((enum sweep_workload)one->workload),
                   engines[one->engine].name, ab_os_call_name((enum ab_os_call)one->call),
                   faults[one->fault].name, (unsigned long long)one->nth);
}

static void child_run(const struct child *child)
{
    const struct fault_name *fault = &faults[child->one.fault];
    const struct sweep_plan plan = {.path = child->path,
                                    .workload = (enum sweep_workload)child->one.workload,
                                    .engine = engines[child->one.engine].engine,
                                    .strike = child->one.nth > 0,
                                    .only_verify = child->is_heir,
                                    .fault = {.call = (enum ab_os_call)child->one.call,
                                              .kind = fault->kind,
                                              .nth = child->one.nth,
                                              .error = fault->error,
                                              .sticky = fault->sticky}};

    (void)alarm(CHILD_LIMIT_S);
    exit(sweep_run(&plan, child->result));
}

static int child_fork(struct child *child)
{
    (void)fflush(NULL);
    child->pid = fork();
    if (child->pid == 0) {
        child_run(child);
    }
    return child->pid > 0 ? 0 : -1;
}

static int child_start(struct child *child, const struct one *one)
{
    if (live_directory_make(child->path, sizeof(child->path)) < 0) {
        return -1;
    }
    child->one = *one;
    child->is_heir = false;
    return child_fork(child);
}

static bool was_killed_as_planned(const struct child *child, int status)
{
    const enum fault_kind kind = faults[child->one.fault].kind;

    return !child->is_heir && (kind == FAULT_KILL || kind == FAULT_TEAR) && WIFSIGNALED(status) &&
           WTERMSIG(status) == SIGKILL;
}

/* Wait for one child, and its heir if it was killed; NULL: there is none. */
static struct child *child_end(struct test *test, int *ret_status)
{
    for (;;) { /* ends with the children, who have an alarm each */
        const pid_t pid = wait(ret_status);
        struct child *child = NULL;

        for (uint32_t index = 0; pid > 0 && index < CHILDREN; index++) {
            child = test->children[index].pid == pid ? &test->children[index] : child;
        }
        if (child != NULL && was_killed_as_planned(child, *ret_status)) {
            child->is_heir = true;
            test->struck++;
            if (child_fork(child) == 0) {
                continue;
            }
        }
        if (child != NULL) {
            child->pid = 0;
            if (*ret_status == 0 || getenv("ABODE_KEEP") == NULL) {
                live_directory_remove(child->path);
            }
        }
        return child;
    }
}

static bool case_passed(const struct child *child, int status)
{
    const struct sweep_result *result = child->result;
    char text[160];

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

/* R2: killed; R7: memory and set-up; else R5, R6. */
static uint32_t row_of(const struct one *one)
{
    const bool is_set_up_or_memory = is_set_up(one->call) || one->call == AB_OS_ALLOC ||
                                     one->call == AB_OS_MMAP || one->call == AB_OS_MBIND ||
                                     one->call == AB_OS_THREAD;

    return faults[one->fault].kind >= FAULT_KILL ? 0 : is_set_up_or_memory ? 2 : 1;
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
    test->rows[row_of(&child->one)]++;
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

/* A run without a fault; fills the counts. False: this machine refuses the engine, or all is lost. */
static bool group_count(struct test *test, uint32_t workload, uint32_t engine)
{
    const struct one one = {.workload = workload, .engine = engine};
    struct child *child = &test->children[0];
    int status = 0;

    if (child_start(child, &one) < 0 || child_end(test, &status) == NULL) {
        printf("FAIL %s: no process\n", engines[engine].name);
        test->failed++;
        return false;
    }
    const struct sweep_result *result = child->result;
    if (engines[engine].engine == ABODE_IO_URING && status == 0 &&
        result->counts[AB_OS_RING_ENTER] == 0) {
        printf("SKIP: io_uring is refused on this machine: %s\n", result->refusal_first);
        test->skipped++;
        return false;
    }
    if (status != 0 || result->refusals > 0) {
        printf("FAIL %s, %s, without any fault: %s (status %x, in %s; %u refusals: %s)\n",
               sweep_workload_name((enum sweep_workload)workload), engines[engine].name,
               result->why, (unsigned)status, result->step, result->refusals,
               result->refusal_first);
        test->failed++;
        return true;
    }
    test->passed++;
    memcpy(test->counts[workload][engine], result->counts, sizeof(result->counts));
    return true;
}

static void calls_count(struct test *test)
{
    for (uint32_t engine = 0; engine < ENGINES; engine++) {
        uint64_t all = 0;
        bool goes = true;

        for (uint32_t workload = 0; workload < SWEEP_WORKLOADS && goes; workload++) {
            goes = group_count(test, workload, engine);
            for (uint32_t call = 0; call < AB_OS_CALL_COUNT; call++) {
                all += call != AB_OS_CLOCK ? test->counts[workload][engine][call] : 0;
            }
        }
        printf("%-8s %llu calls\n", engines[engine].name, (unsigned long long)all);
    }
}

static void group_run(struct test *test, const struct one *group)
{
    const uint64_t count = test->counts[group->workload][group->engine][group->call];
    const uint64_t taken = indexes_of(test, group, test->spread);
    const uint64_t start = live_random(&test->random);
    struct one one = *group;

    if (taken > 0 && live_random(&test->random) % test->one_of != 0) {
        return;
    }
    for (uint64_t index = 0; index < taken && test->failed < FAILURES_TOLD; index++) {
        one.nth = (start + index * count / taken) % count + 1;
        case_run(test, &one);
    }
}

static void sweep(struct test *test, uint64_t cases_max)
{
    const uint32_t before = test->passed; /* the runs that counted */
    struct one group = {0};

    test->spread = 1;
    while (cases_with(test, test->spread + 1) > cases_with(test, test->spread) &&
           cases_with(test, test->spread + 1) <= cases_max) {
        test->spread++;
    }
    test->one_of = cases_max == 0 ? 1 : AB_MAX(1u, cases_with(test, test->spread) / cases_max);
    printf("%llu of %llu cases\n",
           (unsigned long long)(cases_with(test, test->spread) / test->one_of),
           (unsigned long long)cases_with(test, UINT64_MAX));
    do {
        group_run(test, &group);
    } while (group_next(&group));
    children_end(test);
    if (test->failed >= FAILURES_TOLD) {
        printf("the rest is not run\n");
    }
    printf("%u faults struck, %u runs had calls that failed\n", test->struck, test->refused);
    if (test->struck < (test->passed - before) / 2) {
        printf("FAIL most faults did not strike: the workloads are not what was counted\n");
        test->failed++;
    }
}

static void rows_tell(const struct test *test, uint64_t seed)
{
    static const char *const rows[] = {"R2", "R5", "R7"};
    static const char *const whats[] = {"kills at an index of a syscall",
                                        "errors of calls, those of fdatasync (R6) among them",
                                        "failures of memory, threads, registration"};

    for (uint32_t row = 0; row < 3; row++) {
        printf("reliability: %s %u %s; %llu indexes of each kind, seed %llu; %u violations\n",
               rows[row], test->rows[row], whats[row], (unsigned long long)test->spread,
               (unsigned long long)seed, test->failed);
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

/* Index of the option's value in the list of names; count: it is not there. */
static uint32_t name_option(int argc, char **argv, const char *option,
                            const char *(*name_of)(uint32_t index), uint32_t count)
{
    const char *text = text_option(argc, argv, option);
    uint32_t index = 0;

    while (index < count && (text == NULL || strcmp(text, name_of(index)) != 0)) {
        index++;
    }
    return index;
}

static const char *workload_name(uint32_t index)
{
    return sweep_workload_name((enum sweep_workload)index);
}

static const char *engine_name(uint32_t index)
{
    return engines[index].name;
}

static const char *call_name(uint32_t index)
{
    return ab_os_call_name((enum ab_os_call)index);
}

static const char *fault_name(uint32_t index)
{
    return faults[index].name;
}

static int one_run(struct test *test, int argc, char **argv)
{
    const struct one one = {
        .workload = name_option(argc, argv, "--workload", workload_name, SWEEP_WORKLOADS),
        .engine = name_option(argc, argv, "--engine", engine_name, ENGINES),
        .call = name_option(argc, argv, "--call", call_name, AB_OS_CALL_COUNT),
        .fault = name_option(argc, argv, "--fault", fault_name, FAULTS),
        .nth = live_option(argc, argv, "--nth", 1)};

    if (one.workload == SWEEP_WORKLOADS || one.engine == ENGINES || one.call == AB_OS_CALL_COUNT ||
        one.fault == FAULTS || !fault_fits(one.call, one.fault)) {
        fprintf(stderr, "usage: --workload NAME --engine uring|threads|sync|auto --call NAME "
                        "--fault NAME --nth N, as a failure tells them\n");
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
    if ((base != NULL && setenv("TMPDIR", base, 1) != 0) ||
        setenv("HWLOC_COMPONENTS", "-pci,-linuxio", 0) != 0) { /* slow, and of no use here */
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
    test.only_call = text_option(argc, argv, "--call");
    test.only_workload = text_option(argc, argv, "--workload");
    if (text_option(argc, argv, "--nth") != NULL) {
        return one_run(&test, argc, argv);
    }
    const uint64_t seed = live_seed(argc, argv);
    test.random = seed;
    printf("seed %llu\n", (unsigned long long)seed);
    if (is_sanitized && strcmp(sanitizer, "thread") == 0) {
        printf("threads left over are not counted: ThreadSanitizer has its own\n");
    }
    calls_count(&test);
    if (test.failed == 0) {
        sweep(&test, live_option(argc, argv, "--cases", cases));
    }
    rows_tell(&test, seed);
    printf("%u passed, %u failed, %u skipped\n", test.passed, test.failed, test.skipped);
    return test.failed == 0 ? 0 : 1;
}
