/*
 * world.h - what the model test believes: the reference model's sessions and items, and the runtime
 * under test. Included by test_model.c only.
 */
#ifndef AB_TESTS_MODEL_WORLD_H
#define AB_TESTS_MODEL_WORLD_H

#include <abode/abode.h>

enum {
    BLOCK_TOKENS = 8,
    PAGED_BYTES = 1024, /* a token, in two planes */
    WINDOW_BYTES = 512,
    WINDOW_TOKENS = 20,
    STATE_BYTES = 12000,
    NOTE_BYTES = 64,
    SESSIONS = 48,
    TOKENS_MAX = 400,
    ITEMS = 64,
    ITEM_BYTES_MAX = 40000,
    TENANTS = 3,
    INSIDE_EVERY = 16,
};

struct reference {
    bool exists, attached, named;
    struct abode_session handle;
    uint32_t model, tenant, durability;
    uint32_t tokens[TOKENS_MAX];
    uint32_t count;
    uint32_t point;                  /* newest restore point, 0: none */
    uint32_t points[TOKENS_MAX + 1]; /* salt of the snapshot at each position, 0: none */
    uint32_t stored_count;           /* what the last acknowledged detach holds */
    uint32_t stored_tokens[TOKENS_MAX];
    uint32_t stored_salt;
    uint8_t note[NOTE_BYTES];
    uint32_t note_size;
    uint8_t stored_note[NOTE_BYTES];
    uint32_t stored_note_size;
};

struct item {
    bool exists, stored;
    uint32_t salt, bytes;
};

static struct {
    struct abode *runtime;
    struct abode_queue *queue;
    uint32_t models[2]; /* 0: hybrid, 1: paged only */
    uint32_t cache_model, region;
    unsigned char *memory;
    struct reference sessions[SESSIONS];
    struct item items[ITEMS];
    char directory[64];
    uint64_t seed, random, operations, checked_bytes, attaches, evicted, restored;
    uint32_t name_counter;
} world;

#endif
