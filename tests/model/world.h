/*
 * world.h - what the model test believes: the reference model's sessions and items, and the runtime
 * under test. test_model.c says what is done with it.
 */
#ifndef AB_TESTS_MODEL_WORLD_H
#define AB_TESTS_MODEL_WORLD_H

#include <abode/abode.h>
#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>

enum {
    BLOCK_TOKENS = 8,
    PAGED_BYTES = 1024, /* a token, in two planes */
    WINDOW_BYTES = 512,
    WINDOW_TOKENS = 20,
    STATE_BYTES = 12000,
    STATE = 2, /* components of the hybrid model: PAGED, WINDOW, SNAPSHOT, BYTES */
    BYTES = 3,
    NOTE_BYTES = 64,
    SESSIONS = 48,
    TOKENS_MAX = 400,
    ITEMS = 64,        /* of any size, in the flat region */
    PLANAR_ITEMS = 16, /* numbers from ITEMS on: of one size, also in the planar one */
    ITEM_BYTES_MAX = 40000,
    ITEM_ROOM = 45056,
    PLANES = 3,
    PLANAR_FRAMES = 8,
    TENANTS = 3,
    OPS_MAX = 8, /* in flight at once */
};

/* what a restore point's SNAPSHOT and BYTES state is made of; 0: none */
struct salts {
    uint32_t of[2];
};

/* a session as a restart brings it back */
struct image {
    bool exists;  /* some op has promised it */
    bool unknown; /* something failed half way: it may be there, or older */
    uint32_t count, previous;
    uint32_t tokens[TOKENS_MAX];
    struct salts points[TOKENS_MAX + 1];
    uint8_t note[NOTE_BYTES];
    uint32_t note_size;
};

struct reference {
    bool exists, attached, named;
    bool ended;        /* advised: it may go when the store is full */
    bool ended_stored; /* a record may say so still: it may go after a restart */
    bool busy;         /* an op on it is in flight */
    struct abode_session handle;
    uint32_t model, tenant, durability;
    uint32_t count;
    uint32_t tokens[TOKENS_MAX];
    uint32_t point, previous; /* newest whole restore points, 0: none */
    struct salts points[TOKENS_MAX + 1];
    uint8_t note[NOTE_BYTES];
    uint32_t note_size;
    struct image stored;
};

struct item {
    bool exists, stored;
    bool named; /* by a put or get since the last open: events can tell its key */
    bool left;  /* an event said so since the last put */
    uint32_t salt, bytes;
};

struct world {
    struct abode *runtime;
    struct abode_queue *queue;
    uint32_t models[2]; /* 0: hybrid, 1: paged only */
    uint32_t cache_model, region, planar;
    bool keeps_keys; /* of this open: events are given */
    unsigned char *memory, *planes;
    struct reference sessions[SESSIONS];
    struct item items[ITEMS + PLANAR_ITEMS];
    char directory[64];
    uint64_t seed, random, operations, checked_bytes, attaches, evicted, restored, reopened;
    uint64_t prefixes, returns; /* sessions that began with rows; truncated to `previous` */
    uint64_t recalls;           /* truncates that had to wait for state from the store */
};
extern struct world world;

/* model_world.c */
#define FAIL(...)                                                                 \
    do {                                                                          \
        printf("FAILED at operation %" PRIu64 " (ABODE_TEST_SEED=%" PRIu64 "): ", \
               world.operations, world.seed);                                     \
        printf(__VA_ARGS__);                                                      \
        model_failed();                                                           \
    } while (0)
#define EXPECT(condition)                                      \
    do {                                                       \
        if (!(condition)) {                                    \
            FAIL("%s:%d: %s", __FILE__, __LINE__, #condition); \
        }                                                      \
    } while (0)
#define EXPECT_STATUS(call, expected)                                        \
    do {                                                                     \
        int status_ = (call);                                                \
        if (status_ != (expected)) {                                         \
            FAIL("%s:%d: %s is %d (%s)", __FILE__, __LINE__, #call, status_, \
                 abode_strerror(status_));                                   \
        }                                                                    \
    } while (0)
__attribute__((noreturn)) void model_failed(void); /* a debugger stops here */
uint64_t model_random(void);
uint32_t model_below(uint32_t limit);
void model_fill(unsigned char *target, size_t bytes, uint64_t salt);
void model_expect_bytes(const unsigned char *bytes, size_t count, uint64_t salt, const char *what);
uint64_t model_number_from(const char *environment, uint64_t otherwise);
void model_nap(void);
int model_finish(struct abode_op *op);      /* the only one in flight; its status */
uint32_t model_plane_bytes(uint32_t plane); /* of the planar region */
void model_open(void);
void model_close(void);

/* model_sessions.c */
void model_create(void);
void model_create_from_prefix(void);
void model_find(void);
void model_append(void);
void model_snapshot(void);
void model_detach(void);
void model_attach(void);
void model_many(void); /* attaches and detaches in flight at once */
void model_fork(void);
void model_truncate(void);
void model_delete(void);
void model_note(void);
void model_stat(void);
void model_advise(void);
void model_flush(void);
void model_report(void);          /* placement, verify, inspect, statistics */
void model_sessions_refind(void); /* after a restart */

/* model_cache.c */
void model_put(void);
void model_get(void);
void model_cache_delete(void);
void model_touch(void);
void model_events(void);
void model_items_refind(void);

#endif
