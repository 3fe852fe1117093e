#include "redis/lookup.h"
#include "suite.h"
#include "wait.h"

#include <arpa/inet.h>
#include <check.h>
#include <event2/dns.h>
#include <event2/dns_struct.h>
#include <event2/event.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#define PATIENCE_MS 5000
#define SERVERS     2

static struct event_base *base;
static struct evdns_server_port *servers[SERVERS];
static int sockets[SERVERS];
static unsigned asked[SERVERS];
static char hosts[64], resolv_conf[64];
static struct redis_lookup_files files;
static struct redis_lookup *lookup;
static unsigned called;
static unsigned patience_ms = 200;
static struct redis_addresses found;
static char why_not[400];

/* What the nameservers answer; a name that is not here does not exist. */
static const struct zone {
	const char *name;
	const char *four, *six; /* addresses; NULL: none; "": the question is not answered */
} zone[] = {
	{"both.test", "192.0.2.1", "2001:db8::1"},
	{"four.test", "192.0.2.2", NULL},
	{"six.test", NULL, "2001:db8::2"},
	{"none.test", NULL, NULL},
	{"lame.test", "192.0.2.3", ""},
	{"mute.test", "", ""},
	{"short.search.test", "192.0.2.4", NULL},
};

static const struct zone *zone_of(const char *name)
{
	for (size_t i = 0; i < sizeof(zone) / sizeof(zone[0]); i++)
		if (strcasecmp(zone[i].name, name) == 0)
			return &zone[i];
	return NULL;
}

static void on_question(struct evdns_server_request *request, void *arg)
{
	const struct evdns_server_question *question = request->questions[0];
	const struct zone *of = zone_of(question->name);
	bool four = question->type == EVDNS_TYPE_A;
	const char *text = !of ? NULL : four ? of->four : of->six;
	unsigned char address[16];

	asked[(size_t)arg]++;
	if (text && !*text) {
		evdns_server_request_drop(request);
		return;
	}
	if (text) {
		ck_assert_int_eq(inet_pton(four ? AF_INET : AF_INET6, text, address), 1);
		if (four)
			evdns_server_request_add_a_reply(request, question->name, 1, address, 1);
		else
			evdns_server_request_add_aaaa_reply(request, question->name, 1, address, 1);
	}
	evdns_server_request_respond(request, of ? 0 : DNS_ERR_NOTEXIST);
}

/* Starts nameserver n, which never answers if `mute`. Returns its port. */
static int nameserver(size_t n, bool mute)
{
	struct sockaddr_in in = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t len = sizeof(in);

	sockets[n] = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK, 0);
	ck_assert_int_eq(bind(sockets[n], (struct sockaddr *)&in, sizeof(in)), 0);
	getsockname(sockets[n], (struct sockaddr *)&in, &len);
	if (!mute)
		servers[n] = evdns_add_server_port_with_base(base, sockets[n], 0, on_question,
							     (void *)n);
	return ntohs(in.sin_port);
}

static void write_file(char *path, const char *text)
{
	int fd;

	strcpy(path, "/tmp/breakerd-test-XXXXXX");
	fd = mkstemp(path);
	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(write(fd, text, strlen(text)), (ssize_t)strlen(text));
	close(fd);
}

static void setup(void)
{
	base = event_base_new();
	write_file(hosts, "# comment\n"
			  "192.0.2.9\tfirst.test second.test # not.test\n"
			  "2001:db8::9 second.test\n"
			  "not-an-address third.test\n"
			  "192.0.2.8   SECOND.test");
}

static void teardown(void)
{
	redis_lookup_free(lookup);
	for (size_t n = 0; n < SERVERS; n++)
		if (servers[n])
			evdns_close_server_port(servers[n]);
	event_base_loop(base, EVLOOP_NONBLOCK);
	event_base_free(base);
	unlink(hosts);
	unlink(resolv_conf);
}

/* Configures one nameserver; if `mute_first`, after another that never answers. */
static void with_nameservers(bool mute_first)
{
	int first = nameserver(0, mute_first);
	char text[256];

	snprintf(text, sizeof(text), "search search.test\nnameserver 127.0.0.1:%d\n", first);
	if (mute_first)
		snprintf(text + strlen(text), sizeof(text) - strlen(text),
			 "nameserver 127.0.0.1:%d\n", nameserver(1, false));
	write_file(resolv_conf, text);
	files = (struct redis_lookup_files){.hosts = hosts, .resolv_conf = resolv_conf};
}

static void on_found(void *arg, const struct redis_addresses *addresses, const char *why)
{
	(void)arg;
	called++;
	ck_assert((addresses == NULL) != (why == NULL));
	if (addresses)
		found = *addresses;
	else
		snprintf(why_not, sizeof(why_not), "%s", why);
	/* The callback may free the lookup. */
	redis_lookup_free(lookup);
	lookup = NULL;
}

static void look_up(const char *host)
{
	memset(&found, 0, sizeof(found));
	why_not[0] = '\0';
	called = 0;
	lookup = redis_lookup_new(base, host, 6379, patience_ms, &files, on_found, NULL);
	ck_assert_ptr_nonnull(lookup);
	ck_assert_uint_eq(called, 0);
	WAIT_UNTIL(base, PATIENCE_MS, called, host);
	ck_assert_uint_eq(called, 1);
}

/* The addresses that were found, in their order. */
static const char *result(void)
{
	static char text[1024];
	char one[INET6_ADDRSTRLEN];

	text[0] = '\0';
	for (size_t i = 0; i < found.count; i++) {
		const struct sockaddr_in *in = (const void *)&found.at[i].sockaddr;
		const struct sockaddr_in6 *in6 = (const void *)&found.at[i].sockaddr;
		bool four = in->sin_family == AF_INET;

		ck_assert_uint_eq(ntohs(four ? in->sin_port : in6->sin6_port), 6379);
		ck_assert_uint_eq(found.at[i].len, four ? sizeof(*in) : sizeof(*in6));
		inet_ntop(in->sin_family, four ? (const void *)&in->sin_addr : &in6->sin6_addr, one,
			  sizeof(one));
		snprintf(text + strlen(text), sizeof(text) - strlen(text), "%s%s", i > 0 ? " " : "",
			 one);
	}
	return text;
}

static void finds(const char *host, const char *want)
{
	look_up(host);
	ck_assert_str_eq(result(), want);
}

static void fails(const char *host, const char *why)
{
	look_up(host);
	ck_assert_uint_eq(found.count, 0);
	ck_assert_msg(strstr(why_not, why) != NULL, "%s", why_not);
	ck_assert_ptr_nonnull(strstr(why_not, host));
}

START_TEST(without_asking)
{
	with_nameservers(false);
	finds("192.0.2.7", "192.0.2.7");
	finds("2001:db8::7", "2001:db8::7");
	finds("localhost", "127.0.0.1 ::1");
	finds("first.test", "192.0.2.9");
	finds("Second.Test", "192.0.2.9 2001:db8::9 192.0.2.8");
	ck_assert_uint_eq(asked[0], 0);
}
END_TEST

START_TEST(hosts_file_without_a_nameserver)
{
	write_file(resolv_conf, "");
	files = (struct redis_lookup_files){.hosts = hosts, .resolv_conf = resolv_conf};
	finds("first.test", "192.0.2.9");
	files = (struct redis_lookup_files){.hosts = "/nowhere", .resolv_conf = "/nowhere"};
	finds("localhost", "127.0.0.1 ::1");
}
END_TEST

START_TEST(by_asking)
{
	with_nameservers(false);
	look_up("both.test");
	ck_assert_uint_eq(found.count, 2);
	ck_assert_ptr_nonnull(strstr(result(), "192.0.2.1"));
	ck_assert_ptr_nonnull(strstr(result(), "2001:db8::1"));
	finds("four.test", "192.0.2.2");
	finds("six.test", "2001:db8::2");
	finds("short", "192.0.2.4");
	fails("none.test", "there is no such name");
	fails("missing.test", "there is no such name");
	fails("not.test", "there is no such name");
	fails("third.test", "there is no such name");
}
END_TEST

/* Each look-up asks again: there is no cache. */
START_TEST(each_time)
{
	unsigned before;

	with_nameservers(false);
	finds("four.test", "192.0.2.2");
	before = asked[0];
	finds("four.test", "192.0.2.2");
	ck_assert_uint_gt(asked[0], before);
}
END_TEST

START_TEST(one_family_is_enough)
{
	int64_t began = clock_ms();

	patience_ms = 2000;
	with_nameservers(false);
	finds("lame.test", "192.0.2.3");
	ck_assert(clock_ms() - began < 1000);
}
END_TEST

START_TEST(the_second_nameserver)
{
	int64_t began = clock_ms();

	with_nameservers(true);
	finds("four.test", "192.0.2.2");
	ck_assert(clock_ms() - began < 1500);
}
END_TEST

START_TEST(nobody_answers)
{
	with_nameservers(false);
	fails("mute.test", "no nameserver answers");
}
END_TEST

START_TEST(freed_while_asking)
{
	with_nameservers(false);
	called = 0;
	for (unsigned turns = 0; turns < 6; turns++) {
		lookup = redis_lookup_new(base, turns % 2 ? "both.test" : "mute.test", 1, 200,
					  &files, on_found, NULL);
		for (unsigned n = 0; n < turns; n++)
			event_base_loop(base, EVLOOP_NONBLOCK);
		if (lookup)
			redis_lookup_free(lookup);
		lookup = NULL;
	}
	for (unsigned n = 0; n < 20; n++)
		event_base_loop(base, EVLOOP_NONBLOCK);
	ck_assert_uint_le(called, 3);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("redis_lookup");
	TCase *tcase = tcase_create("all");

	tcase_set_timeout(tcase, 30);
	tcase_add_checked_fixture(tcase, setup, teardown);
	tcase_add_test(tcase, without_asking);
	tcase_add_test(tcase, hosts_file_without_a_nameserver);
	tcase_add_test(tcase, by_asking);
	tcase_add_test(tcase, each_time);
	tcase_add_test(tcase, one_family_is_enough);
	tcase_add_test(tcase, the_second_nameserver);
	tcase_add_test(tcase, nobody_answers);
	tcase_add_test(tcase, freed_while_asking);
	suite_add_tcase(suite, tcase);
	return suite_run(suite);
}
