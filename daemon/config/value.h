/* Values between their text and the structs: struct config, struct config_policy. */
#ifndef BREAKERD_CONFIG_VALUE_H
#define BREAKERD_CONFIG_VALUE_H

#include "config/table.h"

/* The struct that the setting's offset is in: config->policy or config. */
void *value_base(struct config *config, const struct config_setting *setting);
const void *value_const_base(const struct config *config, const struct config_setting *setting);

/* Sets a value to what the text says; to a list, adds the text's items. False with the reason in
 * why. */
bool value_set(void *base, const struct config_setting *setting, unsigned line, const char *text,
	       char *why, size_t why_size);

/* Adds the items of text, separated by commas or white space, to a list. */
bool value_add_items(struct config_list *list, config_check_fn *check, unsigned line,
		     const char *text, bool may_empty, char *why, size_t why_size);

/* Makes a list empty. */
void value_clear(struct config_list *list);

/* Writes the value as text that reads back the same: item `i` of a list; of anything else i is 0.
 * False if there is no such item. A secret is written as it is. */
bool value_get(const void *base, const struct config_setting *setting, size_t i,
	       char out[CONFIG_VALUE_MAX + 1]);

/* Copies the value of a setting of a policy. */
void value_copy(struct config_policy *to, const struct config_policy *from,
		const struct config_setting *setting);

/* True if both hold the same value. */
bool config_same(const struct config *a, const struct config *b,
		 const struct config_setting *setting);

/* A time as a person writes it: "30s", "1500ms". */
void value_put_time(int64_t ms, char *out, size_t size);

/* The range of a number or a time for people: "1 to 60000 milliseconds", "10ms to 1d". */
void value_put_range(const struct config_setting *setting, char *out, size_t size);

#endif
