/*
 * scrub.c - read what the store holds, a little all the time, so that damage is found before a host
 * comes for the state.
 *
 *   every SLICE_NS: START -> read one block into a buffer of its own, at the priority of scrubbing ->
 *   checksum (service.c) -> next, until the slice's share of scrub_bytes_per_second is used -> DONE
 *
 * Blocks in the order of the table, round after round. One that fails is quarantined
 * (AB_BLOCK_BAD: ab_move_done), counted and logged. Blocks that are in memory too are left out: their
 * frames are good, and they come around again once these are gone. Lock KV held.
 */
#include "base/num.h"
#include "kv/session.h"
#include "kv/transfer.h"

#define SLICE_NS (100ull * 1000 * 1000)
#define SECOND_NS (1000ull * 1000 * 1000)
#define BLOCKS_PER_STEP 4096u /* of the table, looked at per hold of the lock */

static bool is_due(const struct ab_block *block)
{
    const uint32_t busy = AB_BLOCK_MOVING | AB_BLOCK_BAD | AB_BLOCK_PENDING;
    return (block->flags & (AB_BLOCK_USED | busy)) == AB_BLOCK_USED && ab_block_is_stored(block) &&
           block->frame == AB_INDEX_NONE;
}

/* The next block to read; AB_INDEX_NONE: none among those that this step looked at. */
static uint32_t block_next(struct ab_kv *kv, struct ab_scrub *scrub)
{
    for (uint32_t i = 0; i < BLOCKS_PER_STEP && scrub->at < kv->block_high; i++) {
        const uint32_t index = scrub->at++;
        if (is_due(&kv->blocks[index])) {
            return index;
        }
    }
    return AB_INDEX_NONE;
}

static bool buffer_fits(struct ab_kv *kv, struct ab_scrub *scrub, uint64_t bytes)
{
    if (scrub->capacity < bytes) {
        kv->os->free(kv->os, scrub->buffer);
        scrub->buffer = kv->os->alloc(kv->os, bytes, AB_PAGE);
        scrub->capacity = scrub->buffer == NULL ? 0 : bytes;
    }
    return scrub->capacity >= bytes;
}

static bool block_read(struct ab_task *task, uint32_t index)
{
    struct ab_kv *kv = task->kv;
    struct ab_scrub *scrub = &kv->transfer->scrub;
    const uint64_t bytes = ab_align_up(kv->blocks[index].bytes, AB_PAGE);
    struct ab_move *move =
        buffer_fits(kv, scrub, bytes) ? ab_move_new(kv, task, AB_MOVE_RESTORE, index) : NULL;
    if (move == NULL) {
        return false;
    }
    move->address = scrub->buffer;
    ab_list_remove(&task->link);
    ab_move_send(kv, move);
    scrub->slice_bytes += bytes;
    return true;
}

static void scrub_end(struct ab_task *task)
{
    task->kv->transfer->scrub.running = false;
    ab_task_finish(task, 0);
}

void ab_scrub_step(struct ab_task *task)
{
    struct ab_kv *kv = task->kv;
    struct ab_scrub *scrub = &kv->transfer->scrub;
    const uint64_t share = scrub->bytes_per_second * SLICE_NS / SECOND_NS;
    if (task->pending > 0) {
        ab_list_remove(&task->link); /* the move makes it runnable */
        return;
    }
    const bool over = scrub->slice_bytes >= AB_MAX(share, 1u) || kv->closing;
    const uint32_t index = over ? AB_INDEX_NONE : block_next(kv, scrub);
    if (index != AB_INDEX_NONE && block_read(task, index)) {
        return;
    }
    if (!over && index == AB_INDEX_NONE && scrub->at < kv->block_high) {
        ab_task_runnable(task);
        return;
    }
    if (scrub->at >= kv->block_high) {
        scrub->at = 0;
        atomic_fetch_add_explicit(&kv->counters.scrub_rounds, 1, memory_order_relaxed);
    }
    scrub_end(task);
}

void ab_scrub_move_done(struct ab_kv *kv, const struct ab_move *move)
{
    const struct ab_block *block = &kv->blocks[move->block];
    atomic_fetch_add_explicit(&kv->counters.bytes_scrubbed, move->bytes, memory_order_relaxed);
    if ((block->flags & AB_BLOCK_BAD) != 0) {
        kv->transfer->scrub.found++; /* told by ab_scrub_tell: not with the lock held */
    }
}

void ab_scrub_start(struct ab_kv *kv)
{
    struct ab_scrub *scrub = &kv->transfer->scrub;
    if (scrub->bytes_per_second == 0 || scrub->running || kv->closing || kv->block_stored == 0) {
        return;
    }
    const uint64_t now = kv->os->clock_ns(kv->os);
    if (now < scrub->next_ns) {
        return;
    }
    struct ab_task *task = ab_task_own_new(kv, AB_TASK_SCRUB);
    if (task == NULL) {
        return;
    }
    /* a block larger than a slice's share is paid for by the slices after it */
    const uint64_t slice_ns = scrub->slice_bytes * SECOND_NS / scrub->bytes_per_second;
    scrub->next_ns = now + AB_MAX(slice_ns, SLICE_NS);
    scrub->slice_bytes = 0;
    scrub->running = true;
    ab_task_start(task);
    ab_list_remove(&task->active); /* abode_flush waits for promises, not for this */
}

void ab_scrub_tell(struct ab_transfer *transfer)
{
    struct ab_kv *kv = transfer->kv;
    if (transfer->scrub.bytes_per_second == 0) {
        return;
    }
    ab_lock_take(&kv->lock);
    const uint32_t found = transfer->scrub.found;
    transfer->scrub.found = 0;
    ab_lock_drop(&kv->lock);
    if (found > 0) {
        ab_log(kv->log, AB_LOG_ERROR,
               "store: scrubbing found %u damaged blocks: they are not given out any more; `abode "
               "verify` names the files and ranges",
               found);
    }
}
