/*
 * worker.h - the process that test_kill9 kills: opens, verifies against the oracle, works.
 */
#ifndef CRASH_WORKER_H
#define CRASH_WORKER_H

#include "crash/clock_jump.h"
#include "crash/oracle.h"
#include "fault_os.h"

#define WORKER_THREADS_MAX 32u
#define WORKER_ITEM_FIRST 1000000u /* key and bytes of an item follow from this and its number */
#define WORKER_EXIT 7              /* exit status of a host that ends in the middle */

enum worker_phase { WORKER_STARTED = 1, WORKER_WORKING, WORKER_ENDED };

struct worker_counts { /* over all children; written by the living one */
    uint64_t detaches, promises, attaches, deletes, forks, truncates, items_put, refusals;
    uint64_t sessions_verified, sessions_gone, sessions_newer, items_verified, bytes_verified;
    uint64_t items_left; /* promised DURABLE, and let go for room with no event that was heard */
    uint64_t sessions_damaged, items_damaged; /* never promised DURABLE, and known to be damaged */
    uint64_t blocks_evicted, bytes_written, live_max, store_bytes, processes_forked;
};

struct worker_part {            /* of one host thread: its names and items are its own */
    char why[LIVE_WHY_MAX * 2]; /* what the child found wrong; empty: nothing */
    uint32_t name_wrong;        /* whose; ORACLE_NAMES: nobody's */
    struct worker_counts counts;
    struct oracle oracle;
};
struct worker_shared {
    _Atomic uint32_t phase; /* enum worker_phase */
    uint32_t killed_early;
    _Atomic uint32_t lingering; /* process id of what the host forked and that lives on; 0: none */
    struct clock_jump clock;    /* the parent's to change at any time */
    struct worker_part parts[WORKER_THREADS_MAX]; /* plan->threads are used */
};

struct worker_plan { /* one child's life, chosen by the parent */
    const char *path;
    uint64_t seed;
    uint32_t engine; /* enum abode_io */
    uint64_t memory_bytes, store_bytes;
    uint32_t threads;       /* of the host; 0: one */
    bool strike;            /* die at `fault`, or whatever it is that `fault` does */
    bool early;             /* the plan counts from before open */
    bool last;              /* verify, close, open again, verify; do not work */
    bool rough;             /* the device fails or is full: calls may be refused, items forgotten */
    bool is_told;           /* oracle_listen: one life, however long, and items put DURABLE too */
    const struct ab_os *os; /* NULL: the real one */
    bool jumpy;             /* the clocks are those of shared->clock */
    uint32_t exit_step;     /* exit(WORKER_EXIT) at this step of each thread; 0: never */
    uint32_t fork_every;    /* steps from one fork of the process to the next; 0: never */
    bool fork_lingers;      /* one child lives on, when the host is dead */
    struct fault_plan fault;
};

/* For a store that is empty. */
void worker_reset(struct worker_shared *shared);
/* Exit status: 0 only for the last child; 1 something is wrong, said in the part's `why`. */
int worker_run(struct worker_shared *shared, const struct worker_plan *plan);

#endif
