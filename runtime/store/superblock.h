/*
 * superblock.h - the four copies of a directory's superblock. Leaf over the os table; one thread.
 */
#ifndef AB_STORE_SUPERBLOCK_H
#define AB_STORE_SUPERBLOCK_H

#include "store/format.h"

#define AB_SUPERBLOCK_FILE_BYTES (AB_SUPERBLOCK_COPIES * AB_PAGE)
#define AB_SUPERBLOCK_ALL ((1u << AB_SUPERBLOCK_COPIES) - 1)

/* Choose from the bytes of the file (count may be short). *ret_agreeing: a bit for each copy that
 * is the chosen one. -ABODE_ESTORE: not a superblock at all; -ABODE_ECORRUPT: no two copies agree,
 * or a field is out of range; -ABODE_EFORMAT: of a version or with features that cannot be read. */
int ab_superblock_choose(const void *bytes, size_t count, struct ab_disk_superblock *ret,
                         uint32_t *ret_agreeing) AB_MUST_CHECK;
/* The same from a file, which a writer may be changing. Also -errno of the read. */
int ab_superblock_read(const struct ab_os *os, int fd, struct ab_disk_superblock *ret,
                       uint32_t *ret_agreeing) AB_MUST_CHECK;
/* Make all four copies agree again; needed before a write, so that one pair always is whole. */
int ab_superblock_heal(const struct ab_os *os, int fd, const struct ab_disk_superblock *chosen,
                       uint32_t agreeing) AB_MUST_CHECK;
/* Replace the four agreeing copies, durably, pair by pair; fills in the hash. After an error the
 * file holds the old or the new one: the caller must be right with both, and not write again. */
int ab_superblock_write(const struct ab_os *os, int fd,
                        struct ab_disk_superblock *superblock) AB_MUST_CHECK;
/* Features that this library may not write to. */
bool ab_superblock_read_only(const struct ab_disk_superblock *superblock);

#endif
