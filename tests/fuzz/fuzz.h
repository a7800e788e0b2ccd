/*
 * fuzz.h - one shape for all fuzz targets, so that libFuzzer and a plain program run the same code.
 *
 * A target takes bytes and must neither crash, hang nor break its own laws (fuzz_expect), whatever
 * they are. Where a hash or a length would stop everything at the door, `seal` makes them right
 * again after a mutation, and `mutate` knows fields.
 */
#ifndef AB_TESTS_FUZZ_FUZZ_H
#define AB_TESTS_FUZZ_FUZZ_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct fuzz_random {
    uint64_t state;
};
uint64_t fuzz_next(struct fuzz_random *random);
uint32_t fuzz_below(struct fuzz_random *random, uint32_t bound); /* bound 0: 0 */
uint32_t fuzz_interesting(
    struct fuzz_random *random); /* 0, 1, powers of two and their neighbours */

struct fuzz_target {
    const char *name;
    size_t size_max; /* of an input */
    bool is_slow;    /* opens stores: fewer changes where time is short */
    void (*run)(const uint8_t *bytes, size_t size);
    /* Change fields; the new size. NULL: only bytes are changed. */
    size_t (*mutate)(uint8_t *bytes, size_t size, size_t capacity, struct fuzz_random *random);
    /* Make hashes and lengths right; the new size. NULL: there are none. */
    size_t (*seal)(uint8_t *bytes, size_t size);
    /* The index-th first input; 0: there are no more. NULL: the corpus alone. */
    size_t (*seed)(uint32_t index, uint8_t *bytes, size_t capacity);
};
#define FUZZ_SIZE_MAX 32768u                           /* no target takes more */
extern const struct fuzz_target *const fuzz_targets[]; /* ends with NULL */
const struct fuzz_target *fuzz_target_find(const char *name);

/* Some bytes are changed, moved, repeated or removed; size <= capacity. */
size_t fuzz_mutate_bytes(uint8_t *bytes, size_t size, size_t capacity, struct fuzz_random *random);
/* What both fuzzers do to an input: the target's mutation or one of bytes, then usually the seal. */
size_t fuzz_mutate(const struct fuzz_target *target, uint8_t *bytes, size_t size, size_t capacity,
                   struct fuzz_random *random,
                   size_t (*mutate_bytes)(uint8_t *bytes, size_t size, size_t capacity,
                                          struct fuzz_random *random));

#define fuzz_expect(condition)                         \
    do {                                               \
        if (!(condition)) {                            \
            fuzz_fail(__FILE__, __LINE__, #condition); \
        }                                              \
    } while (0)
/* Any result will do. */
static inline void fuzz_any(int64_t result)
{
    (void)result;
}
_Noreturn void fuzz_fail(const char *file, int line, const char *what);

/* Do the numbers of a synthetic topology multiply to more than 4,096? hwloc takes minutes for a
 * hundred thousand CPUs; whoever asks for them waits. */
bool fuzz_synthetic_is_large(const char *text);

/* ---- files ---- */
/* A path under which these bytes can be opened until the next call. */
const char *fuzz_memory_file(const void *bytes, size_t size);
void fuzz_file_write(const char *path, const void *bytes, size_t size);
uint8_t *fuzz_file_read(const char *path, size_t *ret_size); /* NULL: it cannot be read */
/* What the code under test prints goes nowhere; harmless if said again. */
void fuzz_be_silent(void);

#endif
