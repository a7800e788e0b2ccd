/*
 * llama_session.c - the session behind a name: found, attached, cut, its order of cells. Fork,
 * truncate and delete, which need nothing of llama.cpp.
 */
#include "llama_bridge.h"

#include <errno.h>
#include <string.h>

int ab_llama_session_find(struct abode_llama *bridge, struct abode_llama_name name,
                          struct abode_session *ret)
{
    struct abode_key key;
    ab_llama_session_key(bridge->tag, name, &key);
    int status = abode_session_find(bridge->runtime, &key, ret);
    if (status == 0 && bridge->leaving.under_way && ret->raw == bridge->leaving.session.raw) {
        ab_llama_leaving_settle(bridge);
        status = abode_session_find(bridge->runtime, &key, ret); /* it may be gone */
    }
    return status;
}

int ab_llama_session_tokens(struct abode_llama *bridge, struct abode_session session,
                            uint32_t *ret_token_count)
{
    struct abode_session_info info = {.struct_size = sizeof(info)};
    int status = abode_session_stat(bridge->runtime, session, &info);
    if (status == 0) {
        *ret_token_count = (uint32_t)info.token_count;
    }
    return status;
}

int ab_llama_session_attach(struct abode_llama *bridge, struct abode_session session,
                            uint32_t *ret_token_count)
{
    struct abode_op op = {0};
    uint32_t flags = bridge->order_place == AB_LLAMA_ORDER_NOTE ? ABODE_ATTACH_PREFIX_OK : 0;
    int status = ab_llama_finish(bridge, &op, abode_attach(bridge->queue, session, -1, flags, &op));
    return ab_llama_session_attached(bridge, session, status, ret_token_count);
}

int ab_llama_session_attached(struct abode_llama *bridge, struct abode_session session, int status,
                              uint32_t *ret_token_count)
{
    if (status == -ABODE_EPARTIAL) {
        (void)ab_llama_because(bridge, 0, "part of the stored state is damaged");
        status = 0;
    }
    return status < 0 ? status : ab_llama_session_tokens(bridge, session, ret_token_count);
}

int ab_llama_session_detach(struct abode_llama *bridge, struct abode_session session)
{
    struct abode_op op = {0};
    return ab_llama_finish(bridge, &op, abode_detach(bridge->queue, session, 0, &op));
}

int ab_llama_session_cut(struct abode_llama *bridge, struct abode_session session,
                         uint32_t token_count)
{
    uint32_t tries = 0;
    int status;
    do {
        status = abode_session_truncate(bridge->runtime, session, token_count);
    } while (status == -EAGAIN && ab_llama_pause(&tries));
    return status;
}

int ab_llama_state_reserve(struct abode_llama *bridge, struct abode_session session,
                           uint32_t component, size_t size, void **ret_bytes)
{
    uint32_t tries = 0;
    int status;
    do {
        status = abode_snapshot_reserve(bridge->runtime, session, component, size, ret_bytes);
    } while (status == -EAGAIN && ab_llama_pause(&tries));
    return status;
}

/* ---- order -------------------------------------------------------------------------------------- */

uint32_t ab_llama_attentions(const struct abode_llama *bridge)
{
    uint32_t count = bridge->layout.section_count;
    while (count > 0 && bridge->layout.shapes[count - 1].kind != AB_BLOB_ATTENTION) {
        count--;
    }
    return count;
}

struct ab_blob_run *ab_llama_runs(struct abode_llama *bridge, uint32_t section)
{
    return bridge->order->runs + (section == 0 ? 0 : bridge->order->run_counts[0]);
}

static size_t order_size(const struct ab_llama_order *order)
{
    return sizeof(*order) +
           ((size_t)order->run_counts[0] + order->run_counts[1]) * sizeof(order->runs[0]);
}

static bool order_is_sound(const struct ab_llama_order *order, size_t size)
{
    return size >= sizeof(*order) && order->magic == AB_LLAMA_ORDER_MAGIC &&
           order->run_counts[0] <= AB_LLAMA_RUNS_MAX && order->run_counts[1] <= AB_LLAMA_RUNS_MAX &&
           order_size(order) == size && order->point_count <= ABODE_LLAMA_POINTS;
}

/* Cells of tokens that are not there any more leave the list; the others keep their order. */
static void order_cut(struct abode_llama *bridge, uint32_t token_count)
{
    struct ab_llama_order *order = bridge->order;
    uint32_t kept = 0;
    for (uint32_t i = 0; i < order->run_counts[0]; i++) {
        struct ab_blob_run run = order->runs[i];
        if (run.position < token_count) {
            uint32_t left = token_count - run.position;
            run.count = run.count < left ? run.count : left;
            order->runs[kept++] = run;
        }
    }
    order->run_counts[0] = kept;
    order->token_count = token_count;
}

int ab_llama_order_get(struct abode_llama *bridge, struct abode_session session,
                       uint32_t token_count)
{
    size_t size = 0;
    if (bridge->order_place == AB_LLAMA_ORDER_NOTE) {
        int got =
            abode_session_note_get(bridge->runtime, session, bridge->order, AB_LLAMA_ORDER_MAX);
        if (got < 0) {
            return got;
        }
        size = (size_t)got;
    } else {
        const void *bytes;
        uint64_t at;
        int status = abode_snapshot_get(bridge->runtime, session, bridge->order_component, &bytes,
                                        &size, &at);
        if (status < 0) {
            return status;
        }
        if (size > AB_LLAMA_ORDER_MAX || at != token_count) {
            return -EBADMSG;
        }
        memcpy(bridge->order, bytes, size);
    }
    if (!order_is_sound(bridge->order, size) || bridge->order->token_count < token_count) {
        return -EBADMSG;
    }
    if (bridge->order->token_count > token_count) { /* a note speaks of the longest it was */
        order_cut(bridge, token_count);
    }
    return 0;
}

int ab_llama_order_set(struct abode_llama *bridge, struct abode_session session)
{
    size_t size = order_size(bridge->order);
    if (bridge->order_place == AB_LLAMA_ORDER_NOTE) {
        return abode_session_note_set(bridge->runtime, session, bridge->order, size);
    }
    void *bytes;
    int status = ab_llama_state_reserve(bridge, session, bridge->order_component, size, &bytes);
    if (status < 0) {
        return status;
    }
    memcpy(bytes, bridge->order, size);
    return abode_snapshot_commit(bridge->runtime, session, bridge->order_component);
}

/* ---- calls that stay inside abode --------------------------------------------------------------- */

/* -ENOENT with the reason of the miss. */
static int named_find(struct abode_llama *bridge, struct abode_llama_name name,
                      struct abode_session *ret)
{
    bridge->reason[0] = 0;
    const int status = ab_llama_session_find(bridge, name, ret);
    if (status == -ENOENT) {
        ab_llama_miss_reason(bridge, name);
    }
    return status;
}

int abode_llama_tokens(struct abode_llama *bridge, struct abode_llama_name name)
{
    struct abode_session session;
    uint32_t count = 0;
    int status = named_find(bridge, name, &session);
    if (status == -ENOENT) {
        return status;
    }
    status = status < 0 ? status : ab_llama_session_tokens(bridge, session, &count);
    return status < 0 ? ab_llama_because(bridge, status, "%s", abode_strerror(status)) : (int)count;
}

static int fork_attached(struct abode_llama *bridge, struct abode_session parent,
                         uint32_t token_count, struct abode_llama_name child)
{
    struct abode_key key;
    struct abode_session session;
    uint32_t tries = 0;
    int status;
    ab_llama_session_key(bridge->tag, child, &key);
    do {
        status = abode_session_fork(bridge->runtime, parent, token_count, &key, &session);
    } while ((status == -EAGAIN && ab_llama_pause(&tries)) ||
             ab_llama_leaving_made_room(bridge, status));
    if (status < 0) {
        return status;
    }
    if (bridge->order_place == AB_LLAMA_ORDER_NOTE) {
        status = ab_llama_order_get(bridge, parent, token_count);
        status = status < 0 ? status : ab_llama_order_set(bridge, session);
    }
    int left = ab_llama_session_detach(bridge, session);
    status = status < 0 ? status : left;
    if (status < 0) {
        (void)!abode_session_delete(bridge->runtime, session); /* no child, or a whole one */
    }
    return status;
}

/* The session of that name, attached meanwhile, is cut there, or forked if there is a child. */
static int at_token(struct abode_llama *bridge, struct abode_llama_name name, uint32_t token_count,
                    const struct abode_llama_name *child)
{
    const char *what = child != NULL ? "fork" : "truncate";
    struct abode_session session;
    uint32_t count = 0;
    int status = named_find(bridge, name, &session);
    if (status == -ENOENT) {
        return status;
    }
    status = status < 0 ? status : ab_llama_session_attach(bridge, session, &count);
    if (ab_llama_leaving_made_room(bridge, status)) {
        status = ab_llama_session_attach(bridge, session, &count);
    }
    if (status < 0) {
        return ab_llama_because(bridge, status, "%s", abode_strerror(status));
    }
    if (token_count == 0 || token_count > count) {
        status = -EINVAL;
    } else if (child != NULL) {
        status = fork_attached(bridge, session, token_count, *child);
    } else {
        status = ab_llama_session_cut(bridge, session, token_count);
    }
    const int left = ab_llama_session_detach(bridge, session);
    status = status < 0 ? status : left;
    return status < 0 ? ab_llama_because(bridge, status, "%s at token %u of %u: %s", what,
                                         token_count, count, abode_strerror(status))
                      : 0;
}

int abode_llama_fork(struct abode_llama *bridge, struct abode_llama_name name, uint32_t token_count,
                     struct abode_llama_name child)
{
    return at_token(bridge, name, token_count, &child);
}

int abode_llama_truncate(struct abode_llama *bridge, struct abode_llama_name name,
                         uint32_t token_count)
{
    return at_token(bridge, name, token_count, NULL);
}

int abode_llama_delete(struct abode_llama *bridge, struct abode_llama_name name)
{
    struct abode_session session;
    const int status = named_find(bridge, name, &session);
    return status < 0 ? status : abode_session_delete(bridge->runtime, session);
}
