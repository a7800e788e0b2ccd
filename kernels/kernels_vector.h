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
 * to a line first and stream whole lines: half lines past the caches cost a read each. Gather and
 * scatter of much data stream too: on Zen 3 that is 1.0 to 1.4 of memcpy, and ordinary stores 0.75,
 * because each line of the target is read before it is written (bench_kernels).
 * Any thread; no state.
 */
#ifndef AB_KERNELS_VECTOR_H
#define AB_KERNELS_VECTOR_H

#include <stdbool.h>
#include <string.h>

#include "kernels/kernels_isa.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

#define RUN_BYTES_MAX 2048u          /* longer: memcpy's call pays; bench_kernels copy_warm */
#define STREAM_BYTES_MIN (64u << 10) /* less fits every L2 that we know: the caches win; guess */
#define STREAM_RUN_BYTES_MIN 256u    /* shorter runs are mostly ends; guess */
#define STREAM_LONG_BYTES 8192u      /* here the CPU's prefetcher has caught up with a run; guess */
#define STREAM_AHEAD_BYTES 1024u /* prefetch distance inside a run; guess, flat from 512 to 4096 */
#define RUNS_AHEAD 2u /* 1 to 8 measured on Zen 3: 2 is best or equal at 256 B to 4 KiB */
#define STREAM_STEP_BYTES (4 * VECTOR_BYTES)
#define LINE_BYTES 64u

/* two chunks of constant size, from the front and from the end; size <= bytes <= 2 size */
#define COPY_ENDS(target, source, bytes, size)              \
    do {                                                    \
        unsigned char head_[size], tail_[size];             \
        memcpy(head_, (source), (size));                    \
        memcpy(tail_, (source) + (bytes) - (size), (size)); \
        memcpy((target), head_, (size));                    \
        memcpy((target) + (bytes) - (size), tail_, (size)); \
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

static void vector_copy(void *target, const void *source, size_t bytes)
{
    copy_run(target, source, bytes);
}

/* bytes up to the next line boundary: streaming stores want whole lines */
static inline size_t stream_head(const void *target)
{
    return (LINE_BYTES - (uintptr_t)target % LINE_BYTES) % LINE_BYTES;
}

/* Whole steps to an aligned target; returns how many bytes that were. What lies ahead_bytes further
 * is asked for on the way: a hint only, so an address past the end of the data is harmless. */
static inline size_t stream_steps(unsigned char *target, const unsigned char *source, size_t bytes,
                                  size_t ahead_bytes)
{
    const uintptr_t ahead = (uintptr_t)source + ahead_bytes;
    size_t done = 0;
    for (; bytes - done >= STREAM_STEP_BYTES; done += STREAM_STEP_BYTES) {
        for (size_t line = 0; line < STREAM_STEP_BYTES; line += LINE_BYTES) {
            __builtin_prefetch((const void *)(ahead + done + line), 0, 3);
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

/* one run past the caches; its ends, where they are not whole lines, by ordinary stores */
static inline void stream_run(unsigned char *target, const unsigned char *source, size_t bytes,
                              size_t ahead_bytes)
{
    if (bytes < STREAM_RUN_BYTES_MIN) {
        copy_run(target, source, bytes);
        return;
    }
    const size_t head = stream_head(target);
    if (head > 0) {
        copy_run(target, source, head);
    }
    const size_t done =
        head + stream_steps(target + head, source + head, bytes - head, ahead_bytes);
    if (done < bytes) {
        copy_run(target + done, source + done, bytes - done);
    }
}

static void vector_copy_stream(void *target, const void *source, size_t bytes)
{
    if (bytes < STREAM_BYTES_MIN) {
        copy_run(target, source, bytes);
        return;
    }
    stream_run(target, source, bytes, STREAM_AHEAD_BYTES);
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
        stream_fence();
    }
    if (bytes > 0) {
        memset(to, 0, bytes);
    }
}

/* ---- strided runs --------------------------------------------------------------------------------- */

/* How far ahead to ask for bytes. The CPU's own prefetcher follows lines inside a run but not the
 * jump to the next one, so short runs ask for the run after the next one, line by line. */
static inline size_t ahead_of_runs(size_t bytes, size_t source_stride)
{
    const bool jumps = source_stride != bytes && bytes < STREAM_LONG_BYTES;
    return jumps ? source_stride * RUNS_AHEAD : STREAM_AHEAD_BYTES;
}

/* Both directions: run i goes from source + i * source_stride to target + i * target_stride. */
static inline void move_runs(unsigned char *target, size_t target_stride,
                             const unsigned char *source, size_t source_stride, size_t bytes,
                             size_t count, bool stream)
{
    if (source_stride == bytes && target_stride == bytes) {
        bytes *= count; /* side by side already: one long run */
        count = count > 0;
    }
    const size_t ahead_bytes = ahead_of_runs(bytes, source_stride);
    for (size_t i = 0; i < count; i++) {
        const unsigned char *from = source + i * source_stride;
        unsigned char *to = target + i * target_stride;
        if (stream) {
            stream_run(to, from, bytes, ahead_bytes);
        } else {
            copy_run(to, from, bytes);
        }
    }
}

static inline bool parts_stream(const struct ab_strided *parts, size_t part_count)
{
    size_t total = 0;
    for (size_t part = 0; part < part_count && total < STREAM_BYTES_MIN; part++) {
        total += parts[part].bytes * parts[part].count;
    }
    return total >= STREAM_BYTES_MIN;
}

static void vector_gather(void *target, const struct ab_strided *parts, size_t part_count)
{
    const bool stream = parts_stream(parts, part_count);
    unsigned char *at = target;
    for (size_t part = 0; part < part_count; part++) {
        const struct ab_strided *from = &parts[part];
        move_runs(at, from->bytes, from->base, from->stride, from->bytes, from->count, stream);
        at += from->bytes * from->count;
    }
    if (stream) {
        stream_fence();
    }
}

static void vector_scatter(const struct ab_strided *parts, size_t part_count, const void *source)
{
    const bool stream = parts_stream(parts, part_count);
    const unsigned char *at = source;
    for (size_t part = 0; part < part_count; part++) {
        const struct ab_strided *to = &parts[part];
        move_runs(to->base, to->stride, at, to->bytes, to->bytes, to->count, stream);
        at += to->bytes * to->count;
    }
    if (stream) {
        stream_fence();
    }
}

static void vector_checksum(const void *bytes, size_t count, uint64_t seed, uint64_t ret_hash[2])
{
    const XXH128_hash_t hash = XXH3_128bits_withSeed(bytes, count, seed);
    ret_hash[0] = hash.low64;
    ret_hash[1] = hash.high64;
}

#define VECTOR_TABLE(table_name)                                                         \
    {                                                                                    \
        .name = (table_name), .copy = vector_copy, .copy_stream = vector_copy_stream,    \
        .gather = vector_gather, .scatter = vector_scatter, .checksum = vector_checksum, \
        .zero_stream = vector_zero_stream,                                               \
    }

#endif
