/*
 * Helpers of the fuzz targets. Each target is a program of libFuzzer: clang's -fsanitize=fuzzer
 * calls LLVMFuzzerTestOneInput for each input (scripts/fuzz).
 */
#ifndef BREAKERD_TESTS_FUZZ_H
#define BREAKERD_TESTS_FUZZ_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* As assert, but also with NDEBUG. libFuzzer keeps the input that fails. */
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

/* Cuts off and returns the text before the first `mark`, and drops the mark. Without a mark that is
 * the whole text. */
struct fuzz_text fuzz_until(struct fuzz_text *rest, const char *mark);

/* A NUL-terminated copy, whose memory ends with the NUL. The caller frees it. */
char *fuzz_string(struct fuzz_text text);

/* Replaces the content of `fd`, an open memfd, by these bytes. */
void fuzz_fill(int fd, struct fuzz_text text);

/* Makes a memfd; `path` gets the name under which it can be opened. */
int fuzz_memfd(char path[32]);

/* Checks a message for people: not empty, one line, NUL-terminated within size. */
void fuzz_check_sentence(const char *why, size_t size);

#endif
