/*
 * test_headroom.c - goal: the room that is found is that of the tightest limit, and files that are
 * not there, cut or nonsense limit nothing. Method: /proc and /sys faked file by file; the machine
 * itself only for plausibility.
 */
#include "machine/headroom.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "base/num.h"
#include "fake_root.h"
#include "fault_os.h"

#define KB 1024ull

static int set_up(void **state)
{
    struct fake_root *fake = test_calloc(1, sizeof(*fake));
    fake_root_init(fake, NULL);
    fake_root_cover(fake, "/proc/meminfo");
    fake_root_cover(fake, "/proc/self/cgroup");
    fake_root_cover(fake, "/sys/fs/cgroup");
    fake_root_cover(fake, "/sys/devices/system/node");
    *state = fake;
    return 0;
}

static int tear_down(void **state)
{
    fake_root_free(*state);
    test_free(*state);
    return 0;
}

static void this_machine_has_room(void **state)
{
    (void)state;
    const uint64_t room = ab_headroom_process(ab_os_default());
    assert_true(room > 0 && room != UINT64_MAX); /* every Linux has /proc/meminfo */
}

static void no_files_no_limit(void **state)
{
    struct fake_root *fake = *state;
    assert_true(ab_headroom_process(&fake->os) == UINT64_MAX);
    assert_true(ab_headroom_node(&fake->os, 0) == UINT64_MAX);
    assert_int_equal(ab_headroom_huge(&fake->os, 0), 0);
}

static void available_memory(void **state)
{
    struct fake_root *fake = *state;
    fake_root_file(fake, "/proc/meminfo",
                   "MemTotal: 100 kB\nMemFree: 1 kB\nMemAvailable:      77 kB\n");
    assert_int_equal(ab_headroom_process(&fake->os), 77 * KB);
}

static void nonsense_in_meminfo(void **state)
{
    struct fake_root *fake = *state;
    static const char *const texts[] = {"",
                                        "MemAvailable:",
                                        "MemAvailable: kB\n",
                                        "MemAvailable: 12 MB\n",
                                        "MemAvailable: -3 kB\n",
                                        "NotMemAvailable: 12 kB\n",
                                        "MemAvailable: 99999999999999999999999 kB\n",
                                        "MemAvailable: 18446744073709551615 kB\n"};
    for (size_t i = 0; i < AB_COUNT(texts); i++) {
        fake_root_file(fake, "/proc/meminfo", texts[i]);
        assert_true(ab_headroom_process(&fake->os) == UINT64_MAX);
    }
}

/* free memory and clean page cache count, less 1/128 of the node */
static void a_node(void **state)
{
    struct fake_root *fake = *state;
    fake_root_file(fake, "/sys/devices/system/node/node5/meminfo",
                   "\nNode 5 MemTotal:  128000 kB\nNode 5 MemFree:   5000 kB\n"
                   "Node 5 MemUsed:  1 kB\nNode 5 Active(anon):   99 kB\n"
                   "Node 5 Active(file):   300 kB\nNode 5 Inactive(file):   20 kB\n"
                   "Node 5 FilePages: 77777 kB\n");
    assert_int_equal(ab_headroom_node(&fake->os, 5), (5000 + 300 + 20 - 1000) * KB);
    fake_root_file(fake, "/sys/devices/system/node/node5/meminfo",
                   "Node 5 MemTotal:  128000 kB\nNode 5 MemFree:   900 kB\n");
    assert_int_equal(ab_headroom_node(&fake->os, 5), 0); /* never below nothing */
}

static void a_hugetlb_pool(void **state)
{
    struct fake_root *fake = *state;
    static const char path[] =
        "/sys/devices/system/node/node1/hugepages/hugepages-2048kB/free_hugepages";
    fake_root_file(fake, path, "7\n");
    assert_int_equal(ab_headroom_huge(&fake->os, 1), 7ull * AB_HUGE);
    fake_root_file(fake, path, "-7\n");
    assert_int_equal(ab_headroom_huge(&fake->os, 1), 0);
    fake_root_file(fake, path, "9223372036854775807\n"); /* pages, so too many bytes */
    assert_int_equal(ab_headroom_huge(&fake->os, 1), 0);
}

/* the limit of a group above ours counts like our own; page cache of a group is room */
static void cgroup_version_2(void **state)
{
    struct fake_root *fake = *state;
    fake_root_file(fake, "/proc/meminfo", "MemAvailable: 9000000 kB\n");
    fake_root_file(fake, "/proc/self/cgroup", "0::/pod/container\n");
    fake_root_file(fake, "/sys/fs/cgroup/pod/container/memory.max", "max\n");
    assert_int_equal(ab_headroom_process(&fake->os), 9000000 * KB);
    fake_root_file(fake, "/sys/fs/cgroup/pod/memory.max", "5000000\n");
    fake_root_file(fake, "/sys/fs/cgroup/pod/memory.current", "3000000\n");
    assert_int_equal(ab_headroom_process(&fake->os), 2000000);
    fake_root_file(fake, "/sys/fs/cgroup/pod/memory.stat",
                   "anon 1\nactive_file 40000\ninactive_file 3000\nunactive_file 1\n");
    assert_int_equal(ab_headroom_process(&fake->os), 2043000);
    fake_root_file(fake, "/sys/fs/cgroup/pod/container/memory.max", "1000\n");
    fake_root_file(fake, "/sys/fs/cgroup/pod/container/memory.current", "4000\n");
    assert_int_equal(ab_headroom_process(&fake->os), 0); /* over its limit already */
}

/* in a cgroup namespace our group is the mount itself, whatever the path says */
static void cgroup_namespace(void **state)
{
    struct fake_root *fake = *state;
    fake_root_file(fake, "/proc/self/cgroup", "0::/../../somewhere/else\n");
    fake_root_file(fake, "/sys/fs/cgroup/memory.max", "8000\n");
    fake_root_file(fake, "/sys/fs/cgroup/memory.current", "1000\n");
    assert_int_equal(ab_headroom_process(&fake->os), 7000);
}

static void cgroup_version_1(void **state)
{
    struct fake_root *fake = *state;
    fake_root_file(fake, "/proc/self/cgroup",
                   "9:name=systemd:/\n8:memory_like:/c\n7:mem:/c\n4:memory:/a/b\n0::/\n");
    fake_root_file(fake, "/sys/fs/cgroup/memory/c/memory.limit_in_bytes", "1\n");
    fake_root_file(fake, "/sys/fs/cgroup/memory/c/memory.usage_in_bytes", "1\n");
    fake_root_file(fake, "/sys/fs/cgroup/memory/a/memory.limit_in_bytes", "20000\n");
    fake_root_file(fake, "/sys/fs/cgroup/memory/a/memory.usage_in_bytes", "5000\n");
    fake_root_file(fake, "/sys/fs/cgroup/memory/a/memory.stat",
                   "inactive_file 9\ntotal_active_file 100\ntotal_inactive_file 10\n");
    fake_root_file(fake, "/sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n");
    fake_root_file(fake, "/sys/fs/cgroup/memory/memory.usage_in_bytes", "5000\n");
    assert_int_equal(ab_headroom_process(&fake->os), 15110);
}

static void nonsense_in_cgroup_files(void **state)
{
    struct fake_root *fake = *state;
    static const char *const texts[] = {
        "", "0", ":", "::", "0::", "x:y", "4:memory", "\n\n0:memory\n"};
    for (size_t i = 0; i < AB_COUNT(texts); i++) {
        fake_root_file(fake, "/proc/self/cgroup", texts[i]);
        assert_true(ab_headroom_process(&fake->os) == UINT64_MAX);
    }
    char line[3000]; /* deeper than we look, and longer than a path of ours */
    memcpy(line, "0::", 3);
    for (size_t i = 3; i + 2 < sizeof(line); i += 2) {
        memcpy(line + i, "/d", 2);
    }
    line[sizeof(line) - 1] = '\0';
    fake_root_file(fake, "/proc/self/cgroup", line);
    assert_true(ab_headroom_process(&fake->os) == UINT64_MAX);
}

static void unreadable_files_limit_nothing(void **state)
{
    struct fake_root *fake = *state;
    struct fault_os fault;
    fake_root_file(fake, "/proc/meminfo", "MemAvailable: 9 kB\n");
    fault_os_init(&fault, &fake->os);
    fault_os_plan(&fault,
                  (struct fault_plan){
                      .call = AB_OS_PREAD, .kind = FAULT_ERROR, .error = EIO, .sticky = true});
    assert_true(ab_headroom_process(&fault.os) == UINT64_MAX);
    fault_os_clear(&fault);
    fault_os_plan(&fault,
                  (struct fault_plan){.call = AB_OS_PREAD, .kind = FAULT_SHORT, .sticky = true});
    assert_int_equal(ab_headroom_process(&fault.os), 9 * KB); /* in pieces, but whole */
    assert_int_equal(fault_os_count(&fault, AB_OS_OPENAT) > 0, 1);
    fault_os_free(&fault);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(this_machine_has_room),
        TEST(no_files_no_limit),
        TEST(available_memory),
        TEST(nonsense_in_meminfo),
        TEST(a_node),
        TEST(a_hugetlb_pool),
        TEST(cgroup_version_2),
        TEST(cgroup_namespace),
        TEST(cgroup_version_1),
        TEST(nonsense_in_cgroup_files),
        TEST(unreadable_files_limit_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
