/*
 * kernels.c - which table this CPU and its operating system can run.
 *
 * On x86-64 three parties must agree before a vector instruction is legal: the CPU has it (CPUID 7),
 * the operating system uses XSAVE (CPUID 1, OSXSAVE), and it saves the registers concerned (XCR0,
 * read by XGETBV): XMM and YMM for AVX2, and for AVX-512 the masks and both halves of ZMM too. The
 * answer never changes, but it is not kept: asking is some hundred cycles (thousands in a virtual
 * machine, where CPUID traps), and is done once at open. So there is no state here.
 * Any thread.
 */
#include "kernels/kernels_isa.h"

#include <stdbool.h>
#include <string.h>

#if defined(__x86_64__)
#include <cpuid.h>

#define CPUID_1_ECX_OSXSAVE (1u << 27)
#define CPUID_7_EBX_AVX2 (1u << 5)
#define CPUID_7_EBX_BMI2 (1u << 8)
#define CPUID_7_EBX_AVX512 ((1u << 16) | (1u << 17) | (1u << 30) | (1u << 31)) /* F DQ BW VL */
#define XCR0_YMM 0x06u /* XMM and the upper halves of YMM */
#define XCR0_ZMM 0xe6u /* and masks, upper halves of ZMM0-15, ZMM16-31 */

static unsigned int registers_saved(void)
{
    unsigned int a, b, c, d;
    if (__get_cpuid(1, &a, &b, &c, &d) == 0 || (c & CPUID_1_ECX_OSXSAVE) == 0) {
        return 0;
    }
    unsigned int low, high;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return low;
}

static bool cpu_has(unsigned int features, unsigned int registers)
{
    unsigned int a, b, c, d;
    if (__get_cpuid_count(7, 0, &a, &b, &c, &d) == 0 || (b & features) != features) {
        return false;
    }
    return (registers_saved() & registers) == registers;
}

static bool cpu_has_avx2(void)
{
    return cpu_has(CPUID_7_EBX_AVX2 | CPUID_7_EBX_BMI2, XCR0_YMM);
}

static bool cpu_has_avx512(void)
{
    return cpu_has(CPUID_7_EBX_AVX2 | CPUID_7_EBX_BMI2 | CPUID_7_EBX_AVX512, XCR0_ZMM);
}
#endif

const struct ab_kernels *ab_kernels_best(void)
{
#if defined(__x86_64__)
    if (cpu_has_avx512()) {
        return ab_kernels_avx512();
    }
    if (cpu_has_avx2()) {
        return ab_kernels_avx2();
    }
#elif defined(__aarch64__)
    return ab_kernels_neon();
#endif
    return ab_kernels_scalar();
}

const struct ab_kernels *ab_kernels_by_name(const char *name)
{
    if (strcmp(name, "scalar") == 0) {
        return ab_kernels_scalar();
    }
#if defined(__x86_64__)
    if (strcmp(name, "avx2") == 0) {
        return cpu_has_avx2() ? ab_kernels_avx2() : NULL;
    }
    if (strcmp(name, "avx512") == 0) {
        return cpu_has_avx512() ? ab_kernels_avx512() : NULL;
    }
#elif defined(__aarch64__)
    if (strcmp(name, "neon") == 0) {
        return ab_kernels_neon();
    }
#endif
    return NULL;
}
