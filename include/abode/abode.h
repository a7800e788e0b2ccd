/*
 * abode.h - keep the state of hosted models: in memory on the right NUMA node, on disk, and back.
 *
 * This header is the manual. Reading order: words, errors, config, runtime, model, queue and op,
 * session, append, snapshot, view, advice, block cache, reports.
 *
 * WORDS
 *   model      geometry of the state of one hosted model (one parallel rank)
 *   component  one kind of state of a model: PAGED, WINDOW, SNAPSHOT or BYTES
 *   block      the bytes of one component for `block_tokens` consecutive tokens, all its planes
 *   row        the blocks of all PAGED and WINDOW components for the same tokens: row r holds
 *              tokens [r * block_tokens, (r + 1) * block_tokens)
 *   plane      one tensor inside a block (layer 7's K, an MLA latent, a convolution state)
 *   frame      a place in memory that holds one block; belongs to one NUMA node
 *   slot       a place in the store that holds one block
 *   session    ordered rows, snapshots and a token count; attached or detached
 *   attached   every needed block has a frame and is pinned: pointers are valid until detach
 *   restore point  a token position at which every component is complete
 *
 * RULES
 *   Results    int: 0 or a count on success; a negative code on failure (-errno or -ABODE_E*).
 *              `ret_` parameters are written on success only.
 *   Threads    Calls on one runtime may run at the same time from any threads. One session is
 *              used by one thread at a time, one queue is polled by one thread at a time: the
 *              host orders those. No call runs host code on abode's threads, except config.log.
 *   Blocking   No call waits for I/O, except abode_open, abode_close, abode_model_add,
 *              abode_region_add/remove, abode_verify, abode_inspect and abode_poll with a
 *              timeout. Everything else that needs I/O is an op, finished through a queue.
 *   fork(2)    A runtime belongs to the process that opened it: in a child each call on it is
 *              -ENOTRECOVERABLE and touches nothing (but abode_queue_fd and abode_queue_pending,
 *              which answer as ever); frames are not there, a pointer into one ends
 *              the child. A child that lives on without exec keeps the store locked, even when
 *              the parent has ended.
 *   Structs    start with struct_size = sizeof of the caller's version; reserved fields are zero.
 *
 * Linux, C11 or C++17. Node numbers are dense: 0 .. node_count - 1, in the operating system's
 * order; abode_machine_node_get() gives the operating system's own number.
 */
#ifndef ABODE_H
#define ABODE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define ABODE_API __attribute__((visibility("default")))
#define ABODE_MUST_CHECK __attribute__((warn_unused_result))
#else
#define ABODE_API
#define ABODE_MUST_CHECK
#endif
#ifndef ABODE_INLINE
#define ABODE_INLINE static inline /* runtime/front/ffi.c redefines it to emit linkable copies */
#endif

#define ABODE_VERSION_MAJOR 0
#define ABODE_VERSION_MINOR 1
#define ABODE_VERSION_PATCH 0

/* major << 16 | minor << 8 | patch of the library that is loaded. Any thread. */
ABODE_API uint32_t abode_version(void);

/* ---- errors -------------------------------------------------------------------------------
 * Functions return -errno or one of these, negated. Meaning of the -errno values used:
 *   -EINVAL an argument is out of range      -ENOENT no such session, name, model or op
 *   -EBUSY  attached / in flight already     -EAGAIN ask again: frames are being freed, queue full
 *   -ENOTCONN the session is detached        -EXDEV  session and queue are of two runtimes
 *   -ENOSPC the store has no room            -EROFS  opened read-only, or devices went bad
 *   -EIO    a device or the kernel failed    -ENOMEM no memory for it
 *   -ENOTRECOVERABLE a promise inside abode broke: the runtime answers nothing any more
 */
#define ABODE_ERRORS(X)                                                          \
    X(ABODE_ESTALE, 5001, "session handle refers to a deleted session")          \
    X(ABODE_ECORRUPT, 5002, "stored bytes failed their checksum")                \
    X(ABODE_EFORMAT, 5003, "store was written by an incompatible version")       \
    X(ABODE_EMODEL, 5004, "stored state belongs to another model")               \
    X(ABODE_EFULL, 5005, "memory budget reached and nothing can be evicted now") \
    X(ABODE_EPARTIAL, 5006, "only a prefix of the request succeeded")            \
    X(ABODE_ESTORE, 5007, "directory is not an abode store, or not all of one")  \
    X(ABODE_ELOCKED, 5008, "store is in use by another process")
enum abode_error {
#define X(name, value, text) name = value,
    ABODE_ERRORS(X)
#undef X
};
/* Text for any code that this library returns, sign ignored. Static string. Any thread. */
ABODE_API const char *abode_strerror(int code);

/* ---- config -------------------------------------------------------------------------------
 * Fill with abode_config_init(), then change what you want. Zero means default. A field that a
 * newer caller knows and this library does not must be zero, else abode_open gives -E2BIG.
 */
enum abode_io { ABODE_IO_AUTO = 0, ABODE_IO_URING, ABODE_IO_THREADS, ABODE_IO_SYNC };
/* what a finished op has promised */
enum abode_durability {
    ABODE_DURABILITY_DEFAULT = 0, /* sessions DURABLE, cache face WRITTEN */
    ABODE_MEM,                    /* lost with the process; never wrong */
    ABODE_WRITTEN,                /* survives kill -9 of the process */
    ABODE_DURABLE,                /* survives power loss */
};
enum abode_huge { ABODE_HUGE_AUTO = 0, ABODE_HUGE_THP, ABODE_HUGE_TLB, ABODE_HUGE_NONE };
enum abode_config_flags {
    ABODE_READ_ONLY = 1u << 0, /* open the store for inspection beside its writer; no memory */
    ABODE_CREATE = 1u << 1,    /* make the store where the directories are empty */
    ABODE_KEEP_KEYS = 1u << 2, /* keep 32-byte keys in memory, for abode_cache_events() */
};
enum abode_log_level { ABODE_LOG_ERROR = 1, ABODE_LOG_WARNING, ABODE_LOG_INFO };
struct abode_config {
    uint32_t struct_size;
    uint32_t flags;                 /* enum abode_config_flags */
    uint64_t memory_bytes_max;      /* frames of all models and nodes; default 1 GiB */
    uint64_t store_bytes_max;       /* of all directories; default: half of what is free. A segment
                                       of each is kept back for compaction */
    const char *const *store_paths; /* one directory a device; NULL: memory only */
    uint32_t store_path_count;
    uint32_t segment_bytes; /* segment files of a new store; default 64 MiB, small stores less */
    uint64_t spill_bytes_per_day_max; /* endurance budget for spilled bytes; 0: none */
    uint64_t node_mask;               /* NUMA nodes to use, dense numbering; 0 = all allowed */
    uint32_t io;                      /* enum abode_io */
    uint32_t durability;              /* enum abode_durability, default of new sessions */
    uint32_t huge;                    /* enum abode_huge */
    uint32_t session_count_max;       /* default 16,384 */
    uint32_t block_count_max;         /* stored + resident; default: by store and memory */
    uint32_t io_depth;                /* MiB in flight per (node, device), at most 64; 0 = 8 */
    uint32_t reclaim_low_percent;     /* free frames under this: evict ... default 2 */
    uint32_t reclaim_high_percent;    /* ... until this many are free; default 5 */
    const char *topology;             /* NULL: this machine; hwloc XML file; "synthetic:..." */
    void (*log)(void *log_context, int level, const char *line); /* never with a lock held */
    void *log_context;
    uint64_t scrub_bytes_per_second; /* read back and check what lies in the store only, at this
                                        pace while the runtime is open; 0: do not */
};
ABODE_API void abode_config_init_sized(struct abode_config *config, size_t struct_size);
ABODE_INLINE void abode_config_init(struct abode_config *config)
{
    abode_config_init_sized(config, sizeof(*config));
}

/* ---- runtime: as many as you like per process, no globals ----------------------------------
 * abode_open   maps nothing yet for models; opens or makes the store and recovers it (reads the
 *              journal, no payload); starts one service thread per (node, device).
 *              -ABODE_ELOCKED another process has the store; -ABODE_ESTORE not a store, or one of
 *              its directories is missing or foreign, or two stores are mixed (config.log says
 *              which and what to do); -ABODE_EFORMAT; -EINVAL; -ENOMEM; -EROFS; -ENOSPC.
 * abode_close  -EBUSY while ops are in flight or queues are open. Attached sessions keep what
 *              was acknowledged. Frees everything; all pointers given out die.
 */
struct abode;
ABODE_API ABODE_MUST_CHECK int abode_open(const struct abode_config *config, struct abode **ret);
ABODE_API ABODE_MUST_CHECK int abode_close(struct abode *runtime);

/* ---- model ---------------------------------------------------------------------------------
 * What state one hosted model keeps, declared once per process; the tag guards restores. All
 * PAGED and WINDOW components of a model share one block_tokens, so that one key names a row.
 */
struct abode_plane { /* one tensor inside a block */
    uint32_t bytes_per_block;
    uint32_t align; /* power of two, at most 4096; 0 = 64 */
};
enum abode_component_kind {
    ABODE_PAGED = 1, /* bytes per token; full blocks are sealed, content-addressed, shareable */
    ABODE_WINDOW,    /* as PAGED; only blocks overlapping the last window_tokens are needed */
    ABODE_SNAPSHOT,  /* fixed size, valid at exactly one position; the newest few survive */
    ABODE_BYTES,     /* the host's own bytes at a position, any size up to bytes_max */
};
#define ABODE_COMPONENTS_MAX 8
#define ABODE_PLANES_MAX 512
struct abode_component {
    uint32_t kind;           /* enum abode_component_kind */
    uint32_t window_tokens;  /* WINDOW */
    uint32_t snapshots_kept; /* SNAPSHOT, BYTES: restore points whose state is kept; 0 = 1, max 8 */
    uint32_t plane_count;    /* BYTES: 0 */
    const struct abode_plane *planes; /* copied */
    uint64_t bytes_max;               /* BYTES: largest size; also the size of its frames */
    uint64_t memory_bytes;            /* this component's share of frames; 0 = by need */
};
struct abode_model_desc {
    uint32_t struct_size;
    uint32_t component_count;                 /* 1 .. ABODE_COMPONENTS_MAX */
    const struct abode_component *components; /* copied */
    uint32_t block_tokens;                    /* of PAGED and WINDOW components; 1 .. 65,536 */
    uint32_t reserved;
    uint64_t session_tokens_max;     /* longest session; 0 = 1,048,576 */
    uint64_t session_tokens_typical; /* to share memory out among components; 0 = 8,192 */
    uint64_t memory_bytes;           /* of config.memory_bytes_max; 0 = all that is left */
    uint8_t tag[32]; /* digest of weights id, dtype, rope, parallel rank: what makes state differ */
};
/* Declare a model; reserves, binds, prefaults and registers its memory (P14: about 0.25 s/GiB a
 * thread). A model that the store knows gets its sessions back. -ABODE_EMODEL the store has this
 * tag with another geometry; -EEXIST declared already; -ENOMEM budget used up; -EINVAL. */
ABODE_API ABODE_MUST_CHECK int abode_model_add(struct abode *runtime,
                                               const struct abode_model_desc *desc,
                                               uint32_t *ret_model);

/* ---- queue and op --------------------------------------------------------------------------
 * The caller owns ops; an op must not move or be reused until abode_poll() returns it (or the
 * call that started it failed). Fields marked (in) are the caller's before the call.
 */
struct abode_queue;
struct abode_op {
    void *user_data;     /* (in) the caller's own */
    uint64_t timeout_ns; /* (in) give up after this long with -ETIMEDOUT; 0: no limit. What a device
                            has begun to write, or to read into the host's memory, is waited for */
    int32_t status;      /* 0 or negative; valid once abode_poll() has returned the op */
    uint32_t item_count; /* attach: rows; cache: items */
    uint32_t item_good;  /* longest prefix of them that is usable */
    uint32_t reserved;
    uint64_t opaque[12]; /* abode's own while in flight */
};
/* At most `depth` ops in flight; one more is refused with -EAGAIN. 1 <= depth <= 65,536. */
ABODE_API ABODE_MUST_CHECK int abode_queue_open(struct abode *runtime, uint32_t depth,
                                                struct abode_queue **ret);
ABODE_API ABODE_MUST_CHECK int abode_queue_close(struct abode_queue *queue); /* -EBUSY */
/* An eventfd that polls readable while finished ops wait; abode_poll() clears it. */
ABODE_API int abode_queue_fd(const struct abode_queue *queue);
/* Ops submitted and not yet returned by abode_poll(). To drain: poll until this is 0. */
ABODE_API uint32_t abode_queue_pending(const struct abode_queue *queue);
/* Take finished ops; returns how many. timeout_ns: 0 do not wait, negative wait without end. */
ABODE_API ABODE_MUST_CHECK int abode_poll(struct abode_queue *queue, struct abode_op **ret_ops,
                                          uint32_t capacity, int64_t timeout_ns);
/* Ask for an op to end early. It still comes back through abode_poll(), with -ECANCELED or, where
 * it was past stopping, its own result. -ENOENT: not in flight (finished, or never started). */
ABODE_API ABODE_MUST_CHECK int abode_cancel(struct abode_queue *queue, struct abode_op *op);

/* ---- keys ----------------------------------------------------------------------------------
 * A key is a content address of a row or cache item, or the name of a session. Chains are SHA-256,
 * each field length-prefixed and labelled, so that keys of two tenants never meet. Any thread.
 */
struct abode_key {
    uint8_t bytes[32];
};
ABODE_API void abode_key_root(const uint8_t model_tag[32], const void *tenant_salt,
                              size_t tenant_salt_size, const void *adapter_id,
                              size_t adapter_id_size, struct abode_key *ret);
ABODE_API void abode_key_next(const struct abode_key *parent, const uint32_t *tokens,
                              uint32_t token_count, struct abode_key *ret);
/* Key from a host's own name of any length (vLLM's 36 bytes, LMCache's strings). */
ABODE_API void abode_key_from_bytes(const void *bytes, size_t size, struct abode_key *ret);

/* ---- session -------------------------------------------------------------------------------
 * {index, generation} by value: a stale handle is -ABODE_ESTALE, never a crash. raw 0 is never a
 * session.
 */
struct abode_session {
    uint64_t raw;
};
struct abode_session_opts {
    uint32_t struct_size;
    uint32_t model;
    int32_t home_node;            /* -1: let placement choose */
    uint32_t durability;          /* enum abode_durability; 0: the config's */
    const struct abode_key *name; /* NULL: anonymous, not found again after a restart */
    uint32_t tenant;              /* sharing goes by tenant: keys of two tenants never meet */
    uint32_t prefix_key_count;
    const struct abode_key *prefix_keys; /* start from the longest run of rows that abode holds
                                            under these keys (one per row); may be NULL */
};
/* A new session: empty and attached, or, where prefix_keys found rows, detached and holding those
 * rows (abode_session_stat tells token_count): attach it. Prefixes are only shared by models
 * without SNAPSHOT and BYTES components, others start empty. -EEXIST the name is taken;
 * -EAGAIN session_count_max reached. */
ABODE_API ABODE_MUST_CHECK int abode_session_create(struct abode *runtime,
                                                    const struct abode_session_opts *opts,
                                                    struct abode_session *ret);
/* A session by name, from memory or from the store. -ENOENT; -ABODE_EMODEL its model has not been
 * declared in this process. */
ABODE_API ABODE_MUST_CHECK int abode_session_find(struct abode *runtime,
                                                  const struct abode_key *name,
                                                  struct abode_session *ret);
/* A new anonymous attached session that shares the parent's rows up to token_count, which must be
 * a restore point of the parent, or 0; a partly filled last row is copied. The
 * parent must be attached (-ENOTCONN). name may be NULL. -EAGAIN, -ABODE_EFULL, -ENOSPC as for
 * reserve, and as for truncate. */
ABODE_API ABODE_MUST_CHECK int abode_session_fork(struct abode *runtime,
                                                  struct abode_session parent, uint64_t token_count,
                                                  const struct abode_key *name,
                                                  struct abode_session *ret_child);
/* Forget tokens from token_count on, which must be a restore point. Attached sessions only. An attach
 * restores what the newest restore point needs: state of an older one that is in the store only is
 * brought in first, and the answer is -EAGAIN, ask again, until it is there (-ABODE_EFULL, -ENOSPC, -EIO or
 * -ABODE_ECORRUPT if it cannot be: the session is as before). */
ABODE_API ABODE_MUST_CHECK int abode_session_truncate(struct abode *runtime,
                                                      struct abode_session session,
                                                      uint64_t token_count);
/* Delete: the handle is stale at once; the store forgets it in the background, before any later
 * op that promises DURABLE. -EBUSY while an op on it is in flight. */
ABODE_API ABODE_MUST_CHECK int abode_session_delete(struct abode *runtime,
                                                    struct abode_session session);
struct abode_session_info {
    uint32_t struct_size;
    uint32_t model;
    uint32_t tenant;
    uint32_t attached; /* 1: attached */
    uint64_t token_count;
    uint64_t restore_point;  /* newest, at most token_count; 0: none */
    uint64_t bytes_state;    /* bytes of all its blocks */
    uint64_t bytes_resident; /* of these in memory */
    uint64_t bytes_stored;   /* of these in the store */
    uint64_t stored_tokens;  /* restore point that the store holds, 0: none */
    struct abode_key name;   /* zero: anonymous */
    int32_t home_node;
    uint32_t row_count;
};
ABODE_API ABODE_MUST_CHECK int abode_session_stat(struct abode *runtime,
                                                  struct abode_session session,
                                                  struct abode_session_info *ret);
/* The host's own bytes about a session (token ids, chat state), at most ABODE_NOTE_MAX; stored
 * with the session by its next detach. get returns the size, copies at most capacity. */
#define ABODE_NOTE_MAX 65536
ABODE_API ABODE_MUST_CHECK int abode_session_note_set(struct abode *runtime,
                                                      struct abode_session session,
                                                      const void *bytes, size_t size);
ABODE_API ABODE_MUST_CHECK int abode_session_note_get(struct abode *runtime,
                                                      struct abode_session session, void *ret_bytes,
                                                      size_t capacity);

/* ---- append: reserve -> write K/V through the spans -> commit what was written --------------
 * No syscall, no waiting; no lock but at a row's start. Spans stay valid until commit; bytes
 * written through them afterwards are lost or refused by the checksum, never another session's.
 * reserve: returns spans used; each names a run of tokens inside one block. -EAGAIN frames are
 * being freed, poll or ask again; -ABODE_EFULL all memory is attached; -ENOSPC what is not attached
 * would have to be written, and the store is full: delete sessions, then ask again; -ENOBUFS
 * span_capacity too small (rows touched x PAGED and WINDOW components are needed); -EFBIG past
 * session_tokens_max.
 * A second reserve replaces the first. commit: token_count <= reserved (-EINVAL). sealed_keys:
 * one per row that became full, or none at all (then these rows are not shared).
 */
struct abode_span {
    uint32_t component;
    uint32_t row;
    uint32_t token_first; /* inside the row */
    uint32_t token_count;
    uint32_t node;
    uint32_t reserved;
    unsigned char *base; /* frame address; plane p starts at base + view.plane_offsets[p] */
};
ABODE_API ABODE_MUST_CHECK int abode_append_reserve(struct abode *runtime,
                                                    struct abode_session session,
                                                    uint32_t token_count,
                                                    struct abode_span *ret_spans,
                                                    uint32_t span_capacity);
ABODE_API ABODE_MUST_CHECK int abode_append_commit(struct abode *runtime,
                                                   struct abode_session session,
                                                   uint32_t token_count,
                                                   const struct abode_key *sealed_keys,
                                                   uint32_t sealed_key_count);

/* ---- snapshot: SNAPSHOT and BYTES components -------------------------------------------------
 * State that is valid at exactly the session's present token_count. A restore point of a model
 * with such components exists where every one of them was committed. reserve gives size bytes
 * (SNAPSHOT: its fixed size, pass 0), -EAGAIN, -ABODE_EFULL and -ENOSPC as for append; commit
 * publishes. get gives the state at the newest restore
 * point: pointer valid until detach, truncate or the next commit of that component.
 */
ABODE_API ABODE_MUST_CHECK int abode_snapshot_reserve(struct abode *runtime,
                                                      struct abode_session session,
                                                      uint32_t component, size_t size,
                                                      void **ret_bytes);
ABODE_API ABODE_MUST_CHECK int abode_snapshot_commit(struct abode *runtime,
                                                     struct abode_session session,
                                                     uint32_t component);
ABODE_API ABODE_MUST_CHECK int abode_snapshot_get(struct abode *runtime,
                                                  struct abode_session session, uint32_t component,
                                                  const void **ret_bytes, size_t *ret_size,
                                                  uint64_t *ret_token_count);

/* ---- attach and detach -----------------------------------------------------------------------
 * attach: restore what is missing at the newest restore point, verify, pin. node: where frames
 * should be, -1 = the session's home. Result 0; -ABODE_EPARTIAL (with ATTACH_PREFIX_OK: blocks
 * were lost or corrupt, the session is now shorter: abode_session_stat); -ABODE_ECORRUPT (without
 * it; detached still); -ABODE_EFULL, -ENOSPC (as for append), -EIO, -ENOMEM, -ETIMEDOUT,
 * -ECANCELED (detached still, and not worse for it: attach again). Never a mix.
 * detach: unpin, and keep the session's promise: DURABLE and WRITTEN finish when the store has
 * it, MEM at once. A failed detach leaves the session detached and in memory; the next detach, or
 * abode_flush, tries again. Tokens after the newest restore point are dropped by a detach.
 * Pointers, spans and views die when the call is made.
 */
enum abode_attach_flags { ABODE_ATTACH_PREFIX_OK = 1u << 0 };
enum abode_detach_flags {
    ABODE_DETACH_SPILL_NOW = 1u << 0, /* write to the store and free the frames */
    ABODE_DETACH_KEEP = 1u << 1,      /* checkpoint: keep the promise but stay attached; do not
                                         append before the op has finished */
};
ABODE_API ABODE_MUST_CHECK int abode_attach(struct abode_queue *queue, struct abode_session session,
                                            int32_t node, uint32_t flags, struct abode_op *op);
ABODE_API ABODE_MUST_CHECK int abode_detach(struct abode_queue *queue, struct abode_session session,
                                            uint32_t flags, struct abode_op *op);
/* Leading rows of an attach in flight that are verified and can be read already, through a view taken
 * while it is in flight: a host copies them, or starts on them, while the rest is being read. They count
 * if the op ends with 0. Where it does not (a later row is damaged, the time is over), what is read may
 * be replaced meanwhile, and frames[] of these rows may become ABODE_FRAME_NONE: load an entry once, or
 * take abode_view_plane(), and stop at such a row. The thread that submitted the op. */
ABODE_API uint32_t abode_attach_ready(const struct abode_op *op);

/* ---- view: what an attention kernel needs, no copies; valid while attached and unmodified -----
 * While an attach is in flight only frames of rows below abode_attach_ready() mean anything. */
/* this row of a WINDOW component has left the window; or the attach that brings it is failing */
#define ABODE_FRAME_NONE UINT32_MAX
struct abode_view {
    uint32_t struct_size;
    uint32_t row_count;
    uint64_t token_count;
    const uint32_t *frames; /* one per row; node = frame / frames_per_node */
    unsigned char *base;    /* one address range per component, all nodes side by side */
    uint64_t frame_stride;
    const uint64_t *plane_offsets;
    uint32_t plane_count;
    uint32_t frames_per_node;
};
ABODE_API ABODE_MUST_CHECK int abode_session_view(struct abode *runtime,
                                                  struct abode_session session, uint32_t component,
                                                  struct abode_view *ret);
/* NULL: there is no frame (ABODE_FRAME_NONE). */
ABODE_INLINE unsigned char *abode_view_plane(const struct abode_view *view, uint32_t row,
                                             uint32_t plane)
{
    uint32_t frame = __atomic_load_n(&view->frames[row], __ATOMIC_RELAXED);
    return frame == ABODE_FRAME_NONE
               ? NULL
               : view->base + (uint64_t)frame * view->frame_stride + view->plane_offsets[plane];
}

/* ---- advice: hints only, never an error to ignore --------------------------------------------- */
enum abode_advice {
    ABODE_WILL_NEED = 1, /* value: expected time until use, ns; starts a restore in advance */
    ABODE_IDLE_TOOL,     /* waiting for a tool; value: expected ns, 0 = unknown */
    ABODE_IDLE_PERSON,   /* waiting for a person; value: expected ns, 0 = unknown */
    ABODE_ENDED,         /* no further turn is expected */
    ABODE_PREFER_NODE,   /* value: node */
    ABODE_KEEP,          /* value: ns during which it should stay in memory */
};
ABODE_API void abode_advise(struct abode *runtime, struct abode_session session,
                            enum abode_advice advice, int64_t value);

/* ---- block cache: for hosts that own sessions and memory (vLLM, SGLang, LMCache) ---------------
 * Items are blocks of the model's first BYTES component, of any size up to its bytes_max, named by
 * key. Put copies or writes straight from the host's region; get reads straight into it.
 */
enum abode_memory { ABODE_HOST = 0, ABODE_CUDA };
struct abode_region { /* memory that items lie in; registered with rings and devices once */
    uint32_t struct_size;
    uint32_t memory; /* enum abode_memory; CUDA: -ENOTSUP in this version */
    int32_t device;  /* CUDA ordinal */
    int32_t node;    /* -1: mixed or unknown */
    void *base;      /* flat: items are base + offset, any size; valid until region_remove */
    uint64_t bytes;
    void *const *planes; /* planar: an item is one frame, gathered from plane p at
                            planes[p] + frame * plane_strides[p] (SGLang's K and V halves) */
    const uint64_t *plane_strides;
    const uint32_t *plane_bytes;
    uint32_t plane_count; /* 0: flat */
    uint32_t frame_count; /* planar: frames in each plane */
};
ABODE_API ABODE_MUST_CHECK int abode_region_add(struct abode *runtime,
                                                const struct abode_region *region,
                                                uint32_t *ret_region);
ABODE_API ABODE_MUST_CHECK int abode_region_remove(struct abode *runtime, uint32_t region);
enum abode_presence {
    ABODE_MISS = 0,
    ABODE_PENDING, /* a put is in flight: ask again */
    ABODE_STORED,
    ABODE_RESIDENT,
};
struct abode_item {
    struct abode_key key;
    uint64_t offset; /* flat region: byte offset; planar region: frame number */
    uint64_t bytes;  /* put: size; get: capacity, on completion the size that was stored */
    uint32_t region;
    int32_t status; /* per item, written at completion: 0, -ENOENT miss, -ABODE_ECORRUPT, ... */
};
/* Presence of each key, and, as the result, how many leading keys are there (STORED or RESIDENT).
 * No I/O. ret_presence may be NULL. */
ABODE_API ABODE_MUST_CHECK int abode_cache_probe(struct abode *runtime, uint32_t model,
                                                 const struct abode_key *keys, uint32_t key_count,
                                                 uint8_t *ret_presence);
/* items is read and written until the op comes back. durability: enum abode_durability, 0 =
 * WRITTEN (MEM without a store). An item that is there already is not written again. The op's
 * status is 0 if all items succeeded, else -ABODE_EPARTIAL; look at the items. */
ABODE_API ABODE_MUST_CHECK int abode_cache_put(struct abode_queue *queue, uint32_t model,
                                               struct abode_item *items, uint32_t item_count,
                                               uint32_t durability, struct abode_op *op);
ABODE_API ABODE_MUST_CHECK int abode_cache_get(struct abode_queue *queue, uint32_t model,
                                               struct abode_item *items, uint32_t item_count,
                                               struct abode_op *op);
/* Keys that are not there count as deleted. Finishes when the journal has it. */
ABODE_API ABODE_MUST_CHECK int abode_cache_delete(struct abode_queue *queue, uint32_t model,
                                                  const struct abode_key *keys, uint32_t key_count,
                                                  struct abode_op *op);
ABODE_API void abode_cache_touch(struct abode *runtime, uint32_t model,
                                 const struct abode_key *keys, uint32_t key_count);
/* Keys that left the cache by themselves (evicted with no copy left, or found corrupt) since the
 * last call; needs ABODE_KEEP_KEYS. Returns how many were copied out; ret_lost counts events that
 * did not fit the runtime's ring of 65,536, and those of items that are in the store since before the
 * last open and that no put or get has named in this process: their keys are not known. */
ABODE_API ABODE_MUST_CHECK int abode_cache_events(struct abode *runtime, uint32_t model,
                                                  struct abode_key *ret_keys, uint32_t capacity,
                                                  uint64_t *ret_lost);

/* ---- reports ----------------------------------------------------------------------------------- */
enum abode_tier { ABODE_TIER_MEMORY = 1, ABODE_TIER_STORE };
struct abode_place {   /* one line of the answer to "where does it live" */
    uint32_t tier;     /* enum abode_tier */
    int32_t node;      /* NUMA node of the memory or of the device; -1: the kernel does not say */
    uint32_t device;   /* STORE: index for abode_machine_device_get() */
    uint32_t verified; /* 1: the kernel confirmed it just now (move_pages, FIEMAP) */
    uint64_t bytes;
    uint64_t pages_elsewhere; /* MEMORY: 4 KiB pages that the kernel saw on another node */
};
#define ABODE_PLACES_MAX 64
struct abode_placement {
    uint32_t struct_size;
    int32_t home_node;
    uint32_t place_count;
    uint32_t flags;
    struct abode_place places[ABODE_PLACES_MAX];
};
/* Where a session's bytes are, the kernel asked for every 4 KiB page of memory and every segment
 * file: takes about 40 ms a GiB that is in memory. Not for the hot path. */
ABODE_API ABODE_MUST_CHECK int abode_session_placement(struct abode *runtime,
                                                       struct abode_session session,
                                                       struct abode_placement *ret);
struct abode_node_info {
    uint32_t struct_size;
    uint32_t os_index;
    uint32_t cpu_count; /* 0: memory only (CXL) */
    uint32_t reserved;
    uint64_t bytes_total; /* of the machine */
    uint64_t frame_bytes; /* abode's frames on it, all models */
    uint64_t frame_bytes_free;
};
struct abode_device_info {
    uint32_t struct_size;
    int32_t node;                     /* -1: the kernel does not say */
    char name[64];                    /* nvme0n1, vda, ... */
    char pci[32];                     /* PCI address, empty: none */
    char path[256];                   /* directory of the store on it */
    uint64_t bytes_total, bytes_used; /* of the store there */
};
ABODE_API ABODE_MUST_CHECK int abode_machine_node_get(struct abode *runtime, uint32_t node,
                                                      struct abode_node_info *ret); /* -ENOENT */
ABODE_API ABODE_MUST_CHECK int abode_machine_device_get(struct abode *runtime, uint32_t device,
                                                        struct abode_device_info *ret);
/* What open() asked for and what it got. Each *_reason is 0 or -errno of what was refused;
 * text gives reason and mend in one line, static or owned by the runtime. */
struct abode_support {
    uint32_t struct_size;
    int32_t io_engine, io_engine_reason;         /* enum abode_io */
    int32_t fixed_buffers, fixed_buffers_reason; /* 1: buffers are registered */
    int32_t direct_io, direct_io_reason;         /* 1: O_DIRECT on every directory */
    int32_t node_binding, node_binding_reason;   /* 2: mbind, 1: first touch, 0: none */
    int32_t huge_pages, huge_pages_reason;       /* enum abode_huge that was got */
    int32_t reserved;
    const char *io_engine_text, *fixed_buffers_text, *direct_io_text, *node_binding_text,
        *huge_pages_text; /* valid until abode_close */
};
ABODE_API ABODE_MUST_CHECK int abode_support_get(const struct abode *runtime,
                                                 struct abode_support *ret);
struct abode_stats {
    uint32_t struct_size;
    uint32_t node_count, device_count, session_count;
    uint64_t frames_total, frames_free, blocks_resident, blocks_pinned, blocks_stored;
    uint64_t bytes_accepted; /* state bytes that appends, snapshots and puts committed */
    uint64_t bytes_spilled;  /* payload written to the store */
    uint64_t bytes_written;  /* all bytes written for it: payload, headers, journal, compaction */
    uint64_t bytes_prepared; /* zeroes written ahead into new segments, once per segment */
    uint64_t bytes_restored, checksum_failures, io_errors;
    uint64_t blocks_evicted, sessions_dropped; /* dropped: lost their state to make room */
    uint64_t remote_attach_bytes; /* restored or read on a node other than the session's home */
    uint64_t metadata_bytes;      /* what abode itself uses: tables, index, queues */
    uint64_t store_bytes_total, store_bytes_live, store_bytes_free;
    uint64_t bytes_scrubbed, scrub_rounds; /* checked by scrubbing; times around the whole store */
};
ABODE_API ABODE_MUST_CHECK int abode_stats_get(const struct abode *runtime,
                                               struct abode_stats *ret);
/* Wait until everything that was asked for is in the store and durable, up to timeout_ns. */
ABODE_API ABODE_MUST_CHECK int abode_flush(struct abode *runtime, int64_t timeout_ns);
/* JSON lines: machine, support, models, sessions with places, store, statistics. `write` gets
 * whole lines, a session at a time, with no lock held; a negative result of it ends the walk. */
ABODE_API ABODE_MUST_CHECK int abode_inspect(struct abode *runtime,
                                             int (*write)(void *context, const char *text,
                                                          size_t size),
                                             void *context);
/* Read every stored block and check it. progress may be NULL; a negative result of it ends the
 * walk with that code. Damage is reported through `damage`, once per bad block. */
struct abode_damage {
    struct abode_key session_name; /* of one session that uses it; zero: anonymous or none */
    uint64_t token_first, token_count;
    uint32_t component;
    int32_t status;         /* -ABODE_ECORRUPT or the I/O error */
    char file[256];         /* segment file */
    uint64_t offset, bytes; /* range in it */
};
struct abode_verify_report {
    uint32_t struct_size;
    uint32_t reserved;
    uint64_t blocks_checked, bytes_checked, blocks_bad, bytes_bad;
};
ABODE_API ABODE_MUST_CHECK int abode_verify(struct abode *runtime,
                                            int (*progress)(void *context, uint64_t bytes_done,
                                                            uint64_t bytes_total),
                                            void (*damage)(void *context,
                                                           const struct abode_damage *damage),
                                            void *context, struct abode_verify_report *ret);

#ifdef __cplusplus
}
#endif
#endif
