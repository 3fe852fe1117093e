/*
 * The limit on open files. Each connection takes a descriptor, and the limit may leave fewer than
 * the settings allow. Descriptors for all else (Redis, the channel, look-ups, files) are kept back.
 */
#ifndef BREAKERD_DESCRIPTORS_H
#define BREAKERD_DESCRIPTORS_H

#include "base/log.h"
#include "config/config.h"

/* How many are open now. */
unsigned descriptors_open(void);

/* Raises the soft limit, often 1024, to what the settings and `others` need, or to the hard limit
 * if that is lower. */
void descriptors_raise(const struct config *config, unsigned others);

struct descriptor_share {
	unsigned max_connections;
	unsigned max_streams;
};

/* Sets *share to max_connections and max_streams. If the limit, less `others`, is too low for them,
 * divides what is left in their proportion, and logs that. False, with *share as it was, if nothing
 * is left. */
bool descriptors_share(const struct config *config, unsigned others, struct log *log,
		       struct descriptor_share *share);

#endif
