/*
 * The stop, on SIGTERM or SIGINT: what is in flight is finished, what was held back or recorded
 * without Redis is taken there, and then the loop ends, within 5 s. A second signal ends it at
 * once.
 */
#ifndef BREAKERD_STOP_H
#define BREAKERD_STOP_H

struct app;

/* The signals have a handler from now on. 0, or -1 when out of memory. */
int stop_init(struct app *app);

/* Also after a stop_init that failed, or that was not called. */
void stop_fini(struct app *app);

#endif
