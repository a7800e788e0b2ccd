/*
 * transfer.c - moves and batches: from request to landed bytes. See transfer.h.
 * The threads that run it are in service.c; what asks for it is in attach.c, detach.c, cache.c,
 * compact.c.
 */
#include "kv/transfer.h"

#include <string.h>

#include "base/num.h"
#include "kv/reclaim.h"
#include "kv/session.h"

/* ---- tasks ---- */

static struct ab_service *service_of(struct ab_transfer *transfer, int32_t node, uint32_t device)
{
    uint32_t n = node >= 0 && (uint32_t)node < transfer->node_count ? (uint32_t)node : 0;
    return &transfer->services[n * transfer->device_count +
                               (device < transfer->device_count ? device : 0)];
}

void ab_task_runnable(struct ab_task *task)
{
    struct ab_transfer *transfer = task->kv->transfer;
    ab_list_remove(&task->link);
    task->hungry = false;
    task->retry_ns = 0;
    ab_list_push_back(&transfer->runnable, &task->link);
}

void ab_task_start(struct ab_task *task)
{
    struct ab_transfer *transfer = task->kv->transfer;
    ab_list_init(&task->link);
    ab_list_push_back(&transfer->active, &task->active);
    ab_task_runnable(task);
    struct ab_service *service = service_of(transfer, task->node, 0);
    if (service->io != NULL) {
        ab_io_wake(service->io);
    }
}

void ab_task_wait(struct ab_task *task, bool for_frames)
{
    ab_list_remove(&task->link);
    task->hungry = true;
    task->hungry_for_frames = for_frames;
    ab_list_push_back(&task->kv->transfer->hungry, &task->link);
}

void ab_transfer_kick(struct ab_kv *kv)
{
    struct ab_transfer *transfer = kv->transfer;
    if (transfer == NULL || !transfer->ready || ab_list_is_empty(&transfer->hungry)) {
        return;
    }
    struct ab_list *node = transfer->hungry.next;
    while (node != &transfer->hungry) {
        struct ab_task *task = ab_list_entry(node, struct ab_task, link);
        node = node->next;
        if (task->retry_ns ==
            0) { /* else it waits for the clock: others' progress is not its own */
            ab_task_runnable(task);
        }
    }
    ab_io_wake(transfer->services[0].io);
}

void ab_room_kick(struct ab_kv *kv)
{
    struct ab_transfer *transfer = kv->transfer;
    if (transfer == NULL || !transfer->ready) {
        return;
    }
    struct ab_list *node = transfer->hungry.next;
    while (node != &transfer->hungry) {
        struct ab_task *task = ab_list_entry(node, struct ab_task, link);
        node = node->next;
        if (task->retry_ns != 0) {
            ab_task_runnable(task);
        }
    }
    ab_io_wake(transfer->services[0].io);
}

void ab_transfer_wake(struct ab_kv *kv)
{
    if (kv->transfer != NULL && kv->transfer->ready) {
        ab_io_wake(kv->transfer->services[0].io);
    }
}

struct ab_task *ab_task_own_new(struct ab_kv *kv, enum ab_task_kind kind)
{
    struct ab_list *node = kv->closing ? NULL : ab_list_pop_front(&kv->transfer->tasks_free);
    if (node == NULL) {
        return NULL;
    }
    struct ab_task *task = ab_list_entry(node, struct ab_task, link);
    memset(task, 0, sizeof(*task));
    task->kv = kv;
    task->kind = kind;
    task->node = -1;
    ab_list_init(&task->link);
    ab_list_init(&task->active);
    return task;
}

bool ab_task_restores_leave(struct ab_task *task)
{
    struct ab_transfer *transfer = task->kv->transfer;
    struct ab_task *own = ab_task_own_new(task->kv, AB_TASK_PREFETCH);
    if (own == NULL) {
        return false;
    }
    own->session = task->session;
    own->generation = task->generation;
    own->model = task->model;
    own->status = -ETIMEDOUT; /* it starts nothing more */
    for (uint32_t i = 0; i < transfer->move_count; i++) {
        struct ab_move *move = &transfer->moves[i];
        if (move->task == task) {
            move->task = own;
            own->pending++;
            task->pending--;
        }
    }
    ab_task_start(own);
    return true;
}

void ab_task_finish(struct ab_task *task, int status)
{
    struct ab_kv *kv = task->kv;
    AB_ASSERT(task->pending == 0 && task->commits == 0);
    if (task->record != NULL) {
        ab_record_free(task->record);
        task->record = NULL;
    }
    ab_list_remove(&task->link);
    ab_list_remove(&task->active);
    if (task->op != NULL) {
        ab_queue_complete(task, status);
    } else {
        ab_list_push_back(&kv->transfer->tasks_free, &task->link);
    }
    ab_transfer_kick(kv);
}

int ab_frames_shortage(struct ab_kv *kv, struct ab_component *component)
{
    if (!ab_reclaim_can(kv, component)) {
        return -ABODE_EFULL;
    }
    component->waiting++; /* a service looks at it and starts spills */
    ab_transfer_wake(kv);
    if (kv->store == NULL) {
        return -ABODE_EFULL;
    }
    /* asked again all the same: the next spill finds the room that the host has made */
    bool no_room = kv->transfer->spill_status == -ENOSPC &&
                   ab_reclaim_item_pick(kv, component) == AB_INDEX_NONE;
    return no_room ? -ENOSPC : -EAGAIN;
}

/* ---- moves ---- */

struct ab_move *ab_move_new(struct ab_kv *kv, struct ab_task *task, enum ab_move_kind kind,
                            uint32_t block)
{
    struct ab_list *node = ab_list_pop_front(&kv->transfer->moves_free);
    if (node == NULL) {
        return NULL;
    }
    struct ab_move *move = ab_list_entry(node, struct ab_move, link);
    memset(move, 0, sizeof(*move));
    ab_list_init(&move->link);
    move->kind = kind;
    move->task = task;
    move->scrub = task->kind == AB_TASK_SCRUB;
    move->block = block;
    move->state = AB_MOVE_QUEUED;
    const struct ab_block *b = &kv->blocks[block];
    move->bytes = b->bytes;
    move->slot = ab_block_slot(b);
    if (ab_block_is_stored(b)) {
        move->generation = ab_store_generation(kv->store, b->segment);
        move->checksum[0] = b->checksum;
    }
    return move;
}

void ab_move_free(struct ab_kv *kv, struct ab_move *move)
{
    move->state = AB_MOVE_FREE;
    move->task = NULL;
    ab_list_push_back(&kv->transfer->moves_free, &move->link);
}

static int32_t block_node(struct ab_kv *kv, const struct ab_block *block)
{
    if (block->frame == AB_INDEX_NONE) {
        return -1;
    }
    return (int32_t)ab_frame_node(block->frame,
                                  ab_frames_per_node(ab_component_of(kv, block)->frames));
}

void ab_move_send(struct ab_kv *kv, struct ab_move *move)
{
    struct ab_transfer *transfer = kv->transfer;
    const struct ab_block *block = &kv->blocks[move->block];
    int32_t node = block_node(kv, block);
    if (node < 0 && move->host.region != NULL) {
        node = move->host.region->host.node;
    }
    uint32_t device =
        move->kind == AB_MOVE_RESTORE ? ab_store_slot_device(kv->store, move->slot.segment) : 0;
    struct ab_service *service = service_of(transfer, node, device);
    move->task->pending++;
    transfer->in_flight++;
    ab_lock_take(&service->lock);
    ab_list_push_back(&service->inbox_moves, &move->link);
    ab_lock_drop(&service->lock);
    ab_io_wake(service->io);
}

int ab_restore_start(struct ab_kv *kv, struct ab_task *task, uint32_t index, int32_t node,
                     uint32_t tenant)
{
    struct ab_block *block = &kv->blocks[index];
    if (ab_list_is_empty(&kv->transfer->moves_free) || ab_block_is_leaving(block)) {
        return -EAGAIN;
    }
    if (ab_frame_obtain(kv, index, node, tenant) == AB_INDEX_NONE) {
        return -ENOBUFS;
    }
    struct ab_frame_info *info = ab_block_frame_info(kv, block);
    info->state = AB_FRAME_RESTORING;
    info->pins = 1; /* the move's */
    struct ab_move *move = ab_move_new(kv, task, AB_MOVE_RESTORE, index);
    move->address = ab_block_address(kv, block);
    move->owns_frame = true;
    if (block_node(kv, block) != node && node >= 0) {
        atomic_fetch_add_explicit(&kv->counters.remote_bytes, block->bytes, memory_order_relaxed);
    }
    ab_move_send(kv, move);
    return 0;
}

/* ---- batches ---- */

struct ab_batch *ab_batch_new(struct ab_kv *kv, struct ab_task *task)
{
    struct ab_list *node = ab_list_pop_front(&kv->transfer->batches_free);
    if (node == NULL) {
        return NULL;
    }
    struct ab_batch *batch = ab_list_entry(node, struct ab_batch, link);
    void *page = batch->page;
    memset(batch, 0, offsetof(struct ab_batch, moves));
    batch->page = page;
    batch->task = task;
    ab_list_init(&batch->link);
    return batch;
}

static uint64_t batch_bytes(const struct ab_batch *batch)
{
    uint64_t bytes = 0;
    for (uint32_t i = 0; i < batch->count; i++) {
        bytes += ab_align_up(batch->moves[i]->bytes, AB_PAGE);
    }
    return bytes;
}

bool ab_batch_add(struct ab_kv *kv, struct ab_batch *batch, uint32_t index)
{
    struct ab_block *block = &kv->blocks[index];
    /* an extent lies in one segment, and segments may be smaller than a batch */
    const uint64_t extent_bytes = (uint64_t)ab_store_extent_pages_max(kv->store) * AB_PAGE;
    const uint64_t bytes_max = AB_MIN(extent_bytes, AB_BATCH_BYTES);
    if (batch->count == AB_BATCH_ITEMS ||
        (batch->count > 0 && batch_bytes(batch) + block->bytes > bytes_max)) {
        return false;
    }
    struct ab_move *move = ab_move_new(kv, batch->task, AB_MOVE_SPILL, index);
    if (move == NULL) {
        return false;
    }
    move->batch = batch;
    if (block->frame != AB_INDEX_NONE) {
        move->address = ab_block_address(kv, block);
        move->owns_frame = true;
        ab_frame_pin(kv, block); /* until the commit */
    }
    ab_block_mark(block, AB_BLOCK_MOVING);
    batch->moves[batch->count++] = move;
    return true;
}

static void batch_release(struct ab_kv *kv, struct ab_batch *batch)
{
    for (uint32_t i = 0; i < batch->count; i++) {
        ab_move_free(kv, batch->moves[i]);
    }
    ab_list_push_back(&kv->transfer->batches_free, &batch->link);
}

static void batch_undo(struct ab_kv *kv, struct ab_batch *batch)
{
    for (uint32_t i = 0; i < batch->count; i++) {
        struct ab_block *block = &kv->blocks[batch->moves[i]->block];
        ab_block_unmark(block, AB_BLOCK_MOVING);
        if (batch->moves[i]->owns_frame) {
            ab_frame_unpin(kv, block);
        }
        ab_block_moved(kv, batch->moves[i]->block);
    }
    batch_release(kv, batch);
}

/* false: the endurance budget is spent for now */
static bool budget_take(struct ab_kv *kv, uint64_t bytes)
{
    if (kv->spill_bytes_per_day == 0) {
        return true;
    }
    const uint64_t day_ns = 86400ull * 1000 * 1000 * 1000;
    uint64_t now = kv->os->clock_ns(kv->os);
    double earned = (double)(now - kv->spill_refilled_ns) / (double)day_ns;
    double tokens = (double)kv->spill_tokens + earned * (double)kv->spill_bytes_per_day;
    kv->spill_tokens = (uint64_t)AB_MIN(tokens, (double)kv->spill_bytes_per_day / 24);
    kv->spill_refilled_ns = now;
    if (kv->spill_tokens < bytes) {
        return false;
    }
    kv->spill_tokens -= bytes;
    return true;
}

int ab_batch_send(struct ab_kv *kv, struct ab_batch *batch, enum ab_stream stream, int32_t node)
{
    struct ab_transfer *transfer = kv->transfer;
    uint32_t pages = (uint32_t)(batch_bytes(batch) / AB_PAGE);
    int status = budget_take(kv, batch_bytes(batch)) ? 0 : -EDQUOT;
    if (status == 0) {
        status = ab_store_reserve(kv->store, stream, node, pages, &batch->extent);
    }
    if (status != 0) {
        bool taken = status != -EDQUOT && kv->spill_bytes_per_day != 0;
        kv->spill_tokens += taken ? batch_bytes(batch) : 0; /* nothing is written */
        batch_undo(kv, batch);
        return status;
    }
    uint32_t page = batch->extent.header.page + 1;
    for (uint32_t i = 0; i < batch->count; i++) {
        struct ab_move *move = batch->moves[i];
        move->slot = (struct ab_slot){batch->extent.header.segment, page};
        move->generation = batch->extent.generation;
        page += ab_pages(move->bytes);
        struct ab_extent_item *item = &batch->items[i];
        memset(item, 0, sizeof(*item));
        const struct ab_block *block = &kv->blocks[move->block];
        memcpy(item->key, block->key, sizeof(block->key));
        item->block = move->block;
        item->component = block->component;
        item->page = move->slot.page;
        item->bytes = (uint32_t)move->bytes;
    }
    batch->pending = batch->count + 1;
    batch->task->pending++;
    transfer->in_flight++;
    struct ab_service *service = service_of(transfer, node, batch->extent.device);
    ab_lock_take(&service->lock);
    ab_list_push_back(&service->inbox_batches, &batch->link);
    ab_lock_drop(&service->lock);
    ab_io_wake(service->io);
    return 0;
}

struct ab_record *ab_task_record(struct ab_task *task)
{
    if (task->record == NULL) {
        task->record = ab_record_new(task->kv);
        task->record_bytes = 0;
    }
    return task->record;
}

void ab_task_commit(struct ab_task *task, void (*done)(struct ab_record *record, int status))
{
    struct ab_record *record = task->record;
    task->record = NULL;
    record->commit.payload_bytes = task->record_bytes;
    record->done = done;
    record->context = task;
    task->record_bytes = 0;
    task->commits++;
    task->kv->transfer->in_flight++;
    ab_record_submit(record, task->promise);
}

static bool record_names(const struct ab_record *record, uint32_t segment)
{
    for (uint32_t i = 0; i < record->commit.segment_count; i++) {
        if (record->commit.segments[i] == segment) {
            return true;
        }
    }
    return false;
}

/* Lock KV held: all of a batch is on the disk, or failed. */
void ab_batch_done(struct ab_kv *kv, struct ab_batch *batch)
{
    struct ab_task *task = batch->task;
    struct ab_record *record = batch->status == 0 ? ab_task_record(task) : NULL;
    if (record != NULL && !ab_record_room(record, batch->count)) {
        record = NULL; /* as if not written: what the task's record has so far can still count */
    }
    if (record != NULL && !record_names(record, batch->extent.header.segment) &&
        record->commit.segment_count < AB_COMMIT_SEGMENTS_MAX) {
        record->commit.segments[record->commit.segment_count++] = batch->extent.header.segment;
    }
    ab_store_abandon(kv->store, batch->extent.header, 1);
    for (uint32_t i = 0; i < batch->count; i++) {
        struct ab_move *move = batch->moves[i];
        if (record != NULL) {
            ab_record_block_put(record, move->block, move->slot, move->generation, move->checksum);
            task->record_bytes += move->bytes;
            atomic_fetch_add_explicit(&kv->counters.bytes_spilled, move->bytes,
                                      memory_order_relaxed);
        } else {
            struct ab_block *block = &kv->blocks[move->block];
            ab_block_unmark(block, AB_BLOCK_MOVING);
            ab_store_abandon(kv->store, move->slot, ab_pages(move->bytes));
            if (move->owns_frame) {
                ab_frame_unpin(kv, block);
            }
            ab_block_moved(kv, move->block);
        }
    }
    atomic_fetch_add_explicit(&kv->counters.bytes_headers, AB_PAGE, memory_order_relaxed);
    if (record == NULL && task->status == 0) {
        task->status = batch->status != 0 ? batch->status : -ENOMEM;
    }
    if (task->kind == AB_TASK_PUT) {
        for (uint32_t i = 0; i < batch->count; i++) {
            ab_cache_put_landed(task, batch->moves[i], record == NULL ? task->status : 0);
        }
    }
    batch_release(kv, batch);
    task->pending--;
    kv->transfer->in_flight--;
    ab_task_runnable(task);
    ab_transfer_kick(kv); /* moves and a batch came free: the commit may be long in coming */
}

/* Lock KV held: a restore or copy has ended. */
void ab_move_done(struct ab_kv *kv, struct ab_move *move)
{
    struct ab_task *task = move->task;
    struct ab_block *block = &kv->blocks[move->block];
    /* else it was moved or dropped while it was read, and the old slot may have been used again */
    bool same_slot = block->segment == move->slot.segment && block->page == move->slot.page &&
                     block->checksum == move->checksum[0];
    task->pending--;
    kv->transfer->in_flight--;
    if (move->status != 0 && (same_slot || move->status != -ABODE_ECORRUPT)) {
        _Atomic uint64_t *counter = move->status == -ABODE_ECORRUPT
                                        ? &kv->counters.checksum_failures
                                        : &kv->counters.io_errors;
        atomic_fetch_add_explicit(counter, 1, memory_order_relaxed);
    } else if (move->status == 0 && move->kind == AB_MOVE_RESTORE && task->kind != AB_TASK_SCRUB) {
        atomic_fetch_add_explicit(&kv->counters.bytes_restored, move->bytes, memory_order_relaxed);
    }
    if (task->kind == AB_TASK_COMPACT) {
        ab_compact_move_done(task, move);
    }
    const bool is_read =
        move->owns_frame || task->kind == AB_TASK_COMPACT || task->kind == AB_TASK_SCRUB;
    if (is_read && move->status == -ABODE_ECORRUPT && same_slot) {
        ab_block_found_bad(kv, move->block);
    }
    if (task->kind == AB_TASK_SCRUB) {
        ab_scrub_move_done(kv, move);
    }
    if (move->owns_frame && move->kind == AB_MOVE_RESTORE) {
        struct ab_frame_info *info = ab_block_frame_info(kv, block);
        info->state = move->status == 0 ? AB_FRAME_READY : AB_FRAME_FAILED;
    }
    if (task->kind == AB_TASK_GET || task->kind == AB_TASK_PUT) {
        ab_cache_move_done(task, move);
    } else if (task->kind == AB_TASK_RECALL && move->status != -ABODE_ECORRUPT) {
        task->status = task->status == 0 ? move->status : task->status; /* the block says corrupt */
    }
    if (move->owns_frame) {
        ab_frame_unpin(kv, block);
    }
    ab_move_free(kv, move);
    ab_task_runnable(task);
    ab_transfer_kick(kv);
}
