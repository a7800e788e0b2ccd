/*
 * recall.c - an attached session goes back to an older restore point: truncate and fork there.
 *
 * Attach brings in what the newest position needs. The window rows and snapshots of an older one may
 * be in the store only, and few hosts ever ask for them. The call that needs them starts moves for
 * what is missing and answers -EAGAIN; a later call pins what has landed. It is the host's thread
 * that pins, so the session's tables stay its own. Lock KV held.
 */
#include "base/num.h"
#include "kv/session.h"
#include "kv/transfer.h"

#define STARTS_MAX \
    64 /* blocks per call: bounds the hold of the lock; the rest with the next call */

struct recall {
    struct ab_kv *kv;
    struct ab_session *session;
    struct ab_task *task; /* of the moves; NULL: none started yet */
    uint32_t starts;
    int status; /* first that is not 0 */
};

static int move_start(struct recall *recall, uint32_t index)
{
    struct ab_kv *kv = recall->kv;
    struct ab_session *session = recall->session;
    if (recall->starts++ == STARTS_MAX) {
        return -EAGAIN;
    }
    if (session->recall_status != 0) { /* the last ones failed: say so once, then try again */
        int status = session->recall_status;
        session->recall_status = 0;
        return status;
    }
    if (recall->task == NULL) {
        recall->task = ab_task_own_new(kv, AB_TASK_RECALL);
        if (recall->task == NULL) {
            return -EAGAIN;
        }
        recall->task->session = ab_session_index(kv, session);
        recall->task->generation = session->generation;
        recall->task->node = session->home_node;
        ab_task_start(recall->task);
    }
    int status = ab_restore_start(kv, recall->task, index, session->home_node, session->tenant);
    if (status == -ENOBUFS) {
        return ab_frames_shortage(kv, ab_component_of(kv, &kv->blocks[index]));
    }
    return -EAGAIN; /* on its way, or there is no move for it now */
}

/* true: it is in memory, and pinned */
static bool block_pin(struct recall *recall, uint32_t index)
{
    struct ab_kv *kv = recall->kv;
    const struct ab_block *block = &kv->blocks[index];
    int status;
    if ((block->flags & AB_BLOCK_BAD) != 0) {
        status = -ABODE_ECORRUPT;
    } else if (block->frame == AB_INDEX_NONE) {
        status = move_start(recall, index);
    } else {
        enum ab_frame_state state = ab_block_frame_info(kv, block)->state;
        status = state == AB_FRAME_READY ? 0 : state == AB_FRAME_FAILED ? -EIO : -EAGAIN;
    }
    if (status == 0) {
        ab_frame_pin(kv, block);
    } else if (recall->status == 0 || recall->status == -EAGAIN) {
        recall->status = status;
    }
    return status == 0;
}

static bool over(const struct recall *recall)
{
    return recall->status != 0 && recall->status != -EAGAIN;
}

int ab_session_recall(struct ab_kv *kv, struct ab_session *session, uint64_t token_count)
{
    const struct ab_model *model = &kv->models[session->model];
    struct ab_restore_point *point = ab_session_point(session, token_count);
    struct recall recall = {.kv = kv, .session = session};
    for (uint32_t c = 0; c < model->component_count && !over(&recall); c++) {
        if (!ab_component_has_rows(&model->components[c])) {
            if (point != NULL && (point->pinned >> c & 1) == 0 &&
                point->blocks[c] != AB_INDEX_NONE && block_pin(&recall, point->blocks[c])) {
                point->pinned |= (uint8_t)(1u << c);
            }
            continue;
        }
        if (model->components[c].kind != ABODE_WINDOW) {
            continue; /* attached: all rows are pinned */
        }
        const uint32_t *rows = ab_session_rows(kv, session, c);
        uint32_t *frames = ab_session_frames(kv, session, c);
        uint32_t first = AB_MAX(session->row_first[c], ab_window_first(model, c, token_count));
        for (uint32_t row = first; row < ab_rows_of(model, token_count) && !over(&recall); row++) {
            if (frames[row] == ABODE_FRAME_NONE && block_pin(&recall, rows[row])) {
                frames[row] = kv->blocks[rows[row]].frame;
            }
        }
    }
    return recall.status;
}

void ab_recall_step(struct ab_task *task)
{
    if (task->pending > 0) {
        ab_list_remove(&task->link); /* the last move makes it runnable */
        return;
    }
    struct ab_session *session = &task->kv->sessions[task->session];
    if (session->generation == task->generation) {
        session->recall_status = task->status;
    }
    ab_task_finish(task, 0);
}
