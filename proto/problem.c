/*
 * Problem documents (RFC 9457).
 */
#include "proto/problem.h"

#include "proto/key.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

static const struct {
	const char *code;
	const char *type;
	const char *title;
	int status;
} problems[] = {
#define X(id, code_, status_, title_)                                                              \
	[PROBLEM_##id] = {.code = code_,                                                           \
			  .type = PROBLEM_TYPE_PREFIX code_,                                       \
			  .title = title_,                                                         \
			  .status = status_},
	PROBLEM_TABLE(X)
#undef X
};

const char *problem_code(enum problem p)
{
	return problems[p].code;
}

int problem_status(enum problem p)
{
	return problems[p].status;
}

const char *problem_title(enum problem p)
{
	return problems[p].title;
}

static json_t *circuit_object(const struct circuit *c)
{
	return json_pack("{s:s, s:I, s:I, s:I, s:I}", "state", circuit_state_name(c->state),
			 "failureCount", (json_int_t)c->failure_count, "successCount",
			 (json_int_t)c->success_count, "lastFailureTime",
			 (json_int_t)c->last_failure_time, "lastStateChange",
			 (json_int_t)c->last_state_change);
}

static json_t *detail_string(const char *detail)
{
	size_t len = strlen(detail);
	char *clean = malloc(3 * len + 1);
	json_t *string = NULL;

	if (clean) {
		size_t n = utf8_clean(clean, 3 * len + 1, detail, len);

		string = json_stringn(clean, n);
	}
	free(clean);
	return string;
}

/* The object as one line, with newline and NUL; NULL when out of memory. The caller frees it. */
static char *dump_line(const json_t *object, size_t *len)
{
	size_t size = json_dumpb(object, NULL, 0, JSON_COMPACT);
	char *line = size ? malloc(size + 2) : NULL;

	if (!line)
		return NULL;
	if (json_dumpb(object, line, size, JSON_COMPACT) != size) {
		free(line);
		return NULL;
	}
	line[size] = '\n';
	line[size + 1] = '\0';
	*len = size + 1;
	return line;
}

char *problem_encode(enum problem p, const char *detail, enum problem_applied applied,
		     const struct circuit *circuit, size_t *len)
{
	char *line = NULL;
	/* json_object_set_new takes over its value, and fails for NULL. */
	json_t *doc = json_pack("{s:s, s:s, s:i}", "type", problems[p].type, "title",
				problems[p].title, "status", problems[p].status);

	if (!doc || json_object_set_new(doc, "detail", detail_string(detail)) != 0 ||
	    json_object_set_new(doc, "code", json_string(problems[p].code)) != 0)
		goto out;
	if (applied != PROBLEM_APPLIED_NONE &&
	    json_object_set_new(doc, "applied",
				json_string(applied == PROBLEM_APPLIED_NO ? "no" : "unknown")) != 0)
		goto out;
	if (circuit && json_object_set_new(doc, "circuit", circuit_object(circuit)) != 0)
		goto out;
	line = dump_line(doc, len);
out:
	json_decref(doc);
	return line;
}
