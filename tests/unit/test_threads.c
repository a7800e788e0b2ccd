/*
 * test_threads.c - goal: a thread of ours runs on its node's CPUs, can be recognised, takes none of
 * the host's signals, and leaves its starter as it was. Method: the thread asks the kernel about
 * itself; refusals come through fault_os.
 */
#include "machine/threads.h"

#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/num.h"
#include "fault_os.h"

struct fixture {
    struct fault_os fault;
    struct ab_topology *topology;
};

struct seen { /* what the thread found about itself */
    cpu_set_t cpus;
    sigset_t blocked;
    struct ab_poison *poison;
    char name[16];
    uint32_t runs;
};

static void look(void *argument)
{
    struct seen *seen = argument;
    seen->runs++;
    seen->poison = ab_poison_enter(NULL);
    (void)ab_poison_enter(seen->poison);
    (void)sched_getaffinity(0, sizeof(seen->cpus), &seen->cpus);
    (void)pthread_sigmask(SIG_SETMASK, NULL, &seen->blocked);
    (void)pthread_getname_np(pthread_self(), seen->name, sizeof(seen->name));
}

static int set_up(void **state)
{
    struct fixture *fixture = test_calloc(1, sizeof(*fixture));
    fault_os_init(&fixture->fault, NULL);
    assert_int_equal(ab_topology_open(&fixture->fault.os, NULL, NULL, &fixture->topology), 0);
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

/* runs `look` in a thread of ours; true: the thread was bound */
static bool run_look(struct fixture *fixture, const struct ab_topology *topology, int32_t node,
                     const char *name, struct ab_poison *poison, struct seen *seen)
{
    struct ab_thread *thread = NULL;
    assert_int_equal(
        ab_thread_start(&fixture->fault.os, topology, node, name, poison, look, seen, &thread), 0);
    const bool bound = ab_thread_bound(thread);
    ab_thread_join(thread);
    assert_int_equal(seen->runs, 1);
    return bound;
}

static void runs_on_the_cpus_of_its_node(void **state)
{
    struct fixture *fixture = *state;
    for (uint32_t n = 0; n < ab_topology_node_count(fixture->topology); n++) {
        struct seen seen = {0};
        assert_true(run_look(fixture, fixture->topology, (int32_t)n, "on-node", NULL, &seen));
        const struct ab_node *node = ab_topology_node(fixture->topology, n);
        const cpu_set_t *wanted =
            &ab_topology_node(fixture->topology, (uint32_t)node->cpu_node)->cpus;
        assert_true(CPU_EQUAL(&seen.cpus, wanted));
    }
}

static void without_a_node_it_runs_where_its_starter_may(void **state)
{
    struct fixture *fixture = *state;
    cpu_set_t ours, one;
    assert_int_equal(sched_getaffinity(0, sizeof(ours), &ours), 0);
    CPU_ZERO(&one);
    for (uint32_t cpu = 0; cpu < CPU_SETSIZE && CPU_COUNT(&one) == 0; cpu++) {
        if (CPU_ISSET(cpu, &ours)) {
            CPU_SET(cpu, &one);
        }
    }
    assert_int_equal(sched_setaffinity(0, sizeof(one), &one), 0);
    struct seen seen = {0};
    const bool bound = run_look(fixture, fixture->topology, -1, "anywhere", NULL, &seen);
    assert_int_equal(sched_setaffinity(0, sizeof(ours), &ours), 0);
    assert_false(bound);
    assert_true(CPU_EQUAL(&seen.cpus, &one));
}

static void a_refused_binding_is_told_not_fatal(void **state)
{
    struct fixture *fixture = *state;
    struct seen seen = {0};
    fault_os_plan(
        &fixture->fault,
        (struct fault_plan){.call = AB_OS_SETAFFINITY, .kind = FAULT_ERROR, .error = EPERM});
    assert_false(run_look(fixture, fixture->topology, 0, "refused", NULL, &seen));
    assert_int_equal(fault_os_strikes(&fixture->fault), 1);
}

static void another_machine_binds_nothing(void **state)
{
    struct fixture *fixture = *state;
    struct ab_topology *other;
    struct seen seen = {0};
    cpu_set_t ours;
    assert_int_equal(
        ab_topology_open(&fixture->fault.os, NULL, "synthetic:pack:2 [numa] core:1 pu:1", &other),
        0);
    assert_int_equal(sched_getaffinity(0, sizeof(ours), &ours), 0);
    assert_false(run_look(fixture, other, 1, "elsewhere", NULL, &seen));
    assert_true(CPU_EQUAL(&seen.cpus, &ours));
    ab_topology_close(other);
}

static void signals_are_the_hosts(void **state)
{
    struct fixture *fixture = *state;
    static const int blocked[] = {SIGTERM, SIGINT, SIGHUP, SIGUSR1, SIGCHLD, SIGALRM, SIGPIPE};
    static const int faults[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGSYS};
    sigset_t before, after;
    struct seen seen = {0};
    (void)sigemptyset(&before);
    (void)sigaddset(&before, SIGUSR2);
    assert_int_equal(pthread_sigmask(SIG_SETMASK, &before, NULL), 0);
    (void)run_look(fixture, fixture->topology, 0, "signals", NULL, &seen);
    assert_int_equal(pthread_sigmask(SIG_SETMASK, NULL, &after), 0);
    for (size_t i = 0; i < AB_COUNT(blocked); i++) {
        assert_int_equal(sigismember(&seen.blocked, blocked[i]), 1);
    }
    for (size_t i = 0; i < AB_COUNT(faults); i++) {
        assert_int_equal(sigismember(&seen.blocked, faults[i]), 0);
    }
    for (int signal = 1; signal < SIGRTMIN; signal++) {
        assert_int_equal(sigismember(&after, signal), sigismember(&before, signal));
    }
}

static void names_are_shown_and_cut(void **state)
{
    struct fixture *fixture = *state;
    struct seen whole = {0}, cut = {0};
    (void)run_look(fixture, fixture->topology, -1, "fifteen-letters", NULL, &whole);
    (void)run_look(fixture, fixture->topology, -1, "sixteen-letters-", NULL, &cut);
    assert_string_equal(whole.name, "fifteen-letters");
    assert_string_equal(cut.name, "sixteen-letters");
}

static void works_for_the_runtime_it_was_given(void **state)
{
    struct fixture *fixture = *state;
    struct ab_poison poison = {.where = NULL};
    struct seen seen = {0};
    (void)run_look(fixture, fixture->topology, -1, "poison", &poison, &seen);
    assert_ptr_equal(seen.poison, &poison);
}

static void failures_leave_nothing(void **state)
{
    struct fixture *fixture = *state;
    struct ab_thread *thread = NULL;
    struct seen seen = {0};
    sigset_t before, after;
    const uint32_t nodes = ab_topology_node_count(fixture->topology);
    (void)sigemptyset(&before);
    assert_int_equal(pthread_sigmask(SIG_SETMASK, &before, NULL), 0);
    assert_int_equal(ab_thread_start(&fixture->fault.os, fixture->topology, (int32_t)nodes, "none",
                                     NULL, look, &seen, &thread),
                     -EINVAL);
    const int64_t allocations = fault_os_allocations(&fixture->fault);
    static const struct fault_plan plans[] = {
        {.call = AB_OS_ALLOC, .kind = FAULT_ERROR, .error = ENOMEM},
        {.call = AB_OS_THREAD, .kind = FAULT_ERROR, .error = EAGAIN}};
    for (size_t i = 0; i < AB_COUNT(plans); i++) {
        fault_os_clear(&fixture->fault);
        fault_os_plan(&fixture->fault, plans[i]);
        assert_int_equal(ab_thread_start(&fixture->fault.os, fixture->topology, 0, "none", NULL,
                                         look, &seen, &thread),
                         -plans[i].error);
        assert_int_equal(fault_os_strikes(&fixture->fault), 1);
        assert_int_equal(fault_os_allocations(&fixture->fault), allocations);
    }
    assert_int_equal(pthread_sigmask(SIG_SETMASK, NULL, &after), 0);
    assert_int_equal(sigismember(&after, SIGTERM), 0);
    assert_null(thread);
    assert_int_equal(seen.runs, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(runs_on_the_cpus_of_its_node, set_up, tear_down),
        cmocka_unit_test_setup_teardown(without_a_node_it_runs_where_its_starter_may, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(a_refused_binding_is_told_not_fatal, set_up, tear_down),
        cmocka_unit_test_setup_teardown(another_machine_binds_nothing, set_up, tear_down),
        cmocka_unit_test_setup_teardown(signals_are_the_hosts, set_up, tear_down),
        cmocka_unit_test_setup_teardown(names_are_shown_and_cut, set_up, tear_down),
        cmocka_unit_test_setup_teardown(works_for_the_runtime_it_was_given, set_up, tear_down),
        cmocka_unit_test_setup_teardown(failures_leave_nothing, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
