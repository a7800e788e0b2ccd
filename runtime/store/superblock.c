/*
 * superblock.c - four copies, written as two pairs.
 *
 *   copy      0    1    2    3
 *   before    n    n    n    n
 *   write     n+1  n+1  n    n     sync: either pair may be torn, never both
 *   write     n+1  n+1  n+1  n+1   sync
 *
 * A reader takes the highest sequence that at least two copies agree on to the last byte. A crash
 * inside the first pair leaves n (copies 2, 3); one inside the second leaves n+1 (copies 0, 1). The
 * next writer must mend the torn pair before it writes, else the one whole pair would be first.
 */
#include "store/superblock.h"

#include <errno.h>
#include <string.h>

#include "abode/abode.h"

#define PAIR 2u
#define READS_MAX 8u /* a writer may be at it */

static uint64_t superblock_hash(const struct ab_disk_superblock *superblock)
{
    return ab_hash64((const uint8_t *)superblock + sizeof(superblock->hash),
                     sizeof(*superblock) - sizeof(superblock->hash), 0);
}

static bool superblock_fields_are_sane(const struct ab_disk_superblock *superblock)
{
    return superblock->page_bytes == AB_PAGE && superblock->directory_count >= 1 &&
           superblock->directory_count <= AB_STORE_DEVICES_MAX &&
           superblock->directory_index < superblock->directory_count &&
           superblock->segment_bytes >= AB_SEGMENT_STEP &&
           superblock->segment_bytes <= AB_SEGMENT_BYTES_MAX &&
           superblock->segment_bytes % AB_SEGMENT_STEP == 0 && superblock->journal_name <= 1;
}

static uint32_t copies_agreeing(const struct ab_disk_superblock *copies, uint32_t valid,
                                uint32_t with)
{
    uint32_t agreeing = 0;
    for (uint32_t i = 0; i < AB_SUPERBLOCK_COPIES; i++) {
        if ((valid & (1u << i)) != 0 && memcmp(&copies[i], &copies[with], AB_PAGE) == 0) {
            agreeing |= 1u << i;
        }
    }
    return agreeing;
}

int ab_superblock_choose(const void *bytes, size_t count, struct ab_disk_superblock *ret,
                         uint32_t *ret_agreeing)
{
    struct ab_disk_superblock copies[AB_SUPERBLOCK_COPIES] = {0};
    memcpy(copies, bytes, AB_MIN(count, sizeof(copies)));
    uint32_t valid = 0, magic = 0, best = AB_SUPERBLOCK_COPIES, best_agreeing = 0;
    for (uint32_t i = 0; i < AB_SUPERBLOCK_COPIES; i++) {
        magic |= copies[i].magic == AB_SUPERBLOCK_MAGIC ? 1u << i : 0;
        if (copies[i].magic == AB_SUPERBLOCK_MAGIC &&
            copies[i].hash == superblock_hash(&copies[i])) {
            valid |= 1u << i;
        }
    }
    for (uint32_t i = 0; i < AB_SUPERBLOCK_COPIES; i++) {
        const uint32_t agreeing = (valid & (1u << i)) != 0 ? copies_agreeing(copies, valid, i) : 0;
        if (__builtin_popcount(agreeing) >= 2 &&
            (best == AB_SUPERBLOCK_COPIES || copies[i].sequence > copies[best].sequence)) {
            best = i;
            best_agreeing = agreeing;
        }
    }
    if (best == AB_SUPERBLOCK_COPIES) {
        return magic == 0 ? -ABODE_ESTORE : -ABODE_ECORRUPT;
    }
    if (copies[best].version != AB_DISK_VERSION || copies[best].features.refuse != 0) {
        return -ABODE_EFORMAT;
    }
    if (!superblock_fields_are_sane(&copies[best])) {
        return -ABODE_ECORRUPT;
    }
    *ret = copies[best];
    *ret_agreeing = best_agreeing;
    return 0;
}

int ab_superblock_read(const struct ab_os *os, int fd, struct ab_disk_superblock *ret,
                       uint32_t *ret_agreeing)
{
    uint8_t bytes[AB_SUPERBLOCK_FILE_BYTES];
    int result = -ABODE_ECORRUPT;
    for (uint32_t i = 0; i < READS_MAX && result == -ABODE_ECORRUPT; i++) {
        const int64_t got = ab_os_read_all(os, fd, bytes, sizeof(bytes), 0);
        result = got < 0 ? (int)got : ab_superblock_choose(bytes, (size_t)got, ret, ret_agreeing);
    }
    return result;
}

int ab_superblock_heal(const struct ab_os *os, int fd, const struct ab_disk_superblock *chosen,
                       uint32_t agreeing)
{
    if (agreeing == AB_SUPERBLOCK_ALL) {
        return 0;
    }
    for (uint32_t i = 0; i < AB_SUPERBLOCK_COPIES; i++) {
        if ((agreeing & (1u << i)) != 0) {
            continue;
        }
        const int result = ab_os_write_all(os, fd, chosen, AB_PAGE, (uint64_t)i * AB_PAGE);
        if (result < 0) {
            return result;
        }
    }
    return os->fsync(os, fd);
}

int ab_superblock_write(const struct ab_os *os, int fd, struct ab_disk_superblock *superblock)
{
    superblock->hash = superblock_hash(superblock);
    for (uint32_t first = 0; first < AB_SUPERBLOCK_COPIES; first += PAIR) {
        for (uint32_t i = first; i < first + PAIR; i++) {
            const int result = ab_os_write_all(os, fd, superblock, AB_PAGE, (uint64_t)i * AB_PAGE);
            if (result < 0) {
                return result;
            }
        }
        const int result = os->fsync(os, fd);
        if (result < 0) {
            return result;
        }
    }
    return 0;
}

bool ab_superblock_read_only(const struct ab_disk_superblock *superblock)
{
    return superblock->features.read_only != 0;
}
