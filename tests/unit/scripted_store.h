/*
 * A store in the place of Redis, for tests of the layers above it. The test decides when it is
 * up, and whether it answers, holds or loses an operation.
 */
#ifndef BREAKERD_TESTS_SCRIPTED_STORE_H
#define BREAKERD_TESTS_SCRIPTED_STORE_H

#include "store/driver.h"

enum mood {
	/* Unless held, an operation or step ends in the next turn of the loop. */
	ANSWER,    /* apply it, and answer as the embedded store does */
	HOLD,      /* do nothing until scripted_release */
	HOLD_STEP, /* HOLD for a step, ANSWER for an operation */
	LOSE,      /* do not apply it: STORE_UNKNOWN for a write, STORE_UNAVAILABLE for a read */
	REFUSE,    /* do not apply it: STORE_UNAVAILABLE */
	FAIL,      /* do not apply it: STORE_ERROR with `words` */
	FAIL_STEP, /* FAIL for a step, ANSWER for an operation */
	LOSE_STEP, /* a step: do not apply it, go down, STORE_UNKNOWN; an operation: ANSWER */
	HIDE_STEP, /* a step: apply it, go down, STORE_UNKNOWN; an operation: ANSWER */
};

/* An operation or a step that has not ended. */
struct scripted_op {
	struct store_op op;
	struct event *deferred; /* ends it */
	enum mood mood;
	bool writes;
	struct circuit_op what; /* with a copy of its call: store_keep_call */
	bool with_member;
	bool is_fold;
	struct circuit_fold fold;
	size_t key_len;
	char key[KEY_MAX];
};

struct scripted_store {
	struct store store;
	struct store *circuits;
	bool up;
	enum mood mood;
	const char *words; /* of FAIL */
	int64_t offset_ms, error_ms;
	void (*meanwhile)(void); /* called once: the next op is applied, but not yet answered */
	char journal[1024];      /* what was applied: "f:key" an operation, "w:key" a step */
};

/* The store that scripted_open made last. */
extern struct scripted_store *scripted;

/* Makes an empty store that is down. */
struct store *scripted_open(struct event_base *base, const struct store_limits *limits,
			    struct store_clock clock);

/* Sets whether the store is up, and tells the layer above. */
void scripted_set_up(bool up);

/* Ends the held operations and steps as the present mood says, each kind in its order. */
void scripted_release(void);

/* True while a step is held. */
bool scripted_holds_step(void);

/* The circuit as the store has it, past the layers above. */
struct store_result scripted_get(const char *key);

#endif
