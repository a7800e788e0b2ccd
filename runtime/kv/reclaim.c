/*
 * reclaim.c - see reclaim.h.
 *
 * Two kinds of cold state: detached sessions, in a list by the time of their detach, and blocks that
 * no session owns (cache items, prefixes of deleted sessions), aged by a stamp and found by
 * sampling, so that they need no links. The older of the two goes first.
 */
#include "kv/reclaim.h"

#include "base/num.h"
#include "kv/evict.h"
#include "kv/persist.h"
#include "kv/session.h"
#include "kv/transfer.h"

#define CANDIDATES_MAX 16 /* sessions that evict.c chooses from */
#define LRU_WALK_MAX 512  /* list nodes looked at for them */
#define SAMPLE_FRAMES 32  /* of unowned frames: near to LRU, after Redis' experience with 5-10 */
#define SWEEP_MAX 4096
#define SAMPLE_BLOCKS 64 /* of stored unowned blocks */

static uint64_t random_next(struct ab_kv *kv)
{
    kv->random ^= kv->random << 13; /* xorshift64 */
    kv->random ^= kv->random >> 7;
    kv->random ^= kv->random << 17;
    return kv->random;
}

static bool frame_is_clean(struct ab_kv *kv, const struct ab_block *block)
{
    const struct ab_frame_info *info = ab_block_frame_info(kv, block);
    /* held, and nobody else names it: a crash needs its slot, its newer bytes nobody */
    bool obsolete = (block->flags & AB_BLOCK_HELD) != 0 && block->refs == 1;
    return info->pins == 0 && info->state == AB_FRAME_READY &&
           ((block->flags & AB_BLOCK_DIRTY) == 0 || obsolete) &&
           (block->flags & AB_BLOCK_MOVING) == 0 && ab_block_is_stored(block);
}

static void evict(struct ab_kv *kv, uint32_t block)
{
    ab_block_unmark(&kv->blocks[block], AB_BLOCK_DIRTY); /* of a held one */
    ab_frame_release(kv, block);
    atomic_fetch_add_explicit(&kv->counters.blocks_evicted, 1, memory_order_relaxed);
}

/* false: a frame stays, the caller must look at this block again some time */
static bool evict_if_cold(struct ab_kv *kv, uint32_t stamp_max, uint32_t index, uint32_t node,
                          uint32_t *evicted)
{
    if (index == AB_INDEX_NONE || kv->blocks[index].frame == AB_INDEX_NONE) {
        return true;
    }
    const struct ab_block *block = &kv->blocks[index];
    const struct ab_component *component = ab_component_of(kv, block);
    bool here = ab_frame_node(block->frame, ab_frames_per_node(component->frames)) == node;
    const struct ab_frame_info *info = ab_block_frame_info(kv, block);
    if (block->refs > 1 && info->pins > 0 && info->state == AB_FRAME_READY &&
        (block->flags & (AB_BLOCK_MOVING | AB_BLOCK_DIRTY)) == 0) {
        return true; /* an attached session shares it; sweep finds it, should that one be deleted */
    }
    bool hot = ab_block_frame_info(kv, block)->stamp > stamp_max; /* a hotter session shares it */
    if (!here || hot || !frame_is_clean(kv, block)) {
        return false;
    }
    evict(kv, index);
    (*evicted)++;
    return true;
}

/* must: memory is needed now, also what a hotter session shares */
static uint32_t evict_session(struct ab_kv *kv, struct ab_session *session, uint32_t c,
                              uint32_t node, uint32_t wanted, bool must)
{
    const struct ab_model *model = &kv->models[session->model];
    uint32_t stamp_max = must ? UINT32_MAX : session->stamp;
    uint32_t evicted = 0;
    if (!ab_component_has_rows(&model->components[c])) {
        bool stays = false;
        for (uint32_t i = 0; i < session->point_count && evicted < wanted; i++) {
            stays |= !evict_if_cold(kv, stamp_max, session->points[i].blocks[c], node, &evicted);
        }
        session->evict_row[c] = stays || evicted == wanted;
        return evicted;
    }
    const uint32_t *rows = ab_session_rows(kv, session, c);
    uint32_t row = AB_MIN(session->evict_row[c], session->row_count);
    uint32_t keep = 0;
    while (row > session->row_first[c] && evicted < wanted) {
        row--;
        if (!evict_if_cold(kv, stamp_max, rows[row], node, &evicted)) {
            keep = AB_MAX(keep, row + 1);
        }
    }
    session->evict_row[c] = AB_MAX(keep, row > session->row_first[c] ? row : 0);
    return evicted;
}

uint32_t ab_reclaim_session(struct ab_kv *kv, struct ab_session *session, uint32_t c, uint32_t node,
                            uint32_t wanted)
{
    return evict_session(kv, session, c, node, wanted, true);
}

uint64_t ab_reclaim_ended(struct ab_kv *kv, struct ab_record *record, uint64_t pages)
{
    uint64_t freed = 0;
    uint32_t dropped = 0;
    for (uint32_t i = 0; i < kv->session_high && freed < pages && dropped < AB_RECLAIM_BATCH; i++) {
        struct ab_session *session = &kv->sessions[i];
        if (session->state != AB_SESSION_DETACHED || !session->ended || session->task != NULL ||
            session->spill != NULL || session->stored_rows == 0) {
            continue;
        }
        uint32_t generation = session->generation, dead = record->dead_count;
        ab_session_cut(kv, session, 0, record);
        ab_session_let_go(kv, session, record);
        ab_record_session_delete(record, i, generation);
        ab_session_release(kv, session);
        atomic_fetch_add_explicit(&kv->counters.sessions_dropped, 1, memory_order_relaxed);
        dropped++;
        for (; dead < record->dead_count; dead++) {
            freed += record->dead[dead].pages;
        }
    }
    return freed;
}

static bool session_has_frames(const struct ab_kv *kv, const struct ab_session *session)
{
    for (uint32_t c = 0; c < kv->models[session->model].component_count; c++) {
        if (session->evict_row[c] > 0) {
            return true;
        }
    }
    return false;
}

static bool session_has_dirty(struct ab_kv *kv, const struct ab_session *session)
{
    return session->spill == NULL && session->task == NULL && ab_session_is_dirty(kv, session);
}

/* dirty: only such as can be spilled */
static uint32_t candidates_get(struct ab_kv *kv, const struct ab_component *component, bool dirty,
                               uint32_t *ret_c, struct ab_session **ret_sessions)
{
    uint32_t count = 0, walked = 0;
    ab_list_for_each (node, &kv->lru) {
        struct ab_session *session = ab_list_entry(node, struct ab_session, lru);
        const struct ab_model *model = &kv->models[session->model];
        uint32_t c = ab_component_index(model, component);
        if (c != AB_INDEX_NONE && session->evict_row[c] > 0 &&
            (!dirty || session_has_dirty(kv, session))) {
            *ret_c = c;
            ret_sessions[count++] = session;
        }
        if (count == CANDIDATES_MAX || ++walked == LRU_WALK_MAX) {
            break;
        }
    }
    return count;
}

static struct ab_session *candidate_take(struct ab_kv *kv, struct ab_session **sessions,
                                         uint32_t *count, bool must)
{
    struct ab_evict_candidate candidates[CANDIDATES_MAX];
    for (uint32_t i = 0; i < *count; i++) {
        candidates[i] = (struct ab_evict_candidate){.ended = sessions[i]->ended,
                                                    .keep_until_ns = sessions[i]->keep_until_ns,
                                                    .next_use_ns = sessions[i]->next_use_ns};
    }
    uint32_t pick = ab_evict_pick(candidates, *count, kv->os->clock_ns(kv->os), must);
    if (pick == *count) {
        return NULL;
    }
    struct ab_session *session = sessions[pick];
    (*count)--;
    for (uint32_t i = pick; i < *count; i++) {
        sessions[i] = sessions[i + 1];
    }
    return session;
}

static uint32_t evict_sessions(struct ab_kv *kv, struct ab_component *component, uint32_t node,
                               uint32_t wanted, bool must)
{
    struct ab_session *sessions[CANDIDATES_MAX];
    uint32_t c = 0, evicted = 0;
    uint32_t count = candidates_get(kv, component, false, &c, sessions);
    while (count > 0 && evicted < wanted) {
        struct ab_session *session = candidate_take(kv, sessions, &count, must);
        if (session == NULL) {
            break;
        }
        evicted += evict_session(kv, session, c, node, wanted - evicted, must);
        if (!session_has_frames(kv, session)) {
            ab_list_remove(&session->lru);
        }
    }
    return evicted;
}

/* a frame of an unowned block that nobody uses now; dirty or clean as asked */
static bool item_is_usable(struct ab_kv *kv, const struct ab_frame_info *info, bool dirty)
{
    if (info->state != AB_FRAME_READY || info->pins != 0) {
        return false;
    }
    const struct ab_block *block = &kv->blocks[info->block];
    bool usable = dirty ? (block->flags & AB_BLOCK_DIRTY) != 0 : frame_is_clean(kv, block);
    return usable && (block->flags & (AB_BLOCK_OWNED | AB_BLOCK_MOVING)) == 0;
}

/* the oldest such block among a sample */
static uint32_t sample_unowned(struct ab_kv *kv, const struct ab_component *component,
                               uint32_t node_first, uint32_t node_frames, bool dirty)
{
    uint32_t best = AB_INDEX_NONE;
    for (uint32_t i = 0; i < SAMPLE_FRAMES && node_frames > 0; i++) {
        uint32_t frame = node_first + (uint32_t)(random_next(kv) % node_frames);
        const struct ab_frame_info *info = &component->infos[frame];
        bool usable = item_is_usable(kv, info, dirty);
        if (usable &&
            (best == AB_INDEX_NONE || kv->blocks[info->block].stamp < kv->blocks[best].stamp)) {
            best = info->block;
        }
    }
    return best;
}

static uint32_t coldest_session_stamp(const struct ab_kv *kv)
{
    if (ab_list_is_empty(&kv->lru)) {
        return UINT32_MAX;
    }
    return ab_list_entry(kv->lru.next, const struct ab_session, lru)->stamp;
}

/* Last resort, a hand that goes round: a frame can outlive the list entry of its session, when a
 * session that shared it brought it back and was deleted since. */
static uint32_t sweep(struct ab_kv *kv, struct ab_component *component, uint32_t first,
                      uint32_t frames, uint32_t wanted)
{
    uint32_t evicted = 0;
    for (uint32_t i = 0; i < AB_MIN(frames, SWEEP_MAX) && evicted < wanted; i++) {
        const struct ab_frame_info *info = &component->infos[first + component->hand++ % frames];
        if (info->state == AB_FRAME_READY && frame_is_clean(kv, &kv->blocks[info->block])) {
            evict(kv, info->block);
            evicted++;
        }
    }
    return evicted;
}

uint32_t ab_reclaim_clean(struct ab_kv *kv, struct ab_component *component, uint32_t node,
                          uint32_t wanted)
{
    uint32_t evicted = 0;
    uint32_t first = node * ab_frames_per_node(component->frames);
    uint32_t frames = ab_frames_total(component->frames, node);
    while (evicted < wanted) { /* unowned blocks that are older than the coldest session */
        uint32_t block = sample_unowned(kv, component, first, frames, false);
        if (block == AB_INDEX_NONE || kv->blocks[block].stamp > coldest_session_stamp(kv)) {
            break;
        }
        evict(kv, block);
        evicted++;
    }
    if (evicted < wanted) {
        evicted += evict_sessions(kv, component, node, wanted - evicted, false);
    }
    while (evicted < wanted) { /* then any unowned ones */
        uint32_t block = sample_unowned(kv, component, first, frames, false);
        if (block == AB_INDEX_NONE) {
            break;
        }
        evict(kv, block);
        evicted++;
    }
    if (evicted == 0) {
        evicted = evict_sessions(kv, component, node, wanted, true);
    }
    if (evicted == 0) {
        evicted = sweep(kv, component, first, frames, wanted);
    }
    return evicted;
}

uint32_t ab_reclaim_spill_pick(struct ab_kv *kv, const struct ab_component *component, bool must)
{
    struct ab_session *sessions[CANDIDATES_MAX];
    uint32_t c = 0;
    uint32_t count = candidates_get(kv, component, true, &c, sessions);
    const struct ab_session *session = candidate_take(kv, sessions, &count, must);
    return session == NULL ? AB_INDEX_NONE : ab_session_index(kv, session);
}

uint32_t ab_reclaim_item_pick(struct ab_kv *kv, const struct ab_component *component)
{
    uint32_t capacity = ab_frames_capacity(component->frames);
    uint32_t block = sample_unowned(kv, component, 0, capacity, true);
    /* few are left, and a sample misses them: look at every frame, from a random one on */
    uint32_t start = block == AB_INDEX_NONE ? (uint32_t)(random_next(kv) % capacity) : 0;
    for (uint32_t i = 0; i < AB_MIN(capacity, SWEEP_MAX) && block == AB_INDEX_NONE; i++) {
        const struct ab_frame_info *info = &component->infos[(start + i) % capacity];
        if (item_is_usable(kv, info, true)) {
            block = info->block;
        }
    }
    return block;
}

bool ab_reclaim_can(struct ab_kv *kv, const struct ab_component *component)
{
    uint32_t capacity = ab_frames_capacity(component->frames);
    for (uint32_t i = 0; i < capacity; i++) {
        const struct ab_frame_info *info = &component->infos[i];
        if (info->state == AB_FRAME_READY &&
            (info->pins == 0 || (kv->blocks[info->block].flags & AB_BLOCK_MOVING) != 0)) {
            return true;
        }
    }
    return false;
}

uint32_t ab_reclaim_stored_pick(struct ab_kv *kv)
{
    uint32_t best = AB_INDEX_NONE;
    for (uint32_t i = 0; i < SAMPLE_BLOCKS && kv->block_high > 0; i++) {
        uint32_t index = (uint32_t)(random_next(kv) % kv->block_high);
        const struct ab_block *block = &kv->blocks[index];
        bool unowned = (block->flags & AB_BLOCK_USED) != 0 &&
                       (block->flags & (AB_BLOCK_OWNED | AB_BLOCK_MOVING | AB_BLOCK_PENDING)) == 0;
        bool free_frame =
            block->frame == AB_INDEX_NONE || (unowned && ab_block_frame_info(kv, block)->pins == 0);
        if (unowned && free_frame && ab_block_is_stored(block) &&
            (best == AB_INDEX_NONE || block->stamp < kv->blocks[best].stamp)) {
            best = index;
        }
    }
    return best;
}

static void room_wait(struct ab_task *task)
{
    struct ab_kv *kv = task->kv;
    task->retry_ns = kv->os->clock_ns(kv->os) + ROOM_WAIT_NS;
    ab_task_wait(task, false);
}

static void room_made(struct ab_record *record, int status)
{
    struct ab_task *task = record->context;
    struct ab_kv *kv = task->kv;
    (void)status; /* the store counts it; the task sees whether there is room */
    task->commits--;
    kv->transfer->in_flight--;
    ab_task_runnable(task);
}

bool ab_reclaim_room(struct ab_task *task, bool ended)
{
    struct ab_kv *kv = task->kv;
    if (task->room_tries >= ROOM_TRIES_MAX) {
        return false;
    }
    task->room_tries++;
    if (task->room_tries > 1) { /* the first try only syncs: that frees empty segments */
        ab_compact_start(kv, true);
        if (kv->transfer->compaction.running) {
            room_wait(task);
            return true;
        }
    }
    struct ab_record *record = ab_record_new(kv);
    if (record == NULL) {
        return false;
    }
    uint64_t wanted = ab_store_segment_bytes(kv->store) / AB_PAGE;
    uint64_t pages = ended && task->room_tries > 1 ? ab_reclaim_ended(kv, record, wanted) : 0;
    if (pages == 0 && task->room_tries > 1) {
        ab_record_free(record);
        return false;
    }
    record->done = room_made;
    record->context = task;
    task->commits++;
    kv->transfer->in_flight++;
    ab_list_remove(&task->link);
    ab_record_submit(record, AB_PROMISE_DURABLE);
    return true;
}
