/*
 * bench_spill.c - sessions to disk, durably: detach of all sessions against what the device can do
 * and against what a host does by itself.
 *
 * WHAT IT MODELS. Eight sessions of equal size end their turn together. Their blocks are written
 * from the frames, checksummed, and the op comes back when the store promises them over a power
 * cut. The store is warm: its segments were written before and are used again. The bound is fio,
 * which overwrites a written file of the same size in order and syncs once at the end.
 *
 *   P3.1m        GB/s, abode / fio io_uring (direct, depth 8, 1 MiB) with the sync inside
 *   P4.1m        GB/s, abode / one new file per session: gathered into a buffer, pwrite, fdatasync
 *   P13.2m .64k  bytes written / bytes accepted, counters of a warm store
 *   P19.resident-2m  metadata bytes / state bytes in memory
 */
#include "fio.h"
#include "session_host.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define SESSIONS 8
#define BYTES_DEFAULT (256ull << 20)
#define OVERHEAD_BYTES (1024ull << 20) /* a part of the metadata is the same for any size */
#define WARM_CYCLES 4 /* more than the store holds: every segment is written once */
#define DEPTH 8
#define PIECE_BYTES (1u << 20) /* of a pwrite */
#define GB 1e9

static struct host_plan plan_of(const struct bench_run *run, uint32_t block_bytes)
{
    const uint64_t rows = bench_bytes(run, BYTES_DEFAULT) / SESSIONS / block_bytes;
    return (struct host_plan){.block_bytes = block_bytes,
                              .block_tokens = HOST_BLOCK_TOKENS,
                              .session_count = SESSIONS,
                              .row_count = rows == 0 ? 1 : (uint32_t)rows,
                              .has_store = true,
                              .durability = ABODE_DURABLE};
}

struct spill {
    struct host host;
    uint64_t seed, bytes_prepared; /* inside the measured parts */
};

static int cycle(struct spill *spill, struct bench_sample *ret_sample)
{
    struct abode_stats before, after;
    int code = host_sessions_fill(&spill->host, ++spill->seed);
    code = code < 0 ? code : host_stats(&spill->host, &before);
    bench_sample_begin(ret_sample);
    code = code < 0 ? code : host_detach(&spill->host, ABODE_DETACH_SPILL_NOW);
    bench_sample_end(ret_sample, host_bytes(&spill->host.plan));
    code = code < 0 ? code : host_stats(&spill->host, &after);
    if (code == 0) {
        spill->bytes_prepared += after.bytes_prepared - before.bytes_prepared;
    }
    return code < 0 ? code : host_sessions_delete(&spill->host);
}

static int spill_side(void *context, struct bench_sample *ret_sample)
{
    return cycle(context, ret_sample);
}

static int spill_open(const struct bench_run *run, uint32_t block_bytes, struct spill *ret)
{
    const struct host_plan plan = plan_of(run, block_bytes);
    memset(ret, 0, sizeof(*ret));
    int code = host_open(run, &plan, &ret->host);
    if (code < 0) {
        return code;
    }
    for (uint32_t i = 0; i < WARM_CYCLES && code == 0; i++) {
        struct bench_sample sample;
        code = cycle(ret, &sample);
    }
    ret->bytes_prepared = 0;
    if (code < 0) {
        (void)host_close(&ret->host);
    }
    return code;
}

/* ---- one extending file per session ---- */

struct files {
    char dir[BENCH_PATH_MAX];
    unsigned char *state; /* of one session */
    uint64_t session_bytes;
    uint32_t round;
};

static int file_save(const struct files *files, uint32_t session)
{
    char path[BENCH_PATH_MAX + 32];
    (void)snprintf(path, sizeof(path), "%s/%u", files->dir, session);
    unsigned char *buffer = malloc(files->session_bytes);
    if (buffer == NULL) {
        return -ENOMEM;
    }
    memcpy(buffer, files->state, files->session_bytes);
    const int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    int code = fd < 0 ? -errno : 0;
    for (uint64_t at = 0; at < files->session_bytes && code == 0; at += PIECE_BYTES) {
        const uint64_t left = files->session_bytes - at;
        const size_t count = left < PIECE_BYTES ? left : PIECE_BYTES;
        errno = EIO;
        code = pwrite(fd, buffer + at, count, (off_t)at) == (ssize_t)count ? 0 : -errno;
    }
    code = code == 0 && fdatasync(fd) != 0 ? -errno : code;
    if (fd >= 0) {
        (void)close(fd);
    }
    free(buffer);
    return code;
}

static int files_side(void *context, struct bench_sample *ret_sample)
{
    struct files *files = context;
    int code = 0;
    bench_fill(files->state, files->session_bytes, ++files->round);
    bench_sample_begin(ret_sample);
    for (uint32_t i = 0; i < SESSIONS && code == 0; i++) {
        code = file_save(files, i);
    }
    bench_sample_end(ret_sample, files->session_bytes * SESSIONS);
    for (uint32_t i = 0; i < SESSIONS; i++) {
        char path[BENCH_PATH_MAX + 32];
        (void)snprintf(path, sizeof(path), "%s/%u", files->dir, i);
        (void)unlink(path);
    }
    return code;
}

static int files_open(const struct bench_run *run, uint64_t bytes, struct files *ret)
{
    memset(ret, 0, sizeof(*ret));
    ret->session_bytes = bytes / SESSIONS;
    ret->state = malloc(ret->session_bytes);
    return ret->state == NULL ? -ENOMEM : bench_directory_make(run, "files", ret->dir);
}

static void files_close(struct files *files)
{
    free(files->state);
    if (files->dir[0] != '\0') {
        (void)bench_directory_remove(files->dir);
    }
}

/* ---- P3, P4 ---- */

static int spill_report(const struct bench_run *run, const struct bench_table *table,
                        const struct spill *spill)
{
    const struct bench_card fio_card = {"P3.1m", "durable spill / fio write + sync, written file",
                                        "ratio", 0.95, BENCH_AT_LEAST};
    const struct bench_card file_card = {"P4.1m", "durable spill / one extending file per session",
                                         "ratio", 1.8, BENCH_AT_LEAST};
    const struct bench_series fio = bench_rates(table, 0), ours = bench_rates(table, 1),
                              theirs = bench_rates(table, 2),
                              over_fio = bench_ratio_of_rates(table, 1, 0),
                              over_files = bench_ratio_of_rates(table, 1, 2);
    char note[240];
    (void)snprintf(note, sizeof(note),
                   "%llu MiB in %d sessions: fio %.2f, abode %.2f, files %.2f GB/s; "
                   "%llu MiB prewritten in the measured parts",
                   (unsigned long long)(host_bytes(&spill->host.plan) >> 20), SESSIONS,
                   bench_series_median(&fio) / GB, bench_series_median(&ours) / GB,
                   bench_series_median(&theirs) / GB,
                   (unsigned long long)(spill->bytes_prepared >> 20));
    const int code = bench_report(run, &fio_card, &over_fio, note);
    return code < 0 ? code : bench_report(run, &file_card, &over_files, note);
}

static int bench_durable(struct bench_run *run)
{
    static struct bench_table table; /* too large for a stack */
    static struct spill spill;
    if (!fio_is_there()) {
        const struct bench_card card = {"P3.1m", "durable spill / fio", "ratio", 0.95,
                                        BENCH_AT_LEAST};
        return bench_report_missing(run, &card, "fio is not installed");
    }
    int code = spill_open(run, 1u << 20, &spill);
    if (code < 0) {
        return code;
    }
    struct files files = {.state = NULL};
    struct fio_plan fio = {.bytes = host_bytes(&spill.host.plan),
                           .block_bytes = 1u << 20,
                           .depth = DEPTH,
                           .is_write = true,
                           .has_sync = true};
    const struct bench_side sides[] = {
        {"fio", fio_run, &fio}, {"abode", spill_side, &spill}, {"files", files_side, &files}};
    code = fio_open(run, &fio);
    code = code < 0 ? code : files_open(run, fio.bytes, &files);
    code = code < 0 ? code : bench_rounds(run, sides, 3, &table);
    if (code == 0) {
        bench_table_print(run, "durable spill", sides, &table);
        code = spill_report(run, &table, &spill);
    }
    files_close(&files);
    fio_close(&fio);
    const int closed = host_close(&spill.host);
    return code < 0 ? code : closed;
}

/* ---- P13 and memory ---- */

static int amplification(struct bench_run *run, const struct bench_card *card, uint32_t block_bytes)
{
    static struct spill spill;
    struct bench_series series = {0};
    int code = spill_open(run, block_bytes, &spill);
    if (code < 0) {
        return code;
    }
    for (uint32_t round = 0; round < run->rounds && code == 0; round++) {
        struct abode_stats before, after;
        struct bench_sample sample;
        code = host_stats(&spill.host, &before);
        code = code < 0 ? code : cycle(&spill, &sample);
        code = code < 0 ? code : host_stats(&spill.host, &after);
        if (code == 0) {
            bench_series_add(&series, (double)(after.bytes_written - before.bytes_written) /
                                          (double)(after.bytes_accepted - before.bytes_accepted));
        }
    }
    char note[96];
    (void)snprintf(note, sizeof(note), "journal and headers included; %llu MiB prewritten",
                   (unsigned long long)(spill.bytes_prepared >> 20));
    code = code < 0 ? code : bench_report(run, card, &series, note);
    const int closed = host_close(&spill.host);
    return code < 0 ? code : closed;
}

static int bench_amplification_2m(struct bench_run *run)
{
    const struct bench_card card = {"P13.2m", "bytes written / state bytes, blocks of 2 MiB",
                                    "ratio", 1.05, BENCH_AT_MOST};
    return amplification(run, &card, 2u << 20);
}

static int bench_amplification_64k(struct bench_run *run)
{
    const struct bench_card card = {"P13.64k", "bytes written / state bytes, blocks of 64 KiB",
                                    "ratio", 1.05, BENCH_AT_MOST};
    return amplification(run, &card, 64u << 10);
}

static int bench_overhead(struct bench_run *run)
{
    static struct host host;
    struct host_plan plan = plan_of(run, 2u << 20);
    plan.row_count = (uint32_t)(bench_bytes(run, OVERHEAD_BYTES) / SESSIONS / plan.block_bytes);
    const struct bench_card card = {"P19.resident-2m",
                                    "metadata bytes / state bytes in memory, blocks of 2 MiB",
                                    "ratio", 0.01, BENCH_AT_MOST};
    struct bench_series series = {0};
    struct abode_stats stats;
    int code = host_open(run, &plan, &host);
    if (code < 0) {
        return code;
    }
    code = host_sessions_fill(&host, 1);
    code = code < 0 ? code : host_stats(&host, &stats);
    if (code == 0) {
        char note[96];
        bench_series_add(&series, (double)stats.metadata_bytes / (double)host_bytes(&plan));
        (void)snprintf(note, sizeof(note), "%llu KiB for %llu MiB of state, store and queue",
                       (unsigned long long)(stats.metadata_bytes >> 10),
                       (unsigned long long)(host_bytes(&plan) >> 20));
        code = bench_report(run, &card, &series, note);
        const int detached = host_detach(&host, 0);
        code = code < 0 ? code : detached;
    }
    const int closed = host_close(&host);
    return code < 0 ? code : closed;
}

int main(int argc, char **argv)
{
    static const struct bench_case cases[] = {
        {"P3.1m P4.1m", bench_durable},
        {"P13.2m", bench_amplification_2m},
        {"P13.64k", bench_amplification_64k},
        {"P19.resident-2m", bench_overhead},
    };
    static const struct bench_suite suite = {"bench_spill", cases, sizeof(cases) / sizeof(cases[0]),
                                             NULL};
    return bench_main(argc, argv, &suite);
}
