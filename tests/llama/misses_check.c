/*
 * misses_check.c - what is not the context's own state is a miss with its reason, and the calls that
 * stay inside abode: fork, truncate, delete.
 *
 *     misses_check MODELS-FOLDER
 *
 * Each part opens contexts one after another in one process, on one store.
 */
#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "llama_host.h"

enum { PROMPT = 100, ANSWER = 4 };

static char attention_path[512], swa_path[512], store[64];
static struct llama_talk talk_now, talk_then;

static struct llama_host_opts opts_plain(void)
{
    return (struct llama_host_opts){.model = attention_path,
                                    .store = store,
                                    .type_k = GGML_TYPE_F16,
                                    .type_v = GGML_TYPE_F16,
                                    .flash_attention = true,
                                    .context_tokens = 1024,
                                    .memory_bytes = 64u << 20};
}

static int restore(struct llama_host *host, uint32_t talk)
{
    char text[32];
    talk_now.count = 0;
    int count = abode_llama_restore(host->bridge, 0, llama_host_name(talk, text), talk_now.tokens,
                                    LLAMA_HOST_TOKENS_MAX);
    talk_now.count = count < 0 ? 0 : (uint32_t)count;
    return count;
}

static int save(struct llama_host *host, uint32_t talk, struct abode_llama_saved *ret)
{
    char text[32];
    return abode_llama_save(host->bridge, 0, llama_host_name(talk, text), talk_now.tokens,
                            talk_now.count, ret);
}

static void turn(struct llama_host *host, uint32_t talk, uint32_t number)
{
    llama_token prompt[PROMPT];
    llama_host_prompt(host, talk, number, prompt, PROMPT);
    llama_host_say(host, 0, &talk_now, prompt, PROMPT);
    llama_host_answer(host, 0, &talk_now, ANSWER);
}

static int save_begin(struct llama_host *host, uint32_t talk)
{
    char text[32];
    return abode_llama_save_begin(host->bridge, 0, llama_host_name(talk, text), talk_now.tokens,
                                  talk_now.count, NULL);
}

static void talk_save(struct llama_host *host, uint32_t talk, uint32_t turns)
{
    struct abode_llama_saved saved;
    llama_host_forget(host, 0);
    talk_now.count = 0;
    for (uint32_t number = 0; number < turns; number++) {
        turn(host, talk, number);
        int status = save(host, talk, &saved);
        if (status < 0) {
            llama_host_end("save: %s: %s", abode_strerror(status),
                           abode_llama_reason(host->bridge));
        }
    }
}

/* A context that must not find talk 1, and says this. */
static void miss(const char *what, struct llama_host_opts opts, const char *reason)
{
    struct llama_host host;
    llama_host_open(&opts, &host, NULL);
    int status = restore(&host, 1);
    const char *said = abode_llama_reason(host.bridge);
    bool empty = llama_memory_seq_pos_max(llama_get_memory(host.context), 0) == -1;
    llama_host_check(status == -ENOENT && strstr(said, reason) != NULL && empty, "%s: %s", what,
                     said);
    turn(&host, 1, 0); /* the conversation goes on by recomputing */
    llama_host_close(&host);
}

static void misses(void)
{
    struct llama_host host;
    struct llama_host_opts opts = opts_plain();
    llama_host_open(&opts, &host, NULL);
    talk_save(&host, 1, 4);
    llama_host_check(restore(&host, 2) == -ENOENT &&
                         strstr(abode_llama_reason(host.bridge), "nothing is kept") != NULL,
                     "a name that was never saved: %s", abode_llama_reason(host.bridge));
    llama_host_close(&host);

    opts.model = swa_path;
    miss("another model", opts, "weights=");
    opts = opts_plain();
    opts.type_k = GGML_TYPE_Q8_0;
    miss("another K type", opts, "type_k=f16; this context has type_k=q8_0");
    opts = opts_plain();
    opts.flash_attention = false;
    miss("without flash attention", opts,
         "flash_attention=on; this context has flash_attention=off");
    opts = opts_plain();
    opts.split_streams = true;
    opts.sequences = 2;
    miss("another stream layout", opts, "streams=1; this context has streams=2");
    opts = opts_plain();
    opts.rope_freq_base = 5000;
    miss("another RoPE", opts, "rope=");
    opts = opts_plain();
    opts.flags = ABODE_LLAMA_WHOLE;
    opts.memory_bytes = 512u << 20;
    miss("whole blobs", opts, "type_k=f16; this context has type_k=none");
    opts = opts_plain();
    opts.context_tokens = 128;
    miss("a context too small", opts, "the context has room for 256");

    opts = opts_plain();
    llama_host_open(&opts, &host, NULL);
    llama_host_check(restore(&host, 1) == 4 * (PROMPT + ANSWER),
                     "the first context's own is there");
    llama_host_close(&host);
}

static uint64_t continue_digest(struct llama_host *host)
{
    llama_token token = 1;
    talk_now.digest = 0;
    llama_host_say(host, 0, &talk_now, &token, 1);
    llama_host_answer(host, 0, &talk_now, 8);
    return talk_now.digest;
}

static void calls(void)
{
    struct llama_host host;
    struct llama_host_opts opts = opts_plain();
    struct abode_llama_saved saved;
    char text[32], other[32];
    llama_host_open(&opts, &host, NULL);
    talk_save(&host, 10, 3);
    const uint32_t turn_tokens = PROMPT + ANSWER;
    int again = save(&host, 10, &saved);
    llama_host_check(again == 0 && saved.tokens_added == 0, "saved again: %u tokens kept, %u added",
                     saved.tokens_kept, saved.tokens_added);
    uint64_t whole = continue_digest(&host);

    struct abode_llama_name name = llama_host_name(10, text), child = llama_host_name(11, other);
    int forked = abode_llama_fork(host.bridge, name, 2 * turn_tokens, child);
    llama_host_check(forked == 0 && restore(&host, 11) == (int)(2 * turn_tokens),
                     "a fork has two of three turns");
    turn(&host, 10, 2);
    llama_host_check(continue_digest(&host) == whole,
                     "the third turn after the fork has the logits it had");
    llama_host_check(abode_llama_fork(host.bridge, name, 9999, llama_host_name(12, other)) ==
                         -EINVAL,
                     "a fork past the end: %s", abode_llama_reason(host.bridge));
    llama_host_check(abode_llama_fork(host.bridge, name, turn_tokens, llama_host_name(11, other)) ==
                         -EEXIST,
                     "a fork onto a name: %s", abode_llama_reason(host.bridge));

    llama_host_check(abode_llama_truncate(host.bridge, name, turn_tokens + 13) == 0 &&
                         restore(&host, 10) == (int)turn_tokens + 13,
                     "truncated in the middle of a turn");
    llama_host_check(restore(&host, 11) == (int)(2 * turn_tokens), "its fork is not");
    llama_host_check(abode_llama_delete(host.bridge, name) == 0 && restore(&host, 10) == -ENOENT &&
                         abode_llama_delete(host.bridge, name) == -ENOENT,
                     "deleted, once");

    restore(&host, 11);
    again = save(&host, 13, &saved);
    llama_host_check(again == 0 && saved.tokens_kept >= 2 * turn_tokens - 16,
                     "a new name starts from %u tokens that another holds", saved.tokens_kept);
    talk_save(&host, 14, 4); /* ends with a full row: all of it can be shared */
    again = save(&host, 15, &saved);
    llama_host_check(again == 0 && saved.tokens_added == 0 && talk_now.count % 16 == 0 &&
                         restore(&host, 15) == (int)(4 * turn_tokens),
                     "shared_whole_has_an_order: %u tokens kept", saved.tokens_kept);
    restore(&host, 13);
    talk_now.tokens[50]++;
    again = save(&host, 13, &saved);
    llama_host_check(again == 0 && saved.tokens_kept == 50, "tokens that part at 50: %u kept",
                     saved.tokens_kept);
    talk_now.count--;
    llama_host_check(save(&host, 13, &saved) == -EINVAL, "a token too few: %s",
                     abode_llama_reason(host.bridge));
    llama_host_forget(&host, 0);
    llama_host_check(save(&host, 13, &saved) == -ENOTSUP, "an empty sequence: %s",
                     abode_llama_reason(host.bridge));
    llama_host_close(&host);
}

/* Restore points of a windowed model: ends of saves. */
static void window_calls(void)
{
    struct llama_host host;
    struct llama_host_opts opts = opts_plain();
    char text[32];
    opts.model = swa_path;
    llama_host_open(&opts, &host, NULL);
    const uint32_t turn_tokens = PROMPT + ANSWER;
    talk_save(&host, 20, 3);
    struct abode_llama_name name = llama_host_name(20, text);
    llama_host_check(abode_llama_truncate(host.bridge, name, 2 * turn_tokens + 13) == -EINVAL,
                     "window: not in the middle of a turn: %s", abode_llama_reason(host.bridge));
    llama_host_check(abode_llama_truncate(host.bridge, name, 2 * turn_tokens) == 0 &&
                         restore(&host, 20) == (int)(2 * turn_tokens),
                     "window: back by a turn");
    uint64_t restored = continue_digest(&host);
    llama_host_forget(&host, 0);
    talk_now.count = 0;
    turn(&host, 20, 0);
    turn(&host, 20, 1);
    llama_host_check(continue_digest(&host) == restored,
                     "window: its next logits are those of two turns");
    llama_host_close(&host);
}

/* Flip a byte in the middle of each written stretch of the segments. */
static uint32_t store_damage(const char *directory, off_t step)
{
    char pattern[128];
    glob_t found;
    uint32_t flipped = 0;
    (void)snprintf(pattern, sizeof(pattern), "%s/segments/*", directory);
    if (glob(pattern, 0, NULL, &found) != 0) {
        return 0;
    }
    for (size_t i = 0; i < found.gl_pathc; i++) {
        struct stat about;
        int fd = open(found.gl_pathv[i], O_RDWR);
        if (fd < 0 || fstat(fd, &about) < 0) {
            close(fd);
            continue;
        }
        for (off_t at = 0; at < about.st_size; at += step) {
            unsigned char bytes[64];
            if (pread(fd, bytes, 64, at + 1000) == 64 && bytes[0] != 0) {
                bytes[0] ^= 1;
                flipped += pwrite(fd, bytes, 1, at + 1000) == 1;
            }
        }
        close(fd);
    }
    globfree(&found);
    return flipped;
}

static void damage(const char *model, uint32_t talk)
{
    struct llama_host host;
    struct llama_host_opts opts = opts_plain();
    opts.model = model;
    llama_host_open(&opts, &host, NULL);
    talk_save(&host, talk, 4);
    talk_then = talk_now;
    llama_host_close(&host);
    uint32_t flipped = store_damage(store, 65536);
    llama_host_open(&opts, &host, NULL);
    int count = restore(&host, talk);
    bool prefix = count > 0 && (uint32_t)count < talk_then.count &&
                  memcmp(talk_now.tokens, talk_then.tokens, (size_t)count * 4) == 0;
    llama_host_check(flipped > 0 && (count == -ENOENT || prefix),
                     "%u bytes flipped in the store: %d: %s", flipped, count,
                     abode_llama_reason(host.bridge));
    llama_host_forget(&host, 0);
    talk_now.count = 0;
    turn(&host, talk, 0);
    struct abode_llama_saved saved;
    int status = save(&host, talk, &saved);
    llama_host_check(status == 0 && restore(&host, talk) == PROMPT + ANSWER,
                     "damaged_is_let_go: the name can be saved again: %s",
                     abode_llama_reason(host.bridge));
    llama_host_close(&host);
}

static unsigned char *state_take(struct llama_host *host, size_t *ret_size)
{
    *ret_size = llama_state_seq_get_size(host->context, 0);
    unsigned char *bytes = malloc(*ret_size);
    if (bytes == NULL ||
        llama_state_seq_get_data(host->context, bytes, *ret_size, 0) != *ret_size) {
        llama_host_end("no state of the sequence");
    }
    return bytes;
}

/* The same tokens, decoded one by one, are other bits: a name that they go on under, and one that then
 * shares its rows, have the bits that were saved. */
static void half_row(void)
{
    struct llama_host host;
    const struct llama_host_opts opts = opts_plain();
    size_t size, size_after;
    llama_token prompt[PROMPT];
    llama_host_open(&opts, &host, NULL);
    talk_save(&host, 60, 1);
    llama_host_forget(&host, 0);
    unsigned char *before = NULL;
    const uint32_t first = talk_now.count;
    talk_then = talk_now;
    talk_now.count = 0;
    for (uint32_t i = 0; i < first; i++) {
        llama_host_say(&host, 0, &talk_now, &talk_then.tokens[i], 1);
    }
    llama_host_prompt(&host, 60, 1, prompt, PROMPT);
    llama_host_say(&host, 0, &talk_now, prompt, PROMPT);
    before = state_take(&host, &size);
    const int saved = save(&host, 60, NULL), other = save(&host, 61, NULL);
    const int count = restore(&host, 61);
    unsigned char *after = state_take(&host, &size_after);
    llama_host_check(saved == 0 && other == 0 && count == (int)(first + PROMPT) &&
                         size == size_after && memcmp(before, after, size) == 0,
                     "half_kept_row_has_its_own_key: %d tokens", count);
    llama_host_close(&host);
    free(before);
    free(after);
}

/* Of a layout that is not known, the tokens are all that can be checked; damage is let go. */
static void whole_blobs(void)
{
    struct llama_host host;
    struct llama_host_opts opts = opts_plain();
    char directory[64];
    llama_host_directory(directory);
    opts.store = directory;
    opts.flags = ABODE_LLAMA_WHOLE;
    opts.memory_bytes = 256u << 20;
    llama_host_open(&opts, &host, NULL);
    talk_now.count = 0;
    turn(&host, 70, 0);
    talk_now.count--;
    llama_host_check(save(&host, 70, NULL) == -EINVAL, "whole, a token too few: %s",
                     abode_llama_reason(host.bridge));
    talk_now.count++;
    llama_host_check(save(&host, 70, NULL) == 0, "whole: %s", abode_llama_reason(host.bridge));
    llama_host_close(&host);
    const uint32_t flipped = store_damage(directory, 4096);
    llama_host_open(&opts, &host, NULL);
    const int damaged = restore(&host, 70);
    talk_now.count = 0;
    llama_host_forget(&host, 0);
    turn(&host, 70, 0);
    llama_host_check(flipped > 0 && damaged == -ENOENT && save(&host, 70, NULL) == 0 &&
                         restore(&host, 70) == PROMPT + ANSWER,
                     "damaged_is_let_go: whole, %u bytes flipped: %s", flipped,
                     abode_llama_reason(host.bridge));
    llama_host_close(&host);
    llama_host_directory_remove(directory);
}

/* A save in two steps: what the context does meanwhile is not in it, and nobody sees it half done. */
static void two_steps(const char *model)
{
    struct llama_host host;
    struct llama_host_opts opts = opts_plain();
    size_t size, size_after;
    opts.model = model;
    llama_host_open(&opts, &host, NULL);
    llama_host_check(abode_llama_save_end(host.bridge) == 0, "no save was begun");
    talk_now.count = 0;
    turn(&host, 50, 0);
    unsigned char *before = state_take(&host, &size);
    const uint32_t count = talk_now.count;
    llama_host_check(save_begin(&host, 50) == 0, "begin: %s", abode_llama_reason(host.bridge));
    turn(&host, 50, 1);
    llama_host_check(restore(&host, 50) == (int)count, "at once: %s",
                     abode_llama_reason(host.bridge));
    unsigned char *after = state_take(&host, &size_after);
    llama_host_check(size == size_after && memcmp(before, after, size) == 0,
                     "the state is that of the moment of begin");
    llama_host_check(save_begin(&host, 51) == 0 && save_begin(&host, 52) == 0 &&
                         restore(&host, 51) == (int)count && restore(&host, 52) == (int)count &&
                         abode_llama_save_end(host.bridge) == 0,
                     "two under way: %s", abode_llama_reason(host.bridge));
    llama_host_check(save_begin(&host, 53) == 0, "begin, and close");
    llama_host_close(&host);
    llama_host_open(&opts, &host, NULL);
    llama_host_check(restore(&host, 53) == (int)count, "close waited for it: %s",
                     abode_llama_reason(host.bridge));
    llama_host_close(&host);
    free(before);
    free(after);
}

/* The first row of state: nothing of the conversation is left. */
static void first_row_damaged(void)
{
    struct llama_host host;
    struct llama_host_opts opts = opts_plain();
    struct abode_llama_saved saved;
    llama_host_directory_remove(store); /* nothing else is in it */
    llama_host_directory(store);
    llama_host_open(&opts, &host, NULL);
    talk_save(&host, 1, 1);
    llama_host_close(&host);
    uint32_t flipped = store_damage(store, 16384);
    llama_host_open(&opts, &host, NULL);
    int count = restore(&host, 1);
    llama_host_check(flipped > 0 && count == -ENOENT, "no row is sound: %s",
                     abode_llama_reason(host.bridge));
    talk_now.count = 0;
    turn(&host, 1, 0);
    llama_host_check(save(&host, 1, &saved) == 0 && restore(&host, 1) == PROMPT + ANSWER,
                     "damaged_is_let_go: it is saved anew: %s", abode_llama_reason(host.bridge));
    llama_host_close(&host);
}

/* The store is full: a save fails after it was begun. It is told once, nothing of it stays, and what
 * it holds of memory until then keeps nobody else from coming back. */
static void full_in_two_steps(struct llama_host *host, uint32_t kept)
{
    char text[32];
    uint32_t begun = 0, next = 201;
    int status = 0, others = 0;
    for (; status == 0 && others >= 0 && next < 260; next++) {
        llama_host_forget(host, 0);
        talk_now.count = 0;
        for (uint32_t number = 0; number < 4; number++) {
            turn(host, next, number);
        }
        if (save_begin(host, next) == 0) {
            begun++;
            others = restore(host, kept);
            status = abode_llama_save_end(host->bridge);
        }
    }
    const struct abode_llama_name name = llama_host_name(next - 1, text);
    llama_host_check(others > 0, "begun_save_gives_way: %d tokens of another name", others);
    llama_host_check(begun > 0 && status == -ENOSPC &&
                         abode_llama_tokens(host->bridge, name) == -ENOENT &&
                         abode_llama_save_end(host->bridge) == 0,
                     "begun_save_that_failed: of %u the last: %s", begun, abode_strerror(status));
}

static void full(void)
{
    struct llama_host host;
    struct llama_host_opts opts = opts_plain();
    struct abode_llama_saved saved;
    char directory[64];
    llama_host_directory(directory);
    opts.store = directory;
    opts.memory_bytes = 2u << 20;
    opts.store_bytes = 8u << 20;
    llama_host_open(&opts, &host, NULL);
    int status = 0;
    for (uint32_t talk = 100; talk < 140 && status == 0; talk++) {
        llama_host_forget(&host, 0);
        talk_now.count = 0;
        for (uint32_t number = 0; number < 4; number++) {
            turn(&host, talk, number);
        }
        status = save(&host, talk, &saved);
    }
    llama_host_check(status == -ENOSPC || status == -ABODE_EFULL, "a full store says so: %s",
                     abode_llama_reason(host.bridge));
    turn(&host, 200, 9); /* the context is not worse for it */
    llama_host_check(restore(&host, 100) == 4 * (PROMPT + ANSWER), "what was kept is still there");
    uint32_t kept = 0, failed = 0;
    for (uint32_t number = 4; number < 9; number++) {
        kept = talk_now.count;
        turn(&host, 100, number);
        uint32_t grown = talk_now.count;
        status = save(&host, 100, &saved);
        failed += status < 0;
        talk_now.count = 0;
        int count = restore(&host, 100);
        if (count != (int)grown && (status == 0 || count != (int)kept)) {
            llama_host_check(false, "not_kept_is_cut: %d of %u tokens: %s", count, grown,
                             abode_llama_reason(host.bridge));
            break;
        }
    }
    llama_host_check(failed > 0, "not_kept_is_cut: %u saves failed, and what was kept is there",
                     failed);
    full_in_two_steps(&host, 100);
    llama_host_close(&host);
    llama_host_directory_remove(directory);
}

static void bad_opens(void)
{
    struct llama_host host;
    struct llama_host_opts opts = opts_plain();
    struct abode_llama_opts bridge = {0};
    struct abode_llama *never = NULL;
    opts.store = NULL;
    llama_host_open(&opts, &host, NULL);
    opts.store = store;
    struct abode_config config;
    abode_config_init(&config);
    config.flags = ABODE_CREATE;
    config.store_paths = &opts.store;
    config.store_path_count = 1;
    config.memory_bytes_max = 64u << 20;
    if (abode_open(&config, &host.runtime) < 0) {
        llama_host_end("open");
    }
    llama_host_check(abode_llama_open(&bridge, &never) == -EINVAL, "options without a size");
    bridge = (struct abode_llama_opts){.struct_size = sizeof(bridge),
                                       .runtime = host.runtime,
                                       .context = host.context,
                                       .params = &host.params,
                                       .weights_path = "/nowhere/model.gguf"};
    llama_host_check(abode_llama_open(&bridge, &never) == -ENOENT && never == NULL,
                     "a model file that is missing: %s", abode_llama_reason(NULL));
    llama_host_close(&host);
}

int main(int count, char **arguments)
{
    if (count != 2) {
        llama_host_end("usage: misses_check MODELS-FOLDER");
    }
    (void)snprintf(attention_path, sizeof(attention_path), "%s/attention.gguf", arguments[1]);
    (void)snprintf(swa_path, sizeof(swa_path), "%s/swa.gguf", arguments[1]);
    llama_host_directory(store);
    misses();
    calls();
    window_calls();
    half_row();
    whole_blobs();
    two_steps(attention_path);
    two_steps(swa_path);
    full();
    bad_opens();
    damage(attention_path, 30);
    damage(swa_path, 31);
    first_row_damaged();
    llama_host_directory_remove(store);
    return llama_host_count();
}
