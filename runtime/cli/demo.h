/*
 * demo.h - what the two sides of `abode demo` say to each other.
 *
 *   parent (demo.c)                         child, `abode demo-host` (demo_host.c)
 *   makes the store directory     task ->   opens the store, finds its sessions
 *   is the oracle: remembers      <- messages   restores, checks, appends, spills
 *   what was acknowledged
 *   kill -9 while spills fly, starts a new child, compares
 *   draws (picture.c)             <- places
 *
 * Both are the same program, so that structs go through the pipes as they are. A message that a
 * kill cut in two is dropped with the rest of that pipe: nothing in it was acknowledged.
 */
#ifndef DEMO_H
#define DEMO_H

#include "cli.h"
#include "workload.h"

#define DEMO_MAGIC 0x61626f64652d6431ull
#define DEMO_PATHS_MAX 4
#define DEMO_PATH_BYTES 1024
#define DEMO_IN_FLIGHT_MAX 32
#define DEMO_MESSAGE_FD 3    /* the child's end of the message pipe; the task comes on stdin */
#define DEMO_OVER UINT32_MAX /* in the acknowledged turns of a task: deleted, never to be found */

enum demo_phase {
    DEMO_CONVERSE = 0, /* go on with the conversations where they stand */
    DEMO_AUDIT,        /* restore every session, check it, say where it lives */
};

struct demo_task { /* followed by conversation_count uint32_t: turns acknowledged so far */
    uint64_t magic;
    enum demo_phase phase;
    uint32_t io, huge;  /* enum abode_io, enum abode_huge */
    uint32_t in_flight; /* conversations that overlap */
    uint32_t log_level;
    uint32_t path_count;
    struct workload_options workload;
    uint64_t memory_bytes; /* frames */
    uint64_t store_bytes;
    uint32_t segment_bytes;
    uint64_t deadline_ns;    /* CLOCK_MONOTONIC: no new turn after this */
    double seconds_per_hour; /* real seconds that an hour of the workload's clock is worth */
    char paths[DEMO_PATHS_MAX][DEMO_PATH_BYTES];
};

/* What one child has done so far; sent with every acknowledgement, so that a kill loses none that
 * counts. */
struct demo_totals {
    uint64_t bytes_verified, bytes_wrong;
    uint64_t bytes_filled;                 /* state written by appends and snapshots */
    uint64_t prompt_tokens, answer_tokens; /* computed by this child, redone ones too */
    uint64_t attach_count, attach_wait_ns; /* sum of the time from attach to its completion */
    uint64_t restore_busy_ns;              /* time during which bytes came in from the store */
    uint64_t cpu_ns;                       /* of the child, all threads */
    double memory_byte_s, store_byte_s;    /* byte x seconds of the workload's clock */
    uint64_t fork_count, prefix_hit_count, delete_count;
    uint64_t store_full_count; /* durable detaches that found no room and were tried again */
    struct abode_stats stats;
};

enum demo_message_type {
    DEMO_OPENED = 1,   /* value: ns that abode_open and abode_model_add took */
    DEMO_RECOVERED,    /* conversation, turns: found in the store (0: not there) */
    DEMO_SPILLING,     /* conversation, turns: a durable detach has begun */
    DEMO_ACKNOWLEDGED, /* conversation, turns: it has ended; totals */
    DEMO_DELETED,      /* conversation: abode_session_delete has been called */
    DEMO_DELETE_FIRM,  /* conversation: a later durable op has ended: it must not come back */
    DEMO_CHECKED,      /* audit: conversation, turns: every byte read; totals */
    DEMO_LOST,         /* conversation, turns, value: code; a session that cannot be restored */
    DEMO_NODE,         /* index, node */
    DEMO_DEVICE,       /* index, device */
    DEMO_SUPPORT,      /* support, texts */
    DEMO_PLACE,        /* conversation, turns, info, places */
    DEMO_DONE,         /* value: events left when the deadline came; totals */
};

#define DEMO_PLACES_MAX 8
struct demo_place {
    struct abode_session_info info;
    int32_t home_node;
    uint32_t place_count; /* of the placement; at most DEMO_PLACES_MAX are here, like ones merged */
    struct abode_place places[DEMO_PLACES_MAX];
};
struct demo_message {
    uint32_t type; /* enum demo_message_type */
    uint32_t conversation;
    uint32_t turns;
    uint32_t index;
    int64_t value;
    union {
        struct demo_totals totals;
        struct abode_node_info node;
        struct abode_device_info device;
        struct cli_support_line support[CLI_SUPPORT_LINES];
        struct demo_place place;
    };
};

/* ---- what the parent knows at the end ---------------------------------------------------------- */
#define DEMO_NODES_MAX 64
#define DEMO_DEVICES_MAX 16
struct demo_session { /* the oracle's book on one conversation */
    uint32_t turns_acknowledged;
    bool spilling; /* a durable detach is under way */
    bool deleted, delete_firm;
    bool lost;    /* could not be restored */
    bool placed;  /* `place` is filled */
    bool checked; /* by the audit */
    struct demo_place place;
};
struct demo_result {
    struct workload workload;
    struct demo_session *sessions; /* conversation_count */
    uint32_t node_count, device_count;
    struct abode_node_info nodes[DEMO_NODES_MAX];
    struct abode_device_info devices[DEMO_DEVICES_MAX];
    struct cli_support_line support[CLI_SUPPORT_LINES];
    bool support_known;
    struct demo_totals totals; /* sum over all children */
    uint64_t seed;
    uint64_t turns;                      /* acknowledged */
    uint64_t turns_left;                 /* not started when the time was up */
    uint64_t turns_whole_unacknowledged; /* killed between the write and the word of it */
    uint32_t kills, spills_at_kills, processes;
    uint64_t acknowledged_lost, deleted_returned;
    uint64_t recover_ns_max; /* open + recovery after a kill */
    double seconds, cpu_seconds;
    double prefill_rate;                /* tokens/s, assumed */
    uint64_t memory_bytes, store_bytes; /* budgets */
    uint64_t memory_peak_bytes;         /* largest resident set of a child, by the kernel */
};

/* picture.c: the map of where every session lives. */
void picture_print(const struct demo_result *result, FILE *stream);
/* One line a session: tokens, bytes in memory and in the store, node, device. */
void list_print(const struct demo_result *result, FILE *stream);
/* demo_report.c: costs, stateless against stateful; the object for --json. */
void report_print(const struct demo_result *result, FILE *stream);
json_t *report_json(const struct demo_result *result);
struct report_compare { /* stateless against stateful, on this very workload */
    uint64_t stateless_tokens, stateful_tokens; /* to compute before an answer can begin */
    double stateless_seconds, stateful_seconds;
    uint64_t stateful_bytes_moved;
    double memory_gib_s, store_gib_s; /* GiB x seconds of the workload's clock */
    double all_memory_gib_s;          /* had every session stayed in memory all the time */
    double break_even_rate;           /* tokens/s of prefill above which computing again wins */
};
struct report_compare report_compare(const struct demo_result *result);

/* ---- the child --------------------------------------------------------------------------------- */
enum host_stage {
    HOST_IDLE = 0,  /* detached, or not there yet; an event moves it on */
    HOST_ATTACHING, /* its op is in flight */
    HOST_DEFERRED,  /* memory was full: its attach is tried again when others have detached */
    HOST_DETACHING,
    HOST_OVER, /* deleted, or given up as lost */
};
struct host_session {
    struct abode_session handle;
    struct abode_op op;
    struct abode_key row_key; /* attention model: key of the last full row */
    enum host_stage stage;
    uint32_t turn; /* that the running event does */
    uint32_t turns_done;
    bool exists;
    uint32_t full_tries; /* detaches of this turn that found the store full */
    bool delete_unsure;  /* deleted, and no later durable op has ended yet */
    uint64_t submit_ns, submit_sequence, delete_sequence;
};
#define HOST_READY_MAX (2 * DEMO_IN_FLIGHT_MAX)
#define HOST_PLANES_MAX 16
struct host {
    struct demo_task task;
    struct workload workload;
    struct abode *runtime;
    struct abode_queue *queue;
    uint32_t models[MODEL_COUNT];
    uint64_t plane_offsets[MODEL_COUNT][MODEL_COMPONENTS][HOST_PLANES_MAX];
    bool plane_offsets_known[MODEL_COUNT];
    struct host_session *sessions; /* conversation_count */
    struct workload_event *events;
    uint32_t event_count, event_next;
    uint32_t in_flight, deferred; /* events begun and not ended; of these, HOST_DEFERRED */
    bool room_made; /* a session has detached since the last look at the deferred ones */
    uint32_t deferred_tries, waits;         /* without progress */
    struct abode_op *ready[HOST_READY_MAX]; /* finished, not yet handled: first in, first out */
    uint32_t ready_first, ready_count;
    uint64_t sequence;
    uint64_t clock_ms; /* of the workload */
    uint64_t sample_ns, sample_bytes_restored;
    struct demo_totals totals;
    uint32_t complaint_count;
};
/* Take finished ops into `ready`, and sample what comes in from the store. Called between pieces
 * of work, so that completions are seen when they happen. timeout_ns as abode_poll. */
int host_breathe(struct host *host, int64_t timeout_ns) __attribute__((warn_unused_result));

/* demo_tell.c: messages to the parent. */
int host_tell(const struct host *host, enum demo_message_type type, uint32_t conversation,
              int64_t value) __attribute__((warn_unused_result));
int host_tell_totals(struct host *host, enum demo_message_type type, uint32_t conversation,
                     int64_t value) __attribute__((warn_unused_result));
int host_tell_places(struct host *host) __attribute__((warn_unused_result));

/* demo_state.c: the bytes of one attached session. */
/* Every byte of the session's state, as it must be after `turns` turns; wrong ones are counted. */
int state_check(struct host *host, uint32_t conversation, uint32_t turns)
    __attribute__((warn_unused_result));
/* Prompt and answer of a turn, snapshots, note. */
int state_append(struct host *host, uint32_t conversation, uint32_t turn)
    __attribute__((warn_unused_result));
/* Keys of the first rows of a conversation: row_count of them. */
void state_row_keys(const struct host *host, uint32_t conversation, uint32_t row_count,
                    struct abode_key *ret_keys);

#endif
