/*
 * test_engines.c - io_uring, the thread pool and sync give the same answers.
 *
 * Goal: which engine moves the bytes shows in no status, count or byte. Method: the same seeded
 * random operations (differential.h) on a store of its own for each engine; digests must agree.
 * Where io_uring is refused on this machine, its run is skipped, and said.
 *
 * test_engines [--seed N] [--steps N]; ABODE_LONG=1: more steps
 */
#include <stdio.h>
#include <stdlib.h>

#include "fault/differential.h"

#define STEPS_DEFAULT 1500u
#define STEPS_LONG 60000u

int main(int argc, char **argv)
{
    static const char *const names[] = {"auto", "io_uring", "threads", "sync"};
    static struct differential_result results[ABODE_IO_SYNC + 1];
    uint64_t seed = live_seed(argc, argv);
    uint32_t steps = (uint32_t)live_option(
        argc, argv, "--steps", getenv("ABODE_LONG") != NULL ? STEPS_LONG : STEPS_DEFAULT);
    int passed = 0, failed = 0, skipped = 0;

    printf("seed %llu, steps %u\n", (unsigned long long)seed, steps);
    for (uint32_t io = ABODE_IO_SYNC; io >= ABODE_IO_URING; io--) {
        struct differential_result *result = &results[io];
        struct differential_plan plan = {.io = io, .seed = seed, .step_count = steps};
        char path[256];
        int rc = live_directory_make(path, sizeof(path));

        plan.path = path;
        rc = rc < 0 ? rc : differential_run(&plan, result);
        live_directory_remove(path);
        if (rc < 0) {
            printf("FAIL %s: %s\n", names[io], result->why);
            failed++;
        } else if (result->engine != (int32_t)io) {
            printf("SKIP: %s is refused here: %s\n", names[io], result->engine_text);
            skipped++;
        } else if (result->digest != results[ABODE_IO_SYNC].digest) {
            uint32_t part = 0;

            while (part < 63 && result->digests[part] == results[ABODE_IO_SYNC].digests[part]) {
                part++;
            }
            printf("FAIL %s: other answers than sync, first in steps %u to %u\n", names[io],
                   part * steps / 64, (part + 1) * steps / 64);
            failed++;
        } else {
            printf("%s: digest %llx, %llu bytes compared\n", names[io],
                   (unsigned long long)result->digest, (unsigned long long)result->bytes_compared);
            passed++;
        }
    }
    printf("%d passed, %d failed, %d skipped\n", passed, failed, skipped);
    return failed == 0 ? 0 : 1;
}
