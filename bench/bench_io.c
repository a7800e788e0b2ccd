/*
 * bench_io.c - the I/O engines alone, without store or checksums, against fio with its io_uring
 * engine in turn: same file, block, depth, O_DIRECT, huge pages, registered buffers and file.
 *
 * WHAT IT MODELS. Restores: reads of whole blocks in random order from a file that was written
 * before, twice as many requests queued as are in flight. Spills: overwriting the same file. The
 * bound is the device: fio, which does nothing else, stands for it.
 *
 *   P1.io-1m, P1.io-64k   GB/s of reads, abode / fio
 *   P3.io-1m              GB/s of writes (no sync), abode / fio: information
 *   P5.io-1m              CPU ms per GB read, whole process
 *   P6.io-1m              io_uring_enter calls per GB read, counted by the engine
 *   P7.1m                 GB/s of reads, pread pool / io_uring
 */
#include "fio.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "io/io.h"

#define DEPTH_1M 8
#define DEPTH_64K 32
#define REQUESTS_MAX 128
#define FILE_BYTES_DEFAULT (2ull << 30)
#define CHUNK_BYTES (16u << 20) /* the file is a multiple of it */
#define GB 1e9

struct plan { /* what all sides of one case do */
    const struct bench_run *run;
    struct fio_plan file;
    int fd;
    uint64_t seed;
    unsigned char *memory;
};

static size_t memory_bytes(const struct plan *plan)
{
    return 2ull * plan->file.depth * plan->file.block_bytes; /* queued and in flight */
}

struct side {
    struct plan *plan;
    enum ab_io_engine engine;
};

/* ---- abode ---- */

struct stream { /* blocks in random order, each once */
    struct ab_io *io;
    uint32_t *order;
    uint32_t next, count, file;
    struct ab_io_request requests[REQUESTS_MAX];
};

static void order_shuffle(uint32_t *order, uint32_t count, uint64_t *seed)
{
    for (uint32_t i = 0; i < count; i++) {
        order[i] = i;
    }
    for (uint32_t i = count; i > 1; i--) {
        const uint32_t k = (uint32_t)(bench_random(seed) % i);
        const uint32_t swap = order[i - 1];
        order[i - 1] = order[k];
        order[k] = swap;
    }
}

static void stream_push(struct stream *stream, const struct plan *plan,
                        struct ab_io_request *request)
{
    if (stream->next == stream->count) {
        return;
    }
    request->offset = (uint64_t)stream->order[stream->next++] * plan->file.block_bytes;
    ab_io_submit(stream->io, &request, 1);
}

static int stream_run(struct stream *stream, const struct plan *plan)
{
    const uint32_t request_count = plan->file.depth * 2;
    for (uint32_t i = 0; i < request_count; i++) {
        stream->requests[i] = (struct ab_io_request){
            .kind = plan->file.is_write ? AB_IO_WRITE : AB_IO_READ,
            .file = stream->file,
            .address = plan->memory + (size_t)i * plan->file.block_bytes,
            .bytes = plan->file.block_bytes,
        };
        stream_push(stream, plan, &stream->requests[i]);
    }
    while (ab_io_in_flight(stream->io) > 0) {
        struct ab_io_request *done[REQUESTS_MAX];
        const uint32_t count = ab_io_poll(stream->io, done, REQUESTS_MAX, -1);
        for (uint32_t i = 0; i < count; i++) {
            if (done[i]->status < 0) {
                return done[i]->status;
            }
            stream_push(stream, plan, done[i]);
        }
    }
    return 0;
}

static int abode_open(const struct side *side, struct stream *stream)
{
    const struct plan *plan = side->plan;
    const struct ab_io_config config = {
        .os = ab_os_default(),
        .node = -1,
        .engine = side->engine,
        .depth = plan->file.depth,
        .file_max = 16,
        .probe_fd = plan->fd,
    };
    int code = ab_io_open(&config, &stream->io);
    if (code < 0) {
        return code;
    }
    code = ab_io_file_add(stream->io, plan->fd, &stream->file);
    if (code == 0) {
        code = ab_io_buffer_add(stream->io, plan->memory, memory_bytes(plan));
    }
    return code;
}

static int abode_side(void *context, struct bench_sample *ret_sample)
{
    const struct side *side = context;
    struct plan *plan = side->plan;
    struct stream stream = {.count = (uint32_t)(plan->file.bytes / plan->file.block_bytes)};
    stream.order = calloc(stream.count, sizeof(*stream.order));
    if (stream.order == NULL) {
        return -ENOMEM;
    }
    order_shuffle(stream.order, stream.count, &plan->seed);
    int code = abode_open(side, &stream);
    if (code == 0) {
        bench_sample_begin(ret_sample);
        code = stream_run(&stream, plan);
        bench_sample_end(ret_sample, plan->file.bytes);
        ret_sample->extra = (double)ab_io_counters(stream.io).submits;
    }
    ab_io_close(stream.io);
    free(stream.order);
    return code;
}

/* ---- one case ---- */

static int plan_open(struct plan *plan)
{
    plan->file.bytes = bench_bytes(plan->run, FILE_BYTES_DEFAULT) / CHUNK_BYTES * CHUNK_BYTES;
    int code = fio_open(plan->run, &plan->file);
    if (code < 0) {
        return code;
    }
    plan->fd = open(plan->file.path, O_RDWR | O_DIRECT | O_CLOEXEC);
    void *memory = NULL;
    code = plan->fd < 0 ? -errno : bench_memory_get(memory_bytes(plan), &memory);
    plan->memory = memory;
    return code;
}

static void plan_close(struct plan *plan)
{
    if (plan->memory != NULL) {
        bench_memory_put(plan->memory, memory_bytes(plan));
    }
    if (plan->fd >= 0) {
        (void)close(plan->fd);
    }
    fio_close(&plan->file);
}

static int plan_measure(struct plan *plan, const char *title, const struct bench_side *sides,
                        uint32_t side_count, struct bench_table *ret_table)
{
    plan->fd = -1;
    plan->seed = 1;
    int code = plan_open(plan);
    if (code == 0) {
        code = bench_rounds(plan->run, sides, side_count, ret_table);
    }
    if (code == 0) {
        bench_table_print(plan->run, title, sides, ret_table);
    }
    plan_close(plan);
    return code;
}

/* abode / fio; the sides are 0: fio, 1: abode */
static int against_fio(struct bench_run *run, struct plan *plan, const struct bench_card *card,
                       struct bench_table *ret_table)
{
    if (!fio_is_there()) {
        return bench_report_missing(run, card, "fio is not installed");
    }
    plan->run = run;
    plan->file.is_random = true;
    struct side uring = {.plan = plan, .engine = AB_IO_URING};
    const struct bench_side sides[] = {{"fio", fio_run, &plan->file},
                                       {"abode", abode_side, &uring}};
    const int code = plan_measure(plan, card->what, sides, 2, ret_table);
    if (code < 0) {
        return code;
    }
    const struct bench_series ratio = bench_ratio_of_rates(ret_table, 1, 0);
    const struct bench_series ours = bench_rates(ret_table, 1), theirs = bench_rates(ret_table, 0);
    char note[160];
    (void)snprintf(note, sizeof(note), "depth %u, abode %.2f GB/s, fio %.2f GB/s", plan->file.depth,
                   bench_series_median(&ours) / GB, bench_series_median(&theirs) / GB);
    return bench_report(run, card, &ratio, note);
}

static int report_costs(struct bench_run *run, const struct bench_table *table)
{
    struct bench_series cpu = {0}, enters = {0}, fio_cpu = {0};
    for (uint32_t round = 0; round < table->rounds; round++) {
        const struct bench_sample *fio = &table->samples[0][round];
        const struct bench_sample *abode = &table->samples[1][round];
        bench_series_add(&fio_cpu, fio->cpu_s * 1e3 / ((double)fio->bytes / GB));
        bench_series_add(&cpu, abode->cpu_s * 1e3 / ((double)abode->bytes / GB));
        bench_series_add(&enters, abode->extra / ((double)abode->bytes / GB));
    }
    const struct bench_card cpu_card = {"P5.io-1m", "CPU per GB read at 1 MiB, no verify", "ms/GB",
                                        20, BENCH_AT_MOST};
    const struct bench_card enter_card = {"P6.io-1m", "io_uring_enter calls per GB read at 1 MiB",
                                          "calls/GB", 300, BENCH_AT_MOST};
    if (table->rounds == 0) {
        const int code = bench_report_missing(run, &cpu_card, "fio is not installed");
        return code < 0 ? code : bench_report_missing(run, &enter_card, "fio is not installed");
    }
    char note[64];
    (void)snprintf(note, sizeof(note), "fio %.1f ms/GB", bench_series_median(&fio_cpu));
    const int code = bench_report(run, &cpu_card, &cpu, note);
    return code < 0 ? code : bench_report(run, &enter_card, &enters, "counted by the engine");
}

static int bench_read_1m(struct bench_run *run)
{
    static struct bench_table table; /* too large for a stack */
    struct plan plan = {.file = {.block_bytes = 1u << 20, .depth = DEPTH_1M}};
    const struct bench_card card = {"P1.io-1m", "engine reads / fio io_uring, 1 MiB", "ratio", 0.97,
                                    BENCH_AT_LEAST};
    const int code = against_fio(run, &plan, &card, &table);
    return code < 0 ? code : report_costs(run, &table);
}

static int bench_read_64k(struct bench_run *run)
{
    static struct bench_table table;
    struct plan plan = {.file = {.block_bytes = 64u << 10, .depth = DEPTH_64K}};
    const struct bench_card card = {"P1.io-64k", "engine reads / fio io_uring, 64 KiB", "ratio",
                                    0.95, BENCH_AT_LEAST};
    return against_fio(run, &plan, &card, &table);
}

static int bench_write_1m(struct bench_run *run)
{
    static struct bench_table table;
    struct plan plan = {.file = {.block_bytes = 1u << 20, .depth = DEPTH_1M, .is_write = true}};
    const struct bench_card card = {"P3.io-1m", "engine writes / fio io_uring, 1 MiB, no sync",
                                    "ratio", 0, BENCH_INFORMATION};
    return against_fio(run, &plan, &card, &table);
}

static int bench_pool(struct bench_run *run)
{
    static struct bench_table table;
    struct plan plan = {.run = run, .file = {.block_bytes = 1u << 20, .depth = DEPTH_1M}};
    struct side uring = {.plan = &plan, .engine = AB_IO_URING};
    struct side pool = {.plan = &plan, .engine = AB_IO_THREADS};
    const struct bench_side sides[] = {{"io_uring", abode_side, &uring},
                                       {"pool", abode_side, &pool}};
    const struct bench_card card = {"P7.1m", "pread pool / io_uring, reads of 1 MiB", "ratio", 0.95,
                                    BENCH_AT_LEAST};
    const int code = plan_measure(&plan, card.what, sides, 2, &table);
    if (code < 0) {
        return code;
    }
    const struct bench_series ratio = bench_ratio_of_rates(&table, 1, 0);
    return bench_report(run, &card, &ratio, NULL);
}

int main(int argc, char **argv)
{
    static const struct bench_case cases[] = {
        {"P1.io-1m P5.io-1m P6.io-1m", bench_read_1m},
        {"P1.io-64k", bench_read_64k},
        {"P3.io-1m", bench_write_1m},
        {"P7.1m", bench_pool},
    };
    static const struct bench_suite suite = {"bench_io", cases, sizeof(cases) / sizeof(cases[0]),
                                             NULL};
    return bench_main(argc, argv, &suite);
}
