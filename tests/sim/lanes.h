/*
 * lanes.h - a seeded test in several processes at once, each a lane with every n-th seed.
 *
 *     lanes_init(&lanes, &(struct lanes_options){...}, argc, argv)     --seed --lanes and --<amount>
 *     failed = lanes_run(&lanes, lane_run, lane_tell)                  fork, wait, tell of those that failed
 *     return lanes_end(&lanes, failed)                                 the line that tests/run counts
 *
 * A lane writes into its own result, in memory that the parent sees.
 */
#ifndef SIM_LANES_H
#define SIM_LANES_H

#include <stddef.h>
#include <stdint.h>

#define LANES_MAX 16u

struct lanes {
    uint64_t seed;
    uint64_t amount; /* of what the test counts, in all lanes together */
    uint32_t count;
    size_t result_bytes;
    unsigned char *results; /* zeroed */
};
struct lanes_options {
    const char *amount_name; /* "--crashes" */
    uint32_t amount, amount_long, amount_sanitized;
    uint32_t count;
    size_t result_bytes;
};

/* 0, or the exit status of main */
int lanes_init(struct lanes *lanes, const struct lanes_options *options, int argc, char **argv);
void *lanes_result(const struct lanes *lanes, uint32_t lane);
/* run: in the lane's process, its exit status; tell: a FAIL line with how to repeat. Lanes that failed. */
uint32_t lanes_run(const struct lanes *lanes,
                   int (*run)(const struct lanes *lanes, uint32_t lane, void *result),
                   void (*tell)(const void *result, int status));
int lanes_end(const struct lanes *lanes, uint32_t failed);

#endif
