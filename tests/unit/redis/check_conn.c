/*
 * One connection, with a server that sends anything: what would make hiredis abort the process is
 * refused, and each command that waits is answered once.
 */
#include "redis/conn.h"

#include "fake_redis.h"
#include "suite.h"
#include "wait.h"

#include <arpa/inet.h>
#include <check.h>
#include <event2/event.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PATIENCE_MS 10000
#define CHANNEL     "p:cb:events"

static struct event_base *base;
static struct fake_redis *fake;
static struct redis_conn *conn;
static unsigned ups, downs, subscribed, answered, lost, refused, messages;
static char why_down[256], why_lost[256], last_message[128], last_answer[128];
static unsigned told, told_at;  /* calls of on_answered, and `answered` at the last one */
static const char *refuse_with; /* what on_check_reply returns for an error */

static void on_up(void *arg)
{
	(void)arg;
	ups++;
}

static void on_down(void *arg, const char *why)
{
	(void)arg;
	downs++;
	snprintf(why_down, sizeof(why_down), "%s", why);
}

static const char *on_check_reply(void *arg, const redisReply *reply)
{
	(void)arg;
	return reply->type == REDIS_REPLY_ERROR ? refuse_with : NULL;
}

static void on_answered(void *arg)
{
	(void)arg;
	told++;
	told_at = answered;
}

static void on_subscribed(void *arg)
{
	(void)arg;
	subscribed++;
}

static void on_message(void *arg, const char *text, size_t len)
{
	(void)arg;
	messages++;
	ck_assert_uint_eq(strlen(text), len);
	snprintf(last_message, sizeof(last_message), "%s", text);
}

static void on_answer(void *arg, enum redis_outcome outcome, const redisReply *reply,
		      const char *why)
{
	(void)arg;
	if (outcome == REDIS_LOST) {
		lost++;
		/* A lost connection takes no further command. */
		ck_assert_ptr_null(redis_conn_send(conn, on_answer, NULL, 1,
						   (const char *[]){"PING"}, (const size_t[]){4}));
		snprintf(why_lost, sizeof(why_lost), "%s", why);
	} else if (outcome == REDIS_REFUSED) {
		refused++;
	} else {
		answered++;
		snprintf(last_answer, sizeof(last_answer), "%s", reply->str ? reply->str : "");
	}
}

#define WAIT_FOR(condition) WAIT_UNTIL(base, PATIENCE_MS, condition, why_down)

static void connect_to(int port)
{
	struct redis_address address = {.len = sizeof(struct sockaddr_in)};
	struct sockaddr_in *in = (struct sockaddr_in *)&address.sockaddr;
	struct redis_conn_events events = {.up = on_up,
					   .down = on_down,
					   .check_reply = on_check_reply,
					   .answered = on_answered,
					   .subscribed = on_subscribed,
					   .message = on_message};

	in->sin_family = AF_INET;
	in->sin_port = htons((in_port_t)port);
	in->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	conn = redis_conn_new(base, &address, &events);
	ck_assert_ptr_nonnull(conn);
	ck_assert_uint_eq(ups + downs, 0);
}

static void come_up(void)
{
	connect_to(fake_redis_port(fake));
	WAIT_FOR(ups == 1);
}

static void send_word(const char *word)
{
	const char *argv[] = {word, "x"};
	const size_t lens[] = {strlen(word), 1};

	ck_assert_ptr_nonnull(redis_conn_send(conn, on_answer, NULL, 2, argv, lens));
}

static void setup(void)
{
	signal(SIGPIPE, SIG_IGN);
	base = event_base_new();
	fake = fake_redis_new(base);
}

static void teardown(void)
{
	redis_conn_free(conn, "freed");
	fake_redis_free(fake);
	event_base_loop(base, EVLOOP_NONBLOCK);
	event_base_free(base);
}

static void goes_down_with(const char *why)
{
	WAIT_FOR(downs == 1);
	ck_assert_msg(strstr(why_down, why) != NULL, "%s", why_down);
	ck_assert_uint_eq(redis_conn_waiting(conn), 0);
	for (int i = 0; i < 5; i++)
		wait_turn(base);
	ck_assert_uint_eq(downs, 1);
}

/* --- replies without a command ------------------------------------------------------------- */

static const char *const unasked[] = {
	"+hello\r\n",
	"$5\r\nhello\r\n",
	"$-1\r\n",
	"*-1\r\n",
	"*0\r\n",
	":1\r\n",
	"*3\r\n$7\r\nmessage\r\n$1\r\na\r\n$1\r\nb\r\n",
	"*3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:1\r\n",
	"*2\r\n*1\r\n*1\r\n",
	"-ERR something\r\n",
};

/* RESP3, and what is not RESP. hiredis 0.14 takes all of it for a protocol error; 1.x reads RESP3,
 * which then is a reply without a command. */
static const char *const strange[] = {
	">2\r\n$10\r\ninvalidate\r\n*1\r\n$1\r\nk\r\n",
	">3\r\n$7\r\nmessage\r\n$1\r\na\r\n$1\r\nb\r\n",
	">3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:1\r\n",
	"%1\r\n+a\r\n+b\r\n",
	"~1\r\n+a\r\n",
	",1.5\r\n",
	"#t\r\n",
	"_\r\n",
	"(123456789012345678901234567890\r\n",
	"=5\r\ntxt:x\r\n",
	"|1\r\n+a\r\n+b\r\n",
	"garbage\r\n",
	"HTTP/1.1 400 Bad Request\r\n\r\n",
	"\r\n",
	"*2147483648\r\n",
	"$-2\r\n",
	"$99999999999999999999\r\n",
	":x\r\n",
};

START_TEST(unasked_while_idle)
{
	come_up();
	fake_redis_say(fake, unasked[_i]);
	goes_down_with("the server spoke without being asked");
}
END_TEST

START_TEST(strange_while_idle)
{
	come_up();
	fake_redis_say(fake, strange[_i]);
	WAIT_FOR(downs == 1);
	ck_assert_msg(strstr(why_down, "without being asked") || strstr(why_down, "does not speak"),
		      "%s", why_down);
}
END_TEST

START_TEST(unasked_behind_an_answer)
{
	char bytes[128];

	snprintf(bytes, sizeof(bytes), "+wanted\r\n%s", unasked[_i]);
	come_up();
	fake_redis_on(fake, "GET", bytes, FAKE_STAY);
	send_word("GET");
	goes_down_with("the server spoke without being asked");
	ck_assert_uint_eq(answered, 1);
	ck_assert_str_eq(last_answer, "wanted");
}
END_TEST

/* A push message is no reply, even if a command waits for one. */
START_TEST(strange_instead_of_an_answer)
{
	come_up();
	fake_redis_on(fake, "GET", strange[_i], FAKE_CLOSE);
	send_word("GET");
	send_word("SET");
	WAIT_FOR(downs == 1 && lost + answered == 2);
	ck_assert_uint_ge(lost, 1);
}
END_TEST

START_TEST(unasked_error_has_its_words)
{
	come_up();
	refuse_with = "the server is at its limit of clients";
	fake_redis_say(fake, "-ERR max number of clients reached\r\n");
	goes_down_with(refuse_with);
}
END_TEST

/* --- broken replies ------------------------------------------------------------------------- */

static const struct broken {
	const char *bytes;
	enum fake_then then;
	const char *why;
} brokens[] = {
	{"$10\r\nabc", FAKE_CLOSE, "closed the connection"},
	{"*2\r\n+a\r\n", FAKE_CLOSE, "closed the connection"},
	{"*2\r\n*2\r\n+a\r\n", FAKE_CLOSE, "closed the connection"},
	{"", FAKE_CLOSE, "closed the connection"},
	{"*2\r\ngarbage", FAKE_STAY, "does not speak"},
	{"*2147483647\r\n", FAKE_STAY, "larger answer"},
	{"*65537\r\n", FAKE_STAY, "larger answer"},
	{"*1\r\n*65537\r\n", FAKE_STAY, "larger answer"},
	{"*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n", FAKE_STAY,
	 "larger answer"},
	{"*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*0\r\n", FAKE_STAY, "larger answer"},
};

START_TEST(broken_answer)
{
	come_up();
	fake_redis_on(fake, "GET", brokens[_i].bytes, brokens[_i].then);
	fake_redis_on(fake, "SET", "+OK\r\n", FAKE_HOLD);
	send_word("PING");
	send_word("GET");
	send_word("SET");
	goes_down_with(brokens[_i].why);
	ck_assert_uint_eq(answered, 1);
	ck_assert_uint_eq(lost, 2);
	ck_assert_str_eq(why_lost, why_down);
}
END_TEST

START_TEST(nested_as_deep_as_may_be)
{
	come_up();
	fake_redis_on(fake, "GET", "*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n+a\r\n", FAKE_STAY);
	send_word("GET");
	WAIT_FOR(answered == 1);
	ck_assert_uint_eq(downs, 0);
}
END_TEST

START_TEST(answers_that_come_together_are_told_once)
{
	come_up();
	fake_redis_on(fake, "GET", "+a\r\n", FAKE_HOLD);
	send_word("GET");
	send_word("PING");
	send_word("SET");
	WAIT_FOR(strstr(fake_redis_heard(fake), "SET"));
	told = 0;
	fake_redis_release(fake);
	WAIT_FOR(answered == 3);
	ck_assert_uint_eq(told, 1);
	ck_assert_uint_eq(told_at, 3);
}
END_TEST

START_TEST(what_is_forgotten_has_no_callback)
{
	const char *argv[] = {"GET", "x"};
	const size_t lens[] = {3, 1};

	come_up();
	redis_command_forget(redis_conn_send(conn, on_answer, NULL, 2, argv, lens));
	send_word("SET");
	WAIT_FOR(answered == 1 && redis_conn_waiting(conn) == 0);
	redis_command_forget(redis_conn_send(conn, on_answer, NULL, 2, argv, lens));
	redis_conn_free(conn, "freed");
	conn = NULL;
	ck_assert_uint_eq(answered, 1);
	ck_assert_uint_eq(lost, 0);
}
END_TEST

/* The server reads a flushed command in the next turn of the loop; without redis_conn_flush the
 * command would only be written in that turn. */
START_TEST(what_is_flushed_is_on_its_way)
{
	come_up();
	send_word("GET");
	redis_conn_flush(conn);
	event_base_loop(base, EVLOOP_ONCE);
	ck_assert_ptr_nonnull(strstr(fake_redis_heard(fake), "GET"));
}
END_TEST

/* Answers a command with `begin` and then MB after MB of `more`, until the connection ends. Returns
 * the number of bytes. */
static size_t pour(const char *begin, const char *more)
{
	size_t len = strlen(more), poured = 0;
	char *much = malloc((1 << 20) + len + 1);

	for (size_t n = 0; n <= 1 << 20; n += len)
		memcpy(much + n, more, len + 1);
	come_up();
	fake_redis_on(fake, "GET", begin, FAKE_STAY);
	send_word("GET");
	WAIT_FOR(strstr(fake_redis_heard(fake), "GET"));
	while (downs == 0 && poured < (size_t)512 << 20) {
		fake_redis_say(fake, much);
		poured += 1 << 20;
		for (int i = 0; i < 100 && downs == 0; i++)
			event_base_loop(base, EVLOOP_NONBLOCK);
	}
	free(much);
	return poured;
}

static const char *const endless[][2] = {
	{"+", "x"},                        /* a line without an end */
	{"$2000000000\r\n", "x"},          /* a long string */
	{"*65536\r\n", "*100\r\n"},        /* arrays in an array */
	{"*65536\r\n", "$4000\r\n%s\r\n"}, /* many strings */
};

START_TEST(an_answer_without_an_end)
{
	char text[4100];

	if (_i == 3)
		snprintf(text, sizeof(text), "$4000\r\n%0*d\r\n", 4000, 0);
	pour(endless[_i][0], _i == 3 ? text : endless[_i][1]);
	goes_down_with("the server sent a larger answer than is accepted");
	ck_assert_uint_eq(lost, 1);
}
END_TEST

/* --- the end -------------------------------------------------------------------------------- */

START_TEST(nobody_listens)
{
	int port = fake_redis_port(fake);

	fake_redis_stop(fake);
	connect_to(port);
	goes_down_with("Connection refused");
	ck_assert_uint_eq(ups, 0);
}
END_TEST

START_TEST(no_such_socket)
{
	struct redis_address address = {.sockaddr.ss_family = AF_UNIX,
					.len = sizeof(address.sockaddr)};
	struct redis_conn_events events = {.up = on_up, .down = on_down};

	strcpy(((struct sockaddr *)&address.sockaddr)->sa_data, "/nowhere");
	conn = redis_conn_new(base, &address, &events);
	ck_assert_ptr_nonnull(conn);
	ck_assert_uint_eq(downs, 0);
	goes_down_with("No such file or directory");
}
END_TEST

START_TEST(freed_with_commands_in_flight)
{
	come_up();
	fake_redis_on(fake, "GET", "+a\r\n", FAKE_HOLD);
	send_word("GET");
	send_word("GET");
	ck_assert_uint_eq(redis_conn_waiting(conn), 2);
	redis_conn_shut(conn);
	ck_assert_int_eq(redis_conn_subscribe(conn, CHANNEL), -1);
	ck_assert_uint_eq(lost, 0);
	redis_conn_free(conn, "the daemon is stopping");
	conn = NULL;
	ck_assert_uint_eq(lost, 2);
	ck_assert_uint_eq(downs, 0);
	ck_assert_str_eq(why_lost, "the daemon is stopping");
}
END_TEST

/* Frees the connection after each number of turns; sanitizers find what goes wrong. */
START_TEST(freed_at_any_time)
{
	for (unsigned n = 0; n < 60; n++) {
		ups = downs = 0;
		fake_redis_normal(fake);
		if (n % 3 == 1)
			fake_redis_greet(fake, "garbage\r\n", true);
		connect_to(fake_redis_port(fake));
		for (unsigned i = 0; i < n / 3; i++) {
			event_base_loop(base, EVLOOP_NONBLOCK);
			if (ups == 1 && n % 3 == 2)
				redis_conn_subscribe(conn, CHANNEL);
		}
		redis_conn_free(conn, "freed");
		conn = NULL;
	}
}
END_TEST

/* --- subscribed ------------------------------------------------------------------------------- */

#define CONFIRMED                 "*3\r\n$9\r\nsubscribe\r\n$11\r\n" CHANNEL "\r\n:1\r\n"
#define MESSAGE(text_with_length) "*3\r\n$7\r\nmessage\r\n$11\r\n" CHANNEL "\r\n" text_with_length

static void subscribe(void)
{
	fake_redis_on(fake, "SUBSCRIBE", CONFIRMED, FAKE_STAY);
	come_up();
	/* The reply to this comes before the subscription's. */
	send_word("AUTH");
	ck_assert_int_eq(redis_conn_subscribe(conn, CHANNEL), 0);
	WAIT_FOR(subscribed == 1);
	ck_assert_uint_eq(answered, 1);
	ck_assert_uint_eq(redis_conn_waiting(conn), 0);
}

START_TEST(messages_are_handed_out)
{
	subscribe();
	ck_assert_ptr_null(redis_conn_send(conn, on_answer, NULL, 1, (const char *[]){"PING"},
					   (const size_t[]){4}));
	ck_assert_int_eq(redis_conn_subscribe(conn, "another"), -1);
	fake_redis_say(fake, MESSAGE("$5\r\nhello\r\n") MESSAGE("$0\r\n\r\n"));
	WAIT_FOR(messages == 2);
	fake_redis_say(fake, MESSAGE("$3\r\nyou\r\n"));
	WAIT_FOR(messages == 3);
	ck_assert_str_eq(last_message, "you");
	ck_assert_uint_eq(downs, 0);
}
END_TEST

/* A further SUBSCRIBE asks whether the server is alive. */
START_TEST(a_sign_of_life)
{
	subscribe();
	for (unsigned n = 2; n < 20; n++) {
		ck_assert_int_eq(redis_conn_subscribe(conn, CHANNEL), 0);
		ck_assert_uint_eq(redis_conn_waiting(conn), 1);
		WAIT_FOR(subscribed == n);
		ck_assert_uint_eq(redis_conn_waiting(conn), 0);
		ck_assert(clock_ms() - redis_conn_silent_since_ms(conn) < PATIENCE_MS);
	}
	fake_redis_silence(fake, true);
	ck_assert_int_eq(redis_conn_subscribe(conn, CHANNEL), 0);
	for (int i = 0; i < 20; i++)
		wait_turn(base);
	ck_assert_uint_eq(redis_conn_waiting(conn), 1);
	ck_assert_uint_eq(downs, 0);
}
END_TEST

/* Confirmations that nobody asked for are ignored. */
START_TEST(confirmed_unasked)
{
	subscribe();
	fake_redis_say(fake, CONFIRMED CONFIRMED MESSAGE("$1\r\nx\r\n"));
	WAIT_FOR(messages == 1);
	ck_assert_uint_eq(subscribed, 1);
	ck_assert_uint_eq(redis_conn_waiting(conn), 0);
}
END_TEST

static const char *const no_messages[] = {
	"+hello\r\n",
	":1\r\n",
	"$-1\r\n",
	"*-1\r\n",
	"*0\r\n",
	"*1\r\n$7\r\nmessage\r\n",
	"*2\r\n$4\r\npong\r\n$0\r\n\r\n",
	"*4\r\n$8\r\npmessage\r\n$1\r\n*\r\n$11\r\n" CHANNEL "\r\n$1\r\nx\r\n",
	"*3\r\n$7\r\nMESSAGE\r\n$11\r\n" CHANNEL "\r\n$1\r\nx\r\n",
	"*3\r\n$-1\r\n$11\r\n" CHANNEL "\r\n$1\r\nx\r\n",
	"*3\r\n:1\r\n:2\r\n:3\r\n",
	"*3\r\n*1\r\n$7\r\nmessage\r\n$11\r\n" CHANNEL "\r\n$1\r\nx\r\n",
	"*3\r\n+message\r\n$11\r\n" CHANNEL "\r\n$1\r\nx\r\n",
	"*3\r\n$7\r\nmessage\r\n$7\r\nanother\r\n$1\r\nx\r\n",
	"*3\r\n$7\r\nmessage\r\n$-1\r\n$1\r\nx\r\n",
	"*3\r\n$7\r\nmessage\r\n:1\r\n$1\r\nx\r\n",
	MESSAGE("$-1\r\n"),
	MESSAGE(":1\r\n"),
	MESSAGE("*0\r\n"),
	"*3\r\n$9\r\nsubscribe\r\n$7\r\nanother\r\n:1\r\n",
	"*3\r\n$9\r\nsubscribe\r\n$11\r\n" CHANNEL "\r\n$1\r\n1\r\n",
	"*3\r\n$9\r\nsubscribe\r\n$11\r\n" CHANNEL "\r\n$-1\r\n",
	"*3\r\n$10\r\npsubscribe\r\n$11\r\n" CHANNEL "\r\n:1\r\n",
	"*3\r\n$11\r\nunsubscribe\r\n$11\r\n" CHANNEL "\r\n:0\r\n",
	"*3\r\n$11\r\nunsubscribe\r\n$-1\r\n:0\r\n",
	"*3\r\n$0\r\n\r\n$11\r\n" CHANNEL "\r\n:1\r\n",
};

START_TEST(what_is_no_message)
{
	subscribe();
	fake_redis_say(fake, no_messages[_i]);
	WAIT_FOR(downs == 1);
	ck_assert_msg(strstr(why_down, "no message") || strstr(why_down, "without being asked"),
		      "%s", why_down);
	ck_assert_uint_eq(messages, 0);
}
END_TEST

START_TEST(strange_once_subscribed)
{
	subscribe();
	fake_redis_say(fake, strange[_i]);
	WAIT_FOR(downs == 1);
	ck_assert_uint_eq(messages, 0);
}
END_TEST

START_TEST(closed_amid_a_message)
{
	subscribe();
	fake_redis_say(fake, "*3\r\n$7\r\nmessage\r\n$11\r\np:cb");
	wait_turn(base);
	fake_redis_close_all(fake);
	goes_down_with("closed the connection");
}
END_TEST

START_TEST(not_allowed_to_subscribe)
{
	fake_redis_on(fake, "SUBSCRIBE", "-NOPERM no permission to access a channel\r\n",
		      FAKE_STAY);
	come_up();
	ck_assert_int_eq(redis_conn_subscribe(conn, CHANNEL), 0);
	goes_down_with("refuses SUBSCRIBE (NOPERM no permission to access a channel)");
	ck_assert_uint_eq(subscribed, 0);
}
END_TEST

START_TEST(never_confirmed)
{
	fake_redis_on(fake, "SUBSCRIBE", no_messages[_i], FAKE_CLOSE);
	come_up();
	ck_assert_int_eq(redis_conn_subscribe(conn, CHANNEL), 0);
	WAIT_FOR(downs == 1);
	ck_assert_uint_eq(subscribed + messages, 0);
}
END_TEST

START_TEST(freed_while_subscribed)
{
	subscribe();
	redis_conn_free(conn, "freed");
	conn = NULL;
	ck_assert_uint_eq(downs, 0);
}
END_TEST

#define COUNT(array) ((int)(sizeof(array) / sizeof((array)[0])))

int main(void)
{
	Suite *suite = suite_create("redis_conn");
	TCase *tcase = tcase_create("all");

	tcase_set_timeout(tcase, 60);
	tcase_add_checked_fixture(tcase, setup, teardown);
	tcase_add_loop_test(tcase, unasked_while_idle, 0, COUNT(unasked));
	tcase_add_loop_test(tcase, strange_while_idle, 0, COUNT(strange));
	tcase_add_loop_test(tcase, unasked_behind_an_answer, 0, COUNT(unasked));
	tcase_add_loop_test(tcase, strange_instead_of_an_answer, 0, COUNT(strange));
	tcase_add_test(tcase, unasked_error_has_its_words);
	tcase_add_loop_test(tcase, broken_answer, 0, COUNT(brokens));
	tcase_add_test(tcase, nested_as_deep_as_may_be);
	tcase_add_test(tcase, answers_that_come_together_are_told_once);
	tcase_add_test(tcase, what_is_forgotten_has_no_callback);
	tcase_add_test(tcase, what_is_flushed_is_on_its_way);
	tcase_add_loop_test(tcase, an_answer_without_an_end, 0, COUNT(endless));
	tcase_add_test(tcase, nobody_listens);
	tcase_add_test(tcase, no_such_socket);
	tcase_add_test(tcase, freed_with_commands_in_flight);
	tcase_add_test(tcase, freed_at_any_time);
	tcase_add_test(tcase, messages_are_handed_out);
	tcase_add_test(tcase, a_sign_of_life);
	tcase_add_test(tcase, confirmed_unasked);
	tcase_add_loop_test(tcase, what_is_no_message, 0, COUNT(no_messages));
	tcase_add_loop_test(tcase, strange_once_subscribed, 0, COUNT(strange));
	tcase_add_test(tcase, closed_amid_a_message);
	tcase_add_test(tcase, not_allowed_to_subscribe);
	tcase_add_loop_test(tcase, never_confirmed, 0, COUNT(no_messages));
	tcase_add_test(tcase, freed_while_subscribed);
	suite_add_tcase(suite, tcase);
	return suite_run(suite);
}
