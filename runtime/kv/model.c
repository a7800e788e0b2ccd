/*
 * model.c - models: geometry, their place in the store, their frames.
 */
#include <string.h>

#include "base/hash.h"
#include "base/num.h"
#include "kv/persist.h"
#include "kv/place.h"
#include "kv/session.h"
#include "kv/transfer.h"

#define TOKENS_MAX_DEFAULT (1ull << 20)
#define TOKENS_TYPICAL_DEFAULT 8192
#define TABLE_ROWS_MAX 786432 /* rows x components of a session: its record fits one commit */
#define ALIGN_DEFAULT 64

static int bad(struct ab_kv *kv, const char *what)
{
    ab_log(kv->log, AB_LOG_ERROR, "model: %s", what);
    return -EINVAL;
}

static int planes_lay(struct ab_kv *kv, const struct abode_component *from,
                      struct ab_component *component)
{
    if (from->plane_count == 0 || from->plane_count > ABODE_PLANES_MAX || from->planes == NULL) {
        return bad(kv, "a component needs 1 to 512 planes");
    }
    uint64_t at = 0;
    for (uint32_t p = 0; p < from->plane_count; p++) {
        uint32_t align = from->planes[p].align != 0 ? from->planes[p].align : ALIGN_DEFAULT;
        if (!ab_is_pow2(align) || align > AB_PAGE || from->planes[p].bytes_per_block == 0) {
            return bad(kv, "a plane needs bytes, and an alignment that is a power of two <= 4096");
        }
        at = ab_align_up(at, align);
        component->plane_offsets[p] = at;
        component->plane_bytes[p] = from->planes[p].bytes_per_block;
        at += from->planes[p].bytes_per_block;
    }
    component->plane_count = from->plane_count;
    component->block_bytes = at;
    return 0;
}

static int component_make(struct ab_kv *kv, const struct abode_component *from,
                          struct ab_component *component)
{
    int status = 0;
    component->kind = from->kind;
    component->memory_bytes = from->memory_bytes;
    switch (from->kind) {
    case ABODE_WINDOW:
        component->window_tokens = from->window_tokens;
        if (from->window_tokens == 0) {
            return bad(kv, "a WINDOW component needs window_tokens");
        }
        status = planes_lay(kv, from, component);
        break;
    case ABODE_PAGED:
    case ABODE_SNAPSHOT:
        status = planes_lay(kv, from, component);
        break;
    case ABODE_BYTES:
        component->block_bytes = from->bytes_max;
        break;
    default:
        return bad(kv, "a component's kind must be PAGED, WINDOW, SNAPSHOT or BYTES");
    }
    if (status != 0) {
        return status;
    }
    if (from->snapshots_kept > AB_SNAPSHOTS_KEPT_MAX) {
        return bad(kv, "at most 8 snapshots can be kept");
    }
    component->kept = AB_MAX(from->snapshots_kept, 1u);
    uint64_t slot_max =
        kv->store == NULL ? UINT32_MAX : (uint64_t)ab_store_extent_pages_max(kv->store) * AB_PAGE;
    if (component->block_bytes == 0 || component->block_bytes > AB_MIN(slot_max, 1ull << 30)) {
        return bad(kv, "a block (or bytes_max) must be 1 byte to the store's largest extent: make "
                       "the store with larger segments (segment_bytes), or use smaller blocks");
    }
    component->planes_hash =
        ab_hash64(component->plane_offsets, component->plane_count * sizeof(uint64_t), 1) ^
        ab_hash64(component->plane_bytes, component->plane_count * sizeof(uint32_t), 2);
    return 0;
}

static int model_make(struct ab_kv *kv, const struct abode_model_desc *desc, struct ab_model *model)
{
    if (desc->component_count == 0 || desc->component_count > ABODE_COMPONENTS_MAX ||
        desc->components == NULL) {
        return bad(kv, "a model has 1 to 8 components");
    }
    if (desc->block_tokens == 0 || desc->block_tokens > AB_BLOCK_TOKENS_MAX) {
        return bad(kv, "block_tokens must be 1 to 65,536");
    }
    model->block_tokens = desc->block_tokens;
    model->component_count = desc->component_count;
    model->tokens_max =
        desc->session_tokens_max != 0 ? desc->session_tokens_max : TOKENS_MAX_DEFAULT;
    memcpy(model->tag, desc->tag, sizeof(model->tag));
    for (uint32_t c = 0; c < desc->component_count; c++) {
        int status = component_make(kv, &desc->components[c], &model->components[c]);
        if (status != 0) {
            return status;
        }
    }
    if (model->tokens_max > AB_SESSION_TOKENS_MAX ||
        ab_div_up(model->tokens_max, model->block_tokens) * model->component_count >
            TABLE_ROWS_MAX) {
        return bad(kv, "session_tokens_max / block_tokens x components is over 786,432: use larger "
                       "blocks or shorter sessions");
    }
    return 0;
}

int ab_model_tables_open(struct ab_kv *kv, struct ab_model *model)
{
    model->row_max = (uint32_t)ab_div_up(model->tokens_max, model->block_tokens);
    model->row_component_count = 0;
    model->token_bytes = 0;
    for (uint32_t c = 0; c < model->component_count; c++) {
        const struct ab_component *component = &model->components[c];
        if (ab_component_has_rows(component)) {
            model->row_component_count++;
            model->token_bytes += component->block_bytes / model->block_tokens;
        }
        model->has_windows |= component->kind == ABODE_WINDOW;
        model->has_snapshots |= !ab_component_has_rows(component);
    }
    /* a cache-only model has nothing but BYTES; its sessions keep only such state */
    uint64_t rows = ab_align_up(model->row_max, AB_PAGE / sizeof(uint32_t));
    model->table_stride = 2 * rows * model->row_component_count;
    void *tables = NULL;
    int status = 0;
    if (model->table_stride > 0) {
        status = ab_os_map_lazy(kv->os, kv->session_max * model->table_stride * sizeof(uint32_t),
                                &tables);
    }
    model->tables = tables;
    model->known = status == 0;
    return status;
}

static void tables_close(struct ab_kv *kv, struct ab_model *model)
{
    if (model->tables != NULL) {
        (void)kv->os->munmap(kv->os, model->tables,
                             kv->session_max * model->table_stride * sizeof(uint32_t));
    }
    model->tables = NULL;
    model->known = false;
}

static bool same_geometry(const struct ab_model *a, const struct ab_model *b)
{
    bool same = a->block_tokens == b->block_tokens && a->component_count == b->component_count &&
                a->tokens_max == b->tokens_max;
    for (uint32_t c = 0; same && c < a->component_count; c++) {
        const struct ab_component *x = &a->components[c], *y = &b->components[c];
        same = x->kind == y->kind && x->window_tokens == y->window_tokens &&
               x->block_bytes == y->block_bytes && x->planes_hash == y->planes_hash &&
               x->kept == y->kept;
    }
    return same;
}

/* bytes of a typical session, by component: how memory is shared out where nothing is wished */
static void weights_of(const struct ab_model *model, uint64_t typical, uint64_t *ret_weights)
{
    for (uint32_t c = 0; c < model->component_count; c++) {
        const struct ab_component *component = &model->components[c];
        uint64_t tokens = typical;
        if (component->kind == ABODE_WINDOW) {
            tokens = AB_MIN(tokens, component->window_tokens + (uint64_t)model->block_tokens);
        }
        uint64_t blocks = ab_component_has_rows(component)
                              ? ab_div_up(tokens, model->block_tokens) + 1
                              : component->kept + 1u;
        ret_weights[c] = blocks * component->block_bytes;
    }
}

static int frames_open(struct ab_kv *kv, struct ab_component *component, uint64_t bytes)
{
    struct ab_frames_desc desc = {.os = kv->os,
                                  .log = kv->log,
                                  .topology = kv->topology,
                                  .stride = ab_align_up(component->block_bytes, AB_PAGE),
                                  .huge = kv->huge};
    uint32_t nodes = (uint32_t)__builtin_popcountll(kv->node_mask);
    uint64_t frames = bytes / desc.stride / nodes;
    if (frames == 0 || frames > UINT32_MAX / AB_NODES_MAX) {
        ab_log(kv->log, AB_LOG_ERROR,
               "model: %llu bytes are not enough for a frame of %llu bytes on each node: raise "
               "memory_bytes_max or the component's memory_bytes",
               (unsigned long long)bytes, (unsigned long long)desc.stride);
        return -ENOMEM;
    }
    for (uint32_t node = 0; node < ab_topology_node_count(kv->topology); node++) {
        desc.frame_count[node] = (kv->node_mask >> node & 1) != 0 ? (uint32_t)frames : 0;
    }
    int status = ab_frames_open(&desc, &component->frames);
    if (status != 0) {
        return status;
    }
    uint32_t capacity = ab_frames_capacity(component->frames);
    component->infos = ab_os_alloc_array(kv->os, capacity, sizeof(*component->infos));
    if (component->infos == NULL) {
        ab_frames_close(component->frames);
        component->frames = NULL;
        return -ENOMEM;
    }
    for (uint32_t i = 0; i < capacity; i++) {
        component->infos[i].tenant = AB_TENANT_NEVER;
    }
    for (uint32_t i = 0; kv->store != NULL && i < ab_frames_chunk_count(component->frames); i++) {
        struct ab_frame_chunk chunk = ab_frames_chunk(component->frames, i);
        ab_transfer_buffer(kv, chunk.base, chunk.bytes, (int32_t)chunk.node, true);
    }
    return 0;
}

static void frames_close(struct ab_kv *kv, struct ab_component *component)
{
    for (uint32_t i = 0; kv->transfer != NULL && component->frames != NULL && kv->store != NULL &&
                         i < ab_frames_chunk_count(component->frames);
         i++) {
        struct ab_frame_chunk chunk = ab_frames_chunk(component->frames, i);
        ab_transfer_buffer(kv, chunk.base, chunk.bytes, (int32_t)chunk.node, false);
    }
    kv->os->free(kv->os, component->infos);
    ab_frames_close(component->frames);
    component->infos = NULL;
    component->frames = NULL;
}

static int memory_give(struct ab_kv *kv, struct ab_model *model,
                       const struct abode_model_desc *desc)
{
    uint64_t weights[ABODE_COMPONENTS_MAX], wishes[ABODE_COMPONENTS_MAX];
    uint64_t shares[ABODE_COMPONENTS_MAX];
    uint64_t budget = desc->memory_bytes != 0 ? desc->memory_bytes : kv->memory_left;
    weights_of(model,
               desc->session_tokens_typical != 0 ? desc->session_tokens_typical
                                                 : TOKENS_TYPICAL_DEFAULT,
               weights);
    for (uint32_t c = 0; c < model->component_count; c++) {
        wishes[c] = model->components[c].memory_bytes;
    }
    if (budget > kv->memory_left ||
        !ab_place_share(budget, wishes, weights, model->component_count, shares)) {
        ab_log(kv->log, AB_LOG_ERROR,
               "model: its memory exceeds what is left of memory_bytes_max (%llu bytes)",
               (unsigned long long)kv->memory_left);
        return -ENOMEM;
    }
    uint32_t opened = 0;
    int status = 0;
    for (; opened < model->component_count && status == 0; opened++) {
        status = frames_open(kv, &model->components[opened], shares[opened]);
    }
    if (status != 0) {
        for (uint32_t c = 0; c < opened; c++) {
            frames_close(kv, &model->components[c]);
        }
        return status;
    }
    kv->memory_left -= budget;
    return 0;
}

static struct ab_model *model_slot(struct ab_kv *kv, const struct ab_model *made, int *ret_status)
{
    struct ab_model *free_slot = NULL;
    for (uint32_t i = AB_MODELS_MAX; i-- > 0;) {
        struct ab_model *model = &kv->models[i];
        if (!model->known) {
            free_slot = model;
        } else if (memcmp(model->tag, made->tag, sizeof(made->tag)) == 0) {
            *ret_status = model->declared               ? -EEXIST
                          : !same_geometry(model, made) ? -ABODE_EMODEL
                                                        : 0;
            if (*ret_status == -ABODE_EMODEL) {
                ab_log(kv->log, AB_LOG_ERROR,
                       "model: the store has this tag with another geometry: give the changed "
                       "model a tag of its own");
            }
            return model;
        }
    }
    *ret_status = free_slot == NULL ? -ENOSPC : 0;
    return free_slot;
}

static void model_announce(struct ab_kv *kv, uint32_t index)
{
    struct ab_record *record = ab_record_new(kv);
    if (record == NULL) {
        ab_record_renew(kv);
        return;
    }
    ab_record_model(record, index);
    ab_record_submit(record, AB_PROMISE_WRITTEN);
}

/* The caller (front) lets one thread in at a time: frames take their time, lock KV is not held. */
int ab_model_declare(struct ab_kv *kv, const struct abode_model_desc *desc, uint32_t *ret_model)
{
    struct ab_model *made = kv->os->alloc(kv->os, sizeof(*made), 64);
    if (made == NULL) {
        return -ENOMEM;
    }
    int status = model_make(kv, desc, made);
    struct ab_model *model = status == 0 ? model_slot(kv, made, &status) : NULL;
    const bool known = status == 0 && model->known;
    if (status == 0 && !known) {
        status = ab_model_tables_open(kv, made);
    }
    if (status == 0) {
        status = memory_give(kv, made, desc);
    }
    if (status != 0) {
        tables_close(kv, made);
        kv->os->free(kv->os, made);
        return status;
    }
    ab_lock_take(&kv->lock);
    if (known) { /* the store's: its tables are filled */
        memcpy(model->components, made->components, sizeof(model->components));
    } else {
        *model = *made;
    }
    model->declared = true;
    *ret_model = (uint32_t)(model - kv->models);
    if (!known) {
        model_announce(kv, *ret_model);
    }
    ab_lock_drop(&kv->lock);
    kv->os->free(kv->os, made);
    return 0;
}

void ab_model_entry_fill(const struct ab_model *model, uint32_t index, struct ab_entry_model *entry)
{
    entry->model = index;
    entry->block_tokens = model->block_tokens;
    entry->component_count = model->component_count;
    entry->tokens_max = model->tokens_max;
    memcpy(entry->tag, model->tag, sizeof(entry->tag));
    struct ab_entry_component *components = (void *)(entry + 1);
    for (uint32_t c = 0; c < model->component_count; c++) {
        components[c] =
            (struct ab_entry_component){.kind = model->components[c].kind,
                                        .window_tokens = model->components[c].window_tokens,
                                        .kept = model->components[c].kept,
                                        .plane_count = model->components[c].plane_count,
                                        .block_bytes = model->components[c].block_bytes,
                                        .planes_hash = model->components[c].planes_hash};
    }
}

void ab_models_close(struct ab_kv *kv)
{
    for (uint32_t i = 0; i < AB_MODELS_MAX; i++) {
        struct ab_model *model = &kv->models[i];
        ab_lock_take(&kv->lock);
        bool declared = model->declared;
        model->declared = false; /* services look after declared models only */
        ab_lock_drop(&kv->lock);
        for (uint32_t c = 0; declared && c < model->component_count; c++) {
            frames_close(kv, &model->components[c]);
        }
    }
}

void ab_models_forget(struct ab_kv *kv)
{
    for (uint32_t i = 0; i < AB_MODELS_MAX; i++) {
        tables_close(kv, &kv->models[i]);
    }
}
