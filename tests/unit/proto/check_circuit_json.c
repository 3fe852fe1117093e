/*
 * proto/circuit_json.c and proto/circuit_body.c. Single stored values are in
 * tests/cases/circuit.tsv, which check_circuit runs; here are tests that do not fit a table.
 */
#include "proto/circuit_json.h"
#include "proto/key.h"
#include "suite.h"

#include <check.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define COUNT(a) (sizeof(a) / sizeof(*(a)))

#define SNAPSHOT                                                                                   \
	"{\"state\":\"half-open\",\"failureCount\":1,\"successCount\":2,\"lastFailureTime\":3,"    \
	"\"lastStateChange\":4}"

/* Decodes from memory that ends where the text ends, so that a sanitizer sees reads beyond it. */
static enum circuit_stored decode(const char *text, size_t len, struct circuit *c)
{
	char *copy = malloc(len ? len : 1);
	enum circuit_stored stored;

	ck_assert_ptr_nonnull(copy);
	memcpy(copy, text, len);
	stored = circuit_json_decode_stored(copy, len, c);
	free(copy);
	return stored;
}

START_TEST(encodes_as_stoma_does)
{
	char json[CIRCUIT_JSON_MAX];
	struct circuit c = {0, 7, 1700000000000, CIRCUIT_INT_MAX, CIRCUIT_OPEN};
	size_t len = circuit_json_encode(json, &c);

	ck_assert_str_eq(json, "{\"state\":\"open\",\"failureCount\":0,\"successCount\":7,"
			       "\"lastFailureTime\":1700000000000,"
			       "\"lastStateChange\":9007199254740991}");
	ck_assert_uint_eq(len, strlen(json));
}
END_TEST

START_TEST(the_longest_fits)
{
	char json[CIRCUIT_JSON_MAX];
	struct circuit c = {INT64_MIN, INT64_MAX, INT64_MIN, INT64_MIN, CIRCUIT_HALF_OPEN};
	size_t len = circuit_json_encode(json, &c);

	ck_assert_str_eq(json, "{\"state\":\"half-open\",\"failureCount\":-9223372036854775808,"
			       "\"successCount\":9223372036854775807,"
			       "\"lastFailureTime\":-9223372036854775808,"
			       "\"lastStateChange\":-9223372036854775808}");
	ck_assert_uint_eq(len, strlen(json));
	ck_assert_uint_lt(len, CIRCUIT_JSON_MAX);
}
END_TEST

START_TEST(encoded_decodes)
{
	static const int64_t numbers[] = {0,    1,          9,
					  10,   99,         1000000000,
					  1234, INT32_MAX,  CIRCUIT_INT_MAX - 1,
					  100,  UINT32_MAX, CIRCUIT_INT_MAX};

	for (size_t i = 0; i < COUNT(numbers); i++) {
		struct circuit c = {numbers[i], numbers[(i + 1) % COUNT(numbers)],
				    numbers[(i + 2) % COUNT(numbers)],
				    numbers[(i + 3) % COUNT(numbers)], i % CIRCUIT_STATES};
		struct circuit d = {-1, -1, -1, -1, CIRCUIT_CLOSED};
		char json[CIRCUIT_JSON_MAX];
		size_t len = circuit_json_encode(json, &c);

		ck_assert_int_eq(decode(json, len, &d), CIRCUIT_STORED_SOUND);
		ck_assert_int_eq(c.state, d.state);
		ck_assert_int_eq(c.failure_count, d.failure_count);
		ck_assert_int_eq(c.success_count, d.success_count);
		ck_assert_int_eq(c.last_failure_time, d.last_failure_time);
		ck_assert_int_eq(c.last_state_change, d.last_state_change);
	}
}
END_TEST

static const char *const sound[] = {
	SNAPSHOT,
	"{\"x\":[1,-2.5e+3,{\"y\":{}},[],\"\\u0041\\n\",true,false,null],"
	"\"st\\u0061te\":\"cl\\u006fsed\" , \"failureCount\":1.0,\"successCount\":0e0,"
	"\"lastFailureTime\":1e3,\n\"lastStateChange\":12345678901234}",
};

/* A beginning of a value is no value, and neither is a value followed by another byte. */
START_TEST(every_cut_is_none)
{
	const char *text = sound[_i];
	size_t len = strlen(text);
	char longer[512];
	struct circuit c = {5, 6, 7, 8, CIRCUIT_OPEN};

	ck_assert_int_eq(decode(text, len, &c), CIRCUIT_STORED_SOUND);
	c = (struct circuit){5, 6, 7, 8, CIRCUIT_OPEN};
	for (size_t cut = 0; cut < len; cut++)
		ck_assert_msg(decode(text, cut, &c) == CIRCUIT_STORED_NONE, "cut at %zu", cut);
	memcpy(longer, text, len);
	for (int byte = 0; byte < 256; byte++) {
		longer[len] = (char)byte;
		if (!byte || !strchr(" \t\r\n", byte))
			ck_assert_int_eq(decode(longer, len + 1, &c), CIRCUIT_STORED_NONE);
	}
	ck_assert_int_eq(c.failure_count, 5);
	ck_assert_int_eq(c.success_count, 6);
	ck_assert_int_eq(c.last_failure_time, 7);
	ck_assert_int_eq(c.last_state_change, 8);
	ck_assert_int_eq(c.state, CIRCUIT_OPEN);
}
END_TEST

/* Each byte replaced by each other: no crash, no read beyond the end, no value out of range. */
START_TEST(every_change_of_a_byte_is_survived)
{
	size_t len = strlen(sound[_i]);
	char text[512];

	for (size_t at = 0; at < len; at++) {
		for (int byte = 0; byte < 256; byte++) {
			struct circuit c = {0};

			memcpy(text, sound[_i], len);
			text[at] = (char)byte;
			decode(text, len, &c);
			ck_assert_int_le(c.state, CIRCUIT_HALF_OPEN);
			ck_assert_int_ge(c.failure_count, 0);
			ck_assert_int_le(c.failure_count, CIRCUIT_INT_MAX);
			ck_assert_int_ge(c.last_failure_time, 0);
			ck_assert_int_le(c.last_failure_time, CIRCUIT_INT_MAX);
		}
	}
}
END_TEST

/* The rule of the header: a count is what strtod makes of the whole token if that is an integer in
 * range, else 0. */
static void check_number(const char *token)
{
	size_t size = strlen(token) + 32;
	char *text = malloc(size);
	struct circuit c;
	double d = strtod(token, NULL);
	bool good = d >= 0 && d <= (double)CIRCUIT_INT_MAX && floor(d) == d;

	ck_assert_ptr_nonnull(text);
	snprintf(text, size, "{\"failureCount\":%s}", token);
	ck_assert_int_eq(decode(text, strlen(text), &c), CIRCUIT_STORED_REPAIRED);
	ck_assert_msg(c.failure_count == (good ? (int64_t)d : 0),
		      "%.80s: got %" PRId64 ", strtod says %.17g", token, c.failure_count, d);
	free(text);
}

static const char *const heads[] = {
	"0.",
	"0.5",
	"0.99999999999999994448884876874217",
	"0.9999999999999999444888487687421",
	"1.00000000000000011102230246251565404236316680908203125",
	"1.0000000000000001110223024625156540423631668090820312499",
	"2.9999999999999997779553950749686919152736663818359375",
	"9007199254740990.5",
	"9007199254740990.4",
	"9007199254740991.5",
	"9007199254740991.49",
	"9007199254740991.",
	"4503599627370495.75",
	"4503599627370495.25",
	"4503599627370496.5",
	"4503599627370497.5",
	"2251799813685248.125",
	"123456789.",
	"0.000000000000000000000000000000000",
};

/* Numbers on both sides of a rounding boundary, followed by digits up to great lengths. */
START_TEST(numbers_round_as_strtod_does)
{
	static const size_t lengths[] = {0, 1, 2, 5, 30, 700, 740, 790, 799, 800, 801, 802, 10000};
	static const char tails[] = "0159";
	static char token[11000];

	for (size_t l = 0; l < COUNT(lengths); l++) {
		for (const char *tail = tails; *tail; tail++) {
			for (const char *last = tails; *last; last++) {
				size_t len = strlen(heads[_i]);

				memcpy(token, heads[_i], len);
				memset(token + len, *tail, lengths[l]);
				len += lengths[l];
				token[len++] = *last;
				token[len] = '\0';
				check_number(token);
				strcpy(token + len, "e3");
				check_number(token);
				strcpy(token + len, "E-1");
				check_number(token);
				strcpy(token + len, "e+00000000000000000000015");
				check_number(token);
			}
		}
	}
}
END_TEST

/* xorshift64, so that the random numbers are the same in each run. */
static uint64_t next_random(uint64_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return *state;
}

static char *put_digits(char *to, uint64_t *state, unsigned most)
{
	for (unsigned n = (unsigned)(next_random(state) % most) + 1; n > 0; n--) {
		uint64_t r = next_random(state) % 16;

		*to++ = (char)('0' + (r < 10 ? r : r < 13 ? 0 : 9));
	}
	return to;
}

START_TEST(random_numbers_read_as_strtod_does)
{
	uint64_t state = 88172645463325252 + (uint64_t)_i;
	char token[4096];

	for (int round = 0; round < 20000; round++) {
		char *to = token;
		uint64_t shape = next_random(&state);

		if (shape % 8 == 0)
			*to++ = '-';
		if (shape % 3 == 0) {
			*to++ = '0';
		} else {
			*to++ = (char)('1' + shape / 64 % 9);
			if (shape & 8)
				to = put_digits(to, &state, shape & 16 ? 18 : 400);
		}
		if (shape & 32) {
			*to++ = '.';
			to = put_digits(to, &state, shape & 64 ? 20 : 1000);
		}
		if (shape & 128)
			to += sprintf(to, "%c%d", shape & 256 ? 'e' : 'E',
				      (int)(next_random(&state) % 800) - 400);
		*to = '\0';
		check_number(token);
	}
}
END_TEST

START_TEST(exponents_of_any_size)
{
	static char token[40000];

	strcpy(token, "0.");
	memset(token + 2, '0', 20000);
	strcpy(token + 20002, "25e20002");
	check_number(token);
	strcpy(token + 20002, "25e20001");
	check_number(token);
	memset(token, '3', 20000);
	strcpy(token + 20000, "e-19985");
	check_number(token);
	strcpy(token + 20000, "e-9223372036854775808");
	check_number(token);
	check_number("1e9223372036854775807");
	check_number("1e18446744073709551617");
	check_number("1e-18446744073709551617");
	check_number("0e-99999999999999999999999999999999999999");
}
END_TEST

/* Depth counts from the outermost object. A million brackets must not overflow the stack. */
START_TEST(depth_is_bounded)
{
	size_t n = 1000000;
	char *text = malloc(2 * n + 6);
	struct circuit c;

	ck_assert_ptr_nonnull(text);
	for (size_t depth = 1; depth <= 1024; depth++) {
		memcpy(text, "{\"x\":", 5);
		memset(text + 5, '[', depth);
		memset(text + 5 + depth, ']', depth);
		text[5 + 2 * depth] = '}';
		ck_assert_int_eq(decode(text, 6 + 2 * depth, &c), depth < CIRCUIT_JSON_DEPTH
									  ? CIRCUIT_STORED_REPAIRED
									  : CIRCUIT_STORED_NONE);
	}
	memset(text + 5, '[', n);
	memset(text + 5 + n, ']', n);
	text[5 + 2 * n] = '}';
	ck_assert_int_eq(decode(text, 6 + 2 * n, &c), CIRCUIT_STORED_NONE);
	free(text);
}
END_TEST

#define OPEN      CIRCUIT_OPEN
#define CLOSED    CIRCUIT_CLOSED
#define HALF_OPEN CIRCUIT_HALF_OPEN

static const struct {
	const char *body;
	enum circuit_state to;
	bool has_from;
	enum circuit_state from;
} bodies[] = {
	{"{\"to\":\"open\"}", OPEN, false, CLOSED},
	{"{\"to\":\"closed\"}", CLOSED, false, CLOSED},
	{"{\"to\":\"half-open\"}", HALF_OPEN, false, CLOSED},
	{"{\"to\":\"open\",\"from\":\"closed\"}", OPEN, true, CLOSED},
	{"{\"from\":\"open\",\"to\":\"half-open\"}", HALF_OPEN, true, OPEN},
	{"{\"to\":\"half-open\",\"from\":\"half-open\"}", HALF_OPEN, true, HALF_OPEN},
	{" \r\n\t{ \"to\" : \"open\" } \n", OPEN, false, CLOSED},
	{"{\"t\\u006f\":\"half\\u002dopen\"}", HALF_OPEN, false, CLOSED},
};

START_TEST(bodies_decode)
{
	struct circuit_op op = {.verb = CIRCUIT_RESET};
	char why[256] = "untouched";

	ck_assert_int_eq(circuit_json_decode_transition(bodies[_i].body, strlen(bodies[_i].body),
							&op, why, sizeof(why)),
			 CIRCUIT_BODY_OK);
	ck_assert_int_eq(op.verb, CIRCUIT_TRANSITION);
	ck_assert_int_eq(op.to, bodies[_i].to);
	ck_assert_int_eq(op.has_from, bodies[_i].has_from);
	ck_assert_int_eq(op.from, bodies[_i].from);
}
END_TEST

#define INVALID CIRCUIT_BODY_INVALID
#define STATE   CIRCUIT_BODY_STATE
#define B(text) text, sizeof(text) - 1

/* Bodies that are refused, with words that the explanation must contain. */
static const struct {
	const char *body;
	size_t len;
	enum circuit_body result;
	const char *why[2];
} wrong[] = {
	{B(""), INVALID, {"empty", "{\"to\":\"open\"}"}},
	{B(" \n\t\r"), INVALID, {"empty", "{\"to\":\"open\"}"}},
	{B("{}"), INVALID, {"`to` is missing", "{\"to\":\"open\"}"}},
	{B("{\"from\":\"open\"}"), INVALID, {"`to` is missing"}},
	{B("{\"state\":\"open\"}"), INVALID, {"`state`", "`to`"}},
	{B("{\"to\":\"open\",\"From\":\"open\"}"), INVALID, {"`From`"}},
	{B("{\"to\":\"open\",\"\":1}"), INVALID, {"``"}},
	{B("{\"to\":\"open\",\"to\":\"open\"}"), INVALID, {"`to` twice"}},
	{B("{\"to\":\"open\",\"t\\u006f\":\"open\"}"), INVALID, {"twice"}},
	{B("{\"from\":\"open\",\"to\":\"open\",\"from\":1}"), INVALID, {"`from` twice"}},
	{B("{\"to\":\"open\",\"x\":{\"a\":1,\"a\":2}}"), INVALID, {"a member twice"}},
	{B("{\"to\":null}"), INVALID, {"`to` is null", "\"half-open\""}},
	{B("{\"to\":1}"), INVALID, {"`to` is a number"}},
	{B("{\"to\":1.5}"), INVALID, {"`to` is a number"}},
	{B("{\"to\":true}"), INVALID, {"`to` is a boolean"}},
	{B("{\"to\":[\"open\"]}"), INVALID, {"`to` is an array"}},
	{B("{\"to\":{}}"), INVALID, {"`to` is an object"}},
	{B("{\"to\":\"open\",\"from\":null}"), INVALID, {"`from` is null"}},
	{B("{\"to\":\"open\",\"from\":0}"), INVALID, {"`from` is a number"}},
	{B("\"open\""), INVALID, {"is a string", "object"}},
	{B("[]"), INVALID, {"is an array", "object"}},
	{B("null"), INVALID, {"is null", "object"}},
	{B("7"), INVALID, {"is a number", "object"}},
	{B("open"), INVALID, {"not valid JSON", "{\"to\":\"open\"}"}},
	{B("to=open"), INVALID, {"not valid JSON"}},
	{B("{to:open}"), INVALID, {"not valid JSON", "line 1"}},
	{B("{'to':'open'}"), INVALID, {"not valid JSON"}},
	{B("{\"to\":\"open\",}"), INVALID, {"not valid JSON"}},
	{B("{\"to\":\"open\""), INVALID, {"not valid JSON"}},
	{B("{\"to\":\"op"), INVALID, {"not valid JSON"}},
	{B("{\"to\":1e999}"), INVALID, {"not valid JSON"}},
	{B("{\"to\":123456789012345678901234567890}"), INVALID, {"not valid JSON"}},
	{B("{\"to\":\"open\"}x"), INVALID, {"goes on"}},
	{B("{\"to\":\"open\"}{}"), INVALID, {"goes on"}},
	{B("{\"to\":\"open\"}\0"), INVALID, {"goes on"}},
	{B("\xEF\xBB\xBF{\"to\":\"open\"}"), INVALID, {"not valid JSON"}},
	{B("{\"to\":\"\xFF\"}"), INVALID, {"UTF-8"}},
	{B("{\"to\":\"\xED\xA0\x80\"}"), INVALID, {"UTF-8"}},
	{B("{\"to\":\"open\n\"}"), INVALID, {"not valid JSON"}},
	{B("{\"to\":\"\\ud800\"}"), INVALID, {"not valid JSON"}},
	{B("{\"t\\u0000\":\"open\"}"), INVALID, {"not valid JSON"}},
	{B("\0"), INVALID, {"not valid JSON"}},
	{B("{\"to\":\"opened\"}"),
	 STATE,
	 {"`to` is \"opened\"", "\"closed\", \"open\", \"half-open\""}},
	{B("{\"to\":\"\"}"), STATE, {"`to` is \"\""}},
	{B("{\"to\":\"Open\"}"), STATE, {"`to` is \"Open\""}},
	{B("{\"to\":\"half_open\"}"), STATE, {"`to` is \"half_open\""}},
	{B("{\"to\":\"open\\u0000\"}"), STATE, {"`to` is \"open\xEF\xBF\xBD\""}},
	{B("{\"to\":\"open\",\"from\":\"ajar\"}"), STATE, {"`from` is \"ajar\""}},
	{B("{\"to\":\"ajar\",\"from\":\"off\"}"), STATE, {"`to` is \"ajar\""}},
	{B("{\"to\":\"a\\nb\\u001b[1m\"}"), STATE, {"a b\xEF\xBF\xBD[1m"}},
	/* If the body is invalid and the state unknown, the body is reported. */
	{B("{\"to\":\"ajar\",\"x\":1}"), INVALID, {"`x`"}},
	{B("{\"to\":\"ajar\",\"from\":1}"), INVALID, {"`from` is a number"}},
	{B("{\"from\":\"ajar\"}"), INVALID, {"`to` is missing"}},
	{B("{\"to\":\"ajar\"} x"), INVALID, {"goes on"}},
};

START_TEST(wrong_bodies_are_explained)
{
	struct circuit_op op = {.verb = CIRCUIT_RESET, .to = HALF_OPEN};
	char *copy = malloc(wrong[_i].len ? wrong[_i].len : 1);
	char why[512];
	size_t len;

	ck_assert_ptr_nonnull(copy);
	memcpy(copy, wrong[_i].body, wrong[_i].len);
	memset(why, 'x', sizeof(why));
	ck_assert_msg(circuit_json_decode_transition(copy, wrong[_i].len, &op, why, sizeof(why)) ==
			      wrong[_i].result,
		      "%s: %s", wrong[_i].body, why);
	len = strnlen(why, sizeof(why));
	ck_assert_uint_lt(len, sizeof(why));
	ck_assert(utf8_valid(why, len));
	ck_assert_int_eq(why[len - 1], '.');
	for (int i = 0; i < 2 && wrong[_i].why[i]; i++)
		ck_assert_msg(strstr(why, wrong[_i].why[i]), "%s: %s", wrong[_i].body, why);
	ck_assert_int_eq(op.verb, CIRCUIT_RESET);
	ck_assert_int_eq(op.to, HALF_OPEN);
	free(copy);
}
END_TEST

START_TEST(a_long_word_is_cut)
{
	static const char head[] = "{\"to\":\"";
	char body[4096], why[512];
	struct circuit_op op;
	size_t len = 0;

	/* "x" and then characters of two bytes, so that the cut would split one. */
	len += (size_t)sprintf(body, "%sx", head);
	while (len < 3000)
		len += (size_t)sprintf(body + len, "\xD0\xBA");
	len += (size_t)sprintf(body + len, "\"}");
	ck_assert_int_eq(circuit_json_decode_transition(body, len, &op, why, sizeof(why)), STATE);
	ck_assert(utf8_valid(why, strlen(why)));
	ck_assert_ptr_nonnull(strstr(why, "\xBA...\""));
	ck_assert_ptr_null(strstr(why, "\xEF\xBF\xBD"));
	ck_assert_uint_lt(strlen(why), 200);
}
END_TEST

START_TEST(the_sentence_is_cut_to_its_room)
{
	static const char body[] = "{\"to\":\"\xD0\xBA\xD0\xBA\xD0\xBA\"}";
	struct circuit_op op;
	char why[64];

	for (size_t size = 1; size < sizeof(why); size++) {
		memset(why, 'x', sizeof(why));
		ck_assert_int_eq(circuit_json_decode_transition(body, sizeof(body) - 1, &op, why,
								size),
				 STATE);
		ck_assert_uint_lt(strnlen(why, size), size);
		ck_assert(utf8_valid(why, strlen(why)));
		ck_assert_int_eq(why[size], 'x');
	}
}
END_TEST

START_TEST(a_deep_body_is_invalid)
{
	size_t n = 32000;
	char *body = malloc(2 * n);
	struct circuit_op op;
	char why[512];

	ck_assert_ptr_nonnull(body);
	memset(body, '[', n);
	memset(body + n, ']', n);
	ck_assert_int_eq(circuit_json_decode_transition(body, 2 * n, &op, why, sizeof(why)),
			 INVALID);
	free(body);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("circuit_json");
	TCase *t = tcase_create("circuit_json");

	tcase_set_timeout(t, 60);
	tcase_add_test(t, encodes_as_stoma_does);
	tcase_add_test(t, the_longest_fits);
	tcase_add_test(t, encoded_decodes);
	tcase_add_loop_test(t, every_cut_is_none, 0, COUNT(sound));
	tcase_add_loop_test(t, every_change_of_a_byte_is_survived, 0, COUNT(sound));
	tcase_add_loop_test(t, numbers_round_as_strtod_does, 0, COUNT(heads));
	tcase_add_loop_test(t, random_numbers_read_as_strtod_does, 0, 4);
	tcase_add_test(t, exponents_of_any_size);
	tcase_add_test(t, depth_is_bounded);
	tcase_add_loop_test(t, bodies_decode, 0, COUNT(bodies));
	tcase_add_loop_test(t, wrong_bodies_are_explained, 0, COUNT(wrong));
	tcase_add_test(t, a_long_word_is_cut);
	tcase_add_test(t, the_sentence_is_cut_to_its_room);
	tcase_add_test(t, a_deep_body_is_invalid);
	suite_add_tcase(s, t);
	return suite_run(s);
}
