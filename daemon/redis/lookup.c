/*
 * Name look-up by evdns.
 *
 * evdns_getaddrinfo is not used, for two reasons. In libevent 2.1 it does not tell a nameserver
 * that does not answer from one that fails (evdns_err_to_getaddrinfo_err), so the log could not say
 * which it was. And it still points at its evdns_base after its callback, so that no moment is safe
 * for freeing that. The two questions of evdns_base_resolve_* each call back exactly once,
 * cancelled or not. Each look-up has an evdns_base of its own: so it reads resolv.conf as it is
 * now, and asks a nameserver again that was down before.
 */
#include "redis/lookup.h"

#include "base/timer.h"

#include <arpa/inet.h>
#include <event2/dns.h>
#include <event2/event.h>
#include <netdb.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* How long an answer of one family waits for the other's. */
#define SKEW_MS 150

struct question {
	struct redis_lookup *lookup;
	struct evdns_request *request; /* not NULL: its callback will come */
	int family;
};

struct redis_lookup {
	struct event_base *base;
	struct event *deliver;
	struct evdns_base *dns;
	struct question questions[2];
	struct redis_addresses addresses;
	char host[256];
	unsigned short port;
	const char *trouble; /* why the nameservers gave no address, static */
	redis_lookup_fn *fn; /* NULL: it was freed, and lives on until the callbacks have come */
	void *arg;
};

static void add_address(struct redis_lookup *lookup, int family, const void *address)
{
	struct redis_address *next = &lookup->addresses.at[lookup->addresses.count];
	struct sockaddr_in *in = (struct sockaddr_in *)&next->sockaddr;
	struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)&next->sockaddr;

	if (lookup->addresses.count == REDIS_ADDRESSES_MAX)
		return;
	memset(next, 0, sizeof(*next));
	next->sockaddr.ss_family = (sa_family_t)family;
	if (family == AF_INET) {
		in->sin_port = htons(lookup->port);
		memcpy(&in->sin_addr, address, sizeof(in->sin_addr));
		next->len = sizeof(*in);
	} else {
		in6->sin6_port = htons(lookup->port);
		memcpy(&in6->sin6_addr, address, sizeof(in6->sin6_addr));
		next->len = sizeof(*in6);
	}
	lookup->addresses.count++;
}

/* True if text is an address, which is then added. getaddrinfo understands zones ("fe80::1%eth0"),
 * and with AI_NUMERICHOST it looks nothing up. */
static bool add_numeric(struct redis_lookup *lookup, const char *text)
{
	struct addrinfo hints = {.ai_flags = AI_NUMERICHOST, .ai_socktype = SOCK_STREAM};
	struct addrinfo *found;
	struct redis_address *address;

	if (getaddrinfo(text, NULL, &hints, &found) != 0)
		return false;
	if (found->ai_family == AF_INET) {
		add_address(lookup, AF_INET, &((struct sockaddr_in *)found->ai_addr)->sin_addr);
	} else if (lookup->addresses.count < REDIS_ADDRESSES_MAX) {
		address = &lookup->addresses.at[lookup->addresses.count++];
		memcpy(&address->sockaddr, found->ai_addr, found->ai_addrlen);
		address->len = found->ai_addrlen;
		((struct sockaddr_in6 *)&address->sockaddr)->sin6_port = htons(lookup->port);
	}
	freeaddrinfo(found);
	return true;
}

/* "address name name ... # comment" */
static void hosts_line(struct redis_lookup *lookup, char *line)
{
	char *save, *address, *name;

	line[strcspn(line, "#\n")] = '\0';
	address = strtok_r(line, " \t\r", &save);
	while (address && (name = strtok_r(NULL, " \t\r", &save))) {
		if (strcasecmp(name, lookup->host) == 0) {
			add_numeric(lookup, address);
			return;
		}
	}
}

static bool add_from_hosts_file(struct redis_lookup *lookup, const char *path)
{
	FILE *file = fopen(path, "re");
	char *line = NULL;
	size_t size = 0;

	if (!file)
		return false;
	while (getline(&line, &size, file) >= 0)
		hosts_line(lookup, line);
	free(line);
	fclose(file);
	return lookup->addresses.count > 0;
}

/* RFC 6761, section 6.3: nameservers are never asked for "localhost". */
static bool add_localhost(struct redis_lookup *lookup)
{
	if (strcasecmp(lookup->host, "localhost") != 0)
		return false;
	return add_numeric(lookup, "127.0.0.1") && add_numeric(lookup, "::1");
}

static bool asking(const struct redis_lookup *lookup)
{
	return lookup->questions[0].request || lookup->questions[1].request;
}

static void lookup_destroy(struct redis_lookup *lookup)
{
	if (lookup->dns)
		evdns_base_free(lookup->dns, 0);
	if (lookup->deliver)
		event_free(lookup->deliver);
	free(lookup);
}

static void on_deliver(evutil_socket_t fd, short what, void *arg)
{
	struct redis_lookup *lookup = arg;
	char why[400];

	(void)fd;
	(void)what;
	snprintf(why, sizeof(why), "cannot find an address for \"%s\": %s", lookup->host,
		 lookup->trouble ? lookup->trouble : "out of memory");
	if (lookup->addresses.count > 0)
		lookup->fn(lookup->arg, &lookup->addresses, NULL);
	else
		lookup->fn(lookup->arg, NULL, why);
}

static const char *trouble_of(int result, int count)
{
	switch (result) {
	case DNS_ERR_NONE:
		return count == 0 ? "the name has no address" : NULL;
	case DNS_ERR_NOTEXIST:
		return "there is no such name";
	case DNS_ERR_NODATA:
		return "the name has no address";
	case DNS_ERR_TIMEOUT:
		return "no nameserver answers";
	default:
		return "the nameserver failed";
	}
}

static void on_answer(int result, char type, int count, int ttl, void *addresses, void *arg)
{
	struct question *question = arg;
	struct redis_lookup *lookup = question->lookup;
	size_t size = question->family == AF_INET ? 4 : 16;

	(void)type;
	(void)ttl;
	question->request = NULL;
	if (!lookup->fn) {
		if (!asking(lookup))
			lookup_destroy(lookup);
		return;
	}
	for (int i = 0; result == DNS_ERR_NONE && i < count; i++)
		add_address(lookup, question->family, (char *)addresses + (size_t)i * size);
	/* If one answer says that the name does not exist, that is the reason to show. */
	if (!lookup->trouble || result == DNS_ERR_NOTEXIST)
		lookup->trouble = trouble_of(result, count);
	if (!asking(lookup))
		timer_arm(lookup->deliver, 0);
	else if (lookup->addresses.count > 0)
		timer_arm(lookup->deliver, SKEW_MS);
}

/* Without this libevent writes to stderr at every attempt. */
static void quiet(int is_warning, const char *message)
{
	(void)is_warning;
	(void)message;
}

static bool ask(struct redis_lookup *lookup, unsigned patience_ms, const char *resolv_conf)
{
	struct question *four = &lookup->questions[0], *six = &lookup->questions[1];
	char patience[16];

	evdns_set_log_fn(quiet);
	lookup->dns = evdns_base_new(lookup->base, 0);
	if (!lookup->dns)
		return false;
	evdns_base_resolv_conf_parse(lookup->dns, DNS_OPTIONS_ALL & ~DNS_OPTION_HOSTSFILE,
				     resolv_conf);
	/* With one try for each nameserver the next one has its turn before the connect timer
	 * fires. */
	snprintf(patience, sizeof(patience), "%u.%03u", patience_ms / 1000, patience_ms % 1000);
	evdns_base_set_option(lookup->dns, "timeout:", patience);
	evdns_base_set_option(lookup->dns, "max-timeouts:", "1");
	*four = (struct question){.lookup = lookup, .family = AF_INET};
	*six = (struct question){.lookup = lookup, .family = AF_INET6};
	four->request = evdns_base_resolve_ipv4(lookup->dns, lookup->host, 0, on_answer, four);
	six->request = evdns_base_resolve_ipv6(lookup->dns, lookup->host, 0, on_answer, six);
	return asking(lookup);
}

struct redis_lookup *redis_lookup_new(struct event_base *base, const char *host,
				      unsigned short port, unsigned patience_ms,
				      const struct redis_lookup_files *files, redis_lookup_fn *fn,
				      void *arg)
{
	static const struct redis_lookup_files system_files = {"/etc/hosts", "/etc/resolv.conf"};
	struct redis_lookup *lookup = calloc(1, sizeof(*lookup));

	if (!lookup)
		return NULL;
	if (!files)
		files = &system_files;
	lookup->base = base;
	lookup->port = port;
	lookup->fn = fn;
	lookup->arg = arg;
	snprintf(lookup->host, sizeof(lookup->host), "%s", host);
	lookup->deliver = evtimer_new(base, on_deliver, lookup);
	if (!lookup->deliver) {
		lookup_destroy(lookup);
		return NULL;
	}
	if (add_numeric(lookup, host) || add_localhost(lookup) ||
	    add_from_hosts_file(lookup, files->hosts) ||
	    !ask(lookup, patience_ms, files->resolv_conf))
		timer_arm(lookup->deliver, 0);
	return lookup;
}

void redis_lookup_free(struct redis_lookup *lookup)
{
	if (!lookup)
		return;
	lookup->fn = NULL;
	event_del(lookup->deliver);
	if (!asking(lookup)) {
		lookup_destroy(lookup);
		return;
	}
	for (size_t i = 0; i < 2; i++)
		if (lookup->questions[i].request)
			evdns_cancel_request(lookup->dns, lookup->questions[i].request);
}
