# make               build/abode, build/libabode.a, build/libabode.so.0, build/abode.pc
# make demo          set up, build, run the main job on this machine with every byte checked
# make check         set up, build, all tests; the last line counts them
# make reliability [LONG=1]: the same (or check-long), and what it counted into tests/RELIABILITY.md
# make check-guest [TOPO="2 4"]: in emulated machines with that many NUMA nodes
# make check-power [POINTS=500]: cut the power of an emulated disk, on ext4 and XFS
# make check-asan, check-ubsan, check-tsan, check-long, check-style, check-cross
# make check-mutants [MUTANT="007 012"]: which test catches each planted defect
# make coverage: branches of format, journal and recovery that tests take
# make check-valgrind [ONLY="segment"]: a subset of the tests under memcheck
# make fuzz [SECONDS=60] [TARGET=journal]: libFuzzer on every target, or one, for so long
# make bench, scorecard [ONLY=P1,P3], deps, format, tidy, install [DESTDIR= PREFIX=], uninstall, clean
# Variables: CC, CFLAGS, BUILD=dir (may lie elsewhere), DEBUG=1 (assertions), V=1 (show commands)
BUILD ?= build
PREFIX ?= /usr/local
LIBDIR ?= $(PREFIX)/lib
ifeq ($(origin CC),default)
CC := gcc
endif
CFLAGS ?= $(if $(DEBUG),-O1,-O2) -g
Q := $(if $(V),,@)
say = $(if $(V),,@printf '  %-5s %s\n' $(1) '$(patsubst $(BUILD)/%,%,$@)')
# evaluated at first use, once: set-up may still have to install what is asked for here
once = $(eval $(1) := $(2))$($(1))

VERSION := $(shell awk '/define ABODE_VERSION_M|define ABODE_VERSION_P/ {printf dot $$3; dot = "."}' \
	include/abode/abode.h)
SONAME := libabode.so.$(firstword $(subst ., ,$(VERSION)))

# ---- flags
LIB_PACKAGES := hwloc liburing libcrypto libxxhash
WARNINGS := -Wall -Wextra -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wpointer-arith \
	-Wcast-align -Wwrite-strings -Wundef -Wvla -Wformat=2 -Wswitch-enum -Werror
MACHINE = $(call once,MACHINE,$(shell $(CC) -dumpmachine))
# OpenMP is optional: asked by linking, kernels/parallel.c says what it does without
OPENMP = $(call once,OPENMP,$(shell echo 'int main(void) { return 0; }' | \
	$(CC) -fopenmp -x c - -o /dev/null 2>/dev/null && echo -fopenmp))
PACKAGE_CFLAGS = $(call once,PACKAGE_CFLAGS,$(shell pkg-config --cflags $(LIB_PACKAGES)))
LDLIBS = $(call once,LDLIBS,$(shell pkg-config --libs $(LIB_PACKAGES)) $(OPENMP) -pthread -lm)
ifdef SANITIZE
HARDEN := -fsanitize=$(SANITIZE) -fno-sanitize-recover=all -fno-omit-frame-pointer
LDFLAGS += -fsanitize=$(SANITIZE)
else
HARDEN := -fstack-protector-strong $(if $(DEBUG),,-U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=2)
NO_UNDEFINED := -Wl,-z,defs
endif
AB_CFLAGS = -std=gnu11 -D_GNU_SOURCE= $(WARNINGS) $(HARDEN) -fvisibility=hidden -fPIC \
	-fno-strict-aliasing -pthread -Iruntime -Iinclude -I. $(PACKAGE_CFLAGS) \
	$(if $(DEBUG),-DAB_DEBUG) -MMD -MP

# ---- what there is to build
LIB_SOURCES := $(sort $(filter-out runtime/cli/%,$(wildcard runtime/*/*.c)) $(wildcard kernels/*.c))
CLI_SOURCES := $(sort $(wildcard runtime/cli/*.c))
HELP_SOURCES := $(wildcard tests/*.c) $(filter-out tests/host/% tests/guest/% tests/emulated/% tests/llama/%,\
	$(filter-out $(wildcard tests/*/test_*.c),$(wildcard tests/*/*.c)))
TEST_SOURCES := $(sort $(filter-out tests/host/% tests/guest/%,$(wildcard tests/*/test_*.c)))
LIB_OBJECTS := $(LIB_SOURCES:%.c=$(BUILD)/obj/%.o)
CLI_OBJECTS := $(CLI_SOURCES:%.c=$(BUILD)/obj/%.o)
HELP_OBJECTS := $(HELP_SOURCES:%.c=$(BUILD)/obj/%.o)
TESTS := $(foreach source,$(TEST_SOURCES),$(BUILD)/tests/$(basename $(notdir $(source))))
TEST_LIBS := $(BUILD)/tests/libhelp.a $(BUILD)/obj/libcli.a $(BUILD)/libabode.a
LIBRARIES := $(BUILD)/libabode.a $(BUILD)/$(SONAME) $(BUILD)/libabode.so

# the command needs the whole library: it is built where runtime/front is there
all: $(LIBRARIES) $(BUILD)/abode.pc $(if $(wildcard runtime/front/*.c),$(BUILD)/abode)
	$(if $(OPENMP),,@echo 'note: $(CC) links no OpenMP: kernels/parallel.c works on one thread')
units: $(TESTS)

# ---- objects; `flags` changes when the way of compiling does, and everything is built anew
$(BUILD)/flags: FORCE
	@mkdir -p $(@D)
	@echo '$(CC) $(AB_CFLAGS) $(CFLAGS) $(CPPFLAGS)' | cmp -s - $@ || \
		echo '$(CC) $(AB_CFLAGS) $(CFLAGS) $(CPPFLAGS)' >$@
ifneq ($(filter x86_64%,$(MACHINE)),)
$(BUILD)/obj/kernels/%_avx2.o: ISA_FLAGS := -mavx2 -mbmi2
$(BUILD)/obj/kernels/%_avx512.o: ISA_FLAGS := -mavx512f -mavx512bw -mavx512vl -mavx512dq
endif
$(BUILD)/obj/kernels/parallel.o: ISA_FLAGS = $(OPENMP)
$(BUILD)/obj/tests/%.o: ISA_FLAGS := -Itests
$(BUILD)/obj/%.o: %.c $(BUILD)/flags
	@mkdir -p $(@D)
	$(call say,CC)
	$(Q)$(CC) $(AB_CFLAGS) $(CPPFLAGS) $(CFLAGS) $(ISA_FLAGS) -c -o $@ $<

# ---- library and command
define ARCHIVE
	@mkdir -p $(@D)
	$(call say,AR)
	$(Q)rm -f $@ && ar rcs $@ $(filter %.o,$^)
endef
$(BUILD)/libabode.a: $(LIB_OBJECTS)
	$(ARCHIVE)
$(BUILD)/obj/libcli.a: $(filter-out %/main.o,$(CLI_OBJECTS))
	$(ARCHIVE)
$(BUILD)/tests/libhelp.a: $(HELP_OBJECTS)
	$(ARCHIVE)
$(BUILD)/$(SONAME): $(LIB_OBJECTS) runtime/libabode.map
	$(call say,LD)
	$(Q)$(CC) $(CFLAGS) $(LDFLAGS) -shared -Wl,-soname,$(SONAME) $(NO_UNDEFINED) -o $@ \
		-Wl,--version-script=runtime/libabode.map $(LIB_OBJECTS) $(LDLIBS)
$(BUILD)/libabode.so: $(BUILD)/$(SONAME)
	$(Q)ln -sf $(SONAME) $@
$(BUILD)/abode: $(CLI_OBJECTS) $(BUILD)/libabode.a
	$(call say,LD)
	$(Q)$(CC) $(CFLAGS) $(LDFLAGS) -o $@ $^ -ljansson $(LDLIBS)
write_pc = printf '%s\n' 'prefix=$(PREFIX)' 'libdir=$(LIBDIR)' 'includedir=$(PREFIX)/include' '' \
	'Name: abode' 'Description: state of hosted models in memory, on disk, and back' \
	'Version: $(VERSION)' 'Requires.private: $(LIB_PACKAGES)' 'Libs: -L$${libdir} -labode' \
	'Libs.private: $(OPENMP) -pthread -lm' 'Cflags: -I$${includedir}'
$(BUILD)/abode.pc: include/abode/abode.h Makefile $(BUILD)/flags
	$(Q)$(write_pc) >$@

# ---- tests: tests/README.md says what tests/run expects of them
$(TESTS): $(TEST_LIBS)
	@mkdir -p $(@D)
	$(call say,LD)
	$(Q)$(CC) $(CFLAGS) $(LDFLAGS) -o $@ $(filter %.o,$^) $(TEST_LIBS) -lcmocka -ljansson \
		-Wl,--as-needed -lseccomp $(LDLIBS)
$(foreach source,$(TEST_SOURCES),$(eval \
	$(BUILD)/tests/$(basename $(notdir $(source))): $(BUILD)/obj/$(source:.c=.o)))
# programs that only the guest runs
GUEST_PROGRAMS := $(patsubst tests/guest/%.c,$(BUILD)/tests/%,$(wildcard tests/guest/*.c))
$(GUEST_PROGRAMS): $(BUILD)/tests/%: $(BUILD)/obj/tests/guest/%.o $(TEST_LIBS)
	$(call say,LD)
	$(Q)$(CC) $(CFLAGS) $(LDFLAGS) -o $@ $< $(TEST_LIBS) $(LDLIBS)
run_tests = CC='$(CC)' V='$(V)' SANITIZE='$(SANITIZE)' tests/run $(BUILD) $(ONLY)

deps deps-check deps-bench deps-guest deps-fuzz deps-valgrind:
	@tests/deps $(or $(patsubst deps-%,%,$(filter deps-%,$@)),library)
demo: deps
	@$(MAKE) --no-print-directory all
	$(BUILD)/abode demo $(ARGS)
check: deps-check
	@$(MAKE) --no-print-directory all units
	@$(run_tests)
check-long: deps-check
	@$(MAKE) --no-print-directory all units
	@ABODE_LONG=1 $(run_tests)
# the counts of that run, into tests/RELIABILITY.md
reliability: $(if $(LONG),check-long,check)
	@tests/reliability $(BUILD) $(if $(LONG),long)
# branches of format, journal and recovery that the tests take; ONLY="...": these tests, added to what others took
coverage: deps-check
	@$(MAKE) --no-print-directory BUILD=$(BUILD)-coverage CPPFLAGS=-U_FORTIFY_SOURCE LDFLAGS='--coverage -Wl,--wrap=_exit' \
		CFLAGS='-O0 -g --coverage -fprofile-update=atomic -Wno-error' units
	@tests/coverage $(BUILD)-coverage $(ONLY)
check-asan check-ubsan check-tsan: check-%: deps-check
	@$(MAKE) --no-print-directory check BUILD=$(BUILD)-$* DEBUG=1 \
		SANITIZE=$(patsubst tsan,thread,$(patsubst ubsan,undefined,$(patsubst asan,address,$*)))
check-valgrind: deps-valgrind
	@$(MAKE) --no-print-directory units
	@tests/valgrind $(BUILD) $(ONLY)
check-guest: deps-check
	@$(MAKE) --no-print-directory all units \
		$(if $(wildcard runtime/front/*.c),$(GUEST_PROGRAMS))
	@BUILD=$(BUILD) TOPO="$(TOPO)" tests/guest/run
# cuts of power at block level, POINTS of them per file system
check-power: deps-check
	@$(MAKE) --no-print-directory all $(BUILD)/tests/power
	@BUILD=$(BUILD) POINTS="$(POINTS)" tests/guest/power_run
check-style:
	@tests/check_style
# does a planted defect fail a test? MUTANT="007 012": only these
check-mutants: deps-check
	@tests/mutants/run $(BUILD) $(MUTANT)
format:
	clang-format-14 -i $(or $(FILES),$(shell git ls-files '*.c' '*.h' '*.cc'))
tidy:
	clang-tidy-14 --quiet $(or $(FILES),$(filter-out %_neon.c,$(LIB_SOURCES) $(CLI_SOURCES))) -- \
		-std=gnu11 -D_GNU_SOURCE -march=native -Iruntime -Iinclude -I.
check-cross:
	@if command -v aarch64-linux-gnu-gcc >/dev/null; then \
		$(MAKE) --no-print-directory CC=aarch64-linux-gnu-gcc BUILD=$(BUILD)-aarch64 kernel-objects; \
	else echo 'SKIP: no aarch64-linux-gnu-gcc (package gcc-aarch64-linux-gnu)'; fi
kernel-objects: $(filter $(BUILD)/obj/kernels/%,$(LIB_OBJECTS))

# ---- fuzzing: tests/fuzz/README.md; `make check` replays the corpora without clang
FUZZ_SANITIZE := address,undefined,fuzzer-no-link
$(BUILD)/fuzz: $(BUILD)/obj/tests/fuzz/fuzz_libfuzzer.o $(TEST_LIBS)
	$(call say,LD)
	$(Q)$(CC) $(CFLAGS) $(LDFLAGS) -fsanitize=fuzzer -o $@ $< $(TEST_LIBS) -lcmocka -ljansson $(LDLIBS)
fuzz: deps-fuzz
	@$(MAKE) --no-print-directory CC=clang-14 BUILD=$(BUILD)-fuzz DEBUG=1 SANITIZE=$(FUZZ_SANITIZE) \
		$(BUILD)-fuzz/fuzz $(BUILD)-fuzz/tests/test_fuzz_replay
	@tests/fuzz/run $(BUILD)-fuzz $(or $(SECONDS),60) $(TARGET)

# ---- installing
MAN_PAGES := $(wildcard runtime/cli/man/*.1)
COMPLETION := $(wildcard runtime/cli/completion/abode.bash)
SHARE := $(DESTDIR)$(PREFIX)/share
install: all
	install -d $(DESTDIR)$(PREFIX)/include/abode $(DESTDIR)$(LIBDIR)/pkgconfig
	install -m 644 include/abode/abode.h $(DESTDIR)$(PREFIX)/include/abode
	install -m 644 $(BUILD)/libabode.a $(DESTDIR)$(LIBDIR)
	install -m 755 $(BUILD)/$(SONAME) $(DESTDIR)$(LIBDIR)
	ln -sf $(SONAME) $(DESTDIR)$(LIBDIR)/libabode.so
	$(write_pc) >$(DESTDIR)$(LIBDIR)/pkgconfig/abode.pc
	$(if $(wildcard $(BUILD)/abode),install -D -m 755 $(BUILD)/abode $(DESTDIR)$(PREFIX)/bin/abode)
	$(if $(MAN_PAGES),install -D -m 644 -t $(SHARE)/man/man1 $(MAN_PAGES))
	$(if $(COMPLETION),install -D -m 644 $(COMPLETION) $(SHARE)/bash-completion/completions/abode)
uninstall:
	rm -f $(DESTDIR)$(PREFIX)/include/abode/abode.h $(DESTDIR)$(PREFIX)/bin/abode
	rm -f $(addprefix $(DESTDIR)$(LIBDIR)/,libabode.a libabode.so $(SONAME) pkgconfig/abode.pc)
	rm -f $(addprefix $(SHARE)/man/man1/,$(notdir $(MAN_PAGES)))
	rm -f $(SHARE)/bash-completion/completions/abode
	-rmdir $(DESTDIR)$(PREFIX)/include/abode 2>/dev/null
clean:
	rm -rf $(BUILD) $(addprefix $(BUILD)-,asan ubsan tsan aarch64 fuzz coverage)

# ---- llama.cpp: built by its own targets only
include runtime/adapters/llama_cpp/llama.mk

# ---- benches: their own libraries, built by `make bench` only
include $(wildcard bench/bench.mk)
# a rival's object says at compile time whether its library is there
$(BENCHES) $(patsubst %.c,$(BUILD)/obj/%.o,$(wildcard bench/*.c)) $(BUILD)/obj/bench/gbench_shim.o: | deps-bench

.PRECIOUS: $(BUILD)/obj/%.o
.PHONY: FORCE all units deps deps-check deps-bench deps-guest deps-fuzz deps-valgrind check-valgrind demo check check-long check-asan \
	check-ubsan check-tsan check-guest check-power check-mutants check-style coverage reliability fuzz format tidy \
	check-cross kernel-objects bench scorecard install uninstall clean
-include $(LIB_OBJECTS:.o=.d) $(CLI_OBJECTS:.o=.d) $(HELP_OBJECTS:.o=.d) \
	$(TEST_SOURCES:%.c=$(BUILD)/obj/%.d)
