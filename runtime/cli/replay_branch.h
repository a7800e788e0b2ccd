/*
 * replay_branch.h - what the host remembers of one session: which tokens it gave to abode, so that
 * the next request can be compared with it, and every byte that comes back can be checked.
 */
#ifndef CLI_REPLAY_BRANCH_H
#define CLI_REPLAY_BRANCH_H

#include "replay.h"

struct replay_branch {
    struct abode_session session;
    bool held;            /* session is a handle that we own */
    bool busy;            /* a slot works on it */
    bool started;         /* a request of it has been served */
    uint32_t turn;        /* of its last request: the lowest is the coldest */
    uint64_t *identities; /* one per block of the trace, the last may be partly filled */
    uint32_t identity_count, identity_capacity;
    uint64_t tokens;            /* that abode holds, as far as we know */
    struct abode_key *row_keys; /* of its full rows */
    uint32_t row_count, row_capacity;
    uint64_t points[PRESET_SNAPSHOTS_KEPT]; /* restore points of models with fixed state, rising */
    uint32_t point_count;
};

void replay_branch_free(struct replay_branch *branch);
/* Forget tokens from token_count on. */
void replay_branch_cut(struct replay *replay, struct replay_branch *branch, uint64_t token_count);
/* Remember tokens up to token_count, identities taken from `wanted`. -ENOMEM */
int replay_branch_grow(struct replay *replay, struct replay_branch *branch, const uint64_t *wanted,
                       uint64_t token_count);
/* Keys of rows up to row_count (all full); they chain over the identities. -ENOMEM */
int replay_branch_keys(struct replay *replay, struct replay_branch *branch,
                       const uint64_t *identities, uint32_t row_count);
/* Leading tokens that the branch has in common with `wanted`, at most token_max. */
uint64_t replay_branch_common(const struct replay *replay, const struct replay_branch *branch,
                              const uint64_t *wanted, uint64_t token_max);
void replay_branch_point_add(struct replay_branch *branch, uint64_t token_count);
/* The newest position at or below token_count that abode can be cut back to. */
uint64_t replay_branch_point_below(const struct replay *replay, const struct replay_branch *branch,
                                   uint64_t token_count);

#endif
