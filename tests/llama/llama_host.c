/*
 * llama_host.c - see llama_host.h.
 */
#include "llama_host.h"

#include <ftw.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define BATCH_MAX 512u

static unsigned passed, failed;

void llama_host_end(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    fputs("FAIL ", stdout);
    vprintf(format, arguments);
    va_end(arguments);
    printf("\n%u passed, %u failed, 0 skipped\n", passed, failed + 1);
    fflush(stdout);
    _exit(1);
}

bool llama_host_check(bool good, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    fputs(good ? "ok   " : "FAIL ", stdout);
    vprintf(format, arguments);
    putchar('\n');
    va_end(arguments);
    fflush(stdout);
    *(good ? &passed : &failed) += 1;
    return good;
}

int llama_host_count(void)
{
    printf("%u passed, %u failed, 0 skipped\n", passed, failed);
    return failed == 0 ? 0 : 1;
}

static void log_quiet(enum ggml_log_level level, const char *text, void *context)
{
    (void)context;
    if (getenv("ABODE_TEST_LOG") != NULL && level >= GGML_LOG_LEVEL_WARN) {
        fputs(text, stderr);
    }
}

static void log_store(void *context, int level, const char *line)
{
    (void)context;
    (void)level;
    if (getenv("ABODE_TEST_LOG") != NULL) {
        fprintf(stderr, "abode: %s\n", line);
    }
}

static void context_open(const struct llama_host_opts *opts, struct llama_host *host)
{
    llama_log_set(log_quiet, NULL);
    struct llama_model_params model = llama_model_default_params();
    host->model = llama_model_load_from_file(opts->model, model);
    if (host->model == NULL) {
        llama_host_end("%s cannot be loaded", opts->model);
    }
    host->params = llama_context_default_params();
    host->params.n_ctx = opts->context_tokens;
    host->params.n_seq_max = opts->sequences != 0 ? opts->sequences : 1;
    host->params.n_batch = host->params.n_ubatch = BATCH_MAX;
    host->params.n_threads = host->params.n_threads_batch = 1;
    host->params.type_k = opts->type_k;
    host->params.type_v = opts->type_v;
    host->params.kv_unified = !opts->split_streams;
    host->params.rope_freq_base = opts->rope_freq_base;
    host->params.flash_attn_type =
        opts->flash_attention ? LLAMA_FLASH_ATTN_TYPE_ENABLED : LLAMA_FLASH_ATTN_TYPE_DISABLED;
    host->context = llama_init_from_model(host->model, host->params);
    if (host->context == NULL) {
        llama_host_end("no context for %s", opts->model);
    }
    host->vocabulary = llama_vocab_n_tokens(llama_model_get_vocab(host->model));
}

static int bridge_open(const struct llama_host_opts *opts, struct llama_host *host)
{
    struct abode_config config;
    abode_config_init(&config);
    config.flags = ABODE_CREATE;
    config.memory_bytes_max = opts->memory_bytes != 0 ? opts->memory_bytes : 256u << 20;
    config.store_bytes_max = opts->store_bytes;
    config.store_paths = &opts->store;
    config.store_path_count = 1;
    config.log = log_store;
    int status = abode_open(&config, &host->runtime);
    if (status < 0) {
        return status;
    }
    struct abode_llama_opts bridge = {.struct_size = sizeof(bridge),
                                      .flags = opts->flags,
                                      .runtime = host->runtime,
                                      .context = host->context,
                                      .params = &host->params,
                                      .weights_path = opts->model};
    return abode_llama_open(&bridge, &host->bridge);
}

void llama_host_open(const struct llama_host_opts *opts, struct llama_host *ret, int *ret_status)
{
    memset(ret, 0, sizeof(*ret));
    context_open(opts, ret);
    int status = opts->store == NULL ? 0 : bridge_open(opts, ret);
    if (ret_status != NULL) {
        *ret_status = status;
    } else if (status < 0) {
        llama_host_end("open: %s: %s", abode_strerror(status), abode_llama_reason(NULL));
    }
}

void llama_host_close(struct llama_host *host)
{
    int status = abode_llama_close(host->bridge);
    status = status < 0 || host->runtime == NULL ? status : abode_close(host->runtime);
    if (status < 0) {
        llama_host_end("close: %s", abode_strerror(status));
    }
    llama_free(host->context);
    llama_model_free(host->model);
}

/* FNV-1a over 32-bit words: any changed bit changes it */
static uint64_t digest_add(uint64_t digest, const float *values, int32_t count)
{
    for (int32_t i = 0; i < count; i++) {
        uint32_t bits;
        memcpy(&bits, &values[i], sizeof(bits));
        digest = (digest ^ bits) * 0x100000001b3u;
    }
    return digest;
}

void llama_host_say(struct llama_host *host, llama_seq_id sequence, struct llama_talk *talk,
                    const llama_token *tokens, uint32_t count)
{
    if (count > BATCH_MAX || talk->count + count > LLAMA_HOST_TOKENS_MAX) {
        llama_host_end("a batch of %u tokens after %u", count, talk->count);
    }
    struct llama_batch batch = llama_batch_init((int32_t)count, 0, 1);
    for (uint32_t i = 0; i < count; i++) {
        batch.token[i] = talk->tokens[talk->count + i] = tokens[i];
        batch.pos[i] = (llama_pos)(talk->count + i);
        batch.n_seq_id[i] = 1;
        batch.seq_id[i][0] = sequence;
        batch.logits[i] = i == count - 1;
    }
    batch.n_tokens = (int32_t)count;
    if (llama_decode(host->context, batch) != 0) {
        llama_host_end("decoding %u tokens at %u", count, talk->count);
    }
    llama_batch_free(batch);
    talk->count += count;
    talk->digest =
        digest_add(talk->digest, llama_get_logits_ith(host->context, -1), host->vocabulary);
}

void llama_host_answer(struct llama_host *host, llama_seq_id sequence, struct llama_talk *talk,
                       uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        const float *logits = llama_get_logits_ith(host->context, -1);
        llama_token best = 0;
        for (llama_token token = 1; token < host->vocabulary; token++) {
            best = logits[token] > logits[best] ? token : best;
        }
        llama_host_say(host, sequence, talk, &best, 1);
    }
}

void llama_host_prompt(const struct llama_host *host, uint32_t talk, uint32_t turn,
                       llama_token *ret_tokens, uint32_t count)
{
    uint64_t state = 0x9e3779b97f4a7c15u * (talk * 1000 + turn + 1);
    for (uint32_t i = 0; i < count; i++) {
        state = state * 6364136223846793005u + 1442695040888963407u;
        ret_tokens[i] = (llama_token)((state >> 33) % (uint32_t)host->vocabulary);
    }
}

void llama_host_forget(struct llama_host *host, llama_seq_id sequence)
{
    if (!llama_memory_seq_rm(llama_get_memory(host->context), sequence, -1, -1)) {
        llama_host_end("sequence %d cannot be emptied", (int)sequence);
    }
}

struct abode_llama_name llama_host_name(uint32_t talk, char text[32])
{
    int size = snprintf(text, 32, "talk %u", talk);
    return (struct abode_llama_name){text, (size_t)size};
}

void llama_host_directory(char ret_path[64])
{
    const char *root = getenv("TMPDIR");
    (void)snprintf(ret_path, 64, "%s/abode-llama-XXXXXX", root != NULL ? root : "/tmp");
    if (mkdtemp(ret_path) == NULL) {
        llama_host_end("no directory %s", ret_path);
    }
}

static int remove_one(const char *path, const struct stat *about, int kind, struct FTW *walk)
{
    (void)about;
    (void)kind;
    (void)walk;
    return remove(path);
}

void llama_host_directory_remove(const char *path)
{
    (void)nftw(path, remove_one, 8, FTW_DEPTH | FTW_PHYS);
}
