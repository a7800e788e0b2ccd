/*
 * replay_memory.c - how the memory for state is divided between the components of a model.
 *
 * abode divides it by what a typical session keeps. A host knows more: how many requests are under
 * way at once, and what each of them pins meanwhile. Of a WINDOW component that is
 *
 *   the window that the attach brought back, which the committed record needs until the detach
 *   the window at the end of what is appended, and the rows that are being appended
 *   one more for each restore point that is kept, where the model has them
 *
 * Without so many frames requests under way would wait for each other for ever. PAGED rows are the
 * bulk: the largest request must fit alone, and the loop admits others as far as they fit.
 */
#include "replay.h"

#include <stdio.h>

#define PAGE_BYTES 4096u
#define NODES_MAX 8           /* a share is cut down to whole frames on each node */
#define POINTS_OF_A_REQUEST 3 /* at the prompt's end, at the reply's, and one being written */

struct claim {      /* of one component, in bytes */
    double pinned;  /* by all requests under way, at most; PAGED: by the largest one */
    double typical; /* what a typical session keeps */
};

static bool part_has_rows(const struct preset_part *part)
{
    return part->kind == ABODE_PAGED || part->kind == ABODE_WINDOW;
}

/* Rows that a window touches, wherever it lies. */
static uint64_t window_rows(const struct replay *replay, const struct preset_part *part)
{
    return part->window_tokens / replay->geometry.block_tokens + 2;
}

uint32_t replay_append_rows_max(const struct replay *replay)
{
    uint64_t rows = UINT32_MAX;

    for (uint32_t i = 0; i < replay->geometry.part_count; i++) {
        const struct preset_part *const part = &replay->geometry.parts[i];
        if (part->kind == ABODE_WINDOW && window_rows(replay, part) < rows) {
            rows = window_rows(replay, part);
        }
    }
    return (uint32_t)rows;
}

static struct claim claim_of(const struct replay *replay, const struct preset_part *part)
{
    const struct geometry *const geometry = &replay->geometry;
    const uint64_t length = geometry->block_tokens;
    const uint64_t typical = replay->plan.tokens_all / replay->request_count / length + 2;
    const uint64_t largest = replay->plan.largest_tokens / length + 2;
    const uint64_t points = PRESET_SNAPSHOTS_KEPT + POINTS_OF_A_REQUEST;
    const uint64_t block =
        (uint64_t)part->plane_count * part->plane_bytes * (part_has_rows(part) ? length : 1);
    const uint64_t frame = (block + PAGE_BYTES - 1) / PAGE_BYTES * PAGE_BYTES;
    uint64_t pinned = points * replay->slot_count, kept = PRESET_SNAPSHOTS_KEPT + 1;

    if (part->kind == ABODE_PAGED) {
        pinned = largest;
        kept = typical;
    } else if (part->kind == ABODE_WINDOW) {
        const uint64_t window = window_rows(replay, part);
        const uint64_t windows = geometry->fixed_bytes > 0 ? points + 1 : 3;
        const uint64_t rows = window * windows < largest ? window * windows : largest;
        pinned = rows * replay->slot_count;
        kept = window < typical ? window : typical;
    }
    return (struct claim){.pinned = (double)((pinned + NODES_MAX) * frame),
                          .typical = (double)(kept * frame)};
}

/* What a component without a wish gets: abode shares out the rest by typical sessions. */
static double share_of(const struct replay *replay, const struct claim *claims, uint32_t part)
{
    double left = (double)replay->options.memory_bytes, typical = 0;

    for (uint32_t i = 0; i < replay->geometry.part_count; i++) {
        const uint64_t wish = replay->geometry.components[i].memory_bytes;
        left -= (double)wish;
        typical += wish == 0 ? claims[i].typical : 0;
    }
    return left * claims[part].typical / typical;
}

static int memory_refuse(const struct replay *replay, double needed)
{
    char mend[160];

    (void)snprintf(mend, sizeof(mend),
                   "give --memory %s or more, a smaller --scale, or fewer --inflight",
                   cli_bytes_text((uint64_t)(needed * 1.1)).text);
    return cli_usage(
        mend, "%u requests at once of %s hold up to %s of state, more than %s of memory",
        replay->slot_count, replay->options.model, cli_bytes_text((uint64_t)needed).text,
        cli_bytes_text(replay->options.memory_bytes).text);
}

int replay_memory_share(struct replay *replay)
{
    const uint32_t count = replay->geometry.part_count;
    struct claim claims[PRESET_PARTS_MAX];
    uint32_t bulk = 0; /* the largest one takes what the others leave */
    double needed = 0;

    for (uint32_t i = 0; i < count; i++) {
        claims[i] = claim_of(replay, &replay->geometry.parts[i]);
        needed += claims[i].pinned;
        bulk = claims[i].typical > claims[bulk].typical ? i : bulk;
    }
    if (needed > (double)replay->options.memory_bytes) {
        return memory_refuse(replay, needed);
    }
    for (uint32_t round = 0; round < count; round++) { /* a wish makes the other shares smaller */
        for (uint32_t i = 0; i < count; i++) {
            if (i != bulk && replay->geometry.components[i].memory_bytes == 0 &&
                share_of(replay, claims, i) < claims[i].pinned) {
                replay->geometry.components[i].memory_bytes = (uint64_t)claims[i].pinned;
            }
        }
    }
    if (share_of(replay, claims, bulk) < claims[bulk].pinned) {
        return memory_refuse(replay, needed * claims[bulk].pinned / share_of(replay, claims, bulk));
    }
    return CLI_OK;
}
