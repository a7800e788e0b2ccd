/*
 * bench_common.h - what all benches share: rounds in turn, medians, the scorecard's lines.
 *
 * THE IDEA. Machines differ and are noisy, so a result is a ratio of two or more sides measured in
 * turn in one run: A B A B ..., at least 5 rounds, and the ratio is taken inside each round. The
 * scorecard gets the median ratio with its lowest and highest round.
 *
 * A BENCH is one file bench/bench_NAME.c; `make bench` builds it as build/bench/bench_NAME:
 *
 *     static int bench_p1(struct bench_run *run);    // measures, then calls bench_report()
 *     static void micro_register(void);              // optional: gbench_register() calls
 *     static const struct bench_case cases[] = {{"P1.1m P1.64k", bench_p1}};
 *     static const struct bench_suite suite = {"bench_restore", cases, 1, micro_register};
 *     int main(int argc, char **argv) { return bench_main(argc, argv, &suite); }
 *
 *     build/bench/bench_restore                      Google Benchmark (its own flags work), then
 *                                                    nothing else
 *     build/bench/bench_restore --score [ID,ID]      the cases with these ids, all without a list
 *     build/bench/bench_restore --ids                the ids, one a line (for bench/scorecard)
 *     other options: --dir DIR --rounds N --warmup N --bytes N[k|m|g] --json FILE
 *
 * An id is a scorecard id, or one with a suffix where a row has several goals: "P1.64k" belongs to
 * P1. `make scorecard ONLY=P1` finds the bench by its --ids, so a new bench needs no entry elsewhere.
 *
 * A CASE that cannot run here says so with bench_report_missing() and returns 0; a negative result
 * is an error, and ends the bench with exit status 1. Exit status 77: none of the ids is of this
 * bench.
 *
 * All int results: 0 or a count, -errno on failure. Single-threaded, but for bench_now_ns and
 * bench_sample_*, which any thread may call.
 */
#ifndef AB_BENCH_COMMON_H
#define AB_BENCH_COMMON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define BENCH_ROUNDS_MAX 99
#define BENCH_SIDES_MAX 8
#define BENCH_PATH_MAX 512
#define BENCH_MUST_CHECK __attribute__((warn_unused_result))

/* ---- one run of a program -------------------------------------------------------------------- */
struct bench_run {
    const char *name;      /* of the suite */
    const char *dir;       /* --dir: where files may be put; default $ABODE_BENCH_DIR, else "." */
    uint32_t rounds;       /* --rounds, default 5 */
    uint32_t warmup;       /* --warmup, default 1: rounds that are not counted */
    uint64_t bytes;        /* --bytes: size of the work, 0: the bench's own default */
    const char *json_path; /* --json: lines are appended here; NULL: they go to stdout */
    const char *only;      /* ids asked for, comma between; NULL: all */
    char machine[256];     /* CPU, cores, memory, kernel, file system and device of dir */
    char commit[64];
};
struct bench_case {
    const char *ids; /* what it reports, blank between */
    int (*run)(struct bench_run *run);
};
struct bench_suite {
    const char *name;
    const struct bench_case *cases;
    uint32_t case_count;
    void (*micro_register)(void); /* NULL: nothing for Google Benchmark */
};
int bench_main(int argc, char **argv, const struct bench_suite *suite);
/* Was this id (or the row that it belongs to) asked for? For cases that report several. */
bool bench_wanted(const struct bench_run *run, const char *id);
/* bytes of the run, or the bench's own default where --bytes was not given */
uint64_t bench_bytes(const struct bench_run *run, uint64_t bytes_default);

/* ---- one measurement: begin, the work, end ------------------------------------------------------ */
struct bench_sample {
    double seconds; /* wall */
    double cpu_s;   /* user + system of the whole process, all threads (getrusage) */
    uint64_t bytes; /* moved */
    double extra;   /* the bench's own count: calls, hits */
};
uint64_t bench_now_ns(void); /* CLOCK_MONOTONIC */
double bench_cpu_s(void);    /* user + system of this process so far */
void bench_sample_begin(struct bench_sample *sample);
void bench_sample_end(struct bench_sample *sample, uint64_t bytes);
double bench_rate(const struct bench_sample *sample); /* bytes per second */
double bench_cpu_s_per_gib(const struct bench_sample *sample);

/* ---- rounds in turn ------------------------------------------------------------------------------
 * Each round runs every side once, in order: A B A B ... A side does its own set-up (drop caches,
 * make files) outside sample_begin/sample_end. ret_samples[side][round].
 */
struct bench_side {
    const char *name;
    int (*run)(void *context, struct bench_sample *ret_sample);
    void *context;
};
struct bench_table {
    uint32_t rounds, side_count;
    struct bench_sample samples[BENCH_SIDES_MAX][BENCH_ROUNDS_MAX];
};
BENCH_MUST_CHECK int bench_rounds(const struct bench_run *run, const struct bench_side *sides,
                                  uint32_t side_count, struct bench_table *ret_table);

/* ---- numbers of many rounds ------------------------------------------------------------------ */
struct bench_series {
    uint32_t count;
    double values[BENCH_ROUNDS_MAX];
};
void bench_series_add(struct bench_series *series, double value); /* past the maximum: dropped */
double bench_series_median(const struct bench_series *series);    /* empty: 0 */
double bench_series_min(const struct bench_series *series);
double bench_series_max(const struct bench_series *series);
/* rate of side a / rate of side b in each round; goal ">= 0.97" */
struct bench_series bench_ratio_of_rates(const struct bench_table *table, uint32_t a, uint32_t b);
/* seconds of side a / seconds of side b in each round; goal "<= 1.02" */
struct bench_series bench_ratio_of_seconds(const struct bench_table *table, uint32_t a, uint32_t b);
/* (a + b) / (c + d) in each round; NULL is nothing, one sample stands for all rounds, no sample: empty */
struct bench_series bench_ratio_of_sums(const struct bench_series *a, const struct bench_series *b,
                                        const struct bench_series *c, const struct bench_series *d);
struct bench_series bench_rates(const struct bench_table *table, uint32_t side);
struct bench_series bench_cpu_per_gib(const struct bench_table *table, uint32_t side);
/* permille 500: median, 990: p99, 999: p99.9. Sorts values. Empty: 0. */
uint64_t bench_percentile(uint64_t *values, size_t count, uint32_t permille);

/* ---- the scorecard ---------------------------------------------------------------------------- */
enum bench_goal { BENCH_AT_LEAST = 1, BENCH_AT_MOST, BENCH_INFORMATION };
struct bench_card {
    const char *id;   /* "P1.64k" */
    const char *what; /* "restore, no verify / fio io_uring, 64 KiB" */
    const char *unit; /* "ratio", "ms/GB", "us" */
    double goal;
    enum bench_goal kind; /* INFORMATION: an absolute figure beside a ratio, no goal */
};
/* One line for a person on stdout, one JSON line for the scorecard:
 * {"id":"P1.64k","what":"...","value":0.98,"goal":">= 0.95","reached":true,"min":0.96,"max":0.99,
 *  "rounds":5,"unit":"ratio","note":"...","command":"make scorecard ONLY=P1","machine":"...",
 *  "commit":"...","date":"2024-05-01"}
 * note: NULL, or what a reader must know (absolute figures, sizes). */
BENCH_MUST_CHECK int bench_report(const struct bench_run *run, const struct bench_card *card,
                                  const struct bench_series *series, const char *note);
/* The same line with "value":null and "reason". */
BENCH_MUST_CHECK int bench_report_missing(const struct bench_run *run,
                                          const struct bench_card *card, const char *reason);
/* "reading 64 KiB: fio 2.31 GB/s 18 ms/GB, abode 2.30 GB/s 17 ms/GB": medians of all sides */
void bench_table_print(const struct bench_run *run, const char *title,
                       const struct bench_side *sides, const struct bench_table *table);
void bench_say(const char *format, ...) __attribute__((format(printf, 1, 2))); /* a line, flushed */

/* ---- memory --------------------------------------------------------------------------------------
 * Zeroed, prefaulted, 2 MiB aligned, transparent huge pages where the system gives them. */
BENCH_MUST_CHECK int bench_memory_get(size_t bytes, void **ret_memory);
void bench_memory_put(void *memory, size_t bytes);
/* Bytes that do not compress and differ by seed (splitmix64); the same for the same seed. */
void bench_fill(void *bytes, size_t count, uint64_t seed);
uint64_t bench_random(uint64_t *state); /* next number of splitmix64 */

/* ---- files and the page cache ----------------------------------------------------------------- */
/* A new empty directory below run->dir: "bench-NAME-XXXXXX". */
BENCH_MUST_CHECK int bench_directory_make(const struct bench_run *run, const char *name,
                                          char ret_path[BENCH_PATH_MAX]);
int bench_directory_remove(const char *path); /* with everything in it; no links are followed */
/* Write back and drop the cached pages of one file, of every file below a directory. Returns 0;
 * drop_tree returns how many 4 KiB pages are still cached (mapped or dirty ones), 0 is cold. */
BENCH_MUST_CHECK int bench_cache_drop_fd(int fd);
BENCH_MUST_CHECK int64_t bench_cache_drop_tree(const char *path);
/* All of the machine's page cache, dentries and inodes; -EACCES without root. Disturbs others:
 * only for benches that measure a cold open. */
BENCH_MUST_CHECK int bench_cache_drop_all(void);

#endif
