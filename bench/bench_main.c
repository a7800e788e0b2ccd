/*
 * bench_main.c - the command line that all benches share, and the words for machine and commit.
 *
 *     no --score        Google Benchmark's micro benches, with its own flags
 *     --score [IDS]     the scorecard's cases
 *     --ids             which ids this bench can report
 */
#include "bench_common.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "gbench_shim.h"

#define EXIT_NONE_WANTED 77
#define ROUNDS_DEFAULT 5
#define WARMUP_DEFAULT 1
#define TEXT_BYTES 128

/* ---- machine and commit ----------------------------------------------------------------------------- */

/* value of the first line "key...: value" of a /proc file; empty where there is none */
static void proc_value(const char *path, const char *key, char *ret, size_t capacity)
{
    ret[0] = '\0';
    FILE *file = fopen(path, "re");
    if (file == NULL) {
        return;
    }
    char line[512];
    while (fgets(line, sizeof(line), file) != NULL) {
        const char *colon = strchr(line, ':');
        if (colon == NULL || strncmp(line, key, strlen(key)) != 0) {
            continue;
        }
        const char *value = colon + 1 + strspn(colon + 1, " \t");
        (void)snprintf(ret, capacity, "%.*s", (int)strcspn(value, "\n"), value);
        break;
    }
    (void)fclose(file);
}

/* "ext4 on vda": the mount whose device number is that of dir */
static void file_system_text(const char *dir, char *ret, size_t capacity)
{
    (void)snprintf(ret, capacity, "unknown file system");
    struct stat status;
    FILE *file = stat(dir, &status) == 0 ? fopen("/proc/self/mountinfo", "re") : NULL;
    if (file == NULL) {
        return;
    }
    char line[1024], type[32], source[128];
    unsigned int device_major, device_minor;
    while (fgets(line, sizeof(line), file) != NULL) {
        const char *tail = strstr(line, " - ");
        if (tail == NULL || sscanf(line, "%*d %*d %u:%u", &device_major, &device_minor) != 2 ||
            device_major != major(status.st_dev) || device_minor != minor(status.st_dev) ||
            sscanf(tail, " - %31s %127s", type, source) != 2) {
            continue;
        }
        const char *name = strrchr(source, '/');
        (void)snprintf(ret, capacity, "%s on %s", type, name == NULL ? source : name + 1);
        break;
    }
    (void)fclose(file);
}

static void machine_text(const char *dir, char *ret, size_t capacity)
{
    char cpu[TEXT_BYTES], memory[TEXT_BYTES], file_system[TEXT_BYTES * 2];
    proc_value("/proc/cpuinfo", "model name", cpu, sizeof(cpu));
    proc_value("/proc/meminfo", "MemTotal", memory, sizeof(memory));
    file_system_text(dir, file_system, sizeof(file_system));
    struct utsname system_name = {0};
    (void)uname(&system_name);
    system_name.release[strcspn(system_name.release, "-")] = '\0';
    (void)snprintf(ret, capacity, "%.100s, %ld CPUs, %.0f GiB, Linux %.24s %.12s, %.80s",
                   cpu[0] == '\0' ? "CPU" : cpu, sysconf(_SC_NPROCESSORS_ONLN),
                   strtod(memory, NULL) / (1024.0 * 1024.0), system_name.release,
                   system_name.machine, file_system);
}

/* The source that was built: $ABODE_BENCH_COMMIT (bench/scorecard sets it), else git's answer. */
static void commit_text(char *ret, size_t capacity)
{
    (void)snprintf(ret, capacity, "unknown");
    const char *given = getenv("ABODE_BENCH_COMMIT");
    if (given != NULL) {
        (void)snprintf(ret, capacity, "%s", given);
        return;
    }
    FILE *pipe = popen("git describe --always --dirty=+ --exclude='*' 2>/dev/null", "re");
    if (pipe == NULL) {
        return;
    }
    char line[64];
    if (fgets(line, sizeof(line), pipe) != NULL) {
        (void)snprintf(ret, capacity, "%.*s", (int)strcspn(line, "\n"), line);
    }
    (void)pclose(pipe);
}

/* ---- ids ---------------------------------------------------------------------------------------------- */

/* "P1" covers "P1" and "P1.64k" */
static bool id_covers(const char *asked, size_t length, const char *id)
{
    return strncmp(asked, id, length) == 0 && (id[length] == '\0' || id[length] == '.');
}

bool bench_wanted(const struct bench_run *run, const char *id)
{
    if (run->only == NULL) {
        return true;
    }
    const char *asked = run->only;
    while (*asked != '\0') {
        const size_t length = strcspn(asked, ",");
        if (length > 0 && id_covers(asked, length, id)) {
            return true;
        }
        asked += length + (asked[length] == ',');
    }
    return false;
}

/* calls with each id of a case; stops where it returns true */
static bool case_any(const struct bench_case *one, const struct bench_run *run,
                     bool (*call)(const struct bench_run *run, const char *id))
{
    char id[32];
    const char *at = one->ids;
    while (*at != '\0') {
        const size_t length = strcspn(at, " ");
        if (length > 0 && length < sizeof(id)) {
            memcpy(id, at, length);
            id[length] = '\0';
            if (call(run, id)) {
                return true;
            }
        }
        at += length + (at[length] == ' ');
    }
    return false;
}

static bool id_print(const struct bench_run *run, const char *id)
{
    (void)run;
    bench_say("%s", id);
    return false;
}

uint64_t bench_bytes(const struct bench_run *run, uint64_t bytes_default)
{
    return run->bytes == 0 ? bytes_default : run->bytes;
}

/* ---- the command line ------------------------------------------------------------------------------------ */
enum mode { MODE_MICRO, MODE_SCORE, MODE_IDS };

static bool bytes_parse(const char *text, uint64_t *ret)
{
    char *end;
    errno = 0;
    const unsigned long long value = strtoull(text, &end, 10);
    const uint32_t shift = *end == 'k' ? 10 : *end == 'm' ? 20 : *end == 'g' ? 30 : 0;
    if (errno != 0 || end == text || value == 0 || end[shift != 0] != '\0' ||
        value > (UINT64_MAX >> shift)) {
        return false;
    }
    *ret = (uint64_t)value << shift;
    return true;
}

static bool count_parse(const char *text, uint32_t low, uint32_t *ret)
{
    uint64_t value = 0;
    const bool zero = strcmp(text, "0") == 0;
    if ((!zero && !bytes_parse(text, &value)) || value < low || value > BENCH_ROUNDS_MAX) {
        return false;
    }
    *ret = (uint32_t)value;
    return true;
}

/* an option with a value; false: it is not one of ours, or the value is wrong */
static bool option_take(struct bench_run *run, const char *name, const char *value)
{
    if (strcmp(name, "--dir") == 0) {
        run->dir = value;
        return true;
    }
    if (strcmp(name, "--json") == 0) {
        run->json_path = value;
        return true;
    }
    if (strcmp(name, "--rounds") == 0) {
        return count_parse(value, 1, &run->rounds);
    }
    if (strcmp(name, "--warmup") == 0) {
        return count_parse(value, 0, &run->warmup);
    }
    return strcmp(name, "--bytes") == 0 && bytes_parse(value, &run->bytes);
}

static int options_parse(struct bench_run *run, int argc, char **argv, enum mode *ret_mode)
{
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--ids") == 0) {
            *ret_mode = MODE_IDS;
        } else if (strcmp(argv[i], "--score") == 0) {
            *ret_mode = MODE_SCORE;
            if (i + 1 < argc && argv[i + 1][0] != '-') {
                run->only = argv[++i];
            }
        } else if (i + 1 < argc && option_take(run, argv[i], argv[i + 1])) {
            i++;
        } else {
            (void)fprintf(stderr,
                          "%s: cannot take \"%s\"\n"
                          "usage: %s [--score [ID,...] | --ids] [--dir DIR] [--rounds 1..%d]\n"
                          "       [--warmup 0..%d] [--bytes N[k|m|g]] [--json FILE]\n"
                          "without --score or --ids: Google Benchmark's own flags\n",
                          run->name, argv[i], run->name, BENCH_ROUNDS_MAX, BENCH_ROUNDS_MAX);
            return -EINVAL;
        }
    }
    return 0;
}

static bool asks_for_ours(int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--score") == 0 || strcmp(argv[i], "--ids") == 0) {
            return true;
        }
    }
    return false;
}

static int cases_score(struct bench_run *run, const struct bench_suite *suite)
{
    machine_text(run->dir, run->machine, sizeof(run->machine));
    commit_text(run->commit, sizeof(run->commit));
    bool any = false;
    int result = EXIT_SUCCESS;
    for (uint32_t i = 0; i < suite->case_count; i++) {
        if (!case_any(&suite->cases[i], run, bench_wanted)) {
            continue;
        }
        any = true;
        const int code = suite->cases[i].run(run);
        if (code < 0) {
            (void)fprintf(stderr, "%s: %s failed: %s\n", run->name, suite->cases[i].ids,
                          strerror(-code));
            result = EXIT_FAILURE;
        }
    }
    return any ? result : EXIT_NONE_WANTED;
}

static int micro_run(int argc, char **argv, const struct bench_suite *suite)
{
    if (suite->micro_register == NULL) {
        bench_say("%s has no micro benches; see --ids and --score", suite->name);
        return EXIT_SUCCESS;
    }
    suite->micro_register();
    return gbench_run(argc, argv) == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}

int bench_main(int argc, char **argv, const struct bench_suite *suite)
{
    const char *dir = getenv("ABODE_BENCH_DIR");
    struct bench_run run = {.name = suite->name,
                            .dir = dir == NULL ? "." : dir,
                            .rounds = ROUNDS_DEFAULT,
                            .warmup = WARMUP_DEFAULT};
    if (!asks_for_ours(argc, argv)) {
        return micro_run(argc, argv, suite);
    }
    enum mode mode = MODE_SCORE;
    if (options_parse(&run, argc, argv, &mode) < 0) {
        return EXIT_FAILURE;
    }
    if (mode == MODE_IDS) {
        for (uint32_t i = 0; i < suite->case_count; i++) {
            (void)case_any(&suite->cases[i], &run, id_print);
        }
        return EXIT_SUCCESS;
    }
    return cases_score(&run, suite);
}
