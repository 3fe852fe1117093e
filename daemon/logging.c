/* The log's settings: see logging.h. */
#include "logging.h"

#include <event2/event.h>

/* Logs a warning of libevent's. By itself libevent writes it to stderr, and waits if that is full.
 */
static void write_words(int severity, const char *words, bool json)
{
	struct log log;

	log_init(&log, LOG_LEVEL_WARNING);
	log.json = json;
	log_write(&log, severity >= EVENT_LOG_ERR ? LOG_LEVEL_ERROR : LOG_LEVEL_WARNING, "libevent",
		  "words=%s", log_quote_text(words).text);
	log_fini(&log);
}

/* There are two callbacks because libevent gives them no argument. */
static void on_words(int severity, const char *words)
{
	write_words(severity, words, false);
}

static void on_words_json(int severity, const char *words)
{
	write_words(severity, words, true);
}

void logging_apply(struct log *log, const struct config *config)
{
	log->level = config->log_level;
	log->json = config->log_json;
	event_set_log_callback(config->log_json ? on_words_json : on_words);
}
