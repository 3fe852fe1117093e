#include "config/slurp.h"
#include "config/table.h"

#include "http/listen.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#define TOKEN_MAX 4096
#define VARIABLE  "BREAKERD_"

static const struct config_setting *setting_of(const char *name)
{
	return config_find(name, strlen(name), false);
}

/* A value for an error message: on one line, and not all of a long one. */
static void show(const char *text, char out[136])
{
	size_t len = strlen(text);

	snprintf(out, 136, "%.128s%s", text, len > 128 ? "..." : "");
	for (char *p = out; *p; p++)
		if ((unsigned char)*p < 0x20 || *p == 0x7f)
			*p = '?';
}

/* The place where a setting was given, and what is wrong with it. */
static void blame(struct config_error *error, const struct config *config,
		  const struct config_setting *s, struct config_source source, const char *text,
		  const char *why)
{
	char name[CONFIG_NAME_MAX], value[136];
	bool shown = !(s->flags & CONFIG_SECRET);
	size_t size = sizeof(error->text);

	show(text, value);
	switch (source.origin) {
	case CONFIG_FROM_DEFAULT:
		snprintf(error->text, size, "%s%s%s: %s", s->name, shown ? " = " : "",
			 shown ? value : "", why);
		break;
	case CONFIG_FROM_FILE:
		snprintf(error->text, size, "%.400s:%u: %s%s%s: %s", config->config_file,
			 source.line, s->name, shown ? " = " : "", shown ? value : "", why);
		break;
	case CONFIG_FROM_ENVIRONMENT:
		config_variable(s, name);
		snprintf(error->text, size, "%s%s%s: %s", name, shown ? "=" : "",
			 shown ? value : "", why);
		break;
	case CONFIG_FROM_ARGUMENTS:
		config_flag(s, name);
		snprintf(error->text, size, "--%s%s%s: %s", name, shown ? "=" : "",
			 shown ? value : "", why);
		break;
	}
}

bool config_take(struct config *config, const struct config_setting *setting,
		 struct config_source source, const char *text, struct config_error *error)
{
	struct config_source *had = &config->sources[config_index(setting)];
	char why[512];

	if (had->origin != source.origin) {
		config_clear(config, setting);
		*had = source;
	}
	if (config_set(config, setting, source.line, text, why, sizeof(why)))
		return true;
	blame(error, config, setting, source, text, why);
	return false;
}

/* --- the command line */

struct arguments {
	int argc;
	char *const *argv;
	int at;
};

struct argument {
	const struct config_setting *setting; /* NULL: an action */
	const char *value;
	enum config_action action;
};

static const struct {
	const char *name;
	const char *letter;
	enum config_action action;
} actions[] = {
	{"--help", "-h", CONFIG_HELP},
	{"--version", "-V", CONFIG_VERSION},
	{"--check-config", NULL, CONFIG_CHECK},
	{"--print-config", NULL, CONFIG_PRINT},
};

static bool is_action(const char *word, struct argument *out, struct config_error *error)
{
	for (size_t i = 0; i < sizeof(actions) / sizeof(actions[0]); i++) {
		size_t len = strlen(actions[i].name);

		if (strcmp(word, actions[i].name) == 0 ||
		    (actions[i].letter && strcmp(word, actions[i].letter) == 0)) {
			*out = (struct argument){.action = actions[i].action};
			return true;
		}
		if (strncmp(word, actions[i].name, len) == 0 && word[len] == '=')
			snprintf(error->text, sizeof(error->text),
				 "%s takes no value; see breakerd --help", actions[i].name);
	}
	return false;
}

/* No option of ours. Behind a '=' may stand a secret, and in a stray word that has a '@'. */
static void blame_word(const char *word, struct config_error *error)
{
	size_t dashes = strspn(word, "-"), len = strcspn(word, "=");
	const char *nearest;
	char flag[CONFIG_NAME_MAX];

	if (error->text[0])
		return;
	if (dashes == 0 || dashes == strlen(word)) {
		snprintf(error->text, sizeof(error->text), "%s: unexpected; see breakerd --help",
			 strchr(word, '@') ? "an argument" : log_quote(word, strlen(word)).text);
		return;
	}
	nearest = config_nearest(word + dashes, len - dashes);
	if (nearest) {
		config_flag(setting_of(nearest), flag);
		snprintf(error->text, sizeof(error->text),
			 "%.64s: unknown option; did you mean --%s? See breakerd --help",
			 log_quote(word, len).text, flag);
		return;
	}
	snprintf(error->text, sizeof(error->text), "%s: unknown option; see breakerd --help",
		 log_quote(word, len).text);
}

/* Steps on. 1: *out is set; 0: the end; -1: wrong usage, skipped, the error is set. */
static int next_argument(struct arguments *args, struct argument *out, struct config_error *error)
{
	const char *word, *name;
	size_t len;

	error->text[0] = '\0';
	if (args->at >= args->argc)
		return 0;
	word = args->argv[args->at++];
	if (strcmp(word, "--") == 0 && args->at >= args->argc)
		return 0;
	if (is_action(word, out, error))
		return 1;
	name = strncmp(word, "--", 2) == 0 ? word + 2 : "";
	len = strcspn(name, "=");
	*out = (struct argument){.setting = config_find(name, len, true)};
	if (!out->setting) {
		blame_word(word, error);
		return -1;
	}
	if (name[len] == '=') {
		out->value = name + len + 1;
	} else if (args->at < args->argc) {
		out->value = args->argv[args->at++];
	} else {
		snprintf(error->text, sizeof(error->text),
			 "%s: the value is missing: %s=%s; see breakerd --help", word, word,
			 out->setting->placeholder);
		return -1;
	}
	return 1;
}

/*
 * What is asked for. --help and --version win over all that is wrong beside them; of the
 * other two the first stands.
 */
static enum config_status find_action(int argc, char *const argv[], enum config_action *action,
				      struct config_error *error)
{
	struct arguments args = {.argc = argc, .argv = argv, .at = 1};
	enum config_status status = CONFIG_OK;
	struct argument a;
	struct config_error e;
	int rc;

	*action = CONFIG_RUN;
	while ((rc = next_argument(&args, &a, &e)) != 0) {
		if (rc < 0 && status == CONFIG_OK) {
			status = CONFIG_USAGE;
			*error = e;
		}
		if (rc < 0 || a.setting)
			continue;
		if (a.action == CONFIG_HELP || a.action == CONFIG_VERSION) {
			*action = a.action;
			return CONFIG_OK;
		}
		if (*action == CONFIG_RUN)
			*action = a.action;
	}
	return status;
}

/* Takes the settings on the command line, or `only` one of them. */
static bool take_arguments(struct config *config, int argc, char *const argv[],
			   const struct config_setting *only, struct config_error *error)
{
	struct arguments args = {.argc = argc, .argv = argv, .at = 1};
	struct config_source source = {.origin = CONFIG_FROM_ARGUMENTS};
	struct argument a;

	while (next_argument(&args, &a, error) > 0) {
		if (!a.setting || (only && a.setting != only))
			continue;
		if (!config_take(config, a.setting, source, a.value, error))
			return false;
	}
	return true;
}

/* --- the environment */

static const char *find_variable(char *const envp[], const struct config_setting *s)
{
	char name[CONFIG_NAME_MAX];
	size_t len;

	config_variable(s, name);
	len = strlen(name);
	for (; envp && *envp; envp++)
		if (strncmp(*envp, name, len) == 0 && (*envp)[len] == '=')
			return *envp + len + 1;
	return NULL;
}

static bool take_variable(struct config *config, char *const envp[], const struct config_setting *s,
			  struct config_error *error)
{
	struct config_source source = {.origin = CONFIG_FROM_ENVIRONMENT};
	const char *value = find_variable(envp, s);

	return !value || config_take(config, s, source, value, error);
}

static bool is_variable(const char *name, size_t len)
{
	char known[CONFIG_NAME_MAX];

	for (size_t i = 0; i < CONFIG_SETTINGS; i++) {
		config_variable(&config_settings[i], known);
		if (strlen(known) == len && memcmp(known, name, len) == 0)
			return true;
	}
	return false;
}

/* Only a warning: container platforms set BREAKERD_PORT and the like for a service so named. */
static void warn_of_variables(char *const envp[], struct log *log)
{
	for (; envp && *envp; envp++) {
		size_t len = strcspn(*envp, "="), head = strlen(VARIABLE);
		const char *nearest;
		char name[CONFIG_NAME_MAX] = "";

		if (strncmp(*envp, VARIABLE, head) != 0 || is_variable(*envp, len))
			continue;
		nearest = config_nearest(*envp + head, len - head);
		if (nearest)
			config_variable(setting_of(nearest), name);
		log_warning(log, "unknown_variable", "name=%s%s%s", log_quote(*envp, len).text,
			    nearest ? " nearest=" : "", name);
	}
}

/* --- how settings go together */

/* Blames a setting whose value reads well but does not do. */
static bool blame_setting(const struct config *config, const char *name, const char *text,
			  const char *why, struct config_error *error)
{
	const struct config_setting *s = setting_of(name);

	blame(error, config, s, config->sources[config_index(s)], text, why);
	return false;
}

/* Reads a file that holds one secret; a newline at its end is no part of it. */
static bool read_secret(const struct config *config, const char *name, const char *path, size_t max,
			char **secret, struct config_error *error)
{
	char why[256];
	size_t len;

	if (!slurp(path, max + 2, config->again, secret, &len, why, sizeof(why)))
		return blame_setting(config, name, path, why, error);
	if (len > 0 && (*secret)[len - 1] == '\n')
		len--;
	if (len > 0 && (*secret)[len - 1] == '\r')
		len--;
	(*secret)[len] = '\0';
	if (len == 0)
		snprintf(why, sizeof(why), "the file is empty");
	else if (len > max)
		snprintf(why, sizeof(why), "more than %zu bytes in the file", max);
	else if (strlen(*secret) != len || strpbrk(*secret, "\r\n"))
		snprintf(why, sizeof(why), "the file must hold one line and no NUL byte");
	else
		return true;
	explicit_bzero(*secret, max + 2);
	free(*secret);
	*secret = NULL;
	return blame_setting(config, name, path, why, error);
}

/* RFC 6750, section 2.1: b64token, which is what a client can send. */
static bool is_b64token(const char *token)
{
	size_t n = 0;

	while (isalnum((unsigned char)token[n]) || (token[n] && strchr("-._~+/", token[n])))
		n++;
	return n > 0 && token[n + strspn(token + n, "=")] == '\0';
}

static bool read_token(struct config *config, struct config_error *error)
{
	if (!*config->token_file)
		return true;
	if (!read_secret(config, "token_file", config->token_file, TOKEN_MAX, &config->token,
			 error))
		return false;
	if (is_b64token(config->token))
		return true;
	return blame_setting(config, "token_file", config->token_file,
			     "a token is letters, digits and -._~+/, with = at its end only "
			     "(RFC 6750), on one line",
			     error);
}

static bool read_password(struct config *config, struct config_error *error)
{
	struct redis_target *redis = &config->redis;
	char *password;

	if (!*config->redis_password_file)
		return true;
	if (redis->password[0])
		return blame_setting(config, "redis_password_file", config->redis_password_file,
				     "store holds a password as well; give it in one place", error);
	if (!read_secret(config, "redis_password_file", config->redis_password_file,
			 sizeof(redis->password) - 1, &password, error))
		return false;
	strcpy(redis->password, password);
	explicit_bzero(password, strlen(password));
	free(password);
	return true;
}

static bool read_store(struct config *config, struct config_error *error)
{
	char why[256];

	config->store_is_redis = strcmp(config->store, "memory") != 0;
	if (!config->store_is_redis)
		return true;
	if (!redis_target_parse(config->store, &config->redis, why, sizeof(why)))
		return blame_setting(config, "store", config->store, why, error);
	return read_password(config, error);
}

static bool check_addresses(const struct config *config, struct config_error *error)
{
	const struct config_setting *s = setting_of("listen");
	struct config_source source = config->sources[config_index(s)];
	struct listen_error ignored;
	bool local;

	for (size_t i = 0; i < config->listen.count; i++) {
		const char *address = config->listen.items[i];

		if (!listen_parse(address, &local, &ignored) || local || config->token)
			continue;
		source.line = config_line(config, s, i);
		blame(error, config, s, source, address,
		      "other hosts can reach this address: set token_file, or listen on a "
		      "loopback address or a unix socket");
		return false;
	}
	return true;
}

static void warn_unused(struct log *log, const char *name, const char *why)
{
	log_warning(log, "setting_unused", "name=%s why=\"%s\"", name, why);
}

/* Settings that were given and do nothing here. */
static void warn_of_idle_settings(const struct config *config, struct log *log)
{
	if (*config->state_file && config->store_is_redis)
		warn_unused(log, "state_file", "it keeps the memory store, and store is Redis");
	if (*config->redis_password_file && !config->store_is_redis)
		warn_unused(log, "redis_password_file", "store is memory");
	/* The default is in whatever --print-config printed. */
	if (!config->store_is_redis && !config->store_failure_local)
		warn_unused(log, "on_store_failure", "store is memory");
}

/* --- all of it */

static struct config *new_config(struct config_error *error)
{
	struct config *config = calloc(1, sizeof(*config));

	snprintf(error->text, sizeof(error->text), "out of memory");
	for (size_t i = 0; config && i < CONFIG_SETTINGS; i++) {
		struct config_source none = {.origin = CONFIG_FROM_DEFAULT};

		if (!config_take(config, &config_settings[i], none, config_settings[i].value,
				 error)) {
			config_free(config);
			return NULL;
		}
	}
	return config;
}

static bool take_all(struct config *config, int argc, char *const argv[], char *const envp[],
		     struct config_error *error)
{
	const struct config_setting *file = setting_of("config");

	if (!take_variable(config, envp, file, error) ||
	    !take_arguments(config, argc, argv, file, error))
		return false;
	if (*config->config_file && !config_read_file(config, error))
		return false;
	for (size_t i = 0; i < CONFIG_SETTINGS; i++)
		if (&config_settings[i] != file &&
		    !take_variable(config, envp, &config_settings[i], error))
			return false;
	return take_arguments(config, argc, argv, NULL, error);
}

enum config_status config_load(const struct config_input *input, struct log *log,
			       enum config_action *action, struct config **config,
			       struct config_error *error)
{
	enum config_status status;
	struct config *c;

	*config = NULL;
	status = find_action(input->argc, input->argv, action, error);
	if (status != CONFIG_OK || *action == CONFIG_HELP || *action == CONFIG_VERSION)
		return status;
	c = new_config(error);
	if (!c)
		return CONFIG_INVALID;
	c->again = input->reload;
	if (!take_all(c, input->argc, input->argv, input->envp, error) || !read_store(c, error) ||
	    !read_token(c, error) || !check_addresses(c, error)) {
		config_free(c);
		return CONFIG_INVALID;
	}
	if (*action != CONFIG_CHECK) {
		warn_of_variables(input->envp, log);
		warn_of_idle_settings(c, log);
	}
	*config = c;
	return CONFIG_OK;
}

static void free_secret(char *secret)
{
	if (secret)
		explicit_bzero(secret, strlen(secret));
	free(secret);
}

void config_free(struct config *config)
{
	if (!config)
		return;
	for (size_t i = 0; i < CONFIG_SETTINGS; i++)
		config_clear(config, &config_settings[i]);
	free(config->config_file);
	free_secret(config->store);
	free(config->redis_password_file);
	free(config->prefix);
	free(config->state_file);
	free(config->token_file);
	free_secret(config->token);
	explicit_bzero(&config->redis, sizeof(config->redis));
	free(config);
}

void config_needs_restart(const struct config *now, const struct config *next, char *out,
			  size_t size)
{
	if (size > 0)
		out[0] = '\0';
	for (size_t i = 0; i < CONFIG_SETTINGS; i++) {
		const struct config_setting *s = &config_settings[i];
		bool same = config_same(now, next, s);
		size_t len = strnlen(out, size);

		/* the file's content counts with its name; what `store` holds shows there */
		if (s == setting_of("redis_password_file") && *next->redis_password_file)
			same = same && strcmp(now->redis.password, next->redis.password) == 0;
		if (!same && !(s->flags & CONFIG_LIVE) && len < size)
			snprintf(out + len, size - len, "%s%s", len > 0 ? ", " : "", s->name);
	}
}
