/*
 * SipHash-1-3 (Aumasson, Bernstein, "SipHash: a fast short-input PRF", 2012). Clients choose the
 * keys of circuits. If the hash had no secret, they could choose keys that all have the same hash.
 */
#ifndef BREAKERD_SIPHASH_H
#define BREAKERD_SIPHASH_H

#include <stddef.h>
#include <stdint.h>

struct siphash_key {
	uint64_t k0, k1;
};

/* A key from the system's random source (getrandom(2)), read without blocking. */
void siphash_key_init(struct siphash_key *key);

uint64_t siphash(const struct siphash_key *key, const void *data, size_t len);

#endif
