/*
 * llama_cells.c - see llama_cells.h.
 */
#include "llama_cells.h"

#include <stdio.h>

const uint32_t llama_lengths[LENGTHS] = {1024, 4096, 16384};
const char *const llama_length_names[LENGTHS] = {"1k", "4k", "16k"};
static const char *const way_names[WAYS] = {"recompute",      "file, cold",    "file, hot",
                                            "server, memory", "abode, memory", "abode, disk"};

/* ---- for people ------------------------------------------------------------------------------ */

static void row_say(const char *name, const struct subject *subject,
                    const struct bench_series *series_of_first, size_t offset, double scale)
{
    char text[256];
    int at = snprintf(text, sizeof(text), "  %-34s", name);
    for (uint32_t i = 0; i < subject->length_count; i++) {
        const struct bench_series *series =
            (const struct bench_series *)((const char *)series_of_first + i * offset);
        if (series->count == 0) {
            at += snprintf(text + at, sizeof(text) - (size_t)at, "%28s", "not run");
        } else {
            at += snprintf(text + at, sizeof(text) - (size_t)at, "%10.4g (%6.3g .. %6.3g)",
                           bench_series_median(series) * scale, bench_series_min(series) * scale,
                           bench_series_max(series) * scale);
        }
    }
    bench_say("%s", text);
}

void llama_table_say(const struct subject *subject)
{
    const struct cell *cells = subject->cells;
    const size_t step = sizeof(*cells);
    char text[256];
    int at = snprintf(text, sizeof(text), "  %-34s", "tokens (MiB of state)");
    for (uint32_t i = 0; i < subject->length_count; i++) {
        at += snprintf(text + at, sizeof(text) - (size_t)at, "%19u (%6.1f)", cells[i].tokens,
                       (double)cells[i].state_bytes / 1048576);
    }
    bench_say("%s: median (least .. most) of %u rounds", subject->file, subject->run->rounds);
    bench_say("%s", text);
    for (uint32_t way = 0; way < WAYS; way++) {
        (void)snprintf(text, sizeof(text), "ms to next token: %s", way_names[way]);
        row_say(text, subject, &cells->back[way], step, 1e3);
        for (uint32_t i = 0; i < subject->length_count; i++) {
            if (cells[i].not_run[way][0] != '\0') {
                bench_say("      not run at %u tokens: %s", cells[i].tokens, cells[i].not_run[way]);
            }
        }
    }
    row_say("ms of these to load: file, cold", subject, &cells->load[FILE_COLD], step, 1e3);
    row_say("ms of these to load: abode, disk", subject, &cells->load[ABODE_DISK], step, 1e3);
    row_say("ms, as many bytes from the device", subject, &cells->device, step, 1e3);
    row_say("ms to save all: file, no fsync", subject, &cells->file_save, step, 1e3);
    row_say("ms to save all: file, fsync", subject, &cells->file_durable, step, 1e3);
    row_say("ms to save all: abode, durable", subject, &cells->abode_save, step, 1e3);
    row_say("ms of these the host waits", subject, &cells->abode_begin, step, 1e3);
    row_say("ms to save a turn: file, no fsync", subject, &cells->file_turn_unsynced, step, 1e3);
    row_say("ms to save a turn: file, fsync", subject, &cells->file_turn, step, 1e3);
    row_say("ms to save a turn: abode, durable", subject, &cells->abode_turn, step, 1e3);
    row_say("MiB new in a turn", subject, &cells->turn_bytes_new, step, 1.0 / 1048576);
    row_say("MiB written for it: file", subject, &cells->file_turn_bytes, step, 1.0 / 1048576);
    row_say("MiB written for it: abode", subject, &cells->abode_turn_bytes, step, 1.0 / 1048576);
    row_say("ms, a miss: two lookups", subject, &cells->lookup, step, 1e3);
    for (uint32_t i = 0; i < subject->length_count; i++) {
        bench_say("  %u tokens: next logits compared %u times, %u differed", cells[i].tokens,
                  cells[i].logits_compared, cells[i].logits_differ);
    }
}

void llama_killed_say(const struct subject *subject)
{
    static const char *const names[] = {"llama.cpp's file", "abode"};
    const struct cell *cell = &subject->cells[KILL_LENGTH];
    const double mib = (double)cell->state_bytes / cell->tokens / 1048576; /* of a token */
    for (uint32_t keeper = 0; keeper < 2 && subject->kills > 0; keeper++) {
        uint64_t lost = 0, had = 0;
        uint32_t times = 0;
        for (uint32_t i = 0; i < subject->kills; i++) {
            lost += subject->lost[keeper][i];
            times += subject->lost[keeper][i] > 0;
            had += subject->acknowledged[keeper][i];
        }
        bench_say(
            "  kill -9 in a save, %s: %u of %u times acknowledged state was lost, %llu of %llu "
            "tokens, %.1f of %.1f MiB",
            names[keeper], times, subject->kills, (unsigned long long)lost, (unsigned long long)had,
            (double)lost * mib, (double)had * mib);
    }
    bench_say(
        "  kill -9 at any time: recompute has no state to lose, the server's memory loses all");
}

/* ---- for the scorecard ------------------------------------------------------------------------ */

bool llama_lost_wanted(const struct subject *subject)
{
    char id[64];
    (void)snprintf(id, sizeof(id), "H3.lost.%s.%s", subject->id, llama_length_names[KILL_LENGTH]);
    return bench_wanted(subject->run, id);
}

int llama_lost_report(const struct subject *subject)
{
    char id[64], what[160], note[REASON_BYTES];
    struct bench_series shares[2] = {0};
    for (uint32_t keeper = 0; keeper < 2; keeper++) {
        for (uint32_t i = 0; i < subject->kills; i++) {
            bench_series_add(&shares[keeper],
                             (double)subject->lost[keeper][i] / subject->acknowledged[keeper][i]);
        }
    }
    (void)snprintf(id, sizeof(id), "H3.lost.%s.%s", subject->id, llama_length_names[KILL_LENGTH]);
    (void)snprintf(what, sizeof(what),
                   "kill -9 in a save: acknowledged state that was lost; %s, %s tokens",
                   subject->file, llama_length_names[KILL_LENGTH]);
    (void)snprintf(note, sizeof(note), "%u kills; llama.cpp's file: %.3g (%.3g .. %.3g)",
                   subject->kills, bench_series_median(&shares[0]), bench_series_min(&shares[0]),
                   bench_series_max(&shares[0]));
    const struct bench_card card = {id, what, "ratio", 0, BENCH_AT_MOST};
    if (!bench_wanted(subject->run, id)) {
        return 0;
    }
    return subject->kills > 0
               ? bench_report(subject->run, &card, &shares[1], note)
               : bench_report_missing(subject->run, &card, "shorter conversations were asked for");
}

struct claim {
    const char *name, *what, *unit;
    double goal;
    enum bench_goal kind;
};

static int claim_report(const struct subject *subject, uint32_t length, const struct claim *claim,
                        const struct bench_series *series, const char *note)
{
    char id[64], what[160];
    (void)snprintf(id, sizeof(id), "%s.%s.%s", claim->name, subject->id,
                   llama_length_names[length]);
    (void)snprintf(what, sizeof(what), "%s; %s, %s tokens", claim->what, subject->file,
                   llama_length_names[length]);
    const struct bench_card card = {id, what, claim->unit, claim->goal, claim->kind};
    if (!bench_wanted(subject->run, id)) {
        return 0;
    }
    const char *reason = subject->cells[length].not_run[RECOMPUTE];
    return series->count > 0
               ? bench_report(subject->run, &card, series, note)
               : bench_report_missing(subject->run, &card,
                                      reason[0] != '\0' ? reason
                                                        : "shorter conversations were asked for");
}

int llama_length_report(const struct subject *subject, uint32_t length)
{
    const struct cell *cell = &subject->cells[length];
    const bool large = cell->state_bytes >= 64u << 20, full = !subject->window;
    const struct claim claims[] = {
        {"H3.device", "from disk to next token / device reads", "ratio", 1.25,
         large ? BENCH_AT_MOST : BENCH_INFORMATION},
        {"H3.durable",
         "a turn saved, state loaded: file with fsync, cold / abode, durable, from disk", "ratio",
         2, BENCH_AT_LEAST},
        {"H3.file", "the same, file without fsync / abode, durable", "ratio", 1, BENCH_AT_LEAST},
        {"H3.durable-first", "all saved, loaded: file with fsync, cold / abode, durable, from disk",
         "ratio", 2, BENCH_AT_LEAST},
        {"H3.file-first", "the same, file without fsync / abode, durable", "ratio", 1,
         BENCH_AT_LEAST},
        {"H3.recompute", "from disk to next token / recompute", "ratio", 0.02,
         full ? BENCH_AT_MOST : BENCH_INFORMATION},
        {"H3.turn", "bytes written for a turn / its new state", "ratio", 1.1,
         full ? BENCH_AT_MOST : BENCH_INFORMATION},
        {"H4.lookup", "two lookups that miss / prefill", "%", 0.5, BENCH_AT_MOST},
        {"H4.save", "lookups and a save that nobody comes back to, written meanwhile / prefill",
         "%", 0.5, BENCH_AT_MOST}};
    const struct bench_series *cold = &cell->load[FILE_COLD], *disk = &cell->load[ABODE_DISK];
    struct bench_series series[] = {
        bench_ratio_of_sums(&cell->back[ABODE_DISK], NULL, &cell->device, NULL),
        bench_ratio_of_sums(&cell->file_turn, cold, &cell->abode_turn, disk),
        bench_ratio_of_sums(&cell->file_turn_unsynced, cold, &cell->abode_turn, disk),
        bench_ratio_of_sums(&cell->file_durable, cold, &cell->abode_save, disk),
        bench_ratio_of_sums(&cell->file_save, cold, &cell->abode_save, disk),
        bench_ratio_of_sums(&cell->back[ABODE_DISK], NULL, &cell->back[RECOMPUTE], NULL),
        bench_ratio_of_sums(&cell->abode_turn_bytes, NULL, &cell->turn_bytes_new, NULL),
        bench_ratio_of_sums(&cell->lookup, NULL, &cell->back[RECOMPUTE], NULL),
        bench_ratio_of_sums(&cell->lookup, &cell->abode_cost, &cell->back[RECOMPUTE], NULL)};
    int code = 0;
    for (uint32_t i = 0; i < sizeof(claims) / sizeof(claims[0]) && code == 0; i++) {
        char note[REASON_BYTES];
        for (uint32_t r = 0; claims[i].unit[0] == '%' && r < series[i].count; r++) {
            series[i].values[r] *= 100;
        }
        (void)snprintf(note, sizeof(note), "%.0f MiB; from disk %.4g ms, recompute %.4g s",
                       (double)cell->state_bytes / 1048576,
                       bench_series_median(&cell->back[ABODE_DISK]) * 1e3,
                       bench_series_median(&cell->back[RECOMPUTE]));
        code = claim_report(subject, length, &claims[i], &series[i], note);
    }
    return code;
}
