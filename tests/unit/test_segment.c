/*
 * test_segment.c - goal: places never overlap while they are in use, come back when they are dead,
 * and never with a generation that was there before; a store takes what room there is. Method: a
 * bitmap model of all pages against random reserves, publishes and drops; boundaries from both sides;
 * file systems without fallocate, O_DIRECT or room.
 */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "abode/abode.h"
#include "fault_os.h"
#include "store/format.h"
#include "store_client.h"

#define SEGMENT_PAGES ((1u << 20) / AB_PAGE)

struct fixture {
    struct fault_os fault;
    struct store_client client;
    struct store_test_places places;
    struct ab_store_config config;
};

static int set_up(void **state)
{
    struct fixture *fixture = test_calloc(1, sizeof(*fixture));
    fault_os_init(&fixture->fault, NULL);
    store_client_init(&fixture->client, &fixture->fault.os);
    store_test_places(&fixture->places);
    fixture->config = store_client_config(&fixture->client, fixture->places.paths, 1);
    *state = fixture;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *fixture = *state;
    store_client_close(&fixture->client);
    assert_int_equal(fault_os_allocations(&fixture->fault), 0);
    store_test_remove(fixture->places.root);
    fault_os_free(&fixture->fault);
    test_free(fixture);
    return 0;
}

static struct ab_store *open_store(struct fixture *fixture)
{
    assert_int_equal(store_client_open(&fixture->client, &fixture->config), 0);
    return fixture->client.store;
}

/* Asks again while a segment is in the preparer's hands, or its drops become durable. */
static int reserve(struct ab_store *store, enum ab_stream stream, uint32_t pages,
                   struct ab_extent *ret)
{
    int result = -ENOSPC;
    for (uint32_t i = 0; i < 200 && result == -ENOSPC; i++) {
        result = ab_store_reserve(store, stream, -1, pages, ret);
        if (result == -ENOSPC) {
            usleep(1000);
        }
    }
    return result;
}

static void arguments_have_bounds(void **state)
{
    struct ab_store *store = open_store(*state);
    struct ab_extent extent;
    const uint32_t most = ab_store_extent_pages_max(store);
    assert_int_equal(most, SEGMENT_PAGES - 2);
    assert_int_equal(ab_store_reserve(store, AB_STREAM_COUNT, -1, 1, &extent), -EINVAL);
    assert_int_equal(ab_store_reserve(store, AB_STREAM_TAIL, -1, 0, &extent), -EINVAL);
    assert_int_equal(ab_store_reserve(store, AB_STREAM_TAIL, -1, most + 1, &extent), -EFBIG);
    assert_int_equal(ab_store_reserve(store, AB_STREAM_TAIL, -1, UINT32_MAX, &extent), -EFBIG);
    assert_int_equal(ab_store_reserve(store, AB_STREAM_TAIL, 7, most, &extent),
                     0); /* no such node */
    assert_int_equal(extent.header.page, 1);
    assert_int_equal(extent.page_count, most + 1);
    ab_store_abandon(store, extent.header, extent.page_count);
    assert_int_equal(ab_store_segment_fd(store, UINT32_MAX), -EINVAL);
    assert_int_equal(ab_store_segment_fd(store, 9), -ENOENT);
    assert_int_equal(ab_store_generation(store, UINT32_MAX), 0);
    assert_int_equal(ab_store_probe_fd(store, 1), -EINVAL);
    assert_true(ab_store_probe_fd(store, 0) >= 0);
}

static void places_of_replay_have_bounds(void **state)
{
    struct ab_store *store = open_store(*state);
    struct ab_extent extent;
    assert_int_equal(reserve(store, AB_STREAM_TAIL, 1, &extent), 0);
    const uint32_t segment = extent.header.segment, generation = extent.generation;
    const struct {
        struct ab_slot slot;
        uint32_t pages, generation;
        int expected;
    } cases[] = {
        {{segment, 1}, 1, generation, 0},
        {{segment, 0}, 1, generation, -ABODE_ECORRUPT}, /* the header page */
        {{segment, 1}, 0, generation, -ABODE_ECORRUPT},
        {{segment, SEGMENT_PAGES - 1}, 1, generation, 0},
        {{segment, SEGMENT_PAGES - 1}, 2, generation, -ABODE_ECORRUPT},
        {{segment, SEGMENT_PAGES}, 1, generation, -ABODE_ECORRUPT},
        {{segment, UINT32_MAX}, UINT32_MAX, generation, -ABODE_ECORRUPT},
        {{segment, 2}, UINT32_MAX, generation, -ABODE_ECORRUPT},
        {{segment, 2}, 1, generation + 1, -ABODE_ECORRUPT},
        {{segment, 2}, 1, 0, -ABODE_ECORRUPT},
        {{segment, 1}, SEGMENT_PAGES - 1, generation, -ABODE_ECORRUPT}, /* more than there are */
        {{segment + 50, 1}, 1, 0, -ENOENT},                             /* no such file */
        {{UINT32_MAX, 1}, 1, generation, -ABODE_ECORRUPT},
    };
    for (uint32_t i = 0; i < AB_COUNT(cases); i++) {
        assert_int_equal(
            ab_store_slot_restore(store, cases[i].slot, cases[i].pages, cases[i].generation),
            cases[i].expected);
    }
    ab_store_drop(store, cases[0].slot, 1);
    ab_store_drop(store, cases[3].slot, 1);
    ab_store_abandon(store, extent.header, extent.page_count);
}

static void a_full_store_says_so_and_takes_again_what_was_freed(void **state)
{
    struct fixture *fixture = *state;
    fixture->config.bytes_max = 4u << 20;
    struct ab_store *store = open_store(fixture);
    static struct ab_extent extents[4 * SEGMENT_PAGES];
    uint32_t count = 0;
    uint64_t pages = 0;
    /* one stream; the others' segments are never opened, so all are its own, but for the one that
     * is compaction's */
    while (reserve(store, AB_STREAM_CACHE, 9, &extents[count]) == 0) {
        pages += extents[count++].page_count;
    }
    assert_int_equal(count, 3 * ((SEGMENT_PAGES - 1) / 10));
    struct ab_extent small;
    assert_int_equal(ab_store_reserve(store, AB_STREAM_TAIL, -1, 1, &small), 0); /* borrowed */
    ab_store_abandon(store, small.header, small.page_count);
    struct ab_store_device device = ab_store_device(store, 0);
    assert_int_equal(device.bytes_total, 4u << 20);
    assert_int_equal(device.bytes_free, 0);
    assert_int_equal(device.bytes_live, 0);
    for (uint32_t i = 0; i < count; i++) {
        ab_store_publish(
            store, (struct ab_slot){extents[i].header.segment, extents[i].header.page + 1}, 9);
        ab_store_abandon(store, extents[i].header, 1);
    }
    assert_int_equal(ab_store_stats(store).pages_live, pages - count);
    for (uint32_t i = 0; i < count; i++) {
        ab_store_drop(store,
                      (struct ab_slot){extents[i].header.segment, extents[i].header.page + 1}, 9);
    }
    assert_int_equal(ab_store_stats(store).pages_live, 0);
    uint32_t again = 0;
    struct ab_extent next;
    while (again < count && reserve(store, AB_STREAM_CACHE, 9, &next) == 0) {
        for (uint32_t i = 0; i < count; i++) { /* a place never has the same generation twice */
            assert_true(next.header.segment != extents[i].header.segment ||
                        next.generation > extents[i].generation);
        }
        ab_store_abandon(store, next.header, next.page_count);
        again++;
    }
    assert_int_equal(again, count);
}

/* A bitmap of what is in use; nothing handed out may be in it. */
static void random_use_never_overlaps(void **state)
{
    struct fixture *fixture = *state;
    fixture->config.bytes_max = 12u << 20;
    fixture->config.path_count = 2;
    struct ab_store *store = open_store(fixture);
    static uint8_t used[16][SEGMENT_PAGES];
    static struct ab_extent live[2000];
    memset(used, 0, sizeof(used));
    const char *text = getenv("ABODE_TEST_SEED");
    uint64_t random = text != NULL ? strtoull(text, NULL, 0) : 11;
    print_message("ABODE_TEST_SEED=%lu\n", (unsigned long)random);
    uint32_t count = 0, refused = 0, pages_live = 0;
    for (uint32_t i = 0; i < 20000; i++) {
        random = random * UINT64_C(6364136223846793005) + 1442695040888963407u;
        const uint32_t dice = (uint32_t)(random >> 33);
        if (dice % 3 != 0 && count < AB_COUNT(live)) {
            const uint32_t pages = dice % 40 == 1 ? 1 + dice % 200 : 1 + dice % 12;
            struct ab_extent *extent = &live[count];
            const int result = ab_store_reserve(store, (enum ab_stream)(dice / 7 % AB_STREAM_COUNT),
                                                -1, pages, extent);
            if (result == -ENOSPC) {
                refused++;
                continue;
            }
            assert_int_equal(result, 0);
            assert_int_equal(extent->device, extent->header.segment % 2);
            assert_in_range(extent->header.page, 1, SEGMENT_PAGES - extent->page_count);
            for (uint32_t k = 0; k < extent->page_count; k++) {
                uint8_t *page = &used[extent->header.segment][extent->header.page + k];
                assert_int_equal(*page, 0);
                *page = 1;
            }
            ab_store_publish(store, extent->header, extent->page_count);
            pages_live += extent->page_count;
            count++;
        } else if (count > 0) {
            const uint32_t victim = dice / 3 % count;
            const struct ab_extent extent = live[victim];
            live[victim] = live[--count];
            memset(&used[extent.header.segment][extent.header.page], 0, extent.page_count);
            ab_store_drop(store, extent.header, extent.page_count);
            pages_live -= extent.page_count;
        }
        if (i % 1000 == 0) {
            assert_int_equal(ab_store_stats(store).pages_live, pages_live);
        }
    }
    assert_true(refused > 0);
    while (count > 0) {
        count--;
        ab_store_drop(store, live[count].header, live[count].page_count);
    }
    assert_int_equal(ab_store_stats(store).pages_live, 0);
}

static void little_is_wasted_at_the_end_of_segments(void **state)
{
    struct fixture *fixture = *state;
    struct ab_store *store = open_store(fixture);
    uint64_t pages = 0;
    for (uint32_t i = 0; i < 200; i++) { /* a large extent, then small ones, all of one stream */
        struct ab_extent extent;
        const uint32_t size = i % 8 == 0 ? 100 : 10;
        assert_int_equal(reserve(store, AB_STREAM_SEALED, size, &extent), 0);
        ab_store_publish(store, extent.header, extent.page_count);
        pages += extent.page_count;
    }
    const struct ab_store_stats stats = ab_store_stats(store);
    const uint64_t taken = (stats.segments_sealed + stats.segments_open) * SEGMENT_PAGES;
    /* what is lost in sealed ones, and not yet used in the two open ones */
    assert_true(taken - pages < stats.segments_sealed * 10 + 2 * SEGMENT_PAGES);
}

static void headers_say_what_an_extent_holds(void **state)
{
    struct fixture *fixture = *state;
    struct ab_store *store = open_store(fixture);
    struct ab_extent extent;
    assert_int_equal(reserve(store, AB_STREAM_TAIL, 5, &extent), 0);
    static struct ab_extent_item items[AB_EXTENT_ITEMS_MAX];
    for (uint32_t i = 0; i < AB_EXTENT_ITEMS_MAX; i++) {
        items[i].block = i;
        memset(items[i].key, (int)i, sizeof(items[i].key));
    }
    struct ab_disk_extent page;
    ab_store_header_fill(store, &extent, items, AB_EXTENT_ITEMS_MAX, &page);
    assert_int_equal(page.magic, AB_EXTENT_MAGIC);
    assert_int_equal(page.item_count, AB_EXTENT_ITEMS_MAX);
    assert_int_equal(page.page_count, 6);
    assert_memory_equal(page.items, items, sizeof(items));
    const uint64_t seed = ab_store_seed(store, extent.header, extent.generation);
    assert_true(page.hash == ab_hash64((uint8_t *)&page + 8, sizeof(page) - 8, seed));
    /* misplaced, stale and foreign bytes have other seeds */
    struct ab_slot other = extent.header;
    other.page++;
    assert_true(seed != ab_store_seed(store, other, extent.generation));
    other = extent.header;
    other.segment++;
    assert_true(seed != ab_store_seed(store, other, extent.generation));
    assert_true(seed != ab_store_seed(store, extent.header, extent.generation + 1));
    static struct store_client foreign;
    store_client_init(&foreign, ab_os_default());
    const struct ab_store_config config =
        store_client_config(&foreign, &fixture->places.paths[1], 1);
    assert_int_equal(store_client_open(&foreign, &config), 0);
    assert_true(seed != ab_store_seed(foreign.store, extent.header, extent.generation));
    store_client_close(&foreign);
    ab_store_abandon(store, extent.header, extent.page_count);
}

static void compaction_picks_the_emptiest_when_room_is_short(void **state)
{
    struct fixture *fixture = *state;
    fixture->config.bytes_max = 12u << 20;
    struct ab_store *store = open_store(fixture);
    static struct ab_extent extents[64];
    uint32_t count = 0;
    for (; count < 10; count++) {
        assert_int_equal(reserve(store, AB_STREAM_SEALED, 100, &extents[count]), 0);
        ab_store_publish(store, extents[count].header, extents[count].page_count);
    }
    assert_int_equal(ab_store_compaction_pick(store, 100, false),
                     AB_INDEX_NONE); /* there is room */
    while (reserve(store, AB_STREAM_SEALED, 100, &extents[count]) == 0) {
        ab_store_publish(store, extents[count].header, extents[count].page_count);
        count++;
    }
    assert_int_equal(ab_store_compaction_pick(store, 30, false),
                     AB_INDEX_NONE); /* nothing is empty */
    ab_store_drop(store, extents[0].header, 101);
    assert_int_equal(ab_store_compaction_pick(store, 30, false), AB_INDEX_NONE); /* 39 % live */
    assert_int_equal(ab_store_compaction_pick(store, 50, false), extents[0].header.segment);
    for (uint32_t i = 1; i < count; i++) {
        if (extents[i].header.segment != extents[0].header.segment && i % 2 == 0) {
            ab_store_drop(store, extents[i].header, 100); /* one page less of each is live */
            assert_int_equal(ab_store_compaction_pick(store, 50, false), extents[0].header.segment);
            break;
        }
    }
}

static void live_pages_move(struct ab_store *store, struct ab_extent *extents, uint32_t count,
                            uint32_t segment)
{
    for (uint32_t i = 0; i < count; i++) {
        struct ab_extent next;
        if (extents[i].page_count == 0 || extents[i].header.segment != segment) {
            continue;
        }
        assert_int_equal(
            ab_store_reserve(store, AB_STREAM_COMPACT, -1, extents[i].page_count - 1, &next), 0);
        ab_store_publish(store, next.header, next.page_count);
        ab_store_drop(store, extents[i].header, extents[i].page_count);
        extents[i] = next;
    }
}

/* No segment is free and each is half dead: moving what is live must give room. */
static void the_last_free_segment_is_compactions(void **state)
{
    struct fixture *fixture = *state;
    fixture->config.bytes_max = 4u << 20;
    struct ab_store *store = open_store(fixture);
    static struct ab_extent extents[64];
    uint32_t count = 0;
    while (reserve(store, AB_STREAM_SEALED, 24, &extents[count]) == 0) {
        ab_store_publish(store, extents[count].header, extents[count].page_count);
        count++;
    }
    assert_int_equal(count, 3 * 10);
    for (uint32_t i = 0; i < count; i += 2) {
        ab_store_drop(store, extents[i].header, extents[i].page_count);
        extents[i].page_count = 0;
    }
    assert_int_equal(store_client_barrier(&fixture->client, AB_PROMISE_DURABLE), 0);
    struct ab_extent extent;
    assert_int_equal(reserve(store, AB_STREAM_SEALED, 24, &extent), -ENOSPC);
    for (uint32_t i = 0; i < 2; i++) { /* the two open ones count as well: somebody waits */
        const uint32_t victim = ab_store_compaction_pick(store, 75, true);
        assert_int_not_equal(victim, AB_INDEX_NONE);
        live_pages_move(store, extents, count, victim);
        ab_store_compaction_end(store, victim);
        assert_int_equal(store_client_barrier(&fixture->client, AB_PROMISE_DURABLE), 0);
    }
    for (uint32_t i = 0; i < 10; i++) { /* a segment's worth has come free */
        assert_int_equal(reserve(store, AB_STREAM_SEALED, 24, &extent), 0);
        ab_store_abandon(store, extent.header, extent.page_count);
    }
}

/* As after crashes in the middle of compactions: not even its own segment is left. */
static void compaction_may_exceed_the_limit_by_one_segment(void **state)
{
    struct fixture *fixture = *state;
    fixture->config.bytes_max = 4u << 20;
    struct ab_store *store = open_store(fixture);
    static struct ab_extent extents[64];
    uint32_t count = 0, more = 0;
    while (reserve(store, AB_STREAM_SEALED, 24, &extents[count]) == 0) {
        ab_store_publish(store, extents[count].header, extents[count].page_count);
        count++;
    }
    assert_int_equal(count, 3 * 10);
    while (ab_store_reserve(store, AB_STREAM_COMPACT, -1, 24, &extents[count + more]) == 0) {
        ab_store_publish(store, extents[count + more].header, extents[count + more].page_count);
        more++;
    }
    assert_int_equal(more, 2 * 10);
    assert_int_equal(ab_store_device(store, 0).bytes_total, 5u << 20);
    for (uint32_t i = 0; i < count + more; i++) {
        ab_store_drop(store, extents[i].header, extents[i].page_count);
    }
    assert_int_equal(store_client_barrier(&fixture->client, AB_PROMISE_DURABLE), 0);
    uint32_t again = 0;
    while (reserve(store, AB_STREAM_SEALED, 24, &extents[again]) == 0) {
        again++;
    }
    assert_int_equal(again, 3 * 10); /* the one that was lent is owed */
    while (again-- > 0) {
        ab_store_abandon(store, extents[again].header, extents[again].page_count);
    }
}

static void small_stores_have_small_segments(void **state)
{
    struct fixture *fixture = *state;
    fixture->config.segment_bytes = 0;
    fixture->config.bytes_max = 400u << 20;
    fixture->config.path_count = 2;
    assert_int_equal(ab_store_segment_bytes(open_store(fixture)), 8u << 20);
    store_client_close(&fixture->client);
    fixture->config.paths = &fixture->places.paths[0];
    store_test_remove(fixture->places.root);
    store_test_places(&fixture->places);
    fixture->config.bytes_max = 2ull << 30;
    assert_int_equal(ab_store_segment_bytes(open_store(fixture)), 64u << 20);
}

static void segments_are_prepared_ahead(void **state)
{
    struct fixture *fixture = *state;
    struct ab_store *store = open_store(fixture);
    assert_int_equal(ab_store_stats(store).prepared_bytes, 0); /* nobody has reserved yet */
    struct ab_extent extent;
    assert_int_equal(reserve(store, AB_STREAM_TAIL, 1, &extent), 0);
    uint64_t prepared = 0;
    for (uint32_t i = 0; i < 2000 && prepared < 2 * ((1u << 20) - AB_PAGE); i++) {
        usleep(1000);
        prepared = ab_store_stats(store).prepared_bytes;
    }
    assert_int_equal(prepared, 2 * ((1u << 20) - AB_PAGE));
    ab_store_abandon(store, extent.header, extent.page_count);
}

static void file_systems_without_luxuries(void **state)
{
    struct fixture *fixture = *state;
    fixture->config.bytes_max = 4u << 20;
    struct fault_os *fault = &fixture->fault;
    (void)open_store(fixture);
    store_client_close(&fixture->client);
    /* no O_DIRECT: one of the opens is the probe */
    bool fell_back = false;
    for (uint64_t nth = 1; nth < 40 && !fell_back; nth++) {
        fault_os_clear(fault);
        fault_os_plan(fault,
                      (struct fault_plan){
                          .call = AB_OS_OPENAT, .kind = FAULT_ERROR, .error = EINVAL, .nth = nth});
        if (store_client_open(&fixture->client, &fixture->config) == 0) {
            const struct ab_store_device device = ab_store_device(fixture->client.store, 0);
            fell_back = !device.direct_io && device.direct_io_reason == -EINVAL;
            if (fell_back) {
                assert_int_equal(device.io_align, 1);
                assert_non_null(strstr(fixture->client.log, "no O_DIRECT"));
                fault_os_clear(fault);
                assert_int_equal(store_client_put(&fixture->client, 1, 1, 1, AB_PROMISE_DURABLE),
                                 0);
                assert_int_equal(store_client_verify(&fixture->client), 0);
            }
            store_client_close(&fixture->client);
        }
    }
    assert_true(fell_back);
    /* no fallocate: zeroes are written instead */
    fault_os_clear(fault);
    fault_os_plan(fault, (struct fault_plan){.call = AB_OS_FALLOCATE,
                                             .kind = FAULT_ERROR,
                                             .error = EOPNOTSUPP,
                                             .sticky = true});
    struct ab_store *store = open_store(fixture);
    for (uint32_t i = 0; i < 40; i++) {
        assert_int_equal(store_client_put(&fixture->client, i, i, 15, AB_PROMISE_DURABLE), 0);
    }
    assert_int_equal(store_client_verify(&fixture->client), 0);
    struct stat status;
    assert_int_equal(fstat(ab_store_segment_fd(store, 0), &status), 0);
    assert_int_equal(status.st_size, 1u << 20);
    fault_os_clear(fault);
}

static void a_full_file_system_makes_a_smaller_store(void **state)
{
    struct fixture *fixture = *state;
    struct ab_store *store = open_store(fixture);
    struct ab_extent extents[10];
    uint32_t count = 0;
    assert_int_equal(reserve(store, AB_STREAM_TAIL, 200, &extents[count++]), 0);
    fault_os_plan(&fixture->fault, (struct fault_plan){.call = AB_OS_FALLOCATE,
                                                       .kind = FAULT_ERROR,
                                                       .error = ENOSPC,
                                                       .sticky = true});
    /* what was made ahead is used up; all are kept, since a dropped one may be given again */
    int result = 0;
    while (result == 0 && count < AB_COUNT(extents)) {
        result = ab_store_reserve(store, AB_STREAM_TAIL, -1, 200, &extents[count]);
        count += result == 0;
    }
    assert_int_equal(result, -ENOSPC);
    fault_os_clear(&fixture->fault);
    for (uint32_t i = 0; i < count; i++) {
        ab_store_abandon(store, extents[i].header, extents[i].page_count);
    }
    store_client_close(&fixture->client); /* the preparer tells, at the latest when it ends */
    assert_non_null(strstr(fixture->client.log, "the store stays smaller"));
}

/* A disk that fails is not a full one, and is asked again at once. */
static void a_segment_that_cannot_be_made_is_told_with_its_reason(void **state)
{
    struct fixture *fixture = *state;
    struct ab_store *store = open_store(fixture);
    struct ab_extent extent;
    fault_os_plan(&fixture->fault,
                  (struct fault_plan){
                      .call = AB_OS_PWRITE, .kind = FAULT_ERROR, .error = EIO, .sticky = true});
    assert_int_equal(ab_store_reserve(store, AB_STREAM_TAIL, -1, 8, &extent), -EIO);
    fault_os_clear(&fixture->fault);
    assert_int_equal(ab_store_reserve(store, AB_STREAM_TAIL, -1, 8, &extent), 0);
    ab_store_abandon(store, extent.header, extent.page_count);
}

/* Extents were handed out and perhaps written; no commit has named them when the process ends. */
static void a_generation_that_a_crash_has_eaten_does_not_come_again(void **state)
{
    struct fixture *fixture = *state;
    struct ab_extent *eaten =
        mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_ptr_not_equal(eaten, MAP_FAILED);
    const pid_t child = fork();
    if (child == 0) {
        struct ab_store *store = open_store(fixture);
        _exit(reserve(store, AB_STREAM_SEALED, 100, eaten) == 0 ? 0 : 1);
    }
    int status = 0;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
    struct ab_store *store = open_store(fixture);
    bool met = false;
    for (uint32_t i = 0; i < 6 && !met; i++) {
        struct ab_extent extent;
        assert_int_equal(reserve(store, AB_STREAM_SEALED, 200, &extent), 0);
        met = extent.header.segment == eaten->header.segment;
        assert_true(!met || extent.generation > eaten->generation);
    }
    assert_true(met);
    (void)munmap(eaten, 4096);
}

static void compaction_leaves_alone_what_is_being_written(void **state)
{
    struct fixture *fixture = *state;
    struct ab_store *store = open_store(fixture);
    struct ab_extent live, written;
    assert_int_equal(reserve(store, AB_STREAM_SEALED, 20, &live), 0);
    ab_store_publish(store, live.header, live.page_count);
    assert_int_equal(reserve(store, AB_STREAM_SEALED, 100, &written), 0);
    assert_int_equal(written.header.segment, live.header.segment);
    assert_int_equal(ab_store_compaction_pick(store, 95, true), AB_INDEX_NONE);
    assert_false(ab_store_compaction_take(store, live.header.segment));
    ab_store_abandon(store, written.header, written.page_count);
    assert_int_equal(ab_store_compaction_pick(store, 95, true), live.header.segment);
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(arguments_have_bounds),
        CASE(places_of_replay_have_bounds),
        CASE(a_full_store_says_so_and_takes_again_what_was_freed),
        CASE(random_use_never_overlaps),
        CASE(little_is_wasted_at_the_end_of_segments),
        CASE(headers_say_what_an_extent_holds),
        CASE(compaction_picks_the_emptiest_when_room_is_short),
        CASE(the_last_free_segment_is_compactions),
        CASE(a_generation_that_a_crash_has_eaten_does_not_come_again),
        CASE(compaction_leaves_alone_what_is_being_written),
        CASE(compaction_may_exceed_the_limit_by_one_segment),
        CASE(small_stores_have_small_segments),
        CASE(segments_are_prepared_ahead),
        CASE(file_systems_without_luxuries),
        CASE(a_full_file_system_makes_a_smaller_store),
        CASE(a_segment_that_cannot_be_made_is_told_with_its_reason),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
