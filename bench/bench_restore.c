/*
 * bench_restore.c - sessions from disk: attach of sessions that have no frame left, every block
 * verified, against fio's io_uring engine reading a file of the same size.
 *
 * WHAT IT MODELS. Eight sessions come back together. Each byte is read once from the device into
 * its frame (around the page cache) and once by the checksum. The bound is fio, which reads in
 * order, blocks of the same size, and looks at no byte. At 64 KiB fio has 32 reads in flight, at
 * 1 MiB 8.
 *
 *   P2.1m P2.64k   GB/s, attach with verify / fio
 *   P5.1m-verify   CPU ms per GB restored, whole process
 */
#include "fio.h"
#include "session_host.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#define SESSIONS 8
#define BYTES_DEFAULT (256ull << 20)
#define DEPTH_1M 8
#define DEPTH_64K 32
#define GB 1e9

static int restore_side(void *context, struct bench_sample *ret_sample)
{
    struct host *host = context;
    struct abode_stats before, after;
    int code = host_stats(host, &before);
    if (code < 0) {
        return code;
    }
    bench_sample_begin(ret_sample);
    code = host_attach(host);
    bench_sample_end(ret_sample, host_bytes(&host->plan));
    code = code < 0 ? code : host_stats(host, &after);
    code = code < 0 ? code : host_detach(host, ABODE_DETACH_SPILL_NOW);
    if (code == 0 && after.bytes_restored - before.bytes_restored != host_bytes(&host->plan)) {
        return -EPROTO; /* something was in memory still: not a restore */
    }
    return code;
}

static int rounds_run(struct bench_run *run, struct host *host, struct fio_plan *fio,
                      const char *title, struct bench_table *ret_table)
{
    const struct bench_side sides[] = {{"fio", fio_run, fio}, {"abode", restore_side, host}};
    int code = host_sessions_fill(host, 1);
    code = code < 0 ? code : host_detach(host, ABODE_DETACH_SPILL_NOW);
    code = code < 0 ? code : fio_open(run, fio);
    code = code < 0 ? code : bench_rounds(run, sides, 2, ret_table);
    if (code == 0) {
        bench_table_print(run, title, sides, ret_table);
    }
    fio_close(fio);
    return code;
}

static int restore(struct bench_run *run, const struct bench_card *card, uint32_t block_bytes,
                   uint32_t depth, struct bench_table *ret_table)
{
    static struct host host;
    const struct host_plan plan = {
        .block_bytes = block_bytes,
        .block_tokens = HOST_BLOCK_TOKENS,
        .session_count = SESSIONS,
        .row_count = (uint32_t)(bench_bytes(run, BYTES_DEFAULT) / SESSIONS / block_bytes),
        .has_store = true,
        .durability = ABODE_WRITTEN};
    struct fio_plan fio = {.bytes = host_bytes(&plan), .block_bytes = block_bytes, .depth = depth};
    if (!fio_is_there()) {
        return bench_report_missing(run, card, "fio is not installed");
    }
    int code = host_open(run, &plan, &host);
    if (code < 0) {
        return code;
    }
    code = rounds_run(run, &host, &fio, card->what, ret_table);
    if (code == 0) {
        char note[160];
        const struct bench_series ratio = bench_ratio_of_rates(ret_table, 1, 0),
                                  ours = bench_rates(ret_table, 1),
                                  theirs = bench_rates(ret_table, 0);
        (void)snprintf(note, sizeof(note), "%llu MiB, fio depth %u: fio %.2f, abode %.2f GB/s",
                       (unsigned long long)(fio.bytes >> 20), depth,
                       bench_series_median(&theirs) / GB, bench_series_median(&ours) / GB);
        code = bench_report(run, card, &ratio, note);
    }
    const int closed = host_close(&host);
    return code < 0 ? code : closed;
}

static int bench_1m(struct bench_run *run)
{
    static struct bench_table table; /* too large for a stack */
    const struct bench_card card = {"P2.1m", "restore with verify / fio io_uring, 1 MiB", "ratio",
                                    0.95, BENCH_AT_LEAST};
    const struct bench_card cpu_card = {"P5.1m-verify", "CPU per GB restored at 1 MiB, verified",
                                        "ms/GB", 100, BENCH_AT_MOST};
    const int code = restore(run, &card, 1u << 20, DEPTH_1M, &table);
    if (code < 0) {
        return code;
    }
    if (table.rounds == 0) {
        return bench_report_missing(run, &cpu_card, "fio is not installed");
    }
    struct bench_series cpu = {0}, fio_cpu = {0};
    for (uint32_t round = 0; round < table.rounds; round++) {
        const struct bench_sample *fio = &table.samples[0][round];
        const struct bench_sample *abode = &table.samples[1][round];
        bench_series_add(&fio_cpu, fio->cpu_s * 1e3 / ((double)fio->bytes / GB));
        bench_series_add(&cpu, abode->cpu_s * 1e3 / ((double)abode->bytes / GB));
    }
    char note[64];
    (void)snprintf(note, sizeof(note), "fio %.1f ms/GB", bench_series_median(&fio_cpu));
    return bench_report(run, &cpu_card, &cpu, note);
}

static int bench_64k(struct bench_run *run)
{
    static struct bench_table table;
    const struct bench_card card = {"P2.64k", "restore with verify / fio io_uring, 64 KiB", "ratio",
                                    0.95, BENCH_INFORMATION};
    return restore(run, &card, 64u << 10, DEPTH_64K, &table);
}

int main(int argc, char **argv)
{
    static const struct bench_case cases[] = {
        {"P2.1m P5.1m-verify", bench_1m},
        {"P2.64k", bench_64k},
    };
    static const struct bench_suite suite = {"bench_restore", cases,
                                             sizeof(cases) / sizeof(cases[0]), NULL};
    return bench_main(argc, argv, &suite);
}
