/*
 * test_moving.c - blocks that lose their last name while a move has them.
 *
 * Goal: the frame stays until the move has ended, then frame and slot come back, and no other
 * block's frame is touched. Method: reads are delayed, so that moves of abode's own (a prefetch,
 * compaction) are surely in flight when the session is deleted.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <unistd.h>
// clang-format off
#include <cmocka.h>
// clang-format on

#include "api_fixture.h"
#include "front/front.h"
#include "kv/valid.h"

#define FLUSH_NS (60ll * 1000000000)

static void slow_reads_open(struct api *api)
{
    api->config.io = ABODE_IO_SYNC; /* its reads are preads of the table */
    api_open(api);
}

static void reads_delay(struct api *api, uint64_t delay_ns)
{
    fault_os_plan(&api->fault, (struct fault_plan){.call = AB_OS_PREAD,
                                                   .kind = FAULT_DELAY,
                                                   .sticky = true,
                                                   .delay_ns = delay_ns});
}

static void wait_for_a_read(struct api *api)
{
    for (int i = 0; i < 20000 && fault_os_strikes(&api->fault) == 0; i++) {
        (void)usleep(500);
    }
    assert_true(fault_os_strikes(&api->fault) > 0);
}

static void all_came_back(struct api *api)
{
    struct abode_stats stats;
    uint32_t index = 0;
    assert_int_equal(abode_flush(api->runtime, FLUSH_NS), 0);
    struct ab_kv *kv = api->runtime->kv;
    ab_lock_take(&kv->lock);
    const char *wrong = ab_kv_invalid(kv, &index);
    ab_lock_drop(&kv->lock);
    assert_null(wrong);
    assert_int_equal(abode_stats_get(api->runtime, &stats), 0);
    assert_int_equal(stats.frames_free, stats.frames_total);
    assert_int_equal(stats.blocks_stored, 0);
    assert_int_equal(stats.checksum_failures, 0);
}

static void delete_while_a_prefetch_reads(void **state)
{
    struct api *api = *state;
    slow_reads_open(api);
    struct abode_session session = api_create(api, api->paged, 1);
    assert_int_equal(api_append(api, session, 1, 64), 0);
    assert_int_equal(api_detach(api, session, ABODE_DETACH_SPILL_NOW), 0);
    reads_delay(api, 50ull * 1000 * 1000);
    abode_advise(api->runtime, session, ABODE_WILL_NEED, 1);
    wait_for_a_read(api);
    assert_int_equal(abode_session_delete(api->runtime, session), 0);
    struct abode_session other =
        api_create(api, api->paged, 2); /* blocks' numbers are used again */
    assert_int_equal(api_append(api, other, 2, 64), 0);
    fault_os_clear(&api->fault);
    assert_int_equal(abode_flush(api->runtime, FLUSH_NS), 0);
    api_check(api, other, 2, 64);
    assert_int_equal(abode_session_delete(api->runtime, other), 0);
    all_came_back(api);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(delete_while_a_prefetch_reads, api_up, api_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
