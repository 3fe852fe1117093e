/*
 * Shared by the files of the embedded store; nobody else includes this. Each file uses only those
 * above it in this list:
 *
 *	memory_expiry.c  circuits that are removed by a timer: their time to live, a lowered bound
 *	memory_op.c      one operation on a circuit
 *	memory_list.c    listings
 *	memory.c         the store itself, what is put into it, its state file
 */
#ifndef BREAKERD_STORE_MEMORY_PRIVATE_H
#define BREAKERD_STORE_MEMORY_PRIVATE_H

#include "base/clock.h"
#include "base/later.h"
#include "store/circuit_table.h"
#include "store/driver.h"
#include "store/state_keeper.h"

/* At most this many circuits expire in one turn of the loop: some 100 us. */
#define EXPIRE_STEP 1000

struct memory_store {
	struct store store;
	struct store_clock clock;
	struct circuit_table *table;
	struct metrics *metrics;
	struct state_keeper *keeper; /* or NULL */
	struct event *expiry;        /* set while the table is not empty */
	bool expiry_armed;           /* `expiry` is set */
	int64_t started_ms;
	uint32_t cursor_mark;                        /* in each cursor, random */
	struct breaker_override override;            /* the last result points to it */
	TAILQ_HEAD(memory_lists, memory_list) lists; /* listings under way */
	unsigned list_count;
	struct later *list_turn; /* the first of them go on */
};

static inline struct memory_store *memory(struct store *s)
{
	return (struct memory_store *)s;
}

/* The clock of the time to live: monotonic milliseconds. */
static inline int64_t memory_now(struct memory_store *m)
{
	return m->clock.monotonic_ms ? m->clock.monotonic_ms(m->clock.arg) : clock_ms();
}

/* The circuits have changed: if there is a state file, it is to be written. */
static inline void memory_changed(struct memory_store *m)
{
	if (m->keeper)
		state_keeper_changed(m->keeper);
}

/* --- memory_expiry.c */

/* Sets the timer `expiry` to `next`, on the clock of memory_now; does nothing if that is negative.
 */
void memory_expiry_arm(struct memory_store *m, int64_t now, int64_t next);

/* The table is not empty: sets the timer, unless it is set. */
void memory_expiry_ensure(struct memory_store *m, int64_t now);

/* Removes some of the circuits whose time is over, and of those over a bound that was lowered. */
void memory_expire_step(struct memory_store *m);

/* The timer `expiry`. For libevent. */
void memory_on_expiry(evutil_socket_t fd, short what, void *arg);

/* --- memory_op.c */

/* The driver's `submit`. */
struct store_op *memory_submit(struct store *s, const struct store_request *request,
			       store_done_fn *done, void *arg, struct store_result *result);

/* The override that holds, or NULL. Valid until the next operation or call of this. */
const struct breaker_override *memory_override(struct memory_store *m,
					       const struct circuit_entry *entry, int64_t now_ms);

/* --- memory_list.c */

/* Goes on with listings, for memory_store.list_turn. */
void memory_on_list_turn(void *arg);

/* The driver's `list`, and its `detach`: only listings are under way. */
struct store_op *memory_list(struct store *s, const struct store_query *query, store_done_fn *done,
			     void *arg, struct store_result *result);
void memory_detach(struct store_op *op, struct store_result *verdict);

#endif
