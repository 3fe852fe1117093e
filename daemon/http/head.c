#include "http/head.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

/*
 * libmicrohttpd 0.9 silently accepts a bare LF as a line's end, joins folded lines (to the header's
 * name!), ends a line at a NUL and skips spaces. But it parses the head in the buffer where it was
 * received, and overwrites ':' and each byte of a line's end with a NUL. So in a head that is
 * written as RFC 9112 has it, the pieces follow each other at known distances: one NUL between
 * method, target and version, two at the end of each line, and the length of the whole is what
 * MHD_CONNECTION_INFO_REQUEST_HEADER_SIZE says. In any other head some piece is out of place, and
 * the request is refused.
 *
 * Some heads that are not as RFC 9112 has them look the same in the buffer:
 * - NUL LF at the end of a line, instead of CR LF;
 * - at the end of the head, where libmicrohttpd takes a line that begins with NUL or ':' for the
 *   empty one: LF NUL CR LF, LF ':' CR LF or CR LF ':' LF, instead of CR LF CR LF.
 * They are accepted. No other reader accepts such a NUL or a header without a name, so there is
 * none that could read the request in another way.
 */

struct walk {
	bool in_place; /* libmicrohttpd parses in its buffer, as said above */
	bool http_1_1;
	const char *next; /* where the next line has to begin */
	const char *error;
	unsigned lengths, encodings;
	struct http_head *head;
};

static const char request_line_form[] =
	"The request line is not written as RFC 9112 has it: method, one space, target, one space, "
	"HTTP/1.1, CR LF.";

/* libmicrohttpd 1.0 refuses all that by itself, if told to, and parses in another way. */
bool http_head_is_lenient(void)
{
	return strncmp(MHD_get_version(), "0.", 2) == 0;
}

int http_head_strictness(void)
{
	/* Level 0: level 1 ends connections without an answer, and level -1 does not work as
	 * documented. */
	return http_head_is_lenient() ? 0 : 1;
}

/* The name of our own Cookie header. on_field tells it from the client's by its address. */
static const char our_cookie[] = MHD_HTTP_HEADER_COOKIE;

void http_head_hide_cookies(struct MHD_Connection *mhd)
{
	/* Not empty: to skip spaces, libmicrohttpd 0.9 would read before the value's beginning. */
	MHD_set_connection_value(mhd, MHD_HEADER_KIND, our_cookie, " ");
}

/* RFC 9110, section 5.6.2. */
static bool is_token(const char *text, size_t len)
{
	static const bool allowed[256] = {
		['0' ... '9'] = true,  ['A' ... 'Z'] = true, ['a' ... 'z'] = true, ['!'] = true,
		['#' ... '\''] = true, ['*'] = true,         ['+'] = true,         ['-'] = true,
		['.'] = true,          ['^' ... '`'] = true, ['|'] = true,         ['~'] = true,
	};

	for (size_t i = 0; i < len; i++)
		if (!allowed[(unsigned char)text[i]])
			return false;
	return len > 0;
}

/* Eight bytes of n each; n is at most 128. */
#define EIGHT(n) ((n)*UINT64_C(0x0101010101010101))

/* True if one of the eight bytes is below n, at most 128. */
static bool has_below(uint64_t eight, uint64_t n)
{
	return (eight - EIGHT(n)) & ~eight & EIGHT(0x80);
}

/* Eight bytes at a time, as this runs for each request. */
bool http_head_target_is_broken(const char *target, size_t len)
{
	uint64_t eight;

	for (; len >= sizeof(eight); target += sizeof(eight), len -= sizeof(eight)) {
		memcpy(&eight, target, sizeof(eight));
		if (has_below(eight, ' ' + 1) || has_below(eight ^ EIGHT(0x7F), 1))
			return true;
	}
	for (; len > 0; target++, len--)
		if ((unsigned char)*target <= ' ' || *target == 0x7F)
			return true;
	return false;
}

const struct http_refusal http_head_broken_target = {
	.problem = PROBLEM_INVALID_KEY,
	.why = "There is a space or a control character in the request target; percent-encode it.",
};

/* Bytes of the token that begins at p. */
static size_t token_len(const char *p, const char *end)
{
	size_t len = 0;

	while (p + len < end && is_token(p + len, 1))
		len++;
	return len;
}

static bool is_version(const char *p, size_t len)
{
	return len == 8 && memcmp(p, "HTTP/", 5) == 0 && isdigit((unsigned char)p[5]) &&
	       p[6] == '.' && isdigit((unsigned char)p[7]);
}

/* True if something is wrong with the rest of a request line, "target version", which ends at
 * `end`, before the CR. Sets *no. */
static bool rest_is_wrong(const char *target, const char *end, struct http_refusal *no)
{
	const char *space = memrchr(target, ' ', (size_t)(end - target));

	if (!space || space == target || !is_version(space + 1, (size_t)(end - space - 1)))
		no->why = request_line_form;
	else if (space[6] != '1')
		*no = (struct http_refusal){.status = 505, .why = "Ask in HTTP/1.1.\n"};
	else if (http_head_target_is_broken(target, (size_t)(space - target)))
		*no = http_head_broken_target;
	return no->why;
}

enum http_line_state http_head_check_line(const char *bytes, size_t len, const char **method,
					  size_t *method_len, struct http_refusal *no)
{
	const char *end = bytes + len, *p = bytes, *line_end;

	*no = (struct http_refusal){.problem = PROBLEM_INVALID_BODY};
	*method = NULL;
	/* One empty line may come before a request (RFC 9112, section 2.2). */
	if (len <= 2 && memcmp(bytes, "\r\n", len) == 0)
		return HTTP_LINE_NONE;
	if (len > 2 && memcmp(bytes, "\r\n", 2) == 0)
		p += 2;
	*method_len = token_len(p, end);
	if (p + *method_len == end)
		return HTTP_LINE_BEGUN;
	if (*method_len == 0 || p[*method_len] != ' ') {
		no->why = "This is no HTTP: a request begins with a method and a space. There is "
			  "no TLS here; ask with http://.";
		return HTTP_LINE_WRONG;
	}
	*method = p;
	line_end = memchr(p, '\n', len - (size_t)(p - bytes));
	if (!line_end)
		return HTTP_LINE_BEGUN;
	if (line_end[-1] != '\r') {
		no->why = request_line_form;
		return HTTP_LINE_WRONG;
	}
	return rest_is_wrong(p + *method_len + 1, line_end - 1, no) ? HTTP_LINE_WRONG
								    : HTTP_LINE_SOUND;
}

static bool is_control(char c)
{
	return (unsigned char)c < 0x20 || c == 0x7F;
}

/* RFC 9110, section 5.5: visible characters, tabs, spaces and bytes from 0x80 on. */
static bool is_field_value(const char *text, size_t len)
{
	for (size_t i = 0; i < len; i++)
		if (is_control(text[i]) && text[i] != '\t')
			return false;
	return true;
}

#define NAME_IS(key, len, name) ((len) == sizeof(name) - 1 && strncasecmp(key, name, len) == 0)

/* Steps over a header line; false if a piece of it is out of place. */
static bool step(struct walk *w, const char *key, size_t key_len, const char *value,
		 size_t value_len)
{
	const char *p = key + key_len + 1;

	if (key != w->next || value < p)
		return false;
	p += strspn(p, " \t");
	/* value[value_len + 1] is in the buffer: at least the empty line follows. */
	if (p != value || value[value_len] != '\0' || value[value_len + 1] != '\0')
		return false;
	w->next = value + value_len + 2;
	return true;
}

/* Headers that gateways set. A page of another origin can send none of them without a preflight
 * (Fetch, "CORS-safelisted request-header"), which breakerd refuses. */
static bool is_of_gateway(const char *key, size_t len)
{
	/* Enough for nearly all headers. */
	if ((key[0] | 0x20) != 'x' && (key[0] | 0x20) != 'b')
		return false;
	return NAME_IS(key, len, "X-Forwarded-For") || NAME_IS(key, len, "X-Forwarded-Uri") ||
	       NAME_IS(key, len, "X-Original-Uri") || NAME_IS(key, len, "X-Request-Id") ||
	       NAME_IS(key, len, "Breakerd-Gateway");
}

/* HTTP_FIELDS: none of those that are asked for. */
static enum http_field field_of(const char *key, size_t len)
{
	if (NAME_IS(key, len, "Host"))
		return HTTP_FIELD_HOST;
	if (NAME_IS(key, len, "Origin"))
		return HTTP_FIELD_ORIGIN;
	if (NAME_IS(key, len, "Sec-Fetch-Site"))
		return HTTP_FIELD_SEC_FETCH_SITE;
	if (NAME_IS(key, len, "Authorization"))
		return HTTP_FIELD_AUTHORIZATION;
	if (is_of_gateway(key, len))
		return HTTP_FIELD_GATEWAY;
	if (NAME_IS(key, len, "Last-Event-ID"))
		return HTTP_FIELD_LAST_EVENT_ID;
	if (NAME_IS(key, len, "Accept"))
		return HTTP_FIELD_ACCEPT;
	return HTTP_FIELDS;
}

static enum MHD_Result on_field(void *arg, enum MHD_ValueKind kind, const char *key, size_t key_len,
				const char *value, size_t value_len)
{
	struct walk *w = arg;
	struct http_head *head = w->head;
	enum http_field field;

	(void)kind;
	if (key == our_cookie)
		return MHD_YES;
	if (!value || !is_token(key, key_len) || !is_field_value(value, value_len) ||
	    (w->in_place && !step(w, key, key_len, value, value_len))) {
		w->error = "A header is not written as RFC 9112 has it: a name, a colon right "
			   "behind it, the value without control characters, CR LF.";
		return MHD_NO;
	}
	field = field_of(key, key_len);
	if (field != HTTP_FIELDS) {
		if (head->fields[field].count++ == 0)
			head->fields[field].value = value;
	} else if (NAME_IS(key, key_len, "Content-Length")) {
		w->lengths++;
		head->length = strtoull(value, NULL, 10);
	} else if (NAME_IS(key, key_len, "Transfer-Encoding")) {
		w->encodings++;
		head->chunked = strcasecmp(value, "chunked") == 0;
	} else if (NAME_IS(key, key_len, MHD_HTTP_HEADER_COOKIE)) {
		head->has_cookies = true;
	}
	return MHD_YES;
}

/* RFC 9112, sections 3.2 and 6.3. */
static const char *fields_error(const struct walk *w)
{
	if (w->lengths > 1)
		return "There is more than one Content-Length.";
	if (w->encodings && (w->encodings > 1 || !w->head->chunked || w->lengths || !w->http_1_1))
		return "Send the body with a Content-Length or, instead of that and in HTTP/1.1, "
		       "with \"Transfer-Encoding: chunked\".";
	if (w->http_1_1 && !w->head->fields[HTTP_FIELD_HOST].count)
		return "A request in HTTP/1.1 needs a Host header.";
	return NULL;
}

static const char *line_error(const struct http_line *line, bool in_place)
{
	if (!is_token(line->method, strlen(line->method)))
		return "The method is no token.";
	if (strlen(line->version) != 8 || strncmp(line->version, "HTTP/1.", 7) != 0)
		return "The version has to be HTTP/1.1.";
	if (in_place &&
	    (line->method + strlen(line->method) + 1 != line->target ||
	     line->target + line->target_len + 1 != line->version || line->version[9] != '\0'))
		return request_line_form;
	return NULL;
}

size_t http_head_size(struct MHD_Connection *mhd)
{
	const union MHD_ConnectionInfo *info =
		MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_REQUEST_HEADER_SIZE);

	return info ? info->header_size : 0;
}

/* True if the last header is followed by CR LF, and the head ends with that. */
static bool head_ends(struct MHD_Connection *mhd, const char *begin, const char *next)
{
	return http_head_size(mhd) == (size_t)(next + 2 - begin) && next[0] == '\0' &&
	       next[1] == '\0';
}

const char *http_head_check(struct MHD_Connection *mhd, const struct http_line *line,
			    struct http_head *head)
{
	struct walk w = {.in_place = http_head_is_lenient(), .head = head};

	w.error = line_error(line, w.in_place);
	if (w.error)
		return w.error;
	w.http_1_1 = strcmp(line->version, "HTTP/1.0") != 0;
	w.next = line->version + 10;
	MHD_get_connection_values_n(mhd, MHD_HEADER_KIND, on_field, &w);
	if (!w.error && w.in_place && !head_ends(mhd, line->method, w.next))
		w.error = "The headers do not end with an empty line, or one ends with something "
			  "else than CR LF.";
	return w.error ? w.error : fields_error(&w);
}
