/*
 * power_world.h - one simulated disk, one store on it, and the lives of a host between power cuts.
 *
 * A life: the power comes on, the store is opened (sometimes cut in there), all that is found is
 * compared with the oracle (crash/oracle.h), the steps of crash/steps.c are taken until the cut comes,
 * ops in flight are collected, everything is closed. Promises are believed whenever they were
 * acknowledged: nothing can come true after the cut.
 *
 * What may be found: of a name that was promised DURABLE, that version or a later one, whole. Of one
 * that was only WRITTEN, any version since the last DURABLE one, or nothing, or -ABODE_ECORRUPT; a
 * prefix that is given after it is a state that really was. What was deleted before a DURABLE op
 * stays deleted.
 */
#ifndef POWER_WORLD_H
#define POWER_WORLD_H

#include "crash/steps.h"
#include "sim/sim_disk.h"

struct power_counts {
    uint64_t crashes;                                   /* power cuts, the disk being honest */
    uint64_t in_recovery, in_checkpoint, in_compaction; /* of these */
    uint64_t in_close, twice; /* twice: the last life was cut as well in recovery */
    uint64_t errors_recovery, errors_checkpoint,
        errors_compaction; /* crashes after such an error */
    uint64_t errors_sync;  /* after a sync that was aimed at had failed */
    uint64_t compound;     /* crashes that are any of the above, but in_close */
    uint64_t beyond,
        beyond_detected; /* cuts of a disk that lost or misplaced synced writes; of these
                                         so many were noticed: a miss, an older state, -ABODE_ECORRUPT */
    uint64_t killed;     /* lives that ended as if by kill -9: nothing of the limbo is lost yet */
    uint64_t clean, writes_kept, writes_dropped, writes_torn;
};

struct power_result { /* in memory shared with the parent */
    uint64_t seed;    /* of the world that is being run */
    uint32_t life;
    char doing[64];
    char why[LIVE_WHY_MAX * 2]; /* what was wrong; empty: nothing */
    struct power_counts counts;
    struct worker_counts work;
};

/* All lives of the world that this seed makes. 0; 1: result->why. For a process of its own. */
int power_world_run(uint64_t seed, struct power_result *result);

#endif
