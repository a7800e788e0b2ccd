/*
 * test_space_check.c - goal: what is said about any range of memory is what the kernel has, and
 * nothing is said where the kernel does not answer. Method: mappings made here, partly touched, and
 * pages moved behind abode's back; move_pages refused through fault_os.
 */
#include "machine/space.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/num.h"
#include "fault_os.h"

#define PART_BYTES (4u << 20)

struct fixture {
    struct fault_os fault;
    struct ab_topology *topology;
};

static int set_up(void **state)
{
    struct fixture *fixture = test_calloc(1, sizeof(*fixture));
    fault_os_init(&fixture->fault, NULL);
    assert_int_equal(ab_topology_open(ab_os_default(), NULL, NULL, &fixture->topology), 0);
    *state = fixture;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *fixture = *state;
    ab_topology_close(fixture->topology);
    fault_os_free(&fixture->fault);
    test_free(fixture);
    return 0;
}

static void strike(struct fixture *fixture, enum ab_os_call call, int error)
{
    fault_os_plan(&fixture->fault,
                  (struct fault_plan){
                      .call = call, .nth = 1, .kind = FAULT_ERROR, .error = error, .sticky = true});
}

static void need_move_pages(void)
{
    int here = 0, status = -1;
    void *page = (void *)((uintptr_t)&here & ~(uintptr_t)(AB_PAGE - 1));
    if (syscall(SYS_move_pages, 0, 1ul, &page, NULL, &status, 0) != 0 || status < 0) {
        print_message("SKIP: move_pages is refused to this process\n");
        skip();
    }
}

static void ranges_of_any_kind_are_checked(void **state)
{
    struct fixture *fixture = *state;
    struct ab_space_check sum = {0};
    need_move_pages();
    unsigned char *base =
        mmap(NULL, 8 * AB_PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_ptr_not_equal(base, MAP_FAILED);
    assert_int_equal(madvise(base, 8 * AB_PAGE, MADV_NOHUGEPAGE), 0);
    base[2 * AB_PAGE] = 1;
    base[3 * AB_PAGE] = 1;
    const struct ab_os *os = ab_os_default();
    assert_int_equal(ab_space_check_range(os, fixture->topology, base, 0, &sum), 0);
    assert_int_equal(sum.pages_absent, 0);
    /* one byte on each side of a page boundary: two pages */
    assert_int_equal(ab_space_check_range(os, fixture->topology, base + 3 * AB_PAGE - 1, 2, &sum),
                     0);
    uint64_t here = 0;
    for (uint32_t n = 0; n < AB_NODES_MAX; n++) {
        here += sum.pages_here[n];
    }
    assert_int_equal(here, 2);
    assert_int_equal(ab_space_check_range(os, fixture->topology, base, 8 * AB_PAGE, &sum), 0);
    assert_int_equal(sum.pages_absent, 6); /* and the two from before are still counted */
    assert_int_equal(ab_space_check_range(os, fixture->topology, base, UINT64_MAX, &sum), -EINVAL);
    assert_int_equal(munmap(base, 8 * AB_PAGE), 0);
}

static void pages_that_are_moved_are_seen(void **state)
{
    struct fixture *fixture = *state;
    uint32_t from = AB_INDEX_NONE, to = AB_INDEX_NONE;
    need_move_pages();
    for (uint32_t n = 0; n < ab_topology_node_count(fixture->topology); n++) {
        if ((ab_topology_allowed(fixture->topology) >> n & 1) != 0 &&
            ab_topology_node(fixture->topology, n)->bytes > 0) {
            to = from;
            from = n;
        }
    }
    if (to == AB_INDEX_NONE) {
        print_message("SKIP: one node with memory: there is nowhere to move pages to\n");
        skip();
    }
    struct ab_space_desc desc = {
        .os = ab_os_default(), .topology = fixture->topology, .huge = AB_HUGE_NONE};
    struct ab_space *space;
    desc.node_bytes[from] = PART_BYTES;
    assert_int_equal(ab_space_open(&desc, &space), 0);
    void *page = ab_space_node_base(space, from) + 7 * AB_PAGE;
    const int target = (int)ab_topology_node(fixture->topology, to)->os_index;
    int status = -1;
    assert_int_equal(syscall(SYS_move_pages, 0, 1ul, &page, &target, &status, 2), 0);
    struct ab_space_check sum = {0};
    assert_int_equal(ab_space_check_range(ab_os_default(), fixture->topology,
                                          ab_space_node_base(space, from), PART_BYTES, &sum),
                     0);
    assert_int_equal(sum.pages_here[to], 1);
    assert_int_equal(sum.pages_here[from], PART_BYTES / AB_PAGE - 1);
    ab_space_close(space);
}

/* numa_maps counts the pages of a mapping: with some absent it cannot tell which are there */
static void numa_maps_cannot_tell_of_half_a_mapping(void **state)
{
    struct fixture *fixture = *state;
    if (access("/proc/self/numa_maps", R_OK) != 0) {
        print_message("SKIP: this kernel has no numa_maps\n");
        skip();
    }
    strike(fixture, AB_OS_MOVE_PAGES, EPERM);
    unsigned char *base =
        mmap(NULL, 9 * AB_PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_ptr_not_equal(base, MAP_FAILED);
    assert_int_equal(madvise(base, 9 * AB_PAGE, MADV_NOHUGEPAGE), 0); /* a mapping of its own */
    for (uint32_t touched = 0; touched < 9; touched += 8) {
        struct ab_space_check sum = {0};
        for (uint32_t page = 0; page < touched; page++) {
            base[page * AB_PAGE] = 1;
        }
        assert_int_equal(
            ab_space_check_range(&fixture->fault.os, fixture->topology, base, AB_PAGE, &sum), 0);
        assert_int_equal(sum.pages_unknown, 1);
    }
    assert_int_equal(munmap(base, 9 * AB_PAGE), 0);
}

/* refused is not failed, anything else is; and then nothing is added up */
static void errors_are_not_answers(void **state)
{
    struct fixture *fixture = *state;
    struct ab_space_check sum = {.pages_absent = 7};
    int local = 0;
    strike(fixture, AB_OS_MOVE_PAGES, ENOMEM);
    assert_int_equal(
        ab_space_check_range(&fixture->fault.os, fixture->topology, &local, sizeof(local), &sum),
        -ENOMEM);
    assert_int_equal(sum.pages_absent, 7);
    assert_int_equal(sum.pages_unknown, 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(ranges_of_any_kind_are_checked),
        TEST(pages_that_are_moved_are_seen),
        TEST(numa_maps_cannot_tell_of_half_a_mapping),
        TEST(errors_are_not_answers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
