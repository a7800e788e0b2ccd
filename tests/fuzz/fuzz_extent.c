/*
 * fuzz_extent.c - hostile bytes in segment files: header pages of segments and extents, payload. An
 * input is a list of edits of 8 bytes: place (4), length (1), value (1), and whether it goes to the
 * header page of an extent, whose hash is then made right (2). Laws: a payload that differs in one
 * bit is damage and is never given out; bytes that are no stored payload change nothing.
 */
#include "fuzz/fuzz_store.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/num.h"
#include "front/front.h"

#define BLOCKS_MAX 64
#define EDIT 8u

struct stored {
    uint32_t segment, bytes;
    uint64_t offset;
};
static struct stored blocks[BLOCKS_MAX];
static uint32_t block_count;

/* Where the payload of each live block lies; once. */
static void blocks_find(struct fuzz_store *store)
{
    fuzz_store_reset(store);
    fuzz_expect(fuzz_store_open(store, true) == 0);
    const struct ab_kv *kv = store->api->runtime->kv;
    for (uint32_t i = 0; i < kv->block_high; i++) {
        const struct ab_block *block = &kv->blocks[i];
        if ((block->flags & AB_BLOCK_USED) != 0 && ab_block_is_stored(block)) {
            fuzz_expect(block_count < BLOCKS_MAX);
            blocks[block_count++] = (struct stored){.segment = block->segment,
                                                    .bytes = block->bytes,
                                                    .offset = (uint64_t)block->page * AB_PAGE};
        }
    }
    fuzz_store_close(store);
    fuzz_expect(block_count > 8);
}

static uint32_t bad_count(const struct fuzz_store *store, const struct fuzz_file *edited)
{
    uint32_t bad = 0;
    for (uint32_t i = 0; i < block_count; i++) {
        const struct stored *block = &blocks[i];
        bad += memcmp(edited[block->segment].bytes + block->offset,
                      store->segments[block->segment].bytes + block->offset, block->bytes) != 0;
    }
    return bad;
}

static void edit_apply(const uint8_t *edit, const struct fuzz_file *segments)
{
    uint32_t place;
    memcpy(&place, edit, sizeof(place));
    const struct fuzz_file *file = &segments[place % FUZZ_SEGMENTS];
    if (file->size == 0) {
        return;
    }
    size_t at = place / FUZZ_SEGMENTS % file->size;
    if ((edit[6] & 1) != 0) { /* most live pages are near the front */
        at %= 64 * AB_PAGE;
    }
    memset(file->bytes + at, edit[5], AB_MIN(1u + edit[4], file->size - at));
    struct ab_disk_extent *header = (void *)(file->bytes + ab_align_down(at, AB_PAGE));
    if (header->magic == AB_EXTENT_MAGIC) {
        header->hash = ab_hash64((const uint8_t *)header + sizeof(header->hash),
                                 sizeof(*header) - sizeof(header->hash), edit[7]);
    }
}

static void sessions_check(struct fuzz_store *store, bool whole)
{
    static const struct {
        uint32_t name, tokens;
    } wanted[] = {{FUZZ_HYBRID, FUZZ_HYBRID_TOKENS},
                  {FUZZ_FORK, FUZZ_FORK_TOKENS},
                  {FUZZ_PAGED, FUZZ_PAGED_TOKENS}};
    struct api *api = store->api;
    for (uint32_t i = 0; i < AB_COUNT(wanted); i++) {
        const struct abode_session session = api_find(api, wanted[i].name);
        const int status = api_attach(api, session, ABODE_ATTACH_PREFIX_OK);
        fuzz_expect(status == 0 || (!whole && status == -ABODE_EPARTIAL) ||
                    (!whole && status == -ABODE_ECORRUPT));
        if (status == -ABODE_ECORRUPT) {
            continue;
        }
        const uint64_t tokens = api_tokens(api, session);
        fuzz_expect(tokens <= wanted[i].tokens && (status != 0 || tokens == wanted[i].tokens));
        api_check(api, session, FUZZ_SALT, tokens);
        fuzz_expect(api_detach(api, session, 0) == 0);
    }
}

static void extent_run(const uint8_t *bytes, size_t size)
{
    static struct fuzz_file edited[FUZZ_SEGMENTS];
    static uint8_t copies[FUZZ_SEGMENTS][1u << 20];
    struct fuzz_store *store = fuzz_store_get();
    if (block_count == 0) {
        blocks_find(store);
    }
    fuzz_store_reset(store);
    for (uint32_t i = 0; i < FUZZ_SEGMENTS; i++) {
        edited[i] = (struct fuzz_file){.bytes = copies[i], .size = store->segments[i].size};
        fuzz_expect(edited[i].size <= sizeof(copies[i]));
        if (edited[i].size > 0) {
            memcpy(copies[i], store->segments[i].bytes, edited[i].size);
        }
    }
    for (size_t at = 0; at + EDIT <= size; at += EDIT) {
        edit_apply(bytes + at, edited);
    }
    for (uint32_t i = 0; i < FUZZ_SEGMENTS; i++) {
        char name[32];
        (void)snprintf(name, sizeof(name), "segments/%08x", i);
        fuzz_store_put(store, name, edited[i].bytes, edited[i].size);
    }
    store->is_written = true;
    struct api_damage damage;
    const uint32_t bad = bad_count(store, edited);
    fuzz_expect(fuzz_store_open(store, true) == 0);
    fuzz_expect(api_verify(store->api, &damage) == bad);
    fuzz_store_close(store);
    fuzz_expect(fuzz_store_open(store, false) == 0); /* which has not heard of any damage */
    sessions_check(store, bad == 0);
    fuzz_store_close(store);
}

static size_t extent_mutate(uint8_t *bytes, size_t size, size_t capacity,
                            struct fuzz_random *random)
{
    size = ab_align_down(size, EDIT);
    if (size + EDIT > capacity || (size > 0 && fuzz_below(random, 3) == 0)) {
        return size - EDIT; /* few edits find more than many */
    }
    const uint32_t place = (uint32_t)fuzz_next(random);
    const uint8_t rest[4] = {(uint8_t)(fuzz_below(random, 2) == 0 ? 0 : fuzz_next(random)),
                             (uint8_t)fuzz_next(random), (uint8_t)fuzz_next(random),
                             (uint8_t)fuzz_below(random, 2)};
    memcpy(bytes + size, &place, sizeof(place));
    memcpy(bytes + size + sizeof(place), rest, sizeof(rest));
    return size + EDIT;
}

extern const struct fuzz_target fuzz_extent;
const struct fuzz_target fuzz_extent = {.name = "extent",
                                        .is_slow = true,
                                        .size_max = 32 * EDIT,
                                        .run = extent_run,
                                        .mutate = extent_mutate};
