/*
 * test_queue.c - queues and ops: depth, the eventfd, cancel, timeouts, two runtimes.
 *
 * Goal: every op that was taken comes back exactly once, whatever is asked of it meanwhile; one that
 * was refused never does. Method: ops that cannot end (fault_os delays the reads) for what must be
 * seen in flight, plain ones else.
 */
#include <errno.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <unistd.h>
// clang-format off
#include <cmocka.h>
// clang-format on

#include "api_fixture.h"

#define MS 1000000ull

static bool readable(struct abode_queue *queue)
{
    struct pollfd poll_fd = {.fd = abode_queue_fd(queue), .events = POLLIN};
    return poll(&poll_fd, 1, 0) == 1;
}

/* `count` detached sessions with nothing in memory; reads are slow from now on */
static void sleepers(struct api *api, struct abode_session *sessions, uint32_t count)
{
    api->config.io = ABODE_IO_THREADS; /* its reads are calls that can be delayed */
    api_open(api);
    for (uint32_t i = 0; i < count; i++) {
        sessions[i] = api_create(api, api->hybrid, i + 1);
        api_turn(api, sessions[i], i, 24);
        assert_int_equal(api_detach(api, sessions[i], ABODE_DETACH_SPILL_NOW), 0);
    }
    fault_os_plan(&api->fault, (struct fault_plan){.call = AB_OS_PREAD,
                                                   .kind = FAULT_DELAY,
                                                   .sticky = true,
                                                   .delay_ns = 20 * MS});
}

static void sizes(void **state)
{
    struct api *api = *state;
    struct abode_queue *queue = NULL;
    struct abode_op *ops[2];
    api_open(api);
    assert_int_equal(abode_queue_open(api->runtime, 0, &queue), -EINVAL);
    assert_int_equal(abode_queue_open(api->runtime, 65537, &queue), -EINVAL);
    assert_int_equal(abode_queue_open(api->runtime, UINT32_MAX, &queue), -EINVAL);
    assert_int_equal(abode_queue_open(api->runtime, 1, NULL), -EINVAL);
    assert_null(queue);
    assert_int_equal(abode_queue_open(api->runtime, 65536, &queue), 0);
    assert_int_equal(abode_poll(queue, ops, 0, 0), -EINVAL);
    assert_int_equal(abode_poll(queue, NULL, 1, 0), -EINVAL);
    assert_int_equal(abode_poll(NULL, ops, 1, 0), -EINVAL);
    assert_int_equal(abode_poll(queue, ops, 1, 0), 0);
    assert_int_equal(abode_poll(queue, ops, 1, -1), 0); /* nothing can come: no endless wait */
    assert_int_equal(abode_poll(queue, ops, 1, MS), 0);
    assert_int_equal(abode_close(api->runtime), -EBUSY);
    assert_int_equal(abode_queue_close(queue), 0);
    assert_int_equal(abode_queue_close(NULL), -EINVAL);
    assert_int_equal(abode_queue_pending(NULL), 0);
}

static void full_queue_refuses(void **state)
{
    struct api *api = *state;
    struct abode_session sessions[3];
    struct abode_op ops[3] = {{0}}, *done[3];
    struct abode_queue *queue;
    sleepers(api, sessions, 3);
    assert_int_equal(abode_queue_open(api->runtime, 2, &queue), 0);
    assert_int_equal(abode_attach(queue, sessions[0], -1, 0, &ops[0]), 0);
    assert_int_equal(abode_attach(queue, sessions[1], -1, 0, &ops[1]), 0);
    assert_int_equal(abode_attach(queue, sessions[2], -1, 0, &ops[2]), -EAGAIN);
    assert_int_equal(abode_queue_pending(queue), 2);
    assert_int_equal(abode_queue_close(queue), -EBUSY);
    assert_int_equal(abode_close(api->runtime), -EBUSY);
    assert_int_equal(api_stat(api, sessions[2]).attached, 0); /* the refused one is untouched */
    uint32_t count = 0;
    while (count < 2) {
        int got = abode_poll(queue, done, 1, -1);
        assert_int_equal(got, 1); /* as much as there is room for */
        assert_int_equal(done[0]->status, 0);
        count++;
    }
    assert_false(readable(queue));
    assert_int_equal(abode_queue_pending(queue), 0);
    assert_int_equal(abode_attach(queue, sessions[2], -1, 0, &ops[2]), 0);
    assert_int_equal(abode_poll(queue, done, 3, -1), 1);
    assert_ptr_equal(done[0], &ops[2]);
    api_check(api, sessions[2], 2, 24);
    assert_int_equal(abode_queue_close(queue), 0);
}

static void finished_ops_fill_a_queue_until_they_are_taken(void **state)
{
    struct api *api = *state;
    struct abode_op ops[2] = {{0}}, *done[2];
    struct abode_queue *queue;
    api_open(api);
    assert_int_equal(abode_queue_open(api->runtime, 1, &queue), 0);
    struct abode_session one = api_create(api, api->paged, 1), two = api_create(api, api->paged, 2);
    assert_int_equal(abode_detach(queue, one, 0, &ops[0]), 0);
    for (int i = 0; i < 10000 && !readable(queue); i++) {
        (void)usleep(1000);
    }
    assert_true(readable(queue));
    assert_int_equal(abode_detach(queue, two, 0, &ops[1]), -EAGAIN); /* not taken yet */
    assert_int_equal(abode_poll(queue, done, 2, 0), 1);
    assert_false(readable(queue));
    assert_int_equal(abode_detach(queue, two, 0, &ops[1]), 0);
    assert_int_equal(abode_poll(queue, done, 2, -1), 1);
    assert_int_equal(abode_queue_close(queue), 0);
}

/* The eventfd refuses once: the op is heard of all the same, and the fd tells no lies afterwards. */
static void a_wake_that_fails_once(void **state)
{
    static const enum ab_os_call calls[] = {AB_OS_FD_WRITE, AB_OS_FD_READ};
    struct api *api = *state;
    api->config.io = ABODE_IO_SYNC; /* no other eventfd */
    api_open(api);
    struct abode_session session = api_create(api, api->hybrid, 1);
    for (uint32_t i = 0; i < 2; i++) {
        fault_os_plan(&api->fault,
                      (struct fault_plan){.call = calls[i], .kind = FAULT_ERROR, .error = EIO});
        assert_int_equal(api_detach(api, session, 0), 0);
        assert_int_equal(fault_os_strikes(&api->fault), 1);
        fault_os_clear(&api->fault);
        assert_false(readable(api->queue));
        assert_int_equal(api_attach(api, session, 0), 0);
        assert_false(readable(api->queue));
    }
    api_close(api);
}

/* It refuses for good: a host that polls hears of its ops later, but it hears. */
static void a_wake_that_always_fails(void **state)
{
    struct api *api = *state;
    api_open(api);
    struct abode_session session = api_create(api, api->hybrid, 1);
    fault_os_plan(&api->fault,
                  (struct fault_plan){
                      .call = AB_OS_FD_WRITE, .kind = FAULT_ERROR, .error = EIO, .sticky = true});
    assert_int_equal(api_detach(api, session, 0), 0);
    assert_int_equal(api_attach(api, session, 0), 0);
    fault_os_clear(&api->fault);
    api_close(api);
}

static void cancel_of_what_is_not_in_flight(void **state)
{
    struct api *api = *state;
    struct abode_op op = {.timeout_ns = 0}, never = {.timeout_ns = 0};
    api_open(api);
    struct abode_session session = api_create(api, api->hybrid, 1);
    api_turn(api, session, 1, 10);
    assert_int_equal(abode_cancel(api->queue, &never), -ENOENT);
    memset(never.opaque, 0xee, sizeof(never.opaque)); /* garbage is not believed */
    assert_int_equal(abode_cancel(api->queue, &never), -ENOENT);
    assert_int_equal(abode_cancel(api->queue, NULL), -EINVAL);
    assert_int_equal(abode_cancel(NULL, &op), -EINVAL);
    assert_int_equal(api_wait(api, &op, abode_detach(api->queue, session, 0, &op)), 0);
    assert_int_equal(abode_cancel(api->queue, &op), -ENOENT); /* finished */
    assert_int_equal(api_wait(api, &op, abode_attach(api->queue, session, -1, 0, &op)), 0);
    api_check(api, session, 1, 10);
}

static void cancelled_attach_leaves_detached(void **state)
{
    struct api *api = *state;
    struct abode_session sessions[1];
    struct abode_op op = {.timeout_ns = 0}, second = {.timeout_ns = 0};
    sleepers(api, sessions, 1);
    assert_int_equal(abode_attach(api->queue, sessions[0], -1, 0, &op), 0);
    assert_int_equal(abode_attach(api->queue, sessions[0], -1, 0, &second), -EBUSY);
    assert_int_equal(abode_detach(api->queue, sessions[0], 0, &second), -EBUSY);
    assert_int_equal(abode_session_delete(api->runtime, sessions[0]), -EBUSY);
    assert_int_equal(abode_session_note_set(api->runtime, sessions[0], "x", 1), -EBUSY);
    assert_int_equal(abode_session_truncate(api->runtime, sessions[0], 0), -EBUSY);
    assert_int_equal(abode_cancel(api->queue, &op), 0);
    int again = abode_cancel(api->queue, &op); /* twice is once */
    assert_true(again == 0 || again == -ENOENT);
    assert_int_equal(api_wait(api, &op, 0), -ECANCELED);
    assert_int_equal(api_stat(api, sessions[0]).attached, 0);
    fault_os_clear(&api->fault);
    assert_int_equal(api_attach(api, sessions[0], 0), 0);
    api_check(api, sessions[0], 0, 24);
}

static void timed_out_attach_leaves_detached(void **state)
{
    struct api *api = *state;
    struct abode_session sessions[1];
    sleepers(api, sessions, 1);
    struct abode_op op = {.timeout_ns = 1};
    assert_int_equal(api_wait(api, &op, abode_attach(api->queue, sessions[0], -1, 0, &op)),
                     -ETIMEDOUT);
    assert_int_equal(api_stat(api, sessions[0]).attached, 0);
    op.timeout_ns = 1; /* with PREFIX_OK a timeout is still a timeout, not a shorter session */
    assert_int_equal(
        api_wait(api, &op, abode_attach(api->queue, sessions[0], -1, ABODE_ATTACH_PREFIX_OK, &op)),
        -ETIMEDOUT);
    assert_int_equal(api_tokens(api, sessions[0]), 24);
    fault_os_clear(&api->fault);
    op.timeout_ns = 60000 * MS;
    assert_int_equal(api_wait(api, &op, abode_attach(api->queue, sessions[0], -1, 0, &op)), 0);
    api_check(api, sessions[0], 0, 24);
    struct abode_stats stats;
    assert_int_equal(api_detach(api, sessions[0], 0), 0);
    assert_int_equal(abode_stats_get(api->runtime, &stats), 0);
    assert_int_equal(stats.blocks_pinned, 0); /* no pin is left behind */
}

static void timed_out_detach_keeps_the_state(void **state)
{
    struct api *api = *state;
    api->config.io = ABODE_IO_THREADS;
    api_open(api);
    struct abode_session session = api_create(api, api->hybrid, 1);
    api_turn(api, session, 1, 24);
    fault_os_plan(&api->fault, (struct fault_plan){.call = AB_OS_PWRITE,
                                                   .kind = FAULT_DELAY,
                                                   .sticky = true,
                                                   .delay_ns = 20 * MS});
    struct abode_op op = {.timeout_ns = 1};
    int status = api_wait(api, &op, abode_detach(api->queue, session, 0, &op));
    assert_int_equal(status, -ETIMEDOUT);
    fault_os_clear(&api->fault);
    assert_int_equal(api_stat(api, session).attached, 0); /* detached, and in memory */
    assert_int_equal(api_attach(api, session, 0), 0);
    api_check(api, session, 1, 24);
    assert_int_equal(api_detach(api, session, 0), 0);
    api_reopen(api);
    session = api_find(api, 1);
    assert_int_equal(api_attach(api, session, 0), 0);
    api_check(api, session, 1, 24);
}

static void nodes_and_flags_that_do_not_exist(void **state)
{
    struct api *api = *state;
    struct abode_op op = {.timeout_ns = 0};
    api_open(api);
    struct abode_session session = api_create(api, api->hybrid, 1);
    api_turn(api, session, 1, 10);
    assert_int_equal(abode_detach(api->queue, session, 4, &op), -EINVAL);
    assert_int_equal(abode_detach(api->queue, session, 0, NULL), -EINVAL);
    assert_int_equal(api_detach(api, session, 0), 0);
    assert_int_equal(abode_attach(api->queue, session, 63, 0, &op), -EINVAL);
    assert_int_equal(abode_attach(api->queue, session, 64, 0, &op), -EINVAL);
    assert_int_equal(abode_attach(api->queue, session, INT32_MAX, 0, &op), -EINVAL);
    assert_int_equal(abode_attach(api->queue, session, -1, 2, &op), -EINVAL);
    assert_int_equal(abode_attach(NULL, session, -1, 0, &op), -EINVAL);
    assert_int_equal(abode_queue_pending(api->queue), 0);
    assert_int_equal(api_attach(api, session, 0), 0);
    api_check(api, session, 1, 10);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, api_up, api_down)
    const struct CMUnitTest tests[] = {
        TEST(sizes),
        TEST(full_queue_refuses),
        TEST(finished_ops_fill_a_queue_until_they_are_taken),
        TEST(a_wake_that_fails_once),
        TEST(a_wake_that_always_fails),
        TEST(cancel_of_what_is_not_in_flight),
        TEST(cancelled_attach_leaves_detached),
        TEST(timed_out_attach_leaves_detached),
        TEST(timed_out_detach_keeps_the_state),
        TEST(nodes_and_flags_that_do_not_exist),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
