/*
 * bench_space.c - P14: how long the start of a memory space takes, from nothing to bound, resident,
 * checked and registered with a ring; and how that scales with threads.
 *
 * WHAT IT MODELS. A host adds a model: abode makes its frames. All on one node, the first with CPUs.
 * Sides, in turn: a space on huge pages with one thread; the same with a thread for each CPU; with
 * one thread on 4 KiB pages; what a plain host does instead (malloc and memset); the same on huge
 * pages; and memset by a thread for each CPU over memory that is resident already, which is the
 * bandwidth that nothing can beat. Bytes per op: the size of the space (--bytes), written once.
 *
 * THE BOUND. One thread: the kernel's own zeroing. Several: threads times that, or the bandwidth of
 * resident memory, whichever is less; P14.threads is the share of it that is reached.
 *
 * Which pages a side gets depends on what was freed before it: after 4 KiB pages the kernel takes
 * huge ones from memory that nobody has touched, and a guest pays its host for that (measured: 20
 * times the CPU of the next pass, to whichever side came then). So before the clock starts each
 * side fills and frees as much memory of its own kind of page. The size is small by default: what a
 * guest frees may go back to its host two seconds later.
 */
#include <errno.h>
#include <liburing.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/uio.h>

#include "base/num.h"
#include "bench_common.h"
#include "gbench_shim.h"
#include "machine/space.h"

#define BYTES_DEFAULT ((uint64_t)256 << 20)
#define BYTES_PER_CPU ((uint64_t)64 << 20) /* a piece of the prefault: more threads have no work */
#define THREADS_MAX 256u
#define REGISTER_BYTES_MAX ((uint64_t)1 << 30)
#define BUFFERS_MAX 64u
#define GIB (double)(1u << 30)

enum side {
    SIDE_ONE,
    SIDE_ALL,
    SIDE_SMALL,
    SIDE_MALLOC,
    SIDE_MADVISE,
    SIDE_BANDWIDTH,
    SIDE_COUNT,
};

struct setting {
    struct ab_topology *topology;
    uint32_t node;
    uint32_t cpu_count;
    uint64_t bytes;
    unsigned char *resident; /* for SIDE_BANDWIDTH */
    int register_result;     /* of the ring: 0, or why registering is not in the figures */
    uint64_t huge_bytes;     /* of the last huge space */
    bool verified;
};

struct job { /* one side */
    struct setting *setting;
    enum ab_huge huge;
    uint32_t threads;
};

/* see the top: the same memory, of the same kind of page, freed an instant ago */
static int prime(uint64_t bytes, bool huge)
{
    unsigned char *map = mmap(NULL, bytes + AB_HUGE, PROT_READ | PROT_WRITE,
                              MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (map == MAP_FAILED) {
        return -errno;
    }
    unsigned char *base = map + (ab_align_up((uintptr_t)map, AB_HUGE) - (uintptr_t)map);
    (void)madvise(base, bytes, huge ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
    memset(base, 1, bytes);
    __asm__ volatile("" : : "r"(base) : "memory");
    return munmap(map, bytes + AB_HUGE) < 0 ? -errno : 0;
}

/* ---- a space ---------------------------------------------------------------------------------- */

static int register_space(const struct ab_space *space, struct io_uring *ring)
{
    struct iovec buffers[BUFFERS_MAX];
    uint32_t count = 0;
    for (uint64_t at = 0; at < ab_space_bytes(space) && count < BUFFERS_MAX;
         at += REGISTER_BYTES_MAX) {
        buffers[count++] =
            (struct iovec){.iov_base = ab_space_base(space) + at,
                           .iov_len = AB_MIN(REGISTER_BYTES_MAX, ab_space_bytes(space) - at)};
    }
    return io_uring_register_buffers(ring, buffers, count);
}

static int space_run(void *context, struct bench_sample *ret_sample)
{
    const struct job *job = context;
    struct setting *setting = job->setting;
    struct ab_space_desc desc = {.os = ab_os_default(),
                                 .topology = setting->topology,
                                 .huge = job->huge,
                                 .prefault_threads = job->threads};
    struct io_uring ring;
    struct ab_space *space;
    desc.node_bytes[setting->node] = setting->bytes;
    const int primed = prime(setting->bytes, job->huge == AB_HUGE_THP);
    if (primed < 0) {
        return primed;
    }
    const int ring_result = io_uring_queue_init(8, &ring, 0);
    bench_sample_begin(ret_sample);
    const int result = ab_space_open(&desc, &space);
    if (result == 0) {
        setting->register_result = ring_result < 0 ? ring_result : register_space(space, &ring);
    }
    bench_sample_end(ret_sample, setting->bytes);
    if (ring_result == 0) {
        io_uring_queue_exit(&ring);
    }
    if (result < 0) {
        return result;
    }
    if (job->huge == AB_HUGE_THP) {
        setting->huge_bytes = ab_space_facts(space)->huge_bytes;
        setting->verified = ab_space_facts(space)->verified;
    }
    ab_space_close(space);
    return 0;
}

/* ---- the plain ways --------------------------------------------------------------------------- */

static int malloc_run(void *context, struct bench_sample *ret_sample)
{
    const struct job *job = context;
    const int primed = prime(job->setting->bytes, false);
    if (primed < 0) {
        return primed;
    }
    bench_sample_begin(ret_sample);
    unsigned char *memory = malloc(job->setting->bytes);
    if (memory == NULL) {
        return -ENOMEM;
    }
    memset(memory, 1, job->setting->bytes);
    __asm__ volatile("" : : "r"(memory) : "memory");
    bench_sample_end(ret_sample, job->setting->bytes);
    free(memory);
    return 0;
}

static int madvise_run(void *context, struct bench_sample *ret_sample)
{
    const struct job *job = context;
    const uint64_t bytes = job->setting->bytes;
    const int primed = prime(bytes, true);
    if (primed < 0) {
        return primed;
    }
    bench_sample_begin(ret_sample);
    unsigned char *map = mmap(NULL, bytes + AB_HUGE, PROT_READ | PROT_WRITE,
                              MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (map == MAP_FAILED) {
        return -errno;
    }
    unsigned char *base = map + (ab_align_up((uintptr_t)map, AB_HUGE) - (uintptr_t)map);
    (void)madvise(base, bytes, MADV_HUGEPAGE);
    memset(base, 1, bytes);
    __asm__ volatile("" : : "r"(base) : "memory");
    bench_sample_end(ret_sample, bytes);
    return munmap(map, bytes + AB_HUGE) < 0 ? -errno : 0;
}

struct slice {
    unsigned char *base;
    uint64_t bytes;
};

static void *slice_run(void *argument)
{
    const struct slice *slice = argument;
    memset(slice->base, 1, slice->bytes);
    __asm__ volatile("" : : "r"(slice->base) : "memory");
    return NULL;
}

/* no binding: on one node there is nothing to choose, elsewhere it can only make us look better */
static int bandwidth_run(void *context, struct bench_sample *ret_sample)
{
    const struct job *job = context;
    const struct setting *setting = job->setting;
    pthread_t threads[THREADS_MAX];
    struct slice slices[THREADS_MAX];
    const uint32_t count = setting->cpu_count;
    const uint64_t bytes = setting->bytes / count;
    uint32_t started = 0;
    int error = 0;
    bench_sample_begin(ret_sample);
    for (; started < count && error == 0; started += error == 0) {
        slices[started] =
            (struct slice){.base = setting->resident + started * bytes, .bytes = bytes};
        error = pthread_create(&threads[started], NULL, slice_run, &slices[started]);
    }
    for (uint32_t i = 0; i < started; i++) {
        (void)pthread_join(threads[i], NULL);
    }
    bench_sample_end(ret_sample, bytes * count);
    return -error;
}

/* ---- P14 -------------------------------------------------------------------------------------- */

static int setting_make(const struct bench_run *run, struct setting *ret)
{
    struct setting setting = {.node = 0};
    int code = ab_topology_open(ab_os_default(), NULL, NULL, &setting.topology);
    if (code < 0) {
        return code;
    }
    while (setting.node + 1 < ab_topology_node_count(setting.topology) &&
           ab_topology_node(setting.topology, setting.node)->cpu_count == 0) {
        setting.node++;
    }
    const uint32_t cpus = ab_topology_node(setting.topology, setting.node)->cpu_count;
    setting.cpu_count = AB_MIN(AB_MAX(cpus, 1u), THREADS_MAX);
    const uint64_t wanted = AB_MAX(BYTES_DEFAULT, BYTES_PER_CPU * 2 * setting.cpu_count);
    setting.bytes = ab_align_up(bench_bytes(run, wanted), AB_HUGE);
    void *resident;
    code = bench_memory_get(setting.bytes, &resident);
    if (code < 0) {
        ab_topology_close(setting.topology);
        return code;
    }
    setting.resident = resident;
    *ret = setting;
    return 0;
}

static struct bench_series seconds_per_gib(const struct bench_table *table, uint32_t side)
{
    struct bench_series series = {.count = 0};
    for (uint32_t round = 0; round < table->rounds; round++) {
        const struct bench_sample *sample = &table->samples[side][round];
        bench_series_add(&series, sample->seconds / ((double)sample->bytes / GIB));
    }
    return series;
}

/* reached rate over the lesser of threads * one thread's rate and the bandwidth */
static struct bench_series share_of_bound(const struct bench_table *table, uint32_t cpu_count)
{
    struct bench_series series = {.count = 0};
    for (uint32_t round = 0; round < table->rounds; round++) {
        const double linear = cpu_count * bench_rate(&table->samples[SIDE_ONE][round]);
        const double bandwidth = bench_rate(&table->samples[SIDE_BANDWIDTH][round]);
        const double bound = AB_MIN(linear, bandwidth);
        bench_series_add(&series, bench_rate(&table->samples[SIDE_ALL][round]) / bound);
    }
    return series;
}

static int report_all(const struct bench_run *run, const struct setting *setting,
                      const struct bench_table *table)
{
    static const struct bench_card one = {"P14", "start of a memory space, huge pages, one thread",
                                          "s/GiB", 0.25, BENCH_AT_MOST};
    static const struct bench_card threads = {
        "P14.threads", "a thread per CPU / min(threads x one thread, memset of resident memory)",
        "ratio", 0.9, BENCH_AT_LEAST};
    static const struct bench_card plain = {"P14.plain",
                                            "space, one thread / mmap, MADV_HUGEPAGE, memset",
                                            "ratio", 0, BENCH_INFORMATION};
    static const struct bench_card small = {"P14.small", "space, one thread / malloc and memset",
                                            "ratio", 0, BENCH_INFORMATION};
    const struct bench_series series[] = {seconds_per_gib(table, SIDE_ONE),
                                          share_of_bound(table, setting->cpu_count),
                                          bench_ratio_of_seconds(table, SIDE_ONE, SIDE_MADVISE),
                                          bench_ratio_of_seconds(table, SIDE_ONE, SIDE_MALLOC)};
    const struct bench_card *const cards[] = {&one, &threads, &plain, &small};
    const struct bench_series all = seconds_per_gib(table, SIDE_ALL);
    const struct bench_series pages = seconds_per_gib(table, SIDE_SMALL);
    char note[256];
    (void)snprintf(
        note, sizeof(note),
        "%llu MiB, %llu on huge pages, %s; %u threads %.3f s/GiB, 4 KiB pages %.3f s/GiB; %s%s",
        (unsigned long long)(setting->bytes >> 20), (unsigned long long)(setting->huge_bytes >> 20),
        setting->verified ? "verified" : "not verified", setting->cpu_count,
        bench_series_median(&all), bench_series_median(&pages),
        setting->register_result < 0 ? "not registered: " : "registered",
        setting->register_result < 0 ? strerror(-setting->register_result) : "");
    int code = 0;
    for (size_t i = 0; i < AB_COUNT(cards) && code >= 0; i++) {
        if (bench_wanted(run, cards[i]->id)) {
            code = bench_report(run, cards[i], &series[i], note);
        }
    }
    return code;
}

static int bench_p14(struct bench_run *run)
{
    static struct bench_table table;
    struct setting setting;
    int code = setting_make(run, &setting);
    if (code < 0) {
        return code;
    }
    struct job one = {&setting, AB_HUGE_THP, 1};
    struct job all = {&setting, AB_HUGE_THP, setting.cpu_count};
    struct job small = {&setting, AB_HUGE_NONE, 1};
    const struct bench_side sides[SIDE_COUNT] = {
        [SIDE_ONE] = {"space, one thread", space_run, &one},
        [SIDE_ALL] = {"space, all CPUs", space_run, &all},
        [SIDE_SMALL] = {"space, 4 KiB pages", space_run, &small},
        [SIDE_MALLOC] = {"malloc, memset", malloc_run, &one},
        [SIDE_MADVISE] = {"huge, memset", madvise_run, &one},
        [SIDE_BANDWIDTH] = {"resident, memset by all", bandwidth_run, &one},
    };
    code = bench_rounds(run, sides, SIDE_COUNT, &table);
    if (code == 0) {
        bench_table_print(run, "start of a space", sides, &table);
        code = report_all(run, &setting, &table);
    }
    bench_memory_put(setting.resident, setting.bytes);
    ab_topology_close(setting.topology);
    return code;
}

/* ---- micro: asking the kernel where pages are -------------------------------------------------- */

struct asked {
    struct ab_topology *topology;
    struct ab_space *space;
};

static void bench_check(struct gbench_state *state, void *context)
{
    const struct asked *asked = context;
    const uint64_t bytes = ab_space_bytes(asked->space);
    while (gbench_keep_running(state)) {
        struct ab_space_check sum = {0};
        if (ab_space_check_range(ab_os_default(), asked->topology, ab_space_base(asked->space),
                                 bytes, &sum) < 0 ||
            sum.pages_absent + sum.pages_unknown > 0) {
            gbench_fail(state, "the kernel does not say where the pages are");
            return;
        }
    }
    gbench_bytes_per_iteration(state, bytes);
}

static void micro_register(void)
{
    static const struct {
        const char *name;
        enum ab_huge huge;
    } kinds[] = {{"check_range/thp", AB_HUGE_THP}, {"check_range/4k", AB_HUGE_NONE}};
    static struct asked asked[AB_COUNT(kinds)]; /* until the process ends: Benchmark runs later */
    for (size_t i = 0; i < AB_COUNT(kinds); i++) {
        struct ab_space_desc desc = {.os = ab_os_default(), .huge = kinds[i].huge};
        if (ab_topology_open(ab_os_default(), NULL, NULL, &asked[i].topology) < 0) {
            return;
        }
        desc.topology = asked[i].topology;
        desc.node_bytes[0] = BYTES_DEFAULT;
        if (ab_space_open(&desc, &asked[i].space) < 0) {
            bench_say("%s: no memory for it", kinds[i].name);
            return;
        }
        gbench_register(kinds[i].name, bench_check, &asked[i]);
    }
}

int main(int argc, char **argv)
{
    static const struct bench_case cases[] = {{"P14 P14.threads P14.plain P14.small", bench_p14}};
    static const struct bench_suite suite = {"bench_space", cases, AB_COUNT(cases), micro_register};
    return bench_main(argc, argv, &suite);
}
