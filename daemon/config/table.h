/*
 * The table of settings, and values between their text and struct config. Only config*.c
 * include this.
 */
#ifndef BREAKERD_CONFIG_TABLE_H
#define BREAKERD_CONFIG_TABLE_H

#include "config/config.h"

/* The longest value, and so the longest path, in bytes. */
#define CONFIG_VALUE_MAX 4000
/* The longest item of a list. */
#define CONFIG_ITEM_MAX 512

enum config_type {
	CONFIG_STRING, /* char * */
	CONFIG_LIST,   /* struct config_list */
	CONFIG_NUMBER, /* unsigned, from min to max */
	CONFIG_MODE,   /* mode_t, octal, from min to max */
	CONFIG_BOOL,   /* bool: the first of `choices` is false, the second true */
	CONFIG_LEVEL,  /* enum log_level, by its name */
};

#define CONFIG_LIVE      0x1 /* SIGHUP applies it; else a restart does */
#define CONFIG_SECRET    0x2 /* its value is never shown in an error */
#define CONFIG_NO_FILE   0x4 /* not in the file */
#define CONFIG_MAY_EMPTY 0x8 /* "" is a value */

/*
 * Looks at a string or at one item of a list and writes it to out as it is to be kept.
 * False, with why it will not do in why.
 */
typedef bool config_check_fn(const char *text, char out[CONFIG_VALUE_MAX + 1], char *why,
			     size_t why_size);

struct config_setting {
	const char *name;
	enum config_type type;
	unsigned flags;
	size_t offset;     /* in struct config */
	const char *value; /* the default, as text */
	unsigned min, max; /* CONFIG_NUMBER, CONFIG_MODE */
	const char *unit;  /* CONFIG_NUMBER, for people: "milliseconds" */
	const char *choices[5];
	config_check_fn *check; /* CONFIG_STRING, CONFIG_LIST; may be NULL */
	const char *placeholder;
	const char *group; /* the heading in --help */
	const char *help;
	const char *absent; /* what "" stands for, in --help and --print-config */
};

extern const struct config_setting config_settings[CONFIG_SETTINGS];

/* The setting of that name, where '-' in name stands for '_' if dashes; or NULL. */
const struct config_setting *config_find(const char *name, size_t len, bool dashes);

/* The name that is spelled most like name[0..len), or NULL if none is close. */
const char *config_nearest(const char *name, size_t len);

/* Sets one to what text says; adds to a list. False with the reason in why. */
bool config_set(struct config *config, const struct config_setting *setting, unsigned line,
		const char *text, char *why, size_t why_size);

/* Makes a list empty; nothing for other types. */
void config_clear(struct config *config, const struct config_setting *setting);

/* The value as text: a list's item `i`, anything else with i = 0. False behind the last.
 * Unmasked. */
bool config_get(const struct config *config, const struct config_setting *setting, size_t i,
		char out[CONFIG_VALUE_MAX + 1]);

/* The line of the file that gave the value, or item `i` of a list. */
unsigned config_line(const struct config *config, const struct config_setting *setting, size_t i);

/* True if both hold the same value. */
bool config_same(const struct config *a, const struct config *b,
		 const struct config_setting *setting);

/* Finds the password in the value of `store`; false if there is none, or an empty one. */
bool config_url_password(const char *url, size_t *start, size_t *len);

/* The setting's place in config_settings and config.sources. */
size_t config_index(const struct config_setting *setting);

/* "BREAKERD_STORE_TIMEOUT" and "store-timeout". */
#define CONFIG_NAME_MAX 48
void config_variable(const struct config_setting *setting, char out[CONFIG_NAME_MAX]);
void config_flag(const struct config_setting *setting, char out[CONFIG_NAME_MAX]);

/* --- file.c */

/* Reads config->config_file. False with the error set. */
bool config_read_file(struct config *config, struct config_error *error);

/* --- config.c */

/*
 * Takes one value of a source: the first one of a list drops what an earlier source gave.
 * False with the error set.
 */
bool config_take(struct config *config, const struct config_setting *setting,
		 struct config_source source, const char *text, struct config_error *error);

#endif
