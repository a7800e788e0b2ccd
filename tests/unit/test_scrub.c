/*
 * test_scrub.c - goal: damage in the store is found while nobody asks for the state, is quarantined,
 * counted and told, and everything else is left as it was. Method: sessions in the store only, a byte
 * of one flipped on the disk, a runtime that scrubs; figures from abode_stats_get.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <unistd.h>

#include <cmocka.h>

#include "unit/api_fixture.h"

enum { SESSIONS = 6, TOKENS = 10 * API_BLOCK_TOKENS, DAMAGED = 3, WAIT_MS = 20000 };

static struct abode_stats stats_of(struct api *api)
{
    struct abode_stats stats;
    assert_int_equal(abode_stats_get(api->runtime, &stats), 0);
    return stats;
}

static void store_fill(struct api *api)
{
    api_open(api);
    for (uint32_t i = 0; i < SESSIONS; i++) {
        struct abode_session session = api_create(api, api->paged, i + 1);
        assert_int_equal(api_append(api, session, i, TOKENS), 0);
        assert_int_equal(api_detach(api, session, ABODE_DETACH_SPILL_NOW), 0);
    }
}

static void rounds_wait(struct api *api, uint64_t rounds)
{
    const uint64_t end = stats_of(api).scrub_rounds + rounds;
    for (uint32_t i = 0; i < WAIT_MS && stats_of(api).scrub_rounds < end; i++) {
        (void)usleep(1000);
    }
    assert_true(stats_of(api).scrub_rounds >= end);
}

static void damage_is_found_before_anybody_asks(void **state)
{
    struct api *api = *state;
    unsigned char bytes[API_TOKEN_BYTES];
    api->config.scrub_bytes_per_second = 256u << 20;
    store_fill(api);
    rounds_wait(api, 2);
    assert_true(stats_of(api).bytes_scrubbed >=
                (uint64_t)SESSIONS * TOKENS / API_BLOCK_TOKENS * API_ROW_BYTES);
    assert_int_equal(stats_of(api).checksum_failures, 0);
    assert_int_equal(abode_flush(api->runtime, -1), 0); /* is not kept waiting by it */
    api_close(api);
    api_token_bytes(DAMAGED, TOKENS / 2, 0, bytes, sizeof(bytes));
    api_corrupt(api, bytes, sizeof(bytes));
    api_open(api);
    rounds_wait(api, 2);                                  /* one that began before, one whole */
    assert_int_equal(stats_of(api).checksum_failures, 1); /* found once, and left alone then */
    for (uint32_t i = 0; i < WAIT_MS && !api_logged(api, "scrubbing found 1 damaged"); i++) {
        (void)usleep(1000);
    }
    assert_true(api_logged(api, "scrubbing found 1 damaged"));
    for (uint32_t i = 0; i < SESSIONS; i++) {
        struct abode_session session = api_find(api, i + 1);
        assert_int_equal(api_attach(api, session, 0), i == DAMAGED ? -ABODE_ECORRUPT : 0);
        if (i != DAMAGED) {
            api_check(api, session, i, TOKENS);
        }
    }
}

static void nothing_is_read_unless_asked_for(void **state)
{
    struct api *api = *state;
    store_fill(api);
    uint64_t reads = fault_os_count(&api->fault, AB_OS_PREAD);
    (void)usleep(300000); /* three slices */
    assert_int_equal(stats_of(api).bytes_scrubbed, 0);
    assert_int_equal(stats_of(api).scrub_rounds, 0);
    assert_int_equal(fault_os_count(&api->fault, AB_OS_PREAD), reads);
}

/* Reads that fail are no damage: they are counted as what they are, and tried again next time. */
static void a_disk_that_fails_is_not_damage(void **state)
{
    struct api *api = *state;
    api->config.io = ABODE_IO_SYNC;
    api->config.scrub_bytes_per_second = 256u << 20;
    store_fill(api);
    fault_os_plan(&api->fault,
                  (struct fault_plan){
                      .call = AB_OS_PREAD, .kind = FAULT_ERROR, .error = EIO, .sticky = true});
    rounds_wait(api, 2);
    fault_os_clear(&api->fault);
    assert_true(stats_of(api).io_errors > 0);
    assert_int_equal(stats_of(api).checksum_failures, 0);
    for (uint32_t i = 0; i < SESSIONS; i++) {
        struct abode_session session = api_find(api, i + 1);
        assert_int_equal(api_attach(api, session, 0), 0);
        api_check(api, session, i, TOKENS);
    }
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, api_up, api_down)
    const struct CMUnitTest tests[] = {
        TEST(damage_is_found_before_anybody_asks),
        TEST(nothing_is_read_unless_asked_for),
        TEST(a_disk_that_fails_is_not_damage),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
