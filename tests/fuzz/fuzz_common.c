/*
 * fuzz_common.c - what all fuzz targets share: the list of them, random changes, files. See fuzz.h.
 */
#include "fuzz/fuzz.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

extern const struct fuzz_target fuzz_superblock, fuzz_journal, fuzz_recover, fuzz_inspect,
    fuzz_extent, fuzz_config, fuzz_trace, fuzz_topology, fuzz_options;
const struct fuzz_target *const fuzz_targets[] = {
    &fuzz_superblock, &fuzz_journal, &fuzz_recover,  &fuzz_inspect, &fuzz_extent,
    &fuzz_config,     &fuzz_trace,   &fuzz_topology, &fuzz_options, NULL,
};

const struct fuzz_target *fuzz_target_find(const char *name)
{
    for (size_t i = 0; name != NULL && fuzz_targets[i] != NULL; i++) {
        if (strcmp(fuzz_targets[i]->name, name) == 0) {
            return fuzz_targets[i];
        }
    }
    return NULL;
}

_Noreturn void fuzz_fail(const char *file, int line, const char *what)
{
    (void)fprintf(stderr, "%s:%d: expected: %s\n", file, line, what);
    abort();
}

/* ---- random ---- */

uint64_t fuzz_next(struct fuzz_random *random) /* splitmix64 */
{
    random->state += 0x9e3779b97f4a7c15ull;
    uint64_t value = random->state;
    value = (value ^ (value >> 30)) * 0xbf58476d1ce4e5b9ull;
    value = (value ^ (value >> 27)) * 0x94d049bb133111ebull;
    return value ^ (value >> 31);
}

uint32_t fuzz_below(struct fuzz_random *random, uint32_t bound)
{
    return bound == 0 ? 0 : (uint32_t)(fuzz_next(random) % bound);
}

uint32_t fuzz_interesting(struct fuzz_random *random)
{
    const uint32_t near = fuzz_below(random, 3) - 1u;
    switch (fuzz_below(random, 4)) {
    case 0:
        return fuzz_below(random, 9);
    case 1:
        return (1u << fuzz_below(random, 32)) + near;
    case 2:
        return 0u - fuzz_below(random, 3);
    default:
        return fuzz_below(random, 256);
    }
}

static void number_put(uint8_t *bytes, size_t size, struct fuzz_random *random)
{
    const uint32_t value = fuzz_interesting(random);
    const size_t width = (size_t)1 << fuzz_below(random, 3);
    if (size >= width) {
        memcpy(bytes + fuzz_below(random, (uint32_t)(size - width + 1)), &value, width);
    }
}

/* A piece of it is put in once more, somewhere. */
static size_t piece_repeat(uint8_t *bytes, size_t size, size_t capacity, struct fuzz_random *random)
{
    const uint32_t room = (uint32_t)(capacity - size);
    uint32_t count = 1 + fuzz_below(random, (uint32_t)size);
    count = count > room ? room : count;
    const uint32_t from = fuzz_below(random, (uint32_t)(size - count + 1));
    const uint32_t to = fuzz_below(random, (uint32_t)size + 1);
    uint8_t *piece = malloc(count + 1u);
    fuzz_expect(piece != NULL);
    memcpy(piece, bytes + from, count);
    memmove(bytes + to + count, bytes + to, size - to);
    memcpy(bytes + to, piece, count);
    free(piece);
    return size + count;
}

size_t fuzz_mutate_bytes(uint8_t *bytes, size_t size, size_t capacity, struct fuzz_random *random)
{
    if (size == 0) {
        bytes[0] = (uint8_t)fuzz_next(random);
        return 1;
    }
    const uint32_t at = fuzz_below(random, (uint32_t)size);
    switch (fuzz_below(random, 6)) {
    case 0:
        bytes[at] ^= (uint8_t)(1u << fuzz_below(random, 8));
        return size;
    case 1:
        bytes[at] = (uint8_t)fuzz_next(random);
        return size;
    case 2:
    case 3:
        number_put(bytes, size, random);
        return size;
    case 4: {
        const uint32_t count = 1 + fuzz_below(random, (uint32_t)size - at);
        memmove(bytes + at, bytes + at + count, size - at - count);
        return size - count;
    }
    default:
        return piece_repeat(bytes, size, capacity, random);
    }
}

size_t fuzz_mutate(const struct fuzz_target *target, uint8_t *bytes, size_t size, size_t capacity,
                   struct fuzz_random *random,
                   size_t (*mutate_bytes)(uint8_t *bytes, size_t size, size_t capacity,
                                          struct fuzz_random *random))
{
    const uint32_t rounds = 1 + fuzz_below(random, 4);
    capacity = capacity > target->size_max ? target->size_max : capacity;
    size = size > capacity ? capacity : size;
    for (uint32_t i = 0; i < rounds; i++) {
        const bool knows = target->mutate != NULL && fuzz_below(random, 4) != 0;
        size = knows ? target->mutate(bytes, size, capacity, random)
                     : mutate_bytes(bytes, size, capacity, random);
    }
    if (target->seal != NULL && fuzz_below(random, 16) != 0) { /* else the door is tried */
        size = target->seal(bytes, size);
    }
    return size;
}

bool fuzz_synthetic_is_large(const char *text)
{
    uint64_t product = 1;
    while (*text != '\0' && product <= 4096) {
        char *end = NULL;
        const uint64_t number = *text >= '0' && *text <= '9' ? strtoull(text, &end, 0) : 0;
        product *= number == 0 ? 1 : number > 4096 ? 4097 : number;
        text = end != NULL ? end : text + 1;
    }
    return product > 4096;
}

/* ---- files ---- */

const char *fuzz_memory_file(const void *bytes, size_t size)
{
    static int fd = -1;
    static char path[64];
    if (fd < 0) {
        fd = memfd_create("fuzz", MFD_CLOEXEC);
        fuzz_expect(fd >= 0);
        (void)snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    }
    fuzz_expect(ftruncate(fd, 0) == 0);
    fuzz_expect(pwrite(fd, bytes, size, 0) == (ssize_t)size);
    return path;
}

void fuzz_file_write(const char *path, const void *bytes, size_t size)
{
    const int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    fuzz_expect(fd >= 0);
    fuzz_expect(pwrite(fd, bytes, size, 0) == (ssize_t)size);
    fuzz_expect(ftruncate(fd, (off_t)size) == 0); /* afterwards: pages are used again */
    fuzz_expect(close(fd) == 0);
}

uint8_t *fuzz_file_read(const char *path, size_t *ret_size)
{
    FILE *const file = fopen(path, "rbe");
    if (file == NULL) {
        return NULL;
    }
    fuzz_expect(fseek(file, 0, SEEK_END) == 0);
    const long size = ftell(file);
    fuzz_expect(size >= 0 && fseek(file, 0, SEEK_SET) == 0);
    uint8_t *bytes = malloc((size_t)size + 1);
    fuzz_expect(bytes != NULL && fread(bytes, 1, (size_t)size, file) == (size_t)size);
    (void)fclose(file);
    *ret_size = (size_t)size;
    return bytes;
}

void fuzz_be_silent(void)
{
    static FILE *nowhere;
    if (nowhere == NULL) {
        nowhere = fopen("/dev/null", "we");
        fuzz_expect(nowhere != NULL);
    }
    stdout = nowhere;
    stderr = nowhere;
}
