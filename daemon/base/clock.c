#include "base/clock.h"

int64_t clock_steady_ms(void)
{
	static int64_t apart_ms; /* set once; not 0 then, for no machine was started in 1970 */
	struct timespec now;
	int64_t steady_ms;

	clock_gettime(CLOCK_BOOTTIME, &now);
	steady_ms = (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
	if (apart_ms == 0)
		apart_ms = clock_wall_ms() - steady_ms;
	return apart_ms + steady_ms;
}
