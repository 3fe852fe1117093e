/*
 * Reads the state file.
 */
#include "proto/breaker_member.h"
#include "store/packed_breaker.h"
#include "store/state_file_private.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/*
 * Sets *line to the next line, newline included. Returns its length; 0 at the end of the file; -1,
 * with words in *why, if it has no newline or is too long, or if the read failed.
 */
static ssize_t next_line(struct state_stream *s, const char **line, const char **why)
{
	for (;;) {
		char *begin = s->buffer + s->begin;
		size_t have = s->end - s->begin;
		char *newline = memchr(begin, '\n', have);
		ssize_t n;

		if (newline) {
			*line = begin;
			s->begin += (size_t)(newline + 1 - begin);
			return newline + 1 - begin;
		}
		if (s->at_end && have == 0)
			return 0;
		*why = s->at_end ? "it ends within a line" : "a line is too long";
		if (s->at_end || have > STATE_LINE_ROOM)
			return -1;
		memmove(s->buffer, begin, have);
		s->begin = 0;
		s->end = have;
		n = read(s->fd, s->buffer + have, STATE_BUFFER_SIZE - have);
		*why = strerror(errno);
		if (n < 0 && errno != EINTR)
			return -1;
		s->at_end = n == 0;
		s->end += n > 0 ? (size_t)n : 0;
	}
}

struct line {
	int64_t wall_ms;
	char key[KEY_MAX];
	size_t key_len;
	struct circuit circuit;
	unsigned char member[PACKED_BREAKER_MAX]; /* of the circuit */
	size_t member_len;
	bool has_steps;
	bool in_doubt; /* the steps may have been handed over */
	struct state_steps steps;
};

/* Reads digits up to a space. Returns what stands behind it; NULL if it is something else. */
static const char *take_stamp(const char *p, const char *end, int64_t *stamp)
{
	const char *begin = p;

	for (*stamp = 0; p < end && *p >= '0' && *p <= '9'; p++) {
		*stamp = *stamp * 10 + (*p - '0');
		if (*stamp > CIRCUIT_INT_MAX)
			return NULL;
	}
	return p > begin && p < end && *p == ' ' ? p + 1 : NULL;
}

/* A member of an unknown version is ignored. */
static bool parse_value(const char *text, size_t len, struct line *line)
{
	const char *member;
	struct breaker b;
	size_t member_len;

	if (circuit_json_decode_member(text, len, &line->circuit, &member, &member_len) !=
	    CIRCUIT_STORED_SOUND)
		return false;
	if (member && breaker_member_decode(member, member_len, &b))
		line->member_len = packed_breaker_write(line->member, &b);
	return true;
}

static bool parse_line(const char *text, size_t len, struct line *line)
{
	const char *end = text + len - 1; /* the newline */
	const char *key, *space;
	long key_len;

	line->member_len = 0;
	line->in_doubt = len > strlen(STATE_IN_DOUBT) &&
			 memcmp(text, STATE_IN_DOUBT, strlen(STATE_IN_DOUBT)) == 0;
	line->has_steps = line->in_doubt || (len > strlen(STATE_STEP) &&
					     memcmp(text, STATE_STEP, strlen(STATE_STEP)) == 0);
	key = take_stamp(text + (line->has_steps ? strlen(STATE_STEP) : 0), end, &line->wall_ms);
	space = key ? memchr(key, ' ', (size_t)(end - key)) : NULL;

	if (!space)
		return false;
	key_len = percent_decode(key, (size_t)(space - key), line->key, KEY_MAX, false);
	if (key_len < 0 || key_check(line->key, (size_t)key_len) != NULL)
		return false;
	line->key_len = (size_t)key_len;
	if (line->has_steps) {
		if (!state_steps_decode(space, (size_t)(end - space), &line->steps))
			return false;
		line->circuit = line->steps.now;
		return true;
	}
	space++;
	return parse_value(space, (size_t)(end - space), line);
}

struct restore {
	struct circuit_table *table;
	struct circuit_queues *queues; /* or NULL */
	bool folding;
	size_t circuits; /* how many were to be put into the table */
	int64_t ttl_ms;
	const struct state_moment *now;
	struct state_file_report *report;
	int64_t last; /* the last write in the table: its lists need them in order */
};

static enum circuit_table_status restore_line(struct restore *r, const struct line *line)
{
	int64_t age = r->now->wall_ms - line->wall_ms;
	int64_t written = r->now->table_ms - (age > 0 ? age : 0);

	r->circuits++;
	if (age >= r->ttl_ms && packed_breaker_matters_until(line->member, line->member_len,
							     r->now->wall_ms) <= r->now->wall_ms) {
		r->report->expired++;
		return TABLE_OK;
	}
	if (written < r->last)
		written = r->last;
	r->last = written;
	return circuit_table_write_member(r->table, NULL, line->key, line->key_len, &line->circuit,
					  line->member, line->member_len, written);
}

static enum circuit_table_status restore_any(struct restore *r, const struct line *line)
{
	struct circuit_queue *q;

	if (!line->has_steps) {
		r->report->foreign += r->queues != NULL;
		return r->queues ? TABLE_OK : restore_line(r, line);
	}
	r->report->steps++;
	if (r->queues) {
		q = circuit_queue_get(r->queues, line->key, line->key_len, NULL, SIZE_MAX);
		if (!q)
			return TABLE_NO_MEMORY;
		state_steps_restore(q, &line->steps, r->folding || line->in_doubt);
		circuit_queue_wait(q, QUEUE_IN_READY);
	}
	return line->steps.exists ? restore_line(r, line) : TABLE_OK;
}

static bool restored_before(struct restore *r, const struct line *line)
{
	if (r->queues && circuit_queue_find(r->queues, line->key, line->key_len))
		return true;
	return circuit_table_find(r->table, line->key, line->key_len, r->now->table_ms) != NULL;
}

/* False, with words in why: it is no state file, or one of a later version. */
static bool read_header(struct state_stream *s, char why[256])
{
	const char *line = NULL, *words = "";
	ssize_t len = next_line(s, &line, &words);

	if (len == (ssize_t)strlen(STATE_HEADER) &&
	    (memcmp(line, STATE_HEADER, strlen(STATE_HEADER)) == 0 ||
	     memcmp(line, STATE_HEADER2, strlen(STATE_HEADER2)) == 0)) {
		state_stream_sum(s, line, strlen(STATE_HEADER));
		return true;
	}
	if (len > (ssize_t)strlen(STATE_MAGIC) + 1 && len < 32 &&
	    memcmp(line, STATE_MAGIC, strlen(STATE_MAGIC)) == 0)
		snprintf(why, 256, "its version is %.*s, and this breakerd reads 1 and 2",
			 (int)(len - 1) - (int)strlen(STATE_MAGIC), line + strlen(STATE_MAGIC));
	else
		snprintf(why, 256, "it does not begin with \"" STATE_MAGIC "1\"");
	return false;
}

static bool read_end(struct state_stream *s, const char *line, size_t len, char why[256])
{
	char expected[64];
	const char *ignored;

	if (len != state_stream_end(s, expected) || memcmp(line, expected, len) != 0) {
		snprintf(why, 256,
			 "the number of circuits or the checksum in the last line is wrong");
		return false;
	}
	if (next_line(s, &line, &ignored) == 0)
		return true;
	snprintf(why, 256, "there is more behind the last line");
	return false;
}

static enum state_file_status read_stream(struct state_stream *s, struct restore *r)
{
	char *why = r->report->why;
	const char *text = NULL, *words = "";
	struct line line;
	ssize_t len;

	if (!read_header(s, why))
		return STATE_FILE_DAMAGED;
	while ((len = next_line(s, &text, &words)) > 0) {
		if (len > 4 && memcmp(text, "end ", 4) == 0)
			return read_end(s, text, (size_t)len, why) ? STATE_FILE_READ
								   : STATE_FILE_DAMAGED;
		state_stream_sum(s, text, (size_t)len);
		if (s->circuits == 0 && !r->folding && len == (ssize_t)strlen(STATE_FOLDING) &&
		    memcmp(text, STATE_FOLDING, (size_t)len) == 0) {
			r->folding = true;
			continue;
		}
		s->circuits++;
		if (!parse_line(text, (size_t)len, &line)) {
			snprintf(why, 256, "line %zu is no circuit", s->circuits + 1);
			return STATE_FILE_DAMAGED;
		}
		if (restored_before(r, &line)) {
			snprintf(why, 256, "the key in line %zu was there before", s->circuits + 1);
			return STATE_FILE_DAMAGED;
		}
		if (restore_any(r, &line) == TABLE_NO_MEMORY) {
			snprintf(why, 256, "out of memory");
			return STATE_FILE_FAILED;
		}
	}
	snprintf(why, 256, "%s", len < 0 ? words : "its last line is missing");
	return STATE_FILE_DAMAGED;
}

static void clear(struct circuit_table *t)
{
	struct circuit_entry *e;
	struct circuit_walk walk;

	for (;;) {
		circuit_walk_begin(&walk, t);
		e = circuit_walk_next(&walk);
		if (!e)
			return;
		circuit_table_remove(t, e);
	}
}

/* A descriptor, or -1 with *status set. */
static int open_to_read(const char *path, enum state_file_status *status, char why[256])
{
	/* O_NONBLOCK: opening a pipe must not wait. */
	int fd = open(path, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
	struct stat st;

	*status = errno == ENOENT ? STATE_FILE_NONE : STATE_FILE_FAILED;
	if (fd < 0) {
		snprintf(why, 256, "%s", strerror(errno));
		return -1;
	}
	if (fstat(fd, &st) == 0 && S_ISREG(st.st_mode))
		return fd;
	/* A mistake in the configuration, no damage: a directory or a device is not renamed. */
	*status = STATE_FILE_FAILED;
	snprintf(why, 256, "it is no regular file");
	close(fd);
	return -1;
}

enum state_file_status state_file_read(const char *path, struct circuit_table *t,
				       struct circuit_queues *queues, int64_t ttl_ms,
				       const struct state_moment *now,
				       struct state_file_report *report)
{
	struct restore r = {
		.table = t,
		.queues = queues,
		.ttl_ms = ttl_ms,
		.now = now,
		.report = report,
		.last = INT64_MIN,
	};
	struct state_stream s = {0};
	enum state_file_status status;

	*report = (struct state_file_report){0};
	s.fd = open_to_read(path, &status, report->why);
	if (s.fd < 0)
		return status;
	s.buffer = malloc(STATE_BUFFER_SIZE);
	if (s.buffer) {
		status = read_stream(&s, &r);
	} else {
		status = STATE_FILE_FAILED;
		snprintf(report->why, sizeof(report->why), "out of memory");
	}
	free(s.buffer);
	close(s.fd);
	if (status != STATE_FILE_READ) {
		clear(t);
		if (queues)
			circuit_queues_clear(queues);
		return status;
	}
	report->restored = circuit_table_count(t);
	report->dropped = r.circuits - report->expired - report->restored;
	return status;
}
