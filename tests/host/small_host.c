/*
 * small_host.c - a whole host: the smallest program that uses abode as a serving engine would. Copy it.
 *
 *     cc small_host.c $(pkg-config --cflags --libs abode) -o host && ./host /some/empty/directory
 *
 * Its "model" keeps K and V of every token (PAGED), a recurrent state that is valid at one position
 * (SNAPSHOT), and bytes of the host's own (BYTES). Talks are written, detached, and found by name
 * after a restart. A real host has other work to do where this one waits in finish().
 */
#include <abode/abode.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { BLOCK_TOKENS = 16, KV_BYTES = 256, STATE_BYTES = 8192, TOKENS = 100, TURNS = 3, TALKS = 4 };
enum { ROW_BYTES = BLOCK_TOKENS * KV_BYTES, SPANS = TOKENS / BLOCK_TOKENS + 2 };
enum { KV, STATE, IDS, COMPONENTS };
static const struct abode_plane KV_PLANES[] = {{ROW_BYTES, 0}, {ROW_BYTES, 0}}; /* K, V */
static const struct abode_plane STATE_PLANE = {STATE_BYTES, 0};
static const struct abode_component STATES[COMPONENTS] = {
    [KV] = {.kind = ABODE_PAGED, .plane_count = 2, .planes = KV_PLANES},
    [STATE] = {.kind = ABODE_SNAPSHOT, .plane_count = 1, .planes = &STATE_PLANE},
    [IDS] = {.kind = ABODE_BYTES, .bytes_max = 65536},
};

static struct abode *runtime;
static struct abode_queue *queue;
static struct abode_op op;
static unsigned long wrong; /* bytes that were not what was written */

static void check(int result, const char *what)
{
    if (result < 0) {
        fprintf(stderr, "%s: %s\n", what, abode_strerror(result));
        exit(1);
    }
}

static void finish(int started, const char *what)
{
    struct abode_op *done = &op;
    check(started < 0 ? started : abode_poll(queue, &done, 1, -1), what); /* one op at a time */
    check(done->status, what);
}

/* What the "model" computes: any function of talk and position will do to check every byte. */
static unsigned char byte_of(uint32_t talk, uint64_t position, uint32_t component)
{
    return (unsigned char)((talk * 131 + position * 7 + component * 29) * 2654435761u >> 13);
}

/* One turn: K and V of new tokens, then state and ids at the position after them. */
static void turn(struct abode_session session, uint32_t talk, uint64_t end)
{
    struct abode_span spans[SPANS];
    struct abode_view view; /* tells where a plane begins */
    int count = abode_append_reserve(runtime, session, TOKENS, spans, SPANS);
    check(count < 0 ? count : abode_session_view(runtime, session, KV, &view), "reserve");
    for (const struct abode_span *span = spans; span < spans + count; span++) {
        for (uint32_t t = span->token_first; t < span->token_first + span->token_count; t++) {
            unsigned char *k = span->base + view.plane_offsets[0] + (size_t)t * KV_BYTES;
            memset(k, byte_of(talk, span->row * BLOCK_TOKENS + t, KV), KV_BYTES);
            memcpy(k + (view.plane_offsets[1] - view.plane_offsets[0]), k, KV_BYTES); /* V */
        }
    }
    check(abode_append_commit(runtime, session, TOKENS, NULL, 0), "commit");
    for (uint32_t c = STATE; c <= IDS; c++) { /* valid at exactly this position */
        uint64_t size = c == STATE ? STATE_BYTES : 4 * end;
        void *bytes;
        check(abode_snapshot_reserve(runtime, session, c, size, &bytes), "reserve");
        memset(bytes, byte_of(talk, end, c), size);
        check(abode_snapshot_commit(runtime, session, c), "commit");
    }
}

static void bytes_check(struct abode_session session, uint32_t talk)
{
    struct abode_view view;
    check(abode_session_view(runtime, session, KV, &view), "view");
    wrong += view.token_count != TURNS * TOKENS;
    for (uint64_t i = 0; i < 2 * view.token_count * KV_BYTES; i++) {
        uint32_t token = (uint32_t)(i / (2 * KV_BYTES)), plane = i / KV_BYTES % 2;
        const unsigned char *row = abode_view_plane(&view, token / BLOCK_TOKENS, plane);
        wrong += row[token % BLOCK_TOKENS * KV_BYTES + i % KV_BYTES] != byte_of(talk, token, KV);
    }
    for (uint32_t c = STATE; c <= IDS; c++) {
        const void *bytes;
        uint64_t size, at;
        check(abode_snapshot_get(runtime, session, c, &bytes, &size, &at), "get");
        wrong += at != view.token_count || size != (c == STATE ? STATE_BYTES : 4 * at);
        for (size_t i = 0; i < size; i++) {
            wrong += ((const unsigned char *)bytes)[i] != byte_of(talk, at, c);
        }
    }
}

/* One talk, first to write it, later to find it again; every byte is checked. */
static void talk_run(struct abode_session_opts opts, uint32_t talk, bool first)
{
    struct abode_session session;
    struct abode_placement where;
    struct abode_key name;
    abode_key_from_bytes(&talk, sizeof(talk), &name); /* any bytes: a conversation's id */
    opts.name = &name;
    if (first) {
        check(abode_session_create(runtime, &opts, &session), "create");
        for (uint64_t t = 1; t <= TURNS; t++) {
            turn(session, talk, t * TOKENS);
        }
        finish(abode_detach(queue, session, 0, &op), "detach"); /* durable from here */
    }
    check(abode_session_find(runtime, &name, &session), "find");
    finish(abode_attach(queue, session, -1, 0, &op), "attach");
    bytes_check(session, talk);
    check(abode_session_placement(runtime, session, &where), "placement");
    for (const struct abode_place *at = where.places; at < where.places + where.place_count; at++) {
        printf("talk %u: %llu bytes %s, node %d, verified %u\n", talk,
               (unsigned long long)at->bytes, at->tier == ABODE_TIER_STORE ? "stored" : "in memory",
               at->node, at->verified);
    }
    finish(abode_detach(queue, session, 0, &op), "detach");
}

static void serve(const char *path, bool first)
{
    struct abode_config config;
    abode_config_init(&config);
    config.flags = ABODE_CREATE;
    config.memory_bytes_max = 16u << 20;
    config.store_paths = &path;
    config.store_path_count = 1;
    check(abode_open(&config, &runtime), "open"); /* config.log would tell more */
    struct abode_session_opts opts = {.struct_size = sizeof(opts), .home_node = -1};
    struct abode_model_desc model = {sizeof(model), COMPONENTS, STATES, BLOCK_TOKENS, .tag = "toy"};
    check(abode_model_add(runtime, &model, &opts.model), "model_add");
    check(abode_queue_open(runtime, 8, &queue), "queue_open");
    for (uint32_t talk = 0; talk < TALKS; talk++) {
        talk_run(opts, talk, first);
    }
    check(abode_queue_close(queue) < 0 ? -1 : abode_close(runtime), "close");
}

int main(int count, char **arguments)
{
    const char *path = count > 1 ? arguments[1] : ".";
    serve(path, true);
    serve(path, false); /* after a restart */
    printf("%d talks of %d tokens, %lu wrong bytes\n", TALKS, TURNS * TOKENS, wrong);
    return wrong == 0 ? 0 : 1;
}
