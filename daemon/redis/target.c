#include "redis/target.h"

#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#define PORT_REDIS    6379
#define PORT_SENTINEL 26379
/* SELECT takes an int; 16 databases is only a server's default. */
#define DB_MAX 2147483647u

/* What redis_target_parse works on: a part of the URL, not NUL-terminated. */
struct part {
	const char *at;
	size_t len;
};

struct why {
	char *text;
	size_t size;
};

static bool fail(struct why *why, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static bool fail(struct why *why, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	if (why->size > 0)
		vsnprintf(why->text, why->size, fmt, ap);
	va_end(ap);
	return false;
}

static const char *find(struct part part, char c)
{
	return part.len > 0 ? memchr(part.at, c, part.len) : NULL;
}

static const char *find_last(struct part part, char c)
{
	return part.len > 0 ? memrchr(part.at, c, part.len) : NULL;
}

static struct part between(const char *from, const char *to)
{
	return (struct part){.at = from, .len = (size_t)(to - from)};
}

static struct part after(struct part part, const char *at)
{
	return between(at + 1, part.at + part.len);
}

static int hex(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	c |= 0x20;
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* Decodes percent-escapes. `what` names the part in `why`, which never shows its text. */
static bool decode(struct part part, const char *what, char *out, size_t size, struct why *why)
{
	size_t n = 0;

	for (size_t i = 0; i < part.len; i++) {
		unsigned char c = (unsigned char)part.at[i];

		if (c == '%') {
			int high = i + 2 < part.len ? hex(part.at[i + 1]) : -1;
			int low = i + 2 < part.len ? hex(part.at[i + 2]) : -1;

			if (high < 0 || low < 0)
				return fail(why, "the %s has a broken percent-escape", what);
			c = (unsigned char)(high << 4 | low);
			i += 2;
		}
		if (c < 0x20 || c == 0x7f)
			return fail(why, "the %s has a control character", what);
		if (n + 1 >= size)
			return fail(why, "the %s is longer than %zu bytes", what, size - 1);
		out[n++] = (char)c;
	}
	out[n] = '\0';
	return true;
}

/* Reads a number of digits only, without a sign or blanks. */
static bool number(struct part part, uint32_t max, uint32_t *out)
{
	uint64_t n = 0;

	if (part.len == 0 || part.len > 10)
		return false;
	for (size_t i = 0; i < part.len; i++) {
		if (part.at[i] < '0' || part.at[i] > '9')
			return false;
		n = n * 10 + (uint64_t)(part.at[i] - '0');
	}
	*out = (uint32_t)n;
	return n <= max;
}

static bool parse_db(struct part part, struct redis_target *target, struct why *why)
{
	uint32_t db;

	if (!number(part, DB_MAX, &db))
		return fail(why, "the database must be a number, 0 or more");
	target->db = db;
	return true;
}

/* The query, after '?': only "db=n". */
static bool parse_query(struct part query, struct redis_target *target, struct why *why)
{
	if (query.len < 3 || memcmp(query.at, "db=", 3) != 0)
		return fail(why, "the only parameter is ?db=NUMBER");
	return parse_db(between(query.at + 3, query.at + query.len), target, why);
}

/* Reads a "?..." at the end of part, if there is one, and cuts it off. */
static bool take_query(struct part *part, struct redis_target *target, struct why *why)
{
	const char *mark = find(*part, '?');

	if (!mark)
		return true;
	if (!parse_query(after(*part, mark), target, why))
		return false;
	*part = between(part->at, mark);
	return true;
}

static bool good_host(struct part host, bool bracketed)
{
	for (size_t i = 0; i < host.len; i++) {
		char c = host.at[i];
		bool alnum = (c >= '0' && c <= '9') || ((c | 0x20) >= 'a' && (c | 0x20) <= 'z');

		/* ':' and the '%' of a zone only inside brackets */
		if (!alnum && !strchr(bracketed ? ":.%-_" : ".-_", c))
			return false;
	}
	return host.len > 0;
}

/* "host", "host:port", "[::1]:port" */
static bool parse_address(struct part text, unsigned short port, struct redis_host *address,
			  struct why *why)
{
	struct part host = text, rest = {.at = "", .len = 0};
	bool bracketed = text.len > 0 && text.at[0] == '[';
	const char *end;
	uint32_t n = port;

	if (bracketed) {
		end = find(text, ']');
		if (!end)
			return fail(why, "an IPv6 address stands in brackets, as in [::1]:%d",
				    port);
		host = between(text.at + 1, end);
		rest = after(text, end);
	} else if ((end = find(text, ':'))) {
		host = between(text.at, end);
		rest = between(end, text.at + text.len);
		if (find(after(text, end), ':'))
			return fail(why, "an IPv6 address stands in brackets, as in [::1]:%d",
				    port);
	}
	if (host.len == 0)
		return fail(why, "the host is missing");
	if (!good_host(host, bracketed) || (bracketed && !find(host, ':')))
		return fail(why, "the host is neither a name nor an address");
	if (host.len >= sizeof(address->host))
		return fail(why, "the host is longer than %zu bytes", sizeof(address->host) - 1);
	if (rest.len > 0 &&
	    (rest.at[0] != ':' || !number(after(rest, rest.at), 65535, &n) || n == 0))
		return fail(why, "the port must be a number from 1 to 65535");
	memcpy(address->host, host.at, host.len);
	address->host[host.len] = '\0';
	address->port = (unsigned short)n;
	return true;
}

/* Reads "user:password@", "user@" or ":password@" at the beginning of part, and cuts it off. It
 * ends with the last '@': a password that contains one unescaped is then not taken for a host and
 * shown. */
static bool take_user(struct part *part, struct redis_target *target, struct why *why)
{
	const char *at = find_last(*part, '@');
	struct part user, password = {.at = "", .len = 0};
	const char *colon;

	if (!at)
		return true;
	user = between(part->at, at);
	colon = find(user, ':');
	if (colon) {
		password = after(user, colon);
		user = between(user.at, colon);
	}
	*part = after(*part, at);
	return decode(user, "user", target->user, sizeof(target->user), why) &&
	       decode(password, "password", target->password, sizeof(target->password), why);
}

/* Splits at the '/' between authority and path, which is in neither. */
static bool split(struct part rest, struct part *authority, struct part *path, struct why *why)
{
	const char *at = find_last(rest, '@');
	const char *slash = find(at ? after(rest, at) : rest, '/');

	*path = slash ? after(rest, slash) : (struct part){.at = "", .len = 0};
	*authority = slash ? between(rest.at, slash) : rest;
	if (at && find(between(rest.at, at), '/'))
		return fail(why, "a '/' in a user or password is written %%2F");
	return true;
}

static bool parse_tcp(struct part rest, struct redis_target *target, struct why *why)
{
	struct part authority, path;

	target->kind = REDIS_TCP;
	if (find(rest, '?') || find(rest, '#'))
		return fail(why, "a database is given as in redis://host:6379/1; a '?' or '#' "
				 "in a password is written %%3F or %%23");
	if (!split(rest, &authority, &path, why) || !take_user(&authority, target, why) ||
	    !parse_address(authority, PORT_REDIS, &target->hosts[0], why))
		return false;
	target->host_count = 1;
	return path.len == 0 || parse_db(path, target, why);
}

static bool parse_unix(struct part rest, struct redis_target *target, struct why *why)
{
	target->kind = REDIS_UNIX;
	if (!take_query(&rest, target, why))
		return false;
	if (rest.len < 2 || rest.at[0] != '/')
		return fail(why, "the socket's path must be absolute, as in "
				 "redis+unix:///run/redis/redis.sock");
	return decode(rest, "path", target->path, sizeof(target->path), why);
}

static bool parse_sentinel(struct part rest, struct redis_target *target, struct why *why)
{
	struct part hosts, path, one;
	const char *comma;

	target->kind = REDIS_SENTINEL;
	if (!take_query(&rest, target, why) || !split(rest, &hosts, &path, why) ||
	    !take_user(&hosts, target, why))
		return false;
	do {
		comma = find(hosts, ',');
		one = comma ? between(hosts.at, comma) : hosts;
		if (target->host_count == REDIS_HOSTS_MAX)
			return fail(why, "more than %d sentinels", REDIS_HOSTS_MAX);
		if (!parse_address(one, PORT_SENTINEL, &target->hosts[target->host_count], why))
			return false;
		target->host_count++;
		hosts = comma ? after(hosts, comma) : hosts;
	} while (comma);
	if (path.len == 0)
		return fail(why, "the master's name is missing, as in "
				 "redis-sentinel://host:26379/mymaster");
	return decode(path, "master's name", target->master, sizeof(target->master), why);
}

bool redis_target_parse(const char *url, struct redis_target *target, char *why_text,
			size_t why_size)
{
	static const struct {
		const char *scheme;
		bool (*parse)(struct part rest, struct redis_target *target, struct why *why);
	} schemes[] = {
		{"redis://", parse_tcp},
		{"redis+unix://", parse_unix},
		{"redis-sentinel://", parse_sentinel},
	};
	static const char *const tls[] = {"rediss://", "rediss-sentinel://", "rediss-cluster://"};
	struct why why = {.text = why_text, .size = why_size};

	memset(target, 0, sizeof(*target));
	for (size_t i = 0; i < sizeof(schemes) / sizeof(schemes[0]); i++) {
		size_t len = strlen(schemes[i].scheme);

		if (strncasecmp(url, schemes[i].scheme, len) == 0) {
			struct part rest = {.at = url + len, .len = strlen(url + len)};

			return schemes[i].parse(rest, target, &why);
		}
	}
	for (size_t i = 0; i < sizeof(tls) / sizeof(tls[0]); i++)
		if (strncasecmp(url, tls[i], strlen(tls[i])) == 0)
			return fail(&why, "TLS (%s) is not supported", tls[i]);
	if (strncasecmp(url, "redis-cluster://", 16) == 0)
		return fail(&why, "Redis Cluster (redis-cluster://) is not supported");
	return fail(&why, "not redis://, redis+unix:// or redis-sentinel://");
}

/* Appends text, cut to the room in out. */
static void append(char *out, size_t size, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));
static void append(char *out, size_t size, const char *fmt, ...)
{
	size_t len = strnlen(out, size);
	va_list ap;

	if (len >= size)
		return;
	va_start(ap, fmt);
	vsnprintf(out + len, size - len, fmt, ap);
	va_end(ap);
}

/* Appends text with percent-escapes for all that may not stand in any part of a URL. `slash`: a '/'
 * stays as it is. */
static void append_escaped(char *out, size_t size, const char *text, bool slash)
{
	for (; *text; text++) {
		unsigned char c = (unsigned char)*text;
		bool alnum = (c >= '0' && c <= '9') || ((c | 0x20) >= 'a' && (c | 0x20) <= 'z');

		if (alnum || strchr("-._~", c) || (slash && c == '/'))
			append(out, size, "%c", c);
		else
			append(out, size, "%%%02X", c);
	}
}

static void append_address(char *out, size_t size, const struct redis_host *address)
{
	const char *fmt = strchr(address->host, ':') ? "[%s]:%d" : "%s:%d";

	append(out, size, fmt, address->host, address->port);
}

void redis_target_print(const struct redis_target *target, char *out, size_t size)
{
	if (size == 0)
		return;
	out[0] = '\0';
	if (target->kind == REDIS_UNIX) {
		append(out, size, "redis+unix://");
		append_escaped(out, size, target->path, true);
		if (target->db != 0)
			append(out, size, "?db=%u", target->db);
		return;
	}
	append(out, size, "%s", target->kind == REDIS_TCP ? "redis://" : "redis-sentinel://");
	if (target->user[0]) {
		append_escaped(out, size, target->user, false);
		append(out, size, "@");
	}
	for (size_t i = 0; i < target->host_count; i++) {
		append(out, size, "%s", i > 0 ? "," : "");
		append_address(out, size, &target->hosts[i]);
	}
	append(out, size, "/");
	if (target->kind == REDIS_TCP) {
		append(out, size, "%u", target->db);
		return;
	}
	append_escaped(out, size, target->master, false);
	if (target->db != 0)
		append(out, size, "?db=%u", target->db);
}
