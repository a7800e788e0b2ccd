/* corrupt_store.c - see corrupt_store.h. */
#include "sim/corrupt_store.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "front/front.h"
#include "kv/session.h"

#define FILLERS 70u /* sessions made and deleted: they fill the store twice */
#define FILLER_FIRST 1000u
#define ITEM_FIRST 5000u
#define FLUSH_NS 10000000000LL

static _Alignas(4096) unsigned char region_bytes[LIVE_BYTES_MAX];

int corrupt_wrong(struct corrupt_run *run, const char *format, ...)
{
    va_list arguments;

    if (run->why[0] == '\0') {
        va_start(arguments, format);
        (void)vsnprintf(run->why, sizeof(run->why), format, arguments);
        va_end(arguments);
    }
    return -EBADMSG;
}

static void log_keep(void *context, int level, const char *line)
{
    struct corrupt_run *run = context;
    int used = snprintf(run->log + run->log_size, sizeof(run->log) - run->log_size, "%s\n", line);

    live_log(NULL, level, line);
    if (used > 0 && run->log_size + (uint32_t)used < sizeof(run->log)) {
        run->log_size += (uint32_t)used;
    }
}

int corrupt_open(struct corrupt_run *run, uint32_t flags, struct abode **ret)
{
    struct abode_config config;

    sim_config_init(&config);
    config.flags = flags;
    config.log = log_keep;
    config.log_context = run;
    run->log_size = 0;
    run->log[0] = '\0';
    return ab_open_with_os(&config, &run->disk.os, ret);
}

/* ---- making a base -------------------------------------------------------------------------------- */

struct maker {
    struct corrupt_base *base;
    struct sim_disk disk;
    struct live_host host;
    uint32_t region;
    uint64_t random;
    uint32_t stamp;
};

static int session_make(struct maker *maker, uint32_t name, uint32_t durability,
                        struct abode_session *ret)
{
    struct abode_key key;
    struct abode_session_opts opts = {.struct_size = sizeof(opts),
                                      .model = maker->host.model,
                                      .home_node = -1,
                                      .durability = durability,
                                      .name = &key};

    live_key(name, &key);
    return abode_session_create(maker->host.runtime, &opts, ret);
}

static int turn(struct maker *maker, struct abode_session session, struct live_state *state)
{
    uint32_t stamp = ++maker->stamp;
    int rc = live_append(&maker->host, session, state, 10 + live_random_below(&maker->random, 50),
                         stamp);

    return rc < 0 ? rc : live_snapshot(&maker->host, session, state, stamp);
}

static int fillers_pass(struct maker *maker)
{
    int rc = 0;

    for (uint32_t index = 0; index < FILLERS && rc == 0; index++) {
        struct abode_session session;
        struct live_state state = {0};

        rc = session_make(maker, FILLER_FIRST + index, ABODE_DURABLE, &session);
        for (uint32_t count = 0; count < 4 && rc == 0; count++) {
            rc = turn(maker, session, &state);
        }
        rc = rc < 0 ? rc : live_detach(&maker->host, session, ABODE_DETACH_SPILL_NOW);
        rc = rc < 0 ? rc : abode_session_delete(maker->host.runtime, session);
    }
    return rc;
}

static int sessions_make(struct maker *maker)
{
    struct abode_session session = {0};
    struct live_state *fork = maker->base->states[CORRUPT_NAMES - 1];
    struct abode_key key;
    int rc = 0;

    for (uint32_t name = 0; name < CORRUPT_NAMES - 1 && rc == 0; name++) {
        struct live_state *states = maker->base->states[name];

        rc = session_make(maker, name, ABODE_DURABLE, &session);
        rc = rc < 0 ? rc : turn(maker, session, &states[1]);
        states[0] = states[1];
        rc = rc < 0 ? rc : turn(maker, session, &states[0]);
        if (name == CORRUPT_NAMES - 2 && rc == 0) { /* the fork goes on by itself */
            struct abode_session child;

            fork[1] = states[0];
            live_key(CORRUPT_NAMES - 1, &key);
            rc = live_fork(&maker->host, session, states[0].token_count, &key, &child);
            fork[0] = fork[1];
            rc = rc < 0 ? rc : turn(maker, child, &fork[0]);
            rc = rc < 0 ? rc : live_detach(&maker->host, child, ABODE_DETACH_SPILL_NOW);
        }
        rc = rc < 0 ? rc : live_detach(&maker->host, session, ABODE_DETACH_SPILL_NOW);
    }
    return rc;
}

static int region_open(struct live_host *host, uint32_t *ret)
{
    struct abode_region region = {.struct_size = sizeof(region),
                                  .node = -1,
                                  .base = region_bytes,
                                  .bytes = sizeof(region_bytes)};

    return abode_region_add(host->runtime, &region, ret);
}

static int items_make(struct maker *maker)
{
    int rc = region_open(&maker->host, &maker->region);

    for (uint32_t number = 0; number < CORRUPT_ITEMS && rc == 0; number++) {
        struct abode_item item = {.region = maker->region, .bytes = live_item_size(number)};
        struct abode_op op = {0};

        live_key(ITEM_FIRST + number, &item.key);
        live_item_fill(number, region_bytes);
        rc = abode_cache_put(maker->host.queue, maker->host.model, &item, 1, ABODE_DURABLE, &op);
        rc = rc < 0 ? rc : live_wait(&maker->host, &op);
    }
    return rc;
}

/* Promised WRITTEN only: the end of the journal is what nobody has synced. */
static int tail_make(struct maker *maker)
{
    struct abode_session session;
    struct live_state state = {0};
    int rc = session_make(maker, FILLER_FIRST, ABODE_WRITTEN, &session);

    for (uint32_t count = 0; count < 3 && rc == 0; count++) {
        rc = turn(maker, session, &state);
        rc = rc < 0 ? rc : live_detach(&maker->host, session, ABODE_DETACH_KEEP);
    }
    return rc < 0 ? rc : live_detach(&maker->host, session, 0);
}

/* Which sessions name the block? Any row or point of theirs. */
static void names_note(struct ab_kv *kv, struct corrupt_base *base, const uint32_t *places)
{
    for (uint32_t index = 0; index < kv->session_high; index++) {
        const struct ab_session *session = &kv->sessions[index];
        const struct ab_model *model = &kv->models[session->model];
        struct abode_key key;
        uint32_t bit = 0;

        for (uint32_t name = 0; name < CORRUPT_NAMES && session->state != AB_SESSION_FREE; name++) {
            live_key(name, &key);
            bit |= memcmp(&key, &session->name, sizeof(key)) == 0 ? 1u << name : 0;
        }
        for (uint32_t c = 0; c < model->component_count && bit != 0; c++) {
            for (uint32_t p = 0; p < session->point_count; p++) {
                uint32_t block = session->points[p].blocks[c];

                base->blocks[block == AB_INDEX_NONE ? 0 : places[block]].names |=
                    block == AB_INDEX_NONE ? 0 : bit;
            }
            if (!ab_component_has_rows(&model->components[c])) {
                continue;
            }
            for (uint32_t row = session->row_first[c]; row < session->row_count; row++) {
                uint32_t block = ab_session_rows(kv, session, c)[row];

                base->blocks[block == AB_INDEX_NONE ? 0 : places[block]].names |=
                    block == AB_INDEX_NONE ? 0 : bit;
            }
        }
    }
}

static void items_note(struct ab_kv *kv, struct corrupt_base *base, const uint32_t *places)
{
    for (uint32_t number = 0; number < CORRUPT_ITEMS; number++) {
        struct abode_key key;
        uint64_t fingerprint[2];
        uint8_t id = LIVE_BYTES; /* component of model 0 */
        uint32_t block;

        live_key(ITEM_FIRST + number, &key);
        ab_block_fingerprint(id, 0, &key, fingerprint);
        block = ab_block_find(kv, id, fingerprint);
        if (block != AB_INDEX_NONE) {
            base->blocks[places[block]].item = number + 1;
        }
    }
}

/* Place 0 of the list is nobody's, so that "none" has somewhere to point. */
static int blocks_note(struct maker *maker)
{
    struct corrupt_base *base = maker->base;
    struct ab_kv *kv = maker->host.runtime->kv;
    uint32_t *places = calloc(kv->block_high + 1, sizeof(*places));

    if (places == NULL) {
        return -ENOMEM;
    }
    base->block_count = 1;
    for (uint32_t index = 0; index < kv->block_high; index++) {
        const struct ab_block *block = &kv->blocks[index];

        if ((block->flags & AB_BLOCK_USED) == 0 || !ab_block_is_stored(block) ||
            base->block_count == CORRUPT_BLOCKS_MAX) {
            continue;
        }
        places[index] = base->block_count;
        base->blocks[base->block_count++] = (struct corrupt_block){
            .segment = block->segment, .page = block->page, .bytes = block->bytes};
    }
    names_note(kv, base, places);
    items_note(kv, base, places);
    free(places);
    return base->block_count < CORRUPT_BLOCKS_MAX ? 0 : -EFBIG;
}

static void files_note(struct corrupt_base *base)
{
    for (uint32_t index = 1; index < base->block_count; index++) {
        char path[64], name[SIM_NAME_BYTES];
        uint32_t directory;

        (void)snprintf(path, sizeof(path), "/store/segments/%08x", base->blocks[index].segment);
        base->blocks[index].file = sim_path_find(&base->closed, SIM_ROOT, path, &directory, name);
    }
}

static int base_fill(struct maker *maker)
{
    struct abode_config config;
    struct abode *runtime = NULL;
    int rc = sim_store_mount(&maker->disk);

    sim_config_init(&config);
    rc = rc < 0 ? rc : ab_open_with_os(&config, &maker->disk.os, &runtime);
    rc = rc < 0 ? rc : live_host_open(runtime, 0, &maker->host);
    rc = rc < 0 ? rc : fillers_pass(maker);
    rc = rc < 0 ? rc : sessions_make(maker);
    rc = rc < 0 ? rc : items_make(maker);
    rc = rc < 0 ? rc : abode_flush(runtime, FLUSH_NS);
    rc = rc < 0 ? rc : tail_make(maker);
    if (rc < 0) {
        return rc;
    }
    sim_image_sync(&maker->disk.image); /* as a kill leaves it: the kernel goes on */
    sim_image_clone(&maker->base->killed, &maker->disk.image);
    rc = blocks_note(maker);
    rc = rc < 0 ? rc : abode_region_remove(runtime, maker->region);
    return rc < 0 ? rc : live_host_close(&maker->host);
}

int corrupt_base_make(struct corrupt_base *base, uint64_t seed)
{
    struct maker *maker = calloc(1, sizeof(*maker));
    int rc;

    if (maker == NULL) {
        return -ENOMEM;
    }
    memset(base, 0, sizeof(*base));
    maker->base = base;
    maker->random = seed;
    sim_disk_init(&maker->disk);
    maker->disk.image.keeps_older = true;
    rc = base_fill(maker);
    if (rc == 0) {
        sim_image_sync(&maker->disk.image);
        sim_image_clone(&base->closed, &maker->disk.image);
        files_note(base);
    }
    sim_disk_free(&maker->disk);
    free(maker);
    return rc;
}

void corrupt_base_free(struct corrupt_base *base)
{
    sim_image_free(&base->closed);
    sim_image_free(&base->killed);
}

/* ---- opening a damaged clone ------------------------------------------------------------------------ */

void corrupt_fresh(struct corrupt_run *run, const struct sim_image *image)
{
    if (run->disk.image.files[SIM_ROOT].is_used) {
        sim_disk_free(&run->disk);
    }
    sim_disk_init(&run->disk);
    sim_image_free(&run->disk.image);
    sim_image_clone(&run->disk.image, image);
    for (uint32_t index = 0; index < run->base->block_count; index++) {
        run->base->blocks[index].is_hit = false;
    }
}

struct sim_file *corrupt_file(struct corrupt_run *run, const char *path)
{
    char name[SIM_NAME_BYTES];
    uint32_t directory, file = sim_path_find(&run->disk.image, SIM_ROOT, path, &directory, name);

    return file == SIM_NONE ? NULL : &run->disk.image.files[file];
}

/* ---- checks ------------------------------------------------------------------------------------------- */

struct damages {
    struct corrupt_run *run;
    uint32_t seen[CORRUPT_BLOCKS_MAX];
};

static void damage_take(void *context, const struct abode_damage *damage)
{
    struct damages *damages = context;
    const struct corrupt_base *base = damages->run->base;
    char file[64];

    for (uint32_t index = 1; index < base->block_count; index++) {
        const struct corrupt_block *block = &base->blocks[index];

        (void)snprintf(file, sizeof(file), SIM_MOUNT "/store/segments/%08x", block->segment);
        if (damage->offset == (uint64_t)block->page * SIM_PAGE && strcmp(damage->file, file) == 0) {
            damages->seen[index]++;
            if (damage->bytes != block->bytes || damage->status != -ABODE_ECORRUPT) {
                (void)corrupt_wrong(
                    damages->run, "%s byte %llu: %llu bytes reported, %u are bad: %s", file,
                    (unsigned long long)damage->offset, (unsigned long long)damage->bytes,
                    block->bytes, abode_strerror(damage->status));
            }
            return;
        }
    }
    (void)corrupt_wrong(damages->run, "damage is reported where no block is: %s byte %llu",
                        damage->file, (unsigned long long)damage->offset);
}

/* Are all sessions that named the block whole at their newest state without it? Then it was of an older
 * restore point, which scrubbing found damaged, and which the record of the last detach leaves out. */
static bool was_let_go(const struct corrupt_run *run, struct abode *runtime,
                       const struct corrupt_block *block)
{
    for (uint32_t name = 0; name < CORRUPT_NAMES; name++) {
        struct abode_session_info info = {.struct_size = sizeof(info)};
        struct abode_session session;
        struct abode_key key;

        if ((block->names & 1u << name) == 0) {
            continue;
        }
        live_key(name, &key);
        if (abode_session_find(runtime, &key, &session) < 0 ||
            abode_session_stat(runtime, session, &info) < 0 ||
            info.restore_point != run->base->states[name][0].token_count) {
            return false;
        }
    }
    return block->names != 0;
}

static int verify_check(struct corrupt_run *run, struct abode *runtime, bool is_first)
{
    struct damages damages = {.run = run};
    struct abode_verify_report report = {.struct_size = sizeof(report)};
    int rc = abode_verify(runtime, NULL, damage_take, &damages, &report);

    if (rc < 0) {
        return corrupt_wrong(run, "abode_verify: %s", abode_strerror(rc));
    }
    for (uint32_t index = 1; index < run->base->block_count; index++) {
        const struct corrupt_block *block = &run->base->blocks[index];

        if (block->is_hit && damages.seen[index] == 0 && !is_first &&
            was_let_go(run, runtime, block)) {
            continue;
        }
        if (damages.seen[index] != block->is_hit) {
            return corrupt_wrong(run,
                                 "segment %u page %u (names %x, item %u): %s hit, reported %u "
                                 "times; %llu blocks checked of %u",
                                 block->segment, block->page, block->names, block->item,
                                 block->is_hit ? "it was" : "it was not", damages.seen[index],
                                 (unsigned long long)report.blocks_checked,
                                 run->base->block_count - 1);
        }
        run->reported += block->is_hit;
    }
    return run->why[0] == '\0' ? 0 : -EBADMSG;
}

static bool name_is_hit(const struct corrupt_base *base, uint32_t name)
{
    for (uint32_t index = 1; index < base->block_count; index++) {
        if (base->blocks[index].is_hit && (base->blocks[index].names & 1u << name) != 0) {
            return true;
        }
    }
    return false;
}

/* The newest state where nothing is hit; else that, the older one, or an answer that it is lost. */
static int name_check(struct corrupt_run *run, struct live_host *host, uint32_t name,
                      uint32_t flags)
{
    const struct live_state *states = run->base->states[name];
    const bool is_hit = name_is_hit(run->base, name);
    struct abode_session_info info = {.struct_size = sizeof(info)};
    struct abode_session session;
    struct abode_key key;
    char why[LIVE_WHY_MAX];
    int rc;

    live_key(name, &key);
    rc = abode_session_find(host->runtime, &key, &session);
    rc = rc < 0 ? rc : live_attach(host, session, -1, flags);
    if ((rc == -ABODE_ECORRUPT && flags == 0 && is_hit)) {
        run->refused++;
        return 0;
    }
    if (rc < 0 && (rc != -ABODE_EPARTIAL || flags == 0 || !is_hit)) {
        return corrupt_wrong(run, "session %u, %s hit: attach: %s", name, is_hit ? "" : "not",
                             abode_strerror(rc));
    }
    rc = abode_session_stat(host->runtime, session, &info);
    if (rc < 0) {
        return corrupt_wrong(run, "session %u: %s", name, abode_strerror(rc));
    }
    const struct live_state *state = &states[info.token_count != states[0].token_count];
    if (info.token_count != state->token_count || (!is_hit && state != states)) {
        return info.token_count == 0 && is_hit
                   ? 0
                   : corrupt_wrong(run, "session %u has %llu tokens", name,
                                   (unsigned long long)info.token_count);
    }
    run->served++;
    if (live_compare(host, session, state, why, &run->bytes_compared) < 0) {
        return corrupt_wrong(run, "session %u has wrong bytes: %s", name, why);
    }
    rc = live_detach(host, session, 0);
    return rc < 0 ? corrupt_wrong(run, "session %u: detach: %s", name, abode_strerror(rc)) : 0;
}

static bool item_is_hit(const struct corrupt_base *base, uint32_t number)
{
    for (uint32_t index = 1; index < base->block_count; index++) {
        if (base->blocks[index].is_hit && base->blocks[index].item == number + 1) {
            return true;
        }
    }
    return false;
}

static int item_check(struct corrupt_run *run, struct live_host *host, uint32_t region,
                      uint32_t number)
{
    const bool is_hit = item_is_hit(run->base, number);
    struct abode_item item = {.region = region, .bytes = LIVE_BYTES_MAX};
    struct abode_op op = {0};
    int rc;

    live_key(ITEM_FIRST + number, &item.key);
    rc = abode_cache_get(host->queue, host->model, &item, 1, &op);
    rc = rc < 0 ? rc : live_wait(host, &op);
    if (rc < 0 && rc != -ABODE_EPARTIAL) {
        return corrupt_wrong(run, "item %u: %s", number, abode_strerror(rc));
    }
    if (is_hit && (item.status == -ABODE_ECORRUPT || item.status == -ENOENT)) {
        run->refused++;
        return 0;
    }
    run->served++;
    if (item.status != 0 || is_hit || !live_item_is(number, region_bytes, item.bytes)) {
        return corrupt_wrong(run, "item %u, %s hit: %s", number, is_hit ? "" : "not",
                             item.status < 0 ? abode_strerror(item.status) : "wrong bytes");
    }
    return 0;
}

static int contents_check(struct corrupt_run *run, struct live_host *host)
{
    uint32_t region;
    int rc = region_open(host, &region);

    for (uint32_t name = 0; name < CORRUPT_NAMES && rc == 0; name++) {
        rc = name_check(run, host, name, 0);
    }
    for (uint32_t number = 0; number < CORRUPT_ITEMS && rc == 0; number++) {
        rc = item_check(run, host, region, number);
    }
    return rc < 0 ? rc : abode_region_remove(host->runtime, region);
}

int corrupt_check(struct corrupt_run *run, bool attach_first)
{
    struct live_host host;
    struct abode *runtime = NULL;
    int rc = corrupt_open(run, 0, &runtime);

    rc = rc < 0 ? rc : live_host_open(runtime, 0, &host);
    if (rc < 0) {
        return corrupt_wrong(run, "open: %s", abode_strerror(rc));
    }
    rc = attach_first ? contents_check(run, &host) : verify_check(run, runtime, true);
    if (rc == 0) {
        rc = attach_first ? verify_check(run, runtime, false) : contents_check(run, &host);
    }
    for (uint32_t name = 0; name < CORRUPT_NAMES && rc == 0; name++) {
        rc =
            name_is_hit(run->base, name) ? name_check(run, &host, name, ABODE_ATTACH_PREFIX_OK) : 0;
    }
    if (rc == 0) {
        rc = live_host_close(&host);
    }
    return rc < 0 ? corrupt_wrong(run, "close: %s", abode_strerror(rc)) : 0;
}

int corrupt_check_read_only(struct corrupt_run *run)
{
    struct abode_verify_report report = {.struct_size = sizeof(report)};
    struct abode *runtime = NULL;
    int rc = corrupt_open(run, ABODE_READ_ONLY, &runtime);

    if (rc < 0) {
        return corrupt_wrong(run, "open for reading: %s", abode_strerror(rc));
    }
    rc = abode_verify(runtime, NULL, NULL, NULL, &report);
    if (rc < 0) { /* blocks may be bad: their places have been used again since that state */
        return corrupt_wrong(run, "abode_verify before the damage: %s", abode_strerror(rc));
    }
    rc = abode_close(runtime);
    return rc < 0 ? corrupt_wrong(run, "close: %s", abode_strerror(rc)) : 0;
}
