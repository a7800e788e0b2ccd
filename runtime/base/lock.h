/*
 * lock.h - mutexes with ranks, and a condition variable on CLOCK_MONOTONIC.
 *
 * A thread may take a lock only if its rank is higher than that of every lock it holds. With
 * AB_DEBUG an inversion aborts through AB_ASSERT, naming both locks; in release the ranks cost
 * nothing. Who finds a lock taken spins for about the length of a section, then sleeps; a thread
 * that holds one again and again lets others in by ab_lock_yield(). The ranks are jemalloc's idea
 * (witness.h).
 */
#ifndef AB_BASE_LOCK_H
#define AB_BASE_LOCK_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/check.h"

enum ab_lock_rank {                      /* lower first */
                    AB_RANK_RUNTIME = 1, /* front: models, regions, queues being added or removed */
                    AB_RANK_KV,          /* sessions, blocks, index, frames */
                    AB_RANK_SERVICE,     /* inbox of a service thread */
                    AB_RANK_STORE,       /* segments and reservations */
                    AB_RANK_COMMIT,      /* inbox of the committer */
                    AB_RANK_QUEUE,       /* finished ops of one host queue */
                    AB_RANK_IO,          /* inside an I/O engine */
                    AB_RANK_LOG,
                    AB_RANK_COUNT,
};

struct ab_lock {
    pthread_mutex_t mutex;
    atomic_uint waiting; /* threads in ab_lock_take; written by them, read by the holder */
    uint32_t rank;
    const char *name; /* static */
};

int ab_lock_init(struct ab_lock *lock, enum ab_lock_rank rank, const char *name) AB_MUST_CHECK;
void ab_lock_destroy(struct ab_lock *lock);
void ab_lock_take(struct ab_lock *lock);
bool ab_lock_try(struct ab_lock *lock);
void ab_lock_drop(struct ab_lock *lock);
/* Between two sections: whoever waits for the lock has it before this returns, or is about to. */
void ab_lock_yield(struct ab_lock *lock);
bool ab_lock_held(const struct ab_lock *lock); /* by this thread; always true without AB_DEBUG */
bool ab_lock_none_held(void); /* before calling out; always true without AB_DEBUG */

struct ab_cond {
    pthread_cond_t cond;
};
int ab_cond_init(struct ab_cond *cond) AB_MUST_CHECK;
void ab_cond_destroy(struct ab_cond *cond);
/* At most this long, 0: without end. false: the time is over. How long, not until when: a time of
 * struct ab_os's clock need not be one of the kernel's. */
bool ab_cond_wait(struct ab_cond *cond, struct ab_lock *lock, int64_t wait_ns);
void ab_cond_signal(struct ab_cond *cond);
void ab_cond_broadcast(struct ab_cond *cond);

#endif
