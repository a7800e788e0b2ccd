/*
 * check.c - what a failed assertion does: poison the runtime that this thread works for.
 *
 * The first broken promise wins: later ones are most likely its consequences. A thread that works
 * for nobody (a test of one module, a leaf called before open) has nothing to poison; the failure
 * is then only seen in AB_DEBUG builds, which stop at the place.
 */
#include "base/check.h"

#ifdef AB_DEBUG
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#endif

static _Thread_local struct ab_poison *working_for;

struct ab_poison *ab_poison_enter(struct ab_poison *poison)
{
    struct ab_poison *previous = working_for;
    working_for = poison;
    return previous;
}

#ifdef AB_DEBUG
/* write(2) alone: the heap and stdio may be what is broken. A lost line is no reason to go on. */
static void say_line(const char *text)
{
    static const char head[] = "abode: broken promise: ";
    if (write(STDERR_FILENO, head, sizeof(head) - 1) < 0 ||
        write(STDERR_FILENO, text, strlen(text)) < 0 || write(STDERR_FILENO, "\n", 1) < 0) {
        return;
    }
}
#endif

void ab_assert_failed(const char *where)
{
#ifdef AB_DEBUG
    say_line(where);
    abort();
#else
    if (working_for != NULL) {
        const char *nobody = NULL;
        /* Relaxed: the text is static, nothing else is published with it. */
        (void)atomic_compare_exchange_strong_explicit(&working_for->where, &nobody, where,
                                                      memory_order_relaxed, memory_order_relaxed);
    }
#endif
}
