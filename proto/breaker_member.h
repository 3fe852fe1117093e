/*
 * The member `breakerd` as text: the JSON string in a circuit's stored value, and what the
 * embedded store keeps. It has only letters, digits, " ", "." "," and ":", so every JSON encoder
 * leaves it as it is. circuit.lua reads and writes the same. It consists of words, with one space
 * between two of them:
 *
 *   1                    the version
 *   STATE SINCE          what the member belongs to: 0 closed, 1 open, 2 half-open; and
 *                        lastStateChange
 *   FRESH                1: closed since it was created, else 0
 *   OPENINGS OPEN_MS     openings before the last one, and how long that was meant to last
 *   RUN                  consecutive failures
 * then, in this order, those parts that are needed:
 *   wWINDOW.NEWEST:SLOTS closed: milliseconds of the window, number of the newest slot, the slots,
 *                        newest first, commas between them: CALLS, or CALLS.FAILURES.SLOW.DAEMONS
 *                        where something failed or was slow; a daemon is two characters, of A-Z
 *                        and of a-z0-9
 *   hPASSED.BASE:PROBES  half-open, always: probes passed, first deadline (0: no probe is out), and
 *                        of each probe that is out the id, and how many milliseconds its deadline
 * is after the first, six hexadecimal digits each qSINCE:IDS           not half-open: the last
 * half-open time and which probes were out at its end oMODE.SINCE.UNTIL:REASON   an override: 1
 * forced open, 2 forced closed, for 30 days at most; the reason's bytes in hexadecimal
 */
#ifndef BREAKERD_PROTO_BREAKER_MEMBER_H
#define BREAKERD_PROTO_BREAKER_MEMBER_H

#include "proto/breaker.h"

/* Room for the text of any member, its NUL included. */
#define BREAKER_TEXT_MAX 2048

/* Writes the text and a NUL. Returns the length without the NUL. *b exists. */
size_t breaker_member_encode(char buf[BREAKER_TEXT_MAX], const struct breaker *b);

/*
 * Reads the text. False if it has another version or is no such text; *b is then as breaker_none
 * leaves it. An override's reason may be any bytes: whoever shows it makes it UTF-8.
 */
bool breaker_member_decode(const char *text, size_t len, struct breaker *b);

/* The two characters of a daemon's number, and a NUL. */
void breaker_member_reporter(char buf[3], uint16_t reporter);

#endif
