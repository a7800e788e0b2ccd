/*
 * main.c - the `abode` command: a table of subcommands, help and version.
 *
 * Exit codes: 0 done, 1 failed or damage found, 2 the command line is wrong.
 */
#include "cli.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

struct command {
    const char *name;
    const char *summary; /* NULL: not for people, not in --help */
    int (*run)(int argc, char **argv);
};

static const struct command commands[] = {
    {"demo", "conversations, kill -9, recovery, every byte checked; then a picture", cli_demo},
    {"replay", "run a recorded workload through the library with real bytes", cli_replay},
    {"probe", "what this machine allows: nodes, devices, io_uring, huge pages, binding", cli_probe},
    {"inspect", "what a store holds and where it lives; live or dead, read-only", cli_inspect},
    {"verify", "read every stored byte of a store and check it", cli_verify},
    {"bench", "quick measure of spill and restore on a directory", cli_bench},
    {"demo-host", NULL, cli_demo_host},
};
#define COMMAND_COUNT (sizeof(commands) / sizeof(commands[0]))
#define NAME_LENGTH_MAX 16

static void help_print(void)
{
    printf("abode - keep the state of hosted models: in memory on the right node, on disk, and "
           "back\n\nusage: abode COMMAND [OPTION]...\n\ncommands\n");
    for (size_t i = 0; i < COMMAND_COUNT; i++) {
        if (commands[i].summary != NULL) {
            printf("  %-8s  %s\n", commands[i].name, commands[i].summary);
        }
    }
    printf(
        "\n'abode COMMAND --help' tells the options of a command; 'man abode-COMMAND' the rest.\n"
        "Start with 'abode demo'.\n");
}

static void version_print(void)
{
    const uint32_t version = abode_version();
    printf("abode %u.%u.%u\n", version >> 16, (version >> 8) & 255, version & 255);
}

static size_t smallest(size_t a, size_t b, size_t c)
{
    const size_t least = a < b ? a : b;
    return least < c ? least : c;
}

/* Edit distance of two short words, for "did you mean"; longer ones count as far apart. */
static size_t word_distance(const char *a, const char *b)
{
    const size_t a_length = strlen(a), b_length = strlen(b);
    size_t row[NAME_LENGTH_MAX + 1];
    if (a_length > NAME_LENGTH_MAX || b_length > NAME_LENGTH_MAX) {
        return NAME_LENGTH_MAX;
    }
    for (size_t j = 0; j <= b_length; j++) {
        row[j] = j;
    }
    for (size_t i = 1; i <= a_length; i++) {
        size_t diagonal = row[0];
        row[0] = i;
        for (size_t j = 1; j <= b_length; j++) {
            const size_t replaced = diagonal + (a[i - 1] != b[j - 1]);
            diagonal = row[j];
            row[j] = smallest(row[j] + 1, row[j - 1] + 1, replaced);
        }
    }
    return row[b_length];
}

static int unknown_command(const char *name)
{
    const struct command *nearest = NULL;
    size_t nearest_distance = 3; /* farther than two edits is no guess worth printing */
    for (size_t i = 0; i < COMMAND_COUNT; i++) {
        const size_t distance = word_distance(name, commands[i].name);
        if (commands[i].summary != NULL && distance < nearest_distance) {
            nearest = &commands[i];
            nearest_distance = distance;
        }
    }
    if (nearest != NULL) {
        char mend[64];
        (void)snprintf(mend, sizeof(mend), "did you mean 'abode %s'?", nearest->name);
        return cli_usage(mend, "'%s' is not a command", name);
    }
    return cli_usage("'abode --help' lists the commands", "'%s' is not a command", name);
}

static int dispatch(int argc, char **argv)
{
    if (argc < 2) {
        return cli_usage("try 'abode demo', or 'abode --help' for all commands",
                         "no command was given");
    }
    const char *name = argv[1];
    if (strcmp(name, "--version") == 0 || strcmp(name, "-V") == 0) {
        version_print();
        return CLI_OK;
    }
    const bool help = strcmp(name, "--help") == 0 || strcmp(name, "-h") == 0;
    if (help || (strcmp(name, "help") == 0 && argc == 2)) {
        help_print();
        return CLI_OK;
    }
    char help_option[] = "--help";
    char *help_argv[] = {argv[0], NULL, help_option, NULL};
    if (strcmp(name, "help") == 0) { /* abode help demo = abode demo --help */
        name = help_argv[1] = argv[2];
        argv = help_argv;
        argc = 3;
    }
    for (size_t i = 0; i < COMMAND_COUNT; i++) {
        if (strcmp(name, commands[i].name) == 0) {
            return commands[i].run(argc - 1, argv + 1);
        }
    }
    return unknown_command(name);
}

int main(int argc, char **argv)
{
    /* A reader that goes away (abode inspect | head) must not leave scratch stores behind: the
     * write fails instead, and the command ends by its own way. */
    (void)signal(SIGPIPE, SIG_IGN);
    int result = dispatch(argc, argv);
    cli_flush();
    if (!ferror(stdout) && cli_flush_failure() == 0) {
        return result;
    }
    const int why = cli_flush_failure() != 0 ? cli_flush_failure() : EIO;
    if (why != EPIPE) {
        result = cli_fail(-why, NULL, "standard output");
    }
    return result == CLI_OK ? CLI_FAILED : result;
}
