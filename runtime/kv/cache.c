/*
 * cache.c - ops of the block cache face.
 *
 * An item is a block of the model's first BYTES component that no session owns. Its bytes go straight
 * between the host's region and the store where the region is flat and the item whole 4 KiB pages, aligned;
 * else through a frame ("staged"), which then stays as a copy in memory until it is evicted.
 *
 *   put: new block, PENDING -> batch (extent) or copy (MEM) -> commit -> there
 *   get: copy from a frame, or read from the slot, checked -> item
 *
 * An item's status is -EINPROGRESS from the moment its bytes move until the op ends. Lock KV held.
 */
#include "kv/cache.h"

#include <string.h>

#include "base/num.h"
#include "kv/reclaim.h"
#include "kv/session.h"

#define ITEMS_PER_STEP 64
#define PROBE_PER_HOLD 64

/* the component that items belong to; NULL: the model has none */
static struct ab_component *item_component(struct ab_kv *kv, uint32_t model, uint8_t *ret_id)
{
    if (model >= AB_MODELS_MAX || !kv->models[model].declared) {
        return NULL;
    }
    for (uint32_t c = 0; c < kv->models[model].component_count; c++) {
        if (kv->models[model].components[c].kind == ABODE_BYTES) {
            *ret_id = AB_COMPONENT_ID(model, c);
            return &kv->models[model].components[c];
        }
    }
    return NULL;
}

static uint32_t find(struct ab_kv *kv, uint8_t id, const struct abode_key *key)
{
    uint64_t fingerprint[2];
    ab_block_fingerprint(id, 0, key, fingerprint);
    return ab_block_find(kv, id, fingerprint);
}

/* ---- calls that need no op ---- */

static enum abode_presence presence_of(const struct ab_kv *kv, uint32_t index)
{
    if (index == AB_INDEX_NONE || (kv->blocks[index].flags & AB_BLOCK_BAD) != 0) {
        return ABODE_MISS;
    }
    const struct ab_block *block = &kv->blocks[index];
    if ((block->flags & AB_BLOCK_PENDING) != 0) {
        return ABODE_PENDING;
    }
    return block->frame != AB_INDEX_NONE ? ABODE_RESIDENT : ABODE_STORED;
}

int ab_cache_probe(struct ab_kv *kv, uint32_t model, const struct abode_key *keys,
                   uint32_t key_count, uint8_t *ret_presence)
{
    uint8_t id;
    uint32_t leading = 0;
    bool unbroken = true;
    for (uint32_t i = 0; i < key_count; i += PROBE_PER_HOLD) {
        uint64_t prints[PROBE_PER_HOLD][2];
        uint32_t count = AB_MIN(key_count - i, PROBE_PER_HOLD);
        ab_lock_take(&kv->lock);
        if (item_component(kv, model, &id) == NULL) {
            ab_lock_drop(&kv->lock);
            return -EINVAL;
        }
        for (uint32_t k = 0; k < count; k++) {
            ab_block_fingerprint(id, 0, &keys[i + k], prints[k]);
            enum abode_presence presence = presence_of(kv, ab_block_find(kv, id, prints[k]));
            unbroken = unbroken && presence >= ABODE_STORED;
            leading += unbroken;
            if (ret_presence != NULL) {
                ret_presence[i + k] = (uint8_t)presence;
            }
        }
        ab_lock_drop(&kv->lock);
        if (!unbroken && ret_presence == NULL) {
            break;
        }
    }
    return (int)leading;
}

void ab_cache_touch(struct ab_kv *kv, uint32_t model, const struct abode_key *keys,
                    uint32_t key_count)
{
    uint8_t id;
    ab_lock_take(&kv->lock);
    if (item_component(kv, model, &id) != NULL) {
        kv->tick++;
        for (uint32_t i = 0; i < key_count; i++) {
            uint32_t index = find(kv, id, &keys[i]);
            if (index != AB_INDEX_NONE && (kv->blocks[index].flags & AB_BLOCK_OWNED) == 0) {
                kv->blocks[index].stamp = kv->tick;
            }
        }
    }
    ab_lock_drop(&kv->lock);
}

/* ---- starting ops ---- */

static int op_start(struct abode_queue *queue, enum ab_task_kind kind, struct ab_task *shape,
                    struct abode_op *op)
{
    struct ab_kv *kv = ab_queue_kv(queue);
    uint8_t id;
    ab_lock_take(&kv->lock);
    int status = item_component(kv, shape->model, &id) == NULL ? -EINVAL : 0;
    struct ab_task *task = status == 0 ? ab_queue_task(queue, op, kind) : NULL;
    if (status == 0 && task == NULL) {
        status = -EAGAIN;
    }
    if (status == 0) {
        task->model = shape->model;
        task->items = shape->items;
        task->keys = shape->keys;
        task->item_count = shape->item_count;
        task->promise = shape->promise;
        op->item_count = shape->item_count;
        op->item_good = 0;
        kv->tick++;
        ab_task_start(task);
    }
    ab_lock_drop(&kv->lock);
    return status;
}

int ab_cache_put(struct abode_queue *queue, uint32_t model, struct abode_item *items,
                 uint32_t item_count, uint32_t durability, struct abode_op *op)
{
    const struct ab_kv *kv = ab_queue_kv(queue);
    if (items == NULL || item_count == 0 || durability > ABODE_DURABLE) {
        return -EINVAL;
    }
    if (kv->store == NULL && durability > ABODE_MEM) {
        return -EINVAL; /* a promise that cannot be kept */
    }
    uint32_t promise = durability != 0 ? durability : ABODE_WRITTEN;
    struct ab_task shape = {.model = model,
                            .items = items,
                            .item_count = item_count,
                            .promise =
                                kv->store == NULL ? AB_PROMISE_MEM : (enum ab_promise)promise};
    return op_start(queue, AB_TASK_PUT, &shape, op);
}

int ab_cache_get(struct abode_queue *queue, uint32_t model, struct abode_item *items,
                 uint32_t item_count, struct abode_op *op)
{
    if (items == NULL || item_count == 0) {
        return -EINVAL;
    }
    struct ab_task shape = {.model = model, .items = items, .item_count = item_count};
    return op_start(queue, AB_TASK_GET, &shape, op);
}

int ab_cache_delete(struct abode_queue *queue, uint32_t model, const struct abode_key *keys,
                    uint32_t key_count, struct abode_op *op)
{
    if (keys == NULL || key_count == 0) {
        return -EINVAL;
    }
    struct ab_task shape = {
        .model = model, .keys = keys, .item_count = key_count, .promise = AB_PROMISE_WRITTEN};
    return op_start(queue, AB_TASK_DELETE, &shape, op);
}

/* ---- the host's side of an item ---- */

static int item_check(struct ab_kv *kv, const struct ab_component *component,
                      const struct abode_item *item, struct ab_host_item *ret)
{
    struct ab_region *region = ab_region_get(kv, item->region);
    if (region == NULL || region->removing || item->bytes == 0 ||
        item->bytes > component->block_bytes) {
        return -EINVAL;
    }
    uint64_t end;
    if (region->host.plane_count == 0) {
        if (!ab_add_u64(item->offset, item->bytes, &end) || end > region->host.bytes) {
            return -EINVAL;
        }
    } else if (item->offset >= region->host.frame_count || item->bytes != region->item_bytes) {
        return -EINVAL;
    }
    *ret = (struct ab_host_item){.region = region, .offset = item->offset};
    return 0;
}

/* can the disk read or write the host's memory itself? */
static void *direct_address(const struct ab_host_item *host, uint64_t bytes)
{
    if (host->region->host.plane_count != 0) {
        return NULL;
    }
    unsigned char *address = (unsigned char *)host->region->host.base + host->offset;
    return (uintptr_t)address % AB_PAGE == 0 && bytes % AB_PAGE == 0 ? address : NULL;
}

static struct ab_region *item_region(struct ab_kv *kv, const struct abode_item *item)
{
    return &kv->regions[item->region];
}

static void item_fail(struct ab_task *task, uint32_t at, int status)
{
    task->items[at].status = status;
    if (task->failed_row == AB_INDEX_NONE || at < task->failed_row) {
        task->failed_row = at;
    }
}

/* ---- put ---- */

static void block_discard(struct ab_kv *kv, uint32_t index)
{
    struct ab_block *block = &kv->blocks[index];
    ab_block_unmark(block, AB_BLOCK_PENDING | AB_BLOCK_MOVING);
    ab_block_key_remove(kv, index);
    if (block->frame != AB_INDEX_NONE) {
        ab_frame_release(kv, index); /* ours alone: nobody reads what is PENDING */
    }
    ab_block_free(kv, index);
}

/* Did this put make the block, so that its frame is not filled yet? Else it was in memory before. */
static bool put_made(struct ab_kv *kv, const struct ab_block *block)
{
    return block->frame == AB_INDEX_NONE || ab_block_frame_info(kv, block)->state != AB_FRAME_READY;
}

/* A put failed: what it made goes; what was there before stays as it was. */
static void put_undo(struct ab_kv *kv, uint32_t index, bool made)
{
    if (made) {
        block_discard(kv, index);
    } else {
        ab_block_unmark(&kv->blocks[index], AB_BLOCK_PENDING | AB_BLOCK_MOVING);
    }
}

/* The index knows fingerprints; a key itself is known since the last open only if a call named it. */
static void key_learn(struct ab_kv *kv, uint32_t index, const struct abode_key *key)
{
    if (kv->keys != NULL) {
        kv->keys[index] = *key;
    }
}

static uint32_t block_make(struct ab_kv *kv, uint8_t id, const struct abode_item *item)
{
    uint64_t fingerprint[2];
    uint32_t index = ab_block_new(kv, id);
    if (index == AB_INDEX_NONE) {
        return index;
    }
    ab_block_fingerprint(id, 0, &item->key, fingerprint);
    ab_block_key_add(kv, index, fingerprint);
    key_learn(kv, index, &item->key);
    kv->blocks[index].bytes = (uint32_t)item->bytes;
    kv->blocks[index].stamp = kv->tick;
    ab_block_mark(&kv->blocks[index], AB_BLOCK_PENDING | AB_BLOCK_DIRTY);
    return index;
}

struct put {
    struct ab_task *task;
    struct ab_batch *batch;
    int status; /* -EAGAIN, -ENOBUFS: wait */
};

static void put_send(struct put *put)
{
    struct ab_task *task = put->task;
    struct ab_kv *kv = task->kv;
    struct ab_batch *batch = put->batch;
    put->batch = NULL;
    if (batch == NULL) {
        return;
    }
    uint32_t count = batch->count, blocks[AB_BATCH_ITEMS], items[AB_BATCH_ITEMS];
    for (uint32_t i = 0; i < count; i++) {
        blocks[i] = batch->moves[i]->block;
        items[i] = batch->moves[i]->item;
    }
    int status = ab_batch_send(kv, batch, AB_STREAM_CACHE, task->node);
    for (uint32_t i = 0; status != 0 && i < count; i++) {
        item_region(kv, &task->items[items[i]])->busy--;
        put_undo(kv, blocks[i], put_made(kv, &kv->blocks[blocks[i]]));
        if (status == -ENOSPC && task->room_tries < ROOM_TRIES_MAX) {
            task->item_at = AB_MIN(task->item_at, items[i]); /* again, when there is room */
            put->status = -ENOSPC;
        } else {
            item_fail(task, items[i], status);
        }
    }
}

/* 0: taken care of; -EAGAIN, -ENOBUFS: not now */
static int put_memory(struct put *put, uint32_t at, uint32_t index, const struct ab_host_item *host)
{
    struct ab_task *task = put->task;
    struct ab_kv *kv = task->kv;
    struct ab_move *move = ab_move_new(kv, task, AB_MOVE_COPY_IN, index);
    if (move == NULL) {
        return -EAGAIN;
    }
    if (ab_frame_obtain(kv, index, host->region->host.node, 0) == AB_INDEX_NONE) {
        ab_move_free(kv, move);
        return -ENOBUFS;
    }
    struct ab_frame_info *info = ab_block_frame_info(kv, &kv->blocks[index]);
    info->state = AB_FRAME_RESTORING;
    info->pins = 1;
    move->owns_frame = true;
    move->staged = true;
    move->host = *host;
    move->item = at;
    move->address = ab_block_address(kv, &kv->blocks[index]);
    ab_move_send(kv, move);
    return 0;
}

static int put_store(struct put *put, uint32_t at, uint32_t index, const struct ab_host_item *host)
{
    struct ab_task *task = put->task;
    struct ab_kv *kv = task->kv;
    struct ab_block *block = &kv->blocks[index];
    void *direct = direct_address(host, block->bytes);
    if (direct == NULL && block->frame == AB_INDEX_NONE) {
        if (ab_frame_obtain(kv, index, host->region->host.node, 0) == AB_INDEX_NONE) {
            return -ENOBUFS;
        }
        ab_block_frame_info(kv, block)->state = AB_FRAME_RESTORING;
    }
    for (uint32_t attempt = 0; attempt < 2; attempt++) {
        put->batch = put->batch != NULL ? put->batch : ab_batch_new(kv, task);
        if (put->batch == NULL) {
            return -EAGAIN;
        }
        if (ab_batch_add(kv, put->batch, index)) {
            struct ab_move *move = put->batch->moves[put->batch->count - 1];
            move->item = at;
            move->host = *host;
            move->staged = direct == NULL;
            move->address = direct == NULL ? move->address : direct;
            return 0;
        }
        if (put->batch->count == 0) {
            ab_list_push_back(&kv->transfer->batches_free, &put->batch->link);
            put->batch = NULL;
            return -EAGAIN;
        }
        put_send(put);
    }
    return -EAGAIN;
}

/* it is there: in memory only, and the promise wants more? then it is written from its frame */
static int put_existing(struct put *put, uint32_t at, uint32_t index)
{
    struct ab_task *task = put->task;
    struct ab_block *block = &task->kv->blocks[index];
    struct abode_item *item = &task->items[at];
    key_learn(task->kv, index, &item->key);
    if ((block->flags & AB_BLOCK_PENDING) != 0) {
        item_fail(task, at, -EAGAIN);
    } else if (block->bytes != item->bytes) {
        item_fail(task, at, -EEXIST); /* another size under the same name */
    } else if (task->promise > AB_PROMISE_MEM && !ab_block_is_stored(block)) {
        if ((block->flags & AB_BLOCK_MOVING) != 0) {
            return -EAGAIN; /* a spill writes it just now: soon it is stored */
        }
        struct ab_host_item host;
        uint8_t id;
        int status = item_check(task->kv, item_component(task->kv, task->model, &id), item, &host);
        if (status != 0) {
            item_fail(task, at, status);
            return 0;
        }
        ab_block_mark(block, AB_BLOCK_PENDING);
        status = put_store(put, at, index, &host);
        if (status != 0) {
            ab_block_unmark(block, AB_BLOCK_PENDING);
            return status;
        }
        item_region(task->kv, item)->busy++;
        item->status = -EINPROGRESS;
    } else if (task->promise < AB_PROMISE_DURABLE) {
        item->status = 0;
    } else if (ab_task_record(task) == NULL) {
        item_fail(task, at, -ENOMEM);
    } else {
        item->status = -EINPROGRESS; /* who put it may have asked for less: a commit syncs it */
    }
    return 0;
}

/* In the journal too: else it had the key again after a restart, and not its replacement. */
static int bad_drop(struct ab_task *task, uint32_t index)
{
    const struct ab_block *block = &task->kv->blocks[index];
    if ((block->flags & AB_BLOCK_MOVING) != 0 ||
        (block->frame != AB_INDEX_NONE && ab_block_frame_info(task->kv, block)->pins > 0)) {
        return -EAGAIN; /* a get that is about to hear of it */
    }
    struct ab_record *record = ab_task_record(task);
    if (record == NULL) {
        return -ENOMEM;
    }
    ab_record_block_drop(record, index);
    return 0;
}

static int put_item(struct put *put, uint32_t at)
{
    struct ab_task *task = put->task;
    struct ab_kv *kv = task->kv;
    struct abode_item *item = &task->items[at];
    uint8_t id = 0;
    const struct ab_component *component = item_component(kv, task->model, &id);
    struct ab_host_item host;
    int status = item_check(kv, component, item, &host);
    if (status != 0) {
        item_fail(task, at, status);
        return 0;
    }
    uint32_t index = find(kv, id, &item->key);
    if (index != AB_INDEX_NONE && (kv->blocks[index].flags & AB_BLOCK_BAD) == 0) {
        return put_existing(put, at, index);
    }
    if (index != AB_INDEX_NONE) { /* corrupt: this put is its replacement */
        status = bad_drop(task, index);
        if (status == -ENOMEM) {
            item_fail(task, at, status);
        }
        if (status != 0) {
            return status == -ENOMEM ? 0 : status;
        }
    }
    index = block_make(kv, id, item);
    if (index == AB_INDEX_NONE) {
        item_fail(task, at, -ABODE_EFULL);
        return 0;
    }
    status = task->promise > AB_PROMISE_MEM ? put_store(put, at, index, &host)
                                            : put_memory(put, at, index, &host);
    if (status != 0) {
        block_discard(kv, index);
        return status;
    }
    item_region(kv, item)->busy++;
    item->status = -EINPROGRESS;
    atomic_fetch_add_explicit(&kv->counters.bytes_accepted, item->bytes, memory_order_relaxed);
    return 0;
}

/* a put's bytes are on the disk (status 0: its entry is in the task's record) or are not */
void ab_cache_put_landed(struct ab_task *task, struct ab_move *move, int status)
{
    struct ab_kv *kv = task->kv;
    struct abode_item *item = &task->items[move->item];
    struct ab_block *block = &kv->blocks[move->block];
    bool made = put_made(kv, block);
    item_region(kv, item)->busy--;
    if (block->frame != AB_INDEX_NONE) {
        ab_block_frame_info(kv, block)->state = AB_FRAME_READY; /* the copy that was written */
    }
    if (status != 0) {
        item_fail(task, move->item, status);
        put_undo(kv, move->block, made);
    }
}

static void put_committed(struct ab_record *record, int status)
{
    struct ab_task *task = record->context;
    struct ab_kv *kv = task->kv;
    task->commits--;
    kv->transfer->in_flight--;
    for (size_t at = 0; status != 0 && at < record->size;) {
        const struct ab_entry_block_put *put = (const void *)(record->bytes + at);
        at += put->entry.size;
        const struct ab_block *block = &kv->blocks[put->block];
        bool read = put->entry.type == AB_ENTRY_BLOCK_PUT && block->frame != AB_INDEX_NONE &&
                    ab_block_frame_info(kv, block)->pins > 0; /* it was there before, then */
        if (put->entry.type == AB_ENTRY_BLOCK_PUT && !ab_block_is_stored(block) && !read) {
            ab_event_add(kv, put->block);
            block_discard(kv, put->block);
        }
    }
    if (status != 0 && task->status == 0) {
        task->status = status;
    }
    ab_task_runnable(task);
}

/* ---- get ---- */

static int get_start(struct ab_task *task, uint32_t at, uint32_t index,
                     const struct ab_host_item *host)
{
    struct ab_kv *kv = task->kv;
    struct ab_block *block = &kv->blocks[index];
    bool resident = block->frame != AB_INDEX_NONE;
    void *direct = resident ? NULL : direct_address(host, block->bytes);
    struct ab_move *move =
        ab_move_new(kv, task, resident ? AB_MOVE_COPY_OUT : AB_MOVE_RESTORE, index);
    if (move == NULL) {
        return -EAGAIN;
    }
    if (!resident && direct == NULL) {
        if (ab_frame_obtain(kv, index, host->region->host.node, 0) == AB_INDEX_NONE) {
            ab_move_free(kv, move);
            return -ENOBUFS;
        }
        ab_block_frame_info(kv, block)->state = AB_FRAME_RESTORING;
        ab_block_frame_info(kv, block)->pins = 0;
    }
    move->item = at;
    move->host = *host;
    move->staged = direct == NULL;
    move->address = direct;
    if (direct == NULL) {
        move->address = ab_block_address(kv, block);
        move->owns_frame = true;
        ab_frame_pin(kv, block);
    }
    if ((block->flags & AB_BLOCK_OWNED) == 0) {
        block->stamp = kv->tick;
    }
    ab_move_send(kv, move);
    return 0;
}

static int get_item(struct ab_task *task, uint32_t at)
{
    struct ab_kv *kv = task->kv;
    struct abode_item *item = &task->items[at];
    uint8_t id = 0;
    const struct ab_component *component = item_component(kv, task->model, &id);
    uint32_t index = find(kv, id, &item->key);
    if (index == AB_INDEX_NONE) {
        item_fail(task, at, -ENOENT);
        return 0;
    }
    const struct ab_block *block = &kv->blocks[index];
    key_learn(kv, index, &item->key);
    if ((block->flags & AB_BLOCK_BAD) != 0) {
        item_fail(task, at, -ABODE_ECORRUPT);
        return 0;
    }
    bool filling =
        block->frame != AB_INDEX_NONE && ab_block_frame_info(kv, block)->state != AB_FRAME_READY;
    if ((block->flags & AB_BLOCK_PENDING) != 0) {
        item_fail(task, at, -EAGAIN);
        return 0;
    }
    if (filling || ab_block_is_leaving(block)) {
        return -EAGAIN; /* another get fills it, or it is about to have moved: soon */
    }
    uint64_t capacity = item->bytes;
    item->bytes = block->bytes;
    if (capacity < block->bytes) {
        item_fail(task, at, -ENOBUFS);
        return 0;
    }
    struct ab_host_item host;
    int status = item_check(kv, component, item, &host);
    if (status == 0) {
        status = get_start(task, at, index, &host);
        if (status != 0) {
            item->bytes = capacity;
            return status;
        }
        item_region(kv, item)->busy++;
        item->status = -EINPROGRESS;
    } else {
        item_fail(task, at, status);
    }
    return 0;
}

void ab_cache_move_done(struct ab_task *task, struct ab_move *move)
{
    struct ab_kv *kv = task->kv;
    struct ab_block *block = &kv->blocks[move->block];
    struct abode_item *item = &task->items[move->item];
    item_region(kv, item)->busy--;
    if (task->kind == AB_TASK_PUT) { /* MEM: copied in */
        ab_block_frame_info(kv, block)->state = AB_FRAME_READY;
        ab_block_unmark(block, AB_BLOCK_PENDING);
        item->status = 0;
        return;
    }
    bool same_slot = block->segment == move->slot.segment && block->page == move->slot.page;
    if (move->status == 0) {
        item->status = 0;
    } else if (move->status == -ABODE_ECORRUPT && !same_slot) {
        task->item_at = AB_MIN(task->item_at, move->item); /* it moved while it was read: again */
    } else {
        if (move->status == -ABODE_ECORRUPT) {
            ab_block_found_bad(kv, move->block);
        }
        item_fail(task, move->item, move->status);
    }
}

/* ---- delete ---- */

/* -EAGAIN: it is being written or read just now. A key that is not there commits all the same, and
 * behind every delete that was asked for before: one that failed, or is on its way still, has taken
 * the item out of memory, but the journal may bring it back. */
static int delete_item(struct ab_task *task, uint32_t at)
{
    struct ab_kv *kv = task->kv;
    uint8_t id = 0;
    (void)item_component(kv, task->model, &id);
    uint32_t index = find(kv, id, &task->keys[at]);
    const struct ab_block *block = index == AB_INDEX_NONE ? NULL : &kv->blocks[index];
    bool busy = block != NULL &&
                ((block->flags & (AB_BLOCK_PENDING | AB_BLOCK_MOVING)) != 0 ||
                 (block->frame != AB_INDEX_NONE && ab_block_frame_info(kv, block)->pins > 0));
    if (busy) {
        return -EAGAIN;
    }
    struct ab_record *record = ab_task_record(task);
    if (record == NULL) {
        task->status = -ENOMEM; /* of the op: nothing would wake one that waits for memory */
    } else if (block != NULL) {
        ab_record_block_drop(record, index);
    }
    return 0;
}

/* ---- steps ---- */

static void committed(struct ab_record *record, int status)
{
    struct ab_task *task = record->context;
    task->commits--;
    task->kv->transfer->in_flight--;
    task->status = task->status == 0 ? status : task->status;
    ab_task_runnable(task);
}

static int issue_one(struct ab_task *task, struct put *put, uint32_t at)
{
    if (task->kind == AB_TASK_PUT) {
        return put_item(put, at);
    }
    return task->kind == AB_TASK_GET ? get_item(task, at) : delete_item(task, at);
}

static void cache_end(struct ab_task *task)
{
    bool all = true;
    uint32_t good = 0;
    if (task->items != NULL) {
        for (uint32_t i = 0; i < task->item_count; i++) {
            struct abode_item *item = &task->items[i];
            if (item->status == -EINPROGRESS) {
                item->status = task->status;
            } else if (i >= task->item_at) {
                item->status = task->status;
            }
            good += all && item->status == 0;
            all = all && item->status == 0;
        }
        task->op->item_good = good;
    }
    int status = task->status != 0 ? task->status : all ? 0 : -ABODE_EPARTIAL;
    ab_task_finish(task, status);
}

void ab_cache_step(struct ab_task *task)
{
    if (task->phase == AB_PHASE_START) {
        task->failed_row = AB_INDEX_NONE;
        task->phase = AB_PHASE_ISSUE;
    }
    if (task->cancelled && task->status == 0) {
        task->status = -ECANCELED;
    }
    struct put put = {.task = task};
    int status = 0;
    uint32_t issued = 0;
    while (task->status == 0 && task->item_at < task->item_count && issued++ < ITEMS_PER_STEP &&
           status == 0 && put.status == 0) {
        uint32_t at = task->item_at++;
        status = issue_one(task, &put, at);
        task->item_at -= status != 0;
    }
    put_send(&put);
    if (put.status == -ENOSPC && task->pending == 0 && task->commits == 0) {
        if (!ab_reclaim_room(task, false)) { /* nothing would wake it: a last try, then -ENOSPC */
            task->room_tries = ROOM_TRIES_MAX;
            ab_task_runnable(task);
        }
        return;
    }
    bool more = task->status == 0 && task->item_at < task->item_count;
    bool commit = task->record != NULL && (task->record_bytes >= AB_COMMIT_BYTES || status != 0 ||
                                           (!more && task->pending == 0));
    if (commit) {
        ab_task_commit(task, task->kind == AB_TASK_PUT ? put_committed : committed);
    }
    if (more && status == 0 && put.status == 0) {
        ab_task_runnable(task);
    } else if (task->pending > 0 || task->commits > 0) {
        ab_list_remove(&task->link);
        if (more) {
            ab_task_wait(task, status == -ENOBUFS);
        }
    } else if (more) {
        ab_task_wait(task, status == -ENOBUFS);
    } else {
        cache_end(task);
    }
}
