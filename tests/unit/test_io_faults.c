/*
 * test_io_faults.c - goal: whatever a call answers, the right request gets the right status, the
 * others their bytes, and nothing hangs or leaks. Method: on each engine, every data call fails,
 * is interrupted or cut short in turn; every call of open fails in turn; then a random mix of
 * requests, cancels and faults is compared with a copy of the file in memory.
 */
#include "io/io.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/num.h"
#include "io_fixture.h"

/* ---- faults ---- */

/* A read of 2.5 MiB, a write of 2 pages, a read of 1 MiB: six pieces. Returns how many failed. */
static uint32_t fault_workload(struct io_fixture *fixture, int error)
{
    struct ab_io_request *r[3];
    io_fill(fixture->arena + (4u << 20), 8192);
    memset(fixture->arena, 0, 4u << 20);
    r[0] = io_request_make(fixture, 0, AB_IO_READ, fixture->direct, fixture->arena, 5u << 19, 0);
    r[1] = io_request_make(fixture, 1, AB_IO_WRITE, fixture->direct, fixture->arena + (4u << 20),
                           8192, 6u << 20);
    r[2] = io_request_make(fixture, 2, AB_IO_READ, fixture->direct, fixture->arena + (3u << 20),
                           1u << 20, 3u << 20);
    ab_io_submit(fixture->io, r, 3);
    io_drain(fixture, NULL);
    uint32_t failed = 0;
    for (uint32_t i = 0; i < 3; i++) {
        if (r[i]->status != 0) {
            assert_int_equal(r[i]->status, error);
            failed++;
        }
    }
    if (r[0]->status == 0) {
        assert_memory_equal(r[0]->address, fixture->model, r[0]->bytes);
    }
    if (r[1]->status == 0) {
        memcpy(fixture->model + r[1]->offset, r[1]->address, 8192);
    } else { /* unknown: put a known state back */
        assert_int_equal(
            pwrite(fixture->buffered_fd, fixture->model + r[1]->offset, 8192, (off_t)r[1]->offset),
            8192);
    }
    if (r[2]->status == 0) {
        assert_memory_equal(r[2]->address, fixture->model + r[2]->offset, r[2]->bytes);
    }
    io_assert_file_is_model(fixture);
    return failed;
}

/* Calls by which this engine moves bytes. */
static const enum ab_os_call *data_calls(const struct io_fixture *fixture, uint32_t *ret_count)
{
    static const enum ab_os_call ring[] = {AB_OS_RING_RESULT};
    static const enum ab_os_call file[] = {AB_OS_PREAD, AB_OS_PWRITE};
    *ret_count = fixture->engine == AB_IO_URING ? 1 : 2;
    return fixture->engine == AB_IO_URING ? ring : file;
}

static void test_each_call_failing_once(void **state)
{
    struct io_fixture *fixture = io_fixture_of(state);
    static const int errors[] = {EIO, ENOSPC, EINTR, EAGAIN, 0}; /* 0: short */
    uint32_t call_count, strikes = 0;
    const enum ab_os_call *calls = data_calls(fixture, &call_count);
    for (uint32_t e = 0; e < AB_COUNT(errors); e++) {
        for (uint32_t c = 0; c < call_count; c++) {
            for (uint32_t nth = 1;; nth++) {
                fault_os_plan(
                    &fixture->fault,
                    (struct fault_plan){.call = calls[c],
                                        .nth = nth,
                                        .error = errors[e],
                                        .kind = errors[e] == 0 ? FAULT_SHORT : FAULT_ERROR});
                const struct ab_io_counters before = ab_io_counters(fixture->io);
                const uint32_t failed = fault_workload(fixture, -errors[e]);
                const struct ab_io_counters after = ab_io_counters(fixture->io);
                const bool struck = fault_os_strikes(&fixture->fault) > 0;
                fault_os_clear(&fixture->fault);
                const bool fatal = errors[e] == EIO || errors[e] == ENOSPC;
                assert_int_equal(failed, struck && fatal ? 1 : 0);
                assert_int_equal(after.errors - before.errors, failed);
                assert_int_equal(after.shorts - before.shorts, struck && errors[e] == 0);
                assert_int_equal(after.retries - before.retries,
                                 struck && errors[e] != 0 && !fatal);
                if (!struck) {
                    break;
                }
                strikes++;
            }
        }
    }
    assert_true(strikes >= 5 * 5);
}

static void test_each_call_failing_from_then_on(void **state)
{
    struct io_fixture *fixture = io_fixture_of(state);
    static const int errors[] = {EIO, EINTR, EAGAIN};
    uint32_t call_count;
    const enum ab_os_call *calls = data_calls(fixture, &call_count);
    for (uint32_t e = 0; e < AB_COUNT(errors); e++) {
        for (uint32_t nth = 1; nth <= 7; nth++) {
            for (uint32_t c = 0; c < call_count; c++) {
                fault_os_plan(&fixture->fault, (struct fault_plan){.call = calls[c],
                                                                   .nth = nth,
                                                                   .sticky = true,
                                                                   .error = errors[e],
                                                                   .kind = FAULT_ERROR});
            }
            const int told = errors[e] == EINTR ? -EIO : -errors[e];
            const uint32_t failed = fault_workload(fixture, told); /* and it ends */
            assert_true(fault_os_strikes(&fixture->fault) == 0 || failed > 0);
            fault_os_clear(&fixture->fault);
        }
    }
    assert_int_equal(fault_workload(fixture, 0), 0); /* all is well again */
}

static void test_always_short(void **state)
{
    struct io_fixture *fixture = io_fixture_of(state);
    uint32_t call_count;
    const enum ab_os_call *calls = data_calls(fixture, &call_count);
    for (uint32_t c = 0; c < call_count; c++) {
        fault_os_plan(
            &fixture->fault,
            (struct fault_plan){.call = calls[c], .nth = 1, .sticky = true, .kind = FAULT_SHORT});
    }
    /* halves down to the last page, which then never comes whole: bounded, and an error */
    assert_int_equal(io_transfer(fixture, AB_IO_READ, fixture->direct, fixture->arena, 3u << 20, 0),
                     -EIO);
    fault_os_clear(&fixture->fault);
    assert_int_equal(io_transfer(fixture, AB_IO_READ, fixture->direct, fixture->arena, 3u << 20, 0),
                     0);
    assert_memory_equal(fixture->arena, fixture->model, 3u << 20);
}

static void test_open_with_each_call_failing(void **state)
{
    struct io_fixture *fixture = io_fixture_of(state);
    for (uint32_t nth = 1;; nth++) {
        const int64_t before = fault_os_allocations(&fixture->fault);
        fault_os_plan(&fixture->fault, (struct fault_plan){.call = FAULT_ANY_CALL,
                                                           .nth = nth,
                                                           .kind = FAULT_ERROR,
                                                           .error = ENOMEM});
        const struct ab_io_config config = {.os = &fixture->fault.os,
                                            .node = -1,
                                            .probe_fd = -1,
                                            .engine = fixture->engine,
                                            .depth = 2,
                                            .file_max = 4};
        struct ab_io *io = NULL;
        const int rc = ab_io_open(&config, &io);
        if (rc == 0) {
            ab_io_close(io);
        } else {
            assert_int_equal(rc, -ENOMEM);
            assert_null(io);
        }
        const bool struck = fault_os_strikes(&fixture->fault) > 0;
        fault_os_clear(&fixture->fault);
        assert_int_equal(fault_os_allocations(&fixture->fault), before);
        if (!struck) {
            assert_int_equal(rc, 0);
            break;
        }
    }
}

/* ---- everything at once ---- */

struct shuffle {
    uint32_t pages[REQUESTS_MAX]; /* where in the file each request's own range begins */
    bool is_write[REQUESTS_MAX];
};

static void shuffle_round(struct io_fixture *fixture, struct shuffle *shuffle, uint32_t count)
{
    const uint64_t share = FILE_BYTES / REQUESTS_MAX; /* ranges do not overlap */
    const uint64_t share_of_arena = ARENA_BYTES / REQUESTS_MAX;
    for (uint32_t i = 0; i < count; i++) {
        const bool is_direct = io_random() % 2 == 0;
        const uint64_t unit = is_direct ? AB_PAGE : 1;
        const uint64_t bytes = unit * (1 + io_random() % (share / unit / 2));
        const uint64_t offset = i * share + unit * (io_random() % (share / unit / 2));
        unsigned char *memory =
            fixture->arena + i * share_of_arena + unit * (io_random() % (share / unit));
        shuffle->is_write[i] = io_random() % 2 == 0;
        struct ab_io_request *r =
            io_request_make(fixture, i, shuffle->is_write[i] ? AB_IO_WRITE : AB_IO_READ,
                            is_direct ? fixture->direct : fixture->buffered, memory, bytes, offset);
        r->priority = (enum ab_io_priority)(io_random() % AB_IO_PRIORITY_COUNT);
        io_fill(memory, bytes);
        io_submit(fixture, r);
        if (io_random() % 8 == 0) {
            ab_io_cancel(fixture->io, r);
        }
    }
    io_drain(fixture, NULL);
    for (uint32_t i = 0; i < count; i++) {
        const struct ab_io_request *r = &fixture->requests[i];
        if (r->status != 0) {
            assert_true(r->status == -ECANCELED || r->status == -EIO);
            if (shuffle->is_write[i]) { /* any of its bytes may be there: write the model again */
                assert_int_equal(pwrite(fixture->buffered_fd, fixture->model + r->offset, r->bytes,
                                        (off_t)r->offset),
                                 (ssize_t)r->bytes);
            }
        } else if (shuffle->is_write[i]) {
            memcpy(fixture->model + r->offset, r->address, r->bytes);
        } else {
            assert_memory_equal(r->address, fixture->model + r->offset, r->bytes);
        }
    }
}

static void test_random_mix_with_faults(void **state)
{
    struct io_fixture *fixture = io_fixture_of(state);
    const char *given = getenv("ABODE_TEST_SEED");
    const uint64_t seed = given == NULL ? (uint64_t)time(NULL) : strtoull(given, NULL, 0);
    print_message("ABODE_TEST_SEED=%llu\n", (unsigned long long)seed);
    io_random_seed(seed);
    const uint32_t rounds = getenv("ABODE_LONG") == NULL ? 30 : 2000;
    uint32_t call_count;
    const enum ab_os_call *calls = data_calls(fixture, &call_count);
    struct shuffle shuffle;
    for (uint32_t round = 0; round < rounds; round++) {
        if (round % 8 == 0) {
            io_restart(fixture, 1 + (uint32_t)(io_random() % 16));
            assert_int_equal(ab_io_buffer_add(fixture->io, fixture->arena, ARENA_BYTES / 2), 0);
        }
        for (uint32_t c = 0; c < call_count; c++) {
            static const int errors[] = {EIO, EINTR, EAGAIN};
            const struct fault_plan plan = {
                .call = calls[c],
                .nth = 1 + io_random() % 40,
                .kind = io_random() % 3 == 0 ? FAULT_SHORT : FAULT_ERROR,
                .error = errors[io_random() % AB_COUNT(errors)],
            };
            fault_os_plan(&fixture->fault, plan);
        }
        shuffle_round(fixture, &shuffle, 1 + (uint32_t)(io_random() % REQUESTS_MAX));
        fault_os_clear(&fixture->fault);
        if (round % 8 == 7) {
            io_assert_file_is_model(fixture);
        }
    }
    io_assert_file_is_model(fixture);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        ENGINES(test_each_call_failing_once), ENGINES(test_each_call_failing_from_then_on),
        ENGINES(test_always_short),           ENGINES(test_open_with_each_call_failing),
        ENGINES(test_random_mix_with_faults),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
