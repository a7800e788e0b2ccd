/*
 * test_lock.c - goal: locks exclude, conditions wake and time out, and a debug build stops at the
 * first inversion of ranks, naming both locks. Method: lock.c and check.c are compiled into this
 * file with AB_DEBUG, whatever the build; what must stop the process happens in a child.
 */
#ifndef AB_DEBUG
#define AB_DEBUG 1
#endif
#include "base/check.c"
#include "base/lock.c"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include <cmocka.h>

#include "base/num.h"
#include "base/os.h"

#define ROUNDS 20000
#define THREADS 4

struct locks {
    struct ab_lock kv, store, io;
};

static int set_up(void **state)
{
    struct locks *locks = test_calloc(1, sizeof(*locks));
    assert_int_equal(ab_lock_init(&locks->kv, AB_RANK_KV, "kv"), 0);
    assert_int_equal(ab_lock_init(&locks->store, AB_RANK_STORE, "store"), 0);
    assert_int_equal(ab_lock_init(&locks->io, AB_RANK_IO, "io"), 0);
    *state = locks;
    return 0;
}

static int tear_down(void **state)
{
    struct locks *locks = *state;
    ab_lock_destroy(&locks->kv);
    ab_lock_destroy(&locks->store);
    ab_lock_destroy(&locks->io);
    test_free(locks);
    return 0;
}

/* run in a child; true if it was stopped by an assertion whose line contains all of the texts */
static bool stops(void (*run)(struct locks *), struct locks *locks, const char *a, const char *b)
{
    int ends[2];
    assert_int_equal(pipe(ends), 0);
    const pid_t child = fork();
    if (child == 0) {
        const struct rlimit no_core = {0, 0};
        (void)setrlimit(RLIMIT_CORE, &no_core);
        (void)signal(SIGABRT, SIG_DFL); /* cmocka's handler would go on with the next test */
        (void)dup2(ends[1], STDERR_FILENO);
        run(locks);
        _exit(0);
    }
    char text[1024] = {0};
    assert_int_equal(close(ends[1]), 0);
    size_t size = 0;
    for (;;) {
        const ssize_t got = read(ends[0], text + size, sizeof(text) - 1 - size);
        if (got <= 0) {
            break;
        }
        size += (size_t)got;
    }
    assert_int_equal(close(ends[0]), 0);
    int status = 0;
    assert_int_equal(waitpid(child, &status, 0), child);
    if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGABRT) {
        print_message("status %d: %s\n", status, text);
        return false;
    }
    return strstr(text, a) != NULL && strstr(text, b) != NULL;
}

static void ranks_upwards_are_fine(void **state)
{
    struct locks *locks = *state;
    assert_true(ab_lock_none_held());
    ab_lock_take(&locks->kv);
    ab_lock_take(&locks->store);
    ab_lock_take(&locks->io);
    assert_true(ab_lock_held(&locks->kv) && ab_lock_held(&locks->io));
    ab_lock_drop(&locks->kv); /* any order of dropping */
    assert_false(ab_lock_held(&locks->kv));
    assert_true(ab_lock_held(&locks->store));
    ab_lock_drop(&locks->io);
    ab_lock_take(&locks->io);
    ab_lock_drop(&locks->io);
    ab_lock_drop(&locks->store);
    assert_true(ab_lock_none_held());
}

static void take_downwards(struct locks *locks)
{
    ab_lock_take(&locks->store);
    ab_lock_take(&locks->kv);
}

static void take_twice(struct locks *locks)
{
    ab_lock_take(&locks->io);
    ab_lock_take(&locks->io);
}

static void take_below_the_middle(struct locks *locks)
{
    ab_lock_take(&locks->kv);
    ab_lock_take(&locks->io);
    ab_lock_drop(&locks->kv); /* io is still held */
    ab_lock_take(&locks->store);
}

static void take_below_a_tried_one(struct locks *locks)
{
    if (ab_lock_try(&locks->io)) {
        ab_lock_take(&locks->kv);
    }
}

static void drop_a_free_one(struct locks *locks)
{
    ab_lock_take(&locks->kv);
    ab_lock_drop(&locks->io);
}

static void inversions_stop_a_debug_build(void **state)
{
    struct locks *locks = *state;
    assert_true(stops(take_downwards, locks, "'kv' (2)", "'store' (4)"));
    assert_true(stops(take_twice, locks, "'io'", "lock rank"));
    assert_true(stops(take_below_the_middle, locks, "'store'", "'io'"));
    assert_true(stops(take_below_a_tried_one, locks, "'kv'", "'io'"));
    assert_true(stops(drop_a_free_one, locks, "does not hold", "broken promise"));
}

static void try_is_free_of_ranks(void **state)
{
    struct locks *locks = *state;
    ab_lock_take(&locks->io);
    assert_true(ab_lock_try(&locks->kv)); /* cannot deadlock */
    assert_true(ab_lock_held(&locks->kv));
    assert_false(ab_lock_try(&locks->kv)); /* taken: no, and no undefined recursion */
    ab_lock_drop(&locks->kv);
    ab_lock_drop(&locks->io);
}

struct shared {
    struct ab_lock lock;
    struct ab_cond cond;
    uint64_t count;
    uint32_t turn; /* whose turn it is, of THREADS */
};

struct worker {
    struct shared *shared;
    uint32_t index;
};

static void *count_up(void *argument)
{
    struct shared *shared = ((struct worker *)argument)->shared;
    for (int i = 0; i < ROUNDS; i++) {
        ab_lock_take(&shared->lock);
        shared->count++;
        ab_lock_drop(&shared->lock);
    }
    return NULL;
}

static void *pass_the_turn(void *argument)
{
    const struct worker *worker = argument;
    struct shared *shared = worker->shared;
    for (int i = 0; i < ROUNDS / 20; i++) {
        ab_lock_take(&shared->lock);
        while (shared->turn != worker->index) {
            assert_true(ab_cond_wait(&shared->cond, &shared->lock, 0));
        }
        assert_true(ab_lock_held(&shared->lock));
        shared->turn = (shared->turn + 1) % THREADS;
        shared->count++;
        ab_cond_broadcast(&shared->cond);
        ab_lock_drop(&shared->lock);
    }
    return NULL;
}

static void run_threads(struct shared *shared, void *(*run)(void *))
{
    pthread_t threads[THREADS];
    struct worker workers[THREADS];
    for (uint32_t i = 0; i < THREADS; i++) {
        workers[i] = (struct worker){.shared = shared, .index = i};
        assert_int_equal(pthread_create(&threads[i], NULL, run, &workers[i]), 0);
    }
    for (uint32_t i = 0; i < THREADS; i++) {
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    }
}

static void threads_exclude_and_wake_each_other(void **state)
{
    (void)state;
    struct shared shared = {0};
    assert_int_equal(ab_lock_init(&shared.lock, AB_RANK_QUEUE, "shared"), 0);
    assert_int_equal(ab_cond_init(&shared.cond), 0);
    run_threads(&shared, count_up);
    assert_int_equal(shared.count, THREADS * ROUNDS);
    shared.count = 0;
    run_threads(&shared, pass_the_turn);
    assert_int_equal(shared.count, THREADS * (ROUNDS / 20));
    ab_cond_destroy(&shared.cond);
    ab_lock_destroy(&shared.lock);
}

static void a_deadline_ends_a_wait(void **state)
{
    struct locks *locks = *state;
    const struct ab_os *os = ab_os_default();
    struct ab_cond cond;
    assert_int_equal(ab_cond_init(&cond), 0);
    ab_cond_signal(&cond); /* nobody waits: not remembered */
    ab_lock_take(&locks->kv);
    const uint64_t deadline_ns = os->clock_ns(os) + 2000000;
    while (ab_cond_wait(&cond, &locks->kv, 2000000)) { /* woken for no reason: again */
    }
    assert_true(os->clock_ns(os) >= deadline_ns); /* not before the deadline */
    assert_true(ab_lock_held(&locks->kv));
    ab_lock_drop(&locks->kv);
    ab_cond_destroy(&cond);
}

struct visit {
    struct ab_lock *lock;
    atomic_bool came;
};

static void *visit_once(void *argument)
{
    struct visit *visit = argument;
    ab_lock_take(visit->lock);
    atomic_store(&visit->came, true);
    ab_lock_drop(visit->lock);
    return NULL;
}

/* A thread that only ever yields does not keep others out. */
static void a_yield_lets_others_in(void **state)
{
    struct locks *locks = *state;
    struct visit visit = {.lock = &locks->kv};
    pthread_t thread;
    ab_lock_take(&locks->kv);
    ab_lock_yield(&locks->kv); /* nobody waits: still ours */
    assert_true(ab_lock_held(&locks->kv));
    assert_int_equal(pthread_create(&thread, NULL, visit_once, &visit), 0);
    for (uint64_t i = 0; i < 1000000000 && !atomic_load(&visit.came); i++) {
        assert_true(ab_lock_held(&locks->kv));
        ab_lock_yield(&locks->kv);
    }
    assert_true(atomic_load(&visit.came));
    ab_lock_drop(&locks->kv);
    assert_int_equal(pthread_join(thread, NULL), 0);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(ranks_upwards_are_fine), TEST(inversions_stop_a_debug_build),
        TEST(try_is_free_of_ranks),   cmocka_unit_test(threads_exclude_and_wake_each_other),
        TEST(a_deadline_ends_a_wait), TEST(a_yield_lets_others_in),
    };
    return cmocka_run_group_tests_name("lock", tests, NULL, NULL);
}
