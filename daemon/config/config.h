/*
 * The settings: one table (table.c) behind the file with its policy sections, the
 * environment, the command line, --help, --check-config and --print-config.
 */
#ifndef BREAKERD_CONFIG_H
#define BREAKERD_CONFIG_H

#include "config/settings.h"

#include <stdio.h>

/*
 * Reads everything: file, environment, arguments; the later stands. Checks values
 * and how they go together, reads the password and the token file. *action is set also
 * where a bad setting is found later; CONFIG_HELP and CONFIG_VERSION, wherever they stand, return
 * CONFIG_OK at once with *config NULL. With CONFIG_CHECK_READY no secret is read and nothing is
 * warned of; what is wrong with the settings file is noted in `unread` and its other addresses are
 * taken; if it has an address, no settings are read at all. Otherwise, on CONFIG_OK *config is
 * the caller's for config_free, and on failure it is NULL.
 */
enum config_status config_load(const struct config_input *input, enum config_action *action,
			       struct config **config, struct config_error *error);

/* Warns of an unknown BREAKERD_ variable and of settings without effect. */
void config_warn(const struct config *config, const struct config_input *input, struct log *log);

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
void config_print(const struct config *config, FILE *out);

/*
 * For SIGHUP: the names, comma-separated, of settings that differ and only a restart
 * applies; "" if none. Cut to size. What redis_password_file holds counts with its name.
 */
void config_needs_restart(const struct config *now, const struct config *next, char *out,
			  size_t size);

#endif
