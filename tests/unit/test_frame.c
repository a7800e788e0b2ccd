/*
 * test_frame.c - goal: a frame is given to one taker at a time, lies on the node that its number
 * says, and in one registration chunk. Method: random takes and gives against a table that is
 * obviously right; the kernel asked page by page; spaces of several GiB whose prefault is left out
 * by the os table, for what only happens past 1 GiB.
 *
 * ABODE_TEST_SEED repeats a random run.
 */
#include "machine/frame.h"

#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/num.h"
#include "fake_root.h"
#include "fault_os.h"

#define STEPS 20000u
#define WALK_MAX 1000u
#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif

struct fixture {
    struct fault_os fault;
    struct ab_topology *topology;
    struct ab_frames_desc desc; /* 12 KiB frames, 100 + 7 n of them on each node n */
};

static int set_up(void **state)
{
    struct fixture *fixture = test_calloc(1, sizeof(*fixture));
    fault_os_init(&fixture->fault, NULL);
    assert_int_equal(ab_topology_open(ab_os_default(), NULL, NULL, &fixture->topology), 0);
    fixture->desc.os = &fixture->fault.os;
    fixture->desc.topology = fixture->topology;
    fixture->desc.stride = 3 * AB_PAGE;
    for (uint32_t n = 0; n < ab_topology_node_count(fixture->topology); n++) {
        const bool usable = (ab_topology_allowed(fixture->topology) >> n & 1) != 0 &&
                            ab_topology_node(fixture->topology, n)->bytes > 0;
        fixture->desc.frame_count[n] = usable ? 100 + 7 * n : 0;
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

static struct ab_frames *open_good(const struct ab_frames_desc *desc)
{
    struct ab_frames *frames = NULL;
    assert_int_equal(ab_frames_open(desc, &frames), 0);
    assert_true(ab_frames_are_valid(frames));
    return frames;
}

static uint64_t next_random(uint64_t *state) /* splitmix64 */
{
    uint64_t z = *state += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

static unsigned char *frame_address(const struct ab_frames *frames, uint32_t frame)
{
    return ab_frames_base(frames) + frame * ab_frames_stride(frames);
}

/* ---- taking and giving -------------------------------------------------------------------------- */

static void all_frames_once_each(void **state)
{
    struct fixture *fixture = *state;
    struct ab_frames *frames = open_good(&fixture->desc);
    const uint32_t per_node = ab_frames_per_node(frames);
    const uint32_t capacity = ab_frames_capacity(frames);
    unsigned char *seen = test_calloc(capacity, 1);
    assert_int_equal(capacity, ab_topology_node_count(fixture->topology) * per_node);
    assert_int_equal(per_node * ab_frames_stride(frames) % AB_HUGE, 0);
    for (uint32_t n = 0; n < ab_topology_node_count(fixture->topology); n++) {
        assert_int_equal(ab_frames_total(frames, n), fixture->desc.frame_count[n]);
        for (uint32_t i = 0; i < fixture->desc.frame_count[n]; i++) {
            assert_int_equal(ab_frames_free(frames, n), fixture->desc.frame_count[n] - i);
            const uint32_t frame = ab_frame_take(frames, n);
            assert_int_equal(ab_frame_node(frame, per_node), n);
            assert_in_range(frame, 0, capacity - 1);
            assert_int_equal(seen[frame]++, 0);
        }
        assert_int_equal(ab_frame_take(frames, n), AB_INDEX_NONE);
        assert_int_equal(ab_frames_free(frames, n), 0);
    }
    assert_true(ab_frames_are_valid(frames));
    test_free(seen);
    ab_frames_close(frames);
}

static void the_last_given_is_taken_first(void **state)
{
    struct fixture *fixture = *state;
    struct ab_frames *frames = open_good(&fixture->desc);
    const uint32_t first = ab_frame_take(frames, 0);
    const uint32_t second = ab_frame_take(frames, 0);
    const uint32_t third = ab_frame_take(frames, 0);
    ab_frame_give(frames, second);
    ab_frame_give(frames, third);
    ab_frame_give(frames, first);
    assert_int_equal(ab_frame_take(frames, 0), first);
    assert_int_equal(ab_frame_take(frames, 0), third);
    assert_int_equal(ab_frame_take(frames, 0), second);
    ab_frames_close(frames);
}

static uint64_t test_seed(void)
{
    const char *text = getenv("ABODE_TEST_SEED");
    const uint64_t seed = text != NULL ? strtoull(text, NULL, 0) : (uint64_t)time(NULL);
    print_message("ABODE_TEST_SEED=%llu\n", (unsigned long long)seed);
    return seed;
}

static void random_steps_match_a_table(void **state)
{
    struct fixture *fixture = *state;
    struct ab_frames *frames = open_good(&fixture->desc);
    const uint32_t capacity = ab_frames_capacity(frames);
    const uint32_t nodes = ab_topology_node_count(fixture->topology);
    uint32_t *taken = test_calloc(capacity, sizeof(*taken)); /* the taken ones, in any order */
    bool *is_taken = test_calloc(capacity, sizeof(*is_taken));
    uint32_t taken_count = 0;
    uint64_t random = test_seed();
    for (uint32_t step = 0; step < STEPS; step++) {
        const uint64_t number = next_random(&random);
        if (number % 2 == 0 && taken_count > 0) {
            const uint32_t place = (uint32_t)(number >> 8) % taken_count;
            is_taken[taken[place]] = false;
            ab_frame_give(frames, taken[place]);
            taken[place] = taken[--taken_count];
        } else {
            const uint32_t node = (uint32_t)(number >> 8) % nodes;
            const uint32_t free = ab_frames_free(frames, node);
            const uint32_t frame = ab_frame_take(frames, node);
            assert_int_equal(frame == AB_INDEX_NONE, free == 0);
            if (frame != AB_INDEX_NONE) {
                assert_false(is_taken[frame]);
                is_taken[frame] = true;
                taken[taken_count++] = frame;
            }
        }
        if (step % 512 == 0) {
            assert_true(ab_frames_are_valid(frames));
        }
    }
    for (uint32_t i = 0; i < taken_count; i++) {
        ab_frame_give(frames, taken[i]);
    }
    assert_true(ab_frames_are_valid(frames));
    for (uint32_t n = 0; n < nodes; n++) {
        assert_int_equal(ab_frames_free(frames, n), ab_frames_total(frames, n));
    }
    test_free(taken);
    test_free(is_taken);
    ab_frames_close(frames);
}

/* Giving what is not taken breaks a promise: it stops a build with assertions, poisons the runtime
 * in others, and in neither is the list changed. */
static void a_double_give_changes_nothing(void **state)
{
    struct fixture *fixture = *state;
    struct ab_frames *frames = open_good(&fixture->desc);
    const uint32_t frame = ab_frame_take(frames, 0);
    ab_frame_give(frames, frame);
    const uint32_t bad[] = {frame, ab_frames_total(frames, 0), ab_frames_capacity(frames),
                            AB_INDEX_NONE};
    for (size_t i = 0; i < AB_COUNT(bad); i++) {
#ifdef AB_DEBUG
        const pid_t child = fork();
        assert_true(child >= 0);
        if (child == 0) {
            (void)signal(SIGABRT, SIG_DFL);
            ab_frame_give(frames, bad[i]);
            _exit(0);
        }
        int status;
        assert_int_equal(waitpid(child, &status, 0), child);
        assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
#else
        struct ab_poison poison = {.where = NULL};
        struct ab_poison *previous = ab_poison_enter(&poison);
        const uint32_t free = ab_frames_free(frames, 0);
        ab_frame_give(frames, bad[i]);
        (void)ab_poison_enter(previous);
        assert_true(ab_poisoned(&poison));
        assert_int_equal(ab_frames_free(frames, 0), free);
        assert_true(ab_frames_are_valid(frames));
#endif
    }
    ab_frames_close(frames);
}

/* ---- where frames are ---------------------------------------------------------------------------- */

static void every_frame_is_on_its_node(void **state)
{
    struct fixture *fixture = *state;
    static const uint64_t strides[] = {AB_PAGE, 3 * AB_PAGE, AB_HUGE, AB_HUGE + AB_PAGE};
    for (size_t s = 0; s < AB_COUNT(strides); s++) {
        struct ab_frames_desc desc = fixture->desc;
        desc.stride = strides[s];
        for (uint32_t n = 0; n < AB_NODES_MAX; n++) { /* about 2 to 6 MiB a node */
            const uint32_t count = (uint32_t)(AB_HUGE / desc.stride) + 1 + n % 2;
            desc.frame_count[n] = desc.frame_count[n] > 0 ? count : 0;
        }
        struct ab_frames *frames = open_good(&desc);
        assert_int_equal(ab_frames_facts(frames)->binding, AB_BINDING_MBIND);
        for (uint32_t n = 0; n < ab_topology_node_count(fixture->topology); n++) {
            uint32_t frame = ab_frame_take(frames, n);
            for (; frame != AB_INDEX_NONE; frame = ab_frame_take(frames, n)) {
                unsigned char *address = frame_address(frames, frame);
                memset(address, 0xa5, ab_frames_stride(frames));
                for (uint64_t at = 0; at < ab_frames_stride(frames); at += AB_PAGE) {
                    void *page = address + at;
                    int status = -1;
                    assert_int_equal(syscall(SYS_move_pages, 0, 1ul, &page, NULL, &status, 0), 0);
                    assert_int_equal(status, ab_topology_node(fixture->topology, n)->os_index);
                }
            }
        }
        ab_frames_close(frames);
    }
}

/* ---- chunks, sizes ------------------------------------------------------------------------------- */

/* the real table without the prefault: address space of any size, no memory */
static int no_prefault(const struct ab_os *os, void *base, size_t bytes, int advice)
{
    return advice == MADV_POPULATE_WRITE ? 0 : ab_os_default()->madvise(os, base, bytes, advice);
}

struct large_case {
    uint64_t stride;
    uint32_t count;
    uint32_t chunks; /* on one node */
};

static void check_chunks(const struct ab_frames *frames, const struct large_case *large)
{
    uint32_t frame = 0; /* the first that no chunk has had yet */
    assert_int_equal(ab_frames_chunk_count(frames), large->chunks);
    for (uint32_t c = 0; c < large->chunks; c++) {
        const struct ab_frame_chunk chunk = ab_frames_chunk(frames, c);
        assert_int_equal(chunk.node, 0);
        assert_in_range(chunk.bytes, large->stride, 1u << 30);
        assert_int_equal(chunk.bytes % large->stride, 0); /* so none straddles */
        assert_int_equal((uintptr_t)chunk.base % AB_PAGE, 0);
        assert_ptr_equal(chunk.base, ab_frames_base(frames) + frame * large->stride);
        frame += (uint32_t)(chunk.bytes / large->stride);
    }
    assert_int_equal(frame, large->count); /* every frame is in one */
}

static void chunks_hold_whole_frames(void **state)
{
    struct fixture *fixture = *state;
    static const struct large_case cases[] = {
        {.stride = AB_HUGE, .count = 512, .chunks = 1}, /* 1 GiB exactly */
        {.stride = AB_HUGE, .count = 513, .chunks = 2}, /* and one more */
        {.stride = 3 * AB_PAGE, .count = 300000, .chunks = 4},
        {.stride = (1u << 30) - AB_PAGE, .count = 3, .chunks = 3},
        {.stride = 1u << 30, .count = 3, .chunks = 3},
        {.stride = (512u << 20) + AB_PAGE, .count = 3, .chunks = 3},
        {.stride = AB_PAGE, .count = 1, .chunks = 1},
    };
    struct fake_root fake; /* no meminfo: room for anything */
    fake_root_init(&fake, NULL);
    fake_root_cover(&fake, "/proc/meminfo");
    fake_root_cover(&fake, "/proc/self");
    fake_root_cover(&fake, "/sys/devices/system/node");
    fake.os.madvise = no_prefault;
    for (size_t i = 0; i < AB_COUNT(cases); i++) {
        struct ab_frames_desc desc = {
            .os = &fake.os, .topology = fixture->topology, .stride = cases[i].stride};
        desc.frame_count[0] = cases[i].count;
        struct ab_frames *frames = open_good(&desc);
        check_chunks(frames, &cases[i]);
        assert_false(ab_frames_facts(frames)->verified); /* nothing is resident: not hidden */
        ab_frames_close(frames);
    }
    fake_root_free(&fake);
}

static void chunks_of_several_nodes(void **state)
{
    struct fixture *fixture = *state;
    struct ab_topology *other;
    assert_int_equal(ab_topology_open(ab_os_default(), NULL, "synthetic:numa:3 pu:1", &other), 0);
    fixture->desc.topology = other;
    memset(fixture->desc.frame_count, 0, sizeof(fixture->desc.frame_count));
    fixture->desc.frame_count[0] = 2;
    fixture->desc.frame_count[2] = 700;
    struct ab_frames *frames = open_good(&fixture->desc);
    assert_int_equal(ab_frames_chunk_count(frames), 2); /* none for the node without frames */
    assert_int_equal(ab_frames_chunk(frames, 0).node, 0);
    assert_int_equal(ab_frames_chunk(frames, 0).bytes, 2 * fixture->desc.stride);
    assert_int_equal(ab_frames_chunk(frames, 1).node, 2);
    assert_int_equal(ab_frames_chunk(frames, 1).bytes, 700 * fixture->desc.stride);
    assert_ptr_equal(ab_frames_chunk(frames, 1).base,
                     frame_address(frames, 2 * ab_frames_per_node(frames)));
    assert_int_equal(ab_frame_take(frames, 1), AB_INDEX_NONE);
    ab_frames_close(frames);
    ab_topology_close(other);
}

static void metadata_is_small(void **state)
{
    struct fixture *fixture = *state;
    fixture->desc.stride = AB_PAGE;
    memset(fixture->desc.frame_count, 0, sizeof(fixture->desc.frame_count));
    fixture->desc.frame_count[0] = 4000;
    struct ab_frames *frames = open_good(&fixture->desc);
    assert_in_range(ab_frames_metadata_bytes(frames), 4 * 4000, 8 * 4000);
    ab_frames_close(frames);
}

static void open_bad(struct fixture *fixture, int expected)
{
    struct ab_frames *frames = NULL;
    assert_int_equal(ab_frames_open(&fixture->desc, &frames), expected);
    assert_null(frames);
    assert_int_equal(fault_os_allocations(&fixture->fault), 0);
    assert_int_equal(fault_os_count(&fixture->fault, AB_OS_MMAP),
                     fault_os_count(&fixture->fault, AB_OS_MUNMAP));
}

static void sizes_that_cannot_be(void **state)
{
    struct fixture *fixture = *state;
    static const uint64_t strides[] = {
        0, 1, AB_PAGE - 1, AB_PAGE + 1, (1u << 30) + AB_PAGE, UINT64_MAX - AB_PAGE + 1};
    const struct ab_frames_desc good = fixture->desc;
    for (size_t i = 0; i < AB_COUNT(strides); i++) {
        fixture->desc.stride = strides[i];
        open_bad(fixture, -EINVAL);
    }
    fixture->desc = good;
    fixture->desc.frame_count[ab_topology_node_count(fixture->topology)] = 1;
    open_bad(fixture, -EINVAL);
    fixture->desc = good;
    memset(fixture->desc.frame_count, 0, sizeof(fixture->desc.frame_count));
    open_bad(fixture, -EINVAL);
    fixture->desc.frame_count[0] = UINT32_MAX;
    open_bad(fixture, -EINVAL); /* past the frame numbers */
    fixture->desc.frame_count[0] = UINT32_MAX / 2 / ab_topology_node_count(fixture->topology);
    fixture->desc.stride = 1u << 30;
    open_bad(fixture, -ENOMEM); /* past any machine */
    ab_frames_close(NULL);
}

static void as_many_frames_as_there_are_numbers(void **state)
{
    struct fixture *fixture = *state;
    struct ab_topology *one;
    assert_int_equal(ab_topology_open(ab_os_default(), NULL, "synthetic:numa:1 pu:1", &one), 0);
    memset(fixture->desc.frame_count, 0, sizeof(fixture->desc.frame_count));
    fixture->desc.topology = one;
    fixture->desc.stride = AB_HUGE;
    fixture->desc.frame_count[0] = UINT32_MAX - 2;
    open_bad(fixture, -ENOMEM); /* the numbers suffice, the memory does not */
    fixture->desc.frame_count[0] = UINT32_MAX - 1;
    open_bad(fixture, -EINVAL);
    ab_topology_close(one);
}

static void every_call_fails_once(void **state)
{
    struct fixture *fixture = *state;
    uint64_t strikes = 1;
    for (uint64_t nth = 1; strikes > 0 && nth < WALK_MAX; nth++) {
        struct ab_frames *frames = NULL;
        const uint64_t maps = fault_os_count(&fixture->fault, AB_OS_MMAP);
        const uint64_t unmaps = fault_os_count(&fixture->fault, AB_OS_MUNMAP);
        fault_os_clear(&fixture->fault);
        fault_os_plan(&fixture->fault, (struct fault_plan){.call = FAULT_ANY_CALL,
                                                           .nth = nth,
                                                           .kind = FAULT_ERROR,
                                                           .error = ENOMEM});
        const int result = ab_frames_open(&fixture->desc, &frames);
        strikes = fault_os_strikes(&fixture->fault);
        const bool map_failed = strikes > 0 && fault_os_struck(&fixture->fault) == AB_OS_MMAP;
        assert_true(result == 0 || result == -ENOMEM);
        assert_true(result == 0 ? ab_frames_are_valid(frames) : frames == NULL);
        ab_frames_close(frames);
        assert_int_equal(fault_os_allocations(&fixture->fault), 0);
        assert_int_equal(fault_os_count(&fixture->fault, AB_OS_MMAP) - maps - map_failed,
                         fault_os_count(&fixture->fault, AB_OS_MUNMAP) - unmaps);
    }
    assert_int_equal(strikes, 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(all_frames_once_each),       TEST(the_last_given_is_taken_first),
        TEST(random_steps_match_a_table), TEST(a_double_give_changes_nothing),
        TEST(every_frame_is_on_its_node), TEST(chunks_hold_whole_frames),
        TEST(chunks_of_several_nodes),    TEST(metadata_is_small),
        TEST(sizes_that_cannot_be),       TEST(as_many_frames_as_there_are_numbers),
        TEST(every_call_fails_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
