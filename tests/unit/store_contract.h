/*
 * What every store promises (store.h), as one suite. Each store's test program adds the suite to
 * its own, with a function that makes a fresh, empty store.
 */
#ifndef BREAKERD_TESTS_STORE_CONTRACT_H
#define BREAKERD_TESTS_STORE_CONTRACT_H

#include "store/store.h"

#include <check.h>

struct event_base;

struct store_fixture {
	/* An empty store on base, ready to serve. Fails the test if it cannot be made. */
	struct store *(*open)(struct event_base *base, const struct store_limits *limits);
	/* Called after store_free; may be NULL. */
	void (*close)(void);
	/* Now by the store's clock, epoch milliseconds. */
	int64_t (*now_ms)(void);
};

/* The cases of the contract; `fixture` is static. */
TCase *store_contract(const struct store_fixture *fixture);

/* Limits for tests: 5 s, 100 in flight, a time to live of an hour, 1,000 circuits. */
struct store_limits store_test_limits(void);

/*
 * Runs the loop until the answer is there. Fails the test if no answer comes within 10 s, or if it
 * comes from inside the call or twice. The caller frees the page, if any.
 */
struct store_result store_run(struct event_base *base, struct store *s,
			      const struct store_request *request);
struct store_result store_run_list(struct event_base *base, struct store *s,
				   const struct store_query *query);

/* Runs one operation on a key; it must end with `status`. */
struct store_result store_do(struct event_base *base, struct store *s, const char *key,
			     struct circuit_op op, enum store_status status);

/* The operations, for short. */
#define OP_GET       ((struct circuit_op){.verb = CIRCUIT_GET_STATE})
#define OP_SUCCESS   ((struct circuit_op){.verb = CIRCUIT_RECORD_SUCCESS})
#define OP_FAILURE   ((struct circuit_op){.verb = CIRCUIT_RECORD_FAILURE})
#define OP_RESET     ((struct circuit_op){.verb = CIRCUIT_RESET})
#define OP_TO(STATE) ((struct circuit_op){.verb = CIRCUIT_TRANSITION, .to = (STATE)})
#define OP_FROM_TO(FROM, TO)                                                                       \
	((struct circuit_op){                                                                      \
		.verb = CIRCUIT_TRANSITION, .to = (TO), .has_from = true, .from = (FROM)})

#endif
