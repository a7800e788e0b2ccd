/*
 * preset.h - how many bytes of state real models keep, and smaller copies of the same shape.
 *
 * A preset names the planes of one token for each kind of layer, from the model's published
 * configuration. A geometry is what abode_model_add() wants, made from a preset, a block length
 * and a scale: scale shrinks every plane, keeps their number and order, and never goes under one
 * byte a token (PRESET_PLANE_BYTES_MIN for fixed state). One parallel rank, 2 bytes an element.
 *
 *   full attention    K and V plane a layer: KV heads x head size x 2 bytes
 *   MLA               one latent plane a layer: (KV rank + rope part) x 2 bytes
 *   sliding window    as full attention, only the last window_tokens are needed
 *   linear attention  a recurrent and a convolution state a layer, at one position: SNAPSHOT
 *
 * Or a geometry in words, "paged:64x2048,window:16x2048@1024,snapshot:72x65536,bytes:4096":
 * KIND:PLANESxBYTES, BYTES a token (paged, window) or in all (snapshot, bytes), @TOKENS the window.
 */
#ifndef CLI_PRESET_H
#define CLI_PRESET_H

#include <abode/abode.h>

#define PRESET_PARTS_MAX ABODE_COMPONENTS_MAX
#define PRESET_PLANE_BYTES_MIN 64 /* a fixed-size plane: one cache line */
#define PRESET_PLANE_BYTES_MAX (1u << 30)
#define PRESET_WINDOW_TOKENS_MAX (1u << 20)
#define PRESET_SNAPSHOTS_KEPT 4 /* two turns back: a point before and one after each reply */
#define PRESET_NAME_BYTES 128

struct preset_part {
    uint32_t kind; /* enum abode_component_kind */
    uint32_t plane_count;
    uint32_t plane_bytes;   /* PAGED, WINDOW: of one token; else of the state */
    uint32_t window_tokens; /* WINDOW */
};
struct preset {
    const char *name;
    const char *source; /* which numbers of the model's config.json it comes from */
    uint32_t part_count;
    struct preset_part parts[PRESET_PARTS_MAX];
};
const struct preset *preset_list(uint32_t *ret_count);
const char *preset_names(void); /* "a, b, c" */

struct geometry {
    char name[PRESET_NAME_BYTES];
    struct preset_part parts[PRESET_PARTS_MAX]; /* scaled */
    struct abode_component components[PRESET_PARTS_MAX];
    struct abode_plane *planes; /* of all components, one after another */
    uint32_t part_count;
    uint32_t block_tokens;
    double scale;              /* as asked */
    uint64_t token_bytes;      /* PAGED and WINDOW, one token, as scaled */
    uint64_t token_bytes_real; /* the same at scale 1 */
    uint64_t fixed_bytes;      /* SNAPSHOT and BYTES: one restore point */
    bool shares_prefixes;      /* neither SNAPSHOT nor BYTES */
};

/* Find a preset by name, or read a geometry in words. 0; -ENOENT no such name; -EINVAL: words that
 * do not make a geometry, ret_why (at least 128 bytes) says which. */
int preset_find(const char *text, struct preset *ret_preset, char *ret_why, size_t why_bytes)
    __attribute__((warn_unused_result));
/* -EINVAL: a plane gets too large; -ENOMEM. 0 < scale <= 1024, 1 <= block_tokens <= 65,536. */
int geometry_make(const struct preset *preset, double scale, uint32_t block_tokens,
                  struct geometry *ret_geometry) __attribute__((warn_unused_result));
void geometry_free(struct geometry *geometry);

/* One plane of a token at a scale, at least one byte. */
uint64_t preset_token_bytes(const struct preset *preset, double scale);

#endif
