/*
 * The sockets that are listened on, opened by us or by systemd, and what follows from them
 * whatever `listen` says later: the names that Host may have, and whether a token is needed. Those
 * of metrics_listen ask for neither.
 */
#ifndef BREAKERD_SOCKETS_H
#define BREAKERD_SOCKETS_H

#include "api/api.h"
#include "config/config.h"
#include "http/listen.h"

/* Names that Host may have: those configured, or those listened on and "localhost". */
#define SOCKETS_HOSTS_MAX (CONFIG_LIST_MAX + LISTEN_MAX + 1)

struct sockets {
	int fd[LISTEN_MAX]; /* -1: handed on to http */
	size_t count;
	char name[LISTEN_MAX][160];
	const char *remote;        /* a socket that other hosts can reach, or NULL */
	struct config_list files;  /* unix sockets that we made: removed at the end */
	int report_fd[LISTEN_MAX]; /* for report_listen; -1: handed on */
	size_t report_count;
	struct config_list report_addresses;
	int metrics_fd[LISTEN_MAX]; /* for metrics_listen; -1: handed on */
	size_t metrics_count;
	char metrics_name[LISTEN_MAX][160];
	const char *hosts[SOCKETS_HOSTS_MAX];
	char host_names[LISTEN_MAX][160];
};

/* Opens the sockets, or takes over those that systemd opened. *s is zeroed. 0; or -1 with the
 * reason in *error. Either way sockets_close is to be called. */
int sockets_open(struct sockets *s, const struct config *config, struct listen_error *error);

/*
 * False, with the reason in *error, if other hosts can reach a socket and `config` has no token.
 * config_load knows `listen` alone: not the sockets that systemd opened, nor, on a reload, those
 * that are open.
 */
bool sockets_allow(const struct sockets *s, const struct config *config,
		   struct config_error *error);

/* What the API checks requests against. Points into *s and *config. */
struct api_access sockets_access(struct sockets *s, const struct config *config);

/* Closes what http has not taken and removes the files. */
void sockets_close(struct sockets *s);

#endif
