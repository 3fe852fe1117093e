/*
 * Numbers as text. They are written without printf, which would cost more than all the rest of an
 * answer, and read as JSON has them.
 */
#ifndef BREAKERD_PROTO_NUMBER_H
#define BREAKERD_PROTO_NUMBER_H

#include "proto/circuit.h"

/* Writes the number in decimal, at most 20 bytes and no NUL; returns where the text ends. */
char *number_put(char *to, int64_t number);

/* Writes the number in that many hexadecimal digits, a to f in lower case, and no NUL; returns
 * where the text ends. */
char *number_put_hex(char *to, uint64_t number, unsigned digits);

/* Reads a JSON token that begins like a number. True if it is an integer from 0 to CIRCUIT_INT_MAX,
 * however it is written (see circuit_json_decode_stored). */
bool number_from_json(const char *begin, const char *end, int64_t *out);

#endif
