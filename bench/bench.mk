# bench.mk - benches: one program per bench/bench_*.c; support files are linked into each of them.
# A bench that needs more libraries names them in BENCH_LDLIBS for its own target.
BENCH_SUPPORT := bench_common bench_main bench_files
BENCHES := $(patsubst bench/%.c,$(BUILD)/bench/%,$(filter-out \
	$(BENCH_SUPPORT:%=bench/%.c),$(wildcard bench/bench_*.c)))
BENCH_OBJECTS := $(BENCH_SUPPORT:%=$(BUILD)/obj/bench/%.o) $(BUILD)/obj/bench/gbench_shim.o
CXX ?= g++

bench: $(BENCHES)

$(BUILD)/obj/bench/%.o: bench/%.cc
	@mkdir -p $(@D)
	$(CXX) -std=c++17 -Wall -Wextra -Wshadow -Werror -fPIC -Iinclude -MMD -MP $(CXXFLAGS) -O2 -g \
		-c -o $@ $<

$(BUILD)/bench/%: $(BUILD)/obj/bench/%.o $(BENCH_OBJECTS) $(BUILD)/libabode.a
	@mkdir -p $(@D)
	$(CXX) -o $@ $< $(BENCH_OBJECTS) $(BUILD)/libabode.a $(LDFLAGS) -lbenchmark $(BENCH_LDLIBS) \
		$(LDLIBS)

.PRECIOUS: $(BUILD)/obj/bench/%.o
.PHONY: bench
-include $(wildcard $(BUILD)/obj/bench/*.d)
