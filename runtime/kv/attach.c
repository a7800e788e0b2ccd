/*
 * attach.c - restore a session at its newest whole restore point, verify, pin.
 *
 *   START -> ISSUE (row by row: pin what is there, start moves for the rest) -> WAIT (all of it
 *   READY, or failed) -> DONE, or with PREFIX_OK a shorter position and ISSUE again
 *
 * A block may be shared with another session whose move fills it: then it is pinned and waited for.
 * Everything here runs under lock KV. A prefetch is the same without pins and without a result.
 */
#include "base/num.h"
#include "kv/session.h"
#include "kv/transfer.h"

#define ISSUE_PER_STEP 16 /* rows looked at per hold of the lock: a few us */

static struct ab_session *task_session(const struct ab_task *task)
{
    return &task->kv->sessions[task->session];
}

static bool keeps_pins(const struct ab_task *task)
{
    return task->kind == AB_TASK_ATTACH;
}

static void attach_begin(struct ab_task *task)
{
    struct ab_kv *kv = task->kv;
    struct ab_session *session = task_session(task);
    const struct ab_model *model = &kv->models[session->model];
    task->limit = AB_MIN(task->limit, session->token_count);
    task->token_count = ab_session_restore_point(kv, session, task->limit);
    task->row = 0;
    task->component = 0;
    task->rows_good = 0;
    task->failed_row = AB_INDEX_NONE;
    task->point_failed = false;
    if (keeps_pins(task)) {
        for (uint32_t c = 0; c < model->component_count; c++) {
            if (ab_component_has_rows(&model->components[c])) {
                uint32_t *frames = ab_session_frames(kv, session, c);
                for (uint32_t row = 0; row < session->row_count; row++) {
                    __atomic_store_n(&frames[row], ABODE_FRAME_NONE, __ATOMIC_RELAXED);
                }
            }
        }
        task->op->item_count = ab_rows_of(model, task->token_count);
        __atomic_store_n(&task->op->item_good, 0, __ATOMIC_RELEASE);
    }
    task->phase = AB_PHASE_ISSUE;
}

/* 0: pinned (and being restored, if need be); -EAGAIN, -ENOBUFS: not now; else it failed */
static int block_want(struct ab_task *task, uint32_t index)
{
    struct ab_kv *kv = task->kv;
    const struct ab_session *session = task_session(task);
    struct ab_block *block = &kv->blocks[index];
    if ((block->flags & AB_BLOCK_BAD) != 0) {
        return -ABODE_ECORRUPT;
    }
    if (block->frame == AB_INDEX_NONE) {
        if (!ab_block_is_stored(block)) {
            return -ABODE_ECORRUPT; /* cannot be: neither in memory nor stored */
        }
        int32_t node = task->node >= 0 ? task->node : session->home_node;
        int status = ab_restore_start(kv, task, index, node, session->tenant);
        if (status != 0) {
            return status;
        }
    } else if (ab_block_frame_info(kv, block)->state == AB_FRAME_FAILED) {
        return -EIO;
    }
    if (keeps_pins(task)) {
        ab_frame_pin(kv, block);
    }
    return 0;
}

static bool not_now(int status)
{
    return status == -EAGAIN || status == -ENOBUFS;
}

/* false: wait */
static bool issue_row(struct ab_task *task)
{
    struct ab_kv *kv = task->kv;
    struct ab_session *session = task_session(task);
    const struct ab_model *model = &kv->models[session->model];
    for (; task->component < model->component_count; task->component++) {
        uint32_t c = task->component;
        if (!ab_component_has_rows(&model->components[c]) || task->row < session->row_first[c]) {
            continue;
        }
        uint32_t block = ab_session_rows(kv, session, c)[task->row];
        if (block == AB_INDEX_NONE) {
            continue; /* slid out between two positions */
        }
        bool older = task->row < ab_window_first(model, c, task->token_count);
        bool here = kv->blocks[block].frame != AB_INDEX_NONE &&
                    (kv->blocks[block].flags & AB_BLOCK_BAD) == 0;
        if (older && !here) {
            continue; /* of an older restore point only: pinned if here, not brought back */
        }
        int status = block_want(task, block);
        if (not_now(status)) {
            ab_task_wait(task, status == -ENOBUFS);
            return false;
        }
        if (status != 0) {
            task->failed_row = AB_MIN(task->failed_row, task->row);
            task->status = status;
            return true;
        }
        if (keeps_pins(task)) {
            ab_session_frames(kv, session, c)[task->row] = kv->blocks[block].frame;
        }
    }
    task->component = 0;
    task->row++;
    return true;
}

/* snapshots of the restore point; false: wait */
static bool issue_point(struct ab_task *task)
{
    struct ab_kv *kv = task->kv;
    struct ab_session *session = task_session(task);
    const struct ab_model *model = &kv->models[session->model];
    struct ab_restore_point *point = ab_session_point(session, task->token_count);
    if (point == NULL) {
        return true;
    }
    for (; task->component < model->component_count; task->component++) {
        uint32_t c = task->component;
        if (ab_component_has_rows(&model->components[c])) {
            continue;
        }
        int status = block_want(task, point->blocks[c]);
        if (not_now(status)) {
            ab_task_wait(task, status == -ENOBUFS);
            return false;
        }
        if (status != 0) {
            task->point_failed = true;
            task->status = status;
            break;
        }
        point->pinned |= (uint8_t)(1u << c);
    }
    return true;
}

static enum ab_frame_state row_state(struct ab_task *task, uint32_t row)
{
    struct ab_kv *kv = task->kv;
    const struct ab_session *session = task_session(task);
    const struct ab_model *model = &kv->models[session->model];
    enum ab_frame_state worst = AB_FRAME_READY;
    for (uint32_t c = 0; c < model->component_count; c++) {
        if (!ab_component_has_rows(&model->components[c])) {
            continue;
        }
        uint32_t frame = ab_session_frames(kv, session, c)[row];
        if (frame == ABODE_FRAME_NONE) {
            continue;
        }
        enum ab_frame_state state = model->components[c].infos[frame].state;
        if (state == AB_FRAME_FAILED) {
            return state;
        }
        worst = state == AB_FRAME_RESTORING ? state : worst;
    }
    return worst;
}

static int failure_of(const struct ab_task *task, uint32_t row)
{
    struct ab_kv *kv = task->kv;
    const struct ab_session *session = task_session(task);
    const struct ab_model *model = &kv->models[session->model];
    for (uint32_t c = 0; c < model->component_count; c++) {
        if (!ab_component_has_rows(&model->components[c]) || row < session->row_first[c]) {
            continue;
        }
        uint32_t block = ab_session_rows(kv, session, c)[row];
        if (block != AB_INDEX_NONE && (kv->blocks[block].flags & AB_BLOCK_BAD) != 0) {
            return -ABODE_ECORRUPT;
        }
    }
    return -EIO;
}

/* Move rows_good on; false: something is still being restored. */
static bool rows_check(struct ab_task *task)
{
    while (task->rows_good < task->row && task->failed_row == AB_INDEX_NONE) {
        enum ab_frame_state state = row_state(task, task->rows_good);
        if (state == AB_FRAME_RESTORING) {
            break;
        }
        if (state == AB_FRAME_FAILED) {
            task->failed_row = task->rows_good;
            task->status = failure_of(task, task->rows_good);
            break;
        }
        task->rows_good++;
    }
    /* with the acquire of abode_attach_ready(): the host reads frames[] and rows up to here */
    __atomic_store_n(&task->op->item_good, task->rows_good, __ATOMIC_RELEASE);
    return task->rows_good == task->row || task->failed_row != AB_INDEX_NONE;
}

static bool point_check(struct ab_task *task)
{
    struct ab_kv *kv = task->kv;
    const struct ab_model *model = &kv->models[task->model];
    const struct ab_restore_point *point = ab_session_point(task_session(task), task->token_count);
    for (uint32_t c = 0; point != NULL && !task->point_failed && c < task->component; c++) {
        if (ab_component_has_rows(&model->components[c])) {
            continue;
        }
        const struct ab_block *block = &kv->blocks[point->blocks[c]];
        enum ab_frame_state state = ab_block_frame_info(kv, block)->state;
        if (state == AB_FRAME_RESTORING) {
            return false;
        }
        if (state == AB_FRAME_FAILED) {
            task->point_failed = true;
            task->status = (block->flags & AB_BLOCK_BAD) != 0 ? -ABODE_ECORRUPT : -EIO;
        }
    }
    return true;
}

/* What older points have in memory is pinned too: nobody evicts from an attached session. */
static void points_pin(struct ab_kv *kv, struct ab_session *session)
{
    const struct ab_model *model = &kv->models[session->model];
    for (uint32_t i = 0; i < session->point_count; i++) {
        struct ab_restore_point *point = &session->points[i];
        for (uint32_t c = 0; c < model->component_count; c++) {
            bool here = !ab_component_has_rows(&model->components[c]) &&
                        (point->pinned >> c & 1) == 0 &&
                        kv->blocks[point->blocks[c]].frame != AB_INDEX_NONE;
            if (here) {
                ab_frame_pin(kv, &kv->blocks[point->blocks[c]]);
                point->pinned |= (uint8_t)(1u << c);
            }
        }
    }
}

static void attach_give_up(struct ab_task *task, int status)
{
    struct ab_kv *kv = task->kv;
    struct ab_session *session = task_session(task);
    ab_session_unpin(kv, session);
    session->task = NULL;
    ab_session_detached(kv, session);
    ab_task_finish(task, status);
}

static void attach_done(struct ab_task *task)
{
    struct ab_kv *kv = task->kv;
    struct ab_session *session = task_session(task);
    const bool has_tail =
        task->token_count < session->token_count; /* a detach that failed left it */
    const bool shorter = task->token_count < ab_session_position(kv, session);
    struct ab_record *record = has_tail ? ab_record_new(kv) : NULL;
    if (has_tail && record == NULL) {
        attach_give_up(task, -ENOMEM); /* detached still, as long as it was */
        return;
    }
    points_pin(kv, session);
    session->task = NULL;
    ab_list_remove(&session->lru);
    session->ended = false;
    session->keep_until_ns = 0;
    session->next_use_ns = 0;
    __atomic_store_n(&session->state, AB_SESSION_ATTACHED, __ATOMIC_RELEASE);
    if (has_tail) {
        ab_session_cut(kv, session, task->token_count, record);
    }
    if (shorter) {
        ab_record_session(record, task->session, task->token_count, true);
        ab_session_stored(kv, session, task->token_count, true);
        session->changed = true; /* the next promise waits for a commit after this one */
    }
    if (has_tail) {
        ab_record_submit(record, AB_PROMISE_WRITTEN);
    }
    ab_task_finish(task, shorter ? -ABODE_EPARTIAL : 0);
}

/* A row or the point failed: the next position below, if the host takes one. */
static void attach_shorten(struct ab_task *task)
{
    struct ab_kv *kv = task->kv;
    const struct ab_model *model = &kv->models[task->model];
    if ((task->flags & ABODE_ATTACH_PREFIX_OK) == 0) {
        attach_give_up(task, task->status);
        return;
    }
    uint64_t limit = task->token_count;
    if (task->failed_row != AB_INDEX_NONE) {
        limit = (uint64_t)task->failed_row * model->block_tokens;
    }
    if (task->point_failed && limit > 0) {
        limit = AB_MIN(limit, task->token_count - 1);
    }
    ab_session_unpin(kv, task_session(task));
    task->limit = limit;
    task->status = 0;
    attach_begin(task);
    ab_task_runnable(task);
}

static void prefetch_step(struct ab_task *task)
{
    struct ab_kv *kv = task->kv;
    struct ab_session *session = task_session(task);
    bool gone = session->generation != task->generation || session->state != AB_SESSION_DETACHED ||
                task->status != 0;
    if (task->phase == AB_PHASE_START && !gone) {
        task->limit = UINT64_MAX;
        attach_begin(task);
    }
    uint32_t rows = ab_rows_of(&kv->models[task->model], task->token_count);
    for (uint32_t i = 0; i < ISSUE_PER_STEP && !gone && task->row < rows; i++) {
        if (!issue_row(task)) {
            return;
        }
        gone = task->failed_row != AB_INDEX_NONE;
    }
    if (!gone && task->row < rows) {
        ab_task_runnable(task);
    } else if (task->pending > 0) {
        ab_list_remove(&task->link); /* the last move makes it runnable */
    } else {
        if (!gone) {
            ab_session_detached(kv, session); /* has frames again: warm end of the LRU */
        }
        ab_task_finish(task, 0);
    }
}

void ab_attach_step(struct ab_task *task)
{
    struct ab_kv *kv = task->kv;
    if (task->kind == AB_TASK_PREFETCH) {
        prefetch_step(task);
        return;
    }
    if (task->phase == AB_PHASE_START) {
        task->limit = UINT64_MAX;
        attach_begin(task);
        const struct ab_session *session = task_session(task);
        bool shorter = task->token_count < ab_session_position(kv, session);
        if (shorter && (task->flags & ABODE_ATTACH_PREFIX_OK) == 0) {
            attach_give_up(task, -ABODE_ECORRUPT); /* an earlier attach or verify found it */
            return;
        }
    }
    bool ended = task->status == -ETIMEDOUT || task->cancelled || task->status == -ABODE_EFULL ||
                 task->status == -ENOSPC;
    if (ended) {
        /* moves in flight have pins of their own: they end later, for whoever comes next. The host's
         * time is over: it does not wait for a device that does not answer. */
        bool over = task->status == -ETIMEDOUT || task->cancelled;
        if (task->pending > 0 && !(over && ab_task_restores_leave(task))) {
            ab_list_remove(&task->link);
            return;
        }
        attach_give_up(task, task->cancelled ? -ECANCELED : task->status);
        return;
    }
    uint32_t rows = ab_rows_of(&kv->models[task->model], task->token_count);
    for (uint32_t i = 0; i < ISSUE_PER_STEP && task->phase == AB_PHASE_ISSUE; i++) {
        bool failed = task->failed_row != AB_INDEX_NONE || task->point_failed;
        if (failed || (task->row == rows && issue_point(task))) {
            task->phase = AB_PHASE_WAIT;
        } else if (task->row == rows || !issue_row(task)) {
            (void)rows_check(task);
            return; /* hungry */
        }
    }
    if (task->phase == AB_PHASE_ISSUE) {
        (void)rows_check(task);
        ab_task_runnable(task);
        return;
    }
    bool whole = rows_check(task);
    whole &= task->failed_row != AB_INDEX_NONE || point_check(task);
    if (task->pending > 0) {
        ab_list_remove(&task->link);
    } else if (!whole) {
        ab_task_wait(task, false); /* another task's move fills it */
    } else if (task->failed_row != AB_INDEX_NONE || task->point_failed) {
        attach_shorten(task);
    } else {
        attach_done(task);
    }
}

void ab_prefetch_start(struct ab_kv *kv, struct ab_session *session)
{
    struct ab_task *task = kv->transfer == NULL ? NULL : ab_task_own_new(kv, AB_TASK_PREFETCH);
    if (task == NULL) {
        return; /* advice only */
    }
    task->session = ab_session_index(kv, session);
    task->generation = session->generation;
    task->model = session->model;
    task->node = session->home_node;
    ab_task_start(task);
}
