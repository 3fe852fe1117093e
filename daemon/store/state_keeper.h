/*
 * Keeps a circuit_table in a file (state_file.h) while the loop runs: read at the start,
 * written some seconds after a change, and at the end.
 *
 * The writing does not hold up the loop: a child made with fork(2) has the table as it was at that
 * moment and writes it, as Redis does for its RDB file. What it costs the loop is the fork, which
 * copies the page tables, and then a page fault for each page written meanwhile.
 * docs/development.md has the figures.
 */
#ifndef BREAKERD_STATE_KEEPER_H
#define BREAKERD_STATE_KEEPER_H

#include "store/store.h"

struct circuit_queues;
struct circuit_table;
struct state_keeper;

/* While the table changes it is saved this often. A crash loses the changes since the last save. */
#define STATE_KEEPER_INTERVAL_MS 5000

struct state_keeper_options {
	const char *path;     /* copied */
	int64_t ttl_ms;       /* what is older is not restored */
	unsigned interval_ms; /* 0: STATE_KEEPER_INTERVAL_MS */
	unsigned timeout_ms;  /* a child that takes longer is killed; 0: by the table's size */
	unsigned lock_ms;     /* how long to wait for a breakerd that is about to end; 0: 5 s */
	/* NULL: the table is an embedded store's, and is kept. Else the steps of these queues are
	 * kept, and the circuits of the table that have steps. Empty at first; must outlive the
	 * keeper. */
	struct circuit_queues *queues;
};

/*
 * Restores the empty table, and keeps it from now on. Blocks: this is the start. A damaged file is
 * renamed to path.damaged (or .damaged.2 to .damaged.9: earlier ones stay), which is logged, and
 * the table starts empty. If path is a symbolic link, the file that it leads to is written, also if
 * it does not exist yet. A lock on path.lock keeps other processes from the same file. With queues,
 * a file that holds the circuits of an embedded store is renamed in the same way, to path.embedded.
 *
 * NULL with one sentence in why (NUL-terminated, cut to why_size): the file cannot be read,
 * its directory cannot be written, another process has the lock, or memory ran out. `metrics`
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
 * Saves at once. Calls done(arg) once, perhaps from inside the call: the state as it was at the
 * time of the call is on disk; or it could not be written, and then the old file is removed if that
 * is possible. A second call before the first is done replaces it: only the second done is called.
 */
void state_keeper_save(struct state_keeper *k, void (*done)(void *arg), void *arg);

/*
 * Saves what is not saved yet, and frees the keeper. Blocks, but not beyond end_ms (monotonic; 0: 5
 * s from now): a save that takes longer is given up and logged, so that a disk that hangs does not
 * hold up a stop. The table must still be there. NULL is allowed. True if all is on disk.
 */
bool state_keeper_free(struct state_keeper *k, int64_t end_ms);

#endif
