/*
 * test_session.c - sessions through the public calls: handles, names, notes, advice, fork, truncate.
 *
 * Goal: a handle that is stale, a name that is taken, a call in the wrong state answer with the code
 * that abode.h gives, and change nothing. Method: the smallest runtime over a temporary store; after
 * every refused call the session is checked byte for byte.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <unistd.h>
// clang-format off
#include <cmocka.h>
// clang-format on

#include "api_fixture.h"
#include "front/front.h"

/* every call that takes a session answers the same */
static void all_calls_answer(struct api *api, struct abode_session session, int expected)
{
    struct abode_session child;
    struct abode_session_info info;
    struct abode_span spans[8];
    struct abode_view view;
    struct abode_placement placement;
    struct abode_op op = {.timeout_ns = 0};
    void *bytes;
    const void *state;
    size_t size;
    uint64_t at;
    struct abode *runtime = api->runtime;
    assert_int_equal(abode_session_stat(runtime, session, &info), expected);
    assert_int_equal(abode_session_fork(runtime, session, 0, NULL, &child), expected);
    assert_int_equal(abode_session_truncate(runtime, session, 0), expected);
    assert_int_equal(abode_session_note_set(runtime, session, "x", 1), expected);
    assert_int_equal(abode_session_note_get(runtime, session, NULL, 0), expected);
    assert_int_equal(abode_append_reserve(runtime, session, 1, spans, 8), expected);
    assert_int_equal(abode_append_commit(runtime, session, 0, NULL, 0), expected);
    assert_int_equal(abode_snapshot_reserve(runtime, session, API_BYTES, 8, &bytes), expected);
    assert_int_equal(abode_snapshot_commit(runtime, session, API_BYTES), expected);
    assert_int_equal(abode_snapshot_get(runtime, session, API_BYTES, &state, &size, &at), expected);
    assert_int_equal(abode_session_view(runtime, session, API_KV, &view), expected);
    assert_int_equal(abode_session_placement(runtime, session, &placement), expected);
    assert_int_equal(abode_attach(api->queue, session, -1, 0, &op), expected);
    assert_int_equal(abode_detach(api->queue, session, 0, &op), expected);
    assert_int_equal(abode_session_delete(runtime, session), expected);
    abode_advise(runtime, session, ABODE_WILL_NEED, 1); /* hints: nothing to answer */
    assert_int_equal(abode_queue_pending(api->queue), 0);
}

static void stale_handles(void **state)
{
    struct api *api = *state;
    api_open(api);
    struct abode_session first = api_create(api, api->hybrid, 1);
    api_turn(api, first, 1, 20);
    assert_int_equal(abode_session_delete(api->runtime, first), 0);
    all_calls_answer(api, first, -ABODE_ESTALE); /* delete twice is among them */
    struct abode_session second =
        api_create(api, api->hybrid, 1); /* the same place, the same name */
    assert_int_not_equal(first.raw, second.raw);
    api_turn(api, second, 2, 20);
    all_calls_answer(api, first, -ABODE_ESTALE);
    static const uint64_t nonsense[] = {0,     1ull << 32, UINT32_MAX, UINT64_MAX,
                                        65537, 999,        1,          (7ull << 32) | 1};
    for (size_t i = 0; i < sizeof(nonsense) / sizeof(*nonsense); i++) {
        if (nonsense[i] != second.raw) {
            all_calls_answer(api, (struct abode_session){nonsense[i]}, -ABODE_ESTALE);
        }
    }
    api_check(api, second, 2, 20);
    assert_int_equal(abode_session_delete(api->runtime, second), 0);
}

static void handles_of_before_the_restart(void **state)
{
    struct api *api = *state;
    api_open(api);
    struct abode_session kept = api_create(api, api->hybrid, 1);
    struct abode_session dropped = api_create(api, api->hybrid, 2);
    api_turn(api, kept, 1, 9);
    api_turn(api, dropped, 2, 9);
    assert_int_equal(api_detach(api, kept, 0), 0);
    assert_int_equal(api_detach(api, dropped, 0), 0);
    assert_int_equal(abode_session_delete(api->runtime, dropped), 0);
    api_reopen(api);
    all_calls_answer(api, dropped, -ABODE_ESTALE);
    struct abode_session found = api_find(api, 1);
    assert_int_equal(api_attach(api, found, 0), 0);
    api_check(api, found, 1, 9);
    struct abode_key name = api_name(2);
    assert_int_equal(abode_session_find(api->runtime, &name, &found), -ENOENT);
}

static void names(void **state)
{
    struct api *api = *state;
    api_open(api);
    struct abode_key name = api_name(7);
    struct abode_session session = api_create(api, api->hybrid, 7), other = {77};
    struct abode_session_opts opts = {
        .struct_size = sizeof(opts), .model = api->paged, .home_node = -1, .name = &name};
    assert_int_equal(abode_session_create(api->runtime, &opts, &other), -EEXIST);
    assert_int_equal(other.raw, 77); /* written on success only */
    assert_int_equal(abode_session_fork(api->runtime, session, 0, &name, &other), -EEXIST);
    assert_int_equal(api_find(api, 7).raw, session.raw);
    assert_memory_equal(api_stat(api, session).name.bytes, name.bytes, 32);
    name = api_name(8);
    assert_int_equal(abode_session_find(api->runtime, &name, &other), -ENOENT);
    assert_int_equal(other.raw, 77);
    assert_int_equal(abode_session_delete(api->runtime, session), 0);
    name = api_name(7);
    assert_int_equal(abode_session_find(api->runtime, &name, &other), -ENOENT);
    session = api_create(api, api->hybrid, 7); /* free again */
    struct abode_session anonymous = api_create(api, api->hybrid, 0);
    const struct abode_key zero = {{0}};
    assert_memory_equal(api_stat(api, anonymous).name.bytes, zero.bytes, 32);
    assert_int_equal(abode_session_find(api->runtime, &zero, &other), -ENOENT);
}

static void create_refuses_nonsense(void **state)
{
    struct api *api = *state;
    api_open(api);
    struct abode_session session = {77};
    const struct abode_session_opts good = {
        .struct_size = sizeof(good), .model = api->hybrid, .home_node = -1};
    struct abode_session_opts opts[] = {good, good, good, good, good, good, good, good};
    opts[0].struct_size = 0;
    opts[1].struct_size = sizeof(good) + 8;
    opts[2].model = 31;
    opts[3].model = UINT32_MAX;
    opts[4].durability = ABODE_DURABLE + 1;
    opts[5].prefix_key_count = 1;
    opts[6].tenant = UINT32_MAX;
    opts[7].home_node = 63; /* a node that does not exist is not quietly replaced */
    for (size_t i = 0; i < sizeof(opts) / sizeof(*opts); i++) {
        int status = abode_session_create(api->runtime, &opts[i], &session);
        if (status != -EINVAL) {
            print_error("row %zu: %d\n", i, status);
        }
        assert_int_equal(status, -EINVAL);
    }
    assert_int_equal(abode_session_create(api->runtime, NULL, &session), -EINVAL);
    assert_int_equal(abode_session_create(api->runtime, &good, NULL), -EINVAL);
    assert_int_equal(abode_session_create(NULL, &good, &session), -EINVAL);
    assert_int_equal(session.raw, 77);
}

static void as_many_as_configured(void **state)
{
    struct api *api = *state;
    api->config.session_count_max = 3;
    api_open(api);
    struct abode_session sessions[3], session;
    const struct abode_session_opts opts = {
        .struct_size = sizeof(opts), .model = api->paged, .home_node = -1};
    for (uint32_t i = 0; i < 3; i++) {
        sessions[i] = api_create(api, api->paged, i + 1);
    }
    assert_int_equal(abode_session_create(api->runtime, &opts, &session), -EAGAIN);
    assert_int_equal(abode_session_fork(api->runtime, sessions[0], 0, NULL, &session), -EAGAIN);
    for (uint32_t i = 0; i < 3; i++) {
        api_turn(api, sessions[i], i, 5);
        assert_int_equal(api_detach(api, sessions[i], 0), 0);
    }
    assert_int_equal(abode_session_create(api->runtime, &opts, &session), -EAGAIN);
    api->config.session_count_max = 1; /* less than the store has: they are all still there */
    api_reopen(api);
    for (uint32_t i = 0; i < 3; i++) {
        sessions[i] = api_find(api, i + 1);
        assert_int_equal(api_attach(api, sessions[i], 0), 0);
        api_check(api, sessions[i], i, 5);
    }
    assert_int_equal(abode_session_create(api->runtime, &opts, &session), -EAGAIN);
    assert_int_equal(abode_session_delete(api->runtime, sessions[0]), 0);
    assert_int_equal(abode_session_create(api->runtime, &opts, &session), -EAGAIN);
}

static void notes(void **state)
{
    struct api *api = *state;
    static unsigned char note[ABODE_NOTE_MAX + 1], got[ABODE_NOTE_MAX + 1];
    for (size_t i = 0; i < sizeof(note); i++) {
        note[i] = (unsigned char)(i * 7 + i / 256);
    }
    api_open(api);
    struct abode *runtime = api->runtime;
    struct abode_session session = api_create(api, api->hybrid, 1);
    assert_int_equal(abode_session_note_get(runtime, session, got, sizeof(got)), 0);
    assert_int_equal(abode_session_note_set(runtime, session, note, ABODE_NOTE_MAX + 1), -EINVAL);
    assert_int_equal(abode_session_note_set(runtime, session, NULL, 1), -EINVAL);
    assert_int_equal(abode_session_note_get(runtime, session, NULL, 1), -EINVAL);
    assert_int_equal(abode_session_note_set(runtime, session, note, ABODE_NOTE_MAX), 0);
    api_turn(api, session, 1, 3);
    assert_int_equal(api_detach(api, session, 0), 0);
    api_reopen(api);
    runtime = api->runtime;
    session = api_find(api, 1);
    got[10] = 0x77;
    assert_int_equal(abode_session_note_get(runtime, session, got, 10), ABODE_NOTE_MAX);
    assert_int_equal(got[10], 0x77);
    assert_memory_equal(got, note, 10);
    assert_int_equal(abode_session_note_get(runtime, session, got, sizeof(got)), ABODE_NOTE_MAX);
    assert_memory_equal(got, note, ABODE_NOTE_MAX);
    /* a note set while detached is stored by the next detach; an empty one replaces it */
    assert_int_equal(abode_session_note_set(runtime, session, "short", 5), 0);
    assert_int_equal(api_attach(api, session, 0), 0);
    assert_int_equal(api_detach(api, session, 0), 0);
    api_reopen(api);
    session = api_find(api, 1);
    assert_int_equal(abode_session_note_get(api->runtime, session, got, sizeof(got)), 5);
    assert_memory_equal(got, "short", 5);
    assert_int_equal(abode_session_note_set(api->runtime, session, NULL, 0), 0);
    assert_int_equal(api_attach(api, session, 0), 0);
    assert_int_equal(api_detach(api, session, 0), 0);
    api_reopen(api);
    session = api_find(api, 1);
    assert_int_equal(abode_session_note_get(api->runtime, session, got, sizeof(got)), 0);
    assert_int_equal(api_attach(api, session, 0), 0);
    api_check(api, session, 1, 3);
}

/* notes of another session, until the journal is written anew */
static void checkpoint_force(struct api *api)
{
    static unsigned char note[ABODE_NOTE_MAX];
    struct abode_session session = api_create(api, api->paged, 99);
    for (uint32_t i = 0; i < 2000 && ab_store_stats(api->runtime->store).checkpoint_bytes == 0;
         i++) {
        note[0]++;
        assert_int_equal(abode_session_note_set(api->runtime, session, note, sizeof(note)), 0);
        assert_int_equal(api_detach(api, session, ABODE_DETACH_KEEP), 0);
    }
    assert_true(ab_store_stats(api->runtime->store).checkpoint_bytes > 0);
}

/* A note goes with the tokens of its detach: what else is committed in between says the old one. */
static void note_that_was_not_detached_is_not_stored(void **state)
{
    struct api *api = *state;
    unsigned char got[16];
    api_open(api);
    struct abode_session session = api_create(api, api->hybrid, 1);
    assert_int_equal(abode_session_note_set(api->runtime, session, "one", 3), 0);
    api_turn(api, session, 1, 3);
    assert_int_equal(api_detach(api, session, 0), 0);
    assert_int_equal(abode_session_note_set(api->runtime, session, "longer", 6), 0);
    checkpoint_force(api);
    assert_int_equal(abode_session_note_get(api->runtime, session, got, sizeof(got)), 6);
    api_reopen(api);
    session = api_find(api, 1);
    assert_int_equal(abode_session_note_get(api->runtime, session, got, sizeof(got)), 3);
    assert_memory_equal(got, "one", 3);
    /* nor by a truncate, which commits what is left of the session */
    assert_int_equal(api_attach(api, session, 0), 0);
    assert_int_equal(abode_session_note_set(api->runtime, session, "three", 5), 0);
    assert_int_equal(abode_session_note_set(api->runtime, session, NULL, 0), 0);
    assert_int_equal(abode_session_truncate(api->runtime, session, 0), 0);
    api_reopen(api);
    session = api_find(api, 1);
    assert_int_equal(api_tokens(api, session), 0);
    assert_int_equal(abode_session_note_get(api->runtime, session, got, sizeof(got)), 3);
    assert_memory_equal(got, "one", 3);
}

/* A detach that failed is tried again by a flush, also where there is nothing but a name to store. */
static void flush_keeps_a_session_without_tokens(void **state)
{
    struct api *api = *state;
    struct abode_op op = {.timeout_ns = 1};
    api_open(api);
    struct abode_session session = api_create(api, api->hybrid, 1);
    assert_int_equal(api_wait(api, &op, abode_detach(api->queue, session, 0, &op)), -ETIMEDOUT);
    assert_int_equal(abode_flush(api->runtime, 60ll * 1000 * 1000 * 1000), 0);
    api_reopen(api);
    session = api_find(api, 1);
    assert_int_equal(api_tokens(api, session), 0);
}

static uint32_t nodes_of(const struct api *api)
{
    struct abode_stats stats = {.struct_size = sizeof(stats)};
    assert_int_equal(abode_stats_get(api->runtime, &stats), 0);
    return stats.node_count;
}

static void advice_changes_no_byte(void **state)
{
    struct api *api = *state;
    api_open(api);
    struct abode_session session = api_create(api, api->hybrid, 1);
    api_turn(api, session, 1, 30);
    static const int64_t values[] = {0, 1, -1, 1000000, INT64_MAX, INT64_MIN, 63, 64, 1ll << 40};
    /* of the values as nodes, those that are there are taken: 1 where there are two */
    const int32_t home = nodes_of(api) > 1 ? 1 : 0;
    for (int round = 0; round < 3; round++) { /* attached, detached, spilled */
        for (int advice = -1; advice < 10; advice++) {
            for (size_t v = 0; v < sizeof(values) / sizeof(*values); v++) {
                if (advice != ABODE_ENDED) {
                    abode_advise(api->runtime, session, (enum abode_advice)advice, values[v]);
                }
            }
        }
        assert_int_equal(api_stat(api, session).home_node, home);
        if (round < 2) {
            assert_int_equal(api_detach(api, session, round == 0 ? 0 : ABODE_DETACH_SPILL_NOW), 0);
            abode_advise(api->runtime, session, ABODE_WILL_NEED, 1); /* may race with the attach */
            assert_int_equal(api_attach(api, session, 0), 0);
        }
        api_check(api, session, 1, 30);
    }
    abode_advise(api->runtime, session, ABODE_ENDED, 0);
    assert_int_equal(api_detach(api, session, 0), 0);
    assert_int_equal(api_attach(api, session, 0), 0); /* ended, and yet it comes back */
    api_check(api, session, 1, 30);
}

static void will_need_restores_in_advance(void **state)
{
    struct api *api = *state;
    api_open(api);
    struct abode_session session = api_create(api, api->hybrid, 1);
    api_turn(api, session, 1, 64);
    assert_int_equal(api_detach(api, session, ABODE_DETACH_SPILL_NOW), 0);
    assert_int_equal(api_stat(api, session).bytes_resident, 0);
    abode_advise(api->runtime, session, ABODE_WILL_NEED, 1);
    for (int i = 0; i < 5000 && api_stat(api, session).bytes_resident < 64 * 1024; i++) {
        (void)usleep(1000);
    }
    assert_true(api_stat(api, session).bytes_resident >= 64 * 1024);
    assert_int_equal(api_stat(api, session).attached, 0);
    assert_int_equal(api_attach(api, session, 0), 0);
    api_check(api, session, 1, 64);
}

/* Its blocks are dropped while moves fill their frames; their numbers are used again at once. */
static void deleted_while_it_is_prefetched(void **state)
{
    struct api *api = *state;
    struct abode_stats stats;
    api->config.io = ABODE_IO_SYNC;
    api_open(api);
    for (uint32_t round = 1; round <= 3; round++) {
        struct abode_session session = api_create(api, api->hybrid, round);
        api_turn(api, session, round, 64);
        assert_int_equal(api_detach(api, session, ABODE_DETACH_SPILL_NOW), 0);
        fault_os_plan(&api->fault, (struct fault_plan){.call = AB_OS_PREAD,
                                                       .kind = FAULT_DELAY,
                                                       .delay_ns = 5000000,
                                                       .sticky = true});
        abode_advise(api->runtime, session, ABODE_WILL_NEED, 1);
        for (int i = 0; i < 5000 && fault_os_strikes(&api->fault) == 0; i++) {
            (void)usleep(1000);
        }
        assert_int_equal(abode_session_delete(api->runtime, session), 0);
        session = api_create(api, api->hybrid, round + 10);
        api_turn(api, session, round + 10, 64);
        fault_os_clear(&api->fault);
        assert_int_equal(api_detach(api, session, ABODE_DETACH_SPILL_NOW), 0);
        assert_int_equal(api_attach(api, session, 0), 0);
        api_check(api, session, round + 10, 64);
        assert_int_equal(abode_session_delete(api->runtime, session), 0);
    }
    assert_int_equal(abode_flush(api->runtime, -1), 0);
    assert_int_equal(abode_stats_get(api->runtime, &stats), 0);
    assert_int_equal(stats.blocks_resident, 0);
    assert_int_equal(stats.blocks_stored, 0);
    assert_int_equal(stats.checksum_failures, 0);
}

static void calls_on_detached_sessions(void **state)
{
    struct api *api = *state;
    struct abode_session child;
    struct abode_span spans[8];
    struct abode_view view;
    struct abode_op op = {.timeout_ns = 0};
    const void *bytes;
    void *room;
    size_t size;
    uint64_t at;
    api_open(api);
    struct abode_session session = api_create(api, api->hybrid, 1);
    api_turn(api, session, 1, 12);
    assert_int_equal(abode_attach(api->queue, session, -1, 0, &op), -EBUSY); /* is attached */
    assert_int_equal(api_detach(api, session, 0), 0);
    struct abode *runtime = api->runtime;
    assert_int_equal(abode_session_fork(runtime, session, 12, NULL, &child), -ENOTCONN);
    assert_int_equal(abode_session_truncate(runtime, session, 12), -ENOTCONN);
    assert_int_equal(abode_append_reserve(runtime, session, 1, spans, 8), -ENOTCONN);
    assert_int_equal(abode_append_commit(runtime, session, 0, NULL, 0), -ENOTCONN);
    assert_int_equal(abode_snapshot_reserve(runtime, session, API_STATE, 0, &room), -ENOTCONN);
    assert_int_equal(abode_snapshot_commit(runtime, session, API_STATE), -ENOTCONN);
    assert_int_equal(abode_snapshot_get(runtime, session, API_STATE, &bytes, &size, &at),
                     -ENOTCONN);
    assert_int_equal(abode_session_view(runtime, session, API_KV, &view), -ENOTCONN);
    assert_int_equal(abode_detach(api->queue, session, 0, &op), -ENOTCONN);
    assert_int_equal(api_attach(api, session, 0), 0);
    api_check(api, session, 1, 12);
}

static void fork_shares_and_then_differs(void **state)
{
    struct api *api = *state;
    struct abode_session child, other = {77};
    api_open(api);
    struct abode_session parent = api_create(api, api->hybrid, 1);
    api_turn(api, parent, 1, 13); /* in the middle of a row */
    api_turn(api, parent, 1, 6);
    assert_int_equal(abode_session_fork(api->runtime, parent, 14, NULL, &other), -EINVAL);
    assert_int_equal(abode_session_fork(api->runtime, parent, 20, NULL, &other), -EINVAL);
    assert_int_equal(abode_session_fork(api->runtime, parent, UINT64_MAX, NULL, &other), -EINVAL);
    assert_int_equal(other.raw, 77);
    struct abode_key name = api_name(2);
    assert_int_equal(abode_session_fork(api->runtime, parent, 13, &name, &child), 0);
    api_check(api, child, 1, 13);
    /* the child writes its own tokens into its copy of the row; the parent keeps its own */
    struct abode_span spans[4];
    assert_int_equal(abode_append_reserve(api->runtime, child, 4, spans, 4), 2);
    memset(spans[0].base, 0xee, API_TOKEN_BYTES * spans[0].token_first); /* rude: its own copy */
    api_check(api, parent, 1, 19);
    assert_int_equal(abode_session_delete(api->runtime, child), 0);
    assert_int_equal(abode_session_fork(api->runtime, parent, 13, &name, &child), 0);
    api_turn(api, child, 1, 20);
    assert_int_equal(abode_session_delete(api->runtime, parent), 0);
    api_check(api, child, 1, 33); /* what was shared lives on */
    assert_int_equal(api_detach(api, child, ABODE_DETACH_SPILL_NOW), 0);
    api_reopen(api);
    child = api_find(api, 2);
    assert_int_equal(api_attach(api, child, 0), 0);
    api_check(api, child, 1, 33);
}

static void truncate_to_restore_points_only(void **state)
{
    struct api *api = *state;
    api_open(api);
    struct abode_session session = api_create(api, api->hybrid, 1);
    api_turn(api, session, 1, 10);
    api_turn(api, session, 1, 10);
    assert_int_equal(abode_session_truncate(api->runtime, session, 21), -EINVAL);
    assert_int_equal(abode_session_truncate(api->runtime, session, 11), -EINVAL);
    assert_int_equal(abode_session_truncate(api->runtime, session, UINT64_MAX), -EINVAL);
    api_check(api, session, 1, 20);
    assert_int_equal(abode_session_truncate(api->runtime, session, 20), 0); /* nothing to do */
    assert_int_equal(api_detach(api, session, ABODE_DETACH_KEEP), 0);
    assert_int_equal(abode_session_truncate(api->runtime, session, 10), 0);
    api_check(api, session, 1, 10);
    assert_int_equal(api_detach(api, session, ABODE_DETACH_SPILL_NOW), 0);
    api_reopen(api);
    session = api_find(api, 1);
    assert_int_equal(api_attach(api, session, 0), 0);
    api_check(api, session, 1, 10);
    struct abode_session plain = api_create(api, api->paged, 2);
    api_turn(api, plain, 3, 20);
    assert_int_equal(abode_session_truncate(api->runtime, plain, 11), 0); /* any position */
    api_turn(api, plain, 3, 9);
    api_check(api, plain, 3, 20);
    assert_int_equal(abode_session_truncate(api->runtime, plain, 0), 0);
    api_turn(api, plain, 4, 9);
    api_check(api, plain, 4, 9);
}

static void model_tags_guard(void **state)
{
    struct api *api = *state;
    api_open(api);
    struct abode_session session = api_create(api, api->hybrid, 1);
    api_turn(api, session, 1, 20);
    assert_int_equal(api_detach(api, session, 0), 0);
    api_close(api);
    uint32_t model = 77;
    assert_int_equal(api_try_open(api), 0);
    struct abode_model_desc desc = api_hybrid_desc(api);
    struct abode_key name = api_name(1);
    /* another tag: the state is not for it */
    struct abode_model_desc other = desc;
    other.tag[0] ^= 1;
    other.memory_bytes = 1u << 20;
    assert_int_equal(abode_model_add(api->runtime, &other, &model), 0);
    assert_int_equal(abode_session_find(api->runtime, &name, &session), -ABODE_EMODEL);
    /* the same tag, another geometry, each part of it */
    for (uint32_t change = 0; change < 7; change++) {
        struct abode_component components[4];
        struct abode_plane planes[2];
        memcpy(components, desc.components, 3 * sizeof(*components));
        memcpy(planes, components[0].planes, sizeof(planes));
        components[3] = (struct abode_component){.kind = ABODE_BYTES, .bytes_max = 64};
        other = desc;
        other.components = components;
        components[0].planes = planes;
        planes[0].bytes_per_block -= change == 0 ? 64 : 0;
        other.block_tokens += change == 1;
        other.component_count += change == 2;
        components[0].kind = change == 3 ? ABODE_WINDOW : ABODE_PAGED;
        components[0].window_tokens = change == 3 ? 16 : 0;
        components[1].snapshots_kept += change == 4;
        components[2].bytes_max -= change == 5;
        other.session_tokens_max += change == 6;
        model = 77;
        int status = abode_model_add(api->runtime, &other, &model);
        if (status != -ABODE_EMODEL) {
            print_error("change %u: %d\n", change, status);
        }
        assert_int_equal(status, -ABODE_EMODEL);
        assert_int_equal(model, 77);
    }
    assert_true(api_logged(api, "another geometry: give the changed model a tag of its own"));
    assert_int_equal(abode_session_find(api->runtime, &name, &session), -ABODE_EMODEL);
    assert_int_equal(abode_model_add(api->runtime, &desc, &api->hybrid), 0);
    assert_int_equal(abode_model_add(api->runtime, &desc, &model), -EEXIST);
    assert_int_equal(abode_queue_open(api->runtime, 4, &api->queue), 0);
    session = api_find(api, 1);
    assert_int_equal(api_attach(api, session, 0), 0);
    api_check(api, session, 1, 20);
}

static void support_ask(void *context, int level, const char *line)
{
    struct api *api = context;
    struct abode_support support;
    struct abode_stats stats;
    if (api->runtime != NULL) { /* it is NULL until open has returned */
        assert_int_equal(abode_support_get(api->runtime, &support), 0);
        assert_int_equal(abode_stats_get(api->runtime, &stats), 0);
    }
    api_log_write(context, level, line);
}

/* config.log is never called with a lock held: a host may ask from within it. */
static void log_may_call_back(void **state)
{
    struct api *api = *state;
    uint32_t model;
    api->config.log = support_ask;
    api_open(api);
    struct abode_model_desc desc = api_paged_desc(api);
    desc.block_tokens++;
    desc.tag[5] = 'x';
    desc.memory_bytes = 1ull << 40;
    assert_int_equal(abode_model_add(api->runtime, &desc, &model), -ENOMEM);
    assert_true(api_logged(api, "memory"));
}

/* It was two: the blocks in one commit, the session's record in the next. */
static void a_durable_detach_is_one_sync_of_the_journal(void **state)
{
    struct api *api = *state;
    api_open(api);
    for (uint32_t model = 0; model < 2; model++) {
        struct abode_session session =
            api_create(api, model == 0 ? api->hybrid : api->paged, 1 + model);
        for (uint32_t turn = 0; turn < 3; turn++) {
            if (model == 0) {
                api_turn(api, session, 1, 20);
            } else {
                assert_int_equal(api_append(api, session, 1, 20), 0);
            }
            struct ab_store_stats before = ab_store_stats(api->runtime->store);
            assert_int_equal(api_detach(api, session, 0), 0);
            struct ab_store_stats after = ab_store_stats(api->runtime->store);
            assert_int_equal(after.journal_syncs - before.journal_syncs, 1);
            assert_int_equal(api_attach(api, session, 0), 0);
        }
    }
}

static void a_deleted_session_without_tokens_stays_deleted(void **state)
{
    struct api *api = *state;
    const struct abode_key name = api_name(1);
    api_open(api);
    struct abode_session session = api_create(api, api->paged, 1);
    assert_int_equal(api_detach(api, session, 0), 0);
    api_reopen(api);
    assert_int_equal(abode_session_delete(api->runtime, api_find(api, 1)), 0);
    api_reopen(api);
    assert_int_equal(abode_session_find(api->runtime, &name, &session), -ENOENT);
}

/* A new journal, made while a session has changed since its last promise: tokens more, and a copy of
 * a row that it shared. What was promised is what comes back. */
static void a_checkpoint_says_what_was_committed(void **state)
{
    struct api *api = *state;
    api_open(api);
    struct abode_session session = api_create(api, api->paged, 1), fork, other;
    assert_int_equal(api_append(api, session, 1, 24), 0);
    assert_int_equal(api_detach(api, session, 0), 0);
    assert_int_equal(api_attach(api, session, 0), 0);
    assert_int_equal(abode_session_fork(api->runtime, session, 24, NULL, &fork), 0);
    assert_int_equal(api_truncate(api, session, 20), 0);
    assert_int_equal(api_append(api, session, 2, 9), 0); /* 20 of them are committed */
    other = api_create(api, api->paged, 2);
    assert_int_equal(api_append(api, other, 3, 24), 0);
    assert_int_equal(api_detach(api, other, ABODE_DETACH_KEEP), 0);
    assert_int_equal(api_append(api, other, 4, 17), 0);
    ab_store_renew(api->runtime->store);
    assert_int_equal(abode_flush(api->runtime, -1), 0);
    struct abode_session third = api_create(api, api->paged, 3);
    assert_int_equal(api_detach(api, third, 0), 0); /* a commit: the new journal is there before */
    api_reopen(api);
    session = api_find(api, 1);
    assert_int_equal(api_attach(api, session, 0), 0);
    api_check(api, session, 1, 20);
    other = api_find(api, 2);
    assert_int_equal(api_attach(api, other, 0), 0);
    api_check(api, other, 3, 24);
}

static uint64_t journal_syncs(struct api *api)
{
    return ab_store_stats(api->runtime->store).journal_syncs;
}

/* DURABLE covers what was only written before: deletes of others, its own cut. */
static void a_durable_detach_covers_deletes_and_cuts(void **state)
{
    struct api *api = *state;
    api_open(api);
    struct abode_session session = api_create(api, api->paged, 1);
    assert_int_equal(api_append(api, session, 1, 24), 0);
    assert_int_equal(api_detach(api, session, ABODE_DETACH_KEEP), 0);
    uint64_t before = journal_syncs(api);
    assert_int_equal(api_detach(api, session, ABODE_DETACH_KEEP), 0);
    assert_int_equal(journal_syncs(api), before); /* nothing new */
    struct abode_session other = api_create(api, api->paged, 2);
    assert_int_equal(api_append(api, other, 1, 24), 0);
    assert_int_equal(api_detach(api, other, 0), 0);
    assert_int_equal(abode_session_delete(api->runtime, other), 0);
    before = journal_syncs(api);
    assert_int_equal(api_detach(api, session, ABODE_DETACH_KEEP), 0);
    assert_true(journal_syncs(api) > before);
    assert_int_equal(api_truncate(api, session, 16), 0);
    before = journal_syncs(api);
    assert_int_equal(api_detach(api, session, ABODE_DETACH_KEEP), 0);
    assert_true(journal_syncs(api) > before);
}

/* A record of the same again needs room in the journal, and a full disk has none. */
static void looking_at_a_session_writes_nothing(void **state)
{
    struct api *api = *state;
    api_open(api);
    struct abode_session session = api_create(api, api->hybrid, 1);
    api_turn(api, session, 1, 20);
    assert_int_equal(api_detach(api, session, 0), 0);
    api_reopen(api);
    session = api_find(api, 1);
    const uint64_t before = ab_store_stats(api->runtime->store).journal_bytes;
    for (uint32_t time = 0; time < 2; time++) {
        assert_int_equal(api_attach(api, session, 0), 0);
        assert_int_equal(api_detach(api, session, 0), 0);
    }
    assert_int_equal(ab_store_stats(api->runtime->store).journal_bytes, before);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, api_up, api_down)
    const struct CMUnitTest tests[] = {
        TEST(stale_handles),
        TEST(handles_of_before_the_restart),
        TEST(names),
        TEST(create_refuses_nonsense),
        TEST(as_many_as_configured),
        TEST(notes),
        TEST(note_that_was_not_detached_is_not_stored),
        TEST(flush_keeps_a_session_without_tokens),
        TEST(advice_changes_no_byte),
        TEST(will_need_restores_in_advance),
        TEST(deleted_while_it_is_prefetched),
        TEST(calls_on_detached_sessions),
        TEST(fork_shares_and_then_differs),
        TEST(truncate_to_restore_points_only),
        TEST(model_tags_guard),
        TEST(log_may_call_back),
        TEST(a_durable_detach_is_one_sync_of_the_journal),
        TEST(a_deleted_session_without_tokens_stays_deleted),
        TEST(a_checkpoint_says_what_was_committed),
        TEST(a_durable_detach_covers_deletes_and_cuts),
        TEST(looking_at_a_session_writes_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
