/* Policies: see policies.h. */
#include "config/policies.h"

#include "config/take.h"
#include "config/value.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#define DEFAULT_NAME "default"

/* --- reading --- */

struct config_section *policies_section(struct config *config, const char *name)
{
	for (size_t i = 0; i < config->section_count; i++)
		if (strcmp(config->sections[i].name, name) == 0)
			return &config->sections[i];
	return NULL;
}

static bool is_name(const char *name, size_t len)
{
	static const char letters[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
				      "0123456789._-";

	return len > 0 && len <= CONFIG_SECTION_NAME_MAX && strspn(name, letters) >= len;
}

bool policies_begin(struct config *config, const char *name, size_t len, unsigned line, char *why,
		    size_t why_size)
{
	struct config_section *section;
	char kept[CONFIG_SECTION_NAME_MAX + 1];

	if (!is_name(name, len))
		return check_refuse(why, why_size,
				    "the name of a policy is 1 to %d letters, digits and ._-",
				    CONFIG_SECTION_NAME_MAX);
	memcpy(kept, name, len);
	kept[len] = '\0';
	if (strcmp(kept, DEFAULT_NAME) == 0)
		return check_refuse(why, why_size,
				    "\"default\" is the policy outside of sections; give its "
				    "settings there, or this section another name");
	section = policies_section(config, kept);
	if (section)
		return check_refuse(why, why_size,
				    "[policy %s] stands on line %u already; give one of them "
				    "another name",
				    kept, section->line);
	if (config->section_count == CONFIG_SECTIONS_MAX)
		return check_refuse(why, why_size, "more than %d policies", CONFIG_SECTIONS_MAX);
	section = reallocarray(config->sections, config->section_count + 1, sizeof(*section));
	if (!section)
		return check_refuse(why, why_size, "out of memory");
	config->sections = section;
	section += config->section_count++;
	*section = (struct config_section){.line = line};
	strcpy(section->name, kept);
	return true;
}

static bool take_keys(struct config *config, struct config_section *section, unsigned line,
		      const char *text, struct config_error *error)
{
	char why[512];

	if (check_sound(text, why, sizeof(why)) &&
	    value_add_items(&section->keys, check_pattern, line, text, false, why, sizeof(why)))
		return true;
	return take_blame_section(error, config, section, line, "keys", text, why);
}

bool policies_take(struct config *config, struct config_section *section, const char *name,
		   unsigned line, const char *text, struct config_error *error)
{
	const struct config_setting *s = config_find(name, strlen(name), false);
	const char *nearest;
	char why[512];

	if (strcmp(name, "keys") == 0)
		return take_keys(config, section, line, text, error);
	nearest = s ? NULL : config_nearest(name, strlen(name));
	if (s && !(s->flags & CONFIG_POLICY))
		check_refuse(why, sizeof(why),
			     "no setting of a policy: give it before the first "
			     "[policy ...], or under [breakerd]");
	else if (!s && nearest)
		check_refuse(why, sizeof(why), "unknown setting; did you mean %s?", nearest);
	else if (!s)
		check_refuse(why, sizeof(why),
			     "unknown setting; keys and the settings of a "
			     "policy stand here, see breakerd --help");
	else if (section->lines[config_index(s)])
		check_refuse(why, sizeof(why), "given on line %u already; once is enough",
			     section->lines[config_index(s)]);
	else if (value_set(&section->policy, s, line, text, why, sizeof(why))) {
		section->lines[config_index(s)] = line;
		return true;
	}
	return take_blame_section(error, config, section, line, name, text, why);
}

/* --- how settings go together --- */

/* The policy that is checked: that of a section or, if section is NULL, the default one. */
struct subject {
	const struct config *config;
	const struct config_section *section;
	const struct config_policy *policy;
	struct config_error *error;
};

static bool is_given(const struct subject *p, const char *name)
{
	size_t i = config_index(take_setting(name));

	if (p->section)
		return p->section->lines[i] > 0;
	return p->config->sources[i].origin != CONFIG_FROM_DEFAULT;
}

static bool blame(const struct subject *p, const char *name, const char *why)
{
	const struct config_setting *s = take_setting(name);
	char value[CONFIG_VALUE_MAX + 1];

	value_get(p->policy, s, 0, value);
	if (!p->section)
		return take_blame_setting(p->error, p->config, name, value, why);
	return take_blame_section(p->error, p->config, p->section,
				  p->section->lines[config_index(s)], name, value, why);
}

/* " in this section" or "": where the remedy is to be written. */
static const char *here(const struct subject *p)
{
	return p->section ? " in this section" : "";
}

static bool check_open_time(const struct subject *p)
{
	int64_t time_ms = p->policy->policy.open_time_ms;
	int64_t max_ms = p->policy->policy.open_time_max_ms;
	char time[32], max[32], why[256];

	if (max_ms >= time_ms)
		return true;
	value_put_time(time_ms, time, sizeof(time));
	value_put_time(max_ms, max, sizeof(max));
	if (is_given(p, "open_time_max")) {
		snprintf(why, sizeof(why),
			 "less than open_time, which is %s; set open_time_max to %s or more, or a "
			 "shorter open_time%s",
			 time, time, here(p));
		return blame(p, "open_time_max", why);
	}
	snprintf(why, sizeof(why),
		 "more than open_time_max, which is %s; set open_time_max = %s or more%s, too", max,
		 time, here(p));
	return blame(p, "open_time", why);
}

static bool check_reporters(const struct subject *p)
{
	if (p->policy->policy.min_reporters <= 1)
		return true;
	/* A reload applies policies at once, but another store only after a restart. */
	if (p->config->store_is_redis && p->config->runs_in_memory)
		return blame(
			p, "min_reporters",
			"until a restart the store is memory, as at the start, with one daemon, "
			"so that nothing would ever open; restart, or set it to 1 until then");
	if (p->config->store_is_redis)
		return true;
	/* If a section inherits this, the default policy has been blamed for it before. */
	return blame(p, "min_reporters",
		     "with store = memory there is one daemon, so that nothing would ever open; "
		     "set it to 1, or store to Redis");
}

static bool check_lists(const struct subject *p)
{
	const struct policy *policy = &p->policy->policy;
	bool ignore = is_given(p, "ignore_status");
	const char *other = ignore ? "failure_status" : "ignore_status";
	char why[512];
	unsigned status = POLICY_STATUS_MIN;

	while (status <= POLICY_STATUS_MAX &&
	       !(policy_statuses_have(&policy->failure_status, status) &&
		 policy_statuses_have(&policy->ignore_status, status)))
		status++;
	if (status > POLICY_STATUS_MAX)
		return true;
	snprintf(why, sizeof(why),
		 "%u stands in %s as well, which is %s; set %s%s to a list without it", status,
		 other, ignore ? p->policy->failure_status : p->policy->ignore_status, other,
		 here(p));
	return blame(p, ignore ? "ignore_status" : "failure_status", why);
}

static bool check_policy(const struct config *config, const struct config_section *section,
			 struct config_policy *policy, struct config_error *error)
{
	struct subject p = {config, section, policy, error};

	check_read_statuses(policy->failure_status, &policy->policy.failure_status);
	check_read_statuses(policy->ignore_status, &policy->policy.ignore_status);
	return check_open_time(&p) && check_reporters(&p) && check_lists(&p);
}

static void inherit(struct config_section *section, const struct config_policy *from)
{
	for (size_t i = 0; i < CONFIG_SETTINGS; i++)
		if ((config_settings[i].flags & CONFIG_POLICY) && !section->lines[i])
			value_copy(&section->policy, from, &config_settings[i]);
}

/* --- the set --- */

/* A setting as GET /v1/policies has it: times in milliseconds, lists as written. */
static json_t *setting_json(const struct config_policy *policy, const struct config_setting *s)
{
	const void *at = (const char *)policy + s->offset;
	uint32_t n;

	switch (s->type) {
	case CONFIG_TIME:
		return json_integer(*(const int64_t *)at);
	case CONFIG_DECIMAL:
		n = *(const uint32_t *)at;
		return n % 1000 ? json_real(n / 1000.0) : json_integer(n / 1000);
	case CONFIG_BOOL:
		return json_boolean(*(const bool *)at);
	case CONFIG_STATUSES:
		return json_string(at);
	default: /* CONFIG_NUMBER */
		return json_integer(*(const uint32_t *)at);
	}
}

/* NULL when out of memory. */
static char *policy_json(const struct policy_entry *entry, const struct config_policy *policy)
{
	json_t *object = json_object(), *keys = json_array();
	int rc = json_object_set_new(object, "name", json_string(entry->name));
	char *text = NULL;

	for (size_t i = 0; i < entry->key_count; i++)
		rc |= json_array_append_new(keys, json_string(entry->keys[i]));
	rc |= json_object_set_new(object, "keys", keys);
	for (size_t i = 0; i < CONFIG_SETTINGS; i++) {
		const struct config_setting *s = &config_settings[i];

		if (s->flags & CONFIG_POLICY)
			rc |= json_object_set_new(object, s->name, setting_json(policy, s));
	}
	if (rc == 0)
		text = json_dumps(object, JSON_COMPACT | JSON_REAL_PRECISION(6));
	json_decref(object);
	return text;
}

static bool make_set(struct config *config)
{
	static const char *const all[] = {"*"};
	struct policy_entry *entries = calloc(config->section_count + 1, sizeof(*entries));

	if (!entries)
		return false;
	config->policies.entries = entries;
	for (size_t i = 0; i <= config->section_count; i++) {
		const struct config_policy *policy = &config->policy;
		struct policy_entry *entry = &entries[i];

		*entry = (struct policy_entry){.name = DEFAULT_NAME, .keys = all, .key_count = 1};
		if (i < config->section_count) {
			const struct config_section *section = &config->sections[i];

			policy = &section->policy;
			entry->name = section->name;
			entry->keys = (const char *const *)section->keys.items;
			entry->key_count = section->keys.count;
		}
		entry->policy = policy->policy;
		config->policies.count++;
		entry->json = policy_json(entry, policy);
		if (!entry->json)
			return false;
	}
	return true;
}

bool policies_finish(struct config *config, struct config_error *error)
{
	if (!check_policy(config, NULL, &config->policy, error))
		return false;
	for (size_t i = 0; i < config->section_count; i++) {
		struct config_section *section = &config->sections[i];

		if (section->keys.count == 0) {
			snprintf(error->text, sizeof(error->text),
				 "%.400s:%u: [policy %s]: keys is missing: keys = pattern, "
				 "pattern, where * is any run of characters and ? is one",
				 config->config_file, section->line, section->name);
			return false;
		}
		inherit(section, &config->policy);
		if (!check_policy(config, section, &section->policy, error))
			return false;
	}
	snprintf(error->text, sizeof(error->text), "out of memory");
	return make_set(config);
}

void policies_free(struct config *config)
{
	for (size_t i = 0; i < config->policies.count; i++)
		free((char *)(uintptr_t)config->policies.entries[i].json);
	free((void *)(uintptr_t)config->policies.entries);
	for (size_t i = 0; i < config->section_count; i++)
		value_clear(&config->sections[i].keys);
	free(config->sections);
}
