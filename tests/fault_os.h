/*
 * fault_os.h - a `struct ab_os` for tests: counts every call, and breaks the ones a plan names.
 *
 *     struct fault_os fault;
 *     fault_os_init(&fault, NULL);                       NULL: over the real table
 *     fault_os_plan(&fault, (struct fault_plan){
 *         .call = AB_OS_PWRITE, .nth = 3, .kind = FAULT_ERROR, .error = ENOSPC, .sticky = true});
 *     ... give &fault.os to the code under test ...
 *     assert_int_equal(fault_os_strikes(&fault), 1);     the plan really happened
 *     fault_os_free(&fault);
 *
 * A plan counts the calls that it could strike, from the moment it is set: `nth` = 1 is the next
 * one. FAULT_ANY_CALL takes calls of every kind but AB_OS_CLOCK, which cannot fail. Walk through a
 * workload with nth = 1, 2, 3 ... until fault_os_strikes() stays 0: then every call has failed once.
 *
 * What each kind does to a call:
 *   FAULT_ERROR  the call is not made, its result is -error (alloc: NULL). But close does close,
 *                as Linux does, and ring_result replaces a result of the kernel.
 *   FAULT_SHORT  pread, pwrite, ring_result: half of the bytes, rounded to the block size that
 *                O_DIRECT wants. No other call counts for it.
 *   FAULT_DELAY  sleeps delay_ns, then makes the call
 *   FAULT_KILL   SIGKILL before the call: for a child process
 *   FAULT_TEAR   pwrite only: writes half, then SIGKILL
 *
 * Any thread may call through it; plans may be set and cleared at any time.
 */
#ifndef AB_TESTS_FAULT_OS_H
#define AB_TESTS_FAULT_OS_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/os.h"

#define FAULT_ANY_CALL AB_OS_CALL_COUNT
#define FAULT_PLANS_MAX 8

enum fault_kind { FAULT_ERROR = 1, FAULT_SHORT, FAULT_DELAY, FAULT_KILL, FAULT_TEAR };

struct fault_plan {
    enum ab_os_call call; /* or FAULT_ANY_CALL */
    enum fault_kind kind;
    uint64_t nth;      /* 1: the next call that this plan can strike; 0 is taken as 1 */
    int error;         /* FAULT_ERROR: positive errno */
    bool sticky;       /* strikes the nth and all later ones */
    uint64_t delay_ns; /* FAULT_DELAY */
};

struct fault_os {
    struct ab_os os; /* give its address to the code under test */
    const struct ab_os *inner;
    pthread_mutex_t mutex; /* guards all below */
    struct {
        struct fault_plan plan;
        uint64_t seen; /* calls that it could have struck */
    } plans[FAULT_PLANS_MAX];
    uint32_t plan_count;
    uint64_t strikes;
    uint64_t counts[AB_OS_CALL_COUNT];
    enum ab_os_call struck_last; /* AB_OS_CALL_COUNT: none yet */
    int64_t allocations_live;    /* alloc less free: 0 after a clean close */
    int64_t bytes_mapped;        /* mmap less munmap, whole pages: 0 after a clean close */
};

void fault_os_init(struct fault_os *fault, const struct ab_os *inner);
void fault_os_free(struct fault_os *fault);
/* Aborts the test when there are FAULT_PLANS_MAX plans already, or the plan can never strike. */
void fault_os_plan(struct fault_os *fault, struct fault_plan plan);
void fault_os_clear(struct fault_os *fault); /* all plans, and strikes; counts stay */

uint64_t fault_os_count(struct fault_os *fault, enum ab_os_call call); /* or FAULT_ANY_CALL */
uint64_t fault_os_strikes(struct fault_os *fault);
enum ab_os_call fault_os_struck(struct fault_os *fault); /* the last one, for messages */
int64_t fault_os_allocations(struct fault_os *fault);    /* not freed yet */
/* Bytes mapped and not given back yet; a munmap that a plan made fail counts as given back. */
int64_t fault_os_mapped(struct fault_os *fault);

#endif
