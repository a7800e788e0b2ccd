/*
 * test_io.c - goal: the three engines keep one contract: same bytes, same statuses, same order.
 * Method: every test runs on each engine, over a real file, with O_DIRECT and buffered; what may
 * hang (a lost wake, an overslept deadline) waits without end, so that the runner notices.
 */
#include "io/io.h"

#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "abode/abode.h"
#include "base/num.h"
#include "io_fixture.h"

/* ---- bytes ---- */

static void test_any_size_and_offset_buffered(void **state)
{
    struct io_fixture *fixture = io_fixture_of(state);
    static const uint64_t sizes[] = {
        1,       511,     512, 4095, 4096, 4097, AB_IO_PIECE - 1, AB_IO_PIECE, AB_IO_PIECE + 1,
        3333333, 5u << 20};
    for (uint32_t i = 0; i < AB_COUNT(sizes); i++) {
        const uint64_t offset = io_random() % (FILE_BYTES - sizes[i]);
        unsigned char *bytes = fixture->arena + io_random() % 5000;
        io_fill(bytes, sizes[i]);
        memcpy(fixture->model + offset, bytes, sizes[i]);
        assert_int_equal(
            io_transfer(fixture, AB_IO_WRITE, fixture->buffered, bytes, sizes[i], offset), 0);
        bytes[sizes[i]] = 0xab; /* not to be touched by the read */
        memset(bytes, 0, sizes[i]);
        assert_int_equal(
            io_transfer(fixture, AB_IO_READ, fixture->buffered, bytes, sizes[i], offset), 0);
        assert_memory_equal(bytes, fixture->model + offset, sizes[i]);
        assert_int_equal(bytes[sizes[i]], 0xab);
    }
    io_assert_file_is_model(fixture);
}

static void test_direct_with_and_without_registered_buffers(void **state)
{
    struct io_fixture *fixture = io_fixture_of(state);
    for (uint32_t registered = 0; registered < 3; registered++) {
        if (registered == 1) { /* two that touch: pieces lie in one, the other, or across */
            assert_int_equal(ab_io_buffer_add(fixture->io, fixture->arena + (4u << 20), 4u << 20),
                             0);
            assert_int_equal(ab_io_buffer_add(fixture->io, fixture->arena, 4u << 20), 0);
        } else if (registered == 2) {
            ab_io_buffer_remove(fixture->io, fixture->arena);
            ab_io_buffer_remove(fixture->io, fixture->arena); /* twice is harmless */
        }
        for (uint32_t i = 0; i < 12; i++) {
            const uint64_t bytes = AB_PAGE * (1 + io_random() % 1200);
            const uint64_t offset = AB_PAGE * (io_random() % (FILE_BYTES / AB_PAGE - 1200));
            unsigned char *memory = fixture->arena + AB_PAGE * (io_random() % 2048);
            io_fill(memory, bytes);
            memcpy(fixture->model + offset, memory, bytes);
            assert_int_equal(
                io_transfer(fixture, AB_IO_WRITE, fixture->direct, memory, bytes, offset), 0);
            memset(memory, 0, bytes);
            assert_int_equal(
                io_transfer(fixture, AB_IO_READ, fixture->direct, memory, bytes, offset), 0);
            assert_memory_equal(memory, fixture->model + offset, bytes);
        }
    }
    io_assert_file_is_model(fixture);
}

static void test_end_of_file(void **state)
{
    struct io_fixture *fixture = io_fixture_of(state);
    const uint64_t odd = FILE_BYTES - 100;
    assert_int_equal(io_transfer(fixture, AB_IO_READ, fixture->buffered, fixture->arena, 8192,
                                 FILE_BYTES - 8192),
                     0);
    assert_int_equal(io_transfer(fixture, AB_IO_READ, fixture->buffered, fixture->arena, 8192,
                                 FILE_BYTES - 4096),
                     -ABODE_ECORRUPT);
    assert_int_equal(
        io_transfer(fixture, AB_IO_READ, fixture->direct, fixture->arena, 8192, FILE_BYTES),
        -ABODE_ECORRUPT);
    assert_int_equal(ftruncate(fixture->buffered_fd, (off_t)odd), 0);
    assert_int_equal(
        io_transfer(fixture, AB_IO_READ, fixture->buffered, fixture->arena, 8192, odd - 8192), 0);
    assert_int_equal(
        io_transfer(fixture, AB_IO_READ, fixture->buffered, fixture->arena, 8192, odd - 8191),
        -ABODE_ECORRUPT);
    assert_int_equal(
        io_transfer(fixture, AB_IO_READ, fixture->direct, fixture->arena, 8192, FILE_BYTES - 8192),
        -ABODE_ECORRUPT);
    assert_int_equal(io_transfer(fixture, AB_IO_READ, fixture->buffered, fixture->arena, 3u << 20,
                                 FILE_BYTES - (2u << 20)),
                     -ABODE_ECORRUPT);
}

static void test_memfd(void **state)
{
    struct io_fixture *fixture = io_fixture_of(state);
    const int fd = memfd_create("abode-test-io", MFD_CLOEXEC);
    assert_true(fd >= 0);
    uint32_t file;
    assert_int_equal(ab_io_file_add(fixture->io, fd, &file), 0);
    assert_int_equal(io_transfer(fixture, AB_IO_WRITE, file, fixture->model, 3000001, 17), 0);
    assert_int_equal(io_transfer(fixture, AB_IO_READ, file, fixture->arena, 3000001, 17), 0);
    assert_memory_equal(fixture->arena, fixture->model, 3000001);
    ab_io_file_remove(fixture->io, file);
    (void)close(fd);
}

static void test_ten_thousand_small_requests(void **state)
{
    struct io_fixture *fixture = io_fixture_of(state);
    enum { COUNT = 10000, BYTES = 1024 };
    struct ab_io_request *requests = test_calloc(COUNT, sizeof(*requests));
    struct ab_io_request **pointers = test_calloc(COUNT, sizeof(*pointers));
    unsigned char *back = test_malloc(COUNT * BYTES);
    for (uint32_t i = 0; i < COUNT; i++) {
        requests[i] = (struct ab_io_request){
            .kind = AB_IO_READ,
            .priority = (enum ab_io_priority)(io_random() % AB_IO_PRIORITY_COUNT),
            .file = fixture->buffered,
            .status = 12345,
            .address = back + (size_t)i * BYTES,
            .bytes = BYTES,
            .offset = io_random() % (FILE_BYTES - BYTES),
        };
        pointers[i] = &requests[i];
    }
    ab_io_submit(fixture->io, pointers, COUNT);
    assert_int_equal(ab_io_in_flight(fixture->io), COUNT);
    io_drain(fixture, NULL);
    for (uint32_t i = 0; i < COUNT; i++) {
        assert_int_equal(requests[i].status, 0);
        assert_memory_equal(back + (size_t)i * BYTES, fixture->model + requests[i].offset, BYTES);
    }
    const struct ab_io_counters counters = ab_io_counters(fixture->io);
    assert_int_equal(counters.pieces, COUNT);
    assert_int_equal(counters.bytes_read, (uint64_t)COUNT * BYTES);
    assert_int_equal(counters.errors, 0);
    test_free(back);
    test_free(pointers);
    test_free(requests);
}

/* ---- requests that are wrong, order, capacity ---- */

static void test_invalid_requests_fail_alone(void **state)
{
    struct io_fixture *fixture = io_fixture_of(state);
    struct ab_io_request *r[10];
    void *memory = fixture->arena;
    for (uint32_t i = 0; i < AB_COUNT(r); i++) {
        r[i] = io_request_make(fixture, i, AB_IO_READ, fixture->buffered, memory, 4096, 0);
    }
    r[0]->file = 15;         /* never added */
    r[1]->file = UINT32_MAX; /* out of the table */
    r[2]->bytes = 0;
    r[3]->address = NULL;
    r[4]->kind = (enum ab_io_kind)0;
    r[5]->kind = (enum ab_io_kind)3;
    r[6]->priority = AB_IO_PRIORITY_COUNT;
    r[7]->offset = UINT64_MAX - 10; /* wraps */
    r[8]->offset = INT64_MAX - 100; /* past what off_t can say */
    static const int status[] = {-EBADF,  -EBADF,  -EINVAL, -EINVAL, -EINVAL,
                                 -EINVAL, -EINVAL, -EINVAL, -EINVAL, 0};
    ab_io_submit(fixture->io, r, AB_COUNT(r));
    io_drain(fixture, NULL);
    for (uint32_t i = 0; i < AB_COUNT(r); i++) {
        assert_int_equal(r[i]->status, status[i]);
    }
    assert_memory_equal(memory, fixture->model, 4096);
}

static void test_priorities_order_what_starts(void **state)
{
    struct io_fixture *fixture = io_fixture_of(state);
    io_restart(fixture, 1); /* one piece at a time: the order of starting is that of finishing */
    static const enum ab_io_priority given[] = {AB_IO_SCRUB, AB_IO_SPILL,   AB_IO_RESTORE,
                                                AB_IO_SCRUB, AB_IO_RESTORE, AB_IO_SPILL};
    static const uint32_t wanted[] = {2, 4, 1, 5, 0, 3};
    struct ab_io_request *r[6], *order[6];
    for (uint32_t i = 0; i < 6; i++) {
        r[i] = io_request_make(fixture, i, AB_IO_READ, fixture->buffered, fixture->arena + 8192 * i,
                               8192, 8192 * i);
        r[i]->priority = given[i];
    }
    ab_io_submit(fixture->io, r, 6);
    io_drain(fixture, order);
    for (uint32_t i = 0; i < 6; i++) {
        assert_ptr_equal(order[i], r[wanted[i]]);
        assert_int_equal(order[i]->status, 0);
    }
}

static void test_a_restore_overtakes_the_rest_of_a_large_spill(void **state)
{
    struct io_fixture *fixture = io_fixture_of(state);
    io_restart(fixture, 1);
    struct ab_io_request *order[2];
    struct ab_io_request *spill =
        io_request_make(fixture, 0, AB_IO_WRITE, fixture->direct, fixture->arena, 4u << 20, 0);
    spill->priority = AB_IO_SPILL;
    io_submit(fixture, spill);
    struct ab_io_request *none;
    assert_int_equal(ab_io_poll(fixture->io, &none, 1, 0), 0); /* its first piece has started */
    struct ab_io_request *restore = io_request_make(fixture, 1, AB_IO_READ, fixture->direct,
                                                    fixture->arena + (4u << 20), 4096, 5u << 20);
    io_submit(fixture, restore);
    io_drain(fixture, order);
    assert_ptr_equal(order[0], restore);
    assert_ptr_equal(order[1], spill);
    assert_int_equal(restore->status, 0);
    assert_int_equal(spill->status, 0);
}

static void test_capacity_keeps_the_rest_for_the_next_poll(void **state)
{
    struct io_fixture *fixture = io_fixture_of(state);
    struct ab_io_request *r[5], *done[5];
    for (uint32_t i = 0; i < 5; i++) { /* all fail at once, so all are finished at the first poll */
        r[i] = io_request_make(fixture, i, AB_IO_READ, 14, fixture->arena, 4096, 0);
    }
    ab_io_submit(fixture->io, r, 5);
    assert_int_equal(ab_io_poll(fixture->io, done, 0, -1), 0);
    assert_int_equal(ab_io_in_flight(fixture->io), 5);
    assert_int_equal(ab_io_poll(fixture->io, done, 2, -1), 2);
    assert_int_equal(ab_io_in_flight(fixture->io), 3);
    assert_int_equal(ab_io_poll(fixture->io, done, 5, -1), 3);
    assert_int_equal(ab_io_poll(fixture->io, done, 5, 0), 0);
    assert_int_equal(ab_io_poll(fixture->io, done, 5, 1000000), 0);
}

static void test_file_table(void **state)
{
    struct io_fixture *fixture = io_fixture_of(state);
    uint32_t files[16], file = 0;
    assert_int_equal(ab_io_file_add(fixture->io, -1, &file), -EBADF);
    for (uint32_t i = 0; i < 14; i++) { /* two are there already */
        assert_int_equal(ab_io_file_add(fixture->io, fixture->buffered_fd, &files[i]), 0);
    }
    assert_int_equal(ab_io_file_add(fixture->io, fixture->buffered_fd, &file), -ENOSPC);
    assert_int_equal(file, 0); /* ret is written on success only */
    ab_io_file_remove(fixture->io, files[7]);
    ab_io_file_remove(fixture->io, files[7]);
    ab_io_file_remove(fixture->io, 99999);
    assert_int_equal(io_transfer(fixture, AB_IO_READ, files[7], fixture->arena, 512, 0), -EBADF);
    assert_int_equal(ab_io_file_add(fixture->io, fixture->direct_fd, &file), 0);
    assert_int_equal(file, files[7]);
    assert_int_equal(ab_io_file_add(fixture->io, fixture->direct_fd, &file), -ENOSPC);
    assert_int_equal(io_transfer(fixture, AB_IO_READ, files[7], fixture->arena, 4096, 4096), 0);
    assert_memory_equal(fixture->arena, fixture->model + 4096, 4096);
}

static void test_arguments(void **state)
{
    struct io_fixture *fixture = io_fixture_of(state);
    struct ab_io *io = NULL;
    struct ab_io_config config = {.os = &fixture->fault.os,
                                  .node = -1,
                                  .probe_fd = -1,
                                  .engine = fixture->engine,
                                  .depth = AB_IO_DEPTH_MAX + 1};
    assert_int_equal(ab_io_open(&config, &io), -EINVAL);
    config.depth = 0;
    config.engine = (enum ab_io_engine)4;
    assert_int_equal(ab_io_open(&config, &io), -EINVAL);
    config.engine = fixture->engine;
    config.file_max = 1u << 20;
    assert_int_equal(ab_io_open(&config, &io), -EINVAL);
    assert_null(io);
    config.file_max = 0;
    config.depth = AB_IO_DEPTH_MAX;
    assert_int_equal(ab_io_open(&config, &io), 0);
    ab_io_close(io);
    ab_io_close(NULL);
    assert_int_equal(ab_io_buffer_add(fixture->io, NULL, 4096), -EINVAL);
    assert_int_equal(ab_io_buffer_add(fixture->io, fixture->arena, 0), -EINVAL);
    assert_int_equal(ab_io_buffer_add(fixture->io, fixture->arena, AB_IO_BUFFER_MAX + 1ull),
                     -EINVAL);
}

/* ---- cancel and deadlines ---- */

static void test_cancel_what_has_not_started(void **state)
{
    struct io_fixture *fixture = io_fixture_of(state);
    struct ab_io_request *r[2];
    for (uint32_t i = 0; i < 2; i++) {
        r[i] = io_request_make(fixture, i, AB_IO_READ, fixture->direct, fixture->arena + (i << 20),
                               1u << 20, i << 20);
    }
    memset(fixture->arena, 0x55, 2u << 20);
    ab_io_submit(fixture->io, r, 2);
    ab_io_cancel(fixture->io, r[1]);
    ab_io_cancel(fixture->io, r[1]); /* twice is harmless */
    io_drain(fixture, NULL);
    assert_int_equal(r[0]->status, 0);
    assert_int_equal(r[1]->status, -ECANCELED);
    assert_int_equal(r[1]->bytes_issued, 0);
    assert_int_equal(fixture->arena[1u << 20], 0x55);
    ab_io_cancel(fixture->io, r[0]); /* finished: its result stays */
    assert_int_equal(r[0]->status, 0);
}

static void test_cancel_what_is_in_flight(void **state)
{
    struct io_fixture *fixture = io_fixture_of(state);
    for (uint32_t round = 0; round < 20; round++) {
        struct ab_io_request *none, *other;
        struct ab_io_request *r =
            io_request_make(fixture, 0, AB_IO_READ, fixture->direct, fixture->arena, 8u << 20, 0);
        io_submit(fixture, r);
        assert_int_equal(ab_io_poll(fixture->io, &none, 1, 0), 0); /* 8 pieces, 4 places */
        other = io_request_make(fixture, 1, AB_IO_READ, fixture->direct,
                                fixture->arena + (8u << 20), 1u << 20, 1u << 20);
        io_submit(fixture, other);
        ab_io_cancel(fixture->io, r);
        io_drain(fixture, NULL);
        assert_int_equal(r->status, -ECANCELED);
        assert_int_equal(other->status, 0);
        assert_memory_equal(other->address, fixture->model + (1u << 20), 1u << 20);
    }
}

static void test_deadline_passed_before_the_start(void **state)
{
    struct io_fixture *fixture = io_fixture_of(state);
    const struct ab_os *os = &fixture->fault.os;
    struct ab_io_request *r[3];
    for (uint32_t i = 0; i < 3; i++) {
        r[i] = io_request_make(fixture, i, AB_IO_READ, fixture->direct, fixture->arena + 4096 * i,
                               4096, 4096 * i);
    }
    memset(fixture->arena, 0x55, 3 * 4096);
    r[0]->deadline_ns = os->clock_ns(os) - 1;
    r[2]->deadline_ns = os->clock_ns(os) + 1000ull * SECOND_NS;
    ab_io_submit(fixture->io, r, 3);
    io_drain(fixture, NULL);
    assert_int_equal(r[0]->status, -ETIMEDOUT);
    assert_int_equal(r[0]->bytes_issued, 0);
    assert_int_equal(fixture->arena[0], 0x55);
    assert_int_equal(r[1]->status, 0);
    assert_int_equal(r[2]->status, 0);
    assert_memory_equal(fixture->arena + 4096, fixture->model + 4096, 2 * 4096);
}

/* io_uring has no call of ours to delay: test_io_uring does this with a pipe. */
static void test_deadline_passes_in_flight(void **state)
{
    struct io_fixture *fixture = io_fixture_of(state);
    io_restart(fixture, 1);
    const struct ab_os *os = &fixture->fault.os;
    fault_os_plan(
        &fixture->fault,
        (struct fault_plan){.call = AB_OS_PREAD, .kind = FAULT_DELAY, .delay_ns = 50000000});
    struct ab_io_request *slow =
        io_request_make(fixture, 0, AB_IO_READ, fixture->direct, fixture->arena, 2u << 20, 0);
    struct ab_io_request *behind = io_request_make(fixture, 1, AB_IO_READ, fixture->direct,
                                                   fixture->arena + (2u << 20), 4096, 0);
    struct ab_io_request *patient = io_request_make(fixture, 2, AB_IO_READ, fixture->direct,
                                                    fixture->arena + (3u << 20), 4096, 4096);
    slow->deadline_ns = os->clock_ns(os) + 5000000;
    behind->deadline_ns = slow->deadline_ns;
    io_submit(fixture, slow);
    io_submit(fixture, behind);
    io_submit(fixture, patient);
    io_drain(fixture, NULL);
    assert_int_equal(slow->status, -ETIMEDOUT);
    assert_int_equal(slow->bytes_issued, 1u << 20); /* its second piece never started */
    assert_int_equal(behind->status, -ETIMEDOUT);
    assert_int_equal(behind->bytes_issued, 0);
    assert_int_equal(patient->status, 0);
    assert_memory_equal(patient->address, fixture->model + 4096, 4096);
}

/* ---- wake ---- */

struct waker {
    struct ab_io *io;
    atomic_uint sent;
    uint32_t count;
};

static void *waker_run(void *argument)
{
    struct waker *waker = argument;
    for (uint32_t i = 0; i < waker->count; i++) {
        atomic_fetch_add(&waker->sent, 1);
        ab_io_wake(waker->io);
        if (i % 64 == 0) {
            const struct timespec pause = {.tv_nsec = 20000};
            (void)nanosleep(&pause, NULL);
        }
    }
    return NULL;
}

/* A wake that is lost hangs this test: the owner sleeps without end until it has seen them all. */
static void wake_storm(struct io_fixture *fixture, bool with_io)
{
    struct waker waker = {.io = fixture->io, .count = 5000};
    pthread_t thread;
    struct ab_io_request *done[2];
    uint32_t finished = 0;
    assert_int_equal(pthread_create(&thread, NULL, waker_run, &waker), 0);
    while (atomic_load(&waker.sent) < waker.count) {
        if (with_io && ab_io_in_flight(fixture->io) == 0) {
            io_submit(fixture, io_request_make(fixture, 0, AB_IO_READ, fixture->direct,
                                               fixture->arena, 4096, 4096));
        }
        finished += ab_io_poll(fixture->io, done, AB_COUNT(done), -1);
    }
    assert_int_equal(pthread_join(thread, NULL), 0);
    io_drain(fixture, NULL);
    assert_true(with_io ? finished <= waker.count * 2 : finished == 0);
}

static void test_wakes_are_not_lost(void **state)
{
    struct io_fixture *fixture = io_fixture_of(state);
    wake_storm(fixture, false);
}

static void test_wakes_beside_io(void **state)
{
    struct io_fixture *fixture = io_fixture_of(state);
    wake_storm(fixture, true);
    if (ab_io_in_flight(fixture->io) == 0) {
        assert_int_equal(fixture->requests[0].status, 0);
        assert_memory_equal(fixture->arena, fixture->model + 4096, 4096);
    }
}

static void test_wake_before_poll(void **state)
{
    struct io_fixture *fixture = io_fixture_of(state);
    struct ab_io_request *none;
    for (uint32_t i = 0; i < 3; i++) {
        ab_io_wake(fixture->io);
        ab_io_wake(fixture->io);
        assert_int_equal(ab_io_poll(fixture->io, &none, 1, -1), 0); /* else it never returns */
        assert_int_equal(ab_io_poll(fixture->io, &none, 1, 1000), 0);
    }
    assert_int_equal(fault_os_count(&fixture->fault, AB_OS_FD_WRITE), 0); /* nobody slept */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        ENGINES(test_any_size_and_offset_buffered),
        ENGINES(test_direct_with_and_without_registered_buffers),
        ENGINES(test_end_of_file),
        ENGINES(test_memfd),
        ENGINES(test_ten_thousand_small_requests),
        ENGINES(test_invalid_requests_fail_alone),
        ENGINES(test_priorities_order_what_starts),
        ENGINES(test_a_restore_overtakes_the_rest_of_a_large_spill),
        ENGINES(test_capacity_keeps_the_rest_for_the_next_poll),
        ENGINES(test_file_table),
        ENGINES(test_arguments),
        ENGINES(test_cancel_what_has_not_started),
        ENGINES(test_cancel_what_is_in_flight),
        ENGINES(test_deadline_passed_before_the_start),
        BLOCKING_ENGINES(test_deadline_passes_in_flight),
        ENGINES(test_wakes_are_not_lost),
        ENGINES(test_wakes_beside_io),
        ENGINES(test_wake_before_poll),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
