/*
 * blob.c - see blob.h. One reader (struct cursor) that never goes past the end; sizes are checked
 * by division, before anything is multiplied.
 */
#include "blob.h"

#include <errno.h>
#include <string.h>

#define CELL_BYTES 12u /* position, count of sequences, sequence */
#define TYPE_MAX 255
#define ROW_BYTES_MAX (256u << 20)

struct cursor {
    const unsigned char *bytes;
    size_t size, at;
    bool bad;
};

static const unsigned char *take(struct cursor *cursor, size_t size)
{
    if (cursor->bad || size > cursor->size - cursor->at) {
        cursor->bad = true;
        return NULL;
    }
    cursor->at += size;
    return cursor->bytes + cursor->at - size;
}

static uint32_t take_u32(struct cursor *cursor)
{
    const unsigned char *bytes = take(cursor, 4);
    uint32_t value = 0;
    if (bytes != NULL) {
        memcpy(&value, bytes, sizeof(value));
    }
    return value;
}

static uint64_t take_u64(struct cursor *cursor)
{
    uint64_t low = take_u32(cursor);
    return low | (uint64_t)take_u32(cursor) << 32;
}

/* `count` items of `each` bytes: where they begin */
static size_t take_many(struct cursor *cursor, uint64_t count, uint64_t each)
{
    size_t at = cursor->at;
    if (each != 0 && count > (cursor->size - at) / each) {
        cursor->bad = true;
    }
    (void)take(cursor, cursor->bad ? 0 : (size_t)(count * each));
    return at;
}

static void require(struct cursor *cursor, bool condition)
{
    cursor->bad |= !condition;
}

static void tensor_read(struct cursor *cursor, struct ab_blob_tensor *tensor, bool transposed)
{
    tensor->type = (int32_t)take_u32(cursor);
    require(cursor, tensor->type >= 0 && tensor->type <= TYPE_MAX);
    uint64_t row_bytes;
    if (transposed) {
        tensor->element_bytes = take_u32(cursor);
        row_bytes = (uint64_t)tensor->element_bytes * take_u32(cursor);
        require(cursor, tensor->element_bytes > 0);
    } else {
        row_bytes = take_u64(cursor);
    }
    require(cursor, row_bytes > 0 && row_bytes <= ROW_BYTES_MAX);
    tensor->row_bytes = cursor->bad ? 0 : (uint32_t)row_bytes;
}

static void stream_read(struct cursor *cursor, bool has_v, struct ab_blob_shape *shape,
                        struct ab_blob_section *section)
{
    section->cells = take_many(cursor, section->cell_count, CELL_BYTES);
    for (uint32_t c = 0; c < section->cell_count && !cursor->bad; c++) {
        uint32_t sequences;
        memcpy(&sequences, cursor->bytes + section->cells + (size_t)c * CELL_BYTES + 4, 4);
        require(cursor, sequences == 1);
    }
    shape->v_trans = take_u32(cursor);
    shape->layer_count = take_u32(cursor);
    require(cursor, shape->v_trans <= 1 && shape->layer_count <= AB_BLOB_LAYERS_MAX);
    if (cursor->bad) {
        return;
    }
    shape->v_count = has_v ? shape->layer_count : 0;
    for (uint32_t t = 0; t < shape->layer_count + shape->v_count && !cursor->bad; t++) {
        tensor_read(cursor, &shape->tensors[t], t >= shape->layer_count && shape->v_trans);
        section->data[t] = take_many(cursor, section->cell_count, shape->tensors[t].row_bytes);
    }
}

static void attention_read(struct cursor *cursor, bool has_v, struct ab_blob_shape *shape,
                           struct ab_blob_section *section)
{
    shape->stream_count = take_u32(cursor);
    require(cursor, shape->stream_count > 0 && shape->stream_count <= AB_BLOB_STREAMS_MAX);
    for (uint32_t stream = 0; stream < shape->stream_count && !cursor->bad; stream++) {
        uint32_t cell_count = take_u32(cursor);
        if (cell_count == 0) {
            continue;
        }
        require(cursor, section->cell_count == 0); /* one sequence lies in one stream */
        section->cell_count = cell_count;
        section->stream = stream;
        stream_read(cursor, has_v, shape, section);
    }
    require(cursor, section->cell_count > 0);
}

/* The last section: its tensors go on to the end of the blob. They come in two lots of equal number. */
static void recurrent_read(struct cursor *cursor, struct ab_blob_shape *shape,
                           struct ab_blob_section *section)
{
    section->cell_count = take_u32(cursor);
    require(cursor, section->cell_count == 1);
    section->cells = cursor->at;
    (void)take_u32(cursor);                 /* position */
    require(cursor, take_u32(cursor) == 0); /* sequences */
    require(cursor, take_u32(cursor) == 0); /* s_trans */
    shape->layer_count = take_u32(cursor);
    require(cursor, shape->layer_count > 0 && shape->layer_count <= AB_BLOB_LAYERS_MAX);
    uint32_t count = 0;
    while (!cursor->bad && cursor->at < cursor->size) {
        require(cursor, count < 2 * AB_BLOB_LAYERS_MAX);
        if (!cursor->bad) {
            tensor_read(cursor, &shape->tensors[count], false);
            section->data[count] = take_many(cursor, 1, shape->tensors[count].row_bytes);
            count++;
        }
    }
    require(cursor, count > 0 && count % 2 == 0 && count / 2 <= shape->layer_count);
    shape->v_count = count / 2;
    require(cursor, cursor->at - section->begin <= UINT32_MAX);
    shape->recurrent_bytes = (uint32_t)(cursor->at - section->begin);
}

static int blob_read(struct cursor cursor, const uint32_t *kinds, uint32_t kind_count, bool has_v,
                     struct ab_blob_layout *ret_layout, struct ab_blob *ret)
{
    memset(ret_layout, 0, sizeof(*ret_layout));
    memset(ret, 0, sizeof(*ret));
    require(&cursor, take_u32(&cursor) == AB_BLOB_MAGIC);
    (void)take_u32(&cursor); /* the sequence: llama.cpp does not look at it either */
    for (uint32_t s = 0; s < kind_count && !cursor.bad; s++) {
        struct ab_blob_shape *shape = &ret_layout->shapes[s];
        struct ab_blob_section *section = &ret->sections[s];
        section->begin = cursor.at;
        shape->kind = kinds[s];
        if (kinds[s] == AB_BLOB_ATTENTION) {
            attention_read(&cursor, has_v, shape, section);
        } else {
            recurrent_read(&cursor, shape, section);
        }
        section->end = cursor.at;
    }
    ret_layout->section_count = kind_count;
    return cursor.bad || cursor.at != cursor.size ? -EBADMSG : 0;
}

int ab_blob_detect(const unsigned char *bytes, size_t size, struct ab_blob_layout *ret)
{
    static const struct {
        uint32_t kinds[AB_BLOB_SECTIONS_MAX], count;
    } candidates[] = {
        {{AB_BLOB_ATTENTION}, 1},
        {{AB_BLOB_ATTENTION, AB_BLOB_ATTENTION}, 2},
        {{AB_BLOB_RECURRENT}, 1},
        {{AB_BLOB_ATTENTION, AB_BLOB_RECURRENT}, 2},
        {{AB_BLOB_ATTENTION, AB_BLOB_ATTENTION, AB_BLOB_RECURRENT}, 3},
    };
    struct cursor cursor = {.bytes = bytes, .size = size};
    struct ab_blob_layout layout;
    struct ab_blob blob;
    uint32_t found = 0;
    for (size_t i = 0; i < 2 * sizeof(candidates) / sizeof(candidates[0]); i++) {
        const uint32_t *kinds = candidates[i / 2].kinds;
        bool has_v = i % 2 == 0;
        if (!has_v && kinds[0] == AB_BLOB_RECURRENT) {
            continue; /* the same reading again */
        }
        if (blob_read(cursor, kinds, candidates[i / 2].count, has_v, &layout, &blob) == 0) {
            found++;
            *ret = layout;
        }
    }
    return found == 1 ? 0 : -EBADMSG;
}

int ab_blob_parse(const unsigned char *bytes, size_t size, const struct ab_blob_layout *layout,
                  struct ab_blob *ret)
{
    struct cursor cursor = {.bytes = bytes, .size = size};
    uint32_t kinds[AB_BLOB_SECTIONS_MAX];
    for (uint32_t s = 0; s < layout->section_count; s++) {
        kinds[s] = layout->shapes[s].kind;
    }
    bool has_v = layout->shapes[0].v_count > 0;
    struct ab_blob_layout seen;
    int status = blob_read(cursor, kinds, layout->section_count, has_v, &seen, ret);
    return status < 0 || memcmp(&seen, layout, sizeof(seen)) != 0 ? -EBADMSG : 0;
}

static uint32_t cell_position(const unsigned char *bytes, const struct ab_blob_section *section,
                              uint32_t cell)
{
    uint32_t position;
    memcpy(&position, bytes + section->cells + (size_t)cell * CELL_BYTES, sizeof(position));
    return position;
}

int ab_blob_runs(const unsigned char *bytes, const struct ab_blob_section *section,
                 struct ab_blob_run *ret_runs, uint32_t capacity)
{
    uint32_t count = 0;
    for (uint32_t cell = 0; cell < section->cell_count; cell++) {
        uint32_t position = cell_position(bytes, section, cell);
        if (count > 0 && ret_runs[count - 1].position + ret_runs[count - 1].count == position) {
            ret_runs[count - 1].count++;
        } else if (count == capacity) {
            return -E2BIG;
        } else {
            ret_runs[count++] = (struct ab_blob_run){position, 1};
        }
    }
    return (int)count;
}

int ab_blob_map(const struct ab_blob_run *runs, uint32_t run_count, uint32_t token_count,
                uint32_t *ret_cell_of)
{
    uint32_t cell = 0;
    memset(ret_cell_of, 0xff, (size_t)token_count * sizeof(*ret_cell_of));
    for (uint32_t i = 0; i < run_count; i++) {
        if (runs[i].position >= token_count || runs[i].count == 0 ||
            runs[i].count > token_count - runs[i].position) {
            return -EBADMSG;
        }
        for (uint32_t p = runs[i].position; p < runs[i].position + runs[i].count; p++) {
            if (ret_cell_of[p] != AB_BLOB_CELL_NONE) {
                return -EBADMSG;
            }
            ret_cell_of[p] = cell++;
        }
    }
    return (int)cell;
}

/* ---- putting together ------------------------------------------------------------------------- */

static size_t attention_size(const struct ab_blob_shape *shape, uint32_t cell_count)
{
    size_t bytes = 4 + 4 * (size_t)shape->stream_count + (size_t)cell_count * CELL_BYTES + 8;
    for (uint32_t t = 0; t < shape->layer_count + shape->v_count; t++) {
        bytes += 12 + (size_t)cell_count * shape->tensors[t].row_bytes;
    }
    return bytes;
}

size_t ab_blob_size(const struct ab_blob_layout *layout, const uint32_t *cell_counts)
{
    size_t bytes = AB_BLOB_HEAD_BYTES;
    for (uint32_t s = 0; s < layout->section_count; s++) {
        const struct ab_blob_shape *shape = &layout->shapes[s];
        if (shape->kind == AB_BLOB_RECURRENT) {
            bytes += shape->recurrent_bytes;
        } else if (cell_counts[s] == 0) {
            return 0;
        } else {
            bytes += attention_size(shape, cell_counts[s]);
        }
    }
    return bytes;
}

static void put_u32(unsigned char *bytes, size_t *at, uint32_t value)
{
    memcpy(bytes + *at, &value, sizeof(value));
    *at += sizeof(value);
}

static void attention_begin(const struct ab_blob_shape *shape, unsigned char *bytes, size_t *at,
                            struct ab_blob_section *section)
{
    put_u32(bytes, at, shape->stream_count);
    for (uint32_t stream = 0; stream < section->stream; stream++) {
        put_u32(bytes, at, 0);
    }
    put_u32(bytes, at, section->cell_count);
    section->cells = *at;
    *at += (size_t)section->cell_count * CELL_BYTES;
    put_u32(bytes, at, shape->v_trans);
    put_u32(bytes, at, shape->layer_count);
    for (uint32_t t = 0; t < shape->layer_count + shape->v_count; t++) {
        const struct ab_blob_tensor *tensor = &shape->tensors[t];
        bool transposed = tensor->element_bytes != 0;
        put_u32(bytes, at, (uint32_t)tensor->type);
        put_u32(bytes, at, transposed ? tensor->element_bytes : tensor->row_bytes);
        put_u32(bytes, at, transposed ? tensor->row_bytes / tensor->element_bytes : 0);
        section->data[t] = *at;
        *at += (size_t)section->cell_count * tensor->row_bytes;
    }
    for (uint32_t stream = section->stream + 1; stream < shape->stream_count; stream++) {
        put_u32(bytes, at, 0);
    }
}

void ab_blob_begin(const struct ab_blob_layout *layout, unsigned char *bytes,
                   struct ab_blob *ret_blob)
{
    size_t at = 0;
    put_u32(bytes, &at, AB_BLOB_MAGIC);
    put_u32(bytes, &at, 0);
    for (uint32_t s = 0; s < layout->section_count; s++) {
        struct ab_blob_section *section = &ret_blob->sections[s];
        section->begin = at;
        if (layout->shapes[s].kind == AB_BLOB_ATTENTION) {
            attention_begin(&layout->shapes[s], bytes, &at, section);
        } else {
            at += layout->shapes[s].recurrent_bytes;
        }
        section->end = at;
    }
}

void ab_blob_cells_put(unsigned char *bytes, const struct ab_blob_section *section,
                       const struct ab_blob_run *runs, uint32_t run_count)
{
    size_t at = section->cells;
    for (uint32_t i = 0; i < run_count; i++) {
        for (uint32_t p = 0; p < runs[i].count; p++) {
            put_u32(bytes, &at, runs[i].position + p);
            put_u32(bytes, &at, 1);
            put_u32(bytes, &at, 0);
        }
    }
}

/* ---- rows ------------------------------------------------------------------------------------- */

static size_t element_at(const struct ab_blob_rows *rows, uint32_t channel, uint32_t cell)
{
    const struct ab_blob_tensor *tensor = &rows->shape->tensors[rows->tensor];
    return rows->section->data[rows->tensor] +
           ((size_t)channel * rows->section->cell_count + rows->cell + cell) *
               tensor->element_bytes;
}

void ab_blob_rows_get(const unsigned char *bytes, const struct ab_blob_rows *rows,
                      unsigned char *target)
{
    const struct ab_blob_tensor *tensor = &rows->shape->tensors[rows->tensor];
    size_t element = tensor->element_bytes;
    if (element == 0) {
        memcpy(target,
               bytes + rows->section->data[rows->tensor] + (size_t)rows->cell * tensor->row_bytes,
               (size_t)rows->count * tensor->row_bytes);
        return;
    }
    for (uint32_t channel = 0; channel < tensor->row_bytes / element; channel++) {
        const unsigned char *source = bytes + element_at(rows, channel, 0);
        for (uint32_t cell = 0; cell < rows->count; cell++) {
            memcpy(target + (size_t)cell * tensor->row_bytes + channel * element,
                   source + cell * element, element);
        }
    }
}

void ab_blob_rows_put(unsigned char *bytes, const struct ab_blob_rows *rows,
                      const unsigned char *source)
{
    const struct ab_blob_tensor *tensor = &rows->shape->tensors[rows->tensor];
    size_t element = tensor->element_bytes;
    if (element == 0) {
        memcpy(bytes + rows->section->data[rows->tensor] + (size_t)rows->cell * tensor->row_bytes,
               source, (size_t)rows->count * tensor->row_bytes);
        return;
    }
    for (uint32_t channel = 0; channel < tensor->row_bytes / element; channel++) {
        unsigned char *target = bytes + element_at(rows, channel, 0);
        for (uint32_t cell = 0; cell < rows->count; cell++) {
            memcpy(target + cell * element,
                   source + (size_t)cell * tensor->row_bytes + channel * element, element);
        }
    }
}
