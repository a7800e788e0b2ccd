/*
 * llama_rig.h - what bench_llama measures with: one model, one context of llama.cpp, one sequence, and
 * the ways to keep its state. Every call is 0 or negative; a rig that failed is closed.
 */
#ifndef BENCH_LLAMA_RIG_H
#define BENCH_LLAMA_RIG_H

#include "abode_llama.h"
#include "bench_common.h"

#define RIG_SLACK_TOKENS 512u /* of the context, past the longest conversation */

struct llama_rig {
    struct llama_model *model;
    struct llama_context *context;
    struct llama_context_params params;
    int32_t vocabulary;
    llama_token *tokens; /* tokens_max: what is typed */
    uint32_t tokens_max;
    unsigned char *state; /* sequence blob of state_tokens tokens */
    size_t state_size;
    uint32_t state_tokens;
    struct abode *runtime;
    struct abode_llama *bridge;
};

BENCH_MUST_CHECK int rig_open(const char *model_path, uint32_t tokens_max, struct llama_rig *ret);
void rig_close(struct llama_rig *rig);
/* A store in `directory`, with memory for `bytes` of state and room for some times that. */
BENCH_MUST_CHECK int rig_store_open(struct llama_rig *rig, const char *directory, uint64_t bytes);
int rig_store_close(struct llama_rig *rig);

/* Other tokens. State in the sequence or in rig->state stays: under other tokens it is another
 * conversation, of which nobody has kept a part yet. */
void rig_tokens_draw(struct llama_rig *rig, uint64_t seed);
void rig_forget(struct llama_rig *rig); /* the sequence is empty afterwards */
/* tokens[first .. first + count) into the sequence; logits of the last one. */
BENCH_MUST_CHECK int rig_decode(struct llama_rig *rig, uint32_t first, uint32_t count);
/* Digest of these logits. */
uint64_t rig_logits(const struct llama_rig *rig);
/* The sequence's blob becomes rig->state. */
BENCH_MUST_CHECK int rig_state_take(struct llama_rig *rig, uint32_t token_count);
/* rig->state becomes that of more tokens: the rows that it has, again and again. Attention only. */
BENCH_MUST_CHECK int rig_state_stretch(struct llama_rig *rig, uint32_t token_count);
BENCH_MUST_CHECK int rig_state_put(struct llama_rig *rig); /* into the sequence */
/* K and V of one token, all layers. */
uint64_t rig_token_bytes(const struct llama_rig *rig);

#endif
