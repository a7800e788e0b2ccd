/*
 * cli_host.c - what every subcommand that opens a runtime needs: log lines, waiting for one op,
 * signals, and a directory to work in that is gone afterwards.
 *
 * SIGINT, SIGTERM and SIGHUP only set a flag: the loops look at it, end, and the usual way out
 * removes what was made. A signal handler can reach nothing but a static: this is the one that
 * the command has.
 */
#include "cli.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

volatile int cli_interrupted;

const char cli_io_choices[] = "auto|uring|threads|sync";
const char cli_huge_choices[] = "auto|thp|tlb|none";

const char *cli_io_name(int io)
{
    static const char *const names[] = {"auto", "io_uring", "pread/pwrite threads", "sync"};
    return io >= 0 && io < 4 ? names[io] : "unknown";
}

const char *cli_huge_name(int huge)
{
    static const char *const names[] = {"auto", "transparent", "hugetlb", "none"};
    return huge >= 0 && huge < 4 ? names[huge] : "unknown";
}

void *cli_alloc(size_t count, size_t bytes)
{
    void *memory = calloc(count == 0 ? 1 : count, bytes == 0 ? 1 : bytes);
    if (memory == NULL) {
        (void)fprintf(stderr, "abode: memory: none left: end other programs\n");
        exit(CLI_FAILED);
    }
    return memory;
}

static void interrupt(int signal_number)
{
    cli_interrupted = signal_number;
}

void cli_signals_catch(void)
{
    struct sigaction action;
    memset(&action, 0, sizeof(action));
    action.sa_handler = interrupt;
    action.sa_flags = (int)SA_RESETHAND; /* a second one ends the program at once */
    (void)sigaction(SIGINT, &action, NULL);
    (void)sigaction(SIGTERM, &action, NULL);
    (void)sigaction(SIGHUP, &action, NULL);
}

void cli_log_line(void *log_context, int level, const char *line)
{
    struct cli_log *log = log_context;
    if (level <= log->level) {
        cli_flush();
        (void)fprintf(stderr, "abode: %s\n", line);
        log->line_count++;
    }
}

int cli_op_wait(struct abode_queue *queue, struct abode_op *op)
{
    struct abode_op *finished = NULL;
    while (finished != op) {
        const int count = abode_poll(queue, &finished, 1, -1);
        if (count < 0) {
            return count;
        }
    }
    return op->status;
}

int cli_store_open(const struct cli_store *store, const char *command, struct abode **ret)
{
    struct abode_config config;
    abode_config_init(&config);
    config.flags = ABODE_READ_ONLY;
    config.store_paths = store->paths;
    config.store_path_count = store->path_count;
    config.io = store->io;
    config.log = cli_log_line;
    config.log_context = store->log;
    const int result = abode_open(&config, ret);
    if (result < 0) {
        return cli_fail(result, NULL, "%s: opening the store '%s'", command, store->paths[0]);
    }
    return CLI_OK;
}

/* ---- support --------------------------------------------------------------------------------- */

static void support_line(struct cli_support_line *line, const char *key, const char *name,
                         const char *got)
{
    (void)snprintf(line->key, sizeof(line->key), "%s", key);
    (void)snprintf(line->name, sizeof(line->name), "%s", name);
    (void)snprintf(line->got, sizeof(line->got), "%s", got);
}

static void support_why(struct cli_support_line *line, int32_t reason, const char *text)
{
    line->reason = reason;
    (void)snprintf(line->text, sizeof(line->text), "%s", text != NULL ? text : "");
}

int cli_support_lines(const struct abode *runtime, struct cli_support_line *ret_lines)
{
    static const char *const bindings[] = {"none", "first touch", "mbind"};
    struct abode_support support = {.struct_size = sizeof(support)};
    const int result = abode_support_get(runtime, &support);
    if (result < 0) {
        return result;
    }
    const bool known = support.node_binding >= 0 && support.node_binding < 3;
    support_line(&ret_lines[0], "io_engine", "I/O", cli_io_name(support.io_engine));
    support_line(&ret_lines[1], "fixed_buffers", "registered buffers",
                 support.fixed_buffers ? "yes" : "no");
    support_line(&ret_lines[2], "direct_io", "direct I/O", support.direct_io ? "yes" : "no");
    support_line(&ret_lines[3], "node_binding", "node binding",
                 known ? bindings[support.node_binding] : "unknown");
    support_line(&ret_lines[4], "huge_pages", "huge pages", cli_huge_name(support.huge_pages));
    support_why(&ret_lines[0], support.io_engine_reason, support.io_engine_text);
    support_why(&ret_lines[1], support.fixed_buffers_reason, support.fixed_buffers_text);
    support_why(&ret_lines[2], support.direct_io_reason, support.direct_io_text);
    support_why(&ret_lines[3], support.node_binding_reason, support.node_binding_text);
    support_why(&ret_lines[4], support.huge_pages_reason, support.huge_pages_text);
    return 0;
}

void cli_support_print(const struct cli_support_line *lines, bool degraded_only, FILE *stream)
{
    for (uint32_t i = 0; i < CLI_SUPPORT_LINES; i++) {
        const struct cli_support_line *line = &lines[i];
        if (line->reason == 0 && degraded_only) {
            continue;
        }
        (void)fprintf(stream, "  %-18s  %s\n", line->name, line->got);
        if (line->text[0] != 0 && line->reason != 0) {
            (void)fprintf(stream, "  %-18s  because: %s\n", "", line->text);
        }
    }
}

json_t *cli_support_json(const struct cli_support_line *lines)
{
    json_t *object = cli_json(json_object());
    for (uint32_t i = 0; i < CLI_SUPPORT_LINES; i++) {
        json_t *line = cli_json(json_pack("{s:s, s:i, s:s}", "got", lines[i].got, "reason",
                                          (int)lines[i].reason, "text", lines[i].text));
        (void)json_object_set_new(object, lines[i].key, line);
    }
    return object;
}

/* ---- scratch directories --------------------------------------------------------------------- */

static bool entry_is_ours(const char *name)
{
    return strcmp(name, ".") != 0 && strcmp(name, "..") != 0 && strcmp(name, "lost+found") != 0;
}

/* Remove the files in an open directory, following no link, and close it. Best effort: what stays
 * makes the rmdir of the directory fail, and that is reported. */
static void files_remove(int directory)
{
    DIR *stream = fdopendir(directory);
    if (stream == NULL) {
        (void)close(directory);
        return;
    }
    const struct dirent *entry;
    while ((entry = readdir(stream)) != NULL) {
        if (entry_is_ours(entry->d_name)) {
            (void)unlinkat(dirfd(stream), entry->d_name, 0);
        }
    }
    (void)closedir(stream);
}

/* A store is a directory of files with at most one level of directories below. */
static void tree_empty(const char *path)
{
    const int flags = O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC;
    const int directory = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *stream = directory >= 0 ? fdopendir(directory) : NULL;
    if (stream == NULL) {
        return;
    }
    const struct dirent *entry;
    while ((entry = readdir(stream)) != NULL) {
        if (!entry_is_ours(entry->d_name) || unlinkat(directory, entry->d_name, 0) == 0) {
            continue;
        }
        const int inner = openat(directory, entry->d_name, flags);
        if (inner >= 0) {
            files_remove(inner);
            (void)unlinkat(directory, entry->d_name, AT_REMOVEDIR);
        }
    }
    (void)closedir(stream);
}

/* 1: empty, 0: not, or a negative code. */
static int directory_is_empty(const char *path)
{
    DIR *stream = opendir(path);
    if (stream == NULL) {
        return -errno;
    }
    const struct dirent *entry;
    int empty = 1;
    while (empty == 1 && (entry = readdir(stream)) != NULL) {
        empty = entry_is_ours(entry->d_name) ? 0 : 1;
    }
    (void)closedir(stream);
    return empty;
}

static int scratch_use(struct cli_scratch *scratch, const char *given)
{
    if (strlen(given) >= sizeof(scratch->path)) {
        return cli_usage("give a shorter path", "'%.40s...': too long a path", given);
    }
    (void)snprintf(scratch->path, sizeof(scratch->path), "%s", given);
    if (mkdir(given, 0700) == 0) {
        scratch->made = true;
        return CLI_OK;
    }
    if (errno != EEXIST) {
        return cli_fail(-errno, NULL, "making directory '%s'", given);
    }
    const int empty = directory_is_empty(given);
    if (empty < 0) {
        return cli_fail(empty, NULL, "directory '%s'", given);
    }
    if (empty == 0) {
        return cli_usage("nothing of yours is overwritten: give an empty or a new directory",
                         "directory '%s' is not empty", given);
    }
    return CLI_OK;
}

static int scratch_make(struct cli_scratch *scratch)
{
    const char *wanted = getenv("TMPDIR");
    const char *const parents[] = {wanted != NULL && wanted[0] == '/' ? wanted : "/var/tmp",
                                   "/var/tmp", "/tmp"};
    int why = 0;
    for (uint32_t i = 0; i < sizeof(parents) / sizeof(parents[0]); i++) {
        const int length =
            snprintf(scratch->path, sizeof(scratch->path), "%s/abode-XXXXXX", parents[i]);
        if (length < (int)sizeof(scratch->path) && mkdtemp(scratch->path) != NULL) {
            scratch->made = true;
            return CLI_OK;
        }
        why = why == 0 ? errno : why;
    }
    return cli_fail(-why, "set TMPDIR to a directory that you may write to",
                    "making a directory under %s", parents[0]);
}

/* The directory is there: is there room in its file system? */
static int scratch_room_check(struct cli_scratch *scratch, uint64_t bytes_needed)
{
    scratch->open = true;
    struct statvfs room;
    if (statvfs(scratch->path, &room) != 0) {
        const int why = errno;
        cli_scratch_close(scratch, false);
        return cli_fail(-why, NULL, "file system of '%s'", scratch->path);
    }
    const uint64_t bytes_free = (uint64_t)room.f_bavail * room.f_frsize;
    if (bytes_free < bytes_needed) {
        char mend[256];
        (void)snprintf(mend, sizeof(mend),
                       "%s are needed, %s are free: free some, choose "
                       "another directory with --store, or a smaller --store-size",
                       cli_bytes_text(bytes_needed).text, cli_bytes_text(bytes_free).text);
        const int failed = cli_fail(-ENOSPC, mend, "directory '%s'", scratch->path);
        cli_scratch_close(scratch, false);
        return failed;
    }
    return CLI_OK;
}

int cli_scratch_open(struct cli_scratch *scratch, const char *given, uint64_t bytes_needed)
{
    scratch->made = false;
    scratch->open = false;
    const int result = given != NULL ? scratch_use(scratch, given) : scratch_make(scratch);
    if (result != CLI_OK) {
        return result;
    }
    return scratch_room_check(scratch, bytes_needed);
}

int cli_scratch_open_in(struct cli_scratch *scratch, const char *parent, uint64_t bytes_needed)
{
    scratch->made = false;
    scratch->open = false;
    const int length = snprintf(scratch->path, sizeof(scratch->path), "%s/abode-XXXXXX", parent);
    if (length >= (int)sizeof(scratch->path)) {
        return cli_usage("give a shorter path", "'%.40s...': too long a path", parent);
    }
    if (mkdtemp(scratch->path) == NULL) {
        return cli_fail(-errno, NULL, "making a directory in '%s'", parent);
    }
    scratch->made = true;
    return scratch_room_check(scratch, bytes_needed);
}

void cli_scratch_close(struct cli_scratch *scratch, bool keep)
{
    if (!scratch->open) {
        return;
    }
    scratch->open = false;
    if (keep) {
        return;
    }
    tree_empty(scratch->path);
    if (scratch->made && rmdir(scratch->path) != 0) {
        (void)cli_fail(-errno, "remove it by hand", "removing '%s'", scratch->path);
    }
}
