/*
 * Telling systemd how things stand (sd_notify(3)): ready, reloading, stopping, alive, and one
 * line on the store for `systemctl status`. Without libsystemd, or when systemd did not ask
 * for it, nothing is sent.
 */
#ifndef BREAKERD_NOTIFY_H
#define BREAKERD_NOTIFY_H

#include <stdbool.h>

struct event_base;
struct notify;
struct store;

/* Becomes the store's watcher (store_watch). NULL when out of memory. Both outlive it. */
struct notify *notify_new(struct event_base *base, struct store *store);

/*
 * All sockets are listened on. Says "ready" at once if the store can be used, else with the
 * first news of it, good or bad: whoever is started after us then finds a store that has
 * been reached, if it can be. From here on the watchdog is fed, from the loop.
 */
void notify_serving(struct notify *n);

void notify_reloading(void);
/* Ends it; refused says that the old configuration stands. */
void notify_reloaded(struct notify *n, bool refused);

void notify_stopping(struct notify *n);

/* Why there will be no service; before there is a notify, too. */
void notify_failed(const char *why);

/* NULL is allowed. */
void notify_free(struct notify *n);

#endif
