/*
 * demo_child.c - start a child host, listen to it, kill it while it spills, judge what the next
 * one finds. The oracle is the array of demo_session: it only believes acknowledgements.
 */
#include "demo_child.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#define SILENCE_MS_MAX 120000 /* a child that says nothing for so long is stuck */
#define POLL_MS 200
#define KILL_DELAY_US_MAX 3000
#define SPILLS_FOR_KILL 2 /* kill when at least so many durable detaches are under way */

/* ---- start ----------------------------------------------------------------------------------- */

static void child_exec(int task_fd, int message_fd)
{
    char name[] = "abode", command[] = "demo-host";
    char *const arguments[] = {name, command, NULL};
    const bool placed = message_fd == DEMO_MESSAGE_FD;
    const int failed =
        dup2(task_fd, STDIN_FILENO) < 0 ||
        (placed ? fcntl(message_fd, F_SETFD, 0) : dup2(message_fd, DEMO_MESSAGE_FD)) < 0;
    if (!failed) {
        (void)execv("/proc/self/exe", arguments);
    }
    _exit(127);
}

static int whole_write(int fd, const void *bytes, size_t size)
{
    const unsigned char *in = bytes;
    size_t done = 0;
    while (done < size) {
        const ssize_t count = write(fd, in + done, size - done);
        if (count < 0 && errno != EINTR) {
            return -errno;
        }
        done += count > 0 ? (size_t)count : 0;
    }
    return 0;
}

static int task_send(const struct child *child, int fd)
{
    const struct demo_result *result = child->result;
    const uint32_t count = result->workload.conversation_count;
    uint32_t *turns = cli_alloc(count, sizeof(*turns));
    for (uint32_t i = 0; i < count; i++) {
        const struct demo_session *session = &result->sessions[i];
        turns[i] = session->deleted ? DEMO_OVER : session->turns_acknowledged;
    }
    int failed = whole_write(fd, child->task, sizeof(*child->task));
    if (failed >= 0) {
        failed = whole_write(fd, turns, count * sizeof(*turns));
    }
    free(turns);
    return failed;
}

static int child_start(struct child *child)
{
    int task[2], message[2];
    if (pipe2(task, O_CLOEXEC) != 0) {
        return -errno;
    }
    if (pipe2(message, O_CLOEXEC) != 0) {
        const int why = -errno;
        (void)close(task[0]);
        (void)close(task[1]);
        return why;
    }
    cli_flush();
    child->pid = fork();
    if (child->pid == 0) {
        child_exec(task[0], message[1]);
    }
    const int why = child->pid < 0 ? -errno : 0;
    (void)close(task[0]);
    (void)close(message[1]);
    child->message_fd = message[0];
    const int sent = why < 0 ? why : task_send(child, task[1]);
    (void)close(task[1]);
    child->result->processes++;
    return sent;
}

/* ---- listening ------------------------------------------------------------------------------- */

static void recovered(struct child *child, const struct demo_message *message)
{
    struct demo_result *result = child->result;
    struct demo_session *session = &result->sessions[message->conversation];
    const bool found = message->value != 0;
    if (session->deleted) {
        result->deleted_returned += found && session->delete_firm;
        return;
    }
    if (message->turns < session->turns_acknowledged) {
        (void)fprintf(stderr,
                      "abode: demo: session %u: turn %u was acknowledged, turn %u came "
                      "back\n",
                      message->conversation, session->turns_acknowledged, message->turns);
        result->acknowledged_lost += session->turns_acknowledged - message->turns;
    }
    const bool counts = message->conversation < result->workload.session_count;
    if (message->turns > session->turns_acknowledged && counts) {
        /* the kill came between the last write and the word of it */
        result->turns += message->turns - session->turns_acknowledged;
        result->turns_whole_unacknowledged++;
    }
    session->turns_acknowledged = message->turns;
}

static void acknowledged(struct child *child, const struct demo_message *message)
{
    struct demo_result *result = child->result;
    struct demo_session *session = &result->sessions[message->conversation];
    child->spilling -= session->spilling;
    session->spilling = false;
    session->turns_acknowledged = message->turns;
    result->turns += message->conversation < result->workload.session_count;
    child->totals = message->totals;
}

static void lost(struct child *child, const struct demo_message *message)
{
    struct demo_session *session = &child->result->sessions[message->conversation];
    const uint32_t turns = session->turns_acknowledged;
    child->result->acknowledged_lost += turns > 0 ? turns : 1;
    session->lost = true;
    session->turns_acknowledged = 0;
}

static void machine_heard(struct demo_result *result, const struct demo_message *message)
{
    if (message->type == DEMO_NODE && message->index < DEMO_NODES_MAX) {
        result->nodes[message->index] = message->node;
        result->node_count = message->index + 1;
    } else if (message->type == DEMO_DEVICE && message->index < DEMO_DEVICES_MAX) {
        result->devices[message->index] = message->device;
        result->device_count = message->index + 1;
    } else if (message->type == DEMO_SUPPORT) {
        memcpy(result->support, message->support, sizeof(result->support));
        result->support_known = true;
    }
}

static void session_heard(struct child *child, const struct demo_message *message)
{
    struct demo_result *result = child->result;
    struct demo_session *session = &result->sessions[message->conversation];
    if (message->type == DEMO_RECOVERED) {
        recovered(child, message);
    } else if (message->type == DEMO_SPILLING) {
        child->spilling += !session->spilling;
        session->spilling = true;
    } else if (message->type == DEMO_ACKNOWLEDGED) {
        acknowledged(child, message);
    } else if (message->type == DEMO_DELETED) {
        session->deleted = true;
    } else if (message->type == DEMO_DELETE_FIRM) {
        session->delete_firm = true;
    } else if (message->type == DEMO_CHECKED) {
        session->checked = true;
        child->totals = message->totals;
        child->checked++;
    } else if (message->type == DEMO_LOST) {
        lost(child, message);
    } else if (message->type == DEMO_PLACE) {
        session->placed = true;
        session->place = message->place;
    }
}

static void heard(struct child *child, const struct demo_message *message)
{
    struct demo_result *result = child->result;
    if (message->type == DEMO_DONE) {
        child->done = true;
        child->totals = message->totals;
        result->turns_left =
            child->task->phase == DEMO_CONVERSE ? (uint64_t)message->value : result->turns_left;
    } else if (message->type == DEMO_OPENED) {
        const bool after_kill = result->kills > 0;
        const uint64_t ns = (uint64_t)message->value;
        result->recover_ns_max =
            after_kill && ns > result->recover_ns_max ? ns : result->recover_ns_max;
    } else if (message->type == DEMO_NODE || message->type == DEMO_DEVICE ||
               message->type == DEMO_SUPPORT) {
        machine_heard(result, message);
    } else if (message->conversation < result->workload.conversation_count) {
        session_heard(child, message);
    }
}

/* Whole messages go to heard(); what is left of one stays in the buffer. 0: the pipe has ended. */
static ssize_t pipe_read(struct child *child)
{
    unsigned char *buffer = (unsigned char *)&child->message;
    const ssize_t count = read(child->message_fd, buffer + child->message_bytes,
                               sizeof(child->message) - child->message_bytes);
    if (count <= 0) {
        return count < 0 && errno == EINTR ? 1 : count;
    }
    child->message_bytes += (size_t)count;
    if (child->message_bytes == sizeof(child->message)) {
        heard(child, &child->message);
        child->message_bytes = 0;
    }
    return count;
}

/* ---- the kill -------------------------------------------------------------------------------- */

static bool kill_is_due(const struct child *child)
{
    if (child->task->phase != DEMO_CONVERSE || child->result->kills >= child->kills_wanted ||
        child->spilling < (child->task->in_flight > 1 ? SPILLS_FOR_KILL : 1)) {
        return false;
    }
    const double next = (double)(child->result->kills + 1) / (child->kills_wanted + 1);
    const double turns_share =
        (double)child->result->turns / (double)child->result->workload.turn_count;
    const double time_share = (double)(cli_now_ns() - child->start_ns) /
                              (double)(child->task->deadline_ns - child->start_ns);
    return turns_share >= next || time_share >= next;
}

static void kill_now(struct child *child)
{
    /* a moment that nobody chose: anywhere within the writes that are under way */
    child->random = child->random * 6364136223846793005ull + 1442695040888963407ull;
    (void)usleep((useconds_t)((child->random >> 33) % KILL_DELAY_US_MAX));
    (void)kill(child->pid, SIGKILL);
    child->killed = true;
    child->result->kills++;
}

/* ---- one child, from start to end -------------------------------------------------------------- */

static void totals_add(struct demo_totals *sum, const struct demo_totals *one)
{
    sum->bytes_verified += one->bytes_verified;
    sum->bytes_wrong += one->bytes_wrong;
    sum->bytes_filled += one->bytes_filled;
    sum->prompt_tokens += one->prompt_tokens;
    sum->answer_tokens += one->answer_tokens;
    sum->attach_count += one->attach_count;
    sum->attach_wait_ns += one->attach_wait_ns;
    sum->restore_busy_ns += one->restore_busy_ns;
    sum->memory_byte_s += one->memory_byte_s;
    sum->store_byte_s += one->store_byte_s;
    sum->fork_count += one->fork_count;
    sum->prefix_hit_count += one->prefix_hit_count;
    sum->delete_count += one->delete_count;
    sum->store_full_count += one->store_full_count;
    struct abode_stats stats = one->stats; /* states as the last child saw them, counts added */
    stats.bytes_accepted += sum->stats.bytes_accepted;
    stats.bytes_spilled += sum->stats.bytes_spilled;
    stats.bytes_written += sum->stats.bytes_written;
    stats.bytes_prepared += sum->stats.bytes_prepared;
    stats.bytes_restored += sum->stats.bytes_restored;
    stats.checksum_failures += sum->stats.checksum_failures;
    stats.io_errors += sum->stats.io_errors;
    stats.blocks_evicted += sum->stats.blocks_evicted;
    stats.sessions_dropped += sum->stats.sessions_dropped;
    stats.remote_attach_bytes += sum->stats.remote_attach_bytes;
    sum->stats = stats;
}

static void progress_draw(const struct child *child, struct cli_progress *progress)
{
    const struct demo_result *result = child->result;
    char remark[96];
    if (child->task->phase == DEMO_AUDIT) {
        (void)snprintf(remark, sizeof(remark), "audit: %u sessions read back", child->checked);
    } else {
        (void)snprintf(remark, sizeof(remark), "turn %llu of %u, %u of %u kills",
                       (unsigned long long)result->turns, result->workload.turn_count,
                       result->kills, child->kills_wanted);
    }
    cli_progress_update(progress, result->turns + child->checked,
                        (uint64_t)result->workload.turn_count + result->workload.session_count,
                        remark);
}

/* Listen until the pipe ends. 0, -EINTR (a signal), -ETIMEDOUT (silence). */
static int child_listen(struct child *child, struct cli_progress *progress)
{
    int silence_ms = 0;
    for (;;) {
        struct pollfd waiting = {.fd = child->message_fd, .events = POLLIN};
        const int ready = poll(&waiting, 1, POLL_MS);
        if (cli_interrupted) {
            return -EINTR;
        }
        silence_ms = ready > 0 ? 0 : silence_ms + POLL_MS;
        if (silence_ms > SILENCE_MS_MAX) {
            return -ETIMEDOUT;
        }
        if (ready > 0 && pipe_read(child) <= 0) {
            return 0;
        }
        if (!child->killed && kill_is_due(child)) {
            kill_now(child);
        }
        progress_draw(child, progress);
    }
}

static void child_end(struct child *child, int *ret_status)
{
    struct rusage usage;
    memset(&usage, 0, sizeof(usage));
    while (wait4(child->pid, ret_status, 0, &usage) < 0 && errno == EINTR) {}
    (void)close(child->message_fd);
    struct demo_result *result = child->result;
    const uint64_t peak = (uint64_t)usage.ru_maxrss * 1024;
    result->memory_peak_bytes = peak > result->memory_peak_bytes ? peak : result->memory_peak_bytes;
    result->cpu_seconds += (double)usage.ru_utime.tv_sec + (double)usage.ru_utime.tv_usec / 1e6 +
                           (double)usage.ru_stime.tv_sec + (double)usage.ru_stime.tv_usec / 1e6;
    totals_add(&result->totals, &child->totals);
    for (uint32_t i = 0; i < result->workload.conversation_count; i++) {
        result->spills_at_kills += child->killed && result->sessions[i].spilling;
        result->sessions[i].spilling = false;
    }
}

int child_run(struct child *child, struct cli_progress *progress)
{
    child->message_bytes = 0;
    child->spilling = child->checked = 0;
    child->done = child->killed = false;
    memset(&child->totals, 0, sizeof(child->totals));
    int status = 0;
    const int started = child_start(child);
    if (child->pid < 0) {
        return cli_fail(started, NULL, "demo: starting a host process");
    }
    const int heard_all = child_listen(child, progress);
    if (heard_all < 0) {
        (void)kill(child->pid, SIGKILL);
    }
    child_end(child, &status);
    if (heard_all == -EINTR) {
        cli_progress_end(progress);
        return cli_fail(-EINTR, "everything that was made has been removed", "demo");
    }
    if (heard_all < 0) {
        return cli_fail(heard_all, "look at dmesg and iostat", "demo: the host process is stuck");
    }
    const bool clean = child->done && WIFEXITED(status) && WEXITSTATUS(status) == 0;
    const bool as_wanted = child->killed && WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL;
    if (clean || as_wanted) {
        return CLI_OK;
    }
    if (WIFSIGNALED(status)) {
        (void)cli_usage("please report it, with the lines above",
                        "demo: the host process died of signal %d", WTERMSIG(status));
    }
    return CLI_FAILED; /* the child has said why */
}
