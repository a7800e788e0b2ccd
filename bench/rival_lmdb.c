/*
 * rival_lmdb.c - LMDB (Debian liblmdb-dev): one writer, a transaction a batch, which its commit syncs;
 * four readers, each in its own transaction, copying out of the map (its pointers die with the
 * transaction, and the host wants the bytes in its own memory).
 */
#include "rivals.h"

#if __has_include(<lmdb.h>)
#include <errno.h>
#include <lmdb.h>
#include <string.h>

#define MAP_SPARE_BYTES ((size_t)64 << 20)

struct map {
    MDB_env *env;
    MDB_dbi database;
};

/* its own codes are below -30000; the others are errno */
static int code_of(int code)
{
    return code == MDB_SUCCESS ? 0 : code > 0 ? -code : -EIO;
}

static int map_open(const struct rival_job *job, struct map *ret)
{
    struct map map = {0};
    int code = mdb_env_create(&map.env);
    if (code != MDB_SUCCESS) {
        return code_of(code);
    }
    MDB_txn *txn = NULL;
    code = mdb_env_set_mapsize(map.env, rival_bytes(job) * 2 + MAP_SPARE_BYTES);
    code = code == 0 ? mdb_env_open(map.env, job->dir, 0, 0600) : code;
    code = code == 0 ? mdb_txn_begin(map.env, NULL, 0, &txn) : code;
    code = code == 0 ? mdb_dbi_open(txn, NULL, 0, &map.database) : code;
    code = code == 0 ? mdb_txn_commit(txn) : code;
    if (code != MDB_SUCCESS) {
        mdb_env_close(map.env);
        return code_of(code);
    }
    *ret = map;
    return 0;
}

static MDB_val key_of(const struct rival_job *job, uint32_t object)
{
    unsigned char *key = (unsigned char *)(uintptr_t)rival_key(job, object); /* it only reads */
    return (MDB_val){.mv_size = RIVAL_KEY_BYTES, .mv_data = key};
}

static int batch_put(const struct rival_job *job, void *context, uint32_t first, uint32_t count)
{
    const struct map *map = context;
    MDB_txn *txn;
    int code = mdb_txn_begin(map->env, NULL, 0, &txn);
    if (code != MDB_SUCCESS) {
        return code_of(code);
    }
    for (uint32_t i = first; i < first + count && code == MDB_SUCCESS; i++) {
        MDB_val key = key_of(job, i), value = {.mv_size = job->object_bytes};
        code = mdb_put(txn, map->database, &key, &value, MDB_RESERVE);
        if (code == MDB_SUCCESS) {
            memcpy(value.mv_data, job->source + i * job->object_bytes, job->object_bytes);
        }
    }
    if (code != MDB_SUCCESS) {
        mdb_txn_abort(txn);
        return code_of(code);
    }
    return code_of(mdb_txn_commit(txn));
}

static int batch_get(const struct rival_job *job, void *context, uint32_t first, uint32_t count)
{
    const struct map *map = context;
    MDB_txn *txn;
    int code = mdb_txn_begin(map->env, NULL, MDB_RDONLY, &txn);
    if (code != MDB_SUCCESS) {
        return code_of(code);
    }
    for (uint32_t i = first; i < first + count && code == MDB_SUCCESS; i++) {
        const uint32_t object = job->order[i];
        MDB_val key = key_of(job, object), value;
        code = mdb_get(txn, map->database, &key, &value);
        if (code == MDB_SUCCESS) {
            memcpy(job->target + object * job->object_bytes, value.mv_data, job->object_bytes);
        }
    }
    mdb_txn_abort(txn);
    return code_of(code);
}

static int lmdb_put(const struct rival_job *job, struct bench_sample *ret_sample)
{
    struct map map;
    int code = map_open(job, &map);
    if (code < 0) {
        return code;
    }
    bench_sample_begin(ret_sample);
    code = rival_batches(job, batch_put, &map);
    bench_sample_end(ret_sample, rival_bytes(job));
    mdb_env_close(map.env);
    return code;
}

static int lmdb_get(const struct rival_job *job, struct bench_sample *ret_sample)
{
    struct map map;
    int code = map_open(job, &map);
    if (code < 0) {
        return code;
    }
    bench_sample_begin(ret_sample);
    code = rival_threads(job, batch_get, &map);
    bench_sample_end(ret_sample, rival_bytes(job));
    mdb_env_close(map.env);
    return code;
}

const struct rival rival_lmdb = {.name = "LMDB", .put = lmdb_put, .get = lmdb_get};
#else
const struct rival rival_lmdb = {.name = "LMDB", .absent = "liblmdb-dev was not there"};
#endif
