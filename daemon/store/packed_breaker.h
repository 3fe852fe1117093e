/*
 * The member `breakerd` of a circuit (breaker.h) as the embedded store keeps it: packed to what
 * is in use, since the unpacked one has room for everything at once. Not for files or other
 * programs: it depends on the machine. Reading and writing it costs far less than its text.
 */
#ifndef BREAKERD_PACKED_BREAKER_H
#define BREAKERD_PACKED_BREAKER_H

#include "proto/breaker.h"

/* Room for any. A window without failures takes 48 bytes and 5 a slot; one with failures 13 a
 * slot and 2 for each daemon that had some; a probe that is out 8. */
#define PACKED_BREAKER_MAX 1400

/* Returns the length; 0 if there is no member. */
size_t packed_breaker_write(unsigned char buf[PACKED_BREAKER_MAX], const struct breaker *b);

/* Reads what packed_breaker_write has written; of length 0, no member. */
void packed_breaker_read(const unsigned char *buf, size_t len, struct breaker *b);

/* breaker_matters_until; 0: there is no member. */
int64_t packed_breaker_matters_until(const unsigned char *buf, size_t len, int64_t now_ms);

/* True if it has an override, which may be over. */
bool packed_breaker_has_override(const unsigned char *buf, size_t len);

#endif
