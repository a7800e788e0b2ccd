/*
 * demo.c - `abode demo`: the main job on this machine, with every byte checked.
 *
 *   plan the conversations -> child hosts keep them, are killed with -9 while they spill
 *   -> the next child recovers -> an audit in a fresh process restores every session from the
 *   store and checks it -> picture, cost, stateless against stateful
 */
#include "demo_child.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define MEMORY_BYTES_DEFAULT (2ull << 30)
#define STORE_BYTES_DEFAULT (4ull << 30)
/* Frames get this share of the memory; the rest is for tables, buffers, code and this process. */
#define FRAMES_SHARE 0.75
/* Live state as a share of the store: the rest is room for what each turn makes obsolete. */
#define STATE_SHARE 0.58
#define SECONDS_DEFAULT 40 /* for the conversations; audit and report come after */
/* Prefill of an 8B model on one H100 at 8k tokens: restoring 128 KiB a token at 3.6 GB/s takes as
 * long as computing does (27,000 tokens/s). The demo's own model is smaller: an assumption, said
 * in the report. */
#define PREFILL_RATE_DEFAULT 27000

struct demo_options {
    uint64_t sessions, seed, memory_bytes, store_bytes, kills, in_flight, io, huge;
    double seconds, prefill_rate;
    struct cli_list stores;
    bool keep, json, list, verbose, quiet;
};

static int options_read(int argc, char **argv, struct demo_options *options)
{
    const struct cli_option table[] = {
        {"sessions", 'n', CLI_COUNT, &options->sessions, "N", "conversations (128)", 2,
         WORKLOAD_SESSIONS_MAX},
        {"memory", 'm', CLI_SIZE, &options->memory_bytes, "SIZE", "memory to use, all in all (2G)",
         16 << 20, 1e15},
        {"store-size", 's', CLI_SIZE, &options->store_bytes, "SIZE", "disk space to use (4G)",
         32 << 20, 1e15},
        {"store", 0, CLI_LIST, &options->stores, "DIR",
         "where the store goes; again for more devices", 0, 0},
        {"keep", 'k', CLI_FLAG, &options->keep, NULL, "leave the store, for inspect and verify", 0,
         0},
        {"seconds", 't', CLI_NUMBER, &options->seconds, "S",
         "begin no new turn after this many seconds (40)", 1, 1e6},
        {"kills", 0, CLI_COUNT, &options->kills, "N", "how often a host is killed with -9 (2)", 0,
         100},
        {"seed", 0, CLI_COUNT, &options->seed, "N", "of the conversations and the kills (1)", 0,
         1e18},
        {"in-flight", 0, CLI_COUNT, &options->in_flight, "N", "conversations that overlap (4)", 1,
         DEMO_IN_FLIGHT_MAX},
        {"prefill-rate", 0, CLI_NUMBER, &options->prefill_rate, "N",
         "tokens/s that computing again is taken to reach (27000)", 1, 1e12},
        {"io", 0, CLI_CHOICE, &options->io, cli_io_choices, "how to read and write", 0, 0},
        {"huge", 0, CLI_CHOICE, &options->huge, cli_huge_choices, "huge pages", 0, 0},
        {"list", 'l', CLI_FLAG, &options->list, NULL, "a table of every session at the end", 0, 0},
        {"json", 'j', CLI_FLAG, &options->json, NULL, "one JSON object on the last line", 0, 0},
        {"quiet", 'q', CLI_FLAG, &options->quiet, NULL, "no progress bar", 0, 0},
        {"verbose", 'v', CLI_FLAG, &options->verbose, NULL, "what the library logs, too", 0, 0},
    };
    const struct cli_syntax syntax = {
        .command = "demo",
        .arguments = "",
        .summary =
            "Keep the state of some hundred conversations, more than fits in memory; kill the "
            "host\n"
            "with -9 while it spills, twice; recover; check every byte; show where it all lives.",
        .notes = "Needs nothing but the machine. The store goes to a fresh directory under TMPDIR\n"
                 "or /var/tmp and is removed afterwards, unless --store DIR --keep.",
        .options = table,
        .option_count = CLI_OPTION_COUNT(table),
    };
    int rest = 0;
    return cli_options_parse(&syntax, argc, argv, &rest);
}

static int stores_check(const struct demo_options *options)
{
    if (options->stores.count > DEMO_PATHS_MAX) {
        return cli_usage("give fewer directories", "demo: --store more than %d times",
                         DEMO_PATHS_MAX);
    }
    if (options->keep && options->stores.count == 0) {
        return cli_usage("add --store DIR to say where it should stay", "demo: --keep");
    }
    for (uint32_t i = 0; i < options->stores.count; i++) {
        const char *path = options->stores.items[i];
        if (path[0] == 0 || strlen(path) >= DEMO_PATH_BYTES) {
            return cli_usage("give a directory",
                             "demo: --store '%.60s': not a path of 1 to %d "
                             "bytes",
                             path, DEMO_PATH_BYTES - 1);
        }
    }
    return CLI_OK;
}

/* The workload, as wide as the store allows; and whether it can run in the memory. */
static int workload_fit(const struct demo_options *options, struct demo_task *task,
                        struct demo_result *result)
{
    const uint64_t state = (uint64_t)(STATE_SHARE * (double)options->store_bytes);
    task->workload = (struct workload_options){
        .seed = options->seed, .session_count = (uint32_t)options->sessions, .state_bytes = state};
    if (workload_make(&task->workload, &result->workload) < 0) {
        return cli_usage("make --store-size larger, or give fewer --sessions",
                         "demo: %llu sessions do not fit a store of %s",
                         (unsigned long long)options->sessions,
                         cli_bytes_text(options->store_bytes).text);
    }
    const struct workload *workload = &result->workload;
    if (workload->bytes_state <= options->memory_bytes) {
        const double need = (double)options->memory_bytes / STATE_SHARE * 1.1;
        return cli_usage(
            "the demo is about more state than memory",
            "demo: %s of state fit in --memory %s; give --store-size %s or less memory",
            cli_bytes_text(workload->bytes_state).text, cli_bytes_text(options->memory_bytes).text,
            cli_bytes_text((uint64_t)need).text);
    }
    struct memory_plan plan;
    task->in_flight = (uint32_t)options->in_flight;
    while (task->in_flight > 0 &&
           workload_memory_plan(workload, task->memory_bytes, task->in_flight, &plan) < 0) {
        task->in_flight--;
    }
    if (task->in_flight == 0) {
        return cli_usage("give more --memory, more --sessions, or a smaller --store-size",
                         "demo: --memory %s is too little for the largest session",
                         cli_bytes_text(options->memory_bytes).text);
    }
    if (task->in_flight < options->in_flight) {
        (void)fprintf(stderr,
                      "abode: demo: memory for %u overlapping conversations, not %llu: "
                      "give more --memory\n",
                      task->in_flight, (unsigned long long)options->in_flight);
    }
    return CLI_OK;
}

/* 64 segments or more recycle well; a segment holds several of the largest blocks. */
static uint32_t segment_bytes_choose(uint64_t store_bytes, const struct workload *workload)
{
    const uint64_t block_bytes = workload_block_bytes_max(workload);
    uint32_t bytes = 64u << 20;
    while (bytes > 1u << 20 && store_bytes / bytes < 64 && bytes / 2 >= 4 * block_bytes) {
        bytes /= 2;
    }
    return bytes;
}

static void introduction_print(const struct demo_options *options, const struct demo_task *task,
                               const struct demo_result *result)
{
    const struct workload *workload = &result->workload;
    const double hours = (double)workload->span_ms / 3.6e6;
    printf("abode demo: %u conversations, %u turns, %.1f hours of their clock, seed %llu\n",
           workload->session_count, workload->turn_count, hours, (unsigned long long)options->seed);
    printf("  state %s, memory %s (frames %s), store %s\n  in %s\n",
           cli_bytes_text(workload->bytes_state).text, cli_bytes_text(options->memory_bytes).text,
           cli_bytes_text(task->memory_bytes).text, cli_bytes_text(options->store_bytes).text,
           task->paths[0]);
    printf("  shapes: Azure 2023 and Mooncake traces (chats), recorded coding agents (tools)\n");
    cli_flush();
}

/* Hosts until the conversations are through, then one that reads all back. */
static int children_run(struct child *child, bool quiet)
{
    struct cli_progress progress;
    cli_progress_start(&progress, "demo", quiet);
    int code;
    do {
        code = child_run(child, &progress);
    } while (code == CLI_OK && child->killed);
    if (code == CLI_OK) {
        child->task->phase = DEMO_AUDIT;
        code = child_run(child, &progress);
    }
    cli_progress_end(&progress);
    return code;
}

/* What the audit should have read and did not is lost, whatever the reason. */
static void audit_settle(struct demo_result *result)
{
    for (uint32_t i = 0; i < result->workload.session_count; i++) {
        const struct demo_session *session = &result->sessions[i];
        const bool expected = session->turns_acknowledged > 0 && !session->deleted;
        if (expected && !session->checked) {
            result->acknowledged_lost += session->turns_acknowledged;
        }
    }
}

/* CLI_OK, or the one line that says what is wrong. */
static int verdict(const struct demo_result *result)
{
    if (result->totals.bytes_wrong > 0) {
        return cli_fail(-ABODE_ECORRUPT, "please report it, with the lines above",
                        "demo: %s bytes came back wrong",
                        cli_count_text(result->totals.bytes_wrong).text);
    }
    if (result->acknowledged_lost > 0 || result->deleted_returned > 0) {
        return cli_fail(-ABODE_ECORRUPT, "please report it, with the lines above",
                        "demo: %llu acknowledged turns are lost, %llu deleted sessions came back",
                        (unsigned long long)result->acknowledged_lost,
                        (unsigned long long)result->deleted_returned);
    }
    if (result->turns == 0) {
        return cli_fail(-ETIMEDOUT, "give more --seconds, or less work",
                        "demo: no turn was begun in time");
    }
    return CLI_OK;
}

static int demo_run(const struct demo_options *options, struct demo_task *task,
                    struct demo_result *result)
{
    struct child child = {.task = task,
                          .result = result,
                          .start_ns = cli_now_ns(),
                          .random = options->seed + 1,
                          .kills_wanted = (uint32_t)options->kills};
    task->deadline_ns = child.start_ns + (uint64_t)(options->seconds * 1e9);
    introduction_print(options, task, result);
    const int code = children_run(&child, options->quiet);
    if (code != CLI_OK) {
        return code;
    }
    audit_settle(result);
    result->seconds = (double)(cli_now_ns() - child.start_ns) / 1e9;
    picture_print(result, stdout);
    if (options->list) {
        list_print(result, stdout);
    }
    report_print(result, stdout);
    if (options->keep) {
        printf("\nThe store stays: abode inspect %s; abode verify %s\n", task->paths[0],
               task->paths[0]);
    }
    if (options->json && cli_json_print(report_json(result)) != CLI_OK) {
        return CLI_FAILED;
    }
    return verdict(result);
}

static int scratches_open(const struct demo_options *options, struct demo_task *task,
                          struct cli_scratch *scratches)
{
    task->path_count = options->stores.count > 0 ? options->stores.count : 1;
    for (uint32_t i = 0; i < task->path_count; i++) {
        const char *given = options->stores.count > 0 ? options->stores.items[i] : NULL;
        const int code =
            cli_scratch_open(&scratches[i], given, options->store_bytes / task->path_count);
        if (code != CLI_OK) {
            return code;
        }
        (void)snprintf(task->paths[i], DEMO_PATH_BYTES, "%.*s", DEMO_PATH_BYTES - 1,
                       scratches[i].path);
    }
    return CLI_OK;
}

int cli_demo(int argc, char **argv)
{
    struct demo_options options = {
        .sessions = 128,
        .seed = 1,
        .memory_bytes = MEMORY_BYTES_DEFAULT,
        .store_bytes = STORE_BYTES_DEFAULT,
        .kills = 2,
        .in_flight = 4,
        .seconds = SECONDS_DEFAULT,
        .prefill_rate = PREFILL_RATE_DEFAULT,
    };
    const int parsed = options_read(argc, argv, &options);
    if (parsed != 0) {
        return parsed > 0 ? CLI_OK : CLI_USAGE;
    }
    struct demo_task *task = cli_alloc(1, sizeof(*task));
    struct demo_result *result = cli_alloc(1, sizeof(*result));
    struct cli_scratch *scratches = cli_alloc(DEMO_PATHS_MAX, sizeof(*scratches));
    task->magic = DEMO_MAGIC;
    task->io = (uint32_t)options.io;
    task->huge = (uint32_t)options.huge;
    task->log_level = options.verbose ? ABODE_LOG_INFO : ABODE_LOG_ERROR;
    task->memory_bytes = (uint64_t)(FRAMES_SHARE * (double)options.memory_bytes);
    task->store_bytes = options.store_bytes;
    result->seed = options.seed;
    result->prefill_rate = options.prefill_rate;
    result->memory_bytes = options.memory_bytes;
    result->store_bytes = options.store_bytes;
    int code = stores_check(&options);
    if (code == CLI_OK) {
        code = workload_fit(&options, task, result);
    }
    if (code == CLI_OK) {
        const uint32_t count = result->workload.conversation_count;
        result->sessions = cli_alloc(count, sizeof(*result->sessions));
        const double hours = (double)result->workload.span_ms / 3.6e6;
        task->segment_bytes = segment_bytes_choose(options.store_bytes, &result->workload);
        task->seconds_per_hour = options.seconds / (hours > 0 ? hours : 1);
        cli_signals_catch();
        code = scratches_open(&options, task, scratches);
    }
    if (code == CLI_OK) {
        code = demo_run(&options, task, result);
    }
    for (uint32_t i = 0; i < DEMO_PATHS_MAX; i++) {
        cli_scratch_close(&scratches[i], options.keep && code != CLI_USAGE);
    }
    free(result->sessions);
    workload_free(&result->workload);
    free(scratches);
    free(result);
    free(task);
    return code;
}
