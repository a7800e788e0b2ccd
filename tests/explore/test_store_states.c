/*
 * test_store_states.c - every short life of a store: commits and checkpoints, cut at every call.
 *
 * Goal: whenever the power goes, and whatever of the unsynced the disk has kept, the store opens to the
 * state after some commits from the first on, all DURABLE ones among them, with their bytes; it is never
 * called damaged; it goes on from there; and so it is when the power goes again while it is opened (after
 * all sequences but the longest).
 * Method: all sequences of up to a few operations (OPS) on a real store (store/, its own threads) on a
 * disk in memory (tests/sim). After each call that changes the disk all subsets of what is in limbo
 * (pages, sizes, names; a segment's pages count as one; a superblock's copy may be torn) make an image. Each image that is new, with what
 * may be found in it, is opened, checked, written to, closed, opened again. No seed: the client has one
 * commit at a time in flight, or one that it adds between two steps of a checkpoint.
 *
 * test_store_states [--length N]
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "abode/abode.h"
#include "live.h"
#include "sim/sim_disk.h"
#include "store/store_state.h"
#include "store_client.h"

#define KEYS 3u
#define VERSIONS_MAX 16u
#define UNITS_MAX 10u /* 1,024 subsets; more: those that keep or drop one of them, all, none */
#define TABLE_BITS 20u
#define SUPERBLOCK_BYTES (4u * SIM_PAGE) /* no other file of the store has that size */
#define TORN_BYTES 64u                   /* hash, magic, version, features: the rest is old */
#define STORE SIM_MOUNT "/store"
#define NO_CHECKPOINT (UINT64_C(1) << 40)

enum op { PUT = 0, PUT_WRITTEN, DELETE, RENEW, CHECKPOINT, REOPEN, SYNC_FAILS, OPS };
static const char *const op_names[OPS] = {"put",        "put-written", "delete",    "renew",
                                          "checkpoint", "reopen",      "sync-fails"};

struct version { /* the state after a commit: 0 is "not there" */
    uint64_t values[KEYS];
};
struct model {
    struct version versions[VERSIONS_MAX];
    uint32_t first;   /* what may be found is one of first .. last */
    uint32_t last;    /* the newest that was handed in */
    uint32_t durable; /* the newest that was acknowledged as DURABLE: its bytes are there */
};
struct image { /* to be opened */
    struct sim_image disk;
    struct model model;
    uint32_t level; /* 0: of a life; 1: of the opening of such a one */
    char steps[200];
};
struct explorer {
    struct sim_disk disk;
    struct ab_os os; /* the disk's, looked at after each change */
    struct store_client client;
    pthread_mutex_t mutex; /* guards the model: commits are made by two threads */
    struct model model;
    bool is_looking; /* images are made of what is in limbo */
    uint32_t level;
    char steps[200];
    _Atomic int sync_error;   /* of the next sync of a journal */
    bool is_journal[1024];    /* by descriptor: what was opened under it last */
    _Atomic uint32_t pending; /* the version whose commit lets a checkpoint begin */
    _Atomic uint32_t inject_at, checkpoint_step; /* a commit is added at this step; 0: none */
    struct store_client_op injected;
    atomic_bool has_injected;
    atomic_bool wants_checkpoint;
    bool cuts_again;                     /* while an image is opened */
    struct store_client_key found[KEYS]; /* by the last open */
    struct store_client_op lost[KEYS];   /* of these, what was not there any more */
    uint32_t lost_count;
    struct image **queue;
    uint32_t head, tail, capacity;
    uint64_t *seen;
    uint64_t images, looks, subsets, lives, failures, cut_short;
};

static struct explorer *the_explorer; /* what the table of calls looks at: one at a time */

static void fail(struct explorer *explorer, const struct image *image, const char *what)
{
    if (explorer->failures++ < 10) {
        printf("FAIL %s: %s (found or acknowledged: %u .. %u, durable %u)\n    %s\n",
               image != NULL ? image->steps : explorer->steps, what,
               image != NULL ? image->model.first : explorer->model.first,
               image != NULL ? image->model.last : explorer->model.last,
               image != NULL ? image->model.durable : explorer->model.durable,
               explorer->client.log);
    }
}

/* ---- images: what may be left after a cut ---------------------------------------------------- */

enum unit_kind { UNIT_PAGE = 1, UNIT_TORN, UNIT_SIZE, UNIT_NAME, UNIT_SEGMENT };
struct unit {
    enum unit_kind kind;
    uint32_t file, index;
};

static bool pages_differ(const struct sim_page *left, const struct sim_page *right)
{
    static const struct sim_page zeroes;
    return left != right && memcmp((left != NULL ? left : &zeroes)->bytes,
                                   (right != NULL ? right : &zeroes)->bytes, SIM_PAGE) != 0;
}

static bool is_segment(const struct sim_image *disk, uint32_t file)
{
    for (uint32_t i = 0; i < disk->current.count; i++) {
        const struct sim_name *name = &disk->current.list[i];
        if (name->file == file) {
            return name->text[0] >= '0' && name->text[0] <= '9';
        }
    }
    return false;
}

static bool file_differs(const struct sim_file *file)
{
    bool differs = false;
    for (uint32_t i = 0; i < file->page_count && !differs; i++) {
        differs = pages_differ(file->current[i], file->durable[i]);
    }
    return differs;
}

static void unit_add(struct unit *units, uint32_t capacity, uint32_t *count, struct unit unit)
{
    if (*count < capacity) {
        units[(*count)++] = unit;
    }
}

/* Pages of a file, and its size. */
static void units_of_file(const struct sim_file *file, uint32_t number, struct unit *units,
                          uint32_t capacity, uint32_t *count)
{
    for (uint32_t i = 0; i < file->page_count; i++) {
        if (!pages_differ(file->current[i], file->durable[i])) {
            continue;
        }
        unit_add(units, capacity, count, (struct unit){UNIT_PAGE, number, i});
        if (file->size == SUPERBLOCK_BYTES) {
            unit_add(units, capacity, count, (struct unit){UNIT_TORN, number, i});
        }
    }
    if (file->size != file->size_durable) {
        unit_add(units, capacity, count, (struct unit){UNIT_SIZE, number, 0});
    }
}

static uint32_t units_find(const struct sim_image *disk, struct unit *ret, uint32_t capacity)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < disk->limbo_count; i++) {
        unit_add(ret, capacity, &count, (struct unit){UNIT_NAME, 0, i});
    }
    for (uint32_t f = 0; f < SIM_FILES_MAX; f++) {
        const struct sim_file *file = &disk->files[f];
        if (!file->is_used || file->is_directory) {
            continue;
        }
        if (!is_segment(disk, f)) {
            units_of_file(file, f, ret, capacity, &count);
        } else if (file_differs(file) || file->size != file->size_durable) {
            unit_add(ret, capacity, &count, (struct unit){UNIT_SEGMENT, f, 0});
        }
    }
    return count;
}

static void page_keep(struct sim_image *image, const struct sim_image *from, uint32_t file,
                      uint32_t index)
{
    static const struct sim_page zeroes;
    const struct sim_page *page = from->files[file].current[index];
    struct sim_file *to = &image->files[file];
    sim_file_write(image, to, (page != NULL ? page : &zeroes)->bytes, SIM_PAGE,
                   (uint64_t)index * SIM_PAGE, false);
}

/* any: whatever has that name; else only that file */
static void name_forget(struct sim_names *names, const struct sim_name *gone, bool any)
{
    for (uint32_t i = 0; i < names->count; i++) {
        struct sim_name *name = &names->list[i];
        const bool is_it = name->directory == gone->directory &&
                           strcmp(name->text, gone->text) == 0 && (any || name->file == gone->file);
        name->file = is_it ? SIM_NONE : name->file;
    }
}

static void name_keep(struct sim_names *names, const struct sim_name_change *change)
{
    if (change->from.file != SIM_NONE) {
        name_forget(names, &change->from, false);
    }
    if (change->to.file != SIM_NONE) {
        name_forget(names, &change->to, true);
        names->list[names->count++] = change->to; /* a life makes few */
    }
}

static void unit_keep(struct sim_image *image, const struct sim_image *from,
                      const struct unit *unit)
{
    const uint64_t size = image->files[unit->file].size; /* UNIT_NAME: of none */
    switch (unit->kind) {
    case UNIT_NAME:
        name_keep(&image->current, &from->limbo[unit->index]);
        name_keep(&image->durable, &from->limbo[unit->index]);
        break;
    case UNIT_PAGE: /* a page that is kept does not make the file longer: that is another unit */
        page_keep(image, from, unit->file, unit->index);
        image->files[unit->file].size = size;
        break;
    case UNIT_TORN: { /* a copy of the superblock of which the first bytes alone were written */
        const struct sim_page *page = from->files[unit->file].current[unit->index];
        const struct sim_page *old = from->files[unit->file].durable[unit->index];
        if (page != NULL && old != NULL) {
            uint8_t bytes[SIM_PAGE];
            memcpy(bytes, old->bytes, sizeof(bytes));
            memcpy(bytes, page->bytes, TORN_BYTES);
            sim_file_write(image, &image->files[unit->file], bytes, SIM_PAGE,
                           (uint64_t)unit->index * SIM_PAGE, false);
        }
        break;
    }
    case UNIT_SIZE:
        image->files[unit->file].size = from->files[unit->file].size;
        break;
    case UNIT_SEGMENT:
    default:
        for (uint32_t i = 0; i < from->files[unit->file].page_count; i++) {
            if (pages_differ(from->files[unit->file].current[i],
                             from->files[unit->file].durable[i])) {
                page_keep(image, from, unit->file, i);
            }
        }
        image->files[unit->file].size = from->files[unit->file].size;
        break;
    }
}

static uint64_t image_hash(const struct sim_image *image, const struct model *model)
{
    uint64_t hash = ab_hash64(model, sizeof(*model), 3);
    for (uint32_t i = 0; i < image->durable.count; i++) {
        const struct sim_name *name = &image->durable.list[i];
        uint64_t of_file = 0;
        if (name->file == SIM_NONE) {
            continue;
        }
        const struct sim_file *file = &image->files[name->file];
        of_file = ab_hash64(name->text, strlen(name->text), file->size_durable);
        for (uint32_t k = 0; k < file->page_count; k++) {
            if (pages_differ(file->durable[k], NULL)) {
                of_file = ab_hash64(file->durable[k]->bytes, SIM_PAGE, of_file + k);
            }
        }
        hash +=
            of_file * UINT64_C(0x9e3779b97f4a7c15); /* the order of names is none of the store's */
    }
    return hash == 0 ? 1 : hash;
}

static bool is_new(struct explorer *explorer, uint64_t hash)
{
    uint64_t at = hash & ((1u << TABLE_BITS) - 1);
    while (explorer->seen[at] != 0 && explorer->seen[at] != hash) {
        at = (at + 1) & ((1u << TABLE_BITS) - 1);
    }
    const bool found = explorer->seen[at] == hash;
    explorer->seen[at] = hash;
    return !found;
}

/* Without what cannot be found any more: images that are equal are tried once. */
static struct model model_short(const struct model *model)
{
    struct model ret = {.last = model->last - model->first, .durable = model->durable};
    memcpy(ret.versions, &model->versions[model->first], (ret.last + 1) * sizeof(ret.versions[0]));
    return ret;
}

static void image_make(struct explorer *explorer, const struct unit *units, uint32_t count,
                       uint64_t keep)
{
    struct image *image = calloc(1, sizeof(*image));
    if (image == NULL) {
        abort();
    }
    explorer->subsets++;
    sim_image_clone(&image->disk, &explorer->disk.image);
    for (uint32_t i = 0; i < count; i++) {
        if ((keep >> i & 1) != 0) {
            unit_keep(&image->disk, &explorer->disk.image, &units[i]);
        }
    }
    sim_image_sync(&image->disk);
    image->model = model_short(&explorer->model);
    image->level = explorer->level;
    if (!is_new(explorer, image_hash(&image->disk, &image->model))) {
        sim_image_free(&image->disk);
        free(image);
        return;
    }
    explorer->images++;
    (void)snprintf(image->steps, sizeof(image->steps), "%.100s, call %llu, kept %llx of %u",
                   explorer->steps, (unsigned long long)explorer->looks, (unsigned long long)keep,
                   count);
    if (explorer->tail == explorer->capacity) {
        explorer->capacity = explorer->capacity * 2 + 64;
        explorer->queue = realloc(explorer->queue, explorer->capacity * sizeof(*explorer->queue));
        if (explorer->queue == NULL) {
            abort();
        }
    }
    explorer->queue[explorer->tail++] = image;
}

/* After a call that changed something. */
static void look(struct explorer *explorer)
{
    struct unit units[64];
    (void)pthread_mutex_lock(&explorer->mutex);
    if (explorer->is_looking) {
        (void)pthread_mutex_lock(&explorer->disk.mutex);
        explorer->looks++;
        const uint32_t count = units_find(&explorer->disk.image, units, 63);
        if (count <= UNITS_MAX) {
            for (uint64_t keep = 0; keep < UINT64_C(1) << count; keep++) {
                image_make(explorer, units, count, keep);
            }
        } else {
            const uint64_t all = (UINT64_C(1) << count) - 1;
            explorer->cut_short++;
            image_make(explorer, units, count, 0);
            image_make(explorer, units, count, all);
            for (uint32_t i = 0; i < count; i++) {
                image_make(explorer, units, count, UINT64_C(1) << i);
                image_make(explorer, units, count, all ^ UINT64_C(1) << i);
            }
        }
        (void)pthread_mutex_unlock(&explorer->disk.mutex);
    }
    (void)pthread_mutex_unlock(&explorer->mutex);
}

/* ---- the table of calls: the disk's, and a look after each ------------------------------------ */

static int64_t look_pwrite(const struct ab_os *os, int fd, const void *bytes, size_t count,
                           uint64_t offset)
{
    const struct ab_os *disk = &the_explorer->disk.os;
    (void)os;
    const int64_t result = disk->pwrite(disk, fd, bytes, count, offset);
    look(the_explorer);
    return result;
}

static int look_sync(const struct ab_os *os, int fd)
{
    const struct ab_os *disk = &the_explorer->disk.os;
    (void)os;
    if (the_explorer->sync_error != 0 && the_explorer->is_journal[fd & 1023]) {
        const int error = the_explorer->sync_error;
        the_explorer->sync_error = 0;
        return error;
    }
    if (the_explorer->wants_checkpoint && the_explorer->is_journal[fd & 1023]) {
        /* this is the committer, in the sync of the commit after which one is to be due */
        the_explorer->wants_checkpoint = false;
        the_explorer->client.store->journal_tail_min = 0;
        the_explorer->client.store->journal.checkpoint_bytes = 0;
    }
    const int result = disk->fdatasync(disk, fd);
    look(the_explorer);
    return result;
}

static int look_unlinkat(const struct ab_os *os, int dir, const char *path, int flags)
{
    const struct ab_os *disk = &the_explorer->disk.os;
    (void)os;
    const int result = disk->unlinkat(disk, dir, path, flags);
    look(the_explorer);
    return result;
}

static int look_openat(const struct ab_os *os, int dir, const char *path, int flags, uint32_t mode)
{
    const struct ab_os *disk = &the_explorer->disk.os;
    (void)os;
    const int result = disk->openat(disk, dir, path, flags, mode);
    if (result >= 0) {
        the_explorer->is_journal[result & 1023] = strncmp(path, "journal.", 8) == 0;
    }
    if ((flags & O_CREAT) != 0) {
        look(the_explorer);
    }
    return result;
}

/* ---- the client ------------------------------------------------------------------------------- */

static void version_hand_in(struct explorer *explorer, uint32_t key, uint64_t value)
{
    struct model *model = &explorer->model;
    (void)pthread_mutex_lock(&explorer->mutex);
    model->versions[model->last + 1] = model->versions[model->last];
    model->versions[++model->last].values[key] = value;
    (void)pthread_mutex_unlock(&explorer->mutex);
}

static void version_heard(struct explorer *explorer, uint32_t version, bool durable)
{
    (void)pthread_mutex_lock(&explorer->mutex);
    if (durable) {
        explorer->model.first = AB_MAX(explorer->model.first, version);
        explorer->model.durable = AB_MAX(explorer->model.durable, version);
    }
    (void)pthread_mutex_unlock(&explorer->mutex);
}

static int64_t (*client_says)(void *, uint64_t *, void *, size_t);

/* A checkpoint's steps; a commit between two of them is handed in here, by the committer itself. */
static int64_t say(void *context, uint64_t *cursor, void *bytes, size_t capacity)
{
    struct explorer *explorer = the_explorer;
    explorer->checkpoint_step++;
    explorer->client.store->journal_tail_min = NO_CHECKPOINT;
    version_heard(explorer, explorer->pending, true); /* its `done` was called before */
    if (explorer->inject_at == explorer->checkpoint_step) {
        const uint32_t version = explorer->model.last + 1;
        version_hand_in(explorer, 2, version);
        explorer->has_injected = store_client_put_begin(&explorer->client, &explorer->injected, 2,
                                                        version, 1, AB_PROMISE_DURABLE) == 0;
    }
    return client_says(context, cursor, bytes, capacity);
}

/* What is not there any more is deleted before anything else is committed, as kv does it: the number of
 * the segment may be used again, and then the entry must not find it. */
static int drop_lost(void *context, struct ab_store *store)
{
    struct explorer *explorer = the_explorer;
    struct store_client *client = context;
    client->store = store;
    memcpy(explorer->found, client->keys, sizeof(explorer->found));
    explorer->lost_count = 0;
    for (uint32_t key = 0; key < KEYS; key++) {
        if (client->keys[key].present && client->keys[key].lost) {
            version_hand_in(explorer, key, 0);
            for (uint32_t k = 0; k < KEYS; k++) { /* from what was found, not from the newest */
                const bool was = k != key && explorer->found[k].present;
                const bool is_gone = was && k < key && explorer->found[k].lost;
                explorer->model.versions[explorer->model.last].values[k] =
                    was && !is_gone ? explorer->found[k].value : 0;
            }
            (void)store_client_delete_begin(client, &explorer->lost[explorer->lost_count++], key,
                                            AB_PROMISE_WRITTEN);
        }
    }
    return 0;
}

static int open_store(struct explorer *explorer)
{
    static const char *const paths[] = {STORE};
    struct ab_store_config config = store_client_config(&explorer->client, paths, 1);
    client_says = config.client.checkpoint;
    config.client.checkpoint = say;
    config.client.recovered = drop_lost;
    config.bytes_max = 12u << 20;
    config.journal_tail_min = NO_CHECKPOINT;
    const int status = store_client_open(&explorer->client, &config);
    if (status == 0) { /* what is prepared ahead, and when, is not decided by the sequence */
        struct ab_store *store = explorer->client.store;
        ab_lock_take(&store->lock);
        store->prepare_stop = true;
        ab_cond_signal(&store->prepare_cond);
        ab_lock_drop(&store->lock);
        for (uint32_t i = 0; i < explorer->lost_count; i++) {
            (void)store_client_wait(&explorer->lost[i]);
        }
    }
    return status;
}

static int commit(struct explorer *explorer, uint32_t key, bool is_put, enum ab_promise promise)
{
    struct store_client_op op;
    const uint32_t version = explorer->model.last + 1;
    version_hand_in(explorer, key, is_put ? version : 0);
    int status = is_put ? store_client_put_begin(&explorer->client, &op, key, version, 1, promise)
                        : store_client_delete_begin(&explorer->client, &op, key, promise);
    status = status < 0 ? status : store_client_wait(&op);
    if (status == 0) {
        version_heard(explorer, version, promise == AB_PROMISE_DURABLE);
    }
    return status;
}

/* One that goes on between commits: wait until the superblock names the new journal. */
static int checkpoint(struct explorer *explorer, uint32_t key)
{
    struct ab_store *store = explorer->client.store;
    const uint64_t before = ab_store_stats(store).checkpoint_bytes;
    explorer->checkpoint_step = 0;
    explorer->inject_at = 3;
    explorer->has_injected = false;
    explorer->pending = explorer->model.last + 1;
    explorer->wants_checkpoint = true;
    int status = commit(explorer, key, true, AB_PROMISE_DURABLE);
    for (uint32_t i = 0; status == 0 && ab_store_stats(store).checkpoint_bytes == before; i++) {
        if (i == 20000) {
            return -ETIME;
        }
        (void)usleep(100);
    }
    explorer->inject_at = 0;
    explorer->pending = 0;
    if (status == 0 && explorer->has_injected) {
        status = store_client_wait(&explorer->injected);
        version_heard(explorer, explorer->model.last, status == 0);
    }
    return status;
}

/* What a failed sync leaves is not acknowledged, and not found after it was said to have failed. */
static int sync_fails(struct explorer *explorer, uint32_t key)
{
    explorer->sync_error = -EIO;
    const struct version before = explorer->model.versions[explorer->model.last];
    struct store_client_op op;
    version_hand_in(explorer, key, 0);
    int status = store_client_delete_begin(&explorer->client, &op, key, AB_PROMISE_DURABLE);
    status = status < 0 ? status : store_client_wait(&op);
    if (status != -EIO) {
        return status == 0 ? -EPROTO : status;
    }
    (void)pthread_mutex_lock(&explorer->mutex);
    struct model *model = &explorer->model; /* as if it had been taken back, durably */
    model->versions[++model->last] = before;
    model->first = model->last;
    model->durable = model->last;
    (void)pthread_mutex_unlock(&explorer->mutex);
    return 0;
}

static int op_run(struct explorer *explorer, enum op op, uint32_t key)
{
    switch (op) {
    case PUT:
        return commit(explorer, key, true, AB_PROMISE_DURABLE);
    case PUT_WRITTEN:
        return commit(explorer, key, true, AB_PROMISE_WRITTEN);
    case DELETE:
        return commit(explorer, (key + KEYS - 1) % KEYS, false, AB_PROMISE_DURABLE);
    case RENEW: {
        ab_store_renew(explorer->client.store);
        const int status = store_client_barrier(&explorer->client, AB_PROMISE_DURABLE);
        version_heard(explorer, explorer->model.last, status == 0);
        return status;
    }
    case CHECKPOINT:
        return checkpoint(explorer, key);
    case REOPEN:
        store_client_close(&explorer->client);
        version_heard(explorer, explorer->model.last, true);
        return open_store(explorer);
    case SYNC_FAILS:
        return sync_fails(explorer, key);
    case OPS:
    default:
        return -EINVAL;
    }
}

/* ---- what is found ---------------------------------------------------------------------------- */

static bool version_is(const struct explorer *explorer, const struct version *version)
{
    bool same = true;
    for (uint32_t key = 0; key < KEYS; key++) {
        const struct store_client_key *found = &explorer->found[key];
        same &= (found->present ? found->value : 0) == version->values[key];
    }
    return same;
}

/* The newest version that it can be; -1: none. Its durable bytes are compared. */
static int64_t version_find(struct explorer *explorer, const struct image *image)
{
    const struct model *model = &image->model;
    struct store_client *client = &explorer->client;
    for (uint32_t v = model->last + 1; v-- > model->first;) {
        if (!version_is(explorer, &model->versions[v])) {
            continue;
        }
        struct store_client_key kept[KEYS];
        memcpy(kept, client->keys, sizeof(kept));
        memcpy(client->keys, explorer->found, sizeof(kept));
        for (uint32_t key = 0; key < KEYS; key++) { /* no promise, no bytes */
            client->keys[key].present &= client->keys[key].value <= model->durable;
        }
        const uint32_t wrong = store_client_verify(client);
        memcpy(client->keys, kept, sizeof(kept));
        if (wrong != 0) {
            fail(explorer, image, "bytes that were durable are not there");
        }
        return v;
    }
    return -1;
}

static void disk_begin(struct explorer *explorer, const struct sim_image *image)
{
    sim_image_free(&explorer->disk.image);
    sim_image_clone(&explorer->disk.image, image);
}

/* Open, check, go on, close, open again. */
static void image_try(struct explorer *explorer, struct image *image)
{
    explorer->lives++;
    disk_begin(explorer, &image->disk);
    explorer->model = image->model;
    explorer->level = image->level + 1;
    explorer->is_looking = image->level == 0 && explorer->cuts_again;
    (void)snprintf(explorer->steps, sizeof(explorer->steps), "%.90s, opened", image->steps);
    int status = open_store(explorer);
    explorer->is_looking = false;
    if (status != 0) {
        fail(explorer, image, abode_strerror(status));
        return;
    }
    const int64_t found = version_find(explorer, image);
    if (found < 0) {
        fail(explorer, image, "it is no state that was there, or one before what was durable");
    }
    if (image->level > 0) {
        store_client_close(&explorer->client);
        return;
    }
    const uint64_t value = 1000;
    status = store_client_put(&explorer->client, 0, value, 1, AB_PROMISE_DURABLE);
    store_client_close(&explorer->client);
    status = status < 0 ? status : open_store(explorer);
    if (status != 0) {
        fail(explorer, image, abode_strerror(status));
        return;
    }
    const struct store_client_key *key = &explorer->client.keys[0];
    if (!key->present || key->value != value) {
        fail(explorer, image, "what was put after the cut is not there");
    }
    store_client_close(&explorer->client);
}

/* ---- all of it -------------------------------------------------------------------------------- */

static void queue_run(struct explorer *explorer)
{
    for (; explorer->head < explorer->tail && explorer->failures < 100; explorer->head++) {
        struct image *image = explorer->queue[explorer->head];
        image_try(explorer, image);
        sim_image_free(&image->disk);
        free(image);
    }
}

static void life_run(struct explorer *explorer, const struct sim_image *base, uint32_t number,
                     uint32_t length)
{
    disk_begin(explorer, base);
    explorer->model = (struct model){.last = 0};
    explorer->level = 0;
    explorer->steps[0] = '\0';
    explorer->looks = 0;
    int status = open_store(explorer);
    explorer->is_looking = true;
    for (uint32_t i = 0; i < length && status == 0; i++) {
        const enum op op = (enum op)(number % OPS);
        const size_t used = strlen(explorer->steps);
        number /= OPS;
        (void)snprintf(explorer->steps + used, sizeof(explorer->steps) - used, " %s", op_names[op]);
        status = op_run(explorer, op, i % KEYS);
    }
    if (status != 0) {
        fail(explorer, NULL, abode_strerror(status));
    }
    store_client_close(&explorer->client);
    explorer->is_looking = false;
}

static int base_make(struct explorer *explorer, struct sim_image *ret)
{
    const struct ab_os *os = &explorer->os;
    int status = os->mkdirat(os, AT_FDCWD, STORE, 0700);
    status = status < 0 ? status : open_store(explorer);
    if (status == 0) {
        status = store_client_put(&explorer->client, 0, 999, 1, AB_PROMISE_DURABLE); /* a segment */
        status =
            status < 0 ? status : store_client_delete(&explorer->client, 0, AB_PROMISE_DURABLE);
        store_client_close(&explorer->client);
    }
    sim_image_sync(&explorer->disk.image);
    sim_image_clone(ret, &explorer->disk.image);
    return status;
}

int main(int argc, char **argv)
{
    static struct explorer explorer;
    static struct sim_image base;
    const char *sanitize = getenv("ABODE_SANITIZE");
    const bool is_long = getenv("ABODE_LONG") != NULL;
    const uint32_t usual = sanitize != NULL && *sanitize != '\0' ? 1 : is_long ? 3 : 2;
    const uint32_t length = (uint32_t)live_option(argc, argv, "--length", usual);
    the_explorer = &explorer;
    sim_disk_init(&explorer.disk);
    explorer.os = explorer.disk.os;
    explorer.os.pwrite = look_pwrite;
    explorer.os.fdatasync = look_sync;
    explorer.os.fsync = look_sync;
    explorer.os.unlinkat = look_unlinkat;
    explorer.os.openat = look_openat;
    explorer.seen = calloc(1u << TABLE_BITS, sizeof(*explorer.seen));
    if (explorer.seen == NULL || pthread_mutex_init(&explorer.mutex, NULL) != 0) {
        abort();
    }
    store_client_init(&explorer.client, &explorer.os);
    if (base_make(&explorer, &base) != 0) {
        printf("FAIL the first store: %s\n0 passed, 1 failed, 0 skipped\n", explorer.client.log);
        return 1;
    }
    uint32_t sequences = 0, of_length = 1;
    for (uint32_t at = 1; at <= length; at++) {
        of_length *= OPS;
        explorer.cuts_again = at < length || length == 1; /* the longest ones: one cut each */
        for (uint32_t number = 0; number < of_length && explorer.failures < 100; number++) {
            life_run(&explorer, &base, number, at);
            queue_run(&explorer);
        }
        sequences += of_length;
    }
    printf("%u sequences of up to %u operations, %llu subsets of limbo, %llu images, %llu opened; "
           "%llu "
           "times "
           "too much in limbo for all subsets\n",
           sequences, length, (unsigned long long)explorer.subsets,
           (unsigned long long)explorer.images, (unsigned long long)explorer.lives,
           (unsigned long long)explorer.cut_short);
    printf("reliability: R11 %llu images of a store cut at every call of %u sequences of "
           "operations; no seed; %llu violations\n",
           (unsigned long long)explorer.images, sequences, (unsigned long long)explorer.failures);
    printf("%d passed, %d failed, 0 skipped\n", explorer.failures == 0, explorer.failures != 0);
    sim_image_free(&base);
    sim_disk_free(&explorer.disk);
    free(explorer.queue);
    free(explorer.seen);
    return explorer.failures == 0 ? 0 : 1;
}
