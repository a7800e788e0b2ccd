/*
 * sim_image.h - files in memory, each in two versions: as programs see it, and as the platter has it.
 *
 *   current   what a read gives: the page cache
 *   limbo     changes since the last sync, in order: pages written, sizes, names
 *   durable   what a sync has promised
 *
 *      pwrite --> current      sync: durable = current, the file's limbo is empty
 *           \---> limbo        power cut: durable + whatever part of the limbo luck keeps
 *
 * A sync of a file covers its bytes and its size, not its name; a sync of a directory covers the
 * names in it. Nothing orders one file's limbo against another's, nor, within a file, a later write
 * against an earlier one. A write is kept whole, dropped, or torn: by pages of 4 KiB, or by sectors
 * of 512 bytes. A rename is one change of two names.
 *
 * Pages are shared and never change once they are made: a clone costs nothing but its tables.
 * No locks, no descriptors: sim_disk.h has those.
 */
#ifndef SIM_IMAGE_H
#define SIM_IMAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SIM_PAGE 4096u
#define SIM_SECTOR 512u
#define SIM_SECTORS (SIM_PAGE / SIM_SECTOR)
#define SIM_FILES_MAX 160u
#define SIM_NAMES_MAX 192u
#define SIM_NAME_BYTES 24u
#define SIM_ROOT 0u /* the file that is the root directory */
#define SIM_NONE UINT32_MAX

struct sim_page { /* NULL in a table: zeroes */
    uint32_t references;
    unsigned char bytes[SIM_PAGE];
};
enum sim_change_kind { SIM_CHANGE_PAGE = 1, SIM_CHANGE_CUT };
struct sim_change {        /* of a file, in limbo */
    struct sim_page *page; /* as it was after the write */
    uint32_t index;        /* CUT: pages from this one on went */
    uint32_t write;        /* pages of one write have the same */
    uint8_t kind;          /* enum sim_change_kind */
    uint8_t sectors;       /* a bit each: written */
    bool is_lost;          /* no sync will ever bring it to the platter */
};
struct sim_file {
    bool is_used, is_directory;
    bool is_cached; /* written through the page cache: that keeps what a failed sync has lost */
    uint32_t opens; /* descriptors */
    uint64_t size, size_durable;
    uint32_t page_count;                           /* entries of the tables */
    struct sim_page **current, **durable, **older; /* older: before the durable one */
    struct sim_change *changes;
    uint32_t change_count, change_capacity;
    uint64_t *sizes; /* that it has had since the last sync */
    uint32_t sizes_count, sizes_capacity;
};
struct sim_name {
    uint32_t directory, file; /* file SIM_NONE: the entry is free */
    char text[SIM_NAME_BYTES];
};
struct sim_name_change {      /* in limbo */
    struct sim_name from, to; /* file SIM_NONE: none */
};
struct sim_names {
    struct sim_name list[SIM_NAMES_MAX];
    uint32_t count;
};
struct sim_image {
    struct sim_file files[SIM_FILES_MAX];
    struct sim_names current, durable;
    struct sim_name_change limbo[SIM_NAMES_MAX];
    uint32_t limbo_count;
    uint32_t write_last;
    bool keeps_older;
    uint64_t kept, dropped, torn; /* writes, by the cuts so far */
};

void sim_image_init(struct sim_image *image); /* an empty root directory, durable */
void sim_image_free(struct sim_image *image);
/* What is durable in source, as all there is of a fresh image. */
void sim_image_clone(struct sim_image *image, const struct sim_image *source);

uint32_t sim_name_find(const struct sim_names *names, uint32_t directory, const char *text);
/* A path from the root or from `directory`, of names, "." and ".."; its last name may be missing:
 * then SIM_NONE, and ret_directory and ret_name say where it would be. Paths that do not exist
 * further up: SIM_NONE, ret_directory SIM_NONE. */
uint32_t sim_path_find(const struct sim_image *image, uint32_t directory, const char *path,
                       uint32_t *ret_directory, char ret_name[SIM_NAME_BYTES]);

uint32_t sim_file_make(struct sim_image *image, uint32_t directory, const char *name,
                       bool is_directory);
void sim_file_unlink(struct sim_image *image, uint32_t directory, const char *name);
void sim_file_rename(struct sim_image *image, uint32_t directory, const char *from, const char *to);

void sim_file_read(const struct sim_file *file, void *bytes, size_t count, uint64_t offset);
/* Around the page cache: without what a failed sync has lost. */
void sim_file_read_disk(const struct sim_file *file, void *bytes, size_t count, uint64_t offset);
/* is_lost: current has it, the platter never will */
void sim_file_write(struct sim_image *image, struct sim_file *file, const void *bytes, size_t count,
                    uint64_t offset, bool is_lost);
void sim_file_resize(struct sim_image *image, struct sim_file *file, uint64_t size);
void sim_file_sync(struct sim_image *image, struct sim_file *file);
/* A sync that failed: each change in limbo is lost for good, or is not, as the seed says. Only the
 * page cache forgets like this; a device that says later that it has synced has what it was given. */
void sim_file_sync_fail(struct sim_file *file, uint64_t seed);
void sim_directory_sync(struct sim_image *image, uint32_t directory);

/* Damage at rest: a page of the platter, and of the cache, is something else from now on. */
void sim_file_damage(struct sim_file *file, uint32_t index, const void *bytes);
/* Everything in limbo is durable now. */
void sim_image_sync(struct sim_image *image);
/* The directory, as programs see it, as files of the real file system. */
int sim_image_export(const struct sim_image *image, uint32_t directory, const char *path);
/* Power is lost, and comes back: the durable image and what luck keeps is all there is. */
void sim_image_cut(struct sim_image *image, uint64_t seed);

#endif
