# Releases: the image, the tarball.

# The image's binary. The only shared library that it needs is the C library. scripts/no_tls.c replaces GnuTLS. The map
# tells scripts/image which archives were linked.
STATIC_LIBS = -Wl,-Bstatic -lmicrohttpd -lhiredis -ljansson -linih -levent_extra -levent_core -Wl,-Bdynamic
$(BUILD)/breakerd-static: $(BUILD)/daemon/main.o $(OBJECTS) $(BUILD)/scripts/no_tls.o
	$(SAY) LD $@
	$(Q)$(CC) $(LDFLAGS_ALL) -Wl,-Map=$@.map -o $@ $^ $(STATIC_LIBS)

# Without libsystemd, and without paths of the build in the binary.
.PHONY: image image-try
image: ## make an OCI image, $(BUILD)/image.oci.tar, and its bill of materials, $(BUILD)/image.spdx.json
	@scripts/install-packages build image
	@$(MAKE) $(JOBS) --no-print-directory BUILD=$(BUILD)-image SYSTEMD= \
		CFLAGS='-O2 -g0 -ffile-prefix-map=$(CURDIR)=.' $(BUILD)-image/breakerd-static
	@mkdir -p $(BUILD)
	@scripts/image $(BUILD)-image/breakerd-static $(VERSION) $(BUILD)

image-try: ## test the image in containers of runc, and a second build of it; as root
	@scripts/install-packages build image image-try
	@$(MAKE) --no-print-directory BUILD=$(BUILD) image
	IMAGE=$(abspath $(BUILD)) BREAKERD=$(abspath $(BUILD)-image/breakerd-static) \
		$(PYTHON) -m pytest -q -p no:cacheprovider tests/image $(PYTEST_ARGS)

# The tarball has the last commit, so changed and untracked files are not in it.
NAME = breakerd-$(VERSION)
.PHONY: dist dist-check dist-try
dist: ## make a tarball of the last commit, $(BUILD)/breakerd-VERSION.tar.gz
	@[ -e .git ] && git rev-parse -q --verify HEAD >/dev/null || \
		{ echo "make dist needs a git clone: it packs the last commit" >&2; exit 1; }
	@mkdir -p $(BUILD)
	@git archive --format=tar --prefix=$(NAME)/ HEAD >$(BUILD)/$(NAME).tar
	@gzip -9nc $(BUILD)/$(NAME).tar >$(BUILD)/$(NAME).tar.gz.new
	@rm $(BUILD)/$(NAME).tar
	@mv $(BUILD)/$(NAME).tar.gz.new $(BUILD)/$(NAME).tar.gz
	@sha256sum $(BUILD)/$(NAME).tar.gz

dist-check: dist ## unpack the tarball and run all commands of CONTRIBUTING.md there
	@rm -rf $(BUILD)/dist && mkdir -p $(BUILD)/dist
	@tar -x -C $(BUILD)/dist -f $(BUILD)/$(NAME).tar.gz
	@cd $(BUILD)/dist/$(NAME) && ! $(MAKE) -s BUILD=build-none dist 2>/dev/null && [ ! -e build-none ]
	@cd $(BUILD)/dist/$(NAME) && awk '/^```sh$$/ { on = 1; next } /^```$$/ { on = 0 } on' CONTRIBUTING.md | \
		env -u MAKEFLAGS -u MAKELEVEL -u BUILD -u MFLAGS bash -eux
	@$(BUILD)/dist/$(NAME)/build/breakerd --version
	@rm -rf $(BUILD)/dist

dist-try: dist ## run all tests of the tarball in clean trees of Debian 12 and 13; as root
	@scripts/install-packages tree
	BUILD=$(BUILD) tests/deb/dist bookworm
	BUILD=$(BUILD) tests/deb/dist trixie

.PHONY: readme-try
readme-try: ## run every command of README.md and CONTRIBUTING.md in clean trees of Debian 12 and 13; as root
	@scripts/install-packages tree
	tests/deb/readme bookworm
	tests/deb/readme trixie
