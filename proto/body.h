/*
 * Bodies of requests that are JSON objects with a few known members: reading them with jansson, and
 * sentences for a client whose body is wrong. Speed does not matter here.
 */
#ifndef BREAKERD_PROTO_BODY_H
#define BREAKERD_PROTO_BODY_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

/* What such a body is to have, in words for the sentences. */
struct body_words {
	const char *what;    /* "a transition" */
	const char *needs;   /* of an empty body: "it must name the new state" */
	const char *takes;   /* "`to` and, optionally, `from`" */
	const char *example; /* "for example {\"to\":\"open\"}" */
	const char *const *members;
	size_t member_count;
};

/*
 * Reads an object that has no other members than those of `words`, each once at most. The caller
 * frees it with json_decref. NULL if the body is wrong, with a sentence in why (NUL-terminated, cut
 * to why_size, valid UTF-8 without control characters). `body` must not be NULL; it needs no NUL at
 * its end.
 */
json_t *body_read(const char *body, size_t len, const struct body_words *words, char *why,
		  size_t why_size);

/* Writes a sentence to why, as above. */
__attribute__((format(printf, 3, 4))) void body_explain(char *why, size_t why_size, const char *fmt,
							...);

/* "an object", "a string", ... */
const char *body_type_name(const json_t *value);

/* Writes a client's word to out, made safe to show, and cut. Returns out. */
#define BODY_WORD_MAX (3 * 64 + 4)
const char *body_shown(char out[BODY_WORD_MAX], const char *word, size_t len);

#endif
