/*
 * store_client.c - see store_client.h. State changes in `done`, on the committer's thread, so that
 * a checkpoint never says less than what has been acknowledged.
 */
#include "store_client.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/num.h"

enum { ENTRY_PUT = 1, ENTRY_DELETE = 2, ENTRY_FILL = 3 };

struct entry_key {
    struct ab_entry entry;
    uint64_t key, value;
    struct ab_slot slot;
    uint32_t pages, generation;
};
_Static_assert(sizeof(struct entry_key) <= sizeof(((struct store_client_op *)0)->entry), "fits");

static void die(const char *what)
{
    (void)fprintf(stderr, "store_client: %s\n", what);
    abort();
}

static void log_write(void *context, int level, const char *line)
{
    struct store_client *client = context;
    (void)level;
    (void)pthread_mutex_lock(&client->mutex);
    const size_t used = strlen(client->log);
    (void)snprintf(client->log + used, sizeof(client->log) - used, "%s\n", line);
    (void)pthread_mutex_unlock(&client->mutex);
}

void store_client_init(struct store_client *client, const struct ab_os *os)
{
    memset(client, 0, sizeof(*client));
    if (pthread_mutex_init(&client->mutex, NULL) != 0) {
        die("mutex");
    }
    client->os = os;
    client->sink = (struct ab_log){.write = log_write, .context = client};
}

/* ---- what the store calls ---- */

/* Returns what is to be dropped, after the mutex is free again. */
static struct store_client_key key_set(struct store_client *client, uint64_t key,
                                       const struct store_client_key *next)
{
    (void)pthread_mutex_lock(&client->mutex);
    const struct store_client_key last = client->keys[key];
    client->keys[key] = *next;
    (void)pthread_mutex_unlock(&client->mutex);
    return last;
}

static bool key_has_pages(const struct store_client_key *key)
{
    return key->present && !key->lost;
}

static int replay(void *context, struct ab_store *store, const struct ab_entry *entry)
{
    struct store_client *client = context;
    client->replayed++;
    if (client->replay_error != 0) {
        return client->replay_error;
    }
    if (entry->type == ENTRY_FILL) {
        client->fills_replayed++;
        return 0;
    }
    const struct entry_key *said = (const void *)entry;
    if (entry->size != sizeof(*said) || said->key >= STORE_CLIENT_KEYS) {
        return -EINVAL;
    }
    struct store_client_key next = {0};
    struct store_client_key last = client->keys[said->key];
    if (key_has_pages(&last)) { /* also where it is said again: then it is restored again */
        ab_store_drop(store, last.slot, last.pages);
    }
    if (entry->type == ENTRY_PUT) {
        next = (struct store_client_key){.present = true,
                                         .value = said->value,
                                         .slot = said->slot,
                                         .pages = said->pages,
                                         .generation = said->generation};
        next.lost = ab_store_slot_restore(store, next.slot, next.pages, next.generation) < 0;
    }
    client->keys[said->key] = next;
    return 0;
}

static size_t entry_make(uint64_t key, const struct store_client_key *state, uint16_t type,
                         void *bytes)
{
    const struct entry_key said = {.entry = {.type = type, .size = sizeof(said)},
                                   .key = key,
                                   .value = state->value,
                                   .slot = state->slot,
                                   .pages = state->pages,
                                   .generation = state->generation};
    memcpy(bytes, &said, sizeof(said));
    return sizeof(said);
}

static int64_t checkpoint(void *context, uint64_t *cursor, void *bytes, size_t capacity)
{
    struct store_client *client = context;
    size_t size = 0;
    (void)pthread_mutex_lock(&client->mutex);
    if (client->checkpoint_error != 0) {
        const int error = client->checkpoint_error;
        (void)pthread_mutex_unlock(&client->mutex);
        return error;
    }
    if (*cursor == 0 && client->checkpoint_fill > 0) {
        const struct ab_entry fill = {.type = ENTRY_FILL, .size = client->checkpoint_fill};
        memset(bytes, 0, fill.size);
        memcpy(bytes, &fill, sizeof(fill));
        size += fill.size;
    }
    /* a few keys at a time, so that commits come between */
    for (uint32_t i = 0; i < 64 && *cursor < STORE_CLIENT_KEYS; i++, (*cursor)++) {
        const struct store_client_key *key = &client->keys[*cursor];
        if (key->present && size + sizeof(struct entry_key) <= capacity) {
            size += entry_make(*cursor, key, ENTRY_PUT, (uint8_t *)bytes + size);
        }
    }
    if (*cursor == STORE_CLIENT_KEYS) {
        *cursor = UINT64_MAX;
        client->checkpoints++;
    }
    (void)pthread_mutex_unlock(&client->mutex);
    return (int64_t)size;
}

/* ---- open ---- */

struct ab_store_config store_client_config(struct store_client *client, const char *const *paths,
                                           uint32_t path_count)
{
    return (struct ab_store_config){
        .os = client->os,
        .log = &client->sink,
        .paths = paths,
        .path_count = path_count,
        .segment_bytes = 1u << 20,
        .bytes_max = 64u << 20,
        .create = true,
        .client = {.context = client, .replay = replay, .checkpoint = checkpoint},
    };
}

int store_client_open(struct store_client *client, const struct ab_store_config *config)
{
    memset(client->keys, 0, sizeof(client->keys));
    client->replayed = 0;
    client->fills_replayed = 0;
    client->log[0] = '\0';
    return ab_store_open(config, &client->store);
}

void store_client_open_well(struct store_client *client, const struct ab_store_config *config)
{
    const int result = store_client_open(client, config);
    if (result != 0) {
        (void)fprintf(stderr, "open: %d\n%s", result, client->log);
        die("open");
    }
}

void store_client_close(struct store_client *client)
{
    ab_store_close(client->store);
    client->store = NULL;
}

/* ---- payload ---- */

static void payload_make(uint64_t value, uint32_t pages, void *bytes)
{
    uint64_t *words = bytes;
    for (size_t i = 0; i < (size_t)pages * AB_PAGE / sizeof(*words); i++) {
        words[i] = (value + i) * UINT64_C(0x9e3779b97f4a7c15);
    }
}

static int payload_write(struct store_client *client, const struct ab_extent *extent,
                         uint64_t value, uint32_t pages)
{
    const int fd = ab_store_segment_fd(client->store, extent->header.segment);
    if (fd < 0) {
        return fd;
    }
    void *bytes = aligned_alloc(AB_PAGE, (size_t)(pages + 1) * AB_PAGE);
    if (bytes == NULL) {
        die("memory");
    }
    const struct ab_extent_item item = {.page = extent->header.page + 1, .bytes = pages * AB_PAGE};
    ab_store_header_fill(client->store, extent, &item, 1, bytes);
    payload_make(value, pages, (uint8_t *)bytes + AB_PAGE);
    const int result = ab_os_write_all(client->os, fd, bytes, (size_t)(pages + 1) * AB_PAGE,
                                       (uint64_t)extent->header.page * AB_PAGE);
    free(bytes);
    return result;
}

uint32_t store_client_verify(struct store_client *client)
{
    uint8_t *expected = aligned_alloc(AB_PAGE, STORE_CLIENT_PAGES_MAX * AB_PAGE);
    uint8_t *found = aligned_alloc(AB_PAGE, STORE_CLIENT_PAGES_MAX * AB_PAGE);
    uint32_t wrong = 0;
    if (expected == NULL || found == NULL) {
        die("memory");
    }
    for (uint32_t i = 0; i < STORE_CLIENT_KEYS && wrong == 0; i++) {
        const struct store_client_key *key = &client->keys[i];
        if (!key->present) {
            continue;
        }
        const size_t bytes = (size_t)key->pages * AB_PAGE;
        const int fd = ab_store_segment_fd(client->store, key->slot.segment);
        payload_make(key->value, key->pages, expected);
        if (fd < 0 || key->lost ||
            ab_os_read_all(client->os, fd, found, bytes, (uint64_t)key->slot.page * AB_PAGE) !=
                (int64_t)bytes ||
            memcmp(found, expected, bytes) != 0) {
            wrong = i + 1;
        }
    }
    free(expected);
    free(found);
    return wrong;
}

/* ---- commits ---- */

static void op_done(struct ab_commit *commit, int status)
{
    struct store_client_op *op = commit->context;
    struct store_client *client = op->client;
    if (op->is_put) {
        const struct ab_slot header = op->extent.header;
        ab_store_abandon(client->store, header, 1);
        if (status == 0) {
            ab_store_publish(client->store, op->next.slot, op->next.pages);
        } else {
            ab_store_abandon(client->store, op->next.slot, op->next.pages);
        }
    }
    if (status == 0 && op->key != UINT32_MAX) {
        const struct store_client_key last = key_set(client, op->key, &op->next);
        if (key_has_pages(&last)) {
            ab_store_drop(client->store, last.slot, last.pages);
        }
    }
    (void)pthread_mutex_lock(&client->mutex);
    op->status = status;
    op->is_done = true;
    (void)pthread_cond_signal(&op->cond);
    (void)pthread_mutex_unlock(&client->mutex);
}

static void op_begin(struct store_client *client, struct store_client_op *op, uint32_t key,
                     enum ab_promise promise)
{
    memset(op, 0, sizeof(*op));
    op->client = client;
    op->key = key;
    op->commit.promise = promise;
    op->commit.done = op_done;
    op->commit.context = op;
    op->commit.entries = op->entry;
    if (pthread_cond_init(&op->cond, NULL) != 0) {
        die("cond");
    }
}

int store_client_put_begin(struct store_client *client, struct store_client_op *op, uint32_t key,
                           uint64_t value, uint32_t pages, enum ab_promise promise)
{
    op_begin(client, op, key, promise);
    int result = ab_store_reserve(client->store, (enum ab_stream)(key % AB_STREAM_COMPACT), -1,
                                  pages, &op->extent);
    if (result < 0) {
        return result;
    }
    op->is_put = true;
    op->next = (struct store_client_key){
        .present = true,
        .value = value,
        .slot = {.segment = op->extent.header.segment, .page = op->extent.header.page + 1},
        .pages = pages,
        .generation = op->extent.generation,
    };
    result = payload_write(client, &op->extent, value, pages);
    if (result < 0) {
        ab_store_abandon(client->store, op->extent.header, pages + 1);
        return result;
    }
    op->commit.segment_count = 1;
    op->commit.segments[0] = op->extent.header.segment;
    op->commit.entries_size = entry_make(key, &op->next, ENTRY_PUT, op->entry);
    op->commit.payload_bytes = (uint64_t)pages * AB_PAGE;
    ab_store_commit(client->store, &op->commit);
    return 0;
}

int store_client_delete_begin(struct store_client *client, struct store_client_op *op, uint32_t key,
                              enum ab_promise promise)
{
    op_begin(client, op, key, promise);
    op->commit.entries_size = entry_make(key, &op->next, ENTRY_DELETE, op->entry);
    ab_store_commit(client->store, &op->commit);
    return 0;
}

int store_client_wait(struct store_client_op *op)
{
    struct store_client *client = op->client;
    (void)pthread_mutex_lock(&client->mutex);
    while (!op->is_done) {
        (void)pthread_cond_wait(&op->cond, &client->mutex);
    }
    (void)pthread_mutex_unlock(&client->mutex);
    (void)pthread_cond_destroy(&op->cond);
    return op->status;
}

int store_client_put(struct store_client *client, uint32_t key, uint64_t value, uint32_t pages,
                     enum ab_promise promise)
{
    struct store_client_op op;
    const int result = store_client_put_begin(client, &op, key, value, pages, promise);
    return result < 0 ? result : store_client_wait(&op);
}

int store_client_delete(struct store_client *client, uint32_t key, enum ab_promise promise)
{
    struct store_client_op op;
    const int result = store_client_delete_begin(client, &op, key, promise);
    return result < 0 ? result : store_client_wait(&op);
}

int store_client_fill(struct store_client *client, uint32_t bytes, enum ab_promise promise)
{
    struct store_client_op op;
    op_begin(client, &op, UINT32_MAX, promise);
    uint8_t *entries = calloc(1, bytes);
    if (entries == NULL) {
        die("memory");
    }
    for (uint32_t at = 0; at < bytes;) {
        const struct ab_entry fill = {.type = ENTRY_FILL,
                                      .size = AB_MIN(bytes - at, AB_ENTRY_SIZE_MAX)};
        memcpy(entries + at, &fill, sizeof(fill));
        at += fill.size;
    }
    op.commit.entries = entries;
    op.commit.entries_size = bytes;
    ab_store_commit(client->store, &op.commit);
    const int status = store_client_wait(&op);
    free(entries);
    return status;
}

int store_client_entries(struct store_client *client, struct store_client_op *op,
                         const void *entries, size_t bytes, uint32_t segment_count)
{
    op_begin(client, op, UINT32_MAX, AB_PROMISE_DURABLE);
    op->commit.entries = entries;
    op->commit.entries_size = bytes;
    op->commit.segment_count = segment_count;
    for (uint32_t i = 0; i < AB_MIN(segment_count, AB_COMMIT_SEGMENTS_MAX); i++) {
        op->commit.segments[i] = i;
    }
    ab_store_commit(client->store, &op->commit);
    return store_client_wait(op);
}

int store_client_entries_of(struct store_client *client, struct store_client_op *op,
                            const void *entries, size_t bytes, uint32_t segment)
{
    op_begin(client, op, UINT32_MAX, AB_PROMISE_DURABLE);
    op->commit.entries = entries;
    op->commit.entries_size = bytes;
    op->commit.segment_count = 1;
    op->commit.segments[0] = segment;
    ab_store_commit(client->store, &op->commit);
    return store_client_wait(op);
}

int store_client_barrier(struct store_client *client, enum ab_promise promise)
{
    struct store_client_op op;
    op_begin(client, &op, UINT32_MAX, promise);
    ab_store_commit(client->store, &op.commit);
    return store_client_wait(&op);
}

/* ---- directories ---- */

void store_test_directory(char *ret_path)
{
    const bool has_memory = access("/dev/shm", W_OK) == 0;
    (void)snprintf(ret_path, 64, "%s/abode-test-XXXXXX", has_memory ? "/dev/shm" : "/tmp");
    if (mkdtemp(ret_path) == NULL) {
        die("mkdtemp");
    }
}

void store_test_places(struct store_test_places *ret)
{
    store_test_directory(ret->root);
    for (uint32_t i = 0; i < AB_COUNT(ret->names); i++) {
        (void)snprintf(ret->names[i], sizeof(ret->names[i]), "%s/d%u", ret->root, i);
        ret->paths[i] = ret->names[i];
    }
}

static int remove_one(const char *path, const struct stat *status, int kind, struct FTW *place)
{
    (void)status;
    (void)kind;
    (void)place;
    return remove(path);
}

void store_test_remove(const char *path)
{
    if (access(path, F_OK) == 0 && nftw(path, remove_one, 16, FTW_DEPTH | FTW_PHYS) != 0) {
        die("remove");
    }
}
