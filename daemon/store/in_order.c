/*
 * Starts an operation in the order of its circuit: it goes straight to main, or into the circuit's
 * queue if there is one.
 */
#include "store/fallback_private.h"

#include <stdlib.h>

static void start(struct fallback_store *f, struct fallback_op *o, store_done_fn *done, void *arg)
{
	store_op_start_open(&f->store, &o->op, done, arg);
	if (o->on_ended)
		store_op_background(&o->op);
}

struct store_op *in_order_submit(struct fallback_store *f, struct fallback_op *o,
				 store_done_fn *done, void *arg, struct store_result *result)
{
	struct circuit_queue *q = circuit_queue_find(&f->queues, o->key, o->key_len);
	struct store_request request = op_request(o);

	if (q) {
		start(f, o, done, arg);
		op_enter_queue(f, q, o);
		fold_back_now(f, q);
		return &o->op;
	}
	if (!op_submit_to_main(f, o, &request, result)) {
		start(f, o, done, arg);
		return &o->op;
	}
	op_settle(f, &request, o->asked, result);
	store_drop_call(&o->operation);
	free(o);
	return NULL;
}

void in_order_go_on(struct fallback_store *f, struct fallback_op *o)
{
	struct circuit_queue *q = circuit_queue_find(&f->queues, o->key, o->key_len);
	struct store_request request = op_request(o);
	struct store_result result;

	if (!f->ready && !f->refuses) { /* main is away: it does not wait */
		op_run_here(f, &request, &result);
		op_finish(f, o, &result);
	} else if (q) {
		op_enter_queue(f, q, o);
		fold_back_now(f, q);
	} else if (op_submit_to_main(f, o, &request, &result)) {
		op_settle(f, &request, o->asked, &result);
		op_finish(f, o, &result);
	}
}
