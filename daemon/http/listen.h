/*
 * Listening sockets: from addresses, or handed over by systemd (sd_listen_fds(3)).
 */
#ifndef BREAKERD_LISTEN_H
#define BREAKERD_LISTEN_H

#include "http/listen_address.h"

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#define LISTEN_MAX 32

/*
 * Opens listening sockets into fds, which has room for `room`: one, or one for each address that a
 * name has. Returns how many; -1 with the reason in *error. Blocks in a name look-up, so it is for
 * the start. The file of a unix socket on which nobody answers is replaced; one on which somebody
 * does is an error. `mode` is for unix sockets.
 */
int listen_open(const char *address, mode_t mode, int *fds, size_t room,
		struct listen_error *error);

/* The same for datagram sockets, to be read from. */
int listen_open_datagrams(const char *address, mode_t mode, int *fds, size_t room,
			  struct listen_error *error);

/* Removes the socket file of a "unix:/path" address, if this process made it. */
void listen_unlink(const char *address);

/*
 * Puts the sockets that systemd handed over into fds, which has room for `room`. Returns how many,
 * perhaps 0; -1 with the reason in *error, also if there are some but no libsystemd was built in.
 */
int listen_inherit(int *fds, size_t room, struct listen_error *error);

/* True if only this host can reach the listening socket. */
bool listen_is_local(int fd);

/* Writes where fd listens, in the form of the setting `listen`: "127.0.0.1:8747", "unix:/run/x". */
void listen_name(int fd, char *out, size_t size);

#endif
