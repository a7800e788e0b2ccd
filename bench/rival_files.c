/*
 * rival_files.c - a file per object: what a host does without a store.
 *
 * buffered: one thread, through the page cache, fdatasync of each file.
 * direct:   four threads, O_DIRECT both ways; what a careful host does.
 * A batch is durable when its files are, and their names: one fsync of the directory at its end.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <unistd.h>

#include "rivals.h"

/* ---- batches, for all rivals ------------------------------------------------------------------- */
struct crew {
    const struct rival_job *job;
    rival_work *work;
    void *context;
    atomic_uint next; /* first object that nobody has taken; relaxed: nothing is published by it */
    atomic_int failed;
};

static void *crew_run(void *argument)
{
    struct crew *crew = argument;
    const struct rival_job *job = crew->job;
    while (atomic_load_explicit(&crew->failed, memory_order_relaxed) == 0) {
        const uint32_t first =
            atomic_fetch_add_explicit(&crew->next, job->batch_count, memory_order_relaxed);
        if (first >= job->object_count) {
            break;
        }
        const uint32_t left = job->object_count - first;
        const int code = crew->work(job, crew->context, first,
                                    left < job->batch_count ? left : job->batch_count);
        if (code < 0) {
            atomic_store_explicit(&crew->failed, code, memory_order_relaxed);
        }
    }
    return NULL;
}

int rival_threads(const struct rival_job *job, rival_work *work, void *context)
{
    struct crew crew = {.job = job, .work = work, .context = context};
    pthread_t threads[RIVAL_THREADS];
    uint32_t started = 0;
    while (started < RIVAL_THREADS &&
           pthread_create(&threads[started], NULL, crew_run, &crew) == 0) {
        started++;
    }
    for (uint32_t i = 0; i < started; i++) {
        (void)pthread_join(threads[i], NULL);
    }
    return started == RIVAL_THREADS ? atomic_load(&crew.failed) : -EAGAIN;
}

int rival_batches(const struct rival_job *job, rival_work *work, void *context)
{
    struct crew crew = {.job = job, .work = work, .context = context};
    (void)crew_run(&crew);
    return atomic_load(&crew.failed);
}

/* ---- files -------------------------------------------------------------------------------------- */
struct files {
    int dir_fd;
    int flags; /* O_DIRECT or 0 */
};

static void name_make(const struct rival_job *job, uint32_t object,
                      char ret[2 * RIVAL_KEY_BYTES + 1])
{
    const unsigned char *key = rival_key(job, object);
    for (int i = 0; i < RIVAL_KEY_BYTES; i++) {
        (void)snprintf(ret + 2 * i, 3, "%02x", key[i]);
    }
}

static int file_write(const struct files *files, const char *name, const unsigned char *bytes,
                      uint64_t count)
{
    const int fd =
        openat(files->dir_fd, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | files->flags, 0600);
    if (fd < 0) {
        return -errno;
    }
    int code = 0;
    for (uint64_t done = 0; done < count && code == 0;) {
        const ssize_t part = pwrite(fd, bytes + done, count - done, (off_t)done);
        code = part > 0 ? 0 : part < 0 ? -errno : -EIO;
        done += part > 0 ? (uint64_t)part : 0;
    }
    if (code == 0 && fdatasync(fd) != 0) {
        code = -errno;
    }
    (void)close(fd);
    return code;
}

static int file_read(const struct files *files, const char *name, unsigned char *bytes,
                     uint64_t count)
{
    const int fd = openat(files->dir_fd, name, O_RDONLY | O_CLOEXEC | files->flags);
    if (fd < 0) {
        return -errno;
    }
    int code = 0;
    for (uint64_t done = 0; done < count && code == 0;) {
        const ssize_t part = pread(fd, bytes + done, count - done, (off_t)done);
        code = part > 0 ? 0 : part < 0 ? -errno : -EIO;
        done += part > 0 ? (uint64_t)part : 0;
    }
    (void)close(fd);
    return code;
}

static int batch_put(const struct rival_job *job, void *context, uint32_t first, uint32_t count)
{
    const struct files *files = context;
    char name[2 * RIVAL_KEY_BYTES + 1];
    for (uint32_t i = first; i < first + count; i++) {
        name_make(job, i, name);
        const int code =
            file_write(files, name, job->source + i * job->object_bytes, job->object_bytes);
        if (code < 0) {
            return code;
        }
    }
    return fsync(files->dir_fd) == 0 ? 0 : -errno;
}

static int batch_get(const struct rival_job *job, void *context, uint32_t first, uint32_t count)
{
    const struct files *files = context;
    char name[2 * RIVAL_KEY_BYTES + 1];
    for (uint32_t i = first; i < first + count; i++) {
        const uint32_t object = job->order[i];
        name_make(job, object, name);
        const int code =
            file_read(files, name, job->target + object * job->object_bytes, job->object_bytes);
        if (code < 0) {
            return code;
        }
    }
    return 0;
}

static int files_run(const struct rival_job *job, rival_work *work, int flags,
                     struct bench_sample *ret_sample)
{
    struct files files = {.dir_fd = open(job->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC),
                          .flags = flags};
    if (files.dir_fd < 0) {
        return -errno;
    }
    bench_sample_begin(ret_sample);
    const int code =
        flags == 0 ? rival_batches(job, work, &files) : rival_threads(job, work, &files);
    bench_sample_end(ret_sample, rival_bytes(job));
    (void)close(files.dir_fd);
    return code;
}

static int buffered_put(const struct rival_job *job, struct bench_sample *ret_sample)
{
    return files_run(job, batch_put, 0, ret_sample);
}

static int buffered_get(const struct rival_job *job, struct bench_sample *ret_sample)
{
    return files_run(job, batch_get, 0, ret_sample);
}

static int direct_put(const struct rival_job *job, struct bench_sample *ret_sample)
{
    return files_run(job, batch_put, O_DIRECT, ret_sample);
}

static int direct_get(const struct rival_job *job, struct bench_sample *ret_sample)
{
    return files_run(job, batch_get, O_DIRECT, ret_sample);
}

const struct rival rival_files_buffered = {
    .name = "file per object, buffered", .put = buffered_put, .get = buffered_get};
const struct rival rival_files_direct = {
    .name = "file per object, O_DIRECT x4", .put = direct_put, .get = direct_get};
