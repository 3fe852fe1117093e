/*
 * One operation on a circuit of the embedded store. All of them finish at once.
 */
#include "store/memory_private.h"
#include "store/packed_breaker.h"

/* After a write: what follows from it; or *result says why it failed. */
static void note_written(struct memory_store *m, enum circuit_table_status status, int64_t now,
			 struct store_result *result)
{
	switch (status) {
	case TABLE_OK:
		break;
	case TABLE_FULL:
		store_refuse(result, STORE_FULL,
			     "max_circuits are stored, and none of them is closed");
		return;
	case TABLE_NO_MEMORY:
		store_refuse(result, STORE_ERROR, "out of memory");
		return;
	}
	memory_changed(m);
	if (circuit_table_count(m->table) > m->store.limits.max_circuits)
		memory_expiry_arm(m, now, now); /* it may just have closed, and can be dropped */
	else
		memory_expiry_ensure(m, now);
}

const struct breaker_override *memory_override(struct memory_store *m,
					       const struct circuit_entry *entry, int64_t now_ms)
{
	size_t len;
	const unsigned char *member = circuit_entry_member(entry, &len);
	struct breaker b;

	if (!packed_breaker_has_override(member, len))
		return NULL;
	packed_breaker_read(member, len, &b);
	m->override = b.override;
	return breaker_override_at(&b, now_ms) ? &m->override : NULL;
}

/* The operation has changed the circuit: tells the follower. */
static void tell(struct memory_store *m, const struct store_request *request,
		 const struct store_result *result, const struct breaker_override *override)
{
	static const enum store_by by[CIRCUIT_VERBS] = {
		[CIRCUIT_TRANSITION] = STORE_BY_TRANSITION,
		[CIRCUIT_RESET] = STORE_BY_RESET,
		[CIRCUIT_ACQUIRE] = STORE_BY_ACQUIRE,
		[CIRCUIT_REPORT] = STORE_BY_REPORT,
		[CIRCUIT_OVERRIDE] = STORE_BY_OVERRIDE,
		[CIRCUIT_END_OVERRIDE] = STORE_BY_OVERRIDE,
	};
	char why[BREAKER_WHY_MAX] = "";
	const struct store_change change = {
		.key = request->key,
		.key_len = request->key_len,
		.circuit = result->circuit,
		.override = override,
		.by = by[request->op.verb],
		.why = why,
	};

	if (request->op.verb == CIRCUIT_ACQUIRE || request->op.verb == CIRCUIT_REPORT)
		breaker_why(why, &result->decision.move);
	store_tell(&m->store, &change);
}

/* Runs an operation that needs the circuit's member. Sets *result to the answer and *b to the new
 * member; stores nothing. */
static enum circuit_effect run_decision(struct memory_store *m, const struct circuit_entry *entry,
					const struct circuit_op *op, struct breaker *b,
					struct store_result *result)
{
	const unsigned char *member = NULL;
	size_t len = 0;

	store_refuse(result, STORE_OK, NULL);
	if (entry) {
		result->circuit = *circuit_entry_get(entry);
		member = circuit_entry_member(entry, &len);
	}
	result->absent = !entry;
	if (op->verb == CIRCUIT_ACQUIRE && result->circuit.state == CIRCUIT_CLOSED &&
	    !packed_breaker_has_override(member, len)) {
		b->override.mode = BREAKER_NO_OVERRIDE;
		breaker_acquire_closed(&result->circuit, entry != NULL, &result->decision);
		return CIRCUIT_READ;
	}
	packed_breaker_read(member, len, b);
	result->now_ms = store_now_ms(&m->clock);
	result->was = result->circuit.state;
	result->was_overridden = breaker_override_at(b, result->now_ms) != NULL;
	return breaker_run(&result->circuit, entry != NULL, b, op, result->now_ms,
			   &result->decision);
}

static void show_override(struct memory_store *m, const struct circuit_entry *entry,
			  struct store_result *result)
{
	result->absent = !entry;
	if (!entry || !circuit_entry_is_held(entry))
		return;
	result->now_ms = store_now_ms(&m->clock);
	result->override = memory_override(m, entry, result->now_ms);
}

enum circuit_effect store_memory_try(struct store *s, const struct store_request *request,
				     struct store_result *result)
{
	struct memory_store *m = memory(s);
	const struct circuit_entry *entry =
		circuit_table_find(m->table, request->key, request->key_len, memory_now(m));
	enum circuit_effect effect;
	struct breaker b;

	if (request->op.verb >= CIRCUIT_ACQUIRE)
		return run_decision(m, entry, &request->op, &b, result);
	store_refuse(result, STORE_OK, NULL);
	if (entry)
		result->circuit = *circuit_entry_get(entry);
	result->was = result->circuit.state;
	effect = circuit_apply(&result->circuit, entry != NULL, &request->op,
			       store_now_ms(&m->clock));
	show_override(m, entry, result);
	return effect;
}

/* Runs and stores an operation that needs the circuit's member. */
static void decide(struct memory_store *m, const struct store_request *request,
		   struct store_result *result)
{
	unsigned char packed[PACKED_BREAKER_MAX];
	int64_t now = memory_now(m);
	struct circuit_entry *entry =
		circuit_table_find(m->table, request->key, request->key_len, now);
	struct breaker b;
	size_t len;

	if (run_decision(m, entry, &request->op, &b, result) == CIRCUIT_WRITTEN) {
		result->absent = false;
		len = packed_breaker_write(packed, &b);
		note_written(m,
			     circuit_table_write_member(m->table, entry, request->key,
							request->key_len, &result->circuit, packed,
							len, now),
			     now, result);
		if (request->op.verb == CIRCUIT_OVERRIDE)
			memory_expiry_arm(m, now, now); /* checks from now on whether it is over */
	}
	if (b.override.mode != BREAKER_NO_OVERRIDE) {
		m->override = b.override;
		result->override = &m->override;
	}
	if (result->status == STORE_OK &&
	    (result->was != result->circuit.state || request->op.verb >= CIRCUIT_OVERRIDE))
		tell(m, request, result, result->override);
}

/* Stores the result of one of the five operations. A transition changes the circuit's member, too.
 */
static enum circuit_table_status write_circuit(struct memory_store *m, struct circuit_entry *entry,
					       const struct store_request *request,
					       const struct circuit *c, int64_t now)
{
	unsigned char packed[PACKED_BREAKER_MAX];
	const unsigned char *member;
	struct breaker b;
	size_t len = 0;

	if (entry && request->op.verb == CIRCUIT_TRANSITION)
		member = circuit_entry_member(entry, &len);
	if (len == 0)
		return circuit_table_write(m->table, entry, request->key, request->key_len, c, now);
	packed_breaker_read(member, len, &b);
	breaker_obey(c, &b, store_now_ms(&m->clock));
	len = packed_breaker_write(packed, &b);
	return circuit_table_write_member(m->table, entry, request->key, request->key_len, c,
					  packed, len, now);
}

struct store_op *memory_submit(struct store *s, const struct store_request *request,
			       store_done_fn *done, void *arg, struct store_result *result)
{
	struct memory_store *m = memory(s);
	const struct breaker_override *override;
	struct circuit_entry *entry;
	int64_t now, wall_ms = 0;

	(void)done;
	(void)arg;
	if (request->op.verb >= CIRCUIT_ACQUIRE) {
		decide(m, request, result);
		return NULL;
	}
	now = memory_now(m);
	entry = circuit_table_find(m->table, request->key, request->key_len, now);
	store_refuse(result, STORE_OK, NULL);
	if (entry)
		result->circuit = *circuit_entry_get(entry);
	result->was = result->circuit.state;
	/* Reading a circuit that exists needs no time. */
	if (!entry || request->op.verb != CIRCUIT_GET_STATE)
		wall_ms = store_now_ms(&m->clock);
	switch (circuit_apply(&result->circuit, entry != NULL, &request->op, wall_ms)) {
	case CIRCUIT_READ:
		show_override(m, entry, result);
		break;
	case CIRCUIT_CONFLICT:
		result->status = STORE_CONFLICT;
		break;
	case CIRCUIT_REMOVED:
		if (entry) {
			circuit_table_remove(m->table, entry);
			memory_changed(m);
			tell(m, request, result, NULL);
		}
		break;
	case CIRCUIT_WRITTEN:
		/* Read before the write, which may move the entry. */
		override = result->was != result->circuit.state && entry &&
					   circuit_entry_is_held(entry)
				   ? memory_override(m, entry, store_peek_ms(&m->clock))
				   : NULL;
		note_written(m, write_circuit(m, entry, request, &result->circuit, now), now,
			     result);
		if (result->was != result->circuit.state && result->status == STORE_OK)
			tell(m, request, result, override);
		break;
	}
	return NULL;
}
