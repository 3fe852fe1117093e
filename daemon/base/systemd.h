/*
 * Tells systemd (sd_notify(3)) that the service is ready, reloading, stopping or alive, and a line
 * of status for `systemctl status`. Sends nothing without libsystemd, or if systemd did not ask for
 * it.
 */
#ifndef BREAKERD_SYSTEMD_H
#define BREAKERD_SYSTEMD_H

#include <stdbool.h>

struct event_base;
struct systemd;

/* NULL when out of memory. `base` must outlive it. */
struct systemd *systemd_new(struct event_base *base);

/*
 * The service answers. Says "ready" at once if `settled`, else with the next systemd_status, after
 * 3 s at the latest. So services that are started after this one find a store that has been
 * reached, if it can be. From now on the loop feeds the watchdog.
 */
void systemd_serving(struct systemd *s, bool settled);

/* Sets the line of status; copied, and made printable. Sent once "ready" has been said. */
void systemd_status(struct systemd *s, const char *text);

void systemd_reloading(void);
/* The reload is over. `refused`: the line of status says that the old configuration still holds. */
void systemd_reloaded(struct systemd *s, bool refused);

void systemd_stopping(struct systemd *s);

/* Says why the start failed. May be called before systemd_new. */
void systemd_failed(const char *why);

/* NULL is allowed. */
void systemd_free(struct systemd *s);

#endif
