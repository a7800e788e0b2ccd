/*
 * replay_run.c - the loop of one host thread that serves the requests of a trace.
 *
 * Requests start in order of time, at most `inflight` at once, each when its branch is free and
 * when the rows of all requests under way fit memory (a server's scheduler does the same; without
 * it two growing contexts could wait for each other for ever). A request whose branch is busy does
 * not hold up the others: REPLAY_LOOK_AHEAD of them are looked at.
 */
#include "replay.h"

#include "content.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define POLL_CAPACITY REPLAY_SLOTS_MAX
#define WAIT_NS_MAX 50000000ull   /* look at signals and the clock at least so often */
#define BLOCKED_WAIT_NS 500000ull /* frames are freed by the service threads: ask again soon */
#define BLOCKED_NS_MAX (60ull * 1000000000u) /* nothing at all moved for so long: give up */
#define ROWS_USABLE(rows) ((rows) - (rows) / 16)

struct loop {
    struct replay *replay;
    uint32_t first; /* first request that has not been started */
    uint32_t done;
    bool *started;
    uint32_t busy_count;
    uint64_t moved_ns; /* when something last moved */
    struct cli_progress progress;
};

/* ---- bookkeeping of calls and ops ------------------------------------------------------------ */

void replay_called(struct replay *replay, uint64_t begin_ns)
{
    replay_histogram_add(&replay->figures.call_ns, cli_now_ns() - begin_ns);
}

void replay_slot_submitted(struct replay *replay, struct replay_slot *slot, bool reading,
                           bool restoring)
{
    slot->state = REPLAY_WAITING;
    slot->reading = reading;
    slot->restoring = restoring;
    if (slot->restoring && replay->restoring_count++ == 0) {
        replay->restoring_since_ns = slot->submitted_ns;
    }
}

static void slot_returned(struct replay *replay, struct replay_slot *slot)
{
    const uint64_t now = cli_now_ns();

    slot->state = REPLAY_READY;
    slot->latency_ns = now - slot->submitted_ns;
    if (slot->restoring) {
        slot->restoring = false;
        if (--replay->restoring_count == 0) {
            replay->figures.restore_busy_ns += now - replay->restoring_since_ns;
        }
    }
}

void replay_read_count(struct replay *replay, const struct replay_slot *slot, uint64_t bytes)
{
    replay_histogram_add(bytes > 0 ? &replay->figures.restore_ns : &replay->figures.memory_ns,
                         slot->latency_ns);
    replay->figures.restore_bytes += bytes;
}

void replay_slot_finished(struct replay *replay, struct replay_slot *slot)
{
    const struct trace_request *const request = &replay->trace.requests[slot->request];

    slot->state = REPLAY_FREE;
    replay->rows_admitted -= slot->admitted_rows;
    replay->figures.requests++;
    replay->figures.tokens_in += request->tokens_in;
    replay->figures.tokens_out += request->tokens_out;
}

int replay_slot_block(struct replay *replay, struct replay_slot *slot, int code)
{
    if (code == -ENOSPC && replay->face->drop != NULL) {
        (void)replay->face->drop(replay); /* none: others under way hold it all, and will end */
    } else if (code != -EAGAIN && code != -ABODE_EFULL) {
        return code;
    }
    replay->figures.blocked++;
    slot->again = true;
    slot->state = REPLAY_BLOCKED;
    return 0;
}

int replay_fail(const struct replay *replay, const struct replay_slot *slot, int code,
                const char *call)
{
    const char *const mend =
        code == -ENOSPC ? "give more with --store-size or --memory, or fewer --inflight"
                        : "run again with --keep and look at the store with `abode verify`";
    if (slot == NULL) {
        (void)cli_fail(code, mend, "%s", call);
    } else {
        (void)cli_fail(code, mend, "%s, serving request %u of %s", call,
                       replay->trace.requests[slot->request].line, replay->options.trace_path);
    }
    return code;
}

/* ---- what a request wants -------------------------------------------------------------------- */

/* Blocks past the prompt's whole ones (its tail, its reply): where the branch's next request has
 * all of this one's blocks, its blocks tell what they are; else nobody else ever has them. */
static uint64_t tail_identity(const struct replay *replay, uint32_t request, uint32_t index,
                              bool carried)
{
    const struct trace_request *const asked = &replay->trace.requests[request];
    if (carried && index < replay->trace.requests[asked->next].whole_count) {
        return trace_identity(&replay->trace, asked->next, index);
    }
    return content_join(content_join(~0ull, request), index);
}

/* Leading blocks that earlier requests had; then all of this one count as had. */
static int seen_count(struct replay *replay, struct replay_slot *slot)
{
    const uint32_t count = replay->trace.requests[slot->request].block_count;
    uint32_t known = 0;

    while (known < count && trace_map_get(&replay->seen, slot->wanted[known]) != TRACE_NONE) {
        known++;
    }
    for (uint32_t i = known; i < count; i++) {
        const int rc = trace_map_put(&replay->seen, slot->wanted[i], 0);
        if (rc < 0) {
            return rc;
        }
    }
    slot->blocks_known = known;
    replay->figures.blocks_asked += count;
    replay->figures.blocks_known += known;
    return 0;
}

int replay_wanted_make(struct replay *replay, struct replay_slot *slot)
{
    const struct trace *const trace = &replay->trace;
    const struct trace_request *const request = &trace->requests[slot->request];
    const uint64_t tokens = (uint64_t)request->tokens_in + request->tokens_out;
    const uint32_t blocks = (uint32_t)((tokens + trace->block_tokens - 1) / trace->block_tokens);
    const uint32_t count = blocks > request->block_count ? blocks : request->block_count;
    const bool carried = request->next != TRACE_NONE &&
                         trace_prefix(trace, slot->request, request->next) >= request->whole_count;

    if (count > slot->wanted_capacity) {
        uint64_t *const larger = realloc(slot->wanted, (count + count / 4) * sizeof(*larger));
        if (larger == NULL) {
            return -ENOMEM;
        }
        slot->wanted = larger;
        slot->wanted_capacity = count + count / 4;
    }
    trace_identities(trace, slot->request, slot->wanted);
    slot->wanted_count = count;
    const int rc = seen_count(replay, slot);
    for (uint32_t i = request->whole_count; i < count && rc == 0; i++) {
        if (replay->face == &replay_session_face || i >= request->block_count) {
            slot->wanted[i] = tail_identity(replay, slot->request, i, carried);
        }
    }
    return rc;
}

void replay_reuse_count(struct replay *replay, const struct replay_slot *slot, uint64_t reused)
{
    const uint32_t tokens_in = replay->trace.requests[slot->request].tokens_in;
    const uint64_t tokens = reused < tokens_in ? reused : tokens_in;
    const uint64_t blocks = tokens / replay->trace.block_tokens;
    const uint64_t hit = blocks < slot->blocks_known ? blocks : slot->blocks_known;
    struct replay_figures *const figures = &replay->figures;

    figures->blocks_hit += hit;
    figures->blocks_hit_store += (uint64_t)((double)hit * slot->store_share + 0.5);
    figures->blocks_reply += blocks - hit;
    figures->tokens_reused += tokens;
    figures->tokens_computed += tokens_in - tokens;
    figures->tokens_lost += slot->expected > tokens ? slot->expected - tokens : 0;
}

/* ---- which request starts -------------------------------------------------------------------- */

/* When the request comes, ns after the run began; 0 flat out. */
static uint64_t arrival_ns(const struct replay *replay, uint32_t request)
{
    const double speed = replay->options.speed;
    return speed > 0 ? (uint64_t)(replay->trace.requests[request].start_s / speed * 1e9) : 0;
}

static uint32_t rows_of(const struct replay *replay, uint32_t request)
{
    const struct trace_request *const asked = &replay->trace.requests[request];
    return (uint32_t)(((uint64_t)asked->tokens_in + asked->tokens_out) /
                      replay->geometry.block_tokens) +
           2;
}

/* Its branch is free and all earlier requests of the branch are through. */
static bool request_can_start(const struct loop *loop, uint32_t request)
{
    const struct trace_request *const asked = &loop->replay->trace.requests[request];
    if (loop->started[request]) {
        return false;
    }
    if (asked->previous == TRACE_NONE) {
        return true;
    }
    if (!loop->started[asked->previous]) {
        return false;
    }
    for (uint32_t i = 0; i < loop->replay->slot_count; i++) {
        const struct replay_slot *const slot = &loop->replay->slots[i];
        if (slot->state != REPLAY_FREE && slot->request == asked->previous) {
            return false;
        }
    }
    return true;
}

/* The next request to start now; TRACE_NONE: none. */
static uint32_t request_choose(const struct loop *loop)
{
    const struct replay *const replay = loop->replay;
    const uint64_t now = cli_now_ns() - replay->begin_ns;

    for (uint32_t i = loop->first; i < replay->request_count && i < loop->first + REPLAY_LOOK_AHEAD;
         i++) {
        if (arrival_ns(replay, i) > now) {
            break;
        }
        if (!request_can_start(loop, i)) {
            continue;
        }
        const bool fits =
            replay->rows_max == 0 || loop->busy_count == 0 ||
            replay->rows_admitted + rows_of(replay, i) <= ROWS_USABLE(replay->rows_max);
        return fits ? i : TRACE_NONE; /* in order: a large one is not overtaken for ever */
    }
    return TRACE_NONE;
}

static int requests_start(struct loop *loop)
{
    struct replay *const replay = loop->replay;

    for (uint32_t i = 0; i < replay->slot_count; i++) {
        struct replay_slot *const slot = &replay->slots[i];
        if (slot->state != REPLAY_FREE) {
            continue;
        }
        const uint32_t request = cli_interrupted ? TRACE_NONE : request_choose(loop);
        if (request == TRACE_NONE) {
            return 0;
        }
        loop->started[request] = true;
        while (loop->first < replay->request_count && loop->started[loop->first]) {
            loop->first++;
        }
        slot->request = request;
        slot->state = REPLAY_READY;
        slot->admitted_rows = rows_of(replay, request);
        replay->rows_admitted += slot->admitted_rows;
        loop->busy_count++;
        const int rc = replay->face->start(replay, slot);
        if (rc < 0) {
            return replay_fail(replay, slot, rc, "starting a request");
        }
    }
    return 0;
}

/* ---- polling and waiting --------------------------------------------------------------------- */

static int poll_once(struct loop *loop, int64_t timeout_ns)
{
    struct replay *const replay = loop->replay;
    struct abode_op *ops[POLL_CAPACITY];
    const uint64_t begin = cli_now_ns();
    const int count = abode_poll(replay->queue, ops, POLL_CAPACITY, timeout_ns);

    if (timeout_ns == 0) {
        replay_called(replay, begin);
    }
    if (count < 0) {
        return count == -EINTR ? 0 : replay_fail(replay, NULL, count, "abode_poll");
    }
    for (int i = 0; i < count; i++) {
        struct replay_slot *const slot = ops[i]->user_data;
        slot_returned(replay, slot);
        if (ops[i]->status >= 0 || !slot->again) {
            slot->again = false;
            loop->moved_ns = cli_now_ns();
        }
    }
    return count;
}

/* What the thread is about to wait for, and how long at most. */
static enum replay_wait wait_kind(const struct loop *loop, uint64_t *ret_ns)
{
    const struct replay *const replay = loop->replay;
    const uint64_t now = cli_now_ns();
    uint64_t until = now + WAIT_NS_MAX;
    bool blocked = false, writing = false;

    for (uint32_t i = 0; i < replay->slot_count; i++) {
        const struct replay_slot *const slot = &replay->slots[i];
        blocked |= slot->state == REPLAY_BLOCKED;
        writing |= slot->state == REPLAY_WAITING && !slot->reading;
        if (slot->state == REPLAY_HOLDING && slot->due_ns < until) {
            until = slot->due_ns;
        }
    }
    if (loop->first < replay->request_count) {
        const uint64_t arrival = replay->begin_ns + arrival_ns(replay, loop->first);
        until = arrival > now && arrival < until ? arrival : until;
    }
    if (blocked && until > now + BLOCKED_WAIT_NS) {
        until = now + BLOCKED_WAIT_NS;
    }
    *ret_ns = until > now ? until - now : 1;
    return blocked                       ? REPLAY_WAIT_MEMORY
           : replay->restoring_count > 0 ? REPLAY_WAIT_RESTORE
           : writing                     ? REPLAY_WAIT_WRITE
                                         : REPLAY_WAIT_TRACE;
}

static int loop_wait(struct loop *loop)
{
    struct replay *const replay = loop->replay;
    uint64_t timeout_ns = 0;
    const uint64_t begin = cli_now_ns();
    const enum replay_wait kind = wait_kind(loop, &timeout_ns);
    int rc = 0;

    if (abode_queue_pending(replay->queue) > 0) {
        rc = poll_once(loop, (int64_t)timeout_ns);
    } else {
        const struct timespec pause = {.tv_sec = (time_t)(timeout_ns / 1000000000u),
                                       .tv_nsec = (long)(timeout_ns % 1000000000u)};
        (void)nanosleep(&pause, NULL);
    }
    const uint64_t now = cli_now_ns();
    replay->figures.wait_ns[kind] += now - begin;
    if (kind == REPLAY_WAIT_TRACE) {
        loop->moved_ns = now;
    }
    if (now - loop->moved_ns > BLOCKED_NS_MAX) {
        (void)cli_fail(-ETIMEDOUT, "give more with --memory or --store-size, or fewer --inflight",
                       "nothing moved for a minute (waiting for %s)",
                       kind == REPLAY_WAIT_MEMORY ? "memory" : "the store");
        return -ETIMEDOUT;
    }
    return rc;
}

/* ---- the loop -------------------------------------------------------------------------------- */

static bool slot_can_step(const struct replay_slot *slot, uint64_t now)
{
    return slot->state == REPLAY_READY || (slot->state == REPLAY_HOLDING && now >= slot->due_ns);
}

static int slot_step(struct loop *loop, struct replay_slot *slot)
{
    struct replay *const replay = loop->replay;
    const enum replay_slot_state before = slot->state;

    int rc = replay->face->step(replay, slot);
    if (rc < 0) {
        return replay_fail(replay, slot, rc, "the library");
    }
    if (slot->state != REPLAY_BLOCKED && !(slot->again && slot->state == REPLAY_WAITING)) {
        slot->again = false;
        loop->moved_ns = cli_now_ns();
    }
    if (before != REPLAY_FREE && slot->state == REPLAY_FREE) {
        loop->busy_count--;
        loop->done++;
        cli_progress_update(&loop->progress, loop->done, replay->request_count, NULL);
    }
    return poll_once(loop, 0);
}

/* Once around: start what can start, one step of each slot that has work. Returns whether there
 * was any, or a negative code. */
static int loop_turn(struct loop *loop)
{
    struct replay *const replay = loop->replay;
    bool worked = false;

    int rc = requests_start(loop);
    for (uint32_t i = 0; i < replay->slot_count && rc >= 0; i++) {
        struct replay_slot *const slot = &replay->slots[i];
        if (slot->state == REPLAY_BLOCKED) {
            slot->state = REPLAY_READY;
        }
        if (slot_can_step(slot, cli_now_ns())) {
            rc = slot_step(loop, slot);
            worked |= slot->state != REPLAY_BLOCKED;
        }
    }
    return rc < 0 ? rc : worked;
}

int replay_run(struct replay *replay)
{
    struct loop loop = {.replay = replay, .moved_ns = cli_now_ns()};
    int worked = 1;

    loop.started = cli_alloc(replay->request_count, sizeof(*loop.started));
    cli_progress_start(&loop.progress, "replay", replay->options.quiet);
    replay->begin_ns = cli_now_ns();
    const uint64_t cpu_begin = cli_cpu_now_ns();
    while (worked >= 0 && (loop.busy_count > 0 || loop.first < replay->request_count)) {
        if (cli_interrupted && loop.busy_count == 0) {
            break;
        }
        worked = loop_turn(&loop);
        if (worked == 0 && (loop.busy_count > 0 || loop.first < replay->request_count)) {
            worked = loop_wait(&loop);
        }
    }
    replay->figures.wall_ns = cli_now_ns() - replay->begin_ns;
    replay->figures.cpu_ns = cli_cpu_now_ns() - cpu_begin;
    cli_progress_end(&loop.progress);
    free(loop.started);
    return worked < 0 ? worked : 0;
}
