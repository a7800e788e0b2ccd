/*
 * blob.h - the sequence blob of llama.cpp (what llama_state_seq_get_data writes), taken apart and
 * put together again.
 *
 *   u32 magic, i32 sequence
 *   attention  u32 streams; each stream: u32 cells, and where there are some:
 *                per cell   i32 position, u32 1, i32 sequence
 *                           u32 v_trans, u32 layers
 *                per layer  i32 type, u64 row bytes, a K row per cell
 *                per layer  i32 type, u64 row bytes, a V row per cell             (v_trans 0)
 *                           i32 type, u32 element bytes, u32 channels,
 *                           per channel an element per cell                       (v_trans 1)
 *   window     a second attention section: only cells inside the sliding window
 *   recurrent  u32 1, i32 position, u32 0, u32 0, u32 layers, tensors: i32 type, u64 bytes, bytes
 *
 * The blob does not say which of these sections follow. ab_blob_detect() finds the one reading that
 * uses every byte; from then on ab_blob_parse() takes blobs of that layout only. Every field is
 * bounded by the bytes that are there; anything else is -EBADMSG. No llama.h, no allocation, any
 * thread.
 */
#ifndef AB_BLOB_H
#define AB_BLOB_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define AB_BLOB_MAGIC 0xaf143cd8u
#define AB_BLOB_HEAD_BYTES 8u
#define AB_BLOB_LAYERS_MAX 240u /* K, V and token ids of each are planes: at most 512 of them */
#define AB_BLOB_SECTIONS_MAX 3u
#define AB_BLOB_STREAMS_MAX 256u
#define AB_BLOB_CELL_NONE UINT32_MAX

enum ab_blob_kind { AB_BLOB_ATTENTION = 1, AB_BLOB_RECURRENT };

struct ab_blob_tensor {
    int32_t type; /* ggml's number */
    uint32_t row_bytes;
    uint32_t element_bytes; /* transposed V; 0: rows */
};
/* What is the same in all blobs of one context. Zeroed before it is filled: compared as bytes. */
struct ab_blob_shape {
    uint32_t kind; /* enum ab_blob_kind */
    uint32_t stream_count;
    uint32_t v_trans;
    uint32_t layer_count;
    uint32_t v_count; /* layer_count, or 0 where K holds V too (MLA) */
    uint32_t recurrent_bytes;
    struct ab_blob_tensor tensors[2 * AB_BLOB_LAYERS_MAX]; /* K of each layer, then V */
};
struct ab_blob_layout {
    uint32_t section_count;
    struct ab_blob_shape shapes[AB_BLOB_SECTIONS_MAX];
};

/* Where the parts of one blob are: offsets into its bytes. */
struct ab_blob_section {
    uint32_t cell_count;
    uint32_t stream; /* the one that has the cells */
    size_t begin, end;
    size_t cells; /* metadata of the first cell */
    size_t data[2 * AB_BLOB_LAYERS_MAX];
};
struct ab_blob {
    struct ab_blob_section sections[AB_BLOB_SECTIONS_MAX];
};

/* Cells with consecutive positions: the order of cells in a blob is a list of these. */
struct ab_blob_run {
    uint32_t position;
    uint32_t count;
};

/* 0; -EBADMSG: not a blob of a known layout (or of two). */
int ab_blob_detect(const unsigned char *bytes, size_t size, struct ab_blob_layout *ret);
/* 0; -EBADMSG: not a blob of this layout. */
int ab_blob_parse(const unsigned char *bytes, size_t size, const struct ab_blob_layout *layout,
                  struct ab_blob *ret);

/* The order of cells of an attention section. -E2BIG: more runs than capacity. */
int ab_blob_runs(const unsigned char *bytes, const struct ab_blob_section *section,
                 struct ab_blob_run *ret_runs, uint32_t capacity);
/* cell_of[position] for positions under token_count, AB_BLOB_CELL_NONE where there is no cell.
 * Returns how many cells there are; -EBADMSG: a position outside, or twice. */
int ab_blob_map(const struct ab_blob_run *runs, uint32_t run_count, uint32_t token_count,
                uint32_t *ret_cell_of);

/* Size of a blob with so many cells in each attention section; 0: no such blob can be. */
size_t ab_blob_size(const struct ab_blob_layout *layout, const uint32_t *cell_counts);
/* Write everything but rows, recurrent state and cell positions; sections[].cell_count and .stream of
 * ret_blob are inputs, its offsets are filled. size: of ab_blob_size(). */
void ab_blob_begin(const struct ab_blob_layout *layout, unsigned char *bytes,
                   struct ab_blob *ret_blob);
void ab_blob_cells_put(unsigned char *bytes, const struct ab_blob_section *section,
                       const struct ab_blob_run *runs, uint32_t run_count);

/* Rows of `count` cells from `cell` on, between the blob and contiguous rows. */
struct ab_blob_rows {
    const struct ab_blob_shape *shape;
    const struct ab_blob_section *section;
    uint32_t tensor; /* index into tensors[] */
    uint32_t cell, count;
};
void ab_blob_rows_get(const unsigned char *bytes, const struct ab_blob_rows *rows,
                      unsigned char *target);
void ab_blob_rows_put(unsigned char *bytes, const struct ab_blob_rows *rows,
                      const unsigned char *source);

#endif
