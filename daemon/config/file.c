#include "config/slurp.h"
#include "config/table.h"

#include <ctype.h>
#include <ini.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#define FILE_MAX 65536
#define SECTION  "[breakerd]"
/* What a name can be made of, wrong ones included. */
#define NAME "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-."

/* The file on its way through libinih. */
struct reading {
	struct config *config;
	struct config_error *error;
	const char *next; /* what is not read yet */
	const char *end;
	unsigned line;
	char value[CONFIG_VALUE_MAX + 1]; /* of the line that libinih has */
	bool failed;
};

__attribute__((format(printf, 2, 3))) static char *fail(struct reading *r, const char *fmt, ...)
{
	char why[512];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(why, sizeof(why), fmt, ap);
	va_end(ap);
	snprintf(r->error->text, sizeof(r->error->text), "%.400s:%u: %s", r->config->config_file,
		 r->line, why);
	r->failed = true;
	return NULL;
}

/* For libinih: a name with what it belongs to. The value is ours. */
static int on_setting(void *arg, const char *section, const char *name, const char *unused)
{
	struct reading *r = arg;
	size_t len = strlen(name);
	const struct config_setting *s = config_find(name, len, false);
	const char *nearest = config_nearest(name, len);
	const struct config_source *had;

	(void)section; /* on_line lets only one pass */
	(void)unused;
	if (r->failed)
		return 0;
	if (!s) {
		fail(r, "%s: unknown setting; %s%s", log_quote(name, len).text,
		     nearest ? "did you mean " : "breakerd --help lists them",
		     nearest ? nearest : "");
		return 0;
	}
	if (s->flags & CONFIG_NO_FILE) {
		fail(r, "%s: names this file, and so is given as --config or BREAKERD_CONFIG",
		     s->name);
		return 0;
	}
	had = &r->config->sources[config_index(s)];
	if (had->origin == CONFIG_FROM_FILE && s->type != CONFIG_LIST) {
		fail(r, "%s: given on line %u already; once is enough", s->name, had->line);
		return 0;
	}
	r->failed =
		!config_take(r->config, s,
			     (struct config_source){.origin = CONFIG_FROM_FILE, .line = r->line},
			     r->value, r->error);
	return !r->failed;
}

/*
 * libinih cuts a line at a length that was fixed when it was built (200 bytes), takes ':'
 * for '=', " ;" for the begin of a comment and an indented line for more of the last value.
 * So what it gets is the name and a '=', once they are known to be well formed; the value
 * waits in r->value. Returns NULL when the line is no setting.
 */
static char *on_line(struct reading *r, const char *line, size_t len, char *out, size_t room)
{
	const char *equals = line + strspn(line, NAME);
	size_t name, value;

	if (isspace((unsigned char)*line))
		return fail(r, "begins with white space: a setting begins its line, and its value "
			       "ends with the line");
	if (*line == '[') {
		if (len != strlen(SECTION) || memcmp(line, SECTION, len) != 0)
			return fail(r, "the only section is " SECTION);
		snprintf(out, room, SECTION "\n");
		return out;
	}
	while (isblank((unsigned char)*equals))
		equals++;
	if (equals == line || *equals != '=')
		return fail(r, "no setting: name = value expected");
	name = (size_t)(equals + 1 - line);
	if (name + 2 > room)
		return fail(r, "unknown setting; breakerd --help lists them");
	for (equals++; isblank((unsigned char)*equals); equals++)
		;
	value = equals < line + len ? len - (size_t)(equals - line) : 0;
	if (value > CONFIG_VALUE_MAX)
		return fail(r, "a value longer than %d bytes", CONFIG_VALUE_MAX);
	memcpy(r->value, equals, value);
	r->value[value] = '\0';
	memcpy(out, line, name);
	memcpy(out + name, "\n", 2);
	return out;
}

/* For libinih, in the manner of fgets: the next line that says something. */
static char *next_line(char *out, int room, void *arg)
{
	struct reading *r = arg;

	while (!r->failed && r->next < r->end) {
		const char *line = r->next, *end = memchr(line, '\n', (size_t)(r->end - line));
		size_t len, blank = 0;

		if (!end)
			end = r->end;
		r->next = end + 1;
		r->line++;
		len = (size_t)(end - line);
		if (memchr(line, '\0', len))
			return fail(r, "a NUL byte");
		while (len > 0 && isspace((unsigned char)line[len - 1]))
			len--;
		while (blank < len && isspace((unsigned char)line[blank]))
			blank++;
		if (blank < len && line[blank] != '#' && line[blank] != ';')
			return on_line(r, line, len, out, (size_t)room);
	}
	return NULL;
}

bool config_read_file(struct config *config, struct config_error *error)
{
	struct reading r = {.config = config, .error = error};
	char *text, why[256];
	size_t len;
	int rc;

	if (!slurp(config->config_file, FILE_MAX, config->again, &text, &len, why, sizeof(why))) {
		snprintf(error->text, sizeof(error->text), "%.400s: %s", config->config_file, why);
		return false;
	}
	r.next = text;
	r.end = text + len;
	if (len >= 3 && memcmp(text, "\xef\xbb\xbf", 3) == 0) /* a byte order mark */
		r.next += 3;
	rc = ini_parse_stream(next_line, &r, on_setting, &r);
	if (rc != 0 && !r.failed)
		fail(&r, "libinih cannot read it");
	explicit_bzero(r.value, sizeof(r.value));
	explicit_bzero(text, len);
	free(text);
	return !r.failed;
}
