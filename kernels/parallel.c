/*
 * parallel.c - the same work over several threads; the only file with OpenMP.
 *
 * For work at open or on the host's thread (moving a whole session, checking a store). I/O and
 * service threads call the kernels directly: a team of threads inside each of them would fight.
 * The team lives inside OpenMP and is reused by the next call of the same thread.
 *
 *     copy:      contiguous slices, one a thread, cut at page boundaries so that no two threads write
 *                one page; each thread reads and writes in one direction
 *     checksum:  block by block, taken as threads come free: sizes may differ much
 *
 * Without OpenMP in the compiler the loops run on the calling thread, with the same results.
 */
#include "kernels/kernels.h"

#ifdef _OPENMP
#include <omp.h>
#endif

#define SLICE_BYTES_MIN \
    ((size_t)1 << 20) /* below, waking a thread costs more than it brings: guess */
#define PAGE_BYTES ((size_t)4096)

static int threads_allowed(int thread_count)
{
#ifdef _OPENMP
    return thread_count > 0 ? thread_count : omp_get_num_procs();
#else
    (void)thread_count;
    return 1;
#endif
}

/* a multiple of a page, such that `threads` slices cover bytes */
static size_t slice_bytes(size_t bytes, int threads)
{
    size_t slice = bytes / (size_t)threads + 1;
    slice = slice < SLICE_BYTES_MIN ? SLICE_BYTES_MIN : slice;
    return (slice + PAGE_BYTES - 1) / PAGE_BYTES * PAGE_BYTES;
}

void ab_parallel_copy(const struct ab_kernels *kernels, void *target, const void *source,
                      size_t bytes, int thread_count)
{
    const int threads = threads_allowed(thread_count);
    const size_t slice = slice_bytes(bytes, threads);
    const size_t slice_count = bytes / slice + (bytes % slice != 0);
    unsigned char *to = target;
    const unsigned char *from = source;
#ifdef _OPENMP
#pragma omp parallel for num_threads(threads) schedule(static) if (slice_count > 1)
#endif
    for (size_t i = 0; i < slice_count; i++) {
        const size_t left = bytes - i * slice;
        kernels->copy_stream(to + i * slice, from + i * slice, left < slice ? left : slice);
    }
}

void ab_parallel_checksum(const struct ab_kernels *kernels, const void *const *blocks,
                          const size_t *sizes, size_t block_count, uint64_t seed,
                          uint64_t (*ret_hashes)[2], int thread_count)
{
    const int threads = threads_allowed(thread_count);
    (void)threads; /* read by the pragma only */
#ifdef _OPENMP
#pragma omp parallel for num_threads(threads) schedule(dynamic) if (block_count > 1)
#endif
    for (size_t i = 0; i < block_count; i++) {
        kernels->checksum(blocks[i], sizes[i], seed, ret_hashes[i]);
    }
}
