/*
 * clock_jump.h - a `struct ab_os` whose clocks another process moves: it lies in shared memory.
 */
#ifndef CRASH_CLOCK_JUMP_H
#define CRASH_CLOCK_JUMP_H

#include <stdatomic.h>

#include "base/os.h"

struct clock_jump {
    _Atomic uint64_t forward_ns; /* added to CLOCK_MONOTONIC */
    _Atomic uint64_t stalled_ns; /* what CLOCK_MONOTONIC shows while it stands still; 0: it runs */
    _Atomic int64_t wall_ns;     /* added to CLOCK_REALTIME */
};

/* The default table, with these clocks. */
void clock_jump_os(struct clock_jump *clock, struct ab_os *ret);
/* What the table shows now. */
uint64_t clock_jump_now(const struct clock_jump *clock);

#endif
