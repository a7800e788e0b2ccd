/*
 * fio.c - see fio.h.
 */
#include "fio.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define JSON_BYTES_MAX 65536
#define CHUNK_BYTES (16u << 20) /* the file is written in such pieces */

bool fio_is_there(void)
{
    return system("command -v fio >/dev/null 2>&1") == 0; // NOLINT(cert-env33-c): a bench
}

static int file_write(int fd, uint64_t bytes)
{
    void *chunk;
    int code = bench_memory_get(CHUNK_BYTES, &chunk);
    if (code < 0) {
        return code;
    }
    for (uint64_t offset = 0; offset < bytes && code == 0; offset += CHUNK_BYTES) {
        const size_t count = bytes - offset < CHUNK_BYTES ? bytes - offset : CHUNK_BYTES;
        bench_fill(chunk, count, offset);
        errno = EIO;
        code = pwrite(fd, chunk, count, (off_t)offset) == (ssize_t)count ? 0 : -errno;
    }
    bench_memory_put(chunk, CHUNK_BYTES);
    return code == 0 && fsync(fd) != 0 ? -errno : code;
}

int fio_open(const struct bench_run *run, struct fio_plan *plan)
{
    int code = bench_directory_make(run, "fio", plan->dir);
    if (code < 0) {
        return code;
    }
    (void)snprintf(plan->path, sizeof(plan->path), "%s/file", plan->dir);
    const int fd = open(plan->path, O_RDWR | O_CREAT | O_EXCL | O_DIRECT | O_CLOEXEC, 0600);
    code = fd < 0 ? -errno : file_write(fd, plan->bytes);
    if (fd >= 0) {
        (void)close(fd);
    }
    if (code < 0) {
        fio_close(plan);
    }
    return code;
}

void fio_close(struct fio_plan *plan)
{
    if (plan->dir[0] != '\0') {
        (void)bench_directory_remove(plan->dir);
        plan->dir[0] = '\0';
    }
}

/* The number after "key" : at or after `from`; false: not there. */
static bool json_number(const char *from, const char *key, double *ret)
{
    const char *at = from == NULL ? NULL : strstr(from, key);
    const char *colon = at == NULL ? NULL : strchr(at, ':');
    if (colon == NULL) {
        return false;
    }
    char *end = NULL;
    const double value = strtod(colon + 1, &end);
    if (end == colon + 1) {
        return false;
    }
    *ret = value;
    return true;
}

/* From what fio says of its one job: bytes moved, seconds, CPU of the job's process. */
static int fio_parse(const char *path, bool is_write, struct bench_sample *ret)
{
    char *text = calloc(1, JSON_BYTES_MAX);
    FILE *file = text == NULL ? NULL : fopen(path, "re");
    if (file == NULL) {
        free(text);
        return -EIO;
    }
    const size_t count = fread(text, 1, JSON_BYTES_MAX - 1, file);
    (void)fclose(file);
    text[count] = '\0';
    const char *section = strstr(text, is_write ? "\"write\" :" : "\"read\" :");
    double bytes, rate, user, system, runtime_ms;
    const bool good = json_number(section, "\"io_bytes\"", &bytes) &&
                      json_number(section, "\"bw_bytes\"", &rate) && rate > 0 &&
                      json_number(text, "\"usr_cpu\"", &user) &&
                      json_number(text, "\"sys_cpu\"", &system) &&
                      json_number(text, "\"job_runtime\"", &runtime_ms);
    free(text);
    if (!good) {
        return -EPROTO;
    }
    *ret = (struct bench_sample){
        .seconds = bytes / rate,
        .cpu_s = (user + system) / 100 * runtime_ms / 1000,
        .bytes = (uint64_t)bytes,
    };
    return 0;
}

static const char *fio_mode(const struct fio_plan *plan)
{
    if (plan->is_random) {
        return plan->is_write ? "--rw=randwrite" : "--rw=randread";
    }
    return plan->is_write ? "--rw=write" : "--rw=read";
}

static void fio_exec(const struct fio_plan *plan, const char *output)
{
    char file[BENCH_PATH_MAX + 64], out[BENCH_PATH_MAX + 64], block[32], depth[32], size[48],
        seed[48];
    (void)snprintf(file, sizeof(file), "--filename=%s", plan->path);
    (void)snprintf(out, sizeof(out), "--output=%s", output);
    (void)snprintf(block, sizeof(block), "--bs=%u", plan->block_bytes);
    (void)snprintf(depth, sizeof(depth), "--iodepth=%u", plan->depth);
    (void)snprintf(size, sizeof(size), "--size=%llu", (unsigned long long)plan->bytes);
    (void)snprintf(seed, sizeof(seed), "--randseed=%u", (uint32_t)plan->seed | 1);
    /* glibc asks for huge pages behind malloc: fio 3.33 has no option for transparent ones */
    (void)setenv("GLIBC_TUNABLES", "glibc.malloc.hugetlb=1", 1);
    (void)execlp("fio", "fio", "--name=bench", file, out, block, depth, size, seed, fio_mode(plan),
                 plan->has_sync ? "--end_fsync=1" : "--end_fsync=0", "--ioengine=io_uring",
                 "--fixedbufs=1", "--registerfiles=1", "--direct=1", "--mem=malloc",
                 "--iomem_align=2m", "--invalidate=0", "--overwrite=1", "--fallocate=none",
                 "--scramble_buffers=0", "--output-format=json", (char *)NULL);
    _exit(127);
}

int fio_run(void *context, struct bench_sample *ret_sample)
{
    struct fio_plan *plan = context;
    (void)bench_random(&plan->seed);
    char output[BENCH_PATH_MAX + 16];
    (void)snprintf(output, sizeof(output), "%s/fio.json", plan->dir);
    const pid_t child = fork();
    if (child < 0) {
        return -errno;
    }
    if (child == 0) {
        fio_exec(plan, output);
    }
    int status = 0;
    if (waitpid(child, &status, 0) != child || !WIFEXITED(status)) {
        return -ECHILD;
    }
    if (WEXITSTATUS(status) != 0) {
        return WEXITSTATUS(status) == 127 ? -ENOENT : -EIO;
    }
    return fio_parse(output, plan->is_write, ret_sample);
}
