/*
 * branch.c - what changes which rows a session names: references, cut, truncate, fork; and which
 * positions are whole (restore points). Lock KV held unless public.
 *
 * Sealed blocks never change: a fork shares them, a cut inside a shared row copies that row.
 */
#include <string.h>
#include <sys/mman.h>

#include "base/num.h"
#include "kv/persist.h"
#include "kv/session.h"
#include "kv/transfer.h"

uint32_t ab_rows_of(const struct ab_model *model, uint64_t token_count)
{
    return (uint32_t)ab_div_up(token_count, model->block_tokens);
}

uint32_t ab_window_first(const struct ab_model *model, uint32_t c, uint64_t token_count)
{
    const struct ab_component *component = &model->components[c];
    if (component->kind != ABODE_WINDOW || token_count <= component->window_tokens) {
        return 0;
    }
    return (uint32_t)((token_count - component->window_tokens) / model->block_tokens);
}

static bool position_needs(const struct ab_model *model, uint32_t c, uint32_t row,
                           uint64_t token_count)
{
    return row >= ab_window_first(model, c, token_count) && row < ab_rows_of(model, token_count);
}

bool ab_window_row_needed(const struct ab_model *model, const struct ab_session *session,
                          uint32_t c, uint32_t row)
{
    if (row < session->stored_rows || position_needs(model, c, row, session->token_count)) {
        return true;
    }
    for (uint32_t i = session->point_count; i-- > 0;) {
        if (position_needs(model, c, row, session->points[i].token_count)) {
            return true;
        }
    }
    return false;
}

/* Every WINDOW component has the rows that a position looks at: they may have slid out of the
 * front, or out between two kept positions. */
static bool windows_reach(struct ab_kv *kv, const struct ab_session *session, uint64_t token_count)
{
    const struct ab_model *model = &kv->models[session->model];
    for (uint32_t c = 0; c < model->component_count; c++) {
        if (model->components[c].kind != ABODE_WINDOW) {
            continue;
        }
        uint32_t first = ab_window_first(model, c, token_count);
        if (first < session->row_first[c]) {
            return false;
        }
        const uint32_t *rows = ab_session_rows(kv, session, c);
        for (uint32_t row = first; row < ab_rows_of(model, token_count); row++) {
            if (rows[row] == AB_INDEX_NONE) {
                return false;
            }
        }
    }
    return true;
}

bool ab_point_is_whole(struct ab_kv *kv, const struct ab_session *session,
                       const struct ab_restore_point *point)
{
    const struct ab_model *model = &kv->models[session->model];
    for (uint32_t c = 0; c < model->component_count; c++) {
        if (ab_component_has_rows(&model->components[c])) {
            continue;
        }
        uint32_t block = point->blocks[c];
        if (block == AB_INDEX_NONE || (kv->blocks[block].flags & AB_BLOCK_BAD) != 0) {
            return false;
        }
    }
    return windows_reach(kv, session, point->token_count);
}

uint64_t ab_session_restore_point(struct ab_kv *kv, const struct ab_session *session,
                                  uint64_t limit)
{
    const struct ab_model *model = &kv->models[session->model];
    limit = AB_MIN(limit, __atomic_load_n(&session->token_count, __ATOMIC_RELAXED));
    if (!model->has_snapshots) {
        return windows_reach(kv, session, limit) ? limit : 0;
    }
    for (uint32_t i = session->point_count; i-- > 0;) {
        const struct ab_restore_point *point = &session->points[i];
        if (point->token_count <= limit && ab_point_is_whole(kv, session, point)) {
            return point->token_count;
        }
    }
    return 0;
}

/* Every component has had its state there; a point that is being made is none yet. */
static bool point_is_made(const struct ab_model *model, const struct ab_restore_point *point)
{
    for (uint32_t c = 0; c < model->component_count; c++) {
        if (!ab_component_has_rows(&model->components[c]) && point->blocks[c] == AB_INDEX_NONE) {
            return false;
        }
    }
    return true;
}

uint64_t ab_session_position(struct ab_kv *kv, const struct ab_session *session)
{
    const struct ab_model *model = &kv->models[session->model];
    uint64_t position = model->has_snapshots ? 0 : session->token_count;
    for (uint32_t i = session->point_count; i-- > 0 && position == 0;) {
        const struct ab_restore_point *point = &session->points[i];
        position = point_is_made(model, point) ? point->token_count : 0;
    }
    return AB_MAX(position, session->stored_tokens);
}

struct ab_restore_point *ab_session_point(struct ab_session *session, uint64_t token_count)
{
    for (uint32_t i = session->point_count; i-- > 0;) {
        if (session->points[i].token_count == token_count) {
            return &session->points[i];
        }
    }
    return NULL;
}

/* Can it go back there? -EINVAL: it is no restore point; -ABODE_ECORRUPT: it was one, and bytes that
 * it needs were found damaged. */
static int point_check(struct ab_kv *kv, struct ab_session *session, uint64_t token_count)
{
    if (token_count > session->token_count) {
        return -EINVAL;
    }
    if (ab_session_restore_point(kv, session, token_count) == token_count) {
        return 0;
    }
    const struct ab_restore_point *point = ab_session_point(session, token_count);
    const bool was_one = point != NULL && point_is_made(&kv->models[session->model], point);
    return was_one ? -ABODE_ECORRUPT : -EINVAL;
}

bool ab_session_is_dirty(struct ab_kv *kv, const struct ab_session *session)
{
    const struct ab_model *model = &kv->models[session->model];
    for (uint32_t c = 0; c < model->component_count; c++) {
        if (!ab_component_has_rows(&model->components[c])) {
            for (uint32_t i = 0; i < session->point_count; i++) {
                uint32_t block = session->points[i].blocks[c];
                if (block != AB_INDEX_NONE && (kv->blocks[block].flags & AB_BLOCK_DIRTY) != 0) {
                    return true;
                }
            }
            continue;
        }
        const uint32_t *rows = ab_session_rows(kv, session, c);
        uint32_t first = AB_MAX(session->row_first[c], session->dirty_row);
        for (uint32_t row = first; row < session->row_count; row++) {
            if (rows[row] != AB_INDEX_NONE && (kv->blocks[rows[row]].flags & AB_BLOCK_DIRTY) != 0) {
                return true;
            }
        }
    }
    return false;
}

/* ---- references ---- */

void ab_block_ref(struct ab_kv *kv, uint32_t index)
{
    struct ab_block *block = &kv->blocks[index];
    if ((block->flags & AB_BLOCK_OWNED) == 0) {
        ab_block_mark(block, AB_BLOCK_OWNED);
        block->refs = 0;
    }
    __atomic_store_n(&block->refs, block->refs + 1, __ATOMIC_RELAXED); /* as flags */
}

void ab_block_unref(struct ab_kv *kv, uint32_t index, struct ab_record *record)
{
    struct ab_block *block = &kv->blocks[index];
    AB_ASSERT((block->flags & AB_BLOCK_OWNED) != 0 && block->refs > 0);
    __atomic_store_n(&block->refs, block->refs - 1, __ATOMIC_RELAXED);
    if (block->refs > 0) {
        return;
    }
    ab_block_unmark(block, AB_BLOCK_OWNED);
    block->stamp = kv->tick;
    if ((block->flags & AB_BLOCK_MOVING) != 0) {
        return; /* when that has ended, ab_block_moved or the last unpin drops it */
    }
    bool worth_keeping = (block->flags & AB_BLOCK_KEYED) != 0 &&
                         (block->flags & AB_BLOCK_BAD) == 0 &&
                         (ab_block_is_stored(block) || block->frame != AB_INDEX_NONE);
    if (worth_keeping) {
        return;
    }
    if (block->frame != AB_INDEX_NONE && ab_block_frame_info(kv, block)->pins > 0) {
        ab_block_key_remove(kv, index); /* a move has it: the last unpin drops it */
    } else if (record != NULL) {
        ab_record_block_drop(record, index);
    } else {
        ab_block_forsake(kv, index);
    }
}

void ab_block_forsake(struct ab_kv *kv, uint32_t index)
{
    struct ab_record *record =
        ab_record_new(kv); /* rare: out of memory leaves an unowned block, which is reclaimed */
    if (record != NULL) {
        ab_record_block_drop(record, index);
        ab_record_submit(record, AB_PROMISE_WRITTEN);
    }
}

void ab_block_moved(struct ab_kv *kv, uint32_t index)
{
    const struct ab_block *block = &kv->blocks[index];
    const uint32_t held =
        AB_BLOCK_OWNED | AB_BLOCK_KEYED | AB_BLOCK_PENDING | AB_BLOCK_MOVING | AB_BLOCK_USED;
    const bool pinned = block->frame != AB_INDEX_NONE && ab_block_frame_info(kv, block)->pins > 0;
    if ((block->flags & held) == AB_BLOCK_USED && !pinned) {
        ab_block_forsake(kv, index);
    }
}

/* a session lets go of a row: its pin first, then its name for the block */
static void row_release(struct ab_kv *kv, struct ab_session *session, uint32_t c, uint32_t row,
                        struct ab_record *record)
{
    uint32_t *rows = ab_session_rows(kv, session, c);
    if (rows[row] == AB_INDEX_NONE) {
        return; /* slid out before */
    }
    if (session->state == AB_SESSION_ATTACHED || session->state == AB_SESSION_ATTACHING ||
        session->state == AB_SESSION_DETACHING) {
        uint32_t *frames = ab_session_frames(kv, session, c);
        if (frames[row] != ABODE_FRAME_NONE) {
            ab_frame_unpin(kv, &kv->blocks[rows[row]]);
            __atomic_store_n(&frames[row], ABODE_FRAME_NONE,
                             __ATOMIC_RELAXED); /* see attach_ready */
        }
    }
    ab_block_unref(kv, rows[row], record);
    rows[row] = AB_INDEX_NONE;
}

bool ab_point_is_pinned(const struct ab_model *model, const struct ab_restore_point *point)
{
    for (uint32_t c = 0; c < model->component_count; c++) {
        if (!ab_component_has_rows(&model->components[c]) && (point->pinned >> c & 1) == 0) {
            return false;
        }
    }
    return true;
}

static void point_unpin(struct ab_kv *kv, const struct ab_session *session,
                        struct ab_restore_point *point)
{
    const struct ab_model *model = &kv->models[session->model];
    for (uint32_t c = 0; c < model->component_count; c++) {
        if ((point->pinned >> c & 1) != 0) {
            ab_frame_unpin(kv, &kv->blocks[point->blocks[c]]);
        }
    }
    point->pinned = 0;
}

void ab_session_point_remove(struct ab_kv *kv, struct ab_session *session, uint32_t at,
                             struct ab_record *record)
{
    const struct ab_model *model = &kv->models[session->model];
    struct ab_restore_point *point = &session->points[at];
    point_unpin(kv, session, point);
    for (uint32_t c = 0; c < model->component_count; c++) {
        if (!ab_component_has_rows(&model->components[c]) && point->blocks[c] != AB_INDEX_NONE) {
            ab_block_unref(kv, point->blocks[c], record);
        }
        /* its window may hold rows that nobody else needs */
        session->slide_row[c] =
            AB_MIN(session->slide_row[c], ab_window_first(model, c, point->token_count));
    }
    session->point_count--;
    memmove(point, point + 1, (session->point_count - at) * sizeof(*point));
}

void ab_session_let_go(struct ab_kv *kv, struct ab_session *session, struct ab_record *record)
{
    for (uint32_t c = 0; c < ABODE_COMPONENTS_MAX; c++) {
        if (session->held[c] != AB_INDEX_NONE) {
            ab_block_unmark(&kv->blocks[session->held[c]], AB_BLOCK_HELD);
            ab_block_unref(kv, session->held[c], record);
            session->held[c] = AB_INDEX_NONE;
        }
    }
}

int ab_session_tail_own(struct ab_kv *kv, struct ab_session *session, uint32_t c, uint32_t row)
{
    uint32_t *rows = ab_session_rows(kv, session, c);
    uint32_t *frames = ab_session_frames(kv, session, c);
    uint32_t old = rows[row];
    if (kv->blocks[old].refs == 1) {
        ab_block_key_remove(kv, old); /* its content is about to differ from its key */
        return 0;
    }
    uint32_t copy = ab_block_new(kv, kv->blocks[old].component);
    if (copy == AB_INDEX_NONE) {
        return -ABODE_EFULL;
    }
    kv->blocks[copy].bytes = kv->blocks[old].bytes;
    if (ab_frame_obtain(kv, copy, session->home_node, session->tenant) == AB_INDEX_NONE) {
        ab_block_free(kv, copy);
        return ab_frames_shortage(kv, ab_component_of(kv, &kv->blocks[old]));
    }
    memcpy(ab_block_address(kv, &kv->blocks[copy]), ab_block_address(kv, &kv->blocks[old]),
           kv->blocks[old].bytes);
    ab_block_mark(&kv->blocks[copy], AB_BLOCK_DIRTY);
    ab_block_ref(kv, copy);
    ab_block_frame_info(kv, &kv->blocks[copy])->pins = 1;
    ab_frame_unpin(kv, &kv->blocks[old]);
    if (row < session->stored_rows && session->held[c] == AB_INDEX_NONE) {
        session->held[c] = old; /* the committed record names it: our reference stays */
        ab_block_mark(&kv->blocks[old], AB_BLOCK_HELD);
        session->held_row = row;
    } else {
        ab_block_unref(kv, old, NULL);
    }
    rows[row] = copy;
    frames[row] = kv->blocks[copy].frame;
    return 0;
}

void ab_session_cut(struct ab_kv *kv, struct ab_session *session, uint64_t token_count,
                    struct ab_record *record)
{
    const struct ab_model *model = &kv->models[session->model];
    uint32_t rows = ab_rows_of(model, token_count);
    /* frames are pinned only by attached sessions; a failed attach has unpinned before */
    while (
        session->point_count > 0 &&
        (session->points[session->point_count - 1].token_count > token_count || token_count == 0)) {
        ab_session_point_remove(kv, session, session->point_count - 1, record);
    }
    for (uint32_t c = 0; c < model->component_count; c++) {
        uint32_t reserved = session->reserved_blocks[c];
        if (reserved != AB_INDEX_NONE) {
            ab_frame_unpin(kv, &kv->blocks[reserved]);
            kv->blocks[reserved].refs = 0;
            ab_record_block_drop(record, reserved);
            session->reserved_blocks[c] = AB_INDEX_NONE;
        }
        if (!ab_component_has_rows(&model->components[c])) {
            continue;
        }
        for (uint32_t row = session->row_count; row-- > AB_MAX(rows, session->row_first[c]);) {
            row_release(kv, session, c, row, record);
        }
        session->row_first[c] = AB_MIN(session->row_first[c], rows);
        session->slide_row[c] = AB_MIN(session->slide_row[c], rows);
        session->evict_row[c] = AB_MIN(session->evict_row[c], rows);
    }
    session->row_count = AB_MIN(session->row_count, rows);
    session->dirty_row = AB_MIN(session->dirty_row, (uint32_t)(token_count / model->block_tokens));
    session->token_count = AB_MIN(session->token_count, token_count);
    session->reserved_tokens = 0;
}

/* Rows [from, end) that nobody needs; all: without asking. Returns where it stopped: at end, or at a
 * row that is being written, which goes another time. */
static uint32_t window_release(struct ab_kv *kv, struct ab_session *session, uint32_t c,
                               uint32_t from, uint32_t end, bool all, struct ab_record *record)
{
    const struct ab_model *model = &kv->models[session->model];
    const uint32_t *rows = ab_session_rows(kv, session, c);
    uint32_t row = from;
    for (; row < end; row++) {
        if (rows[row] == AB_INDEX_NONE || (!all && ab_window_row_needed(model, session, c, row))) {
            continue;
        }
        if ((kv->blocks[rows[row]].flags & AB_BLOCK_MOVING) != 0) {
            break;
        }
        row_release(kv, session, c, row, record);
    }
    return row;
}

/* The committed record names its rows one by one, but their front only as a number: so they leave
 * from the front alone, when a record has moved it. Rows behind them may leave from between two
 * positions: otherwise a session that goes on for long after a restore, or from one restore point
 * to the next, would hold all of it in memory instead of a window. */
void ab_session_slide(struct ab_kv *kv, struct ab_session *session, bool all,
                      struct ab_record *record)
{
    const struct ab_model *model = &kv->models[session->model];
    uint64_t oldest = session->token_count;
    if (model->has_snapshots && session->point_count > 0) {
        oldest =
            session->points[0].token_count; /* none yet: the next one is at token_count or on */
    }
    for (uint32_t c = 0; c < model->component_count; c++) {
        if (model->components[c].kind != ABODE_WINDOW) {
            continue;
        }
        uint32_t first = AB_MIN(ab_window_first(model, c, oldest), session->row_count);
        if (all || session->stored_rows <= session->row_first[c]) {
            uint32_t end =
                window_release(kv, session, c, session->row_first[c], first, true, record);
            session->row_first[c] = AB_MAX(session->row_first[c], end);
        }
        uint32_t from = AB_MAX(session->slide_row[c], session->row_first[c]);
        from = AB_MAX(from, session->stored_rows);
        uint32_t end = AB_MIN(ab_window_first(model, c, session->token_count), session->row_count);
        if (from < end) {
            session->slide_row[c] = window_release(kv, session, c, from, end, false, record);
        }
    }
}

bool ab_session_unpin_some(struct ab_kv *kv, struct ab_session *session, uint32_t *row,
                           uint32_t count)
{
    const struct ab_model *model = &kv->models[session->model];
    const uint32_t end =
        *row + AB_MIN(count, session->row_count - AB_MIN(*row, session->row_count));
    for (uint32_t i = 0; *row == 0 && i < session->point_count; i++) {
        point_unpin(kv, session, &session->points[i]);
    }
    for (uint32_t c = 0; c < model->component_count; c++) {
        if (!ab_component_has_rows(&model->components[c])) {
            continue;
        }
        const uint32_t *rows = ab_session_rows(kv, session, c);
        uint32_t *frames = ab_session_frames(kv, session, c);
        for (uint32_t at = AB_MAX(*row, session->row_first[c]); at < end; at++) {
            if (frames[at] != ABODE_FRAME_NONE) {
                ab_frame_unpin(kv, &kv->blocks[rows[at]]);
                __atomic_store_n(&frames[at], ABODE_FRAME_NONE, __ATOMIC_RELAXED);
            }
        }
    }
    *row = end;
    return end >= session->row_count;
}

void ab_session_unpin(struct ab_kv *kv, struct ab_session *session)
{
    uint32_t row = 0;
    (void)ab_session_unpin_some(kv, session, &row, UINT32_MAX);
}

/* The frames half of the tables is only needed while attached: an idle session shall be small. */
static void frames_forget(struct ab_kv *kv, const struct ab_session *session)
{
    const struct ab_model *model = &kv->models[session->model];
    uint64_t half = model->table_stride / 2;
    uint32_t *frames = model->tables + ab_session_index(kv, session) * model->table_stride + half;
    (void)kv->os->madvise(kv->os, frames, half * sizeof(uint32_t), MADV_DONTNEED);
}

void ab_session_detached(struct ab_kv *kv, struct ab_session *session)
{
    const struct ab_model *model = &kv->models[session->model];
    for (uint32_t c = 0; c < model->component_count; c++) {
        session->evict_row[c] =
            ab_component_has_rows(&model->components[c]) ? session->row_count : 1;
    }
    frames_forget(kv, session);
    session->stamp = ++kv->tick;
    ab_list_remove(&session->lru);
    ab_list_push_back(&kv->lru, &session->lru);
    __atomic_store_n(&session->state, AB_SESSION_DETACHED, __ATOMIC_RELEASE);
}

/* ---- truncate ---- */

static bool anything_moves(struct ab_kv *kv, const struct ab_session *session)
{
    return session->spill != NULL || session->task != NULL || kv->read_only;
}

static uint64_t newest_stored_point(const struct ab_session *session, uint64_t limit)
{
    for (uint32_t i = session->point_count; i-- > 0;) {
        if (session->points[i].stored && session->points[i].token_count <= limit) {
            return session->points[i].token_count;
        }
    }
    return 0;
}

static void truncate_checked(struct ab_kv *kv, struct ab_session *session, uint64_t token_count,
                             struct ab_record *record)
{
    ab_session_cut(kv, session, token_count, record);
    if (session->stored_tokens > token_count) {
        uint64_t stored = kv->models[session->model].has_snapshots
                              ? newest_stored_point(session, token_count)
                              : token_count;
        ab_record_session(record, ab_session_index(kv, session), stored, true);
        ab_session_stored(kv, session, stored, true);
        session->changed = true; /* the next promise waits for a commit after this one */
        if (session->held_row >= session->stored_rows) {
            ab_session_let_go(kv, session, record);
        }
    }
}

int ab_session_truncate(struct ab_kv *kv, struct abode_session handle, uint64_t token_count)
{
    struct ab_record *record = ab_record_new(kv);
    if (record == NULL) {
        return -ENOMEM;
    }
    ab_lock_take(&kv->lock);
    struct ab_session *session = ab_session_get(kv, handle);
    int status = 0;
    if (session == NULL) {
        status = -ABODE_ESTALE;
    } else if (session->state != AB_SESSION_ATTACHED) {
        status = session->task != NULL ? -EBUSY : -ENOTCONN;
    } else if (anything_moves(kv, session)) {
        status = -EAGAIN;
    } else {
        status = token_count == session->token_count ? 0 : point_check(kv, session, token_count);
        status = status < 0 ? status : ab_session_recall(kv, session, token_count);
        if (status == 0) {
            truncate_checked(kv, session, token_count, record);
        }
    }
    ab_record_submit(record, AB_PROMISE_WRITTEN);
    ab_lock_drop(&kv->lock);
    return status;
}

/* ---- fork ---- */

static int tail_copy(struct ab_kv *kv, const struct ab_session *parent, struct ab_session *child,
                     uint32_t c, uint32_t row)
{
    uint32_t old = ab_session_rows(kv, parent, c)[row];
    uint32_t copy = ab_block_new(kv, kv->blocks[old].component);
    if (copy == AB_INDEX_NONE) {
        return -ABODE_EFULL;
    }
    kv->blocks[copy].bytes = kv->blocks[old].bytes;
    if (ab_frame_obtain(kv, copy, child->home_node, child->tenant) == AB_INDEX_NONE) {
        ab_block_free(kv, copy);
        return ab_frames_shortage(kv, ab_component_of(kv, &kv->blocks[old]));
    }
    memcpy(ab_block_address(kv, &kv->blocks[copy]), ab_block_address(kv, &kv->blocks[old]),
           kv->blocks[old].bytes);
    ab_block_mark(&kv->blocks[copy], AB_BLOCK_DIRTY);
    ab_block_ref(kv, copy);
    ab_block_frame_info(kv, &kv->blocks[copy])->pins = 1;
    ab_session_rows(kv, child, c)[row] = copy;
    ab_session_frames(kv, child, c)[row] = kv->blocks[copy].frame;
    return 0;
}

static void rows_share(struct ab_kv *kv, const struct ab_session *parent, struct ab_session *child,
                       uint32_t c, uint32_t row_end)
{
    const uint32_t *from = ab_session_rows(kv, parent, c);
    const uint32_t *from_frames = ab_session_frames(kv, parent, c);
    uint32_t *rows = ab_session_rows(kv, child, c);
    uint32_t *frames = ab_session_frames(kv, child, c);
    for (uint32_t row = 0; row < child->row_first[c]; row++) {
        frames[row] = ABODE_FRAME_NONE;
    }
    for (uint32_t row = child->row_first[c]; row < row_end; row++) {
        rows[row] = from[row];
        frames[row] = from_frames[row];
        ab_block_ref(kv, rows[row]);
        if (frames[row] != ABODE_FRAME_NONE) {
            ab_frame_pin(kv, &kv->blocks[rows[row]]);
        }
    }
}

static void point_share(struct ab_kv *kv, const struct ab_restore_point *from,
                        struct ab_session *child)
{
    const struct ab_model *model = &kv->models[child->model];
    struct ab_restore_point *point = &child->points[child->point_count++];
    *point = *from;
    point->stored = false;
    for (uint32_t c = 0; c < model->component_count; c++) {
        if (ab_component_has_rows(&model->components[c])) {
            continue;
        }
        ab_block_ref(kv, point->blocks[c]);
        if ((point->pinned >> c & 1) != 0) {
            ab_frame_pin(kv, &kv->blocks[point->blocks[c]]);
        }
    }
}

/* the partly filled row, of every component or of none */
static int tails_copy(struct ab_kv *kv, const struct ab_session *parent, struct ab_session *child,
                      uint32_t row)
{
    const struct ab_model *model = &kv->models[parent->model];
    for (uint32_t c = 0; c < model->component_count; c++) {
        if (!ab_component_has_rows(&model->components[c])) {
            continue;
        }
        int status = tail_copy(kv, parent, child, c, row);
        for (uint32_t undo = 0; undo < c && status != 0; undo++) {
            if (ab_component_has_rows(&model->components[undo])) {
                row_release(kv, child, undo, row, NULL);
            }
        }
        if (status != 0) {
            return status;
        }
    }
    return 0;
}

static int fork_into(struct ab_kv *kv, const struct ab_session *parent, struct ab_session *child,
                     uint64_t token_count)
{
    const struct ab_model *model = &kv->models[parent->model];
    uint32_t rows = ab_rows_of(model, token_count);
    uint32_t full = (uint32_t)(token_count / model->block_tokens);
    const struct ab_restore_point *point =
        ab_session_point((struct ab_session *)parent, token_count);
    for (uint32_t c = 0; c < model->component_count; c++) {
        if (!ab_component_has_rows(&model->components[c])) {
            continue;
        }
        child->row_first[c] = AB_MAX(parent->row_first[c], ab_window_first(model, c, token_count));
        child->row_first[c] = AB_MIN(child->row_first[c], rows);
        rows_share(kv, parent, child, c, AB_MAX(full, child->row_first[c]));
    }
    child->row_count = full;
    child->token_count = (uint64_t)full * model->block_tokens;
    int status = rows > full ? tails_copy(kv, parent, child, full) : 0;
    if (status != 0) {
        return status;
    }
    child->row_count = rows;
    child->token_count = token_count;
    if (point != NULL && model->has_snapshots) {
        point_share(kv, point, child);
    }
    return 0;
}

static int fork_locked(struct ab_kv *kv, struct abode_session handle, uint64_t token_count,
                       const struct abode_key *name, struct abode_session *ret)
{
    struct ab_session *parent = ab_session_get(kv, handle);
    if (parent == NULL) {
        return -ABODE_ESTALE;
    }
    if (parent->state != AB_SESSION_ATTACHED) {
        return parent->task != NULL ? -EBUSY : -ENOTCONN;
    }
    int status = token_count == 0 ? 0 : point_check(kv, parent, token_count);
    status = status < 0 ? status : ab_session_recall(kv, parent, token_count);
    if (status != 0) {
        return status;
    }
    struct abode_session_opts opts = {.struct_size = sizeof(opts),
                                      .model = parent->model,
                                      .home_node = parent->home_node,
                                      .durability = parent->durability,
                                      .name = name,
                                      .tenant = parent->tenant};
    struct abode_session made;
    status = ab_session_create_locked(kv, &opts, &made);
    if (status != 0) {
        return status;
    }
    struct ab_session *child = ab_session_get(kv, made);
    status = fork_into(kv, parent, child, token_count);
    if (status != 0) {
        int cleaned = ab_session_delete_now(kv, child);
        return cleaned != 0 ? cleaned : status;
    }
    *ret = made;
    return 0;
}

int ab_session_fork(struct ab_kv *kv, struct abode_session parent, uint64_t token_count,
                    const struct abode_key *name, struct abode_session *ret)
{
    ab_lock_take(&kv->lock);
    int status = fork_locked(kv, parent, token_count, name, ret);
    ab_lock_drop(&kv->lock);
    return status;
}
