/*
 * live.h - a small host, for the tests that drive the whole library through abode.h.
 *
 * What a session holds is told by a `live_state`: a stamp for each token and one for the snapshot
 * and the host's bytes at its restore point. Each byte of state follows from its stamp and its
 * place (component, plane, token), so that state can be written, and compared byte by byte, with
 * nothing else kept; a byte of another session, turn, token or plane never matches.
 *
 * The model has one component of each kind. Not thread-safe; one live_host per thread.
 */
#ifndef LIVE_H
#define LIVE_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "abode/abode.h"

#define LIVE_BLOCK_TOKENS 16u
#define LIVE_WINDOW_TOKENS 48u
#define LIVE_TOKENS_MAX 256u
#define LIVE_ROWS_MAX (LIVE_TOKENS_MAX / LIVE_BLOCK_TOKENS)
#define LIVE_BYTES_MAX 20000u
#define LIVE_SNAPSHOTS_KEPT 2u
#define LIVE_WHY_MAX 256

enum live_component {
    LIVE_PAGED = 0,
    LIVE_WINDOW,
    LIVE_SNAPSHOT,
    LIVE_BYTES,
    LIVE_COMPONENT_COUNT
};

struct live_state {
    uint32_t token_count;
    uint32_t restore_point;  /* tokens at the newest snapshot and bytes; 0: none */
    uint32_t snapshot_stamp; /* of the snapshot and bytes there */
    uint32_t bytes_size;     /* of the bytes there */
    uint32_t stamps[LIVE_TOKENS_MAX];
};

struct live_host {
    struct abode *runtime;
    struct abode_queue *queue;
    uint32_t model;
};

/* How every live_host of this process works, from before the first one is opened. Zero: as above. */
struct live_tuning {
    bool is_small;          /* blocks of a few KiB: for stores that are opened thousands of times */
    uint32_t pause_ns;      /* between two tries of a call that said -EAGAIN; 0: 1 ms */
    bool (*gives_up)(void); /* no more tries when it says so; may be NULL */
};
void live_tune(const struct live_tuning *tuning);

/* splitmix64: small, seedable, the same everywhere */
uint64_t live_random(uint64_t *state);
uint32_t live_random_below(uint64_t *state, uint32_t bound);
/* --seed N in argv, else ABODE_TEST_SEED, else the clock */
uint64_t live_seed(int argc, char **argv);
/* value of an option "--name N"; fallback where it is absent; exits with usage on garbage */
uint64_t live_option(int argc, char **argv, const char *name, uint64_t fallback);

uint64_t live_clock_ns(void); /* CLOCK_MONOTONIC */

/* For abode_config.log: to stderr where ABODE_TEST_LOG is set, else nowhere. */
void live_log(void *context, int level, const char *line);

void live_key(uint64_t number, struct abode_key *ret);
/* A fresh directory under $TMPDIR or /tmp; live_directory_remove deletes it with all in it. */
int live_directory_make(char *ret_path, size_t capacity);
void live_directory_remove(const char *path);

/* Declares the model and opens a queue; the runtime stays the caller's to close on failure. */
int live_host_open(struct abode *runtime, uint64_t memory_bytes, struct live_host *ret);
/* Closes the queue and the runtime. */
int live_host_close(struct live_host *host);
/* Poll until this op has come back, at most a minute (-ETIME); returns its status. Only for a
 * queue with nothing else in flight. */
int live_wait(struct live_host *host, struct abode_op *op);
int live_attach(struct live_host *host, struct abode_session session, int32_t node, uint32_t flags);
int live_detach(struct live_host *host, struct abode_session session, uint32_t flags);

/* Append tokens that carry `stamp`, and note them in the state. -EAGAIN is tried again for a
 * while. Nothing is appended on failure. */
int live_append(struct live_host *host, struct abode_session session, struct live_state *state,
                uint32_t token_count, uint32_t stamp);
/* Truncate and fork, patiently: while older state is being brought in they answer -EAGAIN. */
int live_truncate(struct live_host *host, struct abode_session session, uint64_t token_count);
int live_fork(struct live_host *host, struct abode_session parent, uint64_t token_count,
              const struct abode_key *name, struct abode_session *ret);
/* Commit a snapshot and bytes here: a restore point. */
int live_snapshot(struct live_host *host, struct abode_session session, struct live_state *state,
                  uint32_t stamp);
/* What live_snapshot will make of the state. */
void live_state_snapshot(struct live_state *state, uint32_t stamp);
/* What a detach makes of it: tokens after the restore point are gone. */
void live_state_drop_tail(struct live_state *state);
bool live_state_equal(const struct live_state *left, const struct live_state *right);

/* Every byte of an attached session against the state. 0, or -EBADMSG with why, or a code of
 * abode's. compared counts the bytes looked at, may be NULL. */
int live_compare(struct live_host *host, struct abode_session session,
                 const struct live_state *state, char ret_why[LIVE_WHY_MAX], uint64_t *compared);

/* A cache item's bytes and size follow from its number. */
uint32_t live_item_size(uint64_t number);
void live_item_fill(uint64_t number, void *bytes);
bool live_item_is(uint64_t number, const void *bytes, uint64_t size);

#endif
