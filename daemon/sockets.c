/* The sockets that are listened on: see sockets.h. */
#include "sockets.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int open_address(struct sockets *s, const struct config *config, const char *address,
			struct listen_error *error)
{
	int count = listen_open(address, config->socket_mode, s->fd + s->count,
				LISTEN_MAX - s->count, error);

	if (count < 0)
		return -1;
	s->count += (size_t)count;
	if (strncmp(address, "unix:", 5) == 0) {
		char *copy = strdup(address);

		if (copy)
			s->files.items[s->files.count++] = copy;
	}
	return 0;
}

/* Opens the sockets of report_listen, which systemd never hands over. */
static int open_reports(struct sockets *s, const struct config *config, struct listen_error *error)
{
	for (size_t i = 0; i < config->report_listen.count; i++) {
		const char *address = config->report_listen.items[i];
		int count = listen_open_datagrams(address, config->socket_mode,
						  s->report_fd + s->report_count,
						  LISTEN_MAX - s->report_count, error);
		char *copy = count > 0 ? strdup(address) : NULL;

		if (count < 0)
			return -1;
		s->report_count += (size_t)count;
		if (copy)
			s->report_addresses.items[s->report_addresses.count++] = copy;
	}
	return 0;
}

/* Opens the sockets of metrics_listen, which systemd never hands over either. */
static int open_metrics(struct sockets *s, const struct config *config, struct listen_error *error)
{
	for (size_t i = 0; i < config->metrics_listen.count; i++) {
		int count = listen_open(config->metrics_listen.items[i], config->socket_mode,
					s->metrics_fd + s->metrics_count,
					LISTEN_MAX - s->metrics_count, error);

		if (count < 0)
			return -1;
		s->metrics_count += (size_t)count;
	}
	for (size_t i = 0; i < s->metrics_count; i++)
		listen_name(s->metrics_fd[i], s->metrics_name[i], sizeof(s->metrics_name[i]));
	return 0;
}

int sockets_open(struct sockets *s, const struct config *config, struct listen_error *error)
{
	int inherited = listen_inherit(s->fd, LISTEN_MAX, error);

	/* Those of `listen` last: once HTTP is answered, reports and metrics work, too. */
	if (inherited < 0 || open_reports(s, config, error) != 0 ||
	    open_metrics(s, config, error) != 0)
		return -1;
	s->count = (size_t)inherited;
	for (size_t i = 0; inherited == 0 && i < config->listen.count; i++) {
		if (open_address(s, config, config->listen.items[i], error) != 0)
			return -1;
	}
	for (size_t i = 0; i < s->count; i++) {
		listen_name(s->fd[i], s->name[i], sizeof(s->name[i]));
		if (!listen_is_local(s->fd[i]))
			s->remote = s->name[i];
	}
	return 0;
}

bool sockets_allow(const struct sockets *s, const struct config *config, struct config_error *error)
{
	if (!s->remote || config->token)
		return true;
	snprintf(error->text, sizeof(error->text),
		 "other hosts can reach %s, where breakerd listens: set token_file, or have it "
		 "started on a loopback address or a unix socket",
		 s->remote);
	return false;
}

/* The host of "host:port" or "[host]:port"; false for a unix socket. */
static bool host_of(const char *address, char *host, size_t size)
{
	const char *end = strrchr(address, ':');
	const char *begin = address;

	if (strncmp(address, "unix:", 5) == 0 || !end)
		return false;
	if (*begin == '[') {
		begin++;
		end--;
	}
	snprintf(host, size, "%.*s", (int)(end - begin), begin);
	return true;
}

struct api_access sockets_access(struct sockets *s, const struct config *config)
{
	struct api_access access = {
		.token = config->token,
		.allowed_hosts = s->hosts,
		.max_body = config->max_body,
	};
	size_t count = 0;

	for (size_t i = 0; i < config->allowed_hosts.count; i++)
		s->hosts[count++] = config->allowed_hosts.items[i];
	if (count == 0) {
		s->hosts[count++] = "localhost";
		for (size_t i = 0; i < s->count; i++) {
			char *host = s->host_names[i];

			if (!host_of(s->name[i], host, sizeof(s->host_names[i])))
				continue;
			s->hosts[count++] = host;
			if (strcmp(host, "0.0.0.0") == 0 || strcmp(host, "::") == 0)
				access.any_address = true;
		}
	}
	access.allowed_host_count = count;
	return access;
}

static void unlink_all(struct config_list *addresses)
{
	for (size_t i = 0; i < addresses->count; i++) {
		listen_unlink(addresses->items[i]);
		free(addresses->items[i]);
	}
}

void sockets_close(struct sockets *s)
{
	for (size_t i = 0; i < s->count; i++) {
		if (s->fd[i] >= 0)
			close(s->fd[i]);
	}
	for (size_t i = 0; i < s->report_count; i++) {
		if (s->report_fd[i] >= 0)
			close(s->report_fd[i]);
	}
	for (size_t i = 0; i < s->metrics_count; i++) {
		if (s->metrics_fd[i] >= 0)
			close(s->metrics_fd[i]);
	}
	unlink_all(&s->files);
	unlink_all(&s->report_addresses);
}
