/*
 * llama_cells.h - what bench_llama measured of one model, by length of the conversation, and how it is
 * told: a table for people, lines for the scorecard.
 */
#ifndef BENCH_LLAMA_CELLS_H
#define BENCH_LLAMA_CELLS_H

#include "bench_common.h"
#include "fio.h"
#include "llama_rig.h"
#include "llama_server.h"

#define LENGTHS 3u
#define KILLS 5u
#define KILL_LENGTH 1u /* of llama_lengths[] */
#define REASON_BYTES 160

extern const uint32_t llama_lengths[LENGTHS];
extern const char *const llama_length_names[LENGTHS];

enum way { RECOMPUTE, FILE_COLD, FILE_HOT, SERVER, ABODE_MEMORY, ABODE_DISK, WAYS };

struct cell { /* one length; series are in seconds where they do not say bytes */
    uint32_t tokens;
    uint64_t state_bytes;
    struct bench_series back[WAYS]; /* to the next token */
    struct bench_series load[WAYS]; /* of these, until the state was in the context */
    struct bench_series device;     /* reading as many bytes */
    struct bench_series lookup;     /* two that miss */
    struct bench_series file_save, file_durable, abode_save;
    struct bench_series abode_begin,
        abode_cost; /* of abode_save: begin: until the host may go on */
    struct bench_series file_turn_unsynced, file_turn, abode_turn;
    struct bench_series file_turn_bytes, abode_turn_bytes, turn_bytes_new;
    char not_run[WAYS][REASON_BYTES];
    uint32_t logits_compared, logits_differ;
};
struct subject {
    const char *id, *file;
    bool window;
    const struct bench_run *run;
    struct llama_rig rig;
    struct llama_server server;
    struct fio_plan device;
    char model[BENCH_PATH_MAX], folder[BENCH_PATH_MAX], store[BENCH_PATH_MAX + 16];
    char state_file[BENCH_PATH_MAX + 16];
    struct cell cells[LENGTHS];
    uint32_t length_count;
    bool counted; /* not a warmup round */
    uint64_t logits;
    uint64_t talks;             /* begun so far: none shares a token with another */
    llama_token *server_tokens; /* what its conversation is made of */
    uint32_t lost[2][KILLS], acknowledged[2][KILLS], kills; /* tokens, by enum llama_keeper */
};

void llama_table_say(const struct subject *subject);
void llama_killed_say(const struct subject *subject);
/* Was H3.lost of this model asked for? */
bool llama_lost_wanted(const struct subject *subject);
/* Share of acknowledged tokens that a kill took: abode's. */
BENCH_MUST_CHECK int llama_lost_report(const struct subject *subject);
BENCH_MUST_CHECK int llama_length_report(const struct subject *subject, uint32_t length);

#endif
