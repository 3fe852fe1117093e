#include "fuzz.h"

#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

struct fuzz_text fuzz_until(struct fuzz_text *rest, const char *mark)
{
	const char *at = rest->len ? memmem(rest->p, rest->len, mark, strlen(mark)) : NULL;
	struct fuzz_text head = *rest;

	if (at) {
		head.len = (size_t)(at - rest->p);
		rest->p = at + strlen(mark);
		rest->len -= head.len + strlen(mark);
	} else {
		rest->p += rest->len;
		rest->len = 0;
	}
	return head;
}

char *fuzz_string(struct fuzz_text text)
{
	char *copy = malloc(text.len + 1);

	FUZZ_CHECK(copy);
	if (text.len)
		memcpy(copy, text.p, text.len);
	copy[text.len] = '\0';
	return copy;
}

int fuzz_memfd(char path[32])
{
	int fd = memfd_create("fuzz", MFD_CLOEXEC);

	FUZZ_CHECK(fd >= 0);
	snprintf(path, 32, "/proc/self/fd/%d", fd);
	return fd;
}

void fuzz_fill(int fd, struct fuzz_text text)
{
	FUZZ_CHECK(ftruncate(fd, 0) == 0);
	FUZZ_CHECK(pwrite(fd, text.p, text.len, 0) == (ssize_t)text.len);
}

void fuzz_check_sentence(const char *why, size_t size)
{
	size_t len = strnlen(why, size);

	FUZZ_CHECK(len > 0 && len < size);
	FUZZ_CHECK(!memchr(why, '\n', len));
}
