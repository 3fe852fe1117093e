/*
 * Circuits that are read again and again, one at a time. Nobody tells when a circuit's time to live
 * ends, and a message, or what another program did, may have been missed. The interval begins
 * short and doubles.
 */
#ifndef BREAKERD_API_RECHECK_H
#define BREAKERD_API_RECHECK_H

#include "base/minheap.h"
#include "store/store.h"

struct event;
struct event_base;

/* The part of a circuit's entry that is for rechecks. Begins as zeros. */
struct recheck_node {
	struct minheap_node due; /* value: when the circuit is read next, monotonic */
	unsigned interval_ms;    /* between the last read and the next one */
	bool doubted;            /* the last read differed from what is known */
};

struct recheck_events {
	const char *(*key)(const struct recheck_node *node, size_t *len);
	/* True if the result of a read that began at began_ms (monotonic) differs from what is
	 * known, and what is known is no newer. */
	bool (*differs)(const struct recheck_node *node, const struct store_result *result,
			int64_t began_ms);
	/* True if the circuit is still to be read from time to time. */
	bool (*keeps)(const struct recheck_node *node);
	/* Two reads in a row have differed: takes the result over. */
	void (*take)(struct recheck_node *node, const struct store_result *result);
};

struct recheck {
	struct store *store;
	const struct recheck_events *on;
	struct minheap nodes;
	struct event *timer;
	struct store_op *op;
	struct recheck_node *reading; /* by op; NULL: its entry was removed meanwhile */
	int64_t read_began_ms;
};

/* 0, or -1 when out of memory. */
int recheck_init(struct recheck *r, struct event_base *base, struct store *store,
		 const struct recheck_events *events);
void recheck_fini(struct recheck *r);

/* The circuit has just changed: it is read after 2 s, then after 4 s and so on, up to a minute. */
void recheck_begin(struct recheck *r, struct recheck_node *node);
/* The circuit is not read any more. */
void recheck_end(struct recheck *r, struct recheck_node *node);
/* Something read differs from what is known: the circuit is read again soon. */
void recheck_doubt(struct recheck *r, struct recheck_node *node);
/* The circuit is read at once, and a single read that differs is taken over. */
void recheck_now(struct recheck *r, struct recheck_node *node);

#endif
