/*
 * The bytes of a connection: daemon/http with libmicrohttpd, and daemon/api on an embedded store.
 * An input is what a client sends. Its first byte says in how many pieces: 1 to 9, or a to i for
 * the same with requests that wait before they are answered.
 *
 * Each request that reaches the handler is compared with a second reader, written after RFC 9112:
 * that must read the same request.
 */
#include "api/api.h"
#include "base/log.h"
#include "base/metrics.h"
#include "fuzz.h"
#include "http/http.h"
#include "store/store.h"

#include <errno.h>
#include <event2/event.h>
#include <signal.h>
#include <stddef.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

/* The linker's option --wrap asks for such names. False, so that Host is checked as on TCP. */
/* NOLINTBEGIN(bugprone-reserved-identifier) */
bool __wrap_http_request_is_unix(const struct http_request *rq);

bool __wrap_http_request_is_unix(const struct http_request *rq)
{
	(void)rq;
	return false;
}
/* NOLINTEND(bugprone-reserved-identifier) */

#define MAX_BODY    512
#define MAX_HEAD    4096
#define PROBE_TURNS 20
#define QUIET_TURNS 2
#define RUNS_EACH   64 /* inputs before everything is freed and started again */

static struct {
	struct event_base *base;
	struct metrics *metrics;
	struct store *store;
	struct api *api;
	struct http *http;
	struct sockaddr_un address;
	socklen_t address_len;
	struct fuzz_text unread; /* the input after the last request that reached the handler */
	bool over;               /* no further request may reach the handler */
	bool blind;              /* the second reader cannot follow any more */
	bool deferred;           /* requests wait before they are answered */
	bool probing;            /* the request is that of probe() */
	unsigned long runs;
	struct http_request *waiting; /* NULL: none; a connection has one at a time */
	struct http_request *last;    /* the last that reached the handler */
	uint64_t last_arrived_ns;
} fuzz;

/* --- RFC 9112 ------------------------------------------------------------------------------ */

struct message {
	struct fuzz_text method, target, body;
	unsigned lengths, encodings, hosts;
	bool chunked, http_1_0;
	size_t length;
};

static bool is_token(struct fuzz_text t)
{
	for (size_t i = 0; i < t.len; i++)
		if (!t.p[i] ||
		    !strchr("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
			    "!#$%&'*+-.^_`|~",
			    t.p[i]))
			return false;
	return t.len > 0;
}

static bool is_free_of_controls(struct fuzz_text t, bool spaces)
{
	for (size_t i = 0; i < t.len; i++)
		if (((unsigned char)t.p[i] < ' ' && !(spaces && t.p[i] == '\t')) ||
		    t.p[i] == 0x7F || (t.p[i] == ' ' && !spaces))
			return false;
	return true;
}

static bool says(struct fuzz_text t, const char *text)
{
	return t.len == strlen(text) && strncasecmp(t.p, text, t.len) == 0;
}

/* Takes a line that ends with CR LF, and cuts that off. False if there is none. */
static bool take_line(struct fuzz_text *rest, struct fuzz_text *line)
{
	const char *end = rest->len ? memchr(rest->p, '\n', rest->len) : NULL;

	if (!end || end == rest->p)
		return false;
	*line = (struct fuzz_text){rest->p, (size_t)(end - rest->p) - 1};
	rest->len -= (size_t)(end + 1 - rest->p);
	rest->p = end + 1;
	return end[-1] == '\r';
}

/* Skips lines before a request that libmicrohttpd takes for empty. */
static void skip_empty_lines(struct fuzz_text *rest)
{
	while (rest->len && (*rest->p == '\n' || *rest->p == '\0' ||
			     (*rest->p == '\r' && rest->len > 1 && rest->p[1] == '\n'))) {
		const char *end = memchr(rest->p, '\n', rest->len);

		if (!end)
			return;
		rest->len -= (size_t)(end + 1 - rest->p);
		rest->p = end + 1;
	}
}

static bool take_field(struct fuzz_text line, struct message *m)
{
	const char *colon = line.len ? memchr(line.p, ':', line.len) : NULL;
	struct fuzz_text name, value;

	if (!colon)
		return false;
	name = (struct fuzz_text){line.p, (size_t)(colon - line.p)};
	value = (struct fuzz_text){colon + 1, line.len - name.len - 1};
	while (value.len && (*value.p == ' ' || *value.p == '\t')) {
		value.p++;
		value.len--;
	}
	while (value.len && strchr(" \t", value.p[value.len - 1]) && value.p[value.len - 1])
		value.len--;
	if (!is_token(name) || !is_free_of_controls(value, true))
		return false;
	if (says(name, "Host")) {
		m->hosts++;
	} else if (says(name, "Transfer-Encoding")) {
		m->encodings++;
		m->chunked = says(value, "chunked");
	} else if (says(name, "Content-Length")) {
		m->lengths++;
		for (size_t i = 0; i < value.len; i++) {
			if (value.p[i] < '0' || value.p[i] > '9')
				return false;
			if (m->length < SIZE_MAX / 100)
				m->length = m->length * 10 + (size_t)(value.p[i] - '0');
		}
		return value.len > 0;
	}
	return true;
}

/* Takes a request from the front. False if there is no valid one. */
static bool take_message(struct fuzz_text *rest, struct message *m)
{
	struct fuzz_text line;

	*m = (struct message){0};
	skip_empty_lines(rest);
	if (!take_line(rest, &line))
		return false;
	m->method = fuzz_until(&line, " ");
	m->target = fuzz_until(&line, " ");
	if (!is_token(m->method) || !is_free_of_controls(m->target, false) || !m->target.len ||
	    line.len != 8 || memcmp(line.p, "HTTP/1.", 7) != 0 || line.p[7] < '0' ||
	    line.p[7] > '9')
		return false;
	m->http_1_0 = line.p[7] == '0';
	while (take_line(rest, &line) && line.len > 0)
		if (!take_field(line, m))
			return false;
	if (line.len > 0 || m->lengths > 1 || m->encodings > 1 ||
	    (m->encodings && (m->lengths || !m->chunked || m->http_1_0)) ||
	    (!m->hosts && !m->http_1_0))
		return false;
	m->body = (struct fuzz_text){rest->p, m->length};
	return true;
}

/* --- the daemon's side --------------------------------------------------------------------- */

static void check_target(struct http_request *rq, const struct message *m)
{
	const char *query = http_request_query(rq), *path = http_request_path(rq);
	struct fuzz_text rest = m->target;
	struct fuzz_text sent = fuzz_until(&rest, "?");
	size_t len = strlen(path);

	/* In absolute form the path comes after the host; it ends the target in each form. */
	FUZZ_CHECK(len <= sent.len || (len == 1 && *path == '/'));
	FUZZ_CHECK(len > sent.len || memcmp(sent.p + sent.len - len, path, len) == 0 ||
		   (len == 1 && *path == '/'));
	FUZZ_CHECK((query != NULL) == (sent.len < m->target.len));
	FUZZ_CHECK(!query || (strlen(query) == rest.len && !memcmp(query, rest.p, rest.len)));
}

static void check_body(struct http_request *rq, const struct message *m)
{
	bool too_large;
	size_t len;
	const char *body = http_request_body(rq, &len, &too_large);

	FUZZ_CHECK(len <= MAX_BODY);
	if (m->chunked)
		return;
	FUZZ_CHECK(too_large == (m->length > MAX_BODY));
	FUZZ_CHECK(too_large || len == m->length);
	FUZZ_CHECK(too_large || memcmp(body, m->body.p, len) == 0);
}

static bool has(struct fuzz_text text, const char two[2])
{
	return text.len && memmem(text.p, text.len, two, 2);
}

static void answer(struct http_request *rq)
{
	FUZZ_CHECK(!fuzz.waiting);
	if (fuzz.deferred)
		fuzz.waiting = rq;
	else
		api_handle(fuzz.api, rq);
}

static void on_request(void *arg, struct http_request *rq)
{
	const char *method = http_method_name(http_request_method(rq));
	struct message m;

	(void)arg;
	if (fuzz.probing) {
		api_handle(fuzz.api, rq);
		return;
	}
	/* A costly request is handled again in a later turn (http_request_defer). */
	if (rq == fuzz.last && http_request_arrived_ns(rq) == fuzz.last_arrived_ns) {
		answer(rq);
		return;
	}
	fuzz.last = rq;
	fuzz.last_arrived_ns = http_request_arrived_ns(rq);
	FUZZ_CHECK(!fuzz.over);
	/* daemon/http/head.c cannot tell some of these from CR LF, and says why. */
	fuzz.blind = fuzz.blind || has(fuzz.unread, "\0\n") || has(fuzz.unread, "\n\0") ||
		     has(fuzz.unread, "\n:");
	if (fuzz.blind) {
		answer(rq);
		return;
	}
	FUZZ_CHECK(take_message(&fuzz.unread, &m));
	if (http_request_method(rq) != HTTP_OTHER)
		FUZZ_CHECK(m.method.len == strlen(method) &&
			   memcmp(m.method.p, method, m.method.len) == 0);
	check_target(rq, &m);
	check_body(rq, &m);
	/* The connection ends after a chunked body, and after a body that was refused unread. */
	fuzz.over = m.chunked || m.length > fuzz.unread.len;
	if (!fuzz.over) {
		fuzz.unread.p += m.length;
		fuzz.unread.len -= m.length;
	}
	answer(rq);
}

static void on_line(void *arg, enum log_level level, const char *line)
{
	(void)arg;
	(void)level;
	fuzz_check_sentence(line, LOG_LINE_MAX + 1);
}

static int64_t fixed_clock(void *arg)
{
	(void)arg;
	return INT64_C(1700000000000);
}

static void open_listener(void)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	fuzz.address.sun_family = AF_UNIX;
	/* In the abstract namespace (unix(7)): no file to remove. */
	fuzz.address_len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 +
				       (size_t)snprintf(fuzz.address.sun_path + 1, 64,
							"breakerd-fuzz-%d", (int)getpid()));
	FUZZ_CHECK(fd >= 0);
	FUZZ_CHECK(bind(fd, (struct sockaddr *)&fuzz.address, fuzz.address_len) == 0);
	FUZZ_CHECK(listen(fd, 8) == 0);
	FUZZ_CHECK(http_listen(fuzz.http, fd, "fuzz", 0, false) == 0);
}

static void start(void)
{
	static struct log log = {.level = LOG_LEVEL_DEBUG, .sink = on_line};
	static const char *const hosts[] = {"localhost", "127.0.0.1"};
	const struct store_limits store_limits = {.timeout_ms = 250,
						  .max_in_flight = 100,
						  .ttl_ms = 60000,
						  .max_circuits = 16};
	const struct store_clock clock = {.now_ms = fixed_clock, .monotonic_ms = fixed_clock};
	const struct http_limits limits = {.max_connections = 8,
					   .max_head = MAX_HEAD,
					   .max_body = MAX_BODY,
					   .idle_timeout_ms = 60000,
					   .request_timeout_ms = 60000};
	const struct api_access access = {.token = "t0ken",
					  .allowed_hosts = hosts,
					  .allowed_host_count = 2,
					  .any_address = true,
					  .max_body = MAX_BODY};

	static const struct policy_entry policy = {
		.name = "default",
		.json = "{}",
		.policy = {.consecutive_failures = 2,
			   .window_ms = 1000,
			   .min_reporters = 1,
			   .open_time_ms = 10,
			   .open_time_max_ms = 10,
			   .probes = 2,
			   .probe_successes = 1,
			   .probe_timeout_ms = 10},
	};
	static const struct policy_set policies = {&policy, 1};
	static const struct api_limits api_limits = {.max_streams = 4,
						     .max_circuits = 100,
						     .max_lines = 8};

	signal(SIGPIPE, SIG_IGN);
	fuzz.base = event_base_new();
	fuzz.metrics = calloc(1, sizeof(*fuzz.metrics));
	FUZZ_CHECK(fuzz.base && fuzz.metrics);
	fuzz.store = store_memory_new(fuzz.base, &store_limits, clock, fuzz.metrics);
	FUZZ_CHECK(fuzz.store);
	fuzz.api =
		api_new(fuzz.base, fuzz.store, &access, &policies, &api_limits, fuzz.metrics, &log);
	FUZZ_CHECK(fuzz.api);
	fuzz.http = http_new(fuzz.base, &limits, on_request, fuzz.api, fuzz.metrics, &log);
	FUZZ_CHECK(fuzz.http);
	open_listener();
	http_reconfigure(fuzz.http, &limits);
	api_reconfigure(fuzz.api, &access, &policies, &api_limits);
}

static void on_drained(void *arg)
{
	(void)arg;
}

/* Ends and frees everything, so that leaks are found. */
static void stop(void)
{
	http_drain(fuzz.http, on_drained, NULL);
	event_base_loop(fuzz.base, EVLOOP_NONBLOCK);
	api_abort(fuzz.api);
	http_free(fuzz.http);
	api_free(fuzz.api);
	store_free(fuzz.store);
	event_base_free(fuzz.base);
	free(fuzz.metrics);
	fuzz.http = NULL;
}

/* --- the client ---------------------------------------------------------------------------- */

/* Runs the loop until it has nothing to do, and reads the answers. */
static void turn(int fd)
{
	char answer[16384];

	for (int quiet = 0; quiet < QUIET_TURNS; quiet++) {
		event_base_loop(fuzz.base, EVLOOP_NONBLOCK);
		if (fuzz.waiting) {
			struct http_request *rq = fuzz.waiting;

			fuzz.waiting = NULL;
			api_handle(fuzz.api, rq);
			quiet = 0;
		}
		while (recv(fd, answer, sizeof(answer), MSG_DONTWAIT) > 0)
			quiet = 0;
	}
}

/* Checks that another client is answered at once, whatever the first one has sent. */
static void probe(void)
{
	static const char request[] = "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n";
	char reply[1024];
	ssize_t n = -1;
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	FUZZ_CHECK(fd >= 0);
	FUZZ_CHECK(connect(fd, (struct sockaddr *)&fuzz.address, fuzz.address_len) == 0);
	FUZZ_CHECK(send(fd, request, sizeof(request) - 1, 0) == (ssize_t)sizeof(request) - 1);
	fuzz.probing = true;
	for (int i = 0; i < PROBE_TURNS && n < 0; i++) {
		event_base_loop(fuzz.base, EVLOOP_NONBLOCK);
		n = recv(fd, reply, sizeof(reply), MSG_DONTWAIT);
	}
	fuzz.probing = false;
	FUZZ_CHECK(n > 12 && memcmp(reply, "HTTP/1.1 200", 12) == 0);
	close(fd);
	for (int i = 0; i < PROBE_TURNS && fuzz.metrics->http_connections > 1; i++)
		event_base_loop(fuzz.base, EVLOOP_NONBLOCK);
}

static void send_all(int fd, struct fuzz_text text)
{
	while (text.len > 0) {
		ssize_t n = send(fd, text.p, text.len, MSG_DONTWAIT | MSG_NOSIGNAL);

		if (n < 0 && errno != EAGAIN)
			return; /* the server has closed the connection */
		if (n > 0) {
			text.p += n;
			text.len -= (size_t)n;
		}
		turn(fd);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz_text text = {(const char *)data, size}, piece;
	size_t pieces;
	int fd;

	if (!fuzz.http)
		start();
	if (size == 0)
		return 0;
	pieces = (size_t)(text.p[0] & 15) % 9 + 1;
	fuzz.deferred = text.p[0] >= 'a';
	text.p++;
	text.len--;
	fuzz.unread = text;
	fuzz.over = fuzz.blind = false;
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	FUZZ_CHECK(fd >= 0);
	FUZZ_CHECK(connect(fd, (struct sockaddr *)&fuzz.address, fuzz.address_len) == 0);
	turn(fd);
	for (size_t at = 0; at < text.len; at += piece.len) {
		piece = (struct fuzz_text){text.p + at, text.len / pieces + 1};
		if (piece.len > text.len - at)
			piece.len = text.len - at;
		send_all(fd, piece);
	}
	turn(fd);
	if (!fuzz.waiting)
		probe();
	close(fd);
	for (int i = 0; i < 20 && fuzz.metrics->http_connections > 0; i++)
		event_base_loop(fuzz.base, EVLOOP_NONBLOCK);
	/* libmicrohttpd 0.9 does not notice the end after a chunk-size line that fills its memory.
	 */
	FUZZ_CHECK(fuzz.metrics->http_connections == 0 || text.len > MAX_HEAD / 2);
	if (++fuzz.runs % RUNS_EACH == 0 || fuzz.metrics->http_connections)
		stop();
	return 0;
}
