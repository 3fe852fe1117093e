/* The policy of a key: see policy_set.h. */
#include "proto/policy_set.h"

/* Where the code point that begins at key ends. */
static const char *next_code_point(const char *key, const char *end)
{
	do
		key++;
	while (key < end && ((unsigned char)*key & 0xc0) == 0x80);
	return key;
}

/*
 * After a mismatch only the last '*' takes one character more: whatever an earlier '*' could take,
 * the last one can take as well. So the time is at most the product of the two lengths.
 */
bool policy_key_matches(const char *pattern, const char *key, size_t len)
{
	const char *end = key + len, *star = NULL, *star_key = NULL;

	for (;;) {
		if (*pattern == '*') {
			star = ++pattern;
			star_key = key;
			if (!*pattern)
				return true;
		} else if (key == end) {
			return !*pattern;
		} else if (*pattern == '?') {
			pattern++;
			key = next_code_point(key, end);
		} else if (*pattern == *key && *pattern) {
			pattern++;
			key++;
		} else if (star) {
			pattern = star;
			key = star_key = next_code_point(star_key, end);
		} else {
			return false;
		}
	}
}

const struct policy_entry *policy_set_entry(const struct policy_set *set, const char *key,
					    size_t len)
{
	size_t last = set->count - 1;

	for (size_t i = 0; i < last; i++)
		for (size_t k = 0; k < set->entries[i].key_count; k++)
			if (policy_key_matches(set->entries[i].keys[k], key, len))
				return &set->entries[i];
	return &set->entries[last];
}
