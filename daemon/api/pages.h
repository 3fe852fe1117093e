/*
 * Bodies that are more than a snapshot: the listing, its query, readiness, the page for a
 * person.
 */
#ifndef BREAKERD_PAGES_H
#define BREAKERD_PAGES_H

#include "base/metrics.h"
#include "store/store.h"

struct evbuffer;

/*
 * Reads the query of a listing (NULL: none) into *query, which is zeroed. False with a
 * sentence for the client in why.
 */
bool query_decode(const char *text, struct store_query *query, char *why, size_t why_size);

/* {"circuits":[...],"cursor":...}; 0, or -1 when out of memory. */
int pages_listing(const struct store_page *page, struct evbuffer *out);

/* {"status":...,"store":...,"reason":...,"since":...}, for free; NULL when out of memory. */
char *pages_readiness(const struct store_health *health, size_t *len);

/*
 * GET /: version, store, circuits by state (from page if there is one, else from metrics if
 * the store counts there), endpoints. `host` is the Host asked for, or NULL. 0 or -1.
 */
int pages_index(const struct store_health *health, const struct store_page *page,
		const struct metrics *metrics, const char *host, struct evbuffer *out);

#endif
