/*
 * bench_kernels.c - P15: gather, scatter and copy over memcpy of the same bytes; checksum over the
 * bandwidth at which this core reads cold memory.
 *
 * WHAT IT MODELS. A block of 2 MiB moves between a frame and the host's planes; neither was touched
 * lately, so every line comes from memory: SET_BYTES per side is several times any last level cache.
 * The bound is one core's memory bandwidth; memcpy between the same buffers stands for it. Runs of
 * 256 B (a head's K of one token, f16 x 128), 2 KiB (a token's K of 8 heads) and 32 KiB (16 of
 * these), each run as far from the next one as it is long (K and V side by side).
 * Bytes per op: 2 MiB read and written; checksum: 2 MiB read.
 */
#include <stdio.h>
#include <string.h>

#include "bench_common.h"
#include "gbench_shim.h"
#include "kernels/kernels.h"

#define BLOCK_BYTES ((size_t)2 << 20)
#define SET_BYTES ((uint64_t)256 << 20) /* default of --bytes; four times that is mapped */
#define STREAMS 8
#define LINE_BYTES 64u
#define READ_AHEAD_BYTES 1024u /* past what the CPU's own prefetcher has asked for */
#define GOAL 0.9

enum work_kind {
    WORK_MEMCPY,
    WORK_COPY,
    WORK_COPY_STREAM,
    WORK_GATHER,
    WORK_SCATTER,
    WORK_CHECKSUM,
    WORK_READ,
    WORK_MEMSET,
    WORK_ZERO_STREAM,
};

struct memory {
    unsigned char *frames; /* bytes */
    unsigned char *planes; /* 2 * bytes: runs with gaps */
    uint64_t bytes;
};

struct work {
    const struct ab_kernels *kernels;
    const struct memory *memory;
    enum work_kind kind;
    size_t run_bytes;
};

typedef uint64_t lanes __attribute__((vector_size(32), aligned(8), may_alias));

/* Reads everything, does as little as a reader can: the bandwidth that a checksum could reach. Eight
 * accumulators, so that no addition waits for another; software prefetch, as the checksum has. */
static uint64_t read_all(const unsigned char *bytes, size_t count)
{
    lanes sums[STREAMS] = {{0}};
    for (size_t done = 0; done < count; done += sizeof(sums)) {
        const lanes *from = (const lanes *)(const void *)(bytes + done);
        for (size_t line = 0; line < sizeof(sums); line += LINE_BYTES) {
            __builtin_prefetch(bytes + done + READ_AHEAD_BYTES + line, 0, 3);
        }
        for (size_t i = 0; i < STREAMS; i++) {
            sums[i] += from[i];
        }
    }
    uint64_t sum = 0;
    for (size_t i = 0; i < STREAMS; i++) {
        sum += sums[i][0] + sums[i][1] + sums[i][2] + sums[i][3];
    }
    return sum;
}

/* one block: frame <-> its planes */
static void block_work(const struct work *work, uint64_t block)
{
    unsigned char *frame = work->memory->frames + block * BLOCK_BYTES;
    unsigned char *planes = work->memory->planes + block * BLOCK_BYTES * 2;
    const struct ab_strided part = {.base = planes,
                                    .bytes = work->run_bytes,
                                    .stride = work->run_bytes * 2,
                                    .count = BLOCK_BYTES / work->run_bytes};
    uint64_t hash[2];
    switch (work->kind) {
    case WORK_MEMCPY:
        memcpy(frame, planes, BLOCK_BYTES);
        break;
    case WORK_COPY:
        work->kernels->copy(frame, planes, BLOCK_BYTES);
        break;
    case WORK_COPY_STREAM:
        work->kernels->copy_stream(frame, planes, BLOCK_BYTES);
        break;
    case WORK_GATHER:
        work->kernels->gather(frame, &part, 1);
        break;
    case WORK_SCATTER:
        work->kernels->scatter(&part, 1, frame);
        break;
    case WORK_CHECKSUM:
        work->kernels->checksum(frame, BLOCK_BYTES, block, hash);
        __asm__ volatile("" : : "r"(hash[0]), "r"(hash[1]));
        break;
    case WORK_READ:
        __asm__ volatile("" : : "r"(read_all(frame, BLOCK_BYTES)));
        break;
    case WORK_MEMSET:
        memset(frame, 0, BLOCK_BYTES);
        break;
    case WORK_ZERO_STREAM:
        work->kernels->zero_stream(frame, BLOCK_BYTES);
        break;
    }
    __asm__ volatile(""
                     :
                     : "r"(frame), "r"(planes)
                     : "memory"); /* the work is not optimised away */
}

static int side_run(void *context, struct bench_sample *ret_sample)
{
    const struct work *work = context;
    const uint64_t blocks = work->memory->bytes / BLOCK_BYTES;
    bench_sample_begin(ret_sample);
    for (uint64_t block = 0; block < blocks; block++) {
        block_work(work, block);
    }
    bench_sample_end(ret_sample, blocks * BLOCK_BYTES);
    return 0;
}

/* ---- P15 --------------------------------------------------------------------------------------------- */
struct contest {
    struct bench_card card;
    enum work_kind ours, theirs;
    size_t run_bytes;
};

static const struct contest contests[] = {
    {{"P15.copy", "copy / memcpy, cold 2 MiB blocks", "ratio", GOAL, BENCH_AT_LEAST},
     WORK_COPY,
     WORK_MEMCPY,
     BLOCK_BYTES},
    {{"P15.stream", "copy past the caches / memcpy, cold 2 MiB blocks", "ratio", GOAL,
      BENCH_AT_LEAST},
     WORK_COPY_STREAM,
     WORK_MEMCPY,
     BLOCK_BYTES},
    {{"P15.zero", "zeroing past the caches / memset, cold 2 MiB blocks", "ratio", GOAL,
      BENCH_AT_LEAST},
     WORK_ZERO_STREAM,
     WORK_MEMSET,
     BLOCK_BYTES},
    {{"P15.gather.256", "gather of 256 B runs / memcpy of the same bytes", "ratio", GOAL,
      BENCH_AT_LEAST},
     WORK_GATHER,
     WORK_MEMCPY,
     256},
    {{"P15.gather.2k", "gather of 2 KiB runs / memcpy of the same bytes", "ratio", GOAL,
      BENCH_AT_LEAST},
     WORK_GATHER,
     WORK_MEMCPY,
     2048},
    {{"P15.gather.32k", "gather of 32 KiB runs / memcpy of the same bytes", "ratio", GOAL,
      BENCH_AT_LEAST},
     WORK_GATHER,
     WORK_MEMCPY,
     32768},
    {{"P15.scatter.256", "scatter of 256 B runs / memcpy of the same bytes", "ratio", GOAL,
      BENCH_AT_LEAST},
     WORK_SCATTER,
     WORK_MEMCPY,
     256},
    {{"P15.scatter.2k", "scatter of 2 KiB runs / memcpy of the same bytes", "ratio", GOAL,
      BENCH_AT_LEAST},
     WORK_SCATTER,
     WORK_MEMCPY,
     2048},
    {{"P15.scatter.32k", "scatter of 32 KiB runs / memcpy of the same bytes", "ratio", GOAL,
      BENCH_AT_LEAST},
     WORK_SCATTER,
     WORK_MEMCPY,
     32768},
    {{"P15.checksum", "XXH3-128 / reading cold memory, one core", "ratio", GOAL, BENCH_AT_LEAST},
     WORK_CHECKSUM,
     WORK_READ,
     BLOCK_BYTES},
};
#define CONTEST_COUNT (sizeof(contests) / sizeof(contests[0]))

static int memory_make(uint64_t bytes, struct memory *ret)
{
    void *frames, *planes;
    int code = bench_memory_get(bytes, &frames);
    if (code < 0) {
        return code;
    }
    code = bench_memory_get(bytes * 2, &planes);
    if (code < 0) {
        bench_memory_put(frames, bytes);
        return code;
    }
    bench_fill(frames, bytes, 1);
    bench_fill(planes, bytes * 2, 2);
    *ret = (struct memory){.frames = frames, .planes = planes, .bytes = bytes};
    return 0;
}

static void memory_free(struct memory *memory)
{
    bench_memory_put(memory->frames, memory->bytes);
    bench_memory_put(memory->planes, memory->bytes * 2);
}

static int contest_run(const struct bench_run *run, const struct contest *contest,
                       const struct memory *memory)
{
    struct work ours = {.kernels = ab_kernels_best(),
                        .memory = memory,
                        .kind = contest->ours,
                        .run_bytes = contest->run_bytes};
    struct work theirs = ours;
    theirs.kind = contest->theirs;
    const struct bench_side sides[] = {{ours.kernels->name, side_run, &ours},
                                       {"plain", side_run, &theirs}};
    static struct bench_table table;
    const int code = bench_rounds(run, sides, 2, &table);
    if (code < 0) {
        return code;
    }
    const struct bench_series ratio = bench_ratio_of_rates(&table, 0, 1);
    const struct bench_series fast = bench_rates(&table, 0), plain = bench_rates(&table, 1);
    char note[128];
    (void)snprintf(note, sizeof(note), "%s, one thread: %.1f of %.1f GB/s", ours.kernels->name,
                   bench_series_median(&fast) * 1e-9, bench_series_median(&plain) * 1e-9);
    return bench_report(run, &contest->card, &ratio, note);
}

static int bench_p15(struct bench_run *run)
{
    struct memory memory;
    const uint64_t bytes = bench_bytes(run, SET_BYTES) / BLOCK_BYTES * BLOCK_BYTES;
    int code = memory_make(bytes < BLOCK_BYTES ? BLOCK_BYTES : bytes, &memory);
    for (size_t i = 0; i < CONTEST_COUNT && code == 0; i++) {
        if (bench_wanted(run, contests[i].card.id)) {
            code = contest_run(run, &contests[i], &memory);
        }
    }
    if (code == 0) {
        memory_free(&memory);
    }
    return code;
}

/* ---- micro benches: every table that this CPU runs, warm and cold -------------------------------------- */
struct micro {
    const struct ab_kernels *kernels;
    struct memory *memory; /* made by the first bench that runs */
    enum work_kind kind;
    size_t bytes;
};

static void micro_small(struct gbench_state *state, void *context)
{
    const struct micro *micro = context;
    static unsigned char source[64 << 10], target[64 << 10];
    uint64_t hash[2];
    while (gbench_keep_running(state)) {
        if (micro->kind == WORK_CHECKSUM) {
            micro->kernels->checksum(source, micro->bytes, 1, hash);
            __asm__ volatile("" : : "r"(hash[0]), "r"(hash[1]));
        } else {
            micro->kernels->copy(target, source, micro->bytes);
        }
        __asm__ volatile("" : : "r"(target), "r"(source) : "memory");
    }
    gbench_bytes_per_iteration(state, micro->bytes);
}

static void micro_cold(struct gbench_state *state, void *context)
{
    const struct micro *micro = context;
    if (micro->memory->bytes == 0 && memory_make(SET_BYTES, micro->memory) < 0) {
        gbench_fail(state, "not enough memory");
        return;
    }
    const struct work work = {.kernels = micro->kernels,
                              .memory = micro->memory,
                              .kind = micro->kind,
                              .run_bytes = micro->bytes};
    const uint64_t blocks = micro->memory->bytes / BLOCK_BYTES;
    uint64_t block = 0;
    while (gbench_keep_running(state)) {
        block_work(&work, block);
        block = block + 1 == blocks ? 0 : block + 1;
    }
    gbench_bytes_per_iteration(state, BLOCK_BYTES);
}

static void micro_add(const char *what, gbench_function *function, const struct micro *micro)
{
    static struct micro all[128]; /* contexts must outlive the run */
    static size_t used;
    char name[96];
    if (used == sizeof(all) / sizeof(all[0])) {
        return;
    }
    all[used] = *micro;
    (void)snprintf(name, sizeof(name), "%s/%s/%zu", what, micro->kernels->name, micro->bytes);
    gbench_register(name, function, &all[used++]);
}

static void micro_register(void)
{
    static const char *const tables[] = {"scalar", "avx2", "avx512", "neon"};
    static const size_t small[] = {16, 64, 256, 1024, 2048, 4096, 32768};
    static struct memory memory;
    for (size_t t = 0; t < sizeof(tables) / sizeof(tables[0]); t++) {
        const struct ab_kernels *kernels = ab_kernels_by_name(tables[t]);
        if (kernels == NULL) {
            continue;
        }
        for (size_t i = 0; i < sizeof(small) / sizeof(small[0]); i++) {
            struct micro micro = {kernels, &memory, WORK_COPY, small[i]};
            micro_add("copy_warm", micro_small, &micro);
            micro.kind = WORK_CHECKSUM;
            micro_add("checksum_warm", micro_small, &micro);
        }
        for (size_t i = 0; i < CONTEST_COUNT; i++) {
            const struct micro micro = {kernels, &memory, contests[i].ours, contests[i].run_bytes};
            micro_add(contests[i].card.id, micro_cold, &micro);
        }
    }
}

int main(int argc, char **argv)
{
    static const struct bench_case cases[] = {
        {"P15.copy P15.stream P15.zero P15.gather.256 P15.gather.2k P15.gather.32k P15.scatter.256 "
         "P15.scatter.2k P15.scatter.32k P15.checksum",
         bench_p15}};
    static const struct bench_suite suite = {"bench_kernels", cases, 1, micro_register};
    return bench_main(argc, argv, &suite);
}
