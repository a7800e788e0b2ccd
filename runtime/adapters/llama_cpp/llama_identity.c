/*
 * llama_identity.c - what state means: a description in lines "what=value", whose digest is the
 * model's tag. llama.cpp checks almost nothing of this when it reads a blob.
 *
 * All descriptions that a store has seen are kept as the note of one small session, so that a miss
 * can say what differs: the same conversation is looked for under each of them.
 */
#include "llama_bridge.h"

#include <errno.h>
#include <fcntl.h>
#include <ggml.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* A model of up to SAMPLES x SAMPLE_BYTES is hashed whole; of a larger one as much, spread evenly. */
#define SAMPLES 256u
#define SAMPLE_BYTES (256u << 10)

static void hex(const uint8_t *bytes, size_t size, char *ret_text)
{
    for (size_t i = 0; i < size; i++) {
        (void)snprintf(ret_text + 2 * i, 3, "%02x", bytes[i]);
    }
}

static int sample_hash(int fd, uint64_t offset, unsigned char *buffer, struct abode_key *chain)
{
    size_t filled = 0;
    while (filled < SAMPLE_BYTES) {
        ssize_t got = pread(fd, buffer + sizeof(*chain) + filled, SAMPLE_BYTES - filled,
                            (off_t)(offset + filled));
        if (got < 0 && errno != EINTR) {
            return -errno;
        }
        if (got == 0) {
            break;
        }
        filled += got > 0 ? (size_t)got : 0;
    }
    memcpy(buffer, chain, sizeof(*chain));
    abode_key_from_bytes(buffer, sizeof(*chain) + filled, chain);
    return 0;
}

static int weights_hash(const char *path, struct abode_key *ret)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        return -errno;
    }
    struct stat about;
    unsigned char *buffer = malloc(sizeof(*ret) + SAMPLE_BYTES);
    int status = buffer == NULL ? -ENOMEM : fstat(fd, &about) < 0 ? -errno : 0;
    if (status == 0) {
        uint64_t size = (uint64_t)about.st_size;
        uint64_t step = size / SAMPLES > SAMPLE_BYTES ? size / SAMPLES : SAMPLE_BYTES;
        abode_key_from_bytes(&size, sizeof(size), ret);
        for (uint64_t at = 0; at < size && status == 0; at += step) {
            status = sample_hash(fd, at, buffer, ret);
        }
        if (status == 0 && size > SAMPLE_BYTES) {
            status = sample_hash(fd, size - SAMPLE_BYTES, buffer, ret);
        }
    }
    free(buffer);
    close(fd);
    return status;
}

static void describe(struct abode_llama *bridge, const struct abode_llama_opts *opts,
                     const uint8_t weights[32])
{
    const struct llama_context_params *params = opts->params;
    const struct ab_blob_shape *shape = &bridge->layout.shapes[0];
    bool attention = !bridge->whole && shape->kind == AB_BLOB_ATTENTION && shape->layer_count > 0;
    bool has_v = attention && shape->v_count > 0;
    const struct llama_model *model = llama_get_model(bridge->context);
    struct abode_key rows, extra;
    char weights_text[33], rows_text[33], extra_text[33];
    abode_key_from_bytes(&bridge->layout, sizeof(bridge->layout), &rows);
    abode_key_from_bytes(opts->extra, opts->extra_size, &extra);
    hex(weights, 16, weights_text);
    hex(rows.bytes, 16, rows_text);
    hex(extra.bytes, 16, extra_text);
    (void)snprintf(
        bridge->description, sizeof(bridge->description),
        "weights=%s\nbuild=llama.cpp %s, ggml %s %s\ntype_k=%s\ntype_v=%s\nflash_attention=%s\n"
        "streams=%u\nrope=type %d base %a scale %a yarn %a %a %a %a %u, past training %d\n"
        "attention=%d\nlayout=%s, window %d\nrows=%s\nblocks=%u tokens\nextra=%s\n",
        weights_text, llama_version(), ggml_version(), ggml_commit(),
        attention ? ggml_type_name((enum ggml_type)shape->tensors[0].type) : "none",
        has_v ? ggml_type_name((enum ggml_type)shape->tensors[shape->layer_count].type) : "none",
        !has_v           ? "none"
        : shape->v_trans ? "off"
                         : "on",
        shape->stream_count, (int)params->rope_scaling_type, (double)params->rope_freq_base,
        (double)params->rope_freq_scale, (double)params->yarn_ext_factor,
        (double)params->yarn_attn_factor, (double)params->yarn_beta_fast,
        (double)params->yarn_beta_slow, params->yarn_orig_ctx,
        llama_n_ctx_seq(bridge->context) > (uint32_t)llama_model_n_ctx_train(model),
        (int)params->attention_type, bridge->layout_text, llama_model_n_swa(model), rows_text,
        bridge->block_tokens, extra_text);
    if (bridge->whole) { /* nothing of it can be read off a blob */
        size_t at = strlen(bridge->description);
        (void)snprintf(bridge->description + at, sizeof(bridge->description) - at,
                       "asked=type_k %d, type_v %d, flash attention %d, unified %d, sequences %u\n",
                       (int)params->type_k, (int)params->type_v, (int)params->flash_attn_type,
                       params->kv_unified, params->n_seq_max);
    }
}

int ab_llama_identify(struct abode_llama *bridge, const struct abode_llama_opts *opts)
{
    struct abode_key key;
    if (opts->weights_digest != NULL) {
        memcpy(key.bytes, opts->weights_digest, sizeof(key.bytes));
    } else {
        int status = weights_hash(opts->weights_path, &key);
        if (status < 0) {
            return ab_llama_because(bridge, status, "weights %s: %s", opts->weights_path,
                                    abode_strerror(status));
        }
    }
    describe(bridge, opts, key.bytes);
    abode_key_from_bytes(bridge->description, strlen(bridge->description), &key);
    memcpy(bridge->tag, key.bytes, sizeof(bridge->tag));
    return 0;
}

/* ---- descriptions that the store has seen --------------------------------------------------------- */

static int about_declare(struct abode_llama *bridge)
{
    static const struct abode_plane plane = {64, 0};
    static const struct abode_component component = {
        .kind = ABODE_PAGED, .plane_count = 1, .planes = &plane};
    struct abode_model_desc desc = {.struct_size = sizeof(desc),
                                    .component_count = 1,
                                    .components = &component,
                                    .block_tokens = 1,
                                    .session_tokens_max = 16,
                                    .memory_bytes = 256u << 10};
    struct abode_key tag;
    abode_key_from_bytes("abode-llama descriptions 1", 26, &tag);
    memcpy(desc.tag, tag.bytes, sizeof(desc.tag));
    return abode_model_add(bridge->runtime, &desc, &bridge->about_model);
}

static int about_session(struct abode_llama *bridge, bool create, struct abode_session *ret)
{
    struct abode_key name;
    abode_key_from_bytes("abode-llama descriptions", 24, &name);
    int status = abode_session_find(bridge->runtime, &name, ret);
    if (status != -ENOENT || !create) {
        return status;
    }
    struct abode_session_opts opts = {
        .struct_size = sizeof(opts), .model = bridge->about_model, .home_node = -1, .name = &name};
    struct abode_span span;
    status = abode_session_create(bridge->runtime, &opts, ret);
    if (status == 0) {
        status = abode_append_reserve(bridge->runtime, *ret, 1, &span, 1);
    }
    if (status > 0) {
        memset(span.base, 0, 64);
        status = abode_append_commit(bridge->runtime, *ret, 1, NULL, 0);
    }
    struct abode_op op = {0};
    if (status == 0) {
        status = ab_llama_finish(bridge, &op, abode_detach(bridge->queue, *ret, 0, &op));
    }
    return status;
}

/* Descriptions lie one after another in the note, each with its end byte. */
static const char *about_next(const char *text, const char *end)
{
    const char *stop = text < end ? memchr(text, 0, (size_t)(end - text)) : NULL;
    return stop == NULL ? NULL : stop + 1;
}

int ab_llama_about_add(struct abode_llama *bridge)
{
    struct abode_session session;
    char *note = (char *)bridge->order; /* scratch of the size of a note */
    int size = about_declare(bridge);
    size = size < 0 ? size : about_session(bridge, true, &session);
    size = size < 0 ? size : abode_session_note_get(bridge->runtime, session, note, ABODE_NOTE_MAX);
    if (size < 0) {
        return size;
    }
    const char *end = note + size, *next;
    for (const char *at = note; (next = about_next(at, end)) != NULL; at = next) {
        if (strcmp(at, bridge->description) == 0) {
            return 0;
        }
    }
    size_t mine = strlen(bridge->description) + 1, kept = (size_t)size;
    while (kept + mine > ABODE_NOTE_MAX) { /* the oldest go */
        next = about_next(note, note + kept);
        size_t first = next == NULL ? kept : (size_t)(next - note);
        memmove(note, note + first, kept - first);
        kept -= first;
    }
    memcpy(note + kept, bridge->description, mine);
    struct abode_op op = {0};
    int status = ab_llama_finish(bridge, &op, abode_attach(bridge->queue, session, -1, 0, &op));
    if (status == 0) {
        status = abode_session_note_set(bridge->runtime, session, note, kept + mine);
        int left = ab_llama_finish(bridge, &op, abode_detach(bridge->queue, session, 0, &op));
        status = status < 0 ? status : left;
    }
    return status;
}

void ab_llama_session_key(const uint8_t tag[32], struct abode_llama_name name,
                          struct abode_key *ret)
{
    struct abode_key parts[2];
    memcpy(parts[0].bytes, tag, sizeof(parts[0].bytes));
    abode_key_from_bytes(name.bytes, name.size, &parts[1]);
    abode_key_from_bytes(parts, sizeof(parts), ret);
}

/* The first line in which two descriptions differ. */
static void difference(struct abode_llama *bridge, const char *theirs)
{
    const char *mine = bridge->description;
    for (;;) {
        size_t a = strcspn(mine, "\n"), b = strcspn(theirs, "\n");
        if (a != b || memcmp(mine, theirs, a) != 0 || mine[a] == 0 || theirs[b] == 0) {
            (void)ab_llama_because(bridge, 0, "it was saved with %.*s; this context has %.*s",
                                   (int)b, theirs, (int)a, mine);
            return;
        }
        mine += a + 1;
        theirs += b + 1;
    }
}

void ab_llama_miss_reason(struct abode_llama *bridge, struct abode_llama_name name)
{
    struct abode_session session;
    char *note = (char *)bridge->order;
    int size = about_session(bridge, false, &session);
    size = size < 0 ? size : abode_session_note_get(bridge->runtime, session, note, ABODE_NOTE_MAX);
    const char *end = note + (size < 0 ? 0 : size), *next;
    (void)ab_llama_because(bridge, 0, "nothing is kept under this name");
    for (const char *at = note; (next = about_next(at, end)) != NULL; at = next) {
        struct abode_key tag, key;
        abode_key_from_bytes(at, strlen(at), &tag);
        ab_llama_session_key(tag.bytes, name, &key);
        if (strcmp(at, bridge->description) != 0 &&
            abode_session_find(bridge->runtime, &key, &session) != -ENOENT) {
            difference(bridge, at); /* the newest wins */
        }
    }
}
