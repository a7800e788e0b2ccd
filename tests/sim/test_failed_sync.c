/*
 * test_failed_sync.c - a sync fails, another process opens the store while the power stays on.
 *
 * Goal: what the failed sync lost is in the page cache still and reads well, but no later sync will save
 * it. The next process must not promise it. Method: the simulated disk, which forgets as Linux does; a
 * commit that was not synced, kill -9, an open one of whose syncs fails, one that goes well and promises
 * DURABLE, a power cut. Then the store must open, and what was promised must be whole.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "front/front.h"
#include "sim/sim_host.h"

#define SEEDS 12u
#define SYNCS 8u    /* of an open and a detach */
#define CHANGES 10u /* of an open and a close */
#define CUT_SEEDS 5u
#define JOURNAL_TAIL (4u << 20)

struct scene {
    struct sim_disk disk;
    struct live_host host;
    struct live_state written, durable; /* of the two sessions */
};

static int scene_open(struct scene *scene)
{
    struct abode_config config;
    struct abode *runtime = NULL;
    int rc;

    scene->host = (struct live_host){0};
    sim_config_init(&config);
    rc = ab_open_with_tail(&config, &scene->disk.os, JOURNAL_TAIL, &runtime);
    return rc < 0 ? rc : live_host_open(runtime, 0, &scene->host);
}

static void scene_begin(struct scene *scene)
{
    memset(scene, 0, sizeof(*scene));
    sim_disk_init(&scene->disk);
    assert_int_equal(sim_store_mount(&scene->disk), 0);
    assert_int_equal(scene_open(scene), 0);
    assert_int_equal(live_host_close(&scene->host), 0);
    sim_disk_power_on(&scene->disk);
}

/* A new session, appended to and detached; 0: the store has said that it is so durable. */
static int session_keep(struct scene *scene, uint64_t name, uint32_t durability,
                        struct live_state *ret)
{
    struct abode_key key;
    struct abode_session session = {0};
    const struct abode_session_opts opts = {.struct_size = sizeof(opts),
                                            .model = scene->host.model,
                                            .home_node = -1,
                                            .durability = durability,
                                            .name = &key};
    int rc;

    memset(ret, 0, sizeof(*ret));
    live_key(name, &key);
    rc = abode_session_create(scene->host.runtime, &opts, &session);
    rc = rc < 0 ? rc : live_append(&scene->host, session, ret, 40, (uint32_t)name);
    rc = rc < 0 ? rc : live_snapshot(&scene->host, session, ret, (uint32_t)name);
    return rc < 0 ? rc : live_detach(&scene->host, session, 0);
}

/* kill -9: what it has not synced stays in limbo, and nothing that it does from now on arrives. */
static void die(struct scene *scene)
{
    sim_disk_power_cut(&scene->disk, 0);
    (void)live_host_close(&scene->host);
    sim_disk_process_died(&scene->disk);
    sim_disk_power_on(&scene->disk);
}

/* -ENOENT: it is not there */
static int session_check(struct scene *scene, uint64_t name, const struct live_state *state)
{
    struct abode_key key;
    struct abode_session session = {0};
    char why[LIVE_WHY_MAX];
    int rc;

    live_key(name, &key);
    rc = abode_session_find(scene->host.runtime, &key, &session);
    rc = rc < 0 ? rc : live_attach(&scene->host, session, -1, 0);
    return rc < 0 ? rc : live_compare(&scene->host, session, state, why, NULL);
}

/* 1: what was only WRITTEN is there, too */
static uint32_t play(uint64_t seed, uint32_t sync)
{
    static struct scene scene;
    const struct sim_plan fails = {
        .effect = SIM_ERROR, .when = SIM_SYNC, .nth = sync, .error = EIO, .times = 1, .seed = seed};
    bool is_kept = false;
    int rc;

    scene_begin(&scene);
    assert_int_equal(scene_open(&scene), 0);
    assert_int_equal(session_keep(&scene, 1, ABODE_WRITTEN, &scene.written), 0);
    die(&scene);
    sim_disk_plan(&scene.disk, fails);
    if (scene_open(&scene) == 0) {
        (void)session_keep(&scene, 2, ABODE_DURABLE, &scene.durable);
        (void)live_host_close(&scene.host);
    }
    sim_disk_power_on(&scene.disk); /* it was not off: what is in limbo stays there */
    assert_int_equal(scene_open(&scene), 0);
    assert_int_equal(session_keep(&scene, 3, ABODE_DURABLE, &scene.durable), 0);
    sim_disk_power_cut(&scene.disk, seed);
    (void)live_host_close(&scene.host);
    sim_disk_power_on(&scene.disk);
    assert_int_equal(scene_open(&scene), 0);
    assert_int_equal(session_check(&scene, 3, &scene.durable), 0);
    rc = session_check(&scene, 1, &scene.written);
    is_kept = rc == 0;
    assert_true(is_kept || rc == -ENOENT || rc == -ABODE_ECORRUPT);
    assert_int_equal(live_host_close(&scene.host), 0);
    sim_disk_free(&scene.disk);
    return is_kept;
}

static void what_a_failed_sync_lost_is_not_promised(void **state)
{
    (void)state;
    uint32_t kept = 0;

    for (uint32_t sync = 1; sync <= SYNCS; sync++) {
        for (uint64_t seed = 1; seed <= SEEDS; seed++) {
            kept += play(seed, sync);
        }
    }
    print_message("what was WRITTEN survived %u of %u times\n", kept, SYNCS * SEEDS);
}

/* An open that `plan` ends or spoils, then one that ends by a power cut at its m-th change: what is left
 * of the superblock's copies must be a superblock still. */
static void two_bad_opens(struct sim_plan plan, uint32_t second, uint64_t seed)
{
    static struct scene scene;
    const struct sim_plan cut = {.effect = SIM_CUT, .nth = second, .seed = seed};

    scene_begin(&scene);
    sim_disk_plan(&scene.disk, plan);
    if (scene_open(&scene) == 0) {
        (void)live_host_close(&scene.host);
    }
    sim_disk_process_died(&scene.disk); /* the power stays on */
    sim_disk_power_on(&scene.disk);
    sim_disk_plan(&scene.disk, cut);
    if (scene_open(&scene) == 0) {
        (void)live_host_close(&scene.host);
    }
    sim_disk_power_cut(&scene.disk, seed);
    sim_disk_power_on(&scene.disk);
    assert_int_equal(scene_open(&scene), 0);
    assert_int_equal(live_host_close(&scene.host), 0);
    sim_disk_free(&scene.disk);
}

static void a_superblock_that_was_not_synced_survives_a_cut(void **state)
{
    (void)state;
    for (uint32_t first = 1; first <= CHANGES; first++) {
        for (uint32_t second = 1; second <= CHANGES; second++) {
            for (uint64_t seed = 1; seed <= CUT_SEEDS; seed++) {
                two_bad_opens((struct sim_plan){.effect = SIM_CUT, .nth = first}, second, seed);
            }
        }
    }
}

static void a_superblock_whose_sync_failed_survives_a_cut(void **state)
{
    (void)state;
    for (uint32_t sync = 1; sync <= SYNCS; sync++) {
        for (uint32_t second = 1; second <= CHANGES; second++) {
            for (uint64_t seed = 1; seed <= CUT_SEEDS; seed++) {
                two_bad_opens((struct sim_plan){.effect = SIM_ERROR,
                                                .when = SIM_SYNC,
                                                .nth = sync,
                                                .error = EIO,
                                                .times = 1,
                                                .seed = seed},
                              second, seed);
            }
        }
    }
}

int main(void)
{
    const struct live_tuning tuning = {.is_small = true, .pause_ns = 50000};
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_a_failed_sync_lost_is_not_promised),
        cmocka_unit_test(a_superblock_that_was_not_synced_survives_a_cut),
        cmocka_unit_test(a_superblock_whose_sync_failed_survives_a_cut),
    };

    live_tune(&tuning);
    return cmocka_run_group_tests_name("failed sync", tests, NULL, NULL);
}
