/* Log lines on the state of one thing: see log_state.h. */
#include "base/log_state.h"

#include "base/clock.h"
#include "base/timer.h"

#include <event2/event.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* How often the log checks whether the line that waits may be written. */
#define RETRY_MS 1000

static void leave_out(struct log_state *state)
{
	state->left_out++;
	if (state->log->suppressed)
		++*state->log->suppressed;
}

static void write_waiting(struct log_state *state, bool late)
{
	char behind[40] = "";

	if (state->left_out)
		log_write(state->log, state->level, "suppressed", "kind=%s lines=%" PRIu64,
			  state->kind, state->left_out);
	state->left_out = 0;
	if (late)
		snprintf(behind, sizeof(behind), " late_ms=%" PRId64, clock_ms() - state->at_ms);
	log_write(state->log, state->level, state->token, "%s%s", state->words, behind);
	state->token = NULL;
}

static void try_to_write(struct log_state *state, bool late)
{
	if (log_budget_take(&state->budget, state->lines, state->each_ms))
		write_waiting(state, late);
	else
		timer_arm(state->timer, state->each_ms < RETRY_MS ? state->each_ms : RETRY_MS);
}

static void on_timer(evutil_socket_t fd, short what, void *arg)
{
	struct log_state *state = arg;

	(void)fd;
	(void)what;
	if (state->token)
		try_to_write(state, true);
}

int log_state_init(struct log_state *state, struct event_base *base, struct log *log,
		   const char *kind, unsigned lines, unsigned each_ms)
{
	*state = (struct log_state){.log = log, .kind = kind, .lines = lines, .each_ms = each_ms};
	state->timer = evtimer_new(base, on_timer, state);
	return state->timer ? 0 : -1;
}

void log_state_fini(struct log_state *state)
{
	/* Written even beyond the budget: the last line must tell the last state. */
	if (state->token)
		write_waiting(state, true);
	if (state->timer)
		event_free(state->timer);
	state->timer = NULL;
}

void log_state_say(struct log_state *state, enum log_level level, const char *token,
		   const char *fmt, ...)
{
	va_list ap;

	if (!state->log)
		return;
	if (state->token)
		leave_out(state);
	state->token = NULL;
	if (level > state->log->level)
		return;
	state->level = level;
	state->token = token;
	state->at_ms = clock_ms();
	va_start(ap, fmt);
	vsnprintf(state->words, sizeof(state->words), fmt, ap);
	va_end(ap);
	try_to_write(state, false);
}
