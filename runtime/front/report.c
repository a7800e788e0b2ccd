/*
 * report.c - what there is: support, statistics, machine; and flush.
 */
#include <stdio.h>
#include <string.h>

#include "base/num.h"
#include "front/front.h"
#include "kv/persist.h"

static uint64_t load(const _Atomic uint64_t *counter)
{
    return atomic_load_explicit(counter, memory_order_relaxed);
}

/* ---- support ---- */

static const char *const ENGINES[] = {"auto", "io_uring", "threads", "sync"};

static void support_io(struct abode *runtime, struct abode_support *ret)
{
    if (runtime->kv->transfer == NULL) {
        return;
    }
    struct ab_io_facts facts = ab_transfer_facts(runtime->kv->transfer);
    ret->io_engine = (int32_t)facts.engine;
    ret->io_engine_reason = facts.engine_reason;
    ret->fixed_buffers = facts.fixed_buffers;
    ret->fixed_buffers_reason = facts.fixed_buffers_reason;
    const char *mend = facts.engine_reason == 0 ? ""
                       : facts.engine_reason == -EPERM || facts.engine_reason == -EACCES
                           ? ": allow io_uring in the container's seccomp profile and set "
                             "kernel.io_uring_disabled=0"
                           : ": needs Linux 5.19 or later";
    (void)snprintf(runtime->texts[0], AB_SUPPORT_TEXT_MAX, "%s%s%s%s", ENGINES[facts.engine],
                   facts.engine_reason != 0 ? ", io_uring refused: " : "",
                   facts.engine_reason != 0 ? abode_strerror(facts.engine_reason) : "", mend);
    if (facts.fixed_buffers) {
        (void)snprintf(runtime->texts[1], AB_SUPPORT_TEXT_MAX, "buffers are registered");
    } else if (facts.fixed_buffers_reason == 0) {
        (void)snprintf(runtime->texts[1], AB_SUPPORT_TEXT_MAX,
                       "not registered: nothing to register yet, or not this engine");
    } else {
        (void)snprintf(runtime->texts[1], AB_SUPPORT_TEXT_MAX,
                       "not registered: %s: raise RLIMIT_MEMLOCK to %llu bytes (ulimit -l)",
                       abode_strerror(facts.fixed_buffers_reason),
                       (unsigned long long)facts.memlock_needed);
    }
}

static void support_direct(struct abode *runtime, struct abode_support *ret)
{
    (void)snprintf(runtime->texts[2], AB_SUPPORT_TEXT_MAX, "no store");
    ret->direct_io = runtime->store != NULL;
    for (uint32_t i = 0; runtime->store != NULL && i < ab_store_device_count(runtime->store); i++) {
        struct ab_store_device device = ab_store_device(runtime->store, i);
        if (!device.direct_io) {
            ret->direct_io = 0;
            ret->direct_io_reason = device.direct_io_reason;
            (void)snprintf(runtime->texts[2], AB_SUPPORT_TEXT_MAX,
                           "buffered I/O on %.160s: no O_DIRECT (%s): use ext4, XFS or a block "
                           "device",
                           device.path, abode_strerror(device.direct_io_reason));
            return;
        }
        (void)snprintf(runtime->texts[2], AB_SUPPORT_TEXT_MAX, "O_DIRECT on every directory");
    }
}

static void support_memory(struct abode *runtime, struct abode_support *ret)
{
    const struct ab_space_facts *facts = NULL;
    ab_lock_take(&runtime->kv->lock);
    for (uint32_t m = 0; m < AB_MODELS_MAX && facts == NULL; m++) {
        if (runtime->kv->models[m].declared) {
            facts = ab_frames_facts(runtime->kv->models[m].components[0].frames);
        }
    }
    ab_lock_drop(&runtime->kv->lock);
    if (facts == NULL) {
        (void)snprintf(runtime->texts[3], AB_SUPPORT_TEXT_MAX, "no model declared yet");
        (void)snprintf(runtime->texts[4], AB_SUPPORT_TEXT_MAX, "no model declared yet");
        return;
    }
    ret->node_binding = (int32_t)facts->binding;
    ret->node_binding_reason = facts->binding_reason;
    ret->huge_pages = (int32_t)facts->huge;
    ret->huge_pages_reason = facts->huge_reason;
    const char *binding = facts->binding == AB_BINDING_MBIND   ? "bound by mbind"
                          : facts->binding == AB_BINDING_TOUCH ? "placed by first touch"
                                                               : "not bound";
    (void)snprintf(runtime->texts[3], AB_SUPPORT_TEXT_MAX, "%s%s%s%s%s", binding,
                   facts->verified ? ", verified by move_pages" : ", not verified",
                   facts->binding_reason != 0 ? ": mbind refused: " : "",
                   facts->binding_reason != 0 ? abode_strerror(facts->binding_reason) : "",
                   facts->binding_reason == -EPERM
                       ? ": give the container CAP_SYS_NICE (docker --cap-add SYS_NICE)"
                       : "");
    const char *huge = facts->huge == AB_HUGE_TLB   ? "hugetlb pages"
                       : facts->huge == AB_HUGE_THP ? "transparent huge pages"
                                                    : "4 KiB pages";
    (void)snprintf(runtime->texts[4], AB_SUPPORT_TEXT_MAX, "%s, %llu MiB really huge%s%s%s", huge,
                   (unsigned long long)(facts->huge_bytes >> 20),
                   facts->huge_reason != 0 ? "; not more: " : "",
                   facts->huge_reason != 0 ? abode_strerror(facts->huge_reason) : "",
                   facts->huge_reason != 0
                       ? ": echo madvise > /sys/kernel/mm/transparent_hugepage/enabled"
                       : "");
}

int abode_support_get(const struct abode *constant, struct abode_support *ret)
{
    struct abode *runtime = (struct abode *)constant; /* texts are made anew under the lock */
    if (runtime == NULL || ret == NULL) {
        return -EINVAL;
    }
    if (ab_forked(&runtime->poison)) {
        return -ENOTRECOVERABLE;
    }
    *ret = (struct abode_support){.struct_size = sizeof(*ret)};
    ab_lock_take(&runtime->lock);
    (void)snprintf(runtime->texts[0], AB_SUPPORT_TEXT_MAX, "none: opened read-only");
    (void)snprintf(runtime->texts[1], AB_SUPPORT_TEXT_MAX, "none: opened read-only");
    support_io(runtime, ret);
    support_direct(runtime, ret);
    support_memory(runtime, ret);
    ab_lock_drop(&runtime->lock);
    ret->io_engine_text = runtime->texts[0];
    ret->fixed_buffers_text = runtime->texts[1];
    ret->direct_io_text = runtime->texts[2];
    ret->node_binding_text = runtime->texts[3];
    ret->huge_pages_text = runtime->texts[4];
    return 0;
}

/* ---- statistics ---- */

/* Frames looked at before the lock is given to others: about 7 us. */
#define STATS_FRAMES_AT_ONCE 1024u

/* Lock KV held, dropped in between: a model's frames stay until the runtime is closed. */
static uint64_t pinned_count(struct ab_kv *kv, const struct ab_component *component)
{
    const uint32_t capacity = ab_frames_capacity(component->frames);
    uint64_t pinned = 0;
    for (uint32_t f = 0; f < capacity; f++) {
        pinned += component->infos[f].state != AB_FRAME_FREE && component->infos[f].pins > 0;
        if (f % STATS_FRAMES_AT_ONCE == STATS_FRAMES_AT_ONCE - 1) {
            ab_lock_drop(&kv->lock);
            ab_lock_take(&kv->lock);
        }
    }
    return pinned;
}

static void stats_frames(struct ab_kv *kv, struct abode_stats *ret)
{
    for (uint32_t m = 0; m < AB_MODELS_MAX; m++) {
        const struct ab_model *model = &kv->models[m];
        for (uint32_t c = 0; model->declared && c < model->component_count; c++) {
            const struct ab_component *component = &model->components[c];
            for (uint32_t n = 0; n < ret->node_count; n++) {
                ret->frames_total += ab_frames_total(component->frames, n);
                ret->frames_free += ab_frames_free(component->frames, n);
            }
            ret->blocks_pinned += pinned_count(kv, component);
        }
    }
    ret->blocks_resident = ret->frames_total - ret->frames_free;
}

int abode_stats_get(const struct abode *runtime, struct abode_stats *ret)
{
    if (runtime == NULL || ret == NULL) {
        return -EINVAL;
    }
    if (ab_forked(&runtime->poison)) {
        return -ENOTRECOVERABLE;
    }
    struct ab_kv *kv = runtime->kv;
    *ret = (struct abode_stats){.struct_size = sizeof(*ret),
                                .node_count = ab_topology_node_count(runtime->topology)};
    ab_lock_take(&kv->lock);
    ret->session_count = kv->session_used;
    ret->blocks_stored = kv->block_stored;
    stats_frames(kv, ret);
    ret->metadata_bytes = ab_kv_metadata_bytes(kv);
    ab_lock_drop(&kv->lock);
    const struct ab_counters *counters = &kv->counters;
    ret->bytes_accepted = load(&counters->bytes_accepted);
    ret->bytes_spilled = load(&counters->bytes_spilled);
    ret->bytes_restored = load(&counters->bytes_restored);
    ret->checksum_failures = load(&counters->checksum_failures);
    ret->io_errors = load(&counters->io_errors);
    ret->blocks_evicted = load(&counters->blocks_evicted);
    ret->bytes_scrubbed = load(&counters->bytes_scrubbed);
    ret->scrub_rounds = load(&counters->scrub_rounds);
    ret->sessions_dropped = load(&counters->sessions_dropped);
    ret->remote_attach_bytes = load(&counters->remote_bytes);
    if (runtime->store != NULL) {
        struct ab_store_stats store = ab_store_stats(runtime->store);
        ret->device_count = ab_store_device_count(runtime->store);
        ret->bytes_written = ret->bytes_spilled + load(&counters->bytes_headers) +
                             store.journal_bytes + store.checkpoint_bytes;
        ret->bytes_prepared = store.prepared_bytes;
        ret->store_bytes_total = store.pages_total * AB_PAGE;
        ret->store_bytes_live = store.pages_live * AB_PAGE;
        ret->store_bytes_free = store.segments_free * ab_store_segment_bytes(runtime->store);
        ret->metadata_bytes += store.metadata_bytes;
    }
    return 0;
}

/* ---- machine ---- */

int abode_machine_node_get(struct abode *runtime, uint32_t index, struct abode_node_info *ret)
{
    if (runtime == NULL || ret == NULL) {
        return -EINVAL;
    }
    if (ab_forked(&runtime->poison)) {
        return -ENOTRECOVERABLE;
    }
    if (index >= ab_topology_node_count(runtime->topology)) {
        return -ENOENT;
    }
    const struct ab_node *node = ab_topology_node(runtime->topology, index);
    *ret = (struct abode_node_info){.struct_size = sizeof(*ret),
                                    .os_index = node->os_index,
                                    .cpu_count = node->cpu_count,
                                    .bytes_total = node->bytes};
    struct ab_kv *kv = runtime->kv;
    ab_lock_take(&kv->lock);
    for (uint32_t m = 0; m < AB_MODELS_MAX; m++) {
        for (uint32_t c = 0; kv->models[m].declared && c < kv->models[m].component_count; c++) {
            const struct ab_frames *frames = kv->models[m].components[c].frames;
            ret->frame_bytes += ab_frames_total(frames, index) * ab_frames_stride(frames);
            ret->frame_bytes_free += ab_frames_free(frames, index) * ab_frames_stride(frames);
        }
    }
    ab_lock_drop(&kv->lock);
    return 0;
}

int abode_machine_device_get(struct abode *runtime, uint32_t index, struct abode_device_info *ret)
{
    if (runtime == NULL || ret == NULL) {
        return -EINVAL;
    }
    if (ab_forked(&runtime->poison)) {
        return -ENOTRECOVERABLE;
    }
    if (runtime->store == NULL || index >= ab_store_device_count(runtime->store)) {
        return -ENOENT;
    }
    struct ab_store_device device = ab_store_device(runtime->store, index);
    *ret = (struct abode_device_info){.struct_size = sizeof(*ret), .node = device.node};
    ret->bytes_total = device.bytes_total;
    ret->bytes_used = device.bytes_live;
    (void)snprintf(ret->path, sizeof(ret->path), "%s", device.path);
    (void)snprintf(ret->name, sizeof(ret->name), "?");
    if (device.device >= 0) {
        const struct ab_device *disk =
            ab_topology_device(runtime->topology, (uint32_t)device.device);
        (void)snprintf(ret->name, sizeof(ret->name), "%s", disk->name);
        (void)snprintf(ret->pci, sizeof(ret->pci), "%s", disk->pci);
    }
    return 0;
}

/* ---- flush ---- */

enum { FLUSH_WAITED_FOR = 1, FLUSH_LEFT = 2 }; /* above any status */
struct flush {
    _Atomic int
        state; /* one of these, or the commit's status; who sees the other's mark frees it */
};

static void flush_done(struct ab_record *record, int status)
{
    struct flush *flush = record->context;
    if (atomic_exchange(&flush->state, status) == FLUSH_LEFT) {
        record->kv->os->free(record->kv->os, flush);
    }
}

static bool promise_is_open(struct ab_kv *kv, const struct ab_session *session)
{
    return session->state == AB_SESSION_DETACHED && session->durability > ABODE_MEM &&
           (!session->recorded || session->changed || session->note_dirty ||
            session->stored_tokens != session->token_count || ab_session_is_dirty(kv, session));
}

struct unkept {
    uint32_t count; /* sessions whose promise is not kept: a detach failed, or is under way */
    int status;     /* why, of one of them; 0: not tried yet */
};

/* What is not kept yet; start: and try again. */
static struct unkept flush_sessions(struct ab_kv *kv, bool start)
{
    struct unkept unkept = {.count = 0};
    ab_lock_take(&kv->lock);
    for (uint32_t i = 0; i < kv->session_high; i++) {
        struct ab_session *session = &kv->sessions[i];
        if (!promise_is_open(kv, session)) {
            continue;
        }
        unkept.count++;
        unkept.status = session->detach_status != 0 ? session->detach_status : unkept.status;
        struct ab_task *task =
            !start || session->task != NULL ? NULL : ab_task_own_new(kv, AB_TASK_DETACH);
        if (task == NULL) {
            continue; /* no task is free: the next round */
        }
        task->session = i;
        task->generation = session->generation;
        task->model = session->model;
        task->node = session->home_node;
        task->promise = (enum ab_promise)session->durability;
        session->task = task;
        ab_task_start(task);
    }
    ab_lock_drop(&kv->lock);
    return unkept;
}

static bool is_busy(struct ab_kv *kv)
{
    ab_lock_take(&kv->lock);
    bool busy = !ab_list_is_empty(&kv->transfer->active);
    ab_lock_drop(&kv->lock);
    return busy;
}

#define FLUSH_NAP_NS (200ll * 1000)

/* Rounds go on as long as each one keeps some promises. */
static int sessions_wait(struct abode *runtime, uint64_t end)
{
    struct ab_kv *kv = runtime->kv;
    struct unkept before = flush_sessions(kv, true), now = before;
    for (bool better = true; better || is_busy(kv);) {
        if (is_busy(kv)) {
            if (end != 0 && runtime->os->clock_ns(runtime->os) > end) {
                return -ETIMEDOUT;
            }
            (void)runtime->os->poll(runtime->os, -1, 0, FLUSH_NAP_NS);
            continue;
        }
        now = flush_sessions(kv, false);
        better = now.count > 0 && now.count < before.count;
        if (better) {
            before = flush_sessions(kv, true);
        }
    }
    return now.count == 0 ? 0 : now.status != 0 ? now.status : -EAGAIN;
}

static int barrier_wait(struct abode *runtime, uint64_t end)
{
    struct ab_kv *kv = runtime->kv;
    struct ab_record *record = ab_record_new(kv);
    struct flush *flush = runtime->os->alloc(runtime->os, sizeof(*flush), 64);
    if (record == NULL || flush == NULL) {
        if (record != NULL) {
            ab_record_free(record);
        }
        runtime->os->free(runtime->os, flush);
        return -ENOMEM;
    }
    atomic_store(&flush->state, FLUSH_WAITED_FOR);
    record->done = flush_done;
    record->context = flush;
    ab_lock_take(&kv->lock);
    ab_record_submit(record, AB_PROMISE_DURABLE);
    ab_lock_drop(&kv->lock);
    while (atomic_load(&flush->state) > 0) {
        int waiting = FLUSH_WAITED_FOR;
        if (end != 0 && runtime->os->clock_ns(runtime->os) > end &&
            atomic_compare_exchange_strong(&flush->state, &waiting, FLUSH_LEFT)) {
            return -ETIMEDOUT;
        }
        (void)runtime->os->poll(runtime->os, -1, 0, FLUSH_NAP_NS);
    }
    int status = atomic_load(&flush->state);
    runtime->os->free(runtime->os, flush);
    return status;
}

/* What is written over it later must be durable too. A record that came behind the barrier is taken
 * for more than it is: that only costs its session's next spill a sync. */
static void sessions_became_durable(struct ab_kv *kv)
{
    ab_lock_take(&kv->lock);
    for (uint32_t i = 0; i < kv->session_high; i++) {
        if (kv->sessions[i].recorded) {
            kv->sessions[i].stored_promise = AB_PROMISE_DURABLE;
        }
    }
    ab_lock_drop(&kv->lock);
}

int abode_flush(struct abode *runtime, int64_t timeout_ns)
{
    struct ab_poison *before;
    int status = ab_enter(runtime, &before);
    if (status != 0 || runtime->store == NULL || runtime->kv->read_only) {
        return status != 0 ? status : ab_leave(runtime, before, 0);
    }
    uint64_t end = 0;
    if (timeout_ns >= 0) {
        end = runtime->os->clock_ns(runtime->os) + (uint64_t)timeout_ns;
    }
    status = sessions_wait(runtime, end);
    int barrier = barrier_wait(runtime, end); /* also what others were promised */
    if (barrier == 0) {
        sessions_became_durable(runtime->kv);
    }
    status = status != 0 ? status : barrier;
    return ab_leave(runtime, before, status);
}
