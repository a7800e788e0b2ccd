/*
 * error.c - texts of error codes, and the version. Both are constant: any thread, any time.
 */
#include <errno.h>
#include <stddef.h>
#include <string.h>

#include "abode/abode.h"

/* Every code is outside the kernel's range, which ends at 4095: one int can carry both. */
#define X(name, value, text) _Static_assert((value) > 4095, #name " collides with errno");
ABODE_ERRORS(X)
#undef X

const char *abode_strerror(int code)
{
    /* through unsigned: -INT_MIN is not an int */
    const unsigned value = code < 0 ? 0u - (unsigned)code : (unsigned)code;
    switch (value) {
    case 0:
        return "success";
#define X(name, number, text) \
    case number:              \
        return text;
        ABODE_ERRORS(X)
#undef X
    default:
        break;
    }
    /* Untranslated and static: strerror() may use a buffer that another thread is writing. */
    const char *text = value <= 4095u ? strerrordesc_np((int)value) : NULL;
    return text != NULL ? text : "unknown error";
}

uint32_t abode_version(void)
{
    return (uint32_t)ABODE_VERSION_MAJOR << 16 | (uint32_t)ABODE_VERSION_MINOR << 8 |
           (uint32_t)ABODE_VERSION_PATCH;
}
