/*
 * What the fuzz targets share. Each is a program of libFuzzer: clang's
 * -fsanitize=fuzzer calls LLVMFuzzerTestOneInput again and again (scripts/fuzz).
 */
#ifndef BREAKERD_TESTS_FUZZ_H
#define BREAKERD_TESTS_FUZZ_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* As assert, but not for NDEBUG to take away: libFuzzer keeps the input that fails it. */
#define FUZZ_CHECK(condition)                                                                      \
	do {                                                                                       \
		if (!(condition)) {                                                                \
			fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);            \
			abort();                                                                   \
		}                                                                                  \
	} while (0)

struct fuzz_text {
	const char *p;
	size_t len;
};

/* Cuts off what stands before the first `mark`; the mark is dropped. All of it, if there is none.
 */
struct fuzz_text fuzz_until(struct fuzz_text *rest, const char *mark);

/* A NUL-terminated copy, which ends where the memory ends; to be freed. */
char *fuzz_string(struct fuzz_text text);

/* Makes `fd`, an open memfd, hold these bytes and nothing else. */
void fuzz_fill(int fd, struct fuzz_text text);

/* A memfd, and the name under which it can be opened. */
int fuzz_memfd(char path[32]);

/* A sentence for a person: not empty, one line, ends within size. */
void fuzz_check_sentence(const char *why, size_t size);

#endif
