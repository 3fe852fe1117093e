/*
 * --check-ready: a client that makes one request. It blocks, in name look-ups too; SIGALRM bounds
 * the whole.
 */
#include "check_ready.h"

#include "base/log.h"
#include "config/check.h"
#include "config/config.h"

#include <errno.h>
#include <jansson.h>
#include <netdb.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define DEADLINE_S 2
#define LATE       "breakerd: not ready: no answer within 2 s\n"
#define ANSWER_MAX 8192

static void on_alarm(int signo)
{
	ssize_t written = write(STDERR_FILENO, LATE, strlen(LATE));

	(void)signo;
	(void)written;
	_exit(EXIT_FAILURE);
}

static int not_ready(const char *address, const char *why)
{
	fprintf(stderr, "breakerd: not ready: %s: %s\n", address, why);
	return EXIT_FAILURE;
}

static int connect_unix(const char *path)
{
	struct sockaddr_un un = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	memcpy(un.sun_path, path, strlen(path) + 1); /* check_listen knows that it fits */
	if (fd >= 0 && connect(fd, (const struct sockaddr *)&un, sizeof(un)) == 0)
		return fd;
	if (fd >= 0) {
		int saved = errno;

		close(fd);
		errno = saved;
	}
	return -1;
}

/* Replaces 0.0.0.0 and :: by loopback: a daemon that listens on all addresses listens there, too.
 */
static void replace_any(struct sockaddr *sa)
{
	struct sockaddr_in *four = (struct sockaddr_in *)(void *)sa;
	struct sockaddr_in6 *six = (struct sockaddr_in6 *)(void *)sa;

	if (sa->sa_family == AF_INET && four->sin_addr.s_addr == htonl(INADDR_ANY))
		four->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	if (sa->sa_family == AF_INET6 && IN6_IS_ADDR_UNSPECIFIED(&six->sin6_addr))
		six->sin6_addr = in6addr_loopback;
}

/* Connects to the first address of the list that accepts; -1 with errno. */
static int connect_first(const struct addrinfo *list)
{
	int fd = -1, saved = ENOENT;

	for (; list && fd < 0; list = list->ai_next) {
		fd = socket(list->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
		replace_any(list->ai_addr);
		if (fd >= 0 && connect(fd, list->ai_addr, list->ai_addrlen) == 0)
			return fd;
		saved = errno;
		if (fd >= 0)
			close(fd);
		fd = -1;
	}
	errno = saved;
	return -1;
}

/* `address` has passed check_listen. A descriptor, or -1 with the reason in why. */
static int connect_to(const char *address, char *why, size_t size)
{
	struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM};
	struct addrinfo *list = NULL;
	const char *port = strrchr(address, ':');
	bool bracketed = address[0] == '[';
	char host[CONFIG_ITEM_MAX + 1];
	int fd, rc;

	if (strncmp(address, "unix:", 5) == 0) {
		fd = connect_unix(address + 5);
	} else {
		snprintf(host, sizeof(host), "%.*s", (int)(port - address) - 2 * bracketed,
			 address + bracketed);
		rc = getaddrinfo(host, port + 1, &hints, &list);
		if (rc != 0 && rc != EAI_SYSTEM) {
			snprintf(why, size, "%s", gai_strerror(rc));
			return -1;
		}
		fd = rc == 0 ? connect_first(list) : -1;
	}
	snprintf(why, size, "%s", fd < 0 ? strerror(errno) : "");
	if (list)
		freeaddrinfo(list);
	return fd;
}

/* Reads the answer to its end into `answer`. False with errno, which is 0 at an early end. */
static bool ask(int fd, char answer[ANSWER_MAX])
{
	static const char request[] = "GET /readyz HTTP/1.1\r\nHost: localhost\r\n"
				      "User-Agent: breakerd/" BREAKERD_VERSION "\r\n"
				      "Connection: close\r\n\r\n";
	size_t len = 0;
	ssize_t n = 0;

	if (send(fd, request, sizeof(request) - 1, MSG_NOSIGNAL) != sizeof(request) - 1)
		return false;
	while (len < ANSWER_MAX - 1 && (n = recv(fd, answer + len, ANSWER_MAX - 1 - len, 0)) > 0)
		len += (size_t)n;
	answer[len] = '\0';
	if (n < 0 || len > 0)
		return n >= 0;
	errno = 0;
	return false;
}

/* Writes why the daemon is not ready: what its answer says of it, else the answer's first line. */
static void read_reason(const char *answer, char *out, size_t size)
{
	const char *body = strstr(answer, "\r\n\r\n"), *status, *reason;
	json_t *doc = body ? json_loads(body + 4, 0, NULL) : NULL;

	status = json_string_value(json_object_get(doc, "status"));
	reason = json_string_value(json_object_get(doc, "reason"));
	if (status)
		snprintf(out, size, "%s%s%s", log_quote_text(status).text, reason ? ", " : "",
			 reason ? log_quote_text(reason).text : "");
	else
		snprintf(out, size, "it answers %s",
			 log_quote(answer, strcspn(answer, "\r\n")).text);
	json_decref(doc);
}

/* True for an answer like "HTTP/1.1 200 OK" (RFC 9112, section 4). */
static bool is_ready(const char *answer)
{
	return strncmp(answer, "HTTP/1.", 7) == 0 && answer[7] &&
	       strncmp(answer + 8, " 200", 4) == 0 && (answer[12] == ' ' || answer[12] == '\r');
}

static int ask_and_report(const char *address, int fd)
{
	char answer[ANSWER_MAX], why[768];
	bool answered = ask(fd, answer);

	close(fd);
	if (!answered)
		return not_ready(address, errno ? strerror(errno) : "it closed without an answer");
	if (is_ready(answer))
		return EXIT_SUCCESS;
	read_reason(answer, why, sizeof(why));
	return not_ready(address, why);
}

/* No address accepts. If the settings file is wrong, the line says that as well, for the address
 * may have come from elsewhere. */
static int not_reached(const struct config *config, const char *address, const char *why)
{
	char both[sizeof(config->file_error.text) + 640];

	if (!config->file_error.text[0])
		return not_ready(address, why);
	snprintf(both, sizeof(both), "%.600s; %s", why, config->file_error.text);
	return not_ready(address, both);
}

int check_ready(const struct config *config)
{
	const struct config_list *lists[] = {&config->listen, &config->metrics_listen};
	char first[512] = "", why[512] = "", checked[CONFIG_VALUE_MAX + 1];
	const char *address = config->ready_address;
	int fd;

	signal(SIGALRM, on_alarm);
	alarm(DEADLINE_S);
	if (address) {
		if (!check_sound(address, why, sizeof(why)) ||
		    !check_listen(address, checked, why, sizeof(why)))
			return not_ready(log_quote_text(address).text, why);
		fd = connect_to(address, why, sizeof(why));
		return fd >= 0 ? ask_and_report(address, fd) : not_ready(address, why);
	}
	for (size_t n = 0; n < 2; n++) {
		for (size_t i = 0; i < lists[n]->count; i++) {
			fd = connect_to(lists[n]->items[i], why, sizeof(why));
			if (fd >= 0)
				return ask_and_report(lists[n]->items[i], fd);
			if (!first[0])
				strcpy(first, why);
		}
	}
	/* There may be no address at all, if none in the file is right. */
	return not_reached(config, config->listen.count > 0 ? config->listen.items[0] : "listen",
			   first[0] ? first : "no address to ask");
}
