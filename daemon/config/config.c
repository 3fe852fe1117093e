/* All settings: reading them from all sources, how they go together, the files that hold secrets.
 */
#include "config/config.h"

#include "config/arguments.h"
#include "config/environment.h"
#include "config/file.h"
#include "config/policies.h"
#include "config/take.h"
#include "config/value.h"
#include "http/listen_address.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define TOKEN_MAX  4096
#define TOKENS_MAX 8

/* Where systemd puts a service's credentials (systemd.exec(5)). */
#define CREDENTIALS "/run/credentials/"

/* --- how settings go together */

/*
 * True for a credential that --check-config cannot read. systemd shows credentials to a service's
 * start alone, so ExecReload, which checks the settings, does not see them. The daemon does.
 */
static bool is_hidden(const struct config *config, const char *path)
{
	return config->only_checks && strncmp(path, CREDENTIALS, strlen(CREDENTIALS)) == 0 &&
	       access(path, R_OK) != 0;
}

/* Reads a file that holds a secret; a newline at its end is no part of it. */
static bool read_secret(struct config *config, const char *name, const char *path, size_t max,
			bool one_line, char **secret, struct config_error *error)
{
	char why[256];
	size_t len;

	if (!take_file(config, path, max + 2, secret, &len, why, sizeof(why))) {
		take_blame_setting(error, config, name, path, why);
		return false;
	}
	if (len > 0 && (*secret)[len - 1] == '\n')
		len--;
	if (len > 0 && (*secret)[len - 1] == '\r')
		len--;
	(*secret)[len] = '\0';
	if (len == 0)
		snprintf(why, sizeof(why), "the file is empty");
	else if (len > max)
		snprintf(why, sizeof(why), "more than %zu bytes in the file", max);
	else if (strlen(*secret) != len || (one_line && strpbrk(*secret, "\r\n")))
		snprintf(why, sizeof(why), "the file must hold one line and no NUL byte");
	else
		return true;
	explicit_bzero(*secret, max + 2);
	free(*secret);
	*secret = NULL;
	take_blame_setting(error, config, name, path, why);
	return false;
}

/* True for a b64token (RFC 6750, section 2.1): a client can send nothing else. */
static bool is_b64token(const char *token, size_t len)
{
	size_t n = 0;

	while (isalnum((unsigned char)token[n]) || (token[n] && strchr("-._~+/", token[n])))
		n++;
	return n > 0 && n + strspn(token + n, "=") == len;
}

/* Checks the tokens in `text`, one a line, and strips each line's CR. NULL, or what is wrong. */
static const char *check_tokens(char *text)
{
	unsigned count = 0;
	char *out = text;

	for (char *line = text;; count++) {
		size_t len = strcspn(line, "\n"), kept = len;
		bool last = line[len] == '\0';

		if (len > 0 && line[len - 1] == '\r')
			line[--kept] = last ? '\0' : '\n';
		if (count == TOKENS_MAX)
			return "more than 8 tokens";
		if (kept > TOKEN_MAX)
			return "more than 4096 bytes in a token";
		if (!is_b64token(line, kept))
			return "a token is letters, digits and -._~+/, with = at its end only "
			       "(RFC 6750), on a line of its own";
		memmove(out, line, kept);
		out += kept;
		*out++ = last ? '\0' : '\n';
		if (last)
			return NULL;
		line += len + 1;
	}
}

static bool read_token(struct config *config, struct config_error *error)
{
	const char *why;

	if (!*config->token_file)
		return true;
	if (is_hidden(config, config->token_file)) {
		config->token = strdup("hidden");
		if (!config->token)
			snprintf(error->text, sizeof(error->text), "out of memory");
		return config->token != NULL;
	}
	if (!read_secret(config, "token_file", config->token_file, TOKENS_MAX * (TOKEN_MAX + 2),
			 false, &config->token, error))
		return false;
	why = check_tokens(config->token);
	return !why || take_blame_setting(error, config, "token_file", config->token_file, why);
}

static bool read_password(struct config *config, struct config_error *error)
{
	struct redis_target *redis = &config->redis;
	char *password;

	if (!*config->redis_password_file)
		return true;
	if (redis->password[0])
		return take_blame_setting(error, config, "redis_password_file",
					  config->redis_password_file,
					  "store holds a password as well; give it in one place");
	if (is_hidden(config, config->redis_password_file))
		return true;
	if (!read_secret(config, "redis_password_file", config->redis_password_file,
			 sizeof(redis->password) - 1, true, &password, error))
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
		return take_blame_setting(error, config, "store", config->store, why);
	return read_password(config, error);
}

static bool check_addresses(const struct config *config, struct config_error *error)
{
	const struct config_setting *s = take_setting("listen");
	struct config_source source = config->sources[config_index(s)];
	struct listen_error ignored;
	bool local;

	for (size_t i = 0; i < config->listen.count; i++) {
		const char *address = config->listen.items[i];

		if (!listen_parse(address, &local, &ignored) || local || config->token)
			continue;
		source.line = config->listen.lines[i];
		return take_blame(
			error, config, s, source, address,
			"other hosts can reach this address: set token_file, or listen on a "
			"loopback address or a unix socket");
	}
	return true;
}

static void warn_unused(struct log *log, const char *name, const char *why)
{
	log_warning(log, "setting_unused", "name=%s why=\"%s\"", name, why);
}

/* Warns of settings that were given and have no effect. */
static void warn_of_idle_settings(const struct config *config, struct log *log)
{
	if (*config->state_file && config->store_is_redis && !config->store_failure_local)
		warn_unused(
			log, "state_file",
			"on Redis it keeps what waits for Redis, and on_store_failure is error");
	if (*config->redis_password_file && !config->store_is_redis)
		warn_unused(log, "redis_password_file", "store is memory");
	/* Not of on_store_failure = local, the default, which --print-config prints. */
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

		if (!take_value(config, &config_settings[i], none, config_settings[i].value,
				error)) {
			config_free(config);
			return NULL;
		}
	}
	return config;
}

/* Takes the settings of all sources. `read` reads the settings file: file_read or
 * file_read_addresses. */
static bool take_all(struct config *config, const struct config_input *input,
		     bool (*read)(struct config *, struct config_error *),
		     struct config_error *error)
{
	const struct config_setting *file = take_setting("config");

	if (!environment_take(config, input->envp, file, error) ||
	    !arguments_take(config, input->argc, input->argv, file, error))
		return false;
	if (*config->config_file && !read(config, error))
		return false;
	for (size_t i = 0; i < CONFIG_SETTINGS; i++)
		if (&config_settings[i] != file &&
		    !environment_take(config, input->envp, &config_settings[i], error))
			return false;
	return arguments_take(config, input->argc, input->argv, NULL, error);
}

/* False if the file could not be opened and nothing else says where the daemon listens. */
static bool has_address(const struct config *c)
{
	return c->sources[config_index(take_setting("listen"))].origin != CONFIG_FROM_DEFAULT ||
	       (c->file_count > 0 && c->file_stamps[0].ino != 0);
}

/*
 * Reads what --check-ready needs. Errors in the file are only noted: the running daemon may have
 * refused this file and still use the settings before. If the file cannot be opened, an address
 * must come from the environment or the command line, for at the default address there may be
 * another daemon.
 */
static struct config *load_addresses(const struct config_input *input, const char *address,
				     struct config_error *error)
{
	struct config *c = new_config(error);
	struct config_error file_error = {.text = ""};

	if (c && !address && !take_all(c, input, file_read, &file_error)) {
		config_free(c);
		c = new_config(error);
		if (c && !take_all(c, input, file_read_addresses, error)) {
			config_free(c);
			return NULL;
		}
		if (c && !has_address(c)) {
			*error = file_error;
			config_free(c);
			return NULL;
		}
		if (c)
			c->file_error = file_error;
	}
	if (c)
		c->ready_address = address;
	return c;
}

enum config_status config_load(const struct config_input *input, enum config_action *action,
			       struct config **config, struct config_error *error)
{
	enum config_status status;
	const char *action_value;
	struct config *c;

	*config = NULL;
	status = arguments_action(input->argc, input->argv, action, &action_value, error);
	if (status != CONFIG_OK || *action == CONFIG_HELP || *action == CONFIG_VERSION)
		return status;
	if (*action == CONFIG_CHECK_READY) {
		*config = load_addresses(input, action_value, error);
		return *config ? CONFIG_OK : CONFIG_INVALID;
	}
	c = new_config(error);
	if (!c)
		return CONFIG_INVALID;
	c->only_checks = *action == CONFIG_CHECK;
	c->reload = input->reload;
	c->runs_in_memory = input->runs_in_memory;
	if (!take_all(c, input, file_read, error) || !read_store(c, error) ||
	    !read_token(c, error) || !check_addresses(c, error) || !policies_finish(c, error)) {
		config_free(c);
		return CONFIG_INVALID;
	}
	*config = c;
	return CONFIG_OK;
}

void config_warn(const struct config *config, const struct config_input *input, struct log *log)
{
	environment_warn(input->envp, log);
	warn_of_idle_settings(config, log);
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
	policies_free(config);
	value_clear(&config->listen);
	value_clear(&config->report_listen);
	value_clear(&config->metrics_listen);
	value_clear(&config->allowed_hosts);
	for (size_t i = 0; i < config->file_count; i++)
		free(config->files[i]);
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

		/* The file's content counts like its name. A password in `store` shows as a change
		 * of `store`. */
		if (s == take_setting("redis_password_file") && *next->redis_password_file)
			same = same && strcmp(now->redis.password, next->redis.password) == 0;
		if (!same && !(s->flags & CONFIG_LIVE) && len < size)
			snprintf(out + len, size - len, "%s%s", len > 0 ? ", " : "", s->name);
	}
}
