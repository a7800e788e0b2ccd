/*
 * cli_options.c - option parsing by table, help from the same table, and one-line errors.
 *
 * A subcommand describes its options once; getopt_long(3) gets its arrays from that table and
 * --help is printed from it, so that the two cannot disagree. Every wrong value names the option,
 * the value and what would be right.
 */
#include "cli.h"

#include <ctype.h>
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#define LONG_ONLY 256 /* getopt values from here on: options without a letter */
#define HELP_WIDTH 26
#define NAME_BYTES_MAX 64

/* ---- errors ---------------------------------------------------------------------------------- */

struct mend {
    int code;
    const char *text;
};

static const struct mend mends[] = {
    {EACCES, "check who owns it, or run as its owner"},
    {EPERM, "run as the owner of the store, or as root"},
    {ENOENT, "check the spelling; make the directory first"},
    {ENOTDIR, "give a directory"},
    {ENOSPC, "free some space, choose another directory, or make the store smaller"},
    {EDQUOT, "free some space, or ask for a larger quota"},
    {EROFS, "the file system or the store is read-only: choose another directory"},
    {ENOMEM, "lower --memory, or end other programs"},
    {EMFILE, "raise the limit of open files: ulimit -n 4096"},
    {EIO, "look at the kernel's log: dmesg | tail"},
    {ETIMEDOUT, "the device did not answer in time: look at dmesg and iostat"},
    {E2BIG, "this command is newer than the library that it found: install both from one build"},
    {ABODE_ECORRUPT, "run 'abode verify' on the store to see which ranges are damaged"},
    {ABODE_EFORMAT, "use the version of abode that wrote the store"},
    {ABODE_EFULL, "give more --memory, or less work at once"},
    {ABODE_ESTORE, "name every directory of one store, and only these"},
    {ABODE_ELOCKED, "end the other process, or only read it: 'abode inspect'"},
};

const char *cli_mend(int code)
{
    const int positive = code < 0 ? -code : code;
    for (size_t i = 0; i < sizeof(mends) / sizeof(mends[0]); i++) {
        if (mends[i].code == positive) {
            return mends[i].text;
        }
    }
    return "";
}

int cli_fail(int code, const char *mend, const char *what, ...)
{
    char text[1024];
    va_list arguments;
    va_start(arguments, what);
    (void)vsnprintf(text, sizeof(text), what, arguments);
    va_end(arguments);
    const char *advice = mend != NULL ? mend : cli_mend(code);
    cli_flush();
    (void)fprintf(stderr, "abode: %s: %s%s%s\n", text, abode_strerror(code),
                  advice[0] != 0 ? ": " : "", advice);
    return CLI_FAILED;
}

int cli_usage(const char *mend, const char *what, ...)
{
    char text[1024];
    va_list arguments;
    va_start(arguments, what);
    (void)vsnprintf(text, sizeof(text), what, arguments);
    va_end(arguments);
    cli_flush();
    (void)fprintf(stderr, "abode: %s: %s\n", text, mend);
    return CLI_USAGE;
}

/* ---- values ---------------------------------------------------------------------------------- */

/* Powers of 1024; a trailing "B" or "iB" is allowed. Negative: not a unit. */
static int unit_shift(const char *text)
{
    static const char letters[] = "KMGTP";
    if (text[0] == 0 || strcmp(text, "B") == 0) {
        return 0;
    }
    const char *letter = strchr(letters, toupper((unsigned char)text[0]));
    const bool tail_ok =
        text[1] == 0 || strcasecmp(text + 1, "B") == 0 || strcasecmp(text + 1, "iB") == 0;
    if (letter == NULL || !tail_ok) {
        return -1;
    }
    return 10 * (int)(letter - letters + 1);
}

int cli_size_parse(const char *text, uint64_t *ret_bytes)
{
    if (!isdigit((unsigned char)text[0])) {
        return -EINVAL; /* strtod would take "inf", "-1" and " 1" */
    }
    char *end = NULL;
    errno = 0;
    const double value = strtod(text, &end);
    const int shift = unit_shift(end);
    if (shift < 0 || errno != 0 || !isfinite(value)) {
        return -EINVAL;
    }
    const double bytes = ldexp(value, shift);
    if (bytes >= 9007199254740992.0) { /* 2^53: exact in a double, 8 PiB is enough for all */
        return -ERANGE;
    }
    *ret_bytes = (uint64_t)bytes;
    return 0;
}

static int range_check(const struct cli_option *option, const char *text, double value)
{
    const bool any = option->min == 0 && option->max == 0;
    if (any || (value >= option->min && value <= option->max)) {
        return 0;
    }
    char mend[128];
    if (option->kind == CLI_SIZE) {
        (void)snprintf(mend, sizeof(mend), "give a size from %s to %s",
                       cli_bytes_text((uint64_t)option->min).text,
                       cli_bytes_text((uint64_t)option->max).text);
    } else {
        (void)snprintf(mend, sizeof(mend), "give a number from %.12g to %.12g", option->min,
                       option->max);
    }
    (void)cli_usage(mend, "--%s %s: out of range", option->name, text);
    return -ERANGE;
}

static int size_take(const struct cli_option *option, const char *text)
{
    uint64_t bytes = 0;
    const int result = cli_size_parse(text, &bytes);
    if (result == -ERANGE) {
        (void)cli_usage("the largest size is 8 PiB", "--%s %s: too large", option->name, text);
        return result;
    }
    if (result < 0) {
        (void)cli_usage("a size is a number and K, M, G or T, such as 512M or 4G",
                        "--%s '%s': not a size", option->name, text);
        return result;
    }
    if (range_check(option, text, (double)bytes) < 0) {
        return -ERANGE;
    }
    *(uint64_t *)option->target = bytes;
    return 0;
}

static int number_take(const struct cli_option *option, const char *text)
{
    char *end = NULL;
    errno = 0;
    const bool whole = option->kind == CLI_COUNT;
    const bool starts_well = isdigit((unsigned char)text[0]) || (!whole && text[0] == '.');
    const uint64_t count = whole && starts_well ? strtoull(text, &end, 10) : 0;
    const double number = !whole && starts_well ? strtod(text, &end) : (double)count;
    if (!starts_well || *end != 0 || errno != 0 || !isfinite(number)) {
        (void)cli_usage(whole ? "give a whole number, such as 100" : "give a number, such as 0.5",
                        "--%s '%s': not a number", option->name, text);
        return -EINVAL;
    }
    if (range_check(option, text, number) < 0) {
        return -ERANGE;
    }
    if (whole) {
        *(uint64_t *)option->target = count;
    } else {
        *(double *)option->target = number;
    }
    return 0;
}

static int choice_take(const struct cli_option *option, const char *text)
{
    const size_t length = strlen(text);
    uint64_t index = 0;
    for (const char *word = option->argument; word != NULL; index++) {
        const char *end = strchr(word, '|');
        const size_t word_length = end != NULL ? (size_t)(end - word) : strlen(word);
        if (word_length == length && memcmp(word, text, length) == 0) {
            *(uint64_t *)option->target = index;
            return 0;
        }
        word = end != NULL ? end + 1 : NULL;
    }
    char mend[160];
    (void)snprintf(mend, sizeof(mend), "choose one of %s", option->argument);
    (void)cli_usage(mend, "--%s '%s': not a choice", option->name, text);
    return -EINVAL;
}

static int list_take(const struct cli_option *option, const char *text)
{
    struct cli_list *list = option->target;
    if (list->count == CLI_LIST_MAX) {
        (void)cli_usage("give fewer", "--%s: more than %d", option->name, CLI_LIST_MAX);
        return -E2BIG;
    }
    list->items[list->count++] = text;
    return 0;
}

static int option_take(const struct cli_option *option, const char *text)
{
    switch (option->kind) {
    case CLI_FLAG:
        *(bool *)option->target = true;
        return 0;
    case CLI_SIZE:
        return size_take(option, text);
    case CLI_COUNT:
    case CLI_NUMBER:
        return number_take(option, text);
    case CLI_TEXT:
        *(const char **)option->target = text;
        return 0;
    case CLI_LIST:
        return list_take(option, text);
    case CLI_CHOICE:
        return choice_take(option, text);
    }
    return -EINVAL;
}

/* ---- the table ------------------------------------------------------------------------------- */

static void option_help_print(const struct cli_option *option)
{
    char left[NAME_BYTES_MAX + 64];
    const bool flag = option->kind == CLI_FLAG;
    char letter[8] = "    ";
    if (option->letter != 0) {
        (void)snprintf(letter, sizeof(letter), "-%c, ", option->letter);
    }
    (void)snprintf(left, sizeof(left), "%s--%s%s%s", letter, option->name, flag ? "" : " ",
                   flag ? "" : option->argument);
    if (strlen(left) > HELP_WIDTH) {
        printf("  %s\n  %*s  %s\n", left, HELP_WIDTH, "", option->help);
    } else {
        printf("  %-*s  %s\n", HELP_WIDTH, left, option->help);
    }
}

static void help_print(const struct cli_syntax *syntax)
{
    const bool arguments = syntax->arguments[0] != 0;
    printf("usage: abode %s [OPTION]...%s%s\n\n%s\n\noptions\n", syntax->command,
           arguments ? " " : "", syntax->arguments, syntax->summary);
    for (uint32_t i = 0; i < syntax->option_count; i++) {
        option_help_print(&syntax->options[i]);
    }
    const struct cli_option help = {
        .name = "help", .letter = 'h', .kind = CLI_FLAG, .help = "print this"};
    option_help_print(&help);
    if (syntax->notes != NULL) {
        printf("\n%s\n", syntax->notes);
    }
}

/* getopt's own arrays, from the table: options[i] has the value LONG_ONLY + i, or its letter. */
struct getopt_table {
    struct option longs[CLI_OPTIONS_MAX + 2];
    char letters[2 * CLI_OPTIONS_MAX + 8];
};

static void getopt_table_fill(const struct cli_syntax *syntax, struct getopt_table *ret)
{
    char *letter = ret->letters;
    *letter++ = ':'; /* tell a missing argument (':') from an unknown option ('?') */
    *letter++ = 'h';
    for (uint32_t i = 0; i < syntax->option_count; i++) {
        const struct cli_option *option = &syntax->options[i];
        const bool flag = option->kind == CLI_FLAG;
        ret->longs[i] = (struct option){option->name, flag ? no_argument : required_argument, NULL,
                                        LONG_ONLY + (int)i};
        if (option->letter != 0) {
            *letter++ = option->letter;
            if (!flag) {
                *letter++ = ':';
            }
        }
    }
    ret->longs[syntax->option_count] = (struct option){"help", no_argument, NULL, 'h'};
    ret->longs[syntax->option_count + 1] = (struct option){NULL, 0, NULL, 0};
    *letter = 0;
}

static const struct cli_option *option_of(const struct cli_syntax *syntax, int value)
{
    for (uint32_t i = 0; i < syntax->option_count; i++) {
        const struct cli_option *option = &syntax->options[i];
        const bool by_letter = option->letter != 0 && value == option->letter;
        if (value == LONG_ONLY + (int)i || by_letter) {
            return option;
        }
    }
    return NULL;
}

static int bad_option(const struct cli_syntax *syntax, int value, const char *word)
{
    char mend[128];
    (void)snprintf(mend, sizeof(mend), "'abode %s --help' lists the options", syntax->command);
    if (value == ':') {
        (void)cli_usage(mend, "%s: '%s' needs a value", syntax->command, word);
    } else {
        (void)cli_usage(mend, "%s: '%s' is not an option here", syntax->command, word);
    }
    return -EINVAL;
}

static int rest_check(const struct cli_syntax *syntax, int argc, char **argv)
{
    const int rest_count = argc - optind;
    char mend[256];
    (void)snprintf(mend, sizeof(mend), "usage: abode %s [OPTION]...%s%s", syntax->command,
                   syntax->arguments[0] != 0 ? " " : "", syntax->arguments);
    if (rest_count > (int)syntax->rest_max) {
        (void)cli_usage(mend, "%s: '%s' is one argument too many", syntax->command,
                        argv[optind + (int)syntax->rest_max]);
        return -EINVAL;
    }
    if (rest_count < (int)syntax->rest_min) {
        (void)cli_usage(mend, "%s: an argument is missing", syntax->command);
        return -EINVAL;
    }
    return 0;
}

int cli_options_parse(const struct cli_syntax *syntax, int argc, char **argv, int *ret_rest)
{
    struct getopt_table table;
    if (syntax->option_count > CLI_OPTIONS_MAX) {
        return -EINVAL;
    }
    getopt_table_fill(syntax, &table);
    optind = 0; /* glibc: start afresh */
    opterr = 0; /* the messages are ours */
    for (;;) {
        const int word = optind > 0 ? optind : 1;
        const int value = getopt_long(argc, argv, table.letters, table.longs, NULL);
        if (value == -1) {
            break;
        }
        if (value == 'h') {
            help_print(syntax);
            return 1;
        }
        if (value == '?' || value == ':') {
            return bad_option(syntax, value, argv[optind > word ? optind - 1 : word]);
        }
        const struct cli_option *option = option_of(syntax, value);
        if (option == NULL || option_take(option, optarg) < 0) {
            return -EINVAL;
        }
    }
    const int result = rest_check(syntax, argc, argv);
    if (result < 0) {
        return result;
    }
    *ret_rest = optind;
    return 0;
}
