#include "config/table.h"

#include "http/listen.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <limits.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define PREFIX_MAX 256

__attribute__((format(printf, 3, 4))) static bool refuse(char *why, size_t size, const char *fmt,
							 ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(why, size, fmt, ap);
	va_end(ap);
	return false;
}

static bool check_listen(const char *text, char out[CONFIG_VALUE_MAX + 1], char *why, size_t size)
{
	struct listen_error error;
	size_t len = strlen(text);
	bool local;

	if (!listen_parse(text, &local, &error)) {
		/* the caller says which address */
		bool named = strncmp(error.text, text, len) == 0 &&
			     strncmp(error.text + len, ": ", 2) == 0;

		return refuse(why, size, "%s", error.text + (named ? len + 2 : 0));
	}
	memcpy(out, text, len + 1);
	return true;
}

static bool host_name(const char *text)
{
	size_t label = 0, len = strlen(text);

	if (len == 0 || len > 253)
		return false;
	for (size_t i = 0; i < len; i++) {
		unsigned char c = (unsigned char)text[i];

		if (c == '.' && label == 0)
			return false;
		if (c != '.' && !isalnum(c) && c != '-' && c != '_')
			return false;
		label = c == '.' ? 0 : label + 1;
		if (label > 63)
			return false;
	}
	return label > 0;
}

/* A name in lower case, or an address in the one form that inet_ntop gives it. */
static bool check_host(const char *text, char out[CONFIG_VALUE_MAX + 1], char *why, size_t size)
{
	char bare[CONFIG_ITEM_MAX + 1];
	struct in6_addr address;
	size_t len = strlen(text);

	snprintf(bare, sizeof(bare), "%s", text);
	if (len > 2 && text[0] == '[' && text[len - 1] == ']') {
		memcpy(bare, text + 1, len - 2);
		bare[len - 2] = '\0';
	}
	if (inet_pton(AF_INET6, bare, &address) == 1) {
		inet_ntop(AF_INET6, &address, out, INET6_ADDRSTRLEN);
		return true;
	}
	if (!host_name(text)) {
		if (strchr(text, ':'))
			return refuse(why, size,
				      "a host name or address without a port expected; "
				      "any port is accepted");
		return refuse(why, size, "neither a host name nor an address");
	}
	for (size_t i = 0; i <= len; i++)
		out[i] = (char)tolower((unsigned char)text[i]);
	return true;
}

bool config_url_password(const char *url, size_t *start, size_t *len)
{
	const char *rest = strstr(url, "://"), *at, *colon;

	if (!rest || strncasecmp(url, "redis+unix:", 11) == 0)
		return false;
	at = strrchr(rest, '@');
	colon = strchr(rest + 3, ':');
	if (!at || !colon || colon + 1 >= at)
		return false;
	*start = (size_t)(colon + 1 - url);
	*len = (size_t)(at - colon - 1);
	return true;
}

static bool check_store(const char *text, char out[CONFIG_VALUE_MAX + 1], char *why, size_t size)
{
	struct redis_target target;
	size_t start, len;
	bool good;

	strcpy(out, text);
	if (strcmp(text, "memory") == 0)
		return true;
	if (!strstr(text, "://"))
		return refuse(why, size,
			      "memory, redis://host:6379/0, redis+unix:///path or "
			      "redis-sentinel://host:26379/master expected");
	if (config_url_password(text, &start, &len) && len == strlen(CONFIG_MASK) &&
	    memcmp(text + start, CONFIG_MASK, len) == 0)
		return refuse(why, size,
			      "the password " CONFIG_MASK " is the mask of --print-config: put the "
			      "real one there, or use redis_password_file");
	good = redis_target_parse(text, &target, why, size);
	explicit_bzero(&target, sizeof(target));
	return good;
}

static bool check_prefix(const char *text, char out[CONFIG_VALUE_MAX + 1], char *why, size_t size)
{
	if (strlen(text) > PREFIX_MAX)
		return refuse(why, size, "at most %d bytes", PREFIX_MAX);
	strcpy(out, text);
	return true;
}

#define FIELD(member) .name = #member, .offset = offsetof(struct config, member)

const struct config_setting config_settings[CONFIG_SETTINGS] = {
	{.name = "config",
	 .offset = offsetof(struct config, config_file),
	 .type = CONFIG_STRING,
	 .flags = CONFIG_NO_FILE | CONFIG_MAY_EMPTY | CONFIG_LIVE,
	 .value = "",
	 .placeholder = "FILE",
	 .group = "Settings file",
	 .help = "read settings from this INI file",
	 .absent = "none"},

	{FIELD(listen), .type = CONFIG_LIST, .value = "127.0.0.1:8747", .check = check_listen,
	 .placeholder = "ADDRESS", .group = "Addresses and access",
	 .help = "host:port, [::1]:port or unix:/path; repeatable"},
	{FIELD(socket_mode), .type = CONFIG_MODE, .value = "0660", .max = 0777,
	 .placeholder = "MODE", .group = "Addresses and access",
	 .help = "permissions of a unix socket, octal"},
	{FIELD(token_file), .type = CONFIG_STRING, .flags = CONFIG_LIVE | CONFIG_MAY_EMPTY,
	 .value = "", .placeholder = "FILE", .group = "Addresses and access",
	 .help = "ask clients for the bearer token in this file", .absent = "none"},
	{FIELD(allowed_hosts), .type = CONFIG_LIST, .flags = CONFIG_LIVE | CONFIG_MAY_EMPTY,
	 .value = "", .check = check_host, .placeholder = "HOST", .group = "Addresses and access",
	 .help = "names that a Host header may hold; repeatable",
	 .absent = "the addresses listened on, localhost"},

	{FIELD(store), .type = CONFIG_STRING, .flags = CONFIG_SECRET, .value = "memory",
	 .check = check_store, .placeholder = "STORE", .group = "Store",
	 .help = "memory, or a redis://, redis+unix:// or redis-sentinel:// URL"},
	{FIELD(redis_password_file), .type = CONFIG_STRING, .flags = CONFIG_MAY_EMPTY, .value = "",
	 .placeholder = "FILE", .group = "Store", .help = "the password for Redis is in this file",
	 .absent = "none"},
	{FIELD(prefix), .type = CONFIG_STRING, .flags = CONFIG_MAY_EMPTY,
	 .value = "stoma:", .check = check_prefix, .placeholder = "TEXT", .group = "Store",
	 .help = "before cb:{key} in the names of keys in Redis", .absent = "no prefix"},
	{FIELD(ttl), .type = CONFIG_NUMBER, .flags = CONFIG_LIVE, .value = "86400", .min = 1,
	 .max = 315360000, .unit = "seconds", .placeholder = "SECONDS", .group = "Store",
	 .help = "a circuit is forgotten this long after its last write"},
	{FIELD(store_timeout), .type = CONFIG_NUMBER, .flags = CONFIG_LIVE, .value = "250",
	 .min = 1, .max = 60000, .unit = "milliseconds", .placeholder = "MS", .group = "Store",
	 .help = "milliseconds that a request waits for the store"},
	{.name = "on_store_failure",
	 .offset = offsetof(struct config, store_failure_local),
	 .type = CONFIG_BOOL,
	 .value = "local",
	 .choices = {"error", "local"},
	 .placeholder = "MODE",
	 .group = "Store",
	 .help = "with Redis away: local goes on in memory, error answers 503 or 504"},
	{FIELD(state_file), .type = CONFIG_STRING, .flags = CONFIG_MAY_EMPTY, .value = "",
	 .placeholder = "FILE", .group = "Store",
	 .help = "keep the memory store here across restarts", .absent = "none"},

	{FIELD(max_in_flight), .type = CONFIG_NUMBER, .flags = CONFIG_LIVE, .value = "10000",
	 .min = 1, .max = 1000000, .unit = "operations", .placeholder = "N", .group = "Limits",
	 .help = "operations that wait for the store"},
	{FIELD(max_connections), .type = CONFIG_NUMBER, .flags = CONFIG_LIVE, .value = "1000",
	 .min = 1, .max = 100000, .unit = "connections", .placeholder = "N", .group = "Limits",
	 .help = "open HTTP connections; more wait to be accepted"},
	{FIELD(max_circuits), .type = CONFIG_NUMBER, .flags = CONFIG_LIVE, .value = "1000000",
	 .min = 1, .max = 100000000, .unit = "circuits", .placeholder = "N", .group = "Limits",
	 .help = "circuits in the memory store"},
	{FIELD(max_head), .type = CONFIG_NUMBER, .value = "8192", .min = 4096, .max = 65536,
	 .unit = "bytes", .placeholder = "BYTES", .group = "Limits",
	 .help = "the longest request line and headers together"},
	{FIELD(max_body), .type = CONFIG_NUMBER, .flags = CONFIG_LIVE, .value = "65536", .min = 64,
	 .max = 16777216, .unit = "bytes", .placeholder = "BYTES", .group = "Limits",
	 .help = "the longest request body"},
	{FIELD(idle_timeout), .type = CONFIG_NUMBER, .flags = CONFIG_LIVE, .value = "60", .min = 1,
	 .max = 86400, .unit = "seconds", .placeholder = "SECONDS", .group = "Limits",
	 .help = "a connection without a request is closed after this"},
	{FIELD(request_timeout), .type = CONFIG_NUMBER, .flags = CONFIG_LIVE, .value = "10",
	 .min = 1, .max = 3600, .unit = "seconds", .placeholder = "SECONDS", .group = "Limits",
	 .help = "a whole request must arrive within this"},

	{FIELD(log_level), .type = CONFIG_LEVEL, .flags = CONFIG_LIVE, .value = "info",
	 .choices = {"error", "warning", "info", "debug"}, .placeholder = "LEVEL",
	 .group = "Logging", .help = "error, warning, info or debug"},
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

static size_t min3(size_t a, size_t b, size_t c)
{
	size_t m = a < b ? a : b;

	return m < c ? m : c;
}

/* How many characters must be put in, left out or changed (Levenshtein). */
static size_t distance(const char *name, size_t len, const char *known)
{
	size_t known_len = strlen(known);
	size_t row[CONFIG_NAME_MAX];

	for (size_t j = 0; j <= known_len; j++)
		row[j] = j;
	for (size_t i = 1; i <= len; i++) {
		int c = tolower((unsigned char)name[i - 1]);
		size_t diagonal = row[0];

		row[0] = i;
		for (size_t j = 1; j <= known_len; j++) {
			bool differ = (c == '-' ? '_' : c) != known[j - 1];
			size_t above = row[j];

			row[j] = min3(above + 1, row[j - 1] + 1, diagonal + differ);
			diagonal = above;
		}
	}
	return row[known_len];
}

const char *config_nearest(const char *name, size_t len)
{
	const char *nearest = NULL;
	size_t best = len / 3 < 3 ? len / 3 + 1 : 4;

	if (len >= CONFIG_NAME_MAX)
		return NULL;
	for (size_t i = 0; i < CONFIG_SETTINGS; i++) {
		size_t d = distance(name, len, config_settings[i].name);

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

static void *field(struct config *config, const struct config_setting *setting)
{
	return (char *)config + setting->offset;
}

static const void *const_field(const struct config *config, const struct config_setting *setting)
{
	return (const char *)config + setting->offset;
}

/* What no value may be, from whatever source: the file could not hold it. */
static bool sound(const char *text, char *why, size_t size)
{
	size_t len = strlen(text);

	if (len > CONFIG_VALUE_MAX)
		return refuse(why, size, "longer than %d bytes", CONFIG_VALUE_MAX);
	for (const char *p = text; *p; p++) {
		if ((unsigned char)*p < 0x20 && *p != '\t')
			return refuse(why, size, "a control character in the value");
		if (*p == 0x7f)
			return refuse(why, size, "a control character in the value");
		if (p > text && (*p == ';' || *p == '#') && isblank((unsigned char)p[-1]))
			return refuse(
				why, size,
				"white space before '%c': a comment stands on a line of its own",
				*p);
	}
	if (len > 0 && (isblank((unsigned char)text[0]) || isblank((unsigned char)text[len - 1])))
		return refuse(why, size, "white space at an end of the value");
	return true;
}

/* Digits only: no sign, no blank, nothing behind. False too when over UINT_MAX. */
static bool parse_digits(const char *text, unsigned base, unsigned *out)
{
	uint64_t n = 0;

	if (!*text)
		return false;
	for (const char *p = text; *p; p++) {
		if (*p < '0' || *p >= (char)('0' + base))
			return false;
		if (n <= UINT_MAX)
			n = n * base + (unsigned)(*p - '0');
	}
	*out = n > UINT_MAX ? UINT_MAX : (unsigned)n;
	return true;
}

static bool set_number(struct config *config, const struct config_setting *s, const char *text,
		       char *why, size_t size)
{
	unsigned n;

	if (!parse_digits(text, 10, &n))
		return refuse(why, size, "not a whole number, %u to %u %s", s->min, s->max,
			      s->unit);
	if (n < s->min || n > s->max)
		return refuse(why, size, "out of range, %u to %u %s", s->min, s->max, s->unit);
	*(unsigned *)field(config, s) = n;
	return true;
}

static bool set_mode(struct config *config, const struct config_setting *s, const char *text,
		     char *why, size_t size)
{
	unsigned n;

	if (!parse_digits(text, 8, &n) || n < s->min || n > s->max)
		return refuse(why, size, "not a mode, octal from %04o to %04o", s->min, s->max);
	*(mode_t *)field(config, s) = (mode_t)n;
	return true;
}

static bool set_choice(struct config *config, const struct config_setting *s, const char *text,
		       char *why, size_t size)
{
	char list[128] = "";
	size_t i;

	for (i = 0; s->choices[i]; i++) {
		if (strcmp(s->choices[i], text) == 0)
			break;
		snprintf(list + strlen(list), sizeof(list) - strlen(list), "%s%s",
			 i == 0              ? ""
			 : s->choices[i + 1] ? ", "
					     : " or ",
			 s->choices[i]);
	}
	if (!s->choices[i])
		return refuse(why, size, "%s expected", list);
	if (s->type == CONFIG_BOOL)
		*(bool *)field(config, s) = i == 1;
	else
		*(enum log_level *)field(config, s) = (enum log_level)i;
	return true;
}

static bool set_string(struct config *config, const struct config_setting *s, const char *text,
		       char *why, size_t size)
{
	char kept[CONFIG_VALUE_MAX + 1];
	char **at = field(config, s), *copy;

	if (!*text && !(s->flags & CONFIG_MAY_EMPTY))
		return refuse(why, size, "must not be empty");
	if (!s->check)
		strcpy(kept, text);
	else if (!s->check(text, kept, why, size))
		return false;
	copy = strdup(kept);
	explicit_bzero(kept, sizeof(kept));
	if (!copy)
		return refuse(why, size, "out of memory");
	free(*at);
	*at = copy;
	return true;
}

static bool add_item(struct config *config, const struct config_setting *s, unsigned line,
		     const char *item, char *why, size_t size)
{
	struct config_list *list = field(config, s);
	char kept[CONFIG_VALUE_MAX + 1], reason[512];

	if (strlen(item) > CONFIG_ITEM_MAX)
		return refuse(why, size, "an item is longer than %d bytes", CONFIG_ITEM_MAX);
	if (!s->check(item, kept, reason, sizeof(reason)))
		return refuse(why, size, "%s: %s", item, reason);
	for (size_t i = 0; i < list->count; i++)
		if (strcmp(list->items[i], kept) == 0)
			return true;
	if (list->count == CONFIG_LIST_MAX)
		return refuse(why, size, "more than %d", CONFIG_LIST_MAX);
	list->items[list->count] = strdup(kept);
	if (!list->items[list->count])
		return refuse(why, size, "out of memory");
	list->lines[list->count++] = line;
	return true;
}

/* Items are apart by commas or white space. */
static bool add_items(struct config *config, const struct config_setting *s, unsigned line,
		      const char *text, char *why, size_t size)
{
	static const char apart[] = ", \t";
	char item[CONFIG_VALUE_MAX + 1];
	size_t items = 0;

	for (text += strspn(text, apart); *text; text += strspn(text, apart)) {
		size_t len = strcspn(text, apart);

		memcpy(item, text, len);
		item[len] = '\0';
		text += len;
		items++;
		if (!add_item(config, s, line, item, why, size))
			return false;
	}
	if (items == 0 && !(s->flags & CONFIG_MAY_EMPTY))
		return refuse(why, size, "must not be empty");
	return true;
}

bool config_set(struct config *config, const struct config_setting *setting, unsigned line,
		const char *text, char *why, size_t why_size)
{
	if (!sound(text, why, why_size))
		return false;
	switch (setting->type) {
	case CONFIG_STRING:
		return set_string(config, setting, text, why, why_size);
	case CONFIG_LIST:
		return add_items(config, setting, line, text, why, why_size);
	case CONFIG_NUMBER:
		return set_number(config, setting, text, why, why_size);
	case CONFIG_MODE:
		return set_mode(config, setting, text, why, why_size);
	case CONFIG_BOOL:
	case CONFIG_LEVEL:
		return set_choice(config, setting, text, why, why_size);
	}
	return false;
}

void config_clear(struct config *config, const struct config_setting *setting)
{
	struct config_list *list = field(config, setting);

	if (setting->type != CONFIG_LIST)
		return;
	while (list->count > 0)
		free(list->items[--list->count]);
}

bool config_get(const struct config *config, const struct config_setting *setting, size_t i,
		char out[CONFIG_VALUE_MAX + 1])
{
	const size_t size = CONFIG_VALUE_MAX + 1;
	const void *at = const_field(config, setting);
	const struct config_list *list = at;

	if (i >= (setting->type == CONFIG_LIST ? list->count : 1))
		return false;
	switch (setting->type) {
	case CONFIG_STRING:
		snprintf(out, size, "%s", *(char *const *)at);
		break;
	case CONFIG_LIST:
		snprintf(out, size, "%s", list->items[i]);
		break;
	case CONFIG_NUMBER:
		snprintf(out, size, "%u", *(const unsigned *)at);
		break;
	case CONFIG_MODE:
		snprintf(out, size, "%04o", (unsigned)*(const mode_t *)at);
		break;
	case CONFIG_BOOL:
		snprintf(out, size, "%s", setting->choices[*(const bool *)at]);
		break;
	case CONFIG_LEVEL:
		snprintf(out, size, "%s", setting->choices[*(const enum log_level *)at]);
		break;
	}
	return true;
}

unsigned config_line(const struct config *config, const struct config_setting *setting, size_t i)
{
	const struct config_list *list = const_field(config, setting);

	if (setting->type == CONFIG_LIST && i < list->count)
		return list->lines[i];
	return config->sources[config_index(setting)].line;
}

bool config_same(const struct config *a, const struct config *b,
		 const struct config_setting *setting)
{
	char one[CONFIG_VALUE_MAX + 1], other[CONFIG_VALUE_MAX + 1];

	for (size_t i = 0;; i++) {
		bool has_one = config_get(a, setting, i, one);

		if (has_one != config_get(b, setting, i, other))
			return false;
		if (!has_one)
			return true;
		if (strcmp(one, other) != 0)
			return false;
	}
}
