/*
 * kernels_avx2.c - 32-byte vectors. Compiled with -mavx2; runs only where kernels.c saw AVX2.
 * Any thread; no state.
 */
#if defined(__x86_64__)
#include <immintrin.h>
#include <stdint.h>

#define VECTOR_BYTES 32u
typedef __m256i vector;

static inline vector vector_load(const void *from)
{
    return _mm256_loadu_si256(from);
}

static inline void vector_store(void *to, vector value)
{
    _mm256_storeu_si256(to, value);
}

static inline void vector_stream(void *to, vector value)
{
    _mm256_stream_si256(to, value);
}

static inline vector vector_zero(void)
{
    return _mm256_setzero_si256();
}

/* streaming stores are weakly ordered, even on x86: a plain store that publishes them must wait */
static inline void stream_fence(void)
{
    _mm_sfence();
}

#include "kernels/kernels_vector.h"

const struct ab_kernels *ab_kernels_avx2(void)
{
    static const struct ab_kernels table = VECTOR_TABLE("avx2");
    return &table;
}
#else
extern int ab_kernels_no_avx2; /* an empty translation unit is not C */
#endif
