#include "base/clock.h"
#include "base/log.h"
#include "base/metrics.h"
#include "store/circuit_table.h"
#include "store/driver.h"
#include "store/state_keeper.h"
#include "suite.h"

#include <check.h>
#include <event2/event.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define TTL         INT64_C(3600000)
#define INTERVAL_MS 50
#define DEADLINE_MS 20000

static char directory[64];
static char path[96];
static struct event_base *base;
static struct circuit_table *table;
static struct metrics *metrics;
static struct state_keeper *keeper;
static struct state_keeper_options options;
static struct log log_lines;
static char logged[16384]; /* all lines of the log */
static long child;         /* the process of the last save, as logged; 0: none */
static char why[512];

static void take_line(void *arg, enum log_level level, const char *line)
{
	const char *pid = strstr(line, "state_saving child=");

	(void)arg;
	(void)level;
	if (pid)
		child = atol(pid + strlen("state_saving child="));
	ck_assert_uint_lt(strlen(logged) + strlen(line) + 2, sizeof(logged));
	strcat(strcat(logged, line), "\n");
}

static const char *beside(const char *suffix)
{
	static char name[128];

	snprintf(name, sizeof(name), "%s%s", path, suffix);
	return name;
}

static struct state_keeper *open_keeper(void)
{
	why[0] = '\0';
	return state_keeper_new(&options, base, table, (struct store_clock){0}, metrics, &log_lines,
				why, sizeof(why));
}

static void stop(void)
{
	state_keeper_free(keeper, 0);
	keeper = NULL;
}

/* Starts with an empty table, which is filled from the file. */
static void start(void)
{
	stop();
	circuit_table_free(table);
	table = circuit_table_new(1000000, TTL, NULL);
	keeper = open_keeper();
	ck_assert_msg(keeper != NULL, "%s", why);
}

static void setup(void)
{
	strcpy(directory, "/tmp/check_state_keeper.XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(directory));
	snprintf(path, sizeof(path), "%s/state", directory);
	options = (struct state_keeper_options){.path = path,
						.ttl_ms = TTL,
						.interval_ms = INTERVAL_MS,
						.lock_ms = 1};
	log_lines = (struct log){.level = LOG_LEVEL_DEBUG, .sink = take_line};
	base = event_base_new();
	metrics = calloc(1, sizeof(*metrics));
	start();
}

static void teardown(void)
{
	static const char *const suffixes[] = {"", ".tmp", ".lock", ".damaged"};
	char name[32];

	stop();
	circuit_table_free(table);
	free(metrics);
	event_base_free(base);
	for (size_t i = 0; i < 4; i++)
		remove(beside(suffixes[i]));
	for (int n = 2; n <= 9; n++) {
		snprintf(name, sizeof(name), ".damaged.%d", n);
		remove(beside(name));
	}
	ck_assert_int_eq(rmdir(directory), 0);
}

static void put(const char *key, int64_t failures)
{
	int64_t now = clock_ms();
	struct circuit c = {.failure_count = failures};

	ck_assert_int_eq(circuit_table_write(table,
					     circuit_table_find(table, key, strlen(key), now), key,
					     strlen(key), &c, now),
			 TABLE_OK);
	state_keeper_changed(keeper);
}

static int64_t failures_of(const char *key)
{
	struct circuit_entry *e = circuit_table_find(table, key, strlen(key), clock_ms());

	return e ? circuit_entry_get(e)->failure_count : -1;
}

/* Runs the loop until *counter is `value`. */
static void run_until(const uint64_t *counter, uint64_t value)
{
	int64_t stop_ms = clock_ms() + DEADLINE_MS;

	while (*counter < value) {
		ck_assert_msg(clock_ms() < stop_ms, "%s", logged);
		event_base_loop(base, EVLOOP_NONBLOCK);
		usleep(200);
	}
	ck_assert_uint_eq(*counter, value);
}

static size_t count_lines(const char *word)
{
	size_t count = 0;

	for (const char *p = logged; (p = strstr(p, word)) != NULL; p++)
		count++;
	return count;
}

static bool exists(const char *suffix)
{
	struct stat st;

	return lstat(beside(suffix), &st) == 0;
}

/* --- saving ---------------------------------------------------------------------------- */

START_TEST(a_change_is_saved_after_a_while)
{
	int64_t began = clock_ms();

	put("k", 1);
	put("k", 2);
	event_base_loop(base, EVLOOP_NONBLOCK);
	run_until(&metrics->state_saves, 1);
	ck_assert_int_ge(clock_ms() - began, INTERVAL_MS - 1);
	ck_assert_int_ge(metrics->state_last_save, 1700000000);
	ck_assert(!exists(".tmp"));
	/* Without a change there is no further save: the second is that of the next change. */
	ck_assert_int_eq(event_base_loop(base, EVLOOP_NONBLOCK), 0);
	put("k", 3);
	run_until(&metrics->state_saves, 2);
	ck_assert_uint_eq(count_lines("state_saving"), 2);
	stop();
	ck_assert_uint_eq(metrics->state_saves, 2);
	start();
	ck_assert_int_eq(failures_of("k"), 3);
}
END_TEST

START_TEST(a_change_during_a_save_is_saved_by_the_next)
{
	put("k", 1);
	while (!child)
		event_base_loop(base, EVLOOP_ONCE);
	put("k", 2);
	put("k", 3);
	run_until(&metrics->state_saves, 2);
	ck_assert_uint_eq(count_lines("state_saving"), 2);
	start();
	ck_assert_int_eq(failures_of("k"), 3);
}
END_TEST

START_TEST(the_end_saves_at_once)
{
	put("k", 1);
	stop();
	ck_assert_uint_eq(metrics->state_saves, 1);
	ck_assert_uint_eq(count_lines("state_saving"), 0);
	start();
	ck_assert_int_eq(failures_of("k"), 1);
	ck_assert_uint_eq(count_lines("state_restored"), 1);
	stop();
	ck_assert_uint_eq(metrics->state_saves, 1);
}
END_TEST

START_TEST(without_a_change_there_is_no_file)
{
	stop();
	ck_assert(!exists(""));
	start();
	ck_assert_uint_eq(circuit_table_count(table), 0);
	ck_assert_str_eq(logged, "");
}
END_TEST

START_TEST(the_file_behind_a_symbolic_link_is_replaced)
{
	char target[128];
	struct stat st;

	put("k", 1);
	stop();
	snprintf(target, sizeof(target), "%s.damaged", path); /* a name that teardown removes */
	ck_assert_int_eq(rename(path, target), 0);
	ck_assert_int_eq(symlink(target, path), 0);
	start();
	put("k", 2);
	stop();
	ck_assert_int_eq(lstat(path, &st), 0);
	ck_assert(S_ISLNK(st.st_mode));
	start();
	ck_assert_int_eq(failures_of("k"), 2);
	stop();
	snprintf(target, sizeof(target), "%s.damaged.lock", path);
	remove(target);
}
END_TEST

/* The link may exist before its target does, for example if a disk is mounted later. */
START_TEST(a_link_to_what_does_not_exist_yet_is_written_through)
{
	char place[96], target[160];
	struct stat st;

	stop();
	snprintf(place, sizeof(place), "%s/disk", directory);
	ck_assert_int_eq(mkdir(place, 0700), 0);
	ck_assert_int_eq(symlink("disk/link", path), 0); /* a relative link to another link */
	snprintf(target, sizeof(target), "%s/link", place);
	ck_assert_int_eq(symlink("kept", target), 0);
	start();
	put("k", 3);
	stop();
	ck_assert_int_eq(lstat(path, &st), 0);
	ck_assert(S_ISLNK(st.st_mode));
	snprintf(target, sizeof(target), "%s/kept", place);
	ck_assert_int_eq(lstat(target, &st), 0);
	ck_assert(S_ISREG(st.st_mode));
	start();
	ck_assert_int_eq(failures_of("k"), 3);
	stop();
	remove(target);
	snprintf(target, sizeof(target), "%s/kept.lock", place);
	remove(target);
	snprintf(target, sizeof(target), "%s/link", place);
	remove(target);
	ck_assert_int_eq(rmdir(place), 0);
}
END_TEST

START_TEST(links_in_a_circle_are_an_error)
{
	stop();
	ck_assert_int_eq(symlink("state", path), 0);
	ck_assert_ptr_null(open_keeper());
	ck_assert_msg(strstr(why, "symbolic links"), "%s", why);
}
END_TEST

/* --- the child ------------------------------------------------------------------------- */

static bool child_is(int how)
{
	siginfo_t info = {0};

	return waitid(P_PID, (id_t)child, &info, how | WNOWAIT) == 0 && info.si_pid != 0;
}

/* Stops (SIGSTOP) a child after it has begun to write. There is so much to write that it takes a
 * while. If a child is done too soon, the next one is tried. */
static void stop_a_child(void)
{
	char key[32];

	for (int i = 0; i < 100000; i++) {
		snprintf(key, sizeof(key), "circuit-%d", i);
		put(key, i);
	}
	for (int tries = 0; tries < 100; tries++) {
		child = 0;
		put("one more", tries);
		while (!child)
			event_base_loop(base, EVLOOP_ONCE);
		while (!exists(".tmp") && !child_is(WEXITED | WNOHANG))
			usleep(50);
		kill((pid_t)child, SIGSTOP);
		if (child_is(WSTOPPED | WEXITED) && exists(".tmp"))
			return;
		kill((pid_t)child, SIGCONT);
	}
	ck_abort_msg("no child was slow enough to be stopped");
}

START_TEST(a_child_that_hangs_is_killed)
{
	options.timeout_ms = 2000; /* enough for the next child on a slow machine */
	stop();
	start();
	stop_a_child();
	run_until(&metrics->state_save_errors, 1);
	ck_assert_uint_eq(count_lines("it took too long"), 1);
	run_until(&metrics->state_saves, metrics->state_saves + 1); /* by the next child */
	ck_assert_uint_eq(metrics->state_save_errors, 1);
	ck_assert(!exists(".tmp"));
}
END_TEST

START_TEST(a_child_that_dies_is_a_failed_save)
{
	stop_a_child();
	kill((pid_t)child, SIGKILL);
	run_until(&metrics->state_save_errors, 1);
	ck_assert_uint_eq(count_lines("ended by signal 9"), 1);
	ck_assert(!exists(".tmp"));
}
END_TEST

/* A child must not keep descriptors open: the client of a closed connection would wait for it. */
START_TEST(a_child_holds_nothing_open)
{
	char byte;
	int pipes[2];

	ck_assert_int_eq(pipe(pipes), 0);
	stop_a_child();
	close(pipes[1]);
	ck_assert_int_eq(fcntl(pipes[0], F_SETFL, O_NONBLOCK), 0);
	ck_assert_int_eq(read(pipes[0], &byte, 1), 0);
	close(pipes[0]);
}
END_TEST

START_TEST(the_end_does_not_wait_for_a_child)
{
	stop_a_child();
	put("one more", 77777);
	stop();
	ck_assert_int_eq(kill((pid_t)child, 0), -1);
	ck_assert(!exists(".tmp"));
	start();
	ck_assert_int_eq(failures_of("one more"), 77777);
}
END_TEST

/* SIGTERM, SIGINT and SIGHUP are for the parent alone. */
START_TEST(a_child_outlives_a_signal_to_the_group)
{
	stop_a_child();
	kill((pid_t)child, SIGTERM);
	kill((pid_t)child, SIGINT);
	kill((pid_t)child, SIGHUP);
	kill((pid_t)child, SIGCONT);
	run_until(&metrics->state_saves, metrics->state_saves + 1);
	ck_assert_uint_eq(metrics->state_save_errors, 0);
}
END_TEST

/* --- a disk that hangs ----------------------------------------------------------------- */

/* These replace the functions of libc. On a disk that hangs, fsync does not return, and SIGKILL
 * does not end the process until the disk works again. */
static bool disk_hangs, unkillable;

int fsync(int fd)
{
	while (disk_hangs)
		pause();
	return (int)syscall(SYS_fsync, fd);
}

int kill(pid_t pid, int signo)
{
	if (unkillable && pid > 1 && pid != getpid())
		return 0;
	return (int)syscall(SYS_kill, pid, signo);
}

/* Frees the keeper, with a deadline in 500 ms. */
static void stop_soon(void)
{
	int64_t began = clock_ms();

	alarm(20);
	state_keeper_free(keeper, began + 500);
	keeper = NULL;
	ck_assert_int_lt(clock_ms() - began, 5000);
}

START_TEST(the_last_save_is_given_up_in_time)
{
	put("k", 1);
	disk_hangs = true;
	stop_soon();
	disk_hangs = false;
	ck_assert_uint_eq(metrics->state_save_errors, 1);
	ck_assert_uint_eq(count_lines("state_save_failed"), 1);
	ck_assert_msg(strstr(logged, "timed out"), "%s", logged);
	start(); /* the lock is free, and the child's unfinished file is ignored */
	ck_assert_int_eq(failures_of("k"), -1);
	put("k", 2);
	start();
	ck_assert_int_eq(failures_of("k"), 2);
}
END_TEST

START_TEST(a_child_that_does_not_die_holds_up_no_end)
{
	stop_a_child();
	unkillable = true;
	stop_soon();
	unkillable = false;
	ck_assert_int_eq(kill((pid_t)child, SIGKILL), 0);
}
END_TEST

/* --- what goes wrong ------------------------------------------------------------------- */

START_TEST(a_save_that_fails_is_tried_again)
{
	ck_assert_int_eq(mkdir(beside(".tmp"), 0700), 0); /* a directory in the place of the file */
	put("k", 1);
	run_until(&metrics->state_save_errors, 3);
	ck_assert_uint_eq(count_lines("state_save_failed"), 1);
	ck_assert_uint_eq(metrics->state_saves, 0);
	ck_assert_int_eq(metrics->state_last_save, 0);
	ck_assert_int_eq(rmdir(beside(".tmp")), 0);
	run_until(&metrics->state_saves, 1);
	ck_assert_uint_eq(count_lines("state_saved"), 1);
}
END_TEST

START_TEST(the_last_save_that_fails_is_told_of)
{
	ck_assert_int_eq(mkdir(beside(".tmp"), 0700), 0);
	put("k", 1);
	run_until(&metrics->state_save_errors, 1);
	stop();
	ck_assert_uint_eq(count_lines("state_save_failed"), 2);
}
END_TEST

static void spill(const char *text)
{
	FILE *f = fopen(path, "w");

	ck_assert_ptr_nonnull(f);
	fputs(text, f);
	fclose(f);
}

static void holds(const char *suffix, const char *expected)
{
	char text[64] = "";
	FILE *f = fopen(beside(suffix), "r");

	ck_assert_msg(f != NULL, "%s is missing", suffix);
	ck_assert_ptr_nonnull(fgets(text, sizeof(text), f));
	fclose(f);
	ck_assert_str_eq(text, expected);
}

START_TEST(a_damaged_file_is_kept_aside)
{
	char text[32], name[32];

	for (int n = 1; n <= 11; n++) {
		stop();
		snprintf(text, sizeof(text), "damage %d", n);
		spill(text);
		start();
		ck_assert_uint_eq(circuit_table_count(table), 0);
		ck_assert(!exists(""));
	}
	ck_assert_uint_eq(count_lines("state_damaged"), 11);
	/* The first eight are kept, and the last. */
	holds(".damaged", "damage 1");
	for (int n = 2; n <= 8; n++) {
		snprintf(text, sizeof(text), "damage %d", n);
		snprintf(name, sizeof(name), ".damaged.%d", n);
		holds(name, text);
	}
	holds(".damaged.9", "damage 11");
	put("k", 1);
	stop();
	start();
	ck_assert_int_eq(failures_of("k"), 1);
}
END_TEST

START_TEST(one_that_cannot_be_kept_aside_is_an_error)
{
	char name[32];

	stop();
	spill("damaged");
	ck_assert_int_eq(mkdir(beside(".damaged"), 0700), 0);
	for (int n = 2; n <= 9; n++) {
		snprintf(name, sizeof(name), ".damaged.%d", n);
		ck_assert_int_eq(mkdir(beside(name), 0700), 0);
	}
	ck_assert_ptr_null(open_keeper());
	ck_assert_msg(strstr(why, "cannot be renamed"), "%s", why);
	ck_assert(exists(""));
}
END_TEST

START_TEST(one_file_has_one_keeper)
{
	struct circuit_table *other = circuit_table_new(10, TTL, NULL);
	struct state_keeper *second;

	second = state_keeper_new(&options, base, other, (struct store_clock){0}, NULL, NULL, why,
				  sizeof(why));
	ck_assert_ptr_null(second);
	ck_assert_msg(strstr(why, "another process"), "%s", why);
	stop();
	second = state_keeper_new(&options, base, other, (struct store_clock){0}, NULL, NULL, why,
				  sizeof(why));
	ck_assert_ptr_nonnull(second);
	state_keeper_free(second, 0);
	circuit_table_free(other);
}
END_TEST

START_TEST(a_place_that_cannot_be_written_is_an_error)
{
	char name[5000];

	options.path = "/nonexistent/state";
	ck_assert_ptr_null(open_keeper());
	ck_assert_msg(strstr(why, "/nonexistent/state.lock: No such file"), "%s", why);
	memset(name, 'x', sizeof(name));
	for (size_t i = 0; i < sizeof(name); i += 100)
		name[i] = '/';
	for (size_t len = 4080; len < 4100; len++) {
		name[len] = '\0';
		options.path = name;
		ck_assert_ptr_null(open_keeper());
		name[len] = 'x';
	}
	options.path = directory;
	ck_assert_ptr_null(open_keeper());
	ck_assert_msg(strstr(why, "regular file"), "%s", why);
	snprintf(name, sizeof(name), "%s.lock", directory);
	remove(name);
}
END_TEST

static int asked;

static void on_asked(void *arg)
{
	(void)arg;
	asked++;
}

static void until_asked(int count)
{
	for (int i = 0; i < 10000 && asked < count; i++)
		event_base_loop(base, EVLOOP_ONCE);
	ck_assert_int_eq(asked, count);
}

/* A save that is asked for waits for one that is under way, but not for the interval. */
START_TEST(a_save_that_is_asked_for_comes_at_once)
{
	options.interval_ms = 3600 * 1000;
	start();
	asked = 0;
	state_keeper_save(keeper, on_asked, NULL);
	until_asked(1);
	ck_assert_int_eq(access(path, F_OK), 0);
	ck_assert_uint_eq(metrics->state_saves, 1);
	state_keeper_save(keeper, NULL, NULL);
	state_keeper_save(keeper, on_asked, NULL);
	until_asked(2);
	ck_assert_uint_eq(metrics->state_saves, 3);
}
END_TEST

/* A next start must not take the old file for the present state. */
START_TEST(a_save_that_is_asked_for_and_fails_leaves_no_old_file)
{
	asked = 0;
	state_keeper_save(keeper, on_asked, NULL);
	until_asked(1);
	ck_assert_int_eq(access(path, F_OK), 0);
	ck_assert_int_eq(mkdir(beside(".tmp"), 0700), 0);
	state_keeper_save(keeper, on_asked, NULL);
	until_asked(2);
	ck_assert_int_ne(access(path, F_OK), 0);
	ck_assert_int_eq(rmdir(beside(".tmp")), 0);
}
END_TEST

static Suite *state_keeper_suite(void)
{
	Suite *suite = suite_create("state_keeper");
	TCase *tc = tcase_create("state_keeper");

	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_set_timeout(tc, 30);
	tcase_add_test(tc, a_change_is_saved_after_a_while);
	tcase_add_test(tc, a_change_during_a_save_is_saved_by_the_next);
	tcase_add_test(tc, the_end_saves_at_once);
	tcase_add_test(tc, without_a_change_there_is_no_file);
	tcase_add_test(tc, the_file_behind_a_symbolic_link_is_replaced);
	tcase_add_test(tc, a_link_to_what_does_not_exist_yet_is_written_through);
	tcase_add_test(tc, links_in_a_circle_are_an_error);
	tcase_add_test(tc, a_child_that_hangs_is_killed);
	tcase_add_test(tc, a_child_that_dies_is_a_failed_save);
	tcase_add_test(tc, a_child_holds_nothing_open);
	tcase_add_test(tc, the_end_does_not_wait_for_a_child);
	tcase_add_test(tc, a_child_outlives_a_signal_to_the_group);
	tcase_add_test(tc, the_last_save_is_given_up_in_time);
	tcase_add_test(tc, a_child_that_does_not_die_holds_up_no_end);
	tcase_add_test(tc, a_save_that_fails_is_tried_again);
	tcase_add_test(tc, the_last_save_that_fails_is_told_of);
	tcase_add_test(tc, a_damaged_file_is_kept_aside);
	tcase_add_test(tc, one_that_cannot_be_kept_aside_is_an_error);
	tcase_add_test(tc, one_file_has_one_keeper);
	tcase_add_test(tc, a_place_that_cannot_be_written_is_an_error);
	tcase_add_test(tc, a_save_that_is_asked_for_comes_at_once);
	tcase_add_test(tc, a_save_that_is_asked_for_and_fails_leaves_no_old_file);
	suite_add_tcase(suite, tc);
	return suite;
}

int main(void)
{
	return suite_run(state_keeper_suite());
}
