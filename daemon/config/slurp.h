/* A whole file into memory: the configuration, the token, the password. */
#ifndef BREAKERD_CONFIG_SLURP_H
#define BREAKERD_CONFIG_SLURP_H

#include "base/file_watch.h"

#include <stdbool.h>
#include <stddef.h>

/* How long the start waits for what comes out of a pipe, in milliseconds. */
#define SLURP_WAIT_MS 5000

/*
 * The whole of a file into *text, NUL-terminated, for the caller to free. False with why;
 * more than max bytes is an error too. A pipe is waited for, but for no longer than
 * SLURP_WAIT_MS. With `again`, for a reload, nothing is waited for: what is no regular file
 * is refused, since it cannot be read twice and would seem to be empty. *stamp is the file as it
 * was before it was read; also on failure, zeros if it could not be opened.
 */
bool slurp(const char *path, size_t max, bool again, char **text, size_t *len,
	   struct file_stamp *stamp, char *why, size_t why_size);

#endif
