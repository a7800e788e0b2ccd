/*
 * kernels_scalar.c - the reference: obvious loops, compiled without any instruction set flags.
 *
 * The others are tested against these byte by byte, so nothing here is clever. "Past the caches"
 * is a promise about speed only: here an ordinary copy keeps it.
 * Any thread; no state.
 */
#include "kernels/kernels_isa.h"

#include <string.h>

/* The library's own header, for values equal to its shared library on every instruction set. */
#define XXH_INLINE_ALL
#define XXH_VECTOR XXH_SCALAR
#include <xxhash.h>

static void scalar_copy(void *target, const void *source, size_t bytes)
{
    if (bytes > 0) { /* no bytes: either pointer may be NULL, which memcpy does not allow */
        memcpy(target, source, bytes);
    }
}

static void scalar_gather(void *target, const struct ab_strided *parts, size_t part_count)
{
    unsigned char *at = target;
    for (size_t part = 0; part < part_count; part++) {
        const unsigned char *run = parts[part].base;
        for (size_t i = 0; i < parts[part].count; i++) {
            scalar_copy(at, run + i * parts[part].stride, parts[part].bytes);
            at += parts[part].bytes;
        }
    }
}

static void scalar_scatter(const struct ab_strided *parts, size_t part_count, const void *source)
{
    const unsigned char *at = source;
    for (size_t part = 0; part < part_count; part++) {
        unsigned char *run = parts[part].base;
        for (size_t i = 0; i < parts[part].count; i++) {
            scalar_copy(run + i * parts[part].stride, at, parts[part].bytes);
            at += parts[part].bytes;
        }
    }
}

static void scalar_checksum(const void *bytes, size_t count, uint64_t seed, uint64_t ret_hash[2])
{
    const XXH128_hash_t hash = XXH3_128bits_withSeed(bytes, count, seed);
    ret_hash[0] = hash.low64;
    ret_hash[1] = hash.high64;
}

static void scalar_zero_stream(void *target, size_t bytes)
{
    if (bytes > 0) {
        memset(target, 0, bytes);
    }
}

const struct ab_kernels *ab_kernels_scalar(void)
{
    static const struct ab_kernels table = {
        .name = "scalar",
        .copy = scalar_copy,
        .copy_stream = scalar_copy,
        .gather = scalar_gather,
        .scatter = scalar_scatter,
        .checksum = scalar_checksum,
        .zero_stream = scalar_zero_stream,
    };
    return &table;
}
