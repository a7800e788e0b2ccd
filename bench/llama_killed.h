/*
 * llama_killed.h - what is lost when a process is killed with -9 while it saves a turn.
 *
 * Another process of this program takes a conversation from a file, goes on turn by turn, and keeps it
 * after each turn, with llama.cpp's file or with abode. It says what was acknowledged and when it saves;
 * it is killed somewhere in a save. What can be restored afterwards is compared with what had been
 * acknowledged. llama.cpp's file is tried by a third process: of a torn one, llama.cpp ends it.
 */
#ifndef BENCH_LLAMA_KILLED_H
#define BENCH_LLAMA_KILLED_H

#include "llama_rig.h"

enum llama_keeper { LLAMA_KEEPER_FILE, LLAMA_KEEPER_ABODE };
struct llama_killed_plan {
    enum llama_keeper keeper;
    const char *model;
    const char *state;           /* file that the conversation starts from */
    char place[BENCH_PATH_MAX];  /* file to save to, or directory of a store */
    uint32_t tokens, tokens_max; /* of the conversation; of the rig's context */
    uint64_t bytes;              /* of its state */
    uint32_t seed;               /* of the moment */
};
/* Kills once. The rig has the same model and context, and no store open; its sequence is used. */
BENCH_MUST_CHECK int llama_killed(const struct llama_killed_plan *plan, struct llama_rig *rig,
                                  uint32_t *ret_tokens_acknowledged, uint32_t *ret_tokens_there);
/* The other process: true if this is one (its main ends with *ret_status). */
bool llama_keeper_main(int argc, char **argv, int *ret_status);

#endif
