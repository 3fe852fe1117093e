/*
 * Listening sockets: from addresses, or handed over by systemd (sd_listen_fds(3)).
 */
#ifndef BREAKERD_LISTEN_H
#define BREAKERD_LISTEN_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#define LISTEN_MAX 32

struct listen_error {
	char text[512];
};

/*
 * True if `address` is well formed: "host:port", "[::1]:port", "unix:/path". *local says
 * whether only this host can reach it (a loopback address, "localhost", a unix socket).
 * Resolves nothing.
 */
bool listen_parse(const char *address, bool *local, struct listen_error *error);

/*
 * Opens sockets that listen on address, into fds with room for `room`: one, or one for
 * each address that a name has. Returns how many; -1 with the reason in *error. Blocks for
 * a name look-up, so it is for start-up. A unix socket file that nobody answers on is
 * replaced; a live one is an error. `mode` is for a unix socket.
 */
int listen_open(const char *address, mode_t mode, int *fds, size_t room,
		struct listen_error *error);

/* The same with sockets for datagrams, which are not listened on but read. */
int listen_open_datagrams(const char *address, mode_t mode, int *fds, size_t room,
			  struct listen_error *error);

/* Removes the socket file of a "unix:/path" address, if this process made it. */
void listen_unlink(const char *address);

/*
 * The sockets that systemd handed over, into fds with room for `room`. Returns how many (0:
 * none); -1 with the reason in *error, also if there are some but no libsystemd was built in.
 */
int listen_inherit(int *fds, size_t room, struct listen_error *error);

/* True if only this host can reach fd, a socket as listen_inherit gives. */
bool listen_is_local(int fd);

/* Where fd listens, in the form of `listen`: "127.0.0.1:8747", "unix:/run/x". */
void listen_name(int fd, char *out, size_t size);

#endif
