/*
 * persist.h - changes as journal entries, and journal entries as state.
 *
 * A `record` is one commit in the making: entries, the slots that the commit makes live, and the
 * slots that it makes dead. All of a record is replayed, or none of it.
 */
#ifndef AB_KV_PERSIST_H
#define AB_KV_PERSIST_H

#include "kv/kv.h"

enum ab_entry_type {
    AB_ENTRY_MODEL = 1,
    AB_ENTRY_BLOCK_PUT,
    AB_ENTRY_BLOCK_DROP,
    AB_ENTRY_SESSION_PUT,
    AB_ENTRY_SESSION_ROWS,
    AB_ENTRY_SESSION_NOTE,
    AB_ENTRY_SESSION_DELETE,
};

struct ab_entry_model { /* then struct ab_entry_component[component_count] */
    struct ab_entry entry;
    uint32_t model, block_tokens, component_count, reserved;
    uint64_t tokens_max;
    uint8_t tag[32];
};
struct ab_entry_component {
    uint32_t kind, window_tokens, kept, plane_count;
    uint64_t block_bytes;
    uint64_t planes_hash; /* offsets and sizes: another layout is another model */
};
struct ab_entry_block_put {
    struct ab_entry entry;
    uint32_t block;
    uint32_t segment;
    uint32_t generation;
    uint16_t page;
    uint8_t component;
    uint8_t keyed;
    uint32_t bytes;
    uint32_t stamp;
    uint64_t checksum[2];
    uint64_t key[2];
};
_Static_assert(sizeof(struct ab_entry_block_put) == 64, "the bulk of a journal");
struct ab_entry_block_drop { /* then uint32_t blocks[count], padded to 8 */
    struct ab_entry entry;
    uint32_t count, reserved;
};
struct ab_entry_point {
    uint64_t token_count;
    uint32_t blocks[ABODE_COMPONENTS_MAX];
};
struct ab_entry_session_put { /* then struct ab_entry_point[point_count] */
    struct ab_entry entry;
    uint32_t session, generation;
    uint32_t model, tenant;
    uint64_t token_count;
    int32_t home_node;
    uint8_t durability, named, point_count, ended;
    uint32_t row_first[ABODE_COMPONENTS_MAX];
    uint8_t name[32];
};
struct ab_entry_session_rows { /* then uint32_t blocks[count], padded to 8 */
    struct ab_entry entry;
    uint32_t session, generation;
    uint32_t component, row;
    uint32_t count, reserved;
};
struct ab_entry_session_note { /* then size bytes, padded to 8 */
    struct ab_entry entry;
    uint32_t session, generation;
    uint32_t size, reserved;
};
struct ab_entry_session_delete {
    struct ab_entry entry;
    uint32_t session, generation;
};

struct ab_record {
    struct ab_commit commit;
    struct ab_kv *kv;
    uint8_t *bytes;
    size_t size, capacity;
    struct ab_dead { /* slots to drop once committed */
        struct ab_slot slot;
        uint32_t pages;
    } * dead;
    uint32_t dead_count, dead_capacity;
    size_t drop_start, drop_end; /* the last entry, if it is a drop */
    bool failed;                 /* out of memory: the commit will not be made */
    bool says_changes;           /* that kv has made already: lost, the journal is made anew */
    uint64_t deletes;            /* of sessions, before it: durable when it is */
    void (*done)(struct ab_record *record, int status); /* kv lock held; may be NULL */
    void *context;
};
struct ab_record *ab_record_new(struct ab_kv *kv); /* NULL: out of memory */
void ab_record_free(struct ab_record *record);
/* Lock KV held: entries go to the journal in the order of these calls. `record` is the store's
 * from now on; done (or nobody) hears of it. */
void ab_record_submit(struct ab_record *record, enum ab_promise promise);

/* A change of kv could not be said (out of memory): the journal is made anew from what kv has. */
void ab_record_renew(struct ab_kv *kv);

void ab_record_model(struct ab_record *record, uint32_t model);
/* Room for so many block puts: they cannot fail then. A put that was not written down would leave
 * its block pinned and moving for ever. */
bool ab_record_room(struct ab_record *record, uint32_t puts);
void ab_record_block_put(struct ab_record *record, uint32_t block, struct ab_slot slot,
                         uint32_t generation, const uint64_t checksum[2]);
/* The block loses key, slot and, when the record is submitted, its number; frame is released if it has
 * one. Nobody may name it. */
void ab_record_block_drop(struct ab_record *record, uint32_t block);
/* What the store shall remember of the session from now on: up to token_count, a restore point.
 * Blocks that the present record names and this one does not are dropped later, by a second record:
 * a checkpoint made in between must find what the committed record names. */
void ab_record_session(struct ab_record *record, uint32_t session, uint64_t token_count,
                       bool committed);
/* That record is committed now. committed (both calls): only what the committed record has, cut
 * shorter (truncate); then it may be said at once. */
void ab_session_stored(struct ab_kv *kv, struct ab_session *session, uint64_t token_count,
                       bool committed);
void ab_session_entry_fill(struct ab_kv *kv, const struct ab_session *session,
                           struct ab_entry_session_put *entry);
void ab_model_entry_fill(const struct ab_model *model, uint32_t index,
                         struct ab_entry_model *entry);
void ab_record_session_delete(struct ab_record *record, uint32_t session, uint32_t generation);

/* client callbacks of the store */
int ab_persist_replay(void *kv, struct ab_store *store, const struct ab_entry *entry);
int64_t ab_persist_checkpoint(void *kv, uint64_t *cursor, void *bytes, size_t capacity);
/* After replay: count references, free what nobody names. */
int ab_persist_recovered(void *kv, struct ab_store *store) AB_MUST_CHECK;

#endif
