/*
 * Connections: their phases, their time-outs, and what the kernel tells of their sockets.
 */
#include "base/timer.h"
#include "http/private.h"

#include <arpa/inet.h>
#include <assert.h>
#include <inttypes.h>
#include <linux/sockios.h>
#include <linux/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>

#define CONN_MAGIC 0x636f6e6eu
/* How many of the oldest connections are searched for an idle one. */
#define DISPLACE_CHECKS 1000
/* The least time between two searches for connections that their clients have closed. Only
 * connections that entered their phase at least as long ago are searched: by then libmicrohttpd
 * has read what came with them. */
#define ABANDONED_MS 100
/* How many connections of a phase such a search looks at, each with a system call. The next search
 * goes on behind them. Connections of one millisecond are searched together. */
#define ABANDONED_CHECKS 1000
/* How many connections whose time is over are looked at in one turn of the loop: some 2 ms, as most
 * of them end, in this turn and the next. */
#define SWEEP_BUDGET 100

struct conn *http_conn_of(const struct http_request *rq)
{
	struct conn *c = (struct conn *)(void *)((char *)(uintptr_t)rq - offsetof(struct conn, rq));

	assert(c->magic == CONN_MAGIC);
	return c;
}

struct conn *http_conn_of_mhd(struct MHD_Connection *mhd)
{
	const union MHD_ConnectionInfo *info =
		MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_SOCKET_CONTEXT);

	return info ? info->socket_context : NULL;
}

struct conn *http_conn_new(struct http *http, int fd, const struct sockaddr_storage *ss,
			   socklen_t len)
{
	struct conn *c = calloc(1, sizeof(*c));

	if (!c)
		return NULL;
	c->magic = CONN_MAGIC;
	c->http = http;
	c->fd = fd;
	c->phase = PHASE_ENDING;
	c->addr_len = len < sizeof(c->addr) ? len : sizeof(c->addr);
	memcpy(&c->addr, ss, c->addr_len);
	return c;
}

static int64_t phase_limit_ms(const struct http *http, enum phase phase)
{
	/* Plus 1, for with a limit of 0 a sweep would never end. */
	int64_t idle = (int64_t)http->limits.idle_timeout_ms + 1;
	int64_t request = (int64_t)http->limits.request_timeout_ms + 1;

	if (phase == PHASE_READING)
		return request;
	if (phase == PHASE_HUNG_UP)
		return 1;
	return phase == PHASE_FRESH && request < idle ? request : idle;
}

static void sweep_arm(struct http *http, int64_t at_ms)
{
	int64_t wait = at_ms - http_coarse_ms();

	http->sweep_ms = at_ms;
	/* 10 ms later, for the coarse clock must have reached at_ms by then. */
	timer_arm(http->sweep, (wait < 0 ? 0 : wait) + 10);
}

/* Makes the sweep run at `at_ms` at the latest. Only the sweep itself makes it run later. */
static inline void sweep_by(struct http *http, int64_t at_ms)
{
	if (!http->sweep_ms || http->sweep_ms > at_ms)
		sweep_arm(http, at_ms);
}

static void leave_phase(struct conn *c)
{
	if (c->phase < PHASES_TIMED)
		TAILQ_REMOVE(&c->http->phases[c->phase], c, entry);
}

void http_conn_free(struct conn *c)
{
	leave_phase(c);
	c->magic = 0;
	http_answer_drop_kept(c);
	free(c->body);
	free(c->query_buf);
	free(c);
}

void http_conn_enter(struct conn *c, enum phase phase)
{
	struct http *http = c->http;

	http->steps++;
	leave_phase(c);
	c->phase = phase;
	if (phase >= PHASES_TIMED)
		return;
	/* An idle connection's time began when it was fresh. */
	if (phase != PHASE_IDLE)
		c->since_ms = http_coarse_ms();
	TAILQ_INSERT_TAIL(&http->phases[phase], c, entry);
	sweep_by(http, c->since_ms + phase_limit_ms(http, phase));
}

bool http_conn_is_half_closed(const struct conn *c)
{
	struct pollfd p = {.fd = c->fd, .events = POLLRDHUP};

	return poll(&p, 1, 0) == 1;
}

int http_conn_unread(const struct conn *c)
{
	int unread = 0;

	return ioctl(c->fd, FIONREAD, &unread) == 0 ? unread : -1;
}

uint64_t http_conn_progress(const struct conn *c)
{
	struct tcp_info info;
	socklen_t len = sizeof(info);
	int waiting = 0;

	memset(&info, 0, sizeof(info));
	if (getsockopt(c->fd, IPPROTO_TCP, TCP_INFO, &info, &len) == 0)
		return info.tcpi_bytes_acked;
	ioctl(c->fd, SIOCOUTQ, &waiting);
	return (uint64_t)waiting;
}

/*
 * True if a request has begun to arrive but its request line is incomplete. Of a connection that
 * libmicrohttpd has, only TCP's counters tell; a unix socket counts as false.
 */
static bool conn_has_begun(const struct conn *c)
{
	struct tcp_info info;
	socklen_t len = sizeof(info);

	if (!c->mhd)
		return c->line_begun;
	memset(&info, 0, sizeof(info));
	if (getsockopt(c->fd, IPPROTO_TCP, TCP_INFO, &info, &len) != 0)
		return false;
	if (!c->requests)
		return info.tcpi_bytes_received > 0;
	/* 100 ms of grace: those bytes may be the end of the last request. */
	return (int64_t)info.tcpi_last_data_recv + 100 < http_coarse_ms() - c->since_ms;
}

bool http_conn_may_be_mid_request(const struct conn *c)
{
	struct tcp_info info;
	socklen_t len = sizeof(info);
	int unread;

	/* Nothing can be told before the first request, as there is nothing to compare with, nor
	 * once the client has closed its side, as TCP counts the end of the stream as a byte. */
	if (!c->requests || c->addr.any.sa_family == AF_UNIX || http_conn_is_half_closed(c))
		return true;
	memset(&info, 0, sizeof(info));
	/* The unread bytes first: bytes that come in between make the answer true, which is safe.
	 */
	unread = http_conn_unread(c);
	if (unread < 0 || getsockopt(c->fd, IPPROTO_TCP, TCP_INFO, &info, &len) < 0)
		return true;
	return info.tcpi_bytes_received - (uint64_t)unread != c->consumed;
}

bool http_conn_at_eof(const struct conn *c)
{
	char byte;

	return recv(c->fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) == 0;
}

void http_conn_hurry(struct conn *c)
{
	MHD_set_connection_option(c->mhd, MHD_CONNECTION_OPTION_TIMEOUT, 1u);
}

/*
 * first_line.c or libmicrohttpd notices the hang-up that shutdown(2) makes. libmicrohttpd does not
 * look at the socket of a request that was suspended and that it takes for ready (pump.c). Such a
 * connection is ended by libmicrohttpd's own time-out. A parked connection gets that time-out when
 * it is resumed (parked.c).
 */
void http_conn_end(struct conn *c, const char *why)
{
	log_debug(c->http->log, "http_timeout", "peer=%s phase=%s", http_request_peer(&c->rq), why);
	http_conn_enter(c, PHASE_ENDING);
	shutdown(c->fd, SHUT_RDWR);
	if (c->mhd && !c->parked)
		http_conn_hurry(c);
}

/* The time of a connection in its phase is over. */
static void conn_overdue(struct conn *c, int64_t now)
{
	uint64_t progress;

	switch (c->phase) {
	case PHASE_FRESH:
		if (conn_has_begun(c) || http_conn_at_eof(c))
			http_conn_end(c, "request_line");
		else if (c->since_ms + phase_limit_ms(c->http, PHASE_IDLE) <= now)
			http_conn_end(c, "idle");
		else
			http_conn_enter(c, PHASE_IDLE);
		break;
	case PHASE_IDLE:
		http_conn_end(c, "idle");
		break;
	case PHASE_SENDING:
		progress = http_conn_progress(c);
		if (progress == c->progress)
			http_conn_end(c, "sending");
		else
			http_conn_enter(c, PHASE_SENDING);
		c->progress = progress;
		break;
	default:
		http_conn_end(c, "request");
	}
}

/* True if the connection has no request and none has begun to arrive. */
static bool conn_is_idle(const struct conn *c)
{
	int unread = http_conn_unread(c);

	/* An empty line before the first request line stays unread in the socket. */
	return unread >= 0 && unread <= c->empty_line_bytes && !conn_has_begun(c);
}

/* Those of a phase that entered it from *from_ms to `last_ms`; sets *from_ms for the next search.
 * True as http_conn_end_abandoned. */
static bool end_abandoned_of(struct http *http, enum phase phase, int64_t *from_ms, int64_t last_ms)
{
	struct conn *c, *next;
	unsigned checks = 0;
	bool any = false;

	for (c = TAILQ_FIRST(&http->phases[phase]); c && c->since_ms <= last_ms; c = next) {
		next = TAILQ_NEXT(c, entry);
		if (c->since_ms < *from_ms)
			continue;
		if (++checks == ABANDONED_CHECKS)
			last_ms = c->since_ms;
		if (!http_conn_at_eof(c))
			continue;
		http_conn_end(c, "left");
		/* A reserved connection makes no room for others. */
		any = any || !c->reserved;
	}
	*from_ms = checks < ABANDONED_CHECKS ? 0 : last_ms + 1;
	return any;
}

bool http_conn_end_abandoned(struct http *http)
{
	static const enum phase phases[] = {PHASE_READING, PHASE_FRESH, PHASE_IDLE};
	int64_t now = http_coarse_ms();
	bool any = false;

	_Static_assert(sizeof(phases) / sizeof(phases[0]) ==
			       sizeof(http->abandoned_from_ms) / sizeof(http->abandoned_from_ms[0]),
		       "one for each phase");
	if (now - http->abandoned_check_ms < ABANDONED_MS)
		return false;
	http->abandoned_check_ms = now;
	for (size_t i = 0; i < sizeof(phases) / sizeof(phases[0]); i++)
		any |= end_abandoned_of(http, phases[i], &http->abandoned_from_ms[i],
					now - ABANDONED_MS);
	return any;
}

bool http_conn_displace(struct http *http, int64_t idle_ms)
{
	static const enum phase idle[] = {PHASE_HUNG_UP, PHASE_IDLE, PHASE_FRESH};
	int64_t before = http_coarse_ms() - idle_ms;
	unsigned checks = 0;
	struct conn *c;

	/* Idle before fresh: an idle connection's time began when it was fresh, so it is older. */
	for (size_t i = 0; i < sizeof(idle) / sizeof(idle[0]); i++) {
		TAILQ_FOREACH (c, &http->phases[idle[i]], entry) {
			if (c->since_ms > before || ++checks > DISPLACE_CHECKS)
				break;
			if (!c->reserved && (idle[i] == PHASE_HUNG_UP || conn_is_idle(c))) {
				http_conn_end(c, "displaced");
				return true;
			}
		}
	}
	return false;
}

void http_conn_displace_reserved(struct http *http)
{
	struct conn *c, *oldest = NULL;

	TAILQ_FOREACH (c, &http->reserved, reserved_entry)
		if (c->phase < PHASES_TIMED && (!oldest || c->since_ms < oldest->since_ms))
			oldest = c;
	if (!oldest)
		return;
	http_conn_end(oldest, "displaced");
	http->metrics->http_connections_displaced++;
}

static void on_sweep(evutil_socket_t fd, short what, void *arg)
{
	struct http *http = arg;
	int64_t now = http_coarse_ms(), next = 0;
	unsigned budget = SWEEP_BUDGET;
	struct conn *c;

	(void)fd;
	(void)what;
	/* While the sweep runs it counts as armed, so that http_conn_enter does not arm it. */
	http->sweep_ms = 1;
	for (int p = 0; p < PHASES_TIMED; p++) {
		int64_t limit = phase_limit_ms(http, (enum phase)p);

		while ((c = TAILQ_FIRST(&http->phases[p])) && c->since_ms + limit <= now &&
		       budget > 0) {
			conn_overdue(c, now);
			budget--;
		}
	}
	if (budget == 0) {
		timer_arm(http->sweep, 0); /* goes on in the next turn */
		return;
	}
	for (int p = 0; p < PHASES_TIMED; p++) {
		c = TAILQ_FIRST(&http->phases[p]);
		if (!c)
			continue;
		int64_t due = c->since_ms + phase_limit_ms(http, (enum phase)p);

		if (!next || due < next)
			next = due;
	}
	http->sweep_ms = 0;
	if (next)
		sweep_by(http, next);
}

int http_sweep_init(struct http *http)
{
	for (int p = 0; p < PHASES_TIMED; p++)
		TAILQ_INIT(&http->phases[p]);
	http->sweep = evtimer_new(http->base, on_sweep, http);
	return http->sweep ? 0 : -1;
}

void http_sweep_now(struct http *http)
{
	http->sweep_ms = 0;
	sweep_by(http, http_coarse_ms());
}

void http_sweep_stop(struct http *http)
{
	event_del(http->sweep);
	http->sweep_ms = 0;
}

bool http_request_is_unix(const struct http_request *rq)
{
	return http_conn_of(rq)->addr.any.sa_family == AF_UNIX;
}

const char *http_request_peer(const struct http_request *rq)
{
	struct conn *c = http_conn_of(rq);
	char host[INET6_ADDRSTRLEN] = "?";
	struct ucred peer;
	socklen_t len = sizeof(peer);

	if (c->peer[0])
		return c->peer;
	if (c->addr.any.sa_family == AF_INET) {
		inet_ntop(AF_INET, &c->addr.in.sin_addr, host, sizeof(host));
		snprintf(c->peer, sizeof(c->peer), "%s:%u", host, ntohs(c->addr.in.sin_port));
	} else if (c->addr.any.sa_family == AF_INET6) {
		inet_ntop(AF_INET6, &c->addr.in6.sin6_addr, host, sizeof(host));
		snprintf(c->peer, sizeof(c->peer), "[%s]:%u", host, ntohs(c->addr.in6.sin6_port));
	} else if (getsockopt(c->fd, SOL_SOCKET, SO_PEERCRED, &peer, &len) == 0) {
		snprintf(c->peer, sizeof(c->peer), "unix:uid=%ju,pid=%jd", (uintmax_t)peer.uid,
			 (intmax_t)peer.pid);
	} else {
		snprintf(c->peer, sizeof(c->peer), "unix:");
	}
	return c->peer;
}
