/*
 * demo_host.c - the child of `abode demo`: a host that keeps sessions through abode.h.
 *
 * One thread; several conversations overlap through ops. The workload's events (a turn each) are
 * begun in the order of its clock, which is not slept but jumps:
 *
 *   event -> create | fork from the prefix ------------------> turn -> detach (durable) -> ack
 *         -> attach (restore) -> op ends -> check every byte -^
 *
 * The parent may kill this process at any instruction. Nothing here is handled specially for that:
 * what was acknowledged must be there for the next child, and what was not must be whole or absent.
 */
#include "demo.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#define NS_PER_MS 1000000ull
#define POLL_BATCH 16
#define SAMPLE_NS 500000    /* at most so often: what came in from the store */
#define WAIT_NS 100000000   /* one wait for a completion; then look around again */
#define STUCK_WAITS_MAX 600 /* waits without any completion: a minute */
#define DEFERRED_TRIES_MAX 600
#define LOOK_AHEAD 4       /* events whose sessions are said to be needed soon */
#define FULL_TRIES_MAX 200 /* x FULL_WAIT_NS = 10 s for the store to make room */
#define FULL_WAIT_NS 50000000
#define SPILL_NOW_IDLE_MS 1800000ull /* idle longer than this: give the frames back at once */
#define CLOSE_TRIES_MAX 100

/* ---- the clock and the samples ----------------------------------------------------------------- */

/* Time in which bytes came in from the store counts as busy, whoever asked for them: an attach, or
 * advice. An interval with any arrival counts whole, so that the rate is not flattered. */
static int restore_sample(struct host *host)
{
    const uint64_t now_ns = cli_now_ns();
    if (now_ns - host->sample_ns < SAMPLE_NS) {
        return 0;
    }
    struct abode_stats stats = {.struct_size = sizeof(stats)};
    const int result = abode_stats_get(host->runtime, &stats);
    if (result < 0) {
        return result;
    }
    if (stats.bytes_restored != host->sample_bytes_restored) {
        host->totals.restore_busy_ns += now_ns - host->sample_ns;
    }
    host->sample_bytes_restored = stats.bytes_restored;
    host->sample_ns = now_ns;
    return 0;
}

/* The workload's clock jumps to the next event; state was held meanwhile. */
static int clock_advance(struct host *host, uint64_t now_ms)
{
    if (now_ms <= host->clock_ms) {
        return 0;
    }
    const double seconds = (double)(now_ms - host->clock_ms) / 1000;
    struct abode_stats stats = {.struct_size = sizeof(stats)};
    int result = abode_stats_get(host->runtime, &stats);
    if (result < 0) {
        return result;
    }
    for (uint32_t i = 0; i < stats.node_count; i++) {
        struct abode_node_info node = {.struct_size = sizeof(node)};
        result = abode_machine_node_get(host->runtime, i, &node);
        if (result < 0) {
            return result;
        }
        host->totals.memory_byte_s += (double)(node.frame_bytes - node.frame_bytes_free) * seconds;
    }
    host->totals.store_byte_s += (double)stats.store_bytes_live * seconds;
    host->clock_ms = now_ms;
    return 0;
}

int host_breathe(struct host *host, int64_t timeout_ns)
{
    struct abode_op *finished[POLL_BATCH];
    const uint32_t room = HOST_READY_MAX - host->ready_count;
    const uint32_t capacity = room < POLL_BATCH ? room : POLL_BATCH;
    const int count = abode_poll(host->queue, finished, capacity, timeout_ns);
    if (count < 0) {
        return count;
    }
    const uint64_t now_ns = cli_now_ns();
    for (int i = 0; i < count; i++) {
        struct host_session *session = finished[i]->user_data;
        if (session->stage == HOST_ATTACHING) {
            host->totals.attach_wait_ns += now_ns - session->submit_ns;
        }
        host->ready[(host->ready_first + host->ready_count++) % HOST_READY_MAX] = finished[i];
    }
    return restore_sample(host);
}

/* ---- a turn ------------------------------------------------------------------------------------ */

static uint32_t conversation_of(const struct host *host, const struct host_session *session)
{
    return (uint32_t)(session - host->sessions);
}

static const struct turn *turn_of(const struct host *host, uint32_t conversation, uint32_t turn)
{
    return &host->workload.turns[host->workload.conversations[conversation].turn_first + turn];
}

static int fail(const struct host *host, int code, const char *what, uint32_t conversation)
{
    const struct conversation *it = &host->workload.conversations[conversation];
    (void)cli_fail(code, NULL, "demo: %s, %s %u, turn %u", what, conversation_kind_name(it->kind),
                   conversation, host->sessions[conversation].turns_done);
    return code;
}

static int detach_begin(struct host *host, uint32_t conversation)
{
    struct host_session *session = &host->sessions[conversation];
    const bool audit = host->task.phase == DEMO_AUDIT;
    const uint64_t idle_ms = audit ? 0 : turn_of(host, conversation, session->turn)->idle_ms;
    const uint32_t flags = idle_ms > SPILL_NOW_IDLE_MS ? ABODE_DETACH_SPILL_NOW : 0;
    session->submit_sequence = ++host->sequence;
    session->stage = HOST_DETACHING;
    int result = abode_detach(host->queue, session->handle, flags, &session->op);
    if (result < 0) {
        return fail(host, result, "detaching", conversation);
    }
    return audit ? 0 : host_tell(host, DEMO_SPILLING, conversation, 0);
}

/* The session is attached: check what is there, go on with the conversation, let it go. */
static int turn_run(struct host *host, uint32_t conversation)
{
    struct host_session *session = &host->sessions[conversation];
    int result = state_check(host, conversation, session->turns_done);
    if (result < 0) {
        return fail(host, result, "reading restored state", conversation);
    }
    if (host->task.phase == DEMO_CONVERSE) {
        result = state_append(host, conversation, session->turn);
    }
    if (result < 0) {
        return fail(host, result, "appending", conversation);
    }
    return detach_begin(host, conversation);
}

static int attach_begin(struct host *host, uint32_t conversation)
{
    struct host_session *session = &host->sessions[conversation];
    session->stage = HOST_ATTACHING;
    session->submit_ns = cli_now_ns();
    const int result = abode_attach(host->queue, session->handle, -1, 0, &session->op);
    return result < 0 ? fail(host, result, "attaching", conversation) : 0;
}

static int session_start(struct host *host, uint32_t conversation)
{
    const struct conversation *it = &host->workload.conversations[conversation];
    struct host_session *session = &host->sessions[conversation];
    const struct abode_key name = conversation_name(&host->workload, conversation);
    struct abode_key keys[MODEL_WINDOW_TOKENS / MODEL_BLOCK_TOKENS];
    struct abode_session_opts opts = {
        .struct_size = sizeof(opts),
        .model = host->models[it->model],
        .home_node = -1,
        .durability = ABODE_DURABLE,
        .name = &name,
    };
    session->op = (struct abode_op){.user_data = session};
    if (it->prefix != WORKLOAD_NONE && it->model == MODEL_HYBRID) {
        const int forked = abode_session_fork(host->runtime, host->sessions[it->prefix].handle,
                                              it->prefix_tokens, &name, &session->handle);
        host->totals.fork_count += forked >= 0;
        session->exists = forked >= 0;
        return forked < 0 ? fail(host, forked, "forking", conversation)
                          : turn_run(host, conversation);
    }
    if (it->prefix != WORKLOAD_NONE) {
        opts.prefix_key_count = it->prefix_tokens / MODEL_BLOCK_TOKENS;
        state_row_keys(host, conversation, opts.prefix_key_count, keys);
        opts.prefix_keys = keys;
    }
    struct abode_session_info info = {.struct_size = sizeof(info)};
    int result = abode_session_create(host->runtime, &opts, &session->handle);
    if (result >= 0) {
        result = abode_session_stat(host->runtime, session->handle, &info);
    }
    if (result < 0) {
        return fail(host, result, "creating", conversation);
    }
    session->exists = true;
    host->totals.prefix_hit_count += info.token_count > 0;
    if (!info.attached) {
        return attach_begin(host, conversation);
    }
    result = state_append(host, conversation, session->turn);
    return result < 0 ? fail(host, result, "appending", conversation)
                      : detach_begin(host, conversation);
}

static int event_begin(struct host *host, const struct workload_event *event)
{
    struct host_session *session = &host->sessions[event->conversation];
    const int result = clock_advance(host, turn_of(host, event->conversation, event->turn)->due_ms);
    if (result < 0) {
        return result;
    }
    session->turn = event->turn;
    session->full_tries = 0;
    host->in_flight++;
    if (session->exists) {
        session->op = (struct abode_op){.user_data = session};
        return attach_begin(host, event->conversation);
    }
    return session_start(host, event->conversation);
}

/* Say what will be needed: the sessions of the next few events. */
static void look_ahead(struct host *host)
{
    for (uint32_t i = 0; i < LOOK_AHEAD && host->event_next + i < host->event_count; i++) {
        const struct workload_event *event = &host->events[host->event_next + i];
        const struct host_session *session = &host->sessions[event->conversation];
        if (session->exists && session->stage == HOST_IDLE) {
            abode_advise(host->runtime, session->handle, ABODE_WILL_NEED,
                         (int64_t)((i + 1) * 10 * NS_PER_MS));
        }
    }
}

/* ---- completions ------------------------------------------------------------------------------- */

/* A durable op that was begun after a delete has ended: the store has forgotten the session. */
static int deletes_settle(struct host *host, uint64_t sequence)
{
    int result = 0;
    for (uint32_t i = 0; i < host->workload.session_count && result >= 0; i++) {
        struct host_session *session = &host->sessions[i];
        if (session->delete_unsure && session->delete_sequence < sequence) {
            session->delete_unsure = false;
            result = host_tell(host, DEMO_DELETE_FIRM, i, 0);
        }
    }
    return result;
}

static int session_delete(struct host *host, uint32_t conversation)
{
    struct host_session *session = &host->sessions[conversation];
    abode_advise(host->runtime, session->handle, ABODE_ENDED, 0);
    int result = host_tell(host, DEMO_DELETED, conversation, 0);
    if (result >= 0) {
        result = abode_session_delete(host->runtime, session->handle);
    }
    if (result < 0) {
        return fail(host, result, "deleting", conversation);
    }
    host->totals.delete_count++;
    session->exists = false;
    session->stage = HOST_OVER;
    session->delete_unsure = true;
    session->delete_sequence = ++host->sequence;
    return 0;
}

static void idle_advise(struct host *host, uint32_t conversation)
{
    const struct conversation *it = &host->workload.conversations[conversation];
    const struct host_session *session = &host->sessions[conversation];
    const uint64_t idle_ms = turn_of(host, conversation, session->turn)->idle_ms;
    const bool last = session->turns_done == it->turn_count;
    const bool tool = it->kind == CONVERSATION_AGENT;
    /* the clock runs faster here than where it was recorded: advice is in real time */
    const double real_ns = (double)idle_ms * host->task.seconds_per_hour / 3600 * (double)NS_PER_MS;
    abode_advise(host->runtime, session->handle,
                 tool && !last ? ABODE_IDLE_TOOL : ABODE_IDLE_PERSON, (int64_t)real_ns);
}

static int detached(struct host *host, uint32_t conversation)
{
    const struct conversation *it = &host->workload.conversations[conversation];
    struct host_session *session = &host->sessions[conversation];
    if (session->op.status == -ENOSPC && session->full_tries < FULL_TRIES_MAX) {
        /* the session is whole in memory: what a host does is attach it, and try again later */
        session->full_tries++;
        host->totals.store_full_count++;
        const int waited = host_breathe(host, FULL_WAIT_NS);
        return waited < 0 ? waited : attach_begin(host, conversation);
    }
    session->stage = HOST_IDLE;
    host->in_flight--;
    host->room_made = true;
    if (session->op.status == -ENOSPC) {
        (void)cli_fail(-ENOSPC, "give more --store-size, or fewer --sessions",
                       "demo: the store of %s is full of live state",
                       cli_bytes_text(host->task.store_bytes).text);
        return -ENOSPC;
    }
    if (session->op.status < 0) {
        return fail(host, session->op.status, "spilling", conversation);
    }
    if (host->task.phase == DEMO_AUDIT) {
        return host_tell_totals(host, DEMO_CHECKED, conversation, 0);
    }
    session->turns_done = session->turn + 1;
    int result = host_tell_totals(host, DEMO_ACKNOWLEDGED, conversation, 0);
    if (result >= 0) {
        result = deletes_settle(host, session->submit_sequence);
    }
    if (result < 0) {
        return result;
    }
    if (it->ends && session->turns_done == it->turn_count) {
        return session_delete(host, conversation);
    }
    idle_advise(host, conversation);
    return 0;
}

static int attached(struct host *host, uint32_t conversation)
{
    struct host_session *session = &host->sessions[conversation];
    const int status = session->op.status;
    if (status == 0 && session->full_tries > 0) {
        return detach_begin(host, conversation); /* its turn is done already */
    }
    if (status == 0) {
        host->totals.attach_count++;
        return turn_run(host, conversation);
    }
    if (status == -ABODE_EFULL || status == -EAGAIN) {
        session->stage = HOST_DEFERRED;
        host->deferred++;
        return 0;
    }
    /* acknowledged state that does not come back: said, counted by the parent, not hidden */
    session->stage = HOST_OVER;
    host->in_flight--;
    (void)fail(host, status, "restoring", conversation);
    return host_tell(host, DEMO_LOST, conversation, status);
}

static int ready_handle(struct host *host)
{
    struct abode_op *op = host->ready[host->ready_first];
    host->ready_first = (host->ready_first + 1) % HOST_READY_MAX;
    host->ready_count--;
    const struct host_session *session = op->user_data;
    const uint32_t conversation = conversation_of(host, session);
    return session->stage == HOST_ATTACHING ? attached(host, conversation)
                                            : detached(host, conversation);
}

/* Memory was full of attached sessions: try again when one has been detached, and, where none is
 * attached any more, after a wait. */
static int deferred_retry(struct host *host)
{
    const bool alone = host->in_flight == host->deferred;
    if (!host->room_made && !alone) {
        return 0;
    }
    if (alone && !host->room_made && ++host->deferred_tries > DEFERRED_TRIES_MAX) {
        (void)cli_fail(-ABODE_EFULL, NULL, "demo: %u sessions find no memory", host->deferred);
        return -ABODE_EFULL;
    }
    host->deferred_tries = host->room_made ? 0 : host->deferred_tries;
    host->room_made = false;
    int result = 0;
    for (uint32_t i = 0; i < host->workload.conversation_count && result >= 0; i++) {
        if (host->sessions[i].stage == HOST_DEFERRED) {
            host->deferred--;
            result = attach_begin(host, i);
        }
    }
    return result;
}

/* ---- the loop ---------------------------------------------------------------------------------- */

static bool time_is_up(const struct host *host)
{
    return host->task.phase == DEMO_CONVERSE && cli_now_ns() > host->task.deadline_ns;
}

/* Begin events while there is room. An event whose session is still busy with its last turn waits,
 * and those behind it with it: the order of the clock is kept. */
static int events_begin(struct host *host)
{
    const uint32_t before = host->event_next;
    while (host->in_flight < host->task.in_flight && host->event_next < host->event_count &&
           host->ready_count == 0) {
        const struct workload_event *event = &host->events[host->event_next];
        const struct host_session *session = &host->sessions[event->conversation];
        const bool audit = host->task.phase == DEMO_AUDIT;
        const bool done = !audit && event->turn < session->turns_done;
        if (done || session->stage == HOST_OVER) {
            host->event_next++;
            continue;
        }
        if (session->stage != HOST_IDLE || time_is_up(host)) {
            break;
        }
        host->event_next++;
        const int result = event_begin(host, event);
        if (result < 0) {
            return result;
        }
    }
    if (host->event_next != before) {
        look_ahead(host);
    }
    return 0;
}

static int wait_for_ops(struct host *host)
{
    const int result = host_breathe(host, WAIT_NS);
    host->waits = host->ready_count > 0 ? 0 : host->waits + 1;
    if (result >= 0 && host->waits > STUCK_WAITS_MAX) {
        (void)cli_fail(-ETIMEDOUT, NULL, "demo: %u sessions wait for the store", host->in_flight);
        return -ETIMEDOUT;
    }
    return result;
}

static int loop(struct host *host)
{
    int result = events_begin(host);
    while (result >= 0 && host->in_flight > 0) {
        result = host->ready_count > 0 ? ready_handle(host) : wait_for_ops(host);
        if (result >= 0 && host->deferred > 0) {
            result = deferred_retry(host);
        }
        if (result >= 0) {
            result = events_begin(host);
        }
    }
    return result;
}

/* ---- prefixes: attached as long as this process lives -------------------------------------------- */

static int prefix_ready(struct host *host, uint32_t conversation)
{
    struct host_session *session = &host->sessions[conversation];
    session->op = (struct abode_op){.user_data = session};
    const bool found = session->exists;
    int result = found ? abode_attach(host->queue, session->handle, -1, 0, &session->op) : 0;
    if (result >= 0 && found) {
        result = cli_op_wait(host->queue, &session->op);
    }
    if (result >= 0 && found) {
        return state_check(host, conversation, 1);
    }
    const struct abode_key name = conversation_name(&host->workload, conversation);
    const struct abode_session_opts opts = {
        .struct_size = sizeof(opts),
        .home_node = -1,
        .durability = ABODE_DURABLE,
        .name = &name,
        .model = host->models[host->workload.conversations[conversation].model],
    };
    if (result >= 0) {
        result = abode_session_create(host->runtime, &opts, &session->handle);
    }
    if (result >= 0) {
        result = state_append(host, conversation, 0);
    }
    if (result >= 0) { /* durable, and attached still: others fork from it */
        result = abode_detach(host->queue, session->handle, ABODE_DETACH_KEEP, &session->op);
    }
    if (result >= 0) {
        result = cli_op_wait(host->queue, &session->op);
    }
    session->exists = result >= 0;
    session->turns_done = 1;
    return result < 0 ? result : host_tell_totals(host, DEMO_ACKNOWLEDGED, conversation, 0);
}

static int prefixes_ready(struct host *host)
{
    int result = 0;
    for (uint32_t i = host->workload.session_count;
         i < host->workload.conversation_count && result >= 0; i++) {
        result = prefix_ready(host, i);
        if (result < 0) {
            return fail(host, result, "preparing a shared prefix", i);
        }
    }
    return result;
}

/* ---- open and recover ---------------------------------------------------------------------------- */

static int read_whole(int fd, void *bytes, size_t size)
{
    unsigned char *out = bytes;
    size_t done = 0;
    while (done < size) {
        const ssize_t count = read(fd, out + done, size - done);
        if (count == 0 || (count < 0 && errno != EINTR)) {
            return count == 0 ? -EPIPE : -errno;
        }
        done += count > 0 ? (size_t)count : 0;
    }
    return 0;
}

static int runtime_open(struct host *host, struct cli_log *log)
{
    const char *paths[DEMO_PATHS_MAX];
    struct abode_config config;
    const struct demo_task *task = &host->task;
    for (uint32_t i = 0; i < task->path_count; i++) {
        paths[i] = task->paths[i];
    }
    abode_config_init(&config);
    config.flags = ABODE_CREATE;
    config.memory_bytes_max = task->memory_bytes;
    config.store_bytes_max = task->store_bytes;
    config.segment_bytes = task->segment_bytes;
    config.store_paths = paths;
    config.store_path_count = task->path_count;
    config.io = task->io;
    config.huge = task->huge;
    config.log = cli_log_line;
    config.log_context = log;
    const uint64_t start_ns = cli_now_ns();
    int result = abode_open(&config, &host->runtime);
    if (result < 0) {
        (void)cli_fail(result, NULL, "demo: opening the store '%s'", paths[0]);
        return result;
    }
    struct memory_plan plan;
    result = workload_memory_plan(&host->workload, task->memory_bytes, task->in_flight, &plan);
    for (uint32_t i = 0; i < MODEL_COUNT && result >= 0; i++) {
        struct model_shape shape;
        model_shape_make(&host->workload, i, &plan, &shape);
        result = abode_model_add(host->runtime, &shape.desc, &host->models[i]);
    }
    if (result >= 0) {
        result = abode_queue_open(host->runtime, HOST_READY_MAX, &host->queue);
    }
    if (result < 0) {
        (void)cli_fail(result, NULL, "demo: declaring models with %s of memory",
                       cli_bytes_text(task->memory_bytes).text);
        return result;
    }
    return host_tell(host, DEMO_OPENED, WORKLOAD_NONE, (int64_t)(cli_now_ns() - start_ns));
}

static int session_recover(struct host *host, uint32_t conversation, uint32_t turns_acknowledged)
{
    struct host_session *session = &host->sessions[conversation];
    const struct abode_key name = conversation_name(&host->workload, conversation);
    struct abode_session_info info = {.struct_size = sizeof(info)};
    int result = abode_session_find(host->runtime, &name, &session->handle);
    if (result == -ENOENT) {
        const bool over = turns_acknowledged == DEMO_OVER;
        session->stage = over ? HOST_OVER : HOST_IDLE;
        return over ? 0 : host_tell(host, DEMO_RECOVERED, conversation, 0);
    }
    if (result >= 0) {
        result = abode_session_stat(host->runtime, session->handle, &info);
    }
    if (result < 0) {
        return fail(host, result, "finding", conversation);
    }
    const int64_t turns = conversation_turns_done(&host->workload, conversation, info.token_count);
    if (turns < 0) {
        (void)fprintf(stderr,
                      "abode: demo: session %u came back with %llu tokens: no turn ends "
                      "there\n",
                      conversation, (unsigned long long)info.token_count);
        session->stage = HOST_OVER;
        return host_tell(host, DEMO_LOST, conversation, -ABODE_ECORRUPT);
    }
    session->exists = true;
    session->turns_done = (uint32_t)turns;
    result = host_tell(host, DEMO_RECOVERED, conversation, 1);
    if (result >= 0 && turns_acknowledged == DEMO_OVER) {
        return session_delete(host, conversation); /* the kill came before the store forgot it */
    }
    return result;
}

static int recover(struct host *host, const uint32_t *turns_acknowledged)
{
    int result = 0;
    for (uint32_t i = 0; i < host->workload.conversation_count && result >= 0; i++) {
        result = session_recover(host, i, turns_acknowledged[i]);
    }
    return result;
}

/* ---- audit --------------------------------------------------------------------------------------- */

static void audit_events_make(struct host *host)
{
    host->events = cli_alloc(host->workload.session_count, sizeof(*host->events));
    host->event_count = 0;
    for (uint32_t i = 0; i < host->workload.session_count; i++) {
        const struct host_session *session = &host->sessions[i];
        if (session->exists && session->stage == HOST_IDLE) {
            host->events[host->event_count++] = (struct workload_event){i, 0};
        }
    }
}

/* ---- the process --------------------------------------------------------------------------------- */

static int host_close(struct host *host)
{
    for (uint32_t i = host->workload.session_count; i < host->workload.conversation_count; i++) {
        struct host_session *session = &host->sessions[i];
        int result =
            session->exists ? abode_detach(host->queue, session->handle, 0, &session->op) : 0;
        if (result >= 0 && session->exists) {
            result = cli_op_wait(host->queue, &session->op);
        }
        if (result < 0) {
            return fail(host, result, "detaching a shared prefix", i);
        }
    }
    int result = abode_queue_close(host->queue);
    if (result >= 0) {
        result = abode_close(host->runtime);
    }
    return result;
}

static int host_run(struct host *host, const uint32_t *turns_acknowledged)
{
    int result = recover(host, turns_acknowledged);
    if (result >= 0) {
        result = prefixes_ready(host);
    }
    if (result < 0) {
        return result;
    }
    const bool audit = host->task.phase == DEMO_AUDIT;
    if (audit) {
        audit_events_make(host);
    } else {
        host->events = host->workload.events;
        host->event_count = host->workload.turn_count;
    }
    result = loop(host);
    if (result >= 0 && audit) {
        result = host_tell_places(host);
        if (result < 0) {
            (void)cli_fail(result, NULL, "demo: asking where the sessions live");
        }
    }
    uint32_t left = 0;
    for (uint32_t i = host->event_next; i < host->event_count; i++) {
        const struct host_session *session = &host->sessions[host->events[i].conversation];
        left += session->stage != HOST_OVER && host->events[i].turn >= session->turns_done;
    }
    if (result >= 0) {
        result = host_tell_totals(host, DEMO_DONE, WORKLOAD_NONE, left);
    }
    return result < 0 ? result : host_close(host);
}

int cli_demo_host(int argc, char **argv)
{
    (void)argv;
    struct host host;
    struct cli_log log = {0};
    memset(&host, 0, sizeof(host));
    if (argc != 1 || isatty(STDIN_FILENO) ||
        read_whole(STDIN_FILENO, &host.task, sizeof(host.task)) < 0 ||
        host.task.magic != DEMO_MAGIC) {
        return cli_usage("run 'abode demo'", "demo-host is a part of 'abode demo'");
    }
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL); /* no orphan goes on writing to the store */
    log.level = (int)host.task.log_level;
    if (workload_make(&host.task.workload, &host.workload) < 0) {
        return CLI_FAILED;
    }
    const uint32_t count = host.workload.conversation_count;
    uint32_t *turns_acknowledged = cli_alloc(count, sizeof(*turns_acknowledged));
    host.sessions = cli_alloc(count, sizeof(*host.sessions));
    host.sample_ns = cli_now_ns();
    int result = read_whole(STDIN_FILENO, turns_acknowledged, count * sizeof(uint32_t));
    if (result >= 0) {
        result = runtime_open(&host, &log);
    }
    if (result >= 0) {
        result = host_run(&host, turns_acknowledged);
    }
    if (result < 0) {
        return CLI_FAILED; /* ops may be in flight and refer to our memory: the process ends */
    }
    if (host.events != host.workload.events) {
        free(host.events);
    }
    free(host.sessions);
    free(turns_acknowledged);
    workload_free(&host.workload);
    return CLI_OK;
}
