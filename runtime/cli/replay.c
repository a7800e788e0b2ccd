/*
 * replay.c - `abode replay TRACE`: a recorded workload through the library, with real bytes.
 *
 * This file turns the command line into a run: trace, geometry, sizes, an open runtime, one of two
 * faces, figures. Exit codes: 0 all bytes right; 1 a byte was wrong, or something failed; 2 usage.
 */
#include "replay.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DRAIN_NS_MAX 30000000000ull /* after a failure, ops under way get so long to end */
#define FLUSH_NS_MAX 60000000000ll
#define SESSIONS_MIN 16384u
#define SPEED_MAX 1e9

static const char notes[] =
    "Models: llama-3.1-8b, llama-3.1-70b, qwen3-8b, qwen3-32b, deepseek-v3, gpt-oss-20b,\n"
    "gpt-oss-120b, gemma-3-4b, gemma-3-27b, qwen3-next; or in words, for instance\n"
    "paged:64x2048,window:16x2048@1024,snapshot:72x65536,bytes:4096 (KIND:PLANESxBYTES).\n"
    "Traces: samples lie in bench/traces; recorded sessions of kv-cache-tester and Mooncake's\n"
    "conversation trace are read as published.\n";

/* ---- options --------------------------------------------------------------------------------- */

static int speed_read(struct replay_options *options)
{
    const char *const text = options->speed_text;
    char *end = NULL;

    if (strcmp(text, "flat") == 0) {
        options->speed = 0;
        return CLI_OK;
    }
    if (strcmp(text, "trace") == 0) {
        options->speed = 1;
        return CLI_OK;
    }
    options->speed = strtod(text, &end);
    if (end == text || strcmp(end, "x") != 0 ||
        !(options->speed > 0 && options->speed <= SPEED_MAX)) {
        return cli_usage("give flat, trace, or a factor such as 100x", "--speed %s", text);
    }
    return CLI_OK;
}

static int options_read(struct replay_options *options, int argc, char **argv)
{
    const struct cli_option table[] = {
        {"model", 'm', CLI_TEXT, &options->model, "MODEL", "whose state; see below", 0, 0},
        {"scale", 0, CLI_NUMBER, &options->scale, "F",
         "bytes a token, as a share of the model's (default: by the trace)", 1e-6, 1024},
        {"face", 0, CLI_CHOICE, &options->face, "auto|session|cache",
         "how the host uses abode (auto: sessions, conversations by the cache)", 0, 0},
        {"speed", 0, CLI_TEXT, &options->speed_text, "flat|trace|Nx",
         "as fast as it goes, as recorded, or N times that (default: flat)", 0, 0},
        {"requests", 'n', CLI_COUNT, &options->requests, "N", "only the first N; 0: all", 0,
         TRACE_REQUESTS_MAX},
        {"inflight", 0, CLI_COUNT, &options->inflight, "N", "requests under way at once", 1,
         REPLAY_SLOTS_MAX},
        {"block-tokens", 0, CLI_COUNT, &options->block_tokens, "N", "tokens of a block", 1, 65536},
        {"memory", 0, CLI_SIZE, &options->memory_bytes, "SIZE",
         "memory for state (default: by the trace)", 0, 0},
        {"store-size", 0, CLI_SIZE, &options->store_bytes, "SIZE", "size of the store", 0, 0},
        {"store", 0, CLI_TEXT, &options->store_path, "DIR",
         "where; empty or missing (default: a scratch directory)", 0, 0},
        {"keep", 0, CLI_FLAG, &options->keep, NULL, "leave the store for inspect and verify", 0, 0},
        {"verify", 0, CLI_CHOICE, &options->verify, "all|sample|none",
         "which of the bytes that come back are checked", 0, 0},
        {"durability", 0, CLI_CHOICE, &options->durability, "default|mem|written|durable",
         "what a detach or put promises", 0, 0},
        {"io", 0, CLI_CHOICE, &options->io, cli_io_choices, "I/O engine", 0, 0},
        {"huge", 0, CLI_CHOICE, &options->huge, cli_huge_choices, "huge pages", 0, 0},
        {"json", 0, CLI_FLAG, &options->json, NULL, "the last line is one JSON object", 0, 0},
        {"quiet", 'q', CLI_FLAG, &options->quiet, NULL, "no progress bar", 0, 0},
    };
    const struct cli_syntax syntax = {
        .command = "replay",
        .arguments = "TRACE",
        .summary = "Run a recorded workload through the library with real bytes, check every byte "
                   "that comes\nback, and report hit rate, restore latency, rates and costs.",
        .notes = notes,
        .rest_min = 1,
        .rest_max = 1,
        .options = table,
        .option_count = CLI_OPTION_COUNT(table),
    };
    int rest = 0;

    const int parsed = cli_options_parse(&syntax, argc, argv, &rest);
    if (parsed != 0) {
        return parsed;
    }
    options->trace_path = argv[rest];
    return speed_read(options) == CLI_OK ? 0 : -EINVAL;
}

/* ---- trace and geometry ---------------------------------------------------------------------- */

static int trace_read(struct replay *replay)
{
    struct trace_error error;
    const uint64_t most = replay->options.requests;

    if (trace_load(replay->options.trace_path, &replay->trace, &error) < 0) {
        (void)fprintf(stderr, "abode: %s\n", error.text);
        return CLI_FAILED;
    }
    replay->request_count = most > 0 && most < replay->trace.request_count
                                ? (uint32_t)most
                                : replay->trace.request_count;
    if (replay->options.face == REPLAY_FACE_AUTO) {
        replay->options.face =
            replay->trace.format == TRACE_CONVERSATION ? REPLAY_CACHE : REPLAY_SESSION;
    }
    replay->face = replay->options.face == REPLAY_CACHE ? &replay_cache_face : &replay_session_face;
    return CLI_OK;
}

static int model_read(struct replay *replay)
{
    char why[128];
    const int rc = preset_find(replay->options.model, &replay->preset, why, sizeof(why));

    if (rc < 0) {
        return cli_usage("give one of the models of `abode replay --help`, or a geometry in words",
                         "--model %s: %s", replay->options.model, why);
    }
    if (preset_token_bytes(&replay->preset, 1) == 0) {
        return cli_usage("add a paged or window component", "--model %s keeps nothing of a token",
                         replay->options.model);
    }
    for (uint32_t i = 0; i < replay->preset.part_count; i++) {
        const uint32_t kind = replay->preset.parts[i].kind;
        if (replay->face == &replay_cache_face && (kind == ABODE_SNAPSHOT || kind == ABODE_BYTES)) {
            return cli_usage("give --face session, or a model without",
                             "%s has state that is valid at one position, cache items have none",
                             replay->options.model);
        }
    }
    return CLI_OK;
}

static int geometry_read(struct replay *replay)
{
    const uint32_t block = (uint32_t)replay->options.block_tokens;

    replay_plan_make(replay);
    const int sized = replay_plan_sizes(replay);
    if (sized != CLI_OK) {
        return sized;
    }
    const int rc = geometry_make(&replay->preset, replay->options.scale, block, &replay->geometry);
    if (rc < 0) {
        return cli_usage("give a smaller --scale or --block-tokens",
                         "%s at scale %g: a plane of a "
                         "block is larger than 1 GiB",
                         replay->options.model, replay->options.scale);
    }
    if (replay->face == &replay_session_face) {
        const int shared = replay_memory_share(replay);
        if (shared != CLI_OK) {
            return shared;
        }
    }
    replay->item_bytes = replay->geometry.token_bytes * replay->trace.block_tokens;
    replay->item_stride = (replay->item_bytes + 4095) & ~4095ull;
    return CLI_OK;
}

/* ---- runtime --------------------------------------------------------------------------------- */

static int runtime_open(struct replay *replay)
{
    const struct replay_options *const options = &replay->options;
    const char *const paths[] = {replay->scratch.path};
    struct abode_config config;

    abode_config_init(&config);
    config.flags = ABODE_CREATE;
    config.memory_bytes_max = options->memory_bytes;
    config.store_bytes_max = options->store_bytes;
    config.store_paths = paths;
    config.store_path_count = 1;
    config.io = (uint32_t)options->io;
    config.huge = (uint32_t)options->huge;
    config.durability = (uint32_t)options->durability;
    config.session_count_max = (uint32_t)replay->plan.branches_live_max + SESSIONS_MIN;
    config.log = cli_log_line;
    config.log_context = &replay->log;
    replay->log.level = ABODE_LOG_WARNING;
    const int rc = abode_open(&config, &replay->runtime);
    if (rc < 0) {
        return cli_fail(rc, NULL, "opening a store in '%s'", replay->scratch.path);
    }
    replay->support = (struct abode_support){.struct_size = sizeof(replay->support)};
    const int asked = abode_support_get(replay->runtime, &replay->support);
    return asked < 0 ? cli_fail(asked, NULL, "asking what the machine supports") : CLI_OK;
}

/* The cache face keeps items of one BYTES component, the session face the geometry. */
static int model_add(struct replay *replay)
{
    const struct geometry *const geometry = &replay->geometry;
    const struct abode_component items = {
        .kind = ABODE_BYTES, .snapshots_kept = 1, .bytes_max = replay->item_bytes};
    const bool cache = replay->face == &replay_cache_face;
    struct abode_model_desc desc = {
        .struct_size = sizeof(desc),
        .component_count = cache ? 1 : geometry->part_count,
        .components = cache ? &items : geometry->components,
        .block_tokens = geometry->block_tokens,
        .session_tokens_max = replay->plan.largest_tokens + geometry->block_tokens,
        .session_tokens_typical = replay->plan.tokens_all / replay->request_count + 1,
    };
    struct abode_key tag;

    abode_key_from_bytes(geometry->name, strlen(geometry->name), &tag);
    memcpy(desc.tag, tag.bytes, sizeof(desc.tag));
    abode_key_root(desc.tag, "replay", 6, NULL, 0, &replay->root_key);
    const int rc = abode_model_add(replay->runtime, &desc, &replay->model);
    if (rc < 0) {
        return cli_fail(rc, rc == -ENOMEM ? "give more with --memory, or a smaller --scale" : NULL,
                        "a model like %s with %s of memory", geometry->name,
                        cli_bytes_text(replay->options.memory_bytes).text);
    }
    return CLI_OK;
}

/* After a failure: ops that are under way end before anything they use goes. */
static void ops_drain(struct replay *replay)
{
    const uint64_t deadline = cli_now_ns() + DRAIN_NS_MAX;
    struct abode_op *ops[REPLAY_SLOTS_MAX];

    while (abode_queue_pending(replay->queue) > 0 && cli_now_ns() < deadline) {
        if (abode_poll(replay->queue, ops, REPLAY_SLOTS_MAX, 100000000) < 0) {
            return;
        }
    }
}

static int runtime_close(struct replay *replay)
{
    int rc = 0;

    if (replay->queue != NULL) {
        ops_drain(replay);
    }
    if (replay->runtime != NULL) {
        replay->face->close(replay);
    }
    if (replay->queue != NULL) {
        rc = abode_queue_close(replay->queue);
    }
    if (rc == 0 && replay->runtime != NULL) {
        rc = abode_close(replay->runtime);
    }
    for (uint32_t i = 0; i < replay->slot_count; i++) {
        struct replay_slot *const slot = &replay->slots[i];
        free(slot->wanted);
        free(slot->keys);
        free(slot->presence);
        free(slot->items);
    }
    return rc < 0 ? cli_fail(rc, NULL, "closing the runtime") : CLI_OK;
}

/* ---- the run --------------------------------------------------------------------------------- */

static int stats_get(struct replay *replay, struct abode_stats *ret)
{
    *ret = (struct abode_stats){.struct_size = sizeof(*ret)};
    const int rc = abode_stats_get(replay->runtime, ret);
    return rc < 0 ? cli_fail(rc, NULL, "reading statistics") : CLI_OK;
}

static int requests_run(struct replay *replay)
{
    int rc = abode_queue_open(replay->runtime, REPLAY_SLOTS_MAX, &replay->queue);
    if (rc < 0) {
        return cli_fail(rc, NULL, "opening a queue");
    }
    int result = stats_get(replay, &replay->stats_before);
    if (result != CLI_OK) {
        return result;
    }
    rc = replay->face->open(replay);
    if (rc < 0) {
        return cli_fail(rc, NULL, "preparing the %s face", replay->face->name);
    }
    if (replay_run(replay) < 0) {
        return CLI_FAILED;
    }
    rc = abode_flush(replay->runtime, FLUSH_NS_MAX);
    if (rc < 0) {
        replay->figures.writes_failed++;
        replay->figures.last_write_error = rc;
    }
    result = stats_get(replay, &replay->stats);
    if (result != CLI_OK) {
        return result;
    }
    rc = replay_device_measure(replay->scratch.path, &replay->figures);
    if (rc < 0) {
        (void)cli_fail(rc, "the report has no device to compare with", "reading the store's files");
    }
    return replay_report(replay);
}

static int store_run(struct replay *replay)
{
    int result = runtime_open(replay);

    if (result == CLI_OK) {
        result = model_add(replay);
    }
    if (result == CLI_OK) {
        result = requests_run(replay);
    }
    const int closed = runtime_close(replay);
    result = result == CLI_OK ? closed : result;
    if (result == CLI_OK && (replay->figures.bytes_wrong > 0 || cli_interrupted)) {
        result = CLI_FAILED;
    }
    return result;
}

static int replay_prepared(struct replay *replay)
{
    int result = trace_read(replay);

    if (result == CLI_OK) {
        result = model_read(replay);
    }
    if (result == CLI_OK) {
        result = geometry_read(replay);
    }
    if (result == CLI_OK && trace_map_init(&replay->seen) < 0) {
        result = cli_fail(-ENOMEM, NULL, "preparing the run");
    }
    if (result == CLI_OK) {
        result = cli_scratch_open(&replay->scratch, replay->options.store_path,
                                  replay->options.store_bytes);
    }
    if (result != CLI_OK) {
        return result;
    }
    cli_signals_catch();
    result = store_run(replay);
    cli_scratch_close(&replay->scratch, replay->options.keep);
    return result;
}

int cli_replay(int argc, char **argv)
{
    struct replay *const replay = cli_alloc(1, sizeof(*replay));

    replay->options = (struct replay_options){
        .model = "llama-3.1-8b",
        .speed_text = "flat",
        .block_tokens = 64,
        .store_bytes = 3ull << 30,
        .inflight = 4,
    };
    const int parsed = options_read(&replay->options, argc, argv);
    int result = parsed > 0 ? CLI_OK : CLI_USAGE;
    if (parsed == 0) {
        replay->slot_count = (uint32_t)replay->options.inflight;
        result = replay_prepared(replay);
        if (result == CLI_OK && replay->options.keep && !replay->options.json) {
            (void)printf("  the store is in %s\n", replay->scratch.path);
        }
    }
    geometry_free(&replay->geometry);
    trace_map_free(&replay->seen);
    trace_free(&replay->trace);
    free(replay);
    return result;
}
