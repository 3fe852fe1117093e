#include "redis/target.h"
#include "suite.h"

#include <check.h>
#include <stdio.h>
#include <string.h>

static struct redis_target parsed(const char *url)
{
	struct redis_target target;
	char why[256] = "";

	ck_assert_msg(redis_target_parse(url, &target, why, sizeof(why)), "%s: %s", url, why);
	return target;
}

static void refused(const char *url, const char *word)
{
	struct redis_target target;
	char why[256] = "";

	ck_assert_msg(!redis_target_parse(url, &target, why, sizeof(why)), "%s", url);
	ck_assert_msg(strstr(why, word) != NULL, "%s: %s", url, why);
	ck_assert_msg(strstr(why, "s3cret") == NULL, "%s: %s", url, why);
}

static void prints(const char *url, const char *want)
{
	struct redis_target target = parsed(url);
	char out[1024];

	redis_target_print(&target, out, sizeof(out));
	ck_assert_str_eq(out, want);
}

START_TEST(tcp)
{
	struct redis_target t = parsed("redis://host");

	ck_assert_int_eq(t.kind, REDIS_TCP);
	ck_assert_uint_eq(t.host_count, 1);
	ck_assert_str_eq(t.hosts[0].host, "host");
	ck_assert_uint_eq(t.hosts[0].port, 6379);
	ck_assert_uint_eq(t.db, 0);
	ck_assert_str_eq(t.user, "");
	ck_assert_str_eq(t.password, "");

	t = parsed("redis://bob:s3cret@redis.example.org:7000/12");
	ck_assert_str_eq(t.user, "bob");
	ck_assert_str_eq(t.password, "s3cret");
	ck_assert_str_eq(t.hosts[0].host, "redis.example.org");
	ck_assert_uint_eq(t.hosts[0].port, 7000);
	ck_assert_uint_eq(t.db, 12);

	t = parsed("REDIS://[::1]:6380/");
	ck_assert_str_eq(t.hosts[0].host, "::1");
	ck_assert_uint_eq(t.hosts[0].port, 6380);
	t = parsed("redis://[fe80::1%eth0]");
	ck_assert_str_eq(t.hosts[0].host, "fe80::1%eth0");
}
END_TEST

START_TEST(userinfo)
{
	struct redis_target t = parsed("redis://:s3cret@host");

	ck_assert_str_eq(t.user, "");
	ck_assert_str_eq(t.password, "s3cret");
	t = parsed("redis://bob@host");
	ck_assert_str_eq(t.user, "bob");
	ck_assert_str_eq(t.password, "");
	t = parsed("redis://b%6fb:p%40s%2Fs%3a%25@host");
	ck_assert_str_eq(t.user, "bob");
	ck_assert_str_eq(t.password, "p@s/s:%");
	t = parsed("redis://bob:p@ss:w@host");
	ck_assert_str_eq(t.password, "p@ss:w");
	ck_assert_str_eq(t.hosts[0].host, "host");
}
END_TEST

START_TEST(unix_socket)
{
	struct redis_target t = parsed("redis+unix:///run/redis%20one/redis.sock?db=3");

	ck_assert_int_eq(t.kind, REDIS_UNIX);
	ck_assert_str_eq(t.path, "/run/redis one/redis.sock");
	ck_assert_uint_eq(t.db, 3);
	ck_assert_uint_eq(t.host_count, 0);
}
END_TEST

START_TEST(sentinel)
{
	struct redis_target t = parsed("redis-sentinel://a,b:1,[::1]:26380/my%2Fmaster?db=2");

	ck_assert_int_eq(t.kind, REDIS_SENTINEL);
	ck_assert_uint_eq(t.host_count, 3);
	ck_assert_str_eq(t.hosts[0].host, "a");
	ck_assert_uint_eq(t.hosts[0].port, 26379);
	ck_assert_uint_eq(t.hosts[1].port, 1);
	ck_assert_str_eq(t.hosts[2].host, "::1");
	ck_assert_str_eq(t.master, "my/master");
	ck_assert_uint_eq(t.db, 2);
	t = parsed("redis-sentinel://u:s3cret@a/m");
	ck_assert_str_eq(t.user, "u");
	ck_assert_str_eq(t.password, "s3cret");
}
END_TEST

START_TEST(refusals)
{
	refused("", "redis://");
	refused("memcached://host", "redis://");
	refused("rediss://host", "TLS (rediss://) is not supported");
	refused("rediss-sentinel://host/master", "TLS (rediss-sentinel://) is not supported");
	refused("rediss-cluster://host", "TLS (rediss-cluster://) is not supported");
	refused("redis-cluster://host", "Redis Cluster (redis-cluster://) is not supported");
	refused("redis://", "host is missing");
	refused("redis://:6379", "host is missing");
	refused("redis://user:s3cret@", "host is missing");
	refused("redis://ho st", "neither a name nor an address");
	refused("redis://[host]", "neither a name nor an address");
	refused("redis://::1", "brackets");
	refused("redis://[::1", "brackets");
	refused("redis://[::1]6379", "port");
	refused("redis://host:", "port");
	refused("redis://host:0", "port");
	refused("redis://host:65536", "port");
	refused("redis://host:+1", "port");
	refused("redis://host/one", "database");
	refused("redis://host/-1", "database");
	refused("redis://host/2147483648", "database");
	refused("redis://host/1/2", "database");
	refused("redis://host?db=1", "redis://host:6379/1");
	refused("redis://:s3cret?@host", "%3F");
	refused("redis://:s3cret#@host", "%23");
	refused("redis://:s3cret%4@host", "percent-escape");
	refused("redis://:s3cret%zz@host", "percent-escape");
	refused("redis://:s3cret%00@host", "control character");
	refused("redis://:s3cret/@host", "%2F");
	refused("redis+unix://", "absolute");
	refused("redis+unix://run/redis.sock", "absolute");
	refused("redis+unix:///run/redis.sock?db=x", "database");
	refused("redis+unix:///run/redis.sock?dbx=1", "?db=");
	refused("redis-sentinel://a,b", "master's name");
	refused("redis-sentinel://a,/m", "host is missing");
	refused("redis-sentinel://a/m?db=", "database");
	refused("redis-sentinel://1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17/m", "sentinels");
}
END_TEST

START_TEST(too_long)
{
	char url[1024];

	snprintf(url, sizeof(url), "redis://%0300d", 0);
	refused(url, "longer than 255 bytes");
	snprintf(url, sizeof(url), "redis://:%0600d@host", 0);
	refused(url, "longer than 511 bytes");
	snprintf(url, sizeof(url), "redis+unix:///%0107d", 0);
	refused(url, "longer than 107 bytes");
}
END_TEST

START_TEST(print)
{
	struct redis_target target = parsed("redis://host");
	char out[8];

	prints("redis://host", "redis://host:6379/0");
	prints("redis://bob:s3cret@[::1]:1/2", "redis://bob@[::1]:1/2");
	prints("redis://:s3cret@host", "redis://host:6379/0");
	prints("redis://b%40b@host", "redis://b%40b@host:6379/0");
	prints("redis+unix:///a%20b/c", "redis+unix:///a%20b/c");
	prints("redis+unix:///a?db=1", "redis+unix:///a?db=1");
	prints("redis-sentinel://u:s3cret@a,b:1/m?db=4", "redis-sentinel://u@a:26379,b:1/m?db=4");
	redis_target_print(&target, out, sizeof(out));
	ck_assert_str_eq(out, "redis:/");
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("redis_target");
	TCase *tcase = tcase_create("all");

	tcase_add_test(tcase, tcp);
	tcase_add_test(tcase, userinfo);
	tcase_add_test(tcase, unix_socket);
	tcase_add_test(tcase, sentinel);
	tcase_add_test(tcase, refusals);
	tcase_add_test(tcase, too_long);
	tcase_add_test(tcase, print);
	suite_add_tcase(suite, tcase);
	return suite_run(suite);
}
