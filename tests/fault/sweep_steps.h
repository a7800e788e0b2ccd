/*
 * sweep_steps.h - what the workloads of the sweep are made of: a host whose calls may fail.
 *
 * A call that a fault made fail is a refusal: the host goes on as a host would, without what that
 * call would have given. Wrong is: a code that no fault explains, state that was promised and is
 * not there, a byte that differs, anything left over after a close. What the store may hold is told
 * by the rows of versions of crash/oracle.h.
 */
#ifndef FAULT_SWEEP_STEPS_H
#define FAULT_SWEEP_STEPS_H

#include "crash/oracle.h"
#include "fault/sweep_workload.h"

#define SWEEP_NAMES 12u /* of the oracle's */
#define SWEEP_FLUSH_NS 10000000000LL

struct sweep_actor {
    bool exists, attached;
    bool unread; /* the store has it, but what it holds could not be read */
    struct abode_session session;
    struct live_state state;
};

struct sweep {
    const struct sweep_plan *plan;
    struct sweep_result *result;
    struct oracle *oracle;
    struct fault_os fault;
    uint64_t memory_bytes, store_bytes;
    struct live_host host; /* runtime NULL: closed; queue NULL: no model */
    bool nothing_fails;    /* nothing is struck: a refusal is wrong as well */
    bool has_region;
    uint32_t region;
    struct sweep_actor actors[SWEEP_NAMES];
    uint32_t fds_before;
};

/* Is there a runtime with a model? */
bool sweep_open(struct sweep *sweep);
/* Nothing may be left over. */
void sweep_close(struct sweep *sweep);
uint32_t sweep_descriptors(void); /* of this process */
/* Did the call succeed? Its place is known before it is made: the parent sees it after a crash. */
void sweep_step(struct sweep *sweep, const char *what);
bool sweep_judge(struct sweep *sweep, int rc);
#define SWEEP_STEP(sweep, what, call) (sweep_step(sweep, what), sweep_judge(sweep, call))

void sweep_create(struct sweep *sweep, uint32_t name, uint32_t durability);
/* Tokens and a restore point behind them. */
void sweep_turn(struct sweep *sweep, uint32_t name, uint32_t tokens);
void sweep_attach(struct sweep *sweep, uint32_t name); /* and compare every byte */
void sweep_detach(struct sweep *sweep, uint32_t name, uint32_t flags);
void sweep_fork(struct sweep *sweep, uint32_t parent, uint32_t child);
void sweep_cut(struct sweep *sweep, uint32_t name, const struct live_state *older);
void sweep_delete(struct sweep *sweep, uint32_t name);
void sweep_put(struct sweep *sweep); /* all items */
void sweep_get(struct sweep *sweep);
void sweep_item_delete(struct sweep *sweep, uint32_t index);
void sweep_reports(struct sweep *sweep);
/* What the store holds of this name is a version that is possible; it is attached. */
void sweep_verify(struct sweep *sweep, uint32_t name);

#endif
