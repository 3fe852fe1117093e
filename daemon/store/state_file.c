/*
 * Writes the state file.
 */
#include "proto/breaker_member.h"
#include "store/packed_breaker.h"
#include "store/state_file_private.h"

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

void state_stream_sum(struct state_stream *s, const char *line, size_t len)
{
	s->sum.k0 = siphash(&s->sum, line, len);
}

size_t state_stream_end(const struct state_stream *s, char out[64])
{
	return (size_t)snprintf(out, 64, "end %zu %016" PRIx64 "\n", s->circuits, s->sum.k0);
}

bool state_file_tmp(char *out, size_t size, const char *path)
{
	return (size_t)snprintf(out, size, "%s.tmp", path) < size;
}

static int flush(struct state_stream *s)
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
static char *line_begin(struct state_stream *s)
{
	if (STATE_BUFFER_SIZE - s->end < STATE_LINE_ROOM && flush(s) != 0)
		return NULL;
	return s->buffer + s->end;
}

/* Ends the line before `to`. */
static void line_end(struct state_stream *s, const char *to)
{
	size_t len = (size_t)(to - (s->buffer + s->end));

	state_stream_sum(s, s->buffer + s->end, len);
	s->end += len;
}

static void put_words(struct state_stream *s, const char *words)
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

static int put_circuit(struct state_stream *s, const struct circuit_entry *e, int64_t wall_ms)
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

static int put_queue(struct state_stream *s, struct circuit_table *t, const struct circuit_queue *q,
		     const struct state_moment *now)
{
	const char *key = keynode_key(&q->node);
	struct circuit_entry *e = circuit_table_find(t, key, q->node.key_len, now->table_ms);
	int64_t written = e ? circuit_entry_written(e) : now->table_ms;
	int64_t wall_ms = written + now->wall_ms - now->table_ms;
	char *to = line_begin(s);

	if (!to)
		return -1;
	to += sprintf(to, "%s%" PRId64 " ",
		      circuit_queue_is_marked(q) ? STATE_IN_DOUBT : STATE_STEP,
		      wall_ms < 0 ? 0 : wall_ms);
	to = put_key(to, key, q->node.key_len);
	to += state_steps_encode(to, q, e ? circuit_entry_get(e) : NULL);
	*to++ = '\n';
	line_end(s, to);
	s->circuits++;
	return 0;
}

static int put_queues(struct state_stream *s, struct circuit_table *t,
		      struct circuit_queues *queues, const struct state_moment *now)
{
	put_words(s, STATE_HEADER2);
	for (size_t i = 0; i < queues->table.slot_count; i++) {
		struct circuit_queue *q = (struct circuit_queue *)keytable_slot(&queues->table, i);

		if (q && circuit_queue_has_steps(q) && put_queue(s, t, q, now) != 0)
			return -1;
	}
	return 0;
}

static int put_table(struct state_stream *s, const struct circuit_table *t,
		     const struct state_moment *now)
{
	int64_t to_wall = now->wall_ms - now->table_ms;
	struct circuit_entry *e;
	struct circuit_walk walk;

	put_words(s, STATE_HEADER);
	circuit_walk_begin(&walk, t);
	while ((e = circuit_walk_next(&walk)) != NULL) {
		if (put_circuit(s, e, circuit_entry_written(e) + to_wall) != 0)
			return -1;
	}
	return 0;
}

static int put_all(struct state_stream *s, struct circuit_table *t, struct circuit_queues *queues,
		   const struct state_moment *now)
{
	if ((queues ? put_queues(s, t, queues, now) : put_table(s, t, now)) != 0)
		return -1;
	if (STATE_BUFFER_SIZE - s->end < STATE_LINE_ROOM && flush(s) != 0)
		return -1;
	s->end += state_stream_end(s, s->buffer + s->end);
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
	struct state_stream s = {.fd = -1, .buffer = malloc(STATE_BUFFER_SIZE)};
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
