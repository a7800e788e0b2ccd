/*
 * replay_plan.c - what a trace needs, and sizes for it where the command line gives none.
 *
 * Real state is large (an 8B model keeps 128 KiB a token: the agentic trace has a terabyte of it
 * open). A scale makes each plane smaller; the same number of planes, blocks, sessions, reads and
 * writes goes through the library. Without --scale the largest one is taken at which
 *
 *   the state of all open sessions fits USE of the store       (nothing need be dropped)
 *   what is filled and checked in all is at most WORK bytes    (it ends soon)
 *   the largest requests under way fit memory
 *
 * and without --memory a quarter of the open state is memory, so that spilling is needed.
 */
#include "replay.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define STORE_USE 0.6
#define WORK_BYTES (24ull << 30) /* about 20 s of two cores */
#define MEMORY_BYTES_MIN (64ull << 20)
#define MEMORY_BYTES_MAX (768ull << 20) /* two GiB machines keep room for the rest */
#define LARGEST_AT_ONCE 2.5             /* so many of the largest request fit memory */
#define SCALE_STEP 0.8
#define SCALE_MIN 1e-6

/* ---- what the trace has ---------------------------------------------------------------------- */

void replay_plan_make(struct replay *replay)
{
    struct replay_plan *const plan = &replay->plan;
    const struct trace *const trace = &replay->trace;
    uint64_t *const held = cli_alloc(trace->branch_count, sizeof(*held));
    uint64_t live = 0, branches = 0;

    for (uint32_t i = 0; i < replay->request_count; i++) {
        const struct trace_request *const request = &trace->requests[i];
        const uint64_t tokens = (uint64_t)request->tokens_in + request->tokens_out;
        const uint32_t shared =
            request->previous == TRACE_NONE ? 0 : trace_prefix(trace, request->previous, i);

        plan->tokens_all += tokens;
        plan->unique_blocks += request->block_count - shared;
        plan->largest_blocks = request->block_count > plan->largest_blocks ? request->block_count
                                                                           : plan->largest_blocks;
        if (tokens > plan->largest_tokens) {
            plan->largest_tokens = tokens;
            plan->largest_line = request->line;
        }
        branches += held[request->branch] == 0;
        live += tokens - held[request->branch];
        held[request->branch] = tokens;
        plan->live_tokens_max = live > plan->live_tokens_max ? live : plan->live_tokens_max;
        plan->branches_live_max =
            branches > plan->branches_live_max ? branches : plan->branches_live_max;
        if (request->next == TRACE_NONE) {
            live -= held[request->branch];
            held[request->branch] = 0;
            branches--;
        }
    }
    free(held);
}

/* ---- sizes ----------------------------------------------------------------------------------- */

struct need {       /* bytes at one scale */
    double open;    /* state of all open sessions, or of all blocks (cache face) */
    double work;    /* filled and checked in all */
    double largest; /* of one request */
};

static uint64_t fixed_bytes(const struct replay *replay, double scale)
{
    struct geometry geometry;
    if (geometry_make(&replay->preset, scale, (uint32_t)replay->options.block_tokens, &geometry) <
        0) {
        return 0;
    }
    const uint64_t bytes = geometry.fixed_bytes;
    geometry_free(&geometry);
    return bytes;
}

static struct need need_at(const struct replay *replay, double scale)
{
    const struct replay_plan *const plan = &replay->plan;
    const double token = (double)preset_token_bytes(&replay->preset, scale);
    const double fixed = (double)fixed_bytes(replay, scale);

    if (replay->face == &replay_cache_face) {
        const double block = token * replay->trace.block_tokens;
        return (struct need){.open = block * (double)plan->unique_blocks,
                             .work = token * (double)plan->tokens_all,
                             .largest = block * 4};
    }
    return (struct need){
        .open = token * (double)plan->live_tokens_max +
                fixed * PRESET_SNAPSHOTS_KEPT * (double)plan->branches_live_max,
        .work = token * (double)plan->tokens_all + fixed * 3 * replay->request_count,
        .largest = token * (double)plan->largest_tokens + fixed * PRESET_SNAPSHOTS_KEPT,
    };
}

static uint64_t memory_for(const struct replay *replay, const struct need *need)
{
    const double quarter = need->open / 4, largest = need->largest * LARGEST_AT_ONCE;
    double bytes = quarter > largest ? quarter : largest;

    if (replay->options.memory_bytes > 0) {
        return replay->options.memory_bytes;
    }
    bytes = bytes < (double)MEMORY_BYTES_MIN ? (double)MEMORY_BYTES_MIN : bytes;
    bytes = bytes > (double)MEMORY_BYTES_MAX ? (double)MEMORY_BYTES_MAX : bytes;
    return (uint64_t)bytes & ~((1ull << 20) - 1);
}

static bool scale_fits(const struct replay *replay, double scale)
{
    const struct need need = need_at(replay, scale);
    const double memory = (double)memory_for(replay, &need);

    return need.open <= (double)replay->options.store_bytes * STORE_USE &&
           need.work <= (double)WORK_BYTES && need.largest * LARGEST_AT_ONCE <= memory;
}

int replay_plan_sizes(struct replay *replay)
{
    struct replay_options *const options = &replay->options;
    double scale = options->scale;

    for (scale = scale > 0 ? scale : 1;
         options->scale == 0 && scale > SCALE_MIN && !scale_fits(replay, scale);) {
        scale *= SCALE_STEP;
    }
    options->scale = scale;
    const struct need need = need_at(replay, scale);
    options->memory_bytes = memory_for(replay, &need);
    if (need.largest * 1.1 > (double)options->memory_bytes) {
        char mend[160];
        (void)snprintf(mend, sizeof(mend), "give --memory %s or more, or a smaller --scale",
                       cli_bytes_text((uint64_t)(need.largest * 1.25)).text);
        return cli_usage(mend,
                         "request %u of %s has %s tokens, %s of state, more than %s of memory",
                         replay->plan.largest_line, options->trace_path,
                         cli_count_text(replay->plan.largest_tokens).text,
                         cli_bytes_text((uint64_t)need.largest).text,
                         cli_bytes_text(options->memory_bytes).text);
    }
    return CLI_OK;
}
