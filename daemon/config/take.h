/* Taking a setting from a source, and saying which one is wrong. */
#ifndef BREAKERD_CONFIG_TAKE_H
#define BREAKERD_CONFIG_TAKE_H

#include "config/table.h"

/*
 * Takes one value of a source: the first one of a list drops what an earlier source gave.
 * False with the error set.
 */
bool take_value(struct config *config, const struct config_setting *setting,
		struct config_source source, const char *text, struct config_error *error);

/* The error of a setting that was given in `source` as `text`. Returns false, for `return`. */
bool take_blame(struct config_error *error, const struct config *config,
		const struct config_setting *setting, struct config_source source, const char *text,
		const char *why);

/* The same for the place that the setting of that name has its value from. */
bool take_blame_setting(struct config_error *error, const struct config *config, const char *name,
			const char *text, const char *why);

/* The same for a line in [policy section]. */
bool take_blame_section(struct config_error *error, const struct config *config,
			const struct config_section *section, unsigned line, const char *name,
			const char *text, const char *why);

/* slurp, of a path that a setting names; notes the file in `config`. */
bool take_file(struct config *config, const char *path, size_t max, char **text, size_t *len,
	       char *why, size_t why_size);

/* The setting of that name, which is in the table. */
const struct config_setting *take_setting(const char *name);

#endif
