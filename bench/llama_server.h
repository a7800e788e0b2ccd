/*
 * llama_server.h - an unchanged llama-server as a rival: its host-memory prompt cache. It is another
 * process and talks HTTP, so its times hold the request and its answer (a conversation is sent whole,
 * as token ids), which is what a client of it sees.
 *
 * One slot. A conversation that returns finds another one there: its own is in the prompt cache.
 */
#ifndef BENCH_LLAMA_SERVER_H
#define BENCH_LLAMA_SERVER_H

#include <sys/types.h>

#include "bench_common.h"

struct llama_server {
    pid_t process; /* 0: none */
    int port;
};

struct llama_server_plan {
    const char *program, *model;
    const char *folder;      /* of slot files */
    uint32_t context_tokens; /* and memory for its prompt cache: */
    uint64_t cache_bytes;
    bool whole_window; /* sliding-window layers are kept whole (--swa-full) */
};
/* Started and ready. -ENOENT: there is no such program; -ETIMEDOUT, -EIO: it does not come up. */
BENCH_MUST_CHECK int llama_server_start(const struct llama_server_plan *plan,
                                        struct llama_server *ret);
void llama_server_stop(struct llama_server *server); /* none: nothing */
/* The slot from a file of its folder (llama_state_seq_save_file). */
BENCH_MUST_CHECK int llama_server_slot(const struct llama_server *server, const char *file);
/* A prompt, one token of an answer: how many tokens it had to compute. */
BENCH_MUST_CHECK int llama_server_ask(const struct llama_server *server, const int32_t *tokens,
                                      uint32_t count, uint32_t *ret_computed);

#endif
