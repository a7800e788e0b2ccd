/*
 * test_corruption.c - bytes at rest change; nobody is ever given wrong ones, and the rest is served.
 *
 * Goal: each damage to stored state is found, reported with its exact range, and answered by
 * -ABODE_ECORRUPT or a miss; what it does not touch is served byte for byte; damage to superblocks and
 * journal follows the rules of runtime/store/README.md. Method: clones of one store in memory
 * (corrupt_store.h). Blocks: many damages a clone, each to blocks of its own, so that each is judged by
 * itself. Files, superblock copies, journal: one a clone.
 *
 * test_corruption [--seed N] [--damages N] [--lanes N]. test timeout: 600 s
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "front/front.h"
#include "sim/corrupt_store.h"
#include "sim/lanes.h"
#include "store/journal.h"
#include "store/superblock.h"

#define DAMAGES_DEFAULT 100000u
#define DAMAGES_LONG 500000u
#define DAMAGES_SANITIZED 10000u
#define LANES_DEFAULT 2u
#define ROUNDS_A_BASE 200u
#define HIT_PERCENT_MAX 60u
#define RECORDS_MAX 4096u

enum kind { /* of damage */
            KIND_BIT = 0,
            KIND_SECTOR,
            KIND_SWAP,
            KIND_STALE,
            KIND_MISPLACED,
            KIND_TRUNCATED,
            KIND_SEGMENTS,
            KIND_SUPERBLOCK,
            KIND_JOURNAL,
            KIND_TAIL,
            KIND_COUNT
};
static const char *const kind_names[KIND_COUNT] = {
    "flipped bits",    "zeroed sectors", "swapped pages",     "stale pages", "misplaced blocks",
    "truncated files", "swapped files",  "superblock copies", "journal",     "journal's tail",
};

struct result { /* of a lane, in memory shared with the parent */
    uint64_t seed;
    enum kind kind;
    uint64_t counts[KIND_COUNT];
    uint64_t reported, refused, served, bytes_compared;
    uint64_t superblocks_healed, journals_refused, tails_cut, harmless;
    char why[CORRUPT_WHY_MAX];
};
struct lane {
    struct result *result;
    struct corrupt_base base;
    struct corrupt_run run;
    uint64_t random;
};

static uint32_t below(struct lane *lane, uint32_t bound)
{
    return live_random_below(&lane->random, bound);
}

static void page_get(const struct sim_file *file, uint32_t page, unsigned char bytes[SIM_PAGE])
{
    sim_file_read(file, bytes, SIM_PAGE, (uint64_t)page * SIM_PAGE);
}

/* ---- blocks: many a clone ----------------------------------------------------------------------------- */

static struct sim_file *file_of(struct lane *lane, const struct corrupt_block *block)
{
    return &lane->run.disk.image.files[block->file];
}

/* A page of the block, and how many bytes of it count. */
static uint32_t page_choose(struct lane *lane, const struct corrupt_block *block,
                            uint32_t *ret_bytes)
{
    uint32_t page = below(lane, (block->bytes + SIM_PAGE - 1) / SIM_PAGE);
    uint32_t left = block->bytes - page * SIM_PAGE;

    *ret_bytes = left < SIM_PAGE ? left : SIM_PAGE;
    return block->page + page;
}

/* Another block that is whole yet; 0: none was found. */
static uint32_t block_choose(struct lane *lane)
{
    for (uint32_t attempt = 0; attempt < 20; attempt++) {
        uint32_t index = 1 + below(lane, lane->base.block_count - 1);

        if (!lane->base.blocks[index].is_hit) {
            return index;
        }
    }
    return 0;
}

/* Puts bytes in place of a page of the block; false: they would be the same where it matters. */
static bool page_replace(struct lane *lane, struct corrupt_block *block, uint32_t page,
                         uint32_t bytes_that_count, const unsigned char *bytes)
{
    unsigned char before[SIM_PAGE];

    page_get(file_of(lane, block), page, before);
    if (memcmp(before, bytes, bytes_that_count) == 0) {
        return false;
    }
    sim_file_damage(file_of(lane, block), page, bytes);
    block->is_hit = true;
    return true;
}

static bool small_damage(struct lane *lane, struct corrupt_block *block, enum kind kind)
{
    unsigned char bytes[SIM_PAGE];
    uint32_t count, page = page_choose(lane, block, &count);

    page_get(file_of(lane, block), page, bytes);
    if (kind == KIND_BIT) {
        bytes[below(lane, count)] ^= (unsigned char)(1u << below(lane, 8));
    } else {
        memset(bytes + below(lane, count) / SIM_SECTOR * SIM_SECTOR, 0, SIM_SECTOR);
    }
    return page_replace(lane, block, page, count, bytes);
}

static bool stale_damage(struct lane *lane, struct corrupt_block *block)
{
    const struct sim_file *file = file_of(lane, block);
    uint32_t count, page = page_choose(lane, block, &count);

    return page < file->page_count && file->older[page] != NULL &&
           page_replace(lane, block, page, count, file->older[page]->bytes);
}

/* Two pages of two blocks change places, or one is copied over the other. */
static bool pair_damage(struct lane *lane, struct corrupt_block *block, enum kind kind)
{
    uint32_t other_index = block_choose(lane), count, other_count;
    struct corrupt_block *other = &lane->base.blocks[other_index];
    unsigned char bytes[SIM_PAGE], other_bytes[SIM_PAGE];

    if (other_index == 0 || other == block) {
        return false;
    }
    uint32_t page = page_choose(lane, block, &count);
    uint32_t other_page = page_choose(lane, other, &other_count);
    page_get(file_of(lane, block), page, bytes);
    page_get(file_of(lane, other), other_page, other_bytes);
    if (!page_replace(lane, block, page, count, other_bytes)) {
        return false;
    }
    return kind == KIND_MISPLACED || page_replace(lane, other, other_page, other_count, bytes);
}

static bool block_damage(struct lane *lane, struct corrupt_block *block, enum kind kind)
{
    switch (kind) {
    case KIND_STALE:
        return stale_damage(lane, block);
    case KIND_SWAP:
    case KIND_MISPLACED:
        return pair_damage(lane, block, kind);
    case KIND_BIT:
    case KIND_SECTOR:
    case KIND_TRUNCATED:
    case KIND_SEGMENTS:
    case KIND_SUPERBLOCK:
    case KIND_JOURNAL:
    case KIND_TAIL:
    case KIND_COUNT:
    default:
        return small_damage(lane, block, kind);
    }
}

static int blocks_round(struct lane *lane)
{
    uint32_t wanted = 1 + below(lane, lane->base.block_count * HIT_PERCENT_MAX / 100);

    corrupt_fresh(&lane->run, &lane->base.closed);
    for (uint32_t count = 0; count < wanted; count++) {
        enum kind kind = (enum kind)below(lane, KIND_TRUNCATED);
        uint32_t index = block_choose(lane);

        if (index != 0 && block_damage(lane, &lane->base.blocks[index], kind)) {
            lane->result->counts[kind]++;
        }
    }
    return corrupt_check(&lane->run, below(lane, 2) == 0);
}

/* ---- segment files: one a clone ------------------------------------------------------------------------ */

static void blocks_hit(struct lane *lane, uint32_t file, uint64_t from)
{
    for (uint32_t index = 1; index < lane->base.block_count; index++) {
        struct corrupt_block *block = &lane->base.blocks[index];
        uint64_t end =
            ((uint64_t)block->page * SIM_PAGE + block->bytes + SIM_PAGE - 1) / SIM_PAGE * SIM_PAGE;

        block->is_hit |= block->file == file && end > from;
    }
}

static int file_round(struct lane *lane)
{
    const struct corrupt_block *block =
        &lane->base.blocks[1 + below(lane, lane->base.block_count - 1)];
    const struct corrupt_block *other =
        &lane->base.blocks[1 + below(lane, lane->base.block_count - 1)];
    struct sim_image *image = &lane->run.disk.image;

    corrupt_fresh(&lane->run, &lane->base.closed);
    if (block->file != other->file && below(lane, 2) == 0) {
        const struct sim_file swapped = image->files[block->file];

        image->files[block->file] = image->files[other->file];
        image->files[other->file] = swapped;
        blocks_hit(lane, block->file, 0);
        blocks_hit(lane, other->file, 0);
        lane->result->counts[KIND_SEGMENTS]++;
    } else {
        uint64_t size = below(lane, (uint32_t)image->files[block->file].size);

        sim_file_resize(image, &image->files[block->file], size);
        sim_image_sync(image);
        blocks_hit(lane, block->file, size);
        lane->result->counts[KIND_TRUNCATED]++;
    }
    return corrupt_check(&lane->run, below(lane, 2) == 0);
}

/* ---- superblock copies ---------------------------------------------------------------------------------- */

static void copy_damage(struct lane *lane, struct sim_file *file, uint32_t copy)
{
    unsigned char bytes[SIM_PAGE];

    page_get(file, copy, bytes);
    if (below(lane, 3) == 0) {
        memset(bytes + below(lane, SIM_SECTORS) * SIM_SECTOR, 0xff, SIM_SECTOR);
    } else {
        bytes[below(lane, SIM_PAGE)] ^= (unsigned char)(1u << below(lane, 8));
    }
    sim_file_damage(file, copy, bytes);
}

/* One stale copy cannot win: two must agree. */
static void copy_stale(struct sim_file *file, uint32_t copy)
{
    if (file->older[copy] != NULL) {
        unsigned char bytes[SIM_PAGE];

        memcpy(bytes, file->older[copy]->bytes, SIM_PAGE);
        sim_file_damage(file, copy, bytes);
    }
}

static int superblock_round(struct lane *lane)
{
    uint32_t hit = 1 + below(lane, 15), stale = below(lane, 8), good;
    struct ab_disk_superblock chosen;
    unsigned char bytes[AB_SUPERBLOCK_COPIES * SIM_PAGE];
    struct abode *runtime = NULL;
    struct sim_file *file;
    uint32_t agreeing = 0;
    int rc;

    corrupt_fresh(&lane->run, &lane->base.closed);
    file = corrupt_file(&lane->run, "/store/superblock");
    for (uint32_t copy = 0; copy < AB_SUPERBLOCK_COPIES; copy++) {
        if ((hit & 1u << copy) != 0 && copy == stale) {
            copy_stale(file, copy);
        } else if ((hit & 1u << copy) != 0) {
            copy_damage(lane, file, copy);
        }
    }
    lane->result->counts[KIND_SUPERBLOCK] += (uint32_t)__builtin_popcount(hit);
    good = AB_SUPERBLOCK_COPIES - (uint32_t)__builtin_popcount(hit);
    if (good < 2) { /* nothing is touched, the file least of all */
        rc = corrupt_open(&lane->run, 0, &runtime);
        return rc == -ABODE_ECORRUPT && lane->run.disk.changes == 0 &&
                       strstr(lane->run.log, "superblock") != NULL
                   ? 0
                   : corrupt_wrong(&lane->run, "%u copies are good: open: %s, %llu changes", good,
                                   abode_strerror(rc), (unsigned long long)lane->run.disk.changes);
    }
    rc = corrupt_check(&lane->run, true);
    file = corrupt_file(&lane->run, "/store/superblock");
    sim_file_read(file, bytes, sizeof(bytes), 0);
    if (rc == 0 && (ab_superblock_choose(bytes, sizeof(bytes), &chosen, &agreeing) < 0 ||
                    agreeing != AB_SUPERBLOCK_ALL)) {
        return corrupt_wrong(&lane->run, "the superblock was not mended: %x agree", agreeing);
    }
    lane->result->superblocks_healed += rc == 0;
    return rc;
}

/* ---- the journal --------------------------------------------------------------------------------------------- */

struct record_place {
    uint64_t offset, end, synced;
};
struct journal_map {
    char path[32];
    struct record_place records[RECORDS_MAX];
    uint32_t count;
    uint64_t synced; /* records that somebody knows as durable: the superblock */
};

static int record_note(void *context, const struct ab_disk_record *record, const uint8_t *payload)
{
    struct journal_map *map = context;

    (void)payload;
    if (map->count < RECORDS_MAX) {
        map->records[map->count++] =
            (struct record_place){.end = sizeof(*record) + record->size, .synced = record->synced};
    }
    return 0;
}

/* Where the records lie, by the library's own reader: on the whole journal. */
static int journal_read(struct lane *lane, struct journal_map *map)
{
    static _Alignas(4096) uint8_t window[AB_JOURNAL_WINDOW];
    const struct ab_os *os = &lane->run.disk.os;
    struct ab_journal_reader reader = {.record = record_note, .context = map, .window = window};
    struct ab_disk_superblock superblock;
    struct ab_journal journal;
    uint32_t agreeing;
    int dir = os->openat(os, -1, SIM_MOUNT "/store", 0, 0);
    int fd = os->openat(os, dir, "superblock", 0, 0);
    int rc = ab_superblock_read(os, fd, &superblock, &agreeing);

    map->count = 0;
    rc = rc < 0 ? rc
                : ab_journal_open(&journal, os, dir, superblock.journal_name, superblock.store_id,
                                  superblock.journal_generation, false);
    if (rc == 0) {
        map->synced = superblock.journal_synced;
        (void)snprintf(map->path, sizeof(map->path), "/store/%s",
                       ab_journal_file(superblock.journal_name));
        rc = ab_journal_scan(&journal, journal.fd, &reader);
        ab_journal_close(&journal);
    }
    (void)os->close(os, fd);
    (void)os->close(os, dir);
    return rc;
}

/* The reader tells sizes, the file where they start: at once, or at the next page. */
static int journal_map(struct lane *lane, struct journal_map *map)
{
    int rc = journal_read(lane, map);
    const struct sim_file *file = corrupt_file(&lane->run, map->path);
    uint64_t at = AB_JOURNAL_START;

    for (uint32_t index = 0; index < map->count && rc == 0; index++) {
        struct ab_disk_record record;

        sim_file_read(file, &record, sizeof(record), at);
        if (record.magic != AB_RECORD_MAGIC || record.sequence != index + 1) {
            at = (at + SIM_PAGE - 1) / SIM_PAGE * SIM_PAGE;
            sim_file_read(file, &record, sizeof(record), at);
        }
        rc = record.sequence == index + 1 ? 0 : -EBADMSG;
        map->records[index].offset = at;
        map->records[index].end += at;
        at = map->records[index].end;
    }
    return rc;
}

/* The record that these bytes are of; map->count: none. */
static uint32_t record_at(const struct journal_map *map, uint64_t from, uint64_t end)
{
    for (uint32_t index = 0; index < map->count; index++) {
        if (map->records[index].offset < end && map->records[index].end > from) {
            return index;
        }
    }
    return map->count;
}

/* Does anything that is left say that this record was durable? */
static bool is_known_durable(const struct journal_map *map, uint32_t record, uint64_t end)
{
    if (map->synced > record) {
        return true;
    }
    for (uint32_t later = record + 1; later < map->count; later++) {
        if (map->records[later].offset >= end && map->records[later].synced > record) {
            return true;
        }
    }
    return false;
}

/* Changes some bytes; where they are. */
static void journal_damage(struct lane *lane, struct sim_file *file, uint64_t size, enum kind place,
                           uint64_t *ret_from, uint64_t *ret_end)
{
    unsigned char bytes[SIM_PAGE], before[SIM_PAGE];
    uint32_t pages = (uint32_t)(size / SIM_PAGE), kind = below(lane, 4);
    uint32_t page = place == KIND_TAIL ? pages - 1 - below(lane, 3) : 1 + below(lane, pages - 1);
    uint32_t at = below(lane, SIM_PAGE), count = 1;

    page_get(file, page, bytes);
    memcpy(before, bytes, sizeof(before));
    if (kind == 0) {
        at = at / SIM_SECTOR * SIM_SECTOR;
        count = SIM_SECTOR;
        memset(bytes + at, 0, count);
    } else if (kind == 1) { /* another page of it */
        at = 0;
        count = SIM_PAGE;
        page_get(file, 1 + below(lane, (uint32_t)(size / SIM_PAGE - 1)), bytes);
    } else {
        bytes[at] ^= (unsigned char)(1u << below(lane, 8));
    }
    while (count > 0 && bytes[at] == before[at]) {
        at++;
        count--;
    }
    while (count > 0 && bytes[at + count - 1] == before[at + count - 1]) {
        count--;
    }
    sim_file_damage(file, page, bytes);
    *ret_from = (uint64_t)page * SIM_PAGE + at;
    *ret_end = *ret_from + count;
}

/* Refused, and the log says where: not before the end of the last whole record, not behind the damage. */
static int refusal_check(struct lane *lane, const struct journal_map *map, uint32_t record, int rc)
{
    const char *told = strstr(lane->run.log, "damaged at byte ");
    uint64_t before = record == 0 ? AB_JOURNAL_START : map->records[record - 1].end;
    uint64_t at = told == NULL ? 0 : strtoull(told + strlen("damaged at byte "), NULL, 10);

    if (rc != -ABODE_ECORRUPT || told == NULL || at < before || at > map->records[record].offset) {
        return corrupt_wrong(
            &lane->run, "record %u of %u at %llu is damaged: open: %s; log: %.120s", record + 1,
            map->count, (unsigned long long)map->records[record].offset, abode_strerror(rc),
            lane->run.log);
    }
    lane->result->journals_refused++;
    return corrupt_check_read_only(&lane->run); /* the state before it */
}

static int journal_round(struct lane *lane, const struct sim_image *image, enum kind kind)
{
    static struct journal_map map; /* a lane is a process */
    struct abode *runtime = NULL;
    uint64_t from, end, size;
    uint32_t record;
    int rc;

    corrupt_fresh(&lane->run, image);
    rc = journal_map(lane, &map);
    if (rc < 0) {
        return corrupt_wrong(&lane->run, "the whole journal: %s", abode_strerror(rc));
    }
    size = (map.records[map.count - 1].end + SIM_PAGE - 1) / SIM_PAGE * SIM_PAGE;
    journal_damage(lane, corrupt_file(&lane->run, map.path), size, kind, &from, &end);
    record = record_at(&map, from, end);
    lane->result->counts[kind]++;
    if (record < map.count && is_known_durable(&map, record, end)) {
        return refusal_check(lane, &map, record, corrupt_open(&lane->run, 0, &runtime));
    }
    if (record == map.count) {
        lane->result->harmless++;
        return corrupt_check(&lane->run, true);
    }
    lane->result->tails_cut++; /* nobody can tell it from a torn write: the state before it */
    rc = corrupt_open(&lane->run, 0, &runtime);
    rc = rc < 0 ? rc : abode_close(runtime);
    if (rc < 0) {
        return corrupt_wrong(&lane->run,
                             "record %u of %u, known as durable by nobody, is damaged: %s",
                             record + 1, map.count, abode_strerror(rc));
    }
    return corrupt_check_read_only(&lane->run);
}

/* ---- lanes -------------------------------------------------------------------------------------------------------- */

static int round_run(struct lane *lane)
{
    uint32_t dice = below(lane, 100);

    if (dice < 25) {
        return blocks_round(lane);
    }
    if (dice < 35) {
        return file_round(lane);
    }
    if (dice < 55) {
        return superblock_round(lane);
    }
    return dice < 80 ? journal_round(lane, &lane->base.closed, KIND_JOURNAL)
                     : journal_round(lane, &lane->base.killed, KIND_TAIL);
}

static uint64_t damages_of(const struct result *result)
{
    uint64_t sum = 0;

    for (uint32_t kind = 0; kind < KIND_COUNT; kind++) {
        sum += result->counts[kind];
    }
    return sum;
}

/* One base, and rounds on it. */
static int seed_run(struct lane *lane, uint64_t seed, uint64_t damages)
{
    int rc = corrupt_base_make(&lane->base, seed);

    lane->result->seed = seed;
    lane->random = seed;
    if (rc < 0) {
        return corrupt_wrong(&lane->run, "the base is not made: %s", abode_strerror(rc));
    }
    for (uint32_t round = 0; round < ROUNDS_A_BASE && rc == 0 && damages_of(lane->result) < damages;
         round++) {
        rc = round_run(lane);
    }
    corrupt_base_free(&lane->base);
    return rc;
}

static int lane_run(const struct lanes *lanes, uint32_t index, void *result_in)
{
    const struct live_tuning tuning = {.is_small = true, .pause_ns = 50000};
    const uint64_t damages = lanes->amount / lanes->count;
    struct result *result = result_in;
    struct lane *lane = calloc(1, sizeof(*lane));
    int rc = lane == NULL ? -ENOMEM : 0;

    live_tune(&tuning);
    for (uint64_t seed = lanes->seed + index; rc == 0 && damages_of(result) < damages;
         seed += lanes->count) {
        lane->result = result;
        lane->run.base = &lane->base;
        rc = seed_run(lane, seed, damages);
    }
    if (lane != NULL) {
        result->reported = lane->run.reported;
        result->refused = lane->run.refused;
        result->served = lane->run.served;
        result->bytes_compared = lane->run.bytes_compared;
        memcpy(result->why, lane->run.why, sizeof(result->why));
    }
    return rc < 0;
}

#define N(value) (unsigned long long)(value)
static void lane_tell(const void *result_in, int status)
{
    const struct result *result = result_in;

    printf("FAIL %s (status %x)\n    repeat: test_corruption --seed %llu --lanes 1\n", result->why,
           (unsigned)status, N(result->seed));
}

static uint32_t report(const struct lanes *lanes, uint32_t failed)
{
    struct result sum = {0};

    for (uint32_t lane = 0; lane < lanes->count; lane++) {
        const struct result *one = lanes_result(lanes, lane);

        for (uint32_t kind = 0; kind < KIND_COUNT; kind++) {
            sum.counts[kind] += one->counts[kind];
        }
        sum.seed = one->seed > sum.seed ? one->seed : sum.seed;
        sum.reported += one->reported;
        sum.refused += one->refused;
        sum.served += one->served;
        sum.bytes_compared += one->bytes_compared;
        sum.superblocks_healed += one->superblocks_healed;
        sum.journals_refused += one->journals_refused;
        sum.tails_cut += one->tails_cut;
        sum.harmless += one->harmless;
    }
    for (uint32_t kind = 0; kind < KIND_COUNT; kind++) {
        printf("%-18s %llu\n", kind_names[kind], N(sum.counts[kind]));
        if (sum.counts[kind] == 0 && failed == 0) {
            printf("FAIL no damage of this kind was made\n");
            failed++;
        }
    }
    printf("bad blocks reported, each once with its exact range: %llu; refused %llu, served whole "
           "%llu, "
           "bytes compared %llu\n",
           N(sum.reported), N(sum.refused), N(sum.served), N(sum.bytes_compared));
    printf("superblocks mended %llu; journals refused with the place %llu, tails cut %llu, between "
           "records %llu\n",
           N(sum.superblocks_healed), N(sum.journals_refused), N(sum.tails_cut), N(sum.harmless));
    printf("reliability: R8 %llu damages at rest; seeds %llu-%llu; %u violations\n",
           N(damages_of(&sum)), N(lanes->seed), N(sum.seed), failed);
    return failed;
}

int main(int argc, char **argv)
{
    const struct lanes_options options = {.amount_name = "--damages",
                                          .amount = DAMAGES_DEFAULT,
                                          .amount_long = DAMAGES_LONG,
                                          .amount_sanitized = DAMAGES_SANITIZED,
                                          .count = LANES_DEFAULT,
                                          .result_bytes = sizeof(struct result)};
    struct lanes lanes;
    int rc = lanes_init(&lanes, &options, argc, argv);

    return rc != 0 ? rc : lanes_end(&lanes, report(&lanes, lanes_run(&lanes, lane_run, lane_tell)));
}
