/*
 * ffi.c - linkable copies of the header's inline functions, for hosts that are not C.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define ABODE_INLINE __attribute__((visibility("default")))
#pragma GCC diagnostic ignored "-Wmissing-prototypes"
#include <abode/abode.h>
