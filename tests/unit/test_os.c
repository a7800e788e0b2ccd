/*
 * test_os.c - goal: the os table says exactly what the kernel said, and the helpers over it finish
 * whole transfers whatever the kernel cuts or interrupts. Method: real files in a temporary
 * directory; every fault through fault_os, whose own counting is checked on the way.
 */
#include "base/os.h"

#include <errno.h>
#include <fcntl.h>
#include <liburing.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/statvfs.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/num.h"
#include "fault_os.h"

#define FILE_BYTES 20000u

struct fixture {
    struct fault_os fault;
    const struct ab_os *os;
    char dir[64];
    int dir_fd;
    int fd;
    unsigned char bytes[FILE_BYTES];
};

static int set_up(void **state)
{
    struct fixture *fixture = test_calloc(1, sizeof(*fixture));
    fault_os_init(&fixture->fault, NULL);
    fixture->os = &fixture->fault.os;
    strncpy(fixture->dir, "/tmp/abode-test-os-XXXXXX", sizeof(fixture->dir) - 1);
    assert_non_null(mkdtemp(fixture->dir));
    const struct ab_os *os = fixture->os;
    fixture->dir_fd = os->openat(os, AT_FDCWD, fixture->dir, O_RDONLY | O_DIRECTORY, 0);
    assert_true(fixture->dir_fd >= 0);
    fixture->fd = os->openat(os, fixture->dir_fd, "file", O_RDWR | O_CREAT | O_EXCL, 0600);
    assert_true(fixture->fd >= 0);
    for (uint32_t i = 0; i < FILE_BYTES; i++) {
        fixture->bytes[i] = (unsigned char)(i * 7 + i / 256);
    }
    *state = fixture;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *fixture = *state;
    const struct ab_os *os = fixture->os;
    fault_os_clear(&fixture->fault);
    assert_int_equal(os->close(os, fixture->fd), 0);
    assert_int_equal(os->unlinkat(os, fixture->dir_fd, "file", 0), 0);
    assert_int_equal(os->close(os, fixture->dir_fd), 0);
    assert_int_equal(rmdir(fixture->dir), 0);
    assert_int_equal(fault_os_allocations(&fixture->fault), 0);
    fault_os_free(&fixture->fault);
    test_free(fixture);
    return 0;
}

static void every_call_has_a_name(void **state)
{
    (void)state;
    for (int call = 0; call < AB_OS_CALL_COUNT; call++) {
        assert_non_null(ab_os_call_name((enum ab_os_call)call));
        assert_string_not_equal(ab_os_call_name((enum ab_os_call)call), "unknown");
    }
    assert_string_equal(ab_os_call_name(AB_OS_CALL_COUNT), "unknown");
}

static void table_has_no_holes(void **state)
{
    (void)state;
    /* every member after `context` is a function pointer */
    const struct ab_os *os = ab_os_default();
    void *entries[sizeof(*os) / sizeof(void *)];
    memcpy(entries, os, sizeof(entries));
    for (size_t i = 1; i < AB_COUNT(entries); i++) {
        assert_non_null(entries[i]);
    }
}

static void errors_are_negative_errno(void **state)
{
    struct fixture *fixture = *state;
    const struct ab_os *os = fixture->os;
    char byte = 0;
    void *base = NULL;
    errno = 0;
    assert_int_equal(os->openat(os, fixture->dir_fd, "absent", O_RDONLY, 0), -ENOENT);
    assert_int_equal(os->openat(os, fixture->dir_fd, "file", O_CREAT | O_EXCL, 0600), -EEXIST);
    assert_int_equal(os->close(os, -1), -EBADF);
    assert_int_equal(os->pread(os, -1, &byte, 1, 0), -EBADF);
    assert_int_equal(os->pwrite(os, -1, &byte, 1, 0), -EBADF);
    assert_int_equal(os->renameat(os, fixture->dir_fd, "absent", "other"), -ENOENT);
    assert_int_equal(os->unlinkat(os, fixture->dir_fd, "absent", 0), -ENOENT);
    assert_int_equal(os->mmap(os, 0, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0, &base),
                     -EINVAL);
    assert_null(base); /* written on success only */
    struct statvfs facts;
    assert_int_equal(os->statvfs(os, "/nowhere/at/all", &facts), -ENOENT);
    assert_int_equal(os->fd_read(os, -1, &byte, 1), -EBADF);
}

static void files_are_closed_on_exec(void **state)
{
    struct fixture *fixture = *state;
    assert_true((fcntl(fixture->fd, F_GETFD) & FD_CLOEXEC) != 0);
}

static void write_all_then_read_all(void **state)
{
    struct fixture *fixture = *state;
    unsigned char back[FILE_BYTES + 10];
    const struct ab_os *os = fixture->os;
    assert_int_equal(ab_os_write_all(os, fixture->fd, fixture->bytes, FILE_BYTES, 0), 0);
    /* up to the end, past the end, at the end, beyond it, nothing */
    assert_int_equal(ab_os_read_all(os, fixture->fd, back, FILE_BYTES, 0), FILE_BYTES);
    assert_memory_equal(back, fixture->bytes, FILE_BYTES);
    assert_int_equal(ab_os_read_all(os, fixture->fd, back, FILE_BYTES + 10, 0), FILE_BYTES);
    assert_int_equal(ab_os_read_all(os, fixture->fd, back, 10, FILE_BYTES - 1), 1);
    assert_int_equal(ab_os_read_all(os, fixture->fd, back, 10, FILE_BYTES), 0);
    assert_int_equal(ab_os_read_all(os, fixture->fd, back, 10, FILE_BYTES + 99), 0);
    assert_int_equal(ab_os_read_all(os, fixture->fd, back, 0, 0), 0);
    assert_int_equal(ab_os_write_all(os, fixture->fd, fixture->bytes, 0, 0), 0);
}

static void short_transfers_are_finished(void **state)
{
    struct fixture *fixture = *state;
    const struct ab_os *os = fixture->os;
    unsigned char back[FILE_BYTES] = {0};
    fault_os_plan(&fixture->fault,
                  (struct fault_plan){.call = AB_OS_PWRITE, .kind = FAULT_SHORT, .sticky = true});
    fault_os_plan(&fixture->fault,
                  (struct fault_plan){.call = AB_OS_PREAD, .kind = FAULT_SHORT, .sticky = true});
    assert_int_equal(ab_os_write_all(os, fixture->fd, fixture->bytes, FILE_BYTES, 3), 0);
    assert_int_equal(ab_os_read_all(os, fixture->fd, back, FILE_BYTES, 3), FILE_BYTES);
    assert_memory_equal(back, fixture->bytes, FILE_BYTES);
    assert_true(fault_os_strikes(&fixture->fault) > 4);
}

static void interruptions_are_retried_but_not_for_ever(void **state)
{
    struct fixture *fixture = *state;
    const struct ab_os *os = fixture->os;
    unsigned char back[100];
    for (uint64_t nth = 1; nth <= 3; nth++) {
        fault_os_plan(&fixture->fault,
                      (struct fault_plan){
                          .call = AB_OS_PWRITE, .kind = FAULT_ERROR, .error = EINTR, .nth = nth});
        fault_os_plan(&fixture->fault,
                      (struct fault_plan){
                          .call = AB_OS_PREAD, .kind = FAULT_ERROR, .error = EINTR, .nth = nth});
    }
    assert_int_equal(ab_os_write_all(os, fixture->fd, fixture->bytes, 100, 0), 0);
    assert_int_equal(ab_os_read_all(os, fixture->fd, back, 100, 0), 100);
    assert_memory_equal(back, fixture->bytes, 100);
    assert_int_equal(fault_os_strikes(&fixture->fault), 6);
    fault_os_clear(&fixture->fault);
    fault_os_plan(&fixture->fault,
                  (struct fault_plan){
                      .call = FAULT_ANY_CALL, .kind = FAULT_ERROR, .error = EINTR, .sticky = true});
    assert_int_equal(ab_os_write_all(os, fixture->fd, fixture->bytes, 100, 0), -EIO);
    assert_int_equal(ab_os_read_all(os, fixture->fd, back, 100, 0), -EIO);
}

/* What a signal may interrupt, by two calls of it; what must not be called again; no hole. */
static void patient_table_calls_again(void **state)
{
    struct fixture *fixture = *state;
    struct ab_os_patient patient;
    const struct ab_os *os = &patient.os;
    struct stat facts;
    ab_os_patient_init(&patient, fixture->os);
    const struct fault_plan interrupted = {
        .call = FAULT_ANY_CALL, .kind = FAULT_ERROR, .error = EINTR};
    fault_os_plan(&fixture->fault, interrupted);
    assert_int_equal(os->fsync(os, fixture->fd), 0);
    fault_os_plan(&fixture->fault, interrupted);
    assert_int_equal(os->fstat(os, fixture->fd, &facts), 0);
    assert_int_equal(fault_os_strikes(&fixture->fault), 2);
    const uint64_t before = fault_os_count(&fixture->fault, AB_OS_CLOSE);
    const int fd = os->openat(os, fixture->dir_fd, "file", O_RDONLY, 0);
    assert_true(fd >= 0);
    fault_os_plan(&fixture->fault, interrupted);
    assert_int_equal(os->close(os, fd), 0);
    assert_int_equal(fault_os_count(&fixture->fault, AB_OS_CLOSE), before + 1);
    fault_os_plan(&fixture->fault, interrupted);
    assert_int_equal(os->poll(os, -1, 0, 0), -EINTR);
    fault_os_clear(&fixture->fault);
    fault_os_plan(&fixture->fault,
                  (struct fault_plan){
                      .call = AB_OS_FSYNC, .kind = FAULT_ERROR, .error = EINTR, .sticky = true});
    assert_int_equal(os->fsync(os, fixture->fd), -EIO); /* but not for ever */
    void *entries[sizeof(*os) / sizeof(void *)];
    memcpy(entries, os, sizeof(entries));
    for (size_t i = 0; i < AB_COUNT(entries); i++) {
        assert_non_null(entries[i]);
    }
}

static void errors_end_a_transfer(void **state)
{
    struct fixture *fixture = *state;
    const struct ab_os *os = fixture->os;
    unsigned char back[100];
    fault_os_plan(&fixture->fault, (struct fault_plan){.call = AB_OS_PWRITE, .kind = FAULT_SHORT});
    fault_os_plan(
        &fixture->fault,
        (struct fault_plan){.call = AB_OS_PWRITE, .kind = FAULT_ERROR, .error = ENOSPC, .nth = 2});
    assert_int_equal(ab_os_write_all(os, fixture->fd, fixture->bytes, 100, 0), -ENOSPC);
    assert_int_equal(fault_os_struck(&fixture->fault), AB_OS_PWRITE);
    assert_int_equal(ab_os_read_all(os, fixture->fd, back, 100, 0), 50);
    fault_os_plan(&fixture->fault,
                  (struct fault_plan){.call = AB_OS_PREAD, .kind = FAULT_ERROR, .error = EIO});
    assert_int_equal(ab_os_read_all(os, fixture->fd, back, 100, 0), -EIO);
}

static int64_t take_nothing(const struct ab_os *os, int fd, const void *bytes, size_t count,
                            uint64_t offset)
{
    (void)os, (void)fd, (void)bytes, (void)count, (void)offset;
    return 0;
}

static void a_file_that_takes_nothing_is_an_error(void **state)
{
    (void)state;
    struct ab_os os = *ab_os_default();
    os.pwrite = take_nothing;
    assert_int_equal(ab_os_write_all(&os, 0, "x", 1, 0), -EIO);
}

static void alloc_is_zeroed_and_aligned(void **state)
{
    struct fixture *fixture = *state;
    const struct ab_os *os = fixture->os;
    static const size_t alignments[] = {1, 8, 16, 64, 4096};
    for (size_t i = 0; i < AB_COUNT(alignments); i++) {
        for (int round = 0; round < 4; round++) { /* the second may reuse the first one's bytes */
            unsigned char *bytes = os->alloc(os, 5000, alignments[i]);
            assert_non_null(bytes);
            assert_int_equal((uintptr_t)bytes % alignments[i], 0);
            for (uint32_t k = 0; k < 5000; k++) {
                assert_int_equal(bytes[k], 0);
            }
            memset(bytes, 0xff, 5000);
            os->free(os, bytes);
        }
    }
    os->free(os, NULL);
}

static void arrays_do_not_overflow(void **state)
{
    struct fixture *fixture = *state;
    const struct ab_os *os = fixture->os;
    assert_null(ab_os_alloc_array(os, UINT64_MAX, 8));
    assert_null(ab_os_alloc_array(os, UINT64_MAX / 8 + 2, 8));
    assert_null(ab_os_alloc_array(os, (uint64_t)PTRDIFF_MAX + 1, 1));
    void *none = ab_os_alloc_array(os, 0, 8);
    assert_non_null(none); /* an empty array is not a failure */
    os->free(os, none);
    fault_os_plan(&fixture->fault,
                  (struct fault_plan){.call = AB_OS_ALLOC, .kind = FAULT_ERROR, .error = ENOMEM});
    assert_null(ab_os_alloc_array(os, 4, 8));
    void *some = ab_os_alloc_array(os, 4, 8);
    assert_non_null(some);
    assert_int_equal(fault_os_allocations(&fixture->fault), 1);
    os->free(os, some);
}

static void lazy_maps_are_zero_and_whole_pages(void **state)
{
    struct fixture *fixture = *state;
    const struct ab_os *os = fixture->os;
    void *base = NULL;
    assert_int_equal(ab_os_map_lazy(os, 0, &base), -EINVAL);
    assert_int_equal(ab_os_map_lazy(os, SIZE_MAX, &base), -EINVAL);
    assert_null(base);
    assert_int_equal(ab_os_map_lazy(os, AB_PAGE + 1, &base), 0);
    unsigned char *bytes = base;
    assert_int_equal(bytes[0], 0);
    bytes[2 * AB_PAGE - 1] = 1; /* the second page is there to its end */
    assert_int_equal(os->munmap(os, base, 2 * AB_PAGE), 0);
    fault_os_plan(&fixture->fault,
                  (struct fault_plan){.call = AB_OS_MMAP, .kind = FAULT_ERROR, .error = ENOMEM});
    assert_int_equal(ab_os_map_lazy(os, AB_PAGE, &base), -ENOMEM);
}

static void poll_and_eventfd(void **state)
{
    struct fixture *fixture = *state;
    const struct ab_os *os = fixture->os;
    const int fd = os->eventfd(os, 0, EFD_CLOEXEC | EFD_NONBLOCK);
    assert_true(fd >= 0);
    uint64_t value = 0;
    assert_int_equal(os->fd_read(os, fd, &value, sizeof(value)), -EAGAIN);
    assert_int_equal(os->poll(os, fd, POLLIN, 0), 0);
    assert_int_equal(os->poll(os, fd, POLLIN, 1000), 0);
    value = 3;
    assert_int_equal(os->fd_write(os, fd, &value, sizeof(value)), 8);
    assert_int_equal(os->poll(os, fd, POLLIN, -1), POLLIN);
    value = 0;
    assert_int_equal(os->fd_read(os, fd, &value, sizeof(value)), 8);
    assert_int_equal(value, 3);
    assert_int_equal(os->close(os, fd), 0);
}

static void clocks_and_random(void **state)
{
    struct fixture *fixture = *state;
    const struct ab_os *os = fixture->os;
    const uint64_t first = os->clock_ns(os);
    assert_true(first > 0 && os->clock_ns(os) >= first);
    assert_true(os->wall_clock_ns(os) > 1700000000ull * 1000000000ull); /* after 2023 */
    unsigned char a[400] = {0};
    unsigned char b[400] = {0}; /* more than getrandom gives without interruption, 256 */
    assert_int_equal(os->random(os, a, sizeof(a)), 0);
    assert_int_equal(os->random(os, b, sizeof(b)), 0);
    assert_memory_not_equal(a, b, sizeof(a));
    assert_memory_not_equal(a + 300, b + 300, 100);
}

static void *set_flag(void *argument)
{
    *(int *)argument = 1;
    return NULL;
}

static void threads_start(void **state)
{
    struct fixture *fixture = *state;
    const struct ab_os *os = fixture->os;
    int flag = 0;
    unsigned long thread = 0;
    fault_os_plan(&fixture->fault,
                  (struct fault_plan){.call = AB_OS_THREAD, .kind = FAULT_ERROR, .error = EAGAIN});
    assert_int_equal(os->thread_start(os, set_flag, &flag, &thread), -EAGAIN);
    assert_int_equal(os->thread_start(os, set_flag, &flag, &thread), 0);
    assert_int_equal(pthread_join((pthread_t)thread, NULL), 0);
    assert_int_equal(flag, 1);
}

static void ring_waits_and_completes(void **state)
{
    struct fixture *fixture = *state;
    const struct ab_os *os = fixture->os;
    struct io_uring ring;
    struct io_uring_params params = {0};
    const int error = os->ring_init(os, 4, &ring, &params);
    if (error < 0) {
        print_message("SKIP: io_uring is refused here: %s\n", strerror(-error));
        skip();
    }
    assert_int_equal(os->ring_enter(os, &ring, 0, -1), 0);
    assert_int_equal(os->ring_enter(os, &ring, 1, 0), 0); /* polls, does not wait */
    assert_int_equal(os->ring_enter(os, &ring, 1, 1000), -ETIME);
    struct io_uring_sqe *entry = io_uring_get_sqe(&ring);
    io_uring_prep_nop(entry);
    io_uring_sqe_set_data64(entry, 42);
    assert_int_equal(os->ring_enter(os, &ring, 1, 10000000000), 1);
    struct io_uring_cqe *completion = NULL;
    assert_int_equal(io_uring_peek_cqe(&ring, &completion), 0);
    assert_int_equal(io_uring_cqe_get_data64(completion), 42);
    io_uring_cqe_seen(&ring, completion);
    /* a file table through the raw register call, and its refusal */
    assert_int_equal(os->ring_register(os, &ring, IORING_REGISTER_FILES, &fixture->fd, 1), 0);
    assert_int_equal(os->ring_register(os, &ring, IORING_REGISTER_FILES, &fixture->fd, 1), -EBUSY);
    assert_int_equal(os->ring_result(os, 0, 4096, 4096), 4096);
    fault_os_plan(&fixture->fault,
                  (struct fault_plan){.call = AB_OS_RING_RESULT, .kind = FAULT_SHORT});
    assert_int_equal(os->ring_result(os, 0, 1 << 20, 1 << 20), 1 << 19);
    os->ring_exit(os, &ring);
}

/* ---- the fault table itself ---- */

static void plans_strike_the_nth_call_only(void **state)
{
    struct fixture *fixture = *state;
    const struct ab_os *os = fixture->os;
    struct stat facts;
    fault_os_plan(
        &fixture->fault,
        (struct fault_plan){.call = AB_OS_FSTAT, .kind = FAULT_ERROR, .error = EIO, .nth = 3});
    const uint64_t before = fault_os_count(&fixture->fault, AB_OS_FSTAT);
    for (int i = 1; i <= 5; i++) {
        (void)os->clock_ns(os);
        assert_int_equal(os->fsync(os, fixture->fd), 0); /* another kind does not count */
        assert_int_equal(os->fstat(os, fixture->fd, &facts), i == 3 ? -EIO : 0);
    }
    assert_int_equal(fault_os_count(&fixture->fault, AB_OS_FSTAT) - before, 5);
    assert_int_equal(fault_os_strikes(&fixture->fault), 1);
    fault_os_clear(&fixture->fault);
    fault_os_plan(&fixture->fault, (struct fault_plan){.call = FAULT_ANY_CALL,
                                                       .kind = FAULT_ERROR,
                                                       .error = ENOSPC,
                                                       .nth = 2,
                                                       .sticky = true});
    (void)os->clock_ns(os); /* cannot fail, so it is no candidate */
    assert_int_equal(os->fstat(os, fixture->fd, &facts), 0);
    assert_int_equal(os->fsync(os, fixture->fd), -ENOSPC);
    assert_int_equal(os->fstat(os, fixture->fd, &facts), -ENOSPC);
}

static void a_failed_close_still_closes(void **state)
{
    struct fixture *fixture = *state;
    const struct ab_os *os = fixture->os;
    const int fd = os->openat(os, fixture->dir_fd, "file", O_RDONLY, 0);
    fault_os_plan(&fixture->fault,
                  (struct fault_plan){.call = AB_OS_CLOSE, .kind = FAULT_ERROR, .error = EIO});
    assert_int_equal(os->close(os, fd), -EIO);
    assert_int_equal(os->close(os, fd), -EBADF);
}

static int status_of_child(struct fixture *fixture, enum fault_kind kind)
{
    const pid_t child = fork();
    if (child == 0) {
        fault_os_plan(&fixture->fault,
                      (struct fault_plan){.call = AB_OS_PWRITE, .kind = kind, .nth = 2});
        const struct ab_os *os = fixture->os;
        (void)os->pwrite(os, fixture->fd, fixture->bytes, 10, 0);
        (void)os->pwrite(os, fixture->fd, fixture->bytes + 10, 10, 10);
        _exit(0);
    }
    int status = 0;
    assert_int_equal(waitpid(child, &status, 0), child);
    return status;
}

static void kill_comes_before_the_call_and_tear_in_its_middle(void **state)
{
    struct fixture *fixture = *state;
    struct stat facts;
    int status = status_of_child(fixture, FAULT_KILL);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    assert_int_equal(fstat(fixture->fd, &facts), 0);
    assert_int_equal(facts.st_size, 10);
    status = status_of_child(fixture, FAULT_TEAR);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    assert_int_equal(fstat(fixture->fd, &facts), 0);
    assert_int_equal(facts.st_size, 15);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_call_has_a_name),
        cmocka_unit_test(table_has_no_holes),
        TEST(errors_are_negative_errno),
        TEST(files_are_closed_on_exec),
        TEST(write_all_then_read_all),
        TEST(short_transfers_are_finished),
        TEST(interruptions_are_retried_but_not_for_ever),
        TEST(patient_table_calls_again),
        TEST(errors_end_a_transfer),
        cmocka_unit_test(a_file_that_takes_nothing_is_an_error),
        TEST(alloc_is_zeroed_and_aligned),
        TEST(arrays_do_not_overflow),
        TEST(lazy_maps_are_zero_and_whole_pages),
        TEST(poll_and_eventfd),
        TEST(clocks_and_random),
        TEST(threads_start),
        TEST(ring_waits_and_completes),
        TEST(plans_strike_the_nth_call_only),
        TEST(a_failed_close_still_closes),
        TEST(kill_comes_before_the_call_and_tear_in_its_middle),
    };
    return cmocka_run_group_tests_name("os", tests, NULL, NULL);
}
