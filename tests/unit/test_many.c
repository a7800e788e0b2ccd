/*
 * test_many.c - numbers: thousands of forks, ten thousand sessions, none of them lost, no memory kept.
 *
 * Goal: tables that grow and shrink end where they began. Method: counts of frames, blocks and
 * sessions before and after; the order of deletes is random (ABODE_TEST_SEED).
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
// clang-format off
#include <cmocka.h>
// clang-format on

#include "api_fixture.h"

#define FLUSH_NS (120ll * 1000000000)

static uint64_t random_state;

static uint64_t random_next(void)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return random_state;
}

static void random_seed(void)
{
    const char *given = getenv("ABODE_TEST_SEED");
    uint64_t seed = given != NULL ? strtoull(given, NULL, 0) : (uint64_t)time(NULL);
    print_message("ABODE_TEST_SEED=%llu\n", (unsigned long long)seed);
    random_state = seed * 2 + 1;
}

static struct abode_stats stats_of(struct api *api)
{
    struct abode_stats stats;
    assert_int_equal(abode_stats_get(api->runtime, &stats), 0);
    return stats;
}

static void shuffle(struct abode_session *sessions, uint32_t count)
{
    for (uint32_t i = count; i > 1; i--) {
        uint32_t other = (uint32_t)(random_next() % i);
        struct abode_session held = sessions[i - 1];
        sessions[i - 1] = sessions[other];
        sessions[other] = held;
    }
}

static void fork_storm(void **state)
{
    enum { CHILDREN = 5000 };
    static struct abode_session children[CHILDREN];
    struct api *api = *state;
    api->config.session_count_max = CHILDREN + 10;
    api->config.block_count_max = 65536;
    api_open(api);
    random_seed();
    struct abode_session parent = api_create(api, api->hybrid, 1);
    api_turn(api, parent, 1, 64); /* whole rows: children copy none */
    struct abode_stats before = stats_of(api), after;
    for (uint32_t i = 0; i < CHILDREN; i++) {
        assert_int_equal(abode_session_fork(api->runtime, parent, 64, NULL, &children[i]), 0);
    }
    after = stats_of(api);
    assert_int_equal(after.session_count, CHILDREN + 1);
    assert_int_equal(after.frames_free, before.frames_free);
    for (uint32_t i = 0; i < CHILDREN; i += 500) {
        api_check(api, children[i], 1, 64);
    }
    for (uint32_t i = 0; i < 8; i++) { /* some go their own way, some sleep */
        api_turn(api, children[i], 1, 3);
        assert_int_equal(api_detach(api, children[i + 8], 0), 0);
    }
    shuffle(children, CHILDREN);
    for (uint32_t i = 0; i < CHILDREN; i++) {
        assert_int_equal(abode_session_delete(api->runtime, children[i]), 0);
        if (i == CHILDREN / 2) {
            assert_int_equal(api_detach(api, parent, 0), 0);
            assert_int_equal(api_attach(api, parent, 0), 0);
        }
    }
    assert_int_equal(abode_flush(api->runtime, FLUSH_NS), 0);
    after = stats_of(api);
    assert_int_equal(after.session_count, 1);
    assert_int_equal(after.frames_free, before.frames_free);
    assert_int_equal(after.blocks_pinned, before.blocks_pinned);
    assert_int_equal(after.blocks_stored, 8 + 2);
    api_check(api, parent, 1, 64);
    assert_int_equal(abode_session_delete(api->runtime, parent), 0);
    assert_int_equal(abode_flush(api->runtime, FLUSH_NS), 0);
    after = stats_of(api);
    assert_int_equal(after.session_count, 0);
    assert_int_equal(after.frames_free, after.frames_total);
    assert_int_equal(after.blocks_stored, 0);
    assert_int_equal(after.store_bytes_live, 0);
}

/* Forks in the middle of a row: each copies it, so memory ends before the places do. */
static void forks_until_memory_is_full(void **state)
{
    static struct abode_session children[4096];
    struct api *api = *state;
    api->hybrid_bytes = 0;
    api->paged_bytes = 1u << 20; /* 128 frames */
    api_open(api);
    random_seed();
    struct abode_session parent = api_create(api, api->paged, 1);
    api_turn(api, parent, 1, 61);
    struct abode_stats before = stats_of(api), after;
    for (uint32_t round = 0; round < 3; round++) {
        uint32_t count = 0;
        int status = 0;
        while (count < 4096 && status == 0) {
            status = abode_session_fork(api->runtime, parent, 61, NULL, &children[count]);
            count += status == 0;
        }
        assert_int_equal(status, -ABODE_EFULL);
        assert_int_equal(count, 120);
        api_check(api, children[count - 1], 1, 61);
        api_check(api, parent, 1, 61);
        shuffle(children, count);
        for (uint32_t i = 0; i < count; i++) {
            assert_int_equal(abode_session_delete(api->runtime, children[i]), 0);
        }
        after = stats_of(api);
        assert_int_equal(after.frames_free, before.frames_free);
        assert_int_equal(after.session_count, 1);
    }
}

/* a child of a child of a child ... each a row longer */
static void chain_of_forks(void **state)
{
    enum { LINKS = 60 };
    struct api *api = *state;
    struct abode_session chain[LINKS];
    api_open(api);
    chain[0] = api_create(api, api->hybrid, 1);
    api_turn(api, chain[0], 1, 7);
    for (uint32_t i = 1; i < LINKS; i++) {
        struct abode_key name = api_name(i + 1);
        assert_int_equal(abode_session_fork(api->runtime, chain[i - 1], 7 * i, &name, &chain[i]),
                         0);
        api_turn(api, chain[i], 1, 7);
        assert_int_equal(api_detach(api, chain[i - 1], i % 2 ? ABODE_DETACH_SPILL_NOW : 0), 0);
    }
    assert_int_equal(api_detach(api, chain[LINKS - 1], 0), 0);
    api_reopen(api);
    for (uint32_t i = 0; i < LINKS; i += 2) {
        assert_int_equal(abode_session_delete(api->runtime, api_find(api, i + 1)), 0);
    }
    api_reopen(api);
    for (uint32_t i = 1; i < LINKS; i += 2) {
        struct abode_session session = api_find(api, i + 1);
        assert_int_equal(api_attach(api, session, 0), 0);
        api_check(api, session, 1, 7 * (i + 1));
        assert_int_equal(api_detach(api, session, 0), 0);
        assert_int_equal(abode_session_delete(api->runtime, session), 0);
    }
    assert_int_equal(abode_flush(api->runtime, FLUSH_NS), 0);
    struct abode_stats stats = stats_of(api);
    assert_int_equal(stats.session_count, 0);
    assert_int_equal(stats.blocks_stored, 0);
    assert_int_equal(stats.store_bytes_live, 0);
}

static void ten_thousand_sessions(void **state)
{
    enum { COUNT = 10000, IN_FLIGHT = 64 };
    static struct abode_op ops[IN_FLIGHT];
    struct api *api = *state;
    api->hybrid_bytes = 0;
    api->paged_bytes = 8u << 20;
    api->config.store_bytes_max = 512u << 20;
    api->config.segment_bytes = 8u << 20;
    api->config.durability = ABODE_WRITTEN;
    api_open(api);
    for (uint32_t i = 0; i < COUNT; i++) {
        struct abode_session session = api_create(api, api->paged, i + 1);
        struct abode_op *op = &ops[i % IN_FLIGHT], *done;
        while (op->user_data != NULL) { /* they come back in any order: wait until this one does */
            assert_int_equal(abode_poll(api->queue, &done, 1, FLUSH_NS), 1);
            assert_int_equal(done->status, 0);
            done->user_data = NULL;
        }
        op->user_data = api;
        assert_int_equal(api_append(api, session, i, 1 + i % 12), 0);
        assert_int_equal(abode_session_note_set(api->runtime, session, &i, sizeof(i)), 0);
        assert_int_equal(abode_detach(api->queue, session, 0, op), 0);
    }
    while (abode_queue_pending(api->queue) > 0) {
        struct abode_op *done;
        assert_int_equal(abode_poll(api->queue, &done, 1, FLUSH_NS), 1);
        assert_int_equal(done->status, 0);
    }
    struct abode_stats before = stats_of(api);
    assert_int_equal(before.session_count, COUNT);
    api_reopen(api);
    struct abode_stats after = stats_of(api);
    assert_int_equal(after.session_count, COUNT);
    assert_int_equal(after.blocks_stored, before.blocks_stored);
    assert_int_equal(after.store_bytes_live, before.store_bytes_live);
    for (uint32_t i = 0; i < COUNT; i++) {
        uint32_t note = 0;
        struct abode_session session = api_find(api, i + 1);
        assert_int_equal(api_tokens(api, session), 1 + i % 12);
        assert_int_equal(abode_session_note_get(api->runtime, session, &note, sizeof(note)),
                         sizeof(note));
        assert_int_equal(note, i);
        if (i % 25 == 0) {
            assert_int_equal(api_attach(api, session, 0), 0);
            api_check(api, session, i, 1 + i % 12);
            assert_int_equal(api_detach(api, session, 0), 0);
        }
    }
    struct api_damage damage;
    assert_int_equal(api_verify(api, &damage), 0);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, api_up, api_down)
    const struct CMUnitTest tests[] = {
        TEST(fork_storm),
        TEST(forks_until_memory_is_full),
        TEST(chain_of_forks),
        TEST(ten_thousand_sessions),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
