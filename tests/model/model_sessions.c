/*
 * model_sessions.c - the session face against the reference: each operation makes one call of
 * abode.h, or a few, and does the same to the reference.
 */
#include <string.h>

#include "world.h"

#define TRIES 20000 /* naps of 0.1 ms while frames are being freed */
#define FLUSH_NS (30ll * 1000 * 1000 * 1000)

static uint64_t token_salt(uint32_t token, uint32_t position, uint32_t component, uint32_t plane)
{
    return ((uint64_t)token << 24) ^ ((uint64_t)position << 8) ^ (component * 4 + plane);
}

static uint32_t token_bytes(uint32_t component)
{
    return component == 0 ? PAGED_BYTES / 2 : WINDOW_BYTES;
}

static size_t state_bytes(uint32_t component, uint32_t salt)
{
    return component == STATE ? STATE_BYTES : 1 + salt % 5000;
}

static bool has_snapshots(const struct reference *session)
{
    return session->model == 0;
}

static uint32_t number_of(const struct reference *session)
{
    return (uint32_t)(session - world.sessions) + 1000;
}

static void name_of(const struct reference *session, struct abode_key *ret)
{
    uint32_t number = number_of(session);
    abode_key_from_bytes(&number, sizeof(number), ret);
}

static bool is_whole(const struct salts *salts)
{
    return salts->of[0] != 0 && salts->of[1] != 0;
}

static uint32_t restore_point(const struct reference *session)
{
    return has_snapshots(session) ? session->point : session->count;
}

/* tokens from `at` on are forgotten, and restore points behind it */
static void cut(struct reference *session, uint32_t at)
{
    session->count = at;
    memset(&session->points[at + 1], 0, (TOKENS_MAX - at) * sizeof(session->points[0]));
    if (session->point > at) {
        session->point = session->previous > at ? 0 : session->previous;
        session->previous = 0;
    }
}

/* ---- checks ---- */

static void check_rows(const struct reference *session, uint32_t component)
{
    struct abode_view view;
    EXPECT_STATUS(abode_session_view(world.runtime, session->handle, component, &view), 0);
    EXPECT(view.token_count == session->count);
    uint32_t first = 0;
    if (component == 1 && session->count > WINDOW_TOKENS) {
        first = session->count - WINDOW_TOKENS;
    }
    for (uint32_t t = first; t < session->count; t++) {
        EXPECT(view.frames[t / BLOCK_TOKENS] != ABODE_FRAME_NONE);
        for (uint32_t p = 0; p < view.plane_count; p++) {
            size_t bytes = token_bytes(component);
            char where[96];
            (void)snprintf(where, sizeof(where),
                           "token %u of %u, session %u, component %u, plane %u", t, session->count,
                           number_of(session), component, p);
            model_expect_bytes(abode_view_plane(&view, t / BLOCK_TOKENS, p) +
                                   t % BLOCK_TOKENS * bytes,
                               bytes, token_salt(session->tokens[t], t, component, p), where);
        }
    }
}

static void check_session(const struct reference *session)
{
    check_rows(session, 0);
    if (!has_snapshots(session)) {
        return;
    }
    check_rows(session, 1);
    for (uint32_t c = STATE; c <= BYTES; c++) {
        const void *bytes;
        size_t size;
        uint64_t at;
        int expected = session->point > 0 ? 0 : -ENOENT;
        EXPECT_STATUS(abode_snapshot_get(world.runtime, session->handle, c, &bytes, &size, &at),
                      expected);
        if (expected == 0) {
            uint32_t salt = session->points[session->point].of[c - STATE];
            EXPECT(at == session->point);
            EXPECT(size == state_bytes(c, salt));
            model_expect_bytes(bytes, size, salt + c, "a snapshot");
        }
    }
}

/* A session that was advised as ended may have given way in a full store. */
static bool is_there(struct reference *session)
{
    struct abode_session_info info;
    if (session->exists && session->ended &&
        abode_session_stat(world.runtime, session->handle, &info) == -ABODE_ESTALE) {
        session->exists = false;
    }
    return session->exists;
}

static struct reference *pick(bool attached)
{
    for (uint32_t i = 0; i < 8; i++) {
        struct reference *session = &world.sessions[model_below(SESSIONS)];
        if (session->attached == attached && !session->busy && is_there(session)) {
            return session;
        }
    }
    return NULL;
}

static struct reference *free_place(void)
{
    for (uint32_t i = 0; i < SESSIONS; i++) {
        if (!is_there(&world.sessions[i])) {
            return &world.sessions[i];
        }
    }
    return NULL;
}

/* ---- create, find, fork ---- */

static struct abode_session_opts opts_of(const struct reference *session,
                                         const struct abode_key *name)
{
    return (struct abode_session_opts){.struct_size = sizeof(struct abode_session_opts),
                                       .model = world.models[session->model],
                                       .home_node = -1,
                                       .durability = session->durability,
                                       .name = session->named ? name : NULL,
                                       .tenant = session->tenant};
}

static struct reference *place_make(struct abode_key *ret_name)
{
    struct reference *session = free_place();
    if (session != NULL) {
        memset(session, 0, sizeof(*session));
        session->named = model_below(4) != 0;
        session->model = model_below(3) == 0;
        session->tenant = model_below(TENANTS);
        session->durability = 1 + model_below(3);
        name_of(session, ret_name);
    }
    return session;
}

void model_create(void)
{
    struct abode_key name;
    struct reference *session = place_make(&name);
    if (session == NULL) {
        return;
    }
    struct abode_session_opts opts = opts_of(session, &name);
    EXPECT_STATUS(abode_session_create(world.runtime, &opts, &session->handle), 0);
    session->exists = true;
    session->attached = true;
    if (session->named) {
        struct abode_session other;
        EXPECT_STATUS(abode_session_create(world.runtime, &opts, &other), -EEXIST);
    }
}

/* keys of the rows that an append fills: a chain over the session's tokens */
static void row_key(const struct reference *session, uint32_t row, struct abode_key *ret)
{
    uint8_t tag[32] = {(uint8_t)session->model};
    abode_key_root(tag, &session->tenant, sizeof(session->tenant), NULL, 0, ret);
    for (uint32_t r = 0; r <= row; r++) {
        struct abode_key parent = *ret;
        abode_key_next(&parent, session->tokens + r * BLOCK_TOKENS, BLOCK_TOKENS, ret);
    }
}

/* Rows that another session has, or had: as many as abode holds, with the bytes of those tokens. */
void model_create_from_prefix(void)
{
    struct abode_key name, keys[TOKENS_MAX / BLOCK_TOKENS];
    const struct reference *like = &world.sessions[model_below(SESSIONS)];
    uint32_t rows = like->count / BLOCK_TOKENS;
    struct reference *session = rows == 0 ? NULL : place_make(&name);
    if (session == NULL || session == like) {
        return;
    }
    session->model = like->model;
    session->tenant = like->tenant;
    for (uint32_t r = 0; r < rows; r++) {
        row_key(like, r, &keys[r]);
    }
    struct abode_session_opts opts = opts_of(session, &name);
    opts.prefix_keys = keys;
    opts.prefix_key_count = rows;
    EXPECT_STATUS(abode_session_create(world.runtime, &opts, &session->handle), 0);
    struct abode_session_info info;
    EXPECT_STATUS(abode_session_stat(world.runtime, session->handle, &info), 0);
    EXPECT(info.token_count % BLOCK_TOKENS == 0 && info.token_count <= rows * BLOCK_TOKENS);
    EXPECT(info.token_count == 0 || !has_snapshots(session));
    EXPECT(info.attached == (info.token_count == 0));
    session->exists = true;
    session->attached = info.attached != 0;
    session->count = (uint32_t)info.token_count;
    memcpy(session->tokens, like->tokens, session->count * sizeof(session->tokens[0]));
    world.prefixes += session->count > 0;
}

void model_find(void)
{
    const struct reference *session = &world.sessions[model_below(SESSIONS)];
    struct abode_key name;
    struct abode_session found;
    name_of(session, &name);
    if (!session->exists || !session->named) {
        EXPECT_STATUS(abode_session_find(world.runtime, &name, &found), -ENOENT);
    } else if (!session->ended) {
        EXPECT_STATUS(abode_session_find(world.runtime, &name, &found), 0);
        EXPECT(found.raw == session->handle.raw);
    }
}

void model_fork(void)
{
    struct reference *parent = pick(true), *child = free_place();
    if (parent == NULL || child == NULL) {
        return;
    }
    uint32_t at = restore_point(parent);
    if (!has_snapshots(parent) && model_below(2) == 0 && parent->count > 0) {
        at = model_below(parent->count + 1);
    }
    bool older = has_snapshots(parent) && parent->previous > 0 && model_below(4) == 0;
    at = older ? parent->previous : at;
    struct abode_key name;
    name_of(child, &name);
    bool named = model_below(2) == 0;
    struct abode_session handle;
    int status =
        abode_session_fork(world.runtime, parent->handle, at, named ? &name : NULL, &handle);
    if (status == -EAGAIN || status == -ABODE_EFULL || (older && status == -EINVAL)) {
        return; /* EINVAL: the last attach did not bring that state back */
    }
    if (status != 0) {
        FAIL("fork at %u of %u: %s", at, parent->count, abode_strerror(status));
    }
    *child = *parent;
    child->handle = handle;
    child->named = named;
    child->ended = false;
    child->ended_stored = false;
    cut(child, at);
    child->point = has_snapshots(parent) ? at : 0;
    child->previous = 0;
    child->note_size = 0;
    memset(&child->stored, 0, sizeof(child->stored));
    check_session(child);
}

/* ---- append, snapshots ---- */

static void write_spans(const struct reference *session, const struct abode_span *spans, int count)
{
    for (int i = 0; i < count; i++) {
        const struct abode_span *span = &spans[i];
        uint32_t planes = span->component == 0 ? 2 : 1;
        size_t bytes = token_bytes(span->component);
        for (uint32_t t = 0; t < span->token_count; t++) {
            uint32_t at = span->row * BLOCK_TOKENS + span->token_first + t;
            for (uint32_t p = 0; p < planes; p++) {
                model_fill(span->base + p * BLOCK_TOKENS * bytes + (span->token_first + t) * bytes,
                           bytes, token_salt(session->tokens[at], at, span->component, p));
            }
        }
    }
}

/* spans used; 0: all memory is attached */
static int reserve(const struct reference *session, uint32_t count, struct abode_span *spans)
{
    int used = -EAGAIN;
    for (uint32_t i = 0; used == -EAGAIN && i < TRIES; i++) {
        used = abode_append_reserve(world.runtime, session->handle, count, spans, 16);
        if (used == -EAGAIN) {
            model_nap();
        }
    }
    if (used <= 0 && used != -ABODE_EFULL && used != -ENOSPC) {
        FAIL("reserve of %u after %u: %s", count, session->count, abode_strerror(used));
    }
    return used < 0 ? 0 : used;
}

void model_append(void)
{
    struct reference *session = pick(true);
    uint32_t count = 1 + model_below(30);
    if (session == NULL || session->count + count > TOKENS_MAX) {
        return;
    }
    struct abode_span spans[16];
    int used = reserve(session, count, spans);
    if (used == 0) {
        return;
    }
    uint32_t fixed = model_below(4) == 0; /* few different texts, so that keys meet */
    for (uint32_t i = 0; i < count; i++) {
        session->tokens[session->count + i] =
            fixed ? 7 + (session->count + i) % 3 : (uint32_t)model_random();
    }
    write_spans(session, spans, used);
    uint32_t committed = count - (model_below(8) == 0 ? model_below(count) : 0);
    uint32_t before = session->count / BLOCK_TOKENS;
    if (!is_whole(&session->points[session->count])) { /* half a point stays half */
        memset(&session->points[session->count], 0, sizeof(session->points[0]));
    }
    session->count += committed;
    uint32_t after = session->count / BLOCK_TOKENS;
    struct abode_key keys[8];
    bool keyed = model_below(2) == 0;
    for (uint32_t r = before; keyed && r < after; r++) {
        row_key(session, r, &keys[r - before]);
    }
    EXPECT_STATUS(abode_append_commit(world.runtime, session->handle, committed,
                                      keyed ? keys : NULL, keyed ? after - before : 0),
                  0);
}

/* false: all memory is attached */
static bool state_commit(struct reference *session, uint32_t c, uint32_t salt)
{
    void *bytes;
    size_t size = state_bytes(c, salt);
    int status = -EAGAIN;
    for (uint32_t i = 0; status == -EAGAIN && i < TRIES; i++) {
        status = abode_snapshot_reserve(world.runtime, session->handle, c, c == STATE ? 0 : size,
                                        &bytes);
        if (status == -EAGAIN) {
            model_nap();
        }
    }
    if (status == -ABODE_EFULL || status == -ENOSPC) {
        return false;
    }
    EXPECT_STATUS(status, 0);
    model_fill(bytes, size, salt + c);
    EXPECT_STATUS(abode_snapshot_commit(world.runtime, session->handle, c), 0);
    struct salts *salts = &session->points[session->count];
    salts->of[c - STATE] = salt;
    if (is_whole(salts) && session->point != session->count) {
        session->previous = session->point;
        session->point = session->count;
    }
    return true;
}

void model_snapshot(void)
{
    struct reference *session = pick(true);
    if (session == NULL || !has_snapshots(session) || session->count == 0) {
        return;
    }
    uint32_t first = model_below(8) == 0 ? BYTES : STATE; /* sometimes half a point */
    for (uint32_t c = first; c <= BYTES; c++) {
        if (!state_commit(session, c, 1 + (uint32_t)(model_random() >> 40))) {
            return;
        }
    }
}

/* ---- detach, attach ---- */

static void remember_stored(struct reference *session)
{
    struct image *image = &session->stored;
    session->ended_stored = session->ended;
    image->exists = true;
    image->unknown = false;
    image->count = restore_point(session);
    image->previous = session->previous;
    memcpy(image->tokens, session->tokens, sizeof(image->tokens));
    memcpy(image->points, session->points, sizeof(image->points));
    memcpy(image->note, session->note, sizeof(image->note));
    image->note_size = session->note_size;
}

static void detach_start(struct reference *session, uint32_t flags, struct abode_op *op)
{
    *op = (struct abode_op){.user_data = session};
    EXPECT_STATUS(abode_detach(world.queue, session->handle, flags, op), 0);
    session->busy = true;
}

static void detach_end(struct reference *session, uint32_t flags, int status)
{
    session->busy = false;
    if (status != 0 && status != -ENOSPC && status != -ECANCELED) {
        FAIL("detach: %s", abode_strerror(status));
    }
    if (status == 0 && (session->durability > ABODE_MEM || flags == ABODE_DETACH_SPILL_NOW)) {
        remember_stored(session);
    }
    if ((flags & ABODE_DETACH_KEEP) == 0) {
        cut(session, restore_point(session));
        session->attached = false;
    }
}

static uint32_t detach_flags(void)
{
    return model_below(6) == 0   ? ABODE_DETACH_SPILL_NOW
           : model_below(6) == 0 ? ABODE_DETACH_KEEP
                                 : 0;
}

static void cancel_some(struct abode_op *op)
{
    if (model_below(16) == 0) {
        int status = abode_cancel(world.queue, op);
        EXPECT(status == 0 || status == -ENOENT);
    }
}

void model_detach(void)
{
    struct reference *session = pick(true);
    if (session == NULL) {
        return;
    }
    uint32_t flags = detach_flags();
    struct abode_op op;
    detach_start(session, flags, &op);
    cancel_some(&op);
    detach_end(session, flags, model_finish(&op));
}

/* false: it was advised as ended, and has given way just now */
static bool attach_start(struct reference *session, struct abode_op *op)
{
    *op = (struct abode_op){.user_data = session};
    op->timeout_ns = model_below(32) == 0 ? 1 + model_below(1000000) : 0;
    int status = abode_attach(world.queue, session->handle, -1, 0, op);
    if (status == -ABODE_ESTALE && session->ended) {
        return false;
    }
    EXPECT_STATUS(status, 0);
    session->busy = true;
    return true;
}

static void attach_end(struct reference *session, int status)
{
    session->busy = false;
    if (status == -ABODE_EFULL || status == -ENOSPC || status == -ECANCELED ||
        status == -ETIMEDOUT) {
        return;
    }
    if (status != 0) {
        FAIL("attach of session %u (%u tokens): %s", number_of(session), session->count,
             abode_strerror(status));
    }
    session->attached = true;
    session->ended = false;
    world.attaches++;
    check_session(session);
}

void model_attach(void)
{
    struct reference *session = pick(false);
    if (session == NULL) {
        return;
    }
    struct abode_op op;
    if (attach_start(session, &op)) {
        cancel_some(&op);
        attach_end(session, model_finish(&op));
    }
}

void model_many(void)
{
    struct abode_op ops[OPS_MAX];
    uint32_t flags[OPS_MAX], count = 0;
    while (count < OPS_MAX - 1) {
        bool attached = model_below(2) == 0;
        struct reference *session = pick(attached);
        if (session == NULL) {
            break;
        }
        flags[count] = attached ? detach_flags() : 0;
        if (attached) {
            detach_start(session, flags[count], &ops[count]);
        } else if (!attach_start(session, &ops[count])) {
            continue;
        }
        cancel_some(&ops[count]);
        count++;
    }
    for (uint32_t left = count; left > 0; left--) {
        struct abode_op *done;
        EXPECT_STATUS(abode_poll(world.queue, &done, 1, FLUSH_NS), 1);
        struct reference *session = done->user_data;
        if (session->attached) {
            detach_end(session, flags[done - ops], done->status);
        } else {
            attach_end(session, done->status);
        }
    }
}

/* ---- truncate, delete ---- */

/* what the store holds of it is cut too: to the newest restore point that is left there */
static void stored_cut(struct reference *session, uint32_t at)
{
    struct image *image = &session->stored;
    if (image->count > at) {
        bool older = has_snapshots(session) && image->previous <= at;
        image->count = !has_snapshots(session) ? at : older ? image->previous : 0;
        image->previous = 0;
    }
}

void model_truncate(void)
{
    struct reference *session = pick(true);
    if (session == NULL) {
        return;
    }
    uint32_t at = has_snapshots(session) ? session->point : model_below(session->count + 1);
    bool back = has_snapshots(session) && session->previous > 0 && model_below(3) == 0;
    at = back ? session->previous : at;
    int status = abode_session_truncate(world.runtime, session->handle, at);
    if (status == -EAGAIN || status == -ABODE_EFULL || status == -ENOSPC) {
        world.recalls++; /* state of an older point is being brought in, or finds no frame */
        return;
    }
    if (status != 0) {
        FAIL("truncate to %u of %u: %s", at, session->count, abode_strerror(status));
    }
    cut(session, at);
    stored_cut(session, at);
    EXPECT_STATUS(abode_session_truncate(world.runtime, session->handle, TOKENS_MAX + 1), -EINVAL);
    world.returns += back;
    check_session(session);
}

void model_delete(void)
{
    struct reference *session = pick(model_below(2) == 0);
    if (session == NULL) {
        return;
    }
    EXPECT_STATUS(abode_session_delete(world.runtime, session->handle), 0);
    EXPECT_STATUS(abode_session_delete(world.runtime, session->handle), -ABODE_ESTALE);
    session->exists = false;
    if (session->named) {
        struct abode_key name;
        struct abode_session found;
        name_of(session, &name);
        EXPECT_STATUS(abode_session_find(world.runtime, &name, &found), -ENOENT);
    }
}

/* ---- notes, stat, advice, flush, reports ---- */

void model_note(void)
{
    struct reference *session = pick(model_below(2) == 0);
    if (session == NULL) {
        return;
    }
    if (model_below(2) == 0) {
        session->note_size = model_below(NOTE_BYTES + 1);
        for (uint32_t i = 0; i < session->note_size; i++) {
            session->note[i] = (uint8_t)model_random();
        }
        EXPECT_STATUS(abode_session_note_set(world.runtime, session->handle, session->note,
                                             session->note_size),
                      0);
    }
    uint8_t bytes[NOTE_BYTES];
    EXPECT_STATUS(abode_session_note_get(world.runtime, session->handle, bytes, sizeof(bytes)),
                  (int)session->note_size);
    EXPECT(memcmp(bytes, session->note, session->note_size) == 0);
}

void model_stat(void)
{
    struct reference *session = pick(model_below(2) == 0);
    if (session == NULL) {
        return;
    }
    struct abode_session_info info;
    EXPECT_STATUS(abode_session_stat(world.runtime, session->handle, &info), 0);
    EXPECT(info.token_count == session->count);
    EXPECT(info.restore_point == restore_point(session));
    EXPECT(info.attached == session->attached);
    EXPECT(info.tenant == session->tenant);
    EXPECT(info.model == world.models[session->model]);
}

void model_advise(void)
{
    struct reference *session = pick(model_below(4) == 0);
    if (session == NULL) {
        return;
    }
    enum abode_advice advice = ABODE_WILL_NEED + (enum abode_advice)model_below(ABODE_KEEP);
    int64_t value = advice == ABODE_PREFER_NODE ? (int64_t)model_below(2)
                                                : (int64_t)model_below(100) * 1000 * 1000;
    if (advice == ABODE_ENDED && (session->attached || model_below(4) != 0)) {
        return;
    }
    session->ended |= advice == ABODE_ENDED;
    session->ended_stored |= session->ended;
    abode_advise(world.runtime, session->handle, advice, value);
}

/* Every detached session whose promise is open is kept, or flush says that one is not. */
void model_flush(void)
{
    int status = abode_flush(world.runtime, FLUSH_NS);
    if (status != 0 && status != -ENOSPC) {
        FAIL("flush: %s", abode_strerror(status));
    }
    for (uint32_t i = 0; i < SESSIONS; i++) {
        struct reference *session = &world.sessions[i];
        if (is_there(session) && !session->attached && session->durability > ABODE_MEM) {
            if (status == 0) {
                remember_stored(session);
            }
            session->stored.unknown |= status != 0;
        }
    }
}

static int line_take(void *context, const char *text, size_t size)
{
    (void)text;
    *(size_t *)context += size;
    return 0;
}

void model_report(void)
{
    struct reference *session = pick(model_below(2) == 0);
    struct abode_placement placement;
    if (session != NULL) {
        EXPECT_STATUS(abode_session_placement(world.runtime, session->handle, &placement), 0);
    }
    struct abode_verify_report report;
    EXPECT_STATUS(abode_verify(world.runtime, NULL, NULL, NULL, &report), 0);
    EXPECT(report.blocks_bad == 0);
    size_t size = 0;
    EXPECT_STATUS(abode_inspect(world.runtime, line_take, &size), 0);
    EXPECT(size > 0);
}

/* ---- after a restart: what was promised is there; what was not is not, or whole ---- */

static void session_refind(struct reference *session)
{
    struct image *image = &session->stored;
    struct abode_key name;
    struct abode_session found;
    name_of(session, &name);
    int status = session->named ? abode_session_find(world.runtime, &name, &found) : -ENOENT;
    if (status != 0) {
        EXPECT_STATUS(status, -ENOENT);
        EXPECT(!session->named || !image->exists || image->unknown || session->ended_stored);
        session->exists = false;
        return;
    }
    struct abode_session_info info;
    EXPECT_STATUS(abode_session_stat(world.runtime, found, &info), 0);
    EXPECT(info.tenant == session->tenant);
    if (image->unknown) {
        EXPECT_STATUS(abode_session_delete(world.runtime, found), 0);
        session->exists = false;
        return;
    }
    EXPECT(image->exists);
    EXPECT(info.token_count == image->count);
    memcpy(session->tokens, image->tokens, sizeof(session->tokens));
    memcpy(session->points, image->points, sizeof(session->points));
    memcpy(session->note, image->note, sizeof(session->note));
    session->note_size = image->note_size;
    session->point = has_snapshots(session) ? image->count : 0;
    session->previous = image->previous;
    cut(session, image->count);
    session->handle = found;
    session->attached = false;
    session->ended = session->ended_stored;
}

void model_sessions_refind(void)
{
    for (uint32_t i = 0; i < SESSIONS; i++) {
        if (world.sessions[i].exists) {
            session_refind(&world.sessions[i]);
        }
    }
}
