/*
 * kernels_neon.c - 16-byte vectors of aarch64, where NEON is always there.
 * Any thread; no state.
 */
#if defined(__aarch64__)
#include <arm_neon.h>
#include <stdint.h>

#define VECTOR_BYTES 16u
typedef uint8x16_t vector;

static inline vector vector_load(const void *from)
{
    return vld1q_u8(from);
}

static inline void vector_store(void *to, vector value)
{
    vst1q_u8(to, value);
}

/* STNP stores a pair; with the same register in both halves of a 16-byte slot it would store too
 * much, so the pair is the vector's two 8-byte halves. */
static inline void vector_stream(void *to, vector value)
{
    const uint64x2_t halves = vreinterpretq_u64_u8(value);
    __asm__ volatile("stnp %d0, %d1, [%2]"
                     :
                     : "w"(vget_low_u64(halves)), "w"(vget_high_u64(halves)), "r"(to)
                     : "memory");
}

static inline vector vector_zero(void)
{
    return vdupq_n_u8(0);
}

static inline void stream_fence(void)
{
    __asm__ volatile("dmb ishst" : : : "memory");
}

#include "kernels/kernels_vector.h"

const struct ab_kernels *ab_kernels_neon(void)
{
    static const struct ab_kernels table = VECTOR_TABLE("neon");
    return &table;
}
#else
extern int ab_kernels_no_neon; /* an empty translation unit is not C */
#endif
