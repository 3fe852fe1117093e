/*
 * The other side of hiredis's connections, for the fuzz targets of Redis: connect(2) gives the
 * daemon one end of a socket pair and us the other. The clock of its deadlines is the target's too.
 */
#include "peers.h"

#include "fuzz.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define QUIET_TURNS 3

struct peers peers;

/* These three are the program's own, so the libraries call them as well. */

/* The clocks of deadlines: only peers_wait moves them, so a machine that pauses misses none.
 * libFuzzer reads the wall clock, which stays real. */
int clock_gettime(clockid_t clock, struct timespec *now)
{
	const int64_t start_ms = 1000000;
	int64_t ms = start_ms + peers.passed_ms;

	if (clock == CLOCK_REALTIME)
		return (int)syscall(SYS_clock_gettime, clock, now);
	*now = (struct timespec){.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000};
	return 0;
}

/* TCP's options, on what is a Unix socket. */
int setsockopt(int fd, int level, int option, const void *value, socklen_t len)
{
	(void)fd;
	(void)level;
	(void)option;
	(void)value;
	(void)len;
	return 0;
}

/* hiredis 1.x calls it again to see whether it is connected. */
int connect(int fd, const struct sockaddr *address, socklen_t len)
{
	struct sockaddr_storage own;
	socklen_t own_len = sizeof(own);
	int pair[2];

	(void)address;
	(void)len;
	if (getpeername(fd, (struct sockaddr *)&own, &own_len) == 0)
		return 0;
	if (peers.count == peers.most) {
		errno = ECONNREFUSED;
		return -1;
	}
	FUZZ_CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair) == 0);
	FUZZ_CHECK(dup3(pair[0], fd, O_CLOEXEC) == fd);
	close(pair[0]);
	peers.to = peers.count;
	peers.fds[peers.count++] = pair[1];
	return 0;
}

bool peers_up(size_t n)
{
	return n < peers.count && peers.fds[n] >= 0;
}

void peers_turn(void)
{
	char heard[4096];

	for (int quiet = 0; quiet < QUIET_TURNS; quiet++) {
		event_base_loop(peers.base, EVLOOP_NONBLOCK);
		for (size_t n = 0; n < peers.count; n++)
			while (peers_up(n) && read(peers.fds[n], heard, sizeof(heard)) > 0)
				quiet = 0;
	}
}

void peers_wait(int64_t ms)
{
	peers.passed_ms += ms;
	peers_turn();
}

void peers_say(size_t peer, const char *text, size_t len)
{
	while (peers_up(peer) && len > 0) {
		ssize_t n = send(peers.fds[peer], text, len, MSG_NOSIGNAL);

		if (n <= 0)
			break;
		text += n;
		len -= (size_t)n;
		peers_turn();
	}
	peers_turn();
}

void peers_hang_up(size_t n)
{
	if (peers_up(n))
		close(peers.fds[n]);
	if (n < peers.count)
		peers.fds[n] = -1;
	peers_turn();
}

void peers_end(void)
{
	for (size_t n = 0; n < peers.count; n++)
		if (peers_up(n))
			close(peers.fds[n]);
	peers = (struct peers){.base = NULL};
}
