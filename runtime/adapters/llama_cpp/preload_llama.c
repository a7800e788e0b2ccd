/*
 * preload_llama.c - libabode-llama.so: preloaded, it keeps what a program saves with
 * llama_state_seq_save_file() (llama-server's slots, for one) in an abode store.
 *
 *     ABODE_LLAMA_STORE=/var/lib/abode LD_PRELOAD=libabode-llama.so llama-server --slot-save-path ...
 *
 * ABODE_LLAMA_MEMORY: bytes of memory for it, default 1 GiB. At the path of the file a marker of some
 * hundred bytes is left, which names the conversation: moved or copied it still means it, as it was
 * saved last; removed (by unlink or remove, in a process that is so preloaded and has saved or loaded
 * before) the state goes too. A file without a marker is loaded by the original function; where the store cannot take a state, the original function
 * writes its file, and a line on stderr says why.
 *
 * llama-server's token lists have a head and an end of their own (enum packing): the tokens in them
 * are looked at, the rest is made again on load. Lists with images go the original way.
 *
 * llama_state_save_file() of a context with one sequence is taken over too. The first context that
 * saves or loads has the store; others go the original way. Calls come from the threads of the
 * program that own the context; a lock keeps them one at a time.
 */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "abode_llama.h"

#define MARKER "abode-llama state 1\n"
#define MEMORY_DEFAULT (1ull << 30)
#define MODELS_MAX 16u
#define FAILURES_MAX 3u /* opens that failed: no further one is tried */
#define FLUSH_NS (1000ll * 1000 * 1000)
#define EXPORT __attribute__((visibility("default")))
#define ORIGINAL(name) ((__typeof__(&name))original(#name))

struct seen { /* what the program has loaded and opened */
    const void *object;
    char path[PATH_MAX];
    struct llama_context_params params;
};
static struct seen models[MODELS_MAX], contexts[MODELS_MAX];
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct abode *runtime;
static struct abode_llama *bridge;
static const struct llama_context *owner;
static uint32_t failures; /* to open the store for a context: said each time */

static void *original(const char *name)
{
    return dlsym(RTLD_NEXT, name);
}

static void say(const char *path, const char *what, const char *reason)
{
    fprintf(stderr, "abode-llama: %s: %s: %s\n", path, what, reason);
}

static struct seen *seen_of(struct seen *list, const void *object)
{
    for (uint32_t i = 0; i < MODELS_MAX; i++) {
        if (list[i].object == object) {
            return &list[i];
        }
    }
    return NULL;
}

/* ---- what the program opens ----------------------------------------------------------------------- */

EXPORT struct llama_model *llama_model_load_from_file(const char *path,
                                                      struct llama_model_params params)
{
    struct llama_model *model = ORIGINAL(llama_model_load_from_file)(path, params);
    pthread_mutex_lock(&lock);
    struct seen *place = seen_of(models, model);
    place = place != NULL ? place : seen_of(models, NULL);
    if (model != NULL && place != NULL && realpath(path, place->path) != NULL) {
        place->object = model;
    }
    pthread_mutex_unlock(&lock);
    return model;
}

EXPORT void llama_model_free(struct llama_model *model)
{
    pthread_mutex_lock(&lock);
    struct seen *place = model == NULL ? NULL : seen_of(models, model);
    if (place != NULL) {
        place->object = NULL;
    }
    pthread_mutex_unlock(&lock);
    ORIGINAL(llama_model_free)(model);
}

EXPORT struct llama_context *llama_init_from_model(struct llama_model *model,
                                                   struct llama_context_params params)
{
    struct llama_context *context = ORIGINAL(llama_init_from_model)(model, params);
    pthread_mutex_lock(&lock);
    struct seen *place = context == NULL ? NULL : seen_of(contexts, NULL);
    if (place != NULL) {
        place->object = context;
        place->params = params;
    }
    pthread_mutex_unlock(&lock);
    return context;
}

static void store_close(void)
{
    int status = abode_llama_close(bridge);
    status = status < 0 || runtime == NULL ? status : abode_close(runtime);
    if (status < 0) {
        say("store", "not closed", abode_strerror(status));
    }
    bridge = NULL;
    runtime = NULL;
    owner = NULL;
}

EXPORT void llama_free(struct llama_context *context)
{
    pthread_mutex_lock(&lock);
    struct seen *place = context == NULL ? NULL : seen_of(contexts, context);
    if (place != NULL) {
        place->object = NULL;
    }
    if (context != NULL && context == owner) {
        store_close();
    }
    pthread_mutex_unlock(&lock);
    ORIGINAL(llama_free)(context);
}

/* ---- the store ------------------------------------------------------------------------------------ */

static void log_line(void *context, int level, const char *line)
{
    (void)context;
    if (level <= ABODE_LOG_WARNING) {
        fprintf(stderr, "abode-llama: %s\n", line);
    }
}

static int runtime_open(const char *store)
{
    struct abode_config config;
    const char *memory = getenv("ABODE_LLAMA_MEMORY");
    abode_config_init(&config);
    config.flags = ABODE_CREATE;
    config.memory_bytes_max = memory != NULL ? strtoull(memory, NULL, 10) : MEMORY_DEFAULT;
    config.store_paths = &store;
    config.store_path_count = 1;
    config.log = log_line;
    return abode_open(&config, &runtime);
}

static bool has_cells(struct llama_context *context, llama_seq_id sequence)
{
    return llama_memory_seq_pos_max(llama_get_memory(context), sequence) >= 0;
}

/* The bridge of a context; NULL: this one has none. A sequence with cells shows the layout; an empty
 * one can be probed. */
static struct abode_llama *bridge_of(struct llama_context *context, llama_seq_id sequence)
{
    const char *store = getenv("ABODE_LLAMA_STORE");
    if (owner != NULL || failures >= FAILURES_MAX) {
        return owner == context ? bridge : NULL;
    }
    struct seen *place = seen_of(contexts, context);
    struct seen *model = seen_of(models, llama_get_model(context));
    if (store == NULL || place == NULL || model == NULL) {
        failures += store == NULL ? FAILURES_MAX : 0;
        say("store", "llama.cpp's own files are used",
            store == NULL ? "ABODE_LLAMA_STORE names no directory"
                          : "the model's file is not known");
        return NULL;
    }
    struct abode_llama_opts opts = {.struct_size = sizeof(opts),
                                    .context = context,
                                    .params = &place->params,
                                    .weights_path = model->path,
                                    .probe_sequence = sequence};
    unsigned char *example = NULL;
    if (has_cells(context, sequence)) {
        opts.example_size = llama_state_seq_get_size(context, sequence);
        opts.example = example = malloc(opts.example_size);
        opts.example_size = example == NULL ? 0
                                            : llama_state_seq_get_data(context, example,
                                                                       opts.example_size, sequence);
    }
    int status = runtime_open(store);
    if (status == 0) {
        opts.runtime = runtime;
        status = abode_llama_open(&opts, &bridge);
    }
    free(example);
    if (status < 0) {
        const char *reason = abode_llama_reason(NULL);
        say(store, "llama.cpp's own files are used",
            runtime != NULL && reason[0] != 0 ? reason : abode_strerror(status));
        store_close();
        failures++;
        return NULL;
    }
    owner = context;
    return bridge;
}

/* ---- markers -------------------------------------------------------------------------------------- */

struct marker {
    char name[PATH_MAX];
    bool packed; /* the program's list of tokens was llama-server's */
};

/* False: the file is not one. */
static bool marker_read(const char *path, struct marker *ret)
{
    char head[sizeof(MARKER)], form[16] = "";
    bool good = false;
    struct stat about;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* it may be anything */
    FILE *file =
        fd < 0 || fstat(fd, &about) != 0 || !S_ISREG(about.st_mode) ? NULL : fdopen(fd, "r");
    if (file == NULL) {
        if (fd >= 0) {
            (void)close(fd);
        }
        return false;
    }
    if (fgets(head, sizeof(head), file) != NULL && strcmp(head, MARKER) == 0 &&
        fgets(ret->name, sizeof(ret->name), file) != NULL &&
        fgets(form, sizeof(form), file) != NULL) {
        ret->name[strcspn(ret->name, "\n")] = 0;
        ret->packed = strcmp(form, "packed\n") == 0;
        good = ret->name[0] != 0;
    }
    (void)fclose(file);
    return good;
}

/* In place of what was there, whole or not at all. */
static int marker_write(const char *path, const struct marker *marker)
{
    char other[PATH_MAX];
    if (snprintf(other, sizeof(other), "%s.abode", path) >= (int)sizeof(other)) {
        return -ENAMETOOLONG;
    }
    FILE *file = fopen(other, "we");
    if (file == NULL) {
        return -errno;
    }
    bool good =
        fprintf(file, MARKER "%s\n%s\n", marker->name, marker->packed ? "packed" : "plain") > 0 &&
        fflush(file) == 0 && fsync(fileno(file)) == 0;
    good = fclose(file) == 0 && good;
    if (!good || rename(other, path) != 0) {
        (void)ORIGINAL(unlink)(other);
        return -EIO;
    }
    return 0;
}

/* The conversation that a path means, from its marker. A new one is named by its full path and the
 * moment: the marker that was at this path before may have been moved, and still mean its own. */
static int name_of(const char *path, struct marker *ret)
{
    static uint32_t made;
    struct timespec now = {0};
    char folder[PATH_MAX], full[PATH_MAX];
    if (marker_read(path, ret)) {
        return 0;
    }
    const char *slash = strrchr(path, '/'), *base = slash == NULL ? path : slash + 1;
    if (strchr(path, '\n') != NULL ||
        snprintf(folder, sizeof(folder), "%.*s", slash == NULL ? 1 : (int)(slash - path) + 1,
                 slash == NULL ? "." : path) >= (int)sizeof(folder) ||
        realpath(folder, full) == NULL) {
        return -EINVAL;
    }
    ret->packed = false;
    (void)clock_gettime(CLOCK_REALTIME, &now);
    int size = snprintf(ret->name, PATH_MAX, "%s/%s %lld.%09ld %d %u", full, base,
                        (long long)now.tv_sec, now.tv_nsec, (int)getpid(), made++);
    return size < PATH_MAX ? 0 : -ENAMETOOLONG;
}

static struct abode_llama_name as_name(const char *text)
{
    return (struct abode_llama_name){text, strlen(text)};
}

/* Forgotten on disk too: nothing names that state any more. */
static void state_delete(const struct marker *marker)
{
    if (abode_llama_delete(bridge, as_name(marker->name)) == 0) {
        (void)!abode_flush(runtime, FLUSH_NS);
    }
}

/* What llama.cpp would have written: its file has a head of three numbers and the tokens. */
static size_t file_bytes(struct llama_context *context, llama_seq_id sequence, size_t token_count)
{
    return 12 + 4 * token_count + llama_state_seq_get_size(context, sequence) - 8;
}

/* ---- save and load -------------------------------------------------------------------------------- */

/* llama-server's list: -1, 1, count, tokens, 0 (images) */
enum packing { PACK_HEAD = 3, PACK_TAIL = 1, PACK_BOTH = PACK_HEAD + PACK_TAIL };

static bool is_packed(const llama_token *tokens, size_t count)
{
    return count > PACK_BOTH && tokens[0] == LLAMA_TOKEN_NULL && tokens[1] == 1 && tokens[2] > 0 &&
           (size_t)tokens[2] == count - PACK_BOTH && tokens[count - 1] == 0;
}

static void pack(llama_token *tokens, size_t count)
{
    memmove(tokens + PACK_HEAD, tokens, count * sizeof(*tokens));
    tokens[0] = LLAMA_TOKEN_NULL;
    tokens[1] = 1;
    tokens[2] = (llama_token)count;
    tokens[PACK_HEAD + count] = 0;
}

/* 0: the original function is to do it */
static size_t save(struct llama_context *context, const char *path, llama_seq_id sequence,
                   const llama_token *tokens, size_t token_count)
{
    struct marker marker;
    /* of an empty sequence nothing can be learnt, and nothing is lost */
    struct abode_llama *mine = has_cells(context, sequence) ? bridge_of(context, sequence) : NULL;
    if (mine == NULL) {
        return 0;
    }
    const char *reason = "";
    int status = name_of(path, &marker);
    const bool is_named = status == 0;
    if (is_named) {
        marker.packed = is_packed(tokens, token_count);
        size_t count = token_count - (marker.packed ? PACK_BOTH : 0);
        status = abode_llama_save(mine, sequence, as_name(marker.name),
                                  tokens + (marker.packed ? PACK_HEAD : 0),
                                  count < UINT32_MAX ? (uint32_t)count : UINT32_MAX, NULL);
        reason = abode_llama_reason(mine);
        status = status < 0 ? status : marker_write(path, &marker);
    }
    if (status < 0) {
        say(path, "llama.cpp's own file is written",
            reason[0] != 0 ? reason : abode_strerror(status));
        if (is_named) { /* no marker will: the file takes its place, or it could not be written */
            state_delete(&marker);
        }
        return 0;
    }
    return file_bytes(context, sequence, token_count);
}

/* 0: it is in the store, but a miss for this context */
static size_t load(struct llama_context *context, const char *path, const struct marker *marker,
                   llama_seq_id sequence, llama_token *tokens, size_t capacity, size_t *ret_count)
{
    struct abode_llama *mine = bridge_of(context, sequence);
    const size_t more = marker->packed ? PACK_BOTH : 0;
    if (mine == NULL || (tokens != NULL && capacity < more)) {
        return 0;
    }
    size_t room = tokens == NULL ? 0 : capacity - more;
    int count = tokens == NULL
                    ? abode_llama_tokens(mine, as_name(marker->name))
                    : abode_llama_restore(mine, sequence, as_name(marker->name), tokens,
                                          room < UINT32_MAX ? (uint32_t)room : UINT32_MAX);
    if (count < 0) {
        say(path, "not restored", abode_llama_reason(mine));
        return 0;
    }
    *ret_count = (size_t)count + more;
    if (tokens == NULL) {
        return 12;
    }
    if (marker->packed) {
        pack(tokens, (size_t)count);
    }
    return file_bytes(context, sequence, *ret_count);
}

EXPORT size_t llama_state_seq_save_file(struct llama_context *context, const char *path,
                                        llama_seq_id sequence, const llama_token *tokens,
                                        size_t token_count)
{
    pthread_mutex_lock(&lock);
    size_t size = save(context, path, sequence, tokens, token_count);
    pthread_mutex_unlock(&lock);
    return size > 0
               ? size
               : ORIGINAL(llama_state_seq_save_file)(context, path, sequence, tokens, token_count);
}

EXPORT size_t llama_state_seq_load_file(struct llama_context *context, const char *path,
                                        llama_seq_id sequence, llama_token *tokens, size_t capacity,
                                        size_t *ret_count)
{
    struct marker marker;
    if (!marker_read(path, &marker)) {
        return ORIGINAL(llama_state_seq_load_file)(context, path, sequence, tokens, capacity,
                                                   ret_count);
    }
    pthread_mutex_lock(&lock);
    size_t size = load(context, path, &marker, sequence, tokens, capacity, ret_count);
    pthread_mutex_unlock(&lock);
    return size;
}

EXPORT bool llama_state_save_file(struct llama_context *context, const char *path,
                                  const llama_token *tokens, size_t token_count)
{
    size_t size = 0;
    if (llama_n_seq_max(context) == 1) { /* then the context is its sequence 0 */
        pthread_mutex_lock(&lock);
        size = save(context, path, 0, tokens, token_count);
        pthread_mutex_unlock(&lock);
    }
    return size > 0 || ORIGINAL(llama_state_save_file)(context, path, tokens, token_count);
}

EXPORT bool llama_state_load_file(struct llama_context *context, const char *path,
                                  llama_token *tokens, size_t capacity, size_t *ret_count)
{
    struct marker marker;
    if (!marker_read(path, &marker)) {
        return ORIGINAL(llama_state_load_file)(context, path, tokens, capacity, ret_count);
    }
    pthread_mutex_lock(&lock);
    size_t size = load(context, path, &marker, 0, tokens, capacity, ret_count);
    pthread_mutex_unlock(&lock);
    return size > 0;
}

/* ---- deletes ---------------------------------------------------------------------------------------- */

/* The state goes when the file has gone: a file that stays must not name nothing. */
static int marked_remove(const char *path, int (*remover)(const char *))
{
    struct marker marker;
    const bool is_marker = path != NULL && owner != NULL && marker_read(path, &marker);
    const int result = remover(path);
    const int error = errno;
    if (is_marker && result == 0) {
        pthread_mutex_lock(&lock);
        if (bridge != NULL) {
            state_delete(&marker);
        }
        pthread_mutex_unlock(&lock);
    }
    errno = error;
    return result;
}

EXPORT int unlink(const char *path)
{
    return marked_remove(path, ORIGINAL(unlink));
}

EXPORT int remove(const char *path)
{
    return marked_remove(path, ORIGINAL(remove));
}
