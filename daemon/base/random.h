/*
 * Random numbers that need not be secret: for jitter, and to number things. SplitMix64 (Steele,
 * Lea, Flood: "Fast splittable pseudorandom number generators", 2014).
 */
#ifndef BREAKERD_RANDOM_H
#define BREAKERD_RANDOM_H

#include "base/siphash.h"

#include <stdint.h>

struct random_state {
	uint64_t state;
};

/* Seeds the numbers from the system's random source. */
static inline void random_init(struct random_state *r)
{
	struct siphash_key seed;

	siphash_key_init(&seed);
	r->state = seed.k0;
}

static inline uint64_t random_next(struct random_state *r)
{
	uint64_t z = r->state += UINT64_C(0x9e3779b97f4a7c15);

	z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
	return z ^ z >> 31;
}

/* 0 to below - 1. */
static inline uint64_t random_below(struct random_state *r, uint64_t below)
{
	return random_next(r) % below;
}

#endif
