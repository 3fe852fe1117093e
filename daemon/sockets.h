/*
 * The sockets that are listened on, opened by us or by systemd. They decide, whatever `listen` says
 * after a reload, which names Host may have and whether a token is needed. (On sockets of
 * metrics_listen any Host will do, and no token is needed.)
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
	const char *remote;        /* the name of a socket that other hosts can reach, or NULL */
	struct config_list files;  /* of unix sockets that we made; removed at the end */
	int report_fd[LISTEN_MAX]; /* for report_listen; -1: handed on */
	size_t report_count;
	struct config_list report_addresses;
	int metrics_fd[LISTEN_MAX]; /* for metrics_listen; -1: handed on */
	size_t metrics_count;
	char metrics_name[LISTEN_MAX][160];
	const char *hosts[SOCKETS_HOSTS_MAX];
	char host_names[LISTEN_MAX][160];
};

/* Opens the sockets, or takes over those that systemd opened. The caller has zeroed *s. 0, or -1
 * with the reason in *error; in both cases sockets_close is to be called. */
int sockets_open(struct sockets *s, const struct config *config, struct listen_error *error);

/*
 * False, with the reason in *error, if other hosts can reach a socket and `config` has no token.
 * config_load checks `listen` alone: it knows neither sockets that systemd opened nor, on a reload,
 * the sockets that are open.
 */
bool sockets_allow(const struct sockets *s, const struct config *config,
		   struct config_error *error);

/* What the API checks requests against. Points into *s and *config. */
struct api_access sockets_access(struct sockets *s, const struct config *config);

/* Closes the sockets that http has not taken, and removes the files of unix sockets. */
void sockets_close(struct sockets *s);

#endif
