/*
 * test_journal.c - goal: a scan hands out a prefix of what was appended, at least all that was
 * synced, never anything else, and tells damage from a torn tail. Method: journals of numbered
 * records; every length, every flipped byte; a simulated power cut that keeps any mixture of pages
 * written since the last sync; leftovers of an earlier epoch; files of noise.
 */
#include "store/journal.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "abode/abode.h"
#include "fault_os.h"
#include "hook_os.h"
#include "store_client.h"

static const uint8_t store_id[AB_STORE_ID_BYTES] = {1, 2, 3, 4, 5, 6, 7, 8};

struct fixture {
    struct fault_os fault;
    const struct ab_os *os;
    char root[64];
    int dir;
    struct ab_journal journal;
    uint8_t *record; /* header and payload */
    uint8_t *zeroes;
    uint8_t *window;
    uint64_t next; /* number that the next record found must have */
    int stop_with;
    uint64_t random;
};

static uint64_t random_next(struct fixture *fixture)
{
    fixture->random += UINT64_C(0x9e3779b97f4a7c15);
    uint64_t z = fixture->random;
    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return z ^ z >> 31;
}

static int set_up(void **state)
{
    struct fixture *fixture = test_calloc(1, sizeof(*fixture));
    fault_os_init(&fixture->fault, NULL);
    fixture->os = &fixture->fault.os;
    store_test_directory(fixture->root);
    fixture->dir = open(fixture->root, O_RDONLY | O_DIRECTORY);
    assert_true(fixture->dir >= 0);
    fixture->record = test_calloc(1, sizeof(struct ab_disk_record) + AB_RECORD_PAYLOAD_MAX);
    fixture->zeroes = test_calloc(1, AB_JOURNAL_GROW);
    fixture->window = aligned_alloc(AB_PAGE, AB_JOURNAL_WINDOW);
    fixture->journal.fd = -1;
    const char *seed = getenv("ABODE_TEST_SEED");
    fixture->random = seed != NULL ? strtoull(seed, NULL, 0) : 20;
    *state = fixture;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *fixture = *state;
    ab_journal_close(&fixture->journal);
    (void)close(fixture->dir);
    store_test_remove(fixture->root);
    test_free(fixture->record);
    test_free(fixture->zeroes);
    free(fixture->window);
    fault_os_free(&fixture->fault);
    test_free(fixture);
    return 0;
}

static void create(struct fixture *fixture, uint64_t generation, uint64_t epoch)
{
    ab_journal_close(&fixture->journal);
    assert_int_equal(ab_journal_create(&fixture->journal, fixture->os, fixture->dir, 0, store_id,
                                       generation, epoch),
                     0);
}

/* A record whose payload is its number and a pattern that follows from it. */
static size_t numbered(uint64_t number, uint8_t *payload)
{
    const size_t words = 2 + number * 7 % 60;
    uint64_t *at = (void *)payload;
    for (size_t i = 0; i < words; i++) {
        at[i] = number + i * UINT64_C(0x100000001);
    }
    return words * sizeof(uint64_t);
}

static void append(struct fixture *fixture, uint64_t number)
{
    const size_t size = numbered(number, fixture->record + sizeof(struct ab_disk_record));
    assert_int_equal(ab_journal_reserve(&fixture->journal, size, 0, fixture->zeroes), 0);
    assert_int_equal(ab_journal_append(&fixture->journal, AB_RECORD_COMMIT, fixture->record, size),
                     0);
}

static int found(void *context, const struct ab_disk_record *record, const uint8_t *payload)
{
    struct fixture *fixture = context;
    static uint64_t expected[64];
    const size_t size = numbered(fixture->next, (uint8_t *)expected);
    assert_int_equal(record->size, size);
    assert_memory_equal(payload, expected, size);
    fixture->next++;
    return fixture->stop_with;
}

/* Opens and scans; the number of records found is in fixture->next. */
static int scan(struct fixture *fixture, uint64_t generation, uint64_t synced)
{
    ab_journal_close(&fixture->journal);
    int result = ab_journal_open(&fixture->journal, fixture->os, fixture->dir, 0, store_id,
                                 generation, true);
    fixture->next = 0;
    if (result < 0) {
        return result;
    }
    fixture->journal.synced = synced;
    struct ab_journal_reader reader = {
        .record = found, .context = fixture, .window = fixture->window};
    result = ab_journal_scan(&fixture->journal, fixture->journal.fd, &reader);
    struct stat status;
    assert_int_equal(fstat(fixture->journal.fd, &status), 0);
    fixture->journal.capacity = ab_align_down((uint64_t)status.st_size, AB_PAGE);
    return result;
}

static int journal_fd(struct fixture *fixture)
{
    return fixture->journal.fd;
}

static void what_is_appended_is_found(void **state)
{
    struct fixture *fixture = *state;
    create(fixture, 3, 1);
    for (uint64_t i = 0; i < 500; i++) {
        append(fixture, i);
        if (i % 17 == 0) {
            assert_int_equal(ab_journal_sync(&fixture->journal), 0);
            assert_int_equal(fixture->journal.offset % AB_PAGE, 0);
        }
    }
    const uint64_t offset = fixture->journal.offset;
    assert_int_equal(scan(fixture, 3, 0), 0);
    assert_int_equal(fixture->next, 500);
    assert_int_equal(fixture->journal.sequence, 500);
    assert_int_equal(fixture->journal.offset, ab_align_up(offset, AB_PAGE));
    append(fixture, 500); /* and it goes on */
    assert_int_equal(scan(fixture, 3, 0), 0);
    assert_int_equal(fixture->next, 501);
    fixture->stop_with = -EPROTO;
    assert_int_equal(scan(fixture, 3, 0), -EPROTO);
    assert_int_equal(fixture->next, 1);
}

static int accept_any(void *context, const struct ab_disk_record *record, const uint8_t *payload)
{
    uint64_t *sum = context;
    for (uint32_t i = 0; i < record->size; i++) {
        *sum += payload[i]; /* every byte is inside the window */
    }
    return 0;
}

static void large_records_cross_windows(void **state)
{
    struct fixture *fixture = *state;
    create(fixture, 1, 1);
    uint8_t *payload = fixture->record + sizeof(struct ab_disk_record);
    for (uint64_t i = 0; i < 9; i++) {
        append(fixture, i);
    }
    memset(payload, 0x77, AB_RECORD_PAYLOAD_MAX);
    uint64_t sequence = fixture->journal.sequence;
    for (uint32_t i = 0; i < 5; i++, sequence++) {
        assert_int_equal(ab_journal_reserve(&fixture->journal, AB_RECORD_PAYLOAD_MAX - 8 * i,
                                            AB_JOURNAL_SPARE, fixture->zeroes),
                         0);
        assert_int_equal(ab_journal_append(&fixture->journal, AB_RECORD_COMMIT, fixture->record,
                                           AB_RECORD_PAYLOAD_MAX - 8 * i),
                         0);
        assert_true(fixture->journal.capacity >= fixture->journal.offset + AB_JOURNAL_SPARE);
    }
    ab_journal_close(&fixture->journal);
    assert_int_equal(
        ab_journal_open(&fixture->journal, fixture->os, fixture->dir, 0, store_id, 1, false), 0);
    uint64_t sum = 0;
    struct ab_journal_reader reader = {
        .record = accept_any, .context = &sum, .window = fixture->window};
    assert_int_equal(ab_journal_scan(&fixture->journal, fixture->journal.fd, &reader), 0);
    assert_int_equal(fixture->journal.sequence, sequence);
    assert_true(sum >= UINT64_C(0x77) * 5 * (AB_RECORD_PAYLOAD_MAX - 64));
}

static void every_length_is_a_prefix(void **state)
{
    struct fixture *fixture = *state;
    create(fixture, 1, 1);
    uint64_t ends[20];
    for (uint64_t i = 0; i < 20; i++) {
        append(fixture, i);
        ends[i] = fixture->journal.offset;
    }
    for (uint64_t length = ends[19]; length > AB_PAGE; length -= 4) {
        assert_int_equal(ftruncate(journal_fd(fixture), (off_t)length), 0);
        assert_int_equal(scan(fixture, 1, 0), 0);
        uint64_t whole = 0;
        while (whole < 20 && ends[whole] <= length) {
            whole++;
        }
        assert_int_equal(fixture->next, whole);
    }
    for (uint64_t length = 0; length < AB_PAGE; length += 13) {
        assert_int_equal(ftruncate(journal_fd(fixture), (off_t)length), 0);
        assert_int_equal(scan(fixture, 1, 0), -ABODE_ECORRUPT);
        assert_int_equal(
            ab_journal_create(&fixture->journal, fixture->os, fixture->dir, 0, store_id, 1, 1), 0);
    }
}

/* All durable: each flip is damage, but for one in the last record or in the gaps. */
static void every_flipped_byte_is_damage_or_nothing(void **state)
{
    struct fixture *fixture = *state;
    create(fixture, 1, 1);
    uint64_t starts[6], ends[6];
    for (uint64_t i = 0; i < 6; i++) {
        starts[i] = fixture->journal.offset;
        append(fixture, i);
        ends[i] = fixture->journal.offset;
        if (i % 2 == 1) {
            assert_int_equal(ab_journal_sync(&fixture->journal), 0);
        }
    }
    assert_int_equal(ftruncate(journal_fd(fixture), (off_t)ends[5] + 64), 0); /* read less */
    assert_int_equal(scan(fixture, 1, 6), 0);
    for (uint64_t at = AB_PAGE; at < ends[5] + 64; at++) {
        uint8_t byte = 0;
        assert_int_equal(pread(journal_fd(fixture), &byte, 1, (off_t)at), 1);
        byte ^= (uint8_t)(1u << at % 8);
        assert_int_equal(pwrite(journal_fd(fixture), &byte, 1, (off_t)at), 1);
        uint64_t hit = 6;
        for (uint64_t i = 0; i < 6; i++) {
            hit = at >= starts[i] && at < ends[i] ? i : hit;
        }
        /* with the superblock's word for it, and without */
        const int known = scan(fixture, 1, 6);
        assert_int_equal(known, hit < 6 ? -ABODE_ECORRUPT : 0);
        assert_int_equal(fixture->next, hit);
        const int unknown = scan(fixture, 1, 0);
        assert_int_equal(unknown, hit < 4 ? -ABODE_ECORRUPT : 0); /* 4, 5: nothing came after */
        assert_int_equal(fixture->next, hit);
        byte ^= (uint8_t)(1u << at % 8);
        assert_int_equal(pwrite(journal_fd(fixture), &byte, 1, (off_t)at), 1);
    }
}

static void headers_are_checked(void **state)
{
    struct fixture *fixture = *state;
    create(fixture, 5, 1);
    append(fixture, 0);
    assert_int_equal(scan(fixture, 6, 0), -ESTALE);
    assert_int_equal(scan(fixture, 5, 0), 0);
    for (uint32_t at = 0; at < AB_PAGE; at++) {
        uint8_t byte = 0;
        const int fd = openat(fixture->dir, "journal.a", O_RDWR);
        assert_int_equal(pread(fd, &byte, 1, at), 1);
        byte ^= 0x10;
        assert_int_equal(pwrite(fd, &byte, 1, at), 1);
        assert_true(scan(fixture, 5, 0) < 0);
        byte ^= 0x10;
        assert_int_equal(pwrite(fd, &byte, 1, at), 1);
        (void)close(fd);
    }
    assert_int_equal(renameat(fixture->dir, "journal.a", fixture->dir, "journal.b"), 0);
    ab_journal_close(&fixture->journal);
    assert_int_equal(
        ab_journal_open(&fixture->journal, fixture->os, fixture->dir, 1, store_id, 5, true),
        -ABODE_ECORRUPT);
    assert_int_equal(
        ab_journal_open(&fixture->journal, fixture->os, fixture->dir, 0, store_id, 5, true),
        -ENOENT);
}

/* A power cut: of the pages written since the last sync, any may be old and any new. Then a writer
 * goes on in the next epoch, and another cut follows. All that was synced must be found, nothing
 * that was not appended, and it must never be called damage. */
static void power_cuts_keep_what_was_synced(void **state)
{
    struct fixture *fixture = *state;
    print_message("ABODE_TEST_SEED=%lu\n", (unsigned long)fixture->random);
    const uint32_t rounds = getenv("ABODE_LONG") != NULL ? 2000 : 150;
    const size_t file_bytes = 128u << 10;
    uint8_t *before = test_malloc(file_bytes), *after = test_malloc(file_bytes);
    uint8_t *synced = test_malloc(file_bytes); /* the file as the last sync left it */
    for (uint32_t round = 0; round < rounds; round++) {
        create(fixture, 1, 1);
        assert_int_equal(ftruncate(journal_fd(fixture), (off_t)file_bytes), 0);
        fixture->journal.capacity = file_bytes;
        assert_int_equal(pread(journal_fd(fixture), synced, file_bytes, 0), file_bytes);
        uint64_t count = 0;
        for (uint32_t epoch = 1; epoch <= 4; epoch++) {
            fixture->journal.epoch = epoch;
            for (uint64_t i = random_next(fixture) % 12; i > 0; i--) {
                append(fixture, count++);
            }
            if (random_next(fixture) % 4 != 0) {
                assert_int_equal(ab_journal_sync(&fixture->journal), 0);
            }
            const uint64_t durable = fixture->journal.synced;
            if (durable == count) {
                assert_int_equal(pread(journal_fd(fixture), before, file_bytes, 0), file_bytes);
            } else { /* no sync since the epoch began: all of it may be lost */
                memcpy(before, synced, file_bytes);
            }
            for (uint64_t i = random_next(fixture) % 30; i > 0; i--) {
                append(fixture, count++);
            }
            assert_int_equal(pread(journal_fd(fixture), after, file_bytes, 0), file_bytes);
            for (size_t sector = AB_PAGE; sector < file_bytes; sector += 512) {
                if (random_next(fixture) % 3 == 0) {
                    memcpy(after + sector, before + sector, 512);
                }
            }
            assert_int_equal(pwrite(journal_fd(fixture), after, file_bytes, 0), file_bytes);
            assert_int_equal(scan(fixture, 1, 0), 0);
            assert_in_range(fixture->next, durable, count);
            count = fixture->next;
            assert_int_equal(ab_journal_sync(&fixture->journal), 0); /* as a writer's open does */
            assert_int_equal(pread(journal_fd(fixture), synced, file_bytes, 0), file_bytes);
        }
    }
    test_free(before);
    test_free(after);
    test_free(synced);
}

/* The trap: record n torn, n+1 whole behind it. A new n of the same size must not revive n+1. */
static void leftovers_of_an_earlier_epoch_stay_dead(void **state)
{
    struct fixture *fixture = *state;
    create(fixture, 1, 1);
    append(fixture, 0);
    assert_int_equal(ab_journal_sync(&fixture->journal), 0);
    const uint64_t torn = fixture->journal.offset;
    append(fixture, 1);
    append(fixture, 2);
    append(fixture, 3);
    uint8_t byte = 0xee;
    assert_int_equal(pwrite(journal_fd(fixture), &byte, 1, (off_t)torn + 70), 1);
    assert_int_equal(scan(fixture, 1, 0), 0);
    assert_int_equal(fixture->next, 1);
    assert_int_equal(fixture->journal.offset, torn);
    fixture->journal.epoch = 2;
    append(fixture, 1); /* the same bytes at the same place, but of the next epoch */
    assert_int_equal(scan(fixture, 1, 0), 0);
    assert_int_equal(fixture->next, 2);
}

static void no_room_leaves_everything_as_it_was(void **state)
{
    struct fixture *fixture = *state;
    static const enum ab_os_call calls[] = {AB_OS_FALLOCATE, AB_OS_PWRITE};
    static const int errors[] = {ENOSPC, EDQUOT, EFBIG};
    for (uint32_t i = 0; i < AB_COUNT(calls) * AB_COUNT(errors); i++) {
        const int error = errors[i / AB_COUNT(calls)];
        create(fixture, 1, 1);
        append(fixture, 0);
        const struct ab_journal before = fixture->journal;
        fault_os_plan(&fixture->fault, (struct fault_plan){.call = calls[i % AB_COUNT(calls)],
                                                           .kind = FAULT_ERROR,
                                                           .error = error,
                                                           .sticky = true});
        const int result =
            ab_journal_reserve(&fixture->journal, AB_JOURNAL_GROW, 0, fixture->zeroes);
        assert_int_equal(result, -error);
        assert_true(ab_journal_no_room(result));
        fault_os_clear(&fixture->fault);
        assert_int_equal(fixture->journal.offset, before.offset);
        assert_int_equal(fixture->journal.capacity, before.capacity);
        append(fixture, 1);
        assert_int_equal(scan(fixture, 1, 0), 0);
        assert_int_equal(fixture->next, 2);
    }
    create(fixture, 1, 1);
    fault_os_plan(
        &fixture->fault,
        (struct fault_plan){.call = AB_OS_FALLOCATE, .kind = FAULT_ERROR, .error = EOPNOTSUPP});
    append(fixture, 0); /* the zeroes alone allocate */
    fault_os_clear(&fixture->fault);
    /* a full disk that shows only in a sync is not harmless */
    for (uint32_t i = 0; i < 3; i++) {
        static const int late[] = {ENOSPC, EDQUOT, EIO};
        create(fixture, 1, 1);
        fault_os_clear(&fixture->fault);
        fault_os_plan(
            &fixture->fault,
            (struct fault_plan){.call = AB_OS_FDATASYNC, .kind = FAULT_ERROR, .error = late[i]});
        const int result = ab_journal_reserve(&fixture->journal, AB_COMMIT_BYTES_MAX,
                                              AB_JOURNAL_SPARE, fixture->zeroes);
        assert_int_equal(result, -EIO);
        assert_false(ab_journal_no_room(result));
    }
}

static void read_errors_are_not_the_end(void **state)
{
    struct fixture *fixture = *state;
    create(fixture, 1, 1);
    append(fixture, 0);
    for (uint64_t nth = 1; nth <= 2; nth++) {
        fault_os_plan(&fixture->fault,
                      (struct fault_plan){
                          .call = AB_OS_PREAD, .kind = FAULT_ERROR, .error = EIO, .nth = nth});
        assert_int_equal(scan(fixture, 1, 0), -EIO);
        fault_os_clear(&fixture->fault);
    }
    assert_int_equal(scan(fixture, 1, 0), 0);
    assert_int_equal(fixture->next, 1);
}

/* A record that does not fit what is left of the window is read anew: that read can fail, and can find
 * another size than the first one did, for a writer may be at it. */
static int64_t second_window(struct hook_os *hook, int fd, void *bytes, size_t count,
                             uint64_t offset)
{
    const int *mode = hook->context;
    int64_t result = hook->real->pread(hook->real, fd, bytes, count, offset);
    if (offset > AB_PAGE && *mode != 0) {
        struct ab_disk_record *record = bytes;
        while (record->magic != AB_RECORD_MAGIC) { /* the one that crosses begins in this page */
            record = (void *)((uint8_t *)record + sizeof(uint64_t));
        }
        record->size += *mode == 1 ? sizeof(uint64_t) : 0;
        result = *mode == 2 ? -EIO : *mode == 3 ? 0 : result;
    }
    return result;
}

static void a_record_that_changes_between_two_reads(void **state)
{
    struct fixture *fixture = *state;
    static const int expected[] = {0, 0, -EIO, 0};
    int mode = 0;
    struct hook_os hook;
    hook_os_init(&hook, &mode);
    hook.pread = second_window;
    create(fixture, 1, 1);
    for (uint32_t i = 0; i < 3; i++) { /* the third begins in the first window, and ends past it */
        const size_t size = 3u << 20;
        assert_int_equal(ab_journal_reserve(&fixture->journal, size, 0, fixture->zeroes), 0);
        assert_int_equal(
            ab_journal_append(&fixture->journal, AB_RECORD_COMMIT, fixture->record, size), 0);
    }
    for (; mode < 4; mode++) {
        ab_journal_close(&fixture->journal);
        assert_int_equal(
            ab_journal_open(&fixture->journal, &hook.os, fixture->dir, 0, store_id, 1, false), 0);
        uint64_t sum = 0;
        struct ab_journal_reader reader = {
            .record = accept_any, .context = &sum, .window = fixture->window};
        assert_int_equal(ab_journal_scan(&fixture->journal, fixture->journal.fd, &reader),
                         expected[mode]);
        assert_int_equal(fixture->journal.sequence, mode == 0 ? 3 : 2);
    }
    ab_journal_close(&fixture->journal); /* its table ends here */
}

static void noise_is_survived(void **state)
{
    struct fixture *fixture = *state;
    print_message("ABODE_TEST_SEED=%lu\n", (unsigned long)fixture->random);
    const size_t bytes = 64u << 10;
    uint64_t *noise = test_malloc(bytes);
    for (uint32_t round = 0; round < 200; round++) {
        create(fixture, 1, 1);
        for (size_t i = 0; i < bytes / 8; i++) {
            noise[i] = random_next(fixture);
        }
        /* records that look right but for their hash, with every kind of size */
        for (size_t at = 0; at + sizeof(struct ab_disk_record) <= bytes; at += 512) {
            const struct ab_disk_record record = {.hash = random_next(fixture),
                                                  .magic = AB_RECORD_MAGIC,
                                                  .generation = 1,
                                                  .sequence = 1,
                                                  .epoch = 1,
                                                  .synced = UINT64_MAX,
                                                  .size = (uint32_t)random_next(fixture) & ~7u};
            memcpy((uint8_t *)noise + at, &record, sizeof(record));
        }
        assert_int_equal(pwrite(journal_fd(fixture), noise, bytes, AB_PAGE), bytes);
        uint64_t sum = 0;
        struct ab_journal_reader reader = {
            .record = accept_any, .context = &sum, .window = fixture->window};
        assert_int_equal(ab_journal_scan(&fixture->journal, fixture->journal.fd, &reader), 0);
        assert_int_equal(fixture->journal.sequence, 0);
    }
    test_free(noise);
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(what_is_appended_is_found),
        CASE(large_records_cross_windows),
        CASE(every_length_is_a_prefix),
        CASE(every_flipped_byte_is_damage_or_nothing),
        CASE(headers_are_checked),
        CASE(power_cuts_keep_what_was_synced),
        CASE(leftovers_of_an_earlier_epoch_stay_dead),
        CASE(no_room_leaves_everything_as_it_was),
        CASE(read_errors_are_not_the_end),
        CASE(a_record_that_changes_between_two_reads),
        CASE(noise_is_survived),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
