/*
 * Descriptors: each connection takes one, and the limit on open files may leave fewer than the
 * settings allow. What is needed beside them (Redis, the channel, look-ups, files) is kept back.
 */
#ifndef BREAKERD_DESCRIPTORS_H
#define BREAKERD_DESCRIPTORS_H

#include "base/log.h"
#include "config/config.h"

/* Those that are open now. */
unsigned descriptors_open(void);

/* Raises the soft limit, often 1024, to what the settings need beside `others`, as far as the hard
 * one lets it. */
void descriptors_raise(const struct config *config, unsigned others);

struct descriptor_share {
	unsigned max_connections;
	unsigned max_streams;
};

/* The settings, or what the limit leaves of them beside `others`, in their proportion: that is
 * logged. False, with *share as it was, if it leaves no connection at all. */
bool descriptors_share(const struct config *config, unsigned others, struct log *log,
		       struct descriptor_share *share);

#endif
