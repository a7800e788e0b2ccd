/*
 * test_fuzz_replay.c - goal: no input of the corpora, and no fixed number of seeded changes of them,
 * crashes a parser, hangs it or breaks a law of its target. Method: every target of tests/fuzz runs
 * its corpus, its own first inputs and then changed ones, without libFuzzer.
 *
 * test_fuzz_replay [--target NAME] [--seed N] [--case K] [--changes N] [FILE ...]: all changed inputs,
 * only the K-th, or only these files. test_fuzz_replay --seeds DIR writes the targets' first inputs to
 * DIR/NAME/. A crash tells the command that repeats it. ABODE_LONG=1: a hundred times the changes.
 */
#include <dirent.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "fuzz/fuzz.h"

#define CHANGES_DEFAULT 200u
#define CHANGES_LONG 20000u
#define SLOW_SHARE 4u
#define FILES_MAX 1024u
#define CASE_NONE UINT64_MAX
#define TARGET_LIMIT_S 600u /* an input that hangs */

struct inputs {
    uint32_t count;
    struct input {
        uint8_t *bytes;
        size_t size;
    } items[FILES_MAX];
};
struct run {
    const char *target;
    uint64_t seed, only, changes;
    uint64_t executions;
};

/* where a crash is told; tests print to the real streams, targets may be silent */
static char repeat_text[512];
static FILE *output;

static void repeat_tell(void)
{
    const char intro[] = "\nto repeat: ";
    (void)!write(STDOUT_FILENO, intro, sizeof(intro) - 1);
    (void)!write(STDOUT_FILENO, repeat_text, strnlen(repeat_text, sizeof(repeat_text)));
    (void)!write(STDOUT_FILENO, "\n", 1);
}

static void crashed(int number)
{
    repeat_tell();
    (void)signal(number, SIG_DFL);
    (void)raise(number);
}

/* of the sanitizers, where they are */
void __sanitizer_set_death_callback(void (*callback)(void)) __attribute__((weak));

static int names_compare(const void *left, const void *right)
{
    return strcmp(*(char *const *)left, *(char *const *)right);
}

static void input_add(struct inputs *inputs, const uint8_t *bytes, size_t size)
{
    fuzz_expect(inputs->count < FILES_MAX);
    struct input *input = &inputs->items[inputs->count++];
    input->bytes = malloc(size + 1);
    fuzz_expect(input->bytes != NULL);
    memcpy(input->bytes, bytes, size);
    input->size = size;
}

static void corpus_read(const struct fuzz_target *target, struct inputs *inputs)
{
    char folder[512], path[1024];
    char *names[FILES_MAX];
    uint32_t count = 0;
    const char *tree = getenv("ABODE_TREE");
    (void)snprintf(folder, sizeof(folder), "%.200s/tests/fuzz/corpus/%s", tree != NULL ? tree : ".",
                   target->name);
    DIR *directory = opendir(folder);
    for (struct dirent *entry; directory != NULL && (entry = readdir(directory)) != NULL;) {
        if (entry->d_name[0] != '.' && count < FILES_MAX) {
            names[count++] = strdup(entry->d_name);
        }
    }
    if (directory != NULL) {
        (void)closedir(directory);
    }
    qsort(names, count, sizeof(names[0]), names_compare);
    for (uint32_t i = 0; i < count; i++) {
        size_t size = 0;
        (void)snprintf(path, sizeof(path), "%s/%s", folder, names[i]);
        uint8_t *bytes = fuzz_file_read(path, &size);
        fuzz_expect(bytes != NULL);
        (void)snprintf(repeat_text, sizeof(repeat_text), "test_fuzz_replay --target %s %.300s",
                       target->name, path);
        target->run(bytes, size);
        input_add(inputs, bytes, size);
        free(bytes);
        free(names[i]);
    }
}

static void changes_run(const struct fuzz_target *target, const struct inputs *inputs,
                        struct run *run)
{
    static uint8_t bytes[FUZZ_SIZE_MAX];
    const uint64_t changes = target->is_slow ? run->changes / SLOW_SHARE : run->changes;
    for (uint64_t i = 0; i < changes; i++) {
        if (run->only != CASE_NONE && run->only != i) {
            continue;
        }
        struct fuzz_random random = {.state = run->seed * 1000003 + i};
        size_t size = 0;
        if (inputs->count > 0) {
            const struct input *input = &inputs->items[fuzz_below(&random, inputs->count)];
            size = input->size < target->size_max ? input->size : target->size_max;
            memcpy(bytes, input->bytes, size);
        }
        size = fuzz_mutate(target, bytes, size, sizeof(bytes), &random, fuzz_mutate_bytes);
        (void)snprintf(repeat_text, sizeof(repeat_text),
                       "test_fuzz_replay --target %s --seed %llu --case %llu --changes %llu",
                       target->name, (unsigned long long)run->seed, (unsigned long long)i,
                       (unsigned long long)run->changes);
        target->run(bytes, size);
        run->executions++;
    }
}

static void target_run(const struct fuzz_target *target, struct run *run)
{
    static struct inputs inputs;
    static uint8_t bytes[FUZZ_SIZE_MAX];
    const uint64_t before = run->executions;
    inputs.count = 0;
    (void)alarm(TARGET_LIMIT_S);
    corpus_read(target, &inputs);
    const uint32_t corpus = inputs.count;
    for (uint32_t i = 0; target->seed != NULL; i++) {
        const size_t size = target->seed(i, bytes, sizeof(bytes));
        if (size == 0) {
            break;
        }
        (void)snprintf(repeat_text, sizeof(repeat_text), "test_fuzz_replay --target %s",
                       target->name);
        target->run(bytes, size);
        input_add(&inputs, bytes, size);
    }
    run->executions += inputs.count;
    changes_run(target, &inputs, run);
    (void)alarm(0);
    (void)fprintf(output, "%-12s %llu executions, %u of them the corpus\n", target->name,
                  (unsigned long long)(run->executions - before), corpus);
    (void)fflush(output);
    for (uint32_t i = 0; i < inputs.count; i++) {
        free(inputs.items[i].bytes);
    }
}

static int seeds_write(const char *folder)
{
    static uint8_t bytes[FUZZ_SIZE_MAX];
    char path[512];
    for (size_t t = 0; fuzz_targets[t] != NULL; t++) {
        (void)snprintf(path, sizeof(path), "%.200s/%s", folder, fuzz_targets[t]->name);
        (void)mkdir(path, 0755);
        for (uint32_t i = 0; fuzz_targets[t]->seed != NULL; i++) {
            const size_t size = fuzz_targets[t]->seed(i, bytes, sizeof(bytes));
            if (size == 0) {
                break;
            }
            (void)snprintf(path, sizeof(path), "%.200s/%s/first-%u", folder, fuzz_targets[t]->name,
                           i);
            fuzz_file_write(path, bytes, size);
        }
    }
    return 0;
}

static int files_run(const struct fuzz_target *target, char **paths)
{
    for (; *paths != NULL; paths++) {
        size_t size = 0;
        uint8_t *bytes = fuzz_file_read(*paths, &size);
        if (bytes == NULL || target == NULL) {
            (void)fprintf(output, "%s: cannot be read, or no --target\n", *paths);
            return 2;
        }
        target->run(bytes, size);
        free(bytes);
    }
    return 0;
}

static uint64_t number_of(const char *text, uint64_t otherwise)
{
    return text != NULL ? strtoull(text, NULL, 10) : otherwise;
}

static int all_run(struct run *run)
{
    uint32_t targets = 0;
    const time_t start = time(NULL);
    for (size_t i = 0; fuzz_targets[i] != NULL; i++) {
        if (run->target == NULL || strcmp(run->target, fuzz_targets[i]->name) == 0) {
            target_run(fuzz_targets[i], run);
            targets++;
        }
    }
    (void)fprintf(output, "reliability: R10 %llu executions over %u targets; %lld s; 0 crashes\n",
                  (unsigned long long)run->executions, targets, (long long)(time(NULL) - start));
    (void)fprintf(output, "%u passed, 0 failed, 0 skipped\n", targets);
    return targets > 0 ? 0 : 2;
}

int main(int argc, char **argv)
{
    struct run run = {.seed = number_of(getenv("ABODE_TEST_SEED"), 1),
                      .only = CASE_NONE,
                      .changes = getenv("ABODE_LONG") != NULL ? CHANGES_LONG : CHANGES_DEFAULT};
    int at = 1;
    (void)setenv("CMOCKA_TEST_ABORT", "1", 1); /* fixtures' assertions abort as ours do */
    output = fdopen(dup(STDOUT_FILENO), "w");
    for (; at + 1 < argc && strncmp(argv[at], "--", 2) == 0; at += 2) {
        if (strcmp(argv[at], "--seeds") == 0) {
            return seeds_write(argv[at + 1]);
        }
        run.target = strcmp(argv[at], "--target") == 0 ? argv[at + 1] : run.target;
        run.seed = strcmp(argv[at], "--seed") == 0 ? number_of(argv[at + 1], 1) : run.seed;
        run.only = strcmp(argv[at], "--case") == 0 ? number_of(argv[at + 1], 0) : run.only;
        run.changes = strcmp(argv[at], "--changes") == 0 ? number_of(argv[at + 1], 0) : run.changes;
    }
    const int signals[] = {SIGABRT, SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGALRM};
    for (size_t i = 0; i < sizeof(signals) / sizeof(signals[0]); i++) {
        (void)signal(signals[i], crashed);
    }
    if (__sanitizer_set_death_callback != NULL) {
        __sanitizer_set_death_callback(repeat_tell);
    }
    if (at < argc) {
        return files_run(fuzz_target_find(run.target), argv + at);
    }
    return all_run(&run);
}
