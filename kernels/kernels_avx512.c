/*
 * kernels_avx512.c - 64-byte vectors. Compiled with -mavx512f -mavx512bw -mavx512vl -mavx512dq; runs
 * only where kernels.c saw all four, and an operating system that saves their registers.
 * Any thread; no state.
 */
#if defined(__x86_64__)
#include <immintrin.h>
#include <stdint.h>

#define VECTOR_BYTES 64u
typedef __m512i vector;

static inline vector vector_load(const void *from)
{
    return _mm512_loadu_si512(from);
}

static inline void vector_store(void *to, vector value)
{
    _mm512_storeu_si512(to, value);
}

static inline void vector_stream(void *to, vector value)
{
    _mm512_stream_si512(to, value);
}

static inline vector vector_zero(void)
{
    return _mm512_setzero_si512();
}

static inline void stream_fence(void)
{
    _mm_sfence();
}

#include "kernels/kernels_vector.h"

const struct ab_kernels *ab_kernels_avx512(void)
{
    static const struct ab_kernels table = VECTOR_TABLE("avx512");
    return &table;
}
#else
extern int ab_kernels_no_avx512; /* an empty translation unit is not C */
#endif
