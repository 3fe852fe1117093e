/* The settings of the log, as the daemon and libevent's own words take them. */
#ifndef BREAKERD_LOGGING_H
#define BREAKERD_LOGGING_H

#include "config/settings.h"

void logging_apply(struct log *log, const struct config *config);

#endif
