# breakerd. `make help` lists the targets.

VERSION := 0.2.0

PREFIX     ?= /usr/local
SYSCONFDIR ?= /etc
DESTDIR    ?=
BUILD      ?= build
CC         ?= cc
# Debian's python3, which has pytest; another one that comes first on PATH may not.
PYTHON     ?= /usr/bin/python3
CFLAGS     ?= -O2 -g
SANITIZE   ?=

PKGS     := libevent_core libevent_extra hiredis libmicrohttpd jansson inih
# Optional: readiness, reload, watchdog and socket activation under systemd. `make SYSTEMD=` builds without it.
SYSTEMD  := $(shell pkg-config --exists libsystemd 2>/dev/null && echo libsystemd)
WARNINGS := -Wall -Wextra -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wpointer-arith -Wvla
HARDEN   := -fPIE -fstack-protector-strong
LDHARDEN := -pie -Wl,-z,relro,-z,now
# Needs an optimizing build, and does not go with the sanitizers.
FORTIFY   = $(if $(SANITIZE),,$(if $(filter -O1 -O2 -O3 -Os -Og,$(CFLAGS)),-U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=3))

PKG_CFLAGS := $(shell pkg-config --cflags $(PKGS) $(SYSTEMD) 2>/dev/null)
PKG_LIBS   := $(shell pkg-config --libs $(PKGS) $(SYSTEMD) 2>/dev/null)

CPPFLAGS_ALL = -D_GNU_SOURCE -DBREAKERD_VERSION='"$(VERSION)"' $(if $(SYSTEMD),-DHAVE_LIBSYSTEMD) \
	-I. -Idaemon -Itests/unit -I$(BUILD)/gen $(PKG_CFLAGS) $(CPPFLAGS)
CFLAGS_ALL = -std=gnu11 $(WARNINGS) $(HARDEN) $(FORTIFY) $(SANITIZE) $(CFLAGS)
LDFLAGS_ALL = $(LDHARDEN) $(SANITIZE) $(LDFLAGS)

# Everything but main.c can be linked into the unit tests.
SOURCES := $(filter-out daemon/main.c,$(wildcard proto/*.c daemon/*.c daemon/*/*.c))
OBJECTS := $(SOURCES:%.c=$(BUILD)/%.o) $(BUILD)/gen/circuit_lua.o $(BUILD)/gen/page_html.o
TESTS   := $(patsubst tests/unit/%.c,$(BUILD)/tests/%,$(wildcard tests/unit/*/check_*.c))
# Helpers of the test programs.
HELPERS := $(wildcard tests/unit/*.c)

# Prints a short line for each command; with V=1, the whole command.
Q   = $(if $(V),,@)
SAY = $(if $(V),@:,@printf '  %-4s %s\n')

# The files that `make lint` and `make format` process.
C_SOURCES  := $(SOURCES) daemon/main.c $(wildcard scripts/*.c tests/*/*.c tests/unit/*/*.c)
C_FILES    := $(C_SOURCES) $(wildcard proto/*.h daemon/*.h daemon/*/*.h tests/*/*.h)
PY_FILES   := $(wildcard tests/*.py tests/*/*.py tests/*/*/*.py docs/clients/*/*.py docs/clients/*/*/*.py) \
	$(shell grep -lE '^\#!/.*\bpython3?\b' scripts/* 2>/dev/null)
SH_FILES   := .ci/run docs/clients/shell/breakerd.sh docs/gateways/traefik/report tests/deb/tree.sh $(shell grep -lE '^\#!/.*\b(ba)?sh\b' scripts/* debian/* tests/*/* tests/*/*/* 2>/dev/null)

# `make run` and `make test` use all processors unless told otherwise.
JOBS = $(if $(filter -j% --jobserver%,$(MAKEFLAGS)),,-j$(shell nproc 2>/dev/null || echo 2))

.PHONY: all
all: $(BUILD)/breakerd ## build the daemon (the default)

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(filter-out %.d,$(MAKEFILE_LIST))
	@echo 'Variables: BUILD (directory of the build), CC, CFLAGS, SYSTEMD= (build without libsystemd), PREFIX, DESTDIR, V=1 (print whole commands); ARGS for run, PYTEST_ARGS for e2e'

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

# The Lua script as a C string, circuit_lua, with a string literal for each line.
$(BUILD)/gen/circuit_lua.c: proto/circuit.lua
	@mkdir -p $(@D)
	$(SAY) GEN $@
	$(Q)( echo 'extern const char circuit_lua[];'; echo 'const char circuit_lua[] ='; \
	  sed -e 's/\\/\\\\/g' -e 's/"/\\"/g' -e 's/^/"/' -e 's/$$/\\n"/' $<; echo ';' ) > $@.new
	$(Q)mv $@.new $@

# The page as C strings, and its Content-Security-Policy.
$(BUILD)/gen/page_html.c: daemon/api/page.html scripts/embed-page $(BUILD)/flags
	@mkdir -p $(@D)
	$(SAY) GEN $@
	$(Q)scripts/embed-page $(VERSION) < $< > $@.new
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

# If the flags differ from those of the last build, everything is built again.
FLAGS_NOW = $(CC) $(CPPFLAGS_ALL) $(CFLAGS_ALL) $(LDFLAGS_ALL)
export FLAGS_NOW
$(BUILD)/flags: FORCE
	@pkg-config --exists --print-errors $(PKGS) || \
		{ echo 'A library is missing. On Debian: scripts/install-packages build' >&2; exit 1; }
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
run: ## install missing packages, build, and serve on 127.0.0.1:8747
	@scripts/install-packages build
	@$(MAKE) $(JOBS) --no-print-directory BUILD=$(BUILD) all
	@scripts/run $(BUILD)/breakerd $(ARGS)

.PHONY: demo demo-record
demo: ## show how two gateways, in Python and in Node, share one circuit while an upstream fails
	@scripts/install-packages build demo
	@$(MAKE) $(JOBS) --no-print-directory BUILD=$(BUILD) all
	@$(PYTHON) docs/clients/demo/demo.py $(BUILD)/breakerd

demo-record: $(BUILD)/breakerd ## run the demo and put its output into README.md
	@$(PYTHON) docs/clients/demo/demo.py $(BUILD)/breakerd --record README.md

.PHONY: test
test: ## install missing packages, build, and run all tests
	@scripts/install-packages build test
	@$(MAKE) $(JOBS) --no-print-directory BUILD=$(BUILD) all tests
	@$(MAKE) --no-print-directory BUILD=$(BUILD) unit
	@$(MAKE) --no-print-directory BUILD=$(BUILD) e2e
	@$(MAKE) --no-print-directory BUILD=$(BUILD) interop
	@echo; echo 'make test: everything passed (unit, e2e, interop).'

.PHONY: debian-13
debian-13: ## run make run and make test in a tree of Debian 13, with Valkey; as root
	@scripts/install-packages tree
	tests/deb/suite trixie

.PHONY: unit
unit: $(TESTS) ## run the Check programs
	@printf '%s\n' $(TESTS) | CK_DEFAULT_TIMEOUT=60 xargs -P 3 -I{} \
		sh -c 'said=$$({} 2>&1); status=$$?; printf "%s\n" "$$said"; exit $$status'

.PHONY: e2e
e2e: $(BUILD)/breakerd ## test the daemon over HTTP, with private redis-servers
	BREAKERD=$(abspath $(BUILD)/breakerd) $(PYTHON) -m pytest -q -n 3 tests/e2e $(PYTEST_ARGS)

.PHONY: pictures
pictures: $(BUILD)/breakerd ## make the pictures of the page in docs, with its tests
	PICTURES=$(abspath docs) BREAKERD=$(abspath $(BUILD)/breakerd) $(PYTHON) -m pytest -q tests/e2e/test_page_browser.py -k pictures

.PHONY: outages
outages: $(BUILD)/breakerd ## run the e2e tests of outages at full length, with their figures: half an hour
	CHAOS=full BREAKERD=$(abspath $(BUILD)/breakerd) $(PYTHON) -m pytest -q -s \
		$(wildcard tests/e2e/test_outage*.py) tests/e2e/test_sentinel.py tests/e2e/test_server_conditions.py

.PHONY: streams
streams: $(BUILD)/breakerd ## run the e2e tests of event streams at full size, with their figures: about six minutes
	STREAMS=full BREAKERD=$(abspath $(BUILD)/breakerd) $(PYTHON) -m pytest -q -s tests/e2e/test_streams.py

.PHONY: interop
interop: $(BUILD)/breakerd ## test the daemon with Stoma and beside Stoma's own store, in Node
	BREAKERD=$(abspath $(BUILD)/breakerd) scripts/interop

# --- checking the code

ASAN = BUILD=$(BUILD)-asan CFLAGS='-O1 -g -fno-omit-frame-pointer' \
	SANITIZE='-fsanitize=address,undefined -fno-sanitize-recover=undefined'
.PHONY: asan
asan: ## run all tests with AddressSanitizer and UndefinedBehaviorSanitizer
	@$(MAKE) $(JOBS) --no-print-directory $(ASAN) all tests
	@SANITIZED=1 ASAN_OPTIONS=detect_stack_use_after_return=1:strict_string_checks=1 \
		UBSAN_OPTIONS=print_stacktrace=1 \
		$(MAKE) --no-print-directory $(ASAN) unit e2e interop
	@echo; echo 'make asan: everything passed.'

.PHONY: plain
plain: ## build without libsystemd, and run the tests that this may affect
	@$(MAKE) $(JOBS) --no-print-directory BUILD=$(BUILD)-plain SYSTEMD= CFLAGS='-O2 -g -Werror' all
	@$(MAKE) --no-print-directory BUILD=$(BUILD)-plain SYSTEMD= e2e \
		PYTEST_ARGS='-k "test_systemd or test_install or test_process"'

include scripts/bench.mk scripts/fuzz.mk scripts/install.mk scripts/lint.mk scripts/release.mk

.PHONY: clean
clean: ## remove everything that was built
	rm -rf $(BUILD) $(addprefix $(BUILD)-,asan gcc clang plain fuzz coverage image)

.SECONDARY:
.DELETE_ON_ERROR:
-include $(shell find $(BUILD) -path $(BUILD)/deb -prune -o -type f -name '*.d' -print 2>/dev/null)
