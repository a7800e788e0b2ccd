/*
 * fuzz_recover.c - from journal entries to the state of an open runtime, and then a host's calls on
 * what was opened. The records that carry the entries are made here with right hashes: everything in
 * an entry is hostile. Law: what a writer has opened and closed opens again.
 */
#include "fuzz/fuzz_store.h"

#include <errno.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "front/front.h"

#define SESSIONS_TRIED 12

/* One line of the library, which must be JSON. */
static int line_check(void *context, const char *text, size_t size)
{
    json_error_t error;
    json_t *line = json_loadb(text, size, 0, &error);
    (void)context;
    fuzz_expect(line != NULL);
    json_decref(line);
    return 0;
}

static uint64_t rows_read(struct api *api, struct abode_session session, uint32_t component)
{
    struct abode_view view;
    uint64_t sum = 0;
    if (abode_session_view(api->runtime, session, component, &view) != 0) {
        return 0;
    }
    for (uint32_t row = 0; row < view.row_count; row++) {
        for (uint32_t plane = 0; view.frames[row] != ABODE_FRAME_NONE && plane < view.plane_count;
             plane++) {
            const unsigned char *bytes = abode_view_plane(&view, row, plane);
            for (uint32_t i = 0; i < API_BLOCK_TOKENS * API_TOKEN_BYTES; i += 64) {
                sum += bytes[i];
            }
        }
    }
    return sum;
}

static void session_use(struct api *api, struct abode_session session)
{
    volatile uint64_t sum = 0;
    for (uint32_t c = 0; c < ABODE_COMPONENTS_MAX; c++) {
        const void *bytes;
        size_t size;
        uint64_t at;
        sum += rows_read(api, session, c);
        if (abode_snapshot_get(api->runtime, session, c, &bytes, &size, &at) == 0) {
            for (size_t i = 0; i < size; i++) {
                sum += ((const unsigned char *)bytes)[i];
            }
        }
    }
    (void)sum; /* reading was the point */
    const uint64_t tokens = api_tokens(api, session);
    struct abode_session fork;
    if (abode_session_fork(api->runtime, session, tokens, NULL, &fork) == 0) {
        fuzz_any(abode_session_delete(api->runtime, fork));
    }
    fuzz_any(api_append(api, session, FUZZ_SALT, 3));
    fuzz_any(api_truncate(api, session, tokens / 2));
}

static void session_try(struct api *api, struct abode_session session, uint32_t number)
{
    struct abode_session_info info;
    struct abode_placement placement;
    char note[ABODE_NOTE_MAX];
    if (abode_session_stat(api->runtime, session, &info) != 0) {
        return;
    }
    fuzz_any(abode_session_placement(api->runtime, session, &placement));
    fuzz_any(abode_session_note_get(api->runtime, session, note, sizeof(note)));
    const int status = api_attach(api, session, ABODE_ATTACH_PREFIX_OK);
    if (status == 0 || status == -ABODE_EPARTIAL) {
        session_use(api, session);
        fuzz_any(api_detach(api, session, number % 2 == 0 ? ABODE_DETACH_SPILL_NOW : 0));
    }
    if (number % 3 == 0) {
        fuzz_any(abode_session_delete(api->runtime, session));
    }
}

static void sessions_try(struct api *api, bool read_only)
{
    struct ab_kv *kv = api->runtime->kv;
    for (uint32_t i = 0, tried = 0; i < kv->session_high && tried < SESSIONS_TRIED; i++) {
        if (kv->sessions[i].state == AB_SESSION_FREE) {
            continue;
        }
        const struct abode_session session = ab_session_handle(kv, &kv->sessions[i]);
        tried++;
        if (read_only) {
            struct abode_session_info info;
            fuzz_any(abode_session_stat(api->runtime, session, &info));
        } else {
            session_try(api, session, i);
        }
    }
    for (uint32_t name = FUZZ_HYBRID; name <= FUZZ_SESSIONS; name++) {
        const struct abode_key key = api_name(name);
        struct abode_session session;
        fuzz_any(abode_session_find(api->runtime, &key, &session));
    }
}

static void recover_run(const uint8_t *bytes, size_t size)
{
    static uint8_t journal[FUZZ_JOURNAL_BYTES];
    struct fuzz_store *store = fuzz_store_get();
    if (size < 8) {
        return;
    }
    const bool read_only = (bytes[0] & 1) != 0;
    fuzz_store_reset(store);
    const size_t journal_size = fuzz_journal_make(store, bytes + 8, size - 8, journal);
    fuzz_store_put(store, "journal.a", journal, journal_size);
    if (fuzz_store_open(store, read_only) != 0) {
        return;
    }
    struct abode_verify_report report;
    fuzz_expect(abode_inspect(store->api->runtime, line_check, NULL) == 0);
    fuzz_any(abode_verify(store->api->runtime, NULL, NULL, NULL, &report));
    sessions_try(store->api, read_only);
    fuzz_store_close(store);
    if (!read_only) {
        fuzz_expect(fuzz_store_open(store, false) == 0);
        fuzz_store_close(store);
    }
}

static size_t recover_mutate(uint8_t *bytes, size_t size, size_t capacity,
                             struct fuzz_random *random)
{
    if (size < 8) {
        memset(bytes, 0, 8);
        size = 8;
    }
    if (fuzz_below(random, 32) == 0) {
        bytes[0] ^= (uint8_t)(1u << fuzz_below(random, 8));
    }
    return 8 + fuzz_entries_mutate(bytes + 8, size - 8, capacity - 8, random);
}

static size_t recover_seal(uint8_t *bytes, size_t size)
{
    return size < 8 ? size : 8 + fuzz_entries_seal(bytes + 8, size - 8);
}

static size_t recover_seed(uint32_t index, uint8_t *bytes, size_t capacity)
{
    if (index > 1) {
        return 0;
    }
    memset(bytes, 0, 8);
    bytes[0] = (uint8_t)index;
    return 8 + fuzz_entries_get(fuzz_store_get(), bytes + 8, capacity - 8);
}

extern const struct fuzz_target fuzz_recover;
const struct fuzz_target fuzz_recover = {.name = "recover",
                                         .is_slow = true,
                                         .size_max = FUZZ_SIZE_MAX,
                                         .run = recover_run,
                                         .mutate = recover_mutate,
                                         .seal = recover_seal,
                                         .seed = recover_seed};
