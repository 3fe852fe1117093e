/* The link with sentinels, tested through redis/link.h. */
#include "redis/link.h"

#include "fake_redis.h"
#include "redis/target.h"
#include "redis_server.h"
#include "suite.h"
#include "wait.h"

#include <check.h>
#include <errno.h>
#include <event2/event.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define PATIENCE_MS 15000
#define SENTINELS   3

static struct event_base *base;
static struct fake_redis *sentinels[SENTINELS], *masters[2];
static struct redis_server_process processes[3]; /* master, replica, sentinel */
static struct redis_link *link_;
static struct redis_link_options options;
static char answers[2][128]; /* a sentinel's reply that names master 0, or 1 */
static char news[2][256];

static void knows(unsigned sentinel, unsigned master)
{
	fake_redis_on(sentinels[sentinel], "SENTINEL", answers[master], FAKE_STAY);
	fake_redis_on(sentinels[sentinel], "SUBSCRIBE",
		      "*3\r\n$9\r\nsubscribe\r\n$14\r\n+switch-master\r\n:1\r\n", FAKE_STAY);
}

static void new_master(unsigned n)
{
	char port[8], payload[96];

	masters[n] = fake_redis_new(base);
	snprintf(port, sizeof(port), "%d", fake_redis_port(masters[n]));
	snprintf(answers[n], sizeof(answers[n]), "*2\r\n$9\r\n127.0.0.1\r\n$%zu\r\n%s\r\n",
		 strlen(port), port);
	snprintf(payload, sizeof(payload), "mymaster 127.0.0.1 1 127.0.0.1 %s", port);
	snprintf(news[n], sizeof(news[n]),
		 "*3\r\n$7\r\nmessage\r\n$14\r\n+switch-master\r\n$%zu\r\n%s\r\n", strlen(payload),
		 payload);
}

static void setup(void)
{
	signal(SIGPIPE, SIG_IGN);
	base = event_base_new();
	options = (struct redis_link_options){.connect_timeout_ms = 600,
					      .handshake_timeout_ms = 300,
					      .command_timeout_ms = 500,
					      .backoff_min_ms = 1,
					      .backoff_max_ms = 20};
	for (unsigned n = 0; n < 2; n++)
		new_master(n);
	for (unsigned n = 0; n < SENTINELS; n++) {
		sentinels[n] = fake_redis_new(base);
		knows(n, 0);
	}
}

static void teardown(void)
{
	if (link_)
		redis_link_free(link_);
	for (unsigned n = 0; n < 2; n++)
		fake_redis_free(masters[n]);
	for (unsigned n = 0; n < SENTINELS; n++)
		fake_redis_free(sentinels[n]);
	for (unsigned n = 0; n < 3; n++)
		redis_server_stop(&processes[n]);
	event_base_loop(base, EVLOOP_NONBLOCK);
	event_base_free(base);
}

static void link_to(const char *url)
{
	struct redis_target target;
	char why[256];

	ck_assert_msg(redis_target_parse(url, &target, why, sizeof(why)), "%s", why);
	link_ = redis_link_new(base, &target, &options, NULL, NULL);
	ck_assert_ptr_nonnull(link_);
}

static void link_to_sentinels(void)
{
	char url[256];

	snprintf(url, sizeof(url),
		 "redis-sentinel://127.0.0.1:%d,127.0.0.1:%d,127.0.0.1:%d/mymaster",
		 fake_redis_port(sentinels[0]), fake_redis_port(sentinels[1]),
		 fake_redis_port(sentinels[2]));
	link_to(url);
}

#define WAIT_FOR(condition) WAIT_UNTIL(base, PATIENCE_MS, condition, redis_link_reason(link_))

static bool ready_at(int port)
{
	char where[64];

	snprintf(where, sizeof(where), " at 127.0.0.1:%d", port);
	return redis_link_ready(link_) && strstr(redis_link_server(link_), where);
}

static bool ready_at_master(unsigned n)
{
	return ready_at(fake_redis_port(masters[n]));
}

static bool reason_has(const char *text)
{
	return strstr(redis_link_reason(link_), text) != NULL;
}

START_TEST(finds_the_master)
{
	link_to_sentinels();
	WAIT_FOR(ready_at_master(0));
	WAIT_FOR(strcmp(fake_redis_heard(sentinels[0]),
			"SENTINEL get-master-addr-by-name mymaster|SUBSCRIBE +switch-master|") ==
		 0);
	ck_assert_uint_eq(fake_redis_accepted(sentinels[1]), 0);
	ck_assert_uint_eq(fake_redis_accepted(masters[0]), 1);
}
END_TEST

START_TEST(survives_dead_sentinels)
{
	fake_redis_stop(sentinels[0]);
	fake_redis_silence(sentinels[1], true);
	link_to_sentinels();
	WAIT_FOR(ready_at_master(0));
	/* Dead sentinels are asked last from now on. */
	fake_redis_close_all(masters[0]);
	WAIT_FOR(fake_redis_accepted(masters[0]) == 2 && ready_at_master(0));
	ck_assert_uint_eq(fake_redis_accepted(sentinels[1]), 1);
	ck_assert_uint_eq(fake_redis_accepted(sentinels[2]), 2);
}
END_TEST

/* The silent sentinels use up the time of the first attempt. The next attempt begins after them. */
START_TEST(goes_on_where_it_stopped)
{
	options.connect_timeout_ms = 90;
	fake_redis_silence(sentinels[0], true);
	fake_redis_silence(sentinels[1], true);
	link_to_sentinels();
	WAIT_FOR(ready_at_master(0));
}
END_TEST

START_TEST(all_dead_and_back)
{
	for (unsigned n = 0; n < SENTINELS; n++)
		fake_redis_stop(sentinels[n]);
	link_to_sentinels();
	WAIT_FOR(reason_has("Connection refused"));
	ck_assert(reason_has("sentinel 127.0.0.1:"));
	fake_redis_start(sentinels[1]);
	WAIT_FOR(ready_at_master(0));
}
END_TEST

static const struct odd {
	const char *answer;
	const char *reason;
} odds[] = {
	{"*-1\r\n", "does not know a master of that name"},
	{"$-1\r\n", "does not know a master of that name"},
	{"-IDONTKNOW I have not enough information to reply\r\n", "IDONTKNOW"},
	{"-NOAUTH Authentication required.\r\n", "asks for a password"},
	{"+OK\r\n", "its answer is no address"},
	{"*2\r\n$9\r\n127.0.0.1\r\n$5\r\n99999\r\n", "its answer is no address"},
	{"*2\r\n$9\r\n127.0.0.1\r\n:1\r\n", "its answer is no address"},
	{"*2\r\n*-1\r\n$1\r\n1\r\n", "its answer is no address"},
	{"HTTP/1.1 400 Bad Request\r\n", "does not speak"},
	{"*2\r\n$3\r\na\nb\r\n$1\r\n1\r\n", "cannot find an address for \"a?b\""},
	{"*2\r\n$9\r\n127.0.0.1\r\n$1\r\n1\r\n", "Connection refused"},
};

START_TEST(odd_answers)
{
	for (unsigned n = 0; n < SENTINELS; n++)
		fake_redis_on(sentinels[n], "SENTINEL", odds[_i].answer, FAKE_STAY);
	link_to_sentinels();
	WAIT_FOR(reason_has(odds[_i].reason));
	ck_assert(!redis_link_ready(link_));
	knows(2, 0);
	WAIT_FOR(ready_at_master(0));
}
END_TEST

START_TEST(refuses_a_stale_master)
{
	fake_redis_on(masters[0], "ROLE",
		      "*5\r\n$5\r\nslave\r\n$9\r\n127.0.0.1\r\n:1\r\n$4\r\nsync\r\n:-1\r\n",
		      FAKE_STAY);
	/* Two sentinels still name the old master. The third, which is asked later, names the new
	 * one. */
	knows(2, 1);
	link_to_sentinels();
	WAIT_FOR(reason_has("is a replica of"));
	WAIT_FOR(ready_at_master(1));
}
END_TEST

START_TEST(follows_switch_master)
{
	link_to_sentinels();
	WAIT_FOR(ready_at_master(0));
	WAIT_FOR(strstr(fake_redis_heard(sentinels[0]), "SUBSCRIBE"));
	/* Messages without news: of another master's switch, and of the present master. */
	fake_redis_say(sentinels[0], "*3\r\n$7\r\nmessage\r\n$14\r\n+switch-master\r\n$35\r\n"
				     "another 127.0.0.1 1 127.0.0.1 12345\r\n");
	fake_redis_say(sentinels[0], news[0]);
	for (int64_t end = clock_ms() + 100; clock_ms() < end;)
		wait_turn(base);
	ck_assert_uint_eq(fake_redis_accepted(masters[0]), 1);
	for (unsigned n = 0; n < SENTINELS; n++)
		knows(n, 1);
	fake_redis_say(sentinels[0], news[1]);
	WAIT_FOR(ready_at_master(1));
	WAIT_FOR(fake_redis_open(masters[0]) == 0);
	/* A switch back to the first master. */
	for (unsigned n = 0; n < SENTINELS; n++)
		knows(n, 0);
	WAIT_FOR(strstr(fake_redis_heard(sentinels[0]), "SUBSCRIBE"));
	fake_redis_say(sentinels[0], news[0]);
	WAIT_FOR(ready_at_master(0));
}
END_TEST

/* Makes a bound socket listen without accepting, with a queue that `clients` fill: further
 * connections stay in progress. */
static void listen_full(int fd, int clients[3])
{
	struct sockaddr_in in;
	socklen_t len = sizeof(in);

	ck_assert_int_eq(listen(fd, 0), 0);
	getsockname(fd, (struct sockaddr *)&in, &len);
	for (int i = 0; i < 3; i++) {
		clients[i] = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
		/* The last of them do not fit into the queue. */
		if (connect(clients[i], (struct sockaddr *)&in, sizeof(in)) != 0)
			ck_assert_int_eq(errno, EINPROGRESS);
	}
}

/* A sentinel announces a new master while the link connects to the old one. The second address of
 * the old one must not be tried any more. */
START_TEST(follows_switch_master_while_it_connects)
{
	int fd, clients[3];
	struct fake_redis *second = fake_redis_new_on_ipv6(base, &fd);
	char answer[64], port[8];

	if (!second)
		return;
	listen_full(fd, clients);
	snprintf(port, sizeof(port), "%d", fake_redis_port(second));
	snprintf(answer, sizeof(answer), "*2\r\n$9\r\nlocalhost\r\n$%zu\r\n%s\r\n", strlen(port),
		 port);
	for (unsigned n = 0; n < SENTINELS; n++)
		fake_redis_on(sentinels[n], "SENTINEL", answer, FAKE_STAY);
	options.connect_timeout_ms = PATIENCE_MS;
	link_to_sentinels();
	WAIT_FOR(redis_link_state(link_) == LINK_CONNECTING);
	WAIT_FOR(strstr(fake_redis_heard(sentinels[0]), "SUBSCRIBE"));
	/* The other sentinels still name the old master. The one with the news is asked next. */
	knows(0, 1);
	fake_redis_say(sentinels[0], news[1]);
	WAIT_FOR(redis_link_ready(link_));
	ck_assert(ready_at_master(1));
	ck_assert_uint_eq(fake_redis_accepted(second), 0);
	fake_redis_free(second);
	close(fd);
	for (int i = 0; i < 3; i++)
		close(clients[i]);
}
END_TEST

/* The sentinel that the link subscribed to goes away. The link stays up and subscribes to another
 * one, which it also asks for the master, because a switch may have been missed. */
START_TEST(watches_on)
{
	link_to_sentinels();
	WAIT_FOR(ready_at_master(0));
	fake_redis_stop(sentinels[0]);
	WAIT_FOR(strstr(fake_redis_heard(sentinels[1]), "SUBSCRIBE"));
	ck_assert(ready_at_master(0));
	ck_assert_uint_eq(fake_redis_accepted(masters[0]), 1);
	knows(2, 1);
	fake_redis_say(sentinels[1], "garbage\r\n");
	WAIT_FOR(ready_at_master(1));
}
END_TEST

/* The sentinel that the link subscribed to freezes, with its connection open. */
START_TEST(a_frozen_sentinel)
{
	link_to_sentinels();
	WAIT_FOR(ready_at_master(0));
	WAIT_FOR(strstr(fake_redis_heard(sentinels[0]), "SUBSCRIBE"));
	fake_redis_silence(sentinels[0], true);
	WAIT_FOR(strstr(fake_redis_heard(sentinels[1]), "SUBSCRIBE"));
	ck_assert(ready_at_master(0));
	ck_assert_uint_eq(fake_redis_accepted(masters[0]), 1);
	/* A sentinel that answers is kept. */
	for (int64_t end = clock_ms() + 3000; clock_ms() < end;)
		wait_turn(base);
	ck_assert_uint_eq(fake_redis_accepted(sentinels[1]), 1);
	ck_assert_uint_eq(fake_redis_accepted(sentinels[2]), 0);
}
END_TEST

START_TEST(no_connection_is_left_open)
{
	link_to_sentinels();
	for (unsigned n = 0; n < 50; n++) {
		WAIT_FOR(fake_redis_accepted(masters[0]) == n + 1 && ready_at_master(0));
		fake_redis_close_all(masters[0]);
	}
	WAIT_FOR(fake_redis_accepted(masters[0]) == 51 && ready_at_master(0));
	WAIT_FOR(fake_redis_open(sentinels[0]) + fake_redis_open(sentinels[1]) +
			 fake_redis_open(sentinels[2]) ==
		 1);
	redis_link_free(link_);
	link_ = NULL;
	for (unsigned n = 0; n < 10; n++)
		wait_turn(base);
	ck_assert_uint_eq(fake_redis_open(sentinels[0]), 0);
}
END_TEST

START_TEST(freed_at_any_time)
{
	for (unsigned turns = 0; turns < 30; turns++) {
		if (turns == 20)
			fake_redis_stop(sentinels[0]);
		link_to_sentinels();
		for (unsigned n = 0; n < turns; n++)
			event_base_loop(base, EVLOOP_NONBLOCK);
		redis_link_free(link_);
		link_ = NULL;
	}
}
END_TEST

/* With real servers: the master is killed, and the sentinel promotes the replica. */
START_TEST(real_failover)
{
	struct redis_server_process *master = &processes[0], *replica = &processes[1];
	struct redis_server_process *sentinel = &processes[2];
	char port[16], url[128];
	const char *replica_arguments[] = {"--replicaof", "127.0.0.1", port, NULL};
	redisContext *c;
	redisReply *reply;
	int64_t killed_ms;
	int replicas = 0;

	redis_server_start(master, NULL);
	snprintf(port, sizeof(port), "%d", master->port);
	redis_server_start(replica, replica_arguments);
	redis_sentinel_start(sentinel, master->port);
	snprintf(url, sizeof(url), "redis-sentinel://127.0.0.1:%d/mymaster", sentinel->port);
	link_to(url);
	WAIT_FOR(ready_at(master->port));
	c = redis_server_connect(sentinel);
	for (int64_t end = clock_ms() + PATIENCE_MS; replicas == 0 && clock_ms() < end;) {
		reply = redisCommand(c, "SENTINEL replicas mymaster");
		ck_assert_ptr_nonnull(reply);
		replicas = (int)reply->elements;
		freeReplyObject(reply);
		wait_turn(base);
	}
	redisFree(c);
	ck_assert_int_eq(replicas, 1);
	redis_server_kill(master);
	killed_ms = clock_ms();
	WAIT_FOR(ready_at(replica->port));
	ck_assert_int_lt(clock_ms() - killed_ms, 10000);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("redis_sentinel");
	TCase *tcase = tcase_create("all");

	tcase_set_timeout(tcase, 60);
	tcase_add_checked_fixture(tcase, setup, teardown);
	tcase_add_test(tcase, finds_the_master);
	tcase_add_test(tcase, survives_dead_sentinels);
	tcase_add_test(tcase, goes_on_where_it_stopped);
	tcase_add_test(tcase, all_dead_and_back);
	tcase_add_loop_test(tcase, odd_answers, 0, (int)(sizeof(odds) / sizeof(odds[0])));
	tcase_add_test(tcase, refuses_a_stale_master);
	tcase_add_test(tcase, follows_switch_master);
	tcase_add_test(tcase, follows_switch_master_while_it_connects);
	tcase_add_test(tcase, watches_on);
	tcase_add_test(tcase, a_frozen_sentinel);
	tcase_add_test(tcase, no_connection_is_left_open);
	tcase_add_test(tcase, freed_at_any_time);
	tcase_add_test(tcase, real_failover);
	suite_add_tcase(suite, tcase);
	return suite_run(suite);
}
