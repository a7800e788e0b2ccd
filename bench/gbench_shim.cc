/*
 * gbench_shim.cc - the only C++ here: Google Benchmark behind the C functions of gbench_shim.h.
 * A gbench_state is a benchmark::State under another name; nothing is kept between calls.
 */
#include "gbench_shim.h"

#include <benchmark/benchmark.h>

static benchmark::State &state_of(struct gbench_state *state)
{
    return *reinterpret_cast<benchmark::State *>(state);
}

extern "C" void gbench_register(const char *name, gbench_function *function, void *context)
{
    benchmark::RegisterBenchmark(name,
                                 [function, context](benchmark::State &state) {
                                     function(reinterpret_cast<struct gbench_state *>(&state),
                                              context);
                                 })
        ->UseRealTime()
        ->MeasureProcessCPUTime();
}

extern "C" bool gbench_keep_running(struct gbench_state *state)
{
    return state_of(state).KeepRunning();
}

extern "C" bool gbench_keep_running_batch(struct gbench_state *state, uint64_t count)
{
    return state_of(state).KeepRunningBatch(static_cast<benchmark::IterationCount>(count));
}

extern "C" void gbench_pause(struct gbench_state *state)
{
    state_of(state).PauseTiming();
}

extern "C" void gbench_resume(struct gbench_state *state)
{
    state_of(state).ResumeTiming();
}

extern "C" void gbench_bytes_per_iteration(struct gbench_state *state, uint64_t bytes)
{
    benchmark::State &target = state_of(state);
    target.SetBytesProcessed(target.iterations() * static_cast<int64_t>(bytes));
}

extern "C" void gbench_items_per_iteration(struct gbench_state *state, uint64_t items)
{
    benchmark::State &target = state_of(state);
    target.SetItemsProcessed(target.iterations() * static_cast<int64_t>(items));
}

extern "C" void gbench_counter_set(struct gbench_state *state, const char *name, double value,
                                   enum gbench_counter kind)
{
    benchmark::Counter::Flags flags = benchmark::Counter::kDefaults;
    if (kind == GBENCH_PER_SECOND) {
        flags = benchmark::Counter::kIsRate;
    } else if (kind == GBENCH_PER_ITERATION) {
        flags = benchmark::Counter::kAvgIterations;
    }
    state_of(state).counters[name] = benchmark::Counter(value, flags);
}

extern "C" void gbench_fail(struct gbench_state *state, const char *reason)
{
    state_of(state).SkipWithError(reason);
}

extern "C" int gbench_run(int argc, char **argv)
{
    benchmark::Initialize(&argc, argv);
    if (benchmark::ReportUnrecognizedArguments(argc, argv)) {
        return 1;
    }
    benchmark::RunSpecifiedBenchmarks();
    benchmark::Shutdown();
    return 0;
}
