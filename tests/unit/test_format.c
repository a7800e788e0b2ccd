/*
 * test_format.c - goal: the bytes on disk are what README.md draws, on every build. Method: the
 * sizes are static assertions in format.h; here are the places of fields, the magics as text, and a
 * walk over entries with every kind of garbage.
 */
#include "store/format.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#include "store/journal.h"

static void magics_read_as_text(void **state)
{
    (void)state;
    static const struct {
        uint64_t magic;
        const char *text;
    } cases[] = {{AB_SUPERBLOCK_MAGIC, "ABODESB1"},
                 {AB_JOURNAL_MAGIC, "ABODEJL1"},
                 {AB_SEGMENT_MAGIC, "ABODESG1"},
                 {AB_EXTENT_MAGIC, "ABODEEX1"}};
    for (uint32_t i = 0; i < AB_COUNT(cases); i++) {
        assert_memory_equal(&cases[i].magic, cases[i].text, 8);
    }
    const uint32_t record = AB_RECORD_MAGIC;
    assert_memory_equal(&record, "AREC", 4);
}

static void fields_are_where_the_drawing_says(void **state)
{
    (void)state;
    assert_int_equal(offsetof(struct ab_disk_superblock, features), 24);
    assert_int_equal(offsetof(struct ab_disk_superblock, directory_index), 64);
    assert_int_equal(offsetof(struct ab_disk_superblock, segment_bytes), 72);
    assert_int_equal(offsetof(struct ab_disk_superblock, sequence), 88);
    assert_int_equal(offsetof(struct ab_disk_superblock, journal_name), 120);
    assert_int_equal(offsetof(struct ab_disk_record, generation), 16);
    assert_int_equal(offsetof(struct ab_disk_record, sequence), 24);
    assert_int_equal(offsetof(struct ab_disk_record, epoch), 32);
    assert_int_equal(offsetof(struct ab_disk_record, synced), 40);
    assert_int_equal(offsetof(struct ab_disk_record, size), 48);
    assert_int_equal(offsetof(struct ab_disk_extent, generation), 40);
    assert_int_equal(sizeof(struct ab_extent_item), 64);
}

/* Room for two entries: sizes a and b, types s and t; is the payload of `size` bytes legal? */
static bool walk(uint32_t type, uint32_t entry_size, size_t size, bool own)
{
    static uint64_t words[(AB_ENTRY_SIZE_MAX + 64) / 8];
    const struct ab_entry entry = {.type = (uint16_t)type, .size = entry_size};
    memset(words, 0, sizeof(words));
    memcpy(words, &entry, sizeof(entry));
    return ab_entries_are_valid(words, size, own);
}

static void entries_are_bounded(void **state)
{
    (void)state;
    assert_true(ab_entries_are_valid(NULL, 0, false));
    assert_true(walk(1, 8, 8, false));
    assert_true(walk(0x7fff, 64, 64, false));
    assert_true(walk(1, AB_ENTRY_SIZE_MAX, AB_ENTRY_SIZE_MAX, false));
    assert_false(walk(1, AB_ENTRY_SIZE_MAX + 8, AB_ENTRY_SIZE_MAX + 8, false));
    assert_false(walk(0, 8, 8, false));      /* no type */
    assert_false(walk(0x8000, 8, 8, false)); /* the store's own */
    assert_false(walk(0x8000, 8, 8, true));  /* its own, but unknown */
    assert_false(walk(AB_ENTRY_SEGMENT, 24, 24, false));
    assert_true(walk(AB_ENTRY_SEGMENT, 24, 24, true));
    assert_false(walk(1, 0, 8, false));   /* would never end */
    assert_false(walk(1, 4, 8, false));   /* less than its header */
    assert_false(walk(1, 12, 16, false)); /* not a multiple of 8 */
    assert_false(walk(1, 16, 8, false));  /* past the end */
    assert_false(walk(1, UINT32_MAX, 8, false));
    assert_false(walk(1, 8, 12, false)); /* half a header follows */
    assert_false(walk(1, 8, 16, false)); /* zeroes follow */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(magics_read_as_text),
        cmocka_unit_test(fields_are_where_the_drawing_says),
        cmocka_unit_test(entries_are_bounded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
