/*
 * What the files of http share; nobody else includes this. Each file uses those above it:
 *
 * conn.c        connections, their phases and time-outs
 * linger.c      sockets of connections that ended with an answer while the client still sent
 * answer.c      responses
 * handler.c     what the handler asks of a request, and its answer
 * refuse.c      answers to requests that the handler does not get
 * replace.c     answers in place of libmicrohttpd's own
 * defer.c       requests that wait for a later turn
 * parked.c      chunked bodies that make no progress
 * pump.c        runs libmicrohttpd
 * first_line.c  connections until their first request line has come, and their end
 * accept.c      listeners
 * stream.c      answers without an end
 * request.c     requests
 * http.c        start and stop
 */
#ifndef BREAKERD_HTTP_PRIVATE_H
#define BREAKERD_HTTP_PRIVATE_H

#include "base/later.h"
#include "base/log.h"
#include "base/metrics.h"
#include "base/timer.h"
#include "http/head.h"
#include "http/http.h"
#include "proto/problem.h"

#include <event2/event.h>
#include <microhttpd.h>
#include <netinet/in.h>
#include <sys/queue.h>
#include <sys/socket.h>
#include <time.h>

/*
 * What libmicrohttpd's memory for a connection has to hold beside the head (max_head): a record of
 * each header, and the answer's headers. It is cleared for each request, so more would cost time.
 */
#if MHD_VERSION >= 0x01000000 /* its records are longer */
#define HEAD_ROOM ((size_t)4096)
#else
#define HEAD_ROOM ((size_t)2048)
#endif

/*
 * Where a connection is. Each of the first PHASES_TIMED has a list of its connections in the order
 * in which they entered the phase. The first in a list is the first to time out.
 */
enum phase {
	PHASE_FRESH,   /* no request; whether one has begun to arrive was not checked yet */
	PHASE_IDLE,    /* no request; ends after idle_timeout */
	PHASE_READING, /* from the request line to the end of the body; request_timeout */
	PHASE_SENDING, /* answered, but not all is sent; ends after idle_timeout without progress */
	PHASE_HUNG_UP, /* no request, and none will come; ends at once */
	PHASES_TIMED,
	PHASE_HANDLER = PHASES_TIMED, /* the handler has the request; it has its own deadlines */
	PHASE_STREAM,                 /* an answer without an end: stream.c */
	PHASE_ENDING,                 /* shut down; libmicrohttpd is about to notice */
};

struct http_request {
	enum http_method method;
	bool open;  /* its request line has come, and libmicrohttpd has not said that it is over */
	bool begun; /* libmicrohttpd has called http_on_request for it */
	bool waits; /* the handler has returned without an answer */
	bool suspended; /* its connection is suspended */
	bool deferred;  /* waits for a later turn (defer.c) */
	bool costly;    /* its handler's time counts for the budget of costly requests */
	bool orphaned;  /* its connection has ended; http_reply is still to come */
	unsigned polls; /* calls of http_on_request that found no answer yet */
	bool answered;  /* http_reply was called */
	bool queued;    /* libmicrohttpd has the response */
	bool too_large;
	bool broken_target;
	bool last;   /* the connection ends with its answer */
	bool direct; /* libmicrohttpd takes no answer now: write it to the socket ourselves */
	const char *target; /* in libmicrohttpd's buffer, without the query */
	size_t target_len;  /* with the query */
	struct http_head head;
	size_t head_size;
	const char *query; /* in query_buf, or NULL */
	size_t body_len;
	size_t pieces;       /* in which the body has come so far */
	uint64_t arrived_ns; /* when all of it had arrived */
};

#define KEPT_HEADERS 4
#define KEPT_VALUES  128

/*
 * The response of a small answer, kept for the connection's next answer. As a rule that differs in
 * the bytes of its body alone, and making a response is half of an answer's cost.
 */
struct kept_response {
	struct MHD_Response *response; /* its data is `body`; may be NULL */
	const char *type;
	size_t len;
	time_t date_s;
	char body[256];
	/* Its further headers: names, which are constants, and values, each with its NUL. */
	const char *names[KEPT_HEADERS];
	size_t header_count;
	char values[KEPT_VALUES];
};

struct conn {
	unsigned magic;
	struct http *http;
	struct MHD_Connection *mhd; /* NULL before the first line, and once the connection is gone
				       and an orphaned request is left */
	int fd;
	enum phase phase;
	uint64_t requests; /* that are over */
	uint64_t consumed; /* bytes of these requests; not of chunked bodies, which are the last */
	bool hung_up;      /* the client has closed its side behind its first request */
	unsigned char purpose;   /* of its listener */
	bool reserved;           /* as its listener */
	size_t unsent;           /* bytes of its answer that are counted in http->unsent */
	bool lingers;            /* answered while the client may still send: linger.c */
	int64_t since_ms;        /* when it entered its phase */
	uint64_t progress;       /* http_conn_progress at the last check of PHASE_SENDING */
	TAILQ_ENTRY(conn) entry; /* in the list of its phase, of streams or of deferred requests */
	TAILQ_ENTRY(conn) reserved_entry; /* in http->reserved */
	TAILQ_ENTRY(conn) in_mhd;         /* in http->in_mhd */
	TAILQ_ENTRY(conn) wait_entry;     /* in http->waiting or http->parked */

	/* first_line.c */
	struct event *first_line;      /* readable; NULL once the line has come */
	bool line_begun;               /* part of the line is there */
	int empty_line_bytes;          /* of an empty line before it; 0 once that is complete */
	enum http_method first_method; /* of the line */

	/* replace.c: where in libmicrohttpd's buffer the first request began */
	const char *buffer;

	int backlog; /* pump.c: bytes unread in the socket at the last check for progress */

	/* parked.c */
	bool parked;
	bool doomed;        /* resumed so that libmicrohttpd ends it */
	int last_unread;    /* bytes unread in the socket at the last check */
	size_t last_pieces; /* pieces of the body at the last check, plus 1; 0: not checked yet */
	struct {
		http_stream_read_fn *read; /* NULL: the connection is no stream */
		void (*gone)(void *arg);
		void *arg;
		struct event *hang_up;
		bool suspended, cut;
	} stream;
	struct http_request rq;
	/* Buffers that are used again for the next request. */
	char *body;
	size_t body_size;
	char *query_buf;
	size_t query_size;
	struct kept_response kept;
	union {
		struct sockaddr any;
		struct sockaddr_in in;
		struct sockaddr_in6 in6;
	} addr;
	socklen_t addr_len;
	char peer[64]; /* "" until somebody asks */
};
TAILQ_HEAD(conn_list, conn);

struct listener {
	struct http *http;
	int fd;
	bool enabled;
	bool reserved;         /* its places are */
	unsigned char purpose; /* the handler's word for it */
	struct event *ev;
	TAILQ_ENTRY(listener) entry;
	char name[];
};

struct http {
	struct event_base *base;
	struct http_limits limits;
	size_t max_head; /* as it was at the start: the memory for it stays as it is */
	http_handler_fn *handler;
	void *arg;
	void (*handled)(void *arg); /* http_on_handled */
	void *handled_arg;
	struct metrics *metrics;
	struct log *log;
	struct log_limit failed_replies;
	time_t date_s; /* of `date` */
	char date[32];

	struct MHD_Daemon *mhd;
	struct event *readable; /* libmicrohttpd's epoll descriptor */
	struct later *pump;     /* runs libmicrohttpd in the next turn */
	struct event *poll;     /* runs it in POLL_MS, when no descriptor tells that it can go on */
	uint64_t steps;         /* changes of phase and pieces of body, of all requests */
	bool saw_cookies;       /* a client has sent cookies */
	unsigned
		stalled_turns; /* in a row: libmicrohttpd said that it was busy, and made no step */

	/* defer.c */
	struct conn_list deferred, deferred_costly;
	uint64_t turn_ns;   /* when the first request of this turn had arrived; 0: none has */
	uint64_t costly_ns; /* spent on costly requests in this turn */

	TAILQ_HEAD(listener_list, listener) listeners;
	struct event *pause_timer;
	bool paused; /* descriptors or connections are used up */

	/* Connections of listeners that are `reserved`. */
	struct conn_list reserved;
	unsigned reserved_count;
	bool reserved_full; /* these listeners wait: for the end of a connection, or for a moment */
	struct event *reserved_timer;

	int64_t pause_logged_ms;
	struct conn *accepting;   /* while MHD_add_connection runs for it */
	struct conn_list in_mhd;  /* connections that libmicrohttpd has */
	struct conn_list waiting; /* those that wait for their first line: first_line.c */
	char *peek;               /* max_head bytes, to read such a line into */

	/* parked.c */
	struct conn_list parked;
	struct event *park_timer;
	int64_t parked_check_ms; /* the last check for connections to be parked */
	unsigned doomed;

	struct conn_list phases[PHASES_TIMED];
	struct event *sweep;
	int64_t abandoned_check_ms;   /* the last check for connections that clients have left */
	int64_t abandoned_from_ms[3]; /* where the next one begins, for each phase */
	int64_t sweep_ms;             /* when the timer fires; 0: it is off */
	unsigned connections;
	size_t unsent;     /* bytes of long answers that are not all sent */
	unsigned requests; /* from their request line until their answer is sent */
	unsigned handling; /* requests with the handler */
	struct conn_list streams;
	unsigned streams_awake; /* streams that are not suspended */
	unsigned unsuspended;   /* requests with the handler whose connection is not suspended, so
				   that libmicrohttpd polls for their answer */

	/* Sockets of connections that have ended: linger.c. */
	TAILQ_HEAD(linger_list, leftover) lingering;
	unsigned lingering_count;
	struct event *linger_timer;

	bool draining;
	int64_t drain_ms;          /* when the drain began */
	struct event *drain_timer; /* runs while a drain waits for requests on their way */
	void (*drained)(void *arg);
	void *drained_arg;
};

/* Monotonic milliseconds, some 4 ms coarse, and much cheaper than clock_ms. */
static inline int64_t http_coarse_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC_COARSE, &ts);
	return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

/* Runs libmicrohttpd in the next turn of the loop, once (pump.c). */
static inline void http_schedule_pump(struct http *http)
{
	later_run(http->pump);
}

/* answer.c */

/* Hands the answer to libmicrohttpd; false when it cannot take it. */
bool http_answer_queue(struct conn *c, const struct http_reply *reply);

/*
 * Writes the answer straight to the socket, as much as that takes at once; false if it takes
 * nothing. libmicrohttpd must not be sending, and the connection must end with this answer.
 */
bool http_answer_send(struct conn *c, const struct http_reply *reply);

/* The headers that every response has, and those of the reply. False when out of memory. */
bool http_answer_add_headers(struct conn *c, struct MHD_Response *response,
			     const struct http_reply *reply);

/* The answer is sent, or will not be: it no longer counts for max_unsent. */
void http_answer_sent(struct conn *c);

/* Frees the kept response. */
void http_answer_drop_kept(struct conn *c);

/* A connection has ended: a listener that waits may accept in the next turn. */
static inline void http_accept_soon(struct http *http, bool reserved)
{
	if (reserved && http->reserved_full)
		timer_arm(http->reserved_timer, 0);
	else if (!reserved && http->paused)
		timer_arm(http->pause_timer, 0);
}

/* conn.c */

/* The connection that the request is part of. */
struct conn *http_conn_of(const struct http_request *rq);

/* NULL if it is none of ours. */
struct conn *http_conn_of_mhd(struct MHD_Connection *mhd);

/* Shuts the connection down. It is freed in a later turn, when that is noticed. */
void http_conn_end(struct conn *c, const char *why);
/* Gives it libmicrohttpd's own time-out, of which the shortest is a second. libmicrohttpd looks at
 * such a connection in each of its runs, also if its socket has nothing to tell. */
void http_conn_hurry(struct conn *c);
/* A number that changes when the client takes something. On TCP the bytes that the client has
 * acknowledged, on a unix socket the bytes that it has still to read. */
uint64_t http_conn_progress(const struct conn *c);

/* Bytes that the client has sent and nobody has read; -1 if the kernel does not say. */
int http_conn_unread(const struct conn *c);

/* True if the client has closed its sending side or reset the connection. What it sent before may
 * still be unread. */
bool http_conn_is_half_closed(const struct conn *c);

/*
 * For a connection without a request under way: false if libmicrohttpd has surely read nothing of
 * the next one. Only TCP's counters can tell that; on a unix socket this is always true.
 */
bool http_conn_may_be_mid_request(const struct conn *c);

/* A connection that libmicrohttpd does not have yet and that is in no list. NULL when out of
 * memory. */
struct conn *http_conn_new(struct http *http, int fd, const struct sockaddr_storage *ss,
			   socklen_t len);

/* Takes it from the list of its phase and frees it. The descriptor stays open. */
void http_conn_free(struct conn *c);

/* The one place where a connection changes its phase. The phase's time begins now. */
void http_conn_enter(struct conn *c, enum phase phase);

/* True if the client has closed its sending side and all that it sent has been read. */
bool http_conn_at_eof(const struct conn *c);

/*
 * Ends the connection that has been without a request for longest, and for idle_ms at least.
 * False if there is none.
 */
bool http_conn_displace(struct http *http, int64_t idle_ms);
/* Ends the `reserved` connection that has waited longest. */
void http_conn_displace_reserved(struct http *http);

/*
 * Ends the connections whose clients have left before a whole request had come. libmicrohttpd does
 * not notice that if the end came together with the last bytes. True if any of them was not
 * `reserved`.
 */
bool http_conn_end_abandoned(struct http *http);

/* Makes the timer `sweep`; -1 when out of memory. */
int http_sweep_init(struct http *http);
/* Runs the sweep at once: the time-outs have changed. */
void http_sweep_now(struct http *http);
/* Stops the timer: there are no connections. */
void http_sweep_stop(struct http *http);

/* handler.c */

enum http_method http_parse_method(const char *method);

/* Lets libmicrohttpd go on with a request that was just answered. To be called after
 * MHD_queue_response, which saves a call of the handler. */
void http_request_go_on(struct conn *c);

/* refuse.c */

/* Answer a request that the handler does not get. The connection ends with the answer. */

/* With a line of text: there is no problem document for 431 and 505. */
enum MHD_Result http_refuse_text(struct http_request *rq, int status, const char *text);
/* With 431: the head is longer than max_head. */
enum MHD_Result http_refuse_head(struct http_request *rq);
/* With a problem document. */
enum MHD_Result http_refuse_problem(struct http_request *rq, enum problem problem,
				    const char *detail);

/* Answers a deferred request, which the handler does not get, with `overloaded`. */
void http_refuse_deferred(struct conn *c, const char *detail);

/* replace.c */

/* Reads a line of libmicrohttpd's log. If it says that a request is about to be refused, and the
 * connection can be told, answers that request here. */
void http_on_library_log(struct http *http, const char *text);

/* stream.c */

/* The stream has ended. */
void http_stream_completed(struct conn *c);
void http_streams_wake(struct http *http);
void http_streams_cut(struct http *http);

/* linger.c */

/* Makes its timer; -1 when out of memory. */
int http_linger_init(struct http *http);
/* Takes a connection that libmicrohttpd is about to close. */
void http_linger_add(struct http *http, int fd);
/* The daemon stops: shortens the time of each to DRAIN_LINGER_MS. */
void http_linger_drain(struct http *http);
/* Closes the oldest one; false if there is none. */
bool http_linger_drop(struct http *http);
/* Closes all. */
void http_linger_free(struct http *http);

/* first_line.c */

/* Makes its buffer; -1 when out of memory. */
int http_first_line_init(struct http *http);
/* Takes a connection that was accepted. libmicrohttpd gets it once its first line has come. */
void http_first_line_wait(const struct listener *l, int fd, const struct sockaddr_storage *ss,
			  socklen_t len);
/* Closes all connections that wait. */
void http_first_line_cut(struct http *http);
/* libmicrohttpd has closed the connection, or is about to. Frees it. */
void http_conn_gone(struct conn *c);

/* accept.c */

/* Makes its timers; -1 when out of memory. */
int http_accept_init(struct http *http);
/* Brings the listeners into line with what may be accepted now. */
void http_accept_update(struct http *http);
/* Closes the listeners. */
void http_accept_close(struct http *http);

/* parked.c */

/* Makes its timer; -1 when out of memory. */
int http_parked_init(struct http *http);
/* libmicrohttpd has run and says that it is busy still: looks for what is to be parked. */
void http_parked_check(struct http *http);
/* libmicrohttpd has closed the connection. */
void http_parked_closed(struct conn *c);
/* Resumes all: libmicrohttpd is about to be stopped. */
void http_parked_resume(struct http *http);
void http_parked_free(struct http *http);

/* pump.c */

/* Makes its events; -1 when out of memory. */
int http_pump_init(struct http *http);
/* No connection is left: stops the timer. */
void http_pump_rest(struct http *http);
/* Begins the drain: from now on each run checks whether all requests are done. */
void http_pump_drain(struct http *http);
/* Ends the drain, by calling `drained`, if nothing is under way any more. */
void http_pump_check_drained(struct http *http);
/* Sends what can be sent at once, and then no longer runs libmicrohttpd. */
void http_pump_stop(struct http *http);
/* To be called after MHD_stop_daemon. */
void http_pump_free(struct http *http);

/* defer.c */

void http_defer_init(struct http *http);
void http_defer_begin_turn(struct http *http);
/* Gives a request that has arrived to the handler, or sets rq.deferred. */
void http_defer_or_handle(struct conn *c);
/* True if requests wait for a later turn. */
bool http_defer_waiting(const struct http *http);
/* Serves requests that wait, for a turn's time, and schedules the next turn if some are left. */
void http_defer_serve(struct http *http);

/* request.c: what libmicrohttpd calls */

void *http_on_request_line(void *arg, const char *target, struct MHD_Connection *mhd);
enum MHD_Result http_on_request(void *arg, struct MHD_Connection *mhd, const char *url,
				const char *method, const char *version, const char *upload,
				size_t *upload_len, void **context);
void http_on_completed(void *arg, struct MHD_Connection *mhd, void **context,
		       enum MHD_RequestTerminationCode code);
/* libmicrohttpd has closed the connection. It does not always say before that the request is over:
 * not if it has no answer to a request that it refuses (1.0.1: a chunk's size line with extensions
 * that is too long), and not if epoll_ctl fails. */
void http_request_closed(struct conn *c);

#endif
