/* --help, --version and --print-config. */
#include "config/config.h"

#include "config/value.h"

#include <event2/event.h>
#include <hiredis/hiredis.h>
#include <jansson.h>
#include <microhttpd.h>
#include <string.h>

#define WIDTH  80
#define COLUMN 31

/* Writes words from column `at` on, breaking lines to stay within WIDTH. */
static void wrap(FILE *out, size_t at, const char *text)
{
	size_t column = at;

	while (*text) {
		size_t len = strcspn(text, " ");

		if (column > COLUMN && column + 1 + len > WIDTH) {
			fprintf(out, "\n%*s", COLUMN, "");
			column = COLUMN;
		} else if (column > COLUMN) {
			fputc(' ', out);
			column++;
		}
		fprintf(out, "%.*s", (int)len, text);
		column += len;
		text += len;
		text += strspn(text, " ");
	}
	fputc('\n', out);
}

static void print_option(FILE *out, const char *flag, const char *text)
{
	int n = fprintf(out, "  %-*s", COLUMN - 2, flag);

	if (n > COLUMN)
		fprintf(out, "\n%*s", COLUMN, "");
	wrap(out, COLUMN, text);
}

static void print_setting(FILE *out, const struct config_setting *s)
{
	char flag[CONFIG_NAME_MAX], left[2 * CONFIG_NAME_MAX], text[256];

	config_flag(s, flag);
	snprintf(left, sizeof(left), "--%s=%s", flag, s->placeholder);
	snprintf(text, sizeof(text), "%s [%s]", s->help, *s->value ? s->value : s->absent);
	print_option(out, left, text);
}

void config_print_help(FILE *out)
{
	const char *group = "";

	fputs("Usage: breakerd [options]\n\n"
	      "Keeps circuit breaker state for gateways in any language, over HTTP and JSON, in\n"
	      "memory or in Redis.\n\n"
	      "A setting is given as an option, as a variable (BREAKERD_STORE_TIMEOUT=250) or\n"
	      "in a file (store_timeout = 250). The option wins over the variable, the variable\n"
	      "over the file. Defaults stand in brackets.\n",
	      out);
	for (size_t i = 0; i < CONFIG_SETTINGS; i++) {
		const struct config_setting *s = &config_settings[i];

		if (strcmp(group, s->group) != 0)
			fprintf(out, "\n%s:\n", s->group);
		group = s->group;
		print_setting(out, s);
	}
	fputs("\nInstead of serving:\n", out);
	print_option(out, "--check-config", "check all settings and the files they name");
	print_option(out, "--print-config", "print every setting and where it came from");
	print_option(out, "--check-ready[=ADDRESS]",
		     "ask a running breakerd whether traffic may come");
	print_option(out, "-V, --version", "print the versions of breakerd and its libraries");
	print_option(out, "-h, --help", "print this");
	fputs("\nExample:\n"
	      "  breakerd --listen=unix:/run/breakerd/http.sock --store=redis://10.0.0.5:6379/0\n\n"
	      "Signals: SIGTERM and SIGINT stop it, SIGHUP reads the settings again.\n"
	      "Exit status: 0 after a clean stop, 1 for bad settings or a failed start, 2 for\n"
	      "wrong usage. See breakerd(8) and breakerd.conf(5).\n",
	      out);
}

void config_print_version(FILE *out)
{
#ifdef HAVE_LIBSYSTEMD
	const char *systemd = "with systemd";
#else
	const char *systemd = "without systemd";
#endif

	fprintf(out,
		"breakerd " BREAKERD_VERSION "\n"
		"libevent %s, libmicrohttpd %s, hiredis %d.%d.%d, jansson %s, %s\n",
		event_get_version(), MHD_get_version(), HIREDIS_MAJOR, HIREDIS_MINOR, HIREDIS_PATCH,
		jansson_version_str(), systemd);
}

static unsigned line_of(const struct config *config, const struct config_setting *s, size_t item)
{
	const char *at = (const char *)config + s->offset;

	if (s->type == CONFIG_LIST && item < ((const struct config_list *)at)->count)
		return ((const struct config_list *)at)->lines[item];
	return config->sources[config_index(s)].line;
}

static void print_source(FILE *out, const struct config *config, const struct config_setting *s,
			 size_t item)
{
	const struct config_source *source = &config->sources[config_index(s)];
	char name[CONFIG_NAME_MAX];

	switch (source->origin) {
	case CONFIG_FROM_DEFAULT:
		fprintf(out, "# default");
		break;
	case CONFIG_FROM_FILE:
		fprintf(out, "# %s:%u", config->config_file, line_of(config, s, item));
		break;
	case CONFIG_FROM_ENVIRONMENT:
		config_variable(s, name);
		fprintf(out, "# from %s", name);
		break;
	case CONFIG_FROM_ARGUMENTS:
		fprintf(out, "# from the command line");
		break;
	}
}

static void print_value(FILE *out, const struct config_setting *s, const char *value)
{
	size_t start, len;

	if ((s->flags & CONFIG_SECRET) && check_url_password(value, &start, &len))
		fprintf(out, "%s = %.*s" CONFIG_MASK "%s\n", s->name, (int)start, value,
			value + start + len);
	else
		fprintf(out, "%s =%s%s\n", s->name, *value ? " " : "", value);
}

/* Prints the settings that the section gives itself. */
static void print_section(const struct config *config, const struct config_section *section,
			  FILE *out)
{
	char value[CONFIG_VALUE_MAX + 1];

	fprintf(out, "\n# %s:%u\n[policy %s]\n", config->config_file, section->line, section->name);
	for (size_t i = 0; i < section->keys.count; i++)
		fprintf(out, "# %s:%u\nkeys = %s\n", config->config_file, section->keys.lines[i],
			section->keys.items[i]);
	for (size_t i = 0; i < CONFIG_SETTINGS; i++) {
		const struct config_setting *s = &config_settings[i];

		if (!section->lines[i])
			continue;
		value_get(&section->policy, s, 0, value);
		fprintf(out, "# %s:%u\n", config->config_file, section->lines[i]);
		print_value(out, s, value);
	}
}

void config_print(const struct config *config, FILE *out)
{
	char value[CONFIG_VALUE_MAX + 1];

	for (size_t i = 0; i < CONFIG_SETTINGS; i++) {
		const struct config_setting *s = &config_settings[i];
		size_t item = 0;

		fprintf(out, "%s", i > 0 ? "\n" : "");
		do {
			if (!value_get(value_const_base(config, s), s, item, value))
				value[0] = '\0';
			print_source(out, config, s, item);
			if (!*value)
				fprintf(out, ": %s", s->absent);
			fprintf(out, "\n%s", s->flags & CONFIG_NO_FILE ? "# " : "");
			print_value(out, s, value);
		} while (value_get(value_const_base(config, s), s, ++item, value));
	}
	for (size_t i = 0; i < config->section_count; i++)
		print_section(config, &config->sections[i], out);
	explicit_bzero(value, sizeof(value));
}
