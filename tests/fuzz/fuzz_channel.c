/*
 * What a server can send on the connection of the events channel: the replies to the subscription,
 * and messages, which any client of Redis may publish. The store, its link and its channel run on
 * the loop as in the daemon. connect(2) is replaced: it gives hiredis one end of a socket pair, and
 * the target the other.
 *
 * An input is text, in parts that begin with a line "~<letter>" (the first letter counts). The rest
 * of the part is
 *
 *   m  the text of a message, which is published
 *   r  bytes, which are sent on the channel's connection
 *
 * and unused with the other letters: S sends a good server's replies up to the confirmed
 * subscription; X closes the channel's connection, which is then made again; L closes the
 * connection of the operations; W lets a second pass. The run begins with S, unless the input
 * begins with an n.
 */
#include "base/log.h"
#include "base/random.h"
#include "fuzz.h"
#include "peers.h"
#include "redis/channel.h"
#include "redis/op.h"
#include "redis/store.h"
#include "redis/target.h"
#include "store/driver.h"

#include <event2/event.h>
#include <signal.h>
#include <string.h>

#define PREFIX  "p:"
#define CHANNEL PREFIX "cb:events"
#define DB      3

/* The first connection is the one for operations, all others are the channel's. */
#define LINK            0
#define CONNECTIONS_MAX 4

static struct {
	struct event_base *base;
	struct store *store;
	const struct store_event *event; /* told to on_event, and not yet to on_change */
	struct fuzz_text text;           /* the message that is being sent; p is NULL: none */
	bool stands;                     /* the subscription, as the store told last */
	unsigned events, changes;
} fuzz;

/* --- replaced functions ------------------------------------------------------------------- */

/* The linker's option --wrap asks for such names. */
/* NOLINTBEGIN(bugprone-reserved-identifier) */
void __wrap_siphash_key_init(struct siphash_key *key);

/* A key that is the same in each run, and with which the random pauses before the channel's first
 * two connections are zero. */
void __wrap_siphash_key_init(struct siphash_key *key)
{
	static uint64_t seed;
	struct random_state r = {.state = seed};

	while (random_below(&r, 20) != 0 || random_below(&r, 40) != 0)
		r.state = ++seed;
	*key = (struct siphash_key){.k0 = seed};
}

/* NOLINTEND(bugprone-reserved-identifier) */

/* --- checks of what the store tells ------------------------------------------------------- */

static void check_circuit(const struct circuit *c)
{
	FUZZ_CHECK((unsigned)c->state < CIRCUIT_STATES);
	FUZZ_CHECK(c->failure_count >= 0 && c->failure_count <= CIRCUIT_INT_MAX);
	FUZZ_CHECK(c->success_count >= 0 && c->success_count <= CIRCUIT_INT_MAX);
	FUZZ_CHECK(c->last_failure_time >= 0 && c->last_failure_time <= CIRCUIT_INT_MAX);
	FUZZ_CHECK(c->last_state_change >= 0 && c->last_state_change <= CIRCUIT_INT_MAX);
}

/* Checks the words of a message that was accepted: its database is ours, and the event has the same
 * values. */
static void check_words(const struct store_event *event, char *words)
{
	unsigned db, was, state;
	char by;
	long long n[4];

	FUZZ_CHECK(sscanf(words, "1 %u %c %u %u %lld %lld %lld %lld", &db, &by, &was, &state, &n[0],
			  &n[1], &n[2], &n[3]) == 8);
	FUZZ_CHECK(db == DB && by == event->by && strchr("tdarowx", by));
	FUZZ_CHECK(event->existed == (was != 3) && event->exists == (state != 3));
	FUZZ_CHECK(!event->existed || was == (unsigned)event->was);
	FUZZ_CHECK(!event->exists || state == (unsigned)event->circuit.state);
	FUZZ_CHECK(n[0] == event->circuit.failure_count && n[1] == event->circuit.success_count);
	FUZZ_CHECK(n[2] == event->circuit.last_failure_time);
	FUZZ_CHECK(n[3] == event->circuit.last_state_change);
}

static void check_message(const struct store_event *event)
{
	struct fuzz_text rest = fuzz.text;
	char *words = fuzz_string(fuzz_until(&rest, "\n"));
	struct fuzz_text member = fuzz_until(&rest, "\n");
	static const char prefix[] = PREFIX "cb:";
	size_t len = strlen(prefix);

	check_words(event, words);
	free(words);
	FUZZ_CHECK(rest.len == len + event->key_len && memcmp(rest.p, prefix, len) == 0);
	FUZZ_CHECK(memcmp(rest.p + len, event->key, event->key_len) == 0);
	FUZZ_CHECK(member.len > 1 || !event->breaker->exists);
}

static void on_event(void *arg, const struct store_event *event)
{
	const struct breaker_override *o = &event->breaker->override;

	(void)arg;
	FUZZ_CHECK(fuzz.stands);
	FUZZ_CHECK(key_check(event->key, event->key_len) == NULL);
	check_circuit(&event->circuit);
	FUZZ_CHECK(o->mode <= BREAKER_FORCED_CLOSED);
	FUZZ_CHECK(o->mode == BREAKER_NO_OVERRIDE || o->reason_len <= BREAKER_REASON_MAX);
	if (fuzz.text.p)
		check_message(event);
	fuzz.event = event;
	fuzz.events++;
}

/* Event streams are told of the same change after on_event. */
static void on_change(void *arg, const struct store_change *change)
{
	(void)arg;
	if (!change->key) {
		FUZZ_CHECK(fuzz.stands != change->live);
		fuzz.stands = change->live;
		return;
	}
	FUZZ_CHECK(fuzz.event && change->key == fuzz.event->key &&
		   change->key_len == fuzz.event->key_len);
	FUZZ_CHECK(!change->override || change->override->mode != BREAKER_NO_OVERRIDE);
	check_circuit(&change->circuit);
	fuzz.event = NULL;
	fuzz.changes++;
}

/* A line of the log is one printable line, whatever the server sent. */
static void on_line(void *arg, enum log_level level, const char *line)
{
	(void)arg;
	(void)level;
	for (; *line; line++)
		FUZZ_CHECK(*line >= ' ' && *line < 0x7F);
}

/* --- one run ------------------------------------------------------------------------------ */

/* Sends a server's replies to the commands of the handshake. */
static void handshake(size_t peer)
{
	char text[512];
	int len =
		snprintf(text, sizeof(text),
			 "+OK\r\n+OK\r\n:7\r\n*3\r\n$6\r\nmaster\r\n:0\r\n*0\r\n"
			 "$45\r\nredis_version:7.0.15\r\nredis_mode:standalone\r\n\r\n"
			 "+PONG\r\n%s*2\r\n$10\r\n1700000000\r\n$6\r\n123456\r\n",
			 peer == LINK ? "$40\r\n0123456789012345678901234567890123456789\r\n" : "");

	peers_say(peer, text, (size_t)len);
}

/* The channel's last connection. */
static size_t events(void)
{
	return peers.count - 1;
}

static void subscribe(void)
{
	char text[64];
	int len = snprintf(text, sizeof(text), "*3\r\n$9\r\nsubscribe\r\n$%zu\r\n%s\r\n:1\r\n",
			   strlen(CHANNEL), CHANNEL);

	handshake(events());
	peers_say(events(), text, (size_t)len);
}

static void publish(struct fuzz_text text)
{
	char head[96];
	int len = snprintf(head, sizeof(head), "*3\r\n$7\r\nmessage\r\n$%zu\r\n%s\r\n$%zu\r\n",
			   strlen(CHANNEL), CHANNEL, text.len);

	fuzz.text = text;
	peers_say(events(), head, (size_t)len);
	peers_say(events(), text.p, text.len);
	peers_say(events(), "\r\n", 2);
	fuzz.text.p = NULL;
}

static void hang_up(size_t peer)
{
	peers_hang_up(peer);
	FUZZ_CHECK(!fuzz.stands);
}

/* After bytes of "r" the server's output may end inside a reply, so no message is published any
 * more: `only_messages`. */
static void play(struct fuzz_text script, bool only_messages)
{
	while (script.len > 0 && peers_up(LINK)) {
		struct fuzz_text part = fuzz_until(&script, "\n~");
		struct fuzz_text letter = fuzz_until(&part, "\n");

		if (letter.len == 0 || !peers_up(events()))
			continue;
		if (letter.p[0] == 'm' && only_messages) {
			publish(part);
		} else if (letter.p[0] == 'r') {
			only_messages = false;
			peers_say(events(), part.p, part.len);
		} else if (letter.p[0] == 'S') {
			subscribe();
		} else if (letter.p[0] == 'X') {
			hang_up(events());
		} else if (letter.p[0] == 'L') {
			hang_up(LINK);
		} else if (letter.p[0] == 'W') {
			peers_wait(1000);
		}
		FUZZ_CHECK(redis_channel_stands(redis_store(fuzz.store)->channel) == fuzz.stands);
	}
}

static void end(void)
{
	FUZZ_CHECK(fuzz.events == fuzz.changes && !fuzz.event);
	store_free(fuzz.store);
	event_base_loop(fuzz.base, EVLOOP_NONBLOCK);
	peers_end();
	event_base_free(fuzz.base);
	memset(&fuzz, 0, sizeof(fuzz));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const struct store_limits limits = {.timeout_ms = 250,
					    .max_in_flight = 1000,
					    .ttl_ms = 60000};
	struct fuzz_text script = {size ? (const char *)data : "", size};
	struct fuzz_text before;
	bool begins;
	struct log log = {.level = LOG_LEVEL_WARNING, .sink = on_line};
	struct redis_target target;
	char why[128];

	signal(SIGPIPE, SIG_IGN);
	FUZZ_CHECK(redis_target_parse("redis://127.0.0.1", &target, why, sizeof(why)));
	target.db = DB;
	fuzz.base = peers.base = event_base_new();
	peers.most = CONNECTIONS_MAX;
	FUZZ_CHECK(fuzz.base);
	fuzz.store = store_redis_new(fuzz.base, &target, PREFIX, &limits, NULL, &log);
	FUZZ_CHECK(fuzz.store);
	fuzz.store->on_event = on_event;
	store_follow(fuzz.store, on_change, NULL);
	peers_turn();
	handshake(LINK);
	FUZZ_CHECK(peers.count == 2);
	before = fuzz_until(&script, "~");
	begins = before.len == 0 || before.p[0] != 'n';
	if (begins) {
		subscribe();
		FUZZ_CHECK(fuzz.stands);
	}
	play(script, begins);
	end();
	return 0;
}
