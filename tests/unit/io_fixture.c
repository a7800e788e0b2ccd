/* io_fixture.c - see io_fixture.h. */
#include "io_fixture.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/num.h"

#define POLLS_MAX 1000000u /* a test that hangs is ended by its runner */

enum ab_io_engine io_engines[3] = {AB_IO_URING, AB_IO_THREADS, AB_IO_SYNC};

static uint64_t random_state;

void io_random_seed(uint64_t seed)
{
    random_state = seed;
}

uint64_t io_random(void)
{
    random_state += 0x9e3779b97f4a7c15u;
    uint64_t z = random_state;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

void io_fill(unsigned char *bytes, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        bytes[i] = (unsigned char)io_random();
    }
}

static void io_start(struct io_fixture *fixture, uint32_t depth)
{
    const struct ab_io_config config = {
        .os = &fixture->fault.os,
        .node = -1,
        .engine = fixture->engine,
        .depth = depth,
        .file_max = 16,
        .probe_fd = fixture->direct_fd,
    };
    const int rc = ab_io_open(&config, &fixture->io);
    if (rc < 0 && fixture->engine == AB_IO_URING) {
        print_message("SKIP: io_uring is refused here (%d)\n", rc);
        fixture->io = NULL;
        return;
    }
    assert_int_equal(rc, 0);
    assert_int_equal(ab_io_facts(fixture->io)->engine, fixture->engine);
    assert_int_equal(ab_io_file_add(fixture->io, fixture->direct_fd, &fixture->direct), 0);
    assert_int_equal(ab_io_file_add(fixture->io, fixture->buffered_fd, &fixture->buffered), 0);
}

void io_restart(struct io_fixture *fixture, uint32_t depth)
{
    ab_io_close(fixture->io);
    io_start(fixture, depth);
}

static void *aligned_bytes(size_t bytes)
{
    void *base = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_true(base != MAP_FAILED);
    return base;
}

int io_set_up(void **state)
{
    struct io_fixture *fixture = test_calloc(1, sizeof(*fixture));
    fixture->engine = *(const enum ab_io_engine *)*state;
    io_random_seed(1);
    fault_os_init(&fixture->fault, NULL);
    const char *tmp = getenv("TMPDIR");
    (void)snprintf(fixture->path, sizeof(fixture->path), "%.40s/abode-io-XXXXXX",
                   tmp == NULL ? "/tmp" : tmp);
    fixture->buffered_fd = mkstemp(fixture->path);
    assert_true(fixture->buffered_fd >= 0);
    fixture->direct_fd = open(fixture->path, O_RDWR | O_DIRECT | O_CLOEXEC);
    if (fixture->direct_fd < 0) { /* a file system without O_DIRECT */
        fixture->direct_fd = open(fixture->path, O_RDWR | O_CLOEXEC);
    }
    assert_true(fixture->direct_fd >= 0);
    fixture->arena = aligned_bytes(ARENA_BYTES);
    fixture->model = aligned_bytes(FILE_BYTES);
    io_fill(fixture->model, FILE_BYTES);
    assert_int_equal(pwrite(fixture->buffered_fd, fixture->model, FILE_BYTES, 0), FILE_BYTES);
    io_start(fixture, 4);
    *state = fixture;
    return 0;
}

int io_tear_down(void **state)
{
    struct io_fixture *fixture = *state;
    fault_os_clear(&fixture->fault);
    ab_io_close(fixture->io);
    assert_int_equal(fault_os_allocations(&fixture->fault), 0);
    (void)unlink(fixture->path);
    (void)close(fixture->direct_fd);
    (void)close(fixture->buffered_fd);
    (void)munmap(fixture->arena, ARENA_BYTES);
    (void)munmap(fixture->model, FILE_BYTES);
    fault_os_free(&fixture->fault);
    test_free(fixture);
    return 0;
}

struct io_fixture *io_fixture_of(void **state)
{
    struct io_fixture *fixture = *state;
    if (fixture->io == NULL) {
        skip(); /* the reason was printed by io_start */
    }
    return fixture;
}

struct ab_io_request *io_request_make(struct io_fixture *fixture, uint32_t index,
                                      enum ab_io_kind kind, uint32_t file, void *address,
                                      uint64_t bytes, uint64_t offset)
{
    struct ab_io_request *request = &fixture->requests[index];
    *request = (struct ab_io_request){
        .kind = kind,
        .file = file,
        .status = 12345,
        .address = address,
        .bytes = bytes,
        .offset = offset,
    };
    return request;
}

void io_submit(struct io_fixture *fixture, struct ab_io_request *request)
{
    ab_io_submit(fixture->io, &request, 1);
}

void io_drain(struct io_fixture *fixture, struct ab_io_request **ret_order)
{
    uint32_t got = 0;
    for (uint32_t i = 0; i < POLLS_MAX && ab_io_in_flight(fixture->io) > 0; i++) {
        struct ab_io_request *done[3];
        const uint32_t count = ab_io_poll(fixture->io, done, AB_COUNT(done), SECOND_NS);
        assert_true(count <= AB_COUNT(done));
        for (uint32_t k = 0; k < count; k++) {
            assert_int_equal(done[k]->pieces_in_flight, 0);
            if (ret_order != NULL) {
                ret_order[got] = done[k];
            }
            got++;
        }
    }
    assert_int_equal(ab_io_in_flight(fixture->io), 0);
}

int io_transfer(struct io_fixture *fixture, enum ab_io_kind kind, uint32_t file, void *address,
                uint64_t bytes, uint64_t offset)
{
    io_submit(fixture, io_request_make(fixture, 0, kind, file, address, bytes, offset));
    io_drain(fixture, NULL);
    return fixture->requests[0].status;
}

void io_assert_file_is_model(struct io_fixture *fixture)
{
    unsigned char *bytes = aligned_bytes(FILE_BYTES);
    assert_int_equal(pread(fixture->buffered_fd, bytes, FILE_BYTES, 0), FILE_BYTES);
    assert_memory_equal(bytes, fixture->model, FILE_BYTES);
    (void)munmap(bytes, FILE_BYTES);
}
