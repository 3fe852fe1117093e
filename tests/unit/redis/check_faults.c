#include "redis/faults.h"
#include "suite.h"

#include <check.h>
#include <stdio.h>
#include <string.h>

static const char *fault_of(const char *text)
{
	char copy[64];
	redisReply reply = {.type = REDIS_REPLY_ERROR, .str = copy};

	snprintf(copy, sizeof(copy), "%s", text);
	reply.len = strlen(copy);
	return redis_fault(&reply);
}

START_TEST(what_nobody_could_write_to_is_the_link_s)
{
	ck_assert_ptr_nonnull(fault_of("READONLY You can't write against a read only replica."));
	ck_assert_ptr_nonnull(fault_of("LOADING"));
	ck_assert_ptr_nonnull(fault_of("ERR max number of clients reached"));
	ck_assert_ptr_null(fault_of("READONLYISH"));
	ck_assert_ptr_null(fault_of("OOM command not allowed"));
	ck_assert_ptr_null(fault_of("ERR unknown command"));
	ck_assert_ptr_null(fault_of("NEVERHEARDOF it"));
}
END_TEST

START_TEST(each_failure_has_a_label_of_its_own)
{
	for (unsigned i = 0; i < REDIS_FAILURES; i++) {
		ck_assert_ptr_nonnull(redis_failure_label(i));
		for (unsigned j = 0; j < i; j++)
			ck_assert_str_ne(redis_failure_label(i), redis_failure_label(j));
	}
}
END_TEST

START_TEST(a_failure_is_what_the_server_said_or_where_it_was)
{
	static const char said[] = "the server has fallen off its rack";

	ck_assert_str_eq(redis_failure_label(
				 redis_failure(fault_of("NOREPLICAS few"), REDIS_FAILED_LOST)),
			 "noreplicas");
	ck_assert_str_eq(redis_failure_label(
				 redis_failure(fault_of("LOADING x"), REDIS_FAILED_HANDSHAKE)),
			 "loading");
	ck_assert_str_eq(redis_failure_label(redis_failure(said, REDIS_FAILED_HANDSHAKE)),
			 "handshake");
	ck_assert_str_eq(redis_failure_label(redis_failure(said, REDIS_FAILED_LOOKUP)), "lookup");
	ck_assert_str_eq(redis_failure_label(redis_failure(said, REDIS_FAILED_CONNECT)), "connect");
	ck_assert_str_eq(redis_failure_label(redis_failure(said, REDIS_FAILED_UNANSWERED)),
			 "unanswered");
	ck_assert_str_eq(redis_failure_label(redis_failure(said, REDIS_FAILED_LOST)), "lost");
}
END_TEST

START_TEST(words_are_one_printable_line)
{
	char out[12];

	redis_fault_words("a\r\nb\x01\xff", out, sizeof(out));
	ck_assert_str_eq(out, "a??b??");
	redis_fault_words("longer than there is room", out, sizeof(out));
	ck_assert_str_eq(out, "longer than");
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("redis_faults");
	TCase *tc = tcase_create("faults");

	tcase_add_test(tc, what_nobody_could_write_to_is_the_link_s);
	tcase_add_test(tc, each_failure_has_a_label_of_its_own);
	tcase_add_test(tc, a_failure_is_what_the_server_said_or_where_it_was);
	tcase_add_test(tc, words_are_one_printable_line);
	suite_add_tcase(suite, tc);
	return suite_run(suite);
}
