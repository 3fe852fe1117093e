/* The settings as data: the structs that the table describes and all of config/ fills and reads. */
#ifndef BREAKERD_CONFIG_SETTINGS_H
#define BREAKERD_CONFIG_SETTINGS_H

#include "base/file_watch.h"
#include "base/log.h"
#include "proto/policy_set.h"
#include "redis/target.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

/* A list of words: `listen`, `allowed_hosts`, `keys` of a policy. */
#define CONFIG_LIST_MAX 32
struct config_list {
	char *items[CONFIG_LIST_MAX];
	unsigned lines[CONFIG_LIST_MAX]; /* of each item in the file, if it is from there */
	size_t count;
};

/* Where a value came from. A later source replaces an earlier one. */
enum config_origin {
	CONFIG_FROM_DEFAULT,
	CONFIG_FROM_FILE,
	CONFIG_FROM_ENVIRONMENT,
	CONFIG_FROM_ARGUMENTS,
};

struct config_source {
	enum config_origin origin;
	unsigned line; /* CONFIG_FROM_FILE: of a list, that of its first item */
};

/* How many settings there are. */
#define CONFIG_SETTINGS 46

/* The settings of a policy. */
#define CONFIG_STATUSES_MAX 255
struct config_policy {
	struct policy policy; /* policies_finish sets its two sets of statuses, from these: */
	char failure_status[CONFIG_STATUSES_MAX + 1]; /* as written */
	char ignore_status[CONFIG_STATUSES_MAX + 1];
};

/* A section [policy NAME]. */
#define CONFIG_SECTIONS_MAX     64
#define CONFIG_SECTION_NAME_MAX 32
struct config_section {
	char name[CONFIG_SECTION_NAME_MAX + 1];
	unsigned line;                   /* of its heading */
	struct config_list keys;         /* patterns */
	unsigned lines[CONFIG_SETTINGS]; /* where it gives a setting; 0: inherited */
	struct config_policy policy;     /* with what it inherits, after policies_finish */
};

/* One line without a newline: what is wrong, where, and what would be right. Has no secrets. */
struct config_error {
	char text[1024];
};

struct config {
	/* The settings. Strings are the config's own, and "" where nothing was set. */
	char *config_file;
	struct config_list listen;
	mode_t socket_mode;
	struct config_list report_listen;
	struct config_list metrics_listen;
	char *store;
	char *redis_password_file;
	char *prefix;
	int64_t ttl_ms;
	int64_t store_timeout_ms;
	bool store_failure_local;
	int64_t max_staleness_ms;
	bool read_cache;
	int64_t report_interval_ms;
	unsigned max_in_flight;
	unsigned max_connections;
	unsigned max_streams;
	unsigned max_circuits;
	unsigned metrics_circuits;
	unsigned max_head;   /* bytes */
	unsigned max_body;   /* bytes */
	unsigned max_unsent; /* bytes */
	int64_t idle_timeout_ms;
	int64_t request_timeout_ms;
	char *state_file;
	char *token_file;
	/* Names in lower case, and addresses as inet_ntop(3) writes them, without brackets. Empty:
	 * the addresses listened on, and localhost. */
	struct config_list allowed_hosts;
	enum log_level log_level;
	bool log_json;
	bool reload_on_change;
	struct config_policy policy; /* the default one, outside of sections */
	struct config_section *sections;
	size_t section_count;

	struct config_source sources[CONFIG_SETTINGS]; /* in the order of the table */

	const char *ready_address; /* of --check-ready=ADDRESS, in argv; NULL: none was given */
	struct config_error file_error; /* --check-ready: what is wrong with the file, or "" */
	bool only_checks;               /* --check-config */
	bool reload;                    /* read on SIGHUP */
	bool runs_in_memory;            /* then: as in struct config_input */

	/* The files that were read, and what they were then. */
	char *files[FILE_WATCH_MAX];
	struct file_stamp file_stamps[FILE_WATCH_MAX];
	size_t file_count;

	/* Derived while reading. */
	struct policy_set policies; /* the sections, then "default" */
	bool store_is_redis;
	struct redis_target redis; /* if so; with the password of redis_password_file */
	char *token; /* the tokens of token_file, with a newline between them; or NULL */
};

/* What the arguments ask for, beside settings. */
enum config_action {
	CONFIG_RUN,
	CONFIG_HELP,
	CONFIG_VERSION,
	CONFIG_CHECK,
	CONFIG_PRINT,
	CONFIG_CHECK_READY,
};

enum config_status {
	CONFIG_OK,
	CONFIG_INVALID, /* exit status 1 */
	CONFIG_USAGE,   /* exit status 2 */
};

/* Where settings come from. */
struct config_input {
	int argc;
	char *const *argv;
	char *const *envp; /* may be NULL */
	/* The settings are read again (reload.h). Files are read without waiting, and must be
	 * regular ones: a pipe that was read at the start would now seem to be empty, and its token
	 * to be gone. */
	bool reload;
	/* For a reload: the running store is memory, whatever the settings say now. */
	bool runs_in_memory;
};

/* What --print-config shows in place of a password; refused as one. */
#define CONFIG_MASK "***"

#endif
