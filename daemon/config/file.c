/*
 * libinih parses the file into sections, names and values. It gets its lines from next_line, which
 *
 * - counts them, as libinih may be built without line numbers for its handler;
 * - refuses what libinih accepts and the manual page does not: an indented line that continues the
 *   last value, ':' for '=', a comment that begins with " ;" in a line, words after a heading;
 * - hands over a long value in pieces, as indented lines that continue the first: libinih cuts
 *   lines at a length that was fixed when it was built (200 bytes).
 */
#include "config/file.h"

#include "config/policies.h"
#include "config/take.h"

#include <ctype.h>
#include <ini.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#define FILE_MAX 65536
#define OURS     "breakerd"
#define POLICY   "policy "
/* What a name can be made of, wrong ones included. */
#define NAME "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-."

struct reading {
	struct config *config;
	struct config_error *error;
	const char *next; /* the next line */
	const char *end;
	unsigned line;
	const char *rest; /* of the line's value: what libinih has not got yet */
	size_t rest_len;
	char value[CONFIG_VALUE_MAX + 1]; /* of the line: what libinih has given back so far */
	size_t value_len;
	bool failed;
	bool lenient;   /* reads addresses alone, and skips wrong lines */
	bool in_policy; /* lenient: the last heading was a policy's */
};

__attribute__((format(printf, 2, 3))) static bool fail(struct reading *r, const char *fmt, ...)
{
	char why[512];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(why, sizeof(why), fmt, ap);
	va_end(ap);
	snprintf(r->error->text, sizeof(r->error->text), "%.400s:%u: %s", r->config->config_file,
		 r->line, why);
	r->failed = true;
	return false;
}

/* --- what libinih found --- */

static bool unknown_setting(struct reading *r, const char *name)
{
	size_t len = strlen(name);
	const char *nearest = config_nearest(name, len);

	if (strcmp(name, "keys") == 0)
		return fail(r, "keys: stands in a section [policy NAME] only");
	return fail(r, "%s: unknown setting; %s%s", log_quote(name, len).text,
		    nearest ? "did you mean " : "breakerd --help lists them",
		    nearest ? nearest : "");
}

/* A setting outside of policies. */
static bool take_setting_line(struct reading *r, const char *name)
{
	const struct config_setting *s = config_find(name, strlen(name), false);
	struct config_source source = {.origin = CONFIG_FROM_FILE, .line = r->line};
	const struct config_source *had;

	if (!s)
		return unknown_setting(r, name);
	if (s->flags & CONFIG_NO_FILE)
		return fail(r,
			    "%s: names this file, and so is given as --config or BREAKERD_CONFIG",
			    s->name);
	had = &r->config->sources[config_index(s)];
	if (had->origin == CONFIG_FROM_FILE && s->type != CONFIG_LIST)
		return fail(r, "%s: given on line %u already; once is enough", s->name, had->line);
	return take_value(r->config, s, source, r->value, r->error);
}

/* Adds a piece to the value. False if there is no room. */
static bool add_piece(struct reading *r, const char *piece)
{
	size_t len = strlen(piece);

	if (len > CONFIG_VALUE_MAX - r->value_len)
		return false;
	memcpy(r->value + r->value_len, piece, len + 1);
	r->value_len += len;
	return true;
}

/* libinih's handler: gets a name with its value, or with a piece of it. */
static int on_setting(void *arg, const char *section, const char *name, const char *value)
{
	struct reading *r = arg;
	struct config_section *policy;

	if (r->failed || !add_piece(r, value))
		return 0;
	if (r->rest_len > 0)
		return 1;
	r->value_len = 0;
	if (strncmp(section, POLICY, strlen(POLICY)) != 0) {
		r->failed = !take_setting_line(r, name);
		return !r->failed;
	}
	policy = policies_section(r->config, section + strlen(POLICY));
	r->failed = !policy || !policies_take(r->config, policy, name, r->line, r->value, r->error);
	return !r->failed;
}

/* libinih's handler for lenient reading: takes addresses and nothing else. */
static int on_address(void *arg, const char *section, const char *name, const char *value)
{
	struct reading *r = arg;
	struct config_source source = {.origin = CONFIG_FROM_FILE};
	const struct config_setting *s = config_find(name, strlen(name), false);
	bool whole = add_piece(r, value);

	(void)section;
	if (r->rest_len > 0)
		return 1;
	r->value_len = 0;
	if (whole && s && (s == take_setting("listen") || s == take_setting("metrics_listen")))
		take_value(r->config, s, source, r->value, r->error);
	return 1;
}

/* --- what libinih gets --- */

/* Begins the section of a heading. That cannot wait for libinih, which does not tell of a heading
 * without settings. False with the error set. */
static bool check_heading(struct reading *r, const char *line, size_t len)
{
	const char *name = line + 1;
	size_t name_len = len - 2;
	char why[256];

	if (len < 2 || line[len - 1] != ']' || memchr(name, ']', name_len))
		return fail(r, "no heading: [policy NAME] or [" OURS "] expected, and nothing "
			       "behind it");
	if (name_len == strlen(OURS) && memcmp(name, OURS, name_len) == 0)
		return true;
	if (name_len < strlen(POLICY) || memcmp(name, POLICY, strlen(POLICY)) != 0)
		return fail(r, "the only sections are [policy NAME] and [" OURS "]");
	return policies_begin(r->config, name + strlen(POLICY), name_len - strlen(POLICY), r->line,
			      why, sizeof(why)) ||
	       fail(r, "%s", why);
}

/* The offset of the value in a line that is a setting; 0 with the error set if it is not. */
static size_t check_setting(struct reading *r, const char *line, size_t len)
{
	size_t name = strspn(line, NAME), at = name;

	while (at < len && isblank((unsigned char)line[at]))
		at++;
	if (name == 0 || at >= len || line[at] != '=')
		return (size_t)fail(r, "no setting: name = value expected");
	if (name >= CONFIG_NAME_MAX)
		return (size_t)fail(r, "%.*s...: unknown setting; breakerd --help lists them",
				    CONFIG_NAME_MAX, line);
	for (at++; at < len && isblank((unsigned char)line[at]); at++)
		;
	if (len - at > CONFIG_VALUE_MAX)
		return (size_t)fail(r, "%.*s: a value longer than %d bytes", (int)name, line,
				    CONFIG_VALUE_MAX);
	for (size_t i = at; i < len; i++)
		if (line[i] == ';' && i > name && isblank((unsigned char)line[i - 1]))
			return (size_t)fail(r,
					    "%.*s: white space before ';': a comment stands on a "
					    "line of its own",
					    (int)name, line);
	return at;
}

/* True if the value can be cut there into two pieces: libinih strips white space at both ends of a
 * piece, and takes one that begins with ';' or '#' for a comment. */
static bool can_cut(const char *text, size_t at)
{
	return !isspace((unsigned char)text[at - 1]) && !isspace((unsigned char)text[at]) &&
	       text[at] != ';' && text[at] != '#';
}

/* Writes the next piece of a long value as an indented line. NULL with the error set. */
static char *next_piece(struct reading *r, char *out, size_t room)
{
	size_t len = r->rest_len;

	if (len > room - 3) {
		len = room - 3;
		while (len > 0 && !can_cut(r->rest, len))
			len--;
	}
	if (len == 0) {
		fail(r, "too much white space within the value");
		return NULL;
	}
	out[0] = ' ';
	memcpy(out + 1, r->rest, len);
	memcpy(out + 1 + len, "\n", 2);
	r->rest += len;
	r->rest_len -= len;
	return out;
}

/* Hands a line, which has no white space at its end, to libinih. NULL with the error set. */
static char *hand_over(struct reading *r, const char *line, size_t len, char *out, size_t room)
{
	size_t value = 0;

	if (isspace((unsigned char)*line)) {
		fail(r, "begins with white space: a setting begins its line, and its value ends "
			"with the line");
		return NULL;
	}
	if (*line == '[' ? !check_heading(r, line, len) : !(value = check_setting(r, line, len)))
		return NULL;
	if (len + 2 > room) { /* this is no heading: check_heading bounds those */
		if (value + 2 > room) {
			fail(r, "%.*s: too much white space before the value",
			     (int)strspn(line, NAME), line);
			return NULL;
		}
		r->rest = line + value;
		r->rest_len = len - value;
		len = value;
	}
	memcpy(out, line, len);
	memcpy(out + len, "\n", 2);
	return out;
}

/* Reads the next line, without white space at its end. False with the error set. */
static bool take_line(struct reading *r, const char **line, size_t *len)
{
	const char *end = memchr(r->next, '\n', (size_t)(r->end - r->next));

	if (!end)
		end = r->end;
	*line = r->next;
	*len = (size_t)(end - r->next);
	r->next = end + 1;
	r->line++;
	if (memchr(*line, '\0', *len))
		return fail(r, "a NUL byte");
	while (*len > 0 && isspace((unsigned char)(*line)[*len - 1]))
		--*len;
	return true;
}

static bool is_blank_or_comment(const char *line, size_t len)
{
	size_t blank = 0;

	while (blank < len && isspace((unsigned char)line[blank]))
		blank++;
	return blank == len || line[blank] == '#' || line[blank] == ';';
}

/* Lenient reading skips headings, and all that is in policies. */
static bool is_skipped(struct reading *r, const char *line)
{
	if (*line == '[')
		r->in_policy = strncmp(line + 1, POLICY, strlen(POLICY)) == 0;
	return *line == '[' || r->in_policy;
}

/* Writes what libinih gets next: the next piece of a long value, or the next line. NULL if that
 * line is to be skipped, or is wrong, and then the error is set. */
static char *try_next(struct reading *r, char *out, size_t room)
{
	const char *line;
	size_t len;

	if (r->rest_len > 0)
		return next_piece(r, out, room);
	if (!take_line(r, &line, &len) || is_blank_or_comment(line, len) ||
	    (r->lenient && is_skipped(r, line)))
		return NULL;
	return hand_over(r, line, len, out, room);
}

/* libinih's reader, like fgets: the next line that is neither blank nor a comment. */
static char *next_line(char *out, int room, void *arg)
{
	struct reading *r = arg;
	char *got = NULL;

	while (!got && !r->failed && (r->rest_len > 0 || r->next < r->end)) {
		got = try_next(r, out, (size_t)room);
		if (r->failed && r->lenient) {
			r->failed = false;
			r->rest_len = r->value_len = 0;
		}
	}
	return got;
}

static void parse(struct reading *r, char *text, size_t len, ini_handler handler)
{
	r->next = text;
	r->end = text + len;
	if (len >= 3 && memcmp(text, "\xef\xbb\xbf", 3) == 0) /* a byte order mark */
		r->next += 3;
	if (ini_parse_stream(next_line, r, handler, r) != 0 && !r->failed && !r->lenient)
		fail(r, "libinih cannot read it");
	explicit_bzero(r->value, sizeof(r->value));
	explicit_bzero(text, len);
	free(text);
}

bool file_read(struct config *config, struct config_error *error)
{
	struct reading r = {.config = config, .error = error};
	char *text, why[256];
	size_t len;

	if (!take_file(config, config->config_file, FILE_MAX, &text, &len, why, sizeof(why))) {
		snprintf(error->text, sizeof(error->text), "%.400s: %s", config->config_file, why);
		return false;
	}
	parse(&r, text, len, on_setting);
	return !r.failed;
}

bool file_read_addresses(struct config *config, struct config_error *error)
{
	struct config_error ignored;
	struct reading r = {.config = config, .error = &ignored, .lenient = true};
	char *text = NULL, why[256];
	size_t len;

	(void)error;
	if (take_file(config, config->config_file, FILE_MAX, &text, &len, why, sizeof(why)) && text)
		parse(&r, text, len, on_address);
	return true;
}
