/*
 * corrupt_store.h - a store whose every block is known, to be damaged at rest and opened.
 *
 *   base       made once: sessions of all four kinds of state, a fork, cache items, segments that have
 *              been round at least once (so that each place has older content); closed, or as a kill
 *              would leave it
 *   damage     a clone of it, changed; which blocks are hit is noted
 *   check      opened: exactly the blocks that were hit are reported, with file and range; what rests
 *              on none of them is served byte for byte; what does is -ABODE_ECORRUPT or a miss
 */
#ifndef CORRUPT_STORE_H
#define CORRUPT_STORE_H

#include "sim/sim_host.h"

#define CORRUPT_NAMES 9u /* the last one is a fork */
#define CORRUPT_ITEMS 20u
#define CORRUPT_BLOCKS_MAX 512u
#define CORRUPT_WHY_MAX 320

struct corrupt_block {
    uint32_t segment, page, bytes;
    uint32_t file;  /* of the image */
    uint32_t names; /* a bit for each session that names it */
    uint32_t item;  /* 1 + number of the cache item, 0: none */
    bool is_hit;
};
struct corrupt_base {
    struct sim_image closed,
        killed; /* killed: records that nobody has synced at the journal's end */
    struct live_state states[CORRUPT_NAMES][2]; /* newest, older */
    struct corrupt_block blocks[CORRUPT_BLOCKS_MAX];
    uint32_t block_count;
};
struct corrupt_run {
    struct corrupt_base *base;
    struct sim_disk disk;
    char log[4096]; /* of the last open */
    uint32_t log_size;
    char why[CORRUPT_WHY_MAX]; /* the first thing that was wrong; empty: nothing */
    uint64_t bytes_compared, reported, refused, served;
};

int corrupt_wrong(struct corrupt_run *run, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
/* 0 or negative */
int corrupt_base_make(struct corrupt_base *base, uint64_t seed);
void corrupt_base_free(struct corrupt_base *base);
/* The disk holds a clone of this image, no block is hit. */
void corrupt_fresh(struct corrupt_run *run, const struct sim_image *image);
struct sim_file *corrupt_file(struct corrupt_run *run,
                              const char *path); /* from /sim on; NULL: none */
/* abode_open; the log of it is kept */
int corrupt_open(struct corrupt_run *run, uint32_t flags, struct abode **ret);
/* All of the above against the blocks that are hit; attach_first: reads find the damage, not verify.
 * 0, or negative and why. */
int corrupt_check(struct corrupt_run *run, bool attach_first);
/* Open for reading only: the state before the damage can be walked through. */
int corrupt_check_read_only(struct corrupt_run *run);

#endif
