/*
 * demo_child.h - the parent's hold on one child host. See demo_child.c.
 */
#ifndef DEMO_CHILD_H
#define DEMO_CHILD_H

#include "demo.h"

#include <sys/types.h>

struct child {
    struct demo_task *task;
    struct demo_result *result;
    uint64_t start_ns; /* of the demo */
    uint64_t random;   /* state of the generator of kill delays */
    uint32_t kills_wanted;
    /* of the running child */
    pid_t pid;
    int message_fd;
    uint32_t spilling; /* durable detaches under way */
    uint32_t checked;  /* sessions that the audit has read */
    bool killed, done;
    struct demo_totals totals;
    struct demo_message message;
    size_t message_bytes; /* of it that have arrived */
};
/* Start a child with child->task, listen until it ends or has been killed as planned. CLI_OK, or
 * CLI_FAILED with the message printed. child->killed: run another. */
int child_run(struct child *child, struct cli_progress *progress)
    __attribute__((warn_unused_result));

#endif
