/*
 * old_store.h - what lies in the fixtures of this folder, and a host that writes it and opens it.
 *
 * Sessions, items, geometry, content and the lines that describe them are what the fixtures were made
 * with: none of it may change. Not thread-safe; asserts with cmocka.
 */
#ifndef OLD_STORE_H
#define OLD_STORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "abode/abode.h"

#define BLOCK_TOKENS 16u
#define WINDOW_TOKENS 32u
#define TEXT_BYTES 16384u
#define SCRATCH_BYTES (2 * TEXT_BYTES)
#define CHURN_NOTE_BYTES 60000u
#define CHURN_COMMITS 300u /* of that note: past the 16 MiB from which on a checkpoint is made */
#define TALKS 5u
#define PIECES 5u

enum { KV = 0, WINDOW, STATE, BYTES, COMPONENTS };
enum { HYBRID = 0, PAGED, MODELS };

struct talk { /* a session */
    const char *name;
    uint32_t model, tenant, tokens, seed;
    uint32_t prefix_tokens, prefix_seed; /* of the session that it was forked from */
    uint32_t note_bytes;
    bool is_gone; /* deleted before the end */
};
struct piece { /* a cache item */
    const char *name;
    uint32_t bytes, seed;
    bool is_gone;
};
extern const struct abode_component old_components[COMPONENTS];
extern const struct talk old_talks[TALKS];
extern const struct piece old_pieces[PIECES];

struct host { /* a runtime over an unpacked store */
    char root[64], directories[2][96];
    const char *paths[2];
    uint32_t path_count;
    struct abode *runtime;
    struct abode_queue *queue;
    uint32_t models[MODELS];
    char log[8192];
    unsigned char *scratch; /* SCRATCH_BYTES, a region: items go through it */
};

/* ---- descriptions: lines, each a thing and the hash of all its bytes ---- */
struct text {
    char bytes[TEXT_BYTES];
    size_t size;
};
struct sum { /* what one line is about */
    void *context;
    uint64_t bytes;
};
void text_add(struct text *text, const char *format, ...) __attribute__((format(printf, 2, 3)));
void sum_begin(struct sum *sum);
void sum_add(struct sum *sum, const void *bytes, size_t size);
void sum_tell(struct sum *sum, struct text *text, const char *what, const char *name);
const char *old_component_name(uint32_t component);
uint32_t old_token_first(const struct talk *talk, uint32_t component); /* that has to be there */
/* From the formula: what the store was given. */
void talk_expect(struct text *text, const struct talk *talk);
void all_expect(struct text *text);

/* ---- the host ---- */
struct abode_key old_key(const char *name);
void host_paths(struct host *host, const char *root, uint32_t path_count); /* root/d0, root/d1 */
int host_try_open(struct host *host, uint32_t flags); /* abode_open alone, the log emptied before */
void host_open(struct host *host, uint32_t flags);    /* with models and a queue */
void host_close(struct host *host);
/* Wait for this op; its status. started: what the call that started it returned. */
int host_finish(struct host *host, struct abode_op *op, int started);
int host_attach(struct host *host, struct abode_session session);
int host_detach(struct host *host, struct abode_session session, uint32_t flags);
uint32_t host_region_add(struct host *host);

/* ---- making ---- */
void note_set(struct host *host, struct abode_session session, uint32_t seed, uint32_t bytes);
/* Create it, or fork it, and write all its turns; it stays attached. */
struct abode_session talk_make(struct host *host, const struct talk *talk);
/* The store of a fixture (closed, killed) in a directory; its description to stdout. */
int old_store_make(const char *kind, const char *directory);

#endif
