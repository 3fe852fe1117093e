/* The table of settings, and their names. */
#include "config/table.h"

#include <ctype.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#define FIELD(member) .name = #member, .offset = offsetof(struct config, member)
/* Times are kept in milliseconds. */
#define TIME(member)                                                                               \
	.name = #member, .type = CONFIG_TIME, .offset = offsetof(struct config, member##_ms)
#define SECONDS(member)      TIME(member), .ms = 1000, .unit = "seconds"
#define MILLISECONDS(member) TIME(member), .ms = 1, .unit = "milliseconds"
/* A setting that sections may override. */
#define POLICY(member, where)                                                                      \
	.name = #member, .offset = offsetof(struct config_policy, where), .group = "Policy",       \
	.flags = CONFIG_LIVE | CONFIG_POLICY
#define POLICY_NUMBER(member)                                                                      \
	POLICY(member, policy.member), .type = CONFIG_NUMBER, .placeholder = "N"
#define POLICY_TIME(member)                                                                        \
	POLICY(member, policy.member##_ms), .type = CONFIG_TIME, .ms = 1, .placeholder = "TIME"

#define SECOND_MS 1000
#define MINUTE_MS (60 * SECOND_MS)
#define HOUR_MS   (60 * MINUTE_MS)
#define DAY_MS    (24 * HOUR_MS)

const struct config_setting config_settings[CONFIG_SETTINGS] = {
	{.name = "config",
	 .offset = offsetof(struct config, config_file),
	 .type = CONFIG_STRING,
	 .flags = CONFIG_NO_FILE | CONFIG_MAY_BE_EMPTY | CONFIG_LIVE,
	 .value = "",
	 .placeholder = "FILE",
	 .group = "Settings file",
	 .help = "read settings from this INI file",
	 .absent = "none"},
	{FIELD(reload_on_change), .type = CONFIG_BOOL, .flags = CONFIG_LIVE, .value = "no",
	 .choices = {"no", "yes"}, .placeholder = "YES", .group = "Settings file",
	 .help = "yes: reload when a file that the settings name changes"},

	{FIELD(listen), .type = CONFIG_LIST, .value = "127.0.0.1:8747", .check = check_listen,
	 .placeholder = "ADDRESS", .group = "Addresses and access",
	 .help = "host:port, [::1]:port or unix:/path; repeatable"},
	{FIELD(socket_mode), .type = CONFIG_MODE, .value = "0660", .max = 0777,
	 .placeholder = "MODE", .group = "Addresses and access",
	 .help = "permissions of a unix socket, octal"},
	{FIELD(report_listen), .type = CONFIG_LIST, .flags = CONFIG_MAY_BE_EMPTY, .value = "",
	 .check = check_report_listen, .placeholder = "ADDRESS", .group = "Addresses and access",
	 .help = "take reports from lines of access logs, sent as datagrams: unix:/path or "
		 "127.0.0.1:port; repeatable",
	 .absent = "none"},
	{FIELD(metrics_listen), .type = CONFIG_LIST, .flags = CONFIG_MAY_BE_EMPTY, .value = "",
	 .check = check_metrics_listen, .placeholder = "ADDRESS", .group = "Addresses and access",
	 .help = "serve /metrics, /healthz and /readyz alone, without a token: host:port; "
		 "repeatable",
	 .absent = "none"},
	{FIELD(token_file), .type = CONFIG_STRING, .flags = CONFIG_LIVE | CONFIG_MAY_BE_EMPTY,
	 .value = "", .placeholder = "FILE", .group = "Addresses and access",
	 .help = "clients must send the bearer token in this file", .absent = "none"},
	{FIELD(allowed_hosts), .type = CONFIG_LIST, .flags = CONFIG_LIVE | CONFIG_MAY_BE_EMPTY,
	 .value = "", .check = check_host, .placeholder = "HOST", .group = "Addresses and access",
	 .help = "names that a Host header may have; repeatable",
	 .absent = "the addresses listened on, localhost"},

	{FIELD(store), .type = CONFIG_STRING, .flags = CONFIG_SECRET, .value = "memory",
	 .check = check_store, .placeholder = "STORE", .group = "Store",
	 .help = "memory, or a redis://, redis+unix:// or redis-sentinel:// URL"},
	{FIELD(redis_password_file), .type = CONFIG_STRING, .flags = CONFIG_MAY_BE_EMPTY,
	 .value = "", .placeholder = "FILE", .group = "Store",
	 .help = "file with the password for Redis", .absent = "none"},
	{FIELD(prefix), .type = CONFIG_STRING, .flags = CONFIG_MAY_BE_EMPTY,
	 .value = "stoma:", .check = check_prefix, .placeholder = "TEXT", .group = "Store",
	 .help = "text before cb:{key} in the keys in Redis", .absent = "no prefix"},
	{SECONDS(ttl), .flags = CONFIG_LIVE, .value = "86400", .min = 1, .max = 315360000,
	 .placeholder = "SECONDS", .group = "Store",
	 .help = "forget a circuit this long after its last write"},
	{MILLISECONDS(store_timeout), .flags = CONFIG_LIVE, .value = "250", .min = 1, .max = 60000,
	 .placeholder = "MS", .group = "Store",
	 .help = "how many milliseconds a request waits for the store"},
	{.name = "on_store_failure",
	 .offset = offsetof(struct config, store_failure_local),
	 .type = CONFIG_BOOL,
	 .value = "local",
	 .choices = {"error", "local"},
	 .placeholder = "MODE",
	 .group = "Store",
	 .help = "while Redis is away: local serves from memory, error answers 503 or 504"},
	{MILLISECONDS(max_staleness), .flags = CONFIG_LIVE, .value = "100ms", .min = 0,
	 .max = 10 * SECOND_MS, .placeholder = "TIME", .group = "Store",
	 .help = "answer acquire from memory if the circuit was read from Redis within this time; "
		 "0: always ask Redis"},
	{FIELD(read_cache), .type = CONFIG_BOOL, .flags = CONFIG_LIVE, .value = "no",
	 .choices = {"no", "yes"}, .placeholder = "YES", .group = "Store",
	 .help = "yes: answer getState from memory in the same way"},
	{MILLISECONDS(report_interval), .flags = CONFIG_LIVE, .value = "100ms", .min = 0,
	 .max = 10 * SECOND_MS, .placeholder = "TIME", .group = "Store",
	 .help = "hold reports of success back for up to this time and send them to Redis "
		 "together; 0: send each at once"},
	{FIELD(state_file), .type = CONFIG_STRING, .flags = CONFIG_MAY_BE_EMPTY, .value = "",
	 .placeholder = "FILE", .group = "Store",
	 .help = "file that keeps the memory store, or what waits for Redis, across restarts",
	 .absent = "none"},

	{POLICY_NUMBER(consecutive_failures), .value = "5", .min = 0, .max = 1000000,
	 .unit = "failures", .help = "open after this many failures in a row; 0: off"},
	{POLICY_NUMBER(failure_rate), .value = "50", .min = 0, .max = 100, .unit = "percent",
	 .help = "open when this percentage of the calls in the window failed; 0: off"},
	{POLICY_TIME(slow_time), .value = "0", .min = 0, .max = HOUR_MS,
	 .help = "a call that takes this long is slow; 0: off"},
	{POLICY_NUMBER(slow_rate), .value = "100", .min = 1, .max = 100, .unit = "percent",
	 .help = "open when this percentage of the calls in the window was slow"},
	{POLICY_TIME(window), .value = "30s", .min = SECOND_MS, .max = HOUR_MS,
	 .help = "how far back the rates look"},
	{POLICY_NUMBER(min_calls), .value = "20", .min = 1, .max = 1000000, .unit = "calls",
	 .help = "calls in the window before the rates count"},
	{POLICY_NUMBER(min_reporters), .value = "1", .min = 1, .max = 16, .unit = "daemons",
	 .help = "how many daemons must have seen a failure or a slow call"},
	{POLICY_TIME(open_time), .value = "30s", .min = 10, .max = DAY_MS,
	 .help = "how long a circuit stays open"},
	{POLICY(open_growth, policy.open_growth_milli), .type = CONFIG_DECIMAL,
	 .placeholder = "FACTOR", .value = "2", .min = 1000, .max = 10000, .unit = "times",
	 .help = "each further opening without recovery lasts this many times as long"},
	{POLICY_TIME(open_time_max), .value = "5m", .min = 10, .max = 7 * DAY_MS,
	 .help = "the longest time that a circuit stays open"},
	{POLICY_NUMBER(probes), .value = "1", .min = 1, .max = POLICY_PROBES_MAX, .unit = "permits",
	 .help = "requests let through at once to see whether the upstream is back"},
	{POLICY_NUMBER(probe_successes), .value = "1", .min = 1, .max = 1000, .unit = "successes",
	 .help = "successful probes that close the circuit"},
	{POLICY_TIME(probe_timeout), .value = "30s", .min = 10, .max = HOUR_MS,
	 .help = "a probe that is not reported within this time is lost"},
	{POLICY(failure_status, failure_status), .type = CONFIG_STATUSES, .placeholder = "LIST",
	 .value = "500-599", .help = "HTTP statuses that are failures", .absent = "none"},
	{POLICY(ignore_status, ignore_status), .type = CONFIG_STATUSES, .placeholder = "LIST",
	 .value = "", .help = "HTTP statuses that are neither failure nor success",
	 .absent = "none"},
	{POLICY(enforce, policy.enforce), .type = CONFIG_BOOL, .placeholder = "YES", .value = "yes",
	 .choices = {"no", "yes"}, .help = "no: decide and count, but refuse nothing"},

	{FIELD(max_in_flight), .type = CONFIG_NUMBER, .flags = CONFIG_LIVE, .value = "10000",
	 .min = 1, .max = 1000000, .unit = "operations", .placeholder = "N", .group = "Limits",
	 .help = "operations that may wait for the store at once"},
	{FIELD(max_connections), .type = CONFIG_NUMBER, .flags = CONFIG_LIVE, .value = "1000",
	 .min = 1, .max = 100000, .unit = "connections", .placeholder = "N", .group = "Limits",
	 .help = "open HTTP connections; idle ones make room for new ones"},
	{FIELD(max_streams), .type = CONFIG_NUMBER, .flags = CONFIG_LIVE, .value = "100", .min = 0,
	 .max = 10000, .unit = "streams", .placeholder = "N", .group = "Limits",
	 .help = "open streams of events, beside max_connections"},
	{FIELD(max_circuits), .type = CONFIG_NUMBER, .flags = CONFIG_LIVE, .value = "1000000",
	 .min = 1, .max = 100000000, .unit = "circuits", .placeholder = "N", .group = "Limits",
	 .help = "circuits in the memory store"},
	{FIELD(metrics_circuits), .type = CONFIG_NUMBER, .flags = CONFIG_LIVE, .value = "100",
	 .min = 0, .max = 1000, .unit = "circuits", .placeholder = "N", .group = "Limits",
	 .help = "how many circuits that are not closed /metrics names, the longest open first"},
	{FIELD(max_head), .type = CONFIG_NUMBER, .value = "8192", .min = 4096, .max = 65536,
	 .unit = "bytes", .placeholder = "BYTES", .group = "Limits",
	 .help = "longest request line and headers, together"},
	{FIELD(max_body), .type = CONFIG_NUMBER, .flags = CONFIG_LIVE, .value = "65536", .min = 64,
	 .max = 16777216, .unit = "bytes", .placeholder = "BYTES", .group = "Limits",
	 .help = "longest request body"},
	{FIELD(max_unsent), .type = CONFIG_NUMBER, .flags = CONFIG_LIVE, .value = "67108864",
	 .min = 1048576, .max = 2147483647, .unit = "bytes", .placeholder = "BYTES",
	 .group = "Limits",
	 .help = "bytes of long answers that clients have not taken yet, in all"},
	{SECONDS(idle_timeout), .flags = CONFIG_LIVE, .value = "60", .min = 1, .max = 86400,
	 .placeholder = "SECONDS", .group = "Limits",
	 .help = "close a connection after this time without a request"},
	{SECONDS(request_timeout), .flags = CONFIG_LIVE, .value = "10", .min = 1, .max = 3600,
	 .placeholder = "SECONDS", .group = "Limits",
	 .help = "a whole request must arrive within this time"},

	{FIELD(log_level), .type = CONFIG_LEVEL, .flags = CONFIG_LIVE, .value = "info",
	 .choices = {"error", "warning", "info", "debug"}, .placeholder = "LEVEL",
	 .group = "Logging", .help = "error, warning, info or debug"},
	{.name = "log_format",
	 .offset = offsetof(struct config, log_json),
	 .type = CONFIG_BOOL,
	 .flags = CONFIG_LIVE,
	 .value = "text",
	 .choices = {"text", "json"},
	 .placeholder = "FORMAT",
	 .group = "Logging",
	 .help = "text, or json (one object a line)"},
};

size_t config_index(const struct config_setting *setting)
{
	return (size_t)(setting - config_settings);
}

const struct config_setting *config_find(const char *name, size_t len, bool dashes)
{
	for (size_t i = 0; i < CONFIG_SETTINGS; i++) {
		const char *known = config_settings[i].name;
		size_t at = 0;

		while (at < len && known[at] &&
		       name[at] == (dashes && known[at] == '_' ? '-' : known[at]))
			at++;
		if (at == len && !known[at])
			return &config_settings[i];
	}
	return NULL;
}

/* Compares a typed character with one of a name: "Store-Timeout" is close to store_timeout. */
static bool same_letter(char typed, char known)
{
	int c = tolower((unsigned char)typed);

	return (c == '-' ? '_' : c) == (known == '-' ? '_' : known);
}

static size_t min2(size_t a, size_t b)
{
	return a < b ? a : b;
}

/*
 * How many characters must be put in, left out, changed or swapped with their neighbour
 * (Levenshtein's distance, restricted to swaps of what is not edited twice).
 */
size_t config_distance(const char *name, size_t len, const char *known)
{
	size_t known_len = strlen(known);
	size_t rows[3][CONFIG_NAME_MAX];

	for (size_t j = 0; j <= known_len; j++)
		rows[0][j] = j;
	for (size_t i = 1; i <= len; i++) {
		size_t *row = rows[i % 3], *above = rows[(i + 2) % 3], *two = rows[(i + 1) % 3];

		row[0] = i;
		for (size_t j = 1; j <= known_len; j++) {
			bool differ = !same_letter(name[i - 1], known[j - 1]);

			row[j] = min2(min2(above[j] + 1, row[j - 1] + 1), above[j - 1] + differ);
			if (i > 1 && j > 1 && same_letter(name[i - 1], known[j - 2]) &&
			    same_letter(name[i - 2], known[j - 1]))
				row[j] = min2(row[j], two[j - 2] + 1);
		}
	}
	return rows[len % 3][known_len];
}

const char *config_nearest(const char *name, size_t len)
{
	const char *nearest = NULL;
	size_t best = CONFIG_DISTANCE(len);

	if (len >= CONFIG_NAME_MAX)
		return NULL;
	for (size_t i = 0; i < CONFIG_SETTINGS; i++) {
		size_t d = config_distance(name, len, config_settings[i].name);

		if (d < best) {
			best = d;
			nearest = config_settings[i].name;
		}
	}
	return nearest;
}

void config_variable(const struct config_setting *setting, char out[CONFIG_NAME_MAX])
{
	snprintf(out, CONFIG_NAME_MAX, "BREAKERD_%s", setting->name);
	for (char *p = out; *p; p++)
		*p = (char)toupper((unsigned char)*p);
}

void config_flag(const struct config_setting *setting, char out[CONFIG_NAME_MAX])
{
	snprintf(out, CONFIG_NAME_MAX, "%s", setting->name);
	for (char *p = out; *p; p++)
		if (*p == '_')
			*p = '-';
}
