/*
 * The place of the state file: the file that its name leads to, those beside it (path.tmp,
 * path.lock, path.damaged), and whether it can be kept there.
 */
#ifndef BREAKERD_STATE_PATH_H
#define BREAKERD_STATE_PATH_H

#include <limits.h>
#include <stddef.h>

struct state_path {
	char path[PATH_MAX];
	char tmp[PATH_MAX]; /* in which it is written */
	int lock;           /* a descriptor; -1: not taken */
};

/*
 * Finds the file, through symbolic links, also one that does not exist yet; takes the lock, for
 * which it waits up to lock_ms (0: 5 s); tries whether its directory can be written. Blocks. 0, or
 * -1 with one sentence in why.
 */
int state_path_take(struct state_path *p, const char *path, unsigned lock_ms, char *why,
		    size_t why_size);
void state_path_release(struct state_path *p);

/* Whether state_path_take would succeed and the file could be read, as far as that can be told
 * without writing anything or taking the lock. 0, or -1 with one sentence in why. */
int state_path_check(const char *path, char *why, size_t why_size);

/* path.SUFFIX, or the first of path.SUFFIX.2 to .9 that is free: what was kept before stays. With
 * all of them taken the last one is replaced. */
void state_path_spare(const struct state_path *p, const char *suffix, char out[PATH_MAX]);

/* Puts "state_file PATH: REASON" into why. Returns -1. */
int state_path_complain(const struct state_path *p, const char *reason, char *why, size_t size);

#endif
