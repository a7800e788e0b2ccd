/*
 * list.h - doubly linked intrusive list, with the head as sentinel. Header only. Not thread-safe.
 */
#ifndef AB_BASE_LIST_H
#define AB_BASE_LIST_H

#include <stdbool.h>
#include <stddef.h>

#include "base/num.h"

struct ab_list {
    struct ab_list *next, *prev;
};

static inline void ab_list_init(struct ab_list *head)
{
    head->next = head;
    head->prev = head;
}

static inline bool ab_list_is_empty(const struct ab_list *head)
{
    return head->next == head;
}

static inline bool ab_list_is_linked(const struct ab_list *node)
{
    return node->next != NULL && node->next != node;
}

static inline void ab_list_insert_between(struct ab_list *node, struct ab_list *prev,
                                          struct ab_list *next)
{
    node->prev = prev;
    node->next = next;
    prev->next = node;
    next->prev = node;
}

static inline void ab_list_push_back(struct ab_list *head, struct ab_list *node)
{
    ab_list_insert_between(node, head->prev, head);
}

static inline void ab_list_push_front(struct ab_list *head, struct ab_list *node)
{
    ab_list_insert_between(node, head, head->next);
}

/* leaves node as an empty list of its own: removing twice is harmless */
static inline void ab_list_remove(struct ab_list *node)
{
    node->prev->next = node->next;
    node->next->prev = node->prev;
    ab_list_init(node);
}

static inline struct ab_list *ab_list_pop_front(struct ab_list *head)
{
    struct ab_list *node = head->next;
    if (node == head) {
        return NULL;
    }
    ab_list_remove(node);
    return node;
}

/* move all of source behind head's last; source is empty afterwards */
static inline void ab_list_splice_back(struct ab_list *head, struct ab_list *source)
{
    if (ab_list_is_empty(source)) {
        return;
    }
    source->next->prev = head->prev;
    head->prev->next = source->next;
    source->prev->next = head;
    head->prev = source->prev;
    ab_list_init(source);
}

#define ab_list_entry(node, type, member) ab_container_of(node, type, member)
#define ab_list_for_each(node, head) \
    for (struct ab_list *node = (head)->next; node != (head); node = node->next)

#endif
