/*
 * llama_bridge.h - what the files of the bridge share. abode_llama.h is the manual.
 */
#ifndef AB_LLAMA_BRIDGE_H
#define AB_LLAMA_BRIDGE_H

#include "abode_llama.h"
#include "blob.h"

#define AB_LLAMA_REASON_MAX 400
#define AB_LLAMA_DESCRIPTION_MAX 2048
#define AB_LLAMA_ATTENTIONS_MAX 2u
#define AB_LLAMA_ORDER_MAX 65536u /* bytes of a note, and of the order component */
#define AB_LLAMA_ROWS_AT_ONCE 64u /* of one reserve */
#define AB_LLAMA_SPANS_MAX (2 * (AB_LLAMA_ROWS_AT_ONCE + 1))

enum ab_llama_order_place { AB_LLAMA_ORDER_NONE = 0, AB_LLAMA_ORDER_NOTE, AB_LLAMA_ORDER_BYTES };

/* The order of cells, and where restore points are: as stored, in the machine's byte order. */
struct ab_llama_order {
    uint32_t magic, token_count;
    uint32_t stream;
    uint32_t point_count; /* points[]: ends of saves, oldest first */
    uint32_t points[ABODE_LLAMA_POINTS];
    uint32_t run_counts[AB_LLAMA_ATTENTIONS_MAX];
    struct ab_blob_run runs[]; /* of the first attention section, then of the second */
};
#define AB_LLAMA_ORDER_MAGIC 0x6f6c6261u
#define AB_LLAMA_RUNS_MAX \
    ((AB_LLAMA_ORDER_MAX - sizeof(struct ab_llama_order)) / sizeof(struct ab_blob_run))

/* A save whose state is in memory: its detach is in flight, or nothing is. */
struct ab_llama_leaving {
    struct abode_queue *queue; /* of its own: other ops of the bridge may end before it */
    struct abode_op op;
    struct abode_session session;
    bool under_way;
    bool is_new; /* the session was made by this save */
    int failed;  /* a save that failed and that no abode_llama_save_end() has told of */
};

struct abode_llama {
    struct abode *runtime;
    struct llama_context *context;
    struct abode_queue *queue;
    struct ab_llama_leaving leaving;
    bool share;
    bool whole; /* the layout is not known: the blob is one item */
    uint32_t model, about_model;
    uint32_t tokens_max;
    uint32_t block_tokens;
    uint32_t component_count;
    uint32_t component_of[AB_BLOB_SECTIONS_MAX]; /* of each section */
    uint32_t order_place;                        /* enum ab_llama_order_place */
    uint32_t order_component, whole_component;
    uint32_t token_bytes; /* of rows of all sections, ids not counted */
    struct ab_blob_layout layout;
    uint8_t tag[32];
    char layout_text[128];
    char description[AB_LLAMA_DESCRIPTION_MAX]; /* what the tag is the digest of */
    char reason[AB_LLAMA_REASON_MAX];
    /* scratch of a call */
    unsigned char *blob; /* mapped: in huge pages where there are */
    size_t blob_capacity;
    struct ab_llama_order *order;               /* AB_LLAMA_ORDER_MAX bytes */
    uint32_t *cell_of[AB_LLAMA_ATTENTIONS_MAX]; /* tokens_max each */
    struct abode_span *spans;
    struct abode_key *keys; /* of full rows */
    unsigned char *row;     /* one tensor of a row, to hash */
    struct XXH3_state_s *hash;
    struct abode_key chain; /* of the tokens of rows 0 .. chain_rows */
    uint32_t chain_rows;
};

/* Set the reason and pass the status on. */
int ab_llama_because(struct abode_llama *bridge, int status, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* The blob buffer grown to size; -ENOMEM. */
int ab_llama_blob_room(struct abode_llama *bridge, size_t size);
/* Wait for the one op that is in flight. `started`: what the call that started it said. */
int ab_llama_finish(struct abode_llama *bridge, struct abode_op *op, int started);
/* Between two tries of a call that said -EAGAIN; false after so many that no more should follow. */
bool ab_llama_pause(uint32_t *tries);

/* llama_rows.c: rows of one section for consecutive tokens, between a blob and a block */
struct ab_llama_piece {
    uint32_t section;
    uint32_t position; /* of the first token */
    uint32_t count;
    uint32_t token_first; /* where in the block */
    unsigned char *base;  /* the block */
    const uint64_t *plane_offsets;
};
/* Tokens without a cell become zeroes. */
void ab_llama_piece_keep(struct abode_llama *bridge, const struct ab_blob *blob,
                         const struct ab_llama_piece *piece);
/* Tokens without a cell are left out. */
void ab_llama_piece_restore(struct abode_llama *bridge, const struct ab_blob *blob,
                            const struct ab_llama_piece *piece);
/* Is what the block holds of these tokens what the blob holds? Of section 0. */
bool ab_llama_row_is_same(struct abode_llama *bridge, const struct ab_blob *blob,
                          const struct ab_llama_piece *piece);
/* Keys of full rows of PAGED state: equal for equal bytes after equal tokens only. begin: at the start
 * of a save. make: bridge->keys[row_first .. row_end); rows of an earlier call are not done again, and
 * none may be left out after it. */
void ab_llama_keys_begin(struct abode_llama *bridge);
void ab_llama_keys_make(struct abode_llama *bridge, const struct ab_blob *blob,
                        const llama_token *tokens, uint32_t row_first, uint32_t row_end);

/* llama_save.c: the save that is under way ends; how, if it failed. */
int ab_llama_leaving_end(struct abode_llama *bridge);
/* The same, and a failure is kept for abode_llama_save_end(). */
void ab_llama_leaving_settle(struct abode_llama *bridge);
/* A call found no room (`status`) while a save was under way, which holds memory until it has been
 * written, or given up. It has ended now: try again. */
bool ab_llama_leaving_made_room(struct abode_llama *bridge, int status);

/* llama_session.c: the session of a name, attached; what it has already. It is not under way. */
int ab_llama_session_find(struct abode_llama *bridge, struct abode_llama_name name,
                          struct abode_session *ret);
/* Attached afterwards. Attention-only sessions come back as far as they are sound. */
int ab_llama_session_attach(struct abode_llama *bridge, struct abode_session session,
                            uint32_t *ret_token_count);
/* The same for an attach that ended with `status`. */
int ab_llama_session_attached(struct abode_llama *bridge, struct abode_session session, int status,
                              uint32_t *ret_token_count);
int ab_llama_session_tokens(struct abode_llama *bridge, struct abode_session session,
                            uint32_t *ret_token_count);
int ab_llama_session_detach(struct abode_llama *bridge, struct abode_session session);
/* Cut an attached session; patient. */
int ab_llama_session_cut(struct abode_llama *bridge, struct abode_session session,
                         uint32_t token_count);
/* The order of an attached session into bridge->order. -EBADMSG: it is not one. */
int ab_llama_order_get(struct abode_llama *bridge, struct abode_session session,
                       uint32_t token_count);
/* bridge->order into an attached session. */
int ab_llama_order_set(struct abode_llama *bridge, struct abode_session session);
/* Reserve state at the session's present position; patient. */
int ab_llama_state_reserve(struct abode_llama *bridge, struct abode_session session,
                           uint32_t component, size_t size, void **ret_bytes);
/* Runs of a section in bridge->order. */
struct ab_blob_run *ab_llama_runs(struct abode_llama *bridge, uint32_t section);
/* How many attention sections the layout has; the sections after them are recurrent. */
uint32_t ab_llama_attentions(const struct abode_llama *bridge);

/* llama_identity.c: description and tag of what the context's state means; -errno. */
int ab_llama_identify(struct abode_llama *bridge, const struct abode_llama_opts *opts);
/* Keep the description where later processes find it. */
int ab_llama_about_add(struct abode_llama *bridge);
/* Reason for a miss: is the name there under another description, and what differs? */
void ab_llama_miss_reason(struct abode_llama *bridge, struct abode_llama_name name);
/* Name of the session of a conversation under a tag. */
void ab_llama_session_key(const uint8_t tag[32], struct abode_llama_name name,
                          struct abode_key *ret);

#endif
