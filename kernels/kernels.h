/*
 * kernels.h - the loops that touch every byte: copy, gather, scatter, checksum.
 *
 * Leaves: pointers, counts, strides; no threads, no allocation, no runtime headers. kernels_scalar.c
 * is the reference; each other ISA file is compiled with its own flags and tested against it. The
 * table is chosen once (ab_kernels_best) and passed around; checks CPU and OS (XGETBV). parallel.c is
 * the only file with OpenMP.
 */
#ifndef AB_KERNELS_H
#define AB_KERNELS_H

#include <stddef.h>
#include <stdint.h>

/* `count` runs of `bytes` each, run i at base + i * stride (gather: read, scatter: written) */
struct ab_strided {
    unsigned char *base;
    size_t bytes;
    size_t stride;
    size_t count;
};

struct ab_kernels {
    const char *name; /* "scalar", "avx2", "avx512", "neon" */
    /* like memcpy, no overlap; any size and alignment */
    void (*copy)(void *target, const void *source, size_t bytes);
    /* the same past the caches (non-temporal stores): for data that this CPU will not read soon;
     * fenced when it returns */
    void (*copy_stream)(void *target, const void *source, size_t bytes);
    /* planes of one block <-> one contiguous frame: parts one after another */
    void (*gather)(void *target, const struct ab_strided *parts, size_t part_count);
    void (*scatter)(const struct ab_strided *parts, size_t part_count, const void *source);
    /* XXH3-128 with seed, in the canonical value order {low, high} */
    void (*checksum)(const void *bytes, size_t count, uint64_t seed, uint64_t ret_hash[2]);
    void (*zero_stream)(void *target, size_t bytes);
};

const struct ab_kernels *ab_kernels_scalar(void);
/* the fastest that this CPU and OS run */
const struct ab_kernels *ab_kernels_best(void);
/* by name; NULL: not in this build or not on this CPU */
const struct ab_kernels *ab_kernels_by_name(const char *name);

/* parallel.c: the same work split over threads (OpenMP); thread_count 0 = all allowed CPUs */
void ab_parallel_copy(const struct ab_kernels *kernels, void *target, const void *source,
                      size_t bytes, int thread_count);
void ab_parallel_checksum(const struct ab_kernels *kernels, const void *const *blocks,
                          const size_t *sizes, size_t block_count, uint64_t seed,
                          uint64_t (*ret_hashes)[2], int thread_count);

#endif
