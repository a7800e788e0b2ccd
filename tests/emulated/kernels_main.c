/*
 * kernels_main.c - the kernels' checks as a program of its own, for a CPU that is emulated: statically
 * linked, libc only. tests/unit/test_kernels.c runs it and reads its exit status.
 *
 *     kernels_main TABLE [SEED]     0: all checks passed; 1: one failed (says which);
 *                                   77: this CPU or build has no such table
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "kernels_check.h"

#define EXIT_SKIPPED 77

int main(int argc, char **argv)
{
    const char *name = argc > 1 ? argv[1] : "scalar";
    const uint64_t seed = argc > 2 ? strtoull(argv[2], NULL, 0) : 1;
    const struct ab_kernels *kernels = ab_kernels_by_name(name);
    if (kernels == NULL) {
        (void)printf("SKIP: this CPU or build has no \"%s\"\n", name);
        return EXIT_SKIPPED;
    }
    for (uint32_t i = 0; i < kernels_check_count; i++) {
        const char *failed = kernels_checks[i].run(kernels, seed);
        if (failed != NULL) {
            (void)printf("%s: %s: %s (seed %" PRIu64 ")\n", name, kernels_checks[i].name, failed,
                         seed);
            return EXIT_FAILURE;
        }
        (void)printf("%s: %s passed\n", name, kernels_checks[i].name);
        (void)fflush(stdout);
    }
    return EXIT_SUCCESS;
}
