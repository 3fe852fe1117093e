#include "api/event_ring.h"

#include "api/private.h"

#include <event2/buffer.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void event_ring_init(struct event_ring *r, uint64_t boot)
{
	r->boot = boot;
	r->next = 1;
}

void event_ring_fini(struct event_ring *r)
{
	for (unsigned i = 0; i < EVENT_RING_SIZE; i++)
		free(r->events[i]);
}

const struct event_text *event_ring_get(const struct event_ring *r, uint64_t number)
{
	const struct event_text *text = r->events[number % EVENT_RING_SIZE];

	return text && text->number == number ? text : NULL;
}

int event_write_id(const struct event_ring *r, struct evbuffer *out, uint64_t number)
{
	return evbuffer_add_printf(out, "id: %016" PRIx64 "-%" PRIu64 "\n", r->boot, number) < 0
		       ? -1
		       : 0;
}

int event_write_data(struct evbuffer *out, const struct watched *c, enum store_by by)
{
	if (evbuffer_add_printf(out, "data: {") < 0 ||
	    api_add_item(out, keynode_key(&c->node), c->node.key_len, &c->circuit, c->override) !=
		    0)
		return -1;
	return evbuffer_add_printf(out, ",\"by\":\"%s\"}\n\n", watch_by_name(by)) < 0 ? -1 : 0;
}

static struct event_text *text_new(const struct event_ring *r, const struct watched *c,
				   enum store_by by)
{
	struct evbuffer *out = evbuffer_new();
	struct event_text *text = NULL;
	size_t len;

	if (out && evbuffer_add_printf(out, "event: circuit\n") > 0 &&
	    event_write_id(r, out, r->next) == 0 && event_write_data(out, c, by) == 0) {
		len = evbuffer_get_length(out);
		text = malloc(sizeof(*text) + len + c->node.key_len);
	}
	if (text) {
		text->len = len;
		evbuffer_remove(out, text->text, len);
		memcpy(text->text + len, keynode_key(&c->node), c->node.key_len);
		text->key = text->text + len;
		text->key_len = c->node.key_len;
	}
	if (out)
		evbuffer_free(out);
	return text;
}

uint64_t event_ring_add(struct event_ring *r, const struct watched *c, enum circuit_state before,
			enum store_by by)
{
	struct event_text *text = text_new(r, c, by),
			  **place = &r->events[r->next % EVENT_RING_SIZE];
	uint64_t gone = *place ? (*place)->number : 0;

	if (!text)
		return UINT64_MAX;
	free(*place);
	*place = text;
	text->number = r->next++;
	text->begins = r->bytes;
	text->before = before;
	text->after = c->circuit.state;
	r->bytes += text->len;
	return gone;
}

uint64_t event_ring_after(const struct event_ring *r, const char *id)
{
	uint64_t boot, number;
	int end = 0;

	if (strlen(id) > 64 ||
	    sscanf(id, "%16" SCNx64 "-%20" SCNu64 "%n", &boot, &number, &end) != 2 || id[end] ||
	    boot != r->boot)
		return 0;
	number++;
	/* It is the next event, or one that the ring still has. */
	return number == r->next || (number < r->next && event_ring_get(r, number)) ? number : 0;
}
