/*
 * trace_order.c - what follows what: absolute times, order, branches and prefixes.
 *
 *   agentic        start of a request = start of its session + start of its sub-agent + t
 *   conversation   request r goes on from the newest earlier request q whose whole blocks are the
 *                  deepest proper or equal prefix of r's whole blocks; q has one successor at most
 */
#include "trace_internal.h"

#include "content.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* ---- prefix and identity --------------------------------------------------------------------- */

uint32_t trace_prefix(const struct trace *trace, uint32_t left, uint32_t right)
{
    const struct trace_request *const l = &trace->requests[left], *const r =
                                                                      &trace->requests[right];
    uint32_t i = 0, j = 0, i_used = 0, j_used = 0, shared = 0;

    if (trace->scopes[l->branch] != trace->scopes[r->branch]) {
        return 0;
    }
    while (i < l->run_count && j < r->run_count) {
        const struct trace_run *const a = &trace->runs[l->run_first + i];
        const struct trace_run *const b = &trace->runs[r->run_first + j];
        const uint32_t a_left = a->count - i_used, b_left = b->count - j_used;
        const uint32_t step = a_left < b_left ? a_left : b_left;

        if (a->first + i_used != b->first + j_used) {
            break;
        }
        shared += step;
        i_used += step;
        j_used += step;
        i += i_used == a->count;
        j += j_used == b->count;
        i_used = i_used == a->count ? 0 : i_used;
        j_used = j_used == b->count ? 0 : j_used;
    }
    return shared;
}

/* One id of a request; index < block_count. */
static uint64_t request_id(const struct trace *trace, const struct trace_request *request,
                           uint32_t index)
{
    const struct trace_run *run = &trace->runs[request->run_first];
    for (; index >= run->count; run++) {
        index -= run->count;
    }
    return run->first + index;
}

uint64_t trace_identity(const struct trace *trace, uint32_t request, uint32_t index)
{
    const struct trace_request *const asked = &trace->requests[request];
    return content_join(trace->scopes[asked->branch], request_id(trace, asked, index));
}

void trace_identities(const struct trace *trace, uint32_t request, uint64_t *ret)
{
    const struct trace_request *const asked = &trace->requests[request];
    const uint64_t scope = trace->scopes[asked->branch];
    size_t count = 0;

    for (uint32_t i = 0; i < asked->run_count; i++) {
        const struct trace_run *const run = &trace->runs[asked->run_first + i];
        for (uint32_t k = 0; k < run->count; k++) {
            ret[count++] = content_join(scope, run->first + k);
        }
    }
}

/* ---- times ----------------------------------------------------------------------------------- */

/* Sessions whose start is not recorded are spread over a day by a hash of their number: the same
 * trace always gives the same order. */
static double session_start_s(struct trace_loader *loader, struct trace_session *session)
{
    if (!session->start_known) {
        session->start_s =
            (double)(content_mix(session->id) >> 11) / (double)(1ull << 53) * TRACE_DAY_S;
        session->start_known = true;
        loader->trace.starts_drawn = true;
    }
    return session->start_s;
}

static void starts_set(struct trace_loader *loader)
{
    struct trace *const trace = &loader->trace;

    for (uint32_t i = 0; i < trace->request_count; i++) {
        struct trace_request *const request = &trace->requests[i];
        struct trace_session *const session =
            &loader->sessions[loader->branch_sessions[request->branch]];
        const uint32_t sub = loader->branch_subs[request->branch];

        request->start_s += session_start_s(loader, session);
        if (sub > 0 && sub <= session->sub_count) {
            request->start_s += session->sub_starts_s[sub - 1];
        }
    }
    trace->session_count = loader->session_count;
}

/* By time; at equal times in the order of the file, which is the order of their ids' runs. */
static int requests_compare(const void *left, const void *right)
{
    const struct trace_request *const l = left, *const r = right;
    if (l->start_s != r->start_s) {
        return l->start_s < r->start_s ? -1 : 1;
    }
    return l->run_first != r->run_first ? (l->run_first < r->run_first ? -1 : 1)
                                        : (l->line > r->line) - (l->line < r->line);
}

/* A branch is a line: one of its requests cannot begin before the one that stands before it. */
static int branches_straighten(struct trace_loader *loader)
{
    struct trace *const trace = &loader->trace;
    double *const latest = calloc(trace->branch_count, sizeof(*latest));
    if (latest == NULL) {
        return -ENOMEM;
    }
    for (uint32_t i = 0; i < trace->request_count; i++) {
        struct trace_request *const request = &trace->requests[i];
        if (request->start_s < latest[request->branch]) {
            request->start_s = latest[request->branch];
        }
        latest[request->branch] = request->start_s;
    }
    free(latest);
    return 0;
}

static void starts_from_zero(struct trace *trace)
{
    const double first = trace->requests[0].start_s;
    for (uint32_t i = 0; i < trace->request_count; i++) {
        trace->requests[i].start_s -= first;
    }
}

/* ---- branches of conversations --------------------------------------------------------------- */

/* The request that `request` goes on from, taken out of `tails`; TRACE_NONE: it begins a branch. */
static uint32_t predecessor_take(const struct trace *trace, struct trace_map *tails,
                                 uint32_t request, const uint64_t *ids)
{
    const uint32_t whole = trace->requests[request].whole_count;

    for (uint32_t depth = whole; depth > 0; depth--) {
        const uint32_t place = trace_map_get(tails, ids[depth - 1]);
        if (place == TRACE_NONE || trace->requests[place].next != TRACE_NONE) {
            continue;
        }
        if (trace->requests[place].whole_count == depth &&
            trace_prefix(trace, place, request) >= depth) {
            return place;
        }
    }
    return TRACE_NONE;
}

/* Tails: identity of the last whole block of a request -> the newest such request. A request that has a
 * successor is told by its `next`, which is set here and again, alike, by branches_link(). */
static int conversation_branches(struct trace_loader *loader)
{
    struct trace *const trace = &loader->trace;
    uint64_t *const ids = malloc(TRACE_BLOCKS_MAX * sizeof(*ids));
    struct trace_map tails;
    int rc = trace_map_init(&tails);

    trace->branch_count = 1; /* while prefixes are compared, all requests stand in one scope */
    trace->scopes = calloc(trace->request_count, sizeof(*trace->scopes));
    if (rc == 0 && (ids == NULL || trace->scopes == NULL)) {
        rc = -ENOMEM;
    }
    for (uint32_t i = 0; i < trace->request_count; i++) {
        trace->requests[i].branch = 0;
    }
    uint32_t branch_count = 0;
    uint32_t *const branches = calloc(trace->request_count, sizeof(*branches));
    rc = rc == 0 && branches == NULL ? -ENOMEM : rc;
    for (uint32_t i = 0; i < trace->request_count && rc == 0; i++) {
        const struct trace_request *const request = &trace->requests[i];
        trace_identities(trace, i, ids);
        const uint32_t before = predecessor_take(trace, &tails, i, ids);
        branches[i] = before == TRACE_NONE ? branch_count++ : branches[before];
        if (before != TRACE_NONE) {
            trace->requests[before].next = i;
        }
        if (request->whole_count > 0) {
            rc = trace_map_put(&tails, ids[request->whole_count - 1], i);
        }
    }
    for (uint32_t i = 0; i < trace->request_count && rc == 0; i++) {
        trace->requests[i].branch = branches[i];
    }
    trace->branch_count = branch_count;
    free(branches);
    free(ids);
    trace_map_free(&tails);
    return rc;
}

static int branches_link(struct trace *trace)
{
    uint32_t *const latest = malloc(trace->branch_count * sizeof(*latest));
    if (latest == NULL) {
        return -ENOMEM;
    }
    memset(latest, 0xff, trace->branch_count * sizeof(*latest));
    for (uint32_t i = 0; i < trace->request_count; i++) {
        struct trace_request *const request = &trace->requests[i];
        request->previous = latest[request->branch];
        request->next = TRACE_NONE;
        if (request->previous != TRACE_NONE) {
            trace->requests[request->previous].next = i;
        }
        latest[request->branch] = i;
    }
    free(latest);
    return 0;
}

int trace_order(struct trace_loader *loader)
{
    struct trace *const trace = &loader->trace;
    const bool conversation = trace->format == TRACE_CONVERSATION;
    int rc = 0;

    if (!conversation) {
        starts_set(loader);
        rc = branches_straighten(loader);
    }
    if (rc < 0) {
        return rc;
    }
    qsort(trace->requests, trace->request_count, sizeof(*trace->requests), requests_compare);
    starts_from_zero(trace);
    if (conversation) {
        rc = conversation_branches(loader);
    }
    return rc < 0 ? rc : branches_link(trace);
}
