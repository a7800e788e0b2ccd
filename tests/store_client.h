/*
 * store_client.h - a small client of the store for its tests: numbered keys, each with a value and a
 * place that holds pages made from that value. It is the reference model as well: what a test has
 * been promised is in `keys`, and store_client_verify() reads every byte of it back.
 *
 * Entries: PUT {key, value, place}, DELETE {key}, FILL (nothing, any size). Any thread.
 */
#ifndef AB_TESTS_STORE_CLIENT_H
#define AB_TESTS_STORE_CLIENT_H

#include <pthread.h>

#include "store/store.h"

#define STORE_CLIENT_KEYS 512u
#define STORE_CLIENT_PAGES_MAX 16u

struct store_client_key {
    bool present;
    bool lost; /* replayed, but the store had no such place */
    uint64_t value;
    struct ab_slot slot;
    uint32_t pages, generation;
};
struct store_client {
    pthread_mutex_t mutex;
    struct ab_store *store;
    const struct ab_os *os; /* for payload */
    struct store_client_key keys[STORE_CLIENT_KEYS];
    uint64_t replayed, fills_replayed;
    uint32_t checkpoint_fill; /* bytes of FILL that each checkpoint says as well */
    int checkpoint_error;
    uint32_t checkpoints;
    int replay_error;
    char log[16384]; /* all lines of the store, as far as they fit */
    struct ab_log sink;
};

void store_client_init(struct store_client *client, const struct ab_os *os);
/* config with the callbacks of this client; the caller adds what it likes */
struct ab_store_config store_client_config(struct store_client *client, const char *const *paths,
                                           uint32_t path_count);
int store_client_open(struct store_client *client, const struct ab_store_config *config);
/* The same; if it fails, so does the program, with what the store has logged. */
void store_client_open_well(struct store_client *client, const struct ab_store_config *config);
void store_client_close(struct store_client *client);

struct store_client_op { /* one commit; give it to put or delete, then wait */
    struct ab_commit commit;
    struct store_client *client;
    uint32_t key;
    bool is_put;
    struct store_client_key next;
    struct ab_extent extent;
    uint64_t entry[8]; /* bytes of the entry */
    int status;
    bool is_done;
    pthread_cond_t cond;
};
/* Reserve, write, hand in; -errno: it did not come to a commit. */
int store_client_put_begin(struct store_client *client, struct store_client_op *op, uint32_t key,
                           uint64_t value, uint32_t pages, enum ab_promise promise);
int store_client_delete_begin(struct store_client *client, struct store_client_op *op, uint32_t key,
                              enum ab_promise promise);
int store_client_wait(struct store_client_op *op);
/* begin and wait */
int store_client_put(struct store_client *client, uint32_t key, uint64_t value, uint32_t pages,
                     enum ab_promise promise);
int store_client_delete(struct store_client *client, uint32_t key, enum ab_promise promise);
/* Entries of this size that say nothing, in one commit. */
int store_client_fill(struct store_client *client, uint32_t bytes, enum ab_promise promise);
/* One DURABLE commit of these entries that says it names so many segments (numbers 0, 1, ...), or
 * this one; waits. */
int store_client_entries(struct store_client *client, struct store_client_op *op,
                         const void *entries, size_t bytes, uint32_t segment_count);
int store_client_entries_of(struct store_client *client, struct store_client_op *op,
                            const void *entries, size_t bytes, uint32_t segment);
int store_client_barrier(struct store_client *client, enum ab_promise promise);
/* 0: every key's pages hold its value. Else 1 + the first wrong key. */
uint32_t store_client_verify(struct store_client *client);

/* Paths for the directories of a store, none of them made yet, in a new one (store_test_remove(root)). */
struct store_test_places {
    char root[64];
    char names[3][96];
    const char *paths[3];
};
void store_test_places(struct store_test_places *ret);
/* A new empty directory, in memory where the machine has such a file system; path of 64 bytes. */
void store_test_directory(char *ret_path);
void store_test_remove(const char *path); /* with everything in it */

#endif
