/* Taking a setting from a source, and error messages that name the setting. */
#ifndef BREAKERD_CONFIG_TAKE_H
#define BREAKERD_CONFIG_TAKE_H

#include "config/table.h"

/*
 * Takes a value from a source. Of a list, the first value from a source replaces all that an
 * earlier source gave. False with the error set.
 */
bool take_value(struct config *config, const struct config_setting *setting,
		struct config_source source, const char *text, struct config_error *error);

/* Sets the error: the setting, given in `source` as `text`, is wrong. Returns false, to be used in
 * `return`. */
bool take_blame(struct config_error *error, const struct config *config,
		const struct config_setting *setting, struct config_source source, const char *text,
		const char *why);

/* The same, for the setting of that name and the source that it has its value from. */
bool take_blame_setting(struct config_error *error, const struct config *config, const char *name,
			const char *text, const char *why);

/* The same, for a line in a section [policy NAME]. */
bool take_blame_section(struct config_error *error, const struct config *config,
			const struct config_section *section, unsigned line, const char *name,
			const char *text, const char *why);

/* slurp for a path that a setting names. Notes the file in config->files. */
bool take_file(struct config *config, const char *path, size_t max, char **text, size_t *len,
	       char *why, size_t why_size);

/* The setting of that name, which is in the table. */
const struct config_setting *take_setting(const char *name);

#endif
