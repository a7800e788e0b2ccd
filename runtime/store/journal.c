/*
 * journal.c - an append-only file of hashed records.
 *
 *   0          4096                                  offset        capacity
 *   +----------+--------+--------+---~---+--------+--+-------------+
 *   | header   | record | record |       | record |  | zeroes      |
 *   +----------+--------+--------+---~---+--------+--+-------------+
 *                                              synced: to the next page
 *
 * APPENDING. The file is grown ahead in steps: allocated, filled with zeroes and synced, so that the
 * sync after a record has no metadata to write, and so that a full disk is met before a record and
 * not inside it. A record is one pwrite into the page cache: that alone survives kill -9.
 *
 * THE END is where no valid record follows. Generation, sequence and epoch in each record rule out
 * what an earlier life of the file left behind: a record that was torn by a crash is written anew
 * in a higher epoch, and a leftover after it is of a lower epoch than its predecessor.
 *
 * DAMAGE is not an end. Each record says which ones were durable before it was written; if any later
 * record says that the one missing here was durable, bytes were lost that the disk had promised.
 */
#include "store/journal.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>

#include "abode/abode.h"

#define SCAN_RETRIES_MAX 8 /* a writer may append while we look */

_Static_assert(sizeof(struct ab_disk_record) + AB_RECORD_PAYLOAD_MAX + AB_PAGE <= AB_JOURNAL_WINDOW,
               "a window holds the largest record, wherever it starts in a page");
_Static_assert(AB_JOURNAL_SPARE < AB_JOURNAL_GROW, "one step covers the spare room");

const char *ab_journal_file(uint32_t name)
{
    return name == 0 ? "journal.a" : "journal.b";
}

uint64_t ab_journal_seed(const uint8_t *store_id, uint64_t generation)
{
    return ab_hash64(store_id, AB_STORE_ID_BYTES, generation);
}

static uint64_t header_hash(const struct ab_disk_journal *header, uint64_t seed)
{
    return ab_hash64((const uint8_t *)header + sizeof(header->hash),
                     sizeof(*header) - sizeof(header->hash), seed);
}

/* header and payload are contiguous */
static uint64_t record_hash(const struct ab_disk_record *record, uint64_t seed)
{
    return ab_hash64((const uint8_t *)record + sizeof(record->hash),
                     sizeof(*record) - sizeof(record->hash) + record->size, seed);
}

int ab_journal_create(struct ab_journal *journal, const struct ab_os *os, int dir, uint32_t name,
                      const uint8_t *store_id, uint64_t generation, uint64_t epoch)
{
    const int removed = os->unlinkat(os, dir, ab_journal_file(name), 0);
    if (removed < 0 && removed != -ENOENT) {
        return removed;
    }
    const int fd = os->openat(os, dir, ab_journal_file(name), O_RDWR | O_CREAT | O_EXCL, 0600);
    if (fd < 0) {
        return fd;
    }
    struct ab_disk_journal header = {
        .magic = AB_JOURNAL_MAGIC,
        .version = AB_DISK_VERSION,
        .name = name,
        .generation = generation,
        .epoch = epoch,
    };
    memcpy(header.store_id, store_id, sizeof(header.store_id));
    const uint64_t seed = ab_journal_seed(store_id, generation);
    header.hash = header_hash(&header, seed);
    const int result = ab_os_write_all(os, fd, &header, sizeof(header), 0);
    if (result < 0) {
        (void)os->close(os, fd);
        return result;
    }
    *journal = (struct ab_journal){
        .os = os,
        .fd = fd,
        .name = name,
        .generation = generation,
        .seed = seed,
        .epoch = epoch,
        .offset = AB_JOURNAL_START,
        .capacity = AB_JOURNAL_START,
        .bytes_written = sizeof(header),
    };
    return 0;
}

int ab_journal_open(struct ab_journal *journal, const struct ab_os *os, int dir, uint32_t name,
                    const uint8_t *store_id, uint64_t generation, bool for_writing)
{
    const int fd = os->openat(os, dir, ab_journal_file(name), for_writing ? O_RDWR : O_RDONLY, 0);
    if (fd < 0) {
        return fd;
    }
    struct ab_disk_journal header;
    const int64_t got = ab_os_read_all(os, fd, &header, sizeof(header), 0);
    const uint64_t seed = ab_journal_seed(store_id, generation);
    int result = 0;
    if (got < 0) {
        result = (int)got;
    } else if (got != sizeof(header) || header.magic != AB_JOURNAL_MAGIC) {
        result = -ABODE_ECORRUPT;
    } else if (header.version != AB_DISK_VERSION) {
        result = -ABODE_EFORMAT;
    } else if (header.generation != generation) {
        result = -ESTALE;
    } else if (header.hash != header_hash(&header, seed) || header.name != name) {
        result = -ABODE_ECORRUPT;
    }
    if (result < 0) {
        (void)os->close(os, fd);
        return result;
    }
    *journal = (struct ab_journal){
        .os = os,
        .fd = fd,
        .name = name,
        .generation = generation,
        .seed = seed,
        .epoch = header.epoch,
        .offset = AB_JOURNAL_START,
        .capacity = AB_JOURNAL_START,
    };
    return 0;
}

void ab_journal_close(struct ab_journal *journal)
{
    if (journal->fd >= 0) {
        (void)journal->os->close(journal->os, journal->fd); /* what matters has been synced */
    }
    journal->fd = -1;
}

/* ---- appending ---- */

bool ab_journal_no_room(int status)
{
    return status == -ENOSPC || status == -EDQUOT || status == -EFBIG;
}

static int journal_grow(struct ab_journal *journal, uint64_t wanted, const void *zeroes)
{
    const struct ab_os *os = journal->os;
    /* a checkpoint is written without room made ahead: its end may lie past the capacity */
    const uint64_t start = AB_MAX(journal->capacity, ab_align_up(journal->offset, AB_PAGE));
    const uint64_t end = start + ab_align_up(wanted - start, AB_JOURNAL_GROW);
    int result = os->fallocate(os, journal->fd, 0, start, end - start);
    if (result < 0 && result != -EOPNOTSUPP) { /* without it the zeroes alone allocate */
        return result;
    }
    for (uint64_t at = start; at < end; at += AB_JOURNAL_GROW) {
        result = ab_os_write_all(os, journal->fd, zeroes, AB_JOURNAL_GROW, at);
        if (result < 0) {
            return result;
        }
    }
    journal->bytes_written += end - start;
    result = ab_journal_sync(journal);
    if (result < 0) {
        return result == -ENOSPC || result == -EDQUOT ? -EIO : result;
    }
    journal->capacity = end;
    return 0;
}

int ab_journal_reserve(struct ab_journal *journal, size_t size, uint32_t spare, const void *zeroes)
{
    const uint64_t wanted = journal->offset + sizeof(struct ab_disk_record) + size + spare;
    if (wanted <= journal->capacity) {
        return 0;
    }
    /* The sync in there may round the offset up to a page: ask for that as well. */
    return journal_grow(journal, wanted + AB_PAGE, zeroes);
}

int ab_journal_append(struct ab_journal *journal, enum ab_record_kind kind, void *record,
                      size_t size)
{
    struct ab_disk_record *header = record;
    *header = (struct ab_disk_record){
        .magic = AB_RECORD_MAGIC,
        .kind = (uint32_t)kind,
        .generation = journal->generation,
        .sequence = journal->sequence + 1,
        .epoch = journal->epoch,
        .synced = journal->synced,
        .size = (uint32_t)size,
    };
    AB_ASSERT(size <= AB_RECORD_PAYLOAD_MAX && size % sizeof(uint64_t) == 0);
    header->hash = record_hash(header, journal->seed);
    const size_t bytes = sizeof(*header) + size;
    const int result = ab_os_write_all(journal->os, journal->fd, record, bytes, journal->offset);
    if (result < 0) {
        return result;
    }
    journal->sequence++;
    journal->offset += bytes;
    journal->bytes_written += bytes;
    return 0;
}

int ab_journal_sync(struct ab_journal *journal)
{
    const int result = journal->os->fdatasync(journal->os, journal->fd);
    if (result < 0) {
        return result;
    }
    journal->synced = journal->sequence;
    journal->offset = ab_align_up(journal->offset, AB_PAGE);
    return 0;
}

/* ---- reading ---- */

/* Bytes at offset, as many as there are up to `count` (at most a window less a page). */
static int64_t window_at(struct ab_journal *journal, struct ab_journal_reader *reader,
                         uint64_t offset, size_t count, const uint8_t **ret)
{
    const bool inside = offset >= reader->window_offset &&
                        offset + count <= reader->window_offset + reader->window_bytes;
    if (!inside) {
        reader->window_offset = ab_align_down(offset, AB_PAGE);
        reader->window_bytes = 0;
        const int64_t got = ab_os_read_pages(journal->os, reader->fd, reader->window,
                                             AB_JOURNAL_WINDOW, reader->window_offset);
        if (got < 0) {
            return got;
        }
        reader->window_bytes = (size_t)got;
    }
    const uint64_t end = reader->window_offset + reader->window_bytes;
    *ret = reader->window + (offset - reader->window_offset);
    return offset >= end ? 0 : (int64_t)AB_MIN(end - offset, count);
}

static bool record_header_fits(const struct ab_journal *journal,
                               const struct ab_disk_record *record)
{
    return record->magic == AB_RECORD_MAGIC && record->generation == journal->generation &&
           record->size <= AB_RECORD_PAYLOAD_MAX && record->size % sizeof(uint64_t) == 0;
}

/* 1: a record of this journal, intact, is at offset; 0: none */
static int record_at(struct ab_journal *journal, struct ab_journal_reader *reader, uint64_t offset,
                     const struct ab_disk_record **ret)
{
    const uint8_t *bytes = NULL;
    int64_t got = window_at(journal, reader, offset, sizeof(struct ab_disk_record), &bytes);
    if (got < (int64_t)sizeof(struct ab_disk_record)) {
        return (int)AB_MIN(got, 0);
    }
    struct ab_disk_record header; /* a copy: the window may move below */
    memcpy(&header, bytes, sizeof(header));
    if (!record_header_fits(journal, &header)) {
        return 0;
    }
    const size_t count = sizeof(header) + header.size;
    got = window_at(journal, reader, offset, count, &bytes);
    if (got < (int64_t)count) {
        return (int)AB_MIN(got, 0);
    }
    const struct ab_disk_record *record = (const void *)bytes;
    if (record->size != header.size || record_hash(record, journal->seed) != record->hash) {
        return 0;
    }
    *ret = record;
    return 1;
}

/* 1: the record that must come next is at offset; 0: it is not */
static int successor_at(struct ab_journal *journal, struct ab_journal_reader *reader,
                        uint64_t offset, const struct ab_disk_record **ret)
{
    const struct ab_disk_record *record = NULL;
    const int found = record_at(journal, reader, offset, &record);
    if (found <= 0) {
        return found;
    }
    if (record->sequence != journal->sequence + 1 || record->epoch < journal->epoch) {
        return 0;
    }
    *ret = record;
    return 1;
}

/* Hand out records until there is no next one. */
static int scan_run(struct ab_journal *journal, struct ab_journal_reader *reader)
{
    for (;;) { /* ends with the file: each round moves the offset on */
        const struct ab_disk_record *record = NULL;
        uint64_t at = journal->offset;
        int found = successor_at(journal, reader, at, &record);
        if (found == 0 && at % AB_PAGE != 0) {
            at = ab_align_up(at, AB_PAGE);
            found = successor_at(journal, reader, at, &record);
        }
        if (found <= 0) {
            return found;
        }
        const int result = reader->record(reader->context, record, (const uint8_t *)(record + 1));
        if (result < 0) {
            return result;
        }
        journal->sequence = record->sequence;
        journal->epoch = record->epoch;
        journal->synced = AB_MAX(journal->synced, record->synced);
        journal->offset = at + sizeof(*record) + record->size;
        if (record->kind == AB_RECORD_CHECKPOINT_END) {
            journal->checkpoint_bytes = journal->offset;
        }
    }
}

/* 1: some record after the end says that the missing one had been durable; 0: the tail was torn */
static int scan_finds_damage(struct ab_journal *journal, struct ab_journal_reader *reader)
{
    const uint64_t missing = journal->sequence + 1;
    if (journal->synced >= missing) {
        return 1;
    }
    uint64_t offset = journal->offset;
    for (;;) { /* ends with the file: each round moves the offset on */
        const uint8_t *bytes = NULL;
        const int64_t got = window_at(journal, reader, offset, AB_JOURNAL_WINDOW / 2, &bytes);
        if (got < (int64_t)sizeof(struct ab_disk_record)) {
            return (int)AB_MIN(got, 0);
        }
        const uint64_t end = offset + (uint64_t)got - sizeof(struct ab_disk_record);
        for (; offset <= end; offset += sizeof(uint64_t), bytes += sizeof(uint64_t)) {
            const struct ab_disk_record *here = (const void *)bytes;
            if (!record_header_fits(journal, here) || here->synced < missing) {
                continue;
            }
            const struct ab_disk_record *record = NULL;
            const int found = record_at(journal, reader, offset, &record);
            if (found != 0) {
                return found;
            }
            break; /* the window may have moved: look again from the next place on */
        }
        offset += offset <= end ? sizeof(uint64_t) : 0;
    }
}

int ab_journal_scan(struct ab_journal *journal, int fd, struct ab_journal_reader *reader)
{
    reader->fd = fd;
    reader->window_offset = 0;
    reader->window_bytes = 0;
    for (uint32_t i = 0; i < SCAN_RETRIES_MAX; i++) {
        int result = scan_run(journal, reader);
        if (result == 0) {
            result = scan_finds_damage(journal, reader);
        }
        if (result < 0) {
            return result;
        }
        if (result == 0) {
            journal->offset = ab_align_up(journal->offset, AB_PAGE);
            return 0;
        }
        reader->window_bytes = 0; /* a writer may have finished the record by now: read it anew */
    }
    return -ABODE_ECORRUPT;
}

bool ab_entries_are_valid(const void *bytes, size_t size, bool own)
{
    const uint8_t *at = bytes;
    size_t left = size;
    while (left > 0) {
        if (left < sizeof(struct ab_entry)) {
            return false;
        }
        const struct ab_entry *entry = ab_entry_at(at);
        const bool type_is_legal =
            entry->type != 0 && (entry->type < 0x8000u || (own && entry->type == AB_ENTRY_SEGMENT));
        if (!type_is_legal || entry->size < sizeof(*entry) || entry->size > left ||
            entry->size > AB_ENTRY_SIZE_MAX || entry->size % sizeof(uint64_t) != 0) {
            return false;
        }
        at += entry->size;
        left -= entry->size;
    }
    return true;
}
