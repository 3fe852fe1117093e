/*
 * Lines of access logs: proto/report_line.c. The report that is read from a line is valid, and
 * text appended to the line does not change it, though it may make the line invalid.
 */
#include "fuzz.h"
#include "proto/report_line.h"

#include <string.h>

static void check_read(const struct report_line *line)
{
	struct policy policy = {.slow_time_ms = 100};
	struct breaker_call call = {.policy = &policy};

	FUZZ_CHECK(!key_check(line->key, line->key_len));
	FUZZ_CHECK(line->status == REPORT_LINE_NO_STATUS || line->status == 0 ||
		   (line->status >= POLICY_STATUS_MIN && line->status <= POLICY_STATUS_MAX));
	FUZZ_CHECK(line->permit_len <= sizeof(line->permit));
	if (!report_line_fill(line, &call))
		FUZZ_CHECK(call.outcome < BREAKER_OUTCOMES);
}

/* Checks a line that ends with text of an end user: the line is refused or read without that text.
 */
static void check_appended(const uint8_t *data, size_t size)
{
	static const char head[] = "circuit=mine status=200 permit=- time=1 ua=";
	char *text = malloc(sizeof(head) - 1 + size);
	struct report_line line;

	FUZZ_CHECK(text);
	memcpy(text, head, sizeof(head) - 1);
	if (size)
		memcpy(text + sizeof(head) - 1, data, size);
	if (!report_line_read(text, sizeof(head) - 1 + size, &line)) {
		FUZZ_CHECK(line.key_len == 4 && memcmp(line.key, "mine", 4) == 0);
		FUZZ_CHECK(line.status == 200 && line.permit_len == 0 && line.time_ms == 1000);
	}
	free(text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char *text;
	struct report_line line;

	if (size > REPORT_LINE_MAX)
		return 0;
	/* The memory ends with the text, so that a sanitizer sees reads beyond. */
	text = malloc(size ? size : 1);
	FUZZ_CHECK(text);
	if (size)
		memcpy(text, data, size);
	if (!report_line_read(text, size, &line))
		check_read(&line);
	free(text);
	check_appended(data, size);
	return 0;
}
