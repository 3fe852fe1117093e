/*
 * Circuits that are read again, one at a time: when their time to live is over nobody tells, and a
 * message or what another program did may have been missed. Soon at first, then more and more
 * seldom.
 */
#ifndef BREAKERD_API_RECHECK_H
#define BREAKERD_API_RECHECK_H

#include "base/minheap.h"
#include "store/store.h"

struct event;
struct event_base;

/* Of a circuit. Begins as zeros. */
struct recheck_node {
	struct minheap_node due; /* value: when it is read again, monotonic */
	unsigned ms;             /* how long after it was read last */
	bool doubted;            /* what was read last is not what is known */
};

struct recheck_events {
	const char *(*key)(const struct recheck_node *node, size_t *len);
	/* What was read, at began_ms (monotonic), is not what is known, and no older. */
	bool (*differs)(const struct recheck_node *node, const struct store_result *result,
			int64_t began_ms);
	/* It is to be read again and again. */
	bool (*stays)(const struct recheck_node *node);
	/* It was so twice. */
	void (*take)(struct recheck_node *node, const struct store_result *result);
};

struct recheck {
	struct store *store;
	const struct recheck_events *on;
	struct minheap nodes;
	struct event *timer;
	struct store_op *op;
	struct recheck_node *reading; /* NULL: it is not known any more */
	int64_t began_ms;
};

/* 0, or -1 when out of memory. */
int recheck_init(struct recheck *r, struct event_base *base, struct store *store,
		 const struct recheck_events *events);
void recheck_fini(struct recheck *r);

/* It has just become what it is: it is read in 2 s, 4 s and so on, up to once a minute. */
void recheck_begin(struct recheck *r, struct recheck_node *node);
/* It is not read any more. */
void recheck_end(struct recheck *r, struct recheck_node *node);
/* It was read and was not what is known: it is read again soon. */
void recheck_doubt(struct recheck *r, struct recheck_node *node);
/* It is read at once, and once is enough. */
void recheck_now(struct recheck *r, struct recheck_node *node);

#endif
