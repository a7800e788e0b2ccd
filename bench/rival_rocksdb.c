/*
 * rival_rocksdb.c - RocksDB with blob files (Debian librocksdb-dev, its C interface): values outside
 * the tree, no compression, checksums verified; a synced write batch per batch, four threads, so that
 * its group commit has something to group. What its log made durable is flushed into blob files
 * outside the measured part, as a later start would find it.
 */
#include "rivals.h"

#if __has_include(<rocksdb/c.h>)
#include <errno.h>
#include <rocksdb/c.h>
#include <stdlib.h>
#include <string.h>

#define BLOB_BYTES_MIN 4096

struct rocks {
    rocksdb_options_t *options;
    rocksdb_writeoptions_t *write;
    rocksdb_readoptions_t *read;
    rocksdb_t *db;
};

/* takes the text; one line for a person, -EIO for the bench */
static int text_code(char *text)
{
    if (text == NULL) {
        return 0;
    }
    bench_say("RocksDB: %s", text);
    rocksdb_free(text);
    return -EIO;
}

static void rocks_close(struct rocks *rocks)
{
    if (rocks->db != NULL) {
        rocksdb_close(rocks->db);
    }
    rocksdb_readoptions_destroy(rocks->read);
    rocksdb_writeoptions_destroy(rocks->write);
    rocksdb_options_destroy(rocks->options);
}

static int rocks_open(const struct rival_job *job, struct rocks *ret)
{
    struct rocks rocks = {.options = rocksdb_options_create(),
                          .write = rocksdb_writeoptions_create(),
                          .read = rocksdb_readoptions_create()};
    rocksdb_options_set_create_if_missing(rocks.options, 1);
    rocksdb_options_set_compression(rocks.options, rocksdb_no_compression);
    rocksdb_options_set_enable_blob_files(rocks.options, 1);
    rocksdb_options_set_min_blob_size(rocks.options, BLOB_BYTES_MIN);
    rocksdb_options_set_blob_compression_type(rocks.options, rocksdb_no_compression);
    rocksdb_options_increase_parallelism(rocks.options, RIVAL_THREADS);
    rocksdb_writeoptions_set_sync(rocks.write, 1);
    char *text = NULL;
    rocks.db = rocksdb_open(rocks.options, job->dir, &text);
    const int code = text_code(text);
    if (code < 0) {
        rocks_close(&rocks);
        return code;
    }
    *ret = rocks;
    return 0;
}

static int batch_put(const struct rival_job *job, void *context, uint32_t first, uint32_t count)
{
    const struct rocks *rocks = context;
    rocksdb_writebatch_t *batch = rocksdb_writebatch_create();
    for (uint32_t i = first; i < first + count; i++) {
        rocksdb_writebatch_put(batch, (const char *)rival_key(job, i), RIVAL_KEY_BYTES,
                               (const char *)job->source + i * job->object_bytes,
                               job->object_bytes);
    }
    char *text = NULL;
    rocksdb_write(rocks->db, rocks->write, batch, &text);
    rocksdb_writebatch_destroy(batch);
    return text_code(text);
}

static int object_get(const struct rival_job *job, const struct rocks *rocks, uint32_t object)
{
    char *text = NULL;
    rocksdb_pinnableslice_t *slice = rocksdb_get_pinned(
        rocks->db, rocks->read, (const char *)rival_key(job, object), RIVAL_KEY_BYTES, &text);
    int code = text_code(text);
    if (code < 0) {
        return code;
    }
    if (slice == NULL) {
        return -ENOENT;
    }
    size_t bytes;
    const char *value = rocksdb_pinnableslice_value(slice, &bytes);
    if (bytes == job->object_bytes) {
        memcpy(job->target + object * job->object_bytes, value, bytes);
    } else {
        code = -EIO;
    }
    rocksdb_pinnableslice_destroy(slice);
    return code;
}

static int batch_get(const struct rival_job *job, void *context, uint32_t first, uint32_t count)
{
    int code = 0;
    for (uint32_t i = first; i < first + count && code == 0; i++) {
        code = object_get(job, context, job->order[i]);
    }
    return code;
}

static int rocks_flush(const struct rocks *rocks)
{
    rocksdb_flushoptions_t *options = rocksdb_flushoptions_create();
    rocksdb_flushoptions_set_wait(options, 1);
    char *text = NULL;
    rocksdb_flush(rocks->db, options, &text);
    rocksdb_flushoptions_destroy(options);
    return text_code(text);
}

static int rocks_put(const struct rival_job *job, struct bench_sample *ret_sample)
{
    struct rocks rocks;
    int code = rocks_open(job, &rocks);
    if (code < 0) {
        return code;
    }
    bench_sample_begin(ret_sample);
    code = rival_threads(job, batch_put, &rocks);
    bench_sample_end(ret_sample, rival_bytes(job));
    code = code == 0 ? rocks_flush(&rocks) : code;
    rocks_close(&rocks);
    return code;
}

static int rocks_get(const struct rival_job *job, struct bench_sample *ret_sample)
{
    struct rocks rocks;
    int code = rocks_open(job, &rocks);
    if (code < 0) {
        return code;
    }
    bench_sample_begin(ret_sample);
    code = rival_threads(job, batch_get, &rocks);
    bench_sample_end(ret_sample, rival_bytes(job));
    rocks_close(&rocks);
    return code;
}

const struct rival rival_rocksdb = {
    .name = "RocksDB, blob files", .put = rocks_put, .get = rocks_get};
#else
const struct rival rival_rocksdb = {.name = "RocksDB, blob files",
                                    .absent = "librocksdb-dev was not there"};
#endif
