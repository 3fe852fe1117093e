/*
 * Settings: daemon/config. An input is a settings file; or, separated by lines "%%", the arguments
 * (one a line), the environment (one a line), the settings file, and the content of
 * /proc/self/fd/9, to which redis_password_file and token_file may point.
 *
 * A configuration that is accepted is printed as by --print-config and read again: both must be the
 * same.
 */
#include "config/config.h"
#include "config/value.h"
#include "fuzz.h"
#include "redis/store.h"

#include <string.h>
#include <unistd.h>

#define SECRET_FD 9
#define WORDS_MAX 16

static struct {
	int file, printed;
	char file_arg[48], printed_arg[48]; /* --config=... */
} fuzz;

static void open_files(void)
{
	char path[32];
	int fd = fuzz_memfd(path);

	FUZZ_CHECK(dup2(fd, SECRET_FD) == SECRET_FD);
	close(fd);
	fuzz.file = fuzz_memfd(path);
	snprintf(fuzz.file_arg, sizeof(fuzz.file_arg), "--config=%s", path);
	fuzz.printed = fuzz_memfd(path);
	snprintf(fuzz.printed_arg, sizeof(fuzz.printed_arg), "--config=%s", path);
}

static void on_warning(void *arg, enum log_level level, const char *line)
{
	(void)arg;
	FUZZ_CHECK(level == LOG_LEVEL_WARNING);
	fuzz_check_sentence(line, LOG_LINE_MAX + 1);
}

/* Appends the lines of the text to the `count` words, and a NULL. Returns the new count. */
static size_t split(struct fuzz_text text, char *words[WORDS_MAX + 1], size_t count)
{
	while (text.len > 0 && count < WORDS_MAX) {
		struct fuzz_text line = fuzz_until(&text, "\n");

		words[count++] = fuzz_string(line);
	}
	words[count] = NULL;
	return count;
}

static void free_words(char *words[WORDS_MAX + 1], size_t from)
{
	for (; words[from]; from++)
		free(words[from]);
}

static void print(const struct config *config, int fd)
{
	char *text = NULL;
	size_t len = 0;
	FILE *out = open_memstream(&text, &len);

	FUZZ_CHECK(out);
	config_print(config, out);
	fclose(out);
	fuzz_fill(fd, (struct fuzz_text){text, len});
	free(text);
}

static void check_printed(const struct config *config)
{
	char *argv[] = {(char *)(uintptr_t) "breakerd", fuzz.printed_arg, NULL};
	struct config_input input = {.argc = 2, .argv = argv};
	enum config_action action;
	struct config_error error;
	struct config *again;
	char differ[256];
	size_t start, len;

	print(config, fuzz.printed);
	if (config_load(&input, &action, &again, &error) != CONFIG_OK) {
		/* A password is printed as a mask, which is refused as a password. */
		FUZZ_CHECK(check_url_password(config->store, &start, &len));
		return;
	}
	for (size_t i = 0; i < CONFIG_SETTINGS; i++)
		FUZZ_CHECK(config_settings[i].flags & CONFIG_NO_FILE ||
			   config_same(config, again, &config_settings[i]));
	FUZZ_CHECK(config->policies.count == again->policies.count);
	for (size_t i = 0; i < config->policies.count; i++)
		FUZZ_CHECK(strcmp(config->policies.entries[i].json,
				  again->policies.entries[i].json) == 0);
	config_needs_restart(config, again, differ, sizeof(differ));
	FUZZ_CHECK(strcmp(differ, "") == 0 || strcmp(differ, "config") == 0);
	config_free(again);
}

static void check_policies(const struct policy_set *set)
{
	FUZZ_CHECK(set->count >= 1 && set->count <= CONFIG_SECTIONS_MAX + 1);
	for (size_t i = 0; i < set->count; i++) {
		const struct policy_entry *entry = &set->entries[i];
		const struct policy *p = &entry->policy;

		FUZZ_CHECK(entry->key_count >= 1 && p->window_ms >= 1000 && p->probes >= 1);
		FUZZ_CHECK(p->open_time_ms >= 10 && p->open_time_max_ms >= p->open_time_ms);
		FUZZ_CHECK(p->open_growth_milli >= 1000 && p->open_growth_milli <= 10000);
		for (unsigned status = 0; status < 1000; status++)
			FUZZ_CHECK(!policy_statuses_have(&p->failure_status, status) ||
				   !policy_statuses_have(&p->ignore_status, status));
		/* A pattern, taken as a key, matches its own entry or one before it. */
		for (size_t k = 0; k < entry->key_count; k++)
			FUZZ_CHECK(policy_set_entry(set, entry->keys[k], strlen(entry->keys[k])) <=
				   entry);
	}
}

static void check_config(const struct config *c)
{
	FUZZ_CHECK(c->listen.count >= 1 && c->listen.count <= CONFIG_LIST_MAX);
	FUZZ_CHECK(c->socket_mode <= 0777);
	FUZZ_CHECK(strlen(c->prefix) <= REDIS_PREFIX_MAX);
	FUZZ_CHECK(c->ttl_ms > 0 && c->store_timeout_ms > 0 && c->max_connections > 0);
	FUZZ_CHECK(c->max_in_flight > 0 && c->max_circuits > 0);
	FUZZ_CHECK(c->idle_timeout_ms > 0 && c->request_timeout_ms > 0);
	check_policies(&c->policies);
	/* Line feeds separate several tokens. */
	FUZZ_CHECK(!c->token || (*c->token && !strpbrk(c->token, "\r ") && *c->token != '\n' &&
				 c->token[strlen(c->token) - 1] != '\n'));
	check_printed(c);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz_text rest = {(const char *)data, size}, part[4] = {{"", 0}};
	struct log log = {.level = LOG_LEVEL_WARNING, .sink = on_warning};
	char *argv[WORDS_MAX + 1] = {(char *)(uintptr_t) "breakerd", fuzz.file_arg};
	char *envp[WORDS_MAX + 1];
	struct config_error error = {""};
	enum config_action action;
	enum config_status status;
	struct config_input input;
	struct config *config;
	size_t parts = 0;

	if (!fuzz.file_arg[0])
		open_files();
	if (size == 0)
		rest.p = "";
	for (; parts < 4; parts++)
		part[parts] = fuzz_until(&rest, "%%\n");
	if (part[1].len + part[2].len + part[3].len == 0) {
		part[2] = part[0];
		part[0].len = 0;
	}
	argv[1] = fuzz.file_arg;
	split(part[0], argv, 2);
	split(part[1], envp, 0);
	fuzz_fill(fuzz.file, part[2]);
	fuzz_fill(SECRET_FD, part[3]);

	parts = 0;
	while (argv[parts])
		parts++;
	input = (struct config_input){.argc = (int)parts, .argv = argv, .envp = envp};
	status = config_load(&input, &action, &config, &error);
	if (status != CONFIG_OK) {
		FUZZ_CHECK(!config);
		fuzz_check_sentence(error.text, sizeof(error.text));
	} else if (action == CONFIG_CHECK_READY) {
		/* --check-ready uses the addresses only. */
		FUZZ_CHECK(config->listen.count >= 1 && config->listen.count <= CONFIG_LIST_MAX);
	} else if (action != CONFIG_HELP && action != CONFIG_VERSION) {
		config_warn(config, &input, &log);
		check_config(config);
	}
	config_free(config);
	free_words(argv, 2);
	free_words(envp, 0);
	return 0;
}
