/*
 * threads.h - threads of ours, bound to a node's CPUs, signals blocked, named.
 */
#ifndef AB_MACHINE_THREADS_H
#define AB_MACHINE_THREADS_H

#include "machine/topology.h"

struct ab_thread;
/* node -1: not bound. name: at most 15 characters, shown by ps and top; more are cut off. A refused
 * binding is not an error: ab_thread_bound() tells, from the moment that this returns. No thread
 * is bound by the topology of another machine. poison: entered for the thread's life, may be NULL.
 * All signals are blocked but those that a fault raises in the thread itself. -EINVAL, -ENOMEM,
 * -EAGAIN (limit on threads). Any thread; the one that joins must not be the thread itself. */
int ab_thread_start(const struct ab_os *os, const struct ab_topology *topology, int32_t node,
                    const char *name, struct ab_poison *poison, void (*run)(void *argument),
                    void *argument, struct ab_thread **ret) AB_MUST_CHECK;
void ab_thread_join(struct ab_thread *thread); /* waits for run to return; frees it */
bool ab_thread_bound(const struct ab_thread *thread);

#endif
