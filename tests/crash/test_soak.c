/*
 * test_soak.c - a host of 32 threads for as long as you like, while calls fail: nothing creeps.
 *
 * Goal: memory, mappings, descriptors and threads are the same late in a run as early in it, and every
 * byte that comes back is right. Method: each thread keeps a few sessions of 64 KiB to 64 MiB, of one
 * of four tenants: appends, checks, detaches, attaches and checks again, forks, deletes; there is
 * more state than memory, and about as much as the store holds. All the while single calls fail (EIO,
 * EAGAIN, ENOSPC, half a transfer), as the seed says. Samples of the second and of the last quarter
 * of the run must agree within 5 % (and with all closed nothing is left); the p99 of attach is printed for both, and proves nothing.
 *
 * test_soak [--seconds N] [--seed N]: 20 s; ABODE_LONG=1: 48 minutes. test timeout: 900 s
 */
#include <dirent.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fault_os.h"
#include "front/front.h"
#include "live.h"

#define THREADS 32u
#define TENANTS 4u
#define SESSIONS 2u /* of each thread */
#define SECONDS_DEFAULT 20u
#define SECONDS_LONG 2880u /* a tenth of eight hours */
#define MEMORY_BYTES (256ull << 20)
#define STORE_BYTES (768ull << 20)
#define SEGMENT_BYTES (16u << 20)
#define TOKEN_BYTES 4096u
#define ROW_TOKENS 16u
#define ROW_BYTES (TOKEN_BYTES * ROW_TOKENS) /* 64 KiB: the smallest session */
#define ROWS_LOG2_MAX 10u                    /* 64 MiB: the largest */
#define TRIES 200u                           /* of 1 ms, for frames */
#define POLL_NS 300000000000LL
#define SAMPLE_US 50000u
#define ATTACHES_MAX (1u << 20)
#define FLAT_PERCENT 5.0
#define IN_FLIGHT \
    (2.0 * THREADS)        /* allocations that come and go with ops; at the end none is left */
#define KERNEL_WORKERS 4.0 /* threads of a ring's, that come and go as the kernel likes */

struct session {
    bool exists;
    struct abode_session handle;
    uint32_t stamp, tokens, target;
};
struct soak {
    struct abode *runtime;
    struct fault_os fault;
    uint32_t model;
    atomic_bool stop;
    _Atomic uint32_t stamp_last, quarter;
    _Atomic uint64_t operations, forks, refusals, bytes_checked, faults;
    _Atomic uint32_t wrong;
    _Atomic uint32_t attach_count[4];
    uint32_t *attach_us[4]; /* by quarter of the run */
};
struct worker_thread {
    struct soak *soak;
    struct abode_queue *queue;
    uint64_t random;
    uint32_t number;
    struct session sessions[SESSIONS];
};
enum { SAMPLE_RSS, SAMPLE_ALLOCATIONS, SAMPLE_MAPPED, SAMPLE_FILES, SAMPLE_TASKS, SAMPLE_KINDS };
static const char *const sample_names[SAMPLE_KINDS] = {"resident bytes", "allocations",
                                                       "mapped bytes", "descriptors", "threads"};
struct samples { /* sums, by quarter */
    double sum[4][SAMPLE_KINDS];
    uint32_t count[4];
};

static void wrong(struct soak *soak, const char *what, int rc)
{
    if (atomic_fetch_add(&soak->wrong, 1) < 10) {
        printf("FAIL %s: %s\n", what, abode_strerror(rc));
    }
    atomic_store(&soak->stop, true);
}

/* Not now, and nothing wrong with that: memory or store are full, or a call was made to fail. */
static bool refused(struct soak *soak, int rc)
{
    bool is_refusal = rc == -EAGAIN || rc == -ABODE_EFULL || rc == -ENOSPC || rc == -EIO;

    atomic_fetch_add(&soak->refusals, is_refusal);
    return is_refusal;
}

static uint64_t word_of(uint32_t stamp, uint32_t token)
{
    uint64_t state = (uint64_t)stamp << 32 | token;

    return live_random(&state);
}

static void token_fill(void *bytes, uint32_t stamp, uint32_t token)
{
    uint64_t *words = bytes;
    uint64_t word = word_of(stamp, token);

    for (uint32_t i = 0; i < TOKEN_BYTES / 8; i++) {
        words[i] = word + i;
    }
}

static bool token_is(const void *bytes, uint32_t stamp, uint32_t token)
{
    const uint64_t *words = bytes;
    uint64_t word = word_of(stamp, token), differs = 0;

    for (uint32_t i = 0; i < TOKEN_BYTES / 8; i++) {
        differs |= words[i] ^ (word + i);
    }
    return differs == 0;
}

static void content_check(struct soak *soak, const struct session *session)
{
    struct abode_view view = {.struct_size = sizeof(view)};
    int rc = abode_session_view(soak->runtime, session->handle, 0, &view);

    if (rc < 0 || view.token_count != session->tokens) {
        wrong(soak, "view, or its number of tokens", rc);
        return;
    }
    for (uint32_t token = 0; token < session->tokens; token++) {
        const unsigned char *row = abode_view_plane(&view, token / ROW_TOKENS, 0);

        if (!token_is(row + (size_t)(token % ROW_TOKENS) * TOKEN_BYTES, session->stamp, token)) {
            wrong(soak, "content", -EBADMSG);
            return;
        }
    }
    atomic_fetch_add(&soak->bytes_checked, (uint64_t)session->tokens * TOKEN_BYTES);
}

/* A row at a time, until it has its size or memory is short. */
static void grow(struct worker_thread *thread, struct session *session)
{
    struct soak *soak = thread->soak;
    struct abode_span spans[2];

    while (session->tokens < session->target && !atomic_load(&soak->stop)) {
        int count = -EAGAIN;

        for (uint32_t attempt = 0; attempt < TRIES && count == -EAGAIN; attempt++) {
            count = abode_append_reserve(soak->runtime, session->handle, ROW_TOKENS, spans, 2);
            (void)usleep(count == -EAGAIN ? 1000 : 0);
        }
        if (count < 0) {
            if (!refused(soak, count)) {
                wrong(soak, "reserve", count);
            }
            return;
        }
        for (int i = 0; i < count; i++) {
            for (uint32_t token = 0; token < spans[i].token_count; token++) {
                token_fill(spans[i].base + (size_t)(spans[i].token_first + token) * TOKEN_BYTES,
                           session->stamp,
                           spans[i].row * ROW_TOKENS + spans[i].token_first + token);
            }
        }
        count = abode_append_commit(soak->runtime, session->handle, ROW_TOKENS, NULL, 0);
        if (count < 0) {
            wrong(soak, "commit", count);
            return;
        }
        session->tokens += ROW_TOKENS;
    }
}

static int op_wait(struct worker_thread *thread, struct abode_op *op, int started)
{
    struct abode_op *done = NULL;

    if (started < 0) {
        return started;
    }
    if (abode_poll(thread->queue, &done, 1, POLL_NS) != 1 || done != op) {
        wrong(thread->soak, "an op does not come back", -ETIME);
        if (getenv("ABODE_KEEP") != NULL) { /* for whoever looks at it with a debugger */
            (void)raise(SIGSTOP);
        }
        return -ETIME;
    }
    return op->status;
}

/* false: it could not be attached now */
static bool attach(struct worker_thread *thread, struct session *session)
{
    struct soak *soak = thread->soak;
    struct abode_op op = {0};
    uint64_t started_ns = live_clock_ns();
    uint32_t quarter = atomic_load(&soak->quarter), at;
    int rc = op_wait(thread, &op, abode_attach(thread->queue, session->handle, -1, 0, &op));

    if (rc == 0) {
        at = atomic_fetch_add(&soak->attach_count[quarter], 1);
        if (at < ATTACHES_MAX) {
            soak->attach_us[quarter][at] = (uint32_t)((live_clock_ns() - started_ns) / 1000);
        }
        content_check(soak, session);
    } else if (!refused(soak, rc)) {
        wrong(soak, "attach", rc);
    }
    return rc == 0;
}

static void detach(struct worker_thread *thread, const struct session *session, uint32_t flags)
{
    struct abode_op op = {0};
    int rc = op_wait(thread, &op, abode_detach(thread->queue, session->handle, flags, &op));

    if (rc < 0 && !refused(thread->soak, rc)) {
        wrong(thread->soak, "detach", rc);
    }
}

static void delete (struct worker_thread *thread, struct session *session)
{
    int rc = abode_session_delete(thread->soak->runtime, session->handle);

    if (rc < 0) {
        wrong(thread->soak, "delete", rc);
    }
    session->exists = false;
}

static void create(struct worker_thread *thread, struct session *session)
{
    struct soak *soak = thread->soak;
    struct abode_session_opts opts = {.struct_size = sizeof(opts),
                                      .model = soak->model,
                                      .home_node = -1,
                                      .durability =
                                          thread->number % 2 == 0 ? ABODE_WRITTEN : ABODE_DURABLE,
                                      .tenant = 1 + thread->number % TENANTS};
    int rc = abode_session_create(soak->runtime, &opts, &session->handle);

    if (rc < 0) {
        wrong(soak, "create", rc);
        return;
    }
    /* as many of each size from a power of two to the next */
    uint32_t rows = 1u << live_random_below(&thread->random, ROWS_LOG2_MAX + 1);

    session->exists = true;
    session->stamp = atomic_fetch_add(&soak->stamp_last, 1) + 1;
    session->tokens = 0;
    session->target = ROW_TOKENS * rows;
    grow(thread, session);
    detach(thread, session, live_random_below(&thread->random, 2) * ABODE_DETACH_SPILL_NOW);
}

/* A child at a random row: its rows are the parent's, and it is gone again. */
static void fork_one(struct worker_thread *thread, const struct session *parent)
{
    struct soak *soak = thread->soak;
    struct session child = *parent;
    int rc = -EAGAIN;

    child.tokens = ROW_TOKENS * live_random_below(&thread->random, 1 + parent->tokens / ROW_TOKENS);
    for (uint32_t attempt = 0; attempt < TRIES && rc == -EAGAIN; attempt++) {
        rc = abode_session_fork(soak->runtime, parent->handle, child.tokens, NULL, &child.handle);
        (void)usleep(rc == -EAGAIN ? 1000 : 0);
    }
    if (rc < 0) {
        if (!refused(soak, rc)) {
            wrong(soak, "fork", rc);
        }
        return;
    }
    content_check(soak, &child);
    child.target = child.tokens + ROW_TOKENS;
    grow(thread, &child);
    content_check(soak, &child);
    delete (thread, &child);
    atomic_fetch_add(&soak->forks, 1);
}

static void step(struct worker_thread *thread)
{
    struct session *session = &thread->sessions[live_random_below(&thread->random, SESSIONS)];
    uint32_t dice = live_random_below(&thread->random, 10);

    atomic_fetch_add(&thread->soak->operations, 1);
    if (!session->exists) {
        create(thread, session);
        return;
    }
    if (dice < 3) {
        delete (thread, session);
        return;
    }
    if (!attach(thread, session)) {
        if (dice < 6) {
            delete (thread, session); /* makes room, for somebody */
        }
        return;
    }
    if (dice < 6) {
        fork_one(thread, session);
    }
    detach(thread, session, dice % 2 == 0 ? ABODE_DETACH_SPILL_NOW : 0);
}

static void *thread_run(void *argument)
{
    struct worker_thread *thread = argument;

    while (!atomic_load(&thread->soak->stop)) {
        step(thread);
    }
    for (uint32_t i = 0; i < SESSIONS; i++) {
        if (thread->sessions[i].exists) {
            delete (thread, &thread->sessions[i]);
        }
    }
    return NULL;
}

/* ---- faults and samples --------------------------------------------------------------------------- */

/* One more call fails, once. What can make a device read-only for good is left to other tests: syncs,
 * and writes of the journal and of zeroes ahead, which fail twice in a bad moment. */
static void fault_next(struct soak *soak, uint64_t *random)
{
    static const struct fault_plan plans[] = {
        {.call = AB_OS_RING_RESULT, .kind = FAULT_ERROR, .error = EIO},
        {.call = AB_OS_RING_RESULT, .kind = FAULT_ERROR, .error = EAGAIN},
        {.call = AB_OS_RING_RESULT, .kind = FAULT_ERROR, .error = ENOSPC},
        {.call = AB_OS_RING_RESULT, .kind = FAULT_SHORT},
        {.call = AB_OS_RING_ENTER, .kind = FAULT_ERROR, .error = EAGAIN},
        {.call = AB_OS_PREAD, .kind = FAULT_ERROR, .error = EIO},
        {.call = AB_OS_PREAD, .kind = FAULT_SHORT},
        {.call = AB_OS_PWRITE, .kind = FAULT_SHORT},
        {.call = AB_OS_FALLOCATE, .kind = FAULT_ERROR, .error = ENOSPC}};
    struct fault_plan plan =
        plans[live_random_below(random, (uint32_t)(sizeof(plans) / sizeof(plans[0])))];

    atomic_fetch_add(&soak->faults, fault_os_strikes(&soak->fault));
    fault_os_clear(&soak->fault);
    plan.nth = 1 + live_random_below(random, 20);
    fault_os_plan(&soak->fault, plan);
}

/* Segments of the store have one each, from first use on, and are bounded: not counted. */
static bool is_segment(int dir, const char *name)
{
    char target[256] = "";

    return readlinkat(dir, name, target, sizeof(target) - 1) > 0 &&
           strstr(target, "/segments/") != NULL;
}

static double entries_of(const char *path)
{
    DIR *dir = opendir(path);
    const struct dirent *entry;
    uint32_t count = 0;

    while (dir != NULL && (entry = readdir(dir)) != NULL) {
        count += !is_segment(dirfd(dir), entry->d_name);
    }
    if (dir != NULL) {
        (void)closedir(dir);
    }
    return count;
}

static double resident_bytes(void)
{
    FILE *file = fopen("/proc/self/statm", "re");
    unsigned long long size = 0, resident = 0;

    if (file != NULL) {
        if (fscanf(file, "%llu %llu", &size, &resident) != 2) {
            resident = 0;
        }
        (void)fclose(file);
    }
    return (double)resident * 4096;
}

static void sample(struct soak *soak, struct samples *samples, uint32_t quarter)
{
    double *sum = samples->sum[quarter];

    sum[SAMPLE_RSS] += resident_bytes();
    sum[SAMPLE_ALLOCATIONS] += (double)fault_os_allocations(&soak->fault);
    sum[SAMPLE_MAPPED] += (double)fault_os_mapped(&soak->fault);
    sum[SAMPLE_FILES] += entries_of("/proc/self/fd");
    sum[SAMPLE_TASKS] += entries_of("/proc/self/task");
    samples->count[quarter]++;
}

static void watch(struct soak *soak, struct samples *samples, uint64_t seconds, uint64_t seed)
{
    uint64_t start_ns = live_clock_ns(), length_ns = seconds * 1000000000u, past_ns = 0;
    uint64_t random = seed;

    while (past_ns < length_ns && !atomic_load(&soak->stop)) {
        uint32_t quarter = (uint32_t)(past_ns * 4 / length_ns);

        atomic_store(&soak->quarter, quarter);
        fault_next(soak, &random);
        sample(soak, samples, quarter);
        (void)usleep(SAMPLE_US);
        past_ns = live_clock_ns() - start_ns;
    }
    atomic_store(&soak->stop, true);
}

static uint32_t flat_check(const struct samples *samples)
{
    const char *sanitizer = getenv("ABODE_SANITIZE");
    bool is_sanitized = sanitizer != NULL && sanitizer[0] != '\0'; /* it keeps memory of its own */
    uint32_t failed = 0;

    if (samples->count[1] == 0 || samples->count[3] == 0) {
        printf("FAIL no samples\n");
        return 1;
    }
    for (uint32_t kind = 0; kind < SAMPLE_KINDS; kind++) {
        double early = samples->sum[1][kind] / samples->count[1];
        double late = samples->sum[3][kind] / samples->count[3];
        double percent = early > 0 ? (late - early) / early * 100 : 0;
        double slack = kind == SAMPLE_ALLOCATIONS ? IN_FLIGHT
                       : kind == SAMPLE_TASKS     ? KERNEL_WORKERS
                                                  : 0;
        bool is_flat = (kind == SAMPLE_RSS && is_sanitized) ||
                       (percent > -FLAT_PERCENT && percent < FLAT_PERCENT) ||
                       (late > early - slack && late < early + slack);

        printf("%s%s: %.1f in the second quarter, %.1f in the last (%+.2f %%)\n",
               is_flat ? "" : "FAIL not flat: ", sample_names[kind], early, late, percent);
        failed += !is_flat;
    }
    return failed;
}

static int number_compare(const void *left, const void *right)
{
    const uint32_t *a = left, *b = right;

    return *a < *b ? -1 : *a > *b;
}

static void attach_tell(struct soak *soak)
{
    for (uint32_t quarter = 1; quarter < 4; quarter += 2) {
        uint32_t count = atomic_load(&soak->attach_count[quarter]);

        count = count < ATTACHES_MAX ? count : ATTACHES_MAX;
        if (count > 0) {
            qsort(soak->attach_us[quarter], count, sizeof(uint32_t), number_compare);
            printf("attach, quarter %u: %u, p99 %.1f ms\n", quarter + 1, count,
                   soak->attach_us[quarter][count - 1 - count / 100] / 1000.0);
        }
    }
}

/* ---- all -------------------------------------------------------------------------------------------- */

static int soak_open(struct soak *soak, const char *path)
{
    static const struct abode_plane plane = {.bytes_per_block = ROW_BYTES};
    static const struct abode_component component = {
        .kind = ABODE_PAGED, .plane_count = 1, .planes = &plane};
    struct abode_model_desc desc = {.struct_size = sizeof(desc),
                                    .component_count = 1,
                                    .components = &component,
                                    .block_tokens = ROW_TOKENS,
                                    .session_tokens_max = 2 * ROW_TOKENS << ROWS_LOG2_MAX,
                                    .tag = "soak"};
    struct abode_config config;
    int rc;

    abode_config_init(&config);
    config.log = live_log;
    config.flags = ABODE_CREATE;
    config.memory_bytes_max = MEMORY_BYTES;
    config.store_bytes_max = STORE_BYTES;
    config.segment_bytes = SEGMENT_BYTES;
    config.store_paths = &path;
    config.store_path_count = 1;
    config.session_count_max = 1024;
    fault_os_init(&soak->fault, NULL);
    rc = ab_open_with_os(&config, &soak->fault.os, &soak->runtime);
    return rc < 0 ? rc : abode_model_add(soak->runtime, &desc, &soak->model);
}

static int soak_close(struct soak *soak, struct worker_thread *threads)
{
    int rc = 0;

    fault_os_clear(&soak->fault);
    for (uint32_t i = 0; i < THREADS && rc == 0; i++) {
        rc = abode_queue_close(threads[i].queue);
    }
    rc = rc < 0 ? rc : abode_close(soak->runtime);
    if (rc == 0 &&
        (fault_os_allocations(&soak->fault) != 0 || fault_os_mapped(&soak->fault) != 0)) {
        printf("FAIL %lld allocations and %lld mapped bytes are left\n",
               (long long)fault_os_allocations(&soak->fault),
               (long long)fault_os_mapped(&soak->fault));
        return 1;
    }
    if (rc < 0) {
        printf("FAIL close: %s\n", abode_strerror(rc));
    }
    return rc < 0;
}

static bool threads_run(struct soak *soak, struct worker_thread *threads, uint64_t seconds,
                        uint64_t seed, struct samples *samples)
{
    pthread_t handles[THREADS];

    for (uint32_t i = 0; i < THREADS; i++) {
        threads[i] = (struct worker_thread){.soak = soak, .random = seed + i, .number = i};
        if (abode_queue_open(soak->runtime, 4, &threads[i].queue) < 0 ||
            pthread_create(&handles[i], NULL, thread_run, &threads[i]) != 0) {
            printf("FAIL no queue or thread\n");
            exit(1);
        }
    }
    watch(soak, samples, seconds, seed);
    for (uint32_t i = 0; i < THREADS; i++) {
        (void)pthread_join(handles[i], NULL);
    }
    return atomic_load(&soak->wrong) == 0;
}

int main(int argc, char **argv)
{
    static struct soak soak;
    static struct worker_thread threads[THREADS];
    struct samples samples = {0};
    struct abode_stats stats = {.struct_size = sizeof(stats)};
    uint64_t seed = live_seed(argc, argv);
    uint64_t seconds = live_option(argc, argv, "--seconds",
                                   getenv("ABODE_LONG") != NULL ? SECONDS_LONG : SECONDS_DEFAULT);
    char path[256];
    uint32_t failed = 0;
    int rc;

    for (uint32_t quarter = 0; quarter < 4; quarter++) {
        soak.attach_us[quarter] = calloc(ATTACHES_MAX, sizeof(uint32_t));
    }
    rc = live_directory_make(path, sizeof(path));
    rc = rc < 0 ? rc : soak_open(&soak, path);
    if (rc < 0) {
        printf("FAIL open: %s\n0 passed, 1 failed, 0 skipped\n", abode_strerror(rc));
        return 1;
    }
    failed += !threads_run(&soak, threads, seconds, seed, &samples);
    failed += abode_stats_get(soak.runtime, &stats) < 0;
    failed += flat_check(&samples);
    attach_tell(&soak);
    printf("operations %llu, forks %llu, refusals %llu, calls made to fail %llu, checked %.1f GiB, "
           "blocks evicted %llu, restored %.1f GiB, checksum failures %llu\n",
           (unsigned long long)soak.operations, (unsigned long long)soak.forks,
           (unsigned long long)soak.refusals, (unsigned long long)soak.faults,
           (double)soak.bytes_checked / (1 << 30), (unsigned long long)stats.blocks_evicted,
           (double)stats.bytes_restored / (1 << 30), (unsigned long long)stats.checksum_failures);
    if (soak.forks == 0 || soak.faults == 0 || stats.blocks_evicted == 0 ||
        stats.bytes_restored == 0 || stats.checksum_failures != 0) {
        printf("FAIL the run did not reach forks, faults, eviction and restores, or met damage\n");
        failed++;
    }
    failed += (uint32_t)soak_close(&soak, threads);
    live_directory_remove(path);
    if (failed != 0) {
        printf("repeat: test_soak --seconds %llu --seed %llu\n", (unsigned long long)seconds,
               (unsigned long long)seed);
    }
    printf(
        "reliability: R15 %llu operations of %u threads in %llu s, %llu calls made to fail; seed "
        "%llu; %u violations\n",
        (unsigned long long)soak.operations, THREADS, (unsigned long long)seconds,
        (unsigned long long)soak.faults, (unsigned long long)seed, failed);
    printf("%u passed, %u failed, 0 skipped\n", failed == 0, failed);
    return failed == 0 ? 0 : 1;
}
