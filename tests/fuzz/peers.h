/*
 * The other side of hiredis's connections, for the fuzz targets of Redis: connect(2) gives the
 * daemon one end of a socket pair and us the other. The clock of its deadlines moves by
 * peers_wait alone.
 */
#ifndef BREAKERD_TESTS_FUZZ_PEERS_H
#define BREAKERD_TESTS_FUZZ_PEERS_H

#include <event2/event.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PEERS_MAX 8

/* To be set before the daemon's first connection: base and most. */
struct peers {
	struct event_base *base;
	size_t most;        /* further connections are refused; PEERS_MAX at most */
	int fds[PEERS_MAX]; /* our ends; -1: closed */
	size_t count;
	size_t to;         /* the one that is sent to: the last, until a target says another */
	int64_t passed_ms; /* by peers_wait */
};
extern struct peers peers;

bool peers_up(size_t n);

/* Lets the loop do what it can do at once, and takes in what is sent to us. */
void peers_turn(void);

/* Moves the clock, and lets the loop run. */
void peers_wait(int64_t ms);

/* Sends as much as is taken, and lets the loop run. */
void peers_say(size_t n, const char *text, size_t len);

/* Closes our end, and lets the loop run. */
void peers_hang_up(size_t n);

/* Closes all, and forgets the loop. */
void peers_end(void);

#endif
