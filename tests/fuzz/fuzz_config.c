/*
 * fuzz_config.c - struct abode_config and struct abode_model_desc with hostile values, and the text
 * in them: topology strings, names of directories. An input is a struct abode_config (whose pointers
 * are replaced), then a model, then text. Law: a status, or a runtime that works and closes, and
 * whose report is JSON.
 */
#include "fuzz/fuzz_store.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/num.h"
#include "front/front.h"

#define MODEL_MEMORY (4u << 20) /* a machine's worth would be prefaulted */
#define SIZE_FIELD_MAX (1u << 17)
#define TEXT_MAX 64u

struct model_input { /* what a model may be made of */
    uint32_t component_count, block_tokens;
    uint64_t tokens_max, tokens_typical;
    struct {
        uint32_t kind, window_tokens, kept, plane_count, plane_bytes, plane_align;
        uint64_t bytes_max, memory_bytes;
    } components[3];
};
struct config_input {
    struct abode_config config;
    struct model_input model;
    uint8_t choices[8]; /* which paths, how many, which topology, a struct_size of its own */
};

static int line_check(void *context, const char *text, size_t size)
{
    json_error_t error;
    json_t *line = json_loadb(text, size, 0, &error);
    (void)context;
    fuzz_expect(line != NULL);
    json_decref(line);
    return 0;
}

static void log_nothing(void *context, int level, const char *line)
{
    (void)context, (void)level;
    fuzz_expect(strlen(line) < 1u << 16);
}

static void model_use(struct abode *runtime, const struct model_input *input)
{
    struct abode_plane planes[3][ABODE_PLANES_MAX + 1];
    struct abode_component components[3];
    for (uint32_t c = 0; c < 3; c++) {
        for (uint32_t p = 0; p < AB_COUNT(planes[c]); p++) {
            planes[c][p] = (struct abode_plane){input->components[c].plane_bytes,
                                                input->components[c].plane_align};
        }
        components[c] = (struct abode_component){
            .kind = input->components[c].kind,
            .window_tokens = input->components[c].window_tokens,
            .snapshots_kept = input->components[c].kept,
            .plane_count = AB_MIN(input->components[c].plane_count, AB_COUNT(planes[c])),
            .planes = planes[c],
            .bytes_max = input->components[c].bytes_max,
            .memory_bytes = input->components[c].memory_bytes};
    }
    const struct abode_model_desc desc = {.struct_size = sizeof(desc),
                                          .component_count = input->component_count % 5,
                                          .components = components,
                                          .block_tokens = input->block_tokens,
                                          .session_tokens_max = input->tokens_max,
                                          .session_tokens_typical = input->tokens_typical,
                                          .memory_bytes = MODEL_MEMORY,
                                          .tag = "fuzz"};
    struct abode_model_desc legal = desc;
    legal.component_count = AB_MIN(desc.component_count, 3u);
    struct abode_session_opts opts = {.struct_size = sizeof(opts), .home_node = -1};
    struct abode_session session;
    struct abode_span spans[16];
    if (abode_model_add(runtime, &legal, &opts.model) == 0 &&
        abode_session_create(runtime, &opts, &session) == 0) {
        const int used = abode_append_reserve(runtime, session, 3, spans, AB_COUNT(spans));
        fuzz_expect(used <= 0 || abode_append_commit(runtime, session, 3, NULL, 0) <= 0);
        fuzz_any(abode_session_delete(runtime, session));
    }
}

static void runtime_use(const struct abode_config *config, const struct model_input *model)
{
    struct abode *runtime = NULL;
    if (abode_open(config, &runtime) == 0) {
        model_use(runtime, model);
        fuzz_expect(abode_inspect(runtime, line_check, NULL) == 0);
        fuzz_expect(abode_close(runtime) == 0);
    }
}

static void text_get(const uint8_t *bytes, size_t size, bool is_name, char *ret)
{
    size = AB_MIN(size, (size_t)TEXT_MAX - 1);
    for (size_t i = 0; i < size; i++) {
        ret[i] = is_name && (bytes[i] == '/' || bytes[i] == '.') ? '_' : (char)bytes[i];
    }
    ret[size] = '\0';
}

static void config_run(const uint8_t *bytes, size_t size)
{
    static char base[64];
    struct config_input input;
    char name[TEXT_MAX], directory[192], missing[192], topology[TEXT_MAX + 16];
    if (size < sizeof(input)) {
        return;
    }
    if (base[0] == '\0') {
        (void)snprintf(base, sizeof(base), "%s", fuzz_store_get()->api->directory);
    }
    memcpy(&input, bytes, sizeof(input));
    text_get(bytes + sizeof(input), size - sizeof(input), true, name);
    (void)snprintf(directory, sizeof(directory), "%s/creature-%s", base, name);
    (void)snprintf(missing, sizeof(missing), "%s/none/none", base);
    text_get(bytes + sizeof(input), size - sizeof(input), false, name);
    (void)snprintf(topology, sizeof(topology), "synthetic:%s", name);
    const char *const all_paths[] = {directory, missing, "", NULL, "/dev/null", directory};
    const char *paths[AB_STORE_DEVICES_MAX + 1];
    for (uint32_t i = 0; i < AB_COUNT(paths); i++) {
        paths[i] = all_paths[input.choices[i % 4] % AB_COUNT(all_paths)];
    }
    struct abode_config *config = &input.config;
    const uint32_t claimed = config->struct_size;
    config->store_paths = (input.choices[4] & 1) != 0 ? paths : NULL;
    const bool own = (input.choices[4] & 2) != 0 && !fuzz_synthetic_is_large(topology);
    config->topology = own ? topology : "synthetic:numa:2 pu:1";
    config->log = (input.choices[4] & 4) != 0 ? log_nothing : NULL;
    /* exactly as many bytes as the struct says that it has */
    const uint32_t claimed_size = claimed < SIZE_FIELD_MAX ? claimed : SIZE_FIELD_MAX;
    uint8_t *exact = calloc(1, AB_MAX(claimed_size, 4u));
    fuzz_expect(exact != NULL);
    memcpy(exact, config, AB_MIN(claimed_size, sizeof(*config)));
    memcpy(exact, &claimed, sizeof(claimed));
    if (claimed_size > sizeof(*config)) {
        exact[claimed_size - 1] = input.choices[5];
    }
    runtime_use((const struct abode_config *)(const void *)exact, &input.model);
    free(exact);
    api_remove_tree(directory);
}

static size_t config_seed(uint32_t index, uint8_t *bytes, size_t capacity)
{
    struct config_input input = {.config = {.struct_size = sizeof(struct abode_config)}};
    if (index > 2 || capacity < sizeof(input) + 8) {
        return 0;
    }
    input.config.io = ABODE_IO_SYNC;
    input.config.memory_bytes_max = 8u << 20;
    input.config.huge = ABODE_HUGE_NONE;
    input.config.segment_bytes = 1u << 20;
    input.config.store_path_count = index == 1;
    input.config.flags = index == 1 ? ABODE_CREATE : 0;
    input.config.store_bytes_max = index == 1 ? 4u << 20 : 0;
    input.choices[4] = index == 1 ? 1 : (uint8_t)index;
    input.model = (struct model_input){
        .component_count = 3, .block_tokens = 8, .tokens_max = 64, .tokens_typical = 16};
    for (uint32_t c = 0; c < 3; c++) {
        input.model.components[c].kind = c < 2 ? c + 1 : ABODE_BYTES;
        input.model.components[c].window_tokens = 16;
        input.model.components[c].plane_count = 2;
        input.model.components[c].plane_bytes = 256;
        input.model.components[c].bytes_max = 100;
    }
    memcpy(bytes, &input, sizeof(input));
    memcpy(bytes + sizeof(input), "numa:3 p", 8);
    return sizeof(input) + 8;
}

/* A field of four bytes, or the text. */
static size_t config_mutate(uint8_t *bytes, size_t size, size_t capacity,
                            struct fuzz_random *random)
{
    if (size < sizeof(struct config_input)) {
        return config_seed(fuzz_below(random, 3), bytes, capacity);
    }
    const uint32_t value = fuzz_interesting(random);
    const size_t at = 4 * (size_t)fuzz_below(random, sizeof(struct config_input) / 4);
    memcpy(bytes + at, &value, (size_t)1 << fuzz_below(random, 3));
    return size;
}

extern const struct fuzz_target fuzz_config;
const struct fuzz_target fuzz_config = {.name = "config",
                                        .size_max = sizeof(struct config_input) + TEXT_MAX,
                                        .run = config_run,
                                        .mutate = config_mutate,
                                        .seed = config_seed};
