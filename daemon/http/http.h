/*
 * HTTP/1.1 for the API: libmicrohttpd driven by the libevent loop.
 *
 * A request reaches the handler once its body has arrived. The handler replies at once,
 * or keeps the pointer and calls http_reply later, exactly once, whether the client is still
 * there or not. The request is gone after http_reply has returned. Of a connection that ends
 * while its request waits, the headers and the target are gone too: absent, and "". A client
 * that has only closed its sending side counts as gone if its answer takes longer than a
 * moment (libmicrohttpd knows no half-closed clients).
 */
#ifndef BREAKERD_HTTP_H
#define BREAKERD_HTTP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct event_base;
struct http;
struct http_request;
struct log;
struct metrics;

/*
 * What can change while it runs, for connections that are open too. The time-outs hold so:
 * from the request line on, request_timeout for the rest of the request. Before: a
 * request that begins to arrive within request_timeout of the connection (or, on TCP, of the
 * last request) and has no whole line by then ends with it; in any other case idle_timeout
 * from then, however slowly bytes drip in. So no request takes longer than the two together.
 * What is no HTTP is answered with 400 at once, and its connection ends. An answer that the client
 * does not take ends after one to two idle_timeouts without progress. A request that waits in the
 * handler has no time-out here.
 */
struct http_limits {
	unsigned max_connections; /* beyond, an idle one makes room for a new one, or that waits */
	size_t max_head;          /* bytes, request line and headers; only http_new reads it */
	size_t max_body; /* bytes; a longer one ends the connection, with the handler's answer */
	unsigned idle_timeout_ms;    /* a connection without a request */
	unsigned request_timeout_ms; /* a request on its way in, first byte to last */
	size_t max_unsent;           /* bytes of long answers, see http_is_sending_much */
};

typedef void http_handler_fn(void *arg, struct http_request *request);

/* NULL when libmicrohttpd cannot start. `metrics` and `log` must outlive it. */
struct http *http_new(struct event_base *base, const struct http_limits *limits,
		      http_handler_fn *handler, void *arg, struct metrics *metrics,
		      struct log *log);

/* Connections of all listeners whose places are apart; as many more may linger. */
#define HTTP_PLACES_APART 16u

/* Calls handled(arg) behind the handler's calls for all requests that came together. From the
 * loop. One; NULL: none. */
void http_on_handled(struct http *http, void (*handled)(void *arg), void *arg);

/* Sends the answers that were given now rather than in the next turn of the loop. From the loop,
 * not from the handler. */
void http_flush(struct http *http);

/*
 * Accepts on a listening socket (AF_INET, AF_INET6, AF_UNIX), made non-blocking here.
 * `name` is for the log, `purpose` for http_request_purpose. `apart`: its connections have places
 * beside max_connections, where the one that waits for longest, amid a request or not, makes room
 * for a new one. On success the descriptor is http's; -1 when out of memory.
 */
int http_listen(struct http *http, int fd, const char *name, unsigned char purpose, bool apart);

void http_reconfigure(struct http *http, const struct http_limits *limits);

/*
 * Stops accepting; what is in flight is finished, with `Connection: close`, and so is what
 * still comes on open connections. Calls drained(arg) once, from the loop, when no request
 * is under way; http_free may be called from it. Connections that are new or were just busy
 * get a moment (200 ms) for a request that may be on its way.
 */
void http_drain(struct http *http, void (*drained)(void *arg), void *arg);

/* Answers what waits for a later turn of the loop with 503: the drain has lasted too long. */
void http_cut_deferred(struct http *http);

/*
 * Closes everything. No request may be pending with the handler (the caller has cancelled
 * or answered them all): libmicrohttpd ends the process otherwise.
 */
void http_free(struct http *http);

enum http_method {
	HTTP_GET,
	HTTP_HEAD,
	HTTP_POST,
	HTTP_PUT,
	HTTP_DELETE,
	HTTP_OPTIONS,
	HTTP_OTHER, /* any other token */
};
#define HTTP_METHODS (HTTP_OTHER + 1)
const char *http_method_name(enum http_method method); /* "GET", ..., "other" */

/* Of a request. Strings live as long as it does. */
enum http_method http_request_method(const struct http_request *rq);
/* The path as sent, still percent-encoded, from its '/' to before any '?'. What is no path
 * (the "*" of OPTIONS) comes as it is. */
const char *http_request_path(const struct http_request *rq);
/* True for a target in absolute form (RFC 9112, section 3.2.2): its host and port, which count
 * for more than Host, are written to out; "" if there is none or it does not fit. */
bool http_request_authority(const struct http_request *rq, char *out, size_t size);
/* The query as sent, behind the '?'; NULL when there is none. */
const char *http_request_query(const struct http_request *rq);
/*
 * For the handler, about a request that takes long to answer. True: the time for such requests in
 * this turn of the loop is spent; return without an answer, the handler is called for it again.
 */
bool http_request_defer(struct http_request *rq);
/* True if long answers (over 64 KiB) of max_unsent bytes together are not taken yet: a further one
 * is not for now. */
bool http_is_sending_much(const struct http_request *rq);
/* The headers that somebody asks for. */
enum http_field {
	HTTP_FIELD_HOST,
	HTTP_FIELD_ORIGIN,
	HTTP_FIELD_SEC_FETCH_SITE,
	HTTP_FIELD_AUTHORIZATION,
	HTTP_FIELD_GATEWAY, /* any of those that a web page cannot send without asking first */
	HTTP_FIELD_LAST_EVENT_ID,
	HTTP_FIELD_ACCEPT,
	HTTP_FIELDS,
};
/* The value of a header's first line; NULL if absent. *count, unless NULL, gets how often it came.
 */
const char *http_request_header(const struct http_request *rq, enum http_field field,
				unsigned *count);
/* The body; *too_large says that it is over max_body: the handler has the request before it came.
 */
const char *http_request_body(const struct http_request *rq, size_t *len, bool *too_large);
/* When it had arrived, by clock_ns(). */
uint64_t http_request_arrived_ns(const struct http_request *rq);
/* Who asks: "127.0.0.1:50312", "[::1]:50312" or "unix:uid=1000,pid=4242". */
const char *http_request_peer(const struct http_request *rq);
/* True if it came over a unix socket, which no browser can reach. */
bool http_request_is_unix(const struct http_request *rq);
/* The purpose of the listener that it came through. */
unsigned char http_request_purpose(const struct http_request *rq);
/* A place for the handler's own, NULL at first. */
void **http_request_data(struct http_request *rq);

struct http_header {
	const char *name;
	const char *value;
};

struct http_reply {
	int status;
	const char *content_type; /* a constant; NULL: none, and no body */
	const char *body;         /* copied */
	size_t len;
	const struct http_header *headers; /* further ones, copied */
	size_t header_count;
	int route;       /* a number for the counter; 0: none of the routes */
	uint64_t now_ns; /* clock_ns(), of who has just asked for it; 0: unknown */
};

/*
 * Answers; may be called from inside the handler or later. When memory is short the
 * connection is closed instead.
 */
void http_reply(struct http_request *rq, const struct http_reply *reply);

/*
 * An answer without an end. `read` puts up to `max` bytes into buf and returns how many; 0: there
 * is nothing now, and it is called again behind http_stream_wake. It is not called from inside
 * any function of http. `gone` is called once, when the client has gone, the daemon stops or the
 * stream was cut; the stream is gone then. Streams count for no limit of http's.
 */
struct http_stream;
typedef ssize_t http_stream_read_fn(void *arg, char *buf, size_t max);

/* Answers so, from inside the handler. The reply has no body. NULL, and `gone` does not come, when
 * out of memory: the connection is closed then. */
struct http_stream *http_reply_stream(struct http_request *rq, const struct http_reply *reply,
				      http_stream_read_fn *read, void (*gone)(void *arg),
				      void *arg);
void http_stream_wake(struct http_stream *stream);
/* Another number whenever the client has taken something. */
uint64_t http_stream_progress(const struct http_stream *stream);
/* Ends it at once, whatever was sent of it; `gone` comes from the loop. */
void http_stream_cut(struct http_stream *stream);

#endif
