/*
 * log.h - lines for the host's log callback. Never called with a lock held; never blocks on I/O of
 * ours; a NULL sink drops the line.
 */
#ifndef AB_BASE_LOG_H
#define AB_BASE_LOG_H

#include "base/check.h"

enum ab_log_level { AB_LOG_ERROR = 1, AB_LOG_WARNING, AB_LOG_INFO };

struct ab_log {
    void (*write)(void *context, int level, const char *line);
    void *context;
};

/* One line of at most 1,023 bytes, longer ones are cut. */
void ab_log(const struct ab_log *log, enum ab_log_level level, const char *format, ...)
    AB_PRINTF(3, 4);

#endif
