# bench.mk - benches: one program per bench/bench_*.c; support files are linked into each of them.
# A bench that needs more libraries names them in BENCH_LDLIBS for its own target.
BENCH_SUPPORT := bench_common bench_main bench_files
BENCHES := $(patsubst bench/%.c,$(BUILD)/bench/%,$(filter-out \
	$(BENCH_SUPPORT:%=bench/%.c) bench/bench_llama.c,$(wildcard bench/bench_*.c)))
BENCH_OBJECTS := $(BENCH_SUPPORT:%=$(BUILD)/obj/bench/%.o) $(BUILD)/obj/bench/session_host.o \
	$(BUILD)/obj/bench/cache_host.o \
	$(BUILD)/obj/bench/fio.o $(BUILD)/obj/bench/gbench_shim.o
CXX ?= g++

bench: $(BENCHES)

# ONLY=P1,P15 ROUNDS=9 BYTES=512m DIR=/mnt/disk
scorecard: bench
	bench/scorecard --build $(BUILD) $(if $(ONLY),--only $(ONLY)) $(if $(ROUNDS),--rounds $(ROUNDS)) \
		$(if $(BYTES),--bytes $(BYTES)) $(if $(DIR),--dir $(DIR))

$(BUILD)/obj/bench/%.o: bench/%.cc
	@mkdir -p $(@D)
	$(CXX) -std=c++17 -Wall -Wextra -Wshadow -Werror -fPIC -Iinclude -MMD -MP $(CXXFLAGS) -O2 -g \
		-c -o $@ $<

$(BUILD)/bench/%: $(BUILD)/obj/bench/%.o $(BENCH_OBJECTS) $(BUILD)/libabode.a
	@mkdir -p $(@D)
	$(CXX) -o $@ $(filter %.o,$^) $(BUILD)/libabode.a $(LDFLAGS) -lbenchmark $(BENCH_LDLIBS) $(LDLIBS)

# rivals are linked where their libraries are; without, rival_*.c says what is absent
RIVALS := $(wildcard bench/rival_*.c)
rival_lib = $(shell echo 'int main(void) { return 0; }' | $(CC) -x c - -l$(1) -o /dev/null 2>/dev/null && \
	echo -l$(1))
$(BUILD)/bench/bench_rivals: $(RIVALS:%.c=$(BUILD)/obj/%.o)
$(BUILD)/bench/bench_rivals: BENCH_LDLIBS = $(call rival_lib,lmdb) $(call rival_lib,rocksdb)

# with the llama.cpp bridge (runtime/adapters/llama_cpp/llama.mk): make bench-llama; bench/llama_*.c are its parts
LLAMA_BENCH_OBJECTS := $(patsubst %.c,$(BUILD)/obj/%.o,$(wildcard bench/llama_*.c))
$(LLAMA_BENCH_OBJECTS) $(BUILD)/obj/bench/bench_llama.o: ISA_FLAGS = -I$(LLAMA_DIR) \
	-isystem $(LLAMA)/src/include -isystem $(LLAMA)/src/ggml/include
$(BUILD)/bench/bench_llama: $(BUILD)/obj/bench/bench_llama.o $(LLAMA_BENCH_OBJECTS) $(BENCH_OBJECTS) \
		$(BUILD)/llama/libabode-bridge.a $(BUILD)/libabode.a
	@mkdir -p $(@D)
	$(call say,LD)
	$(Q)$(CXX) -o $@ $^ $(LDFLAGS) $(LLAMA_LIBS) -lbenchmark $(LDLIBS)

.PRECIOUS: $(BUILD)/obj/bench/%.o
.PHONY: bench scorecard
-include $(wildcard $(BUILD)/obj/bench/*.d)
