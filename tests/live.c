/* live.c - see live.h. */
#include "live.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define WAIT_NS 60000000000LL /* far past anything that works; shorter than the runner's limit */
#define APPEND_TRIES 2000u    /* of 1 ms each */
#define POLL_PAUSE_NS 1000000
#define DIRECTORY_DEPTH_MAX 4
#define SPANS_MAX (2u * (LIVE_ROWS_MAX + 1u))

static const struct abode_plane paged_planes[] = {{.bytes_per_block = 32768},
                                                  {.bytes_per_block = 16384}};
static const struct abode_plane window_planes[] = {{.bytes_per_block = 16384}};
static const struct abode_plane snapshot_planes[] = {{.bytes_per_block = 24000}};
static const struct abode_plane small_paged_planes[] = {{.bytes_per_block = 4096},
                                                        {.bytes_per_block = 1536}};
static const struct abode_plane small_window_planes[] = {{.bytes_per_block = 3072}};
static const struct abode_plane small_snapshot_planes[] = {{.bytes_per_block = 5000}};
#define SMALL_BYTES_MAX 6000u
static const struct abode_component large_components[LIVE_COMPONENT_COUNT] = {
    [LIVE_PAGED] = {.kind = ABODE_PAGED, .plane_count = 2, .planes = paged_planes},
    [LIVE_WINDOW] = {.kind = ABODE_WINDOW,
                     .window_tokens = LIVE_WINDOW_TOKENS,
                     .plane_count = 1,
                     .planes = window_planes},
    [LIVE_SNAPSHOT] = {.kind = ABODE_SNAPSHOT,
                       .snapshots_kept = LIVE_SNAPSHOTS_KEPT,
                       .plane_count = 1,
                       .planes = snapshot_planes},
    [LIVE_BYTES] = {.kind = ABODE_BYTES,
                    .snapshots_kept = LIVE_SNAPSHOTS_KEPT,
                    .bytes_max = LIVE_BYTES_MAX},
};
static const struct abode_component small_components[LIVE_COMPONENT_COUNT] = {
    [LIVE_PAGED] = {.kind = ABODE_PAGED, .plane_count = 2, .planes = small_paged_planes},
    [LIVE_WINDOW] = {.kind = ABODE_WINDOW,
                     .window_tokens = LIVE_WINDOW_TOKENS,
                     .plane_count = 1,
                     .planes = small_window_planes},
    [LIVE_SNAPSHOT] = {.kind = ABODE_SNAPSHOT,
                       .snapshots_kept = LIVE_SNAPSHOTS_KEPT,
                       .plane_count = 1,
                       .planes = small_snapshot_planes},
    [LIVE_BYTES] = {.kind = ABODE_BYTES,
                    .snapshots_kept = LIVE_SNAPSHOTS_KEPT,
                    .bytes_max = SMALL_BYTES_MAX},
};
static const struct abode_component *components = large_components;
static uint32_t bytes_max = LIVE_BYTES_MAX;
static struct live_tuning tuned;

void live_tune(const struct live_tuning *tuning)
{
    tuned = *tuning;
    components = tuning->is_small ? small_components : large_components;
    bytes_max = tuning->is_small ? SMALL_BYTES_MAX : LIVE_BYTES_MAX;
}

static uint32_t snapshot_bytes(void)
{
    return components[LIVE_SNAPSHOT].planes[0].bytes_per_block;
}

/* false: it was the last try */
static bool pause_between_tries(void)
{
    const struct timespec pause = {.tv_nsec = tuned.pause_ns == 0 ? 1000000 : tuned.pause_ns};

    if (tuned.gives_up != NULL && tuned.gives_up()) {
        return false;
    }
    (void)nanosleep(&pause, NULL);
    return true;
}

uint64_t live_random(uint64_t *state)
{
    uint64_t value = (*state += 0x9e3779b97f4a7c15u);

    value = (value ^ (value >> 30)) * 0xbf58476d1ce4e5b9u;
    value = (value ^ (value >> 27)) * 0x94d049bb133111ebu;
    return value ^ (value >> 31);
}

uint32_t live_random_below(uint64_t *state, uint32_t bound)
{
    return (uint32_t)((live_random(state) >> 32) * bound >> 32);
}

uint64_t live_option(int argc, char **argv, const char *name, uint64_t fallback)
{
    for (int index = 1; index + 1 < argc; index++) {
        char *end = NULL;
        uint64_t value;

        if (strcmp(argv[index], name) != 0) {
            continue;
        }
        errno = 0;
        value = strtoull(argv[index + 1], &end, 0);
        if (errno != 0 || end == argv[index + 1] || *end != '\0') {
            fprintf(stderr, "%s takes a number, not %s\n", name, argv[index + 1]);
            exit(2);
        }
        return value;
    }
    return fallback;
}

uint64_t live_seed(int argc, char **argv)
{
    const char *text = getenv("ABODE_TEST_SEED");
    struct timespec now;

    if (text != NULL && *text != '\0') {
        return live_option(argc, argv, "--seed", strtoull(text, NULL, 0));
    }
    (void)clock_gettime(CLOCK_REALTIME, &now);
    return live_option(argc, argv, "--seed", (uint64_t)now.tv_nsec ^ (uint64_t)now.tv_sec << 20);
}

uint64_t live_clock_ns(void)
{
    struct timespec now;

    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

void live_log(void *context, int level, const char *line)
{
    (void)context;
    if (getenv("ABODE_TEST_LOG") != NULL) {
        fprintf(stderr, "log %d: %s\n", level, line);
    }
}

void live_key(uint64_t number, struct abode_key *ret)
{
    abode_key_from_bytes(&number, sizeof(number), ret);
}

int live_directory_make(char *ret_path, size_t capacity)
{
    const char *base = getenv("TMPDIR");
    int size = snprintf(ret_path, capacity, "%s/abode-live.XXXXXX", base != NULL ? base : "/tmp");

    if (size < 0 || (size_t)size >= capacity) {
        return -ENAMETOOLONG;
    }
    return mkdtemp(ret_path) != NULL ? 0 : -errno;
}

/* One level: files go; folders are left for the caller, whose list this fills. */
static void directory_empty(int parent, const char *name, int depth)
{
    int fd = openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    DIR *dir = fd >= 0 ? fdopendir(fd) : NULL;
    const struct dirent *entry;

    if (dir == NULL) {
        if (fd >= 0) {
            (void)close(fd);
        }
        return;
    }
    while ((entry = readdir(dir)) != NULL) {
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0) {
            continue;
        }
        if (unlinkat(fd, entry->d_name, 0) != 0 && depth < DIRECTORY_DEPTH_MAX) {
            directory_empty(fd, entry->d_name, depth + 1);
        }
    }
    (void)closedir(dir);
    (void)unlinkat(parent, name, AT_REMOVEDIR);
}

void live_directory_remove(const char *path)
{
    directory_empty(AT_FDCWD, path, 0);
}

int live_host_open(struct abode *runtime, uint64_t memory_bytes, struct live_host *ret)
{
    struct abode_model_desc desc = {.struct_size = sizeof(desc),
                                    .component_count = LIVE_COMPONENT_COUNT,
                                    .components = components,
                                    .block_tokens = LIVE_BLOCK_TOKENS,
                                    .session_tokens_max = LIVE_TOKENS_MAX,
                                    .session_tokens_typical = LIVE_TOKENS_MAX / 2,
                                    .memory_bytes = memory_bytes,
                                    .tag = "live test model"};
    struct live_host host = {.runtime = runtime};
    int rc = abode_model_add(runtime, &desc, &host.model);

    if (rc < 0) {
        return rc;
    }
    rc = abode_queue_open(runtime, 64, &host.queue);
    if (rc < 0) {
        return rc;
    }
    *ret = host;
    return 0;
}

int live_host_close(struct live_host *host)
{
    int queue_rc = abode_queue_close(host->queue);
    int rc = abode_close(host->runtime);

    return queue_rc < 0 ? queue_rc : rc;
}

int live_wait(struct live_host *host, struct abode_op *op)
{
    const struct timespec pause = {.tv_nsec = POLL_PAUSE_NS};
    struct abode_op *done = NULL;
    int count = 0;

    /* the op stays in flight when a poll fails, and lies on the caller's stack: ask again */
    for (uint64_t waited = 0; count <= 0 && waited < WAIT_NS; waited += POLL_PAUSE_NS) {
        count = abode_poll(host->queue, &done, 1, WAIT_NS);
        if (count == 0) {
            return -ETIME;
        }
        if (count < 0) {
            (void)nanosleep(&pause, NULL);
        }
    }
    if (count < 0) {
        return count;
    }
    return done == op ? op->status : -EPROTO;
}

int live_attach(struct live_host *host, struct abode_session session, int32_t node, uint32_t flags)
{
    struct abode_op op = {0};
    int rc = abode_attach(host->queue, session, node, flags, &op);

    return rc < 0 ? rc : live_wait(host, &op);
}

int live_detach(struct live_host *host, struct abode_session session, uint32_t flags)
{
    struct abode_op op = {0};
    int rc = abode_detach(host->queue, session, flags, &op);

    return rc < 0 ? rc : live_wait(host, &op);
}

/* ---- content: words of 8 bytes, from the stamp and the place --------------------------------- */

static uint64_t word_at(uint64_t place, uint32_t index)
{
    uint64_t value = (place + index) * 0xd6e8feb86659fd93u;

    return value ^ (value >> 32);
}

static uint64_t place_of(uint32_t stamp, enum live_component component, uint32_t plane,
                         uint32_t token)
{
    uint64_t seed =
        (uint64_t)stamp << 32 ^ (uint64_t)component << 28 ^ (uint64_t)plane << 20 ^ token;

    return live_random(&seed);
}

static void content_fill(uint64_t place, unsigned char *bytes, uint32_t size)
{
    uint32_t index = 0;

    for (uint32_t done = 0; done < size; done += 8, index++) {
        uint64_t word = word_at(place, index);

        memcpy(bytes + done, &word, size - done < 8 ? size - done : 8);
    }
}

static bool content_is(uint64_t place, const unsigned char *bytes, uint32_t size)
{
    uint32_t index = 0;

    for (uint32_t done = 0; done < size; done += 8, index++) {
        uint64_t word = word_at(place, index);

        if (memcmp(bytes + done, &word, size - done < 8 ? size - done : 8) != 0) {
            return false;
        }
    }
    return true;
}

/* ---- append and snapshot ----------------------------------------------------------------------- */

static int view_get(struct live_host *host, struct abode_session session,
                    enum live_component component, struct abode_view *ret)
{
    *ret = (struct abode_view){.struct_size = sizeof(*ret)};
    return abode_session_view(host->runtime, session, component, ret);
}

static void span_fill(const struct abode_view *view, const struct abode_span *span, uint32_t stamp)
{
    const struct abode_component *component = &components[span->component];

    for (uint32_t plane = 0; plane < component->plane_count; plane++) {
        uint32_t token_bytes = component->planes[plane].bytes_per_block / LIVE_BLOCK_TOKENS;
        unsigned char *base = span->base + view->plane_offsets[plane];

        for (uint32_t token = 0; token < span->token_count; token++) {
            uint32_t in_row = span->token_first + token;

            content_fill(
                place_of(stamp, span->component, plane, span->row * LIVE_BLOCK_TOKENS + in_row),
                base + (size_t)in_row * token_bytes, token_bytes);
        }
    }
}

static int reserve_patiently(struct live_host *host, struct abode_session session,
                             uint32_t token_count, struct abode_span spans[SPANS_MAX])
{
    for (uint32_t attempt = 0; attempt < APPEND_TRIES; attempt++) {
        int rc = abode_append_reserve(host->runtime, session, token_count, spans, SPANS_MAX);

        if (rc != -EAGAIN || !pause_between_tries()) {
            return rc;
        }
    }
    return -EAGAIN;
}

int live_append(struct live_host *host, struct abode_session session, struct live_state *state,
                uint32_t token_count, uint32_t stamp)
{
    struct abode_span spans[SPANS_MAX];
    int span_count = reserve_patiently(host, session, token_count, spans);
    int rc;

    if (span_count < 0) {
        return span_count;
    }
    for (int index = 0; index < span_count; index++) {
        struct abode_view view;

        rc = view_get(host, session, spans[index].component, &view);
        if (rc < 0) {
            return rc;
        }
        span_fill(&view, &spans[index], stamp);
    }
    rc = abode_append_commit(host->runtime, session, token_count, NULL, 0);
    if (rc < 0) {
        return rc;
    }
    for (uint32_t token = 0; token < token_count; token++) {
        state->stamps[state->token_count + token] = stamp;
    }
    state->token_count += token_count;
    return 0;
}

int live_truncate(struct live_host *host, struct abode_session session, uint64_t token_count)
{
    int rc = -EAGAIN;

    for (uint32_t attempt = 0; attempt < APPEND_TRIES && rc == -EAGAIN; attempt++) {
        rc = abode_session_truncate(host->runtime, session, token_count);
        if (rc == -EAGAIN && !pause_between_tries()) {
            break;
        }
    }
    return rc;
}

int live_fork(struct live_host *host, struct abode_session parent, uint64_t token_count,
              const struct abode_key *name, struct abode_session *ret)
{
    int rc = -EAGAIN;

    for (uint32_t attempt = 0; attempt < APPEND_TRIES && rc == -EAGAIN; attempt++) {
        rc = abode_session_fork(host->runtime, parent, token_count, name, ret);
        if (rc == -EAGAIN && !pause_between_tries()) {
            break;
        }
    }
    return rc;
}

static int snapshot_reserve_patiently(struct live_host *host, struct abode_session session,
                                      uint32_t component, size_t size, void **ret)
{
    for (uint32_t attempt = 0; attempt < APPEND_TRIES; attempt++) {
        int rc = abode_snapshot_reserve(host->runtime, session, component, size, ret);

        if (rc != -EAGAIN || !pause_between_tries()) {
            return rc;
        }
    }
    return -EAGAIN;
}

int live_snapshot(struct live_host *host, struct abode_session session, struct live_state *state,
                  uint32_t stamp)
{
    struct live_state next = *state;
    void *bytes = NULL;
    int rc = snapshot_reserve_patiently(host, session, LIVE_SNAPSHOT, 0, &bytes);

    if (rc < 0) {
        return rc;
    }
    content_fill(place_of(stamp, LIVE_SNAPSHOT, 0, 0), bytes, snapshot_bytes());
    rc = abode_snapshot_commit(host->runtime, session, LIVE_SNAPSHOT);
    if (rc < 0) {
        return rc;
    }
    live_state_snapshot(&next, stamp);
    rc = snapshot_reserve_patiently(host, session, LIVE_BYTES, next.bytes_size, &bytes);
    if (rc < 0) {
        return rc;
    }
    content_fill(place_of(stamp, LIVE_BYTES, 0, 0), bytes, next.bytes_size);
    rc = abode_snapshot_commit(host->runtime, session, LIVE_BYTES);
    if (rc < 0) {
        return rc;
    }
    *state = next;
    return 0;
}

void live_state_snapshot(struct live_state *state, uint32_t stamp)
{
    state->restore_point = state->token_count;
    state->snapshot_stamp = stamp;
    state->bytes_size = 1 + stamp % bytes_max;
}

void live_state_drop_tail(struct live_state *state)
{
    state->token_count = state->restore_point;
}

bool live_state_equal(const struct live_state *left, const struct live_state *right)
{
    return left->token_count == right->token_count && left->restore_point == right->restore_point &&
           left->snapshot_stamp == right->snapshot_stamp && left->bytes_size == right->bytes_size &&
           memcmp(left->stamps, right->stamps, left->token_count * sizeof(left->stamps[0])) == 0;
}

/* ---- compare ------------------------------------------------------------------------------------ */

static int differs(char ret_why[LIVE_WHY_MAX], const char *format, ...)
    __attribute__((format(printf, 2, 3)));
static int differs(char ret_why[LIVE_WHY_MAX], const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    (void)vsnprintf(ret_why, LIVE_WHY_MAX, format, arguments);
    va_end(arguments);
    return -EBADMSG;
}

/* Which stamp the bytes do have, for the message: stamps are small in every test. */
static const char *stamp_seen(const struct live_state *state, enum live_component component,
                              uint32_t plane, uint32_t token, const unsigned char *bytes,
                              uint32_t size, char text[64])
{
    for (uint32_t other = 0; other < state->token_count; other++) {
        if (content_is(place_of(state->stamps[other], component, plane, token), bytes, size)) {
            (void)snprintf(text, 64, "those of stamp %u", state->stamps[other]);
            return text;
        }
    }
    for (uint32_t index = 0; index < size; index++) {
        if (bytes[index] != 0) {
            return "no token's of this session";
        }
    }
    return "all zero";
}

static int row_compare(const struct abode_view *view, enum live_component component, uint32_t row,
                       const struct live_state *state, char ret_why[LIVE_WHY_MAX],
                       uint64_t *compared)
{
    uint32_t first = row * LIVE_BLOCK_TOKENS;
    uint32_t end = first + LIVE_BLOCK_TOKENS < state->token_count ? first + LIVE_BLOCK_TOKENS
                                                                  : state->token_count;

    for (uint32_t plane = 0; plane < components[component].plane_count; plane++) {
        uint32_t size = components[component].planes[plane].bytes_per_block / LIVE_BLOCK_TOKENS;
        const unsigned char *base = abode_view_plane(view, row, plane);

        for (uint32_t token = first; token < end; token++) {
            const unsigned char *bytes = base + (size_t)(token - first) * size;
            char text[64];

            if (!content_is(place_of(state->stamps[token], component, plane, token), bytes, size)) {
                return differs(ret_why,
                               "component %d plane %u token %u of %u: bytes of stamp %u "
                               "wanted, they are %s",
                               (int)component, plane, token, state->token_count,
                               state->stamps[token],
                               stamp_seen(state, component, plane, token, bytes, size, text));
            }
            *compared += size;
        }
    }
    return 0;
}

static int rows_compare(struct live_host *host, struct abode_session session,
                        enum live_component component, const struct live_state *state,
                        char ret_why[LIVE_WHY_MAX], uint64_t *compared)
{
    uint32_t rows = (state->token_count + LIVE_BLOCK_TOKENS - 1) / LIVE_BLOCK_TOKENS;
    uint32_t window_first = 0;
    struct abode_view view;
    int rc = view_get(host, session, component, &view);

    if (rc < 0) {
        return rc;
    }
    if (view.token_count != state->token_count || view.row_count != rows) {
        return differs(ret_why, "component %d: view has %llu tokens in %u rows, wanted %u in %u",
                       (int)component, (unsigned long long)view.token_count, view.row_count,
                       state->token_count, rows);
    }
    if (component == LIVE_WINDOW && state->token_count > LIVE_WINDOW_TOKENS) {
        window_first = (state->token_count - LIVE_WINDOW_TOKENS) / LIVE_BLOCK_TOKENS;
    }
    for (uint32_t row = 0; row < rows; row++) {
        if (view.frames[row] == ABODE_FRAME_NONE) {
            if (component == LIVE_PAGED || row >= window_first) {
                return differs(ret_why, "component %d: row %u of %u has no frame", (int)component,
                               row, rows);
            }
            continue;
        }
        rc = row_compare(&view, component, row, state, ret_why, compared);
        if (rc < 0) {
            return rc;
        }
    }
    return 0;
}

static int snapshot_compare(struct live_host *host, struct abode_session session,
                            enum live_component component, const struct live_state *state,
                            uint32_t size_wanted, char ret_why[LIVE_WHY_MAX], uint64_t *compared)
{
    const void *bytes = NULL;
    size_t size = 0;
    uint64_t token_count = 0;
    int rc = abode_snapshot_get(host->runtime, session, component, &bytes, &size, &token_count);

    if (rc < 0) {
        return rc;
    }
    if (size != size_wanted || token_count != state->restore_point) {
        return differs(ret_why, "component %d: %zu bytes at token %llu, wanted %u at %u",
                       (int)component, size, (unsigned long long)token_count, size_wanted,
                       state->restore_point);
    }
    if (!content_is(place_of(state->snapshot_stamp, component, 0, 0), bytes, size_wanted)) {
        return differs(ret_why, "component %d: not the bytes of stamp %u", (int)component,
                       state->snapshot_stamp);
    }
    *compared += size;
    return 0;
}

int live_compare(struct live_host *host, struct abode_session session,
                 const struct live_state *state, char ret_why[LIVE_WHY_MAX], uint64_t *compared)
{
    uint64_t ignored = 0;
    uint64_t *count = compared != NULL ? compared : &ignored;
    int rc;

    ret_why[0] = '\0';
    for (enum live_component component = LIVE_PAGED; component <= LIVE_WINDOW; component++) {
        rc = rows_compare(host, session, component, state, ret_why, count);
        if (rc < 0) {
            return rc;
        }
    }
    if (state->restore_point == 0) {
        return 0;
    }
    rc = snapshot_compare(host, session, LIVE_SNAPSHOT, state, snapshot_bytes(), ret_why, count);
    if (rc < 0) {
        return rc;
    }
    return snapshot_compare(host, session, LIVE_BYTES, state, state->bytes_size, ret_why, count);
}

/* ---- cache items ---------------------------------------------------------------------------------- */

uint32_t live_item_size(uint64_t number)
{
    return 1 + (uint32_t)(live_random(&number) % bytes_max);
}

void live_item_fill(uint64_t number, void *bytes)
{
    content_fill(place_of((uint32_t)number, LIVE_COMPONENT_COUNT, 0, 0), bytes,
                 live_item_size(number));
}

bool live_item_is(uint64_t number, const void *bytes, uint64_t size)
{
    return size == live_item_size(number) &&
           content_is(place_of((uint32_t)number, LIVE_COMPONENT_COUNT, 0, 0), bytes,
                      (uint32_t)size);
}
