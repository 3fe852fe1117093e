/*
 * The embedded store's memory: circuits by key, bounded, with a time to live. No call
 * costs more with more circuits (keytable.h). A circuit may have a member: bytes that belong to
 * it and come and go with it, in the same piece of memory. One without takes no room for it.
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

/* Where it has the store's time from, by which openings and overrides end (epoch milliseconds).
 * Until then the wall clock. */
void circuit_table_set_clock(struct circuit_table *t, int64_t (*now_ms)(void *arg), void *arg);

/* A smaller bound is reached by circuit_table_shrink, and as circuits are added; a new time to
 * live holds for all. */
void circuit_table_limit(struct circuit_table *t, size_t max, int64_t ttl_ms);

/* NULL if there is none, or if its time to live is over. `now` is monotonic milliseconds
 * here and below. */
struct circuit_entry *circuit_table_find(struct circuit_table *t, const char *key, size_t len,
					 int64_t now);

/*
 * Stores circuit under key, written now. `entry` is what circuit_table_find just said, NULL
 * included. A full table makes room by dropping what has expired, then the closed circuit
 * that was written least recently.
 */
enum circuit_table_status circuit_table_write(struct circuit_table *t, struct circuit_entry *entry,
					      const char *key, size_t len,
					      const struct circuit *circuit, int64_t now);

/*
 * As that, and the circuit's member is from now on these `member_len` bytes; 0: none.
 * circuit_table_write leaves the member as it is.
 */
enum circuit_table_status circuit_table_write_member(struct circuit_table *t,
						     struct circuit_entry *entry, const char *key,
						     size_t len, const struct circuit *circuit,
						     const void *member, size_t member_len,
						     int64_t now);

void circuit_table_remove(struct circuit_table *t, struct circuit_entry *entry);

const struct circuit *circuit_entry_get(const struct circuit_entry *entry);
const char *circuit_entry_key(const struct circuit_entry *entry, size_t *len);
/* The member, and its length, 0: none. */
const unsigned char *circuit_entry_member(const struct circuit_entry *entry, size_t *len);
/* True if its member has an override, which may just be over: while it holds, the circuit neither
 * expires nor makes room for another. */
bool circuit_entry_is_held(const struct circuit_entry *entry);
int64_t circuit_entry_written(const struct circuit_entry *entry); /* monotonic milliseconds */

/* Removes at most `most` circuits whose time is over. Returns when to come again: monotonic
 * milliseconds, or -1 if the table is empty. */
int64_t circuit_table_expire(struct circuit_table *t, int64_t now, unsigned most);

/* Over the bound: drops at most `most` closed circuits, the least recently written first. True if
 * there are more of them to drop. Open and half-open ones stay until they close or expire. */
bool circuit_table_shrink(struct circuit_table *t, unsigned most);

size_t circuit_table_count(const struct circuit_table *t);

/* Slots 0 to circuit_table_slots - 1 hold the circuits; NULL for an empty slot. */
size_t circuit_table_slots(const struct circuit_table *t);
struct circuit_entry *circuit_table_slot(struct circuit_table *t, size_t slot, int64_t now);

/*
 * All circuits in the order of their last write, the oldest first, also those whose time
 * is over; then closed ones with an override, in any order. While a walk goes on nothing may be
 * written or removed.
 */
struct circuit_walk {
	struct circuit_entry *closed, *tripped, *held; /* the next of each; the walk's own */
};
void circuit_walk_begin(struct circuit_walk *walk, const struct circuit_table *t);
struct circuit_entry *circuit_walk_next(struct circuit_walk *walk); /* NULL: the end */

#endif
