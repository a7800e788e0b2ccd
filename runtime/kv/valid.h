/*
 * valid.h - is everything that kv believes consistent? For AB_ASSERT_FULL and tests; slow.
 */
#ifndef AB_KV_VALID_H
#define AB_KV_VALID_H

#include "kv/kv.h"

/* NULL: consistent; else what is not, static text. Lock KV held, nothing in flight. */
const char *ab_kv_invalid(struct ab_kv *kv, uint32_t *ret_index);

#endif
