/*
 * test_error.c - goal: every code that the library returns has a text, and no code at all can crash
 * abode_strerror. Method: all codes of the X-macro, all errno values, the ends of int.
 */
#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#include "abode/abode.h"

static void own_codes_have_their_texts(void **state)
{
    (void)state;
#define X(name, value, text)                             \
    assert_string_equal(abode_strerror(-(value)), text); \
    assert_string_equal(abode_strerror(name), text);
    ABODE_ERRORS(X)
#undef X
    assert_string_equal(abode_strerror(5000), "unknown error");
    assert_string_equal(abode_strerror(-5009), "unknown error");
}

static void errno_values_have_the_system_texts(void **state)
{
    (void)state;
    assert_string_equal(abode_strerror(0), "success");
    assert_string_equal(abode_strerror(-EIO), "Input/output error");
    assert_string_equal(abode_strerror(ENOSPC), "No space left on device");
    assert_string_equal(abode_strerror(-ENOTRECOVERABLE), "State not recoverable");
    for (int code = 1; code < 5000; code++) {
        assert_non_null(abode_strerror(-code));
        assert_true(abode_strerror(-code)[0] != '\0');
    }
}

static void absurd_codes_are_unknown(void **state)
{
    (void)state;
    assert_string_equal(abode_strerror(INT_MIN), "unknown error");
    assert_string_equal(abode_strerror(INT_MAX), "unknown error");
    assert_string_equal(abode_strerror(-4095), "unknown error");
    assert_string_equal(abode_strerror(4096), "unknown error");
}

static void *ask_texts(void *argument)
{
    const char **text = argument;
    for (int i = 0; i < 10000; i++) {
        *text = abode_strerror(-9999);
        *text = abode_strerror(-EINVAL);
    }
    return NULL;
}

static void texts_are_static_in_every_thread(void **state)
{
    (void)state;
    pthread_t threads[4];
    const char *texts[4] = {0};
    for (int i = 0; i < 4; i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, ask_texts, &texts[i]), 0);
    }
    for (int i = 0; i < 4; i++) {
        assert_int_equal(pthread_join(threads[i], NULL), 0);
        assert_ptr_equal(texts[i], abode_strerror(-EINVAL));
    }
}

static void version_is_the_headers(void **state)
{
    (void)state;
    assert_int_equal(abode_version() >> 16, ABODE_VERSION_MAJOR);
    assert_int_equal(abode_version() >> 8 & 0xff, ABODE_VERSION_MINOR);
    assert_int_equal(abode_version() & 0xff, ABODE_VERSION_PATCH);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(own_codes_have_their_texts),
        cmocka_unit_test(errno_values_have_the_system_texts),
        cmocka_unit_test(absurd_codes_are_unknown),
        cmocka_unit_test(texts_are_static_in_every_thread),
        cmocka_unit_test(version_is_the_headers),
    };
    return cmocka_run_group_tests_name("error", tests, NULL, NULL);
}
