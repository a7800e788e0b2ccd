/*
 * space_fill.c - prefault: all pages of a space, in parallel, each by a thread on its node.
 *
 * A part is cut into pieces of 64 MiB; its threads take the next piece from one counter, so that a
 * slow CPU does not hold up the rest. MADV_POPULATE_WRITE does a piece in one call and reports what
 * would be a SIGBUS or a kill as an error; kernels before 5.14 do not have it (-EINVAL): there each
 * page is written once. All parts are filled at the same time.
 *
 * The first error ends all work; the caller unmaps what was done.
 */
#include <errno.h>
#include <stdatomic.h>
#include <sys/mman.h>

#include "base/num.h"
#include "machine/space_impl.h"
#include "machine/threads.h"

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif

#define PIECE_BYTES (64u << 20)
#define POPULATE_ATTEMPTS_MAX 8u /* EINTR and EAGAIN in a row on one piece; a guess */
#define THREADS_PER_NODE_MAX 256u

struct part {
    const struct ab_os *os;
    unsigned char *base;
    uint64_t bytes;
    bool is_hugetlb;
    _Atomic uint64_t next; /* offset of the next piece to take; relaxed: nothing hangs on it */
    _Atomic int error;     /* the first; relaxed: read after join, or only to stop early */
};

/* One byte of each page. The memory is fresh: its content is zero and stays so. */
static void touch(unsigned char *base, uint64_t bytes)
{
    for (uint64_t offset = 0; offset < bytes; offset += AB_PAGE) {
        *(volatile unsigned char *)(base + offset) = 0;
    }
}

static int populate(const struct part *part, unsigned char *base, uint64_t bytes)
{
    int result = -EAGAIN;
    for (uint32_t attempt = 0; attempt < POPULATE_ATTEMPTS_MAX; attempt++) {
        result = part->os->madvise(part->os, base, bytes, MADV_POPULATE_WRITE);
        if (result != -EAGAIN && result != -EINTR) {
            break;
        }
    }
    if (result != -EINVAL) {
        return result;
    }
    if (part->is_hugetlb) {
        return -EOPNOTSUPP; /* a plain write to an empty pool is a SIGBUS for the host */
    }
    touch(base, bytes);
    return 0;
}

static void part_run(void *argument)
{
    struct part *part = argument;
    const uint64_t pieces = ab_div_up(part->bytes, PIECE_BYTES);
    for (uint64_t done = 0; done < pieces; done++) {
        const uint64_t offset =
            atomic_fetch_add_explicit(&part->next, PIECE_BYTES, memory_order_relaxed);
        if (offset >= part->bytes ||
            atomic_load_explicit(&part->error, memory_order_relaxed) != 0) {
            return;
        }
        const int result = populate(part, part->base + offset,
                                    AB_MIN((uint64_t)PIECE_BYTES, part->bytes - offset));
        if (result < 0) {
            int none = 0;
            (void)atomic_compare_exchange_strong_explicit(
                &part->error, &none, result, memory_order_relaxed, memory_order_relaxed);
            return;
        }
    }
}

static uint32_t threads_wanted(const struct ab_space *space, uint32_t node,
                               uint32_t threads_per_node)
{
    const int32_t cpu_node = ab_topology_node(space->topology, node)->cpu_node;
    uint32_t count = threads_per_node;
    if (count == 0) {
        count = ab_topology_is_machine(space->topology) && cpu_node >= 0
                    ? ab_topology_node(space->topology, (uint32_t)cpu_node)->cpu_count
                    : 1;
    }
    const uint64_t pieces = ab_div_up(space->node_bytes[node], PIECE_BYTES);
    return (uint32_t)AB_MIN(AB_MIN((uint64_t)count, pieces), (uint64_t)THREADS_PER_NODE_MAX);
}

struct crew { /* the threads of all parts */
    struct ab_thread **threads;
    uint32_t count;
    bool bound;
};

static int crew_start(const struct ab_space *space, uint32_t node, uint32_t wanted,
                      struct part *part, struct crew *crew)
{
    const struct ab_node *home = ab_topology_node(space->topology, node);
    const bool is_own_cpu = home->cpu_node == (int32_t)node;
    for (uint32_t i = 0; i < wanted; i++) {
        struct ab_thread *thread;
        const int result = ab_thread_start(space->os, space->topology, (int32_t)node, "abode-fill",
                                           NULL, part_run, part, &thread);
        if (result < 0) {
            return i == 0 ? result : 0; /* fewer threads do the same work */
        }
        crew->bound = crew->bound && is_own_cpu && ab_thread_bound(thread);
        crew->threads[crew->count++] = thread;
    }
    return 0;
}

static int fill_with(const struct ab_space *space, uint32_t threads_per_node, bool is_hugetlb,
                     struct part *parts, struct crew *crew)
{
    const uint32_t nodes = ab_topology_node_count(space->topology);
    int result = 0;
    for (uint32_t n = 0; n < nodes && result == 0; n++) {
        parts[n].os = space->os;
        parts[n].base = space->base + space->node_offset[n];
        parts[n].bytes = space->node_bytes[n];
        parts[n].is_hugetlb = is_hugetlb;
        result = crew_start(space, n, threads_wanted(space, n, threads_per_node), &parts[n], crew);
    }
    for (uint32_t i = 0; i < crew->count; i++) {
        ab_thread_join(crew->threads[i]);
    }
    for (uint32_t n = 0; n < nodes && result == 0; n++) {
        result = atomic_load_explicit(&parts[n].error, memory_order_relaxed);
    }
    return result;
}

int ab_space_fill(const struct ab_space *space, uint32_t threads_per_node, bool is_hugetlb,
                  bool *ret_bound)
{
    const struct ab_os *os = space->os;
    uint64_t thread_count = 0;
    for (uint32_t n = 0; n < ab_topology_node_count(space->topology); n++) {
        thread_count += threads_wanted(space, n, threads_per_node);
    }
    struct part *parts = ab_os_alloc_array(os, AB_NODES_MAX, sizeof(*parts));
    struct crew crew = {.bound = true};
    crew.threads = ab_os_alloc_array(os, thread_count, sizeof(*crew.threads));
    int result = -ENOMEM;
    if (parts != NULL && crew.threads != NULL) {
        result = fill_with(space, threads_per_node, is_hugetlb, parts, &crew);
    }
    if (result == 0) {
        *ret_bound = crew.bound;
    }
    os->free(os, crew.threads);
    os->free(os, parts);
    return result;
}
