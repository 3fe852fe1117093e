#include "base/clock.h"

static int64_t read_ns(clockid_t id)
{
	struct timespec now;

	clock_gettime(id, &now);
	return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

int64_t clock_steady_ms(void)
{
	static int64_t apart_ms; /* set once; not 0 then, for no machine was started in 1970 */
	int64_t steady_ms = read_ns(CLOCK_BOOTTIME) / 1000000;

	if (apart_ms == 0)
		apart_ms = clock_wall_ms() - steady_ms;
	return apart_ms + steady_ms;
}

int64_t clock_forward_ms(void)
{
	static int64_t apart_ns;
	/* In this order: a pause between the two makes the wall clock look set back. */
	int64_t wall_ns = read_ns(CLOCK_REALTIME), boot_ns = read_ns(CLOCK_BOOTTIME);
	int64_t now_apart_ns = wall_ns - boot_ns;

	if (now_apart_ns > apart_ns || now_apart_ns < apart_ns - CLOCK_SET_BACK_MS * 1000000)
		apart_ns = now_apart_ns;
	return (apart_ns + boot_ns) / 1000000;
}
