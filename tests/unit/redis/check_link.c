#include "redis/link.h"

#include "base/log.h"
#include "base/metrics.h"
#include "fake_redis.h"
#include "redis/target.h"
#include "redis_server.h"
#include "suite.h"
#include "wait.h"

#include <check.h>
#include <dirent.h>
#include <event2/event.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define PATIENCE_MS 5000
#define ANSWERS_MAX 64

/* The answer to one command. */
struct answer {
	unsigned called;
	enum redis_outcome outcome;
	char text[128];
	unsigned order; /* `answered` at its callback: 1 for the first of all answers */
};

static struct event_base *base;
static struct fake_redis *fake;
static struct redis_server_process server;
static struct redis_link *link_;
static struct metrics *metrics;
static struct log log_;
static char lines[65536];
static struct redis_link_options options;
static struct answer answers[ANSWERS_MAX];
static unsigned answered;
static unsigned ups, downs;

static void on_line(void *arg, enum log_level level, const char *line)
{
	size_t at = strlen(lines);

	(void)arg;
	(void)level;
	snprintf(lines + at, sizeof(lines) - at, "%s\n", line);
}

static unsigned count(const char *text, const char *word)
{
	unsigned n = 0;

	for (const char *at = text; (at = strstr(at, word)); at++)
		n++;
	return n;
}

static void on_change(void *arg, bool ready)
{
	(void)arg;
	ck_assert(ready == redis_link_ready(link_));
	if (ready)
		ups++;
	else
		downs++;
}

static void setup(void)
{
	signal(SIGPIPE, SIG_IGN);
	base = event_base_new();
	metrics = calloc(1, sizeof(*metrics));
	log_ = (struct log){.level = LOG_LEVEL_INFO, .sink = on_line};
	lines[0] = '\0';
	options = (struct redis_link_options){.connect_timeout_ms = 1000,
					      .handshake_timeout_ms = 300,
					      .command_timeout_ms = 100,
					      .backoff_min_ms = 1,
					      .backoff_max_ms = 20,
					      .script = "return 1",
					      .on_change = on_change};
	memset(answers, 0, sizeof(answers));
	answered = ups = downs = 0;
}

static void teardown(void)
{
	if (link_)
		redis_link_free(link_);
	link_ = NULL;
	if (fake)
		fake_redis_free(fake);
	fake = NULL;
	redis_server_stop(&server);
	event_base_loop(base, EVLOOP_NONBLOCK);
	event_base_free(base);
	free(metrics);
}

static void link_to(const char *url)
{
	struct redis_target target;
	char why[256];

	ck_assert_msg(redis_target_parse(url, &target, why, sizeof(why)), "%s", why);
	link_ = redis_link_new(base, &target, &options, metrics, &log_);
	ck_assert_ptr_nonnull(link_);
}

/* Starts the fake unless it runs, and links to it with `userinfo` ("" or "user:password@") and
 * `path`. */
static void link_to_fake(const char *userinfo, const char *path)
{
	char url[256];

	if (!fake)
		fake = fake_redis_new(base);
	snprintf(url, sizeof(url), "redis://%s127.0.0.1:%d%s", userinfo, fake_redis_port(fake),
		 path);
	link_to(url);
}

static int64_t clock_offset_ms(void)
{
	int64_t error_ms;

	return redis_link_clock_offset_ms(link_, &error_ms);
}

#define WAIT_FOR(condition)                                                                        \
	WAIT_UNTIL(base, PATIENCE_MS, condition, link_ ? redis_link_reason(link_) : "")

static void on_answer(void *arg, enum redis_outcome outcome, const redisReply *reply,
		      const char *why)
{
	struct answer *answer = arg;

	answer->called++;
	answer->outcome = outcome;
	answer->order = ++answered;
	if (outcome == REDIS_REPLY && reply->str)
		snprintf(answer->text, sizeof(answer->text), "%s", reply->str);
	else if (outcome == REDIS_REPLY)
		snprintf(answer->text, sizeof(answer->text), "%lld", reply->integer);
	else
		snprintf(answer->text, sizeof(answer->text), "%s", why);
}

static int send_words(unsigned n, const char *first, const char *second)
{
	const char *argv[] = {first, second};
	const size_t lens[] = {strlen(first), second ? strlen(second) : 0};

	return redis_link_send(link_, on_answer, &answers[n], second ? 2 : 1, argv, lens) ? 0 : -1;
}

static void sent(unsigned n, const char *first, const char *second)
{
	ck_assert_int_eq(send_words(n, first, second), 0);
	ck_assert_uint_eq(answers[n].called, 0);
}

static void expect(unsigned n, enum redis_outcome outcome, const char *text)
{
	ck_assert_uint_eq(answers[n].called, 1);
	ck_assert_int_eq(answers[n].outcome, outcome);
	ck_assert_msg(strstr(answers[n].text, text) != NULL, "%s", answers[n].text);
}

static bool ready(void)
{
	return redis_link_ready(link_);
}

/* Checks that the link fails for this reason and comes up when the server behaves again. */
static void fails_with(const char *reason)
{
	WAIT_FOR(strstr(redis_link_reason(link_), reason));
	ck_assert(!ready());
	ck_assert_uint_eq(ups, 0);
	ck_assert_int_eq(send_words(0, "GET", "x"), -1);
	ck_assert_msg(strstr(lines, reason) != NULL, "%s", lines);
	ck_assert_msg(strstr(lines, "s3cret") == NULL, "%s", lines);
	ck_assert_msg(strstr(redis_link_reason(link_), "s3cret") == NULL, "%s",
		      redis_link_reason(link_));
	fake_redis_normal(fake);
	WAIT_FOR(ready());
	ck_assert_uint_eq(answers[0].called, 0);
}

/* --- with a real server --- */

START_TEST(real_server)
{
	char text[64];

	redis_server_start(&server, NULL);
	link_to(server.store);
	ck_assert(!ready());
	ck_assert_int_eq(send_words(0, "PING", NULL), -1);
	WAIT_FOR(ready());
	ck_assert_uint_eq(ups, 1);
	ck_assert_uint_eq(metrics->redis_connects, 1);
	ck_assert_str_eq(redis_link_reason(link_), "");
	/* The output of sha1sum for the script. */
	ck_assert_str_eq(redis_link_sha(link_), "e0e1f9fabfc9d4800c877a703b823ac0578ff8db");
	snprintf(text, sizeof(text), " at 127.0.0.1:%d", server.port);
	ck_assert_ptr_nonnull(strstr(redis_link_server(link_), text));
	ck_assert(strncmp(redis_link_server(link_), "redis ", 6) == 0 ||
		  strncmp(redis_link_server(link_), "valkey ", 7) == 0);
	ck_assert(llabs(clock_offset_ms()) < 50);
	ck_assert(!redis_link_cluster(link_));
	for (unsigned n = 0; n < 20; n++)
		sent(n, n == 5 ? "NONSENSE" : "INCR", "x");
	WAIT_FOR(answered == 20);
	for (unsigned n = 0; n < 20; n++)
		ck_assert_uint_eq(answers[n].order, n + 1);
	expect(0, REDIS_REPLY, "1");
	expect(5, REDIS_REPLY, "ERR unknown command");
	expect(19, REDIS_REPLY, "19");
}
END_TEST

START_TEST(real_server_comes_and_goes)
{
	redis_server_start(&server, NULL);
	link_to(server.store);
	WAIT_FOR(ready());
	for (unsigned n = 1; n <= 3; n++) {
		redis_server_kill(&server);
		WAIT_FOR(!ready());
		ck_assert_uint_eq(downs, n);
		WAIT_FOR(strstr(redis_link_reason(link_), "Connection refused"));
		redis_server_restart(&server, NULL);
		WAIT_FOR(ready());
	}
	ck_assert_uint_eq(ups, 4);
	ck_assert_uint_eq(metrics->redis_disconnects, 3);
}
END_TEST

START_TEST(real_server_frozen)
{
	redis_server_start(&server, NULL);
	link_to(server.store);
	WAIT_FOR(ready());
	kill(server.pid, SIGSTOP);
	sent(0, "SET", "x y");
	sent(1, "PING", NULL);
	WAIT_FOR(redis_link_state(link_) == LINK_SUSPECT);
	kill(server.pid, SIGCONT);
	WAIT_FOR(ready());
	expect(0, REDIS_REPLY, "ERR wrong number");
	expect(1, REDIS_REPLY, "PONG");
	ck_assert_uint_eq(metrics->redis_connects, 1);
}
END_TEST

START_TEST(real_password)
{
	const char *arguments[] = {"--requirepass", "s3cret %/", NULL};
	char url[128];

	redis_server_start(&server, arguments);
	link_to(server.store);
	WAIT_FOR(strstr(redis_link_reason(link_), "asks for a password"));
	redis_link_free(link_);
	snprintf(url, sizeof(url), "redis://:s3cret2@127.0.0.1:%d", server.port);
	link_to(url);
	WAIT_FOR(strstr(redis_link_reason(link_), "refuses the user or the password"));
	redis_link_free(link_);
	snprintf(url, sizeof(url), "redis://:s3cret%%20%%25%%2F@127.0.0.1:%d/3", server.port);
	link_to(url);
	WAIT_FOR(ready());
	sent(0, "CLIENT", "INFO");
	WAIT_FOR(answered == 1);
	expect(0, REDIS_REPLY, "name=breakerd");
	ck_assert_ptr_null(strstr(lines, "s3cret"));
}
END_TEST

START_TEST(real_unix_socket)
{
	char url[256];

	redis_server_start(&server, NULL);
	snprintf(url, sizeof(url), "redis+unix://%s/sock?db=2", server.dir);
	link_to(url);
	WAIT_FOR(ready());
	sent(0, "PING", NULL);
	WAIT_FOR(answered == 1);
	expect(0, REDIS_REPLY, "PONG");
	redis_server_kill(&server);
	WAIT_FOR(strstr(redis_link_reason(link_), "cannot connect to /"));
}
END_TEST

/* --- handshakes that fail --- */

struct refusal {
	const char *userinfo, *path;
	const char *command; /* whose reply `answer` is; NULL: `answer` comes unasked */
	const char *answer;
	enum fake_then then;
	const char *reason;
};

static const struct refusal refusals[] = {
	{"", "", NULL, "", FAKE_CLOSE, "closed the connection"},
	{"", "", NULL, "-ERR max number of clients reached\r\n", FAKE_CLOSE, "limit of clients"},
	{":s3cret@", "", NULL, "-ERR max number of clients reached\r\n", FAKE_CLOSE,
	 "limit of clients"},
	{"", "", NULL, "-DENIED Redis is running in protected mode\r\n", FAKE_CLOSE,
	 "protected mode"},
	{"", "", NULL, "HTTP/1.1 400 Bad Request\r\n\r\n", FAKE_STAY, "does not speak"},
	{"", "", NULL, "\0", FAKE_STAY, "says nothing"},
	{"", "", NULL, "*2147483647\r\n", FAKE_STAY, "larger answer"},
	{"", "", NULL, "$99999999999999999999\r\n", FAKE_STAY, "does not speak"},
	{":s3cret@", "", "AUTH", "-WRONGPASS invalid username-password pair\r\n", FAKE_STAY,
	 "refuses the user or the password"},
	{":s3cret@", "", "AUTH",
	 "-ERR unknown command `AUTH`, with args beginning with: `s3cret`, \r\n", FAKE_STAY,
	 "refuses AUTH (ERR)"},
	{":s3cret@", "", "AUTH",
	 "-ERR AUTH <password> called without any password configured for the default user. "
	 "Are you sure your configuration is correct?\r\n",
	 FAKE_STAY, "the server has none"},
	{"", "", "ROLE", "-NOAUTH Authentication required.\r\n", FAKE_STAY, "asks for a password"},
	{"", "/3", "SELECT", "-ERR DB index is out of range\r\n", FAKE_STAY,
	 "refuses the database (ERR DB index is out of range)"},
	{"", "", "ROLE", "*5\r\n$5\r\nslave\r\n$9\r\n127.0.0.1\r\n:1\r\n$4\r\nsync\r\n:-1\r\n",
	 FAKE_STAY, "is a replica of 127.0.0.1"},
	{"", "", "ROLE", "*2\r\n$8\r\nsentinel\r\n*0\r\n", FAKE_STAY, "is a sentinel"},
	{"", "", "ROLE", "+OK\r\n", FAKE_STAY, "does not say that it is a master"},
	{"", "", "ROLE", "*0\r\n", FAKE_STAY, "does not say that it is a master"},
	{"", "", "ROLE", "*1\r\n*-1\r\n", FAKE_STAY, "does not say that it is a master"},
	{"", "", "ROLE", "-BUSY Redis is busy running a script.\r\n", FAKE_STAY, "busy"},
	{"", "", "INFO", "$22\r\nredis_version:6.0.16\r\n\r\n", FAKE_STAY, "Redis 6.2 or later"},
	{"", "", "PING", "-MISCONF Redis is configured to save RDB snapshots\r\n", FAKE_STAY,
	 "cannot save its data"},
	{"", "", "SCRIPT", "-LOADING Redis is loading the dataset in memory\r\n", FAKE_STAY,
	 "loading"},
	{"", "", "SCRIPT", "-MASTERDOWN Link with MASTER is down\r\n", FAKE_STAY,
	 "lost its master"},
	{"", "", "SCRIPT", "+OK\r\n", FAKE_STAY, "SCRIPT LOAD"},
	{"", "", "SCRIPT", NULL, FAKE_HOLD, "says nothing"},
	{"", "", "INFO", "$22\r\nredis_", FAKE_CLOSE, "closed the connection"},
	{"", "", "INFO", "$999\r\nredis_version:7.0.15\r\n\r\n", FAKE_DRIP, "says nothing"},
};

START_TEST(refused_handshake)
{
	const struct refusal *r = &refusals[_i];

	fake = fake_redis_new(base);
	if (r->command)
		fake_redis_on(fake, r->command, r->answer, r->then);
	else
		fake_redis_greet(fake, r->answer, r->then == FAKE_CLOSE);
	if (strcmp(r->reason, "says nothing") == 0 && !r->command)
		fake_redis_silence(fake, true);
	link_to_fake(r->userinfo, r->path);
	fails_with(r->reason);
}
END_TEST

/* The link comes up though the server forbids the commands that it can do without. */
START_TEST(tolerant_handshake)
{
	fake = fake_redis_new(base);
	fake_redis_on(fake, "CLIENT", "-NOPERM no\r\n", FAKE_STAY);
	fake_redis_on(fake, "ROLE", "-NOPERM no\r\n", FAKE_STAY);
	fake_redis_on(fake, "INFO", "-NOPERM no\r\n", FAKE_STAY);
	fake_redis_on(fake, "PING", "-NOPERM no\r\n", FAKE_STAY);
	fake_redis_on(fake, "TIME", "-NOPERM no\r\n", FAKE_STAY);
	link_to_fake("", "");
	WAIT_FOR(ready());
	ck_assert_int_eq(clock_offset_ms(), 0);
	ck_assert_str_eq(redis_link_sha(link_), FAKE_SHA);
}
END_TEST

/* One that is none, or that no stamp can have, is not measured. */
START_TEST(strange_clock)
{
	static const char *const times[] = {
		"+OK\r\n",
		"*0\r\n",
		"*2\r\n:4000000000\r\n:0\r\n",
		"*2\r\n$-1\r\n$-1\r\n",
		"*2\r\n$0\r\n\r\n$1\r\n0\r\n",
		"*2\r\n$2\r\n-1\r\n$1\r\n0\r\n",
		"*2\r\n$1\r\n1\r\n$7\r\n1000000\r\n",
		"*2\r\n$13\r\n1000000000000\r\n$1\r\n0\r\n",
		"*2\r\n$19\r\n9223372036854775807\r\n$1\r\n0\r\n",
	};

	fake = fake_redis_new(base);
	for (size_t i = 0; i < sizeof(times) / sizeof(times[0]); i++) {
		fake_redis_on(fake, "TIME", times[i], FAKE_STAY);
		link_to_fake("", "");
		WAIT_FOR(ready());
		ck_assert_int_eq(clock_offset_ms(), 0);
		redis_link_free(link_);
	}
	fake_redis_on(fake, "TIME", "*2\r\n$12\r\n999999999999\r\n$6\r\n999999\r\n", FAKE_STAY);
	link_to_fake("", "");
	WAIT_FOR(ready());
	ck_assert_int_gt(clock_offset_ms(), INT64_C(990000000000000));
}
END_TEST

/* SCRIPT LOAD is forbidden, or a proxy does not know it: without a hash the script is sent with
 * EVAL. */
START_TEST(script_load_refused)
{
	static const char *const words[] = {
		"-NOPERM this user has no permissions to run the 'script|load' command\r\n",
		"-ERR unknown command `SCRIPT`, with args beginning with: `LOAD`\r\n",
	};

	fake = fake_redis_new(base);
	fake_redis_on(fake, "SCRIPT", words[_i], FAKE_STAY);
	link_to_fake("", "");
	WAIT_FOR(ready());
	ck_assert_str_eq(redis_link_sha(link_), "");
}
END_TEST

START_TEST(handshake_order)
{
	link_to_fake("us%20er:p%40ss@", "/5");
	WAIT_FOR(ready());
	ck_assert_str_eq(
		fake_redis_heard(fake),
		"AUTH us er p@ss|SELECT 5|CLIENT SETNAME breakerd|CLIENT ID|ROLE|INFO server|"
		"PING|SCRIPT LOAD return 1|TIME|");
	ck_assert_ptr_null(strstr(lines, "p@ss"));
}
END_TEST

START_TEST(slow_handshake)
{
	fake = fake_redis_new(base);
	options.handshake_timeout_ms = 5000;
	fake_redis_on(fake, "CLIENT", "+OK\r\n", FAKE_DRIP);
	link_to_fake("", "");
	WAIT_FOR(ready());
	sent(0, "GET", "x");
	WAIT_FOR(answered == 1);
	expect(0, REDIS_REPLY, "OK");
}
END_TEST

START_TEST(what_the_server_is)
{
	char text[128];

	fake = fake_redis_new(base);
	fake_redis_on(fake, "INFO",
		      "$83\r\nredis_version:7.2.4\r\nserver_name:valkey\r\n"
		      "valkey_version:8.0.1\r\nredis_mode:cluster\r\n\r\n",
		      FAKE_STAY);
	link_to_fake("", "");
	WAIT_FOR(ready());
	snprintf(text, sizeof(text), "valkey 8.0.1 at 127.0.0.1:%d", fake_redis_port(fake));
	ck_assert_str_eq(redis_link_server(link_), text);
	ck_assert(redis_link_cluster(link_));
}
END_TEST

/* The fake's TIME is 4000000000.5 s. */
START_TEST(clock_offset)
{
	struct timespec t;
	long long want;

	link_to_fake("", "");
	WAIT_FOR(ready());
	clock_gettime(CLOCK_REALTIME, &t);
	want = 4000000000500 - ((long long)t.tv_sec * 1000 + t.tv_nsec / 1000000);
	ck_assert_msg(llabs(clock_offset_ms() - want) < 50, "%lld", (long long)clock_offset_ms());
}
END_TEST

/* The server may have read its clock at any time between command and reply, so half the round trip
 * is the error. */
START_TEST(clock_error)
{
	int64_t began;
	int64_t error_ms;

	options.handshake_timeout_ms = 5000;
	fake = fake_redis_new(base);
	fake_redis_on(fake, "TIME", "*2\r\n$10\r\n4000000000\r\n$6\r\n500000\r\n", FAKE_HOLD);
	link_to_fake("", "");
	WAIT_FOR(strstr(fake_redis_heard(fake), "TIME"));
	began = clock_ms();
	WAIT_FOR(clock_ms() - began >= 100);
	fake_redis_release(fake);
	WAIT_FOR(ready());
	redis_link_clock_offset_ms(link_, &error_ms);
	ck_assert_int_ge(error_ms, 50);
	ck_assert_int_le(error_ms, options.handshake_timeout_ms / 2 + 1);
}
END_TEST

/* The server's clock is set a minute ahead, while the link is up. */
START_TEST(a_clock_that_is_set)
{
	int64_t before;

	fake = fake_redis_new(base);
	link_to_fake("", "");
	WAIT_FOR(ready());
	before = clock_offset_ms();
	fake_redis_on(fake, "TIME", "*2\r\n$10\r\n4000000060\r\n$6\r\n500000\r\n", FAKE_STAY);
	WAIT_FOR((redis_link_measure_clock(link_), clock_offset_ms() != before));
	/* The fake's clock stands still while ours goes on. */
	ck_assert_int_le(clock_offset_ms() - before, 60000);
	ck_assert_int_ge(clock_offset_ms() - before, 60000 - PATIENCE_MS);
	/* Once in the handshake, and once since. */
	ck_assert_uint_eq(count(fake_redis_heard(fake), "TIME|"), 2);
}
END_TEST

/* --- a connection that goes wrong later --- */

static void lost_and_back(void)
{
	WAIT_FOR(downs == 1);
	fake_redis_normal(fake);
	WAIT_FOR(ready());
	ck_assert_uint_eq(metrics->redis_connects, 2);
	ck_assert_uint_eq(metrics->redis_disconnects, 1);
}

static const char *const unasked[] = {
	"+hello\r\n",
	"$5\r\nhello\r\n",
	":1\r\n+OK\r\n",
	"*3\r\n$7\r\nmessage\r\n$1\r\na\r\n$1\r\nb\r\n",
	">2\r\n$10\r\ninvalidate\r\n*1\r\n$1\r\nk\r\n",
	"-ERR something\r\n",
	"garbage\r\n",
};

START_TEST(unasked_while_idle)
{
	link_to_fake("", "");
	WAIT_FOR(ready());
	fake_redis_say(fake, unasked[_i]);
	lost_and_back();
}
END_TEST

START_TEST(unasked_behind_an_answer)
{
	char bytes[128];

	snprintf(bytes, sizeof(bytes), "+wanted\r\n%s", unasked[_i]);
	link_to_fake("", "");
	WAIT_FOR(ready());
	fake_redis_on(fake, "GET", bytes, FAKE_STAY);
	sent(0, "GET", "x");
	WAIT_FOR(answered == 1);
	expect(0, REDIS_REPLY, "wanted");
	lost_and_back();
}
END_TEST

static const struct broken {
	const char *bytes;
	enum fake_then then;
	const char *why;
} brokens[] = {
	{"$10\r\nabc", FAKE_CLOSE, "closed the connection"},
	{"", FAKE_CLOSE, "closed the connection"},
	{"garbage", FAKE_STAY, "does not speak"},
	{"*2147483647\r\n", FAKE_STAY, "larger answer"},
	{"*70000\r\n", FAKE_STAY, "larger answer"},
	{"*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n", FAKE_STAY,
	 "larger answer"},
	{"$10\r\nabc", FAKE_STAY, "stopped answering"},
	{NULL, FAKE_STAY, "stopped answering"},
};

START_TEST(broken_answer)
{
	const struct broken *b = &brokens[_i];

	link_to_fake("", "");
	WAIT_FOR(ready());
	fake_redis_on(fake, "GET", b->bytes, b->then);
	fake_redis_on(fake, "SET", "+OK\r\n", FAKE_HOLD);
	sent(0, "PING", NULL);
	sent(1, "GET", "x");
	sent(2, "SET", "x");
	WAIT_FOR(answered == 3);
	expect(0, REDIS_REPLY, "PONG");
	expect(1, REDIS_LOST, b->why);
	expect(2, REDIS_LOST, b->why);
	fake_redis_normal(fake);
	WAIT_FOR(ready());
	sent(3, "PING", NULL);
	WAIT_FOR(answered == 4);
	expect(3, REDIS_REPLY, "PONG");
}
END_TEST

START_TEST(answer_in_drops)
{
	options.command_timeout_ms = 5000;
	link_to_fake("", "");
	WAIT_FOR(ready());
	fake_redis_on(fake, "GET", "$11\r\nhello\r\nyou!\r\n", FAKE_DRIP);
	sent(0, "GET", "x");
	sent(1, "GET", "y");
	WAIT_FOR(answered == 2);
	expect(1, REDIS_REPLY, "hello\r\nyou!");
	ck_assert_uint_eq(downs, 0);
}
END_TEST

/* --- errors of the whole server, and of one operation --- */

static const char *const of_the_link[] = {
	"-READONLY You can't write against a read only replica.\r\n",
	"-LOADING Redis is loading the dataset in memory\r\n",
	"-MASTERDOWN Link with MASTER is down\r\n",
	"-NOAUTH Authentication required.\r\n",
	"-CLUSTERDOWN The cluster is down\r\n",
	"-BUSY Redis is busy running a script.\r\n",
	"-MISCONF Redis is configured to save RDB snapshots\r\n",
	"-NOREPLICAS Not enough good replicas to write.\r\n",
};

START_TEST(error_of_the_link)
{
	link_to_fake("", "");
	WAIT_FOR(ready());
	fake_redis_on(fake, "SET", of_the_link[_i], FAKE_STAY);
	/* The link goes down at the first of these errors. The second reply, which came with it, is
	 * a refusal too, not a lost answer. */
	sent(0, "SET", "x");
	sent(1, "SET", "y");
	WAIT_FOR(answered == 2);
	expect(0, REDIS_REFUSED, "the ");
	expect(1, REDIS_REFUSED, "the ");
	ck_assert_ptr_nonnull(strstr(lines, answers[0].text));
	lost_and_back();
}
END_TEST

static const char *const of_the_operation[] = {
	"-OOM command not allowed when used memory > 'maxmemory'.\r\n",
	"-WRONGTYPE Operation against a key holding the wrong kind of value\r\n",
	"-NOPERM this user has no permissions\r\n",
	"-NOSCRIPT No matching script. Please use EVAL.\r\n",
	"-MOVED 3999 127.0.0.1:6381\r\n",
	"-EXECABORT Transaction discarded\r\n",
	"-BUSYKEY Target key name already exists.\r\n",
	"-ERR READONLY\r\n",
	"-\r\n",
	"*2\r\n-READONLY no\r\n+OK\r\n",
};

START_TEST(error_of_the_operation)
{
	link_to_fake("", "");
	WAIT_FOR(ready());
	fake_redis_on(fake, "SET", of_the_operation[_i], FAKE_STAY);
	sent(0, "SET", "x");
	sent(1, "PING", NULL);
	WAIT_FOR(answered == 2);
	ck_assert_int_eq(answers[0].outcome, REDIS_REPLY);
	expect(1, REDIS_REPLY, "PONG");
	ck_assert(ready());
}
END_TEST

START_TEST(busy_while_the_server_has_commands)
{
	link_to_fake("", "");
	WAIT_FOR(ready());
	ck_assert(!redis_link_busy(link_));
	sent(0, "GET", "x");
	ck_assert(!redis_link_busy(link_)); /* the command is not written before the next turn */
	redis_link_flush(link_);
	ck_assert(redis_link_busy(link_));
	sent(1, "GET", "y");
	ck_assert(redis_link_busy(link_));
	WAIT_FOR(answered == 2);
	ck_assert(!redis_link_busy(link_));
}
END_TEST

/* --- silence --- */

#define LATE_MS 250

START_TEST(late_answers_go_to_their_own)
{
	options.command_timeout_ms = 1000;
	link_to_fake("", "");
	WAIT_FOR(ready());
	fake_redis_on(fake, "GET", "+one\r\n", FAKE_HOLD);
	fake_redis_on(fake, "SET", "+two\r\n", FAKE_STAY);
	sent(0, "GET", "x");
	sent(1, "SET", "x");
	redis_link_missed(link_, true, LATE_MS);
	redis_link_missed(link_, true, LATE_MS);
	ck_assert(ready());
	redis_link_missed(link_, true, LATE_MS);
	ck_assert_int_eq(redis_link_state(link_), LINK_SUSPECT);
	ck_assert_uint_eq(downs, 1);
	ck_assert_int_eq(send_words(2, "SET", "y"), -1);
	ck_assert_ptr_nonnull(strstr(lines, "redis_suspect"));
	WAIT_FOR(strstr(fake_redis_heard(fake), "SET x|PING|"));
	ck_assert_uint_eq(answered, 0);
	fake_redis_release(fake);
	WAIT_FOR(ready());
	expect(0, REDIS_REPLY, "one");
	expect(1, REDIS_REPLY, "two");
	ck_assert_uint_eq(fake_redis_accepted(fake), 1);
	ck_assert_uint_eq(metrics->redis_disconnects, 0);
	sent(2, "PING", NULL);
	WAIT_FOR(answered == 3);
	expect(2, REDIS_REPLY, "PONG");
}
END_TEST

/* The deadline of an operation that was never sent counts only while the server is silent: the
 * operation waits for our own operations before it. */
START_TEST(what_was_never_sent_counts_in_a_silence_alone)
{
	link_to_fake("", "");
	WAIT_FOR(ready());
	for (unsigned n = 0; n < 10; n++)
		redis_link_missed(link_, false, LATE_MS);
	fake_redis_on(fake, "GET", "+one\r\n", FAKE_HOLD);
	sent(0, "GET", "x");
	for (unsigned n = 0; n < 10; n++)
		redis_link_missed(link_, false, 60000);
	ck_assert(ready());
	for (unsigned n = 0; n < 3; n++)
		redis_link_missed(link_, false, 0);
	ck_assert_int_eq(redis_link_state(link_), LINK_SUSPECT);
	fake_redis_release(fake);
	WAIT_FOR(ready());
}
END_TEST

START_TEST(an_answer_ends_the_row)
{
	link_to_fake("", "");
	WAIT_FOR(ready());
	redis_link_missed(link_, true, LATE_MS);
	redis_link_missed(link_, true, LATE_MS);
	sent(0, "PING", NULL);
	WAIT_FOR(answered == 1);
	redis_link_missed(link_, true, LATE_MS);
	redis_link_missed(link_, true, LATE_MS);
	ck_assert(ready());
	redis_link_missed(link_, true, LATE_MS);
	ck_assert(!ready());
	/* The server answers the PING, and the link is ready again. */
	WAIT_FOR(ready());
}
END_TEST

START_TEST(watchdog)
{
	int64_t began;

	link_to_fake("", "");
	WAIT_FOR(ready());
	fake_redis_on(fake, "GET", NULL, FAKE_HOLD);
	began = clock_ms();
	sent(0, "GET", "x");
	WAIT_FOR(redis_link_state(link_) == LINK_SUSPECT);
	ck_assert(clock_ms() - began >= 95);
	ck_assert_uint_eq(answered, 0);
	WAIT_FOR(answered == 1);
	ck_assert(clock_ms() - began >= 490);
	expect(0, REDIS_LOST, "stopped answering");
	lost_and_back();
}
END_TEST

/* While replies come in time, commands that wait are no reason to suspect the server. */
START_TEST(watchdog_looks_at_answers)
{
	int64_t began = clock_ms();
	unsigned n = 0;

	options.command_timeout_ms = 500;
	link_to_fake("", "");
	WAIT_FOR(ready());
	fake_redis_on(fake, "GET", "+a\r\n", FAKE_DRIP);
	while (clock_ms() - began < 2000) {
		if (n < answered + 3 && n < ANSWERS_MAX)
			sent(n++, "GET", "x");
		wait_turn(base);
	}
	ck_assert(ready());
	ck_assert_uint_eq(downs, 0);
}
END_TEST

/* --- the end --- */

static void on_answer_send_more(void *arg, enum redis_outcome outcome, const redisReply *reply,
				const char *why)
{
	on_answer(arg, outcome, reply, why);
	ck_assert_int_eq(send_words(9, "PING", NULL), -1);
}

START_TEST(freed_with_commands_in_flight)
{
	const char *argv[] = {"GET", "x"};
	const size_t lens[] = {3, 1};

	link_to_fake("", "");
	WAIT_FOR(ready());
	for (unsigned n = 0; n < 3; n++)
		ck_assert_ptr_nonnull(
			redis_link_send(link_, on_answer_send_more, &answers[n], 2, argv, lens));
	redis_link_free(link_);
	link_ = NULL;
	ck_assert_uint_eq(answered, 3);
	for (unsigned n = 0; n < 3; n++) {
		expect(n, REDIS_LOST, "stopping");
		ck_assert_uint_eq(answers[n].order, n + 1);
	}
	ck_assert_uint_eq(downs, 0);
}
END_TEST

/* Frees the link in each of its states; sanitizers find what goes wrong. */
START_TEST(freed_at_any_time)
{
	for (unsigned turns = 0; turns < 30; turns++) {
		link_to_fake(":s3cret@", "");
		if (turns % 3 == 2)
			fake_redis_greet(fake, "garbage\r\n", true);
		for (unsigned n = 0; n < turns; n++)
			event_base_loop(base, EVLOOP_NONBLOCK);
		redis_link_free(link_);
		link_ = NULL;
		fake_redis_normal(fake);
	}
}
END_TEST

START_TEST(fresh_link)
{
	link_to_fake("", "");
	ck_assert(!ready());
	ck_assert_str_ne(redis_link_reason(link_), "");
	ck_assert_str_eq(redis_link_sha(link_), "");
	ck_assert_ptr_nonnull(strstr(redis_link_server(link_), "redis://127.0.0.1:"));
	ck_assert(redis_link_since_ms(link_) > 1600000000000);
	ck_assert_uint_eq(fake_redis_accepted(fake), 0);
}
END_TEST

/* --- coming back --- */

static unsigned open_descriptors(void)
{
	DIR *dir = opendir("/proc/self/fd");
	unsigned n = 0;

	while (readdir(dir))
		n++;
	closedir(dir);
	return n;
}

static long resident_pages(void)
{
	FILE *file = fopen("/proc/self/statm", "r");
	long size, resident = 0;

	ck_assert_int_eq(fscanf(file, "%ld %ld", &size, &resident), 2);
	fclose(file);
	return resident;
}

/* Each time with a command in flight; the connection is ended by us and by the server in turn. */
START_TEST(a_thousand_reconnects)
{
	unsigned descriptors = 0;
	long pages = 0;

	options.backoff_max_ms = 1;
	link_to_fake(":s3cret@", "/1");
	for (unsigned n = 0; n < 1100; n++) {
		WAIT_FOR(ready());
		if (n == 100) {
			descriptors = open_descriptors();
			pages = resident_pages();
		}
		answered = 0;
		answers[0].called = 0;
		sent(0, "GET", "x");
		if (n % 2 == 0)
			fake_redis_say(fake, "+hello\r\n+you\r\n");
		else
			fake_redis_close_all(fake);
		WAIT_FOR(downs == n + 1 && answers[0].called == 1);
	}
	WAIT_FOR(ready());
	ck_assert_uint_le(open_descriptors(), descriptors);
	/* Sanitizers keep freed memory for a while. */
#if !defined(__SANITIZE_ADDRESS__)
	ck_assert_msg(resident_pages() - pages < 64, "%ld pages more", resident_pages() - pages);
#endif
	(void)pages;
	/* So many changes in so short a time are not all logged. */
	ck_assert_uint_lt(count(lines, "\n"), 20);
}
END_TEST

/* A server that closes each connection at once: the pauses double, and the log has a few lines. */
START_TEST(backoff)
{
	int64_t began = clock_ms();

	options.backoff_min_ms = 10;
	options.backoff_max_ms = 100;
	fake = fake_redis_new(base);
	fake_redis_greet(fake, "", true);
	link_to_fake("", "");
	WAIT_FOR(clock_ms() - began >= 1500);
	/* Pauses of 50 ms on average, after some shorter ones: about thirty connections. */
	ck_assert_uint_ge(fake_redis_accepted(fake), 12);
	ck_assert_uint_le(fake_redis_accepted(fake), 80);
	ck_assert_uint_le(count(lines, "\n"), 3);
	ck_assert_uint_ge(count(lines, "redis_away"), 1);
}
END_TEST

/* A server that closes each connection after the handshake: a link that was ready only for a moment
 * does not start again with the shortest pause. */
START_TEST(backoff_of_a_flapping_server)
{
	int64_t began = clock_ms();

	options.backoff_min_ms = 10;
	options.backoff_max_ms = 400;
	fake = fake_redis_new(base);
	fake_redis_on(fake, "TIME", "*2\r\n$10\r\n4000000000\r\n$6\r\n500000\r\n", FAKE_CLOSE);
	link_to_fake("", "");
	WAIT_FOR(clock_ms() - began >= 2000);
	ck_assert_uint_ge(ups, 3);
	ck_assert_uint_le(fake_redis_accepted(fake), 40);
	ck_assert_uint_le(count(lines, "\n"), 8);
}
END_TEST

/* --- names --- */

START_TEST(localhost)
{
	char url[64];

	fake = fake_redis_new(base);
	snprintf(url, sizeof(url), "redis://LocalHost:%d", fake_redis_port(fake));
	link_to(url);
	WAIT_FOR(ready());
}
END_TEST

START_TEST(the_other_address)
{
	char url[64];
	int ipv4;

	fake = fake_redis_new_on_ipv6(base, &ipv4);
	if (!fake)
		return;
	options.backoff_min_ms = options.backoff_max_ms = 60000;
	snprintf(url, sizeof(url), "redis://localhost:%d", fake_redis_port(fake));
	link_to(url);
	WAIT_FOR(ready());
	ck_assert_ptr_nonnull(strstr(redis_link_server(link_), " at [::1]:"));
	close(ipv4);
}
END_TEST

START_TEST(no_such_name)
{
	options.connect_timeout_ms = 300;
	link_to("redis://breakerd-test.invalid");
	WAIT_FOR(strstr(redis_link_reason(link_), "address"));
	ck_assert(!ready());
	WAIT_FOR(redis_link_state(link_) == LINK_RESOLVING);
}
END_TEST

static void add_loop(Suite *s, const char *name, const TTest *test, size_t n)
{
	TCase *tcase = tcase_create(name);

	tcase_set_timeout(tcase, 60);
	tcase_add_checked_fixture(tcase, setup, teardown);
	tcase_add_loop_test(tcase, test, 0, (int)n);
	suite_add_tcase(s, tcase);
}

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

static Suite *suite(void)
{
	Suite *s = suite_create("redis_link");
	TCase *real = tcase_create("real");
	TCase *scripted = tcase_create("scripted");

	tcase_set_timeout(real, 60);
	tcase_add_checked_fixture(real, setup, teardown);
	tcase_add_test(real, real_server);
	tcase_add_test(real, real_server_comes_and_goes);
	tcase_add_test(real, real_server_frozen);
	tcase_add_test(real, real_password);
	tcase_add_test(real, real_unix_socket);
	suite_add_tcase(s, real);
	tcase_set_timeout(scripted, 60);
	tcase_add_checked_fixture(scripted, setup, teardown);
	tcase_add_test(scripted, tolerant_handshake);
	tcase_add_test(scripted, strange_clock);
	tcase_add_loop_test(scripted, script_load_refused, 0, 2);
	tcase_add_test(scripted, handshake_order);
	tcase_add_test(scripted, slow_handshake);
	tcase_add_test(scripted, what_the_server_is);
	tcase_add_test(scripted, clock_offset);
	tcase_add_test(scripted, clock_error);
	tcase_add_test(scripted, a_clock_that_is_set);
	tcase_add_test(scripted, answer_in_drops);
	tcase_add_test(scripted, busy_while_the_server_has_commands);
	tcase_add_test(scripted, late_answers_go_to_their_own);
	tcase_add_test(scripted, what_was_never_sent_counts_in_a_silence_alone);
	tcase_add_test(scripted, an_answer_ends_the_row);
	tcase_add_test(scripted, watchdog);
	tcase_add_test(scripted, watchdog_looks_at_answers);
	tcase_add_test(scripted, freed_with_commands_in_flight);
	tcase_add_test(scripted, freed_at_any_time);
	tcase_add_test(scripted, fresh_link);
	tcase_add_test(scripted, a_thousand_reconnects);
	tcase_add_test(scripted, backoff);
	tcase_add_test(scripted, backoff_of_a_flapping_server);
	tcase_add_test(scripted, localhost);
	tcase_add_test(scripted, the_other_address);
	tcase_add_test(scripted, no_such_name);
	suite_add_tcase(s, scripted);
	add_loop(s, "refused_handshake", refused_handshake, COUNT(refusals));
	add_loop(s, "unasked_while_idle", unasked_while_idle, COUNT(unasked));
	add_loop(s, "unasked_behind_an_answer", unasked_behind_an_answer, COUNT(unasked));
	add_loop(s, "broken_answer", broken_answer, COUNT(brokens));
	add_loop(s, "error_of_the_link", error_of_the_link, COUNT(of_the_link));
	add_loop(s, "error_of_the_operation", error_of_the_operation, COUNT(of_the_operation));
	return s;
}

int main(void)
{
	return suite_run(suite());
}
