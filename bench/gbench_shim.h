/*
 * gbench_shim.h - lets benches in C register with Google Benchmark.
 *
 *     static void bench_copy(struct gbench_state *state, void *context)
 *     {
 *         while (gbench_keep_running(state)) {
 *             kernels->copy(target, source, bytes);
 *         }
 *         gbench_bytes_per_iteration(state, bytes);
 *     }
 *     gbench_register("copy/avx2/1m", bench_copy, context);
 *
 * The context must live until gbench_run() returns. Not thread-safe, except that a bench may start
 * threads of its own.
 */
#ifndef AB_GBENCH_SHIM_H
#define AB_GBENCH_SHIM_H

#include <stdbool.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

struct gbench_state;
typedef void gbench_function(struct gbench_state *state, void *context);

/* Wall clock is what counts; process CPU is shown beside it. The name is copied. */
void gbench_register(const char *name, gbench_function *function, void *context);
bool gbench_keep_running(struct gbench_state *state);
/* For bodies of some nanoseconds: true means "do `count` of them". */
bool gbench_keep_running_batch(struct gbench_state *state, uint64_t count);
void gbench_pause(struct gbench_state *state);
void gbench_resume(struct gbench_state *state);
void gbench_bytes_per_iteration(struct gbench_state *state, uint64_t bytes);
void gbench_items_per_iteration(struct gbench_state *state, uint64_t items);
enum gbench_counter { GBENCH_PLAIN, GBENCH_PER_SECOND, GBENCH_PER_ITERATION };
void gbench_counter_set(struct gbench_state *state, const char *name, double value,
                        enum gbench_counter kind);
/* The bench must return right after. */
void gbench_fail(struct gbench_state *state, const char *reason);
/* Takes Google Benchmark's flags (--benchmark_filter=...). 0, or 1 on a flag that it does not know. */
int gbench_run(int argc, char **argv);

#ifdef __cplusplus
}
#endif
#endif
