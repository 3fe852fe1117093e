/*
 * Where Redis is: the parts of the `store` setting.
 *
 *   redis://[user[:password]@]host[:port][/db]
 *   redis+unix:///path[?db=n]
 *   redis-sentinel://host[:port][,host[:port]...]/master[?db=n]
 *
 * As in RFC 3986: user, password, path and master may be percent-encoded; an IPv6 address
 * stands in brackets. "redis://:secret@host" has a password and no user.
 */
#ifndef BREAKERD_REDIS_TARGET_H
#define BREAKERD_REDIS_TARGET_H

#include <stdbool.h>
#include <stddef.h>

enum redis_target_kind {
	REDIS_TCP,
	REDIS_UNIX,
	REDIS_SENTINEL,
};

#define REDIS_HOSTS_MAX 16
/* The bound of the setting `prefix`. */
#define REDIS_PREFIX_MAX 256

struct redis_host {
	char host[256]; /* a name or an address, without brackets */
	unsigned short port;
};

struct redis_target {
	enum redis_target_kind kind;
	struct redis_host
		hosts[REDIS_HOSTS_MAX]; /* REDIS_TCP: one; REDIS_SENTINEL: the sentinels */
	size_t host_count;
	char path[108];   /* REDIS_UNIX */
	char master[256]; /* REDIS_SENTINEL */
	char user[256];   /* "" for none */
	char password[512];
	unsigned db;
};

/* False, with one sentence in why about what is wrong, without secrets and cut to why_size. */
bool redis_target_parse(const char *url, struct redis_target *target, char *why, size_t why_size);

/* The URL without its password, for logs and pages: "redis://user@host:6379/0". */
void redis_target_print(const struct redis_target *target, char *out, size_t size);

#endif
