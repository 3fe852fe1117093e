/* Settings in the environment: BREAKERD_NAME. */
#ifndef BREAKERD_CONFIG_ENVIRONMENT_H
#define BREAKERD_CONFIG_ENVIRONMENT_H

#include "config/table.h"

/* Takes the setting if its variable is set; envp may be NULL. False with the error set. */
bool environment_take(struct config *config, char *const envp[],
		      const struct config_setting *setting, struct config_error *error);

/*
 * Warns of BREAKERD_ variables that are no setting, unless Kubernetes or Docker's links have set
 * them for a service whose name is breakerd or begins with breakerd-.
 */
void environment_warn(char *const envp[], struct log *log);

#endif
