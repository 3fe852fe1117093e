# breakerd. `make help` lists the targets.

VERSION := 0.1.0

PREFIX     ?= /usr/local
SYSCONFDIR ?= /etc
DESTDIR    ?=
BUILD      ?= build
CC         ?= cc
# Debian's own: another python3 that stands first on PATH may lack pytest.
PYTHON     ?= /usr/bin/python3
CFLAGS     ?= -O2 -g
SANITIZE   ?=

PKGS     := libevent_core libevent_extra hiredis libmicrohttpd jansson inih
# Optional: readiness, reload, watchdog and socket activation under systemd. `make SYSTEMD=`
# leaves it out.
SYSTEMD  := $(shell pkg-config --exists libsystemd 2>/dev/null && echo libsystemd)
WARNINGS := -Wall -Wextra -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wpointer-arith -Wvla
HARDEN   := -fPIE -fstack-protector-strong
LDHARDEN := -pie -Wl,-z,relro,-z,now
# Works only in an optimizing build, and gets in the way of the sanitizers.
FORTIFY   = $(if $(SANITIZE),,$(if $(filter -O1 -O2 -O3 -Os -Og,$(CFLAGS)),-U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=3))

PKG_CFLAGS := $(shell pkg-config --cflags $(PKGS) $(SYSTEMD) 2>/dev/null)
PKG_LIBS   := $(shell pkg-config --libs $(PKGS) $(SYSTEMD) 2>/dev/null)

CPPFLAGS_ALL = -D_GNU_SOURCE -DBREAKERD_VERSION='"$(VERSION)"' $(if $(SYSTEMD),-DHAVE_LIBSYSTEMD) \
	-I. -Idaemon -Itests/unit -I$(BUILD)/gen $(PKG_CFLAGS) $(CPPFLAGS)
CFLAGS_ALL = -std=gnu11 $(WARNINGS) $(HARDEN) $(FORTIFY) $(SANITIZE) $(CFLAGS)
LDFLAGS_ALL = $(LDHARDEN) $(SANITIZE) $(LDFLAGS)

# Everything but main.c is linked into the unit tests too.
SOURCES := $(filter-out daemon/main.c,$(wildcard proto/*.c daemon/*.c daemon/*/*.c))
OBJECTS := $(SOURCES:%.c=$(BUILD)/%.o) $(if $(wildcard proto/circuit.lua),$(BUILD)/gen/circuit_lua.o)
TESTS   := $(patsubst tests/unit/%.c,$(BUILD)/tests/%,$(wildcard tests/unit/*/check_*.c))
# What several test programs share.
HELPERS := $(wildcard tests/unit/*.c)

# One short line a command; V=1 shows the whole one.
Q   = $(if $(V),,@)
SAY = $(if $(V),@:,@printf '  %-4s %s\n')

# What the checks look at.
C_SOURCES  := $(SOURCES) daemon/main.c $(wildcard tests/*/*.c tests/unit/*/*.c)
C_FILES    := $(C_SOURCES) $(wildcard proto/*.h daemon/*.h daemon/*/*.h tests/*/*.h)
PY_FILES   := $(wildcard tests/*.py tests/*/*.py tests/*/*/*.py docs/clients/*.py docs/clients/*/*.py scripts/*.py)
SH_FILES   := .ci/run docs/clients/breaker.sh $(shell grep -lE '^\#!/.*\b(ba)?sh\b' scripts/* tests/*/* tests/*/*/* 2>/dev/null)

# `make run` and `make test` use all processors unless told otherwise.
JOBS = $(if $(filter -j% --jobserver%,$(MAKEFLAGS)),,-j$(shell nproc 2>/dev/null || echo 2))

.PHONY: all
all: $(BUILD)/breakerd ## build the daemon (the default)

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))
	@echo 'Variables: BUILD (directory of the build), CC, CFLAGS, SYSTEMD= (do without), PREFIX, DESTDIR, V=1 (whole commands); ARGS for run, PYTEST_ARGS for e2e'

# --- building

$(BUILD)/breakerd: $(BUILD)/daemon/main.o $(OBJECTS)
	$(SAY) LD $@
	$(Q)$(CC) $(LDFLAGS_ALL) -o $@ $^ $(PKG_LIBS)

# An archive, so that a test links only the modules that it uses.
$(BUILD)/libbreakerd.a: $(OBJECTS)
	@mkdir -p $(@D)
	$(SAY) AR $@
	$(Q)rm -f $@ && $(AR) rcs $@ $^

$(BUILD)/libhelpers.a: $(HELPERS:%.c=$(BUILD)/%.o)
	@mkdir -p $(@D)
	$(SAY) AR $@
	$(Q)rm -f $@ && $(AR) rcs $@ $^

# The Lua script as a C string, circuit_lua; one source line a string literal.
$(BUILD)/gen/circuit_lua.c: proto/circuit.lua
	@mkdir -p $(@D)
	$(SAY) GEN $@
	$(Q)( echo 'extern const char circuit_lua[];'; echo 'const char circuit_lua[] ='; \
	  sed -e 's/\\/\\\\/g' -e 's/"/\\"/g' -e 's/^/"/' -e 's/$$/\\n"/' $<; echo ';' ) > $@.new
	$(Q)mv $@.new $@

$(BUILD)/gen/%.o: $(BUILD)/gen/%.c $(BUILD)/flags
	$(SAY) CC $<
	$(Q)$(CC) $(CPPFLAGS_ALL) $(CFLAGS_ALL) -MMD -MP -c -o $@ $<

$(BUILD)/%.o: %.c $(BUILD)/flags
	@mkdir -p $(@D)
	$(SAY) CC $<
	$(Q)$(CC) $(CPPFLAGS_ALL) $(CFLAGS_ALL) -MMD -MP -c -o $@ $<

$(BUILD)/tests/%: $(BUILD)/tests/unit/%.o $(BUILD)/libhelpers.a $(BUILD)/libbreakerd.a
	@mkdir -p $(@D)
	$(SAY) LD $@
	$(Q)$(CC) $(LDFLAGS_ALL) -o $@ $^ $(shell pkg-config --libs check) $(PKG_LIBS)

# Other flags than the last time: everything is built anew.
FLAGS_NOW = $(CC) $(CPPFLAGS_ALL) $(CFLAGS_ALL) $(LDFLAGS_ALL)
export FLAGS_NOW
$(BUILD)/flags: FORCE
	@pkg-config --exists --print-errors $(PKGS) || \
		{ echo 'Something to build with is missing. On Debian: scripts/install-packages build' >&2; exit 1; }
	@mkdir -p $(@D)
	@printenv FLAGS_NOW | cmp -s - $@ || printenv FLAGS_NOW > $@
.PHONY: FORCE
FORCE:

.PHONY: lib
lib: $(BUILD)/libbreakerd.a

.PHONY: tests
tests: $(TESTS)

# --- running and testing

.PHONY: run
run: ## install what is missing, build, serve on 127.0.0.1:8747
	@scripts/install-packages build
	@$(MAKE) $(JOBS) --no-print-directory BUILD=$(BUILD) all
	@scripts/run $(BUILD)/breakerd $(ARGS)

.PHONY: demo demo-record
demo: ## two gateways, in Python and in Node, share one circuit while an upstream breaks
	@scripts/install-packages build demo
	@$(MAKE) $(JOBS) --no-print-directory BUILD=$(BUILD) all
	@$(PYTHON) docs/clients/demo/demo.py $(BUILD)/breakerd

demo-record: $(BUILD)/breakerd ## ... and put what it prints into README.md
	@$(PYTHON) docs/clients/demo/demo.py $(BUILD)/breakerd --record README.md

.PHONY: test
test: ## install what is missing, build, run every test
	@scripts/install-packages build test
	@$(MAKE) $(JOBS) --no-print-directory BUILD=$(BUILD) all tests
	@$(MAKE) --no-print-directory BUILD=$(BUILD) unit
	@$(MAKE) --no-print-directory BUILD=$(BUILD) e2e
	@$(MAKE) --no-print-directory BUILD=$(BUILD) interop
	@echo; echo 'make test: everything passed (unit, e2e, interop).'

.PHONY: unit
unit: $(TESTS) ## the Check programs
	@printf '%s\n' $(TESTS) | xargs -P 3 -I{} \
		sh -c 'said=$$({} 2>&1); status=$$?; printf "%s\n" "$$said"; exit $$status'

.PHONY: e2e
e2e: $(BUILD)/breakerd ## the daemon over HTTP, with redis-servers of its own
	BREAKERD=$(abspath $(BUILD)/breakerd) $(PYTHON) -m pytest -q -n 3 tests/e2e $(PYTEST_ARGS)

.PHONY: outages
outages: $(BUILD)/breakerd ## the e2e tests of outages at full length: some eight minutes, and their figures
	CHAOS=full BREAKERD=$(abspath $(BUILD)/breakerd) $(PYTHON) -m pytest -q -s \
		$(wildcard tests/e2e/test_outage*.py) tests/e2e/test_sentinel.py tests/e2e/test_server_conditions.py

.PHONY: interop
interop: $(BUILD)/breakerd ## the daemon beside Stoma's own store, in Node
	BREAKERD=$(abspath $(BUILD)/breakerd) scripts/interop

# --- measuring

MINIMAL = $(BUILD)/bench/minimal
$(MINIMAL): $(BUILD)/tests/bench/minimal.o
	@mkdir -p $(@D)
	$(SAY) LD $@
	$(Q)$(CC) $(LDFLAGS_ALL) -o $@ $^ $(shell pkg-config --libs libmicrohttpd)

# What all of the programs in tests/bench are told.
BENCH_ENV = BUILD=$(abspath $(BUILD)) BREAKERD=$(abspath $(BUILD)/breakerd) MINIMAL=$(abspath $(MINIMAL))

.PHONY: bench bench-quick
bench: $(BUILD)/breakerd $(MINIMAL) ## beside nginx, webdis and Stoma's store; half an hour, BENCH_ARGS
	@scripts/install-packages bench instructions
	@scripts/interop install
	@$(BENCH_ENV) $(PYTHON) tests/bench/bench.py $(BENCH_ARGS)

bench-quick: $(BUILD)/breakerd $(MINIMAL) ## the most important of it in under a minute
	@scripts/install-packages bench
	@$(BENCH_ENV) $(PYTHON) tests/bench/bench.py --quick $(BENCH_ARGS)

.PHONY: bench-docs
bench-docs: ## put the figures of the last `make bench` into docs/
	@$(BENCH_ENV) $(PYTHON) tests/bench/report.py $(or $(FIGURES),$(BUILD)/bench/benchmarks.json)

.PHONY: instructions instructions-renew
instructions: $(BUILD)/breakerd $(MINIMAL) ## instructions a request; fails if they are 5% over the recorded ones
	@$(BENCH_ENV) $(PYTHON) tests/bench/instructions.py

instructions-renew: $(BUILD)/breakerd $(MINIMAL) ## record them as the new budget
	@$(BENCH_ENV) $(PYTHON) tests/bench/instructions.py --renew

# --- fuzzing

FUZZ_TARGETS := $(patsubst tests/fuzz/fuzz_%.c,%,$(wildcard tests/fuzz/fuzz_*.c))
FUZZ_SECONDS ?= 60
# Everything with clang, in directories of its own.
FUZZ = CC=clang CFLAGS='-O1 -g -fno-omit-frame-pointer'

# fuzz_redis.c takes these two over.
$(BUILD)/fuzz_redis: private LDFLAGS += -Wl,--wrap=connect -Wl,--wrap=redis_lookup_new

$(BUILD)/fuzz_%: $(BUILD)/tests/fuzz/fuzz_%.o $(BUILD)/tests/fuzz/fuzz.o $(BUILD)/libbreakerd.a
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
fuzz-coverage: ## how much of its subject each target's corpus reaches
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

# --- installing

UNITDIR = $(DESTDIR)$(PREFIX)/lib/systemd/system
# What a daemon without libsystemd cannot do.
WITHOUT_SYSTEMD = $(if $(SYSTEMD),,-e 's,^Type=notify$$,Type=exec,' -e '/^WatchdogSec=/d' \
	-e '/Fed from the event loop/d' -e 's, breakerd.socket$$,,')
.PHONY: install
install: $(BUILD)/breakerd ## install under DESTDIR and PREFIX; an existing configuration stays
	install -D -m 0755 $(BUILD)/breakerd $(DESTDIR)$(PREFIX)/bin/breakerd
	install -D -m 0644 docs/breakerd.8 $(DESTDIR)$(PREFIX)/share/man/man8/breakerd.8
	install -D -m 0644 docs/breakerd.conf.5 $(DESTDIR)$(PREFIX)/share/man/man5/breakerd.conf.5
	test -e $(DESTDIR)$(SYSCONFDIR)/breakerd/breakerd.conf || \
		install -D -m 0644 conf/breakerd.conf $(DESTDIR)$(SYSCONFDIR)/breakerd/breakerd.conf
	install -d $(UNITDIR)
	sed -e 's,@BINDIR@,$(PREFIX)/bin,g' -e 's,@SYSCONFDIR@,$(SYSCONFDIR),g' $(WITHOUT_SYSTEMD) \
		systemd/breakerd.service.in > $(UNITDIR)/breakerd.service
	chmod 0644 $(UNITDIR)/breakerd.service
	$(if $(SYSTEMD),install -m 0644 systemd/breakerd.socket $(UNITDIR)/breakerd.socket)
	install -D -m 0644 systemd/breakerd.sysusers $(DESTDIR)$(PREFIX)/lib/sysusers.d/breakerd.conf
	install -D -m 0644 systemd/breakerd.tmpfiles $(DESTDIR)$(PREFIX)/lib/tmpfiles.d/breakerd.conf

.PHONY: uninstall
uninstall: ## remove what install put there, but not the configuration
	rm -f $(DESTDIR)$(PREFIX)/bin/breakerd \
		$(DESTDIR)$(PREFIX)/share/man/man8/breakerd.8 \
		$(DESTDIR)$(PREFIX)/share/man/man5/breakerd.conf.5 \
		$(UNITDIR)/breakerd.service $(UNITDIR)/breakerd.socket \
		$(DESTDIR)$(PREFIX)/lib/sysusers.d/breakerd.conf \
		$(DESTDIR)$(PREFIX)/lib/tmpfiles.d/breakerd.conf

# dpkg-buildpackage leaves things in its tree, so it gets one of its own.
DEB = $(abspath $(BUILD))/deb
.PHONY: deb
deb: ## a Debian package for this release, in $(BUILD)/deb, and what lintian thinks of it
	@scripts/install-packages build deb
	rm -rf $(DEB) && mkdir -p $(DEB)/breakerd
	tar -c --exclude='./build*' --exclude=./.git --exclude=node_modules --exclude=__pycache__ . | \
		tar -x -C $(DEB)/breakerd
	cd $(DEB)/breakerd && DEB_BUILD_OPTIONS="nocheck $$DEB_BUILD_OPTIONS" DEB_BUILD_PROFILES=nocheck \
		dpkg-buildpackage --build=binary --no-sign >$(DEB)/log 2>&1 || { tail -n 40 $(DEB)/log; exit 1; }
	lintian --allow-root --fail-on error --info $(DEB)/*.changes
	@echo; ls $(DEB)/*.deb

.PHONY: deb-try
deb-try: ## the package in clean trees of Debian 12 and 13, and under their systemds; as root
	tests/deb/try bookworm
	tests/deb/try trixie

# --- checking the code

ASAN = BUILD=$(BUILD)-asan CFLAGS='-O1 -g -fno-omit-frame-pointer' \
	SANITIZE='-fsanitize=address,undefined -fno-sanitize-recover=undefined'
.PHONY: asan
asan: ## all tests with AddressSanitizer and UndefinedBehaviorSanitizer
	@$(MAKE) $(JOBS) --no-print-directory $(ASAN) all tests
	@SANITIZED=1 ASAN_OPTIONS=detect_stack_use_after_return=1:strict_string_checks=1 \
		UBSAN_OPTIONS=print_stacktrace=1 \
		$(MAKE) --no-print-directory $(ASAN) unit e2e interop
	@echo; echo 'make asan: everything passed.'

.PHONY: plain
plain: ## build without libsystemd, and see what that changes
	@$(MAKE) $(JOBS) --no-print-directory BUILD=$(BUILD)-plain SYSTEMD= CFLAGS='-O2 -g -Werror' all
	@$(MAKE) --no-print-directory BUILD=$(BUILD)-plain SYSTEMD= e2e \
		PYTEST_ARGS='-k "test_systemd or test_install or test_process"'

.PHONY: format
format: ## put the C sources into shape with clang-format
	clang-format -i $(C_FILES)

.PHONY: format-check
format-check: ## fail if `make format` would change anything
	clang-format --dry-run -Werror $(C_FILES)

.PHONY: lint
lint: lint-gcc lint-clang lint-tidy lint-cppcheck lint-sh lint-py lint-openapi ## compilers without a warning, clang-tidy, cppcheck, shellcheck, pyflakes, spectral

.PHONY: lint-gcc lint-clang lint-tidy lint-cppcheck lint-sh lint-py lint-openapi
lint-gcc lint-clang: lint-%:
	@$(MAKE) $(JOBS) --no-print-directory BUILD=$(BUILD)-$* CC=$* CFLAGS='-O2 -g -Werror' all tests

lint-tidy: $(if $(wildcard proto/circuit.lua),$(BUILD)/gen/circuit_lua.c)
	@clang-tidy --version >/dev/null
	@echo clang-tidy $(words $(C_SOURCES)) files
	@printf '%s\n' $(C_SOURCES) | xargs -P $$(nproc) -I{} \
		clang-tidy --quiet {} -- $(CPPFLAGS_ALL) -std=gnu11 $(WARNINGS) 2>/dev/null

# cppcheck does not see through the loops of sys/queue.h; the compilers and clang-tidy look for
# uninitialized variables too.
lint-cppcheck:
	cppcheck --quiet --std=c11 --enable=warning,performance,portability --inline-suppr \
		--suppress=missingIncludeSystem --suppress=uninitvar --suppress=normalCheckLevelMaxBranches --error-exitcode=1 -j $$(nproc) \
		-D_GNU_SOURCE -DBREAKERD_VERSION='""' -DHAVE_LIBSYSTEMD -I. -Idaemon $(SOURCES) daemon/main.c

lint-sh:
	shellcheck $(SH_FILES)

lint-py:
	$(if $(PY_FILES),$(PYTHON) -m pyflakes $(PY_FILES))

lint-openapi:
	scripts/interop lint

.PHONY: clean
clean: ## remove everything that was built
	rm -rf $(BUILD) $(BUILD)-asan $(BUILD)-gcc $(BUILD)-clang $(BUILD)-plain

	rm -rf $(BUILD) $(BUILD)-asan $(BUILD)-gcc $(BUILD)-clang $(BUILD)-fuzz $(BUILD)-coverage

.SECONDARY:
.DELETE_ON_ERROR:
-include $(shell find $(BUILD) -path $(BUILD)/deb -prune -o -type f -name '*.d' -print 2>/dev/null)
