/*
 * What the two halves of the state file share: state_file.c writes it, state_file_read.c reads it.
 */
#ifndef BREAKERD_STATE_FILE_PRIVATE_H
#define BREAKERD_STATE_FILE_PRIVATE_H

#include "base/siphash.h"
#include "proto/circuit_json.h"
#include "proto/key.h"
#include "store/state_file.h"
#include "store/state_steps.h"

#define STATE_MAGIC   "breakerd-state "
#define STATE_HEADER  STATE_MAGIC "1\n"
#define STATE_HEADER2 STATE_MAGIC "2\n" /* with steps */
#define STATE_FOLDING "folding\n"       /* of earlier versions: all lines count as STATE_IN_DOUBT */
/* Both have the same length. */
#define STATE_STEP     "step "
#define STATE_IN_DOUBT "fold "

/* Room for any line: word, stamp, key with each byte escaped, snapshot or steps, spaces, newline.
 */
#define STATE_VALUE_MAX                                                                            \
	((int)STATE_STEPS_MAX > (int)CIRCUIT_JSON_MEMBER_MAX ? (int)STATE_STEPS_MAX                \
							     : (int)CIRCUIT_JSON_MEMBER_MAX)
#define STATE_LINE_ROOM   (5 + 20 + 3 * KEY_MAX + STATE_VALUE_MAX + 3)
#define STATE_BUFFER_SIZE ((size_t)256 * 1024)

/* A file that is written or read, with the checksum of its lines so far. */
struct state_stream {
	int fd;
	struct siphash_key sum; /* k0 is the checksum so far, k1 stays 0 */
	size_t circuits;
	char *buffer;
	size_t begin, end; /* of what is in the buffer */
	bool at_end;       /* reading: all of the file is in the buffer */
};

void state_stream_sum(struct state_stream *s, const char *line, size_t len);

/* Writes the last line, and returns its length. */
size_t state_stream_end(const struct state_stream *s, char out[64]);

#endif
