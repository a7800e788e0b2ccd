/*
 * trace_internal.h - what trace.c (files, order, branches) and trace_parse.c (one JSON object) share.
 */
#ifndef CLI_TRACE_INTERNAL_H
#define CLI_TRACE_INTERNAL_H

#include "trace.h"

#include <jansson.h>

struct trace_map { /* uint64_t -> uint32_t, open addressing; key 0 is allowed */
    uint64_t *keys;
    uint32_t *values;  /* TRACE_NONE: free place */
    uint32_t capacity; /* power of two */
    uint32_t count;
};
int trace_map_init(struct trace_map *map) __attribute__((warn_unused_result));
void trace_map_free(struct trace_map *map);
uint32_t trace_map_get(const struct trace_map *map, uint64_t key); /* TRACE_NONE: not there */
int trace_map_put(struct trace_map *map, uint64_t key, uint32_t value)
    __attribute__((warn_unused_result)); /* -ENOMEM */

struct trace_session {
    double start_s;
    bool start_known;
    double *sub_starts_s; /* when each sub-agent began, since the session's start */
    uint32_t sub_count;
    uint64_t id;
};

struct trace_loader {
    struct trace trace;
    struct trace_error *error;
    const char *path;
    uint32_t line; /* of the file; 0: it has no lines to speak of */
    uint32_t item; /* request of a recorded session, from 1; 0: none */
    uint32_t request_capacity, run_capacity, branch_capacity;
    struct trace_map session_index; /* recorded session number -> index in sessions */
    struct trace_map branch_index;  /* session index << 32 | sub + 1 -> branch */
    struct trace_session *sessions;
    uint32_t session_count, session_capacity;
    uint32_t *branch_sessions; /* branch -> index in sessions */
    uint32_t *branch_subs;     /* branch -> sub + 1, 0: the session itself */
};

/* Writes "PATH:LINE: text", or "PATH: request ITEM: text"; -EINVAL. */
int trace_fail(struct trace_loader *loader, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* One JSON object of each kind, appended to the loader's trace. 0 or negative, error written. */
int trace_parse_conversation(struct trace_loader *loader, const json_t *object);
int trace_parse_agentic(struct trace_loader *loader, const json_t *object);
int trace_parse_session(struct trace_loader *loader, const json_t *object);
int trace_parse_meta(struct trace_loader *loader, const json_t *object);

/* trace_order.c: puts requests in order of time, finds the branches of conversations, links them. */
int trace_order(struct trace_loader *loader) __attribute__((warn_unused_result));

#endif
