/*
 * workload.h - the conversations of `abode demo`: who says how much, when, and with which model.
 *
 * A workload is a pure function of its seed and options: parent, killed child and recovering child
 * make it again and agree on every length. Lengths, turn counts and idle times are drawn from the
 * quantiles of public recordings (workload.c names them); only the width of the model (bytes per
 * token) is chosen, so that the state fits the memory and store that the demo may use.
 *
 *   time ->   turn 0: prefix | prompt | answer   idle   turn 1: prompt | answer   idle ...
 */
#ifndef WORKLOAD_H
#define WORKLOAD_H

#include <abode/abode.h>

#include <stdbool.h>
#include <stdint.h>

enum conversation_kind {
    CONVERSATION_CHAT = 0, /* a person asks, reads, asks again */
    CONVERSATION_AGENT,    /* a program that calls tools */
    CONVERSATION_PREFIX,   /* a system prompt that others fork from; no turns of its own */
};
enum workload_model {
    MODEL_HYBRID = 0, /* full and sliding-window attention, recurrent state, host bytes */
    MODEL_ATTENTION,  /* full attention only: prefixes are found by key */
    MODEL_COUNT,
};

struct turn {
    uint64_t due_ms;  /* of the workload's clock: when the prompt arrives */
    uint64_t idle_ms; /* how long the session will wait after it; 0: no further turn */
    uint32_t prompt_tokens;
    uint32_t answer_tokens;
    uint64_t token_count; /* of the session after this turn */
};
struct conversation {
    uint64_t seed;
    enum conversation_kind kind;
    enum workload_model model;
    bool ends;       /* is deleted after its last turn */
    uint32_t prefix; /* index of the conversation it starts from, WORKLOAD_NONE: none */
    uint32_t prefix_tokens;
    uint32_t turn_first; /* index in workload.turns */
    uint32_t turn_count;
};
struct workload_event { /* a turn, in the order of the workload's clock */
    uint32_t conversation;
    uint32_t turn; /* 0 .. turn_count - 1 */
};
#define WORKLOAD_NONE UINT32_MAX
struct workload {
    uint32_t session_count;      /* conversations that people and agents have */
    uint32_t conversation_count; /* with the prefixes, which come last */
    uint32_t turn_count;         /* of the session_count conversations */
    uint64_t span_ms;            /* of the workload's clock */
    uint64_t bytes_state;        /* all sessions after their last turn, shared rows once */
    uint64_t tokens_max;         /* longest session */
    struct conversation *conversations;
    struct turn *turns;
    struct workload_event *events; /* turn_count, sorted by due_ms */
    /* geometry */
    uint32_t plane_token_bytes;        /* of one plane, per token */
    uint64_t token_bytes[MODEL_COUNT]; /* of all PAGED planes, per token */
};

struct workload_options {
    uint64_t seed;
    uint32_t session_count;
    uint64_t state_bytes; /* choose the width so that the state comes to about this */
};
#define WORKLOAD_SESSIONS_MAX 100000
/* -ERANGE: even the narrowest model needs more than state_bytes. */
int workload_make(const struct workload_options *options, struct workload *ret)
    __attribute__((warn_unused_result));
void workload_free(struct workload *workload);

/* ---- the models ------------------------------------------------------------------------------ */
#define MODEL_BLOCK_TOKENS 128
#define MODEL_WINDOW_TOKENS 512
/* Recurrent state is kept so often along a long prompt, as hosts of such models do: window rows
 * behind the kept points are needed no more and give their frames back. */
#define MODEL_SNAPSHOT_STEP_TOKENS 2048
#define MODEL_COMPONENTS 4
enum hybrid_component { HYBRID_PAGED = 0, HYBRID_WINDOW, HYBRID_SNAPSHOT, HYBRID_BYTES };
#define HYBRID_BYTES_EXTRA 4096 /* sampler and grammar state, besides 4 bytes a token */
struct model_shape {            /* abode_model_desc with what it points to */
    struct abode_model_desc desc;
    struct abode_component components[MODEL_COMPONENTS];
    struct abode_plane row_planes[16]; /* of PAGED and WINDOW */
    struct abode_plane snapshot_planes[16];
};
/* Frames of each component of each model. */
struct memory_plan {
    uint64_t bytes[MODEL_COUNT][MODEL_COMPONENTS];
};
/* Share memory_bytes out so that in_flight sessions can be attached at once. -ENOMEM: too little. */
int workload_memory_plan(const struct workload *workload, uint64_t memory_bytes, uint32_t in_flight,
                         struct memory_plan *ret_plan) __attribute__((warn_unused_result));
/* All sessions that are not deleted, after their last turn; shared rows once. */
uint64_t workload_state_bytes(const struct workload *workload);
/* ret must not move afterwards. plan NULL: only the geometry is of interest. */
void model_shape_make(const struct workload *workload, enum workload_model model,
                      const struct memory_plan *plan, struct model_shape *ret);
uint32_t model_row_planes(enum workload_model model); /* of each PAGED and WINDOW component */
uint64_t workload_block_bytes_max(const struct workload *workload); /* largest block of all */

/* Seed of the bytes at a position: the prefix's below prefix_tokens, else the conversation's. */
uint64_t conversation_seed_at(const struct workload *workload, uint32_t conversation,
                              uint64_t position);
uint32_t conversation_token(const struct workload *workload, uint32_t conversation,
                            uint64_t position);
struct abode_key conversation_name(const struct workload *workload, uint32_t conversation);
const char *conversation_kind_name(enum conversation_kind kind);
/* The turn whose end has this many tokens, as a count of turns done; negative: none has. */
int64_t conversation_turns_done(const struct workload *workload, uint32_t conversation,
                                uint64_t token_count);

#endif
