/* Values between their text and the structs: see value.h. */
#include "config/value.h"

#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define refuse check_refuse

static const struct {
	const char *name;
	int64_t ms;
} units[] = {
	/* The longest first, for value_put_time. */
	{"d", 86400000}, {"h", 3600000}, {"m", 60000}, {"s", 1000}, {"ms", 1},
};
#define UNITS (sizeof(units) / sizeof(units[0]))

void *value_base(struct config *config, const struct config_setting *setting)
{
	return setting->flags & CONFIG_POLICY ? (void *)&config->policy : config;
}

const void *value_const_base(const struct config *config, const struct config_setting *setting)
{
	return setting->flags & CONFIG_POLICY ? (const void *)&config->policy : config;
}

static void *field(void *base, const struct config_setting *setting)
{
	return (char *)base + setting->offset;
}

static const void *const_field(const void *base, const struct config_setting *setting)
{
	return (const char *)base + setting->offset;
}

/* --- numbers and times */

/* Reads a number that is digits alone, without sign or blanks. A larger one becomes UINT_MAX. */
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

static void put_decimal(uint32_t thousandths, char *out, size_t size)
{
	int len = snprintf(out, size, "%u.%03u", thousandths / 1000, thousandths % 1000);

	while (out[len - 1] == '0')
		out[--len] = '\0';
	if (out[len - 1] == '.')
		out[--len] = '\0';
}

void value_put_time(int64_t ms, char *out, size_t size)
{
	size_t i = 0;

	while (ms % units[i].ms != 0 || (ms == 0 && i < UNITS - 1))
		i++;
	snprintf(out, size, "%" PRId64 "%s", ms / units[i].ms, ms ? units[i].name : "");
}

void value_put_range(const struct config_setting *s, char *out, size_t size)
{
	char min[32], max[32];

	if (s->type == CONFIG_TIME && !s->unit) {
		value_put_time((int64_t)s->min * s->ms, min, sizeof(min));
		value_put_time((int64_t)s->max * s->ms, max, sizeof(max));
		snprintf(out, size, "%s to %s", min, max);
	} else if (s->type == CONFIG_DECIMAL) {
		put_decimal(s->min, min, sizeof(min));
		put_decimal(s->max, max, sizeof(max));
		snprintf(out, size, "%s to %s %s", min, max, s->unit);
	} else {
		snprintf(out, size, "%u to %u %s", s->min, s->max, s->unit);
	}
}

/* "not a whole number, 1 to 10 calls" */
static bool refuse_range(const struct config_setting *s, const char *words, char *why, size_t size)
{
	char range[96];

	value_put_range(s, range, sizeof(range));
	return refuse(why, size, "%s, %s", words, range);
}

static bool set_number(void *base, const struct config_setting *s, const char *text, char *why,
		       size_t size)
{
	unsigned n;

	if (!parse_digits(text, 10, &n))
		return refuse_range(s, "not a whole number", why, size);
	if (n < s->min || n > s->max)
		return refuse_range(s, "out of range", why, size);
	*(unsigned *)field(base, s) = n;
	return true;
}

/*
 * Reads a decimal number, with or without a fraction, and multiplies it by `scale`; *whole says
 * whether the product is a whole number. False if the text is no such number. A number beyond any
 * range becomes SCALED_MAX.
 */
#define SCALED_MAX (INT64_C(1) << 53)
static bool parse_scaled(const char *text, size_t len, int64_t scale, int64_t *out, bool *whole)
{
	int64_t n = 0, fraction = 0, ten = 1;
	size_t i = 0, digits = 0;

	for (; i < len && text[i] >= '0' && text[i] <= '9'; i++, digits++)
		if (n < SCALED_MAX)
			n = n * 10 + (text[i] - '0');
	n = n > SCALED_MAX / scale ? SCALED_MAX : n * scale;
	*whole = true;
	if (i < len && text[i] == '.' && digits > 0) {
		size_t from = ++i;

		for (; i < len && text[i] >= '0' && text[i] <= '9'; i++) {
			if (ten < 1000000000) {
				fraction = fraction * 10 + (text[i] - '0');
				ten *= 10;
			} else if (text[i] != '0') {
				*whole = false;
			}
		}
		digits = i > from ? digits : 0;
		*whole = *whole && fraction * scale % ten == 0;
		n += fraction * scale / ten;
	}
	*out = n;
	return digits > 0 && i == len;
}

static bool set_time(void *base, const struct config_setting *s, const char *text, char *why,
		     size_t size)
{
	size_t len = strcspn(text, "dhms");
	int64_t n, scale = s->ms;
	bool whole, known = !text[len];

	for (size_t i = 0; i < UNITS; i++) {
		if (strcmp(text + len, units[i].name) == 0) {
			scale = units[i].ms;
			known = true;
		}
	}
	if (!known || !parse_scaled(text, len, scale, &n, &whole))
		return refuse_range(s, "not a time: a number, with ms, s, m, h or d behind it", why,
				    size);
	if (n < (int64_t)s->min * s->ms || n > (int64_t)s->max * s->ms)
		return refuse_range(s, "out of range", why, size);
	if (!whole)
		return refuse_range(s, "finer than a millisecond", why, size);
	*(int64_t *)field(base, s) = n;
	return true;
}

static bool set_decimal(void *base, const struct config_setting *s, const char *text, char *why,
			size_t size)
{
	int64_t n;
	bool whole;

	if (!parse_scaled(text, strlen(text), 1000, &n, &whole))
		return refuse_range(s, "not a number", why, size);
	if (n < s->min || n > s->max)
		return refuse_range(s, "out of range", why, size);
	if (!whole)
		return refuse_range(s, "finer than a thousandth", why, size);
	*(uint32_t *)field(base, s) = (uint32_t)n;
	return true;
}

static bool set_mode(void *base, const struct config_setting *s, const char *text, char *why,
		     size_t size)
{
	unsigned n;

	if (!parse_digits(text, 8, &n) || n < s->min || n > s->max)
		return refuse(why, size, "not a mode, octal from %04o to %04o", s->min, s->max);
	*(mode_t *)field(base, s) = (mode_t)n;
	return true;
}

/* --- words */

static bool set_choice(void *base, const struct config_setting *s, const char *text, char *why,
		       size_t size)
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
		*(bool *)field(base, s) = i == 1;
	else
		*(enum log_level *)field(base, s) = (enum log_level)i;
	return true;
}

static bool set_string(void *base, const struct config_setting *s, const char *text, char *why,
		       size_t size)
{
	char kept[CONFIG_VALUE_MAX + 1];
	char **at = field(base, s), *copy;

	if (!*text && !(s->flags & CONFIG_MAY_BE_EMPTY))
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

static bool set_statuses(void *base, const struct config_setting *s, const char *text, char *why,
			 size_t size)
{
	char kept[CONFIG_VALUE_MAX + 1];

	if (!check_statuses(text, kept, why, size))
		return false;
	strcpy(field(base, s), kept); /* at most CONFIG_STATUSES_MAX bytes */
	return true;
}

/* --- lists */

static bool add_item(struct config_list *list, config_check_fn *check, unsigned line,
		     const char *item, bool named, char *why, size_t size)
{
	char kept[CONFIG_VALUE_MAX + 1], reason[512];

	if (strlen(item) > CONFIG_ITEM_MAX)
		return refuse(why, size, "an item is longer than %d bytes", CONFIG_ITEM_MAX);
	if (!check(item, kept, reason, sizeof(reason)))
		return refuse(why, size, "%s%s%s", named ? item : "", named ? ": " : "", reason);
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

bool value_add_items(struct config_list *list, config_check_fn *check, unsigned line,
		     const char *text, bool may_empty, char *why, size_t why_size)
{
	static const char apart[] = ", \t";
	/* If there are several items, the wrong one is named; not if it may hold a password
	 * (user:password@). */
	bool named = text[strcspn(text, apart)] && !strchr(text, '@');
	char item[CONFIG_VALUE_MAX + 1];
	size_t items = 0;

	for (text += strspn(text, apart); *text; text += strspn(text, apart)) {
		size_t len = strcspn(text, apart);

		memcpy(item, text, len);
		item[len] = '\0';
		text += len;
		items++;
		if (!add_item(list, check, line, item, named, why, why_size))
			return false;
	}
	if (items == 0 && !may_empty)
		return refuse(why, why_size, "must not be empty");
	return true;
}

void value_clear(struct config_list *list)
{
	while (list->count > 0)
		free(list->items[--list->count]);
}

/* --- all of them */

bool value_set(void *base, const struct config_setting *s, unsigned line, const char *text,
	       char *why, size_t why_size)
{
	if (!check_sound(text, why, why_size))
		return false;
	switch (s->type) {
	case CONFIG_STRING:
		return set_string(base, s, text, why, why_size);
	case CONFIG_LIST:
		return value_add_items(field(base, s), s->check, line, text,
				       s->flags & CONFIG_MAY_BE_EMPTY, why, why_size);
	case CONFIG_NUMBER:
		return set_number(base, s, text, why, why_size);
	case CONFIG_TIME:
		return set_time(base, s, text, why, why_size);
	case CONFIG_DECIMAL:
		return set_decimal(base, s, text, why, why_size);
	case CONFIG_STATUSES:
		return set_statuses(base, s, text, why, why_size);
	case CONFIG_MODE:
		return set_mode(base, s, text, why, why_size);
	case CONFIG_BOOL:
	case CONFIG_LEVEL:
		return set_choice(base, s, text, why, why_size);
	}
	return false;
}

static void put_time(const struct config_setting *s, int64_t ms, char *out, size_t size)
{
	if (s->unit && ms % s->ms == 0)
		snprintf(out, size, "%" PRId64, ms / s->ms);
	else
		value_put_time(ms, out, size);
}

bool value_get(const void *base, const struct config_setting *s, size_t i,
	       char out[CONFIG_VALUE_MAX + 1])
{
	const size_t size = CONFIG_VALUE_MAX + 1;
	const void *at = const_field(base, s);
	const struct config_list *list = at;

	if (i >= (s->type == CONFIG_LIST ? list->count : 1))
		return false;
	switch (s->type) {
	case CONFIG_STRING:
		snprintf(out, size, "%s", *(char *const *)at);
		break;
	case CONFIG_LIST:
		snprintf(out, size, "%s", list->items[i]);
		break;
	case CONFIG_NUMBER:
		snprintf(out, size, "%u", *(const unsigned *)at);
		break;
	case CONFIG_TIME:
		put_time(s, *(const int64_t *)at, out, size);
		break;
	case CONFIG_DECIMAL:
		put_decimal(*(const uint32_t *)at, out, size);
		break;
	case CONFIG_STATUSES:
		snprintf(out, size, "%s", (const char *)at);
		break;
	case CONFIG_MODE:
		snprintf(out, size, "%04o", (unsigned)*(const mode_t *)at);
		break;
	case CONFIG_BOOL:
		snprintf(out, size, "%s", s->choices[*(const bool *)at]);
		break;
	case CONFIG_LEVEL:
		snprintf(out, size, "%s", s->choices[*(const enum log_level *)at]);
		break;
	}
	return true;
}

static size_t size_of(const struct config_setting *s)
{
	switch (s->type) {
	case CONFIG_TIME:
		return sizeof(int64_t);
	case CONFIG_STATUSES:
		return CONFIG_STATUSES_MAX + 1;
	case CONFIG_BOOL:
		return sizeof(bool);
	default: /* all others that a policy has are numbers */
		return sizeof(uint32_t);
	}
}

void value_copy(struct config_policy *to, const struct config_policy *from,
		const struct config_setting *s)
{
	memcpy(field(to, s), const_field(from, s), size_of(s));
}

bool config_same(const struct config *a, const struct config *b, const struct config_setting *s)
{
	const void *base_a = value_const_base(a, s), *base_b = value_const_base(b, s);
	char one[CONFIG_VALUE_MAX + 1], other[CONFIG_VALUE_MAX + 1];

	for (size_t i = 0;; i++) {
		bool has_one = value_get(base_a, s, i, one);

		if (has_one != value_get(base_b, s, i, other))
			return false;
		if (!has_one)
			return true;
		if (strcmp(one, other) != 0)
			return false;
	}
}
