/*
 * test_tenants.c - what one tenant may learn of another: nothing.
 *
 * Goal: keys of two tenants never meet, whatever the call, and memory that changes hands is zeroed.
 * Method: tenant 1 has state under keys; tenant 2 asks for the same keys in every call of abode.h that
 * takes one, and must get what it gets for keys that nobody has: the same status, the same counts,
 * the same JSON about itself. Handles, names and cache keys carry no tenant: abode trusts its host
 * with them, and the host derives cache keys from a salt (abode_key_root); that is tested as it is.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
// clang-format off
#include <cmocka.h>
// clang-format on

#include "unit/api_fixture.h"

enum { ONE = 1, TWO = 2, ROWS = 6, TOKENS = ROWS * API_BLOCK_TOKENS, NOBODYS = 5000 };

static uint32_t calls; /* that asked for another tenant's state */

/* Keys of rows: first + 0, 1, ...; nobody has those of NOBODYS. */
static void keys_of(uint32_t first, struct abode_key *ret)
{
    for (uint32_t row = 0; row < ROWS; row++) {
        ret[row] = api_name(first + row);
    }
}

static int create(struct api *api, uint32_t tenant, uint32_t name, const struct abode_key *prefix,
                  struct abode_session *ret)
{
    const struct abode_key key = api_name(name);
    const struct abode_session_opts opts = {.struct_size = sizeof(opts),
                                            .model = api->paged,
                                            .home_node = -1,
                                            .name = name == 0 ? NULL : &key,
                                            .tenant = tenant,
                                            .prefix_key_count = prefix == NULL ? 0 : ROWS,
                                            .prefix_keys = prefix};
    return abode_session_create(api->runtime, &opts, ret);
}

/* A session of this tenant with rows under these keys, whose bytes follow from salt. */
static struct abode_session keyed(struct api *api, uint32_t tenant, uint32_t name, uint32_t salt,
                                  const struct abode_key *keys)
{
    struct abode_session session;
    struct abode_span spans[2 * ROWS];
    assert_int_equal(create(api, tenant, name, NULL, &session), 0);
    int count = abode_append_reserve(api->runtime, session, TOKENS, spans, 2 * ROWS);
    assert_true(count > 0);
    for (int i = 0; i < count; i++) {
        for (uint32_t token = 0; token < spans[i].token_count; token++) {
            uint32_t place = spans[i].token_first + token;
            for (uint32_t plane = 0; plane < 2; plane++) {
                unsigned char *bytes = spans[i].base +
                                       (size_t)plane * API_BLOCK_TOKENS * API_TOKEN_BYTES +
                                       (size_t)place * API_TOKEN_BYTES;
                api_token_bytes(salt, spans[i].row * API_BLOCK_TOKENS + place, plane, bytes,
                                API_TOKEN_BYTES);
            }
        }
    }
    assert_int_equal(abode_append_commit(api->runtime, session, TOKENS, keys, ROWS), 0);
    return session;
}

static uint64_t found_tokens(struct api *api, uint32_t tenant, const struct abode_key *keys)
{
    struct abode_session session;
    assert_int_equal(create(api, tenant, 0, keys, &session), 0);
    uint64_t tokens = api_tokens(api, session);
    assert_int_equal(abode_session_delete(api->runtime, session), 0);
    return tokens;
}

/* What a prefix gives tenant 2 is what keys of nobody give; its owner gets it all. */
static void prefixes_compare(struct api *api, const struct abode_key *keys)
{
    struct abode_key nobodys[ROWS];
    keys_of(NOBODYS, nobodys);
    assert_int_equal(found_tokens(api, ONE, keys), TOKENS);
    assert_int_equal(found_tokens(api, TWO, nobodys), 0);
    assert_int_equal(found_tokens(api, TWO, keys), 0);
    assert_int_equal(found_tokens(api, 0, keys), 0);
    assert_int_equal(found_tokens(api, ONE + 65536, keys), 0); /* no bits of it are lost */
    calls += 3;
}

static void prefixes_do_not_meet(void **state)
{
    struct api *api = *state;
    struct abode_key keys[ROWS];
    api_open(api);
    keys_of(100, keys);
    struct abode_session session = keyed(api, ONE, 1, 7, keys);
    prefixes_compare(api, keys); /* attached, in memory */
    assert_int_equal(api_detach(api, session, 0), 0);
    prefixes_compare(api, keys); /* in both */
    assert_int_equal(api_attach(api, session, 0), 0);
    assert_int_equal(api_detach(api, session, ABODE_DETACH_SPILL_NOW), 0);
    prefixes_compare(api, keys); /* in the store only */
    api_reopen(api);
    prefixes_compare(api, keys); /* found by replay */
    assert_int_equal(abode_session_delete(api->runtime, api_find(api, 1)), 0);
    prefixes_compare(api, keys); /* rows that no session owns */
}

/* Both have rows under the same keys: each gets its own bytes, also after a restart. */
static void equal_keys_give_each_his_own(void **state)
{
    struct api *api = *state;
    struct abode_key keys[ROWS];
    struct abode_session session;
    api_open(api);
    keys_of(200, keys);
    assert_int_equal(api_detach(api, keyed(api, ONE, 1, 11, keys), ABODE_DETACH_SPILL_NOW), 0);
    assert_int_equal(api_detach(api, keyed(api, TWO, 2, 22, keys), ABODE_DETACH_SPILL_NOW), 0);
    for (uint32_t round = 0; round < 2; round++) {
        for (uint32_t tenant = ONE; tenant <= TWO; tenant++) {
            assert_int_equal(create(api, tenant, 0, keys, &session), 0);
            assert_int_equal(api_attach(api, session, 0), 0);
            api_check(api, session, tenant * 11, TOKENS);
            struct abode_session child; /* a fork stays its parent's tenant's */
            assert_int_equal(abode_session_fork(api->runtime, session, TOKENS, NULL, &child), 0);
            assert_int_equal(api_stat(api, child).tenant, tenant);
            api_check(api, child, tenant * 11, TOKENS);
            assert_int_equal(abode_session_delete(api->runtime, child), 0);
            assert_int_equal(abode_session_delete(api->runtime, session), 0);
            calls += 2;
        }
        api_reopen(api);
    }
}

/* A cache item is not a row: the cache face learns nothing of what sessions hold, for no call. */
static void the_cache_face_sees_no_session(void **state)
{
    struct api *api = *state;
    static unsigned char memory[ROWS * 4096] __attribute__((aligned(4096)));
    struct abode_region region = {
        .struct_size = sizeof(region), .node = -1, .base = memory, .bytes = sizeof(memory)};
    struct abode_key keys[2 * ROWS];
    struct abode_item items[2 * ROWS];
    uint8_t presence[2 * ROWS];
    struct abode_op op = {0};
    api_open(api);
    assert_int_equal(abode_region_add(api->runtime, &region, &region.memory), 0);
    keys_of(300, keys);
    keys_of(NOBODYS, keys + ROWS);
    struct abode_session session = keyed(api, ONE, 1, 7, keys);
    assert_int_equal(abode_cache_probe(api->runtime, api->hybrid, keys, 2 * ROWS, presence), 0);
    for (uint32_t i = 0; i < 2 * ROWS; i++) {
        assert_int_equal(presence[i], ABODE_MISS);
        items[i] = (struct abode_item){.key = keys[i], .bytes = 4096, .region = region.memory};
    }
    memset(memory, 0x5a, sizeof(memory));
    int status = api_wait(api, &op, abode_cache_get(api->queue, api->hybrid, items, 2 * ROWS, &op));
    assert_int_equal(status, -ABODE_EPARTIAL);
    for (uint32_t i = 0; i < 2 * ROWS; i++) {
        assert_int_equal(items[i].status, -ENOENT);
    }
    for (size_t i = 0; i < sizeof(memory); i++) {
        assert_int_equal(memory[i], 0x5a);
    }
    abode_cache_touch(api->runtime, api->hybrid, keys, ROWS);
    status = api_wait(api, &op, abode_cache_delete(api->queue, api->hybrid, keys, 2 * ROWS, &op));
    assert_int_equal(status, 0); /* as for keys that are not there */
    api_check(api, session, 7, TOKENS);
    assert_int_equal(api_detach(api, session, ABODE_DETACH_SPILL_NOW), 0);
    assert_int_equal(found_tokens(api, ONE, keys), TOKENS); /* the delete took nothing away */
    calls += 4;
}

/* Keys made with another salt are other keys, and that is all that parts cache items. */
static void salted_keys_do_not_meet(void **state)
{
    static const uint8_t tag[32] = "model";
    static const uint32_t tokens[] = {1, 2, 3};
    struct abode_key root[3], next[3];
    (void)state;
    abode_key_root(tag, "one", 3, NULL, 0, &root[0]);
    abode_key_root(tag, "two", 3, NULL, 0, &root[1]);
    abode_key_root(tag, "on", 2, "e", 1, &root[2]); /* nor does a salt run on into the adapter */
    for (uint32_t i = 0; i < 3; i++) {
        abode_key_next(&root[i], tokens, 3, &next[i]);
        for (uint32_t j = 0; j < i; j++) {
            assert_memory_not_equal(&root[i], &root[j], sizeof(root[i]));
            assert_memory_not_equal(&next[i], &next[j], sizeof(next[i]));
        }
    }
    calls += 2;
}

/* ---- what a handle of another tenant's, deleted meanwhile, still says ---- */

static void stale_handles_tell_nothing(void **state)
{
    struct api *api = *state;
    struct abode_session_info info = {.struct_size = sizeof(info)};
    struct abode_placement placement = {.struct_size = sizeof(placement)};
    struct abode_view view = {.struct_size = sizeof(view)};
    struct abode_session old, now, child, never = {.raw = UINT64_MAX};
    struct abode_span spans[4];
    struct abode_op op = {0};
    char note[8];
    api_open(api);
    old = api_create(api, api->paged, 1);
    api_turn(api, old, 1, TOKENS);
    assert_int_equal(abode_session_note_set(api->runtime, old, "secret", 6), 0);
    assert_int_equal(abode_session_delete(api->runtime, old), 0);
    assert_int_equal(create(api, TWO, 2, NULL, &now), 0); /* takes its place */
    const struct abode_session handles[] = {old, never};
    for (uint32_t i = 0; i < 2; i++) {
        struct abode_session handle = handles[i];
        struct abode *runtime = api->runtime;
        assert_int_equal(abode_session_stat(runtime, handle, &info), -ABODE_ESTALE);
        assert_int_equal(abode_session_placement(runtime, handle, &placement), -ABODE_ESTALE);
        assert_int_equal(abode_session_view(runtime, handle, 0, &view), -ABODE_ESTALE);
        assert_int_equal(abode_session_fork(runtime, handle, 0, NULL, &child), -ABODE_ESTALE);
        assert_int_equal(abode_session_truncate(runtime, handle, 0), -ABODE_ESTALE);
        assert_int_equal(abode_session_delete(runtime, handle), -ABODE_ESTALE);
        assert_int_equal(abode_session_note_get(runtime, handle, note, 8), -ABODE_ESTALE);
        assert_int_equal(abode_session_note_set(runtime, handle, note, 8), -ABODE_ESTALE);
        assert_int_equal(abode_append_reserve(runtime, handle, 1, spans, 4), -ABODE_ESTALE);
        assert_int_equal(abode_append_commit(runtime, handle, 0, NULL, 0), -ABODE_ESTALE);
        assert_int_equal(abode_attach(api->queue, handle, -1, 0, &op), -ABODE_ESTALE);
        assert_int_equal(abode_detach(api->queue, handle, 0, &op), -ABODE_ESTALE);
        abode_advise(runtime, handle, ABODE_ENDED, 0);
        calls += 13;
    }
    assert_int_equal(abode_session_note_get(api->runtime, now, note, 8), 0);
    assert_int_equal(api_tokens(api, now), 0);
}

/* ---- memory ---- */

static bool all_zero(const unsigned char *bytes, size_t size)
{
    for (size_t i = 0; i < size; i++) {
        if (bytes[i] != 0) {
            return false;
        }
    }
    return true;
}

/* Every frame that tenant 1 has written is handed to tenant 2: zeroed, to the last byte. */
static void frames_are_zeroed_between_tenants(void **state)
{
    struct api *api = *state;
    struct abode_session session;
    uint32_t frames = 0, used = 0;
    api->hybrid_bytes = 0;
    api->paged_bytes = 1u << 20;
    api_open(api);
    struct abode_stats stats = {.struct_size = sizeof(stats)};
    assert_int_equal(create(api, ONE, 0, NULL, &session), 0);
    while (api_append(api, session, 3, API_BLOCK_TOKENS) == 0) {
        used++;
    }
    assert_int_equal(abode_stats_get(api->runtime, &stats), 0);
    assert_int_equal(stats.frames_free, 0);
    assert_int_equal(abode_session_delete(api->runtime, session), 0);
    assert_int_equal(create(api, TWO, 0, NULL, &session), 0);
    for (uint32_t row = 0; row < used; row++) {
        struct abode_span spans[4];
        int count = abode_append_reserve(api->runtime, session, API_BLOCK_TOKENS, spans, 4);
        assert_true(count > 0);
        for (int i = 0; i < count; i++, frames++) {
            assert_true(all_zero(spans[i].base, API_ROW_BYTES));
        }
        assert_int_equal(abode_append_commit(api->runtime, session, API_BLOCK_TOKENS, NULL, 0), 0);
    }
    assert_int_equal(frames, stats.frames_total);
    calls += frames;
}

/* ---- reports ---- */

struct lines {
    uint32_t of_one, of_two;
    bool leaked;
};

static int line_take(void *context, const char *text, size_t size)
{
    struct lines *lines = context;
    (void)size;
    lines->of_one += strstr(text, "\"tenant\":1,") != NULL;
    lines->of_two += strstr(text, "\"tenant\":2,") != NULL;
    lines->leaked |= strstr(text, "secret") != NULL; /* a note is the host's own */
    return 0;
}

/* The operator's report says whose each session is, and nothing of what is in it. */
static void inspect_says_whose_and_not_what(void **state)
{
    struct api *api = *state;
    struct lines lines = {0};
    struct abode_session one, two;
    api_open(api);
    assert_int_equal(create(api, ONE, 1, NULL, &one), 0);
    assert_int_equal(create(api, TWO, 2, NULL, &two), 0);
    assert_int_equal(abode_session_note_set(api->runtime, one, "secret", 6), 0);
    assert_int_equal(abode_inspect(api->runtime, line_take, &lines), 0);
    assert_int_equal(lines.of_one, 1);
    assert_int_equal(lines.of_two, 1);
    assert_false(lines.leaked);
    calls++;
}

/* Keys that left the cache are the model's; rows of sessions are not among them. */
static void events_name_no_rows(void **state)
{
    struct api *api = *state;
    struct abode_key keys[ROWS], left[64];
    uint64_t lost = 0;
    api->config.flags |= ABODE_KEEP_KEYS;
    api->hybrid_bytes = 0;
    api->paged_bytes = 1u << 20;
    api_open(api);
    keys_of(400, keys);
    struct abode_session session = keyed(api, ONE, 0, 7, keys);
    assert_int_equal(abode_session_delete(api->runtime, session), 0);
    assert_int_equal(create(api, TWO, 0, NULL, &session), 0);
    while (api_append(api, session, 3, API_BLOCK_TOKENS) == 0) {}
    int count = abode_cache_events(api->runtime, api->paged, left, 64, &lost);
    for (int i = 0; i < count; i++) {
        for (uint32_t row = 0; row < ROWS; row++) {
            assert_memory_not_equal(&left[i], &keys[row], sizeof(keys[row]));
        }
    }
    calls++;
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, api_up, api_down)
    const struct CMUnitTest tests[] = {
        TEST(prefixes_do_not_meet),
        TEST(equal_keys_give_each_his_own),
        TEST(the_cache_face_sees_no_session),
        cmocka_unit_test(salted_keys_do_not_meet),
        TEST(stale_handles_tell_nothing),
        TEST(frames_are_zeroed_between_tenants),
        TEST(inspect_says_whose_and_not_what),
        TEST(events_name_no_rows),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    print_message(
        "reliability: R17 %u calls for what is another tenant's; no seed; %d violations\n", calls,
        failed);
    return failed;
}
