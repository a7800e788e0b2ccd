/*
 * test_config.c - what abode_open takes: every bound from both sides, older and newer callers.
 *
 * Goal: a config that this library cannot honour is refused, with a line that says what to change,
 * and nothing of a newer caller's is silently ignored. Method: one good config, one field changed
 * at a time.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
// clang-format off
#include <cmocka.h>
// clang-format on

#include "base/num.h"
#include "front/front.h"

static char last_line[1024];
static uint32_t line_count;

static void line_take(void *context, int level, const char *line)
{
    (void)context;
    assert_int_equal(level, ABODE_LOG_ERROR);
    (void)snprintf(last_line, sizeof(last_line), "%s", line);
    line_count++;
}

static struct abode_config good(void)
{
    static const char *const paths[] = {"/a"};
    struct abode_config config;
    abode_config_init(&config);
    config.log = line_take;
    config.store_paths = paths;
    config.store_path_count = 1;
    line_count = 0;
    last_line[0] = '\0';
    return config;
}

static void defaults(void **state)
{
    (void)state;
    struct abode_config config = good(), taken;
    assert_int_equal(config.struct_size, sizeof(config));
    assert_int_equal(ab_config_take(&config, &taken), 0);
    assert_int_equal(taken.memory_bytes_max, 1ull << 30);
    assert_int_equal(taken.durability, ABODE_DURABLE);
    assert_int_equal(taken.io_depth, 8);
    assert_int_equal(taken.reclaim_low_percent, 2);
    assert_int_equal(taken.reclaim_high_percent, 5);
    assert_int_equal(line_count, 0);
    config.store_path_count = 0;
    assert_int_equal(ab_config_take(&config, &taken), 0);
    assert_int_equal(taken.durability, ABODE_MEM); /* no store to promise more */
    config.reclaim_low_percent = 9;                /* above the default of the other */
    assert_int_equal(ab_config_take(&config, &taken), 0);
    assert_int_equal(taken.reclaim_high_percent, 9);
}

#define FIELD(name) offsetof(struct abode_config, name), sizeof(((struct abode_config *)0)->name)
struct bound {
    size_t offset, size;
    uint64_t value;
    int status;
    const char *says; /* in the log line; NULL: no line */
};

static const struct bound bounds[] = {
    {FIELD(memory_bytes_max), (2ull << 20) - 1, -EINVAL, "memory_bytes_max"},
    {FIELD(memory_bytes_max), 2ull << 20, 0, NULL},
    {FIELD(memory_bytes_max), 1ull << 46, 0, NULL},
    {FIELD(memory_bytes_max), (1ull << 46) + 1, -EINVAL, "memory_bytes_max"},
    {FIELD(memory_bytes_max), UINT64_MAX, -EINVAL, "memory_bytes_max"},
    {FIELD(segment_bytes), 1, -EINVAL, "segment_bytes"},
    {FIELD(segment_bytes), (1u << 20) - 1, -EINVAL, "segment_bytes"},
    {FIELD(segment_bytes), 1u << 20, 0, NULL},
    {FIELD(segment_bytes), 256u << 20, 0, NULL},
    {FIELD(segment_bytes), 257u << 20, -EINVAL, "segment_bytes"},
    {FIELD(segment_bytes), UINT32_MAX, -EINVAL, "segment_bytes"},
    {FIELD(session_count_max), 1, 0, NULL},
    {FIELD(session_count_max), 1u << 20, 0, NULL},
    {FIELD(session_count_max), (1u << 20) + 1, -EINVAL, "session_count_max"},
    {FIELD(session_count_max), UINT32_MAX, -EINVAL, "session_count_max"},
    {FIELD(block_count_max), 1u << 28, 0, NULL},
    {FIELD(block_count_max), (1u << 28) + 1, -EINVAL, "block_count_max"},
    {FIELD(io_depth), AB_IO_DEPTH_MAX, 0, NULL},
    {FIELD(io_depth), AB_IO_DEPTH_MAX + 1, -EINVAL, "io_depth"},
    {FIELD(io_depth), UINT32_MAX, -EINVAL, "io_depth"},
    {FIELD(reclaim_high_percent), 50, 0, NULL},
    {FIELD(reclaim_high_percent), 51, -EINVAL, "reclaim"},
    {FIELD(reclaim_high_percent), 1, -EINVAL, "reclaim"}, /* under the default of low */
    {FIELD(reclaim_low_percent), 50, 0, NULL},
    {FIELD(reclaim_low_percent), 51, -EINVAL, "reclaim"},
    {FIELD(io), ABODE_IO_SYNC, 0, NULL},
    {FIELD(io), ABODE_IO_SYNC + 1, -EINVAL, "io "},
    {FIELD(durability), ABODE_DURABLE, 0, NULL},
    {FIELD(durability), ABODE_DURABLE + 1, -EINVAL, "durability"},
    {FIELD(huge), ABODE_HUGE_NONE, 0, NULL},
    {FIELD(huge), ABODE_HUGE_NONE + 1, -EINVAL, "huge"},
    {FIELD(flags), ABODE_CREATE | ABODE_KEEP_KEYS, 0, NULL},
    {FIELD(flags), ABODE_READ_ONLY, 0, NULL},
    {FIELD(flags), ABODE_READ_ONLY | ABODE_CREATE, -EINVAL, "ABODE_READ_ONLY"},
    {FIELD(flags), 1u << 3, -EINVAL, "flags"},
    {FIELD(flags), 1u << 31, -EINVAL, "flags"},
    {FIELD(store_path_count), 0, 0, NULL},
    {FIELD(store_path_count), AB_STORE_DEVICES_MAX + 1, -EINVAL, "directories"},
    {FIELD(store_path_count), UINT32_MAX, -EINVAL, "directories"},
    {FIELD(store_paths), 0, -EINVAL, "store_paths is NULL"},
};

static void each_bound_from_both_sides(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(bounds) / sizeof(*bounds); i++) {
        const struct bound *bound = &bounds[i];
        struct abode_config config = good(), taken;
        memcpy((uint8_t *)&config + bound->offset, &bound->value, bound->size);
        int status = ab_config_take(&config, &taken);
        if (status != bound->status) {
            print_error("row %zu: %d instead of %d\n", i, status, bound->status);
        }
        assert_int_equal(status, bound->status);
        assert_int_equal(line_count, bound->says == NULL ? 0 : 1);
        assert_true(bound->says == NULL || strstr(last_line, bound->says) != NULL);
    }
}

static void combinations_that_cannot_be(void **state)
{
    (void)state;
    struct abode_config config = good(), taken;
    config.store_path_count = 0;
    config.durability = ABODE_MEM;
    assert_int_equal(ab_config_take(&config, &taken), 0);
    config.durability = ABODE_WRITTEN;
    assert_int_equal(ab_config_take(&config, &taken), -EINVAL);
    assert_non_null(strstr(last_line, "store_paths"));
    config = good();
    config.store_path_count = 0;
    config.flags = ABODE_READ_ONLY;
    assert_int_equal(ab_config_take(&config, &taken), -EINVAL);
    static const char *const empty[] = {""};
    static const char *const missing[] = {NULL};
    config = good();
    config.store_paths = empty;
    assert_int_equal(ab_config_take(&config, &taken), -EINVAL);
    config.store_paths = missing;
    assert_int_equal(ab_config_take(&config, &taken), -EINVAL);
    assert_int_equal(ab_config_take(NULL, &taken), -EINVAL);
}

struct newer {
    struct abode_config config;
    uint64_t field; /* of a later version */
};

static void newer_caller(void **state)
{
    (void)state;
    struct abode_config taken;
    struct newer newer = {.config = good()};
    newer.config.struct_size = sizeof(newer);
    assert_int_equal(ab_config_take(&newer.config, &taken), 0); /* it wants nothing new */
    assert_int_equal(taken.struct_size, sizeof(taken));
    newer.field = 1ull << 56; /* the last byte */
    assert_int_equal(ab_config_take(&newer.config, &taken), -E2BIG);
    assert_int_equal(line_count, 1);
    assert_non_null(strstr(last_line, "update"));
    newer.config.struct_size = UINT32_MAX; /* not read: nobody's struct is that long */
    assert_int_equal(ab_config_take(&newer.config, &taken), -EINVAL);
}

static void older_caller(void **state)
{
    (void)state;
    struct abode_config config = good(), taken;
    config.io_depth = 77;         /* beyond what an older caller has: garbage of his stack */
    config.segment_bytes = 12345; /* the first field that the oldest caller does not have */
    config.log = NULL;
    config.struct_size = offsetof(struct abode_config, segment_bytes);
    assert_int_equal(ab_config_take(&config, &taken), 0);
    assert_int_equal(taken.segment_bytes, 0);
    assert_int_equal(taken.io_depth, 8);
    assert_null(taken.log);
    assert_int_equal(taken.store_path_count, 1);
    config.struct_size--;
    assert_int_equal(ab_config_take(&config, &taken), -EINVAL);
    config.struct_size = 0;
    assert_int_equal(ab_config_take(&config, &taken), -EINVAL);
}

/* Bug: a size that ended inside a pointer left half of it, and the library followed that. */
static void size_that_cuts_a_pointer(void **state)
{
    (void)state;
    static const size_t pointers[] = {offsetof(struct abode_config, topology),
                                      offsetof(struct abode_config, log),
                                      offsetof(struct abode_config, log_context)};
    for (size_t i = 0; i < sizeof(pointers) / sizeof(pointers[0]); i++) {
        for (uint32_t bytes = 1; bytes <= sizeof(void *); bytes++) {
            struct abode_config config = good(), taken;
            void *wanted = bytes == sizeof(void *) ? (void *)-1 : NULL, *found;
            memset((char *)&config + pointers[i], 0xff, sizeof(void *));
            config.struct_size = (uint32_t)pointers[i] + bytes;
            assert_int_equal(ab_config_take(&config, &taken), 0);
            memcpy(&found, (const char *)&taken + pointers[i], sizeof(found));
            assert_ptr_equal(found, wanted);
        }
    }
}

static void init_writes_what_the_caller_has(void **state)
{
    (void)state;
    struct {
        struct abode_config config;
        uint8_t guard[8];
    } small;
    memset(&small, 0x5a, sizeof(small));
    abode_config_init_sized(&small.config, 64);
    assert_int_equal(small.config.struct_size, 64);
    const uint8_t *bytes = (const uint8_t *)&small;
    assert_int_equal(bytes[63], 0);
    assert_int_equal(bytes[64], 0x5a);
    abode_config_init(&small.config);
    assert_int_equal(small.guard[0], 0x5a);
    abode_config_init_sized(&small.config, 3); /* not even a size: nothing is written */
    assert_int_equal(small.config.struct_size, sizeof(small.config));
    abode_config_init_sized(NULL, 64);
}

static void nodes_must_be_there(void **state)
{
    (void)state;
    struct ab_topology *topology;
    struct abode_config config = good(), taken;
    const struct ab_log log = {line_take, NULL};
    assert_int_equal(
        ab_topology_open(ab_os_default(), &log, "synthetic:pack:2 [numa] pu:1", &topology), 0);
    static const struct {
        uint64_t mask, taken;
        int status;
    } rows[] = {{0, 3, 0},       {1, 1, 0},       {3, 3, 0},
                {4, 0, -EINVAL}, {7, 0, -EINVAL}, {UINT64_MAX, 0, -EINVAL}};
    for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
        assert_int_equal(ab_config_take(&config, &taken), 0);
        taken.node_mask = rows[i].mask;
        line_count = 0;
        assert_int_equal(ab_config_fit(topology, &log, &taken), rows[i].status);
        assert_int_equal(line_count, rows[i].status == 0 ? 0 : 1);
        if (rows[i].status == 0) {
            assert_int_equal(taken.node_mask, rows[i].taken);
        } else {
            assert_non_null(strstr(last_line, "allowed are 0x3"));
        }
    }
    ab_topology_close(topology);
}

static void block_count_follows_sizes(void **state)
{
    (void)state;
    struct ab_topology *topology;
    const struct ab_log log = {line_take, NULL};
    struct abode_config config = good();
    assert_int_equal(
        ab_topology_open(ab_os_default(), &log, "synthetic:pack:1 [numa] pu:1", &topology), 0);
    static const struct {
        uint64_t memory, store;
        uint32_t blocks, expected;
    } rows[] = {
        {2ull << 20, 1ull << 20, 0, 65536},            /* never fewer */
        {1ull << 40, 1ull << 45, 0, 1u << 24},         /* nor more by itself */
        {1ull << 30, 15ull << 30, 0, 4194304},         /* a page a block */
        {1ull << 30, 15ull << 30, 1u << 26, 1u << 26}, /* the host knows better */
        {1ull << 30, 0, 0, 1u << 20},                  /* store size unknown yet */
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
        config.memory_bytes_max = rows[i].memory;
        config.store_bytes_max = rows[i].store;
        config.block_count_max = rows[i].blocks;
        config.node_mask = 0;
        assert_int_equal(ab_config_fit(topology, &log, &config), 0);
        assert_int_equal(config.block_count_max, rows[i].expected);
    }
    config.block_count_max = 0;
    config.store_bytes_max = UINT64_MAX;
    assert_int_equal(ab_config_fit(topology, &log, &config), -EINVAL);
    ab_topology_close(topology);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(defaults),
        cmocka_unit_test(each_bound_from_both_sides),
        cmocka_unit_test(combinations_that_cannot_be),
        cmocka_unit_test(newer_caller),
        cmocka_unit_test(older_caller),
        cmocka_unit_test(size_that_cuts_a_pointer),
        cmocka_unit_test(init_writes_what_the_caller_has),
        cmocka_unit_test(nodes_must_be_there),
        cmocka_unit_test(block_count_follows_sizes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
