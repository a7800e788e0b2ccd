/*
 * slot_program.c - a program that knows nothing of abode: llama.cpp's own calls for files of state.
 *
 *     slot_program MODEL FILE save|load|drop seq|all [kill|short|empty]
 *
 * save: says two turns, keeps the sequence in FILE, goes on for 64 tokens; load: takes it from FILE and
 * goes on; both print the digest of the logits. kill: ends by SIGKILL right after the save;
 * short: the list of tokens that it saves lacks one; empty: it saves before anything was said, too.
 */
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "llama_host.h"

static struct llama_talk talk;

static size_t keep(struct llama_host *host, const char *path, bool all)
{
    return all ? (size_t)llama_state_save_file(host->context, path, talk.tokens, talk.count)
               : llama_state_seq_save_file(host->context, path, 0, talk.tokens, talk.count);
}

static size_t take(struct llama_host *host, const char *path, bool all)
{
    size_t count = 0;
    size_t size = all ? (size_t)llama_state_load_file(host->context, path, talk.tokens,
                                                      LLAMA_HOST_TOKENS_MAX, &count)
                      : llama_state_seq_load_file(host->context, path, 0, talk.tokens,
                                                  LLAMA_HOST_TOKENS_MAX, &count);
    talk.count = (uint32_t)count;
    return size;
}

int main(int count, char **arguments)
{
    struct llama_host host;
    if (count < 5) {
        llama_host_end("usage: slot_program MODEL FILE save|load|drop seq|all [kill|short|empty]");
    }
    struct llama_host_opts opts = {.model = arguments[1],
                                   .type_k = GGML_TYPE_F16,
                                   .type_v = GGML_TYPE_F16,
                                   .flash_attention = true,
                                   .context_tokens = 1024};
    const char *path = arguments[2];
    bool is_save = strcmp(arguments[3], "save") == 0, all = strcmp(arguments[4], "all") == 0;
    const char *how = count > 5 ? arguments[5] : "";
    llama_host_open(&opts, &host, NULL);
    if (strcmp(how, "empty") == 0) {
        (void)keep(&host, path, all);
    }
    if (is_save) {
        for (uint32_t turn = 0; turn < 2; turn++) {
            llama_token prompt[120];
            llama_host_prompt(&host, 5, turn, prompt, 120);
            llama_host_say(&host, 0, &talk, prompt, 120);
            llama_host_answer(&host, 0, &talk, 8);
        }
    }
    talk.count -= strcmp(how, "short") == 0;
    size_t size = is_save ? keep(&host, path, all) : take(&host, path, all);
    printf("%s %zu bytes, %u tokens\n", arguments[3], size, talk.count);
    fflush(stdout);
    if (size == 0) {
        return 3;
    }
    if (strcmp(how, "kill") == 0) {
        (void)raise(SIGKILL);
    }
    if (strcmp(arguments[3], "drop") == 0) {
        return remove(path) == 0 ? 0 : 4;
    }
    llama_token token = 1;
    talk.digest = 0;
    llama_host_say(&host, 0, &talk, &token, 1);
    llama_host_answer(&host, 0, &talk, 64);
    printf("digest %016llx\n", (unsigned long long)talk.digest);
    llama_host_close(&host);
    return 0;
}
