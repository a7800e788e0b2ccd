/*
 * threads.h - threads of ours, bound to a node's CPUs, all signals blocked, named.
 */
#ifndef AB_MACHINE_THREADS_H
#define AB_MACHINE_THREADS_H

#include "machine/topology.h"

struct ab_thread;
/* node -1: not bound. name: at most 15 characters, shown by ps and top. A refused binding is not an
 * error: ab_thread_bound() tells. poison: entered for the thread's life, may be NULL. */
int ab_thread_start(const struct ab_os *os, const struct ab_topology *topology, int32_t node,
                    const char *name, struct ab_poison *poison, void (*run)(void *argument),
                    void *argument, struct ab_thread **ret) AB_MUST_CHECK;
void ab_thread_join(struct ab_thread *thread); /* frees it */
bool ab_thread_bound(const struct ab_thread *thread);

#endif
