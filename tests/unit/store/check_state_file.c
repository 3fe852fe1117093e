#include "base/siphash.h"
#include "proto/breaker_member.h"
#include "proto/key.h"
#include "store/packed_breaker.h"
#include "store/state_file.h"
#include "suite.h"

#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#define TTL INT64_C(100000)

static char directory[64];
static char path[96];
static struct circuit_table *table;

/* Between the two moments the machine was rebooted, so the monotonic clock has started again. */
static const struct state_moment saved_at = {.wall_ms = 1700000000000, .table_ms = 5000000};
static const struct state_moment read_at = {.wall_ms = 1700000010000, .table_ms = 777};

static void setup(void)
{
	strcpy(directory, "/tmp/check_state_file.XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(directory));
	snprintf(path, sizeof(path), "%s/state", directory);
	table = circuit_table_new(1000, TTL, NULL);
	ck_assert_ptr_nonnull(table);
}

static void remove_file(const char *suffix)
{
	char name[128];

	snprintf(name, sizeof(name), "%s%s", path, suffix);
	remove(name);
}

static void teardown(void)
{
	circuit_table_free(table);
	remove_file("");
	remove_file(".tmp");
	rmdir(directory);
}

static void renew(size_t max)
{
	circuit_table_free(table);
	table = circuit_table_new(max, TTL, NULL);
	ck_assert_ptr_nonnull(table);
}

/* Puts a circuit into the table, written `age` ms before the save. The oldest must be put first. */
static void put(const char *key, size_t len, struct circuit c, int64_t age)
{
	ck_assert_int_eq(circuit_table_write(table, NULL, key, len, &c, saved_at.table_ms - age),
			 TABLE_OK);
}

static void put_in(const char *key, enum circuit_state state, int64_t age)
{
	put(key, strlen(key), (struct circuit){.state = state}, age);
}

static void save(void)
{
	ck_assert_int_eq(state_file_write(path, table, NULL, &saved_at), 0);
}

static enum state_file_status load_at(const struct state_moment *now,
				      struct state_file_report *report)
{
	renew(1000);
	return state_file_read(path, table, NULL, TTL, now, report);
}

static struct state_file_report load(void)
{
	struct state_file_report report;

	ck_assert_int_eq(load_at(&read_at, &report), STATE_FILE_READ);
	return report;
}

static struct circuit_entry *find(const char *key)
{
	return circuit_table_find(table, key, strlen(key), 0);
}

static size_t slurp(char *buffer, size_t size)
{
	FILE *f = fopen(path, "rb");
	size_t len;

	ck_assert_ptr_nonnull(f);
	len = fread(buffer, 1, size, f);
	ck_assert_uint_lt(len, size);
	fclose(f);
	return len;
}

static void spill(const char *text, size_t len)
{
	FILE *f = fopen(path, "wb");

	ck_assert_ptr_nonnull(f);
	ck_assert_uint_eq(fwrite(text, 1, len, f), len);
	ck_assert_int_eq(fclose(f), 0);
}

static void assert_damaged(const char *text, size_t len, const char *why)
{
	struct state_file_report report;

	spill(text, len);
	ck_assert_int_eq(load_at(&read_at, &report), STATE_FILE_DAMAGED);
	ck_assert_uint_eq(circuit_table_count(table), 0);
	ck_assert_msg(strstr(report.why, why), "%s", report.why);
}

/* Writes a file of these lines, with a last line that has their right number and checksum. */
static void forge(const char *lines)
{
	struct siphash_key sum = {0};
	char text[8192];
	size_t count = 0;

	for (const char *p = lines, *end; *p; p = end, count++) {
		end = strchr(p, '\n') + 1;
		sum.k0 = siphash(&sum, p, (size_t)(end - p));
	}
	snprintf(text, sizeof(text), "%send %zu %016" PRIx64 "\n", lines, count - 1, sum.k0);
	spill(text, strlen(text));
}

#define SNAPSHOT                                                                                   \
	"{\"state\":\"closed\",\"failureCount\":0,\"successCount\":0,\"lastFailureTime\":0,"       \
	"\"lastStateChange\":0}"

static void assert_forged_damaged(const char *lines, const char *why)
{
	struct state_file_report report;

	forge(lines);
	ck_assert_int_eq(load_at(&read_at, &report), STATE_FILE_DAMAGED);
	ck_assert_uint_eq(circuit_table_count(table), 0);
	ck_assert_msg(strstr(report.why, why), "%s", report.why);
}

/* --- the format ------------------------------------------------------------------------ */

START_TEST(the_format_is_as_it_was)
{
	/* Such files exist: a change of this text needs a new version number. */
	static const char golden[] =
		"breakerd-state 1\n"
		"1699999999993 /api/users "
		"{\"state\":\"open\",\"failureCount\":5,\"successCount\":2,"
		"\"lastFailureTime\":1699999999990,\"lastStateChange\":1699999999993}\n"
		"1700000000000 a%20100%25 " SNAPSHOT "\n"
		"end 2 44131f6c71fafb11\n";
	char text[1024];
	struct circuit c = {
		.state = CIRCUIT_OPEN,
		.failure_count = 5,
		.success_count = 2,
		.last_failure_time = 1699999999990,
		.last_state_change = 1699999999993,
	};

	put("/api/users", 10, c, 7);
	put_in("a 100%", CIRCUIT_CLOSED, 0);
	save();
	text[slurp(text, sizeof(text))] = '\0';
	ck_assert_str_eq(text, golden);
	spill(golden, strlen(golden));
	ck_assert_uint_eq(load().restored, 2);
}
END_TEST

START_TEST(what_is_saved_comes_back)
{
	struct circuit c = {.state = CIRCUIT_HALF_OPEN,
			    .failure_count = CIRCUIT_INT_MAX,
			    .success_count = 1,
			    .last_failure_time = CIRCUIT_INT_MAX,
			    .last_state_change = 12};
	const struct circuit *back;
	struct circuit_entry *e;
	struct stat st;

	put("k", 1, c, 1234);
	save();
	ck_assert_int_eq(stat(path, &st), 0);
	ck_assert_uint_eq(st.st_mode & 07777, 0600);
	ck_assert_uint_eq(load().restored, 1);
	e = find("k");
	ck_assert_ptr_nonnull(e);
	back = circuit_entry_get(e);
	ck_assert_int_eq(back->state, c.state);
	ck_assert_int_eq(back->failure_count, c.failure_count);
	ck_assert_int_eq(back->success_count, c.success_count);
	ck_assert_int_eq(back->last_failure_time, c.last_failure_time);
	ck_assert_int_eq(back->last_state_change, c.last_state_change);
	/* The circuit's age at the save, plus the 10 s since. */
	ck_assert_int_eq(circuit_entry_written(e), read_at.table_ms - 1234 - 10000);
}
END_TEST

/* Each byte that a key may contain, at its beginning, inside and at its end. */
START_TEST(every_key_comes_back)
{
	char key[KEY_MAX];
	size_t count = 0;

	for (int b = 1; b < 256; b++) {
		char forms[][4] = {{(char)b}, {'x', (char)b}, {(char)b, 'x'}, {'%', (char)b, '4'}};

		for (size_t i = 0; i < 4; i++) {
			size_t len = strnlen(forms[i], 4);

			if (key_check(forms[i], len) == NULL &&
			    !circuit_table_find(table, forms[i], len, 0)) {
				put(forms[i], len, (struct circuit){.success_count = b}, 0);
				count++;
			}
		}
	}
	/* Characters of two, three and four bytes; keys of the greatest length, all escaped. */
	put_in("\xc2\x80", CIRCUIT_OPEN, 0);
	put_in("\xe2\x82\xac \xef\xbf\xbf", CIRCUIT_OPEN, 0);
	put_in("\xf4\x8f\xbf\xbf", CIRCUIT_OPEN, 0);
	memset(key, '%', sizeof(key));
	put(key, sizeof(key), (struct circuit){.success_count = 1}, 0);
	memset(key, ' ', sizeof(key));
	put(key, sizeof(key), (struct circuit){.success_count = 2}, 0);
	save();
	ck_assert_uint_gt(count, 370);
	ck_assert_uint_eq(load().restored, count + 5);
	ck_assert_int_eq(circuit_entry_get(find("% 4"))->success_count, ' ');
	ck_assert_int_eq(circuit_entry_get(find("%%4"))->success_count, '%');
	ck_assert_int_eq(circuit_entry_get(find("~x"))->success_count, '~');
	ck_assert_ptr_nonnull(find("\xe2\x82\xac \xef\xbf\xbf"));
	ck_assert_int_eq(
		circuit_entry_get(circuit_table_find(table, key, sizeof(key), 0))->success_count,
		2);
}
END_TEST

START_TEST(an_empty_table_is_a_file_too)
{
	save();
	ck_assert_uint_eq(load().restored, 0);
}
END_TEST

START_TEST(many_circuits_fill_many_buffers)
{
	enum { MANY = 20000 };
	struct state_file_report report;
	char key[300];

	renew(MANY);
	memset(key, 'k', sizeof(key));
	for (int i = 0; i < MANY; i++) {
		int len = snprintf(key, sizeof(key), "%*d", i % 250 + 6, i);

		put(key, (size_t)len, (struct circuit){.failure_count = i}, MANY - i);
	}
	save();
	renew(MANY);
	ck_assert_int_eq(state_file_read(path, table, NULL, TTL, &read_at, &report),
			 STATE_FILE_READ);
	ck_assert_uint_eq(report.restored, MANY);
	for (int i = 0; i < MANY; i++) {
		snprintf(key, sizeof(key), "%*d", i % 250 + 6, i);
		ck_assert_int_eq(circuit_entry_get(find(key))->failure_count, i);
	}
}
END_TEST

/* --- damage ---------------------------------------------------------------------------- */

/* Writes a file of three circuits and reads its text. Returns the length. */
static size_t sample(char text[1024])
{
	put_in("/api/users", CIRCUIT_OPEN, 7);
	put_in("a 100%", CIRCUIT_CLOSED, 3);
	put_in("\xd0\xba", CIRCUIT_HALF_OPEN, 0);
	save();
	return slurp(text, 1024);
}

START_TEST(a_cut_anywhere_is_found)
{
	char text[1024];
	size_t len = sample(text);

	for (size_t i = 0; i < len; i++)
		assert_damaged(text, i, "");
	spill(text, len);
	ck_assert_uint_eq(load().restored, 3);
}
END_TEST

START_TEST(a_flipped_bit_anywhere_is_found)
{
	char text[1024];
	size_t len = sample(text);

	for (size_t i = 0; i < len * 8; i++) {
		text[i / 8] ^= (char)(1 << i % 8);
		assert_damaged(text, len, "");
		text[i / 8] ^= (char)(1 << i % 8);
	}
}
END_TEST

START_TEST(lines_that_are_moved_doubled_or_missing_are_found)
{
	char text[1024], other[2048];
	size_t len = sample(text);
	char *second = strchr(text, '\n') + 1, *third = strchr(second, '\n') + 1;
	char *fourth = strchr(third, '\n') + 1;

	text[len] = '\0';
	snprintf(other, sizeof(other), "%.*s%.*s%.*s%s", (int)(second - text), text,
		 (int)(fourth - third), third, (int)(third - second), second, fourth);
	assert_damaged(other, strlen(other), "checksum");
	snprintf(other, sizeof(other), "%.*s%s", (int)(second - text), text, third);
	assert_damaged(other, strlen(other), "checksum");
	snprintf(other, sizeof(other), "%.*s%s", (int)(third - text), text, second);
	assert_damaged(other, strlen(other), "there before");
	snprintf(other, sizeof(other), "%s\n", text);
	assert_damaged(other, strlen(other), "more behind");
	snprintf(other, sizeof(other), "%s%s", text, text);
	assert_damaged(other, strlen(other), "more behind");
}
END_TEST

START_TEST(another_version_is_named)
{
	assert_forged_damaged("breakerd-state 3\n",
			      "its version is 3, and this breakerd reads 1 and 2");
	assert_forged_damaged("breakerd-state 10\n", "its version is 10");
	assert_forged_damaged("breakerd-state \n", "does not begin");
	assert_forged_damaged("# an INI file\n", "does not begin");
}
END_TEST

START_TEST(a_line_that_is_no_circuit_is_damage)
{
	static const char *const bad[] = {
		"\n",
		"1\n",
		"1 \n",
		"1 k\n",
		"1 k \n",
		"1 k {}\n",
		"1 k " SNAPSHOT "x\n",
		"1 k {\"state\":\"ajar\"}\n",
		"1  " SNAPSHOT "\n",
		" k " SNAPSHOT "\n",
		"x k " SNAPSHOT "\n",
		"-1 k " SNAPSHOT "\n",
		"1.5 k " SNAPSHOT "\n",
		"9007199254740992 k " SNAPSHOT "\n",
		"99999999999999999999999999 k " SNAPSHOT "\n",
		"1 %2 " SNAPSHOT "\n",
		"1 %0A " SNAPSHOT "\n",
		"1 \xff " SNAPSHOT "\n",
	};
	char lines[1024];

	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
		snprintf(lines, sizeof(lines), "breakerd-state 1\n%s", bad[i]);
		assert_forged_damaged(lines, "line 2 is no circuit");
	}
	assert_forged_damaged("breakerd-state 1\n1700000000000 k " SNAPSHOT
			      "\n1700000000000 k " SNAPSHOT "\n",
			      "the key in line 3");
}
END_TEST

START_TEST(a_line_without_an_end_is_not_read_whole)
{
	const size_t len = 1 << 20;
	char *text = malloc(len);

	ck_assert_ptr_nonnull(text);
	memset(text, '1', len);
	assert_damaged(text, len, "does not begin");
	memcpy(text, "breakerd-state 1\n", 17);
	assert_damaged(text, len, "too long");
	free(text);
}
END_TEST

/* --- time and room --------------------------------------------------------------------- */

START_TEST(the_time_to_live_goes_on)
{
	struct state_file_report report;
	struct state_moment now = saved_at;

	put_in("old", CIRCUIT_OPEN, 500);
	put_in("new", CIRCUIT_CLOSED, 499);
	save();
	now.wall_ms += TTL - 500;
	ck_assert_int_eq(load_at(&now, &report), STATE_FILE_READ);
	ck_assert_uint_eq(report.expired, 1);
	ck_assert_uint_eq(report.restored, 1);
	ck_assert_uint_eq(report.dropped, 0);
	ck_assert_ptr_nonnull(circuit_table_find(table, "new", 3, now.table_ms));
	ck_assert_ptr_null(circuit_table_find(table, "new", 3, now.table_ms + 1));
}
END_TEST

START_TEST(a_clock_that_was_set_back_makes_nothing_immortal)
{
	struct state_moment now = {.wall_ms = 1000, .table_ms = 50};
	struct state_file_report report;

	put_in("a", CIRCUIT_CLOSED, 10);
	put_in("b", CIRCUIT_OPEN, 0);
	save();
	ck_assert_int_eq(load_at(&now, &report), STATE_FILE_READ);
	ck_assert_uint_eq(report.restored, 2);
	ck_assert_ptr_nonnull(circuit_table_find(table, "a", 1, now.table_ms + TTL - 1));
	ck_assert_ptr_nonnull(circuit_table_find(table, "b", 1, now.table_ms + TTL - 1));
	ck_assert_ptr_null(circuit_table_find(table, "a", 1, now.table_ms + TTL));
	ck_assert_ptr_null(circuit_table_find(table, "b", 1, now.table_ms + TTL));
}
END_TEST

START_TEST(a_clock_before_the_epoch_is_no_damage)
{
	struct state_moment now = {.wall_ms = 5, .table_ms = 1000};

	put("k", 1, (struct circuit){0}, saved_at.table_ms - 1);
	ck_assert_int_eq(state_file_write(path, table, NULL, &now), 0);
	ck_assert_int_eq(load_at(&now, &(struct state_file_report){0}), STATE_FILE_READ);
}
END_TEST

START_TEST(stamps_out_of_order_are_brought_into_it)
{
	forge("breakerd-state 1\n"
	      "1700000005000 late " SNAPSHOT "\n"
	      "1700000004000 early " SNAPSHOT "\n");
	ck_assert_uint_eq(load().restored, 2);
	ck_assert_int_eq(circuit_entry_written(find("late")), circuit_entry_written(find("early")));
}
END_TEST

START_TEST(the_least_recently_written_closed_ones_make_room)
{
	struct state_file_report report;

	put_in("open", CIRCUIT_OPEN, 90);
	for (int i = 8; i > 0; i--)
		put_in((char[]){(char)('0' + i), '\0'}, CIRCUIT_CLOSED, i);
	put_in("half", CIRCUIT_HALF_OPEN, 0);
	save();
	renew(4);
	ck_assert_int_eq(state_file_read(path, table, NULL, TTL, &read_at, &report),
			 STATE_FILE_READ);
	ck_assert_uint_eq(report.restored, 4);
	ck_assert_uint_eq(report.dropped, 6);
	ck_assert_ptr_nonnull(find("open"));
	ck_assert_ptr_nonnull(find("half"));
	ck_assert_ptr_nonnull(find("1"));
	ck_assert_ptr_nonnull(find("2"));
	renew(1);
	ck_assert_int_eq(state_file_read(path, table, NULL, TTL, &read_at, &report),
			 STATE_FILE_READ);
	ck_assert_uint_eq(report.restored, 1);
	ck_assert_uint_eq(report.dropped, 9);
	ck_assert_ptr_nonnull(find("open"));
}
END_TEST

START_TEST(the_order_of_writing_is_kept)
{
	struct circuit_walk walk;
	const char *const order[] = {"a", "b", "c", "d", "e"};
	size_t len;

	put_in("a", CIRCUIT_CLOSED, 5);
	put_in("b", CIRCUIT_OPEN, 4);
	put_in("c", CIRCUIT_OPEN, 4);
	put_in("d", CIRCUIT_CLOSED, 3);
	put_in("e", CIRCUIT_OPEN, 3);
	save();
	load();
	circuit_walk_begin(&walk, table);
	for (size_t i = 0; i < 5; i++) {
		struct circuit_entry *e = circuit_walk_next(&walk);

		ck_assert_ptr_nonnull(e);
		ck_assert_int_eq(*circuit_entry_key(e, &len), i == 3 ? *order[3] : *order[i]);
	}
	ck_assert_ptr_null(circuit_walk_next(&walk));
}
END_TEST

/* --- files ----------------------------------------------------------------------------- */

START_TEST(no_file_is_no_fault)
{
	struct state_file_report report;

	ck_assert_int_eq(load_at(&read_at, &report), STATE_FILE_NONE);
}
END_TEST

START_TEST(what_is_no_file_is_an_error)
{
	struct state_file_report report;

	ck_assert_int_eq(mkdir(path, 0700), 0);
	ck_assert_int_eq(load_at(&read_at, &report), STATE_FILE_FAILED);
	ck_assert_str_eq(report.why, "it is no regular file");
	rmdir(path);
	ck_assert_int_eq(mkfifo(path, 0600), 0);
	ck_assert_int_eq(load_at(&read_at, &report), STATE_FILE_FAILED);
	ck_assert_int_eq(state_file_read("/dev/null", table, NULL, TTL, &read_at, &report),
			 STATE_FILE_FAILED);
	ck_assert_int_eq(state_file_read("/dev/null/x", table, NULL, TTL, &read_at, &report),
			 STATE_FILE_FAILED);
}
END_TEST

START_TEST(a_write_that_fails_leaves_the_old_file)
{
	struct rlimit limit;
	char tmp[128];
	char key[1000];

	put_in("old", CIRCUIT_OPEN, 10);
	save();
	for (int i = 0; i < 1000; i++) {
		memset(key, 'k', sizeof(key));
		snprintf(key, sizeof(key), "%998d", i);
		put(key, 998, (struct circuit){0}, 0);
	}
	signal(SIGXFSZ, SIG_IGN);
	getrlimit(RLIMIT_FSIZE, &limit);
	limit.rlim_cur = 300000;
	setrlimit(RLIMIT_FSIZE, &limit);
	ck_assert_int_eq(state_file_write(path, table, NULL, &saved_at), EFBIG);
	limit.rlim_cur = RLIM_INFINITY;
	setrlimit(RLIMIT_FSIZE, &limit);
	snprintf(tmp, sizeof(tmp), "%s.tmp", path);
	ck_assert_int_eq(access(tmp, F_OK), -1);
	ck_assert_uint_eq(load().restored, 1);
	ck_assert_int_eq(state_file_write("/nonexistent/x", table, NULL, &saved_at), ENOENT);
}
END_TEST

START_TEST(a_left_over_is_not_followed)
{
	char tmp[128], victim[128];
	struct stat st;

	snprintf(tmp, sizeof(tmp), "%s.tmp", path);
	snprintf(victim, sizeof(victim), "%s/victim", directory);
	close(open(victim, O_WRONLY | O_CREAT, 0600));
	ck_assert_int_eq(symlink(victim, tmp), 0);
	put_in("k", CIRCUIT_OPEN, 0);
	save();
	ck_assert_int_eq(stat(victim, &st), 0);
	ck_assert_int_eq(st.st_size, 0);
	ck_assert_int_eq(lstat(path, &st), 0);
	ck_assert(S_ISREG(st.st_mode));
	unlink(victim);
	ck_assert_uint_eq(load().restored, 1);
}
END_TEST

/* --- members ------------------------------------------------------------------------------- */

/* Puts a circuit with this member into the table. */
static void put_member(const char *key, const char *text)
{
	struct circuit c = {.failure_count = 1, .last_state_change = 1700000000000};
	unsigned char packed[PACKED_BREAKER_MAX];
	struct breaker b;
	size_t len;

	ck_assert(breaker_member_decode(text, strlen(text), &b));
	len = packed_breaker_write(packed, &b);
	ck_assert_int_eq(circuit_table_write_member(table, NULL, key, strlen(key), &c, packed, len,
						    saved_at.table_ms),
			 TABLE_OK);
}

START_TEST(a_member_is_kept)
{
	static const char text[] =
		"1 0 1700000000000 1 3 4000 2 w30000.566666666:7.2.1.AaBb,5 q1700000000000:00000a";
	char again[BREAKER_TEXT_MAX];
	const unsigned char *packed;
	struct breaker b;
	size_t len;

	put_member("decided", text);
	put_in("not", CIRCUIT_CLOSED, 0);
	save();
	ck_assert_uint_eq(load().restored, 2);
	packed = circuit_entry_member(find("decided"), &len);
	packed_breaker_read(packed, len, &b);
	breaker_member_encode(again, &b);
	ck_assert_str_eq(again, text);
	ck_assert_int_eq(circuit_entry_get(find("decided"))->failure_count, 1);
	circuit_entry_member(find("not"), &len);
	ck_assert_uint_eq(len, 0);
}
END_TEST

START_TEST(the_longest_line_is_read)
{
	char key[KEY_MAX + 1], text[BREAKER_TEXT_MAX];
	struct breaker b;
	size_t len;

	breaker_none(&b);
	b.exists = true;
	b.state = CIRCUIT_HALF_OPEN;
	b.since_ms = b.half_open_ms = 1700000000000;
	b.probe_count = POLICY_PROBES_MAX;
	for (unsigned i = 0; i < b.probe_count; i++)
		b.probes[i] = (struct breaker_probe){.id = i, .deadline_ms = 1700000000000};
	b.override = (struct breaker_override){.mode = BREAKER_FORCED_OPEN,
					       .since_ms = 1699999000000,
					       .until_ms = 1700000000000,
					       .reason_len = BREAKER_REASON_MAX};
	memset(b.override.reason, 'r', BREAKER_REASON_MAX);
	breaker_member_encode(text, &b);
	memset(key, '%', KEY_MAX); /* each is escaped to three bytes */
	key[KEY_MAX] = '\0';
	put_member(key, text);
	save();
	ck_assert_uint_eq(load().restored, 1);
	circuit_entry_member(find(key), &len);
	ck_assert_uint_gt(len, 800);
}
END_TEST

static Suite *state_file_suite(void)
{
	Suite *suite = suite_create("state_file");
	TCase *tc = tcase_create("state_file");

	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_set_timeout(tc, 60);
	tcase_add_test(tc, a_member_is_kept);
	tcase_add_test(tc, the_longest_line_is_read);
	tcase_add_test(tc, the_format_is_as_it_was);
	tcase_add_test(tc, what_is_saved_comes_back);
	tcase_add_test(tc, every_key_comes_back);
	tcase_add_test(tc, an_empty_table_is_a_file_too);
	tcase_add_test(tc, many_circuits_fill_many_buffers);
	tcase_add_test(tc, a_cut_anywhere_is_found);
	tcase_add_test(tc, a_flipped_bit_anywhere_is_found);
	tcase_add_test(tc, lines_that_are_moved_doubled_or_missing_are_found);
	tcase_add_test(tc, another_version_is_named);
	tcase_add_test(tc, a_line_that_is_no_circuit_is_damage);
	tcase_add_test(tc, a_line_without_an_end_is_not_read_whole);
	tcase_add_test(tc, the_time_to_live_goes_on);
	tcase_add_test(tc, a_clock_that_was_set_back_makes_nothing_immortal);
	tcase_add_test(tc, a_clock_before_the_epoch_is_no_damage);
	tcase_add_test(tc, stamps_out_of_order_are_brought_into_it);
	tcase_add_test(tc, the_least_recently_written_closed_ones_make_room);
	tcase_add_test(tc, the_order_of_writing_is_kept);
	tcase_add_test(tc, no_file_is_no_fault);
	tcase_add_test(tc, what_is_no_file_is_an_error);
	tcase_add_test(tc, a_write_that_fails_leaves_the_old_file);
	tcase_add_test(tc, a_left_over_is_not_followed);
	suite_add_tcase(suite, tc);
	return suite;
}

int main(void)
{
	return suite_run(state_file_suite());
}
