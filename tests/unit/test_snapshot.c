/*
 * test_snapshot.c - SNAPSHOT and BYTES: restore points are where every component was committed.
 *
 * Goal: a position that lacks one component is never a restore point, and points that are not whole
 * never push out one that is, in memory, in the store, or after a restart. Method: commit components
 * one by one, detach and reopen in between, look at what comes back.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
// clang-format off
#include <cmocka.h>
// clang-format on

#include "api_fixture.h"

/* one component at the session's position */
static int state_commit(struct api *api, struct abode_session session, uint32_t component,
                        uint32_t salt)
{
    void *bytes;
    uint64_t at = api_tokens(api, session);
    size_t size = component == API_STATE ? API_STATE_BYTES : 100 + at * 3; /* as the fixture's */
    int status = abode_snapshot_reserve(api->runtime, session, component, size, &bytes);
    if (status != 0) {
        return status;
    }
    api_state_bytes(salt, at, component, bytes, size);
    return abode_snapshot_commit(api->runtime, session, component);
}

static void bounds(void **state)
{
    struct api *api = *state;
    void *bytes = NULL;
    const void *got = NULL;
    size_t size;
    uint64_t at;
    api_open(api);
    struct abode *runtime = api->runtime;
    struct abode_session session = api_create(api, api->hybrid, 1);
    assert_int_equal(abode_snapshot_reserve(runtime, session, API_KV, 8, &bytes), -EINVAL);
    assert_int_equal(abode_snapshot_reserve(runtime, session, 3, 8, &bytes), -EINVAL);
    assert_int_equal(abode_snapshot_reserve(runtime, session, UINT32_MAX, 8, &bytes), -EINVAL);
    assert_int_equal(abode_snapshot_reserve(runtime, session, API_BYTES, 0, &bytes), -EINVAL);
    assert_int_equal(abode_snapshot_reserve(runtime, session, API_BYTES, API_BYTES_MAX + 1, &bytes),
                     -EINVAL);
    assert_int_equal(abode_snapshot_reserve(runtime, session, API_BYTES, SIZE_MAX, &bytes),
                     -EINVAL);
    assert_int_equal(abode_snapshot_reserve(runtime, session, API_STATE, 1, &bytes), -EINVAL);
    assert_int_equal(
        abode_snapshot_reserve(runtime, session, API_STATE, API_STATE_BYTES + 1, &bytes), -EINVAL);
    assert_int_equal(abode_snapshot_reserve(runtime, session, API_STATE, 0, NULL), -EINVAL);
    assert_null(bytes);
    assert_int_equal(abode_snapshot_commit(runtime, session, API_STATE), -EINVAL); /* no reserve */
    assert_int_equal(abode_snapshot_commit(runtime, session, 3), -EINVAL);
    assert_int_equal(abode_snapshot_get(runtime, session, API_STATE, &got, &size, &at), -ENOENT);
    assert_int_equal(abode_snapshot_get(runtime, session, 3, &got, &size, &at), -EINVAL);
    assert_null(got);
    assert_int_equal(api_append(api, session, 1, 5), 0);
    assert_int_equal(abode_snapshot_reserve(runtime, session, API_BYTES, API_BYTES_MAX, &bytes), 0);
    assert_int_equal(abode_snapshot_reserve(runtime, session, API_BYTES, 1, &bytes), 0);
    assert_int_equal(abode_snapshot_commit(runtime, session, API_BYTES), 0);
    assert_int_equal(abode_snapshot_commit(runtime, session, API_BYTES), -EINVAL); /* used up */
    assert_int_equal(api_snapshot(api, session, 1), 0);
    api_check(api, session, 1, 5);
}

static void part_of_a_point_is_none(void **state)
{
    struct api *api = *state;
    api_open(api);
    struct abode_session session = api_create(api, api->hybrid, 1);
    api_turn(api, session, 1, 10);
    assert_int_equal(api_append(api, session, 1, 10), 0);
    assert_int_equal(state_commit(api, session, API_STATE, 1), 0);
    assert_int_equal(api_stat(api, session).restore_point, 10);
    assert_int_equal(api_detach(api, session, 0), 0); /* tokens after the point go */
    assert_int_equal(api_tokens(api, session), 10);
    assert_int_equal(api_attach(api, session, 0), 0);
    api_check(api, session, 1, 10);
    assert_int_equal(api_detach(api, session, 0), 0);
    api_reopen(api);
    session = api_find(api, 1);
    assert_int_equal(api_attach(api, session, 0), 0);
    api_check(api, session, 1, 10);
}

static void without_a_point_nothing_is_kept(void **state)
{
    struct api *api = *state;
    api_open(api);
    struct abode_session session = api_create(api, api->hybrid, 1);
    assert_int_equal(api_append(api, session, 1, 10), 0);
    assert_int_equal(api_detach(api, session, 0), 0);
    assert_int_equal(api_tokens(api, session), 0);
    assert_int_equal(api_attach(api, session, 0), 0);
    api_turn(api, session, 2, 7);
    api_check(api, session, 2, 7);
}

/* A checkpoint with newer half points: what the record names must be written, and must stay. */
static void half_points_do_not_push_out_whole_ones(void **state)
{
    struct api *api = *state;
    api_open(api);
    struct abode_session session = api_create(api, api->hybrid, 1);
    api_turn(api, session, 1, 10);
    for (uint32_t i = 0; i < 3; i++) { /* more than the two points that the model keeps */
        assert_int_equal(api_append(api, session, 1, 10), 0);
        assert_int_equal(state_commit(api, session, API_BYTES, 1), 0);
    }
    assert_int_equal(api_stat(api, session).restore_point, 10);
    assert_int_equal(api_detach(api, session, ABODE_DETACH_KEEP), 0);
    assert_int_equal(api_tokens(api, session), 40);
    assert_int_equal(api_stat(api, session).restore_point, 10);
    assert_int_equal(api_stat(api, session).stored_tokens, 10);
    api_reopen(api); /* attached sessions keep what was acknowledged */
    session = api_find(api, 1);
    assert_int_equal(api_attach(api, session, 0), 0);
    api_check(api, session, 1, 10);
}

/* BYTES at each turn, SNAPSHOT at few: the host may go on for as long as it likes. */
static void many_half_points_are_no_obstacle(void **state)
{
    struct api *api = *state;
    api_open(api);
    struct abode_session session = api_create(api, api->hybrid, 1);
    api_turn(api, session, 1, 3);
    for (uint32_t i = 0; i < 50; i++) {
        assert_int_equal(api_append(api, session, 1, 2), 0);
        int status = state_commit(api, session, API_BYTES, 1);
        if (status != 0) {
            print_error("half point %u: %d\n", i, status);
        }
        assert_int_equal(status, 0);
        assert_int_equal(api_stat(api, session).restore_point, 3);
    }
    assert_int_equal(abode_session_truncate(api->runtime, session, 3), 0);
    api_check(api, session, 1, 3);
    api_turn(api, session, 1, 6);
    assert_int_equal(api_detach(api, session, ABODE_DETACH_SPILL_NOW), 0);
    assert_int_equal(api_attach(api, session, 0), 0);
    api_check(api, session, 1, 9);
}

static void newest_two_points_are_kept(void **state)
{
    struct api *api = *state;
    struct abode_session child;
    api_open(api);
    struct abode_session session = api_create(api, api->hybrid, 1);
    for (uint32_t i = 0; i < 6; i++) {
        api_turn(api, session, 1, 10);
    }
    assert_int_equal(abode_session_fork(api->runtime, session, 40, NULL, &child), -EINVAL);
    assert_int_equal(abode_session_fork(api->runtime, session, 50, NULL, &child), 0);
    api_check(api, child, 1, 50);
    assert_int_equal(abode_session_delete(api->runtime, child), 0);
    assert_int_equal(api_detach(api, session, ABODE_DETACH_SPILL_NOW), 0);
    api_reopen(api);
    session = api_find(api, 1);
    assert_int_equal(api_attach(api, session, 0), 0);
    api_check(api, session, 1, 60);
    assert_int_equal(api_truncate(api, session, 40), -EINVAL);
    assert_int_equal(api_truncate(api, session, 50), 0); /* in the store only: brought in first */
    api_check(api, session, 1, 50);
    assert_int_equal(api_detach(api, session, 0), 0);
    assert_int_equal(api_attach(api, session, 0), 0);
    api_check(api, session, 1, 50);
}

static void again_at_the_same_position(void **state)
{
    struct api *api = *state;
    api_open(api);
    struct abode_session session = api_create(api, api->hybrid, 1);
    api_turn(api, session, 1, 10);
    assert_int_equal(api_detach(api, session, ABODE_DETACH_KEEP), 0);
    for (uint32_t i = 0; i < 60; i++) { /* the stored point is superseded, not changed */
        assert_int_equal(api_snapshot(api, session, 1), 0);
    }
    api_check(api, session, 1, 10);
    assert_int_equal(state_commit(api, session, API_STATE, 5), 0);
    const void *bytes;
    size_t size;
    uint64_t at;
    unsigned char expected[API_STATE_BYTES];
    for (int i = 0; i < 2; i++) {
        assert_int_equal(abode_snapshot_get(api->runtime, session, API_STATE, &bytes, &size, &at),
                         0);
        api_state_bytes(5, 10, API_STATE, expected, sizeof(expected));
        assert_memory_equal(bytes, expected, sizeof(expected));
        assert_int_equal(api_detach(api, session, ABODE_DETACH_SPILL_NOW), 0);
        api_reopen(api);
        session = api_find(api, 1);
        assert_int_equal(api_attach(api, session, 0), 0);
    }
    struct abode_stats stats;
    assert_int_equal(abode_stats_get(api->runtime, &stats), 0);
    assert_in_range(stats.blocks_stored, 4, 6); /* two rows, two states; the old ones are gone */
}

static void reserved_and_never_committed(void **state)
{
    struct api *api = *state;
    void *bytes;
    struct abode_stats before, after;
    api_open(api);
    struct abode_session session = api_create(api, api->hybrid, 1);
    api_turn(api, session, 1, 10);
    assert_int_equal(abode_stats_get(api->runtime, &before), 0);
    for (uint32_t i = 0; i < 100; i++) {
        assert_int_equal(abode_snapshot_reserve(api->runtime, session, API_STATE, 0, &bytes), 0);
        memset(bytes, 0xee, API_STATE_BYTES);
    }
    api_check(api, session, 1, 10);
    assert_int_equal(api_detach(api, session, 0), 0);
    assert_int_equal(abode_stats_get(api->runtime, &after), 0);
    assert_int_equal(after.blocks_resident, before.blocks_resident);
    assert_int_equal(after.blocks_pinned, 0);
    assert_int_equal(api_attach(api, session, 0), 0);
    api_check(api, session, 1, 10);
    assert_int_equal(abode_snapshot_reserve(api->runtime, session, API_STATE, 0, &bytes), 0);
    assert_int_equal(abode_session_delete(api->runtime, session), 0);
    assert_int_equal(abode_flush(api->runtime, -1), 0);
    assert_int_equal(abode_stats_get(api->runtime, &after), 0);
    assert_int_equal(after.blocks_resident, 0);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, api_up, api_down)
    const struct CMUnitTest tests[] = {
        TEST(bounds),
        TEST(part_of_a_point_is_none),
        TEST(without_a_point_nothing_is_kept),
        TEST(half_points_do_not_push_out_whole_ones),
        TEST(many_half_points_are_no_obstacle),
        TEST(newest_two_points_are_kept),
        TEST(again_at_the_same_position),
        TEST(reserved_and_never_committed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
