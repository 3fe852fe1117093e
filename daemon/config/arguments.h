/* The command line. */
#ifndef BREAKERD_CONFIG_ARGUMENTS_H
#define BREAKERD_CONFIG_ARGUMENTS_H

#include "config/settings.h"

struct config_setting;

/*
 * Finds the action that is asked for, and in *value what follows its '=', in argv, or NULL.
 * --help and --version win over anything else, wrong options included; of other actions the first
 * one counts. CONFIG_USAGE, with the error set, if there is an unknown option.
 */
enum config_status arguments_action(int argc, char *const argv[], enum config_action *action,
				    const char **value, struct config_error *error);

/* Takes the settings on the command line, or with `only` that setting alone. False with the error
 * set. */
bool arguments_take(struct config *config, int argc, char *const argv[],
		    const struct config_setting *only, struct config_error *error);

#endif
