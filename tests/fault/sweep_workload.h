/*
 * sweep_workload.h - the canonical workloads along which test_every_syscall breaks calls.
 *
 * Lives of one store in one process. In the first ones a fault plan watches the part that the
 * workload is about; in the last one nothing fails any more, and everything must be there.
 */
#ifndef FAULT_SWEEP_WORKLOAD_H
#define FAULT_SWEEP_WORKLOAD_H

#include "crash/oracle.h"
#include "fault_os.h"

enum sweep_workload {
    SWEEP_OPENING = 0, /* open, recover, read all, go on, close */
    SWEEP_SESSIONS,    /* append, checkpoint, detach, attach, notes, delete */
    SWEEP_BRANCHES,    /* fork, truncate */
    SWEEP_CACHE,       /* put, get, probe, touch, delete */
    SWEEP_CROWD,       /* more than memory and store hold: evict, spill, compact, make room */
    SWEEP_REPORTS,     /* statistics, placement, inspect, verify, flush, regions, queues */
    SWEEP_WORKLOADS
};
const char *sweep_workload_name(enum sweep_workload workload);

struct sweep_plan { /* one run */
    const char *path;
    enum sweep_workload workload;
    uint32_t engine;         /* enum abode_io */
    bool strike;             /* false: a run that counts */
    bool only_verify;        /* the last life alone: those before died in another process */
    struct fault_plan fault; /* counts from where the watched part begins */
};

struct sweep_result {        /* in memory shared with the parent: the run may crash or hang */
    char step[LIVE_WHY_MAX]; /* that it was last in */
    char why[LIVE_WHY_MAX];  /* the first thing that was wrong; empty: nothing */
    uint32_t life;
    uint32_t refusals; /* calls that failed as they may */
    char refusal_first[LIVE_WHY_MAX];
    uint64_t strikes;
    uint64_t counts[AB_OS_CALL_COUNT]; /* of the watched part */
    uint64_t bytes_compared;
    struct oracle oracle;
};

/* For a process of its own. 0, or 1: ret->why says what was wrong. */
int sweep_run(const struct sweep_plan *plan, struct sweep_result *ret);

#endif
