/*
 * The file that keeps the embedded store across restarts: written whole, read whole. Text,
 * one line each:
 *
 *	breakerd-state 1
 *	1700000000000 /api/users {"state":"closed",...}
 *	...
 *	end 2 0123456789abcdef
 *
 * A circuit has its last write in epoch milliseconds, its key (percent-encoded where a byte
 * is '%', a space or a control character), its snapshot (circuit_json.h), with the member
 *`breakerd` if it was decided on; the oldest write stands first. breakerd 0.1.0 passes over that
 *member. The last line has the number of circuits and a checksum: SipHash-1-3 of each line, newline
 *included, with the key (k0, k1) = (checksum of the lines before, 0), which is 0 for the first.
 *
 * On Redis it keeps no circuits but what waits to be folded into Redis (state_steps.h). Its
 * first line then has version 2. Each circuit with steps is a line
 *
 *	step 1700000000000 /api/users <steps>
 *
 * with when it was written here; "fold" instead of "step": they may have been handed over since the
 * file was written. A second line "folding", of earlier versions, says that of all. It is all or
 *nothing: a file in which anything is wrong gives no circuit at all, since a damaged one cannot
 *tell which of its lines are true.
 */
#ifndef BREAKERD_STATE_FILE_H
#define BREAKERD_STATE_FILE_H

#include "store/circuit_queue.h"
#include "store/circuit_table.h"

/* One moment on two clocks. */
struct state_moment {
	int64_t wall_ms;  /* epoch milliseconds: what the file has */
	int64_t table_ms; /* what the table has; monotonic */
};

/*
 * Writes the table to path by way of path.tmp: there is always either the old file or the
 * new one, on disk when the call returns. With `queues`, those that have steps are written
 * instead, and the table has what is answered here. Mode 0600. Blocks. Returns 0 or an
 * errno; path.tmp is then gone.
 */
int state_file_write(const char *path, struct circuit_table *t, struct circuit_queues *queues,
		     const struct state_moment *now);

enum state_file_status {
	STATE_FILE_READ,
	STATE_FILE_NONE,    /* no such file */
	STATE_FILE_DAMAGED, /* not a whole state file, or one of a later version */
	STATE_FILE_FAILED,  /* it cannot be opened, is no regular file, or memory ran out */
};

struct state_file_report {
	size_t restored;
	size_t expired; /* left out: the time to live was over */
	size_t dropped; /* left out: over the table's bound */
	size_t steps;   /* circuits with steps; without queues to put them in they are left out */
	size_t foreign; /* circuits of an embedded store, left out because there are queues */
	char why[256];  /* DAMAGED, FAILED: a few words, without the file's name */
};

/*
 * Reads path into the empty table t, which stays empty unless it returns STATE_FILE_READ. The
 * time to live went on meanwhile: an age is taken from the wall clock, but is never below
 * 0, so that a clock set back makes no circuit live longer than ttl_ms from now. Of
 * too many circuits the least recently written closed ones are dropped; where the open and
 * half-open ones alone are too many, the last written of them. Steps go into `queues`, empty
 * too, however many they are; NULL: this is an embedded store.
 */
enum state_file_status state_file_read(const char *path, struct circuit_table *t,
				       struct circuit_queues *queues, int64_t ttl_ms,
				       const struct state_moment *now,
				       struct state_file_report *report);

/* The name of the file beside path in which path is written: path.tmp. False: too long. */
bool state_file_tmp(char *out, size_t size, const char *path);

#endif
