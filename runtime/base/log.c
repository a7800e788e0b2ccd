/*
 * log.c - one line to the host's sink. The line is built on the stack: no allocation, no lock, so
 * any thread may log at any time, but not while it holds a lock (the sink is host code).
 */
#include "base/log.h"

#include <stdarg.h>
#include <stdio.h>

#include "base/lock.h"

#define LINE_BYTES_MAX 1024

void ab_log(const struct ab_log *log, enum ab_log_level level, const char *format, ...)
{
    if (log == NULL || log->write == NULL) {
        return;
    }
    AB_ASSERT_DEBUG(ab_lock_none_held());
    char line[LINE_BYTES_MAX];
    va_list arguments;
    va_start(arguments, format);
    const int length = vsnprintf(line, sizeof(line), format, arguments);
    va_end(arguments);
    if (length < 0) { /* a conversion failed; the format itself still tells the place */
        log->write(log->context, (int)level, format);
        return;
    }
    log->write(log->context, (int)level, line);
}
