/* Log lines: see log.h. */
#include "base/log.h"

#include "base/clock.h"
#include "base/log_json.h"
#include "proto/key.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static const struct {
	const char *name;
	const char *prefix; /* sd-daemon(3): <N> is the syslog priority */
} levels[] = {
	[LOG_LEVEL_ERROR] = {"error", "<3>"},
	[LOG_LEVEL_WARNING] = {"warning", "<4>"},
	[LOG_LEVEL_INFO] = {"info", "<6>"},
	[LOG_LEVEL_DEBUG] = {"debug", "<7>"},
};

/* Room for a whole line in either format, with <N>, newline and NUL. */
#define LOG_BYTES_MAX (3 + LOG_JSON_MAX + 2)

const char *log_level_name(enum log_level level)
{
	return levels[level].name;
}

/*
 * systemd.exec(5): $JOURNAL_STREAM is "device:inode" of the stream to the journal. All that a
 * service starts inherits the variable, so it is compared with the descriptor.
 */
static bool stderr_is_journal(void)
{
	const char *stream = getenv("JOURNAL_STREAM");
	struct stat st;
	char ours[48];

	if (!stream || fstat(STDERR_FILENO, &st) != 0)
		return false;
	snprintf(ours, sizeof(ours), "%" PRIuMAX ":%" PRIuMAX, (uintmax_t)st.st_dev,
		 (uintmax_t)st.st_ino);
	return strcmp(stream, ours) == 0;
}

/*
 * Finds out how to write to stderr without waiting. A pipe or a terminal is opened a second time,
 * to have flags of its own. That fails where /proc is missing, or if the pipe belongs to a user
 * that this process no longer is. A regular file is not opened again, as that would write from its
 * start; poll(2) always calls it writable.
 */
static void choose_output(struct log *log)
{
	struct stat st;

	log->own = -1;
	if (fstat(STDERR_FILENO, &st) != 0)
		return;
	if (S_ISSOCK(st.st_mode))
		log->output = LOG_OUTPUT_SOCKET;
	if (!S_ISFIFO(st.st_mode) && !isatty(STDERR_FILENO))
		return;
	log->own = open("/proc/self/fd/2", O_WRONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
	if (log->own >= 0)
		log->output = LOG_OUTPUT_OWN;
}

void log_init(struct log *log, enum log_level level)
{
	int saved = errno;

	*log = (struct log){.level = level, .journal = stderr_is_journal()};
	choose_output(log);
	errno = saved;
}

void log_fini(struct log *log)
{
	if (log->output == LOG_OUTPUT_OWN)
		close(log->own);
	log->output = LOG_OUTPUT_POLL;
}

/* Writes the time in UTC as RFC 3339 has it, with milliseconds. */
static void put_stamp(char out[40])
{
	struct timespec now;
	struct tm tm;
	size_t len;

	clock_gettime(CLOCK_REALTIME, &now);
	gmtime_r(&now.tv_sec, &tm);
	len = strftime(out, 32, "%Y-%m-%dT%H:%M:%S", &tm);
	snprintf(out + len, 40 - len, ".%03ldZ", now.tv_nsec / 1000000);
}

/* A line stays one line even if a caller has not quoted text from outside. */
static void blank_controls(char *text)
{
	for (unsigned char *p = (unsigned char *)text; *p; p++)
		if (*p < 0x20 || *p == 0x7f)
			*p = '?';
}

/* Ends the line, which was cut at len, in "..." without leaving half a UTF-8 sequence. */
static size_t put_ellipsis(char *line, size_t len)
{
	len -= 3;
	while (len > 0 && ((unsigned char)line[len] & 0xc0) == 0x80)
		len--;
	memcpy(line + len, "...", 4);
	return len + 3;
}

/*
 * Makes a whole line of `words`, which is the token with its pairs, without the newline.
 * Returns its length.
 */
static size_t put_whole(const struct log *log, enum log_level level, char *words,
			char line[LOG_BYTES_MAX])
{
	const char *prefix = log->journal ? levels[level].prefix : "";
	size_t head = strlen(prefix), len;
	char stamp[40];

	blank_controls(words);
	strcpy(line, prefix);
	put_stamp(stamp);
	if (log->json)
		return head + log_json(line + head, stamp, levels[level].name, words);
	if (!log->journal)
		head = (size_t)snprintf(line, LOG_BYTES_MAX, "%s %s ", stamp, levels[level].name);
	len = head + (size_t)snprintf(line + head, LOG_BYTES_MAX - head, "%s", words);
	return len > LOG_LINE_MAX ? put_ellipsis(line, LOG_LINE_MAX) : len;
}

static ssize_t write_once(const struct log *log, const char *text, size_t len)
{
	struct pollfd pfd = {.fd = STDERR_FILENO, .events = POLLOUT};

	switch (log->output) {
	case LOG_OUTPUT_SOCKET:
		return send(STDERR_FILENO, text, len, MSG_DONTWAIT | MSG_NOSIGNAL);
	case LOG_OUTPUT_OWN:
		return write(log->own, text, len);
	case LOG_OUTPUT_POLL:
		break;
	}
	/* A pipe is writable if it has room for PIPE_BUF bytes, which no line exceeds. Only
	 * another program that fills it in between can make this write wait. */
	if (poll(&pfd, 1, 0) != 1 || (pfd.revents & POLLNVAL))
		return -1;
	return write(STDERR_FILENO, text, len);
}

/* True if all of it was taken. A terminal or a socket may take the beginning alone. */
static bool put(struct log *log, const char *text, size_t len)
{
	ssize_t n;

	do
		n = write_once(log, text, len);
	while (n < 0 && errno == EINTR);
	if (n > 0)
		log->cut = (size_t)n < len;
	return n == (ssize_t)len;
}

/* Writes what comes before the next line: the newline of one that was cut, and how many lines were
 * missed. False if stderr did not take it. */
static bool put_missed(struct log *log, enum log_level level)
{
	char words[80], line[LOG_BYTES_MAX];
	size_t len;

	if (log->cut && !put(log, "\n", 1))
		return false;
	if (!log->missed)
		return true;
	snprintf(words, sizeof(words), "suppressed kind=stderr lines=%" PRIu64, log->missed);
	len = put_whole(log, level, words, line);
	line[len] = '\n';
	if (!put(log, line, len + 1))
		return false;
	log->missed = 0;
	return true;
}

/* Writes the line, or drops and counts it. Never waits. */
static void put_line(struct log *log, enum log_level level, const char *line, size_t len)
{
	if (put_missed(log, level) && put(log, line, len))
		return;
	log->missed++;
	if (log->suppressed)
		++*log->suppressed;
}

void log_write(struct log *log, enum log_level level, const char *token, const char *fmt, ...)
{
	char words[LOG_LINE_MAX + 2], line[LOG_BYTES_MAX];
	int saved = errno;
	size_t len;
	va_list ap;

	if (!log || level > log->level)
		return;
	len = (size_t)snprintf(words, sizeof(words), "%s ", token);
	if (len < sizeof(words)) {
		va_start(ap, fmt);
		if (vsnprintf(words + len, sizeof(words) - len, fmt, ap) <= 0)
			words[len - 1] = '\0'; /* nothing to say beside the token */
		va_end(ap);
	}
	if (strlen(words) > LOG_LINE_MAX)
		put_ellipsis(words, LOG_LINE_MAX);
	len = put_whole(log, level, words, line);
	if (log->sink) {
		log->sink(log->sink_arg, level, line);
	} else {
		line[len] = '\n';
		put_line(log, level, line, len + 1);
	}
	errno = saved;
}

bool log_budget_take(struct log_budget *budget, unsigned lines, unsigned each_ms)
{
	const int64_t full = (int64_t)lines * each_ms;
	int64_t now = clock_ms();

	budget->saved_ms += budget->at_ms ? now - budget->at_ms : full;
	budget->at_ms = now;
	if (budget->saved_ms > full)
		budget->saved_ms = full;
	if (budget->saved_ms < each_ms)
		return false;
	budget->saved_ms -= each_ms;
	return true;
}

static bool allows(struct log *log, struct log_limit *limit, enum log_level level,
		   const char *token, unsigned lines, unsigned each_ms)
{
	if (!log || level > log->level)
		return false;
	if (!log_budget_take(&limit->budget, lines, each_ms) && log->level < LOG_LEVEL_DEBUG) {
		limit->held_back++;
		if (log->suppressed)
			++*log->suppressed;
		return false;
	}
	if (limit->held_back)
		log_write(log, level, "suppressed", "kind=%s lines=%" PRIu64, token,
			  limit->held_back);
	limit->held_back = 0;
	return true;
}

bool log_allows(struct log *log, struct log_limit *limit, enum log_level level, const char *token)
{
	return allows(log, limit, level, token, LOG_LIMIT_LINES, LOG_LIMIT_EACH_MS);
}

bool log_allows_one(struct log *log, struct log_limit *limit, enum log_level level,
		    const char *token, unsigned each_ms)
{
	return allows(log, limit, level, token, 1, each_ms);
}

/* Writes the character at p to out, escaped if need be. Returns the bytes written. */
static size_t quote_one(const unsigned char *p, size_t n, char out[8])
{
	if (n == 1 && (*p == '"' || *p == '\\')) {
		out[0] = '\\';
		out[1] = (char)*p;
		return 2;
	}
	/* C0 and DEL; C1 (U+0080 to U+009F) moves some terminals too */
	if (n == 0 || *p < 0x20 || *p == 0x7f)
		return (size_t)snprintf(out, 8, "\\x%02x", *p);
	memcpy(out, p, n);
	return n;
}

struct log_text log_quote(const char *text, size_t len)
{
	const unsigned char *p = (const unsigned char *)text;
	const size_t end = sizeof(((struct log_text *)0)->text) - sizeof("\"...");
	struct log_text q;
	size_t at = 0;

	q.text[at++] = '"';
	while (len > 0) {
		char one[8];
		size_t n = utf8_sequence(p, len), took = n ? n : 1, put;

		if (n == 2 && p[0] == 0xc2 && p[1] < 0xa0) /* C1 */
			n = 0, took = 1;
		put = quote_one(p, n, one);
		if (at + put > end)
			break;
		memcpy(q.text + at, one, put);
		at += put;
		p += took;
		len -= took;
	}
	strcpy(q.text + at, len > 0 ? "\"..." : "\"");
	return q;
}

struct log_text log_quote_text(const char *text)
{
	return log_quote(text, strlen(text));
}
