/*
 * format.h - the bytes of a store on disk. Every number is little-endian, every struct is drawn in
 * README.md. All of it is hostile input: nothing here is believed before its hash is checked, and
 * no field is used before its range is.
 *
 *   superblock   4 copies of one page
 *   journal      header page, then records: 64-byte header, payload of whole entries
 *   segment      header page, then extents: header page, payload pages
 *
 * The hash (XXH3-64) is the first field of each struct and covers everything after it. Hash, magic
 * and version keep their place in every later version, so that an old library can tell a newer
 * format from a damaged one.
 */
#ifndef AB_STORE_FORMAT_H
#define AB_STORE_FORMAT_H

#include <stddef.h>
#include <stdint.h>

#include "base/num.h"
#include "store/store.h"

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "the format is little-endian");

#define AB_DISK_VERSION 1u

#define AB_SUPERBLOCK_MAGIC 0x31425345444f4241u /* the bytes "ABODESB1" */
#define AB_JOURNAL_MAGIC 0x314c4a45444f4241u    /* "ABODEJL1" */
#define AB_SEGMENT_MAGIC 0x31475345444f4241u    /* "ABODESG1" */
#define AB_EXTENT_MAGIC 0x31584545444f4241u     /* "ABODEEX1" */
#define AB_RECORD_MAGIC 0x43455241u             /* "AREC" */

#define AB_STORE_ID_BYTES 16
#define AB_SUPERBLOCK_COPIES 4u

/* Three classes of features, a bit each; a bit that this library does not know means: */
struct ab_disk_features {
    uint64_t refuse;    /* do not open */
    uint64_t read_only; /* do not write */
    uint64_t ignore;    /* nothing */
};

struct ab_disk_superblock {
    uint64_t hash; /* unseeded: the store id is not known before */
    uint64_t magic;
    uint32_t version;
    uint32_t page_bytes; /* 4,096 */
    struct ab_disk_features features;
    uint8_t store_id[AB_STORE_ID_BYTES];
    uint32_t directory_index, directory_count;
    uint32_t segment_bytes;
    uint32_t generation_floor; /* no segment gets a lower generation from this epoch on */
    uint64_t epoch;            /* opens for writing so far */
    uint64_t sequence;         /* of this superblock: the highest that 2 copies agree on wins */
    uint64_t created_ns;       /* CLOCK_REALTIME */
    /* first directory only: */
    uint64_t journal_generation;
    uint64_t journal_synced; /* records of that generation up to this one were durable */
    uint32_t journal_name;   /* 0: journal.a, 1: journal.b */
    uint8_t reserved[3972];  /* zero */
};
_Static_assert(sizeof(struct ab_disk_superblock) == AB_PAGE, "one page");
_Static_assert(offsetof(struct ab_disk_superblock, hash) == 0, "fixed for all versions");
_Static_assert(offsetof(struct ab_disk_superblock, magic) == 8, "fixed for all versions");
_Static_assert(offsetof(struct ab_disk_superblock, version) == 16, "fixed for all versions");
_Static_assert(offsetof(struct ab_disk_superblock, store_id) == 48, "drawn in README.md");
_Static_assert(offsetof(struct ab_disk_superblock, epoch) == 80, "drawn in README.md");
_Static_assert(offsetof(struct ab_disk_superblock, journal_generation) == 104, "drawn");

struct ab_disk_journal {
    uint64_t hash; /* seeded as the records of this journal are */
    uint64_t magic;
    uint32_t version;
    uint32_t name; /* 0: journal.a */
    uint8_t store_id[AB_STORE_ID_BYTES];
    uint64_t generation; /* of the journal: one more at each checkpoint */
    uint64_t epoch;      /* of the writer that made the file */
    uint8_t reserved[4040];
};
_Static_assert(sizeof(struct ab_disk_journal) == AB_PAGE, "one page");

/*
 * A record is valid at a place if its hash is right, its generation is the journal's, its sequence
 * is one more than the last one's, and its epoch is not lower than the last one's. Payload follows;
 * the next record starts at the end of it (a multiple of 8), or at the next page: what has been
 * synced is never in a page that is written again.
 */
enum ab_record_kind {
    AB_RECORD_CHECKPOINT = 1, /* entries that say state */
    AB_RECORD_CHECKPOINT_END, /* no payload: all state has been said */
    AB_RECORD_COMMIT,         /* entries of whole commits */
    AB_RECORD_CLOSE,          /* segment entries: how far the open segments were filled */
};
struct ab_disk_record {
    uint64_t hash; /* of the rest and the payload; seed: store id and generation */
    uint32_t magic;
    uint32_t kind; /* enum ab_record_kind */
    uint64_t generation;
    uint64_t sequence; /* 1 is the first */
    uint64_t epoch;
    uint64_t synced; /* records up to this one were durable before this one was written */
    uint32_t size;   /* bytes of payload, a multiple of 8 */
    uint32_t reserved[3];
};
_Static_assert(sizeof(struct ab_disk_record) == 64, "headers stay 8-aligned, one cache line");

/* The store's own entry: the segment has this generation from here on. */
#define AB_ENTRY_SEGMENT 0x8001u
struct ab_disk_segment_entry {
    struct ab_entry entry;
    uint32_t segment, generation;
    uint32_t used_pages; /* AB_RECORD_CLOSE: where the next extent goes; else 0 */
    uint32_t stream;     /* AB_RECORD_CLOSE: enum ab_stream; else 0 */
};
_Static_assert(sizeof(struct ab_entry) == 8, "entries stay 8-aligned");
_Static_assert(sizeof(struct ab_disk_segment_entry) == 24, "packed by hand");

struct ab_disk_segment {
    uint64_t hash;
    uint64_t magic;
    uint32_t version;
    uint32_t segment; /* its number: a file under another's name is noticed */
    uint8_t store_id[AB_STORE_ID_BYTES];
    uint32_t segment_bytes;
    uint8_t reserved[4052];
};
_Static_assert(sizeof(struct ab_disk_segment) == AB_PAGE, "one page");

struct ab_disk_extent {
    uint64_t hash; /* seed: ab_store_seed of the header's place */
    uint64_t magic;
    uint32_t version;
    uint32_t segment;
    uint8_t store_id[AB_STORE_ID_BYTES];
    uint32_t generation;
    uint32_t page, page_count; /* header page included */
    uint32_t item_count;
    uint8_t reserved[72];
    struct ab_extent_item items[AB_EXTENT_ITEMS_MAX];
    uint8_t rest[896];
};
_Static_assert(sizeof(struct ab_extent_item) == 64, "packed by hand");
_Static_assert(sizeof(struct ab_disk_extent) == AB_PAGE, "one page");
_Static_assert(offsetof(struct ab_disk_extent, items) == 128, "items are cache lines");

#endif
