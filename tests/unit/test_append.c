/*
 * test_append.c - reserve, write, commit: bounds, sharing by key, memory that runs out, late writes.
 *
 * Goal: what is committed is what a later attach shows, whoever else writes where he should not.
 * Method: the public calls on a small runtime; a host that misbehaves in one way at a time, beside a
 * session that must not notice.
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

static void bounds(void **state)
{
    struct api *api = *state;
    struct abode_span spans[1024];
    api_open(api);
    struct abode *runtime = api->runtime;
    struct abode_session session = api_create(api, api->hybrid, 1);
    assert_int_equal(abode_append_reserve(runtime, session, 0, spans, 1024), -EINVAL);
    assert_int_equal(abode_append_reserve(runtime, session, 1, NULL, 1024), -EINVAL);
    assert_int_equal(abode_append_reserve(runtime, session, 4097, spans, 1024), -EFBIG);
    assert_int_equal(abode_append_reserve(runtime, session, UINT32_MAX, spans, 1024), -EFBIG);
    assert_int_equal(abode_append_reserve(runtime, session, 9, spans, 1), -ENOBUFS);
    assert_int_equal(abode_append_reserve(runtime, session, 8, spans, 0), -ENOBUFS);
    assert_int_equal(abode_append_commit(runtime, session, 1, NULL, 0),
                     -EINVAL); /* none reserved */
    assert_int_equal(abode_append_reserve(runtime, session, 9, spans, 2), 2);
    assert_int_equal(spans[0].token_count, 8);
    assert_int_equal(spans[1].row, 1);
    assert_int_equal(spans[1].token_count, 1);
    assert_int_equal(abode_append_commit(runtime, session, 10, NULL, 0), -EINVAL);
    assert_int_equal(abode_append_commit(runtime, session, UINT32_MAX, NULL, 0), -EINVAL);
    struct abode_key keys[2] = {api_name(1), api_name(2)};
    assert_int_equal(abode_append_commit(runtime, session, 9, keys, 2), -EINVAL); /* one row full */
    assert_int_equal(abode_append_commit(runtime, session, 7, keys, 1), -EINVAL); /* none is */
    assert_int_equal(abode_append_commit(runtime, session, 9, NULL, 1), -EINVAL);
    assert_int_equal(abode_append_commit(runtime, session, 0, NULL, 0), 0);
    assert_int_equal(abode_append_commit(runtime, session, 1, NULL, 0), -EINVAL); /* used up */
    assert_int_equal(api_tokens(api, session), 0);
    api_turn(api, session, 1, 20); /* after all that: as if nothing had been */
    api_check(api, session, 1, 20);
}

static void second_reserve_replaces_the_first(void **state)
{
    struct api *api = *state;
    struct abode_span spans[64], again[64];
    api_open(api);
    struct abode_session session = api_create(api, api->hybrid, 1);
    assert_int_equal(abode_append_reserve(api->runtime, session, 40, spans, 64), 5);
    assert_int_equal(abode_append_reserve(api->runtime, session, 3, again, 64), 1);
    assert_ptr_equal(spans[0].base, again[0].base);
    assert_int_equal(abode_append_commit(api->runtime, session, 4, NULL, 0), -EINVAL);
    api_turn(api, session, 1, 3);
    assert_int_equal(api_detach(api, session, ABODE_DETACH_SPILL_NOW), 0); /* rows ahead go */
    assert_int_equal(api_attach(api, session, 0), 0);
    api_check(api, session, 1, 3);
}

static void longest_session(void **state)
{
    struct api *api = *state;
    struct abode_span spans[4];
    api->hybrid_bytes = 0;
    api->paged_bytes = 6u << 20;
    api_open(api);
    struct abode_session session = api_create(api, api->paged, 1);
    for (uint32_t i = 0; i < 4096 / 256; i++) {
        api_turn(api, session, 1, 256);
    }
    assert_int_equal(abode_append_reserve(api->runtime, session, 1, spans, 4), -EFBIG);
    assert_int_equal(api_detach(api, session, ABODE_DETACH_SPILL_NOW), 0);
    api_reopen(api);
    session = api_find(api, 1);
    assert_int_equal(api_attach(api, session, 0), 0);
    api_check(api, session, 1, 4096);
    assert_int_equal(abode_append_reserve(api->runtime, session, 1, spans, 4), -EFBIG);
}

static void all_memory_attached_is_full(void **state)
{
    struct api *api = *state;
    api->hybrid_bytes = 0;
    api_open(api);
    struct abode_session other = api_create(api, api->paged, 1);
    struct abode_session session = api_create(api, api->paged, 2);
    api_turn(api, other, 9, 20);
    int status = 0;
    uint64_t tokens = 0;
    for (; status == 0 && tokens < 4096; tokens += 8) {
        status = api_append(api, session, 1, 8);
    }
    assert_int_equal(status, -ABODE_EFULL);
    tokens = api_tokens(api, session);
    assert_true(tokens >= 1000); /* 2 MiB hold 256 rows of 8 */
    api_check(api, session, 1, tokens);
    api_check(api, other, 9, 20);
    assert_int_equal(api_detach(api, other, 0), 0); /* room again: its rows are evicted */
    assert_int_equal(api_append(api, session, 1, 8), 0);
    api_check(api, session, 1, tokens + 8);
    assert_int_equal(api_attach(api, other, 0), -ABODE_EFULL);
    assert_int_equal(api_stat(api, other).attached, 0);
    assert_int_equal(api_detach(api, session, 0), 0);
    assert_int_equal(api_attach(api, other, 0), 0);
    api_check(api, other, 9, 20);
}

/* The worst host: it keeps its spans and writes through them when it likes. */
/* A row that only the committed record names, with newer bytes that nobody names: its frame comes
 * free, and what is full says so. */
static void held_row_gives_its_frame(void **state)
{
    struct api *api = *state;
    struct abode_session child;
    api->hybrid_bytes = 0;
    api_open(api);
    struct abode_session session = api_create(api, api->paged, 1);
    assert_int_equal(api_append(api, session, 1, 20), 0);
    assert_int_equal(api_detach(api, session, ABODE_DETACH_KEEP), 0);
    assert_int_equal(api_append(api, session, 1, 10), 0); /* the stored row is dirty again */
    assert_int_equal(abode_session_fork(api->runtime, session, 30, NULL, &child), 0);
    assert_int_equal(abode_session_truncate(api->runtime, session, 20), 0);
    assert_int_equal(api_append(api, session, 1, 1), 0); /* into a copy of it */
    assert_int_equal(abode_session_delete(api->runtime, child), 0);
    struct abode_session filler = api_create(api, api->paged, 2);
    int status = 0;
    for (uint32_t i = 0; i < 4096 && status == 0; i++) {
        status = api_append(api, filler, 2, API_BLOCK_TOKENS);
    }
    assert_int_equal(status, -ABODE_EFULL);
    api_check(api, session, 1, 21);
    struct abode_stats stats;
    assert_int_equal(abode_stats_get(api->runtime, &stats), 0);
    assert_int_equal(stats.frames_free, 0);
    api_reopen(api);
    session = api_find(api, 1);
    assert_int_equal(api_attach(api, session, 0), 0);
    api_check(api, session, 1, 20);
}

static void late_writes_harm_nobody_else(void **state)
{
    struct api *api = *state;
    struct abode_span spans[64];
    api->hybrid_bytes = 0;
    api->paged_bytes = 2u << 20;
    api_open(api);
    struct abode_session rude = api_create(api, api->paged, 1);
    struct abode_session good = api_create(api, api->paged, 2);
    int used = abode_append_reserve(api->runtime, rude, 40, spans, 64);
    assert_int_equal(used, 5);
    for (int i = 0; i < used; i++) {
        memset(spans[i].base, 1, API_ROW_BYTES);
    }
    assert_int_equal(abode_append_commit(api->runtime, rude, 40, NULL, 0), 0);
    api_turn(api, good, 2, 200);
    assert_int_equal(api_detach(api, rude, 0), 0);
    assert_int_equal(api_detach(api, good, 0), 0);
    for (int i = 0; i < used; i++) { /* spans died with the detach: the frames are still its own */
        memset(spans[i].base, 0xee, API_ROW_BYTES);
    }
    assert_int_equal(api_attach(api, good, 0), 0);
    api_check(api, good, 2, 200);
    assert_int_equal(api_detach(api, good, ABODE_DETACH_SPILL_NOW), 0);
    /* the store has what was committed: the late bytes are lost with the frames */
    assert_int_equal(api_attach(api, rude, 0), 0);
    assert_int_equal(api_detach(api, rude, ABODE_DETACH_SPILL_NOW), 0);
    assert_int_equal(api_attach(api, rude, 0), 0);
    struct abode_view view;
    assert_int_equal(abode_session_view(api->runtime, rude, API_KV, &view), 0);
    for (uint32_t row = 0; row < view.row_count; row++) {
        const unsigned char *bytes = abode_view_plane(&view, row, 0);
        for (uint32_t i = 0; i < API_BLOCK_TOKENS * API_TOKEN_BYTES; i++) {
            assert_int_equal(bytes[i], 1);
        }
    }
    assert_int_equal(api_attach(api, good, 0), 0);
    api_check(api, good, 2, 200);
    struct api_damage damage;
    assert_int_equal(api_verify(api, &damage), 0);
}

/* Written while the spill reads the frame: the checksum on disk is of other bytes, or of these. */
static void writes_during_the_detach_are_refused_or_lost(void **state)
{
    struct api *api = *state;
    struct abode_span spans[64];
    api_open(api);
    struct abode_session good = api_create(api, api->paged, 100);
    api_turn(api, good, 100, 80);
    assert_int_equal(api_detach(api, good, 0), 0);
    for (uint32_t round = 1; round <= 20; round++) {
        struct abode_session rude = api_create(api, api->paged, round);
        int used = abode_append_reserve(api->runtime, rude, 80, spans, 64);
        assert_int_equal(used, 10);
        for (int i = 0; i < used; i++) {
            memset(spans[i].base, (int)round, API_ROW_BYTES);
        }
        assert_int_equal(abode_append_commit(api->runtime, rude, 80, NULL, 0), 0);
        struct abode_op op = {.timeout_ns = 0};
        assert_int_equal(abode_detach(api->queue, rude, ABODE_DETACH_SPILL_NOW, &op), 0);
#if !defined(__SANITIZE_THREAD__) /* the race is the host's, on purpose */
        for (int again = 0; abode_queue_pending(api->queue) > 0 && again < 50; again++) {
            spans[again % used].base[again * 7] ^= 0xff;
        }
#endif
        assert_int_equal(api_wait(api, &op, 0), 0);
        int status = api_attach(api, rude, 0); /* whole, or refused: never another's */
        assert_true(status == 0 || status == -ABODE_ECORRUPT);
        if (status == 0) {
            assert_int_equal(api_tokens(api, rude), 80);
            assert_int_equal(api_detach(api, rude, 0), 0);
        }
        assert_int_equal(abode_session_delete(api->runtime, rude), 0);
    }
    assert_int_equal(api_attach(api, good, 0), 0);
    api_check(api, good, 100, 80);
}

static void same_keys_share_rows(void **state)
{
    struct api *api = *state;
    struct abode_key keys[4] = {api_name(1), api_name(2), api_name(3), api_name(4)};
    struct abode_span spans[8];
    api_open(api);
    struct abode_session first = api_create(api, api->paged, 1);
    assert_int_equal(abode_append_reserve(api->runtime, first, 24, spans, 8), 3);
    for (int i = 0; i < 3; i++) {
        memset(spans[i].base, 'a' + i, API_ROW_BYTES);
    }
    assert_int_equal(abode_append_commit(api->runtime, first, 24, keys, 3), 0);
    struct abode_session_opts opts = {.struct_size = sizeof(opts),
                                      .model = api->paged,
                                      .home_node = -1,
                                      .prefix_key_count = 4,
                                      .prefix_keys = keys};
    struct abode_session second;
    assert_int_equal(abode_session_create(api->runtime, &opts, &second), 0);
    assert_int_equal(api_stat(api, second).attached, 0);
    assert_int_equal(api_tokens(api, second), 24);
    assert_int_equal(api_attach(api, second, 0), 0);
    struct abode_view one, two;
    assert_int_equal(abode_session_view(api->runtime, first, 0, &one), 0);
    assert_int_equal(abode_session_view(api->runtime, second, 0, &two), 0);
    assert_memory_equal(one.frames, two.frames, 3 * sizeof(*one.frames));
    opts.tenant = 1; /* another tenant meets none of them */
    struct abode_session third;
    assert_int_equal(abode_session_create(api->runtime, &opts, &third), 0);
    assert_int_equal(api_tokens(api, third), 0);
    assert_int_equal(api_stat(api, third).attached, 1);
    opts.tenant = 0;
    opts.model = api->hybrid; /* prefixes are not for models with snapshots */
    assert_int_equal(abode_session_create(api->runtime, &opts, &third), 0);
    assert_int_equal(api_tokens(api, third), 0);
    opts.model = api->paged;
    keys[0] = api_name(99); /* a broken chain */
    assert_int_equal(abode_session_create(api->runtime, &opts, &third), 0);
    assert_int_equal(api_tokens(api, third), 0);
}

/* The frames of one tenant's deleted session are empty before another tenant writes into them. */
static void a_tenant_finds_nothing_of_another(void **state)
{
    struct api *api = *state;
    struct abode_span spans[128];
    struct abode_session session;
    api_open(api);
    struct abode_session_opts opts = {
        .struct_size = sizeof(opts), .model = api->paged, .home_node = -1, .tenant = 1};
    for (uint32_t turn = 0; turn < 2; turn++) {
        assert_int_equal(abode_session_create(api->runtime, &opts, &session), 0);
        assert_int_equal(api_append(api, session, 1 + turn, 200 * API_BLOCK_TOKENS), 0);
        assert_int_equal(abode_session_delete(api->runtime, session), 0);
    }
    opts.tenant = 2;
    assert_int_equal(abode_session_create(api->runtime, &opts, &session), 0);
    assert_int_equal(
        abode_append_reserve(api->runtime, session, 128 * API_BLOCK_TOKENS, spans, 128), 128);
    for (uint32_t i = 0; i < 128; i++) {
        for (uint32_t k = 0; k < API_ROW_BYTES; k++) {
            assert_int_equal(spans[i].base[k], 0);
        }
    }
}

static void views(void **state)
{
    struct api *api = *state;
    struct abode_view view;
    api_open(api);
    struct abode_session session = api_create(api, api->hybrid, 1);
    assert_int_equal(abode_session_view(api->runtime, session, 0, &view), 0);
    assert_int_equal(view.token_count, 0);
    assert_int_equal(view.row_count, 0);
    assert_int_equal(abode_session_view(api->runtime, session, API_STATE, &view), -EINVAL);
    assert_int_equal(abode_session_view(api->runtime, session, 3, &view), -EINVAL);
    assert_int_equal(abode_session_view(api->runtime, session, UINT32_MAX, &view), -EINVAL);
    assert_int_equal(abode_session_view(api->runtime, session, 0, NULL), -EINVAL);
    api_turn(api, session, 1, 17);
    assert_int_equal(abode_session_view(api->runtime, session, 0, &view), 0);
    assert_int_equal(view.row_count, 3);
    assert_int_equal(view.plane_count, 2);
    assert_int_equal(view.plane_offsets[1], API_BLOCK_TOKENS * API_TOKEN_BYTES);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, api_up, api_down)
    const struct CMUnitTest tests[] = {
        TEST(bounds),
        TEST(second_reserve_replaces_the_first),
        TEST(longest_session),
        TEST(all_memory_attached_is_full),
        TEST(held_row_gives_its_frame),
        TEST(late_writes_harm_nobody_else),
        TEST(writes_during_the_detach_are_refused_or_lost),
        TEST(same_keys_share_rows),
        TEST(a_tenant_finds_nothing_of_another),
        TEST(views),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
