/* The settings file: an INI file, parsed by libinih. */
#ifndef BREAKERD_CONFIG_FILE_H
#define BREAKERD_CONFIG_FILE_H

#include "config/settings.h"

/* Reads config->config_file. False with the error set. */
bool file_read(struct config *config, struct config_error *error);

/*
 * Takes `listen` and `metrics_listen` from config->config_file, and nothing else. Wrong lines are
 * skipped, and a file that cannot be read counts as empty. Returns true.
 */
bool file_read_addresses(struct config *config, struct config_error *error);

#endif
