/*
 * test_recover.c - goal: what a store finds at open and did not write itself (foreign names, files made
 * meanwhile, records with right hashes that say what cannot be, file systems that are full) neither
 * misleads it nor ends it. Method: stores of the small client (store_client.h); a record added to a
 * closed store's journal, with a right hash; answers of the kernel changed by hooks (hook_os.h).
 */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <cmocka.h>

#include "abode/abode.h"
#include "hook_os.h"
#include "store/store_state.h"
#include "store/superblock.h"
#include "store_client.h"

#define SEGMENT_BYTES (1u << 20)

struct fixture {
    struct hook_os hook;
    struct store_client client;
    struct store_test_places places;
    _Atomic uint32_t calls; /* of the hook that the test has set */
    uint64_t room_bytes[2]; /* of the file system of each directory */
};

static int set_up(void **state)
{
    struct fixture *fixture = test_calloc(1, sizeof(*fixture));
    hook_os_init(&fixture->hook, fixture);
    store_client_init(&fixture->client, &fixture->hook.os);
    store_test_places(&fixture->places);
    *state = fixture;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *fixture = *state;
    store_test_remove(fixture->places.root);
    test_free(fixture);
    return 0;
}

static struct ab_store_config config_of(struct fixture *fixture, uint32_t path_count)
{
    return store_client_config(&fixture->client, fixture->places.paths, path_count);
}

static void store_make(struct fixture *fixture, uint32_t path_count, uint32_t keys)
{
    const struct ab_store_config config = config_of(fixture, path_count);
    store_client_open_well(&fixture->client, &config);
    for (uint32_t i = 0; i < keys; i++) {
        assert_int_equal(store_client_put(&fixture->client, i, i + 7, 3, AB_PROMISE_DURABLE), 0);
    }
    store_client_close(&fixture->client);
}

/* Opens again, has so many keys with every byte, closes. */
static void store_has(struct fixture *fixture, uint32_t path_count, uint32_t keys)
{
    const struct ab_store_config config = config_of(fixture, path_count);
    store_client_open_well(&fixture->client, &config);
    for (uint32_t i = 0; i < keys; i++) {
        assert_true(fixture->client.keys[i].present);
    }
    assert_int_equal(store_client_verify(&fixture->client), 0);
    store_client_close(&fixture->client);
}

static void file_make(const struct fixture *fixture, uint32_t directory, const char *name)
{
    char path[256];
    (void)snprintf(path, sizeof(path), "%s/%s", fixture->places.names[directory], name);
    const int fd = open(path, O_CREAT | O_RDWR, 0600);
    assert_true(fd >= 0);
    (void)close(fd);
}

static int record_pass(void *context, const struct ab_disk_record *record, const uint8_t *payload)
{
    (void)context;
    (void)record;
    (void)payload;
    return 0;
}

/* One more record at the end of the journal of a closed store, as whole as any. */
static void record_add(struct fixture *fixture, enum ab_record_kind kind, const void *payload,
                       size_t size)
{
    const struct ab_os *os = ab_os_default();
    struct ab_disk_superblock superblock;
    struct ab_journal journal;
    uint32_t agreeing = 0;
    char path[128];
    (void)snprintf(path, sizeof(path), "%s/superblock", fixture->places.names[0]);
    const int dir = open(fixture->places.names[0], O_RDONLY | O_DIRECTORY);
    const int fd = open(path, O_RDONLY);
    assert_true(dir >= 0 && fd >= 0);
    assert_int_equal(ab_superblock_read(os, fd, &superblock, &agreeing), 0);
    assert_int_equal(ab_journal_open(&journal, os, dir, superblock.journal_name,
                                     superblock.store_id, superblock.journal_generation, true),
                     0);
    struct ab_journal_reader reader = {.record = record_pass,
                                       .window = aligned_alloc(AB_PAGE, AB_JOURNAL_WINDOW)};
    uint8_t *record = test_calloc(1, sizeof(struct ab_disk_record) + size);
    memcpy(record + sizeof(struct ab_disk_record), payload, size);
    assert_int_equal(ab_journal_scan(&journal, journal.fd, &reader), 0);
    assert_int_equal(ab_journal_append(&journal, kind, record, size), 0);
    test_free(record);
    free(reader.window);
    ab_journal_close(&journal);
    (void)close(fd);
    (void)close(dir);
}

static struct ab_disk_segment_entry segment_entry(uint32_t segment, uint32_t generation)
{
    return (struct ab_disk_segment_entry){
        .entry = {.type = AB_ENTRY_SEGMENT, .size = sizeof(struct ab_disk_segment_entry)},
        .segment = segment,
        .generation = generation};
}

/* ---- names ---- */

static void foreign_names_among_segments(void **state)
{
    struct fixture *fixture = *state;
    static const char *const names[] = {
        "segments/0000000",  "segments/000000001", "segments/0000000g", "segments/0000000A",
        "segments/0000000.", "segments/0000000:",  "segments/0000000`", "segments/ffffffff",
        "segments/01000000", "segments/00000003",  "segments/notes"};
    store_make(fixture, 2, 4);
    for (uint32_t i = 0; i < AB_COUNT(names); i++) {
        file_make(fixture, 0, names[i]); /* 3 is odd: the other directory's */
    }
    store_has(fixture, 2, 4);
    const struct ab_store_config config = config_of(fixture, 2);
    store_client_open_well(&fixture->client, &config);
    assert_true(ab_store_segment_count(fixture->client.store) <= 66); /* its own limit and two */
    store_client_close(&fixture->client);
}

/* mmap: the table of segments, between the two looks at their names */
static int map_and_make(struct hook_os *hook, size_t bytes, int protection, int flags, int fd,
                        uint64_t offset, void **ret)
{
    struct fixture *fixture = hook->context;
    if (fixture->calls++ == 0) {
        file_make(fixture, 0, "segments/00000fff");
    }
    return hook->real->mmap(hook->real, bytes, protection, flags, fd, offset, ret);
}

static void a_segment_made_between_two_looks(void **state)
{
    struct fixture *fixture = *state;
    store_make(fixture, 1, 4);
    struct ab_store_config config = config_of(fixture, 1);
    config.read_only = true;
    fixture->hook.mmap = map_and_make;
    store_client_open_well(&fixture->client, &config);
    assert_true(fixture->calls > 0);
    assert_int_equal(store_client_verify(&fixture->client), 0);
    store_client_close(&fixture->client);
}

/* ---- limits ---- */

static int room_tell(struct hook_os *hook, const char *path, struct statvfs *ret)
{
    const struct fixture *fixture = hook->context;
    const int result = hook->real->statvfs(hook->real, path, ret);
    const uint32_t directory = path[strlen(path) - 1] == '1' ? 1 : 0;
    ret->f_frsize = 4096;
    ret->f_bavail = fixture->room_bytes[directory] / 4096;
    ret->f_blocks = UINT64_C(1) << 30;
    return result;
}

/* each directory is a device of its own */
static int device_tell(struct hook_os *hook, int fd, struct stat *ret)
{
    struct fixture *fixture = hook->context;
    const int result = hook->real->fstat(hook->real, fd, ret);
    ret->st_dev += fixture->calls++;
    return result;
}

static void limits_are(struct fixture *fixture, uint64_t bytes_max, uint64_t first, uint64_t second)
{
    struct ab_store_config config = config_of(fixture, 2);
    config.bytes_max = bytes_max;
    store_client_open_well(&fixture->client, &config);
    struct ab_store *store = fixture->client.store;
    assert_int_equal(ab_store_device(store, 0).bytes_total / SEGMENT_BYTES, first);
    assert_int_equal(ab_store_device(store, 1).bytes_total / SEGMENT_BYTES, second);
    store_client_close(&fixture->client);
    store_test_remove(fixture->places.names[0]);
    store_test_remove(fixture->places.names[1]);
}

static void limits_follow_the_room_of_directories(void **state)
{
    struct fixture *fixture = *state;
    fixture->hook.statvfs = room_tell;
    fixture->hook.fstat = device_tell;
    fixture->room_bytes[1] = 100 * SEGMENT_BYTES;
    limits_are(fixture, 8 * SEGMENT_BYTES, 0, 8); /* no room in the first */
    fixture->room_bytes[0] = 3 * SEGMENT_BYTES;
    limits_are(fixture, 16 * SEGMENT_BYTES, 3, 13); /* it has its room, the other the rest */
    limits_are(fixture, 0, 3, 48); /* half of what is free: shared out as evenly as it goes */
    fixture->room_bytes[1] = 0;
    limits_are(fixture, 9 * SEGMENT_BYTES, 6, 3); /* room may come: 3, and half of the 6 others */
    fixture->room_bytes[0] = 0;
    limits_are(fixture, 8 * SEGMENT_BYTES, 4, 4);
    limits_are(fixture, 0, 1, 1);
    fixture->room_bytes[0] = UINT64_MAX; /* of a device that both share: half each */
    fixture->room_bytes[1] = UINT64_MAX;
    fixture->hook.fstat = NULL;
    limits_are(fixture, 9 * SEGMENT_BYTES, 5, 4);
}

static int room_too_large(struct hook_os *hook, const char *path, struct statvfs *ret)
{
    const struct fixture *fixture = hook->context;
    const int result = hook->real->statvfs(hook->real, path, ret);
    ret->f_frsize = 4096;
    ret->f_bavail = fixture->calls == 0 ? UINT64_MAX : 1;
    ret->f_blocks = UINT64_MAX;
    return result;
}

static void room_past_all_numbers(void **state)
{
    struct fixture *fixture = *state;
    const struct ab_store_config config = config_of(fixture, 1);
    fixture->hook.statvfs = room_too_large;
    for (; fixture->calls < 2; fixture->calls++) {
        assert_int_equal(store_client_open(&fixture->client, &config), -EOVERFLOW);
    }
}

/* ---- the journal, beside a writer that moves on ---- */

/* The reader's first tries find no journal, and then a superblock that is being written. */
static int journal_away(struct hook_os *hook, int dir, const char *path, int flags, uint32_t mode)
{
    struct fixture *fixture = hook->context;
    if (strncmp(path, "journal.", 8) == 0 && fixture->calls++ < 3) {
        return fixture->calls == 2 ? -ESTALE : -ENOENT;
    }
    return hook->real->openat(hook->real, dir, path, flags, mode);
}

static int64_t superblock_torn(struct hook_os *hook, int fd, void *bytes, size_t count,
                               uint64_t offset)
{
    const struct fixture *fixture = hook->context;
    const int64_t result = hook->real->pread(hook->real, fd, bytes, count, offset);
    if (fixture->calls == 1 && count == AB_SUPERBLOCK_FILE_BYTES) {
        for (uint32_t i = 0; i < AB_SUPERBLOCK_COPIES; i++) {
            ((uint8_t *)bytes)[i * AB_PAGE + 100] ^= (uint8_t)(i + 1);
        }
    }
    return result;
}

static int64_t superblock_unreadable(struct hook_os *hook, int fd, void *bytes, size_t count,
                                     uint64_t offset)
{
    const struct fixture *fixture = hook->context;
    return fixture->calls == 1 ? -EIO : hook->real->pread(hook->real, fd, bytes, count, offset);
}

static void a_reader_meets_a_writer_that_moves_on(void **state)
{
    struct fixture *fixture = *state;
    store_make(fixture, 1, 4);
    struct ab_store_config config = config_of(fixture, 1);
    config.read_only = true;
    fixture->hook.openat = journal_away;
    fixture->hook.pread = superblock_torn;
    store_client_open_well(&fixture->client, &config);
    assert_int_equal(fixture->calls, 4);
    assert_int_equal(store_client_verify(&fixture->client), 0);
    store_client_close(&fixture->client);
    fixture->calls = 0;
    fixture->hook.pread = superblock_unreadable;
    assert_int_equal(store_client_open(&fixture->client, &config), -EIO);
    fixture->calls = 0; /* a writer is alone: what is missing is missing */
    config.read_only = false;
    assert_int_equal(store_client_open(&fixture->client, &config), -ABODE_ESTORE);
    assert_non_null(strstr(fixture->client.log, "bring the file back from a backup"));
    fixture->hook.openat = NULL;
    fixture->hook.pread = NULL;
    store_has(fixture, 1, 4);
}

/* ---- records that say what cannot be ---- */

static void segments_that_contradict_themselves(void **state)
{
    struct fixture *fixture = *state;
    struct ab_disk_segment_entry bad[3] = {segment_entry(0, 1), segment_entry(0, UINT32_MAX),
                                           segment_entry(AB_STORE_SEGMENTS_MAX, 9)};
    for (uint32_t i = 0; i < AB_COUNT(bad); i++) {
        /* of a segment in use: lower than it was; higher, with live pages */
        store_make(fixture, 1, 4);
        bad[i].segment = i == 2 ? bad[i].segment : fixture->client.keys[0].slot.segment;
        record_add(fixture, i == 2 ? AB_RECORD_CLOSE : AB_RECORD_COMMIT, &bad[i], sizeof(bad[i]));
        const struct ab_store_config config = config_of(fixture, 1);
        assert_int_equal(store_client_open(&fixture->client, &config), -ABODE_ECORRUPT);
        store_test_remove(fixture->places.names[0]);
    }
    store_make(fixture, 1, 4);
    struct {
        struct ab_disk_segment_entry entry;
        uint64_t more;
    } longer = {.entry = segment_entry(9, 1)};
    longer.entry.entry.size = sizeof(longer);
    record_add(fixture, AB_RECORD_COMMIT, &longer, sizeof(longer));
    const struct ab_store_config config = config_of(fixture, 1);
    assert_int_equal(store_client_open(&fixture->client, &config), -ABODE_ECORRUPT);
}

/* The last record is a close: what it says of open segments is a service, and must not be more. */
static void hints_that_lie_are_ignored(void **state)
{
    struct fixture *fixture = *state;
    store_make(fixture, 1, 4);
    struct ab_store_config config = config_of(fixture, 1);
    store_client_open_well(&fixture->client, &config);
    const uint32_t segment = fixture->client.keys[0].slot.segment;
    const uint32_t generation = ab_store_generation(fixture->client.store, segment);
    store_client_close(&fixture->client);
    struct ab_disk_segment_entry hints[140];
    const struct ab_disk_segment_entry good = segment_entry(segment, generation);
    for (uint32_t i = 0; i < AB_COUNT(hints); i++) {
        hints[i] = good;
    }
    hints[0].segment = 60000; /* beyond the table */
    hints[0].used_pages = 9;
    hints[1].stream = AB_STREAM_COUNT;
    hints[1].used_pages = 9;
    hints[2].used_pages = 0;
    hints[3].used_pages = SEGMENT_BYTES / AB_PAGE;
    hints[4].segment = segment + 20; /* not in use */
    hints[4].used_pages = 9;
    record_add(fixture, AB_RECORD_CLOSE, hints, sizeof(hints)); /* more than there can be */
    store_client_open_well(&fixture->client, &config);
    assert_int_equal(store_client_verify(&fixture->client), 0);
    assert_int_equal(ab_store_stats(fixture->client.store).segments_open, 0);
    store_client_close(&fixture->client);
    store_has(fixture, 1, 4);
}

/* Two segments of a stream are open at most: a third hint finds no place. A hint of an earlier life of
 * a segment is none. */
static void hints_beyond_the_open_places(void **state)
{
    struct fixture *fixture = *state;
    struct ab_store_config config = config_of(fixture, 1);
    store_client_open_well(&fixture->client, &config);
    uint32_t segments[4], generations[4], count = 0;
    for (uint32_t key = 0; count < 4; key += 3) { /* of one stream: key % 3 */
        assert_int_equal(store_client_put(&fixture->client, key, key, 16, AB_PROMISE_DURABLE), 0);
        const uint32_t segment = fixture->client.keys[key].slot.segment;
        if (count == 0 || segments[count - 1] != segment) {
            segments[count] = segment;
            generations[count++] = ab_store_generation(fixture->client.store, segment);
        }
    }
    store_client_close(&fixture->client);
    struct ab_disk_segment_entry hints[5];
    for (uint32_t i = 0; i < 4; i++) {
        hints[i] = segment_entry(segments[i], generations[i]);
        hints[i].used_pages = SEGMENT_BYTES / AB_PAGE - 2;
    }
    hints[4] = segment_entry(segments[0], generations[0]); /* said already: it is open by now */
    hints[4].used_pages = 2;
    record_add(fixture, AB_RECORD_CLOSE, hints, sizeof(hints));
    store_client_open_well(&fixture->client, &config);
    assert_int_equal(ab_store_stats(fixture->client.store).segments_open, 2);
    assert_int_equal(store_client_verify(&fixture->client), 0);
    store_client_close(&fixture->client);
}

/* Bug: a segment at the last generation was free again after the next open, and its places got the
 * seeds that they had had. */
static void a_segment_at_its_last_generation_is_not_used_again(void **state)
{
    struct fixture *fixture = *state;
    struct ab_store_config config = config_of(fixture, 1);
    config.bytes_max = 4 * SEGMENT_BYTES;
    store_client_open_well(&fixture->client, &config);
    assert_int_equal(store_client_put(&fixture->client, 0, 1, 3, AB_PROMISE_DURABLE), 0);
    const uint32_t worn = fixture->client.keys[0].slot.segment;
    assert_int_equal(store_client_delete(&fixture->client, 0, AB_PROMISE_DURABLE), 0);
    store_client_close(&fixture->client);
    const struct ab_disk_segment_entry last = segment_entry(worn, UINT32_MAX);
    record_add(fixture, AB_RECORD_COMMIT, &last, sizeof(last));
    for (uint32_t opens = 0; opens < 2; opens++) {
        store_client_open_well(&fixture->client, &config);
        struct ab_store *store = fixture->client.store;
        assert_int_equal(ab_store_generation(store, worn), UINT32_MAX);
        assert_int_equal(ab_store_stats(store).segments_suspect, 1 + opens);
        /* another one has its last life now, and it ends */
        assert_int_equal(store_client_put(&fixture->client, 9, 1, 16, AB_PROMISE_DURABLE), 0);
        const uint32_t segment = fixture->client.keys[9].slot.segment;
        assert_int_not_equal(segment, worn);
        assert_int_equal(ab_store_generation(store, segment), UINT32_MAX);
        ab_lock_take(&store->lock);
        ab_segment_seal(store, segment);
        ab_lock_drop(&store->lock);
        assert_int_equal(store_client_delete(&fixture->client, 9, AB_PROMISE_DURABLE), 0);
        assert_int_equal(store_client_barrier(&fixture->client, AB_PROMISE_DURABLE), 0);
        ab_lock_take(&store->lock);
        atomic_store(&store->tick_durable, atomic_load(&store->tick_appended));
        ab_segments_reclaim(store);
        assert_int_equal(store->segments[segment].state, AB_SEGMENT_BAD);
        ab_lock_drop(&store->lock);
        store_client_close(&fixture->client);
    }
}

/* ---- checkpoints larger than a step ---- */

static void a_checkpoint_of_more_segments_than_a_step_says(void **state)
{
    struct fixture *fixture = *state;
    struct ab_store_config config = config_of(fixture, 1);
    config.bytes_max = UINT64_C(6000) * SEGMENT_BYTES;
    store_make(fixture, 1, 4);
    struct ab_disk_segment_entry *entries = test_calloc(5000, sizeof(*entries));
    for (uint32_t i = 0; i < 5000; i++) {
        entries[i] = segment_entry(i, i < 16 ? 0 : 2); /* 0: lower, so left out below */
    }
    record_add(fixture, AB_RECORD_COMMIT, entries + 16, (5000 - 16) * sizeof(*entries));
    test_free(entries);
    store_client_open_well(&fixture->client, &config);
    assert_int_equal(ab_store_generation(fixture->client.store, 4999), 2);
    ab_store_renew(fixture->client.store);
    assert_int_equal(store_client_barrier(&fixture->client, AB_PROMISE_DURABLE), 0);
    assert_true(fixture->client.checkpoints > 0);
    store_client_close(&fixture->client);
    store_client_open_well(&fixture->client, &config);
    assert_int_equal(ab_store_generation(fixture->client.store, 4999), 2); /* the checkpoint's */
    assert_int_equal(ab_store_generation(fixture->client.store, 4100), 2);
    assert_int_equal(store_client_verify(&fixture->client), 0);
    store_client_close(&fixture->client);
}

#define LONG_STEPS 7u
/* seven steps of a whole MiB that say nothing */
static int64_t say_much(void *context, uint64_t *cursor, void *bytes, size_t capacity)
{
    uint32_t *steps = context;
    memset(bytes, 0, capacity);
    for (size_t at = 0; at < capacity; at += AB_ENTRY_SIZE_MAX) {
        const struct ab_entry entry = {.type = 3, .size = AB_ENTRY_SIZE_MAX};
        memcpy((uint8_t *)bytes + at, &entry, sizeof(entry));
    }
    (*steps)++;
    *cursor = ++*cursor == LONG_STEPS ? UINT64_MAX : *cursor;
    return (int64_t)capacity;
}

static int hear_nothing(void *context, struct ab_store *store, const struct ab_entry *entry)
{
    uint32_t *steps = context;
    (void)store;
    (void)entry;
    (*steps)++;
    return 0;
}

static void a_checkpoint_longer_than_a_sync(void **state)
{
    struct fixture *fixture = *state;
    uint32_t count = 0;
    struct ab_store_config config = config_of(fixture, 1);
    config.client =
        (struct ab_store_client){.context = &count, .replay = hear_nothing, .checkpoint = say_much};
    store_client_open_well(&fixture->client, &config);
    ab_store_renew(fixture->client.store);
    assert_int_equal(store_client_barrier(&fixture->client, AB_PROMISE_DURABLE), 0);
    assert_int_equal(count, LONG_STEPS);
    store_client_close(&fixture->client);
    count = 0;
    store_client_open_well(&fixture->client, &config);
    assert_int_equal(count, LONG_STEPS * (1u << 20) / AB_ENTRY_SIZE_MAX);
    ab_store_fail(fixture->client.store, -EIO, "a test says so");
    ab_store_fail(fixture->client.store, -ENOMEM, "another reason"); /* the first one stays */
    assert_int_equal(atomic_load(&fixture->client.store->failed), -EIO);
    assert_null(strstr(fixture->client.log, "another reason"));
    assert_int_equal(store_client_barrier(&fixture->client, AB_PROMISE_DURABLE), -EROFS);
    store_client_close(&fixture->client);
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(foreign_names_among_segments),
        CASE(a_segment_made_between_two_looks),
        CASE(limits_follow_the_room_of_directories),
        CASE(room_past_all_numbers),
        CASE(a_reader_meets_a_writer_that_moves_on),
        CASE(segments_that_contradict_themselves),
        CASE(hints_that_lie_are_ignored),
        CASE(hints_beyond_the_open_places),
        CASE(a_segment_at_its_last_generation_is_not_used_again),
        CASE(a_checkpoint_of_more_segments_than_a_step_says),
        CASE(a_checkpoint_longer_than_a_sync),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
