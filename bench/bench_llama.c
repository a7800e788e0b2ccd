/*
 * bench_llama.c - a conversation that returns, with real attention: how long until its next token, by
 * where its state was; what a turn writes; what a kill -9 takes. H3 and H4 of the scorecard.
 *
 * MODELS. Gemma-3-270M Q4_K_M (sliding windows: 9.2 KiB of K and V a token, of which 6 stay in the
 * window), and one with random weights that has the K and V of a common 8B model, 64 KiB a token. One
 * sequence, f16, flash attention, two threads for prompts and one for single tokens.
 *
 * WAYS BACK, each to the logits of one more token:
 *   recompute       the prompt, from the first token on
 *   file, cold      llama_state_seq_load_file, the file's pages dropped from the page cache
 *   file, hot       the same, from the page cache
 *   server          llama-server's host-memory prompt cache, over HTTP (llama_server.h)
 *   abode, memory   frames of the runtime
 *   abode, disk     O_DIRECT, its frames given up before (ABODE_DETACH_SPILL_NOW)
 * Bound: state bytes over what fio reads with O_DIRECT in the same round, plus one token's decoding.
 *
 * A round has all of them, in turn, and the saves: llama.cpp's file without and with fsync, abode's
 * (durable, in two steps); then a turn of TURN_TOKENS, and both saves again. Before them a conversation
 * that nobody knows is looked for. What is wasted where nobody comes back: that, the first step of a
 * save, and the CPU time of the second. Logits after all ways back must be the same bits.
 *
 * Computing a prompt again takes long: it is done while it has taken less than RECOMPUTE_SECONDS in all,
 * once at least, and not at all where the shorter conversation says that it would take more than
 * RECOMPUTE_SECONDS_MAX ($ABODE_BENCH_RECOMPUTE, if that is set). A state that was not computed then is
 * the shorter one, its rows again and again.
 *
 * Models are those of $LLAMA (make bench-llama gets them). --bytes N: conversations of N tokens at most.
 */
#include "bench_common.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "llama_bridge.h"
#include "llama_cells.h"
#include "llama_killed.h"

#define TURN_TOKENS 100u
#define OTHER_TOKENS 64u
#define RECOMPUTE_SECONDS 20.0
#define RECOMPUTE_SECONDS_MAX 240.0
#define TALK "a talk"

static const struct abode_llama_name talk = {TALK, sizeof(TALK) - 1};

static double seconds_since(uint64_t begin_ns)
{
    return (double)(bench_now_ns() - begin_ns) / 1e9;
}

static double recompute_seconds_max(void)
{
    const char *given = getenv("ABODE_BENCH_RECOMPUTE");
    return given == NULL ? RECOMPUTE_SECONDS_MAX : strtod(given, NULL);
}

static void add(const struct subject *subject, struct bench_series *series, double value)
{
    if (subject->counted) {
        bench_series_add(series, value);
    }
}

/* ---- ways back -------------------------------------------------------------------------------- */

/* One token after `tokens`; the logits of all ways back of a round must be the same. */
static int next_token(struct subject *subject, struct cell *cell)
{
    return rig_decode(&subject->rig, cell->tokens, 1);
}

static void back_note(struct subject *subject, struct cell *cell, enum way way, double load,
                      double seconds)
{
    const uint64_t logits = rig_logits(&subject->rig);
    add(subject, &cell->load[way], load);
    add(subject, &cell->back[way], seconds);
    if (subject->logits != 0) {
        cell->logits_compared++;
        cell->logits_differ += logits != subject->logits;
    }
    subject->logits = logits;
}

static int file_back(struct subject *subject, struct cell *cell, enum way way)
{
    llama_token *tokens = calloc(subject->rig.tokens_max, sizeof(*tokens));
    size_t count = 0;
    const int fd = open(subject->state_file, O_RDONLY | O_CLOEXEC);
    int code = fd < 0 || tokens == NULL ? -EIO : 0;
    if (code == 0 && way == FILE_COLD) {
        code = bench_cache_drop_fd(fd);
    }
    rig_forget(&subject->rig);
    if (code == 0) {
        const uint64_t begin = bench_now_ns();
        code = llama_state_seq_load_file(subject->rig.context, subject->state_file, 0, tokens,
                                         subject->rig.tokens_max, &count) > 0
                   ? 0
                   : -EIO;
        const double load = seconds_since(begin);
        code = code < 0 ? code : next_token(subject, cell);
        back_note(subject, cell, way, load, seconds_since(begin));
    }
    if (fd >= 0) {
        (void)close(fd);
    }
    free(tokens);
    return code;
}

static int abode_back(struct subject *subject, struct cell *cell, enum way way)
{
    llama_token *tokens = calloc(subject->rig.tokens_max, sizeof(*tokens));
    if (tokens == NULL) {
        return -ENOMEM;
    }
    rig_forget(&subject->rig);
    const uint64_t begin = bench_now_ns();
    const int got =
        abode_llama_restore(subject->rig.bridge, 0, talk, tokens, subject->rig.tokens_max);
    const double load = seconds_since(begin);
    int code = got < 0 ? got : (uint32_t)got == cell->tokens ? 0 : -EIO;
    code = code < 0 ? code : next_token(subject, cell);
    if (code == 0) {
        back_note(subject, cell, way, load, seconds_since(begin));
    } else {
        bench_say("abode: %d tokens, %s", got, abode_llama_reason(subject->rig.bridge));
    }
    free(tokens);
    return code;
}

/* The talk's frames are given up: its state is in the store only, around the page cache. */
static int spill(struct subject *subject)
{
    struct abode *runtime = subject->rig.runtime;
    struct abode_op op = {0}, *done = NULL;
    struct abode_queue *queue;
    struct abode_session session;
    struct abode_key key;
    ab_llama_session_key(subject->rig.bridge->tag, talk, &key);
    int code = abode_session_find(runtime, &key, &session);
    code = code < 0 ? code : abode_queue_open(runtime, 1, &queue);
    if (code < 0) {
        return code;
    }
    code = abode_attach(queue, session, -1, 0, &op);
    code = code < 0 ? code : abode_poll(queue, &done, 1, -1);
    code = code < 0 ? code : op.status;
    code = code < 0 ? code : abode_detach(queue, session, ABODE_DETACH_SPILL_NOW, &op);
    code = code < 0 ? code : abode_poll(queue, &done, 1, -1);
    code = code < 0 ? code : op.status;
    struct abode_session_info info = {.struct_size = sizeof(info)};
    code = code < 0 ? code : abode_session_stat(runtime, session, &info);
    const int closed = abode_queue_close(queue);
    code = code < 0 ? code : closed;
    return code == 0 && info.bytes_resident != 0 ? -EBUSY : code;
}

static int server_back(struct subject *subject, struct cell *cell)
{
    uint32_t computed = 0;
    if (subject->server.process == 0) {
        return 0;
    }
    const uint64_t begin = bench_now_ns();
    int code =
        llama_server_ask(&subject->server, subject->server_tokens, cell->tokens + 1, &computed);
    const double seconds = seconds_since(begin);
    if (code == 0 && computed <= OTHER_TOKENS) {
        add(subject, &cell->back[SERVER], seconds);
    } else {
        (void)snprintf(cell->not_run[SERVER], REASON_BYTES, "it computed %u tokens again",
                       computed);
    }
    return code < 0 ? code
                    : llama_server_ask(&subject->server, subject->server_tokens + 1, OTHER_TOKENS,
                                       &computed);
}

/* keep: what is computed becomes the rig's state, outside the time. */
static int recompute(struct subject *subject, struct cell *cell, bool keep)
{
    rig_forget(&subject->rig);
    uint64_t begin = bench_now_ns();
    int code = rig_decode(&subject->rig, 0, cell->tokens);
    const double prompt = seconds_since(begin);
    if (code == 0 && keep) {
        code = rig_state_take(&subject->rig, cell->tokens);
    }
    begin = bench_now_ns();
    code = code < 0 ? code : next_token(subject, cell);
    if (code == 0) {
        bench_series_add(&cell->back[RECOMPUTE], prompt + seconds_since(begin));
    }
    return code;
}

/* ---- saves ------------------------------------------------------------------------------------ */

/* llama.cpp's own file: written, and durable. */
static int file_save(struct subject *subject, uint32_t tokens, double *ret_save,
                     double *ret_durable, uint64_t *ret_bytes)
{
    struct stat about;
    const uint64_t begin = bench_now_ns();
    if (llama_state_seq_save_file(subject->rig.context, subject->state_file, 0, subject->rig.tokens,
                                  tokens) == 0) {
        return -EIO;
    }
    *ret_save = seconds_since(begin);
    const int fd = open(subject->state_file, O_RDONLY | O_CLOEXEC);
    const int code = fd < 0 || fsync(fd) != 0 || fstat(fd, &about) != 0 ? -errno : 0;
    *ret_durable = seconds_since(begin);
    *ret_bytes = code < 0 ? 0 : (uint64_t)about.st_size;
    if (fd >= 0) {
        (void)close(fd);
    }
    return code;
}

struct abode_time {
    double begin; /* until the host may go on */
    double save;  /* until it is durable */
    double cost;  /* begin, and all CPU time of the rest: it may hold a prompt up for so long */
};

static int abode_save(struct subject *subject, uint32_t tokens, struct abode_time *ret_time,
                      struct abode_llama_saved *ret_saved, uint64_t *ret_bytes)
{
    struct abode_stats before = {.struct_size = sizeof(before)}, after = before;
    int code = abode_stats_get(subject->rig.runtime, &before);
    const uint64_t begin = bench_now_ns();
    code = code < 0 ? code
                    : abode_llama_save_begin(subject->rig.bridge, 0, talk, subject->rig.tokens,
                                             tokens, ret_saved);
    ret_time->begin = seconds_since(begin);
    const double cpu = bench_cpu_s(); /* this thread waits: the rest is abode's */
    code = code < 0 ? code : abode_llama_save_end(subject->rig.bridge);
    ret_time->save = seconds_since(begin);
    ret_time->cost = ret_time->begin + bench_cpu_s() - cpu;
    if (code < 0) {
        bench_say("abode: %s: %s", abode_strerror(code), abode_llama_reason(subject->rig.bridge));
        return code;
    }
    code = abode_stats_get(subject->rig.runtime, &after);
    *ret_bytes = after.bytes_written - before.bytes_written;
    return code;
}

/* Nobody knows it: what a host pays before it computes a prompt. */
static void lookup(struct subject *subject, struct cell *cell)
{
    llama_token none;
    const uint64_t begin = bench_now_ns();
    const int known = abode_llama_tokens(subject->rig.bridge, talk);
    const int back = abode_llama_restore(subject->rig.bridge, 0, talk, &none, 1);
    if (known == -ENOENT && back == -ENOENT) {
        add(subject, &cell->lookup, seconds_since(begin));
    }
}

static int saves(struct subject *subject, struct cell *cell)
{
    struct abode_llama_saved saved;
    struct abode_time abode = {0};
    double save = 0, durable = 0;
    uint64_t bytes;
    lookup(subject, cell);
    int code = rig_state_put(&subject->rig);
    code = code < 0 ? code : file_save(subject, cell->tokens, &save, &durable, &bytes);
    code = code < 0 ? code : abode_save(subject, cell->tokens, &abode, &saved, &bytes);
    if (code == 0) {
        add(subject, &cell->file_save, save);
        add(subject, &cell->file_durable, durable);
        add(subject, &cell->abode_save, abode.save);
        add(subject, &cell->abode_begin, abode.begin);
        add(subject, &cell->abode_cost, abode.cost);
    }
    return code;
}

/* After the way back from disk the sequence has one token more than was kept. */
static int turn(struct subject *subject, struct cell *cell)
{
    struct abode_llama_saved saved;
    const uint32_t tokens = cell->tokens + 1 + TURN_TOKENS;
    struct abode_time abode = {0};
    double save = 0, durable = 0;
    uint64_t file_bytes = 0, abode_bytes = 0;
    int code = rig_decode(&subject->rig, cell->tokens + 1, TURN_TOKENS);
    code = code < 0 ? code : file_save(subject, tokens, &save, &durable, &file_bytes);
    code = code < 0 ? code : abode_save(subject, tokens, &abode, &saved, &abode_bytes);
    if (code == 0) {
        add(subject, &cell->file_turn_unsynced, save);
        add(subject, &cell->file_turn, durable);
        add(subject, &cell->abode_turn, abode.save);
        add(subject, &cell->file_turn_bytes, (double)file_bytes);
        add(subject, &cell->abode_turn_bytes, (double)abode_bytes);
        add(subject, &cell->turn_bytes_new,
            (double)(saved.tokens_added * rig_token_bytes(&subject->rig)));
    }
    return code;
}

/* ---- a cell ----------------------------------------------------------------------------------- */

static int cell_round(struct subject *subject, struct cell *cell)
{
    subject->logits = 0;
    rig_tokens_draw(&subject->rig, ++subject->talks);
    int code = saves(subject, cell);
    code = code < 0 ? code : file_back(subject, cell, FILE_COLD);
    code = code < 0 ? code : abode_back(subject, cell, ABODE_MEMORY);
    code = code < 0 ? code : file_back(subject, cell, FILE_HOT);
    if (code == 0 && fio_is_there()) {
        struct bench_sample sample;
        code = fio_run(&subject->device, &sample);
        add(subject, &cell->device,
            sample.seconds * (double)cell->state_bytes / (double)subject->device.bytes);
    }
    code = code < 0 ? code : server_back(subject, cell);
    code = code < 0 ? code : spill(subject);
    code = code < 0 ? code : abode_back(subject, cell, ABODE_DISK);
    code = code < 0 ? code : turn(subject, cell);
    code = code < 0 ? code : abode_llama_delete(subject->rig.bridge, talk);
    const struct bench_series *again = &cell->back[RECOMPUTE];
    if (code == 0 && again->count > 0 && again->count < subject->run->rounds &&
        bench_series_median(again) * (again->count + 1) < RECOMPUTE_SECONDS) {
        code = recompute(subject, cell, false);
    }
    return code;
}

/* The conversation's state into the rig, by computing it where that takes a sane time. */
static int cell_state(struct subject *subject, uint32_t length)
{
    struct cell *cell = &subject->cells[length];
    const struct cell *before = length > 0 ? cell - 1 : cell;
    const double least =
        bench_series_median(&before->back[RECOMPUTE]) * cell->tokens / before->tokens;
    int code;
    if (length > 0 && (before->back[RECOMPUTE].count == 0 || least > recompute_seconds_max())) {
        const char *shorter = llama_length_names[length - 1];
        if (before->back[RECOMPUTE].count == 0) {
            (void)snprintf(cell->not_run[RECOMPUTE], REASON_BYTES,
                           "%s tokens took too long already", shorter);
        } else {
            (void)snprintf(cell->not_run[RECOMPUTE], REASON_BYTES,
                           "%s tokens took %.0f s, %s would take %.0f s at least", shorter,
                           bench_series_median(&before->back[RECOMPUTE]),
                           llama_length_names[length], least);
        }
        code = rig_state_stretch(&subject->rig, cell->tokens);
    } else {
        code = recompute(subject, cell, true);
    }
    cell->state_bytes = subject->rig.state_size;
    return code;
}

static int server_open(struct subject *subject, struct cell *cell)
{
    const char *cache = getenv("LLAMA");
    char program[BENCH_PATH_MAX];
    uint32_t computed;
    double save, durable;
    uint64_t bytes;
    (void)snprintf(program, sizeof(program), "%s/build/bin/llama-server",
                   cache == NULL ? "" : cache);
    const struct llama_server_plan plan = {.program = program,
                                           .model = subject->model,
                                           .folder = subject->folder,
                                           .context_tokens = cell->tokens + RIG_SLACK_TOKENS,
                                           .cache_bytes = 4 * cell->state_bytes + (256u << 20),
                                           .whole_window = subject->window};
    memcpy(subject->server_tokens, subject->rig.tokens,
           subject->rig.tokens_max * sizeof(*subject->server_tokens));
    int code = llama_server_start(&plan, &subject->server);
    if (code == 0 && subject->window) { /* its slot is of another layout than the rig's */
        code = llama_server_ask(&subject->server, subject->rig.tokens, cell->tokens, &computed);
    } else if (code == 0) {
        code = rig_state_put(&subject->rig);
        code = code < 0 ? code : file_save(subject, cell->tokens, &save, &durable, &bytes);
        code = code < 0 ? code : llama_server_slot(&subject->server, "state.llama");
    }
    code = code < 0 ? code
                    : llama_server_ask(&subject->server, subject->rig.tokens + 1, OTHER_TOKENS,
                                       &computed);
    if (code < 0) {
        llama_server_stop(&subject->server);
        (void)snprintf(cell->not_run[SERVER], REASON_BYTES, "%s",
                       code == -ENOENT
                           ? "llama-server is not built (runtime/adapters/llama_cpp/get server)"
                           : strerror(-code));
    }
    return 0;
}

static int cell_open(struct subject *subject, struct cell *cell)
{
    const uint64_t device_bytes = cell->state_bytes < (64u << 20) ? 64u << 20 : cell->state_bytes;
    subject->device = (struct fio_plan){
        .bytes = device_bytes & ~((1ull << 20) - 1), .block_bytes = 1u << 20, .depth = 8};
    int code = fio_is_there() ? fio_open(subject->run, &subject->device) : 0;
    code = code < 0 ? code : server_open(subject, cell);
    return code < 0 ? code : rig_store_open(&subject->rig, subject->store, cell->state_bytes);
}

static int cell_measure(struct subject *subject, uint32_t length)
{
    struct cell *cell = &subject->cells[length];
    cell->tokens = llama_lengths[length];
    int code = cell_state(subject, length);
    if (code < 0) {
        return code;
    }
    code = cell_open(subject, cell);
    for (uint32_t i = 0; i < subject->run->warmup + subject->run->rounds && code == 0; i++) {
        subject->counted = i >= subject->run->warmup;
        code = cell_round(subject, cell);
    }
    llama_server_stop(&subject->server);
    const int closed = rig_store_close(&subject->rig);
    if (fio_is_there()) {
        fio_close(&subject->device);
    }
    return code < 0 ? code : closed;
}

static int killed_measure(struct subject *subject)
{
    struct cell *cell = &subject->cells[KILL_LENGTH];
    double save, durable;
    uint64_t bytes;
    char place[BENCH_PATH_MAX + 16];
    (void)snprintf(place, sizeof(place), "%s/turns", subject->folder);
    for (uint32_t i = 0; i < 2 * KILLS; i++) {
        struct llama_killed_plan plan = {.keeper = (enum llama_keeper)(i % 2),
                                         .model = subject->model,
                                         .state = subject->state_file,
                                         .tokens = cell->tokens,
                                         .tokens_max = llama_lengths[subject->length_count - 1],
                                         .bytes = cell->state_bytes,
                                         .seed = i};
        uint32_t there;
        (void)snprintf(plan.place, sizeof(plan.place), "%.480s-%u", place, i);
        int code = rig_state_put(&subject->rig);
        code = code < 0 ? code : file_save(subject, cell->tokens, &save, &durable, &bytes);
        if (code == 0 && plan.keeper == LLAMA_KEEPER_ABODE && mkdir(plan.place, 0700) != 0) {
            code = -errno;
        }
        code = code < 0 ? code
                        : llama_killed(&plan, &subject->rig,
                                       &subject->acknowledged[plan.keeper][i / 2], &there);
        if (code < 0) {
            return code;
        }
        const uint32_t had = subject->acknowledged[plan.keeper][i / 2];
        subject->lost[plan.keeper][i / 2] = there < had ? had - there : 0;
        if (plan.keeper == LLAMA_KEEPER_ABODE) {
            (void)bench_directory_remove(plan.place);
        } else {
            (void)unlink(plan.place);
        }
        subject->kills = i / 2 + 1;
    }
    return 0;
}

/* ---- a model ------------------------------------------------------------------------------------ */

static int subject_open(struct subject *subject)
{
    const char *cache = getenv("LLAMA");
    (void)snprintf(subject->model, sizeof(subject->model), "%s/models/%s.gguf",
                   cache == NULL ? "" : cache, subject->file);
    if (access(subject->model, R_OK) != 0) {
        bench_say("%s is not there: make bench-llama gets it", subject->model);
        return -ENOENT;
    }
    while (subject->length_count < LENGTHS &&
           llama_lengths[subject->length_count] <=
               bench_bytes(subject->run, llama_lengths[LENGTHS - 1])) {
        subject->length_count++;
    }
    if (subject->length_count == 0) {
        return -EINVAL;
    }
    int code = bench_directory_make(subject->run, "llama", subject->folder);
    if (code < 0) {
        return code;
    }
    (void)snprintf(subject->store, sizeof(subject->store), "%s/store", subject->folder);
    (void)snprintf(subject->state_file, sizeof(subject->state_file), "%s/state.llama",
                   subject->folder);
    code = mkdir(subject->store, 0700) != 0
               ? -errno
               : rig_open(subject->model, llama_lengths[subject->length_count - 1], &subject->rig);
    subject->server_tokens =
        code < 0 ? NULL : calloc(subject->rig.tokens_max, sizeof(*subject->server_tokens));
    return code == 0 && subject->server_tokens == NULL ? -ENOMEM : code;
}

static int measure(const struct bench_run *run, const char *id, const char *file, bool window)
{
    struct subject *subject = calloc(1, sizeof(*subject));
    if (subject == NULL) {
        return -ENOMEM;
    }
    subject->id = id;
    subject->file = file;
    subject->window = window;
    subject->run = run;
    int code = subject_open(subject);
    for (uint32_t i = 0; i < subject->length_count && code == 0; i++) {
        bench_say("%s, %u tokens", file, llama_lengths[i]);
        code = cell_measure(subject, i);
        if (code == -ENOTSUP && i > 0) { /* neither computed nor made of the shorter one */
            bench_say("not run: %s", subject->cells[i].not_run[RECOMPUTE]);
            subject->length_count = i;
            code = 0;
            break;
        }
        if (code == 0 && i == KILL_LENGTH && llama_lost_wanted(subject)) {
            code = killed_measure(subject);
        }
    }
    if (code == 0) {
        llama_table_say(subject);
        llama_killed_say(subject);
    }
    code = code < 0 ? code : llama_lost_report(subject);
    for (uint32_t i = KILL_LENGTH; i < LENGTHS && code == 0; i++) {
        code = llama_length_report(subject, i);
    }
    rig_close(&subject->rig);
    if (subject->folder[0] != '\0') {
        (void)bench_directory_remove(subject->folder);
    }
    free(subject->server_tokens);
    free(subject);
    return code;
}

static int bench_gemma(struct bench_run *run)
{
    return measure(run, "gemma", "gemma", true);
}

static int bench_large(struct bench_run *run)
{
    return measure(run, "64k", "large", false);
}

#define IDS(model, length)                                                                        \
    "H3.device." model "." length " H3.durable." model "." length " H3.durable-first." model      \
    "." length " H3.file." model "." length " H3.file-first." model "." length                    \
    " H3.recompute." model "." length " H3.turn." model "." length " H4.lookup." model "." length \
    " H4.save." model "." length

int main(int argc, char **argv)
{
    static const struct bench_case cases[] = {
        {"H3.lost.gemma.4k " IDS("gemma", "4k") " " IDS("gemma", "16k"), bench_gemma},
        {"H3.lost.64k.4k " IDS("64k", "4k") " " IDS("64k", "16k"), bench_large}};
    static const struct bench_suite suite = {"bench_llama", cases, 2, NULL};
    int status;
    return llama_keeper_main(argc, argv, &status) ? status : bench_main(argc, argv, &suite);
}
