/*
 * io_fixture.h - what test_io and test_io_faults share: an engine over a file of 8 MiB in a
 * temporary directory, opened with O_DIRECT (where the file system has it) and buffered, with
 * fault_os in between and a copy of the file in memory. The engine is the test's initial state.
 */
#ifndef AB_TESTS_UNIT_IO_FIXTURE_H
#define AB_TESTS_UNIT_IO_FIXTURE_H

#include <stdint.h>

#include "fault_os.h"
#include "io/io.h"

#define FILE_BYTES (8u << 20)
#define ARENA_BYTES (16u << 20)
#define REQUESTS_MAX 64
#define POLLS_MAX \
    1000000u /* of one second each at most: a test that hangs is ended by its runner */
#define SECOND_NS 1000000000

struct io_fixture {
    enum ab_io_engine engine;
    struct fault_os fault;
    struct ab_io *io;
    char path[64];
    int direct_fd, buffered_fd;
    uint32_t direct, buffered; /* files of io */
    unsigned char *arena;      /* requests' memory, page aligned */
    unsigned char *model;      /* what the file holds */
    struct ab_io_request requests[REQUESTS_MAX];
};

extern enum ab_io_engine io_engines[3]; /* uring, threads, sync */
#define BLOCKING_ENGINES(test)                                         \
    {#test " threads", test, io_set_up, io_tear_down, &io_engines[1]}, \
    {                                                                  \
#test " sync", test, io_set_up, io_tear_down, &io_engines[2]   \
    }
#define ENGINES(test) \
    {#test " uring", test, io_set_up, io_tear_down, &io_engines[0]}, BLOCKING_ENGINES(test)

int io_set_up(void **state);
int io_tear_down(void **state);
struct io_fixture *io_fixture_of(void **state); /* skips the test where the engine is refused */
void io_restart(struct io_fixture *fixture, uint32_t depth);

void io_random_seed(uint64_t seed); /* set_up seeds with 1 */
uint64_t io_random(void);
void io_fill(unsigned char *bytes, size_t count);

/* Fills fixture->requests[index]; its status is nonsense until polled. */
struct ab_io_request *io_request_make(struct io_fixture *fixture, uint32_t index,
                                      enum ab_io_kind kind, uint32_t file, void *address,
                                      uint64_t bytes, uint64_t offset);
void io_submit(struct io_fixture *fixture, struct ab_io_request *request);
/* Polls until all are back; ret_order (may be NULL) gets them in the order of their return. */
void io_drain(struct io_fixture *fixture, struct ab_io_request **ret_order);
/* One request from start to end; its status. */
int io_transfer(struct io_fixture *fixture, enum ab_io_kind kind, uint32_t file, void *address,
                uint64_t bytes, uint64_t offset);
void io_assert_file_is_model(struct io_fixture *fixture);

#endif
