/*
 * fuzz_superblock.c - the four copies of a superblock: chosen, mended, written, and a store opened
 * by them. An input is one byte of options and the first 124 bytes of up to four pages, whose rest is
 * zero. Law: what was chosen is chosen again from what has been mended, by all four copies.
 */
#include "fuzz/fuzz_store.h"
#include "store/superblock.h"

#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "base/num.h"

#define HEAD offsetof(struct ab_disk_superblock, reserved)
_Static_assert(HEAD == 124, "as the opening comment says");

static size_t copies_make(const uint8_t *bytes, size_t size, struct ab_disk_superblock *ret)
{
    memset(ret, 0, AB_SUPERBLOCK_FILE_BYTES);
    for (uint32_t i = 0; i < AB_SUPERBLOCK_COPIES && 1 + i * HEAD < size; i++) {
        memcpy(&ret[i], bytes + 1 + i * HEAD, AB_MIN(size - 1 - i * HEAD, HEAD));
    }
    /* cut short in some */
    return (bytes[0] & 2) != 0 ? (size_t)(bytes[0] >> 2) * 256 : AB_SUPERBLOCK_FILE_BYTES;
}

static void file_check(const struct ab_disk_superblock *copies, size_t count)
{
    const struct ab_os *os = ab_os_default();
    struct ab_disk_superblock chosen, read;
    uint32_t agreeing = 0, again = 0;
    const int status = ab_superblock_choose(copies, count, &chosen, &agreeing);
    const int fd = open(fuzz_memory_file(copies, count), O_RDWR | O_CLOEXEC);
    fuzz_expect(fd >= 0);
    fuzz_expect(ab_superblock_read(os, fd, &read, &again) == status);
    if (status == 0) {
        fuzz_expect(__builtin_popcount(agreeing) >= 2 && agreeing == again);
        fuzz_expect(chosen.directory_count >= 1 && chosen.directory_count <= AB_STORE_DEVICES_MAX);
        fuzz_expect(chosen.directory_index < chosen.directory_count);
        fuzz_expect(ab_superblock_heal(os, fd, &chosen, agreeing) == 0);
        fuzz_expect(ab_superblock_read(os, fd, &read, &again) == 0);
        fuzz_expect(again == AB_SUPERBLOCK_ALL && memcmp(&read, &chosen, AB_PAGE) == 0);
        chosen.sequence++;
        fuzz_expect(ab_superblock_write(os, fd, &chosen) == 0);
        fuzz_expect(ab_superblock_read(os, fd, &read, &again) == 0);
        fuzz_expect(again == AB_SUPERBLOCK_ALL && memcmp(&read, &chosen, AB_PAGE) == 0);
    }
    (void)close(fd);
}

static void superblock_run(const uint8_t *bytes, size_t size)
{
    static struct ab_disk_superblock copies[AB_SUPERBLOCK_COPIES];
    if (size == 0) {
        return;
    }
    const size_t count = copies_make(bytes, size, copies);
    file_check(copies, count);
    struct fuzz_store *store = fuzz_store_get();
    fuzz_store_reset(store);
    fuzz_store_put(store, "superblock", copies, count);
    const bool read_only = (bytes[0] & 1) != 0;
    if (fuzz_store_open(store, read_only) == 0) {
        fuzz_store_close(store);
        fuzz_expect(read_only || fuzz_store_open(store, false) == 0);
        if (!read_only) {
            fuzz_store_close(store);
        }
    }
}

/* Right hashes of all copies that are there, and copies 1 and 3 as 0 and 2 are, unless a bit says
 * otherwise: else two never agree. */
static size_t superblock_seal(uint8_t *bytes, size_t size)
{
    struct ab_disk_superblock copies[AB_SUPERBLOCK_COPIES];
    if (size < 1 + HEAD) {
        return size;
    }
    (void)copies_make(bytes, size, copies);
    for (uint32_t i = 0; i < AB_SUPERBLOCK_COPIES && 1 + (i + 1) * HEAD <= size; i++) {
        if (i % 2 == 1 && (bytes[0] & 0x80) == 0) {
            copies[i] = copies[i - 1];
        }
        copies[i].magic = AB_SUPERBLOCK_MAGIC;
        copies[i].hash = ab_hash64((const uint8_t *)&copies[i] + sizeof(copies[i].hash),
                                   sizeof(copies[i]) - sizeof(copies[i].hash), 0);
        memcpy(bytes + 1 + i * HEAD, &copies[i], HEAD);
    }
    return size;
}

static size_t superblock_mutate(uint8_t *bytes, size_t size, size_t capacity,
                                struct fuzz_random *random)
{
    const size_t whole = 1 + AB_SUPERBLOCK_COPIES * HEAD;
    if (size < whole && capacity >= whole) {
        memset(bytes + size, 0, whole - size);
        return whole;
    }
    const uint32_t value = fuzz_interesting(random);
    const size_t at = 1 + HEAD * (size_t)fuzz_below(random, AB_SUPERBLOCK_COPIES) + 16 +
                      4 * (size_t)fuzz_below(random, (HEAD - 16) / 4);
    if (at + 4 <= size) {
        memcpy(bytes + at, &value, 4);
    }
    bytes[0] ^= fuzz_below(random, 8) == 0 ? (uint8_t)fuzz_next(random) : 0;
    return size;
}

static size_t superblock_seed(uint32_t index, uint8_t *bytes, size_t capacity)
{
    const struct fuzz_store *store = fuzz_store_get();
    const size_t whole = 1 + AB_SUPERBLOCK_COPIES * HEAD;
    if (index > 1 || capacity < whole) {
        return 0;
    }
    bytes[0] = (uint8_t)index;
    for (uint32_t i = 0; i < AB_SUPERBLOCK_COPIES; i++) {
        memcpy(bytes + 1 + i * HEAD, store->superblock.bytes + (size_t)i * AB_PAGE, HEAD);
    }
    return whole;
}

extern const struct fuzz_target fuzz_superblock;
const struct fuzz_target fuzz_superblock = {.name = "superblock",
                                            .is_slow = true,
                                            .size_max = 1 + AB_SUPERBLOCK_COPIES * HEAD,
                                            .run = superblock_run,
                                            .mutate = superblock_mutate,
                                            .seal = superblock_seal,
                                            .seed = superblock_seed};
