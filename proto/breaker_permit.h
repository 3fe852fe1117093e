/*
 * The text of a permit: what it is, and a checksum of that and the circuit's key, so that a permit
 * of another circuit, or none at all, is told from one that some daemon may have given. No
 * secret and no memory is needed. It keeps off mistakes, not a client that wants to lie: that
 * one could report what it likes anyway.
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

/* False, and *permit untouched: no daemon can have given this for the circuit `key`. */
bool breaker_permit_decode(const char *text, size_t len, const char *key, size_t key_len,
			   struct breaker_permit *permit);

#endif
