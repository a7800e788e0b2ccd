/*
 * trace.h - recorded workloads: which request asked for which blocks of tokens, and when.
 *
 * Four formats are told apart by their first line:
 *
 *   conversation     one JSON object a line, as published with the Mooncake paper:
 *                    {"timestamp": ms, "input_length", "output_length", "hash_ids": [..]}
 *                    blocks of 512 tokens, ids are global; the last block may be partly filled
 *   agentic          one JSON object a line, a request each, ids of a session as ranges:
 *                    {"s","sub","t","in","out","api","stop","h":[[a,b),..]}, blocks of 64 tokens;
 *                    a file ..meta.jsonl beside ..sessions.jsonl tells when each session began
 *   agentic session  one JSON object a file, as published by kv-cache-tester: {"id","block_size",
 *                    "requests":[{"t","in","out","hash_ids",..} | {"type":"subagent","t",
 *                    "requests":[..]}]}
 *   agentic folder   a directory of such files
 *
 * All become one list of requests in order of time. A branch is a line of requests that go on from
 * one another: (session, sub-agent) of an agentic trace; for conversations it is found by prefix:
 * a request whose leading blocks are all whole blocks of an earlier request goes on from it.
 *
 *   request r: |-- id 0 --|-- id 1 --| .. |-- id n-1 --|~ tail ~|      whole = blocks that are full
 *              0          T          2T                        tokens_in   T = block_tokens
 *
 * Files are hostile input: every number has a bound below, every failure names file and line and
 * says what to do. Not thread-safe; a loaded trace is read-only.
 */
#ifndef CLI_TRACE_H
#define CLI_TRACE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define TRACE_NONE UINT32_MAX
#define TRACE_FILE_BYTES_MAX (1ull << 30)
#define TRACE_REQUESTS_MAX (1u << 24)
#define TRACE_RUNS_MAX (1u << 26)
#define TRACE_BLOCKS_MAX (1u << 20) /* of one request */
#define TRACE_TOKENS_MAX (1u << 24) /* of one request */
#define TRACE_ID_MAX (1ull << 48)
#define TRACE_SECONDS_MAX 1e9
#define TRACE_SUB_MAX (1u << 20)
#define TRACE_BLOCK_TOKENS_MAX 65536
#define TRACE_DAY_S 86400.0

enum trace_format {
    TRACE_CONVERSATION = 1,
    TRACE_AGENTIC,
    TRACE_AGENTIC_SESSION,
};
enum trace_stop { TRACE_STOP_UNKNOWN = 0, TRACE_STOP_TOOL, TRACE_STOP_TURN };

struct trace_run { /* ids first, first + 1, .. */
    uint64_t first;
    uint32_t count;
};

struct trace_request {
    double start_s; /* since the trace began */
    double busy_s;  /* how long the model worked on it; 0: not recorded */
    uint32_t branch;
    uint32_t tokens_in;
    uint32_t tokens_out;
    uint32_t run_first; /* index in trace.runs */
    uint32_t run_count;
    uint32_t block_count; /* ids */
    uint32_t whole_count; /* ids whose block is full: tokens_in / block_tokens at most */
    uint32_t next;        /* next request of the branch, TRACE_NONE: the last */
    uint32_t previous;    /* the one before, TRACE_NONE: the first */
    uint32_t line;        /* in its file; of a recorded session: its number in the file */
    uint8_t stop;         /* enum trace_stop */
};

struct trace {
    enum trace_format format;
    uint32_t block_tokens;
    struct trace_request *requests; /* in order of start_s */
    uint32_t request_count;
    struct trace_run *runs;
    uint32_t run_count;
    uint64_t *scopes; /* of each branch: ids of two scopes never mean the same block */
    uint32_t branch_count;
    uint32_t session_count; /* agentic: recorded sessions; conversation: 0 */
    bool starts_drawn;      /* when sessions began is not recorded: spread over a day by id */
};

struct trace_error {
    char text[1024]; /* "FILE:LINE: what is wrong: what to do" */
};

/* 0, or negative with ret_error filled (-EINVAL: not a trace; else the errno of the file). */
int trace_load(const char *path, struct trace *ret_trace, struct trace_error *ret_error)
    __attribute__((warn_unused_result));
void trace_free(struct trace *trace);

/* Leading ids that two requests share; 0 where their scopes differ. */
uint32_t trace_prefix(const struct trace *trace, uint32_t left, uint32_t right);

/* Name of block `index` of a request, unique in the whole trace; index < block_count. */
uint64_t trace_identity(const struct trace *trace, uint32_t request, uint32_t index);
/* The same for all blocks of a request; `ret` has room for block_count. */
void trace_identities(const struct trace *trace, uint32_t request, uint64_t *ret);

const char *trace_format_name(enum trace_format format);

#endif
