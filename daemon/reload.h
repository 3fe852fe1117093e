/*
 * The settings are read again: on SIGHUP and, with reload_on_change, when their files change. The
 * first signal or change is obeyed at once. A pause follows each reload (100 ms as a rule), and
 * one reload obeys all that comes within it, so that no number of signals keeps clients waiting.
 */
#ifndef BREAKERD_RELOAD_H
#define BREAKERD_RELOAD_H

struct app;

/* SIGHUP has a handler from now on. 0, or -1 when out of memory. */
int reload_init(struct app *app);

/* The sockets are open: watches the files of the settings, if it is asked for. */
void reload_watch_files(struct app *app);

/* Also after a reload_init that failed, or that was not called. */
void reload_fini(struct app *app);

#endif
