/*
 * lock.c - ranked mutexes over pthread's.
 *
 * pthread's adaptive kind spins for less than a section here takes, and a mutex goes to whoever
 * asks next, mostly the thread that just dropped it: a host that asks again and again (-EAGAIN) kept
 * the service out that would have helped it. So takers spin SPINS themselves and say that they wait,
 * and who comes while others wait lets them go first.
 *
 * With AB_DEBUG each thread keeps a list of the locks that it holds; a take that is not above all
 * of them stops the process with both names. A try cannot deadlock and is not checked against the
 * ranks, but what it got is on the list. Release builds carry neither list nor check.
 */
#include "base/lock.h"

#include <errno.h>
#include <sched.h>
#include <stddef.h>
#include <time.h>

#define NS_PER_S 1000000000
#define SPINS 500u /* 10 to 20 us with the try in it: a section of lock KV */

#ifdef AB_DEBUG
#include <stdio.h>

#define HELD_MAX 16

static _Thread_local struct {
    const struct ab_lock *locks[HELD_MAX];
    uint32_t count;
} held;

static void check_rank(const struct ab_lock *lock)
{
    for (uint32_t i = 0; i < held.count; i++) {
        if (held.locks[i]->rank >= lock->rank) {
            static _Thread_local char text[256]; /* outlives the call: the process ends here */
            (void)snprintf(text, sizeof(text), "lock rank: '%s' (%u) taken while holding '%s' (%u)",
                           lock->name, lock->rank, held.locks[i]->name, held.locks[i]->rank);
            ab_assert_failed(text);
        }
    }
}

static void note_taken(const struct ab_lock *lock)
{
    AB_ASSERT(held.count < HELD_MAX);
    held.locks[held.count++] = lock;
}

static void note_dropped(const struct ab_lock *lock)
{
    for (uint32_t i = held.count; i > 0; i--) {
        if (held.locks[i - 1] == lock) {
            held.locks[i - 1] = held.locks[--held.count];
            return;
        }
    }
    ab_assert_failed("a lock is dropped that this thread does not hold");
}

bool ab_lock_held(const struct ab_lock *lock)
{
    for (uint32_t i = 0; i < held.count; i++) {
        if (held.locks[i] == lock) {
            return true;
        }
    }
    return false;
}

bool ab_lock_none_held(void)
{
    return held.count == 0;
}
#else
static inline void check_rank(const struct ab_lock *lock)
{
    (void)lock;
}

static inline void note_taken(const struct ab_lock *lock)
{
    (void)lock;
}

static inline void note_dropped(const struct ab_lock *lock)
{
    (void)lock;
}

bool ab_lock_held(const struct ab_lock *lock)
{
    (void)lock;
    return true;
}

bool ab_lock_none_held(void)
{
    return true;
}
#endif

int ab_lock_init(struct ab_lock *lock, enum ab_lock_rank rank, const char *name)
{
    pthread_mutexattr_t attributes;
    int error = pthread_mutexattr_init(&attributes);
    if (error != 0) {
        return -error;
    }
    atomic_init(&lock->waiting, 0);
    error = pthread_mutexattr_settype(&attributes, PTHREAD_MUTEX_ADAPTIVE_NP);
    if (error == 0) {
        error = pthread_mutex_init(&lock->mutex, &attributes);
    }
    (void)pthread_mutexattr_destroy(&attributes);
    if (error != 0) {
        return -error;
    }
    lock->rank = (uint32_t)rank;
    lock->name = name;
    return 0;
}

void ab_lock_destroy(struct ab_lock *lock)
{
    const int error = pthread_mutex_destroy(&lock->mutex);
    AB_ASSERT(error == 0); /* EBUSY: somebody still holds it */
}

static inline void cpu_relax(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

static void take_waiting(struct ab_lock *lock)
{
    int error = EBUSY;
    /* relaxed: a hint for ab_lock_yield, the mutex orders everything else */
    atomic_fetch_add_explicit(&lock->waiting, 1, memory_order_relaxed);
    for (uint32_t i = 0; i < SPINS && error == EBUSY; i++) {
        cpu_relax();
        error = pthread_mutex_trylock(&lock->mutex);
    }
    if (error == EBUSY) {
        error = pthread_mutex_lock(&lock->mutex);
    }
    atomic_fetch_sub_explicit(&lock->waiting, 1, memory_order_relaxed);
    AB_ASSERT(error == 0);
}

/* Wait, for a bounded time, until one of those who wait for the lock has it. */
static void others_first(const struct ab_lock *lock, unsigned waiting)
{
    for (uint32_t i = 0; i < SPINS; i++) {
        if (atomic_load_explicit(&lock->waiting, memory_order_relaxed) < waiting) {
            return;
        }
        cpu_relax();
    }
    (void)sched_yield(); /* one that sleeps may need this CPU to come */
}

void ab_lock_take(struct ab_lock *lock)
{
    check_rank(lock);
    const unsigned waiting = atomic_load_explicit(&lock->waiting, memory_order_relaxed);
    if (waiting > 0) {
        others_first(lock, waiting);
    }
    if (pthread_mutex_trylock(&lock->mutex) != 0) {
        take_waiting(lock);
    }
    note_taken(lock);
}

bool ab_lock_try(struct ab_lock *lock)
{
    const int error = pthread_mutex_trylock(&lock->mutex);
    if (error != 0) {
        AB_ASSERT(error == EBUSY);
        return false;
    }
    note_taken(lock);
    return true;
}

void ab_lock_drop(struct ab_lock *lock)
{
    note_dropped(lock);
    const int error = pthread_mutex_unlock(&lock->mutex);
    AB_ASSERT(error == 0);
}

void ab_lock_yield(struct ab_lock *lock)
{
    if (atomic_load_explicit(&lock->waiting, memory_order_relaxed) > 0) {
        ab_lock_drop(lock);
        ab_lock_take(lock); /* behind them */
    }
}

int ab_cond_init(struct ab_cond *cond)
{
    pthread_condattr_t attributes;
    int error = pthread_condattr_init(&attributes);
    if (error != 0) {
        return -error;
    }
    error = pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    if (error == 0) {
        error = pthread_cond_init(&cond->cond, &attributes);
    }
    (void)pthread_condattr_destroy(&attributes);
    return -error;
}

void ab_cond_destroy(struct ab_cond *cond)
{
    const int error = pthread_cond_destroy(&cond->cond);
    AB_ASSERT(error == 0);
}

bool ab_cond_wait(struct ab_cond *cond, struct ab_lock *lock, int64_t wait_ns)
{
    struct timespec now;
    AB_ASSERT_DEBUG(ab_lock_held(lock));
    if (wait_ns <= 0 || clock_gettime(CLOCK_MONOTONIC, &now) != 0) {
        const int error = pthread_cond_wait(&cond->cond, &lock->mutex);
        AB_ASSERT(error == 0);
        return true;
    }
    const int64_t nsec = now.tv_nsec + wait_ns % NS_PER_S;
    const struct timespec deadline = {.tv_sec = now.tv_sec + wait_ns / NS_PER_S + nsec / NS_PER_S,
                                      .tv_nsec = nsec % NS_PER_S};
    const int error = pthread_cond_timedwait(&cond->cond, &lock->mutex, &deadline);
    AB_ASSERT(error == 0 || error == ETIMEDOUT);
    return error != ETIMEDOUT;
}

void ab_cond_signal(struct ab_cond *cond)
{
    (void)pthread_cond_signal(&cond->cond); /* cannot fail on an initialised one */
}

void ab_cond_broadcast(struct ab_cond *cond)
{
    (void)pthread_cond_broadcast(&cond->cond);
}
