/* Settings read again: see reload.h. */
#include "reload.h"

#include "api/api.h"
#include "app_private.h"
#include "base/clock.h"
#include "base/timer.h"
#include "http/http.h"
#include "logging.h"
#include "part_limits.h"
#include "store/store.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

/* The pause after a reload is PAUSE_FACTOR times as long as the reload, within these bounds, so
 * that requests have most of the time. */
#define PAUSE_FACTOR 4
#define PAUSE_MIN_MS 100
#define PAUSE_MAX_MS 1000

static void on_files_changed(void *arg);

void reload_watch_files(struct app *app)
{
	const struct config *c = app->config;
	int error = ENOMEM;

	if (!c->reload_on_change) {
		file_watch_free(app->reload.files);
		app->reload.files = NULL;
		return;
	}
	if (!app->reload.files)
		app->reload.files = file_watch_new(app->base, on_files_changed, app);
	if (app->reload.files)
		error = file_watch_set(app->reload.files, (const char *const *)c->files,
				       c->file_stamps, c->file_count);
	if (error)
		log_warning(&app->log, "watch_failed", "reason=\"%s\" every_ms=%d", strerror(error),
			    FILE_WATCH_POLL_MS);
}

static void apply(struct app *app, struct config *next)
{
	struct store_limits store_limits = limits_of_store(next);
	struct http_limits http_limits = limits_of_http(next, &app->share);
	struct api_access access = sockets_access(&app->sockets, next);
	struct api_limits api_limits = limits_of_api(next, &app->share);

	logging_apply(&app->log, next);
	store_reconfigure(app->store, &store_limits);
	http_reconfigure(app->http, &http_limits);
	api_reconfigure(app->api, &access, &next->policies, &api_limits);
	limits_show(app->metrics, next, &app->share);
}

static bool has_settings_of_file(const struct config *c)
{
	for (size_t i = 0; i < CONFIG_SETTINGS; i++)
		if (c->sources[i].origin == CONFIG_FROM_FILE)
			return true;
	return c->section_count > 0;
}

/*
 * False, with the error set, if the file sets nothing any more. An operator hardly wants that, as
 * it takes away the token and all policies: more likely somebody is about to write the file, or a
 * command has failed.
 */
static bool allow_empty(const struct app *app, const struct config *next,
			struct config_error *error)
{
	if (!has_settings_of_file(app->config) || has_settings_of_file(next))
		return true;
	snprintf(error->text, sizeof(error->text),
		 "%.400s: it sets nothing any more; SIGHUP takes it all the same",
		 next->config_file);
	return false;
}

/* Warns of protection that is gone, also if an operator asked for it. */
static void warn_of_loss(struct app *app, const struct config *next)
{
	if (app->config->token && !next->token)
		log_warning(
			&app->log, "token_gone",
			"reason=\"token_file is no longer set: no client is asked for a token\"");
	if (app->config->reload_on_change && !next->reload_on_change)
		log_warning(&app->log, "watch_ended",
			    "reason=\"reload_on_change is no longer set: only SIGHUP reads the "
			    "files again\"");
}

/* Reloads: because of a SIGHUP if `signalled`, else because files have changed. */
static void reload(struct app *app, bool signalled)
{
	enum config_action action;
	struct config_error error;
	struct config *next;
	char names[512];

	systemd_reloading();
	if (config_load(&app->input, &action, &next, &error) != CONFIG_OK ||
	    !sockets_allow(&app->sockets, next, &error) ||
	    (!signalled && !allow_empty(app, next, &error))) {
		log_error(&app->log, "reload_refused", "reason=%s",
			  log_quote_text(error.text).text);
		systemd_reloaded(app->systemd, true);
		config_free(next);
		return;
	}
	config_warn(next, &app->input, &app->log);
	config_needs_restart(app->started, next, names, sizeof(names));
	descriptors_raise(next, OTHER_DESCRIPTORS);
	if (!descriptors_share(next, app->other_descriptors, &app->log, &app->share))
		log_warning(&app->log, "few_descriptors", "max_connections=%u",
			    app->share.max_connections);
	apply(app, next);
	warn_of_loss(app, next);
	if (app->config != app->started)
		config_free(app->config);
	app->config = next;
	reload_watch_files(app);
	if (names[0])
		log_warning(&app->log, "restart_needed", "settings=\"%s\"", names);
	log_info(&app->log, "reloaded", "file=%s why=%s",
		 next->config_file[0] ? next->config_file : "none",
		 signalled ? "SIGHUP" : "change");
	systemd_reloaded(app->systemd, false);
}

/* Reloads if that was asked for and the pause after the last reload is over. */
static void reload_if_due(struct app *app)
{
	bool signalled = app->reload.signalled;
	int64_t begin, pause;

	if (app->stop.begun || (!signalled && !app->reload.changed) ||
	    event_pending(app->reload.timer, EV_TIMEOUT, NULL))
		return;
	app->reload.signalled = app->reload.changed = false;
	begin = clock_ms();
	reload(app, signalled);
	pause = PAUSE_FACTOR * (clock_ms() - begin);
	if (pause < PAUSE_MIN_MS)
		pause = PAUSE_MIN_MS;
	timer_arm(app->reload.timer, pause < PAUSE_MAX_MS ? pause : PAUSE_MAX_MS);
}

static void on_pause_over(evutil_socket_t fd, short what, void *arg)
{
	(void)fd;
	(void)what;
	reload_if_due(arg);
}

static void on_hangup(evutil_socket_t fd, short what, void *arg)
{
	struct app *app = arg;

	(void)fd;
	(void)what;
	app->reload.signalled = true;
	reload_if_due(app);
}

static void on_files_changed(void *arg)
{
	struct app *app = arg;

	app->reload.changed = true;
	reload_if_due(app);
}

int reload_init(struct app *app)
{
	app->reload.hangup = evsignal_new(app->base, SIGHUP, on_hangup, app);
	app->reload.timer = evtimer_new(app->base, on_pause_over, app);
	if (!app->reload.hangup || !app->reload.timer)
		return -1;
	return event_add(app->reload.hangup, NULL);
}

void reload_fini(struct app *app)
{
	file_watch_free(app->reload.files);
	if (app->reload.hangup)
		event_free(app->reload.hangup);
	if (app->reload.timer)
		event_free(app->reload.timer);
}
