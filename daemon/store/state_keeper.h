/*
 * Keeps a circuit_table in a file (state_file.h) while the loop runs: read at the start,
 * written some seconds after a change, and at the end.
 *
 * The loop is not held up by the writing: a child made with fork(2) has the table as it was
 * at that moment and writes it, as Redis does for its RDB file. What remains for the loop
 * is the fork, which copies the page tables, and then a page fault for each page written
 * meanwhile. docs/development.md has the figures.
 */
#ifndef BREAKERD_STATE_KEEPER_H
#define BREAKERD_STATE_KEEPER_H

#include "store/store.h"

struct circuit_queues;
struct circuit_table;
struct state_keeper;

/* At most one save in this time, while things change. A crash loses what is younger. */
#define STATE_KEEPER_INTERVAL_MS 5000

struct state_keeper_options {
	const char *path;     /* copied */
	int64_t ttl_ms;       /* what is older is not restored */
	unsigned interval_ms; /* 0: STATE_KEEPER_INTERVAL_MS */
	unsigned timeout_ms;  /* a child that takes longer is killed; 0: by the table's size */
	unsigned lock_ms;     /* how long to wait for a breakerd that is about to end; 0: 5 s */
	/* NULL: the table is an embedded store's. Else its steps are kept, and of the table what
	 * belongs to them; empty at first, and outlives the keeper. */
	struct circuit_queues *queues;
};

/*
 * Restores the empty table, and keeps it from now on. Blocks, for it is the start. A file
 * that is damaged becomes path.damaged (or .damaged.2 to .damaged.9: those kept before
 * stay); that is logged, and the table starts empty. Of a symbolic link, the file that it
 * leads to is written, also one that does not exist yet. Holds a lock on path.lock, so that
 * no two processes keep one file. With queues, a file that holds the circuits of an
 * embedded store is set aside in the same way, as path.embedded.
 *
 * NULL with one sentence in why (NUL-terminated, cut to why_size): the file cannot be read
 * or its directory not be written, another process has it, or memory ran out. `metrics`
 * and `log` may be NULL. All but the options must outlive the keeper; the process must not
 * wait for unknown children, and reads no other SIGCHLD.
 */
struct state_keeper *state_keeper_new(const struct state_keeper_options *options,
				      struct event_base *base, struct circuit_table *table,
				      struct store_clock clock, struct metrics *metrics,
				      struct log *log, char *why, size_t why_size);

/* The table has changed: to be called for each write and removal. Costs next to nothing. */
void state_keeper_changed(struct state_keeper *k);

/*
 * Saves at once. done(arg) comes once, perhaps from inside the call: what there was at the time
 * of the call is on disk, or it cannot be written, and then the file that was there is removed
 * if at all possible. A call while another one is not done yet replaces it.
 */
void state_keeper_save(struct state_keeper *k, void (*done)(void *arg), void *arg);

/*
 * Saves what is not saved, which blocks, until end_ms (monotonic; 0: 5 s from now) at the
 * latest, and ends. A save that takes longer is given up, which is logged: a disk that hangs
 * must not hold up a stop. The table is still there. NULL is allowed. True if all is on disk.
 */
bool state_keeper_free(struct state_keeper *k, int64_t end_ms);

#endif
