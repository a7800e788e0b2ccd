/*
 * test_hardship.c - what befalls a host in the field, other than kill -9.
 *
 * Goal: whatever happens to process, clocks, disk and directory, nothing promised is lost, no byte
 * is wrong, nothing hangs for good, and the host gets on when the hardship is over. Method: the
 * worker of test_kill9 (random steps, an oracle of all it was promised) lives through each hardship
 * with its threads at work, is killed, and the next life compares all that is left.
 *
 * Where a device fails or is full, calls may be refused and cache items forgotten ("rough"): then
 * only promises and bytes count. test_hardship [--seed N] [--rounds N]; ABODE_LONG=1: ten times the
 * rounds. test timeout: 900 s
 */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "crash/parent.h"

#define ROUNDS_DEFAULT 3u
#define ROUNDS_LONG 30u
#define MEMORY_BYTES (14u << 20)
#define STORE_BYTES (96u << 20)
#define MINUTE_NS (60ull * 1000 * 1000 * 1000)
#define YEAR_NS (365 * 24 * 60 * (int64_t)MINUTE_NS)
#define LINGER_MS 10000u

struct hardship {
    struct worker_shared *shared;
    struct worker_plan plan;
    char path[256];
    uint64_t random;
    uint32_t rounds;
    uint32_t lives; /* of hosts that met it */
    bool is_skipped;
};

static uint32_t below(struct hardship *now, uint32_t bound)
{
    return live_random_below(&now->random, bound);
}

static bool start(struct hardship *now, struct life *ret)
{
    now->plan.seed = live_random(&now->random);
    now->lives++;
    return life_start(now->shared, &now->plan, ret) && life_wait(now->shared, ret, WORKER_WORKING);
}

static int kill_and_look(struct hardship *now, struct life *life)
{
    return life_kill(now->shared, life) != 0 || life_last(now->shared, &now->plan) != 0;
}

/* Another opener of this store in this process: what abode_open says; closed again. */
static int open_beside(const struct hardship *now, uint32_t flags)
{
    const char *paths[] = {now->path};
    struct abode_config config;
    struct abode *runtime = NULL;
    int rc;

    abode_config_init(&config);
    config.log = live_log;
    config.flags = flags;
    config.store_paths = paths;
    config.store_path_count = 1;
    config.block_count_max = 1u << 16;
    rc = abode_open(&config, &runtime);
    if (rc == 0) {
        struct abode_verify_report report = {.struct_size = sizeof(report)};
        int verified = abode_verify(runtime, NULL, NULL, NULL, &report);

        rc = abode_close(runtime);
        rc = verified < 0 ? verified : report.blocks_bad != 0 ? -EBADMSG : rc;
    }
    return rc;
}

static int expect(const char *what, int found, int expected)
{
    if (found == expected) {
        return 0;
    }
    printf("FAIL %s: %s instead of %s\n", what, abode_strerror(found), abode_strerror(expected));
    return 1;
}

/* ---- the process ----------------------------------------------------------------------------------- */

/* The store stays the stopped host's, for however long; it goes on as if nothing had been. */
static int stopped(struct hardship *now)
{
    int failed = 0;

    now->plan.jumpy = true;
    for (uint32_t round = 0; round < now->rounds && failed == 0; round++) {
        struct life life;

        if (!start(now, &life) || !life_goes_on(now->shared, &life)) {
            return 1;
        }
        parent_sleep_us(below(now, 30000));
        (void)kill(life.pid, SIGSTOP);
        (void)waitpid(life.pid, NULL, WUNTRACED);
        parent_sleep_us(200000 + below(now, 800000));
        failed += expect("a writer beside a stopped one", open_beside(now, 0), -ABODE_ELOCKED);
        failed += expect("a reader beside a stopped writer", open_beside(now, ABODE_READ_ONLY), 0);
        /* minutes, of its clock */
        (void)atomic_fetch_add(&now->shared->clock.forward_ns, (1 + below(now, 30)) * MINUTE_NS);
        (void)kill(life.pid, SIGCONT);
        if (!life_goes_on(now->shared, &life)) {
            return 1;
        }
        failed += kill_and_look(now, &life);
    }
    return failed;
}

static int exits_in_the_middle(struct hardship *now)
{
    int failed = 0;

    for (uint32_t round = 0; round < 4 * now->rounds && failed == 0; round++) {
        struct life life;

        now->plan.threads = round % 4 == 3 ? WORKER_THREADS_MAX : 1;
        now->plan.exit_step = 1 + below(now, now->plan.threads > 1 ? 100 : 400);
        if (round > 0 && round % 4 == 3) { /* another number of threads: other names */
            worker_reset(now->shared);
            live_directory_remove(now->path);
            (void)mkdir(now->path, 0700);
        }
        failed += !start(now, &life);
        failed += failed == 0 ? life_exit(now->shared, &life, WORKER_EXIT) : 0;
        failed += failed == 0 ? life_last(now->shared, &now->plan) : 0;
        if (round % 4 == 3) {
            worker_reset(now->shared);
            live_directory_remove(now->path);
            (void)mkdir(now->path, 0700);
        }
    }
    return failed;
}

/* Children of the host call everything, and are refused; one lives on, and keeps the store locked. */
static int forked(struct hardship *now)
{
    now->plan.fork_every = 37;
    now->plan.fork_lingers = true;
    for (uint32_t round = 0; round < now->rounds; round++) {
        uint64_t end_ms = parent_ms() + LINGER_MS;
        struct life life;
        pid_t lingering;
        int rc;

        if (!start(now, &life) || !life_goes_on(now->shared, &life) ||
            !life_goes_on(now->shared, &life) || life_kill(now->shared, &life) != 0) {
            return 1;
        }
        lingering = (pid_t)atomic_exchange(&now->shared->lingering, 0);
        if (lingering == 0 || kill(lingering, 0) != 0) {
            printf("FAIL no child of the host lives on\n");
            return 1;
        }
        rc = expect("a store whose dead host's child lives", open_beside(now, 0), -ABODE_ELOCKED);
        (void)kill(lingering, SIGKILL);
        while (kill(lingering, 0) == 0 && parent_ms() < end_ms) {
            (void)waitpid(lingering, NULL, WNOHANG); /* ours where we are init's stand-in */
            parent_sleep_us(1000);
            if (open_beside(now, 0) == 0) {
                break; /* a zombie holds nothing */
            }
        }
        if (rc != 0 || life_last(now->shared, &now->plan) != 0) {
            return 1;
        }
    }
    if (parent_counts(now->shared).processes_forked == 0) {
        printf("FAIL the host has not forked\n");
        return 1;
    }
    return 0;
}

/* A reader that looks again and again, until it is killed; exit status 1: it saw damage. */
static pid_t reader_start(const struct hardship *now)
{
    pid_t pid;

    (void)fflush(NULL);
    pid = fork();
    if (pid == 0) {
        parent_die_with();
        for (;;) {
            int rc = open_beside(now, ABODE_READ_ONLY);

            if (rc != 0) {
                printf("FAIL a reader beside the writer: %s\n", abode_strerror(rc));
                (void)fflush(NULL);
                _exit(1);
            }
        }
    }
    return pid;
}

/* One writer, others refused; readers beside it; the next takes over the moment that it is dead. */
static int two_processes(struct hardship *now)
{
    struct life life;
    int failed = 0, status = 0;
    pid_t reader;

    if (!start(now, &life)) {
        return 1;
    }
    reader = reader_start(now);
    for (uint32_t round = 0; round < 4 * now->rounds && failed == 0; round++) {
        for (uint32_t attempt = 0; attempt < 5; attempt++) {
            parent_sleep_us(below(now, 20000));
            failed += expect("a second writer", open_beside(now, 0), -ABODE_ELOCKED);
        }
        failed += life_kill(now->shared, &life);
        failed += failed == 0 && !start(now, &life); /* the successor, with no pause */
    }
    if (waitpid(reader, &status, WNOHANG) == reader) {
        return 1;
    }
    (void)kill(reader, SIGKILL);
    (void)waitpid(reader, &status, 0);
    return failed + (failed == 0 && kill_and_look(now, &life));
}

/* ---- the clocks ------------------------------------------------------------------------------------ */

static void clock_move(struct hardship *now)
{
    struct clock_jump *clock = &now->shared->clock;

    switch (below(now, 4)) {
    case 0:
        atomic_store(&clock->stalled_ns, clock_jump_now(clock));
        parent_sleep_us(below(now, 40000));
        atomic_store(&clock->stalled_ns, 0);
        break;
    case 1:
        (void)atomic_fetch_add(&clock->forward_ns, below(now, 600) * MINUTE_NS);
        break;
    case 2:
        atomic_store(&clock->wall_ns, -YEAR_NS);
        break;
    default:
        atomic_store(&clock->wall_ns, YEAR_NS);
        break;
    }
}

static int clocks_jump(struct hardship *now)
{
    int failed = 0;

    now->plan.jumpy = true;
    for (uint32_t round = 0; round < 3 * now->rounds && failed == 0; round++) {
        struct life life;

        if (!start(now, &life)) {
            return 1;
        }
        for (uint32_t jump = 0; jump < 12; jump++) {
            clock_move(now);
            parent_sleep_us(below(now, 10000));
        }
        if (!life_goes_on(now->shared, &life)) {
            return 1;
        }
        failed += life_kill(now->shared, &life);
        atomic_store(&now->shared->clock.forward_ns, 0); /* as after a start of the machine */
    }
    return failed + (failed == 0 && life_last(now->shared, &now->plan) != 0);
}

/* ---- the disk -------------------------------------------------------------------------------------- */

static void ballast_set(const struct hardship *now, bool is_there)
{
    static const unsigned char bytes[65536] = {1};
    char path[300];
    int fd;

    (void)snprintf(path, sizeof(path), "%s/segments/ballast", now->path);
    if (!is_there) {
        (void)unlink(path);
        return;
    }
    fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    while (fd >= 0 && write(fd, bytes, sizeof(bytes)) == (ssize_t)sizeof(bytes)) {}
    if (fd >= 0) {
        (void)close(fd);
    }
}

/* A file system of our own, that nobody else sees; false: not allowed. */
static bool disk_make(struct hardship *now, const char *options)
{
    if (unshare(CLONE_NEWNS) != 0 || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0 ||
        mount("abode-test", now->path, "tmpfs", 0, options) != 0) {
        printf("SKIP: mount of a tmpfs is not allowed (%s): run as root\n", strerror(errno));
        now->is_skipped = true;
        return false;
    }
    return true;
}

/* Full and roomy in turns, while it works and while it opens. */
static int disk_fills(struct hardship *now)
{
    int failed = 0;

    if (!disk_make(now, "size=28m")) {
        return 0;
    }
    now->plan.rough = true;
    for (uint32_t round = 0; round < 2 * now->rounds && failed == 0; round++) {
        struct life life;

        if (!start(now, &life)) {
            return 1;
        }
        for (uint32_t turn = 0; turn < 3 && failed == 0; turn++) {
            ballast_set(now, true);
            parent_sleep_us(50000 + below(now, 100000));
            if (turn == 2 && round % 2 == 1) {
                break; /* dies, and is opened, on a full disk */
            }
            ballast_set(now, false);
            failed += !life_goes_on(now->shared, &life);
        }
        failed += failed == 0 ? life_kill(now->shared, &life) : 0;
    }
    ballast_set(now, false);
    return failed + (failed == 0 && life_last(now->shared, &now->plan) != 0);
}

/* rm -rf under a host that works: it lives, what it still shows is right, and the next one begins
 * with an empty store. */
static int directory_vanishes(struct hardship *now)
{
    int failed = 0;

    now->plan.rough = true;
    for (uint32_t round = 0; round < now->rounds && failed == 0; round++) {
        struct life life;

        if (!start(now, &life) || !life_goes_on(now->shared, &life)) {
            return 1;
        }
        live_directory_remove(now->path);
        parent_sleep_us(100000 + below(now, 200000));
        failed += life_kill(now->shared, &life);
        failed += expect("a store that is gone", open_beside(now, 0), -ENOENT);
        (void)mkdir(now->path, 0700);
        failed += expect("a store that is empty", open_beside(now, 0), -ABODE_ESTORE);
        worker_reset(now->shared);
        failed += failed == 0 && life_last(now->shared, &now->plan) != 0;
    }
    return failed;
}

/* From some call on, the device fails for good. */
static int device_fails(struct hardship *now)
{
    static const struct {
        enum ab_os_call call;
        int error;
    } faults[] = {{AB_OS_PWRITE, EROFS},     {AB_OS_PWRITE, EIO},      {AB_OS_FDATASYNC, EIO},
                  {AB_OS_FALLOCATE, ENOSPC}, {AB_OS_OPENAT, EMFILE},   {AB_OS_PREAD, EIO},
                  {AB_OS_FTRUNCATE, EROFS},  {AB_OS_RING_RESULT, EIO}, {AB_OS_FSYNC, EROFS}};
    uint32_t fault_count = sizeof(faults) / sizeof(faults[0]);
    int failed = 0;

    now->plan.rough = now->plan.strike = true;
    for (uint32_t round = 0; round < fault_count * now->rounds && failed == 0; round++) {
        uint32_t index = round % fault_count;
        struct life life;

        now->plan.engine =
            faults[index].call == AB_OS_RING_RESULT ? ABODE_IO_AUTO : ABODE_IO_THREADS;
        now->plan.fault = (struct fault_plan){.call = faults[index].call,
                                              .kind = FAULT_ERROR,
                                              .error = faults[index].error,
                                              .nth = 1 + below(now, 60),
                                              .sticky = true};
        if (!start(now, &life)) {
            return 1;
        }
        parent_sleep_us(50000 + below(now, 100000));
        failed += kill_and_look(now, &life);
        if (failed != 0) {
            printf("after %s fails with %s from call %llu on\n",
                   ab_os_call_name(faults[index].call), strerror(faults[index].error),
                   (unsigned long long)now->plan.fault.nth);
        }
    }
    return failed;
}

/* ---- all ------------------------------------------------------------------------------------------- */

static const struct {
    const char *name;
    int (*run)(struct hardship *);
} hardships[] = {{"stopped", stopped},
                 {"exit", exits_in_the_middle},
                 {"fork", forked},
                 {"two-processes", two_processes},
                 {"clocks", clocks_jump},
                 {"full-disk", disk_fills},
                 {"vanished", directory_vanishes},
                 {"failing", device_fails}};
#define HARDSHIP_COUNT (sizeof(hardships) / sizeof(hardships[0]))

/* In a process of its own: a mount ends with it. 0, 1 failed, 77 skipped. */
static int hardship_run(uint32_t index, uint64_t seed, uint32_t rounds)
{
    struct hardship now = {
        .shared = parent_shared_new(),
        .plan = {.memory_bytes = MEMORY_BYTES, .store_bytes = STORE_BYTES},
        .random = seed + index,
        .rounds = rounds,
    };
    uint64_t started_ms = parent_ms();
    int failed;

    if (now.shared == NULL || live_directory_make(now.path, sizeof(now.path)) < 0) {
        printf("FAIL no memory or directory\n");
        return 1;
    }
    now.plan.path = now.path;
    failed = hardships[index].run(&now);
    (void)umount2(now.path, MNT_DETACH);
    live_directory_remove(now.path);
    if (failed != 0) {
        printf("repeat: test_hardship --only %u --rounds %u --seed %llu\n", index + 1, rounds,
               (unsigned long long)seed);
    } else if (!now.is_skipped) {
        struct worker_counts counts = parent_counts(now.shared);

        printf("%s: %u lives, %llu promises, %llu refusals, %llu sessions and %llu bytes compared, "
               "%.1f s\n",
               hardships[index].name, now.lives, (unsigned long long)counts.promises,
               (unsigned long long)counts.refusals, (unsigned long long)counts.sessions_verified,
               (unsigned long long)counts.bytes_verified,
               (double)(parent_ms() - started_ms) / 1000);
    }
    return failed != 0 ? 1 : now.is_skipped ? 77 : 0;
}

int main(int argc, char **argv)
{
    uint64_t seed = live_seed(argc, argv);
    uint32_t rounds = (uint32_t)live_option(
        argc, argv, "--rounds", getenv("ABODE_LONG") != NULL ? ROUNDS_LONG : ROUNDS_DEFAULT);
    uint32_t only = (uint32_t)live_option(argc, argv, "--only", 0); /* 1 ..; 0: all */
    uint32_t passed = 0, failed = 0, skipped = 0;

    printf("seed %llu\n", (unsigned long long)seed);
    for (uint32_t index = 0; index < HARDSHIP_COUNT; index++) {
        int status = 0;
        pid_t child;

        if (only != 0 && only != index + 1) {
            continue;
        }
        (void)fflush(NULL);
        child = fork();
        if (child == 0) {
            int rc;

            parent_die_with();
            rc = hardship_run(index, seed, rounds);
            (void)fflush(NULL);
            _exit(rc);
        }
        (void)waitpid(child, &status, 0);
        if (WIFEXITED(status) && WEXITSTATUS(status) == 77) {
            skipped++;
        } else if (WIFEXITED(status) && WEXITSTATUS(status) == 0) {
            passed++;
        } else {
            printf("FAIL %s\n", hardships[index].name);
            failed++;
        }
    }
    printf("%u passed, %u failed, %u skipped\n", passed, failed, skipped);
    return failed == 0 ? 0 : 1;
}
