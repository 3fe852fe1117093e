#include "proto/policy_set.h"

/* Behind the code point that begins at key. */
static const char *next_code_point(const char *key, const char *end)
{
	do
		key++;
	while (key < end && ((unsigned char)*key & 0xc0) == 0x80);
	return key;
}

/*
 * Goes back to the last '*' only: what an earlier one could take more, the last one can take
 * as well. So the time is at most the product of the two lengths.
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
