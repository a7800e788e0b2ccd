/*
 * llama_host.h - a small host of llama.cpp for the bridge's tests: one model, one context, one
 * store. Everything that fails ends the program with a message: a test that cannot be run has failed.
 *
 * Talks: tokens that a person would type are pseudo-random; answers are the likeliest tokens. Every
 * row of logits goes into a digest, so that two runs can be compared bit for bit.
 */
#ifndef LLAMA_HOST_H
#define LLAMA_HOST_H

#include <stdbool.h>

#include "abode_llama.h"

#define LLAMA_HOST_TOKENS_MAX 8192u

struct llama_host_opts {
    const char *model;
    const char *store; /* NULL: no bridge */
    enum ggml_type type_k, type_v;
    bool flash_attention;
    bool split_streams; /* not kv_unified */
    uint32_t context_tokens, sequences;
    uint32_t flags; /* of the bridge */
    float rope_freq_base;
    uint64_t memory_bytes, store_bytes;
};
struct llama_host {
    struct llama_model *model;
    struct llama_context *context;
    struct llama_context_params params;
    struct abode *runtime;
    struct abode_llama *bridge;
    int32_t vocabulary;
};
struct llama_talk { /* of one sequence */
    llama_token tokens[LLAMA_HOST_TOKENS_MAX];
    uint32_t count;
    uint64_t digest; /* of all logits so far */
};

/* A status of the bridge in *ret_status instead of an end, where that is not NULL. */
void llama_host_open(const struct llama_host_opts *opts, struct llama_host *ret, int *ret_status);
void llama_host_close(struct llama_host *host);
/* One batch: tokens into the sequence; digest of the last one's logits. */
void llama_host_say(struct llama_host *host, llama_seq_id sequence, struct llama_talk *talk,
                    const llama_token *tokens, uint32_t count);
/* The likeliest token, `count` times, one by one. */
void llama_host_answer(struct llama_host *host, llama_seq_id sequence, struct llama_talk *talk,
                       uint32_t count);
/* What a person types in a turn of a talk: the same in every run. */
void llama_host_prompt(const struct llama_host *host, uint32_t talk, uint32_t turn,
                       llama_token *ret_tokens, uint32_t count);
void llama_host_forget(struct llama_host *host, llama_seq_id sequence);
struct abode_llama_name llama_host_name(uint32_t talk, char text[32]);

/* Counting: check() says what failed; the last line of a program is llama_host_count(). */
bool llama_host_check(bool good, const char *format, ...) __attribute__((format(printf, 2, 3)));
int llama_host_count(void);
void llama_host_end(const char *format, ...) __attribute__((format(printf, 1, 2), noreturn));
void llama_host_directory(char ret_path[64]);
void llama_host_directory_remove(const char *path);

#endif
