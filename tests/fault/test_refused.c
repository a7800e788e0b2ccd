/*
 * test_refused.c - a kernel, container or file system that says no: works, and says so.
 *
 * Goal: with io_uring, registered buffers, O_DIRECT, mbind or move_pages refused, every answer is
 * the same as on a machine that allows all, and abode_support_get() names what was refused, with
 * the kernel's own code and what to do about it. Method: a child for each case, with a real seccomp
 * filter (hand-made: what a container runtime would install), a real memlock limit as a user
 * without privileges, a real file system without O_DIRECT; the random operations of differential.h,
 * whose digest must be that of an unhindered run.
 *
 * test_refused [--seed N]
 */
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "fault/differential.h"
#include "fault/refuse.h"

#define STEPS 400u
#define RUN_LIMIT_S 120
#define NOBODY 65534u
#define MEMLOCK_BYTES 65536u

struct refusal {
    const char *name;
    struct refuse_rule rules[REFUSE_RULES_MAX];
    uint32_t rule_count;
    const char *base;     /* where the store lies; NULL: the usual temporary directory */
    bool is_unprivileged; /* as nobody, with a small memlock limit */
    bool no_direct_io;    /* skipped where the file system under `base` has O_DIRECT */
    /* what support must say: -1 anything */
    int engine, engine_reason, direct_io, node_binding, node_binding_reason, fixed_buffers;
    const char *mend; /* a word that the text must have */
};

static const struct refusal refusals[] = {
    {.name = "nothing refused",
     .engine = -1,
     .direct_io = -1,
     .node_binding = -1,
     .fixed_buffers = -1},
    {.name = "io_uring refused by seccomp (EPERM)",
     .rules = {{SYS_io_uring_setup, 0, EPERM},
               {SYS_io_uring_enter, 0, EPERM},
               {SYS_io_uring_register, 0, EPERM}},
     .rule_count = 3,
     .engine = ABODE_IO_THREADS,
     .engine_reason = -EPERM,
     .direct_io = -1,
     .node_binding = -1,
     .fixed_buffers = -1,
     .mend = "seccomp"},
    {.name = "io_uring not in the kernel (ENOSYS)",
     .rules = {{SYS_io_uring_setup, 0, ENOSYS},
               {SYS_io_uring_enter, 0, ENOSYS},
               {SYS_io_uring_register, 0, ENOSYS}},
     .rule_count = 3,
     .engine = ABODE_IO_THREADS,
     .engine_reason = -ENOSYS,
     .direct_io = -1,
     .node_binding = -1,
     .fixed_buffers = -1,
     .mend = "Linux"},
    {.name = "memlock limit too small",
     .is_unprivileged = true,
     .engine = -1,
     .direct_io = -1,
     .node_binding = -1,
     .fixed_buffers = 0,
     .mend = "memlock"},
    {.name = "tmpfs",
     .base = "/dev/shm",
     .no_direct_io = true,
     .engine = -1,
     .direct_io = 0,
     .node_binding = -1,
     .fixed_buffers = -1,
     .mend = "O_DIRECT"},
    {.name = "O_DIRECT refused at open",
     .rules = {{SYS_openat, O_DIRECT, EINVAL}},
     .rule_count = 1,
     .engine = -1,
     .direct_io = 0,
     .node_binding = -1,
     .fixed_buffers = -1,
     .mend = "O_DIRECT"},
    {.name = "mbind refused by seccomp",
     .rules = {{SYS_mbind, 0, EPERM}, {SYS_set_mempolicy, 0, EPERM}},
     .rule_count = 2,
     .engine = -1,
     .direct_io = -1,
     .node_binding = 1,
     .node_binding_reason = -EPERM,
     .fixed_buffers = -1,
     .mend = "CAP_SYS_NICE"},
    {.name = "move_pages refused by seccomp",
     .rules = {{SYS_move_pages, 0, EPERM}},
     .rule_count = 1,
     .engine = -1,
     .direct_io = -1,
     .node_binding = -1,
     .fixed_buffers = -1},
    {.name = "a default container: io_uring, mbind and move_pages refused",
     .rules = {{SYS_io_uring_setup, 0, EPERM},
               {SYS_mbind, 0, EPERM},
               {SYS_set_mempolicy, 0, EPERM},
               {SYS_get_mempolicy, 0, EPERM},
               {SYS_move_pages, 0, EPERM}},
     .rule_count = 5,
     .engine = ABODE_IO_THREADS,
     .engine_reason = -EPERM,
     .direct_io = -1,
     .node_binding = 1,
     .node_binding_reason = -EPERM,
     .fixed_buffers = -1,
     .mend = "seccomp"},
};

/* ---- saying no ----------------------------------------------------------------------------------- */

static int privileges_drop(const char *path)
{
    const struct rlimit limit = {.rlim_cur = MEMLOCK_BYTES, .rlim_max = MEMLOCK_BYTES};

    if (setrlimit(RLIMIT_MEMLOCK, &limit) != 0) {
        return -errno;
    }
    if (geteuid() != 0) {
        return 0; /* an ordinary user's limit binds already */
    }
    if (chown(path, NOBODY, NOBODY) != 0 || setgroups(0, NULL) != 0 ||
        setresgid(NOBODY, NOBODY, NOBODY) != 0 || setresuid(NOBODY, NOBODY, NOBODY) != 0) {
        return -errno;
    }
    return 0;
}

static bool directory_has_direct_io(const char *path)
{
    char file[300];
    int fd;

    (void)snprintf(file, sizeof(file), "%s/probe", path);
    fd = open(file, O_RDWR | O_CREAT | O_DIRECT | O_CLOEXEC, 0600);
    if (fd >= 0) {
        (void)close(fd);
    }
    (void)unlink(file);
    return fd >= 0;
}

/* ---- what must be said --------------------------------------------------------------------------- */

static int say_wrong(struct differential_result *result, const char *what, int got, int wanted,
                     const char *text)
{
    (void)snprintf(result->why, sizeof(result->why), "%s is %d, wanted %d; text: \"%.200s\"", what,
                   got, wanted, text);
    return -EBADMSG;
}

static int text_check(struct differential_result *result, const struct refusal *refusal)
{
    const char *texts[] = {result->engine_text, result->fixed_buffers_text, result->direct_io_text,
                           result->node_binding_text};

    if (refusal->mend == NULL) {
        return 0;
    }
    for (uint32_t index = 0; index < 4; index++) {
        if (strcasestr(texts[index], refusal->mend) != NULL) {
            return 0;
        }
    }
    (void)snprintf(result->why, sizeof(result->why),
                   "no text says \"%s\": \"%.90s\" \"%.90s\" \"%.90s\" \"%.90s\"", refusal->mend,
                   texts[0], texts[1], texts[2], texts[3]);
    return -EBADMSG;
}

static int support_check(struct differential_result *result, const struct refusal *refusal)
{
    if (refusal->engine >= 0 && result->engine != refusal->engine) {
        return say_wrong(result, "engine", result->engine, refusal->engine, result->engine_text);
    }
    if (refusal->engine >= 0 && result->engine_reason != refusal->engine_reason) {
        return say_wrong(result, "engine's reason", result->engine_reason, refusal->engine_reason,
                         result->engine_text);
    }
    if (refusal->fixed_buffers >= 0 && result->engine == ABODE_IO_URING &&
        (result->fixed_buffers != refusal->fixed_buffers || result->fixed_buffers_reason >= 0)) {
        return say_wrong(result, "fixed buffers' reason", result->fixed_buffers_reason, -ENOMEM,
                         result->fixed_buffers_text);
    }
    if (refusal->direct_io >= 0 &&
        (result->direct_io != refusal->direct_io || result->direct_io_reason >= 0)) {
        return say_wrong(result, "direct I/O's reason", result->direct_io_reason, -EINVAL,
                         result->direct_io_text);
    }
    if (refusal->node_binding >= 0 &&
        (result->node_binding != refusal->node_binding ||
         result->node_binding_reason != refusal->node_binding_reason)) {
        return say_wrong(result, "node binding's reason", result->node_binding_reason,
                         refusal->node_binding_reason, result->node_binding_text);
    }
    /* without move_pages the kernel is asked through numa_maps */
    if (result->places == 0 || result->places_verified != result->places) {
        return say_wrong(result, "verified places", (int)result->places_verified,
                         (int)result->places, "");
    }
    return text_check(result, refusal);
}

/* ---- a case ---------------------------------------------------------------------------------------- */

static int child_run(const struct refusal *refusal, const char *path, uint64_t seed,
                     struct differential_result *result)
{
    struct differential_plan plan = {
        .path = path, .io = ABODE_IO_AUTO, .seed = seed, .step_count = STEPS};
    int rc = refusal->is_unprivileged ? privileges_drop(path) : 0;

    if (rc == 0 && refusal->rule_count > 0) {
        rc = refuse(refusal->rules, refusal->rule_count);
    }
    if (rc < 0) {
        (void)snprintf(result->why, sizeof(result->why), "cannot set up the refusal: %s",
                       strerror(-rc));
        return 1;
    }
    (void)alarm(RUN_LIMIT_S);
    return differential_run(&plan, result) < 0 || support_check(result, refusal) < 0;
}

/* 0 passed, 1 failed, 77 skipped */
static int refusal_run(const struct refusal *refusal, uint64_t seed, uint64_t *digest,
                       struct differential_result *result)
{
    char path[256];
    int status = 0;
    pid_t child;

    if (refusal->base != NULL) {
        if (setenv("TMPDIR", refusal->base, 1) != 0) {
            return 1;
        }
    }
    if (live_directory_make(path, sizeof(path)) < 0) {
        printf("SKIP: no directory can be made in %s\n", refusal->base);
        return 77;
    }
    if (refusal->no_direct_io && directory_has_direct_io(path)) {
        printf("SKIP: %s has O_DIRECT on this kernel\n", refusal->base);
        live_directory_remove(path);
        return 77;
    }
    memset(result, 0, sizeof(*result));
    (void)fflush(NULL);
    child = fork();
    if (child == 0) {
        exit(child_run(refusal, path, seed, result));
    }
    if (child < 0 || waitpid(child, &status, 0) != child || status != 0) {
        printf("FAIL %s: status %x: %s\n", refusal->name, (unsigned)status, result->why);
        live_directory_remove(path);
        return 1;
    }
    live_directory_remove(path);
    if (*digest == 0) {
        *digest = result->digest; /* of the first case, where nothing is refused */
    }
    if (result->digest != *digest) {
        printf("FAIL %s: other answers than with nothing refused\n", refusal->name);
        return 1;
    }
    printf("PASS %s: engine %d, O_DIRECT %d, binding %d, places verified %u of %u\n", refusal->name,
           result->engine, result->direct_io, result->node_binding, result->places_verified,
           result->places);
    return 0;
}

int main(int argc, char **argv)
{
    uint64_t seed = live_seed(argc, argv), digest = 0;
    const char *temporary = getenv("TMPDIR");
    char usual[256];
    int passed = 0, failed = 0, skipped = 0;
    struct differential_result *result =
        mmap(NULL, sizeof(*result), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

    if (result == MAP_FAILED) {
        printf("FAIL no memory\n0 passed, 1 failed, 0 skipped\n");
        return 1;
    }
    (void)snprintf(usual, sizeof(usual), "%s", temporary != NULL ? temporary : "/tmp");
    printf("seed %llu\n", (unsigned long long)seed);
    for (uint32_t index = 0; index < sizeof(refusals) / sizeof(refusals[0]); index++) {
        int rc;

        (void)setenv("TMPDIR", usual, 1);
        rc = refusal_run(&refusals[index], seed, &digest, result);
        passed += rc == 0;
        failed += rc == 1;
        skipped += rc == 77;
    }
    printf("%d passed, %d failed, %d skipped\n", passed, failed, skipped);
    return failed == 0 ? 0 : 1;
}
