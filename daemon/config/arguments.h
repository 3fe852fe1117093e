/* The command line. */
#ifndef BREAKERD_CONFIG_ARGUMENTS_H
#define BREAKERD_CONFIG_ARGUMENTS_H

#include "config/settings.h"

struct config_setting;

/*
 * What is asked for. --help and --version win over all that is wrong beside them; of the
 * others the first stands; *value is what stands behind its '=', in argv, or NULL. CONFIG_USAGE
 * with the error set for an option that is none.
 */
enum config_status arguments_action(int argc, char *const argv[], enum config_action *action,
				    const char **value, struct config_error *error);

/* Takes the settings on the command line, or `only` one of them. False with the error set. */
bool arguments_take(struct config *config, int argc, char *const argv[],
		    const struct config_setting *only, struct config_error *error);

#endif
