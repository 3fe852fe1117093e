/*
 * An attempt: finds the server's address by a look-up, a sentinel or a path, connects, and shakes
 * hands until the link is ready.
 */
#include "base/metrics.h"
#include "base/timer.h"
#include "redis/link_private.h"

#include <stdio.h>
#include <string.h>
#include <sys/un.h>

static void describe_server(struct redis_link *link)
{
	const struct redis_server *server = &link->handshake.server;
	char where[200];

	redis_address_print(&link->addresses.at[link->address], where, sizeof(where));
	snprintf(link->server, sizeof(link->server), "%s%s%s at %s", server->name,
		 server->version[0] ? " " : "", server->version, where);
}

static void on_handshake(void *arg, const char *why)
{
	struct redis_link *link = arg;
	const struct redis_server *server = &link->handshake.server;

	if (why) {
		redis_link_drop(link, why);
		return;
	}
	memcpy(link->sha, server->sha, sizeof(link->sha));
	if (server->has_clock)
		redis_link_clock_measured(link, server->clock_offset_ms, server->clock_error_ms);
	else
		link->clock_due_ms = INT64_MAX; /* it does not tell */
	link->cluster = server->cluster;
	link->session = server->session;
	describe_server(link);
	link->was_ready = true;
	if (link->metrics)
		link->metrics->redis_connects++;
	redis_link_enter_ready(link);
}

static void on_up(void *arg)
{
	struct redis_link *link = arg;

	redis_link_enter(link, LINK_HANDSHAKE, NULL);
	timer_arm(link->timer, link->options.handshake_timeout_ms);
	if (redis_handshake_begin(&link->handshake, link->conn, &link->target, link->options.script,
				  &link->session, on_handshake, link) < 0)
		redis_link_drop(link, "out of memory");
}

static void on_down(void *arg, const char *why)
{
	redis_link_drop(arg, why);
}

static void on_answered(void *arg)
{
	struct redis_link *link = arg;

	if (link->options.on_answered)
		link->options.on_answered(link->options.arg);
}

void redis_link_connect(struct redis_link *link)
{
	struct redis_conn_events events = {.up = on_up,
					   .down = on_down,
					   .check_reply = redis_link_check_reply,
					   .refused = redis_link_on_refused,
					   .answered = on_answered,
					   .arg = link};

	if (link->state != LINK_CONNECTING)
		redis_link_enter(link, LINK_CONNECTING, NULL);
	link->conn = redis_conn_new(link->base, &link->addresses.at[link->address], &events);
	if (!link->conn)
		redis_link_drop(link, "out of memory or of descriptors");
}

void redis_link_on_addresses(void *arg, const struct redis_addresses *addresses, const char *why)
{
	struct redis_link *link = arg;

	if (!addresses) {
		redis_link_drop(link, why);
		return;
	}
	link->addresses = *addresses;
	link->address %= addresses->count;
	timer_arm(link->deferred, 0);
}

static void unix_address(struct redis_link *link)
{
	struct sockaddr_un *un = (struct sockaddr_un *)&link->addresses.at[0].sockaddr;

	memset(&link->addresses, 0, sizeof(link->addresses));
	un->sun_family = AF_UNIX;
	memcpy(un->sun_path, link->target.path, sizeof(link->target.path));
	link->addresses.at[0].len = sizeof(*un);
	link->addresses.count = 1;
	link->address = 0;
}

void redis_link_begin(struct redis_link *link)
{
	const struct redis_host *host = &link->target.hosts[0];
	unsigned patience_ms = link->options.connect_timeout_ms / 3;

	link->tried = 0;
	link->addresses.count = 0;
	redis_link_enter(link, LINK_RESOLVING, NULL);
	timer_arm(link->timer, link->options.connect_timeout_ms);
	if (link->target.kind == REDIS_UNIX) {
		unix_address(link);
		redis_link_connect(link);
		return;
	}
	if (link->sentinel) {
		redis_sentinel_find(link->sentinel, patience_ms);
		return;
	}
	link->lookup = redis_lookup_new(link->base, host->host, host->port, patience_ms, NULL,
					redis_link_on_addresses, link);
	if (!link->lookup)
		redis_link_drop(link, "out of memory");
}
