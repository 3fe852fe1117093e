/*
 * The embedded store's memory: circuits by key, bounded, with a time to live. No call
 * costs more with more circuits (keytable.h). A circuit may have a member: bytes in the same piece
 * of memory, which live as long as the circuit. A circuit without a member takes no room for one.
 */
#ifndef BREAKERD_CIRCUIT_TABLE_H
#define BREAKERD_CIRCUIT_TABLE_H

#include "proto/circuit.h"

#include <stddef.h>
#include <stdint.h>

struct circuit_table;
struct metrics;

/* A circuit in the table. Valid until the next call that may add or remove one. */
struct circuit_entry;

enum circuit_table_status {
	TABLE_OK,
	TABLE_FULL, /* at its bound, and every circuit is open or half-open */
	TABLE_NO_MEMORY,
};

/* NULL when out of memory. Keeps the gauge of circuits by state, and counts evictions and
 * expirations, in metrics (may be NULL). */
struct circuit_table *circuit_table_new(size_t max, int64_t ttl_ms, struct metrics *metrics);
void circuit_table_free(struct circuit_table *t);

/* Sets the clock by which openings and overrides end (epoch milliseconds). Without it that is the
 * wall clock. */
void circuit_table_set_clock(struct circuit_table *t, int64_t (*now_ms)(void *arg), void *arg);

/* Sets the bound and the time to live. A smaller bound is reached by circuit_table_shrink, and as
 * circuits are added; the time to live holds for all circuits at once. */
void circuit_table_limit(struct circuit_table *t, size_t max, int64_t ttl_ms);

/* NULL if there is none, or if its time to live is over. `now` is monotonic milliseconds
 * here and below. */
struct circuit_entry *circuit_table_find(struct circuit_table *t, const char *key, size_t len,
					 int64_t now);

/*
 * Stores circuit under key, written now. `entry` is what circuit_table_find has just returned, also
 * if that is NULL. The circuit's member stays. A full table makes room by dropping what has
 * expired, then the closed circuit that was written least recently.
 */
enum circuit_table_status circuit_table_write(struct circuit_table *t, struct circuit_entry *entry,
					      const char *key, size_t len,
					      const struct circuit *circuit, int64_t now);

/*
 * The same, and the circuit's member becomes these `member_len` bytes; 0: it has none.
 */
enum circuit_table_status circuit_table_write_member(struct circuit_table *t,
						     struct circuit_entry *entry, const char *key,
						     size_t len, const struct circuit *circuit,
						     const void *member, size_t member_len,
						     int64_t now);

void circuit_table_remove(struct circuit_table *t, struct circuit_entry *entry);

const struct circuit *circuit_entry_get(const struct circuit_entry *entry);
const char *circuit_entry_key(const struct circuit_entry *entry, size_t *len);
/* The member and its length; of length 0: there is none. */
const unsigned char *circuit_entry_member(const struct circuit_entry *entry, size_t *len);
/* True if its member has an override, which may be over already. While the override holds, the
 * circuit neither expires nor is dropped for another one. */
bool circuit_entry_is_held(const struct circuit_entry *entry);
int64_t circuit_entry_written(const struct circuit_entry *entry); /* monotonic milliseconds */

/* Removes at most `most` circuits whose time is over. Returns when to call it again: monotonic
 * milliseconds, or -1 if the table is empty. */
int64_t circuit_table_expire(struct circuit_table *t, int64_t now, unsigned most);

/* If the table is over its bound, drops at most `most` closed circuits, the least recently written
 * first. True if there are more to drop. Open and half-open ones stay until they close or expire.
 */
bool circuit_table_shrink(struct circuit_table *t, unsigned most);

size_t circuit_table_count(const struct circuit_table *t);

/* Slots 0 to circuit_table_slots - 1 hold the circuits; NULL for an empty slot. */
size_t circuit_table_slots(const struct circuit_table *t);
struct circuit_entry *circuit_table_slot(struct circuit_table *t, size_t slot, int64_t now);

/*
 * All circuits, also those whose time is over, in the order of their last write, the oldest first;
 * then the closed ones with an override, in no order. Nothing may be written or removed during a
 * walk.
 */
struct circuit_walk {
	struct circuit_entry *closed, *tripped, *held; /* the next of each list; private */
};
void circuit_walk_begin(struct circuit_walk *walk, const struct circuit_table *t);
struct circuit_entry *circuit_walk_next(struct circuit_walk *walk); /* NULL: the end */

#endif
