/*
 * demo_report.c - what the demo cost, and what a server without memory would have paid.
 *
 * Stateless: every turn computes its whole context again (prefix, all earlier prompts and answers,
 * the new prompt). Stateful: a turn computes what is new, and waits for its restore. Answers are
 * decoded token by token in both and left out of both. Seconds of computing come from an assumed
 * prefill rate; seconds of restoring, bytes and bytes x seconds are measured.
 */
#include "demo.h"

#include <string.h>

#define GIB 1073741824.0

struct report_compare report_compare(const struct demo_result *result)
{
    struct report_compare compare;
    memset(&compare, 0, sizeof(compare));
    const struct workload *workload = &result->workload;
    double state_byte_s = 0;
    for (uint32_t c = 0; c < workload->session_count; c++) {
        const struct conversation *it = &workload->conversations[c];
        const uint32_t done = result->sessions[c].turns_acknowledged;
        for (uint32_t t = 0; t < it->turn_count && t < done; t++) {
            const struct turn *turn = &workload->turns[it->turn_first + t];
            const bool last = t + 1 == it->turn_count;
            /* after its last turn a session that is not deleted is kept until the end */
            const uint64_t until_ms = !last      ? turn->due_ms + turn->idle_ms
                                      : it->ends ? turn->due_ms
                                                 : workload->span_ms;
            compare.stateless_tokens += turn->token_count - turn->answer_tokens;
            state_byte_s += (double)(turn->token_count - it->prefix_tokens) *
                            (double)workload->token_bytes[it->model] *
                            (double)(until_ms - turn->due_ms) / 1000;
        }
    }
    const double wait_seconds = (double)result->totals.attach_wait_ns / 1e9;
    const struct abode_stats *stats = &result->totals.stats;
    compare.stateful_tokens = result->totals.prompt_tokens;
    compare.stateless_seconds = (double)compare.stateless_tokens / result->prefill_rate;
    compare.stateful_seconds =
        (double)compare.stateful_tokens / result->prefill_rate + wait_seconds;
    compare.stateful_bytes_moved = stats->bytes_spilled + stats->bytes_restored;
    compare.memory_gib_s = result->totals.memory_byte_s / GIB;
    compare.store_gib_s = result->totals.store_byte_s / GIB;
    compare.all_memory_gib_s = state_byte_s / GIB;
    const double saved = (double)compare.stateless_tokens - (double)compare.stateful_tokens;
    compare.break_even_rate = wait_seconds > 0 && saved > 0 ? saved / wait_seconds : 0;
    return compare;
}

static double restore_gbps(const struct demo_result *result)
{
    const uint64_t busy_ns = result->totals.restore_busy_ns;
    return busy_ns == 0 ? 0 : (double)result->totals.stats.bytes_restored / (double)busy_ns;
}

static double write_amplification(const struct abode_stats *stats)
{
    return stats->bytes_accepted == 0
               ? 0
               : (double)stats->bytes_written / (double)stats->bytes_accepted;
}

static uint64_t deleted_count(const struct demo_result *result)
{
    uint64_t count = 0;
    for (uint32_t i = 0; i < result->workload.session_count; i++) {
        count += result->sessions[i].deleted;
    }
    return count;
}

static void truth_print(const struct demo_result *result, FILE *stream)
{
    const struct demo_totals *totals = &result->totals;
    (void)fprintf(stream, "\nevery byte\n");
    (void)fprintf(stream, "  %-14s %s checked against what was written, %s wrong\n", "content",
                  cli_bytes_text(totals->bytes_verified).text,
                  totals->bytes_wrong == 0 ? "0" : cli_count_text(totals->bytes_wrong).text);
    (void)fprintf(stream,
                  "  %-14s %u, with %u spills under way; %llu of them were whole without a "
                  "word\n",
                  "kill -9", result->kills, result->spills_at_kills,
                  (unsigned long long)result->turns_whole_unacknowledged);
    (void)fprintf(stream, "  %-14s %llu acknowledged turns lost; %llu deleted sessions came back\n",
                  "recovery", (unsigned long long)result->acknowledged_lost,
                  (unsigned long long)result->deleted_returned);
    if (result->kills > 0) {
        (void)fprintf(stream, "  %-14s open, recover and declare models in %s at most\n", "",
                      cli_seconds_text((double)result->recover_ns_max / 1e9).text);
    }
    if (result->totals.store_full_count > 0) {
        (void)fprintf(stream, "  %-14s %llu spills found the store full and were tried again\n",
                      "room", (unsigned long long)result->totals.store_full_count);
    }
    if (result->turns_left > 0) {
        (void)fprintf(stream, "  %-14s %llu of %u turns were not begun: --seconds was over\n",
                      "time", (unsigned long long)result->turns_left, result->workload.turn_count);
    }
}

static void cost_print(const struct demo_result *result, FILE *stream)
{
    const struct demo_totals *totals = &result->totals;
    const struct abode_stats *stats = &totals->stats;
    const double restored_gb = (double)stats->bytes_restored / 1e9;
    (void)fprintf(stream, "\ncost\n");
    (void)fprintf(stream, "  %-14s %s accepted, %s spilled, %.2f written per byte\n", "state",
                  cli_bytes_text(stats->bytes_accepted).text,
                  cli_bytes_text(stats->bytes_spilled).text, write_amplification(stats));
    (void)fprintf(
        stream, "  %-14s %s at %.2f GB/s while checking; a turn waited %s\n", "restored",
        cli_bytes_text(stats->bytes_restored).text, restore_gbps(result),
        cli_seconds_text(totals->attach_count == 0
                             ? 0
                             : (double)totals->attach_wait_ns / 1e9 / (double)totals->attach_count)
            .text);
    (void)fprintf(stream, "  %-14s %.1f s of CPU in %.1f s", "time", result->cpu_seconds,
                  result->seconds);
    if (restored_gb > 0) {
        (void)fprintf(stream, " (making and checking content included)");
    }
    (void)fprintf(stream, "\n  %-14s %s at most in one process, %s of it abode's tables\n",
                  "memory", cli_bytes_text(result->memory_peak_bytes).text,
                  cli_bytes_text(stats->metadata_bytes).text);
    (void)fprintf(stream, "  %-14s %llu forks, %llu found by key\n", "shared prefix",
                  (unsigned long long)totals->fork_count,
                  (unsigned long long)totals->prefix_hit_count);
}

static void compare_print(const struct demo_result *result, FILE *stream)
{
    const struct report_compare compare = report_compare(result);
    static const char *const header[] = {"stateless against stateful", ">stateless", ">stateful"};
    struct cli_table table;
    cli_table_init(&table, 3, header);
    cli_table_row(&table, "  tokens to compute before answering",
                  cli_count_text(compare.stateless_tokens).text,
                  cli_count_text(compare.stateful_tokens).text);
    cli_table_row(&table, "  bytes moved to and from the store", "0 B",
                  cli_bytes_text(compare.stateful_bytes_moved).text);
    cli_table_row(&table, "  seconds (computing assumed, restoring measured)",
                  cli_number_text(compare.stateless_seconds, 1).text,
                  cli_number_text(compare.stateful_seconds, 1).text);
    cli_table_row(&table, "  GiB x s in memory, of the workload's clock", "0",
                  cli_count_text((uint64_t)compare.memory_gib_s).text);
    cli_table_row(&table, "  GiB x s in the store", "0",
                  cli_count_text((uint64_t)compare.store_gib_s).text);
    (void)fprintf(stream, "\n");
    cli_table_print(&table, stream, 0);
    (void)fprintf(stream,
                  "  Computing: %s tokens/s assumed (--prefill-rate; an 8B model, one H100).\n",
                  cli_count_text((uint64_t)result->prefill_rate).text);
    if (compare.break_even_rate > 0) {
        (void)fprintf(stream,
                      "  With these restores, computing again would win from %s tokens/s "
                      "on.\n",
                      cli_count_text((uint64_t)compare.break_even_rate).text);
    }
    (void)fprintf(stream, "  All in memory, never spilled, would have held %s GiB x s there.\n",
                  cli_count_text((uint64_t)compare.all_memory_gib_s).text);
}

void report_print(const struct demo_result *result, FILE *stream)
{
    truth_print(result, stream);
    cost_print(result, stream);
    compare_print(result, stream);
}

/* ---- JSON ------------------------------------------------------------------------------------ */

static json_t *compare_json(const struct report_compare *compare, bool stateful)
{
    if (!stateful) {
        return cli_json(json_pack("{s:I, s:I, s:f, s:f, s:f}", "tokens_computed",
                                  (json_int_t)compare->stateless_tokens, "bytes_moved",
                                  (json_int_t)0, "seconds", compare->stateless_seconds,
                                  "memory_gib_s", 0.0, "store_gib_s", 0.0));
    }
    return cli_json(json_pack("{s:I, s:I, s:f, s:f, s:f, s:f, s:f}", "tokens_computed",
                              (json_int_t)compare->stateful_tokens, "bytes_moved",
                              (json_int_t)compare->stateful_bytes_moved, "seconds",
                              compare->stateful_seconds, "memory_gib_s", compare->memory_gib_s,
                              "store_gib_s", compare->store_gib_s, "all_in_memory_gib_s",
                              compare->all_memory_gib_s, "break_even_tokens_per_s",
                              compare->break_even_rate));
}

struct tier_sum { /* bytes of all sessions at one node or device */
    uint64_t bytes, bytes_verified, pages_elsewhere;
};

static void places_sum(const struct demo_result *result, uint32_t tier, uint32_t index,
                       struct tier_sum *ret)
{
    memset(ret, 0, sizeof(*ret));
    for (uint32_t i = 0; i < result->workload.conversation_count; i++) {
        const struct demo_session *session = &result->sessions[i];
        const uint32_t count = session->place.place_count < DEMO_PLACES_MAX
                                   ? session->place.place_count
                                   : DEMO_PLACES_MAX;
        for (uint32_t p = 0; session->placed && p < count; p++) {
            const struct abode_place *place = &session->place.places[p];
            const uint32_t at = tier == ABODE_TIER_MEMORY ? (uint32_t)place->node : place->device;
            if (place->tier == tier && at == index) {
                ret->bytes += place->bytes;
                ret->bytes_verified += place->verified ? place->bytes : 0;
                ret->pages_elsewhere += place->pages_elsewhere;
            }
        }
    }
}

static json_t *places_json(const struct demo_result *result)
{
    json_t *places = cli_json(json_array());
    struct tier_sum sum;
    for (uint32_t i = 0; i < result->node_count; i++) {
        places_sum(result, ABODE_TIER_MEMORY, i, &sum);
        (void)json_array_append_new(
            places, cli_json(json_pack("{s:s, s:i, s:I, s:I, s:I}", "tier", "memory", "node",
                                       (int)i, "bytes", (json_int_t)sum.bytes, "bytes_verified",
                                       (json_int_t)sum.bytes_verified, "pages_elsewhere",
                                       (json_int_t)sum.pages_elsewhere)));
    }
    for (uint32_t i = 0; i < result->device_count; i++) {
        places_sum(result, ABODE_TIER_STORE, i, &sum);
        (void)json_array_append_new(
            places, cli_json(json_pack("{s:s, s:i, s:s, s:i, s:I, s:I}", "tier", "store", "device",
                                       (int)i, "name", result->devices[i].name, "node",
                                       (int)result->devices[i].node, "bytes", (json_int_t)sum.bytes,
                                       "bytes_verified", (json_int_t)sum.bytes_verified)));
    }
    return places;
}

json_t *report_json(const struct demo_result *result)
{
    const struct demo_totals *totals = &result->totals;
    const struct abode_stats *stats = &totals->stats;
    const struct report_compare compare = report_compare(result);
    json_t *object = cli_json(json_pack(
        "{s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:f, s:f}", "sessions",
        (json_int_t)result->workload.session_count, "turns", (json_int_t)result->turns,
        "turns_left", (json_int_t)result->turns_left, "bytes_verified",
        (json_int_t)totals->bytes_verified, "bytes_wrong", (json_int_t)totals->bytes_wrong, "kills",
        (json_int_t)result->kills, "acknowledged_lost", (json_int_t)result->acknowledged_lost,
        "deleted_returned", (json_int_t)result->deleted_returned, "seconds", result->seconds,
        "restore_gbps", restore_gbps(result)));
    json_t *more = cli_json(json_pack(
        "{s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:f, s:f, s:f, s:I, s:I}", "seed",
        (json_int_t)result->seed, "processes", (json_int_t)result->processes, "spills_at_kills",
        (json_int_t)result->spills_at_kills, "sessions_deleted", (json_int_t)deleted_count(result),
        "bytes_state", (json_int_t)result->workload.bytes_state, "bytes_accepted",
        (json_int_t)stats->bytes_accepted, "bytes_spilled", (json_int_t)stats->bytes_spilled,
        "bytes_restored", (json_int_t)stats->bytes_restored, "write_amplification",
        write_amplification(stats), "cpu_seconds", result->cpu_seconds, "recover_seconds_max",
        (double)result->recover_ns_max / 1e9, "memory_peak_bytes",
        (json_int_t)result->memory_peak_bytes, "metadata_bytes",
        (json_int_t)stats->metadata_bytes));
    (void)json_object_update(object, more);
    json_decref(more);
    (void)json_object_set_new(object, "spills_retried_store_full",
                              json_integer((json_int_t)totals->store_full_count));
    (void)json_object_set_new(object, "prefill_rate_assumed", json_real(result->prefill_rate));
    (void)json_object_set_new(object, "stateless", compare_json(&compare, false));
    (void)json_object_set_new(object, "stateful", compare_json(&compare, true));
    (void)json_object_set_new(object, "places", places_json(result));
    if (result->support_known) {
        (void)json_object_set_new(object, "support", cli_support_json(result->support));
    }
    return object;
}
