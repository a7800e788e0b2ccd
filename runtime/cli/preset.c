/*
 * preset.c - the table of models, geometries in words, and scaling.
 */
#include "preset.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define WORDS_BYTES_MAX 256
#define SCALE_MAX 1024.0

/* Two planes (K and V) a layer of `heads` KV heads of `size` elements of 2 bytes. */
#define ATTENTION(layers, heads, size) ABODE_PAGED, (layers)*2, (heads) * (size)*2, 0
#define SLIDING(layers, heads, size, window) ABODE_WINDOW, (layers)*2, (heads) * (size)*2, window

static const struct preset presets[] = {
    {"llama-3.1-8b", "Llama-3.1-8B: 32 layers, 8 KV heads of 128", 1, {{ATTENTION(32, 8, 128)}}},
    {"llama-3.1-70b", "Llama-3.1-70B: 80 layers, 8 KV heads of 128", 1, {{ATTENTION(80, 8, 128)}}},
    {"qwen3-8b", "Qwen3-8B: 36 layers, 8 KV heads of 128", 1, {{ATTENTION(36, 8, 128)}}},
    {"qwen3-32b", "Qwen3-32B: 64 layers, 8 KV heads of 128", 1, {{ATTENTION(64, 8, 128)}}},
    {"deepseek-v3",
     "DeepSeek-V3: 61 layers, MLA: kv_lora_rank 512 + qk_rope_head_dim 64",
     1,
     {{ABODE_PAGED, 61, (512 + 64) * 2, 0}}},
    {"gpt-oss-20b",
     "gpt-oss-20b: 24 layers, 8 KV heads of 64, every other one with a window of 128",
     2,
     {{ATTENTION(12, 8, 64)}, {SLIDING(12, 8, 64, 128)}}},
    {"gpt-oss-120b",
     "gpt-oss-120b: 36 layers, 8 KV heads of 64, every other one with a window of 128",
     2,
     {{ATTENTION(18, 8, 64)}, {SLIDING(18, 8, 64, 128)}}},
    {"gemma-3-4b",
     "Gemma-3-4B: 34 layers, 4 KV heads of 256, 5 of 6 with a window of 1,024",
     2,
     {{ATTENTION(5, 4, 256)}, {SLIDING(29, 4, 256, 1024)}}},
    {"gemma-3-27b",
     "Gemma-3-27B: 62 layers, 16 KV heads of 128, 5 of 6 with a window of 1,024",
     2,
     {{ATTENTION(10, 16, 128)}, {SLIDING(52, 16, 128, 1024)}}},
    /* Recurrent state in 4 bytes an element: 32 value heads x 128 x 128; convolution: the last 3 of
     * (2 x 16 key heads + 32 value heads) x 128 channels in 2 bytes (linear_conv_kernel_dim 4). */
    {"qwen3-next",
     "Qwen3-Next-80B-A3B: 48 layers, 12 full (2 KV heads of 256), 36 gated delta net",
     3,
     {{ATTENTION(12, 2, 256)},
      {ABODE_SNAPSHOT, 36, 32 * 128 * 128 * 4, 0},
      {ABODE_SNAPSHOT, 36, (2 * 16 + 32) * 128 * 3 * 2, 0}}},
};
#define PRESET_COUNT (sizeof(presets) / sizeof(presets[0]))

const struct preset *preset_list(uint32_t *ret_count)
{
    *ret_count = (uint32_t)PRESET_COUNT;
    return presets;
}

const char *preset_names(void)
{
    return "llama-3.1-8b, llama-3.1-70b, qwen3-8b, qwen3-32b, deepseek-v3, gpt-oss-20b, "
           "gpt-oss-120b, gemma-3-4b, gemma-3-27b, qwen3-next";
}

static bool part_is_fixed(const struct preset_part *part)
{
    return part->kind == ABODE_SNAPSHOT || part->kind == ABODE_BYTES;
}

/* ---- geometry in words ----------------------------------------------------------------------- */

static uint32_t kind_read(const char *word, size_t length)
{
    static const struct {
        const char *name;
        uint32_t kind;
    } kinds[] = {{"paged", ABODE_PAGED},
                 {"window", ABODE_WINDOW},
                 {"snapshot", ABODE_SNAPSHOT},
                 {"bytes", ABODE_BYTES}};

    for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
        if (strlen(kinds[i].name) == length && strncmp(kinds[i].name, word, length) == 0) {
            return kinds[i].kind;
        }
    }
    return 0;
}

/* A number from 1 to max at *at, which moves behind it; 0: none there. */
static uint32_t number_read(const char **at, uint32_t max)
{
    uint64_t number = 0;
    for (; **at >= '0' && **at <= '9'; (*at)++) {
        number = number * 10 + (uint64_t)(**at - '0');
        if (number > max) {
            return 0;
        }
    }
    return (uint32_t)number;
}

/* One "KIND:PLANESxBYTES[@TOKENS]"; false: it is none. BYTES alone means one plane. */
static bool part_read(const char *word, struct preset_part *ret)
{
    const char *const colon = strchr(word, ':');
    struct preset_part part = {.plane_count = 1};

    if (colon == NULL) {
        return false;
    }
    part.kind = kind_read(word, (size_t)(colon - word));
    const char *at = colon + 1;
    part.plane_bytes = number_read(&at, PRESET_PLANE_BYTES_MAX);
    if (*at == 'x') {
        part.plane_count = part.plane_bytes;
        at++;
        part.plane_bytes = number_read(&at, PRESET_PLANE_BYTES_MAX);
    }
    const bool windowed = *at == '@';
    if (windowed) {
        at++;
        part.window_tokens = number_read(&at, PRESET_WINDOW_TOKENS_MAX);
    }
    const bool window_agrees =
        (part.kind == ABODE_WINDOW) == windowed && windowed == (part.window_tokens > 0);
    if (part.kind == 0 || part.plane_bytes == 0 || part.plane_count == 0 ||
        part.plane_count > ABODE_PLANES_MAX || *at != '\0' || !window_agrees ||
        (part.kind == ABODE_BYTES && part.plane_count != 1)) {
        return false;
    }
    *ret = part;
    return true;
}

static int words_read(const char *text, struct preset *ret, char *ret_why, size_t why_bytes)
{
    char words[WORDS_BYTES_MAX];
    char *rest = words;
    struct preset preset = {.name = text, .source = "given on the command line"};

    if (strlen(text) >= sizeof(words)) {
        (void)snprintf(ret_why, why_bytes, "more than %zu characters", sizeof(words) - 1);
        return -EINVAL;
    }
    memcpy(words, text, strlen(text) + 1);
    for (char *word; (word = strsep(&rest, ",")) != NULL;) {
        if (preset.part_count == PRESET_PARTS_MAX) {
            (void)snprintf(ret_why, why_bytes, "more than %d components", PRESET_PARTS_MAX);
            return -EINVAL;
        }
        if (!part_read(word, &preset.parts[preset.part_count])) {
            (void)snprintf(ret_why, why_bytes, "\"%.60s\" is not KIND:PLANESxBYTES[@TOKENS]", word);
            return -EINVAL;
        }
        preset.part_count++;
    }
    *ret = preset;
    return 0;
}

int preset_find(const char *text, struct preset *ret_preset, char *ret_why, size_t why_bytes)
{
    for (size_t i = 0; i < PRESET_COUNT; i++) {
        if (strcasecmp(presets[i].name, text) == 0) {
            *ret_preset = presets[i];
            return 0;
        }
    }
    if (strchr(text, ':') == NULL) {
        (void)snprintf(ret_why, why_bytes, "no such model");
        return -ENOENT;
    }
    return words_read(text, ret_preset, ret_why, why_bytes);
}

/* ---- scaling --------------------------------------------------------------------------------- */

static uint64_t plane_scaled(const struct preset_part *part, double scale)
{
    const double bytes = round((double)part->plane_bytes * scale);
    const double least = part_is_fixed(part) ? PRESET_PLANE_BYTES_MIN : 1;
    const double full = (double)part->plane_bytes < least ? (double)part->plane_bytes : least;

    return (uint64_t)(bytes < full ? full : bytes);
}

uint64_t preset_token_bytes(const struct preset *preset, double scale)
{
    uint64_t bytes = 0;
    for (uint32_t i = 0; i < preset->part_count; i++) {
        if (!part_is_fixed(&preset->parts[i])) {
            bytes += preset->parts[i].plane_count * plane_scaled(&preset->parts[i], scale);
        }
    }
    return bytes;
}

/* The largest alignment up to a cache line that a plane of so many bytes fills without a gap. */
static uint32_t align_for(uint64_t bytes)
{
    uint32_t align = 64;
    while (bytes % align != 0) {
        align /= 2;
    }
    return align;
}

static int component_make(const struct preset_part *part, uint32_t block_tokens,
                          struct abode_plane *planes, struct abode_component *ret)
{
    const uint64_t tokens = part_is_fixed(part) ? 1 : block_tokens;
    const uint64_t bytes = part->plane_bytes * tokens;

    if (bytes > PRESET_PLANE_BYTES_MAX) {
        return -EINVAL;
    }
    *ret = (struct abode_component){.kind = part->kind, .window_tokens = part->window_tokens};
    if (part_is_fixed(part)) {
        ret->snapshots_kept = PRESET_SNAPSHOTS_KEPT;
    }
    if (part->kind == ABODE_BYTES) {
        ret->bytes_max = bytes;
        return 0;
    }
    ret->plane_count = part->plane_count;
    ret->planes = planes;
    for (uint32_t i = 0; i < part->plane_count; i++) {
        planes[i] =
            (struct abode_plane){.bytes_per_block = (uint32_t)bytes, .align = align_for(bytes)};
    }
    return 0;
}

static void geometry_add_up(struct geometry *geometry, const struct preset *preset)
{
    geometry->token_bytes_real = preset_token_bytes(preset, 1);
    geometry->token_bytes = 0;
    geometry->fixed_bytes = 0;
    geometry->shares_prefixes = true;
    for (uint32_t i = 0; i < geometry->part_count; i++) {
        const struct preset_part *const part = &geometry->parts[i];
        const uint64_t bytes = (uint64_t)part->plane_count * part->plane_bytes;
        if (part_is_fixed(part)) {
            geometry->fixed_bytes += bytes;
            geometry->shares_prefixes = false;
        } else {
            geometry->token_bytes += bytes;
        }
    }
}

int geometry_make(const struct preset *preset, double scale, uint32_t block_tokens,
                  struct geometry *ret_geometry)
{
    struct geometry geometry = {
        .part_count = preset->part_count, .block_tokens = block_tokens, .scale = scale};
    uint32_t plane_count = 0;

    if (!(scale > 0 && scale <= SCALE_MAX) || block_tokens < 1 || block_tokens > 65536) {
        return -EINVAL;
    }
    (void)snprintf(geometry.name, sizeof(geometry.name), "%s", preset->name);
    for (uint32_t i = 0; i < preset->part_count; i++) {
        const uint64_t bytes = plane_scaled(&preset->parts[i], scale);
        if (bytes > PRESET_PLANE_BYTES_MAX) {
            return -EINVAL;
        }
        geometry.parts[i] = preset->parts[i];
        geometry.parts[i].plane_bytes = (uint32_t)bytes;
        plane_count += preset->parts[i].plane_count;
    }
    geometry.planes = calloc(plane_count, sizeof(*geometry.planes));
    if (geometry.planes == NULL) {
        return -ENOMEM;
    }
    uint32_t plane_first = 0;
    for (uint32_t i = 0; i < preset->part_count; i++) {
        const int rc = component_make(&geometry.parts[i], block_tokens,
                                      geometry.planes + plane_first, &geometry.components[i]);
        if (rc < 0) {
            free(geometry.planes);
            return rc;
        }
        plane_first += geometry.parts[i].plane_count;
    }
    geometry_add_up(&geometry, preset);
    *ret_geometry = geometry;
    return 0;
}

void geometry_free(struct geometry *geometry)
{
    free(geometry->planes);
    *geometry = (struct geometry){0};
}
