/*
 * The body of a report: proto/report_body.c. Each body is read twice, the second time with an
 * escape for the first letter of its first string. The fast scanner does not read escapes, so this
 * compares it with jansson, which reads all of JSON.
 */
#include "fuzz.h"
#include "proto/report_body.h"

#include <string.h>

static const struct policy policy = {
	.slow_time_ms = 100,
	.failure_status.bits = {[6] = ~UINT64_C(0)},
	.ignore_status.bits = {[4] = ~UINT64_C(0)},
};

static enum report_body_status read_body(struct fuzz_text body, struct breaker_call *call)
{
	char why[512] = "unset";
	enum report_body_status status;

	memset(call, 0, sizeof(*call));
	call->count = 77;
	status = report_body_read(body.p, body.len, &policy, "k", 1, call, why, sizeof(why));
	FUZZ_CHECK(call->count == 77);
	if (status == REPORT_BODY_OK)
		return status;
	fuzz_check_sentence(why, sizeof(why));
	FUZZ_CHECK(call->outcome == BREAKER_SUCCESS && !call->slow &&
		   call->permit.kind == BREAKER_PERMIT_NONE);
	return status;
}

/* The same body with an escape; p is NULL if there is no letter to escape. */
static struct fuzz_text escaped(struct fuzz_text body)
{
	const char *quote = body.len ? memchr(body.p, '"', body.len) : NULL;
	size_t before = quote ? (size_t)(quote - body.p) + 1 : 0;
	char *copy;

	if (!quote || before == body.len || body.p[before] < 'a' || body.p[before] > 'z')
		return (struct fuzz_text){NULL, 0};
	copy = malloc(body.len + 6);
	FUZZ_CHECK(copy != NULL);
	memcpy(copy, body.p, before);
	snprintf(copy + before, 7, "\\u%04x", (unsigned char)body.p[before]);
	memcpy(copy + before + 6, body.p + before + 1, body.len - before - 1);
	return (struct fuzz_text){copy, body.len + 5};
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz_text body = {size ? (const char *)data : "", size};
	struct fuzz_text other = escaped(body);
	struct breaker_call call, same;
	enum report_body_status status = read_body(body, &call);

	if (!other.p)
		return 0;
	FUZZ_CHECK(read_body(other, &same) == status);
	FUZZ_CHECK(call.outcome == same.outcome && call.slow == same.slow &&
		   call.permit.kind == same.permit.kind && call.permit.id == same.permit.id &&
		   call.permit.since_ms == same.permit.since_ms);
	free((char *)other.p);
	return 0;
}
