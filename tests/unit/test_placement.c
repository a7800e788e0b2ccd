/*
 * test_placement.c - goal: a placement counts every block of a session once, in memory and in the
 * store, and calls verified only what the kernel saw in this call. Method: sessions whose blocks lie
 * scattered between those of others, so that neighbours are joined only where they are neighbours;
 * move_pages made to answer wrongly through the syscall table.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#include "unit/api_fixture.h"

enum { SESSIONS = 3, TURNS = 5, TURN_TOKENS = 2 * API_BLOCK_TOKENS };

static uint64_t place_bytes(const struct abode_placement *placement, uint32_t tier,
                            const struct abode_place **ret_place)
{
    uint64_t bytes = 0;
    for (uint32_t i = 0; i < placement->place_count; i++) {
        if (placement->places[i].tier == tier) {
            bytes += placement->places[i].bytes;
            *ret_place = &placement->places[i];
        }
    }
    return bytes;
}

/* Turns of all sessions in turn: frames and slots of one lie between those of the others. */
static void scatter(struct api *api, struct abode_session sessions[SESSIONS])
{
    for (uint32_t i = 0; i < SESSIONS; i++) {
        sessions[i] = api_create(api, api->paged, i + 1);
    }
    for (uint32_t turn = 0; turn < TURNS; turn++) {
        for (uint32_t i = 0; i < SESSIONS; i++) {
            assert_int_equal(api_append(api, sessions[i], i, TURN_TOKENS), 0);
            assert_int_equal(api_detach(api, sessions[i], 0), 0);
            assert_int_equal(api_attach(api, sessions[i], 0), 0);
        }
    }
}

static void every_block_is_counted_once(void **state)
{
    struct api *api = *state;
    struct abode_session sessions[SESSIONS];
    struct abode_placement placement;
    const struct abode_place *place = NULL;
    const uint64_t bytes = (uint64_t)TURNS * TURN_TOKENS / API_BLOCK_TOKENS * API_ROW_BYTES;
    api_open(api);
    scatter(api, sessions);
    for (uint32_t i = 0; i < SESSIONS; i++) {
        assert_int_equal(abode_session_placement(api->runtime, sessions[i], &placement), 0);
        assert_int_equal(place_bytes(&placement, ABODE_TIER_MEMORY, &place), bytes);
        assert_int_equal(place->pages_elsewhere, 0);
        assert_int_equal(place->verified, 1);
        assert_int_equal(place_bytes(&placement, ABODE_TIER_STORE, &place), bytes);
    }
    /* in the store only, and a hybrid session with its states */
    assert_int_equal(api_detach(api, sessions[0], ABODE_DETACH_SPILL_NOW), 0);
    assert_int_equal(abode_session_placement(api->runtime, sessions[0], &placement), 0);
    assert_int_equal(place_bytes(&placement, ABODE_TIER_MEMORY, &place), 0);
    assert_int_equal(place_bytes(&placement, ABODE_TIER_STORE, &place), bytes);
    struct abode_session hybrid = api_create(api, api->hybrid, 9);
    api_turn(api, hybrid, 9, TURN_TOKENS);
    assert_int_equal(abode_session_placement(api->runtime, hybrid, &placement), 0);
    assert_true(place_bytes(&placement, ABODE_TIER_MEMORY, &place) >
                TURN_TOKENS / API_BLOCK_TOKENS * API_ROW_BYTES + API_STATE_BYTES);
    assert_int_equal(place_bytes(&placement, ABODE_TIER_STORE, &place), 0);
}

static void what_the_kernel_does_not_confirm_is_not_verified(void **state)
{
    struct api *api = *state;
    struct abode_session sessions[SESSIONS];
    struct abode_placement placement;
    const struct abode_place *place = NULL;
    api_open(api);
    scatter(api, sessions);
    fault_os_plan(&api->fault, (struct fault_plan){.call = AB_OS_MOVE_PAGES,
                                                   .kind = FAULT_ERROR,
                                                   .error = ENOMEM,
                                                   .sticky = true});
    assert_int_equal(abode_session_placement(api->runtime, sessions[1], &placement), 0);
    assert_true(place_bytes(&placement, ABODE_TIER_MEMORY, &place) > 0);
    assert_int_equal(place->verified, 0);
    fault_os_clear(&api->fault);
    assert_int_equal(abode_session_placement(api->runtime, sessions[1], &placement), 0);
    assert_true(place_bytes(&placement, ABODE_TIER_MEMORY, &place) > 0);
    assert_int_equal(place->verified, 1);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, api_up, api_down)
    const struct CMUnitTest tests[] = {
        TEST(every_block_is_counted_once),
        TEST(what_the_kernel_does_not_confirm_is_not_verified),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
