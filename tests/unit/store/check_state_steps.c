/*
 * Steps in the state file: they are read as they were written, and a step that may have been sent
 * to Redis is in doubt after the next start.
 */
#include "store/state_file.h"
#include "store/state_steps.h"
#include "suite.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define T0  INT64_C(1700000000000)
#define TTL INT64_C(3600000)

static const struct state_moment now = {.wall_ms = T0, .table_ms = 1000000};
static struct circuit_queues queues;
static struct circuit_table *table;
static char path[] = "/tmp/check_state_steps.XXXXXX";

static void open_all(void)
{
	ck_assert_int_eq(circuit_queues_init(&queues), 0);
	table = circuit_table_new(1000, TTL, NULL);
}

static void close_all(void)
{
	circuit_queues_fini(&queues);
	circuit_table_free(table);
}

static void setup(void)
{
	int fd;

	strcpy(path + strlen(path) - 6, "XXXXXX");
	fd = mkstemp(path);
	ck_assert_int_ge(fd, 0);
	close(fd);
	open_all();
}

static void teardown(void)
{
	close_all();
	unlink(path);
}

static struct circuit_queue *queue_of(const char *key, const struct circuit *seen)
{
	return circuit_queue_get(&queues, key, strlen(key), seen, 1000);
}

static void note(struct circuit_queue *q, struct circuit_op op, int64_t at)
{
	circuit_queue_note(q, &op, op.verb == CIRCUIT_RESET ? CIRCUIT_REMOVED : CIRCUIT_WRITTEN, at,
			   7);
}

static void failures(struct circuit_queue *q, int count)
{
	for (int i = 0; i < count; i++)
		note(q, (struct circuit_op){.verb = CIRCUIT_RECORD_FAILURE}, T0 + i);
}

/* Writes the file and reads it into empty queues, as the next start does. With `folding` all
 * queues are marked before. */
static struct state_file_report write_and_read(bool folding)
{
	struct state_file_report report;

	if (folding) {
		circuit_queues_fold(&queues);
		circuit_queues_mark(&queues, SIZE_MAX);
	}
	ck_assert_int_eq(state_file_write(path, table, &queues, &now), 0);
	close_all();
	open_all();
	ck_assert_int_eq(state_file_read(path, table, &queues, TTL, &now, &report),
			 STATE_FILE_READ);
	return report;
}

static void expect_step(const struct queue_step *step, int64_t failed, uint64_t operations)
{
	ck_assert_int_eq(step->fold.failures, failed);
	ck_assert_uint_eq(step->operations, operations);
	ck_assert_int_eq(step->offset_ms, operations ? 7 : 0);
}

START_TEST(what_waits_waits_again)
{
	struct circuit c = {.state = CIRCUIT_OPEN, .failure_count = 3, .last_state_change = T0 - 9};
	struct circuit_queue *q = queue_of("a key with % and spaces", &c);
	struct circuit_fold fold;
	struct state_file_report report;

	failures(q, 3);
	fold = q->next.fold;
	circuit_table_write(table, NULL, "a key with % and spaces", 23, &c, 1000000);
	queue_of("only asked for", NULL)->check = true;
	report = write_and_read(false);
	ck_assert_uint_eq(report.steps, 1);
	ck_assert_uint_eq(report.restored, 1);
	ck_assert_uint_eq(report.dropped, 0);
	q = circuit_queue_find(&queues, "a key with % and spaces", 23);
	ck_assert_ptr_nonnull(q);
	ck_assert(!q->in_doubt);
	expect_step(&q->next, 3, 3);
	ck_assert_mem_eq(&q->next.fold, &fold, sizeof(fold));
	ck_assert_int_eq(q->before.known, CIRCUIT_FOLD_SEEN);
	ck_assert_int_eq(q->before.circuit.failure_count, 3);
	ck_assert_ptr_eq(TAILQ_FIRST(&queues.ready), q);
	ck_assert_ptr_nonnull(circuit_table_find(table, "a key with % and spaces", 23, 1000000));
}
END_TEST

/* The file was written while steps were sent, so each marked step may have been taken. */
START_TEST(what_may_have_been_handed_over_is_in_doubt)
{
	struct circuit c = {.failure_count = 3, .last_state_change = T0 - 9};
	struct circuit_queue *q = queue_of("k", &c);

	failures(q, 3);
	circuit_queue_wait(q, QUEUE_IN_READY);
	write_and_read(true);
	q = circuit_queue_find(&queues, "k", 1);
	ck_assert(q->in_doubt);
	expect_step(&q->sent, 3, 3);
	expect_step(&q->next, 0, 0);
	ck_assert(circuit_queue_has_steps(q));
}
END_TEST

/* Of the two that wait only the first is marked. A step that comes while the folding goes on is
 * marked from the beginning. */
START_TEST(what_is_not_marked_is_not_in_doubt)
{
	static const char *const keys[] = {"first", "second", "third"};
	struct circuit_queue *q;

	for (size_t i = 0; i < 2; i++) {
		q = queue_of(keys[i], NULL);
		failures(q, 3);
		circuit_queue_wait(q, QUEUE_IN_READY);
	}
	circuit_queues_fold(&queues);
	circuit_queues_mark(&queues, 1);
	failures(queue_of(keys[2], NULL), 3);
	write_and_read(false);
	for (size_t i = 0; i < 3; i++) {
		q = circuit_queue_find(&queues, keys[i], strlen(keys[i]));
		ck_assert(q->in_doubt == (i != 1));
		expect_step(q->in_doubt ? &q->sent : &q->next, 3, 3);
	}
}
END_TEST

START_TEST(a_step_in_doubt_and_what_came_since)
{
	struct circuit c = {.failure_count = 3, .last_state_change = T0 - 9};
	struct circuit_queue *q = queue_of("k", &c);

	failures(q, 3);
	circuit_queue_send(q, 7, INT64_MAX, &c);
	circuit_queue_sent_unknown(q);
	failures(q, 2);
	write_and_read(false);
	q = circuit_queue_find(&queues, "k", 1);
	ck_assert(q->in_doubt);
	expect_step(&q->sent, 3, 3);
	expect_step(&q->next, 2, 2);
	ck_assert_int_eq(q->before.circuit.failure_count, 3);
	/* If both may have been sent, they become one step. A circuit that shows only a part of it
	 * proves nothing. */
	write_and_read(true);
	q = circuit_queue_find(&queues, "k", 1);
	expect_step(&q->sent, 5, 5);
	expect_step(&q->next, 0, 0);
	ck_assert_int_eq(q->before.known, CIRCUIT_FOLD_PARTS);
	c.failure_count = 6;
	c.last_failure_time = T0 + 2;
	ck_assert_int_eq(circuit_fold_trace(&q->sent.fold, q->before.known, &q->before.circuit, &c),
			 CIRCUIT_FOLD_UNSURE);
}
END_TEST

/* The circuit was absent when it was last seen, and is absent now: the step was not taken, or
 * another gateway has reset what the step made. */
START_TEST(a_circuit_that_is_absent_later_proves_nothing)
{
	struct circuit_queue *q = queue_of("k", NULL);

	failures(q, 1);
	circuit_queue_send(q, 7, INT64_MAX, NULL);
	circuit_queue_sent_unknown(q);
	write_and_read(false);
	q = circuit_queue_find(&queues, "k", 1);
	ck_assert_int_eq(q->before.known, CIRCUIT_FOLD_SEEN);
	ck_assert(!q->before.exists);
	ck_assert_int_eq(circuit_fold_trace(&q->sent.fold, q->before.known, NULL, NULL),
			 CIRCUIT_FOLD_UNSURE);
}
END_TEST

START_TEST(nothing_that_waits_is_nothing)
{
	struct circuit c = {.failure_count = 3};
	struct state_file_report report;

	circuit_table_write(table, NULL, "seen", 4, &c, 1000000);
	report = write_and_read(true);
	ck_assert_uint_eq(report.restored, 0);
	ck_assert_uint_eq(report.steps, 0);
}
END_TEST

/* A store on Redis ignores the circuits of an embedded store's file. An embedded store takes the
 * circuits of a file with steps. */
START_TEST(the_other_kind_of_store)
{
	struct circuit c = {.failure_count = 3};
	struct state_file_report report;

	circuit_table_write(table, NULL, "k", 1, &c, 1000000);
	ck_assert_int_eq(state_file_write(path, table, NULL, &now), 0);
	close_all();
	open_all();
	ck_assert_int_eq(state_file_read(path, table, &queues, TTL, &now, &report),
			 STATE_FILE_READ);
	ck_assert_uint_eq(report.foreign, 1);
	ck_assert_uint_eq(report.restored, 0);
	failures(queue_of("k", NULL), 1);
	circuit_table_write(table, NULL, "k", 1, &c, 1000000);
	ck_assert_int_eq(state_file_write(path, table, &queues, &now), 0);
	circuit_table_remove(table, circuit_table_find(table, "k", 1, 1000000));
	ck_assert_int_eq(state_file_read(path, table, NULL, TTL, &now, &report), STATE_FILE_READ);
	ck_assert_uint_eq(report.steps, 1);
	ck_assert_uint_eq(report.restored, 1);
}
END_TEST

START_TEST(what_is_no_step_is_refused)
{
#define STEP "1,0,1,0,0,0,1,0,0,0,0,5,1,5,0"
	static const char *const good[] = {
		" - " STEP " - none",
		" " STEP " " STEP " none none",
		" - 1,-5,1,0,0,0,1,0,0,0,0,5,1,5,0 - none",
	};
	static const char *const bad[] = {
		"",
		" ",
		" - - -",
		"- - - none",
		" - - - none ",
		" - - - none x",
		" - - - some",
		" - 1,0,1,0,0,0,1,0,0,0,0,5,1,5,0,0 - none",
		" - 1,0,1,0,0,0,1,0,0,0,0,5,1,5 - none",
		" - 1,0,1,0,0,0,2,0,0,0,0,5,1,5,0 - none",
		" - 1,0,1,0,0,0,1,0,3,0,0,5,1,5,0 - none",
		" - 1,0,-1,0,0,0,1,0,0,0,0,5,1,5,0 - none",
		" - 1,0,9007199254740992,0,0,0,1,0,0,0,0,5,1,5,0 - none",
		" - 1,0,,0,0,0,1,0,0,0,0,5,1,5,0 - none",
	};
	struct state_steps steps;

	for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++)
		ck_assert_msg(state_steps_decode(good[i], strlen(good[i]), &steps), "%s", good[i]);
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		ck_assert_msg(!state_steps_decode(bad[i], strlen(bad[i]), &steps), "%s", bad[i]);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("state_steps");
	TCase *tc = tcase_create("steps");

	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_add_test(tc, what_waits_waits_again);
	tcase_add_test(tc, what_may_have_been_handed_over_is_in_doubt);
	tcase_add_test(tc, what_is_not_marked_is_not_in_doubt);
	tcase_add_test(tc, a_step_in_doubt_and_what_came_since);
	tcase_add_test(tc, a_circuit_that_is_absent_later_proves_nothing);
	tcase_add_test(tc, nothing_that_waits_is_nothing);
	tcase_add_test(tc, the_other_kind_of_store);
	tcase_add_test(tc, what_is_no_step_is_refused);
	suite_add_tcase(suite, tc);
	return suite_run(suite);
}
