/*
 * fuzz_inspect.c - a hostile store as the input of the command: `abode inspect`, with and without
 * --json, and `abode verify` of a journal of hostile entries. Law: an exit code, nothing else.
 */
#include "fuzz/fuzz_store.h"

#include <getopt.h>
#include <stdlib.h>
#include <string.h>

#include "cli/cli.h"

static void command(int (*run)(int argc, char **argv), const char *name, const char *option,
                    const char *path)
{
    char words[3][128];
    char *argv[4] = {words[0], words[1], words[2], NULL};
    (void)snprintf(words[0], sizeof(words[0]), "%s", name);
    (void)snprintf(words[1], sizeof(words[1]), "%s", path);
    (void)snprintf(words[2], sizeof(words[2]), "%s", option);
    optind = 0;
    const int code = run(option[0] != '\0' ? 3 : 2, argv);
    fuzz_expect(code == CLI_OK || code == CLI_FAILED);
}

static void inspect_run(const uint8_t *bytes, size_t size)
{
    static uint8_t journal[FUZZ_JOURNAL_BYTES];
    struct fuzz_store *store = fuzz_store_get();
    if (size < 8) {
        return;
    }
    (void)setenv("HWLOC_SYNTHETIC", "numa:1 pu:1", 1); /* looking at the machine takes 10 ms */
    fuzz_be_silent();
    fuzz_store_reset(store);
    const size_t journal_size = fuzz_journal_make(store, bytes + 8, size - 8, journal);
    fuzz_store_put(store, "journal.a", journal, journal_size);
    command(cli_inspect, "inspect", (bytes[0] & 1) != 0 ? "--json" : "", store->api->directory);
    if ((bytes[0] & 2) != 0) {
        command(cli_verify, "verify", "", store->api->directory);
    }
}

static size_t inspect_mutate(uint8_t *bytes, size_t size, size_t capacity,
                             struct fuzz_random *random)
{
    const size_t head = 8;
    if (size < head) {
        memset(bytes, 0, head);
        size = head;
    }
    bytes[0] ^= fuzz_below(random, 16) == 0 ? (uint8_t)fuzz_below(random, 4) : 0;
    return head + fuzz_entries_mutate(bytes + head, size - head, capacity - head, random);
}

static size_t inspect_seal(uint8_t *bytes, size_t size)
{
    return size < 8 ? size : 8 + fuzz_entries_seal(bytes + 8, size - 8);
}

static size_t inspect_seed(uint32_t index, uint8_t *bytes, size_t capacity)
{
    if (index > 3) {
        return 0;
    }
    memset(bytes, 0, 8);
    bytes[0] = (uint8_t)index;
    return 8 + fuzz_entries_get(fuzz_store_get(), bytes + 8, capacity - 8);
}

extern const struct fuzz_target fuzz_inspect;
const struct fuzz_target fuzz_inspect = {.name = "inspect",
                                         .is_slow = true,
                                         .size_max = FUZZ_SIZE_MAX,
                                         .run = inspect_run,
                                         .mutate = inspect_mutate,
                                         .seal = inspect_seal,
                                         .seed = inspect_seed};
