/*
 * verify_store.c - abode_verify: read every stored block, in the order of the disk, and check it.
 *
 * Works on a runtime of its own or beside the writer of the store (ABODE_READ_ONLY): there, a block
 * that does not match may have been dropped or moved since the journal was read, so the bad ones are
 * looked up in the journal as it is by then, and read again, three times before they are called
 * damaged.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/num.h"
#include "front/front.h"

#define LOOKS 3u

struct place {
    uint32_t segment, block;
    uint16_t page;
};

struct walk {
    struct abode *runtime;
    struct place *places;
    uint32_t count;
    unsigned char *buffer;
    uint64_t buffer_bytes, bytes_total;
    struct abode_verify_report report;
};

static int by_place(const void *a, const void *b)
{
    const struct place *x = a, *y = b;
    if (x->segment != y->segment) {
        return x->segment < y->segment ? -1 : 1;
    }
    return x->page < y->page ? -1 : x->page > y->page;
}

static int places_get(struct walk *walk)
{
    struct ab_kv *kv = walk->runtime->kv;
    ab_lock_take(&kv->lock);
    uint32_t high = kv->block_high;
    ab_lock_drop(&kv->lock);
    walk->places = ab_os_alloc_array(kv->os, high + 1ull, sizeof(*walk->places));
    if (walk->places == NULL) {
        return -ENOMEM;
    }
    enum { HOLD = 4096 }; /* blocks looked at per hold of the lock */
    for (uint32_t from = 0; from < high; from += HOLD) {
        ab_lock_take(&kv->lock);
        for (uint32_t i = from; i < AB_MIN(from + HOLD, high); i++) {
            const struct ab_block *block = &kv->blocks[i];
            if ((block->flags & AB_BLOCK_USED) != 0 && ab_block_is_stored(block)) {
                walk->places[walk->count++] = (struct place){block->segment, i, block->page};
                uint64_t padded = ab_align_up(block->bytes, AB_PAGE);
                walk->bytes_total += block->bytes;
                walk->buffer_bytes = AB_MAX(walk->buffer_bytes, padded);
            }
        }
        ab_lock_drop(&kv->lock);
    }
    qsort(walk->places, walk->count, sizeof(*walk->places), by_place);
    walk->buffer = kv->os->alloc(kv->os, AB_MAX(walk->buffer_bytes, (uint64_t)AB_PAGE), AB_PAGE);
    return walk->buffer == NULL ? -ENOMEM : 0;
}

struct target {
    struct ab_slot slot;
    uint32_t generation, bytes;
    uint64_t checksum;
};

/* false: the block is not at this place any more */
static bool target_get(struct ab_kv *kv, const struct place *place, struct target *ret)
{
    ab_lock_take(&kv->lock);
    const struct ab_block *block = &kv->blocks[place->block];
    bool same = (block->flags & AB_BLOCK_USED) != 0 && block->segment == place->segment &&
                block->page == place->page;
    if (same) {
        *ret = (struct target){.slot = ab_block_slot(block),
                               .generation = ab_store_generation(kv->store, block->segment),
                               .bytes = block->bytes,
                               .checksum = block->checksum};
    }
    ab_lock_drop(&kv->lock);
    return same;
}

static int target_read(struct walk *walk, const struct target *target)
{
    struct ab_kv *kv = walk->runtime->kv;
    uint64_t padded = ab_align_up(target->bytes, AB_PAGE);
    if (padded > walk->buffer_bytes) {
        return -EAGAIN;
    }
    int fd = ab_store_segment_fd(kv->store, target->slot.segment);
    if (fd < 0) {
        return fd;
    }
    int64_t got =
        ab_os_read_all(kv->os, fd, walk->buffer, padded, (uint64_t)target->slot.page * AB_PAGE);
    if (got != (int64_t)padded) {
        return got < 0 ? (int)got : -ABODE_ECORRUPT; /* the file ends before */
    }
    uint64_t hash[2];
    kv->kernels->checksum(walk->buffer, target->bytes,
                          ab_store_seed(kv->store, target->slot, target->generation), hash);
    return hash[0] == target->checksum ? 0 : -ABODE_ECORRUPT;
}

/* does the session name the block, and which tokens is it of? */
static bool session_names(struct ab_kv *kv, const struct ab_session *session, uint32_t block,
                          struct abode_damage *damage)
{
    const struct ab_model *model = &kv->models[session->model];
    for (uint32_t c = 0; c < model->component_count; c++) {
        bool has_rows = ab_component_has_rows(&model->components[c]);
        for (uint32_t p = 0; p < session->point_count && !has_rows; p++) {
            if (session->points[p].blocks[c] == block) {
                damage->token_first = session->points[p].token_count;
                return true;
            }
        }
        const uint32_t *rows = has_rows ? ab_session_rows(kv, session, c) : NULL;
        for (uint32_t row = session->row_first[c]; row < session->row_count && has_rows; row++) {
            if (rows[row] == block) {
                damage->token_first = (uint64_t)row * model->block_tokens;
                damage->token_count = model->block_tokens;
                return true;
            }
        }
    }
    return false;
}

static void damage_owner(struct ab_kv *kv, uint32_t block, struct abode_damage *damage)
{
    ab_lock_take(&kv->lock);
    for (uint32_t i = 0; i < kv->session_high; i++) {
        const struct ab_session *session = &kv->sessions[i];
        if (session->state != AB_SESSION_FREE && session_names(kv, session, block, damage)) {
            damage->session_name = session->name;
            break;
        }
    }
    ab_lock_drop(&kv->lock);
}

typedef void damage_fn(void *context, const struct abode_damage *damage);

static void damage_tell(struct walk *walk, const struct place *place, const struct target *target,
                        int status, damage_fn *damage, void *context)
{
    struct ab_kv *kv = walk->runtime->kv;
    struct abode_damage report = {.component =
                                      kv->blocks[place->block].component % ABODE_COMPONENTS_MAX,
                                  .status = status,
                                  .offset = (uint64_t)place->page * AB_PAGE,
                                  .bytes = target->bytes};
    if (ab_store_segment_path(kv->store, place->segment, report.file, sizeof(report.file)) < 0) {
        (void)snprintf(report.file, sizeof(report.file), "segment %u", place->segment);
    }
    damage_owner(kv, place->block, &report);
    walk->report.blocks_bad++;
    walk->report.bytes_bad += target->bytes;
    if (status == -ABODE_ECORRUPT) {
        struct target now;
        if (target_get(kv, place, &now)) {
            ab_lock_take(&kv->lock);
            ab_block_found_bad(kv, place->block);
            ab_lock_drop(&kv->lock);
        }
    }
    if (damage != NULL) {
        damage(context, &report);
    }
}

/* The blocks as the journal of this moment has them; the runtime's own where that cannot be read. */
static struct ab_kv *blocks_now(struct walk *walk, struct abode **ret_fresh)
{
    struct abode *runtime = walk->runtime;
    struct abode_config config = runtime->config;
    config.store_paths = (const char *const *)runtime->paths;
    *ret_fresh = NULL;
    if (!runtime->kv->read_only || ab_open_with_os(&config, runtime->os, ret_fresh) != 0) {
        return runtime->kv;
    }
    return (*ret_fresh)->kv;
}

/* Looks at the first `count` places again, keeps those that are still there and still bad; returns
 * how many. last: they are damage. */
static uint32_t suspects_check(struct walk *walk, uint32_t count, bool last, damage_fn *damage,
                               void *context)
{
    struct abode *fresh;
    struct ab_kv *kv = blocks_now(walk, &fresh);
    uint32_t kept = 0;
    for (uint32_t i = 0; i < count; i++) {
        struct target target;
        const struct place place = walk->places[i];
        const int found = target_get(kv, &place, &target) ? target_read(walk, &target) : 0;
        if (found == 0) {
            continue;
        }
        walk->places[kept++] = place;
        if (last) {
            damage_tell(walk, &place, &target, found, damage, context);
        }
    }
    if (fresh != NULL) {
        (void)!abode_close(fresh); /* read-only: nothing can be in flight */
    }
    return kept;
}

static int walk_run(struct walk *walk,
                    int (*progress)(void *context, uint64_t bytes_done, uint64_t bytes_total),
                    damage_fn *damage, void *context)
{
    uint32_t suspects = 0;
    int answer = 0;
    for (uint32_t i = 0; i < walk->count && answer >= 0; i++) {
        struct target target;
        if (!target_get(walk->runtime->kv, &walk->places[i], &target)) {
            continue;
        }
        if (target_read(walk, &target) != 0) {
            walk->places[suspects++] = walk->places[i]; /* never behind i */
        }
        walk->report.blocks_checked++;
        walk->report.bytes_checked += target.bytes;
        if (progress != NULL) {
            answer = progress(context, walk->report.bytes_checked, walk->bytes_total);
        }
    }
    /* each journal that is read is behind a writer that lives by the time its blocks are read */
    for (uint32_t look = 1; look <= LOOKS && suspects > 0; look++) {
        suspects = suspects_check(walk, suspects, look == LOOKS, damage, context);
    }
    return answer < 0 ? answer : 0;
}

int abode_verify(struct abode *runtime,
                 int (*progress)(void *context, uint64_t bytes_done, uint64_t bytes_total),
                 void (*damage)(void *context, const struct abode_damage *damage), void *context,
                 struct abode_verify_report *ret)
{
    struct ab_poison *before;
    int status = ab_enter(runtime, &before);
    if (status != 0 || ret == NULL) {
        return status != 0 ? status : ab_leave(runtime, before, -EINVAL);
    }
    if (runtime->store == NULL) {
        *ret = (struct abode_verify_report){.struct_size = sizeof(*ret)};
        return ab_leave(runtime, before, 0);
    }
    struct walk walk = {.runtime = runtime, .report = {.struct_size = sizeof(*ret)}};
    status = places_get(&walk);
    if (status == 0) {
        status = walk_run(&walk, progress, damage, context);
    }
    runtime->os->free(runtime->os, walk.buffer);
    runtime->os->free(runtime->os, walk.places);
    if (status == 0) {
        *ret = walk.report;
    }
    return ab_leave(runtime, before, status);
}
