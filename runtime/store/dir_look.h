/*
 * dir_look.h - what is in the directories that were given: a store, nothing, or something else?
 */
#ifndef AB_STORE_DIR_LOOK_H
#define AB_STORE_DIR_LOOK_H

#include "store/store_state.h"

/* Reads names and superblocks, touches nothing. 0: they are all directories of one store, or
 * (*ret_make) one has to be made there and `create` allows it. Else the reason, which is logged with
 * its mend. */
int ab_dirs_look(struct ab_store *store, bool create, bool *ret_make) AB_MUST_CHECK;

#endif
