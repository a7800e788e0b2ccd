/*
 * kv.c - the kv layer as a whole: its tables, sized once at open.
 */
#include "kv/kv.h"

#include <string.h>

#include "base/num.h"
#include "kv/cache.h"
#include "kv/persist.h"
#include "kv/session.h"

#define BLOCK_CAPACITY_MIN (1u << 24) /* places in the (lazy) map: the journal may name them */
#define SESSION_PLACES_MIN 65536
#define SESSIONS_DEFAULT 16384
#define NAME_BUCKETS 65536

static uint64_t pow2_at_least(uint64_t value)
{
    uint64_t power = 1;
    while (power < value) {
        power *= 2;
    }
    return power;
}

static int tables_make(struct ab_kv *kv, uint32_t block_max)
{
    kv->block_max = block_max;
    kv->block_capacity = AB_MAX(block_max, BLOCK_CAPACITY_MIN);
    kv->block_free = AB_INDEX_NONE;
    kv->session_free = AB_INDEX_NONE;
    /* chains of 4 when every slot is a page, of 0.25 at 64 KiB: an index for the worst case would cost
     * more than what it finds, a hash touches all of its pages */
    kv->bucket_mask = (uint32_t)pow2_at_least(block_max / 4 + 1) - 1;
    kv->name_mask = NAME_BUCKETS - 1;
    void *blocks = NULL, *buckets = NULL, *sessions = NULL, *keys = NULL;
    int status = ab_os_map_lazy(kv->os, kv->block_capacity * sizeof(struct ab_block), &blocks);
    kv->blocks = blocks;
    if (status == 0) {
        status = ab_os_map_lazy(kv->os, (kv->bucket_mask + 1ull) * sizeof(uint32_t), &buckets);
        kv->buckets = buckets;
    }
    if (status == 0) {
        status = ab_os_map_lazy(kv->os, kv->session_max * sizeof(struct ab_session), &sessions);
        kv->sessions = sessions;
    }
    if (status == 0 && kv->keep_keys) {
        status = ab_os_map_lazy(kv->os, kv->block_capacity * sizeof(struct abode_key), &keys);
        kv->keys = keys;
        kv->event_free = AB_INDEX_NONE;
        kv->events = ab_os_alloc_array(kv->os, AB_EVENTS_MAX, sizeof(*kv->events));
        status = status == 0 && kv->events == NULL ? -ENOMEM : status;
    }
    kv->names = ab_os_alloc_array(kv->os, NAME_BUCKETS, sizeof(*kv->names));
    kv->regions = ab_os_alloc_array(kv->os, AB_REGIONS_MAX, sizeof(*kv->regions));
    if (status == 0 && (kv->names == NULL || kv->regions == NULL)) {
        status = -ENOMEM;
    }
    for (uint32_t i = 0; status == 0 && i < NAME_BUCKETS; i++) {
        kv->names[i] = AB_INDEX_NONE;
    }
    return status;
}

int ab_kv_open(const struct ab_kv_config *config, struct ab_kv **ret)
{
    const struct ab_os *os = config->os;
    struct ab_kv *kv = os->alloc(os, sizeof(*kv), 64);
    if (kv == NULL) {
        return -ENOMEM;
    }
    kv->os = os;
    kv->log = config->log;
    kv->topology = config->topology;
    kv->poison = config->poison;
    kv->kernels = ab_kernels_best();
    kv->read_only = (config->config->flags & ABODE_READ_ONLY) != 0;
    kv->keep_keys = (config->config->flags & ABODE_KEEP_KEYS) != 0;
    kv->durability = (uint8_t)config->config->durability;
    kv->huge = (enum ab_huge)config->config->huge;
    kv->memory_left = config->config->memory_bytes_max;
    kv->node_mask = config->config->node_mask;
    kv->reclaim_low_percent = config->config->reclaim_low_percent;
    kv->reclaim_high_percent = config->config->reclaim_high_percent;
    kv->spill_bytes_per_day = config->config->spill_bytes_per_day_max;
    kv->spill_tokens = kv->spill_bytes_per_day / 24; /* an hour's worth at once */
    kv->spill_refilled_ns = os->clock_ns(os);
    uint32_t limit = config->config->session_count_max;
    kv->session_limit = limit != 0 ? limit : SESSIONS_DEFAULT;
    kv->session_max = AB_MAX(kv->session_limit, SESSION_PLACES_MIN);
    kv->random = 0x9e3779b97f4a7c15ull;
    ab_list_init(&kv->lru);
    int status = ab_lock_init(&kv->lock, AB_RANK_KV, "kv");
    if (status != 0) {
        os->free(os, kv);
        return status;
    }
    status = tables_make(kv, config->block_max);
    if (status != 0) {
        ab_kv_close(kv);
        return status;
    }
    *ret = kv;
    return 0;
}

static void unmap(const struct ab_kv *kv, void *base, uint64_t bytes)
{
    if (base != NULL) {
        (void)kv->os->munmap(kv->os, base, ab_align_up(bytes, AB_PAGE));
    }
}

void ab_kv_close(struct ab_kv *kv)
{
    if (kv == NULL) {
        return;
    }
    const struct ab_os *os = kv->os;
    ab_models_forget(kv);
    for (uint32_t i = 0; i < kv->session_high; i++) {
        os->free(os, kv->sessions[i].note);
        os->free(os, kv->sessions[i].note_stored);
    }
    if (kv->regions != NULL) {
        ab_regions_close(kv);
    }
    unmap(kv, kv->blocks, kv->block_capacity * sizeof(struct ab_block));
    unmap(kv, kv->buckets, (kv->bucket_mask + 1ull) * sizeof(uint32_t));
    unmap(kv, kv->sessions, kv->session_max * sizeof(struct ab_session));
    unmap(kv, kv->keys, kv->block_capacity * sizeof(struct abode_key));
    os->free(os, kv->events);
    os->free(os, kv->names);
    os->free(os, kv->regions);
    ab_lock_destroy(&kv->lock);
    os->free(os, kv);
}

uint64_t ab_kv_metadata_bytes(struct ab_kv *kv)
{
    /* what is touched: maps are lazy, and a key touches a page of the index at most */
    uint64_t bytes =
        (uint64_t)kv->block_high * sizeof(struct ab_block) +
        (uint64_t)kv->session_high * sizeof(struct ab_session) + NAME_BUCKETS * sizeof(uint32_t) +
        AB_MIN((kv->bucket_mask + 1ull) * sizeof(uint32_t), (uint64_t)kv->block_keyed * AB_PAGE);
    bytes += kv->keys != NULL ? (uint64_t)kv->block_high * sizeof(struct abode_key) : 0;
    for (uint32_t m = 0; m < AB_MODELS_MAX; m++) {
        const struct ab_model *model = &kv->models[m];
        for (uint32_t c = 0; model->declared && c < model->component_count; c++) {
            bytes += ab_frames_metadata_bytes(model->components[c].frames) +
                     (uint64_t)ab_frames_capacity(model->components[c].frames) *
                         sizeof(struct ab_frame_info);
        }
    }
    for (uint32_t i = 0; i < kv->session_high; i++) {
        const struct ab_session *session = &kv->sessions[i];
        if (session->state != AB_SESSION_FREE) {
            uint64_t table = ab_align_up((uint64_t)session->row_count * sizeof(uint32_t), AB_PAGE);
            uint32_t halves = session->state == AB_SESSION_DETACHED ? 1 : 2;
            bytes += table * halves * kv->models[session->model].row_component_count;
            bytes += session->note_size;
        }
    }
    return bytes;
}
