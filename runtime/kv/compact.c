/*
 * compact.c - empty a segment that is mostly dead: read its live blocks, write them elsewhere.
 *
 * Never needed for correctness: the old slots stay valid until the commit that names the new ones.
 * A block comes into a transient frame (unless it is resident), is marked dirty, and goes out like
 * any spill. Lock KV held.
 */
#include "base/num.h"
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

static bool movable(struct ab_kv *kv, const struct ab_block *block, uint32_t segment)
{
    bool here = (block->flags & AB_BLOCK_USED) != 0 && block->segment == segment;
    bool busy = (block->flags & (AB_BLOCK_MOVING | AB_BLOCK_BAD | AB_BLOCK_DIRTY)) != 0;
    return here && !busy && kv->models[block->component / ABODE_COMPONENTS_MAX].declared;
}

/* 0: in memory, or on its way; -EAGAIN, -ENOBUFS */
static int block_load(struct ab_task *task, uint32_t index)
{
    struct ab_kv *kv = task->kv;
    struct ab_block *block = &kv->blocks[index];
    if (block->frame != AB_INDEX_NONE) {
        return 0;
    }
    int status = ab_restore_start(kv, task, index, -1, AB_TENANT_MIXED);
    if (status == 0) {
        ab_block_frame_info(kv, block)->transient = true;
        ab_block_frame_info(kv, block)->pins++; /* ours: until it is in a batch */
    }
    return status;
}

static void load_step(struct ab_task *task)
{
    struct ab_kv *kv = task->kv;
    uint32_t end = AB_MIN(task->block_at + BLOCKS_PER_STEP, kv->block_high);
    for (; task->block_at < end && task->item_at < AB_BATCH_ITEMS; task->block_at++) {
        struct ab_block *block = &kv->blocks[task->block_at];
        if (!movable(kv, block, task->segment)) {
            continue;
        }
        bool fits = task->item_at == 0 || task->record_bytes + block->bytes <= AB_BATCH_BYTES;
        if (!fits) {
            task->phase = AB_PHASE_WAIT;
            return;
        }
        bool resident = block->frame != AB_INDEX_NONE;
        if (block_load(task, task->block_at) != 0) {
            task->phase = AB_PHASE_WAIT; /* write what we have, that frees something */
            return;
        }
        if (resident) {
            ab_block_frame_info(kv, block)->pins++;
        }
        task->record_bytes += block->bytes;
        task->loaded[task->item_at++] = task->block_at;
    }
    if (task->item_at == AB_BATCH_ITEMS || task->block_at >= kv->block_high) {
        task->phase = AB_PHASE_WAIT;
    }
}

static void write_out(struct ab_task *task)
{
    struct ab_kv *kv = task->kv;
    struct ab_batch *batch = ab_batch_new(kv, task);
    for (uint32_t i = 0; i < task->item_at; i++) {
        struct ab_block *block = &kv->blocks[task->loaded[i]];
        const struct ab_frame_info *info = ab_block_frame_info(kv, block);
        bool good = info->state == AB_FRAME_READY && movable(kv, block, task->segment);
        bool added = good && batch != NULL && ab_batch_add(kv, batch, task->loaded[i]);
        (void)added; /* what is not added stays where it is, for a later round */
        ab_frame_unpin(kv, block);
    }
    task->item_at = 0;
    task->record_bytes = 0;
    if (batch != NULL && batch->count == 0) {
        ab_list_push_back(&kv->transfer->batches_free, &batch->link);
    } else if (batch != NULL) {
        task->status = ab_batch_send(kv, batch, AB_STREAM_SEALED, -1);
        task->wrote |= task->status == 0;
    }
    task->phase = AB_PHASE_COMMIT;
}

void ab_compact_step(struct ab_task *task)
{
    struct ab_kv *kv = task->kv;
    if (task->phase == AB_PHASE_START) {
        task->phase = AB_PHASE_ISSUE;
    }
    if (task->phase == AB_PHASE_ISSUE) {
        load_step(task);
        if (task->phase == AB_PHASE_ISSUE) {
            ab_task_runnable(task);
            return;
        }
    }
    if (task->pending > 0 || task->commits > 0) {
        ab_list_remove(&task->link);
        return;
    }
    if (task->phase == AB_PHASE_WAIT && task->item_at > 0) {
        write_out(task);
    }
    if (task->pending > 0) {
        ab_list_remove(&task->link);
    } else if (task->record != NULL) {
        ab_list_remove(&task->link);
        ab_task_commit(task, committed);
    } else if (task->status == 0 && task->phase == AB_PHASE_COMMIT &&
               task->block_at < kv->block_high) {
        task->phase = AB_PHASE_ISSUE;
        ab_task_runnable(task);
    } else {
        kv->transfer->compacting = false;
        if (task->wrote) { /* a durable barrier lets the emptied segment be used again */
            struct ab_record *record = ab_record_new(kv);
            if (record != NULL) {
                ab_record_barrier(record);
            }
        }
        ab_task_finish(task, task->status);
    }
}

void ab_compact_start(struct ab_kv *kv, bool now)
{
    struct ab_transfer *transfer = kv->transfer;
    uint64_t clock = kv->os->clock_ns(kv->os);
    if (transfer->compacting || kv->read_only ||
        (!now && clock - transfer->compact_checked_ns < CHECK_NS)) {
        return;
    }
    transfer->compact_checked_ns = clock;
    uint32_t segment = ab_store_compaction_pick(kv->store, now ? PERCENT_MUST : PERCENT_EAGER);
    if (segment == AB_INDEX_NONE) {
        return;
    }
    struct ab_task *task = ab_task_own_new(kv, AB_TASK_COMPACT);
    if (task == NULL) {
        return;
    }
    task->segment = segment;
    task->promise = AB_PROMISE_DURABLE;
    transfer->compacting = true;
    ab_task_start(task);
}
