/*
 * The cursor of a listing: SCAN's cursors and our own, as text.
 */
#ifndef BREAKERD_REDIS_LIST_CURSOR_H
#define BREAKERD_REDIS_LIST_CURSOR_H

#include "store/store.h"

/* Where a listing stands: in the step from the SCAN cursor `start` to `end` (list.c). */
struct redis_list_cursor {
	uint64_t start;
	uint64_t end;       /* if has_end; 0 is the end of everything */
	bool has_end;       /* an earlier page has ended within the step */
	char last[KEY_MAX]; /* if has_end: go on after this key */
	size_t last_len;
};

/*
 * Reads our cursor into *cursor, which is zeroed. False if it is none. "" begins a listing;
 *otherwise it is
 *
 *	start                   go on at the beginning of a step, or
 *	start.end.base64(key)   go on within the step from start to end, after that key
 */
bool redis_list_cursor_read(const char *text, struct redis_list_cursor *cursor);

/* Writes the cursor to go on at `start`: "" if that is 0, the end. */
void redis_list_cursor_write_start(char text[STORE_CURSOR_MAX], uint64_t start);

/* Writes the cursor to go on in the step from start to end, after that key. */
void redis_list_cursor_write_key(char text[STORE_CURSOR_MAX], uint64_t start, uint64_t end,
				 const char *key, size_t key_len);

/* Reads one of SCAN's cursors, and sets *end behind it. False if it is none. */
bool redis_scan_cursor_read(const char *text, const char **end, uint64_t *cursor);

/* How far a scan has come that may go on at this cursor: grows with each call of SCAN. Redis's
 * cursors grow if their bits are read in reverse (dictScan in dict.c of Redis). */
uint64_t redis_scan_position(uint64_t cursor);

#endif
