/*
 * valid.c - see valid.h. Counts names and pins from the sessions' side and compares them with what
 * blocks and frames say.
 */
#include "kv/valid.h"

#include "base/num.h"
#include "kv/session.h"

struct counts {
    uint32_t *refs, *pins;
};

static void count_block(const struct counts *counts, uint32_t block, bool pinned)
{
    if (block != AB_INDEX_NONE) {
        counts->refs[block]++;
        counts->pins[block] += pinned;
    }
}

static void count_session(struct ab_kv *kv, const struct ab_session *session,
                          const struct counts *counts)
{
    const struct ab_model *model = &kv->models[session->model];
    bool attached = session->state == AB_SESSION_ATTACHED;
    for (uint32_t c = 0; c < model->component_count; c++) {
        count_block(counts, session->reserved_blocks[c], true);
        count_block(counts, session->held[c], false);
        if (!ab_component_has_rows(&model->components[c])) {
            for (uint32_t i = 0; i < session->point_count; i++) {
                count_block(counts, session->points[i].blocks[c],
                            session->points[i].pinned >> c & 1);
            }
            continue;
        }
        const uint32_t *rows = ab_session_rows(kv, session, c);
        const uint32_t *frames = ab_session_frames(kv, session, c);
        for (uint32_t row = session->row_first[c]; row < session->row_count; row++) {
            count_block(counts, rows[row], attached && frames[row] != ABODE_FRAME_NONE);
        }
    }
}

static const char *block_invalid(struct ab_kv *kv, uint32_t index, const struct counts *counts)
{
    const struct ab_block *block = &kv->blocks[index];
    bool used = (block->flags & AB_BLOCK_USED) != 0;
    bool owned = (block->flags & AB_BLOCK_OWNED) != 0;
    if (!used) {
        return counts->refs[index] > 0 ? "a session names a free block" : NULL;
    }
    if (owned != (counts->refs[index] > 0) || (owned && block->refs != counts->refs[index])) {
        return "a block's references are miscounted";
    }
    if (block->frame == AB_INDEX_NONE) {
        return counts->pins[index] > 0      ? "a pinned block has no frame"
               : !ab_block_is_stored(block) ? "a block is neither in memory nor stored"
                                            : NULL;
    }
    const struct ab_frame_info *info = ab_block_frame_info(kv, block);
    if (info->block != index || info->state == AB_FRAME_FREE) {
        return "a block and its frame disagree";
    }
    return info->pins != counts->pins[index] ? "a frame's pins are miscounted" : NULL;
}

const char *ab_kv_invalid(struct ab_kv *kv, uint32_t *ret_index)
{
    struct counts counts = {
        .refs = ab_os_alloc_array(kv->os, kv->block_high + 1ull, sizeof(uint32_t)),
        .pins = ab_os_alloc_array(kv->os, kv->block_high + 1ull, sizeof(uint32_t))};
    const char *wrong = counts.refs == NULL || counts.pins == NULL ? "out of memory" : NULL;
    for (uint32_t i = 0; i < kv->session_high && wrong == NULL; i++) {
        if (kv->sessions[i].state != AB_SESSION_FREE) {
            count_session(kv, &kv->sessions[i], &counts);
        }
    }
    for (uint32_t i = 0; i < kv->block_high && wrong == NULL; i++) {
        wrong = block_invalid(kv, i, &counts);
        *ret_index = i;
    }
    kv->os->free(kv->os, counts.refs);
    kv->os->free(kv->os, counts.pins);
    return wrong;
}
