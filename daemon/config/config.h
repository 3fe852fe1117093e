/*
 * The settings. One table (table.c) describes them for the file with its policy sections, the
 * environment, the command line, --help, --check-config and --print-config.
 */
#ifndef BREAKERD_CONFIG_H
#define BREAKERD_CONFIG_H

#include "config/settings.h"

#include <stdio.h>

/*
 * Reads everything: the file, the environment, the arguments. A value of a later source replaces
 * one of an earlier source. Checks values and how they go together, reads the password and the
 * token file. On CONFIG_OK *config is to be freed with config_free; on failure it is NULL. *action
 * is set also if a setting turns out to be bad.
 *
 * CONFIG_HELP and CONFIG_VERSION, wherever they stand, return CONFIG_OK at once, with *config NULL.
 * With CONFIG_CHECK_READY no secret is read. If the option has an address, no settings are read at
 * all. Otherwise, if the settings file is wrong, file_error says why and only addresses are taken
 * from it.
 */
enum config_status config_load(const struct config_input *input, enum config_action *action,
			       struct config **config, struct config_error *error);

/* Warns of an unknown BREAKERD_ variable and of settings without effect. */
void config_warn(const struct config *config, const struct config_input *input, struct log *log);

/* Wipes the secrets. NULL is allowed. */
void config_free(struct config *config);

/* The text of --help and --version. */
void config_print_help(FILE *out);
void config_print_version(FILE *out);

/*
 * --print-config: prints a file that --config can read. A comment above each setting says where its
 * value came from. A password in `store` is printed as CONFIG_MASK, which config_load refuses as a
 * password; everything else reads back the same.
 */
void config_print(const struct config *config, FILE *out);

/*
 * For SIGHUP: writes the names, separated by commas, of the settings that differ and that only a
 * restart applies; "" if there are none. Cut to size. The content of redis_password_file counts
 * like its name.
 */
void config_needs_restart(const struct config *now, const struct config *next, char *out,
			  size_t size);

#endif
