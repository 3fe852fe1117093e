#include "api/report_lines.h"

#include "api/private.h"
#include "base/clock.h"
#include "proto/report_line.h"
#include "store/count.h"

#include <event2/event.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* Datagrams that one system call reads. Each socket has one such call in a turn of the loop. */
#define BATCH       32
#define SOCKETS_MAX 32
/* How many batches a stop reads from a socket at most: more than a socket holds. */
#define FINISH_BATCHES 1024

struct line_socket {
	struct report_lines *lines;
	int fd;
	struct event *ev;
};

/* A report that waits for the store. */
struct pending {
	TAILQ_ENTRY(pending) entry;
	struct report_lines *lines;
	struct store_op *op;
	struct ask ask;
	uint64_t began_ns;
	char key[KEY_MAX];
};

TAILQ_HEAD(pending_list, pending);

struct report_lines {
	struct event_base *base;
	struct api *api;
	struct line_socket sockets[SOCKETS_MAX];
	size_t socket_count;
	struct pending_list pending;
	unsigned pending_count;
	bool paused;
	struct log_limit unusable;
	char buffers[BATCH][REPORT_LINE_MAX];
};

static const char *line_result_name(unsigned result)
{
	static const char *const names[] = {"used", "unusable", "failed"};

	return names[result];
}

enum line_result { LINE_USED, LINE_UNUSABLE, LINE_FAILED, LINE_RESULTS };

static void count(struct report_lines *lines, enum line_result result)
{
	lines->api->metrics->report_lines[result]++;
}

/* Starts or stops reading. */
static void set_paused(struct report_lines *lines, bool paused)
{
	if (lines->paused == paused)
		return;
	lines->paused = paused;
	for (size_t i = 0; i < lines->socket_count; i++) {
		if (paused)
			event_del(lines->sockets[i].ev);
		else
			event_add(lines->sockets[i].ev, NULL);
	}
}

static void finish_report(struct report_lines *lines, const struct ask *ask,
			  const struct store_result *result, uint64_t began_ns)
{
	store_count(lines->api->metrics, CIRCUIT_REPORT, result, clock_ns() - began_ns);
	count(lines, result->status == STORE_OK ? LINE_USED : LINE_FAILED);
	if (result->status == STORE_OK)
		api_note_report(lines->api, NULL, ask, result);
}

static void on_store_done(void *arg, struct store_result *result)
{
	struct pending *p = arg;
	struct report_lines *lines = p->lines;

	TAILQ_REMOVE(&lines->pending, p, entry);
	lines->pending_count--;
	finish_report(lines, &p->ask, result, p->began_ns);
	free(p);
	set_paused(lines, false);
}

static void refuse(struct report_lines *lines, const char *line, size_t len, const char *why)
{
	struct api *api = lines->api;

	count(lines, LINE_UNUSABLE);
	if (log_allows(api->log, &lines->unusable, LOG_LEVEL_WARNING, "report_line_unusable"))
		log_warning(api->log, "report_line_unusable", "line=%s reason=\"%s\"",
			    log_quote(line, len).text, why);
}

static void submit(struct report_lines *lines, const struct report_line *line,
		   struct breaker_call *call)
{
	struct pending *p = malloc(sizeof(*p));
	struct store_result result;

	if (!p) {
		count(lines, LINE_FAILED);
		return;
	}
	memcpy(p->key, line->key, line->key_len);
	p->lines = lines;
	p->began_ns = clock_ns();
	p->ask = (struct ask){
		.operation = CIRCUIT_REPORT,
		.outcome = call->outcome,
		.store = {.key = p->key,
			  .key_len = line->key_len,
			  .op = {.verb = CIRCUIT_REPORT, .call = call}},
	};
	p->op = store_submit(lines->api->store, &p->ask.store, on_store_done, p, &result);
	p->ask.store.op.call = NULL; /* the store has its own */
	if (p->op) {
		TAILQ_INSERT_TAIL(&lines->pending, p, entry);
		lines->pending_count++;
		return;
	}
	finish_report(lines, &p->ask, &result, p->began_ns);
	free(p);
}

static void take_line(struct report_lines *lines, const char *text, size_t len, bool cut)
{
	struct api *api = lines->api;
	struct breaker_call call = {.reporter = api->reporter, .count = 1};
	struct report_line line;
	const char *wrong = cut ? "It is too long." : report_line_read(text, len, &line);

	if (!wrong) {
		call.policy = policy_set_find(api->policies, line.key, line.key_len);
		wrong = report_line_fill(&line, &call);
	}
	if (wrong)
		refuse(lines, text, len, wrong);
	else
		submit(lines, &line, &call);
}

/* Reads datagrams: 1 or more, at most `most` and at most BATCH. Returns how many were read, -1
 * after an error. */
static int read_batch(struct line_socket *s, unsigned most)
{
	struct report_lines *lines = s->lines;
	struct mmsghdr messages[BATCH];
	struct iovec parts[BATCH];
	int n;

	if (most > BATCH)
		most = BATCH;
	memset(messages, 0, sizeof(messages));
	for (unsigned i = 0; i < most; i++) {
		parts[i] = (struct iovec){lines->buffers[i], REPORT_LINE_MAX};
		messages[i].msg_hdr.msg_iov = &parts[i];
		messages[i].msg_hdr.msg_iovlen = 1;
	}
	n = recvmmsg(s->fd, messages, most, MSG_DONTWAIT, NULL);
	for (int i = 0; i < n; i++)
		take_line(lines, lines->buffers[i], messages[i].msg_len,
			  messages[i].msg_hdr.msg_flags & MSG_TRUNC);
	return n;
}

static void on_readable(evutil_socket_t fd, short what, void *arg)
{
	struct line_socket *s = arg;
	struct report_lines *lines = s->lines;

	(void)fd;
	(void)what;
	if (lines->pending_count < lines->api->max_lines)
		read_batch(s, lines->api->max_lines - lines->pending_count);
	if (lines->pending_count >= lines->api->max_lines)
		set_paused(lines, true);
}

struct report_lines *report_lines_new(struct event_base *base, struct api *api)
{
	struct report_lines *lines = calloc(1, sizeof(*lines));

	if (!lines)
		return NULL;
	lines->base = base;
	lines->api = api;
	TAILQ_INIT(&lines->pending);
	api->metrics->report_line_results = (struct metrics_label){line_result_name, LINE_RESULTS};
	return lines;
}

int report_lines_listen(struct report_lines *lines, int fd)
{
	struct line_socket *s = &lines->sockets[lines->socket_count];

	if (lines->socket_count == SOCKETS_MAX)
		return -1;
	s->ev = event_new(lines->base, fd, EV_READ | EV_PERSIST, on_readable, s);
	if (!s->ev || event_add(s->ev, NULL) != 0) {
		if (s->ev)
			event_free(s->ev);
		return -1;
	}
	s->lines = lines;
	s->fd = fd;
	lines->socket_count++;
	return 0;
}

void report_lines_finish(struct report_lines *lines)
{
	for (size_t i = 0; i < lines->socket_count; i++) {
		struct line_socket *s = &lines->sockets[i];
		unsigned batches = 0;

		while (read_batch(s, BATCH) > 0 && ++batches < FINISH_BATCHES)
			;
		event_free(s->ev);
		close(s->fd);
	}
	lines->socket_count = 0;
}

bool report_lines_busy(const struct report_lines *lines)
{
	return lines->pending_count > 0;
}

void report_lines_free(struct report_lines *lines)
{
	struct pending *p;

	if (!lines)
		return;
	while ((p = TAILQ_FIRST(&lines->pending)) != NULL) {
		TAILQ_REMOVE(&lines->pending, p, entry);
		store_cancel(p->op);
		free(p);
	}
	for (size_t i = 0; i < lines->socket_count; i++) {
		event_free(lines->sockets[i].ev);
		close(lines->sockets[i].fd);
	}
	free(lines);
}
