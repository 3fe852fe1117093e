/*
 * Log lines on the state of one thing that may come and go as fast as whoever is outside likes: so
 * many lines at once, then one in so many milliseconds. A line that may not be written now is
 * written as soon as it may, as it was, unless a later one replaces it: so the last line is
 * true. Those that were replaced are counted (log.h, suppressed), and said before the next line.
 */
#ifndef BREAKERD_LOG_STATE_H
#define BREAKERD_LOG_STATE_H

#include "base/log.h"

struct event;
struct event_base;

struct log_state {
	struct log *log; /* NULL: nothing is written */
	const char *kind;
	unsigned lines, each_ms;
	struct log_budget budget;
	struct event *timer;
	uint64_t left_out; /* since the last line */
	/* The line that waits; token is NULL if none does. */
	enum log_level level;
	const char *token;
	int64_t at_ms; /* monotonic */
	char words[1024];
};

/* `kind` is for "suppressed"; a constant. 0, or -1 when out of memory; fini is allowed then too.
 * fini writes the line that waits. */
int log_state_init(struct log_state *state, struct event_base *base, struct log *log,
		   const char *kind, unsigned lines, unsigned each_ms);
void log_state_fini(struct log_state *state);

/* Writes the line, now or later; `token` is a constant. One that comes later ends in late_ms. */
void log_state_say(struct log_state *state, enum log_level level, const char *token,
		   const char *fmt, ...) __attribute__((format(printf, 4, 5)));

#endif
