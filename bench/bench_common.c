/*
 * bench_common.c - measuring, rounds in turn, numbers of many rounds, scorecard lines, memory.
 *
 * See bench_common.h. Nothing here touches files but the scorecard's line writer.
 */
#include "bench_common.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <time.h>

#define GIB 1073741824.0
#define HUGE_BYTES (2u << 20)
#define LINE_MAX_BYTES 4096

/* ---- one measurement ---------------------------------------------------------------------------- */
uint64_t bench_now_ns(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now); /* cannot fail with a clock that always exists */
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static double seconds_of(struct timeval time)
{
    return (double)time.tv_sec + (double)time.tv_usec * 1e-6;
}

double bench_cpu_s(void)
{
    struct rusage usage;
    (void)getrusage(RUSAGE_SELF, &usage);
    return seconds_of(usage.ru_utime) + seconds_of(usage.ru_stime);
}

/* Until end, seconds and cpu_s hold the clocks at the beginning. */
void bench_sample_begin(struct bench_sample *sample)
{
    sample->cpu_s = bench_cpu_s();
    sample->seconds = (double)bench_now_ns() * 1e-9;
}

void bench_sample_end(struct bench_sample *sample, uint64_t bytes)
{
    sample->seconds = (double)bench_now_ns() * 1e-9 - sample->seconds;
    sample->cpu_s = bench_cpu_s() - sample->cpu_s;
    sample->bytes = bytes;
}

double bench_rate(const struct bench_sample *sample)
{
    return sample->seconds > 0 ? (double)sample->bytes / sample->seconds : 0;
}

double bench_cpu_s_per_gib(const struct bench_sample *sample)
{
    return sample->bytes > 0 ? sample->cpu_s / ((double)sample->bytes / GIB) : 0;
}

/* ---- rounds ------------------------------------------------------------------------------------- */
int bench_rounds(const struct bench_run *run, const struct bench_side *sides, uint32_t side_count,
                 struct bench_table *ret_table)
{
    if (side_count == 0 || side_count > BENCH_SIDES_MAX || run->rounds > BENCH_ROUNDS_MAX) {
        return -EINVAL;
    }
    struct bench_table *table = ret_table;
    memset(table, 0, sizeof(*table));
    table->rounds = run->rounds;
    table->side_count = side_count;
    for (uint32_t round = 0; round < run->warmup + run->rounds; round++) {
        for (uint32_t i = 0; i < side_count; i++) {
            struct bench_sample sample = {0};
            const int code = sides[i].run(sides[i].context, &sample);
            if (code < 0) {
                bench_say("%s: side \"%s\" failed in round %u: %s", run->name, sides[i].name, round,
                          strerror(-code));
                return code;
            }
            if (round >= run->warmup) {
                table->samples[i][round - run->warmup] = sample;
            }
        }
    }
    return 0;
}

/* ---- numbers of many rounds ----------------------------------------------------------------------- */
void bench_series_add(struct bench_series *series, double value)
{
    if (series->count < BENCH_ROUNDS_MAX) {
        series->values[series->count++] = value;
    }
}

static int double_compare(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static struct bench_series series_sorted(const struct bench_series *series)
{
    struct bench_series sorted = *series;
    qsort(sorted.values, sorted.count, sizeof(sorted.values[0]), double_compare);
    return sorted;
}

double bench_series_median(const struct bench_series *series)
{
    if (series->count == 0) {
        return 0;
    }
    const struct bench_series sorted = series_sorted(series);
    const uint32_t middle = sorted.count / 2;
    if (sorted.count % 2 == 1) {
        return sorted.values[middle];
    }
    return (sorted.values[middle - 1] + sorted.values[middle]) / 2;
}

double bench_series_min(const struct bench_series *series)
{
    return series->count == 0 ? 0 : series_sorted(series).values[0];
}

double bench_series_max(const struct bench_series *series)
{
    return series->count == 0 ? 0 : series_sorted(series).values[series->count - 1];
}

struct bench_series bench_ratio_of_sums(const struct bench_series *a, const struct bench_series *b,
                                        const struct bench_series *c, const struct bench_series *d)
{
    const struct bench_series *all[] = {a, b, c, d};
    struct bench_series out = {0};
    for (uint32_t i = 0; i < a->count || i < c->count; i++) {
        double values[4] = {0};
        for (uint32_t s = 0; s < 4; s++) {
            if (all[s] != NULL && all[s]->count == 0) {
                return (struct bench_series){0};
            }
            if (all[s] != NULL) {
                values[s] = i < all[s]->count ? all[s]->values[i] : bench_series_median(all[s]);
            }
        }
        bench_series_add(&out, (values[0] + values[1]) / (values[2] + values[3]));
    }
    return out;
}

struct bench_series bench_rates(const struct bench_table *table, uint32_t side)
{
    struct bench_series series = {0};
    for (uint32_t round = 0; round < table->rounds; round++) {
        bench_series_add(&series, bench_rate(&table->samples[side][round]));
    }
    return series;
}

struct bench_series bench_cpu_per_gib(const struct bench_table *table, uint32_t side)
{
    struct bench_series series = {0};
    for (uint32_t round = 0; round < table->rounds; round++) {
        bench_series_add(&series, bench_cpu_s_per_gib(&table->samples[side][round]));
    }
    return series;
}

struct bench_series bench_ratio_of_rates(const struct bench_table *table, uint32_t a, uint32_t b)
{
    struct bench_series series = {0};
    for (uint32_t round = 0; round < table->rounds; round++) {
        const double below = bench_rate(&table->samples[b][round]);
        bench_series_add(&series, below > 0 ? bench_rate(&table->samples[a][round]) / below : 0);
    }
    return series;
}

struct bench_series bench_ratio_of_seconds(const struct bench_table *table, uint32_t a, uint32_t b)
{
    struct bench_series series = {0};
    for (uint32_t round = 0; round < table->rounds; round++) {
        const double below = table->samples[b][round].seconds;
        bench_series_add(&series, below > 0 ? table->samples[a][round].seconds / below : 0);
    }
    return series;
}

static int u64_compare(const void *a, const void *b)
{
    const uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

uint64_t bench_percentile(uint64_t *values, size_t count, uint32_t permille)
{
    if (count == 0) {
        return 0;
    }
    qsort(values, count, sizeof(values[0]), u64_compare);
    const size_t index = (size_t)((double)count * permille / 1000.0);
    return values[index < count ? index : count - 1];
}

/* ---- the scorecard ---------------------------------------------------------------------------------- */
void bench_say(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    (void)vprintf(format, arguments);
    va_end(arguments);
    (void)printf("\n");
    (void)fflush(stdout);
}

/* text as a JSON string, cut where it would not fit; the closing quote always does */
static void json_quote(char *ret, size_t capacity, const char *text)
{
    size_t used = 0;
    ret[used++] = '"';
    for (; *text != '\0' && used + 8 < capacity; text++) {
        const unsigned char c = (unsigned char)*text;
        if (c == '"' || c == '\\') {
            ret[used++] = '\\';
            ret[used++] = (char)c;
        } else if (c < 0x20) {
            used += (size_t)snprintf(ret + used, capacity - used, "\\u%04x", c);
        } else {
            ret[used++] = (char)c;
        }
    }
    ret[used++] = '"';
    ret[used] = '\0';
}

static void goal_text(const struct bench_card *card, char *ret, size_t capacity)
{
    if (card->kind == BENCH_INFORMATION) {
        (void)snprintf(ret, capacity, "information");
        return;
    }
    (void)snprintf(ret, capacity, "%s %g", card->kind == BENCH_AT_LEAST ? ">=" : "<=", card->goal);
}

/* what all lines end with: the command that repeats it, where, which source, when */
static void json_tail(const struct bench_run *run, const struct bench_card *card, char *ret,
                      size_t capacity)
{
    char machine[512], commit[128], date[16];
    json_quote(machine, sizeof(machine), run->machine);
    json_quote(commit, sizeof(commit), run->commit);
    const time_t now = time(NULL);
    struct tm day;
    if (gmtime_r(&now, &day) == NULL || strftime(date, sizeof(date), "%Y-%m-%d", &day) == 0) {
        date[0] = '\0';
    }
    const int row = (int)strcspn(card->id, ".");
    (void)snprintf(ret, capacity,
                   "\"unit\":\"%s\",\"command\":\"make scorecard ONLY=%.*s\",\"machine\":%s,"
                   "\"commit\":%s,\"date\":\"%s\"}",
                   card->unit, row, card->id, machine, commit, date);
}

static int line_write(const struct bench_run *run, const char *line)
{
    if (run->json_path == NULL) {
        (void)printf("%s\n", line);
        return fflush(stdout) == 0 ? 0 : -errno;
    }
    FILE *file = fopen(run->json_path, "ae");
    if (file == NULL) {
        return -errno;
    }
    const int written = fprintf(file, "%s\n", line);
    const int code = fclose(file) == 0 ? 0 : -errno;
    return written < 0 ? -EIO : code;
}

static bool goal_is_reached(const struct bench_card *card, double value)
{
    switch (card->kind) {
    case BENCH_AT_LEAST:
        return value >= card->goal;
    case BENCH_AT_MOST:
        return value <= card->goal;
    case BENCH_INFORMATION:
        return true;
    }
    return false;
}

int bench_report(const struct bench_run *run, const struct bench_card *card,
                 const struct bench_series *series, const char *note)
{
    const double value = bench_series_median(series);
    const bool reached = goal_is_reached(card, value);
    char goal[64], what[512], notes[1024], tail[1024], line[LINE_MAX_BYTES];
    goal_text(card, goal, sizeof(goal));
    json_quote(what, sizeof(what), card->what);
    json_quote(notes, sizeof(notes), note == NULL ? "" : note);
    json_tail(run, card, tail, sizeof(tail));
    bench_say("%-12s %8.4g %s  (%.4g .. %.4g, %u rounds)  goal %s: %s  %s%s%s", card->id, value,
              card->unit, bench_series_min(series), bench_series_max(series), series->count, goal,
              reached ? "reached" : "NOT REACHED", card->what, note == NULL ? "" : "; ",
              note == NULL ? "" : note);
    (void)snprintf(line, sizeof(line),
                   "{\"id\":\"%s\",\"what\":%s,\"value\":%.6g,\"goal\":\"%s\",\"reached\":%s,"
                   "\"min\":%.6g,\"max\":%.6g,\"rounds\":%u,\"note\":%s,%s",
                   card->id, what, value, goal, reached ? "true" : "false",
                   bench_series_min(series), bench_series_max(series), series->count, notes, tail);
    return line_write(run, line);
}

int bench_report_missing(const struct bench_run *run, const struct bench_card *card,
                         const char *reason)
{
    char goal[64], what[512], reasons[1024], tail[1024], line[LINE_MAX_BYTES];
    goal_text(card, goal, sizeof(goal));
    json_quote(what, sizeof(what), card->what);
    json_quote(reasons, sizeof(reasons), reason);
    json_tail(run, card, tail, sizeof(tail));
    bench_say("%-12s not measured: %s  (%s)", card->id, reason, card->what);
    (void)snprintf(line, sizeof(line),
                   "{\"id\":\"%s\",\"what\":%s,\"value\":null,\"goal\":\"%s\",\"reached\":false,"
                   "\"reason\":%s,%s",
                   card->id, what, goal, reasons, tail);
    return line_write(run, line);
}

void bench_table_print(const struct bench_run *run, const char *title,
                       const struct bench_side *sides, const struct bench_table *table)
{
    bench_say("%s: %s, %u rounds, medians", run->name, title, table->rounds);
    for (uint32_t side = 0; side < table->side_count; side++) {
        const struct bench_series rates = bench_rates(table, side);
        const struct bench_series cpu = bench_cpu_per_gib(table, side);
        bench_say("    %-28s %8.3f GB/s (%.3f .. %.3f)   %7.1f ms CPU/GiB", sides[side].name,
                  bench_series_median(&rates) * 1e-9, bench_series_min(&rates) * 1e-9,
                  bench_series_max(&rates) * 1e-9, bench_series_median(&cpu) * 1e3);
    }
}

/* ---- memory ------------------------------------------------------------------------------------------- */
static size_t memory_span(size_t bytes)
{
    return (bytes + HUGE_BYTES - 1) / HUGE_BYTES * HUGE_BYTES;
}

int bench_memory_get(size_t bytes, void **ret_memory)
{
    const size_t span = memory_span(bytes);
    unsigned char *mapped = mmap(NULL, span + HUGE_BYTES, PROT_READ | PROT_WRITE,
                                 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (mapped == MAP_FAILED) {
        return -errno;
    }
    const size_t head = (HUGE_BYTES - (uintptr_t)mapped % HUGE_BYTES) % HUGE_BYTES;
    unsigned char *memory = mapped + head;
    if (head > 0) {
        (void)munmap(mapped, head);
    }
    if (head < HUGE_BYTES) {
        (void)munmap(memory + span, HUGE_BYTES - head);
    }
    (void)madvise(memory, span,
                  MADV_HUGEPAGE); /* without it the bench still runs, on 4 KiB pages */
    memset(memory, 0, span);
    *ret_memory = memory;
    return 0;
}

void bench_memory_put(void *memory, size_t bytes)
{
    if (memory != NULL) {
        (void)munmap(memory, memory_span(bytes));
    }
}

uint64_t bench_random(uint64_t *state)
{
    uint64_t z = (*state += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

void bench_fill(void *bytes, size_t count, uint64_t seed)
{
    unsigned char *target = bytes;
    size_t done = 0;
    while (done < count) {
        const uint64_t value = bench_random(&seed);
        const size_t part = count - done < sizeof(value) ? count - done : sizeof(value);
        memcpy(target + done, &value, part);
        done += part;
    }
}
