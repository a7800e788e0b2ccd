/*
 * event.c - keys that left the cache by themselves, until the host asks for them: a list a model, all
 * in one pool of bounded size. What finds no place, or has no key in memory, is counted as lost.
 */
#include <string.h>

#include "kv/cache.h"
#include "kv/session.h"

static uint32_t event_pop(struct ab_kv *kv, uint32_t model)
{
    struct ab_event_list *list = &kv->event_lists[model];
    uint32_t event = list->first;
    list->first = kv->events[event].next;
    list->count--;
    return event;
}

/* a free place; in a full pool that of the oldest event of the model that has most */
static uint32_t event_place(struct ab_kv *kv)
{
    uint32_t event = kv->event_free, most = 0;
    if (event != AB_INDEX_NONE) {
        kv->event_free = kv->events[event].next;
        return event;
    }
    if (kv->event_high < AB_EVENTS_MAX) {
        return kv->event_high++;
    }
    for (uint32_t m = 1; m < AB_MODELS_MAX; m++) {
        most = kv->event_lists[m].count > kv->event_lists[most].count ? m : most;
    }
    kv->event_lists[most].lost++;
    return event_pop(kv, most);
}

void ab_event_add(struct ab_kv *kv, uint32_t index)
{
    const struct ab_block *block = &kv->blocks[index];
    if (kv->events == NULL || (block->flags & AB_BLOCK_KEYED) == 0) {
        return;
    }
    static const struct abode_key unknown;
    struct ab_event_list *list = &kv->event_lists[block->component / ABODE_COMPONENTS_MAX];
    if (memcmp(&kv->keys[index], &unknown, sizeof(unknown)) == 0) {
        list->lost++; /* of before the last open, and not named since */
        return;
    }
    uint32_t event = event_place(kv);
    kv->events[event].key = kv->keys[index];
    if (list->count++ == 0) {
        list->first = event;
    } else {
        kv->events[list->last].next = event;
    }
    list->last = event;
}

void ab_block_found_bad(struct ab_kv *kv, uint32_t index)
{
    struct ab_block *block = &kv->blocks[index];
    const bool is_item = (block->flags & (AB_BLOCK_OWNED | AB_BLOCK_BAD)) == 0;
    ab_block_mark(block, AB_BLOCK_BAD); /* never given out */
    if (is_item) {
        ab_event_add(kv, index);
    }
}

int ab_cache_events(struct ab_kv *kv, uint32_t model, struct abode_key *ret_keys, uint32_t capacity,
                    uint64_t *ret_lost)
{
    if (kv->events == NULL) {
        return -ENOTSUP;
    }
    if (model >= AB_MODELS_MAX) {
        return -EINVAL;
    }
    uint32_t count = 0;
    ab_lock_take(&kv->lock);
    struct ab_event_list *list = &kv->event_lists[model];
    for (; list->count > 0 && count < capacity; count++) {
        uint32_t event = event_pop(kv, model);
        ret_keys[count] = kv->events[event].key;
        kv->events[event].next = kv->event_free;
        kv->event_free = event;
    }
    *ret_lost = list->lost;
    list->lost = 0;
    ab_lock_drop(&kv->lock);
    return (int)count;
}
