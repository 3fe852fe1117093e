/*
 * The text of a permit: what it says, and a checksum of that and the circuit's key. The checksum
 * tells permits that some daemon may have given for this circuit from those of other circuits and
 * from any other text, without a secret and without remembering permits. It guards against
 * mistakes, not against clients that lie: these can report what they like anyway.
 */
#ifndef BREAKERD_PROTO_BREAKER_PERMIT_H
#define BREAKERD_PROTO_BREAKER_PERMIT_H

#include "proto/breaker.h"

/* Room for any permit with its NUL; a permit has 1 to 64 of A-Z a-z 0-9 . _ - */
#define BREAKER_PERMIT_MAX 65

/* Writes the permit, which is of any kind but BREAKER_PERMIT_NONE, and a NUL. Returns the length
 * without the NUL. */
size_t breaker_permit_encode(char buf[BREAKER_PERMIT_MAX], const struct breaker_permit *permit,
			     const char *key, size_t key_len);

/* Reads a permit. False, and *permit untouched, if no daemon can have given it for the circuit
 * `key`.
 */
bool breaker_permit_decode(const char *text, size_t len, const char *key, size_t key_len,
			   struct breaker_permit *permit);

#endif
