/*
 * When a circuit's queue gets its turn with main: the list of queues that wait, its timer, its
 * metrics and its log lines. fold_back.c takes the turns.
 */
#include "base/metrics.h"
#include "base/timer.h"
#include "store/fallback_private.h"

#include <inttypes.h>

void fold_timer_add(struct event *timer, unsigned ms)
{
	if (!evtimer_pending(timer, NULL))
		timer_arm(timer, ms);
}

void fold_count_waiting(struct fallback_store *f)
{
	size_t count = circuit_queues_count(&f->queues);

	if (f->told_changes != f->queues.changes) {
		f->told_changes = f->queues.changes;
		store_memory_changed(f->local);
	}
	if (f->metrics)
		f->metrics->folds_pending = (int64_t)count;
	if (f->folding && count == 0) {
		f->folding = false;
		if (log_allows(f->log, &f->log_limits[FOLD_DONE], LOG_LEVEL_INFO, "folded"))
			log_info(f->log, "folded", "total=%" PRIu64 " lost=%" PRIu64,
				 f->metrics ? f->metrics->folds : 0,
				 f->metrics ? f->metrics->folds_lost : 0);
	}
}

void fold_wait_for_turn(struct fallback_store *f, struct circuit_queue *q, unsigned pause_ms)
{
	circuit_queue_wait(q, QUEUE_IN_READY);
	if (f->ready)
		fold_timer_add(f->fold_timer, pause_ms);
	fold_count_waiting(f);
}

void fold_later(struct fallback_store *f, struct circuit_queue *q)
{
	if (q->phase == QUEUE_WAITS && q->list == QUEUE_IN_NONE)
		fold_wait_for_turn(f, q, FOLD_PAUSE_MS);
	else
		fold_count_waiting(f);
}
