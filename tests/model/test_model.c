/*
 * test_model.c - random operations of every face against a small, obvious reference model.
 *
 * Goal: whatever order of calls a host makes, abode answers as the model does, and every byte that it
 * gives back is the byte that was put in. Method: the model keeps, for each session, the list of its
 * tokens (random numbers) and what was acknowledged; the bytes of token t in component c are a
 * function of (token number, position, c), so that forks, truncates and shared prefixes need no copies to
 * check. Memory holds a fraction of the state, so that eviction, spill and restore happen all the
 * time; every few thousand operations the runtime is closed and opened again.
 *
 * Each run prints its seed: ABODE_TEST_SEED=N repeats it (its choices, not its timing).
 * ABODE_TEST_OPS=N sets the length (default 100,000; 10,000,000 with ABODE_LONG=1), ABODE_TEST_IO the
 * engine (1 io_uring, 2 threads, 3 sync). 100,000 take about 16 s of CPU; on two cores at a
 * load of 18 they took two minutes. With a sanitizer it is more: test timeout: 900 s.
 */
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "front/front.h"
#include "kv/valid.h"

#include "world.h"

#define INSIDE_EVERY 16
#define REOPEN_EVERY 5000 /* on average */

static void reopen(void)
{
    model_close();
    model_open();
    model_sessions_refind();
    model_items_refind();
    world.reopened++;
}

/* between operations nothing is in flight but own spills and compaction: then it is not looked */
static void check_inside(void)
{
    struct ab_kv *kv = world.runtime->kv;
    uint32_t index = 0;
    const char *wrong = NULL;
    ab_lock_take(&kv->lock);
    if (ab_list_is_empty(&kv->transfer->active) && kv->transfer->in_flight == 0) {
        wrong = ab_kv_invalid(kv, &index);
    }
    ab_lock_drop(&kv->lock);
    if (wrong != NULL) {
        FAIL("block %u: %s", index, wrong);
    }
}

static const struct operation {
    uint32_t weight;
    void (*run)(void);
} OPERATIONS[] = {
    {80, model_create},       {20, model_create_from_prefix},
    {20, model_find},         {600, model_append},
    {240, model_snapshot},    {240, model_detach},
    {240, model_attach},      {80, model_many},
    {80, model_fork},         {80, model_truncate},
    {70, model_delete},       {120, model_note},
    {80, model_stat},         {60, model_advise},
    {1, model_flush},         {1, model_report},
    {120, model_put},         {160, model_get},
    {40, model_cache_delete}, {20, model_touch},
    {10, model_events},
};

static void step(void)
{
    const size_t count = sizeof(OPERATIONS) / sizeof(OPERATIONS[0]);
    uint32_t total = 0;
    for (size_t i = 0; i < count; i++) {
        total += OPERATIONS[i].weight;
    }
    uint32_t at = model_below(total);
    for (size_t i = 0; i < count; i++) {
        if (at < OPERATIONS[i].weight) {
            OPERATIONS[i].run();
            return;
        }
        at -= OPERATIONS[i].weight;
    }
}

static void set_up(void)
{
    const char *root = getenv("TMPDIR") != NULL ? getenv("TMPDIR") : "/tmp";
    (void)snprintf(world.directory, sizeof(world.directory), "%.40s/abode-model-XXXXXX", root);
    if (mkdtemp(world.directory) == NULL ||
        posix_memalign((void **)&world.memory, 4096, 5 * 65536) != 0 ||
        posix_memalign((void **)&world.planes, 4096, PLANAR_FRAMES * 16384) != 0) {
        FAIL("cannot set up");
    }
}

static void tear_down(void)
{
    char command[128];
    (void)snprintf(command, sizeof(command), "rm -rf '%s'", world.directory);
    EXPECT(system(command) == 0);
    free(world.memory);
    free(world.planes);
}

int main(void)
{
    setvbuf(stdout, NULL, _IOLBF, 0);
    world.seed = model_number_from("ABODE_TEST_SEED", (uint64_t)time(NULL));
    const char *sanitizer = getenv("ABODE_SANITIZE");
    bool is_slow = sanitizer != NULL && sanitizer[0] != '\0';
    uint64_t usual = getenv("ABODE_LONG") != NULL ? 10000000 : is_slow ? 20000 : 100000;
    uint64_t operations = model_number_from("ABODE_TEST_OPS", usual);
    world.random = world.seed;
    printf("seed %" PRIu64 ", %" PRIu64 " operations\n", world.seed, operations);
    set_up();
    model_open();
    for (world.operations = 0; world.operations < operations; world.operations++) {
        step();
        if (world.operations % INSIDE_EVERY == 0) {
            check_inside();
        }
        if (model_below(REOPEN_EVERY) == 0) {
            reopen();
        }
    }
    model_close();
    tear_down();
    printf("%" PRIu64 " attaches, %" PRIu64 " prefixes found, %" PRIu64
           " returns to older points (%" PRIu64 " waited for), %" PRIu64 " restarts\n",
           world.attaches, world.prefixes, world.returns, world.recalls, world.reopened);
    printf("%" PRIu64 " MiB checked, %" PRIu64 " blocks evicted, %" PRIu64 " MiB restored\n",
           world.checked_bytes >> 20, world.evicted, world.restored >> 20);
    printf("reliability: R14 %" PRIu64 " operations of all faces against a model; seed %" PRIu64
           "; 0 violations\n",
           operations, world.seed);
    printf("1 passed, 0 failed, 0 skipped\n");
    return 0;
}
