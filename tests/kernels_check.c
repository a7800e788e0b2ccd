/*
 * kernels_check.c - each kernel against the scalar one: every small size, every alignment, random
 * larger ones, strides, and the last byte before a page that may not be touched.
 *
 * METHOD. A kernel writes into a buffer full of a guard pattern; a second buffer gets what the scalar
 * kernel writes; the *whole* buffers must be equal, so a byte too many is found as a byte too few is.
 */
#include "kernels_check.h"

#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define LINE 64u
#define SMALL_BYTES_MAX 4096u
#define PAIR_BYTES_MAX 160u     /* up to here every pair of alignments is tried */
#define AREA_BYTES (640u << 10) /* one buffer; the stream threshold is 64 KiB */
#define LARGE_BYTES_MAX (300u << 10)
#define PARTS_MAX 4u
#define GUARD 0xa5

static char message[256];

/* three buffers, 64 bytes aligned: what is read, what the kernel wrote, what it should have been */
struct areas {
    unsigned char *source, *got, *want;
};

static uint64_t random_next(uint64_t *state)
{
    uint64_t z = (*state += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

static size_t random_below(uint64_t *state, size_t bound)
{
    return (size_t)(random_next(state) % bound);
}

static struct areas areas_make(uint64_t seed)
{
    struct areas areas = {.source = aligned_alloc(LINE, AREA_BYTES),
                          .got = aligned_alloc(LINE, AREA_BYTES),
                          .want = aligned_alloc(LINE, AREA_BYTES)};
    if (areas.source == NULL || areas.got == NULL || areas.want == NULL) {
        abort(); /* a test without memory cannot say anything */
    }
    for (size_t i = 0; i < AREA_BYTES; i++) {
        areas.source[i] = (unsigned char)random_next(&seed);
    }
    memset(areas.got, GUARD, AREA_BYTES);
    memset(areas.want, GUARD, AREA_BYTES);
    return areas;
}

static void areas_free(struct areas *areas)
{
    free(areas->source);
    free(areas->got);
    free(areas->want);
}

/* The first `bytes` of both buffers are alike? Puts the guard back for the next case. */
static bool areas_agree(struct areas *areas, size_t bytes)
{
    const bool agree = memcmp(areas->got, areas->want, bytes) == 0;
    memset(areas->got, GUARD, bytes);
    memset(areas->want, GUARD, bytes);
    return agree;
}

/* ---- copy, copy_stream, zero_stream --------------------------------------------------------------- */
typedef void move_function(void *target, const void *source, size_t bytes);

static bool move_agrees(struct areas *areas, move_function *move, move_function *reference,
                        size_t bytes, size_t target_at, size_t source_at)
{
    move(areas->got + LINE + target_at, areas->source + source_at, bytes);
    reference(areas->want + LINE + target_at, areas->source + source_at, bytes);
    return areas_agree(areas, bytes + 3 * LINE);
}

static const char *move_failed(const char *what, uint64_t seed, size_t bytes, size_t target_at,
                               size_t source_at)
{
    (void)snprintf(message, sizeof(message),
                   "%s of %zu bytes to alignment %zu from alignment %zu differs (seed %" PRIu64 ")",
                   what, bytes, target_at, source_at, seed);
    return message;
}

static const char *move_check(const char *what, move_function *move, move_function *reference,
                              uint64_t seed)
{
    struct areas areas = areas_make(seed);
    const char *failed = NULL;
    for (size_t bytes = 0; bytes <= SMALL_BYTES_MAX && failed == NULL; bytes++) {
        const size_t pairs = bytes <= PAIR_BYTES_MAX ? LINE * LINE : LINE;
        for (size_t pair = 0; pair < pairs && failed == NULL; pair++) {
            const size_t source_at = pair % LINE;
            const size_t target_at = (pair / LINE + source_at * 13 + bytes * 7) % LINE;
            if (!move_agrees(&areas, move, reference, bytes, target_at, source_at)) {
                failed = move_failed(what, seed, bytes, target_at, source_at);
            }
        }
    }
    uint64_t state = seed;
    for (int i = 0; i < 400 && failed == NULL; i++) {
        const size_t threshold = 65536 - 2 + random_below(&state, 5);
        const size_t bytes = i % 4 == 0 ? threshold : random_below(&state, LARGE_BYTES_MAX);
        const size_t source_at = random_below(&state, LINE), target_at = random_below(&state, LINE);
        if (!move_agrees(&areas, move, reference, bytes, target_at, source_at)) {
            failed = move_failed(what, seed, bytes, target_at, source_at);
        }
    }
    areas_free(&areas);
    return failed;
}

static const char *check_copy(const struct ab_kernels *kernels, uint64_t seed)
{
    return move_check("copy", kernels->copy, ab_kernels_scalar()->copy, seed);
}

static const char *check_copy_stream(const struct ab_kernels *kernels, uint64_t seed)
{
    return move_check("copy_stream", kernels->copy_stream, ab_kernels_scalar()->copy_stream, seed);
}

static const char *check_zero_stream(const struct ab_kernels *kernels, uint64_t seed)
{
    struct areas areas = areas_make(seed);
    const char *failed = NULL;
    for (size_t i = 0; i < 3000 && failed == NULL; i++) {
        const size_t bytes = i <= 256 ? i : random_below(&seed, i < 2900 ? 6000 : LARGE_BYTES_MAX);
        const size_t at = random_below(&seed, LINE);
        kernels->zero_stream(areas.got + LINE + at, bytes);
        ab_kernels_scalar()->zero_stream(areas.want + LINE + at, bytes);
        if (!areas_agree(&areas, bytes + 3 * LINE)) {
            failed = move_failed("zero_stream", seed, bytes, at, 0);
        }
    }
    areas_free(&areas);
    return failed;
}

/* ---- gather, scatter --------------------------------------------------------------------------------- */

/* Parts that fit into an area: run lengths from 0 to some KiB, gaps from none to wide. */
static size_t parts_make(uint64_t *state, struct ab_strided *parts, unsigned char *area)
{
    static const size_t lengths[] = {1, 7, 64, 129, 256, 600, 2049, 4096, 9000};
    const size_t part_count = random_below(state, PARTS_MAX + 1);
    const size_t share = AREA_BYTES / PARTS_MAX;
    for (size_t part = 0; part < part_count; part++) {
        const size_t bytes = random_below(state, lengths[random_below(state, 9)] + 1);
        const size_t round = random_below(state, 2) == 0 ? bytes : (bytes + LINE - 1) / LINE * LINE;
        const size_t gap = random_below(state, 3) == 0 ? 0 : random_below(state, 3) * LINE + 1;
        const size_t stride = round + gap;
        const size_t head = random_below(state, LINE);
        const size_t room = (share - head) / (stride + 1);
        parts[part] = (struct ab_strided){.base = area + part * share + head,
                                          .bytes = bytes,
                                          .stride = stride,
                                          .count = random_below(state, room < 300 ? room : 300)};
    }
    return part_count;
}

static const char *strides_failed(const char *what, uint64_t seed, int round,
                                  const struct ab_strided *parts, size_t part_count)
{
    (void)snprintf(message, sizeof(message),
                   "%s in round %d of seed %" PRIu64
                   " differs: %zu parts, the first %zu runs of %zu bytes every %zu",
                   what, round, seed, part_count, part_count > 0 ? parts[0].count : 0,
                   part_count > 0 ? parts[0].bytes : 0, part_count > 0 ? parts[0].stride : 0);
    return message;
}

static const char *check_gather(const struct ab_kernels *kernels, uint64_t seed)
{
    struct areas areas = areas_make(seed);
    struct ab_strided parts[PARTS_MAX];
    const char *failed = NULL;
    uint64_t state = seed;
    for (int round = 0; round < 1500 && failed == NULL; round++) {
        const size_t part_count = parts_make(&state, parts, areas.source);
        const size_t at = random_below(&state, LINE);
        kernels->gather(areas.got + at, parts, part_count);
        ab_kernels_scalar()->gather(areas.want + at, parts, part_count);
        if (!areas_agree(&areas, AREA_BYTES)) {
            failed = strides_failed("gather", seed, round, parts, part_count);
        }
    }
    /* one run read again and again is allowed in gather: stride 0 */
    const struct ab_strided same = {.base = areas.source + 3, .bytes = 777, .count = 100};
    kernels->gather(areas.got + 1, &same, 1);
    ab_kernels_scalar()->gather(areas.want + 1, &same, 1);
    if (failed == NULL && !areas_agree(&areas, AREA_BYTES)) {
        failed = "gather with stride 0 differs";
    }
    areas_free(&areas);
    return failed;
}

static const char *check_scatter(const struct ab_kernels *kernels, uint64_t seed)
{
    struct areas areas = areas_make(seed);
    struct ab_strided parts[PARTS_MAX];
    const char *failed = NULL;
    uint64_t state = seed;
    for (int round = 0; round < 1500 && failed == NULL; round++) {
        const size_t part_count = parts_make(&state, parts, areas.got);
        const size_t at = random_below(&state, LINE);
        kernels->scatter(parts, part_count, areas.source + at);
        for (size_t part = 0; part < part_count; part++) {
            parts[part].base = areas.want + (parts[part].base - areas.got);
        }
        ab_kernels_scalar()->scatter(parts, part_count, areas.source + at);
        if (!areas_agree(&areas, AREA_BYTES)) {
            failed = strides_failed("scatter", seed, round, parts, part_count);
        }
    }
    areas_free(&areas);
    return failed;
}

/* ---- checksum -------------------------------------------------------------------------------------------- */

/* XXH3-128 as the shared library 0.8.1 gives it, of bytes i = (i * 7 + 3) mod 256, seed as given */
struct known_hash {
    size_t bytes;
    uint64_t seed, low, high;
};
static const struct known_hash known_hashes[] = {
    {0, 0x0, 0x6001c324468d497f, 0x99aa06d3014798d8},
    {1, 0x0, 0x13e608bc156defed, 0x22bbb76b211a39ba},
    {3, 0x0, 0xa9088dda485b481c, 0xce31763cbf8245a5},
    {4, 0x0, 0x788a609154b0fe20, 0x47197970590746b1},
    {8, 0x0, 0x3cd024e3d63a1588, 0xe3bc8a5f46171555},
    {9, 0x0, 0xeafab1c7f123109f, 0xc72c88247a9a56d7},
    {16, 0x0, 0x60d75c5e47d40a24, 0xce0b9647ab24f884},
    {17, 0x0, 0xeeed7654312a26d7, 0xbfd327edcc2fbd12},
    {128, 0x0, 0xc580008b6c92ac53, 0x1b1962a096bac78b},
    {129, 0x0, 0xbd91ce7ace4d385b, 0x293e4968c4619023},
    {240, 0x0, 0x04e0b5f034bee80b, 0xad46c1021b076bc7},
    {241, 0x0, 0x8beadd3a8874fe17, 0xac6c3492c3d6b45d},
    {1024, 0x0, 0x9b81661c641c72b1, 0x18bc0eaca9a33636},
    {1025, 0x0, 0x806c2072ed713576, 0xbf447251cfa98d7c},
    {65536, 0x0, 0x5d03b43b14c75500, 0x6a2504ac37f3b3b3},
    {70000, 0x0, 0x1d77e8fd7db4e024, 0x753cfb056fbc8402},
    {0, 0x9e3779b97f4a7c15, 0x4ca5176998171787, 0xd142977a2cca554b},
    {1, 0x9e3779b97f4a7c15, 0x1b4c466098160569, 0x8b0bde64ebb5391a},
    {3, 0x9e3779b97f4a7c15, 0xa8bacd847619199e, 0xa6c5358dff93af85},
    {4, 0x9e3779b97f4a7c15, 0x94c1979d995c4870, 0x7fbdade8669a4ab0},
    {8, 0x9e3779b97f4a7c15, 0xde775c059292f841, 0xd63852876fe8a157},
    {9, 0x9e3779b97f4a7c15, 0x51e1392707d4bbb9, 0x0b38a113b694fcae},
    {16, 0x9e3779b97f4a7c15, 0x525da27d50e50d60, 0x4f914088f379a471},
    {17, 0x9e3779b97f4a7c15, 0x3445a39302223baf, 0xa61a1ca6a6cba50b},
    {128, 0x9e3779b97f4a7c15, 0x11b625103e3f16e8, 0x0e547fad963e783e},
    {129, 0x9e3779b97f4a7c15, 0xfb2fdd6e76e6384f, 0xb29aa6b7f2bdb673},
    {240, 0x9e3779b97f4a7c15, 0xecae892a3fac66c3, 0x9bd1b9f5f322c628},
    {241, 0x9e3779b97f4a7c15, 0xa0462d397650b282, 0x44bd02453c9c891c},
    {1024, 0x9e3779b97f4a7c15, 0xe955d0afe88a0f51, 0x3c6f1311239e88b0},
    {1025, 0x9e3779b97f4a7c15, 0xcbdb289911b2614b, 0xd89d1bd7f4fd6811},
    {65536, 0x9e3779b97f4a7c15, 0x075f6bc7deaf7512, 0x05aa8565f413ebde},
    {70000, 0x9e3779b97f4a7c15, 0x586f33558e08e309, 0x8e1e18253745727f},
};

static const char *check_checksum(const struct ab_kernels *kernels, uint64_t seed)
{
    struct areas areas = areas_make(seed);
    const char *failed = NULL;
    for (size_t i = 0; i < sizeof(known_hashes) / sizeof(known_hashes[0]); i++) {
        const struct known_hash *known = &known_hashes[i];
        for (size_t j = 0; j < known->bytes; j++) {
            areas.got[j] = (unsigned char)(j * 7 + 3);
        }
        uint64_t hash[2];
        kernels->checksum(areas.got, known->bytes, known->seed, hash);
        if (hash[0] != known->low || hash[1] != known->high) {
            failed = "checksum differs from the library's known values";
        }
    }
    for (size_t i = 0; i <= SMALL_BYTES_MAX + 300 && failed == NULL; i++) {
        const size_t bytes = i <= SMALL_BYTES_MAX ? i : random_below(&seed, LARGE_BYTES_MAX);
        const size_t at = random_below(&seed, LINE);
        const uint64_t hash_seed = i % 3 == 0 ? 0 : random_next(&seed);
        uint64_t got[2], want[2];
        kernels->checksum(areas.source + at, bytes, hash_seed, got);
        ab_kernels_scalar()->checksum(areas.source + at, bytes, hash_seed, want);
        if (got[0] != want[0] || got[1] != want[1]) {
            failed = move_failed("checksum", hash_seed, bytes, 0, at);
        }
    }
    areas_free(&areas);
    return failed;
}

/* ---- nothing outside is touched: pages without access on both sides ----------------------------------- */
struct fenced { /* | no access | bytes | no access | */
    unsigned char *map, *first;
    size_t bytes, page;
};

static struct fenced fenced_make(size_t pages)
{
    struct fenced fenced = {.page = (size_t)sysconf(_SC_PAGESIZE)};
    fenced.bytes = pages * fenced.page;
    fenced.map =
        mmap(NULL, fenced.bytes + 2 * fenced.page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (fenced.map == MAP_FAILED) {
        abort();
    }
    fenced.first = fenced.map + fenced.page;
    if (mprotect(fenced.first, fenced.bytes, PROT_READ | PROT_WRITE) != 0) {
        abort();
    }
    return fenced;
}

static void fenced_free(struct fenced *fenced)
{
    (void)munmap(fenced->map, fenced->bytes + 2 * fenced->page);
}

/* Each kernel at the very start and at the very end; one byte outside is a SIGSEGV. */
static void fences_touch(const struct ab_kernels *kernels, unsigned char *target,
                         unsigned char *source, size_t bytes)
{
    uint64_t hash[2];
    kernels->copy(target, source, bytes);
    kernels->copy_stream(target, source, bytes);
    kernels->zero_stream(target, bytes);
    kernels->checksum(source, bytes, 1, hash);
    const struct ab_strided from = {
        .base = source, .bytes = bytes, .stride = bytes + 1, .count = 1};
    const struct ab_strided to = {.base = target, .bytes = bytes, .stride = bytes + 1, .count = 1};
    kernels->gather(target, &from, 1);
    kernels->scatter(&to, 1, source);
    /* the last of several runs ends at the fence */
    const size_t run = bytes / 5;
    const struct ab_strided runs = {.base = source + bytes % 5 + run,
                                    .bytes = run,
                                    .stride = 2 * run,
                                    .count = run == 0 ? 0 : 2};
    kernels->gather(target + bytes - 2 * run, &runs, 1);
}

static const char *check_fences(const struct ab_kernels *kernels, uint64_t seed)
{
    struct fenced source = fenced_make(64), target = fenced_make(64);
    for (size_t i = 0; i <= SMALL_BYTES_MAX + 100; i++) {
        const size_t bytes =
            i <= SMALL_BYTES_MAX ? i : 60000 + random_below(&seed, source.bytes - 60000);
        fences_touch(kernels, target.first, source.first, bytes);
        fences_touch(kernels, target.first + target.bytes - bytes,
                     source.first + source.bytes - bytes, bytes);
    }
    fenced_free(&source);
    fenced_free(&target);
    return NULL;
}

const struct kernels_check kernels_checks[] = {
    {"copy", check_copy},
    {"copy_stream", check_copy_stream},
    {"zero_stream", check_zero_stream},
    {"gather", check_gather},
    {"scatter", check_scatter},
    {"checksum", check_checksum},
    {"fences", check_fences},
};
const uint32_t kernels_check_count = sizeof(kernels_checks) / sizeof(kernels_checks[0]);
