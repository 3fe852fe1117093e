/*
 * The state file: daemon/store/state_file.c and state_file_read.c. An input is the file. If it
 * begins with '+', the header, the number of circuits and the checksum are added, because nearly no
 * random input has the right checksum; what follows a line "&" then comes after the last line.
 */
#include "base/siphash.h"
#include "fuzz.h"
#include "proto/circuit_json.h"
#include "proto/key.h"
#include "store/state_file.h"

#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <string.h>
#include <unistd.h>

#define NOW_MS INT64_C(1700000000000)
#define TTL_MS INT64_C(86400000)
#define BOUND  8

static const struct state_moment now = {.wall_ms = NOW_MS, .table_ms = 1000000000};

static int64_t now_ms(void *arg)
{
	(void)arg;
	return now.wall_ms;
}

static struct circuit_table *table_new(void)
{
	struct circuit_table *t = circuit_table_new(BOUND, TTL_MS, NULL);

	if (t)
		circuit_table_set_clock(t, now_ms, NULL);
	return t;
}

/* Adds header and last line. The caller frees the text. */
static char *complete(struct fuzz_text input, size_t *len)
{
	static const char header[] = "breakerd-state 1\n";
	char *text = malloc(input.len + sizeof(header) + 64), *line = text, *end;
	struct fuzz_text lines = fuzz_until(&input, "\n&\n");
	struct siphash_key sum = {0};
	size_t count = 0;

	FUZZ_CHECK(text);
	memcpy(text, header, sizeof(header) - 1);
	memcpy(text + sizeof(header) - 1, lines.p, lines.len);
	end = text + sizeof(header) - 1 + lines.len;
	if (end[-1] != '\n')
		*end++ = '\n';
	while (line < end) {
		char *next = (char *)memchr(line, '\n', (size_t)(end - line)) + 1;

		sum.k0 = siphash(&sum, line, (size_t)(next - line));
		count++;
		line = next;
	}
	end += sprintf(end, "end %zu %016" PRIx64 "\n", count - 1, sum.k0);
	memcpy(end, input.p, input.len);
	*len = (size_t)(end + input.len - text);
	return text;
}

static void check_entries(struct circuit_table *t, struct circuit_table *again)
{
	struct circuit_entry *e, *other;
	struct circuit_walk walk;
	int64_t last = INT64_MIN;
	char one[CIRCUIT_JSON_MAX], two[CIRCUIT_JSON_MAX];

	circuit_walk_begin(&walk, t);
	while ((e = circuit_walk_next(&walk)) != NULL) {
		size_t len, member_len;
		const char *key = circuit_entry_key(e, &len);
		const struct circuit *c = circuit_entry_get(e);

		FUZZ_CHECK(key_check(key, len) == NULL);
		FUZZ_CHECK(c->failure_count >= 0 && c->failure_count <= CIRCUIT_INT_MAX);
		FUZZ_CHECK(c->success_count >= 0 && c->success_count <= CIRCUIT_INT_MAX);
		FUZZ_CHECK(c->last_failure_time >= 0 && c->last_state_change >= 0);
		FUZZ_CHECK((unsigned)c->state < CIRCUIT_STATES);
		FUZZ_CHECK(circuit_entry_written(e) <= now.table_ms);
		/* A circuit with a member, for example an override, may outlive the ttl. */
		FUZZ_CHECK(circuit_entry_written(e) > now.table_ms - TTL_MS ||
			   circuit_entry_member(e, &member_len));
		FUZZ_CHECK(circuit_entry_written(e) >= last);
		last = circuit_entry_written(e);
		other = circuit_table_find(again, key, len, now.table_ms);
		FUZZ_CHECK(other && circuit_entry_written(other) == last);
		circuit_json_encode(one, c);
		circuit_json_encode(two, circuit_entry_get(other));
		FUZZ_CHECK(strcmp(one, two) == 0);
	}
}

/* Checks that the circuits, written and read again, are the same. */
static void check_again(struct circuit_table *t)
{
	struct circuit_table *again = table_new();
	struct state_file_report report;
	char path[64];

	FUZZ_CHECK(again);
	snprintf(path, sizeof(path), "/dev/shm/fuzz-state-%d", (int)getpid());
	FUZZ_CHECK(state_file_write(path, t, NULL, &now) == 0);
	FUZZ_CHECK(state_file_read(path, again, NULL, TTL_MS, &now, &report) == STATE_FILE_READ);
	FUZZ_CHECK(report.restored == circuit_table_count(t));
	FUZZ_CHECK(report.expired == 0 && report.dropped == 0);
	FUZZ_CHECK(circuit_table_count(again) == circuit_table_count(t));
	check_entries(t, again);
	unlink(path);
	circuit_table_free(again);
}

/* Checks paths that cannot be written. */
static void check_unwritable(void)
{
	struct circuit_table *t = table_new();
	char path[PATH_MAX];

	FUZZ_CHECK(t);
	memset(path, 'p', sizeof(path));
	path[0] = '/';
	path[PATH_MAX - 1] = '\0';
	FUZZ_CHECK(state_file_write(path, t, NULL, &now) == ENAMETOOLONG);
	FUZZ_CHECK(state_file_write("/proc/self/no-such", t, NULL, &now) != 0);
	circuit_table_free(t);
}

static void check_read(const char *path, bool ours)
{
	struct circuit_table *t = table_new();
	struct state_file_report report;

	FUZZ_CHECK(t);
	switch (state_file_read(path, t, NULL, TTL_MS, &now, &report)) {
	case STATE_FILE_READ:
		FUZZ_CHECK(circuit_table_count(t) == report.restored);
		FUZZ_CHECK(report.restored <= BOUND);
		check_again(t);
		break;
	case STATE_FILE_DAMAGED:
		FUZZ_CHECK(circuit_table_count(t) == 0);
		fuzz_check_sentence(report.why, sizeof(report.why));
		break;
	default:
		FUZZ_CHECK(!ours);
	}
	circuit_table_free(t);
}

static bool same_fold(const struct circuit_fold *a, const struct circuit_fold *b)
{
	return a->failures == b->failures && a->successes == b->successes &&
	       a->zero_failures == b->zero_failures && a->zero_successes == b->zero_successes &&
	       a->writes == b->writes && a->has_state == b->has_state && a->state == b->state &&
	       a->own_state_change == b->own_state_change &&
	       a->last_state_change == b->last_state_change &&
	       a->last_failure_time == b->last_failure_time &&
	       a->own_failure_time == b->own_failure_time && a->created == b->created &&
	       a->reset == b->reset;
}

static bool same_step(const struct queue_step *a, const struct queue_step *b)
{
	return same_fold(&a->fold, &b->fold) && a->operations == b->operations &&
	       a->offset_ms == b->offset_ms;
}

/* Checks that the steps of `one` are in `other`. */
static void check_queues(struct circuit_queues *one, struct circuit_queues *other)
{
	for (size_t i = 0; i < one->table.slot_count; i++) {
		struct circuit_queue *q = (struct circuit_queue *)keytable_slot(&one->table, i), *o;

		if (!q || !circuit_queue_has_steps(q))
			continue;
		o = circuit_queue_find(other, keynode_key(&q->node), q->node.key_len);
		FUZZ_CHECK(o && o->in_doubt == q->in_doubt);
		FUZZ_CHECK(!q->in_doubt || o->sent.operations == q->sent.operations);
		FUZZ_CHECK(circuit_fold_empty(&q->next.fold) || same_step(&o->next, &q->next));
	}
}

/* Reads the file as a daemon on Redis does. Checks that the steps, written and read again, are the
 * same. */
static void check_steps(const char *from)
{
	struct circuit_table *t = table_new();
	struct circuit_queues queues, again;
	struct state_file_report report;
	char path[64];

	snprintf(path, sizeof(path), "/dev/shm/fuzz-steps-%d", (int)getpid());
	FUZZ_CHECK(t && circuit_queues_init(&queues) == 0 && circuit_queues_init(&again) == 0);
	if (state_file_read(from, t, &queues, TTL_MS, &now, &report) == STATE_FILE_READ) {
		FUZZ_CHECK(circuit_queues_count(&queues) == report.steps);
		FUZZ_CHECK(state_file_write(path, t, &queues, &now) == 0);
		circuit_table_free(t);
		t = table_new();
		FUZZ_CHECK(t && state_file_read(path, t, &again, TTL_MS, &now, &report) ==
					STATE_FILE_READ);
		check_queues(&queues, &again);
		unlink(path);
	} else {
		FUZZ_CHECK(circuit_queues_count(&queues) == 0);
	}
	circuit_queues_fini(&queues);
	circuit_queues_fini(&again);
	circuit_table_free(t);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static char path[32];
	static int fd;
	struct fuzz_text text = {(const char *)data, size};
	char *whole;

	if (!path[0]) {
		fd = fuzz_memfd(path);
		/* A file that does not exist, and one that is not regular. */
		check_read("/dev/shm/no-such-file", false);
		check_read("/dev/null", false);
		check_unwritable();
	}
	if (size > 0 && data[0] == '+') {
		text.p++;
		text.len--;
		whole = complete(text, &text.len);
		text.p = whole;
	} else {
		whole = NULL;
		if (size == 0)
			text.p = "";
	}
	fuzz_fill(fd, text);
	free(whole);
	check_read(path, true);
	check_steps(path);
	return 0;
}
