# breakerd. `make help` lists the targets.

VERSION := 0.1.0
PREFIX  ?= /usr/local
DESTDIR ?=
BUILD   ?= build
CC      ?= cc
SANITIZE ?=

PKGS     := libevent_core libevent_extra hiredis libmicrohttpd jansson inih
SYSTEMD  := $(shell pkg-config --exists libsystemd 2>/dev/null && echo libsystemd)
CFLAGS   ?= -O2 -g
WARNINGS := -Wall -Wextra -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wpointer-arith -Wvla
HARDEN   := -fPIE -fstack-protector-strong
LDHARDEN := -pie -Wl,-z,relro,-z,now

CPPFLAGS_ALL = -D_GNU_SOURCE -DBREAKERD_VERSION='"$(VERSION)"' $(if $(SYSTEMD),-DHAVE_LIBSYSTEMD) \
	$(if $(SANITIZE),,-U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=2) -Iproto -Idaemon -I$(BUILD)/gen $(CPPFLAGS)
CFLAGS_ALL = -std=gnu11 $(WARNINGS) $(HARDEN) $(SANITIZE) $(PKG_CFLAGS) $(CFLAGS)
LDFLAGS_ALL = $(LDHARDEN) $(SANITIZE) $(LDFLAGS)
PKG_CFLAGS = $(shell pkg-config --cflags $(PKGS) $(SYSTEMD))
PKG_LIBS   = $(shell pkg-config --libs $(PKGS) $(SYSTEMD))

# Everything but main.c is linked into the unit tests too.
SOURCES := $(filter-out daemon/main.c,$(wildcard proto/*.c daemon/*.c))
OBJECTS := $(SOURCES:%.c=$(BUILD)/%.o) $(if $(wildcard proto/circuit.lua),$(BUILD)/gen/circuit_lua.o)
TESTS   := $(patsubst tests/unit/%.c,$(BUILD)/tests/%,$(wildcard tests/unit/check_*.c))
# What several test programs share.
HELPERS := $(filter-out tests/unit/check_%.c,$(wildcard tests/unit/*.c))

.PHONY: all
all: $(BUILD)/breakerd

$(BUILD)/breakerd: $(BUILD)/daemon/main.o $(OBJECTS)
	$(CC) $(LDFLAGS_ALL) -o $@ $^ $(PKG_LIBS)

# The Lua script as a C string, circuit_lua; one source line a string literal.
$(BUILD)/gen/circuit_lua.c: proto/circuit.lua
	@mkdir -p $(@D)
	( echo 'extern const char circuit_lua[];'; echo 'const char circuit_lua[] ='; \
	  sed -e 's/\\/\\\\/g' -e 's/"/\\"/g' -e 's/^/"/' -e 's/$$/\\n"/' $<; echo ';' ) > $@

$(BUILD)/gen/%.o: $(BUILD)/gen/%.c
	$(CC) $(CPPFLAGS_ALL) $(CFLAGS_ALL) -MMD -MP -c -o $@ $<

$(BUILD)/%.o: %.c
	@mkdir -p $(@D)
	$(CC) $(CPPFLAGS_ALL) $(CFLAGS_ALL) -MMD -MP -c -o $@ $<

$(BUILD)/tests/%: $(BUILD)/tests/unit/%.o $(BUILD)/libhelpers.a $(BUILD)/libbreakerd.a
	@mkdir -p $(@D)
	$(CC) $(LDFLAGS_ALL) -o $@ $^ $(shell pkg-config --libs check) $(PKG_LIBS)

$(BUILD)/libhelpers.a: $(HELPERS:%.c=$(BUILD)/%.o)
	@mkdir -p $(@D)
	rm -f $@ && $(AR) rcs $@ $^

# An archive, so that a test links only the modules that it uses.
$(BUILD)/libbreakerd.a: $(OBJECTS)
	@mkdir -p $(@D)
	rm -f $@ && $(AR) rcs $@ $^

.PHONY: lib
lib: $(BUILD)/libbreakerd.a

.PHONY: unit
unit: $(TESTS)
	@for t in $(TESTS); do $$t || exit 1; done

.PHONY: clean
clean:
	rm -rf $(BUILD)

.SECONDARY:
-include $(shell find $(BUILD) -name '*.d' 2>/dev/null)
