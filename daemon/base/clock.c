/* Clocks: see clock.h. */
#include "base/clock.h"

static int64_t read_ns(clockid_t id)
{
	struct timespec now;

	clock_gettime(id, &now);
	return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

int64_t clock_steady_ms(void)
{
	static int64_t boot_wall_ms; /* set once; not 0 then, for no machine was started in 1970 */
	int64_t boot_ms = read_ns(CLOCK_BOOTTIME) / 1000000;

	if (boot_wall_ms == 0)
		boot_wall_ms = clock_wall_ms() - boot_ms;
	return boot_wall_ms + boot_ms;
}

int64_t clock_forward_ms(void)
{
	static int64_t
		offset_ns; /* of the wall clock to CLOCK_BOOTTIME; kept if it shrinks a little */
	/* The wall clock first: a pause between the two reads makes it look set back, not ahead. */
	int64_t wall_ns = read_ns(CLOCK_REALTIME), boot_ns = read_ns(CLOCK_BOOTTIME);
	int64_t now_offset_ns = wall_ns - boot_ns;

	if (now_offset_ns > offset_ns || now_offset_ns < offset_ns - CLOCK_SET_BACK_MS * 1000000)
		offset_ns = now_offset_ns;
	return (offset_ns + boot_ns) / 1000000;
}
