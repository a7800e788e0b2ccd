/* sim_image.c - see sim_image.h. */
#include "sim/sim_image.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "live.h"

static void *grown(void *array, uint32_t *capacity, uint32_t wanted, size_t element_bytes)
{
    uint32_t more = *capacity == 0 ? 16 : *capacity;

    if (wanted <= *capacity) {
        return array;
    }
    while (more < wanted) {
        more *= 2;
    }
    array = realloc(array, more * element_bytes);
    if (array == NULL) {
        fprintf(stderr, "sim_image: no memory\n");
        abort();
    }
    memset((char *)array + *capacity * element_bytes, 0, (more - *capacity) * element_bytes);
    *capacity = more;
    return array;
}

/* ---- pages ---------------------------------------------------------------------------------------- */

static struct sim_page *page_hold(struct sim_page *page)
{
    if (page != NULL) {
        page->references++;
    }
    return page;
}

static void page_drop(struct sim_page *page)
{
    if (page != NULL && --page->references == 0) {
        free(page);
    }
}

static void page_put(struct sim_page **place, struct sim_page *page)
{
    struct sim_page *before = *place;

    *place = page_hold(page);
    page_drop(before);
}

static bool all_zero(const unsigned char *bytes)
{
    return bytes[0] == 0 && memcmp(bytes, bytes + 1, SIM_PAGE - 1) == 0;
}

/* One reference, the caller's. */
static struct sim_page *page_make(const void *bytes)
{
    struct sim_page *page;

    if (all_zero(bytes)) {
        return NULL;
    }
    page = malloc(sizeof(*page));
    if (page == NULL) {
        fprintf(stderr, "sim_image: no memory\n");
        abort();
    }
    page->references = 1;
    memcpy(page->bytes, bytes, SIM_PAGE);
    return page;
}

static void page_copy(const struct sim_page *page, unsigned char bytes[SIM_PAGE])
{
    if (page == NULL) {
        memset(bytes, 0, SIM_PAGE);
    } else {
        memcpy(bytes, page->bytes, SIM_PAGE);
    }
}

static void pages_reach(struct sim_file *file, uint32_t count)
{
    uint32_t capacity = file->page_count;

    file->current = grown(file->current, &capacity, count, sizeof(file->current[0]));
    capacity = file->page_count;
    file->older = grown(file->older, &capacity, count, sizeof(file->older[0]));
    capacity = file->page_count;
    file->durable = grown(file->durable, &capacity, count, sizeof(file->durable[0]));
    file->page_count = capacity;
}

static void durable_put(const struct sim_image *image, struct sim_file *file, uint32_t index,
                        struct sim_page *page)
{
    if (image->keeps_older && file->durable[index] != NULL && file->durable[index] != page) {
        page_put(&file->older[index], file->durable[index]);
    }
    page_put(&file->durable[index], page);
}

/* ---- files ---------------------------------------------------------------------------------------- */

static void limbo_forget(struct sim_file *file)
{
    for (uint32_t index = 0; index < file->change_count; index++) {
        page_drop(file->changes[index].page);
    }
    file->change_count = 0;
    file->sizes_count = 0;
}

static void file_free(struct sim_file *file)
{
    limbo_forget(file);
    for (uint32_t index = 0; index < file->page_count; index++) {
        page_drop(file->current[index]);
        page_drop(file->durable[index]);
        page_drop(file->older[index]);
    }
    free(file->current);
    free(file->durable);
    free(file->older);
    free(file->changes);
    free(file->sizes);
    *file = (struct sim_file){0};
}

static bool names_have(const struct sim_names *names, uint32_t file)
{
    for (uint32_t index = 0; index < names->count; index++) {
        if (names->list[index].file == file) {
            return true;
        }
    }
    return false;
}

static bool limbo_has(const struct sim_image *image, uint32_t file)
{
    for (uint32_t index = 0; index < image->limbo_count; index++) {
        if (image->limbo[index].from.file == file || image->limbo[index].to.file == file) {
            return true;
        }
    }
    return false;
}

/* Names in a directory that is gone. */
static void names_collect(struct sim_image *image, struct sim_names *names)
{
    for (uint32_t index = 0; index < names->count; index++) {
        if (!image->files[names->list[index].directory].is_used) {
            names->list[index].file = SIM_NONE;
        }
    }
}

/* Files that nothing can bring back. */
static void files_collect(struct sim_image *image)
{
    for (uint32_t index = SIM_ROOT + 1; index < SIM_FILES_MAX; index++) {
        struct sim_file *file = &image->files[index];

        if (file->is_used && file->opens == 0 && !names_have(&image->current, index) &&
            !names_have(&image->durable, index) && !limbo_has(image, index)) {
            file_free(file);
        }
    }
    names_collect(image, &image->current);
    names_collect(image, &image->durable);
}

static struct sim_change *change_add(struct sim_file *file)
{
    file->changes = grown(file->changes, &file->change_capacity, file->change_count + 1,
                          sizeof(file->changes[0]));
    return &file->changes[file->change_count++];
}

static void size_set(struct sim_file *file, uint64_t size)
{
    if (size == file->size) {
        return;
    }
    file->size = size;
    file->sizes =
        grown(file->sizes, &file->sizes_capacity, file->sizes_count + 1, sizeof(file->sizes[0]));
    file->sizes[file->sizes_count++] = size;
}

/* Pages of a read, one after the other. */
static void read_by_pages(const struct sim_file *file, unsigned char *to, size_t count,
                          uint64_t offset,
                          const struct sim_page *(*page_of)(const struct sim_file *file,
                                                            uint32_t index))
{
    while (count > 0) {
        uint32_t index = (uint32_t)(offset / SIM_PAGE), at = (uint32_t)(offset % SIM_PAGE);
        size_t part = SIM_PAGE - at < count ? SIM_PAGE - at : count;
        const struct sim_page *page = index < file->page_count ? page_of(file, index) : NULL;

        if (page == NULL) {
            memset(to, 0, part);
        } else {
            memcpy(to, page->bytes + at, part);
        }
        to += part;
        offset += part;
        count -= part;
    }
}

static const struct sim_page *page_cached(const struct sim_file *file, uint32_t index)
{
    return file->current[index];
}

static const struct sim_page *page_on_disk(const struct sim_file *file, uint32_t index)
{
    const struct sim_page *page = file->durable[index];

    for (uint32_t at = 0; at < file->change_count; at++) {
        const struct sim_change *change = &file->changes[at];

        if (change->kind == SIM_CHANGE_CUT && index >= change->index) {
            page = NULL;
        } else if (change->kind == SIM_CHANGE_PAGE && index == change->index && !change->is_lost) {
            page = change->page;
        }
    }
    return page;
}

void sim_file_read(const struct sim_file *file, void *bytes, size_t count, uint64_t offset)
{
    read_by_pages(file, bytes, count, offset, page_cached);
}

void sim_file_read_disk(const struct sim_file *file, void *bytes, size_t count, uint64_t offset)
{
    read_by_pages(file, bytes, count, offset, page_on_disk);
}

void sim_file_write(struct sim_image *image, struct sim_file *file, const void *bytes, size_t count,
                    uint64_t offset, bool is_lost)
{
    const unsigned char *from = bytes;
    uint64_t end = offset + count;

    image->write_last++;
    pages_reach(file, (uint32_t)((end + SIM_PAGE - 1) / SIM_PAGE));
    while (offset < end) {
        uint32_t index = (uint32_t)(offset / SIM_PAGE), at = (uint32_t)(offset % SIM_PAGE);
        uint32_t part = SIM_PAGE - at < end - offset ? SIM_PAGE - at : (uint32_t)(end - offset);
        uint32_t first = at / SIM_SECTOR, last = (at + part - 1) / SIM_SECTOR;
        struct sim_change *change = change_add(file);
        unsigned char whole[SIM_PAGE];

        if (part < SIM_PAGE) {
            page_copy(file->current[index], whole);
            memcpy(whole + at, from, part);
        }
        *change = (struct sim_change){
            .page = page_make(part < SIM_PAGE ? whole : from),
            .index = index,
            .write = image->write_last,
            .kind = SIM_CHANGE_PAGE,
            .sectors = (uint8_t)((0xffu >> (SIM_SECTORS - 1 - last)) & (0xffu << first)),
            .is_lost = is_lost};
        page_put(&file->current[index], change->page);
        from += part;
        offset += part;
    }
    if (end > file->size) {
        size_set(file, end);
    }
}

void sim_file_resize(struct sim_image *image, struct sim_file *file, uint64_t size)
{
    uint32_t first = (uint32_t)((size + SIM_PAGE - 1) / SIM_PAGE);

    if (size < file->size) {
        if (size % SIM_PAGE != 0) {
            unsigned char zeroes[SIM_PAGE] = {0};

            sim_file_write(image, file, zeroes, SIM_PAGE - size % SIM_PAGE, size, false);
        }
        for (uint32_t index = first; index < file->page_count; index++) {
            page_put(&file->current[index], NULL);
        }
        *change_add(file) = (struct sim_change){
            .index = first, .write = ++image->write_last, .kind = SIM_CHANGE_CUT};
    }
    size_set(file, size);
}

/* Pages from first on are gone from the platter. */
static void durable_cut(struct sim_file *file, uint32_t first)
{
    for (uint32_t index = first; index < file->page_count; index++) {
        page_put(&file->durable[index], NULL);
    }
}

void sim_file_sync(struct sim_image *image, struct sim_file *file)
{
    for (uint32_t index = 0; index < file->change_count; index++) {
        const struct sim_change *change = &file->changes[index];

        if (change->kind == SIM_CHANGE_CUT) {
            durable_cut(file, change->index);
        } else if (!change->is_lost) {
            durable_put(image, file, change->index, change->page);
        }
    }
    file->size_durable = file->size;
    limbo_forget(file);
}

void sim_file_sync_fail(struct sim_file *file, uint64_t seed)
{
    for (uint32_t index = 0; index < file->change_count && file->is_cached; index++) {
        file->changes[index].is_lost |= live_random_below(&seed, 2) == 0;
    }
}

void sim_file_damage(struct sim_file *file, uint32_t index, const void *bytes)
{
    struct sim_page *page = page_make(bytes);

    pages_reach(file, index + 1);
    page_put(&file->current[index], page);
    page_put(&file->durable[index], page);
    page_drop(page);
}

/* ---- names ---------------------------------------------------------------------------------------- */

static uint32_t name_place(const struct sim_names *names, uint32_t directory, const char *text)
{
    for (uint32_t index = 0; index < names->count; index++) {
        const struct sim_name *name = &names->list[index];

        if (name->file != SIM_NONE && name->directory == directory &&
            strcmp(name->text, text) == 0) {
            return index;
        }
    }
    return SIM_NONE;
}

uint32_t sim_name_find(const struct sim_names *names, uint32_t directory, const char *text)
{
    uint32_t place = name_place(names, directory, text);

    return place == SIM_NONE ? SIM_NONE : names->list[place].file;
}

static void name_set(struct sim_names *names, const struct sim_name *name)
{
    uint32_t place = name_place(names, name->directory, name->text);

    for (uint32_t index = 0; place == SIM_NONE && index < names->count; index++) {
        place = names->list[index].file == SIM_NONE ? index : SIM_NONE;
    }
    if (place == SIM_NONE) {
        place = names->count++;
    }
    if (place >= SIM_NAMES_MAX) {
        fprintf(stderr, "sim_image: too many names\n");
        abort();
    }
    names->list[place] = *name;
}

static void name_clear(struct sim_names *names, const struct sim_name *name)
{
    uint32_t place = name_place(names, name->directory, name->text);

    if (place != SIM_NONE && names->list[place].file == name->file) {
        names->list[place].file = SIM_NONE;
    }
}

static void name_change_apply(struct sim_names *names, const struct sim_name_change *change)
{
    if (change->from.file != SIM_NONE) {
        name_clear(names, &change->from);
    }
    if (change->to.file != SIM_NONE) {
        name_set(names, &change->to);
    }
}

static void name_change(struct sim_image *image, const struct sim_name_change *change)
{
    if (image->limbo_count >= SIM_NAMES_MAX) {
        fprintf(stderr, "sim_image: too many changes of names\n");
        abort();
    }
    image->limbo[image->limbo_count++] = *change;
    name_change_apply(&image->current, change);
}

static struct sim_name name_of(uint32_t directory, const char *text, uint32_t file)
{
    struct sim_name name = {.directory = directory, .file = file};

    (void)snprintf(name.text, sizeof(name.text), "%s", text);
    return name;
}

uint32_t sim_file_make(struct sim_image *image, uint32_t directory, const char *name,
                       bool is_directory)
{
    struct sim_name_change change = {.from = {.file = SIM_NONE}};

    for (uint32_t index = SIM_ROOT + 1; index < SIM_FILES_MAX; index++) {
        if (!image->files[index].is_used) {
            image->files[index] = (struct sim_file){.is_used = true, .is_directory = is_directory};
            change.to = name_of(directory, name, index);
            name_change(image, &change);
            return index;
        }
    }
    fprintf(stderr, "sim_image: too many files\n");
    abort();
}

void sim_file_unlink(struct sim_image *image, uint32_t directory, const char *name)
{
    struct sim_name_change change = {
        .from = name_of(directory, name, sim_name_find(&image->current, directory, name)),
        .to = {.file = SIM_NONE}};

    name_change(image, &change);
}

void sim_file_rename(struct sim_image *image, uint32_t directory, const char *from, const char *to)
{
    uint32_t file = sim_name_find(&image->current, directory, from);
    struct sim_name_change change = {.from = name_of(directory, from, file),
                                     .to = name_of(directory, to, file)};

    name_change(image, &change);
}

void sim_directory_sync(struct sim_image *image, uint32_t directory)
{
    uint32_t left = 0;

    for (uint32_t index = 0; index < image->limbo_count; index++) {
        const struct sim_name_change *change = &image->limbo[index];
        const struct sim_name *name = change->from.file != SIM_NONE ? &change->from : &change->to;

        if (name->directory == directory) {
            name_change_apply(&image->durable, change);
        } else {
            image->limbo[left++] = *change;
        }
    }
    image->limbo_count = left;
    files_collect(image);
}

static uint32_t parent_of(const struct sim_image *image, uint32_t directory)
{
    for (uint32_t index = 0; index < image->current.count; index++) {
        if (image->current.list[index].file == directory) {
            return image->current.list[index].directory;
        }
    }
    return SIM_ROOT;
}

uint32_t sim_path_find(const struct sim_image *image, uint32_t directory, const char *path,
                       uint32_t *ret_directory, char ret_name[SIM_NAME_BYTES])
{
    uint32_t found = directory;

    *ret_directory = directory;
    ret_name[0] = '\0';
    while (*path != '\0') {
        size_t length = strcspn(path, "/");

        if (found == SIM_NONE) {
            *ret_directory = SIM_NONE;
            return SIM_NONE;
        }
        *ret_directory = found;
        (void)snprintf(ret_name, SIM_NAME_BYTES, "%.*s", (int)length, path);
        if (length > 0 && strcmp(ret_name, "..") == 0) {
            found = parent_of(image, found);
        } else if (length > 0 && strcmp(ret_name, ".") != 0) {
            found = sim_name_find(&image->current, found, ret_name);
        }
        path += length + (path[length] == '/');
    }
    return found;
}

/* ---- images --------------------------------------------------------------------------------------- */

void sim_image_init(struct sim_image *image)
{
    *image = (struct sim_image){0};
    image->files[SIM_ROOT].is_used = true;
    image->files[SIM_ROOT].is_directory = true;
}

void sim_image_free(struct sim_image *image)
{
    for (uint32_t index = 0; index < SIM_FILES_MAX; index++) {
        file_free(&image->files[index]);
    }
}

void sim_image_clone(struct sim_image *image, const struct sim_image *source)
{
    sim_image_init(image);
    image->durable = source->durable;
    image->current = source->durable;
    for (uint32_t index = 0; index < SIM_FILES_MAX; index++) {
        const struct sim_file *from = &source->files[index];
        struct sim_file *to = &image->files[index];

        to->is_used = from->is_used;
        to->is_directory = from->is_directory;
        to->size = to->size_durable = from->size_durable;
        pages_reach(to, from->page_count);
        for (uint32_t page = 0; page < from->page_count; page++) {
            to->current[page] = page_hold(from->durable[page]);
            to->durable[page] = page_hold(from->durable[page]);
            to->older[page] = page_hold(from->older[page]);
        }
    }
}

void sim_image_sync(struct sim_image *image)
{
    for (uint32_t index = 0; index < SIM_FILES_MAX; index++) {
        if (image->files[index].is_directory) {
            sim_directory_sync(image, index);
        } else if (image->files[index].is_used) {
            sim_file_sync(image, &image->files[index]);
        }
    }
}

/* ---- power cut ------------------------------------------------------------------------------------ */

enum fate { FATE_DROPPED, FATE_KEPT, FATE_TORN_PAGES, FATE_TORN_SECTORS };

struct luck { /* of one cut */
    uint64_t random;
    uint32_t keep_percent, tear_percent;
};

static enum fate fate_draw(struct sim_image *image, struct luck *luck)
{
    if (live_random_below(&luck->random, 100) < luck->tear_percent) {
        image->torn++;
        return live_random_below(&luck->random, 2) == 0 ? FATE_TORN_PAGES : FATE_TORN_SECTORS;
    }
    if (live_random_below(&luck->random, 100) < luck->keep_percent) {
        image->kept++;
        return FATE_KEPT;
    }
    image->dropped++;
    return FATE_DROPPED;
}

static uint8_t sectors_kept(struct luck *luck, enum fate fate)
{
    switch (fate) {
    case FATE_KEPT:
        return 0xff;
    case FATE_TORN_PAGES:
        return live_random_below(&luck->random, 2) == 0 ? 0 : 0xff;
    case FATE_TORN_SECTORS:
        return (uint8_t)live_random_below(&luck->random, 256);
    case FATE_DROPPED:
    default:
        return 0;
    }
}

static void sectors_apply(struct sim_image *image, struct sim_file *file,
                          const struct sim_change *change, uint8_t sectors)
{
    unsigned char bytes[SIM_PAGE], written[SIM_PAGE];
    struct sim_page *page;

    if (sectors == 0) {
        return;
    }
    if (sectors == 0xff) {
        durable_put(image, file, change->index, change->page);
        return;
    }
    page_copy(file->durable[change->index], bytes);
    page_copy(change->page, written);
    for (uint32_t sector = 0; sector < SIM_SECTORS; sector++) {
        if ((sectors & 1u << sector) != 0) {
            memcpy(bytes + (size_t)sector * SIM_SECTOR, written + (size_t)sector * SIM_SECTOR,
                   SIM_SECTOR);
        }
    }
    page = page_make(bytes);
    durable_put(image, file, change->index, page);
    page_drop(page);
}

static void file_cut(struct sim_image *image, struct sim_file *file, struct luck *luck)
{
    uint32_t size_chosen = live_random_below(&luck->random, file->sizes_count + 1);
    uint32_t write = 0, end;
    enum fate fate = FATE_DROPPED;

    for (uint32_t index = 0; index < file->change_count; index++) {
        const struct sim_change *change = &file->changes[index];

        if (change->write != write) {
            write = change->write;
            fate = fate_draw(image, luck);
        }
        if (change->kind == SIM_CHANGE_PAGE && !change->is_lost) {
            sectors_apply(image, file, change, sectors_kept(luck, fate) & change->sectors);
        } else if (change->kind == SIM_CHANGE_CUT && fate == FATE_KEPT) {
            durable_cut(file, change->index);
        }
    }
    if (size_chosen < file->sizes_count) {
        file->size_durable = file->sizes[size_chosen];
    }
    end = (uint32_t)((file->size_durable + SIM_PAGE - 1) / SIM_PAGE);
    durable_cut(file, end);
    if (file->size_durable % SIM_PAGE != 0 && end <= file->page_count &&
        file->durable[end - 1] != NULL) {
        const uint32_t left = (uint32_t)(file->size_durable % SIM_PAGE);
        unsigned char bytes[SIM_PAGE];
        struct sim_page *page;

        page_copy(file->durable[end - 1], bytes);
        memset(bytes + left, 0, SIM_PAGE - left);
        page = page_make(bytes);
        page_put(&file->durable[end - 1], page);
        page_drop(page);
    }
    limbo_forget(file);
    file->size = file->size_durable;
    for (uint32_t index = 0; index < file->page_count; index++) {
        page_put(&file->current[index], file->durable[index]);
    }
}

void sim_image_cut(struct sim_image *image, uint64_t seed)
{
    static const uint32_t keeps[] = {0, 20, 50, 80, 100}, tears[] = {0, 0, 10, 50};
    struct luck luck = {.random = seed};

    luck.keep_percent = keeps[live_random_below(&luck.random, 5)];
    luck.tear_percent = tears[live_random_below(&luck.random, 4)];
    for (uint32_t index = 0; index < image->limbo_count; index++) {
        if (live_random_below(&luck.random, 100) < luck.keep_percent) {
            name_change_apply(&image->durable, &image->limbo[index]);
        }
    }
    image->limbo_count = 0;
    image->current = image->durable;
    for (uint32_t index = 0; index < SIM_FILES_MAX; index++) {
        if (image->files[index].is_used) {
            file_cut(image, &image->files[index], &luck);
        }
    }
    files_collect(image);
}

/* ---- export ---------------------------------------------------------------------------------------- */

static int file_export(const struct sim_file *file, const char *path)
{
    FILE *stream = fopen(path, "wb");
    unsigned char bytes[SIM_PAGE];
    bool is_bad = stream == NULL;

    for (uint64_t at = 0; at < file->size && !is_bad; at += SIM_PAGE) {
        size_t count = file->size - at < SIM_PAGE ? (size_t)(file->size - at) : SIM_PAGE;

        sim_file_read(file, bytes, count, at);
        is_bad = fwrite(bytes, 1, count, stream) != count;
    }
    if (stream != NULL) {
        is_bad |= fclose(stream) != 0;
    }
    return is_bad ? -EIO : 0;
}

int sim_image_export(const struct sim_image *image, uint32_t directory, const char *path)
{
    const struct sim_names *names = &image->current;
    int rc = mkdir(path, 0700) == 0 || errno == EEXIST ? 0 : -errno;

    for (uint32_t index = 0; index < names->count && rc == 0; index++) {
        const struct sim_name *name = &names->list[index];
        char inside[512];

        if (name->file == SIM_NONE || name->directory != directory) {
            continue;
        }
        (void)snprintf(inside, sizeof(inside), "%s/%s", path, name->text);
        rc = image->files[name->file].is_directory ? sim_image_export(image, name->file, inside)
                                                   : file_export(&image->files[name->file], inside);
    }
    return rc;
}
