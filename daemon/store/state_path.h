/*
 * Paths of the state file: the file that its name leads to and those beside it (path.tmp,
 * path.lock, path.damaged); and whether a file can be kept there.
 */
#ifndef BREAKERD_STATE_PATH_H
#define BREAKERD_STATE_PATH_H

#include <limits.h>
#include <stddef.h>

struct state_path {
	char path[PATH_MAX];
	char tmp[PATH_MAX]; /* the name under which it is written */
	int lock;           /* a descriptor; -1: not taken */
};

/*
 * Finds the file through symbolic links, also if it does not exist yet; takes the lock, for which
 * it waits up to lock_ms (0: 5 s); checks that the directory can be written. Blocks. 0, or -1 with
 * one sentence in why.
 */
int state_path_take(struct state_path *p, const char *path, unsigned lock_ms, char *why,
		    size_t why_size);
void state_path_release(struct state_path *p);

/* Checks whether state_path_take would succeed and the file could be read, without writing anything
 * or taking the lock. 0, or -1 with one sentence in why. */
int state_path_check(const char *path, char *why, size_t why_size);

/* Puts path.SUFFIX into out, or the first of path.SUFFIX.2 to .9 that does not exist; .9 if all of
 * them do. */
void state_path_spare(const struct state_path *p, const char *suffix, char out[PATH_MAX]);

/* Puts "state_file PATH: REASON" into why. Returns -1. */
int state_path_complain(const struct state_path *p, const char *reason, char *why, size_t size);

#endif
