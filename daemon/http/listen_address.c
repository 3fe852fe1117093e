/* Addresses to listen on: see listen_address.h. */
#include "http/listen_address.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

void listen_fail(struct listen_error *error, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(error->text, sizeof(error->text), fmt, ap);
	va_end(ap);
}

static bool parse_unix(const char *address, struct listen_target *t, struct listen_error *error)
{
	const char *path = address + strlen(LISTEN_UNIX);
	size_t len = strlen(path);

	if (path[0] != '/') {
		listen_fail(error,
			    "%s: a unix socket is given as unix:/path, with an absolute path",
			    address);
		return false;
	}
	if (len >= sizeof(t->un.sun_path)) {
		listen_fail(error, "%.120s...: the path of a unix socket has at most %zu bytes",
			    address, sizeof(t->un.sun_path) - 1);
		return false;
	}
	t->is_unix = true;
	t->un.sun_family = AF_UNIX;
	memcpy(t->un.sun_path, path, len + 1);
	return true;
}

/* Port 0 is allowed: the kernel chooses one. */
static bool parse_port(const char *text, struct listen_target *t)
{
	size_t len = strlen(text);

	if (len < 1 || len > 5 || strspn(text, "0123456789") != len ||
	    strtoul(text, NULL, 10) > 65535)
		return false;
	memcpy(t->port, text, len + 1);
	return true;
}

static bool is_host_name(const char *host)
{
	return host[0] && host[0] != '-' &&
	       host[strspn(host, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
				 "0123456789._-")] == '\0';
}

/* Copies `len` bytes, which must be a host name or an address. */
static bool parse_host(const char *host, size_t len, bool bracketed, struct listen_target *t)
{
	struct in6_addr any;
	char *scope;

	if (len == 0 || len >= sizeof(t->host))
		return false;
	memcpy(t->host, host, len);
	t->host[len] = '\0';
	if (!bracketed) {
		t->numeric = inet_pton(AF_INET, t->host, &any) == 1;
		return t->numeric || is_host_name(t->host);
	}
	t->numeric = true;
	scope = strchr(t->host, '%');
	if (scope)
		*scope = '\0';
	if (inet_pton(AF_INET6, t->host, &any) != 1)
		return false;
	if (scope)
		*scope = '%';
	return true;
}

static bool parse_inet(const char *address, struct listen_target *t, struct listen_error *error)
{
	bool bracketed = address[0] == '[';
	const char *host = address + bracketed, *colon = strrchr(address, ':'), *end = colon;

	if (bracketed)
		end = colon && colon > host && colon[-1] == ']' ? colon - 1 : NULL;
	else if (end && memchr(address, ':', (size_t)(end - address))) {
		listen_fail(error, "%.255s: an IPv6 address stands in brackets, as in [::1]:8747",
			    address);
		return false;
	}
	if (!end || !parse_host(host, (size_t)(end - host), bracketed, t)) {
		listen_fail(error,
			    "%.255s: not an address; give host:port, [address]:port or unix:/path",
			    address);
		return false;
	}
	if (!parse_port(colon + 1, t)) {
		listen_fail(error, "%.255s: the port is a number from 0 to 65535", address);
		return false;
	}
	return true;
}

bool listen_target_parse(const char *address, struct listen_target *t, struct listen_error *error)
{
	memset(t, 0, sizeof(*t));
	return strncmp(address, LISTEN_UNIX, strlen(LISTEN_UNIX)) == 0
		       ? parse_unix(address, t, error)
		       : parse_inet(address, t, error);
}

bool listen_target_is_localhost(const struct listen_target *t)
{
	return !t->is_unix && strcasecmp(t->host, "localhost") == 0;
}

static bool loopback4(const struct in_addr *a)
{
	return (ntohl(a->s_addr) >> 24) == 127;
}

static bool loopback6(const struct in6_addr *a)
{
	struct in_addr mapped;

	if (!IN6_IS_ADDR_V4MAPPED(a))
		return IN6_IS_ADDR_LOOPBACK(a);
	memcpy(&mapped, &a->s6_addr[12], sizeof(mapped));
	return loopback4(&mapped);
}

bool listen_parse(const char *address, bool *local, struct listen_error *error)
{
	struct listen_target t;
	struct in6_addr six;
	struct in_addr four;

	if (!listen_target_parse(address, &t, error))
		return false;
	*local = t.is_unix || listen_target_is_localhost(&t) ||
		 (inet_pton(AF_INET, t.host, &four) == 1 && loopback4(&four)) ||
		 (inet_pton(AF_INET6, t.host, &six) == 1 && loopback6(&six));
	return true;
}

bool listen_is_loopback(const struct sockaddr *sa)
{
	return sa->sa_family == AF_INET
		       ? loopback4(&((const struct sockaddr_in *)(const void *)sa)->sin_addr)
		       : loopback6(&((const struct sockaddr_in6 *)(const void *)sa)->sin6_addr);
}
