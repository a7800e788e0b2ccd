/*
 * test_old_stores.c - stores of released formats open with every byte, or are refused and left alone (R16).
 *
 * Goal: what a released version has written is state that somebody goes on from; no later version
 * may read it as something else. Method: the fixtures of this folder (README.md) are unpacked, read
 * by a reader and by a writer, described, and the description is compared with what lies beside them,
 * line by line: sessions, notes, every component's bytes, cache items, by SHA-256. Then headers are
 * changed to say what a later version might say: another version, unknown features.
 *
 * test_old_stores --make KIND DIRECTORY makes the store of a fixture (KIND: closed, killed) with the
 * library of this build, and prints its description; `make` in this folder does the rest. The
 * description comes from the formula of the content (old_store.c), not from the store.
 */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "abode/abode.h"
#include "old_stores/old_store.h"
#include "store/journal.h"
#include "store_client.h"

struct fixture {
    const char *name; /* of its files in this folder */
    uint32_t path_count;
};
static const struct fixture fixtures[] = {{"v1_closed", 2}, {"v1_killed", 1}};

/* ---- reading --------------------------------------------------------------------------------- */

static void rows_find(struct host *host, struct abode_session session, const struct talk *talk,
                      uint32_t component, struct sum *sum)
{
    struct abode_view view = {.struct_size = sizeof(view)};
    assert_int_equal(abode_session_view(host->runtime, session, component, &view), 0);
    assert_int_equal(view.token_count, talk->tokens);
    for (uint32_t t = old_token_first(talk, component); t < talk->tokens; t++) {
        for (uint32_t plane = 0; plane < old_components[component].plane_count; plane++) {
            const uint32_t size =
                old_components[component].planes[plane].bytes_per_block / BLOCK_TOKENS;
            assert_int_not_equal(view.frames[t / BLOCK_TOKENS], ABODE_FRAME_NONE);
            sum_add(sum,
                    abode_view_plane(&view, t / BLOCK_TOKENS, plane) +
                        (size_t)(t % BLOCK_TOKENS) * size,
                    size);
        }
    }
}

static void talk_find(struct host *host, struct text *text, const struct talk *talk)
{
    const struct abode_key name = old_key(talk->name);
    struct abode_session session;
    struct abode_session_info info = {.struct_size = sizeof(info)};
    unsigned char note[CHURN_NOTE_BYTES];
    struct sum sum;
    const int found = abode_session_find(host->runtime, &name, &session);
    if (found == -ENOENT) {
        text_add(text, "session %s gone\n", talk->name);
        return;
    }
    assert_int_equal(found, 0);
    assert_int_equal(host_attach(host, session), 0);
    assert_int_equal(abode_session_stat(host->runtime, session, &info), 0);
    text_add(text, "session %s tenant %u tokens %u\n", talk->name, info.tenant,
             (uint32_t)info.token_count);
    const int size = abode_session_note_get(host->runtime, session, note, sizeof(note));
    sum_begin(&sum);
    sum_add(&sum, note, size < 0 ? 0 : (size_t)size);
    sum_tell(&sum, text, "  note", talk->name);
    const uint32_t count = talk->model == HYBRID ? (uint32_t)COMPONENTS : 1;
    for (uint32_t component = 0; component < count; component++) {
        char what[32];
        (void)snprintf(what, sizeof(what), "  %s", old_component_name(component));
        sum_begin(&sum);
        if (component <= WINDOW) {
            rows_find(host, session, talk, component, &sum);
        } else {
            const void *bytes = NULL;
            size_t bytes_count = 0;
            uint64_t at = 0;
            assert_int_equal(
                abode_snapshot_get(host->runtime, session, component, &bytes, &bytes_count, &at),
                0);
            assert_int_equal(at, talk->tokens);
            sum_add(&sum, bytes, bytes_count);
        }
        sum_tell(&sum, text, what, talk->name);
    }
    assert_int_equal(host_detach(host, session, 0), 0);
}

static void all_find(struct host *host, struct text *text)
{
    text->size = 0;
    for (uint32_t i = 0; i < TALKS; i++) {
        talk_find(host, text, &old_talks[i]);
    }
    const uint32_t region = host_region_add(host);
    for (uint32_t i = 0; i < PIECES; i++) {
        struct abode_item item = {
            .key = old_key(old_pieces[i].name), .bytes = SCRATCH_BYTES, .region = region};
        struct abode_op op = {0};
        struct sum sum;
        memset(host->scratch, 0xa5, SCRATCH_BYTES);
        (void)host_finish(host, &op,
                          abode_cache_get(host->queue, host->models[HYBRID], &item, 1, &op));
        if (item.status == -ENOENT) {
            text_add(text, "item %s gone\n", old_pieces[i].name);
            continue;
        }
        assert_int_equal(item.status, 0);
        sum_begin(&sum);
        sum_add(&sum, host->scratch, item.bytes);
        sum_tell(&sum, text, "item", old_pieces[i].name);
    }
    assert_int_equal(abode_region_remove(host->runtime, region), 0);
}

static const char *folder(void)
{
    static char path[512];
    const char *tree = getenv("ABODE_TREE");
    (void)snprintf(path, sizeof(path), "%s/tests/old_stores", tree != NULL ? tree : ".");
    return path;
}

static void shell(const char *format, ...) __attribute__((format(printf, 1, 2)));
static void shell(const char *format, ...)
{
    char command[1200];
    va_list arguments;
    va_start(arguments, format);
    (void)vsnprintf(command, sizeof(command), format, arguments);
    va_end(arguments);
    assert_int_equal(system(command), 0);
}

/* Names, sizes, times and bytes of all that lies there. */
static void tree_digest(const struct host *host, char ret[65])
{
    char command[256];
    (void)snprintf(command, sizeof(command), "tar --sort=name -C '%s' -cf - . | sha256sum",
                   host->root);
    FILE *pipe = popen(command, "r");
    assert_non_null(pipe);
    assert_int_equal(fread(ret, 1, 64, pipe), 64);
    ret[64] = '\0';
    assert_int_equal(pclose(pipe), 0);
}

static struct host *unpack(const struct fixture *fixture)
{
    struct host *host = test_calloc(1, sizeof(*host));
    char root[64];
    store_test_directory(root);
    host_paths(host, root, fixture->path_count);
    host->scratch = aligned_alloc(4096, SCRATCH_BYTES);
    assert_non_null(host->scratch);
    shell("xz -dc '%s/%s.tar.xz' | tar -C '%s' -xf -", folder(), fixture->name, host->root);
    return host;
}

static void unpacked_remove(struct host *host)
{
    store_test_remove(host->root);
    free(host->scratch);
    test_free(host);
}

static void is_as_expected(const struct text *found, const struct fixture *fixture)
{
    static struct text expected;
    char path[600];
    (void)snprintf(path, sizeof(path), "%s/%s.expected", folder(), fixture->name);
    FILE *file = fopen(path, "r");
    assert_non_null(file);
    expected.size = fread(expected.bytes, 1, sizeof(expected.bytes) - 1, file);
    expected.bytes[expected.size] = '\0';
    (void)fclose(file);
    assert_true(expected.size > 0);
    assert_string_equal(found->bytes, expected.bytes);
}

/* ---- tests ----------------------------------------------------------------------------------- */

static void nothing_is_damaged(struct host *host)
{
    struct abode_verify_report report = {.struct_size = sizeof(report)};
    assert_int_equal(abode_verify(host->runtime, NULL, NULL, NULL, &report), 0);
    assert_true(report.blocks_checked > 0);
    assert_int_equal(report.blocks_bad, 0);
}

static void each_fixture_has_every_byte(void **state)
{
    static struct text found;
    char before[65], after[65];
    (void)state;
    for (uint32_t i = 0; i < AB_COUNT(fixtures); i++) {
        struct host *host = unpack(&fixtures[i]);
        tree_digest(host, before);
        assert_int_equal(host_try_open(host, ABODE_READ_ONLY), 0);
        nothing_is_damaged(host);
        assert_int_equal(abode_close(host->runtime), 0);
        tree_digest(host, after);
        assert_string_equal(after, before); /* a reader touches nothing */
        for (uint32_t opens = 0; opens < 3; opens++) {
            host_open(host, 0);
            all_find(host, &found);
            is_as_expected(&found, &fixtures[i]);
            nothing_is_damaged(host);
            host_close(host);
        }
        unpacked_remove(host);
    }
    print_message("reliability: R16 %zu stores of released formats; no seed; 0 violations\n",
                  AB_COUNT(fixtures));
}

/* An old store is not only read: turns and checkpoints follow. */
static void each_fixture_goes_on(void **state)
{
    static struct text found;
    (void)state;
    for (uint32_t i = 0; i < AB_COUNT(fixtures); i++) {
        struct host *host = unpack(&fixtures[i]);
        const struct talk more = {.name = "later", .model = HYBRID, .tokens = 60, .seed = 97};
        const struct abode_key name = old_key(more.name);
        struct abode_session session;
        struct text expected = {.size = 0}, later = {.size = 0};
        host_open(host, 0);
        session = talk_make(host, &more);
        for (uint32_t k = 0; k < CHURN_COMMITS; k++) {
            note_set(host, session, k, CHURN_NOTE_BYTES);
            assert_int_equal(host_detach(host, session, ABODE_DETACH_KEEP), 0);
        }
        note_set(host, session, more.seed, 0);
        assert_int_equal(host_detach(host, session, 0), 0);
        host_close(host);
        host_open(host, 0);
        all_find(host, &found);
        is_as_expected(&found, &fixtures[i]);
        talk_expect(&expected, &more);
        talk_find(host, &later, &more);
        assert_string_equal(later.bytes, expected.bytes);
        assert_int_equal(abode_session_find(host->runtime, &name, &session), 0);
        assert_int_equal(abode_session_delete(host->runtime, session), 0);
        host_close(host);
        unpacked_remove(host);
    }
}

static int file_open(const struct host *host, uint32_t directory, const char *name)
{
    char path[128];
    (void)snprintf(path, sizeof(path), "%s/%s", host->directories[directory], name);
    return open(path, O_RDWR);
}

/* Copies first .. 3 of the superblock of a directory say this from now on, one write later. */
static void superblock_change(const struct host *host, uint32_t directory, uint32_t version,
                              struct ab_disk_features features, uint32_t copies)
{
    struct ab_disk_superblock superblock;
    const int fd = file_open(host, directory, "superblock");
    assert_int_equal(pread(fd, &superblock, sizeof(superblock), 0), sizeof(superblock));
    superblock.version = version;
    superblock.features = features;
    superblock.sequence++;
    superblock.hash = ab_hash64((uint8_t *)&superblock + 8, sizeof(superblock) - 8, 0);
    for (uint32_t i = 0; i < copies; i++) {
        assert_int_equal(pwrite(fd, &superblock, sizeof(superblock), (off_t)i * AB_PAGE),
                         sizeof(superblock));
    }
    (void)close(fd);
}

static void is_refused(struct host *host, uint32_t flags, const char *text)
{
    char before[65], after[65];
    tree_digest(host, before);
    assert_int_equal(host_try_open(host, flags), -ABODE_EFORMAT);
    if (strstr(host->log, text) == NULL) {
        print_message("no '%s' in: %s\n", text, host->log);
    }
    assert_non_null(strstr(host->log, text));
    tree_digest(host, after);
    assert_string_equal(after, before);
}

static void another_version_is_refused_and_left_alone(void **state)
{
    static const uint32_t versions[] = {AB_DISK_VERSION + 1, 0};
    static const uint32_t flags[] = {0, ABODE_CREATE, ABODE_READ_ONLY};
    (void)state;
    for (uint32_t i = 0; i < AB_COUNT(fixtures); i++) {
        for (uint32_t k = 0; k < AB_COUNT(versions) * fixtures[i].path_count; k++) {
            /* all four copies, or a later version's first pair alone: its second was not written */
            for (uint32_t copies = AB_SUPERBLOCK_COPIES; copies >= 2; copies -= 2) {
                struct host *host = unpack(&fixtures[i]);
                superblock_change(host, k % fixtures[i].path_count,
                                  versions[k / fixtures[i].path_count],
                                  (struct ab_disk_features){0}, copies);
                for (uint32_t f = 0; f < AB_COUNT(flags); f++) {
                    is_refused(host, flags[f], "another version made it: use that version");
                }
                unpacked_remove(host);
            }
        }
    }
}

static void a_journal_of_another_version_is_refused_and_left_alone(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < AB_COUNT(fixtures); i++) {
        struct host *host = unpack(&fixtures[i]);
        struct ab_disk_journal header;
        int fd = file_open(host, 0, "journal.a");
        fd = fd >= 0 ? fd : file_open(host, 0, "journal.b");
        assert_int_equal(pread(fd, &header, sizeof(header), 0), sizeof(header));
        header.version = AB_DISK_VERSION + 1;
        header.hash = ab_hash64((uint8_t *)&header + 8, sizeof(header) - 8,
                                ab_journal_seed(header.store_id, header.generation));
        assert_int_equal(pwrite(fd, &header, sizeof(header), 0), sizeof(header));
        (void)close(fd);
        is_refused(host, 0, "another version made it: use that version");
        is_refused(host, ABODE_READ_ONLY, "another version made it: use that version");
        unpacked_remove(host);
    }
}

static void unknown_features_do_what_their_class_says(void **state)
{
    static struct text found;
    (void)state;
    for (uint32_t i = 0; i < AB_COUNT(fixtures); i++) {
        for (uint32_t bit = 0; bit < 64; bit += 21) {
            const uint64_t unknown = UINT64_C(1) << bit;
            struct host *host = unpack(&fixtures[i]);
            superblock_change(host, fixtures[i].path_count - 1, AB_DISK_VERSION,
                              (struct ab_disk_features){.refuse = unknown}, 4);
            is_refused(host, 0, "another version made it: use that version");
            is_refused(host, ABODE_READ_ONLY, "another version made it: use that version");
            superblock_change(host, fixtures[i].path_count - 1, AB_DISK_VERSION,
                              (struct ab_disk_features){.read_only = unknown}, 4);
            is_refused(host, 0, "open it read-only, or install the newer version");
            assert_int_equal(host_try_open(host, ABODE_READ_ONLY), 0);
            nothing_is_damaged(host);
            assert_int_equal(abode_close(host->runtime), 0);
            superblock_change(host, fixtures[i].path_count - 1, AB_DISK_VERSION,
                              (struct ab_disk_features){.ignore = unknown}, 4);
            host_open(host, 0);
            all_find(host, &found);
            is_as_expected(&found, &fixtures[i]);
            host_close(host);
            unpacked_remove(host);
        }
    }
}

/* The version of a store is that of its superblocks and its journal; segments repeat it for who reads
 * a raw disk. Blocks are believed for their checksums alone. */
static void what_a_segment_says_of_its_version_is_not_asked(void **state)
{
    static struct text found;
    (void)state;
    for (uint32_t i = 0; i < AB_COUNT(fixtures); i++) {
        struct host *host = unpack(&fixtures[i]);
        struct ab_disk_segment header;
        char name[32];
        uint32_t changed = 0;
        for (uint32_t number = 0; number < 16; number++) {
            (void)snprintf(name, sizeof(name), "segments/%08x", number);
            const int fd = file_open(host, number % fixtures[i].path_count, name);
            if (fd < 0) {
                continue;
            }
            assert_int_equal(pread(fd, &header, sizeof(header), 0), sizeof(header));
            assert_int_equal(header.magic, AB_SEGMENT_MAGIC);
            assert_int_equal(header.version, AB_DISK_VERSION);
            assert_int_equal(header.segment, number);
            header.version++;
            assert_int_equal(pwrite(fd, &header, sizeof(header), 0), sizeof(header));
            (void)close(fd);
            changed++;
        }
        assert_true(changed > 0);
        host_open(host, 0);
        all_find(host, &found);
        is_as_expected(&found, &fixtures[i]);
        nothing_is_damaged(host);
        host_close(host);
        unpacked_remove(host);
    }
}

int main(int argc, char **argv)
{
    if (argc == 4 && strcmp(argv[1], "--make") == 0) {
        return old_store_make(argv[2], argv[3]);
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_fixture_has_every_byte),
        cmocka_unit_test(each_fixture_goes_on),
        cmocka_unit_test(another_version_is_refused_and_left_alone),
        cmocka_unit_test(a_journal_of_another_version_is_refused_and_left_alone),
        cmocka_unit_test(unknown_features_do_what_their_class_says),
        cmocka_unit_test(what_a_segment_says_of_its_version_is_not_asked),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
