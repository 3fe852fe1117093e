#include "store/state_file.h"

#include "base/siphash.h"
#include "proto/breaker_member.h"
#include "proto/circuit_json.h"
#include "proto/key.h"
#include "store/packed_breaker.h"
#include "store/state_steps.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <libgen.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define MAGIC   "breakerd-state "
#define HEADER  MAGIC "1\n"
#define HEADER2 MAGIC "2\n" /* with steps */
#define FOLDING "folding\n" /* of earlier versions: all lines count as IN_DOUBT */
/* Both have the same length. */
#define STEP     "step "
#define IN_DOUBT "fold "

/* Room for any line: word, stamp, key with each byte escaped, snapshot or steps, spaces, newline.
 */
#define VALUE_MAX                                                                                  \
	((int)STATE_STEPS_MAX > (int)CIRCUIT_JSON_MEMBER_MAX ? (int)STATE_STEPS_MAX                \
							     : (int)CIRCUIT_JSON_MEMBER_MAX)
#define LINE_ROOM   (5 + 20 + 3 * KEY_MAX + VALUE_MAX + 3)
#define BUFFER_SIZE ((size_t)256 * 1024)

/* A file that is written or read, with the checksum of its lines so far. */
struct stream {
	int fd;
	struct siphash_key sum; /* k0 is the checksum so far, k1 stays 0 */
	size_t circuits;
	char *buffer;
	size_t begin, end; /* of what is in the buffer */
	bool at_end;       /* reading: all of the file is in the buffer */
};

static void sum_line(struct stream *s, const char *line, size_t len)
{
	s->sum.k0 = siphash(&s->sum, line, len);
}

static size_t end_line(const struct stream *s, char out[64])
{
	return (size_t)snprintf(out, 64, "end %zu %016" PRIx64 "\n", s->circuits, s->sum.k0);
}

/* --- writing */

bool state_file_tmp(char *out, size_t size, const char *path)
{
	return (size_t)snprintf(out, size, "%s.tmp", path) < size;
}

static int flush(struct stream *s)
{
	while (s->begin < s->end) {
		ssize_t n = write(s->fd, s->buffer + s->begin, s->end - s->begin);

		if (n < 0 && errno != EINTR)
			return -1;
		if (n > 0)
			s->begin += (size_t)n;
	}
	s->begin = s->end = 0;
	return 0;
}

static char *put_key(char *to, const char *key, size_t len)
{
	static const char hex[] = "0123456789ABCDEF";

	for (size_t i = 0; i < len; i++) {
		unsigned char c = (unsigned char)key[i];

		if (c > ' ' && c != '%' && c != 0x7f) {
			*to++ = (char)c;
			continue;
		}
		*to++ = '%';
		*to++ = hex[c >> 4];
		*to++ = hex[c & 15];
	}
	return to;
}

/* Where the next line is to be put; NULL if the lines before it cannot be written. */
static char *line_begin(struct stream *s)
{
	if (BUFFER_SIZE - s->end < LINE_ROOM && flush(s) != 0)
		return NULL;
	return s->buffer + s->end;
}

/* Ends the line before `to`. */
static void line_end(struct stream *s, const char *to)
{
	size_t len = (size_t)(to - (s->buffer + s->end));

	sum_line(s, s->buffer + s->end, len);
	s->end += len;
}

static void put_words(struct stream *s, const char *words)
{
	char *to = s->buffer + s->end;

	memcpy(to, words, strlen(words));
	line_end(s, to + strlen(words));
}

static char *put_value(char *to, const struct circuit_entry *e)
{
	const struct circuit *c = circuit_entry_get(e);
	char text[BREAKER_TEXT_MAX];
	struct breaker b;
	size_t len;
	const unsigned char *member = circuit_entry_member(e, &len);

	if (len == 0)
		return to + circuit_json_encode(to, c);
	packed_breaker_read(member, len, &b);
	len = breaker_member_encode(text, &b);
	return to + circuit_json_encode_member(to, c, text, len);
}

static int put_circuit(struct stream *s, const struct circuit_entry *e, int64_t wall_ms)
{
	char *to = line_begin(s);
	const char *key;
	size_t len;

	if (!to)
		return -1;
	to += sprintf(to, "%" PRId64 " ", wall_ms < 0 ? 0 : wall_ms);
	key = circuit_entry_key(e, &len);
	to = put_key(to, key, len);
	*to++ = ' ';
	to = put_value(to, e);
	*to++ = '\n';
	line_end(s, to);
	s->circuits++;
	return 0;
}

static int put_queue(struct stream *s, struct circuit_table *t, const struct circuit_queue *q,
		     const struct state_moment *now)
{
	const char *key = keynode_key(&q->node);
	struct circuit_entry *e = circuit_table_find(t, key, q->node.key_len, now->table_ms);
	int64_t written = e ? circuit_entry_written(e) : now->table_ms;
	int64_t wall_ms = written + now->wall_ms - now->table_ms;
	char *to = line_begin(s);

	if (!to)
		return -1;
	to += sprintf(to, "%s%" PRId64 " ", circuit_queue_is_marked(q) ? IN_DOUBT : STEP,
		      wall_ms < 0 ? 0 : wall_ms);
	to = put_key(to, key, q->node.key_len);
	to += state_steps_encode(to, q, e ? circuit_entry_get(e) : NULL);
	*to++ = '\n';
	line_end(s, to);
	s->circuits++;
	return 0;
}

static int put_queues(struct stream *s, struct circuit_table *t, struct circuit_queues *queues,
		      const struct state_moment *now)
{
	put_words(s, HEADER2);
	for (size_t i = 0; i < queues->table.slot_count; i++) {
		struct circuit_queue *q = (struct circuit_queue *)keytable_slot(&queues->table, i);

		if (q && circuit_queue_has_steps(q) && put_queue(s, t, q, now) != 0)
			return -1;
	}
	return 0;
}

static int put_table(struct stream *s, const struct circuit_table *t,
		     const struct state_moment *now)
{
	int64_t to_wall = now->wall_ms - now->table_ms;
	struct circuit_entry *e;
	struct circuit_walk walk;

	put_words(s, HEADER);
	circuit_walk_begin(&walk, t);
	while ((e = circuit_walk_next(&walk)) != NULL) {
		if (put_circuit(s, e, circuit_entry_written(e) + to_wall) != 0)
			return -1;
	}
	return 0;
}

static int put_all(struct stream *s, struct circuit_table *t, struct circuit_queues *queues,
		   const struct state_moment *now)
{
	if ((queues ? put_queues(s, t, queues, now) : put_table(s, t, now)) != 0)
		return -1;
	if (BUFFER_SIZE - s->end < LINE_ROOM && flush(s) != 0)
		return -1;
	s->end += end_line(s, s->buffer + s->end);
	return flush(s);
}

/* Without this a power failure may undo the rename (fsync(2), Description). */
static int sync_directory(const char *path)
{
	char copy[PATH_MAX];
	int fd, rc;

	snprintf(copy, sizeof(copy), "%s", path);
	fd = open(dirname(copy), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return -1;
	rc = fsync(fd);
	/* Some file systems cannot fsync a directory. */
	if (rc != 0 && errno == EINVAL)
		rc = 0;
	close(fd);
	return rc;
}

static int write_whole(const char *tmp, struct circuit_table *t, struct circuit_queues *queues,
		       const struct state_moment *now)
{
	struct stream s = {.fd = -1, .buffer = malloc(BUFFER_SIZE)};
	int saved;

	if (!s.buffer)
		return -1;
	/* A file left there is neither followed, if it is a link, nor appended to. */
	if (unlink(tmp) != 0 && errno != ENOENT)
		goto fail;
	s.fd = open(tmp, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (s.fd < 0 || put_all(&s, t, queues, now) != 0 || fsync(s.fd) != 0)
		goto fail;
	free(s.buffer);
	return close(s.fd);
fail:
	saved = errno;
	free(s.buffer);
	if (s.fd >= 0)
		close(s.fd);
	errno = saved;
	return -1;
}

int state_file_write(const char *path, struct circuit_table *t, struct circuit_queues *queues,
		     const struct state_moment *now)
{
	char tmp[PATH_MAX];
	int saved;

	if (!state_file_tmp(tmp, sizeof(tmp), path))
		return ENAMETOOLONG;
	if (write_whole(tmp, t, queues, now) == 0 && rename(tmp, path) == 0)
		return sync_directory(path) == 0 ? 0 : errno;
	saved = errno;
	unlink(tmp);
	return saved;
}

/* --- reading */

/*
 * Sets *line to the next line, newline included. Returns its length; 0 at the end of the file; -1,
 * with words in *why, if it has no newline or is too long, or if the read failed.
 */
static ssize_t next_line(struct stream *s, const char **line, const char **why)
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
		if (s->at_end || have > LINE_ROOM)
			return -1;
		memmove(s->buffer, begin, have);
		s->begin = 0;
		s->end = have;
		n = read(s->fd, s->buffer + have, BUFFER_SIZE - have);
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
	line->in_doubt = len > strlen(IN_DOUBT) && memcmp(text, IN_DOUBT, strlen(IN_DOUBT)) == 0;
	line->has_steps =
		line->in_doubt || (len > strlen(STEP) && memcmp(text, STEP, strlen(STEP)) == 0);
	key = take_stamp(text + (line->has_steps ? strlen(STEP) : 0), end, &line->wall_ms);
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
static bool read_header(struct stream *s, char why[256])
{
	const char *line = NULL, *words = "";
	ssize_t len = next_line(s, &line, &words);

	if (len == (ssize_t)strlen(HEADER) && (memcmp(line, HEADER, strlen(HEADER)) == 0 ||
					       memcmp(line, HEADER2, strlen(HEADER2)) == 0)) {
		sum_line(s, line, strlen(HEADER));
		return true;
	}
	if (len > (ssize_t)strlen(MAGIC) + 1 && len < 32 && memcmp(line, MAGIC, strlen(MAGIC)) == 0)
		snprintf(why, 256, "its version is %.*s, and this breakerd reads 1 and 2",
			 (int)(len - 1) - (int)strlen(MAGIC), line + strlen(MAGIC));
	else
		snprintf(why, 256, "it does not begin with \"" MAGIC "1\"");
	return false;
}

static bool read_end(struct stream *s, const char *line, size_t len, char why[256])
{
	char expected[64];
	const char *ignored;

	if (len != end_line(s, expected) || memcmp(line, expected, len) != 0) {
		snprintf(why, 256,
			 "the number of circuits or the checksum in the last line is wrong");
		return false;
	}
	if (next_line(s, &line, &ignored) == 0)
		return true;
	snprintf(why, 256, "there is more behind the last line");
	return false;
}

static enum state_file_status read_stream(struct stream *s, struct restore *r)
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
		sum_line(s, text, (size_t)len);
		if (s->circuits == 0 && !r->folding && len == (ssize_t)strlen(FOLDING) &&
		    memcmp(text, FOLDING, (size_t)len) == 0) {
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
	struct stream s = {0};
	enum state_file_status status;

	*report = (struct state_file_report){0};
	s.fd = open_to_read(path, &status, report->why);
	if (s.fd < 0)
		return status;
	s.buffer = malloc(BUFFER_SIZE);
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
