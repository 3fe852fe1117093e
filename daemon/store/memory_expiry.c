/*
 * Removes circuits by a timer, in steps: those whose time to live is over, and those over a bound
 * that was lowered.
 */
#include "base/timer.h"
#include "store/memory_private.h"

void memory_expiry_arm(struct memory_store *m, int64_t now, int64_t next)
{
	if (next >= 0)
		m->expiry_armed = timer_arm(m->expiry, next - now) == 0;
}

void memory_expiry_ensure(struct memory_store *m, int64_t now)
{
	if (!m->expiry_armed)
		memory_expiry_arm(m, now, now + m->store.limits.ttl_ms);
}

void memory_expire_step(struct memory_store *m)
{
	int64_t now = memory_now(m);
	int64_t next = circuit_table_expire(m->table, now, EXPIRE_STEP);
	size_t before = circuit_table_count(m->table);

	if (circuit_table_shrink(m->table, EXPIRE_STEP))
		next = now;
	if (circuit_table_count(m->table) < before)
		memory_changed(m);
	memory_expiry_arm(m, now, next);
}

void memory_on_expiry(evutil_socket_t fd, short what, void *arg)
{
	struct memory_store *m = arg;

	(void)fd;
	(void)what;
	m->expiry_armed = false;
	memory_expire_step(m);
}
