/*
 * replay.h - what the parts of `abode replay` share.
 *
 *   replay.c          options, sizes, open, close
 *   replay_plan.c     what a trace needs; scale and memory where they are not given
 *   replay_memory.c   which component gets how much of the memory
 *   replay_run.c      the loop: which request starts when, polling, waiting, what waiting was for
 *   replay_session.c  a request on the session face: attach, check, cut, append, detach
 *   replay_branch.c   what a branch holds: identities, row keys, restore points
 *   replay_state.c    bytes of rows and snapshots: filled, checked
 *   replay_cache.c    a request on the cache face: probe, get, check, put
 *   replay_report.c   figures as text and JSON
 *   replay_device.c   what the device gives to a plain reader
 *
 * A slot is a request under way. It is always in one state, and only its face's step() and the
 * loop's poll move it:
 *
 *            start()             op submitted                 op came back
 *   FREE ------------> READY ------------------> WAITING ------------------> READY
 *     ^                 | ^  step(): some ms of work, stays READY
 *     |   finished      | |
 *     +-----------------+ +--- BLOCKED (memory being freed) or HOLDING (the model works)
 *
 * One thread. The host's own work (filling and checking bytes) is done in slices of about a
 * millisecond, and finished ops are looked for after each, so that latencies are the library's.
 */
#ifndef CLI_REPLAY_H
#define CLI_REPLAY_H

#include "cli.h"
#include "preset.h"
#include "trace.h"
#include "trace_internal.h"

#define REPLAY_SLOTS_MAX 64
#define REPLAY_SLICE_BYTES (4u << 20) /* about a millisecond of filling or checking */
#define REPLAY_LOOK_AHEAD 256         /* requests looked at for one whose branch is free */
#define REPLAY_SAMPLE_EVERY 16        /* --verify sample: one row or item in so many */
#define REPLAY_SPANS_MAX 8192

enum replay_face { REPLAY_FACE_AUTO = 0, REPLAY_SESSION, REPLAY_CACHE };
enum replay_verify { REPLAY_VERIFY_ALL = 0, REPLAY_VERIFY_SAMPLE, REPLAY_VERIFY_NONE };

struct replay_options {
    const char *trace_path;
    const char *store_path; /* NULL: a scratch directory */
    const char *model;
    const char *speed_text;
    double scale;    /* 0: by the trace */
    double speed;    /* 0: flat out; else times faster than recorded */
    uint64_t face;   /* enum replay_face */
    uint64_t verify; /* enum replay_verify */
    uint64_t block_tokens;
    uint64_t memory_bytes; /* 0: by the trace */
    uint64_t store_bytes;
    uint64_t requests; /* 0: all */
    uint64_t inflight;
    uint64_t durability; /* enum abode_durability */
    uint64_t io;         /* enum abode_io */
    uint64_t huge;       /* enum abode_huge */
    bool json, keep, quiet;
};

/* ---- figures --------------------------------------------------------------------------------- */
#define REPLAY_HISTOGRAM_SUB 32 /* buckets a power of two: percentiles within 3 % */
#define REPLAY_HISTOGRAM_BUCKETS (60 * REPLAY_HISTOGRAM_SUB)
struct replay_histogram {
    uint64_t counts[REPLAY_HISTOGRAM_BUCKETS];
    uint64_t count, max, sum;
};
void replay_histogram_add(struct replay_histogram *histogram, uint64_t value);
/* share 0 .. 1; the top of the bucket, at most the maximum; 0 where nothing was added. */
uint64_t replay_histogram_at(const struct replay_histogram *histogram, double share);

enum replay_wait { /* what the thread waited for while it had nothing else to do */
                   REPLAY_WAIT_RESTORE = 0,
                   REPLAY_WAIT_MEMORY, /* -EAGAIN, -ABODE_EFULL: frames were being freed */
                   REPLAY_WAIT_WRITE,  /* a detach or put to keep its promise */
                   REPLAY_WAIT_TRACE, /* nothing to do: the next request had not come yet; not a stall */
                   REPLAY_WAIT_COUNT,
};

struct replay_figures {
    uint64_t requests, tokens_in, tokens_out;
    uint64_t blocks_asked;     /* ids of all requests */
    uint64_t blocks_known;     /* leading ids that an earlier request had: a cache without end */
    uint64_t blocks_hit;       /* of these the state was there */
    uint64_t blocks_hit_store; /* and part of these had to be read from the store */
    uint64_t blocks_reply; /* leading ids that only a reply had made: state kept from decoding */
    uint64_t tokens_reused, tokens_computed; /* of tokens_in */
    uint64_t tokens_lost; /* were held, known to be asked again, and were gone or cut */
    uint64_t bytes_filled, bytes_verified, bytes_wrong;
    uint64_t attaches; /* cache face: gets */
    uint64_t attaches_partial, sessions_lost, truncations, truncations_refused, prefixes_found;
    uint64_t sessions_dropped; /* by the host, coldest first, since the store was full */
    uint64_t writes_failed;    /* detaches or puts whose promise failed */
    int last_write_error;
    uint64_t blocked;         /* times a call said that frames are being freed */
    uint64_t content_ns;      /* CPU time of filling and checking */
    uint64_t restore_busy_ns; /* some restore was in flight */
    uint64_t restore_bytes;   /* that the attaches had to read */
    uint64_t wait_ns[REPLAY_WAIT_COUNT];
    uint64_t wall_ns, cpu_ns;
    struct replay_histogram restore_ns; /* attaches and gets that needed the store */
    struct replay_histogram memory_ns;  /* those that did not */
    struct replay_histogram call_ns;    /* calls that do not wait */
    double device_gbps, device_gbps_min, device_gbps_max;
    bool device_direct;
};

/* ---- what a trace needs ---------------------------------------------------------------------- */
struct replay_plan {
    uint64_t live_tokens_max; /* held at one time by all open branches */
    uint64_t unique_blocks;
    uint64_t tokens_all;     /* sum of tokens_in + tokens_out */
    uint64_t largest_tokens; /* of one request */
    uint32_t largest_line, largest_blocks;
    uint64_t branches_live_max;
};

/* ---- the run --------------------------------------------------------------------------------- */
struct replay_branch;
struct replay_face_ops;

enum replay_slot_state {
    REPLAY_FREE = 0,
    REPLAY_READY,
    REPLAY_WAITING,
    REPLAY_BLOCKED,
    REPLAY_HOLDING,
};
struct replay_slot {
    enum replay_slot_state state;
    int phase; /* of the face */
    uint32_t request;
    uint32_t admitted_rows;
    struct abode_op op;
    uint64_t submitted_ns, due_ns;
    bool reading;            /* the op in flight is an attach or a get */
    bool again;              /* it was blocked: trying the same once more is no progress */
    bool restoring;          /* and may have to read from the store */
    uint64_t latency_ns;     /* of the op that came back last */
    uint64_t resident_bytes; /* session: in memory when the attach was asked for */
    uint64_t stored_bytes;   /* cache: of the batch, only in the store when it was asked for */
    uint64_t *wanted;        /* identities of the request's blocks, its reply and tail included */
    uint32_t wanted_count, wanted_capacity;
    uint32_t blocks_known;
    uint64_t position; /* tokens (session) or blocks (cache) that are done in this phase */
    uint64_t target;
    uint64_t had;       /* tokens that the attach gave back */
    uint64_t expected;  /* leading tokens of the request that the branch held before */
    double store_share; /* of the state, read from the store */
    uint32_t part;      /* component whose snapshot is next */
    struct abode_view views[PRESET_PARTS_MAX];
    struct abode_key *keys; /* cache: one per block; session: prefix keys */
    uint32_t key_capacity;
    struct abode_item *items; /* cache: of the batch */
    unsigned char *arena;     /* cache: where the items of the batch lie */
    uint32_t batch;
    uint8_t *presence;
};

struct replay {
    struct replay_options options;
    struct trace trace;
    uint32_t request_count; /* of the trace, that are replayed */
    struct preset preset;
    struct geometry geometry;
    struct replay_plan plan;
    struct cli_scratch scratch;
    struct cli_log log;
    struct abode *runtime;
    struct abode_queue *queue;
    uint32_t model;
    const struct replay_face_ops *face;
    struct replay_branch *branches;
    struct replay_slot slots[REPLAY_SLOTS_MAX];
    uint32_t slot_count;
    uint32_t restoring_count;
    uint64_t restoring_since_ns;
    uint32_t turn;                    /* counts requests that were finished: how cold a branch is */
    uint64_t rows_max, rows_admitted; /* rows that requests under way may hold together */
    uint64_t plane_offsets[PRESET_PARTS_MAX][ABODE_PLANES_MAX];
    struct abode_span *spans;
    struct abode_key root_key;
    struct trace_map seen; /* identities that earlier requests had */
    unsigned char *arena;  /* cache: the host's memory, one piece a slot */
    uint64_t arena_bytes;
    uint32_t region, items_max;
    uint64_t item_bytes, item_stride;
    struct abode_stats stats_before, stats;
    struct abode_support support;
    struct replay_figures figures;
    uint64_t begin_ns;
};

/* One way to serve requests. Each returns 0 or a negative code that ends the run (message printed
 * by the caller with `what` of the face). */
struct replay_face_ops {
    const char *name;
    int (*open)(struct replay *replay);
    void (*close)(struct replay *replay);
    int (*start)(struct replay *replay, struct replay_slot *slot);
    int (*step)(struct replay *replay, struct replay_slot *slot);
    /* The store is full: give up the coldest state that nobody works on. false: there is none.
     * NULL: abode does that by itself. */
    bool (*drop)(struct replay *replay);
};
extern const struct replay_face_ops replay_session_face, replay_cache_face;

/* replay_plan.c: 0 or an exit code, message printed. */
void replay_plan_make(struct replay *replay);
int replay_plan_sizes(struct replay *replay);
/* replay_memory.c: fills memory_bytes of the geometry's components. 0 or an exit code, message printed: the memory cannot
 * hold what the requests under way pin. */
int replay_memory_share(struct replay *replay);
/* Rows that may be appended at once, so that what is pinned stays within those shares. */
uint32_t replay_append_rows_max(const struct replay *replay);
bool replay_branch_is_last(const struct replay *replay, uint32_t request);

/* replay_run.c */
int replay_run(struct replay *replay);
void replay_called(struct replay *replay, uint64_t begin_ns); /* a call that does not wait ended */
/* reading: an attach or get; restoring: not all of it is in memory. */
void replay_slot_submitted(struct replay *replay, struct replay_slot *slot, bool reading,
                           bool restoring);
/* An attach or get came back whole or in part, for which `bytes` were read from the store. */
void replay_read_count(struct replay *replay, const struct replay_slot *slot, uint64_t bytes);
void replay_slot_finished(struct replay *replay, struct replay_slot *slot);
/* -EAGAIN and -ABODE_EFULL: the slot waits for frames, 0; so with -ENOSPC, after the host has given
 * up something; any other code is handed through. */
int replay_slot_block(struct replay *replay, struct replay_slot *slot, int code);
/* Fill slot->wanted for its request, and count what a cache without end would have known. */
int replay_wanted_make(struct replay *replay, struct replay_slot *slot);
/* Count reused tokens of the slot's request: `reused` leading ones were there. */
void replay_reuse_count(struct replay *replay, const struct replay_slot *slot, uint64_t reused);
/* Print `abode: WHAT` for a failing call, with the request it was for; -code back. */
int replay_fail(const struct replay *replay, const struct replay_slot *slot, int code,
                const char *call);

/* replay_state.c */
struct replay_tokens { /* tokens [first, first + count) of a row that starts at row_token */
    const uint64_t *identities; /* of the branch, one per trace block */
    uint64_t row_token;
    uint32_t first, count;
};
void replay_row_fill(struct replay *replay, uint32_t component, unsigned char *frame,
                     const struct replay_tokens *tokens);
uint64_t replay_row_check(struct replay *replay, uint32_t component, const unsigned char *frame,
                          const struct replay_tokens *tokens);
uint64_t replay_point_identity(const struct replay *replay, const uint64_t *identities,
                               uint64_t token_count);
size_t replay_point_bytes(const struct replay *replay, uint32_t component, uint64_t token_count);
void replay_bytes_fill(struct replay *replay, unsigned char *target, uint64_t seed, size_t size);
uint64_t replay_bytes_check(struct replay *replay, const unsigned char *source, uint64_t seed,
                            size_t size, const char *what);
uint64_t replay_thread_cpu_ns(void);

/* replay_report.c */
int replay_report(struct replay *replay);

/* replay_device.c: plain O_DIRECT reads of the files in `folder`, 1 MiB each, 8 at a time; three
 * rounds. -ENOENT: no file to read. */
int replay_device_measure(const char *folder, struct replay_figures *figures);

#endif
