/*
 * fork_child.c - what a child of the host's fork() finds: every call on the runtime is refused.
 *
 * The child calls them all, in the middle of whatever the host's other threads do, closes what it
 * was given as if it were its own, and ends by exit(), or lives on after the host's death.
 */
#include <errno.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "crash/steps.h"

#define CHILD_LIMIT_S 30u
#define FORK_REFUSED(call) ((call) == -ENOTRECOVERABLE ? 0u : 1u)

static uint32_t session_calls(struct abode *runtime, struct abode_session session)
{
    struct abode_session_opts opts = {.struct_size = sizeof(opts), .home_node = -1};
    struct abode_session_info info = {.struct_size = sizeof(info)};
    struct abode_view view = {.struct_size = sizeof(view)};
    struct abode_placement placement = {.struct_size = sizeof(placement)};
    struct abode_span spans[8];
    struct abode_session other;
    struct abode_key key = {0};
    const void *bytes;
    void *room;
    size_t size;
    uint64_t tokens;
    uint32_t wrong = 0;

    wrong += FORK_REFUSED(abode_session_create(runtime, &opts, &other));
    wrong += FORK_REFUSED(abode_session_find(runtime, &key, &other));
    wrong += FORK_REFUSED(abode_session_fork(runtime, session, 0, NULL, &other));
    wrong += FORK_REFUSED(abode_session_truncate(runtime, session, 0));
    wrong += FORK_REFUSED(abode_session_delete(runtime, session));
    wrong += FORK_REFUSED(abode_session_stat(runtime, session, &info));
    wrong += FORK_REFUSED(abode_session_note_set(runtime, session, "x", 1));
    wrong += FORK_REFUSED(abode_session_note_get(runtime, session, NULL, 0));
    wrong += FORK_REFUSED(abode_append_reserve(runtime, session, 1, spans, 8));
    wrong += FORK_REFUSED(abode_append_commit(runtime, session, 1, NULL, 0));
    wrong += FORK_REFUSED(abode_snapshot_reserve(runtime, session, LIVE_SNAPSHOT, 0, &room));
    wrong += FORK_REFUSED(abode_snapshot_commit(runtime, session, LIVE_SNAPSHOT));
    wrong +=
        FORK_REFUSED(abode_snapshot_get(runtime, session, LIVE_SNAPSHOT, &bytes, &size, &tokens));
    wrong += FORK_REFUSED(abode_session_view(runtime, session, 0, &view));
    wrong += FORK_REFUSED(abode_session_placement(runtime, session, &placement));
    abode_advise(runtime, session, ABODE_WILL_NEED, 1);
    return wrong;
}

static int line_ignored(void *context, const char *text, size_t size)
{
    (void)context;
    (void)text;
    (void)size;
    return 0;
}

static uint32_t runtime_calls(struct abode *runtime, uint32_t region)
{
    struct abode_region again = {.struct_size = sizeof(again), .node = -1};
    struct abode_model_desc desc = {.struct_size = sizeof(desc)};
    struct abode_node_info node = {.struct_size = sizeof(node)};
    struct abode_device_info device = {.struct_size = sizeof(device)};
    struct abode_support support = {.struct_size = sizeof(support)};
    struct abode_stats stats = {.struct_size = sizeof(stats)};
    struct abode_verify_report report = {.struct_size = sizeof(report)};
    struct abode_queue *queue;
    struct abode_key key = {0};
    uint64_t lost;
    uint32_t number, wrong = 0;

    wrong += FORK_REFUSED(abode_model_add(runtime, &desc, &number));
    wrong += FORK_REFUSED(abode_queue_open(runtime, 4, &queue));
    wrong += FORK_REFUSED(abode_region_add(runtime, &again, &number));
    wrong += FORK_REFUSED(abode_region_remove(runtime, region));
    wrong += FORK_REFUSED(abode_cache_probe(runtime, 0, &key, 1, NULL));
    abode_cache_touch(runtime, 0, &key, 1);
    wrong += FORK_REFUSED(abode_cache_events(runtime, 0, &key, 1, &lost));
    wrong += FORK_REFUSED(abode_machine_node_get(runtime, 0, &node));
    wrong += FORK_REFUSED(abode_machine_device_get(runtime, 0, &device));
    wrong += FORK_REFUSED(abode_support_get(runtime, &support));
    wrong += FORK_REFUSED(abode_stats_get(runtime, &stats));
    wrong += FORK_REFUSED(abode_flush(runtime, 0));
    wrong += FORK_REFUSED(abode_inspect(runtime, line_ignored, NULL));
    wrong += FORK_REFUSED(abode_verify(runtime, NULL, NULL, NULL, &report));
    return wrong;
}

static uint32_t queue_calls(struct abode_queue *queue, struct abode_session session)
{
    struct abode_op op = {0}, *done;
    struct abode_item item = {0};
    uint32_t wrong = 0;

    wrong += FORK_REFUSED(abode_attach(queue, session, -1, 0, &op));
    wrong += FORK_REFUSED(abode_detach(queue, session, 0, &op));
    wrong += FORK_REFUSED(abode_cache_put(queue, 0, &item, 1, 0, &op));
    wrong += FORK_REFUSED(abode_cache_get(queue, 0, &item, 1, &op));
    wrong += FORK_REFUSED(abode_cache_delete(queue, 0, &item.key, 1, &op));
    wrong += FORK_REFUSED(abode_poll(queue, &done, 1, -1));
    wrong += FORK_REFUSED(abode_cancel(queue, &op));
    wrong += FORK_REFUSED(abode_queue_close(queue));
    return wrong;
}

int worker_fork(struct worker *worker)
{
    bool lingers = worker->plan->fork_lingers && atomic_load(&worker->shared->lingering) == 0;
    pid_t child = fork();
    int status = 0;

    if (child == 0) {
        uint32_t wrong;

        (void)alarm(CHILD_LIMIT_S); /* no call hangs for ever, and no child lives for ever */
        wrong = session_calls(worker->host.runtime, worker->names[0].session) +
                queue_calls(worker->host.queue, worker->names[0].session) +
                runtime_calls(worker->host.runtime, worker->region) +
                FORK_REFUSED(abode_close(worker->host.runtime));

        while (lingers && wrong == 0) {
            (void)pause();
        }
        if (getenv("ABODE_SANITIZE") != NULL) {
            _exit(wrong == 0 ? 0
                             : 1); /* a search for leaks beside other threads finds false ones */
        }
        exit(wrong == 0 ? 0 : 1); /* as a host's child does: with all its handlers */
    }
    if (child < 0) {
        return worker_wrong(worker, "fork: %d", errno);
    }
    if (lingers) {
        atomic_store(&worker->shared->lingering, (uint32_t)child);
        return 0;
    }
    if (waitpid(child, &status, 0) != child || !WIFEXITED(status) || WEXITSTATUS(status) != 0) {
        return worker_wrong(worker, "a call was not refused in a forked child: status %x",
                            (unsigned)status);
    }
    worker->counts->processes_forked++;
    return 0;
}
