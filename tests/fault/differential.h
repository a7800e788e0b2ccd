/*
 * differential.h - seeded random operations whose every answer goes into a digest.
 *
 * Two runs with one seed must end with the same digest, whatever engine moves the bytes and
 * whatever the kernel refuses: only where and how fast may differ. So the digest takes statuses,
 * counts and contents, and nothing that depends on timing or place (what is resident, which node).
 * Memory is ample: what can be refused for lack of it depends on timing.
 */
#ifndef FAULT_DIFFERENTIAL_H
#define FAULT_DIFFERENTIAL_H

#include "live.h"

struct differential_plan {
    const char *path;
    uint32_t io; /* enum abode_io */
    uint64_t seed;
    uint32_t step_count;
};
struct differential_result {
    uint64_t digest;
    uint32_t digests[64]; /* after each 1/64 of the steps: where two runs parted */
    int32_t engine, engine_reason, fixed_buffers, fixed_buffers_reason, direct_io, direct_io_reason,
        node_binding, node_binding_reason;
    char engine_text[256], fixed_buffers_text[256], direct_io_text[256], node_binding_text[256];
    uint32_t places, places_verified;
    uint64_t bytes_compared;
    char why[LIVE_WHY_MAX * 2]; /* of the first thing that is wrong in itself */
};
/* 0, or negative: something was wrong, ret->why says what. */
int differential_run(const struct differential_plan *plan, struct differential_result *ret);

#endif
