/*
 * Many readers of GET /v1/events in one process: streams PORT COUNT FILE. Prints "ready" when all
 * streams have had their `ready`; then, whenever it has grown, the number of events that the
 * slowest stream has received. Each event's number must be the previous one plus 1. The data of the
 * first stream goes to FILE. When the standard input ends, all streams must have had the same data:
 * prints "same" and ends. Any other line printed is an error.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define LINE_MAX_ 4096

struct stream {
	int fd;
	enum { HEAD, SIZE, DATA, DATA_END } part;
	size_t left;  /* bytes of the chunk that have not come */
	unsigned crs; /* bytes of the empty line at the head's end that have come */
	char line[LINE_MAX_];
	size_t len;
	bool circuit, ready;
	uint64_t number, events, hash;
};

static struct stream *streams;
static size_t count;
static FILE *file;

static void wrong(const struct stream *s, const char *what, const char *line)
{
	printf("stream %zu, event %" PRIu64 ": %s: %.200s\n", (size_t)(s - streams), s->number,
	       what, line);
	fflush(stdout);
	exit(1);
}

static void add_to_hash(struct stream *s, const char *line)
{
	for (; *line; line++)
		s->hash = (s->hash ^ (unsigned char)*line) * UINT64_C(1099511628211);
}

static void on_line(struct stream *s, const char *line)
{
	if (strncmp(line, "event: ", 7) == 0) {
		s->circuit = strcmp(line, "event: circuit") == 0;
		if (strcmp(line, "event: ready") == 0)
			s->ready = true;
		else if (!s->circuit)
			wrong(s, "an event of another kind", line);
	} else if (strncmp(line, "id: ", 4) == 0) {
		uint64_t number = strtoull(strchr(line, '-') + 1, NULL, 10);

		if (s->circuit && s->ready && number != s->number + 1)
			wrong(s, "the event's number is not the next one", line);
		s->number = number;
	} else if (strncmp(line, "data: ", 6) == 0) {
		if (!s->circuit || !s->ready)
			return;
		s->events++;
		add_to_hash(s, line);
		if (s == streams)
			fprintf(file, "%s\n", line + 6);
	} else if (*line && *line != ':') {
		wrong(s, "an unknown line", line);
	}
}

static void on_data(struct stream *s, const char *data, size_t n)
{
	while (n > 0) {
		const char *end = memchr(data, '\n', n);
		size_t part = end ? (size_t)(end - data) : n;

		if (s->len + part >= LINE_MAX_)
			wrong(s, "a line is too long", "");
		memcpy(s->line + s->len, data, part);
		s->len += part;
		if (end) {
			s->line[s->len] = '\0';
			s->len = 0;
			on_line(s, s->line);
			part++;
		}
		data += part;
		n -= part;
	}
}

/* Decodes the chunks: RFC 9112, section 7.1. */
static void on_bytes(struct stream *s, const char *p, size_t n)
{
	while (n > 0) {
		size_t took = 1;

		switch (s->part) {
		case HEAD:
			s->crs = *p == (s->crs % 2 ? '\n' : '\r') ? s->crs + 1 : *p == '\r';
			if (s->crs == 4)
				s->part = SIZE;
			break;
		case SIZE:
			if (*p == '\n')
				s->part = DATA;
			else if (*p != '\r')
				s->left = s->left * 16 +
					  (size_t)(*p <= '9' ? *p - '0' : (*p | 32) - 'a' + 10);
			break;
		case DATA:
			took = s->left < n ? s->left : n;
			on_data(s, p, took);
			s->left -= took;
			if (s->left == 0)
				s->part = DATA_END;
			break;
		case DATA_END:
			if (*p == '\n')
				s->part = SIZE;
			break;
		}
		p += took;
		n -= took;
	}
}

static void open_stream(struct stream *s, unsigned port)
{
	static const char request[] = "GET /v1/events HTTP/1.1\r\nHost: localhost\r\n\r\n";
	struct sockaddr_in in = {.sin_family = AF_INET,
				 .sin_port = htons((uint16_t)port),
				 .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};

	s->fd = socket(AF_INET, SOCK_STREAM, 0);
	if (s->fd < 0 || connect(s->fd, (struct sockaddr *)&in, sizeof(in)) != 0 ||
	    write(s->fd, request, sizeof(request) - 1) < 0)
		wrong(s, "cannot open the stream", strerror(errno));
}

/* Prints "ready" and the number of events of the slowest stream, when they have changed. */
static void tell(void)
{
	static uint64_t told;
	static bool told_ready;
	uint64_t least = UINT64_MAX;
	bool ready = true;

	for (size_t i = 0; i < count; i++) {
		ready = ready && streams[i].ready;
		if (streams[i].events < least)
			least = streams[i].events;
	}
	if (ready && !told_ready)
		printf("ready\n");
	told_ready = ready;
	if (least > told)
		printf("%" PRIu64 "\n", told = least);
	fflush(stdout);
}

static void check_same(void)
{
	fflush(file);
	for (size_t i = 1; i < count; i++)
		if (streams[i].events != streams[0].events || streams[i].hash != streams[0].hash)
			wrong(&streams[i], "the data differs from the first stream's", "");
	printf("same\n");
}

int main(int argc, char *argv[])
{
	static char buf[1 << 18];
	int poll = epoll_create1(0);
	struct epoll_event event = {.events = EPOLLIN, .data.ptr = NULL};

	if (argc != 4 || poll < 0)
		return 2;
	count = strtoul(argv[2], NULL, 10);
	streams = calloc(count, sizeof(*streams));
	file = fopen(argv[3], "w");
	if (!streams || !file)
		return 2;
	epoll_ctl(poll, EPOLL_CTL_ADD, 0, &event);
	for (size_t i = 0; i < count; i++) {
		open_stream(&streams[i], (unsigned)atoi(argv[1]));
		event.data.ptr = &streams[i];
		epoll_ctl(poll, EPOLL_CTL_ADD, streams[i].fd, &event);
	}
	for (;;) {
		struct epoll_event events[64];
		int n = epoll_wait(poll, events, 64, -1);

		for (int i = 0; i < n; i++) {
			struct stream *s = events[i].data.ptr;
			ssize_t got;

			if (!s) {
				check_same();
				return 0;
			}
			got = read(s->fd, buf, sizeof(buf));
			if (got <= 0)
				wrong(s, "the stream has ended", got ? strerror(errno) : "");
			on_bytes(s, buf, (size_t)got);
		}
		tell();
	}
}
