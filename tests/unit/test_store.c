/*
 * test_store.c - goal: a store opens to exactly what was acknowledged, refuses what is not its own
 * without touching it, and recovers from every interruption. Method: a small client with a reference
 * model (store_client.h) through create, commits, checkpoints, reopen; every bad directory by hand;
 * then one canonical workload with every system call failing once and for good, and a child that is
 * killed at every call, whose acknowledgements come through a pipe.
 */
#include "store/store.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "abode/abode.h"
#include "fault_os.h"
#include "store/format.h"
#include "store_client.h"

struct fixture {
    struct fault_os fault;
    struct store_client client;
    struct store_test_places places;
};

static int set_up(void **state)
{
    struct fixture *fixture = test_calloc(1, sizeof(*fixture));
    fault_os_init(&fixture->fault, NULL);
    store_client_init(&fixture->client, &fixture->fault.os);
    store_test_places(&fixture->places);
    *state = fixture;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *fixture = *state;
    store_test_remove(fixture->places.root);
    fault_os_free(&fixture->fault);
    test_free(fixture);
    return 0;
}

static struct ab_store_config config_of(struct fixture *fixture, uint32_t path_count)
{
    return store_client_config(&fixture->client, fixture->places.paths, path_count);
}

static void open_ok(struct fixture *fixture, uint32_t path_count)
{
    const struct ab_store_config config = config_of(fixture, path_count);
    store_client_open_well(&fixture->client, &config);
}

static void open_fails(struct fixture *fixture, uint32_t path_count, int expected, const char *line)
{
    const struct ab_store_config config = config_of(fixture, path_count);
    assert_int_equal(store_client_open(&fixture->client, &config), expected);
    if (strstr(fixture->client.log, line) == NULL) {
        print_message("no '%s' in: %s\n", line, fixture->client.log);
    }
    assert_non_null(strstr(fixture->client.log, line));
}

static void shell(const char *format, ...) __attribute__((format(printf, 1, 2)));
static void shell(const char *format, ...)
{
    char command[512];
    va_list arguments;
    va_start(arguments, format);
    (void)vsnprintf(command, sizeof(command), format, arguments);
    va_end(arguments);
    assert_int_equal(system(command), 0);
}

static void reopen(struct fixture *fixture, uint32_t path_count)
{
    struct store_client_key keys[STORE_CLIENT_KEYS];
    store_client_close(&fixture->client);
    memcpy(keys, fixture->client.keys, sizeof(keys));
    open_ok(fixture, path_count);
    assert_memory_equal(keys, fixture->client.keys, sizeof(keys));
    assert_int_equal(store_client_verify(&fixture->client), 0);
}

/* ---- what is promised ---- */

static void what_was_put_is_there_after_reopen(void **state)
{
    struct fixture *fixture = *state;
    struct store_client *client = &fixture->client;
    open_ok(fixture, 1);
    assert_int_equal(ab_store_stats(client->store).epoch, 1);
    for (uint32_t i = 0; i < 100; i++) {
        assert_int_equal(store_client_put(client, i, i * 11, 1 + i % 8,
                                          i % 2 == 0 ? AB_PROMISE_DURABLE : AB_PROMISE_WRITTEN),
                         0);
    }
    for (uint32_t i = 0; i < 100; i += 3) {
        assert_int_equal(store_client_delete(client, i, AB_PROMISE_WRITTEN), 0);
    }
    for (uint32_t i = 0; i < 100; i += 7) {
        assert_int_equal(store_client_put(client, i, i * 13, 2, AB_PROMISE_DURABLE), 0);
    }
    reopen(fixture, 1);
    const struct ab_store_stats stats = ab_store_stats(client->store);
    assert_int_equal(stats.epoch, 2);
    assert_true(stats.entries_replayed >= 100);
    uint64_t pages = 0;
    for (uint32_t i = 0; i < STORE_CLIENT_KEYS; i++) {
        pages += client->keys[i].present ? client->keys[i].pages : 0;
    }
    assert_int_equal(stats.pages_live, pages);
    reopen(fixture, 1);
    store_client_close(client);
    assert_int_equal(fault_os_allocations(&fixture->fault), 0);
}

static void open_segments_go_on_after_a_clean_close(void **state)
{
    struct fixture *fixture = *state;
    struct store_client *client = &fixture->client;
    open_ok(fixture, 1);
    assert_int_equal(store_client_put(client, 0, 1, 4, AB_PROMISE_DURABLE), 0);
    const struct ab_slot first = client->keys[0].slot;
    for (uint32_t i = 1; i <= 5; i++) {
        reopen(fixture, 1);
        assert_int_equal(store_client_put(client, 3 * i, i, 4, AB_PROMISE_DURABLE), 0);
        assert_int_equal(client->keys[3 * i].slot.segment, first.segment);
        assert_int_equal(client->keys[3 * i].slot.page, first.page + 5 * i);
    }
    store_client_close(client);
}

static void several_directories_share_the_load_in_any_order(void **state)
{
    struct fixture *fixture = *state;
    struct store_client *client = &fixture->client;
    open_ok(fixture, 3);
    uint32_t devices = 0;
    for (uint32_t i = 0; i < 60; i++) {
        assert_int_equal(store_client_put(client, i, i, 3, AB_PROMISE_DURABLE), 0);
        devices |= 1u << ab_store_slot_device(client->store, client->keys[i].slot.segment);
    }
    assert_int_equal(devices, 7);
    const char *first = fixture->places.paths[0];
    fixture->places.paths[0] = fixture->places.paths[2];
    fixture->places.paths[2] = fixture->places.paths[1];
    fixture->places.paths[1] = first;
    reopen(fixture, 3);
    assert_string_equal(ab_store_device(client->store, 0).path, fixture->places.names[0]);
    char path[256];
    assert_true(ab_store_segment_path(client->store, 4, path, sizeof(path)) > 0);
    assert_non_null(strstr(path, "/d1/segments/00000004"));
    assert_int_equal(ab_store_segment_path(client->store, 4, path, 8), -ENAMETOOLONG);
    store_client_close(client);
}

static void checkpoints_move_between_two_journals(void **state)
{
    struct fixture *fixture = *state;
    struct store_client *client = &fixture->client;
    struct ab_store_config config = config_of(fixture, 1);
    config.journal_tail_min = 64u << 10;
    assert_int_equal(store_client_open(client, &config), 0);
    for (uint32_t i = 0; i < 200; i++) {
        assert_int_equal(store_client_put(client, i % 50, i, 1, AB_PROMISE_WRITTEN), 0);
        assert_int_equal(store_client_fill(client, 8192, AB_PROMISE_WRITTEN), 0);
        if (i % 20 == 0) {
            assert_int_equal(store_client_barrier(client, AB_PROMISE_DURABLE), 0);
        }
    }
    assert_true(client->checkpoints >= 5);
    assert_true(ab_store_stats(client->store).checkpoint_bytes > 0);
    assert_true(ab_store_stats(client->store).journal_size < 1u << 20);
    reopen(fixture, 1);
    assert_true(client->fills_replayed < 100);
    store_client_close(client);
}

static void a_reader_sees_what_is_there_and_writes_nothing(void **state)
{
    struct fixture *fixture = *state;
    struct store_client *client = &fixture->client;
    struct ab_store_config config = config_of(fixture, 2);
    config.journal_tail_min = 64u << 10;
    assert_int_equal(store_client_open(client, &config), 0);
    static struct store_client reader;
    store_client_init(&reader, ab_os_default());
    struct ab_store_config reading = store_client_config(&reader, fixture->places.paths, 2);
    reading.read_only = true;
    for (uint32_t i = 0; i < 60; i++) { /* beside the writer, through its checkpoints */
        assert_int_equal(store_client_put(client, i, i + 5, 2, AB_PROMISE_WRITTEN), 0);
        assert_int_equal(store_client_fill(client, 8192, AB_PROMISE_WRITTEN), 0);
        assert_int_equal(store_client_open(&reader, &reading), 0);
        assert_memory_equal(reader.keys, client->keys, sizeof(reader.keys));
        assert_int_equal(store_client_verify(&reader), 0);
        struct ab_extent extent;
        assert_int_equal(ab_store_reserve(reader.store, AB_STREAM_TAIL, -1, 1, &extent), -EROFS);
        assert_int_equal(store_client_delete(&reader, 0, AB_PROMISE_WRITTEN), -EROFS);
        assert_true(ab_store_device(reader.store, 0).read_only);
        store_client_close(&reader);
    }
    assert_true(client->checkpoints > 0);
    store_client_close(client);
}

/* ---- what is refused ---- */

static void two_writers_are_refused(void **state)
{
    struct fixture *fixture = *state;
    open_ok(fixture, 2);
    static struct store_client second;
    store_client_init(&second, ab_os_default());
    const struct ab_store_config config = store_client_config(&second, fixture->places.paths, 2);
    assert_int_equal(store_client_open(&second, &config), -ABODE_ELOCKED);
    assert_non_null(strstr(second.log, "in use by another process"));
    const pid_t child = fork();
    if (child == 0) {
        _exit(store_client_open(&second, &config) == -ABODE_ELOCKED ? 0 : 1);
    }
    int status = 0;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
    store_client_close(&fixture->client);
    assert_int_equal(store_client_open(&second, &config), 0);
    store_client_close(&second);
}

static void absurd_configs_are_refused(void **state)
{
    struct fixture *fixture = *state;
    struct store_client *client = &fixture->client;
    struct ab_store_config config = config_of(fixture, 0);
    assert_int_equal(store_client_open(client, &config), -EINVAL);
    config = config_of(fixture, AB_STORE_DEVICES_MAX + 1);
    assert_int_equal(store_client_open(client, &config), -EINVAL);
    config = config_of(fixture, 1);
    config.segment_bytes = 4096;
    assert_int_equal(store_client_open(client, &config), -EINVAL);
    config.segment_bytes = AB_SEGMENT_BYTES_MAX + AB_SEGMENT_STEP;
    assert_int_equal(store_client_open(client, &config), -EINVAL);
    config = config_of(fixture, 1);
    config.client.replay = NULL;
    assert_int_equal(store_client_open(client, &config), -EINVAL);
    config = config_of(fixture, 1);
    config.bytes_max = 1000;
    assert_int_equal(store_client_open(client, &config), -EINVAL);
    assert_non_null(strstr(client->log, "less than one segment"));
    assert_int_equal(fault_os_allocations(&fixture->fault), 0);
}

static void directories_that_are_not_the_store_are_left_alone(void **state)
{
    struct fixture *fixture = *state;
    struct store_client *client = &fixture->client;
    const char *root = fixture->places.root;
    struct ab_store_config config = config_of(fixture, 1);
    config.create = false;
    assert_int_equal(store_client_open(client, &config), -ENOENT);
    assert_non_null(strstr(client->log, "cannot be opened"));
    shell("mkdir %s/d0", root);
    assert_int_equal(store_client_open(client, &config), -ABODE_ESTORE);
    assert_non_null(strstr(client->log, "is empty"));
    shell("test -z \"$(ls -A %s/d0)\"", root);
    shell("echo hello >%s/d0/letter.txt", root);
    open_fails(fixture, 1, -ABODE_ESTORE, "not a store and not empty");
    shell("test \"$(ls -A %s/d0)\" = letter.txt", root);
    shell("rm %s/d0/letter.txt", root);
    shell("echo x >%s/file; rmdir %s/d0; ln -s %s/file %s/d0", root, root, root, root);
    open_fails(fixture, 1, -ENOTDIR, "cannot be opened");
    shell("rm %s/d0", root);
    /* a store without its superblock is not made anew over its segments */
    open_ok(fixture, 1);
    assert_int_equal(store_client_put(client, 1, 1, 1, AB_PROMISE_DURABLE), 0);
    store_client_close(client);
    shell("mv %s/d0/superblock %s/kept && ls -R %s/d0 >%s/before", root, root, root, root);
    open_fails(fixture, 1, -ABODE_ESTORE, "superblock is missing");
    shell("ls -R %s/d0 | cmp - %s/before", root, root);
    shell("mv %s/kept %s/d0/superblock", root, root);
    open_ok(fixture, 1);
    assert_int_equal(store_client_verify(client), 0);
    store_client_close(client);
    shell("echo note >%s/d0/note.txt", root); /* of no concern to a store */
    open_ok(fixture, 1);
    store_client_close(client);
    assert_int_equal(fault_os_allocations(&fixture->fault), 0);
}

static void sets_of_directories_must_be_whole(void **state)
{
    struct fixture *fixture = *state;
    struct store_client *client = &fixture->client;
    const char *root = fixture->places.root;
    fixture->places.paths[1] = fixture->places.paths[0];
    open_fails(fixture, 2, -ABODE_ESTORE, "are the same directory");
    shell("mkdir -p %s/d0; ln -s d0 %s/alias", root, root);
    char alias[96];
    (void)snprintf(alias, sizeof(alias), "%s/alias", root);
    fixture->places.paths[1] = alias;
    open_fails(fixture, 2, -ABODE_ESTORE, "are the same directory");
    fixture->places.paths[1] = fixture->places.names[1];
    open_ok(fixture, 2);
    store_client_close(client);
    open_fails(fixture, 1, -ABODE_ESTORE, "has 2 directories, 1 were given");
    open_fails(fixture, 3, -ABODE_ESTORE, "is empty, but other directories");
    shell("cp -r %s/d0 %s/copy", root, root);
    char copy[96];
    (void)snprintf(copy, sizeof(copy), "%s/copy", root);
    fixture->places.paths[1] = copy;
    open_fails(fixture, 2, -ABODE_ESTORE, "is a copy of another directory");
    fixture->places.paths[0] = fixture->places.names[2];
    open_ok(fixture, 1); /* another store */
    store_client_close(client);
    fixture->places.paths[0] = fixture->places.names[0];
    fixture->places.paths[1] = fixture->places.names[2];
    open_fails(fixture, 2, -ABODE_ESTORE, "belongs to another store");
    fixture->places.paths[1] = fixture->places.names[1];
    open_ok(fixture, 2);
    store_client_close(client);
    shell("mv %s/d1/segments %s/kept", root, root);
    open_fails(fixture, 2, -ABODE_ESTORE, "bring it back");
    shell("mv %s/kept %s/d1/segments; mv %s/d0/journal.a %s/kept", root, root, root, root);
    open_fails(fixture, 2, -ABODE_ESTORE, "journal");
    shell("mv %s/kept %s/d0/journal.a", root, root);
    open_ok(fixture, 2);
    store_client_close(client);
}

static void a_directory_that_cannot_be_written_opens_read_only(void **state)
{
    struct fixture *fixture = *state;
    struct store_client *client = &fixture->client;
    open_ok(fixture, 1);
    assert_int_equal(store_client_put(client, 1, 1, 1, AB_PROMISE_DURABLE), 0);
    store_client_close(client);
    static const int errors[] = {EROFS, EACCES};
    for (uint32_t i = 0; i < AB_COUNT(errors); i++) {
        /* calls of open: the directory, its names, the superblock, then the lock */
        fault_os_plan(&fixture->fault,
                      (struct fault_plan){
                          .call = AB_OS_OPENAT, .kind = FAULT_ERROR, .nth = 4, .error = errors[i]});
        open_fails(fixture, 1, -errors[i], "open the store read-only");
        fault_os_clear(&fixture->fault);
    }
    shell("chmod -R a-w %s/d0", fixture->places.root);
    struct ab_store_config config = config_of(fixture, 1);
    config.read_only = true;
    assert_int_equal(store_client_open(client, &config), 0);
    assert_int_equal(store_client_verify(client), 0);
    assert_true(client->keys[1].present);
    store_client_close(client);
    shell("chmod -R u+w %s/d0", fixture->places.root);
}

static void another_version_is_named(void **state)
{
    struct fixture *fixture = *state;
    open_ok(fixture, 1);
    store_client_close(&fixture->client);
    char path[128];
    (void)snprintf(path, sizeof(path), "%s/superblock", fixture->places.names[0]);
    struct ab_disk_superblock superblock;
    const int fd = open(path, O_RDWR);
    assert_int_equal(pread(fd, &superblock, sizeof(superblock), 0), sizeof(superblock));
    const struct ab_disk_superblock good = superblock;
    for (uint32_t kind = 0; kind < 3; kind++) {
        superblock = good;
        superblock.version += kind == 0 ? 1 : 0;
        superblock.features.refuse = kind == 1 ? 1 : 0;
        superblock.features.read_only = kind == 2 ? 1 : 0;
        superblock.hash = ab_hash64((uint8_t *)&superblock + 8, sizeof(superblock) - 8, 0);
        for (uint32_t i = 0; i < AB_SUPERBLOCK_COPIES; i++) {
            assert_int_equal(pwrite(fd, &superblock, sizeof(superblock), (off_t)i * AB_PAGE),
                             sizeof(superblock));
        }
        open_fails(fixture, 1, -ABODE_EFORMAT, "version");
    }
    struct ab_store_config config = config_of(fixture, 1);
    config.read_only = true;
    assert_int_equal(store_client_open(&fixture->client, &config), 0);
    store_client_close(&fixture->client);
    (void)close(fd);
}

static void damage_in_the_journal_is_told(void **state)
{
    struct fixture *fixture = *state;
    struct store_client *client = &fixture->client;
    open_ok(fixture, 1);
    for (uint32_t i = 0; i < 10; i++) {
        assert_int_equal(store_client_put(client, i, i, 1, AB_PROMISE_DURABLE), 0);
    }
    store_client_close(client);
    char path[128];
    (void)snprintf(path, sizeof(path), "%s/journal.a", fixture->places.names[0]);
    const int fd = open(path, O_RDWR);
    const off_t at = 4096 * 5 + 80; /* each durable commit begins a page */
    uint8_t byte = 0;
    assert_int_equal(pread(fd, &byte, 1, at), 1);
    byte ^= 1;
    assert_int_equal(pwrite(fd, &byte, 1, at), 1);
    open_fails(fixture, 1, -ABODE_ECORRUPT, "entries that had been durable are lost");
    struct ab_store_config config = config_of(fixture, 1);
    config.read_only = true;
    assert_int_equal(store_client_open(client, &config), 0);
    assert_true(client->keys[0].present);
    assert_false(client->keys[9].present);
    assert_int_equal(store_client_verify(client), 0);
    store_client_close(client);
    byte ^= 1;
    assert_int_equal(pwrite(fd, &byte, 1, at), 1);
    /* the last record as well: the superblock knows that it was durable */
    struct stat status;
    assert_int_equal(fstat(fd, &status), 0);
    uint8_t *bytes = test_malloc((size_t)status.st_size);
    assert_int_equal(pread(fd, bytes, (size_t)status.st_size, 0), status.st_size);
    off_t last = status.st_size - 1;
    while (bytes[last] == 0) {
        last--;
    }
    bytes[last] ^= 1;
    assert_int_equal(pwrite(fd, bytes + last, 1, last), 1);
    open_fails(fixture, 1, -ABODE_ECORRUPT, "entries that had been durable are lost");
    test_free(bytes);
    (void)close(fd);
}

static void a_missing_segment_loses_only_what_was_in_it(void **state)
{
    struct fixture *fixture = *state;
    struct store_client *client = &fixture->client;
    open_ok(fixture, 1);
    for (uint32_t i = 0; i < 120; i++) {
        assert_int_equal(store_client_put(client, i, i, 8, AB_PROMISE_DURABLE), 0);
    }
    const uint32_t victim = client->keys[0].slot.segment;
    const uint32_t generation = ab_store_generation(client->store, victim);
    store_client_close(client);
    shell("rm %s/segments/%08x", fixture->places.names[0], victim);
    open_ok(fixture, 1);
    assert_non_null(strstr(client->log, "1 segment files are missing"));
    for (uint32_t i = 0; i < 120; i++) {
        assert_true(client->keys[i].present);
        assert_int_equal(client->keys[i].lost, client->keys[i].slot.segment == victim);
        if (client->keys[i].lost) {
            assert_int_equal(store_client_delete(client, i, AB_PROMISE_DURABLE), 0);
        }
    }
    assert_int_equal(store_client_verify(client), 0);
    for (uint32_t i = 0; i < 120; i++) { /* its number comes back, with a higher generation */
        assert_int_equal(store_client_put(client, 200 + i, i, 8, AB_PROMISE_DURABLE), 0);
        if (client->keys[200 + i].slot.segment == victim) {
            assert_true(client->keys[200 + i].generation > generation);
        }
    }
    reopen(fixture, 1);
    store_client_close(client);
}

/* ---- interrupted at every call ---- */

#define STEPS 36u

/* One step of the canonical workload; what it acknowledges is in client->keys. */
static int step(struct store_client *client, uint32_t i)
{
    const enum ab_promise promise = i % 3 == 0 ? AB_PROMISE_DURABLE : AB_PROMISE_WRITTEN;
    switch (i % 6) {
    case 4:
        return store_client_delete(client, i / 2 % 16, promise);
    case 5:
        return store_client_fill(client, 24u << 10, promise);
    default:
        return store_client_put(client, i * 5 % 16, i + 1000, 1 + i % 15, promise);
    }
}

static uint32_t step_key(uint32_t i)
{
    return i % 6 == 4 ? i / 2 % 16 : i % 6 == 5 ? STORE_CLIENT_KEYS - 1 : i * 5 % 16;
}

/* A commit that failed may be found later only if the disk took nothing any more, not even a new
 * journal or the cut that takes it back. */
static bool was_attempted(const struct store_client_key *key, uint64_t steps)
{
    for (uint32_t i = 0; i < STEPS; i++) {
        if ((steps & (UINT64_C(1) << i)) != 0 &&
            (i % 6 == 4 ? !key->present : key->present && key->value == i + 1000)) {
            return true;
        }
    }
    return false;
}

static struct ab_store_config workload_config(struct fixture *fixture)
{
    struct ab_store_config config = config_of(fixture, 2);
    config.journal_tail_min = 64u << 10;
    config.bytes_max = 16u << 20;
    return config;
}

static bool key_equals(const struct store_client_key *a, const struct store_client_key *b)
{
    return a->present == b->present && (!a->present || a->value == b->value);
}

/* Run the workload with a plan; then all that was acknowledged must be there, and be right. */
static uint64_t fault_round(struct fixture *fixture, struct fault_plan plan)
{
    struct store_client *client = &fixture->client;
    const struct ab_store_config config = workload_config(fixture);
    static struct store_client_key acked[STORE_CLIENT_KEYS];
    memset(acked, 0, sizeof(acked));
    uint64_t attempted[STORE_CLIENT_KEYS] = {0}; /* steps that failed, a bit each */
    fault_os_plan(&fixture->fault, plan);
    const int opened = store_client_open(client, &config);
    for (uint32_t i = 0; i < STEPS && opened == 0; i++) {
        const int status = step(client, i);
        if (status != 0) {
            attempted[step_key(i)] |= UINT64_C(1) << i;
        }
    }
    if (opened == 0) {
        memcpy(acked, client->keys, sizeof(acked));
        store_client_close(client);
    }
    const uint64_t strikes = fault_os_strikes(&fixture->fault);
    const enum ab_os_call struck = fault_os_struck(&fixture->fault);
    fault_os_clear(&fixture->fault);
    if (store_client_open(client, &config) != 0 || store_client_verify(client) != 0) {
        print_message("%s #%lu error %d sticky %d\n%s", ab_os_call_name(struck),
                      (unsigned long)plan.nth, plan.error, plan.sticky, client->log);
        fail();
    }
    for (uint32_t i = 0; i < STORE_CLIENT_KEYS; i++) {
        const bool may_differ = plan.sticky && was_attempted(&client->keys[i], attempted[i]);
        if (!key_equals(&acked[i], &client->keys[i]) && !may_differ) {
            print_message("%s #%lu error %d sticky %d: key %u: %d %lu, found %d %lu\n%s",
                          ab_os_call_name(struck), (unsigned long)plan.nth, plan.error, plan.sticky,
                          i, acked[i].present, (unsigned long)acked[i].value,
                          client->keys[i].present, (unsigned long)client->keys[i].value,
                          client->log);
            fail();
        }
    }
    assert_int_equal(store_client_put(client, 99, 1, 1, AB_PROMISE_DURABLE), 0);
    store_client_close(client);
    assert_int_equal(fault_os_allocations(&fixture->fault), 0);
    store_test_remove(fixture->places.names[0]);
    store_test_remove(fixture->places.names[1]);
    return strikes;
}

/* The short run takes some of the calls; ABODE_LONG=1 takes all. test timeout: 900 s */
static uint64_t stride(void)
{
    const char *sanitizer = getenv("ABODE_SANITIZE");
    const bool is_slow = sanitizer != NULL && sanitizer[0] != '\0';
    return getenv("ABODE_LONG") != NULL ? 1 : is_slow ? 11 : 3;
}

static void every_call_fails(struct fixture *fixture, int error, bool sticky)
{
    const uint64_t by = error == EIO && !sticky ? (stride() + 2) / 3 : stride();
    for (uint64_t nth = 1;; nth += by) {
        if (fault_round(fixture, (struct fault_plan){.call = FAULT_ANY_CALL,
                                                     .kind = FAULT_ERROR,
                                                     .nth = nth,
                                                     .error = error,
                                                     .sticky = sticky}) == 0) {
            print_message("calls failed in turn up to %lu, by %lu\n", (unsigned long)(nth - 1),
                          (unsigned long)by);
            return;
        }
    }
}

static void every_call_fails_once_with_eio(void **state)
{
    every_call_fails(*state, EIO, false);
}

static void every_call_fails_for_good_with_eio(void **state)
{
    every_call_fails(*state, EIO, true);
}

static void every_call_fails_once_with_enospc(void **state)
{
    every_call_fails(*state, ENOSPC, false);
}

static void every_call_fails_for_good_with_enospc(void **state)
{
    every_call_fails(*state, ENOSPC, true);
}

static void every_transfer_is_cut_short(void **state)
{
    struct fixture *fixture = *state;
    for (uint64_t nth = 1;; nth += stride()) {
        if (fault_round(fixture, (struct fault_plan){.call = FAULT_ANY_CALL,
                                                     .kind = FAULT_SHORT,
                                                     .nth = nth}) == 0) {
            print_message("%lu transfers cut in turn\n", (unsigned long)(nth - 1));
            return;
        }
    }
}

struct ack {
    uint32_t step;
    int32_t status;
};

/* Child: the workload with a kill in it; each step's end goes through the pipe. */
static void child_run(struct fixture *fixture, struct fault_plan plan, int pipe_fd)
{
    struct store_client *client = &fixture->client;
    const struct ab_store_config config = workload_config(fixture);
    fault_os_plan(&fixture->fault, plan);
    if (store_client_open(client, &config) != 0) {
        _exit(2);
    }
    for (uint32_t i = 0; i < STEPS; i++) {
        const struct ack ack = {.step = i, .status = step(client, i)};
        if (write(pipe_fd, &ack, sizeof(ack)) != sizeof(ack)) {
            _exit(3);
        }
    }
    store_client_close(client);
    _exit(0);
}

/* What the keys must be after the first `steps` steps. */
static void model_run(struct store_client_key *keys, uint32_t steps)
{
    memset(keys, 0, sizeof(*keys) * STORE_CLIENT_KEYS);
    for (uint32_t i = 0; i < steps; i++) {
        if (i % 6 == 4) {
            keys[i / 2 % 16].present = false;
        } else if (i % 6 != 5) {
            keys[i * 5 % 16] = (struct store_client_key){.present = true, .value = i + 1000};
        }
    }
}

static bool keys_equal(const struct store_client_key *a, const struct store_client_key *b)
{
    for (uint32_t i = 0; i < STORE_CLIENT_KEYS; i++) {
        if (!key_equals(&a[i], &b[i])) {
            return false;
        }
    }
    return true;
}

/* True while the kill struck. */
static bool kill_round(struct fixture *fixture, struct fault_plan plan)
{
    int ends[2];
    assert_int_equal(pipe(ends), 0);
    const pid_t child = fork();
    if (child == 0) {
        child_run(fixture, plan, ends[1]);
    }
    (void)close(ends[1]);
    uint32_t acked = 0;
    struct ack ack;
    while (read(ends[0], &ack, sizeof(ack)) == sizeof(ack)) {
        assert_int_equal(ack.status, 0);
        acked = ack.step + 1;
    }
    (void)close(ends[0]);
    int status = 0;
    assert_int_equal(waitpid(child, &status, 0), child);
    struct store_client *client = &fixture->client;
    const struct ab_store_config config = workload_config(fixture);
    const int opened = store_client_open(client, &config);
    static struct store_client_key before[STORE_CLIENT_KEYS], after[STORE_CLIENT_KEYS];
    model_run(before, acked);
    model_run(after, AB_MIN(acked + 1, STEPS));
    if (opened != 0 || store_client_verify(client) != 0 ||
        (!keys_equal(client->keys, before) && !keys_equal(client->keys, after))) {
        print_message("kill at call %lu, %u steps acknowledged: open %d\n%s",
                      (unsigned long)plan.nth, acked, opened, client->log);
        fail();
    }
    assert_int_equal(store_client_put(client, 99, 1, 1, AB_PROMISE_DURABLE), 0);
    store_client_close(client);
    store_test_remove(fixture->places.names[0]);
    store_test_remove(fixture->places.names[1]);
    return WIFSIGNALED(status);
}

static void killed_before_every_call(void **state)
{
    for (uint64_t nth = 1;; nth += (stride() + 2) / 3) {
        if (!kill_round(*state, (struct fault_plan){
                                    .call = FAULT_ANY_CALL, .kind = FAULT_KILL, .nth = nth})) {
            print_message("killed before %lu calls in turn\n", (unsigned long)(nth - 1));
            return;
        }
    }
}

static void killed_inside_every_write(void **state)
{
    for (uint64_t nth = 1;; nth++) {
        if (!kill_round(*state, (struct fault_plan){
                                    .call = AB_OS_PWRITE, .kind = FAULT_TEAR, .nth = nth})) {
            print_message("killed inside %lu writes in turn\n", (unsigned long)(nth - 1));
            return;
        }
    }
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(what_was_put_is_there_after_reopen),
        CASE(open_segments_go_on_after_a_clean_close),
        CASE(several_directories_share_the_load_in_any_order),
        CASE(checkpoints_move_between_two_journals),
        CASE(a_reader_sees_what_is_there_and_writes_nothing),
        CASE(two_writers_are_refused),
        CASE(absurd_configs_are_refused),
        CASE(directories_that_are_not_the_store_are_left_alone),
        CASE(sets_of_directories_must_be_whole),
        CASE(a_directory_that_cannot_be_written_opens_read_only),
        CASE(another_version_is_named),
        CASE(damage_in_the_journal_is_told),
        CASE(a_missing_segment_loses_only_what_was_in_it),
        CASE(every_call_fails_once_with_eio),
        CASE(every_call_fails_for_good_with_eio),
        CASE(every_call_fails_once_with_enospc),
        CASE(every_call_fails_for_good_with_enospc),
        CASE(every_transfer_is_cut_short),
        CASE(killed_before_every_call),
        CASE(killed_inside_every_write),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
