/*
 * fuzz_store.h - a small real store as the ground for hostile bytes: made once, put back before each
 * run. Sessions: FUZZ_HYBRID (two restore points), FUZZ_FORK (of it), FUZZ_PAGED (PAGED alone, with a
 * note), FUZZ_WINDOW (PAGED and WINDOW); the content of each but the last is api_fixture's.
 */
#ifndef AB_TESTS_FUZZ_FUZZ_STORE_H
#define AB_TESTS_FUZZ_FUZZ_STORE_H

#include "fuzz/fuzz.h"
#include "store/format.h"
#include "unit/api_fixture.h"

enum { FUZZ_HYBRID = 1, FUZZ_FORK, FUZZ_PAGED, FUZZ_WINDOW, FUZZ_SESSIONS };
enum {
    FUZZ_HYBRID_TOKENS = 21,
    FUZZ_FORK_TOKENS = 21 + 9,
    FUZZ_PAGED_TOKENS = 20,
    FUZZ_WINDOW_TOKENS = 40,
    FUZZ_SALT = 7,
    FUZZ_SEGMENTS = 4,
};

struct fuzz_file {
    uint8_t *bytes;
    size_t size; /* 0: there is none */
};
struct fuzz_store {
    struct api *api; /* closed; its config opens the store as a writer */
    struct fuzz_file superblock, journal;
    struct fuzz_file segments[FUZZ_SEGMENTS];
    bool is_written; /* segment files may have changed since the last reset */
};
/* The same one at each call. */
struct fuzz_store *fuzz_store_get(void);
/* All files as they were made. */
void fuzz_store_reset(struct fuzz_store *store);
void fuzz_store_put(const struct fuzz_store *store, const char *name, const void *bytes,
                    size_t size);
/* Open it (read-only or not) with the models declared where that is possible; api->runtime is NULL
 * after a failure, whose code is returned. */
int fuzz_store_open(struct fuzz_store *store, bool read_only);
void fuzz_store_close(struct fuzz_store *store);
struct abode_model_desc fuzz_window_desc(void);

/* A journal: its header page, END of an empty checkpoint, then `entries` cut into records of one
 * commit each at entries of type 0; returns its size. ret has FUZZ_JOURNAL_BYTES. */
#define FUZZ_JOURNAL_BYTES (FUZZ_SIZE_MAX * 4)
size_t fuzz_journal_make(const struct fuzz_store *store, const uint8_t *entries, size_t size,
                         uint8_t *ret);
/* The entries of the store's own journal, in that form. */
size_t fuzz_entries_get(const struct fuzz_store *store, uint8_t *ret, size_t capacity);
/* Entries as inputs: sizes made right; fields changed. */
size_t fuzz_entries_seal(uint8_t *bytes, size_t size);
size_t fuzz_entries_mutate(uint8_t *bytes, size_t size, size_t capacity,
                           struct fuzz_random *random);

#endif
