/*
 * The member `breakerd` of a circuit (breaker.h) as the embedded store keeps it: only what is in
 * use, since the unpacked struct has room for everything at once. It depends on the machine, so it
 * is not for files or other programs. Reading and writing it costs far less than its text.
 */
#ifndef BREAKERD_PACKED_BREAKER_H
#define BREAKERD_PACKED_BREAKER_H

#include "proto/breaker.h"

/* Room for any member. It takes 48 bytes; 5 for a slot without failures; 13 for a slot with some,
 * and 2 for each daemon that reported them; 8 for a probe that is out. */
#define PACKED_BREAKER_MAX 1400

/* Returns the length; 0 if there is no member. */
size_t packed_breaker_write(unsigned char buf[PACKED_BREAKER_MAX], const struct breaker *b);

/* Reads what packed_breaker_write has written; length 0: no member. */
void packed_breaker_read(const unsigned char *buf, size_t len, struct breaker *b);

/* As breaker_matters_until; 0 if there is no member. */
int64_t packed_breaker_matters_until(const unsigned char *buf, size_t len, int64_t now_ms);

/* True if it has an override, which may be over. */
bool packed_breaker_has_override(const unsigned char *buf, size_t len);

#endif
