/*
 * rivals.h - one way to keep objects on disk, as bench_rivals sees it.
 *
 * A rival puts all objects of a job into an empty directory, batch after batch, each batch durable
 * before the next one of the same thread begins; later, opened anew and cold, it gets them all into
 * job->target in job->order. Opening, closing and flushing what is durable already are outside the
 * measured part. bench_rivals checks every byte that a get returned.
 */
#ifndef AB_BENCH_RIVALS_H
#define AB_BENCH_RIVALS_H

#include <stdint.h>

#include "bench_common.h"

#define RIVAL_KEY_BYTES 32
#define RIVAL_THREADS 4 /* or ops in flight, where one thread is enough */

struct rival_job {
    const char *dir; /* empty before put */
    uint64_t object_bytes;
    uint32_t object_count;
    uint32_t batch_count;        /* objects that become durable together */
    const unsigned char *keys;   /* RIVAL_KEY_BYTES each */
    const unsigned char *source; /* object i at i * object_bytes */
    unsigned char *target;       /* the same layout; 4 KiB aligned */
    const uint32_t *order;       /* in which objects are asked for: a permutation */
};

struct rival {
    const char *name;
    const char *absent; /* NULL, or why this build does not have it */
    int (*put)(const struct rival_job *job, struct bench_sample *ret_sample);
    int (*get)(const struct rival_job *job, struct bench_sample *ret_sample);
};

extern const struct rival rival_files_buffered, rival_files_direct, rival_lmdb, rival_rocksdb,
    rival_abode;

static inline const unsigned char *rival_key(const struct rival_job *job, uint32_t object)
{
    return job->keys + (uint64_t)object * RIVAL_KEY_BYTES;
}

static inline uint64_t rival_bytes(const struct rival_job *job)
{
    return job->object_bytes * job->object_count;
}

/* Calls work(job, context, first, count) for runs of at most batch_count objects, taken in turn by
 * RIVAL_THREADS threads. 0, or the first error. */
typedef int rival_work(const struct rival_job *job, void *context, uint32_t first, uint32_t count);
BENCH_MUST_CHECK int rival_threads(const struct rival_job *job, rival_work *work, void *context);
/* The same on the calling thread. */
BENCH_MUST_CHECK int rival_batches(const struct rival_job *job, rival_work *work, void *context);

#endif
