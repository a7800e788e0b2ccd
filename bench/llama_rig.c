/*
 * llama_rig.c - see llama_rig.h.
 */
#include "llama_rig.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "blob.h"

#define BATCH_TOKENS 512u
#define TOKEN_FIRST 300u /* special ones and bytes are before it, in both models */
#define THREADS_ONE 1    /* one token: more threads wait for each other longer than they compute */
#define THREADS_BATCH 2
#define MEMORY_SPARE_BYTES ((uint64_t)192 << 20)
#define STORE_SPARE_BYTES ((uint64_t)1 << 30)

static void log_quiet(enum ggml_log_level level, const char *text, void *context)
{
    (void)context;
    if (level == GGML_LOG_LEVEL_ERROR) {
        bench_say("llama.cpp: %.*s", (int)strcspn(text, "\n"), text);
    }
}

static void log_store(void *context, int level, const char *line)
{
    (void)context;
    if (level <= ABODE_LOG_WARNING) {
        bench_say("abode: %s", line);
    }
}

int rig_open(const char *model_path, uint32_t tokens_max, struct llama_rig *ret)
{
    memset(ret, 0, sizeof(*ret));
    llama_log_set(log_quiet, NULL);
    ret->model = llama_model_load_from_file(model_path, llama_model_default_params());
    if (ret->model == NULL) {
        return -ENOENT;
    }
    ret->params = llama_context_default_params();
    ret->params.n_ctx = tokens_max + RIG_SLACK_TOKENS;
    ret->params.n_seq_max = 1;
    ret->params.n_batch = ret->params.n_ubatch = BATCH_TOKENS;
    ret->params.n_threads = THREADS_ONE;
    ret->params.n_threads_batch = THREADS_BATCH;
    ret->params.flash_attn_type = LLAMA_FLASH_ATTN_TYPE_ENABLED;
    ret->params.no_perf = true;
    ret->context = llama_init_from_model(ret->model, ret->params);
    ret->tokens_max = ret->params.n_ctx;
    ret->tokens = calloc(ret->tokens_max, sizeof(*ret->tokens));
    if (ret->context == NULL || ret->tokens == NULL) {
        rig_close(ret);
        return -ENOMEM;
    }
    ret->vocabulary = llama_vocab_n_tokens(llama_model_get_vocab(ret->model));
    rig_tokens_draw(ret, 0);
    return 0;
}

void rig_close(struct llama_rig *rig)
{
    (void)rig_store_close(rig);
    if (rig->context != NULL) {
        llama_free(rig->context);
    }
    if (rig->model != NULL) {
        llama_model_free(rig->model);
    }
    free(rig->tokens);
    free(rig->state);
    memset(rig, 0, sizeof(*rig));
}

int rig_store_open(struct llama_rig *rig, const char *directory, uint64_t bytes)
{
    static const uint8_t digest[32] = "the model of this bench";
    struct abode_config config;
    abode_config_init(&config);
    config.flags = ABODE_CREATE;
    config.memory_bytes_max = bytes + bytes / 4 + MEMORY_SPARE_BYTES;
    config.store_bytes_max = 3 * bytes + STORE_SPARE_BYTES;
    config.store_paths = &directory;
    config.store_path_count = 1;
    config.log = log_store;
    int code = abode_open(&config, &rig->runtime);
    if (code < 0) {
        rig->runtime = NULL;
        return code;
    }
    const struct abode_llama_opts opts = {.struct_size = sizeof(opts),
                                          .runtime = rig->runtime,
                                          .context = rig->context,
                                          .params = &rig->params,
                                          .weights_digest = digest};
    code = abode_llama_open(&opts, &rig->bridge);
    if (code < 0) {
        rig->bridge = NULL;
        bench_say("bridge: %s: %s", abode_strerror(code), abode_llama_reason(NULL));
        (void)rig_store_close(rig);
    }
    return code;
}

int rig_store_close(struct llama_rig *rig)
{
    int code = rig->bridge == NULL ? 0 : abode_llama_close(rig->bridge);
    rig->bridge = NULL;
    if (rig->runtime != NULL) {
        const int closed = abode_close(rig->runtime);
        code = code < 0 ? code : closed;
    }
    rig->runtime = NULL;
    return code;
}

void rig_tokens_draw(struct llama_rig *rig, uint64_t seed)
{
    uint64_t random = seed;
    for (uint32_t i = 0; i < rig->tokens_max; i++) {
        const uint64_t drawn = bench_random(&random) % ((uint32_t)rig->vocabulary - TOKEN_FIRST);
        rig->tokens[i] = (llama_token)(drawn + TOKEN_FIRST);
    }
}

void rig_forget(struct llama_rig *rig)
{
    llama_memory_clear(llama_get_memory(rig->context), false);
}

int rig_decode(struct llama_rig *rig, uint32_t first, uint32_t count)
{
    struct llama_batch batch = llama_batch_init((int32_t)BATCH_TOKENS, 0, 1);
    int code = first + count <= rig->tokens_max ? 0 : -EINVAL;
    for (uint32_t at = first; at < first + count && code == 0; at += BATCH_TOKENS) {
        const uint32_t left = first + count - at;
        batch.n_tokens = (int32_t)(left < BATCH_TOKENS ? left : BATCH_TOKENS);
        for (int32_t i = 0; i < batch.n_tokens; i++) {
            batch.token[i] = rig->tokens[at + (uint32_t)i];
            batch.pos[i] = (llama_pos)at + i;
            batch.n_seq_id[i] = 1;
            batch.seq_id[i][0] = 0;
            batch.logits[i] = at + (uint32_t)i + 1 == first + count;
        }
        code = llama_decode(rig->context, batch) == 0 ? 0 : -EIO;
    }
    llama_batch_free(batch);
    return code;
}

uint64_t rig_logits(const struct llama_rig *rig)
{
    const float *logits = llama_get_logits_ith(rig->context, -1);
    uint64_t digest = 0xcbf29ce484222325u;
    for (int32_t i = 0; logits != NULL && i < rig->vocabulary; i++) {
        uint32_t bits;
        memcpy(&bits, &logits[i], sizeof(bits));
        digest = (digest ^ bits) * 0x100000001b3u;
    }
    return digest;
}

static int state_room(struct llama_rig *rig, size_t size)
{
    unsigned char *state = malloc(size);
    if (state == NULL) {
        return -ENOMEM;
    }
    free(rig->state);
    rig->state = state;
    rig->state_size = size;
    return 0;
}

int rig_state_take(struct llama_rig *rig, uint32_t token_count)
{
    int code = state_room(rig, llama_state_seq_get_size(rig->context, 0));
    if (code < 0) {
        return code;
    }
    rig->state_tokens = token_count;
    return llama_state_seq_get_data(rig->context, rig->state, rig->state_size, 0) == rig->state_size
               ? 0
               : -EIO;
}

/* Tensors of the longer blob, a row after the other, from those of the shorter one. */
static int rows_repeat(const unsigned char *source, size_t source_size,
                       const struct ab_blob_layout *layout, const struct ab_blob *target,
                       unsigned char *bytes)
{
    struct ab_blob blob;
    if (ab_blob_parse(source, source_size, layout, &blob) < 0) {
        return -EBADMSG;
    }
    const struct ab_blob_shape *shape = &layout->shapes[0];
    const uint32_t have = blob.sections[0].cell_count, want = target->sections[0].cell_count;
    for (uint32_t t = 0; t < shape->layer_count + shape->v_count; t++) {
        for (uint32_t cell = 0; cell < want; cell += have) {
            const uint32_t count = want - cell < have ? want - cell : have;
            memcpy(bytes + target->sections[0].data[t] + (size_t)cell * shape->tensors[t].row_bytes,
                   source + blob.sections[0].data[t], (size_t)count * shape->tensors[t].row_bytes);
        }
    }
    return 0;
}

int rig_state_stretch(struct llama_rig *rig, uint32_t token_count)
{
    struct ab_blob_layout layout;
    if (ab_blob_detect(rig->state, rig->state_size, &layout) < 0 || layout.section_count != 1 ||
        layout.shapes[0].kind != AB_BLOB_ATTENTION || layout.shapes[0].v_trans != 0) {
        return -ENOTSUP;
    }
    struct ab_blob target = {.sections = {{.cell_count = token_count}}};
    const struct ab_blob_run all = {0, token_count};
    const size_t size = ab_blob_size(&layout, &token_count);
    unsigned char *source = rig->state;
    const size_t source_size = rig->state_size;
    rig->state = NULL;
    int code = state_room(rig, size);
    if (code == 0) {
        ab_blob_begin(&layout, rig->state, &target);
        ab_blob_cells_put(rig->state, &target.sections[0], &all, 1);
        code = rows_repeat(source, source_size, &layout, &target, rig->state);
        rig->state_tokens = token_count;
    }
    free(source);
    return code;
}

int rig_state_put(struct llama_rig *rig)
{
    rig_forget(rig);
    return llama_state_seq_set_data(rig->context, rig->state, rig->state_size, 0) == rig->state_size
               ? 0
               : -EIO;
}

uint64_t rig_token_bytes(const struct llama_rig *rig)
{
    struct ab_blob_layout layout;
    uint64_t bytes = 0;
    if (rig->state == NULL || ab_blob_detect(rig->state, rig->state_size, &layout) < 0) {
        return 0;
    }
    for (uint32_t s = 0; s < layout.section_count; s++) {
        const struct ab_blob_shape *shape = &layout.shapes[s];
        for (uint32_t t = 0; t < shape->layer_count + shape->v_count; t++) {
            bytes += shape->tensors[t].row_bytes;
        }
    }
    return bytes;
}
