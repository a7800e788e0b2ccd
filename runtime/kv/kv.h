/*
 * kv.h - the state that the kv layer keeps: models, blocks, frames in use, sessions.
 *
 *   session --rows--> block --frame--> memory      identity, memory and disk are three things:
 *                       \----slot----> store       a block may have a frame, a slot, both, neither
 *
 * One lock (rank KV) guards everything here; sections are short and bounded. Exception: an attached
 * session's row tables and counters belong to the host thread that uses the session, which reads
 * them without the lock while it stays inside a row (append.c). Who moves bytes is transfer.c alone; evict.c
 * and place.c only decide; persist.c turns changes into journal entries and back.
 */
#ifndef AB_KV_KV_H
#define AB_KV_KV_H

#include <abode/abode.h>
#include <errno.h>
#include <stdatomic.h>

#include "base/list.h"
#include "base/lock.h"
#include "base/log.h"
#include "kernels/kernels.h"
#include "machine/frame.h"
#include "store/store.h"

#define AB_MODELS_MAX 32
#define AB_REGIONS_MAX 64
#define AB_EVENTS_MAX 65536
#define AB_TENANT_NEVER UINT32_MAX /* frame not used yet: all zero */
#define AB_RESTORE_POINTS_MAX 20   /* kept ones (at most 8), stored ones (at most 8), the new one */
#define AB_SNAPSHOTS_KEPT_MAX 8
#define AB_BLOCK_TOKENS_MAX 65536
#define AB_SESSION_TOKENS_MAX (1ull << 26) /* rows fit 32 bits with room */
#define AB_COMPONENT_ID(model, component) ((uint8_t)((model)*ABODE_COMPONENTS_MAX + (component)))

struct ab_task;
struct ab_region;

/* ---- block: 48 bytes, stored or resident ---- */
enum ab_block_flags {
    AB_BLOCK_USED = 1u << 0,
    AB_BLOCK_OWNED = 1u << 1,   /* sessions name it: `refs` counts them; else `stamp` ages it */
    AB_BLOCK_DIRTY = 1u << 2,   /* memory is newer than the slot, or there is no slot */
    AB_BLOCK_BAD = 1u << 3,     /* its stored bytes failed: never given out again */
    AB_BLOCK_PENDING = 1u << 4, /* a put is in flight */
    AB_BLOCK_KEYED = 1u << 5,   /* in the index */
    AB_BLOCK_MOVING = 1u << 6,  /* a spill of it is in flight: bytes must not change */
    AB_BLOCK_HELD = 1u << 7, /* a session holds it for its committed record: see ab_session.held */
};
struct ab_block {
    uint64_t key[2];   /* fingerprint of the key, see ab_block_fingerprint() */
    uint64_t checksum; /* low half of the payload's XXH3-128 */
    uint32_t segment;  /* AB_INDEX_NONE: not stored */
    uint16_t page;
    uint8_t component; /* AB_COMPONENT_ID */
    uint8_t flags;
    uint32_t bytes; /* payload */
    uint32_t frame; /* AB_INDEX_NONE: not resident */
    union {
        uint32_t refs;
        uint32_t stamp;
    };
    uint32_t hash_next; /* chain of the index, or of the free list */
};
_Static_assert(sizeof(struct ab_block) == 48, "P19: metadata of a stored block");

enum ab_frame_state {
    AB_FRAME_FREE = 0,
    AB_FRAME_RESTORING, /* a move fills it */
    AB_FRAME_READY,
    AB_FRAME_FAILED, /* its move failed: released with the last pin */
};
struct ab_frame_info { /* of a frame in use */
    uint32_t block;
    uint32_t pins;   /* attached sessions and moves */
    uint32_t stamp;  /* tick of the last use */
    uint32_t tenant; /* last owner: the frame is zeroed before it changes hands */
    uint8_t state;   /* enum ab_frame_state */
};

/* ---- model ---- */
struct ab_component {
    uint32_t kind; /* enum abode_component_kind */
    uint32_t window_tokens;
    uint32_t kept;
    uint32_t plane_count;
    uint64_t plane_offsets[ABODE_PLANES_MAX];
    uint32_t plane_bytes[ABODE_PLANES_MAX];
    uint64_t block_bytes; /* payload of a whole block: end of the last plane; BYTES: bytes_max */
    uint64_t planes_hash; /* of offsets and sizes */
    uint64_t memory_bytes;
    struct ab_frames *frames; /* NULL: not declared in this process */
    struct ab_frame_info *infos;
    uint32_t waiting; /* calls that found no frame since a service looked */
    uint32_t hand;    /* of the last-resort sweep */
};
struct ab_model {
    bool known;    /* declared now, or found in the store */
    bool declared; /* in this process: has frames */
    uint32_t block_tokens;
    uint32_t component_count;
    uint32_t row_max; /* rows of the longest session */
    uint64_t tokens_max;
    uint8_t tag[32];
    bool has_snapshots; /* SNAPSHOT or BYTES components: restore points are explicit */
    bool has_windows;
    uint32_t row_component_count; /* PAGED and WINDOW ones */
    uint64_t token_bytes;         /* of these, per token */
    struct ab_component components[ABODE_COMPONENTS_MAX];
    uint32_t *tables;      /* lazy map: 2 * row components * row_max a session */
    uint64_t table_stride; /* in uint32_t */
};

/* ---- session ---- */
enum ab_session_state {
    AB_SESSION_FREE = 0,
    AB_SESSION_DETACHED,
    AB_SESSION_ATTACHING, /* by an attach task */
    AB_SESSION_ATTACHED,  /* the host's thread */
    AB_SESSION_DETACHING, /* a detach task writes */
    AB_SESSION_DELETED,   /* waits for an internal spill to end */
};
struct ab_restore_point {
    uint64_t token_count;
    uint32_t blocks[ABODE_COMPONENTS_MAX]; /* of SNAPSHOT and BYTES components, or none */
    bool stored;                           /* part of the committed record */
    uint8_t pinned; /* bit c: the frame of blocks[c] is, by the attached session */
};
struct ab_session {
    struct ab_list lru; /* detached with frames: coldest first */
    uint32_t generation;
    uint8_t state;
    uint8_t durability;
    uint8_t stored_promise; /* enum ab_promise of the committed record; 0: of an earlier process */
    bool named, note_dirty, ended;
    bool recorded; /* the journal knows it */
    bool changed;  /* points differ from the committed record, or it is not committed yet */
    uint32_t model, tenant;
    int32_t home_node;
    uint64_t token_count;
    uint32_t row_count; /* rows that have blocks: ceil(token_count), more while reserved */
    uint32_t reserved_tokens;
    uint32_t row_first[ABODE_COMPONENTS_MAX]; /* WINDOW: first row still kept; else 0.
                                                 Behind it rows that no position needs
                                                 are AB_INDEX_NONE */
    uint32_t slide_row[ABODE_COMPONENTS_MAX]; /* WINDOW: below it nothing is left to let go */
    uint32_t evict_row[ABODE_COMPONENTS_MAX]; /* detached: no frame at or above this row */
    uint32_t dirty_row;                       /* rows below are stored and clean */
    uint32_t point_count;
    struct ab_restore_point points[AB_RESTORE_POINTS_MAX]; /* ascending */
    uint32_t reserved_blocks[ABODE_COMPONENTS_MAX];        /* snapshot_reserve, uncommitted */
    uint32_t held[ABODE_COMPONENTS_MAX]; /* block of held_row in the committed record, where the
                                            row has been copied since; AB_INDEX_NONE */
    uint32_t held_row;
    uint64_t stored_tokens; /* committed record: tokens, rows, first window rows */
    uint32_t stored_rows;
    uint32_t stored_row_first[ABODE_COMPONENTS_MAX];
    struct abode_key name;
    uint32_t name_next;
    uint32_t stamp;                      /* tick of the last detach */
    uint64_t keep_until_ns, next_use_ns; /* advice; CLOCK_MONOTONIC, 0: none */
    int detach_status;                   /* of the last detach, or of abode_flush's */
    struct ab_task *task;                /* the host's op in flight */
    struct ab_task *spill;               /* an internal spill in flight */
    int recall_status;                   /* how the last moves of recall.c failed; 0 */
    uint8_t *note, *note_stored; /* note_dirty: the committed record has note_stored, else note */
    uint32_t note_size, note_stored_size;
};

struct ab_counters { /* any thread, relaxed */
    _Atomic uint64_t bytes_accepted, bytes_spilled, bytes_headers, bytes_restored;
    _Atomic uint64_t checksum_failures, io_errors, blocks_evicted, sessions_dropped;
    _Atomic uint64_t remote_bytes;
    _Atomic uint64_t bytes_scrubbed, scrub_rounds;
};

struct ab_transfer;
struct ab_kv {
    const struct ab_os *os;
    const struct ab_log *log;
    const struct ab_topology *topology;
    const struct ab_kernels *kernels;
    struct ab_store *store; /* NULL: memory only */
    struct ab_transfer *transfer;
    struct ab_poison *poison;
    struct ab_lock lock;
    bool read_only, keep_keys;
    bool closing; /* no task of our own starts any more */
    uint8_t durability;
    uint64_t deletes;         /* of sessions, said to the journal */
    uint64_t deletes_durable; /* so many of them survive a loss of power */
    uint64_t node_mask;
    enum ab_huge huge;
    uint64_t memory_left; /* of memory_bytes_max, not given to a model yet */
    uint32_t reclaim_low_percent, reclaim_high_percent;

    struct ab_model models[AB_MODELS_MAX];
    struct ab_block *blocks;                    /* lazy map */
    uint32_t block_capacity;                    /* of the map; the journal may name any below it */
    uint32_t block_max, block_high, block_free; /* high: never used above; free: list head */
    uint32_t block_used, block_stored, block_keyed;
    uint32_t *buckets; /* index: fingerprint -> chain of blocks */
    uint32_t bucket_mask;
    struct abode_key *keys;                             /* ABODE_KEEP_KEYS: lazy map, by block */
    struct ab_session *sessions;                        /* lazy map */
    uint32_t session_max;                               /* places */
    uint32_t session_limit, session_high, session_used; /* limit: what the config allows */
    uint32_t session_free;                              /* list through name_next */
    uint32_t *names;                                    /* buckets: name -> chain of sessions */
    uint32_t name_mask;
    struct ab_list lru;
    uint32_t tick;
    uint64_t random;                            /* state of the sampler */
    uint64_t spill_bytes_per_day, spill_tokens; /* token bucket */
    uint64_t spill_refilled_ns;
    struct ab_event {
        struct abode_key key;
        uint32_t next;
    } * events; /* keys that left by themselves; a list a model, all in one pool */
    uint32_t event_free, event_high; /* list of free ones; never used from high on */
    struct ab_event_list {
        uint32_t first, last, count; /* first and last count for something if count > 0 */
        uint64_t lost;
    } event_lists[AB_MODELS_MAX];
    struct ab_region *regions;
    uint32_t queue_count;
    struct ab_counters counters;
};

struct ab_kv_config {
    const struct ab_os *os;
    const struct ab_log *log;
    const struct ab_topology *topology;
    struct ab_poison *poison;
    const struct abode_config *config;
    uint32_t block_max;
};
int ab_kv_open(const struct ab_kv_config *config, struct ab_kv **ret) AB_MUST_CHECK;
void ab_kv_close(struct ab_kv *kv); /* NULL is fine; the store is closed already */
uint64_t ab_kv_metadata_bytes(struct ab_kv *kv);

/* ---- model.c ---- */
int ab_model_declare(struct ab_kv *kv, const struct abode_model_desc *desc,
                     uint32_t *ret_model) AB_MUST_CHECK;
void ab_models_close(struct ab_kv *kv);  /* frames; rings forget them */
void ab_models_forget(struct ab_kv *kv); /* tables; after the store's last checkpoint */
/* the replay's side: known, not declared */
int ab_model_tables_open(struct ab_kv *kv, struct ab_model *model) AB_MUST_CHECK;
static inline bool ab_component_has_rows(const struct ab_component *component)
{
    return component->kind == ABODE_PAGED || component->kind == ABODE_WINDOW;
}
/* its place in the model, AB_INDEX_NONE: it is another model's */
static inline uint32_t ab_component_index(const struct ab_model *model,
                                          const struct ab_component *component)
{
    bool inside =
        component >= model->components && component < model->components + model->component_count;
    return inside ? (uint32_t)(component - model->components) : UINT32_MAX;
}
static inline struct ab_component *ab_component_of(struct ab_kv *kv, const struct ab_block *block)
{
    return &kv->models[block->component / ABODE_COMPONENTS_MAX]
                .components[block->component % ABODE_COMPONENTS_MAX];
}

/* ---- block.c: all with the lock held ---- */
uint32_t ab_block_new(struct ab_kv *kv, uint8_t component); /* AB_INDEX_NONE: table full */
void ab_block_free(struct ab_kv *kv, uint32_t block);       /* no frame, no slot, not keyed */
/* Replay: make `block` exist. */
int ab_block_restore(struct ab_kv *kv, uint32_t block) AB_MUST_CHECK;
/* Rebuild the free list after replay. */
void ab_blocks_sweep(struct ab_kv *kv);
void ab_block_fingerprint(uint8_t component, uint32_t tenant, const struct abode_key *key,
                          uint64_t ret_key[2]);
uint32_t ab_block_find(struct ab_kv *kv, uint8_t component, const uint64_t key[2]);
void ab_block_key_add(struct ab_kv *kv, uint32_t block, const uint64_t key[2]);
void ab_block_key_remove(struct ab_kv *kv, uint32_t block);
static inline bool ab_block_is_stored(const struct ab_block *block)
{
    return block->segment != AB_INDEX_NONE;
}
static inline struct ab_slot ab_block_slot(const struct ab_block *block)
{
    return (struct ab_slot){.segment = block->segment, .page = block->page};
}
/* Changed with the lock held; an append reads them without (block_is_open), so each value that is
 * ever stored must be true: never two steps where the first looks like a block that may be written. */
static inline void ab_block_flags_change(struct ab_block *block, uint8_t set, uint8_t clear)
{
    uint8_t flags = (uint8_t)((block->flags & ~clear) | set);
    __atomic_store_n(&block->flags, flags, __ATOMIC_RELAXED);
}
static inline void ab_block_mark(struct ab_block *block, uint8_t set)
{
    ab_block_flags_change(block, set, 0);
}
static inline void ab_block_unmark(struct ab_block *block, uint8_t clear)
{
    ab_block_flags_change(block, 0, clear);
}
/* Compaction writes it without a frame: until that is committed, nobody reads its old place. */
static inline bool ab_block_is_leaving(const struct ab_block *block)
{
    return (block->flags & AB_BLOCK_MOVING) != 0 && block->frame == AB_INDEX_NONE &&
           ab_block_is_stored(block);
}
static inline uint32_t ab_pages(uint64_t bytes)
{
    return (uint32_t)((bytes + AB_PAGE - 1) / AB_PAGE);
}
/* A frame for the block on `node` or the nearest node that has one; reclaims clean ones. */
uint32_t ab_frame_obtain(struct ab_kv *kv, uint32_t block, int32_t node, uint32_t tenant);
void ab_frame_release(struct ab_kv *kv, uint32_t block); /* unpinned */
void ab_frame_pin(struct ab_kv *kv, const struct ab_block *block);
/* The last one drops a block that lost its last name while a move had it: `block` is gone then. */
void ab_frame_unpin(struct ab_kv *kv, const struct ab_block *block);
static inline struct ab_frame_info *ab_block_frame_info(struct ab_kv *kv,
                                                        const struct ab_block *block)
{
    return &ab_component_of(kv, block)->infos[block->frame];
}
unsigned char *ab_block_address(struct ab_kv *kv, const struct ab_block *block);

#endif
