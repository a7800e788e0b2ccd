/*
 * steps.c - see steps.h. One host thread, several ops in flight, each name in at most one.
 *
 * The rule for every step: write the version that the call may make real into the oracle, then
 * call; move the oracle's promise only when the op has come back with success.
 */
#include "crash/steps.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define STATS_STEPS 32u
#define DETACHES_TO_TIMEOUT 8u /* one in so many gets no time */

int worker_wrong(struct worker *worker, const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    (void)vsnprintf(worker->part->why, sizeof(worker->part->why), format, arguments);
    va_end(arguments);
    return -EBADMSG;
}

static uint32_t below(struct worker *worker, uint32_t bound)
{
    return live_random_below(&worker->random, bound);
}

/* What was asked for has not happened, and nothing is wrong with that. */
static bool is_refusal(const struct worker *worker, int rc)
{
    return rc == -ABODE_EFULL || rc == -EAGAIN ||
           (worker->plan->rough && (rc == -ENOSPC || rc == -EIO || rc == -EROFS)) ||
           (rc < 0 && worker->power != NULL && worker->power->excuses(worker->power->context, rc));
}

void worker_name_key(const struct worker *worker, uint32_t name, struct abode_key *ret)
{
    live_key(worker->number * ORACLE_NAMES + name, ret);
}

/* Key and bytes of an item follow from this. */
static uint32_t item_number(const struct worker *worker, uint32_t index)
{
    return WORKER_ITEM_FIRST + worker->number * ORACLE_ITEMS + index;
}

/* ---- stats: the workload must do what it is for -------------------------------------------------- */

int worker_stats_check(struct worker *worker)
{
    struct abode_stats stats = {.struct_size = sizeof(stats)};
    int rc = abode_stats_get(worker->host.runtime, &stats);

    if (rc < 0) {
        return worker_wrong(worker, "abode_stats_get: %s", abode_strerror(rc));
    }
    if (worker->power != NULL) { /* what was not promised may be damaged, and tells so */
        worker->stats_last = stats;
        return 0;
    }
    if (stats.sessions_dropped != 0 || stats.checksum_failures != 0 ||
        (stats.io_errors != 0 && !worker->plan->rough)) {
        return worker_wrong(
            worker, "%llu sessions dropped, %llu checksum failures, %llu I/O errors",
            (unsigned long long)stats.sessions_dropped, (unsigned long long)stats.checksum_failures,
            (unsigned long long)stats.io_errors);
    }
    if (worker->number > 0) {
        return 0; /* of the whole process: counted once */
    }
    worker->counts->blocks_evicted += stats.blocks_evicted - worker->stats_last.blocks_evicted;
    worker->counts->bytes_written += stats.bytes_written - worker->stats_last.bytes_written;
    worker->counts->store_bytes = stats.store_bytes_total;
    if (stats.store_bytes_live > worker->counts->live_max) {
        worker->counts->live_max = stats.store_bytes_live;
    }
    worker->stats_last = stats;
    return 0;
}

/* ---- finished ops ---------------------------------------------------------------------------------- */

/* Every byte of a living attached session. */
static int alive_compare(struct worker *worker, uint32_t index)
{
    struct worker_name *name = &worker->names[index];
    char why[LIVE_WHY_MAX];
    int rc = live_compare(&worker->host, name->session, &name->state, why,
                          &worker->counts->bytes_verified);

    return rc < 0
               ? worker_wrong(worker, "name %u while alive: %s %s", index, abode_strerror(rc), why)
               : 0;
}

const struct oracle_version *worker_version_find(struct worker *worker, uint32_t index,
                                                 uint64_t token_count, uint32_t oldest,
                                                 char why[LIVE_WHY_MAX])
{
    struct oracle_name *known = &worker->oracle->names[index];
    char other[LIVE_WHY_MAX];
    bool is_told = false;

    (void)snprintf(why, LIVE_WHY_MAX, "no version has %llu tokens",
                   (unsigned long long)token_count);
    for (uint32_t version = atomic_load(&known->count); version-- > oldest;) {
        const struct oracle_version *candidate = &known->versions[version];

        if (candidate->gone || candidate->state.token_count != token_count) {
            continue;
        }
        if (live_compare(&worker->host, worker->names[index].session, &candidate->state,
                         is_told ? other : why, &worker->counts->bytes_verified) == 0) {
            worker->counts->sessions_newer += version > oldest;
            return candidate;
        }
        is_told = true;
    }
    return NULL;
}

static int attach_finished(struct worker *worker, const struct worker_op *op)
{
    struct worker_name *name = &worker->names[op->name];
    int rc = op->op.status;

    if (is_refusal(worker, rc)) {
        worker->counts->refusals++;
        worker->attached_count--;
        return 0;
    }
    if (rc < 0) {
        return worker_wrong(worker, "attach of name %u: %s", op->name, abode_strerror(rc));
    }
    name->attached = true;
    oracle_note(worker->oracle, op->name, "attached");
    worker->counts->attaches++;
    return alive_compare(worker, op->name);
}

static int detach_finished(struct worker *worker, const struct worker_op *op)
{
    struct worker_name *name = &worker->names[op->name];
    struct oracle_name *known = &worker->oracle->names[op->name];

    if (op->kind == OP_DETACH) {
        live_state_drop_tail(&name->state);
    }
    /* in memory still; the next detach tries again */
    if (is_refusal(worker, op->op.status) || op->op.status == -ETIMEDOUT) {
        worker->counts->refusals++;
        oracle_note(worker->oracle, op->name, "detach refused: %d", op->op.status);
        return 0;
    }
    if (op->op.status < 0) {
        return worker_wrong(worker, "detach of name %u: %s", op->name,
                            abode_strerror(op->op.status));
    }
    worker->counts->detaches++;
    oracle_note(worker->oracle, op->name, "%s of version %u acknowledged, durability %u",
                op->kind == OP_KEEP ? "checkpoint" : "detach", op->version, known->durability);
    if (known->durability >= (worker->power != NULL ? ABODE_DURABLE : ABODE_WRITTEN)) {
        oracle_promise(known, op->version);
        worker->counts->promises++;
    }
    if (known->durability == ABODE_DURABLE) {
        oracle_promise_deletes(worker->oracle, op->tick);
    }
    return 0;
}

static uint32_t item_possible(struct worker *worker, uint32_t number)
{
    return atomic_load(&worker->oracle->items[number]);
}

/* The store has it, or has it not. On a device that fails, or is full, an item may be forgotten. */
static void item_settle(struct worker *worker, uint32_t number, bool is_there)
{
    atomic_store(&worker->oracle->items[number], !is_there ? ORACLE_ABSENT
                                                 : worker->plan->rough
                                                     ? ORACLE_PRESENT | ORACLE_ABSENT
                                                     : ORACLE_PRESENT);
}

static int item_got(struct worker *worker, const struct abode_item *item, uint32_t number)
{
    uint32_t possible = item_possible(worker, number);

    if (worker->power != NULL && item->status == -ABODE_ECORRUPT &&
        (possible & (ORACLE_ABSENT | ORACLE_PUT_AGAIN)) != 0) {
        worker->counts->items_damaged++;
        return 0;
    }
    if (worker->verifying && !worker->unsettled && (item->status == 0 || item->status == -ENOENT)) {
        item_settle(worker, number, item->status == 0);
    }
    if (item->status == -ENOENT && ((possible & ORACLE_ABSENT) || worker->power != NULL)) {
        worker->counts->items_left += (possible & ORACLE_ABSENT) == 0;
        return 0;
    }
    if (item->status == 0 && (possible & ORACLE_PRESENT)) {
        worker->counts->items_verified++;
        worker->counts->bytes_verified += item->bytes;
        return live_item_is(item_number(worker, number), worker->region_base + item->offset,
                            item->bytes)
                   ? 0
                   : worker_wrong(worker, "item %u has wrong bytes", number);
    }
    return worker_wrong(worker, "item %u: %s, but possible is%s%s", number,
                        item->status == 0 ? "there" : abode_strerror(item->status),
                        possible & ORACLE_ABSENT ? " absent" : "",
                        possible & ORACLE_PRESENT ? " present" : "");
}

void worker_events_take(struct worker *worker)
{
    struct abode_key left[ORACLE_ITEMS], key;
    uint64_t lost = 0;
    int count =
        abode_cache_events(worker->host.runtime, worker->host.model, left, ORACLE_ITEMS, &lost);

    for (uint32_t number = 0; number < worker->item_count; number++) {
        bool is_named = lost > 0;

        live_key(item_number(worker, number), &key);
        for (int event = 0; event < count; event++) {
            is_named |= memcmp(key.bytes, left[event].bytes, sizeof(key.bytes)) == 0;
        }
        if (is_named) {
            (void)atomic_fetch_or(&worker->oracle->items[number], ORACLE_ABSENT);
        }
    }
}

static void item_was_put(struct worker *worker, const struct worker_op *op, uint32_t number)
{
    if (worker->power == NULL || op->durability == ABODE_DURABLE) {
        item_settle(worker, number, true);
    }
    if (op->durability == ABODE_DURABLE) {
        oracle_item_durable(worker->oracle, number);
    }
    worker->counts->items_put++;
}

static int items_finished(struct worker *worker, const struct worker_op *op)
{
    worker->items_busy = false;
    if (worker->power != NULL) {
        worker_events_take(worker);
    }
    if (op->kind == OP_DELETE) {
        if (is_refusal(worker, op->op.status)) {
            worker->counts->refusals++;
            return 0;
        }
        if (op->op.status < 0) {
            return worker_wrong(worker, "cache delete: %s", abode_strerror(op->op.status));
        }
        for (uint32_t index = 0; index < op->item_count; index++) {
            if (worker->power == NULL) {
                item_settle(worker, op->numbers[index], false);
            }
        }
        return 0;
    }
    for (uint32_t index = 0; index < op->item_count; index++) {
        int status = op->items[index].status;

        if (op->kind == OP_GET && is_refusal(worker, status)) {
            worker->counts->refusals++;
        } else if (op->kind == OP_GET) {
            int rc = item_got(worker, &op->items[index], op->numbers[index]);

            if (rc < 0) {
                return rc;
            }
        } else if (status == 0) {
            item_was_put(worker, op, op->numbers[index]);
        } else if (!is_refusal(worker, status)) {
            return worker_wrong(worker, "put of item %u: %s", op->numbers[index],
                                abode_strerror(status));
        } else {
            worker->counts->refusals++;
        }
    }
    if (op->kind == OP_PUT && op->op.status == 0 && op->durability == ABODE_DURABLE) {
        oracle_promise_deletes(worker->oracle, op->tick);
    }
    return 0;
}

static int op_finished(struct worker *worker, struct worker_op *op)
{
    int rc;

    switch (op->kind) {
    case OP_ATTACH:
        worker->names[op->name].busy = false;
        rc = attach_finished(worker, op);
        break;
    case OP_DETACH:
    case OP_KEEP:
        worker->names[op->name].busy = false;
        rc = detach_finished(worker, op);
        break;
    case OP_PUT:
    case OP_GET:
    case OP_DELETE:
        rc = items_finished(worker, op);
        break;
    case OP_FREE:
    default:
        rc = worker_wrong(worker, "an op came back that was not started");
        break;
    }
    op->kind = OP_FREE;
    return rc;
}

int worker_ops_poll(struct worker *worker, int64_t timeout_ns)
{
    struct abode_op *done[WORKER_OPS_MAX];
    uint64_t end_ns = live_clock_ns() + (uint64_t)timeout_ns;
    int count;

    do { /* abode's clock may jump: then it returns early */
        count = abode_poll(worker->host.queue, done, WORKER_OPS_MAX, timeout_ns);
    } while (count == 0 && timeout_ns > 0 && live_clock_ns() < end_ns);
    if (count < 0) {
        return worker_wrong(worker, "abode_poll: %s", abode_strerror(count));
    }
    if (count == 0 && timeout_ns > 0) {
        return worker_wrong(worker, "no op came back in %lld s",
                            (long long)(timeout_ns / 1000000000));
    }
    for (int index = 0; index < count; index++) {
        int rc = op_finished(worker, (struct worker_op *)done[index]->user_data);

        if (rc < 0) {
            return rc;
        }
    }
    return 0;
}

static struct worker_op *op_new(struct worker *worker, enum op_kind kind)
{
    for (uint32_t index = 0; index < WORKER_OPS_MAX; index++) {
        struct worker_op *op = &worker->ops[index];

        if (op->kind == OP_FREE) {
            memset(op, 0, sizeof(*op));
            op->kind = kind;
            op->op.user_data = op;
            op->tick = ++worker->oracle->tick;
            return op;
        }
    }
    return NULL;
}

/* An op that was refused at once never started. */
static int op_started(struct worker *worker, struct worker_op *op, int rc, const char *what)
{
    if (rc >= 0) {
        return 0;
    }
    op->kind = OP_FREE;
    if (is_refusal(worker, rc)) { /* the name stays busy: nothing more is done with it */
        return 0;
    }
    return worker_wrong(worker, "%s of name %u is refused: %s", what, op->name, abode_strerror(rc));
}

/* ---- steps of a session -------------------------------------------------------------------------- */

static int detach_start(struct worker *worker, uint32_t index, uint32_t flags)
{
    struct worker_name *name = &worker->names[index];
    bool keep = flags & ABODE_DETACH_KEEP;
    struct worker_op *op = op_new(worker, keep ? OP_KEEP : OP_DETACH);

    if (op == NULL) {
        return 0;
    }
    op->name = index;
    op->version = atomic_load(&worker->oracle->names[index].count) - 1;
    op->op.timeout_ns = below(worker, DETACHES_TO_TIMEOUT) == 0; /* dirty, detached, not recorded */
    name->busy = true;
    oracle_note(worker->oracle, index, "detach flags %u of %u tokens, restore point %u", flags,
                name->state.token_count, name->state.restore_point);
    if (!keep) {
        name->attached = false;
        worker->attached_count--;
    }
    return op_started(worker, op, abode_detach(worker->host.queue, name->session, flags, &op->op),
                      "detach");
}

static int attach_start(struct worker *worker, uint32_t index)
{
    struct worker_op *op;

    if (worker->attached_count >= worker->attached_max) {
        return 0;
    }
    op = op_new(worker, OP_ATTACH);
    if (op == NULL) {
        return 0;
    }
    op->name = index;
    worker->names[index].busy = true;
    worker->attached_count++;
    return op_started(
        worker, op, abode_attach(worker->host.queue, worker->names[index].session, -1, 0, &op->op),
        "attach");
}

static int create_step(struct worker *worker, uint32_t index)
{
    static const uint32_t durabilities[] = {ABODE_MEM, ABODE_WRITTEN, ABODE_WRITTEN, ABODE_DURABLE};
    struct worker_name *name = &worker->names[index];
    struct oracle_name *known = &worker->oracle->names[index];
    struct abode_key key;
    struct abode_session_opts opts = {.struct_size = sizeof(opts),
                                      .model = worker->host.model,
                                      .home_node = -1,
                                      .durability = durabilities[below(worker, 4)],
                                      .name = &key};
    int rc;

    if (worker->attached_count >= worker->attached_max) {
        return 0;
    }
    worker_name_key(worker, index, &key);
    memset(name, 0, sizeof(*name));
    known->durability = opts.durability;
    (void)oracle_push(known, &name->state);
    rc = abode_session_create(worker->host.runtime, &opts, &name->session);
    if (is_refusal(worker, rc)) {
        oracle_pop(known);
        worker->counts->refusals++;
        return 0;
    }
    if (rc < 0) {
        return worker_wrong(worker, "create of name %u: %s", index, abode_strerror(rc));
    }
    oracle_note(worker->oracle, index, "created %llx, durability %u",
                (unsigned long long)name->session.raw, opts.durability);
    name->exists = name->attached = true;
    worker->attached_count++;
    return 0;
}

static int delete_step(struct worker *worker, uint32_t index)
{
    struct worker_name *name = &worker->names[index];
    struct oracle_name *known = &worker->oracle->names[index];
    uint32_t version = oracle_push(known, NULL);
    int rc = abode_session_delete(worker->host.runtime, name->session);

    if (rc < 0) {
        return worker_wrong(worker, "delete of name %u: %s", index, abode_strerror(rc));
    }
    oracle_deleted(known, version, ++worker->oracle->tick);
    worker->counts->deletes++;
    oracle_note(worker->oracle, index, "deleted");
    worker->attached_count -= name->attached;
    memset(name, 0, sizeof(*name));
    return 0;
}

/* Tokens, and most times a restore point behind them. */
static int append_step(struct worker *worker, uint32_t index)
{
    struct worker_name *name = &worker->names[index];
    uint32_t room = LIVE_TOKENS_MAX - name->state.token_count;
    uint32_t token_count = 1 + below(worker, 48);
    uint32_t stamp = ++worker->oracle->stamp_last;
    struct live_state before = name->state, next;
    int rc;

    if (token_count > room) {
        return detach_start(worker, index, 0);
    }
    rc = live_append(&worker->host, name->session, &name->state, token_count, stamp);
    if (rc == 0 && below(worker, 5) != 0) {
        next = name->state;
        live_state_snapshot(&next, stamp);
        (void)oracle_push(&worker->oracle->names[index], &next);
        rc = live_snapshot(&worker->host, name->session, &name->state, stamp);
        if (rc == 0) {
            oracle_note(worker->oracle, index, "%u tokens, snapshot %u", next.token_count, stamp);
            live_state_drop_tail(&before);
            name->older = before;
            name->has_older = before.restore_point > 0;
        } else if (is_refusal(worker, rc)) {
            oracle_pop(&worker->oracle->names[index]);
        }
    }
    if (is_refusal(worker, rc)) {
        worker->counts->refusals++;
        return detach_start(worker, index, 0);
    }
    return rc < 0 ? worker_wrong(worker, "append to name %u: %s", index, abode_strerror(rc)) : 0;
}

static int truncate_step(struct worker *worker, uint32_t index)
{
    struct worker_name *name = &worker->names[index];
    struct live_state next = name->state;
    bool to_older = name->has_older && below(worker, 3) != 0;
    int rc;

    if (to_older) {
        next = name->older;
        (void)oracle_push(&worker->oracle->names[index], &next);
    } else {
        live_state_drop_tail(&next);
    }
    if (next.restore_point == 0) {
        return 0;
    }
    rc = live_truncate(&worker->host, name->session, next.token_count);
    if (is_refusal(worker, rc)) { /* the older state finds no frames */
        if (to_older) {
            oracle_pop(&worker->oracle->names[index]);
        }
        worker->counts->refusals++;
        return 0;
    }
    if (rc < 0) {
        return worker_wrong(worker, "truncate of name %u from %u to %u tokens: %s", index,
                            name->state.token_count, next.token_count, abode_strerror(rc));
    }
    if (next.token_count == name->older.token_count) {
        name->has_older = false;
    }
    name->state = next;
    oracle_note(worker->oracle, index, "truncated to %u tokens", next.token_count);
    worker->counts->truncates++;
    return alive_compare(worker, index);
}

static int fork_step(struct worker *worker, uint32_t index)
{
    struct worker_name *parent = &worker->names[index];
    uint32_t target = below(worker, worker->name_count);
    struct worker_name *child = &worker->names[target];
    struct oracle_name *known = &worker->oracle->names[target];
    struct abode_key key;
    struct abode_session session;
    struct live_state state = parent->state;
    int rc;

    live_state_drop_tail(&state);
    if (child->exists || oracle_name_is_full(known) || state.restore_point == 0 ||
        worker->attached_count >= worker->attached_max) {
        return 0;
    }
    worker_name_key(worker, target, &key);
    known->durability = worker->oracle->names[index].durability;
    (void)oracle_push(known, &state);
    rc = live_fork(&worker->host, parent->session, state.token_count, &key, &session);
    if (is_refusal(worker, rc)) {
        oracle_pop(known);
        worker->counts->refusals++;
        return 0;
    }
    if (rc < 0) {
        return worker_wrong(worker, "fork of name %u at %u of %u tokens: %s", index,
                            state.token_count, parent->state.token_count, abode_strerror(rc));
    }
    *child =
        (struct worker_name){.exists = true, .attached = true, .session = session, .state = state};
    oracle_note(worker->oracle, target, "forked from %u at %u tokens", index, state.token_count);
    oracle_note(worker->oracle, index, "fork %u made at %u tokens", target, state.token_count);
    worker->attached_count++;
    worker->counts->forks++;
    return alive_compare(worker, target);
}

static int attached_step(struct worker *worker, uint32_t index)
{
    const struct worker_name *name = &worker->names[index];
    uint32_t dice = below(worker, 100);

    if (dice < 45) {
        return append_step(worker, index);
    }
    if (dice < 52) {
        return truncate_step(worker, index);
    }
    if (dice < 58) {
        return fork_step(worker, index);
    }
    if (dice < 61) {
        return delete_step(worker, index);
    }
    if (dice < 70 && name->state.token_count == name->state.restore_point) {
        return detach_start(worker, index, ABODE_DETACH_KEEP);
    }
    return detach_start(worker, index, dice < 82 ? ABODE_DETACH_SPILL_NOW : 0);
}

static int session_step(struct worker *worker, uint32_t index)
{
    const struct worker_name *name = &worker->names[index];

    if (worker->plan->is_told && !name->busy) {
        oracle_name_compact(&worker->oracle->names[index]);
    }
    if (name->busy || oracle_name_is_full(&worker->oracle->names[index])) {
        return 0;
    }
    if (!name->exists) {
        return create_step(worker, index);
    }
    if (name->attached) {
        return attached_step(worker, index);
    }
    return below(worker, 12) == 0 ? delete_step(worker, index) : attach_start(worker, index);
}

/* ---- steps of the cache face ------------------------------------------------------------------------ */

static void item_prepare(struct worker *worker, struct worker_op *op, uint32_t slot,
                         uint32_t number)
{
    struct abode_item *item = &op->items[slot];

    item->region = worker->region;
    item->offset = (uint64_t)slot * LIVE_BYTES_MAX;
    item->bytes = op->kind == OP_PUT ? live_item_size(item_number(worker, number)) : LIVE_BYTES_MAX;
    op->numbers[slot] = number;
    live_key(item_number(worker, number), &item->key);
    op->keys[slot] = item->key;
    if (op->kind == OP_PUT) {
        live_item_fill(item_number(worker, number), worker->region_base + item->offset);
        oracle_item_maybe(worker->oracle, number,
                          ORACLE_PRESENT | (worker->power != NULL ? ORACLE_PUT_AGAIN : 0u));
    } else if (op->kind == OP_DELETE) {
        oracle_item_maybe(worker->oracle, number, ORACLE_ABSENT);
    } else {
        memset(worker->region_base + item->offset, 0x5a, LIVE_BYTES_MAX);
    }
}

int worker_items_start(struct worker *worker, enum op_kind kind, uint32_t first, uint32_t count)
{
    struct worker_op *op = worker->items_busy ? NULL : op_new(worker, kind);
    int rc;

    if (op == NULL) {
        return 0;
    }
    worker->items_busy = true;
    const bool has_power_loss = worker->power != NULL || worker->plan->is_told;
    op->durability = has_power_loss && kind == OP_PUT && below(worker, 2) == 0
                         ? ABODE_DURABLE
                         : ABODE_DURABILITY_DEFAULT;
    op->item_count = count;
    for (uint32_t slot = 0; slot < count; slot++) {
        item_prepare(worker, op, slot, (first + slot) % worker->item_count);
    }
    if (kind == OP_PUT) {
        rc = abode_cache_put(worker->host.queue, worker->host.model, op->items, count,
                             op->durability, &op->op);
    } else if (kind == OP_GET) {
        rc = abode_cache_get(worker->host.queue, worker->host.model, op->items, count, &op->op);
    } else {
        rc = abode_cache_delete(worker->host.queue, worker->host.model, op->keys, count, &op->op);
    }
    return op_started(worker, op, rc, "cache op");
}

static int items_step(struct worker *worker)
{
    uint32_t dice = below(worker, 10);

    return worker_items_start(worker,
                              dice < 5   ? OP_PUT
                              : dice < 8 ? OP_GET
                                         : OP_DELETE,
                              below(worker, worker->item_count),
                              1 + below(worker, WORKER_ITEMS_A_CALL));
}

/* The host's process ends or forks, as it may at any time. */
static int process_step(struct worker *worker, uint64_t step)
{
    if (step == worker->plan->exit_step) {
        exit(WORKER_EXIT); /* with all that it runs: other threads, handlers */
    }
    if (worker->plan->fork_every > 0 && step % worker->plan->fork_every == 0) {
        return worker_fork(worker);
    }
    return 0;
}

int worker_work(struct worker *worker)
{
    for (uint64_t step = 1;
         worker->power == NULL || !worker->power->is_over(worker->power->context); step++) {
        bool is_full = abode_queue_pending(worker->host.queue) >= WORKER_OPS_MAX;
        int rc = process_step(worker, step);

        rc = rc < 0 ? rc : worker_ops_poll(worker, is_full ? WORKER_POLL_NS : 0);

        if (rc == 0 && !is_full) {
            rc = below(worker, 8) == 0 ? items_step(worker)
                                       : session_step(worker, below(worker, worker->name_count));
        }
        if (rc == 0 && step % STATS_STEPS == 0) {
            rc = worker_stats_check(worker);
        }
        if (rc < 0) {
            return rc;
        }
    }
    return 0;
}
