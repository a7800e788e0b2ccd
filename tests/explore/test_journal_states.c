/*
 * test_journal_states.c - every short life of a journal: appends, syncs, kills, power cuts, in all orders.
 *
 * Goal: what was durable is replayed, in order, nothing twice, nothing that was not appended; an honest
 * crash is never called damage; damage is, where anything on the disk can know of it. Method: all
 * sequences of up to a number of operations (plans) on runtime/store/journal.c over a file in memory, breadth first;
 * states that are equal byte for byte (file, what is not synced of it, what is known) are visited once.
 * Epoch and superblock are what recover.c does with them: sync after a scan, then one more epoch and
 * `synced` into the superblock, all at once (test_store_states has the real ones).
 *
 *   append (3 sizes: inside a sector, across sectors, across pages)      sync
 *   kill after it, or inside an append: half of it is written; the page cache stays
 *   cut: any subset of what was written since the last sync is kept, by sectors or (longer) by pages
 *   a sync that fails: any subset of them is on the disk, and the power goes before anything else
 *   recovery that ends before the superblock is written
 *
 * In each state where all is synced, each sector is also zeroed, and one bit of it flipped, and what a
 * scan then says is compared with what it can know.
 *
 * test_journal_states [--less N]: N operations fewer
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "abode/abode.h"
#include "live.h"
#include "store/journal.h"

#define SECTOR 512u
#define FILE_BYTES (32u << 10)
#define SECTORS (FILE_BYTES / SECTOR)
#define RECORDS_MAX 16u
#define UNITS_MAX \
    12u /* of what is kept or not: 4,096 subsets; a state with more is not cut, and counted */
#define TABLE_BITS 22u

static const uint8_t store_id[AB_STORE_ID_BYTES] = {7, 7, 7};
/* inside a sector; to the end of a page that begins with one of those; across sectors; across pages */
static const uint32_t payload_bytes[] = {16, 3952, 1000, 4200};
struct plan { /* an exploration */
    const char *name;
    uint32_t grain; /* bytes that a cut keeps or not */
    uint32_t sizes; /* a bit for each of payload_bytes */
    uint32_t depth, depth_long;
};
static const struct plan plans[] = {{"sectors", SECTOR, 1 | 4, 6, 7},
                                    {"page ends", SECTOR, 1 | 2, 4, 5},
                                    {"pages", AB_PAGE, 1 | 4 | 8, 6, 7}};

struct known_record { /* of a record that was appended */
    uint64_t id, synced, start, end;
};
struct state {
    uint64_t unsynced[2]; /* a bit for each sector that was written since the last sync */
    struct known_record records[RECORDS_MAX];
    uint32_t count;   /* appended, and not cut off by a recovery */
    uint32_t durable; /* of them, by a sync that succeeded */
    uint32_t next_id;
    /* the journal that is open for writing */
    uint64_t epoch, sequence, synced, offset;
    /* the superblock */
    uint64_t super_epoch, super_synced;
    uint32_t depth;
    uint32_t parent; /* in the queue, and what led here: for the report of a failure */
    char step[24];
    uint32_t used;               /* bytes of the file that were ever written, whole sectors */
    uint8_t cache[FILE_BYTES];   /* what a read gives */
    uint8_t platter[FILE_BYTES]; /* what is safe */
};
#define SCALARS offsetof(struct state, cache)

struct explorer {
    struct ab_os os;
    struct state *now; /* what the table of calls works on */
    bool is_torn;      /* the next write: half of it */
    bool sync_fails;
    uint8_t header[AB_PAGE]; /* of the file, the same in all states */
    struct state **queue; /* packed: SCALARS, then what is used of both images behind the header */
    uint32_t head, tail, capacity;
    uint64_t *seen;
    uint64_t seen_count, edges, scans, damages, detected, cuts_left_out;
    const struct plan *plan;
    uint32_t depth_max, failures;
    uint8_t *window, *record;
    uint64_t ids[RECORDS_MAX * 2]; /* that a scan gave */
    uint32_t id_count;
};

/* ---- the file ---- */

static struct explorer *explorer_of(const struct ab_os *os)
{
    return os->context;
}

static int file_openat(const struct ab_os *os, int dir, const char *path, int flags, uint32_t mode)
{
    (void)os;
    (void)dir;
    (void)path;
    (void)flags;
    (void)mode;
    return 100;
}

static int file_unlinkat(const struct ab_os *os, int dir, const char *path, int flags)
{
    (void)os;
    (void)dir;
    (void)path;
    (void)flags;
    return 0;
}

static int file_close(const struct ab_os *os, int fd)
{
    (void)os;
    (void)fd;
    return 0;
}

static int64_t file_pread(const struct ab_os *os, int fd, void *bytes, size_t count,
                          uint64_t offset)
{
    const struct state *state = explorer_of(os)->now;
    (void)fd;
    if (offset >= FILE_BYTES) {
        return 0;
    }
    const size_t there = AB_MIN(count, FILE_BYTES - offset);
    memcpy(bytes, state->cache + offset, there);
    return (int64_t)there;
}

static int64_t file_pwrite(const struct ab_os *os, int fd, const void *bytes, size_t count,
                           uint64_t offset)
{
    struct explorer *explorer = explorer_of(os);
    struct state *state = explorer->now;
    (void)fd;
    if (offset + count > FILE_BYTES) {
        return -ENOSPC;
    }
    const size_t whole = count;
    count = explorer->is_torn ? count / 2 : count;
    memcpy(state->cache + offset, bytes, count);
    state->used = AB_MAX(state->used, (uint32_t)ab_align_up(offset + count, SECTOR));
    for (uint64_t i = offset / SECTOR; i <= (offset + count - 1) / SECTOR; i++) {
        state->unsynced[i / 64] |= UINT64_C(1) << i % 64;
    }
    return (int64_t)whole;
}

static int file_fdatasync(const struct ab_os *os, int fd)
{
    struct explorer *explorer = explorer_of(os);
    struct state *state = explorer->now;
    (void)fd;
    if (explorer->sync_fails) {
        return -EIO;
    }
    memcpy(state->platter, state->cache, FILE_BYTES);
    state->unsynced[0] = state->unsynced[1] = 0;
    return 0;
}

/* ---- the journal of a state ---- */

static struct ab_journal journal_of(struct explorer *explorer, const struct state *state)
{
    return (struct ab_journal){.os = &explorer->os,
                               .fd = 100,
                               .generation = 1,
                               .seed = ab_journal_seed(store_id, 1),
                               .epoch = state->epoch,
                               .sequence = state->sequence,
                               .synced = state->synced,
                               .offset = state->offset,
                               .capacity = FILE_BYTES};
}

static void journal_keep(struct state *state, const struct ab_journal *journal)
{
    state->epoch = journal->epoch;
    state->sequence = journal->sequence;
    state->synced = journal->synced;
    state->offset = journal->offset;
}

static void steps_tell(const struct explorer *explorer, const struct state *state)
{
    const struct state *path[64];
    uint32_t count = 0;
    for (; state != NULL && count < 64; count++) {
        path[count] = state;
        state = state->depth == 0 ? NULL : explorer->queue[state->parent];
    }
    while (count-- > 0) {
        printf(" %s", path[count]->step);
    }
    printf("\n");
}

static void fail(struct explorer *explorer, const struct state *state, const char *what)
{
    if (explorer->failures++ < 10) {
        printf("FAIL %s; %u durable of %u; steps:", what, state->durable, state->count);
        steps_tell(explorer, state);
    }
}

static int id_found(void *context, const struct ab_disk_record *record, const uint8_t *payload)
{
    struct explorer *explorer = context;
    uint64_t id = 0;
    if (record->size < sizeof(id) || explorer->id_count == RECORDS_MAX * 2) {
        return -EPROTO;
    }
    memcpy(&id, payload, sizeof(id));
    for (uint32_t i = sizeof(id); i < record->size; i++) {
        if (payload[i] != (uint8_t)(id * 31 + i)) {
            return -EPROTO;
        }
    }
    explorer->ids[explorer->id_count++] = id;
    return 0;
}

/* What an open finds: *ret is the journal behind it. */
static int scan(struct explorer *explorer, struct state *state, struct ab_journal *ret)
{
    struct ab_journal_reader reader = {
        .record = id_found, .context = explorer, .window = explorer->window};
    explorer->now = state;
    explorer->id_count = 0;
    explorer->scans++;
    int result = ab_journal_open(ret, &explorer->os, 0, 0, store_id, 1, true);
    if (result == 0) {
        ret->synced = state->super_synced;
        result = ab_journal_scan(ret, ret->fd, &reader);
    }
    return result;
}

/* ---- states ---- */

/* Equal states have equal futures: all but the way that led here. */
static uint64_t state_hash(const struct state *state)
{
    const uint64_t numbers[] = {state->unsynced[0],  state->unsynced[1], state->count,
                                state->durable,      state->epoch,       state->sequence,
                                state->synced,       state->offset,      state->super_epoch,
                                state->super_synced, state->next_id};
    uint64_t hash = ab_hash64(numbers, sizeof(numbers), 1);
    hash = ab_hash64(state->records, sizeof(state->records[0]) * state->count, hash);
    hash = ab_hash64(state->cache + AB_PAGE, state->used - AB_PAGE, hash);
    hash = ab_hash64(state->platter + AB_PAGE, state->used - AB_PAGE, hash);
    return hash == 0 ? 1 : hash;
}

/* A state that was reached: into the queue, if it is new. */
static void reach(struct explorer *explorer, struct state *state, uint32_t parent, const char *step)
{
    explorer->edges++;
    const uint64_t hash = state_hash(state);
    uint64_t at = hash & ((1u << TABLE_BITS) - 1);
    while (explorer->seen[at] != 0 && explorer->seen[at] != hash) {
        at = (at + 1) & ((1u << TABLE_BITS) - 1);
    }
    if (explorer->seen[at] == hash) {
        return;
    }
    explorer->seen[at] = hash;
    explorer->seen_count++;
    if (explorer->seen_count > (1u << TABLE_BITS) / 2) {
        fail(explorer, state, "the table of states is too small");
        explorer->failures += 1000;
        return;
    }
    state->parent = parent;
    (void)snprintf(state->step, sizeof(state->step), "%s", step);
    if (state->depth >= explorer->depth_max) {
        return; /* it was checked where it was made; nothing follows it */
    }
    if (explorer->tail == explorer->capacity) {
        explorer->capacity *= 2;
        explorer->queue = realloc(explorer->queue, explorer->capacity * sizeof(*explorer->queue));
    }
    const size_t used = state->used - AB_PAGE;
    uint8_t *packed = malloc(SCALARS + 2 * used);
    if (explorer->queue == NULL || packed == NULL) {
        abort();
    }
    memcpy(packed, state, SCALARS);
    memcpy(packed + SCALARS, state->cache + AB_PAGE, used);
    memcpy(packed + SCALARS + used, state->platter + AB_PAGE, used);
    explorer->queue[explorer->tail++] = (void *)packed;
}

static void unpack(const struct explorer *explorer, uint32_t index, struct state *ret)
{
    const uint8_t *packed = (const void *)explorer->queue[index];
    memset(ret, 0, sizeof(*ret));
    memcpy(ret, packed, SCALARS);
    memcpy(ret->cache, explorer->header, AB_PAGE);
    memcpy(ret->platter, explorer->header, AB_PAGE);
    const size_t used = ret->used - AB_PAGE;
    memcpy(ret->cache + AB_PAGE, packed + SCALARS, used);
    memcpy(ret->platter + AB_PAGE, packed + SCALARS + used, used);
}

/* An open by the next process, checked. superblock: it comes to write that. */
static void recover(struct explorer *explorer, struct state *state, uint32_t parent,
                    const char *step, bool superblock)
{
    struct ab_journal journal;
    (void)snprintf(state->step, sizeof(state->step), "%s", step);
    state->parent = parent;
    const int result = scan(explorer, state, &journal);
    if (result != 0) {
        fail(explorer, state,
             result == -ABODE_ECORRUPT ? "an honest crash is called damage"
                                       : "a record is not what was appended");
        return;
    }
    if (explorer->id_count < state->durable || explorer->id_count > state->count) {
        fail(explorer, state, "less than what was durable, or more than was appended");
        return;
    }
    for (uint32_t i = 0; i < explorer->id_count; i++) {
        if (explorer->ids[i] != state->records[i].id) {
            fail(explorer, state, "out of order, or another one's");
            return;
        }
    }
    state->count = explorer->id_count;
    if (ab_journal_sync(&journal) != 0) {
        fail(explorer, state, "sync");
        return;
    }
    state->durable = state->count;
    if (superblock) {
        state->super_epoch++;
        state->super_synced = journal.synced;
    }
    journal.epoch = state->super_epoch;
    journal_keep(state, &journal);
    if (superblock) {
        reach(explorer, state, parent, step);
    } else { /* it appends nothing: the next one finds the old superblock */
        recover(explorer, state, parent, "died-before-superblock", true);
    }
}

/* ---- operations ---- */

static void op_append(struct explorer *explorer, const struct state *from, uint32_t parent,
                      uint32_t size, bool torn)
{
    struct state state = *from;
    const size_t bytes = payload_bytes[size];
    char step[24];
    if (state.count == RECORDS_MAX ||
        state.offset + sizeof(struct ab_disk_record) + bytes + AB_PAGE > FILE_BYTES) {
        return;
    }
    uint8_t *payload = explorer->record + sizeof(struct ab_disk_record);
    const uint64_t id = ++state.next_id;
    for (size_t i = 0; i < bytes; i++) {
        payload[i] = (uint8_t)(id * 31 + i);
    }
    memcpy(payload, &id, sizeof(id));
    state.depth++;
    struct ab_journal journal = journal_of(explorer, &state);
    explorer->now = &state;
    explorer->is_torn = torn;
    const uint64_t start = journal.offset;
    const int result = ab_journal_append(&journal, AB_RECORD_COMMIT, explorer->record, bytes);
    explorer->is_torn = false;
    if (result != 0) {
        fail(explorer, &state, "append");
        return;
    }
    (void)snprintf(step, sizeof(step), "%s%zu", torn ? "torn-" : "append-", bytes);
    if (torn) { /* the process dies inside the write: it may be there, or not, never in part */
        state.records[state.count++] = (struct known_record){id, state.synced, start, start};
        recover(explorer, &state, parent, step, true);
        return;
    }
    state.records[state.count++] = (struct known_record){id, state.synced, start, journal.offset};
    journal_keep(&state, &journal);
    reach(explorer, &state, parent, step);
}

static void op_sync(struct explorer *explorer, const struct state *from, uint32_t parent)
{
    struct state state = *from;
    struct ab_journal journal = journal_of(explorer, &state);
    explorer->now = &state;
    state.depth++;
    if (ab_journal_sync(&journal) != 0) {
        fail(explorer, &state, "sync");
        return;
    }
    state.durable = state.count;
    journal_keep(&state, &journal);
    reach(explorer, &state, parent, "sync");
}

static void op_kill(struct explorer *explorer, const struct state *from, uint32_t parent)
{
    struct state state = *from;
    state.depth++;
    recover(explorer, &state, parent, "kill", true);
    state = *from;
    state.depth++;
    recover(explorer, &state, parent, "kill", false);
}

/* Every subset of what is not synced. After a sync that failed it is the same: the disk has some of it,
 * and nothing was promised. */
static void op_cut(struct explorer *explorer, const struct state *from, uint32_t parent)
{
    const uint32_t grain = explorer->plan->grain;
    uint32_t units[SECTORS], count = 0;
    for (uint32_t at = AB_PAGE; at < from->used; at += grain) {
        if (memcmp(from->cache + at, from->platter + at, grain) != 0) {
            units[count++] = at;
        }
    }
    if (count > UNITS_MAX) {
        explorer->cuts_left_out++;
        return;
    }
    for (uint32_t subset = 0; subset < 1u << count; subset++) {
        struct state state = *from;
        char step[24];
        state.depth++;
        memcpy(state.cache, state.platter, FILE_BYTES);
        for (uint32_t i = 0; i < count; i++) {
            if ((subset >> i & 1) != 0) {
                memcpy(state.cache + units[i], from->cache + units[i], grain);
            }
        }
        memcpy(state.platter, state.cache, FILE_BYTES);
        state.unsynced[0] = state.unsynced[1] = 0;
        (void)snprintf(step, sizeof(step), "cut-%x/%u", subset, count);
        struct state again = state;
        recover(explorer, &state, parent, step, true);
        recover(explorer, &again, parent, step, false);
    }
}

/* A sync that fails must say so, and promise nothing. */
static void op_sync_fails(struct explorer *explorer, const struct state *from, uint32_t parent)
{
    struct state state = *from;
    struct ab_journal journal = journal_of(explorer, &state);
    const uint64_t synced = journal.synced, offset = journal.offset;
    explorer->now = &state;
    explorer->sync_fails = true;
    const int result = ab_journal_sync(&journal);
    explorer->sync_fails = false;
    if (result != -EIO || journal.synced != synced || journal.offset != offset) {
        (void)snprintf(state.step, sizeof(state.step), "sync-fails");
        state.depth++;
        state.parent = parent;
        fail(explorer, &state, "a failed sync is a promise");
    }
}

/* ---- damage at rest ---- */

/* Does anything that is left know that record `hit` was durable? */
static bool is_known(const struct state *state, uint32_t hit)
{
    const uint64_t sequence = hit + 1u;
    bool known = state->super_synced >= sequence;
    for (uint32_t i = hit + 1; i < state->count; i++) {
        known |= state->records[i].synced >= sequence;
    }
    for (uint32_t i = 0; i < hit; i++) {
        known |= state->records[i].synced >= sequence; /* cannot be: it came before */
    }
    return known;
}

static void damage_check(struct explorer *explorer, const struct state *from, uint32_t sector,
                         bool flips)
{
    struct state state = *from;
    struct ab_journal journal;
    const uint64_t start = (uint64_t)sector * SECTOR;
    uint64_t from_byte = start, to_byte = start + SECTOR;
    if (flips) {
        from_byte = start + (start / SECTOR * 97 + from->next_id * 13) % SECTOR;
        to_byte = from_byte + 1;
        state.cache[from_byte] ^= 0x20;
    } else {
        memset(state.cache + start, 0, SECTOR);
    }
    uint32_t hit = state.count;
    for (uint32_t i = state.count; i-- > 0;) {
        const struct known_record *record = &state.records[i];
        const bool is_hit = record->start < to_byte && record->end > from_byte &&
                            memcmp(state.cache + record->start, from->cache + record->start,
                                   record->end - record->start) != 0;
        hit = is_hit ? i : hit;
    }
    explorer->damages++;
    const int result = scan(explorer, &state, &journal);
    if (hit == state.count && (result != 0 || explorer->id_count != state.count)) {
        fail(explorer, from, "damage where nothing lies loses something");
    } else if (hit < state.count && explorer->id_count != hit) {
        fail(explorer, from, "damage gives other records than those before it");
    } else if (hit < state.count && result != (is_known(from, hit) ? -ABODE_ECORRUPT : 0)) {
        fail(explorer, from, result == 0 ? "damage is not told" : "damage is told without cause");
    }
    explorer->detected += result == -ABODE_ECORRUPT;
}

static void damages_check(struct explorer *explorer, const struct state *state)
{
    if (state->unsynced[0] != 0 || state->unsynced[1] != 0) {
        return;
    }
    const uint64_t end = AB_MIN(state->offset / SECTOR + 2, (uint64_t)SECTORS);
    for (uint32_t sector = AB_JOURNAL_START / SECTOR; sector < end; sector++) {
        damage_check(explorer, state, sector, false);
        damage_check(explorer, state, sector, true);
    }
}

/* ---- all of it ---- */

static void expand(struct explorer *explorer, uint32_t index)
{
    struct state state;
    unpack(explorer, index, &state);
    damages_check(explorer, &state);
    for (uint32_t size = 0; size < AB_COUNT(payload_bytes); size++) {
        if ((explorer->plan->sizes >> size & 1) == 0) {
            continue;
        }
        op_append(explorer, &state, index, size, false);
        op_append(explorer, &state, index, size, true);
    }
    if (state.unsynced[0] != 0 || state.unsynced[1] != 0) {
        op_sync(explorer, &state, index);
        op_sync_fails(explorer, &state, index);
        op_cut(explorer, &state, index);
    }
    op_kill(explorer, &state, index);
}

static void explorer_init(struct explorer *explorer, const struct plan *plan, uint32_t depth_max)
{
    memset(explorer, 0, sizeof(*explorer));
    explorer->os = *ab_os_default();
    explorer->os.context = explorer;
    explorer->os.openat = file_openat;
    explorer->os.unlinkat = file_unlinkat;
    explorer->os.close = file_close;
    explorer->os.pread = file_pread;
    explorer->os.pwrite = file_pwrite;
    explorer->os.fdatasync = file_fdatasync;
    explorer->plan = plan;
    explorer->depth_max = depth_max;
    explorer->capacity = 1024;
    explorer->queue = malloc(explorer->capacity * sizeof(*explorer->queue));
    explorer->seen = calloc(1u << TABLE_BITS, sizeof(*explorer->seen));
    explorer->window = aligned_alloc(AB_PAGE, AB_JOURNAL_WINDOW);
    explorer->record = malloc(sizeof(struct ab_disk_record) + AB_PAGE * 2);
    if (explorer->queue == NULL || explorer->seen == NULL || explorer->window == NULL ||
        explorer->record == NULL) {
        abort();
    }
}

static void explorer_free(struct explorer *explorer)
{
    for (uint32_t i = 0; i < explorer->tail; i++) {
        free(explorer->queue[i]);
    }
    free(explorer->queue);
    free(explorer->seen);
    free(explorer->window);
    free(explorer->record);
}

static uint32_t plan_run(const struct plan *plan, uint32_t depth, uint64_t *states)
{
    static struct state first;
    static struct explorer explorer;
    struct ab_journal journal;
    memset(&first, 0, sizeof(first));
    explorer_init(&explorer, plan, depth);
    explorer.now = &first;
    int failed = ab_journal_create(&journal, &explorer.os, 0, 0, store_id, 1, 1);
    journal.epoch = first.super_epoch = 1;
    failed = failed < 0 ? failed : ab_journal_sync(&journal);
    if (failed < 0) {
        printf("FAIL create: %d\n", failed);
        return 1;
    }
    memcpy(explorer.header, first.cache, AB_PAGE);
    journal_keep(&first, &journal);
    reach(&explorer, &first, 0, "create");
    for (; explorer.head < explorer.tail && explorer.failures < 1000; explorer.head++) {
        expand(&explorer, explorer.head);
    }
    printf("%s: depth %u, %llu states, %llu steps, %llu scans, %llu of %llu damages told, "
           "%llu cuts of more than %u units left out\n",
           plan->name, depth, (unsigned long long)explorer.seen_count,
           (unsigned long long)explorer.edges, (unsigned long long)explorer.scans,
           (unsigned long long)explorer.detected, (unsigned long long)explorer.damages,
           (unsigned long long)explorer.cuts_left_out, UNITS_MAX);
    *states += explorer.seen_count;
    explorer_free(&explorer);
    return explorer.failures;
}

int main(int argc, char **argv)
{
    const bool is_long = getenv("ABODE_LONG") != NULL;
    const char *sanitize = getenv("ABODE_SANITIZE"); /* ten times as slow there */
    const uint32_t less =
        (uint32_t)live_option(argc, argv, "--less", sanitize != NULL && *sanitize != '\0' ? 1 : 0);
    uint64_t states = 0;
    uint32_t failures = 0;
    for (uint32_t i = 0; i < AB_COUNT(plans); i++) {
        const uint32_t depth = is_long ? plans[i].depth_long : plans[i].depth;
        failures += plan_run(&plans[i], depth - less, &states);
    }
    printf("reliability: R11 %llu states of a journal, all sequences of up to %u operations; no "
           "seed; %u violations\n",
           (unsigned long long)states, plans[0].depth - less, failures);
    printf("%d passed, %d failed, 0 skipped\n", failures == 0, failures != 0);
    return failures == 0 ? 0 : 1;
}
