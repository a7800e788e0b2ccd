/*
 * killed_check.c - restored state is the state: kill -9, a new process, the same logits bit for bit.
 *
 *     killed_check MODEL K-TYPE V-TYPE fa|nofa [whole] [split] [own] [stay] [long]
 *
 * A reference process talks without ever stopping. Another has the same talks, in turns, over a
 * context with room for one and abode memory for a quarter of them: each turn is restored, goes on,
 * is saved and forgotten. It is killed in the middle, and goes on in a new process with what was
 * acknowledged. A last process restores every talk and generates 64 tokens: the digest of all their
 * logits must be that of the reference. One thread: llama.cpp's sums depend on the place of cells
 * where more than one works.
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "llama_host.h"

enum { TALKS = 4, TURNS = 4, PROMPT = 110, PROMPT_LONG = 260, ANSWER = 7, LAST = 64 };

struct shared { /* between the processes of this program */
    uint32_t turns_kept[TALKS];
    uint32_t turns_done;
    uint64_t digest[2][TALKS]; /* of the last LAST tokens: reference, restored */
    uint32_t tokens[2][TALKS];
    uint64_t bytes_added, tokens_added;
    uint32_t restored_short;
};
static struct shared *shared;
static struct llama_host_opts opts;
static struct llama_talk talk_now;
static llama_seq_id sequence; /* 1 where each has a stream of its own */
static bool own;    /* the reference is moved by llama.cpp itself where the other is restored */
static bool longer; /* talks are longer than the 512 tokens of Gemma's window */
static bool stay;   /* talks stay in the context from turn to turn; restored after the kill only */

static uint32_t prompt_tokens(uint32_t talk, uint32_t turn)
{
    uint32_t most = longer ? PROMPT_LONG : PROMPT;
    return turn == 2 ? 1 : most - talk; /* a turn of one token among them */
}

static void turn_talk(struct llama_host *host, uint32_t talk, uint32_t turn)
{
    llama_token prompt[PROMPT_LONG];
    uint32_t count = prompt_tokens(talk, turn);
    llama_host_prompt(host, talk, turn, prompt, count);
    llama_host_say(host, sequence, &talk_now, prompt, count);
    llama_host_answer(host, sequence, &talk_now, ANSWER);
}

static void last_talk(struct llama_host *host, uint32_t talk, uint32_t which)
{
    llama_token start[2];
    talk_now.digest = 0;
    llama_host_prompt(host, talk, TURNS, start, 2);
    llama_host_say(host, sequence, &talk_now, start, stay ? 1 : 2);
    llama_host_answer(host, sequence, &talk_now, LAST);
    shared->digest[which][talk] = talk_now.digest;
    shared->tokens[which][talk] = talk_now.count;
}

/* What llama.cpp's own restore does to the place of cells. */
static void own_round(struct llama_host *host)
{
    size_t size = llama_state_seq_get_size(host->context, sequence);
    unsigned char *blob = malloc(size);
    if (blob == NULL || llama_state_seq_get_data(host->context, blob, size, sequence) != size) {
        llama_host_end("llama.cpp's own state of %zu bytes", size);
    }
    llama_host_forget(host, sequence);
    if (llama_state_seq_set_data(host->context, blob, size, sequence) != size) {
        llama_host_end("llama.cpp does not take its own state back");
    }
    free(blob);
}

static void reference(void)
{
    struct llama_host host;
    struct llama_host_opts plain = opts;
    plain.store = NULL;
    llama_host_open(&plain, &host, NULL);
    for (uint32_t talk = 0; talk < TALKS; talk++) {
        talk_now.count = 0;
        for (uint32_t turn = 0; turn < TURNS; turn++) {
            turn_talk(&host, talk, turn);
            if (own) {
                own_round(&host);
            }
        }
        last_talk(&host, talk, 0);
        llama_host_forget(&host, sequence);
    }
}

static void restore(struct llama_host *host, uint32_t talk)
{
    char text[32];
    int count = abode_llama_restore(host->bridge, sequence, llama_host_name(talk, text),
                                    talk_now.tokens, LLAMA_HOST_TOKENS_MAX);
    if (count < 0) {
        llama_host_end("restore of talk %u: %s: %s", talk, abode_strerror(count),
                       abode_llama_reason(host->bridge));
    }
    talk_now.count = (uint32_t)count;
}

static uint32_t tokens_before(uint32_t talk, uint32_t turn)
{
    uint32_t tokens = 0;
    for (uint32_t i = 0; i < turn; i++) {
        tokens += prompt_tokens(talk, i) + ANSWER;
    }
    return tokens;
}

/* A save that the kill kept from being acknowledged may have been finished: then it counts. */
static void unacknowledged_find(struct llama_host *host)
{
    char text[32];
    for (uint32_t talk = 0; talk < TALKS; talk++) {
        int count = abode_llama_tokens(host->bridge, llama_host_name(talk, text));
        uint32_t kept = shared->turns_kept[talk];
        if (count > 0 && kept < TURNS && (uint32_t)count == tokens_before(talk, kept + 1)) {
            shared->turns_kept[talk]++;
            shared->turns_done++;
        }
    }
}

static void turn_keep(struct llama_host *host, uint32_t talk, uint32_t turn)
{
    struct abode_llama_saved saved;
    char text[32];
    turn_talk(host, talk, turn);
    int status = abode_llama_save(host->bridge, sequence, llama_host_name(talk, text),
                                  talk_now.tokens, talk_now.count, &saved);
    if (status < 0) {
        llama_host_end("save of talk %u: %s: %s", talk, abode_strerror(status),
                       abode_llama_reason(host->bridge));
    }
    shared->turns_kept[talk] = turn + 1;
    shared->bytes_added += saved.bytes_added;
    shared->tokens_added += saved.tokens_added;
    shared->turns_done++;
}

/* Turns from where they were acknowledged; ends by itself, or by the kill. */
static void turns(void)
{
    struct llama_host host;
    llama_host_open(&opts, &host, NULL);
    unacknowledged_find(&host);
    for (uint32_t i = 0; i < TURNS * TALKS; i++) {
        uint32_t talk = stay ? i / TURNS : i % TALKS;
        uint32_t turn = stay ? i % TURNS : i / TALKS;
        if (shared->turns_kept[talk] > turn) {
            continue;
        }
        if (!stay || turn == 0) {
            llama_host_forget(&host, sequence);
            talk_now.count = 0;
        }
        if (!stay && turn > 0) {
            restore(&host, talk);
        }
        if (talk_now.count != tokens_before(talk, turn)) {
            llama_host_end("talk %u has %u tokens before turn %u", talk, talk_now.count, turn);
        }
        turn_keep(&host, talk, turn);
    }
    while (stay) { /* for the kill */
        pause();
    }
    llama_host_close(&host);
}

static void restored(void)
{
    struct llama_host host;
    llama_host_open(&opts, &host, NULL);
    for (uint32_t talk = 0; talk < TALKS; talk++) {
        restore(&host, talk);
        last_talk(&host, talk, 1);
        llama_host_forget(&host, sequence);
    }
    llama_host_close(&host);
}

/* A process for each part; kill_at: turns after which it is killed. Its wait status. */
static int process(void (*part)(void), uint32_t kill_at)
{
    pid_t child = fork();
    int status = 0;
    if (child == 0) {
        part();
        fflush(stdout);
        _exit(0);
    }
    volatile uint32_t *done = &shared->turns_done;
    while (kill_at != 0 && *done < kill_at && waitpid(child, &status, WNOHANG) == 0) {
        usleep(500);
    }
    if (kill_at != 0) {
        usleep((useconds_t)(getpid() % 7) * 3000); /* somewhere in the turn after it */
        kill(child, SIGKILL);
    }
    return waitpid(child, &status, 0) == child ? status : -1;
}

static enum ggml_type type_of(const char *name)
{
    for (int type = 0; type < GGML_TYPE_COUNT; type++) {
        const char *known = ggml_type_name((enum ggml_type)type);
        if (known != NULL && strcmp(known, name) == 0) {
            return (enum ggml_type)type;
        }
    }
    llama_host_end("no type %s", name);
}

int main(int count, char **arguments)
{
    char store[64];
    if (count < 5) {
        llama_host_end(
            "usage: killed_check MODEL K-TYPE V-TYPE fa|nofa [whole] [split] [own] [stay] [long]");
    }
    llama_host_directory(store);
    opts = (struct llama_host_opts){.model = arguments[1],
                                    .store = store,
                                    .type_k = type_of(arguments[2]),
                                    .type_v = type_of(arguments[3]),
                                    .flash_attention = strcmp(arguments[4], "fa") == 0,
                                    .context_tokens = 1024,
                                    .memory_bytes = 64u << 20};
    for (int i = 5; i < count; i++) {
        opts.flags |= strcmp(arguments[i], "whole") == 0 ? ABODE_LLAMA_WHOLE : 0;
        opts.memory_bytes = opts.flags != 0 ? 512u << 20 : opts.memory_bytes;
        opts.split_streams |= strcmp(arguments[i], "split") == 0;
        opts.sequences = opts.split_streams ? 2 : 1;
        sequence = opts.split_streams ? 1 : 0;
        own |= strcmp(arguments[i], "own") == 0;
        longer |= strcmp(arguments[i], "long") == 0;
        stay |= strcmp(arguments[i], "stay") == 0;
    }
    shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    llama_host_check(process(reference, 0) == 0, "the reference talks without stopping");
    int killed = process(turns, stay ? TALKS * TURNS : TALKS * TURNS / 2);
    llama_host_check(WIFSIGNALED(killed) && WTERMSIG(killed) == SIGKILL,
                     "killed after %u of %d turns", shared->turns_done, TALKS * TURNS);
    int went_on = stay ? 0 : process(turns, 0);
    llama_host_check(went_on == 0 && shared->turns_done == TALKS * TURNS, "all %u turns are kept",
                     shared->turns_done);
    llama_host_check(process(restored, 0) == 0, "restored in another process");
    for (uint32_t talk = 0; talk < TALKS; talk++) {
        llama_host_check(
            shared->tokens[0][talk] == shared->tokens[1][talk] &&
                shared->digest[0][talk] == shared->digest[1][talk],
            "talk %u of %u tokens: logits of %d more, digest %016llx, reference %016llx", talk,
            shared->tokens[1][talk], LAST, (unsigned long long)shared->digest[1][talk],
            (unsigned long long)shared->digest[0][talk]);
    }
    printf("     %llu tokens, %llu bytes of state kept\n", (unsigned long long)shared->tokens_added,
           (unsigned long long)shared->bytes_added);
    llama_host_directory_remove(store);
    return llama_host_count();
}
