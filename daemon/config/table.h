/* The table of settings, and their names. */
#ifndef BREAKERD_CONFIG_TABLE_H
#define BREAKERD_CONFIG_TABLE_H

#include "config/check.h"
#include "config/settings.h"

enum config_type {
	CONFIG_STRING,   /* char * */
	CONFIG_LIST,     /* struct config_list */
	CONFIG_NUMBER,   /* unsigned, from min to max */
	CONFIG_TIME,     /* int64_t milliseconds, from min to max times `ms` */
	CONFIG_DECIMAL,  /* uint32_t thousandths, from min to max */
	CONFIG_STATUSES, /* char[CONFIG_STATUSES_MAX + 1]: a list of HTTP statuses as written */
	CONFIG_MODE,     /* mode_t, octal, from min to max */
	CONFIG_BOOL,     /* bool: the first of `choices` is false, the second true */
	CONFIG_LEVEL,    /* enum log_level, by its name */
};

#define CONFIG_LIVE         0x1  /* SIGHUP applies it; else a restart does */
#define CONFIG_SECRET       0x2  /* its value is never shown in an error */
#define CONFIG_NO_FILE      0x4  /* not in the file */
#define CONFIG_MAY_BE_EMPTY 0x8  /* "" is a value */
#define CONFIG_POLICY       0x10 /* of a policy; in struct config_policy, and in sections too */

struct config_setting {
	const char *name;
	enum config_type type;
	unsigned flags;
	size_t offset;     /* in struct config, or in struct config_policy */
	const char *value; /* the default, as text */
	unsigned min, max; /* CONFIG_NUMBER, CONFIG_TIME, CONFIG_DECIMAL, CONFIG_MODE */
	unsigned ms;       /* CONFIG_TIME: milliseconds that a number without a unit counts */
	/* For people: what a number counts. Of a time: set if the setting was a plain number before
	 * times had units. It is printed as a plain number then. */
	const char *unit;
	const char *choices[5];
	config_check_fn *check; /* CONFIG_STRING, CONFIG_LIST; may be NULL */
	const char *placeholder;
	const char *group; /* the heading in --help */
	const char *help;
	const char *absent; /* what "" stands for, in --help and --print-config */
};

extern const struct config_setting config_settings[CONFIG_SETTINGS];

/* The setting of that name, or NULL. With `dashes` the name has '-' in place of '_'. */
const struct config_setting *config_find(const char *name, size_t len, bool dashes);

/* The setting's name that is spelled most like name[0..len), or NULL if none is close. */
const char *config_nearest(const char *name, size_t len);

/* How many edits name[0..len), shorter than CONFIG_NAME_MAX, is away from `known`. Fewer than
 * CONFIG_DISTANCE count as close. */
size_t config_distance(const char *name, size_t len, const char *known);
#define CONFIG_DISTANCE(len) ((len) / 3 < 3 ? (len) / 3 + 1 : 4)

/* The setting's index in config_settings and config.sources. */
size_t config_index(const struct config_setting *setting);

/* The setting's name as a variable, "BREAKERD_STORE_TIMEOUT", and as an option, "store-timeout". */
#define CONFIG_NAME_MAX 48
void config_variable(const struct config_setting *setting, char out[CONFIG_NAME_MAX]);
void config_flag(const struct config_setting *setting, char out[CONFIG_NAME_MAX]);

#endif
