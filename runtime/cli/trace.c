/*
 * trace.c - reads trace files, puts requests in order of time, and finds what goes on from what.
 *
 *   file -> lines -> trace_parse.c -> requests (in file order) -> order -> branches -> struct trace
 */
#include "trace_internal.h"

#include "content.h"

#include <dirent.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define MAP_CAPACITY_MIN 1024u
#define FOLDER_FILES_MAX 65536u
#define PATH_BYTES_MAX 4096

/* ---- map ------------------------------------------------------------------------------------- */

static int map_allocate(struct trace_map *map, uint32_t capacity)
{
    uint64_t *const keys = calloc(capacity, sizeof(*keys));
    uint32_t *const values = malloc(capacity * sizeof(*values));
    if (keys == NULL || values == NULL) {
        free(keys);
        free(values);
        return -ENOMEM;
    }
    memset(values, 0xff, capacity * sizeof(*values));
    *map = (struct trace_map){.keys = keys, .values = values, .capacity = capacity};
    return 0;
}

int trace_map_init(struct trace_map *map)
{
    return map_allocate(map, MAP_CAPACITY_MIN);
}

void trace_map_free(struct trace_map *map)
{
    free(map->keys);
    free(map->values);
    *map = (struct trace_map){0};
}

/* The place of the key, or the free one where it would go: at most half are taken, so it ends. */
static uint32_t map_place(const struct trace_map *map, uint64_t key)
{
    uint32_t place = (uint32_t)content_mix(key) & (map->capacity - 1);
    while (map->values[place] != TRACE_NONE && map->keys[place] != key) {
        place = (place + 1) & (map->capacity - 1);
    }
    return place;
}

uint32_t trace_map_get(const struct trace_map *map, uint64_t key)
{
    return map->capacity == 0 ? TRACE_NONE : map->values[map_place(map, key)];
}

static int map_double(struct trace_map *map)
{
    struct trace_map larger;
    const int rc = map_allocate(&larger, map->capacity * 2);
    if (rc < 0) {
        return rc;
    }
    for (uint32_t i = 0; i < map->capacity; i++) {
        if (map->values[i] != TRACE_NONE) {
            const uint32_t place = map_place(&larger, map->keys[i]);
            larger.keys[place] = map->keys[i];
            larger.values[place] = map->values[i];
        }
    }
    larger.count = map->count;
    trace_map_free(map);
    *map = larger;
    return 0;
}

int trace_map_put(struct trace_map *map, uint64_t key, uint32_t value)
{
    if (map->count >= map->capacity / 2) {
        const int rc = map_double(map);
        if (rc < 0) {
            return rc;
        }
    }
    const uint32_t place = map_place(map, key);
    map->count += map->values[place] == TRACE_NONE;
    map->keys[place] = key;
    map->values[place] = value;
    return 0;
}

/* ---- errors ---------------------------------------------------------------------------------- */

int trace_fail(struct trace_loader *loader, const char *format, ...)
{
    char text[768];
    va_list arguments;

    va_start(arguments, format);
    (void)vsnprintf(text, sizeof(text), format, arguments);
    va_end(arguments);
    if (loader->line > 0) {
        (void)snprintf(loader->error->text, sizeof(loader->error->text), "%.200s:%u: %s",
                       loader->path, loader->line, text);
    } else if (loader->item > 0) {
        (void)snprintf(loader->error->text, sizeof(loader->error->text), "%.200s: request %u: %s",
                       loader->path, loader->item, text);
    } else {
        (void)snprintf(loader->error->text, sizeof(loader->error->text), "%.200s: %s", loader->path,
                       text);
    }
    return -EINVAL;
}

static int file_fail(struct trace_loader *loader, int error, const char *mend)
{
    loader->line = 0;
    (void)trace_fail(loader, "%s: %s", strerror(error), mend);
    return -error;
}

/* ---- files ----------------------------------------------------------------------------------- */

/* The whole file, with a zero byte after it. */
static int file_read(struct trace_loader *loader, char **ret_text, size_t *ret_size)
{
    FILE *const file = fopen(loader->path, "rbe");
    size_t size = 0, capacity = 1u << 16, got = 0;
    char *text = malloc(capacity + 1);
    if (file == NULL || text == NULL) {
        const int error = file == NULL ? errno : ENOMEM;
        free(text);
        if (file != NULL) {
            (void)fclose(file);
        }
        return file_fail(loader, error, "give the path of a trace, see bench/traces");
    }
    while ((got = fread(text + size, 1, capacity - size, file)) > 0) {
        size += got;
        if (size == capacity && capacity < TRACE_FILE_BYTES_MAX) {
            char *const larger = realloc(text, capacity * 2 + 1);
            if (larger == NULL) {
                break;
            }
            text = larger;
            capacity *= 2;
        }
    }
    const bool whole = feof(file) && !ferror(file);
    const int error = ferror(file) ? errno : EFBIG;
    (void)fclose(file);
    if (!whole) {
        free(text);
        return file_fail(loader, error, "give a regular file of at most 1 GiB");
    }
    text[size] = '\0';
    *ret_text = text;
    *ret_size = size;
    return 0;
}

static bool text_is_blank(const char *text, size_t size)
{
    for (size_t i = 0; i < size; i++) {
        if (strchr(" \t\r\n", text[i]) == NULL || text[i] == '\0') {
            return false;
        }
    }
    return true;
}

typedef int (*line_parse)(struct trace_loader *loader, const json_t *object);

/* A line that does not parse: cut where the file ends in it, else damaged. */
static int line_fail(struct trace_loader *loader, bool last, const json_error_t *error)
{
    if (last) {
        return trace_fail(loader,
                          "the trace is cut: it ends in the middle of this line (%.80s): "
                          "get it again, or remove the line",
                          error->text);
    }
    return trace_fail(loader,
                      "not JSON (%.80s, column %d): get the trace again, or remove the "
                      "line",
                      error->text, error->column);
}

/* Each line of the text is one object. */
static int lines_parse(struct trace_loader *loader, const char *text, size_t size, line_parse parse)
{
    const char *const end = text + size;

    loader->line = 0;
    for (const char *line = text; line < end;) {
        const char *newline = memchr(line, '\n', (size_t)(end - line));
        const bool last = newline == NULL;
        const size_t length = (size_t)((last ? end : newline) - line);
        int rc = 0;

        loader->line++;
        if (!text_is_blank(line, length)) {
            json_error_t error;
            json_t *const object = json_loadb(line, length, JSON_REJECT_DUPLICATES, &error);
            if (object == NULL) {
                return line_fail(loader, last, &error);
            }
            rc = json_is_object(object) ? parse(loader, object)
                                        : trace_fail(loader, "not a JSON object: get the trace "
                                                             "again");
            json_decref(object);
        }
        if (rc < 0) {
            return rc;
        }
        line = last ? end : newline + 1;
    }
    return 0;
}

/* A session as published: the whole file is one object. */
static int session_text_parse(struct trace_loader *loader, const char *text, size_t size)
{
    json_error_t error;
    json_t *const object = json_loadb(text, size, JSON_REJECT_DUPLICATES, &error);

    loader->line = 0;
    if (object == NULL) {
        loader->line = error.line > 0 ? (uint32_t)error.line : 0;
        return trace_fail(loader, "cut or not JSON (%.80s): get the file again", error.text);
    }
    const int rc = json_is_object(object)
                       ? trace_parse_session(loader, object)
                       : trace_fail(loader, "not a JSON object: give a recorded session");
    json_decref(object);
    return rc;
}

/* ---- formats --------------------------------------------------------------------------------- */

static int format_of_object(struct trace_loader *loader, const json_t *object)
{
    if (json_object_get(object, "requests") != NULL) {
        return TRACE_AGENTIC_SESSION;
    }
    if (json_object_get(object, "hash_ids") != NULL &&
        json_object_get(object, "input_length") != NULL) {
        return TRACE_CONVERSATION;
    }
    if (json_object_get(object, "h") != NULL) {
        return TRACE_AGENTIC;
    }
    if (json_object_get(object, "start_s") != NULL) {
        return trace_fail(loader, "this is the list of sessions, not their requests: give the "
                                  "file ..sessions.jsonl that lies beside it");
    }
    return trace_fail(loader, "a JSON object, but of no trace that is known (wanted \"hash_ids\" "
                              "and \"input_length\", \"h\", or \"requests\"): see "
                              "bench/traces/README.md");
}

/* A first line that is not JSON by itself: an object over many lines, or a damaged line? */
static bool object_has_many_lines(const char *text, size_t size, const char *newline)
{
    json_error_t error;
    json_t *const object = json_loadb(text, size, JSON_REJECT_DUPLICATES, &error);

    if (object != NULL) {
        json_decref(object);
        return true;
    }
    return newline[1 + strspn(newline + 1, " \t\r\n")] != '{';
}

/* The format, from the first line; negative with the error written. */
static int format_find(struct trace_loader *loader, const char *text, size_t size)
{
    const char *const newline = memchr(text, '\n', size);
    const size_t length = newline == NULL ? size : (size_t)(newline - text);
    json_error_t error;

    loader->line = 0;
    if (text_is_blank(text, size)) {
        return trace_fail(loader, "empty: give a trace, for instance one of bench/traces");
    }
    loader->line = 1;
    if (strncmp(text, "TIMESTAMP,", 10) == 0) {
        return trace_fail(loader, "arrival times without block ids: nothing tells which state is "
                                  "shared, give a trace with ids");
    }
    json_t *const object = json_loadb(text, length, JSON_REJECT_DUPLICATES, &error);
    if (object == NULL) {
        const size_t blanks = strspn(text, " \t\r\n");
        if (text[blanks] == '{' && newline != NULL && object_has_many_lines(text, size, newline)) {
            return TRACE_AGENTIC_SESSION;
        }
        return text[blanks] == '{'
                   ? line_fail(loader, newline == NULL, &error)
                   : trace_fail(loader, "not a trace: the first line is no JSON object: see "
                                        "bench/traces/README.md for what is read");
    }
    const int format = json_is_object(object)
                           ? format_of_object(loader, object)
                           : trace_fail(loader, "not a trace: the first line is no JSON object: "
                                                "see bench/traces/README.md for what is read");
    json_decref(object);
    return format;
}

/* FOO_sessions.jsonl has its sessions' starts in FOO_meta.jsonl; without it they are drawn. */
static int meta_load(struct trace_loader *loader)
{
    static const char tail[] = "sessions.jsonl", meta_tail[] = "meta.jsonl";
    const char *const trace_path = loader->path;
    const size_t length = strlen(trace_path);
    char path[PATH_BYTES_MAX];
    char *text = NULL;
    size_t size = 0;
    struct stat status;

    if (length < sizeof(tail) - 1 || length >= sizeof(path) ||
        strcmp(trace_path + length - (sizeof(tail) - 1), tail) != 0) {
        return 0;
    }
    memcpy(path, trace_path, length - (sizeof(tail) - 1));
    memcpy(path + length - (sizeof(tail) - 1), meta_tail, sizeof(meta_tail));
    if (stat(path, &status) < 0) {
        return 0;
    }
    loader->path = path;
    int rc = file_read(loader, &text, &size);
    if (rc == 0) {
        rc = lines_parse(loader, text, size, trace_parse_meta);
        free(text);
    }
    loader->path = trace_path;
    return rc;
}

static int file_load(struct trace_loader *loader)
{
    char *text = NULL;
    size_t size = 0;
    int rc = file_read(loader, &text, &size);
    if (rc < 0) {
        return rc;
    }
    rc = format_find(loader, text, size);
    if (rc > 0) {
        loader->trace.format = (enum trace_format)rc;
        rc = loader->trace.format == TRACE_AGENTIC_SESSION
                 ? session_text_parse(loader, text, size)
                 : lines_parse(loader, text, size,
                               loader->trace.format == TRACE_AGENTIC ? trace_parse_agentic
                                                                     : trace_parse_conversation);
    }
    free(text);
    if (rc == 0 && loader->trace.format == TRACE_AGENTIC) {
        rc = meta_load(loader);
    }
    return rc;
}

static int names_compare(const void *left, const void *right)
{
    return strcmp(*(char *const *)left, *(char *const *)right);
}

static bool name_is_session(const char *name)
{
    const size_t length = strlen(name);
    return length > 5 && strcmp(name + length - 5, ".json") == 0;
}

static int folder_file_load(struct trace_loader *loader, const char *folder, const char *name)
{
    char path[PATH_BYTES_MAX];
    char *text = NULL;
    size_t size = 0;

    if ((size_t)snprintf(path, sizeof(path), "%s/%s", folder, name) >= sizeof(path)) {
        return file_fail(loader, ENAMETOOLONG, "give a shorter path");
    }
    loader->path = path;
    int rc = file_read(loader, &text, &size);
    if (rc == 0) {
        rc = session_text_parse(loader, text, size);
        free(text);
    }
    loader->path = folder;
    return rc;
}

static int folder_load(struct trace_loader *loader)
{
    const char *const folder = loader->path;
    char **names = calloc(FOLDER_FILES_MAX, sizeof(*names));
    DIR *const directory = opendir(folder);
    uint32_t count = 0;
    int rc = 0;

    loader->trace.format = TRACE_AGENTIC_SESSION;
    if (names == NULL || directory == NULL) {
        rc =
            file_fail(loader, directory == NULL ? errno : ENOMEM, "give a folder that can be read");
    }
    for (struct dirent *entry; rc == 0 && (entry = readdir(directory)) != NULL;) {
        if (!name_is_session(entry->d_name)) {
            continue;
        }
        if (count == FOLDER_FILES_MAX) {
            rc = file_fail(loader, E2BIG, "give at most 65,536 files");
            break;
        }
        names[count] = strdup(entry->d_name);
        rc = names[count] == NULL ? file_fail(loader, ENOMEM, "give fewer files") : 0;
        count += rc == 0;
    }
    if (rc == 0 && count == 0) {
        rc = trace_fail(loader, "no .json file in this folder: give a folder of recorded sessions");
    }
    if (count > 0) {
        qsort(names, count, sizeof(*names), names_compare);
    }
    for (uint32_t i = 0; i < count; i++) {
        rc = rc < 0 ? rc : folder_file_load(loader, folder, names[i]);
        free(names[i]);
    }
    free(names);
    if (directory != NULL) {
        (void)closedir(directory);
    }
    return rc;
}

/* ---- load ------------------------------------------------------------------------------------ */

static void loader_free(struct trace_loader *loader)
{
    for (uint32_t i = 0; i < loader->session_count; i++) {
        free(loader->sessions[i].sub_starts_s);
    }
    free(loader->sessions);
    free(loader->branch_sessions);
    free(loader->branch_subs);
    trace_map_free(&loader->session_index);
    trace_map_free(&loader->branch_index);
}

static int anything_load(struct trace_loader *loader)
{
    struct stat status;

    if (stat(loader->path, &status) < 0) {
        return file_fail(loader, errno, "give the path of a trace, see bench/traces");
    }
    int rc = trace_map_init(&loader->session_index);
    if (rc == 0) {
        rc = trace_map_init(&loader->branch_index);
    }
    if (rc < 0) {
        return file_fail(loader, ENOMEM, "free some memory");
    }
    rc = S_ISDIR(status.st_mode) ? folder_load(loader) : file_load(loader);
    loader->line = 0;
    loader->item = 0;
    if (rc == 0 && loader->trace.request_count == 0) {
        return trace_fail(loader, "no request in it: give a trace, for instance one of "
                                  "bench/traces");
    }
    return rc < 0 ? rc : trace_order(loader);
}

int trace_load(const char *path, struct trace *ret_trace, struct trace_error *ret_error)
{
    struct trace_loader loader = {.error = ret_error, .path = path};
    ret_error->text[0] = '\0';

    const int rc = anything_load(&loader);
    loader_free(&loader);
    if (rc < 0) {
        if (ret_error->text[0] == '\0') {
            (void)snprintf(ret_error->text, sizeof(ret_error->text), "%.200s: %s: split the trace",
                           path, strerror(-rc));
        }
        trace_free(&loader.trace);
        return rc;
    }
    *ret_trace = loader.trace;
    return 0;
}

void trace_free(struct trace *trace)
{
    free(trace->requests);
    free(trace->runs);
    free(trace->scopes);
    *trace = (struct trace){0};
}

const char *trace_format_name(enum trace_format format)
{
    return format == TRACE_CONVERSATION ? "conversation"
           : format == TRACE_AGENTIC    ? "agentic"
                                        : "agentic, one file a session";
}
