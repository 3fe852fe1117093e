/*
 * Policies: the sections [policy NAME] of the file, what they inherit, settings that contradict
 * each other, and the policy_set that results.
 */
#ifndef BREAKERD_CONFIG_POLICIES_H
#define BREAKERD_CONFIG_POLICIES_H

#include "config/table.h"

/*
 * Begins the section [policy name], whose heading is on that line. False with the reason in why:
 * not a name, there already, too many sections, out of memory.
 */
bool policies_begin(struct config *config, const char *name, size_t len, unsigned line, char *why,
		    size_t why_size);

/* The section of that name, or NULL. */
struct config_section *policies_section(struct config *config, const char *name);

/*
 * Takes `keys`, or a policy's setting, in a section. False with the error set, also for any other
 * name.
 */
bool policies_take(struct config *config, struct config_section *section, const char *name,
		   unsigned line, const char *text, struct config_error *error);

/*
 * Once all sources are read: gives each section what it inherits, checks how settings go
 * together, and makes config->policies. False with the error set.
 */
bool policies_finish(struct config *config, struct config_error *error);

void policies_free(struct config *config);

#endif
