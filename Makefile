# make            build/abode, build/libabode.a, build/libabode.so.0, build/abode.pc
# make demo       the main job on this machine, every byte checked
# make check      all tests
BUILD ?= build
ifeq ($(origin CC),default)
CC := gcc
endif
PACKAGES := hwloc liburing libcrypto libxxhash jansson
LIB_PACKAGES := hwloc liburing libcrypto libxxhash
CFLAGS ?= -O2 -g
WARNINGS := -Wall -Wextra -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wpointer-arith -Wcast-align \
	-Wwrite-strings -Wundef -Wvla -Wformat=2 -Wswitch-enum -Werror
AB_CFLAGS = -std=gnu11 -D_GNU_SOURCE= $(WARNINGS) -fvisibility=hidden -fPIC -fno-strict-aliasing -pthread -Iruntime -Iinclude -I. \
	$(if $(DEBUG),-DAB_DEBUG) -MMD -MP
LDLIBS = $(shell pkg-config --libs $(LIB_PACKAGES)) -fopenmp -pthread -lm
CLI_LDLIBS = -ljansson -lm

LIB_SOURCES := $(sort $(filter-out runtime/cli/%,$(wildcard runtime/*/*.c)) $(wildcard kernels/*.c))
CLI_SOURCES := $(sort $(wildcard runtime/cli/*.c))
LIB_OBJECTS := $(LIB_SOURCES:%.c=$(BUILD)/obj/%.o)
CLI_OBJECTS := $(CLI_SOURCES:%.c=$(BUILD)/obj/%.o)
TEST_HELP := $(wildcard tests/*.c)
UNIT_TESTS := $(patsubst tests/unit/%.c,$(BUILD)/tests/%,$(wildcard tests/unit/test_*.c))

all: $(BUILD)/libabode.a

# each instruction set is compiled with its own flags; on another machine its file holds nothing
ifneq ($(filter x86_64-%,$(shell $(CC) -dumpmachine)),)
$(BUILD)/obj/kernels/%_avx2.o: ISA_FLAGS := -mavx2 -mbmi2
$(BUILD)/obj/kernels/%_avx512.o: ISA_FLAGS := -mavx512f -mavx512bw -mavx512vl -mavx512dq
endif
$(BUILD)/obj/kernels/parallel.o: ISA_FLAGS := -fopenmp

$(BUILD)/obj/%.o: %.c
	@mkdir -p $(@D)
	$(CC) $(AB_CFLAGS) $(CFLAGS) $(ISA_FLAGS) -c -o $@ $<

$(BUILD)/libabode.a: $(LIB_OBJECTS)
	@mkdir -p $(@D)
	rm -f $@ && ar rcs $@ $^

# a test links the static library: internal names can be reached; tests/*.c are shared helpers
$(BUILD)/obj/tests/%.o: AB_CFLAGS += -Itests
$(BUILD)/tests/libhelp.a: $(TEST_HELP:%.c=$(BUILD)/obj/%.o)
	@mkdir -p $(@D)
	rm -f $@ && ar rcs $@ $^
$(BUILD)/tests/%: $(BUILD)/obj/tests/unit/%.o $(BUILD)/tests/libhelp.a $(BUILD)/libabode.a
	@mkdir -p $(@D)
	$(CC) $(CFLAGS) -o $@ $^ -lcmocka $(LDLIBS)
.SECONDARY:

units: $(UNIT_TESTS)
include bench/bench.mk
clean:
	rm -rf $(BUILD)
.PHONY: all units clean
-include $(LIB_OBJECTS:.o=.d) $(CLI_OBJECTS:.o=.d) $(wildcard $(BUILD)/obj/tests/*.d $(BUILD)/obj/tests/*/*.d)
