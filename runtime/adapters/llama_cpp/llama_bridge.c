/*
 * llama_bridge.c - opening a bridge: learn the layout from a blob of one token, declare the model.
 */
#include "llama_bridge.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <xxhash.h>

#define SESSION_TOKENS_MAX (1u << 18) /* the same for every context length: it is geometry */
#define BLOCK_BYTES_LARGE (32u << 10) /* a token of this size: blocks of fewer tokens */
#define WHOLE_BYTES_MAX (48u << 20)   /* fits an extent of the default segment size */
#define HUGE_BYTES ((size_t)2 << 20)
#define TRIES_MAX 5000u
#define QUEUE_DEPTH 4u

static _Thread_local char open_reason[AB_LLAMA_REASON_MAX];

int ab_llama_because(struct abode_llama *bridge, int status, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    (void)vsnprintf(bridge->reason, sizeof(bridge->reason), format, arguments);
    va_end(arguments);
    return status;
}

static void blob_drop(struct abode_llama *bridge)
{
    if (bridge->blob != NULL) {
        (void)munmap(bridge->blob, bridge->blob_capacity);
    }
    bridge->blob = NULL;
    bridge->blob_capacity = 0;
}

/* Half as much again as is asked for: a conversation grows with each turn, and pages that are touched
 * for the first time cost as much as four copies. Pages that are not touched cost nothing. */
int ab_llama_blob_room(struct abode_llama *bridge, size_t size)
{
    if (size <= bridge->blob_capacity) {
        return 0;
    }
    if (size > SIZE_MAX / 2) {
        return -ENOMEM;
    }
    const size_t capacity = (size + size / 2 + HUGE_BYTES - 1) / HUGE_BYTES * HUGE_BYTES;
    blob_drop(bridge); /* nothing in it is kept: no copy */
    void *bytes = mmap(NULL, capacity, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (bytes == MAP_FAILED) {
        return -ENOMEM;
    }
    (void)madvise(bytes, capacity, MADV_HUGEPAGE);
    bridge->blob = bytes;
    bridge->blob_capacity = capacity;
    return 0;
}

int ab_llama_finish(struct abode_llama *bridge, struct abode_op *op, int started)
{
    struct abode_op *done = op;
    if (started < 0) {
        return started;
    }
    int count = abode_poll(bridge->queue, &done, 1, -1);
    return count < 0 ? count : op->status;
}

bool ab_llama_pause(uint32_t *tries)
{
    const struct timespec pause = {.tv_nsec = 1000000};
    (void)nanosleep(&pause, NULL);
    return ++*tries < TRIES_MAX;
}

/* ---- layout ------------------------------------------------------------------------------------- */

static int probe(struct abode_llama *bridge, llama_seq_id sequence, size_t *ret_size)
{
    llama_memory_t memory = llama_get_memory(bridge->context);
    llama_token token = 0;
    llama_pos position = 0;
    int32_t sequence_count = 1;
    llama_seq_id *sequences = &sequence;
    int8_t wanted = 1;
    struct llama_batch batch = {.n_tokens = 1,
                                .token = &token,
                                .pos = &position,
                                .n_seq_id = &sequence_count,
                                .seq_id = &sequences,
                                .logits = &wanted};
    if (memory == NULL || !llama_memory_seq_rm(memory, sequence, -1, -1)) {
        return ab_llama_because(bridge, -ENOTSUP, "this context keeps no state of sequences");
    }
    if (llama_decode(bridge->context, batch) != 0) {
        return ab_llama_because(bridge, -ENOTSUP, "one token could not be decoded in sequence %d",
                                (int)sequence);
    }
    size_t size = llama_state_seq_get_size(bridge->context, sequence);
    int status = ab_llama_blob_room(bridge, size);
    if (status == 0 &&
        llama_state_seq_get_data(bridge->context, bridge->blob, size, sequence) != size) {
        status = ab_llama_because(bridge, -EIO, "llama.cpp gave no state of one token");
    }
    (void)llama_memory_seq_rm(memory, sequence, -1, -1);
    *ret_size = size;
    return status;
}

static void layout_say(struct abode_llama *bridge, bool asked)
{
    char *text = bridge->layout_text;
    const size_t room = sizeof(bridge->layout_text);
    if (bridge->whole) {
        (void)snprintf(text, room, "whole: %s",
                       asked ? "asked for" : "the layout of the blob is not known");
        return;
    }
    text[0] = 0;
    for (uint32_t s = 0; s < bridge->layout.section_count; s++) {
        size_t at = strlen(text);
        bool recurrent = bridge->layout.shapes[s].kind == AB_BLOB_RECURRENT;
        (void)snprintf(text + at, room - at, "%s%s", s > 0 ? " + " : "",
                       recurrent ? "recurrent"
                       : s > 0   ? "window"
                                 : "attention");
    }
}

static uint32_t tensor_count(const struct ab_blob_shape *shape)
{
    return shape->layer_count + shape->v_count;
}

static void layout_read(struct abode_llama *bridge, const void *blob, size_t size, bool whole)
{
    const bool has_window = llama_model_n_swa(llama_get_model(bridge->context)) > 0;
    bridge->whole = whole || ab_blob_detect(blob, size, &bridge->layout) < 0 ||
                    (ab_llama_attentions(bridge) > 1 && !has_window);
    if (bridge->whole) {
        memset(&bridge->layout, 0, sizeof(bridge->layout));
    }
    layout_say(bridge, whole);
    for (uint32_t s = 0; s < bridge->layout.section_count; s++) {
        const struct ab_blob_shape *shape = &bridge->layout.shapes[s];
        for (uint32_t t = 0; shape->kind == AB_BLOB_ATTENTION && t < tensor_count(shape); t++) {
            bridge->token_bytes += shape->tensors[t].row_bytes;
        }
    }
}

/* ---- model -------------------------------------------------------------------------------------- */

struct declaration {
    struct abode_component components[ABODE_COMPONENTS_MAX];
    struct abode_plane planes[AB_BLOB_SECTIONS_MAX][ABODE_PLANES_MAX];
};

static struct abode_component *component_add(struct abode_llama *bridge,
                                             struct declaration *declaration, uint32_t kind)
{
    struct abode_component *component = &declaration->components[bridge->component_count++];
    component->kind = kind;
    component->snapshots_kept =
        kind == ABODE_PAGED || kind == ABODE_WINDOW ? 0 : ABODE_LLAMA_POINTS;
    return component;
}

static void planes_of(const struct abode_llama *bridge, const struct ab_blob_shape *shape,
                      struct abode_plane *planes, uint32_t *count)
{
    for (uint32_t t = 0; shape->kind == AB_BLOB_ATTENTION && t < tensor_count(shape); t++) {
        planes[(*count)++].bytes_per_block = shape->tensors[t].row_bytes * bridge->block_tokens;
    }
}

/* Component 0 is PAGED: token ids, and the first section if that is attention. */
static void components_make(struct abode_llama *bridge, const struct abode_llama_opts *opts,
                            struct declaration *declaration)
{
    const struct ab_blob_layout *layout = &bridge->layout;
    struct abode_component *component = component_add(bridge, declaration, ABODE_PAGED);
    declaration->planes[0][0].bytes_per_block =
        (uint32_t)sizeof(llama_token) * bridge->block_tokens;
    component->plane_count = 1;
    component->planes = declaration->planes[0];
    for (uint32_t s = 0; s < layout->section_count; s++) {
        const struct ab_blob_shape *shape = &layout->shapes[s];
        bridge->component_of[s] = bridge->component_count;
        if (shape->kind == AB_BLOB_RECURRENT) {
            component = component_add(bridge, declaration, ABODE_SNAPSHOT);
            declaration->planes[s][ABODE_PLANES_MAX - 1].bytes_per_block = shape->recurrent_bytes;
            component->planes = &declaration->planes[s][ABODE_PLANES_MAX - 1];
            component->plane_count = 1;
        } else if (s == 0) {
            bridge->component_of[s] = 0;
            planes_of(bridge, shape, declaration->planes[0], &component->plane_count);
        } else {
            component = component_add(bridge, declaration, ABODE_WINDOW);
            component->window_tokens =
                (uint32_t)llama_model_n_swa(llama_get_model(bridge->context));
            component->planes = declaration->planes[s];
            planes_of(bridge, shape, declaration->planes[s], &component->plane_count);
        }
    }
    if (bridge->whole) {
        bridge->whole_component = bridge->component_count;
        component = component_add(bridge, declaration, ABODE_BYTES);
        component->bytes_max = opts->whole_bytes_max != 0 ? opts->whole_bytes_max : WHOLE_BYTES_MAX;
        component->snapshots_kept = 1;
    } else if (bridge->component_count > 1) { /* order and state change together */
        bridge->order_place = AB_LLAMA_ORDER_BYTES;
        bridge->order_component = bridge->component_count;
        component_add(bridge, declaration, ABODE_BYTES)->bytes_max = AB_LLAMA_ORDER_MAX;
    } else {
        bridge->order_place = AB_LLAMA_ORDER_NOTE;
        bridge->share = (opts->flags & ABODE_LLAMA_PRIVATE) == 0;
    }
}

static int model_declare(struct abode_llama *bridge, const struct abode_llama_opts *opts)
{
    struct declaration *declaration = calloc(1, sizeof(*declaration));
    if (declaration == NULL) {
        return -ENOMEM;
    }
    components_make(bridge, opts, declaration);
    int status = ab_llama_identify(bridge, opts);
    if (status == 0) {
        status = ab_llama_about_add(bridge);
    }
    if (status == 0) {
        struct abode_model_desc desc = {.struct_size = sizeof(desc),
                                        .component_count = bridge->component_count,
                                        .components = declaration->components,
                                        .block_tokens = bridge->block_tokens,
                                        .session_tokens_max = SESSION_TOKENS_MAX,
                                        .session_tokens_typical = bridge->tokens_max};
        memcpy(desc.tag, bridge->tag, sizeof(desc.tag));
        status = abode_model_add(bridge->runtime, &desc, &bridge->model);
    }
    if (status < 0 && bridge->reason[0] == 0) {
        (void)ab_llama_because(bridge, status, "model: %s (the runtime's log says more)",
                               abode_strerror(status));
    }
    free(declaration);
    return status;
}

static int scratch_make(struct abode_llama *bridge)
{
    uint32_t rows = bridge->tokens_max / bridge->block_tokens + 2;
    bridge->spans = calloc(AB_LLAMA_SPANS_MAX, sizeof(*bridge->spans));
    bridge->keys = calloc(rows, sizeof(*bridge->keys));
    bridge->row = malloc(((size_t)bridge->token_bytes + 1) * bridge->block_tokens);
    for (uint32_t s = 0; s < AB_LLAMA_ATTENTIONS_MAX; s++) {
        bridge->cell_of[s] = calloc(bridge->tokens_max, sizeof(*bridge->cell_of[s]));
    }
    bridge->hash = XXH3_createState();
    return bridge->spans == NULL || bridge->keys == NULL || bridge->row == NULL ||
                   bridge->hash == NULL || bridge->cell_of[0] == NULL || bridge->cell_of[1] == NULL
               ? -ENOMEM
               : 0;
}

static int open_with(struct abode_llama *bridge, const struct abode_llama_opts *opts)
{
    size_t size = 0;
    uint32_t context_tokens = llama_n_ctx_seq(bridge->context);
    bridge->tokens_max = context_tokens < SESSION_TOKENS_MAX ? context_tokens : SESSION_TOKENS_MAX;
    bridge->order = calloc(1, AB_LLAMA_ORDER_MAX);
    int status = bridge->order == NULL
                     ? -ENOMEM
                     : abode_queue_open(bridge->runtime, QUEUE_DEPTH, &bridge->queue);
    status = status < 0 ? status : abode_queue_open(bridge->runtime, 1, &bridge->leaving.queue);
    if (status == 0 && opts->example == NULL) {
        status = probe(bridge, opts->probe_sequence, &size);
    }
    if (status < 0) {
        return status;
    }
    bool whole = (opts->flags & ABODE_LLAMA_WHOLE) != 0;
    if (opts->example == NULL) {
        layout_read(bridge, bridge->blob, size, whole);
    } else {
        layout_read(bridge, opts->example, opts->example_size, whole);
    }
    bridge->block_tokens = opts->block_tokens != 0                    ? opts->block_tokens
                           : bridge->token_bytes == 0                 ? 256
                           : bridge->token_bytes >= BLOCK_BYTES_LARGE ? 8
                                                                      : 16;
    status = scratch_make(bridge);
    return status < 0 ? status : model_declare(bridge, opts);
}

int abode_llama_open(const struct abode_llama_opts *opts, struct abode_llama **ret)
{
    open_reason[0] = 0;
    if (opts == NULL || ret == NULL || opts->struct_size != sizeof(*opts) ||
        opts->runtime == NULL || opts->context == NULL || opts->params == NULL ||
        (opts->weights_path == NULL && opts->weights_digest == NULL)) {
        return -EINVAL;
    }
    struct abode_llama *bridge = calloc(1, sizeof(*bridge));
    if (bridge == NULL) {
        return -ENOMEM;
    }
    bridge->runtime = opts->runtime;
    bridge->context = opts->context;
    int status = open_with(bridge, opts);
    if (status < 0) {
        memcpy(open_reason, bridge->reason, sizeof(open_reason));
        (void)abode_llama_close(bridge);
        return status;
    }
    *ret = bridge;
    return 0;
}

int abode_llama_close(struct abode_llama *bridge)
{
    if (bridge == NULL) {
        return 0;
    }
    (void)ab_llama_leaving_end(bridge);
    struct abode_queue *queues[] = {bridge->queue, bridge->leaving.queue};
    for (uint32_t i = 0; i < 2; i++) {
        const int status = queues[i] == NULL ? 0 : abode_queue_close(queues[i]);
        if (status < 0) {
            return status;
        }
    }
    for (uint32_t s = 0; s < AB_LLAMA_ATTENTIONS_MAX; s++) {
        free(bridge->cell_of[s]);
    }
    free(bridge->spans);
    free(bridge->keys);
    free(bridge->row);
    (void)XXH3_freeState(bridge->hash);
    free(bridge->order);
    blob_drop(bridge);
    free(bridge);
    return 0;
}

const char *abode_llama_reason(const struct abode_llama *bridge)
{
    return bridge == NULL ? open_reason : bridge->reason;
}

const char *abode_llama_layout(const struct abode_llama *bridge)
{
    return bridge->layout_text;
}
