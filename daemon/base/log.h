/*
 * Log lines on stderr: one line an event, `token key=value ...`. Under journald (systemd.exec(5),
 * $JOURNAL_STREAM) each line begins with its priority as <N> (sd-daemon(3)); elsewhere with an
 * RFC 3339 stamp in UTC and the level's name. With log_format = json an event is a JSON object
 * (log_json.h), after the same <N> under journald.
 */
#ifndef BREAKERD_LOG_H
#define BREAKERD_LOG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum log_level {
	LOG_LEVEL_ERROR,
	LOG_LEVEL_WARNING,
	LOG_LEVEL_INFO,
	LOG_LEVEL_DEBUG,
};

/* For tests: gets each whole line without its newline. */
typedef void log_sink_fn(void *arg, enum log_level level, const char *line);

/*
 * How lines get to stderr without waiting for its reader. stderr's O_NONBLOCK flag is not set for
 * that: it belongs to the open file, which is shared with whoever started the daemon.
 */
enum log_output {
	LOG_OUTPUT_POLL,   /* a file, or nothing better: poll(2), then write(2) */
	LOG_OUTPUT_SOCKET, /* the journal: send(2) with MSG_DONTWAIT */
	LOG_OUTPUT_OWN,    /* a pipe or terminal, opened a second time, with O_NONBLOCK */
};

struct log {
	enum log_level level; /* lines above it are dropped */
	int journal;          /* write <N> prefixes */
	bool json;            /* objects in place of text */
	log_sink_fn *sink;    /* NULL: stderr */
	void *sink_arg;
	/* Counts the lines that log_allows held back or that stderr did not take; or NULL. */
	uint64_t *suppressed;
	enum log_output output;
	int own;         /* LOG_OUTPUT_OWN: the descriptor */
	bool cut;        /* stderr took only the beginning of the last line */
	uint64_t missed; /* lines that stderr did not take since it took the last one */
};

/* Starts a log to stderr, and finds out what that is. log_fini closes what log_init opened. */
void log_init(struct log *log, enum log_level level);
void log_fini(struct log *log);

/* The longest line of text, without its newline. A longer one is cut and ends in "...". */
#define LOG_LINE_MAX 2048

/*
 * Writes `token` and then what fmt gives, which is `key=value` pairs. The caller quotes text from
 * outside (log_quote), and uses no key time, level or event. A control byte that gets here all the
 * same becomes '?'. If `log` is NULL nothing is written. errno is left as it was.
 *
 * A line that stderr does not take at once (full, closed, broken) is dropped and counted; before
 * the next line that stderr takes, "suppressed kind=stderr" says how many were dropped. The caller
 * has made sure that SIGPIPE is ignored.
 */
void log_write(struct log *log, enum log_level level, const char *token, const char *fmt, ...)
	__attribute__((format(printf, 4, 5)));

#define log_error(log, ...)   log_write((log), LOG_LEVEL_ERROR, __VA_ARGS__)
#define log_warning(log, ...) log_write((log), LOG_LEVEL_WARNING, __VA_ARGS__)
#define log_info(log, ...)    log_write((log), LOG_LEVEL_INFO, __VA_ARGS__)
/* Debug lines are on hot paths: their arguments are not evaluated when nobody reads them. */
#define log_debug(to, ...)                                                                         \
	do {                                                                                       \
		struct log *debug_log_ = (to);                                                     \
		if (debug_log_ && debug_log_->level >= LOG_LEVEL_DEBUG)                            \
			log_write(debug_log_, LOG_LEVEL_DEBUG, __VA_ARGS__);                       \
	} while (0)

/* A token bucket for lines of one kind, counted in time. Begins as zeros, and then is full. */
struct log_budget {
	int64_t saved_ms;
	int64_t at_ms; /* when saved_ms was computed; monotonic */
};

/* Takes a line's worth of the budget, if there is that much: up to `lines` at once, then one each
 * `each_ms`. */
bool log_budget_take(struct log_budget *budget, unsigned lines, unsigned each_ms);

/*
 * A bound on lines of a kind that clients or others outside could cause many of: LOG_LIMIT_LINES at
 * once, then one each LOG_LIMIT_EACH_MS. Begins as zeros.
 */
#define LOG_LIMIT_LINES   100
#define LOG_LIMIT_EACH_MS 100
struct log_limit {
	struct log_budget budget;
	uint64_t held_back;
};

/*
 * True if a line of this level and kind (its token) may be written now. Before a line that may,
 * logs how many were held back. At level debug every line may.
 */
bool log_allows(struct log *log, struct log_limit *limit, enum log_level level, const char *token);
/* The same, for a kind of which one line in each_ms is enough. */
bool log_allows_one(struct log *log, struct log_limit *limit, enum log_level level,
		    const char *token, unsigned each_ms);

/*
 * Makes text from outside safe for a line: puts it in double quotes, with \" and \\, and \xNN for
 * control bytes and bytes that are no UTF-8; cuts it with "..." if it is too long. The text is
 * returned by value: log_info(log, "x", "key=%s", log_quote(key, len).text);
 */
struct log_text {
	char text[320];
};
struct log_text log_quote(const char *text, size_t len);
/* The same for a string. */
struct log_text log_quote_text(const char *text);

/* "error", "warning", "info", "debug" */
const char *log_level_name(enum log_level level);

#endif
