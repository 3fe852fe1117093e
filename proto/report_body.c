/*
 * The body of a report. A scanner reads what programs send: plain members without escapes. What the
 * scanner does not understand, or what is to be refused, jansson reads, which knows all of JSON. A
 * fuzzer compares the two.
 */
#include "proto/report_body.h"

#include "proto/body.h"

#include <stdlib.h>
#include <string.h>

#define EXAMPLE  "for example {\"permit\":\"...\",\"outcome\":\"failure\"}"
#define OUTCOMES "\"success\", \"failure\" or \"ignored\""

/* The members as they were sent. Strings are not NUL-terminated. */
struct report {
	const char *outcome; /* NULL: `status` is there */
	size_t outcome_len;
	double status;
	double duration_ms; /* below 0: not sent */
	const char *permit; /* NULL: not sent */
	size_t permit_len;
};

/* --- the scanner -------------------------------------------------------------------------- */

struct scan {
	const char *p, *end;
};

static void skip_blanks(struct scan *s)
{
	while (s->p < s->end && (*s->p == ' ' || *s->p == '\t' || *s->p == '\r' || *s->p == '\n'))
		s->p++;
}

/* Reads the character, and blanks before it. */
static inline bool take(struct scan *s, char c)
{
	if (s->p == s->end || *s->p != c) {
		skip_blanks(s);
		if (s->p == s->end || *s->p != c)
			return false;
	}
	s->p++;
	return true;
}

/* Reads what is between two quotes. If the string has escapes this is not what it means; but then
 * it is no word that is known, and no permit, so jansson reads the body again. */
static bool take_word(struct scan *s, const char **word, size_t *len)
{
	const char *quote;

	if (!take(s, '"'))
		return false;
	*word = s->p;
	quote = memchr(s->p, '"', (size_t)(s->end - s->p));
	if (!quote)
		return false;
	*len = (size_t)(quote - s->p);
	s->p = quote + 1;
	return true;
}

/* Reads a number of at most nine digits before the point and three after it. A double holds that
 * many digits exactly, so the division rounds as a conversion of the whole number would. */
static bool take_number(struct scan *s, double *out)
{
	const char *begin, *point;
	double n = 0, scale = 1;

	skip_blanks(s);
	for (begin = s->p; s->p < s->end && *s->p >= '0' && *s->p <= '9'; s->p++)
		n = n * 10 + (*s->p - '0');
	if (s->p == begin || s->p - begin > 9 || (*begin == '0' && s->p - begin > 1))
		return false;
	if (s->p < s->end && *s->p == '.') {
		for (point = ++s->p; s->p < s->end && *s->p >= '0' && *s->p <= '9'; s->p++) {
			n = n * 10 + (*s->p - '0');
			scale *= 10;
		}
		if (s->p == point || s->p - point > 3)
			return false;
	}
	*out = n / scale;
	return s->p < s->end && *s->p != 'e' && *s->p != 'E';
}

static bool is_word(const char *word, size_t len, const char *other)
{
	return len == strlen(other) && memcmp(word, other, len) == 0;
}

static bool scan_member(struct scan *s, struct report *r)
{
	const char *name;
	size_t len;

	if (!take_word(s, &name, &len) || !take(s, ':'))
		return false;
	if (is_word(name, len, "permit") && !r->permit)
		return take_word(s, &r->permit, &r->permit_len);
	if (is_word(name, len, "outcome") && !r->outcome && r->status < 0)
		return take_word(s, &r->outcome, &r->outcome_len);
	if (is_word(name, len, "status") && !r->outcome && r->status < 0)
		return take_number(s, &r->status);
	if (is_word(name, len, "durationMs") && r->duration_ms < 0)
		return take_number(s, &r->duration_ms);
	return false;
}

static bool scan_report(const char *body, size_t len, struct report *r)
{
	struct scan s = {body, body + len};

	*r = (struct report){.status = -1, .duration_ms = -1};
	if (!take(&s, '{'))
		return false;
	do {
		if (!scan_member(&s, r))
			return false;
	} while (take(&s, ','));
	if (!take(&s, '}'))
		return false;
	skip_blanks(&s);
	return s.p == s.end && (r->outcome || r->status >= 0);
}

/* --- all of JSON -------------------------------------------------------------------------- */

static const char *const members[] = {"permit", "outcome", "status", "durationMs"};

static const struct body_words words = {
	.what = "a report",
	.needs = "it must say what became of the request",
	.takes = "`outcome` or `status`, and, optionally, `permit` and `durationMs`",
	.example = EXAMPLE,
	.members = members,
	.member_count = 4,
};

/* Checks that the member, if it is there, has that type. */
static bool check_member(const json_t *root, const char *name, bool number, char *why,
			 size_t why_size)
{
	const json_t *value = json_object_get(root, name);

	if (!value || (number ? json_is_number(value) : json_is_string(value)))
		return true;
	body_explain(why, why_size, "`%s` is %s; it must be %s.", name, body_type_name(value),
		     number ? "a number" : "a string");
	return false;
}

static bool check_members(const json_t *root, char *why, size_t why_size)
{
	bool outcome = json_object_get(root, "outcome") != NULL;
	bool status = json_object_get(root, "status") != NULL;
	const json_t *duration = json_object_get(root, "durationMs");

	if (outcome == status) {
		body_explain(
			why, why_size,
			"The body has %s `outcome` %s `status`; it must have one of them, " EXAMPLE
			".",
			outcome ? "both" : "neither", outcome ? "and" : "nor");
		return false;
	}
	if (!check_member(root, "outcome", false, why, why_size) ||
	    !check_member(root, "status", true, why, why_size) ||
	    !check_member(root, "durationMs", true, why, why_size) ||
	    !check_member(root, "permit", false, why, why_size))
		return false;
	if (!duration || json_number_value(duration) >= 0)
		return true;
	body_explain(why, why_size, "`durationMs` is %g; it must be 0 or more.",
		     json_number_value(duration));
	return false;
}

/* Returns the parsed body, which the strings of *r point into; or NULL, with the reason in why. */
static json_t *parse_report(const char *body, size_t len, struct report *r, char *why,
			    size_t why_size)
{
	json_t *root = body_read(body, len, &words, why, why_size);
	const json_t *outcome, *duration, *permit;

	if (!root)
		return NULL;
	if (!check_members(root, why, why_size)) {
		json_decref(root);
		return NULL;
	}
	outcome = json_object_get(root, "outcome");
	permit = json_object_get(root, "permit");
	duration = json_object_get(root, "durationMs");
	*r = (struct report){
		.outcome = json_string_value(outcome),
		.outcome_len = json_string_length(outcome),
		.status = json_number_value(json_object_get(root, "status")),
		.duration_ms = duration ? json_number_value(duration) : -1,
		.permit = json_string_value(permit),
		.permit_len = json_string_length(permit),
	};
	return root;
}

/* --- what it says ------------------------------------------------------------------------- */

/* The outcome, or the status as the policy has it. False if there is no such outcome or status. */
static bool read_outcome(const struct report *r, const struct policy *policy,
			 enum breaker_outcome *out)
{
	unsigned status;

	if (r->outcome) {
		if (is_word(r->outcome, r->outcome_len, "success"))
			*out = BREAKER_SUCCESS;
		else if (is_word(r->outcome, r->outcome_len, "failure"))
			*out = BREAKER_FAILURE;
		else if (is_word(r->outcome, r->outcome_len, "ignored"))
			*out = BREAKER_IGNORED;
		else
			return false;
		return true;
	}
	if (r->status < 0 || r->status > POLICY_STATUS_MAX)
		return false;
	status = (unsigned)r->status;
	if (status != r->status || (status != 0 && status < POLICY_STATUS_MIN))
		return false;
	if (policy_statuses_have(&policy->ignore_status, status))
		*out = BREAKER_IGNORED;
	else if (status == 0 || policy_statuses_have(&policy->failure_status, status))
		*out = BREAKER_FAILURE;
	else
		*out = BREAKER_SUCCESS;
	return true;
}

static bool accept(const struct report *r, const struct policy *policy, const char *key,
		   size_t key_len, struct breaker_call *call)
{
	struct breaker_permit permit = {.kind = BREAKER_PERMIT_NONE};
	enum breaker_outcome outcome;

	if (!read_outcome(r, policy, &outcome))
		return false;
	if (r->permit && !breaker_permit_decode(r->permit, r->permit_len, key, key_len, &permit))
		return false;
	call->outcome = outcome;
	call->permit = permit;
	call->slow = policy->slow_time_ms > 0 && r->duration_ms >= (double)policy->slow_time_ms;
	return true;
}

/* Writes why accept has returned false. */
static enum report_body_status refuse(const struct report *r, const struct policy *policy,
				      char *why, size_t why_size)
{
	char word[BODY_WORD_MAX];
	enum breaker_outcome outcome;

	if (read_outcome(r, policy, &outcome)) {
		body_explain(why, why_size,
			     "`permit` is \"%s\", which was not given for this circuit; send back "
			     "what acquire gave, or leave it out.",
			     body_shown(word, r->permit, r->permit_len));
		return REPORT_BODY_PERMIT;
	}
	if (r->outcome)
		body_explain(why, why_size, "`outcome` is \"%s\"; it must be " OUTCOMES ".",
			     body_shown(word, r->outcome, r->outcome_len));
	else
		body_explain(
			why, why_size,
			"`status` is %g; it must be the HTTP status of the answer, 100 to 599, "
			"or 0 if none came.",
			r->status);
	return REPORT_BODY_OUTCOME;
}

enum report_body_status report_body_read(const char *body, size_t len, const struct policy *policy,
					 const char *key, size_t key_len, struct breaker_call *call,
					 char *why, size_t why_size)
{
	enum report_body_status status;
	struct report r;
	json_t *root;

	if (scan_report(body, len, &r) && accept(&r, policy, key, key_len, call))
		return REPORT_BODY_OK;
	root = parse_report(body, len, &r, why, why_size);
	if (!root)
		return REPORT_BODY_INVALID;
	status = REPORT_BODY_OK;
	if (!accept(&r, policy, key, key_len, call))
		status = refuse(&r, policy, why, why_size);
	json_decref(root);
	return status;
}
