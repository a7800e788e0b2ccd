/*
 * test_sim_disk.c - the simulated disk is as cruel as it says, and no crueller.
 *
 * Goal: what was synced stays, what was not may be lost, torn at both grains or reordered, names too;
 * faults happen where they were planned; a writer without a sync is caught. Method: the same small
 * programs over many seeds; of each outcome that the model has, at least one must be seen.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
// clang-format off
#include <cmocka.h>
// clang-format on

#include "sim/sim_disk.h"

#define SEEDS 300u
#define PAGES 4u

static int up(void **state)
{
    struct sim_disk *disk = calloc(1, sizeof(*disk));

    if (disk == NULL) {
        return -1;
    }
    sim_disk_init(disk);
    *state = disk;
    return 0;
}

static int down(void **state)
{
    sim_disk_free(*state);
    free(*state);
    return 0;
}

static int file_open(struct sim_disk *disk, const char *path, int flags)
{
    return disk->os.openat(&disk->os, AT_FDCWD, path, flags, 0600);
}

static void file_close(struct sim_disk *disk, int fd)
{
    assert_int_equal(disk->os.close(&disk->os, fd), 0);
}

static void fill_write(struct sim_disk *disk, int fd, int value, size_t count, uint64_t offset)
{
    unsigned char bytes[PAGES * SIM_PAGE];

    memset(bytes, value, sizeof(bytes));
    assert_int_equal(disk->os.pwrite(&disk->os, fd, bytes, count, offset), count);
}

static void root_sync(struct sim_disk *disk)
{
    int fd = file_open(disk, "/sim", O_RDONLY | O_DIRECTORY);

    assert_int_equal(disk->os.fsync(&disk->os, fd), 0);
    file_close(disk, fd);
}

/* A durable file of PAGES pages of ones; its descriptor. */
static int file_of_ones(struct sim_disk *disk)
{
    int fd = file_open(disk, "/sim/file", O_RDWR | O_CREAT);

    fill_write(disk, fd, 1, PAGES * SIM_PAGE, 0);
    assert_int_equal(disk->os.fdatasync(&disk->os, fd), 0);
    root_sync(disk);
    return fd;
}

/* Off and on again; the bytes that the file has then, and how many. */
static int64_t after_cut(struct sim_disk *disk, int fd, uint64_t seed,
                         unsigned char bytes[PAGES * SIM_PAGE])
{
    int64_t got;

    sim_disk_power_cut(disk, seed);
    file_close(disk, fd);
    sim_disk_power_on(disk);
    fd = file_open(disk, "/sim/file", O_RDONLY);
    if (fd < 0) {
        return fd;
    }
    got = disk->os.pread(&disk->os, fd, bytes, PAGES * SIM_PAGE, 0);
    file_close(disk, fd);
    return got;
}

static uint32_t count_of(const unsigned char *bytes, size_t count, int value)
{
    uint32_t found = 0;

    for (size_t index = 0; index < count; index++) {
        found += bytes[index] == value;
    }
    return found;
}

static void test_synced_stays(void **state)
{
    struct sim_disk *disk = *state;
    unsigned char bytes[PAGES * SIM_PAGE];

    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        assert_int_equal(after_cut(disk, file_of_ones(disk), seed, bytes), sizeof(bytes));
        assert_int_equal(count_of(bytes, sizeof(bytes), 1), sizeof(bytes));
    }
}

static void test_unsynced_is_lost_kept_and_torn(void **state)
{
    struct sim_disk *disk = *state;
    unsigned char bytes[PAGES * SIM_PAGE];
    uint32_t lost = 0, kept = 0, torn_pages = 0, torn_sectors = 0;

    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        int fd = file_of_ones(disk);
        bool pages = false, sectors = false;

        fill_write(disk, fd, 2, PAGES * SIM_PAGE, 0);
        assert_int_equal(after_cut(disk, fd, seed, bytes), sizeof(bytes));
        for (uint32_t page = 0; page < PAGES; page++) {
            uint32_t twos = count_of(bytes + (size_t)page * SIM_PAGE, SIM_PAGE, 2);

            assert_int_equal(twos % SIM_SECTOR, 0);
            sectors |= twos > 0 && twos < SIM_PAGE;
            pages |= bytes[page * SIM_PAGE] != bytes[0];
        }
        uint32_t twos = count_of(bytes, sizeof(bytes), 2);
        assert_int_equal(count_of(bytes, sizeof(bytes), 1) + twos, sizeof(bytes));
        lost += twos == 0;
        kept += twos == sizeof(bytes);
        torn_pages += pages && !sectors;
        torn_sectors += sectors;
    }
    assert_true(lost > 0 && kept > 0 && torn_pages > 0 && torn_sectors > 0);
}

static void test_later_survives_without_earlier(void **state)
{
    struct sim_disk *disk = *state;
    unsigned char bytes[PAGES * SIM_PAGE];
    uint32_t only_later = 0, only_earlier = 0;

    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        int fd = file_of_ones(disk);

        fill_write(disk, fd, 2, SIM_PAGE, 0);
        fill_write(disk, fd, 3, SIM_PAGE, SIM_PAGE);
        (void)after_cut(disk, fd, seed, bytes);
        only_later += bytes[0] == 1 && bytes[SIM_PAGE] == 3;
        only_earlier += bytes[0] == 2 && bytes[SIM_PAGE] == 1;
    }
    assert_true(only_later > 0 && only_earlier > 0);
}

/* Writes of part of a sector, one after the other: a sector is old or one of its later states. */
static void test_small_writes_in_one_sector(void **state)
{
    struct sim_disk *disk = *state;
    unsigned char bytes[PAGES * SIM_PAGE];
    uint32_t seen[3] = {0};

    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        int fd = file_of_ones(disk);

        fill_write(disk, fd, 2, 100, 0);
        fill_write(disk, fd, 3, 100, 100);
        (void)after_cut(disk, fd, seed, bytes);
        assert_true(bytes[100] == 1 || (bytes[100] == 3 && bytes[0] == 2));
        seen[bytes[0] == 1 ? 0 : bytes[100] == 1 ? 1 : 2]++;
        assert_int_equal(bytes[200], 1);
    }
    assert_true(seen[0] > 0 && seen[1] > 0 && seen[2] > 0);
}

static void test_size(void **state)
{
    struct sim_disk *disk = *state;
    unsigned char bytes[PAGES * SIM_PAGE];
    uint32_t grown = 0, same = 0, cut = 0, holes = 0;

    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        int fd = file_of_ones(disk);
        int64_t size;

        assert_int_equal(disk->os.ftruncate(&disk->os, fd, SIM_PAGE + 10), 0);
        assert_int_equal(disk->os.fdatasync(&disk->os, fd), 0);
        fill_write(disk, fd, 2, SIM_PAGE, 2 * SIM_PAGE);
        size = after_cut(disk, fd, seed, bytes);
        assert_true(size == SIM_PAGE + 10 || size == 3 * SIM_PAGE);
        assert_int_equal(count_of(bytes, SIM_PAGE + 10, 1), SIM_PAGE + 10);
        grown += size == 3 * SIM_PAGE;
        same += size == SIM_PAGE + 10;
        if (size == 3 * SIM_PAGE) { /* what the cut took away does not come back */
            assert_int_equal(count_of(bytes + SIM_PAGE + 10, SIM_PAGE - 10, 0), SIM_PAGE - 10);
            holes += bytes[2 * SIM_PAGE] == 0;
        }
        fd = file_of_ones(disk);
        assert_int_equal(disk->os.ftruncate(&disk->os, fd, 0), 0);
        cut += after_cut(disk, fd, seed, bytes) == 0;
    }
    assert_true(grown > 0 && same > 0 && holes > 0 && cut > 0 && cut < SEEDS);
}

static void test_names(void **state)
{
    struct sim_disk *disk = *state;
    uint32_t made = 0, renamed = 0, removed = 0;

    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        int root = file_open(disk, "/sim", O_RDONLY | O_DIRECTORY), fd;

        file_close(disk, file_of_ones(disk));
        (void)disk->os.unlinkat(&disk->os, root, "moved", 0);
        (void)disk->os.unlinkat(&disk->os, root, "new", 0);
        root_sync(disk);
        fd = disk->os.openat(&disk->os, root, "new", O_RDWR | O_CREAT | O_EXCL, 0600);
        assert_int_equal(disk->os.fsync(&disk->os, fd), 0); /* its bytes, not its name */
        file_close(disk, fd);
        assert_int_equal(disk->os.renameat(&disk->os, root, "file", "moved"), 0);
        file_close(disk, root);
        sim_disk_power_cut(disk, seed);
        sim_disk_power_on(disk);
        fd = file_open(disk, "/sim/new", O_RDONLY);
        made += fd >= 0;
        if (fd >= 0) {
            file_close(disk, fd);
        }
        bool has_old = sim_name_find(&disk->image.current, SIM_ROOT, "file") != SIM_NONE;
        bool has_new = sim_name_find(&disk->image.current, SIM_ROOT, "moved") != SIM_NONE;
        assert_true(has_old != has_new);
        renamed += has_new;

        root = file_open(disk, "/sim", O_RDONLY | O_DIRECTORY);
        file_close(disk, file_of_ones(disk));
        assert_int_equal(disk->os.unlinkat(&disk->os, root, "file", 0), 0);
        file_close(disk, root);
        sim_disk_power_cut(disk, seed);
        sim_disk_power_on(disk);
        removed += sim_name_find(&disk->image.current, SIM_ROOT, "file") == SIM_NONE;
    }
    assert_true(made > 0 && made < SEEDS && renamed > 0 && renamed < SEEDS);
    assert_true(removed > 0 && removed < SEEDS);
}

/* A directory that is lost takes its files with it, and they do not turn up in another. */
static void test_lost_directory(void **state)
{
    struct sim_disk *disk = *state;
    uint32_t lost = 0;

    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        char path[32];
        int fd;

        (void)snprintf(path, sizeof(path), "/sim/d%u", (unsigned)(seed % 40));
        if (disk->os.mkdirat(&disk->os, AT_FDCWD, path, 0700) < 0) {
            continue;
        }
        fd = file_open(disk, path, O_RDONLY | O_DIRECTORY);
        file_close(disk, disk->os.openat(&disk->os, fd, "inside", O_WRONLY | O_CREAT, 0600));
        assert_int_equal(disk->os.fsync(&disk->os, fd), 0);
        file_close(disk, fd);
        sim_disk_power_cut(disk, seed);
        sim_disk_power_on(disk);
        uint32_t directory = sim_name_find(&disk->image.current, SIM_ROOT, path + 5);
        lost += directory == SIM_NONE;
        if (directory != SIM_NONE) {
            assert_int_not_equal(sim_name_find(&disk->image.current, directory, "inside"),
                                 SIM_NONE);
        }
    }
    assert_true(lost > 0);
}

static void test_cut_at_a_call(void **state)
{
    struct sim_disk *disk = *state;
    int fd = file_of_ones(disk);
    unsigned char bytes[SIM_PAGE] = {9};

    sim_disk_plan(disk, (struct sim_plan){.effect = SIM_CUT, .nth = 3, .seed = 5});
    fill_write(disk, fd, 2, SIM_PAGE, 0);
    assert_int_equal(disk->os.fdatasync(&disk->os, fd), 0);
    assert_int_equal(disk->os.pwrite(&disk->os, fd, bytes, SIM_PAGE, 0), -EIO);
    assert_true(sim_disk_is_off(disk));
    assert_int_equal(disk->os.fdatasync(&disk->os, fd), -EIO);
    assert_int_equal(disk->os.pread(&disk->os, fd, bytes, SIM_PAGE, 0), -EIO);
    assert_int_equal(file_open(disk, "/sim/file", O_RDONLY), -EIO);
    assert_int_equal(disk->os.ftruncate(&disk->os, fd, 0), -EIO);
    assert_int_equal(sim_disk_fds_open(disk), 1);
    file_close(disk, fd);
    sim_disk_power_on(disk);
    fd = file_open(disk, "/sim/file", O_RDONLY);
    assert_int_equal(disk->os.pread(&disk->os, fd, bytes, SIM_PAGE, 0), SIM_PAGE);
    assert_true(bytes[1] == 2 || bytes[1] == 0);
    file_close(disk, fd);
}

static void test_errors(void **state)
{
    struct sim_disk *disk = *state;
    unsigned char bytes[PAGES * SIM_PAGE];
    uint32_t lost = 0, kept = 0;

    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        int fd = file_of_ones(disk);

        fill_write(disk, fd, 2, SIM_PAGE, 0);
        sim_disk_plan(disk,
                      (struct sim_plan){.effect = SIM_ERROR, .error = EIO, .nth = 1, .seed = seed});
        assert_int_equal(disk->os.fdatasync(&disk->os, fd), -EIO);
        assert_int_equal(disk->os.fdatasync(&disk->os, fd), 0); /* says so, and does not mean it */
        (void)after_cut(disk, fd, seed, bytes);
        lost += bytes[0] == 1;
        kept += bytes[0] == 2;
    }
    assert_true(lost > 0 && kept > 0 && lost + kept == SEEDS);
    int fd = file_of_ones(disk);
    sim_disk_plan(disk,
                  (struct sim_plan){.effect = SIM_ERROR, .error = ENOSPC, .nth = 1, .times = 2});
    assert_int_equal(disk->os.fdatasync(&disk->os, fd), 0);
    assert_int_equal(disk->os.pwrite(&disk->os, fd, bytes, 1, 0), -ENOSPC);
    assert_int_equal(disk->os.fallocate(&disk->os, fd, 0, 0, 1 << 20), -ENOSPC);
    assert_int_equal(disk->os.fallocate(&disk->os, fd, 0, 0, 1 << 20), 0);
    file_close(disk, fd);
}

static void test_lost_and_misdirected(void **state)
{
    struct sim_disk *disk = *state;
    unsigned char bytes[PAGES * SIM_PAGE];
    int fd = file_of_ones(disk);

    sim_disk_plan(disk, (struct sim_plan){.effect = SIM_LOSE_WRITE, .nth = 1});
    fill_write(disk, fd, 2, SIM_PAGE, 0);
    assert_int_equal(disk->os.pread(&disk->os, fd, bytes, SIM_PAGE, 0), SIM_PAGE);
    assert_int_equal(bytes[0], 2); /* out of the page cache */
    assert_int_equal(disk->os.fdatasync(&disk->os, fd), 0);
    assert_int_equal(after_cut(disk, fd, 1, bytes), sizeof(bytes));
    assert_int_equal(count_of(bytes, sizeof(bytes), 1), sizeof(bytes));
    assert_int_equal(disk->lost, 1);
    for (uint64_t seed = 0; disk->misdirected == 0 && seed < SEEDS; seed++) {
        fd = file_of_ones(disk);
        sim_disk_plan(disk, (struct sim_plan){.effect = SIM_MISDIRECT, .nth = 1, .seed = seed});
        fill_write(disk, fd, 2, SIM_PAGE, 0);
        assert_int_equal(disk->os.fdatasync(&disk->os, fd), 0);
        (void)after_cut(disk, fd, 1, bytes);
    }
    assert_int_equal(disk->misdirected, 1);
    assert_int_equal(bytes[0], 1);
    assert_int_equal(count_of(bytes, sizeof(bytes), 2), SIM_PAGE);
}

/* The oldest mistake: a commit mark after data, without a sync in between. */
static uint32_t marks_without_data(struct sim_disk *disk, bool is_buggy)
{
    unsigned char bytes[PAGES * SIM_PAGE];
    uint32_t wrong = 0;

    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        int fd = file_of_ones(disk);

        fill_write(disk, fd, 2, SIM_PAGE, 0);
        if (!is_buggy) {
            assert_int_equal(disk->os.fdatasync(&disk->os, fd), 0);
        }
        fill_write(disk, fd, 3, SIM_SECTOR, SIM_PAGE);
        (void)after_cut(disk, fd, seed, bytes);
        wrong += bytes[SIM_PAGE] == 3 && count_of(bytes, SIM_PAGE, 2) != SIM_PAGE;
    }
    return wrong;
}

static void test_buggy_writer_is_caught(void **state)
{
    assert_int_equal(marks_without_data(*state, false), 0);
    assert_true(marks_without_data(*state, true) > 0);
}

static void test_the_rest(void **state)
{
    struct sim_disk *disk = *state;
    _Alignas(4096) unsigned char bytes[SIM_PAGE];
    int fd = file_of_ones(disk), other = file_open(disk, "/sim/file", O_RDWR | O_DIRECT);
    int zero = file_open(disk, "/dev/zero", O_RDONLY);
    struct sim_image clone;

    assert_int_equal(disk->os.pread(&disk->os, other, bytes, 512, 512), 512);
    assert_int_equal(disk->os.pread(&disk->os, other, bytes, 100, 512), -EINVAL);
    assert_int_equal(disk->os.pwrite(&disk->os, other, bytes, 512, 4), -EINVAL);
    assert_int_equal(disk->os.flock(&disk->os, fd, LOCK_EX | LOCK_NB), 0);
    assert_int_equal(disk->os.flock(&disk->os, other, LOCK_EX | LOCK_NB), -EWOULDBLOCK);
    file_close(disk, fd);
    assert_int_equal(disk->os.flock(&disk->os, other, LOCK_EX | LOCK_NB), 0);
    assert_int_equal(disk->os.pread(&disk->os, zero, bytes, 10, 0), 10); /* the real one */
    file_close(disk, zero);
    file_close(disk, other);
    other = file_open(disk, "/sim/file", O_RDWR);
    fill_write(disk, other, 7, 1, 0);
    sim_image_clone(&clone, &disk->image);
    sim_file_read(&clone.files[sim_name_find(&clone.current, SIM_ROOT, "file")], bytes, 1, 0);
    assert_int_equal(bytes[0], 1); /* what is durable only */
    sim_image_free(&clone);
    file_close(disk, other);
    int root = file_open(disk, "/sim", O_RDONLY | O_DIRECTORY);
    int64_t got = disk->os.getdents(&disk->os, root, bytes, sizeof(bytes));
    assert_true(got > 0);
    assert_string_equal(((struct dirent64 *)(void *)bytes)->d_name, "file");
    assert_int_equal(disk->os.getdents(&disk->os, root, bytes, sizeof(bytes)), 0);
    file_close(disk, root);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_synced_stays, up, down),
        cmocka_unit_test_setup_teardown(test_unsynced_is_lost_kept_and_torn, up, down),
        cmocka_unit_test_setup_teardown(test_later_survives_without_earlier, up, down),
        cmocka_unit_test_setup_teardown(test_small_writes_in_one_sector, up, down),
        cmocka_unit_test_setup_teardown(test_size, up, down),
        cmocka_unit_test_setup_teardown(test_names, up, down),
        cmocka_unit_test_setup_teardown(test_lost_directory, up, down),
        cmocka_unit_test_setup_teardown(test_cut_at_a_call, up, down),
        cmocka_unit_test_setup_teardown(test_errors, up, down),
        cmocka_unit_test_setup_teardown(test_lost_and_misdirected, up, down),
        cmocka_unit_test_setup_teardown(test_buggy_writer_is_caught, up, down),
        cmocka_unit_test_setup_teardown(test_the_rest, up, down),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
