/*
 * sweep_workload.h - the one workload along which test_every_syscall breaks calls.
 *
 * Three lives of one store in one process. In the first two, which a fault plan watches, every face
 * of abode.h is used: sessions with all four kinds of state, forks, cuts, spills and restores, cache
 * items, reports. In the third nothing fails any more, and everything must be there.
 *
 * What the store may hold is told by the rows of versions of crash/oracle.h. A call that a fault
 * made fail is a refusal: the host goes on as a host would. Wrong is: a code that no fault explains,
 * state that was promised and is not there, a byte that differs, anything left over after a close.
 */
#ifndef FAULT_SWEEP_WORKLOAD_H
#define FAULT_SWEEP_WORKLOAD_H

#include "crash/oracle.h"
#include "fault_os.h"

struct sweep_plan { /* one run */
    const char *path;
    uint32_t engine;         /* enum abode_io */
    bool strike;             /* false: a run that counts */
    struct fault_plan fault; /* counts from before the first open */
};

struct sweep_result {        /* in memory shared with the parent: the run may crash or hang */
    char step[LIVE_WHY_MAX]; /* that it was last in */
    char why[LIVE_WHY_MAX];  /* the first thing that was wrong; empty: nothing */
    uint32_t life;
    uint32_t refusals; /* calls that failed as they may */
    char refusal_first[LIVE_WHY_MAX];
    uint64_t strikes;
    uint64_t counts[AB_OS_CALL_COUNT]; /* of the two watched lives */
    uint64_t bytes_compared;
    struct oracle oracle;
};

/* For a process of its own. 0, or 1: ret->why says what was wrong. */
int sweep_run(const struct sweep_plan *plan, struct sweep_result *ret);

#endif
