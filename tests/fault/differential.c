/* differential.c - see differential.h. */
#include "fault/differential.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/num.h"

#define NAMES 10u
#define ITEMS 24u
#define ITEMS_A_CALL 4u
#define MEMORY_BYTES (32u << 20)
#define STORE_BYTES (128u << 20)
#define SEGMENT_BYTES (4u << 20)
#define SHORT_STEPS 300u /* fewer: a quarter of all that is enough, and opens four times as fast */
#define REOPEN_STEPS 150u

struct differ_name {
    bool exists, attached;
    struct abode_session session;
    struct live_state state;
};
struct differ {
    const struct differential_plan *plan;
    struct differential_result *result;
    struct live_host host;
    uint64_t random;
    uint32_t stamp;
    uint32_t region;
    struct differ_name names[NAMES];
};

static _Alignas(4096) unsigned char region_bytes[ITEMS_A_CALL * LIVE_BYTES_MAX];

static int wrong(struct differ *differ, const char *what, int rc, const char *why)
{
    (void)snprintf(differ->result->why, sizeof(differ->result->why), "%s: %s %s", what,
                   abode_strerror(rc), why);
    return rc < 0 ? rc : -EBADMSG;
}

static void digest_add(struct differ *differ, uint64_t value)
{
    uint64_t state = differ->result->digest ^ value;

    differ->result->digest = live_random(&state);
}

/* An answer that may be negative is part of the digest; these never may be. */
static int answered(struct differ *differ, const char *what, int rc)
{
    digest_add(differ, (uint64_t)(int64_t)rc);
    switch (-rc) {
    case EIO:
    case ABODE_ECORRUPT:
    case ENOTRECOVERABLE:
    case ENOSPC:
    case EROFS:
    case ABODE_EFULL:
    case EAGAIN:
        return wrong(differ, what, rc, "");
    default:
        return 0;
    }
}

static uint32_t below(struct differ *differ, uint32_t bound)
{
    return live_random_below(&differ->random, bound);
}

static int differ_open(struct differ *differ)
{
    const char *paths[] = {differ->plan->path};
    const uint32_t share = differ->plan->step_count < SHORT_STEPS ? 4 : 1;
    struct abode_region region = {.struct_size = sizeof(region),
                                  .node = -1,
                                  .base = region_bytes,
                                  .bytes = sizeof(region_bytes)};
    struct abode_config config;
    struct abode *runtime = NULL;
    int rc;

    abode_config_init(&config);
    config.log = live_log;
    config.flags = ABODE_CREATE;
    config.memory_bytes_max = MEMORY_BYTES / share;
    config.store_bytes_max = STORE_BYTES / share;
    config.segment_bytes = SEGMENT_BYTES / share;
    config.store_paths = paths;
    config.store_path_count = 1;
    config.session_count_max = 256;
    config.io = differ->plan->io;
    rc = abode_open(&config, &runtime);
    if (rc < 0) {
        return wrong(differ, "abode_open", rc, "");
    }
    rc = live_host_open(runtime, 0, &differ->host);
    rc = rc < 0 ? rc : abode_region_add(runtime, &region, &differ->region);
    return rc < 0 ? wrong(differ, "model, queue, region", rc, "") : 0;
}

static void text_copy(char ret[256], const char *text)
{
    (void)snprintf(ret, 256, "%s", text != NULL ? text : "");
}

static int facts_take(struct differ *differ)
{
    struct differential_result *result = differ->result;
    struct abode_support support = {.struct_size = sizeof(support)};
    int rc = abode_support_get(differ->host.runtime, &support);

    if (rc < 0) {
        return wrong(differ, "abode_support_get", rc, "");
    }
    result->engine = support.io_engine;
    result->engine_reason = support.io_engine_reason;
    result->fixed_buffers = support.fixed_buffers;
    result->fixed_buffers_reason = support.fixed_buffers_reason;
    result->direct_io = support.direct_io;
    result->direct_io_reason = support.direct_io_reason;
    result->node_binding = support.node_binding;
    result->node_binding_reason = support.node_binding_reason;
    text_copy(result->engine_text, support.io_engine_text);
    text_copy(result->fixed_buffers_text, support.fixed_buffers_text);
    text_copy(result->direct_io_text, support.direct_io_text);
    text_copy(result->node_binding_text, support.node_binding_text);
    return 0;
}

static int differ_close(struct differ *differ)
{
    int rc = abode_region_remove(differ->host.runtime, differ->region);

    rc = rc < 0 ? rc : live_host_close(&differ->host);
    return rc < 0 ? wrong(differ, "close", rc, "") : 0;
}

/* ---- sessions ---------------------------------------------------------------------------------- */

static int stat_add(struct differ *differ, const struct differ_name *name)
{
    struct abode_session_info info = {.struct_size = sizeof(info)};
    int rc = abode_session_stat(differ->host.runtime, name->session, &info);

    digest_add(differ, info.token_count);
    digest_add(differ, info.restore_point);
    digest_add(differ, info.bytes_state);
    digest_add(differ, info.row_count);
    return answered(differ, "stat", rc);
}

static int compare(struct differ *differ, const struct differ_name *name)
{
    char why[LIVE_WHY_MAX];
    int rc = live_compare(&differ->host, name->session, &name->state, why,
                          &differ->result->bytes_compared);

    return rc < 0 ? wrong(differ, "content", rc, why) : 0;
}

static int attach(struct differ *differ, struct differ_name *name)
{
    int rc = live_attach(&differ->host, name->session, -1, 0);

    name->attached = name->attached || rc == 0; /* -EBUSY: it is already */
    rc = answered(differ, "attach", rc);
    return rc < 0 || !name->attached ? rc : compare(differ, name);
}

static int detach(struct differ *differ, struct differ_name *name, uint32_t flags)
{
    int rc = live_detach(&differ->host, name->session, flags);

    if (rc == 0 && !(flags & ABODE_DETACH_KEEP)) {
        live_state_drop_tail(&name->state);
        name->attached = false;
    }
    return answered(differ, "detach", rc);
}

static int create(struct differ *differ, uint32_t index)
{
    struct differ_name *name = &differ->names[index];
    struct abode_key key;
    struct abode_session_opts opts = {.struct_size = sizeof(opts),
                                      .model = differ->host.model,
                                      .home_node = -1,
                                      .durability = ABODE_WRITTEN + below(differ, 2),
                                      .name = &key};
    int rc;

    live_key(index, &key);
    memset(name, 0, sizeof(*name));
    rc = abode_session_create(differ->host.runtime, &opts, &name->session);
    name->exists = name->attached = rc >= 0;
    return answered(differ, "create", rc);
}

static int append(struct differ *differ, struct differ_name *name)
{
    uint32_t count = 1 + below(differ, 50);
    int rc;

    differ->stamp++;
    if (name->state.token_count + count > LIVE_TOKENS_MAX) {
        return detach(differ, name, ABODE_DETACH_SPILL_NOW);
    }
    rc = live_append(&differ->host, name->session, &name->state, count, differ->stamp);
    if (rc >= 0 && below(differ, 4) != 0) {
        rc = live_snapshot(&differ->host, name->session, &name->state, differ->stamp);
    }
    return answered(differ, "append", rc);
}

static int fork_or_truncate(struct differ *differ, struct differ_name *name)
{
    uint32_t target = below(differ, NAMES);
    struct differ_name *child = &differ->names[target];
    uint32_t point = name->state.restore_point;
    struct abode_key key;
    int rc;

    if (point == 0) {
        return 0;
    }
    if (child->exists) {
        rc = abode_session_truncate(differ->host.runtime, name->session, point);
        if (rc >= 0) {
            live_state_drop_tail(&name->state);
        }
        return answered(differ, "truncate", rc);
    }
    live_key(target, &key);
    rc = abode_session_fork(differ->host.runtime, name->session, point, &key, &child->session);
    child->exists = child->attached = rc >= 0;
    child->state = name->state;
    live_state_drop_tail(&child->state);
    return answered(differ, "fork", rc);
}

static int session_delete(struct differ *differ, struct differ_name *name)
{
    struct abode_session stale = name->session;
    struct abode_session_info info = {.struct_size = sizeof(info)};
    int rc = answered(differ, "delete", abode_session_delete(differ->host.runtime, name->session));

    memset(name, 0, sizeof(*name));
    return rc < 0 ? rc
                  : answered(differ, "stale handle",
                             abode_session_stat(differ->host.runtime, stale, &info));
}

static int session_step(struct differ *differ, uint32_t index)
{
    struct differ_name *name = &differ->names[index];
    uint32_t dice = below(differ, 100);

    if (!name->exists) {
        return create(differ, index);
    }
    if (dice < 6) {
        return session_delete(differ, name);
    }
    if (dice < 12) { /* also where it is the wrong thing to do: errors are answers too */
        return dice < 9 ? attach(differ, name) : stat_add(differ, name);
    }
    if (!name->attached) {
        return attach(differ, name);
    }
    if (dice < 60) {
        return append(differ, name);
    }
    if (dice < 70) {
        return fork_or_truncate(differ, name);
    }
    if (dice < 78 && name->state.token_count == name->state.restore_point) {
        return detach(differ, name, ABODE_DETACH_KEEP);
    }
    return detach(differ, name, dice < 92 ? ABODE_DETACH_SPILL_NOW : 0);
}

/* ---- cache items --------------------------------------------------------------------------------- */

static int items_finish(struct differ *differ, const char *what, int rc, struct abode_op *op,
                        const struct abode_item *items, uint32_t count, uint32_t first)
{
    rc = rc < 0 ? rc : live_wait(&differ->host, op);
    if (answered(differ, what, rc) < 0) {
        return rc;
    }
    for (uint32_t index = 0; items != NULL && index < count; index++) {
        int status = answered(differ, what, items[index].status);

        if (status < 0) {
            return status;
        }
        if (items[index].status == 0 &&
            !live_item_is(first + index, region_bytes + items[index].offset, items[index].bytes)) {
            return wrong(differ, what, 0, "wrong bytes");
        }
    }
    return 0;
}

static int items_step(struct differ *differ)
{
    struct abode_item items[ITEMS_A_CALL] = {0};
    struct abode_key keys[ITEMS_A_CALL];
    struct abode_op op = {0};
    uint32_t count = 1 + below(differ, ITEMS_A_CALL);
    uint32_t first = below(differ, ITEMS - ITEMS_A_CALL);
    uint32_t dice = below(differ, 10);
    uint32_t model = differ->host.model;
    struct abode_queue *queue = differ->host.queue;

    memset(region_bytes, 0x5a, sizeof(region_bytes));
    for (uint32_t index = 0; index < count; index++) {
        live_key(1000000 + first + index, &items[index].key);
        keys[index] = items[index].key;
        items[index].region = differ->region;
        items[index].offset = (uint64_t)index * LIVE_BYTES_MAX;
        items[index].bytes = dice < 5 ? live_item_size(first + index) : LIVE_BYTES_MAX;
        if (dice < 5) {
            live_item_fill(first + index, region_bytes + items[index].offset);
        }
    }
    if (dice < 5) {
        return items_finish(differ, "put", abode_cache_put(queue, model, items, count, 0, &op), &op,
                            items, count, first);
    }
    if (dice < 8) {
        return items_finish(differ, "get", abode_cache_get(queue, model, items, count, &op), &op,
                            items, count, first);
    }
    if (dice < 9) {
        return answered(differ, "probe",
                        abode_cache_probe(differ->host.runtime, model, keys, count, NULL));
    }
    return items_finish(differ, "cache delete", abode_cache_delete(queue, model, keys, count, &op),
                        &op, NULL, 0, 0);
}

/* ---- the run ----------------------------------------------------------------------------------------- */

/* Close in good order and open again: what was detached is there; the rest is deleted first, since
 * what an attached session is owed at close depends on its last checkpoint. */
static int reopen(struct differ *differ)
{
    int rc = 0;

    for (uint32_t index = 0; index < NAMES && rc >= 0; index++) {
        if (differ->names[index].attached) {
            rc = detach(differ, &differ->names[index], 0);
        }
    }
    rc = rc < 0 ? rc : differ_close(differ);
    rc = rc < 0 ? rc : differ_open(differ);
    for (uint32_t index = 0; index < NAMES && rc >= 0; index++) {
        struct differ_name *name = &differ->names[index];
        struct abode_key key;

        live_key(index, &key);
        if (name->exists) {
            rc = abode_session_find(differ->host.runtime, &key, &name->session);
            rc = rc < 0 ? wrong(differ, "find after reopening", rc, "") : 0;
            rc = rc < 0 ? rc : attach(differ, name);
        }
    }
    return rc;
}

static int placement_count(struct differ *differ)
{
    for (uint32_t index = 0; index < NAMES; index++) {
        struct abode_placement placement = {.struct_size = sizeof(placement)};
        int rc;

        if (!differ->names[index].exists) {
            continue;
        }
        rc =
            abode_session_placement(differ->host.runtime, differ->names[index].session, &placement);
        if (rc < 0) {
            return wrong(differ, "abode_session_placement", rc, "");
        }
        for (uint32_t place = 0; place < placement.place_count; place++) {
            if (placement.places[place].tier == ABODE_TIER_MEMORY) {
                differ->result->places++;
                differ->result->places_verified += placement.places[place].verified;
            }
        }
    }
    return 0;
}

int differential_run(const struct differential_plan *plan, struct differential_result *ret)
{
    static struct differ differ; /* too large for a stack */
    const uint32_t reopen_steps = AB_MIN(REOPEN_STEPS, plan->step_count / 2 + 1);
    int rc;

    memset(ret, 0, sizeof(*ret));
    memset(&differ, 0, sizeof(differ));
    differ.plan = plan;
    differ.result = ret;
    differ.random = plan->seed;
    rc = differ_open(&differ);
    rc = rc < 0 ? rc : facts_take(&differ);
    for (uint32_t step = 1; step <= plan->step_count && rc >= 0; step++) {
        if (step % reopen_steps == 0) {
            rc = reopen(&differ);
        } else if (below(&differ, 6) == 0) {
            rc = items_step(&differ);
        } else {
            rc = session_step(&differ, below(&differ, NAMES));
        }
        ret->digests[(uint64_t)(step - 1) * 64 / plan->step_count] = (uint32_t)ret->digest;
    }
    rc = rc < 0 ? rc : placement_count(&differ);
    return rc < 0 ? rc : differ_close(&differ);
}
