/*
 * front.h - the runtime behind abode.h, as tests and the other files of front see it.
 */
#ifndef AB_FRONT_FRONT_H
#define AB_FRONT_FRONT_H

#include <abode/abode.h>

#include "kv/cache.h"
#include "kv/session.h"
#include "kv/transfer.h"

#define AB_SUPPORT_TEXT_MAX 256

struct abode {
    const struct ab_os *os; /* &patient.os */
    struct ab_os_patient patient;
    struct ab_poison poison;
    struct ab_log log;
    uint64_t journal_tail_min;         /* of ab_store_config */
    struct abode_config config;        /* checked, defaults filled; store_paths points to `paths` */
    char *paths[AB_STORE_DEVICES_MAX]; /* copies */
    struct ab_topology *topology;
    struct ab_store *store; /* NULL: memory only */
    struct ab_kv *kv;
    struct ab_lock lock; /* rank RUNTIME: what follows */
    bool in_turn; /* a model_add or region_add is running: one at a time, with no lock held */
    struct ab_cond turn_over;
    char texts[5][AB_SUPPORT_TEXT_MAX]; /* of abode_support, under lock */
};

/* As abode_open, over another table of syscalls. Tests fail them one by one. */
int ab_open_with_os(const struct abode_config *config, const struct ab_os *os,
                    struct abode **ret) AB_MUST_CHECK;
/* The same, and the journal is checkpointed once it is so long (0: as usual). A test that has little
 * to say would never see a checkpoint else. */
int ab_open_with_tail(const struct abode_config *config, const struct ab_os *os,
                      uint64_t journal_tail_min, struct abode **ret) AB_MUST_CHECK;

/* config.c: copy what the caller's size has, check bounds, fill defaults; the log says what is off */
int ab_config_take(const struct abode_config *from, struct abode_config *ret) AB_MUST_CHECK;
/* node_mask, block_count_max: what needs the topology */
int ab_config_fit(const struct ab_topology *topology, const struct ab_log *log,
                  struct abode_config *config) AB_MUST_CHECK;

/* Calls that take their time, and log, go one after the other. */
void ab_turn_take(struct abode *runtime);
void ab_turn_give(struct abode *runtime);

/* Every public call on a runtime begins and ends with these. */
static inline int ab_enter(struct abode *runtime, struct ab_poison **ret_before)
{
    if (runtime == NULL) {
        return -EINVAL;
    }
    if (ab_poisoned(&runtime->poison) || ab_forked(&runtime->poison)) {
        return -ENOTRECOVERABLE;
    }
    *ret_before = ab_poison_enter(&runtime->poison);
    return 0;
}

static inline int ab_leave(struct abode *runtime, struct ab_poison *before, int status)
{
    (void)ab_poison_enter(before);
    return ab_poisoned(&runtime->poison) ? -ENOTRECOVERABLE : status;
}

#endif
