/*
 * What a server that is taken for Redis can send: replies to the handshake, to operations, steps
 * and listings, and a sentinel's replies. The store and its link run on the loop as in the daemon.
 * connect(2) is replaced: it gives hiredis one end of a socket pair, and the target the other.
 *
 * An input is text. The first line has letters for the target: u a unix socket, s a sentinel, p a
 * password, d a database, c cluster mode, n no listener. Then come parts, each a line "~<letters>"
 * and bytes, which are sent. The letters:
 *
 *   a r g s f o c h d   an operation, see operations[]; m is g with the member
 *   k  changes the key            w  folds a step             l  lists
 *   H  sends the replies to a handshake                       M  sends a sentinel's reply
 *   C  waits for a second connection, 100 ms at most          X  closes the connection
 *   W  waits for store_timeout    0 to 9  chooses the connection
 *   T  does not send the bytes, but takes them for the cursor of the next listing
 */
#include "base/log.h"
#include "base/metrics.h"
#include "default_policy.h"
#include "fuzz.h"
#include "peers.h"
#include "proto/circuit_fold.h"
#include "redis/link.h"
#include "redis/lookup.h"
#include "redis/store.h"
#include "redis/target.h"
#include "store/driver.h"

#include <arpa/inet.h>
#include <event2/event.h>
#include <signal.h>
#include <string.h>

#define OPS_MAX    64
#define TIMEOUT_MS 250

/* The linker's option --wrap asks for such names. */
/* NOLINTBEGIN(bugprone-reserved-identifier) */
struct redis_lookup *__wrap_redis_lookup_new(struct event_base *base, const char *host,
					     unsigned short port, unsigned patience_ms,
					     const struct redis_lookup_files *files,
					     redis_lookup_fn *fn, void *arg);
struct redis_lookup *__real_redis_lookup_new(struct event_base *base, const char *host,
					     unsigned short port, unsigned patience_ms,
					     const struct redis_lookup_files *files,
					     redis_lookup_fn *fn, void *arg);

/* NOLINTEND(bugprone-reserved-identifier) */

struct waiting {
	struct store_op *op;
	unsigned called;
	bool listing;
};

static struct {
	struct event_base *base;
	struct store *store;
	struct metrics *metrics;
	struct waiting ops[OPS_MAX];
	size_t op_count;
	char key;
	bool cluster;
	bool nobody;
	char cursor[STORE_CURSOR_MAX]; /* of the last page */
} fuzz;

/* Only addresses are looked up, so that no nameserver is asked. */
struct redis_lookup *__wrap_redis_lookup_new(struct event_base *base, const char *host,
					     unsigned short port, unsigned patience_ms,
					     const struct redis_lookup_files *files,
					     redis_lookup_fn *fn, void *arg)
{
	unsigned char address[16];

	if (inet_pton(AF_INET, host, address) != 1 && inet_pton(AF_INET6, host, address) != 1)
		return NULL;
	return __real_redis_lookup_new(base, host, port, patience_ms, files, fn, arg);
}

/* --- operations --------------------------------------------------------------------------- */

static void check_circuit(const struct circuit *c)
{
	FUZZ_CHECK((unsigned)c->state < CIRCUIT_STATES);
	FUZZ_CHECK(c->failure_count >= 0 && c->failure_count <= CIRCUIT_INT_MAX);
	FUZZ_CHECK(c->success_count >= 0 && c->success_count <= CIRCUIT_INT_MAX);
	FUZZ_CHECK(c->last_failure_time >= 0 && c->last_state_change >= 0);
}

static void check_page(const struct store_page *page)
{
	FUZZ_CHECK(page->count <= 1000);
	FUZZ_CHECK(strlen(page->cursor) < sizeof(page->cursor));
	for (size_t i = 0; i < page->count; i++) {
		FUZZ_CHECK(key_check(page->items[i].key, page->items[i].key_len) == NULL);
		check_circuit(&page->items[i].circuit);
	}
}

static void on_done(void *arg, struct store_result *result)
{
	struct waiting *w = arg;

	FUZZ_CHECK(w->called++ == 0);
	w->op = NULL;
	FUZZ_CHECK(result->status != STORE_FULL && !result->degraded);
	if (w->listing && result->status == STORE_OK) {
		check_page(result->page);
		snprintf(fuzz.cursor, sizeof(fuzz.cursor), "%s", result->page->cursor);
		store_page_free(result->page);
	} else if (result->status == STORE_OK || result->status == STORE_CONFLICT) {
		FUZZ_CHECK(!w->listing);
		check_circuit(&result->circuit);
	} else {
		FUZZ_CHECK(result->message != NULL);
	}
}

static const struct breaker_call call = {.policy = &default_policy,
					 .count = 1,
					 .outcome = BREAKER_FAILURE};

static const struct {
	char letter;
	struct circuit_op op;
} operations[] = {
	{'a', {.verb = CIRCUIT_ACQUIRE, .call = &call}},
	{'r', {.verb = CIRCUIT_REPORT, .call = &call}},
	{'g', {.verb = CIRCUIT_GET_STATE}},
	{'s', {.verb = CIRCUIT_RECORD_SUCCESS}},
	{'f', {.verb = CIRCUIT_RECORD_FAILURE}},
	{'o', {.verb = CIRCUIT_TRANSITION, .to = CIRCUIT_OPEN}},
	{'c', {.verb = CIRCUIT_TRANSITION, .has_from = true, .from = CIRCUIT_OPEN}},
	{'h', {.verb = CIRCUIT_TRANSITION, .to = CIRCUIT_HALF_OPEN}},
	{'d', {.verb = CIRCUIT_RESET}},
};

static void submit(char letter)
{
	struct waiting *w = &fuzz.ops[fuzz.op_count];
	const struct circuit_fold fold = {.failures = 2, .writes = true, .created = 1};
	struct store_query query = {.limit = 3};
	struct store_result result = {0};

	if (fuzz.op_count == OPS_MAX)
		return;
	*w = (struct waiting){.listing = letter == 'l'};
	if (letter == 'l') {
		strcpy(query.cursor, fuzz.cursor);
		w->op = store_list(fuzz.store, &query, on_done, w, &result);
	} else if (letter == 'w') {
		w->op = fuzz.store->driver->fold(fuzz.store, &fuzz.key, 1, &fold, on_done, w,
						 &result);
	} else {
		struct store_request request = {.key = &fuzz.key,
						.key_len = 1,
						.with_member = letter == 'm'};

		for (size_t i = 0; i < sizeof(operations) / sizeof(operations[0]); i++)
			if (operations[i].letter == letter)
				request.op = operations[i].op;
		w->op = store_submit(fuzz.store, &request, on_done, w, &result);
	}
	if (w->op)
		fuzz.op_count++;
	else
		FUZZ_CHECK(result.status == STORE_UNAVAILABLE || result.status == STORE_BAD_CURSOR);
}

/* --- the other side ----------------------------------------------------------------------- */

static void say(const char *text, size_t len)
{
	peers_say(peers.to, text, len);
}

/* Sends a server's replies to the commands of the handshake. */
static void handshake(const struct redis_target *target)
{
	char text[512];
	int len =
		snprintf(text, sizeof(text),
			 "%s%s+OK\r\n:7\r\n*3\r\n$6\r\nmaster\r\n:0\r\n*0\r\n"
			 "%s+PONG\r\n$40\r\n0123456789012345678901234567890123456789\r\n"
			 "*2\r\n$10\r\n1700000000\r\n$6\r\n123456\r\n",
			 target->password[0] ? "+OK\r\n" : "", target->db ? "+OK\r\n" : "",
			 fuzz.cluster
				 ? "$42\r\nredis_version:7.0.15\r\nredis_mode:cluster\r\n\r\n"
				 : "$45\r\nredis_version:7.0.15\r\nredis_mode:standalone\r\n\r\n");

	say(text, (size_t)len);
}

static void direct(char letter, const struct redis_target *target)
{
	static const char sentinel[] = "*2\r\n$9\r\n127.0.0.1\r\n$4\r\n6379\r\n";

	switch (letter) {
	case 'C':
		for (int ms = 0; ms < 100 && peers.count < 2; ms++)
			peers_wait(1);
		break;
	case 'H':
		handshake(target);
		break;
	case 'M':
		say(sentinel, strlen(sentinel));
		break;
	case 'X':
		peers_hang_up(peers.to);
		break;
	case 'W':
		peers_wait(TIMEOUT_MS);
		break;
	case 'k':
		fuzz.key = (char)(fuzz.key == 'z' ? 'a' : fuzz.key + 1);
		break;
	default:
		if (letter >= '0' && letter <= '9')
			peers.to = (size_t)(letter - '0');
		else if (letter >= 'a' && letter <= 'z')
			submit(letter);
	}
}

/* The API passes on only strings of bounded length, so the cursor is cut. */
static void set_cursor(struct fuzz_text text)
{
	char *cursor = fuzz_string(text);

	snprintf(fuzz.cursor, sizeof(fuzz.cursor), "%s", cursor);
	free(cursor);
}

static void play(struct fuzz_text script, const struct redis_target *target)
{
	fuzz_until(&script, "~");
	while (script.len > 0) {
		struct fuzz_text part = fuzz_until(&script, "\n~");
		struct fuzz_text letters = fuzz_until(&part, "\n");

		for (size_t i = 0; i < letters.len; i++)
			direct(letters.p[i], target);
		peers_turn();
		if (letters.len && memchr(letters.p, 'T', letters.len))
			set_cursor(part);
		else
			say(part.p, part.len);
	}
}

/* --- one run ------------------------------------------------------------------------------ */

static void choose(struct fuzz_text letters, struct redis_target *target)
{
	char why[128];
	bool sentinel = letters.len && memchr(letters.p, 's', letters.len);

	FUZZ_CHECK(redis_target_parse(sentinel ? "redis-sentinel://127.0.0.1,[::1]:2/m"
					       : "redis://127.0.0.1",
				      target, why, sizeof(why)));
	if (letters.len && memchr(letters.p, 'u', letters.len))
		FUZZ_CHECK(redis_target_parse("redis+unix:///nowhere", target, why, sizeof(why)));
	if (letters.len && memchr(letters.p, 'p', letters.len))
		strcpy(target->password, "secret");
	if (letters.len && memchr(letters.p, 'd', letters.len))
		target->db = 5;
	fuzz.cluster = letters.len && memchr(letters.p, 'c', letters.len);
	fuzz.nobody = letters.len && memchr(letters.p, 'n', letters.len);
}

/* What people read about the store is one printable line, whatever the server sent. */
static void check_health(bool may_be_told)
{
	struct store_health health = {0};

	store_health(fuzz.store, &health);
	if (health.condition == STORE_READY)
		FUZZ_CHECK(health.reason[0] == '\0');
	else
		fuzz_check_sentence(health.reason, sizeof(health.reason));
	fuzz_check_sentence(health.detail, sizeof(health.detail));
	for (const char *p = health.reason; *p; p++)
		FUZZ_CHECK(*p >= ' ' && *p < 0x7F);
	for (const char *p = health.detail; *p; p++)
		FUZZ_CHECK(*p >= ' ' && *p < 0x7F);
	/* The password must not be in it, unless the server sent it. */
	FUZZ_CHECK(may_be_told || !strstr(health.reason, "secret"));
	FUZZ_CHECK(may_be_told || !strstr(health.detail, "secret"));
	fuzz.store->driver->clock_offset_ms(fuzz.store, &(int64_t){0});
	for (unsigned i = 0; i < fuzz.metrics->redis_reasons.count; i++)
		FUZZ_CHECK(fuzz.metrics->redis_reasons.name(i) != NULL);
}

/* Cancels every second operation that waits: on_done must not be called for it any more. The others
 * end with the store. */
static void end(void)
{
	for (size_t i = 0; i < fuzz.op_count; i += 2)
		if (fuzz.ops[i].op) {
			store_cancel(fuzz.ops[i].op);
			fuzz.ops[i].called = 1;
		}
	peers_turn();
	store_free(fuzz.store);
	event_base_loop(fuzz.base, EVLOOP_NONBLOCK);
	peers_end();
	event_base_free(fuzz.base);
	free(fuzz.metrics);
	fuzz.base = NULL;
	fuzz.store = NULL;
	fuzz.metrics = NULL;
	fuzz.op_count = 0;
	fuzz.key = 'a';
	fuzz.cursor[0] = '\0';
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const struct store_limits limits = {.timeout_ms = TIMEOUT_MS,
					    .max_in_flight = 1000,
					    .ttl_ms = 60000};
	struct fuzz_text script = {size ? (const char *)data : "", size};
	struct fuzz_text letters;
	struct redis_target target;
	struct log log = {.level = LOG_LEVEL_ERROR};

	signal(SIGPIPE, SIG_IGN);
	letters = script;
	letters = fuzz_until(&letters, "\n");
	choose(letters, &target);
	fuzz.key = 'a';
	fuzz.base = peers.base = event_base_new();
	peers.most = fuzz.nobody ? 0 : PEERS_MAX;
	fuzz.metrics = calloc(1, sizeof(*fuzz.metrics));
	FUZZ_CHECK(fuzz.base && fuzz.metrics);
	fuzz.store = store_redis_new(fuzz.base, &target, "p:", &limits, fuzz.metrics, &log);
	FUZZ_CHECK(fuzz.store);
	peers_turn();
	play(script, &target);
	check_health(size && memmem(data, size, "sec", 3));
	end();
	return 0;
}
