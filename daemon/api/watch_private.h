/*
 * What the files of watch.h share; nobody else includes this. Each file uses those above it:
 *
 * watch_entry.c  the circuits, and what is noted of each
 * watch_list.c   listings of the store
 * watch_read.c   reads of a circuit
 * watch.c        the store's changes, start and end
 */
#ifndef BREAKERD_API_WATCH_PRIVATE_H
#define BREAKERD_API_WATCH_PRIVATE_H

#include "api/watch.h"

#include <event2/event.h>

/* watch_entry.c */

/* The circuit's entry, a new one if there is none. That may replace the past circuit that changed
 * the longest ago. NULL if there is no room. */
struct watched *watch_get(struct watch *w, const char *key, size_t len);

void watch_remove(struct watched *c);

/* What made the circuit what was read: an operation of this daemon of which no message told, else
 * STORE_BY_ELSEWHERE. */
enum store_by watch_changed_by(const struct watched *c, const struct circuit *circuit, bool absent);

/* Notes what the store has, and calls `changed` if that is news. */
void watch_note(struct watch *w, const struct store_change *change);

/* NULL stands for no override. */
bool watch_same_override(const struct breaker_override *a, const struct breaker_override *b);

/* True if what was read is not what is known; c is NULL if nothing is known. */
bool watch_differs(const struct watched *c, enum circuit_state state,
		   const struct breaker_override *override);

/* watch_list.c */

/* The callback of list_timer: goes on with a listing, or begins one. */
void watch_list_on_timer(evutil_socket_t fd, short what, void *arg);

/* watch_read.c */

extern const struct recheck_events watch_recheck_events;

#endif
