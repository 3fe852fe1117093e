#include "config/config.h"
#include "config/slurp.h"
#include "config/value.h"
#include "suite.h"

#include <check.h>
#include <ctype.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

/* A directory for one test, and the results of the last config_load. */
static char dir[64];
static struct config *config;
static struct config_error error;
static enum config_action action;
static char warnings[4096];
static struct config_input input;

static void keep_warning(void *arg, enum log_level level, const char *line)
{
	(void)arg;
	(void)level;
	snprintf(warnings + strlen(warnings), sizeof(warnings) - strlen(warnings), "%s\n", line);
}

static void setup(void)
{
	strcpy(dir, "/tmp/check_config.XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(dir));
	config = NULL;
	warnings[0] = '\0';
}

static void teardown(void)
{
	char command[128];

	config_free(config);
	snprintf(command, sizeof(command), "rm -r %s", dir);
	ck_assert_int_eq(system(command), 0);
}

/* Makes dir/name with that content. Returns its path, valid until four more files are made. */
static const char *file_of(const char *name, const char *content, size_t len)
{
	static char paths[4][128];
	static unsigned next;
	char *path = paths[next++ % 4];
	FILE *f;

	snprintf(path, sizeof(paths[0]), "%s/%s", dir, name);
	f = fopen(path, "w");
	ck_assert_ptr_nonnull(f);
	ck_assert_uint_eq(fwrite(content, 1, len, f), len);
	fclose(f);
	return path;
}

static const char *file(const char *name, const char *content)
{
	return file_of(name, content, strlen(content));
}

/* Loads a configuration. Words that begin with "BREAKERD_" go into the environment, the others are
 * arguments. */
static enum config_status load(const char *const *words)
{
	struct log log = {.level = LOG_LEVEL_DEBUG, .journal = 1, .sink = keep_warning};
	static char *argv[32], *envp[32]; /* static, because `input` points to them */
	int argc = 1, envc = 1;
	enum config_status status;

	argv[0] = "breakerd";
	envp[0] = "PATH=/bin";
	for (; *words; words++) {
		if (strncmp(*words, "BREAKERD_", 9) == 0)
			envp[envc++] = (char *)*words;
		else
			argv[argc++] = (char *)*words;
	}
	argv[argc] = envp[envc] = NULL;
	config_free(config);
	warnings[0] = '\0';
	input.argc = argc;
	input.argv = argv;
	input.envp = envp;
	status = config_load(&input, &action, &config, &error);
	if (config)
		config_warn(config, &input, &log);
	return status;
}

#define WORDS(...) ((const char *const[]){__VA_ARGS__, NULL})

#define ck_assert_load(...)                                                                        \
	ck_assert_msg(load(WORDS(__VA_ARGS__)) == CONFIG_OK, "refused: %s", error.text)

#define ck_assert_refused(how, text_, ...)                                                         \
	do {                                                                                       \
		ck_assert_int_eq(load(WORDS(__VA_ARGS__)), (how));                                 \
		ck_assert_ptr_null(config);                                                        \
		ck_assert_ptr_null(strchr(error.text, '\n'));                                      \
		ck_assert_msg(strstr(error.text, (text_)), "%s\n   lacks: %s", error.text,         \
			      (text_));                                                            \
	} while (0)

static const char *printed(const struct config *c)
{
	static char *text;
	size_t size;
	FILE *f;

	free(text);
	f = open_memstream(&text, &size);
	config_print(c, f);
	fclose(f);
	return text;
}

#define ck_assert_has(text, part)                                                                  \
	ck_assert_msg(strstr((text), (part)), "%.4000s\n   lacks: %s", (text), (part))

START_TEST(defaults_are_those_of_the_contract)
{
	ck_assert_load("--check-config");
	ck_assert_str_eq(config->config_file, "");
	ck_assert_uint_eq(config->listen.count, 1);
	ck_assert_str_eq(config->listen.items[0], "127.0.0.1:8747");
	ck_assert_uint_eq(config->socket_mode, 0660);
	ck_assert_str_eq(config->store, "memory");
	ck_assert(!config->store_is_redis);
	ck_assert_str_eq(config->redis_password_file, "");
	ck_assert_str_eq(config->prefix, "stoma:");
	ck_assert_uint_eq(config->ttl_ms, 86400 * 1000);
	ck_assert_uint_eq(config->store_timeout_ms, 250);
	ck_assert(config->store_failure_local);
	ck_assert_uint_eq(config->max_in_flight, 10000);
	ck_assert_uint_eq(config->max_connections, 1000);
	ck_assert_uint_eq(config->max_circuits, 1000000);
	ck_assert_uint_eq(config->max_head, 8192);
	ck_assert_uint_eq(config->max_body, 65536);
	ck_assert_uint_eq(config->idle_timeout_ms, 60 * 1000);
	ck_assert_uint_eq(config->request_timeout_ms, 10 * 1000);
	ck_assert_str_eq(config->state_file, "");
	ck_assert_str_eq(config->token_file, "");
	ck_assert_ptr_null(config->token);
	ck_assert_uint_eq(config->allowed_hosts.count, 0);
	ck_assert_int_eq(config->log_level, LOG_LEVEL_INFO);
	ck_assert(!config->log_json);
	ck_assert(!config->reload_on_change);
}
END_TEST

START_TEST(the_later_source_stands)
{
	const char *path = file("c", "ttl = 1\nstore_timeout = 1\nprefix = file:\n");
	char flag[160];

	snprintf(flag, sizeof(flag), "--config=%s", path);
	ck_assert_load(flag, "BREAKERD_TTL=2", "BREAKERD_STORE_TIMEOUT=2", "--store-timeout=3");
	ck_assert_str_eq(config->config_file, path);
	ck_assert_str_eq(config->prefix, "file:");
	ck_assert_uint_eq(config->ttl_ms, 2 * 1000);
	ck_assert_uint_eq(config->store_timeout_ms, 3);
	ck_assert_has(printed(config), "c:3\nprefix = file:\n");
	ck_assert_has(printed(config), "# from BREAKERD_TTL\nttl = 2\n");
	ck_assert_has(printed(config), "# from the command line\nstore_timeout = 3\n");
	ck_assert_has(printed(config), "# default\nmax_body = 65536\n");
}
END_TEST

START_TEST(the_file_is_named_by_environment_or_argument)
{
	const char *one = file("one", "ttl = 1\n"), *two = file("two", "ttl = 2\n");
	char variable[160], flag[160];

	snprintf(variable, sizeof(variable), "BREAKERD_CONFIG=%s", one);
	snprintf(flag, sizeof(flag), "--config=%s", two);
	ck_assert_load(variable);
	ck_assert_uint_eq(config->ttl_ms, 1000);
	ck_assert_load(variable, flag);
	ck_assert_uint_eq(config->ttl_ms, 2 * 1000);
	ck_assert_load(variable, "--config=");
	ck_assert_uint_eq(config->ttl_ms, 86400 * 1000);
	ck_assert_refused(CONFIG_INVALID, "/none: No such file", "--config=/none");
	ck_assert_refused(CONFIG_INVALID, "/: Is a directory", "--config=/");
	file("bad", "ttl = 1\nconfig = /etc/x\n");
	snprintf(flag, sizeof(flag), "--config=%s/bad", dir);
	ck_assert_refused(CONFIG_INVALID, "bad:2: config: names this file", flag);
}
END_TEST

START_TEST(every_value_is_read)
{
	const char *text = "# a comment\n"
			   "; another\n"
			   "   # and one indented\n"
			   "\n"
			   "[breakerd]\n"
			   "listen=127.0.0.1:1\r\n"
			   "listen = [::1]:2, unix:/run/x\n"
			   "socket_mode = 600\n"
			   "store   =   memory   \n"
			   "prefix = a=b:c;d#e\n"
			   "ttl\t=\t1\n"
			   "store_timeout = 2\n"
			   "on_store_failure = error\n"
			   "max_in_flight = 3\n"
			   "max_connections = 4\n"
			   "max_circuits = 5\n"
			   "max_head = 5000\n"
			   "max_body = 66\n"
			   "idle_timeout = 7\n"
			   "request_timeout = 8\n"
			   "state_file = /var/lib/x y\n"
			   "allowed_hosts = Gateway.Example [::0:1]\n"
			   "allowed_hosts = 10.0.0.1,FE80::1\n"
			   "log_level = debug";

	ck_assert_load("--config", file("c", text));
	ck_assert_uint_eq(config->listen.count, 3);
	ck_assert_str_eq(config->listen.items[0], "127.0.0.1:1");
	ck_assert_str_eq(config->listen.items[1], "[::1]:2");
	ck_assert_str_eq(config->listen.items[2], "unix:/run/x");
	ck_assert_uint_eq(config->socket_mode, 0600);
	ck_assert_str_eq(config->store, "memory");
	ck_assert_str_eq(config->prefix, "a=b:c;d#e");
	ck_assert_uint_eq(config->ttl_ms, 1000);
	ck_assert_uint_eq(config->store_timeout_ms, 2);
	ck_assert(!config->store_failure_local);
	ck_assert_uint_eq(config->max_in_flight, 3);
	ck_assert_uint_eq(config->max_connections, 4);
	ck_assert_uint_eq(config->max_circuits, 5);
	ck_assert_uint_eq(config->max_head, 5000);
	ck_assert_uint_eq(config->max_body, 66);
	ck_assert_uint_eq(config->idle_timeout_ms, 7 * 1000);
	ck_assert_uint_eq(config->request_timeout_ms, 8 * 1000);
	ck_assert_str_eq(config->state_file, "/var/lib/x y");
	ck_assert_uint_eq(config->allowed_hosts.count, 4);
	ck_assert_str_eq(config->allowed_hosts.items[0], "gateway.example");
	ck_assert_str_eq(config->allowed_hosts.items[1], "::1");
	ck_assert_str_eq(config->allowed_hosts.items[2], "10.0.0.1");
	ck_assert_str_eq(config->allowed_hosts.items[3], "fe80::1");
	ck_assert_int_eq(config->log_level, LOG_LEVEL_DEBUG);
}
END_TEST

START_TEST(a_later_list_replaces_an_earlier_one)
{
	const char *path = file("c", "listen = 127.0.0.1:1\nlisten = 127.0.0.1:2\n"
				     "allowed_hosts = a, b\n");

	ck_assert_load("--config", path);
	ck_assert_uint_eq(config->listen.count, 2);
	ck_assert_uint_eq(config->allowed_hosts.count, 2);
	ck_assert_has(printed(config), "c:1\nlisten = 127.0.0.1:1\n");
	ck_assert_has(printed(config), "c:2\nlisten = 127.0.0.1:2\n");
	ck_assert_load("--config", path, "BREAKERD_LISTEN=127.0.0.1:3, 127.0.0.1:4 127.0.0.1:5",
		       "--allowed-hosts=");
	ck_assert_uint_eq(config->listen.count, 3);
	ck_assert_str_eq(config->listen.items[2], "127.0.0.1:5");
	ck_assert_uint_eq(config->allowed_hosts.count, 0);
	ck_assert_load("--config", path, "BREAKERD_LISTEN=127.0.0.1:3", "--listen=127.0.0.1:6",
		       "--listen", "127.0.0.1:7");
	ck_assert_uint_eq(config->listen.count, 2);
	ck_assert_str_eq(config->listen.items[0], "127.0.0.1:6");
	ck_assert_str_eq(config->listen.items[1], "127.0.0.1:7");
	/* An item that is given twice counts once. */
	ck_assert_load("--listen=127.0.0.1:6,127.0.0.1:6");
	ck_assert_uint_eq(config->listen.count, 1);
}
END_TEST

START_TEST(a_list_has_a_bound)
{
	char text[1024] = "--allowed-hosts=";

	for (int i = 0; i < CONFIG_LIST_MAX; i++)
		sprintf(text + strlen(text), "h%d,", i);
	ck_assert_load(text);
	ck_assert_uint_eq(config->allowed_hosts.count, CONFIG_LIST_MAX);
	ck_assert_refused(CONFIG_INVALID, "more than 32", text, "--allowed-hosts=one-more");
}
END_TEST

/* Name, value, and a part of the error; the test gives each in file, environment and arguments. */
static const struct {
	const char *name, *value, *why;
} bad_values[] = {
	{"store_timeout", "0", "out of range, 1 to 60000 milliseconds"},
	{"store_timeout", "60001", "out of range, 1 to 60000 milliseconds"},
	{"store_timeout", "4294967546", "out of range, 1 to 60000 milliseconds"},
	{"store_timeout", "18446744073709551866", "out of range, 1 to 60000 milliseconds"},
	{"store_timeout", "99999999999999999999999999", "out of range, 1 to 60000 milliseconds"},
	{"store_timeout", "+5", "not a time: a number, with ms, s, m, h or d behind it"},
	{"store_timeout", "-5", "not a time"},
	{"store_timeout", "0x10", "not a time"},
	{"store_timeout", "5x", "not a time"},
	{"store_timeout", "5 s", "not a time"},
	{"store_timeout", "s", "not a time"},
	{"store_timeout", ".5s", "not a time"},
	{"store_timeout", "1.s", "not a time"},
	{"store_timeout", "5sm", "not a time"},
	{"store_timeout", "1.5", "finer than a millisecond, 1 to 60000 milliseconds"},
	{"store_timeout", "0.0015s", "finer than a millisecond"},
	{"store_timeout", "1.00000000001ms", "finer than a millisecond"},
	{"store_timeout", "1.1m", "out of range"},
	{"store_timeout", "9007199254740993d", "out of range"},
	{"ttl", "1.0005s", "finer than a millisecond"},
	{"ttl", "999ms", "out of range, 1 to 315360000 seconds"},
	{"max_body", "+500", "not a whole number, 64 to 16777216 bytes"},
	{"max_body", "500s", "not a whole number"},
	{"max_body", "500.5", "not a whole number"},
	{"max_body", "18446744073709551866", "out of range"},
	{"open_growth", "0.999", "out of range, 1 to 10 times"},
	{"open_growth", "10.001", "out of range"},
	{"open_growth", "1.0005", "finer than a thousandth"},
	{"open_growth", "2x", "not a number, 1 to 10 times"},
	{"open_time", "9ms", "out of range, 10ms to 1d"},
	{"window", "61m", "out of range, 1s to 1h"},
	{"failure_rate", "101", "out of range, 0 to 100 percent"},
	{"failure_status", "600", "600: statuses and ranges of them expected, 100 to 599"},
	{"failure_status", "99", "99: statuses"},
	{"failure_status", "599-500", "599-500: statuses"},
	{"failure_status", "500-", "500-: statuses"},
	{"failure_status", "429, 5xx", "5xx: statuses"},
	{"failure_status", "5000", "5000: statuses"},
	{"failure_status", "500,,501", "a comma with nothing before it"},
	{"failure_status", "500, , 501", "a comma with nothing before it"},
	{"failure_status", "500, 501,", "a comma with nothing behind it"},
	{"ignore_status", ",404", "a comma with nothing before it"},
	{"enforce", "true", "no or yes expected"},
	{"state_file", "a # comment", "a comment stands on a line of its own"},
	{"prefix", "\"stoma:\"", "quotes would be part of the value: leave them out"},
	{"prefix", "'stoma:'", "quotes would be part"},
	{"state_file", "\"\"", "quotes would be part"},
	{"listen", "\"127.0.0.1:1\", \"127.0.0.1:2\"", "quotes would be part"},
	{"socket_mode", "0888", "not a mode, octal from 0000 to 0777"},
	{"socket_mode", "1777", "not a mode, octal from 0000 to 0777"},
	{"on_store_failure", "retry", "error or local expected"},
	{"log_level", "Info", "error, warning, info or debug expected"},
	{"listen", ",", "must not be empty"},
	{"listen", ":8747", ":8747: the host is missing; 127.0.0.1:8747 for this host alone"},
	{"listen", "8747", "8747: the host is missing; 127.0.0.1:8747 for this host alone"},
	{"listen", "127.0.0.1:99999", "127.0.0.1:99999"},
	{"listen", "unix:run/x", "absolute path"},
	{"metrics_listen", "unix:/run/x", "host:port expected"},
	{"metrics_listen", "9747", "the host is missing"},
	{"store", "redis://h1:1,h2:2", "redis-sentinel://host:26379,host:26379/master, and"},
	{"store", "redis://u:p@h1,h2/3", "a cluster is not supported"},
	{"store", "redis-cluster://h1,h2", "Redis Cluster (redis-cluster://) is not supported"},
	{"allowed_hosts", "example.com:80", "without a port"},
	{"allowed_hosts", "a..b", "a..b: neither a host name nor an address"},
	{"allowed_hosts", "http://x", "without a port"},
	{"allowed_hosts", "*", "*: neither a host name nor an address"},
	{"store", "Memory", "memory, redis://host:6379/0"},
	{"store", "http://h", "not redis://"},
	{"store", "redis://h:0", "the port must be a number"},
	{"store", "redis://:***@h", "the mask of --print-config"},
	{"prefix", "a\x7f", "a control character"},
	{"state_file", "a\tb\x01", "a control character"},
};

START_TEST(a_bad_value_is_refused_from_each_source)
{
	const char *name = bad_values[_i].name, *value = bad_values[_i].value;
	const char *why = bad_values[_i].why;
	bool secret = strcmp(name, "store") == 0;
	char text[256], want[256], variable[64], flag[64];

	config_variable(config_find(name, strlen(name), false), variable);
	config_flag(config_find(name, strlen(name), false), flag);

	snprintf(text, sizeof(text), "# one\n\n%s = %s\n", name, value);
	snprintf(want, sizeof(want), "%s/c:3: %s%s", dir, name, secret ? ": " : " = ");
	ck_assert_refused(CONFIG_INVALID, why, "--config", file("c", text));
	ck_assert_msg(strncmp(error.text, want, strlen(want)) == 0, "%s", error.text);

	snprintf(text, sizeof(text), "%s=%s", variable, value);
	snprintf(want, sizeof(want), "%s%s", variable, secret ? ": " : "=");
	ck_assert_refused(CONFIG_INVALID, why, text);
	ck_assert_msg(strncmp(error.text, want, strlen(want)) == 0, "%s", error.text);

	snprintf(text, sizeof(text), "--%s=%s", flag, value);
	snprintf(want, sizeof(want), "--%s%s", flag, secret ? ": " : "=");
	ck_assert_refused(CONFIG_INVALID, why, text);
	ck_assert_msg(strncmp(error.text, want, strlen(want)) == 0, "%s", error.text);
}
END_TEST

START_TEST(the_words_of_an_error)
{
	char want[256];

	ck_assert_refused(CONFIG_INVALID, "", "--config", file("c", "\nstore_timeout = 0\n"));
	snprintf(want, sizeof(want),
		 "%s/c:2: store_timeout = 0: out of range, 1 to 60000 milliseconds", dir);
	ck_assert_str_eq(error.text, want);
	ck_assert_refused(CONFIG_INVALID, "", "BREAKERD_STORE_TIMEOUT=0");
	ck_assert_str_eq(error.text,
			 "BREAKERD_STORE_TIMEOUT=0: out of range, 1 to 60000 milliseconds");
	ck_assert_refused(CONFIG_INVALID, "", "--store-timeout=0");
	ck_assert_str_eq(error.text, "--store-timeout=0: out of range, 1 to 60000 milliseconds");
	ck_assert_refused(CONFIG_INVALID, "", "--allowed-hosts=a,b:1");
	ck_assert_str_eq(error.text, "--allowed-hosts=a,b:1: b:1: a host name or address without a "
				     "port expected; any port is accepted");
}
END_TEST

/* An empty value in a file is an error; an empty variable counts as unset (the next test). */
START_TEST(nothing_in_a_file_is_refused)
{
	static const char *const names[] = {"store_timeout", "socket_mode", "on_store_failure",
					    "listen",        "store",       "max_body",
					    "window"};
	char text[64];

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		snprintf(text, sizeof(text), "%s =\n", names[i]);
		ck_assert_refused(CONFIG_INVALID, names[i], "--config", file("c", text));
	}
}
END_TEST

/* Compose files pass an empty variable for one that is not set in their own environment. */
START_TEST(an_empty_variable_is_none)
{
	ck_assert_load("BREAKERD_TTL=", "BREAKERD_STORE=", "BREAKERD_PREFIX=", "BREAKERD_CONFIG=",
		       "BREAKERD_TOKEN_FILE=", "BREAKERD_ALLOWED_HOSTS=", "BREAKERD_LOG_LEVEL=");
	ck_assert_str_eq(config->prefix, "stoma:");
	for (size_t i = 0; i < CONFIG_SETTINGS; i++)
		ck_assert_int_eq(config->sources[i].origin, CONFIG_FROM_DEFAULT);
	ck_assert_load("BREAKERD_TTL=", "--config", file("c", "ttl = 7\n"));
	ck_assert_int_eq(config->ttl_ms, 7000);
}
END_TEST

START_TEST(times_take_units)
{
	static const struct {
		const char *text;
		int64_t ms;
	} times[] = {{"250", 250},       {"250ms", 250}, {"0.5s", 500}, {"1s", 1000},
		     {"0.01m", 600},     {"1m", 60000},  {"1.000", 1},  {"0.0001h", 360},
		     {"0.0005d", 43200}, {"007", 7}};
	char flag[64];

	for (size_t i = 0; i < sizeof(times) / sizeof(times[0]); i++) {
		snprintf(flag, sizeof(flag), "--store-timeout=%s", times[i].text);
		ck_assert_load(flag);
		ck_assert_int_eq(config->store_timeout_ms, times[i].ms);
	}
	ck_assert_load("--ttl=90", "--idle-timeout=2m", "--request-timeout=2000ms");
	ck_assert_int_eq(config->ttl_ms, 90000);
	ck_assert_int_eq(config->idle_timeout_ms, 120000);
	ck_assert_int_eq(config->request_timeout_ms, 2000);
	ck_assert_has(printed(config), "\nidle_timeout = 120\n");
	ck_assert_load("--ttl=1.5s", "--idle-timeout=1.25", "--request-timeout=2.001s");
	ck_assert_int_eq(config->ttl_ms, 1500);
	ck_assert_int_eq(config->idle_timeout_ms, 1250);
	ck_assert_int_eq(config->request_timeout_ms, 2001);
	ck_assert_has(printed(config), "\nidle_timeout = 1250ms\n");
	ck_assert_load("--ttl=0.5d", "--window=1.5s", "--open-time=3600000", "--open-time-max=1h",
		       "--slow-time=0");
	ck_assert_int_eq(config->ttl_ms, 43200000);
	ck_assert_has(printed(config), "\nttl = 43200\n");
	ck_assert_has(printed(config), "\nwindow = 1500ms\n");
	ck_assert_has(printed(config), "\nopen_time = 1h\n");
	ck_assert_has(printed(config), "\nslow_time = 0\n");
}
END_TEST

START_TEST(a_bad_value_is_refused_even_where_a_later_one_stands)
{
	ck_assert_refused(CONFIG_INVALID, "BREAKERD_TTL=0", "BREAKERD_TTL=0", "--ttl=1");
}
END_TEST

START_TEST(numbers_hold_at_the_ends_of_their_ranges)
{
	for (size_t i = 0; i < CONFIG_SETTINGS; i++) {
		const struct config_setting *s = &config_settings[i];
		char flag[64], text[128], value[CONFIG_VALUE_MAX + 1];
		int64_t ends[] = {s->min, s->max, (int64_t)s->min - 1, (int64_t)s->max + 1};

		/* Not open_time and open_time_max, which limit each other. On Redis, because the
		 * embedded store has one reporter only. */
		if ((s->type != CONFIG_NUMBER && s->type != CONFIG_TIME) ||
		    strncmp(s->name, "open_time", 9) == 0)
			continue;
		config_flag(s, flag);
		for (int e = 0; e < 4; e++) {
			if (ends[e] < 0)
				continue;
			snprintf(text, sizeof(text), "--%s=%lld", flag, (long long)ends[e]);
			if (e >= 2) {
				ck_assert_refused(CONFIG_INVALID, "out of range", text,
						  "--store=redis://h");
				continue;
			}
			ck_assert_load(text, "--store=redis://h");
			ck_assert(value_get(value_const_base(config, s), s, 0, value));
			if (s->type == CONFIG_NUMBER || s->unit)
				ck_assert_str_eq(value, strchr(text, '=') + 1);
		}
	}
}
END_TEST

START_TEST(prefix_has_a_bound)
{
	char flag[400] = "--prefix=";

	memset(flag + 9, 'p', 256);
	ck_assert_load(flag);
	ck_assert_uint_eq(strlen(config->prefix), 256);
	flag[9 + 256] = 'p';
	ck_assert_refused(CONFIG_INVALID, "at most 256 bytes", flag);
	ck_assert_load("--prefix=");
	ck_assert_str_eq(config->prefix, "");
	ck_assert_refused(CONFIG_INVALID, "white space at an end", "--prefix= a");
	ck_assert_refused(CONFIG_INVALID, "a control character", "BREAKERD_PREFIX=a\nb");
}
END_TEST

static const struct {
	const char *text, *why;
} bad_files[] = {
	{"stor = memory\n", "c:1: \"stor\": unknown setting; did you mean store"},
	{"store-timeout = 1\n", "did you mean store_timeout"},
	{"zzzzzzzz = 1\n", "unknown setting; breakerd --help lists them"},
	{"ttl = 1\n# x\nttl = 2\n", "c:3: ttl: given on line 1 already"},
	{"ttl = 1\nttl = 1\n", "c:2: ttl: given on line 1 already"},
	{"prefix = a\n  b\n", "c:2: begins with white space"},
	{" ttl = 1\n", "c:1: begins with white space"},
	{"ttl: 1\n", "c:1: no setting: name = value expected"},
	{"listen: a=b\n", "c:1: no setting"},
	{"listen 127.0.0.1:1\n", "c:1: no setting"},
	{"ttl ; = 1\n", "c:1: no setting"},
	{"= 1\n", "c:1: no setting"},
	{"ttl\n= 1\n", "c:1: no setting"},
	{"[other]\nttl = 1\n", "c:1: the only sections are [policy NAME] and [breakerd]"},
	{"ttl = 1\n[other]\n", "c:2: the only sections are"},
	{"[breakerd\n", "c:1: no heading"},
	{"[\n", "c:1: no heading"},
	{"[]\n", "c:1: the only sections"},
	{"[breakerd] x\n", "c:1: no heading: [policy NAME] or [breakerd] expected, and nothing"},
	{"[breakerd] ; x\n", "c:1: no heading"},
	{"[breakerd]]\n", "c:1: no heading"},
	{"ttl = 5 ; seconds\n", "c:1: ttl: white space before ';': a comment stands"},
	{"ttl =;5\n", "c:1: ttl = ;5: begins with ';', as a comment does"},
	{"prefix =;5\n", "c:1: prefix = ;5: begins with ';'"},
	{"ttl = ;5\n", "c:1: ttl: white space before ';'"},
	{"keys = a\n", "c:1: keys: stands in a section [policy NAME] only"},
	{"prefix = a\rb\n", "c:1: prefix = a?b: a control character"},
};

START_TEST(a_bad_file_is_refused)
{
	ck_assert_refused(CONFIG_INVALID, bad_files[_i].why, "--config",
			  file("c", bad_files[_i].text));
}
END_TEST

START_TEST(a_nul_byte_is_refused)
{
	static const char in_value[] = "ttl = 1\nprefix = a\0b\n",
			  in_comment[] = "# a\0\nttl = 1\n";

	ck_assert_refused(CONFIG_INVALID, "c:2: a NUL byte", "--config",
			  file_of("c", in_value, sizeof(in_value) - 1));
	ck_assert_refused(CONFIG_INVALID, "c:1: a NUL byte", "--config",
			  file_of("c", in_comment, sizeof(in_comment) - 1));
}
END_TEST

START_TEST(a_byte_order_mark_is_skipped)
{
	ck_assert_load("--config", file("c", "\xef\xbb\xbfttl = 7\n"));
	ck_assert_uint_eq(config->ttl_ms, 7 * 1000);
	ck_assert_load("--config", file("c", "\xef\xbb\xbf"));
}
END_TEST

START_TEST(long_lines_are_read_whole_or_refused)
{
	char text[3 * CONFIG_VALUE_MAX], *end;

	/* libinih alone would cut these lines at 199 bytes. */
	strcpy(text, "# ");
	memset(text + 2, 'x', 1000);
	strcpy(text + 1002, "\nstate_file = /");
	end = text + strlen(text);
	memset(end, 'y', CONFIG_VALUE_MAX - 1);
	strcpy(end + CONFIG_VALUE_MAX - 1, "\nttl = 9\n");
	ck_assert_load("--config", file("c", text));
	ck_assert_uint_eq(strlen(config->state_file), CONFIG_VALUE_MAX);
	ck_assert_uint_eq(config->ttl_ms, 9 * 1000);

	/* A long value reaches libinih in pieces: put what it strips or skips at the beginning of a
	 * line at every place, so also at the beginning of a piece. */
	for (size_t at = 0; at < 7; at++) {
		for (size_t i = 0; i < CONFIG_VALUE_MAX - 2; i++)
			end[i] = "yy;#z w"[(i + at) % 7];
		end[CONFIG_VALUE_MAX - 2] = 'y';
		strcpy(end + CONFIG_VALUE_MAX - 1, "\n");
		ck_assert_load("--config", file("c", text));
		end[CONFIG_VALUE_MAX - 1] = '\0';
		ck_assert_str_eq(config->state_file, end - 1);
	}
	memset(end + 1, ' ', 500);
	strcpy(end + 501, "y\n");
	ck_assert_refused(CONFIG_INVALID, "c:2: too much white space", "--config", file("c", text));
	memset(end, 'y', CONFIG_VALUE_MAX);
	strcpy(end + CONFIG_VALUE_MAX - 1, "y\n");
	ck_assert_refused(CONFIG_INVALID, "c:2: state_file: a value longer than 4000 bytes",
			  "--config", file("c", text));
	memset(text, 'n', 1000);
	strcpy(text + 1000, " = 1\n");
	ck_assert_refused(CONFIG_INVALID, "c:1: nnnnnnnn", "--config", file("c", text));
	ck_assert_has(error.text, "n...: unknown setting");
}
END_TEST

START_TEST(a_large_file_is_refused)
{
	char *text = malloc(70000);

	memset(text, '\n', 70000);
	ck_assert_refused(CONFIG_INVALID, "c: larger than 65536 bytes", "--config",
			  file_of("c", text, 65537));
	ck_assert_load("--config", file_of("c", text, 65536));
	free(text);
	ck_assert_refused(CONFIG_INVALID, "larger than", "--config=/dev/zero");
}
END_TEST

/* --- files that are no regular files */

static const char *pipe_at(const char *name)
{
	static char path[128];

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	ck_assert_int_eq(mkfifo(path, 0600), 0);
	return path;
}

/* Starts a child that writes the text into a pipe after 20 ms, as a shell's <(...) may. */
static pid_t writer(const char *path, const char *text)
{
	pid_t child = fork();

	ck_assert_int_ge(child, 0);
	if (child == 0) {
		int fd = open(path, O_WRONLY);

		usleep(20000);
		_exit(fd < 0 || write(fd, text, strlen(text)) < 0);
	}
	return child;
}

START_TEST(the_start_reads_a_pipe)
{
	const char *path = pipe_at("pipe");
	pid_t child = writer(path, "ttl = 77\nprefix = a:\n");

	ck_assert_load("--config", path);
	ck_assert_uint_eq(config->ttl_ms, 77 * 1000);
	ck_assert_str_eq(config->prefix, "a:");
	ck_assert_int_eq(waitpid(child, NULL, 0), child);

	child = writer(path, "secret\n");
	ck_assert_load("--token-file", path);
	ck_assert_str_eq(config->token, "secret");
	ck_assert_int_eq(waitpid(child, NULL, 0), child);
}
END_TEST

START_TEST(a_pipe_that_nobody_writes_to_ends_the_start)
{
	alarm(20);
	ck_assert_refused(CONFIG_INVALID, "pipe: nothing came out of it within 5 s", "--config",
			  pipe_at("pipe"));
}
END_TEST

/* A reload neither waits for a pipe nor reads it as empty: without its settings there would be no
 * token. */
START_TEST(a_reload_refuses_what_cannot_be_read_twice)
{
	const char *path = pipe_at("pipe");
	pid_t child;

	alarm(4);
	input.reload = true;
	ck_assert_refused(CONFIG_INVALID, "pipe: no regular file", "--config", path);
	ck_assert_refused(CONFIG_INVALID, "BREAKERD_TOKEN_FILE=/dev/null: no regular", "--config",
			  file("c", ""), "BREAKERD_TOKEN_FILE=/dev/null");
	ck_assert_refused(CONFIG_INVALID, "restart to read it", "--token-file", path);
	ck_assert_refused(CONFIG_INVALID, "no regular file", "--redis-password-file", path,
			  "--store=redis://h");
	/* Also if the pipe has a writer, for which the reload would have to wait. */
	child = writer(path, "ttl = 77\n");
	ck_assert_refused(CONFIG_INVALID, "no regular file", "--config", path);
	kill(child, SIGKILL);
	ck_assert_int_eq(waitpid(child, NULL, 0), child);
	ck_assert_load("--config", file("c", "ttl = 78\n"));
	ck_assert_uint_eq(config->ttl_ms, 78 * 1000);
	input.reload = false;
}
END_TEST

START_TEST(wrong_usage)
{
	ck_assert_refused(CONFIG_USAGE, "\"--stor\": unknown option; did you mean --store?",
			  "--stor=redis://:secret@h");
	ck_assert_ptr_null(strstr(error.text, "secret"));
	ck_assert_has(error.text, "breakerd --help");
	ck_assert_refused(CONFIG_USAGE, "did you mean --store-timeout?", "--store_timeout=5");
	ck_assert_refused(CONFIG_USAGE, "did you mean --listen?", "-listen=5");
	ck_assert_refused(CONFIG_USAGE, "did you mean --store?", "--stroe=memory");
	ck_assert_refused(CONFIG_USAGE, "did you mean --ttl?", "--tlt=1");
	ck_assert_refused(CONFIG_USAGE, "did you mean --check-config?", "--chekc-config");
	ck_assert_refused(CONFIG_USAGE, "did you mean --help?", "--hlep");
	ck_assert_refused(CONFIG_USAGE, "\"-x\": unknown option", "-x");
	ck_assert_refused(CONFIG_USAGE, "\"-\": unexpected", "-");
	ck_assert_refused(CONFIG_USAGE, "\"start\": unexpected", "start");
	ck_assert_refused(CONFIG_USAGE, "an argument: unexpected", "redis://:secret@h");
	ck_assert_refused(CONFIG_USAGE, "unexpected", "--", "start");
	ck_assert_refused(CONFIG_USAGE, "--store: the value is missing: --store=STORE", "--store");
	ck_assert_refused(CONFIG_USAGE, "--help takes no value", "--help=1");
	ck_assert_refused(CONFIG_USAGE, "--check-config takes no value", "--check-config=1");
	ck_assert_refused(CONFIG_USAGE, "did you mean --check-ready?", "--check-redy");
	/* Wrong usage is reported before bad settings, in any order. */
	ck_assert_refused(CONFIG_USAGE, "--nonsense", "--ttl=0", "BREAKERD_TTL=0", "--nonsense");
	ck_assert_load("--ttl", "7", "--");
	ck_assert_uint_eq(config->ttl_ms, 7 * 1000);
}
END_TEST

START_TEST(actions)
{
	ck_assert_load("--ttl=1");
	ck_assert_int_eq(action, CONFIG_RUN);
	ck_assert_load("--check-config");
	ck_assert_int_eq(action, CONFIG_CHECK);
	ck_assert_load("--print-config", "--check-config");
	ck_assert_int_eq(action, CONFIG_PRINT);
	ck_assert_refused(CONFIG_INVALID, "--ttl=0", "--check-config", "--ttl=0");
	ck_assert_int_eq(action, CONFIG_CHECK);

	ck_assert_load("--check-ready", "--listen=0.0.0.0:1", "--token-file=/nonexistent");
	ck_assert_int_eq(action, CONFIG_CHECK_READY);
	ck_assert_ptr_null(config->ready_address);
	ck_assert_str_eq(config->listen.items[0], "0.0.0.0:1");
	ck_assert_load("--check-ready=unix:/a", "--config=/nonexistent", "--ttl=0");
	ck_assert_int_eq(action, CONFIG_CHECK_READY);
	ck_assert_str_eq(config->ready_address, "unix:/a");
	ck_assert_refused(CONFIG_INVALID, "--ttl=0", "--check-ready", "--ttl=0");

	ck_assert_load("--ttl=0", "--help", "--version", "BREAKERD_TTL=0");
	ck_assert_int_eq(action, CONFIG_HELP);
	ck_assert_ptr_null(config);
	ck_assert_load("--nonsense", "--check-config", "-V", "-h");
	ck_assert_int_eq(action, CONFIG_VERSION);
	/* As the value of an option, --help is no option. */
	ck_assert_load("--prefix", "--help");
	ck_assert_int_eq(action, CONFIG_RUN);
	ck_assert_str_eq(config->prefix, "--help");
}
END_TEST

START_TEST(unknown_variables_are_warned_of)
{
	ck_assert_load("BREAKERD_PORTS=1", "BREAKERD_STORE_TIMOUT=5", "BREAKERD_ttl=5");
	ck_assert_has(warnings, "<4>unknown_variable name=\"BREAKERD_PORTS\"");
	ck_assert_has(warnings, "name=\"BREAKERD_STORE_TIMOUT\" nearest=BREAKERD_STORE_TIMEOUT\n");
	ck_assert_has(warnings, "name=\"BREAKERD_ttl\" nearest=BREAKERD_TTL\n");
	ck_assert_uint_eq(config->ttl_ms, 86400 * 1000);
	ck_assert_load("BREAKERD_PORTS=1", "--check-config");
	ck_assert_has(warnings, "unknown_variable");
	/* The variables that Kubernetes sets for a Service named breakerd ... */
	ck_assert_load("BREAKERD_SERVICE_HOST=10.0.0.1", "BREAKERD_SERVICE_PORT=8747",
		       "BREAKERD_SERVICE_PORT_HTTP=8747", "BREAKERD_PORT=tcp://10.0.0.1:8747",
		       "BREAKERD_PORT_8747_TCP=tcp://10.0.0.1:8747",
		       "BREAKERD_PORT_8747_TCP_PROTO=tcp", "BREAKERD_PORT_8747_TCP_PORT=8747",
		       "BREAKERD_PORT_8747_TCP_ADDR=10.0.0.1");
	ck_assert_str_eq(warnings, "");
	/* ... or breakerd-metrics. */
	ck_assert_load("BREAKERD_METRICS_SERVICE_HOST=fd00::1",
		       "BREAKERD_METRICS_PORT=tcp://[fd00::1]:9747",
		       "BREAKERD_METRICS_PORT_9747_TCP_PROTO=tcp");
	ck_assert_str_eq(warnings, "");
	/* The same names with other values are mistakes. */
	ck_assert_load("BREAKERD_PORT=9000", "BREAKERD_SERVICE_HOST=example",
		       "BREAKERD_SERVICE_PORT=http");
	ck_assert_has(warnings, "BREAKERD_PORT");
	ck_assert_has(warnings, "BREAKERD_SERVICE_HOST");
	ck_assert_has(warnings, "BREAKERD_SERVICE_PORT");
	ck_assert_load("BREAKERD_PORT_8747_TCP_X=1", "BREAKERD_PORT_X_TCP=1", "BREAKERD_PORT_=1");
	ck_assert_has(warnings, "BREAKERD_PORT_8747_TCP_X");
	ck_assert_has(warnings, "BREAKERD_PORT_X_TCP");
	ck_assert_has(warnings, "\"BREAKERD_PORT_\"");
	ck_assert_load("BREAKERD_TTL=5");
	ck_assert_str_eq(warnings, "");
}
END_TEST

START_TEST(settings_without_effect_are_warned_of)
{
	ck_assert_load("--store=redis://h", "--state-file=/x", "--on-store-failure=error");
	ck_assert_has(warnings, "setting_unused name=state_file");
	ck_assert(strstr(warnings, "name=on_store_failure") == NULL);
	ck_assert_load("--store=redis://h", "--state-file=/x", "--on-store-failure=local");
	ck_assert_str_eq(warnings, "");
	ck_assert_load("--redis-password-file=/none", "--on-store-failure=error");
	ck_assert_has(warnings, "setting_unused name=redis_password_file");
	ck_assert_has(warnings, "setting_unused name=on_store_failure");
	ck_assert_load("--store=redis://h", "--on-store-failure=error");
	ck_assert_str_eq(warnings, "");
}
END_TEST

START_TEST(the_store_is_taken_apart)
{
	ck_assert_load("--store=redis://user:s%40crit@redis.example:6380/3");
	ck_assert(config->store_is_redis);
	ck_assert_int_eq(config->redis.kind, REDIS_TCP);
	ck_assert_str_eq(config->redis.hosts[0].host, "redis.example");
	ck_assert_uint_eq(config->redis.hosts[0].port, 6380);
	ck_assert_str_eq(config->redis.password, "s@crit");
	ck_assert_uint_eq(config->redis.db, 3);
}
END_TEST

START_TEST(a_secret_is_never_shown)
{
	ck_assert_refused(CONFIG_INVALID, "--store: ", "--store=redis://u:hunter2@h:99999");
	ck_assert_ptr_null(strstr(error.text, "hunter2"));
	ck_assert_refused(CONFIG_INVALID, "c:1: store: ", "--config",
			  file("c", "store = redis://u:hunter2@h:99999\n"));
	ck_assert_ptr_null(strstr(error.text, "hunter2"));
	ck_assert_refused(CONFIG_INVALID, "c:1: ", "--config",
			  file("c", "stroe redis://u:hunter2@h:99999\n"));
	ck_assert_ptr_null(strstr(error.text, "hunter2"));
	ck_assert_load("--store=redis://u:hunter2@h/1");
	ck_assert_has(printed(config), "store = redis://u:***@h/1\n");
	ck_assert_load("--store=redis-sentinel://:hunter2@h,i:2/m?db=1");
	ck_assert_has(printed(config), "store = redis-sentinel://:***@h,i:2/m?db=1\n");
	ck_assert_load("--store=redis+unix:///a:b@c");
	ck_assert_has(printed(config), "store = redis+unix:///a:b@c\n");
	ck_assert_load("--store=redis://u@h:6379");
	ck_assert_has(printed(config), "store = redis://u@h:6379\n");
	ck_assert_load("--store=redis://h", "--redis-password-file", file("p", "hunter2\n"),
		       "--token-file", file("t", "hunter3\n"));
	ck_assert_ptr_null(strstr(printed(config), "hunter"));
}
END_TEST

/* Each setting in turn, in each source, with values that contain a password. */
START_TEST(a_password_at_the_wrong_place_is_not_shown)
{
	static const char *const values[] = {
		"redis://u:hunter2@h",
		"redis://u:hunter2@h:99999",
		"redis://u:hunter2,x@h",
		"10, redis://u:hunter2 x@h, c",
		"u:hunter2@127.0.0.1:99999",
		("unix:/hunter2@/"
		 "0123456789012345678901234567890123456789012345678901234567890123456789"
		 "01234567890123456789012345678901234567890123456789"),
	};
	const struct config_setting *s = &config_settings[_i];
	const char *forms[] = {"%s = %s\n", "[policy a]\nkeys = a\n%s = %s\n",
			       "[policy a]\nkey = a\n%s = %s\n", "%s %s\n", "x%s = %s\n"};
	char name[CONFIG_NAME_MAX], argument[512], text[512];

	for (size_t i = 0; i < sizeof(values) / sizeof(values[0]); i++) {
		for (size_t n = 0; n < sizeof(forms) / sizeof(forms[0]); n++) {
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
			snprintf(text, sizeof(text), forms[n], s->name, values[i]);
#pragma GCC diagnostic pop
			error.text[0] = '\0';
			load(WORDS("--config", file("c", text)));
			ck_assert_msg(!strstr(error.text, "hunter2"), "%s", error.text);
			if (n > 0)
				ck_assert_has(error.text, "/c:");
		}
		if (strcmp(s->name, "config") == 0)
			continue; /* each message names the file */
		config_variable(s, name);
		snprintf(argument, sizeof(argument), "%s=%s", name, values[i]);
		error.text[0] = '\0';
		load(WORDS(argument));
		ck_assert_msg(!strstr(error.text, "hunter2"), "%s", error.text);
		config_flag(s, name);
		snprintf(argument, sizeof(argument), "--%s=%s", name, values[i]);
		error.text[0] = '\0';
		load(WORDS(argument));
		ck_assert_msg(!strstr(error.text, "hunter2"), "%s", error.text);
	}
	ck_assert_refused(CONFIG_INVALID, "c:3: [policy a] store: no setting of a policy",
			  "--config",
			  file("c", "[policy a]\nkeys = a\nstore = redis://u:hunter2@h\n"));
}
END_TEST

START_TEST(the_password_file)
{
	char big[600];

	ck_assert_load("--store=redis://u@h", "--redis-password-file", file("p", "pass word\n"));
	ck_assert_str_eq(config->redis.user, "u");
	ck_assert_str_eq(config->redis.password, "pass word");
	ck_assert_load("--store=redis://h", "--redis-password-file", file("p", "x\r\n"));
	ck_assert_str_eq(config->redis.password, "x");
	ck_assert_load("--store=redis://h", "--redis-password-file", file("p", "x"));
	ck_assert_str_eq(config->redis.password, "x");
	ck_assert_refused(CONFIG_INVALID, "store holds a password as well", "--store=redis://:y@h",
			  "--redis-password-file", file("p", "x"));
	ck_assert_refused(CONFIG_INVALID,
			  "--redis-password-file=/none/x: No such file or directory",
			  "--store=redis://h", "--redis-password-file=/none/x");
	ck_assert_refused(CONFIG_INVALID, "the file is empty", "--store=redis://h",
			  "--redis-password-file", file("p", "\n"));
	ck_assert_refused(CONFIG_INVALID, "one line", "--store=redis://h", "--redis-password-file",
			  file("p", "a\nb\n"));
	ck_assert_refused(CONFIG_INVALID, "NUL", "--store=redis://h", "--redis-password-file",
			  file_of("p", "a\0b", 3));
	memset(big, 'x', sizeof(big));
	ck_assert_load("--store=redis://h", "--redis-password-file", file_of("p", big, 511));
	ck_assert_uint_eq(strlen(config->redis.password), 511);
	ck_assert_refused(CONFIG_INVALID, "more than 511 bytes", "--store=redis://h",
			  "--redis-password-file", file_of("p", big, 512));
	ck_assert_refused(CONFIG_INVALID, "larger than", "--store=redis://h",
			  "--redis-password-file", file_of("p", big, 600));
}
END_TEST

START_TEST(the_token_file)
{
	char big[5000];

	ck_assert_load("--token-file", file("t", "aZ09-._~+/==\n"));
	ck_assert_str_eq(config->token, "aZ09-._~+/==");
	ck_assert_refused(CONFIG_INVALID, "--token-file=/none: No such file", "--token-file=/none");
	ck_assert_refused(CONFIG_INVALID, "is empty", "--token-file", file("t", ""));
	ck_assert_refused(CONFIG_INVALID, "is empty", "--token-file", file("t", "\n"));
	ck_assert_refused(CONFIG_INVALID, "RFC 6750", "--token-file", file("t", "a b\n"));
	ck_assert_refused(CONFIG_INVALID, "RFC 6750", "--token-file", file("t", "a=b"));
	ck_assert_refused(CONFIG_INVALID, "RFC 6750", "--token-file", file("t", "=="));
	ck_assert_refused(CONFIG_INVALID, "RFC 6750", "--token-file",
			  file("t", "gr\xc3\xbc\xc3\x9f"));
	ck_assert_refused(CONFIG_INVALID, "RFC 6750", "--token-file", file("t", "a\n\n"));
	ck_assert_refused(CONFIG_INVALID, "RFC 6750", "--token-file", file("t", "a\n\nb\n"));
	ck_assert_refused(CONFIG_INVALID, "RFC 6750", "--token-file", file("t", "a\nb c\n"));
	ck_assert_refused(CONFIG_INVALID, "RFC 6750", "--token-file", file("t", "a\rb\n"));
	ck_assert_load("--token-file", file("t", "a=\r\nb==\r\nc\r\n"));
	ck_assert_str_eq(config->token, "a=\nb==\nc");
	ck_assert_load("--token-file", file("t", "1\n2\n3\n4\n5\n6\n7\n8\n"));
	ck_assert_refused(CONFIG_INVALID, "more than 8 tokens", "--token-file",
			  file("t", "1\n2\n3\n4\n5\n6\n7\n8\n9"));
	memset(big, 'x', sizeof(big));
	ck_assert_load("--token-file", file_of("t", big, 4096));
	ck_assert_uint_eq(strlen(config->token), 4096);
	ck_assert_refused(CONFIG_INVALID, "more than 4096 bytes", "--token-file",
			  file_of("t", big, 4097));
	ck_assert_refused(CONFIG_INVALID, "more than 4096 bytes", "--token-file",
			  file_of("t", big, 5000));
	/* The token file is read after all settings, but the error still names the line. */
	ck_assert_refused(CONFIG_INVALID, "c:2: token_file = /none: No such file", "--config",
			  file("c", "ttl = 1\ntoken_file = /none\n"));
}
END_TEST

START_TEST(an_address_that_others_reach_needs_a_token)
{
	ck_assert_refused(CONFIG_INVALID,
			  "--listen=0.0.0.0:80: other hosts can reach this address: set token_file",
			  "--listen=127.0.0.1:1,0.0.0.0:80");
	ck_assert_refused(CONFIG_INVALID, "c:2: listen = [::]:80: other hosts", "--config",
			  file("c", "listen = 127.0.0.1:1\nlisten = [::]:80\n"));
	ck_assert_refused(CONFIG_INVALID, "other hosts", "--listen=example.com:80");
	ck_assert_load("--listen=127.0.0.1:1,[::1]:1,localhost:1,unix:/x");
	ck_assert_load("--listen=0.0.0.0:80", "--token-file", file("t", "x"));
}
END_TEST

/* Prints the configuration, loads the text as a file, and compares all settings. */
static void ck_assert_reads_back(void)
{
	struct config *was = config;
	const char *path = file("printed", printed(config));

	config = NULL;
	ck_assert_load("--config", path);
	for (size_t i = 0; i < CONFIG_SETTINGS; i++)
		ck_assert_msg(config_settings[i].flags & CONFIG_NO_FILE ||
				      config_same(was, config, &config_settings[i]),
			      "%s", config_settings[i].name);
	config_free(was);
}

START_TEST(what_is_printed_reads_back)
{
	ck_assert_load("--ttl=86400");
	ck_assert_reads_back();
	ck_assert_load("--listen=unix:/x,[::1]:80", "--listen=127.0.0.1:1", "--socket-mode=0600",
		       "--store=redis-sentinel://a,b:3/m?db=1", "--prefix=a;b#c = [d]", "--ttl=1",
		       "--state-file=x = y", "--on-store-failure=error", "--log-level=debug",
		       "--log-format=json", "--allowed-hosts=::1,b.c,1.2.3.4",
		       "BREAKERD_MAX_BODY=100");
	ck_assert_str_eq(config->prefix, "a;b#c = [d]");
	ck_assert_reads_back();
	ck_assert_load("--prefix=", "--token-file", file("t", "x"));
	ck_assert_reads_back();
	ck_assert_load("--open-growth=1.25", "--window=1500ms", "--slow-time=0.25s",
		       "--failure-status=500-599 429,408", "--ignore-status=", "--enforce=no",
		       "--open-time=24h", "--open-time-max=36h");
	ck_assert_reads_back();
}
END_TEST

START_TEST(a_masked_password_is_not_read_back)
{
	ck_assert_load("--store=redis://:pw@h");
	ck_assert_refused(CONFIG_INVALID, "the mask of --print-config", "--config",
			  file("printed", printed(config)));
}
END_TEST

START_TEST(what_needs_a_restart)
{
	struct config *now;
	char names[256], cut[12];

	ck_assert_load("--store=redis://h", "--redis-password-file", file("p", "one"));
	now = config;
	config = NULL;
	ck_assert_load("--store=redis://h", "--redis-password-file", file("p", "one"),
		       "--log-level=debug", "--log-format=json", "--reload-on-change=yes",
		       "--store-timeout=1", "--ttl=1", "--max-in-flight=1", "--max-circuits=1",
		       "--max-connections=1", "--max-body=100", "--idle-timeout=1",
		       "--request-timeout=1", "--token-file", file("t", "x"), "--allowed-hosts=x");
	config_needs_restart(now, config, names, sizeof(names));
	ck_assert_str_eq(names, "");
	ck_assert_load("--store=redis://h", "--redis-password-file", file("p", "two"));
	config_needs_restart(now, config, names, sizeof(names));
	ck_assert_str_eq(names, "redis_password_file");
	ck_assert_load("--store=memory", "--listen=127.0.0.1:1", "--socket-mode=0600", "--prefix=x",
		       "--on-store-failure=error", "--state-file=/x");
	config_needs_restart(now, config, names, sizeof(names));
	ck_assert_str_eq(names, "listen, socket_mode, store, redis_password_file, prefix, "
				"on_store_failure, state_file");
	config_needs_restart(now, config, cut, sizeof(cut));
	ck_assert_str_eq(cut, "listen, soc");
	config_needs_restart(now, now, names, sizeof(names));
	ck_assert_str_eq(names, "");
	config_free(now);
}
END_TEST

static char *text_of(void (*print)(FILE *))
{
	char *text;
	size_t size;
	FILE *f = open_memstream(&text, &size);

	print(f);
	fclose(f);
	return text;
}

START_TEST(help_names_everything_in_80_columns)
{
	char *help = text_of(config_print_help), flag[CONFIG_NAME_MAX], want[128];

	for (size_t i = 0; i < CONFIG_SETTINGS; i++) {
		const struct config_setting *s = &config_settings[i];

		config_flag(s, flag);
		snprintf(want, sizeof(want), "\n  --%s=%s ", flag, s->placeholder);
		ck_assert_has(help, want);
		snprintf(want, sizeof(want), "[%s]", *s->value ? s->value : s->absent);
		ck_assert_has(help, want);
	}
	ck_assert_has(help, "\n  --check-config ");
	ck_assert_has(help, "\n  --print-config ");
	ck_assert_has(help, "\n  --check-ready[=ADDRESS] ");
	ck_assert_has(help, "\nExample:\n");
	for (char *line = strtok(help, "\n"); line; line = strtok(NULL, "\n"))
		ck_assert_msg(strlen(line) <= 80 && !isspace((unsigned char)line[strlen(line) - 1]),
			      "%s", line);
	free(help);
}
END_TEST

START_TEST(version_names_the_libraries)
{
	char *text = text_of(config_print_version);

	ck_assert_int_eq(strncmp(text, "breakerd " BREAKERD_VERSION "\n", 10), 0);
	ck_assert_has(text, "\nlibevent 2.");
	ck_assert_has(text, ", libmicrohttpd ");
	ck_assert_has(text, ", hiredis ");
	ck_assert_has(text, ", jansson 2.");
	ck_assert_has(text, " systemd\n");
	free(text);
}
END_TEST

START_TEST(level_names_are_the_log_s)
{
	const struct config_setting *s = config_find("log_level", 9, false);

	for (int i = 0; s->choices[i]; i++)
		ck_assert_str_eq(s->choices[i], log_level_name((enum log_level)i));
}
END_TEST

/* --- the shipped file and the manual pages agree with the table of settings */

static char *read_text(const char *path)
{
	char why[128], *text = NULL;
	struct file_stamp stamp;
	size_t len;

	ck_assert_msg(slurp(path, 200000, false, &text, &len, &stamp, why, sizeof(why)), "%s: %s",
		      path, why);
	return text;
}

/* True if `mark` is in the paragraph of `text` that `end` is in, before `end`. A paragraph starts
 * with `begin`. */
static bool is_marked(const char *text, const char *end, const char *begin, const char *mark)
{
	const char *from = text, *next;

	ck_assert_ptr_nonnull(end);
	while ((next = strstr(from, begin)) && next < end)
		from = next + 1;
	next = strstr(from, mark);
	return next && next < end;
}

/* The range as text, without the unit; "" for none. */
static void range_of(const struct config_setting *s, char *out, size_t size)
{
	out[0] = '\0';
	if (s->type == CONFIG_NUMBER || (s->type == CONFIG_TIME && s->unit))
		snprintf(out, size, "%u to %u", s->min, s->max);
	else if (s->type == CONFIG_TIME || s->type == CONFIG_DECIMAL)
		value_put_range(s, out, size);
}

/* True if the line before `at`, which is that line's end, is a comment. */
static bool follows_comment(const char *text, const char *at)
{
	const char *line = at;

	while (line > text && line[-1] != '\n')
		line--;
	return strncmp(line, "# ", 2) == 0;
}

/* True if the setting's own paragraph, as of is_marked, has its range. A time's range may also be
 * written with a unit at each of its ends. */
static bool has_range(const char *text, const char *end, const char *begin,
		      const struct config_setting *s)
{
	char range[96], min[32], max[32];

	range_of(s, range, sizeof(range));
	if (is_marked(text, end, begin, range))
		return true;
	value_put_time((int64_t)s->min * s->ms, min, sizeof(min));
	value_put_time((int64_t)s->max * s->ms, max, sizeof(max));
	snprintf(range, sizeof(range), "%s to %s", min, max);
	return s->type == CONFIG_TIME && is_marked(text, end, begin, range);
}

START_TEST(the_shipped_file_holds_every_default)
{
	char *text = read_text("conf/breakerd.conf"), want[256];

	ck_assert_load("--config", "conf/breakerd.conf");
	for (size_t i = 0; i < CONFIG_SETTINGS; i++) {
		const struct config_setting *s = &config_settings[i];

		if (s->flags & CONFIG_NO_FILE)
			continue;
		/* All settings are commented out, so that new defaults apply to a kept file. */
		ck_assert_int_eq(config->sources[i].origin, CONFIG_FROM_DEFAULT);
		snprintf(want, sizeof(want), "\n#%s =%s%s\n", s->name, *s->value ? " " : "",
			 s->value);
		ck_assert_has(text, want);
		ck_assert_msg(is_marked(text, strstr(text, want), "\n\n", "(restart)") ==
				      !(s->flags & CONFIG_LIVE),
			      "%s", s->name);
		ck_assert_msg(follows_comment(text, strstr(text, want)), "%s", s->name);
		ck_assert_msg(has_range(text, strstr(text, want), "\n\n", s), "%s", s->name);
	}
	/* Without the '#', each "#name = value" is a valid setting. */
	for (char *line = text; line; line = strchr(line, '\n')) {
		line += *line == '\n';
		if (*line == '#' && islower((unsigned char)line[1]))
			*line = '\n';
	}
	ck_assert_load("--config", file("c", text));
	for (size_t i = 0; i < CONFIG_SETTINGS; i++)
		if (!(config_settings[i].flags & CONFIG_NO_FILE))
			ck_assert_int_eq(config->sources[i].origin, CONFIG_FROM_FILE);
	free(text);
}
END_TEST

START_TEST(the_manual_pages_name_every_setting)
{
	char *daemon = read_text("docs/breakerd.8"), *format = read_text("docs/breakerd.conf.5");
	char flag[CONFIG_NAME_MAX], want[256];
	const char *end;

	for (size_t i = 0; i < CONFIG_SETTINGS; i++) {
		const struct config_setting *s = &config_settings[i];

		config_flag(s, flag);
		snprintf(want, sizeof(want), ".It Fl -%s Ns = Ns Ar %s\n", flag, s->placeholder);
		ck_assert_has(daemon, want);
		if (s->flags & CONFIG_NO_FILE)
			continue;
		snprintf(want, sizeof(want), "\n.It Ic %s\n", s->name);
		ck_assert_has(format, want);
		end = strstr(strstr(format, want) + 1, "\n.It ");
		ck_assert_msg(is_marked(format, end, "\n.It ", "estart\\&.") ==
				      !(s->flags & CONFIG_LIVE),
			      "%s", s->name);
		ck_assert_msg(is_marked(format, end, "\n.It ", ".Sy List") ==
				      (s->type == CONFIG_LIST),
			      "%s", s->name);
		if (*s->value) {
			snprintf(want, sizeof(want), "\n.It Ic %s\n.Sy Default\\&: %s\\&.", s->name,
				 s->value);
			ck_assert_has(format, want);
		}
		ck_assert_msg(has_range(format, end, "\n.It ", s), "%s", s->name);
	}
	ck_assert_has(daemon, ".It Fl -check-config\n");
	ck_assert_has(daemon, ".It Fl -print-config\n");
	ck_assert_has(daemon, ".It Fl -check-ready Ns");
	ck_assert_has(daemon, ".It Fl V , -version\n");
	ck_assert_has(daemon, ".It Fl h , -help\n");
	free(daemon);
	free(format);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("config");
	TCase *tc = tcase_create("config");

	tcase_set_timeout(tc, 30);

	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_add_test(tc, defaults_are_those_of_the_contract);
	tcase_add_test(tc, the_later_source_stands);
	tcase_add_test(tc, the_file_is_named_by_environment_or_argument);
	tcase_add_test(tc, every_value_is_read);
	tcase_add_test(tc, a_later_list_replaces_an_earlier_one);
	tcase_add_test(tc, a_list_has_a_bound);
	tcase_add_loop_test(tc, a_bad_value_is_refused_from_each_source, 0,
			    sizeof(bad_values) / sizeof(bad_values[0]));
	tcase_add_test(tc, the_words_of_an_error);
	tcase_add_test(tc, nothing_in_a_file_is_refused);
	tcase_add_test(tc, an_empty_variable_is_none);
	tcase_add_test(tc, times_take_units);
	tcase_add_test(tc, a_bad_value_is_refused_even_where_a_later_one_stands);
	tcase_add_test(tc, numbers_hold_at_the_ends_of_their_ranges);
	tcase_add_test(tc, prefix_has_a_bound);
	tcase_add_loop_test(tc, a_bad_file_is_refused, 0, sizeof(bad_files) / sizeof(bad_files[0]));
	tcase_add_test(tc, a_nul_byte_is_refused);
	tcase_add_test(tc, a_byte_order_mark_is_skipped);
	tcase_add_test(tc, long_lines_are_read_whole_or_refused);
	tcase_add_test(tc, a_large_file_is_refused);
	tcase_add_test(tc, the_start_reads_a_pipe);
	tcase_add_test(tc, a_pipe_that_nobody_writes_to_ends_the_start);
	tcase_add_test(tc, a_reload_refuses_what_cannot_be_read_twice);
	tcase_add_test(tc, wrong_usage);
	tcase_add_test(tc, actions);
	tcase_add_test(tc, unknown_variables_are_warned_of);
	tcase_add_test(tc, settings_without_effect_are_warned_of);
	tcase_add_test(tc, the_store_is_taken_apart);
	tcase_add_test(tc, a_secret_is_never_shown);
	tcase_add_loop_test(tc, a_password_at_the_wrong_place_is_not_shown, 0, CONFIG_SETTINGS);
	tcase_add_test(tc, the_password_file);
	tcase_add_test(tc, the_token_file);
	tcase_add_test(tc, an_address_that_others_reach_needs_a_token);
	tcase_add_test(tc, what_is_printed_reads_back);
	tcase_add_test(tc, a_masked_password_is_not_read_back);
	tcase_add_test(tc, what_needs_a_restart);
	tcase_add_test(tc, help_names_everything_in_80_columns);
	tcase_add_test(tc, version_names_the_libraries);
	tcase_add_test(tc, level_names_are_the_log_s);
	tcase_add_test(tc, the_shipped_file_holds_every_default);
	tcase_add_test(tc, the_manual_pages_name_every_setting);
	suite_add_tcase(s, tc);
	return suite_run(s);
}
