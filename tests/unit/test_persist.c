/*
 * test_persist.c - goal: entries of a journal that are whole but say what cannot be are refused, or
 * cost the one session that they are of; nothing is computed with them. Method: the journal of a real
 * store (tests/fuzz/fuzz_store.h), one field of one entry changed, hashes made right again. The
 * random version of this is tests/fuzz/fuzz_recover.c, which found them.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
// clang-format off
#include <cmocka.h>
// clang-format on

#include "fuzz/fuzz_store.h"
#include "kv/persist.h"

#define TOKENS_MAX 4096u /* session_tokens_max of the fixture's models */

static uint8_t entries[FUZZ_SIZE_MAX];
static size_t entries_size;

/* The count-th entry of this type; from the back where it is negative. */
static void *entry_find(uint16_t type, int count)
{
    void *found[512];
    int have = 0;
    for (size_t at = 0; at < entries_size;) {
        struct ab_entry *entry = (void *)(entries + at);
        if (entry->type == type) {
            found[have++] = entry;
        }
        at += entry->size;
    }
    assert_true(count < have && -count <= have);
    return found[count >= 0 ? count : have + count];
}

/* The last record of a session: that is what counts. */
static struct ab_entry_session_put *session_entry(uint32_t name)
{
    const struct abode_key key = api_name(name);
    for (int i = -1;; i--) {
        struct ab_entry_session_put *put = entry_find(AB_ENTRY_SESSION_PUT, i);
        if (memcmp(put->name, key.bytes, sizeof(put->name)) == 0) {
            return put;
        }
    }
}

static void entries_fresh(void)
{
    entries_size = fuzz_entries_get(fuzz_store_get(), entries, sizeof(entries));
    assert_true(entries_size > 1000);
}

static int open_with_entries(void)
{
    static uint8_t journal[FUZZ_JOURNAL_BYTES];
    struct fuzz_store *store = fuzz_store_get();
    fuzz_store_reset(store);
    const size_t size = fuzz_journal_make(store, entries, entries_size, journal);
    fuzz_store_put(store, "journal.a", journal, size);
    return fuzz_store_open(store, false);
}

static bool is_found(uint32_t name)
{
    const struct abode_key key = api_name(name);
    struct abode_session session;
    return abode_session_find(fuzz_store_get()->api->runtime, &key, &session) == 0;
}

/* It opens, and of the sessions exactly this one is missing (0: none). */
static void all_but(uint32_t missing)
{
    assert_int_equal(open_with_entries(), 0);
    for (uint32_t name = FUZZ_HYBRID; name < FUZZ_SESSIONS; name++) {
        assert_int_equal(is_found(name), name != missing);
    }
    assert_false(is_found(FUZZ_SESSIONS)); /* deleted */
    fuzz_store_close(fuzz_store_get());
}

static void entries_as_they_were(void **state)
{
    (void)state;
    entries_fresh();
    all_but(0);
}

/* Bug: bytes were read into a frame that was smaller. */
static void block_larger_than_its_frame(void **state)
{
    (void)state;
    entries_fresh();
    struct ab_entry_block_put *put = entry_find(AB_ENTRY_BLOCK_PUT, 0);
    put->bytes++;
    assert_int_equal(open_with_entries(), -ABODE_ECORRUPT);
}

static void block_of_a_component_that_is_not_there(void **state)
{
    (void)state;
    entries_fresh();
    struct ab_entry_block_put *put = entry_find(AB_ENTRY_BLOCK_PUT, 0);
    put->component = (uint8_t)(put->component | (ABODE_COMPONENTS_MAX - 1));
    assert_int_equal(open_with_entries(), -ABODE_ECORRUPT);
}

/* The block numbers of a session's rows, as said last. */
static uint32_t *rows_of(uint32_t name)
{
    const struct ab_entry_session_put *session = session_entry(name);
    for (int i = -1;; i--) {
        struct ab_entry_session_rows *rows = entry_find(AB_ENTRY_SESSION_ROWS, i);
        if (rows->session == session->session && rows->generation == session->generation) {
            return (uint32_t *)(rows + 1);
        }
    }
}

/* Bug: a row of one component named a block of another, whose frames are elsewhere. */
static void row_of_another_component(void **state)
{
    (void)state;
    entries_fresh();
    *rows_of(FUZZ_PAGED) = *rows_of(FUZZ_HYBRID);
    all_but(FUZZ_PAGED);
}

/* Rows that are smaller than their frames would show what was in memory before. */
static void row_smaller_than_its_frame(void **state)
{
    (void)state;
    entries_fresh();
    for (int i = -1;; i--) {
        struct ab_entry_block_put *put = entry_find(AB_ENTRY_BLOCK_PUT, i);
        if (put->block == *rows_of(FUZZ_PAGED)) {
            put->bytes--;
            break;
        }
    }
    all_but(FUZZ_PAGED);
}

/* Bug: its rows were counted by one model and kept in the tables of another. */
static void session_changes_its_model(void **state)
{
    (void)state;
    entries_fresh();
    struct ab_entry_session_put *put = session_entry(FUZZ_FORK);
    put->model = session_entry(FUZZ_PAGED)->model;
    const size_t size = put->entry.size;
    uint8_t again[512];
    assert_true(size <= sizeof(again));
    memcpy(again, put, size);
    put->model = session_entry(FUZZ_HYBRID)->model;
    memcpy(entries + entries_size, again, size);
    entries_size += size;
    assert_int_equal(open_with_entries(), -ABODE_ECORRUPT);
}

static void rows_that_begin_behind_the_end(void **state)
{
    (void)state;
    entries_fresh();
    session_entry(FUZZ_WINDOW)->row_first[1] = FUZZ_WINDOW_TOKENS / API_BLOCK_TOKENS + 1;
    all_but(FUZZ_WINDOW);
    entries_fresh();
    session_entry(FUZZ_PAGED)->row_first[0] = 1; /* PAGED rows do not slide out */
    all_but(FUZZ_PAGED);
}

static void points_out_of_order(void **state)
{
    (void)state;
    entries_fresh();
    struct ab_entry_session_put *put = session_entry(FUZZ_FORK);
    struct ab_entry_point *points = (struct ab_entry_point *)(put + 1);
    assert_true(put->point_count >= 2);
    points[0].token_count = points[1].token_count;
    all_but(FUZZ_FORK);
    entries_fresh();
    points[put->point_count - 1].token_count = put->token_count + 1;
    all_but(FUZZ_FORK);
}

/* Segments have lives: a slot of another one is no place of this one. */
static void slot_of_another_generation(void **state)
{
    (void)state;
    for (int step = -1; step <= 1; step += 2) {
        entries_fresh();
        struct ab_entry_block_put *put = entry_find(AB_ENTRY_BLOCK_PUT, 0);
        put->generation += (uint32_t)step;
        assert_int_equal(open_with_entries(), -ABODE_ECORRUPT);
    }
}

/* Numbers of sessions are used again: rows of the one before are not rows of this one. */
static void rows_of_another_generation(void **state)
{
    (void)state;
    entries_fresh();
    struct ab_entry_session_rows *rows = entry_find(AB_ENTRY_SESSION_ROWS, -1);
    rows->generation++;
    assert_int_equal(open_with_entries(), -ABODE_ECORRUPT);
}

static void promise_that_is_none(void **state)
{
    (void)state;
    entries_fresh();
    session_entry(FUZZ_PAGED)->durability = ABODE_DURABLE + 1;
    assert_int_equal(open_with_entries(), -ABODE_ECORRUPT);
}

static void entry_append(const void *entry)
{
    const struct ab_entry *header = entry;
    assert_true(entries_size + header->size <= sizeof(entries));
    memmove(entries + entries_size, entry, header->size);
    entries_size += header->size;
}

/* A key names one block: whoever came first keeps it, and both blocks are there. */
static void two_blocks_of_one_key(void **state)
{
    (void)state;
    entries_fresh();
    struct ab_entry_block_put *first = entry_find(AB_ENTRY_BLOCK_PUT, 0);
    for (int i = 1;; i++) {
        struct ab_entry_block_put *other = entry_find(AB_ENTRY_BLOCK_PUT, i);
        if (other->component == first->component && other->block != first->block) {
            first->keyed = 1;
            first->key[0] = 5;
            first->key[1] = 6;
            other->keyed = 1;
            memcpy(other->key, first->key, sizeof(other->key));
            break;
        }
    }
    all_but(0);
}

/* Numbers that are legal by themselves, and more than the entry or the model has room for. */
static void more_than_there_is_room_for(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < 6; i++) {
        entries_fresh();
        struct ab_entry_session_put *session = session_entry(FUZZ_FORK);
        struct ab_entry_session_rows *rows = entry_find(AB_ENTRY_SESSION_ROWS, -1);
        switch (i) {
        case 0: /* points behind the end of the entry */
            session->point_count = AB_SNAPSHOTS_KEPT_MAX;
            assert_true(session->entry.size <
                        sizeof(*session) + AB_SNAPSHOTS_KEPT_MAX * sizeof(struct ab_entry_point));
            break;
        case 1: /* rows behind the end of the entry */
            rows->count = UINT32_MAX;
            break;
        case 2: /* rows past the longest session */
            rows->row = UINT32_MAX;
            break;
        case 3: /* the first of them is inside, the others are not */
            assert_true(rows->count >= 2);
            rows->row = TOKENS_MAX / API_BLOCK_TOKENS - 1;
            break;
        case 4: /* of a session that never was */
            rows->session = UINT32_MAX;
            break;
        default: /* of a component that has no rows */
            rows = entry_find(AB_ENTRY_SESSION_ROWS, 0);
            assert_int_equal(rows->component, API_KV);
            rows->component = API_STATE;
            break;
        }
        assert_int_equal(open_with_entries(), -ABODE_ECORRUPT);
    }
}

static void rows_of_a_session_that_was_deleted(void **state)
{
    (void)state;
    entries_fresh();
    const struct ab_entry_session_rows *rows = entry_find(AB_ENTRY_SESSION_ROWS, -1);
    const struct ab_entry_session_delete drop = {
        .entry = {.type = AB_ENTRY_SESSION_DELETE, .size = sizeof(drop)},
        .session = rows->session,
        .generation = rows->generation};
    entry_append(&drop);
    entry_append(&drop); /* twice is no harm */
    entry_append(rows);
    assert_int_equal(open_with_entries(), -ABODE_ECORRUPT);
}

/* A row of a window may be gone only where it has slid out. */
static void hole_inside_a_window(void **state)
{
    (void)state;
    entries_fresh();
    const struct ab_entry_session_put *session = session_entry(FUZZ_WINDOW);
    for (int i = -1;; i--) {
        struct ab_entry_session_rows *rows = entry_find(AB_ENTRY_SESSION_ROWS, i);
        if (rows->session == session->session && rows->generation == session->generation &&
            rows->component == 1) {
            ((uint32_t *)(rows + 1))[rows->count - 1] = AB_INDEX_NONE;
            break;
        }
    }
    all_but(FUZZ_WINDOW);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(entries_as_they_were),
        cmocka_unit_test(block_larger_than_its_frame),
        cmocka_unit_test(block_of_a_component_that_is_not_there),
        cmocka_unit_test(row_of_another_component),
        cmocka_unit_test(row_smaller_than_its_frame),
        cmocka_unit_test(session_changes_its_model),
        cmocka_unit_test(rows_that_begin_behind_the_end),
        cmocka_unit_test(points_out_of_order),
        cmocka_unit_test(slot_of_another_generation),
        cmocka_unit_test(rows_of_another_generation),
        cmocka_unit_test(promise_that_is_none),
        cmocka_unit_test(two_blocks_of_one_key),
        cmocka_unit_test(more_than_there_is_room_for),
        cmocka_unit_test(rows_of_a_session_that_was_deleted),
        cmocka_unit_test(hole_inside_a_window),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
