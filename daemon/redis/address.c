/*
 * Socket addresses as text.
 */
#include "redis/address.h"

#include <netdb.h>
#include <stdio.h>
#include <sys/un.h>

void redis_address_print(const struct redis_address *address, char *out, size_t size)
{
	const struct sockaddr *sockaddr = (const void *)&address->sockaddr;
	char host[NI_MAXHOST] = "?", port[NI_MAXSERV] = "?";

	if (sockaddr->sa_family == AF_UNIX) {
		snprintf(out, size, "%s",
			 ((const struct sockaddr_un *)(const void *)sockaddr)->sun_path);
		return;
	}
	getnameinfo(sockaddr, address->len, host, sizeof(host), port, sizeof(port),
		    NI_NUMERICHOST | NI_NUMERICSERV);
	snprintf(out, size, sockaddr->sa_family == AF_INET6 ? "[%s]:%s" : "%s:%s", host, port);
}
