/* Log lines as JSON: see log_json.h. */
#include "base/log_json.h"

#include "proto/key.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

/* Room is kept for these: the end of a string that was cut, and the end of the object. */
#define STRING_END "...\""
#define OBJECT_END ",\"cut\":true}"
#define FILL_MAX   (LOG_JSON_MAX - (sizeof(STRING_END) - 1) - (sizeof(OBJECT_END) - 1))

struct object {
	char *text;
	size_t len;
	bool cut; /* something did not fit; nothing more is written */
};

static bool put(struct object *o, const char *text, size_t len)
{
	if (o->cut || o->len + len > FILL_MAX) {
		o->cut = true;
		return false;
	}
	memcpy(o->text + o->len, text, len);
	o->len += len;
	return true;
}

/* One character, n bytes long; n = 0: a byte that is no UTF-8. False if it did not fit. */
static bool put_character(struct object *o, const unsigned char *p, size_t n)
{
	char escape[8];

	if (n == 0)
		return put(o, "\xef\xbf\xbd", 3);
	if (n == 1 && (*p == '"' || *p == '\\'))
		snprintf(escape, sizeof(escape), "\\%c", *p);
	else if (n == 1 && (*p < 0x20 || *p == 0x7f))
		snprintf(escape, sizeof(escape), "\\u%04x", *p);
	else if (n == 2 && p[0] == 0xc2 && p[1] < 0xa0) /* C1 moves some terminals */
		snprintf(escape, sizeof(escape), "\\u%04x", p[1]);
	else if (n == 3 && p[0] == 0xe2 && p[1] == 0x80 && (p[2] == 0xa8 || p[2] == 0xa9))
		/* U+2028 and U+2029 end lines for some readers */
		snprintf(escape, sizeof(escape), "\\u20%02x", p[2] - 0x80);
	else
		return put(o, (const char *)p, n);
	return put(o, escape, strlen(escape));
}

static void put_string(struct object *o, const char *text, size_t len)
{
	const unsigned char *p = (const unsigned char *)text;
	bool fits = put(o, "\"", 1);

	if (!fits)
		return;
	while (len > 0 && fits) {
		size_t n = utf8_sequence(p, len), step = n ? n : 1;

		fits = put_character(o, p, n);
		p += step;
		len -= step;
	}
	/* STRING_END has its room */
	memcpy(o->text + o->len, STRING_END, sizeof(STRING_END));
	if (fits)
		o->text[o->len] = '"';
	o->len += fits ? 1 : sizeof(STRING_END) - 1;
}

/* True for an integer or decimal as JSON has it, with few enough digits for a double. */
static bool is_number(const char *text, size_t len)
{
	static const char digits[] = "0123456789";
	size_t sign = len > 0 && text[0] == '-', whole, part = 0;

	if (len > 16)
		return false;
	whole = strspn(text + sign, digits);
	if (whole == 0 || (whole > 1 && text[sign] == '0'))
		return false;
	if (text[sign + whole] == '.') {
		part = strspn(text + sign + whole + 1, digits);
		if (part++ == 0)
			return false;
	}
	return sign + whole + part == len;
}

struct value {
	char text[LOG_JSON_MAX];
	size_t len;
	bool quoted;
};

static void value_add(struct value *v, const char *text, size_t len)
{
	if (len > sizeof(v->text) - 1 - v->len)
		len = sizeof(v->text) - 1 - v->len;
	memcpy(v->text + v->len, text, len);
	v->len += len;
	v->text[v->len] = '\0';
}

static void put_member(struct object *o, const char *name, size_t len, const struct value *v)
{
	const size_t mark = o->len;
	bool ours = (len == 4 && memcmp(name, "time", len) == 0) ||
		    (len == 5 && memcmp(name, "level", len) == 0) ||
		    (len == 5 && memcmp(name, "event", len) == 0);

	put(o, ",\"", 2);
	put(o, name, len);
	put(o, ours ? "_\":" : "\":", ours ? 3 : 2);
	/* The opening quote has to fit too, or the member is left out. */
	if (o->cut || o->len >= FILL_MAX) {
		o->cut = true;
		o->len = mark;
		return;
	}
	if (v->quoted || !is_number(v->text, v->len)) {
		put_string(o, v->text, v->len);
	} else if (!put(o, v->text, v->len)) {
		o->len = mark;
	}
}

static int hex(char c)
{
	return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* Reads a text that log_quote made, without its quotes and escapes. Returns what follows it. */
static const char *read_quoted(const char *p, struct value *v)
{
	v->quoted = true;
	for (p++; *p && *p != '"'; p++) {
		char byte = *p;

		if (*p == '\\' && p[1] == 'x' && hex(p[2]) >= 0 && hex(p[3]) >= 0) {
			byte = (char)(hex(p[2]) * 16 + hex(p[3]));
			p += 3;
		} else if (*p == '\\' && p[1]) {
			byte = *++p;
		}
		value_add(v, &byte, 1);
	}
	if (*p == '"')
		p++;
	/* A text that was cut has "..." after the quote. */
	value_add(v, p, strcspn(p, " "));
	return p + strcspn(p, " ");
}

/* The length of the key at p, or 0 if no `key=` stands there. */
static size_t key_at(const char *p)
{
	size_t len = strspn(p, "abcdefghijklmnopqrstuvwxyz0123456789_");

	return p[len] == '=' ? len : 0;
}

/* Reads a value, up to the next key: a text without quotes, such as a path, may hold blanks. */
static const char *read_value(const char *p, struct value *v)
{
	v->len = 0;
	v->text[0] = '\0';
	v->quoted = false;
	if (*p == '"')
		return read_quoted(p, v);
	for (;;) {
		size_t word = strcspn(p, " ");

		value_add(v, p, word);
		p += word;
		if (!*p || key_at(p + 1))
			return p;
		value_add(v, p++, 1);
	}
}

size_t log_json(char out[LOG_JSON_MAX + 1], const char *time, const char *level, const char *words)
{
	struct object o = {.text = out};
	size_t token = strcspn(words, " ");
	const char *p = words + token;
	struct value v;

	put(&o, "{\"time\":", strlen("{\"time\":"));
	put_string(&o, time, strlen(time));
	put(&o, ",\"level\":", strlen(",\"level\":"));
	put_string(&o, level, strlen(level));
	put(&o, ",\"event\":", strlen(",\"event\":"));
	put_string(&o, words, token);
	while (*p && !o.cut) {
		const char *name = ++p;
		size_t len = key_at(name);

		p = read_value(len ? name + len + 1 : name, &v);
		if (len)
			put_member(&o, name, len, &v);
		else if (v.len)
			put_member(&o, "text", 4, &v);
	}
	strcpy(out + o.len, o.cut ? OBJECT_END : "}");
	return o.len + strlen(out + o.len);
}
