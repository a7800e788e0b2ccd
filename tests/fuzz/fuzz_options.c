/*
 * fuzz_options.c - the words of a command line: options of every kind, sizes, and geometries ("paged:
 * 64x2048,..."). An input is one byte that says which, then text; words of a command line end at
 * newlines. Laws: a number within its range, a geometry whose sums do not wrap, or a status.
 */
#include <getopt.h>
#include <stdio.h>
#include <string.h>

#include "cli/cli.h"
#include "cli/preset.h"
#include "fuzz/fuzz.h"

#define TEXT_MAX 512u
#define WORDS_MAX 24

static void line_run(char *text)
{
    static uint64_t size, count, choice;
    static double number;
    static bool flag;
    static const char *word;
    static struct cli_list list;
    static const struct cli_option options[] = {
        {"size", 's', CLI_SIZE, &size, "SIZE", "a size", 4096, 1e12},
        {"count", 'c', CLI_COUNT, &count, "N", "a count", 1, 100},
        {"number", 0, CLI_NUMBER, &number, "X", "a number", 0.5, 2},
        {"text", 't', CLI_TEXT, &word, "TEXT", "a text", 0, 0},
        {"list", 'l', CLI_LIST, &list, "TEXT", "a list", 0, 0},
        {"choice", 0, CLI_CHOICE, &choice, "auto|uring|threads", "a choice", 0, 0},
        {"flag", 'f', CLI_FLAG, &flag, NULL, "a flag", 0, 0},
    };
    static const struct cli_syntax syntax = {.command = "fuzz",
                                             .arguments = "WORD...",
                                             .summary = "a command of every kind of option",
                                             .rest_max = 3,
                                             .options = options,
                                             .option_count = CLI_OPTION_COUNT(options)};
    char name[] = "fuzz";
    char *argv[WORDS_MAX + 2] = {name};
    int argc = 1, rest = 0;
    for (char *at = text; at != NULL && argc <= WORDS_MAX;) {
        argv[argc++] = strsep(&at, "\n");
    }
    size = 4096, count = 1, number = 1, choice = 0, list.count = 0;
    optind = 0;
    if (cli_options_parse(&syntax, argc, argv, &rest) == 0) {
        fuzz_expect(size >= 4096 && size <= 1000000000000u && count >= 1 && count <= 100);
        fuzz_expect(number >= 0.5 && number <= 2 && choice < 3 && list.count <= CLI_LIST_MAX);
        fuzz_expect(rest >= 1 && rest <= argc && argc - rest <= 3);
    }
}

static void geometry_run(const char *text, uint8_t choice)
{
    static const double scales[] = {1, 1024, 0.001, 1e-9};
    static const uint32_t tokens[] = {1, 16, 65536, 3};
    struct preset preset;
    struct geometry geometry;
    char why[128];
    if (preset_find(text, &preset, why, sizeof(why)) != 0) {
        return;
    }
    fuzz_expect(preset.part_count >= 1 && preset.part_count <= PRESET_PARTS_MAX);
    if (geometry_make(&preset, scales[choice & 3], tokens[choice >> 2 & 3], &geometry) == 0) {
        for (uint32_t i = 0; i < geometry.part_count; i++) {
            const struct abode_component *component = &geometry.components[i];
            for (uint32_t p = 0; p < component->plane_count; p++) {
                fuzz_expect(component->planes[p].bytes_per_block > 0);
            }
        }
        geometry_free(&geometry);
    }
    (void)preset_token_bytes(&preset, scales[choice & 3]);
}

static void options_run(const uint8_t *bytes, size_t size)
{
    char text[TEXT_MAX + 1];
    uint64_t value = 0;
    if (size == 0) {
        return;
    }
    fuzz_be_silent();
    memcpy(text, bytes + 1, size - 1);
    text[size - 1] = '\0';
    switch (bytes[0] % 3) {
    case 0:
        line_run(text);
        break;
    case 1:
        geometry_run(text, bytes[0] / 3);
        break;
    default:
        fuzz_expect(cli_size_parse(text, &value) != 0 || value < 1ull << 53);
        break;
    }
}

static const char *const seeds[] = {
    "\x03--size=4M\n-c\n7\n--number\n1.5\nword\n-f\n--choice=uring",
    "\x03-l\na\n--list=b\n--text\n\n--\n-f\nx",
    "\x01paged:64x2048,window:16x2048@1024,snapshot:72x65536,bytes:4096",
    "\x04paged:1x1",
    "\0021.5GiB",
};

static size_t options_seed(uint32_t index, uint8_t *bytes, size_t capacity)
{
    if (index >= sizeof(seeds) / sizeof(seeds[0]) || strlen(seeds[index]) > capacity) {
        return 0;
    }
    memcpy(bytes, seeds[index], strlen(seeds[index]));
    return strlen(seeds[index]);
}

extern const struct fuzz_target fuzz_options;
const struct fuzz_target fuzz_options = {
    .name = "options", .size_max = TEXT_MAX, .run = options_run, .seed = options_seed};
