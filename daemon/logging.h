/* Applies the log's settings to our own lines and to libevent's warnings. */
#ifndef BREAKERD_LOGGING_H
#define BREAKERD_LOGGING_H

#include "config/settings.h"

void logging_apply(struct log *log, const struct config *config);

#endif
