/*
 * bench_rivals.c - P22: the cache face against what a host could use instead, in turn: a file per object
 * (buffered; O_DIRECT with four threads), LMDB, RocksDB with blob files.
 *
 * WHAT IT MODELS. A host that owns its memory puts blocks of 64 KiB or 1 MiB (a block of 16 tokens of a
 * small and of a large model) and later, after a restart, gets them in random order. The promise is
 * the same for all: a batch of BATCH_BYTES is on the disk when its put is acknowledged; every get
 * ends in the host's own memory. Cold: the store was closed, its files written back and dropped
 * from the page cache, and mincore saw none of their pages left.
 * Bytes per op: one object. Bound: the disk's bandwidth.
 *
 * A round puts and gets with every rival once, each in a directory of its own that is removed
 * after it. Ratios are taken in each round, against the best rival of that round and the median.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "rivals.h"

#define BYTES_DEFAULT ((uint64_t)512 << 20)
#define BATCH_BYTES ((uint64_t)8 << 20)
#define RIVALS_MAX 4

enum phase { PHASE_PUT, PHASE_GET, PHASE_COUNT };

/* abode first, then those rivals that this build has */
struct field {
    const struct rival *all[1 + RIVALS_MAX];
    uint32_t count;
    struct bench_table tables[PHASE_COUNT];
};

struct load {           /* one object size; the job's memory */
    const char *suffix; /* of the ids: "64k" */
    uint64_t object_bytes;
};

static const struct load loads[] = {{"64k", 64u << 10}, {"1m", 1u << 20}};

/* ---- the job ---------------------------------------------------------------------------------------- */
static void order_shuffle(uint32_t *order, uint32_t count)
{
    uint64_t state = 7;
    for (uint32_t i = 0; i < count; i++) {
        order[i] = i;
    }
    for (uint32_t i = count; i > 1; i--) {
        const uint32_t j = (uint32_t)(bench_random(&state) % i);
        const uint32_t kept = order[i - 1];
        order[i - 1] = order[j];
        order[j] = kept;
    }
}

static void job_free(struct rival_job *job)
{
    bench_memory_put((void *)(uintptr_t)job->source, rival_bytes(job));
    bench_memory_put(job->target, rival_bytes(job));
    bench_memory_put((void *)(uintptr_t)job->keys, (size_t)job->object_count * RIVAL_KEY_BYTES);
    bench_memory_put((void *)(uintptr_t)job->order, job->object_count * sizeof(job->order[0]));
}

static int job_make(const struct bench_run *run, const struct load *load, struct rival_job *ret)
{
    struct rival_job job = {.object_bytes = load->object_bytes};
    job.object_count = (uint32_t)(bench_bytes(run, BYTES_DEFAULT) / load->object_bytes);
    job.object_count = job.object_count == 0 ? 1 : job.object_count;
    job.batch_count = (uint32_t)(BATCH_BYTES / load->object_bytes);
    void *source = NULL, *target = NULL, *keys = NULL, *order = NULL;
    int code = bench_memory_get(rival_bytes(&job), &source);
    code = code < 0 ? code : bench_memory_get(rival_bytes(&job), &target);
    code = code < 0 ? code : bench_memory_get((size_t)job.object_count * RIVAL_KEY_BYTES, &keys);
    code = code < 0 ? code : bench_memory_get(job.object_count * sizeof(job.order[0]), &order);
    job.source = source;
    job.target = target;
    job.keys = keys;
    job.order = order;
    if (code < 0) {
        job_free(&job);
        return code;
    }
    bench_fill(source, rival_bytes(&job), load->object_bytes);
    bench_fill(keys, (size_t)job.object_count * RIVAL_KEY_BYTES, load->object_bytes + 1);
    order_shuffle(order, job.object_count);
    *ret = job;
    return 0;
}

/* ---- one rival's turn --------------------------------------------------------------------------------- */

/* put, then forget everything that memory knows, then get; every byte is compared */
static int phases_run(const struct rival *rival, struct rival_job *job,
                      struct bench_sample *ret_samples)
{
    int code = rival->put(job, &ret_samples[PHASE_PUT]);
    if (code < 0) {
        return code;
    }
    const int64_t pages = bench_cache_drop_tree(job->dir);
    if (pages != 0) {
        bench_say("%s: %lld pages stayed in the page cache: not cold", rival->name,
                  (long long)pages);
        return pages < 0 ? (int)pages : -EBUSY;
    }
    memset(job->target, 0, rival_bytes(job));
    code = rival->get(job, &ret_samples[PHASE_GET]);
    if (code == 0 && memcmp(job->source, job->target, rival_bytes(job)) != 0) {
        bench_say("%s gave back other bytes than were put", rival->name);
        code = -EILSEQ;
    }
    return code;
}

static int turn_run(const struct bench_run *run, const struct rival *rival, struct rival_job *job,
                    struct bench_sample *ret_samples)
{
    char dir[BENCH_PATH_MAX];
    int code = bench_directory_make(run, "rivals", dir);
    if (code < 0) {
        return code;
    }
    job->dir = dir;
    code = phases_run(rival, job, ret_samples);
    job->dir = NULL;
    const int removed = bench_directory_remove(dir);
    if (code < 0) {
        bench_say("%s: %s failed: %s", run->name, rival->name, strerror(-code));
        return code;
    }
    return removed;
}

static int rounds_run(const struct bench_run *run, struct rival_job *job, struct field *field)
{
    for (uint32_t round = 0; round < run->warmup + run->rounds; round++) {
        for (uint32_t i = 0; i < field->count; i++) {
            struct bench_sample samples[PHASE_COUNT] = {{0}};
            const int code = turn_run(run, field->all[i], job, samples);
            if (code < 0) {
                return code;
            }
            for (uint32_t phase = 0; phase < PHASE_COUNT && round >= run->warmup; phase++) {
                field->tables[phase].samples[i][round - run->warmup] = samples[phase];
            }
        }
    }
    for (uint32_t phase = 0; phase < PHASE_COUNT; phase++) {
        field->tables[phase].rounds = run->rounds;
        field->tables[phase].side_count = field->count;
    }
    return 0;
}

/* ---- reports --------------------------------------------------------------------------------------------- */
enum against { AGAINST_BEST, AGAINST_MEDIAN, AGAINST_LEAST_CPU };

/* abode's figure over the rivals' in one round */
static double round_ratio(const struct field *field, enum phase phase, enum against against,
                          uint32_t round)
{
    struct bench_series rivals = {0};
    const bool cpu = against == AGAINST_LEAST_CPU;
    for (uint32_t i = 1; i < field->count; i++) {
        const struct bench_sample *sample = &field->tables[phase].samples[i][round];
        bench_series_add(&rivals, cpu ? bench_cpu_s_per_gib(sample) : bench_rate(sample));
    }
    const struct bench_sample *own = &field->tables[phase].samples[0][round];
    const double below = cpu                       ? bench_series_min(&rivals)
                         : against == AGAINST_BEST ? bench_series_max(&rivals)
                                                   : bench_series_median(&rivals);
    return below > 0 ? (cpu ? bench_cpu_s_per_gib(own) : bench_rate(own)) / below : 0;
}

/* "abode 3.10, file per object, buffered 0.52, ... GB/s", or CPU seconds per GiB */
static void note_make(const struct field *field, enum phase phase, bool cpu, char *ret,
                      size_t capacity)
{
    size_t used = 0;
    for (uint32_t i = 0; i < field->count && used < capacity; i++) {
        const struct bench_table *table = &field->tables[phase];
        const struct bench_series series =
            cpu ? bench_cpu_per_gib(table, i) : bench_rates(table, i);
        const double value = bench_series_median(&series) * (cpu ? 1 : 1e-9);
        used += (size_t)snprintf(ret + used, capacity - used, "%s%s %.3f", i == 0 ? "" : "; ",
                                 field->all[i]->name, value);
    }
    if (used < capacity) {
        (void)snprintf(ret + used, capacity - used, "%s", cpu ? " s/GiB" : " GB/s");
    }
}

struct verdict {
    const char *id, *what;
    double goal;
    enum bench_goal kind;
    enum phase phase;
    enum against against;
};

static const struct verdict verdicts[] = {
    {"get.64k", "cold get of 64 KiB / the best rival", 2, BENCH_AT_LEAST, PHASE_GET, AGAINST_BEST},
    {"put.64k", "durable put of 64 KiB / the best rival", 2, BENCH_AT_LEAST, PHASE_PUT,
     AGAINST_BEST},
    {"get.1m", "cold get of 1 MiB / the best rival", 1, BENCH_AT_LEAST, PHASE_GET, AGAINST_BEST},
    {"put.1m", "durable put of 1 MiB / the best rival", 1, BENCH_AT_LEAST, PHASE_PUT, AGAINST_BEST},
    {"get-median.1m", "cold get of 1 MiB / the median rival", 2, BENCH_AT_LEAST, PHASE_GET,
     AGAINST_MEDIAN},
    {"put-median.1m", "durable put of 1 MiB / the median rival", 2, BENCH_AT_LEAST, PHASE_PUT,
     AGAINST_MEDIAN},
    {"cpu-get.64k", "CPU of a cold get of 64 KiB / the least of the rivals", 0.5, BENCH_AT_MOST,
     PHASE_GET, AGAINST_LEAST_CPU},
    {"cpu-put.64k", "CPU of a durable put of 64 KiB / the least of the rivals", 0.5, BENCH_AT_MOST,
     PHASE_PUT, AGAINST_LEAST_CPU},
    {"cpu-get.1m", "CPU of a cold get of 1 MiB / the least of the rivals", 0.5, BENCH_AT_MOST,
     PHASE_GET, AGAINST_LEAST_CPU},
    {"cpu-put.1m", "CPU of a durable put of 1 MiB / the least of the rivals", 0.5, BENCH_AT_MOST,
     PHASE_PUT, AGAINST_LEAST_CPU},
};
#define VERDICT_COUNT (sizeof(verdicts) / sizeof(verdicts[0]))

static bool verdict_is_of(const struct verdict *verdict, const struct load *load)
{
    return strcmp(strchr(verdict->id, '.') + 1, load->suffix) == 0;
}

static int verdict_report(const struct bench_run *run, const struct verdict *verdict,
                          const struct field *field)
{
    char id[48], note[512];
    (void)snprintf(id, sizeof(id), "P22.%s", verdict->id);
    const struct bench_card card = {.id = id,
                                    .what = verdict->what,
                                    .unit = "ratio",
                                    .goal = verdict->goal,
                                    .kind = verdict->kind};
    if (!bench_wanted(run, id)) {
        return 0;
    }
    struct bench_series series = {0};
    for (uint32_t round = 0; round < run->rounds; round++) {
        bench_series_add(&series, round_ratio(field, verdict->phase, verdict->against, round));
    }
    note_make(field, verdict->phase, verdict->against == AGAINST_LEAST_CPU, note, sizeof(note));
    return bench_report(run, &card, &series, note);
}

static void field_print(const struct bench_run *run, const struct load *load,
                        const struct field *field)
{
    static const char *const names[PHASE_COUNT] = {"durable put of", "cold get of"};
    for (uint32_t phase = 0; phase < PHASE_COUNT; phase++) {
        struct bench_side sides[1 + RIVALS_MAX] = {{0}};
        char title[64];
        for (uint32_t i = 0; i < field->count; i++) {
            sides[i].name = field->all[i]->name;
        }
        (void)snprintf(title, sizeof(title), "%s %s objects", names[phase], load->suffix);
        bench_table_print(run, title, sides, &field->tables[phase]);
    }
}

/* ---- the case -------------------------------------------------------------------------------------------- */

/* Who takes part; those that this build lacks are named. */
static void field_make(struct field *field)
{
    const struct rival *const candidates[] = {&rival_abode, &rival_files_buffered,
                                              &rival_files_direct, &rival_lmdb, &rival_rocksdb};
    field->count = 0;
    for (size_t i = 0; i < sizeof(candidates) / sizeof(candidates[0]); i++) {
        if (candidates[i]->absent != NULL) {
            bench_say("SKIP: %s: %s", candidates[i]->name, candidates[i]->absent);
        } else {
            field->all[field->count++] = candidates[i];
        }
    }
}

static bool load_is_wanted(const struct bench_run *run, const struct load *load)
{
    for (size_t i = 0; i < VERDICT_COUNT; i++) {
        char id[48];
        (void)snprintf(id, sizeof(id), "P22.%s", verdicts[i].id);
        if (verdict_is_of(&verdicts[i], load) && bench_wanted(run, id)) {
            return true;
        }
    }
    return false;
}

static int load_run(const struct bench_run *run, const struct load *load, struct field *field)
{
    struct rival_job job;
    int code = job_make(run, load, &job);
    if (code < 0) {
        return code;
    }
    code = rounds_run(run, &job, field);
    job_free(&job);
    if (code == 0) {
        field_print(run, load, field);
    }
    for (size_t i = 0; i < VERDICT_COUNT && code == 0; i++) {
        if (verdict_is_of(&verdicts[i], load)) {
            code = verdict_report(run, &verdicts[i], field);
        }
    }
    return code;
}

static int bench_p22(struct bench_run *run)
{
    static struct field field;
    field_make(&field);
    int code = 0;
    for (size_t i = 0; i < sizeof(loads) / sizeof(loads[0]) && code == 0; i++) {
        if (load_is_wanted(run, &loads[i])) {
            code = load_run(run, &loads[i], &field);
        }
    }
    return code;
}

int main(int argc, char **argv)
{
    static const struct bench_case cases[] = {
        {"P22.get.64k P22.put.64k P22.get.1m P22.put.1m P22.get-median.1m P22.put-median.1m "
         "P22.cpu-get.64k P22.cpu-put.64k P22.cpu-get.1m P22.cpu-put.1m",
         bench_p22}};
    static const struct bench_suite suite = {"bench_rivals", cases, 1, NULL};
    return bench_main(argc, argv, &suite);
}
