/* clock_jump.c - see clock_jump.h. */
#include "crash/clock_jump.h"

uint64_t clock_jump_now(const struct clock_jump *clock)
{
    const struct ab_os *os = ab_os_default();
    uint64_t stalled_ns = atomic_load(&clock->stalled_ns);

    return stalled_ns != 0 ? stalled_ns : os->clock_ns(os) + atomic_load(&clock->forward_ns);
}

static uint64_t jump_clock_ns(const struct ab_os *os)
{
    return clock_jump_now(os->context);
}

static uint64_t jump_wall_clock_ns(const struct ab_os *os)
{
    const struct clock_jump *clock = os->context;

    return ab_os_default()->wall_clock_ns(ab_os_default()) + (uint64_t)atomic_load(&clock->wall_ns);
}

void clock_jump_os(struct clock_jump *clock, struct ab_os *ret)
{
    *ret = *ab_os_default();
    ret->context = clock;
    ret->clock_ns = jump_clock_ns;
    ret->wall_clock_ns = jump_wall_clock_ns;
}
