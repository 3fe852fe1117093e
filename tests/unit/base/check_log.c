#include "base/log.h"
#include "suite.h"

#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <regex.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

/* The last line that the log gave to its sink. */
static char last[LOG_LINE_MAX + 64];
static int lines;

static void keep(void *arg, enum log_level level, const char *line)
{
	(void)arg;
	(void)level;
	lines++;
	snprintf(last, sizeof(last), "%s", line);
}

static struct log sink_log(enum log_level level, int journal)
{
	lines = 0;
	last[0] = '\0';
	return (struct log){.level = level, .journal = journal, .sink = keep};
}

static bool matches(const char *text, const char *pattern)
{
	regex_t re;
	bool yes;

	ck_assert_int_eq(regcomp(&re, pattern, REG_EXTENDED | REG_NOSUB), 0);
	yes = regexec(&re, text, 0, NULL, 0) == 0;
	regfree(&re);
	return yes;
}

#define STAMP "[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\\.[0-9]{3}Z"

START_TEST(a_line_has_stamp_level_token_and_pairs)
{
	struct log log = sink_log(LOG_LEVEL_INFO, 0);

	log_info(&log, "listening", "addr=%s", "127.0.0.1:8747");
	ck_assert_msg(matches(last, "^" STAMP " info listening addr=127\\.0\\.0\\.1:8747$"), "%s",
		      last);
}
END_TEST

START_TEST(the_journal_gets_a_priority_and_no_stamp)
{
	struct log log = sink_log(LOG_LEVEL_DEBUG, 1);

	log_error(&log, "a", "x=1");
	ck_assert_str_eq(last, "<3>a x=1");
	log_warning(&log, "a", "x=1");
	ck_assert_str_eq(last, "<4>a x=1");
	log_info(&log, "a", "x=1");
	ck_assert_str_eq(last, "<6>a x=1");
	log_debug(&log, "a", "x=1");
	ck_assert_str_eq(last, "<7>a x=1");
}
END_TEST

START_TEST(lines_above_the_level_are_dropped)
{
	struct log log = sink_log(LOG_LEVEL_WARNING, 1);
	int evaluated = 0;

	log_error(&log, "a", "x=1");
	log_warning(&log, "a", "x=1");
	ck_assert_int_eq(lines, 2);
	log_info(&log, "a", "x=1");
	log_debug(&log, "a", "x=%d", ++evaluated);
	ck_assert_int_eq(lines, 2);
	ck_assert_int_eq(evaluated, 0);
	log_error((struct log *)NULL, "a", "x=1");
	ck_assert_int_eq(lines, 2);
}
END_TEST

START_TEST(no_pairs_leave_no_space_behind_the_token)
{
	struct log log = sink_log(LOG_LEVEL_INFO, 1);

	log_info(&log, "ready", "%s", "");
	ck_assert_str_eq(last, "<6>ready");
}
END_TEST

START_TEST(a_long_line_is_cut_between_characters)
{
	struct log log = sink_log(LOG_LEVEL_INFO, 1);
	char text[2 * LOG_LINE_MAX + 1];

	/* Characters of two bytes: with one of the two shifts the cut would split one. */
	for (size_t i = 0; i < sizeof(text) - 1; i += 2)
		memcpy(text + i, "\xc3\xa9", 2);
	text[sizeof(text) - 1] = '\0';
	for (int shift = 0; shift < 2; shift++) {
		size_t len;

		log_info(&log, shift ? "ab" : "a", "%s", text);
		len = strlen(last);
		ck_assert_uint_le(len, LOG_LINE_MAX);
		ck_assert_uint_ge(len, LOG_LINE_MAX - 4);
		ck_assert_str_eq(last + len - 5, "\xc3\xa9...");
	}
}
END_TEST

START_TEST(a_line_as_long_as_allowed_is_whole)
{
	struct log log = sink_log(LOG_LEVEL_INFO, 1);
	char text[LOG_LINE_MAX + 1];

	memset(text, 'x', sizeof(text));
	text[LOG_LINE_MAX - strlen("<6>a ")] = '\0';
	log_info(&log, "a", "%s", text);
	ck_assert_uint_eq(strlen(last), LOG_LINE_MAX);
	ck_assert_ptr_null(strstr(last, "..."));
}
END_TEST

START_TEST(a_control_byte_never_reaches_the_line)
{
	struct log log = sink_log(LOG_LEVEL_INFO, 1);

	log_info(&log, "a", "why=%s", "one\ntwo\x1b[2J\x7f");
	ck_assert_str_eq(last, "<6>a why=one?two?[2J?");
}
END_TEST

START_TEST(errno_survives)
{
	struct log log = sink_log(LOG_LEVEL_INFO, 0);

	errno = ENOENT;
	log_info(&log, "a", "x=1");
	ck_assert_int_eq(errno, ENOENT);
}
END_TEST

#define ck_assert_quoted(in, want) ck_assert_str_eq(log_quote((in), sizeof(in) - 1).text, (want))

START_TEST(quoting)
{
	ck_assert_quoted("", "\"\"");
	ck_assert_quoted("/api/users", "\"/api/users\"");
	ck_assert_quoted("a\"b\\c", "\"a\\\"b\\\\c\"");
	ck_assert_quoted("a\nb\0c\x7f", "\"a\\x0ab\\x00c\\x7f\"");
	ck_assert_quoted("\xd0\xba\xe2\x82\xac\xf0\x9f\x98\x80",
			 "\"\xd0\xba\xe2\x82\xac\xf0\x9f\x98\x80\"");
	ck_assert_quoted("\xff", "\"\\xff\"");
	ck_assert_quoted("\xd0", "\"\\xd0\"");                   /* cut short */
	ck_assert_quoted("\xc0\xaf", "\"\\xc0\\xaf\"");          /* overlong */
	ck_assert_quoted("\xed\xa0\x80", "\"\\xed\\xa0\\x80\""); /* a surrogate */
	ck_assert_quoted("\xf4\x90\x80\x80", "\"\\xf4\\x90\\x80\\x80\"");
	ck_assert_quoted("\xc2\x9b", "\"\\xc2\\x9b\""); /* C1: a terminal's CSI */
}
END_TEST

START_TEST(quoting_cuts_at_the_room)
{
	char text[1024];
	struct log_text q;

	memset(text, 'x', sizeof(text));
	q = log_quote(text, sizeof(text));
	ck_assert_uint_lt(strlen(q.text), sizeof(q.text));
	ck_assert_uint_gt(strlen(q.text), 300);
	ck_assert_str_eq(q.text + strlen(q.text) - 5, "x\"...");
	memset(text, '\n', sizeof(text));
	q = log_quote(text, sizeof(text));
	ck_assert_str_eq(q.text + strlen(q.text) - 8, "\\x0a\"...");
	q = log_quote("\xf0\x9f\x98\x80", 4);
	ck_assert_str_eq(q.text, "\"\xf0\x9f\x98\x80\"");
}
END_TEST

START_TEST(level_names)
{
	ck_assert_str_eq(log_level_name(LOG_LEVEL_ERROR), "error");
	ck_assert_str_eq(log_level_name(LOG_LEVEL_WARNING), "warning");
	ck_assert_str_eq(log_level_name(LOG_LEVEL_INFO), "info");
	ck_assert_str_eq(log_level_name(LOG_LEVEL_DEBUG), "debug");
}
END_TEST

/* Replaces stderr by a pipe. Check forks for each test, so no other test is affected. */
static int pipe_for_stderr(void)
{
	int fds[2];

	ck_assert_int_eq(pipe2(fds, O_NONBLOCK), 0);
	ck_assert_int_ge(dup2(fds[1], STDERR_FILENO), 0);
	close(fds[1]);
	return fds[0];
}

START_TEST(the_journal_is_known_by_device_and_inode)
{
	struct log log;
	struct stat st;
	char stream[64];

	pipe_for_stderr();
	ck_assert_int_eq(fstat(STDERR_FILENO, &st), 0);
	snprintf(stream, sizeof(stream), "%lu:%lu", (unsigned long)st.st_dev,
		 (unsigned long)st.st_ino);
	setenv("JOURNAL_STREAM", stream, 1);
	log_init(&log, LOG_LEVEL_INFO);
	ck_assert(log.journal);

	/* JOURNAL_STREAM inherited by a process whose stderr is something else. */
	pipe_for_stderr();
	log_init(&log, LOG_LEVEL_INFO);
	ck_assert(!log.journal);
	unsetenv("JOURNAL_STREAM");
	log_init(&log, LOG_LEVEL_INFO);
	ck_assert(!log.journal);
	setenv("JOURNAL_STREAM", "", 1);
	log_init(&log, LOG_LEVEL_INFO);
	ck_assert(!log.journal);
}
END_TEST

START_TEST(stderr_gets_whole_lines)
{
	struct log log;
	char got[256];
	ssize_t n;
	int fd = pipe_for_stderr();

	unsetenv("JOURNAL_STREAM");
	log_init(&log, LOG_LEVEL_INFO);
	log_info(&log, "one", "n=%d", 1);
	n = read(fd, got, sizeof(got) - 1);
	ck_assert_int_gt(n, 0);
	got[n] = '\0';
	ck_assert_msg(matches(got, "^" STAMP " info one n=1\n$"), "%s", got);
}
END_TEST

/* Replaces stderr by the second end. Both ends are blocking. */
static int blocking_stderr(int ends[2])
{
	ck_assert_int_ge(dup2(ends[1], STDERR_FILENO), 0);
	close(ends[1]);
	unsetenv("JOURNAL_STREAM");
	alarm(20); /* ends the test if a write blocks */
	return ends[0];
}

/* Reads up to `len` bytes of what has arrived. */
static size_t take(int fd, char *out, size_t len)
{
	struct pollfd pfd = {.fd = fd, .events = POLLIN};
	size_t got = 0;

	while (got < len && poll(&pfd, 1, 0) == 1) {
		ssize_t n = read(fd, out + got, len - got);

		if (n <= 0)
			break;
		got += (size_t)n;
	}
	return got;
}

/* While nobody reads, lines are dropped and counted. Once somebody reads, all lines that come are
 * whole, and the log says how many are missing. */
static void full_stderr(int fd)
{
	static char got[4 << 20];
	uint64_t suppressed = 0, told = 0;
	unsigned written = 0;
	struct log log;
	char *line, *rest;
	size_t len;

	log_init(&log, LOG_LEVEL_INFO);
	log.suppressed = &suppressed;
	for (int i = 0; i < 100000; i++)
		log_info(&log, "flood", "i=%d", i);
	ck_assert_uint_gt(suppressed, 0);
	ck_assert_int_eq(fcntl(STDERR_FILENO, F_GETFL) & O_NONBLOCK, 0);
	len = take(fd, got, sizeof(got) / 2);
	log_info(&log, "flood", "i=%d", 100000);
	len += take(fd, got + len, sizeof(got) / 2);
	got[len] = '\0';
	ck_assert_int_eq(got[len - 1], '\n');
	for (line = strtok_r(got, "\r\n", &rest); line; line = strtok_r(NULL, "\r\n", &rest)) {
		const char *missed = strstr(line, "kind=stderr lines=");

		written += matches(line, "^" STAMP " info flood i=[0-9]+$");
		if (missed)
			told += strtoull(missed + strlen("kind=stderr lines="), NULL, 10);
	}
	ck_assert_uint_eq(told, suppressed);
	ck_assert_uint_eq(written + suppressed, 100001);
	log_fini(&log);
}

START_TEST(a_full_pipe_loses_lines_and_blocks_nobody)
{
	int ends[2];

	ck_assert_int_eq(pipe(ends), 0);
	full_stderr(blocking_stderr(ends));
}
END_TEST

START_TEST(so_does_a_full_socket)
{
	int ends[2];

	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
	full_stderr(blocking_stderr(ends));
}
END_TEST

/* A pipe that cannot be opened a second time: poll(2) tells whether it has room. */
START_TEST(so_does_a_full_pipe_of_another_user)
{
	struct log log = {.level = LOG_LEVEL_INFO, .output = LOG_OUTPUT_POLL};
	uint64_t suppressed = 0;
	int ends[2];

	ck_assert_int_eq(pipe(ends), 0);
	blocking_stderr(ends);
	log.suppressed = &suppressed;
	for (int i = 0; i < 100000; i++)
		log_info(&log, "flood", "i=%d", i);
	ck_assert_uint_gt(suppressed, 90000);
}
END_TEST

START_TEST(a_terminal_that_nobody_reads_blocks_nobody)
{
	uint64_t suppressed = 0;
	struct log log;
	int ends[2];

	ends[0] = posix_openpt(O_RDWR | O_NOCTTY);
	ck_assert_int_ge(ends[0], 0);
	ck_assert_int_eq(grantpt(ends[0]) | unlockpt(ends[0]), 0);
	ends[1] = open(ptsname(ends[0]), O_RDWR | O_NOCTTY);
	ck_assert_int_ge(ends[1], 0);
	blocking_stderr(ends);
	log_init(&log, LOG_LEVEL_INFO);
	log.suppressed = &suppressed;
	for (int i = 0; i < 20000; i++)
		log_info(&log, "flood", "i=%d", i);
	ck_assert_uint_gt(suppressed, 0);
	log_fini(&log);
}
END_TEST

START_TEST(a_closed_stderr_is_no_matter)
{
	struct log log;
	int fd = pipe_for_stderr();
	uint64_t suppressed = 0;

	unsetenv("JOURNAL_STREAM");
	log_init(&log, LOG_LEVEL_INFO);
	log.suppressed = &suppressed;
	close(fd);
	signal(SIGPIPE, SIG_IGN);
	log_info(&log, "nobody", "reads=%d", 0);
	log_fini(&log);
	close(STDERR_FILENO);
	log_init(&log, LOG_LEVEL_INFO);
	log.suppressed = &suppressed;
	log_info(&log, "nobody", "reads=%d", 0);
	ck_assert_uint_eq(suppressed, 2);
	log_fini(&log);
}
END_TEST

START_TEST(a_flood_is_held_back_and_counted)
{
	struct log log = sink_log(LOG_LEVEL_INFO, 1);
	struct log_limit limit = {0}, other = {0};
	uint64_t suppressed = 0;
	int written = 0;

	log.suppressed = &suppressed;
	for (int i = 0; i < 1000; i++)
		written += log_allows(&log, &limit, LOG_LEVEL_INFO, "flood");
	/* The loop takes time, in which the limit allows a few more. */
	ck_assert_int_ge(written, LOG_LIMIT_LINES);
	ck_assert_int_le(written, LOG_LIMIT_LINES + 20);
	ck_assert_uint_eq(suppressed, 1000 - (unsigned)written);
	ck_assert_int_eq(lines, written > LOG_LIMIT_LINES);

	/* Another kind of line has a limit of its own. */
	ck_assert(log_allows(&log, &other, LOG_LEVEL_INFO, "other"));

	/* After LOG_LIMIT_EACH_MS the log says how many were held back and allows one line. */
	suppressed = limit.held_back;
	ck_assert_uint_gt(suppressed, 0);
	limit.budget.at_ms -= LOG_LIMIT_EACH_MS;
	ck_assert(log_allows(&log, &limit, LOG_LEVEL_INFO, "flood"));
	char expected[80];
	snprintf(expected, sizeof(expected), "<6>suppressed kind=flood lines=%llu",
		 (unsigned long long)suppressed);
	ck_assert_str_eq(last, expected);

	/* After a long time it allows LOG_LIMIT_LINES again, and no more. */
	limit.budget.at_ms -= 3600 * 1000;
	written = 0;
	for (int i = 0; i < 1000; i++)
		written += log_allows(&log, &limit, LOG_LEVEL_INFO, "flood");
	ck_assert_int_le(written, LOG_LIMIT_LINES + 20);
}
END_TEST

START_TEST(a_limit_counts_only_what_would_be_written)
{
	struct log log = sink_log(LOG_LEVEL_WARNING, 1);
	struct log_limit limit = {0};
	uint64_t suppressed = 0;

	log.suppressed = &suppressed;
	for (int i = 0; i < 1000; i++)
		ck_assert(!log_allows(&log, &limit, LOG_LEVEL_INFO, "x"));
	ck_assert_uint_eq(suppressed, 0);
	ck_assert(log_allows(&log, &limit, LOG_LEVEL_WARNING, "x"));

	/* At level debug nothing is limited ... */
	log.level = LOG_LEVEL_DEBUG;
	for (int i = 0; i < 1000; i++)
		ck_assert(log_allows(&log, &limit, LOG_LEVEL_INFO, "x"));
	ck_assert_uint_eq(suppressed, 0);
	/* ... and those lines are not counted against the limit afterwards. */
	log.level = LOG_LEVEL_WARNING;
	limit.budget.at_ms -= LOG_LIMIT_EACH_MS;
	ck_assert(log_allows(&log, &limit, LOG_LEVEL_WARNING, "x"));
	ck_assert(!log_allows(NULL, &limit, LOG_LEVEL_ERROR, "x"));
}
END_TEST

int main(void)
{
	Suite *s = suite_create("log");
	TCase *tc = tcase_create("log");

	tcase_set_timeout(tc, 30);

	tcase_add_test(tc, a_line_has_stamp_level_token_and_pairs);
	tcase_add_test(tc, the_journal_gets_a_priority_and_no_stamp);
	tcase_add_test(tc, lines_above_the_level_are_dropped);
	tcase_add_test(tc, no_pairs_leave_no_space_behind_the_token);
	tcase_add_test(tc, a_long_line_is_cut_between_characters);
	tcase_add_test(tc, a_line_as_long_as_allowed_is_whole);
	tcase_add_test(tc, a_control_byte_never_reaches_the_line);
	tcase_add_test(tc, errno_survives);
	tcase_add_test(tc, quoting);
	tcase_add_test(tc, quoting_cuts_at_the_room);
	tcase_add_test(tc, level_names);
	tcase_add_test(tc, the_journal_is_known_by_device_and_inode);
	tcase_add_test(tc, stderr_gets_whole_lines);
	tcase_add_test(tc, a_full_pipe_loses_lines_and_blocks_nobody);
	tcase_add_test(tc, so_does_a_full_socket);
	tcase_add_test(tc, so_does_a_full_pipe_of_another_user);
	tcase_add_test(tc, a_terminal_that_nobody_reads_blocks_nobody);
	tcase_add_test(tc, a_closed_stderr_is_no_matter);
	tcase_add_test(tc, a_flood_is_held_back_and_counted);
	tcase_add_test(tc, a_limit_counts_only_what_would_be_written);
	suite_add_tcase(s, tc);
	return suite_run(s);
}
