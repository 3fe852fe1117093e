/*
 * hiredis's redisContext without blocking, driven by events of our own, instead of its
 * redisAsyncContext: that one ends the process through an assert when the server talks
 * unasked, frees itself in the midst of a callback, and does both differently in 0.14 and
 * in 1.x. Formatting, buffers and the parser are hiredis's; the order of answers is ours.
 */
#include "redis/conn.h"

#include "base/clock.h"

#include <arpa/inet.h>
#include <errno.h>
#include <event2/event.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

/* A vanished host is noticed on an idle connection after some 8 seconds. */
#define KEEPALIVE_IDLE_S     5
#define KEEPALIVE_INTERVAL_S 1
#define KEEPALIVE_COUNT      3

/* Far over what we ask for. A peer that goes on beyond is not sane. */
#define ANSWER_BYTES_MAX    (64u << 20)
#define ANSWER_ELEMENTS_MAX 65536
#define ANSWER_DEPTH_MAX    7

struct waiting {
	redis_reply_fn *fn;
	void *arg;
	STAILQ_ENTRY(waiting) entry;
};

struct redis_conn {
	struct redis_conn_events on;
	redisContext *context;
	redisReplyObjectFunctions functions; /* the defaults, but for one */
	redisReplyObjectFunctions *defaults;
	struct event *readable;
	struct event *writable;
	struct event *flush; /* writes at the end of the loop's turn, all at once */
	STAILQ_HEAD(waiting_list, waiting) queue;
	size_t waiting;
	int64_t silent_since_ms;
	size_t answer_bytes; /* read since the last whole answer */
	int early_errno;     /* connect(2) failed at once */
	bool up;
	bool shut;
	bool lost_count; /* it spoke unasked */
};

void redis_place_print(const struct redis_place *place, char *out, size_t size)
{
	const struct sockaddr_in *in = (const void *)&place->address;
	const struct sockaddr_in6 *in6 = (const void *)&place->address;
	char text[INET6_ADDRSTRLEN] = "?";

	if (place->address.ss_family == AF_UNIX) {
		snprintf(out, size, "%s", ((const struct sockaddr_un *)in)->sun_path);
	} else if (place->address.ss_family == AF_INET) {
		inet_ntop(AF_INET, &in->sin_addr, text, sizeof(text));
		snprintf(out, size, "%s:%d", text, ntohs(in->sin_port));
	} else {
		inet_ntop(AF_INET6, &in6->sin6_addr, text, sizeof(text));
		snprintf(out, size, "[%s]:%d", text, ntohs(in6->sin6_port));
	}
}

void redis_conn_shut(struct redis_conn *conn)
{
	conn->shut = true;
	event_del(conn->readable);
	event_del(conn->writable);
	event_del(conn->flush);
}

static void conn_fail(struct redis_conn *conn, const char *why)
{
	if (conn->shut)
		return;
	redis_conn_shut(conn);
	conn->on.down(conn->on.arg, why);
}

static void conn_fail_as_hiredis_says(struct redis_conn *conn)
{
	const redisContext *context = conn->context;
	char why[256];

	if (context->err == REDIS_ERR_EOF)
		snprintf(why, sizeof(why), "the server closed the connection");
	else
		snprintf(why, sizeof(why), "the connection failed: %s", context->errstr);
	conn_fail(conn, why);
}

static void conn_answer(struct redis_conn *conn, redisReply *reply)
{
	struct waiting *first = STAILQ_FIRST(&conn->queue);
	const char *why = NULL;

	STAILQ_REMOVE_HEAD(&conn->queue, entry);
	conn->waiting--;
	conn->silent_since_ms = clock_ms();
	if (conn->on.judge)
		why = conn->on.judge(conn->on.arg, reply);
	first->fn(first->arg, why ? REDIS_REFUSED : REDIS_REPLY, why ? NULL : reply, why);
	free(first);
}

static bool is_answer(const redisReply *reply)
{
#ifdef REDIS_REPLY_PUSH
	if (reply->type == REDIS_REPLY_PUSH)
		return false;
#endif
	return reply->type >= REDIS_REPLY_STRING;
}

static void conn_unasked(struct redis_conn *conn, const redisReply *reply)
{
	const char *why = NULL;

	if (conn->on.unasked && conn->on.unasked(conn->on.arg, reply))
		return;
	if (conn->on.judge && reply->type == REDIS_REPLY_ERROR)
		why = conn->on.judge(conn->on.arg, reply);
	conn_fail(conn, why ? why : "the server spoke without being asked");
	/* Whose the next answers are is not known any more. */
	conn->lost_count = true;
}

/* Hands out what the reader has. Also of a connection that is shut: these were answered. */
static void conn_parse(struct redis_conn *conn)
{
	redisReader *reader = conn->context->reader;
	void *reply = NULL;

	while (!conn->lost_count && redisReaderGetReply(reader, &reply) == REDIS_OK && reply) {
		conn->answer_bytes = 0;
		if (STAILQ_EMPTY(&conn->queue) || !is_answer(reply))
			conn_unasked(conn, reply);
		else
			conn_answer(conn, reply);
		freeReplyObject(reply);
	}
	if (reader->err == REDIS_ERR_PROTOCOL)
		conn_fail(conn, "what answers there does not speak Redis's protocol");
	else if (reader->err)
		conn_fail(conn, "the server sent a larger answer than can be");
	else if (conn->answer_bytes > ANSWER_BYTES_MAX)
		conn_fail(conn, "the server sent a larger answer than can be");
}

/* True if it may be called again for more. */
static bool conn_read(struct redis_conn *conn)
{
	redisReader *reader = conn->context->reader;
	size_t had = reader->len;

	if (redisBufferRead(conn->context) != REDIS_OK) {
		conn_fail_as_hiredis_says(conn);
		return false;
	}
	if (reader->len == had)
		return false;
	conn->answer_bytes += reader->len - had;
	conn_parse(conn);
	return !conn->shut;
}

static void conn_write(struct redis_conn *conn)
{
	int done = 0;

	if (redisBufferWrite(conn->context, &done) == REDIS_OK) {
		if (!done)
			event_add(conn->writable, NULL);
		return;
	}
	/* A server that turns us away says why, and closes: hear that first. hiredis reads
	 * nothing once it has met an error. */
	conn->context->err = 0;
	while (conn_read(conn))
		continue;
	conn_fail(conn, "the server closed the connection");
}

/* Out of the range of ephemeral ports a socket can meet itself when nobody listens, and
 * would then keep the server from its own port. */
static bool met_itself(int fd)
{
	struct redis_place own = {.len = sizeof(own.address)};
	struct redis_place peer = {.len = sizeof(peer.address)};

	return getsockname(fd, (struct sockaddr *)&own.address, &own.len) == 0 &&
	       getpeername(fd, (struct sockaddr *)&peer.address, &peer.len) == 0 &&
	       own.address.ss_family != AF_UNIX && own.len == peer.len &&
	       memcmp(&own.address, &peer.address, own.len) == 0;
}

static int connect_errno(int fd)
{
	int error = 0;
	socklen_t len = sizeof(error);

	if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &len) < 0)
		return errno;
	return error == 0 && met_itself(fd) ? ECONNREFUSED : error;
}

static void conn_connected(struct redis_conn *conn)
{
	int error = conn->early_errno ? conn->early_errno : connect_errno(conn->context->fd);

	if (error == EINPROGRESS || error == EALREADY) {
		event_add(conn->writable, NULL);
	} else if (error) {
		conn_fail(conn, strerror(error));
	} else {
		conn->up = true;
		event_add(conn->readable, NULL);
		conn->on.up(conn->on.arg);
	}
}

static void on_readable(evutil_socket_t fd, short what, void *arg)
{
	(void)fd;
	(void)what;
	conn_read(arg);
}

static void on_writable(evutil_socket_t fd, short what, void *arg)
{
	struct redis_conn *conn = arg;

	(void)fd;
	(void)what;
	if (conn->up)
		conn_write(conn);
	else
		conn_connected(conn);
}

/* Failing to set one is no reason not to be connected. */
static void tune(int fd)
{
	int on = 1, idle = KEEPALIVE_IDLE_S, interval = KEEPALIVE_INTERVAL_S;
	int count = KEEPALIVE_COUNT;

	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on));
	setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle, sizeof(idle));
	setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &interval, sizeof(interval));
	setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &count, sizeof(count));
}

#if HIREDIS_MAJOR >= 1
#define ELEMENTS size_t
#else
#define ELEMENTS int
#endif

/* A line of garbage may announce two thousand million elements, and hiredis believes it;
 * 1.x also any depth, and then frees it by recursion. */
static void *create_array(const redisReadTask *task, ELEMENTS elements)
{
	const struct redis_conn *conn = task->privdata;
	unsigned depth = 0;

	for (const redisReadTask *up = task->parent; up && depth < ANSWER_DEPTH_MAX;
	     up = up->parent)
		depth++;
	if (elements > ANSWER_ELEMENTS_MAX || depth == ANSWER_DEPTH_MAX)
		return NULL;
	return conn->defaults->createArray(task, elements);
}

static bool open_context(struct redis_conn *conn, int fd)
{
	conn->context = redisConnectFd(fd);
	if (!conn->context)
		return false;
	/* redisConnectFd takes it for a blocking one. */
	conn->context->flags &= ~REDIS_BLOCK;
	conn->defaults = conn->context->reader->fn;
	conn->functions = *conn->defaults;
	conn->functions.createArray = create_array;
	conn->context->reader->fn = &conn->functions;
	conn->context->reader->privdata = conn;
	return true;
}

/* The socket, or -1; a connect that fails at once is kept for the loop. */
static int open_socket(struct redis_conn *conn, const struct redis_place *place)
{
	int fd = socket(place->address.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

	if (fd < 0)
		return -1;
	if (place->address.ss_family != AF_UNIX)
		tune(fd);
	if (connect(fd, (const struct sockaddr *)&place->address, place->len) < 0 &&
	    errno != EINPROGRESS)
		conn->early_errno = errno;
	return fd;
}

static bool open_events(struct redis_conn *conn, struct event_base *base)
{
	int fd = conn->context->fd;

	conn->readable = event_new(base, fd, EV_READ | EV_PERSIST, on_readable, conn);
	conn->writable = event_new(base, fd, EV_WRITE, on_writable, conn);
	conn->flush = event_new(base, -1, 0, on_writable, conn);
	return conn->readable && conn->writable && conn->flush;
}

static void conn_destroy(struct redis_conn *conn)
{
	/* The events first: closing the socket takes it out of the poll set behind their back. */
	if (conn->readable)
		event_free(conn->readable);
	if (conn->writable)
		event_free(conn->writable);
	if (conn->flush)
		event_free(conn->flush);
	redisFree(conn->context);
	free(conn);
}

struct redis_conn *redis_conn_new(struct event_base *base, const struct redis_place *place,
				  const struct redis_conn_events *events)
{
	struct redis_conn *conn = calloc(1, sizeof(*conn));
	int fd;

	if (!conn)
		return NULL;
	conn->on = *events;
	STAILQ_INIT(&conn->queue);
	fd = open_socket(conn, place);
	if (fd < 0)
		goto fail;
	if (!open_context(conn, fd)) {
		close(fd);
		goto fail;
	}
	if (!open_events(conn, base))
		goto fail;
	if (conn->early_errno)
		event_active(conn->flush, EV_WRITE, 0);
	else
		event_add(conn->writable, NULL);
	return conn;
fail:
	conn_destroy(conn);
	return NULL;
}

int redis_conn_send(struct redis_conn *conn, redis_reply_fn *fn, void *arg, int argc,
		    const char **argv, const size_t *argvlen)
{
	struct waiting *last;

	if (!conn->up || conn->shut)
		return -1;
	last = malloc(sizeof(*last));
	if (!last)
		return -1;
	if (redisAppendCommandArgv(conn->context, argc, argv, argvlen) != REDIS_OK) {
		free(last);
		return -1;
	}
	last->fn = fn;
	last->arg = arg;
	if (conn->waiting++ == 0)
		conn->silent_since_ms = clock_ms();
	STAILQ_INSERT_TAIL(&conn->queue, last, entry);
	if (!event_pending(conn->writable, EV_WRITE, NULL))
		event_active(conn->flush, EV_WRITE, 0);
	return 0;
}

size_t redis_conn_waiting(const struct redis_conn *conn)
{
	return conn->waiting;
}

int64_t redis_conn_silent_since_ms(const struct redis_conn *conn)
{
	return conn->silent_since_ms;
}

void redis_conn_free(struct redis_conn *conn, const char *why)
{
	struct waiting *first;

	if (!conn)
		return;
	redis_conn_shut(conn);
	while ((first = STAILQ_FIRST(&conn->queue))) {
		STAILQ_REMOVE_HEAD(&conn->queue, entry);
		conn->waiting--;
		first->fn(first->arg, REDIS_LOST, NULL, why);
		free(first);
	}
	conn_destroy(conn);
}
