/*
 * space.c - the order of work: room, map, bind, advise, fill, ask the kernel. See space.h.
 *
 * One mapping holds all parts, so that a frame's address is base + frame * stride over all nodes.
 * It is mapped 2 MiB + 4 KiB too large, to be aligned inside; the slack is never touched, and keeps
 * the range's own mapping apart from its neighbours', whose huge pages smaps would add to ours.
 *
 * Hugetlb pages are all or none: when the pool cannot hold every part the whole space is made with
 * transparent ones, and facts.huge_reason says why.
 */
#include "machine/space.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#include "abode/abode.h"
#include "base/num.h"
#include "machine/headroom.h"
#include "machine/space_impl.h"

#define MPOL_BIND_MODE 2             /* MPOL_BIND of linux/mempolicy.h */
#define MAP_HUGE_2MB_FLAG (21 << 26) /* MAP_HUGE_2MB: the pool's default size may be another */
#define OS_NODES_MAX 1024u           /* CONFIG_NODES_SHIFT is at most 10 */
#define MASK_BITS (8 * sizeof(unsigned long))

/* ---- sizes ---- */

static bool part_is_valid(const struct ab_space_desc *desc, uint32_t node)
{
    const uint64_t bytes = desc->node_bytes[node];
    return bytes % AB_HUGE == 0 && (bytes == 0 || node < ab_topology_node_count(desc->topology)) &&
           (desc->node_span_bytes == 0 || bytes <= desc->node_span_bytes);
}

static int layout(const struct ab_space_desc *desc, struct ab_space *space)
{
    uint64_t end = 0;
    if (desc->node_span_bytes % AB_HUGE != 0 || (unsigned)desc->huge > AB_HUGE_NONE) {
        return -EINVAL;
    }
    for (uint32_t n = 0; n < AB_NODES_MAX; n++) {
        uint64_t offset = end;
        if (!part_is_valid(desc, n)) {
            return -EINVAL;
        }
        if (n >= ab_topology_node_count(desc->topology)) {
            continue;
        }
        if ((desc->node_span_bytes != 0 && !ab_mul_u64(desc->node_span_bytes, n, &offset)) ||
            !ab_add_u64(offset, AB_MAX(desc->node_bytes[n], desc->node_span_bytes), &end)) {
            return -EINVAL;
        }
        space->node_offset[n] = offset;
        space->node_bytes[n] = desc->node_bytes[n];
        space->resident_bytes += desc->node_bytes[n];
    }
    space->bytes = end;
    return space->resident_bytes == 0 || end > PTRDIFF_MAX - 2 * AB_HUGE ? -EINVAL : 0;
}

/* ---- room ---- */

static int room_refused(const struct ab_space *space, const char *where, uint32_t os_index,
                        uint64_t wanted, uint64_t room)
{
    ab_log(space->log, AB_LOG_ERROR,
           "space: %llu MiB wanted on %s %u, %llu MiB can be had: lower the memory budget or free "
           "memory there",
           (unsigned long long)(wanted >> 20), where, os_index, (unsigned long long)(room >> 20));
    return -ENOMEM;
}

/* On a machine of one node MemAvailable is the better answer: it knows what is reclaimable. */
static int room_check(const struct ab_space *space)
{
    const uint32_t nodes = ab_topology_node_count(space->topology);
    for (uint32_t n = 0; n < nodes && nodes > 1 && ab_topology_is_machine(space->topology); n++) {
        const uint32_t os_index = ab_topology_node(space->topology, n)->os_index;
        const uint64_t wanted = space->node_bytes[n];
        const uint64_t room = wanted > 0 ? ab_headroom_node(space->os, os_index) : UINT64_MAX;
        if (wanted > room) {
            return room_refused(space, "node", os_index, wanted, room);
        }
    }
    const uint64_t room = ab_headroom_process(space->os);
    if (space->resident_bytes > room) {
        return room_refused(space, "this process, all nodes:", nodes, space->resident_bytes, room);
    }
    return 0;
}

/* Hugetlb pages are set aside already: the pools are asked instead. */
static int room_check_pools(const struct ab_space *space)
{
    for (uint32_t n = 0; n < ab_topology_node_count(space->topology); n++) {
        const struct ab_node *node = ab_topology_node(space->topology, n);
        if (space->node_bytes[n] > ab_headroom_huge(space->os, node->os_index)) {
            return -ENOMEM;
        }
    }
    return 0;
}

/* ---- map, bind, advise ---- */

static int map(struct ab_space *space, bool is_hugetlb)
{
    const int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE |
                      (is_hugetlb ? MAP_HUGETLB | MAP_HUGE_2MB_FLAG : 0);
    const size_t bytes = space->bytes + (is_hugetlb ? 0 : AB_HUGE + AB_PAGE);
    void *base;
    const int result =
        space->os->mmap(space->os, bytes, PROT_READ | PROT_WRITE, flags, -1, 0, &base);
    if (result < 0) {
        return result;
    }
    space->map = base;
    space->map_bytes = bytes;
    space->base = (unsigned char *)base + (ab_align_up((uintptr_t)base, AB_HUGE) - (uintptr_t)base);
    return 0;
}

static void unmap(struct ab_space *space)
{
    if (space->map == NULL) {
        return;
    }
    const int result = space->os->munmap(space->os, space->map, space->map_bytes);
    if (result < 0) {
        ab_log(space->log, AB_LOG_WARNING, "space: %zu MiB of address space not given back: %s",
               space->map_bytes >> 20, abode_strerror(-result));
    }
    space->map = NULL;
}

static int bind_part(const struct ab_space *space, uint32_t node)
{
    const uint32_t os_index = ab_topology_node(space->topology, node)->os_index;
    unsigned long mask[OS_NODES_MAX / MASK_BITS] = {0};
    if (os_index >= OS_NODES_MAX) {
        return -EINVAL;
    }
    mask[os_index / MASK_BITS] = 1ul << (os_index % MASK_BITS);
    /* the kernel takes one less than it is told: the count is of bits, and has been off by one
     * since 2.6 */
    return space->os->mbind(space->os, space->base + space->node_offset[node],
                            space->node_bytes[node], MPOL_BIND_MODE, mask, OS_NODES_MAX + 1, 0);
}

static bool is_refusal(int result)
{
    return result == -EPERM || result == -EACCES || result == -ENOSYS;
}

static int bind(struct ab_space *space)
{
    struct ab_space_facts *facts = &space->facts;
    facts->binding = AB_BINDING_NONE;
    facts->binding_reason = -EXDEV;
    if (!ab_topology_is_machine(space->topology)) {
        return 0;
    }
    facts->binding = AB_BINDING_MBIND;
    facts->binding_reason = 0;
    for (uint32_t n = 0; n < ab_topology_node_count(space->topology); n++) {
        const int result = space->node_bytes[n] > 0 ? bind_part(space, n) : 0;
        if (is_refusal(result)) {
            facts->binding = AB_BINDING_TOUCH;
            facts->binding_reason = result;
            return 0;
        }
        if (result < 0) {
            ab_log(space->log, AB_LOG_ERROR,
                   "space: node %u cannot be bound to: %s (has it memory, and may this process use "
                   "it?)",
                   ab_topology_node(space->topology, n)->os_index, abode_strerror(-result));
            return result;
        }
    }
    return 0;
}

/* Advice for one part. Of all of it only that on huge pages changes what the space is. */
static int advise_part(struct ab_space *space, uint32_t node, enum ab_huge huge)
{
    static const int always[] = {MADV_DONTFORK, MADV_DONTDUMP};
    const struct ab_os *os = space->os;
    unsigned char *base = space->base + space->node_offset[node];
    const uint64_t bytes = space->node_bytes[node];
    for (size_t i = 0; i < AB_COUNT(always); i++) {
        const int result = os->madvise(os, base, bytes, always[i]);
        if (result < 0) {
            ab_log(space->log, AB_LOG_WARNING, "space: %s refused: %s",
                   always[i] == MADV_DONTFORK ? "MADV_DONTFORK" : "MADV_DONTDUMP",
                   abode_strerror(-result));
        }
    }
    /* Without a policy of its own a part would be one mapping with its neighbour, and numa_maps
     * could not tell their pages apart. This advice makes the kernel keep the two apart, and means
     * nothing for anonymous memory but less read-ahead from swap. */
    if (space->facts.binding == AB_BINDING_TOUCH && node % 2 == 1) {
        (void)os->madvise(os, base, bytes, MADV_RANDOM);
    }
    if (huge == AB_HUGE_TLB) {
        return 0;
    }
    return os->madvise(os, base, bytes, huge == AB_HUGE_THP ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
}

static void advise(struct ab_space *space, enum ab_huge huge)
{
    for (uint32_t n = 0; n < ab_topology_node_count(space->topology); n++) {
        const int result = space->node_bytes[n] > 0 ? advise_part(space, n, huge) : 0;
        /* A kernel without transparent huge pages knows neither advice: that is no worse than
         * NONE, and a shortfall only if they were wanted. */
        if (result < 0 && huge == AB_HUGE_THP) {
            space->facts.huge = AB_HUGE_NONE;
            space->facts.huge_reason = result;
        }
    }
}

/* ---- one attempt with one kind of page ---- */

static int attempt(struct ab_space *space, enum ab_huge huge, uint32_t threads)
{
    const bool is_hugetlb = huge == AB_HUGE_TLB;
    bool bound = false;
    int result = is_hugetlb ? room_check_pools(space) : room_check(space);
    if (result < 0) {
        return result;
    }
    space->facts.huge = huge;
    result = map(space, is_hugetlb);
    if (result < 0) {
        return result;
    }
    result = bind(space);
    if (result < 0) {
        goto unmap_all;
    }
    advise(space, huge);
    result = ab_space_fill(space, threads, is_hugetlb, &bound);
    if (result < 0) {
        goto unmap_all;
    }
    if (space->facts.binding == AB_BINDING_TOUCH && !bound) {
        space->facts.binding = AB_BINDING_NONE; /* the pages are wherever the threads ran */
    }
    return 0;
unmap_all:
    unmap(space);
    return result;
}

/* ---- what the kernel says ---- */

static void note_huge(struct ab_space *space)
{
    struct ab_space_facts *facts = &space->facts;
    if (facts->huge == AB_HUGE_NONE) {
        return;
    }
    if (facts->huge == AB_HUGE_TLB) { /* such a mapping has no other pages */
        facts->huge_bytes = space->resident_bytes;
        return;
    }
    const int result =
        ab_space_huge_bytes(space->os, space->base, space->bytes, &facts->huge_bytes);
    if (result < 0) {
        facts->huge_reason = result;
        return;
    }
    if (facts->huge_bytes < space->resident_bytes && facts->huge_reason == 0) {
        facts->huge_reason = ab_space_thp_is_off(space->os) ? -EOPNOTSUPP : -ENOMEM;
    }
    if (facts->huge_bytes == 0) {
        facts->huge = AB_HUGE_NONE;
    }
}

/* A huge page is on one node: where all are huge, one question for each is the whole truth. */
static void verify(struct ab_space *space)
{
    struct ab_space_facts *facts = &space->facts;
    const uint64_t step = facts->huge_bytes == space->resident_bytes ? AB_HUGE : AB_PAGE;
    bool answered = true; /* by a topology of elsewhere nothing is: all pages are unknown */
    for (uint32_t n = 0; n < ab_topology_node_count(space->topology) && answered; n++) {
        struct ab_space_check sum = {0};
        const uint64_t pages = space->node_bytes[n] / AB_PAGE;
        answered =
            ab_space_check_step(space->os, space->topology, space->base + space->node_offset[n],
                                space->node_bytes[n], step, &sum) == 0 &&
            sum.pages_absent == 0 && sum.pages_unknown == 0;
        if (answered) {
            facts->pages_checked += pages;
            facts->pages_elsewhere += pages - sum.pages_here[n];
        }
    }
    facts->verified = answered;
}

/* ---- open, close, ask ---- */

static int space_make(const struct ab_space_desc *desc, struct ab_space *space)
{
    int result = layout(desc, space);
    if (result < 0) {
        return result;
    }
    enum ab_huge huge = desc->huge == AB_HUGE_AUTO ? AB_HUGE_THP : desc->huge;
    if (huge == AB_HUGE_TLB) {
        result = attempt(space, AB_HUGE_TLB, desc->prefault_threads);
        space->facts.huge_reason = result;
        huge = AB_HUGE_THP;
    }
    if (space->map == NULL) {
        result = attempt(space, huge, desc->prefault_threads);
    }
    if (result < 0) {
        return result;
    }
    note_huge(space);
    verify(space);
    return 0;
}

int ab_space_open(const struct ab_space_desc *desc, struct ab_space **ret)
{
    const struct ab_os *os = desc->os;
    struct ab_space *space = os->alloc(os, sizeof(*space), _Alignof(struct ab_space));
    if (space == NULL) {
        return -ENOMEM;
    }
    space->os = os;
    space->log = desc->log;
    space->topology = desc->topology;
    const int result = space_make(desc, space);
    if (result < 0) {
        ab_space_close(space);
        return result;
    }
    *ret = space;
    return 0;
}

void ab_space_close(struct ab_space *space)
{
    if (space == NULL) {
        return;
    }
    unmap(space);
    space->os->free(space->os, space);
}

unsigned char *ab_space_base(const struct ab_space *space)
{
    return space->base;
}

uint64_t ab_space_bytes(const struct ab_space *space)
{
    return space->bytes;
}

unsigned char *ab_space_node_base(const struct ab_space *space, uint32_t node)
{
    AB_ASSERT(node < AB_NODES_MAX);
    return space->base + space->node_offset[node];
}

uint64_t ab_space_node_bytes(const struct ab_space *space, uint32_t node)
{
    AB_ASSERT(node < AB_NODES_MAX);
    return space->node_bytes[node];
}

const struct ab_space_facts *ab_space_facts(const struct ab_space *space)
{
    return &space->facts;
}
