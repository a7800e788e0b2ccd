/*
 * parent.h - the side that lives on: starts workers, lets them come to work, kills them, looks at how
 * they ended. One worker_shared is one store's, from one life of the host to the next.
 */
#ifndef CRASH_PARENT_H
#define CRASH_PARENT_H

#include <sys/types.h>

#include "crash/worker.h"

struct life { /* one worker process */
    pid_t pid;
    bool ended;
    int status; /* of waitpid, once it has ended */
};

/* Shared memory with every oracle empty; NULL: none to be had. */
struct worker_shared *parent_shared_new(void);
void parent_shared_free(struct worker_shared *shared);

uint64_t parent_ms(void);
void parent_sleep_us(uint32_t microseconds);
/* A killed test leaves nobody behind who works on for ever: for the child. */
void parent_die_with(void);

/* The functions below print what is wrong after FAIL. */
bool life_start(struct worker_shared *shared, const struct worker_plan *plan, struct life *ret);
/* Until the phase is reached or the life has ended. false: neither happened (said; it is ended). */
bool life_wait(struct worker_shared *shared, struct life *life, uint32_t phase);
/* The same without a word, for at most limit_ms; false: not reached, and it lives. */
bool life_reaches(struct worker_shared *shared, struct life *life, uint32_t phase,
                  uint32_t limit_ms);
/* Kill what still lives. 0: it died of SIGKILL and had found nothing wrong; 1: not so (said). */
int life_kill(struct worker_shared *shared, struct life *life);
/* It must have ended, or end, by itself with this exit status, and nothing wrong. */
int life_exit(struct worker_shared *shared, struct life *life, int expected);
/* What must grow while the host gets anywhere: acknowledged detaches, puts, attaches. */
uint64_t life_progress(const struct worker_shared *shared);
/* The host gets somewhere, from now on. */
bool life_goes_on(struct worker_shared *shared, struct life *life);
/* One more life, not killed: verifies, closes, and opens once more what it closed. 0 or 1. */
int life_last(struct worker_shared *shared, const struct worker_plan *plan);
/* Sum over all host threads. */
struct worker_counts parent_counts(const struct worker_shared *shared);

#endif
