/* oracle.c - see oracle.h. */
#include "oracle.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static uint32_t first_of(const struct oracle_name *name)
{
    return atomic_load_explicit(&name->first, memory_order_relaxed);
}

static uint32_t count_of(const struct oracle_name *name)
{
    return atomic_load_explicit(&name->count, memory_order_relaxed);
}

static struct {
    struct oracle *oracle;
    void (*listen)(void *context, const struct oracle_event *event);
    void *context;
} listener;
static _Atomic uint64_t serial_last;

void oracle_listen(struct oracle *oracle,
                   void (*listen)(void *context, const struct oracle_event *event), void *context)
{
    listener.oracle = oracle;
    listener.listen = listen;
    listener.context = context;
}

static void tell(const struct oracle_name *name, struct oracle_event event)
{
    if (listener.listen != NULL) {
        if (name != NULL) {
            event.name = (uint32_t)(name - listener.oracle->names);
        }
        listener.listen(listener.context, &event);
    }
}

void oracle_reset(struct oracle *oracle)
{
    for (uint32_t index = 0; index < ORACLE_NAMES; index++) {
        struct oracle_name *name = &oracle->names[index];

        atomic_store(&name->first, 0);
        atomic_store(&name->count, 0);
        (void)oracle_push(name, NULL);
    }
    for (uint32_t index = 0; index < ORACLE_ITEMS; index++) {
        atomic_store(&oracle->items[index], ORACLE_ABSENT);
    }
}

static void name_compact(struct oracle_name *name, uint32_t history)
{
    uint32_t kept = first_of(name) < history ? first_of(name) : history;
    uint32_t gone = first_of(name) - kept, count = count_of(name) - gone;

    memmove(name->versions, name->versions + gone, count * sizeof(name->versions[0]));
    atomic_store(&name->first, kept);
    atomic_store(&name->count, count);
}

void oracle_name_compact(struct oracle_name *name)
{
    name_compact(name, 0);
}

void oracle_compact(struct oracle *oracle, uint32_t history)
{
    for (uint32_t index = 0; index < ORACLE_NAMES; index++) {
        name_compact(&oracle->names[index], history);
    }
}

bool oracle_name_is_full(const struct oracle_name *name)
{
    return count_of(name) + 4 > ORACLE_VERSIONS; /* one turn pushes at most 3, and settling one */
}

uint32_t oracle_push(struct oracle_name *name, const struct live_state *state)
{
    uint32_t count = count_of(name);
    struct oracle_version *version = &name->versions[count];

    if (count >= ORACLE_VERSIONS) {
        fprintf(stderr, "oracle: a row is too short\n");
        abort();
    }
    version->serial = atomic_fetch_add(&serial_last, 1) + 1;
    version->gone = state == NULL;
    version->durability = name->durability;
    version->delete_tick = ORACLE_NOT_DELETED;
    if (state != NULL) {
        version->state = *state;
    }
    tell(name, (struct oracle_event){.kind = ORACLE_PUSHED, .version = *version});
    atomic_store_explicit(&name->count, count + 1, memory_order_release);
    return count;
}

void oracle_pop(struct oracle_name *name)
{
    tell(name, (struct oracle_event){.kind = ORACLE_POPPED});
    atomic_store_explicit(&name->count, count_of(name) - 1, memory_order_release);
}

void oracle_promise(struct oracle_name *name, uint32_t version)
{
    if (version > first_of(name)) {
        atomic_store_explicit(&name->first, version, memory_order_release);
        tell(name, (struct oracle_event){.kind = ORACLE_PROMISED,
                                         .durability = name->durability,
                                         .version.serial = name->versions[version].serial});
    }
}

void oracle_deleted(struct oracle_name *name, uint32_t version, uint64_t tick)
{
    name->versions[version].delete_tick = tick;
    tell(name, (struct oracle_event){.kind = ORACLE_DELETED,
                                     .tick = tick,
                                     .version.serial = name->versions[version].serial});
}

void oracle_item_maybe(struct oracle *oracle, uint32_t item, uint32_t bits)
{
    (void)atomic_fetch_or(&oracle->items[item], bits);
    tell(NULL, (struct oracle_event){.kind = ORACLE_ITEM_MAYBE, .name = item, .bits = bits});
}

void oracle_item_durable(struct oracle *oracle, uint32_t item)
{
    (void)oracle;
    tell(NULL, (struct oracle_event){.kind = ORACLE_ITEM_DURABLE, .name = item});
}

void oracle_promise_deletes(struct oracle *oracle, uint64_t tick)
{
    tell(NULL, (struct oracle_event){.kind = ORACLE_DELETES, .tick = tick});
    for (uint32_t index = 0; index < ORACLE_NAMES; index++) {
        struct oracle_name *name = &oracle->names[index];

        for (uint32_t version = count_of(name); version-- > first_of(name);) {
            if (name->versions[version].gone && name->versions[version].delete_tick < tick) {
                oracle_promise(name, version);
            }
        }
    }
}

bool oracle_may_be_gone(const struct oracle_name *name)
{
    for (uint32_t version = first_of(name); version < count_of(name); version++) {
        if (name->versions[version].gone) {
            return true;
        }
    }
    return false;
}

uint32_t oracle_found(struct oracle_name *name, const struct oracle_version *version)
{
    /* a copy: the source may lie in the row itself */
    const struct oracle_version found = *version;
    uint32_t durability = found.durability;

    /* versions that look the same (empty ones): the store may hold the one that promised least */
    for (uint32_t index = first_of(name); !found.gone && index < count_of(name); index++) {
        const struct oracle_version *other = &name->versions[index];

        if (!other->gone && live_state_equal(&other->state, &found.state) &&
            other->durability < durability) {
            durability = other->durability;
        }
    }
    name->durability = durability;
    return oracle_push(name, found.gone ? NULL : &found.state);
}

void oracle_settle(struct oracle_name *name, const struct oracle_version *version)
{
    oracle_promise(name, oracle_found(name, version));
}

void oracle_note(struct oracle *oracle, uint32_t name, const char *format, ...)
{
    struct oracle_name *known = &oracle->names[name];
    char *event = known->events[known->event_count % ORACLE_EVENTS];
    int used = snprintf(event, ORACLE_EVENT_BYTES, "life %u tick %llu: ", oracle->life,
                        (unsigned long long)oracle->tick);
    va_list arguments;

    va_start(arguments, format);
    (void)vsnprintf(event + used, ORACLE_EVENT_BYTES - (size_t)used, format, arguments);
    va_end(arguments);
    known->event_count++;
}

void oracle_tell(const struct oracle *oracle, uint32_t name)
{
    const struct oracle_name *known = &oracle->names[name];
    uint32_t first = known->event_count > ORACLE_EVENTS ? known->event_count - ORACLE_EVENTS : 0;

    printf("name %u:\n", name);
    for (uint32_t event = first; event < known->event_count; event++) {
        printf("    %s\n", known->events[event % ORACLE_EVENTS]);
    }
}
