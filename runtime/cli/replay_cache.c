/*
 * replay_cache.c - a request on the cache face, as a server that owns its sessions would use it.
 *
 *   PROBE   how many leading blocks are there
 *   GET     a batch of them into the host's memory      CHECK  every byte of the batch
 *   ..      again, until the leading ones are through or one is missing after all
 *   FILL    a batch of the blocks that were not there   PUT    write it; again until all are
 *
 * An item is one block of the trace: its key chains over all blocks before it, its bytes are those
 * of all paged and window planes of its tokens. Replies are not put: the trace gives them blocks
 * only when the next request brings them.
 */
#include "replay.h"

#include "content.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define ARENA_BYTES_MAX (64ull << 20) /* of one slot */
#define ITEM_ALIGN 4096u
#define ITEM_COMPONENT 0xcac4eu /* names the streams of items apart from those of rows */

enum phase {
    PHASE_PROBE = 0,
    PHASE_GET,
    PHASE_GETTING,
    PHASE_CHECK,
    PHASE_FILL,
    PHASE_PUTTING,
    PHASE_HOLD,
};

static uint32_t block_count(const struct replay *replay, const struct replay_slot *slot)
{
    return replay->trace.requests[slot->request].block_count;
}

/* ---- PROBE ----------------------------------------------------------------------------------- */

static int keys_make(struct replay *replay, struct replay_slot *slot)
{
    const uint32_t count = block_count(replay, slot);
    const struct abode_key *parent = &replay->root_key;

    if (count > slot->key_capacity) {
        free(slot->keys);
        free(slot->presence);
        slot->keys = malloc(count * sizeof(*slot->keys));
        slot->presence = malloc(count);
        slot->key_capacity = slot->keys == NULL || slot->presence == NULL ? 0 : count;
    }
    if (count > slot->key_capacity) {
        return -ENOMEM;
    }
    for (uint32_t i = 0; i < count; i++) {
        const uint32_t words[2] = {(uint32_t)slot->wanted[i], (uint32_t)(slot->wanted[i] >> 32)};
        abode_key_next(parent, words, 2, &slot->keys[i]);
        parent = &slot->keys[i];
    }
    return 0;
}

static int probe_step(struct replay *replay, struct replay_slot *slot)
{
    const uint32_t count = block_count(replay, slot);
    uint32_t stored = 0;

    const uint64_t begin = cli_now_ns();
    const int leading = count == 0 ? 0
                                   : abode_cache_probe(replay->runtime, replay->model, slot->keys,
                                                       count, slot->presence);
    replay_called(replay, begin);
    if (leading < 0) {
        return leading;
    }
    for (int i = 0; i < leading; i++) {
        stored += slot->presence[i] == ABODE_STORED;
    }
    slot->target = (uint64_t)leading;
    slot->position = 0;
    slot->store_share = leading == 0 ? 0 : (double)stored / leading;
    slot->expected = (uint64_t)slot->blocks_known * replay->trace.block_tokens;
    slot->phase = PHASE_GET;
    return 0;
}

/* ---- GET, CHECK ------------------------------------------------------------------------------ */

/* Items position .. position + batch - 1, side by side in the slot's arena. */
static void batch_make(struct replay *replay, struct replay_slot *slot, uint64_t end)
{
    const uint64_t left = end - slot->position;
    const uint64_t base = (uint64_t)(slot->arena - replay->arena);

    slot->batch = left < replay->items_max ? (uint32_t)left : replay->items_max;
    for (uint32_t i = 0; i < slot->batch; i++) {
        slot->items[i] = (struct abode_item){.key = slot->keys[slot->position + i],
                                             .offset = base + i * replay->item_stride,
                                             .bytes = replay->item_bytes,
                                             .region = replay->region};
    }
}

static void reads_done(struct replay *replay, struct replay_slot *slot)
{
    const uint64_t tokens = slot->position * replay->trace.block_tokens;

    replay_reuse_count(replay, slot, tokens);
    slot->phase = PHASE_FILL;
    slot->part = 0;
}

static int get_step(struct replay *replay, struct replay_slot *slot)
{
    uint64_t stored = 0;

    if (slot->position == slot->target) {
        reads_done(replay, slot);
        return 0;
    }
    batch_make(replay, slot, slot->target);
    for (uint32_t i = 0; i < slot->batch; i++) {
        stored += slot->presence[slot->position + i] == ABODE_STORED;
    }
    slot->op = (struct abode_op){.user_data = slot};
    slot->submitted_ns = cli_now_ns();
    const int rc =
        abode_cache_get(replay->queue, replay->model, slot->items, slot->batch, &slot->op);
    replay_called(replay, slot->submitted_ns);
    if (rc < 0) {
        return replay_slot_block(replay, slot, rc);
    }
    slot->phase = PHASE_GETTING;
    slot->stored_bytes = stored * replay->item_bytes;
    replay_slot_submitted(replay, slot, true, stored > 0);
    return 0;
}

/* Items that came; from the first that did not, all are misses. */
static int got_step(struct replay *replay, struct replay_slot *slot)
{
    uint32_t good = 0;

    if (slot->op.status < 0 && slot->op.status != -ABODE_EPARTIAL) {
        return slot->op.status;
    }
    while (good < slot->batch && slot->items[good].status == 0) {
        if (slot->items[good].bytes != replay->item_bytes) {
            return replay_fail(replay, slot, -EIO, "a get gave an item of another size");
        }
        good++;
    }
    replay_read_count(replay, slot, slot->stored_bytes);
    replay->figures.attaches++;
    replay->figures.attaches_partial += good < slot->batch;
    slot->target = good < slot->batch ? slot->position + good : slot->target;
    slot->batch = good;
    slot->part = 0;
    slot->phase = PHASE_CHECK;
    return 0;
}

static uint64_t item_seed(const struct replay_slot *slot, uint64_t block)
{
    return content_seed(slot->wanted[block], ITEM_COMPONENT, 0);
}

static int check_step(struct replay *replay, struct replay_slot *slot)
{
    const uint64_t begin = replay_thread_cpu_ns();
    uint64_t done = 0;

    for (; slot->part < slot->batch && done < REPLAY_SLICE_BYTES; slot->part++) {
        const uint64_t block = slot->position + slot->part;
        const bool sampled = (block + slot->request) % REPLAY_SAMPLE_EVERY == 0;
        if (replay->options.verify == REPLAY_VERIFY_ALL ||
            (replay->options.verify == REPLAY_VERIFY_SAMPLE && sampled)) {
            (void)replay_bytes_check(replay, slot->arena + slot->part * replay->item_stride,
                                     item_seed(slot, block), replay->item_bytes, "cache item");
            done += replay->item_bytes;
        }
    }
    replay->figures.content_ns += replay_thread_cpu_ns() - begin;
    if (slot->part == slot->batch) {
        slot->position += slot->batch;
        slot->phase = PHASE_GET;
    }
    return 0;
}

/* ---- FILL, PUT ------------------------------------------------------------------------------- */

static int put_submit(struct replay *replay, struct replay_slot *slot)
{
    slot->op = (struct abode_op){.user_data = slot};
    slot->submitted_ns = cli_now_ns();
    const int rc = abode_cache_put(replay->queue, replay->model, slot->items, slot->batch,
                                   (uint32_t)replay->options.durability, &slot->op);
    replay_called(replay, slot->submitted_ns);
    if (rc < 0) {
        return replay_slot_block(replay, slot, rc);
    }
    slot->phase = PHASE_PUTTING;
    replay_slot_submitted(replay, slot, false, false);
    return 0;
}

static int fill_step(struct replay *replay, struct replay_slot *slot)
{
    const uint64_t begin = replay_thread_cpu_ns();
    uint64_t done = 0;

    if (slot->position == block_count(replay, slot)) {
        slot->phase = PHASE_HOLD;
        return 0;
    }
    if (slot->part == 0) {
        batch_make(replay, slot, block_count(replay, slot));
    }
    for (; slot->part < slot->batch && done < REPLAY_SLICE_BYTES; slot->part++) {
        replay_bytes_fill(replay, slot->arena + slot->part * replay->item_stride,
                          item_seed(slot, slot->position + slot->part), replay->item_bytes);
        done += replay->item_bytes;
    }
    replay->figures.content_ns += replay_thread_cpu_ns() - begin;
    return slot->part == slot->batch ? put_submit(replay, slot) : 0;
}

static int put_step(struct replay *replay, struct replay_slot *slot)
{
    uint32_t failed = 0;

    for (uint32_t i = 0; i < slot->batch && slot->op.status < 0; i++) {
        if (slot->items[i].status < 0) {
            failed++;
            replay->figures.last_write_error = slot->items[i].status;
        }
    }
    if (slot->op.status < 0 && failed == 0) {
        failed = slot->batch;
        replay->figures.last_write_error = slot->op.status;
    }
    replay->figures.writes_failed += failed;
    slot->position += slot->batch;
    slot->part = 0;
    slot->phase = PHASE_FILL;
    return 0;
}

static int hold_step(struct replay *replay, struct replay_slot *slot)
{
    const struct trace_request *const request = &replay->trace.requests[slot->request];

    if (slot->state != REPLAY_HOLDING && replay->options.speed > 0 && request->busy_s > 0) {
        slot->due_ns = cli_now_ns() + (uint64_t)(request->busy_s / replay->options.speed * 1e9);
        slot->state = REPLAY_HOLDING;
        return 0;
    }
    replay_slot_finished(replay, slot);
    return 0;
}

/* ---- the face -------------------------------------------------------------------------------- */

static int cache_start(struct replay *replay, struct replay_slot *slot)
{
    slot->phase = PHASE_PROBE;
    slot->had = 0;
    const int rc = replay_wanted_make(replay, slot);
    return rc < 0 ? rc : keys_make(replay, slot);
}

static int cache_step(struct replay *replay, struct replay_slot *slot)
{
    static int (*const steps[])(struct replay *, struct replay_slot *) = {
        [PHASE_PROBE] = probe_step, [PHASE_GET] = get_step,   [PHASE_GETTING] = got_step,
        [PHASE_CHECK] = check_step, [PHASE_FILL] = fill_step, [PHASE_PUTTING] = put_step,
        [PHASE_HOLD] = hold_step,
    };
    return steps[slot->phase](replay, slot);
}

static int cache_open(struct replay *replay)
{
    const uint64_t most = (uint64_t)replay->plan.largest_blocks * replay->item_stride;
    const uint64_t room = most < ARENA_BYTES_MAX ? most : ARENA_BYTES_MAX;
    const uint64_t items = room / replay->item_stride;

    replay->items_max = items == 0 ? 1 : (uint32_t)items;
    const uint64_t slot_bytes = replay->items_max * replay->item_stride;
    replay->arena_bytes = slot_bytes * replay->slot_count;
    replay->arena =
        mmap(NULL, replay->arena_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (replay->arena == MAP_FAILED) {
        replay->arena = NULL;
        return -errno;
    }
    (void)madvise(replay->arena, replay->arena_bytes, MADV_HUGEPAGE);
    for (uint32_t i = 0; i < replay->slot_count; i++) {
        replay->slots[i].arena = replay->arena + i * slot_bytes;
        replay->slots[i].items = cli_alloc(replay->items_max, sizeof(struct abode_item));
    }
    const struct abode_region region = {.struct_size = sizeof(region),
                                        .memory = ABODE_HOST,
                                        .node = -1,
                                        .base = replay->arena,
                                        .bytes = replay->arena_bytes};
    return abode_region_add(replay->runtime, &region, &replay->region);
}

static void cache_close(struct replay *replay)
{
    if (replay->arena != NULL) {
        const int rc = abode_region_remove(replay->runtime, replay->region);
        if (rc < 0 && rc != -ENOENT) { /* -ENOENT: adding it had failed */
            (void)cli_fail(rc, NULL, "giving back the host's memory");
        }
        (void)munmap(replay->arena, replay->arena_bytes);
        replay->arena = NULL;
    }
}

const struct replay_face_ops replay_cache_face = {
    .name = "cache",
    .open = cache_open,
    .close = cache_close,
    .start = cache_start,
    .step = cache_step,
};
