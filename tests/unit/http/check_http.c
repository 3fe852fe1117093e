#include "base/log.h"
#include "base/metrics.h"
#include "http/http.h"
#include "http/listen.h"
#include "suite.h"

#include <check.h>
#include <errno.h>
#include <event2/event.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define DEADLINE_MS 10000
/* A bound for what must end after a time-out of one or two seconds: long enough for a busy machine,
 * shorter than the other time-outs. */
#define IN_TIME_MS  8000
#define PENDING_MAX 256
#define BIG         (4 * 1024 * 1024)

/* Numbers of routes for http_reply; 0 is none. */
enum { ROUTE_CIRCUIT = 1, ROUTE_INDEX };

/* The server under test, and what its handler was called with. */
static struct event_base *base;
static struct event *tick;
static struct http *http;
static struct metrics *metrics;
static struct sockaddr_storage address;
static socklen_t address_len;
static char socket_path[64];
static struct http_limits limits;
static struct http_request *pending[PENDING_MAX];
static unsigned pending_count;
static unsigned drained;
static unsigned handled;
static char *big;

struct client {
	int fd;
	bool eof;
	size_t len;
	char buf[65536];
	/* Of the last reply. */
	int status;
	char head[4096];
	char *body;
	size_t body_len;
};

static int64_t now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

static void answer(struct http_request *rq, int status, const char *text)
{
	const struct http_header headers[] = {{"Cache-Control", "no-store"}, {"X-Test", "1"}};

	http_reply(rq, &(struct http_reply){.status = status,
					    .content_type = text ? "text/plain" : NULL,
					    .body = text,
					    .len = text ? strlen(text) : 0,
					    .headers = headers,
					    .header_count = 2,
					    .route = ROUTE_CIRCUIT});
}

/* Answers with a description of the request. */
static void echo(struct http_request *rq)
{
	char text[8192];
	const char *query = http_request_query(rq), *header, *body;
	unsigned count;
	size_t len;
	bool too_large;

	header = http_request_header(rq, HTTP_FIELD_ORIGIN, &count);
	body = http_request_body(rq, &len, &too_large);
	snprintf(text, sizeof(text), "%s|%s|%s|%s|%u|%zu|%.*s%s",
		 http_method_name(http_request_method(rq)), http_request_path(rq),
		 query ? query : "(none)", header ? header : "(none)", count, len,
		 len < 64 ? (int)len : 64, body, too_large ? "|too large" : "");
	answer(rq, too_large ? 413 : 200, text);
}

static ssize_t read_nothing(void *arg, char *buf, size_t max)
{
	(void)arg;
	(void)buf;
	(void)max;
	return 0;
}

static void never_gone(void *arg)
{
	(void)arg;
	ck_abort_msg("the end of a stream was told that never began");
}

/* An empty header value makes libmicrohttpd fail, as a lack of memory would. */
static void fail_to_stream(struct http_request *rq)
{
	const struct http_header header = {"X-Test", ""};
	const struct http_reply reply = {.status = 200,
					 .headers = &header,
					 .header_count = 1,
					 .route = ROUTE_INDEX};

	ck_assert_ptr_null(http_reply_stream(rq, &reply, read_nothing, never_gone, NULL));
}

static void on_request(void *arg, struct http_request *rq)
{
	const char *path = http_request_path(rq);

	(void)arg;
	handled++;

	if (strcmp(path, "/defer") == 0) {
		ck_assert_uint_lt(pending_count, PENDING_MAX);
		pending[pending_count++] = rq;
	} else if (strcmp(path, "/peer") == 0) {
		answer(rq, 200, http_request_peer(rq));
	} else if (strcmp(path, "/empty") == 0) {
		answer(rq, 204, NULL);
	} else if (strcmp(path, "/no-stream") == 0) {
		fail_to_stream(rq);
	} else if (strcmp(path, "/big") == 0) {
		http_reply(rq, &(struct http_reply){.status = 200,
						    .content_type = "text/plain",
						    .body = big,
						    .len = BIG,
						    .route = ROUTE_INDEX});
	} else {
		echo(rq);
	}
}

static void on_tick(evutil_socket_t fd, short what, void *arg)
{
	(void)fd;
	(void)what;
	(void)arg;
}

static void listen_on(const char *where)
{
	struct listen_error error;
	int fd;

	ck_assert_msg(listen_open(where, 0600, &fd, 1, &error) == 1, "%s", error.text);
	address_len = sizeof(address);
	getsockname(fd, (struct sockaddr *)&address, &address_len);
	ck_assert_int_eq(http_listen(http, fd, where, 0, false), 0);
}

static void setup(void)
{
	const struct timeval tv = {.tv_usec = 2000};

	signal(SIGPIPE, SIG_IGN);
	base = event_base_new();
	tick = event_new(base, -1, EV_PERSIST, on_tick, NULL);
	event_add(tick, &tv);
	metrics = calloc(1, sizeof(*metrics));
	big = malloc(BIG);
	ck_assert(base && tick && metrics && big);
	memset(big, 'x', BIG);
	limits = (struct http_limits){.max_connections = 100,
				      .max_head = 16384,
				      .max_body = 1000,
				      .idle_timeout_ms = 60000,
				      .request_timeout_ms = 10000};
	http = http_new(base, &limits, on_request, NULL, metrics, NULL);
	ck_assert_ptr_nonnull(http);
	listen_on("127.0.0.1:0");
	snprintf(socket_path, sizeof(socket_path), "unix:/tmp/check_http.%ld", (long)getpid());
}

static void teardown(void)
{
	while (pending_count)
		answer(pending[--pending_count], 503, "gone");
	http_free(http);
	ck_assert_int_eq(metrics->http_connections, 0);
	ck_assert_int_eq(metrics->http_requests_in_flight, 0);
	event_free(tick);
	event_base_free(base);
	free(metrics);
	free(big);
	unlink(socket_path + strlen("unix:"));
}

/* Runs the loop until `condition` holds; fails the test if it never does. */
#define RUN_UNTIL(condition)                                                                       \
	do {                                                                                       \
		int64_t deadline_ = now_ms() + DEADLINE_MS;                                        \
		while (!(condition)) {                                                             \
			ck_assert_msg(now_ms() < deadline_, "never: %s", #condition);              \
			event_base_loop(base, EVLOOP_ONCE);                                        \
		}                                                                                  \
	} while (0)

static void run_for(int64_t ms)
{
	int64_t end = now_ms() + ms;

	RUN_UNTIL(now_ms() >= end);
}

static void on_drained(void *arg)
{
	ck_assert_ptr_eq(arg, &drained);
	drained++;
}

static void use_timeouts(unsigned idle_s, unsigned request_s)
{
	limits.idle_timeout_ms = idle_s * 1000;
	limits.request_timeout_ms = request_s * 1000;
	http_reconfigure(http, &limits);
}

static void use_connections(unsigned most)
{
	limits.max_connections = most;
	http_reconfigure(http, &limits);
}

/* Replaces the server by a new one, which has no listeners yet. */
static void replace_server(struct log *log)
{
	http_free(http);
	http = http_new(base, &limits, on_request, NULL, metrics, log);
}

static struct client *client_with_buffer(int size)
{
	struct client *c = calloc(1, sizeof(*c));

	ck_assert_ptr_nonnull(c);
	c->fd = socket(address.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
	ck_assert_int_ge(c->fd, 0);
	if (size)
		setsockopt(c->fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof(size));
	ck_assert_int_eq(connect(c->fd, (struct sockaddr *)&address, address_len), 0);
	fcntl(c->fd, F_SETFL, O_NONBLOCK);
	return c;
}

static struct client *client_new(void)
{
	return client_with_buffer(0);
}

/* A client with a small receive buffer, so that unread replies soon fill the server's socket. */
static struct client *client_small(void)
{
	return client_with_buffer(16384);
}

static void client_free(struct client *c)
{
	if (c->fd >= 0)
		close(c->fd);
	free(c->body);
	free(c);
}

static void send_bytes(struct client *c, const char *data, size_t len)
{
	int64_t deadline = now_ms() + DEADLINE_MS;

	while (len) {
		ssize_t n = send(c->fd, data, len, MSG_NOSIGNAL);

		if (n > 0) {
			data += n;
			len -= (size_t)n;
			continue;
		}
		ck_assert_msg(n < 0 && errno == EAGAIN && now_ms() < deadline, "send: %s",
			      strerror(errno));
		event_base_loop(base, EVLOOP_ONCE);
	}
}

static void send_text(struct client *c, const char *text)
{
	send_bytes(c, text, strlen(text));
}

static void send_get(struct client *c, const char *target)
{
	char text[512];

	snprintf(text, sizeof(text), "GET %s HTTP/1.1\r\nHost: x\r\n\r\n", target);
	send_text(c, text);
}

/* Receives what has come; true if that is anything. */
static bool client_read(struct client *c)
{
	ssize_t n = recv(c->fd, c->buf + c->len, sizeof(c->buf) - 1 - c->len, 0);

	if (n > 0)
		c->len += (size_t)n;
	else if (n == 0 || errno != EAGAIN)
		c->eof = true;
	c->buf[c->len] = '\0';
	return n > 0;
}

static bool has_reply(struct client *c, bool head_only)
{
	const char *end, *length;
	size_t head, body = 0;

	client_read(c);
	end = strstr(c->buf, "\r\n\r\n");
	if (!end)
		return c->eof;
	head = (size_t)(end - c->buf) + 4;
	length = strcasestr(c->buf, "\r\nContent-Length: ");
	if (!head_only && length && length < end)
		body = strtoul(length + 18, NULL, 10);
	if (c->len < head + body)
		return c->eof;
	ck_assert_uint_lt(head, sizeof(c->head));
	memcpy(c->head, c->buf, head);
	c->head[head] = '\0';
	free(c->body);
	c->body = strndup(c->buf + head, body);
	c->body_len = body;
	c->status = atoi(c->head + 9);
	c->len -= head + body;
	memmove(c->buf, c->buf + head + body, c->len + 1);
	return true;
}

/* Waits for a reply and returns its status; 0 if the connection ends instead. */
static int read_reply(struct client *c)
{
	c->status = 0;
	RUN_UNTIL(has_reply(c, false));
	return c->status;
}

static bool ended(struct client *c)
{
	client_read(c);
	return c->eof;
}

static bool kept_alive(struct client *c)
{
	return !strcasestr(c->head, "\r\nConnection: close");
}

#define ck_reply(c, want_status, want_body)                                                        \
	do {                                                                                       \
		ck_assert_int_eq(read_reply(c), want_status);                                      \
		ck_assert_str_eq((c)->body, want_body);                                            \
	} while (0)

/* Sends a request and returns the status of its reply; 0 if the connection ends instead. */
static int get(struct client *c, const char *target)
{
	send_get(c, target);
	return read_reply(c);
}

/* What `echo` answers to a plain GET of this path. */
#define GOT(path) "GET|" path "|(none)|(none)|0|0|"

#define ck_get(c, path)                                                                            \
	do {                                                                                       \
		ck_assert_int_eq(get(c, path), 200);                                               \
		ck_assert_str_eq((c)->body, GOT(path));                                            \
	} while (0)

/* Waits until one request is pending, and answers it. */
static void answer_deferred(int status, const char *text)
{
	RUN_UNTIL(pending_count == 1);
	answer(pending[--pending_count], status, text);
}

/* Gives the server the time to do something wrong. */
static void some_turns(void)
{
	for (int i = 0; i < 20; i++)
		event_base_loop(base, EVLOOP_ONCE);
}

START_TEST(keep_alive)
{
	struct client *c = client_new();

	for (int i = 0; i < 5; i++) {
		ck_get(c, "/a");
		ck_assert(kept_alive(c));
	}
	ck_assert_ptr_nonnull(strstr(c->head, "\r\nContent-Type: text/plain\r\n"));
	ck_assert_ptr_nonnull(strstr(c->head, "\r\nCache-Control: no-store\r\n"));
	ck_assert_ptr_nonnull(strstr(c->head, "\r\nX-Test: 1\r\n"));
	ck_assert_ptr_nonnull(strstr(c->head, "\r\nDate: "));
	ck_assert_uint_eq(metrics->http_connections_accepted, 1);
	ck_assert_int_eq(metrics->http_connections, 1);
	ck_assert_uint_eq(metrics->http_requests[ROUTE_CIRCUIT][HTTP_GET][200], 5);
	client_free(c);
	RUN_UNTIL(metrics->http_connections == 0);
}
END_TEST

START_TEST(pipelined_requests_are_answered_in_order)
{
	struct client *c = client_new();
	char text[8192] = "", want[64];

	for (int i = 0; i < 50; i++)
		snprintf(text + strlen(text), 128, "GET /%d HTTP/1.1\r\nHost: x\r\n\r\n", i);
	send_text(c, text);
	for (int i = 0; i < 50; i++) {
		snprintf(want, sizeof(want), GOT("/%d"), i);
		ck_reply(c, 200, want);
	}
	client_free(c);
}
END_TEST

START_TEST(target_comes_as_sent)
{
	struct client *c = client_new();

	send_get(c, "/v1/%2Fapi%2fx/a+b?x=%20+&y==&y&&z?");
	ck_reply(c, 200, "GET|/v1/%2Fapi%2fx/a+b|x=%20+&y==&y&&z?|(none)|0|0|");
	send_get(c, "/?");
	ck_reply(c, 200, "GET|/||(none)|0|0|");
	ck_get(c, "//a/../b");
	send_get(c, "http://example.org:80/a?b");
	ck_reply(c, 200, "GET|/a|b|(none)|0|0|");
	send_get(c, "HTTP://example.org");
	ck_reply(c, 200, GOT("/"));
	send_get(c, "http://example.org?q");
	ck_reply(c, 200, "GET|/|q|(none)|0|0|");
	send_text(c, "OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n");
	ck_reply(c, 200, "OPTIONS|*|(none)|(none)|0|0|");
	client_free(c);
}
END_TEST

START_TEST(long_target_and_headers)
{
	struct client *c = client_new();
	char key[3073], text[12000], *p = text;

	memset(key, 0, sizeof(key));
	for (int i = 0; i < 1024; i++)
		memcpy(key + 3 * i, "%41", 3);
	p += sprintf(p, "GET /%s HTTP/1.1\r\nHost: x\r\n", key);
	for (int i = 0; i < 40; i++)
		p += sprintf(p, "X-Filler-%d: %0128d\r\n", i, i);
	strcpy(p, "\r\n");
	send_text(c, text);
	ck_assert_int_eq(read_reply(c), 200);
	ck_assert_ptr_nonnull(strstr(c->body, "%41%41|(none)"));
	client_free(c);
}
END_TEST

START_TEST(header_is_found_and_counted)
{
	struct client *c = client_new();

	send_text(c,
		  "GET / HTTP/1.1\r\nHost: x\r\nOrigin: one\r\nOrigins: no\r\noriGin: two\r\n\r\n");
	ck_reply(c, 200, "GET|/|(none)|one|2|0|");
	send_text(c, "GET / HTTP/1.1\r\nHost: x\r\nOrigin:\r\n\r\n");
	ck_reply(c, 200, "GET|/|(none)||1|0|");
	client_free(c);
}
END_TEST

START_TEST(methods)
{
	struct client *c = client_new();

	send_text(c, "DELETE / HTTP/1.1\r\nHost: x\r\n\r\n");
	ck_reply(c, 200, "DELETE|/|(none)|(none)|0|0|");
	send_text(c, "PATCH / HTTP/1.1\r\nHost: x\r\n\r\n");
	ck_reply(c, 200, "other|/|(none)|(none)|0|0|");
	send_text(c, "GETX / HTTP/1.1\r\nHost: x\r\n\r\n");
	ck_reply(c, 200, "other|/|(none)|(none)|0|0|");
	client_free(c);
}
END_TEST

START_TEST(head_has_the_length_and_no_body)
{
	struct client *c = client_new();

	send_text(c, "HEAD / HTTP/1.1\r\nHost: x\r\n\r\n");
	RUN_UNTIL(has_reply(c, true));
	ck_assert_int_eq(c->status, 200);
	ck_assert_ptr_nonnull(strstr(c->head, "\r\nContent-Length: 25\r\n"));
	ck_get(c, "/b");
	ck_assert_uint_eq(metrics->http_requests[ROUTE_CIRCUIT][HTTP_HEAD][200], 1);
	client_free(c);
}
END_TEST

START_TEST(no_content)
{
	struct client *c = client_new();

	send_get(c, "/empty");
	ck_reply(c, 204, "");
	ck_assert_ptr_null(strcasestr(c->head, "Content-Type"));
	ck_get(c, "/b");
	client_free(c);
}
END_TEST

START_TEST(body_in_pieces)
{
	static const char text[] =
		"POST /p HTTP/1.1\r\nHost: x\r\nContent-Length: 11\r\n\r\nhello world";
	struct client *c = client_new();

	for (size_t i = 0; i < sizeof(text) - 1; i++) {
		send_bytes(c, text + i, 1);
		event_base_loop(base, EVLOOP_ONCE);
	}
	ck_reply(c, 200, "POST|/p|(none)|(none)|0|11|hello world");
	send_text(c, text);
	ck_reply(c, 200, "POST|/p|(none)|(none)|0|11|hello world");
	/* The next request has no body of the one before. */
	ck_get(c, "/g");
	client_free(c);
}
END_TEST

START_TEST(chunked_body)
{
	struct client *c = client_new();

	send_text(c, "POST /p HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
		     "5\r\nhello\r\n1\r\n \r\n");
	event_base_loop(base, EVLOOP_ONCE);
	send_text(c, "5\r\nworld\r\n0\r\nTrailer: 1\r\n\r\n");
	ck_reply(c, 200, "POST|/p|(none)|(none)|0|11|hello world");
	/* Where a chunked body ends is libmicrohttpd's decision alone. So the connection ends: no
	 * request can be smuggled in behind the body. */
	ck_assert(!kept_alive(c));
	RUN_UNTIL(ended(c));
	client_free(c);
}
END_TEST

/* Sends a POST with a Content-Length and a body of n bytes. */
static void post(struct client *c, size_t n)
{
	char head[128];
	char *body = malloc(n + 1);

	ck_assert_ptr_nonnull(body);
	memset(body, 'b', n);
	snprintf(head, sizeof(head), "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %zu\r\n\r\n",
		 n);
	send_text(c, head);
	send_bytes(c, body, n);
	free(body);
}

START_TEST(body_up_to_the_limit_and_no_more)
{
	struct client *c = client_new();

	post(c, 1000);
	ck_assert_int_eq(read_reply(c), 200);
	ck_assert_ptr_nonnull(strstr(c->body, "|1000|bbb"));
	ck_assert(kept_alive(c));
	/* A longer body is refused as soon as the head has come. */
	send_text(c, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1001\r\n\r\n");
	ck_reply(c, 413, "POST|/|(none)|(none)|0|0||too large");
	ck_assert(!kept_alive(c));
	RUN_UNTIL(ended(c));
	client_free(c);
}
END_TEST

START_TEST(answer_amid_a_long_body_is_not_lost)
{
	struct client *c = client_new();

	/* The client sends everything before it reads. */
	post(c, 3000000);
	ck_reply(c, 413, "POST|/|(none)|(none)|0|0||too large");
	RUN_UNTIL(ended(c));
	client_free(c);
}
END_TEST

START_TEST(chunked_body_over_the_limit)
{
	struct client *c = client_new();
	char chunk[600];

	memset(chunk, 'c', sizeof(chunk));
	send_text(c, "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n");
	for (int i = 0; i < 3; i++) {
		send_text(c, "258\r\n");
		send_bytes(c, chunk, sizeof(chunk));
		send_text(c, "\r\n");
	}
	send_text(c, "0\r\n\r\n");
	ck_reply(c, 413, "POST|/|(none)|(none)|0|0||too large");
	ck_assert(!kept_alive(c));
	client_free(c);
}
END_TEST

START_TEST(expect_is_answered)
{
	struct client *c = client_new();

	send_text(c, "POST / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\n"
		     "Content-Length: 2\r\n\r\n");
	RUN_UNTIL(has_reply(c, true));
	ck_assert_int_eq(c->status, 100);
	send_text(c, "ok");
	ck_reply(c, 200, "POST|/|(none)|(none)|0|2|ok");
	/* A body that is too long is refused before the client sends it. */
	send_text(c, "POST / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\n"
		     "Content-Length: 1001\r\n\r\n");
	ck_reply(c, 413, "POST|/|(none)|(none)|0|0||too large");
	ck_assert(!kept_alive(c));
	RUN_UNTIL(ended(c));
	client_free(c);
}
END_TEST

START_TEST(expect_too_long_may_be_answered_later)
{
	struct client *c = client_new();

	send_text(c, "POST /defer HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\n"
		     "Content-Length: 1001\r\n\r\n");
	answer_deferred(413, "no");
	ck_reply(c, 413, "no");
	RUN_UNTIL(ended(c));
	client_free(c);
}
END_TEST

START_TEST(ambiguous_framing_is_refused)
{
	static const char *const bad[] = {
		"Content-Length: 1\r\nContent-Length: 2\r\n",
		"Content-Length: 1\r\nContent-Length: 1\r\n",
		"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n",
		"Transfer-Encoding: gzip\r\n",
		"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
		"Content-Length: x\r\n",
		"Content-Length: -1\r\n",
	};

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		struct client *c = client_new();
		char text[256];

		snprintf(text, sizeof(text), "POST / HTTP/1.1\r\nHost: x\r\n%s\r\nabc", bad[i]);
		send_text(c, text);
		ck_assert_msg(read_reply(c) == 400, "%s: %d", bad[i], c->status);
		ck_assert(!kept_alive(c));
		RUN_UNTIL(ended(c));
		client_free(c);
	}
	ck_assert_uint_eq(handled, 0);
}
END_TEST

START_TEST(space_in_the_target_is_refused)
{
	struct client *c = client_new();

	send_text(c, "GET /a b HTTP/1.1\r\nHost: x\r\n\r\n");
	ck_assert_int_eq(read_reply(c), 400);
	RUN_UNTIL(ended(c));
	ck_assert_uint_eq(handled, 0);
	client_free(c);
}
END_TEST

START_TEST(rubbish_does_no_harm)
{
	static const char *const bad[] = {
		"\r\n\r\n\r\n",
		"GET\r\n\r\n",
		"GET /\r\n\r\n",
		"\x16\x03\x01",
		"GET / HTTP/9.9\r\n\r\n",
		"GET / HTTP/1.1\r\n:\r\n\r\n",
		"  / HTTP/1.1\r\n\r\n",
		"GET  HTTP/1.1\r\n\r\n",
		"GET / HTTP/1.1\r\nHost\r\n\r\n",
	};
	struct client *c;

	use_timeouts(60, 1);
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		c = client_new();
		send_text(c, bad[i]);
		shutdown(c->fd, SHUT_WR);
		RUN_UNTIL(ended(c));
		client_free(c);
	}
	c = client_new();
	ck_get(c, "/a");
	client_free(c);
}
END_TEST

/* `printf ... | nc -N` sends its request and then shuts down its side. */
START_TEST(client_that_closes_its_side_is_answered_and_let_go)
{
	struct client *c = client_new();

	send_get(c, "/a");
	send_get(c, "/b");
	shutdown(c->fd, SHUT_WR);
	ck_reply(c, 200, GOT("/a"));
	ck_reply(c, 200, GOT("/b"));
	RUN_UNTIL(ended(c));
	RUN_UNTIL(metrics->http_connections == 0);
	client_free(c);
}
END_TEST

START_TEST(http_1_0_ends_the_connection)
{
	struct client *c = client_new();

	send_text(c, "GET /a HTTP/1.0\r\n\r\n");
	ck_reply(c, 200, GOT("/a"));
	RUN_UNTIL(ended(c));
	client_free(c);
}
END_TEST

START_TEST(deferred_reply)
{
	struct client *c = client_new();

	for (int i = 0; i < 4; i++) {
		send_get(c, "/defer");
		RUN_UNTIL(pending_count == 1);
		/* Every second answer comes late, when the request is already suspended. */
		if (i % 2)
			run_for(200);
		ck_assert_int_eq(metrics->http_requests_in_flight, 1);
		answer(pending[--pending_count], 200, "later");
		ck_assert_int_eq(metrics->http_requests_in_flight, 0);
		ck_reply(c, 200, "later");
		ck_assert(kept_alive(c));
	}
	client_free(c);
}
END_TEST

START_TEST(pipelined_deferred_replies)
{
	struct client *c = client_new();

	send_get(c, "/defer");
	send_get(c, "/a");
	send_get(c, "/defer");
	RUN_UNTIL(pending_count == 1);
	if (_i)
		run_for(200);
	answer_deferred(200, "one");
	ck_reply(c, 200, "one");
	ck_reply(c, 200, GOT("/a"));
	answer_deferred(200, "two");
	ck_reply(c, 200, "two");
	client_free(c);
}
END_TEST

START_TEST(many_deferred_replies_at_once)
{
	struct client *c[90];

	for (int i = 0; i < 90; i++) {
		c[i] = client_new();
		send_get(c[i], "/defer");
	}
	RUN_UNTIL(pending_count == 90);
	while (pending_count)
		answer(pending[--pending_count], 200, "later");
	for (int i = 0; i < 90; i++) {
		ck_reply(c[i], 200, "later");
		client_free(c[i]);
	}
}
END_TEST

START_TEST(client_leaves_while_its_request_waits)
{
	struct client *c = client_new();

	send_get(c, "/defer");
	RUN_UNTIL(pending_count == 1);
	client_free(c);
	c = client_new();
	ck_assert_int_eq(get(c, "/a"), 200);
	answer(pending[--pending_count], 200, "to nobody");
	RUN_UNTIL(metrics->http_connections == 1);
	client_free(c);
}
END_TEST

START_TEST(client_resets_while_its_request_waits)
{
	const struct linger reset = {.l_onoff = 1};
	struct client *c = client_new();
	struct http_request *rq;

	send_get(c, "/defer?q");
	RUN_UNTIL(pending_count == 1);
	rq = pending[--pending_count];
	setsockopt(c->fd, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
	client_free(c);
	/* The server sees the reset. The request stays valid, without its headers. */
	RUN_UNTIL(metrics->http_connections == 0);
	ck_assert_int_eq(metrics->http_requests_in_flight, 1);
	ck_assert_int_eq(strncmp(http_request_peer(rq), "127.0.0.1:", 10), 0);
	ck_assert_str_eq(http_request_query(rq), "q");
	ck_assert_ptr_null(http_request_header(rq, HTTP_FIELD_HOST, NULL));
	if (_i) {
		/* A drain waits for the request all the same. */
		http_drain(http, on_drained, &drained);
		run_for(300);
		ck_assert_uint_eq(drained, 0);
	}
	answer(rq, 200, "to nobody");
	ck_assert_int_eq(metrics->http_requests_in_flight, 0);
	if (_i)
		RUN_UNTIL(drained == 1);
}
END_TEST

START_TEST(big_reply)
{
	struct client *c = client_small();
	size_t got = 0;

	send_get(c, "/big");
	/* The client reads in steps, so that the server must wait for the socket. */
	while (got < BIG) {
		RUN_UNTIL(client_read(c) || c->eof);
		ck_assert(!c->eof);
		got += c->len;
		c->len = 0;
	}
	client_free(c);
}
END_TEST

START_TEST(connection_limit_is_reached_and_left)
{
	struct client *a = client_new(), *b = client_new(), *c;

	use_connections(2);
	send_get(a, "/a");
	send_get(b, "/a");
	ck_assert_int_eq(read_reply(a), 200);
	ck_assert_int_eq(read_reply(b), 200);
	/* An idle connection would be closed to make room, so both begin a request. */
	send_text(a, "GET /a HTTP/1.1\r\n");
	send_text(b, "GET /a HTTP/1.1\r\n");
	/* The third connection waits in the listen queue ... */
	c = client_new();
	send_get(c, "/c");
	some_turns();
	ck_assert_int_eq(metrics->http_connections, 2);
	ck_assert(!client_read(c));
	/* ... until one of the two ends. */
	client_free(a);
	ck_reply(c, 200, GOT("/c"));
	ck_assert_int_eq(metrics->http_connections, 2);
	/* A raised limit holds at once. */
	a = client_new();
	send_get(a, "/a");
	use_connections(3);
	ck_assert_int_eq(read_reply(a), 200);
	client_free(a);
	client_free(b);
	client_free(c);
}
END_TEST

START_TEST(limit_holds_when_all_come_at_once)
{
	struct client *c[5];

	use_connections(2);
	for (int i = 0; i < 5; i++) {
		c[i] = client_new();
		send_get(c[i], "/a");
	}
	for (int i = 0; i < 5; i++) {
		ck_assert_int_eq(read_reply(c[i]), 200);
		ck_assert_int_le(metrics->http_connections, 2);
		client_free(c[i]);
	}
}
END_TEST

START_TEST(several_listeners_share_the_limit)
{
	struct client *a = client_new(), *b;

	listen_on("127.0.0.1:0");
	use_connections(1);
	ck_assert_int_eq(get(a, "/a"), 200);
	send_text(a, "GET /a HTTP/1.1\r\n"); /* if it were idle, it would be closed to make room */
	b = client_new();
	send_get(b, "/b");
	some_turns();
	ck_assert(!client_read(b));
	client_free(a);
	ck_assert_int_eq(read_reply(b), 200);
	client_free(b);
}
END_TEST

static unsigned warnings;

static void on_line(void *arg, enum log_level level, const char *line)
{
	(void)arg;
	if (level == LOG_LEVEL_WARNING && strstr(line, "http_accept_failed"))
		warnings++;
}

/* The number of loop turns with events in the next `ms`, without the test's own timer. */
static unsigned wakeups(int64_t ms)
{
	const struct timeval tv = {.tv_sec = ms / 1000, .tv_usec = ms % 1000 * 1000};
	const struct timeval tick_tv = {.tv_usec = 2000};
	int64_t end = now_ms() + ms;
	unsigned n = 0;

	/* The test's timer fires once, at the end. */
	event_del(tick);
	event_add(tick, &tv);
	while (now_ms() < end) {
		event_base_loop(base, EVLOOP_ONCE);
		n++;
	}
	event_del(tick);
	event_add(tick, &tick_tv);
	return n - 1;
}

/* True once the loop has slept for 300 ms. On a busy machine the work before it may take a while.
 */
static bool falls_asleep(void)
{
	for (int i = 0; i < 20; i++) {
		if (wakeups(300) == 0)
			return true;
	}
	return false;
}

START_TEST(no_descriptors_left)
{
	struct log log = {.level = LOG_LEVEL_WARNING, .sink = on_line};
	struct rlimit old, few;
	struct client *a = client_new(), *b = client_new();
	int first;

	replace_server(&log);
	listen_on("127.0.0.1:0");
	client_free(a);
	client_free(b);
	a = client_new();
	ck_assert_int_eq(get(a, "/a"), 200);
	b = client_new();
	send_get(b, "/b");
	/* From here on the process can open no further descriptor. */
	first = dup(0);
	close(first);
	getrlimit(RLIMIT_NOFILE, &old);
	few = old;
	few.rlim_cur = (rlim_t)first;
	setrlimit(RLIMIT_NOFILE, &few);
	RUN_UNTIL(warnings == 1);
	/* The server does not spin, logs one warning, and tries again by itself. */
	ck_assert_uint_lt(wakeups(500), 20);
	ck_assert_uint_eq(warnings, 1);
	setrlimit(RLIMIT_NOFILE, &old);
	ck_reply(b, 200, GOT("/b"));
	client_free(a);
	client_free(b);
	replace_server(NULL);
}
END_TEST

/* Sends a byte at most each 50 ms; true once the server has ended the connection. */
static bool drip(struct client *c, char byte)
{
	static int64_t last;

	if (now_ms() - last > 50) {
		last = now_ms();
		send(c->fd, &byte, 1, MSG_NOSIGNAL);
	}
	return ended(c);
}

static const char *const unfinished[] = {
	"GET /",
	"GET / HTTP/1.1\r\nX-A: ",
	"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 900\r\n\r\n",
};

START_TEST(slow_request_is_ended)
{
	struct client *c = client_new();
	int64_t start = now_ms();

	use_timeouts(60, 1);
	send_text(c, unfinished[_i]);
	RUN_UNTIL(drip(c, 'a'));
	ck_assert_int_ge(now_ms() - start, 900);
	ck_assert_int_lt(now_ms() - start, IN_TIME_MS);
	ck_assert_uint_eq(handled, 0);
	client_free(c);
}
END_TEST

START_TEST(slow_request_line_after_a_request_is_ended)
{
	struct client *c = client_new();
	int64_t start;

	use_timeouts(60, 1);
	ck_assert_int_eq(get(c, "/a"), 200);
	start = now_ms();
	RUN_UNTIL(drip(c, 'a'));
	ck_assert_int_lt(now_ms() - start, IN_TIME_MS);
	client_free(c);
}
END_TEST

START_TEST(slow_client_of_a_unix_socket_is_ended)
{
	struct client *c;
	int64_t start = now_ms();

	listen_on(socket_path);
	c = client_new();
	use_timeouts(2, 1);
	RUN_UNTIL(drip(c, 'a'));
	ck_assert_int_lt(now_ms() - start, IN_TIME_MS);
	client_free(c);
}
END_TEST

START_TEST(idle_connections_are_ended)
{
	struct client *a = client_new(), *b = client_new();
	int64_t start = now_ms();

	use_timeouts(1, 10);
	ck_assert_int_eq(get(a, "/a"), 200);
	RUN_UNTIL(ended(a) && ended(b));
	ck_assert_int_ge(now_ms() - start, 900);
	ck_assert_int_lt(now_ms() - start, IN_TIME_MS);
	RUN_UNTIL(metrics->http_connections == 0);
	client_free(a);
	client_free(b);
}
END_TEST

START_TEST(each_idle_connection_has_its_own_time)
{
	struct client *a = client_new(), *b;
	int64_t start = now_ms();

	use_timeouts(1, 10);
	ck_assert_int_eq(get(a, "/a"), 200);
	RUN_UNTIL(now_ms() - start > 500);
	b = client_new();
	ck_assert_int_eq(get(b, "/b"), 200);
	RUN_UNTIL(ended(a));
	ck_assert_int_lt(now_ms() - start, 1300);
	ck_assert(!ended(b));
	RUN_UNTIL(ended(b));
	ck_assert_int_gt(now_ms() - start, 1400);
	client_free(a);
	client_free(b);
}
END_TEST

#define MANY 300

static size_t count_ended(struct client *const *clients)
{
	size_t count = 0;

	for (size_t i = 0; i < MANY; i++)
		count += ended(clients[i]);
	return count;
}

/* All at once, as when idle_timeout is lowered: others have their turn meanwhile. */
START_TEST(many_idle_connections_are_ended_in_many_turns)
{
	struct client *clients[MANY];
	size_t count = 0, most = 0;

	use_connections(MANY);
	for (size_t i = 0; i < MANY; i++) {
		clients[i] = client_new();
		if (i % 2)
			ck_assert_int_eq(get(clients[i], "/a"), 200);
	}
	RUN_UNTIL(metrics->http_connections == MANY);
	run_for(1200);
	ck_assert_uint_eq(count_ended(clients), 0);
	use_timeouts(1, 10);
	while (count < MANY) {
		size_t before = count;

		event_base_loop(base, EVLOOP_ONCE);
		count = count_ended(clients);
		if (count - before > most)
			most = count - before;
	}
	ck_assert_uint_le(most, 100);
	RUN_UNTIL(metrics->http_connections == 0);
	for (size_t i = 0; i < MANY; i++)
		client_free(clients[i]);
}
END_TEST

START_TEST(idle_connection_outlives_request_timeout)
{
	struct client *a = client_new(), *b = client_new();
	int64_t start = now_ms();

	use_timeouts(60, 1);
	ck_assert_int_eq(get(a, "/a"), 200);
	RUN_UNTIL(now_ms() - start > 1500);
	ck_assert(!ended(a) && !ended(b));
	ck_assert_int_eq(get(a, "/a"), 200);
	client_free(a);
	client_free(b);
}
END_TEST

START_TEST(waiting_request_does_not_time_out)
{
	struct client *c = client_new();
	int64_t start = now_ms();

	use_timeouts(1, 1);
	send_get(c, "/defer");
	RUN_UNTIL(pending_count == 1);
	RUN_UNTIL(now_ms() - start > 1500);
	answer(pending[--pending_count], 200, "late");
	ck_reply(c, 200, "late");
	client_free(c);
}
END_TEST

START_TEST(client_that_does_not_read_is_ended)
{
	struct client *c = client_small();

	use_timeouts(1, 1);
	send_get(c, "/big");
	RUN_UNTIL(metrics->http_requests[ROUTE_INDEX][HTTP_GET][200] == 1);
	RUN_UNTIL(metrics->http_connections == 0);
	client_free(c);
}
END_TEST

START_TEST(slow_reader_is_not_ended)
{
	struct client *c = client_small();
	int64_t start = now_ms(), last = 0;
	size_t got = 0;

	use_timeouts(1, 1);
	send_get(c, "/big");
	while (got < BIG) {
		/* 64 KiB each 50 ms: over three seconds in all. */
		RUN_UNTIL(now_ms() - last > 50);
		last = now_ms();
		client_read(c);
		ck_assert(!c->eof);
		got += c->len;
		c->len = 0;
	}
	ck_assert_int_gt(now_ms() - start, 2500);
	client_free(c);
}
END_TEST

/* Counts the timers that are pending, without the test's own. */
static int count_timer(const struct event_base *b, const struct event *ev, void *arg)
{
	(void)b;
	if (ev != tick && event_pending(ev, EV_TIMEOUT, NULL))
		++*(unsigned *)arg;
	return 0;
}

static unsigned timers(void)
{
	unsigned n = 0;

	event_base_foreach_event(base, count_timer, &n);
	return n;
}

START_TEST(idle_costs_nothing)
{
	struct client *c = client_new();

	ck_assert_uint_eq(timers(), 0);
	ck_assert_int_eq(get(c, "/a"), 200);
	/* An idle connection has one timer, its time-out, and no wake-ups ... */
	ck_assert_uint_eq(timers(), 1);
	ck_assert(falls_asleep());
	/* ... and neither has one that has sent half a request. */
	send_text(c, "GET /a");
	ck_assert(falls_asleep());
	send_text(c, " HTTP/1.1\r\nHost: x\r\n\r\n");
	ck_assert_int_eq(read_reply(c), 200);
	send_get(c, "/defer");
	RUN_UNTIL(pending_count == 1);
	/* A request that waits for its answer causes a few wake-ups at first, then none. */
	ck_assert(falls_asleep());
	answer(pending[--pending_count], 200, "x");
	ck_assert_int_eq(read_reply(c), 200);
	client_free(c);
	RUN_UNTIL(metrics->http_connections == 0);
	ck_assert_uint_eq(timers(), 0);
	ck_assert(falls_asleep());
}
END_TEST

START_TEST(waiting_for_the_client_costs_nothing)
{
	struct client *c = client_small();

	send_get(c, "/big");
	RUN_UNTIL(metrics->http_requests[ROUTE_INDEX][HTTP_GET][200] == 1);
	ck_assert(falls_asleep());
	client_free(c);
}
END_TEST

START_TEST(drain_without_requests)
{
	struct client *c = client_new();

	ck_assert_int_eq(get(c, "/a"), 200);
	http_drain(http, on_drained, &drained);
	ck_assert_uint_eq(drained, 0);
	RUN_UNTIL(drained == 1);
	client_free(c);
}
END_TEST

START_TEST(drain_finishes_what_is_in_flight)
{
	struct client *a = client_new(), *b = client_new(), *c = client_new();
	int refused;

	ck_assert_int_eq(get(b, "/a"), 200);
	send_text(c, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n");
	send_get(a, "/defer");
	RUN_UNTIL(pending_count == 1 && metrics->http_connections == 3);
	http_drain(http, on_drained, &drained);
	for (int i = 0; i < 5; i++)
		event_base_loop(base, EVLOOP_ONCE);
	/* New connections are refused. */
	refused = socket(address.ss_family, SOCK_STREAM, 0);
	ck_assert_int_eq(connect(refused, (struct sockaddr *)&address, address_len), -1);
	close(refused);
	/* An open connection is served once more, and then ends. */
	ck_get(b, "/b");
	ck_assert(!kept_alive(b));
	RUN_UNTIL(ended(b));
	ck_assert_uint_eq(drained, 0);
	answer(pending[--pending_count], 200, "last");
	ck_reply(a, 200, "last");
	ck_assert(!kept_alive(a));
	RUN_UNTIL(ended(a));
	ck_assert_uint_eq(drained, 0);
	send_text(c, "ok");
	ck_reply(c, 200, "POST|/|(none)|(none)|0|2|ok");
	RUN_UNTIL(drained == 1);
	client_free(a);
	client_free(b);
	client_free(c);
}
END_TEST

START_TEST(stream_that_does_not_begin_leaves_nothing)
{
	struct client *c = client_new();

	ck_assert_int_eq(get(c, "/no-stream"), 0);
	RUN_UNTIL(metrics->http_connections == 0);
	http_drain(http, on_drained, &drained);
	RUN_UNTIL(drained == 1);
	client_free(c);
}
END_TEST

START_TEST(request_that_has_arrived_is_answered_before_the_drain_is_over)
{
	struct client *c = client_new();

	ck_assert_int_eq(get(c, "/a"), 200);
	send_get(c, "/b");
	http_drain(http, on_drained, &drained);
	RUN_UNTIL(drained == 1);
	ck_reply(c, 200, GOT("/b"));
	client_free(c);
}
END_TEST

static void free_on_drained(void *arg)
{
	(void)arg;
	http_free(http);
	http = NULL;
	drained++;
}

START_TEST(may_be_freed_when_drained)
{
	struct client *c = client_new();

	send_get(c, "/defer");
	RUN_UNTIL(pending_count == 1);
	http_drain(http, free_on_drained, NULL);
	answer(pending[--pending_count], 200, "last");
	RUN_UNTIL(drained == 1);
	ck_reply(c, 200, "last");
	RUN_UNTIL(ended(c));
	client_free(c);
}
END_TEST

START_TEST(reply_just_before_the_end_is_sent)
{
	struct client *c = client_new();

	send_get(c, "/defer");
	answer_deferred(503, "ending");
	http_free(http);
	http = NULL;
	ck_reply(c, 503, "ending");
	RUN_UNTIL(ended(c));
	client_free(c);
}
END_TEST

START_TEST(peer_of_tcp)
{
	struct client *c = client_new();
	struct sockaddr_in own = {0};
	socklen_t len = sizeof(own);
	char want[64];

	getsockname(c->fd, (struct sockaddr *)&own, &len);
	snprintf(want, sizeof(want), "127.0.0.1:%u", ntohs(own.sin_port));
	send_get(c, "/peer");
	ck_reply(c, 200, want);
	client_free(c);
}
END_TEST

START_TEST(peer_of_a_unix_socket)
{
	struct client *c;
	char want[64];

	listen_on(socket_path);
	c = client_new();
	snprintf(want, sizeof(want), "unix:uid=%ld,pid=%ld", (long)getuid(), (long)getpid());
	for (int i = 0; i < 3; i++) {
		send_get(c, "/peer");
		ck_reply(c, 200, want);
	}
	send_get(c, "/defer");
	answer_deferred(200, "later");
	ck_reply(c, 200, "later");
	post(c, 5000);
	ck_assert_int_eq(read_reply(c), 413);
	client_free(c);
}
END_TEST

START_TEST(debug_log)
{
	struct log log = {.level = LOG_LEVEL_DEBUG, .sink = on_line};
	struct client *c;

	replace_server(&log);
	listen_on("127.0.0.1:0");
	use_timeouts(60, 1);
	c = client_new();
	ck_assert_int_eq(get(c, "/%0a%s%n"), 200);
	send_text(c, "GET /%n%s");
	client_free(c);
	RUN_UNTIL(metrics->http_connections == 0);
	http_free(http);
	http = NULL;
}
END_TEST

START_TEST(many_connections_come_and_go)
{
	for (int round = 0; round < 5; round++) {
		struct client *c[60];

		for (int i = 0; i < 60; i++) {
			c[i] = client_new();
			send_get(c[i], i % 2 ? "/defer" : "/a");
		}
		RUN_UNTIL(pending_count == 30);
		for (int i = 0; i < 60; i += 3)
			client_free(c[i]);
		while (pending_count)
			answer(pending[--pending_count], 200, "x");
		for (int i = 0; i < 60; i++) {
			if (i % 3 == 0)
				continue;
			ck_assert_int_eq(read_reply(c[i]), 200);
			client_free(c[i]);
		}
		RUN_UNTIL(metrics->http_connections == 0);
	}
}
END_TEST

int main(void)
{
	Suite *s = suite_create("http");
	TCase *tc = tcase_create("http");

	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_set_timeout(tc, 30);
	tcase_add_test(tc, keep_alive);
	tcase_add_test(tc, pipelined_requests_are_answered_in_order);
	tcase_add_test(tc, target_comes_as_sent);
	tcase_add_test(tc, long_target_and_headers);
	tcase_add_test(tc, header_is_found_and_counted);
	tcase_add_test(tc, methods);
	tcase_add_test(tc, head_has_the_length_and_no_body);
	tcase_add_test(tc, no_content);
	tcase_add_test(tc, body_in_pieces);
	tcase_add_test(tc, chunked_body);
	tcase_add_test(tc, body_up_to_the_limit_and_no_more);
	tcase_add_test(tc, answer_amid_a_long_body_is_not_lost);
	tcase_add_test(tc, chunked_body_over_the_limit);
	tcase_add_test(tc, expect_is_answered);
	tcase_add_test(tc, expect_too_long_may_be_answered_later);
	tcase_add_test(tc, ambiguous_framing_is_refused);
	tcase_add_test(tc, space_in_the_target_is_refused);
	tcase_add_test(tc, rubbish_does_no_harm);
	tcase_add_test(tc, client_that_closes_its_side_is_answered_and_let_go);
	tcase_add_test(tc, http_1_0_ends_the_connection);
	tcase_add_test(tc, deferred_reply);
	tcase_add_loop_test(tc, pipelined_deferred_replies, 0, 2);
	tcase_add_test(tc, many_deferred_replies_at_once);
	tcase_add_test(tc, client_leaves_while_its_request_waits);
	tcase_add_loop_test(tc, client_resets_while_its_request_waits, 0, 2);
	tcase_add_test(tc, big_reply);
	tcase_add_test(tc, connection_limit_is_reached_and_left);
	tcase_add_test(tc, several_listeners_share_the_limit);
	tcase_add_test(tc, no_descriptors_left);
	tcase_add_test(tc, limit_holds_when_all_come_at_once);
	tcase_add_loop_test(tc, slow_request_is_ended, 0,
			    sizeof(unfinished) / sizeof(unfinished[0]));
	tcase_add_test(tc, slow_request_line_after_a_request_is_ended);
	tcase_add_test(tc, slow_client_of_a_unix_socket_is_ended);
	tcase_add_test(tc, idle_connections_are_ended);
	tcase_add_test(tc, each_idle_connection_has_its_own_time);
	tcase_add_test(tc, many_idle_connections_are_ended_in_many_turns);
	tcase_add_test(tc, idle_connection_outlives_request_timeout);
	tcase_add_test(tc, waiting_request_does_not_time_out);
	tcase_add_test(tc, client_that_does_not_read_is_ended);
	tcase_add_test(tc, slow_reader_is_not_ended);
	tcase_add_test(tc, idle_costs_nothing);
	tcase_add_test(tc, waiting_for_the_client_costs_nothing);
	tcase_add_test(tc, drain_without_requests);
	tcase_add_test(tc, drain_finishes_what_is_in_flight);
	tcase_add_test(tc, stream_that_does_not_begin_leaves_nothing);
	tcase_add_test(tc, request_that_has_arrived_is_answered_before_the_drain_is_over);
	tcase_add_test(tc, may_be_freed_when_drained);
	tcase_add_test(tc, reply_just_before_the_end_is_sent);
	tcase_add_test(tc, peer_of_tcp);
	tcase_add_test(tc, peer_of_a_unix_socket);
	tcase_add_test(tc, debug_log);
	tcase_add_test(tc, many_connections_come_and_go);
	suite_add_tcase(s, tc);
	return suite_run(s);
}
