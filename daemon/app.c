/*
 * The boot list: what is started, in order, and stopped in the reverse one.
 */
#include "app.h"

#include "api/api.h"
#include "api/report_lines.h"
#include "app_private.h"
#include "base/loop_lag.h"
#include "check_ready.h"
#include "logging.h"
#include "part_limits.h"
#include "redis/store.h"
#include "reload.h"
#include "status.h"
#include "stop.h"
#include "store/state_path.h"

#include <assert.h>
#include <hiredis/hiredis.h>
#include <microhttpd.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define TEXT_(x)        #x
#define TEXT(x)         TEXT_(x)
#define HIREDIS_VERSION TEXT(HIREDIS_MAJOR) "." TEXT(HIREDIS_MINOR) "." TEXT(HIREDIS_PATCH)

/* --- start ---------------------------------------------------------------------------- */

static int start_failed(struct app *app, const char *words)
{
	log_error(&app->log, "start_failed", "reason=%s", log_quote_text(words).text);
	systemd_failed(words);
	return -1;
}

static int open_sockets(struct app *app)
{
	struct listen_error error;
	struct config_error refusal;

	if (sockets_open(&app->sockets, app->config, &error) != 0)
		return start_failed(app, error.text);
	if (!sockets_allow(&app->sockets, app->config, &refusal))
		return start_failed(app, refusal.text);
	return 0;
}

static struct store *new_store(struct app *app)
{
	struct store_limits limits = limits_of_store(app->config);
	struct store_clock clock = {0};
	struct store *redis, *store;

	if (!app->config->store_is_redis)
		return store_memory_new(app->base, &limits, clock, app->metrics);
	redis = store_redis_new(app->base, &app->config->redis, app->config->prefix, &limits,
				app->metrics, &app->log);
	if (!redis)
		return NULL;
	store = store_fallback_new(app->base, redis, &limits, clock, app->metrics, &app->log);
	if (store && !app->config->store_failure_local)
		store_fallback_refuse(store);
	return store;
}

static int open_store(struct app *app)
{
	const char *state_file = app->config->state_file;
	char why[1024];
	int rc = 0;

	app->store = new_store(app);
	if (!app->store)
		return start_failed(app, "the store cannot be set up: out of memory");
	if (!*state_file)
		return 0;
	if (!app->config->store_is_redis)
		rc = store_memory_keep(app->store, state_file, &app->log, why, sizeof(why));
	else if (app->config->store_failure_local)
		rc = store_fallback_keep(app->store, state_file, why, sizeof(why));
	return rc == 0 ? 0 : start_failed(app, why);
}

/* True if these settings make a start keep a state file. */
static bool keeps_state(const struct config *config)
{
	return config->state_file[0] && (!config->store_is_redis || config->store_failure_local);
}

/* Tells systemd how the store stands; true if the store is ready. */
static bool show_store(struct app *app)
{
	struct store_health health;
	char line[STATUS_LINE_MAX];

	store_health(app->store, &health);
	status_line(&health, line);
	systemd_status(app->systemd, line);
	return health.condition == STORE_READY;
}

static void on_store_changed(void *arg)
{
	show_store(arg);
}

static void on_request(void *arg, struct http_request *rq)
{
	struct app *app = arg;

	loop_lag_touch(app->lag);
	api_handle(app->api, rq);
}

static int open_report_lines(struct app *app)
{
	struct sockets *s = &app->sockets;

	if (s->report_count == 0)
		return 0;
	app->report_lines = report_lines_new(app->base, app->api);
	if (!app->report_lines)
		return start_failed(app, "out of memory");
	for (size_t i = 0; i < s->report_count; i++) {
		if (report_lines_listen(app->report_lines, s->report_fd[i]) != 0)
			return start_failed(app, "out of memory");
		s->report_fd[i] = -1;
	}
	for (size_t i = 0; i < s->report_addresses.count; i++)
		log_info(&app->log, "reading_reports", "addr=%s",
			 log_quote_text(s->report_addresses.items[i]).text);
	return 0;
}

static int listen_on(struct app *app, int *fd, const char *name, enum access_purpose purpose)
{
	if (http_listen(app->http, *fd, name, (unsigned char)purpose, purpose == ACCESS_METRICS) !=
	    0)
		return start_failed(app, "out of memory");
	*fd = -1;
	log_info(&app->log, "listening", "addr=%s%s", name,
		 purpose == ACCESS_METRICS ? " for=metrics" : "");
	return 0;
}

static int listen_on_all(struct app *app)
{
	struct sockets *s = &app->sockets;

	for (size_t i = 0; i < s->metrics_count; i++)
		if (listen_on(app, &s->metrics_fd[i], s->metrics_name[i], ACCESS_METRICS) != 0)
			return -1;
	for (size_t i = 0; i < s->count; i++)
		if (listen_on(app, &s->fd[i], s->name[i], ACCESS_ALL) != 0)
			return -1;
	return 0;
}

/* Requests that came together go to the store together, and its answers go to the clients together,
 * each in the same turn of the loop. */
static void on_handled(void *arg)
{
	struct app *app = arg;

	store_flush(app->store);
}

static void on_answered(void *arg)
{
	struct app *app = arg;

	http_flush(app->http);
}

static int open_parts(struct app *app)
{
	struct http_limits limits;
	struct api_access access = sockets_access(&app->sockets, app->config);
	struct api_limits api_limits;

	app->metrics = calloc(1, sizeof(*app->metrics));
	if (!app->metrics)
		return start_failed(app, "out of memory");
	app->log.suppressed = &app->metrics->log_lines_suppressed;
	app->metrics->microhttpd_version = MHD_get_version();
	app->metrics->hiredis_version = HIREDIS_VERSION;
	if (open_store(app) != 0)
		return -1;
	app->systemd = systemd_new(app->base);
	app->other_descriptors = descriptors_open();
	if (!descriptors_share(app->config, app->other_descriptors, &app->log, &app->share))
		return start_failed(app, "the limit on open files leaves none for connections: "
					 "raise it (LimitNOFILE, ulimit -n)");
	limits = limits_of_http(app->config, &app->share);
	api_limits = limits_of_api(app->config, &app->share);
	limits_show(app->metrics, app->config, &app->share);
	app->api = api_new(app->base, app->store, &access, &app->config->policies, &api_limits,
			   app->metrics, &app->log);
	app->lag = loop_lag_new(app->base, &app->metrics->loop_lag);
	if (!app->api || !app->systemd || !app->lag)
		return start_failed(app, "out of memory");
	store_watch(app->store, on_store_changed, app);
	if (open_report_lines(app) != 0)
		return -1;
	app->http = http_new(app->base, &limits, on_request, app, app->metrics, &app->log);
	if (!app->http)
		return start_failed(app, "the HTTP server cannot be set up");
	store_on_answered(app->store, on_answered, app);
	http_on_handled(app->http, on_handled, app);
	return listen_on_all(app);
}

/* Makes the loop and the handlers of signals. They run in the loop only, when all parts are there.
 */
static int open_signals(struct app *app)
{
	app->base = event_base_new();
	if (!app->base)
		return start_failed(app, "out of memory");
	if (stop_init(app) != 0 || reload_init(app) != 0)
		return start_failed(app, "out of memory");
	return 0;
}

/* --- the whole ------------------------------------------------------------------------ */

static void app_close(struct app *app)
{
	reload_fini(app);
	stop_fini(app);
	if (app->api)
		api_abort(app->api);
	report_lines_free(app->report_lines);
	if (app->store)
		store_on_answered(app->store, NULL, NULL);
	if (app->http)
		http_free(app->http);
	api_free(app->api);
	loop_lag_free(app->lag);
	if (app->store)
		store_watch(app->store, NULL, NULL);
	systemd_free(app->systemd);
	if (app->store && app->stop.end_ms)
		store_end_by(app->store, app->stop.end_ms);
	store_free(app->store);
	sockets_close(&app->sockets);
	app->log.suppressed = NULL;
	if (app->base) {
		/* evdns frees a cancelled look-up in the next turn of the loop. */
		event_base_loop(app->base, EVLOOP_NONBLOCK);
		event_base_free(app->base);
	}
	free(app->metrics);
	if (app->config != app->started)
		config_free(app->config);
	config_free(app->started);
}

/* Blocks SIGHUP until it has a handler: before that it would end the process. */
static void block_hangup(bool block)
{
	sigset_t hangup;

	sigemptyset(&hangup);
	sigaddset(&hangup, SIGHUP);
	sigprocmask(block ? SIG_BLOCK : SIG_UNBLOCK, &hangup, NULL);
}

static int serve(struct app *app)
{
	const char *store;

	assert(app->config); /* CONFIG_RUN and CONFIG_OK */
	store = app->config->store_is_redis ? "redis" : "memory";
	descriptors_raise(app->config, OTHER_DESCRIPTORS);
	/* Before the sockets: who sees a socket may send a signal or change a file of settings. */
	if (open_signals(app) != 0)
		return EXIT_FAILURE;
	block_hangup(false);
	reload_watch_files(app);
	if (open_sockets(app) != 0 || open_parts(app) != 0)
		return EXIT_FAILURE;
	log_info(&app->log, "started", "version=%s store=%s pid=%ld", BREAKERD_VERSION, store,
		 (long)getpid());
	systemd_serving(app->systemd, show_store(app));
	event_base_dispatch(app->base);
	return EXIT_SUCCESS;
}

/* One plain line on stderr, for a person and for the journal. */
static int complain(const struct config_error *error, enum config_status status)
{
	fprintf(stderr, "breakerd: %s\n", error->text);
	systemd_failed(error->text);
	return status == CONFIG_USAGE ? 2 : EXIT_FAILURE;
}

/* --check-config, once the settings are right: checks whether a start could use the state file. */
static int check_state_file(const struct config *config)
{
	struct config_error error = {.text = ""};

	assert(config); /* CONFIG_CHECK and CONFIG_OK */
	if (!keeps_state(config) ||
	    state_path_check(config->state_file, error.text, sizeof(error.text)) == 0)
		return EXIT_SUCCESS;
	return complain(&error, CONFIG_INVALID);
}

int app_run(int argc, char *argv[], char *envp[])
{
	struct app *app;
	enum config_action action = CONFIG_RUN;
	struct config_error error;
	enum config_status status;
	bool served;
	int exit_status = EXIT_SUCCESS;

	block_hangup(true);
	app = calloc(1, sizeof(*app));
	if (!app) {
		fprintf(stderr, "breakerd: out of memory\n");
		return EXIT_FAILURE;
	}
	app->input = (struct config_input){.argc = argc, .argv = argv, .envp = envp};
	log_init(&app->log, LOG_LEVEL_INFO);
	status = config_load(&app->input, &action, &app->config, &error);
	if (action != CONFIG_RUN)
		block_hangup(false); /* closing the terminal may end a run that only prints */
	else
		signal(SIGPIPE, SIG_IGN); /* the log's reader or a client may be gone (signal(7)) */
	app->started = app->config;
	app->input.reload = true; /* from now on */
	app->input.runs_in_memory = app->config && !app->config->store_is_redis;
	if (app->config && action != CONFIG_CHECK_READY) {
		logging_apply(&app->log, app->config);
		config_warn(app->config, &app->input, &app->log);
	}
	if (action == CONFIG_HELP)
		config_print_help(stdout);
	else if (action == CONFIG_VERSION)
		config_print_version(stdout);
	else if (status != CONFIG_OK)
		exit_status = complain(&error, status);
	else if (action == CONFIG_PRINT)
		config_print(app->config, stdout);
	else if (action == CONFIG_CHECK_READY)
		exit_status = check_ready(app->config);
	else if (action == CONFIG_CHECK)
		exit_status = check_state_file(app->config);
	else if (action == CONFIG_RUN)
		exit_status = serve(app);
	served = action == CONFIG_RUN && status == CONFIG_OK && exit_status == EXIT_SUCCESS;
	app_close(app);
	/* After app_close, which logs the last save and what is lost. */
	if (served)
		log_info(&app->log, "stopped", "pid=%ld", (long)getpid());
	log_fini(&app->log);
	free(app);
	return exit_status;
}
