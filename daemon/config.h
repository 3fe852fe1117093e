/*
 * The settings: one table (in config.c) behind the file, the environment, the command
 * line, --help, --check-config and --print-config.
 */
#ifndef BREAKERD_CONFIG_H
#define BREAKERD_CONFIG_H

#include "http.h"
#include "log.h"
#include "redis_target.h"
#include "store.h"

#include <stdbool.h>
#include <stdio.h>
#include <sys/types.h>

/* A list of words: `listen`, `allowed_hosts`. */
#define CONFIG_LIST_MAX 32
struct config_list {
	char *items[CONFIG_LIST_MAX];
	size_t count;
};

struct config {
	/* As set; strings are the config's own, "" where nothing was set. */
	char *config_file;
	struct config_list listen;
	mode_t socket_mode;
	char *store;
	char *redis_password_file;
	char *prefix;
	unsigned ttl;           /* seconds */
	unsigned store_timeout; /* milliseconds */
	bool store_failure_local;
	unsigned max_in_flight;
	unsigned max_connections;
	unsigned max_circuits;
	unsigned max_body;        /* bytes */
	unsigned idle_timeout;    /* seconds */
	unsigned request_timeout; /* seconds */
	char *state_file;
	char *token_file;
	struct config_list allowed_hosts;
	enum log_level log_level;

	/* Derived while reading. */
	bool store_is_redis;
	struct redis_target redis; /* the password of redis_password_file in it */
	char *token;               /* what token_file holds, without its trailing newline; or NULL */
};

/* What the arguments asked for beside settings. */
enum config_action {
	CONFIG_RUN,
	CONFIG_HELP,
	CONFIG_VERSION,
	CONFIG_CHECK,
	CONFIG_PRINT,
};

enum config_status {
	CONFIG_OK,
	CONFIG_INVALID, /* exit status 1 */
	CONFIG_USAGE,   /* exit status 2 */
};

/* One line without a newline: what is wrong, where, and what would be right. No secrets. */
struct config_error {
	char text[1024];
};

/*
 * Reads everything: file, environment (`envp`), arguments; the later stands. Checks values
 * and how they go together, reads the password and the token file. Warnings (an unknown
 * BREAKERD_ variable) go to log, which may be NULL. *action is set also where a bad
 * setting is found later. On CONFIG_OK *config is the caller's for config_free; otherwise it is NULL.
 */
enum config_status config_load(int argc, char *const argv[], char *const envp[], struct log *log,
			       enum config_action *action, struct config **config,
			       struct config_error *error);

void config_free(struct config *config);

/* --help and --version: the whole text. */
void config_print_help(FILE *out);
void config_print_version(FILE *out);

/* --print-config: a file that --config reads, each line with where its value came from
 * as a comment; secrets masked. */
void config_print(const struct config *config, FILE *out);

/*
 * For SIGHUP: the names, comma-separated, of settings that differ and only a restart
 * applies; "" if none. Cut to size.
 */
void config_needs_restart(const struct config *now, const struct config *next, char *out,
			  size_t size);

#endif
