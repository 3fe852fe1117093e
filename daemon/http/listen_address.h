/*
 * Addresses to listen on: "host:port", "[::1]:port", "unix:/path".
 */
#ifndef BREAKERD_LISTEN_ADDRESS_H
#define BREAKERD_LISTEN_ADDRESS_H

#include <stdbool.h>
#include <sys/socket.h>
#include <sys/un.h>

#define LISTEN_UNIX "unix:"

struct listen_error {
	char text[512];
};

/* Sets the error's text. */
__attribute__((format(printf, 2, 3))) void listen_fail(struct listen_error *error, const char *fmt,
						       ...);

/*
 * True if `address` is well formed, else the reason is in *error. *local says whether only this
 * host can reach it: a loopback address, "localhost", a unix socket. Resolves nothing.
 */
bool listen_parse(const char *address, bool *local, struct listen_error *error);

/* A parsed address. */
struct listen_target {
	int type; /* SOCK_STREAM or SOCK_DGRAM */
	bool is_unix;
	bool numeric; /* host is an IP address */
	char host[256];
	char port[6];
	struct sockaddr_un un;
};

/* Parses an address into *target, with `type` 0 for the caller to set. False with the reason in
 * *error. */
bool listen_target_parse(const char *address, struct listen_target *target,
			 struct listen_error *error);

/* True for the name "localhost". */
bool listen_target_is_localhost(const struct listen_target *target);

/* True for a loopback address; *sa is an AF_INET or AF_INET6 one. */
bool listen_is_loopback(const struct sockaddr *sa);

#endif
