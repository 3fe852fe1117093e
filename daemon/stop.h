/*
 * The stop, on SIGTERM or SIGINT: requests in flight are finished, what was held back or recorded
 * without Redis is taken to Redis, and then the loop ends, within 5 s. A second signal ends the
 * loop at once.
 */
#ifndef BREAKERD_STOP_H
#define BREAKERD_STOP_H

struct app;

/* Gives both signals a handler. 0, or -1 when out of memory. */
int stop_init(struct app *app);

/* May be called if stop_init failed or was not called. */
void stop_fini(struct app *app);

#endif
