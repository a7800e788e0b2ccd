/*
 * test_list.c - goal: a list stays a ring through every operation, in the right order. Method: each
 * operation on lists of none, one and several, then read forwards and backwards.
 */
#include "base/list.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>

#include <cmocka.h>

struct item {
    int number;
    struct ab_list link;
};

/* the list reads as the decimal digits of `wanted`, both ways round */
static void assert_list(const struct ab_list *head, int wanted)
{
    int forwards = 0;
    int backwards = 0;
    int power = 1;
    ab_list_for_each (node, head) {
        forwards = forwards * 10 + ab_list_entry(node, struct item, link)->number;
        assert_ptr_equal(node->next->prev, node);
    }
    for (const struct ab_list *node = head->prev; node != head; node = node->prev) {
        backwards += power * ab_list_entry(node, struct item, link)->number;
        power *= 10;
    }
    assert_int_equal(forwards, wanted);
    assert_int_equal(backwards, wanted);
    assert_int_equal(ab_list_is_empty(head), wanted == 0);
}

static void items_init(struct item *items, int count)
{
    for (int i = 0; i < count; i++) {
        items[i].number = i + 1;
        ab_list_init(&items[i].link);
    }
}

static void push_and_pop_keep_order(void **state)
{
    (void)state;
    struct item items[4];
    struct ab_list head;
    items_init(items, 4);
    ab_list_init(&head);
    assert_list(&head, 0);
    assert_null(ab_list_pop_front(&head));
    ab_list_push_back(&head, &items[0].link);
    assert_list(&head, 1);
    ab_list_push_back(&head, &items[1].link);
    ab_list_push_front(&head, &items[2].link);
    ab_list_push_front(&head, &items[3].link);
    assert_list(&head, 4312);
    assert_ptr_equal(ab_list_pop_front(&head), &items[3].link);
    assert_false(ab_list_is_linked(&items[3].link));
    assert_list(&head, 312);
}

static void remove_anywhere_and_twice(void **state)
{
    (void)state;
    struct item items[4];
    struct ab_list head;
    items_init(items, 4);
    ab_list_init(&head);
    for (int i = 0; i < 4; i++) {
        assert_false(ab_list_is_linked(&items[i].link));
        ab_list_push_back(&head, &items[i].link);
        assert_true(ab_list_is_linked(&items[i].link));
    }
    ab_list_remove(&items[1].link);
    assert_list(&head, 134);
    ab_list_remove(&items[1].link); /* harmless */
    assert_list(&head, 134);
    ab_list_remove(&items[0].link);
    ab_list_remove(&items[3].link);
    assert_list(&head, 3);
    ab_list_remove(&items[2].link);
    assert_list(&head, 0);
    const struct ab_list zero = {0};
    assert_false(ab_list_is_linked(&zero)); /* zeroed memory is an unlinked node */
}

static void splice_moves_all(void **state)
{
    (void)state;
    struct item items[5];
    struct ab_list head;
    struct ab_list source;
    items_init(items, 5);
    ab_list_init(&head);
    ab_list_init(&source);
    ab_list_splice_back(&head, &source); /* nothing to nothing */
    assert_list(&head, 0);
    ab_list_push_back(&source, &items[0].link);
    ab_list_push_back(&source, &items[1].link);
    ab_list_splice_back(&head, &source); /* some to nothing */
    assert_list(&head, 12);
    assert_list(&source, 0);
    ab_list_splice_back(&head, &source); /* nothing to some */
    assert_list(&head, 12);
    ab_list_push_back(&source, &items[2].link);
    ab_list_splice_back(&head, &source); /* one to some */
    ab_list_push_back(&source, &items[3].link);
    ab_list_push_back(&source, &items[4].link);
    ab_list_splice_back(&head, &source);
    assert_list(&head, 12345);
    assert_list(&source, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(push_and_pop_keep_order),
        cmocka_unit_test(remove_anywhere_and_twice),
        cmocka_unit_test(splice_moves_all),
    };
    return cmocka_run_group_tests_name("list", tests, NULL, NULL);
}
