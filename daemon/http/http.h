/*
 * HTTP/1.1 for the API: libmicrohttpd driven by the libevent loop.
 *
 * A request reaches the handler once its body has arrived. The handler replies at once,
 * or keeps the pointer and calls http_reply later, exactly once, whether the client is still
 * there or not. The request is freed when http_reply returns. If the connection ends while its
 * request waits, the request's headers become absent and its target "". A client that has closed
 * its sending side alone loses its answer unless that comes within a moment: libmicrohttpd knows
 * no half-closed clients.
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
 * Limits. All but max_head can change at run time, and then hold for open connections too.
 *
 * Time-outs of a connection:
 * - From the connect (on TCP, also from the last request's end) request_timeout runs. If a part of
 *   a request line has come by then, but not all of it, the connection ends.
 * - Otherwise the line has until idle_timeout from the connect or the last request's end, however
 *   slowly its bytes come.
 * - From the request line on, request_timeout runs for the rest of the request. So no request takes
 *   longer to arrive than both time-outs together.
 * - An answer that the client does not take ends after one to two idle_timeouts without progress.
 * - A request that waits in the handler has no time-out here.
 *
 * What is no HTTP is answered with 400 at once, and its connection ends.
 */
struct http_limits {
	unsigned max_connections; /* at the limit an idle one is closed, or the new one waits */
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

/* Connections that are reserved for all listeners with `reserved` together. As many more of theirs
 * may linger. */
#define HTTP_RESERVED_CONNECTIONS 16u

/* Sets the one callback that runs after the handler has been called for all requests that came
 * together: handled(arg), from the loop. NULL: none. */
void http_on_handled(struct http *http, void (*handled)(void *arg), void *arg);

/* Sends the answers given so far now, not in the next turn of the loop. To be called from the loop,
 * not from the handler. */
void http_flush(struct http *http);

/*
 * Accepts on a listening socket (AF_INET, AF_INET6, AF_UNIX), made non-blocking here.
 * `name` is for the log, `purpose` for http_request_purpose. `reserved`: the listener's connections
 * do not count for max_connections; they share HTTP_RESERVED_CONNECTIONS. When these are used up,
 * the connection that has waited longest, amid a request or not, is closed for a new one.
 * On success the descriptor is http's; -1 when out of memory.
 */
int http_listen(struct http *http, int fd, const char *name, unsigned char purpose, bool reserved);

void http_reconfigure(struct http *http, const struct http_limits *limits);

/*
 * Stops accepting. Requests under way are finished, and those that still come on open connections
 * are answered, with `Connection: close`. Calls drained(arg) once, from the loop, when no request
 * is under way; http_free may be called from it. Connections that are new or were just busy
 * get 200 ms for a request that may be on its way.
 */
void http_drain(struct http *http, void (*drained)(void *arg), void *arg);

/* For a drain that has lasted too long: answers requests that wait for a later turn of the loop
 * with 503. */
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
/* True if it is none of the safe methods (RFC 9110, section 9.2.1). */
bool http_method_writes(enum http_method method);

/* What a request says. The strings live as long as the request. */
enum http_method http_request_method(const struct http_request *rq);
/* The path as sent, still percent-encoded, from its '/' up to any '?'. A target that is no path,
 * as the "*" of OPTIONS, is given as it is. */
const char *http_request_path(const struct http_request *rq);
/* True for a target in absolute form (RFC 9112, section 3.2.2). Its host and port, which replace
 * the Host header's, are written to out; "" if there is no host or it does not fit. */
bool http_request_authority(const struct http_request *rq, char *out, size_t size);
/* The query as sent, without the '?'; NULL when there is none. */
const char *http_request_query(const struct http_request *rq);
/*
 * To be asked by the handler before it works on a request that takes long. True: this turn's time
 * for such requests is spent. The handler then returns without an answer, and is called for the
 * request again in a later turn.
 */
bool http_request_defer(struct http_request *rq);
/* True if clients have still to take long answers (over 64 KiB) of max_unsent bytes together. The
 * handler gives no further long answer then. */
bool http_is_sending_much(const struct http_request *rq);
/* The headers that http_request_header gives. */
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
/* The value of the first header of that name; NULL if absent. *count, unless NULL, is set to how
 * many there are. */
const char *http_request_header(const struct http_request *rq, enum http_field field,
				unsigned *count);
/* The body. *too_large: it is longer than max_body, was not read, and is given as empty. */
const char *http_request_body(const struct http_request *rq, size_t *len, bool *too_large);
/* When the whole request had arrived, by clock_ns(). */
uint64_t http_request_arrived_ns(const struct http_request *rq);
/* Who asks: "127.0.0.1:50312", "[::1]:50312" or "unix:uid=1000,pid=4242". */
const char *http_request_peer(const struct http_request *rq);
/* True if the request came over a unix socket, which no browser can reach. */
bool http_request_is_unix(const struct http_request *rq);
/* The purpose of the listener that the request came through. */
unsigned char http_request_purpose(const struct http_request *rq);

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
	int route;       /* its number in the metrics; 0: none of the routes */
	uint64_t now_ns; /* clock_ns(), if the caller has just asked for it; 0: it has not */
};

/*
 * Answers a request, from inside the handler or later. When memory is short the connection is
 * closed instead.
 */
void http_reply(struct http_request *rq, const struct http_reply *reply);

/*
 * An answer without an end. `read` puts up to `max` bytes into buf and returns how many. When it
 * returns 0, there being nothing to send, it is called again only after http_stream_wake. No
 * function declared here calls it. `gone` is called once, from the loop or http_free: the client
 * left, the daemon stops or the stream was cut. The stream is freed after it. Streams do not count
 * for max_connections.
 */
struct http_stream;
typedef ssize_t http_stream_read_fn(void *arg, char *buf, size_t max);

/* Answers a request with a stream, from inside the handler. The reply has no body. When out of
 * memory returns NULL: the connection is closed, and `gone` is not called. */
struct http_stream *http_reply_stream(struct http_request *rq, const struct http_reply *reply,
				      http_stream_read_fn *read, void (*gone)(void *arg),
				      void *arg);
void http_stream_wake(struct http_stream *stream);
/* A number that changes when the client takes something. */
uint64_t http_stream_progress(const struct http_stream *stream);
/* Ends the stream at once, whatever is still to be sent. `gone` follows from the loop. */
void http_stream_cut(struct http_stream *stream);

#endif
