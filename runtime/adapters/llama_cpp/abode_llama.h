/*
 * abode_llama.h - sequences of llama.cpp kept by abode: saved when they go idle, found again after
 * a restart, forked, cut short, deleted.
 *
 * A sequence is saved under a name with the ids of its tokens. What was saved before under that
 * name and is still the same (the tokens say so) is not written again. A restored sequence is the
 * same bytes in the same order of cells; logits that follow are the same bits where llama.cpp's own
 * sums do not depend on the place of cells (one generation thread).
 *
 * What a context keeps is read off its own sequence blob (blob.h):
 *   attention  K and V of all layers: PAGED, with the token ids as plane 0
 *   window     the sliding-window layers: WINDOW
 *   recurrent  SNAPSHOT
 *   unknown    PAGED token ids, the whole blob as BYTES (abode_llama_layout() says "whole")
 * Restore points are the ends of saves: the newest ABODE_LLAMA_POINTS where there is a window or
 * recurrent state, any token where there is not.
 *
 * State is found only by a context that gives the same meaning to it: the same weights, build of
 * llama.cpp, layout of cells, types of K and V, flash attention, RoPE and what else the caller puts
 * into `extra`. For another one it is a miss, and abode_llama_reason() tells what differs.
 *
 * Results are 0 or a count, or negative: codes of abode.h; a miss is -ENOENT. One thread at a time
 * uses a bridge, and nothing else its context meanwhile. One bridge a runtime.
 */
#ifndef ABODE_LLAMA_H
#define ABODE_LLAMA_H

#include <abode/abode.h>
#include <llama.h>

#ifdef __cplusplus
extern "C" {
#endif

#define ABODE_LLAMA_POINTS 2

enum abode_llama_flags {
    ABODE_LLAMA_WHOLE = 1u << 0,   /* take the layout as unknown */
    ABODE_LLAMA_PRIVATE = 1u << 1, /* do not look for rows that other names hold: saves a hash */
};
struct abode_llama_opts {
    uint32_t struct_size;
    uint32_t flags; /* enum abode_llama_flags */
    struct abode *runtime;
    struct llama_context *context;
    const struct llama_context_params *params; /* that the context was made with */
    const char *weights_path; /* the model's first file: its size and samples of it are hashed */
    const uint8_t
        *weights_digest; /* 32 bytes that stand for the weights; NULL: weights_path does */
    const void *extra;   /* whatever else changes state: LoRA adapters, control vectors */
    size_t extra_size;
    int32_t probe_sequence; /* emptied at open: one token is decoded there to learn the layout */
    const void *example;    /* NULL, or the blob of any sequence with cells: nothing is decoded */
    size_t example_size;
    uint32_t block_tokens;    /* 0: by size */
    uint64_t whole_bytes_max; /* unknown layout: largest blob; 0: by context and memory */
};
struct abode_llama;
int abode_llama_open(const struct abode_llama_opts *opts, struct abode_llama **ret);
/* NULL is nothing. The runtime stays open. -EBUSY with ops in flight. */
int abode_llama_close(struct abode_llama *bridge);
/* Why the last call on this bridge (or, with NULL, the last failed open of this thread) did not do
 * what was asked, in one line; "" if it did. Valid until the next call. */
const char *abode_llama_reason(const struct abode_llama *bridge);
/* "attention", "attention + window", ..., or "whole: ..." with the reason. */
const char *abode_llama_layout(const struct abode_llama *bridge);

struct abode_llama_name { /* of a conversation: any bytes */
    const void *bytes;
    size_t size;
};
struct abode_llama_saved {
    uint32_t tokens_kept; /* were there already, under this name or another */
    uint32_t tokens_added;
    uint64_t bytes_added; /* state of these, and state that is valid at one position */
};
/* Keep a sequence. tokens: the ids of all its cells, by position. The sequence stays as it is.
 * Finishes with the promise of the runtime's config (durable, if it says nothing). Where the tokens
 * part from those that the name holds, what follows there goes first: a save that fails then leaves
 * what both have in common (of another conversation nothing). -EINVAL the sequence does not hold
 * these tokens; -ENOTSUP its cells are such as cannot be kept. */
int abode_llama_save(struct abode_llama *bridge, llama_seq_id sequence,
                     struct abode_llama_name name, const llama_token *tokens, uint32_t token_count,
                     struct abode_llama_saved *ret_saved);
/* The same in two steps. begin returns when the state is in abode's memory: the context may compute,
 * and write over the sequence, while it goes to the store. The promise holds when end has returned 0.
 * One save a bridge is under way at a time: the next begin or save, a call for the same name, one that
 * finds no memory, and close wait for it, and how it ended is kept for the next end. end: 0, also with
 * no save begun, or how the first one failed since the last end; what it could not keep is as after a
 * save that failed. Call end before close. */
int abode_llama_save_begin(struct abode_llama *bridge, llama_seq_id sequence,
                           struct abode_llama_name name, const llama_token *tokens,
                           uint32_t token_count, struct abode_llama_saved *ret_saved);
int abode_llama_save_end(struct abode_llama *bridge);
/* Bring it back into `sequence`, which is emptied first. Returns its number of tokens, their ids in
 * ret_tokens (-ENOBUFS: more than capacity). Where stored attention was found damaged, the part
 * before it comes back, with a reason. -ENOENT a miss: the sequence is empty, the conversation goes
 * on by recomputing. */
int abode_llama_restore(struct abode_llama *bridge, llama_seq_id sequence,
                        struct abode_llama_name name, llama_token *ret_tokens, uint32_t capacity);
/* How many tokens a name holds, without bringing them back; -ENOENT. */
int abode_llama_tokens(struct abode_llama *bridge, struct abode_llama_name name);
/* A second name for the first token_count tokens, a restore point; rows are shared. -EEXIST. */
int abode_llama_fork(struct abode_llama *bridge, struct abode_llama_name name, uint32_t token_count,
                     struct abode_llama_name child);
/* Forget tokens from token_count on, a restore point (-EINVAL). */
int abode_llama_truncate(struct abode_llama *bridge, struct abode_llama_name name,
                         uint32_t token_count);
int abode_llama_delete(struct abode_llama *bridge, struct abode_llama_name name); /* -ENOENT */

#ifdef __cplusplus
}
#endif
#endif
