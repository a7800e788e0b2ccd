/*
 * item_spill.c - cache items that are in memory only are written when frames run short: one batch
 * of the oldest of a sample. Lock KV held.
 */
#include <errno.h>

#include "kv/reclaim.h"
#include "kv/session.h"
#include "kv/transfer.h"

#define ROOM_TRIES \
    2 /* a sync, a compaction: worth less than the time of those who wait for frames */

static void committed(struct ab_record *record, int status)
{
    struct ab_task *task = record->context;
    task->commits--;
    task->kv->transfer->in_flight--;
    task->status = task->status == 0 ? status : task->status;
    ab_task_runnable(task);
}

/* The store has no room, or may not be written to any more today: items give way, as if they had been
 * evicted from it. Else they would hold their frames, and whoever asks for one, for good. */
static void items_drop(struct ab_task *task)
{
    struct ab_kv *kv = task->kv;
    const struct ab_component *component = &kv->models[task->model].components[task->component];
    struct ab_record *record = ab_record_new(kv);
    for (uint32_t i = 0; record != NULL && i < AB_BATCH_ITEMS; i++) {
        uint32_t block = ab_reclaim_item_pick(kv, component);
        if (block == AB_INDEX_NONE) {
            break;
        }
        ab_event_add(kv, block);
        ab_record_block_drop(record, block);
    }
    if (record != NULL) {
        ab_record_submit(record, AB_PROMISE_WRITTEN);
    }
}

static void batch_make(struct ab_task *task)
{
    struct ab_kv *kv = task->kv;
    struct ab_batch *batch = ab_batch_new(kv, task);
    const struct ab_component *component = &kv->models[task->model].components[task->component];
    for (uint32_t i = 0; batch != NULL && i < AB_BATCH_ITEMS; i++) {
        uint32_t block = ab_reclaim_item_pick(kv, component);
        if (block == AB_INDEX_NONE || !ab_batch_add(kv, batch, block)) {
            break;
        }
    }
    if (batch != NULL && batch->count == 0) {
        ab_list_push_back(&kv->transfer->batches_free, &batch->link);
    } else if (batch != NULL) {
        task->status = ab_batch_send(kv, batch, AB_STREAM_CACHE, task->node);
    }
}

void ab_item_spill_step(struct ab_task *task)
{
    if (task->phase == AB_PHASE_START) {
        batch_make(task);
        if (task->status == -ENOSPC && task->room_tries < ROOM_TRIES &&
            ab_reclaim_room(task, false)) {
            task->status = 0; /* again, when there is room */
            return;
        }
        if (task->status == -ENOSPC || task->status == -EDQUOT) {
            items_drop(task);
        }
        task->phase = AB_PHASE_ISSUE;
    }
    if (task->pending > 0 || task->commits > 0) {
        ab_list_remove(&task->link);
    } else if (task->record != NULL) {
        ab_list_remove(&task->link);
        ab_task_commit(task, committed);
    } else {
        struct ab_kv *kv = task->kv;
        const bool gave_way = task->status == -ENOSPC || task->status == -EDQUOT;
        kv->transfer->items_retry_ns =
            task->status == 0 || gave_way ? 0 : kv->os->clock_ns(kv->os) + SPILL_PAUSE_NS;
        ab_task_finish(task, task->status);
    }
}

bool ab_spill_items_start(struct ab_kv *kv, const struct ab_component *component)
{
    const uint64_t retry_ns = kv->transfer->items_retry_ns;
    if ((retry_ns != 0 && kv->os->clock_ns(kv->os) < retry_ns) ||
        ab_reclaim_item_pick(kv, component) == AB_INDEX_NONE) {
        return false;
    }
    struct ab_task *task = ab_task_own_new(kv, AB_TASK_ITEM_SPILL);
    if (task == NULL) {
        return false;
    }
    for (uint32_t m = 0; m < AB_MODELS_MAX; m++) {
        uint32_t c = ab_component_index(&kv->models[m], component);
        if (c != AB_INDEX_NONE) {
            task->model = m;
            task->component = c;
        }
    }
    task->promise = AB_PROMISE_WRITTEN;
    ab_task_start(task);
    return true;
}
