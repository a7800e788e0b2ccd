/*
 * record.c - one commit in the making: changes of kv as journal entries.
 */
#include <string.h>

#include "base/num.h"
#include "kv/persist.h"
#include "kv/session.h"
#include "kv/transfer.h"

#define RECORD_BYTES_FIRST 1024
#define ROWS_PER_ENTRY 32768 /* of 4 bytes: half of AB_ENTRY_SIZE_MAX */
#define DROPS_PER_ENTRY 32768

struct ab_record *ab_record_new(struct ab_kv *kv)
{
    struct ab_record *record = kv->os->alloc(kv->os, sizeof(*record), 64);
    if (record != NULL) {
        record->kv = kv;
    }
    return record;
}

void ab_record_free(struct ab_record *record)
{
    const struct ab_os *os = record->kv->os;
    os->free(os, record->bytes);
    os->free(os, record->dead);
    os->free(os, record);
}

static bool grow(const struct ab_os *os, void **array, size_t used, size_t *capacity, size_t need,
                 size_t first)
{
    size_t wanted = AB_MAX(first, *capacity);
    while (wanted < need) {
        wanted *= 2;
    }
    if (wanted == *capacity) {
        return true;
    }
    void *larger = os->alloc(os, wanted, 64);
    if (larger == NULL) {
        return false;
    }
    if (used > 0) {
        memcpy(larger, *array, used);
    }
    os->free(os, *array);
    *array = larger;
    *capacity = wanted;
    return true;
}

bool ab_record_room(struct ab_record *record, uint32_t puts)
{
    void *bytes = record->bytes;
    const size_t size = puts * ab_align_up(sizeof(struct ab_entry_block_put), 8);
    if (record->failed || !grow(record->kv->os, &bytes, record->size, &record->capacity,
                                record->size + size, RECORD_BYTES_FIRST)) {
        return false;
    }
    record->bytes = bytes;
    return true;
}

/* room for one entry of this size, zeroed, its header filled; NULL: the record has failed */
static void *entry_add(struct ab_record *record, enum ab_entry_type type, size_t size)
{
    size = ab_align_up(size, 8);
    void *bytes = record->bytes;
    if (record->failed || !grow(record->kv->os, &bytes, record->size, &record->capacity,
                                record->size + size, RECORD_BYTES_FIRST)) {
        record->failed = true;
        return NULL;
    }
    record->bytes = bytes;
    struct ab_entry *entry = (struct ab_entry *)(void *)(record->bytes + record->size);
    memset(entry, 0, size);
    entry->type = (uint16_t)type;
    entry->size = (uint32_t)size;
    record->size += size;
    return entry;
}

static void dead_add(struct ab_record *record, struct ab_slot slot, uint32_t pages)
{
    size_t capacity = record->dead_capacity * sizeof(*record->dead);
    size_t used = record->dead_count * sizeof(*record->dead);
    void *dead = record->dead;
    if (!grow(record->kv->os, &dead, used, &capacity, used + sizeof(*record->dead),
              16 * sizeof(*record->dead))) {
        record->failed = true; /* the slot stays live: space is lost until the next open */
        return;
    }
    record->dead = dead;
    record->dead_capacity = (uint32_t)(capacity / sizeof(*record->dead));
    record->dead[record->dead_count++] = (struct ab_dead){slot, pages};
}

/* The blocks that this commit stored: their new slots are live, the old ones dead. */
static void puts_apply(struct ab_record *record, int status)
{
    struct ab_kv *kv = record->kv;
    for (size_t at = 0; at < record->size;) {
        const struct ab_entry *entry = (const void *)(record->bytes + at);
        at += entry->size;
        if (entry->type != AB_ENTRY_BLOCK_PUT) {
            continue;
        }
        const struct ab_entry_block_put *put = (const void *)entry;
        struct ab_block *block = &kv->blocks[put->block];
        struct ab_slot slot = {put->segment, put->page};
        uint32_t pages = ab_pages(put->bytes);
        if (status != 0) {
            ab_block_unmark(block, AB_BLOCK_MOVING | AB_BLOCK_PENDING);
            ab_store_abandon(kv->store, slot, pages);
            continue;
        }
        ab_store_publish(kv->store, slot, pages);
        if (ab_block_is_stored(block)) {
            ab_store_drop(kv->store, ab_block_slot(block), pages);
        } else {
            kv->block_stored++;
        }
        block->segment = put->segment;
        block->page = put->page;
        block->checksum = put->checksum[0];
        ab_block_unmark(block, AB_BLOCK_MOVING | AB_BLOCK_PENDING | AB_BLOCK_DIRTY);
    }
}

static void puts_unpin(struct ab_record *record)
{
    struct ab_kv *kv = record->kv;
    for (size_t at = 0; at < record->size;) {
        const struct ab_entry *entry = (const void *)(record->bytes + at);
        const struct ab_entry_block_put *put = (const void *)entry;
        at += entry->size;
        if (entry->type == AB_ENTRY_BLOCK_PUT && kv->blocks[put->block].frame != AB_INDEX_NONE) {
            ab_frame_unpin(kv, &kv->blocks[put->block]);
        }
    }
}

void ab_record_renew(struct ab_kv *kv)
{
    if (kv->store != NULL) {
        ab_store_renew(kv->store);
    }
}

static void puts_settle(struct ab_record *record)
{
    for (size_t at = 0; at < record->size;) {
        const struct ab_entry *entry = (const void *)(record->bytes + at);
        at += entry->size;
        if (entry->type == AB_ENTRY_BLOCK_PUT) {
            ab_block_moved(record->kv, ((const struct ab_entry_block_put *)entry)->block);
        }
    }
}

static void record_done(struct ab_commit *commit, int status)
{
    struct ab_record *record = ab_container_of(commit, struct ab_record, commit);
    struct ab_kv *kv = record->kv;
    /* the committer works for the store: a promise of kv's that breaks here is this runtime's */
    struct ab_poison *before = ab_poison_enter(kv->poison);
    for (uint32_t i = 0; i < record->dead_count && status == 0;
         i++) { /* before anyone hears of it */
        ab_store_drop(kv->store, record->dead[i].slot, record->dead[i].pages);
    }
    ab_lock_take(&kv->lock);
    if (status != 0 && record->says_changes) {
        ab_record_renew(kv);
    }
    if (status == 0 && commit->promise == AB_PROMISE_DURABLE) {
        kv->deletes_durable = AB_MAX(kv->deletes_durable, record->deletes);
    }
    puts_apply(record, status);
    puts_unpin(record);
    if (record->done != NULL) {
        record->done(record, status);
    }
    puts_settle(record);
    ab_transfer_kick(kv); /* frames came free, or slots did */
    ab_transfer_wake(kv); /* this is the committer's thread: a service steps the task */
    ab_lock_drop(&kv->lock);
    ab_record_free(record);
    (void)ab_poison_enter(before);
}

/* Numbers that the record drops are free from here on, and not before: who took one earlier could be
 * in the journal before the drop, and be dropped by it in a replay. */
static void drops_free(struct ab_record *record)
{
    for (size_t at = 0; at < record->size;) {
        const struct ab_entry *entry = (const void *)(record->bytes + at);
        const struct ab_entry_block_drop *drop = (const void *)entry;
        at += entry->size;
        for (uint32_t i = 0; entry->type == AB_ENTRY_BLOCK_DROP && i < drop->count; i++) {
            uint32_t index;
            memcpy(&index, (const uint32_t *)(drop + 1) + i, sizeof(index));
            ab_block_free(record->kv, index);
        }
    }
}

void ab_record_submit(struct ab_record *record, enum ab_promise promise)
{
    struct ab_kv *kv = record->kv;
    drops_free(record);
    bool empty = record->size == 0 && record->done == NULL;
    if (kv->store == NULL || empty || record->failed) {
        int status = record->failed ? -ENOMEM : 0;
        if (record->failed && record->says_changes) {
            ab_record_renew(kv);
        }
        puts_apply(record, status);
        puts_unpin(record);
        if (record->done != NULL) {
            record->done(record, status);
        }
        ab_record_free(record);
        return;
    }
    record->deletes = kv->deletes;
    record->commit.promise = promise;
    record->commit.entries = record->bytes;
    record->commit.entries_size = record->size;
    record->commit.relied_on = record->says_changes;
    record->commit.done = record_done;
    ab_store_commit(kv->store, &record->commit);
}

void ab_record_model(struct ab_record *record, uint32_t index)
{
    const struct ab_model *model = &record->kv->models[index];
    record->says_changes = true;
    size_t size =
        sizeof(struct ab_entry_model) + model->component_count * sizeof(struct ab_entry_component);
    struct ab_entry_model *entry = entry_add(record, AB_ENTRY_MODEL, size);
    if (entry != NULL) {
        ab_model_entry_fill(model, index, entry);
    }
}

void ab_record_block_put(struct ab_record *record, uint32_t index, struct ab_slot slot,
                         uint32_t generation, const uint64_t checksum[2])
{
    struct ab_entry_block_put *entry = entry_add(record, AB_ENTRY_BLOCK_PUT, sizeof(*entry));
    if (entry == NULL) {
        return;
    }
    const struct ab_block *block = &record->kv->blocks[index];
    entry->block = index;
    entry->segment = slot.segment;
    entry->page = (uint16_t)slot.page;
    entry->generation = generation;
    entry->component = block->component;
    entry->bytes = block->bytes;
    entry->stamp = record->kv->tick;
    entry->checksum[0] = checksum[0];
    entry->checksum[1] = checksum[1];
    if ((block->flags & AB_BLOCK_KEYED) != 0) {
        entry->keyed = 1;
        entry->key[0] = block->key[0];
        entry->key[1] = block->key[1];
    }
}

/* Drops that follow one another share an entry: a deleted session can have a million blocks. */
static bool drop_entry(struct ab_record *record, uint32_t index)
{
    struct ab_entry_block_drop *last = NULL;
    if (record->drop_end == record->size && record->drop_end > 0) {
        last = (void *)(record->bytes + record->drop_start);
    }
    if (last != NULL && last->count % 2 == 1) { /* the padding has room */
        memcpy((uint32_t *)(last + 1) + last->count, &index, sizeof(index));
        last->count++;
        return true;
    }
    size_t start = record->size;
    struct ab_entry_block_drop *entry =
        entry_add(record, AB_ENTRY_BLOCK_DROP, sizeof(*entry) + 2 * sizeof(uint32_t));
    if (entry == NULL) {
        return false;
    }
    last = start > 0 && record->drop_end == start ? (void *)(record->bytes + record->drop_start)
                                                  : NULL;
    if (last != NULL && last->count < DROPS_PER_ENTRY) { /* grow it over the new entry's start */
        memcpy((uint32_t *)(last + 1) + last->count, &index, sizeof(index));
        last->count++;
        last->entry.size += 8;
        record->size = start + 8;
        memset((uint8_t *)record->bytes + start + 4, 0, 4);
    } else {
        record->drop_start = start;
        entry->count = 1;
        memcpy(entry + 1, &index, sizeof(index));
    }
    record->drop_end = record->size;
    return true;
}

void ab_record_block_drop(struct ab_record *record, uint32_t index)
{
    struct ab_kv *kv = record != NULL ? record->kv : NULL;
    AB_ASSERT(kv != NULL);
    struct ab_block *block = &kv->blocks[index];
    bool is_said = false;
    record->says_changes = true;
    ab_block_key_remove(kv, index);
    if (block->frame != AB_INDEX_NONE) {
        ab_frame_release(kv, index);
    }
    if (ab_block_is_stored(block)) {
        is_said = drop_entry(record, index);
        dead_add(record, ab_block_slot(block), ab_pages(block->bytes));
        block->segment = AB_INDEX_NONE;
        kv->block_stored--;
    } else if ((block->flags & AB_BLOCK_BAD) != 0) {
        is_said = drop_entry(record, index); /* its file is missing: the journal names it still */
    }
    if (!is_said) {
        ab_block_free(kv, index);
    }
}

static void rows_put(struct ab_record *record, const struct ab_session *session, uint32_t c,
                     uint32_t first, uint32_t end, bool committed)
{
    struct ab_kv *kv = record->kv;
    const uint32_t *rows = ab_session_rows(kv, session, c);
    while (first < end) {
        uint32_t count = AB_MIN(end - first, ROWS_PER_ENTRY);
        struct ab_entry_session_rows *entry =
            entry_add(record, AB_ENTRY_SESSION_ROWS, sizeof(*entry) + count * sizeof(uint32_t));
        if (entry == NULL) {
            return;
        }
        entry->session = ab_session_index(kv, session);
        entry->generation = session->generation;
        entry->component = c;
        entry->row = first;
        entry->count = count;
        memcpy(entry + 1, rows + first, count * sizeof(uint32_t));
        if (committed && session->held[c] != AB_INDEX_NONE && session->held_row - first < count) {
            ((uint32_t *)(entry + 1))[session->held_row - first] = session->held[c];
        }
        first += count;
    }
}

void ab_session_entry_fill(struct ab_kv *kv, const struct ab_session *session,
                           struct ab_entry_session_put *entry)
{
    entry->session = ab_session_index(kv, session);
    entry->generation = session->generation;
    entry->model = session->model;
    entry->tenant = session->tenant;
    entry->home_node = session->home_node;
    entry->durability = session->durability;
    entry->named = session->named;
    entry->ended = session->ended;
    if (session->named) {
        memcpy(entry->name, session->name.bytes, sizeof(entry->name));
    }
}

/* the newest whole points up to token_count (of the committed ones only, if asked), as many as the
 * model keeps, ascending */
static uint32_t points_choose(struct ab_kv *kv, const struct ab_session *session,
                              uint64_t token_count, bool committed, uint32_t *ret_points)
{
    uint32_t kept = ab_points_kept(&kv->models[session->model]), count = 0;
    uint32_t chosen[AB_RESTORE_POINTS_MAX];
    uint64_t limit = token_count;
    for (uint32_t i = session->point_count; i-- > 0 && count < kept;) {
        const struct ab_restore_point *point = &session->points[i];
        bool usable = point->token_count <= limit && (point->stored || !committed);
        if (usable && ab_point_is_whole(kv, session, point)) {
            chosen[count++] = i;
            limit = point->token_count - 1; /* an older one at the same position is superseded */
        }
    }
    for (uint32_t i = 0; i < count; i++) {
        ret_points[i] = chosen[count - 1 - i];
    }
    return count;
}

void ab_record_session(struct ab_record *record, uint32_t index, uint64_t token_count,
                       bool committed)
{
    struct ab_kv *kv = record->kv;
    const struct ab_session *session = &kv->sessions[index];
    const struct ab_model *model = &kv->models[session->model];
    record->says_changes |= committed;
    size_t size =
        sizeof(struct ab_entry_session_put) + session->point_count * sizeof(struct ab_entry_point);
    struct ab_entry_session_put *entry = entry_add(record, AB_ENTRY_SESSION_PUT, size);
    if (entry == NULL) {
        return;
    }
    struct ab_entry_point *points = (struct ab_entry_point *)(void *)(entry + 1);
    uint32_t row_first[ABODE_COMPONENTS_MAX] = {0};
    ab_session_entry_fill(kv, session, entry);
    entry->token_count = token_count;
    uint32_t chosen[AB_RESTORE_POINTS_MAX];
    entry->point_count = (uint8_t)points_choose(kv, session, token_count, committed, chosen);
    for (uint32_t i = 0; i < entry->point_count; i++) {
        points[i].token_count = session->points[chosen[i]].token_count;
        memcpy(points[i].blocks, session->points[chosen[i]].blocks, sizeof(points[i].blocks));
    }
    uint64_t oldest = entry->point_count > 0 ? points[0].token_count : token_count;
    uint32_t rows = ab_rows_of(model, token_count);
    for (uint32_t c = 0; c < model->component_count; c++) {
        row_first[c] = AB_MAX(session->row_first[c], ab_window_first(model, c, oldest));
        row_first[c] = AB_MIN(row_first[c], rows);
    }
    memcpy(entry->row_first, row_first, sizeof(row_first));
    /* full rows of the committed record are in the journal already */
    uint32_t known = (uint32_t)(session->stored_tokens / model->block_tokens);
    for (uint32_t c = 0; c < model->component_count; c++) {
        if (ab_component_has_rows(&model->components[c])) {
            rows_put(record, session, c, AB_MAX(known, row_first[c]), rows, committed);
        }
    }
    if (session->note_dirty && !committed) { /* the committed record keeps the note it has */
        struct ab_entry_session_note *note =
            entry_add(record, AB_ENTRY_SESSION_NOTE, sizeof(*note) + session->note_size);
        if (note != NULL && session->note_size > 0) {
            memcpy(note + 1, session->note, session->note_size);
        }
        if (note != NULL) {
            note->session = index;
            note->generation = session->generation;
            note->size = session->note_size;
        }
    }
}

void ab_session_stored(struct ab_kv *kv, struct ab_session *session, uint64_t token_count,
                       bool committed)
{
    const struct ab_model *model = &kv->models[session->model];
    uint32_t chosen[AB_RESTORE_POINTS_MAX];
    uint32_t count = points_choose(kv, session, token_count, committed, chosen);
    for (uint32_t i = 0; i < session->point_count; i++) {
        session->points[i].stored = false;
    }
    for (uint32_t i = 0; i < count; i++) {
        session->points[chosen[i]].stored = true;
    }
    uint64_t oldest = count > 0 ? session->points[chosen[0]].token_count : token_count;
    session->recorded = true;
    session->stored_tokens = token_count;
    session->stored_rows = ab_rows_of(model, token_count);
    for (uint32_t c = 0; c < model->component_count; c++) {
        uint32_t first = AB_MAX(session->row_first[c], ab_window_first(model, c, oldest));
        session->stored_row_first[c] = AB_MIN(first, session->stored_rows);
        session->slide_row[c] = AB_MIN(session->slide_row[c], session->stored_rows);
    }
}

void ab_record_session_delete(struct ab_record *record, uint32_t session, uint32_t generation)
{
    struct ab_entry_session_delete *entry =
        entry_add(record, AB_ENTRY_SESSION_DELETE, sizeof(*entry));
    record->kv->deletes++;
    record->says_changes = true;
    if (entry != NULL) {
        entry->session = session;
        entry->generation = generation;
    }
}
