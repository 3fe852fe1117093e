# Installing, and the Debian package.

UNITDIR = $(DESTDIR)$(PREFIX)/lib/systemd/system
# Removes from the unit what a daemon without libsystemd cannot do.
WITHOUT_SYSTEMD = $(if $(SYSTEMD),,-e 's,^Type=notify$$,Type=exec,' -e '/^WatchdogSec=/d' \
	-e '/The event loop feeds the watchdog/d' -e 's, breakerd.socket$$,,')
.PHONY: install
install: $(BUILD)/breakerd ## install under DESTDIR and PREFIX; keeps an existing configuration
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
uninstall: ## remove what install has installed, except the configuration
	rm -f $(DESTDIR)$(PREFIX)/bin/breakerd \
		$(DESTDIR)$(PREFIX)/share/man/man8/breakerd.8 \
		$(DESTDIR)$(PREFIX)/share/man/man5/breakerd.conf.5 \
		$(UNITDIR)/breakerd.service $(UNITDIR)/breakerd.socket \
		$(DESTDIR)$(PREFIX)/lib/sysusers.d/breakerd.conf \
		$(DESTDIR)$(PREFIX)/lib/tmpfiles.d/breakerd.conf

# dpkg-buildpackage leaves files in its tree, so it gets a copy of the sources, without builds: this
# copy is in a build directory.
DEB = $(abspath $(BUILD))/deb
.PHONY: deb
deb: ## make a Debian package for this release in $(BUILD)/deb, and run lintian on it
	@scripts/install-packages build deb
	rm -rf $(DEB) && mkdir -p $(DEB)/breakerd
	tar -c --exclude='./build*' --exclude='./$(patsubst $(CURDIR)/%,%,$(abspath $(BUILD)))' --exclude=./.git --exclude=node_modules --exclude=__pycache__ . | \
		tar -x -C $(DEB)/breakerd
	cd $(DEB)/breakerd && DEB_BUILD_OPTIONS="nocheck $$DEB_BUILD_OPTIONS" DEB_BUILD_PROFILES=nocheck \
		dpkg-buildpackage --build=binary --no-sign >$(DEB)/log 2>&1 || { tail -n 40 $(DEB)/log; exit 1; }
	rm -rf $(DEB)/unpacked && dpkg-deb -x $(DEB)/breakerd_*.deb $(DEB)/unpacked
	scripts/check-links --top $(DEB)/unpacked/usr/share/doc/breakerd
	rm -rf $(DEB)/unpacked
	lintian --allow-root --fail-on error --info $(DEB)/*.changes
	@echo; ls $(DEB)/*.deb

.PHONY: deb-try
deb-try: ## test the package in clean trees of Debian 12 and 13, also under systemd; as root
	@scripts/install-packages tree
	tests/deb/try bookworm
	tests/deb/try trixie

