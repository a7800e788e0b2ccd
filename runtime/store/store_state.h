/*
 * store_state.h - what an open store is made of, and the calls between the files of this folder.
 *
 *   directory.c     the directories: what is in them, making a store, locks, superblocks
 *   recover.c       journal -> client and segment table, at open
 *   segment.c       states of segments and their lists      segment_file.c  their files
 *   reserve.c       places for extents                      prepare.c       zeroes ahead (thread)
 *   commit.c        groups (the committer thread)           checkpoint.c    the other journal
 *   store.c         open, close, questions
 *
 * WHO WRITES WHAT: `lock` guards the segment table and the directories' lists; the committer alone
 * touches the journals, the record buffer and the superblocks between open and close; `inbox_lock`
 * guards the inbox. Fields marked (open) do not change after ab_store_open.
 */
#ifndef AB_STORE_STORE_STATE_H
#define AB_STORE_STORE_STATE_H

#include <stdatomic.h>

#include "base/lock.h"
#include "machine/threads.h"
#include "store/format.h"
#include "store/journal.h"
#include "store/store.h"

#define AB_OPEN_PER_STREAM 2u /* so that an extent that does not fit wastes less */
#define AB_FREE_LOW 3u        /* free segments a directory: fewer, and empty ones are hurried */
#define AB_PREPARED_AHEAD 2u  /* prepared segments a directory */
#define AB_FREE_KEPT 1u       /* free segments a directory that only compaction may take */
#define AB_GROUP_COMMITS_MAX 256u
#define AB_JOURNAL_TAIL_MIN (16u << 20) /* a checkpoint is not worth it before */
#define AB_DISK_MARGIN (64u << 20)      /* of the first file system is left to the journal */
#define AB_FULL_RETRY_NS 1000000000u    /* a full disk is asked for a segment so often at most */

enum ab_segment_state {
    AB_SEGMENT_NONE = 0, /* no file that counts; -> MAKING by reserve or preparer */
    AB_SEGMENT_MAKING,   /* one thread makes or fills the file; -> FREE, NONE, BAD by that thread */
    AB_SEGMENT_FREE,     /* -> OPEN by reserve, MAKING by the preparer */
    AB_SEGMENT_OPEN,     /* extents are handed out; -> SEALED by reserve */
    AB_SEGMENT_SEALED,   /* -> EMPTY by whoever takes the last page away */
    AB_SEGMENT_EMPTY,    /* drops not durable yet; -> FREE once they are */
    AB_SEGMENT_BAD,      /* a sync failed, or the file is missing: readable at most, for ever */
    AB_SEGMENT_STATE_COUNT,
};

struct ab_segment {
    _Atomic int32_t fd;          /* + 1; 0: not open. Set once, by whoever comes first */
    _Atomic uint32_t generation; /* changes only while no page of it is live or pending */
    uint32_t live, pending;      /* pages */
    uint32_t used;               /* OPEN: the next extent goes to this page */
    uint32_t left;               /* live pages that the last compaction could not move; 0: none */
    uint32_t next;               /* in a free list, or in the empty list */
    uint8_t state;               /* enum ab_segment_state */
    uint8_t stream;              /* enum ab_stream, of OPEN */
    bool present;                /* a file of this name was there at open, or made since */
    bool prepared;               /* every page of it has been written once */
    bool suspect;                /* a sync of it failed: its bytes may be lost */
    bool announced;              /* the journal knows the generation (committer) */
    uint64_t empty_tick;         /* EMPTY: usable when the durable tick is not below */
    uint64_t sync_group;         /* committer: the group that it was last synced for ... */
    int sync_status;             /* ... and what came of it */
    bool unsynced;               /* WRITTEN commits have named it since its last sync (committer) */
    uint32_t unsynced_next;      /* in that list */
};

struct ab_store_dir {
    char *path;                                            /* (open) */
    int fd, lock_fd, segments_fd, superblock_fd, probe_fd; /* -1: none; (open) */
    uint64_t dev, ino;                                     /* (open) */
    int32_t device, node;                                  /* (open) of the topology, or -1 */
    bool direct_io;                                        /* (open) */
    int direct_io_reason;
    uint32_t io_align;
    struct ab_disk_superblock superblock;
    _Atomic bool segments_dirty;       /* a file was made: its name is not durable yet */
    _Atomic bool read_only;            /* set by the committer, under `lock` */
    uint32_t bad_count;                /* segments whose sync failed */
    uint32_t existing, existing_max;   /* segments with a file that counts */
    uint32_t place_next;               /* no unused number is below place * directories + index */
    uint32_t ready_first, ready_count; /* FREE and prepared */
    uint32_t plain_first, plain_count; /* FREE, allocated only */
    uint32_t empty_count;
    uint32_t open[AB_STREAM_COUNT][AB_OPEN_PER_STREAM]; /* segments, AB_INDEX_NONE */
    bool busy;                                          /* somebody reserves here: prepare ahead */
    uint64_t retry_ns;                                  /* no new file before: there was no room */
    int make_status; /* a file could not be made: the preparer tells the log */
    uint32_t make_segment;
    uint64_t pages_live;
};

struct ab_store_counters { /* relaxed: read for reports only */
    _Atomic uint64_t journal_bytes, checkpoint_bytes, prepared_bytes;
    _Atomic uint64_t commits, groups, data_syncs, journal_syncs, sync_failures;
    _Atomic uint64_t journal_size;
};
static inline void ab_count(_Atomic uint64_t *counter, uint64_t by)
{
    atomic_fetch_add_explicit(counter, by, memory_order_relaxed);
}

enum ab_switch_phase {
    AB_SWITCH_NONE = 0, /* one journal; -> SEGMENTS when it has grown long, or broke */
    AB_SWITCH_SEGMENTS, /* saying the generations */
    AB_SWITCH_CLIENT,   /* saying the client's state */
    AB_SWITCH_FINISH,   /* all said: sync, superblock; -> NONE */
};
struct ab_switch { /* a checkpoint being written; the committer's */
    enum ab_switch_phase phase;
    struct ab_journal journal; /* the new one */
    uint32_t segment;          /* cursor of SEGMENTS */
    uint64_t cursor;           /* of CLIENT */
    uint64_t unsynced;         /* bytes */
    uint64_t tail_next;        /* after a failure: not again before the tail is so long */
};

struct ab_store {
    const struct ab_os *os;
    const struct ab_log *log;
    const struct ab_topology *topology;
    struct ab_store_client client;
    uint64_t group_bytes, group_wait_ns, journal_tail_min; /* (open) */
    bool read_only;                /* (open) opened so: no thread, no lock, nothing is written */
    uint8_t id[AB_STORE_ID_BYTES]; /* (open) */
    uint32_t segment_bytes, segment_pages; /* (open) */
    uint64_t epoch;                        /* (open) */
    uint32_t generation_floor;             /* (open) */
    uint32_t dir_count;                    /* (open) */
    struct ab_store_dir dirs[AB_STORE_DEVICES_MAX];
    uint64_t entries_replayed, recover_ns; /* (open) */

    struct ab_lock lock;         /* AB_RANK_STORE */
    struct ab_segment *segments; /* [segment_max] */
    uint32_t segment_max;        /* (open) */
    uint32_t segment_count;      /* numbers in use are below */
    uint32_t state_counts[AB_SEGMENT_STATE_COUNT];
    uint32_t empty_first, empty_last;
    uint32_t turn[AB_STREAM_COUNT]; /* striping */
    struct ab_cond prepare_cond;
    bool prepare_stop, prepare_wanted;
    struct ab_thread *preparer;

    struct ab_lock inbox_lock; /* AB_RANK_COMMIT */
    struct ab_cond inbox_cond;
    struct ab_list inbox;
    uint32_t inbox_count, inbox_durable;
    uint64_t inbox_bytes;
    bool sync_wanted; /* empty segments wait for a journal sync */
    bool renew_wanted;
    bool stop;
    bool is_behind; /* the journal, until it was renewed; the committer's */
    struct ab_thread *committer;

    uint32_t unsynced_first; /* segments that have to be synced before DURABLE can be promised */
    bool replays_commits;    /* at open: what comes now is behind the checkpoint */
    bool unsynced_lost;      /* such a sync failed: nothing is DURABLE before the next open */

    struct ab_journal journal; /* the active one */
    struct ab_switch switching;
    uint64_t journal_bytes_before; /* written to journals that are closed */
    uint8_t *record;               /* header and payload of the record being built */
    uint8_t *zeroes;               /* AB_JOURNAL_GROW of them, never written */
    struct ab_commit *group[AB_GROUP_COMMITS_MAX];
    int group_status[AB_GROUP_COMMITS_MAX];
    uint32_t group_count, group_count_last;
    uint64_t group_number;
    /* Groups whose entries are in the journal / are there durably. The committer stores with release
     * order before it calls `done`; ab_store_drop loads with acquire order after that call. */
    _Atomic uint64_t tick_appended, tick_durable;
    _Atomic int failed; /* -errno: nothing is committed any more */
    struct ab_store_counters counters;
};

static inline uint8_t *ab_store_payload(struct ab_store *store)
{
    return store->record + sizeof(struct ab_disk_record);
}
static inline struct ab_store_dir *ab_store_dir_of(struct ab_store *store, uint32_t segment)
{
    return &store->dirs[segment % store->dir_count];
}

/* ---- directory.c ---- */
int ab_dirs_open(struct ab_store *store, const struct ab_store_config *config) AB_MUST_CHECK;
void ab_dirs_close(struct ab_store *store);
/* Writer: one more epoch in every superblock, from which on records and generations are new. */
int ab_dirs_enter_epoch(struct ab_store *store) AB_MUST_CHECK;
/* Rewrite the first directory's superblock for this journal. After an error: not again. */
int ab_dirs_set_journal(struct ab_store *store, const struct ab_journal *journal) AB_MUST_CHECK;
struct ab_dir_scan { /* one name of a directory; negative stops with that result */
    int (*name)(void *context, const char *name);
    void *context;
};
/* Bytes that a user may still write, and all, of its file system. */
int ab_dir_room(const struct ab_os *os, const char *path, uint64_t *ret_free,
                uint64_t *ret_total) AB_MUST_CHECK;
int ab_dir_scan(const struct ab_os *os, int fd, const struct ab_dir_scan *scan) AB_MUST_CHECK;

/* ---- recover.c ---- */
int ab_store_recover(struct ab_store *store, const struct ab_store_config *config) AB_MUST_CHECK;

/* ---- segment.c: `lock` held ---- */
void ab_segment_state_set(struct ab_store *store, uint32_t segment, enum ab_segment_state state);
void ab_segment_free_push(struct ab_store *store, uint32_t segment);
uint32_t ab_segment_free_pop(struct ab_store *store, struct ab_store_dir *dir, bool plain_only);
void ab_segment_seal(struct ab_store *store, uint32_t segment);
void ab_segments_reclaim(struct ab_store *store); /* empty ones whose drops are durable */
/* Number of a file to make; AB_INDEX_NONE: the limit is reached. over: one more than that. */
uint32_t ab_segment_claim(struct ab_store *store, struct ab_store_dir *dir, bool over);
/* Free segments of the directory that only compaction may take. */
uint32_t ab_segments_kept(const struct ab_store_dir *dir);
/* lock not held: the committer found that bytes of it were lost */
void ab_segment_suspect(struct ab_store *store, uint32_t segment, int status);

/* ---- segment_file.c: lock not held ---- */
/* Make or complete the file of a claimed number; 0: it is allocated and has its header. */
int ab_segment_make(struct ab_store *store, uint32_t segment) AB_MUST_CHECK;
/* Write zeroes over all its pages; stops early (-ECANCELED) when the store closes. */
int ab_segment_fill(struct ab_store *store, uint32_t segment) AB_MUST_CHECK;
/* Claim, make and publish a new free segment. -ENOSPC: no room. `lock` is held on both sides, but
 * not in between. over: one more than the limit, for compaction. */
int ab_segment_grow(struct ab_store *store, struct ab_store_dir *dir, bool over) AB_MUST_CHECK;

/* ---- checkpoint.c: the committer (or open and close, when there is none) ---- */
bool ab_checkpoint_is_due(const struct ab_store *store);
/* Some of it; 0: more to do or nothing to do. Negative: given up and logged, the old journal goes
 * on; only ab_checkpoint_run has to know. */
int ab_checkpoint_step(struct ab_store *store);
void ab_checkpoint_abort(struct ab_store *store);
/* All of it, now, because the active journal is broken. Negative: the store has failed. */
int ab_checkpoint_run(struct ab_store *store) AB_MUST_CHECK;
/* The record just appended to the active journal goes to the one being written as well. */
void ab_checkpoint_mirror(struct ab_store *store, enum ab_record_kind kind, size_t size);
/* This store commits nothing any more. */
void ab_store_fail(struct ab_store *store, int status, const char *why);

/* ---- commit.c, prepare.c ---- */
/* The committer's (or open's and close's): bytes of this segment may not be durable yet. */
void ab_unsynced_add(struct ab_store *store, uint32_t segment);
void ab_unsynced_clear(struct ab_store *store);             /* they are, all of them */
int ab_unsynced_sync(struct ab_store *store) AB_MUST_CHECK; /* all of them */
void ab_committer_run(void *store);
void ab_committer_kick(struct ab_store *store); /* wants a journal sync; `lock` may be held */
void ab_preparer_run(void *store);

#endif
