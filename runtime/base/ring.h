/*
 * ring.h - bounded ring of pointers, many producers, one consumer (Vyukov's bounded queue with a
 * sequence number a cell). push never blocks; false: full. Capacity is a power of two.
 */
#ifndef AB_BASE_RING_H
#define AB_BASE_RING_H

#include <stdbool.h>
#include <stdint.h>

#include "base/os.h"

struct ab_ring;
int ab_ring_open(const struct ab_os *os, uint32_t capacity, struct ab_ring **ret) AB_MUST_CHECK;
void ab_ring_close(struct ab_ring *ring);            /* NULL is fine */
bool ab_ring_push(struct ab_ring *ring, void *item); /* any thread */
void *ab_ring_pop(struct ab_ring *ring);             /* the consumer; NULL: empty */

#endif
