/* Reading a whole file into memory: the settings, the token, the password. */
#ifndef BREAKERD_CONFIG_SLURP_H
#define BREAKERD_CONFIG_SLURP_H

#include "base/file_watch.h"

#include <stdbool.h>
#include <stddef.h>

/* How long the start waits for all that comes out of a pipe, in milliseconds. */
#define SLURP_WAIT_MS 5000

/*
 * Reads a file into *text, NUL-terminated, for the caller to free. False with the reason in why,
 * also if the file has more than max bytes. Waits for a pipe's end, SLURP_WAIT_MS at most. With
 * `reload` does not wait, and refuses what is no regular file: it cannot be read twice, and would
 * seem to be empty. *stamp is set to the file as it was before it was read, on failure too; to
 * zeros if it could not be opened.
 */
bool slurp(const char *path, size_t max, bool reload, char **text, size_t *len,
	   struct file_stamp *stamp, char *why, size_t why_size);

#endif
