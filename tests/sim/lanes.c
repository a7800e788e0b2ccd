/* lanes.c - see lanes.h. */
#include "sim/lanes.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "live.h"

#define SEEDS_OF_THE_CLOCK 1000000u

int lanes_init(struct lanes *lanes, const struct lanes_options *options, int argc, char **argv)
{
    const char *sanitizer = getenv("ABODE_SANITIZE");
    uint32_t amount = getenv("ABODE_LONG") != NULL                ? options->amount_long
                      : sanitizer != NULL && sanitizer[0] != '\0' ? options->amount_sanitized
                                                                  : options->amount;

    *lanes = (struct lanes){.seed = live_seed(argc, argv),
                            .amount = live_option(argc, argv, options->amount_name, amount),
                            .count = (uint32_t)live_option(argc, argv, "--lanes", options->count),
                            .result_bytes = options->result_bytes};
    if (lanes->count == 0 || lanes->count > LANES_MAX) {
        fprintf(stderr, "--lanes takes 1 to %u\n", LANES_MAX);
        return 2;
    }
    if (live_option(argc, argv, "--seed", UINT64_MAX) == UINT64_MAX) {
        lanes->seed %= SEEDS_OF_THE_CLOCK; /* short enough to type */
    }
    lanes->results = mmap(NULL, lanes->count * lanes->result_bytes, PROT_READ | PROT_WRITE,
                          MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (lanes->results == MAP_FAILED) {
        printf("FAIL no memory\n");
        return 1;
    }
    return 0;
}

void *lanes_result(const struct lanes *lanes, uint32_t lane)
{
    return lanes->results + lane * lanes->result_bytes;
}

uint32_t lanes_run(const struct lanes *lanes,
                   int (*run)(const struct lanes *lanes, uint32_t lane, void *result),
                   void (*tell)(const void *result, int status))
{
    pid_t children[LANES_MAX];
    uint32_t failed = 0;

    for (uint32_t lane = 0; lane < lanes->count; lane++) {
        (void)fflush(NULL);
        children[lane] = fork();
        if (children[lane] == 0) {
            (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
            const int status = run(lanes, lane, lanes_result(lanes, lane));

            (void)fflush(NULL);
            _exit(status);
        }
    }
    for (uint32_t lane = 0; lane < lanes->count; lane++) {
        int status = 0;

        if (children[lane] > 0 && waitpid(children[lane], &status, 0) == children[lane] &&
            status == 0) {
            continue;
        }
        failed++;
        tell(lanes_result(lanes, lane), status);
    }
    return failed;
}

int lanes_end(const struct lanes *lanes, uint32_t failed)
{
    printf("%u passed, %u failed, 0 skipped\n",
           failed < lanes->count ? lanes->count - (failed > 0) : 0, failed);
    return failed == 0 ? 0 : 1;
}
