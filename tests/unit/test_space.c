/*
 * test_space.c - goal: every page of a space is on the node that it was asked for, what is less than
 * asked is said with its reason, and what cannot be had fails cleanly. Method: the kernel is asked
 * by this file's own move_pages and smaps, not by space_check.c; refusals come through fault_os;
 * machines with little memory are faked in /proc and /sys. Works with any number of nodes, at most
 * 8 MiB on each.
 */
#include "machine/space.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/num.h"
#include "fake_root.h"
#include "fault_os.h"

#define PART_BYTES (4u << 20)
#define WALK_MAX 1000u
#define PAGES_BATCH 512u
#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif

struct fixture {
    struct fault_os fault;
    struct ab_topology *topology;
    struct ab_space_desc desc; /* PART_BYTES on each node that may be used and has memory */
    char line[1024];           /* the last one that was logged */
    struct ab_log log;
};

static void keep_line(void *context, int level, const char *line)
{
    struct fixture *fixture = context;
    (void)level;
    (void)snprintf(fixture->line, sizeof(fixture->line), "%s", line);
}

static bool node_is_usable(const struct ab_topology *topology, uint32_t node)
{
    return (ab_topology_allowed(topology) >> node & 1) != 0 &&
           ab_topology_node(topology, node)->bytes > 0;
}

static int set_up(void **state)
{
    struct fixture *fixture = test_calloc(1, sizeof(*fixture));
    fault_os_init(&fixture->fault, NULL);
    fixture->log = (struct ab_log){.write = keep_line, .context = fixture};
    assert_int_equal(ab_topology_open(ab_os_default(), NULL, NULL, &fixture->topology), 0);
    fixture->desc.os = &fixture->fault.os;
    fixture->desc.log = &fixture->log;
    fixture->desc.topology = fixture->topology;
    for (uint32_t n = 0; n < ab_topology_node_count(fixture->topology); n++) {
        fixture->desc.node_bytes[n] = node_is_usable(fixture->topology, n) ? PART_BYTES : 0;
    }
    *state = fixture;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *fixture = *state;
    ab_topology_close(fixture->topology);
    assert_int_equal(fault_os_allocations(&fixture->fault), 0);
    fault_os_free(&fixture->fault);
    test_free(fixture);
    return 0;
}

static struct ab_space *open_good(struct fixture *fixture)
{
    struct ab_space *space = NULL;
    const int result = ab_space_open(&fixture->desc, &space);
    if (result != 0) {
        print_message("%s\n", fixture->line);
    }
    assert_int_equal(result, 0);
    assert_non_null(space);
    return space;
}

static void open_bad(struct fixture *fixture, int expected)
{
    struct ab_space *space = NULL;
    const uint64_t maps = fault_os_count(&fixture->fault, AB_OS_MMAP);
    const uint64_t unmaps = fault_os_count(&fixture->fault, AB_OS_MUNMAP);
    assert_int_equal(ab_space_open(&fixture->desc, &space), expected);
    assert_null(space);
    assert_int_equal(fault_os_allocations(&fixture->fault), 0);
    const uint64_t failed = fault_os_struck(&fixture->fault) == AB_OS_MMAP ? 1 : 0;
    assert_int_equal(fault_os_count(&fixture->fault, AB_OS_MMAP) - maps - failed,
                     fault_os_count(&fixture->fault, AB_OS_MUNMAP) - unmaps);
}

static void strike(struct fixture *fixture, enum ab_os_call call, int error)
{
    fault_os_plan(&fixture->fault,
                  (struct fault_plan){
                      .call = call, .nth = 1, .kind = FAULT_ERROR, .error = error, .sticky = true});
}

/* ---- the kernel, asked here -------------------------------------------------------------------- */

/* how many 4 KiB pages of a range the kernel has on this node of its own numbering */
static uint64_t pages_on(const void *base, uint64_t bytes, uint32_t os_index)
{
    uint64_t found = 0;
    for (uint64_t offset = 0; offset < bytes; offset += (uint64_t)PAGES_BATCH * AB_PAGE) {
        void *pages[PAGES_BATCH];
        int status[PAGES_BATCH];
        const uint64_t left = (bytes - offset) / AB_PAGE;
        const uint64_t count = AB_MIN(left, (uint64_t)PAGES_BATCH);
        for (uint64_t i = 0; i < count; i++) {
            pages[i] = (void *)((uintptr_t)base + offset + i * AB_PAGE);
        }
        assert_int_equal(syscall(SYS_move_pages, 0, count, pages, NULL, status, 0), 0);
        for (uint64_t i = 0; i < count; i++) {
            found += status[i] == (int)os_index ? 1 : 0;
        }
    }
    return found;
}

static bool kernel_has_move_pages(void)
{
    int here = 0, status = -1;
    void *page = (void *)((uintptr_t)&here & ~(uintptr_t)(AB_PAGE - 1));
    return syscall(SYS_move_pages, 0, 1ul, &page, NULL, &status, 0) == 0 && status >= 0;
}

#define NEED_MOVE_PAGES()                                                   \
    do {                                                                    \
        if (!kernel_has_move_pages()) {                                     \
            print_message("SKIP: move_pages is refused to this process\n"); \
            skip();                                                         \
        }                                                                   \
    } while (0)

static void assert_parts_are_home(const struct fixture *fixture, const struct ab_space *space)
{
    for (uint32_t n = 0; n < ab_topology_node_count(fixture->topology); n++) {
        const uint64_t bytes = ab_space_node_bytes(space, n);
        assert_int_equal(pages_on(ab_space_node_base(space, n), bytes,
                                  ab_topology_node(fixture->topology, n)->os_index),
                         bytes / AB_PAGE);
    }
}

/* Memory that is zero and keeps what is written, to the last byte of each part. */
static void assert_memory_works(const struct fixture *fixture, const struct ab_space *space)
{
    for (uint32_t n = 0; n < ab_topology_node_count(fixture->topology); n++) {
        unsigned char *base = ab_space_node_base(space, n);
        const uint64_t bytes = ab_space_node_bytes(space, n);
        for (uint64_t i = 0; i < bytes; i += 1021) {
            assert_int_equal(base[i], 0);
        }
        memset(base, (int)n + 1, bytes);
    }
    for (uint32_t n = 0; n < ab_topology_node_count(fixture->topology); n++) {
        const uint64_t bytes = ab_space_node_bytes(space, n);
        assert_true(bytes == 0 || ab_space_node_base(space, n)[bytes - 1] == n + 1);
        assert_true(bytes == 0 || ab_space_node_base(space, n)[0] == n + 1);
    }
}

static uint64_t total_bytes(const struct fixture *fixture)
{
    uint64_t sum = 0;
    for (uint32_t n = 0; n < AB_NODES_MAX; n++) {
        sum += fixture->desc.node_bytes[n];
    }
    return sum;
}

static bool has_memory_only_node(const struct fixture *fixture)
{
    for (uint32_t n = 0; n < ab_topology_node_count(fixture->topology); n++) {
        if (fixture->desc.node_bytes[n] > 0 &&
            ab_topology_node(fixture->topology, n)->cpu_count == 0) {
            return true;
        }
    }
    return false;
}

/* ---- where pages are --------------------------------------------------------------------------- */

static void every_page_is_on_its_node(void **state)
{
    struct fixture *fixture = *state;
    NEED_MOVE_PAGES();
    struct ab_space *space = open_good(fixture);
    const struct ab_space_facts *facts = ab_space_facts(space);
    assert_int_equal(facts->binding, AB_BINDING_MBIND);
    assert_int_equal(facts->binding_reason, 0);
    assert_true(facts->verified);
    assert_int_equal(facts->pages_checked, total_bytes(fixture) / AB_PAGE);
    assert_int_equal(facts->pages_elsewhere, 0);
    assert_int_equal((uintptr_t)ab_space_base(space) % AB_HUGE, 0);
    assert_int_equal(ab_space_bytes(space), total_bytes(fixture));
    assert_parts_are_home(fixture, space);
    assert_memory_works(fixture, space);
    ab_space_close(space);
}

/* parts of different sizes, at equal distances */
static void parts_with_holes_between(void **state)
{
    struct fixture *fixture = *state;
    NEED_MOVE_PAGES();
    const uint32_t nodes = ab_topology_node_count(fixture->topology);
    for (uint32_t n = 0; n < nodes; n++) {
        fixture->desc.node_bytes[n] =
            node_is_usable(fixture->topology, n) ? (n % 3 + 1) * AB_HUGE : 0;
    }
    fixture->desc.node_span_bytes = 8 * AB_HUGE;
    fixture->desc.huge = AB_HUGE_NONE; /* so that holes cannot be filled by a huge page */
    struct ab_space *space = open_good(fixture);
    assert_true(ab_space_facts(space)->verified);
    assert_int_equal(ab_space_bytes(space), nodes * fixture->desc.node_span_bytes);
    for (uint32_t n = 0; n < nodes; n++) {
        struct ab_space_check sum = {0};
        unsigned char *base = ab_space_node_base(space, n);
        const uint64_t bytes = fixture->desc.node_bytes[n];
        assert_ptr_equal(base, ab_space_base(space) + n * fixture->desc.node_span_bytes);
        assert_int_equal(ab_space_check_range(ab_os_default(), fixture->topology, base + bytes,
                                              fixture->desc.node_span_bytes - bytes, &sum),
                         0);
        assert_int_equal(sum.pages_absent, (fixture->desc.node_span_bytes - bytes) / AB_PAGE);
    }
    assert_parts_are_home(fixture, space);
    assert_memory_works(fixture, space);
    ab_space_close(space);
}

/* one node at a time, so that each is a target while the caller runs anywhere */
static void a_part_on_one_node_only(void **state)
{
    struct fixture *fixture = *state;
    NEED_MOVE_PAGES();
    for (uint32_t n = 0; n < ab_topology_node_count(fixture->topology); n++) {
        if (!node_is_usable(fixture->topology, n)) {
            continue;
        }
        memset(fixture->desc.node_bytes, 0, sizeof(fixture->desc.node_bytes));
        fixture->desc.node_bytes[n] = 2 * AB_HUGE;
        fixture->desc.prefault_threads = 3;
        struct ab_space *space = open_good(fixture);
        assert_true(ab_space_facts(space)->verified);
        assert_parts_are_home(fixture, space);
        ab_space_close(space);
    }
}

/* ---- huge pages -------------------------------------------------------------------------------- */

/* smaps of this process, read here: kilobytes of a field, over mappings that begin in the range */
static uint64_t smaps_kb(const void *base, uint64_t bytes, const char *field)
{
    char line[512];
    uint64_t sum = 0;
    bool inside = false;
    FILE *file = fopen("/proc/self/smaps", "re");
    assert_non_null(file);
    while (fgets(line, sizeof(line), file) != NULL) {
        unsigned long first, last;
        unsigned long long kb;
        char name[64];
        if (sscanf(line, "%lx-%lx ", &first, &last) == 2) {
            inside = first >= (uintptr_t)base && last <= (uintptr_t)base + bytes;
        } else if (inside && sscanf(line, "%63[^:]: %llu kB", name, &kb) == 2 &&
                   strcmp(name, field) == 0) {
            sum += kb;
        }
    }
    assert_int_equal(fclose(file), 0);
    return sum;
}

static void huge_pages_are_counted_by_the_kernel(void **state)
{
    struct fixture *fixture = *state;
    fixture->desc.huge = AB_HUGE_THP;
    struct ab_space *space = open_good(fixture);
    const struct ab_space_facts *facts = ab_space_facts(space);
    assert_int_equal(facts->huge_bytes,
                     smaps_kb(ab_space_base(space), ab_space_bytes(space), "AnonHugePages") * 1024);
    if (facts->huge_bytes == total_bytes(fixture)) {
        assert_int_equal(facts->huge, AB_HUGE_THP);
        assert_int_equal(facts->huge_reason, 0);
    } else { /* switched off here, or memory in pieces: it must say so */
        assert_int_not_equal(facts->huge_reason, 0);
        assert_int_equal(facts->huge, facts->huge_bytes > 0 ? AB_HUGE_THP : AB_HUGE_NONE);
    }
    ab_space_close(space);
}

static void small_pages_when_asked_for(void **state)
{
    struct fixture *fixture = *state;
    fixture->desc.huge = AB_HUGE_NONE;
    struct ab_space *space = open_good(fixture);
    assert_int_equal(ab_space_facts(space)->huge, AB_HUGE_NONE);
    assert_int_equal(ab_space_facts(space)->huge_reason, 0); /* no less than asked */
    assert_int_equal(ab_space_facts(space)->huge_bytes, 0);
    assert_int_equal(smaps_kb(ab_space_base(space), ab_space_bytes(space), "AnonHugePages"), 0);
    ab_space_close(space);
}

static void two_spaces_do_not_share_their_counts(void **state)
{
    struct fixture *fixture = *state;
    struct ab_space *first = open_good(fixture);
    struct ab_space *second = open_good(fixture);
    assert_true(ab_space_facts(first)->huge_bytes <= total_bytes(fixture));
    assert_int_equal(ab_space_facts(second)->huge_bytes,
                     smaps_kb(ab_space_base(second), ab_space_bytes(second), "AnonHugePages") *
                         1024);
    ab_space_close(first);
    ab_space_close(second);
}

static void hugetlb_pool_is_empty(void **state)
{
    struct fixture *fixture = *state;
    struct fake_root fake;
    struct ab_space *space;
    fake_root_init(&fake, NULL);
    fake_root_cover(&fake, "/sys/devices/system/node");
    fixture->desc.huge = AB_HUGE_TLB;
    fixture->desc.os = &fake.os;
    assert_int_equal(ab_space_open(&fixture->desc, &space), 0);
    assert_int_not_equal(ab_space_facts(space)->huge, AB_HUGE_TLB);
    assert_int_not_equal(ab_space_facts(space)->huge_reason, 0);
    assert_memory_works(fixture, space);
    ab_space_close(space);
    fake_root_free(&fake);
}

/* pools of every node that say they have pages */
static void fake_pools(const struct fixture *fixture, struct fake_root *fake)
{
    fake_root_init(fake, NULL);
    fake_root_cover(fake, "/sys/devices/system/node");
    for (uint32_t n = 0; n < ab_topology_node_count(fixture->topology); n++) {
        char path[FAKE_PATH_MAX];
        (void)snprintf(path, sizeof(path),
                       "/sys/devices/system/node/node%u/hugepages/hugepages-2048kB/free_hugepages",
                       ab_topology_node(fixture->topology, n)->os_index);
        fake_root_file(fake, path, "1000\n");
    }
}

/* The pool says that it has pages and has none when they are touched: an error, not a SIGBUS. */
static void hugetlb_pool_lies(void **state)
{
    struct fixture *fixture = *state;
    struct fake_root fake;
    struct ab_space *space;
    fake_pools(fixture, &fake);
    fixture->desc.huge = AB_HUGE_TLB;
    fixture->desc.os = &fake.os;
    assert_int_equal(ab_space_open(&fixture->desc, &space), 0);
    const struct ab_space_facts *facts = ab_space_facts(space);
    if (facts->huge == AB_HUGE_TLB) { /* this machine has a pool after all */
        assert_int_equal(facts->huge_bytes, total_bytes(fixture));
        assert_int_equal(facts->huge_reason, 0);
    } else {
        assert_int_not_equal(facts->huge_reason, 0);
    }
    assert_memory_works(fixture, space);
    ab_space_close(space);
    fake_root_free(&fake);
}

/* a kernel before 5.14, here only for that one advice */
static int no_populate(const struct ab_os *os, void *base, size_t bytes, int advice)
{
    return advice == MADV_POPULATE_WRITE ? -EINVAL
                                         : ab_os_default()->madvise(os, base, bytes, advice);
}

/* Without MADV_POPULATE_WRITE an empty pool would be found out by a SIGBUS: no hugetlb at all. */
static void hugetlb_needs_populate(void **state)
{
    struct fixture *fixture = *state;
    struct fake_root fake;
    struct ab_space *space;
    fake_pools(fixture, &fake);
    fake.os.madvise = no_populate;
    fixture->desc.huge = AB_HUGE_TLB;
    fixture->desc.os = &fake.os;
    assert_int_equal(ab_space_open(&fixture->desc, &space), 0);
    assert_int_not_equal(ab_space_facts(space)->huge, AB_HUGE_TLB);
    assert_int_equal(ab_space_facts(space)->huge_reason, -EOPNOTSUPP);
    assert_memory_works(fixture, space);
    ab_space_close(space);
    fake_root_free(&fake);
}

/* says that only the first page of each 2 MiB is there */
static int sparse_move_pages(const struct ab_os *os, size_t count, void *const *pages,
                             int *ret_status)
{
    const int result = ab_os_default()->move_pages(os, count, pages, ret_status);
    for (size_t i = 0; i < count; i++) {
        ret_status[i] = (uintptr_t)pages[i] % AB_HUGE != 0 ? -ENOENT : ret_status[i];
    }
    return result;
}

/* One question for each 2 MiB is only enough where that is one page. */
static void small_pages_are_asked_for_one_by_one(void **state)
{
    struct fixture *fixture = *state;
    NEED_MOVE_PAGES();
    struct ab_os os = *ab_os_default();
    struct ab_space *space;
    os.move_pages = sparse_move_pages;
    fixture->desc.os = &os;
    fixture->desc.huge = AB_HUGE_NONE;
    assert_int_equal(ab_space_open(&fixture->desc, &space), 0);
    assert_false(ab_space_facts(space)->verified);
    ab_space_close(space);
    fixture->desc.huge = AB_HUGE_THP;
    assert_int_equal(ab_space_open(&fixture->desc, &space), 0);
    assert_int_equal(ab_space_facts(space)->verified,
                     ab_space_facts(space)->huge_bytes == total_bytes(fixture));
    ab_space_close(space);
}

/* ---- refusals ---------------------------------------------------------------------------------- */

static void mbind_refused_first_touch_instead(void **state)
{
    struct fixture *fixture = *state;
    NEED_MOVE_PAGES();
    strike(fixture, AB_OS_MBIND, EPERM);
    struct ab_space *space = open_good(fixture);
    const struct ab_space_facts *facts = ab_space_facts(space);
    assert_int_equal(facts->binding_reason, -EPERM);
    if (has_memory_only_node(fixture)) { /* nobody can touch it first */
        assert_int_equal(facts->binding, AB_BINDING_NONE);
    } else {
        assert_int_equal(facts->binding, AB_BINDING_TOUCH);
        assert_int_equal(facts->pages_elsewhere, 0);
        assert_parts_are_home(fixture, space);
    }
    assert_true(facts->verified);
    assert_memory_works(fixture, space);
    ab_space_close(space);
}

static void mbind_and_affinity_refused(void **state)
{
    struct fixture *fixture = *state;
    strike(fixture, AB_OS_MBIND, ENOSYS);
    strike(fixture, AB_OS_SETAFFINITY, EPERM);
    struct ab_space *space = open_good(fixture);
    assert_int_equal(ab_space_facts(space)->binding, AB_BINDING_NONE);
    assert_int_equal(ab_space_facts(space)->binding_reason, -ENOSYS);
    assert_memory_works(fixture, space);
    ab_space_close(space);
}

static void mbind_to_a_forbidden_node_fails(void **state)
{
    struct fixture *fixture = *state;
    strike(fixture, AB_OS_MBIND, EINVAL);
    open_bad(fixture, -EINVAL);
    assert_non_null(strstr(fixture->line, "node"));
}

/* a container without CAP_SYS_NICE: neither mbind nor move_pages */
static void numa_maps_when_move_pages_is_refused(void **state)
{
    struct fixture *fixture = *state;
    if (access("/proc/self/numa_maps", R_OK) != 0) {
        print_message("SKIP: this kernel has no numa_maps\n");
        skip();
    }
    for (uint32_t with_mbind = 0; with_mbind < 2; with_mbind++) {
        fault_os_clear(&fixture->fault);
        strike(fixture, AB_OS_MOVE_PAGES, EPERM);
        if (with_mbind == 0) {
            strike(fixture, AB_OS_MBIND, EPERM);
        }
        struct ab_space *space = open_good(fixture);
        const struct ab_space_facts *facts = ab_space_facts(space);
        if (with_mbind == 1 || !has_memory_only_node(fixture)) {
            assert_true(facts->verified);
            assert_int_equal(facts->pages_checked, total_bytes(fixture) / AB_PAGE);
            assert_int_equal(facts->pages_elsewhere, 0);
        }
        /* a part of a mapping that is wholly on one node */
        struct ab_space_check sum = {0};
        const uint32_t node = (uint32_t)__builtin_ctzll(ab_topology_allowed(fixture->topology));
        assert_int_equal(ab_space_check_range(&fixture->fault.os, fixture->topology,
                                              ab_space_node_base(space, node) + 5 * AB_PAGE,
                                              7 * AB_PAGE, &sum),
                         0);
        assert_int_equal(sum.pages_here[node], 7);
        /* the hole behind the last part was never touched: nothing can be said of it */
        struct ab_space_check hole = {0};
        assert_int_equal(ab_space_check_range(&fixture->fault.os, fixture->topology,
                                              ab_space_base(space) + ab_space_bytes(space), AB_PAGE,
                                              &hole),
                         0);
        assert_int_equal(hole.pages_unknown, 1);
        ab_space_close(space);
    }
}

static void nobody_answers_nothing_is_verified(void **state)
{
    struct fixture *fixture = *state;
    struct fake_root fake;
    struct fault_os fault;
    struct ab_space *space;
    fake_root_init(&fake, NULL);
    fake_root_cover(&fake, "/proc/self");
    fault_os_init(&fault, &fake.os);
    fault_os_plan(
        &fault, (struct fault_plan){
                    .call = AB_OS_MOVE_PAGES, .kind = FAULT_ERROR, .error = EPERM, .sticky = true});
    fixture->desc.os = &fault.os;
    assert_int_equal(ab_space_open(&fixture->desc, &space), 0);
    const struct ab_space_facts *facts = ab_space_facts(space);
    assert_false(facts->verified);
    assert_int_equal(facts->pages_checked, 0);
    assert_int_equal(facts->huge_bytes, 0); /* smaps was not there either */
    assert_int_equal(facts->huge_reason, -ENOENT);
    struct ab_space_check sum = {0};
    assert_int_equal(
        ab_space_check_range(&fault.os, fixture->topology, ab_space_base(space), 4 * AB_PAGE, &sum),
        0);
    assert_int_equal(sum.pages_unknown, 4);
    ab_space_close(space);
    fault_os_free(&fault);
    fake_root_free(&fake);
}

/* a kernel without transparent huge pages and without MADV_POPULATE_WRITE */
static void every_advice_refused(void **state)
{
    struct fixture *fixture = *state;
    NEED_MOVE_PAGES();
    strike(fixture, AB_OS_MADVISE, EINVAL);
    struct ab_space *space = open_good(fixture);
    assert_int_equal(ab_space_facts(space)->huge, AB_HUGE_NONE);
    assert_int_equal(ab_space_facts(space)->huge_reason, -EINVAL);
    assert_true(ab_space_facts(space)->verified); /* so every page is there */
    assert_parts_are_home(fixture, space);
    assert_memory_works(fixture, space);
    ab_space_close(space);
}

static void prefault_fails_cleanly(void **state)
{
    struct fixture *fixture = *state;
    static const int errors[] = {ENOMEM, EFAULT, EAGAIN, EHWPOISON};
    const uint64_t advice_before = 3 * (total_bytes(fixture) / PART_BYTES);
    for (size_t i = 0; i < AB_COUNT(errors); i++) {
        fault_os_clear(&fixture->fault);
        fault_os_plan(&fixture->fault, (struct fault_plan){.call = AB_OS_MADVISE,
                                                           .nth = advice_before + 1,
                                                           .kind = FAULT_ERROR,
                                                           .error = errors[i],
                                                           .sticky = true});
        open_bad(fixture, -errors[i]); /* EAGAIN: a bounded number of attempts */
    }
    fault_os_clear(&fixture->fault);
    fault_os_plan(&fixture->fault, (struct fault_plan){.call = AB_OS_MADVISE,
                                                       .nth = advice_before + 1,
                                                       .kind = FAULT_ERROR,
                                                       .error = EAGAIN});
    ab_space_close(open_good(fixture)); /* and more than one of them */
}

static void no_thread_can_be_started(void **state)
{
    struct fixture *fixture = *state;
    strike(fixture, AB_OS_THREAD, EAGAIN);
    open_bad(fixture, -EAGAIN);
}

static void every_call_fails_once(void **state)
{
    struct fixture *fixture = *state;
    static const enum ab_huge kinds[] = {AB_HUGE_THP, AB_HUGE_TLB};
    for (size_t k = 0; k < AB_COUNT(kinds); k++) {
        uint64_t strikes = 1;
        fixture->desc.huge = kinds[k];
        for (uint64_t nth = 1; strikes > 0 && nth < WALK_MAX; nth++) {
            struct ab_space *space = NULL;
            const uint64_t maps = fault_os_count(&fixture->fault, AB_OS_MMAP);
            const uint64_t unmaps = fault_os_count(&fixture->fault, AB_OS_MUNMAP);
            fault_os_clear(&fixture->fault);
            fault_os_plan(&fixture->fault, (struct fault_plan){.call = FAULT_ANY_CALL,
                                                               .nth = nth,
                                                               .kind = FAULT_ERROR,
                                                               .error = ENOMEM});
            const int result = ab_space_open(&fixture->desc, &space);
            strikes = fault_os_strikes(&fixture->fault);
            const bool map_failed = strikes > 0 && fault_os_struck(&fixture->fault) == AB_OS_MMAP;
            if (result == 0) { /* less, and said so; or it was only advice */
                assert_memory_works(fixture, space);
            } else {
                assert_int_equal(result, -ENOMEM);
                assert_null(space);
            }
            ab_space_close(space);
            assert_int_equal(fault_os_allocations(&fixture->fault), 0);
            assert_int_equal(fault_os_count(&fixture->fault, AB_OS_MMAP) - maps - map_failed,
                             fault_os_count(&fixture->fault, AB_OS_MUNMAP) - unmaps);
        }
        assert_int_equal(strikes, 0);
    }
}

/* ---- room -------------------------------------------------------------------------------------- */

static void fails_for_lack_of_room(struct fixture *fixture, struct fake_root *fake)
{
    struct fault_os fault;
    struct ab_space *space = NULL;
    fault_os_init(&fault, &fake->os);
    fixture->desc.os = &fault.os;
    fixture->line[0] = '\0';
    assert_int_equal(ab_space_open(&fixture->desc, &space), -ENOMEM);
    assert_non_null(strstr(fixture->line, "MiB"));
    assert_int_equal(fault_os_count(&fault, AB_OS_MMAP), 0); /* nothing was even tried */
    fixture->desc.os = &fixture->fault.os;
    fault_os_free(&fault);
}

static void little_memory_available(void **state)
{
    struct fixture *fixture = *state;
    struct fake_root fake;
    char text[128];
    fake_root_init(&fake, NULL);
    fake_root_cover(&fake, "/proc/meminfo");
    fake_root_cover(&fake, "/sys/devices/system/node");
    (void)snprintf(text, sizeof(text), "MemTotal: 99999999 kB\nMemAvailable:   %llu kB\n",
                   (unsigned long long)(total_bytes(fixture) / 1024 - 1));
    fake_root_file(&fake, "/proc/meminfo", text);
    fails_for_lack_of_room(fixture, &fake);
    (void)snprintf(text, sizeof(text), "MemTotal: 99999999 kB\nMemAvailable:   %llu kB\n",
                   (unsigned long long)(total_bytes(fixture) / 1024));
    fake_root_file(&fake, "/proc/meminfo", text);
    struct ab_space *space;
    fixture->desc.os = &fake.os;
    assert_int_equal(ab_space_open(&fixture->desc, &space), 0); /* just enough */
    ab_space_close(space);
    fake_root_free(&fake);
}

static void little_memory_on_a_node(void **state)
{
    struct fixture *fixture = *state;
    struct fake_root fake;
    const uint32_t nodes = ab_topology_node_count(fixture->topology);
    if (nodes == 1) {
        print_message("SKIP: on one node the whole machine's memory is what counts\n");
        skip();
    }
    fake_root_init(&fake, NULL);
    fake_root_cover(&fake, "/sys/devices/system/node");
    for (uint32_t n = 0; n < nodes; n++) {
        char path[FAKE_PATH_MAX];
        const uint32_t os_index = ab_topology_node(fixture->topology, n)->os_index;
        (void)snprintf(path, sizeof(path), "/sys/devices/system/node/node%u/meminfo", os_index);
        fake_root_file(&fake, path,
                       n + 1 < nodes ? "Node 0 MemFree: 9999999 kB\n"
                                     : "Node 0 MemFree: 1000 kB\nNode 0 Inactive(file): 100 kB\n");
    }
    fails_for_lack_of_room(fixture, &fake);
    fake_root_free(&fake);
}

/* ---- other machines, bad arguments, fork ------------------------------------------------------- */

static void another_machines_nodes_give_memory_only(void **state)
{
    struct fixture *fixture = *state;
    struct ab_topology *other;
    assert_int_equal(
        ab_topology_open(ab_os_default(), NULL, "synthetic:pack:2 [numa] core:2 pu:1", &other), 0);
    memset(fixture->desc.node_bytes, 0, sizeof(fixture->desc.node_bytes));
    fixture->desc.topology = other;
    fixture->desc.node_bytes[0] = AB_HUGE;
    fixture->desc.node_bytes[1] = 2 * AB_HUGE;
    struct ab_space *space = open_good(fixture);
    const struct ab_space_facts *facts = ab_space_facts(space);
    assert_int_equal(facts->binding, AB_BINDING_NONE);
    assert_int_equal(facts->binding_reason, -EXDEV);
    assert_false(facts->verified); /* the kernel would say node 0, and mean another one */
    assert_int_equal(fault_os_count(&fixture->fault, AB_OS_MBIND), 0);
    assert_int_equal(fault_os_count(&fixture->fault, AB_OS_SETAFFINITY), 0);
    struct ab_space_check sum = {0};
    assert_int_equal(
        ab_space_check_range(ab_os_default(), other, ab_space_base(space), 3 * AB_HUGE, &sum), 0);
    assert_int_equal(sum.pages_unknown, 3 * AB_HUGE / AB_PAGE);
    assert_memory_works(fixture, space);
    ab_space_close(space);
    ab_topology_close(other);
}

static void sizes_that_cannot_be(void **state)
{
    struct fixture *fixture = *state;
    const struct ab_space_desc good = fixture->desc;
    const uint32_t nodes = ab_topology_node_count(fixture->topology);
    const uint32_t node = (uint32_t)__builtin_ctzll(ab_topology_allowed(fixture->topology));
    fixture->desc.node_bytes[node] = AB_HUGE - AB_PAGE;
    open_bad(fixture, -EINVAL);
    fixture->desc = good;
    memset(fixture->desc.node_bytes, 0, sizeof(fixture->desc.node_bytes));
    open_bad(fixture, -EINVAL); /* nothing at all */
    fixture->desc = good;
    fixture->desc.node_bytes[nodes] = AB_HUGE; /* a node that does not exist */
    open_bad(fixture, -EINVAL);
    fixture->desc = good;
    fixture->desc.node_bytes[node] = ab_align_down(UINT64_MAX, AB_HUGE);
    open_bad(fixture, -EINVAL);
    fixture->desc = good;
    fixture->desc.node_span_bytes = AB_HUGE; /* less than a part */
    open_bad(fixture, -EINVAL);
    fixture->desc = good;
    fixture->desc.node_span_bytes = PART_BYTES + AB_PAGE;
    open_bad(fixture, -EINVAL);
    fixture->desc = good;
    fixture->desc.huge = (enum ab_huge)77;
    open_bad(fixture, -EINVAL);
    fixture->desc = good;
    fixture->desc.node_bytes[node] = (uint64_t)1 << 46; /* more than there is anywhere */
    open_bad(fixture, -ENOMEM);
    ab_space_close(NULL);
}

static void a_child_does_not_inherit_it(void **state)
{
    struct fixture *fixture = *state;
    struct ab_space *space = open_good(fixture);
    const pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        unsigned char there;
        _exit(mincore(ab_space_base(space), AB_PAGE, &there) < 0 && errno == ENOMEM ? 0 : 1);
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    ab_space_close(space);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(every_page_is_on_its_node),
        TEST(parts_with_holes_between),
        TEST(a_part_on_one_node_only),
        TEST(huge_pages_are_counted_by_the_kernel),
        TEST(small_pages_when_asked_for),
        TEST(two_spaces_do_not_share_their_counts),
        TEST(hugetlb_pool_is_empty),
        TEST(hugetlb_pool_lies),
        TEST(hugetlb_needs_populate),
        TEST(small_pages_are_asked_for_one_by_one),
        TEST(mbind_refused_first_touch_instead),
        TEST(mbind_and_affinity_refused),
        TEST(mbind_to_a_forbidden_node_fails),
        TEST(numa_maps_when_move_pages_is_refused),
        TEST(nobody_answers_nothing_is_verified),
        TEST(every_advice_refused),
        TEST(prefault_fails_cleanly),
        TEST(no_thread_can_be_started),
        TEST(every_call_fails_once),
        TEST(little_memory_available),
        TEST(little_memory_on_a_node),
        TEST(another_machines_nodes_give_memory_only),
        TEST(sizes_that_cannot_be),
        TEST(a_child_does_not_inherit_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
