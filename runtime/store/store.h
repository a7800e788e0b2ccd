/*
 * store.h - segments, journal and promises: where blocks lie on disk, and what has been promised.
 *
 * The store hands out places (slots) in preallocated segment files and makes entries durable; it
 * does not move payload (kv/transfer does, through io) and does not know what entries mean (kv
 * does). Three laws:
 *   1. bytes before the record that points at them: payload is written, then (DURABLE) synced, then
 *      the entries that name it are appended to the journal, then (DURABLE) the journal is synced;
 *   2. written bytes are never overwritten in place: a segment is used again only when nothing in it
 *      is live and the entries that say so are durable; it then has a higher generation;
 *   3. entries are idempotent: replaying a prefix twice, or a checkpoint made while entries were
 *      added, ends in the same state.
 *
 * On disk (README.md has the drawing, format.h the structs):
 *   DIR/superblock    4 copies, 2 must agree: store id, directory index and count, epoch, journal
 *   DIR/lock          flock of the writer
 *   DIR/journal.a|b   (first directory only) the active one: a checkpoint, then entries
 *   DIR/segments/NNNNNNNN  fixed size, header page, then extents: header page + payload pages
 *
 * Threads: any, but for open and close. The committer thread, the store's own, calls `done` of
 * commits and the client's `checkpoint`; a preparer thread writes zeroes into new segments ahead.
 */
#ifndef AB_STORE_STORE_H
#define AB_STORE_STORE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/hash.h"
#include "base/list.h"
#include "base/log.h"
#include "base/os.h"
#include "machine/topology.h"

#define AB_SEGMENT_STEP (1u << 20) /* segment_bytes is a multiple of it */
#define AB_SEGMENT_BYTES_MAX (256u << 20)
#define AB_STORE_DEVICES_MAX 16
#define AB_STORE_SEGMENTS_MAX (1u << 24)
#define AB_EXTENT_ITEMS_MAX 48 /* blocks that one extent header page can list */

struct ab_store;

/* ---- entries: what the journal holds, in the client's words ---- */
struct ab_entry {              /* header of each entry; size is a multiple of 8, header included */
    _Alignas(8) uint16_t type; /* the client's, 1 .. 0x7fff; the store's own have the top bit */
    uint16_t flags;
    uint32_t size;
};
#define AB_ENTRY_SIZE_MAX (256u << 10)
struct ab_store_client {
    void *context;
    /* inside ab_store_open, in order, in its thread; may call ab_store_slot_restore and
     * ab_store_drop on `store`. negative: the store does not open */
    int (*replay)(void *context, struct ab_store *store, const struct ab_entry *entry);
    /* inside ab_store_open, when all has been replayed; may commit. Nothing is asked of the client
     * before it has returned, a checkpoint least of all. negative: the store does not open. May be
     * NULL */
    int (*recovered)(void *context, struct ab_store *store);
    /* committer thread: write the client's state from *cursor on (0 = start) into bytes, whole
     * entries, at most capacity (>= AB_ENTRY_SIZE_MAX); move *cursor on, UINT64_MAX = all said.
     * Returns the size. It says exactly the state whose commits are done: nothing that waits for
     * its `done`, and nothing that a `done` with status 0 has ended. */
    int64_t (*checkpoint)(void *context, uint64_t *cursor, void *bytes, size_t capacity);
};

/* ---- open ---- */
struct ab_store_config {
    const struct ab_os *os;
    const struct ab_log *log;
    const struct ab_topology *topology;
    const char *const *paths;
    uint32_t path_count;
    uint32_t
        segment_bytes; /* new stores; multiple of 1 MiB, 1 MiB .. 256 MiB; 0 = 64 MiB, 8 to 32 if small */
    uint64_t bytes_max; /* all directories, whole segments; 0 = half of what is free */
    bool create, read_only;
    uint64_t group_bytes;      /* a group commit waits for at most so much ... 0 = 16 MiB */
    uint64_t group_wait_ns;    /* ... or so long; 0 = 2 ms. Nothing waits while the store is idle */
    uint64_t journal_tail_min; /* no checkpoint before the journal is so long; 0 = 16 MiB */
    struct ab_store_client client;
};
/* Recovers: superblock, checkpoint, journal tail; reads no payload. -ABODE_ESTORE, -ABODE_EFORMAT,
 * -ABODE_ELOCKED, -ENOENT, -ENOSPC, -EROFS ...; the log says what is wrong and the mend. */
int ab_store_open(const struct ab_store_config *config, struct ab_store **ret) AB_MUST_CHECK;
/* Finishes queued commits, syncs, writes a checkpoint if the journal is long. */
void ab_store_close(struct ab_store *store); /* NULL is fine */

struct ab_store_device {
    const char *path; /* of its directory */
    int32_t device;   /* in the topology, -1: none known */
    int32_t node;
    bool direct_io;
    int direct_io_reason; /* -errno why not */
    uint32_t io_align;    /* memory and offset alignment of O_DIRECT, <= 4096 */
    bool read_only;       /* went bad: two failed syncs, or opened so */
    uint64_t bytes_total, bytes_live, bytes_free;
};
uint32_t ab_store_device_count(const struct ab_store *store);
struct ab_store_device ab_store_device(struct ab_store *store, uint32_t device);
int ab_store_probe_fd(const struct ab_store *store, uint32_t device); /* for ab_io_config */
uint32_t ab_store_segment_count(const struct ab_store *store); /* numbers in use are below it */
uint32_t ab_store_segment_bytes(const struct ab_store *store);

/* ---- slots ---- */
enum ab_stream {                       /* blocks of like life expectancy share segments */
                 AB_STREAM_SEALED = 0, /* full rows of sessions */
                 AB_STREAM_TAIL,       /* partly filled rows, snapshots: rewritten each turn */
                 AB_STREAM_CACHE,
                 AB_STREAM_COMPACT, /* of compaction alone: may take the segments kept back */
                 AB_STREAM_COUNT,
};
struct ab_slot {
    uint32_t segment;
    uint32_t page; /* of 4 KiB, in the segment file */
};
struct ab_extent {
    struct ab_slot header; /* header page; payload follows it */
    uint32_t generation;   /* of the segment */
    uint32_t device;
    uint32_t page_count; /* header included */
};
/* Room for a header page and `pages` payload pages, contiguous in one segment, on a device near
 * `node` (-1: any) else striped. Never waits. -ENOSPC the store is full (or has only segments whose
 * drops are being made durable: ask again); -EROFS all devices bad; -EFBIG more than a segment
 * holds; -EIO a file could not be made, and not for want of room. The segment cannot be recycled
 * until the extent is published or abandoned, page by page. */
int ab_store_reserve(struct ab_store *store, enum ab_stream stream, int32_t node, uint32_t pages,
                     struct ab_extent *ret) AB_MUST_CHECK;
uint32_t ab_store_extent_pages_max(const struct ab_store *store); /* payload pages of the largest */
/* Part of an extent is live from now on: its entries are committed / will never be. The header page
 * is released with ab_store_abandon(header, 1) in both cases once its write has ended. */
void ab_store_publish(struct ab_store *store, struct ab_slot slot, uint32_t pages);
void ab_store_abandon(struct ab_store *store, struct ab_slot slot, uint32_t pages);
/* Live pages that no committed entry names any more. */
void ab_store_drop(struct ab_store *store, struct ab_slot slot, uint32_t pages);
/* Replay only: this slot is live. -ABODE_ECORRUPT: no such place; -ENOENT: its file is missing. Dropped
 * again by ab_store_drop, also in replay. What was -ENOENT the client deletes in `recovered`, before
 * any other commit: the file's number is used again, and in a later replay the old entry would find a
 * segment that is there and is another one's. */
int ab_store_slot_restore(struct ab_store *store, struct ab_slot slot, uint32_t pages,
                          uint32_t generation) AB_MUST_CHECK;

uint32_t ab_store_slot_device(const struct ab_store *store, uint32_t segment);
uint32_t ab_store_generation(const struct ab_store *store, uint32_t segment);
/* fd for payload (O_DIRECT where possible), open until close; offset = page * 4 KiB */
int ab_store_segment_fd(const struct ab_store *store, uint32_t segment);
/* path of the segment's file, for reports; bytes written without the end, or -errno */
int ab_store_segment_path(const struct ab_store *store, uint32_t segment, char *ret,
                          size_t capacity);
/* Seed of a payload's checksum: store, place and generation, so that misplaced and stale bytes
 * never match. */
uint64_t ab_store_seed(const struct ab_store *store, struct ab_slot slot, uint32_t generation);

/* One page that says what an extent holds: for scavenging, audits, and reading a raw disk. */
struct ab_extent_item {
    uint8_t key[32];
    struct ab_hash128 checksum;
    uint32_t block, component;
    uint32_t page, bytes; /* page in the segment file */
};
/* page: 4 KiB, written whole. count <= AB_EXTENT_ITEMS_MAX. */
void ab_store_header_fill(const struct ab_store *store, const struct ab_extent *extent,
                          const struct ab_extent_item *items, uint32_t count, void *page);

/* A segment worth emptying (most dead pages, under `percent` live), when free segments are short;
 * must: somebody waits for room, also where they are not, and also one that is still open.
 * AB_INDEX_NONE: none. It stays readable; move its live blocks and drop the old slots. */
uint32_t ab_store_compaction_pick(struct ab_store *store, uint32_t percent, bool must);
/* The same for a segment that the client chose; false: it cannot be emptied now. */
bool ab_store_compaction_take(struct ab_store *store, uint32_t segment);
/* The compaction of a segment has ended: what is live in it still could not be moved, and it is not
 * picked again before that changes or nothing else is left to try. */
void ab_store_compaction_end(struct ab_store *store, uint32_t segment);
/* Payload pages of the largest extent that compaction's open segments have room for. */
uint32_t ab_store_compaction_room(struct ab_store *store);

/* ---- commits ---- */
enum ab_promise { AB_PROMISE_NONE = 0, AB_PROMISE_MEM, AB_PROMISE_WRITTEN, AB_PROMISE_DURABLE };
#define AB_COMMIT_SEGMENTS_MAX 64
struct ab_commit {           /* the caller's memory until done; done may free or reuse it */
    enum ab_promise promise; /* WRITTEN or DURABLE */
    uint32_t segment_count;  /* whose payload the entries name */
    uint32_t segments[AB_COMMIT_SEGMENTS_MAX];
    const void *entries;    /* whole struct ab_entry's, at most AB_ENTRY_SIZE_MAX each */
    size_t entries_size;    /* replayed all or none; at most 4 MiB; 0: only a barrier */
    uint64_t payload_bytes; /* towards group_bytes */
    bool
        relied_on; /* commits behind it may rely on what it says: if it fails, those in its group fail
                     * with it, and the client asks for ab_store_renew in `done` */
    /* Committer thread (a store opened read-only has none: the caller's own), no lock held; status
     * 0: the promise holds. else -errno: nothing was committed (a segment whose sync failed is
     * suspect and takes no more; write elsewhere). -ENOSPC: no room for the journal; commits that
     * name no segments, such as deletes, still find some. */
    void (*done)(struct ab_commit *commit, int status);
    void *context;
    struct ab_list link; /* the store's */
};
void ab_store_commit(struct ab_store *store, struct ab_commit *commit);
/* The client's state has a change that no commit could say. What is committed from now on may rely
 * on it, so that a new journal is made from the client's state first; until that succeeds, commits
 * fail as it did. */
void ab_store_renew(struct ab_store *store);

struct ab_store_stats {
    uint64_t journal_bytes, checkpoint_bytes, prepared_bytes; /* written since open */
    uint64_t commits, groups, data_syncs, journal_syncs, sync_failures;
    uint64_t entries_replayed, recover_ns;
    uint64_t segments_free, segments_open, segments_sealed, segments_suspect;
    uint64_t pages_live, pages_total, metadata_bytes;
    uint64_t journal_size, epoch; /* epoch: opens for writing so far */
};
struct ab_store_stats ab_store_stats(struct ab_store *store);

#endif
