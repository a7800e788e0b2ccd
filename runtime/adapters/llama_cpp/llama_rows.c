/*
 * llama_rows.c - rows between a blob (cells in llama.cpp's order) and blocks (tokens in theirs).
 * bridge->cell_of says where the cell of a token is.
 */
#include "llama_bridge.h"

#include <string.h>
#include <xxhash.h>

enum direction { KEEP, RESTORE };

static void tensor_copy(struct abode_llama *bridge, const struct ab_blob *blob,
                        const struct ab_llama_piece *piece, uint32_t tensor, unsigned char *plane,
                        enum direction direction)
{
    const struct ab_blob_shape *shape = &bridge->layout.shapes[piece->section];
    const uint32_t *cell_of = bridge->cell_of[piece->section] + piece->position;
    size_t row_bytes = shape->tensors[tensor].row_bytes;
    uint32_t end;
    for (uint32_t i = 0; i < piece->count; i = end) {
        unsigned char *row = plane + (piece->token_first + i) * row_bytes;
        end = i + 1;
        if (cell_of[i] == AB_BLOB_CELL_NONE) {
            if (direction == KEEP) {
                memset(row, 0, row_bytes);
            }
            continue;
        }
        while (end < piece->count && cell_of[end] == cell_of[i] + (end - i)) {
            end++;
        }
        struct ab_blob_rows rows = {shape, &blob->sections[piece->section], tensor, cell_of[i],
                                    end - i};
        if (direction == KEEP) {
            ab_blob_rows_get(bridge->blob, &rows, row);
        } else {
            ab_blob_rows_put(bridge->blob, &rows, row);
        }
    }
}

static void piece_copy(struct abode_llama *bridge, const struct ab_blob *blob,
                       const struct ab_llama_piece *piece, enum direction direction)
{
    const struct ab_blob_shape *shape = &bridge->layout.shapes[piece->section];
    uint32_t plane_first = piece->section == 0 ? 1 : 0; /* plane 0 of component 0: token ids */
    for (uint32_t t = 0; t < shape->layer_count + shape->v_count; t++) {
        tensor_copy(bridge, blob, piece, t, piece->base + piece->plane_offsets[plane_first + t],
                    direction);
    }
}

void ab_llama_piece_keep(struct abode_llama *bridge, const struct ab_blob *blob,
                         const struct ab_llama_piece *piece)
{
    piece_copy(bridge, blob, piece, KEEP);
}

void ab_llama_piece_restore(struct abode_llama *bridge, const struct ab_blob *blob,
                            const struct ab_llama_piece *piece)
{
    piece_copy(bridge, blob, piece, RESTORE);
}

bool ab_llama_row_is_same(struct abode_llama *bridge, const struct ab_blob *blob,
                          const struct ab_llama_piece *piece)
{
    const struct ab_blob_shape *shape = &bridge->layout.shapes[piece->section];
    bool same = true;
    for (uint32_t t = 0; same && t < shape->layer_count + shape->v_count; t++) {
        const size_t bytes = (size_t)piece->count * shape->tensors[t].row_bytes;
        tensor_copy(bridge, blob, piece, t, bridge->row, KEEP);
        same = memcmp(bridge->row, piece->base + piece->plane_offsets[1 + t], bytes) == 0;
    }
    return same;
}

/* ---- keys ----------------------------------------------------------------------------------------
 * A row's key is SHA-256 of the chain of all tokens up to its end and of XXH3-128 of its bytes. The
 * chain keeps other conversations out; the second hash has to tell apart only what llama.cpp makes of
 * the same tokens (prompts cut into other batches are summed in another order), and runs ten times as
 * fast as SHA-256 over all bytes, which took as long as writing them.
 */
static void tensor_hash(struct abode_llama *bridge, const struct ab_blob *blob,
                        const struct ab_llama_piece *piece, uint32_t tensor, XXH3_state_t *hash)
{
    const struct ab_blob_tensor *about = &bridge->layout.shapes[piece->section].tensors[tensor];
    const uint32_t *cell_of = bridge->cell_of[piece->section] + piece->position;
    const size_t row_bytes = about->row_bytes;
    bool in_place = about->element_bytes == 0 && cell_of[0] != AB_BLOB_CELL_NONE;
    for (uint32_t i = 1; i < piece->count; i++) {
        in_place = in_place && cell_of[i] == cell_of[0] + i;
    }
    const unsigned char *bytes = bridge->row;
    if (in_place) {
        bytes = bridge->blob + blob->sections[piece->section].data[tensor] + cell_of[0] * row_bytes;
    } else {
        tensor_copy(bridge, blob, piece, tensor, bridge->row, KEEP);
    }
    (void)XXH3_128bits_update(hash, bytes, piece->count * row_bytes);
}

static void row_key(struct abode_llama *bridge, const struct ab_blob *blob, uint32_t row)
{
    const struct ab_blob_shape *shape = &bridge->layout.shapes[0];
    const struct ab_llama_piece piece = {.position = row * bridge->block_tokens,
                                         .count = bridge->block_tokens};
    (void)XXH3_128bits_reset(bridge->hash);
    for (uint32_t t = 0; t < shape->layer_count + shape->v_count; t++) {
        tensor_hash(bridge, blob, &piece, t, bridge->hash);
    }
    struct {
        struct abode_key chain;
        XXH128_canonical_t bytes;
    } about = {.chain = bridge->chain};
    XXH128_canonicalFromHash(&about.bytes, XXH3_128bits_digest(bridge->hash));
    abode_key_from_bytes(&about, sizeof(about), &bridge->keys[row]);
}

void ab_llama_keys_begin(struct abode_llama *bridge)
{
    abode_key_root(bridge->tag, NULL, 0, NULL, 0, &bridge->chain);
    bridge->chain_rows = 0;
}

void ab_llama_keys_make(struct abode_llama *bridge, const struct ab_blob *blob,
                        const llama_token *tokens, uint32_t row_first, uint32_t row_end)
{
    const uint32_t count = bridge->block_tokens;
    for (; bridge->chain_rows < row_end; bridge->chain_rows++) {
        const uint32_t row = bridge->chain_rows;
        const struct abode_key before = bridge->chain;
        abode_key_next(&before, (const uint32_t *)tokens + (size_t)row * count, count,
                       &bridge->chain);
        if (row >= row_first) {
            row_key(bridge, blob, row);
        }
    }
}
