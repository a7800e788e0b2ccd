/*
 * worker.h - the process that test_kill9 kills: opens, verifies against the oracle, works.
 */
#ifndef CRASH_WORKER_H
#define CRASH_WORKER_H

#include "crash/oracle.h"
#include "fault_os.h"

enum worker_phase { WORKER_STARTED = 1, WORKER_WORKING, WORKER_ENDED };

struct worker_counts { /* over all children; written by the living one */
    uint64_t detaches, promises, attaches, deletes, forks, truncates, items_put, refusals;
    uint64_t sessions_verified, sessions_gone, sessions_newer, items_verified, bytes_verified;
    uint64_t items_left; /* promised DURABLE, and let go for room with no event that was heard */
    uint64_t sessions_damaged, items_damaged; /* never promised DURABLE, and known to be damaged */
    uint64_t blocks_evicted, bytes_written, live_max, store_bytes;
};

struct worker_shared {
    _Atomic uint32_t phase; /* enum worker_phase */
    uint32_t killed_early;
    char why[LIVE_WHY_MAX * 2]; /* what the child found wrong; empty: nothing */
    uint32_t name_wrong;        /* whose; ORACLE_NAMES: nobody's */
    struct worker_counts counts;
    struct oracle oracle;
};

struct worker_plan { /* one child's life, chosen by the parent */
    const char *path;
    uint64_t seed;
    uint32_t engine; /* enum abode_io */
    uint64_t memory_bytes, store_bytes;
    bool strike; /* die at `fault` */
    bool early;  /* the plan counts from before open */
    bool last;   /* verify, close, open again, verify; do not work */
    struct fault_plan fault;
};

void worker_item_key(uint32_t number, struct abode_key *ret);
/* Exit status: 0 only for the last child; 1 something is wrong, said in shared->why. */
int worker_run(struct worker_shared *shared, const struct worker_plan *plan);

#endif
