/*
 * Log lines on the state of one thing that others can make change as fast as they like: `lines` at
 * once, then one each `each_ms`. A line that may not be written yet waits until it may, unless a
 * later one replaces it; so the last line tells the last state. Replaced lines are counted (log.h,
 * suppressed), and their number is logged before the next line.
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
	uint64_t left_out; /* lines replaced since the last one that was written */
	/* The line that waits; token is NULL if none does. */
	enum log_level level;
	const char *token;
	int64_t at_ms; /* monotonic */
	char words[1024];
};

/* `kind` is for "suppressed", and a constant. 0, or -1 when out of memory; fini is allowed then
 * too. fini writes the line that waits. */
int log_state_init(struct log_state *state, struct event_base *base, struct log *log,
		   const char *kind, unsigned lines, unsigned each_ms);
void log_state_fini(struct log_state *state);

/* Writes the line now or later; one that is written later ends in late_ms. `token` is a constant.
 */
void log_state_say(struct log_state *state, enum log_level level, const char *token,
		   const char *fmt, ...) __attribute__((format(printf, 4, 5)));

#endif
