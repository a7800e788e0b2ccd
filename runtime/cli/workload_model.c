/*
 * workload_model.c - the two models that `abode demo` hosts, and how their memory is shared out.
 *
 *   hybrid     PAGED 4 layers K+V | WINDOW 4 layers K+V | SNAPSHOT 8 recurrent layers | BYTES
 *   attention  PAGED 8 layers K+V
 *
 * Their shape is that of published hybrids, small; one number, the bytes of a token in one plane,
 * makes them wide enough for the state to fill the store. Memory: what the sessions that are
 * attached at once need at least, then the rest in proportion to each component's state.
 */
#include "cli.h"
#include "workload.h"

#include <errno.h>
#include <string.h>

#define ROW_PLANES 8        /* 4 layers, K and V */
#define ATTENTION_PLANES 16 /* 8 layers, K and V */
#define SNAPSHOT_PLANES 8
#define SNAPSHOT_PLANE_TOKENS 512 /* a recurrent layer's state weighs as much as these tokens' K */
#define SNAPSHOTS_KEPT 2
#define PAGE_BYTES 4096u
/* Window rows of an attached session: those that its two restore points need, the prompt between
 * and behind them, and a partly filled row at each end. */
#define WINDOW_ATTACHED_TOKENS \
    (MODEL_WINDOW_TOKENS + 3 * MODEL_SNAPSHOT_STEP_TOKENS + 2 * MODEL_BLOCK_TOKENS)
#define SPARE_PERCENT 10 /* over what is needed at least: reclaim keeps some frames free */

static uint64_t tokens_in_blocks(uint64_t tokens)
{
    return (tokens + MODEL_BLOCK_TOKENS - 1) / MODEL_BLOCK_TOKENS * MODEL_BLOCK_TOKENS;
}

static uint64_t tokens_last(const struct workload *workload, const struct conversation *it)
{
    return workload->turns[it->turn_first + it->turn_count - 1].token_count;
}

static uint64_t least(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

uint32_t model_row_planes(enum workload_model model)
{
    return model == MODEL_HYBRID ? ROW_PLANES : ATTENTION_PLANES;
}

uint64_t workload_block_bytes_max(const struct workload *workload)
{
    const uint64_t width = workload->plane_token_bytes;
    const uint64_t row = width * MODEL_BLOCK_TOKENS * ATTENTION_PLANES;
    const uint64_t snapshot = width * SNAPSHOT_PLANE_TOKENS * SNAPSHOT_PLANES;
    const uint64_t bytes = 4 * workload->tokens_max + HYBRID_BYTES_EXTRA;
    const uint64_t most = row > snapshot ? row : snapshot;
    return bytes > most ? bytes : most;
}

static void hybrid_make(const struct workload *workload, struct model_shape *ret)
{
    for (uint32_t i = 0; i < ROW_PLANES; i++) {
        ret->row_planes[i].bytes_per_block = MODEL_BLOCK_TOKENS * workload->plane_token_bytes;
    }
    for (uint32_t i = 0; i < SNAPSHOT_PLANES; i++) {
        ret->snapshot_planes[i].bytes_per_block =
            SNAPSHOT_PLANE_TOKENS * workload->plane_token_bytes;
    }
    ret->components[HYBRID_PAGED] = (struct abode_component){
        .kind = ABODE_PAGED, .plane_count = ROW_PLANES, .planes = ret->row_planes};
    ret->components[HYBRID_WINDOW] = (struct abode_component){.kind = ABODE_WINDOW,
                                                              .window_tokens = MODEL_WINDOW_TOKENS,
                                                              .plane_count = ROW_PLANES,
                                                              .planes = ret->row_planes};
    ret->components[HYBRID_SNAPSHOT] = (struct abode_component){.kind = ABODE_SNAPSHOT,
                                                                .snapshots_kept = SNAPSHOTS_KEPT,
                                                                .plane_count = SNAPSHOT_PLANES,
                                                                .planes = ret->snapshot_planes};
    ret->components[HYBRID_BYTES] =
        (struct abode_component){.kind = ABODE_BYTES,
                                 .snapshots_kept = SNAPSHOTS_KEPT,
                                 .bytes_max = 4 * workload->tokens_max + HYBRID_BYTES_EXTRA};
    ret->desc.component_count = MODEL_COMPONENTS;
}

static uint64_t bytes_frame(const struct workload *workload)
{
    const uint64_t bytes = 4 * workload->tokens_max + HYBRID_BYTES_EXTRA;
    return (bytes + PAGE_BYTES - 1) / PAGE_BYTES * PAGE_BYTES;
}

static uint64_t snapshot_frame(const struct workload *workload)
{
    return (uint64_t)SNAPSHOT_PLANES * SNAPSHOT_PLANE_TOKENS * workload->plane_token_bytes;
}

/* Bytes that a session's frames take, by component; `shared` leaves out the rows of its prefix. */
static void session_frames(const struct workload *workload, const struct conversation *it,
                           bool shared, uint64_t *ret_bytes)
{
    const uint64_t width = workload->plane_token_bytes;
    const uint64_t tokens = tokens_last(workload, it);
    const uint64_t own = tokens_in_blocks(tokens - (shared ? it->prefix_tokens : 0));
    memset(ret_bytes, 0, MODEL_COMPONENTS * sizeof(*ret_bytes));
    ret_bytes[0] = own * model_row_planes(it->model) * width;
    if (it->model == MODEL_HYBRID) {
        const uint64_t window =
            least(tokens_in_blocks(tokens), MODEL_WINDOW_TOKENS + MODEL_BLOCK_TOKENS);
        ret_bytes[HYBRID_WINDOW] = window * ROW_PLANES * width;
        ret_bytes[HYBRID_SNAPSHOT] = SNAPSHOTS_KEPT * snapshot_frame(workload);
        ret_bytes[HYBRID_BYTES] = SNAPSHOTS_KEPT * bytes_frame(workload);
    }
}

uint64_t workload_state_bytes(const struct workload *workload)
{
    uint64_t sum = 0;
    for (uint32_t i = 0; i < workload->conversation_count; i++) {
        const struct conversation *it = &workload->conversations[i];
        uint64_t bytes[MODEL_COMPONENTS];
        session_frames(workload, it, true, bytes);
        const bool hybrid = it->model == MODEL_HYBRID;
        /* host bytes are stored in their size, not in their frame's */
        bytes[HYBRID_BYTES] =
            hybrid ? SNAPSHOTS_KEPT * (4 * tokens_last(workload, it) + HYBRID_BYTES_EXTRA) : 0;
        for (uint32_t c = 0; c < MODEL_COMPONENTS && !it->ends; c++) {
            sum += bytes[c];
        }
    }
    return sum;
}

/* What has to be in memory at once: the prefixes, and in_flight of the largest sessions. */
static void need_find(const struct workload *workload, uint32_t in_flight,
                      struct memory_plan *ret_need)
{
    uint64_t largest[MODEL_COUNT] = {0};
    uint32_t attached = in_flight; /* hybrid sessions, prefixes too */
    memset(ret_need, 0, sizeof(*ret_need));
    for (uint32_t i = 0; i < workload->conversation_count; i++) {
        const struct conversation *it = &workload->conversations[i];
        const bool prefix = it->kind == CONVERSATION_PREFIX;
        uint64_t bytes[MODEL_COMPONENTS];
        session_frames(workload, it, !prefix, bytes);
        ret_need->bytes[it->model][0] += prefix ? bytes[0] : 0;
        attached += prefix && it->model == MODEL_HYBRID;
        largest[it->model] = bytes[0] > largest[it->model] ? bytes[0] : largest[it->model];
    }
    for (uint32_t m = 0; m < MODEL_COUNT; m++) {
        ret_need->bytes[m][0] += in_flight * largest[m];
    }
    uint64_t *hybrid = ret_need->bytes[MODEL_HYBRID];
    hybrid[HYBRID_WINDOW] =
        (uint64_t)attached * WINDOW_ATTACHED_TOKENS * ROW_PLANES * workload->plane_token_bytes;
    hybrid[HYBRID_SNAPSHOT] = attached * (SNAPSHOTS_KEPT + 1ull) * snapshot_frame(workload);
    hybrid[HYBRID_BYTES] = attached * (SNAPSHOTS_KEPT + 1ull) * bytes_frame(workload);
}

int workload_memory_plan(const struct workload *workload, uint64_t memory_bytes, uint32_t in_flight,
                         struct memory_plan *ret_plan)
{
    struct memory_plan plan;
    uint64_t state[MODEL_COUNT][MODEL_COMPONENTS] = {{0}};
    uint64_t needed = 0, state_sum = 0;
    need_find(workload, in_flight, &plan);
    for (uint32_t i = 0; i < workload->conversation_count; i++) {
        const struct conversation *it = &workload->conversations[i];
        uint64_t bytes[MODEL_COMPONENTS];
        session_frames(workload, it, true, bytes);
        for (uint32_t c = 0; c < MODEL_COMPONENTS; c++) {
            state[it->model][c] += bytes[c];
            state_sum += bytes[c];
        }
    }
    for (uint32_t i = 0; i < MODEL_COUNT * MODEL_COMPONENTS; i++) {
        uint64_t *bytes = &plan.bytes[i / MODEL_COMPONENTS][i % MODEL_COMPONENTS];
        *bytes += *bytes / 100 * SPARE_PERCENT;
        needed += *bytes;
    }
    if (needed > memory_bytes) {
        return -ENOMEM;
    }
    const double share = (double)(memory_bytes - needed) / (double)state_sum;
    for (uint32_t m = 0; m < MODEL_COUNT; m++) {
        for (uint32_t c = 0; c < MODEL_COMPONENTS; c++) {
            plan.bytes[m][c] += (uint64_t)(share * (double)state[m][c]);
        }
    }
    *ret_plan = plan;
    return 0;
}

void model_shape_make(const struct workload *workload, enum workload_model model,
                      const struct memory_plan *plan, struct model_shape *ret)
{
    memset(ret, 0, sizeof(*ret));
    if (model == MODEL_HYBRID) {
        hybrid_make(workload, ret);
    } else {
        for (uint32_t i = 0; i < ATTENTION_PLANES; i++) {
            ret->row_planes[i].bytes_per_block = MODEL_BLOCK_TOKENS * workload->plane_token_bytes;
        }
        ret->components[0] = (struct abode_component){
            .kind = ABODE_PAGED, .plane_count = ATTENTION_PLANES, .planes = ret->row_planes};
        ret->desc.component_count = 1;
    }
    ret->desc.struct_size = sizeof(ret->desc);
    ret->desc.components = ret->components;
    ret->desc.block_tokens = MODEL_BLOCK_TOKENS;
    ret->desc.session_tokens_max = tokens_in_blocks(workload->tokens_max);
    for (uint32_t c = 0; plan != NULL && c < ret->desc.component_count; c++) {
        ret->components[c].memory_bytes = plan->bytes[model][c];
        ret->desc.memory_bytes += plan->bytes[model][c];
    }
    /* the width belongs to the tag: state of another width is another model's */
    (void)snprintf((char *)ret->desc.tag, sizeof(ret->desc.tag), "abode-demo-%s-%u",
                   model == MODEL_HYBRID ? "hybrid" : "attention", workload->plane_token_bytes);
}
