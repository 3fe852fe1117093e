/*
 * A store in the place of Redis, for tests of what stands above it: it comes and goes,
 * answers or loses what it was given, as each test says.
 */
#ifndef BREAKERD_TESTS_SCRIPTED_STORE_H
#define BREAKERD_TESTS_SCRIPTED_STORE_H

#include "store/driver.h"

enum mood {
	ANSWER,    /* as an embedded store does, in the next turn of the loop */
	HOLD,      /* say nothing */
	LOSE,      /* take it, and lose it in the next turn */
	REFUSE,    /* surely not taken, in the next turn */
	FAIL,      /* an error of the store's own, in the next turn */
	FAIL_STEP, /* that for a step, and ANSWER for an operation */
	/* As ANSWER, but for a step: it goes down, and says nothing of the step, which ... */
	LOSE_STEP, /* it has not taken */
	HIDE_STEP, /* it has taken */
};

/* An operation or a step that was handed over. */
struct scripted_op {
	struct store_op op;
	struct event *turn;
	enum mood mood;
	bool writes;
	struct circuit_op what; /* its call is kept */
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
	void (*meanwhile)(void); /* runs once: behind the next answer, before it arrives */
	char journal[1024];      /* what was applied: "f:key" an operation, "w:key" a step */
};

/* The one that is open. */
extern struct scripted_store *scripted;

/* An empty one that is away. */
struct store *scripted_open(struct event_base *base, const struct store_limits *limits,
			    struct store_clock clock);

/* It is there, or away. */
void scripted_set_up(bool up);

/* It answers what it has held, the oldest first, as its mood now says. */
void scripted_release(void);

/* What it holds, whoever asks. */
struct store_result scripted_get(const char *key);

#endif
