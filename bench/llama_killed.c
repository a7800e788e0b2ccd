/*
 * llama_killed.c - see llama_killed.h.
 */
#include "llama_killed.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define KEEPER_WORD "--keeper"
#define KEEPER_ARGUMENTS 9
#define TURN_TOKENS 16u
#define TURNS_BEFORE 2u /* acknowledged before the kill */
#define WAIT_SECONDS_MAX 300u
#define POLL_NS 100000l
#define TALK "killed"

struct shared {             /* a file that both map: it must outlive the killed one */
    uint32_t turns, tokens; /* acknowledged */
    uint32_t saving;        /* turns + 1 while it saves that turn */
    uint64_t save_ns;       /* how long the last save took */
    uint32_t loading;       /* the loader has got as far as the file */
};

static struct shared *shared_map(const char *path, int flags)
{
    const int fd = open(path, O_RDWR | O_CLOEXEC | flags, 0600);
    if (fd < 0 || ftruncate(fd, sizeof(struct shared)) != 0) {
        return NULL;
    }
    void *mapped = mmap(NULL, sizeof(struct shared), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    (void)close(fd);
    return mapped == MAP_FAILED ? NULL : mapped;
}

/* ---- the process that is killed ------------------------------------------------------------- */

static int turn_save(struct llama_rig *rig, const char *place, uint32_t tokens)
{
    const struct abode_llama_name name = {TALK, strlen(TALK)};
    if (rig->bridge != NULL) {
        return abode_llama_save(rig->bridge, 0, name, rig->tokens, tokens, NULL);
    }
    return llama_state_seq_save_file(rig->context, place, 0, rig->tokens, tokens) > 0 ? 0 : -EIO;
}

static int turns_go_on(struct llama_rig *rig, const char *place, uint32_t tokens,
                       volatile struct shared *shared)
{
    int code = 0;
    for (; code == 0 && tokens + TURN_TOKENS <= rig->tokens_max; tokens += TURN_TOKENS) {
        const uint64_t begin = bench_now_ns();
        shared->saving = shared->turns + 1;
        code = turn_save(rig, place, tokens);
        shared->save_ns = bench_now_ns() - begin;
        shared->tokens = code == 0 ? tokens : shared->tokens;
        shared->turns = shared->turns + (code == 0);
        code = code < 0 ? code : rig_decode(rig, tokens, TURN_TOKENS);
    }
    return code;
}

static uint32_t file_load(struct llama_rig *rig, const char *path)
{
    size_t count = 0;
    llama_token *tokens = calloc(rig->tokens_max, sizeof(*tokens));
    const bool loaded = tokens != NULL && llama_state_seq_load_file(rig->context, path, 0, tokens,
                                                                    rig->tokens_max, &count) > 0;
    free(tokens);
    return loaded ? (uint32_t)count : 0;
}

/* --keeper file|abode|load MODEL STATE PLACE TOKENS TOKENS_MAX BYTES SHARED */
bool llama_keeper_main(int argc, char **argv, int *ret_status)
{
    if (argc < 2 || strcmp(argv[1], KEEPER_WORD) != 0) {
        return false;
    }
    *ret_status = EXIT_FAILURE;
    struct shared *shared = argc == KEEPER_ARGUMENTS + 1 ? shared_map(argv[9], 0) : NULL;
    if (shared == NULL) {
        return true;
    }
    struct llama_rig rig;
    const uint32_t tokens = (uint32_t)strtoul(argv[6], NULL, 10);
    int code = rig_open(argv[3], (uint32_t)strtoul(argv[7], NULL, 10), &rig);
    if (code == 0 && strcmp(argv[2], "abode") == 0) {
        code = rig_store_open(&rig, argv[5], strtoull(argv[8], NULL, 10));
    }
    if (code == 0 && strcmp(argv[2], "load") == 0) {
        shared->loading = 1;
        shared->tokens = file_load(&rig, argv[5]);
        *ret_status = EXIT_SUCCESS;
        return true;
    }
    if (code == 0) {
        code =
            file_load(&rig, argv[4]) == tokens ? turns_go_on(&rig, argv[5], tokens, shared) : -EIO;
    }
    bench_say("keeper: ended by itself: %s", strerror(-code));
    return true;
}

/* ---- the process that kills ------------------------------------------------------------------- */

static pid_t keeper_start(const struct llama_killed_plan *plan, const char *what,
                          const char *shared_path)
{
    char tokens[16], tokens_max[16], bytes[24];
    (void)snprintf(tokens, sizeof(tokens), "%u", plan->tokens);
    (void)snprintf(tokens_max, sizeof(tokens_max), "%u", plan->tokens_max);
    (void)snprintf(bytes, sizeof(bytes), "%llu", (unsigned long long)plan->bytes);
    const char *arguments[] = {
        "/proc/self/exe", KEEPER_WORD, what,  plan->model, plan->state, plan->place,
        tokens,           tokens_max,  bytes, shared_path, NULL};
    const pid_t process = fork();
    if (process == 0) {
        (void)setenv("GGML_NO_BACKTRACE", "1", 1); /* where llama.cpp ends the process: at once */
        (void)execv(arguments[0], (char *const *)arguments);
        _exit(127);
    }
    return process;
}

/* Waits for a save after some turns, and for a part of the time that it takes. */
static int kill_in_save(pid_t process, volatile struct shared *shared, uint32_t seed)
{
    struct timespec pause = {.tv_nsec = POLL_NS};
    const uint64_t end = bench_now_ns() + (uint64_t)WAIT_SECONDS_MAX * 1000000000u;
    int code = 0;
    while (shared->turns < TURNS_BEFORE || shared->saving != shared->turns + 1) {
        if (bench_now_ns() > end || waitpid(process, NULL, WNOHANG) != 0) {
            code = -EIO;
            break;
        }
        (void)nanosleep(&pause, NULL);
    }
    uint64_t random = seed;
    const uint64_t part = bench_random(&random) % 800 + 100; /* permille of a save */
    const uint64_t wait_ns = shared->save_ns / 1000 * part;
    pause = (struct timespec){(time_t)(wait_ns / 1000000000u), (long)(wait_ns % 1000000000u)};
    (void)nanosleep(&pause, NULL);
    (void)kill(process, SIGKILL);
    (void)waitpid(process, NULL, 0);
    return code;
}

/* How many tokens come back. */
static int tokens_there(const struct llama_killed_plan *plan, struct llama_rig *rig,
                        struct shared *shared, const char *shared_path, uint32_t *ret_tokens)
{
    const struct abode_llama_name name = {TALK, strlen(TALK)};
    if (plan->keeper == LLAMA_KEEPER_FILE) {
        shared->tokens = shared->loading = 0;
        const pid_t process = keeper_start(plan, "load", shared_path);
        if (process < 0 || waitpid(process, NULL, 0) != process) {
            return -EAGAIN;
        }
        *ret_tokens = shared->tokens; /* a torn file ends the process: none */
        return shared->loading != 0 ? 0 : -EIO;
    }
    llama_token *tokens = calloc(rig->tokens_max, sizeof(*tokens));
    rig_forget(rig);
    int code = tokens == NULL ? -ENOMEM : rig_store_open(rig, plan->place, plan->bytes);
    if (code == 0) {
        const int got = abode_llama_restore(rig->bridge, 0, name, tokens, rig->tokens_max);
        *ret_tokens = got > 0 ? (uint32_t)got : 0;
        code = rig_store_close(rig);
    }
    free(tokens);
    return code;
}

int llama_killed(const struct llama_killed_plan *plan, struct llama_rig *rig,
                 uint32_t *ret_tokens_acknowledged, uint32_t *ret_tokens_there)
{
    char path[BENCH_PATH_MAX + 16];
    (void)snprintf(path, sizeof(path), "%s.said", plan->place);
    struct shared *shared = shared_map(path, O_CREAT | O_TRUNC);
    if (shared == NULL) {
        return -EIO;
    }
    const char *what = plan->keeper == LLAMA_KEEPER_ABODE ? "abode" : "file";
    const pid_t process = keeper_start(plan, what, path);
    int code = process < 0 ? -EAGAIN : kill_in_save(process, shared, plan->seed);
    const uint32_t acknowledged = shared->tokens;
    code = code < 0 ? code : tokens_there(plan, rig, shared, path, ret_tokens_there);
    *ret_tokens_acknowledged = acknowledged;
    (void)munmap(shared, sizeof(*shared));
    (void)unlink(path);
    return code;
}
