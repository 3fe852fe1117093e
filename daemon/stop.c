/* The way from SIGTERM to the end: see stop.h. */
#include "stop.h"

#include "api/api.h"
#include "api/report_lines.h"
#include "app_private.h"
#include "base/clock.h"
#include "base/timer.h"
#include "http/http.h"
#include "store/store.h"

#include <signal.h>

/* Requests in flight get DRAIN_MS. Then those that are left are answered with an error, and these
 * answers get LAST_WORDS_MS. The last save gets what is left until STOP_MS. */
#define STOP_MS       4800
#define DRAIN_MS      3000
#define LAST_WORDS_MS 500
/* What the last save gets behind a second signal: enough for a small store. */
#define AT_ONCE_MS 200
/* How often a stop checks whether everything is folded into Redis. */
#define SETTLE_MS 10

/* No request is left. Ends the loop once Redis has all that was held back or recorded without it.
 */
static void on_drained(void *arg)
{
	struct app *app = arg;
	struct store_health health;
	bool waits;

	if (app->report_lines)
		report_lines_finish(app->report_lines);
	store_send_held(app->store);
	store_health(app->store, &health);
	waits = health.unsettled > 0 || health.held > 0 ||
		(app->report_lines && report_lines_busy(app->report_lines));
	if (!waits || timer_arm(app->stop.settle, SETTLE_MS) != 0)
		event_base_loopexit(app->base, NULL);
}

static void on_settle(evutil_socket_t fd, short what, void *arg)
{
	(void)fd;
	(void)what;
	on_drained(arg);
}

static void on_drain_over(evutil_socket_t fd, short what, void *arg)
{
	struct app *app = arg;

	(void)fd;
	(void)what;
	if (app->stop.aborted) {
		event_base_loopexit(app->base, NULL);
		return;
	}
	log_warning(&app->log, "drain_cut",
		    "reason=\"requests or steps to be folded were still in flight\"");
	app->stop.aborted = true;
	api_abort(app->api);
	http_cut_deferred(app->http);
	timer_arm(app->stop.drain, LAST_WORDS_MS);
}

static void on_stop_signal(evutil_socket_t signo, short what, void *arg)
{
	struct app *app = arg;
	int64_t now = clock_ms();

	(void)what;
	if (app->stop.begun) {
		if (app->stop.end_ms > now + AT_ONCE_MS)
			app->stop.end_ms = now + AT_ONCE_MS;
		event_base_loopbreak(app->base);
		return;
	}
	app->stop.begun = true;
	app->stop.end_ms = now + STOP_MS;
	log_info(&app->log, "stopping", "signal=%s", signo == SIGINT ? "SIGINT" : "SIGTERM");
	systemd_stopping(app->systemd);
	timer_arm(app->stop.drain, DRAIN_MS);
	http_drain(app->http, on_drained, app);
}

int stop_init(struct app *app)
{
	struct event **signals = app->stop.signals;

	signals[0] = evsignal_new(app->base, SIGTERM, on_stop_signal, app);
	signals[1] = evsignal_new(app->base, SIGINT, on_stop_signal, app);
	app->stop.drain = evtimer_new(app->base, on_drain_over, app);
	app->stop.settle = evtimer_new(app->base, on_settle, app);
	if (!signals[0] || !signals[1] || !app->stop.drain || !app->stop.settle)
		return -1;
	return event_add(signals[0], NULL) == 0 && event_add(signals[1], NULL) == 0 ? 0 : -1;
}

void stop_fini(struct app *app)
{
	struct event *events[] = {app->stop.signals[0], app->stop.signals[1], app->stop.drain,
				  app->stop.settle};

	for (size_t i = 0; i < sizeof(events) / sizeof(events[0]); i++)
		if (events[i])
			event_free(events[i]);
}
