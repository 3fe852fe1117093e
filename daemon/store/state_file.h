/*
 * The file that keeps the embedded store across restarts: written whole, read whole. Text, one line
 * each:
 *
 *	breakerd-state 1
 *	1700000000000 /api/users {"state":"closed",...}
 *	...
 *	end 2 0123456789abcdef
 *
 * A circuit's line has its last write in epoch milliseconds, its key (percent-encoded where a byte
 * is '%', a space or a control character) and its snapshot (circuit_json.h), with the member
 * `breakerd` if breakerd has decided on it; breakerd 0.1.0 ignores that member. The oldest write
 * stands first. The last line has the number of circuits and a checksum: SipHash-1-3 of each line,
 * newline included, with the key (k0, k1) = (checksum of the lines before, 0), which is 0 for the
 * first.
 *
 * On Redis the file keeps no circuits but what waits to be folded into Redis (state_steps.h). Its
 * first line then has version 2. Each circuit with steps is a line
 *
 *	step 1700000000000 /api/users <steps>
 *
 * with the time of its last write here. The word is "fold" instead of "step" if the steps may have
 * been handed over since the file was written. Earlier versions wrote a second line "folding",
 * which says this of all circuits.
 *
 * A file in which anything is wrong gives no circuit at all: nobody can tell which of its lines are
 * true.
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
 * Writes the table to path.tmp, which then becomes path: there is always either the old file or the
 * new one. The new one is on disk when the call returns. With `queues`, those that have steps are
 * written instead, and their circuits are taken from the table. Mode 0600. Blocks. Returns 0, or an
 * errno, and path.tmp is gone.
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
	size_t expired; /* left out because the time to live was over */
	size_t dropped; /* left out because the table was full */
	size_t steps;   /* circuits with steps; left out if there are no queues for them */
	size_t foreign; /* circuits of an embedded store, left out because there are queues */
	char why[256];  /* DAMAGED, FAILED: a few words, without the file's name */
};

/*
 * Reads path into the empty table t, which stays empty unless it returns STATE_FILE_READ. The time
 * to live has gone on meanwhile. A circuit's age comes from the wall clock and is never below 0: if
 * the clock was set back, no circuit lives longer than ttl_ms from now. If there are too many
 * circuits, the least recently written closed ones are dropped; if the open and half-open ones
 * alone are too many, the last written of them. Steps go into `queues`, which must be empty too,
 * however many they are. NULL: this is an embedded store.
 */
enum state_file_status state_file_read(const char *path, struct circuit_table *t,
				       struct circuit_queues *queues, int64_t ttl_ms,
				       const struct state_moment *now,
				       struct state_file_report *report);

/* Puts path.tmp, the name under which path is written, into out. False: it is too long. */
bool state_file_tmp(char *out, size_t size, const char *path);

#endif
