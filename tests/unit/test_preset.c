/*
 * test_preset.c - goal: presets have the bytes a token that their models are known for, scaling
 * keeps shapes, and no words make a geometry that abode would refuse. Method: published figures as
 * a table; scales from both ends; good, wrong and hostile words.
 */
#include "cli/preset.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static void test_bytes_a_token(void **state)
{
    static const struct {
        const char *name;
        uint64_t bytes;
    } known[] = {
        {"llama-3.1-8b", 131072}, {"llama-3.1-70b", 327680}, {"qwen3-8b", 147456},
        {"qwen3-32b", 262144},    {"deepseek-v3", 70272},    {"gpt-oss-20b", 49152},
        {"gpt-oss-120b", 73728},  {"gemma-3-4b", 139264},    {"gemma-3-27b", 507904},
        {"qwen3-next", 24576},
    };
    uint32_t count = 0;
    char why[128];

    (void)state;
    (void)preset_list(&count);
    assert_int_equal(count, sizeof(known) / sizeof(known[0]));
    for (uint32_t i = 0; i < count; i++) {
        struct preset preset;
        assert_int_equal(preset_find(known[i].name, &preset, why, sizeof(why)), 0);
        assert_int_equal(preset_token_bytes(&preset, 1), known[i].bytes);
        assert_non_null(strstr(preset_names(), known[i].name));
    }
}

static void test_recurrent_state(void **state)
{
    struct preset preset;
    struct geometry geometry;
    char why[128];

    (void)state;
    assert_int_equal(preset_find("Qwen3-Next", &preset, why, sizeof(why)), 0);
    assert_int_equal(geometry_make(&preset, 1, 64, &geometry), 0);
    assert_false(geometry.shares_prefixes);
    assert_int_equal(geometry.fixed_bytes, 36 * (2097152 + 49152));
    assert_int_equal(geometry.components[1].kind, ABODE_SNAPSHOT);
    assert_int_equal(geometry.components[1].planes[0].bytes_per_block, 2097152);
    assert_int_equal(geometry.components[1].snapshots_kept, PRESET_SNAPSHOTS_KEPT);
    geometry_free(&geometry);
}

/* Planes keep their number, none vanishes, alignments divide what they align. */
static void test_scales(void **state)
{
    static const double scales[] = {1e-9, 1.0 / 4096, 0.01, 0.3, 1, 2};
    uint32_t count = 0;
    const struct preset *const list = preset_list(&count);

    (void)state;
    for (uint32_t i = 0; i < count; i++) {
        for (size_t k = 0; k < sizeof(scales) / sizeof(scales[0]); k++) {
            struct geometry geometry;
            assert_int_equal(geometry_make(&list[i], scales[k], 16, &geometry), 0);
            assert_int_equal(geometry.part_count, list[i].part_count);
            for (uint32_t c = 0; c < geometry.part_count; c++) {
                const struct abode_component *const component = &geometry.components[c];
                assert_int_equal(component->plane_count, list[i].parts[c].plane_count);
                for (uint32_t p = 0; p < component->plane_count; p++) {
                    const struct abode_plane *const plane = &component->planes[p];
                    assert_true(plane->bytes_per_block >= 16);
                    assert_int_equal(plane->align & (plane->align - 1), 0);
                    assert_int_equal(plane->bytes_per_block % plane->align, 0);
                }
            }
            assert_int_equal(geometry.token_bytes, preset_token_bytes(&list[i], scales[k]));
            geometry_free(&geometry);
        }
    }
}

static void test_scale_bounds(void **state)
{
    uint32_t count = 0;
    const struct preset *const list = preset_list(&count);
    struct geometry geometry;

    (void)state;
    assert_int_equal(geometry_make(list, 0, 16, &geometry), -EINVAL);
    assert_int_equal(geometry_make(list, -1, 16, &geometry), -EINVAL);
    assert_int_equal(geometry_make(list, 1e300, 16, &geometry), -EINVAL);
    assert_int_equal(geometry_make(list, 1, 0, &geometry), -EINVAL);
    assert_int_equal(geometry_make(list, 1, 65537, &geometry), -EINVAL);
    assert_int_equal(geometry_make(list, 1024, 65536, &geometry), -EINVAL);
}

static void test_words(void **state)
{
    struct preset preset;
    struct geometry geometry;
    char why[128];

    (void)state;
    assert_int_equal(preset_find("paged:64x2048,window:16x1024@128,snapshot:4x65536,bytes:4096",
                                 &preset, why, sizeof(why)),
                     0);
    assert_int_equal(geometry_make(&preset, 1, 16, &geometry), 0);
    assert_int_equal(geometry.part_count, 4);
    assert_int_equal(geometry.token_bytes, 64 * 2048 + 16 * 1024);
    assert_int_equal(geometry.fixed_bytes, 4 * 65536 + 4096);
    assert_int_equal(geometry.components[1].window_tokens, 128);
    assert_int_equal(geometry.components[3].bytes_max, 4096);
    assert_int_equal(geometry.components[3].plane_count, 0);
    geometry_free(&geometry);
}

static void test_words_that_are_wrong(void **state)
{
    static const char *const wrong[] = {
        "paged:",
        "paged:0x5",
        "paged:5x0",
        "paged:513x1",
        "paged:1x1073741825",
        "window:2x2",
        "paged:2x2@5",
        "window:2x2@0",
        "window:2x2@99999999",
        "heap:2x2",
        "paged:2x2,",
        ",paged:2x2",
        "paged:2x2x2",
        "paged:-1x2",
        "paged:2 x2",
        "bytes:2x2",
        "paged:99999999999999999999999x2",
        "paged:1x1,paged:1x1,paged:1x1,paged:1x1,paged:1x1,paged:1x1,paged:1x1,paged:1x1,paged:1x1",
        ":",
        "paged:2x2@",
        "paged:x2"};
    struct preset preset;
    char why[128], text[600];

    (void)state;
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        why[0] = '\0';
        assert_int_equal(preset_find(wrong[i], &preset, why, sizeof(why)), -EINVAL);
        assert_int_not_equal(why[0], '\0');
    }
    assert_int_equal(preset_find("llama-9", &preset, why, sizeof(why)), -ENOENT);
    assert_int_equal(preset_find("", &preset, why, sizeof(why)), -ENOENT);
    memset(text, ':', sizeof(text) - 1);
    text[sizeof(text) - 1] = '\0';
    assert_int_equal(preset_find(text, &preset, why, sizeof(why)), -EINVAL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bytes_a_token), cmocka_unit_test(test_recurrent_state),
        cmocka_unit_test(test_scales),        cmocka_unit_test(test_scale_bounds),
        cmocka_unit_test(test_words),         cmocka_unit_test(test_words_that_are_wrong),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
