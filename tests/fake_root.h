/*
 * fake_root.h - a `struct ab_os` that shows the code under test other files than the machine's.
 *
 *     struct fake_root fake;
 *     fake_root_init(&fake, NULL);                               NULL: over the real table
 *     fake_root_cover(&fake, "/sys/block");                      nothing there, from now on
 *     fake_root_file(&fake, "/sys/block/sdx/size", "2048\n");    but this
 *     ... give &fake.os, or a fault_os over it, to the code under test ...
 *     fake_root_free(&fake);
 *
 * A path at or below a covered one is opened in a temporary directory; symbolic links made with
 * fake_root_link work as long as they are relative. All other calls go to the inner table.
 */
#ifndef AB_TESTS_FAKE_ROOT_H
#define AB_TESTS_FAKE_ROOT_H

#include <stdint.h>

#include "base/os.h"

#define FAKE_COVERS_MAX 8
#define FAKE_PATH_MAX 256

struct fake_root {
    struct ab_os os; /* give its address to the code under test */
    const struct ab_os *inner;
    char directory[FAKE_PATH_MAX];
    char covers[FAKE_COVERS_MAX][FAKE_PATH_MAX];
    uint32_t cover_count;
};

/* All of these end the test when the temporary directory cannot be written. */
void fake_root_init(struct fake_root *fake, const struct ab_os *inner);
void fake_root_free(struct fake_root *fake);
void fake_root_cover(struct fake_root *fake, const char *path);
void fake_root_file(struct fake_root *fake, const char *path, const char *text);
void fake_root_directory(struct fake_root *fake, const char *path);
void fake_root_link(struct fake_root *fake, const char *path, const char *target);

#endif
