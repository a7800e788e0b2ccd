/*
 * api_fixture.c - see api_fixture.h.
 */
#include "api_fixture.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
// clang-format off
#include <cmocka.h>
// clang-format on

#include "front/front.h"

#define APPEND_TRIES 20000
#define SECOND_NS 1000000000ll

static int remove_one(const char *path, const struct stat *status, int kind, struct FTW *walk)
{
    (void)status;
    (void)kind;
    (void)walk;
    (void)chmod(path, 0700);
    return remove(path) == 0 || errno == EBUSY ? 0 : -1;
}

void api_remove_tree(const char *path)
{
    (void)nftw(path, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

void api_log_write(void *context, int level, const char *line)
{
    struct api *api = context;
    (void)level;
    (void)pthread_mutex_lock(&api->log_mutex);
    int count = snprintf(api->log + api->log_size, sizeof(api->log) - api->log_size, "%s\n", line);
    size_t left = sizeof(api->log) - 1 - api->log_size;
    api->log_size += count > 0 && (size_t)count < left ? (size_t)count : left;
    (void)pthread_mutex_unlock(&api->log_mutex);
}

bool api_logged(struct api *api, const char *text)
{
    (void)pthread_mutex_lock(&api->log_mutex);
    bool found = strstr(api->log, text) != NULL;
    if (!found) {
        print_message("not in the log: '%s'; the log: %s\n", text, api->log);
    }
    (void)pthread_mutex_unlock(&api->log_mutex);
    return found;
}

int api_up(void **state)
{
    struct api *api = calloc(1, sizeof(*api));
    const char *temporary = getenv("TMPDIR");
    assert_non_null(api);
    fault_os_init(&api->fault, NULL);
    assert_int_equal(pthread_mutex_init(&api->log_mutex, NULL), 0);
    (void)snprintf(api->directory, sizeof(api->directory), "%.40s/abode-api-XXXXXX",
                   temporary != NULL ? temporary : "/tmp");
    assert_non_null(mkdtemp(api->directory));
    api->paths[0] = api->directory;
    api->hybrid_bytes = 4u << 20;
    api->paged_bytes = 2u << 20;
    abode_config_init(&api->config);
    api->config.flags = ABODE_CREATE;
    api->config.memory_bytes_max = 8u << 20;
    api->config.store_bytes_max = 64u << 20;
    api->config.segment_bytes = 1u << 20;
    api->config.huge = ABODE_HUGE_NONE;
    const char *io =
        getenv("ABODE_TEST_IO"); /* "sync": memcheck does not see what a ring's kernel writes */
    api->config.io = io != NULL && strcmp(io, "sync") == 0 ? ABODE_IO_SYNC : ABODE_IO_AUTO;
    api->config.store_paths = api->paths;
    api->config.store_path_count = 1;
    api->config.log = api_log_write;
    api->config.log_context = api;
    *state = api;
    return 0;
}

int api_down(void **state)
{
    struct api *api = *state;
    fault_os_clear(&api->fault);
    if (api->runtime != NULL) {
        api_close(api);
    }
    api_remove_tree(api->directory);
    int64_t left = fault_os_allocations(&api->fault);
    fault_os_free(&api->fault);
    (void)pthread_mutex_destroy(&api->log_mutex);
    free(api);
    if (left != 0) {
        print_error("%lld allocations were not freed\n", (long long)left);
    }
    return left == 0 ? 0 : -1;
}

int api_try_open(struct api *api)
{
    api->log_size = 0;
    api->log[0] = '\0';
    return ab_open_with_os(&api->config, &api->fault.os, &api->runtime);
}

static const struct abode_plane KV_PLANES[] = {{API_BLOCK_TOKENS * API_TOKEN_BYTES, 0},
                                               {API_BLOCK_TOKENS * API_TOKEN_BYTES, 0}};
static const struct abode_plane STATE_PLANES[] = {{API_STATE_BYTES, 0}};
static const struct abode_component HYBRID[] = {
    {.kind = ABODE_PAGED, .plane_count = 2, .planes = KV_PLANES},
    {.kind = ABODE_SNAPSHOT, .snapshots_kept = 2, .plane_count = 1, .planes = STATE_PLANES},
    {.kind = ABODE_BYTES, .snapshots_kept = 2, .bytes_max = API_BYTES_MAX},
};

struct abode_model_desc api_hybrid_desc(const struct api *api)
{
    return (struct abode_model_desc){.struct_size = sizeof(struct abode_model_desc),
                                     .component_count = 3,
                                     .components = HYBRID,
                                     .block_tokens = API_BLOCK_TOKENS,
                                     .session_tokens_max = 4096,
                                     .session_tokens_typical = 64,
                                     .memory_bytes = api->hybrid_bytes,
                                     .tag = "hybrid"};
}

struct abode_model_desc api_paged_desc(const struct api *api)
{
    return (struct abode_model_desc){.struct_size = sizeof(struct abode_model_desc),
                                     .component_count = 1,
                                     .components = HYBRID,
                                     .block_tokens = API_BLOCK_TOKENS,
                                     .session_tokens_max = 4096,
                                     .memory_bytes = api->paged_bytes,
                                     .tag = "paged"};
}

void api_open(struct api *api)
{
    int status = api_try_open(api);
    if (status != 0) {
        print_error("open: %s; log: %s\n", abode_strerror(status), api->log);
    }
    assert_int_equal(status, 0);
    struct abode_model_desc hybrid = api_hybrid_desc(api), paged = api_paged_desc(api);
    if (api->hybrid_bytes > 0) {
        assert_int_equal(abode_model_add(api->runtime, &hybrid, &api->hybrid), 0);
    }
    if (api->paged_bytes > 0) {
        assert_int_equal(abode_model_add(api->runtime, &paged, &api->paged), 0);
    }
    assert_int_equal(abode_queue_open(api->runtime, 64, &api->queue), 0);
}

void api_close(struct api *api)
{
    if (api->queue != NULL) {
        struct abode_op *op;
        while (abode_queue_pending(api->queue) > 0) {
            assert_true(abode_poll(api->queue, &op, 1, 30 * SECOND_NS) > 0);
        }
        assert_int_equal(abode_queue_close(api->queue), 0);
    }
    assert_int_equal(abode_close(api->runtime), 0);
    api->queue = NULL;
    api->runtime = NULL;
}

void api_reopen(struct api *api)
{
    api_close(api);
    api_open(api);
}

/* ---- content ---- */

static unsigned char mix(uint64_t value)
{
    value *= 0x9e3779b97f4a7c15ull;
    value ^= value >> 29;
    return (unsigned char)(value * 0xbf58476d1ce4e5b9ull >> 56);
}

void api_token_bytes(uint32_t salt, uint64_t position, uint32_t plane, unsigned char *ret,
                     size_t size)
{
    for (size_t i = 0; i < size; i++) {
        ret[i] = mix((uint64_t)salt << 40 ^ position << 16 ^ (uint64_t)plane << 12 ^ i);
    }
}

void api_state_bytes(uint32_t salt, uint64_t position, uint32_t component, unsigned char *ret,
                     size_t size)
{
    for (size_t i = 0; i < size; i++) {
        ret[i] = mix((uint64_t)salt << 40 ^ position << 20 ^ (uint64_t)component << 60 ^ i);
    }
}

static size_t bytes_size(uint64_t position)
{
    return 100 + position * 3; /* any function: sizes differ from one position to the next */
}

/* ---- sessions ---- */

struct abode_key api_name(uint32_t number)
{
    struct abode_key key;
    abode_key_from_bytes(&number, sizeof(number), &key);
    return key;
}

struct abode_session api_create(struct api *api, uint32_t model, uint32_t name)
{
    struct abode_key key = api_name(name);
    struct abode_session_opts opts = {.struct_size = sizeof(opts),
                                      .model = model,
                                      .home_node = -1,
                                      .name = name != 0 ? &key : NULL};
    struct abode_session session = {0};
    assert_int_equal(abode_session_create(api->runtime, &opts, &session), 0);
    return session;
}

struct abode_session api_find(struct api *api, uint32_t name)
{
    struct abode_key key = api_name(name);
    struct abode_session session = {0};
    assert_int_equal(abode_session_find(api->runtime, &key, &session), 0);
    return session;
}

struct abode_session_info api_stat(struct api *api, struct abode_session session)
{
    struct abode_session_info info;
    assert_int_equal(abode_session_stat(api->runtime, session, &info), 0);
    return info;
}

uint64_t api_tokens(struct api *api, struct abode_session session)
{
    return api_stat(api, session).token_count;
}

static void span_fill(const struct abode_span *span, const struct abode_view *view, uint32_t salt)
{
    for (uint32_t plane = 0; plane < view->plane_count; plane++) {
        for (uint32_t t = span->token_first; t < span->token_first + span->token_count; t++) {
            api_token_bytes(salt, (uint64_t)span->row * API_BLOCK_TOKENS + t, plane,
                            span->base + view->plane_offsets[plane] + (size_t)t * API_TOKEN_BYTES,
                            API_TOKEN_BYTES);
        }
    }
}

int api_append(struct api *api, struct abode_session session, uint32_t salt, uint32_t count)
{
    struct abode_span spans[512];
    int used = -EAGAIN;
    for (uint32_t tries = 0; used == -EAGAIN && tries < APPEND_TRIES; tries++) {
        used = abode_append_reserve(api->runtime, session, count, spans, 512);
        if (used == -EAGAIN) {
            (void)usleep(100);
        }
    }
    if (used < 0) {
        return used;
    }
    struct abode_view view;
    assert_int_equal(abode_session_view(api->runtime, session, API_KV, &view), 0);
    for (int i = 0; i < used; i++) {
        span_fill(&spans[i], &view, salt);
    }
    return abode_append_commit(api->runtime, session, count, NULL, 0);
}

int api_truncate(struct api *api, struct abode_session session, uint64_t token_count)
{
    int status = -EAGAIN;
    for (uint32_t tries = 0; status == -EAGAIN && tries < APPEND_TRIES; tries++) {
        status = abode_session_truncate(api->runtime, session, token_count);
        if (status == -EAGAIN) {
            (void)usleep(100);
        }
    }
    return status;
}

int api_snapshot(struct api *api, struct abode_session session, uint32_t salt)
{
    uint64_t at = api_tokens(api, session);
    for (uint32_t c = API_STATE; c <= API_BYTES; c++) {
        void *bytes;
        size_t size = c == API_STATE ? API_STATE_BYTES : bytes_size(at);
        int status = -EAGAIN;
        for (uint32_t tries = 0; status == -EAGAIN && tries < APPEND_TRIES; tries++) {
            status = abode_snapshot_reserve(api->runtime, session, c, size, &bytes);
            if (status == -EAGAIN) {
                (void)usleep(100);
            }
        }
        if (status == 0) {
            api_state_bytes(salt, at, c, bytes, size);
            status = abode_snapshot_commit(api->runtime, session, c);
        }
        if (status != 0) {
            return status;
        }
    }
    return 0;
}

void api_turn(struct api *api, struct abode_session session, uint32_t salt, uint32_t count)
{
    assert_int_equal(api_append(api, session, salt, count), 0);
    if (api_stat(api, session).model == api->hybrid && api->hybrid_bytes > 0) {
        assert_int_equal(api_snapshot(api, session, salt), 0);
    }
}

static void state_check(struct api *api, struct abode_session session, uint32_t salt,
                        uint64_t tokens)
{
    unsigned char expected[API_BYTES_MAX];
    for (uint32_t c = API_STATE; c <= API_BYTES; c++) {
        const void *bytes;
        size_t size;
        uint64_t at;
        assert_int_equal(abode_snapshot_get(api->runtime, session, c, &bytes, &size, &at), 0);
        assert_int_equal(at, tokens);
        assert_int_equal(size, c == API_STATE ? API_STATE_BYTES : bytes_size(at));
        api_state_bytes(salt, at, c, expected, size);
        assert_memory_equal(bytes, expected, size);
    }
}

void api_check(struct api *api, struct abode_session session, uint32_t salt, uint64_t tokens)
{
    struct abode_view view;
    unsigned char expected[API_TOKEN_BYTES];
    assert_int_equal(abode_session_view(api->runtime, session, API_KV, &view), 0);
    assert_int_equal(view.token_count, tokens);
    for (uint64_t t = 0; t < tokens; t++) {
        for (uint32_t plane = 0; plane < view.plane_count; plane++) {
            const unsigned char *bytes =
                abode_view_plane(&view, (uint32_t)(t / API_BLOCK_TOKENS), plane) +
                t % API_BLOCK_TOKENS * API_TOKEN_BYTES;
            api_token_bytes(salt, t, plane, expected, sizeof(expected));
            if (memcmp(bytes, expected, sizeof(expected)) != 0) {
                print_error("token %llu, plane %u\n", (unsigned long long)t, plane);
            }
            assert_memory_equal(bytes, expected, sizeof(expected));
        }
    }
    if (tokens > 0 && api->hybrid_bytes > 0 && api_stat(api, session).model == api->hybrid) {
        state_check(api, session, salt, tokens);
    }
}

int api_wait(struct api *api, struct abode_op *op, int started)
{
    if (started != 0) {
        return started;
    }
    struct abode_op *done = NULL;
    assert_int_equal(abode_poll(api->queue, &done, 1, 60 * SECOND_NS), 1);
    assert_ptr_equal(done, op);
    return done->status;
}

int api_attach(struct api *api, struct abode_session session, uint32_t flags)
{
    struct abode_op op = {.timeout_ns = 0};
    return api_wait(api, &op, abode_attach(api->queue, session, -1, flags, &op));
}

int api_detach(struct api *api, struct abode_session session, uint32_t flags)
{
    struct abode_op op = {.timeout_ns = 0};
    return api_wait(api, &op, abode_detach(api->queue, session, flags, &op));
}

/* ---- damage ---- */

static void damage_note(void *context, const struct abode_damage *damage)
{
    struct api_damage *found = context;
    if (found->count++ == 0) {
        found->first = *damage;
    }
}

uint64_t api_verify(struct api *api, struct api_damage *ret)
{
    struct abode_verify_report report;
    *ret = (struct api_damage){.count = 0};
    assert_int_equal(abode_verify(api->runtime, NULL, damage_note, ret, &report), 0);
    assert_int_equal(report.blocks_bad, ret->count);
    return report.blocks_bad;
}

static bool corrupt_file(const char *path, const void *bytes, size_t size)
{
    bool found = false;
    int fd = open(path, O_RDWR | O_CLOEXEC);
    struct stat status;
    assert_true(fd >= 0 && fstat(fd, &status) == 0);
    unsigned char *content = malloc((size_t)status.st_size);
    assert_non_null(content);
    assert_int_equal(pread(fd, content, (size_t)status.st_size, 0), status.st_size);
    unsigned char *at = memmem(content, (size_t)status.st_size, bytes, size);
    if (at != NULL) {
        unsigned char flipped = (unsigned char)(*at ^ 1);
        assert_int_equal(pwrite(fd, &flipped, 1, at - content), 1);
        assert_int_equal(fsync(fd), 0);
        found = true;
    }
    free(content);
    (void)close(fd);
    return found;
}

void api_corrupt(const struct api *api, const void *bytes, size_t size)
{
    char path[512];
    (void)snprintf(path, sizeof(path), "%s/segments", api->directory);
    DIR *directory = opendir(path);
    assert_non_null(directory);
    bool found = false;
    for (const struct dirent *entry = readdir(directory); entry != NULL && !found;
         entry = readdir(directory)) {
        (void)snprintf(path, sizeof(path), "%s/segments/%s", api->directory, entry->d_name);
        found = entry->d_name[0] != '.' && corrupt_file(path, bytes, size);
    }
    (void)closedir(directory);
    assert_true(found);
}
