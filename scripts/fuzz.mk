# Fuzzing: the targets of tests/fuzz with libFuzzer, and a whole daemon over raw sockets.

FUZZ_TARGETS := $(patsubst tests/fuzz/fuzz_%.c,%,$(wildcard tests/fuzz/fuzz_*.c))
FUZZ_SECONDS ?= 60
# Everything is built with clang, in separate directories.
FUZZ = CC=clang CFLAGS='-O1 -g -fno-omit-frame-pointer'

# Functions that the targets replace.
$(BUILD)/fuzz_channel: private LDFLAGS += -Wl,--wrap=siphash_key_init
$(BUILD)/fuzz_http: private LDFLAGS += -Wl,--wrap=http_request_is_unix
$(BUILD)/fuzz_redis: private LDFLAGS += -Wl,--wrap=redis_lookup_new

# The targets that connect to Redis need the other side of the connections.
$(BUILD)/fuzz_channel $(BUILD)/fuzz_redis: $(BUILD)/tests/fuzz/peers.o

$(BUILD)/fuzz_%: $(BUILD)/tests/fuzz/fuzz_%.o $(BUILD)/tests/fuzz/fuzz.o $(BUILD)/tests/fuzz/script.o \
		$(BUILD)/libbreakerd.a
	$(SAY) LD $@
	$(Q)$(CC) $(LDFLAGS_ALL) -fsanitize=fuzzer -o $@ $^ $(PKG_LIBS) -llua5.1

.PHONY: fuzz-targets
fuzz-targets: $(FUZZ_TARGETS:%=$(BUILD)/fuzz_%)

.PHONY: fuzz
fuzz: ## fuzz each target for FUZZ_SECONDS (60), two at a time
	@scripts/install-packages build fuzz
	@$(MAKE) $(JOBS) --no-print-directory BUILD=$(BUILD)-fuzz $(FUZZ) \
		SANITIZE='-fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=undefined' fuzz-targets
	@FUZZ_SECONDS=$(FUZZ_SECONDS) scripts/fuzz run $(BUILD)-fuzz $(TARGETS)

.PHONY: fuzz-coverage
fuzz-coverage: ## show how much of the code under test each target's corpus reaches
	@scripts/install-packages build fuzz
	@$(MAKE) $(JOBS) --no-print-directory BUILD=$(BUILD)-coverage $(FUZZ) \
		SANITIZE='-fsanitize=fuzzer-no-link -fprofile-instr-generate -fcoverage-mapping' fuzz-targets
	@scripts/fuzz coverage $(BUILD)-coverage $(TARGETS)

HTTP_FUZZ_ARGS ?= --seconds 30
.PHONY: http-fuzz
http-fuzz: ## fuzz a whole daemon, built with sanitizers, over raw sockets; HTTP_FUZZ_ARGS
	@scripts/install-packages build test
	@$(MAKE) $(JOBS) --no-print-directory $(ASAN) all
	@BREAKERD=$(abspath $(BUILD)-asan/breakerd) $(PYTHON) tests/fuzz/http_fuzz.py $(HTTP_FUZZ_ARGS)

