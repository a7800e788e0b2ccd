/*
 * trace_parse.c - one JSON object of a trace becomes requests: every field checked against its
 * bound before it is used, every refusal says which field, what it is, and what it should be.
 */
#include "trace_internal.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define AGENTIC_BLOCK_TOKENS 64       /* of the recorded sessions that we know */
#define CONVERSATION_BLOCK_TOKENS 512 /* FAST'25 traces: one hash id for 512 tokens */

/* Makes room for one more element; capacity doubles up to count_max. */
static int array_grow(struct trace_loader *loader, void **array, uint32_t *capacity, uint32_t count,
                      size_t bytes, uint32_t count_max)
{
    if (count < *capacity) {
        return 0;
    }
    if (count >= count_max) {
        return trace_fail(loader, "more than %u entries: split the trace", count_max);
    }
    const uint32_t wanted = *capacity == 0 ? 64 : *capacity * 2;
    void *const larger = realloc(*array, wanted * bytes);
    if (larger == NULL) {
        (void)trace_fail(loader, "out of memory: split the trace");
        return -ENOMEM;
    }
    *array = larger;
    *capacity = wanted;
    return 0;
}

/* A number field within [min, max]. A missing one is an error when `required`, else ret is left. */
static int number_get(struct trace_loader *loader, const json_t *object, const char *name,
                      bool required, double min, double max, double *ret)
{
    const json_t *const value = json_object_get(object, name);
    if (value == NULL || json_is_null(value)) {
        return required ? trace_fail(loader, "\"%s\" is missing: every request needs it", name) : 0;
    }
    if (!json_is_number(value)) {
        return trace_fail(loader, "\"%s\" is not a number: want %g to %g", name, min, max);
    }
    const double number = json_number_value(value);
    if (!isfinite(number) || number < min || number > max) {
        return trace_fail(loader, "\"%s\" is %g: want %g to %g", name, number, min, max);
    }
    *ret = number;
    return 0;
}

static int whole_get(struct trace_loader *loader, const json_t *object, const char *name,
                     uint32_t min, uint32_t max, uint32_t *ret)
{
    double number = 0;
    const int rc = number_get(loader, object, name, true, min, max, &number);
    if (rc < 0) {
        return rc;
    }
    if (number != floor(number)) {
        return trace_fail(loader, "\"%s\" is %g: want a whole number", name, number);
    }
    *ret = (uint32_t)number;
    return 0;
}

static int id_read(struct trace_loader *loader, const json_t *value, uint64_t *ret)
{
    if (!json_is_integer(value) || json_integer_value(value) < 0 ||
        (uint64_t)json_integer_value(value) > TRACE_ID_MAX) {
        return trace_fail(loader, "a block id is not a whole number from 0 to 2^48: this line is "
                                  "damaged, get the trace again");
    }
    *ret = (uint64_t)json_integer_value(value);
    return 0;
}

/* Adds ids first .. first + count - 1 to the request, joined to its last run where they go on. */
static int run_add(struct trace_loader *loader, struct trace_request *request, uint64_t first,
                   uint64_t count)
{
    struct trace *const trace = &loader->trace;
    if (count == 0 || count > TRACE_BLOCKS_MAX - request->block_count) {
        return trace_fail(loader,
                          "a request has an empty range or more than %u blocks: this line "
                          "is damaged, get the trace again",
                          TRACE_BLOCKS_MAX);
    }
    request->block_count += (uint32_t)count;
    if (request->run_count > 0) {
        struct trace_run *const last = &trace->runs[trace->run_count - 1];
        if (last->first + last->count == first) {
            last->count += (uint32_t)count;
            return 0;
        }
    }
    const int rc = array_grow(loader, (void **)&trace->runs, &loader->run_capacity,
                              trace->run_count, sizeof(*trace->runs), TRACE_RUNS_MAX);
    if (rc < 0) {
        return rc;
    }
    trace->runs[trace->run_count++] = (struct trace_run){.first = first, .count = (uint32_t)count};
    request->run_count++;
    return 0;
}

/* "hash_ids": [1, 2, 3] */
static int ids_add(struct trace_loader *loader, struct trace_request *request, const json_t *object)
{
    const json_t *const ids = json_object_get(object, "hash_ids");
    if (!json_is_array(ids)) {
        return trace_fail(loader, "\"hash_ids\" is missing or not a list: without block ids "
                                  "nothing can be shared, get a trace that has them");
    }
    for (size_t i = 0; i < json_array_size(ids); i++) {
        uint64_t id = 0;
        int rc = id_read(loader, json_array_get(ids, i), &id);
        if (rc == 0) {
            rc = run_add(loader, request, id, 1);
        }
        if (rc < 0) {
            return rc;
        }
    }
    return 0;
}

/* "h": [[1, 1113], [1200, 1210]], half-open */
static int ranges_add(struct trace_loader *loader, struct trace_request *request,
                      const json_t *object)
{
    const json_t *const ranges = json_object_get(object, "h");
    if (!json_is_array(ranges)) {
        return trace_fail(loader, "\"h\" is not a list of block ranges [a,b): get the trace again");
    }
    for (size_t i = 0; i < json_array_size(ranges); i++) {
        const json_t *const range = json_array_get(ranges, i);
        uint64_t first = 0, end = 0;
        if (!json_is_array(range) || json_array_size(range) != 2) {
            return trace_fail(loader, "range %zu of \"h\" is not [a,b): get the trace again", i);
        }
        int rc = id_read(loader, json_array_get(range, 0), &first);
        if (rc == 0) {
            rc = id_read(loader, json_array_get(range, 1), &end);
        }
        if (rc == 0) {
            rc = run_add(loader, request, first, end > first ? end - first : 0);
        }
        if (rc < 0) {
            return rc;
        }
    }
    return 0;
}

/* Ends a request: blocks and tokens must agree, then it goes to the trace. */
static int request_add(struct trace_loader *loader, struct trace_request *request)
{
    struct trace *const trace = &loader->trace;
    const uint32_t whole = request->tokens_in / trace->block_tokens;
    const uint32_t touched = whole + (request->tokens_in % trace->block_tokens != 0);
    if (request->block_count > touched) {
        return trace_fail(loader,
                          "%u blocks of %u tokens for %u tokens: blocks and tokens do not "
                          "agree, is it another block size?",
                          request->block_count, trace->block_tokens, request->tokens_in);
    }
    request->whole_count = request->block_count < whole ? request->block_count : whole;
    request->next = TRACE_NONE;
    request->previous = TRACE_NONE;
    request->line = loader->line > 0 ? loader->line : loader->item;
    const int rc = array_grow(loader, (void **)&trace->requests, &loader->request_capacity,
                              trace->request_count, sizeof(*trace->requests), TRACE_REQUESTS_MAX);
    if (rc < 0) {
        return rc;
    }
    trace->requests[trace->request_count++] = *request;
    return 0;
}

int trace_parse_conversation(struct trace_loader *loader, const json_t *object)
{
    struct trace_request request = {.run_first = loader->trace.run_count, .branch = TRACE_NONE};
    double milliseconds = 0;

    loader->trace.block_tokens = CONVERSATION_BLOCK_TOKENS;
    int rc =
        number_get(loader, object, "timestamp", true, 0, TRACE_SECONDS_MAX * 1e3, &milliseconds);
    if (rc == 0) {
        rc = whole_get(loader, object, "input_length", 1, TRACE_TOKENS_MAX, &request.tokens_in);
    }
    if (rc == 0) {
        rc = whole_get(loader, object, "output_length", 0, TRACE_TOKENS_MAX, &request.tokens_out);
    }
    if (rc == 0) {
        rc = ids_add(loader, &request, object);
    }
    request.start_s = milliseconds / 1e3;
    return rc < 0 ? rc : request_add(loader, &request);
}

/* The index of a recorded session, made at first sight. */
static int session_get(struct trace_loader *loader, uint64_t id, uint32_t *ret)
{
    const uint32_t known = trace_map_get(&loader->session_index, id);
    if (known != TRACE_NONE) {
        *ret = known;
        return 0;
    }
    int rc = array_grow(loader, (void **)&loader->sessions, &loader->session_capacity,
                        loader->session_count, sizeof(*loader->sessions), TRACE_REQUESTS_MAX);
    if (rc == 0) {
        rc = trace_map_put(&loader->session_index, id, loader->session_count);
    }
    if (rc < 0) {
        return rc;
    }
    loader->sessions[loader->session_count] = (struct trace_session){.id = id};
    *ret = loader->session_count++;
    return 0;
}

/* Two arrays run beside trace.scopes, with one capacity. */
static int branch_room(struct trace_loader *loader)
{
    struct trace *const trace = &loader->trace;
    uint32_t sessions_capacity = loader->branch_capacity, subs_capacity = loader->branch_capacity;

    int rc = array_grow(loader, (void **)&loader->branch_sessions, &sessions_capacity,
                        trace->branch_count, sizeof(uint32_t), TRACE_REQUESTS_MAX);
    if (rc == 0) {
        rc = array_grow(loader, (void **)&loader->branch_subs, &subs_capacity, trace->branch_count,
                        sizeof(uint32_t), TRACE_REQUESTS_MAX);
    }
    if (rc == 0) {
        rc = array_grow(loader, (void **)&trace->scopes, &loader->branch_capacity,
                        trace->branch_count, sizeof(uint64_t), TRACE_REQUESTS_MAX);
    }
    return rc;
}

static int branch_get(struct trace_loader *loader, uint32_t session, uint32_t sub, uint32_t *ret)
{
    const uint64_t key = (uint64_t)session << 32 | sub;
    struct trace *const trace = &loader->trace;
    const uint32_t known = trace_map_get(&loader->branch_index, key);
    if (known != TRACE_NONE) {
        *ret = known;
        return 0;
    }
    int rc = branch_room(loader);
    if (rc == 0) {
        rc = trace_map_put(&loader->branch_index, key, trace->branch_count);
    }
    if (rc < 0) {
        return rc;
    }
    loader->branch_sessions[trace->branch_count] = session;
    loader->branch_subs[trace->branch_count] = sub;
    trace->scopes[trace->branch_count] = loader->sessions[session].id;
    *ret = trace->branch_count++;
    return 0;
}

static uint8_t stop_read(const json_t *object)
{
    const char *const stop = json_string_value(json_object_get(object, "stop"));
    if (stop == NULL) {
        return TRACE_STOP_UNKNOWN;
    }
    return strcmp(stop, "tool_use") == 0   ? TRACE_STOP_TOOL
           : strcmp(stop, "end_turn") == 0 ? TRACE_STOP_TURN
                                           : TRACE_STOP_UNKNOWN;
}

/* The fields that both agentic formats share. */
static int agentic_fields(struct trace_loader *loader, const json_t *object, const char *busy_name,
                          struct trace_request *request)
{
    int rc = number_get(loader, object, "t", true, 0, TRACE_SECONDS_MAX, &request->start_s);
    if (rc == 0) {
        rc = whole_get(loader, object, "in", 1, TRACE_TOKENS_MAX, &request->tokens_in);
    }
    if (rc == 0) {
        rc = whole_get(loader, object, "out", 0, TRACE_TOKENS_MAX, &request->tokens_out);
    }
    if (rc == 0) {
        rc = number_get(loader, object, busy_name, false, 0, TRACE_SECONDS_MAX, &request->busy_s);
    }
    request->stop = stop_read(object);
    return rc;
}

/* "sub": "" is the session itself, "0", "1" or 0, 1 its sub-agents. Returns sub + 1. */
static int sub_read(struct trace_loader *loader, const json_t *object, uint32_t *ret)
{
    const json_t *const value = json_object_get(object, "sub");
    long long number = -1;

    if (value == NULL || (json_is_string(value) && json_string_length(value) == 0)) {
        *ret = 0;
        return 0;
    }
    if (json_is_integer(value)) {
        number = json_integer_value(value);
    } else if (json_is_string(value)) {
        char *end = NULL;
        number = strtoll(json_string_value(value), &end, 10);
        number = *end == '\0' ? number : -1;
    }
    if (number < 0 || number >= TRACE_SUB_MAX) {
        return trace_fail(loader,
                          "\"sub\" is neither \"\" nor a number below %u: this line is "
                          "damaged, get the trace again",
                          TRACE_SUB_MAX);
    }
    *ret = (uint32_t)number + 1;
    return 0;
}

int trace_parse_agentic(struct trace_loader *loader, const json_t *object)
{
    struct trace_request request = {.run_first = loader->trace.run_count};
    const json_t *const id = json_object_get(object, "s");
    uint32_t session = 0, sub = 0;

    loader->trace.block_tokens = AGENTIC_BLOCK_TOKENS;
    if (!json_is_integer(id) || json_integer_value(id) < 0) {
        return trace_fail(loader, "\"s\", the session's number, is missing or not a whole number: "
                                  "this line is damaged, get the trace again");
    }
    int rc = session_get(loader, (uint64_t)json_integer_value(id), &session);
    if (rc == 0) {
        rc = sub_read(loader, object, &sub);
    }
    if (rc == 0) {
        rc = branch_get(loader, session, sub, &request.branch);
    }
    if (rc == 0) {
        rc = agentic_fields(loader, object, "api", &request);
    }
    if (rc == 0) {
        rc = ranges_add(loader, &request, object);
    }
    return rc < 0 ? rc : request_add(loader, &request);
}

/* When the session began and when each of its sub-agents did. */
int trace_parse_meta(struct trace_loader *loader, const json_t *object)
{
    const json_t *const id = json_object_get(object, "s");
    const json_t *const subs = json_object_get(object, "sub");
    const size_t sub_count = json_array_size(subs);
    uint32_t index = 0;

    if (!json_is_integer(id) || json_integer_value(id) < 0 || sub_count > TRACE_SUB_MAX) {
        return trace_fail(loader, "not a line about a session: \"s\" or \"sub\" is wrong");
    }
    index = trace_map_get(&loader->session_index, (uint64_t)json_integer_value(id));
    if (index == TRACE_NONE) {
        return 0; /* the trace may be a part of what the meta file describes */
    }
    struct trace_session *const session = &loader->sessions[index];
    int rc = number_get(loader, object, "start_s", true, 0, TRACE_SECONDS_MAX, &session->start_s);
    if (rc < 0 || session->start_known || sub_count == 0) {
        session->start_known = rc == 0;
        return rc;
    }
    session->start_known = true;
    session->sub_starts_s = calloc(sub_count, sizeof(double));
    if (session->sub_starts_s == NULL) {
        return -ENOMEM;
    }
    session->sub_count = (uint32_t)sub_count;
    for (size_t i = 0; i < sub_count && rc == 0; i++) {
        rc = number_get(loader, json_array_get(subs, i), "t", false, 0, TRACE_SECONDS_MAX,
                        &session->sub_starts_s[i]);
    }
    return rc;
}

/* Requests of a session or of one of its sub-agents (base_s: when that began). */
static int requests_add(struct trace_loader *loader, const json_t *requests, uint32_t session,
                        uint32_t sub, double base_s)
{
    for (size_t i = 0; i < json_array_size(requests); i++) {
        const json_t *const object = json_array_get(requests, i);
        struct trace_request request = {.run_first = loader->trace.run_count};

        if (json_object_get(object, "requests") != NULL) {
            continue; /* a sub-agent: it has a branch of its own */
        }
        loader->item++;
        int rc = branch_get(loader, session, sub, &request.branch);
        if (rc == 0) {
            rc = agentic_fields(loader, object, "api_time", &request);
        }
        if (rc == 0) {
            rc = ids_add(loader, &request, object);
        }
        if (rc == 0) {
            request.start_s += base_s;
            rc = request_add(loader, &request);
        }
        if (rc < 0) {
            return rc;
        }
    }
    return 0;
}

/* FNV-1a of the file's name, not of its folder: the same files get the same numbers anywhere. */
static uint64_t session_number(const char *path)
{
    const char *const slash = strrchr(path, '/');
    uint64_t hash = 0xcbf29ce484222325ull;

    for (const char *at = slash == NULL ? path : slash + 1; *at != '\0'; at++) {
        hash = (hash ^ (uint8_t)*at) * 0x100000001b3ull;
    }
    return hash;
}

int trace_parse_session(struct trace_loader *loader, const json_t *object)
{
    const json_t *const requests = json_object_get(object, "requests");
    const uint32_t before = loader->session_count;
    uint32_t block_tokens = 0, session = 0, sub = 0;

    loader->item = 0;
    if (!json_is_array(requests)) {
        return trace_fail(loader, "\"requests\" is not a list: this is not a recorded session");
    }
    int rc = whole_get(loader, object, "block_size", 1, TRACE_BLOCK_TOKENS_MAX, &block_tokens);
    if (rc < 0) {
        return rc;
    }
    if (loader->trace.block_tokens != 0 && loader->trace.block_tokens != block_tokens) {
        return trace_fail(loader, "its blocks have %u tokens, those before %u: replay them apart",
                          block_tokens, loader->trace.block_tokens);
    }
    loader->trace.block_tokens = block_tokens;
    rc = session_get(loader, session_number(loader->path), &session);
    if (rc == 0 && loader->session_count == before) {
        return trace_fail(loader, "two files stand for one session: give each once");
    }
    if (rc == 0) {
        rc = requests_add(loader, requests, session, 0, 0);
    }
    for (size_t i = 0; i < json_array_size(requests) && rc == 0; i++) {
        const json_t *const child = json_array_get(requests, i);
        const json_t *const nested = json_object_get(child, "requests");
        double base_s = 0;

        if (nested != NULL) {
            rc = number_get(loader, child, "t", true, 0, TRACE_SECONDS_MAX, &base_s);
            rc = rc < 0 ? rc : requests_add(loader, nested, session, ++sub, base_s);
        }
    }
    return rc;
}
