/*
 * fio.h - fio's io_uring engine as a side: one file that was written before, read or overwritten
 * in order or at random around the page cache, with registered buffers and file, huge pages where there are.
 */
#ifndef BENCH_FIO_H
#define BENCH_FIO_H

#include "bench_common.h"

struct fio_plan {
    char dir[BENCH_PATH_MAX];
    char path[BENCH_PATH_MAX + 16]; /* of the file */
    uint64_t bytes;
    uint32_t block_bytes, depth;
    bool is_write;
    bool has_sync; /* ends with a sync that is inside the measured time */
    bool is_random;
    uint64_t seed; /* of the order, another one each time; 0 is fine */
};
bool fio_is_there(void);
/* Makes and writes the file; all but dir and path are the caller's. */
BENCH_MUST_CHECK int fio_open(const struct bench_run *run, struct fio_plan *plan);
void fio_close(struct fio_plan *plan);
int fio_run(void *plan, struct bench_sample *ret_sample); /* a bench_side */

#endif
