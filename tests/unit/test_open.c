/*
 * test_open.c - abode_open on everything that is not a good store of ours.
 *
 * Goal: an error that names the thing and the mend, in the log, and not a byte changed: what was in
 * the directory is there afterwards, and a good open still finds every session. Method: spoil a
 * store or its surroundings in one way at a time; the tree is listed with sizes and checksums before
 * and after.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
// clang-format off
#include <cmocka.h>
// clang-format on

#include "api_fixture.h"
#include "base/hash.h"

/* ---- what is in a directory ---- */

static uint64_t file_hash(const char *path)
{
    static unsigned char buffer[1 << 16];
    uint64_t hash = 0;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        return 0;
    }
    for (ssize_t got = 1; got > 0;) {
        got = read(fd, buffer, sizeof(buffer));
        hash = got > 0 ? ab_hash64(buffer, (size_t)got, hash + 1) : hash;
    }
    (void)close(fd);
    return hash;
}

/* names, sizes and contents, order aside; the lock file may come and go */
static uint64_t tree_hash(const char *path)
{
    uint64_t sum = 0;
    DIR *directory = opendir(path);
    if (directory == NULL) {
        return 0;
    }
    for (const struct dirent *entry = readdir(directory); entry != NULL;
         entry = readdir(directory)) {
        char name[1024];
        struct stat status;
        (void)snprintf(name, sizeof(name), "%s/%s", path, entry->d_name);
        if (entry->d_name[0] == '.' || strstr(entry->d_name, "lock") != NULL ||
            lstat(name, &status) != 0) {
            continue;
        }
        uint64_t below = S_ISDIR(status.st_mode) ? tree_hash(name) : file_hash(name);
        sum += ab_hash64(name, strlen(name), below) | 1;
    }
    (void)closedir(directory);
    return sum;
}

static void path_in(const struct api *api, const char *name, char *ret, size_t size)
{
    (void)snprintf(ret, size, "%s/%s", api->directory, name);
}

static void file_write(const char *path, const void *bytes, size_t size, off_t at)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    assert_int_equal(pwrite(fd, bytes, size, at), size);
    (void)close(fd);
}

/* a store with two sessions, closed */
static void store_make(struct api *api)
{
    api_open(api);
    for (uint32_t i = 1; i <= 2; i++) {
        struct abode_session session = api_create(api, api->hybrid, i);
        api_turn(api, session, i, 30);
        assert_int_equal(api_detach(api, session, 0), 0);
    }
    api_close(api);
}

static void store_is_good(struct api *api)
{
    api_open(api);
    for (uint32_t i = 1; i <= 2; i++) {
        struct abode_session session = api_find(api, i);
        assert_int_equal(api_attach(api, session, 0), 0);
        api_check(api, session, i, 30);
        assert_int_equal(api_detach(api, session, 0), 0);
    }
    struct api_damage damage;
    assert_int_equal(api_verify(api, &damage), 0);
    api_close(api);
}

/* refused with this code, and a line that names `names` and holds `mend`; nothing was touched */
static void refused(struct api *api, int expected, const char *names, const char *mend)
{
    uint64_t before = tree_hash(api->directory);
    int status = api_try_open(api);
    if (status != expected) {
        print_error("%d instead of %d; log: %s\n", status, expected, api->log);
    }
    assert_int_equal(status, expected);
    assert_null(api->runtime);
    assert_true(api_logged(api, names));
    assert_true(api_logged(api, mend));
    assert_int_equal(tree_hash(api->directory), before);
    assert_int_equal(fault_os_allocations(&api->fault), 0);
}

/* ---- directories ---- */

static void directories_that_are_not_there(void **state)
{
    struct api *api = *state;
    char path[128];
    path_in(api, "missing", path, sizeof(path));
    api->paths[0] = path;
    api->config.flags = 0; /* ABODE_CREATE would make the last part of the path */
    refused(api, -ENOENT, path, "make the directory, or mount its disk");
    path_in(api, "file", path, sizeof(path));
    file_write(path, "x", 1, 0);
    refused(api, -ENOTDIR, path, "make the directory");
    api->config.flags = ABODE_CREATE;
    refused(api, -ENOTDIR, path, "make the directory");
    path_in(api, "no/such/path", path, sizeof(path));
    refused(api, -ENOENT, path, "make the directory");
    api->paths[0] = "/proc/self/fd";
    assert_true(api_try_open(api) < 0);
    assert_true(api_logged(api, "/proc/self/fd"));
}

static void no_store_and_not_allowed_to_make_one(void **state)
{
    struct api *api = *state;
    api->config.flags = 0;
    refused(api, -ABODE_ESTORE, api->directory, "allow to create one");
    api->config.flags = ABODE_READ_ONLY;
    refused(api, -ABODE_ESTORE, api->directory, "there is no store here");
}

static void somebody_elses_directory(void **state)
{
    struct api *api = *state;
    char path[128];
    path_in(api, "thesis.tex", path, sizeof(path));
    file_write(path, "years of work", 13, 0);
    refused(api, -ABODE_ESTORE, api->directory, "give an empty directory");
    struct stat status;
    assert_int_equal(stat(path, &status), 0);
}

static void one_directory_twice(void **state)
{
    struct api *api = *state;
    char again[128];
    (void)snprintf(again, sizeof(again), "%s/.", api->directory);
    api->paths[1] = again; /* spelt otherwise */
    api->config.store_path_count = 2;
    refused(api, -ABODE_ESTORE, api->directory, "give each one once");
    api->paths[1] = api->directory;
    refused(api, -ABODE_ESTORE, api->directory, "give each one once");
    api->config.store_path_count = 1;
    store_make(api);
    api->config.store_path_count = 2;
    refused(api, -ABODE_ESTORE, api->directory, "give each one once");
    api->config.store_path_count = 1;
    store_is_good(api);
}

/* two directories, spoilt in what is given */
static void parts_of_stores(void **state)
{
    struct api *api = *state;
    char paths[3][128];
    for (int i = 0; i < 3; i++) {
        char name[8] = {'d', (char)('0' + i), '\0'};
        path_in(api, name, paths[i], sizeof(paths[i]));
        assert_int_equal(mkdir(paths[i], 0700), 0);
        api->paths[i] = paths[i];
    }
    api->config.store_path_count = 2;
    store_make(api);
    api->config.store_path_count = 1;
    refused(api, -ABODE_ESTORE, paths[0], "give all of them");
    api->config.store_path_count = 3; /* the third is empty */
    refused(api, -ABODE_ESTORE, paths[2], "give the right directory");
    api->paths[0] = paths[2];
    api->config.store_path_count = 1;
    store_make(api); /* a second store, in d2 */
    api->paths[0] = paths[0];
    api->paths[1] = paths[2];
    api->config.store_path_count = 2;
    refused(api, -ABODE_ESTORE, paths[2], "give the directories of one store");
    char moved[160];
    (void)snprintf(moved, sizeof(moved), "%s.moved", paths[1]);
    api->paths[1] = paths[1];
    assert_int_equal(rename(paths[1], moved), 0);
    api->config.flags = 0;
    refused(api, -ENOENT, paths[1], "mount its disk");
    api->config.flags = ABODE_CREATE;
    assert_int_equal(mkdir(paths[1], 0700), 0); /* the empty mount point */
    refused(api, -ABODE_ESTORE, paths[1], "mount its disk");
    assert_int_equal(rmdir(paths[1]), 0);
    assert_int_equal(rename(moved, paths[1]), 0);
    store_is_good(api);
    api->paths[0] = paths[1]; /* any order will do */
    api->paths[1] = paths[0];
    store_is_good(api);
}

static void missing_pieces(void **state)
{
    struct api *api = *state;
    static const struct {
        const char *piece;
        int status;
        const char *mend;
    } rows[] = {
        {"superblock", -ABODE_ESTORE, "bring the file back"},
        {"segments", -ABODE_ESTORE, "bring it back"},
    };
    store_make(api);
    for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
        char path[128], away[160];
        path_in(api, rows[i].piece, path, sizeof(path));
        (void)snprintf(away, sizeof(away), "%s.away", api->directory);
        assert_int_equal(rename(path, away), 0);
        refused(api, rows[i].status, api->directory, rows[i].mend);
        assert_int_equal(rename(away, path), 0);
        store_is_good(api);
    }
    char journals[2][128], away[160];
    path_in(api, "journal.a", journals[0], sizeof(journals[0]));
    path_in(api, "journal.b", journals[1], sizeof(journals[1]));
    for (int i = 0; i < 2; i++) {
        (void)snprintf(away, sizeof(away), "%s.away%d", api->directory, i);
        (void)rename(journals[i], away);
    }
    refused(api, -ABODE_ESTORE, "journal", "bring the file back from a backup");
    for (int i = 0; i < 2; i++) {
        (void)snprintf(away, sizeof(away), "%s.away%d", api->directory, i);
        (void)rename(away, journals[i]);
    }
    store_is_good(api);
}

static void garbage_in_the_superblock(void **state)
{
    struct api *api = *state;
    char path[128];
    static unsigned char saved[4 * 4096], garbage[4 * 4096];
    store_make(api);
    path_in(api, "superblock", path, sizeof(path));
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    assert_int_equal(read(fd, saved, sizeof(saved)), sizeof(saved));
    (void)close(fd);
    for (uint32_t fill = 0; fill < 3; fill++) {
        api_token_bytes(fill, 0, 0, garbage, sizeof(garbage));
        if (fill == 1) {
            memset(garbage, 0, sizeof(garbage));
        }
        file_write(path, garbage, sizeof(garbage), 0);
        uint64_t before = tree_hash(api->directory);
        int status = api_try_open(api);
        assert_true(status == -ABODE_ESTORE || status == -ABODE_ECORRUPT ||
                    status == -ABODE_EFORMAT);
        assert_true(api_logged(api, "superblock"));
        assert_int_equal(tree_hash(api->directory), before);
    }
    file_write(path, saved, sizeof(saved), 0);
    store_is_good(api);
    for (uint32_t copy = 0; copy < 4; copy++) { /* one bad copy is no matter */
        file_write(path, garbage, 100, (off_t)copy * 4096);
        store_is_good(api);
    }
}

/* ---- machines and sizes ---- */

/* An engine that was asked for by name and cannot be had: nothing is left of the attempt. */
static void no_ring_to_be_had(void **state)
{
    static const enum ab_os_call calls[] = {AB_OS_RING_INIT, AB_OS_EVENTFD};
    struct api *api = *state;
    store_make(api);
    api->config.io = ABODE_IO_URING;
    for (uint32_t i = 0; i < 2; i++) {
        fault_os_plan(&api->fault,
                      (struct fault_plan){.call = calls[i], .kind = FAULT_ERROR, .error = EIO});
        assert_true(api_try_open(api) < 0); /* -EPERM and its like where there is no io_uring */
        assert_null(api->runtime);
        assert_true(api_logged(api, "io_uring refused"));
        fault_os_clear(&api->fault);
        assert_int_equal(fault_os_allocations(&api->fault), 0);
        assert_int_equal(fault_os_mapped(&api->fault), 0);
    }
    api->config.io = ABODE_IO_AUTO;
    store_is_good(api);
}

/* A model whose memory cannot be had costs nothing, and can be declared later. */
static void model_tables_that_cannot_be_mapped(void **state)
{
    struct api *api = *state;
    uint64_t refused_count = 0;
    for (uint64_t nth = 1; nth < 100; nth++) {
        assert_int_equal(api_try_open(api), 0);
        struct abode_model_desc desc = api_hybrid_desc(api);
        const uint64_t before = fault_os_count(&api->fault, AB_OS_MMAP);
        fault_os_plan(&api->fault,
                      (struct fault_plan){
                          .call = AB_OS_MMAP, .kind = FAULT_ERROR, .error = EAGAIN, .nth = nth});
        int status = abode_model_add(api->runtime, &desc, &api->hybrid);
        const bool is_over = nth > fault_os_count(&api->fault, AB_OS_MMAP) - before;
        fault_os_clear(&api->fault);
        if (status != 0) {
            refused_count++;
            assert_int_equal(abode_model_add(api->runtime, &desc, &api->hybrid), 0);
        }
        assert_int_equal(abode_close(api->runtime), 0);
        api->runtime = NULL;
        assert_int_equal(fault_os_allocations(&api->fault), 0);
        assert_int_equal(fault_os_mapped(&api->fault), 0);
        if (is_over) {
            break;
        }
        api_remove_tree(api->directory); /* a new store: the next one does not know the model */
        assert_int_equal(mkdir(api->directory, 0700), 0);
    }
    assert_true(refused_count > 0);
}

static void topologies_of_elsewhere(void **state)
{
    struct api *api = *state;
    char path[128];
    store_make(api);
    api->config.topology = "synthetic:pack:4 [numa] core:2 pu:1";
    store_is_good(api); /* another machine: the state is the same */
    api->config.topology = "synthetic:no such thing";
    refused(api, -EINVAL, "no such thing", "not a synthetic topology");
    path_in(api, "machine.xml", path, sizeof(path));
    api->config.topology = path;
    refused(api, -ENOENT, path, "no such file");
    char elsewhere[128];
    (void)snprintf(elsewhere, sizeof(elsewhere), "%s.xml", api->directory);
    file_write(elsewhere, "<topology>half a", 16, 0);
    api->config.topology = elsewhere;
    int status = api_try_open(api);
    assert_true(status < 0);
    assert_true(api_logged(api, elsewhere));
    (void)unlink(elsewhere);
    api->config.topology = NULL;
    api->config.node_mask = 1ull << 63;
    refused(api, -EINVAL, "node_mask", "allowed are");
    api->config.node_mask = 0;
    store_is_good(api);
}

static void absurd_sizes(void **state)
{
    struct api *api = *state;
    static const uint32_t segment_sizes[] = {1,          4096,      (1u << 20) - 1, (1u << 20) + 1,
                                             257u << 20, UINT32_MAX};
    for (size_t i = 0; i < sizeof(segment_sizes) / sizeof(*segment_sizes); i++) {
        api->config.segment_bytes = segment_sizes[i];
        refused(api, -EINVAL, "segment_bytes", "1 MiB");
    }
    api->config.segment_bytes = 1u << 20;
    api->config.store_bytes_max = 1;
    uint64_t before = tree_hash(api->directory);
    assert_int_equal(api_try_open(api), -EINVAL);
    assert_true(api_logged(api, "raise it"));
    (void)before; /* a store may have been made: it is empty, and used by the next open */
    api->config.store_bytes_max = 64u << 20;
    store_make(api);
    store_is_good(api);
}

static void models_that_do_not_fit(void **state)
{
    struct api *api = *state;
    uint32_t model = 77;
    api->hybrid_bytes = api->paged_bytes = 0;
    api_open(api);
    static const struct abode_plane good_plane = {4096, 0}, no_bytes = {0, 0}, odd = {64, 3},
                                    coarse = {64, 8192}, huge = {UINT32_MAX, 0};
    const struct abode_component paged = {
        .kind = ABODE_PAGED, .plane_count = 1, .planes = &good_plane};
    const struct abode_model_desc good = {.struct_size = sizeof(good),
                                          .component_count = 1,
                                          .components = &paged,
                                          .block_tokens = 8,
                                          .session_tokens_max = 1024};
    struct abode_component components[10] = {paged, paged, paged, paged, paged,
                                             paged, paged, paged, paged, paged};
    components[0].kind = 0;
    components[1].kind = 5;
    components[2].plane_count = 0;
    components[3].planes = NULL;
    components[4].plane_count = ABODE_PLANES_MAX + 1;
    components[5].planes = &no_bytes;
    components[6].planes = &odd;
    components[7].planes = &coarse;
    components[8].planes = &huge;
    components[9].kind = ABODE_WINDOW; /* without a window */
    for (size_t i = 0; i < 10; i++) {
        struct abode_model_desc desc = good;
        desc.components = &components[i];
        assert_int_equal(abode_model_add(api->runtime, &desc, &model), -EINVAL);
        assert_true(api_logged(api, "model:"));
    }
    struct abode_model_desc descs[8] = {good, good, good, good, good, good, good, good};
    descs[0].struct_size--;
    descs[1].component_count = 0;
    descs[2].component_count = ABODE_COMPONENTS_MAX + 1;
    descs[3].components = NULL;
    descs[4].block_tokens = 0;
    descs[5].block_tokens = 65537;
    descs[6].reserved = 1;
    descs[7].session_tokens_max = UINT64_MAX;
    for (size_t i = 0; i < 8; i++) {
        assert_int_equal(abode_model_add(api->runtime, &descs[i], &model), -EINVAL);
    }
    struct abode_model_desc desc = good;
    desc.memory_bytes = api->config.memory_bytes_max + 1;
    assert_int_equal(abode_model_add(api->runtime, &desc, &model), -ENOMEM);
    assert_true(api_logged(api, "memory_bytes_max"));
    desc.memory_bytes = 100; /* less than a frame */
    assert_int_equal(abode_model_add(api->runtime, &desc, &model), -ENOMEM);
    assert_true(api_logged(api, "raise"));
    assert_int_equal(model, 77);
    desc.memory_bytes = 0; /* after all these: all of it is still there */
    assert_int_equal(abode_model_add(api->runtime, &desc, &model), 0);
    desc.tag[0] = 1;
    assert_int_equal(abode_model_add(api->runtime, &desc, &model), -ENOMEM);
}

/* ---- two processes ---- */

static void second_opener_is_refused(void **state)
{
    struct api *api = *state;
    store_make(api);
    api_open(api);
    struct abode *second = NULL;
    assert_int_equal(abode_open(&api->config, &second), -ABODE_ELOCKED); /* the same process */
    assert_null(second);
    (void)fflush(NULL);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        struct abode_config config = api->config;
        config.log = NULL;
        int status = abode_open(&config, &second);
        _exit(status == -ABODE_ELOCKED ? 0 : 1);
    }
    int status = 0;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    assert_true(api_logged(api, "in use by another process"));
    struct abode_session session = api_find(api, 1);
    assert_int_equal(api_attach(api, session, 0), 0);
    api_check(api, session, 1, 30);
}

static void reader_beside_a_writer(void **state)
{
    struct api *api = *state;
    store_make(api);
    api_open(api);
    struct abode_config config = api->config;
    config.flags = ABODE_READ_ONLY;
    struct abode *reader = NULL;
    assert_int_equal(abode_open(&config, &reader), 0);
    /* the writer goes on: the reader's picture is that of its open, or newer, never wrong */
    struct abode_session session = api_find(api, 1), seen;
    assert_int_equal(api_attach(api, session, 0), 0);
    api_turn(api, session, 1, 50);
    assert_int_equal(api_detach(api, session, ABODE_DETACH_SPILL_NOW), 0);
    assert_int_equal(abode_session_delete(api->runtime, api_find(api, 2)), 0);
    assert_int_equal(abode_flush(api->runtime, -1), 0);
    struct abode_key name = api_name(1);
    struct abode_session_info info;
    struct abode_verify_report report;
    assert_int_equal(abode_session_find(reader, &name, &seen), 0);
    assert_int_equal(abode_session_stat(reader, seen, &info), 0);
    assert_int_equal(info.token_count, 30);
    assert_int_equal(abode_verify(reader, NULL, NULL, NULL, &report), 0);
    assert_int_equal(report.blocks_bad, 0);
    /* and it cannot do harm */
    struct abode_queue *queue = NULL;
    uint32_t model;
    struct abode_model_desc desc = api_hybrid_desc(api);
    struct abode_session_opts opts = {.struct_size = sizeof(opts), .home_node = -1};
    assert_int_equal(abode_queue_open(reader, 4, &queue), -EROFS);
    assert_int_equal(abode_model_add(reader, &desc, &model), -EROFS);
    assert_int_equal(abode_session_create(reader, &opts, &seen), -EROFS);
    assert_int_equal(abode_session_delete(reader, seen), -EROFS);
    assert_int_equal(abode_session_note_set(reader, seen, "x", 1), -EROFS);
    assert_true(abode_session_fork(reader, seen, 0, NULL, &seen) < 0);
    assert_true(abode_session_truncate(reader, seen, 0) < 0);
    abode_advise(reader, seen, ABODE_WILL_NEED, 1);
    assert_int_equal(abode_flush(reader, -1), 0);
    assert_int_equal(abode_close(reader), 0);
    assert_int_equal(api_attach(api, session, 0), 0);
    api_check(api, session, 1, 80);
}

/* ---- while it runs ---- */

static void directory_vanishes_while_running(void **state)
{
    struct api *api = *state;
    char away[160];
    api_open(api);
    struct abode_session session = api_create(api, api->hybrid, 1);
    api_turn(api, session, 1, 30);
    assert_int_equal(api_detach(api, session, 0), 0);
    (void)snprintf(away, sizeof(away), "%s.away", api->directory);
    assert_int_equal(rename(api->directory, away), 0);
    /* files that are open live on; what cannot be had is an error of the op, not of the process */
    int status = api_attach(api, session, 0);
    if (status == 0) {
        api_check(api, session, 1, 30);
        for (uint32_t i = 0; i < 8 && status == 0; i++) {
            api_turn(api, session, 1, 40);
            status = api_detach(api, session, ABODE_DETACH_SPILL_NOW);
            status = status != 0 ? status : api_attach(api, session, 0);
        }
    }
    assert_int_equal(rename(away, api->directory), 0);
    api_reopen(api);
    session = api_find(api, 1);
    assert_int_equal(api_attach(api, session, 0), 0);
    uint64_t tokens = api_tokens(api, session);
    assert_true(tokens >= 30 && tokens % 40 == 30);
    api_check(api, session, 1, tokens);
}

/* Bug: a path with bytes that are no UTF-8 came out as they were, and no JSON reader took the line. */
static int line_is_json(void *context, const char *text, size_t size)
{
    json_error_t error;
    json_t *line = json_loadb(text, size, 0, &error);
    const char *path = json_string_value(json_object_get(line, "path"));
    assert_non_null(line);
    if (path != NULL) {
        (void)snprintf(context, 256, "%s", path);
    }
    json_decref(line);
    return 0;
}

static void paths_that_are_no_text_in_reports(void **state)
{
    /* quotes and controls; characters of 2, 3 and 4 bytes; a stray byte, a cut one, an overlong one,
     * a surrogate, one beyond Unicode */
    static const char *const odd[][2] = {
        {"a\"b\\c\n\x01", "a\"b\\c\n\x01"},
        {"\xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80", "\xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80"},
        {"x\xff\xc3", "x\xef\xbf\xbd\xef\xbf\xbd"},
        {"\xc0\xaf", "\xef\xbf\xbd\xef\xbf\xbd"},
        {"\xe0\x80\xaf", "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd"},
        {"\xed\xa0\x80", "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd"},
        {"\xf4\x90\x80\x80", "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd"},
    };
    struct api *api = *state;
    for (size_t i = 0; i < sizeof(odd) / sizeof(odd[0]); i++) {
        char path[256], wanted[256], told[256] = "";
        (void)snprintf(path, sizeof(path), "%s/%s", api->directory, odd[i][0]);
        (void)snprintf(wanted, sizeof(wanted), "%s/%s", api->directory, odd[i][1]);
        api->paths[0] = path;
        api_open(api);
        assert_int_equal(abode_inspect(api->runtime, line_is_json, told), 0);
        assert_string_equal(told, wanted);
        api_close(api);
    }
    api->paths[0] = api->directory;
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, api_up, api_down)
    const struct CMUnitTest tests[] = {
        TEST(directories_that_are_not_there),
        TEST(no_store_and_not_allowed_to_make_one),
        TEST(somebody_elses_directory),
        TEST(one_directory_twice),
        TEST(parts_of_stores),
        TEST(missing_pieces),
        TEST(garbage_in_the_superblock),
        TEST(no_ring_to_be_had),
        TEST(model_tables_that_cannot_be_mapped),
        TEST(topologies_of_elsewhere),
        TEST(absurd_sizes),
        TEST(models_that_do_not_fit),
        TEST(second_opener_is_refused),
        TEST(reader_beside_a_writer),
        TEST(directory_vanishes_while_running),
        TEST(paths_that_are_no_text_in_reports),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
