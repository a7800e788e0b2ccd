/*
 * ring.c - bounded ring of pointers, many producers, one consumer.
 *
 * Each cell has a turn number that says who may use it next. For position p (counted for ever),
 * which lies in cell p mod capacity:
 *
 *   turn == 2p                free: the producer that claims p may fill it
 *   turn == 2p + 1            full: the consumer at p may take it
 *   turn == 2(p + capacity)   free again, one lap later
 *
 * Doubling keeps "full at p" and "free at p + 1" apart even with one cell. Producers claim a
 * position by compare-and-swap on `push_position`; between the claim and the turn's store the cell
 * is nobody else's. A producer that stops there delays the consumer, never breaks it.
 */
#include "base/ring.h"

#include <errno.h>
#include <stdatomic.h>

#include "base/num.h"

#define CACHE_LINE 64

struct cell {
    _Atomic uint64_t turn;
    void *item;
};

struct ab_ring {
    const struct ab_os *os;
    struct cell *cells;
    uint64_t mask;
    _Alignas(CACHE_LINE) _Atomic uint64_t push_position; /* written by all producers */
    _Alignas(CACHE_LINE) uint64_t pop_position;          /* the consumer's own */
};

int ab_ring_open(const struct ab_os *os, uint32_t capacity, struct ab_ring **ret)
{
    if (!ab_is_pow2(capacity)) {
        return -EINVAL;
    }
    struct ab_ring *ring = os->alloc(os, sizeof(*ring), CACHE_LINE);
    if (ring == NULL) {
        return -ENOMEM;
    }
    ring->cells = ab_os_alloc_array(os, capacity, sizeof(*ring->cells));
    if (ring->cells == NULL) {
        os->free(os, ring);
        return -ENOMEM;
    }
    ring->os = os;
    ring->mask = capacity - 1;
    for (uint64_t position = 0; position < capacity; position++) {
        atomic_init(&ring->cells[position].turn, 2 * position);
    }
    *ret = ring;
    return 0;
}

void ab_ring_close(struct ab_ring *ring)
{
    if (ring != NULL) {
        const struct ab_os *os = ring->os;
        os->free(os, ring->cells);
        os->free(os, ring);
    }
}

bool ab_ring_push(struct ab_ring *ring, void *item)
{
    AB_ASSERT(item != NULL); /* NULL is how pop says "empty" */
    uint64_t position = atomic_load_explicit(&ring->push_position, memory_order_relaxed);
    /* Ends: a round fails only when another producer advanced, or the ring is full. */
    for (;;) {
        struct cell *cell = &ring->cells[position & ring->mask];
        /* acquire: pairs with the consumer's release, its read of the old item is over */
        const uint64_t turn = atomic_load_explicit(&cell->turn, memory_order_acquire);
        if (turn == 2 * position) {
            if (atomic_compare_exchange_weak_explicit(&ring->push_position, &position, position + 1,
                                                      memory_order_relaxed, memory_order_relaxed)) {
                cell->item = item;
                /* release: pairs with the acquire in ab_ring_pop, publishes the item */
                atomic_store_explicit(&cell->turn, 2 * position + 1, memory_order_release);
                return true;
            }
        } else if (turn < 2 * position) {
            return false; /* still full from a lap ago */
        } else {
            position = atomic_load_explicit(&ring->push_position, memory_order_relaxed);
        }
    }
}

void *ab_ring_pop(struct ab_ring *ring)
{
    const uint64_t position = ring->pop_position;
    struct cell *cell = &ring->cells[position & ring->mask];
    /* acquire: pairs with the release in ab_ring_push */
    if (atomic_load_explicit(&cell->turn, memory_order_acquire) != 2 * position + 1) {
        return NULL;
    }
    void *item = cell->item;
    ring->pop_position = position + 1;
    /* release: pairs with the acquire in ab_ring_push, the cell may be filled again */
    atomic_store_explicit(&cell->turn, 2 * (position + ring->mask + 1), memory_order_release);
    return item;
}
