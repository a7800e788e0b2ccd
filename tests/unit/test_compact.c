/*
 * test_compact.c - segments that are mostly dead are emptied; what a host does meanwhile.
 *
 * Goal: compaction moves blocks and changes none, and a session that is deleted while its blocks are
 * on their way is gone, in memory, in the store and after a restart. Method: a store of four
 * segments, three of them written; most sessions are deleted, so that compaction starts by itself.
 * The sync engine with slow writes: a batch is then under way for about half a second.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <unistd.h>
// clang-format off
#include <cmocka.h>
// clang-format on

#include "api_fixture.h"

#define SESSIONS 20u
#define TOKENS 128u /* 16 blocks of 8 KiB */
#define KEPT_EVERY 4u
#define WAITS 10000 /* of 1 ms */

static struct abode_stats stats_of(struct api *api)
{
    struct abode_stats stats;
    assert_int_equal(abode_stats_get(api->runtime, &stats), 0);
    return stats;
}

/* Sessions in the store only. */
static void all_stored(struct api *api, struct abode_session sessions[SESSIONS])
{
    api->config.io = ABODE_IO_SYNC;
    api->config.store_bytes_max = 4u << 20;
    api->hybrid_bytes = 0;
    api->paged_bytes = 6u << 20;
    api_open(api);
    for (uint32_t i = 0; i < SESSIONS; i++) {
        sessions[i] = api_create(api, api->paged, i + 1);
        assert_int_equal(api_append(api, sessions[i], i, TOKENS), 0);
        assert_int_equal(api_detach(api, sessions[i], ABODE_DETACH_SPILL_NOW), 0);
    }
}

/* Then those that are not kept are deleted. */
static void mostly_dead(struct api *api, struct abode_session sessions[SESSIONS])
{
    fault_os_plan(&api->fault, (struct fault_plan){.call = AB_OS_PWRITE,
                                                   .kind = FAULT_DELAY,
                                                   .delay_ns = 10000000,
                                                   .sticky = true});
    for (uint32_t i = 0; i < SESSIONS; i++) {
        if (i % KEPT_EVERY != 0) {
            assert_int_equal(abode_session_delete(api->runtime, sessions[i]), 0);
        }
    }
    assert_int_equal(abode_flush(api->runtime, -1), 0);
}

/* A batch of compaction's is being written: nobody else spills. */
static void compaction_wait(struct api *api)
{
    uint64_t writes = fault_os_count(&api->fault, AB_OS_PWRITE);
    for (int i = 0; i < WAITS && fault_os_count(&api->fault, AB_OS_PWRITE) < writes + 4; i++) {
        (void)usleep(1000);
    }
    assert_true(fault_os_count(&api->fault, AB_OS_PWRITE) >= writes + 4);
}

static void all_kept_are_there(struct api *api)
{
    for (uint32_t i = 0; i < SESSIONS; i += KEPT_EVERY) {
        struct abode_session session = api_find(api, i + 1);
        assert_int_equal(api_attach(api, session, 0), 0);
        api_check(api, session, i, TOKENS);
        assert_int_equal(api_detach(api, session, ABODE_DETACH_SPILL_NOW), 0);
    }
}

static void bytes_stay_the_same(void **state)
{
    struct api *api = *state;
    struct abode_session sessions[SESSIONS];
    struct api_damage damage;
    all_stored(api, sessions);
    mostly_dead(api, sessions);
    compaction_wait(api);
    all_kept_are_there(api);
    fault_os_clear(&api->fault);
    all_kept_are_there(api);
    api_reopen(api);
    all_kept_are_there(api);
    assert_int_equal(api_verify(api, &damage), 0);
    assert_int_equal(stats_of(api).checksum_failures, 0);
}

static void deleted_while_it_is_moved(void **state)
{
    struct api *api = *state;
    struct abode_session sessions[SESSIONS];
    all_stored(api, sessions);
    mostly_dead(api, sessions);
    compaction_wait(api);
    for (uint32_t i = 0; i < SESSIONS; i += KEPT_EVERY) {
        assert_int_equal(abode_session_delete(api->runtime, sessions[i]), 0);
    }
    /* the numbers of its blocks must not be given away before the batch has come back */
    struct abode_session other = api_create(api, api->paged, 100);
    assert_int_equal(api_append(api, other, 100, TOKENS), 0);
    assert_int_equal(api_detach(api, other, ABODE_DETACH_SPILL_NOW), 0);
    fault_os_clear(&api->fault);
    for (int i = 0; i < WAITS && stats_of(api).blocks_stored > TOKENS / API_BLOCK_TOKENS; i++) {
        (void)usleep(1000);
    }
    for (int round = 0; round < 2; round++) {
        assert_int_equal(stats_of(api).blocks_stored, TOKENS / API_BLOCK_TOKENS);
        assert_int_equal(stats_of(api).blocks_pinned, 0);
        other = api_find(api, 100);
        assert_int_equal(api_attach(api, other, 0), 0);
        api_check(api, other, 100, TOKENS);
        assert_int_equal(api_detach(api, other, 0), 0);
        api_reopen(api);
    }
    assert_int_equal(stats_of(api).checksum_failures, 0);
}

/* A block that is damaged stays so: it must not get a new checksum at a new place. */
static void damage_is_not_moved(void **state)
{
    struct api *api = *state;
    struct abode_session sessions[SESSIONS];
    unsigned char bytes[API_TOKEN_BYTES];
    all_stored(api, sessions);
    for (uint32_t i = 0; i < SESSIONS; i += KEPT_EVERY) {
        api_token_bytes(i, 3, 0, bytes, sizeof(bytes));
        api_corrupt(api, bytes, sizeof(bytes));
    }
    mostly_dead(api, sessions);
    compaction_wait(api);
    fault_os_clear(&api->fault);
    assert_int_equal(abode_flush(api->runtime, -1), 0);
    for (uint32_t i = 0; i < SESSIONS; i += KEPT_EVERY) {
        assert_int_equal(api_attach(api, sessions[i], 0), -ABODE_ECORRUPT);
    }
    api_reopen(api);
    for (uint32_t i = 0; i < SESSIONS; i += KEPT_EVERY) {
        assert_int_equal(api_attach(api, api_find(api, i + 1), 0), -ABODE_ECORRUPT);
    }
}

/* What could not be read is left where it is: the next try finds it. */
static void what_could_not_be_read_is_not_moved(void **state)
{
    struct api *api = *state;
    struct abode_session sessions[SESSIONS];
    all_stored(api, sessions);
    fault_os_plan(&api->fault,
                  (struct fault_plan){
                      .call = AB_OS_PREAD, .kind = FAULT_ERROR, .error = EIO, .sticky = true});
    mostly_dead(api, sessions);
    for (int i = 0; i < WAITS && stats_of(api).io_errors == 0; i++) {
        (void)usleep(1000);
    }
    assert_true(stats_of(api).io_errors > 0);
    assert_int_equal(abode_flush(api->runtime, -1), 0);
    fault_os_clear(&api->fault);
    all_kept_are_there(api);
    api_reopen(api);
    all_kept_are_there(api);
}

/* Sessions that were in memory when compaction looked at them, so that it had no need to read them,
 * leave memory while it reads the others. */
static void evicted_while_others_are_read(void **state)
{
    struct api *api = *state;
    struct abode_session sessions[SESSIONS];
    api->config.io = ABODE_IO_THREADS;
    api->config.store_bytes_max = 4u << 20;
    api->hybrid_bytes = 0;
    api->paged_bytes = 6u << 20;
    api_open(api);
    for (uint32_t i = 0; i < SESSIONS; i++) {
        bool stays = i % (2 * KEPT_EVERY) == 0;
        sessions[i] = api_create(api, api->paged, i + 1);
        assert_int_equal(api_append(api, sessions[i], i, TOKENS), 0);
        assert_int_equal(api_detach(api, sessions[i], stays ? 0 : ABODE_DETACH_SPILL_NOW), 0);
    }
    fault_os_plan(&api->fault, (struct fault_plan){.call = AB_OS_PREAD,
                                                   .kind = FAULT_DELAY,
                                                   .delay_ns = 200000000,
                                                   .sticky = true});
    uint64_t reads = fault_os_count(&api->fault, AB_OS_PREAD);
    for (uint32_t i = 0; i < SESSIONS; i++) {
        if (i % KEPT_EVERY != 0) {
            assert_int_equal(abode_session_delete(api->runtime, sessions[i]), 0);
        }
    }
    for (int i = 0; i < WAITS && fault_os_count(&api->fault, AB_OS_PREAD) == reads; i++) {
        (void)usleep(1000);
    }
    assert_true(fault_os_count(&api->fault, AB_OS_PREAD) > reads);
    for (uint32_t i = 0; i < SESSIONS; i += 2 * KEPT_EVERY) {
        assert_int_equal(api_attach(api, sessions[i], 0), 0);
        assert_int_equal(api_detach(api, sessions[i], ABODE_DETACH_SPILL_NOW), 0);
    }
    assert_int_equal(abode_flush(api->runtime, -1), 0); /* until it has written */
    fault_os_clear(&api->fault);
    all_kept_are_there(api);
    api_reopen(api);
    all_kept_are_there(api);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, api_up, api_down)
    const struct CMUnitTest tests[] = {
        TEST(bytes_stay_the_same),
        TEST(damage_is_not_moved),
        TEST(what_could_not_be_read_is_not_moved),
        TEST(deleted_while_it_is_moved),
        TEST(evicted_while_others_are_read),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
