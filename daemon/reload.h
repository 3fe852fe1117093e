/*
 * Reloads: the settings are read again on SIGHUP and, with reload_on_change, when their files
 * change. The first signal or change causes a reload at once. A pause follows each reload (100 ms
 * as a rule); all signals and changes in it cause one reload at its end, so that no number of
 * signals keeps clients waiting.
 */
#ifndef BREAKERD_RELOAD_H
#define BREAKERD_RELOAD_H

struct app;

/* Gives SIGHUP a handler. 0, or -1 when out of memory. */
int reload_init(struct app *app);

/* Watches the files of the settings, if reload_on_change is set. */
void reload_watch_files(struct app *app);

/* May be called if reload_init failed or was not called. */
void reload_fini(struct app *app);

#endif
