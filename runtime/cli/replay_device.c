/*
 * replay_device.c - what the device gives to the plainest reader: threads, pread, O_DIRECT.
 *
 * READERS threads take the next mebibyte of the store's own files, in order, into buffers on huge
 * pages. That keeps 8 reads of 1 MiB in flight, the depth that the library uses by default, without
 * any of its code. Where O_DIRECT is refused the files come from the page cache, and it is said.
 */
#include "replay.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define READERS 8
#define READ_BYTES (1u << 20)
#define FILES_MAX 1024
#define ROUND_BYTES_MAX (1ull << 30)
#define ROUND_NS_MAX 2000000000ull
#define ROUNDS 3
#define PATH_BYTES 4608

struct source {
    int fds[FILES_MAX];
    uint32_t first_chunk[FILES_MAX + 1]; /* chunks of all files before */
    uint32_t file_count;
    bool direct;
    uint64_t deadline_ns;
    uint32_t chunk_start, chunk_max; /* of one round */
    _Atomic uint32_t chunk_next;     /* shared by the readers; relaxed: only hands out numbers */
    _Atomic uint32_t failures;       /* relaxed: read after the readers were joined */
    _Atomic uint64_t bytes;          /* likewise */
};

static int file_open(struct source *source, const char *path)
{
    int fd = open(path, O_RDONLY | O_DIRECT | O_CLOEXEC);
    if (fd < 0 && errno == EINVAL) {
        fd = open(path, O_RDONLY | O_CLOEXEC);
        source->direct = false;
    }
    return fd;
}

/* Regular files of at least one chunk in the folder: the segments. */
static void files_find(struct source *source, const char *folder)
{
    DIR *const directory = opendir(folder);

    for (struct dirent *entry; directory != NULL && source->file_count < FILES_MAX &&
                               (entry = readdir(directory)) != NULL;) {
        char path[PATH_BYTES];
        struct stat status;
        if ((size_t)snprintf(path, sizeof(path), "%s/%s", folder, entry->d_name) >= sizeof(path) ||
            stat(path, &status) < 0 || !S_ISREG(status.st_mode) || status.st_size < READ_BYTES) {
            continue;
        }
        const int fd = file_open(source, path);
        if (fd >= 0) {
            const uint32_t n = source->file_count++;
            source->fds[n] = fd;
            source->first_chunk[n + 1] =
                source->first_chunk[n] + (uint32_t)(status.st_size / READ_BYTES);
        }
    }
    if (directory != NULL) {
        (void)closedir(directory);
    }
}

static void chunk_read(struct source *source, uint32_t chunk, unsigned char *buffer)
{
    uint32_t file = 0;
    while (source->first_chunk[file + 1] <= chunk) {
        file++;
    }
    const uint64_t offset = (uint64_t)(chunk - source->first_chunk[file]) * READ_BYTES;
    const ssize_t got = pread(source->fds[file], buffer, READ_BYTES, (off_t)offset);
    if (got < 0) {
        atomic_fetch_add_explicit(&source->failures, 1, memory_order_relaxed);
    } else {
        atomic_fetch_add_explicit(&source->bytes, (uint64_t)got, memory_order_relaxed);
    }
}

static void *reader_run(void *context)
{
    struct source *const source = context;
    const uint32_t chunk_count = source->first_chunk[source->file_count];
    const size_t bytes = 2u << 20; /* one huge page */
    unsigned char *const buffer = aligned_alloc(bytes, bytes);

    if (buffer == NULL) {
        return NULL;
    }
    (void)madvise(buffer, bytes, MADV_HUGEPAGE);
    while (cli_now_ns() < source->deadline_ns) {
        const uint32_t number =
            atomic_fetch_add_explicit(&source->chunk_next, 1, memory_order_relaxed);
        if (number >= source->chunk_max) {
            break;
        }
        chunk_read(source, (source->chunk_start + number) % chunk_count, buffer);
    }
    free(buffer);
    return NULL;
}

/* GB/s of one round; 0: it failed. */
static double round_measure(struct source *source, uint32_t round)
{
    const uint32_t chunk_count = source->first_chunk[source->file_count];
    const uint64_t most = ROUND_BYTES_MAX / READ_BYTES;
    pthread_t threads[READERS];
    uint32_t thread_count = 0;

    source->chunk_max = chunk_count < most ? chunk_count : (uint32_t)most;
    source->chunk_start = (uint32_t)((uint64_t)round * chunk_count / ROUNDS);
    atomic_store_explicit(&source->chunk_next, 0, memory_order_relaxed);
    atomic_store_explicit(&source->bytes, 0, memory_order_relaxed);
    const uint64_t begin = cli_now_ns();
    source->deadline_ns = begin + ROUND_NS_MAX;
    while (thread_count < READERS &&
           pthread_create(&threads[thread_count], NULL, reader_run, source) == 0) {
        thread_count++;
    }
    for (uint32_t i = 0; i < thread_count; i++) {
        (void)pthread_join(threads[i], NULL);
    }
    const double seconds = (double)(cli_now_ns() - begin) / 1e9;
    const bool failed =
        thread_count == 0 || atomic_load_explicit(&source->failures, memory_order_relaxed) > 0;
    return failed
               ? 0
               : (double)atomic_load_explicit(&source->bytes, memory_order_relaxed) / seconds / 1e9;
}

static int rates_compare(const void *left, const void *right)
{
    const double l = *(const double *)left, r = *(const double *)right;
    return (l > r) - (l < r);
}

int replay_device_measure(const char *folder, struct replay_figures *figures)
{
    struct source *const source = cli_alloc(1, sizeof(*source));
    double rates[ROUNDS];
    int rc = 0;

    source->direct = true;
    files_find(source, folder);
    if (source->file_count == 0) {
        rc = -ENOENT;
    }
    for (uint32_t i = 0; i < ROUNDS && rc == 0; i++) {
        rates[i] = round_measure(source, i);
        rc = rates[i] > 0 ? 0 : -EIO;
    }
    if (rc == 0) {
        qsort(rates, ROUNDS, sizeof(rates[0]), rates_compare);
        figures->device_gbps = rates[ROUNDS / 2];
        figures->device_gbps_min = rates[0];
        figures->device_gbps_max = rates[ROUNDS - 1];
        figures->device_direct = source->direct;
    }
    for (uint32_t i = 0; i < source->file_count; i++) {
        (void)close(source->fds[i]);
    }
    free(source);
    return rc;
}
