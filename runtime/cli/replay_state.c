/*
 * replay_state.c - the bytes of rows and snapshots, filled as a model would and checked.
 *
 * Token t of a plane of b bytes a token lies at byte (t - first token of the row) * b of the plane.
 * Its bytes are [(t mod T) * b, + b) of the stream of (identity of trace block t / T, component,
 * plane): a function of what the token is, not of who holds it or where.
 */
#include "replay.h"

#include "content.h"

#include <stdio.h>
#include <time.h>

#define WRONG_PRINTED_MAX 8

uint64_t replay_thread_cpu_ns(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

struct piece { /* tokens of a row that lie in one block of the trace */
    uint64_t identity;
    uint64_t stream_token; /* inside the block */
    uint32_t row_token;    /* inside the row */
    uint32_t count;
};

/* The piece that starts at *at (inside the row); moves *at behind it. */
static struct piece piece_next(const struct replay *replay, const struct replay_tokens *tokens,
                               uint32_t *at)
{
    const uint32_t block = replay->trace.block_tokens;
    const uint64_t token = tokens->row_token + *at;
    const uint64_t block_left = block - token % block;
    const uint32_t left = tokens->first + tokens->count - *at;
    struct piece piece = {
        .identity = tokens->identities[token / block],
        .stream_token = token % block,
        .row_token = *at,
        .count = block_left < left ? (uint32_t)block_left : left,
    };
    *at += piece.count;
    return piece;
}

void replay_row_fill(struct replay *replay, uint32_t component, unsigned char *frame,
                     const struct replay_tokens *tokens)
{
    const struct preset_part *const part = &replay->geometry.parts[component];
    const uint64_t bytes = part->plane_bytes;

    for (uint32_t at = tokens->first; at < tokens->first + tokens->count;) {
        const struct piece piece = piece_next(replay, tokens, &at);
        for (uint32_t plane = 0; plane < part->plane_count; plane++) {
            unsigned char *const target = frame + replay->plane_offsets[component][plane];
            content_fill(target + piece.row_token * bytes,
                         content_seed(piece.identity, component, plane), piece.stream_token * bytes,
                         piece.count * bytes);
        }
    }
    replay->figures.bytes_filled += tokens->count * bytes * part->plane_count;
}

static void wrong_print(const struct replay *replay, const char *what, uint64_t wrong)
{
    static const char mend[] = "this is a defect of abode or of the machine's memory: keep the "
                               "store with --keep and run `abode verify` on it";
    if (replay->figures.bytes_wrong < WRONG_PRINTED_MAX) {
        (void)fprintf(stderr, "abode: %s: %llu bytes are wrong: %s\n", what,
                      (unsigned long long)wrong, mend);
    }
}

uint64_t replay_row_check(struct replay *replay, uint32_t component, const unsigned char *frame,
                          const struct replay_tokens *tokens)
{
    const struct preset_part *const part = &replay->geometry.parts[component];
    const uint64_t bytes = part->plane_bytes;
    uint64_t wrong = 0;

    for (uint32_t at = tokens->first; at < tokens->first + tokens->count;) {
        const struct piece piece = piece_next(replay, tokens, &at);
        for (uint32_t plane = 0; plane < part->plane_count; plane++) {
            const unsigned char *const source = frame + replay->plane_offsets[component][plane];
            wrong += content_check(source + piece.row_token * bytes,
                                   content_seed(piece.identity, component, plane),
                                   piece.stream_token * bytes, piece.count * bytes, NULL);
        }
    }
    replay->figures.bytes_verified += tokens->count * bytes * part->plane_count;
    if (wrong > 0) {
        char what[96];
        (void)snprintf(what, sizeof(what), "component %u, tokens %llu to %llu", component,
                       (unsigned long long)(tokens->row_token + tokens->first),
                       (unsigned long long)(tokens->row_token + tokens->first + tokens->count));
        wrong_print(replay, what, wrong);
        replay->figures.bytes_wrong += wrong;
    }
    return wrong;
}

/* What all tokens up to token_count make: the recurrent state depends on every one of them. */
uint64_t replay_point_identity(const struct replay *replay, const uint64_t *identities,
                               uint64_t token_count)
{
    const uint32_t block = replay->trace.block_tokens;
    uint64_t identity = content_mix(token_count);

    for (uint64_t index = 0; index * block < token_count; index++) {
        identity = content_join(identity, identities[index]);
    }
    return identity;
}

/* SNAPSHOT: fixed. BYTES: any size from 1 to its largest, by position. */
size_t replay_point_bytes(const struct replay *replay, uint32_t component, uint64_t token_count)
{
    const struct preset_part *const part = &replay->geometry.parts[component];
    return part->kind == ABODE_BYTES ? (size_t)(1 + content_mix(token_count) % part->plane_bytes)
                                     : (size_t)part->plane_bytes * part->plane_count;
}

void replay_bytes_fill(struct replay *replay, unsigned char *target, uint64_t seed, size_t size)
{
    content_fill(target, seed, 0, size);
    replay->figures.bytes_filled += size;
}

uint64_t replay_bytes_check(struct replay *replay, const unsigned char *source, uint64_t seed,
                            size_t size, const char *what)
{
    const uint64_t wrong = content_check(source, seed, 0, size, NULL);

    replay->figures.bytes_verified += size;
    if (wrong > 0) {
        wrong_print(replay, what, wrong);
        replay->figures.bytes_wrong += wrong;
    }
    return wrong;
}
