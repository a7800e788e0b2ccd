/* old_store.c - see old_store.h. */
#include "old_stores/old_store.h"

#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
// clang-format off
#include <cmocka.h>
// clang-format on
#include <openssl/evp.h>

#include "live.h"
#include "store/store.h"

#define STATE_BYTES 700u
#define BYTES_MAX 20000u
#define SPANS_MAX 64

/* Geometry and tags of the models of the fixtures: never to be changed. */
static const struct abode_plane kv_planes[] = {{.bytes_per_block = BLOCK_TOKENS * 64},
                                               {.bytes_per_block = BLOCK_TOKENS * 48}};
static const struct abode_plane window_planes[] = {{.bytes_per_block = BLOCK_TOKENS * 32}};
static const struct abode_plane state_planes[] = {{.bytes_per_block = STATE_BYTES}};
const struct abode_component old_components[COMPONENTS] = {
    [KV] = {.kind = ABODE_PAGED, .plane_count = 2, .planes = kv_planes},
    [WINDOW] = {.kind = ABODE_WINDOW,
                .window_tokens = WINDOW_TOKENS,
                .plane_count = 1,
                .planes = window_planes},
    [STATE] = {.kind = ABODE_SNAPSHOT,
               .snapshots_kept = 2,
               .plane_count = 1,
               .planes = state_planes},
    [BYTES] = {.kind = ABODE_BYTES, .snapshots_kept = 2, .bytes_max = BYTES_MAX},
};
const struct talk old_talks[TALKS] = {
    {.name = "alpha", .model = HYBRID, .tokens = 40, .seed = 11, .note_bytes = 100},
    {.name = "beta", .model = HYBRID, .tenant = 7, .tokens = 99, .seed = 23},
    {.name = "gone", .model = HYBRID, .tenant = 7, .tokens = 33, .seed = 31, .is_gone = true},
    {.name = "gamma", .model = PAGED, .tenant = 3, .tokens = 48, .seed = 47, .note_bytes = 3000},
    {.name = "delta",
     .model = PAGED,
     .tenant = 3,
     .tokens = 42,
     .seed = 53,
     .prefix_tokens = 32,
     .prefix_seed = 47},
};
const struct piece old_pieces[PIECES] = {
    {"item-one-byte", 1, 61, false},    {"item-page", 4096, 67, false},
    {"item-odd", 5001, 71, false},      {"item-gone", 4000, 73, true},
    {"item-largest", 20000, 79, false},
};

/* ---- content --------------------------------------------------------------------------------- */

/* Each byte says what it is of; runs, so that the fixtures compress. */
static void content_fill(uint32_t seed, uint32_t component, uint32_t plane, uint32_t at,
                         unsigned char *bytes, size_t size)
{
    const uint32_t first = seed * 37 + component * 11 + plane * 5 + at * 3;
    for (size_t i = 0; i < size; i++) {
        bytes[i] = (unsigned char)(first + i / 4);
    }
}

static uint32_t talk_seed(const struct talk *talk, uint32_t token)
{
    return token < talk->prefix_tokens ? talk->prefix_seed : talk->seed;
}

static uint32_t bytes_size(uint32_t token_count)
{
    return 50 + token_count * 4;
}

struct abode_key old_key(const char *name)
{
    struct abode_key key;
    abode_key_from_bytes(name, strlen(name), &key);
    return key;
}

/* ---- descriptions: lines, each a thing and the hash of all its bytes ------------------------- */

void text_add(struct text *text, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    const int size =
        vsnprintf(text->bytes + text->size, sizeof(text->bytes) - text->size, format, arguments);
    va_end(arguments);
    assert_true(size >= 0 && (size_t)size < sizeof(text->bytes) - text->size);
    text->size += (size_t)size;
}

void sum_begin(struct sum *sum)
{
    sum->bytes = 0;
    sum->context = EVP_MD_CTX_new();
    assert_non_null(sum->context);
    assert_int_equal(EVP_DigestInit_ex(sum->context, EVP_sha256(), NULL), 1);
}

void sum_add(struct sum *sum, const void *bytes, size_t size)
{
    assert_int_equal(EVP_DigestUpdate(sum->context, bytes, size), 1);
    sum->bytes += size;
}

void sum_tell(struct sum *sum, struct text *text, const char *what, const char *name)
{
    unsigned char digest[EVP_MAX_MD_SIZE];
    unsigned size = 0;
    assert_int_equal(EVP_DigestFinal_ex(sum->context, digest, &size), 1);
    EVP_MD_CTX_free(sum->context);
    text_add(text, "%s %s %llu bytes ", what, name, (unsigned long long)sum->bytes);
    for (size_t i = 0; i < size; i++) {
        text_add(text, "%02x", digest[i]);
    }
    text_add(text, "\n");
}

const char *old_component_name(uint32_t component)
{
    static const char *const names[] = {"kv", "window", "state", "bytes"};
    return names[component];
}

uint32_t old_token_first(const struct talk *talk, uint32_t component)
{
    const bool is_cut = component == WINDOW && talk->tokens > WINDOW_TOKENS;
    return is_cut ? talk->tokens - WINDOW_TOKENS : 0;
}

/* From the formula: what the store was given. */
void talk_expect(struct text *text, const struct talk *talk)
{
    unsigned char bytes[CHURN_NOTE_BYTES];
    struct sum sum;
    if (talk->is_gone) {
        text_add(text, "session %s gone\n", talk->name);
        return;
    }
    text_add(text, "session %s tenant %u tokens %u\n", talk->name, talk->tenant, talk->tokens);
    sum_begin(&sum);
    content_fill(talk->seed, COMPONENTS, 0, 0, bytes, talk->note_bytes);
    sum_add(&sum, bytes, talk->note_bytes);
    sum_tell(&sum, text, "  note", talk->name);
    const uint32_t count = talk->model == HYBRID ? (uint32_t)COMPONENTS : 1;
    for (uint32_t component = 0; component < count; component++) {
        sum_begin(&sum);
        for (uint32_t t = old_token_first(talk, component); t < talk->tokens && component <= WINDOW;
             t++) {
            for (uint32_t plane = 0; plane < old_components[component].plane_count; plane++) {
                const size_t size =
                    old_components[component].planes[plane].bytes_per_block / BLOCK_TOKENS;
                content_fill(talk_seed(talk, t), component, plane, t, bytes, size);
                sum_add(&sum, bytes, size);
            }
        }
        if (component > WINDOW) {
            const size_t size = component == STATE ? STATE_BYTES : bytes_size(talk->tokens);
            content_fill(talk->seed, component, 0, talk->tokens, bytes, size);
            sum_add(&sum, bytes, size);
        }
        char what[32];
        (void)snprintf(what, sizeof(what), "  %s", old_component_name(component));
        sum_tell(&sum, text, what, talk->name);
    }
}

void all_expect(struct text *text)
{
    unsigned char bytes[BYTES_MAX];
    for (uint32_t i = 0; i < TALKS; i++) {
        talk_expect(text, &old_talks[i]);
    }
    for (uint32_t i = 0; i < PIECES; i++) {
        struct sum sum;
        if (old_pieces[i].is_gone) {
            text_add(text, "item %s gone\n", old_pieces[i].name);
            continue;
        }
        sum_begin(&sum);
        content_fill(old_pieces[i].seed, BYTES, 0, 0, bytes, old_pieces[i].bytes);
        sum_add(&sum, bytes, old_pieces[i].bytes);
        sum_tell(&sum, text, "item", old_pieces[i].name);
    }
}

/* ---- the host -------------------------------------------------------------------------------- */

static void log_keep(void *context, int level, const char *line)
{
    struct host *host = context;
    const size_t used = strlen(host->log);
    (void)level;
    (void)snprintf(host->log + used, sizeof(host->log) - used, "%s\n", line);
}

void host_paths(struct host *host, const char *root, uint32_t path_count)
{
    (void)snprintf(host->root, sizeof(host->root), "%s", root);
    host->path_count = path_count;
    for (uint32_t i = 0; i < path_count; i++) {
        (void)snprintf(host->directories[i], sizeof(host->directories[i]), "%s/d%u", host->root, i);
        host->paths[i] = host->directories[i];
    }
}

int host_try_open(struct host *host, uint32_t flags)
{
    struct abode_config config;
    abode_config_init(&config);
    config.flags = flags;
    config.memory_bytes_max = 16u << 20;
    config.store_bytes_max = 8u << 20;
    config.segment_bytes = (flags & ABODE_CREATE) != 0 ? AB_SEGMENT_STEP : 0;
    config.store_paths = host->paths;
    config.store_path_count = host->path_count;
    config.log = log_keep;
    config.log_context = host;
    host->log[0] = '\0';
    return abode_open(&config, &host->runtime);
}

void host_open(struct host *host, uint32_t flags)
{
    const int status = host_try_open(host, flags);
    if (status != 0) {
        print_message("open: %s\n%s", abode_strerror(status), host->log);
    }
    assert_int_equal(status, 0);
    struct abode_model_desc desc = {.struct_size = sizeof(desc),
                                    .component_count = COMPONENTS,
                                    .components = old_components,
                                    .block_tokens = BLOCK_TOKENS,
                                    .session_tokens_max = 1024,
                                    .session_tokens_typical = 128,
                                    .memory_bytes = 8u << 20,
                                    .tag = "old stores, hybrid"};
    assert_int_equal(abode_model_add(host->runtime, &desc, &host->models[HYBRID]), 0);
    desc.component_count = 1;
    desc.memory_bytes = 4u << 20;
    memset(desc.tag, 0, sizeof(desc.tag));
    memcpy(desc.tag, "old stores, paged", 17);
    assert_int_equal(abode_model_add(host->runtime, &desc, &host->models[PAGED]), 0);
    assert_int_equal(abode_queue_open(host->runtime, 8, &host->queue), 0);
}

void host_close(struct host *host)
{
    assert_int_equal(abode_queue_close(host->queue), 0);
    assert_int_equal(abode_close(host->runtime), 0);
}

int host_finish(struct host *host, struct abode_op *op, int started)
{
    struct live_host live = {.runtime = host->runtime, .queue = host->queue};
    return started < 0 ? started : live_wait(&live, op);
}

int host_attach(struct host *host, struct abode_session session)
{
    struct abode_op op = {0};
    return host_finish(host, &op, abode_attach(host->queue, session, -1, 0, &op));
}

int host_detach(struct host *host, struct abode_session session, uint32_t flags)
{
    struct abode_op op = {0};
    return host_finish(host, &op, abode_detach(host->queue, session, flags, &op));
}

uint32_t host_region_add(struct host *host)
{
    const struct abode_region region = {
        .struct_size = sizeof(region), .node = -1, .base = host->scratch, .bytes = SCRATCH_BYTES};
    uint32_t number = 0;
    assert_int_equal(abode_region_add(host->runtime, &region, &number), 0);
    return number;
}

/* ---- making ---------------------------------------------------------------------------------- */

static void append(struct host *host, struct abode_session session, const struct talk *talk,
                   uint32_t first, uint32_t count)
{
    struct abode_span spans[SPANS_MAX];
    int span_count = -EAGAIN;
    while (span_count == -EAGAIN) {
        span_count = abode_append_reserve(host->runtime, session, count, spans, SPANS_MAX);
    }
    assert_true(span_count > 0);
    for (const struct abode_span *span = spans; span < spans + span_count; span++) {
        struct abode_view view;
        const struct abode_component *component = &old_components[span->component];
        view.struct_size = sizeof(view);
        assert_int_equal(abode_session_view(host->runtime, session, span->component, &view), 0);
        for (uint32_t t = span->token_first; t < span->token_first + span->token_count; t++) {
            for (uint32_t plane = 0; plane < component->plane_count; plane++) {
                const uint32_t size = component->planes[plane].bytes_per_block / BLOCK_TOKENS;
                const uint32_t token = span->row * BLOCK_TOKENS + t;
                content_fill(talk_seed(talk, token), span->component, plane, token,
                             span->base + view.plane_offsets[plane] + (size_t)t * size, size);
            }
        }
    }
    assert_int_equal(abode_append_commit(host->runtime, session, count, NULL, 0), 0);
    for (uint32_t component = STATE; talk->model == HYBRID && component <= BYTES; component++) {
        const size_t size = component == STATE ? STATE_BYTES : bytes_size(first + count);
        void *bytes = NULL;
        int status = -EAGAIN;
        while (status == -EAGAIN) {
            status = abode_snapshot_reserve(host->runtime, session, component, size, &bytes);
        }
        assert_int_equal(status, 0);
        content_fill(talk->seed, component, 0, first + count, bytes, size);
        assert_int_equal(abode_snapshot_commit(host->runtime, session, component), 0);
    }
}

void note_set(struct host *host, struct abode_session session, uint32_t seed, uint32_t bytes)
{
    unsigned char note[CHURN_NOTE_BYTES];
    content_fill(seed, COMPONENTS, 0, 0, note, bytes);
    assert_int_equal(abode_session_note_set(host->runtime, session, note, bytes), 0);
}

struct abode_session talk_make(struct host *host, const struct talk *talk)
{
    const struct abode_key name = old_key(talk->name);
    struct abode_session session;
    if (talk->prefix_tokens > 0) {
        const struct abode_key parent_name = old_key("gamma");
        struct abode_session parent;
        assert_int_equal(abode_session_find(host->runtime, &parent_name, &parent), 0);
        assert_int_equal(host_attach(host, parent), 0);
        assert_int_equal(
            abode_session_fork(host->runtime, parent, talk->prefix_tokens, &name, &session), 0);
        assert_int_equal(host_detach(host, parent, 0), 0);
    } else {
        const struct abode_session_opts opts = {.struct_size = sizeof(opts),
                                                .model = host->models[talk->model],
                                                .home_node = -1,
                                                .durability = talk->model == PAGED ? ABODE_WRITTEN
                                                                                   : ABODE_DURABLE,
                                                .name = &name,
                                                .tenant = talk->tenant};
        assert_int_equal(abode_session_create(host->runtime, &opts, &session), 0);
    }
    for (uint32_t at = talk->prefix_tokens;
         at < talk->tokens;) { /* turns: rows are written again */
        const uint32_t left = talk->tokens - at, count = left < 21 ? left : 21;
        append(host, session, talk, at, count);
        assert_int_equal(host_detach(host, session, ABODE_DETACH_KEEP), 0);
        at += count;
    }
    return session;
}

static void pieces_make(struct host *host)
{
    const uint32_t region = host_region_add(host);
    for (uint32_t i = 0; i < PIECES; i++) {
        struct abode_item item = {
            .key = old_key(old_pieces[i].name), .bytes = old_pieces[i].bytes, .region = region};
        struct abode_op op = {0};
        content_fill(old_pieces[i].seed, BYTES, 0, 0, host->scratch, old_pieces[i].bytes);
        const int started = abode_cache_put(host->queue, host->models[HYBRID], &item, 1,
                                            i % 2 == 0 ? ABODE_DURABLE : ABODE_WRITTEN, &op);
        assert_int_equal(host_finish(host, &op, started), 0);
    }
    for (uint32_t i = 0; i < PIECES; i++) {
        const struct abode_key key = old_key(old_pieces[i].name);
        struct abode_op op = {0};
        if (old_pieces[i].is_gone) {
            const int started = abode_cache_delete(host->queue, host->models[HYBRID], &key, 1, &op);
            assert_int_equal(host_finish(host, &op, started), 0);
        }
    }
    assert_int_equal(abode_region_remove(host->runtime, region), 0);
}

/* Everything of the tables; has_checkpoint: the journal has moved on to its second file. */
static void store_make(struct host *host, bool has_checkpoint)
{
    host_open(host, ABODE_CREATE);
    for (uint32_t i = 0; i < TALKS; i++) {
        const struct talk *talk = &old_talks[i];
        struct abode_session session = talk_make(host, talk);
        for (uint32_t k = 0; has_checkpoint && i == 1 && k < CHURN_COMMITS; k++) {
            note_set(host, session, k, CHURN_NOTE_BYTES);
            assert_int_equal(host_detach(host, session, ABODE_DETACH_KEEP), 0);
        }
        note_set(host, session, talk->seed, talk->note_bytes);
        assert_int_equal(host_detach(host, session, 0), 0);
        if (talk->is_gone) {
            assert_int_equal(abode_session_delete(host->runtime, session), 0);
        }
    }
    pieces_make(host);
}

int old_store_make(const char *kind, const char *directory)
{
    static struct text text;
    const bool is_killed = strcmp(kind, "killed") == 0;
    int status = 0;
    const pid_t child = fork();
    if (child == 0) {
        static struct host host;
        host.scratch = aligned_alloc(4096, SCRATCH_BYTES);
        host_paths(&host, directory, is_killed ? 1 : 2);
        store_make(&host, !is_killed);
        if (is_killed) { /* with a turn that nothing was promised for */
            const struct abode_key name = old_key("alpha");
            struct abode_session session;
            assert_int_equal(abode_session_find(host.runtime, &name, &session), 0);
            assert_int_equal(host_attach(&host, session), 0);
            append(&host, session, &old_talks[0], 40, 20);
            (void)raise(SIGKILL);
        }
        host_close(&host);
        _exit(0);
    }
    if (child < 0 || waitpid(child, &status, 0) != child ||
        (is_killed ? !WIFSIGNALED(status) : status != 0)) {
        fprintf(stderr, "the store could not be made (status %x)\n", (unsigned)status);
        return 1;
    }
    all_expect(&text);
    fputs(text.bytes, stdout);
    return 0;
}
