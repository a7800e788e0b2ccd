# llama.mk - the llama.cpp bridge, its tests and programs. Nothing here is part of `all` or `check`:
#   make check-llama    get and build llama.cpp and the models (once, about five minutes), then tests
#   make demo-llama     abode-llama on the real model
#   make bench-llama    how long a conversation takes to come back, by where its state was (H3, H4)
LLAMA := $(or $(ABODE_CACHE),$(HOME)/.cache/abode)/llama
comma := ,
LLAMA_DIR := runtime/adapters/llama_cpp
LLAMA_OBJECTS := $(patsubst %.c,$(BUILD)/obj/%.o,$(filter-out %/main_llama.c %/preload_llama.c,\
	$(wildcard $(LLAMA_DIR)/*.c)))
LLAMA_LIBS := -L$(LLAMA)/build/bin -Wl,-rpath,$(LLAMA)/build/bin -lllama -lggml -lggml-base
LLAMA_HELP := $(BUILD)/obj/tests/llama/llama_host.o
LLAMA_TESTS := $(patsubst tests/llama/%.c,$(BUILD)/llama/%,$(wildcard tests/llama/*_check.c))

$(BUILD)/obj/$(LLAMA_DIR)/%.o $(BUILD)/obj/tests/llama/%.o: ISA_FLAGS = -Itests -I$(LLAMA_DIR) \
	-isystem $(LLAMA)/src/include -isystem $(LLAMA)/src/ggml/include
$(BUILD)/llama/libabode-bridge.a: $(LLAMA_OBJECTS)
	$(ARCHIVE)
$(BUILD)/llama/%: $(BUILD)/obj/tests/llama/%.o $(LLAMA_HELP) $(BUILD)/llama/libabode-bridge.a \
		$(BUILD)/libabode.a
	$(call say,LD)
	$(Q)$(CC) $(CFLAGS) $(LDFLAGS) -o $@ $^ $(LLAMA_LIBS) $(LDLIBS)

# calls of llama.cpp are found in the program that it is preloaded to, or never needed
$(BUILD)/llama/libabode-llama.so: $(BUILD)/obj/$(LLAMA_DIR)/preload_llama.o \
		$(BUILD)/llama/libabode-bridge.a $(BUILD)/libabode.a
	$(call say,LD)
	$(Q)$(CC) $(CFLAGS) $(LDFLAGS) -shared -Wl,-soname,libabode-llama.so -Wl,-z,lazy \
		-Wl,--exclude-libs,ALL -o $@ $^ $(LDLIBS) -ldl

$(BUILD)/llama/abode-llama: $(BUILD)/obj/$(LLAMA_DIR)/main_llama.o \
		$(BUILD)/llama/libabode-bridge.a $(BUILD)/libabode.a
	$(call say,LD)
	$(Q)$(CC) $(CFLAGS) $(LDFLAGS) -o $@ $^ $(LLAMA_LIBS) $(LDLIBS)

llama-programs: $(LLAMA_TESTS) $(BUILD)/llama/slot_program $(BUILD)/llama/libabode-llama.so \
	$(BUILD)/llama/abode-llama
demo-llama: deps
	@$(LLAMA_DIR)/get
	@$(MAKE) --no-print-directory $(BUILD)/llama/abode-llama all
	@$(LLAMA_DIR)/demo $(BUILD)/llama/abode-llama $(LLAMA)/models/gemma.gguf $(ARGS)
bench-llama: deps
	@$(LLAMA_DIR)/get server
	@$(MAKE) --no-print-directory $(BUILD)/bench/bench_llama
	@LLAMA='$(LLAMA)' bench/scorecard --build $(BUILD) --only $(or $(ONLY),H3$(comma)H4) \
		$(if $(ROUNDS),--rounds $(ROUNDS)) $(if $(BYTES),--bytes $(BYTES)) $(if $(DIR),--dir $(DIR))
check-llama: deps-check
	@LLAMA='$(LLAMA)' CC='$(CC)' tests/llama/run $(BUILD) $(ONLY)

.PHONY: llama-programs check-llama demo-llama bench-llama
-include $(wildcard $(BUILD)/obj/$(LLAMA_DIR)/*.d $(BUILD)/obj/tests/llama/*.d)
