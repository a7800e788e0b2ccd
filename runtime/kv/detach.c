/*
 * detach.c - keep a session's promise: write what the store does not have, commit, unpin. Also the
 * spill of a cold session under memory pressure, which is the same without a session record.
 *
 *   START -> ISSUE (dirty blocks into batches; commit every 16 MiB) -> WAIT -> COMMIT (the rest and
 *   the session's record in one commit) -> DONE
 *
 * Lock KV held throughout.
 */
#include "base/num.h"
#include "kv/reclaim.h"
#include "kv/session.h"
#include "kv/transfer.h"

#define END_PER_STEP 64 /* rows unpinned, frames given back, per hold of the lock: a few us */

static struct ab_session *task_session(const struct ab_task *task)
{
    return &task->kv->sessions[task->session];
}

/* ---- the walk over dirty blocks, in batches ---- */

struct walk {
    struct ab_task *task;
    struct ab_batch *batch;
    enum ab_stream stream;
    int status;  /* -EAGAIN: no batch or move now */
    bool moving; /* met a block that another task writes */
    /* places in the session: every block has one, rows first, then restore points */
    uint64_t at, batch_at; /* now, and where the batch begins */
    uint64_t back;         /* first one that the next step must look at again */
};

static void walk_send(struct walk *walk)
{
    struct ab_task *task = walk->task;
    if (walk->batch == NULL) {
        return;
    }
    int status = ab_batch_send(task->kv, walk->batch, walk->stream, task->node);
    if (status != 0) {
        walk->back = AB_MIN(walk->back, walk->batch_at);
    }
    walk->batch = NULL;
    walk->status = status != 0 ? status : walk->status;
    task->wrote |= status == 0;
}

/* A partly filled row keeps its block's number: what is written now takes the place of bytes that the
 * committed record rests on. If that is DURABLE (or of an earlier process, and may be), so is this: a
 * power cut must not leave the journal with the new place, and the disk without its bytes. */
static void supersede(struct ab_task *task)
{
    const struct ab_session *session = task_session(task);
    const enum ab_promise before = session->recorded && session->stored_promise == 0
                                       ? AB_PROMISE_DURABLE
                                       : (enum ab_promise)session->stored_promise;
    task->promise = AB_MAX(task->promise, before);
}

static bool walk_block(struct walk *walk, uint32_t index, enum ab_stream stream)
{
    struct ab_kv *kv = walk->task->kv;
    if (index == AB_INDEX_NONE || (kv->blocks[index].flags & AB_BLOCK_DIRTY) == 0) {
        return true;
    }
    if ((kv->blocks[index].flags & AB_BLOCK_MOVING) != 0) {
        walk->back = AB_MIN(walk->back, walk->at);
        walk->moving = true;
        return true;
    }
    if (walk->batch != NULL && walk->stream != stream) {
        walk_send(walk);
    }
    for (uint32_t attempt = 0; attempt < 2 && walk->status == 0; attempt++) {
        if (walk->batch == NULL) {
            walk->batch = ab_batch_new(kv, walk->task);
            walk->stream = stream;
            walk->batch_at = walk->at;
        }
        if (walk->batch == NULL) {
            walk->status = -EAGAIN;
        } else if (ab_batch_add(kv, walk->batch, index)) {
            if (ab_block_is_stored(&kv->blocks[index])) {
                supersede(walk->task);
            }
            return true;
        } else if (walk->batch->count == 0) { /* no move: the empty batch goes back */
            ab_list_push_back(&kv->transfer->batches_free, &walk->batch->link);
            walk->batch = NULL;
            walk->status = -EAGAIN;
        } else {
            walk_send(walk);
        }
    }
    return false;
}

/* The block at a place; AB_INDEX_NONE: none there, or not to be kept. */
static uint32_t block_at(const struct ab_task *task, uint64_t at, uint32_t rows,
                         enum ab_stream *ret_stream)
{
    const struct ab_session *session = task_session(task);
    const struct ab_model *model = &task->kv->models[session->model];
    const uint64_t row = at / model->component_count;
    const uint32_t c = (uint32_t)(at % model->component_count);
    const bool has_rows = ab_component_has_rows(&model->components[c]);
    if (row < rows) {
        *ret_stream =
            row < task->token_count / model->block_tokens ? AB_STREAM_SEALED : AB_STREAM_TAIL;
        return has_rows && row >= session->row_first[c] ? ab_session_rows(task->kv, session, c)[row]
                                                        : AB_INDEX_NONE;
    }
    const struct ab_restore_point *point = &session->points[row - rows];
    *ret_stream = AB_STREAM_TAIL;
    return !has_rows && point->token_count <= task->token_count ? point->blocks[c] : AB_INDEX_NONE;
}

/* From where the last step of the task came to: what lies before is clean, or in batches of ours. A
 * block that another task writes, and a batch that could not be sent, hold that place back. */
static void walk_session(struct walk *walk)
{
    struct ab_task *task = walk->task;
    const struct ab_session *session = task_session(task);
    const struct ab_model *model = &task->kv->models[session->model];
    const uint32_t rows = ab_rows_of(model, task->token_count);
    const uint64_t first = (uint64_t)session->dirty_row * model->component_count;
    const uint64_t end = ((uint64_t)rows + session->point_count) * model->component_count;
    bool going = true;
    walk->back = UINT64_MAX;
    for (walk->at = AB_MAX(first, task->walked); going && walk->at < end;) {
        enum ab_stream stream;
        const uint32_t block = block_at(task, walk->at, rows, &stream);
        going = walk_block(walk, block, stream);
        walk->at += going;
    }
    walk_send(walk);
    task->walked = AB_MIN(walk->at, walk->back);
}

static void part_committed(struct ab_record *record, int status)
{
    struct ab_task *task = record->context;
    task->commits--;
    task->kv->transfer->in_flight--;
    if (status != 0 && task->status == 0) {
        task->status = status;
    }
    ab_task_runnable(task);
}

/* ---- the end ---- */

/* true: nothing more goes */
static bool evict_some(struct ab_kv *kv, struct ab_session *session)
{
    const struct ab_model *model = &kv->models[session->model];
    uint32_t left = END_PER_STEP;
    for (uint32_t c = 0; c < model->component_count && left > 0; c++) {
        for (uint32_t node = 0; node < kv->transfer->node_count && left > 0; node++) {
            left -= ab_reclaim_session(kv, session, c, node, left);
        }
    }
    return left > 0;
}

/* A long session gives its pins and frames back some rows a step. true: all is done */
static bool detach_let_go(struct ab_task *task)
{
    struct ab_kv *kv = task->kv;
    struct ab_session *session = task_session(task);
    if (!task->unpinned) {
        if (!ab_session_unpin_some(kv, session, &task->row, END_PER_STEP)) {
            return false;
        }
        ab_session_detached(kv, session);
        task->unpinned = true;
    }
    const bool leaves = task->status == 0 && (task->flags & ABODE_DETACH_SPILL_NOW) != 0;
    return !leaves || evict_some(kv, session);
}

static void detach_end(struct ab_task *task)
{
    struct ab_kv *kv = task->kv;
    struct ab_session *session = task_session(task);
    int status = task->status;
    if (task->kind == AB_TASK_SPILL) {
        session->spill = NULL;
        kv->transfer->spill_status = status;
        kv->transfer->spill_retry_ns = status == 0 ? 0 : kv->os->clock_ns(kv->os) + SPILL_PAUSE_NS;
        if (session->state == AB_SESSION_DELETED) {
            int deleted = ab_session_delete_now(kv, session);
            status = status != 0 ? status : deleted; /* out of memory: back at the next open */
        }
        ab_task_finish(task, status);
        return;
    }
    const bool pinned = task->op != NULL; /* else flush: detached all along */
    const bool stays = (task->flags & ABODE_DETACH_KEEP) != 0;
    if (pinned && !stays && !detach_let_go(task)) {
        ab_task_runnable(task);
        return;
    }
    if (pinned && stays) {
        __atomic_store_n(&session->state, AB_SESSION_ATTACHED, __ATOMIC_RELEASE);
    }
    session->task = NULL;
    session->detach_status = status;
    ab_task_finish(task, status);
}

static void session_committed(struct ab_record *record, int status)
{
    struct ab_task *task = record->context;
    struct ab_kv *kv = task->kv;
    struct ab_session *session = task_session(task);
    const struct ab_model *model = &kv->models[session->model];
    task->commits--;
    kv->transfer->in_flight--;
    if (status == 0) {
        ab_session_stored(kv, session, task->token_count, false);
        session->dirty_row = (uint32_t)(task->token_count / model->block_tokens);
        ab_session_note_committed(kv, session);
        session->stored_promise = (uint8_t)task->promise;
        /* what only the old record named can go now */
        struct ab_record *drops = ab_record_new(kv);
        if (drops != NULL) {
            ab_session_let_go(kv, session, drops);
            ab_session_points_prune(kv, session, true, drops);
            ab_session_slide(kv, session, true, drops);
            ab_record_submit(drops, AB_PROMISE_WRITTEN);
        }
    } else {
        session->changed = true;
        task->status = task->status == 0 ? status : task->status;
    }
    task->phase = AB_PHASE_DONE;
    ab_task_runnable(task);
}

/* ---- steps ---- */

/* The committed record says of the session what a new one would say. */
static bool record_is_current(const struct ab_task *task)
{
    const struct ab_session *session = task_session(task);
    return session->recorded && !session->changed && !session->note_dirty && !task->wrote &&
           session->stored_tokens == task->token_count;
}

/* For a session whose record is current, so WRITTEN at least. DURABLE also promises that what was
 * deleted before stays so. */
static bool promise_is_kept(const struct ab_task *task)
{
    const struct ab_kv *kv = task->kv;
    return task->promise < AB_PROMISE_DURABLE ||
           (task_session(task)->stored_promise == AB_PROMISE_DURABLE &&
            kv->deletes_durable == kv->deletes);
}

static void promise_committed(struct ab_record *record, int status)
{
    struct ab_task *task = record->context;
    if (status == 0) {
        task_session(task)->stored_promise = (uint8_t)task->promise;
    }
    part_committed(record, status);
}

static bool needs_store(const struct ab_task *task)
{
    return task->kv->store != NULL &&
           (task->kind == AB_TASK_SPILL || task->promise > AB_PROMISE_MEM);
}

static int detach_begin(struct ab_task *task)
{
    struct ab_kv *kv = task->kv;
    struct ab_session *session = task_session(task);
    /* Nothing that the committed record names may be cut here, and nothing that the host counts on
     * without its hearing of it: what is damaged, attach tells, and cuts. */
    task->token_count = ab_session_position(kv, session);
    if (task->kind == AB_TASK_DETACH &&
        ab_session_restore_point(kv, session, session->token_count) != task->token_count) {
        return -ABODE_ECORRUPT;
    }
    /* a detach that found no memory has left its tail: nobody would write it, or free it */
    const uint32_t rows = ab_rows_of(&kv->models[session->model], task->token_count);
    const bool has_left_tail = session->state == AB_SESSION_DETACHED && rows < session->row_count;
    const bool leaves = task->kind == AB_TASK_DETACH && (task->flags & ABODE_DETACH_KEEP) == 0;
    if (leaves || has_left_tail) {
        struct ab_record *record = ab_record_new(kv);
        if (record == NULL) {
            return -ENOMEM;
        }
        ab_session_cut(kv, session, task->token_count, record);
        ab_record_submit(record, AB_PROMISE_WRITTEN);
    }
    return 0;
}

/* A session that is only looked at needs no room in a full store: at most a sync, of what is there. */
static void session_commit(struct ab_task *task)
{
    const bool detaches = task->kind == AB_TASK_DETACH;
    const bool record_needed = detaches && !record_is_current(task);
    const bool sync_needed = detaches && !record_needed && !promise_is_kept(task);
    if (!record_needed && !sync_needed && task->record == NULL) {
        task->phase = AB_PHASE_DONE;
        ab_task_runnable(task);
        return;
    }
    struct ab_record *record = ab_task_record(task);
    if (record == NULL) {
        task->status = -ENOMEM;
        task->phase = AB_PHASE_DONE;
        ab_task_runnable(task);
        return;
    }
    if (!record_needed) {
        task->phase = AB_PHASE_DONE;
        ab_list_remove(&task->link);
        ab_task_commit(task, sync_needed ? promise_committed : part_committed);
        return;
    }
    ab_record_session(record, task->session, task->token_count, false);
    task_session(task)->changed = false;
    task->phase = AB_PHASE_COMMIT;
    ab_list_remove(&task->link);
    ab_task_commit(task, session_committed);
}

static void detach_issue(struct ab_task *task)
{
    struct walk walk = {.task = task};
    walk_session(&walk);
    bool quiet = task->pending == 0 && task->commits == 0; /* else what is under way frees some */
    bool full = walk.status == -ENOSPC && task->status == 0;
    if (full && !quiet) {
        ab_list_remove(&task->link); /* a batch or a commit steps it again */
        return;
    }
    if (full && task->record != NULL) { /* the places of before are dead then: that may be room */
        ab_list_remove(&task->link);
        ab_task_commit(task, part_committed);
        return;
    }
    if (full && ab_reclaim_room(task, true)) {
        return;
    }
    if (walk.status != 0 && walk.status != -EAGAIN) {
        task->status = task->status == 0 ? walk.status : task->status;
        task->phase = AB_PHASE_WAIT;
        ab_task_runnable(task);
    } else if (task->record_bytes >= AB_COMMIT_BYTES ||
               (task->record != NULL &&
                task->record->commit.segment_count >= AB_COMMIT_SEGMENTS_MAX - 8)) {
        ab_list_remove(&task->link);
        ab_task_commit(task, part_committed);
    } else if (task->pending > 0) {
        ab_list_remove(&task->link); /* a batch that ends steps it again */
    } else if (walk.status == -EAGAIN || walk.moving) {
        if (task->record != NULL) { /* it may be our own batches' pins that all wait for */
            ab_list_remove(&task->link);
            ab_task_commit(task, part_committed);
        } else {
            ab_task_wait(task, false);
        }
    } else {
        task->phase = AB_PHASE_WAIT;
        ab_task_runnable(task);
    }
}

void ab_detach_step(struct ab_task *task)
{
    const struct ab_session *session = task_session(task);
    if (task->phase == AB_PHASE_START) {
        if (session->spill != NULL && session->spill != task) {
            ab_task_wait(task, false);
            return;
        }
        int status = detach_begin(task);
        task->status = task->status == 0 ? status : task->status;
        task->phase = needs_store(task) && task->status == 0 ? AB_PHASE_ISSUE : AB_PHASE_DONE;
    }
    if (task->phase == AB_PHASE_ISSUE && (task->status != 0 || task->cancelled)) {
        task->status = task->status != 0 ? task->status : -ECANCELED;
        task->phase = AB_PHASE_WAIT;
    }
    if (task->phase == AB_PHASE_ISSUE) {
        detach_issue(task);
        return;
    }
    if (task->pending > 0 || task->commits > 0 || task->phase == AB_PHASE_COMMIT) {
        ab_list_remove(&task->link);
        return;
    }
    if (task->phase == AB_PHASE_WAIT && task->status != 0) {
        if (task->record != NULL) { /* what was written may as well count */
            task->phase = AB_PHASE_DONE;
            ab_list_remove(&task->link);
            ab_task_commit(task, part_committed);
            return;
        }
        task->phase = AB_PHASE_DONE;
    }
    if (task->phase == AB_PHASE_WAIT) {
        session_commit(task);
    } else if (task->phase == AB_PHASE_DONE) {
        detach_end(task);
    }
}

bool ab_spill_session_start(struct ab_kv *kv, uint32_t index)
{
    struct ab_session *session = &kv->sessions[index];
    struct ab_task *task = ab_task_own_new(kv, AB_TASK_SPILL);
    if (task == NULL) {
        return false;
    }
    task->session = index;
    task->model = session->model;
    task->node = session->home_node;
    task->promise = AB_PROMISE_WRITTEN;
    session->spill = task;
    ab_task_start(task);
    return true;
}
