/*
 * test_parallel.c - four threads of a host, each with sessions and a queue of its own, one runtime.
 *
 * Goal: calls on one runtime from any threads, as abode.h promises: no thread sees another's bytes,
 * nothing is lost, ThreadSanitizer is silent (make check-tsan). Method: each thread creates, appends,
 * forks, detaches, attaches, truncates, puts, gets and deletes at random, with less memory than all need
 * together; a fifth looks at statistics, inspects, verifies and flushes meanwhile. Seed: ABODE_TEST_SEED.
 */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
// clang-format off
#include <cmocka.h>
// clang-format on

#include "api_fixture.h"

enum { THREADS = 4, SESSIONS = 6, ROUNDS = 150, TOKENS_MAX = 100 };

/* cmocka's asserts jump, which a thread must not: failures are counted and named */
#define EXPECT(condition)                                                 \
    do {                                                                  \
        if (!(condition)) {                                               \
            (void)fprintf(stderr, "line %d: %s\n", __LINE__, #condition); \
            atomic_fetch_add(&worker->failures, 1);                       \
            return;                                                       \
        }                                                                 \
    } while (0)

struct own {
    bool exists;
    struct abode_session session;
    uint32_t tokens, salt;
};

struct worker {
    struct api *api;
    struct abode_queue *queue;
    pthread_t thread;
    uint32_t number, salt;
    uint64_t random;
    struct own owns[SESSIONS];
    _Atomic int failures;
    _Atomic bool *stop;
};

static uint64_t random_next(struct worker *worker)
{
    worker->random ^= worker->random << 13;
    worker->random ^= worker->random >> 7;
    worker->random ^= worker->random << 17;
    return worker->random;
}

static int finish(struct worker *worker, struct abode_op *op, int started)
{
    struct abode_op *done = NULL;
    if (started != 0) {
        return started;
    }
    int count = abode_poll(worker->queue, &done, 1, 100ll * 1000000000);
    return count != 1 || done != op ? -ENOMSG : op->status;
}

static void create(struct worker *worker, struct own *own)
{
    uint32_t number = (worker->number << 24) + ++worker->salt;
    struct abode_key name = api_name(number);
    struct abode_session_opts opts = {.struct_size = sizeof(opts),
                                      .model = worker->api->paged,
                                      .home_node = -1,
                                      .durability = 1 + (uint32_t)(random_next(worker) % 3),
                                      .name = &name};
    int status = abode_session_create(worker->api->runtime, &opts, &own->session);
    EXPECT(status == 0);
    own->exists = true;
    own->tokens = 0;
    own->salt = number;
}

static void append(struct worker *worker, struct own *own, uint32_t count)
{
    struct abode *runtime = worker->api->runtime;
    struct abode_span spans[16];
    struct abode_view view;
    int used = -EAGAIN;
    for (uint32_t tries = 0; used == -EAGAIN && tries < 50000; tries++) {
        used = abode_append_reserve(runtime, own->session, count, spans, 16);
        if (used == -EAGAIN) {
            (void)usleep(200);
        }
    }
    if (used == -ABODE_EFULL) {
        return; /* all is attached just now */
    }
    EXPECT(used > 0);
    EXPECT(abode_session_view(runtime, own->session, 0, &view) == 0);
    for (int i = 0; i < used; i++) {
        for (uint32_t plane = 0; plane < 2; plane++) {
            for (uint32_t t = 0; t < spans[i].token_count; t++) {
                uint32_t at = spans[i].token_first + t;
                api_token_bytes(own->salt, spans[i].row * API_BLOCK_TOKENS + at, plane,
                                spans[i].base + view.plane_offsets[plane] +
                                    (size_t)at * API_TOKEN_BYTES,
                                API_TOKEN_BYTES);
            }
        }
    }
    EXPECT(abode_append_commit(runtime, own->session, count, NULL, 0) == 0);
    own->tokens += count;
}

static void check(struct worker *worker, const struct own *own)
{
    unsigned char expected[API_TOKEN_BYTES];
    struct abode_view view;
    EXPECT(abode_session_view(worker->api->runtime, own->session, 0, &view) == 0);
    EXPECT(view.token_count == own->tokens);
    for (uint32_t t = 0; t < own->tokens; t++) {
        const unsigned char *bytes = abode_view_plane(&view, t / API_BLOCK_TOKENS, t % 2) +
                                     t % API_BLOCK_TOKENS * API_TOKEN_BYTES;
        api_token_bytes(own->salt, t, t % 2, expected, sizeof(expected));
        EXPECT(memcmp(bytes, expected, sizeof(expected)) == 0);
    }
}

/* away and back, when there is room */
static void sleep_and_wake(struct worker *worker, struct own *own)
{
    struct abode_op op = {.timeout_ns = 0};
    uint32_t flags = random_next(worker) % 2 ? ABODE_DETACH_SPILL_NOW : 0;
    EXPECT(finish(worker, &op, abode_detach(worker->queue, own->session, flags, &op)) == 0);
    int status = -ABODE_EFULL;
    for (uint32_t tries = 0; status == -ABODE_EFULL && tries < 2000; tries++) {
        status = finish(worker, &op, abode_attach(worker->queue, own->session, -1, 0, &op));
        if (status == -EBUSY) { /* the fifth thread's flush has it */
            status = -ABODE_EFULL;
        }
        if (status != 0) {
            (void)usleep(1000);
        }
    }
    EXPECT(status == 0);
    check(worker, own);
}

static void fork_one(struct worker *worker, const struct own *parent, struct own *child)
{
    struct abode_key name = api_name((worker->number << 24) + ++worker->salt);
    int status = abode_session_fork(worker->api->runtime, parent->session, parent->tokens, &name,
                                    &child->session);
    if (status == -ABODE_EFULL || status == -EAGAIN) {
        return;
    }
    EXPECT(status == 0);
    child->exists = true;
    child->tokens = parent->tokens;
    child->salt = parent->salt;
    check(worker, child);
}

static void truncate_one(struct worker *worker, struct own *own)
{
    uint32_t tokens = own->tokens == 0 ? 0 : (uint32_t)(random_next(worker) % own->tokens);
    int status = abode_session_truncate(worker->api->runtime, own->session, tokens);
    EXPECT(status == 0 || status == -EAGAIN); /* a spill of it is under way */
    own->tokens = status == 0 ? tokens : own->tokens;
}

static void step(struct worker *worker)
{
    struct own *own = &worker->owns[random_next(worker) % SESSIONS];
    struct own *other = &worker->owns[random_next(worker) % SESSIONS];
    uint32_t choice = (uint32_t)(random_next(worker) % 10);
    if (!own->exists) {
        create(worker, own);
    } else if (choice < 4 && own->tokens < TOKENS_MAX - 20) {
        append(worker, own, 1 + (uint32_t)(random_next(worker) % 20));
    } else if (choice < 6) {
        sleep_and_wake(worker, own);
    } else if (choice < 7 && !other->exists) {
        fork_one(worker, own, other);
    } else if (choice < 8) {
        truncate_one(worker, own);
    } else if (choice < 9) {
        check(worker, own);
    } else {
        EXPECT(abode_session_delete(worker->api->runtime, own->session) == 0);
        own->exists = false;
    }
}

static void *worker_run(void *argument)
{
    struct worker *worker = argument;
    for (uint32_t i = 0; i < ROUNDS && atomic_load(&worker->failures) == 0; i++) {
        step(worker);
    }
    return NULL;
}

static int line_take(void *context, const char *text, size_t size)
{
    uint64_t *lines = context;
    *lines += size > 0 && text[size - 1] == '\n';
    return 0;
}

static void look(struct worker *worker)
{
    struct abode *runtime = worker->api->runtime;
    struct abode_stats stats;
    struct abode_support support;
    struct abode_node_info node;
    struct abode_verify_report report;
    uint64_t lines = 0;
    EXPECT(abode_stats_get(runtime, &stats) == 0);
    EXPECT(stats.frames_free <= stats.frames_total);
    EXPECT(abode_support_get(runtime, &support) == 0);
    EXPECT(abode_machine_node_get(runtime, 0, &node) == 0);
    EXPECT(abode_inspect(runtime, line_take, &lines) == 0);
    EXPECT(lines > 2);
    EXPECT(abode_verify(runtime, NULL, NULL, NULL, &report) == 0);
    EXPECT(report.blocks_bad == 0);
    int status = abode_flush(runtime, 50 * 1000000);
    EXPECT(status == 0 || status == -ETIMEDOUT || status == -EAGAIN);
}

static void *looker_run(void *argument)
{
    struct worker *worker = argument;
    while (!atomic_load(worker->stop) && atomic_load(&worker->failures) == 0) {
        look(worker);
    }
    return NULL;
}

static void four_threads(void **state)
{
    struct api *api = *state;
    static struct worker workers[THREADS + 1];
    _Atomic bool stop = false;
    const char *given = getenv("ABODE_TEST_SEED");
    uint64_t seed = given != NULL ? strtoull(given, NULL, 0) : (uint64_t)time(NULL);
    print_message("ABODE_TEST_SEED=%llu\n", (unsigned long long)seed);
    api->hybrid_bytes = 0;
    api->paged_bytes = 2u << 20; /* 256 frames; 24 sessions of up to 13 rows want 312 */
    api_open(api);
    memset(workers, 0, sizeof(workers));
    for (uint32_t i = 0; i <= THREADS; i++) {
        workers[i].api = api;
        workers[i].number = i + 1;
        workers[i].random = (seed * (THREADS + 1) + i) * 2 + 1;
        workers[i].stop = &stop;
        assert_int_equal(abode_queue_open(api->runtime, 4, &workers[i].queue), 0);
        assert_int_equal(pthread_create(&workers[i].thread, NULL,
                                        i < THREADS ? worker_run : looker_run, &workers[i]),
                         0);
    }
    for (uint32_t i = 0; i <= THREADS; i++) {
        atomic_store(&stop, i == THREADS);
        assert_int_equal(pthread_join(workers[i].thread, NULL), 0);
    }
    int failures = 0;
    for (uint32_t i = 0; i <= THREADS; i++) {
        failures += atomic_load(&workers[i].failures);
        assert_int_equal(abode_queue_close(workers[i].queue), 0);
    }
    assert_int_equal(failures, 0);
    for (uint32_t i = 0; i < THREADS * SESSIONS; i++) {
        const struct own *own = &workers[i / SESSIONS].owns[i % SESSIONS];
        if (own->exists) {
            api_check(api, own->session, own->salt, own->tokens);
            assert_int_equal(abode_session_delete(api->runtime, own->session), 0);
        }
    }
    struct abode_stats stats;
    assert_int_equal(abode_flush(api->runtime, 60ll * 1000000000), 0);
    assert_int_equal(abode_stats_get(api->runtime, &stats), 0);
    assert_int_equal(stats.session_count, 0);
    assert_int_equal(stats.frames_free, stats.frames_total);
    assert_int_equal(stats.blocks_stored, 0);
}

/* Runtimes share nothing: two in one process, a thread each. */
static void *other_runtime(void *argument)
{
    struct api *api = argument;
    struct abode_session session = api_create(api, api->hybrid, 1);
    for (uint32_t i = 0; i < 20; i++) {
        api_turn(api, session, 1, 5);
        if (api_detach(api, session, ABODE_DETACH_SPILL_NOW) != 0 ||
            api_attach(api, session, 0) != 0) {
            return api;
        }
    }
    api_check(api, session, 1, 100);
    return NULL;
}

static void two_runtimes(void **state)
{
    struct api *first = *state, *second;
    pthread_t threads[2];
    void *failed[2];
    struct abode_op op = {.timeout_ns = 0};
    assert_int_equal(api_up((void **)&second), 0);
    api_open(first);
    api_open(second);
    assert_int_equal(pthread_create(&threads[0], NULL, other_runtime, first), 0);
    assert_int_equal(pthread_create(&threads[1], NULL, other_runtime, second), 0);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(pthread_join(threads[i], &failed[i]), 0);
        assert_null(failed[i]);
    }
    /* a session of one with a queue of the other is nobody's, or another's: handles are small */
    struct abode_session nobodys = {(9ull << 32) | 5};
    assert_int_equal(abode_detach(second->queue, nobodys, 0, &op), -ABODE_ESTALE);
    assert_int_equal(api_down((void **)&second), 0);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, api_up, api_down)
    const struct CMUnitTest tests[] = {
        TEST(four_threads),
        TEST(two_runtimes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
