/* The circuits that are not closed, the longest first: in /metrics, and as lines for a person. */
#include "api/private.h"
#include "api/watch.h"

#include <event2/buffer.h>
#include <stdio.h>
#include <stdlib.h>

#define LINES_MAX 100

/* Writes a key as a label's value (text exposition format 0.0.4). A key has no control characters,
 * so '"' and '\' alone need a backslash. */
static int add_label(struct evbuffer *out, const char *text, size_t len)
{
	char escaped[2 * KEY_MAX];
	size_t n = 0;

	for (size_t i = 0; i < len; i++) {
		if (text[i] == '\\' || text[i] == '"')
			escaped[n++] = '\\';
		escaped[n++] = text[i];
	}
	return evbuffer_add(out, escaped, n);
}

static int add_series(struct evbuffer *out, const struct watched *c)
{
	if (evbuffer_add_printf(out, "breakerd_circuit_open_seconds{key=\"") < 0 ||
	    add_label(out, keynode_key(&c->node), c->node.key_len) != 0)
		return -1;
	return evbuffer_add_printf(out, "\",state=\"%s\"} %.3f\n",
				   circuit_state_name(c->circuit.state),
				   (double)watch_open_ms(c) / 1000) < 0
		       ? -1
		       : 0;
}

int api_add_open_metric(struct api *api, struct evbuffer *out)
{
	const struct watched **open = calloc(api->metrics_circuits + 1, sizeof(void *));
	size_t count = open ? watch_open(api->watch, open, api->metrics_circuits) : 0;
	int rc = open ? 0 : -1;

	if (evbuffer_add_printf(out, "# HELP breakerd_circuit_open_seconds How long ago circuits "
				     "that are not closed left closed, the longest first "
				     "(metrics_circuits).\n"
				     "# TYPE breakerd_circuit_open_seconds gauge\n") < 0)
		rc = -1;
	for (size_t i = 0; i < count && rc == 0; i++)
		rc = add_series(out, open[i]);
	free(open);
	return rc;
}

/* "12s", "5m12s", "3h05m", "2d04h" */
static void format_age(int64_t ms, char *out, size_t size)
{
	long long s = ms / 1000;

	if (s < 60)
		snprintf(out, size, "%llds", s);
	else if (s < 3600)
		snprintf(out, size, "%lldm%02llds", s / 60, s % 60);
	else if (s < 86400)
		snprintf(out, size, "%lldh%02lldm", s / 3600, s / 60 % 60);
	else
		snprintf(out, size, "%lldd%02lldh", s / 86400, s / 3600 % 24);
}

int api_add_open_lines(struct api *api, struct evbuffer *out)
{
	const struct watched *open[LINES_MAX];
	struct watch *w = api->watch;
	size_t count = watch_open(w, open, LINES_MAX);
	char age[32];

	for (size_t i = 0; i < count; i++) {
		const struct watched *c = open[i];

		format_age(watch_open_ms(c), age, sizeof(age));
		if (evbuffer_add_printf(out, "%-9s %-7s %s%s%s\n",
					circuit_state_name(c->circuit.state), age,
					log_quote(keynode_key(&c->node), c->node.key_len).text,
					c->override ? ", " : "",
					c->override ? breaker_override_name(c->override->mode)
						    : "") < 0)
			return -1;
	}
	if (w->open.count > count &&
	    evbuffer_add_printf(out, "          and %zu more\n", w->open.count - count) < 0)
		return -1;
	return 0;
}
