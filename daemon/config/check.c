/* Checks of single values: see check.h. */
#include "config/check.h"

#include "config/settings.h"
#include "http/listen_address.h"
#include "proto/key.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#define PREFIX_MAX 256

bool check_refuse(char *why, size_t why_size, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(why, why_size, fmt, ap);
	va_end(ap);
	return false;
}

static bool is_quoted(const char *text, size_t len)
{
	return len >= 2 && (text[0] == '"' || text[0] == '\'') && text[len - 1] == text[0];
}

bool check_sound(const char *text, char *why, size_t size)
{
	size_t len = strlen(text);

	if (len > CONFIG_VALUE_MAX)
		return check_refuse(why, size, "longer than %d bytes", CONFIG_VALUE_MAX);
	for (const char *p = text; *p; p++) {
		if ((unsigned char)*p < 0x20 && *p != '\t')
			return check_refuse(why, size, "a control character in the value");
		if (*p == 0x7f)
			return check_refuse(why, size, "a control character in the value");
		if (p > text && (*p == ';' || *p == '#') && isblank((unsigned char)p[-1]))
			return check_refuse(
				why, size,
				"white space before '%c': a comment stands on a line of its own",
				*p);
	}
	if (len > 0 && (isblank((unsigned char)text[0]) || isblank((unsigned char)text[len - 1])))
		return check_refuse(why, size, "white space at an end of the value");
	if (text[0] == ';')
		return check_refuse(why, size, "begins with ';', as a comment does");
	if (is_quoted(text, len))
		return check_refuse(why, size, "quotes would be part of the value: leave them out");
	return true;
}

bool check_listen(const char *text, char out[CONFIG_VALUE_MAX + 1], char *why, size_t size)
{
	struct listen_error error;
	size_t len = strlen(text), digits = strspn(text, "0123456789");
	bool local;

	if (len > 0 && digits == len)
		return check_refuse(why, size,
				    "the host is missing; 127.0.0.1:%s for this host alone", text);
	if (text[0] == ':' && len > 1 && strspn(text + 1, "0123456789") == len - 1)
		return check_refuse(why, size,
				    "the host is missing; 127.0.0.1%s for this host alone", text);
	if (!listen_parse(text, &local, &error)) {
		/* The address is taken off the message: the caller shows it, if it may be shown. In
		 * the message a long address is cut. */
		size_t same = 0;
		const char *words;

		while (same < len && text[same] == error.text[same])
			same++;
		words = same >= (len < 120 ? len : 120) ? strstr(error.text + same, ": ") : NULL;
		return check_refuse(why, size, "%s", words ? words + 2 : error.text);
	}
	memcpy(out, text, len + 1);
	return true;
}

bool check_report_listen(const char *text, char out[CONFIG_VALUE_MAX + 1], char *why, size_t size)
{
	struct listen_error error;
	bool local;

	if (!check_listen(text, out, why, size))
		return false;
	if (listen_parse(text, &local, &error) && local)
		return true;
	return check_refuse(why, size,
			    "whoever can send a line can trip circuits; only unix:/path and "
			    "loopback addresses will do");
}

bool check_metrics_listen(const char *text, char out[CONFIG_VALUE_MAX + 1], char *why, size_t size)
{
	if (strncmp(text, "unix:", 5) == 0)
		return check_refuse(why, size,
				    "host:port expected; on a unix socket of listen /metrics is as "
				    "well");
	return check_listen(text, out, why, size);
}

static bool host_name(const char *text)
{
	size_t label = 0, len = strlen(text);

	if (len == 0 || len > 253)
		return false;
	for (size_t i = 0; i < len; i++) {
		unsigned char c = (unsigned char)text[i];

		if (c == '.' && label == 0)
			return false;
		if (c != '.' && !isalnum(c) && c != '-' && c != '_')
			return false;
		label = c == '.' ? 0 : label + 1;
		if (label > 63)
			return false;
	}
	return label > 0;
}

/* Keeps a name in lower case, and an address as inet_ntop writes it. */
bool check_host(const char *text, char out[CONFIG_VALUE_MAX + 1], char *why, size_t size)
{
	char bare[CONFIG_ITEM_MAX + 1];
	struct in6_addr address;
	size_t len = strlen(text);

	snprintf(bare, sizeof(bare), "%s", text);
	if (len > 2 && text[0] == '[' && text[len - 1] == ']') {
		memcpy(bare, text + 1, len - 2);
		bare[len - 2] = '\0';
	}
	if (inet_pton(AF_INET6, bare, &address) == 1) {
		inet_ntop(AF_INET6, &address, out, INET6_ADDRSTRLEN);
		return true;
	}
	if (!host_name(text)) {
		if (strchr(text, ':'))
			return check_refuse(why, size,
					    "a host name or address without a port expected; "
					    "any port is accepted");
		return check_refuse(why, size, "neither a host name nor an address");
	}
	for (size_t i = 0; i <= len; i++)
		out[i] = (char)tolower((unsigned char)text[i]);
	return true;
}

bool check_url_password(const char *url, size_t *start, size_t *len)
{
	const char *rest = strstr(url, "://"), *at, *colon;

	if (!rest || strncasecmp(url, "redis+unix:", 11) == 0)
		return false;
	at = strrchr(rest, '@');
	colon = strchr(rest + 3, ':');
	if (!at || !colon || colon + 1 >= at)
		return false;
	*start = (size_t)(colon + 1 - url);
	*len = (size_t)(at - colon - 1);
	return true;
}

/* True for redis://h1:1,h2:2: several hosts in one URL, as other clients take them. */
static bool several_hosts(const char *url)
{
	const char *rest = strstr(url, "://"), *at, *end;
	size_t scheme = (size_t)(rest - url);

	if (!((scheme == 5 && strncasecmp(url, "redis", 5) == 0) ||
	      (scheme == 6 && strncasecmp(url, "rediss", 6) == 0)))
		return false;
	rest += 3;
	at = strrchr(rest, '@');
	if (at)
		rest = at + 1;
	end = rest + strcspn(rest, "/?");
	return memchr(rest, ',', (size_t)(end - rest)) != NULL;
}

bool check_store(const char *text, char out[CONFIG_VALUE_MAX + 1], char *why, size_t size)
{
	struct redis_target target;
	size_t start, len;
	bool good;

	strcpy(out, text);
	if (strcmp(text, "memory") == 0)
		return true;
	if (!strstr(text, "://"))
		return check_refuse(why, size,
				    "memory, redis://host:6379/0, redis+unix:///path or "
				    "redis-sentinel://host:26379/master expected");
	if (check_url_password(text, &start, &len) && len == strlen(CONFIG_MASK) &&
	    memcmp(text + start, CONFIG_MASK, len) == 0)
		return check_refuse(why, size,
				    "the password " CONFIG_MASK
				    " is the mask of --print-config: put the "
				    "real one there, or use redis_password_file");
	if (several_hosts(text))
		return check_refuse(why, size,
				    "several hosts for one server; sentinels are "
				    "redis-sentinel://host:26379,host:26379/master, and a cluster "
				    "is not supported");
	good = redis_target_parse(text, &target, why, size);
	explicit_bzero(&target, sizeof(target));
	return good;
}

bool check_prefix(const char *text, char out[CONFIG_VALUE_MAX + 1], char *why, size_t size)
{
	if (strlen(text) > PREFIX_MAX)
		return check_refuse(why, size, "at most %d bytes", PREFIX_MAX);
	strcpy(out, text);
	return true;
}

bool check_pattern(const char *text, char out[CONFIG_VALUE_MAX + 1], char *why, size_t size)
{
	if (!check_sound(text, why, size)) /* --print-config puts it on a line of its own */
		return false;
	if (!utf8_valid(text, strlen(text)))
		return check_refuse(why, size, "not valid UTF-8");
	strcpy(out, text);
	return true;
}

/* --- lists of statuses: numbers and ranges, separated by commas or white space */

#define APART ", \t"

/* Reads three digits, 100 to 599. Returns what follows them, or NULL. */
static const char *read_status(const char *text, unsigned *status)
{
	*status = 0;
	for (int i = 0; i < 3; i++) {
		if (text[i] < '0' || text[i] > '9')
			return NULL;
		*status = *status * 10 + (unsigned)(text[i] - '0');
	}
	return *status >= POLICY_STATUS_MIN && *status <= POLICY_STATUS_MAX ? text + 3 : NULL;
}

/* Reads an item, "429" or "500-599". Returns what follows it, or NULL. */
static const char *read_range(const char *text, unsigned *first, unsigned *last)
{
	text = read_status(text, first);
	*last = *first;
	if (text && *text == '-')
		text = read_status(text + 1, last);
	return text && *first <= *last && (!*text || strchr(APART, *text)) ? text : NULL;
}

bool check_statuses(const char *text, char out[CONFIG_VALUE_MAX + 1], char *why, size_t size)
{
	unsigned first, last;

	if (strlen(text) > CONFIG_STATUSES_MAX)
		return check_refuse(why, size, "longer than %d bytes; ranges make it shorter",
				    CONFIG_STATUSES_MAX);
	strcpy(out, text);
	for (text += strspn(text, " \t"); *text;) {
		/* The wrong item is named, unless it may hold a password (user:password@). */
		size_t len = strchr(text, '@') ? 0 : strcspn(text, APART);
		const char *next = read_range(text, &first, &last);

		if (*text == ',')
			return check_refuse(why, size, "a comma with nothing before it");
		if (!next)
			return check_refuse(why, size,
					    "%.*s%sstatuses and ranges of them expected, 100 to "
					    "599, as in 500-599, 429",
					    (int)len, text, len ? ": " : "");
		text = next + strspn(next, " \t");
		if (*text == ',') {
			text += 1 + strspn(text + 1, " \t");
			if (!*text)
				return check_refuse(why, size, "a comma with nothing behind it");
		}
	}
	return true;
}

void check_read_statuses(const char *text, struct policy_statuses *out)
{
	unsigned first, last;

	*out = (struct policy_statuses){0};
	for (text += strspn(text, APART); *text; text += strspn(text, APART)) {
		text = read_range(text, &first, &last);
		if (!text)
			return;
		for (unsigned bit = first - POLICY_STATUS_MIN; bit <= last - POLICY_STATUS_MIN;
		     bit++)
			out->bits[bit / 64] |= UINT64_C(1) << (bit % 64);
	}
}
