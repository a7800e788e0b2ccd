/*
 * content.h - bytes that know where they belong.
 *
 * The commands that move real state need bytes that can be made again at any time without being
 * kept: every byte is a pure function of (identity, component, plane, offset), where an identity
 * is 64 bits that name a run of tokens. A block that comes back in the wrong place, from another
 * session, from an older generation or half-written therefore never passes the check.
 *
 *   stream(identity, component, plane) = word 0, word 1, ...       word k = scramble(seed + k * G)
 *                                        |-------- any byte range can be filled or checked -------|
 *
 * One multiplication per 8 bytes: a core fills and checks faster than memory bandwidth of small
 * machines, so that checking everything stays affordable (tests/unit/test_content.c prints it).
 * The words do not compress, so a device that compresses cannot flatter a measurement.
 *
 * Pure functions; any thread.
 */
#ifndef CLI_CONTENT_H
#define CLI_CONTENT_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define CONTENT_STEP 0x9e3779b97f4a7c15ull /* 2^64 / golden ratio, odd: words differ for any k */
#define CONTENT_FACTOR \
    0xd6e8feb86659fd93ull /* odd, its bits well mixed: guess, tested below 1/256 */

/* Spreads all input bits over all output bits (two rounds of xor-shift and multiply). */
static inline uint64_t content_mix(uint64_t value)
{
    value ^= value >> 32;
    value *= CONTENT_FACTOR;
    value ^= value >> 32;
    value *= CONTENT_FACTOR;
    return value ^ (value >> 32);
}

static inline uint64_t content_join(uint64_t left, uint64_t right)
{
    return content_mix(content_mix(left + CONTENT_STEP) ^ (right * CONTENT_STEP + 1));
}

static inline uint64_t content_seed(uint64_t identity, uint32_t component, uint32_t plane)
{
    return content_join(identity, (uint64_t)component << 32 | plane);
}

static inline uint64_t content_word(uint64_t seed, uint64_t index)
{
    uint64_t word = seed + index * CONTENT_STEP;

    word ^= word >> 32;
    return word * CONTENT_FACTOR;
}

static inline uint8_t content_byte(uint64_t seed, uint64_t offset)
{
    const uint64_t word = content_word(seed, offset / 8);
    uint8_t bytes[8];

    memcpy(bytes, &word, sizeof(bytes));
    return bytes[offset % 8];
}

/* Write bytes [offset, offset + size) of the stream to `target`. */
static inline void content_fill(unsigned char *target, uint64_t seed, uint64_t offset, size_t size)
{
    size_t done = 0;

    for (; done < size && (offset + done) % 8 != 0; done++) {
        target[done] = content_byte(seed, offset + done);
    }
    for (uint64_t index = (offset + done) / 8; size - done >= 8; done += 8, index++) {
        const uint64_t word = content_word(seed, index);

        memcpy(target + done, &word, sizeof(word));
    }
    for (; done < size; done++) {
        target[done] = content_byte(seed, offset + done);
    }
}

/* How many bytes of `source` differ from the stream's [offset, offset + size); ret_first, where
 * not NULL, gets the index of the first one that does. */
static inline size_t content_check_slowly(const unsigned char *source, uint64_t seed,
                                          uint64_t offset, size_t size, size_t *ret_first)
{
    size_t wrong = 0;

    for (size_t i = 0; i < size; i++) {
        if (source[i] != content_byte(seed, offset + i)) {
            if (wrong == 0 && ret_first != NULL) {
                *ret_first = i;
            }
            wrong++;
        }
    }
    return wrong;
}

static inline size_t content_check(const unsigned char *source, uint64_t seed, uint64_t offset,
                                   size_t size, size_t *ret_first)
{
    uint64_t difference = 0;
    size_t done = 0;

    for (; done < size && (offset + done) % 8 != 0; done++) {
        difference |= (uint64_t)(source[done] ^ content_byte(seed, offset + done));
    }
    for (uint64_t index = (offset + done) / 8; size - done >= 8; done += 8, index++) {
        uint64_t word;

        memcpy(&word, source + done, sizeof(word));
        difference |= word ^ content_word(seed, index);
    }
    for (; done < size; done++) {
        difference |= (uint64_t)(source[done] ^ content_byte(seed, offset + done));
    }
    return difference == 0 ? 0 : content_check_slowly(source, seed, offset, size, ret_first);
}

#endif
