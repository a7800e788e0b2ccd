/*
 * sim_disk.c - see sim_disk.h. One mutex over everything: calls are short, and a cut is an instant.
 *
 * Descriptors of the image start at FD_FIRST, far above those of the kernel.
 */
#include "sim/sim_disk.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "live.h"

#define FD_FIRST (1 << 20)
#define ROOM_BYTES (UINT64_C(1) << 34) /* so much is always free */
#define DEVICE 77u                     /* st_dev */
#define NAP_NS 50000                   /* a wait for nothing in particular is this long here */

static struct sim_disk *disk_of(const struct ab_os *os)
{
    return os->context;
}

static const struct ab_os *real(void)
{
    return ab_os_default();
}

static void lock(struct sim_disk *disk)
{
    (void)pthread_mutex_lock(&disk->mutex);
}

/* Drops the mutex, passes the result on. */
static int64_t unlocked(struct sim_disk *disk, int64_t result)
{
    (void)pthread_mutex_unlock(&disk->mutex);
    return result;
}

static bool is_ours(int fd)
{
    return fd >= FD_FIRST && fd < FD_FIRST + (int)SIM_FDS_MAX;
}

/* Mutex held. NULL: not open, or the power is off. */
static struct sim_fd *fd_of(struct sim_disk *disk, int fd)
{
    struct sim_fd *found = &disk->fds[fd - FD_FIRST];

    return found->is_open && !atomic_load(&disk->is_off) ? found : NULL;
}

/* ---- plans ---------------------------------------------------------------------------------------- */

enum change { CHANGE_WRITE, CHANGE_SYNC, CHANGE_SIZE, CHANGE_NAME };

static bool plan_concerns(const struct sim_disk *disk, const struct sim_plan *plan,
                          enum change change, bool is_watched)
{
    if ((plan->effect == SIM_LOSE_WRITE || plan->effect == SIM_MISDIRECT) &&
        change != CHANGE_WRITE) {
        return false;
    }
    if (plan->effect == SIM_ERROR && plan->error == ENOSPC && change == CHANGE_SYNC) {
        return false;
    }
    return plan->when == SIM_ANY || (plan->when == SIM_CHECKPOINT && disk->in_checkpoint) ||
           (plan->when == SIM_WATCHED && is_watched) ||
           (plan->when == SIM_SYNC && change == CHANGE_SYNC);
}

static void power_cut(struct sim_disk *disk, uint64_t seed, bool is_watched)
{
    disk->cut_at = disk->changes;
    disk->cut_seed = seed;
    disk->cut_in_checkpoint = disk->in_checkpoint;
    disk->cut_in_watch = is_watched;
    atomic_store(&disk->is_off, true);
}

/* Counts a changing call; the plan that strikes it, or one without effect. Mutex held. */
static struct sim_plan plan_next(struct sim_disk *disk, enum change change, bool is_watched)
{
    struct sim_plan struck = {0};

    disk->changes++;
    for (uint32_t index = 0; index < disk->plan_count; index++) {
        const struct sim_plan *plan = &disk->plans[index].plan;
        uint64_t times = plan->effect == SIM_ERROR && plan->times > 1 ? plan->times : 1;

        if (!plan_concerns(disk, plan, change, is_watched)) {
            continue;
        }
        disk->plans[index].seen++;
        if (struck.effect == 0 && disk->plans[index].seen >= plan->nth &&
            disk->plans[index].seen < plan->nth + times) {
            struck = *plan;
        }
    }
    disk->errors += struck.effect == SIM_ERROR;
    return struck;
}

/* The changing call is made already, and is in limbo. 0, or its error. */
static int plan_strike(struct sim_disk *disk, const struct sim_plan *plan, bool is_watched)
{
    if (plan->effect == SIM_CUT) {
        power_cut(disk, plan->seed, is_watched);
        return -EIO;
    }
    return plan->effect == SIM_ERROR ? -plan->error : 0;
}

static bool watched(struct sim_disk *disk)
{
    return disk->watch != NULL && disk->watch(disk->watch_context);
}

/* ---- names ---------------------------------------------------------------------------------------- */

/* The path seen from the image's root or from a descriptor of it; NULL: not ours. */
static const char *path_inside(int dir, const char *path)
{
    size_t mount = strlen(SIM_MOUNT);

    if (strncmp(path, SIM_MOUNT, mount) == 0 && (path[mount] == '/' || path[mount] == '\0')) {
        return path + mount;
    }
    return is_ours(dir) ? path : NULL;
}

struct place { /* where a path leads */
    uint32_t directory, file;
    char name[SIM_NAME_BYTES];
};

/* Mutex held; 0 or -errno: the path up to its last name is there. */
static int place_find(struct sim_disk *disk, int dir, const char *inside, struct place *ret)
{
    uint32_t from = SIM_ROOT;

    if (atomic_load(&disk->is_off)) {
        return -EIO;
    }
    if (is_ours(dir)) {
        const struct sim_fd *fd = fd_of(disk, dir);

        if (fd == NULL) {
            return -EBADF;
        }
        from = fd->file;
    }
    ret->file = sim_path_find(&disk->image, from, inside, &ret->directory, ret->name);
    return ret->directory == SIM_NONE ? -ENOENT : 0;
}

static int fd_open(struct sim_disk *disk, uint32_t file, bool is_direct)
{
    for (uint32_t index = 0; index < SIM_FDS_MAX; index++) {
        if (!disk->fds[index].is_open) {
            disk->fds[index] =
                (struct sim_fd){.is_open = true, .is_direct = is_direct, .file = file};
            disk->image.files[file].opens++;
            return FD_FIRST + (int)index;
        }
    }
    return -EMFILE;
}

static int file_make(struct sim_disk *disk, struct place *place, bool is_directory)
{
    const struct sim_plan plan = plan_next(disk, CHANGE_NAME, false);

    if (plan.effect == SIM_ERROR) {
        return -plan.error;
    }
    place->file = sim_file_make(&disk->image, place->directory, place->name, is_directory);
    disk->in_checkpoint |=
        strncmp(place->name, "journal.", 8) == 0 &&
        sim_name_find(&disk->image.current, place->directory, "superblock") != SIM_NONE;
    return plan_strike(disk, &plan, false);
}

static int open_inside(struct sim_disk *disk, int dir, const char *inside, int flags)
{
    struct place place;
    int rc = place_find(disk, dir, inside, &place);

    if (rc < 0 || (disk->no_direct && (flags & O_DIRECT) != 0)) {
        return rc < 0 ? rc : -EINVAL;
    }
    if (place.file != SIM_NONE && (flags & O_CREAT) != 0 && (flags & O_EXCL) != 0) {
        return -EEXIST;
    }
    if (place.file == SIM_NONE) {
        rc = (flags & O_CREAT) != 0 ? file_make(disk, &place, false) : -ENOENT;
        if (rc < 0) {
            return rc;
        }
    }
    struct sim_file *file = &disk->image.files[place.file];
    if (file->is_directory && (flags & O_ACCMODE) != O_RDONLY) {
        return -EISDIR;
    }
    if (!file->is_directory && (flags & O_DIRECTORY) != 0) {
        return -ENOTDIR;
    }
    if ((flags & O_TRUNC) != 0 && file->size > 0) {
        sim_file_resize(&disk->image, file, 0);
    }
    return fd_open(disk, place.file, (flags & O_DIRECT) != 0);
}

static int sim_openat(const struct ab_os *os, int dir, const char *path, int flags, uint32_t mode)
{
    struct sim_disk *disk = disk_of(os);
    const char *inside = path_inside(dir, path);

    if (inside == NULL) {
        return real()->openat(real(), dir, path, flags, mode);
    }
    lock(disk);
    return (int)unlocked(disk, open_inside(disk, dir, inside, flags));
}

static int sim_close(const struct ab_os *os, int fd)
{
    struct sim_disk *disk = disk_of(os);
    int result = -EBADF;

    if (!is_ours(fd)) {
        return real()->close(real(), fd);
    }
    lock(disk);
    struct sim_fd *own = &disk->fds[fd - FD_FIRST];
    if (own->is_open) { /* works without power too */
        disk->image.files[own->file].opens--;
        *own = (struct sim_fd){0};
        result = 0;
    }
    return (int)unlocked(disk, result);
}

static int unlink_inside(struct sim_disk *disk, int dir, const char *inside)
{
    struct place place;
    int rc = place_find(disk, dir, inside, &place);

    if (rc < 0 || place.file == SIM_NONE) {
        return rc < 0 ? rc : -ENOENT;
    }
    const struct sim_plan plan = plan_next(disk, CHANGE_NAME, false);
    if (plan.effect == SIM_ERROR) {
        return -plan.error;
    }
    sim_file_unlink(&disk->image, place.directory, place.name);
    rc = plan_strike(disk, &plan, false);
    disk->in_checkpoint &= strncmp(place.name, "journal.", 8) != 0;
    return rc;
}

static int sim_unlinkat(const struct ab_os *os, int dir, const char *path, int flags)
{
    struct sim_disk *disk = disk_of(os);
    const char *inside = path_inside(dir, path);

    if (inside == NULL) {
        return real()->unlinkat(real(), dir, path, flags);
    }
    lock(disk);
    return (int)unlocked(disk, unlink_inside(disk, dir, inside));
}

static int rename_inside(struct sim_disk *disk, int dir, const char *from, const char *to)
{
    struct place source, target;
    int rc = place_find(disk, dir, from, &source);

    rc = rc < 0 ? rc : place_find(disk, dir, to, &target);
    if (rc < 0 || source.file == SIM_NONE || source.directory != target.directory) {
        return rc < 0 ? rc : -ENOENT;
    }
    const struct sim_plan plan = plan_next(disk, CHANGE_NAME, false);
    if (plan.effect == SIM_ERROR) {
        return -plan.error;
    }
    sim_file_rename(&disk->image, source.directory, source.name, target.name);
    return plan_strike(disk, &plan, false);
}

static int sim_renameat(const struct ab_os *os, int dir, const char *from, const char *to)
{
    struct sim_disk *disk = disk_of(os);
    const char *inside = path_inside(dir, from);

    if (inside == NULL) {
        return real()->renameat(real(), dir, from, to);
    }
    lock(disk);
    return (int)unlocked(disk, rename_inside(disk, dir, inside, path_inside(dir, to)));
}

static int mkdir_inside(struct sim_disk *disk, int dir, const char *inside)
{
    struct place place;
    int rc = place_find(disk, dir, inside, &place);

    if (rc < 0 || place.file != SIM_NONE) {
        return rc < 0 ? rc : -EEXIST;
    }
    return file_make(disk, &place, true);
}

static int sim_mkdirat(const struct ab_os *os, int dir, const char *path, uint32_t mode)
{
    struct sim_disk *disk = disk_of(os);
    const char *inside = path_inside(dir, path);

    if (inside == NULL) {
        return real()->mkdirat(real(), dir, path, mode);
    }
    lock(disk);
    return (int)unlocked(disk, mkdir_inside(disk, dir, inside));
}

static int64_t entries_give(struct sim_disk *disk, struct sim_fd *fd, unsigned char *bytes,
                            size_t count)
{
    const struct sim_names *names = &disk->image.current;
    size_t used = 0;

    for (; fd->cursor < names->count && used + sizeof(struct dirent64) <= count; fd->cursor++) {
        const struct sim_name *name = &names->list[fd->cursor];
        struct dirent64 entry = {.d_ino = name->file + 1, .d_type = DT_UNKNOWN};

        if (name->file == SIM_NONE || name->directory != fd->file) {
            continue;
        }
        entry.d_reclen = (offsetof(struct dirent64, d_name) + sizeof(name->text) + 7) / 8 * 8;
        memcpy(entry.d_name, name->text, sizeof(name->text));
        memcpy(bytes + used, &entry, entry.d_reclen);
        used += entry.d_reclen;
    }
    return (int64_t)used;
}

static int64_t sim_getdents(const struct ab_os *os, int fd, void *bytes, size_t count)
{
    struct sim_disk *disk = disk_of(os);

    if (!is_ours(fd)) {
        return real()->getdents(real(), fd, bytes, count);
    }
    lock(disk);
    struct sim_fd *own = fd_of(disk, fd);
    return unlocked(disk, own == NULL ? -EIO : entries_give(disk, own, bytes, count));
}

/* ---- bytes ---------------------------------------------------------------------------------------- */

static bool is_misaligned(const struct sim_fd *fd, const void *bytes, size_t count, uint64_t offset)
{
    return fd->is_direct && ((uintptr_t)bytes | count | offset) % SIM_SECTOR != 0;
}

static int64_t sim_pread(const struct ab_os *os, int fd, void *bytes, size_t count, uint64_t offset)
{
    struct sim_disk *disk = disk_of(os);

    if (!is_ours(fd)) {
        return real()->pread(real(), fd, bytes, count, offset);
    }
    lock(disk);
    const struct sim_fd *own = fd_of(disk, fd);
    if (own == NULL) {
        return unlocked(disk, -EIO);
    }
    const struct sim_file *file = &disk->image.files[own->file];
    if (offset >= file->size) { /* looked at first, as Linux does */
        return unlocked(disk, 0);
    }
    if (is_misaligned(own, bytes, count, offset)) {
        return unlocked(disk, -EINVAL);
    }
    if (count > file->size - offset) {
        count = file->size - offset;
    }
    (own->is_direct && file->is_cached ? sim_file_read_disk : sim_file_read)(file, bytes, count,
                                                                             offset);
    return unlocked(disk, (int64_t)count);
}

/* Where misdirected bytes go: somewhere else in the same file. */
static uint64_t elsewhere(const struct sim_file *file, uint64_t offset, size_t count, uint64_t seed)
{
    uint32_t pages = (uint32_t)(file->size / SIM_PAGE);
    uint32_t length = (uint32_t)((count + SIM_PAGE - 1) / SIM_PAGE);
    uint64_t place = offset;

    if (pages > 2 * length) {
        place = (uint64_t)live_random_below(&seed, pages - length) * SIM_PAGE + offset % SIM_PAGE;
    }
    return place;
}

static void bytes_write(struct sim_disk *disk, const struct sim_fd *fd, const void *bytes,
                        size_t count, uint64_t offset, const struct sim_plan *plan)
{
    struct sim_file *file = &disk->image.files[fd->file];
    uint64_t other = offset;

    file->is_cached |= !fd->is_direct;
    if (plan->effect == SIM_MISDIRECT) {
        other = elsewhere(file, offset, count, plan->seed);
    }
    if (other != offset) {
        sim_file_write(&disk->image, file, bytes, count, other, false);
        disk->misdirected++;
    }
    if (plan->effect == SIM_LOSE_WRITE || other != offset) {
        disk->lost += other == offset;
        if (!fd->is_direct) { /* the page cache has it for a while */
            sim_file_write(&disk->image, file, bytes, count, offset, true);
        }
        return;
    }
    sim_file_write(&disk->image, file, bytes, count, offset, false);
}

static int64_t write_inside(struct sim_disk *disk, int fd, const void *bytes, size_t count,
                            uint64_t offset, bool is_watched)
{
    const struct sim_fd *own = fd_of(disk, fd);

    if (own == NULL || is_misaligned(own, bytes, count, offset)) {
        return own == NULL ? -EIO : -EINVAL;
    }
    const struct sim_plan plan = plan_next(disk, CHANGE_WRITE, is_watched);
    if (plan.effect == SIM_ERROR) {
        return -plan.error;
    }
    disk->writes++;
    disk->bytes_written += count;
    bytes_write(disk, own, bytes, count, offset, &plan);
    const int rc = plan_strike(disk, &plan, is_watched);
    return rc < 0 ? rc : (int64_t)count;
}

static int64_t sim_pwrite(const struct ab_os *os, int fd, const void *bytes, size_t count,
                          uint64_t offset)
{
    struct sim_disk *disk = disk_of(os);

    if (!is_ours(fd)) {
        return real()->pwrite(real(), fd, bytes, count, offset);
    }
    const bool is_watched = watched(disk);
    lock(disk);
    return unlocked(disk, write_inside(disk, fd, bytes, count, offset, is_watched));
}

static int sync_inside(struct sim_disk *disk, int fd, bool is_watched)
{
    const struct sim_fd *own = fd_of(disk, fd);

    if (own == NULL) {
        return -EIO;
    }
    const struct sim_plan plan = plan_next(disk, CHANGE_SYNC, is_watched);
    struct sim_file *file = &disk->image.files[own->file];
    if (plan.effect == SIM_ERROR) {
        sim_file_sync_fail(file, plan.seed + disk->changes);
    }
    if (plan.effect == SIM_ERROR || plan.effect == SIM_CUT) { /* cut: all of it is in limbo still */
        return plan_strike(disk, &plan, is_watched);
    }
    disk->syncs++;
    if (file->is_directory) {
        sim_directory_sync(&disk->image, own->file);
    } else {
        sim_file_sync(&disk->image, file);
    }
    return 0;
}

static int sim_fdatasync(const struct ab_os *os, int fd)
{
    struct sim_disk *disk = disk_of(os);

    if (!is_ours(fd)) {
        return real()->fdatasync(real(), fd);
    }
    const bool is_watched = watched(disk);
    lock(disk);
    return (int)unlocked(disk, sync_inside(disk, fd, is_watched));
}

static int sim_fsync(const struct ab_os *os, int fd)
{
    return is_ours(fd) ? sim_fdatasync(os, fd) : real()->fsync(real(), fd);
}

static int resize_inside(struct sim_disk *disk, int fd, uint64_t size, bool grows_only)
{
    const struct sim_fd *own = fd_of(disk, fd);

    if (own == NULL) {
        return -EIO;
    }
    const struct sim_plan plan = plan_next(disk, CHANGE_SIZE, false);
    struct sim_file *file = &disk->image.files[own->file];
    if (plan.effect == SIM_ERROR) {
        return -plan.error;
    }
    if (!grows_only || size > file->size) {
        sim_file_resize(&disk->image, file, size);
    }
    return plan_strike(disk, &plan, false);
}

static int sim_ftruncate(const struct ab_os *os, int fd, uint64_t size)
{
    struct sim_disk *disk = disk_of(os);

    if (!is_ours(fd)) {
        return real()->ftruncate(real(), fd, size);
    }
    lock(disk);
    return (int)unlocked(disk, resize_inside(disk, fd, size, false));
}

static int sim_fallocate(const struct ab_os *os, int fd, int mode, uint64_t offset, uint64_t count)
{
    struct sim_disk *disk = disk_of(os);

    if (!is_ours(fd)) {
        return real()->fallocate(real(), fd, mode, offset, count);
    }
    if (mode != 0) {
        return -EOPNOTSUPP;
    }
    lock(disk);
    return (int)unlocked(disk, resize_inside(disk, fd, offset + count, true));
}

/* ---- facts ---------------------------------------------------------------------------------------- */

static int sim_fstat(const struct ab_os *os, int fd, struct stat *ret)
{
    struct sim_disk *disk = disk_of(os);

    if (!is_ours(fd)) {
        return real()->fstat(real(), fd, ret);
    }
    lock(disk);
    const struct sim_fd *own = fd_of(disk, fd);
    if (own == NULL) {
        return (int)unlocked(disk, -EIO);
    }
    const struct sim_file *file = &disk->image.files[own->file];
    *ret = (struct stat){.st_dev = DEVICE,
                         .st_ino = own->file + 1,
                         .st_mode = file->is_directory ? S_IFDIR | 0700 : S_IFREG | 0600,
                         .st_size = (off_t)file->size,
                         .st_blksize = SIM_PAGE};
    return (int)unlocked(disk, 0);
}

/* It says nothing about O_DIRECT, as older kernels do: the store then tries. */
static int sim_statx(const struct ab_os *os, int dir, const char *path, int flags, uint32_t mask,
                     struct statx *ret)
{
    if (path_inside(dir, path) == NULL) {
        return real()->statx(real(), dir, path, flags, mask, ret);
    }
    memset(ret, 0, sizeof(*ret));
    return sim_disk_is_off(disk_of(os)) ? -EIO : 0;
}

static int sim_statvfs(const struct ab_os *os, const char *path, struct statvfs *ret)
{
    if (path_inside(-1, path) == NULL) {
        return real()->statvfs(real(), path, ret);
    }
    *ret = (struct statvfs){.f_bsize = SIM_PAGE,
                            .f_frsize = SIM_PAGE,
                            .f_blocks = 2 * ROOM_BYTES / SIM_PAGE,
                            .f_bfree = ROOM_BYTES / SIM_PAGE,
                            .f_bavail = ROOM_BYTES / SIM_PAGE};
    return sim_disk_is_off(disk_of(os)) ? -EIO : 0;
}

static int lock_inside(struct sim_disk *disk, int fd, int operation)
{
    struct sim_fd *own = fd_of(disk, fd);

    if (own == NULL) {
        return -EIO;
    }
    for (uint32_t index = 0; index < SIM_FDS_MAX && (operation & LOCK_EX) != 0; index++) {
        const struct sim_fd *other = &disk->fds[index];

        if (other != own && other->is_open && other->is_locked && other->file == own->file) {
            return -EWOULDBLOCK;
        }
    }
    own->is_locked = (operation & LOCK_EX) != 0;
    return 0;
}

static int sim_flock(const struct ab_os *os, int fd, int operation)
{
    struct sim_disk *disk = disk_of(os);

    if (!is_ours(fd)) {
        return real()->flock(real(), fd, operation);
    }
    lock(disk);
    return (int)unlocked(disk, lock_inside(disk, fd, operation));
}

static int sim_ioctl(const struct ab_os *os, int fd, unsigned long request, void *argument)
{
    (void)os;
    return is_ours(fd) ? -ENOTTY : real()->ioctl(real(), fd, request, argument);
}

/* Sleeps that wait for a device are short: this one answers at once. */
static int sim_poll(const struct ab_os *os, int fd, short events, int64_t timeout_ns)
{
    (void)os;
    if (fd < 0 && timeout_ns > NAP_NS) {
        timeout_ns = NAP_NS;
    }
    return real()->poll(real(), fd, events, timeout_ns);
}

/* ---- the disk -------------------------------------------------------------------------------------- */

void sim_disk_init(struct sim_disk *disk)
{
    *disk =
        (struct sim_disk){.os = *real()}; /* which asks for no context: the rest passes through */
    disk->os.context = disk;
    disk->os.openat = sim_openat;
    disk->os.close = sim_close;
    disk->os.pread = sim_pread;
    disk->os.pwrite = sim_pwrite;
    disk->os.fdatasync = sim_fdatasync;
    disk->os.fsync = sim_fsync;
    disk->os.ftruncate = sim_ftruncate;
    disk->os.fallocate = sim_fallocate;
    disk->os.fstat = sim_fstat;
    disk->os.statx = sim_statx;
    disk->os.statvfs = sim_statvfs;
    disk->os.renameat = sim_renameat;
    disk->os.unlinkat = sim_unlinkat;
    disk->os.mkdirat = sim_mkdirat;
    disk->os.getdents = sim_getdents;
    disk->os.flock = sim_flock;
    disk->os.ioctl = sim_ioctl;
    disk->os.poll = sim_poll;
    sim_image_init(&disk->image);
    if (pthread_mutex_init(&disk->mutex, NULL) != 0) {
        abort();
    }
}

void sim_disk_free(struct sim_disk *disk)
{
    sim_image_free(&disk->image);
    (void)pthread_mutex_destroy(&disk->mutex);
}

void sim_disk_plan(struct sim_disk *disk, struct sim_plan plan)
{
    lock(disk);
    if (disk->plan_count == SIM_PLANS_MAX || plan.effect == 0 ||
        (plan.effect == SIM_ERROR && plan.error <= 0)) {
        fprintf(stderr, "sim_disk_plan: too many plans, or one without effect\n");
        abort();
    }
    plan.nth = plan.nth == 0 ? 1 : plan.nth;
    disk->plans[disk->plan_count].plan = plan;
    disk->plans[disk->plan_count++].seen = 0;
    (void)unlocked(disk, 0);
}

void sim_disk_plans_clear(struct sim_disk *disk)
{
    lock(disk);
    disk->plan_count = 0;
    (void)unlocked(disk, 0);
}

void sim_disk_power_cut(struct sim_disk *disk, uint64_t seed)
{
    const bool is_watched = watched(disk);

    lock(disk);
    if (!atomic_load(&disk->is_off)) {
        power_cut(disk, seed, is_watched);
    }
    (void)unlocked(disk, 0);
}

bool sim_disk_is_off(struct sim_disk *disk)
{
    return atomic_load(&disk->is_off);
}

static uint32_t fds_open(const struct sim_disk *disk)
{
    uint32_t count = 0;

    for (uint32_t index = 0; index < SIM_FDS_MAX; index++) {
        count += disk->fds[index].is_open;
    }
    return count;
}

uint32_t sim_disk_fds_open(struct sim_disk *disk)
{
    lock(disk);
    return (uint32_t)unlocked(disk, fds_open(disk));
}

void sim_disk_process_died(struct sim_disk *disk)
{
    disk->limbo_stays = true; /* nobody calls any more */
}

void sim_disk_power_on(struct sim_disk *disk)
{
    lock(disk);
    if (fds_open(disk) != 0) {
        fprintf(stderr, "sim_disk_power_on: descriptors are open\n");
        abort();
    }
    if (atomic_load(&disk->is_off) && !disk->limbo_stays) {
        sim_image_cut(&disk->image, disk->cut_seed);
    }
    disk->plan_count = 0;
    disk->limbo_stays = false;
    disk->in_checkpoint = false;
    disk->changes = 0;
    disk->errors = 0;
    atomic_store(&disk->is_off, false);
    (void)unlocked(disk, 0);
}

int sim_disk_export(struct sim_disk *disk, const char *directory)
{
    lock(disk);
    return (int)unlocked(disk, sim_image_export(&disk->image, SIM_ROOT, directory));
}
