/*
 * test_ring.c - goal: what is pushed comes out once, each producer's items in its order, and a full
 * ring refuses. Method: every fill level of small rings over many laps; then several producers that
 * race one consumer, where a lost, doubled or reordered item is seen by its number (run it with
 * check-tsan for the ordering itself).
 */
#include "base/ring.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#include "base/num.h"
#include "fault_os.h"

#define PRODUCERS 4
#define ITEMS 50000

static void *item_of(uint64_t number)
{
    return (void *)(uintptr_t)number;
}

static void small_rings_fill_and_empty(void **state)
{
    (void)state;
    static const uint32_t capacities[] = {1, 2, 4, 8};
    for (size_t c = 0; c < AB_COUNT(capacities); c++) {
        struct ab_ring *ring = NULL;
        assert_int_equal(ab_ring_open(ab_os_default(), capacities[c], &ring), 0);
        uint64_t pushed = 0;
        uint64_t popped = 0;
        for (uint32_t lap = 0; lap < 40; lap++) {
            const uint32_t level = lap % capacities[c] + 1;
            assert_null(ab_ring_pop(ring));
            for (uint32_t i = 0; i < level; i++) {
                assert_true(ab_ring_push(ring, item_of(++pushed)));
            }
            if (level == capacities[c]) {
                assert_false(ab_ring_push(ring, item_of(999999)));
            }
            for (uint32_t i = 0; i < level; i++) {
                assert_ptr_equal(ab_ring_pop(ring), item_of(++popped));
            }
        }
        ab_ring_close(ring);
    }
}

static void bad_capacities_are_refused(void **state)
{
    (void)state;
    struct ab_ring *ring = NULL;
    assert_int_equal(ab_ring_open(ab_os_default(), 0, &ring), -EINVAL);
    assert_int_equal(ab_ring_open(ab_os_default(), 3, &ring), -EINVAL);
    assert_int_equal(ab_ring_open(ab_os_default(), UINT32_MAX, &ring), -EINVAL);
    assert_null(ring);
    ab_ring_close(NULL);
}

static void lack_of_memory_leaves_nothing_behind(void **state)
{
    (void)state;
    struct fault_os fault;
    struct ab_ring *ring = NULL;
    fault_os_init(&fault, NULL);
    for (uint64_t nth = 1;; nth++) {
        assert_true(nth < 10);
        fault_os_plan(&fault,
                      (struct fault_plan){
                          .call = AB_OS_ALLOC, .kind = FAULT_ERROR, .error = ENOMEM, .nth = nth});
        const int result = ab_ring_open(&fault.os, 4, &ring);
        if (fault_os_strikes(&fault) == 0) {
            assert_int_equal(result, 0);
            break;
        }
        assert_int_equal(result, -ENOMEM);
        assert_null(ring);
        assert_int_equal(fault_os_allocations(&fault), 0);
        fault_os_clear(&fault);
    }
    ab_ring_close(ring);
    assert_int_equal(fault_os_allocations(&fault), 0);
    fault_os_free(&fault);
}

struct producer {
    struct ab_ring *ring;
    uint64_t index;
};

static void *produce(void *argument)
{
    const struct producer *producer = argument;
    for (uint64_t i = 1; i <= ITEMS; i++) {
        while (!ab_ring_push(producer->ring, item_of(producer->index << 32 | i))) {
            (void)sched_yield();
        }
    }
    return NULL;
}

static void producers_race(void **state)
{
    (void)state;
    struct ab_ring *ring = NULL;
    struct producer producers[PRODUCERS];
    pthread_t threads[PRODUCERS];
    uint64_t last[PRODUCERS] = {0};
    assert_int_equal(ab_ring_open(ab_os_default(), 16, &ring), 0);
    for (uint64_t i = 0; i < PRODUCERS; i++) {
        producers[i] = (struct producer){.ring = ring, .index = i};
        assert_int_equal(pthread_create(&threads[i], NULL, produce, &producers[i]), 0);
    }
    for (uint64_t got = 0; got < (uint64_t)PRODUCERS * ITEMS;) {
        const uint64_t number = (uintptr_t)ab_ring_pop(ring);
        if (number == 0) {
            (void)sched_yield();
            continue;
        }
        const uint64_t index = number >> 32;
        assert_true(index < PRODUCERS);
        assert_int_equal(number & UINT32_MAX, last[index] + 1);
        last[index]++;
        got++;
    }
    for (uint64_t i = 0; i < PRODUCERS; i++) {
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    }
    assert_null(ab_ring_pop(ring));
    ab_ring_close(ring);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(small_rings_fill_and_empty),
        cmocka_unit_test(bad_capacities_are_refused),
        cmocka_unit_test(lack_of_memory_leaves_nothing_behind),
        cmocka_unit_test(producers_race),
    };
    return cmocka_run_group_tests_name("ring", tests, NULL, NULL);
}
