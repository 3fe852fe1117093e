/*
 * Which policy holds for a circuit: a list of policies, each with patterns for keys. Pure
 * data and functions; daemon/config fills it.
 */
#ifndef BREAKERD_POLICY_SET_H
#define BREAKERD_POLICY_SET_H

#include "proto/policy.h"

#include <stddef.h>

struct policy_entry {
	const char *name;
	const char *const *keys; /* patterns, as written */
	size_t key_count;
	struct policy policy;
	/* What GET /v1/policies has of it: a JSON object. */
	const char *json;
};

struct policy_set {
	const struct policy_entry *entries; /* in the order in which they are tried */
	size_t count; /* at least 1: the last is "default", which holds for every other key */
};

/*
 * The first entry with a pattern that matches the key, or else the last one. Never NULL. The entry
 * belongs to the set, which a reload replaces. If the default is the only one, nothing is compared.
 */
const struct policy_entry *policy_set_entry(const struct policy_set *set, const char *key,
					    size_t len);

/* That entry's policy. */
static inline const struct policy *policy_set_find(const struct policy_set *set, const char *key,
						   size_t len)
{
	return &policy_set_entry(set, key, len)->policy;
}

/*
 * True if the pattern matches all of the key, which is valid UTF-8: '*' is any run of
 * characters, none included, '?' is one code point, anything else is itself.
 */
bool policy_key_matches(const char *pattern, const char *key, size_t len);

#endif
