/*
 * test_superblock.c - goal: whatever happens to the file, a reader gets a superblock that was
 * written as a whole, the newest that two copies agree on, or an error. Method: the pure chooser on
 * built files (every byte of every copy flipped, every length, all mixtures of old and new copies),
 * then writes that are torn at every call, and the next writer after each.
 */
#include "store/superblock.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "abode/abode.h"
#include "fault_os.h"

struct fixture {
    struct fault_os fault;
    const struct ab_os *os;
    int fd;
    struct ab_disk_superblock old, new;
    struct ab_disk_superblock copies[AB_SUPERBLOCK_COPIES];
};

static void fill(struct ab_disk_superblock *superblock, uint64_t sequence)
{
    *superblock = (struct ab_disk_superblock){
        .magic = AB_SUPERBLOCK_MAGIC,
        .version = AB_DISK_VERSION,
        .page_bytes = AB_PAGE,
        .directory_count = 2,
        .directory_index = 1,
        .segment_bytes = AB_SEGMENT_STEP,
        .sequence = sequence,
        .epoch = 7,
        .journal_generation = sequence * 3,
    };
}

static int set_up(void **state)
{
    struct fixture *fixture = test_calloc(1, sizeof(*fixture));
    fault_os_init(&fixture->fault, NULL);
    fixture->os = &fixture->fault.os;
    char path[] = "/tmp/abode-test-superblock-XXXXXX";
    fixture->fd = mkstemp(path);
    assert_true(fixture->fd >= 0);
    assert_int_equal(unlink(path), 0);
    fill(&fixture->old, 4);
    fill(&fixture->new, 5);
    /* writing fills in the hash */
    assert_int_equal(ab_superblock_write(fixture->os, fixture->fd, &fixture->old), 0);
    assert_int_equal(ab_superblock_write(fixture->os, fixture->fd, &fixture->new), 0);
    *state = fixture;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *fixture = *state;
    (void)close(fixture->fd);
    fault_os_free(&fixture->fault);
    test_free(fixture);
    return 0;
}

static int choose(struct fixture *fixture, size_t count, struct ab_disk_superblock *ret,
                  uint32_t *ret_agreeing)
{
    return ab_superblock_choose(fixture->copies, count, ret, ret_agreeing);
}

static void written_is_read(void **state)
{
    struct fixture *fixture = *state;
    struct ab_disk_superblock found;
    uint32_t agreeing = 0;
    assert_int_equal(ab_superblock_read(fixture->os, fixture->fd, &found, &agreeing), 0);
    assert_memory_equal(&found, &fixture->new, sizeof(found));
    assert_int_equal(agreeing, AB_SUPERBLOCK_ALL);
}

/* Three kinds of copy (old, new, damaged) in four places: 81 files. */
static void highest_that_two_agree_on_wins(void **state)
{
    struct fixture *fixture = *state;
    for (uint32_t mix = 0; mix < 81; mix++) {
        uint32_t olds = 0, news = 0, rest = mix;
        for (uint32_t i = 0; i < AB_SUPERBLOCK_COPIES; i++, rest /= 3) {
            fixture->copies[i] = rest % 3 == 1 ? fixture->new : fixture->old;
            fixture->copies[i].epoch ^= rest % 3 == 2 ? 1 : 0;
            olds += rest % 3 == 0 ? 1 : 0;
            news += rest % 3 == 1 ? 1 : 0;
        }
        struct ab_disk_superblock found = {0};
        uint32_t agreeing = 0;
        const int result = choose(fixture, sizeof(fixture->copies), &found, &agreeing);
        if (news >= 2) {
            assert_int_equal(result, 0);
            assert_memory_equal(&found, &fixture->new, sizeof(found));
            assert_int_equal(__builtin_popcount(agreeing), news);
        } else if (olds >= 2) {
            assert_int_equal(result, 0);
            assert_memory_equal(&found, &fixture->old, sizeof(found));
            assert_int_equal(__builtin_popcount(agreeing), olds);
        } else {
            assert_int_equal(result, -ABODE_ECORRUPT);
        }
    }
}

/* Two good copies of the older one are left: each flipped bit in the newer must be noticed. */
static void every_flipped_byte_is_noticed(void **state)
{
    struct fixture *fixture = *state;
    struct ab_disk_superblock found;
    uint32_t agreeing = 0;
    for (uint32_t at = 0; at < AB_PAGE; at++) {
        fixture->copies[0] = fixture->new;
        fixture->copies[1] = fixture->new;
        fixture->copies[2] = fixture->old;
        fixture->copies[3] = fixture->old;
        ((uint8_t *)&fixture->copies[0])[at] ^= (uint8_t)(1u << at % 8);
        assert_int_equal(choose(fixture, sizeof(fixture->copies), &found, &agreeing), 0);
        assert_int_equal(found.sequence, 4);
        ((uint8_t *)&fixture->copies[1])[at] ^= (uint8_t)(1u << at % 8);
        /* the same damage twice agrees with itself, but not with its hash */
        assert_int_equal(choose(fixture, sizeof(fixture->copies), &found, &agreeing), 0);
        assert_int_equal(found.sequence, 4);
    }
}

static void every_length_is_noticed(void **state)
{
    struct fixture *fixture = *state;
    for (uint32_t i = 0; i < AB_SUPERBLOCK_COPIES; i++) {
        fixture->copies[i] = fixture->new;
    }
    for (size_t count = 0; count <= sizeof(fixture->copies); count++) {
        struct ab_disk_superblock found;
        uint32_t agreeing = 0;
        const int result = choose(fixture, count, &found, &agreeing);
        /* zeroes behind the cut: the last page is only reserved bytes, so count its useful part */
        if (count >= 2 * AB_PAGE) {
            assert_int_equal(result, 0);
        } else if (count < AB_PAGE) {
            assert_true(result == -ABODE_ECORRUPT || result == -ABODE_ESTORE);
        } else {
            assert_true(result == -ABODE_ECORRUPT || result == 0);
        }
    }
    uint32_t agreeing = 0;
    struct ab_disk_superblock found;
    assert_int_equal(choose(fixture, AB_PAGE, &found, &agreeing), -ABODE_ECORRUPT);
    memset(fixture->copies, 0x5a, sizeof(fixture->copies));
    assert_int_equal(choose(fixture, sizeof(fixture->copies), &found, &agreeing), -ABODE_ESTORE);
}

/* each change is hashed and written as a newer library, or a mad one, would */
static int choose_changed(struct fixture *fixture, struct ab_disk_superblock changed)
{
    struct ab_disk_superblock found;
    uint32_t agreeing = 0;
    assert_int_equal(ab_superblock_write(fixture->os, fixture->fd, &changed), 0);
    return ab_superblock_read(fixture->os, fixture->fd, &found, &agreeing);
}

static void versions_and_features_are_told_from_damage(void **state)
{
    struct fixture *fixture = *state;
    struct ab_disk_superblock changed = fixture->new;
    changed.version = AB_DISK_VERSION + 1;
    assert_int_equal(choose_changed(fixture, changed), -ABODE_EFORMAT);
    changed = fixture->new;
    changed.features.refuse = 1;
    assert_int_equal(choose_changed(fixture, changed), -ABODE_EFORMAT);
    changed = fixture->new;
    changed.features.ignore = UINT64_MAX;
    assert_int_equal(choose_changed(fixture, changed), 0);
    assert_false(ab_superblock_read_only(&changed));
    changed.features.read_only = 4;
    assert_int_equal(choose_changed(fixture, changed), 0);
    assert_true(ab_superblock_read_only(&changed));
}

static void absurd_fields_are_refused(void **state)
{
    struct fixture *fixture = *state;
    struct ab_disk_superblock changed = fixture->new;
    changed.directory_count = 0;
    assert_int_equal(choose_changed(fixture, changed), -ABODE_ECORRUPT);
    changed.directory_count = AB_STORE_DEVICES_MAX + 1;
    assert_int_equal(choose_changed(fixture, changed), -ABODE_ECORRUPT);
    changed = fixture->new;
    changed.directory_index = changed.directory_count;
    assert_int_equal(choose_changed(fixture, changed), -ABODE_ECORRUPT);
    changed = fixture->new;
    changed.segment_bytes = AB_SEGMENT_BYTES_MAX + AB_SEGMENT_STEP;
    assert_int_equal(choose_changed(fixture, changed), -ABODE_ECORRUPT);
    changed.segment_bytes = AB_SEGMENT_STEP + 4096;
    assert_int_equal(choose_changed(fixture, changed), -ABODE_ECORRUPT);
    changed.segment_bytes = 0;
    assert_int_equal(choose_changed(fixture, changed), -ABODE_ECORRUPT);
    changed = fixture->new;
    changed.journal_name = 2;
    assert_int_equal(choose_changed(fixture, changed), -ABODE_ECORRUPT);
    changed = fixture->new;
    changed.page_bytes = 512;
    assert_int_equal(choose_changed(fixture, changed), -ABODE_ECORRUPT);
}

/* Fail the n-th call of a write, then let a second writer heal, and fail that one as well. */
static void a_write_that_fails_leaves_old_or_new(void **state)
{
    struct fixture *fixture = *state;
    struct fault_os *fault = &fixture->fault;
    for (uint32_t kind = FAULT_ERROR; kind <= FAULT_SHORT; kind++) {
        for (uint32_t nth = 1; nth <= 6; nth++) {
            for (uint32_t second = 1; second <= 8; second++) {
                struct ab_disk_superblock first = fixture->old, next = fixture->new, found;
                uint32_t agreeing = 0;
                fault_os_clear(fault);
                assert_int_equal(ab_superblock_write(fixture->os, fixture->fd, &first), 0);
                fault_os_plan(fault, (struct fault_plan){.call = FAULT_ANY_CALL,
                                                         .kind = (enum fault_kind)kind,
                                                         .nth = nth,
                                                         .error = EIO,
                                                         .sticky = kind == FAULT_ERROR});
                (void)!ab_superblock_write(fixture->os, fixture->fd, &next);
                fault_os_clear(fault);
                assert_int_equal(ab_superblock_read(fixture->os, fixture->fd, &found, &agreeing),
                                 0);
                const uint64_t sequence = found.sequence;
                assert_in_range(sequence, 4, 5);
                fault_os_plan(fault, (struct fault_plan){.call = FAULT_ANY_CALL,
                                                         .kind = FAULT_ERROR,
                                                         .nth = second,
                                                         .error = EIO,
                                                         .sticky = true});
                struct ab_disk_superblock third = found;
                third.sequence++;
                if (ab_superblock_heal(fixture->os, fixture->fd, &found, agreeing) == 0) {
                    (void)!ab_superblock_write(fixture->os, fixture->fd, &third);
                }
                fault_os_clear(fault);
                assert_int_equal(ab_superblock_read(fixture->os, fixture->fd, &found, &agreeing),
                                 0);
                assert_in_range(found.sequence, sequence, sequence + 1);
            }
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(written_is_read, set_up, tear_down),
        cmocka_unit_test_setup_teardown(highest_that_two_agree_on_wins, set_up, tear_down),
        cmocka_unit_test_setup_teardown(every_flipped_byte_is_noticed, set_up, tear_down),
        cmocka_unit_test_setup_teardown(every_length_is_noticed, set_up, tear_down),
        cmocka_unit_test_setup_teardown(versions_and_features_are_told_from_damage, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(absurd_fields_are_refused, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_write_that_fails_leaves_old_or_new, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
