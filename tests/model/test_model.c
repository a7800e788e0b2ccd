/*
 * test_model.c - random operations of every face against a small, obvious reference model.
 *
 * Goal: whatever order of calls a host makes, abode answers as the model does, and every byte that it
 * gives back is the byte that was put in. Method: the model keeps, for each session, the list of its
 * tokens (random numbers) and what was acknowledged; the bytes of token t in component c are a
 * function of (token number, position, c), so that forks, truncates and shared prefixes need no copies to
 * check. Memory holds a fraction of the state, so that eviction, spill and restore happen all the
 * time; every few thousand operations the runtime is closed and opened again.
 *
 * Each run prints its seed: ABODE_TEST_SEED=N repeats it. ABODE_TEST_OPS=N sets the length
 * (default 10,000; 1,000,000 with ABODE_LONG=1), ABODE_TEST_IO the engine (1 io_uring, 2 threads, 3 sync).
 */
#include <abode/abode.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "front/front.h"
#include "kv/valid.h"

#include "world.h"

#define FAIL(...)                                                                 \
    do {                                                                          \
        printf("FAILED at operation %" PRIu64 " (ABODE_TEST_SEED=%" PRIu64 "): ", \
               world.operations, world.seed);                                     \
        printf(__VA_ARGS__);                                                      \
        printf("\n0 passed, 1 failed, 0 skipped\n");                              \
        exit(1);                                                                  \
    } while (0)
#define EXPECT(condition)                              \
    do {                                               \
        if (!(condition)) {                            \
            FAIL("line %d: %s", __LINE__, #condition); \
        }                                              \
    } while (0)

static uint64_t random_next(void)
{
    uint64_t z = world.random += 0x9e3779b97f4a7c15ull;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return z ^ (z >> 31);
}

static uint32_t random_below(uint32_t limit)
{
    return (uint32_t)(random_next() % limit);
}

/* ---- content: a function of what it stands for ---- */

static void fill(unsigned char *target, size_t bytes, uint64_t salt)
{
    for (size_t i = 0; i < bytes; i++) {
        target[i] = (unsigned char)((salt + i) * 0x9e3779b97f4a7c15ull >> 56);
    }
}

static void expect_bytes(const unsigned char *bytes, size_t count, uint64_t salt, const char *what)
{
    for (size_t i = 0; i < count; i++) {
        if (bytes[i] != (unsigned char)((salt + i) * 0x9e3779b97f4a7c15ull >> 56)) {
            FAIL("wrong byte %zu of %s", i, what);
        }
    }
    world.checked_bytes += count;
}

static uint64_t token_salt(uint32_t token, uint32_t position, uint32_t component, uint32_t plane)
{
    return ((uint64_t)token << 24) ^ ((uint64_t)position << 8) ^ (component * 4 + plane);
}

static uint32_t plane_bytes(uint32_t component)
{
    return component == 0 ? PAGED_BYTES / 2 : WINDOW_BYTES;
}

/* ---- ops ---- */

static int finish(struct abode_op *op)
{
    struct abode_op *done;
    int count = abode_poll(world.queue, &done, 1, 30ll * 1000 * 1000 * 1000);
    if (count != 1 || done != op) {
        FAIL("an op did not come back (%d)", count);
    }
    return op->status;
}

static void nap(void)
{
    struct timespec time = {.tv_nsec = 100000};
    (void)nanosleep(&time, NULL);
}

static void name_of(uint32_t number, struct abode_key *ret)
{
    abode_key_from_bytes(&number, sizeof(number), ret);
}

static bool has_snapshots(const struct reference *session)
{
    return session->model == 0;
}

static uint32_t restore_point(const struct reference *session)
{
    return has_snapshots(session) ? session->point : session->count;
}

static void check_rows(const struct reference *session, uint32_t component)
{
    struct abode_view view;
    int status = abode_session_view(world.runtime, session->handle, component, &view);
    EXPECT(status == 0);
    EXPECT(view.token_count == session->count);
    uint32_t first = 0;
    if (component == 1 && session->count > WINDOW_TOKENS) {
        first = session->count - WINDOW_TOKENS;
    }
    for (uint32_t t = first; t < session->count; t++) {
        EXPECT(view.frames[t / BLOCK_TOKENS] != ABODE_FRAME_NONE);
        for (uint32_t p = 0; p < view.plane_count; p++) {
            size_t bytes = plane_bytes(component);
            char where[96];
            (void)snprintf(where, sizeof(where),
                           "token %u of %u, session %u, component %u, plane %u", t, session->count,
                           (uint32_t)(session - world.sessions) + 1000, component, p);
            expect_bytes(abode_view_plane(&view, t / BLOCK_TOKENS, p) + t % BLOCK_TOKENS * bytes,
                         bytes, token_salt(session->tokens[t], t, component, p), where);
        }
    }
}

static void check_session(const struct reference *session)
{
    check_rows(session, 0);
    if (!has_snapshots(session)) {
        return;
    }
    check_rows(session, 1);
    for (uint32_t c = 2; c < 4; c++) {
        const void *bytes;
        size_t size;
        uint64_t at;
        int status = abode_snapshot_get(world.runtime, session->handle, c, &bytes, &size, &at);
        EXPECT((status == 0) == (session->point > 0));
        if (status == 0) {
            uint32_t salt = session->points[session->point];
            EXPECT(at == session->point);
            EXPECT(size == (c == 2 ? STATE_BYTES : 1 + salt % 5000));
            expect_bytes(bytes, size, salt + c, "a snapshot");
        }
    }
}

static struct reference *pick(bool attached)
{
    for (uint32_t i = 0; i < 8; i++) {
        struct reference *session = &world.sessions[random_below(SESSIONS)];
        if (session->exists && session->attached == attached) {
            return session;
        }
    }
    return NULL;
}

static struct reference *free_place(void)
{
    for (uint32_t i = 0; i < SESSIONS; i++) {
        if (!world.sessions[i].exists) {
            return &world.sessions[i];
        }
    }
    return NULL;
}

static uint32_t number_of(const struct reference *session)
{
    return (uint32_t)(session - world.sessions) + 1000;
}

static void op_create(void)
{
    struct reference *session = free_place();
    if (session == NULL) {
        return;
    }
    memset(session, 0, sizeof(*session));
    session->named = random_below(4) != 0;
    session->model = random_below(3) == 0;
    session->tenant = random_below(TENANTS);
    session->durability = 1 + random_below(3);
    struct abode_key name;
    name_of(number_of(session), &name);
    struct abode_session_opts opts = {.struct_size = sizeof(opts),
                                      .model = world.models[session->model],
                                      .home_node = -1,
                                      .durability = session->durability,
                                      .name = session->named ? &name : NULL,
                                      .tenant = session->tenant};
    int status = abode_session_create(world.runtime, &opts, &session->handle);
    EXPECT(status == 0);
    session->exists = true;
    session->attached = true;
    if (session->named) {
        struct abode_session other;
        EXPECT(abode_session_create(world.runtime, &opts, &other) == -EEXIST);
    }
}

/* keys of the rows that an append fills: a chain over the session's tokens */
static void row_key(const struct reference *session, uint32_t row, struct abode_key *ret)
{
    uint8_t tag[32] = {(uint8_t)session->model};
    abode_key_root(tag, &session->tenant, sizeof(session->tenant), NULL, 0, ret);
    for (uint32_t r = 0; r <= row; r++) {
        struct abode_key parent = *ret;
        abode_key_next(&parent, session->tokens + r * BLOCK_TOKENS, BLOCK_TOKENS, ret);
    }
}

static void write_spans(const struct reference *session, const struct abode_span *spans, int count)
{
    for (int i = 0; i < count; i++) {
        const struct abode_span *span = &spans[i];
        uint32_t planes = span->component == 0 ? 2 : 1;
        size_t bytes = plane_bytes(span->component);
        for (uint32_t t = 0; t < span->token_count; t++) {
            uint32_t at = span->row * BLOCK_TOKENS + span->token_first + t;
            for (uint32_t p = 0; p < planes; p++) {
                fill(span->base + p * BLOCK_TOKENS * bytes + (span->token_first + t) * bytes, bytes,
                     token_salt(session->tokens[at], at, span->component, p));
            }
        }
    }
}

static void op_append(void)
{
    struct reference *session = pick(true);
    if (session == NULL) {
        return;
    }
    uint32_t count = 1 + random_below(30);
    if (session->count + count > TOKENS_MAX) {
        return;
    }
    struct abode_span spans[16];
    int used = -EAGAIN;
    for (uint32_t i = 0; used == -EAGAIN && i < 20000; i++) {
        used = abode_append_reserve(world.runtime, session->handle, count, spans, 16);
        if (used == -EAGAIN) {
            nap();
        }
    }
    if (used == -ABODE_EFULL) {
        return;
    }
    if (used <= 0) {
        FAIL("reserve of %u after %u: %s", count, session->count, abode_strerror(used));
    }
    uint32_t fixed = random_below(4) == 0; /* few different texts, so that keys meet */
    for (uint32_t i = 0; i < count; i++) {
        session->tokens[session->count + i] =
            fixed ? 7 + (session->count + i) % 3 : (uint32_t)random_next();
    }
    write_spans(session, spans, used);
    uint32_t committed = count - (random_below(8) == 0 ? random_below(count) : 0);
    uint32_t before = session->count / BLOCK_TOKENS;
    session->count += committed;
    uint32_t after = session->count / BLOCK_TOKENS;
    struct abode_key keys[8];
    bool keyed = random_below(2) == 0;
    for (uint32_t r = before; keyed && r < after; r++) {
        row_key(session, r, &keys[r - before]);
    }
    int status = abode_append_commit(world.runtime, session->handle, committed, keyed ? keys : NULL,
                                     keyed ? after - before : 0);
    EXPECT(status == 0);
}

static void op_snapshot(void)
{
    struct reference *session = pick(true);
    if (session == NULL || !has_snapshots(session) || session->count == 0) {
        return;
    }
    uint32_t salt = 1 + (uint32_t)(random_next() >> 40);
    for (uint32_t c = 2; c < 4; c++) {
        void *bytes;
        size_t size = c == 2 ? STATE_BYTES : 1 + salt % 5000;
        int status = -EAGAIN;
        for (uint32_t i = 0; status == -EAGAIN && i < 20000; i++) {
            status = abode_snapshot_reserve(world.runtime, session->handle, c, c == 2 ? 0 : size,
                                            &bytes);
            if (status == -EAGAIN) {
                nap();
            }
        }
        if (status == -ABODE_EFULL) {
            return; /* no point at this position, then */
        }
        EXPECT(status == 0);
        fill(bytes, size, salt + c);
        status = abode_snapshot_commit(world.runtime, session->handle, c);
        if (status == -EAGAIN && c == 2) {
            return; /* nothing was published: the host may try again */
        }
        if (status != 0) {
            FAIL("snapshot of component %u at %u: %s", c, session->count, abode_strerror(status));
        }
    }
    session->points[session->count] = salt;
    session->point = session->count;
}

static void remember_stored(struct reference *session)
{
    session->stored_count = session->count;
    memcpy(session->stored_tokens, session->tokens, sizeof(session->tokens));
    session->stored_salt = session->points[session->count];
    memcpy(session->stored_note, session->note, sizeof(session->note));
    session->stored_note_size = session->note_size;
}

static void op_detach(void)
{
    struct reference *session = pick(true);
    if (session == NULL) {
        return;
    }
    struct abode_op op = {.user_data = session};
    uint32_t flags = random_below(6) == 0   ? ABODE_DETACH_SPILL_NOW
                     : random_below(6) == 0 ? ABODE_DETACH_KEEP
                                            : 0;
    EXPECT(abode_detach(world.queue, session->handle, flags, &op) == 0);
    int status = finish(&op);
    if (status != 0 && status != -ENOSPC) {
        FAIL("detach: %s", abode_strerror(status));
    }
    if ((flags & ABODE_DETACH_KEEP) == 0) {
        session->count = restore_point(session);
        session->attached = false;
        if (status == 0 && (session->durability > ABODE_MEM || flags != 0)) {
            remember_stored(session);
        }
    } else if (status == 0 && session->durability > ABODE_MEM) {
        uint32_t count = session->count;
        session->count = restore_point(session);
        remember_stored(session);
        session->count = count;
    }
}

static void op_attach(void)
{
    struct reference *session = pick(false);
    if (session == NULL) {
        return;
    }
    struct abode_op op = {.user_data = session};
    EXPECT(abode_attach(world.queue, session->handle, -1, 0, &op) == 0);
    int status = finish(&op);
    if (status == -ABODE_EFULL) {
        return;
    }
    if (status != 0) {
        FAIL("attach of session %u (%u tokens): %s", number_of(session), session->count,
             abode_strerror(status));
    }
    session->attached = true;
    world.attaches++;
    check_session(session);
}

static void op_fork(void)
{
    struct reference *parent = pick(true), *child = free_place();
    if (parent == NULL || child == NULL) {
        return;
    }
    uint32_t at = restore_point(parent);
    if (!has_snapshots(parent) && random_below(2) == 0 && parent->count > 0) {
        at = random_below(parent->count + 1);
    }
    struct abode_key name;
    name_of(number_of(child), &name);
    bool named = random_below(2) == 0;
    struct abode_session handle;
    int status =
        abode_session_fork(world.runtime, parent->handle, at, named ? &name : NULL, &handle);
    if (status == -EAGAIN || status == -ABODE_EFULL) {
        return;
    }
    if (status != 0) {
        FAIL("fork at %u of %u: %s", at, parent->count, abode_strerror(status));
    }
    *child = *parent;
    child->handle = handle;
    child->named = named;
    child->count = at;
    child->point = has_snapshots(parent) ? at : 0;
    child->stored_count = 0;
    child->note_size = 0;
    child->stored_note_size = 0;
    check_session(child);
}

static void op_truncate(void)
{
    struct reference *session = pick(true);
    if (session == NULL) {
        return;
    }
    uint32_t at = has_snapshots(session) ? session->point : random_below(session->count + 1);
    int status = abode_session_truncate(world.runtime, session->handle, at);
    if (status == -EAGAIN || status == -ABODE_EFULL) {
        return;
    }
    if (status != 0) {
        FAIL("truncate to %u of %u: %s", at, session->count, abode_strerror(status));
    }
    session->count = at;
    if (session->stored_count > at) { /* the store may keep a shorter prefix of it */
        session->stored_count = UINT32_MAX;
    }
    EXPECT(abode_session_truncate(world.runtime, session->handle, TOKENS_MAX + 1) == -EINVAL);
    check_session(session);
}

static void op_delete(void)
{
    struct reference *session = pick(random_below(2) == 0);
    if (session == NULL) {
        return;
    }
    EXPECT(abode_session_delete(world.runtime, session->handle) == 0);
    EXPECT(abode_session_delete(world.runtime, session->handle) == -ABODE_ESTALE);
    session->exists = false;
    if (session->named) {
        struct abode_key name;
        struct abode_session found;
        name_of(number_of(session), &name);
        EXPECT(abode_session_find(world.runtime, &name, &found) == -ENOENT);
    }
}

static void op_note(void)
{
    struct reference *session = pick(random_below(2) == 0);
    if (session == NULL) {
        return;
    }
    if (random_below(2) == 0) {
        session->note_size = random_below(NOTE_BYTES + 1);
        for (uint32_t i = 0; i < session->note_size; i++) {
            session->note[i] = (uint8_t)random_next();
        }
        EXPECT(abode_session_note_set(world.runtime, session->handle, session->note,
                                      session->note_size) == 0);
    }
    uint8_t bytes[NOTE_BYTES];
    int size = abode_session_note_get(world.runtime, session->handle, bytes, sizeof(bytes));
    EXPECT(size == (int)session->note_size);
    EXPECT(memcmp(bytes, session->note, session->note_size) == 0);
}

static void op_stat(void)
{
    struct reference *session = pick(random_below(2) == 0);
    if (session == NULL) {
        return;
    }
    struct abode_session_info info;
    EXPECT(abode_session_stat(world.runtime, session->handle, &info) == 0);
    EXPECT(info.token_count == session->count);
    EXPECT(info.restore_point == restore_point(session));
    EXPECT(info.attached == session->attached);
    EXPECT(info.tenant == session->tenant);
}

/* ---- the cache face ---- */

static void item_key(uint32_t number, struct abode_key *ret)
{
    char name[16];
    int size = snprintf(name, sizeof(name), "item %u", number);
    abode_key_from_bytes(name, (size_t)size, ret);
}

static void op_put(void)
{
    struct abode_item items[4];
    uint32_t numbers[4], count = 1 + random_below(4);
    uint32_t first = random_below(ITEMS - 4);
    uint32_t durability = 1 + random_below(3);
    for (uint32_t i = 0; i < count; i++) {
        struct item *item = &world.items[numbers[i] = first + i];
        if (!item->exists) {
            item->salt = (uint32_t)(random_next() >> 32);
            item->bytes = random_below(2) == 0 ? 4096 * (1 + random_below(9))
                                               : 1 + random_below(ITEM_BYTES_MAX);
        }
        uint64_t offset = i * 65536ull + (random_below(2) == 0 ? 0 : random_below(4000));
        fill(world.memory + offset, item->bytes, item->salt);
        items[i] =
            (struct abode_item){.offset = offset, .bytes = item->bytes, .region = world.region};
        item_key(numbers[i], &items[i].key);
    }
    struct abode_op op = {.user_data = NULL};
    EXPECT(abode_cache_put(world.queue, world.cache_model, items, count, durability, &op) == 0);
    int status = finish(&op);
    for (uint32_t i = 0; i < count; i++) {
        struct item *item = &world.items[numbers[i]];
        if (items[i].status == 0) {
            item->exists = true;
            item->stored |= durability > ABODE_MEM;
        } else if (items[i].status != -ENOSPC && items[i].status != -ABODE_EFULL) {
            FAIL("put: %s / %s", abode_strerror(status), abode_strerror(items[i].status));
        }
    }
}

static void op_get(void)
{
    struct abode_item items[4];
    struct abode_key keys[4];
    uint32_t count = 1 + random_below(4), first = random_below(ITEMS - 4);
    for (uint32_t i = 0; i < count; i++) {
        uint64_t offset = i * 65536ull + (random_below(2) == 0 ? 0 : random_below(4000));
        items[i] = (struct abode_item){.offset = offset, .bytes = 45056, .region = world.region};
        item_key(first + i, &items[i].key);
        keys[i] = items[i].key;
    }
    uint8_t presence[4];
    EXPECT(abode_cache_probe(world.runtime, world.cache_model, keys, count, presence) >= 0);
    struct abode_op op = {.user_data = NULL};
    EXPECT(abode_cache_get(world.queue, world.cache_model, items, count, &op) == 0);
    (void)finish(&op);
    for (uint32_t i = 0; i < count; i++) {
        struct item *item = &world.items[first + i];
        if (items[i].status == 0) {
            EXPECT(item->exists);
            EXPECT(items[i].bytes == item->bytes);
            expect_bytes(world.memory + items[i].offset, item->bytes, item->salt, "an item");
        } else if (items[i].status == -ENOENT) {
            item->exists = false; /* evicted: allowed */
            item->stored = false;
        } else if (items[i].status != -ABODE_EFULL) {
            FAIL("get: %s", abode_strerror(items[i].status));
        }
    }
}

static void op_cache_delete(void)
{
    uint32_t number = random_below(ITEMS);
    struct abode_key key;
    item_key(number, &key);
    struct abode_op op = {.user_data = NULL};
    EXPECT(abode_cache_delete(world.queue, world.cache_model, &key, 1, &op) == 0);
    EXPECT(finish(&op) == 0);
    uint8_t presence;
    EXPECT(abode_cache_probe(world.runtime, world.cache_model, &key, 1, &presence) == 0);
    EXPECT(presence == ABODE_MISS);
    world.items[number].exists = false;
    world.items[number].stored = false;
}

/* ---- the world ---- */

static uint64_t number_from(const char *name, uint64_t otherwise)
{
    const char *text = getenv(name);
    return text != NULL ? strtoull(text, NULL, 10) : otherwise;
}

static void log_line(void *context, int level, const char *line)
{
    (void)context;
    if (level == ABODE_LOG_ERROR) {
        printf("log: %s\n", line);
    }
}

static void models_add(void)
{
    const struct abode_plane paged[2] = {{BLOCK_TOKENS * PAGED_BYTES / 2, 0},
                                         {BLOCK_TOKENS * PAGED_BYTES / 2, 0}};
    const struct abode_plane window[1] = {{BLOCK_TOKENS * WINDOW_BYTES, 0}};
    const struct abode_plane state[1] = {{STATE_BYTES, 0}};
    const struct abode_component hybrid[4] = {
        {.kind = ABODE_PAGED, .plane_count = 2, .planes = paged},
        {.kind = ABODE_WINDOW, .window_tokens = WINDOW_TOKENS, .plane_count = 1, .planes = window},
        {.kind = ABODE_SNAPSHOT, .snapshots_kept = 2, .plane_count = 1, .planes = state},
        {.kind = ABODE_BYTES, .bytes_max = 8192}};
    const struct abode_component cache[1] = {{.kind = ABODE_BYTES, .bytes_max = 45056}};
    struct abode_model_desc desc = {.struct_size = sizeof(desc),
                                    .component_count = 4,
                                    .components = hybrid,
                                    .block_tokens = BLOCK_TOKENS,
                                    .session_tokens_max = 4096,
                                    .session_tokens_typical = 200,
                                    .memory_bytes = 6u << 20};
    desc.tag[0] = 1;
    EXPECT(abode_model_add(world.runtime, &desc, &world.models[0]) == 0);
    desc.tag[0] = 2;
    desc.component_count = 1;
    desc.memory_bytes = 3u << 20;
    EXPECT(abode_model_add(world.runtime, &desc, &world.models[1]) == 0);
    desc.tag[0] = 3;
    desc.components = cache;
    desc.memory_bytes = 1u << 20;
    EXPECT(abode_model_add(world.runtime, &desc, &world.cache_model) == 0);
    EXPECT(abode_model_add(world.runtime, &desc, &world.cache_model) == -EEXIST);
}

static void world_open(void)
{
    const char *paths[1] = {world.directory};
    struct abode_config config;
    abode_config_init(&config);
    config.flags = ABODE_CREATE;
    config.memory_bytes_max = 16u << 20;
    config.store_paths = paths;
    config.store_path_count = 1;
    config.store_bytes_max = 160u << 20;
    config.segment_bytes = 4u << 20;
    config.io = (uint32_t)number_from("ABODE_TEST_IO", ABODE_IO_AUTO);
    config.log = log_line;
    int status = abode_open(&config, &world.runtime);
    if (status != 0) {
        FAIL("open: %s", abode_strerror(status));
    }
    models_add();
    struct abode_region region = {.struct_size = sizeof(region),
                                  .node = -1,
                                  .base = world.memory,
                                  .bytes = 4 * 65536 + 65536};
    EXPECT(abode_region_add(world.runtime, &region, &world.region) == 0);
    EXPECT(abode_queue_open(world.runtime, 8, &world.queue) == 0);
}

static void world_close(void)
{
    struct abode_stats stats;
    EXPECT(abode_stats_get(world.runtime, &stats) == 0);
    EXPECT(stats.checksum_failures == 0);
    EXPECT(stats.io_errors == 0);
    world.evicted += stats.blocks_evicted;
    world.restored += stats.bytes_restored;
    EXPECT(abode_queue_close(world.queue) == 0);
    EXPECT(abode_close(world.runtime) == 0);
}

/* After a restart: what was acknowledged is there; what was not may be older, never wrong. */
static void session_refind(struct reference *session)
{
    struct abode_key name;
    name_of(number_of(session), &name);
    struct abode_session found;
    int status = session->named ? abode_session_find(world.runtime, &name, &found) : -ENOENT;
    if (status != 0) {
        EXPECT(status == -ENOENT);
        EXPECT(!session->named || session->stored_count == 0 ||
               session->stored_count == UINT32_MAX);
        session->exists = false;
        return;
    }
    struct abode_session_info info;
    EXPECT(abode_session_stat(world.runtime, found, &info) == 0);
    if (session->stored_count != UINT32_MAX) {
        EXPECT(info.token_count == session->stored_count);
        EXPECT(info.tenant == session->tenant);
        session->count = session->stored_count;
        session->point = has_snapshots(session) ? session->count : 0;
        memcpy(session->tokens, session->stored_tokens, sizeof(session->tokens));
        session->points[session->count] = session->stored_salt;
        memcpy(session->note, session->stored_note, sizeof(session->note));
        session->note_size = session->stored_note_size;
        session->handle = found;
        session->attached = false;
    } else { /* truncated after it was stored: some prefix; start over */
        EXPECT(abode_session_delete(world.runtime, found) == 0);
        session->exists = false;
    }
}

static void op_reopen(void)
{
    world_close();
    world_open();
    for (uint32_t i = 0; i < SESSIONS; i++) {
        struct reference *session = &world.sessions[i];
        if (session->exists) {
            session_refind(session);
        }
    }
    for (uint32_t i = 0; i < ITEMS; i++) {
        world.items[i].exists &= world.items[i].stored;
    }
}

/* between operations nothing is in flight but own spills and compaction: then it is not looked */
static void check_inside(void)
{
    struct ab_kv *kv = world.runtime->kv;
    uint32_t index = 0;
    const char *wrong = NULL;
    ab_lock_take(&kv->lock);
    if (ab_list_is_empty(&kv->transfer->active) && kv->transfer->in_flight == 0) {
        wrong = ab_kv_invalid(kv, &index);
    }
    ab_lock_drop(&kv->lock);
    if (wrong != NULL) {
        FAIL("block %u: %s", index, wrong);
    }
}

static void step(void)
{
    static const struct {
        uint32_t weight;
        void (*run)(void);
    } OPERATIONS[] = {{4, op_create},      {30, op_append}, {12, op_snapshot}, {16, op_detach},
                      {16, op_attach},     {4, op_fork},    {4, op_truncate},  {3, op_delete},
                      {6, op_note},        {4, op_stat},    {6, op_put},       {8, op_get},
                      {2, op_cache_delete}};
    uint32_t total = 0;
    for (size_t i = 0; i < sizeof(OPERATIONS) / sizeof(OPERATIONS[0]); i++) {
        total += OPERATIONS[i].weight;
    }
    uint32_t at = random_below(total);
    for (size_t i = 0; i < sizeof(OPERATIONS) / sizeof(OPERATIONS[0]); i++) {
        if (at < OPERATIONS[i].weight) {
            OPERATIONS[i].run();
            return;
        }
        at -= OPERATIONS[i].weight;
    }
}

int main(void)
{
    setvbuf(stdout, NULL, _IOLBF, 0);
    world.seed = number_from("ABODE_TEST_SEED", (uint64_t)time(NULL));
    uint64_t operations =
        number_from("ABODE_TEST_OPS", getenv("ABODE_LONG") != NULL ? 1000000 : 10000);
    world.random = world.seed;
    printf("seed %" PRIu64 ", %" PRIu64 " operations\n", world.seed, operations);
    const char *root = getenv("TMPDIR") != NULL ? getenv("TMPDIR") : "/tmp";
    (void)snprintf(world.directory, sizeof(world.directory), "%.40s/abode-model-XXXXXX", root);
    if (mkdtemp(world.directory) == NULL ||
        posix_memalign((void **)&world.memory, 4096, 5 * 65536) != 0) {
        FAIL("cannot set up");
    }
    world_open();
    for (world.operations = 0; world.operations < operations; world.operations++) {
        step();
        if (world.operations % INSIDE_EVERY == 0) {
            check_inside();
        }
        if (random_below(5000) == 0) {
            op_reopen();
        }
    }
    world_close();
    char command[128];
    (void)snprintf(command, sizeof(command), "rm -rf '%s'", world.directory);
    int removed = system(command);
    printf("%" PRIu64 " attaches, %" PRIu64 " MiB checked, %" PRIu64 " blocks evicted, %" PRIu64
           " MiB restored\n",
           world.attaches, world.checked_bytes >> 20, world.evicted, world.restored >> 20);
    printf("%d passed, 0 failed, 0 skipped\n", removed == 0 ? 1 : 1);
    return 0;
}
