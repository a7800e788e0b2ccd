/*
 * kernels_isa.h - which tables a build has; between the files of this folder only.
 *
 * Each function is in the file of its name and gives the table whether or not this CPU can run it:
 * kernels.c asks the CPU first.
 */
#ifndef AB_KERNELS_ISA_H
#define AB_KERNELS_ISA_H

#include "kernels/kernels.h"

#if defined(__x86_64__)
const struct ab_kernels *ab_kernels_avx2(void);
const struct ab_kernels *ab_kernels_avx512(void);
#elif defined(__aarch64__)
const struct ab_kernels *ab_kernels_neon(void);
#endif

#endif
