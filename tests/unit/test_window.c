/*
 * test_window.c - WINDOW components: what slides out gives its memory back, what a position needs
 * stays.
 *
 * Goal: a session that goes on for long, after a restore or from one restore point to the next,
 * holds windows and not all of its rows; every position that can be restored has its window, byte
 * for byte, also after another open; one that has lost its window is not a restore point. Method:
 * models whose window component has few frames, far fewer than the rows that are appended.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <unistd.h>
// clang-format off
#include <cmocka.h>
// clang-format on

#include "api_fixture.h"

enum { PAGED, WINDOW, STATE };
enum {
    LENGTH = 8,            /* tokens of a row */
    TOKEN_BYTES = 64,      /* of either component */
    REACH = 32,            /* tokens of the window */
    FRAME_BYTES = 4096,    /* a block is smaller */
    FRAMES = 16,           /* of the window component: two windows and some */
    FRAMES_OF_POINTS = 40, /* one more for each point that is kept */
    FAR = 100 * LENGTH,    /* tokens: more rows than there are frames */
    TRIES = 20000,
};

static unsigned char byte_of(uint32_t component, uint64_t token)
{
    return (unsigned char)(1 + (token * 7 + component * 131) % 251);
}

static void model_declare(struct api *api, bool points, uint32_t *ret_model)
{
    static const struct abode_plane plane[] = {{LENGTH * TOKEN_BYTES, 0}};
    const struct abode_component parts[] = {
        {.kind = ABODE_PAGED, .plane_count = 1, .planes = plane},
        {.kind = ABODE_WINDOW,
         .plane_count = 1,
         .planes = plane,
         .window_tokens = REACH,
         .memory_bytes = (uint64_t)(points ? FRAMES_OF_POINTS : FRAMES) * FRAME_BYTES},
        {.kind = ABODE_BYTES,
         .snapshots_kept = 4,
         .bytes_max = 64,
         .memory_bytes = FRAMES * FRAME_BYTES},
    };
    const struct abode_model_desc desc = {.struct_size = sizeof(desc),
                                          .component_count = points ? 3 : 2,
                                          .components = parts,
                                          .block_tokens = LENGTH,
                                          .session_tokens_max = 16 * FAR,
                                          .tag = "window"};
    assert_int_equal(abode_model_add(api->runtime, &desc, ret_model), 0);
}

static uint32_t window_open(struct api *api, bool points)
{
    uint32_t model = 0;
    api->hybrid_bytes = 0;
    api->paged_bytes = 0;
    api_open(api);
    model_declare(api, points, &model);
    return model;
}

/* A row at a time, as a model decodes. */
static void append(struct api *api, struct abode_session session, uint32_t tokens)
{
    for (uint32_t end = 0; end < tokens; end += LENGTH) {
        struct abode_span spans[4];
        int used = -EAGAIN;
        for (uint32_t tries = 0; used == -EAGAIN && tries < TRIES; tries++) {
            used = abode_append_reserve(api->runtime, session, LENGTH, spans, 4);
            if (used == -EAGAIN) {
                (void)usleep(100);
            }
        }
        assert_in_range(used, 2, 4);
        for (int i = 0; i < used; i++) {
            for (uint32_t t = spans[i].token_first; t < spans[i].token_first + spans[i].token_count;
                 t++) {
                memset(spans[i].base + (size_t)t * TOKEN_BYTES,
                       byte_of(spans[i].component, (uint64_t)spans[i].row * LENGTH + t),
                       TOKEN_BYTES);
            }
        }
        assert_int_equal(abode_append_commit(api->runtime, session, LENGTH, NULL, 0), 0);
    }
}

static void point(struct api *api, struct abode_session session)
{
    const uint64_t at = api_tokens(api, session);
    void *bytes = NULL;
    int status = -EAGAIN;
    for (uint32_t tries = 0; status == -EAGAIN && tries < TRIES; tries++) {
        status = abode_snapshot_reserve(api->runtime, session, STATE, sizeof(at), &bytes);
        if (status == -EAGAIN) {
            (void)usleep(100);
        }
    }
    assert_int_equal(status, 0);
    memcpy(bytes, &at, sizeof(at));
    assert_int_equal(abode_snapshot_commit(api->runtime, session, STATE), 0);
}

/* Every PAGED row, and of the window the rows that the next token looks at. */
static void check(struct api *api, struct abode_session session, uint64_t tokens)
{
    assert_int_equal(api_tokens(api, session), tokens);
    for (uint32_t c = PAGED; c <= WINDOW; c++) {
        struct abode_view view = {.struct_size = sizeof(view)};
        assert_int_equal(abode_session_view(api->runtime, session, c, &view), 0);
        const uint64_t first = c == WINDOW && tokens > REACH ? tokens - REACH : 0;
        for (uint64_t token = first; token < tokens; token++) {
            const uint32_t frame = view.frames[token / LENGTH];
            assert_int_not_equal(frame, ABODE_FRAME_NONE);
            const unsigned char *const bytes =
                view.base + frame * view.frame_stride + token % LENGTH * TOKEN_BYTES;
            assert_int_equal(bytes[0], byte_of(c, token));
            assert_int_equal(bytes[TOKEN_BYTES - 1], byte_of(c, token));
        }
    }
}

/* The window that a restore brought back belongs to the committed record until the next detach:
 * what is appended behind it must slide all the same. */
static void a_restored_session_goes_on_far_beyond_its_window(void **state)
{
    struct api *api = *state;
    uint32_t model = window_open(api, false);
    struct abode_session session = api_create(api, model, 1);
    append(api, session, 5 * LENGTH);
    uint64_t tokens = 5 * LENGTH;
    for (uint32_t turn = 0; turn < 3; turn++) {
        assert_int_equal(api_detach(api, session, 0), 0);
        assert_int_equal(api_attach(api, session, 0), 0);
        check(api, session, tokens);
        append(api, session, FAR);
        tokens += FAR;
        check(api, session, tokens);
    }
    /* back to what was committed: its window is there; into what slid out since: it is not */
    assert_int_equal(api_truncate(api, session, tokens - FAR / 2), -EINVAL);
    check(api, session, tokens);
    assert_int_equal(api_truncate(api, session, tokens - FAR), 0);
    check(api, session, tokens - FAR);
    append(api, session, FAR);
    assert_int_equal(api_detach(api, session, 0), 0);
    api_close(api);
    (void)window_open(api, false);
    session = api_find(api, 1);
    assert_int_equal(api_attach(api, session, 0), 0);
    check(api, session, tokens);
    struct api_damage damage;
    assert_int_equal(api_verify(api, &damage), 0);
}

/* Between two restore points nobody needs the rows: they leave a hole, which is stored as one. */
static void from_one_restore_point_far_to_the_next(void **state)
{
    struct api *api = *state;
    uint32_t model = window_open(api, true);
    struct abode_session session = api_create(api, model, 1);
    for (uint32_t i = 1; i <= 4; i++) {
        append(api, session, FAR);
        point(api, session);
    }
    check(api, session, 4 * FAR);
    assert_int_equal(api_detach(api, session, 0), 0);
    api_close(api);
    model = window_open(api, true);
    session = api_find(api, 1);
    assert_int_equal(api_attach(api, session, 0), 0);
    check(api, session, 4 * FAR);
    append(api, session, FAR); /* the points of the committed record are needed meanwhile */
    assert_int_equal(api_truncate(api, session, 4 * FAR + LENGTH), -EINVAL);
    for (uint32_t i = 3; i >= 1; i--) { /* each older one is whole, its window included */
        assert_int_equal(api_truncate(api, session, (uint64_t)i * FAR), 0);
        assert_int_equal(api_detach(api, session, 0), 0);
        assert_int_equal(api_attach(api, session, 0), 0);
        check(api, session, (uint64_t)i * FAR);
    }
    assert_int_equal(api_detach(api, session, 0), 0);
    api_close(api);
    (void)window_open(api, true);
    session = api_find(api, 1);
    assert_int_equal(api_attach(api, session, 0), 0);
    check(api, session, FAR);
}

/* A fork at an older point takes that point's window along, and holes are nobody's. */
static void a_fork_has_the_window_of_its_position(void **state)
{
    struct api *api = *state;
    struct abode_session child;
    uint32_t model = window_open(api, true);
    struct abode_session session = api_create(api, model, 1);
    for (uint32_t i = 1; i <= 2; i++) {
        append(api, session, FAR);
        point(api, session);
    }
    assert_int_equal(abode_session_fork(api->runtime, session, FAR, NULL, &child), 0);
    assert_int_equal(abode_session_delete(api->runtime, session), 0);
    check(api, child, FAR);
    append(api, child, FAR);
    check(api, child, 2 * FAR);
    assert_int_equal(abode_session_delete(api->runtime, child), 0);
}

/* Flip a byte of a row that is stored. Its content is nobody else's in a session of less than 38
 * rows: byte_of has the same run of bytes for the other component 38 rows before. */
static void corrupt(const struct api *api, uint32_t component, uint32_t row)
{
    unsigned char bytes[LENGTH * TOKEN_BYTES];
    for (uint32_t t = 0; t < LENGTH; t++) {
        memset(bytes + (size_t)t * TOKEN_BYTES, byte_of(component, (uint64_t)row * LENGTH + t),
               TOKEN_BYTES);
    }
    api_corrupt(api, bytes, sizeof(bytes));
}

/* Points at rows 10, 20 and 30, whose windows are the four rows before; without points one detach
 * at the end. The rows lost, of `component`, and what an attach with PREFIX_OK is left with. */
static const struct loss {
    bool points;
    uint32_t rows; /* of the session */
    uint32_t component, lost_count, lost[3];
    uint32_t rows_left;
} losses[] = {
    {true, 30, WINDOW, 1, {26}, 20},
    {true, 30, WINDOW, 1, {29}, 20},
    {true, 30, WINDOW, 2, {27, 18}, 10}, /* the next older one is not whole either */
    {true, 30, WINDOW, 3, {29, 16, 9}, 0},
    {true, 30, PAGED, 1, {22}, 20},  /* outside of every window */
    {true, 10, WINDOW, 1, {8}, 0},   /* no older one */
    {false, 30, WINDOW, 1, {28}, 0}, /* the window of any shorter position has slid out */
    {false, 4, WINDOW, 1, {2}, 2},   /* nothing has slid out: all before it is whole */
};

static void lose(struct api *api, const struct loss *loss)
{
    uint32_t model = window_open(api, loss->points);
    struct abode_session session = api_create(api, model, 1);
    for (uint32_t row = 0; row < loss->rows;) {
        const uint32_t step = loss->points ? 10 : loss->rows;
        append(api, session, step * LENGTH);
        row += step;
        if (loss->points) {
            point(api, session);
        }
    }
    assert_int_equal(api_detach(api, session, ABODE_DETACH_SPILL_NOW), 0);
    api_close(api);
    for (uint32_t i = 0; i < loss->lost_count; i++) {
        corrupt(api, loss->component, loss->lost[i]);
    }
}

static void verify_names_it(struct api *api, const struct loss *loss)
{
    struct api_damage damage;
    assert_int_equal(api_verify(api, &damage), loss->lost_count);
    assert_int_equal(damage.first.component, loss->component);
    assert_int_equal(damage.first.token_count, LENGTH);
    bool named = false;
    for (uint32_t i = 0; i < loss->lost_count; i++) {
        named |= damage.first.token_first == (uint64_t)loss->lost[i] * LENGTH;
    }
    assert_true(named);
}

static void one_loss(const struct loss *loss, bool verify)
{
    struct api *api;
    struct api_damage damage;
    assert_int_equal(api_up((void **)&api), 0);
    lose(api, loss);
    (void)window_open(api, loss->points);
    struct abode_session session = api_find(api, 1);
    if (verify) {
        verify_names_it(api, loss);
    }
    for (uint32_t again = 0; again < 2; again++) { /* refused, and refused again: nothing moved */
        assert_int_equal(api_attach(api, session, 0), -ABODE_ECORRUPT);
        assert_int_equal(api_stat(api, session).attached, 0);
        assert_int_equal(api_tokens(api, session), loss->rows * LENGTH);
    }
    assert_int_equal(api_attach(api, session, ABODE_ATTACH_PREFIX_OK), -ABODE_EPARTIAL);
    check(api, session, (uint64_t)loss->rows_left * LENGTH);
    append(api, session, 10 * LENGTH); /* and goes on from there */
    if (loss->points) {
        point(api, session);
    }
    assert_int_equal(api_detach(api, session, ABODE_DETACH_SPILL_NOW), 0);
    api_close(api);
    (void)window_open(api, loss->points);
    session = api_find(api, 1);
    assert_int_equal(api_attach(api, session, 0), 0);
    check(api, session, (uint64_t)(loss->rows_left + 10) * LENGTH);
    assert_int_equal(api_verify(api, &damage), 0); /* nobody names the bad ones any more */
    assert_int_equal(api_down((void **)&api), 0);
}

static void a_lost_window_gives_the_older_point_or_a_miss(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(losses) / sizeof(*losses); i++) {
        one_loss(&losses[i], false);
        one_loss(&losses[i], true);
    }
}

/* The newest point needs nothing of the older one's window: that one alone is lost. */
static void a_lost_window_of_an_older_point_is_that_point_s(void **state)
{
    static const struct loss older = {true, 30, WINDOW, 1, {18}, 30};
    struct api *api = *state;
    lose(api, &older);
    (void)window_open(api, true);
    struct abode_session session = api_find(api, 1);
    assert_int_equal(api_attach(api, session, 0), 0);
    check(api, session, 30 * LENGTH);
    assert_int_equal(api_truncate(api, session, 20 * LENGTH), -ABODE_ECORRUPT);
    check(api, session, 30 * LENGTH);
    assert_int_equal(api_truncate(api, session, 10 * LENGTH), 0);
    check(api, session, 10 * LENGTH);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, api_up, api_down)
    const struct CMUnitTest tests[] = {
        TEST(a_restored_session_goes_on_far_beyond_its_window),
        TEST(from_one_restore_point_far_to_the_next),
        TEST(a_fork_has_the_window_of_its_position),
        cmocka_unit_test(a_lost_window_gives_the_older_point_or_a_miss),
        TEST(a_lost_window_of_an_older_point_is_that_point_s),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
