/*
 * main_llama.c - abode-llama: many conversations over one loaded model, more than its context holds.
 *
 *     abode-llama --model FILE --store DIRECTORY [--script FILE] ...      (--help tells all)
 *
 * A script, or what is typed, is lines of `name: text`. The context has a few sequences; a conversation
 * that has none takes that of the one that was quiet longest, whose state is in abode already: it is
 * saved after each answer. A conversation of an earlier run goes on from the store. At the end a table
 * says how long the first token of an answer took, by where the state was.
 */
#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "abode_llama.h"

enum {
    TALKS_MAX = 256,
    LINE_MAX_BYTES = 65536,
    SEQUENCES_MAX = 64,
    PIECE_MAX = 256,
    BATCH = 512,
    REASON_MAX = 512
};
enum source { NEW, CONTEXT, MEMORY, STORE, COMPUTED, COMPARED, SOURCES, UNKNOWN = SOURCES };
static const char *const SOURCE_NAMES[SOURCES] = {
    [NEW] = "new conversation",        [CONTEXT] = "still in the context",
    [MEMORY] = "abode, in memory",     [STORE] = "abode, from the store",
    [COMPUTED] = "not kept: computed", [COMPARED] = "(the same, computed again)",
};

#define UNDECODED "its tokens cannot be decoded (is the context large enough?)"

struct talk {
    char name[64];
    llama_token *tokens; /* context_tokens of them */
    uint32_t count;
    int32_t sequence; /* -1: none */
    uint64_t used;    /* when it last had a turn */
};
struct row { /* of the table */
    uint32_t turns;
    double seconds, longest;
    uint64_t tokens; /* of the conversation before the turn */
};
static struct {
    const char *model, *store, *script;
    uint32_t context_tokens, sequences, threads, answer;
    uint64_t memory_bytes;
    uint32_t die_after; /* turns; 0: do not */
    bool compare, quiet;
} opts = {.context_tokens = 4096,
          .sequences = 2,
          .threads = 2,
          .answer = 24,
          .memory_bytes = 256ull << 20};
static struct talk talks[TALKS_MAX];
static uint32_t talk_count;
static uint64_t turn_count;
static struct row table[SOURCES];
static uint64_t bytes_added, tokens_added, misses;
static struct llama_context *context;
static const struct llama_vocab *vocabulary;
static struct abode *runtime;
static struct abode_llama *bridge;

static void fail(const char *what, const char *why)
{
    fprintf(stderr, "abode-llama: %s: %s\n", what, why);
    exit(1);
}

static double now(void)
{
    struct timespec time;
    (void)clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

/* ---- sequences of the context ---------------------------------------------------------------------- */

static void sequence_empty(int32_t sequence)
{
    (void)llama_memory_seq_rm(llama_get_memory(context), sequence, -1, -1);
}

/* Decode tokens [first, count) of a talk; the last one's logits are wanted. */
static bool decode(struct talk *talk, uint32_t first)
{
    struct llama_batch batch = llama_batch_init(BATCH, 0, 1);
    bool good = true;
    for (uint32_t at = first; at < talk->count && good; at += (uint32_t)batch.n_tokens) {
        uint32_t left = talk->count - at;
        batch.n_tokens = (int32_t)(left < BATCH ? left : BATCH);
        for (uint32_t i = 0; i < (uint32_t)batch.n_tokens; i++) {
            batch.token[i] = talk->tokens[at + i];
            batch.pos[i] = (llama_pos)(at + i);
            batch.n_seq_id[i] = 1;
            batch.seq_id[i][0] = talk->sequence;
            batch.logits[i] = at + i == talk->count - 1;
        }
        good = llama_decode(context, batch) == 0;
    }
    llama_batch_free(batch);
    return good;
}

/* A sequence for this talk: a free one, or that of the talk that was quiet longest. */
static void sequence_take(struct talk *talk)
{
    bool taken[SEQUENCES_MAX] = {false};
    struct talk *quiet = NULL;
    for (uint32_t i = 0; i < talk_count; i++) {
        if (talks[i].sequence >= 0) {
            taken[talks[i].sequence] = true;
            quiet = quiet == NULL || talks[i].used < quiet->used ? &talks[i] : quiet;
        }
    }
    for (uint32_t i = 0; i < opts.sequences && talk->sequence < 0; i++) {
        talk->sequence = taken[i] ? -1 : (int32_t)i;
    }
    if (talk->sequence < 0 && quiet != NULL) {
        talk->sequence = quiet->sequence;
        quiet->sequence = -1;
        sequence_empty(talk->sequence);
    }
}

static uint64_t bytes_restored(void)
{
    struct abode_stats stats = {.struct_size = sizeof(stats)};
    return abode_stats_get(runtime, &stats) < 0 ? 0 : stats.bytes_restored;
}

static struct abode_llama_name name_of(const struct talk *talk)
{
    return (struct abode_llama_name){talk->name, strlen(talk->name)};
}

/* The state of a talk into its sequence, wherever it is; talk->count tokens are there afterwards. */
static enum source state_bring(struct talk *talk)
{
    if (talk->sequence >= 0) {
        return CONTEXT;
    }
    sequence_take(talk);
    uint64_t before = bytes_restored();
    int count = abode_llama_restore(bridge, talk->sequence, name_of(talk), talk->tokens,
                                    opts.context_tokens);
    if (count >= 0) {
        /* what the last save could not keep is here */
        if ((uint32_t)count < talk->count && !decode(talk, (uint32_t)count)) {
            fail(talk->name, UNDECODED);
        }
        talk->count = (uint32_t)count > talk->count ? (uint32_t)count : talk->count;
        return bytes_restored() > before ? STORE : MEMORY;
    }
    char reason[REASON_MAX];
    (void)snprintf(reason, sizeof(reason), "%s", abode_llama_reason(bridge));
    const bool is_known = abode_llama_tokens(bridge, name_of(talk)) != -ENOENT;
    if (talk->count == 0 && !is_known) {
        return NEW;
    }
    if (talk->count == 0) { /* of an earlier run: a turn now would write over it */
        fprintf(stderr, "abode-llama: %s: %s; it is left as it is\n", talk->name, reason);
        return UNKNOWN;
    }
    misses++;
    fprintf(stderr, "abode-llama: %s: %s; it is computed again\n", talk->name, reason);
    if (!decode(talk, 0)) {
        fail(talk->name, UNDECODED);
    }
    return COMPUTED;
}

/* Seconds that it takes without kept state: the same tokens, computed in the same sequence. */
static double compare(struct talk *talk)
{
    uint32_t count = talk->count;
    sequence_empty(talk->sequence);
    double started = now();
    if (!decode(talk, 0)) {
        fail(talk->name, "its tokens cannot be decoded");
    }
    double seconds = now() - started;
    sequence_empty(talk->sequence);
    int again = abode_llama_restore(bridge, talk->sequence, name_of(talk), talk->tokens,
                                    opts.context_tokens);
    if (again != (int)count) {
        fail(talk->name, abode_llama_reason(bridge));
    }
    return seconds;
}

static void row_add(enum source source, uint32_t tokens, double seconds)
{
    struct row *row = &table[source];
    row->turns++;
    row->tokens += tokens;
    row->seconds += seconds;
    row->longest = seconds > row->longest ? seconds : row->longest;
}

/* ---- a turn ---------------------------------------------------------------------------------------- */

static struct talk *talk_of(const char *name)
{
    for (uint32_t i = 0; i < talk_count; i++) {
        if (strcmp(talks[i].name, name) == 0) {
            return &talks[i];
        }
    }
    if (talk_count == TALKS_MAX) {
        return NULL;
    }
    struct talk *talk = &talks[talk_count++];
    (void)snprintf(talk->name, sizeof(talk->name), "%.63s", name);
    talk->sequence = -1;
    talk->tokens = calloc(opts.context_tokens, sizeof(*talk->tokens));
    if (talk->tokens == NULL) {
        fail(name, "no memory");
    }
    return talk;
}

static llama_token likeliest(void)
{
    const float *logits = llama_get_logits_ith(context, -1);
    llama_token best = 0;
    for (llama_token token = 1; token < llama_vocab_n_tokens(vocabulary); token++) {
        best = logits[token] > logits[best] ? token : best;
    }
    return best;
}

/* Text as tokens at the end of a talk; false: no room for it and an answer. */
static bool text_add(struct talk *talk, const char *text)
{
    static char whole[LINE_MAX_BYTES + 32];
    (void)snprintf(whole, sizeof(whole), "%sUser: %s\nAssistant:", talk->count > 0 ? "\n" : "",
                   text);
    int32_t room = (int32_t)(opts.context_tokens - talk->count) - (int32_t)opts.answer - 1;
    int32_t got = room <= 0
                      ? -1
                      : llama_tokenize(vocabulary, whole, (int32_t)strlen(whole),
                                       talk->tokens + talk->count, room, talk->count == 0, false);
    talk->count += got > 0 ? (uint32_t)got : 0;
    return got > 0;
}

static void token_print(llama_token token)
{
    char piece[PIECE_MAX];
    int32_t size = llama_token_to_piece(vocabulary, token, piece, sizeof(piece), 0, false);
    if (!opts.quiet && size > 0) {
        printf("%.*s", (int)size, piece);
        (void)fflush(stdout);
    }
}

static void keep_end(void)
{
    if (abode_llama_save_end(bridge) < 0) {
        fprintf(stderr, "abode-llama: the last turn is not kept: %s\n", abode_llama_reason(bridge));
    }
}

/* Written while the next turn is computed; one turn at a time is under way. */
static void keep(struct talk *talk)
{
    struct abode_llama_saved saved;
    keep_end();
    int status = abode_llama_save_begin(bridge, talk->sequence, name_of(talk), talk->tokens,
                                        talk->count, &saved);
    if (status < 0) {
        fprintf(stderr, "abode-llama: %s is not kept: %s\n", talk->name,
                abode_llama_reason(bridge));
        return;
    }
    bytes_added += saved.bytes_added;
    tokens_added += saved.tokens_added;
}

static void turn(const char *name, const char *text)
{
    struct talk *talk = talk_of(name);
    if (talk == NULL) {
        fprintf(stderr, "abode-llama: %s: more than %d conversations\n", name, TALKS_MAX);
        return;
    }
    double started = now();
    enum source source = state_bring(talk);
    if (source == UNKNOWN) {
        talk->sequence = -1;
        return;
    }
    double brought = now() - started;
    bool compared = opts.compare && (source == MEMORY || source == STORE);
    double computed = compared ? compare(talk) : 0;
    uint32_t before = talk->count;
    talk->used = ++turn_count;
    started = now();
    if (!text_add(talk, text) || !decode(talk, before)) {
        talk->count = before;
        /* a part of the text may be in it: it comes back from abode next time */
        sequence_empty(talk->sequence);
        talk->sequence = -1;
        fprintf(stderr, "abode-llama: %s: the conversation is full (--context)\n", name);
        return;
    }
    llama_token token = likeliest();
    double prompt = now() - started, seconds = brought + prompt;
    row_add(source, before, seconds);
    if (compared) {
        row_add(COMPARED, before, computed + prompt);
    }
    printf("[%s, %u tokens, %s, first token after %.0f ms]", name, before, SOURCE_NAMES[source],
           seconds * 1e3);
    for (uint32_t i = 0; i < opts.answer && !llama_vocab_is_eog(vocabulary, token); i++) {
        token_print(token);
        talk->tokens[talk->count++] = token;
        if (!decode(talk, talk->count - 1)) {
            fail(name, "a token cannot be decoded");
        }
        token = likeliest();
    }
    printf("\n");
    keep(talk);
    if (turn_count == opts.die_after) {
        keep_end();
        (void)fflush(stdout);
        (void)raise(SIGKILL);
    }
}

/* ---- start and end --------------------------------------------------------------------------------- */

static void log_quiet(enum ggml_log_level level, const char *text, void *unused)
{
    (void)unused;
    if (level == GGML_LOG_LEVEL_ERROR) {
        fputs(text, stderr);
    }
}

static void log_line(void *unused, int level, const char *line)
{
    (void)unused;
    if (level <= ABODE_LOG_WARNING) {
        fprintf(stderr, "abode: %s\n", line);
    }
}

static void start(void)
{
    llama_log_set(log_quiet, NULL);
    struct llama_model *model =
        llama_model_load_from_file(opts.model, llama_model_default_params());
    struct llama_context_params params = llama_context_default_params();
    params.n_seq_max = opts.sequences;
    params.n_ctx = opts.context_tokens * opts.sequences;
    params.n_batch = params.n_ubatch = BATCH;
    params.n_threads = params.n_threads_batch = (int32_t)opts.threads;
    context = model == NULL ? NULL : llama_init_from_model(model, params);
    if (context == NULL) {
        fail(opts.model, "cannot be loaded");
    }
    vocabulary = llama_model_get_vocab(model);
    if (llama_vocab_type(vocabulary) == LLAMA_VOCAB_TYPE_NONE) {
        fail(opts.model, "the model has no vocabulary to talk with");
    }
    struct abode_config config;
    abode_config_init(&config);
    config.flags = ABODE_CREATE;
    config.memory_bytes_max = opts.memory_bytes;
    config.store_paths = &opts.store;
    config.store_path_count = 1;
    config.log = log_line;
    int status = abode_open(&config, &runtime);
    if (status < 0) {
        fail(opts.store, abode_strerror(status));
    }
    struct abode_llama_opts with = {.struct_size = sizeof(with),
                                    .runtime = runtime,
                                    .context = context,
                                    .params = &params,
                                    .weights_path = opts.model};
    status = abode_llama_open(&with, &bridge);
    if (status < 0) {
        fail(opts.model, abode_llama_reason(NULL));
    }
    printf("%s: %s; %u sequences of %u tokens, %llu MiB of memory for abode\n"
           "look at it from another terminal: abode inspect %s\n",
           opts.model, abode_llama_layout(bridge), opts.sequences, opts.context_tokens,
           (unsigned long long)(opts.memory_bytes >> 20), opts.store);
}

static void finish(void)
{
    keep_end();
    printf("\n%-28s %6s %14s %14s %14s\n", "where the state was", "turns", "tokens, mean",
           "first token ms", "longest ms");
    for (uint32_t source = 0; source < SOURCES; source++) {
        const struct row *row = &table[source];
        if (row->turns > 0) {
            printf("%-28s %6u %14.0f %14.1f %14.1f\n", SOURCE_NAMES[source], row->turns,
                   (double)row->tokens / row->turns, row->seconds / row->turns * 1e3,
                   row->longest * 1e3);
        }
    }
    struct abode_stats stats = {.struct_size = sizeof(stats)};
    if (turn_count > 0 && abode_stats_get(runtime, &stats) == 0) {
        printf("kept a turn: %.0f tokens, %.0f KiB of state, %.0f KiB written to the store; %llu "
               "conversations, %llu computed again\n",
               (double)tokens_added / (double)turn_count,
               (double)bytes_added / 1024 / (double)turn_count,
               (double)stats.bytes_written / 1024 / (double)turn_count,
               (unsigned long long)talk_count, (unsigned long long)misses);
    }
    int status = abode_llama_close(bridge);
    status = status < 0 ? status : abode_close(runtime);
    if (status < 0) {
        fail("close", abode_strerror(status));
    }
    llama_free(context);
}

static void talk_through(FILE *file)
{
    static char line[LINE_MAX_BYTES];
    while (fgets(line, sizeof(line), file) != NULL) {
        line[strcspn(line, "\n")] = 0;
        char *colon = strchr(line, ':');
        if (line[0] == 0 || line[0] == '#') {
            continue;
        }
        if (colon == NULL || colon == line || colon - line >= 64) {
            fprintf(stderr, "abode-llama: a line is `name: text`\n");
            continue;
        }
        *colon = 0;
        turn(line, colon + 1 + strspn(colon + 1, " "));
    }
}

static void usage(FILE *file)
{
    fputs("usage: abode-llama --model FILE --store DIRECTORY [options]\n"
          "  --script FILE     lines of `name: text`; without, they are read from the terminal\n"
          "  --sequences N     conversations that the context holds (2)\n"
          "  --context N       tokens of each (4096)\n"
          "  --memory BYTES    memory for abode (268435456)\n"
          "  --threads N       of llama.cpp (2)\n"
          "  --answer N        tokens of an answer at most (24)\n"
          "  --compare         compute each returning conversation again too, to compare\n"
          "  --die-after N     end by SIGKILL when N turns are kept, to show that they are\n"
          "  --quiet           do not print the answers\n",
          file);
}

static uint64_t number(const char *text, uint64_t least, uint64_t most)
{
    char *end;
    uint64_t value = strtoull(text, &end, 10);
    if (*end != 0 || value < least || value > most) {
        usage(stderr);
        exit(2);
    }
    return value;
}

static void options_read(int count, char **arguments)
{
    enum { MODEL = 1, STORE_DIR, SCRIPT, SEQUENCES, TOKENS, BYTES, THREADS, ANSWER, DIE };
    enum { COMPARE = 100, QUIET, HELP };
    static const struct option known[] = {
        {"model", 1, NULL, MODEL},
        {"store", 1, NULL, STORE_DIR},
        {"script", 1, NULL, SCRIPT},
        {"sequences", 1, NULL, SEQUENCES},
        {"context", 1, NULL, TOKENS},
        {"memory", 1, NULL, BYTES},
        {"threads", 1, NULL, THREADS},
        {"answer", 1, NULL, ANSWER},
        {"compare", 0, NULL, COMPARE},
        {"quiet", 0, NULL, QUIET},
        {"help", 0, NULL, HELP},
        {"die-after", 1, NULL, DIE},
        {0},
    };
    const char **texts[] = {
        [MODEL] = &opts.model, [STORE_DIR] = &opts.store, [SCRIPT] = &opts.script};
    uint32_t *numbers[] = {[SEQUENCES] = &opts.sequences,
                           [TOKENS] = &opts.context_tokens,
                           [THREADS] = &opts.threads,
                           [ANSWER] = &opts.answer,
                           [DIE] = &opts.die_after};
    int option;
    while ((option = getopt_long(count, arguments, "", known, NULL)) != -1) {
        if (option == HELP || option == '?') {
            usage(option == HELP ? stdout : stderr);
            exit(option == HELP ? 0 : 2);
        } else if (option == COMPARE || option == QUIET) {
            *(option == COMPARE ? &opts.compare : &opts.quiet) = true;
        } else if (option == BYTES) {
            opts.memory_bytes = number(optarg, 1u << 20, UINT64_MAX);
        } else if (option <= SCRIPT) {
            *texts[option] = optarg;
        } else {
            *numbers[option] =
                (uint32_t)number(optarg, 1, option == SEQUENCES ? SEQUENCES_MAX : 1u << 20);
        }
    }
    if (opts.model == NULL || opts.store == NULL || optind != count) {
        usage(stderr);
        exit(2);
    }
}

int main(int count, char **arguments)
{
    options_read(count, arguments);
    (void)setvbuf(stdout, NULL, _IOLBF, 0); /* a turn is seen when it is had, in a pipe too */
    FILE *file = opts.script == NULL ? stdin : fopen(opts.script, "re");
    if (file == NULL) {
        fail(opts.script, strerror(errno));
    }
    start();
    talk_through(file);
    finish();
    return 0;
}
