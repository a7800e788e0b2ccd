/*
 * hash.h - the two hashes. SHA-256 (OpenSSL) names things: abode_key_* of the public header are
 * implemented in hash.c. XXH3 (libxxhash) finds and checks things: it is fast and not secret.
 * Leaves, any thread.
 */
#ifndef AB_BASE_HASH_H
#define AB_BASE_HASH_H

#include <stddef.h>
#include <stdint.h>

struct ab_hash128 {
    uint64_t low, high;
};

struct ab_hash128 ab_hash128(const void *bytes, size_t count, uint64_t seed);
uint64_t ab_hash64(const void *bytes, size_t count, uint64_t seed);

static inline int ab_hash128_equal(struct ab_hash128 a, struct ab_hash128 b)
{
    return a.low == b.low && a.high == b.high;
}

#endif
