/*
 * Listening sockets: see listen.h.
 */
#include "http/listen.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>
#ifdef HAVE_LIBSYSTEMD
#include <systemd/sd-daemon.h>
#endif

enum unix_file {
	UNIX_FREE,  /* no such file */
	UNIX_STALE, /* a socket that nobody answers on */
	UNIX_OURS,  /* a socket that this process listens on */
	UNIX_LIVE,  /* a socket that another process listens on */
	UNIX_OTHER, /* no socket, or not known: errno says why */
};

/* Finds out by connecting, without blocking, for a full listen queue would block. */
static enum unix_file probe_unix(const struct sockaddr_un *un)
{
	enum unix_file verdict = UNIX_OTHER;
	struct stat st;
	struct ucred peer;
	socklen_t len = sizeof(peer);
	int fd;

	if (lstat(un->sun_path, &st) < 0)
		return errno == ENOENT ? UNIX_FREE : UNIX_OTHER;
	if (!S_ISSOCK(st.st_mode)) {
		errno = ENOTSOCK;
		return UNIX_OTHER;
	}
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return UNIX_OTHER;
	if (connect(fd, (const struct sockaddr *)un, sizeof(*un)) == 0) {
		/* The credentials are those of the process that called listen(2). */
		bool ours = getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &len) == 0 &&
			    peer.pid == getpid();
		verdict = ours ? UNIX_OURS : UNIX_LIVE;
	} else if (errno == EAGAIN || errno == EPROTOTYPE) {
		verdict = UNIX_LIVE;
	} else if (errno == ECONNREFUSED) {
		verdict = UNIX_STALE;
	} else if (errno == ENOENT) {
		verdict = UNIX_FREE;
	}
	int saved = errno;
	close(fd);
	errno = saved;
	return verdict;
}

/* Makes way for a new socket at the path of t. */
static bool clear_unix(const char *address, const struct listen_target *t,
		       struct listen_error *error)
{
	switch (probe_unix(&t->un)) {
	case UNIX_FREE:
		return true;
	case UNIX_STALE:
		if (unlink(t->un.sun_path) == 0 || errno == ENOENT)
			return true;
		listen_fail(error, "%s: a stale socket is in the way and cannot be removed: %s",
			    address, strerror(errno));
		return false;
	case UNIX_OURS:
		listen_fail(error, "%s: given twice", address);
		return false;
	case UNIX_LIVE:
		listen_fail(error,
			    "%s: in use by another process; is another breakerd running? Choose "
			    "another "
			    "with --listen",
			    address);
		return false;
	case UNIX_OTHER:
		break;
	}
	if (errno == ENOTSOCK)
		listen_fail(error,
			    "%s: there is a file that is no socket; remove it or choose another "
			    "path with --listen",
			    address);
	else
		listen_fail(error, "%s: %s", address, strerror(errno));
	return false;
}

static int open_unix(const char *address, const struct listen_target *t, mode_t mode,
		     struct listen_error *error)
{
	const char *path = t->un.sun_path;
	bool bound = false;
	mode_t mask;
	int fd;

	if (!clear_unix(address, t, error))
		return -1;
	fd = socket(AF_UNIX, t->type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		goto fail;
	/* The socket must not be open to more users than `mode` says, not for a moment. */
	mask = umask(0177);
	bound = bind(fd, (const struct sockaddr *)&t->un, sizeof(t->un)) == 0;
	umask(mask);
	if (!bound || chmod(path, mode) < 0 ||
	    (t->type == SOCK_STREAM && listen(fd, SOMAXCONN) < 0))
		goto fail;
	return fd;
fail:
	if (errno == ENOENT)
		listen_fail(error, "%s: the directory does not exist; make it first", address);
	else if (errno == EACCES)
		listen_fail(error, "%s: %s; breakerd must be able to write to the directory",
			    address, strerror(errno));
	else
		listen_fail(error, "%s: %s", address, strerror(errno));
	if (bound)
		unlink(path);
	if (fd >= 0)
		close(fd);
	return -1;
}

/* The socket, or -1 with errno. */
static int open_inet(const struct addrinfo *ai)
{
	int one = 1, saved;
	bool stream = ai->ai_socktype == SOCK_STREAM;
	int fd = socket(ai->ai_family, ai->ai_socktype | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	if (fd < 0)
		return -1;
	/* Not for datagrams: it would let two processes share the address. */
	if (stream && setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)) < 0)
		goto fail;
	if (ai->ai_family == AF_INET6 &&
	    setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &one, sizeof(one)) < 0)
		goto fail;
	if (bind(fd, ai->ai_addr, ai->ai_addrlen) < 0 || (stream && listen(fd, SOMAXCONN) < 0))
		goto fail;
	return fd;
fail:
	saved = errno;
	close(fd);
	errno = saved;
	return -1;
}

static void explain_inet(const char *address, int why, struct listen_error *error)
{
	const char *hint = "";

	if (why == EADDRINUSE)
		hint = "; is another breakerd running? Choose another with --listen";
	else if (why == EADDRNOTAVAIL)
		hint = "; this machine has no such address. Choose another with --listen";
	else if (why == EACCES)
		hint = "; a port below 1024 needs a privilege (CAP_NET_BIND_SERVICE)";
	listen_fail(error, "%.255s: %s%s", address, strerror(why), hint);
}

/* A hosts file may give a name the same address twice. */
static bool seen_before(const struct addrinfo *list, const struct addrinfo *ai)
{
	for (; list != ai; list = list->ai_next)
		if (list->ai_addrlen == ai->ai_addrlen &&
		    memcmp(list->ai_addr, ai->ai_addr, ai->ai_addrlen) == 0)
			return true;
	return false;
}

/* Opens a socket for each address. Addresses of a family that this host lacks are left out. */
static int open_all(const char *address, const struct listen_target *t, const struct addrinfo *list,
		    int *fds, size_t room, struct listen_error *error)
{
	size_t n = 0;
	int why = EADDRNOTAVAIL, fd;

	for (const struct addrinfo *ai = list; ai; ai = ai->ai_next) {
		if (seen_before(list, ai))
			continue;
		if (listen_target_is_localhost(t) && !listen_is_loopback(ai->ai_addr)) {
			listen_fail(error,
				    "%s: localhost has an address here that other machines may "
				    "reach; give 127.0.0.1 or [::1] instead",
				    address);
			goto fail;
		}
		if (n == room) {
			listen_fail(error, "%.255s: more than %d sockets to listen on", address,
				    LISTEN_MAX);
			goto fail;
		}
		fd = open_inet(ai);
		if (fd >= 0) {
			fds[n++] = fd;
			continue;
		}
		why = errno;
		if (why != EADDRNOTAVAIL && why != EAFNOSUPPORT) {
			explain_inet(address, why, error);
			goto fail;
		}
	}
	if (n)
		return (int)n;
	explain_inet(address, why, error);
fail:
	while (n)
		close(fds[--n]);
	return -1;
}

static int open_address(const char *address, int type, mode_t mode, int *fds, size_t room,
			struct listen_error *error)
{
	struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = type};
	struct addrinfo *list = NULL;
	struct listen_target t;
	int rc;

	if (!listen_target_parse(address, &t, error))
		return -1;
	t.type = type;
	if (room == 0) {
		listen_fail(error, "%.255s: more than %d sockets to listen on", address,
			    LISTEN_MAX);
		return -1;
	}
	if (t.is_unix) {
		fds[0] = open_unix(address, &t, mode, error);
		return fds[0] < 0 ? -1 : 1;
	}
	hints.ai_flags = AI_NUMERICSERV | (t.numeric ? AI_NUMERICHOST : 0);
	rc = getaddrinfo(t.host, t.port, &hints, &list);
	if (rc != 0) {
		listen_fail(error, "%.255s: %s", address,
			    rc == EAI_SYSTEM ? strerror(errno) : gai_strerror(rc));
		return -1;
	}
	rc = open_all(address, &t, list, fds, room, error);
	freeaddrinfo(list);
	return rc;
}

int listen_open(const char *address, mode_t mode, int *fds, size_t room, struct listen_error *error)
{
	return open_address(address, SOCK_STREAM, mode, fds, room, error);
}

int listen_open_datagrams(const char *address, mode_t mode, int *fds, size_t room,
			  struct listen_error *error)
{
	/* Room for bursts. The kernel gives what it allows (net.core.rmem_max). */
	int size = 4 * 1024 * 1024;
	int count = open_address(address, SOCK_DGRAM, mode, fds, room, error);

	for (int i = 0; i < count; i++)
		setsockopt(fds[i], SOL_SOCKET, SO_RCVBUF, &size, sizeof(size));
	return count;
}

void listen_unlink(const char *address)
{
	struct listen_error error;
	struct listen_target t;
	enum unix_file file;

	if (!listen_target_parse(address, &t, &error) || !t.is_unix)
		return;
	/* Ours, or stale since we closed it. A successor's socket is left alone. */
	file = probe_unix(&t.un);
	if (file == UNIX_OURS || file == UNIX_STALE)
		unlink(t.un.sun_path);
}

#ifdef HAVE_LIBSYSTEMD
static bool acceptable(int fd)
{
	struct sockaddr_storage ss = {0};
	socklen_t len = sizeof(ss);

	return sd_is_socket(fd, AF_UNSPEC, SOCK_STREAM, 1) > 0 &&
	       getsockname(fd, (struct sockaddr *)&ss, &len) == 0 &&
	       (ss.ss_family == AF_INET || ss.ss_family == AF_INET6 || ss.ss_family == AF_UNIX);
}

int listen_inherit(int *fds, size_t room, struct listen_error *error)
{
	int n = sd_listen_fds(1);

	if (n < 0) {
		listen_fail(error, "socket activation: %s", strerror(-n));
		return -1;
	}
	if ((size_t)n > room) {
		listen_fail(
			error,
			"socket activation: %d sockets were handed over, at most %zu can be used",
			n, room);
		goto fail;
	}
	for (int i = 0; i < n; i++) {
		fds[i] = SD_LISTEN_FDS_START + i;
		if (!acceptable(fds[i])) {
			listen_fail(error,
				    "socket activation: descriptor %d is not a listening stream "
				    "socket; use ListenStream= and Accept=no in the socket unit",
				    fds[i]);
			goto fail;
		}
	}
	return n;
fail:
	for (int i = 0; i < n; i++)
		close(SD_LISTEN_FDS_START + i);
	return -1;
}
#else
int listen_inherit(int *fds, size_t room, struct listen_error *error)
{
	const char *pid = getenv("LISTEN_PID");

	(void)fds;
	(void)room;
	if (!pid || strtol(pid, NULL, 10) != (long)getpid())
		return 0;
	listen_fail(error, "socket activation: this breakerd was built without libsystemd; disable "
			   "breakerd.socket and give the addresses in listen");
	return -1;
}
#endif

bool listen_is_local(int fd)
{
	union {
		struct sockaddr any;
		struct sockaddr_storage room;
	} a;
	socklen_t len = sizeof(a);

	memset(&a, 0, sizeof(a));
	if (getsockname(fd, &a.any, &len) < 0)
		return false;
	return a.any.sa_family == AF_UNIX || listen_is_loopback(&a.any);
}

void listen_name(int fd, char *out, size_t size)
{
	union {
		struct sockaddr any;
		struct sockaddr_in four;
		struct sockaddr_in6 six;
		struct sockaddr_un un;
	} a;
	socklen_t len = sizeof(a);
	char host[INET6_ADDRSTRLEN] = "";

	memset(&a, 0, sizeof(a));
	if (getsockname(fd, &a.any, &len) < 0) {
		snprintf(out, size, "fd:%d", fd);
	} else if (a.any.sa_family == AF_INET) {
		inet_ntop(AF_INET, &a.four.sin_addr, host, sizeof(host));
		snprintf(out, size, "%s:%u", host, ntohs(a.four.sin_port));
	} else if (a.any.sa_family == AF_INET6) {
		inet_ntop(AF_INET6, &a.six.sin6_addr, host, sizeof(host));
		snprintf(out, size, "[%s]:%u", host, ntohs(a.six.sin6_port));
	} else if (a.any.sa_family == AF_UNIX) {
		/* An abstract name begins with a NUL, conventionally written as '@'. */
		bool abstract = len > sizeof(sa_family_t) && a.un.sun_path[0] == '\0';

		snprintf(out, size, LISTEN_UNIX "%s%.*s", abstract ? "@" : "",
			 (int)sizeof(a.un.sun_path) - abstract, a.un.sun_path + abstract);
	} else {
		snprintf(out, size, "fd:%d", fd);
	}
}
