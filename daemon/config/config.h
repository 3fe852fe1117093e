/*
 * The settings: one table (in config.c) behind the file, the environment, the command
 * line, --help, --check-config and --print-config.
 */
#ifndef BREAKERD_CONFIG_H
#define BREAKERD_CONFIG_H

#include "base/log.h"
#include "http/http.h"
#include "redis/target.h"

#include <stdbool.h>
#include <stdio.h>
#include <sys/types.h>

/* A list of words: `listen`, `allowed_hosts`. */
#define CONFIG_LIST_MAX 32
struct config_list {
	char *items[CONFIG_LIST_MAX];
	unsigned lines[CONFIG_LIST_MAX]; /* in the file, if from there */
	size_t count;
};

/* Where a value came from; a later one stands. */
enum config_origin {
	CONFIG_FROM_DEFAULT,
	CONFIG_FROM_FILE,
	CONFIG_FROM_ENVIRONMENT,
	CONFIG_FROM_ARGUMENTS,
};

struct config_source {
	enum config_origin origin;
	unsigned line; /* CONFIG_FROM_FILE; of a list, its first */
};

/* How many settings there are. */
#define CONFIG_SETTINGS 20

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
	unsigned max_head;        /* bytes */
	unsigned max_body;        /* bytes */
	unsigned idle_timeout;    /* seconds */
	unsigned request_timeout; /* seconds */
	char *state_file;
	char *token_file;
	/* Lower case, addresses as inet_ntop(3) writes them and without brackets. Empty: the
	 * addresses listened on, and localhost. */
	struct config_list allowed_hosts;
	enum log_level log_level;

	struct config_source sources[CONFIG_SETTINGS]; /* in the order of the table */

	bool again; /* read on SIGHUP */

	/* Derived while reading. */
	bool store_is_redis;
	struct redis_target redis; /* if so; the password of redis_password_file in it */
	char *token; /* what token_file holds, without its trailing newline; or NULL */
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

/* Where settings come from. */
struct config_input {
	int argc;
	char *const *argv;
	char *const *envp; /* may be NULL */
	/* On SIGHUP. Files are read without waiting, and must be regular: a pipe that was read
	 * at the start would now seem to be empty, and a token so be gone. */
	bool reload;
};

/* One line without a newline: what is wrong, where, and what would be right. No secrets. */
struct config_error {
	char text[1024];
};

/*
 * Reads everything: file, environment, arguments; the later stands. Checks values
 * and how they go together, reads the password and the token file. Warnings (an unknown
 * BREAKERD_ variable, a setting without effect) go to log, which may be NULL; none with
 * CONFIG_CHECK. *action is set also where a bad setting is found later; CONFIG_HELP and
 * CONFIG_VERSION, wherever they stand, return CONFIG_OK at once with *config NULL. Otherwise,
 * on CONFIG_OK *config is the caller's for config_free, and on failure it is NULL.
 */
enum config_status config_load(const struct config_input *input, struct log *log,
			       enum config_action *action, struct config **config,
			       struct config_error *error);

/* Wipes the secrets. NULL is allowed. */
void config_free(struct config *config);

/* --help and --version: the whole text. */
void config_print_help(FILE *out);
void config_print_version(FILE *out);

/*
 * --print-config: a file that --config reads, over each setting a comment that says where
 * its value came from. A password in `store` is masked as CONFIG_MASK, which config_load
 * refuses as a password; everything else reads back the same.
 */
#define CONFIG_MASK "***"
void config_print(const struct config *config, FILE *out);

/*
 * For SIGHUP: the names, comma-separated, of settings that differ and only a restart
 * applies; "" if none. Cut to size. What redis_password_file holds counts with its name.
 */
void config_needs_restart(const struct config *now, const struct config *next, char *out,
			  size_t size);

#endif
