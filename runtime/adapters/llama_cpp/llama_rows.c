/*
 * llama_rows.c - rows between a blob (cells in llama.cpp's order) and blocks (tokens in theirs).
 * bridge->cell_of says where the cell of a token is.
 */
#include "llama_bridge.h"

#include <string.h>

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

void ab_llama_row_key(struct abode_llama *bridge, const struct ab_blob *blob, uint32_t row,
                      const llama_token *tokens, struct abode_key *ret)
{
    const struct ab_blob_shape *shape = &bridge->layout.shapes[0];
    const uint32_t count = bridge->block_tokens;
    struct ab_llama_piece piece = {.position = row * count, .count = count};
    unsigned char *at = bridge->row;
    memcpy(at, bridge->tag, sizeof(bridge->tag));
    at += sizeof(bridge->tag);
    memcpy(at, &row, sizeof(row));
    at += sizeof(row);
    memcpy(at, tokens + piece.position, count * sizeof(*tokens));
    at += count * sizeof(*tokens);
    for (uint32_t t = 0; t < shape->layer_count + shape->v_count; t++) {
        tensor_copy(bridge, blob, &piece, t, at, KEEP);
        at += (size_t)count * shape->tensors[t].row_bytes;
    }
    abode_key_from_bytes(bridge->row, (size_t)(at - bridge->row), ret);
}
