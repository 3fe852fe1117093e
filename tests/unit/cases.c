/*
 * The reader of tests/cases/circuit.tsv.
 */
#include "cases.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PATH "tests/cases/circuit.tsv"

enum column { NAME, BEFORE, FOUND, OP, NOW, EFFECT, CIRCUIT, AFTER, COLUMNS };

static _Noreturn __attribute__((format(printf, 2, 3))) void die(int line, const char *fmt, ...)
{
	va_list ap;

	fprintf(stderr, "%s:%d: ", PATH, line);
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fputc('\n', stderr);
	exit(1);
}

static void *need(void *p)
{
	if (!p) {
		perror("cases");
		exit(1);
	}
	return p;
}

/* Replaces <>, <HH> and <HH*N> by their bytes, and NOW by `now` unless that is NULL. */
static char *expand(const char *in, const char *now, int line, size_t *len)
{
	char *out = NULL;
	FILE *f = need(open_memstream(&out, len));

	while (*in) {
		unsigned byte, times = 1;
		int used = 0;

		if (now && strncmp(in, "NOW", 3) == 0) {
			fputs(now, f);
			in += 3;
		} else if (*in != '<') {
			fputc(*in++, f);
		} else if (in[1] == '>') {
			in += 2;
		} else if ((sscanf(in, "<%2x>%n", &byte, &used) == 1 && used) ||
			   (sscanf(in, "<%2x*%u>%n", &byte, &times, &used) == 2 && used)) {
			while (times--)
				fputc(byte, f);
			in += used;
		} else {
			die(line, "ill-formed escape at: %s", in);
		}
	}
	if (fclose(f) != 0)
		need(NULL);
	return out;
}

static int one_of(const char *word, const char *const *words, int count, int line)
{
	for (int i = 0; i < count; i++)
		if (strcmp(word, words[i]) == 0)
			return i;
	die(line, "unknown word: %s", word);
}

static enum circuit_state state_of(const char *word, int line)
{
	enum circuit_state state;

	if (!circuit_state_parse(word, strlen(word), &state))
		die(line, "no such state: %s", word);
	return state;
}

static int64_t number_of(const char *word, int line)
{
	char *end;
	long long n = strtoll(word, &end, 10);

	if (end == word || *end)
		die(line, "no number: %s", word);
	return n;
}

static void read_op(struct circuit_op *op, char *text, int line)
{
	static const char *const verbs[] = {"get", "success", "failure", "transition", "reset"};
	char *words[4];
	int count = 0;

	for (char *w = strtok(text, " "); w && count < 4; w = strtok(NULL, " "))
		words[count++] = w;
	if (count == 0)
		die(line, "no operation");
	op->verb = one_of(words[0], verbs, sizeof(verbs) / sizeof(verbs[0]), line);
	if (op->verb != CIRCUIT_TRANSITION && count == 1)
		return;
	if (op->verb != CIRCUIT_TRANSITION || count == 1 || count == 3)
		die(line, "ill-formed operation");
	op->to = state_of(words[1], line);
	if (count == 4) {
		if (strcmp(words[2], "from") != 0)
			die(line, "from expected: %s", words[2]);
		op->has_from = true;
		op->from = state_of(words[3], line);
	}
}

static int64_t read_stamp(const char *word, bool *is_now, int line)
{
	*is_now = strcmp(word, "NOW") == 0;
	return *is_now ? 0 : number_of(word, line);
}

static void read_circuit(struct circuit_case *row, char *text)
{
	char *words[5];

	for (int i = 0; i < 5; i++) {
		words[i] = strtok(i == 0 ? text : NULL, " ");
		if (!words[i])
			die(row->line, "five fields expected");
	}
	row->expected.state = state_of(words[0], row->line);
	row->expected.failure_count = number_of(words[1], row->line);
	row->expected.success_count = number_of(words[2], row->line);
	row->expected.last_failure_time =
		read_stamp(words[3], &row->failure_time_is_now, row->line);
	row->expected.last_state_change =
		read_stamp(words[4], &row->state_change_is_now, row->line);
}

static void read_row(struct circuit_case *row, char *line)
{
	static const char *const founds[] = {"absent", "sound", "repaired", "none"};
	static const char *const effects[] = {"read", "written", "removed", "conflict"};
	char *columns[COLUMNS];

	for (int i = 0; i < COLUMNS; i++) {
		columns[i] = strsep(&line, "\t");
		if (!columns[i] || !*columns[i])
			die(row->line, "%d columns expected", COLUMNS);
	}
	if (line)
		die(row->line, "more than %d columns", COLUMNS);
	row->name = need(strdup(columns[NAME]));
	row->found = one_of(columns[FOUND], founds, 4, row->line);
	if (strcmp(columns[BEFORE], "-") != 0)
		row->before = expand(columns[BEFORE], NULL, row->line, &row->before_len);
	if (!row->before != (row->found == CASE_ABSENT))
		die(row->line, "`before` and `found` do not agree");
	read_op(&row->op, columns[OP], row->line);
	row->now_ms = number_of(columns[NOW], row->line);
	row->effect = one_of(columns[EFFECT], effects, 4, row->line);
	if (strcmp(columns[CIRCUIT], "-") != 0)
		read_circuit(row, columns[CIRCUIT]);
	else if (row->effect != CIRCUIT_REMOVED)
		die(row->line, "only a reset answers nothing");
	row->after = CASE_AFTER_TEXT;
	if (strcmp(columns[AFTER], "=") == 0)
		row->after = CASE_AFTER_UNCHANGED;
	else if (strcmp(columns[AFTER], "-") == 0)
		row->after = CASE_AFTER_NOTHING;
	row->after_text = need(strdup(columns[AFTER]));
}

void cases_load(struct cases *cases)
{
	FILE *f = fopen(PATH, "r");
	char *line = NULL;
	size_t size = 0;
	ssize_t len;

	*cases = (struct cases){0};
	if (!f)
		die(0, "cannot be opened; run the tests in the root of the source tree");
	for (int number = 1; (len = getline(&line, &size, f)) >= 0; number++) {
		if (len > 0 && line[len - 1] == '\n')
			line[--len] = '\0';
		if (len == 0 || line[0] == '#')
			continue;
		cases->rows =
			need(reallocarray(cases->rows, cases->count + 1, sizeof(*cases->rows)));
		cases->rows[cases->count] = (struct circuit_case){.line = number};
		read_row(&cases->rows[cases->count++], line);
	}
	free(line);
	fclose(f);
	if (cases->count == 0)
		die(0, "holds no cases");
}

void cases_free(struct cases *cases)
{
	for (size_t i = 0; i < cases->count; i++) {
		free(cases->rows[i].name);
		free(cases->rows[i].before);
		free(cases->rows[i].after_text);
	}
	free(cases->rows);
	*cases = (struct cases){0};
}

struct circuit cases_expected(const struct circuit_case *row, int64_t now_ms)
{
	struct circuit c = row->expected;

	if (row->failure_time_is_now)
		c.last_failure_time = now_ms;
	if (row->state_change_is_now)
		c.last_state_change = now_ms;
	return c;
}

char *cases_after(const struct circuit_case *row, int64_t now_ms, size_t *len)
{
	char now[24];

	snprintf(now, sizeof(now), "%" PRId64, now_ms);
	return expand(row->after_text, now, row->line, len);
}
