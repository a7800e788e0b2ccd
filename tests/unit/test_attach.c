/*
 * test_attach.c - restore: each kind of state lost on purpose, and what attach makes of it.
 *
 * Goal: never a mix. A byte of one block is flipped in the segment file; attach without PREFIX_OK
 * refuses and leaves the session as it is, with it gives an older whole position or an empty
 * session; abode_verify names exactly the bytes. Method: content that can be found in a file.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
// clang-format off
#include <cmocka.h>
// clang-format on

#include "api_fixture.h"

#define SAMPLE 64 /* bytes that identify a place in a file */

enum lost { LOST_ROW_FIRST, LOST_ROW_MIDDLE, LOST_TAIL, LOST_STATE, LOST_BYTES, LOST_BOTH_POINTS };

static void corrupt_token(const struct api *api, uint32_t salt, uint64_t position)
{
    unsigned char sample[SAMPLE];
    api_token_bytes(salt, position, 1, sample, sizeof(sample));
    api_corrupt(api, sample, sizeof(sample));
}

static void corrupt_state(const struct api *api, uint32_t salt, uint64_t position, uint32_t c)
{
    unsigned char sample[SAMPLE];
    api_state_bytes(salt, position, c, sample, sizeof(sample));
    api_corrupt(api, sample, sizeof(sample));
}

static void lose(const struct api *api, enum lost lost)
{
    switch (lost) {
    case LOST_ROW_FIRST:
        corrupt_token(api, 1, 0);
        break;
    case LOST_ROW_MIDDLE:
        corrupt_token(api, 1, 28); /* the row that holds the end of the older point */
        break;
    case LOST_TAIL:
        corrupt_token(api, 1, 48);
        break;
    case LOST_STATE:
        corrupt_state(api, 1, 50, API_STATE);
        break;
    case LOST_BYTES:
        corrupt_state(api, 1, 50, API_BYTES);
        break;
    case LOST_BOTH_POINTS:
        corrupt_state(api, 1, 50, API_STATE);
        corrupt_state(api, 1, 29, API_BYTES);
        break;
    }
}

static const struct {
    enum lost lost;
    uint64_t tokens;                   /* what PREFIX_OK gives */
    uint64_t token_first, token_count; /* of the damage */
    uint32_t component, bad;
} cases[] = {
    {LOST_ROW_FIRST, 0, 0, 8, API_KV, 1},  {LOST_ROW_MIDDLE, 0, 24, 8, API_KV, 1},
    {LOST_TAIL, 29, 48, 8, API_KV, 1},     {LOST_STATE, 29, 50, 0, API_STATE, 1},
    {LOST_BYTES, 29, 50, 0, API_BYTES, 1}, {LOST_BOTH_POINTS, 0, 0, 0, 0, 2},
};

/* a session with points at 29 and 50, only in the store, and one beside it */
static struct abode_session hybrid_session(struct api *api)
{
    api_open(api);
    struct abode_session session = api_create(api, api->hybrid, 1);
    struct abode_session beside = api_create(api, api->hybrid, 2);
    api_turn(api, session, 1, 29);
    api_turn(api, session, 1, 21);
    api_turn(api, beside, 2, 40);
    assert_int_equal(api_detach(api, session, ABODE_DETACH_SPILL_NOW), 0);
    assert_int_equal(api_detach(api, beside, ABODE_DETACH_SPILL_NOW), 0);
    return session;
}

static void beside_is_untouched(struct api *api)
{
    struct abode_session beside = api_find(api, 2);
    if (api_stat(api, beside).attached == 0) {
        assert_int_equal(api_attach(api, beside, 0), 0);
    }
    api_check(api, beside, 2, 40);
}

static void damage_is_exact(struct api *api, size_t row, const struct api_damage *damage)
{
    const struct abode_key name = api_name(1);
    struct abode_damage first = damage->first;
    assert_int_equal(damage->count, cases[row].bad);
    assert_int_equal(first.status, -ABODE_ECORRUPT);
    assert_memory_equal(first.session_name.bytes, name.bytes, 32);
    assert_non_null(strstr(first.file, api->directory));
    assert_int_equal(first.offset % 4096, 0);
    if (cases[row].bad == 1) {
        assert_int_equal(first.component, cases[row].component);
        assert_int_equal(first.token_first, cases[row].token_first);
        assert_int_equal(first.token_count, cases[row].token_count);
        uint64_t bytes = first.component == API_KV      ? (uint64_t)API_ROW_BYTES
                         : first.component == API_STATE ? (uint64_t)API_STATE_BYTES
                                                        : 100 + 3 * first.token_first;
        assert_int_equal(first.bytes, bytes);
    }
}

enum when { WHILE_OPEN, WHILE_CLOSED };

static void one_case(size_t row, enum when when, bool verify)
{
    struct api *api;
    assert_int_equal(api_up((void **)&api), 0);
    struct abode_session session = hybrid_session(api);
    if (when == WHILE_CLOSED) {
        api_close(api);
        lose(api, cases[row].lost);
        api_open(api);
    } else {
        lose(api, cases[row].lost);
    }
    session = api_find(api, 1);
    if (verify) {
        struct api_damage damage;
        assert_int_equal(api_verify(api, &damage), cases[row].bad);
        damage_is_exact(api, row, &damage);
    }
    for (uint32_t again = 0; again < 2; again++) { /* refused, and refused again: nothing moved */
        assert_int_equal(api_attach(api, session, 0), -ABODE_ECORRUPT);
        assert_int_equal(api_stat(api, session).attached, 0);
        assert_int_equal(api_tokens(api, session), 50);
    }
    assert_int_equal(api_attach(api, session, ABODE_ATTACH_PREFIX_OK), -ABODE_EPARTIAL);
    api_check(api, session, 1, cases[row].tokens);
    beside_is_untouched(api);
    api_turn(api, session, 1, 11); /* and goes on from there */
    assert_int_equal(api_detach(api, session, ABODE_DETACH_SPILL_NOW), 0);
    api_reopen(api);
    session = api_find(api, 1);
    assert_int_equal(api_attach(api, session, 0), 0);
    api_check(api, session, 1, cases[row].tokens + 11);
    beside_is_untouched(api);
    struct api_damage damage;
    assert_int_equal(api_verify(api, &damage), 0); /* nobody names the bad ones any more */
    assert_int_equal(api_down((void **)&api), 0);
}

static void each_component_lost(void **state)
{
    (void)state;
    for (size_t row = 0; row < sizeof(cases) / sizeof(*cases); row++) {
        one_case(row, WHILE_OPEN, false);
        one_case(row, WHILE_CLOSED, false);
        one_case(row, WHILE_CLOSED, true);
    }
}

/* A checkpoint that leaves out the bad block would leave a session that names what is not there. */
static void damage_does_not_take_the_session_along(void **state)
{
    struct api *api = *state;
    static unsigned char note[ABODE_NOTE_MAX];
    struct api_damage damage;
    struct abode_stats stats;
    struct abode_session session = hybrid_session(api);
    lose(api, LOST_TAIL);
    assert_int_equal(api_verify(api, &damage), 1);
    for (uint32_t n = 0; n < 300; n++) { /* 19 MB of journal: it is written anew after 16 MiB */
        struct abode_session filler = api_create(api, api->paged, 100 + n);
        memset(note, (int)n, sizeof(note));
        assert_int_equal(abode_session_note_set(api->runtime, filler, note, sizeof(note)), 0);
        assert_int_equal(api_detach(api, filler, 0), 0);
        assert_int_equal(abode_session_delete(api->runtime, filler), 0);
    }
    assert_int_equal(abode_stats_get(api->runtime, &stats), 0);
    assert_true(stats.bytes_written > 19u << 20);
    api_reopen(api);
    session = api_find(api, 1);
    assert_int_equal(api_attach(api, session, 0), -ABODE_ECORRUPT);
    assert_int_equal(api_attach(api, session, ABODE_ATTACH_PREFIX_OK), -ABODE_EPARTIAL);
    api_check(api, session, 1, 29);
    beside_is_untouched(api);
}

/* A flush, or a detach, that meets damage does not go back to an older position by itself: the host
 * would go on from the wrong place. */
static void damage_is_told_before_it_is_cut(void **state)
{
    struct api *api = *state;
    struct api_damage damage;
    struct abode_session session = hybrid_session(api);
    lose(api, LOST_STATE);
    assert_int_equal(api_verify(api, &damage), 1);
    assert_int_equal(abode_session_note_set(api->runtime, session, "note", 4), 0);
    assert_int_equal(abode_flush(api->runtime, -1), -ABODE_ECORRUPT);
    assert_int_equal(api_tokens(api, session), 50);
    assert_int_equal(api_attach(api, session, 0), -ABODE_ECORRUPT);
    assert_int_equal(api_attach(api, session, ABODE_ATTACH_PREFIX_OK), -ABODE_EPARTIAL);
    api_check(api, session, 1, 29);
    assert_int_equal(api_detach(api, session, 0), 0);
    assert_int_equal(abode_flush(api->runtime, -1), 0);
}

/* Tokens behind the last restore point, left by a detach that failed, are no damage. */
static void a_left_tail_is_dropped_by_attach(void **state)
{
    struct api *api = *state;
    struct abode_session session = hybrid_session(api);
    assert_int_equal(api_attach(api, session, 0), 0);
    assert_int_equal(api_append(api, session, 1, 3), 0);
    struct abode_op op = {.timeout_ns = 1};
    assert_int_equal(api_wait(api, &op, abode_detach(api->queue, session, 0, &op)), -ETIMEDOUT);
    assert_int_equal(api_attach(api, session, 0), 0);
    api_check(api, session, 1, 50);
}

static void paged_prefix_ends_before_the_bad_row(void **state)
{
    struct api *api = *state;
    api_open(api);
    struct abode_session session = api_create(api, api->paged, 1);
    api_turn(api, session, 1, 100);
    assert_int_equal(api_detach(api, session, ABODE_DETACH_SPILL_NOW), 0);
    corrupt_token(api, 1, 45);
    assert_int_equal(api_attach(api, session, 0), -ABODE_ECORRUPT);
    struct abode_op op = {.timeout_ns = 0};
    int status =
        api_wait(api, &op, abode_attach(api->queue, session, -1, ABODE_ATTACH_PREFIX_OK, &op));
    assert_int_equal(status, -ABODE_EPARTIAL);
    assert_int_equal(op.item_count, 5);
    assert_int_equal(op.item_good, 5);
    api_check(api, session, 1, 40);
    api_turn(api, session, 1, 60);
    assert_int_equal(api_detach(api, session, ABODE_DETACH_SPILL_NOW), 0);
    assert_int_equal(api_attach(api, session, 0), 0);
    api_check(api, session, 1, 100);
    struct abode_stats stats;
    assert_int_equal(abode_stats_get(api->runtime, &stats), 0);
    assert_true(stats.checksum_failures > 0);
}

/* A read that fails is no corruption: nothing is marked, the next attach may succeed. */
static void read_errors_pass(void **state)
{
    struct api *api = *state;
    api->config.io = ABODE_IO_THREADS;
    struct abode_session session = hybrid_session(api);
    fault_os_plan(
        &api->fault,
        (struct fault_plan){
            .call = AB_OS_PREAD, .kind = FAULT_ERROR, .nth = 3, .error = EIO, .sticky = true});
    assert_int_equal(api_attach(api, session, 0), -EIO);
    assert_true(fault_os_strikes(&api->fault) > 0);
    assert_int_equal(api_stat(api, session).attached, 0);
    fault_os_clear(&api->fault);
    assert_int_equal(api_attach(api, session, 0), 0);
    api_check(api, session, 1, 50);
    struct abode_stats stats;
    assert_int_equal(abode_stats_get(api->runtime, &stats), 0);
    assert_true(stats.io_errors > 0);
    assert_int_equal(stats.checksum_failures, 0);
}

/* No descriptor for the segment: a code that the manual has, the mend in the log, and no harm. */
static void segment_that_cannot_be_opened(void **state)
{
    struct api *api = *state;
    api_open(api);
    struct abode_session session = api_create(api, api->hybrid, 1);
    api_turn(api, session, 1, 30);
    assert_int_equal(api_detach(api, session, 0), 0);
    api_reopen(api);
    session = api_find(api, 1);
    fault_os_plan(&api->fault,
                  (struct fault_plan){.call = AB_OS_OPENAT, .kind = FAULT_ERROR, .error = EMFILE});
    assert_int_equal(api_attach(api, session, 0), -EIO);
    assert_int_equal(fault_os_strikes(&api->fault), 1);
    assert_true(api_logged(api, "RLIMIT_NOFILE"));
    assert_int_equal(api_attach(api, session, 0), 0);
    api_check(api, session, 1, 30);
    assert_int_equal(api_detach(api, session, 0), 0);
    api_close(api);
}

/* With PREFIX_OK a shorter session is what the host asked for; the rest must not be damaged. */
static void read_errors_with_prefix_ok(void **state)
{
    struct api *api = *state;
    api->config.io = ABODE_IO_THREADS;
    struct abode_session session = hybrid_session(api);
    fault_os_plan(&api->fault,
                  (struct fault_plan){
                      .call = AB_OS_PREAD, .kind = FAULT_ERROR, .error = EIO, .sticky = true});
    int status = api_attach(api, session, ABODE_ATTACH_PREFIX_OK);
    fault_os_clear(&api->fault);
    if (status == -ABODE_EPARTIAL) {
        api_check(api, session, 1, 0);
    } else {
        assert_int_equal(status, -EIO);
        assert_int_equal(api_attach(api, session, 0), 0);
        api_check(api, session, 1, 50);
    }
    beside_is_untouched(api);
}

/* A power cut may take the size of a file that was not synced: that is lost for good, and asking again
 * does not help, as -EIO would say. */
static void segment_file_that_ends_early(void **state)
{
    struct api *api = *state;
    struct api_damage damage;
    uint32_t cut = 0;
    (void)hybrid_session(api);
    api_close(api);
    for (uint32_t segment = 0; segment < 64; segment++) {
        char path[128];
        (void)snprintf(path, sizeof(path), "%s/segments/%08x", api->directory, segment);
        cut += truncate(path, 4096) == 0;
    }
    assert_true(cut > 0);
    api_open(api);
    struct abode_session session = api_find(api, 1);
    assert_int_equal(api_attach(api, session, 0), -ABODE_ECORRUPT);
    assert_true(api_verify(api, &damage) > 0);
    assert_int_equal(damage.first.status, -ABODE_ECORRUPT);
    assert_int_equal(api_attach(api, session, ABODE_ATTACH_PREFIX_OK), -ABODE_EPARTIAL);
    assert_int_equal(api_tokens(api, session), 0);
}

/* Nor may the loss of a file keep the rest of the store from being opened: a power cut takes the name
 * of a file that nothing DURABLE is in. */
static void segment_file_that_is_missing(void **state)
{
    struct api *api = *state;
    (void)hybrid_session(api);
    api_close(api);
    for (uint32_t segment = 0; segment < 64; segment++) {
        char path[128];
        (void)snprintf(path, sizeof(path), "%s/segments/%08x", api->directory, segment);
        (void)unlink(path);
    }
    const struct abode_key name = api_name(1);
    struct abode_session session;
    for (uint32_t open = 0; open < 3; open++) { /* and what takes its number is nobody else's */
        api_open(api);
        assert_int_equal(abode_session_find(api->runtime, &name, &session), -ENOENT);
        struct abode_session other = api_create(api, api->hybrid, 3 + open);
        api_turn(api, other, 3 + open, 30);
        assert_int_equal(api_detach(api, other, ABODE_DETACH_SPILL_NOW), 0);
        for (uint32_t old = 0; old <= open; old++) {
            other = api_find(api, 3 + old);
            assert_int_equal(api_attach(api, other, 0), 0);
            api_check(api, other, 3 + old, 30);
            assert_int_equal(api_detach(api, other, 0), 0);
        }
        api_close(api);
    }
}

static void forks_of_a_damaged_row(void **state)
{
    struct api *api = *state;
    struct abode_session child;
    struct abode_key name = api_name(3);
    api_open(api);
    struct abode_session session = api_create(api, api->paged, 1);
    api_turn(api, session, 1, 48);
    assert_int_equal(abode_session_fork(api->runtime, session, 16, &name, &child), 0);
    assert_int_equal(api_detach(api, session, ABODE_DETACH_SPILL_NOW), 0);
    assert_int_equal(api_detach(api, child, ABODE_DETACH_SPILL_NOW), 0);
    assert_int_equal(api_stat(api, child).bytes_resident, 0);
    corrupt_token(api, 1, 8);
    assert_int_equal(api_attach(api, session, ABODE_ATTACH_PREFIX_OK), -ABODE_EPARTIAL);
    api_check(api, session, 1, 8);
    assert_int_equal(api_attach(api, child, 0), -ABODE_ECORRUPT);
    assert_int_equal(api_attach(api, child, ABODE_ATTACH_PREFIX_OK), -ABODE_EPARTIAL);
    api_check(api, child, 1, 8);
}

static uint32_t ready_rows_check(struct api *api, struct abode_session session,
                                 const struct abode_op *op)
{
    struct abode_view view = {.struct_size = sizeof(view)};
    unsigned char sample[SAMPLE];
    const uint32_t ready = abode_attach_ready(op);
    assert_int_equal(abode_session_view(api->runtime, session, API_KV, &view), 0);
    assert_int_equal(view.row_count, 125);
    for (uint32_t row = 0; row < ready; row++) {
        api_token_bytes(1, row * API_BLOCK_TOKENS, 1, sample, sizeof(sample));
        assert_int_not_equal(view.frames[row], ABODE_FRAME_NONE);
        assert_memory_equal(abode_view_plane(&view, row, 1), sample, sizeof(sample));
    }
    return ready;
}

/* The host reads rows that are there while the others are on their way. */
static void rows_are_read_while_attaching(void **state)
{
    struct api *api = *state;
    struct abode_op op = {0}, *done = NULL;
    api_open(api);
    struct abode_session session = api_create(api, api->paged, 1);
    api_turn(api, session, 1, 125 * API_BLOCK_TOKENS);
    assert_int_equal(api_detach(api, session, ABODE_DETACH_SPILL_NOW), 0);
    struct abode_view view = {.struct_size = sizeof(view)};
    assert_int_equal(abode_session_view(api->runtime, session, API_KV, &view), -ENOTCONN);
    for (uint32_t i = 0; i < 20; i++) {
        assert_int_equal(abode_attach(api->queue, session, -1, 0, &op), 0);
        uint32_t ready = 0;
        do {
            const uint32_t now = ready_rows_check(api, session, &op);
            assert_true(now >= ready);
            ready = now;
        } while (abode_poll(api->queue, &done, 1, 0) == 0);
        assert_int_equal(op.status, 0);
        assert_int_equal(ready_rows_check(api, session, &op), 125);
        assert_int_equal(abode_detach(api->queue, session, ABODE_DETACH_SPILL_NOW, &op), 0);
        int status = abode_session_view(api->runtime, session, API_KV, &view);
        assert_true(status == -EBUSY || status == -ENOTCONN);
        assert_int_equal(abode_poll(api->queue, &done, 1, -1), 1);
        assert_int_equal(op.status, 0);
    }
}

/* The same while the attach fails: rows that were ready are taken back under the host's eyes. */
static void rows_are_read_while_attaching_fails(void **state)
{
    struct api *api = *state;
    struct abode_op op = {0}, *done = NULL;
    unsigned char sample[SAMPLE];
    uint64_t sum = 0;
    api_open(api);
    struct abode_session session = api_create(api, api->hybrid, 1);
    api_turn(api, session, 1, 120 * API_BLOCK_TOKENS);
    assert_int_equal(api_detach(api, session, ABODE_DETACH_SPILL_NOW), 0);
    api_state_bytes(1, 120 * API_BLOCK_TOKENS, API_STATE, sample, sizeof(sample));
    api_corrupt(api, sample, sizeof(sample));
    for (uint32_t i = 0; i < 8; i++) {
        api_reopen(api); /* nobody knows of the damage */
        session = api_find(api, 1);
        assert_int_equal(abode_attach(api->queue, session, -1, 0, &op), 0);
        struct abode_view view = {.struct_size = sizeof(view)};
        if (abode_session_view(api->runtime, session, API_KV, &view) == 0) { /* else it has ended */
            do {
                const uint32_t ready = abode_attach_ready(&op);
                for (uint32_t row = 0; row < ready; row++) {
                    const unsigned char *bytes = abode_view_plane(&view, row, 0);
                    sum += bytes == NULL ? 0 : bytes[0];
                }
            } while (abode_poll(api->queue, &done, 1, 0) == 0);
        } else {
            assert_int_equal(abode_poll(api->queue, &done, 1, -1), 1);
        }
        assert_int_equal(op.status, -ABODE_ECORRUPT);
    }
    assert_true(sum > 0);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, api_up, api_down)
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_component_lost),
        TEST(damage_does_not_take_the_session_along),
        TEST(damage_is_told_before_it_is_cut),
        TEST(a_left_tail_is_dropped_by_attach),
        TEST(paged_prefix_ends_before_the_bad_row),
        TEST(read_errors_pass),
        TEST(segment_that_cannot_be_opened),
        TEST(read_errors_with_prefix_ok),
        TEST(segment_file_that_ends_early),
        TEST(segment_file_that_is_missing),
        TEST(forks_of_a_damaged_row),
        TEST(rows_are_read_while_attaching),
        TEST(rows_are_read_while_attaching_fails),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
