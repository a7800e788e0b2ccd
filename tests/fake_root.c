/*
 * fake_root.c - see fake_root.h. The inner table gets the same calls as it would without us, with
 * another path in openat.
 */
#include "fake_root.h"

#include <fcntl.h>
#include <ftw.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#define OPEN_FILES_MAX 16

static const struct fake_root *fake_of(const struct ab_os *os)
{
    return (const void *)((const char *)os - offsetof(struct fake_root, os));
}

static int fake_openat(const struct ab_os *os, int dir, const char *path, int flags, uint32_t mode)
{
    const struct fake_root *fake = fake_of(os);
    char other[2 * FAKE_PATH_MAX];
    for (uint32_t i = 0; i < fake->cover_count; i++) {
        const size_t length = strlen(fake->covers[i]);
        if (strncmp(path, fake->covers[i], length) == 0 &&
            (path[length] == '\0' || path[length] == '/')) {
            (void)snprintf(other, sizeof(other), "%s%s", fake->directory, path);
            path = other;
            break;
        }
    }
    return fake->inner->openat(fake->inner, dir, path, flags, mode);
}

void fake_root_init(struct fake_root *fake, const struct ab_os *inner)
{
    const char *temporary = getenv("TMPDIR");
    *fake = (struct fake_root){.inner = inner != NULL ? inner : ab_os_default()};
    /* The real table ignores the os that it is called with, so its other entries can be called
     * with ours; an inner table with a context of its own would not find it. */
    assert_true(fake->inner == ab_os_default());
    fake->os = *fake->inner;
    fake->os.openat = fake_openat;
    (void)snprintf(fake->directory, sizeof(fake->directory), "%s/abode-fake-XXXXXX",
                   temporary != NULL ? temporary : "/tmp");
    assert_non_null(mkdtemp(fake->directory));
}

static int remove_one(const char *path, const struct stat *status, int type, struct FTW *place)
{
    (void)status;
    (void)type;
    (void)place;
    return remove(path);
}

void fake_root_free(struct fake_root *fake)
{
    assert_int_equal(nftw(fake->directory, remove_one, OPEN_FILES_MAX, FTW_DEPTH | FTW_PHYS), 0);
}

void fake_root_cover(struct fake_root *fake, const char *path)
{
    assert_true(fake->cover_count < FAKE_COVERS_MAX);
    (void)snprintf(fake->covers[fake->cover_count++], FAKE_PATH_MAX, "%s", path);
}

/* the real path, with all directories above it made */
static void place(const struct fake_root *fake, const char *path, char ret[2 * FAKE_PATH_MAX])
{
    (void)snprintf(ret, 2 * FAKE_PATH_MAX, "%s%s", fake->directory, path);
    for (char *slash = strchr(ret + strlen(fake->directory) + 1, '/'); slash != NULL;
         slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        (void)mkdir(ret, 0755); /* mostly there already */
        *slash = '/';
    }
}

void fake_root_file(struct fake_root *fake, const char *path, const char *text)
{
    char real[2 * FAKE_PATH_MAX];
    place(fake, path, real);
    FILE *file = fopen(real, "we");
    assert_non_null(file);
    assert_true(fputs(text, file) >= 0);
    assert_int_equal(fclose(file), 0);
}

void fake_root_directory(struct fake_root *fake, const char *path)
{
    char real[2 * FAKE_PATH_MAX];
    place(fake, path, real);
    (void)mkdir(real, 0755);
    assert_int_equal(access(real, X_OK), 0);
}

void fake_root_link(struct fake_root *fake, const char *path, const char *target)
{
    char real[2 * FAKE_PATH_MAX];
    place(fake, path, real);
    assert_int_equal(symlink(target, real), 0);
}
