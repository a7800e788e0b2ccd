/*
 * oracle.h - what a store may hold after a kill: lives in memory shared with the killed process.
 *
 * For each session name a row of versions, oldest first. A version is written down before the call
 * that could make it real, so that at any instant the store holds one of the row:
 *
 *     first                      count
 *       |                          |
 *      [A: promised] [B] [C] [gone] .      A: nothing older may come back
 *
 * When a promise is acknowledged, `first` moves to the version that it was made for: everything
 * older is then lost for good, everything newer is allowed but not owed. "Gone" is a version too:
 * a name before its first promise, and a deleted one; an op that promises DURABLE and was started
 * after the delete moves `first` to it. The same for cache items, with two bits instead of a row.
 *
 * The process under test writes, one thread; the parent reads when it is dead. Each change becomes
 * true by one store of an index, so a kill in between leaves the row whole.
 */
#ifndef CRASH_ORACLE_H
#define CRASH_ORACLE_H

#include <stdatomic.h>

#include "live.h"

#define ORACLE_NAMES 28u
#define ORACLE_VERSIONS 160u
#define ORACLE_ITEMS 64u
#define ORACLE_NOT_DELETED UINT64_MAX
#define ORACLE_EVENTS 24u
#define ORACLE_EVENT_BYTES 64u

struct oracle_version {
    uint64_t serial; /* never twice */
    bool gone;
    uint32_t durability;  /* of the session that this is a version of: names are used again */
    uint64_t delete_tick; /* gone by an acknowledged delete at this tick */
    struct live_state state;
};
struct oracle_name {
    _Atomic uint32_t first, count; /* versions[first .. count) are possible */
    uint32_t durability;           /* of the living session; versions pushed get it */
    struct oracle_version versions[ORACLE_VERSIONS];
    uint32_t event_count; /* what was done with it lately: for the report of a failure */
    char events[ORACLE_EVENTS][ORACLE_EVENT_BYTES];
};
/* PUT_AGAIN: a put was begun since the last promise: had the item left by itself, unheard, the store
 * may hold what that put wrote. */
enum oracle_item { ORACLE_ABSENT = 1, ORACLE_PRESENT = 2, ORACLE_PUT_AGAIN = 4 };
struct oracle {
    struct oracle_name names[ORACLE_NAMES];
    _Atomic uint32_t items[ORACLE_ITEMS]; /* enum oracle_item bits: what is possible */
    uint64_t tick;                        /* counts ops and deletes */
    uint32_t stamp_last;                  /* stamps never repeat */
    uint32_t life;                        /* counts processes */
};

/* What the oracle learns, as it does: for a listener that writes it down where a power cut leaves it,
 * so that another program can say what was possible then (tests/guest/power.c). */
enum oracle_event_kind {
    ORACLE_PUSHED = 1,   /* version; before the call that may make it real */
    ORACLE_POPPED,       /* the newest of the name was refused */
    ORACLE_PROMISED,     /* version.serial, by a session of `durability` */
    ORACLE_DELETED,      /* version.serial, acknowledged at tick */
    ORACLE_DELETES,      /* deletes before tick are durable */
    ORACLE_ITEM_MAYBE,   /* bits of item `name` that become possible too */
    ORACLE_ITEM_DURABLE, /* item `name` is there */
};
struct oracle_event {
    uint32_t kind, name, bits, durability;
    uint64_t tick;
    struct oracle_version version;
};
/* One for the process; NULL: none. */
void oracle_listen(struct oracle *oracle,
                   void (*listen)(void *context, const struct oracle_event *event), void *context);

/* Before first use, and for a fresh store: every name gone, every item absent. */
void oracle_reset(struct oracle *oracle);
/* Parent only, the child is dead: room for new versions. The last `history` of those that are no
 * longer possible stay in front of `first`. */
void oracle_compact(struct oracle *oracle, uint32_t history);
void oracle_name_compact(struct oracle_name *name);       /* indexes of versions change */
bool oracle_name_is_full(const struct oracle_name *name); /* a promise must come next */
/* Room for one more version; its index. state NULL: gone. */
uint32_t oracle_push(struct oracle_name *name, const struct live_state *state);
void oracle_promise(struct oracle_name *name, uint32_t version);
/* The delete that this version (gone) was pushed for is acknowledged. */
void oracle_deleted(struct oracle_name *name, uint32_t version, uint64_t tick);
/* More is possible of an item now; it is there for good. */
void oracle_item_maybe(struct oracle *oracle, uint32_t item, uint32_t bits);
void oracle_item_durable(struct oracle *oracle, uint32_t item);
/* An op that was started at this tick has promised DURABLE. */
void oracle_promise_deletes(struct oracle *oracle, uint64_t tick);
bool oracle_may_be_gone(const struct oracle_name *name);
/* Remember an event of this name; tell the last ones. */
void oracle_note(struct oracle *oracle, uint32_t name, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
void oracle_tell(const struct oracle *oracle, uint32_t name);
/* The call that the last push was for was refused: the version cannot come true. */
void oracle_pop(struct oracle_name *name);
/* This was read, and may be lost again; its index. */
uint32_t oracle_found(struct oracle_name *name, const struct oracle_version *version);
/* The store has been read, and holds this. */
void oracle_settle(struct oracle_name *name, const struct oracle_version *version);

#endif
