/*
 * bench.c - `abode bench`: a quick measure of spill and restore on a directory, through abode.h.
 *
 * Rounds of: make sessions and fill them; spill all (durable, frames given back); restore all;
 * check every byte; delete all. Spill and restore are timed from the first submit to the last
 * completion, with some ops in flight; a session's latency is its own submit to completion. CPU is
 * the whole process's, all threads. Filling and checking are outside of the timed parts.
 *
 * Reads go around the page cache where the file system allows O_DIRECT; where it does not, that is
 * said, and the figures are of the cache.
 */
#include "cli.h"
#include "content.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define BLOCK_TOKENS 256
#define ROUNDS_MAX 1000
#define SESSIONS_MAX 65536
#define IN_FLIGHT_MAX 256
#define SPANS_MAX 8
#define COMPONENT_PAGED 0

struct bench_options {
    uint64_t total_bytes, session_bytes, block_bytes, rounds, in_flight, io, huge;
    bool json, quiet, verbose;
};

struct bench_session {
    struct abode_session handle;
    struct abode_op op;
    uint64_t submit_ns;
};
enum phase { PHASE_SPILL = 0, PHASE_RESTORE, PHASE_COUNT };
struct samples {                  /* of one phase, over all rounds */
    double *gbps, *cpu_ms_per_gb; /* per round */
    double *latency_s;            /* per session and round */
    uint32_t round_count, latency_count;
};
struct bench {
    const struct bench_options *options;
    struct abode *runtime;
    struct abode_queue *queue;
    uint32_t model;
    uint32_t session_count, tokens, planes_bytes;
    struct bench_session *sessions;
    struct samples samples[PHASE_COUNT];
    uint64_t bytes_wrong, bytes_checked;
    struct cli_progress progress;
};

/* ---- content --------------------------------------------------------------------------------- */

static uint64_t row_seed(uint32_t round, uint32_t session, uint32_t row)
{
    return content_seed(content_join(((uint64_t)round << 32) | session, row), COMPONENT_PAGED, 0);
}

static int session_fill(struct bench *bench, uint32_t round, uint32_t index)
{
    const struct abode_session_opts opts = {.struct_size = sizeof(opts),
                                            .model = bench->model,
                                            .home_node = -1,
                                            .durability = ABODE_DURABLE};
    struct bench_session *session = &bench->sessions[index];
    const uint32_t block = bench->planes_bytes;
    int result = abode_session_create(bench->runtime, &opts, &session->handle);
    for (uint32_t row = 0; row * BLOCK_TOKENS < bench->tokens && result >= 0; row++) {
        struct abode_span spans[SPANS_MAX];
        result =
            abode_append_reserve(bench->runtime, session->handle, BLOCK_TOKENS, spans, SPANS_MAX);
        if (result >= 0) {
            content_fill(spans[0].base, row_seed(round, index, row), 0, block);
            result = abode_append_commit(bench->runtime, session->handle, BLOCK_TOKENS, NULL, 0);
        }
    }
    return result;
}

static int session_check(struct bench *bench, uint32_t round, uint32_t index)
{
    struct abode_view view = {.struct_size = sizeof(view)};
    const int result =
        abode_session_view(bench->runtime, bench->sessions[index].handle, COMPONENT_PAGED, &view);
    if (result < 0) {
        return result;
    }
    for (uint32_t row = 0; row * BLOCK_TOKENS < bench->tokens; row++) {
        bench->bytes_checked += bench->planes_bytes;
        if (row >= view.row_count || view.frames[row] == ABODE_FRAME_NONE) {
            bench->bytes_wrong += bench->planes_bytes;
            continue;
        }
        bench->bytes_wrong +=
            content_check(abode_view_plane(&view, row, 0), row_seed(round, index, row), 0,
                          bench->planes_bytes, NULL);
    }
    return 0;
}

/* ---- a phase --------------------------------------------------------------------------------- */

static int submit(struct bench *bench, enum phase phase, uint32_t index)
{
    struct bench_session *session = &bench->sessions[index];
    memset(&session->op, 0, sizeof(session->op));
    session->op.user_data = session;
    session->submit_ns = cli_now_ns();
    return phase == PHASE_SPILL
               ? abode_detach(bench->queue, session->handle, ABODE_DETACH_SPILL_NOW, &session->op)
               : abode_attach(bench->queue, session->handle, -1, 0, &session->op);
}

/* Take what has finished; latencies of the good ones are kept. 0, or the first failure. */
static int collect(struct bench *bench, struct samples *samples, uint32_t *finished)
{
    struct abode_op *ops[IN_FLIGHT_MAX];
    const int count = abode_poll(bench->queue, ops, IN_FLIGHT_MAX, -1);
    const uint64_t now_ns = cli_now_ns();
    int result = count < 0 ? count : 0;
    for (int i = 0; i < count; i++) {
        const struct bench_session *session = ops[i]->user_data;
        result = result < 0 ? result : ops[i]->status;
        samples->latency_s[samples->latency_count++] = (double)(now_ns - session->submit_ns) / 1e9;
        (*finished)++;
    }
    return result;
}

/* All sessions through one op each, in_flight of them at a time. A failure ends it when the ops
 * that are in flight have come back. */
static int phase_run(struct bench *bench, enum phase phase)
{
    struct samples *samples = &bench->samples[phase];
    const uint64_t start_ns = cli_now_ns(), cpu_start_ns = cli_cpu_now_ns();
    uint32_t submitted = 0, finished = 0;
    int result = 0;
    while (finished < submitted || (result >= 0 && submitted < bench->session_count)) {
        const bool room = submitted - finished < bench->options->in_flight;
        if (result >= 0 && room && submitted < bench->session_count) {
            result = submit(bench, phase, submitted);
            submitted += result >= 0;
            continue;
        }
        const int collected = collect(bench, samples, &finished);
        result = result < 0 ? result : collected;
    }
    if (result < 0) {
        return result;
    }
    const double bytes =
        (double)bench->session_count * (bench->tokens / BLOCK_TOKENS) * bench->planes_bytes;
    const double ns = (double)(cli_now_ns() - start_ns);
    samples->gbps[samples->round_count] = bytes / ns;
    samples->cpu_ms_per_gb[samples->round_count++] =
        (double)(cli_cpu_now_ns() - cpu_start_ns) / 1e6 / (bytes / 1e9);
    return 0;
}

static int fail(int code, const char *what)
{
    (void)cli_fail(code, NULL, "bench: %s", what);
    return code;
}

static int round_run(struct bench *bench, uint32_t round)
{
    int result = 0;
    for (uint32_t i = 0; i < bench->session_count && result >= 0; i++) {
        result = session_fill(bench, round, i);
    }
    if (result < 0) {
        return fail(result, "filling sessions");
    }
    result = phase_run(bench, PHASE_SPILL);
    if (result < 0) {
        return fail(result, "spilling");
    }
    result = phase_run(bench, PHASE_RESTORE);
    if (result < 0) {
        return fail(result, "restoring");
    }
    for (uint32_t i = 0; i < bench->session_count && result >= 0; i++) {
        result = session_check(bench, round, i);
        if (result >= 0) {
            result = abode_session_delete(bench->runtime, bench->sessions[i].handle);
        }
    }
    return result < 0 ? fail(result, "checking") : 0;
}

static int rounds_run(struct bench *bench)
{
    cli_progress_start(&bench->progress, "bench", bench->options->quiet);
    int result = 0;
    for (uint32_t round = 0; round < bench->options->rounds && result >= 0; round++) {
        char remark[48];
        (void)snprintf(remark, sizeof(remark), "round %u of %llu", round + 1,
                       (unsigned long long)bench->options->rounds);
        cli_progress_update(&bench->progress, round, bench->options->rounds, remark);
        result = round_run(bench, round);
        if (result >= 0 && cli_interrupted) {
            result = -EINTR;
            (void)cli_fail(result, "what was made has been removed", "bench");
        }
    }
    cli_progress_end(&bench->progress);
    return result;
}

/* ---- figures --------------------------------------------------------------------------------- */

static int compare(const void *a, const void *b)
{
    const double left = *(const double *)a, right = *(const double *)b;
    return left < right ? -1 : left > right;
}

static double quantile(double *values, uint32_t count, double share)
{
    if (count == 0) {
        return 0;
    }
    qsort(values, count, sizeof(*values), compare);
    const uint32_t index = (uint32_t)(share * count);
    return values[index < count ? index : count - 1];
}

static const char *const phase_names[PHASE_COUNT] = {"spill, durable", "restore, verified"};
static const char *const phase_keys[PHASE_COUNT] = {"spill", "restore"};

static void table_print(struct bench *bench)
{
    static const char *const header[] = {"", ">GB/s", ">min .. max", ">p50", ">p99", ">CPU ms/GB"};
    struct cli_table table;
    cli_table_init(&table, 6, header);
    for (uint32_t i = 0; i < PHASE_COUNT; i++) {
        struct samples *samples = &bench->samples[i];
        const uint32_t rounds = samples->round_count, latencies = samples->latency_count;
        char range[CLI_TEXT_SIZE * 2];
        (void)snprintf(range, sizeof(range), "%.2f .. %.2f", quantile(samples->gbps, rounds, 0),
                       quantile(samples->gbps, rounds, 1));
        cli_table_row(&table, phase_names[i],
                      cli_number_text(quantile(samples->gbps, rounds, 0.5), 2).text, range,
                      cli_seconds_text(quantile(samples->latency_s, latencies, 0.5)).text,
                      cli_seconds_text(quantile(samples->latency_s, latencies, 0.99)).text,
                      cli_number_text(quantile(samples->cpu_ms_per_gb, rounds, 0.5), 1).text);
    }
    printf("\n");
    cli_table_print(&table, stdout, 0);
    printf("\nGB/s and CPU: median of %u rounds; p50 and p99: one session, submit to completion.\n",
           bench->samples[0].round_count);
    printf("%s read back and checked, %s bytes wrong.\n", cli_bytes_text(bench->bytes_checked).text,
           cli_count_text(bench->bytes_wrong).text);
}

static int bench_json_print(struct bench *bench, const struct cli_support_line *lines)
{
    json_t *object = cli_json(
        json_pack("{s:i, s:I, s:i, s:i, s:i, s:I, s:I}", "sessions", (int)bench->session_count,
                  "session_bytes", (json_int_t)bench->options->session_bytes, "block_bytes",
                  (int)bench->planes_bytes, "in_flight", (int)bench->options->in_flight, "rounds",
                  (int)bench->options->rounds, "bytes_checked", (json_int_t)bench->bytes_checked,
                  "bytes_wrong", (json_int_t)bench->bytes_wrong));
    for (uint32_t i = 0; i < PHASE_COUNT; i++) {
        struct samples *samples = &bench->samples[i];
        const uint32_t rounds = samples->round_count, latencies = samples->latency_count;
        json_t *phase = json_pack("{s:f, s:f, s:f, s:f, s:f, s:f}", "gbps",
                                  quantile(samples->gbps, rounds, 0.5), "gbps_min",
                                  quantile(samples->gbps, rounds, 0), "gbps_max",
                                  quantile(samples->gbps, rounds, 1), "p50_s",
                                  quantile(samples->latency_s, latencies, 0.5), "p99_s",
                                  quantile(samples->latency_s, latencies, 0.99), "cpu_ms_per_gb",
                                  quantile(samples->cpu_ms_per_gb, rounds, 0.5));
        (void)json_object_set_new(object, phase_keys[i], cli_json(phase));
    }
    (void)json_object_set_new(object, "support", cli_support_json(lines));
    return cli_json_print(object);
}

/* ---- set-up ---------------------------------------------------------------------------------- */

static int bench_open(struct bench *bench, const char *path, struct cli_log *log)
{
    const struct bench_options *options = bench->options;
    const uint64_t state = (uint64_t)bench->session_count * options->session_bytes;
    const struct abode_plane plane = {.bytes_per_block = bench->planes_bytes, .align = 4096};
    const struct abode_component component = {
        .kind = ABODE_PAGED, .plane_count = 1, .planes = &plane};
    const struct abode_model_desc desc = {.struct_size = sizeof(desc),
                                          .component_count = 1,
                                          .components = &component,
                                          .block_tokens = BLOCK_TOKENS,
                                          .session_tokens_max = bench->tokens,
                                          .session_tokens_typical = bench->tokens,
                                          .tag = "abode bench"};
    struct abode_config config;
    abode_config_init(&config);
    config.flags = ABODE_CREATE;
    config.memory_bytes_max = state + state / 8 + (64u << 20);
    config.store_bytes_max = 2 * state + (256u << 20);
    config.store_paths = &path;
    config.store_path_count = 1;
    config.session_count_max = 2 * bench->session_count + 16;
    config.io = (uint32_t)options->io;
    config.huge = (uint32_t)options->huge;
    config.log = cli_log_line;
    config.log_context = log;
    int result = abode_open(&config, &bench->runtime);
    if (result < 0) {
        return fail(result, "opening a store");
    }
    result = abode_model_add(bench->runtime, &desc, &bench->model);
    if (result >= 0) {
        result = abode_queue_open(bench->runtime, IN_FLIGHT_MAX, &bench->queue);
    }
    return result < 0 ? fail(result, "declaring a model") : 0;
}

static int bench_close(struct bench *bench)
{
    int result = bench->queue != NULL ? abode_queue_close(bench->queue) : 0;
    if (result >= 0 && bench->runtime != NULL) {
        result = abode_close(bench->runtime);
    }
    return result < 0 ? fail(result, "closing") : 0;
}

static int bench_measure(struct bench *bench, const char *path)
{
    struct cli_log log = {.level = bench->options->verbose ? ABODE_LOG_INFO : ABODE_LOG_ERROR};
    struct cli_support_line lines[CLI_SUPPORT_LINES];
    int result = bench_open(bench, path, &log);
    if (result >= 0) {
        result = rounds_run(bench);
    }
    if (result >= 0) {
        result = cli_support_lines(bench->runtime, lines);
    }
    if (result < 0) {
        (void)bench_close(bench);
        return CLI_FAILED;
    }
    printf("abode bench: %u sessions of %s in blocks of %s, %llu in flight\n", bench->session_count,
           cli_bytes_text(bench->options->session_bytes).text,
           cli_bytes_text(bench->planes_bytes).text, (unsigned long long)bench->options->in_flight);
    table_print(bench);
    cli_support_print(lines, true, stdout);
    if (bench->options->json && bench_json_print(bench, lines) != CLI_OK) {
        return CLI_FAILED;
    }
    result = bench_close(bench);
    return result < 0 || bench->bytes_wrong > 0 ? CLI_FAILED : CLI_OK;
}

static int bench_run(const struct bench_options *options, const char *parent)
{
    const uint64_t blocks = options->session_bytes / options->block_bytes;
    const uint64_t sessions = options->total_bytes / options->session_bytes;
    if (blocks == 0 || sessions == 0 || sessions > SESSIONS_MAX) {
        return cli_usage("--block-size <= --session-size <= --size, at most 65,536 sessions",
                         "bench: blocks of %s, sessions of %s, %s in all",
                         cli_bytes_text(options->block_bytes).text,
                         cli_bytes_text(options->session_bytes).text,
                         cli_bytes_text(options->total_bytes).text);
    }
    struct bench bench = {.options = options,
                          .session_count = (uint32_t)sessions,
                          .tokens = (uint32_t)(blocks * BLOCK_TOKENS),
                          .planes_bytes = (uint32_t)options->block_bytes};
    struct cli_scratch scratch;
    const uint64_t room = 2 * sessions * options->session_bytes + (320u << 20);
    int code = parent != NULL ? cli_scratch_open_in(&scratch, parent, room)
                              : cli_scratch_open(&scratch, NULL, room);
    if (code != CLI_OK) {
        return code;
    }
    bench.sessions = cli_alloc(sessions, sizeof(*bench.sessions));
    for (uint32_t i = 0; i < PHASE_COUNT; i++) {
        bench.samples[i].gbps = cli_alloc(options->rounds, sizeof(double));
        bench.samples[i].cpu_ms_per_gb = cli_alloc(options->rounds, sizeof(double));
        bench.samples[i].latency_s = cli_alloc(options->rounds * sessions, sizeof(double));
    }
    code = bench_measure(&bench, scratch.path);
    for (uint32_t i = 0; i < PHASE_COUNT; i++) {
        free(bench.samples[i].gbps);
        free(bench.samples[i].cpu_ms_per_gb);
        free(bench.samples[i].latency_s);
    }
    cli_scratch_close(&scratch, false);
    free(bench.sessions);
    return code;
}

int cli_bench(int argc, char **argv)
{
    struct bench_options options = {.total_bytes = 1ull << 30,
                                    .session_bytes = 32ull << 20,
                                    .block_bytes = 1ull << 20,
                                    .rounds = 5,
                                    .in_flight = 4};
    const struct cli_option table[] = {
        {"size", 's', CLI_SIZE, &options.total_bytes, "SIZE", "state in all (1G)", 1 << 20, 1e14},
        {"session-size", 0, CLI_SIZE, &options.session_bytes, "SIZE", "of one session (32M)", 4096,
         1e12},
        {"block-size", 'b', CLI_SIZE, &options.block_bytes, "SIZE", "of one block (1M)", 4096,
         64 << 20},
        {"rounds", 'r', CLI_COUNT, &options.rounds, "N", "how often (5)", 1, ROUNDS_MAX},
        {"in-flight", 0, CLI_COUNT, &options.in_flight, "N", "sessions moving at once (4)", 1,
         IN_FLIGHT_MAX},
        {"io", 0, CLI_CHOICE, &options.io, cli_io_choices, "how to read and write", 0, 0},
        {"huge", 0, CLI_CHOICE, &options.huge, cli_huge_choices, "huge pages", 0, 0},
        {"json", 'j', CLI_FLAG, &options.json, NULL, "one JSON object on the last line", 0, 0},
        {"quiet", 'q', CLI_FLAG, &options.quiet, NULL, "no progress bar", 0, 0},
        {"verbose", 'v', CLI_FLAG, &options.verbose, NULL, "what the library logs, too", 0, 0},
    };
    const struct cli_syntax syntax = {
        .command = "bench",
        .arguments = "[DIR]",
        .summary = "A quick measure of spill and restore on the device under DIR: GB/s, latency, "
                   "CPU.\nEvery byte that comes back is checked.",
        .notes = "DIR: where a store would go (default: TMPDIR or /var/tmp); a store of its own is "
                 "made\nbelow it and removed. For ratios against fio and rivals: make scorecard.",
        .rest_max = 1,
        .options = table,
        .option_count = CLI_OPTION_COUNT(table),
    };
    int rest = 0;
    const int parsed = cli_options_parse(&syntax, argc, argv, &rest);
    if (parsed != 0) {
        return parsed > 0 ? CLI_OK : CLI_USAGE;
    }
    cli_signals_catch();
    return bench_run(&options, rest < argc ? argv[rest] : NULL);
}
