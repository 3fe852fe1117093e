#include "config/config.h"
#include "suite.h"

#include <check.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char path[] = "/tmp/check_policies.XXXXXX";
static struct config *config;
static struct config_error error;

static void setup(void)
{
	strcpy(path, "/tmp/check_policies.XXXXXX");
	close(mkstemp(path));
}

static void teardown(void)
{
	config_free(config);
	config = NULL;
	unlink(path);
}

/* Loads `text` as the settings file, with up to three arguments after it. */
static enum config_status load(const char *text, const char *const *words)
{
	char *argv[6] = {"breakerd", "--config", path};
	struct config_input input = {.argc = 3, .argv = argv};
	enum config_action action;
	FILE *f = fopen(path, "w");

	ck_assert_ptr_nonnull(f);
	fputs(text, f);
	fclose(f);
	for (; *words; words++)
		argv[input.argc++] = (char *)*words;
	config_free(config);
	return config_load(&input, &action, &config, &error);
}

#define WORDS(...) ((const char *const[]){__VA_ARGS__ __VA_OPT__(, ) NULL})

#define ck_assert_load(file, ...)                                                                  \
	ck_assert_msg(load((file), WORDS(__VA_ARGS__)) == CONFIG_OK, "refused: %s", error.text)

/* `why` is the beginning of the error after the name of the file. */
static void ck_assert_refused(const char *file, const char *why)
{
	ck_assert_int_eq(load(file, WORDS()), CONFIG_INVALID);
	ck_assert_msg(strncmp(error.text, path, strlen(path)) == 0 &&
			      strncmp(error.text + strlen(path) + 1, why, strlen(why)) == 0,
		      "%s\n   is not: %s", error.text, why);
}

static const struct policy_entry *entry(size_t i)
{
	ck_assert_uint_lt(i, config->policies.count);
	return &config->policies.entries[i];
}

static const struct policy *find(const char *key)
{
	return policy_set_find(&config->policies, key, strlen(key));
}

START_TEST(the_default_is_that_of_the_contract)
{
	const struct policy *p;

	ck_assert_load("");
	ck_assert_uint_eq(config->policies.count, 1);
	ck_assert_str_eq(entry(0)->name, "default");
	p = find("anything");
	ck_assert_uint_eq(p->consecutive_failures, 5);
	ck_assert_uint_eq(p->failure_rate, 50);
	ck_assert_int_eq(p->slow_time_ms, 0);
	ck_assert_uint_eq(p->slow_rate, 100);
	ck_assert_int_eq(p->window_ms, 30000);
	ck_assert_uint_eq(p->min_calls, 20);
	ck_assert_uint_eq(p->min_reporters, 1);
	ck_assert_int_eq(p->open_time_ms, 30000);
	ck_assert_uint_eq(p->open_growth_milli, 2000);
	ck_assert_int_eq(p->open_time_max_ms, 300000);
	ck_assert_uint_eq(p->probes, 1);
	ck_assert_uint_eq(p->probe_successes, 1);
	ck_assert_int_eq(p->probe_timeout_ms, 30000);
	for (unsigned status = 0; status < 1000; status++) {
		ck_assert(policy_statuses_have(&p->failure_status, status) ==
			  (status >= 500 && status <= 599));
		ck_assert(!policy_statuses_have(&p->ignore_status, status));
	}
	ck_assert(p->enforce);
}
END_TEST

START_TEST(sections_override_what_they_name)
{
	ck_assert_load("window = 10s\n"
		       "probes = 2\n"
		       "[policy api]\n"
		       "keys = /api/*, users-?\n"
		       "keys = caf\xc3\xa9\n"
		       "window = 1m\n"
		       "ignore_status = 429\n"
		       "[breakerd]\n"
		       "min_calls = 7\n"
		       "[policy off]\n"
		       "keys = *slow*\n"
		       "enforce = no\n"
		       "open_growth = 1.5\n",
		       "--probes=3");
	ck_assert_uint_eq(config->policies.count, 3);
	ck_assert_str_eq(entry(0)->name, "api");
	ck_assert_uint_eq(entry(0)->key_count, 3);
	ck_assert_str_eq(entry(1)->name, "off");
	ck_assert_str_eq(entry(2)->name, "default");

	ck_assert_int_eq(find("/api/slow")->window_ms, 60000);
	ck_assert(find("/api/slow")->enforce);
	ck_assert(policy_statuses_have(&find("users-1")->ignore_status, 429));
	ck_assert_int_eq(find("caf\xc3\xa9")->window_ms, 60000);
	ck_assert_int_eq(find("/slow")->window_ms, 10000);
	ck_assert(!find("/slow")->enforce);
	ck_assert_uint_eq(find("/slow")->open_growth_milli, 1500);
	ck_assert_int_eq(find("other")->window_ms, 10000);
	ck_assert(!policy_statuses_have(&find("other")->ignore_status, 429));
	/* A section inherits what is set outside of sections: below it, and by a flag. */
	for (size_t i = 0; i < 3; i++) {
		ck_assert_uint_eq(entry(i)->policy.min_calls, 7);
		ck_assert_uint_eq(entry(i)->policy.probes, 3);
	}
}
END_TEST

static const struct {
	const char *text, *why;
} bad[] = {
	{"[policy a]\n", "1: [policy a]: keys is missing: keys = pattern"},
	{"\n[policy a]\nwindow = 5s\n[policy b]\nkeys = *\n", "2: [policy a]: keys is missing"},
	{"[policy a]\nkeys =\n", "2: [policy a] keys = : must not be empty"},
	{"[policy a]\nkeys = ,\n", "2: [policy a] keys = ,: must not be empty"},
	{"[policy a]\nkeys = \xff\n", "2: [policy a] keys = \xff: not valid UTF-8"},
	{"[policy a]\nkeys = \"a\"\n", "2: [policy a] keys = \"a\": quotes"},
	{"[policy a]\nkeys = a,;b\n", "2: [policy a] keys = a,;b: ;b: begins with ';'"},
	{"[policy a]\nkeys = a,\"b\"\n", "2: [policy a] keys = a,\"b\": \"b\": quotes"},
	{"[policy]\n", "1: the only sections are"},
	{"[policy ]\n", "1: the name of a policy is 1 to 32 letters, digits and ._-"},
	{"[policy a b]\n", "1: the name of a policy"},
	{"[policy a ;b]\n", "1: the name of a policy"},
	{"[policy 012345678901234567890123456789012]\n", "1: the name of a policy"},
	{"[policy a\n", "1: no heading"},
	{"[policy a] x\n", "1: no heading"},
	{"[Policy a]\n", "1: the only sections are"},
	{"[policy default]\n", "1: \"default\" is the policy outside of sections"},
	{"[policy a]\nkeys = *\n\n[policy a]\nkeys = *\n",
	 "4: [policy a] stands on line 1 already; give one of them another name"},
	{"[policy a]\nkeys = *\nwindow = 5s\nwindow = 5s\n",
	 "4: [policy a] window = 5s: given on line 3 already; once is enough"},
	{"[policy a]\nwindwo = 5s\n",
	 "2: [policy a] windwo = 5s: unknown setting; did you mean window?"},
	{"[policy a]\nkey = a\n", "2: [policy a] key = a: unknown setting"},
	{"[policy a]\nzzzzzzzzz = a\n",
	 "2: [policy a] zzzzzzzzz = a: unknown setting; keys and the"},
	{"[policy a]\nkeys = *\nttl = 5\n", "3: [policy a] ttl = 5: no setting of a policy"},
	{"[policy a]\nlisten = unix:/x\n",
	 "2: [policy a] listen = unix:/x: no setting of a policy"},
	{"[policy a]\nwindow = 999ms\n", "2: [policy a] window = 999ms: out of range, 1s to 1h"},
	{"[policy a]\nprobes =\n", "2: [policy a] probes = : not a whole number, 1 to 100 permits"},
	/* Settings that contradict each other. */
	{"open_time = 6m\n", "1: open_time = 6m: more than open_time_max, which is 5m; set "
			     "open_time_max = 6m or more, too"},
	{"open_time_max = 20s\n",
	 "1: open_time_max = 20s: less than open_time, which is 30s; set open_time_max to 30s"},
	{"[policy a]\nkeys = *\nopen_time = 6m\n",
	 "3: [policy a] open_time = 6m: more than open_time_max, which is 5m; set open_time_max = "
	 "6m or more in this section, too"},
	{"open_time_max = 1h\nopen_time = 10m\n[policy a]\nkeys = *\n\nopen_time_max = 5m\n",
	 "6: [policy a] open_time_max = 5m: less than open_time, which is 10m; set open_time_max "
	 "to 10m or more, or a shorter open_time in this section"},
	{"min_reporters = 2\n", "1: min_reporters = 2: with store = memory there is one daemon"},
	{"[policy a]\nkeys = *\nmin_reporters = 2\n",
	 "3: [policy a] min_reporters = 2: with store = memory there is one daemon"},
	{"failure_status = 429\nignore_status = 400-499\n",
	 "2: ignore_status = 400-499: 429 stands in failure_status as well, which is 429; set "
	 "failure_status to a list without it"},
	{"failure_status = 404\n[policy a]\nkeys = *\nignore_status = 400-404\n",
	 "4: [policy a] ignore_status = 400-404: 404 stands in failure_status as well, which is "
	 "404; set failure_status in this section to a list without it"},
	{"ignore_status = 404\n[policy a]\nkeys = *\nfailure_status = 404\n",
	 "4: [policy a] failure_status = 404: 404 stands in ignore_status as well, which is 404"},
};

START_TEST(a_bad_section_is_refused)
{
	ck_assert_refused(bad[_i].text, bad[_i].why);
}
END_TEST

START_TEST(a_contradiction_of_flags_names_the_flag)
{
	ck_assert_int_eq(load("", WORDS("--open-time=10m")), CONFIG_INVALID);
	ck_assert_ptr_nonnull(strstr(error.text, "--open-time=10m: more than open_time_max"));
	ck_assert_load("open_time_max = 1h\n", "--open-time=10m");
	ck_assert_load("[policy a]\nkeys = *\nmin_reporters = 2\n", "--store=redis://h");
	ck_assert_uint_eq(find("x")->min_reporters, 2);
}
END_TEST

START_TEST(sections_have_a_bound)
{
	char text[8192] = "";

	for (int i = 0; i < CONFIG_SECTIONS_MAX; i++)
		sprintf(text + strlen(text), "[policy p%d]\nkeys = k%d\nprobes = %d\n", i, i,
			i + 1);
	ck_assert_load(text);
	ck_assert_uint_eq(find("k63")->probes, 64);
	ck_assert_uint_eq(find("k64")->probes, 1);
	strcat(text, "[policy more]\n");
	ck_assert_refused(text, "193: more than 64 policies");
}
END_TEST

static json_t *json_of(size_t i)
{
	json_t *json = json_loads(entry(i)->json, JSON_REJECT_DUPLICATES, NULL);

	ck_assert_ptr_nonnull(json);
	return json;
}

START_TEST(json_has_every_setting)
{
	json_t *json;

	ck_assert_load("[policy a]\nkeys = /x/*, y\nopen_growth = 1.25\nwindow = 1.5s\n"
		       "failure_status = 500-599,  429\nenforce = no\n");
	ck_assert_str_eq(
		entry(1)->json,
		"{\"name\":\"default\",\"keys\":[\"*\"],\"consecutive_failures\":5,"
		"\"failure_rate\":50,\"slow_time\":0,\"slow_rate\":100,\"window\":30000,"
		"\"min_calls\":20,\"min_reporters\":1,\"open_time\":30000,\"open_growth\":2,"
		"\"open_time_max\":300000,\"probes\":1,\"probe_successes\":1,"
		"\"probe_timeout\":30000,\"failure_status\":\"500-599\",\"ignore_status\":\"\","
		"\"enforce\":true}");
	json = json_of(0);
	ck_assert_str_eq(json_string_value(json_object_get(json, "name")), "a");
	ck_assert_uint_eq(json_array_size(json_object_get(json, "keys")), 2);
	ck_assert_int_eq(json_integer_value(json_object_get(json, "window")), 1500);
	ck_assert(json_real_value(json_object_get(json, "open_growth")) == 1.25);
	ck_assert_str_eq(json_string_value(json_object_get(json, "failure_status")),
			 "500-599,  429");
	ck_assert(json_is_false(json_object_get(json, "enforce")));
	json_decref(json);
}
END_TEST

START_TEST(what_is_printed_reads_back)
{
	char *was[3], *text;
	size_t size;
	FILE *f = open_memstream(&text, &size);

	ck_assert_load("open_time = 1h\nopen_time_max = 25h\n"
		       "[policy a]\nkeys = /x/*, y;z\nkeys = ?\nopen_growth = 1.25\nwindow = 1.5s\n"
		       "[policy b]\nkeys = *\nignore_status = 404 410-412\nslow_time = 0.25s\n"
		       "open_time = 36s\nenforce = no\n");
	for (size_t i = 0; i < 3; i++)
		was[i] = strdup(entry(i)->json);
	config_print(config, f);
	fclose(f);
	ck_assert_ptr_nonnull(strstr(text, "\n[policy a]\n"));
	ck_assert_ptr_nonnull(strstr(text, "\nwindow = 1500ms\n"));
	ck_assert_ptr_null(strstr(strstr(text, "[policy a]"), "\nprobes ="));
	ck_assert_load(text);
	ck_assert_uint_eq(config->policies.count, 3);
	for (size_t i = 0; i < 3; i++) {
		ck_assert_str_eq(entry(i)->json, was[i]);
		free(was[i]);
	}
	free(text);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("policies");
	TCase *tc = tcase_create("policies");

	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_add_test(tc, the_default_is_that_of_the_contract);
	tcase_add_test(tc, sections_override_what_they_name);
	tcase_add_loop_test(tc, a_bad_section_is_refused, 0, sizeof(bad) / sizeof(bad[0]));
	tcase_add_test(tc, a_contradiction_of_flags_names_the_flag);
	tcase_add_test(tc, sections_have_a_bound);
	tcase_add_test(tc, json_has_every_setting);
	tcase_add_test(tc, what_is_printed_reads_back);
	suite_add_tcase(s, tc);
	return suite_run(s);
}
