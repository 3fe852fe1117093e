# Checks of the sources: format, compilers, analyzers, includes.

.PHONY: format
format: ## format the C sources with clang-format
	clang-format -i $(C_FILES)

.PHONY: format-check
format-check: ## fail if `make format` would change anything
	clang-format --dry-run -Werror $(C_FILES)

.PHONY: lint
lint: lint-gcc lint-clang lint-includes lint-loop lint-tidy lint-cppcheck lint-sh lint-py lint-links lint-openapi lint-kubernetes ## compilers without a warning, includes, the event loop, clang-tidy, cppcheck, shellcheck, pyflakes, links, spectral, Kubernetes schemas

.PHONY: lint-gcc lint-clang lint-includes lint-loop lint-tidy lint-cppcheck lint-sh lint-py lint-links lint-openapi lint-kubernetes
lint-gcc lint-clang: lint-%:
	@$(MAKE) $(JOBS) --no-print-directory BUILD=$(BUILD)-$* CC=$* CFLAGS='-O2 -g -Werror' \
		all tests $(BUILD)-$*/scripts/no_tls.o

# scripts/check-includes looks for circles among functions in the objects of that build.
lint-includes: lint-gcc
	scripts/check-includes $(BUILD)-gcc

lint-loop:
	scripts/check-loop

lint-tidy: $(BUILD)/gen/circuit_lua.c
	@clang-tidy --version >/dev/null
	@echo clang-tidy $(words $(C_SOURCES)) files
	@printf '%s\n' $(C_SOURCES) | xargs -P $$(nproc) -I{} \
		clang-tidy --quiet {} -- $(CPPFLAGS_ALL) -std=gnu11 $(WARNINGS) 2>/dev/null

# uninitvar: cppcheck does not understand the loops of sys/queue.h. The compilers and clang-tidy look for uninitialized
# variables, too.
lint-cppcheck:
	cppcheck --quiet --std=c11 --enable=warning,performance,portability --inline-suppr \
		--suppress=missingIncludeSystem --suppress=uninitvar --suppress=normalCheckLevelMaxBranches --error-exitcode=1 -j $$(nproc) \
		-D_GNU_SOURCE -DBREAKERD_VERSION='""' -DHAVE_LIBSYSTEMD -I. -Idaemon $(SOURCES) daemon/main.c

lint-sh:
	shellcheck $(SH_FILES)

lint-py:
	$(if $(PY_FILES),$(PYTHON) -m pyflakes $(PY_FILES))

lint-links:
	scripts/check-links

lint-openapi:
	scripts/interop lint

lint-kubernetes:
	scripts/interop kubernetes

