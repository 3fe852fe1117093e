/* Taking settings: see take.h. */
#include "config/take.h"

#include "config/slurp.h"
#include "config/value.h"

#include <stdio.h>
#include <string.h>

const struct config_setting *take_setting(const char *name)
{
	return config_find(name, strlen(name), false);
}

/*
 * Writes `sep` and the value of the setting `name` for an error message: on one line, and cut if
 * long. Writes "" for a secret setting, and for any value that may be a URL with a password
 * (user:password@).
 */
static void show(const char *name, const char *sep, const char *text, char out[144])
{
	const struct config_setting *s = take_setting(name);

	out[0] = '\0';
	if ((s && (s->flags & CONFIG_SECRET)) || strchr(text, '@'))
		return;
	snprintf(out, 144, "%s%.128s%s", sep, text, strlen(text) > 128 ? "..." : "");
	for (char *p = out; *p; p++)
		if ((unsigned char)*p < 0x20 || *p == 0x7f)
			*p = '?';
}

bool take_blame(struct config_error *error, const struct config *config,
		const struct config_setting *s, struct config_source source, const char *text,
		const char *why)
{
	bool file = source.origin == CONFIG_FROM_FILE || source.origin == CONFIG_FROM_DEFAULT;
	char name[CONFIG_NAME_MAX], value[144];
	size_t size = sizeof(error->text);

	show(s->name, file ? " = " : "=", text, value);
	switch (source.origin) {
	case CONFIG_FROM_DEFAULT:
		snprintf(error->text, size, "%s%s: %s", s->name, value, why);
		break;
	case CONFIG_FROM_FILE:
		snprintf(error->text, size, "%.400s:%u: %s%s: %s", config->config_file, source.line,
			 s->name, value, why);
		break;
	case CONFIG_FROM_ENVIRONMENT:
		config_variable(s, name);
		snprintf(error->text, size, "%s%s: %s", name, value, why);
		break;
	case CONFIG_FROM_ARGUMENTS:
		config_flag(s, name);
		snprintf(error->text, size, "--%s%s: %s", name, value, why);
		break;
	}
	return false;
}

bool take_blame_setting(struct config_error *error, const struct config *config, const char *name,
			const char *text, const char *why)
{
	const struct config_setting *s = take_setting(name);

	return take_blame(error, config, s, config->sources[config_index(s)], text, why);
}

bool take_blame_section(struct config_error *error, const struct config *config,
			const struct config_section *section, unsigned line, const char *name,
			const char *text, const char *why)
{
	char value[144];

	show(name, " = ", text, value);
	snprintf(error->text, sizeof(error->text), "%.400s:%u: [policy %s] %s%s: %s",
		 config->config_file, line, section->name, name, value, why);
	return false;
}

bool take_value(struct config *config, const struct config_setting *setting,
		struct config_source source, const char *text, struct config_error *error)
{
	struct config_source *had = &config->sources[config_index(setting)];
	void *base = value_base(config, setting);
	char why[512];

	if (had->origin != source.origin) {
		if (setting->type == CONFIG_LIST)
			value_clear((struct config_list *)((char *)base + setting->offset));
		*had = source;
	}
	if (value_set(base, setting, source.line, text, why, sizeof(why)))
		return true;
	return take_blame(error, config, setting, source, text, why);
}

bool take_file(struct config *config, const char *path, size_t max, char **text, size_t *len,
	       char *why, size_t why_size)
{
	struct file_stamp stamp;
	bool read = slurp(path, max, config->reload, text, len, &stamp, why, why_size);
	char *copy = config->file_count < FILE_WATCH_MAX ? strdup(path) : NULL;

	if (copy) {
		config->files[config->file_count] = copy;
		config->file_stamps[config->file_count++] = stamp;
	}
	return read;
}
