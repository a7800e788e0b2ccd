/*
 * workload.c - see workload.h. The shapes are quantiles of public recordings:
 *
 *   chat   first prompt and answers: Azure LLM inference trace 2023, conversation part (Splitwise,
 *          ISCA'24): context and generated tokens of 19,366 requests. Further prompts, idle times,
 *          turns and the shared first block of 512 tokens: the conversation trace of Mooncake
 *          (FAST'25), requests that extend an earlier one by its whole length; turns of those
 *          conversations that came back at least once within its hour.
 *   agent  recorded coding-agent sessions (kv-cache-tester, Apache-2.0): tokens of system and tool
 *          text, of the first request besides them (up to the median: the upper half of the
 *          recordings are sessions that were resumed, with their history), tokens added per
 *          request, answers, and idle time before the next request, by why the model stopped.
 *          Its turns are cut at AGENT_TURNS_MAX (the median there is 48) to keep the demo short.
 *
 * Between two quantiles the value is interpolated on a straight line.
 */
#include "workload.h"

#include "cli.h"
#include "content.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define AGENT_TURNS_MAX 12
#define AGENT_PERCENT 25
#define ATTENTION_PERCENT 33 /* of the chats; a guess: hosts serve more than one model */
#define ENDED_PERCENT 10     /* a guess: sessions that their host deletes */
#define PERSON_PERCENT 6     /* of an agent's turns, those after which a person is waited for */
#define ARRIVAL_SPAN_MS \
    3600000ull /* conversations begin within an hour, as Mooncake's hour has it */
#define CHAT_PREFIX_TOKENS 512
#define AGENT_PREFIX_TOKENS 14976 /* 14,992 is the median; whole blocks */
#define PREFIX_COUNT 3            /* two for chats, one per model, and one for agents */
#define WIDTH_STEP_BYTES 16
#define WIDTH_BYTES_MAX 4096

struct quantile {
    uint32_t percent;
    double value;
};
#define QUANTILES_MAX 9

/* Azure 2023, conversation: ContextTokens and GeneratedTokens */
static const struct quantile chat_first_prompt[QUANTILES_MAX] = {
    {5, 181}, {10, 207}, {25, 396}, {50, 1020}, {75, 1189}, {90, 2735}, {95, 4083}, {99, 4142}};
static const struct quantile chat_answer[QUANTILES_MAX] = {
    {5, 41}, {10, 54}, {25, 85}, {50, 129}, {75, 395}, {90, 424}, {95, 451}, {99, 601}};
/* Mooncake, conversation: new tokens, seconds since the answer's request, turns if more than one */
static const struct quantile chat_prompt[QUANTILES_MAX] = {
    {5, 6}, {10, 7}, {25, 12}, {50, 35}, {75, 501}, {90, 4634}, {95, 7509}};
static const struct quantile chat_idle_s[QUANTILES_MAX] = {
    {5, 30}, {10, 45}, {25, 69}, {50, 129}, {75, 279}, {90, 489}, {95, 615}, {99, 1482}};
static const struct quantile chat_turns[QUANTILES_MAX] = {{5, 2},  {50, 2}, {75, 3},
                                                          {90, 4}, {95, 6}, {99, 11}};
/* coding agents */
static const struct quantile agent_first_prompt[QUANTILES_MAX] = {
    {10, 495}, {20, 1183}, {50, 3675}, {99, 7123}};
static const struct quantile agent_prompt[QUANTILES_MAX] = {
    {10, 1}, {25, 45}, {50, 280}, {75, 989}, {90, 2995}};
static const struct quantile agent_answer[QUANTILES_MAX] = {
    {5, 87}, {10, 103}, {25, 136}, {50, 217}, {75, 430}, {90, 912}, {95, 1540}};
static const struct quantile agent_tool_s[QUANTILES_MAX] = {
    {5, 3}, {10, 4}, {25, 5}, {50, 9}, {75, 19}, {90, 69}, {95, 146}, {99, 608}};
static const struct quantile agent_person_s[QUANTILES_MAX] = {
    {5, 3}, {10, 5}, {25, 48}, {50, 183}, {75, 726}, {90, 2655}, {95, 4739}};
static const struct quantile agent_turns[QUANTILES_MAX] = {{5, 5}, {10, 8}, {25, 21}, {50, 48}};

/* ---- drawing --------------------------------------------------------------------------------- */

struct draw { /* a counter-based generator: the same numbers on every machine */
    uint64_t seed;
    uint64_t count;
};

static uint64_t draw_next(struct draw *draw)
{
    return content_mix(draw->seed + content_mix(++draw->count));
}

static double draw_share(struct draw *draw) /* [0, 1) */
{
    return (double)(draw_next(draw) >> 11) / 9007199254740992.0;
}

static double draw_quantile(struct draw *draw, const struct quantile *quantiles)
{
    const double percent = 100 * draw_share(draw);
    uint32_t i = 0;
    while (i + 1 < QUANTILES_MAX && quantiles[i + 1].percent != 0 &&
           percent > quantiles[i + 1].percent) {
        i++;
    }
    const bool last = i + 1 == QUANTILES_MAX || quantiles[i + 1].percent == 0;
    if (last || percent <= quantiles[i].percent) {
        return quantiles[i].value;
    }
    const double low = quantiles[i].percent, high = quantiles[i + 1].percent;
    const double share = (percent - low) / (high - low);
    return quantiles[i].value + share * (quantiles[i + 1].value - quantiles[i].value);
}

static uint32_t draw_tokens(struct draw *draw, const struct quantile *quantiles)
{
    const double value = draw_quantile(draw, quantiles);
    return value < 1 ? 1 : (uint32_t)(value + 0.5);
}

/* ---- conversations --------------------------------------------------------------------------- */

static void conversation_draw(struct workload *workload, uint32_t index, struct draw *draw)
{
    struct conversation *conversation = &workload->conversations[index];
    const bool agent = draw_share(draw) * 100 < AGENT_PERCENT;
    const bool attention = !agent && draw_share(draw) * 100 < ATTENTION_PERCENT;
    const uint32_t turns = draw_tokens(draw, agent ? agent_turns : chat_turns);
    *conversation = (struct conversation){
        .seed = draw_next(draw),
        .kind = agent ? CONVERSATION_AGENT : CONVERSATION_CHAT,
        .model = attention ? MODEL_ATTENTION : MODEL_HYBRID,
        .ends = draw_share(draw) * 100 < ENDED_PERCENT,
        .prefix = workload->session_count + (agent       ? 2
                                             : attention ? 1
                                                         : 0),
        .prefix_tokens = agent ? AGENT_PREFIX_TOKENS : CHAT_PREFIX_TOKENS,
        .turn_first = workload->turn_count,
        .turn_count = agent && turns > AGENT_TURNS_MAX ? AGENT_TURNS_MAX : turns,
    };
    workload->turn_count += conversation->turn_count;
}

static void turns_draw(struct workload *workload, uint32_t index, struct draw *draw)
{
    const struct conversation *conversation = &workload->conversations[index];
    const bool agent = conversation->kind == CONVERSATION_AGENT;
    uint64_t due_ms = (uint64_t)(draw_share(draw) * (double)ARRIVAL_SPAN_MS);
    uint64_t tokens = conversation->prefix_tokens;
    for (uint32_t i = 0; i < conversation->turn_count; i++) {
        struct turn *turn = &workload->turns[conversation->turn_first + i];
        const struct quantile *prompt = agent ? agent_prompt : chat_prompt;
        if (i == 0) {
            prompt = agent ? agent_first_prompt : chat_first_prompt;
        }
        const bool person = !agent || draw_share(draw) * 100 < PERSON_PERCENT;
        const struct quantile *idle = !agent ? chat_idle_s : person ? agent_person_s : agent_tool_s;
        turn->due_ms = due_ms;
        turn->prompt_tokens = draw_tokens(draw, prompt);
        turn->answer_tokens = draw_tokens(draw, agent ? agent_answer : chat_answer);
        const uint64_t idle_ms = (uint64_t)(1000 * draw_quantile(draw, idle));
        tokens += turn->prompt_tokens + turn->answer_tokens;
        turn->token_count = tokens;
        due_ms += idle_ms;
        turn->idle_ms = i + 1 < conversation->turn_count ? idle_ms : 0;
        workload->span_ms = turn->due_ms > workload->span_ms ? turn->due_ms : workload->span_ms;
    }
    workload->tokens_max = tokens > workload->tokens_max ? tokens : workload->tokens_max;
}

static void prefixes_make(struct workload *workload, struct draw *draw)
{
    for (uint32_t i = 0; i < PREFIX_COUNT; i++) {
        const uint32_t tokens = i == 2 ? AGENT_PREFIX_TOKENS : CHAT_PREFIX_TOKENS;
        workload->conversations[workload->session_count + i] = (struct conversation){
            .seed = draw_next(draw),
            .kind = CONVERSATION_PREFIX,
            .model = i == 1 ? MODEL_ATTENTION : MODEL_HYBRID,
            .prefix = WORKLOAD_NONE,
            .turn_first = workload->turn_count + i,
            .turn_count = 1,
        };
        workload->turns[workload->turn_count + i] =
            (struct turn){.prompt_tokens = tokens, .token_count = tokens};
    }
}

struct event_key { /* events are sorted by time; ties by place, so that the order is one */
    uint64_t due_ms;
    struct workload_event event;
};

static int event_key_compare(const void *a, const void *b)
{
    const struct event_key *left = a, *right = b;
    if (left->due_ms != right->due_ms) {
        return left->due_ms < right->due_ms ? -1 : 1;
    }
    if (left->event.conversation != right->event.conversation) {
        return left->event.conversation < right->event.conversation ? -1 : 1;
    }
    return left->event.turn < right->event.turn ? -1 : 1;
}

static void events_sort(struct workload *workload)
{
    struct event_key *keys = cli_alloc(workload->turn_count, sizeof(*keys));
    uint32_t count = 0;
    for (uint32_t c = 0; c < workload->session_count; c++) {
        const struct conversation *conversation = &workload->conversations[c];
        for (uint32_t t = 0; t < conversation->turn_count; t++) {
            keys[count++] =
                (struct event_key){workload->turns[conversation->turn_first + t].due_ms, {c, t}};
        }
    }
    qsort(keys, count, sizeof(*keys), event_key_compare);
    for (uint32_t i = 0; i < count; i++) {
        workload->events[i] = keys[i].event;
    }
    free(keys);
}

/* ---- width ----------------------------------------------------------------------------------- */

/* State grows with the width, but for the host's bytes: the widest that fits is taken. */
static int width_choose(struct workload *workload, uint64_t state_bytes)
{
    workload->plane_token_bytes = 0;
    const uint64_t host_bytes = workload_state_bytes(workload);
    workload->plane_token_bytes = WIDTH_STEP_BYTES;
    const uint64_t step_bytes = workload_state_bytes(workload) - host_bytes;
    const uint64_t room = state_bytes > host_bytes ? state_bytes - host_bytes : 0;
    const uint64_t steps = room / step_bytes;
    if (steps == 0) {
        return -ERANGE;
    }
    const uint64_t width = steps * WIDTH_STEP_BYTES;
    workload->plane_token_bytes = (uint32_t)(width > WIDTH_BYTES_MAX ? WIDTH_BYTES_MAX : width);
    workload->bytes_state = workload_state_bytes(workload);
    for (uint32_t i = 0; i < MODEL_COUNT; i++) {
        workload->token_bytes[i] = (uint64_t)model_row_planes(i) * workload->plane_token_bytes;
    }
    return 0;
}

int workload_make(const struct workload_options *options, struct workload *ret)
{
    struct workload workload = {.session_count = options->session_count};
    struct draw draw = {.seed = content_mix(options->seed)};
    workload.conversation_count = workload.session_count + PREFIX_COUNT;
    workload.conversations = cli_alloc(workload.conversation_count, sizeof(struct conversation));
    for (uint32_t i = 0; i < workload.session_count; i++) {
        conversation_draw(&workload, i, &draw);
    }
    workload.turns = cli_alloc(workload.turn_count + PREFIX_COUNT, sizeof(struct turn));
    workload.events = cli_alloc(workload.turn_count, sizeof(struct workload_event));
    for (uint32_t i = 0; i < workload.session_count; i++) {
        turns_draw(&workload, i, &draw);
    }
    prefixes_make(&workload, &draw);
    events_sort(&workload);
    const int result = width_choose(&workload, options->state_bytes);
    if (result < 0) {
        workload_free(&workload);
        return result;
    }
    *ret = workload;
    return 0;
}

void workload_free(struct workload *workload)
{
    free(workload->conversations);
    free(workload->turns);
    free(workload->events);
    memset(workload, 0, sizeof(*workload));
}

/* ---- one conversation ------------------------------------------------------------------------ */

uint64_t conversation_seed_at(const struct workload *workload, uint32_t conversation,
                              uint64_t position)
{
    const struct conversation *it = &workload->conversations[conversation];
    const bool shared = position < it->prefix_tokens;
    return shared ? workload->conversations[it->prefix].seed : it->seed;
}

uint32_t conversation_token(const struct workload *workload, uint32_t conversation,
                            uint64_t position)
{
    const uint64_t seed = conversation_seed_at(workload, conversation, position);
    return (uint32_t)(content_mix(seed ^ content_mix(position)) % 128000); /* a vocabulary's size */
}

struct abode_key conversation_name(const struct workload *workload, uint32_t conversation)
{
    const struct conversation *it = &workload->conversations[conversation];
    char text[64];
    struct abode_key name;
    const int length =
        snprintf(text, sizeof(text), "demo-%s-%u", conversation_kind_name(it->kind), conversation);
    abode_key_from_bytes(text, (size_t)length, &name);
    return name;
}

const char *conversation_kind_name(enum conversation_kind kind)
{
    static const char *const names[] = {"chat", "agent", "prefix"};
    return names[kind];
}

int64_t conversation_turns_done(const struct workload *workload, uint32_t conversation,
                                uint64_t token_count)
{
    const struct conversation *it = &workload->conversations[conversation];
    for (uint32_t i = 0; i < it->turn_count; i++) {
        if (workload->turns[it->turn_first + i].token_count == token_count) {
            return (int64_t)i + 1;
        }
    }
    return token_count <= it->prefix_tokens ? 0 : -1; /* at most its prefix: no turn yet */
}
