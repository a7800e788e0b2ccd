/*
 * check.h - assertions in three levels, and what happens when a promise of ours is broken.
 *
 *   AB_ASSERT        cheap; stays in release builds; control plane
 *   AB_ASSERT_DEBUG  hot paths; only with -DAB_DEBUG (make DEBUG=1, the sanitizer builds)
 *   AB_ASSERT_FULL   whole-structure checks; only with -DAB_DEBUG, called from tests
 *
 * abode never aborts its host. A failed assertion marks the runtime that this thread is working for
 * as poisoned; from then on every public call answers -ENOTRECOVERABLE and nothing more is written.
 * With AB_DEBUG it aborts instead, so that tests stop at the place. The thread-local pointer is the
 * library's only global: it is set for the length of a public call or of a service thread's life.
 */
#ifndef AB_BASE_CHECK_H
#define AB_BASE_CHECK_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct ab_poison {
    _Atomic(const char *) where;   /* "file:line: condition" of the first broken promise, or NULL */
    const volatile uint32_t *home; /* a word that is 0 in a child of fork() only; NULL: not known */
};

/* A copy made by fork(): no service thread came along, locks may be held for ever, and the store is
 * the parent's. */
static inline bool ab_forked(const struct ab_poison *poison)
{
    return poison->home != NULL && *poison->home == 0;
}

static inline bool ab_poisoned(const struct ab_poison *poison)
{
    return atomic_load_explicit(&poison->where, memory_order_relaxed) != NULL;
}

/* Whom this thread works for; returns the previous one, to be put back. NULL: nobody. */
struct ab_poison *ab_poison_enter(struct ab_poison *poison);

/* Not to be called but by the macros. `where` is static. */
void ab_assert_failed(const char *where);

#define AB_STRING_(x) #x
#define AB_STRING(x) AB_STRING_(x)
#define AB_ASSERT(condition)            \
    (__builtin_expect(!!(condition), 1) \
         ? (void)0                      \
         : ab_assert_failed(__FILE__ ":" AB_STRING(__LINE__) ": " #condition))
#ifdef AB_DEBUG
#define AB_ASSERT_DEBUG(condition) AB_ASSERT(condition)
#define AB_ASSERT_FULL(condition) AB_ASSERT(condition)
#else
#define AB_ASSERT_DEBUG(condition) ((void)sizeof((condition) ? 1 : 0))
#define AB_ASSERT_FULL(condition) ((void)sizeof((condition) ? 1 : 0))
#endif

#define AB_MUST_CHECK __attribute__((warn_unused_result))
#define AB_PRINTF(text, first) __attribute__((format(printf, text, first)))

#endif
