/*
 * When a connection fails, hiredis answers the commands that wait with NULL and frees its context
 * by itself. So a redis_conn outlives its context: `ac` is NULL once hiredis has freed it, and
 * `dying` says that hiredis is about to.
 */
#include "redis/conn.h"

#include "base/clock.h"
#include "base/later.h"
#include "proto/number.h"
#include "redis/faults.h"
#include "redis/fence.h"

#include <errno.h>
#include <event2/event.h>
#include <fcntl.h>
#include <hiredis/adapters/libevent.h>
#include <hiredis/async.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>

/* A vanished host is noticed on an idle connection after some 8 seconds. */
#define KEEPALIVE_IDLE_S     5
#define KEEPALIVE_INTERVAL_S 1
#define KEEPALIVE_COUNT      3
/* Sent data may stay unacknowledged for this long. */
#define UNACKNOWLEDGED_MS 8000

#define CHANNEL_MAX 512

/* Room for put_count. */
#define COUNT_MAX 23

struct redis_command {
	redis_reply_fn *fn; /* NULL: nobody waits */
	void *arg;
};

struct redis_conn {
	struct redis_conn_events on;
	redisAsyncContext *ac; /* NULL once it has been freed */
	struct redis_fence fence;
	struct event *readable;
	/* The adapter's functions, which ours call. */
	void (*add_write)(void *data);
	void (*del_write)(void *data);
	void (*cleanup)(void *data);
	struct later *flush; /* writes all that was sent in a turn together */
	char *out;           /* the command in RESP, while it is handed to hiredis */
	size_t out_size;
	size_t waiting;
	size_t unwritten; /* how many of these wait for `flush` */
	int64_t silent_since_ms;
	int64_t read_ms; /* when the answers at hand were read; 0: the clock was not asked yet */
	char why[256];   /* why it failed */
	const char *free_why; /* during redis_conn_free: its `why` */
	char channel[CHANNEL_MAX];
	bool reading; /* `readable` is in the poll set */
	bool up;
	bool shut;
	bool dying;
	bool flushing;
};

/* --- the end ------------------------------------------------------------------------------- */

void redis_conn_shut(struct redis_conn *conn)
{
	conn->shut = true;
	later_cancel(conn->flush);
	if (!conn->ac || conn->dying)
		return;
	event_del(conn->readable);
	conn->del_write(conn->ac->ev.data);
}

/* The reason in an error that came unasked, as from a server that is at its limit of clients. */
static const char *unasked_reason(struct redis_conn *conn, char *text, size_t size)
{
	redisReply reply = {.type = REDIS_REPLY_ERROR,
			    .str = conn->fence.unasked_error,
			    .len = strlen(conn->fence.unasked_error)};
	const char *why = conn->on.check_reply ? conn->on.check_reply(conn->on.arg, &reply) : NULL;
	char words[128];

	if (why && conn->on.refused)
		conn->on.refused(conn->on.arg, why);
	if (why)
		return why;
	if (!conn->channel[0])
		return "the server spoke without being asked";
	redis_fault_words(reply.str, words, sizeof(words));
	snprintf(text, size, "the server refuses SUBSCRIBE (%s)", words);
	return text;
}

static const char *reason(struct redis_conn *conn, char *text, size_t size)
{
	const redisContext *c = &conn->ac->c;

	if (conn->fence.why)
		return conn->fence.why;
	if (conn->fence.unasked_error[0])
		return unasked_reason(conn, text, size);
	if (!conn->up)
		return c->errstr;
	/* All three mean that the server closed; which one comes depends on what was being written.
	 */
	if (c->err == REDIS_ERR_EOF || strcmp(c->errstr, strerror(ECONNRESET)) == 0 ||
	    strcmp(c->errstr, strerror(EPIPE)) == 0)
		return "the server closed the connection";
	if (c->err == REDIS_ERR_PROTOCOL)
		return "what answers there does not speak Redis's protocol";
	snprintf(text, size, "the connection failed: %s", c->errstr);
	return text;
}

static void conn_fail(struct redis_conn *conn, const char *why)
{
	if (conn->shut)
		return;
	if (why != conn->why)
		snprintf(conn->why, sizeof(conn->why), "%s", why);
	redis_conn_shut(conn);
	conn->on.down(conn->on.arg, conn->why);
}

/* hiredis is about to free the context. */
static void conn_dies(struct redis_conn *conn)
{
	char text[256];

	if (conn->dying)
		return;
	conn->dying = true;
	if (!conn->shut)
		conn_fail(conn, reason(conn, text, sizeof(text)));
}

static const char *lost_why(const struct redis_conn *conn)
{
	if (conn->why[0] || !conn->free_why)
		return conn->why;
	return conn->free_why;
}

static void on_disconnect(const redisAsyncContext *ac, int status)
{
	struct redis_conn *conn = ac->data;

	(void)status;
	conn_dies(conn);
	conn->ac = NULL;
	conn->waiting = conn->unwritten = 0;
}

/* --- answers ------------------------------------------------------------------------------- */

static void conn_heard(struct redis_conn *conn)
{
	conn->waiting--;
	if (conn->read_ms == 0)
		conn->read_ms = clock_ms();
	conn->silent_since_ms = conn->read_ms;
}

/* Frees the command before its callback, in which nothing may point to it any more. */
static void command_end(struct redis_command *command, enum redis_outcome outcome,
			const redisReply *reply, const char *why)
{
	const struct redis_command ended = *command;

	free(command);
	if (ended.fn)
		ended.fn(ended.arg, outcome, reply, why);
}

static void on_reply(redisAsyncContext *ac, void *r, void *privdata)
{
	struct redis_conn *conn = ac->data;
	const char *why = NULL;

	if (!r) {
		conn->waiting--;
		conn_dies(conn);
		command_end(privdata, REDIS_LOST, NULL, lost_why(conn));
		return;
	}
	conn_heard(conn);
	if (conn->on.check_reply)
		why = conn->on.check_reply(conn->on.arg, r);
	command_end(privdata, why ? REDIS_REFUSED : REDIS_REPLY, why ? NULL : r, why);
	if (why && conn->on.refused)
		conn->on.refused(conn->on.arg, why);
}

/* An answer of three elements: the fence lets no other one pass. */
static void on_message(redisAsyncContext *ac, void *r, void *privdata)
{
	struct redis_conn *conn = ac->data;
	const redisReply *last = r ? ((redisReply *)r)->element[2] : NULL;

	(void)privdata;
	if (!last) {
		conn_dies(conn);
		return;
	}
	if (conn->shut)
		return;
	if (last->type == REDIS_REPLY_STRING) {
		if (conn->on.message)
			conn->on.message(conn->on.arg, last->str, last->len);
	} else if (conn->waiting > 0) {
		conn_heard(conn);
		if (conn->on.subscribed)
			conn->on.subscribed(conn->on.arg);
	}
}

/* --- the loop's side ----------------------------------------------------------------------- */

static struct redis_conn *conn_of(void *adapter_data)
{
	return ((redisLibeventEvents *)adapter_data)->context->data;
}

/* hiredis asks for this after each read, before it parses what was read. */
static void on_want_read(void *data)
{
	struct redis_conn *conn = conn_of(data);

	if (conn->shut)
		return;
	if (!conn->reading)
		conn->reading = event_add(conn->readable, NULL) == 0;
	redis_fence_check_buffer(&conn->fence);
}

/* Replaces the adapter's. That of hiredis 0.14 takes the socket out of the poll set with each read,
 * and no version says when all that was read has been answered. */
static void on_readable(evutil_socket_t fd, short what, void *arg)
{
	struct redis_conn *conn = arg;

	(void)fd;
	(void)what;
	conn->read_ms = 0;
	redisAsyncHandleRead(conn->ac);
	if (conn->on.answered)
		conn->on.answered(conn->on.arg);
}

/* The socket is about to be closed. */
static void on_cleanup(void *data)
{
	struct redis_conn *conn = conn_of(data);

	event_del(conn->readable);
	conn->cleanup(data);
}

/* hiredis asks for this when there is something to write. The adapter would first wait until the
 * socket is writable, which it nearly always is. */
static void on_want_write(void *data)
{
	struct redis_conn *conn = conn_of(data);

	if (conn->shut)
		return;
	if (!conn->up || conn->flushing)
		conn->add_write(data);
	else
		later_run(conn->flush);
}

static void on_flush(void *arg)
{
	struct redis_conn *conn = arg;

	if (!conn->ac) {
		/* connect(2) failed at once. */
		conn_fail(conn, conn->why);
		return;
	}
	conn->unwritten = 0;
	conn->flushing = true;
	redisAsyncHandleWrite(conn->ac);
	conn->flushing = false;
}

/* --- connecting ---------------------------------------------------------------------------- */

/* True if the socket is connected to itself. That happens when nobody listens on a port in the
 * range of ephemeral ports, and would keep the server from its own port. */
static bool is_self_connected(int fd)
{
	struct redis_address own = {.len = sizeof(own.sockaddr)};
	struct redis_address peer = {.len = sizeof(peer.sockaddr)};

	return getsockname(fd, (struct sockaddr *)&own.sockaddr, &own.len) == 0 &&
	       getpeername(fd, (struct sockaddr *)&peer.sockaddr, &peer.len) == 0 &&
	       own.sockaddr.ss_family != AF_UNIX && own.len == peer.len &&
	       memcmp(&own.sockaddr, &peer.sockaddr, own.len) == 0;
}

static void on_connect(const redisAsyncContext *ac, int status)
{
	struct redis_conn *conn = ac->data;

	if (status != REDIS_OK) {
		conn_dies(conn);
		conn->ac = NULL;
	} else if (is_self_connected(ac->c.fd)) {
		conn_fail(conn, strerror(ECONNREFUSED));
	} else if (!conn->shut) {
		conn->up = true;
		conn->on.up(conn->on.arg);
	}
}

/* Sets socket options. One that cannot be set is no reason to fail. */
static void tune(int fd, bool tcp)
{
	int on = 1, idle = KEEPALIVE_IDLE_S, interval = KEEPALIVE_INTERVAL_S;
	int count = KEEPALIVE_COUNT, unacknowledged = UNACKNOWLEDGED_MS;
	struct linger drop = {.l_onoff = 1};

	fcntl(fd, F_SETFD, FD_CLOEXEC);
	if (!tcp)
		return;
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on));
	setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle, sizeof(idle));
	setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &interval, sizeof(interval));
	setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &count, sizeof(count));
	/* close(2) drops what was not acknowledged (tcp(7), socket(7)). Otherwise the kernel would
	 * go on sending it, and it could arrive after what the next connection carries. */
	setsockopt(fd, SOL_SOCKET, SO_LINGER, &drop, sizeof(drop));
	setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &unacknowledged, sizeof(unacknowledged));
}

/* hiredis takes an address as text; numeric text needs no look-up. */
static redisAsyncContext *open_context(const struct redis_address *address)
{
	const struct sockaddr *sockaddr = (const void *)&address->sockaddr;
	char host[NI_MAXHOST], port[NI_MAXSERV];

	if (sockaddr->sa_family == AF_UNIX)
		return redisAsyncConnectUnix(
			((const struct sockaddr_un *)(const void *)sockaddr)->sun_path);
	if (getnameinfo(sockaddr, address->len, host, sizeof(host), port, sizeof(port),
			NI_NUMERICHOST | NI_NUMERICSERV) != 0)
		return NULL;
	return redisAsyncConnect(host, (int)strtol(port, NULL, 10));
}

static int attach(struct redis_conn *conn, struct event_base *base, bool tcp)
{
	redisAsyncContext *ac = conn->ac;

	ac->data = conn;
	tune(ac->c.fd, tcp);
	redis_fence_init(&conn->fence, ac);
	conn->readable = event_new(base, ac->c.fd, EV_READ | EV_PERSIST, on_readable, conn);
	if (!conn->readable || redisLibeventAttach(ac, base) != REDIS_OK)
		return -1;
	ac->ev.delRead(ac->ev.data);
	conn->add_write = ac->ev.addWrite;
	conn->del_write = ac->ev.delWrite;
	conn->cleanup = ac->ev.cleanup;
	ac->ev.addRead = on_want_read;
	ac->ev.addWrite = on_want_write;
	ac->ev.cleanup = on_cleanup;
	redisAsyncSetDisconnectCallback(ac, on_disconnect);
	return redisAsyncSetConnectCallback(ac, on_connect) == REDIS_OK ? 0 : -1;
}

struct redis_conn *redis_conn_new(struct event_base *base, const struct redis_address *address,
				  const struct redis_conn_events *events)
{
	struct redis_conn *conn = calloc(1, sizeof(*conn));

	if (!conn)
		return NULL;
	conn->on = *events;
	conn->flush = later_new(base, on_flush, conn);
	conn->ac = open_context(address);
	if (!conn->flush || !conn->ac)
		goto fail;
	if (conn->ac->err) {
		snprintf(conn->why, sizeof(conn->why), "%s", conn->ac->errstr);
		redisAsyncFree(conn->ac);
		conn->ac = NULL;
		later_run(conn->flush);
	} else if (attach(conn, base, address->sockaddr.ss_family != AF_UNIX) < 0) {
		goto fail;
	}
	return conn;
fail:
	if (conn->ac)
		redisAsyncFree(conn->ac);
	if (conn->readable)
		event_free(conn->readable);
	later_free(conn->flush);
	free(conn);
	return NULL;
}

void redis_conn_free(struct redis_conn *conn, const char *why)
{
	if (!conn)
		return;
	redis_conn_shut(conn);
	conn->free_why = why;
	if (conn->ac)
		redisAsyncFree(conn->ac);
	if (conn->readable)
		event_free(conn->readable);
	later_free(conn->flush);
	free(conn->out);
	free(conn);
}

/* --- commands ------------------------------------------------------------------------------ */

static void conn_sent(struct redis_conn *conn)
{
	if (conn->waiting++ == 0)
		conn->silent_since_ms = clock_ms();
	conn->unwritten++;
}

/* "*3\r\n" or "$7\r\n" */
static char *put_count(char *p, char type, size_t n)
{
	*p++ = type;
	p = number_put(p, (int64_t)n);
	*p++ = '\r';
	*p++ = '\n';
	return p;
}

/* Writes the command in RESP into conn->out. Returns its length, or 0 when out of memory. hiredis's
 * own redisFormatSdsCommandArgv takes six times as long: a tenth of what a read costs us. */
static size_t format(struct redis_conn *conn, int argc, const char **argv, const size_t *argvlen)
{
	size_t size = COUNT_MAX + 1;
	char *p;

	for (int i = 0; i < argc; i++)
		size += COUNT_MAX + argvlen[i] + 2;
	if (size > conn->out_size) {
		p = realloc(conn->out, size);
		if (!p)
			return 0;
		conn->out = p;
		conn->out_size = size;
	}
	p = put_count(conn->out, '*', (size_t)argc);
	for (int i = 0; i < argc; i++) {
		p = put_count(p, '$', argvlen[i]);
		memcpy(p, argv[i], argvlen[i]);
		p += argvlen[i];
		*p++ = '\r';
		*p++ = '\n';
	}
	*p = '\0'; /* hiredis looks for '$' with strchr(3) */
	return (size_t)(p - conn->out);
}

struct redis_command *redis_conn_send(struct redis_conn *conn, redis_reply_fn *fn, void *arg,
				      int argc, const char **argv, const size_t *argvlen)
{
	struct redis_command *command;
	size_t len;

	if (!conn->up || conn->shut || conn->channel[0])
		return NULL;
	len = format(conn, argc, argv, argvlen);
	if (len == 0)
		return NULL;
	command = malloc(sizeof(*command));
	if (!command)
		return NULL;
	*command = (struct redis_command){.fn = fn, .arg = arg};
	if (redisAsyncFormattedCommand(conn->ac, on_reply, command, conn->out, len) != REDIS_OK) {
		free(command);
		return NULL;
	}
	conn_sent(conn);
	return command;
}

void redis_command_forget(struct redis_command *command)
{
	command->fn = NULL;
}

int redis_conn_subscribe(struct redis_conn *conn, const char *channel)
{
	const char *argv[] = {"SUBSCRIBE", channel};
	const size_t lens[] = {9, strlen(channel)};

	if (!conn->up || conn->shut || lens[1] == 0 || lens[1] >= sizeof(conn->channel) ||
	    (conn->channel[0] && strcmp(conn->channel, channel) != 0))
		return -1;
	memcpy(conn->channel, channel, lens[1] + 1);
	conn->fence.channel = conn->channel;
	if (redisAsyncCommandArgv(conn->ac, on_message, NULL, 2, argv, lens) != REDIS_OK)
		return -1;
	conn_sent(conn);
	return 0;
}

void redis_conn_flush(struct redis_conn *conn)
{
	if (conn->up)
		later_now(conn->flush);
}

size_t redis_conn_waiting(const struct redis_conn *conn)
{
	return conn->waiting;
}

bool redis_conn_busy(const struct redis_conn *conn)
{
	return conn->waiting > conn->unwritten;
}

int64_t redis_conn_silent_since_ms(const struct redis_conn *conn)
{
	return conn->silent_since_ms;
}
