/*
 * test_check.c - goal: in a release a broken promise poisons the runtime that the thread works for,
 * once, and nothing else. Method: check.c is compiled into this file without AB_DEBUG, whatever the
 * build; what AB_DEBUG does is seen in test_lock.c.
 */
#undef AB_DEBUG
#include "base/check.c" /* the release form */

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

static void broken_promise_poisons_once(void **state)
{
    (void)state;
    struct ab_poison poison = {.where = NULL};
    assert_null(ab_poison_enter(&poison));
    AB_ASSERT(1 + 1 == 2);
    assert_false(ab_poisoned(&poison));
    AB_ASSERT(1 + 1 == 3);
    assert_true(ab_poisoned(&poison));
    const char *first = atomic_load(&poison.where);
    assert_non_null(strstr(first, "test_check.c:"));
    assert_non_null(strstr(first, ": 1 + 1 == 3"));
    AB_ASSERT(1 + 1 == 4);
    assert_ptr_equal(atomic_load(&poison.where), first); /* the first one is the cause */
    assert_ptr_equal(ab_poison_enter(NULL), &poison);
}

static void calls_nest(void **state)
{
    (void)state;
    struct ab_poison outer = {.where = NULL};
    struct ab_poison inner = {.where = NULL};
    struct ab_poison *before_outer = ab_poison_enter(&outer);
    struct ab_poison *before_inner = ab_poison_enter(&inner);
    assert_ptr_equal(before_inner, &outer);
    AB_ASSERT(false);
    (void)ab_poison_enter(before_inner);
    assert_true(ab_poisoned(&inner));
    assert_false(ab_poisoned(&outer));
    AB_ASSERT(false);
    assert_true(ab_poisoned(&outer));
    (void)ab_poison_enter(before_outer);
}

static void nobody_is_poisoned_when_nobody_is_served(void **state)
{
    (void)state;
    assert_null(ab_poison_enter(NULL));
    AB_ASSERT(false); /* goes on */
}

static void *break_promise(void *argument)
{
    (void)argument;
    AB_ASSERT(false); /* this thread works for nobody */
    return NULL;
}

static void threads_do_not_share_it(void **state)
{
    (void)state;
    struct ab_poison poison = {.where = NULL};
    pthread_t thread;
    (void)ab_poison_enter(&poison);
    assert_int_equal(pthread_create(&thread, NULL, break_promise, NULL), 0);
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_false(ab_poisoned(&poison));
    (void)ab_poison_enter(NULL);
}

static int calls;

static int count_call(void)
{
    return ++calls;
}

static void debug_levels_are_not_evaluated_in_a_release(void **state)
{
    (void)state;
    calls = 0;
    AB_ASSERT_DEBUG(count_call() < 0);
    AB_ASSERT_FULL(count_call() < 0);
    assert_int_equal(calls, 0);
    AB_ASSERT(count_call() > 0);
    assert_int_equal(calls, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(broken_promise_poisons_once),
        cmocka_unit_test(calls_nest),
        cmocka_unit_test(nobody_is_poisoned_when_nobody_is_served),
        cmocka_unit_test(threads_do_not_share_it),
        cmocka_unit_test(debug_levels_are_not_evaluated_in_a_release),
    };
    return cmocka_run_group_tests_name("check", tests, NULL, NULL);
}
