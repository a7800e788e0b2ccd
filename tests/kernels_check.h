/*
 * kernels_check.h - compares one table of kernels with the scalar one. Plain C and libc only, so
 * that it also runs where nothing else is installed (another CPU in emulation).
 *
 * Each check returns NULL, or what went wrong first, in a static buffer. Single-threaded.
 */
#ifndef AB_TESTS_KERNELS_CHECK_H
#define AB_TESTS_KERNELS_CHECK_H

#include <stdint.h>

#include "kernels/kernels.h"

struct kernels_check {
    const char *name;
    const char *(*run)(const struct ab_kernels *kernels, uint64_t seed);
};
extern const struct kernels_check kernels_checks[];
extern const uint32_t kernels_check_count;

#endif
