/*
 * refuse.h - real seccomp filters, made by hand: what a container runtime would install.
 */
#ifndef FAULT_REFUSE_H
#define FAULT_REFUSE_H

#include <stdint.h>

#define REFUSE_RULES_MAX 8u

struct refuse_rule { /* one system call that is refused */
    uint32_t call;
    uint32_t flag; /* 0: always; else when this bit is set in the third argument (openat) */
    int error;
};
/* For this process and its children, for good. 0 or -errno. */
int refuse(const struct refuse_rule *rules, uint32_t rule_count);

#endif
