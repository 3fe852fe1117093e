/*
 * What circuit.lua is told and what it answers. The head of circuit.lua describes the language.
 */
#ifndef BREAKERD_PROTO_CIRCUIT_SCRIPT_H
#define BREAKERD_PROTO_CIRCUIT_SCRIPT_H

#include "proto/breaker.h"
#include "proto/circuit_json.h"

/* The letter of one of the five operations. */
char circuit_script_letter(const struct circuit_op *op);

/*
 * Operations that are not all among the five are written as "m" and then, separated by semicolons,
 * the token of each operation in order, with a policy before the first acquire or report and
 * wherever the policy changes.
 */

/* Room for what circuit_script_policy and circuit_script_token write, the NUL included. */
#define CIRCUIT_SCRIPT_TOKEN_MAX 512

/*
 * Writes "p" and thirteen numbers, a space between two: consecutive_failures, failure_rate, 1 if
 * slow_time is set and else 0, slow_rate, window, min_calls, min_reporters, open_time, open_growth
 * in thousandths, open_time_max, probes, probe_successes, probe_timeout; times in milliseconds. The
 * store does not need the rest of a policy. Returns the length without the NUL.
 */
size_t circuit_script_policy(char buf[CIRCUIT_SCRIPT_TOKEN_MAX], const struct policy *policy);

/*
 * Writes an operation's token. Returns the length without the NUL.
 *
 *   one of the five   its letter
 *   acquire           "a" and a random number from 0 to 16777215
 *   report            "r" and seven words: the permit's kind (- none, c closed, n absent, p probe,
 *                     x any other), its lastStateChange, its id in six hexadecimal digits; s, f or
 *                     i for the outcome; 1 if it was slow, else 0; the daemon as in
 *                     breaker_member.h; how many equal reports
 *   override          "o" and the mode (1 forced open, 2 forced closed), the milliseconds, and the
 *                     reason in hexadecimal
 *   end of override   "x"
 */
size_t circuit_script_token(char buf[CIRCUIT_SCRIPT_TOKEN_MAX], const struct circuit_op *op);

/* What the script found at one key. */
struct circuit_script_answer {
	bool exists;
	enum circuit_stored stored; /* CIRCUIT_STORED_SOUND also where there was nothing */
	int64_t now_ms;             /* when the operations ran; 0 if none needed the time */
	struct circuit circuit;     /* as it was before them; zeros if there was none */
	const char *member; /* the text of its member breakerd, within the answer; NULL: none */
	size_t member_len;
};

/*
 * Reads the answer for one key. False if it is none. To get the snapshot of each operation, begin
 * with `circuit`, and what breaker_member_decode makes of `member`, and run the operations on them
 * in the order in which they were sent: breaker_run, or circuit_apply if all are letters.
 */
bool circuit_script_read(const char *text, size_t len, struct circuit_script_answer *answer);

/* What the script has published. */
struct circuit_script_message {
	unsigned db;            /* the circuit's database: all of a server share the channel */
	char by;                /* t transition, d reset, a acquire, r report, o override, x its
				   end, w a step */
	bool existed;           /* the circuit existed before */
	enum circuit_state was; /* its state then */
	bool exists;            /* it exists now */
	struct circuit circuit; /* last_state_change is the time of the change, of a reset too */
	const char *member;     /* as in the answer */
	size_t member_len;
	const char *key; /* the whole Redis key */
	size_t key_len;
};

/* Reads a message. False if it is none. */
bool circuit_script_read_message(const char *text, size_t len, struct circuit_script_message *m);

#endif
