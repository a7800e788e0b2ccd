/*
 * compact.c - empty a segment that is mostly dead: read its live blocks, write them elsewhere.
 *
 *   scan the block table -> read into the bounce buffer -> batches cut to the room that the store's
 *   compaction segments have -> commit that names the new slots -> scan on -> durable barrier
 *
 * Never needed for correctness: the old slots stay valid until the commit that names the new ones.
 * It takes no frames, because it must run when memory is full of what waits for room in the store:
 * a block that is not resident goes through a buffer of the compaction's own (at most one batch, or
 * the largest block), a resident one is written from its frame. Where no segment has enough dead
 * pages, the oldest blocks that nobody owns are dropped, a segment at a time, instead of moved.
 *
 * Lock KV held.
 */
#include "base/num.h"
#include "kv/reclaim.h"
#include "kv/session.h"
#include "kv/transfer.h"

#define CHECK_NS (50ull * 1000 * 1000)
#define PERCENT_EAGER 75     /* live share under which a segment is worth moving */
#define PERCENT_MUST 95      /* the store is full and somebody waits */
#define BLOCKS_PER_STEP 4096 /* of the table, looked at per hold of the lock */

static void committed(struct ab_record *record, int status)
{
    struct ab_task *task = record->context;
    task->commits--;
    task->kv->transfer->in_flight--;
    task->status = task->status == 0 ? status : task->status;
    ab_task_runnable(task);
}

static bool is_here(const struct ab_block *block, uint32_t segment)
{
    return (block->flags & AB_BLOCK_USED) != 0 && block->segment == segment;
}

static bool movable(struct ab_kv *kv, const struct ab_block *block)
{
    const uint32_t busy = AB_BLOCK_MOVING | AB_BLOCK_BAD | AB_BLOCK_DIRTY;
    return (block->flags & busy) == 0 && (block->frame == AB_INDEX_NONE ||
                                          ab_block_frame_info(kv, block)->state == AB_FRAME_READY);
}

static bool droppable(struct ab_kv *kv, const struct ab_block *block)
{
    const uint32_t wanted = AB_BLOCK_OWNED | AB_BLOCK_MOVING | AB_BLOCK_PENDING;
    return (block->flags & wanted) == 0 &&
           (block->frame == AB_INDEX_NONE || ab_block_frame_info(kv, block)->pins == 0);
}

/* Room in the bounce buffer for a block; false: what is in it must be written first. */
static bool bounce_fits(struct ab_kv *kv, struct ab_compaction *compaction, uint64_t bytes)
{
    const uint64_t extent_bytes = (uint64_t)ab_store_extent_pages_max(kv->store) * AB_PAGE;
    uint64_t wanted = AB_MAX(bytes, AB_MIN(extent_bytes, AB_BATCH_BYTES));
    if (compaction->count > 0) {
        return compaction->count < AB_BATCH_ITEMS &&
               compaction->bytes + bytes <= compaction->capacity;
    }
    if (compaction->capacity < wanted) {
        kv->os->free(kv->os, compaction->bounce);
        compaction->bounce = kv->os->alloc(kv->os, wanted, AB_PAGE);
        compaction->capacity = compaction->bounce == NULL ? 0 : wanted;
    }
    return compaction->bounce != NULL;
}

/* 0: in memory, or on its way; -EAGAIN: no move now; -ENOMEM */
static int block_load(struct ab_task *task, uint32_t index)
{
    struct ab_kv *kv = task->kv;
    struct ab_compaction *compaction = &kv->transfer->compaction;
    const struct ab_block *block = &kv->blocks[index];
    const uint64_t bytes = ab_align_up(block->bytes, AB_PAGE);
    if (!bounce_fits(kv, compaction, bytes)) {
        return compaction->bounce == NULL ? -ENOMEM : -EAGAIN;
    }
    struct ab_loaded *loaded = &compaction->loaded[compaction->count];
    *loaded = (struct ab_loaded){
        .block = index, .page = block->page, .checksum = block->checksum, .at = compaction->bytes};
    loaded->resident = block->frame != AB_INDEX_NONE;
    loaded->good = loaded->resident;
    if (!loaded->resident) {
        struct ab_move *move = ab_move_new(kv, task, AB_MOVE_RESTORE, index);
        if (move == NULL) {
            return -EAGAIN;
        }
        move->address = compaction->bounce + loaded->at;
        move->item = compaction->count;
        ab_move_send(kv, move);
    }
    compaction->bytes += bytes;
    compaction->count++;
    return 0;
}

void ab_compact_move_done(struct ab_task *task, const struct ab_move *move)
{
    struct ab_compaction *compaction = &task->kv->transfer->compaction;
    compaction->loaded[move->item].good = move->status == 0;
}

static void load_step(struct ab_task *task)
{
    struct ab_kv *kv = task->kv;
    const struct ab_compaction *compaction = &kv->transfer->compaction;
    uint32_t end = AB_MIN(task->block_at + BLOCKS_PER_STEP, kv->block_high);
    for (; task->block_at < end; task->block_at++) {
        const struct ab_block *block = &kv->blocks[task->block_at];
        if (!is_here(block, task->segment)) {
            continue;
        }
        if (compaction->drops && droppable(kv, block)) {
            struct ab_record *record = ab_task_record(task);
            task->status = record == NULL ? -ENOMEM : task->status;
            if (record != NULL) {
                ab_event_add(kv, task->block_at);
                ab_record_block_drop(record, task->block_at);
            }
            continue;
        }
        int status = movable(kv, block) ? block_load(task, task->block_at) : 0;
        if (status != 0) {
            task->status = status == -EAGAIN ? task->status : status;
            task->phase = AB_PHASE_WAIT; /* write what we have, that frees something */
            return;
        }
    }
    if (task->block_at >= kv->block_high) {
        task->phase = AB_PHASE_WAIT;
    }
}

/* As many of the loaded blocks as fit `pages`, in one extent. */
static int batch_write(struct ab_task *task, uint32_t pages)
{
    struct ab_kv *kv = task->kv;
    struct ab_compaction *compaction = &kv->transfer->compaction;
    struct ab_batch *batch = ab_batch_new(kv, task);
    for (uint32_t i = 0; batch != NULL && i < compaction->count; i++) {
        struct ab_loaded *loaded = &compaction->loaded[i];
        const struct ab_block *block = &kv->blocks[loaded->block];
        bool same = is_here(block, task->segment) && block->page == loaded->page &&
                    block->checksum == loaded->checksum;                  /* else gone */
        bool evicted = loaded->resident && block->frame == AB_INDEX_NONE; /* and never read */
        if (!loaded->good || !same || evicted || !movable(kv, block) ||
            ab_pages(block->bytes) > pages || !ab_batch_add(kv, batch, loaded->block)) {
            continue; /* it stays where it is, for the next extent or a later round */
        }
        pages -= ab_pages(block->bytes);
        if (block->frame == AB_INDEX_NONE) {
            batch->moves[batch->count - 1]->address = compaction->bounce + loaded->at;
        }
        loaded->good = false;
    }
    if (batch == NULL || batch->count == 0) {
        if (batch != NULL) {
            ab_list_push_back(&kv->transfer->batches_free, &batch->link);
        }
        return 0;
    }
    return ab_batch_send(kv, batch, AB_STREAM_COMPACT, -1);
}

/* First what the segment that is open has room for, then the rest: else the end of each would be
 * lost, and nothing gained. */
static void write_out(struct ab_task *task)
{
    struct ab_kv *kv = task->kv;
    struct ab_compaction *compaction = &kv->transfer->compaction;
    const uint32_t room = ab_store_compaction_room(kv->store);
    task->status = room > 0 ? batch_write(task, room) : 0;
    if (task->status == 0) {
        task->status = batch_write(task, UINT32_MAX);
    }
    compaction->count = 0;
    compaction->bytes = 0;
}

static void compaction_ended(struct ab_record *record, int status)
{
    (void)status; /* the store counts it; who waits for room sees whether there is some */
    ab_room_kick(record->kv);
}

/* A durable barrier lets the emptied segment be used again. */
static void compact_end(struct ab_task *task)
{
    struct ab_kv *kv = task->kv;
    struct ab_compaction *compaction = &kv->transfer->compaction;
    kv->os->free(kv->os, compaction->bounce);
    *compaction = (struct ab_compaction){.running = false};
    ab_store_compaction_end(kv->store, task->segment);
    struct ab_record *record = ab_record_new(kv);
    if (record != NULL) {
        record->done = compaction_ended;
        ab_record_submit(record, AB_PROMISE_DURABLE);
    } else {
        ab_room_kick(kv);
    }
    ab_task_finish(task, task->status);
}

void ab_compact_step(struct ab_task *task)
{
    struct ab_kv *kv = task->kv;
    if (task->phase == AB_PHASE_START) {
        task->phase = AB_PHASE_ISSUE;
    }
    if (task->phase == AB_PHASE_ISSUE && task->status == 0) {
        load_step(task);
        if (task->phase == AB_PHASE_ISSUE) {
            ab_task_runnable(task);
            return;
        }
    }
    if (task->pending == 0 && task->commits == 0 && kv->transfer->compaction.count > 0) {
        write_out(task);
    }
    if (task->pending > 0 || task->commits > 0) {
        ab_list_remove(&task->link);
    } else if (task->record != NULL) {
        ab_list_remove(&task->link);
        ab_task_commit(task, committed);
    } else if (task->status == 0 && task->block_at < kv->block_high) {
        task->phase = AB_PHASE_ISSUE;
        if (ab_list_is_empty(&kv->transfer->moves_free)) {
            ab_task_wait(task, false);
        } else {
            ab_task_runnable(task);
        }
    } else {
        compact_end(task);
    }
}

/* Moving where much is dead; then dropping what nobody owns; then moving for little. */
static uint32_t victim_pick(struct ab_kv *kv, bool must, bool *ret_drops)
{
    *ret_drops = false;
    uint32_t segment = ab_store_compaction_pick(kv->store, PERCENT_EAGER, must);
    if (segment != AB_INDEX_NONE || !must) {
        return segment;
    }
    const uint32_t block = ab_reclaim_stored_pick(kv);
    if (block != AB_INDEX_NONE && ab_store_compaction_take(kv->store, kv->blocks[block].segment)) {
        *ret_drops = true;
        return kv->blocks[block].segment;
    }
    return ab_store_compaction_pick(kv->store, PERCENT_MUST, must);
}

void ab_compact_start(struct ab_kv *kv, bool must)
{
    struct ab_transfer *transfer = kv->transfer;
    uint64_t clock = kv->os->clock_ns(kv->os);
    if (transfer->compaction.running || kv->read_only ||
        (!must && clock - transfer->compact_checked_ns < CHECK_NS)) {
        return;
    }
    transfer->compact_checked_ns = clock;
    bool drops;
    uint32_t segment = victim_pick(kv, must, &drops);
    struct ab_task *task = segment == AB_INDEX_NONE ? NULL : ab_task_own_new(kv, AB_TASK_COMPACT);
    if (task == NULL) {
        return;
    }
    task->segment = segment;
    task->promise = AB_PROMISE_DURABLE;
    transfer->compaction.running = true;
    transfer->compaction.drops = drops;
    ab_task_start(task);
}
