/* The command line. */
#include "config/arguments.h"

#include "config/take.h"

#include <stdio.h>
#include <string.h>

struct arguments {
	int argc;
	char *const *argv;
	int at;
};

struct argument {
	const struct config_setting *setting; /* NULL: the argument is an action */
	const char *value;
	enum config_action action;
};

static const struct {
	const char *name;
	const char *letter;
	enum config_action action;
	bool takes_value; /* may be followed by '=' and a value */
} actions[] = {
	{"--help", "-h", CONFIG_HELP, false},
	{"--version", "-V", CONFIG_VERSION, false},
	{"--check-config", NULL, CONFIG_CHECK, false},
	{"--print-config", NULL, CONFIG_PRINT, false},
	{"--check-ready", NULL, CONFIG_CHECK_READY, true},
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
		if (strncmp(word, actions[i].name, len) != 0 || word[len] != '=')
			continue;
		if (actions[i].takes_value) {
			*out = (struct argument){.action = actions[i].action,
						 .value = word + len + 1};
			return true;
		}
		snprintf(error->text, sizeof(error->text), "%s takes no value; see breakerd --help",
			 actions[i].name);
	}
	return false;
}

/* The option that is spelled most like name[0..len), or NULL; its name is in flag. */
static const char *nearest_option(const char *name, size_t len, char flag[CONFIG_NAME_MAX])
{
	const char *nearest = config_nearest(name, len);
	size_t best = CONFIG_DISTANCE(len);

	if (len >= CONFIG_NAME_MAX)
		return NULL;
	if (nearest) {
		config_flag(take_setting(nearest), flag);
		best = config_distance(name, len, nearest);
	}
	for (size_t i = 0; i < sizeof(actions) / sizeof(actions[0]); i++) {
		const char *known = actions[i].name + 2;
		size_t d = config_distance(name, len, known);

		if (d < best) {
			best = d;
			nearest = known;
			snprintf(flag, CONFIG_NAME_MAX, "%s", known);
		}
	}
	return nearest ? flag : NULL;
}

/* Says that the word is no option. Does not show what may be a secret: what follows a '=', or a
 * stray word that has a '@'. */
static void blame_word(const char *word, struct config_error *error)
{
	size_t dashes = strspn(word, "-"), len = strcspn(word, "=");
	char flag[CONFIG_NAME_MAX];

	if (error->text[0])
		return;
	if (dashes == 0 || dashes == strlen(word)) {
		snprintf(error->text, sizeof(error->text), "%s: unexpected; see breakerd --help",
			 strchr(word, '@') ? "an argument" : log_quote_text(word).text);
		return;
	}
	if (nearest_option(word + dashes, len - dashes, flag)) {
		snprintf(error->text, sizeof(error->text),
			 "%.64s: unknown option; did you mean --%s? See breakerd --help",
			 log_quote(word, len).text, flag);
		return;
	}
	snprintf(error->text, sizeof(error->text), "%s: unknown option; see breakerd --help",
		 log_quote(word, len).text);
}

/* Reads the next argument. 1: *out is set; 0: there is none; -1: it is wrong usage, was skipped,
 * and the error is set. */
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

enum config_status arguments_action(int argc, char *const argv[], enum config_action *action,
				    const char **value, struct config_error *error)
{
	struct arguments args = {.argc = argc, .argv = argv, .at = 1};
	enum config_status status = CONFIG_OK;
	struct argument a;
	struct config_error e;
	int rc;

	*action = CONFIG_RUN;
	*value = NULL;
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
		if (*action == CONFIG_RUN) {
			*action = a.action;
			*value = a.value;
		}
	}
	return status;
}

bool arguments_take(struct config *config, int argc, char *const argv[],
		    const struct config_setting *only, struct config_error *error)
{
	struct arguments args = {.argc = argc, .argv = argv, .at = 1};
	struct config_source source = {.origin = CONFIG_FROM_ARGUMENTS};
	struct argument a;

	while (next_argument(&args, &a, error) > 0) {
		if (!a.setting || (only && a.setting != only))
			continue;
		if (!take_value(config, a.setting, source, a.value, error))
			return false;
	}
	return true;
}
