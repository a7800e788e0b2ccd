/*
 * session.c - the table of sessions: handles, names, create, find, stat, notes, advice, delete.
 * What changes rows (fork, truncate, cut) is in branch.c; what appends is in append.c.
 */
#include "kv/session.h"

#include <string.h>
#include <sys/mman.h>

#include "base/hash.h"
#include "base/num.h"
#include "kv/persist.h"
#include "kv/place.h"
#include "kv/transfer.h"

static uint32_t *table(struct ab_kv *kv, const struct ab_session *session, uint32_t c, bool frames)
{
    const struct ab_model *model = &kv->models[session->model];
    uint32_t at = 0;
    for (uint32_t i = 0; i < c; i++) {
        at += ab_component_has_rows(&model->components[i]);
    }
    at += frames ? model->row_component_count : 0;
    return model->tables + ab_session_index(kv, session) * model->table_stride +
           (uint64_t)at * ab_align_up(model->row_max, AB_PAGE / sizeof(uint32_t));
}

uint32_t *ab_session_rows(struct ab_kv *kv, const struct ab_session *session, uint32_t component)
{
    return table(kv, session, component, false);
}

uint32_t *ab_session_frames(struct ab_kv *kv, const struct ab_session *session, uint32_t component)
{
    return table(kv, session, component, true);
}

struct abode_session ab_session_handle(const struct ab_kv *kv, const struct ab_session *session)
{
    return (struct abode_session){((uint64_t)session->generation << 32) |
                                  (ab_session_index(kv, session) + 1)};
}

struct ab_session *ab_session_get(struct ab_kv *kv, struct abode_session handle)
{
    uint32_t index = (uint32_t)handle.raw - 1;
    if ((uint32_t)handle.raw == 0 || index >= kv->session_max) {
        return NULL;
    }
    struct ab_session *session = &kv->sessions[index];
    /* A delete by another thread raises the generation: the host orders uses of one session. */
    uint32_t generation = __atomic_load_n(&session->generation, __ATOMIC_ACQUIRE);
    uint8_t state = __atomic_load_n(&session->state, __ATOMIC_ACQUIRE);
    bool live = state != AB_SESSION_FREE && state != AB_SESSION_DELETED;
    return live && generation == (uint32_t)(handle.raw >> 32) ? session : NULL;
}

static uint32_t name_bucket(const struct ab_kv *kv, const struct abode_key *name)
{
    return (uint32_t)ab_hash64(name->bytes, sizeof(name->bytes), 0) & kv->name_mask;
}

static struct ab_session *find_name(struct ab_kv *kv, const struct abode_key *name)
{
    uint32_t index = kv->names[name_bucket(kv, name)];
    while (index != AB_INDEX_NONE) {
        struct ab_session *session = &kv->sessions[index];
        if (memcmp(&session->name, name, sizeof(*name)) == 0) {
            return session;
        }
        index = session->name_next;
    }
    return NULL;
}

void ab_session_name_add(struct ab_kv *kv, struct ab_session *session, const struct abode_key *name)
{
    uint32_t *bucket = &kv->names[name_bucket(kv, name)];
    session->name = *name;
    session->named = true;
    session->name_next = *bucket;
    *bucket = ab_session_index(kv, session);
}

static void name_remove(struct ab_kv *kv, struct ab_session *session)
{
    if (!session->named) {
        return;
    }
    uint32_t *link = &kv->names[name_bucket(kv, &session->name)];
    while (*link != ab_session_index(kv, session)) {
        link = &kv->sessions[*link].name_next;
    }
    *link = session->name_next;
    session->named = false;
}

static void session_init(struct ab_session *session, uint32_t generation, uint32_t model)
{
    memset(session, 0, sizeof(*session));
    session->generation = generation;
    session->model = model;
    session->home_node = -1;
    ab_list_init(&session->lru);
    for (uint32_t c = 0; c < ABODE_COMPONENTS_MAX; c++) {
        session->reserved_blocks[c] = AB_INDEX_NONE;
        session->held[c] = AB_INDEX_NONE;
    }
}

static struct ab_session *session_new(struct ab_kv *kv, uint32_t model)
{
    uint32_t index = kv->session_free;
    if (kv->session_used >= kv->session_limit) {
        return NULL;
    }
    if (index != AB_INDEX_NONE) {
        kv->session_free = kv->sessions[index].name_next;
    } else if (kv->session_high < kv->session_max) {
        index = kv->session_high++;
    } else {
        return NULL;
    }
    struct ab_session *session = &kv->sessions[index];
    session_init(session, session->generation + 1, model);
    kv->session_used++;
    return session;
}

struct ab_session *ab_session_restore(struct ab_kv *kv, uint32_t index, uint32_t generation,
                                      uint32_t model)
{
    if (index >= kv->session_max || model >= AB_MODELS_MAX || !kv->models[model].known) {
        return NULL;
    }
    kv->session_high = AB_MAX(kv->session_high, index + 1);
    struct ab_session *session = &kv->sessions[index];
    if (session->state == AB_SESSION_FREE || session->generation != generation) {
        name_remove(kv, session);
        session_init(session, generation, model);
        session->state = AB_SESSION_DETACHED;
    }
    return session;
}

void ab_session_release(struct ab_kv *kv, struct ab_session *session)
{
    name_remove(kv, session);
    ab_list_remove(&session->lru);
    kv->os->free(kv->os, session->note);
    session->note = NULL;
    ab_session_note_committed(kv, session);
    const struct ab_model *model = &kv->models[session->model];
    if (model->tables != NULL) {
        (void)kv->os->madvise(kv->os,
                              model->tables + ab_session_index(kv, session) * model->table_stride,
                              model->table_stride * sizeof(uint32_t), MADV_DONTNEED);
    }
    __atomic_store_n(&session->state, AB_SESSION_FREE, __ATOMIC_RELEASE);
    session->name_next = kv->session_free;
    kv->session_free = ab_session_index(kv, session);
    kv->session_used--;
}

/* Leading rows that are there for all components under these keys. */
static uint32_t prefix_rows(struct ab_kv *kv, const struct ab_session *session,
                            const struct abode_session_opts *opts)
{
    const struct ab_model *model = &kv->models[session->model];
    if (model->has_snapshots) {
        return 0;
    }
    uint32_t rows = 0;
    for (; rows < opts->prefix_key_count && rows < model->row_max; rows++) {
        bool whole = true;
        for (uint32_t c = 0; c < model->component_count && whole; c++) {
            uint64_t key[2];
            uint8_t id = AB_COMPONENT_ID(session->model, c);
            ab_block_fingerprint(id, session->tenant, &opts->prefix_keys[rows], key);
            uint32_t block = ab_block_find(kv, id, key);
            whole = block != AB_INDEX_NONE && (kv->blocks[block].flags & AB_BLOCK_BAD) == 0;
        }
        if (!whole) {
            break;
        }
    }
    return rows;
}

static void prefix_adopt(struct ab_kv *kv, struct ab_session *session,
                         const struct abode_session_opts *opts, uint32_t rows)
{
    const struct ab_model *model = &kv->models[session->model];
    session->row_count = rows;
    session->token_count = (uint64_t)rows * model->block_tokens;
    for (uint32_t c = 0; c < model->component_count; c++) {
        uint8_t id = AB_COMPONENT_ID(session->model, c);
        uint32_t *table_rows = ab_session_rows(kv, session, c);
        session->row_first[c] = ab_window_first(model, c, session->token_count);
        for (uint32_t row = session->row_first[c]; row < rows; row++) {
            uint64_t key[2];
            ab_block_fingerprint(id, session->tenant, &opts->prefix_keys[row], key);
            table_rows[row] = ab_block_find(kv, id, key);
            ab_block_ref(kv, table_rows[row]);
        }
    }
}

static void home_choose(struct ab_kv *kv, struct ab_session *session, int32_t wanted)
{
    uint64_t free_bytes[AB_NODES_MAX] = {0}, total_bytes[AB_NODES_MAX] = {0};
    uint32_t node_count = ab_topology_node_count(kv->topology);
    const struct ab_model *model = &kv->models[session->model];
    for (uint32_t c = 0; c < model->component_count; c++) {
        const struct ab_frames *frames = model->components[c].frames;
        for (uint32_t n = 0; n < node_count; n++) {
            free_bytes[n] += ab_frames_free(frames, n) * ab_frames_stride(frames);
            total_bytes[n] += ab_frames_total(frames, n) * ab_frames_stride(frames);
        }
    }
    session->home_node = ab_place_home(kv->node_mask, wanted, free_bytes, total_bytes, node_count);
}

int ab_session_create_locked(struct ab_kv *kv, const struct abode_session_opts *opts,
                             struct abode_session *ret)
{
    if (opts->name != NULL && find_name(kv, opts->name) != NULL) {
        return -EEXIST;
    }
    struct ab_session *session = session_new(kv, opts->model);
    if (session == NULL) {
        return -EAGAIN;
    }
    session->tenant = opts->tenant;
    session->durability = (uint8_t)(opts->durability != 0 ? opts->durability : kv->durability);
    home_choose(kv, session, opts->home_node);
    uint32_t rows = opts->prefix_keys == NULL ? 0 : prefix_rows(kv, session, opts);
    if (rows > 0) {
        prefix_adopt(kv, session, opts, rows);
    }
    if (opts->name != NULL) {
        ab_session_name_add(kv, session, opts->name);
    }
    if (rows > 0) {
        ab_session_detached(kv, session);
    } else {
        __atomic_store_n(&session->state, AB_SESSION_ATTACHED, __ATOMIC_RELEASE);
    }
    *ret = ab_session_handle(kv, session);
    return 0;
}

int ab_session_create(struct ab_kv *kv, const struct abode_session_opts *opts,
                      struct abode_session *ret)
{
    ab_lock_take(&kv->lock);
    int status = -EINVAL;
    if (opts->model < AB_MODELS_MAX && kv->models[opts->model].declared) {
        status = ab_session_create_locked(kv, opts, ret);
    }
    ab_lock_drop(&kv->lock);
    return status;
}

int ab_session_find(struct ab_kv *kv, const struct abode_key *name, struct abode_session *ret)
{
    ab_lock_take(&kv->lock);
    int status = -ENOENT;
    const struct ab_session *session = find_name(kv, name);
    if (session != NULL && session->state != AB_SESSION_DELETED) {
        status = kv->models[session->model].declared || kv->read_only ? 0 : -ABODE_EMODEL;
        if (status == 0) {
            *ret = ab_session_handle(kv, session);
        }
    }
    ab_lock_drop(&kv->lock);
    return status;
}

static int session_delete_say(struct ab_kv *kv, struct ab_session *session)
{
    struct ab_record *record = ab_record_new(kv);
    if (record == NULL) {
        return -ENOMEM;
    }
    ab_record_session_delete(record, ab_session_index(kv, session), session->generation);
    ab_record_submit(record, AB_PROMISE_WRITTEN);
    session->recorded = false;
    return 0;
}

int ab_session_delete(struct ab_kv *kv, struct abode_session handle)
{
    ab_lock_take(&kv->lock);
    struct ab_session *session = ab_session_get(kv, handle);
    int status = 0;
    if (session == NULL) {
        status = -ABODE_ESTALE;
    } else if (session->task != NULL) {
        status = -EBUSY;
    } else if (session->spill != NULL) {
        /* its blocks are being written: the end of the spill gives them up; the journal is told
         * now, since a promise of DURABLE that comes next includes this */
        status = session->recorded ? session_delete_say(kv, session) : 0;
        if (status != 0) {
            ab_lock_drop(&kv->lock);
            return status;
        }
        name_remove(kv, session);
        if (session->state == AB_SESSION_ATTACHED) {
            ab_session_unpin(kv, session);
        }
        __atomic_store_n(&session->state, AB_SESSION_DELETED, __ATOMIC_RELEASE);
    } else {
        status = ab_session_delete_now(kv, session);
    }
    ab_lock_drop(&kv->lock);
    return status;
}

int ab_session_delete_now(struct ab_kv *kv, struct ab_session *session)
{
    struct ab_record *record = ab_record_new(kv);
    if (record == NULL) {
        return -ENOMEM;
    }
    uint32_t generation = session->generation;
    if (session->state == AB_SESSION_ATTACHED) {
        ab_session_unpin(kv, session);
    }
    ab_session_cut(kv, session, 0, record);
    ab_session_let_go(kv, session, record);
    if (session->recorded) {
        ab_record_session_delete(record, ab_session_index(kv, session), generation);
    }
    ab_session_release(kv, session);
    ab_record_submit(record, AB_PROMISE_WRITTEN);
    if (kv->transfer != NULL) { /* room for others: a spill that failed may be tried again */
        kv->transfer->spill_status = 0;
        kv->transfer->spill_retry_ns = 0;
    }
    return 0;
}

static void sum_bytes(struct ab_kv *kv, uint32_t index, struct abode_session_info *info)
{
    if (index == AB_INDEX_NONE) {
        return;
    }
    const struct ab_block *block = &kv->blocks[index];
    info->bytes_state += block->bytes;
    info->bytes_resident += block->frame != AB_INDEX_NONE ? block->bytes : 0;
    info->bytes_stored += ab_block_is_stored(block) ? block->bytes : 0;
}

int ab_session_stat(struct ab_kv *kv, struct abode_session handle, struct abode_session_info *ret)
{
    ab_lock_take(&kv->lock);
    const struct ab_session *session = ab_session_get(kv, handle);
    int status = session == NULL ? -ABODE_ESTALE : 0;
    if (session != NULL) {
        const struct ab_model *model = &kv->models[session->model];
        /* the host's thread may be appending: it stores this without the lock (append.c) */
        uint64_t tokens = __atomic_load_n(&session->token_count, __ATOMIC_RELAXED);
        struct abode_session_info info = {.struct_size = sizeof(info),
                                          .model = session->model,
                                          .tenant = session->tenant,
                                          .attached = session->state == AB_SESSION_ATTACHED,
                                          .token_count = tokens,
                                          .stored_tokens = session->stored_tokens,
                                          .home_node = session->home_node,
                                          .row_count = ab_rows_of(model, tokens)};
        info.restore_point = ab_session_restore_point(kv, session, tokens);
        if (session->named) {
            info.name = session->name;
        }
        for (uint32_t c = 0; c < model->component_count; c++) {
            if (!ab_component_has_rows(&model->components[c])) {
                for (uint32_t i = 0; i < session->point_count; i++) {
                    sum_bytes(kv, session->points[i].blocks[c], &info);
                }
                continue;
            }
            const uint32_t *rows = ab_session_rows(kv, session, c);
            for (uint32_t row = session->row_first[c]; row < session->row_count; row++) {
                sum_bytes(kv, rows[row], &info);
            }
        }
        *ret = info;
    }
    ab_lock_drop(&kv->lock);
    return status;
}

void ab_session_note_committed(struct ab_kv *kv, struct ab_session *session)
{
    kv->os->free(kv->os, session->note_stored);
    session->note_stored = NULL;
    session->note_dirty = false;
}

int ab_session_note_set(struct ab_kv *kv, struct abode_session handle, const void *bytes,
                        size_t size)
{
    if (size > ABODE_NOTE_MAX) {
        return -EINVAL;
    }
    uint8_t *copy = NULL;
    if (size > 0) {
        copy = kv->os->alloc(kv->os, size, 8);
        if (copy == NULL) {
            return -ENOMEM;
        }
        memcpy(copy, bytes, size);
    }
    ab_lock_take(&kv->lock);
    struct ab_session *session = ab_session_get(kv, handle);
    int status = session == NULL ? -ABODE_ESTALE : session->task != NULL ? -EBUSY : 0;
    uint8_t *old = copy;
    if (status == 0) {
        old = session->note;
        if (!session->note_dirty) {
            session->note_stored = session->note;
            session->note_stored_size = session->note_size;
            old = NULL;
        }
        session->note = copy;
        session->note_size = (uint32_t)size;
        session->note_dirty = true;
    }
    ab_lock_drop(&kv->lock);
    kv->os->free(kv->os, old);
    return status;
}

int ab_session_note_get(struct ab_kv *kv, struct abode_session handle, void *ret_bytes,
                        size_t capacity)
{
    ab_lock_take(&kv->lock);
    const struct ab_session *session = ab_session_get(kv, handle);
    int status = -ABODE_ESTALE;
    if (session != NULL) {
        size_t size = AB_MIN(capacity, session->note_size);
        if (size > 0) {
            memcpy(ret_bytes, session->note, size);
        }
        status = (int)session->note_size;
    }
    ab_lock_drop(&kv->lock);
    return status;
}

static uint64_t after_ns(struct ab_kv *kv, int64_t value)
{
    return value <= 0 ? 0 : kv->os->clock_ns(kv->os) + (uint64_t)value;
}

void ab_session_advise(struct ab_kv *kv, struct abode_session handle, enum abode_advice advice,
                       int64_t value)
{
    ab_lock_take(&kv->lock);
    struct ab_session *session = ab_session_get(kv, handle);
    if (session != NULL) {
        switch (advice) {
        case ABODE_WILL_NEED:
            session->next_use_ns = after_ns(kv, value);
            if (session->state == AB_SESSION_DETACHED && session->task == NULL) {
                ab_prefetch_start(kv, session);
            }
            break;
        case ABODE_IDLE_TOOL:
        case ABODE_IDLE_PERSON:
            session->next_use_ns = after_ns(kv, value);
            break;
        case ABODE_ENDED:
            session->ended = true;
            break;
        case ABODE_PREFER_NODE:
            if (value >= 0 && value < AB_NODES_MAX && (kv->node_mask >> value & 1) != 0) {
                session->home_node = (int32_t)value;
            }
            break;
        case ABODE_KEEP:
            session->keep_until_ns = after_ns(kv, value);
            break;
        default: /* advice of a newer header: not an error */
            break;
        }
    }
    ab_lock_drop(&kv->lock);
}
