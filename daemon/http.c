#include "http.h"

#include "log.h"
#include "metrics.h"
#include "problem.h"

#include <arpa/inet.h>
#include <assert.h>
#include <errno.h>
#include <event2/event.h>
#include <event2/util.h>
#include <inttypes.h>
#include <linux/sockios.h>
#include <linux/tcp.h>
#include <microhttpd.h>
#include <netinet/in.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/ioctl.h>
#include <sys/queue.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

/*
 * One libmicrohttpd daemon without a listening socket, and this file accepts for it: so
 * several listeners share one limit of connections, and waiting at the limit or for a free
 * descriptor is in our hands. libmicrohttpd runs whenever its epoll descriptor is readable,
 * and once at the end of a turn of the loop in which a connection was added or resumed,
 * which wake nothing by themselves. Its own time-out is not used: any byte would renew it.
 */

/* Memory that libmicrohttpd keeps for a connection: the request's line and headers fit in
 * it, or the answer is 414 or 431. It is cleared for each request, so more costs time. */
#define CONNECTION_MEMORY ((size_t)16 * 1024)
/* Connections accepted from one listener before the others have their turn. */
#define ACCEPT_BATCH 64
/* Times that libmicrohttpd is run again while it has data at hand, before all else. */
#define PUMP_ROUNDS 16
/* How long accepting pauses when there are no descriptors. */
#define PAUSE_MS 100
/* A body's memory up to this is kept for the connection's next request. */
#define BODY_KEEP ((size_t)4096)

/*
 * Where a connection is. Each of the first PHASES_TIMED has a list of its connections by
 * the time of their arrival in it, so that the oldest, whose time is over first, are in front.
 */
enum phase {
	PHASE_FRESH,   /* no request, and not yet looked at whether one has begun to arrive */
	PHASE_IDLE,    /* no request; ends after idle_timeout */
	PHASE_READING, /* from the request line to the end of the body; request_timeout */
	PHASE_SENDING, /* answered, but not all is sent: idle_timeout without progress */
	PHASE_HUNG_UP, /* no request, and none will come: ends at once */
	PHASES_TIMED,
	PHASE_HANDLER = PHASES_TIMED, /* the handler has the request; it has its own deadlines */
	PHASE_ENDING,                 /* shut down; libmicrohttpd is about to notice */
};

#define CONN_MAGIC 0x636f6e6eu

struct http_request {
	enum http_method method;
	bool begun;     /* the handler of libmicrohttpd has been called for it */
	bool suspended; /* the connection is */
	bool answered;  /* http_reply was called */
	bool queued;    /* and libmicrohttpd has the response */
	bool too_large;
	const char *target; /* as libmicrohttpd has it, without query */
	const char *query;  /* in query_buf, or NULL */
	size_t body_len;
	uint64_t arrived_ns; /* all of it */
	void *data;
};

struct conn {
	unsigned magic;
	struct http *http;
	struct MHD_Connection *mhd;
	int fd;
	enum phase phase;
	uint64_t requests; /* done */
	bool hung_up;      /* the client sends no more */
	int64_t since_ms;  /* when it came into its phase */
	uint64_t progress;
	TAILQ_ENTRY(conn) entry; /* in the list of its phase */
	struct http_request rq;
	/* Kept from request to request. */
	char *body;
	size_t body_size;
	char *query_buf;
	size_t query_size;
	union {
		struct sockaddr any;
		struct sockaddr_in in;
		struct sockaddr_in6 in6;
	} addr;
	char peer[64]; /* "" until somebody asks */
};
TAILQ_HEAD(conn_list, conn);

struct listener {
	struct http *http;
	int fd;
	bool enabled;
	struct event *ev;
	TAILQ_ENTRY(listener) entry;
	char name[];
};

struct http {
	struct event_base *base;
	struct http_limits limits;
	http_handler_fn *handler;
	void *arg;
	struct metrics *metrics;
	struct log *log;

	struct MHD_Daemon *mhd;
	struct event *readable; /* its epoll descriptor */
	struct event *pump;     /* runs it at the end of the turn */
	bool pump_pending;

	TAILQ_HEAD(listener_list, listener) listeners;
	struct event *unpause;
	bool paused; /* for want of descriptors */
	int64_t pause_logged_ms;
	struct conn *accepting; /* on its way through MHD_add_connection */

	struct conn_list phases[PHASES_TIMED];
	struct event *sweep;
	int64_t sweep_ms; /* when the timer fires; 0: it is off */
	unsigned connections;
	unsigned requests; /* under way, from their request line until they are sent */
	unsigned handling; /* with the handler */

	bool draining;
	void (*drained)(void *arg);
	void *drained_arg;
};

static struct conn *conn_of(const struct http_request *rq)
{
	struct conn *c = (struct conn *)(void *)((char *)(uintptr_t)rq - offsetof(struct conn, rq));

	assert(c->magic == CONN_MAGIC);
	return c;
}

const char *http_method_name(enum http_method method)
{
	static const char *const names[] = {
		[HTTP_GET] = "GET",       [HTTP_HEAD] = "HEAD",   [HTTP_POST] = "POST",
		[HTTP_DELETE] = "DELETE", [HTTP_OTHER] = "other",
	};

	return names[(unsigned)method < HTTP_METHODS ? method : HTTP_OTHER];
}

/* Time. */

static uint64_t now_ns(clockid_t clock)
{
	struct timespec ts;

	clock_gettime(clock, &ts);
	return (uint64_t)ts.tv_sec * 1000000000 + (uint64_t)ts.tv_nsec;
}

/* To a few milliseconds, which is enough for stamps and costs next to nothing. */
static int64_t coarse_ms(void)
{
	return (int64_t)(now_ns(CLOCK_MONOTONIC_COARSE) / 1000000);
}

static int64_t phase_limit_ms(const struct http *http, enum phase phase)
{
	/* At least 1, or a sweep would find no end. */
	int64_t idle = (int64_t)http->limits.idle_timeout_s * 1000 + 1;
	int64_t request = (int64_t)http->limits.request_timeout_s * 1000 + 1;

	if (phase == PHASE_READING)
		return request;
	if (phase == PHASE_HUNG_UP)
		return 1;
	return phase == PHASE_FRESH && request < idle ? request : idle;
}

/* Lets the sweep come at `at_ms` or before. It is never put off here: it does that itself. */
static void sweep_by(struct http *http, int64_t at_ms)
{
	int64_t wait = at_ms - coarse_ms();
	struct timeval tv;

	if (http->sweep_ms && http->sweep_ms <= at_ms)
		return;
	/* A little late, so that the coarse clock has got there too. */
	wait = (wait < 0 ? 0 : wait) + 10;
	tv.tv_sec = (time_t)(wait / 1000);
	tv.tv_usec = (suseconds_t)(wait % 1000) * 1000;
	http->sweep_ms = at_ms;
	event_add(http->sweep, &tv);
}

static void conn_leave(struct conn *c)
{
	if (c->phase < PHASES_TIMED)
		TAILQ_REMOVE(&c->http->phases[c->phase], c, entry);
}

/* The one place where a connection changes its phase. */
static void conn_enter(struct conn *c, enum phase phase)
{
	struct http *http = c->http;

	conn_leave(c);
	c->phase = phase;
	if (phase >= PHASES_TIMED)
		return;
	/* An idle connection is so since it was fresh. */
	if (phase != PHASE_IDLE)
		c->since_ms = coarse_ms();
	TAILQ_INSERT_TAIL(&http->phases[phase], c, entry);
	sweep_by(http, c->since_ms + phase_limit_ms(http, phase));
}

/* Bytes that the peer of a TCP connection has taken; of another, what it has still to take. */
static uint64_t conn_progress(const struct conn *c)
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
 * True if bytes have come since the connection has no request: one is on its way, and slow.
 * Only TCP can tell.
 */
static bool conn_has_begun(const struct conn *c)
{
	struct tcp_info info;
	socklen_t len = sizeof(info);

	memset(&info, 0, sizeof(info));
	if (getsockopt(c->fd, IPPROTO_TCP, TCP_INFO, &info, &len) != 0)
		return false;
	if (!c->requests)
		return info.tcpi_bytes_received > 0;
	/* 100 ms, lest it be the end of the last request. */
	return (int64_t)info.tcpi_last_data_recv + 100 < coarse_ms() - c->since_ms;
}

static bool conn_has_hung_up(const struct conn *c)
{
	char byte;

	return recv(c->fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) == 0;
}

/* Ends a connection: libmicrohttpd sees it hung up, and cleans up behind it. */
static void conn_end(struct conn *c, const char *why)
{
	log_debug(c->http->log, "http_timeout", "peer=%s phase=%s", http_request_peer(&c->rq), why);
	conn_enter(c, PHASE_ENDING);
	shutdown(c->fd, SHUT_RDWR);
}

/* The time of a connection in its phase is over. */
static void conn_overdue(struct conn *c, int64_t now)
{
	uint64_t progress;

	switch (c->phase) {
	case PHASE_FRESH:
		if (conn_has_begun(c) || conn_has_hung_up(c))
			conn_end(c, "request_line");
		else if (c->since_ms + phase_limit_ms(c->http, PHASE_IDLE) <= now)
			conn_end(c, "idle");
		else
			conn_enter(c, PHASE_IDLE);
		break;
	case PHASE_IDLE:
		conn_end(c, "idle");
		break;
	case PHASE_SENDING:
		progress = conn_progress(c);
		if (progress == c->progress)
			conn_end(c, "sending");
		else
			conn_enter(c, PHASE_SENDING);
		c->progress = progress;
		break;
	default:
		conn_end(c, "request");
	}
}

static void on_sweep(evutil_socket_t fd, short what, void *arg)
{
	struct http *http = arg;
	int64_t now = coarse_ms(), next = 0;
	struct conn *c;

	(void)fd;
	(void)what;
	/* On, and in the past: what is entered meanwhile does not arm it. */
	http->sweep_ms = 1;
	for (int p = 0; p < PHASES_TIMED; p++) {
		int64_t limit = phase_limit_ms(http, (enum phase)p);

		while ((c = TAILQ_FIRST(&http->phases[p])) && c->since_ms + limit <= now)
			conn_overdue(c, now);
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

/* The pump. */

/* True while libmicrohttpd has data at hand that no descriptor will announce. */
static bool mhd_is_busy(struct http *http)
{
	MHD_UNSIGNED_LONG_LONG ms;

	/* It has no time-outs of its own, so there is no other wait than none. */
	return MHD_get_timeout(http->mhd, &ms) == MHD_YES;
}

static void schedule_pump(struct http *http)
{
	if (http->pump_pending)
		return;
	http->pump_pending = true;
	event_active(http->pump, EV_TIMEOUT, 0);
}

static void check_drained(struct http *http)
{
	void (*drained)(void *arg) = http->drained;

	if (!drained || http->requests)
		return;
	http->drained = NULL;
	drained(http->drained_arg);
}

/* Runs libmicrohttpd until it waits for the network again. */
static void pump(struct http *http)
{
	unsigned rounds = 0;

	http->pump_pending = false;
	do
		MHD_run(http->mhd);
	while (mhd_is_busy(http) && ++rounds < PUMP_ROUNDS);
	/* Still busy: the rest of the loop has its turn first. */
	if (rounds == PUMP_ROUNDS)
		schedule_pump(http);
	check_drained(http);
}

static void on_pump(evutil_socket_t fd, short what, void *arg)
{
	(void)fd;
	(void)what;
	pump(arg);
}

/* Accepting. */

/* Brings the listeners into line with what may be accepted now. */
static void update_listeners(struct http *http)
{
	bool enable = !http->paused && !http->draining &&
		      http->connections < http->limits.max_connections;
	struct listener *l;

	TAILQ_FOREACH (l, &http->listeners, entry) {
		if (l->enabled == enable)
			continue;
		l->enabled = enable;
		if (enable)
			event_add(l->ev, NULL);
		else
			event_del(l->ev);
	}
}

static void on_unpause(evutil_socket_t fd, short what, void *arg)
{
	struct http *http = arg;

	(void)fd;
	(void)what;
	http->paused = false;
	update_listeners(http);
}

/* Accepting has failed for a reason that will not go away at once. */
static void pause_listeners(struct http *http, const struct listener *l, int why)
{
	const struct timeval tv = {.tv_usec = PAUSE_MS * 1000};
	int64_t now = coarse_ms();

	if (!http->pause_logged_ms || now - http->pause_logged_ms > 10000) {
		http->pause_logged_ms = now;
		log_warning(http->log, "http_accept_failed", "listener=%s error=%s", l->name,
			    log_quote(strerror(why), strlen(strerror(why))).text);
	}
	http->paused = true;
	event_add(http->unpause, &tv);
	update_listeners(http);
}

static void conn_free(struct conn *c)
{
	c->magic = 0;
	free(c->body);
	free(c->query_buf);
	free(c);
}

static void add_connection(struct http *http, int fd, const struct sockaddr_storage *ss,
			   socklen_t len)
{
	struct conn *c = calloc(1, sizeof(*c));

	if (!c) {
		close(fd);
		return;
	}
	c->magic = CONN_MAGIC;
	c->http = http;
	c->fd = fd;
	c->phase = PHASE_ENDING;
	memcpy(&c->addr, ss, len < sizeof(c->addr) ? len : sizeof(c->addr));
	/* on_connection takes it. */
	http->accepting = c;
	if (MHD_add_connection(http->mhd, fd, (const struct sockaddr *)ss, len) != MHD_YES)
		log_debug(http->log, "http_connection_refused", "errno=%d", errno);
	if (http->accepting) {
		http->accepting = NULL;
		conn_free(c);
	}
}

static void on_acceptable(evutil_socket_t fd, short what, void *arg)
{
	struct listener *l = arg;
	struct http *http = l->http;

	(void)what;
	for (unsigned n = 0; n < ACCEPT_BATCH; n++) {
		struct sockaddr_storage ss;
		socklen_t len = sizeof(ss);
		int client;

		if (http->connections >= http->limits.max_connections)
			break;
		memset(&ss, 0, sizeof(ss));
		client = accept4(fd, (struct sockaddr *)&ss, &len, SOCK_NONBLOCK | SOCK_CLOEXEC);
		if (client >= 0) {
			add_connection(http, client, &ss, len);
			continue;
		}
		if (errno == EAGAIN)
			break;
		/* accept(2): errors of the connection itself, as good as none having come. */
		if (errno == EINTR || errno == ECONNABORTED || errno == EPROTO || errno == EPERM)
			continue;
		pause_listeners(http, l, errno);
		break;
	}
	update_listeners(http);
	schedule_pump(http);
}

int http_listen(struct http *http, int fd, const char *name)
{
	size_t len = strlen(name) + 1;
	struct listener *l = calloc(1, sizeof(*l) + len);

	if (!l)
		return -1;
	l->http = http;
	l->fd = fd;
	memcpy(l->name, name, len);
	evutil_make_socket_nonblocking(fd);
	l->ev = event_new(http->base, fd, EV_READ | EV_PERSIST, on_acceptable, l);
	if (!l->ev) {
		free(l);
		return -1;
	}
	TAILQ_INSERT_TAIL(&http->listeners, l, entry);
	update_listeners(http);
	return 0;
}

static void close_listeners(struct http *http)
{
	struct listener *l;

	while ((l = TAILQ_FIRST(&http->listeners))) {
		TAILQ_REMOVE(&http->listeners, l, entry);
		event_free(l->ev);
		close(l->fd);
		free(l);
	}
}

/* What libmicrohttpd tells. */

static struct conn *conn_of_mhd(struct MHD_Connection *mhd)
{
	const union MHD_ConnectionInfo *info =
		MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_SOCKET_CONTEXT);

	return info ? info->socket_context : NULL;
}

static void on_connection(void *arg, struct MHD_Connection *mhd, void **context,
			  enum MHD_ConnectionNotificationCode code)
{
	struct http *http = arg;
	struct conn *c;

	if (code == MHD_CONNECTION_NOTIFY_STARTED) {
		c = *context = http->accepting;
		http->accepting = NULL;
		c->mhd = mhd;
		http->connections++;
		http->metrics->http_connections++;
		http->metrics->http_connections_accepted++;
		conn_enter(c, PHASE_FRESH);
		return;
	}
	c = *context;
	*context = NULL;
	conn_leave(c);
	conn_free(c);
	http->connections--;
	http->metrics->http_connections--;
	if (!http->connections) {
		/* Nothing is waited for: no timer shall wake an idle daemon. */
		event_del(http->sweep);
		http->sweep_ms = 0;
	}
	update_listeners(http);
}

static enum http_method parse_method(const char *method)
{
	switch (method[0]) {
	case 'G':
		return strcmp(method, "GET") ? HTTP_OTHER : HTTP_GET;
	case 'H':
		return strcmp(method, "HEAD") ? HTTP_OTHER : HTTP_HEAD;
	case 'P':
		return strcmp(method, "POST") ? HTTP_OTHER : HTTP_POST;
	case 'D':
		return strcmp(method, "DELETE") ? HTTP_OTHER : HTTP_DELETE;
	default:
		return HTTP_OTHER;
	}
}

/* Makes room for need bytes in *buf, doubling it, up to max. */
static bool grow(char **buf, size_t *size, size_t need, size_t max)
{
	size_t want = *size ? *size : 256;
	char *p;

	if (need <= *size)
		return true;
	while (want < need)
		want *= 2;
	if (want > max)
		want = max;
	p = realloc(*buf, want);
	if (!p)
		return false;
	*buf = p;
	*size = want;
	return true;
}

/*
 * The request line has come. libmicrohttpd takes the query apart where it stands, so that
 * is copied; the path stays as it is. What is returned is the context of the request.
 */
static void *on_request_line(void *arg, const char *target, struct MHD_Connection *mhd)
{
	struct http *http = arg;
	struct conn *c = conn_of_mhd(mhd);
	const char *query = target ? strchr(target, '?') : NULL;
	size_t len;

	c->rq = (struct http_request){.target = target ? target : ""};
	if (query) {
		len = strlen(++query) + 1;
		if (grow(&c->query_buf, &c->query_size, len, SIZE_MAX))
			c->rq.query = memcpy(c->query_buf, query, len);
		else
			c->rq.target = NULL; /* on_begin gives up */
	}
	http->requests++;
	conn_enter(c, PHASE_READING);
	return c;
}

static void on_completed(void *arg, struct MHD_Connection *mhd, void **context,
			 enum MHD_RequestTerminationCode code)
{
	struct http *http = arg;
	struct conn *c = *context;

	(void)mhd;
	(void)code;
	if (!c)
		return;
	*context = NULL;
	assert(c->phase != PHASE_HANDLER);
	http->requests--;
	if (c->body_size > BODY_KEEP) {
		free(c->body);
		c->body = NULL;
		c->body_size = 0;
	}
	/*
	 * An end of the stream that came together with the request escapes libmicrohttpd
	 * (its epoll is edge-triggered, and a short read counts as the last). Clients that
	 * close their side do so behind their first request.
	 */
	if (c->requests++ == 0)
		c->hung_up = conn_has_hung_up(c);
	if (c->phase != PHASE_ENDING)
		conn_enter(c, c->hung_up ? PHASE_HUNG_UP : PHASE_FRESH);
}

/* What the headers say of the body. */
struct framing {
	unsigned lengths, encodings;
	bool chunked, differs, expects;
	uint64_t length;
	const char *first;
};

static bool name_is(const char *key, size_t len, const char *name, size_t name_len)
{
	return len == name_len && strncasecmp(key, name, len) == 0;
}

static enum MHD_Result on_framing_header(void *arg, enum MHD_ValueKind kind, const char *key,
					 size_t key_len, const char *value, size_t value_len)
{
	struct framing *f = arg;

	(void)kind;
	(void)value_len;
	if (!value)
		return MHD_YES;
#define IS(name) name_is(key, key_len, name, sizeof(name) - 1)
	if (IS("Content-Length")) {
		if (f->lengths++)
			f->differs |= strcmp(value, f->first) != 0;
		else
			f->first = value;
		f->length = strtoull(value, NULL, 10);
	} else if (IS("Transfer-Encoding")) {
		f->encodings++;
		f->chunked = strcasecmp(value, "chunked") == 0;
	} else if (IS("Expect")) {
		f->expects = strcasecmp(value, "100-continue") == 0;
	}
#undef IS
	return MHD_YES;
}

/* Answers a request that the handler cannot be shown; the connection ends with it. */
static enum MHD_Result refuse(struct http_request *rq, enum problem problem, const char *detail)
{
	struct http *http = conn_of(rq)->http;
	bool writes = rq->method == HTTP_POST || rq->method == HTTP_DELETE;
	struct http_reply reply = {.status = problem_status(problem),
				   .content_type = "application/problem+json",
				   .route = ROUTE_NONE};
	char *body =
		problem_encode(problem, detail, writes ? PROBLEM_APPLIED_NO : PROBLEM_APPLIED_NONE,
			       NULL, &reply.len);

	if (!body)
		return MHD_NO;
	reply.body = body;
	rq->arrived_ns = now_ns(CLOCK_MONOTONIC);
	http->handling++;
	http->metrics->http_requests_in_flight++;
	http_reply(rq, &reply);
	free(body);
	return rq->queued ? MHD_YES : MHD_NO;
}

/* Gives the request to the handler; suspends the connection if it does not answer at once. */
static enum MHD_Result hand_over(struct conn *c)
{
	struct http *http = c->http;
	struct http_request *rq = &c->rq;

	rq->arrived_ns = now_ns(CLOCK_MONOTONIC);
	conn_enter(c, PHASE_HANDLER);
	http->handling++;
	http->metrics->http_requests_in_flight++;
	http->handler(http->arg, rq);
	if (rq->answered)
		return rq->queued ? MHD_YES : MHD_NO;
	rq->suspended = true;
	MHD_suspend_connection(c->mhd);
	return MHD_YES;
}

/* RFC 9112, section 6.3: what is wrong with the headers that say where the body ends. */
static const char *framing_error(const struct framing *f)
{
	if (f->encodings && (f->encodings > 1 || !f->chunked || f->lengths))
		return "Send the body with a Content-Length or, instead of that, with "
		       "\"Transfer-Encoding: chunked\".";
	return f->differs ? "There is more than one Content-Length." : NULL;
}

static bool has_space(const char *text)
{
	return text && strchr(text, ' ');
}

/*
 * The first call for a request, with its headers. An answer given here ends the connection
 * (libmicrohttpd then reads no body), so only what must not go on is answered.
 */
static enum MHD_Result on_begin(struct conn *c, const char *url, const char *method)
{
	struct http_request *rq = &c->rq;
	struct framing f = {0};
	const char *wrong;

	if (!rq->target)
		return MHD_NO;
	rq->begun = true;
	rq->method = parse_method(method);
	rq->target = url;
	MHD_get_connection_values_n(c->mhd, MHD_HEADER_KIND, on_framing_header, &f);
	wrong = framing_error(&f);
	if (wrong)
		return refuse(rq, PROBLEM_INVALID_BODY, wrong);
	if (has_space(url) || has_space(rq->query))
		return refuse(rq, PROBLEM_INVALID_KEY,
			      "There is a space in the request target; send it as %20.");
	/* The client asks before it sends a body that is too long: it need not send it. */
	if (f.expects && f.length > c->http->limits.max_body) {
		rq->too_large = true;
		return hand_over(c);
	}
	return MHD_YES;
}

/* A piece of the body. */
static enum MHD_Result on_body(struct conn *c, const char *piece, size_t len)
{
	struct http_request *rq = &c->rq;
	size_t max = c->http->limits.max_body;

	if (rq->too_large)
		return MHD_YES;
	if (len > max || rq->body_len > max - len) {
		rq->too_large = true;
		rq->body_len = 0;
		return MHD_YES;
	}
	if (!grow(&c->body, &c->body_size, rq->body_len + len, max))
		return MHD_NO;
	memcpy(c->body + rq->body_len, piece, len);
	rq->body_len += len;
	return MHD_YES;
}

/* libmicrohttpd's handler: called with the headers, with each piece of body, with the end. */
static enum MHD_Result on_request(void *arg, struct MHD_Connection *mhd, const char *url,
				  const char *method, const char *version, const char *upload,
				  size_t *upload_len, void **context)
{
	struct conn *c = *context;
	enum MHD_Result result;

	(void)arg;
	(void)mhd;
	(void)version;
	if (!c)
		return MHD_NO;
	if (!c->rq.begun)
		return on_begin(c, url, method);
	/* It comes back after http_reply only if that had no response to queue. */
	if (c->rq.answered)
		return MHD_NO;
	if (*upload_len) {
		result = on_body(c, upload, *upload_len);
		*upload_len = 0;
		return result;
	}
	return hand_over(c);
}

static size_t on_unescape(void *arg, struct MHD_Connection *mhd, char *text)
{
	(void)arg;
	(void)mhd;
	return strlen(text);
}

__attribute__((format(printf, 2, 0))) static void on_log(void *arg, const char *fmt, va_list ap)
{
	struct http *http = arg;
	char text[256];
	size_t len;

	if (!http->log || http->log->level < LOG_LEVEL_DEBUG)
		return;
	vsnprintf(text, sizeof(text), fmt, ap);
	len = strcspn(text, "\n");
	log_debug(http->log, "libmicrohttpd", "text=%s", log_quote(text, len).text);
}

/* The request, as the handler sees it. */

enum http_method http_request_method(const struct http_request *rq)
{
	return rq->method;
}

const char *http_request_path(const struct http_request *rq)
{
	const char *path = rq->target, *slash;
	size_t scheme = 0;

	if (path[0] == '/')
		return path;
	/* RFC 9112, section 3.2.2: the absolute form is for any server to understand. */
	if (strncasecmp(path, "http://", 7) == 0)
		scheme = 7;
	else if (strncasecmp(path, "https://", 8) == 0)
		scheme = 8;
	if (!scheme)
		return path;
	slash = strchr(path + scheme, '/');
	return slash ? slash : "/";
}

const char *http_request_query(const struct http_request *rq)
{
	return rq->query;
}

struct lookup {
	const char *name;
	size_t len;
	const char *value;
	unsigned count;
};

static enum MHD_Result on_header(void *arg, enum MHD_ValueKind kind, const char *key,
				 size_t key_len, const char *value, size_t value_len)
{
	struct lookup *l = arg;

	(void)kind;
	(void)value_len;
	if (name_is(key, key_len, l->name, l->len) && l->count++ == 0)
		l->value = value ? value : "";
	return MHD_YES;
}

const char *http_request_header(const struct http_request *rq, const char *name, unsigned *count)
{
	struct lookup l = {.name = name, .len = strlen(name)};

	MHD_get_connection_values_n(conn_of(rq)->mhd, MHD_HEADER_KIND, on_header, &l);
	if (count)
		*count = l.count;
	return l.value;
}

const char *http_request_body(const struct http_request *rq, size_t *len, bool *too_large)
{
	*len = rq->body_len;
	*too_large = rq->too_large;
	return rq->body_len ? conn_of(rq)->body : "";
}

const char *http_request_peer(const struct http_request *rq)
{
	struct conn *c = conn_of(rq);
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

void **http_request_data(struct http_request *rq)
{
	return &rq->data;
}

/* The answer. */

static bool add_headers(const struct http *http, struct MHD_Response *response,
			const struct http_reply *reply)
{
	bool close_it = http->draining;

	if (reply->content_type &&
	    MHD_add_response_header(response, "Content-Type", reply->content_type) != MHD_YES)
		return false;
	for (size_t i = 0; i < reply->header_count; i++)
		if (MHD_add_response_header(response, reply->headers[i].name,
					    reply->headers[i].value) != MHD_YES)
			return false;
	return !close_it || MHD_add_response_header(response, "Connection", "close") == MHD_YES;
}

static bool queue_reply(struct conn *c, const struct http_reply *reply)
{
	size_t len = reply->content_type ? reply->len : 0;
	struct MHD_Response *response =
		MHD_create_response_from_buffer(len,
						len ? (void *)(uintptr_t)reply->body
						    : (void *)(uintptr_t) "",
						MHD_RESPMEM_MUST_COPY);
	bool ok;

	if (!response)
		return false;
	ok = add_headers(c->http, response, reply) &&
	     MHD_queue_response(c->mhd, (unsigned)reply->status, response) == MHD_YES;
	MHD_destroy_response(response);
	return ok;
}

static void log_reply(struct conn *c, const struct http_reply *reply, uint64_t ns)
{
	const char *path = http_request_path(&c->rq);

	log_debug(c->http->log, "http_request",
		  "method=%s path=%s status=%d us=%" PRIu64 " peer=%s",
		  http_method_name(c->rq.method), log_quote(path, strlen(path)).text, reply->status,
		  ns / 1000, http_request_peer(&c->rq));
}

void http_reply(struct http_request *rq, const struct http_reply *reply)
{
	struct conn *c = conn_of(rq);
	struct http *http = c->http;
	uint64_t ns = now_ns(CLOCK_MONOTONIC) - rq->arrived_ns;

	assert(!rq->answered);
	rq->answered = true;
	metrics_request(http->metrics, (enum metrics_route)reply->route, rq->method, reply->status,
			ns);
	http->handling--;
	http->metrics->http_requests_in_flight--;
	if (http->log && http->log->level >= LOG_LEVEL_DEBUG)
		log_reply(c, reply, ns);
	conn_enter(c, PHASE_SENDING);
	c->progress = 0;
	/* Queued while it is suspended still: that saves a call of the handler. */
	rq->queued = queue_reply(c, reply);
	if (!rq->queued)
		log_error(http->log, "http_reply_failed", "peer=%s", http_request_peer(rq));
	if (rq->suspended) {
		rq->suspended = false;
		MHD_resume_connection(c->mhd);
		schedule_pump(http);
	}
}

/* Start and stop. */

static struct MHD_Daemon *start_mhd(struct http *http)
{
	unsigned flags = MHD_USE_EPOLL | MHD_ALLOW_SUSPEND_RESUME | MHD_USE_NO_LISTEN_SOCKET |
			 MHD_USE_ERROR_LOG;

#if MHD_VERSION >= 0x01000000
	flags |= MHD_USE_NO_THREAD_SAFETY;
#endif
	return MHD_start_daemon(flags, 0, NULL, NULL, on_request, http,
				/* Must be the first option. */
				MHD_OPTION_EXTERNAL_LOGGER, on_log, http,
				MHD_OPTION_UNESCAPE_CALLBACK, on_unescape, http,
				MHD_OPTION_URI_LOG_CALLBACK, on_request_line, http,
				MHD_OPTION_NOTIFY_CONNECTION, on_connection, http,
				MHD_OPTION_NOTIFY_COMPLETED, on_completed, http,
				MHD_OPTION_CONNECTION_MEMORY_LIMIT, CONNECTION_MEMORY,
				/* Ours is the limit, and can change. */
				MHD_OPTION_CONNECTION_LIMIT, (unsigned)INT32_MAX,
				MHD_OPTION_CONNECTION_TIMEOUT, 0u,
#if MHD_VERSION >= 0x01000000
				/* Refuse spaces in the target instead of redirecting. */
				MHD_OPTION_CLIENT_DISCIPLINE_LVL, 1,
#endif
				MHD_OPTION_END);
}

struct http *http_new(struct event_base *base, const struct http_limits *limits,
		      http_handler_fn *handler, void *arg, struct metrics *metrics, struct log *log)
{
	struct http *http = calloc(1, sizeof(*http));
	const union MHD_DaemonInfo *info;

	if (!http)
		return NULL;
	http->base = base;
	http->limits = *limits;
	http->handler = handler;
	http->arg = arg;
	http->metrics = metrics;
	http->log = log;
	TAILQ_INIT(&http->listeners);
	for (int p = 0; p < PHASES_TIMED; p++)
		TAILQ_INIT(&http->phases[p]);
	http->mhd = start_mhd(http);
	info = http->mhd ? MHD_get_daemon_info(http->mhd, MHD_DAEMON_INFO_EPOLL_FD) : NULL;
	if (!info)
		goto fail;
	http->readable = event_new(base, info->epoll_fd, EV_READ | EV_PERSIST, on_pump, http);
	http->pump = event_new(base, -1, 0, on_pump, http);
	http->sweep = evtimer_new(base, on_sweep, http);
	http->unpause = evtimer_new(base, on_unpause, http);
	if (!http->readable || !http->pump || !http->sweep || !http->unpause ||
	    event_add(http->readable, NULL) < 0)
		goto fail;
	return http;
fail:
	http_free(http);
	return NULL;
}

void http_reconfigure(struct http *http, const struct http_limits *limits)
{
	http->limits = *limits;
	update_listeners(http);
	/* Deadlines may be nearer now: look at once. */
	if (http->connections) {
		http->sweep_ms = 0;
		sweep_by(http, coarse_ms());
	}
}

void http_drain(struct http *http, void (*drained)(void *arg), void *arg)
{
	http->draining = true;
	http->drained = drained;
	http->drained_arg = arg;
	close_listeners(http);
	/* Takes in what has arrived already, then looks whether anything is under way. */
	schedule_pump(http);
}

void http_free(struct http *http)
{
	if (!http)
		return;
	assert(!http->handling);
	http->drained = NULL;
	close_listeners(http);
	if (http->mhd) {
		/* Its descriptor is closed in a moment. */
		if (http->readable)
			event_del(http->readable);
		/* Answers on their way out still go, as far as the sockets take them. */
		if (http->pump_pending)
			MHD_run(http->mhd);
		MHD_stop_daemon(http->mhd);
	}
	if (http->readable)
		event_free(http->readable);
	if (http->pump)
		event_free(http->pump);
	if (http->sweep)
		event_free(http->sweep);
	if (http->unpause)
		event_free(http->unpause);
	free(http);
}
