/*
 * test_recall.c - back to an older restore point of which a part is in the store only.
 *
 * Goal: truncate and fork give a position at which every component is there, or fail and change
 * nothing; an append then writes into frames. Method: the model of live.h (all four kinds; window
 * of 48 tokens), two restore points so far apart that attach leaves out the older one's window
 * rows, snapshot and bytes; every byte is compared. The sync engine, so that reads can be delayed
 * and made to fail through the table of syscalls.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
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

#include "fault_os.h"
#include "front/front.h"
#include "live.h"

#define OLDER_TOKENS 41u /* inside a row: the tail is written into after a truncate */
#define NEWER_TOKENS 130u

struct fixture {
    struct fault_os fault;
    struct live_host host;
    struct abode_session session; /* attached at the newer point, the older one is not in memory */
    struct live_state older, newer;
    char directory[256];
};

static void log_ignore(void *context, int level, const char *line)
{
    (void)context;
    (void)level;
    (void)line;
}

static int up(void **state)
{
    struct fixture *fixture = calloc(1, sizeof(*fixture));
    const char *paths[1];
    struct abode_config config;
    struct abode *runtime = NULL;
    assert_non_null(fixture);
    assert_int_equal(live_directory_make(fixture->directory, sizeof(fixture->directory)), 0);
    fault_os_init(&fixture->fault, NULL);
    paths[0] = fixture->directory;
    abode_config_init(&config);
    config.flags = ABODE_CREATE;
    config.memory_bytes_max = 8u << 20;
    config.store_bytes_max = 64u << 20;
    config.segment_bytes = 2u << 20;
    config.store_paths = paths;
    config.store_path_count = 1;
    config.huge = ABODE_HUGE_NONE;
    config.io = ABODE_IO_SYNC;
    config.log = log_ignore;
    assert_int_equal(ab_open_with_os(&config, &fixture->fault.os, &runtime), 0);
    assert_int_equal(live_host_open(runtime, 0, &fixture->host), 0);
    *state = fixture;
    return 0;
}

static int down(void **state)
{
    struct fixture *fixture = *state;
    fault_os_clear(&fixture->fault);
    assert_int_equal(live_host_close(&fixture->host), 0);
    assert_int_equal(fault_os_allocations(&fixture->fault), 0);
    fault_os_free(&fixture->fault);
    live_directory_remove(fixture->directory);
    free(fixture);
    return 0;
}

static void check(struct fixture *fixture, struct abode_session session,
                  const struct live_state *expected)
{
    char why[LIVE_WHY_MAX] = "";
    uint64_t compared = 0;
    int status = live_compare(&fixture->host, session, expected, why, &compared);
    if (status != 0) {
        print_error("%s: %s\n", abode_strerror(status), why);
    }
    assert_int_equal(status, 0);
}

static void grow(struct fixture *fixture, uint32_t token_count, uint32_t stamp)
{
    struct live_state *live = &fixture->newer;
    assert_int_equal(
        live_append(&fixture->host, fixture->session, live, token_count - live->token_count, stamp),
        0);
    assert_int_equal(live_snapshot(&fixture->host, fixture->session, live, stamp), 0);
}

/* Two points in the store, nothing in memory but what an attach brings back. */
static void two_points(struct fixture *fixture)
{
    struct abode_session_opts opts = {
        .struct_size = sizeof(opts), .model = fixture->host.model, .home_node = -1};
    assert_int_equal(abode_session_create(fixture->host.runtime, &opts, &fixture->session), 0);
    grow(fixture, OLDER_TOKENS, 1);
    fixture->older = fixture->newer;
    grow(fixture, NEWER_TOKENS, 2);
    assert_int_equal(live_detach(&fixture->host, fixture->session, ABODE_DETACH_SPILL_NOW), 0);
    assert_int_equal(live_attach(&fixture->host, fixture->session, -1, 0), 0);
    check(fixture, fixture->session, &fixture->newer);
}

static void truncate_brings_back_what_attach_left_out(void **state)
{
    struct fixture *fixture = *state;
    two_points(fixture);
    assert_int_equal(live_truncate(&fixture->host, fixture->session, OLDER_TOKENS), 0);
    check(fixture, fixture->session, &fixture->older);
    fixture->newer = fixture->older;
    grow(fixture, OLDER_TOKENS + 30, 3); /* into the row that was partly filled */
    check(fixture, fixture->session, &fixture->newer);
    assert_int_equal(live_detach(&fixture->host, fixture->session, ABODE_DETACH_SPILL_NOW), 0);
    assert_int_equal(live_attach(&fixture->host, fixture->session, -1, 0), 0);
    check(fixture, fixture->session, &fixture->newer);
}

static void fork_brings_back_what_attach_left_out(void **state)
{
    struct fixture *fixture = *state;
    struct abode_session child;
    two_points(fixture);
    assert_int_equal(live_fork(&fixture->host, fixture->session, OLDER_TOKENS, NULL, &child), 0);
    check(fixture, child, &fixture->older);
    check(fixture, fixture->session, &fixture->newer);
    assert_int_equal(live_append(&fixture->host, child, &fixture->older, 30, 4), 0);
    assert_int_equal(live_snapshot(&fixture->host, child, &fixture->older, 4), 0);
    check(fixture, child, &fixture->older);
    check(fixture, fixture->session, &fixture->newer);
}

/* It may be asked for in vain any number of times, and be left at that. */
static void a_point_that_cannot_be_read_changes_nothing(void **state)
{
    struct fixture *fixture = *state;
    struct abode_session child;
    two_points(fixture);
    fault_os_plan(&fixture->fault,
                  (struct fault_plan){
                      .call = AB_OS_PREAD, .kind = FAULT_ERROR, .error = EIO, .sticky = true});
    for (int i = 0; i < 3; i++) {
        assert_int_equal(live_truncate(&fixture->host, fixture->session, OLDER_TOKENS), -EIO);
        assert_int_equal(live_fork(&fixture->host, fixture->session, OLDER_TOKENS, NULL, &child),
                         -EIO);
        check(fixture, fixture->session, &fixture->newer);
    }
    fault_os_clear(&fixture->fault);
    assert_int_equal(live_append(&fixture->host, fixture->session, &fixture->newer, 20, 5), 0);
    int status = live_truncate(&fixture->host, fixture->session, OLDER_TOKENS);
    assert_true(status == 0 || status == -EIO); /* of the last try above */
    if (status != 0) {
        status = live_truncate(&fixture->host, fixture->session, OLDER_TOKENS);
    }
    assert_int_equal(status, 0);
    check(fixture, fixture->session, &fixture->older);
}

/* All that was stored is something else now. */
static void segments_damage(const struct fixture *fixture)
{
    static unsigned char bytes[2u << 20];
    char path[300], file[600];
    struct dirent *entry;
    memset(bytes, 0x5a, sizeof(bytes));
    (void)snprintf(path, sizeof(path), "%s/segments", fixture->directory);
    DIR *directory = opendir(path);
    assert_non_null(directory);
    while ((entry = readdir(directory)) != NULL) {
        if (entry->d_name[0] != '.') {
            (void)snprintf(file, sizeof(file), "%s/%s", path, entry->d_name);
            int fd = open(file, O_WRONLY);
            assert_true(fd >= 0);
            assert_int_equal(pwrite(fd, bytes, sizeof(bytes), 0), sizeof(bytes));
            assert_int_equal(close(fd), 0);
        }
    }
    assert_int_equal(closedir(directory), 0);
}

/* Found once, it is told each time, and not called a place that never was. */
static void a_point_that_is_damaged_is_called_so(void **state)
{
    struct fixture *fixture = *state;
    struct abode_session child;
    two_points(fixture);
    segments_damage(fixture);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(live_truncate(&fixture->host, fixture->session, OLDER_TOKENS),
                         -ABODE_ECORRUPT);
        assert_int_equal(live_fork(&fixture->host, fixture->session, OLDER_TOKENS, NULL, &child),
                         -ABODE_ECORRUPT);
        assert_int_equal(live_truncate(&fixture->host, fixture->session, OLDER_TOKENS - 1),
                         -EINVAL);
        check(fixture, fixture->session, &fixture->newer);
    }
}

/* What a move fills may be given up meanwhile: the bytes land, and go. */
static void deleted_while_it_is_brought_back(void **state)
{
    struct fixture *fixture = *state;
    struct abode_stats stats = {.struct_size = sizeof(stats)};
    two_points(fixture);
    fault_os_plan(&fixture->fault, (struct fault_plan){.call = AB_OS_PREAD,
                                                       .kind = FAULT_DELAY,
                                                       .delay_ns = 20000000,
                                                       .sticky = true});
    assert_int_equal(abode_session_truncate(fixture->host.runtime, fixture->session, OLDER_TOKENS),
                     -EAGAIN);
    assert_int_equal(abode_session_delete(fixture->host.runtime, fixture->session), 0);
    fixture->newer = (struct live_state){0};
    two_points(fixture); /* its blocks take the numbers of those */
    fault_os_clear(&fixture->fault);
    assert_int_equal(live_truncate(&fixture->host, fixture->session, OLDER_TOKENS), 0);
    check(fixture, fixture->session, &fixture->older);
    assert_int_equal(abode_session_delete(fixture->host.runtime, fixture->session), 0);
    assert_int_equal(abode_flush(fixture->host.runtime, -1), 0);
    assert_int_equal(abode_stats_get(fixture->host.runtime, &stats), 0);
    assert_int_equal(stats.blocks_resident, 0);
    assert_int_equal(stats.blocks_pinned, 0);
    assert_int_equal(stats.blocks_stored, 0);
    assert_int_equal(stats.checksum_failures, 0);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, up, down)
    const struct CMUnitTest tests[] = {
        TEST(truncate_brings_back_what_attach_left_out),
        TEST(fork_brings_back_what_attach_left_out),
        TEST(a_point_that_cannot_be_read_changes_nothing),
        TEST(a_point_that_is_damaged_is_called_so),
        TEST(deleted_while_it_is_brought_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
