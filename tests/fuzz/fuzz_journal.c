/*
 * fuzz_journal.c - the bytes of a journal file: header page, records, torn tails, leftovers. An input
 * is the first 56 bytes of the header page, then the file from its second page on; the file lies in
 * memory. Laws: records come in order, with whole payloads; and what is appended where the scan ended
 * is found by the next scan, after everything that the first one found.
 */
#include "fuzz/fuzz_store.h"
#include "store/journal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/num.h"

#define HEAD offsetof(struct ab_disk_journal, reserved)
_Static_assert(HEAD == 56, "as the opening comment says");
#define FILE_BYTES (AB_PAGE + FUZZ_SIZE_MAX + 2 * AB_PAGE)

static uint8_t file_bytes[FILE_BYTES];
static size_t file_size;

static int memory_openat(const struct ab_os *os, int dir, const char *path, int flags,
                         uint32_t mode)
{
    (void)os, (void)dir, (void)path, (void)flags, (void)mode;
    return 1000;
}

static int memory_close(const struct ab_os *os, int fd)
{
    (void)os, (void)fd;
    return 0;
}

static int64_t memory_pread(const struct ab_os *os, int fd, void *bytes, size_t count,
                            uint64_t offset)
{
    (void)os, (void)fd;
    if (offset >= file_size) {
        return 0;
    }
    count = AB_MIN(count, file_size - offset);
    memcpy(bytes, file_bytes + offset, count);
    return (int64_t)count;
}

static int64_t memory_pwrite(const struct ab_os *os, int fd, const void *bytes, size_t count,
                             uint64_t offset)
{
    (void)os, (void)fd;
    if (offset + count > FILE_BYTES) {
        return -ENOSPC;
    }
    memcpy(file_bytes + offset, bytes, count);
    file_size = AB_MAX(file_size, offset + count);
    return (int64_t)count;
}

struct scan {
    uint64_t count, sequence, epoch, sum;
};

static int record_take(void *context, const struct ab_disk_record *record, const uint8_t *payload)
{
    struct scan *scan = context;
    fuzz_expect(record->sequence == scan->sequence + 1 && record->epoch >= scan->epoch);
    scan->sequence = record->sequence;
    scan->epoch = record->epoch;
    scan->count++;
    for (uint32_t i = 0; i < record->size; i++) {
        scan->sum += payload[i];
    }
    if (ab_entries_are_valid(payload, record->size, true)) {
        for (uint32_t at = 0; at < record->size;) {
            at += ab_entry_at(payload + at)->size;
            fuzz_expect(at <= record->size);
        }
    }
    return 0;
}

static int file_scan(const struct ab_os *os, uint64_t synced, struct ab_journal *journal,
                     struct scan *scan)
{
    static uint8_t *window;
    struct ab_disk_journal header;
    if (window == NULL) {
        window = aligned_alloc(AB_PAGE, AB_JOURNAL_WINDOW);
        fuzz_expect(window != NULL);
    }
    memcpy(&header, file_bytes, sizeof(header));
    const int status =
        ab_journal_open(journal, os, -1, header.name, header.store_id, header.generation, true);
    if (status != 0) {
        return status;
    }
    journal->synced = synced;
    *scan = (struct scan){.epoch = journal->epoch};
    struct ab_journal_reader reader = {.record = record_take, .context = scan, .window = window};
    return ab_journal_scan(journal, journal->fd, &reader);
}

static void journal_run(const uint8_t *bytes, size_t size)
{
    struct ab_os os = *ab_os_default();
    os.openat = memory_openat;
    os.close = memory_close;
    os.pread = memory_pread;
    os.pwrite = memory_pwrite;
    if (size < HEAD) {
        return;
    }
    memset(file_bytes, 0, sizeof(file_bytes));
    memcpy(file_bytes, bytes, HEAD);
    memcpy(file_bytes + AB_PAGE, bytes + HEAD, size - HEAD);
    file_size = AB_PAGE + size - HEAD;
    struct ab_journal journal;
    struct scan first, second;
    struct {
        struct ab_disk_record record;
        uint64_t payload;
    } next = {.payload = 8ull << 32 | 1};
    if (file_scan(&os, 0, &journal, &first) != 0 || first.epoch == UINT64_MAX) {
        return;
    }
    journal.epoch++;
    fuzz_expect(ab_journal_append(&journal, AB_RECORD_COMMIT, &next, sizeof(next.payload)) == 0);
    fuzz_expect(file_scan(&os, first.sequence + 1, &journal, &second) == 0);
    fuzz_expect(second.count >= first.count + 1);
}

/* Right hashes of the header and of each record whose place can be told. */
static size_t journal_seal(uint8_t *bytes, size_t size)
{
    struct ab_disk_journal header = {.hash = 0};
    if (size < HEAD) {
        return size;
    }
    memcpy(&header, bytes, HEAD);
    header.magic = AB_JOURNAL_MAGIC;
    header.version = AB_DISK_VERSION;
    header.name &= 1;
    const uint64_t seed = ab_journal_seed(header.store_id, header.generation);
    header.hash = ab_hash64((const uint8_t *)&header + sizeof(header.hash),
                            sizeof(header) - sizeof(header.hash), seed);
    memcpy(bytes, &header, HEAD);
    for (size_t at = HEAD; at + sizeof(struct ab_disk_record) <= size;) {
        struct ab_disk_record record;
        memcpy(&record, bytes + at, sizeof(record));
        if (record.magic != AB_RECORD_MAGIC) {
            at += 8;
            continue;
        }
        const size_t room = size - at - sizeof(record);
        record.generation = header.generation;
        record.size = (uint32_t)AB_MIN(ab_align_down(record.size, 8), ab_align_down(room, 8));
        memcpy(bytes + at, &record, sizeof(record));
        const size_t skipped = sizeof(record.hash);
        record.hash = ab_hash64(bytes + at + skipped, sizeof(record) - skipped + record.size, seed);
        memcpy(bytes + at, &record.hash, sizeof(record.hash));
        at += sizeof(record) + record.size;
    }
    return size;
}

/* Another record of one entry, or one field of one that is there. */
static size_t journal_mutate(uint8_t *bytes, size_t size, size_t capacity,
                             struct fuzz_random *random)
{
    size_t starts[64];
    uint32_t count = 0;
    for (size_t at = HEAD; at + sizeof(struct ab_disk_record) <= size && count < 64; at += 8) {
        uint32_t magic;
        memcpy(&magic, bytes + at + offsetof(struct ab_disk_record, magic), sizeof(magic));
        if (magic == AB_RECORD_MAGIC) {
            starts[count++] = at;
        }
    }
    if (size < HEAD || count == 0 || fuzz_below(random, 4) == 0) {
        struct ab_disk_record record = {.magic = AB_RECORD_MAGIC,
                                        .kind = 1 + fuzz_below(random, 4),
                                        .sequence = count + 1u,
                                        .epoch = fuzz_below(random, 3),
                                        .synced = fuzz_below(random, count + 2u),
                                        .size = 8 * fuzz_below(random, 16)};
        size = AB_MAX(size, HEAD);
        if (fuzz_below(random, 4) == 0) { /* as after a sync */
            const size_t page = HEAD + ab_align_up(size - HEAD, AB_PAGE);
            if (page <= capacity) {
                memset(bytes + size, 0, page - size);
                size = page;
            }
        }
        const size_t end = size + sizeof(record) + record.size;
        if (end <= capacity) {
            memset(bytes + size, 1, end - size);
            memcpy(bytes + size, &record, sizeof(record));
            return end;
        }
        return size;
    }
    const size_t field =
        8 + 4 * (size_t)fuzz_below(random, (sizeof(struct ab_disk_record) - 8) / 4);
    uint32_t value = fuzz_below(random, 2) == 0 ? fuzz_interesting(random) : fuzz_below(random, 9);
    memcpy(bytes + starts[fuzz_below(random, count)] + field, &value, sizeof(value));
    return size;
}

static size_t journal_seed(uint32_t index, uint8_t *bytes, size_t capacity)
{
    const struct fuzz_file *file = &fuzz_store_get()->journal;
    const size_t size = AB_MIN(HEAD + file->size - AB_PAGE, capacity >> index);
    if (index > 2) {
        return 0;
    }
    memcpy(bytes, file->bytes, HEAD);
    memcpy(bytes + HEAD, file->bytes + AB_PAGE, size - HEAD);
    return size;
}

extern const struct fuzz_target fuzz_journal;
const struct fuzz_target fuzz_journal = {.name = "journal",
                                         .size_max = FUZZ_SIZE_MAX,
                                         .run = journal_run,
                                         .mutate = journal_mutate,
                                         .seal = journal_seal,
                                         .seed = journal_seed};
