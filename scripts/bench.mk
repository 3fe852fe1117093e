# Benchmarks.

MINIMAL = $(BUILD)/bench/minimal
$(MINIMAL): $(BUILD)/tests/bench/minimal.o
	@mkdir -p $(@D)
	$(SAY) LD $@
	$(Q)$(CC) $(LDFLAGS_ALL) -o $@ $^ $(shell pkg-config --libs libmicrohttpd)

# The environment of all programs in tests/bench.
BENCH_ENV = BUILD=$(abspath $(BUILD)) BREAKERD=$(abspath $(BUILD)/breakerd) MINIMAL=$(abspath $(MINIMAL))

.PHONY: bench bench-quick
bench: $(BUILD)/breakerd $(MINIMAL) ## compare with nginx, webdis and Stoma's store; half an hour, BENCH_ARGS
	@scripts/install-packages bench instructions
	@scripts/interop install
	@$(BENCH_ENV) $(PYTHON) tests/bench/bench.py $(BENCH_ARGS)

bench-quick: $(BUILD)/breakerd $(MINIMAL) ## the most important part of bench, in under a minute
	@scripts/install-packages bench
	@$(BENCH_ENV) $(PYTHON) tests/bench/bench.py --quick $(BENCH_ARGS)

.PHONY: bench-docs
bench-docs: ## put the figures of the last `make bench` into docs/
	@$(BENCH_ENV) $(PYTHON) tests/bench/report.py $(or $(FIGURES),$(BUILD)/bench/benchmarks.json)

.PHONY: instructions instructions-renew
instructions: $(BUILD)/breakerd $(MINIMAL) ## count the instructions a request; fails if they are 5% over the budget
	@$(BENCH_ENV) $(PYTHON) tests/bench/instructions.py

instructions-renew: $(BUILD)/breakerd $(MINIMAL) ## record the instructions a request as the new budget
	@$(BENCH_ENV) $(PYTHON) tests/bench/instructions.py --renew


.PHONY: scale
scale: $(BUILD)/breakerd ## many daemons on one Redis: its load, and how fast a trip reaches all; SCALE_ARGS
	@$(BENCH_ENV) $(PYTHON) tests/bench/scale.py $(SCALE_ARGS)
