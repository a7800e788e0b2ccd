/*
 * kernels_vector.h - the body that the AVX2, AVX-512 and NEON files share.
 *
 * The including file says what a vector is, then includes this; each gets its own static copies,
 * compiled with that file's flags:
 *     VECTOR_BYTES                                  32, 64, 16
 *     typedef ... vector;
 *     static inline vector vector_load(const void *);          any alignment
 *     static inline void vector_store(void *, vector);         any alignment
 *     static inline void vector_stream(void *, vector);        aligned, past the caches
 *     static inline vector vector_zero(void);
 *     static inline void stream_fence(void);                   streamed bytes before later stores
 *
 * THE IDEA. A run of up to RUN_BYTES_MAX is moved here without a call: whole vectors from the front,
 * then one vector that ends at the last byte and may overlap the one before it. So there is no byte
 * loop, and nothing outside the run is read or written:
 *
 *     |-- v --|-- v --|-- v --|   bytes = 3 v + rest
 *                       |-- v --|   the last one, moved back to end with the run
 *
 * Longer runs go to memcpy, which knows the CPU's best for them. Streaming kernels align the target
 * first, because streaming stores must be.
 * Any thread; no state.
 */
#ifndef AB_KERNELS_VECTOR_H
#define AB_KERNELS_VECTOR_H

#include <string.h>

#include "kernels/kernels_isa.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

#define RUN_BYTES_MAX 2048u            /* bench_kernels: memcpy's call costs less beyond */
#define STREAM_BYTES_MIN (64u << 10)   /* less fits L2 of any CPU that we know: caches win */
#define STREAM_AHEAD_BYTES 1024u       /* prefetch distance of copy_stream: bench_kernels */
#define STREAM_STEP_BYTES (4 * VECTOR_BYTES)
#define LINE_BYTES 64u
#define PREFETCH_LINES_MAX 4u          /* of the next run: the CPU's prefetcher takes over then */

/* two chunks of constant size, from the front and from the end; size <= bytes <= 2 size */
#define COPY_ENDS(target, source, bytes, size)                                     \
    do {                                                                           \
        unsigned char head_[size], tail_[size];                                    \
        memcpy(head_, (source), (size));                                           \
        memcpy(tail_, (source) + (bytes) - (size), (size));                        \
        memcpy((target), head_, (size));                                           \
        memcpy((target) + (bytes) - (size), tail_, (size));                        \
    } while (0)

/* fewer bytes than a vector has */
static inline void copy_short(unsigned char *target, const unsigned char *source, size_t bytes)
{
#if VECTOR_BYTES > 32
    if (bytes >= 32) {
        COPY_ENDS(target, source, bytes, 32);
        return;
    }
#endif
#if VECTOR_BYTES > 16
    if (bytes >= 16) {
        COPY_ENDS(target, source, bytes, 16);
        return;
    }
#endif
    if (bytes >= 8) {
        COPY_ENDS(target, source, bytes, 8);
    } else if (bytes >= 4) {
        COPY_ENDS(target, source, bytes, 4);
    } else if (bytes >= 2) {
        COPY_ENDS(target, source, bytes, 2);
    } else if (bytes == 1) {
        *target = *source;
    }
}

static inline void copy_run(unsigned char *target, const unsigned char *source, size_t bytes)
{
    if (bytes < VECTOR_BYTES) {
        copy_short(target, source, bytes);
        return;
    }
    if (bytes > RUN_BYTES_MAX) {
        memcpy(target, source, bytes);
        return;
    }
    const vector last = vector_load(source + bytes - VECTOR_BYTES);
    size_t done = 0;
    for (; bytes - done > 4 * VECTOR_BYTES; done += 4 * VECTOR_BYTES) {
        const vector a = vector_load(source + done);
        const vector b = vector_load(source + done + VECTOR_BYTES);
        const vector c = vector_load(source + done + 2 * VECTOR_BYTES);
        const vector d = vector_load(source + done + 3 * VECTOR_BYTES);
        vector_store(target + done, a);
        vector_store(target + done + VECTOR_BYTES, b);
        vector_store(target + done + 2 * VECTOR_BYTES, c);
        vector_store(target + done + 3 * VECTOR_BYTES, d);
    }
    for (; bytes - done > VECTOR_BYTES; done += VECTOR_BYTES) {
        vector_store(target + done, vector_load(source + done));
    }
    vector_store(target + bytes - VECTOR_BYTES, last);
}

/* a hint only: an address past the end of the data is harmless */
static inline void prefetch_run(const unsigned char *run, size_t bytes)
{
    const size_t lines = (bytes + LINE_BYTES - 1) / LINE_BYTES;
    for (size_t i = 0; i < lines && i < PREFETCH_LINES_MAX; i++) {
        __builtin_prefetch(run + i * LINE_BYTES, 0, 3);
    }
}

static void vector_copy(void *target, const void *source, size_t bytes)
{
    copy_run(target, source, bytes);
}

/* whole steps to an aligned target; returns how many bytes that were */
static inline size_t stream_steps(unsigned char *target, const unsigned char *source, size_t bytes)
{
    size_t done = 0;
    for (; bytes - done >= STREAM_STEP_BYTES; done += STREAM_STEP_BYTES) {
        for (size_t line = 0; line < STREAM_STEP_BYTES; line += LINE_BYTES) {
            __builtin_prefetch(source + done + STREAM_AHEAD_BYTES + line, 0, 0);
        }
        const vector a = vector_load(source + done);
        const vector b = vector_load(source + done + VECTOR_BYTES);
        const vector c = vector_load(source + done + 2 * VECTOR_BYTES);
        const vector d = vector_load(source + done + 3 * VECTOR_BYTES);
        vector_stream(target + done, a);
        vector_stream(target + done + VECTOR_BYTES, b);
        vector_stream(target + done + 2 * VECTOR_BYTES, c);
        vector_stream(target + done + 3 * VECTOR_BYTES, d);
    }
    return done;
}

/* bytes up to the next vector boundary */
static inline size_t stream_head(const void *target)
{
    return (VECTOR_BYTES - (uintptr_t)target % VECTOR_BYTES) % VECTOR_BYTES;
}

static void vector_copy_stream(void *target, const void *source, size_t bytes)
{
    if (bytes < STREAM_BYTES_MIN) {
        copy_run(target, source, bytes);
        stream_fence();
        return;
    }
    unsigned char *to = target;
    const unsigned char *from = source;
    const size_t head = stream_head(to);
    copy_short(to, from, head);
    const size_t done = head + stream_steps(to + head, from + head, bytes - head);
    copy_run(to + done, from + done, bytes - done);
    stream_fence();
}

static void vector_zero_stream(void *target, size_t bytes)
{
    unsigned char *to = target;
    if (bytes >= STREAM_BYTES_MIN) {
        const size_t head = stream_head(to);
        memset(to, 0, head);
        to += head;
        bytes -= head;
        for (; bytes >= VECTOR_BYTES; bytes -= VECTOR_BYTES) {
            vector_stream(to, vector_zero());
            to += VECTOR_BYTES;
        }
    }
    if (bytes > 0) {
        memset(to, 0, bytes);
    }
    stream_fence();
}

static void vector_gather(void *target, const struct ab_strided *parts, size_t part_count)
{
    unsigned char *at = target;
    for (size_t part = 0; part < part_count; part++) {
        const size_t bytes = parts[part].bytes, stride = parts[part].stride;
        const size_t count = parts[part].count;
        const unsigned char *run = parts[part].base;
        if (stride == bytes) { /* side by side already: one long run */
            copy_run(at, run, bytes * count);
            at += bytes * count;
            continue;
        }
        for (size_t i = 0; i < count; i++) {
            prefetch_run(run + stride, i + 1 < count ? bytes : 0);
            copy_run(at, run, bytes);
            at += bytes;
            run += stride;
        }
    }
}

static void vector_scatter(const struct ab_strided *parts, size_t part_count, const void *source)
{
    const unsigned char *at = source;
    for (size_t part = 0; part < part_count; part++) {
        const size_t bytes = parts[part].bytes, stride = parts[part].stride;
        const size_t count = parts[part].count;
        unsigned char *run = parts[part].base;
        if (stride == bytes) {
            copy_run(run, at, bytes * count);
            at += bytes * count;
            continue;
        }
        for (size_t i = 0; i < count; i++) {
            copy_run(run, at, bytes);
            at += bytes;
            run += stride;
        }
    }
}

static void vector_checksum(const void *bytes, size_t count, uint64_t seed, uint64_t ret_hash[2])
{
    const XXH128_hash_t hash = XXH3_128bits_withSeed(bytes, count, seed);
    ret_hash[0] = hash.low64;
    ret_hash[1] = hash.high64;
}

#define VECTOR_TABLE(table_name)                                                   \
    {                                                                              \
        .name = (table_name), .copy = vector_copy, .copy_stream = vector_copy_stream, \
        .gather = vector_gather, .scatter = vector_scatter,                        \
        .checksum = vector_checksum, .zero_stream = vector_zero_stream,            \
    }

#endif
