/*
 * Snapshots as JSON (RFC 8259): as HTTP bodies and as values stored in Redis; and the body of a
 * transition.
 */
#ifndef BREAKERD_PROTO_CIRCUIT_JSON_H
#define BREAKERD_PROTO_CIRCUIT_JSON_H

#include "proto/breaker_member.h"
#include "proto/circuit.h"

/* Room for any encoded snapshot, its final NUL included. */
#define CIRCUIT_JSON_MAX 192

/*
 * Writes the five members, in the order and spelling of JSON.stringify on Stoma's entry,
 * and a NUL. Returns the length without the NUL.
 */
size_t circuit_json_encode(char buf[CIRCUIT_JSON_MAX], const struct circuit *c);

/* Room for circuit_json_encode_member, its final NUL included. */
#define CIRCUIT_JSON_MEMBER_MAX (CIRCUIT_JSON_MAX + BREAKER_TEXT_MAX + 16)

/* The same with a sixth member, `breakerd`: a string with this text (breaker_member.h). If `member`
 * is NULL that is left out. */
size_t circuit_json_encode_member(char buf[CIRCUIT_JSON_MEMBER_MAX], const struct circuit *c,
				  const char *member, size_t len);

/* The largest value that is read from Redis or written to it; circuit.lua has it as MAX. */
#define CIRCUIT_STORED_BYTES_MAX 65536

enum circuit_stored {
	CIRCUIT_STORED_SOUND,    /* all five members present and well typed */
	CIRCUIT_STORED_REPAIRED, /* an object; a missing or ill-typed member took its default */
	CIRCUIT_STORED_NONE,     /* no JSON object: a circuit that does not exist; *c untouched */
};

/*
 * Reads a value as found in Redis. circuit.lua reads it in the same way, and a fuzzer compares
 * the two:
 * - RFC 8259 grammar, whitespace around the value allowed, no byte order mark. Bytes from
 *   0x80 on are accepted inside strings, valid UTF-8 or not, as Stoma's client does;
 *   so is a \u escape of half a surrogate pair.
 * - Names and states may be written with escapes. If a member is there twice, the last one
 *   counts, well typed or not.
 * - Arrays and objects nest at most CIRCUIT_JSON_DEPTH deep, the outermost object being
 *   the first (deeper: CIRCUIT_STORED_NONE).
 * - A number is what strtod makes of the whole token in the C locale, however long it is:
 *   rounded to the nearest double first, judged after. So 3.0, 1.7e12 and
 *   0.99999999999999999999 are integers, and -0, -0.0 and -1e-999 are 0; other negative
 *   ones, fractional ones and those beyond CIRCUIT_INT_MAX (1e999 too) are ill-typed.
 * - Defaults: closed, 0, 0, 0 and for lastStateChange 0.
 * `text` needs no NUL at its end, but must not be NULL. Never allocates, never recurses.
 */
#define CIRCUIT_JSON_DEPTH 512
enum circuit_stored circuit_json_decode_stored(const char *text, size_t len, struct circuit *c);

/*
 * The same, and finds the member `breakerd`: *member points to its text within `text`, if it is a
 * string without escapes; else it is NULL. breaker_member_decode tells whether the text is sound.
 */
enum circuit_stored circuit_json_decode_member(const char *text, size_t len, struct circuit *c,
					       const char **member, size_t *member_len);

enum circuit_body {
	CIRCUIT_BODY_OK,
	CIRCUIT_BODY_INVALID, /* not JSON, no object, a wrong, duplicate or missing member */
	CIRCUIT_BODY_STATE,   /* `to` or `from` is a string that names no state */
};

/*
 * Reads the body of a transition, {"to":STATE} and optionally "from":STATE, into *op.
 * On failure writes one sentence for the client to why (NUL-terminated, cut to why_size,
 * valid UTF-8 without control characters) and leaves *op untouched. A body with both
 * faults is INVALID. `body` must not be NULL; it needs no NUL at its end.
 */
enum circuit_body circuit_json_decode_transition(const char *body, size_t len,
						 struct circuit_op *op, char *why, size_t why_size);

#endif
