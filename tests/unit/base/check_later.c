#include "base/later.h"
#include "suite.h"

#include <event2/event.h>

struct chain {
	struct event_base *base;
	struct later *later;
	unsigned calls;
	unsigned timer_at; /* `calls` when the other timer fired */
};

static void go_on(void *arg)
{
	struct chain *chain = arg;

	/* With event_active instead, libevent would fire no timer before the chain ends. */
	if (++chain->calls < 1000)
		later_run(chain->later);
}

static void on_timer(evutil_socket_t fd, short what, void *arg)
{
	struct chain *chain = arg;

	(void)fd;
	(void)what;
	chain->timer_at = chain->calls;
}

static void chain_init(struct chain *chain)
{
	*chain = (struct chain){.base = event_base_new()};
	ck_assert_ptr_nonnull(chain->base);
	chain->later = later_new(chain->base, go_on, chain);
	ck_assert_ptr_nonnull(chain->later);
}

static void chain_fini(struct chain *chain)
{
	later_free(chain->later);
	event_base_free(chain->base);
}

START_TEST(work_that_goes_on_lets_timers_run)
{
	static const struct timeval zero = {0};
	struct chain chain;
	struct event *timer;

	chain_init(&chain);
	later_run(chain.later);
	timer = evtimer_new(chain.base, on_timer, &chain);
	event_add(timer, &zero);
	event_base_dispatch(chain.base);
	ck_assert_uint_eq(chain.calls, 1000);
	ck_assert_uint_lt(chain.timer_at, 5);
	event_free(timer);
	chain_fini(&chain);
}
END_TEST

START_TEST(several_runs_are_one)
{
	struct chain chain;

	chain_init(&chain);
	chain.calls = 5000;
	later_run(chain.later);
	later_run(chain.later);
	ck_assert(later_pending(chain.later));
	event_base_dispatch(chain.base);
	ck_assert_uint_eq(chain.calls, 5001);
	ck_assert(!later_pending(chain.later));
	chain_fini(&chain);
}
END_TEST

START_TEST(what_is_cancelled_does_not_run)
{
	struct chain chain;

	chain_init(&chain);
	later_run(chain.later);
	later_cancel(chain.later);
	event_base_dispatch(chain.base);
	ck_assert_uint_eq(chain.calls, 0);
	chain.calls = 5000;
	later_run(chain.later);
	event_base_dispatch(chain.base);
	ck_assert_uint_eq(chain.calls, 5001);
	chain_fini(&chain);
}
END_TEST

START_TEST(what_is_pending_can_run_now)
{
	struct chain chain;

	chain_init(&chain);
	chain.calls = 5000;
	later_now(chain.later);
	ck_assert_uint_eq(chain.calls, 5000);
	later_run(chain.later);
	later_now(chain.later);
	ck_assert_uint_eq(chain.calls, 5001);
	ck_assert(!later_pending(chain.later));
	event_base_dispatch(chain.base);
	ck_assert_uint_eq(chain.calls, 5001);
	chain_fini(&chain);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("later");
	TCase *tc = tcase_create("later");

	tcase_add_test(tc, work_that_goes_on_lets_timers_run);
	tcase_add_test(tc, several_runs_are_one);
	tcase_add_test(tc, what_is_cancelled_does_not_run);
	tcase_add_test(tc, what_is_pending_can_run_now);
	suite_add_tcase(s, tc);
	return suite_run(s);
}
