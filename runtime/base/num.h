/*
 * num.h - arithmetic that cannot overflow silently, alignment, bounds. Header only; leaves.
 */
#ifndef AB_BASE_NUM_H
#define AB_BASE_NUM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define AB_PAGE 4096u            /* unit of slots, of O_DIRECT and of move_pages */
#define AB_HUGE (2u << 20)       /* x86-64 and aarch64/4K transparent huge page */
#define AB_INDEX_NONE UINT32_MAX /* "no such thing" for every uint32_t index */

#define AB_MIN(a, b) ((a) < (b) ? (a) : (b))
#define AB_MAX(a, b) ((a) > (b) ? (a) : (b))
#define AB_COUNT(array) (sizeof(array) / sizeof((array)[0]))
#define ab_container_of(pointer, type, member) \
    ((type *)(void *)((char *)(pointer)-offsetof(type, member)))

/* false on overflow; *ret is written on success only */
static inline bool ab_add_u64(uint64_t a, uint64_t b, uint64_t *ret)
{
    uint64_t sum;
    if (__builtin_add_overflow(a, b, &sum)) {
        return false;
    }
    *ret = sum;
    return true;
}

static inline bool ab_mul_u64(uint64_t a, uint64_t b, uint64_t *ret)
{
    uint64_t product;
    if (__builtin_mul_overflow(a, b, &product)) {
        return false;
    }
    *ret = product;
    return true;
}

static inline bool ab_is_pow2(uint64_t value)
{
    return value != 0 && (value & (value - 1)) == 0;
}

/* alignment is a power of two; value + alignment must not overflow */
static inline uint64_t ab_align_up(uint64_t value, uint64_t alignment)
{
    return (value + alignment - 1) & ~(alignment - 1);
}

static inline uint64_t ab_align_down(uint64_t value, uint64_t alignment)
{
    return value & ~(alignment - 1);
}

/* any unit > 0 */
static inline uint64_t ab_align_down_any(uint64_t value, uint64_t unit)
{
    return value - value % unit;
}

static inline uint64_t ab_div_up(uint64_t value, uint64_t divisor)
{
    return value / divisor + (value % divisor != 0);
}

#endif
