/* Checks of single values that are text: addresses, host names, the store, patterns, statuses. */
#ifndef BREAKERD_CONFIG_CHECK_H
#define BREAKERD_CONFIG_CHECK_H

#include "proto/policy.h"

#include <stdbool.h>
#include <stddef.h>

/* The longest value, and so the longest path, in bytes. */
#define CONFIG_VALUE_MAX 4000
/* The longest item of a list. */
#define CONFIG_ITEM_MAX 512

/*
 * Checks a string, or one item of a list, and writes it to out as it is to be kept. False, with the
 * reason in why, if it will not do.
 */
typedef bool config_check_fn(const char *text, char out[CONFIG_VALUE_MAX + 1], char *why,
			     size_t why_size);

config_check_fn check_listen;
config_check_fn check_report_listen;  /* the same, and loopback or a unix socket */
config_check_fn check_metrics_listen; /* no unix socket */
config_check_fn check_host;
config_check_fn check_store;
config_check_fn check_prefix;
config_check_fn check_pattern;  /* of `keys` */
config_check_fn check_statuses; /* a whole list: "500-599, 429" */

/* The checks that hold for every value, wherever it was given: the settings file must be able to
 * hold it. */
bool check_sound(const char *text, char *why, size_t why_size);

/* Reads a list of statuses, which check_statuses has passed. */
void check_read_statuses(const char *text, struct policy_statuses *out);

/* Finds the password in the value of `store`; false if there is none, or an empty one. */
bool check_url_password(const char *url, size_t *start, size_t *len);

/* Writes why. Returns false, to be used in `return`. */
bool check_refuse(char *why, size_t why_size, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

#endif
