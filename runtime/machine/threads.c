/*
 * threads.c - one way to start a thread. See threads.h.
 *
 *   starter                         thread
 *   block signals, thread_start --> setaffinity, name, poison
 *   wait for `ready`            <-- post `ready`
 *   unblock signals                 run(argument)
 *
 * The starter waits until the thread has bound itself, so that whatever the thread touches first
 * is touched from the right CPUs, and so that ab_thread_bound() has an answer at once. The signal
 * mask is inherited, so there is no instant at which a host's signal could land on our thread.
 */
#include "machine/threads.h"

#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdio.h>

#define NAME_BYTES_MAX 16 /* Linux: comm, with its end */

struct ab_thread {
    const struct ab_os *os;
    void (*run)(void *argument);
    void *argument;
    struct ab_poison *poison;
    unsigned long handle; /* pthread_t, as the os table gives it */
    sem_t ready;          /* posted once by the thread; orders `bound` before the starter's read */
    bool bind;            /* wanted */
    bool bound;           /* got */
    char name[NAME_BYTES_MAX];
    cpu_set_t cpus;
};

static void *thread_main(void *argument)
{
    struct ab_thread *thread = argument;
    if (thread->bind) {
        thread->bound =
            thread->os->setaffinity(thread->os, sizeof(thread->cpus), &thread->cpus) == 0;
    }
    (void)pthread_setname_np(pthread_self(), thread->name); /* only for people's eyes */
    struct ab_poison *previous = ab_poison_enter(thread->poison);
    (void)sem_post(&thread->ready);
    thread->run(thread->argument);
    (void)ab_poison_enter(previous);
    return NULL;
}

/* Faults must reach the host's handlers: with SIGSEGV blocked the kernel kills without asking. */
static void block_signals(sigset_t *ret_previous)
{
    static const int faults[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGSYS};
    sigset_t blocked;
    (void)sigfillset(&blocked);
    for (size_t i = 0; i < sizeof(faults) / sizeof(faults[0]); i++) {
        (void)sigdelset(&blocked, faults[i]);
    }
    (void)pthread_sigmask(SIG_SETMASK, &blocked, ret_previous);
}

/* The CPUs to bind to: the node's own or, for memory without CPUs, those of the nearest node. */
static bool thread_cpus(const struct ab_topology *topology, int32_t node, cpu_set_t *ret)
{
    if (node < 0 || !ab_topology_is_machine(topology)) {
        return false;
    }
    const struct ab_node *home = ab_topology_node(topology, (uint32_t)node);
    if (home->cpu_node < 0) {
        return false;
    }
    *ret = ab_topology_node(topology, (uint32_t)home->cpu_node)->cpus;
    return true;
}

int ab_thread_start(const struct ab_os *os, const struct ab_topology *topology, int32_t node,
                    const char *name, struct ab_poison *poison, void (*run)(void *argument),
                    void *argument, struct ab_thread **ret)
{
    if (node >= 0 && (uint32_t)node >= ab_topology_node_count(topology)) {
        return -EINVAL;
    }
    struct ab_thread *thread = os->alloc(os, sizeof(*thread), _Alignof(struct ab_thread));
    if (thread == NULL) {
        return -ENOMEM;
    }
    thread->os = os;
    thread->run = run;
    thread->argument = argument;
    thread->poison = poison;
    thread->bind = thread_cpus(topology, node, &thread->cpus);
    (void)snprintf(thread->name, sizeof(thread->name), "%s", name); /* cut on purpose */
    (void)sem_init(&thread->ready, 0, 0);
    sigset_t previous;
    block_signals(&previous);
    const int result = os->thread_start(os, thread_main, thread, &thread->handle);
    if (result == 0) {
        /* Signals are still blocked, so the only cause of a failure would be a broken semaphore. */
        while (sem_wait(&thread->ready) != 0) {
            AB_ASSERT(errno == EINTR);
        }
    }
    (void)pthread_sigmask(SIG_SETMASK, &previous, NULL);
    if (result < 0) {
        (void)sem_destroy(&thread->ready);
        os->free(os, thread);
        return result;
    }
    *ret = thread;
    return 0;
}

void ab_thread_join(struct ab_thread *thread)
{
    (void)pthread_join((pthread_t)thread->handle, NULL);
    (void)sem_destroy(&thread->ready);
    thread->os->free(thread->os, thread);
}

bool ab_thread_bound(const struct ab_thread *thread)
{
    return thread->bound;
}
