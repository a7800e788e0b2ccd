/*
 * inspect.c - `abode inspect`: what a store holds and where it lives, from a live or a dead host.
 *
 * The library tells it in JSON lines (abode_inspect); --json passes them through as they come, the
 * text shows the same lines: those of one type that come more than once (sessions, models,
 * devices) as a table, the others as a list of names and values. Figures in bytes are shown as
 * sizes; nothing is left out but what --sessions cuts, which is said.
 *
 * Opens read-only, with no memory for frames: it never disturbs the host that writes.
 */
#include "cli.h"

#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#define TYPES_MAX 32
#define CELL_BYTES 160
#define CELL_COLUMNS_MAX 44 /* longer texts are cut in tables, with ".." */
#define KEY_DIGITS 16       /* of a digest: enough to tell sessions apart */
#define DIGEST_LENGTH_MIN 40
#define ROWS_DEFAULT 50
#define LIST_ITEMS_MAX 16

struct inspect_options {
    uint64_t row_count_max;
    bool json, verbose;
};

struct group {        /* all lines of one type, in the order they came */
    const char *type; /* of the first line: lives as long as it */
    json_t *lines;    /* array */
};
struct inspect {
    const struct inspect_options *options;
    struct group groups[TYPES_MAX];
    uint32_t group_count;
};

/* ---- lines ----------------------------------------------------------------------------------- */

static struct group *group_of(struct inspect *inspect, const char *type)
{
    for (uint32_t i = 0; i < inspect->group_count; i++) {
        if (strcmp(inspect->groups[i].type, type) == 0) {
            return &inspect->groups[i];
        }
    }
    if (inspect->group_count == TYPES_MAX) {
        return NULL;
    }
    struct group *group = &inspect->groups[inspect->group_count++];
    group->type = type;
    group->lines = cli_json(json_array());
    return group;
}

static int line_take(struct inspect *inspect, const char *text, size_t size)
{
    json_error_t error;
    json_t *line = json_loadb(text, size, 0, &error);
    const char *type = json_string_value(json_object_get(line, "kind"));
    struct group *group = type != NULL ? group_of(inspect, type) : NULL;
    if (group == NULL) {
        (void)fprintf(stderr, "abode: inspect: a line that is not understood: %.*s\n",
                      size < 80 ? (int)size : 80, text);
        json_decref(line);
        return -EBADMSG;
    }
    (void)json_array_append_new(group->lines, line);
    return 0;
}

/* The library gives whole lines, one or more at a time. */
static int lines_take(void *context, const char *text, size_t size)
{
    struct inspect *inspect = context;
    if (cli_interrupted) {
        return -EINTR;
    }
    if (inspect->options->json) {
        return fwrite(text, 1, size, stdout) == size ? 0 : -EIO;
    }
    size_t start = 0;
    int result = 0;
    for (size_t i = 0; i < size && result >= 0; i++) {
        if (text[i] == '\n') {
            result = i > start ? line_take(inspect, text + start, i - start) : 0;
            start = i + 1;
        }
    }
    return result >= 0 && start < size ? line_take(inspect, text + start, size - start) : result;
}

/* ---- values ---------------------------------------------------------------------------------- */

static void append(char *text, size_t capacity, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
static void append(char *text, size_t capacity, const char *format, ...)
{
    const size_t used = strlen(text);
    va_list arguments;
    va_start(arguments, format);
    (void)vsnprintf(text + used, capacity - used, format, arguments);
    va_end(arguments);
}

static bool is_digest(const char *text)
{
    return strlen(text) >= DIGEST_LENGTH_MIN && strspn(text, "0123456789abcdef") == strlen(text);
}

static void scalar_text(const char *key, const json_t *value, char *ret_text, size_t capacity)
{
    ret_text[0] = 0;
    if (json_is_integer(value)) {
        const json_int_t number = json_integer_value(value);
        if (number < 0) {
            append(ret_text, capacity, "%lld", (long long)number);
        } else if (strstr(key, "bytes") != NULL) {
            append(ret_text, capacity, "%s", cli_bytes_text((uint64_t)number).text);
        } else {
            append(ret_text, capacity, "%s", cli_count_text((uint64_t)number).text);
        }
    } else if (json_is_real(value)) {
        append(ret_text, capacity, "%.4g", json_real_value(value));
    } else if (json_is_string(value)) {
        const char *text = json_string_value(value);
        append(ret_text, capacity, "%.*s", is_digest(text) ? KEY_DIGITS : (int)capacity, text);
    } else if (json_is_boolean(value)) {
        append(ret_text, capacity, "%s", json_is_true(value) ? "yes" : "no");
    } else {
        append(ret_text, capacity, "-");
    }
}

/* A place reads as "memory, node 0: 12 MiB"; "?" where the kernel did not confirm it. */
static bool place_text(const json_t *value, char *ret_text, size_t capacity)
{
    const char *tier = json_string_value(json_object_get(value, "tier"));
    const json_t *bytes = json_object_get(value, "bytes");
    const json_t *verified = json_object_get(value, "verified");
    if (tier == NULL || !json_is_integer(bytes)) {
        return false;
    }
    const bool memory = strcmp(tier, "memory") == 0;
    const json_t *at = json_object_get(value, memory ? "node" : "device");
    char where[CELL_BYTES];
    scalar_text(memory ? "node" : "device", at, where, sizeof(where));
    const bool sure = json_is_true(verified) || json_integer_value(verified) == 1;
    ret_text[0] = 0;
    append(ret_text, capacity, "%s %s %s%s", memory ? "node" : "device", where,
           cli_bytes_text((uint64_t)json_integer_value(bytes)).text, sure ? "" : " ?");
    return true;
}

static void object_text(json_t *value, char *ret_text, size_t capacity)
{
    const char *key;
    json_t *member;
    ret_text[0] = 0;
    if (place_text(value, ret_text, capacity)) {
        return;
    }
    json_object_foreach(value, key, member)
    {
        char text[CELL_BYTES];
        scalar_text(key, member, text, sizeof(text));
        append(ret_text, capacity, "%s%s %s", ret_text[0] != 0 ? ", " : "", key, text);
    }
}

static void array_text(const char *key, const json_t *value, char *ret_text, size_t capacity)
{
    const size_t count = json_array_size(value);
    ret_text[0] = 0;
    for (size_t i = 0; i < count && i < LIST_ITEMS_MAX; i++) {
        char text[CELL_BYTES];
        json_t *item = json_array_get(value, i);
        if (json_is_object(item)) {
            object_text(item, text, sizeof(text));
        } else {
            scalar_text(key, item, text, sizeof(text));
        }
        append(ret_text, capacity, "%s%s", i > 0 ? "; " : "", text);
    }
    if (count > LIST_ITEMS_MAX) {
        append(ret_text, capacity, "; and %zu more", count - LIST_ITEMS_MAX);
    }
}

static void member_text(const char *key, json_t *value, char *ret_text, size_t capacity)
{
    if (json_is_array(value)) {
        array_text(key, value, ret_text, capacity);
    } else if (json_is_object(value)) {
        object_text(value, ret_text, capacity);
    } else {
        scalar_text(key, value, ret_text, capacity);
    }
}

/* ---- text ------------------------------------------------------------------------------------ */

static void list_print(json_t *line)
{
    const char *key;
    json_t *value;
    json_object_foreach(line, key, value)
    {
        char text[4 * CELL_BYTES];
        if (strcmp(key, "kind") == 0) {
            continue;
        }
        member_text(key, value, text, sizeof(text));
        printf("  %-24s  %s\n", key, text);
    }
}

struct columns {
    uint32_t count;
    const char *keys[CLI_TABLE_COLUMNS_MAX];
    char header[CLI_TABLE_COLUMNS_MAX][CELL_BYTES];
    char cells[CLI_TABLE_COLUMNS_MAX][CELL_BYTES];
};

/* A session has more to tell than a line holds: these, in this order; --json tells all. */
static const char *const session_columns[][2] = {
    {"name", "name"},
    {"model", ">model"},
    {"attached", "attached"},
    {"tokens", ">tokens"},
    {"bytes_state", ">state"},
    {"bytes_resident", ">in memory"},
    {"bytes_stored", ">in store"},
    {"places", "places"},
};

static bool column_is_known(const struct columns *columns, const char *key)
{
    bool known = strcmp(key, "kind") == 0;
    for (uint32_t i = 0; i < columns->count && !known; i++) {
        known = strcmp(columns->keys[i], key) == 0;
    }
    return known;
}

static void columns_choose(const struct group *group, struct columns *ret)
{
    const char *key;
    json_t *value;
    size_t row;
    json_t *line;
    ret->count = 0;
    if (strcmp(group->type, "session") == 0) {
        for (uint32_t i = 0; i < sizeof(session_columns) / sizeof(session_columns[0]); i++) {
            ret->keys[i] = session_columns[i][0];
            (void)snprintf(ret->header[i], CELL_BYTES, "%s", session_columns[i][1]);
            ret->count++;
        }
        return;
    }
    json_array_foreach(group->lines, row, line)
    {
        json_object_foreach(line, key, value)
        {
            if (ret->count < CLI_TABLE_COLUMNS_MAX && !column_is_known(ret, key)) {
                (void)snprintf(ret->header[ret->count], CELL_BYTES, "%s%s",
                               json_is_number(value) ? ">" : "", key);
                ret->keys[ret->count++] = key;
            }
        }
    }
}

static void row_print(struct cli_table *table, struct columns *columns, const json_t *line)
{
    for (uint32_t i = 0; i < columns->count; i++) {
        json_t *value = json_object_get(line, columns->keys[i]);
        char *cell = columns->cells[i];
        member_text(columns->keys[i], value, cell, CELL_BYTES);
        if (strlen(cell) > CELL_COLUMNS_MAX) {
            (void)snprintf(cell + CELL_COLUMNS_MAX - 2, 3, "..");
        }
    }
    for (uint32_t i = columns->count; i < CLI_TABLE_COLUMNS_MAX; i++) {
        columns->cells[i][0] = 0;
    }
    cli_table_row(table, columns->cells[0], columns->cells[1], columns->cells[2], columns->cells[3],
                  columns->cells[4], columns->cells[5], columns->cells[6], columns->cells[7],
                  columns->cells[8], columns->cells[9], columns->cells[10], columns->cells[11]);
}

static void table_print(const struct group *group, uint64_t row_count_max)
{
    const size_t count = json_array_size(group->lines);
    const size_t shown = count < row_count_max ? count : (size_t)row_count_max;
    const char *header[CLI_TABLE_COLUMNS_MAX];
    struct columns *columns = cli_alloc(1, sizeof(*columns));
    struct cli_table table;
    columns_choose(group, columns);
    for (uint32_t i = 0; i < columns->count; i++) {
        header[i] = columns->header[i];
    }
    cli_table_init(&table, columns->count, header);
    for (size_t i = 0; i < shown; i++) {
        row_print(&table, columns, json_array_get(group->lines, i));
    }
    cli_table_print(&table, stdout, 2);
    if (shown < count) {
        printf("  ... and %zu more: --rows %zu, or --json\n", count - shown, count);
    }
    free(columns);
}

static bool comes_in_numbers(const struct group *group)
{
    static const char *const types[] = {"session", "model", "node", "device"};
    bool known = json_array_size(group->lines) > 1;
    for (uint32_t i = 0; i < sizeof(types) / sizeof(types[0]); i++) {
        known = known || strcmp(group->type, types[i]) == 0;
    }
    return known;
}

static void text_print(const struct inspect *inspect)
{
    for (uint32_t i = 0; i < inspect->group_count; i++) {
        const struct group *group = &inspect->groups[i];
        const size_t count = json_array_size(group->lines);
        if (comes_in_numbers(group)) {
            printf("%s%zu %s%s\n", i > 0 ? "\n" : "", count, group->type, count == 1 ? "" : "s");
            table_print(group, inspect->options->row_count_max);
        } else {
            printf("%s%s\n", i > 0 ? "\n" : "", group->type);
            list_print(json_array_get(group->lines, 0));
        }
    }
}

/* ---- the command ----------------------------------------------------------------------------- */

static int inspect_run(struct abode *runtime, const struct inspect_options *options)
{
    struct inspect inspect = {.options = options};
    const int result = abode_inspect(runtime, lines_take, &inspect);
    if (result >= 0) {
        text_print(&inspect);
    }
    for (uint32_t i = 0; i < inspect.group_count; i++) {
        json_decref(inspect.groups[i].lines);
    }
    if (result >= 0) {
        return CLI_OK;
    }
    if (ferror(stdout)) {
        return CLI_FAILED; /* main() says why */
    }
    return cli_fail(result, NULL, "inspect");
}

int cli_inspect(int argc, char **argv)
{
    struct inspect_options options = {.row_count_max = ROWS_DEFAULT};
    const struct cli_option table[] = {
        {"rows", 'n', CLI_COUNT, &options.row_count_max, "N", "sessions to show as text (50)", 1,
         1e9},
        {"json", 'j', CLI_FLAG, &options.json, NULL, "JSON, an object a line", 0, 0},
        {"verbose", 'v', CLI_FLAG, &options.verbose, NULL, "what the library logs, too", 0, 0},
    };
    const struct cli_syntax syntax = {
        .command = "inspect",
        .arguments = "DIR...",
        .summary = "What a store holds and where it lives: machine, models, sessions with their "
                   "places,\nstatistics. Reads only; the store may be in use.",
        .notes = "DIR...: all directories of one store.",
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
        .log = &log,
    };
    struct abode *runtime = NULL;
    int code = cli_store_open(&store, "inspect", &runtime);
    if (code != CLI_OK) {
        return code;
    }
    cli_signals_catch();
    code = inspect_run(runtime, &options);
    const int closed = abode_close(runtime);
    return closed < 0 ? cli_fail(closed, NULL, "inspect: closing") : code;
}
