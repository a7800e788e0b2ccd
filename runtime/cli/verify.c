/*
 * verify.c - `abode verify`: read every stored block, check it, name what is damaged.
 *
 * Opens read-only, so that it works beside a live host (whose newest blocks it may not see yet).
 * Exit code 1 where anything is damaged.
 */
#include "cli.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#define DAMAGE_LINES_MAX 20 /* as text; all are counted, and all are in --json */
#define NAME_BYTES_SHOWN 8  /* the start of a digest is enough to find it by */

struct verify_options {
    uint64_t io;
    bool json, quiet, verbose;
};

struct verify {
    struct cli_progress progress;
    uint64_t start_ns;
    uint64_t damage_count;
    bool json;
    json_t *damages;
};

static bool name_is_known(const struct abode_key *name)
{
    static const struct abode_key none;
    return memcmp(name, &none, sizeof(none)) != 0;
}

static void name_text(const struct abode_key *name, uint32_t byte_count, char *ret_text)
{
    static const char digits[] = "0123456789abcdef";
    for (uint32_t i = 0; i < byte_count; i++) {
        ret_text[2 * i] = digits[name->bytes[i] >> 4];
        ret_text[2 * i + 1] = digits[name->bytes[i] & 15];
    }
    ret_text[2 * byte_count] = 0;
}

static int progressed(void *context, uint64_t bytes_done, uint64_t bytes_total)
{
    struct verify *verify = context;
    const double seconds = (double)(cli_now_ns() - verify->start_ns) / 1e9;
    char remark[96];
    (void)snprintf(remark, sizeof(remark), "%s, %.2f GB/s", cli_bytes_text(bytes_done).text,
                   seconds > 0 ? (double)bytes_done / 1e9 / seconds : 0);
    cli_progress_update(&verify->progress, bytes_done, bytes_total, remark);
    return cli_interrupted ? -EINTR : 0;
}

static void damage_json_add(struct verify *verify, const struct abode_damage *damage)
{
    char name[2 * sizeof(damage->session_name.bytes) + 1];
    const bool known = name_is_known(&damage->session_name);
    name_text(&damage->session_name, sizeof(damage->session_name.bytes), name);
    json_t *object =
        json_pack("{s:s, s:s?, s:I, s:I, s:i, s:I, s:I, s:s}", "file", damage->file, "session",
                  known ? name : NULL, "offset", (json_int_t)damage->offset, "bytes",
                  (json_int_t)damage->bytes, "component", (int)damage->component, "token_first",
                  (json_int_t)damage->token_first, "token_count", (json_int_t)damage->token_count,
                  "why", abode_strerror(damage->status));
    (void)json_array_append_new(verify->damages, cli_json(object));
}

static void damaged(void *context, const struct abode_damage *damage)
{
    struct verify *verify = context;
    verify->damage_count++;
    if (verify->json) {
        damage_json_add(verify, damage);
    }
    if (verify->damage_count > DAMAGE_LINES_MAX) {
        return;
    }
    cli_progress_end(&verify->progress);
    printf("damaged: %s, bytes %" PRIu64 " to %" PRIu64 ": %s\n", damage->file, damage->offset,
           damage->offset + damage->bytes, abode_strerror(damage->status));
    char name[2 * NAME_BYTES_SHOWN + 1];
    name_text(&damage->session_name, NAME_BYTES_SHOWN, name);
    printf("         %s%s, component %u",
           name_is_known(&damage->session_name) ? "session " : "of no session with a name",
           name_is_known(&damage->session_name) ? name : "", damage->component);
    if (damage->token_count > 0) {
        printf(", tokens %" PRIu64 " to %" PRIu64, damage->token_first,
               damage->token_first + damage->token_count);
    }
    printf("\n");
}

static int report(const struct verify *verify, const struct abode_verify_report *report)
{
    const double seconds = (double)(cli_now_ns() - verify->start_ns) / 1e9;
    const double rate = seconds > 0 ? (double)report->bytes_checked / 1e9 / seconds : 0;
    if (verify->damage_count > DAMAGE_LINES_MAX) {
        printf("... and %" PRIu64 " more\n", verify->damage_count - DAMAGE_LINES_MAX);
    }
    printf(
        "%s blocks, %s, checked in %s (%.2f GB/s): ", cli_count_text(report->blocks_checked).text,
        cli_bytes_text(report->bytes_checked).text, cli_seconds_text(seconds).text, rate);
    if (report->blocks_bad == 0) {
        printf("all good\n");
    } else {
        printf("%s blocks, %s, DAMAGED\n", cli_count_text(report->blocks_bad).text,
               cli_bytes_text(report->bytes_bad).text);
        printf("Sessions with damage come back shorter, or not at all; never wrong.\n");
    }
    if (verify->json) {
        json_t *object = cli_json(json_pack(
            "{s:I, s:I, s:I, s:I, s:f, s:O}", "blocks_checked", (json_int_t)report->blocks_checked,
            "bytes_checked", (json_int_t)report->bytes_checked, "blocks_bad",
            (json_int_t)report->blocks_bad, "bytes_bad", (json_int_t)report->bytes_bad, "seconds",
            seconds, "damage", verify->damages));
        if (cli_json_print(object) != CLI_OK) {
            return CLI_FAILED;
        }
    }
    return report->blocks_bad == 0 ? CLI_OK : CLI_FAILED;
}

static int verify_run(struct abode *runtime, const struct verify_options *options)
{
    struct verify verify = {.json = options->json, .start_ns = cli_now_ns()};
    struct abode_verify_report found = {.struct_size = sizeof(found)};
    verify.damages = cli_json(json_array());
    cli_progress_start(&verify.progress, "verify", options->quiet);
    const int result = abode_verify(runtime, progressed, damaged, &verify, &found);
    cli_progress_end(&verify.progress);
    int code;
    if (result == -EINTR) {
        code = cli_fail(result, "start it again: it changes nothing", "verify");
    } else if (result < 0) {
        code = cli_fail(result, NULL, "verify: reading the store");
    } else {
        code = report(&verify, &found);
    }
    json_decref(verify.damages);
    return code;
}

int cli_verify(int argc, char **argv)
{
    struct verify_options options = {0};
    const struct cli_option table[] = {
        {"io", 0, CLI_CHOICE, &options.io, cli_io_choices, "how to read", 0, 0},
        {"json", 'j', CLI_FLAG, &options.json, NULL, "one JSON object on the last line", 0, 0},
        {"quiet", 'q', CLI_FLAG, &options.quiet, NULL, "no progress bar", 0, 0},
        {"verbose", 'v', CLI_FLAG, &options.verbose, NULL, "what the library logs, too", 0, 0},
    };
    const struct cli_syntax syntax = {
        .command = "verify",
        .arguments = "DIR...",
        .summary = "Read every stored byte of a store and check it. Names damaged ranges and whose "
                   "they are.\nExit code 1 if there is damage.",
        .notes = "DIR...: all directories of one store. It may be in use: its newest blocks may "
                 "then be\nmissing from the walk.",
        .rest_min = 1,
        .rest_max = CLI_LIST_MAX,
        .options = table,
        .option_count = CLI_OPTION_COUNT(table),
    };
    int rest = 0;
    const int parsed = cli_options_parse(&syntax, argc, argv, &rest);
    if (parsed != 0) {
        return parsed > 0 ? CLI_OK : CLI_USAGE;
    }
    struct cli_log log = {.level = options.verbose ? ABODE_LOG_INFO : ABODE_LOG_ERROR};
    const struct cli_store store = {
        .paths = (const char *const *)&argv[rest],
        .path_count = (uint32_t)(argc - rest),
        .io = (uint32_t)options.io,
        .log = &log,
    };
    struct abode *runtime = NULL;
    int code = cli_store_open(&store, "verify", &runtime);
    if (code != CLI_OK) {
        return code;
    }
    cli_signals_catch();
    code = verify_run(runtime, &options);
    const int closed = abode_close(runtime);
    return closed < 0 ? cli_fail(closed, NULL, "verify: closing") : code;
}
