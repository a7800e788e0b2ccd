/*
 * persist.c - journal entries as state: replay at open, and the state as entries: checkpoint.
 *
 * Entries come from disk: every number in them is checked against a bound before it is used. An
 * entry that names what cannot be is -ABODE_ECORRUPT: records are checksummed, so that means a
 * defect or another version, and the store does not open rather than guess.
 */
#include "kv/persist.h"

#include <errno.h>
#include <string.h>

#include "base/num.h"
#include "kv/session.h"

static int replay_model(struct ab_kv *kv, const struct ab_entry *entry)
{
    const struct ab_entry_model *put = (const struct ab_entry_model *)entry;
    if (entry->size < sizeof(*put) || put->model >= AB_MODELS_MAX || put->component_count == 0 ||
        put->component_count > ABODE_COMPONENTS_MAX || put->block_tokens == 0 ||
        put->block_tokens > AB_BLOCK_TOKENS_MAX || put->tokens_max == 0 ||
        put->tokens_max > AB_SESSION_TOKENS_MAX ||
        entry->size < sizeof(*put) + put->component_count * sizeof(struct ab_entry_component)) {
        return -ABODE_ECORRUPT;
    }
    const struct ab_entry_component *components = (const void *)(put + 1);
    struct ab_model *model = &kv->models[put->model];
    if (model->known) {
        return 0;
    }
    model->block_tokens = put->block_tokens;
    model->component_count = put->component_count;
    model->tokens_max = put->tokens_max;
    memcpy(model->tag, put->tag, sizeof(model->tag));
    for (uint32_t c = 0; c < put->component_count; c++) {
        if (components[c].kind < ABODE_PAGED || components[c].kind > ABODE_BYTES ||
            components[c].block_bytes == 0 || components[c].block_bytes > UINT32_MAX) {
            return -ABODE_ECORRUPT;
        }
        model->components[c].kind = components[c].kind;
        model->components[c].window_tokens = components[c].window_tokens;
        model->components[c].kept = AB_MIN(components[c].kept, AB_SNAPSHOTS_KEPT_MAX);
        model->components[c].plane_count = components[c].plane_count;
        model->components[c].block_bytes = components[c].block_bytes;
        model->components[c].planes_hash = components[c].planes_hash;
    }
    return ab_model_tables_open(kv, model);
}

/* A component that is there, and a size that its frames hold. */
static bool block_put_fits(const struct ab_kv *kv, const struct ab_entry_block_put *put)
{
    if (put->component / ABODE_COMPONENTS_MAX >= AB_MODELS_MAX) {
        return false;
    }
    const struct ab_model *model = &kv->models[put->component / ABODE_COMPONENTS_MAX];
    const uint32_t c = put->component % ABODE_COMPONENTS_MAX;
    return model->known && c < model->component_count && put->bytes > 0 &&
           put->bytes <= model->components[c].block_bytes;
}

static int replay_block_put(struct ab_kv *kv, const struct ab_entry *entry)
{
    const struct ab_entry_block_put *put = (const struct ab_entry_block_put *)entry;
    if (entry->size < sizeof(*put) || !block_put_fits(kv, put)) {
        return -ABODE_ECORRUPT;
    }
    int status = ab_block_restore(kv, put->block);
    if (status != 0) {
        return status;
    }
    struct ab_block *block = &kv->blocks[put->block];
    struct ab_slot slot = {put->segment, put->page};
    if (ab_block_is_stored(block)) {
        ab_store_drop(kv->store, ab_block_slot(block), ab_pages(block->bytes));
        block->segment = AB_INDEX_NONE;
        kv->block_stored--;
    }
    ab_block_key_remove(kv, put->block);
    block->component = put->component;
    block->bytes = put->bytes;
    status = ab_store_slot_restore(kv->store, slot, ab_pages(put->bytes), put->generation);
    if (status == -ENOENT) { /* nobody finds it by key, and sessions that name it are given up */
        ab_block_mark(block, AB_BLOCK_BAD);
        return 0;
    }
    if (status != 0) {
        return status;
    }
    ab_block_unmark(block, AB_BLOCK_BAD);
    block->segment = put->segment;
    block->page = put->page;
    block->checksum = put->checksum[0];
    block->stamp = put->stamp;
    kv->tick = AB_MAX(kv->tick, put->stamp);
    kv->block_stored++;
    if (put->keyed && ab_block_find(kv, put->component, put->key) == AB_INDEX_NONE) {
        ab_block_key_add(kv, put->block, put->key);
    }
    return 0;
}

static void block_forget(struct ab_kv *kv, uint32_t index)
{
    struct ab_block *block = &kv->blocks[index];
    if (index >= kv->block_high || (block->flags & AB_BLOCK_USED) == 0) {
        return; /* dropped already: entries may come twice */
    }
    ab_block_key_remove(kv, index);
    if (ab_block_is_stored(block)) {
        ab_store_drop(kv->store, ab_block_slot(block), ab_pages(block->bytes));
        block->segment = AB_INDEX_NONE;
        kv->block_stored--;
    }
    ab_block_free(kv, index);
}

static int replay_block_drop(struct ab_kv *kv, const struct ab_entry *entry)
{
    const struct ab_entry_block_drop *drop = (const struct ab_entry_block_drop *)entry;
    if (entry->size < sizeof(*drop) ||
        drop->count > (entry->size - sizeof(*drop)) / sizeof(uint32_t)) {
        return -ABODE_ECORRUPT;
    }
    const uint32_t *blocks = (const uint32_t *)(drop + 1);
    for (uint32_t i = 0; i < drop->count; i++) {
        block_forget(kv, blocks[i]);
    }
    return 0;
}

static int replay_session_put(struct ab_kv *kv, const struct ab_entry *entry)
{
    const struct ab_entry_session_put *put = (const struct ab_entry_session_put *)entry;
    if (entry->size < sizeof(*put) || put->point_count > AB_SNAPSHOTS_KEPT_MAX ||
        put->durability > ABODE_DURABLE ||
        entry->size < sizeof(*put) + put->point_count * sizeof(struct ab_entry_point)) {
        return -ABODE_ECORRUPT;
    }
    struct ab_session *session = ab_session_restore(kv, put->session, put->generation, put->model);
    if (session == NULL || session->model != put->model ||
        put->token_count > kv->models[put->model].tokens_max) {
        return -ABODE_ECORRUPT;
    }
    session->tenant = put->tenant;
    session->home_node = put->home_node;
    session->durability = put->durability;
    session->ended = put->ended;
    struct abode_key name;
    memcpy(name.bytes, put->name, sizeof(name.bytes));
    if (put->named && !session->named) {
        ab_session_name_add(kv, session, &name);
    }
    session->token_count = put->token_count;
    session->row_count = ab_rows_of(&kv->models[put->model], put->token_count);
    session->dirty_row = session->row_count;
    memcpy(session->row_first, put->row_first, sizeof(session->row_first));
    const struct ab_entry_point *points = (const void *)(put + 1);
    session->point_count = put->point_count;
    for (uint32_t i = 0; i < put->point_count; i++) {
        session->points[i] =
            (struct ab_restore_point){.token_count = points[i].token_count, .stored = true};
        memcpy(session->points[i].blocks, points[i].blocks, sizeof(points[i].blocks));
    }
    return 0;
}

static struct ab_session *named_session(struct ab_kv *kv, uint32_t index, uint32_t generation)
{
    struct ab_session *session = index < kv->session_high ? &kv->sessions[index] : NULL;
    bool same =
        session != NULL && session->state != AB_SESSION_FREE && session->generation == generation;
    return same ? session : NULL;
}

static int replay_session_rows(struct ab_kv *kv, const struct ab_entry *entry)
{
    const struct ab_entry_session_rows *put = (const struct ab_entry_session_rows *)entry;
    if (entry->size < sizeof(*put) ||
        put->count > (entry->size - sizeof(*put)) / sizeof(uint32_t)) {
        return -ABODE_ECORRUPT;
    }
    const struct ab_session *session = named_session(kv, put->session, put->generation);
    if (session == NULL) {
        return -ABODE_ECORRUPT;
    }
    const struct ab_model *model = &kv->models[session->model];
    if (put->component >= model->component_count || put->row > model->row_max ||
        put->count > model->row_max - put->row ||
        !ab_component_has_rows(&model->components[put->component])) {
        return -ABODE_ECORRUPT;
    }
    memcpy(ab_session_rows(kv, session, put->component) + put->row, put + 1,
           put->count * sizeof(uint32_t));
    return 0;
}

static int replay_session_note(struct ab_kv *kv, const struct ab_entry *entry)
{
    const struct ab_entry_session_note *put = (const struct ab_entry_session_note *)entry;
    if (entry->size < sizeof(*put) || put->size > ABODE_NOTE_MAX ||
        put->size > entry->size - sizeof(*put)) {
        return -ABODE_ECORRUPT;
    }
    struct ab_session *session = named_session(kv, put->session, put->generation);
    if (session == NULL) {
        return -ABODE_ECORRUPT;
    }
    uint8_t *note = kv->os->alloc(kv->os, AB_MAX(put->size, 1u), 8);
    if (note == NULL) {
        return -ENOMEM;
    }
    memcpy(note, put + 1, put->size);
    kv->os->free(kv->os, session->note);
    session->note = note;
    session->note_size = put->size;
    return 0;
}

static int replay_session_delete(struct ab_kv *kv, const struct ab_entry *entry)
{
    const struct ab_entry_session_delete *drop = (const struct ab_entry_session_delete *)entry;
    if (entry->size < sizeof(*drop)) {
        return -ABODE_ECORRUPT;
    }
    struct ab_session *session = named_session(kv, drop->session, drop->generation);
    if (session != NULL) {
        ab_session_release(kv, session);
    }
    return 0;
}

int ab_persist_replay(void *context, struct ab_store *store, const struct ab_entry *entry)
{
    struct ab_kv *kv = context;
    kv->store = store;
    switch (entry->type) {
    case AB_ENTRY_MODEL:
        return replay_model(kv, entry);
    case AB_ENTRY_BLOCK_PUT:
        return replay_block_put(kv, entry);
    case AB_ENTRY_BLOCK_DROP:
        return replay_block_drop(kv, entry);
    case AB_ENTRY_SESSION_PUT:
        return replay_session_put(kv, entry);
    case AB_ENTRY_SESSION_ROWS:
        return replay_session_rows(kv, entry);
    case AB_ENTRY_SESSION_NOTE:
        return replay_session_note(kv, entry);
    case AB_ENTRY_SESSION_DELETE:
        return replay_session_delete(kv, entry);
    default:
        return -ABODE_EFORMAT;
    }
}

/* ---- after replay ---- */

/* Stored, of this component, and whole: all but BYTES have one size. */
static bool block_usable(const struct ab_kv *kv, const struct ab_session *session, uint32_t c,
                         uint32_t index)
{
    const struct ab_component *component = &kv->models[session->model].components[c];
    const struct ab_block *block = &kv->blocks[index];
    return index < kv->block_high && (block->flags & AB_BLOCK_USED) != 0 &&
           ab_block_is_stored(block) && block->component == AB_COMPONENT_ID(session->model, c) &&
           (component->kind == ABODE_BYTES || block->bytes == component->block_bytes);
}

/* What is computed with, elsewhere without a look: rows start inside, positions ascend. */
static bool session_is_sane(const struct ab_kv *kv, const struct ab_session *session)
{
    const struct ab_model *model = &kv->models[session->model];
    for (uint32_t c = 0; c < model->component_count; c++) {
        const bool slides = model->components[c].kind == ABODE_WINDOW;
        if (session->row_first[c] > (slides ? session->row_count : 0)) {
            return false;
        }
    }
    uint64_t last = 0;
    for (uint32_t i = 0; i < session->point_count; i++) {
        const uint64_t at = session->points[i].token_count;
        if ((i > 0 && at <= last) || at > session->token_count) {
            return false;
        }
        last = at;
    }
    return true;
}

static bool block_missing(struct ab_kv *kv, const struct ab_session *session, uint32_t c,
                          uint64_t token, uint32_t block)
{
    if (block_usable(kv, session, c, block)) {
        return false;
    }
    ab_log(kv->log, AB_LOG_ERROR,
           "session %u (%llu tokens) is given up: the journal does not have block %u of component "
           "%u at token %llu; flags %u",
           ab_session_index(kv, session), (unsigned long long)session->token_count, block, c,
           (unsigned long long)token, block < kv->block_high ? kv->blocks[block].flags : 0);
    return true;
}

static bool session_is_whole(struct ab_kv *kv, const struct ab_session *session)
{
    const struct ab_model *model = &kv->models[session->model];
    for (uint32_t c = 0; c < model->component_count; c++) {
        if (ab_component_has_rows(&model->components[c])) {
            const uint32_t *rows = ab_session_rows(kv, session, c);
            for (uint32_t row = session->row_first[c]; row < session->row_count; row++) {
                bool hole = model->components[c].kind == ABODE_WINDOW &&
                            rows[row] == AB_INDEX_NONE &&
                            !ab_window_row_needed(model, session, c, row);
                if (!hole &&
                    block_missing(kv, session, c, (uint64_t)row * model->block_tokens, rows[row])) {
                    return false;
                }
            }
            continue;
        }
        for (uint32_t i = 0; i < session->point_count; i++) {
            const struct ab_restore_point *point = &session->points[i];
            if (block_missing(kv, session, c, point->token_count, point->blocks[c])) {
                return false;
            }
        }
    }
    return true;
}

static void session_refs(struct ab_kv *kv, struct ab_session *session)
{
    const struct ab_model *model = &kv->models[session->model];
    for (uint32_t c = 0; c < model->component_count; c++) {
        if (ab_component_has_rows(&model->components[c])) {
            const uint32_t *rows = ab_session_rows(kv, session, c);
            for (uint32_t row = session->row_first[c]; row < session->row_count; row++) {
                if (rows[row] != AB_INDEX_NONE) {
                    ab_block_ref(kv, rows[row]);
                }
            }
            continue;
        }
        for (uint32_t i = 0; i < session->point_count; i++) {
            ab_block_ref(kv, session->points[i].blocks[c]);
        }
    }
    ab_session_stored(kv, session, session->token_count, true);
}

/* Those that cannot be whole are deleted in the journal too (record; NULL: read-only): the numbers of
 * their blocks will be used again, and a later replay would find the blocks of others under them. */
static void sessions_recover(struct ab_kv *kv, struct ab_record *record)
{
    kv->session_free = AB_INDEX_NONE;
    kv->session_used = 0;
    for (uint32_t i = kv->session_high; i-- > 0;) {
        struct ab_session *session = &kv->sessions[i];
        bool found = session->state == AB_SESSION_DETACHED;
        if (found && session_is_sane(kv, session) && session_is_whole(kv, session)) {
            session_refs(kv, session);
            kv->session_used++;
            continue;
        }
        if (found) {
            kv->session_used++; /* release counts it down */
            if (record != NULL) {
                ab_record_session_delete(record, i, session->generation);
            }
            ab_session_release(kv, session);
            continue;
        }
        session->name_next = kv->session_free;
        kv->session_free = i;
    }
}

int ab_persist_recovered(void *context, struct ab_store *store)
{
    struct ab_kv *kv = context;
    kv->store = store;
    struct ab_record *record = kv->read_only ? NULL : ab_record_new(kv);
    if (record == NULL && !kv->read_only) {
        return -ENOMEM;
    }
    sessions_recover(kv, record);
    ab_blocks_sweep(kv);
    if (record == NULL) {
        return 0;
    }
    int status = 0;
    ab_lock_take(&kv->lock);
    /* blocks whose session record never came, and without a key: nobody can ask for them */
    for (uint32_t i = 0; i < kv->block_high; i++) {
        const uint8_t flags = kv->blocks[i].flags;
        if ((flags & AB_BLOCK_USED) != 0 && (flags & (AB_BLOCK_OWNED | AB_BLOCK_KEYED)) == 0) {
            ab_record_block_drop(record, i);
        }
    }
    ab_record_submit(record, AB_PROMISE_WRITTEN);
    for (uint32_t i = 0; i < kv->session_high && status == 0; i++) {
        struct ab_session *session = &kv->sessions[i];
        if (session->state == AB_SESSION_DETACHED && !session->named) {
            status = ab_session_delete_now(kv, session); /* nobody can find it again */
        }
    }
    ab_lock_drop(&kv->lock);
    return status;
}

/* ---- checkpoint ---- */

/* cursor: phase in the top byte, position below */
#define PHASE_SHIFT 56
enum phase { PHASE_MODELS = 0, PHASE_BLOCKS, PHASE_SESSIONS, PHASE_ROWS };
#define CHECKPOINT_BLOCKS 512 /* looked at per step: the lock is held that long, about 20 us */

static int64_t checkpoint_models(struct ab_kv *kv, uint8_t *bytes)
{
    size_t size = 0;
    for (uint32_t i = 0; i < AB_MODELS_MAX; i++) {
        const struct ab_model *model = &kv->models[i];
        if (!model->known) {
            continue;
        }
        size_t entry_size =
            ab_align_up(sizeof(struct ab_entry_model) +
                            model->component_count * sizeof(struct ab_entry_component),
                        8);
        memset(bytes + size, 0, entry_size);
        struct ab_entry_model *entry = (void *)(bytes + size);
        entry->entry = (struct ab_entry){.type = AB_ENTRY_MODEL, .size = (uint32_t)entry_size};
        ab_model_entry_fill(model, i, entry);
        size += entry_size;
    }
    return (int64_t)size;
}

static int64_t checkpoint_blocks(struct ab_kv *kv, uint64_t *at, uint8_t *bytes)
{
    size_t size = 0;
    uint64_t end = AB_MIN(*at + CHECKPOINT_BLOCKS, kv->block_high);
    for (uint64_t i = *at; i < end; i++) {
        const struct ab_block *block = &kv->blocks[i];
        if ((block->flags & AB_BLOCK_USED) == 0 || !ab_block_is_stored(block)) {
            continue; /* bad ones are told too: records name them, and their checksum says it again */
        }
        struct ab_entry_block_put *entry = (void *)(bytes + size);
        *entry = (struct ab_entry_block_put){
            .entry = {.type = AB_ENTRY_BLOCK_PUT, .size = sizeof(*entry)},
            .block = (uint32_t)i,
            .segment = block->segment,
            .page = block->page,
            .generation = ab_store_generation(kv->store, block->segment),
            .component = block->component,
            .bytes = block->bytes,
            .stamp = (block->flags & AB_BLOCK_OWNED) != 0 ? kv->tick : block->stamp,
            .checksum = {block->checksum, 0},
            .keyed = (block->flags & AB_BLOCK_KEYED) != 0,
            .key = {block->key[0], block->key[1]}};
        size += sizeof(*entry);
    }
    *at = end;
    return (int64_t)size;
}

static bool is_recorded(const struct ab_session *session)
{
    return session->state != AB_SESSION_FREE && session->state != AB_SESSION_DELETED &&
           session->recorded;
}

/* a session's committed record but for its rows; its size, also with bytes == NULL */
static size_t session_entries(struct ab_kv *kv, const struct ab_session *session, uint8_t *bytes)
{
    size_t size =
        sizeof(struct ab_entry_session_put) + session->point_count * sizeof(struct ab_entry_point);
    const uint8_t *note_bytes = session->note_dirty ? session->note_stored : session->note;
    uint32_t note_size = session->note_dirty ? session->note_stored_size : session->note_size;
    size_t note =
        note_bytes == NULL ? 0 : ab_align_up(sizeof(struct ab_entry_session_note) + note_size, 8);
    if (bytes == NULL) {
        return size + note;
    }
    memset(bytes, 0, size + note);
    struct ab_entry_session_put *put = (void *)bytes;
    struct ab_entry_point *points = (void *)(put + 1);
    put->entry = (struct ab_entry){.type = AB_ENTRY_SESSION_PUT, .size = (uint32_t)size};
    ab_session_entry_fill(kv, session, put);
    put->token_count = session->stored_tokens;
    memcpy(put->row_first, session->stored_row_first, sizeof(put->row_first));
    for (uint32_t i = 0; i < session->point_count; i++) {
        if (session->points[i].stored) {
            struct ab_entry_point *point = &points[put->point_count++];
            point->token_count = session->points[i].token_count;
            memcpy(point->blocks, session->points[i].blocks, sizeof(point->blocks));
        }
    }
    if (note > 0) {
        struct ab_entry_session_note *entry = (void *)(bytes + size);
        entry->entry = (struct ab_entry){.type = AB_ENTRY_SESSION_NOTE, .size = (uint32_t)note};
        entry->session = ab_session_index(kv, session);
        entry->generation = session->generation;
        entry->size = note_size;
        memcpy(entry + 1, note_bytes, note_size);
    }
    return size + note;
}

static int64_t checkpoint_sessions(struct ab_kv *kv, uint64_t *at, uint8_t *bytes, size_t capacity)
{
    size_t size = 0;
    for (; *at < kv->session_high; (*at)++) {
        const struct ab_session *session = &kv->sessions[*at];
        if (!is_recorded(session)) {
            continue;
        }
        if (size + session_entries(kv, session, NULL) > capacity) {
            break;
        }
        size += session_entries(kv, session, bytes + size);
    }
    return (int64_t)size;
}

/* Rows by themselves: a session can have more than fits a step. at: session, component, chunk. */
#define ROWS_CHUNK 32768
#define CHUNK_BITS 16
#define COMPONENT_BITS 8

static int64_t checkpoint_rows(struct ab_kv *kv, uint64_t *at, uint8_t *bytes, size_t capacity)
{
    size_t size = 0;
    while (*at >> (CHUNK_BITS + COMPONENT_BITS) < kv->session_high) {
        uint64_t index = *at >> (CHUNK_BITS + COMPONENT_BITS);
        uint32_t c = (uint32_t)(*at >> CHUNK_BITS) & ((1u << COMPONENT_BITS) - 1);
        uint32_t chunk = (uint32_t)*at & ((1u << CHUNK_BITS) - 1);
        const struct ab_session *session = &kv->sessions[index];
        const struct ab_model *model = &kv->models[session->model];
        if (!is_recorded(session) || c >= model->component_count) {
            *at = (index + 1) << (CHUNK_BITS + COMPONENT_BITS);
            continue;
        }
        uint32_t first = session->stored_row_first[c] + chunk * ROWS_CHUNK;
        if (!ab_component_has_rows(&model->components[c]) || first >= session->stored_rows) {
            *at = index << (CHUNK_BITS + COMPONENT_BITS) | (uint64_t)(c + 1) << CHUNK_BITS;
            continue;
        }
        uint32_t count = AB_MIN(session->stored_rows - first, ROWS_CHUNK);
        struct ab_entry_session_rows *entry = (void *)(bytes + size);
        size_t need = ab_align_up(sizeof(*entry) + count * sizeof(uint32_t), 8);
        if (size + need > capacity) {
            break;
        }
        memset(entry, 0, need);
        entry->entry = (struct ab_entry){.type = AB_ENTRY_SESSION_ROWS, .size = (uint32_t)need};
        entry->session = (uint32_t)index;
        entry->generation = session->generation;
        entry->component = c;
        entry->row = first;
        entry->count = count;
        memcpy(entry + 1, ab_session_rows(kv, session, c) + first, count * sizeof(uint32_t));
        if (session->held[c] != AB_INDEX_NONE && session->held_row - first < count) {
            ((uint32_t *)(entry + 1))[session->held_row - first] = session->held[c];
        }
        size += need;
        (*at)++;
    }
    return (int64_t)size;
}

int64_t ab_persist_checkpoint(void *context, uint64_t *cursor, void *bytes, size_t capacity)
{
    struct ab_kv *kv = context;
    uint64_t phase = *cursor >> PHASE_SHIFT;
    uint64_t at = *cursor & ((1ull << PHASE_SHIFT) - 1);
    bool over = false;
    int64_t size = 0;
    ab_lock_take(&kv->lock);
    if (phase == PHASE_MODELS) {
        size = checkpoint_models(kv, bytes);
        over = true;
    } else if (phase == PHASE_BLOCKS) {
        size = checkpoint_blocks(kv, &at, bytes);
        over = at >= kv->block_high;
    } else if (phase == PHASE_SESSIONS) {
        size = checkpoint_sessions(kv, &at, bytes, capacity);
        over = at >= kv->session_high;
    } else {
        size = checkpoint_rows(kv, &at, bytes, capacity);
        over = at >> (CHUNK_BITS + COMPONENT_BITS) >= kv->session_high;
    }
    ab_lock_drop(&kv->lock);
    if (over) {
        *cursor = phase == PHASE_ROWS ? UINT64_MAX : (phase + 1) << PHASE_SHIFT;
    } else {
        *cursor = phase << PHASE_SHIFT | at;
    }
    return size;
}
