/*
 * test_slow_device.c - a device that answers after 30 seconds, or not yet.
 *
 * Goal: while it does not answer, no call of the host waits for it; ops with a time limit come back
 * with -ETIMEDOUT; the others end well when it answers at last, and nothing is lost or wrong.
 * Method: a gate in the table of syscalls. While it is shut, reads (or writes and syncs) that came
 * to it stay there, so that "before the answer" needs no clock; ABODE_LONG=1 keeps it shut for 30 s.
 * The pool of threads does the I/O: an emulated delay would stop the thread of a ring altogether.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
// clang-format off
#include <cmocka.h>
// clang-format on

#include "unit/api_fixture.h"

#define LIMIT_NS (100ll * 1000 * 1000)
#define POLL_NS (60ll * 1000 * 1000 * 1000)
#define TOKENS 64u
#define HELD_S 30u

enum gate_kind { GATE_READS = 1, GATE_WRITES };

struct gate {
    struct ab_os os;
    pthread_mutex_t mutex;
    pthread_cond_t opened, came;
    enum gate_kind shut; /* 0: open */
    uint32_t waiting;
};

static void gate_pass(const struct ab_os *os, enum gate_kind kind)
{
    struct gate *gate = os->context;
    (void)pthread_mutex_lock(&gate->mutex);
    while (gate->shut == kind) {
        gate->waiting++;
        (void)pthread_cond_signal(&gate->came);
        (void)pthread_cond_wait(&gate->opened, &gate->mutex);
        gate->waiting--;
    }
    (void)pthread_mutex_unlock(&gate->mutex);
}

static int64_t gate_pread(const struct ab_os *os, int fd, void *bytes, size_t count,
                          uint64_t offset)
{
    gate_pass(os, GATE_READS);
    return ab_os_default()->pread(ab_os_default(), fd, bytes, count, offset);
}

static int64_t gate_pwrite(const struct ab_os *os, int fd, const void *bytes, size_t count,
                           uint64_t offset)
{
    gate_pass(os, GATE_WRITES);
    return ab_os_default()->pwrite(ab_os_default(), fd, bytes, count, offset);
}

static int gate_fdatasync(const struct ab_os *os, int fd)
{
    gate_pass(os, GATE_WRITES);
    return ab_os_default()->fdatasync(ab_os_default(), fd);
}

static void gate_set(struct gate *gate, enum gate_kind shut)
{
    (void)pthread_mutex_lock(&gate->mutex);
    gate->shut = shut;
    (void)pthread_cond_broadcast(&gate->opened);
    (void)pthread_mutex_unlock(&gate->mutex);
}

/* The device has been asked, and does not answer. */
static void gate_wait(struct gate *gate)
{
    (void)pthread_mutex_lock(&gate->mutex);
    while (gate->waiting == 0) {
        (void)pthread_cond_wait(&gate->came, &gate->mutex);
    }
    (void)pthread_mutex_unlock(&gate->mutex);
    if (getenv("ABODE_LONG") != NULL) {
        (void)sleep(HELD_S);
    }
}

static void gate_open(struct api *api, struct gate *gate)
{
    *gate = (struct gate){.os = *ab_os_default()};
    assert_int_equal(pthread_mutex_init(&gate->mutex, NULL), 0);
    assert_int_equal(pthread_cond_init(&gate->opened, NULL), 0);
    assert_int_equal(pthread_cond_init(&gate->came, NULL), 0);
    gate->os.context = gate;
    gate->os.pread = gate_pread;
    gate->os.pwrite = gate_pwrite;
    gate->os.fdatasync = gate_fdatasync;
    api->fault.inner = &gate->os;
    api->config.io = ABODE_IO_THREADS;
    api_open(api);
}

static struct abode_session stored(struct api *api, uint32_t name, uint32_t flags)
{
    struct abode_session session = api_create(api, api->paged, name);
    api_turn(api, session, name, TOKENS);
    assert_int_equal(api_detach(api, session, flags), 0);
    return session;
}

/* Take what comes back until it is this one. */
static int come_back(struct api *api, const struct abode_op *op)
{
    struct abode_op *done = NULL;
    assert_int_equal(abode_poll(api->queue, &done, 1, POLL_NS), 1);
    assert_ptr_equal(done, op);
    return op->status;
}

/* The host's day goes on: nothing of this needs the device. */
static void host_goes_on(struct api *api, struct abode_session attached, uint32_t name)
{
    struct abode_key key = api_name(name);
    struct abode_session found, fresh = api_create(api, api->paged, name);
    api_turn(api, fresh, name, TOKENS);
    api_check(api, fresh, name, TOKENS);
    api_check(api, attached, 1, api_tokens(api, attached));
    assert_int_equal(abode_session_find(api->runtime, &key, &found), 0);
    assert_int_equal(abode_cache_probe(api->runtime, api->hybrid, &key, 1, NULL), 0);
    struct abode_stats stats = {.struct_size = sizeof(stats)};
    assert_int_equal(abode_stats_get(api->runtime, &stats), 0);
}

static void reads_that_take_their_time(void **state)
{
    struct api *api = *state;
    static struct gate gate; /* the tear-down still closes through it */
    struct abode_op with_limit = {.timeout_ns = LIMIT_NS}, without = {0};
    gate_open(api, &gate);
    struct abode_session resident = stored(api, 1, 0);
    struct abode_session hasty = stored(api, 2, ABODE_DETACH_SPILL_NOW);
    struct abode_session patient = stored(api, 3, ABODE_DETACH_SPILL_NOW);
    gate_set(&gate, GATE_READS);
    assert_int_equal(abode_attach(api->queue, patient, -1, 0, &without), 0);
    assert_int_equal(abode_attach(api->queue, hasty, -1, 0, &with_limit), 0);
    gate_wait(&gate);
    assert_int_equal(come_back(api, &with_limit), -ETIMEDOUT);
    assert_int_equal(api_attach(api, resident, 0), 0); /* overtakes what waits for the device */
    host_goes_on(api, resident, 10);
    assert_int_equal(abode_queue_pending(api->queue), 1);
    gate_set(&gate, 0);
    assert_int_equal(come_back(api, &without), 0);
    api_check(api, patient, 3, TOKENS);
    assert_int_equal(api_attach(api, hasty, 0), 0);
    api_check(api, hasty, 2, TOKENS);
}

/* What the device has begun to write is waited for: the op comes back when that has ended. */
static void writes_that_take_their_time(void **state)
{
    struct api *api = *state;
    static struct gate gate; /* the tear-down still closes through it */
    struct abode_op with_limit = {.timeout_ns = LIMIT_NS}, without = {0}, *done[2];
    gate_open(api, &gate);
    struct abode_session resident = stored(api, 1, 0);
    struct abode_session hasty = api_create(api, api->paged, 2);
    struct abode_session patient = api_create(api, api->paged, 3);
    api_turn(api, hasty, 2, TOKENS);
    api_turn(api, patient, 3, TOKENS);
    gate_set(&gate, GATE_WRITES);
    assert_int_equal(abode_detach(api->queue, patient, 0, &without), 0);
    assert_int_equal(abode_detach(api->queue, hasty, 0, &with_limit), 0);
    gate_wait(&gate);
    assert_int_equal(api_attach(api, resident, 0), 0);
    host_goes_on(api, resident, 10);
    assert_int_equal(abode_queue_pending(api->queue), 2);
    gate_set(&gate, 0);
    assert_int_equal(abode_poll(api->queue, done, 1, POLL_NS), 1);
    assert_int_equal(abode_poll(api->queue, done + 1, 1, POLL_NS), 1);
    assert_int_equal(without.status, 0);
    assert_true(with_limit.status == 0 || with_limit.status == -ETIMEDOUT);
    assert_int_equal(abode_flush(api->runtime, POLL_NS), 0); /* what came too late for its op */
    api_reopen(api);
    for (uint32_t name = 1; name <= 3; name++) {
        struct abode_session session = api_find(api, name);
        assert_int_equal(api_attach(api, session, 0), 0);
        api_check(api, session, name, TOKENS);
    }
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, api_up, api_down)
    const struct CMUnitTest tests[] = {
        TEST(reads_that_take_their_time),
        TEST(writes_that_take_their_time),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
