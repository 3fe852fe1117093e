/*
 * The subscription: it subscribes after its handshake, comes back whatever ends it, follows another
 * server, and tells each time it is established or lost.
 */
#include "redis/channel.h"

#include "base/log.h"
#include "fake_redis.h"
#include "redis/address.h"
#include "redis/target.h"
#include "suite.h"
#include "wait.h"

#include <arpa/inet.h>
#include <check.h>
#include <event2/event.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>

#define PATIENCE_MS 10000
#define CHANNEL     "p:cb:events"
#define CONFIRMED   "*3\r\n$9\r\nsubscribe\r\n$11\r\n" CHANNEL "\r\n:1\r\n"
#define MESSAGE     "*3\r\n$7\r\nmessage\r\n$11\r\n" CHANNEL "\r\n$5\r\nhello\r\n"
#define NO_ACCESS   "-NOPERM this user has no permissions to access one of the channels\r\n"

static struct event_base *base;
static struct fake_redis *fake, *other;
static struct redis_target target;
static struct redis_channel *channel;
static struct log log_;
static unsigned messages, ups, downs;
static char last_message[64];

static void on_message(void *arg, const char *text, size_t len)
{
	(void)arg;
	messages++;
	ck_assert_uint_eq(strlen(text), len);
	snprintf(last_message, sizeof(last_message), "%s", text);
}

static void on_change(void *arg, bool stands)
{
	(void)arg;
	/* Each call is a change. */
	ck_assert_uint_eq(ups - downs, stands ? 0 : 1);
	if (stands)
		ups++;
	else
		downs++;
	ck_assert(!channel || redis_channel_stands(channel) == stands);
}

#define WAIT_FOR(condition) WAIT_UNTIL(base, PATIENCE_MS, condition, last_message)

static void follow(const struct fake_redis *server)
{
	struct redis_address address = {.len = sizeof(struct sockaddr_in)};
	struct sockaddr_in *in = (struct sockaddr_in *)&address.sockaddr;

	in->sin_family = AF_INET;
	in->sin_port = htons((in_port_t)fake_redis_port(server));
	in->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	redis_channel_follow(channel, &address);
}

static void setup(void)
{
	const struct redis_channel_events events = {.message = on_message, .change = on_change};
	char why[256];

	messages = ups = downs = 0;
	base = event_base_new();
	fake = fake_redis_new(base);
	other = fake_redis_new(base);
	fake_redis_on(fake, "SUBSCRIBE", CONFIRMED, FAKE_STAY);
	fake_redis_on(other, "SUBSCRIBE", CONFIRMED, FAKE_STAY);
	log_init(&log_, LOG_LEVEL_ERROR);
	ck_assert(redis_target_parse("redis://u:secret@127.0.0.1:1", &target, why, sizeof(why)));
	channel = redis_channel_new(base, &target, CHANNEL, &events, &log_);
	ck_assert_ptr_nonnull(channel);
}

static void teardown(void)
{
	redis_channel_free(channel);
	channel = NULL;
	fake_redis_free(fake);
	fake_redis_free(other);
	event_base_free(base);
}

START_TEST(it_subscribes_behind_its_handshake_and_listens)
{
	ck_assert(!redis_channel_stands(channel));
	follow(fake);
	WAIT_FOR(ups == 1);
	ck_assert_ptr_nonnull(strstr(fake_redis_heard(fake), "AUTH u secret|"));
	ck_assert_ptr_nonnull(strstr(fake_redis_heard(fake), "SUBSCRIBE " CHANNEL "|"));
	fake_redis_say(fake, MESSAGE MESSAGE);
	WAIT_FOR(messages == 2);
	ck_assert_str_eq(last_message, "hello");
}
END_TEST

START_TEST(it_comes_back_whenever_it_is_killed)
{
	follow(fake);
	for (unsigned n = 1; n <= 20; n++) {
		WAIT_FOR(ups == n);
		fake_redis_close_all(fake);
		WAIT_FOR(downs == n);
	}
	WAIT_FOR(ups == 21);
	fake_redis_say(fake, MESSAGE);
	WAIT_FOR(messages == 1);
}
END_TEST

START_TEST(a_server_that_was_not_there_is_found_when_it_is)
{
	fake_redis_stop(fake);
	follow(fake);
	for (int i = 0; i < 20; i++) {
		struct timeval soon = {.tv_usec = 5000};

		event_base_loopexit(base, &soon);
		event_base_dispatch(base);
	}
	ck_assert_uint_eq(ups, 0);
	fake_redis_start(fake);
	WAIT_FOR(ups == 1);
}
END_TEST

/* Each of these ends the connection, and a new connection subscribes again. */
static const char *const bad_answers[] = {
	NO_ACCESS, "+OK\r\n", "$-1\r\n", "*3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n$1\r\n1\r\n", "?\r\n",
};

START_TEST(what_is_no_subscription_is_tried_again)
{
	fake_redis_on(fake, "SUBSCRIBE", bad_answers[_i], FAKE_STAY);
	follow(fake);
	WAIT_FOR(fake_redis_accepted(fake) >= 3);
	ck_assert_uint_eq(ups, 0);
	fake_redis_on(fake, "SUBSCRIBE", CONFIRMED, FAKE_STAY);
	WAIT_FOR(ups == 1);
}
END_TEST

START_TEST(nothing_is_a_message_before_the_subscription_stands)
{
	fake_redis_on(fake, "SUBSCRIBE", MESSAGE, FAKE_STAY);
	follow(fake);
	WAIT_FOR(fake_redis_accepted(fake) >= 2);
	ck_assert_uint_eq(messages, 0);
	ck_assert_uint_eq(ups, 0);
}
END_TEST

START_TEST(it_follows_another_server_and_none)
{
	follow(fake);
	WAIT_FOR(ups == 1);
	follow(other);
	ck_assert_uint_eq(downs, 1);
	WAIT_FOR(ups == 2 && fake_redis_open(fake) == 0);
	fake_redis_say(other, MESSAGE);
	WAIT_FOR(messages == 1);
	redis_channel_follow(channel, NULL);
	ck_assert_uint_eq(downs, 2);
	WAIT_FOR(fake_redis_open(other) == 0);
	ck_assert_uint_eq(fake_redis_accepted(other), 1);
	follow(fake);
	WAIT_FOR(ups == 3);
}
END_TEST

START_TEST(its_end_is_quiet_in_each_state)
{
	if (_i == 1)
		fake_redis_silence(fake, true);
	if (_i > 0)
		follow(fake);
	if (_i == 1)
		WAIT_FOR(fake_redis_accepted(fake) == 1);
	if (_i >= 2)
		WAIT_FOR(ups == 1);
	if (_i == 3)
		fake_redis_close_all(fake);
	if (_i == 3)
		WAIT_FOR(downs == 1);
}
END_TEST

static Suite *channel_suite(void)
{
	Suite *s = suite_create("redis_channel");
	TCase *t = tcase_create("channel");

	tcase_add_checked_fixture(t, setup, teardown);
	tcase_set_timeout(t, 60);
	tcase_add_test(t, it_subscribes_behind_its_handshake_and_listens);
	tcase_add_test(t, it_comes_back_whenever_it_is_killed);
	tcase_add_test(t, a_server_that_was_not_there_is_found_when_it_is);
	tcase_add_loop_test(t, what_is_no_subscription_is_tried_again, 0,
			    sizeof(bad_answers) / sizeof(bad_answers[0]));
	tcase_add_test(t, nothing_is_a_message_before_the_subscription_stands);
	tcase_add_test(t, it_follows_another_server_and_none);
	tcase_add_loop_test(t, its_end_is_quiet_in_each_state, 0, 4);
	suite_add_tcase(s, t);
	return s;
}

int main(void)
{
	return suite_run(channel_suite());
}
