#include "store/state_steps.h"

#include "base/clock.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define STEP_NUMBERS    15
#define SET_AT_LEAST_MS 25

/* In the file, offsets are to the wall clock, because the steady clock is another one in the next
 * process. The two differ if the wall clock was set. A smaller difference is only the time between
 * reading them. */
static int64_t steady_less_wall_ms(void)
{
	int64_t apart_ms = clock_steady_ms() - clock_wall_ms();

	return llabs(apart_ms) < SET_AT_LEAST_MS ? 0 : apart_ms;
}

/* --- writing */

static size_t put_step(char *to, const struct queue_step *s)
{
	const struct circuit_fold *f = &s->fold;
	const int64_t numbers[STEP_NUMBERS] = {
		(int64_t)s->operations,
		s->offset_ms + steady_less_wall_ms(),
		f->failures,
		f->successes,
		f->zero_failures,
		f->zero_successes,
		f->writes,
		f->has_state,
		(int64_t)f->state,
		f->own_state_change,
		f->last_state_change,
		f->last_failure_time,
		f->own_failure_time,
		f->created,
		f->reset,
	};
	size_t len = 0;

	for (int i = 0; i < STEP_NUMBERS; i++)
		len += (size_t)sprintf(to + len, "%s%" PRId64, i ? "," : "", numbers[i]);
	return len;
}

static size_t put_word(char *to, const char *word)
{
	size_t len = strlen(word);

	memcpy(to, word, len + 1);
	return len;
}

static size_t put_circuit(char *to, const struct circuit *c)
{
	return c ? circuit_json_encode(to, c) : put_word(to, "none");
}

size_t state_steps_encode(char buf[STATE_STEPS_MAX], const struct circuit_queue *q,
			  const struct circuit *now)
{
	char *to = buf;

	*to++ = ' ';
	to += q->phase == QUEUE_SENT || q->in_doubt ? put_step(to, &q->sent) : put_word(to, "-");
	*to++ = ' ';
	to += circuit_fold_empty(&q->next.fold) ? put_word(to, "-") : put_step(to, &q->next);
	*to++ = ' ';
	to += q->before.known == CIRCUIT_FOLD_UNASKED
		      ? put_word(to, "-")
		      : put_circuit(to, q->before.exists ? &q->before.circuit : NULL);
	*to++ = ' ';
	to += put_circuit(to, now);
	return (size_t)(to - buf);
}

/* --- reading */

/* A word after a space. */
struct word {
	const char *text;
	size_t len;
};

static bool take_word(const char **text, const char *end, struct word *word)
{
	const char *begin = *text + 1, *stop;

	if (*text >= end || **text != ' ')
		return false;
	stop = memchr(begin, ' ', (size_t)(end - begin));
	*text = stop ? stop : end;
	*word = (struct word){begin, (size_t)(*text - begin)};
	return word->len > 0;
}

static bool word_is(const struct word *word, const char *text)
{
	return word->len == strlen(text) && memcmp(word->text, text, word->len) == 0;
}

/* Reads an integer of at most CIRCUIT_INT_MAX. Returns what stands behind it; NULL if it is none.
 */
static const char *take_number(const char *p, const char *end, int64_t *number)
{
	bool negative = p < end && *p == '-';
	const char *begin = negative ? ++p : p;

	for (*number = 0; p < end && *p >= '0' && *p <= '9'; p++) {
		*number = *number * 10 + (*p - '0');
		if (*number > CIRCUIT_INT_MAX)
			return NULL;
	}
	if (negative)
		*number = -*number;
	return p > begin ? p : NULL;
}

static bool take_step(const struct word *word, struct queue_step *s)
{
	const char *p = word->text, *end = word->text + word->len;
	int64_t n[STEP_NUMBERS];

	for (int i = 0; i < STEP_NUMBERS; i++) {
		if (i > 0 && (p >= end || *p++ != ','))
			return false;
		p = take_number(p, end, &n[i]);
		if (!p || (n[i] < 0 && i != 1))
			return false;
	}
	if (p != end || n[4] > 1 || n[5] > 1 || n[6] > 1 || n[7] > 1 || n[8] >= CIRCUIT_STATES ||
	    n[9] > 1 || n[12] > 1)
		return false;
	*s = (struct queue_step){
		.operations = (uint64_t)n[0],
		.offset_ms = n[1] - steady_less_wall_ms(),
		.fold =
			{
				.failures = n[2],
				.successes = n[3],
				.zero_failures = n[4],
				.zero_successes = n[5],
				.writes = n[6],
				.has_state = n[7],
				.state = (enum circuit_state)n[8],
				.own_state_change = n[9],
				.last_state_change = n[10],
				.last_failure_time = n[11],
				.own_failure_time = n[12],
				.created = n[13],
				.reset = n[14],
			},
	};
	return true;
}

static bool take_circuit(const struct word *word, bool *exists, struct circuit *c)
{
	*exists = !word_is(word, "none");
	return !*exists ||
	       circuit_json_decode_stored(word->text, word->len, c) == CIRCUIT_STORED_SOUND;
}

bool state_steps_decode(const char *text, size_t len, struct state_steps *out)
{
	const char *end = text + len;
	struct word sent, next, before, now;

	memset(out, 0, sizeof(*out));
	if (!take_word(&text, end, &sent) || !take_word(&text, end, &next) ||
	    !take_word(&text, end, &before) || !take_word(&text, end, &now) || text != end)
		return false;
	out->in_doubt = !word_is(&sent, "-");
	if (out->in_doubt && !take_step(&sent, &out->sent))
		return false;
	if (!word_is(&next, "-") && !take_step(&next, &out->next))
		return false;
	if (!word_is(&before, "-")) {
		/* Another program may have written the circuit since: it was seen, not asked for.
		 */
		out->before.known = CIRCUIT_FOLD_SEEN;
		if (!take_circuit(&before, &out->before.exists, &out->before.circuit))
			return false;
	}
	return take_circuit(&now, &out->exists, &out->now);
}

void state_steps_restore(struct circuit_queue *q, const struct state_steps *steps, bool folding)
{
	q->sent = steps->sent;
	q->next = steps->next;
	q->before = steps->before;
	q->in_doubt = steps->in_doubt;
	if (!folding || circuit_fold_empty(&steps->next.fold))
		return;
	if (!steps->in_doubt) {
		q->sent = q->next;
	} else {
		circuit_fold_shift(&q->sent.fold, q->next.offset_ms - q->sent.offset_ms);
		circuit_fold_append(&q->sent.fold, &q->next.fold);
		q->sent.offset_ms = q->next.offset_ms;
		q->sent.operations += q->next.operations;
		q->before.exists &= q->before.known != CIRCUIT_FOLD_UNASKED;
		q->before.known = CIRCUIT_FOLD_PARTS;
	}
	q->in_doubt = true;
	memset(&q->next, 0, sizeof(q->next));
}
