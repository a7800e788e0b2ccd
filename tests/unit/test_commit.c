/*
 * test_commit.c - goal: `done` with 0 means what was promised, in every order and after every
 * failure; and nobody else pays for one commit's failure. Method: an os table that writes down the
 * order of writes and syncs by file; faults at chosen syncs; many threads against the model.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "abode/abode.h"
#include "fault_os.h"
#include "store/format.h"
#include "store/journal.h"
#include "store_client.h"

#define EVENTS_MAX 256
#define FDS_MAX 1024

enum event { EVENT_DATA_SYNC = 1, EVENT_JOURNAL_WRITE, EVENT_JOURNAL_SYNC, EVENT_OTHER };

struct fixture {
    struct ab_os watch; /* between the real table and the faults: notes events */
    struct fault_os fault;
    struct store_client client;
    char root[64];
    char name[96];
    const char *path;
    pthread_mutex_t mutex;       /* guards all below */
    enum event kind_of[FDS_MAX]; /* by fd: what a sync of it is */
    enum event events[EVENTS_MAX];
    uint32_t event_count;
    uint32_t journal_sync_fails; /* the next so many */
    int data_sync_fails;         /* fd whose syncs fail, 0: none */
    bool journal_opens_fail;     /* for good */
    bool journal_room_fails;     /* for good: the disk is full when the journal grows */
    pthread_mutex_t gate;        /* a sync of the journal passes through it */
    _Atomic uint32_t at_gate;    /* syncs that have come to it */
};

static struct fixture *fixture_of(const struct ab_os *os)
{
    return os->context;
}

static void note(struct fixture *fixture, enum event event)
{
    if (fixture->event_count < EVENTS_MAX) {
        fixture->events[fixture->event_count++] = event;
    }
}

static int watch_openat(const struct ab_os *os, int dir, const char *path, int flags, uint32_t mode)
{
    struct fixture *fixture = fixture_of(os);
    const bool is_journal = strncmp(path, "journal.", 8) == 0;
    (void)pthread_mutex_lock(&fixture->mutex);
    const bool fails = is_journal && fixture->journal_opens_fail;
    (void)pthread_mutex_unlock(&fixture->mutex);
    if (fails) {
        return -EIO;
    }
    const int fd = ab_os_default()->openat(ab_os_default(), dir, path, flags, mode);
    if (fd >= 0 && fd < FDS_MAX) {
        (void)pthread_mutex_lock(&fixture->mutex);
        fixture->kind_of[fd] = is_journal          ? EVENT_JOURNAL_SYNC
                               : strlen(path) == 8 ? EVENT_DATA_SYNC
                                                   : EVENT_OTHER;
        (void)pthread_mutex_unlock(&fixture->mutex);
    }
    return fd;
}

static int64_t watch_pwrite(const struct ab_os *os, int fd, const void *bytes, size_t count,
                            uint64_t offset)
{
    struct fixture *fixture = fixture_of(os);
    (void)pthread_mutex_lock(&fixture->mutex);
    const bool is_record = count < 1u << 20; /* not the zeroes ahead */
    if (fixture->kind_of[fd] == EVENT_JOURNAL_SYNC && is_record) {
        note(fixture, EVENT_JOURNAL_WRITE);
    }
    (void)pthread_mutex_unlock(&fixture->mutex);
    return ab_os_default()->pwrite(ab_os_default(), fd, bytes, count, offset);
}

static int watch_fdatasync(const struct ab_os *os, int fd)
{
    struct fixture *fixture = fixture_of(os);
    (void)pthread_mutex_lock(&fixture->mutex);
    const enum event kind = fixture->kind_of[fd];
    note(fixture, kind);
    const bool journal_fails = kind == EVENT_JOURNAL_SYNC && fixture->journal_sync_fails > 0;
    const bool fail = journal_fails || fd == fixture->data_sync_fails;
    fixture->journal_sync_fails -= journal_fails ? 1 : 0;
    (void)pthread_mutex_unlock(&fixture->mutex);
    if (kind == EVENT_JOURNAL_SYNC) {
        fixture->at_gate++;
        (void)pthread_mutex_lock(&fixture->gate);
        (void)pthread_mutex_unlock(&fixture->gate);
    }
    return fail ? -EIO : ab_os_default()->fdatasync(ab_os_default(), fd);
}

static int watch_fallocate(const struct ab_os *os, int fd, int mode, uint64_t offset,
                           uint64_t count)
{
    struct fixture *fixture = fixture_of(os);
    (void)pthread_mutex_lock(&fixture->mutex);
    const bool fail = fixture->kind_of[fd] == EVENT_JOURNAL_SYNC && fixture->journal_room_fails;
    (void)pthread_mutex_unlock(&fixture->mutex);
    return fail ? -ENOSPC : ab_os_default()->fallocate(ab_os_default(), fd, mode, offset, count);
}

static int set_up(void **state)
{
    struct fixture *fixture = test_calloc(1, sizeof(*fixture));
    fixture->watch = *ab_os_default();
    fixture->watch.context = fixture;
    fixture->watch.openat = watch_openat;
    fixture->watch.pwrite = watch_pwrite;
    fixture->watch.fdatasync = watch_fdatasync;
    fixture->watch.fallocate = watch_fallocate;
    assert_int_equal(pthread_mutex_init(&fixture->gate, NULL), 0);
    assert_int_equal(pthread_mutex_init(&fixture->mutex, NULL), 0);
    fault_os_init(&fixture->fault, &fixture->watch);
    store_client_init(&fixture->client, &fixture->fault.os);
    store_test_directory(fixture->root);
    (void)snprintf(fixture->name, sizeof(fixture->name), "%s/store", fixture->root);
    fixture->path = fixture->name;
    *state = fixture;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *fixture = *state;
    store_test_remove(fixture->root);
    fault_os_free(&fixture->fault);
    (void)pthread_mutex_destroy(&fixture->mutex);
    (void)pthread_mutex_destroy(&fixture->gate);
    test_free(fixture);
    return 0;
}

static void open_ok(struct fixture *fixture)
{
    const struct ab_store_config config = store_client_config(&fixture->client, &fixture->path, 1);
    assert_int_equal(store_client_open(&fixture->client, &config), 0);
}

static void events_clear(struct fixture *fixture)
{
    (void)pthread_mutex_lock(&fixture->mutex);
    fixture->event_count = 0;
    (void)pthread_mutex_unlock(&fixture->mutex);
}

/* reopen; every key must be as it was acknowledged */
static void reopen(struct fixture *fixture)
{
    static struct store_client_key keys[STORE_CLIENT_KEYS];
    store_client_close(&fixture->client);
    memcpy(keys, fixture->client.keys, sizeof(keys));
    open_ok(fixture);
    assert_memory_equal(keys, fixture->client.keys, sizeof(keys));
    assert_int_equal(store_client_verify(&fixture->client), 0);
}

static void bytes_come_before_the_record_that_points_at_them(void **state)
{
    struct fixture *fixture = *state;
    struct store_client *client = &fixture->client;
    open_ok(fixture);
    assert_int_equal(store_client_put(client, 0, 1, 1, AB_PROMISE_DURABLE), 0);
    usleep(20000); /* the preparer's own syncs come now, or later: only order matters below */
    for (uint32_t i = 0; i < 20; i++) {
        events_clear(fixture);
        assert_int_equal(store_client_put(client, i, i, 1, AB_PROMISE_DURABLE), 0);
        (void)pthread_mutex_lock(&fixture->mutex);
        uint32_t data = EVENTS_MAX, record = EVENTS_MAX, journal = EVENTS_MAX;
        for (uint32_t k = 0; k < fixture->event_count; k++) {
            const enum event event = fixture->events[k];
            data = event == EVENT_DATA_SYNC && data == EVENTS_MAX ? k : data;
            record = event == EVENT_JOURNAL_WRITE ? k : record;
            journal = event == EVENT_JOURNAL_SYNC ? k : journal;
        }
        (void)pthread_mutex_unlock(&fixture->mutex);
        assert_true(data < record && record < journal && journal < EVENTS_MAX);
    }
    events_clear(fixture);
    assert_int_equal(store_client_put(client, 1, 7, 1, AB_PROMISE_WRITTEN), 0);
    uint32_t records = 0, syncs = 0;
    (void)pthread_mutex_lock(&fixture->mutex);
    for (uint32_t k = 0; k < fixture->event_count; k++) {
        syncs += fixture->events[k] == EVENT_JOURNAL_SYNC ? 1 : 0;
        records += fixture->events[k] == EVENT_JOURNAL_WRITE ? 1 : 0;
    }
    (void)pthread_mutex_unlock(&fixture->mutex);
    assert_int_equal(records, 1);
    assert_int_equal(syncs, 0); /* nobody asked for it */
    reopen(fixture);
    store_client_close(client);
}

static uint32_t data_syncs_of(struct fixture *fixture)
{
    uint32_t count = 0;
    (void)pthread_mutex_lock(&fixture->mutex);
    for (uint32_t k = 0; k < fixture->event_count; k++) {
        count += fixture->events[k] == EVENT_DATA_SYNC ? 1 : 0;
    }
    (void)pthread_mutex_unlock(&fixture->mutex);
    return count;
}

/* A DURABLE commit that writes nothing itself rests on what was WRITTEN before. Segments of this
 * store are made, and so synced, before. What a killed process left is sim/'s. */
static void what_was_written_is_synced_before_it_is_promised(void **state)
{
    struct fixture *fixture = *state;
    struct store_client *client = &fixture->client;
    open_ok(fixture);
    assert_int_equal(store_client_put(client, 1, 1, 1, AB_PROMISE_WRITTEN), 0);
    usleep(20000); /* the preparer's own syncs */
    events_clear(fixture);
    assert_int_equal(store_client_barrier(client, AB_PROMISE_WRITTEN), 0);
    assert_int_equal(data_syncs_of(fixture), 0);
    assert_int_equal(store_client_barrier(client, AB_PROMISE_DURABLE), 0);
    assert_int_equal(data_syncs_of(fixture), 1);
    assert_int_equal(store_client_barrier(client, AB_PROMISE_DURABLE), 0);
    assert_int_equal(data_syncs_of(fixture), 1); /* once is enough */
    store_client_close(client);
}

static void commits_that_come_during_a_sync_share_the_next(void **state)
{
    struct fixture *fixture = *state;
    struct store_client *client = &fixture->client;
    open_ok(fixture);
    static struct store_client_op ops[64];
    assert_int_equal(store_client_put(client, 0, 1, 1, AB_PROMISE_DURABLE), 0);
    const struct ab_store_stats before = ab_store_stats(client->store);
    fault_os_plan(
        &fixture->fault,
        (struct fault_plan){.call = AB_OS_FDATASYNC, .kind = FAULT_DELAY, .delay_ns = 100000000});
    for (uint32_t i = 0; i < 64; i++) {
        assert_int_equal(store_client_put_begin(client, &ops[i], i, i, 1, AB_PROMISE_DURABLE), 0);
    }
    for (uint32_t i = 0; i < 64; i++) {
        assert_int_equal(store_client_wait(&ops[i]), 0);
    }
    const struct ab_store_stats after = ab_store_stats(client->store);
    assert_int_equal(after.commits - before.commits, 64);
    assert_true(after.groups - before.groups < 32);
    assert_true(after.journal_syncs - before.journal_syncs < 32);
    assert_true(after.data_syncs - before.data_syncs < 32 * AB_STREAM_COUNT);
    fault_os_clear(&fixture->fault);
    reopen(fixture);
    store_client_close(client);
}

static void bad_commits_fail_alone(void **state)
{
    struct fixture *fixture = *state;
    struct store_client *client = &fixture->client;
    open_ok(fixture);
    static struct store_client_op op;
    assert_int_equal(store_client_delete(client, 0, AB_PROMISE_MEM), -EINVAL);
    assert_int_equal(store_client_delete(client, 0, AB_PROMISE_NONE), -EINVAL);
    static uint8_t large[AB_COMMIT_BYTES_MAX + 8];
    for (size_t at = 0; at < sizeof(large); at += 4096) {
        const struct ab_entry fill = {.type = 3,
                                      .size = (uint32_t)AB_MIN(4096, sizeof(large) - at)};
        memcpy(large + at, &fill, sizeof(fill));
    }
    assert_int_equal(store_client_entries(client, &op, large, sizeof(large), 0), -EFBIG);
    assert_int_equal(store_client_entries(client, &op, large, AB_COMMIT_BYTES_MAX, 0), 0);
    assert_int_equal(store_client_entries(client, &op, large, 4000, 0), -EINVAL); /* cut */
    assert_int_equal(store_client_entries(client, &op, large + 8, 4096, 0), -EINVAL);
    assert_int_equal(store_client_entries(client, &op, large, 4096, AB_COMMIT_SEGMENTS_MAX + 1),
                     -EINVAL);
    assert_int_equal(store_client_entries(client, &op, large, 4096, 1), -EINVAL); /* not in use */
    assert_int_equal(store_client_put(client, 3, 3, 1, AB_PROMISE_DURABLE), 0);
    reopen(fixture);
    assert_int_equal(client->fills_replayed, AB_COMMIT_BYTES_MAX / 4096);
    store_client_close(client);
}

static void data_sync_fails_for(struct fixture *fixture, uint32_t segment)
{
    const int fd =
        segment == AB_INDEX_NONE ? 0 : ab_store_segment_fd(fixture->client.store, segment);
    (void)pthread_mutex_lock(&fixture->mutex);
    fixture->data_sync_fails = fd;
    (void)pthread_mutex_unlock(&fixture->mutex);
}

static void a_failed_data_sync_fails_only_who_named_the_segment(void **state)
{
    struct fixture *fixture = *state;
    struct store_client *client = &fixture->client;
    open_ok(fixture);
    assert_int_equal(store_client_put(client, 0, 1, 1, AB_PROMISE_DURABLE), 0); /* stream 0 */
    const uint32_t suspect = client->keys[0].slot.segment;
    assert_int_equal(store_client_put(client, 1, 1, 1, AB_PROMISE_DURABLE), 0);
    data_sync_fails_for(fixture, suspect);
    static struct store_client_op first, second;
    assert_int_equal(store_client_put_begin(client, &first, 3, 9, 1, AB_PROMISE_DURABLE), 0);
    assert_int_equal(store_client_wait(&first), -EIO);
    assert_non_null(strstr(client->log, "sync failed"));
    assert_int_equal(ab_store_stats(client->store).segments_suspect, 1);
    assert_int_equal(ab_store_stats(client->store).sync_failures, 1);
    assert_false(client->keys[3].present);
    assert_false(ab_store_device(client->store, 0).read_only);
    /* named again: no second sync of it, whatever that would say */
    const uint64_t syncs = ab_store_stats(client->store).data_syncs;
    struct ab_entry entry = {.type = 3, .size = 8};
    assert_int_equal(store_client_entries_of(client, &second, &entry, 8, suspect), -EIO);
    assert_int_equal(ab_store_stats(client->store).data_syncs, syncs);
    assert_int_equal(store_client_put(client, 3, 9, 1, AB_PROMISE_DURABLE), 0);
    assert_int_not_equal(client->keys[3].slot.segment, suspect);
    data_sync_fails_for(fixture, client->keys[1].slot.segment);
    assert_int_equal(store_client_put(client, 1, 9, 1, AB_PROMISE_DURABLE), -EIO);
    data_sync_fails_for(fixture, AB_INDEX_NONE);
    assert_true(ab_store_device(client->store, 0).read_only);
    assert_int_equal(store_client_put(client, 5, 9, 1, AB_PROMISE_DURABLE), -EROFS);
    reopen(fixture);
    store_client_close(client);
}

/* A session's rows may have been spilled WRITTEN before; then its DURABLE commit names none of their
 * segments, and rests on them all the same. */
static void a_durable_commit_syncs_what_was_written_before(void **state)
{
    struct fixture *fixture = *state;
    struct store_client *client = &fixture->client;
    open_ok(fixture);
    assert_int_equal(store_client_put(client, 0, 1, 1, AB_PROMISE_WRITTEN), 0);
    const uint64_t syncs = ab_store_stats(client->store).data_syncs;
    assert_int_equal(store_client_barrier(client, AB_PROMISE_WRITTEN), 0);
    assert_int_equal(ab_store_stats(client->store).data_syncs, syncs);
    assert_int_equal(store_client_barrier(client, AB_PROMISE_DURABLE), 0);
    assert_int_equal(ab_store_stats(client->store).data_syncs, syncs + 1);
    assert_int_equal(store_client_barrier(client, AB_PROMISE_DURABLE), 0); /* nothing new */
    assert_int_equal(ab_store_stats(client->store).data_syncs, syncs + 1);
    assert_int_equal(store_client_put(client, 0, 2, 1, AB_PROMISE_WRITTEN), 0);
    data_sync_fails_for(fixture, client->keys[0].slot.segment);
    assert_int_equal(store_client_barrier(client, AB_PROMISE_DURABLE), -EIO);
    data_sync_fails_for(fixture, AB_INDEX_NONE);
    assert_int_equal(store_client_barrier(client, AB_PROMISE_DURABLE), -EIO); /* lost is lost */
    assert_int_equal(store_client_barrier(client, AB_PROMISE_WRITTEN), 0);
    reopen(fixture);
    assert_int_equal(store_client_barrier(client, AB_PROMISE_DURABLE), 0);
    store_client_close(client);
}

static uint32_t checkpoints_while_recovering;

static int recover_slowly(void *context, struct ab_store *store)
{
    const struct store_client *client = context;
    (void)store;
    usleep(30000);
    checkpoints_while_recovering = client->checkpoints;
    return 0;
}

/* One that is due at once must find the client's state, and not what replay has left half done. */
static void no_checkpoint_before_the_client_has_recovered(void **state)
{
    struct fixture *fixture = *state;
    struct store_client *client = &fixture->client;
    open_ok(fixture);
    for (uint32_t i = 0; i < 20; i++) {
        assert_int_equal(store_client_put(client, i, i, 1, AB_PROMISE_DURABLE), 0);
    }
    store_client_close(client);
    struct ab_store_config config = store_client_config(client, &fixture->path, 1);
    config.journal_tail_min = 4096;
    config.client.recovered = recover_slowly;
    client->checkpoints = 0;
    checkpoints_while_recovering = UINT32_MAX;
    assert_int_equal(store_client_open(client, &config), 0);
    assert_int_equal(checkpoints_while_recovering, 0);
    assert_int_equal(store_client_barrier(client, AB_PROMISE_DURABLE), 0);
    assert_int_equal(store_client_verify(client), 0);
    store_client_close(client);
    assert_true(client->checkpoints > 0);
}

static void a_broken_journal_is_replaced(void **state)
{
    struct fixture *fixture = *state;
    struct store_client *client = &fixture->client;
    open_ok(fixture);
    uint64_t failures = 0;
    for (uint32_t i = 0; i < 30; i++) {
        assert_int_equal(store_client_put(client, i % 7, i, 1, AB_PROMISE_DURABLE), 0);
        if (i % 3 == 0) {
            (void)pthread_mutex_lock(&fixture->mutex);
            fixture->journal_sync_fails = 1;
            (void)pthread_mutex_unlock(&fixture->mutex);
            assert_int_equal(store_client_put(client, i % 7, 1000, 1, AB_PROMISE_DURABLE), -EIO);
            assert_int_equal(store_client_delete(client, 6, AB_PROMISE_DURABLE), 0);
            failures++;
            assert_int_equal(ab_store_stats(client->store).sync_failures, failures);
        }
        if (i % 10 == 9) {
            reopen(fixture); /* the failed ones are not there, not even perhaps */
            failures = 0;
        }
    }
    store_client_close(client);
}

static void without_any_journal_nothing_is_acknowledged(void **state)
{
    struct fixture *fixture = *state;
    struct store_client *client = &fixture->client;
    open_ok(fixture);
    for (uint32_t i = 0; i < 10; i++) {
        assert_int_equal(store_client_put(client, i, i, 1, AB_PROMISE_WRITTEN), 0);
    }
    (void)pthread_mutex_lock(&fixture->mutex);
    fixture->journal_sync_fails = 1;
    fixture->journal_opens_fail = true;
    (void)pthread_mutex_unlock(&fixture->mutex);
    assert_int_equal(store_client_put(client, 3, 1000, 1, AB_PROMISE_DURABLE), -EIO);
    assert_int_equal(store_client_delete(client, 2, AB_PROMISE_WRITTEN), -EROFS);
    assert_int_equal(store_client_put(client, 3, 1000, 1, AB_PROMISE_WRITTEN), -EROFS);
    assert_int_equal(store_client_barrier(client, AB_PROMISE_DURABLE), -EROFS);
    assert_non_null(strstr(client->log, "nothing is written any more"));
    (void)pthread_mutex_lock(&fixture->mutex);
    fixture->journal_opens_fail = false;
    (void)pthread_mutex_unlock(&fixture->mutex);
    reopen(fixture);
    store_client_close(client);
}

static void a_full_disk_still_takes_deletes(void **state)
{
    struct fixture *fixture = *state;
    struct store_client *client = &fixture->client;
    open_ok(fixture);
    assert_int_equal(store_client_put(client, 0, 1, 1, AB_PROMISE_DURABLE), 0);
    (void)pthread_mutex_lock(&fixture->mutex);
    fixture->journal_room_fails = true;
    (void)pthread_mutex_unlock(&fixture->mutex);
    int status = 0;
    uint32_t puts = 0;
    for (; status == 0 && puts < 2000; puts++) { /* a page of the journal each */
        status = store_client_put(client, puts % 100, puts, 1, AB_PROMISE_DURABLE);
    }
    assert_int_equal(status, -ENOSPC);
    assert_true(puts > 150);
    for (uint32_t i = 0; i < 40; i++) {
        assert_int_equal(store_client_delete(client, i, AB_PROMISE_DURABLE), 0);
    }
    assert_int_equal(store_client_put(client, 50, 1, 1, AB_PROMISE_DURABLE), -ENOSPC);
    (void)pthread_mutex_lock(&fixture->mutex);
    fixture->journal_room_fails = false;
    (void)pthread_mutex_unlock(&fixture->mutex);
    assert_int_equal(store_client_put(client, 50, 1, 1, AB_PROMISE_DURABLE), 0);
    reopen(fixture);
    store_client_close(client);
}

static void a_client_that_cannot_say_its_state_keeps_the_old_journal(void **state)
{
    struct fixture *fixture = *state;
    struct store_client *client = &fixture->client;
    struct ab_store_config config = store_client_config(client, &fixture->path, 1);
    config.journal_tail_min = 64u << 10;
    assert_int_equal(store_client_open(client, &config), 0);
    client->checkpoint_error = -ENOMEM;
    for (uint32_t i = 0; i < 40; i++) {
        assert_int_equal(store_client_put(client, i, i, 1, AB_PROMISE_WRITTEN), 0);
        assert_int_equal(store_client_fill(client, 8192, AB_PROMISE_WRITTEN), 0);
    }
    assert_int_equal(client->checkpoints, 0);
    assert_non_null(strstr(client->log, "checkpoint could not be written"));
    reopen(fixture);
    assert_true(client->fills_replayed >= 40);
    client->checkpoint_error = 0;
    store_client_close(client);
}

static void key_vanishes(struct store_client *client, uint32_t key)
{
    (void)pthread_mutex_lock(&client->mutex);
    client->keys[key] = (struct store_client_key){.present = false};
    (void)pthread_mutex_unlock(&client->mutex);
    ab_store_renew(client->store);
}

/* A client that lost an entry for lack of memory: no later commit is found without that change. */
static void a_change_that_was_not_said_comes_before_later_commits(void **state)
{
    struct fixture *fixture = *state;
    struct store_client *client = &fixture->client;
    open_ok(fixture);
    for (uint32_t i = 0; i < 4; i++) {
        assert_int_equal(store_client_put(client, i, i, 1, AB_PROMISE_DURABLE), 0);
    }
    key_vanishes(client, 1);
    assert_int_equal(store_client_put(client, 2, 9, 1, AB_PROMISE_DURABLE), 0);
    assert_int_equal(client->checkpoints, 1);
    reopen(fixture);
    assert_false(client->keys[1].present);
    /* not without it, and again as soon as it can be said */
    client->checkpoint_error = -ENOMEM;
    key_vanishes(client, 2);
    assert_int_equal(store_client_put(client, 3, 9, 1, AB_PROMISE_DURABLE), -EIO);
    assert_int_equal(store_client_put(client, 3, 9, 1, AB_PROMISE_WRITTEN), -EIO);
    client->checkpoint_error = 0;
    assert_int_equal(store_client_put(client, 3, 10, 1, AB_PROMISE_WRITTEN), 0);
    reopen(fixture);
    assert_false(client->keys[2].present);
    assert_int_equal(client->keys[3].value, 10);
    store_client_close(client);
}

/* Law 2: hold the journal's sync up; no segment whose drops wait for it may be handed out. */
static void a_segment_is_used_again_only_after_its_drops_are_durable(void **state)
{
    struct fixture *fixture = *state;
    struct store_client *client = &fixture->client;
    struct ab_store_config config = store_client_config(client, &fixture->path, 1);
    config.bytes_max = 4u << 20; /* one of the segments is kept back for compaction */
    assert_int_equal(store_client_open(client, &config), 0);
    uint32_t count = 0;
    int status = 0;
    for (uint32_t tries = 0; tries < 20; tries++) { /* a segment may be in the preparer's hands */
        while ((status = store_client_put(client, count, count, 15, AB_PROMISE_WRITTEN)) == 0) {
            count++;
        }
        assert_int_equal(status, -ENOSPC);
        usleep(5000);
    }
    assert_true(count >= 40);
    const uint32_t generation = ab_store_generation(client->store, 0);
    (void)pthread_mutex_lock(&fixture->gate);
    const uint32_t at_gate = fixture->at_gate;
    static struct store_client_op ops[STORE_CLIENT_KEYS];
    for (uint32_t i = 0; i < count; i++) {
        assert_int_equal(store_client_delete_begin(client, &ops[i], i, AB_PROMISE_WRITTEN), 0);
    }
    for (uint32_t i = 0; fixture->at_gate == at_gate; i++) { /* nobody else asks for a sync */
        assert_true(i < 5000);
        usleep(1000);
    }
    struct ab_extent extent;
    assert_int_equal(ab_store_reserve(client->store, AB_STREAM_SEALED, -1, 200, &extent), -ENOSPC);
    assert_true(ab_store_stats(client->store).segments_free > 0); /* empty, but not durably */
    (void)pthread_mutex_unlock(&fixture->gate);
    for (uint32_t i = 0; i < count; i++) {
        assert_int_equal(store_client_wait(&ops[i]), 0);
    }
    assert_int_equal(store_client_barrier(client, AB_PROMISE_DURABLE), 0);
    assert_int_equal(ab_store_reserve(client->store, AB_STREAM_SEALED, -1, 200, &extent), 0);
    assert_true(extent.generation > generation);
    assert_int_equal(ab_store_generation(client->store, extent.header.segment), extent.generation);
    ab_store_abandon(client->store, extent.header, extent.page_count);
    reopen(fixture);
    store_client_close(client);
}

/* The first commit of a segment finds no room in the journal, the second one does: the generation is
 * still to be said. */
static void a_segment_whose_first_commit_had_no_room_is_found(void **state)
{
    struct fixture *fixture = *state;
    struct store_client *client = &fixture->client;
    open_ok(fixture);
    (void)pthread_mutex_lock(&fixture->mutex);
    fixture->journal_room_fails = true;
    (void)pthread_mutex_unlock(&fixture->mutex);
    int status = 0;
    for (uint32_t i = 0; status == 0 && i < 2000; i++) { /* of one stream */
        status = store_client_put(client, i % 100 * AB_STREAM_COMPACT, i, 1, AB_PROMISE_DURABLE);
    }
    assert_int_equal(status, -ENOSPC);
    assert_int_equal(store_client_put(client, 1, 1, 1, AB_PROMISE_DURABLE), -ENOSPC);
    (void)pthread_mutex_lock(&fixture->mutex);
    fixture->journal_room_fails = false;
    (void)pthread_mutex_unlock(&fixture->mutex);
    assert_int_equal(store_client_put(client, 1, 1, 1, AB_PROMISE_DURABLE), 0);
    reopen(fixture);
    store_client_close(client);
}

/* A sync that failed may have lost what a WRITTEN commit of the same group names. */
static void a_written_commit_shares_the_failure_of_its_segment(void **state)
{
    struct fixture *fixture = *state;
    struct store_client *client = &fixture->client;
    static struct store_client_op first, durable, written;
    open_ok(fixture);
    assert_int_equal(store_client_put(client, 0, 1, 1, AB_PROMISE_DURABLE), 0);
    const uint32_t segment = client->keys[0].slot.segment;
    (void)pthread_mutex_lock(&fixture->gate);
    const uint32_t at_gate = fixture->at_gate;
    assert_int_equal(store_client_put_begin(client, &first, 0, 2, 1, AB_PROMISE_DURABLE), 0);
    for (uint32_t i = 0; fixture->at_gate == at_gate; i++) {
        assert_true(i < 5000);
        usleep(1000);
    }
    data_sync_fails_for(fixture, segment);
    assert_int_equal(
        store_client_put_begin(client, &written, AB_STREAM_COMPACT, 3, 1, AB_PROMISE_WRITTEN), 0);
    assert_int_equal(
        store_client_put_begin(client, &durable, 2 * AB_STREAM_COMPACT, 4, 1, AB_PROMISE_DURABLE),
        0);
    assert_int_equal(written.extent.header.segment, segment);
    assert_int_equal(durable.extent.header.segment, segment);
    (void)pthread_mutex_unlock(&fixture->gate);
    assert_int_equal(store_client_wait(&first), 0);
    assert_int_equal(store_client_wait(&durable), -EIO);
    assert_int_equal(store_client_wait(&written), -EIO);
    data_sync_fails_for(fixture, AB_INDEX_NONE);
    reopen(fixture);
    store_client_close(client);
}

#define THREADS 8u

struct worker {
    struct fixture *fixture;
    uint32_t number;
    uint64_t random;
    pthread_t thread;
    int status;
};

static void *worker_run(void *argument)
{
    struct worker *worker = argument;
    struct store_client *client = &worker->fixture->client;
    for (uint32_t i = 0; i < 120 && worker->status == 0; i++) {
        worker->random = worker->random * UINT64_C(6364136223846793005) + 1442695040888963407u;
        const uint32_t key = worker->number + THREADS * (uint32_t)(worker->random >> 40) % 24;
        const enum ab_promise promise =
            worker->random >> 62 == 0 ? AB_PROMISE_DURABLE : AB_PROMISE_WRITTEN;
        const uint32_t own = key - key % THREADS + worker->number;
        worker->status = (worker->random >> 33) % 5 == 0
                             ? store_client_delete(client, own, promise)
                             : store_client_put(client, own, worker->random,
                                                1 + (worker->random >> 20) % 15, promise);
        if (worker->status == -ENOSPC) { /* for a moment */
            worker->status = 0;
        }
    }
    return NULL;
}

static void many_threads_and_checkpoints(void **state)
{
    struct fixture *fixture = *state;
    struct store_client *client = &fixture->client;
    struct ab_store_config config = store_client_config(client, &fixture->path, 1);
    config.journal_tail_min = 32u << 10;
    const char *text = getenv("ABODE_TEST_SEED");
    const uint64_t seed = text != NULL ? strtoull(text, NULL, 0) : 5;
    print_message("ABODE_TEST_SEED=%lu\n", (unsigned long)seed);
    for (uint32_t round = 0; round < 3; round++) {
        assert_int_equal(store_client_open(client, &config), 0);
        static struct worker workers[THREADS];
        for (uint32_t i = 0; i < THREADS; i++) {
            workers[i] =
                (struct worker){.fixture = fixture, .number = i, .random = seed + i + 100 * round};
            assert_int_equal(pthread_create(&workers[i].thread, NULL, worker_run, &workers[i]), 0);
        }
        for (uint32_t i = 0; i < THREADS; i++) {
            assert_int_equal(pthread_join(workers[i].thread, NULL), 0);
            assert_int_equal(workers[i].status, 0);
        }
        assert_int_equal(store_client_verify(client), 0);
        reopen(fixture);
        store_client_close(client);
    }
    assert_true(client->checkpoints > 0);
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(bytes_come_before_the_record_that_points_at_them),
        CASE(what_was_written_is_synced_before_it_is_promised),
        CASE(commits_that_come_during_a_sync_share_the_next),
        CASE(bad_commits_fail_alone),
        CASE(a_failed_data_sync_fails_only_who_named_the_segment),
        CASE(a_durable_commit_syncs_what_was_written_before),
        CASE(no_checkpoint_before_the_client_has_recovered),
        CASE(a_broken_journal_is_replaced),
        CASE(a_segment_whose_first_commit_had_no_room_is_found),
        CASE(a_written_commit_shares_the_failure_of_its_segment),
        CASE(without_any_journal_nothing_is_acknowledged),
        CASE(a_full_disk_still_takes_deletes),
        CASE(a_client_that_cannot_say_its_state_keeps_the_old_journal),
        CASE(a_change_that_was_not_said_comes_before_later_commits),
        CASE(a_segment_is_used_again_only_after_its_drops_are_durable),
        CASE(many_threads_and_checkpoints),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
