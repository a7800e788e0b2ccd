/*
 * steps.h - one living worker: what it knows, the steps it takes, and how its ops come back.
 */
#ifndef CRASH_STEPS_H
#define CRASH_STEPS_H

#include "crash/worker.h"

#define WORKER_OPS_MAX 6u
#define WORKER_ITEMS_A_CALL 4u
#define WORKER_POLL_NS 30000000000LL

enum op_kind { OP_FREE = 0, OP_ATTACH, OP_DETACH, OP_KEEP, OP_PUT, OP_GET, OP_DELETE };

struct worker_op {
    struct abode_op op;
    enum op_kind kind;
    uint32_t name, version; /* of sessions */
    uint64_t tick;
    uint32_t durability; /* of a put */
    struct abode_item items[WORKER_ITEMS_A_CALL];
    struct abode_key keys[WORKER_ITEMS_A_CALL];
    uint32_t numbers[WORKER_ITEMS_A_CALL];
    uint32_t item_count;
};
struct worker_name {
    bool exists, attached, busy;
    struct abode_session session;
    struct live_state state;
    bool has_older; /* the restore point before the newest is kept, and known */
    struct live_state older;
};
/* A worker that is not killed with -9 but loses its power, in a process that lives on. */
struct worker_power {
    bool (*excuses)(void *context, int rc); /* may an op fail with this, now? */
    bool (*is_over)(void *context);         /* no more steps */
    void *context;
};
struct worker {
    const struct worker_power
        *power; /* NULL: kill -9, where WRITTEN survives too, and nothing fails */
    struct worker_part *part;
    const struct worker_plan *plan;
    struct worker_shared *shared;
    struct oracle *oracle;        /* the part's */
    struct worker_counts *counts; /* the part's */
    uint32_t number;              /* of the thread: its keys differ from those of the others */
    uint32_t name_count, item_count, attached_max;
    struct live_host host;
    uint64_t random;
    uint32_t attached_count;
    struct worker_name names[ORACLE_NAMES];
    struct worker_op ops[WORKER_OPS_MAX];
    bool verifying;  /* what is found now is settled: the store has it, or has it not */
    bool unsettled;  /* but for what a killed process left unsynced: the power may still take it */
    bool items_busy; /* one cache op at a time: it owns the region */
    uint32_t region;
    unsigned char *region_base;
    struct abode_stats stats_last;
};

/* Note what is wrong, for the parent to print; returns a negative code. */
int worker_wrong(struct worker *worker, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
void worker_name_key(const struct worker *worker, uint32_t name, struct abode_key *ret);

/* The functions below: 0, or negative when something was wrong. */
/* Nothing was dropped or found corrupt; adds to the shared counts. */
int worker_stats_check(struct worker *worker);
/* Take what has finished, and check it. timeout_ns 0: do not wait. */
int worker_ops_poll(struct worker *worker, int64_t timeout_ns);
/* Start a cache op on items first, first + 1 ...; does nothing while another is in flight. */
int worker_items_start(struct worker *worker, enum op_kind kind, uint32_t first, uint32_t count);
/* Which of the possible versions has the session that was found? The newest that fits; from the
 * version `oldest` on. NULL: none, why says of the newest with as many tokens. */
const struct oracle_version *worker_version_find(struct worker *worker, uint32_t index,
                                                 uint64_t token_count, uint32_t oldest,
                                                 char why[LIVE_WHY_MAX]);
/* Cache items that were given up for room may be absent. */
void worker_events_take(struct worker *worker);
/* fork(): the child finds every call refused. fork_child.c */
int worker_fork(struct worker *worker);
/* Take random steps until killed, or until something is wrong, or (power) it is over. */
int worker_work(struct worker *worker);

#endif
