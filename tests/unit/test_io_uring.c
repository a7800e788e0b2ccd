/*
 * test_io_uring.c - goal: what only the io_uring engine does: the set-up ladder, the choice of
 * engine and its reason, registration and its refusals, cancelling inside the kernel, refused
 * enters, wakes that cost no syscall. Method: faults at set-up calls; a pipe, whose reads wait as
 * long as the test wants; forked children under seccomp and small limits.
 */
#include "io/io.h"

#include <errno.h>
#include <fcntl.h>
#include <liburing.h>
#include <seccomp.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/num.h"
#include "fault_os.h"

#define FILE_BYTES (4u << 20)
#define SECOND_NS 1000000000
#define POLLS_MAX 300u

struct fixture {
    struct fault_os fault;
    struct ab_io *io;
    int fd, pipe_fds[2];
    uint32_t file, pipe;
    unsigned char *arena;
    unsigned char model[FILE_BYTES];
};

static struct ab_io_config config_of(struct fixture *fixture, enum ab_io_engine engine)
{
    return (struct ab_io_config){
        .os = &fixture->fault.os,
        .node = -1,
        .engine = engine,
        .depth = 4,
        .file_max = 300,
        .probe_fd = -1,
    };
}

static int set_up(void **state)
{
    struct fixture *fixture = test_calloc(1, sizeof(*fixture));
    fault_os_init(&fixture->fault, NULL);
    for (uint32_t i = 0; i < FILE_BYTES; i++) {
        fixture->model[i] = (unsigned char)(i * 31 + i / 4096 * 7);
    }
    char path[] = "/tmp/abode-io-uring-XXXXXX";
    fixture->fd = mkstemp(path);
    assert_true(fixture->fd >= 0);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(pwrite(fixture->fd, fixture->model, FILE_BYTES, 0), FILE_BYTES);
    assert_int_equal(pipe2(fixture->pipe_fds, O_CLOEXEC), 0);
    fixture->arena =
        mmap(NULL, 2 * FILE_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_true(fixture->arena != MAP_FAILED);
    const struct ab_io_config config = config_of(fixture, AB_IO_URING);
    const int rc = ab_io_open(&config, &fixture->io);
    if (rc < 0) {
        print_message("SKIP: io_uring is refused here (%d)\n", rc);
        fixture->io = NULL;
    } else {
        assert_int_equal(ab_io_file_add(fixture->io, fixture->fd, &fixture->file), 0);
        assert_int_equal(ab_io_file_add(fixture->io, fixture->pipe_fds[0], &fixture->pipe), 0);
    }
    *state = fixture;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *fixture = *state;
    fault_os_clear(&fixture->fault);
    ab_io_close(fixture->io);
    assert_int_equal(fault_os_allocations(&fixture->fault), 0);
    (void)close(fixture->fd);
    (void)close(fixture->pipe_fds[0]);
    (void)close(fixture->pipe_fds[1]);
    (void)munmap(fixture->arena, 2 * FILE_BYTES);
    fault_os_free(&fixture->fault);
    test_free(fixture);
    return 0;
}

static struct fixture *fixture_of(void **state)
{
    struct fixture *fixture = *state;
    if (fixture->io == NULL) {
        skip(); /* the reason was printed by set_up */
    }
    return fixture;
}

static struct ab_io_request read_of(uint32_t file, void *address, uint64_t bytes, uint64_t offset)
{
    return (struct ab_io_request){.kind = AB_IO_READ,
                                  .file = file,
                                  .status = 12345,
                                  .address = address,
                                  .bytes = bytes,
                                  .offset = offset};
}

static void submit(struct ab_io *io, struct ab_io_request *request)
{
    ab_io_submit(io, &request, 1);
}

/* false: not all requests came back */
static bool drained(struct ab_io *io)
{
    struct ab_io_request *done[4];
    for (uint32_t i = 0; i < POLLS_MAX && ab_io_in_flight(io) > 0; i++) {
        (void)ab_io_poll(io, done, AB_COUNT(done), SECOND_NS);
    }
    return ab_io_in_flight(io) == 0;
}

static int transfer(struct ab_io *io, struct ab_io_request request)
{
    submit(io, &request);
    return drained(io) ? request.status : -ETIME;
}

/* ---- set-up ---- */

static void test_ladder_drops_flags_one_by_one(void **state)
{
    struct fixture *fixture = fixture_of(state);
    uint32_t flags_before = UINT32_MAX;
    for (uint32_t refused = 0; refused < 5; refused++) {
        for (uint32_t i = 0; i < refused; i++) {
            fault_os_plan(&fixture->fault, (struct fault_plan){.call = AB_OS_RING_INIT,
                                                               .nth = i + 1,
                                                               .kind = FAULT_ERROR,
                                                               .error = EINVAL});
        }
        const struct ab_io_config config = config_of(fixture, AB_IO_AUTO);
        struct ab_io *io = NULL;
        assert_int_equal(ab_io_open(&config, &io), 0);
        const struct ab_io_facts *facts = ab_io_facts(io);
        assert_int_equal(facts->engine, AB_IO_URING);
        assert_int_equal(facts->engine_reason, 0);
        assert_true(facts->setup_flags < flags_before);
        flags_before = facts->setup_flags;
        assert_int_equal(fault_os_strikes(&fixture->fault), refused);
        uint32_t file;
        assert_int_equal(ab_io_file_add(io, fixture->fd, &file), 0);
        assert_int_equal(transfer(io, read_of(file, fixture->arena, 5000, 1)), 0);
        assert_memory_equal(fixture->arena, fixture->model + 1, 5000);
        ab_io_close(io);
        fault_os_clear(&fixture->fault);
    }
    assert_int_equal(flags_before, 0);
}

struct refusal {
    enum ab_os_call call;
    int error, reason;
};

static void test_refusals_choose_threads_and_keep_the_reason(void **state)
{
    struct fixture *fixture = fixture_of(state);
    static const struct refusal refusals[] = {
        {AB_OS_RING_INIT, ENOSYS, -ENOSYS},
        {AB_OS_RING_INIT, EPERM, -EPERM},
        {AB_OS_RING_INIT, ENOMEM, -ENOMEM},
        {AB_OS_RING_INIT, EINVAL, -EINVAL},           /* every rung */
        {AB_OS_RING_RESULT, EOPNOTSUPP, -EOPNOTSUPP}, /* the probe read */
        {AB_OS_RING_ENTER, EPERM, -EPERM},
        {AB_OS_EVENTFD, EMFILE, -EMFILE},
    };
    for (uint32_t i = 0; i < AB_COUNT(refusals); i++) {
        fault_os_plan(&fixture->fault, (struct fault_plan){.call = refusals[i].call,
                                                           .nth = 1,
                                                           .sticky = true,
                                                           .kind = FAULT_ERROR,
                                                           .error = refusals[i].error});
        struct ab_io_config config = config_of(fixture, AB_IO_URING);
        struct ab_io *io = NULL;
        assert_int_equal(ab_io_open(&config, &io), refusals[i].reason); /* asked for: an error */
        assert_null(io);
        config.engine = AB_IO_AUTO;
        assert_int_equal(ab_io_open(&config, &io), 0);
        assert_int_equal(ab_io_facts(io)->engine, AB_IO_THREADS);
        assert_int_equal(ab_io_facts(io)->engine_reason, refusals[i].reason);
        uint32_t file;
        assert_int_equal(ab_io_file_add(io, fixture->fd, &file), 0);
        assert_int_equal(transfer(io, read_of(file, fixture->arena, 5000, 1)), 0);
        ab_io_close(io);
        fault_os_clear(&fixture->fault);
    }
}

static void test_probe_reads_the_given_file(void **state)
{
    struct fixture *fixture = fixture_of(state);
    struct ab_io_config config = config_of(fixture, AB_IO_URING);
    config.probe_fd = fixture->pipe_fds[1]; /* cannot be read */
    struct ab_io *io = NULL;
    assert_int_equal(ab_io_open(&config, &io), -EBADF);
    config.probe_fd = fixture->fd;
    assert_int_equal(ab_io_open(&config, &io), 0);
    ab_io_close(io);
}

/* ---- registration ---- */

static void test_registration_refused_still_works(void **state)
{
    struct fixture *fixture = fixture_of(state);
    for (uint32_t nth = 1; nth <= 4; nth++) { /* both tables, one file, one buffer */
        fault_os_plan(&fixture->fault, (struct fault_plan){.call = AB_OS_RING_REGISTER,
                                                           .nth = nth,
                                                           .kind = FAULT_ERROR,
                                                           .error = ENOMEM});
        const struct ab_io_config config = config_of(fixture, AB_IO_URING);
        struct ab_io *io = NULL;
        uint32_t file;
        assert_int_equal(ab_io_open(&config, &io), 0);
        assert_int_equal(ab_io_file_add(io, fixture->fd, &file), 0);
        assert_int_equal(ab_io_buffer_add(io, fixture->arena, 1u << 20), 0);
        const struct ab_io_facts *facts = ab_io_facts(io);
        const bool buffers_hit = nth == 2 || nth == 4;
        assert_int_equal(facts->fixed_buffers, !buffers_hit);
        assert_int_equal(facts->fixed_buffers_reason, buffers_hit ? -ENOMEM : 0);
        assert_int_equal(facts->memlock_needed, nth == 4 ? 1u << 20 : 0);
        assert_int_equal(facts->fixed_files, nth != 1 && nth != 3);
        assert_int_equal(transfer(io, read_of(file, fixture->arena, 5000, 1)), 0);
        assert_memory_equal(fixture->arena, fixture->model + 1, 5000);
        ab_io_buffer_remove(io, fixture->arena);
        ab_io_file_remove(io, file);
        ab_io_close(io);
        fault_os_clear(&fixture->fault);
    }
}

static void test_buffers_are_found_by_address(void **state)
{
    struct fixture *fixture = fixture_of(state);
    const uint32_t chunk = 64 * 1024;
    assert_true(ab_io_facts(fixture->io)->fixed_buffers);
    for (uint32_t i = 0; i < 32; i++) { /* out of order, with holes at every fourth */
        const uint32_t at = i * 13 % 32;
        if (at % 4 != 3) {
            assert_int_equal(ab_io_buffer_add(fixture->io, fixture->arena + at * chunk, chunk), 0);
        }
    }
    assert_int_equal(ab_io_buffer_add(fixture->io, fixture->arena, chunk), -EEXIST);
    assert_int_equal(ab_io_buffer_add(fixture->io, fixture->arena + chunk - 1, 2), -EEXIST);
    assert_int_equal(ab_io_buffer_add(fixture->io, fixture->arena + 3 * chunk - 1, 2), -EEXIST);
    assert_int_equal(ab_io_buffer_add(fixture->io, fixture->arena + 3 * chunk, chunk + 1), -EEXIST);
    for (uint32_t at = 0; at + chunk < 31 * chunk; at += chunk / 2 - 1) { /* inside and across */
        assert_int_equal(
            transfer(fixture->io, read_of(fixture->file, fixture->arena + at, chunk, at)), 0);
        assert_memory_equal(fixture->arena + at, fixture->model + at, chunk);
    }
    for (uint32_t round = 0; round < 5000; round++) { /* slots come back */
        ab_io_buffer_remove(fixture->io, fixture->arena);
        assert_int_equal(ab_io_buffer_add(fixture->io, fixture->arena, chunk), 0);
    }
    assert_true(ab_io_facts(fixture->io)->fixed_buffers);
    assert_int_equal(transfer(fixture->io, read_of(fixture->file, fixture->arena, chunk, 7)), 0);
    assert_memory_equal(fixture->arena, fixture->model + 7, chunk);
}

/* ---- in forked children ---- */

/* Runs in a child of its own; its result is the child's exit status, 0 is good, else a line number.
 * The child must not use cmocka's asserts. */
static int in_child(struct fixture *fixture, int (*run)(struct fixture *fixture))
{
    const pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        const int line = run(fixture);
        if (line != 0) {
            (void)fprintf(stderr, "child: failed at line %d\n", line);
        }
        _exit(line != 0);
    }
    int status = 0;
    assert_int_equal(waitpid(child, &status, 0), child);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

#define CHILD_CHECK(condition) \
    do {                       \
        if (!(condition)) {    \
            return __LINE__;   \
        }                      \
    } while (0)

static int child_reads(struct fixture *fixture, struct ab_io *io, void *memory)
{
    uint32_t file;
    CHILD_CHECK(ab_io_file_add(io, fixture->fd, &file) == 0);
    CHILD_CHECK(transfer(io, read_of(file, memory, 3000000, 12345)) == 0);
    CHILD_CHECK(memcmp(memory, fixture->model + 12345, 3000000) == 0);
    return 0;
}

static int seccomp_child(struct fixture *fixture, int error)
{
    scmp_filter_ctx filter = seccomp_init(SCMP_ACT_ALLOW);
    CHILD_CHECK(filter != NULL);
    const uint32_t act = SCMP_ACT_ERRNO((uint32_t)error);
    CHILD_CHECK(seccomp_rule_add(filter, act, SCMP_SYS(io_uring_setup), 0) == 0);
    CHILD_CHECK(seccomp_rule_add(filter, act, SCMP_SYS(io_uring_enter), 0) == 0);
    CHILD_CHECK(seccomp_rule_add(filter, act, SCMP_SYS(io_uring_register), 0) == 0);
    CHILD_CHECK(seccomp_load(filter) == 0);
    seccomp_release(filter);
    struct ab_io_config config = config_of(fixture, AB_IO_URING);
    struct ab_io *io = NULL;
    CHILD_CHECK(ab_io_open(&config, &io) == -error);
    config.engine = AB_IO_AUTO;
    CHILD_CHECK(ab_io_open(&config, &io) == 0);
    CHILD_CHECK(ab_io_facts(io)->engine == AB_IO_THREADS);
    CHILD_CHECK(ab_io_facts(io)->engine_reason == -error);
    const int line = child_reads(fixture, io, fixture->arena);
    ab_io_close(io);
    return line;
}

static int seccomp_eperm_child(struct fixture *fixture)
{
    return seccomp_child(fixture, EPERM);
}

static int seccomp_enosys_child(struct fixture *fixture)
{
    return seccomp_child(fixture, ENOSYS);
}

static void test_seccomp_refuses_io_uring(void **state)
{
    struct fixture *fixture = *state;
    assert_int_equal(in_child(fixture, seccomp_eperm_child), 0);
    assert_int_equal(in_child(fixture, seccomp_enosys_child), 0);
}

static int memlock_child(struct fixture *fixture)
{
    const struct rlimit limit = {.rlim_cur = 65536, .rlim_max = 65536};
    CHILD_CHECK(setrlimit(RLIMIT_MEMLOCK, &limit) == 0);
    CHILD_CHECK(geteuid() != 0 || (setgid(65534) == 0 && setuid(65534) == 0));
    const struct ab_io_config config = config_of(fixture, AB_IO_URING);
    struct ab_io *io = NULL;
    CHILD_CHECK(ab_io_open(&config, &io) == 0);
    CHILD_CHECK(ab_io_facts(io)->fixed_buffers);
    CHILD_CHECK(ab_io_buffer_add(io, fixture->arena, 1u << 20) == 0);
    CHILD_CHECK(ab_io_buffer_add(io, fixture->arena + (1u << 20), 3u << 20) == 0);
    const struct ab_io_facts *facts = ab_io_facts(io);
    CHILD_CHECK(!facts->fixed_buffers);
    CHILD_CHECK(facts->fixed_buffers_reason == -ENOMEM);
    CHILD_CHECK(facts->memlock_needed == 4u << 20);
    const int line = child_reads(fixture, io, fixture->arena);
    ab_io_close(io);
    return line;
}

static void test_memlock_too_small(void **state)
{
    struct fixture *fixture = fixture_of(state);
    assert_int_equal(in_child(fixture, memlock_child), 0);
}

static int nofile_child(struct fixture *fixture)
{
    const struct rlimit limit = {.rlim_cur = 256, .rlim_max = 256};
    CHILD_CHECK(setrlimit(RLIMIT_NOFILE, &limit) == 0);
    struct ab_io_config config = config_of(fixture, AB_IO_URING);
    config.file_max = 1000;
    struct ab_io *io = NULL;
    uint32_t file = 0;
    CHILD_CHECK(ab_io_open(&config, &io) == 0);
    CHILD_CHECK(ab_io_facts(io)->fixed_files); /* a smaller table: 250 */
    for (uint32_t i = 0; i < 300; i++) {       /* the others go without */
        CHILD_CHECK(ab_io_file_add(io, fixture->fd, &file) == 0);
        CHILD_CHECK(transfer(io, read_of(file, fixture->arena, 512, i)) == 0);
        CHILD_CHECK(memcmp(fixture->arena, fixture->model + i, 512) == 0);
    }
    ab_io_close(io);
    return 0;
}

static void test_file_limit_too_small(void **state)
{
    struct fixture *fixture = fixture_of(state);
    assert_int_equal(in_child(fixture, nofile_child), 0);
}

/* ---- in the kernel's hands ---- */

/* A pipe's read ends only when somebody writes: what poll() brings back was cancelled in the kernel,
 * and memory is ours again. Without the wait being cut to the deadline this never returns. */
static void test_deadline_in_flight(void **state)
{
    struct fixture *fixture = fixture_of(state);
    const struct ab_os *os = &fixture->fault.os;
    struct ab_io_request *done[2];
    memset(fixture->arena, 0x55, 4096);
    struct ab_io_request stuck = read_of(fixture->pipe, fixture->arena, 4096, 0);
    stuck.deadline_ns = os->clock_ns(os) + 20000000;
    submit(fixture->io, &stuck);
    assert_int_equal(ab_io_poll(fixture->io, done, 2, -1), 1);
    assert_ptr_equal(done[0], &stuck);
    assert_int_equal(stuck.status, -ETIMEDOUT);
    assert_int_equal(write(fixture->pipe_fds[1], "late", 4), 4);
    assert_int_equal(transfer(fixture->io, read_of(fixture->file, fixture->arena + 4096, 4096, 0)),
                     0);
    assert_int_equal(fixture->arena[0], 0x55);
}

static void test_cancel_in_flight(void **state)
{
    struct fixture *fixture = fixture_of(state);
    struct ab_io_request *done[8];
    struct ab_io_request stuck[4];
    for (uint32_t round = 0; round < 100; round++) { /* places and cancels are used again */
        for (uint32_t i = 0; i < 4; i++) {           /* all of depth */
            stuck[i] = read_of(fixture->pipe, fixture->arena + i * 4096, 4096, 0);
            submit(fixture->io, &stuck[i]);
        }
        struct ab_io_request behind = read_of(fixture->file, fixture->arena + FILE_BYTES, 9000, 3);
        submit(fixture->io, &behind);
        assert_int_equal(ab_io_poll(fixture->io, done, 8, 0), 0);
        for (uint32_t i = 0; i < 4; i++) {
            ab_io_cancel(fixture->io, &stuck[i]);
            ab_io_cancel(fixture->io, &stuck[i]);
        }
        assert_true(drained(fixture->io));
        for (uint32_t i = 0; i < 4; i++) {
            assert_int_equal(stuck[i].status, -ECANCELED);
        }
        assert_int_equal(behind.status, 0);
        assert_memory_equal(behind.address, fixture->model + 3, 9000);
    }
}

static void test_short_pipe_reads_go_on(void **state)
{
    struct fixture *fixture = fixture_of(state);
    struct ab_io_request *done[2];
    struct ab_io_request request = read_of(fixture->pipe, fixture->arena, 3 * 4096, 0);
    submit(fixture->io, &request);
    for (uint32_t i = 0; i < 3; i++) {
        assert_int_equal(request.status, 0);
        assert_int_equal(write(fixture->pipe_fds[1], fixture->model + i * 4096, 4096), 4096);
        /* a page that the kernel has not fetched yet would come in one read with the next */
        int waiting = 4096;
        while (i < 2 && waiting > 0) {
            assert_int_equal(ab_io_poll(fixture->io, done, 2, 1000000), 0);
            assert_int_equal(ioctl(fixture->pipe_fds[0], FIONREAD, &waiting), 0);
        }
    }
    assert_int_equal(ab_io_poll(fixture->io, done, 2, -1), 1);
    assert_memory_equal(fixture->arena, fixture->model, 3 * 4096);
    assert_true(ab_io_counters(fixture->io).shorts >= 1);
}

static void test_wake_while_pieces_are_stuck(void **state)
{
    struct fixture *fixture = fixture_of(state);
    struct ab_io_request *done[8];
    struct ab_io_request stuck = read_of(fixture->pipe, fixture->arena, 4096, 0);
    submit(fixture->io, &stuck);
    for (uint32_t i = 0; i < 100; i++) {
        ab_io_wake(fixture->io);
        assert_int_equal(ab_io_poll(fixture->io, done, 8, -1), 0);
    }
    assert_int_equal(fault_os_count(&fixture->fault, AB_OS_FD_WRITE), 0); /* it never slept */
    ab_io_cancel(fixture->io, &stuck);
    assert_true(drained(fixture->io));
}

/* ---- how many completions a wait asks for ---- */

static uint32_t wait_max; /* most that one enter waited for, since it was set to 0 */

static int enter_noting_wait(const struct ab_os *os, struct io_uring *ring, uint32_t wait,
                             int64_t timeout_ns)
{
    const struct ab_os *real = ab_os_default();
    (void)os;
    wait_max = AB_MAX(wait_max, wait);
    return real->ring_enter(real, ring, wait, timeout_ns);
}

/* Many reads of `bytes` at this depth; the most that an enter waited for. */
static uint32_t wait_max_of(struct fixture *fixture, uint32_t depth, uint32_t bytes,
                            enum ab_io_priority priority)
{
    struct ab_io_config config = config_of(fixture, AB_IO_URING);
    static struct ab_io_request requests[96];
    struct ab_io *io = NULL;
    uint32_t file;
    config.depth = depth;
    config.bytes_max = (uint64_t)AB_MIN(depth, 8) * AB_IO_PIECE;
    assert_int_equal(ab_io_open(&config, &io), 0);
    assert_int_equal(ab_io_file_add(io, fixture->fd, &file), 0);
    wait_max = 0;
    for (uint32_t i = 0; i < AB_COUNT(requests); i++) {
        requests[i] = read_of(file, fixture->arena, bytes, 0);
        requests[i].priority = priority;
        submit(io, &requests[i]);
    }
    assert_true(drained(io));
    ab_io_close(io);
    for (uint32_t i = 0; i < AB_COUNT(requests); i++) {
        assert_int_equal(requests[i].status, 0);
    }
    return wait_max;
}

static void test_only_restores_in_all_places_are_waited_for_in_batches(void **state)
{
    struct fixture *fixture = fixture_of(state);
    fixture->fault.os.ring_enter = enter_noting_wait;
    assert_int_equal(wait_max_of(fixture, 8, AB_IO_PIECE, AB_IO_RESTORE), 4);
    assert_int_equal(wait_max_of(fixture, 8, AB_IO_PIECE, AB_IO_SPILL), 1);
    assert_int_equal(wait_max_of(fixture, 8, 65536, AB_IO_RESTORE), 1); /* too little in flight */
    assert_int_equal(wait_max_of(fixture, 4, AB_IO_PIECE, AB_IO_RESTORE), 1);
    assert_int_equal(wait_max_of(fixture, 64, AB_IO_PIECE, AB_IO_RESTORE), 4); /* bytes_max */
    assert_int_equal(wait_max_of(fixture, 64, 65536, AB_IO_RESTORE), 32);
    assert_int_equal(wait_max_of(fixture, 64, 262144, AB_IO_RESTORE), 16);
}

/* ---- refused enters ---- */

static void test_each_enter_refused_once(void **state)
{
    struct fixture *fixture = fixture_of(state);
    static const int errors[] = {EINTR, EAGAIN, EBUSY, ENOMEM};
    for (uint32_t e = 0; e < AB_COUNT(errors); e++) {
        for (uint32_t nth = 1; nth < 10; nth++) {
            fault_os_plan(&fixture->fault, (struct fault_plan){.call = AB_OS_RING_ENTER,
                                                               .nth = nth,
                                                               .kind = FAULT_ERROR,
                                                               .error = errors[e]});
            memset(fixture->arena, 0, FILE_BYTES);
            assert_int_equal(
                transfer(fixture->io, read_of(fixture->file, fixture->arena, FILE_BYTES, 0)), 0);
            assert_memory_equal(fixture->arena, fixture->model, FILE_BYTES);
            fault_os_clear(&fixture->fault);
        }
    }
}

static void test_enters_refused_for_good(void **state)
{
    struct fixture *fixture = fixture_of(state);
    for (uint32_t round = 0; round < 40; round++) { /* more rounds than the queue has entries */
        fault_os_plan(&fixture->fault, (struct fault_plan){.call = AB_OS_RING_ENTER,
                                                           .nth = 1,
                                                           .sticky = true,
                                                           .kind = FAULT_ERROR,
                                                           .error = ENOMEM});
        assert_int_equal(
            transfer(fixture->io, read_of(fixture->file, fixture->arena, FILE_BYTES, 0)), -ENOMEM);
        fault_os_clear(&fixture->fault);
        if (round % 8 == 7) { /* and it recovers */
            memset(fixture->arena, 0, FILE_BYTES);
            assert_int_equal(
                transfer(fixture->io, read_of(fixture->file, fixture->arena, FILE_BYTES, 0)), 0);
            assert_memory_equal(fixture->arena, fixture->model, FILE_BYTES);
        }
    }
}

int main(void)
{
#define TEST(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(test_ladder_drops_flags_one_by_one),
        TEST(test_refusals_choose_threads_and_keep_the_reason),
        TEST(test_probe_reads_the_given_file),
        TEST(test_registration_refused_still_works),
        TEST(test_buffers_are_found_by_address),
        TEST(test_seccomp_refuses_io_uring),
        TEST(test_memlock_too_small),
        TEST(test_file_limit_too_small),
        TEST(test_deadline_in_flight),
        TEST(test_cancel_in_flight),
        TEST(test_short_pipe_reads_go_on),
        TEST(test_wake_while_pieces_are_stuck),
        TEST(test_only_restores_in_all_places_are_waited_for_in_batches),
        TEST(test_each_enter_refused_once),
        TEST(test_enters_refused_for_good),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
