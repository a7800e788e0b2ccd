/*
 * sim_disk.h - a disk in memory, as a `struct ab_os`: paths under /sim live in a sim_image, all other
 * calls are the real ones. Power can be cut at any call that changes something.
 *
 *     sim_disk_init(&disk);
 *     sim_disk_plan(&disk, (struct sim_plan){.effect = SIM_CUT, .nth = 7, .seed = 1});
 *     ... give &disk.os to the code under test, with a store in /sim/store ...
 *     if (sim_disk_is_off(&disk)) ...                    every call on /sim fails with -EIO now
 *     ... close everything ...
 *     sim_disk_power_on(&disk);                          what survived is what the next open sees
 *
 * A plan counts the changing calls (pwrite, syncs, sizes, names) that fit its `when`, from the
 * moment it is set. What a cut keeps is drawn from the plan's seed. Faults:
 *   SIM_CUT         the call is in limbo as all others are; it fails, and so does all after it
 *   SIM_ERROR       the call fails with -error, `times` times; a sync that fails loses, for ever, about
 *                   half of what it should have saved from the page cache, as Linux does
 *   SIM_LOSE_WRITE  a pwrite succeeds, and so do all syncs, but its bytes never reach the platter
 *   SIM_MISDIRECT   the same, and they overwrite another place of the same file
 *
 * Reads and writes through a descriptor with O_DIRECT must be aligned to 512 bytes (-EINVAL), so that
 * a missing alignment shows here too. io_uring does not come through pread and pwrite: not for it.
 */
#ifndef SIM_DISK_H
#define SIM_DISK_H

#include <pthread.h>
#include <stdatomic.h>

#include "base/os.h"
#include "sim/sim_image.h"

#define SIM_MOUNT "/sim"
#define SIM_PLANS_MAX 4u
#define SIM_FDS_MAX 96u

enum sim_effect { SIM_CUT = 1, SIM_ERROR, SIM_LOSE_WRITE, SIM_MISDIRECT };
enum sim_when {
    SIM_ANY = 0,
    SIM_CHECKPOINT, /* a journal file was made, and none has been removed since */
    SIM_WATCHED,    /* sim_disk.watch says so; only pwrite and syncs are counted */
    SIM_SYNC,       /* syncs alone */
};
struct sim_plan {
    enum sim_effect effect;
    enum sim_when when;
    uint64_t nth; /* 1: the next */
    int error;    /* SIM_ERROR: positive errno. ENOSPC: syncs do not count */
    uint32_t times;
    uint64_t seed; /* of the cut, or of what a failed sync loses */
};
struct sim_fd {
    bool is_open, is_direct, is_locked;
    uint32_t file, cursor; /* cursor: of getdents */
};
struct sim_disk {
    struct ab_os os;              /* give its address to the code under test */
    bool (*watch)(void *context); /* may be NULL; the caller's locks are held */
    void *watch_context;
    atomic_bool is_off;
    bool limbo_stays;
    bool no_direct;        /* O_DIRECT is refused, as some file systems do */
    pthread_mutex_t mutex; /* guards all below */
    struct sim_image image;
    struct sim_fd fds[SIM_FDS_MAX];
    struct {
        struct sim_plan plan;
        uint64_t seen;
    } plans[SIM_PLANS_MAX];
    uint32_t plan_count;
    bool in_checkpoint;
    /* of the last cut, and since the last power on */
    bool cut_in_checkpoint, cut_in_watch;
    uint64_t cut_at, cut_seed; /* the how many-th changing call since power on */
    uint64_t changes, writes, syncs, bytes_written;
    _Atomic uint64_t errors;    /* planned ones that struck: read without the mutex */
    uint64_t lost, misdirected; /* SIM_LOSE_WRITE and SIM_MISDIRECT that happened */
};

void sim_disk_init(struct sim_disk *disk);
void sim_disk_free(struct sim_disk *disk);
void sim_disk_plan(struct sim_disk *disk, struct sim_plan plan);
void sim_disk_plans_clear(struct sim_disk *disk);
/* Between two calls, now. */
void sim_disk_power_cut(struct sim_disk *disk, uint64_t seed);
bool sim_disk_is_off(struct sim_disk *disk);
/* It was not the power that went but the process: what is in limbo stays there. */
void sim_disk_process_died(struct sim_disk *disk);
/* Works also where power was not cut: then nothing in limbo is lost. No descriptor may be open. */
void sim_disk_power_on(struct sim_disk *disk);
uint32_t sim_disk_fds_open(struct sim_disk *disk);
/* Write the image as files into a directory of the real file system, for a look at it. */
int sim_disk_export(struct sim_disk *disk, const char *directory);

#endif
