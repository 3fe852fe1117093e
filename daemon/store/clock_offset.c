#include "store/clock_offset.h"

#include "base/clock.h"
#include "store/driver.h"

#include <stdlib.h>

/* The offset is measured over a round trip, to a few milliseconds: a difference below this is
 * noise, and moves no stamp. */
#define NOISE_MS   25
#define UNKNOWN_MS INT32_MAX
/* For the same reason a new stamp may come out earlier than one seen in main, where it would then
 * have no effect. If it lags by at most this, the stamp is that one + 1; beyond this a clock is
 * wrong, and the stamp stays as it is. */
#define CLOCKS_APART_MS CIRCUIT_FOLD_APART_MS

void clock_offset_init(struct clock_offset *o, const struct store_clock *clock)
{
	*o = (struct clock_offset){.clock = *clock, .error_ms = UNKNOWN_MS};
}

/* A measurement less exact than the last, over a slower round trip, is taken only if the two
 * contradict each other: then a clock was set. */
void clock_offset_measured(struct clock_offset *o, int64_t offset_ms, int64_t error_ms)
{
	int64_t apart_ms = llabs(offset_ms - o->offset_ms);

	if (error_ms > o->error_ms && apart_ms <= error_ms + o->error_ms + NOISE_MS)
		return;
	o->error_ms = error_ms;
	if (apart_ms > NOISE_MS)
		o->offset_ms = offset_ms;
}

int64_t clock_offset_peek(void *arg)
{
	const struct clock_offset *o = arg;

	return (o->clock.now_ms ? store_now_ms(&o->clock) : clock_steady_ms()) + o->offset_ms;
}

int64_t clock_offset_now(void *arg)
{
	struct clock_offset *o = arg;

	o->stamp_ms = clock_offset_peek(o);
	if (o->after_ms >= o->stamp_ms && o->after_ms - o->stamp_ms <= CLOCKS_APART_MS)
		o->stamp_ms = o->after_ms + 1;
	return o->stamp_ms;
}

int64_t clock_offset_monotonic(void *arg)
{
	struct clock_offset *o = arg;

	return o->clock.monotonic_ms ? o->clock.monotonic_ms(o->clock.arg) : clock_ms();
}
