/*
 * journal.h - one journal file: making it, appending records, syncing, reading it back. Leaf over
 * the os table; one thread at a time. What the records mean, and which of two files counts, is
 * decided above (checkpoint.c, recover.c).
 */
#ifndef AB_STORE_JOURNAL_H
#define AB_STORE_JOURNAL_H

#include "store/format.h"

#define AB_JOURNAL_NAMES 2u
#define AB_JOURNAL_START ((uint64_t)AB_PAGE) /* the first record follows the header page */
#define AB_JOURNAL_GROW (1u << 20)           /* zeroes written ahead at a time */
#define AB_JOURNAL_SPARE (256u << 10)        /* of them only for commits that name no payload */
#define AB_COMMIT_BYTES_MAX (4u << 20)       /* entries of one commit */
#define AB_RECORD_PAYLOAD_MAX \
    (AB_COMMIT_BYTES_MAX + (64u << 10)) /* and the store's own with them */

struct ab_journal {
    const struct ab_os *os;
    int fd;        /* -1: none */
    uint32_t name; /* 0: journal.a, 1: journal.b */
    uint64_t generation;
    uint64_t seed;             /* of the hashes: store id and generation */
    uint64_t epoch;            /* of the records that will be appended */
    uint64_t sequence;         /* of the last record */
    uint64_t synced;           /* records up to this one are durable */
    uint64_t offset;           /* end of the last record */
    uint64_t capacity;         /* bytes of the file that are written and allocated, durably */
    uint64_t checkpoint_bytes; /* of the part that says state */
    uint64_t bytes_written;    /* since the file was opened, zeroes included */
};

const char *ab_journal_file(uint32_t name); /* "journal.a" */
uint64_t ab_journal_seed(const uint8_t *store_id, uint64_t generation);

/* Make an empty file, whatever had that name is gone: a reader that has it open keeps what it
 * reads. Nothing is synced. */
int ab_journal_create(struct ab_journal *journal, const struct ab_os *os, int dir, uint32_t name,
                      const uint8_t *store_id, uint64_t generation, uint64_t epoch) AB_MUST_CHECK;
/* Open the file of this name and generation. -ESTALE: it is of another generation (a writer went on:
 * read the superblock again). -ABODE_ECORRUPT: its header is damaged. */
int ab_journal_open(struct ab_journal *journal, const struct ab_os *os, int dir, uint32_t name,
                    const uint8_t *store_id, uint64_t generation, bool for_writing) AB_MUST_CHECK;
void ab_journal_close(struct ab_journal *journal); /* a closed one is fine */

/* Room for a record of this payload, and `spare` bytes after it, in written extents. -ENOSPC,
 * -EDQUOT, -EFBIG: nothing happened. Any other error: the file is not to be trusted any more. */
int ab_journal_reserve(struct ab_journal *journal, size_t size, uint32_t spare,
                       const void *zeroes) AB_MUST_CHECK;
bool ab_journal_no_room(int status); /* is it one of the harmless errors of reserve? */
/* Append one record. record: 64 bytes of room for the header, then `size` bytes of payload. An
 * error leaves the place undefined: only another journal helps. */
int ab_journal_append(struct ab_journal *journal, enum ab_record_kind kind, void *record,
                      size_t size) AB_MUST_CHECK;
/* All records so far become durable. An error is final. */
int ab_journal_sync(struct ab_journal *journal) AB_MUST_CHECK;

/* ---- reading ---- */
#define AB_JOURNAL_WINDOW (8u << 20) /* read at a time; holds the largest record */
struct ab_journal_reader {
    /* 0 goes on, negative stops the scan with that result */
    int (*record)(void *context, const struct ab_disk_record *record, const uint8_t *payload);
    void *context;
    uint8_t *window; /* AB_JOURNAL_WINDOW bytes, page-aligned */
    int fd;          /* set by the scan, as are the next two */
    uint64_t window_offset;
    size_t window_bytes;
};
/* fd: the journal's, or one of the same file with O_DIRECT.
 * Hands out every valid record in order, and leaves the journal ready for appending after the last
 * one. -ABODE_ECORRUPT: a record that had been durable is damaged (journal->offset tells where; all
 * before it were handed out). A torn tail is no error. Else -errno of a read. */
int ab_journal_scan(struct ab_journal *journal, int fd,
                    struct ab_journal_reader *reader) AB_MUST_CHECK;

/* ---- entries inside a payload ---- */
/* Are these whole entries, each of a legal size? own: the store's types are allowed as well. */
bool ab_entries_are_valid(const void *bytes, size_t size, bool own);
static inline const struct ab_entry *ab_entry_at(const uint8_t *bytes)
{
    return (const struct ab_entry *)(const void *)bytes;
}

#endif
