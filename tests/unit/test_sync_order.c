/*
 * test_sync_order.c - goal: what a power cut could take away is never what somebody relies on. Method:
 * an os table that knows which files have bytes or names that no sync has covered yet, and looks at
 * them at each moment that counts: a superblock is written, a commit is acknowledged as DURABLE.
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

#include "store/format.h"
#include "store/superblock.h"
#include "store_client.h"

#define FDS_MAX 1024
#define SEGMENTS_MAX 64u
#define JOURNALS 2u
#define PAIR 3u /* copies 0 and 1 */

enum kind { KIND_OTHER = 0, KIND_ROOT, KIND_SEGMENTS, KIND_SUPERBLOCK, KIND_JOURNAL, KIND_SEGMENT };

struct fixture {
    struct ab_os watch;
    struct store_client client;
    char root[64], name[96], superblock[128];
    const char *path;
    pthread_mutex_t mutex; /* guards all below */
    struct {
        enum kind kind;
        uint32_t number; /* of a journal or a segment */
    } files[FDS_MAX];
    bool journal_bytes[JOURNALS], journal_name[JOURNALS]; /* not synced */
    bool segment_bytes[SEGMENTS_MAX], segment_name[SEGMENTS_MAX];
    uint32_t copies; /* of the superblock, not synced: bits */
    uint32_t superblocks_written, flips, journal_last;
    const char *violation; /* NULL: none */
};

static void violate(struct fixture *fixture, const char *what)
{
    fixture->violation = fixture->violation == NULL ? what : fixture->violation;
}

static void file_opened(struct fixture *fixture, int fd, const char *path, bool is_new)
{
    fixture->files[fd].kind = KIND_OTHER;
    fixture->files[fd].number = 0;
    if (strncmp(path, "journal.", 8) == 0) {
        fixture->files[fd].kind = KIND_JOURNAL;
        fixture->files[fd].number = path[8] == 'b';
        fixture->journal_name[path[8] == 'b'] |= is_new;
    } else if (strcmp(path, "superblock") == 0) {
        fixture->files[fd].kind = KIND_SUPERBLOCK;
    } else if (strcmp(path, "segments") == 0) {
        fixture->files[fd].kind = KIND_SEGMENTS;
    } else if (strcmp(path, fixture->name) == 0) {
        fixture->files[fd].kind = KIND_ROOT;
    } else if (strspn(path, "0123456789abcdef") == 8 && strlen(path) == 8) {
        const uint32_t segment = (uint32_t)strtoul(path, NULL, 16);
        assert_true(segment < SEGMENTS_MAX);
        fixture->files[fd].kind = KIND_SEGMENT;
        fixture->files[fd].number = segment;
        fixture->segment_name[segment] |= is_new;
    }
}

static int watch_openat(const struct ab_os *os, int dir, const char *path, int flags, uint32_t mode)
{
    struct fixture *fixture = os->context;
    const bool is_new = (flags & O_CREAT) != 0 && faccessat(dir, path, F_OK, 0) != 0;
    const int fd = ab_os_default()->openat(ab_os_default(), dir, path, flags, mode);
    if (fd >= 0 && fd < FDS_MAX) {
        (void)pthread_mutex_lock(&fixture->mutex);
        file_opened(fixture, fd, path, is_new);
        (void)pthread_mutex_unlock(&fixture->mutex);
    }
    return fd;
}

/* The first moment that relies on a journal: the superblock that names it is on its way. */
static void superblock_written(struct fixture *fixture, const struct ab_disk_superblock *bytes,
                               uint64_t offset)
{
    const uint32_t copy = 1u << (offset / AB_PAGE);
    const uint32_t others = (copy & PAIR) != 0 ? ~PAIR : PAIR;
    const uint32_t name = bytes->journal_name;
    if ((fixture->copies & others) != 0) {
        violate(fixture, "copies of both pairs are in flight at once");
    }
    if (fixture->journal_bytes[name]) {
        violate(fixture, "the superblock names a journal that has not been synced");
    }
    if (fixture->journal_name[name]) {
        violate(fixture, "the superblock names a journal whose name has not been synced");
    }
    fixture->copies |= copy;
    fixture->superblocks_written++;
    fixture->flips += name != fixture->journal_last;
    fixture->journal_last = name;
}

static int64_t watch_pwrite(const struct ab_os *os, int fd, const void *bytes, size_t count,
                            uint64_t offset)
{
    struct fixture *fixture = os->context;
    (void)pthread_mutex_lock(&fixture->mutex);
    const uint32_t number = fixture->files[fd].number;
    switch ((int)fixture->files[fd].kind) {
    case KIND_SUPERBLOCK:
        superblock_written(fixture, bytes, offset);
        break;
    case KIND_JOURNAL:
        fixture->journal_bytes[number] = true;
        break;
    case KIND_SEGMENT:
        fixture->segment_bytes[number] = true;
        break;
    default:
        break;
    }
    (void)pthread_mutex_unlock(&fixture->mutex);
    return ab_os_default()->pwrite(ab_os_default(), fd, bytes, count, offset);
}

static void file_synced(struct fixture *fixture, int fd)
{
    const uint32_t number = fixture->files[fd].number;
    switch ((int)fixture->files[fd].kind) {
    case KIND_SUPERBLOCK:
        fixture->copies = 0;
        break;
    case KIND_JOURNAL:
        fixture->journal_bytes[number] = false;
        break;
    case KIND_SEGMENT:
        fixture->segment_bytes[number] = false;
        break;
    case KIND_ROOT:
        memset(fixture->journal_name, 0, sizeof(fixture->journal_name));
        break;
    case KIND_SEGMENTS:
        memset(fixture->segment_name, 0, sizeof(fixture->segment_name));
        break;
    default:
        break;
    }
}

static int watch_fdatasync(const struct ab_os *os, int fd)
{
    struct fixture *fixture = os->context;
    const int result = ab_os_default()->fdatasync(ab_os_default(), fd);
    (void)pthread_mutex_lock(&fixture->mutex);
    file_synced(fixture, fd);
    (void)pthread_mutex_unlock(&fixture->mutex);
    return result;
}

static int watch_fsync(const struct ab_os *os, int fd)
{
    struct fixture *fixture = os->context;
    const int result = ab_os_default()->fsync(ab_os_default(), fd);
    (void)pthread_mutex_lock(&fixture->mutex);
    file_synced(fixture, fd);
    (void)pthread_mutex_unlock(&fixture->mutex);
    return result;
}

static int set_up(void **state)
{
    struct fixture *fixture = test_calloc(1, sizeof(*fixture));
    fixture->watch = *ab_os_default();
    fixture->watch.context = fixture;
    fixture->watch.openat = watch_openat;
    fixture->watch.pwrite = watch_pwrite;
    fixture->watch.fdatasync = watch_fdatasync;
    fixture->watch.fsync = watch_fsync;
    assert_int_equal(pthread_mutex_init(&fixture->mutex, NULL), 0);
    store_client_init(&fixture->client, &fixture->watch);
    store_test_directory(fixture->root);
    (void)snprintf(fixture->name, sizeof(fixture->name), "%s/store", fixture->root);
    (void)snprintf(fixture->superblock, sizeof(fixture->superblock), "%s/superblock",
                   fixture->name);
    fixture->path = fixture->name;
    *state = fixture;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *fixture = *state;
    store_test_remove(fixture->root);
    (void)pthread_mutex_destroy(&fixture->mutex);
    test_free(fixture);
    return 0;
}

static void open_ok(struct fixture *fixture, uint64_t journal_tail_min)
{
    struct ab_store_config config = store_client_config(&fixture->client, &fixture->path, 1);
    config.journal_tail_min = journal_tail_min;
    assert_int_equal(store_client_open(&fixture->client, &config), 0);
}

static void no_violation(const struct fixture *fixture)
{
    if (fixture->violation != NULL) {
        fail_msg("%s", fixture->violation);
    }
}

/* One pair of copies is whole at every moment, also while a torn one is mended. */
static void superblocks_are_written_pair_by_pair(void **state)
{
    struct fixture *fixture = *state;
    open_ok(fixture, 0);
    store_client_close(&fixture->client);
    no_violation(fixture);
    for (uint32_t torn = 0; torn < AB_SUPERBLOCK_COPIES; torn++) {
        const int fd = open(fixture->superblock, O_RDWR | O_CLOEXEC);
        assert_true(fd >= 0);
        assert_int_equal(pwrite(fd, "torn", 4, (off_t)torn * AB_PAGE + 100), 4);
        assert_int_equal(close(fd), 0);
        fixture->superblocks_written = 0;
        open_ok(fixture, 0);
        store_client_close(&fixture->client);
        assert_int_equal(fixture->superblocks_written, 1 + 2 * AB_SUPERBLOCK_COPIES);
        no_violation(fixture);
    }
}

static void a_journal_is_durable_before_it_is_named(void **state)
{
    struct fixture *fixture = *state;
    struct store_client *client = &fixture->client;
    open_ok(fixture, 32u << 10);
    for (uint32_t i = 0; i < 200; i++) {
        assert_int_equal(store_client_put(client, i % 50, i, 1, AB_PROMISE_WRITTEN), 0);
        assert_int_equal(store_client_fill(client, 4096, AB_PROMISE_WRITTEN), 0);
    }
    assert_int_equal(store_client_barrier(client, AB_PROMISE_DURABLE), 0);
    store_client_close(client);
    assert_true(fixture->flips >= 3);
    no_violation(fixture);
}

static void a_durable_commit_has_synced_what_it_names(void **state)
{
    struct fixture *fixture = *state;
    struct store_client *client = &fixture->client;
    uint32_t segments = 0;
    open_ok(fixture, 0);
    for (uint32_t i = 0; i < 120; i++) {
        assert_int_equal(store_client_put(client, i, i, 15, AB_PROMISE_DURABLE), 0);
        const uint32_t segment = client->keys[i].slot.segment;
        (void)pthread_mutex_lock(&fixture->mutex);
        const bool bytes = fixture->segment_bytes[segment];
        const bool name = fixture->segment_name[segment];
        const uint32_t journal = fixture->journal_bytes[fixture->journal_last];
        (void)pthread_mutex_unlock(&fixture->mutex);
        assert_false(bytes);
        assert_false(name);
        assert_false(journal);
        segments = segment >= segments ? segment + 1 : segments;
    }
    assert_true(segments >= 4); /* a name each */
    store_client_close(client);
    no_violation(fixture);
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(superblocks_are_written_pair_by_pair),
        CASE(a_journal_is_durable_before_it_is_named),
        CASE(a_durable_commit_has_synced_what_it_names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
