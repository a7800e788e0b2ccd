/*
 * fuzz_store.c - see fuzz_store.h.
 */
#include "fuzz/fuzz_store.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/num.h"
#include "kv/persist.h"
#include "store/journal.h"

#define WINDOW_TOKENS 12
#define BOUND_LARGE 65536u /* larger numbers below a legal bound only make large tables */

static struct fuzz_store the_store;

static const struct abode_plane window_planes[] = {{API_BLOCK_TOKENS * API_TOKEN_BYTES, 0},
                                                   {API_BLOCK_TOKENS * API_TOKEN_BYTES, 0}};
static const struct abode_component window_components[] = {
    {.kind = ABODE_PAGED, .plane_count = 2, .planes = window_planes, .memory_bytes = 1u << 19},
    {.kind = ABODE_WINDOW,
     .window_tokens = WINDOW_TOKENS,
     .plane_count = 2,
     .planes = window_planes,
     .memory_bytes = 1u << 19},
};

struct abode_model_desc fuzz_window_desc(void)
{
    return (struct abode_model_desc){.struct_size = sizeof(struct abode_model_desc),
                                     .component_count = 2,
                                     .components = window_components,
                                     .block_tokens = API_BLOCK_TOKENS,
                                     .session_tokens_max = 4096,
                                     .memory_bytes = 1u << 20,
                                     .tag = "window"};
}

static void path_of(const struct fuzz_store *store, const char *name, char *ret, size_t capacity)
{
    (void)snprintf(ret, capacity, "%s/%s", store->api->directory, name);
}

static struct fuzz_file file_get(const struct fuzz_store *store, const char *name)
{
    char path[256];
    struct fuzz_file file = {.size = 0};
    path_of(store, name, path, sizeof(path));
    file.bytes = fuzz_file_read(path, &file.size);
    return file;
}

void fuzz_store_put(const struct fuzz_store *store, const char *name, const void *bytes,
                    size_t size)
{
    char path[256];
    path_of(store, name, path, sizeof(path));
    if (size > 0) {
        fuzz_file_write(path, bytes, size);
    } else {
        (void)unlink(path);
    }
}

static void segment_name(uint32_t segment, char *ret, size_t capacity)
{
    (void)snprintf(ret, capacity, "segments/%08x", segment);
}

static void sessions_make(struct api *api)
{
    struct abode_model_desc window = fuzz_window_desc();
    uint32_t window_model = 0;
    fuzz_expect(abode_model_add(api->runtime, &window, &window_model) == 0);
    struct abode_session hybrid = api_create(api, api->hybrid, FUZZ_HYBRID);
    api_turn(api, hybrid, FUZZ_SALT, 13);
    api_turn(api, hybrid, FUZZ_SALT, 8);
    struct abode_session fork;
    const struct abode_key name = api_name(FUZZ_FORK);
    fuzz_expect(abode_session_fork(api->runtime, hybrid, FUZZ_HYBRID_TOKENS, &name, &fork) == 0);
    fuzz_expect(api_detach(api, hybrid, 0) == 0);
    api_turn(api, fork, FUZZ_SALT, 9);
    fuzz_expect(api_detach(api, fork, 0) == 0);
    struct abode_session paged = api_create(api, api->paged, FUZZ_PAGED);
    api_turn(api, paged, FUZZ_SALT, FUZZ_PAGED_TOKENS);
    fuzz_expect(abode_session_note_set(api->runtime, paged, "a note", 6) == 0);
    fuzz_expect(api_detach(api, paged, 0) == 0);
    struct abode_session windowed = api_create(api, window_model, FUZZ_WINDOW);
    for (uint32_t i = 0; i < FUZZ_WINDOW_TOKENS / 8; i++) {
        fuzz_expect(api_append(api, windowed, FUZZ_SALT, 8) == 0);
        fuzz_expect(api_detach(api, windowed, i % 2 == 0 ? ABODE_DETACH_KEEP : 0) == 0);
        fuzz_expect(i % 2 == 0 || api_attach(api, windowed, 0) == 0);
    }
    fuzz_expect(api_detach(api, windowed, 0) == 0); /* five turns: it is attached */
    struct abode_session gone = api_create(api, api->paged, FUZZ_SESSIONS);
    api_turn(api, gone, FUZZ_SALT, 9);
    fuzz_expect(api_detach(api, gone, 0) == 0);
    fuzz_expect(abode_session_delete(api->runtime, gone) == 0);
}

static void store_remove(void)
{
    api_remove_tree(the_store.api->directory);
}

static void store_make(struct fuzz_store *store)
{
    void *state = NULL;
    if (getenv("TMPDIR") == NULL && access("/dev/shm", W_OK) == 0) {
        (void)setenv("TMPDIR", "/dev/shm", 1);
    }

    fuzz_expect(api_up(&state) == 0);
    struct api *api = state;
    store->api = api;
    (void)atexit(store_remove);
    api->hybrid_bytes = 1u << 20;
    api->paged_bytes = 1u << 20;
    api->config.memory_bytes_max = 4u << 20;
    api->config.store_bytes_max = FUZZ_SEGMENTS << 20;
    api->config.io = ABODE_IO_SYNC;
    api->config.topology = "synthetic:numa:1 pu:1";
    api_open(api);
    sessions_make(api);
    api_close(api);
    store->superblock = file_get(store, "superblock");
    store->journal = file_get(store, "journal.a");
    fuzz_expect(store->superblock.size > 0 && store->journal.size > 0);
    while (store->journal.size > AB_PAGE && store->journal.bytes[store->journal.size - 1] == 0) {
        store->journal.size--; /* zeroes written ahead; the last record may end with some, too */
    }
    store->journal.size = ab_align_up(store->journal.size, AB_PAGE);
    for (uint32_t i = 0; i < FUZZ_SEGMENTS; i++) {
        char name[32];
        segment_name(i, name, sizeof(name));
        store->segments[i] = file_get(store, name);
    }
}

struct fuzz_store *fuzz_store_get(void)
{
    if (the_store.api == NULL) {
        store_make(&the_store);
    }
    return &the_store;
}

void fuzz_store_reset(struct fuzz_store *store)
{
    fuzz_store_put(store, "superblock", store->superblock.bytes, store->superblock.size);
    fuzz_store_put(store, "journal.a", store->journal.bytes, store->journal.size);
    fuzz_store_put(store, "journal.b", NULL, 0);
    for (uint32_t i = 0; store->is_written && i < FUZZ_SEGMENTS + 2; i++) { /* one more at most */
        char name[32];
        segment_name(i, name, sizeof(name));
        const bool known = i < FUZZ_SEGMENTS;
        fuzz_store_put(store, name, known ? store->segments[i].bytes : NULL,
                       known ? store->segments[i].size : 0);
    }
    store->is_written = false;
}

int fuzz_store_open(struct fuzz_store *store, bool read_only)
{
    struct api *api = store->api;
    api->config.flags = read_only ? ABODE_READ_ONLY : 0;
    api->runtime = NULL;
    api->queue = NULL;
    store->is_written |= !read_only;
    const int status = api_try_open(api);
    if (status != 0 || read_only) {
        return status;
    }
    /* the journal may have another model under this tag, or no place left for one */
    const struct abode_model_desc descs[] = {api_hybrid_desc(api), api_paged_desc(api),
                                             fuzz_window_desc()};
    uint32_t *const models[] = {&api->hybrid, &api->paged, &(uint32_t){0}};
    for (uint32_t i = 0; i < AB_COUNT(descs); i++) {
        *models[i] = UINT32_MAX;
        if (abode_model_add(api->runtime, &descs[i], models[i]) != 0) {
            *models[i] = UINT32_MAX;
        }
    }
    fuzz_expect(abode_queue_open(api->runtime, 64, &api->queue) == 0);
    return 0;
}

void fuzz_store_close(struct fuzz_store *store)
{
    api_close(store->api);
}

/* ---- journals made of entries ---- */

static size_t record_put(const struct ab_disk_journal *header, enum ab_record_kind kind,
                         uint64_t sequence, const uint8_t *payload, size_t size, uint8_t *ret)
{
    struct ab_disk_record record = {.magic = AB_RECORD_MAGIC,
                                    .kind = (uint32_t)kind,
                                    .generation = header->generation,
                                    .sequence = sequence,
                                    .epoch = header->epoch,
                                    .synced = sequence == 1 ? 0 : 1,
                                    .size = (uint32_t)size};
    const size_t skipped = sizeof(record.hash);
    memcpy(ret, &record, sizeof(record));
    memcpy(ret + sizeof(record), payload, size);
    record.hash = ab_hash64(ret + skipped, sizeof(record) - skipped + size,
                            ab_journal_seed(header->store_id, header->generation));
    memcpy(ret, &record.hash, sizeof(record.hash));
    return sizeof(record) + size;
}

/* Whole entries from `at` on, up to one of type 0 or to what is no entry. */
static size_t commit_size(const uint8_t *entries, size_t size)
{
    size_t at = 0;
    while (size - at >= sizeof(struct ab_entry)) {
        struct ab_entry entry;
        memcpy(&entry, entries + at, sizeof(entry));
        if (entry.type == 0 || entry.size < sizeof(entry) || entry.size > size - at ||
            entry.size % 8 != 0) {
            break;
        }
        at += entry.size;
    }
    return at;
}

/* A number below a legal bound that is only large: the table for it would be, too. */
static uint32_t made_small(uint32_t value, uint32_t bound)
{
    return value >= BOUND_LARGE && value < bound ? value % BOUND_LARGE : value;
}

static void entry_tame(uint8_t *bytes)
{
    struct ab_entry *entry = (void *)bytes;
    if (entry->type == AB_ENTRY_BLOCK_PUT && entry->size >= sizeof(struct ab_entry_block_put)) {
        struct ab_entry_block_put *put = (void *)entry;
        put->block = made_small(put->block, 1u << 24);
    } else if (entry->type == AB_ENTRY_MODEL && entry->size >= sizeof(struct ab_entry_model)) {
        struct ab_entry_model *model = (void *)entry;
        if (model->tokens_max > 1u << 16 && model->tokens_max <= AB_SESSION_TOKENS_MAX) {
            model->tokens_max = 1u << 16;
        }
    }
}

size_t fuzz_journal_make(const struct fuzz_store *store, const uint8_t *entries, size_t size,
                         uint8_t *ret)
{
    _Alignas(8) static uint8_t payload[FUZZ_SIZE_MAX];
    const struct ab_disk_journal *header = (const void *)store->journal.bytes;
    memcpy(ret, header, AB_PAGE);
    size_t end = AB_PAGE;
    uint64_t sequence = 1;
    end += record_put(header, AB_RECORD_CHECKPOINT_END, sequence, payload, 0, ret + end);
    end = ab_align_up(end, AB_PAGE); /* it was synced */
    for (size_t at = 0; at < size;) {
        size_t count = commit_size(entries + at, size - at);
        const bool broken = count == 0 && size - at >= 16 && entries[at] != 0;
        count = broken ? ab_align_down(size - at, 8) : count; /* no entries at all: as it is */
        memcpy(payload, entries + at, count);
        for (size_t k = 0; !broken && k < count;) {
            entry_tame(payload + k);
            k += ((const struct ab_entry *)(const void *)(payload + k))->size;
        }
        if (count > 0 && end + sizeof(struct ab_disk_record) + count <= FUZZ_JOURNAL_BYTES) {
            end += record_put(header, AB_RECORD_COMMIT, ++sequence, payload, count, ret + end);
        }
        at += count + (broken ? size - at - count : sizeof(struct ab_entry));
    }
    return end;
}

size_t fuzz_entries_get(const struct fuzz_store *store, uint8_t *ret, size_t capacity)
{
    size_t size = 0;
    for (size_t at = AB_PAGE; at + sizeof(struct ab_disk_record) <= store->journal.size;) {
        struct ab_disk_record record;
        memcpy(&record, store->journal.bytes + at, sizeof(record));
        if (record.magic != AB_RECORD_MAGIC) {
            if (at % AB_PAGE == 0) {
                break;
            }
            at = ab_align_up(at, AB_PAGE);
            continue;
        }
        const struct ab_entry end = {.size = sizeof(end)};
        if (record.size > 0 && size + record.size + sizeof(end) <= capacity) {
            memcpy(ret + size, store->journal.bytes + at + sizeof(record), record.size);
            memcpy(ret + size + record.size, &end, sizeof(end));
            size += record.size + sizeof(end);
        }
        at += sizeof(record) + record.size;
    }
    return size;
}

/* ---- entries as inputs ---- */

size_t fuzz_entries_seal(uint8_t *bytes, size_t size)
{
    size_t at = 0;
    while (size - at >= sizeof(struct ab_entry)) {
        struct ab_entry entry;
        memcpy(&entry, bytes + at, sizeof(entry));
        const bool own = entry.type == AB_ENTRY_SEGMENT;
        entry.type = own ? entry.type : (uint16_t)(entry.type % (AB_ENTRY_SESSION_DELETE + 1));
        entry.size = (uint32_t)AB_MIN(ab_align_up(AB_MAX(entry.size % 4096, 8u), 8),
                                      ab_align_down(size - at, 8));
        entry.size = entry.type == 0 ? sizeof(entry) : entry.size;
        memcpy(bytes + at, &entry, sizeof(entry));
        at += entry.size;
    }
    return at;
}

#define ENTRIES_MAX 512

static uint32_t entries_find(const uint8_t *bytes, size_t size, size_t *ret_starts)
{
    uint32_t count = 0;
    for (size_t at = 0; size - at >= sizeof(struct ab_entry) && count < ENTRIES_MAX;) {
        struct ab_entry entry;
        memcpy(&entry, bytes + at, sizeof(entry));
        if (entry.size < sizeof(entry) || entry.size > size - at) {
            break;
        }
        ret_starts[count++] = at;
        at += entry.size;
    }
    ret_starts[count] = count == 0 ? 0 : size;
    return count;
}

/* Numbers of blocks, sessions and segments are small: a value of another entry often fits. */
static void field_change(uint8_t *bytes, const size_t *starts, uint32_t count,
                         struct fuzz_random *random)
{
    const uint32_t i = fuzz_below(random, count), k = fuzz_below(random, count);
    const uint32_t words = (uint32_t)(starts[i + 1] - starts[i]) / 4;
    const uint32_t others = (uint32_t)(starts[k + 1] - starts[k]) / 4;
    uint32_t value = fuzz_interesting(random);
    if (words <= 2 || others <= 2) {
        return;
    }
    uint8_t *const at = bytes + starts[i] + 4 * (size_t)(2 + fuzz_below(random, words - 2));
    if (fuzz_below(random, 2) == 0) {
        memcpy(&value, bytes + starts[k] + 4 * (size_t)(2 + fuzz_below(random, others - 2)), 4);
    }
    memcpy(at, &value, 1u << fuzz_below(random, 3));
}

size_t fuzz_entries_mutate(uint8_t *bytes, size_t size, size_t capacity, struct fuzz_random *random)
{
    size_t starts[ENTRIES_MAX + 1];
    const uint32_t count = entries_find(bytes, size, starts);
    if (count == 0) {
        return fuzz_entries_get(fuzz_store_get(), bytes, capacity);
    }
    const uint32_t i = fuzz_below(random, count);
    const size_t start = starts[i], bytes_of = starts[i + 1] - start;
    switch (fuzz_below(random, 6)) {
    case 0: /* gone */
        memmove(bytes + start, bytes + start + bytes_of, size - start - bytes_of);
        return size - bytes_of;
    case 1: /* said again, later or earlier */
        if (bytes_of <= capacity - size && bytes_of <= 4096) {
            uint8_t copy[4096];
            const size_t to = starts[fuzz_below(random, count + 1)];
            memcpy(copy, bytes + start, bytes_of);
            memmove(bytes + to + bytes_of, bytes + to, size - to);
            memcpy(bytes + to, copy, bytes_of);
            return size + bytes_of;
        }
        return size;
    case 2: { /* another kind, or another length */
        struct ab_entry entry;
        memcpy(&entry, bytes + start, sizeof(entry));
        if (fuzz_below(random, 2) == 0) {
            entry.type = (uint16_t)fuzz_below(random, AB_ENTRY_SESSION_DELETE + 1);
        } else {
            entry.size += 8 * fuzz_below(random, 3);
        }
        memcpy(bytes + start, &entry, sizeof(entry));
        return size;
    }
    default:
        field_change(bytes, starts, count, random);
        return size;
    }
}
