/*
 * What is said to circuit.lua and what it answers; its head has the language.
 */
#ifndef BREAKERD_PROTO_CIRCUIT_SCRIPT_H
#define BREAKERD_PROTO_CIRCUIT_SCRIPT_H

#include "proto/breaker.h"
#include "proto/circuit_json.h"

/* The letter of one of the five operations. */
char circuit_script_letter(const struct circuit_op *op);

/*
 * Operations among which there is one of the others are "m" and, in order, a semicolon between
 * two: a policy before the first acquire or report and wherever the policy changes, and the token
 * of each operation.
 */

/* Room for circuit_script_policy and circuit_script_token, the NUL included. */
#define CIRCUIT_SCRIPT_TOKEN_MAX 512

/*
 * "p" and thirteen numbers, a space between two: consecutive_failures, failure_rate, 1 if slow_time
 * is set and else 0, slow_rate, window, min_calls, min_reporters, open_time, open_growth in
 * thousandths, open_time_max, probes, probe_successes, probe_timeout; times in milliseconds. The
 * rest of a policy changes nothing in the store. Returns the length without the NUL.
 */
size_t circuit_script_policy(char buf[CIRCUIT_SCRIPT_TOKEN_MAX], const struct policy *policy);

/*
 * The letter of one of the five; "a" and a random number from 0 to 16777215; or "r" and seven
 * words: the permit's kind (- none, c closed, n absent, p probe, x any other), its
 * lastStateChange, its id in six hexadecimal digits, s, f or i for the outcome, 1 if it was slow
 * and else 0, the daemon as in breaker_member.h, and how many reports alike; "o" and an override's
 * mode (1 forced open, 2 forced closed), milliseconds and reason in hexadecimal; "x" to end one.
 * Returns the length without the NUL.
 */
size_t circuit_script_token(char buf[CIRCUIT_SCRIPT_TOKEN_MAX], const struct circuit_op *op);

/* What the script found at one key. */
struct circuit_script_answer {
	bool exists;
	enum circuit_stored stored; /* CIRCUIT_STORED_SOUND also where there was nothing */
	int64_t now_ms;             /* of the operations; 0 where none needed it */
	struct circuit circuit;     /* as it was before them; zeros where there was none */
	const char *member; /* the text of its member breakerd, within the answer; NULL: none */
	size_t member_len;
};

/*
 * Reads the answer for one key. False if it is none. Each operation's own snapshot comes
 * of breaker_run (for letters alone circuit_apply does), in the order in which they were sent,
 * beginning with `circuit` and what breaker_member_decode makes of `member`.
 */
bool circuit_script_read(const char *text, size_t len, struct circuit_script_answer *answer);

/* What the script has published. */
struct circuit_script_message {
	unsigned db;            /* whose circuit it is: a server's databases share the channel */
	char by;                /* t transition, d reset, a acquire, r report, o override, x its
				   end, w a step */
	bool existed;           /* before */
	enum circuit_state was; /* if so */
	bool exists;            /* now */
	struct circuit circuit; /* last_state_change: when, of a reset, too */
	const char *member;     /* as in the answer */
	size_t member_len;
	const char *key; /* the whole Redis key */
	size_t key_len;
};

/* Reads a message. False if it is none. */
bool circuit_script_read_message(const char *text, size_t len, struct circuit_script_message *m);

#endif
