/*
 * blob_check.c - the parser of sequence blobs, without a model: blobs written here by hand are read,
 * cut and put together again to the same bytes; cut short at every byte, lengthened and mutated they
 * are refused or stay inside their bounds. The blob ends at a page that cannot be touched.
 *
 *     blob_check [--seed N]      ABODE_LONG=1: a hundred times the mutations
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "blob.h"
#include "llama_host.h"

enum { CELLS = 23, SHORT_CELLS = 9, LAYERS = 3, ROW = 36, ROOM = 1 << 16, MUTATIONS = 20000 };

static unsigned char *area; /* ROOM bytes, then a guard page */
static unsigned char plain[ROOM];
static size_t plain_size;
static uint64_t seed;

static uint32_t random_next(void)
{
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(seed >> 33);
}

/* ---- a writer that shares nothing with blob.c ------------------------------------------------------- */

static void write_u32(uint32_t value)
{
    memcpy(plain + plain_size, &value, 4);
    plain_size += 4;
}

static void write_bytes(size_t size)
{
    for (size_t i = 0; i < size; i++) {
        plain[plain_size++] = (unsigned char)random_next();
    }
}

struct recipe {
    const char *name;
    const char *sections; /* A, R */
    uint32_t streams, stream;
    bool transposed, no_v;
};

/* Positions 0 .. tokens - 1 whose last `cells` are there, a later half in front. */
static uint32_t position_of(uint32_t cell, uint32_t cells, uint32_t tokens)
{
    return tokens - cells + (cell + cells / 2) % cells;
}

static void write_attention(const struct recipe *recipe, uint32_t cells)
{
    write_u32(recipe->streams);
    for (uint32_t stream = 0; stream < recipe->streams; stream++) {
        write_u32(stream == recipe->stream ? cells : 0);
        if (stream != recipe->stream) {
            continue;
        }
        for (uint32_t cell = 0; cell < cells; cell++) {
            write_u32(position_of(cell, cells, CELLS));
            write_u32(1);
            write_u32(0);
        }
        write_u32(recipe->transposed);
        write_u32(LAYERS);
        for (uint32_t t = 0; t < LAYERS * (recipe->no_v ? 1 : 2); t++) {
            write_u32(1);
            bool transposed = t >= LAYERS && recipe->transposed;
            write_u32(transposed ? 2 : ROW + 4 * t);
            write_u32(transposed ? (ROW + 4 * t) / 2 : 0);
            write_bytes((size_t)(ROW + 4 * t) * cells);
        }
    }
}

static void write_recurrent(void)
{
    const uint32_t head[] = {1, CELLS - 1, 0, 0, LAYERS + 1};
    for (size_t i = 0; i < sizeof(head) / sizeof(head[0]); i++) {
        write_u32(head[i]);
    }
    for (uint32_t t = 0; t < 2 * LAYERS; t++) {
        write_u32(0);
        write_u32(100 + t);
        write_u32(0);
        write_bytes(100 + t);
    }
}

static void write_blob(const struct recipe *recipe)
{
    plain_size = 0;
    write_u32(AB_BLOB_MAGIC);
    write_u32(0);
    for (const char *section = recipe->sections; *section != 0; section++) {
        if (*section == 'A') {
            write_attention(recipe, section == recipe->sections ? CELLS : SHORT_CELLS);
        } else {
            write_recurrent();
        }
    }
}

/* The last `size` bytes before the guard page. */
static unsigned char *guarded(const unsigned char *bytes, size_t size)
{
    return memcpy(area + ROOM - size, bytes, size);
}

/* ---- there and back --------------------------------------------------------------------------------- */

static void rows_move(const struct ab_blob_layout *layout, const unsigned char *from,
                      const struct ab_blob *there, unsigned char *to, const struct ab_blob *here)
{
    unsigned char row[ROW * 16];
    for (uint32_t s = 0; s < layout->section_count; s++) {
        const struct ab_blob_shape *shape = &layout->shapes[s];
        const struct ab_blob_section *section = &there->sections[s];
        if (shape->kind == AB_BLOB_RECURRENT) {
            memcpy(to + here->sections[s].begin, from + section->begin,
                   section->end - section->begin);
            continue;
        }
        for (uint32_t i = 0; i < section->cell_count * (shape->layer_count + shape->v_count); i++) {
            struct ab_blob_rows rows = {shape, section, i / section->cell_count,
                                        i % section->cell_count, 1};
            ab_blob_rows_get(from, &rows, row);
            rows.section = &here->sections[s];
            ab_blob_rows_put(to, &rows, row);
        }
    }
}

static bool round_trip(const struct ab_blob_layout *layout)
{
    const unsigned char *bytes = guarded(plain, plain_size);
    static unsigned char again[ROOM];
    struct ab_blob there, here = {0};
    struct ab_blob_run runs[2][CELLS];
    int run_counts[2] = {0};
    uint32_t counts[AB_BLOB_SECTIONS_MAX] = {0}, cell_of[CELLS];
    if (ab_blob_parse(bytes, plain_size, layout, &there) < 0) {
        return false;
    }
    for (uint32_t s = 0; s < layout->section_count; s++) {
        if (layout->shapes[s].kind == AB_BLOB_ATTENTION) {
            run_counts[s] = ab_blob_runs(bytes, &there.sections[s], runs[s], CELLS);
            counts[s] = here.sections[s].cell_count = there.sections[s].cell_count;
            here.sections[s].stream = there.sections[s].stream;
            if (run_counts[s] != 2 || ab_blob_map(runs[s], 2, CELLS, cell_of) != (int)counts[s]) {
                return false;
            }
        }
    }
    if (ab_blob_size(layout, counts) != plain_size) {
        return false;
    }
    ab_blob_begin(layout, again, &here);
    for (uint32_t s = 0; s < layout->section_count; s++) {
        if (layout->shapes[s].kind == AB_BLOB_ATTENTION) {
            ab_blob_cells_put(again, &here.sections[s], runs[s], (uint32_t)run_counts[s]);
        }
    }
    rows_move(layout, bytes, &there, again, &here);
    return memcmp(again, plain, plain_size) == 0;
}

/* ---- hostile ------------------------------------------------------------------------------------------ */

static bool inside(const struct ab_blob_layout *layout, const struct ab_blob *blob, size_t size)
{
    for (uint32_t s = 0; s < layout->section_count; s++) {
        const struct ab_blob_section *section = &blob->sections[s];
        const struct ab_blob_shape *shape = &layout->shapes[s];
        bool attention = shape->kind == AB_BLOB_ATTENTION;
        if (section->begin > section->end || section->end > size) {
            return false;
        }
        for (uint32_t t = 0; attention && t < shape->layer_count + shape->v_count; t++) {
            size_t bytes = (size_t)section->cell_count * shape->tensors[t].row_bytes;
            if (section->data[t] > size || bytes > size - section->data[t]) {
                return false;
            }
        }
    }
    return true;
}

static bool cut_short_is_refused(const struct ab_blob_layout *layout)
{
    struct ab_blob blob;
    struct ab_blob_layout other;
    for (size_t size = 0; size < plain_size; size++) {
        const unsigned char *bytes = guarded(plain, size);
        if (ab_blob_parse(bytes, size, layout, &blob) != -EBADMSG) {
            return false;
        }
        (void)ab_blob_detect(bytes, size, &other);
    }
    plain[plain_size] = 0;
    return ab_blob_parse(guarded(plain, plain_size + 1), plain_size + 1, layout, &blob) == -EBADMSG;
}

static void mutate(unsigned char *bytes)
{
    static const uint32_t hostile[] = {0,          1,          2,          255,
                                       0x7fffffff, 0x80000000, 0xffffffff, 0x01000000};
    uint32_t times = 1 + random_next() % 3;
    for (uint32_t i = 0; i < times; i++) {
        size_t at = random_next() % (plain_size - 8);
        at = random_next() % 2 == 0 ? at % 400 / 4 * 4 : at / 4 * 4; /* heads more often */
        at = at % (plain_size - 8);
        switch (random_next() % 3) {
        case 0:
            bytes[at] ^= (unsigned char)(1u << random_next() % 8);
            break;
        case 1:
            memcpy(bytes + at, &hostile[random_next() % 8], 4);
            break;
        default:
            memcpy(bytes + at, bytes + random_next() % (plain_size - 8), 8);
            break;
        }
    }
}

/* Accepted ones are within bounds, whatever they say; their positions are checked by the map. */
static bool mutations_stay_inside(const struct ab_blob_layout *layout, uint32_t count,
                                  uint32_t *ret_refused)
{
    struct ab_blob blob;
    struct ab_blob_layout other;
    struct ab_blob_run runs[CELLS];
    uint32_t cell_of[CELLS];
    for (uint32_t i = 0; i < count; i++) {
        unsigned char *bytes = guarded(plain, plain_size);
        mutate(bytes);
        (void)ab_blob_detect(bytes, plain_size, &other);
        if (ab_blob_parse(bytes, plain_size, layout, &blob) < 0) {
            ++*ret_refused;
            continue;
        }
        if (!inside(layout, &blob, plain_size)) {
            return false;
        }
        if (layout->shapes[0].kind == AB_BLOB_ATTENTION) {
            int run_count = ab_blob_runs(bytes, &blob.sections[0], runs, CELLS);
            if (run_count >= 0) {
                (void)ab_blob_map(runs, (uint32_t)run_count, CELLS, cell_of);
            }
        }
    }
    return true;
}

static void recipe_check(const struct recipe *recipe, uint32_t mutations)
{
    struct ab_blob_layout layout;
    uint32_t refused = 0;
    write_blob(recipe);
    llama_host_check(ab_blob_detect(guarded(plain, plain_size), plain_size, &layout) == 0 &&
                         layout.section_count == strlen(recipe->sections) &&
                         layout.shapes[0].v_count == (recipe->no_v ? 0 : LAYERS),
                     "%s: one reading", recipe->name);
    llama_host_check(round_trip(&layout), "%s: put together from its rows, the same %zu bytes",
                     recipe->name, plain_size);
    llama_host_check(cut_short_is_refused(&layout), "%s: cut at each byte, and one more",
                     recipe->name);
    bool stayed = mutations_stay_inside(&layout, mutations, &refused);
    llama_host_check(stayed && refused > mutations / 10 && refused < mutations,
                     "%s: %u mutations, %u refused", recipe->name, mutations, refused);
}

static void maps_check(void)
{
    const struct {
        struct ab_blob_run runs[2];
        uint32_t count;
        int wanted;
    } cases[] = {
        {{{0, 5}, {5, 5}}, 2, 10},       {{{5, 5}, {0, 5}}, 2, 10},
        {{{0, 5}, {4, 2}}, 2, -EBADMSG}, {{{0, 11}}, 1, -EBADMSG},
        {{{10, 1}}, 1, -EBADMSG},        {{{9, UINT32_MAX}}, 1, -EBADMSG},
        {{{0, 0}}, 1, -EBADMSG},         {{{UINT32_MAX, 2}}, 1, -EBADMSG},
    };
    uint32_t cell_of[10];
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        int got = ab_blob_map(cases[i].runs, cases[i].count, 10, cell_of);
        llama_host_check(got == cases[i].wanted, "map %zu: %d", i, got);
    }
}

int main(int count, char **arguments)
{
    static const struct recipe recipes[] = {
        {"attention", "A", 1, 0, false, false},
        {"attention without V", "A", 1, 0, false, true},
        {"attention, V transposed", "A", 1, 0, true, false},
        {"attention in stream 2 of 4", "A", 4, 2, false, false},
        {"attention + window", "AA", 1, 0, false, false},
        {"attention + window, V transposed, streams", "AA", 3, 1, true, false},
        {"recurrent", "R", 1, 0, false, false},
        {"attention + recurrent", "AR", 1, 0, false, false},
        {"attention + window + recurrent", "AAR", 1, 0, false, false},
    };
    const char *from = getenv("ABODE_TEST_SEED");
    from = count == 3 && strcmp(arguments[1], "--seed") == 0 ? arguments[2] : from;
    seed = from != NULL ? strtoull(from, NULL, 10) : (uint64_t)getpid();
    printf("repeat: blob_check --seed %llu\n", (unsigned long long)seed);
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    area = mmap(NULL, ROOM + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (area == MAP_FAILED || mprotect(area + ROOM, page, PROT_NONE) != 0) {
        llama_host_end("no guard page");
    }
    uint32_t mutations = getenv("ABODE_LONG") != NULL ? 100 * MUTATIONS : MUTATIONS;
    for (size_t i = 0; i < sizeof(recipes) / sizeof(recipes[0]); i++) {
        recipe_check(&recipes[i], mutations);
    }
    maps_check();
    return llama_host_count();
}
