/*
 * What the files of http share; nobody else includes this. Each uses those above it:
 * conn.c: connections and their time-outs; linger.c: connections that end with an answer amid a
 * body; answer.c: responses; handler.c: what the handler asks and answers; refuse.c: answers
 * without it; replace.c: answers in place of libmicrohttpd's own; defer.c: requests that wait for a
 * later turn; parked.c: chunked bodies of which nothing moves; pump.c: runs libmicrohttpd;
 * first_line.c: connections until their first request line has come, and their end; accept.c:
 * listeners; stream.c: answers without an end; request.c: requests; http.c: start and stop.
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
 * libmicrohttpd's memory for a connection holds, besides the head (max_head), a record of each
 * header, and the answer's headers. It is cleared for each request, so more of it would cost time.
 */
#if MHD_VERSION >= 0x01000000 /* its records are longer */
#define HEAD_ROOM ((size_t)4096)
#else
#define HEAD_ROOM ((size_t)2048)
#endif

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
	PHASE_STREAM,                 /* an answer without an end: stream.c */
	PHASE_ENDING,                 /* shut down; libmicrohttpd is about to notice */
};

struct http_request {
	enum http_method method;
	bool begun;     /* the handler of libmicrohttpd has been called for it */
	bool waits;     /* the handler has returned without an answer */
	bool suspended; /* the connection is */
	bool deferred;  /* waits for a later turn (defer.c) */
	bool costly;    /* its time is counted */
	bool orphaned;  /* the connection has ended, but http_reply is still to come */
	unsigned polls; /* in vain, of libmicrohttpd for the answer */
	bool answered;  /* http_reply was called */
	bool queued;    /* and libmicrohttpd has the response */
	bool too_large;
	bool broken_target;
	bool last;          /* no other may come behind it on this connection */
	bool direct;        /* libmicrohttpd takes no answer now: it goes straight to the socket */
	const char *target; /* as libmicrohttpd has it, without query */
	size_t target_len;  /* with the query */
	struct http_head head;
	size_t head_size;
	const char *query; /* in query_buf, or NULL */
	size_t body_len;
	size_t pieces;       /* of the body so far */
	uint64_t arrived_ns; /* all of it */
	void *data;
};

#define KEPT_HEADERS 4
#define KEPT_VALUES  128

/*
 * A small answer's response, kept for the next one on the connection: that is alike as a rule,
 * but for the bytes of its body, and to make a response costs as much as all else of one.
 */
struct kept_response {
	struct MHD_Response *response; /* its data is `body`; may be NULL */
	const char *type;
	size_t len;
	time_t date_s;
	char body[256];
	/* Its further headers: their names, which are constants, and their values, each with its
	 * NUL. */
	const char *names[KEPT_HEADERS];
	size_t header_count;
	char values[KEPT_VALUES];
};

struct conn {
	unsigned magic;
	struct http *http;
	struct MHD_Connection *mhd; /* NULL: it is gone, and an orphaned request is left */
	int fd;
	enum phase phase;
	uint64_t requests;     /* done */
	uint64_t taken;        /* bytes of these, but for chunked bodies, behind which it ends */
	bool hung_up;          /* the client sends no more */
	unsigned char purpose; /* of its listener */
	bool apart;            /* so are the places of its listener */
	size_t unsent;         /* bytes of its answer in http->unsent */
	bool lingers;          /* answered while it may still send: see linger.c */
	int64_t since_ms;      /* when it came into its phase */
	uint64_t progress;
	TAILQ_ENTRY(conn) entry; /* in the list of its phase, or of streams */
	TAILQ_ENTRY(conn) aside; /* in the list of those that are apart */
	TAILQ_ENTRY(conn) known; /* in the list of those that libmicrohttpd has */
	TAILQ_ENTRY(conn) side; /* in the list of those that wait for their first line, or parked */

	/* first_line.c */
	struct event *first;           /* its bytes; NULL once the line has come */
	bool line_begun;               /* part of the line is there */
	int empty_line;                /* bytes of an empty line before it; 0 once it is complete */
	enum http_method first_method; /* of the line */

	const char
		*buffer; /* libmicrohttpd's, in which requests of the connection lie: replace.c */

	int backlog; /* pump.c: bytes in the socket at the last look for progress */

	/* parked.c */
	bool parked;
	bool doomed;  /* resumed so that libmicrohttpd ends it */
	int unread;   /* bytes in the socket at the last look */
	size_t moved; /* pieces of the body at that look, and 1 */
	struct {
		http_stream_read_fn *read; /* NULL: it is none */
		void (*gone)(void *arg);
		void *arg;
		struct event *hang_up;
		bool suspended, cut;
	} stream;
	struct http_request rq;
	/* Kept from request to request. */
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
	bool apart;            /* its places are */
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
	struct event *readable; /* its epoll descriptor */
	struct later *pump;     /* runs it in the next turn */
	struct event *poll;     /* runs it in a moment, when nothing announces that it can get on */
	uint64_t steps;         /* of all requests: changes of phase, pieces of body */
	bool cookies_come;      /* somebody has sent some */
	unsigned blind_turns;   /* in a row in which it was busy and made no step */

	/* defer.c */
	struct conn_list deferred, deferred_costly;
	uint64_t turn_ns;   /* when the first request of this turn had arrived; 0: none has */
	uint64_t costly_ns; /* spent on costly requests in this turn */

	TAILQ_HEAD(listener_list, listener) listeners;
	struct event *unpause;
	bool paused; /* for want of descriptors or of room */

	/* Connections of listeners whose places are apart. */
	struct conn_list apart;
	unsigned apart_count;
	bool apart_full; /* such listeners wait until one has ended, or for a moment */
	struct event *apart_timer;

	int64_t pause_logged_ms;
	struct conn *accepting;   /* on its way through MHD_add_connection */
	struct conn_list known;   /* libmicrohttpd has them */
	struct conn_list waiting; /* for their first line: first_line.c */
	char *peek;               /* max_head bytes to look at such a line */

	/* parked.c */
	struct conn_list parked;
	struct event *park_timer;
	int64_t parked_check_ms; /* the last look at what could be parked */
	unsigned doomed;

	struct conn_list phases[PHASES_TIMED];
	struct event *sweep;
	int64_t left_ms;  /* when connections that clients have left were looked for */
	int64_t sweep_ms; /* when the timer fires; 0: it is off */
	unsigned connections;
	size_t unsent;     /* bytes of long answers that are not all sent */
	unsigned requests; /* under way, from their request line until they are sent */
	unsigned handling; /* with the handler */
	struct conn_list streams;
	unsigned streams_awake; /* of these, those that are not suspended */
	unsigned unsuspended;   /* of the requests with the handler, those that libmicrohttpd keeps
				   looking after */

	/* Behind the end of their connections: linger.c. */
	TAILQ_HEAD(linger_list, leftover) lingering;
	unsigned lingering_count;
	struct event *linger_timer;

	bool draining;
	int64_t drain_ms;          /* since when */
	struct event *drain_timer; /* runs while a drain waits for requests on their way */
	void (*drained)(void *arg);
	void *drained_arg;
};

/* Monotonic, to a few milliseconds: enough for stamps, and costs next to nothing. */
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
 * Writes the answer to the socket, which has nothing else to send, as far as it takes it at once.
 * False if it takes nothing. The connection has to end with it.
 */
bool http_answer_send(struct conn *c, const struct http_reply *reply);

/* The headers that every response has, and those of the reply. False when out of memory. */
bool http_answer_add_headers(struct conn *c, struct MHD_Response *response,
			     const struct http_reply *reply);

/* The answer is sent, or nobody takes it. */
void http_answer_sent(struct conn *c);

/* The connection ends. */
void http_answer_forget(struct conn *c);

/* A connection has ended: what listeners wait for may be there in the next turn. */
static inline void http_accept_soon(struct http *http, bool apart)
{
	if (apart && http->apart_full)
		timer_arm(http->apart_timer, 0);
	else if (!apart && http->paused)
		timer_arm(http->unpause, 0);
}

/* conn.c */

/* The connection that the request is part of. */
struct conn *http_conn_of(const struct http_request *rq);

/* NULL if it is none of ours. */
struct conn *http_conn_of_mhd(struct MHD_Connection *mhd);

/* Ends the connection; it is freed when that is noticed, in a later turn. */
void http_conn_end(struct conn *c, const char *why);
/* How far the client has got: another number whenever it has taken something. For TCP the bytes
 * that it has acknowledged; for a unix socket the bytes that it has still to read. */
uint64_t http_conn_progress(const struct conn *c);

/* Bytes that the client has sent and nobody has read; -1 if the kernel does not say. */
int http_conn_unread(const struct conn *c);

/* The client sends no more, or has reset the connection; what it sent before may lie unread. */
bool http_conn_hung_up(const struct conn *c);

/*
 * False if libmicrohttpd has surely read nothing of a further request: on TCP, whose counters tell.
 * For a connection without a request under way.
 */
bool http_conn_may_have_part(const struct conn *c);

/* A connection that libmicrohttpd does not know yet, in no list. NULL when out of memory. */
struct conn *http_conn_new(struct http *http, int fd, const struct sockaddr_storage *ss,
			   socklen_t len);

/* Takes it from its list and frees it; the descriptor is libmicrohttpd's. */
void http_conn_free(struct conn *c);

/* The one place where a connection changes its phase; its time in it begins now. */
void http_conn_enter(struct conn *c, enum phase phase);

/* True if the client has closed its side, and all that it sent has been read. */
bool http_conn_has_hung_up(const struct conn *c);

/*
 * Ends the connection that has been without a request for longest, and for idle_ms at least.
 * False if there is none.
 */
bool http_conn_displace(struct http *http, int64_t idle_ms);
/* Ends the one of those apart that waits for longest. */
void http_conn_displace_apart(struct http *http);

/*
 * Ends the connections whose clients have left amid a request or before it, which libmicrohttpd
 * does not notice if the end came together with the last bytes. True if there were any.
 */
bool http_conn_end_left(struct http *http);

/* Makes the timer `sweep`; -1 when out of memory. */
int http_sweep_init(struct http *http);
/* Looks at once, for the time-outs have changed. */
void http_sweep_now(struct http *http);
/* Stops the timer: there are no connections. */
void http_sweep_stop(struct http *http);

/* handler.c */

enum http_method http_parse_method(const char *method);

/* Lets libmicrohttpd go on with a request that was just answered. Behind MHD_queue_response: that
 * saves a call of the handler. */
void http_request_go_on(struct conn *c);

/* refuse.c */

/* Answers a request that the handler is not shown; the connection ends with it. */
enum MHD_Result http_refuse(struct http_request *rq, const struct http_reply *reply);
/* The same, with a line of text: there is no problem document for 431 and 505. */
enum MHD_Result http_refuse_text(struct http_request *rq, int status, const char *text);
/* The same, with 431: the head is longer than max_head. */
enum MHD_Result http_refuse_head(struct http_request *rq);
/* The same, with a problem document. */
enum MHD_Result http_refuse_problem(struct http_request *rq, enum problem problem,
				    const char *detail);

/* Answers a deferred request, which the handler is not shown, with `overloaded`. */
void http_refuse_deferred(struct conn *c, const char *detail);

/* replace.c */

/* Reads a line of libmicrohttpd's log: the request that it is about to refuse is answered here, if
 * its connection is known. */
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
/* The daemon stops: none is waited for for longer than a moment. */
void http_linger_drain(struct http *http);
/* Closes the oldest one; false if there is none. */
bool http_linger_drop(struct http *http);
/* Closes all. */
void http_linger_free(struct http *http);

/* first_line.c */

/* Makes its buffer; -1 when out of memory. */
int http_first_line_init(struct http *http);
/* Takes a connection that was accepted. libmicrohttpd gets it when its first line is there. */
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
/* libmicrohttpd has run and says that it is ready again. */
void http_parked_check(struct http *http);
/* The connection ends. */
void http_parked_forget(struct conn *c);
/* Resumes all: libmicrohttpd is about to be stopped. */
void http_parked_resume(struct http *http);
void http_parked_free(struct http *http);

/* pump.c */

/* Makes its events; -1 when out of memory. */
int http_pump_init(struct http *http);
/* No connection is left: stops the timer. */
void http_pump_rest(struct http *http);
/* From now on looks whether all requests are done, and calls drained. */
void http_pump_drain(struct http *http);
/* Ends the drain if nothing is under way any more; may call back. */
void http_pump_check_drained(struct http *http);
/* Sends what can be sent at once, and looks at no descriptor any more. */
void http_pump_stop(struct http *http);
/* Behind the end of libmicrohttpd. */
void http_pump_free(struct http *http);

/* defer.c */

void http_defer_init(struct http *http);
void http_defer_begin_turn(struct http *http);
/* Gives a request that has arrived to the handler, or sets rq.deferred. */
void http_defer_or_handle(struct conn *c);
/* True if requests wait for a later turn. */
bool http_defer_waiting(const struct http *http);
/* Serves those that wait, for a turn's time, and schedules the next turn if some are left. */
void http_defer_serve(struct http *http);

/* request.c: what libmicrohttpd calls */

void *http_on_request_line(void *arg, const char *target, struct MHD_Connection *mhd);
enum MHD_Result http_on_request(void *arg, struct MHD_Connection *mhd, const char *url,
				const char *method, const char *version, const char *upload,
				size_t *upload_len, void **context);
void http_on_completed(void *arg, struct MHD_Connection *mhd, void **context,
		       enum MHD_RequestTerminationCode code);

#endif
