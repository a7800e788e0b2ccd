/*
 * test_store_edges.c - goal: the corners of store/ that its other tests do not come to: absurd configs,
 * groups at their limits, commits that name what cannot be named, strange answers of the kernel.
 * Method: the small client (store_client.h); hooks (hook_os.h), of which one holds the committer in a
 * sync while commits pile up. What is asserted is the status of each commit, and every byte after.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <cmocka.h>

#include "abode/abode.h"
#include "hook_os.h"
#include "store/store_state.h"
#include "store/superblock.h"
#include "store_client.h"

#define PILE_MAX 400u

struct fixture {
    struct hook_os hook;
    struct store_client client;
    struct store_test_places places;
    pthread_mutex_t mutex; /* guards the gate */
    pthread_cond_t cond;
    bool is_shut, is_waiting;                             /* fdatasync waits / somebody is there */
    _Atomic int room_error, write_error, sync_open_error; /* what hooks answer; 0: the kernel's */
    _Atomic uint32_t calls;
};
struct pile { /* commits that say nothing, or a FILL each */
    struct ab_commit commits[PILE_MAX];
    int status[PILE_MAX];
    uint32_t done, count;
    pthread_mutex_t mutex;
    pthread_cond_t cond;
};

static int set_up(void **state)
{
    struct fixture *fixture = test_calloc(1, sizeof(*fixture));
    hook_os_init(&fixture->hook, fixture);
    store_client_init(&fixture->client, &fixture->hook.os);
    store_test_places(&fixture->places);
    assert_int_equal(pthread_mutex_init(&fixture->mutex, NULL), 0);
    assert_int_equal(pthread_cond_init(&fixture->cond, NULL), 0);
    *state = fixture;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *fixture = *state;
    store_test_remove(fixture->places.root);
    (void)pthread_cond_destroy(&fixture->cond);
    (void)pthread_mutex_destroy(&fixture->mutex);
    test_free(fixture);
    return 0;
}

static struct ab_store_config config_of(struct fixture *fixture, uint32_t path_count)
{
    return store_client_config(&fixture->client, fixture->places.paths, path_count);
}

static void open_fails(struct fixture *fixture, const struct ab_store_config *config, int expected,
                       const char *line)
{
    assert_int_equal(store_client_open(&fixture->client, config), expected);
    if (strstr(fixture->client.log, line) == NULL) {
        print_message("no '%s' in: %s\n", line, fixture->client.log);
    }
    assert_non_null(strstr(fixture->client.log, line));
}

/* ---- the gate: the committer stays in its sync until it is opened ---- */

static int gate_fdatasync(struct hook_os *hook, int fd)
{
    struct fixture *fixture = hook->context;
    (void)pthread_mutex_lock(&fixture->mutex);
    fixture->is_waiting = fixture->is_shut;
    (void)pthread_cond_broadcast(&fixture->cond);
    while (fixture->is_shut) {
        (void)pthread_cond_wait(&fixture->cond, &fixture->mutex);
    }
    fixture->is_waiting = false;
    (void)pthread_mutex_unlock(&fixture->mutex);
    return hook->real->fdatasync(hook->real, fd);
}

static void pile_done(struct ab_commit *commit, int status)
{
    struct pile *pile = commit->context;
    (void)pthread_mutex_lock(&pile->mutex);
    pile->status[commit - pile->commits] = status;
    pile->done++;
    (void)pthread_cond_broadcast(&pile->cond);
    (void)pthread_mutex_unlock(&pile->mutex);
}

static struct pile *pile_make(void)
{
    struct pile *pile = test_calloc(1, sizeof(*pile));
    assert_int_equal(pthread_mutex_init(&pile->mutex, NULL), 0);
    assert_int_equal(pthread_cond_init(&pile->cond, NULL), 0);
    return pile;
}

static void pile_add(struct pile *pile, struct ab_store *store, const void *entries, size_t size,
                     uint64_t payload_bytes)
{
    struct ab_commit *commit = &pile->commits[pile->count++];
    *commit = (struct ab_commit){.promise = AB_PROMISE_DURABLE,
                                 .entries = entries,
                                 .entries_size = size,
                                 .payload_bytes = payload_bytes,
                                 .done = pile_done,
                                 .context = pile};
    ab_store_commit(store, commit);
}

static void pile_wait(struct pile *pile)
{
    (void)pthread_mutex_lock(&pile->mutex);
    while (pile->done < pile->count) {
        (void)pthread_cond_wait(&pile->cond, &pile->mutex);
    }
    (void)pthread_mutex_unlock(&pile->mutex);
}

static void pile_free(struct pile *pile)
{
    (void)pthread_cond_destroy(&pile->cond);
    (void)pthread_mutex_destroy(&pile->mutex);
    test_free(pile);
}

/* Shut the gate, and bring the committer to it with one commit. */
static void gate_shut(struct fixture *fixture, struct pile *pile, const void *entries, size_t size)
{
    (void)pthread_mutex_lock(&fixture->mutex);
    fixture->is_shut = true;
    (void)pthread_mutex_unlock(&fixture->mutex);
    pile_add(pile, fixture->client.store, entries, size, 0);
    (void)pthread_mutex_lock(&fixture->mutex);
    while (!fixture->is_waiting) {
        (void)pthread_cond_wait(&fixture->cond, &fixture->mutex);
    }
    (void)pthread_mutex_unlock(&fixture->mutex);
}

static void gate_open(struct fixture *fixture)
{
    (void)pthread_mutex_lock(&fixture->mutex);
    fixture->is_shut = false;
    (void)pthread_cond_broadcast(&fixture->cond);
    (void)pthread_mutex_unlock(&fixture->mutex);
}

/* FILL entries, as many as fit */
static uint8_t *fill_make(size_t size)
{
    uint8_t *entries = test_calloc(1, size);
    for (size_t at = 0; at < size;) {
        const struct ab_entry entry = {.type = 3,
                                       .size = (uint32_t)AB_MIN(size - at, AB_ENTRY_SIZE_MAX)};
        memcpy(entries + at, &entry, sizeof(entry));
        at += entry.size;
    }
    return entries;
}

/* ---- configs ---- */

static void configs_that_no_caller_means(void **state)
{
    struct fixture *fixture = *state;
    static const char *const nothing[] = {NULL}, *const empty[] = {""};
    const struct ab_store_config good = config_of(fixture, 1);
    struct ab_store_config bad[9];
    for (uint32_t i = 0; i < AB_COUNT(bad); i++) {
        bad[i] = good;
    }
    bad[0].paths = NULL;
    bad[1].path_count = 0;
    bad[2].path_count = AB_STORE_DEVICES_MAX + 1;
    bad[3].paths = nothing;
    bad[4].paths = empty;
    bad[5].client.checkpoint = NULL;
    bad[6].client.replay = NULL;
    bad[7].segment_bytes = AB_SEGMENT_STEP + 1;
    bad[8].segment_bytes = AB_SEGMENT_BYTES_MAX + AB_SEGMENT_STEP;
    for (uint32_t i = 0; i < AB_COUNT(bad); i++) {
        assert_int_equal(store_client_open(&fixture->client, &bad[i]), -EINVAL);
    }
    assert_int_not_equal(access(fixture->places.names[0], F_OK), 0);
    struct ab_store_config config = good; /* none of its own: by what the store may take */
    config.segment_bytes = 0;
    config.bytes_max = 0;
    store_client_open_well(&fixture->client, &config);
    assert_int_equal(ab_store_segment_bytes(fixture->client.store), 64u << 20);
    store_client_close(&fixture->client);
    config = good; /* a reader says no state */
    config.read_only = true;
    config.client.checkpoint = NULL;
    store_client_open_well(&fixture->client, &config);
    struct ab_store *store = fixture->client.store;
    assert_int_equal(store_client_barrier(&fixture->client, AB_PROMISE_DURABLE), -EROFS);
    assert_int_equal(ab_store_compaction_pick(store, 100, true), AB_INDEX_NONE);
    ab_store_renew(store);
    char path[8];
    assert_int_equal(ab_store_segment_path(store, 0, path, sizeof(path)), -ENAMETOOLONG);
    assert_int_equal(ab_store_segment_path(store, UINT32_MAX, path, sizeof(path)), -EINVAL);
    store_client_close(&fixture->client);
}

/* ---- groups ---- */

static void more_commits_than_a_group_takes(void **state)
{
    struct fixture *fixture = *state;
    struct ab_store_config config = config_of(fixture, 1);
    uint8_t *entries = fill_make(64);
    config.group_bytes = 1000;
    config.group_wait_ns = 1000000;
    fixture->hook.fdatasync = gate_fdatasync;
    store_client_open_well(&fixture->client, &config);
    struct ab_store *store = fixture->client.store;
    struct pile *pile = pile_make();
    gate_shut(fixture, pile, entries, 64);
    const uint64_t groups = ab_store_stats(store).groups;
    for (uint32_t i = 0; i < 300; i++) { /* by their number: 256, and 44 */
        pile_add(pile, store, entries, 64, 0);
    }
    for (uint32_t i = 0; i < 6; i++) { /* by their bytes: two each */
        pile_add(pile, store, entries, 64, 600);
    }
    gate_open(fixture);
    pile_wait(pile);
    for (uint32_t i = 0; i < pile->count; i++) {
        assert_int_equal(pile->status[i], 0);
    }
    assert_in_range(ab_store_stats(store).groups - groups, 4, 8);
    pile_free(pile);
    /* closed while commits wait for company: all of them are heard */
    pile = pile_make();
    gate_shut(fixture, pile, entries, 64);
    for (uint32_t i = 0; i < 300; i++) {
        pile_add(pile, store, entries, 64, 0);
    }
    gate_open(fixture);
    store_client_close(&fixture->client);
    assert_int_equal(pile->done, pile->count);
    for (uint32_t i = 0; i < pile->count; i++) {
        assert_int_equal(pile->status[i], 0);
    }
    pile_free(pile);
    test_free(entries);
    store_client_open_well(&fixture->client, &config);
    assert_int_equal(fixture->client.fills_replayed, 307 + 301);
    store_client_close(&fixture->client);
}

static void more_entries_than_a_record_holds(void **state)
{
    struct fixture *fixture = *state;
    const struct ab_store_config config = config_of(fixture, 1);
    uint8_t *entries = fill_make(AB_COMMIT_BYTES_MAX), *small = fill_make(64);
    fixture->hook.fdatasync = gate_fdatasync;
    store_client_open_well(&fixture->client, &config);
    struct pile *pile = pile_make();
    gate_shut(fixture, pile, small, 64);
    for (uint32_t i = 0; i < 3; i++) {
        pile_add(pile, fixture->client.store, entries, AB_COMMIT_BYTES_MAX, 0);
    }
    gate_open(fixture);
    pile_wait(pile);
    for (uint32_t i = 0; i < pile->count; i++) {
        assert_int_equal(pile->status[i], 0);
    }
    pile_free(pile);
    store_client_close(&fixture->client);
    store_client_open_well(&fixture->client, &config);
    assert_int_equal(fixture->client.fills_replayed,
                     1 + 3 * (AB_COMMIT_BYTES_MAX / AB_ENTRY_SIZE_MAX));
    store_client_close(&fixture->client);
    test_free(small);
    test_free(entries);
}

static int journal_room(struct hook_os *hook, int fd, int mode, uint64_t offset, uint64_t count)
{
    const struct fixture *fixture = hook->context;
    return fixture->room_error != 0 ? fixture->room_error
                                    : hook->real->fallocate(hook->real, fd, mode, offset, count);
}

static int64_t journal_write(struct hook_os *hook, int fd, const void *bytes, size_t count,
                             uint64_t offset)
{
    const struct fixture *fixture = hook->context;
    return fixture->write_error != 0 ? fixture->write_error
                                     : hook->real->pwrite(hook->real, fd, bytes, count, offset);
}

/* One group of which only some have room in the journal: a barrier, one too large, two small ones. The
 * disk's answer to the small ones: none, or an error that is not about room. */
static void a_group_that_has_room_only_in_parts(void **state)
{
    struct fixture *fixture = *state;
    const struct ab_store_config config = config_of(fixture, 1);
    uint8_t *entries = fill_make(AB_COMMIT_BYTES_MAX), *small = fill_make(64);
    static const int errors[] = {0, -EIO};
    for (uint32_t round = 0; round < AB_COUNT(errors); round++) {
        fixture->hook.fdatasync = gate_fdatasync;
        fixture->hook.fallocate = journal_room;
        fixture->hook.pwrite = journal_write;
        store_client_open_well(&fixture->client, &config);
        struct pile *pile = pile_make();
        gate_shut(fixture, pile, small, 64);
        fixture->room_error = -ENOSPC;
        fixture->write_error = errors[round];
        pile_add(pile, fixture->client.store, entries, 0, 0);
        pile_add(pile, fixture->client.store, entries, AB_COMMIT_BYTES_MAX, 0);
        pile_add(pile, fixture->client.store, small, 64, 0);
        pile_add(pile, fixture->client.store, small, 64, 0);
        gate_open(fixture);
        pile_wait(pile);
        assert_int_equal(pile->status[2], -ENOSPC);
        assert_int_equal(pile->status[3], errors[round]);
        assert_int_equal(pile->status[4], errors[round]);
        assert_int_equal(pile->status[1], errors[round]);
        pile_free(pile);
        fixture->room_error = 0;
        fixture->write_error = 0;
        store_client_close(&fixture->client);
        store_client_open_well(&fixture->client, &config);
        assert_int_equal(fixture->client.fills_replayed, round + 3); /* two of the first round */
        store_client_close(&fixture->client);
    }
    test_free(small);
    test_free(entries);
}

/* As above, but the small ones behind it may rely on the one that has no room. */
static void what_relies_on_a_commit_that_failed_fails_too(void **state)
{
    struct fixture *fixture = *state;
    const struct ab_store_config config = config_of(fixture, 1);
    uint8_t *entries = fill_make(AB_COMMIT_BYTES_MAX), *small = fill_make(64);
    fixture->hook.fdatasync = gate_fdatasync;
    fixture->hook.fallocate = journal_room;
    store_client_open_well(&fixture->client, &config);
    struct pile *pile = pile_make();
    gate_shut(fixture, pile, small, 64);
    fixture->room_error = -ENOSPC;
    pile_add(pile, fixture->client.store, small, 64, 0);
    pile_add(pile, fixture->client.store, entries, AB_COMMIT_BYTES_MAX, 0);
    pile->commits[pile->count - 1].relied_on = true; /* the gate is shut: nobody looks yet */
    pile_add(pile, fixture->client.store, small, 64, 0);
    pile_add(pile, fixture->client.store, entries, 0, 0);
    gate_open(fixture);
    pile_wait(pile);
    assert_int_equal(pile->status[1], 0);
    assert_int_equal(pile->status[2], -ENOSPC);
    assert_int_equal(pile->status[3], -ENOSPC);
    assert_int_equal(pile->status[4], -ENOSPC); /* it would promise that what failed is there */
    pile_free(pile);
    fixture->room_error = 0;
    store_client_close(&fixture->client);
    store_client_open_well(&fixture->client, &config);
    assert_int_equal(fixture->client.fills_replayed, 2);
    store_client_close(&fixture->client);
    test_free(small);
    test_free(entries);
}

static void a_renewal_that_fails_says_why(void **state)
{
    struct fixture *fixture = *state;
    const struct ab_store_config config = config_of(fixture, 1);
    fixture->hook.fallocate = journal_room;
    store_client_open_well(&fixture->client, &config);
    struct store_client *client = &fixture->client;
    assert_int_equal(store_client_put(client, 0, 1, 1, AB_PROMISE_DURABLE), 0);
    fixture->room_error = -ENOSPC; /* of the new journal */
    ab_store_renew(client->store);
    assert_int_equal(store_client_delete(client, 0, AB_PROMISE_DURABLE), -ENOSPC);
    fixture->room_error = -EIO;
    assert_int_equal(store_client_delete(client, 0, AB_PROMISE_DURABLE), -EIO);
    fixture->room_error = 0;
    client->checkpoint_error = -ENOMEM; /* the client cannot say it now */
    assert_int_equal(store_client_delete(client, 0, AB_PROMISE_DURABLE), -EIO);
    client->checkpoint_error = 0;
    assert_int_equal(store_client_delete(client, 0, AB_PROMISE_DURABLE), 0);
    store_client_close(client);
}

/* ---- what commits may name ---- */

static int no_more_files(struct hook_os *hook, int dir, const char *path, int flags, uint32_t mode)
{
    const struct fixture *fixture = hook->context;
    const bool is_segment = strlen(path) == 8 && path[0] == '0';
    return fixture->sync_open_error != 0 && is_segment
               ? fixture->sync_open_error
               : hook->real->openat(hook->real, dir, path, flags, mode);
}

static void segments_that_no_commit_may_name(void **state)
{
    struct fixture *fixture = *state;
    const struct ab_store_config config = config_of(fixture, 1);
    struct store_client *client = &fixture->client;
    uint8_t *entries = fill_make(64);
    struct store_client_op op;
    fixture->hook.openat = no_more_files;
    store_client_open_well(&fixture->client, &config);
    for (uint32_t i = 0; i < 3; i++) {
        assert_int_equal(store_client_put(client, i, i, 1, AB_PROMISE_DURABLE), 0);
    }
    assert_int_equal(store_client_entries_of(client, &op, entries, 64, UINT32_MAX), -EINVAL);
    assert_int_equal(store_client_entries_of(client, &op, entries, 64, 60), -EINVAL); /* no file */
    const uint32_t named = client->keys[0].slot.segment, empty = client->keys[1].slot.segment;
    ab_lock_take(&client->store->lock);
    ab_segment_seal(client->store, empty);
    ab_lock_drop(&client->store->lock);
    assert_int_equal(store_client_delete(client, 1, AB_PROMISE_WRITTEN), 0);
    assert_int_equal(client->store->segments[empty].state, AB_SEGMENT_EMPTY);
    assert_int_equal(store_client_entries_of(client, &op, entries, 64, empty), 0);
    store_client_close(client);
    store_client_open_well(&fixture->client, &config); /* no segment has its descriptor yet */
    fixture->sync_open_error = -EMFILE;                /* passes, and has lost nothing */
    assert_int_equal(store_client_entries_of(client, &op, entries, 64, named), -EMFILE);
    assert_non_null(strstr(client->log, "can be tried again"));
    fixture->sync_open_error = 0;
    assert_int_equal(store_client_entries_of(client, &op, entries, 64, named), 0);
    store_client_close(client);
    store_client_open_well(&fixture->client, &config);
    fixture->sync_open_error = -EACCES;
    assert_int_equal(store_client_entries_of(client, &op, entries, 64, named), -EIO);
    fixture->sync_open_error = 0;
    assert_int_equal(store_client_entries_of(client, &op, entries, 64, named), -EIO); /* suspect */
    assert_non_null(strstr(client->log, "no more is written to it"));
    assert_int_equal(store_client_put(client, 5, 1, 1, AB_PROMISE_DURABLE), 0);
    assert_int_equal(ab_segment_fill(client->store, UINT32_MAX), -EINVAL);
    store_client_close(client);
    store_client_open_well(&fixture->client, &config);
    assert_true(client->keys[0].present && client->keys[5].present);
    assert_int_equal(store_client_verify(client), 0);
    store_client_close(client);
    test_free(entries);
}

/* ---- the client's part of an open ---- */

static struct pile *recovered_pile;

static int recovered_and_refused(void *context, struct ab_store *store)
{
    (void)context;
    pile_add(recovered_pile, store, NULL, 0, 0);
    pile_add(recovered_pile, store, NULL, 0, 0);
    return -EPROTO;
}

static void what_was_committed_in_an_open_that_failed_is_heard(void **state)
{
    struct fixture *fixture = *state;
    struct ab_store_config config = config_of(fixture, 1);
    config.client.recovered = recovered_and_refused;
    recovered_pile = pile_make();
    assert_int_equal(store_client_open(&fixture->client, &config), -EPROTO);
    assert_int_equal(recovered_pile->done, 2);
    assert_int_equal(recovered_pile->status[0], -EIO);
    assert_int_equal(recovered_pile->status[1], -EIO);
    pile_free(recovered_pile);
}

/* ---- places ---- */

static void places_near_and_far(void **state)
{
    struct fixture *fixture = *state;
    struct ab_store_config config = config_of(fixture, 2);
    struct ab_extent extent;
    config.bytes_max = 8u << 20;
    store_client_open_well(&fixture->client, &config);
    struct ab_store *store = fixture->client.store;
    store->dirs[0].node = 0;
    store->dirs[1].node = 1;
    for (uint32_t i = 0; i < 6; i++) {
        assert_int_equal(ab_store_reserve(store, AB_STREAM_TAIL, (int32_t)(i % 2), 3, &extent), 0);
        assert_int_equal(extent.device, i % 2);
        ab_store_abandon(store, extent.header, extent.page_count);
    }
    /* compaction keeps to directories that can be written, and takes none that are not */
    atomic_store(&store->dirs[0].read_only, true);
    assert_int_equal(ab_store_reserve(store, AB_STREAM_COMPACT, -1, 3, &extent), 0);
    assert_int_equal(extent.device, 1);
    ab_store_abandon(store, extent.header, extent.page_count);
    assert_true(ab_store_compaction_room(store) > 0);
    for (int result = 0; result == 0;) { /* until nothing is left, the one lent included */
        result = ab_store_reserve(store, AB_STREAM_COMPACT, -1, 253, &extent);
        assert_true(result == 0 || result == -ENOSPC);
        assert_true(result != 0 || extent.device == 1);
    }
    atomic_store(&store->dirs[1].read_only, true);
    assert_int_equal(ab_store_reserve(store, AB_STREAM_COMPACT, -1, 3, &extent), -EROFS);
    assert_int_equal(ab_store_compaction_room(store), 0);
    store_client_close(&fixture->client);
}

static void a_segment_is_emptied_once(void **state)
{
    struct fixture *fixture = *state;
    const struct ab_store_config config = config_of(fixture, 1);
    store_client_open_well(&fixture->client, &config);
    struct ab_store *store = fixture->client.store;
    assert_int_equal(store_client_put(&fixture->client, 0, 1, 3, AB_PROMISE_DURABLE), 0);
    const uint32_t segment = fixture->client.keys[0].slot.segment;
    assert_int_equal(store->segments[segment].state, AB_SEGMENT_OPEN);
    assert_true(ab_store_compaction_take(store, segment));
    assert_int_equal(store->segments[segment].state, AB_SEGMENT_SEALED);
    assert_true(ab_store_compaction_take(store, segment)); /* nothing was moved yet */
    ab_store_compaction_end(store, segment);
    assert_false(ab_store_compaction_take(store, segment)); /* what is left could not be moved */
    store_client_close(&fixture->client);
}

/* A close comes while a file is written full, for want of fallocate. */
static void a_close_does_not_wait_for_a_file_to_be_filled(void **state)
{
    struct fixture *fixture = *state;
    const struct ab_store_config config = config_of(fixture, 1);
    struct ab_extent extent;
    store_client_open_well(&fixture->client, &config);
    struct ab_store *store = fixture->client.store;
    fixture->hook.fallocate = journal_room;
    fixture->room_error = -EOPNOTSUPP;
    ab_lock_take(&store->lock);
    store->prepare_stop = true;
    ab_lock_drop(&store->lock);
    assert_int_equal(ab_store_reserve(store, AB_STREAM_TAIL, -1, 3, &extent), -EIO);
    store_client_close(&fixture->client);
    assert_null(strstr(fixture->client.log, "cannot be made")); /* it could have been */
}

/* ---- strange answers ---- */

static int alignment_tell(struct hook_os *hook, int dir, const char *path, int flags, uint32_t mask,
                          struct statx *ret)
{
    const struct fixture *fixture = hook->context;
    static const uint32_t aligns[] = {0, 512, 8192};
    const int result = hook->real->statx(hook->real, dir, path, flags, mask, ret);
    ret->stx_mask |= STATX_DIOALIGN;
    ret->stx_dio_mem_align = aligns[fixture->calls];
    ret->stx_dio_offset_align = aligns[fixture->calls];
    return result;
}

static void alignments_of_strange_devices(void **state)
{
    struct fixture *fixture = *state;
    const struct ab_store_config config = config_of(fixture, 1);
    fixture->hook.statx = alignment_tell;
    for (; fixture->calls < 3; fixture->calls++) {
        store_client_open_well(&fixture->client, &config);
        const struct ab_store_device device = ab_store_device(fixture->client.store, 0);
        if (fixture->calls != 1) { /* no O_DIRECT, or pages that are larger than ours */
            assert_false(device.direct_io);
            assert_int_equal(device.direct_io_reason, -EOPNOTSUPP);
        }
        assert_int_equal(
            store_client_put(&fixture->client, fixture->calls, 1, 3, AB_PROMISE_DURABLE), 0);
        assert_int_equal(store_client_verify(&fixture->client), 0);
        store_client_close(&fixture->client);
    }
}

/* names of no length: the walk must end */
static int64_t names_without_length(struct hook_os *hook, int fd, void *bytes, size_t count)
{
    struct fixture *fixture = hook->context;
    const int64_t result = hook->real->getdents(hook->real, fd, bytes, count);
    if (result > 0 && fixture->calls++ == 0) {
        ((struct dirent64 *)bytes)->d_reclen = 0;
    }
    return result;
}

static int64_t names_unreadable(struct hook_os *hook, int fd, void *bytes, size_t count)
{
    (void)hook;
    (void)fd;
    (void)bytes;
    (void)count;
    return -EIO;
}

static void directories_that_cannot_be_listed(void **state)
{
    struct fixture *fixture = *state;
    const struct ab_store_config config = config_of(fixture, 1);
    assert_int_equal(mkdir(fixture->places.names[0], 0700), 0);
    fixture->hook.getdents = names_without_length;
    store_client_open_well(&fixture->client,
                           &config); /* an empty directory: what was missed is "." */
    assert_int_equal(store_client_put(&fixture->client, 0, 1, 3, AB_PROMISE_DURABLE), 0);
    store_client_close(&fixture->client);
    fixture->hook.getdents = names_unreadable;
    open_fails(fixture, &config, -EIO, "cannot be read");
    fixture->hook.getdents = NULL;
    store_client_open_well(&fixture->client, &config);
    assert_true(fixture->client.keys[0].present);
    store_client_close(&fixture->client);
}

static int mkdir_forbidden(const struct ab_os *os, int dir, const char *path, uint32_t mode)
{
    (void)os;
    (void)dir;
    (void)path;
    (void)mode;
    return -EACCES;
}

static int mkdir_raced(const struct ab_os *os, int dir, const char *path, uint32_t mode)
{
    const struct ab_os *real = ab_os_default();
    (void)os;
    return real->mkdirat(real, dir, path, mode) < 0 ? -EEXIST : -EEXIST;
}

/* A parent that may be entered but not read; another process that makes the directory first. */
static int parent_closed(struct hook_os *hook, int dir, const char *path, int flags, uint32_t mode)
{
    const struct fixture *fixture = hook->context;
    if (strcmp(path, "..") == 0) {
        return fixture->calls == 0 ? -EACCES : -EIO;
    }
    return hook->real->openat(hook->real, dir, path, flags, mode);
}

static void directories_that_others_own(void **state)
{
    struct fixture *fixture = *state;
    const struct ab_store_config config = config_of(fixture, 1);
    int (*const mkdirat)(const struct ab_os *, int, const char *, uint32_t) =
        fixture->hook.os.mkdirat;
    fixture->hook.os.mkdirat = mkdir_forbidden;
    open_fails(fixture, &config, -EACCES, "make the directory");
    fixture->hook.os.mkdirat = mkdir_raced;
    fixture->hook.openat = parent_closed;
    fixture->calls = 1;
    open_fails(fixture, &config, -EIO, "the store could not be made");
    fixture->calls = 0;
    store_client_open_well(&fixture->client, &config); /* it was being made: making starts over */
    assert_int_equal(store_client_put(&fixture->client, 0, 1, 3, AB_PROMISE_DURABLE), 0);
    fixture->hook.os.mkdirat = mkdirat;
    store_client_close(&fixture->client);
}

/* The superblock was whole when it was looked at, and is not when the store is entered. */
static int64_t torn_when_entered(struct hook_os *hook, int fd, void *bytes, size_t count,
                                 uint64_t offset)
{
    struct fixture *fixture = hook->context;
    const int64_t result = hook->real->pread(hook->real, fd, bytes, count, offset);
    if (count == AB_SUPERBLOCK_FILE_BYTES && ++fixture->calls > 2) { /* looked at twice */
        for (uint32_t i = 0; i < AB_SUPERBLOCK_COPIES; i++) {
            ((uint8_t *)bytes)[i * AB_PAGE + 100] ^= (uint8_t)(i + 1);
        }
    }
    return result;
}

static void a_superblock_that_rots_while_it_is_opened(void **state)
{
    struct fixture *fixture = *state;
    const struct ab_store_config config = config_of(fixture, 1);
    store_client_open_well(&fixture->client, &config);
    assert_int_equal(store_client_put(&fixture->client, 0, 1, 3, AB_PROMISE_DURABLE), 0);
    store_client_close(&fixture->client);
    fixture->hook.pread = torn_when_entered;
    open_fails(fixture, &config, -ABODE_ECORRUPT, "cannot be used");
    fixture->hook.pread = NULL;
    store_client_open_well(&fixture->client, &config);
    assert_int_equal(store_client_verify(&fixture->client), 0);
    store_client_close(&fixture->client);
}

static void directories_that_differ_in_their_segments(void **state)
{
    struct fixture *fixture = *state;
    const struct ab_store_config config = config_of(fixture, 2);
    const struct ab_os *os = ab_os_default();
    struct ab_disk_superblock superblock;
    uint32_t agreeing = 0;
    char path[128];
    store_client_open_well(&fixture->client, &config);
    store_client_close(&fixture->client);
    (void)snprintf(path, sizeof(path), "%s/superblock", fixture->places.names[1]);
    const int fd = open(path, O_RDWR);
    assert_int_equal(ab_superblock_read(os, fd, &superblock, &agreeing), 0);
    superblock.segment_bytes *= 2;
    assert_int_equal(ab_superblock_write(os, fd, &superblock), 0);
    open_fails(fixture, &config, -ABODE_ESTORE, "belongs to another store");
    (void)close(fd);
}

static void a_reader_makes_no_store(void **state)
{
    struct fixture *fixture = *state;
    struct ab_store_config config = config_of(fixture, 1);
    char path[128];
    config.read_only = true; /* and create, which a reader cannot mean */
    assert_int_equal(mkdir(fixture->places.names[0], 0700), 0);
    open_fails(fixture, &config, -ABODE_ESTORE, "is empty");
    (void)snprintf(path, sizeof(path), "%s/creating", fixture->places.names[0]);
    (void)close(open(path, O_CREAT | O_RDWR, 0600));
    open_fails(fixture, &config, -ABODE_ESTORE, "never finished");
    config.read_only = false;
    store_client_open_well(&fixture->client, &config);
    store_client_close(&fixture->client);
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(configs_that_no_caller_means),
        CASE(more_commits_than_a_group_takes),
        CASE(more_entries_than_a_record_holds),
        CASE(a_group_that_has_room_only_in_parts),
        CASE(what_relies_on_a_commit_that_failed_fails_too),
        CASE(a_renewal_that_fails_says_why),
        CASE(segments_that_no_commit_may_name),
        CASE(what_was_committed_in_an_open_that_failed_is_heard),
        CASE(places_near_and_far),
        CASE(a_segment_is_emptied_once),
        CASE(a_close_does_not_wait_for_a_file_to_be_filled),
        CASE(alignments_of_strange_devices),
        CASE(directories_that_cannot_be_listed),
        CASE(directories_that_others_own),
        CASE(a_superblock_that_rots_while_it_is_opened),
        CASE(directories_that_differ_in_their_segments),
        CASE(a_reader_makes_no_store),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
