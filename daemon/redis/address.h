/*
 * Socket addresses of servers: what a look-up gives and a connection takes.
 */
#ifndef BREAKERD_REDIS_ADDRESS_H
#define BREAKERD_REDIS_ADDRESS_H

#include <stddef.h>
#include <sys/socket.h>

#define REDIS_ADDRESSES_MAX 16

struct redis_address {
	struct sockaddr_storage sockaddr;
	socklen_t len;
};

struct redis_addresses {
	struct redis_address at[REDIS_ADDRESSES_MAX];
	size_t count;
};

/* "127.0.0.1:6379", "[::1]:6379", "/run/redis.sock" */
void redis_address_print(const struct redis_address *address, char *out, size_t size);

#endif
