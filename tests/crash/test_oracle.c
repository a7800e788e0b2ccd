/*
 * test_oracle.c - the oracle of test_kill9: what it takes for promised.
 *
 * Goal: it asks for no more than the session that came back was promised. Method: short rows of
 * versions, settled as the worker does after a kill.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
// clang-format off
#include <cmocka.h>
// clang-format on

#include "crash/oracle.h"

static struct oracle_name *name_new(void)
{
    struct oracle_name *name = calloc(1, sizeof(*name));

    assert_non_null(name);
    (void)oracle_push(name, NULL);
    return name;
}

static uint32_t push(struct oracle_name *name, uint32_t durability, uint32_t token_count)
{
    const struct live_state state = {.token_count = token_count};

    name->durability = durability;
    return oracle_push(name, &state);
}

/* Deleted and made anew under another durability; the kill takes both back. */
static void durability_comes_back_with_its_session(void **state)
{
    struct oracle_name *name = name_new();
    uint32_t old = push(name, ABODE_MEM, 5);

    (void)state;
    (void)oracle_push(name, NULL);
    (void)push(name, ABODE_WRITTEN, 0);
    oracle_settle(name, &name->versions[old]);
    assert_int_equal(name->durability, ABODE_MEM);
    free(name);
}

static void of_versions_that_look_the_same_the_least_counts(void **state)
{
    struct oracle_name *name = name_new();
    uint32_t newest;

    (void)state;
    (void)push(name, ABODE_MEM, 0);
    (void)oracle_push(name, NULL);
    newest = push(name, ABODE_DURABLE, 0);
    oracle_settle(name, &name->versions[newest]);
    assert_int_equal(name->durability, ABODE_MEM);
    free(name);
}

static void what_was_refused_is_not_possible(void **state)
{
    struct oracle_name *name = name_new();
    uint32_t kept = push(name, ABODE_WRITTEN, 5);

    (void)state;
    (void)push(name, ABODE_WRITTEN, 9);
    oracle_pop(name);
    assert_int_equal(atomic_load(&name->count) - 1, kept);
    free(name);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(durability_comes_back_with_its_session),
        cmocka_unit_test(of_versions_that_look_the_same_the_least_counts),
        cmocka_unit_test(what_was_refused_is_not_possible),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
