/*
 * Telling systemd how things stand (sd_notify(3)): ready, reloading, stopping, alive, and one
 * line of status for `systemctl status`. Without libsystemd, or when systemd did not ask
 * for it, nothing is sent.
 */
#ifndef BREAKERD_SYSTEMD_H
#define BREAKERD_SYSTEMD_H

#include <stdbool.h>

struct event_base;
struct systemd;

/* NULL when out of memory. `base` must outlive it. */
struct systemd *systemd_new(struct event_base *base);

/*
 * The service can be asked. Says "ready" at once if `settled`, else with the next
 * systemd_status, and after 3 s at the latest. So services that are started after this one find a
 * store that has been reached, if it can be. From here on the loop feeds the watchdog.
 */
void systemd_serving(struct systemd *s, bool settled);

/* The line of status, from now on; copied and made printable. Sent once "ready" has been said. */
void systemd_status(struct systemd *s, const char *text);

void systemd_reloading(void);
/* Ends it, with the line of status; refused says that the old configuration stands. */
void systemd_reloaded(struct systemd *s, bool refused);

void systemd_stopping(struct systemd *s);

/* Why there will be no service; before there is a struct systemd, too. */
void systemd_failed(const char *why);

/* NULL is allowed. */
void systemd_free(struct systemd *s);

#endif
