/*
 * test_reclaim.c - memory that is short: what is cold gives way, and who waits hears if nothing can.
 *
 * Goal: an append that finds no frame gets one as long as anything can be written or forgotten, and
 * an error that names the cause where nothing can; it never waits without end. Method: a runtime
 * of 2 MiB over a store that is larger, or full.
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
#include "front/front.h"

#define SESSIONS 80u
#define CHILDREN 40u /* more than are looked at as candidates */

static void small_open(struct api *api, uint64_t store_bytes)
{
    api->config.store_bytes_max = store_bytes;
    api->hybrid_bytes = 0;
    api->paged_bytes = 2u << 20; /* 256 rows */
    api_open(api);
}

/* Sessions that are stored, until the store has no room; returns how many there are, the last one
 * in memory only. */
static uint32_t fill_up(struct api *api, struct abode_session *sessions)
{
    uint32_t count = 0;
    int status = 0;
    for (; status == 0 && count < SESSIONS; count++) {
        sessions[count] = api_create(api, api->paged, count + 1);
        assert_int_equal(api_append(api, sessions[count], count, 128), 0);
        status = api_detach(api, sessions[count], 0);
    }
    assert_int_equal(status, -ENOSPC);
    return count;
}

/* Detached sessions that cannot be stored fill the memory: the append says so, and goes on when the
 * host has made room. */
static void a_full_store_is_no_reason_to_wait(void **state)
{
    struct api *api = *state;
    struct abode_session sessions[SESSIONS];
    small_open(api, 4u << 20);
    const uint32_t stored = fill_up(api, sessions) - 1;
    uint32_t count = stored + 1;
    int status = 0;
    while (status == 0 && count < SESSIONS) {
        sessions[count] = api_create(api, api->paged, count + 1);
        status = api_append(api, sessions[count], count, 128);
        if (status == 0) {
            assert_int_equal(api_detach(api, sessions[count++], 0), -ENOSPC);
        }
    }
    assert_int_equal(status, -ENOSPC);
    assert_in_range(count, stored + 8, SESSIONS - 1);
    for (uint32_t i = 0; i < stored && status == -ENOSPC; i++) { /* whole segments must come free */
        assert_int_equal(abode_session_delete(api->runtime, sessions[i]), 0);
        status = api_append(api, sessions[count], count, 128);
    }
    assert_int_equal(status, 0);
    api_check(api, sessions[count], count, 128);
    assert_int_equal(api_attach(api, sessions[stored + 1], 0), 0); /* the others are as they were */
    api_check(api, sessions[stored + 1], stored + 1, 128);
}

/* Rows that nobody owns and the full store has no room for: they are forgotten. */
static void what_nobody_owns_is_forgotten(void **state)
{
    struct api *api = *state;
    struct abode_session sessions[SESSIONS];
    small_open(api, 4u << 20);
    (void)fill_up(api, sessions);
    for (uint32_t round = 0; round < 64; round++) { /* 1,024 rows: the memory, four times */
        struct abode_session_opts opts = {
            .struct_size = sizeof(opts), .model = api->paged, .home_node = -1};
        struct abode_session session;
        struct abode_span spans[16];
        struct abode_key keys[16];
        for (uint32_t i = 0; i < 16; i++) {
            keys[i] = api_name(1000 + round * 16 + i);
        }
        assert_int_equal(abode_session_create(api->runtime, &opts, &session), 0);
        assert_int_equal(api_append(api, session, 0, 8), 0); /* waits for frames, if need be */
        int used = -EAGAIN;
        while (used == -EAGAIN) { /* bounded by the test's timeout */
            used = abode_append_reserve(api->runtime, session, 120, spans, 16);
        }
        assert_int_equal(used, 15);
        for (int i = 0; i < used; i++) {
            memset(spans[i].base, (int)round, API_ROW_BYTES);
        }
        assert_int_equal(abode_append_commit(api->runtime, session, 120, keys, 15), 0);
        assert_int_equal(abode_session_delete(api->runtime, session), 0);
    }
}

/* Many cold sessions whose only frames are shared with an attached one have nothing to give: those
 * behind them are found all the same. */
static void shared_rows_do_not_hide_colder_ones(void **state)
{
    struct api *api = *state;
    small_open(api, 64u << 20);
    struct abode_session parent = api_create(api, api->paged, 1);
    assert_int_equal(api_append(api, parent, 1, 64), 0);
    assert_int_equal(api_detach(api, parent, 0), 0);
    assert_int_equal(api_attach(api, parent, 0), 0);
    for (uint32_t i = 0; i < CHILDREN; i++) {
        struct abode_session child;
        const struct abode_key name = api_name(100 + i);
        assert_int_equal(abode_session_fork(api->runtime, parent, 64, &name, &child), 0);
        assert_int_equal(api_detach(api, child, 0), 0);
    }
    struct abode_session_opts opts = {
        .struct_size = sizeof(opts), .model = api->paged, .home_node = -1, .durability = ABODE_MEM};
    for (uint32_t i = 0; i < 64; i++) { /* in memory only, four times as much as there is */
        struct abode_session session;
        assert_int_equal(abode_session_create(api->runtime, &opts, &session), 0);
        assert_int_equal(api_append(api, session, i, 128), 0);
        assert_int_equal(api_detach(api, session, 0), 0);
    }
    api_check(api, parent, 1, 64);
}

/* Rows in memory only, shared with an attached child that is deleted after memory was short: they
 * are found, and written, although their session had nothing to give while the child had them. */
static void what_a_child_held_can_be_written_after_it(void **state)
{
    struct api *api = *state;
    small_open(api, 64u << 20);
    struct abode_session_opts opts = {
        .struct_size = sizeof(opts), .model = api->paged, .home_node = -1, .durability = ABODE_MEM};
    struct abode_session parent, child, other;
    assert_int_equal(abode_session_create(api->runtime, &opts, &parent), 0);
    for (uint32_t i = 0; i < 10; i++) {
        assert_int_equal(api_append(api, parent, 1, 160), 0); /* 200 of 256 rows, in the end */
    }
    assert_int_equal(abode_session_fork(api->runtime, parent, 1600, NULL, &child), 0);
    assert_int_equal(api_detach(api, parent, 0), 0);
    assert_int_equal(abode_session_create(api->runtime, &opts, &other), 0);
    uint32_t count = 0;
    while (count < 60 && api_append(api, other, 2, 8) == 0) {
        count++;
    }
    assert_in_range(count, 1, 56); /* the child has the rest */
    assert_int_equal(abode_session_delete(api->runtime, child), 0);
    for (; count < 120; count++) {
        assert_int_equal(api_append(api, other, 2, 8), 0);
    }
    api_check(api, other, 2, 960);
    assert_int_equal(api_detach(api, other, 0), 0);
    assert_int_equal(api_attach(api, parent, 0), 0);
    api_check(api, parent, 1, 1600);
}

static int append_until_refused(struct api *api, struct abode_session session)
{
    int status = 0;
    while (status == 0) {
        status = api_append(api, session, 9, 8);
    }
    return status;
}

static void detach_without_time(struct api *api, struct abode_session session)
{
    struct abode_op op = {.timeout_ns = 1};
    assert_int_equal(api_wait(api, &op, abode_detach(api->queue, session, 0, &op)), -ETIMEDOUT);
}

/* The new bytes of a row that was half full take the place of durable ones. */
static void a_spill_over_durable_bytes_is_durable(void **state)
{
    enum { BY_DETACH, BY_FLUSH, BEFORE_THE_RESTART, WAYS };
    struct api *api = *state;
    for (uint32_t way = 0; way < WAYS; way++) {
        small_open(api, 64u << 20);
        const struct abode_key name = api_name(1);
        const struct abode_session_opts opts = {.struct_size = sizeof(opts),
                                                .model = api->paged,
                                                .home_node = -1,
                                                .durability = way == BY_DETACH ? ABODE_DURABLE
                                                                               : ABODE_WRITTEN,
                                                .name = &name};
        struct abode_session session, other;
        assert_int_equal(abode_session_create(api->runtime, &opts, &session), 0);
        assert_int_equal(api_append(api, session, 1, 20), 0);
        assert_int_equal(api_detach(api, session, 0), 0);
        if (way != BY_DETACH) {
            assert_int_equal(abode_flush(api->runtime, -1), 0);
        }
        if (way == BEFORE_THE_RESTART) {
            api_reopen(api);
            session = api_find(api, 1);
            assert_int_equal(api_attach(api, session, 0), 0); /* a look does not make it less */
            assert_int_equal(api_detach(api, session, 0), 0);
        }
        assert_int_equal(api_attach(api, session, 0), 0);
        assert_int_equal(api_append(api, session, 1, 2), 0);
        const uint64_t before = ab_store_stats(api->runtime->store).data_syncs;
        detach_without_time(api, session); /* or by that, if it had begun */
        other = api_create(api, api->paged, 2);
        assert_int_equal(append_until_refused(api, other), -ABODE_EFULL);
        assert_true(ab_store_stats(api->runtime->store).data_syncs > before);
        assert_int_equal(abode_session_delete(api->runtime, other), 0);
        assert_int_equal(abode_session_delete(api->runtime, session), 0);
        api_close(api);
    }
}

/* Memory is short, and a session has a tail that no detach has kept, behind a point that is damaged.
 * What its record names stays named, and is not given to others. */
static void a_spill_cuts_nothing_that_is_recorded(void **state)
{
    struct api *api = *state;
    unsigned char sample[64];
    struct api_damage damage;
    api->paged_bytes = 0;
    api->hybrid_bytes = 3u << 20;
    api_open(api);
    struct abode_session session = api_create(api, api->hybrid, 1), other;
    api_turn(api, session, 1, 20);
    assert_int_equal(api_detach(api, session, 0), 0);
    assert_int_equal(api_attach(api, session, 0), 0);
    assert_int_equal(api_append(api, session, 1, 2), 0);
    detach_without_time(api, session);
    api_state_bytes(1, 20, API_STATE, sample, sizeof(sample));
    api_corrupt(api, sample, sizeof(sample));
    assert_int_equal(api_verify(api, &damage), 1);
    other = api_create(api, api->hybrid, 2);
    assert_int_equal(append_until_refused(api, other), -ABODE_EFULL);
    assert_int_equal(abode_session_delete(api->runtime, other), 0);
    other = api_create(api, api->hybrid, 3);
    api_turn(api, other, 3, 20);
    assert_int_equal(api_detach(api, other, 0), 0);
    assert_int_equal(api_tokens(api, session), 20);
    api_reopen(api);
    session = api_find(api, 1);
    assert_int_equal(api_attach(api, session, 0), -ABODE_ECORRUPT);
    assert_int_equal(api_attach(api, session, ABODE_ATTACH_PREFIX_OK), -ABODE_EPARTIAL);
    assert_int_equal(api_tokens(api, session), 0);
    other = api_find(api, 3);
    assert_int_equal(api_attach(api, other, 0), 0);
    api_check(api, other, 3, 20);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, api_up, api_down)
    const struct CMUnitTest tests[] = {
        TEST(a_full_store_is_no_reason_to_wait),
        TEST(what_nobody_owns_is_forgotten),
        TEST(shared_rows_do_not_hide_colder_ones),
        TEST(what_a_child_held_can_be_written_after_it),
        TEST(a_spill_over_durable_bytes_is_durable),
        TEST(a_spill_cuts_nothing_that_is_recorded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
