/*
 * test_full.c - a disk that is full, or read-only: nothing lost, nothing overwritten.
 *
 * Goal: a detach that finds no room says -ENOSPC and leaves the state in memory; when there is room
 * again, the next detach or abode_flush keeps the promise; a flush that could not keep it does not
 * say that it did. Method: a store limit that is reached, a tmpfs of 12 MiB that something else
 * fills (needs root and mount, else skipped), and a file system that turns read-only.
 */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <unistd.h>
// clang-format off
#include <cmocka.h>
// clang-format on

#include "api_fixture.h"

#define FLUSH_NS (60ll * 1000000000)
#define SESSIONS 64u

/* Detach sessions until one finds no room; returns how many were stored. */
static uint32_t fill_up(struct api *api, struct abode_session *sessions)
{
    uint32_t stored = 0;
    for (; stored < SESSIONS; stored++) {
        sessions[stored] = api_create(api, api->paged, stored + 1);
        if (api_append(api, sessions[stored], stored, 128) != 0) {
            print_error("session %u: append\n", stored);
        }
        int status = api_detach(api, sessions[stored], 0);
        if (status != 0) {
            assert_int_equal(status, -ENOSPC);
            break;
        }
    }
    assert_in_range(stored, 4, SESSIONS - 1);
    return stored;
}

static void all_are_there(struct api *api, uint32_t first, uint32_t end)
{
    for (uint32_t i = first; i < end; i++) {
        struct abode_session session = api_find(api, i + 1);
        assert_int_equal(api_attach(api, session, 0), 0);
        api_check(api, session, i, 128);
        assert_int_equal(api_detach(api, session, 0), 0);
    }
}

static void full_store(void **state)
{
    struct api *api = *state;
    struct abode_session sessions[SESSIONS];
    api->config.store_bytes_max = 4u << 20;
    api->hybrid_bytes = 0;
    api->paged_bytes = 6u << 20;
    api_open(api);
    uint32_t stored = fill_up(api, sessions);
    struct abode_session failed = sessions[stored];
    assert_int_equal(api_stat(api, failed).attached, 0);
    assert_int_equal(api_stat(api, failed).stored_tokens, 0);
    assert_int_equal(api_tokens(api, failed), 128);
    assert_int_equal(abode_flush(api->runtime, FLUSH_NS), -ENOSPC); /* not done: not said */
    assert_int_equal(api_attach(api, failed, 0), 0);
    api_check(api, failed, stored, 128); /* still in memory */
    assert_int_equal(api_detach(api, failed, 0), -ENOSPC);
    all_are_there(api, 0, stored);
    for (uint32_t i = 0; i < 16; i++) { /* whole segments must come free */
        assert_int_equal(abode_session_delete(api->runtime, sessions[i]), 0);
    }
    assert_int_equal(abode_flush(api->runtime, FLUSH_NS), 0);
    assert_int_equal(api_stat(api, failed).stored_tokens, 128);
    api_reopen(api);
    all_are_there(api, 16, stored + 1);
    struct api_damage damage;
    assert_int_equal(api_verify(api, &damage), 0);
}

static void ended_sessions_give_way(void **state)
{
    struct api *api = *state;
    struct abode_session sessions[SESSIONS];
    struct abode_stats stats;
    api->config.store_bytes_max = 4u << 20;
    api->hybrid_bytes = 0;
    api->paged_bytes = 6u << 20;
    api_open(api);
    uint32_t stored = fill_up(api, sessions);
    for (uint32_t i = 0; i < 16; i++) {
        abode_advise(api->runtime, sessions[i], ABODE_ENDED, 0);
    }
    assert_int_equal(abode_flush(api->runtime, FLUSH_NS), 0);
    assert_int_equal(api_stat(api, sessions[stored]).stored_tokens, 128);
    assert_int_equal(abode_stats_get(api->runtime, &stats), 0);
    assert_in_range(stats.sessions_dropped, 1, 16);
    api_reopen(api);
    all_are_there(api, 16, stored + 1);
}

/* ---- dead space comes back ---- */

static void half_dead_store(struct api *api, struct abode_session *sessions, uint32_t *ret_stored)
{
    api->config.store_bytes_max = 8u << 20;
    api->hybrid_bytes = 0;
    api->paged_bytes = 1u << 20; /* less than compaction moves */
    api_open(api);
    *ret_stored = fill_up(api, sessions);
    for (uint32_t i = 0; i < *ret_stored; i += 2) { /* no segment is dead as a whole */
        assert_int_equal(abode_session_delete(api->runtime, sessions[i]), 0);
    }
}

/* Every segment is half dead and none is free: what is dead must be usable again. */
static void dead_blocks_make_room(void **state)
{
    struct api *api = *state;
    struct abode_session sessions[SESSIONS];
    uint32_t stored = 0;
    half_dead_store(api, sessions, &stored);
    assert_int_equal(abode_flush(api->runtime, FLUSH_NS), 0); /* the one that found no room */
    const uint32_t more = stored / 3;                         /* of the half that is dead */
    for (uint32_t i = 0; i < more; i++) {
        struct abode_session session = api_create(api, api->paged, 100 + i);
        assert_int_equal(api_append(api, session, 99 + i, 128), 0);
        assert_int_equal(api_detach(api, session, 0), 0);
    }
    api_reopen(api);
    for (uint32_t i = 1; i < stored; i += 2) {
        all_are_there(api, i, i + 1);
    }
    all_are_there(api, stored, stored + 1);
    all_are_there(api, 99, 99 + more);
    struct api_damage damage;
    assert_int_equal(api_verify(api, &damage), 0);
}

/* Sessions are deleted while compaction moves their blocks. */
static void deleted_while_it_moves(void **state)
{
    struct api *api = *state;
    struct abode_session sessions[SESSIONS];
    uint32_t stored = 0, gone = 1;
    half_dead_store(api, sessions, &stored);
    for (uint32_t i = 0; i < 24; i++) {
        struct abode_session session = api_create(api, api->paged, 100 + i);
        struct abode_op op = {0}, *done = NULL;
        assert_int_equal(api_append(api, session, 99 + i, 128), 0);
        assert_int_equal(abode_detach(api->queue, session, 0, &op), 0);
        while (abode_poll(api->queue, &done, 1, 300000) == 0) {
            if (gone < stored / 2) {
                assert_int_equal(abode_session_delete(api->runtime, sessions[gone]), 0);
                gone += 2;
            }
        }
        assert_int_equal(op.status, 0);
    }
    api_reopen(api);
    for (uint32_t i = gone; i < stored; i += 2) {
        all_are_there(api, i, i + 1);
    }
    all_are_there(api, 99, 99 + 24);
    struct api_damage damage;
    assert_int_equal(api_verify(api, &damage), 0);
    struct abode_stats stats; /* nothing is left of those that were deleted */
    assert_int_equal(abode_stats_get(api->runtime, &stats), 0);
    const uint32_t live = 24 + (stored - gone + 1) / 2;
    assert_int_equal(stats.store_bytes_live, live * 16 * API_ROW_BYTES);
}

/* An hour's worth at once, then -EDQUOT: the state stays in memory, what is stored stays good. */
static void endurance_budget(void **state)
{
    struct api *api = *state;
    struct abode_session sessions[9];
    api->config.spill_bytes_per_day_max = 24u << 20; /* 1 MiB an hour, 291 bytes a second */
    api->hybrid_bytes = 0;
    api->paged_bytes = 6u << 20;
    api_open(api);
    for (uint32_t i = 0; i < 9; i++) {
        sessions[i] = api_create(api, api->paged, i + 1);
        assert_int_equal(api_append(api, sessions[i], i, 128), 0);
        assert_int_equal(api_detach(api, sessions[i], 0), i < 8 ? 0 : -EDQUOT);
    }
    assert_int_equal(api_attach(api, sessions[8], 0), 0);
    api_check(api, sessions[8], 8, 128);
    assert_int_equal(api_detach(api, sessions[8], 0), -EDQUOT);
    api_reopen(api); /* the bucket is of the process */
    all_are_there(api, 0, 8);
}

/* What finds no room writes nothing: it costs nothing of the budget. */
static void a_full_store_costs_no_endurance(void **state)
{
    struct api *api = *state;
    struct abode_session sessions[SESSIONS];
    api->config.spill_bytes_per_day_max = 24ull * (5u << 20);
    api->config.store_bytes_max = 4u << 20;
    api->hybrid_bytes = 0;
    api->paged_bytes = 6u << 20;
    api_open(api);
    uint32_t stored = fill_up(api, sessions);
    for (uint32_t i = 0; i < 30; i++) {
        assert_int_equal(abode_flush(api->runtime, FLUSH_NS), -ENOSPC);
    }
    for (uint32_t i = 0; i < 16; i++) {
        assert_int_equal(abode_session_delete(api->runtime, sessions[i]), 0);
    }
    assert_int_equal(abode_flush(api->runtime, FLUSH_NS), 0);
    assert_int_equal(api_stat(api, sessions[stored]).stored_tokens, 128);
}

/* ---- a file system of our own ---- */

static bool small_disk(struct api *api, const char *options)
{
    if (mount("abode-test", api->directory, "tmpfs", 0, options) != 0) {
        print_message("SKIP: mount of a tmpfs is not allowed (%s): run as root\n", strerror(errno));
        return false;
    }
    return true;
}

static int small_disk_down(void **state)
{
    struct api *api = *state;
    if (api->runtime != NULL) {
        api_close(api);
    }
    (void)umount2(api->directory, MNT_DETACH);
    return api_down(state);
}

static void ballast_set(const struct api *api, bool there)
{
    static const unsigned char bytes[65536] = {1};
    char path[128];
    (void)snprintf(path, sizeof(path), "%s/segments/ballast", api->directory);
    if (!there) {
        (void)unlink(path);
        return;
    }
    int fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    while (write(fd, bytes, sizeof(bytes)) == (ssize_t)sizeof(bytes)) {}
    (void)close(fd);
}

static void full_disk(void **state)
{
    struct api *api = *state;
    struct abode_session sessions[SESSIONS];
    if (!small_disk(api, "size=12m")) {
        skip();
    }
    api->hybrid_bytes = 0;
    api->paged_bytes = 6u << 20;
    api_open(api);
    struct abode_session first = api_create(api, api->paged, 100);
    api_turn(api, first, 100, 64);
    assert_int_equal(api_detach(api, first, ABODE_DETACH_SPILL_NOW), 0);
    ballast_set(api, true);
    uint32_t stored = 0;
    int status = 0;
    for (; stored < SESSIONS && status == 0; stored++) {
        sessions[stored] = api_create(api, api->paged, stored + 1);
        assert_int_equal(api_append(api, sessions[stored], stored, 128), 0);
        status = api_detach(api, sessions[stored], 0);
    }
    stored--;
    assert_int_equal(status, -ENOSPC);
    assert_int_equal(api_tokens(api, sessions[stored]), 128);
    assert_int_equal(abode_flush(api->runtime, FLUSH_NS), -ENOSPC);
    assert_int_equal(api_attach(api, first, 0), 0); /* what was stored is as good as ever */
    api_check(api, first, 100, 64);
    assert_int_equal(api_detach(api, first, 0), 0);
    ballast_set(api, false);
    for (uint32_t tries = 0; status == -ENOSPC && tries < 100; tries++) {
        (void)usleep(100000); /* the store asks the file system again after a while */
        status = abode_flush(api->runtime, FLUSH_NS);
    }
    assert_int_equal(status, 0);
    api_reopen(api);
    all_are_there(api, 0, stored + 1);
    first = api_find(api, 100);
    assert_int_equal(api_attach(api, first, 0), 0);
    api_check(api, first, 100, 64);
}

static void no_room_to_make_a_store(void **state)
{
    struct api *api = *state;
    if (!small_disk(api, "size=8k")) {
        skip();
    }
    int status = api_try_open(api);
    assert_true(status < 0);
    assert_true(api_logged(api, api->directory));
    assert_int_equal(fault_os_allocations(&api->fault), 0);
    assert_int_equal(mount("abode-test", api->directory, NULL, MS_REMOUNT, "size=32m"), 0);
    api_open(api); /* half made, nothing was in it: made now */
    struct abode_session session = api_create(api, api->paged, 1);
    api_turn(api, session, 1, 30);
    assert_int_equal(api_detach(api, session, 0), 0);
}

static void read_only_disk(void **state)
{
    struct api *api = *state;
    if (!small_disk(api, "size=32m")) {
        skip();
    }
    api_open(api);
    struct abode_session session = api_create(api, api->hybrid, 1);
    api_turn(api, session, 1, 30);
    assert_int_equal(api_detach(api, session, 0), 0);
    api_close(api);
    int remounted = -1; /* the kernel lets go of a ring's files some time after its end */
    for (uint32_t tries = 0; remounted != 0 && tries < 1000; tries++) {
        remounted = mount("abode-test", api->directory, NULL, MS_REMOUNT | MS_RDONLY, NULL);
        (void)usleep(remounted == 0 ? 0 : 10000);
    }
    assert_int_equal(remounted, 0);
    assert_int_equal(api_try_open(api), -EROFS);
    assert_true(api_logged(api, "mount the file system writable, or open the store read-only"));
    uint32_t flags = api->config.flags;
    api->config.flags = ABODE_READ_ONLY;
    assert_int_equal(api_try_open(api), 0);
    struct api_damage damage;
    assert_int_equal(api_verify(api, &damage), 0);
    assert_int_equal(api_tokens(api, api_find(api, 1)), 30);
    api_close(api);
    api->config.flags = flags;
    assert_int_equal(mount("abode-test", api->directory, NULL, MS_REMOUNT, NULL), 0);
    api_open(api);
    session = api_find(api, 1);
    assert_int_equal(api_attach(api, session, 0), 0);
    api_check(api, session, 1, 30);
}

static void io_errors_keep_the_state_in_memory(void **state)
{
    struct api *api = *state;
    api->config.io = ABODE_IO_THREADS;
    api_open(api);
    struct abode_session session = api_create(api, api->hybrid, 1);
    api_turn(api, session, 1, 30);
    fault_os_plan(
        &api->fault,
        (struct fault_plan){.call = AB_OS_PWRITE, .kind = FAULT_ERROR, .error = EIO, .nth = 4});
    int status = api_detach(api, session, 0);
    fault_os_clear(&api->fault);
    assert_true(status == -EIO || status == 0);
    assert_int_equal(api_attach(api, session, 0), 0);
    api_check(api, session, 1, 30);
    assert_int_equal(api_detach(api, session, 0), 0);
    api_reopen(api);
    session = api_find(api, 1);
    assert_int_equal(api_attach(api, session, 0), 0);
    api_check(api, session, 1, 30);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, api_up, api_down)
#define DISK(name) cmocka_unit_test_setup_teardown(name, api_up, small_disk_down)
    const struct CMUnitTest tests[] = {
        TEST(full_store),
        TEST(ended_sessions_give_way),
        TEST(dead_blocks_make_room),
        TEST(deleted_while_it_moves),
        TEST(endurance_budget),
        TEST(a_full_store_costs_no_endurance),
        DISK(full_disk),
        DISK(no_room_to_make_a_store),
        DISK(read_only_disk),
        TEST(io_errors_keep_the_state_in_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
