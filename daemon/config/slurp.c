/* Reading a whole file: see slurp.h. */
#include "config/slurp.h"

#include "base/clock.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* A descriptor, or -1 with the reason in why. Opening a pipe does not wait for its writer. */
static int open_file(const char *path, bool reload, struct file_stamp *stamp, char *why,
		     size_t why_size)
{
	int fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC | O_NOCTTY);
	struct stat st;

	if (fd < 0 || fstat(fd, &st) != 0) {
		snprintf(why, why_size, "%s", strerror(errno));
	} else {
		*stamp = file_stamp_of(&st);
		if (!S_ISDIR(st.st_mode) && (!reload || S_ISREG(st.st_mode)))
			return fd;
		snprintf(why, why_size, "%s",
			 S_ISDIR(st.st_mode) ? strerror(EISDIR)
					     : "no regular file, so it cannot be read a second "
					       "time; restart to read it");
	}
	if (fd >= 0)
		close(fd);
	return -1;
}

/* Waits until something can be read or the end has come; a pipe that nobody has opened for writing
 * has neither. False if the time is over first. */
static bool wait_for(int fd, int64_t until_ms)
{
	struct pollfd pfd = {.fd = fd, .events = POLLIN};
	int64_t left;
	int rc;

	do {
		left = until_ms - clock_ms();
		rc = poll(&pfd, 1, left > 0 ? (int)left : 0);
	} while (rc < 0 && errno == EINTR);
	return rc == 1;
}

/* Reads to the end, or one byte more than max. False with the reason in why. */
static bool read_all(int fd, char *buf, size_t max, size_t *len, char *why, size_t why_size)
{
	int64_t until_ms = clock_ms() + SLURP_WAIT_MS;
	ssize_t n;

	do {
		if (!wait_for(fd, until_ms)) {
			snprintf(why, why_size, "nothing came out of it within %d s",
				 SLURP_WAIT_MS / 1000);
			return false;
		}
		n = read(fd, buf + *len, max + 1 - *len);
		if (n > 0)
			*len += (size_t)n;
	} while ((n > 0 && *len <= max) || (n < 0 && (errno == EINTR || errno == EAGAIN)));
	if (n < 0)
		snprintf(why, why_size, "%s", strerror(errno));
	else if (*len > max)
		snprintf(why, why_size, "larger than %zu bytes", max);
	else
		return true;
	return false;
}

bool slurp(const char *path, size_t max, bool reload, char **text, size_t *len,
	   struct file_stamp *stamp, char *why, size_t why_size)
{
	char *buf = malloc(max + 2);
	int fd = -1;

	*len = 0;
	*stamp = (struct file_stamp){0};
	if (!buf)
		snprintf(why, why_size, "%s", strerror(ENOMEM));
	else
		fd = open_file(path, reload, stamp, why, why_size);
	if (fd >= 0 && read_all(fd, buf, max, len, why, why_size)) {
		close(fd);
		buf[*len] = '\0';
		*text = buf;
		return true;
	}
	if (buf)
		explicit_bzero(buf, *len);
	free(buf);
	if (fd >= 0)
		close(fd);
	return false;
}
