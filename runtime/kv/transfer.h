/*
 * transfer.h - the one mover: service threads, moves of blocks, tasks that need moves.
 *
 *   host's op -> task -> moves (restore: slot -> frame; spill: frame -> slot, in batches = extents)
 *                   \-> record -> commit            one service thread per (node, device), one ring each
 *
 * A task is an op in progress, or work of abode's own (prefetch, spill under memory pressure,
 * compaction). Tasks are stepped under lock KV by whichever service thread comes by; bytes are
 * copied, checksummed, read and written without it. A task that can do nothing now waits in
 * `hungry` and is stepped again when anything comes free.
 */
#ifndef AB_KV_TRANSFER_H
#define AB_KV_TRANSFER_H

#include "io/io.h"
#include "kv/kv.h"
#include "kv/persist.h"
#include "machine/threads.h"

#define AB_BATCH_ITEMS AB_EXTENT_ITEMS_MAX
#define AB_BATCH_BYTES (4u << 20)             /* of one extent, if it has more than one block */
#define ROOM_TRIES_MAX 64                     /* a full store: so many compactions, then -ENOSPC */
#define ROOM_WAIT_NS (1000ull * 1000 * 1000)  /* their end wakes who waits; else after so long */
#define SPILL_PAUSE_NS (100ull * 1000 * 1000) /* guess: trying in vain costs little */
#define AB_COMMIT_BYTES (16u << 20)           /* an op commits what it has after so much payload */

enum ab_move_state { /* who moves it on */
                     AB_MOVE_FREE = 0,
                     AB_MOVE_QUEUED,    /* the service: copies, checksums, submits */
                     AB_MOVE_IN_FLIGHT, /* the kernel */
                     AB_MOVE_LANDED,    /* the service: verifies, scatters, then the task */
};
enum ab_move_kind { AB_MOVE_RESTORE = 1, AB_MOVE_SPILL, AB_MOVE_COPY_IN, AB_MOVE_COPY_OUT };

/* a piece of host memory: one run (flat region) or one run a plane (planar) */
struct ab_host_item {
    const struct ab_region *region; /* NULL: none, the frame is the whole story */
    uint64_t offset;                /* flat: bytes; planar: frame number */
};

struct ab_batch;
struct ab_move {
    struct ab_list link;
    enum ab_move_state state;
    enum ab_move_kind kind;
    struct ab_task *task;
    struct ab_batch *batch; /* SPILL */
    struct ab_host_item host;
    uint32_t block;
    uint32_t item; /* cache ops: index of the item */
    struct ab_slot slot;
    uint32_t generation;
    uint64_t bytes;
    void *address;        /* frame or host memory: what is read or written */
    bool staged;          /* address is a frame, host bytes go through it */
    bool scrub;           /* of a task of that kind: it gives way to all others */
    bool owns_frame;      /* the block has a frame that this move pinned */
    uint64_t checksum[2]; /* RESTORE: [0] expected; SPILL: computed */
    int status;
    struct ab_io_request request;
};

struct ab_batch { /* blocks that go into one extent */
    struct ab_list link;
    struct ab_task *task;
    struct ab_extent extent;
    uint32_t count, pending;
    int status;
    struct ab_move *moves[AB_BATCH_ITEMS];
    struct ab_extent_item items[AB_BATCH_ITEMS];
    void *page; /* the header, 4 KiB aligned */
    struct ab_io_request request;
};

enum ab_task_kind {
    AB_TASK_ATTACH = 1,
    AB_TASK_PREFETCH,
    AB_TASK_DETACH,
    AB_TASK_SPILL, /* a session's dirty blocks, under memory pressure or by flush */
    AB_TASK_PUT,
    AB_TASK_GET,
    AB_TASK_DELETE,
    AB_TASK_ITEM_SPILL, /* cache items that are in memory only */
    AB_TASK_COMPACT,
    AB_TASK_SCRUB,
    AB_TASK_RECALL, /* moves for an older restore point of an attached session */
};
enum ab_task_phase {
    AB_PHASE_START = 0,
    AB_PHASE_ISSUE,
    AB_PHASE_WAIT,
    AB_PHASE_COMMIT,
    AB_PHASE_DONE
};

struct ab_task {
    struct ab_list link;   /* runnable or hungry */
    struct ab_list active; /* all tasks in progress */
    struct ab_kv *kv;
    enum ab_task_kind kind;
    enum ab_task_phase phase;
    struct abode_op *op; /* NULL: abode's own */
    struct abode_queue *queue;
    uint32_t session, generation, flags, model;
    int32_t node;
    uint64_t deadline_ns;
    int status; /* first failure */
    bool cancelled, hungry, hungry_for_frames;
    uint32_t pending; /* moves and batches in flight */
    uint32_t commits; /* in flight */
    /* attach, detach, spill: where we are */
    uint64_t token_count, limit;
    uint32_t row, component, rows_good, failed_row;
    bool point_failed, wrote, unpinned;
    uint64_t walked;     /* detach: places before are clean, or in this task's batches */
    uint32_t room_tries; /* to make room in a full store */
    uint64_t retry_ns;   /* hungry until then at most; 0: until kicked */
    /* what a commit will say */
    struct ab_record *record;
    uint64_t record_bytes;
    enum ab_promise promise;
    /* cache */
    struct abode_item *items;
    const struct abode_key *keys;
    uint32_t item_count, item_at;
    /* compaction */
    uint32_t segment, block_at;
};

struct ab_service {
    struct ab_transfer *transfer;
    int32_t node;
    uint32_t device; /* of the store; AB_INDEX_NONE: no store */
    struct ab_io *io;
    struct ab_thread *thread;
    struct ab_lock lock;
    struct ab_list inbox_moves, inbox_batches, inbox_buffers;
    bool opened, stop;
    int open_status;
    struct ab_cond changed;
    uint32_t *files; /* io file of each segment, + 1 */
    uint32_t depth;
    struct ab_io_facts facts; /* under lock: copied when the ring is up, and after registrations */
};

struct ab_loaded { /* a block that is about to be moved */
    uint32_t block;
    uint32_t page;     /* place and checksum that it had: a block of that number may be another */
    uint64_t checksum; /* by now */
    uint64_t at;       /* in the bounce buffer; unused if it was resident */
    bool resident;     /* not read: good only as long as it has its frame */
    bool good;         /* its bytes are there, and in no batch yet */
};
struct ab_compaction { /* of the one that runs */
    bool running;
    bool drops; /* blocks that nobody owns are dropped, not moved */
    uint32_t count;
    uint64_t bytes, capacity; /* of the bounce buffer, filled and in all */
    unsigned char *bounce;
    struct ab_loaded loaded[AB_BATCH_ITEMS];
};

struct ab_scrub { /* lock KV; bytes_per_second is set at open */
    uint64_t bytes_per_second;
    bool running;
    uint32_t at;           /* in the block table */
    uint32_t found;        /* damaged, not told yet */
    uint64_t slice_bytes;  /* read since the slice began */
    uint64_t next_ns;      /* when the next slice begins */
    unsigned char *buffer; /* of the task, while its move is in flight */
    uint64_t capacity;
};

struct ab_transfer {
    bool ready; /* under lock KV: all services run, and may be woken from anywhere */
    struct ab_kv *kv;
    uint32_t service_count, device_count, node_count;
    struct ab_service *services; /* node-major: node * device_count + device */
    struct ab_list runnable, hungry, active;
    struct ab_list moves_free, batches_free, tasks_free; /* tasks of abode's own */
    struct ab_move *moves;
    uint32_t move_count;
    struct ab_batch *batches;
    struct ab_task *tasks;
    unsigned char *pages; /* header pages of batches */
    uint32_t in_flight;   /* moves, batches, commits */
    uint32_t engine;      /* enum abode_io, as configured */
    struct ab_compaction compaction;
    struct ab_scrub scrub;
    uint64_t compact_checked_ns;
    int spill_status;        /* of the last spill of a session for its frames */
    uint64_t spill_retry_ns; /* after one that failed, the next one is not tried before */
    uint64_t items_retry_ns; /* the same for items */
};

/* Sets kv->transfer. */
int ab_transfer_open(struct ab_kv *kv, const struct abode_config *config) AB_MUST_CHECK;
/* Ends the threads, sets kv->transfer to NULL; nothing of the host's is in flight. */
void ab_transfer_close(struct ab_transfer *transfer);
/* Register memory with all rings (services do it themselves), waits. add false: remove. */
void ab_transfer_buffer(struct ab_kv *kv, void *base, uint64_t bytes, int32_t node, bool add);
struct ab_io_facts ab_transfer_facts(struct ab_transfer *transfer); /* of the first service */

/* ---- lock KV held ---- */
void ab_task_start(struct ab_task *task); /* active and runnable; wakes a service */
struct ab_task *ab_task_own_new(struct ab_kv *kv, enum ab_task_kind kind); /* NULL: none now */
void ab_task_wait(struct ab_task *task, bool for_frames);                  /* hungry */
void ab_task_runnable(struct ab_task *task);
void ab_transfer_kick(struct ab_kv *kv); /* hungry tasks may go on */
void ab_room_kick(struct ab_kv *kv);     /* tasks that wait for room in the store may go on */
void ab_transfer_wake(struct ab_kv *kv); /* some service looks at what is runnable */
/* The task's restores end without it, under a task of abode's own. false: none to be had now. */
bool ab_task_restores_leave(struct ab_task *task);
void ab_task_finish(struct ab_task *task,
                    int status); /* op to its queue, or own task to the pool */
/* What reserve & co. answer when there is no frame: -EAGAIN (being freed), -ABODE_EFULL (all is
 * pinned), -ENOSPC (what is not would have to be written, and the store is full). */
int ab_frames_shortage(struct ab_kv *kv, struct ab_component *component);

struct ab_move *ab_move_new(struct ab_kv *kv, struct ab_task *task, enum ab_move_kind kind,
                            uint32_t block); /* NULL: none now */
void ab_move_free(struct ab_kv *kv, struct ab_move *move);
void ab_move_send(struct ab_kv *kv, struct ab_move *move); /* RESTORE, COPY_* */
/* Frame for a stored block and a move that fills it; 0, -EAGAIN no move or frame now. */
int ab_restore_start(struct ab_kv *kv, struct ab_task *task, uint32_t block, int32_t node,
                     uint32_t tenant);

struct ab_batch *ab_batch_new(struct ab_kv *kv, struct ab_task *task); /* NULL: none now */
/* Add a block; false: no move now, or the batch is full for it. */
bool ab_batch_add(struct ab_kv *kv, struct ab_batch *batch, uint32_t block);
/* Reserve the extent and send it; on failure everything is as before, the batch is gone. */
int ab_batch_send(struct ab_kv *kv, struct ab_batch *batch, enum ab_stream stream,
                  int32_t node) AB_MUST_CHECK;
/* the record that a task's batches report to; NULL: out of memory */
struct ab_record *ab_task_record(struct ab_task *task);
/* Commit what the record holds; done as for ab_record. */
void ab_task_commit(struct ab_task *task, void (*done)(struct ab_record *record, int status));

void ab_attach_step(struct ab_task *task);
void ab_detach_step(struct ab_task *task);
void ab_cache_step(struct ab_task *task);
void ab_item_spill_step(struct ab_task *task);
void ab_compact_step(struct ab_task *task);
void ab_recall_step(struct ab_task *task);
void ab_cache_move_done(struct ab_task *task, struct ab_move *move);
void ab_compact_move_done(struct ab_task *task, const struct ab_move *move);
void ab_cache_put_landed(struct ab_task *task, struct ab_move *move, int status);
void ab_move_done(struct ab_kv *kv, struct ab_move *move);
void ab_batch_done(struct ab_kv *kv, struct ab_batch *batch);
bool ab_spill_session_start(struct ab_kv *kv, uint32_t session);
bool ab_spill_items_start(struct ab_kv *kv, const struct ab_component *component);
void ab_prefetch_start(struct ab_kv *kv, struct ab_session *session);
void ab_scrub_step(struct ab_task *task);
void ab_scrub_move_done(struct ab_kv *kv, const struct ab_move *move);
void ab_scrub_start(struct ab_kv *kv);              /* if a slice is due */
void ab_scrub_tell(struct ab_transfer *transfer);   /* no lock held: what it found, to the log */
void ab_compact_start(struct ab_kv *kv, bool must); /* must: somebody waits for room */

/* region.c */
struct ab_region {
    struct abode_region host; /* planes point to the copies below */
    void **planes;
    uint64_t *plane_strides;
    uint32_t *plane_bytes;
    uint64_t item_bytes; /* planar: sum of the planes */
    bool used, removing;
    uint32_t busy; /* items in flight that lie in it; lock KV */
};

/* ---- queue.c ---- */
struct abode_queue;
int ab_queue_open(struct ab_kv *kv, uint32_t depth, struct abode_queue **ret) AB_MUST_CHECK;
int ab_queue_close(struct abode_queue *queue) AB_MUST_CHECK;
struct ab_kv *ab_queue_kv(const struct abode_queue *queue);
/* A task for a new op, or NULL: depth reached. The op is in flight from now on. */
struct ab_task *ab_queue_task(struct abode_queue *queue, struct abode_op *op,
                              enum ab_task_kind kind);
void ab_queue_task_undo(struct ab_task *task); /* the call failed: the op never was in flight */
void ab_queue_complete(struct ab_task *task, int status); /* lock KV held */
struct ab_task *ab_queue_find(struct abode_queue *queue, const struct abode_op *op); /* lock KV */
int ab_queue_poll(struct abode_queue *queue, struct abode_op **ret_ops, uint32_t capacity,
                  int64_t timeout_ns) AB_MUST_CHECK;
int ab_queue_fd(const struct abode_queue *queue);
uint32_t ab_queue_pending(const struct abode_queue *queue);

#endif
