/*
 * service.c - the threads of the mover: one per (node, device), each with its own ring.
 *
 *   loop: inbox -> copy in, checksum, submit -> poll -> verify, copy out -> tell the task (lock KV)
 *         -> step runnable tasks -> keep frames free -> again
 *
 * Verification runs beside the reads: the ring is filled before finished pieces are hashed.
 */
#include <string.h>

#include "base/num.h"
#include "kv/reclaim.h"
#include "kv/session.h"
#include "kv/transfer.h"

#define POLL_MAX 32
#define STEPS_PER_ROUND 64
#define OWN_TASKS 64
#define MOVES_PER_SERVICE 128
#define BATCHES_PER_SERVICE 8
#define IDLE_NS (100ll * 1000 * 1000) /* look at deadlines and the store's state this often */
#define DEPTH_DEFAULT 8
#define PIECES_PER_MIB 8 /* small blocks: more of them in flight, in the same bytes */
#define FILES_MAX 16384u /* registered files of a ring: 1 TiB in 64 MiB segments */
#define FILES_MAP_BYTES (AB_STORE_SEGMENTS_MAX * sizeof(uint32_t))

static void host_runs(const struct ab_host_item *host, uint64_t bytes, struct ab_strided *runs,
                      uint32_t *ret_count)
{
    const struct ab_region *region = host->region;
    if (region->host.plane_count == 0) {
        runs[0] =
            (struct ab_strided){(unsigned char *)region->host.base + host->offset, bytes, 0, 1};
        *ret_count = 1;
        return;
    }
    for (uint32_t p = 0; p < region->host.plane_count; p++) {
        runs[p] = (struct ab_strided){(unsigned char *)region->planes[p] +
                                          host->offset * region->plane_strides[p],
                                      region->plane_bytes[p], 0, 1};
    }
    *ret_count = region->host.plane_count;
}

static void move_copy(const struct ab_kv *kv, struct ab_move *move, bool in)
{
    struct ab_strided runs[ABODE_PLANES_MAX];
    uint32_t count;
    host_runs(&move->host, move->bytes, runs, &count);
    if (in) {
        kv->kernels->gather(move->address, runs, count);
    } else {
        kv->kernels->scatter(runs, count, move->address);
    }
}

/* ring file of a segment; AB_IO_FILE_NONE: it cannot be had, which the log hears */
static uint32_t segment_file(struct ab_service *service, uint32_t segment)
{
    if (service->files[segment] == 0) {
        const struct ab_kv *kv = service->transfer->kv;
        int fd = ab_store_segment_fd(kv->store, segment);
        uint32_t file;
        int status = fd < 0 ? fd : ab_io_file_add(service->io, fd, &file);
        if (status != 0) {
            ab_log(kv->log, AB_LOG_ERROR, "store: segment %08x cannot be opened (%s)%s", segment,
                   abode_strerror(status),
                   status == -EMFILE ? ": raise RLIMIT_NOFILE (ulimit -n)" : "");
            return AB_IO_FILE_NONE;
        }
        service->files[segment] = file + 1;
    }
    return service->files[segment] - 1;
}

static void request_fill(struct ab_service *service, struct ab_io_request *request,
                         enum ab_io_kind kind, struct ab_slot slot, void *address, uint64_t bytes)
{
    memset(request, 0, sizeof(*request));
    request->kind = kind;
    request->priority = kind == AB_IO_READ ? AB_IO_RESTORE : AB_IO_SPILL;
    request->file = segment_file(service, slot.segment);
    request->address = address;
    request->bytes = ab_align_up(bytes, AB_PAGE); /* slots and frames are whole pages */
    request->offset = (uint64_t)slot.page * AB_PAGE;
}

static void submit_one(struct ab_service *service, struct ab_io_request *request)
{
    ab_io_submit(service->io, &request, 1);
}

static void batch_start(struct ab_service *service, struct ab_batch *batch)
{
    struct ab_kv *kv = service->transfer->kv;
    for (uint32_t i = 0; i < batch->count; i++) {
        struct ab_move *move = batch->moves[i];
        if (move->staged) {
            move_copy(kv, move, true);
        }
        uint64_t padded = ab_align_up(move->bytes, AB_PAGE);
        if (padded !=
            move->bytes) { /* frames only: host memory is written directly in whole pages */
            memset((unsigned char *)move->address + move->bytes, 0, padded - move->bytes);
        }
        kv->kernels->checksum(move->address, move->bytes,
                              ab_store_seed(kv->store, move->slot, move->generation),
                              move->checksum);
        batch->items[i].checksum = (struct ab_hash128){move->checksum[0], move->checksum[1]};
        request_fill(service, &move->request, AB_IO_WRITE, move->slot, move->address, move->bytes);
        move->request.user_data = batch;
        move->state = AB_MOVE_IN_FLIGHT;
        submit_one(service, &move->request);
    }
    ab_store_header_fill(kv->store, &batch->extent, batch->items, batch->count, batch->page);
    request_fill(service, &batch->request, AB_IO_WRITE, batch->extent.header, batch->page, AB_PAGE);
    batch->request.user_data = batch;
    submit_one(service, &batch->request);
    ab_io_push(service->io); /* while the next batch's checksums are made */
}

/* a move without I/O ends here; one with I/O is on its way */
static bool move_start(struct ab_service *service, struct ab_move *move)
{
    struct ab_kv *kv = service->transfer->kv;
    if (move->kind == AB_MOVE_COPY_IN || move->kind == AB_MOVE_COPY_OUT) {
        move_copy(kv, move, move->kind == AB_MOVE_COPY_IN);
        return false;
    }
    request_fill(service, &move->request, AB_IO_READ, move->slot, move->address, move->bytes);
    if (move->scrub) { /* its task is not ours to look at: lock KV is not held */
        move->request.priority = AB_IO_SCRUB;
    }
    move->request.user_data = move;
    move->state = AB_MOVE_IN_FLIGHT;
    submit_one(service, &move->request);
    return true;
}

static void move_landed(struct ab_service *service, struct ab_move *move)
{
    struct ab_kv *kv = service->transfer->kv;
    move->state = AB_MOVE_LANDED;
    move->status = move->request.status;
    if (move->status == 0) {
        uint64_t hash[2];
        kv->kernels->checksum(move->address, move->bytes,
                              ab_store_seed(kv->store, move->slot, move->generation), hash);
        if (hash[0] != move->checksum[0]) {
            move->status = -ABODE_ECORRUPT;
        } else if (move->staged) {
            move_copy(kv, move, false);
        }
    }
}

struct done_list {
    struct ab_move *moves[POLL_MAX];
    struct ab_batch *batches[POLL_MAX];
    uint32_t move_count, batch_count;
};

/* What a device or file system answers, in the words of abode.h. */
static int status_for_host(int status)
{
    switch (status) {
    case 0:
    case -ENOSPC:
    case -ENOMEM:
    case -EAGAIN:
    case -ECANCELED:
    case -ETIMEDOUT:
    case -ABODE_ECORRUPT:
        return status;
    default:
        return -EIO;
    }
}

static void request_done(struct ab_service *service, struct ab_io_request *request,
                         struct done_list *done)
{
    request->status = status_for_host(request->status);
    if (request->kind == AB_IO_READ) {
        struct ab_move *move = request->user_data;
        move_landed(service, move);
        done->moves[done->move_count++] = move;
        return;
    }
    struct ab_batch *batch = request->user_data;
    if (request->status != 0 && batch->status == 0) {
        batch->status = request->status;
        atomic_fetch_add_explicit(&service->transfer->kv->counters.io_errors, 1,
                                  memory_order_relaxed);
    }
    if (--batch->pending == 0) {
        done->batches[done->batch_count++] = batch;
    }
}

static void report(struct ab_kv *kv, const struct done_list *done)
{
    if (done->move_count + done->batch_count == 0) {
        return;
    }
    ab_lock_take(&kv->lock);
    for (uint32_t i = 0; i < done->move_count; i++) {
        ab_move_done(kv, done->moves[i]);
        ab_lock_yield(&kv->lock);
    }
    for (uint32_t i = 0; i < done->batch_count; i++) {
        ab_batch_done(kv, done->batches[i]);
    }
    ab_lock_drop(&kv->lock);
}

/* ---- inbox ---- */

struct ab_buffer_job { /* register or forget memory; the caller waits */
    struct ab_list link;
    void *base;
    uint64_t bytes;
    bool add;
};

static void buffer_job_run(struct ab_service *service, const struct ab_buffer_job *job)
{
    for (uint64_t at = 0; at < job->bytes; at += AB_IO_BUFFER_MAX) {
        unsigned char *base = (unsigned char *)job->base + at;
        if (job->add) {
            /* refusal is no failure: facts say so, requests go unregistered */
            int refused =
                ab_io_buffer_add(service->io, base, AB_MIN(job->bytes - at, AB_IO_BUFFER_MAX));
            (void)refused;
        } else {
            ab_io_buffer_remove(service->io, base);
        }
    }
}

static void inbox_run(struct ab_service *service)
{
    struct ab_list moves, batches, buffers;
    ab_list_init(&moves);
    ab_list_init(&batches);
    ab_list_init(&buffers);
    ab_lock_take(&service->lock);
    ab_list_splice_back(&moves, &service->inbox_moves);
    ab_list_splice_back(&batches, &service->inbox_batches);
    ab_list_splice_back(&buffers, &service->inbox_buffers);
    ab_lock_drop(&service->lock);

    for (struct ab_list *node = ab_list_pop_front(&buffers); node != NULL;
         node = ab_list_pop_front(&buffers)) {
        buffer_job_run(service, ab_list_entry(node, struct ab_buffer_job, link));
        ab_lock_take(&service->lock);
        service->facts = *ab_io_facts(service->io);
        ab_list_entry(node, struct ab_buffer_job, link)->base = NULL; /* done: the waiter looks */
        ab_cond_broadcast(&service->changed);
        ab_lock_drop(&service->lock);
    }
    struct done_list done = {.move_count = 0};
    for (struct ab_list *node = ab_list_pop_front(&moves); node != NULL;
         node = ab_list_pop_front(&moves)) {
        struct ab_move *move = ab_list_entry(node, struct ab_move, link);
        if (!move_start(service, move)) {
            done.moves[done.move_count++] = move;
        }
        if (done.move_count == POLL_MAX) {
            report(service->transfer->kv, &done);
            done.move_count = 0;
        }
    }
    for (struct ab_list *node = ab_list_pop_front(&batches); node != NULL;
         node = ab_list_pop_front(&batches)) {
        batch_start(service, ab_list_entry(node, struct ab_batch, link));
    }
    report(service->transfer->kv, &done);
}

/* ---- tasks ---- */

static void task_step(struct ab_task *task)
{
    switch (task->kind) {
    case AB_TASK_ATTACH:
    case AB_TASK_PREFETCH:
        ab_attach_step(task);
        break;
    case AB_TASK_DETACH:
    case AB_TASK_SPILL:
        ab_detach_step(task);
        break;
    case AB_TASK_PUT:
    case AB_TASK_GET:
    case AB_TASK_DELETE:
        ab_cache_step(task);
        break;
    case AB_TASK_ITEM_SPILL:
        ab_item_spill_step(task);
        break;
    case AB_TASK_COMPACT:
        ab_compact_step(task);
        break;
    case AB_TASK_SCRUB:
        ab_scrub_step(task);
        break;
    case AB_TASK_RECALL:
        ab_recall_step(task);
        break;
    }
}

/* Nothing is in flight and nothing can be freed: one of those that wait gives up its frames. */
static void hunger_resolve(struct ab_transfer *transfer)
{
    struct ab_task *youngest = NULL;
    ab_list_for_each (node, &transfer->hungry) {
        struct ab_task *task = ab_list_entry(node, struct ab_task, link);
        youngest = task->hungry_for_frames ? task : youngest;
    }
    if (youngest != NULL && transfer->in_flight == 0) {
        int full = transfer->spill_status == -ENOSPC ? -ENOSPC : -ABODE_EFULL;
        youngest->status = youngest->status != 0 ? youngest->status : full;
        ab_task_runnable(youngest);
    }
}

static bool component_short(const struct ab_component *component, uint32_t node, uint32_t percent)
{
    uint64_t total = ab_frames_total(component->frames, node);
    return total > 0 && (uint64_t)ab_frames_free(component->frames, node) * 100 < total * percent;
}

/* Write something cold, so that its frames can be given back. A spill that failed is no progress:
 * who waits for frames then hears that there are none, instead of waiting for the next failure. */
static bool spill_start(struct ab_kv *kv, const struct ab_component *component)
{
    const struct ab_transfer *transfer = kv->transfer;
    bool pause =
        transfer->spill_retry_ns != 0 && kv->os->clock_ns(kv->os) < transfer->spill_retry_ns;
    uint32_t session = pause ? AB_INDEX_NONE : ab_reclaim_spill_pick(kv, component, true);
    if (session != AB_INDEX_NONE) {
        return ab_spill_session_start(kv, session) && transfer->spill_status == 0;
    }
    return ab_spill_items_start(kv, component);
}

/* Keep some frames free on every node, so that appends seldom have to evict by themselves. */
static bool frames_keep_free(struct ab_kv *kv, struct ab_component *component)
{
    bool progress = false, starved = component->waiting > 0;
    component->waiting = 0;
    for (uint32_t node = 0; node < kv->transfer->node_count; node++) {
        if (!component_short(component, node, kv->reclaim_low_percent) && !starved) {
            continue;
        }
        uint32_t freed = ab_reclaim_clean(kv, component, node, AB_RECLAIM_BATCH);
        progress |= freed > 0;
        if (freed == 0 && kv->store != NULL) {
            progress |= spill_start(kv, component);
        }
    }
    return progress;
}

static void memory_tend(struct ab_transfer *transfer)
{
    struct ab_kv *kv = transfer->kv;
    bool hungry = !ab_list_is_empty(&transfer->hungry);
    bool progress = false;
    for (uint32_t m = 0; m < AB_MODELS_MAX; m++) {
        for (uint32_t c = 0; kv->models[m].declared && c < kv->models[m].component_count; c++) {
            progress |= frames_keep_free(kv, &kv->models[m].components[c]);
        }
    }
    if (hungry && progress) {
        ab_transfer_kick(kv);
    } else if (hungry && ab_list_is_empty(&transfer->runnable)) {
        hunger_resolve(transfer);
    }
}

static void retries_check(struct ab_transfer *transfer, uint64_t now)
{
    struct ab_list *node = transfer->hungry.next;
    while (node != &transfer->hungry) {
        struct ab_task *task = ab_list_entry(node, struct ab_task, link);
        node = node->next;
        if (task->retry_ns != 0 && now >= task->retry_ns) {
            ab_task_runnable(task);
        }
    }
}

/* A task that has failed ends by itself, but for an attach that waits for what it has begun to read. */
static bool may_time_out(const struct ab_task *task)
{
    const bool waits = task->kind == AB_TASK_ATTACH && task->pending > 0;
    return task->phase != AB_PHASE_DONE &&
           (task->status == 0 || (waits && task->status != -ETIMEDOUT));
}

static void deadlines_check(struct ab_transfer *transfer)
{
    uint64_t now = transfer->kv->os->clock_ns(transfer->kv->os);
    retries_check(transfer, now);
    ab_list_for_each (node, &transfer->active) {
        struct ab_task *task = ab_list_entry(node, struct ab_task, active);
        if (task->deadline_ns != 0 && now >= task->deadline_ns && may_time_out(task)) {
            task->status = -ETIMEDOUT;
            if (task->phase != AB_PHASE_COMMIT) {
                ab_task_runnable(task);
            }
        }
    }
}

/* true: more to do at once */
static bool tasks_run(struct ab_service *service)
{
    struct ab_transfer *transfer = service->transfer;
    struct ab_kv *kv = transfer->kv;
    ab_lock_take(&kv->lock);
    deadlines_check(transfer);
    for (uint32_t i = 0; i < STEPS_PER_ROUND; i++) {
        struct ab_list *node = ab_list_pop_front(&transfer->runnable);
        if (node == NULL) {
            break;
        }
        task_step(ab_list_entry(node, struct ab_task, link));
        ab_lock_yield(&kv->lock); /* host threads wait for one step at most */
    }
    memory_tend(transfer);
    if (kv->store != NULL && service == &transfer->services[0]) {
        ab_compact_start(kv, false);
        ab_scrub_start(kv);
    }
    bool more = !ab_list_is_empty(&transfer->runnable);
    ab_lock_drop(&kv->lock);
    return more;
}

static bool service_stops(struct ab_service *service)
{
    ab_lock_take(&service->lock);
    bool stop = service->stop;
    ab_lock_drop(&service->lock);
    return stop;
}

static int service_open(struct ab_service *service)
{
    const struct ab_kv *kv = service->transfer->kv;
    struct ab_io_config config = {
        .os = kv->os,
        .log = kv->log,
        .topology = kv->topology,
        .node = service->node,
        .engine = (enum ab_io_engine)service->transfer->engine,
        .depth = AB_MIN(service->depth * PIECES_PER_MIB, AB_IO_DEPTH_MAX),
        .bytes_max = (uint64_t)service->depth * AB_IO_PIECE,
        .threads = service->depth,
        .file_max = kv->store == NULL ? 1 : FILES_MAX,
        .probe_fd = kv->store == NULL ? -1 : ab_store_probe_fd(kv->store, service->device)};
    return ab_io_open(&config, &service->io);
}

static void service_run(void *argument)
{
    struct ab_service *service = argument;
    int status = service_open(service);
    ab_lock_take(&service->lock);
    service->open_status = status;
    service->opened = true;
    if (status == 0) {
        service->facts = *ab_io_facts(service->io);
    }
    ab_cond_broadcast(&service->changed);
    ab_lock_drop(&service->lock);
    bool more = false;
    while (status == 0 && !service_stops(service)) {
        inbox_run(service);
        struct ab_io_request *requests[POLL_MAX];
        uint32_t count = ab_io_poll(service->io, requests, POLL_MAX, more ? 0 : IDLE_NS);
        struct done_list done = {.move_count = 0};
        for (uint32_t i = 0; i < count; i++) {
            request_done(service, requests[i], &done);
        }
        report(service->transfer->kv, &done);
        more = tasks_run(service);
        ab_scrub_tell(service->transfer);
    }
    ab_io_close(service->io);
}

/* ---- open, close ---- */

static void service_end(struct ab_service *service)
{
    struct ab_kv *kv = service->transfer->kv;
    if (service->thread != NULL) {
        ab_lock_take(&service->lock);
        service->stop = true;
        if (service->open_status == 0) {
            ab_io_wake(service->io); /* inside: once it has seen `stop` it closes its ring */
        }
        ab_lock_drop(&service->lock);
        ab_thread_join(service->thread);
    }
    if (service->files != NULL) {
        (void)kv->os->munmap(kv->os, service->files, FILES_MAP_BYTES);
    }
    ab_cond_destroy(&service->changed);
    ab_lock_destroy(&service->lock);
}

/* The thread, with its ring; waits until both are there. */
static int service_launch(struct ab_service *service)
{
    struct ab_kv *kv = service->transfer->kv;
    char name[16] = "abode-io-";
    name[9] = (char)('0' + service->node % 10);
    name[10] = (char)('0' + service->device % 10);
    void *files = NULL;
    int status = kv->store == NULL ? 0 : ab_os_map_lazy(kv->os, FILES_MAP_BYTES, &files);
    service->files = files;
    if (status == 0) {
        status = ab_thread_start(kv->os, kv->topology, service->node, name, kv->poison, service_run,
                                 service, &service->thread);
    }
    if (status != 0) {
        return status;
    }
    ab_lock_take(&service->lock);
    while (!service->opened) {
        (void)ab_cond_wait(&service->changed, &service->lock, 0);
    }
    status = service->open_status;
    ab_lock_drop(&service->lock);
    return status;
}

static int service_start(struct ab_service *service, struct ab_transfer *transfer, int32_t node,
                         uint32_t device)
{
    service->transfer = transfer;
    service->node = node;
    service->device = device;
    ab_list_init(&service->inbox_moves);
    ab_list_init(&service->inbox_batches);
    ab_list_init(&service->inbox_buffers);
    int status = ab_lock_init(&service->lock, AB_RANK_SERVICE, "service");
    if (status != 0) {
        return status;
    }
    status = ab_cond_init(&service->changed);
    if (status != 0) {
        ab_lock_destroy(&service->lock);
        return status;
    }
    status = service_launch(service);
    if (status != 0) {
        service_end(service);
    }
    return status;
}

static int pools_make(struct ab_transfer *transfer)
{
    const struct ab_os *os = transfer->kv->os;
    uint32_t moves = transfer->service_count * MOVES_PER_SERVICE;
    transfer->move_count = moves;
    uint32_t batches = transfer->service_count * BATCHES_PER_SERVICE;
    transfer->moves = ab_os_alloc_array(os, moves, sizeof(*transfer->moves));
    transfer->batches = ab_os_alloc_array(os, batches, sizeof(*transfer->batches));
    transfer->tasks = ab_os_alloc_array(os, OWN_TASKS, sizeof(*transfer->tasks));
    transfer->pages = os->alloc(os, (size_t)batches * AB_PAGE, AB_PAGE);
    transfer->services =
        ab_os_alloc_array(os, transfer->service_count, sizeof(*transfer->services));
    if (transfer->moves == NULL || transfer->batches == NULL || transfer->tasks == NULL ||
        transfer->pages == NULL || transfer->services == NULL) {
        return -ENOMEM;
    }
    for (uint32_t i = 0; i < moves; i++) {
        ab_list_push_back(&transfer->moves_free, &transfer->moves[i].link);
    }
    for (uint32_t i = 0; i < batches; i++) {
        transfer->batches[i].page = transfer->pages + (size_t)i * AB_PAGE;
        ab_list_push_back(&transfer->batches_free, &transfer->batches[i].link);
    }
    for (uint32_t i = 0; i < OWN_TASKS; i++) {
        ab_list_push_back(&transfer->tasks_free, &transfer->tasks[i].link);
    }
    return 0;
}

/* Commits end on the committer's thread, during open and close too: what they may see and wake
 * changes under the lock that they hold. */
static void transfer_publish(struct ab_transfer *transfer, struct ab_transfer *visible, bool ready)
{
    ab_lock_take(&transfer->kv->lock);
    transfer->ready = ready;
    transfer->kv->transfer = visible;
    ab_lock_drop(&transfer->kv->lock);
}

int ab_transfer_open(struct ab_kv *kv, const struct abode_config *config)
{
    struct ab_transfer *transfer = kv->os->alloc(kv->os, sizeof(*transfer), 64);
    if (transfer == NULL) {
        return -ENOMEM;
    }
    transfer->kv = kv;
    transfer->engine = config->io;
    transfer->scrub.bytes_per_second = config->scrub_bytes_per_second;
    transfer->node_count = ab_topology_node_count(kv->topology);
    transfer->device_count = kv->store == NULL ? 1 : ab_store_device_count(kv->store);
    transfer->service_count = transfer->node_count * transfer->device_count;
    ab_list_init(&transfer->runnable);
    ab_list_init(&transfer->hungry);
    ab_list_init(&transfer->active);
    ab_list_init(&transfer->moves_free);
    ab_list_init(&transfer->batches_free);
    ab_list_init(&transfer->tasks_free);
    transfer_publish(transfer, transfer, false); /* services look for it through kv */
    int status = pools_make(transfer);
    uint32_t started = 0;
    while (status == 0 && started < transfer->service_count) {
        struct ab_service *service = &transfer->services[started];
        service->depth = config->io_depth != 0 ? config->io_depth : DEPTH_DEFAULT;
        status = service_start(service, transfer, (int32_t)(started / transfer->device_count),
                               started % transfer->device_count);
        started += status == 0; /* one that failed has ended itself */
    }
    if (status != 0) {
        transfer->service_count = started;
        ab_transfer_close(transfer);
        return status;
    }
    transfer_publish(transfer, transfer, true);
    return 0;
}

void ab_transfer_close(struct ab_transfer *transfer)
{
    const struct ab_os *os = transfer->kv->os;
    transfer_publish(transfer, transfer, false); /* the committer may still want to wake us */
    for (uint32_t i = 0; i < transfer->service_count; i++) {
        service_end(&transfer->services[i]);
    }
    transfer_publish(transfer, NULL, false);
    os->free(os, transfer->scrub.buffer);
    os->free(os, transfer->services);
    os->free(os, transfer->pages);
    os->free(os, transfer->tasks);
    os->free(os, transfer->batches);
    os->free(os, transfer->moves);
    os->free(os, transfer);
}

void ab_transfer_buffer(struct ab_kv *kv, void *base, uint64_t bytes, int32_t node, bool add)
{
    struct ab_transfer *transfer = kv->transfer;
    for (uint32_t i = 0; i < transfer->service_count; i++) {
        struct ab_service *service = &transfer->services[i];
        if (node >= 0 && service->node != node) {
            continue;
        }
        struct ab_buffer_job job = {.base = base, .bytes = bytes, .add = add};
        ab_lock_take(&service->lock);
        ab_list_push_back(&service->inbox_buffers, &job.link);
        ab_lock_drop(&service->lock);
        ab_io_wake(service->io);
        ab_lock_take(&service->lock);
        while (job.base != NULL) {
            (void)ab_cond_wait(&service->changed, &service->lock, 0);
        }
        ab_lock_drop(&service->lock);
    }
}

struct ab_io_facts ab_transfer_facts(struct ab_transfer *transfer)
{
    struct ab_service *service = &transfer->services[0];
    ab_lock_take(&service->lock);
    struct ab_io_facts facts = service->facts;
    ab_lock_drop(&service->lock);
    return facts;
}
