#include "base/metrics.h"
#include "suite.h"

#include <check.h>
#include <event2/buffer.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static struct metrics *m;
static char *text;

/* Labels as the modules that own them would define them. */
enum { ROUTE_NONE, ROUTE_CIRCUIT, ROUTES };
enum { METHOD_GET, METHOD_OTHER, METHODS };
enum { OPERATION_READ, OPERATION_LIST, OPERATIONS };
enum { RESULT_OK, RESULT_TIMEOUT, RESULTS };

static const char *route_name(unsigned i)
{
	return ((const char *const[]){"none", "/v1/circuits/{key}"})[i];
}

static const char *method_name(unsigned i)
{
	return ((const char *const[]){"GET", "other"})[i];
}

static const char *operation_name(unsigned i)
{
	return ((const char *const[]){"read", "list"})[i];
}

static const char *result_name(unsigned i)
{
	return ((const char *const[]){"ok", "timeout"})[i];
}

static const char *state_name(unsigned i)
{
	return ((const char *const[]){"ready", "backoff"})[i];
}

static const char *reason_name(unsigned i)
{
	return ((const char *const[]){"lookup", "lost"})[i];
}

static void setup(void)
{
	m = calloc(1, sizeof(*m));
	ck_assert_ptr_nonnull(m);
	m->routes = (struct metrics_label){route_name, ROUTES};
	m->methods = (struct metrics_label){method_name, METHODS};
	m->operation_names = (struct metrics_label){operation_name, OPERATIONS};
	m->result_names = (struct metrics_label){result_name, RESULTS};
	text = NULL;
}

static void teardown(void)
{
	free(text);
	free(m);
}

static void scrape(void)
{
	struct evbuffer *out = evbuffer_new();
	size_t len;

	ck_assert_ptr_nonnull(out);
	ck_assert_int_eq(metrics_write(m, out), 0);
	len = evbuffer_get_length(out);
	free(text);
	text = malloc(len + 1);
	ck_assert_ptr_nonnull(text);
	evbuffer_copyout(out, text, len);
	text[len] = '\0';
	evbuffer_free(out);
}

/* The value of a series, given with its labels; -1 if it is not in the text. */
static double value(const char *series)
{
	size_t len = strlen(series);

	for (const char *p = text; (p = strstr(p, series)); p += len)
		if ((p == text || p[-1] == '\n') && p[len] == ' ')
			return strtod(p + len, NULL);
	return -1;
}

static unsigned count(const char *needle)
{
	unsigned n = 0;

	for (const char *p = text; (p = strstr(p, needle)); p++)
		n++;
	return n;
}

START_TEST(series_are_there_from_the_start)
{
	static const char *const zero[] = {
		"breakerd_store_operations_total{operation=\"read\",result=\"ok\"}",
		"breakerd_store_operations_total{operation=\"list\",result=\"timeout\"}",
		"breakerd_store_operation_duration_seconds_count{operation=\"list\"}",
		"breakerd_http_request_duration_seconds_count",
		"breakerd_store_up",
		"breakerd_store_degraded",
		"breakerd_circuits{state=\"closed\"}",
		"breakerd_circuits{state=\"open\"}",
		"breakerd_circuits{state=\"half-open\"}",
		"breakerd_transitions_total{from=\"open\",to=\"half-open\"}",
		"breakerd_corrupt_entries_total",
	};

	scrape();
	for (size_t i = 0; i < sizeof(zero) / sizeof(zero[0]); i++)
		ck_assert_msg(value(zero[i]) == 0, "%s", zero[i]);
	ck_assert_uint_eq(count("\nbreakerd_store_operations_total{"), OPERATIONS * RESULTS);
	ck_assert_uint_eq(count("\nbreakerd_transitions_total{"), CIRCUIT_STATES * CIRCUIT_STATES);
	/* A series of these appears only with its first request. */
	ck_assert_uint_eq(count("\nbreakerd_http_requests_total{"), 0);
	ck_assert_ptr_nonnull(strstr(text, "breakerd_build_info{version=\"" BREAKERD_VERSION "\""));
}
END_TEST

START_TEST(what_is_counted_is_shown)
{
	m->store_up = 1;
	m->circuits[CIRCUIT_OPEN] = 17;
	m->corrupt_entries = UINT64_C(9007199254740993);
	m->transitions[CIRCUIT_CLOSED][CIRCUIT_OPEN] = 3;
	metrics_operation(m, OPERATION_READ, RESULT_OK, 70000);
	metrics_operation(m, OPERATION_READ, RESULT_OK, 70000);
	metrics_operation(m, OPERATION_LIST, RESULT_TIMEOUT, 1);
	metrics_request(m, ROUTE_CIRCUIT, METHOD_GET, 200, 1000);
	metrics_request(m, ROUTE_NONE, METHOD_OTHER, 404, 1000);
	metrics_request(m, METRICS_ROUTES, METHOD_GET, 999, 1000);
	scrape();
	ck_assert(value("breakerd_store_up") == 1);
	ck_assert(value("breakerd_circuits{state=\"open\"}") == 17);
	ck_assert_ptr_nonnull(strstr(text, "breakerd_corrupt_entries_total 9007199254740993\n"));
	ck_assert(value("breakerd_transitions_total{from=\"closed\",to=\"open\"}") == 3);
	ck_assert(value("breakerd_store_operations_total{operation=\"read\",result=\"ok\"}") == 2);
	ck_assert(value("breakerd_store_operations_total{operation=\"list\",result=\"timeout\"}") ==
		  1);
	ck_assert(value("breakerd_http_requests_total{route=\"/v1/circuits/{key}\",method="
			"\"GET\",status=\"200\"}") == 1);
	ck_assert(value("breakerd_http_requests_total{route=\"none\",method=\"other\",status="
			"\"404\"}") == 1);
	ck_assert(value("breakerd_http_requests_total{route=\"none\",method=\"GET\",status="
			"\"500\"}") == 1);
	ck_assert(value("breakerd_http_request_duration_seconds_count") == 3);
}
END_TEST

/* On the embedded store breakerd_circuits has all states; on Redis the closed ones are left out,
 * and there are series of the link. */
START_TEST(a_link_to_redis_shows_itself_in_place_of_circuits)
{
	scrape();
	ck_assert(value("breakerd_circuits{state=\"open\"}") == 0);
	ck_assert_uint_eq(count("breakerd_redis_link_state"), 0);
	ck_assert_uint_eq(count("breakerd_redis_failures_total"), 0);

	m->redis_states = (struct metrics_label){state_name, 2};
	m->redis_reasons = (struct metrics_label){reason_name, 2};
	m->redis_state = 1;
	m->redis_failures[0] = 7;
	scrape();
	ck_assert_uint_eq(count("breakerd_circuits{"), 2); /* not the closed ones */
	ck_assert(value("breakerd_redis_link_state{state=\"ready\"}") == 0);
	ck_assert(value("breakerd_redis_link_state{state=\"backoff\"}") == 1);
	ck_assert(value("breakerd_redis_failures_total{reason=\"lookup\"}") == 7);
	ck_assert(value("breakerd_redis_failures_total{reason=\"lost\"}") == 0);
}
END_TEST

/* A program that gives no label names has none of those series, and does not crash. */
START_TEST(labels_without_names_show_nothing)
{
	memset(m, 0, sizeof(*m));
	metrics_request(m, 1, 1, 200, 5);
	scrape();
	ck_assert_uint_eq(count("breakerd_http_requests_total{"), 0);
	ck_assert_uint_eq(count("breakerd_store_operations_total{"), 0);
}
END_TEST

START_TEST(histogram_is_cumulative)
{
#define BUCKET(le) "breakerd_http_request_duration_seconds_bucket{le=\"" le "\"}"
	metrics_observe(&m->http_seconds, 0);
	metrics_observe(&m->http_seconds, 50000); /* a bucket includes its bound */
	metrics_observe(&m->http_seconds, 50001);
	metrics_observe(&m->http_seconds, 3000000);
	metrics_observe(&m->http_seconds, UINT64_C(11000000000));
	scrape();
	ck_assert(value(BUCKET("0.00005")) == 2);
	ck_assert(value(BUCKET("0.0001")) == 3);
	ck_assert(value(BUCKET("0.0025")) == 3);
	ck_assert(value(BUCKET("0.005")) == 4);
	ck_assert(value(BUCKET("10")) == 4);
	ck_assert(value(BUCKET("+Inf")) == 5);
	ck_assert(value("breakerd_http_request_duration_seconds_count") == 5);
	ck_assert_double_eq_tol(value("breakerd_http_request_duration_seconds_sum"), 11.003100001,
				1e-9);
}
END_TEST

START_TEST(process_metrics_are_plausible)
{
	double now = (double)time(NULL);

	scrape();
	ck_assert(value("process_cpu_seconds_total") >= 0);
	ck_assert(value("process_resident_memory_bytes") > 100000);
	ck_assert(value("process_virtual_memory_bytes") >= value("process_resident_memory_bytes"));
	ck_assert(value("process_open_fds") >= 3);
	ck_assert(value("process_max_fds") >= value("process_open_fds"));
	ck_assert(value("process_start_time_seconds") > now - 3600);
	ck_assert(value("process_start_time_seconds") < now + 5);
}
END_TEST

START_TEST(open_descriptors_are_counted)
{
	unsigned open = 0;

	for (int fd = 0; fd < 1024; fd++)
		open += fcntl(fd, F_GETFD) >= 0;
	scrape();
	ck_assert(value("process_open_fds") == open);
}
END_TEST

/* Each series comes after the HELP and TYPE of its family, and no family comes twice. */
START_TEST(exposition_is_well_formed)
{
	char family[128] = "", type[32] = "", seen[8192] = "", name[128], needle[136];
	char *save = NULL, *copy;

	metrics_request(m, ROUTE_CIRCUIT, METHOD_GET, 200, 5);
	scrape();
	ck_assert(text[strlen(text) - 1] == '\n');
	copy = strdup(text);
	for (char *l = strtok_r(copy, "\n", &save); l; l = strtok_r(NULL, "\n", &save)) {
		size_t len;

		if (strncmp(l, "# HELP ", 7) == 0) {
			ck_assert_int_eq(sscanf(l, "# HELP %127s", family), 1);
			snprintf(needle, sizeof(needle), "\n%s\n", family);
			ck_assert_msg(!strstr(seen, needle), "twice: %s", family);
			strncat(seen, needle, sizeof(seen) - strlen(seen) - 1);
			continue;
		}
		if (l[0] == '#') {
			ck_assert_int_eq(sscanf(l, "# TYPE %127s %31s", name, type), 2);
			ck_assert_str_eq(name, family);
			continue;
		}
		ck_assert_int_eq(sscanf(l, "%127[a-z_]", name), 1);
		len = strlen(family);
		ck_assert_msg(strncmp(name, family, len) == 0, "%s", l);
		if (strcmp(type, "histogram") == 0)
			ck_assert(!strcmp(name + len, "_bucket") || !strcmp(name + len, "_sum") ||
				  !strcmp(name + len, "_count"));
		else
			ck_assert_str_eq(name, family);
	}
	free(copy);
}
END_TEST

/* promtool accepts the text; skipped where it is not installed. */
START_TEST(promtool_has_no_complaint)
{
	FILE *pipe;

	if (system("command -v promtool >/dev/null 2>&1") != 0)
		return;
	metrics_request(m, ROUTE_CIRCUIT, METHOD_GET, 200, 5);
	metrics_operation(m, OPERATION_READ, RESULT_OK, 5);
	scrape();
	pipe = popen("promtool check metrics", "w");
	ck_assert_ptr_nonnull(pipe);
	fputs(text, pipe);
	ck_assert_int_eq(pclose(pipe), 0);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("metrics");
	TCase *tc = tcase_create("metrics");

	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_set_timeout(tc, 30);
	tcase_add_test(tc, series_are_there_from_the_start);
	tcase_add_test(tc, what_is_counted_is_shown);
	tcase_add_test(tc, a_link_to_redis_shows_itself_in_place_of_circuits);
	tcase_add_test(tc, labels_without_names_show_nothing);
	tcase_add_test(tc, histogram_is_cumulative);
	tcase_add_test(tc, process_metrics_are_plausible);
	tcase_add_test(tc, open_descriptors_are_counted);
	tcase_add_test(tc, exposition_is_well_formed);
	tcase_add_test(tc, promtool_has_no_complaint);
	suite_add_tcase(s, tc);
	return suite_run(s);
}
