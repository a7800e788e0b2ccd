/*
 * fuzz_libfuzzer.c - the targets as libFuzzer wants them; the variable ABODE_FUZZ names the one.
 * Only the program build-fuzz/fuzz links it.
 */
#include <stdio.h>
#include <stdlib.h>

#include "fuzz/fuzz.h"

/* libFuzzer's names */
int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);
size_t LLVMFuzzerCustomMutator(uint8_t *bytes, size_t size, size_t capacity, unsigned int seed);
size_t LLVMFuzzerMutate(uint8_t *bytes, size_t size, size_t capacity);

static const struct fuzz_target *target;

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc;
    (void)argv;
    (void)setenv("CMOCKA_TEST_ABORT", "1", 1); /* fixtures' assertions abort as ours do */
    target = fuzz_target_find(getenv("ABODE_FUZZ"));
    if (target == NULL) {
        (void)fprintf(stderr, "ABODE_FUZZ must name one of the targets:");
        for (size_t i = 0; fuzz_targets[i] != NULL; i++) {
            (void)fprintf(stderr, " %s", fuzz_targets[i]->name);
        }
        (void)fprintf(stderr, "\n");
        exit(2);
    }
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    if (size <= target->size_max) {
        target->run(bytes, size);
    }
    return 0;
}

static size_t mutate_bytes(uint8_t *bytes, size_t size, size_t capacity, struct fuzz_random *random)
{
    (void)random; /* libFuzzer has its own, and the comparisons that it has seen */
    return LLVMFuzzerMutate(bytes, size, capacity);
}

size_t LLVMFuzzerCustomMutator(uint8_t *bytes, size_t size, size_t capacity, unsigned int seed)
{
    struct fuzz_random random = {.state = seed};
    return fuzz_mutate(target, bytes, size, capacity, &random, mutate_bytes);
}
