/*
 * Telling systemd how things stand (sd_notify(3)). Without libsystemd, or when systemd did
 * not ask for it, each of these does nothing.
 */
#ifndef BREAKERD_NOTIFY_H
#define BREAKERD_NOTIFY_H

void notify_ready(void);
void notify_reloading(void); /* notify_ready ends it */
void notify_stopping(void);

#endif
